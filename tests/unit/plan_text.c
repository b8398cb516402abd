#include "plan_text.h"

#include "base/json.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

struct bt_plan *plan_of_text(const char *text)
{
	BT_FREE char *json = bt_strdup(text);
	BT_JSON json_t *j = NULL;
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	for (char *c = json; *c; c++)
		if (*c == '\'')
			*c = '"';
	if (bt_json_parse(json, strlen(json), 65536, &j, &err) < 0 ||
		bt_plan_from_json(j, &p, &err) < 0)
		fail_msg("%s", err.text);
	return p;
}
