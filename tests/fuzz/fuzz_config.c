/* Any bytes as baton.yaml: never a crash, and what reads prints to what reads the same. */
#include "fuzz.h"

#include "base/json.h"
#include "base/str.h"
#include "config/config.h"

#include <string.h>

static const char *env(void *arg, const char *name)
{
	(void)arg;
	return bt_streq(name, "A") ? "value of ${A}" : NULL;
}

static void same(const struct bt_config *c)
{
	BT_STR struct bt_str text = {0};
	struct bt_config *again = NULL;
	bt_config_print(c, &text);
	FUZZ_CHECK(bt_config_parse(bt_str_get(&text), text.len, "again", NULL, NULL, &again, NULL,
			   NULL) == 0 ||
		   text.len > 1 << 20);
	for (size_t i = 0; again && i < c->n_services; i++) {
		BT_JSON json_t *x = bt_config_service_to_json(&c->services[i]);
		BT_JSON json_t *y = bt_config_service_to_json(&again->services[i]);
		FUZZ_CHECK(json_equal(x, y));
		struct bt_config *from = NULL;
		FUZZ_CHECK(bt_config_service_from_json(x, &from, NULL) == 0);
		BT_JSON json_t *z = bt_config_service_to_json(&from->services[0]);
		FUZZ_CHECK(json_equal(x, z));
		bt_config_free(from);
	}
	bt_config_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bt_config *c = NULL;
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	int r = bt_config_parse((const char *)data, size, "fuzz", env, NULL, &c, &problems, &err);
	FUZZ_CHECK((r == 0) == (problems.n == 0) && (r == 0) == (c != NULL));
	for (size_t i = 0; i < problems.n; i++)
		FUZZ_CHECK(!strchr(problems.items[i].line, '\n'));
	if (r == 0)
		same(c);
	bt_config_free(c);
	bt_config_problems_done(&problems);
	return 0;
}
