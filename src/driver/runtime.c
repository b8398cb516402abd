#include "driver/runtime.h"

static const struct bt_runtime_ops *const runtimes[] = {
	&bt_runtime_process, &bt_runtime_tomcat, &bt_runtime_bundle};

const struct bt_runtime_ops *bt_runtime_find(enum bt_runtime kind)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(runtimes); i++)
		if (runtimes[i]->kind == kind)
			return runtimes[i];
	return NULL;
}
