#include "driver/op.h"

struct bt_op *bt_op_cancel(struct bt_op *op)
{
	if (op)
		op->cancel(op);
	return NULL;
}
