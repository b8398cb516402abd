/* Any bytes as a plan: never a crash, what is taken can be printed and writes back the same. */
#include "fuzz.h"

#include "base/json.h"
#include "base/str.h"
#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BT_JSON json_t *j = NULL;
	struct bt_plan *p = NULL, *again = NULL;
	struct bt_err err = {0};
	if (bt_json_parse((const char *)data, size, 1 << 20, &j, &err) < 0 ||
		bt_plan_from_json(j, &p, &err) < 0)
		return 0;
	BT_STR struct bt_str text = {0};
	bt_plan_print(p, &text);
	BT_JSON json_t *x = bt_plan_to_json(p);
	FUZZ_CHECK(bt_plan_from_json(x, &again, &err) == 0);
	BT_JSON json_t *y = bt_plan_to_json(again);
	FUZZ_CHECK(json_equal(x, y));
	bt_plan_free(p);
	bt_plan_free(again);
	return 0;
}
