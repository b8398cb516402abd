#include "config_text.h"

#include "base/json.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void show(const struct bt_config_problems *problems)
{
	for (size_t i = 0; i < problems->n; i++)
		print_message("%s\n", problems->items[i].line);
}

struct bt_config *config_of(const char *text, bt_config_env env)
{
	struct bt_config *c = NULL;
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	if (bt_config_parse(text, strlen(text), "baton.yaml", env, NULL, &c, &problems, &err) < 0) {
		show(&problems);
		fail_msg("%s\nin:\n%s", err.text, text);
	}
	assert_int_equal(problems.n, 0);
	return c;
}

void config_refused(const char *text, bt_config_env env, const char *const *lines, size_t n)
{
	struct bt_config *c = NULL;
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	int r = bt_config_parse(text, strlen(text), "f", env, NULL, &c, &problems, &err);
	bool same = problems.n == n;
	for (size_t i = 0; same && i < n; i++)
		same = bt_streq(problems.items[i].line, lines[i]);
	if (!same) {
		show(&problems);
		fail_msg("other problems than expected in:\n%s", text);
	}
	assert_int_equal(r, BT_E_CONFIG);
	assert_null(c);
	assert_string_equal(err.text, lines[0]);
	bt_config_problems_done(&problems);
}

void config_same_again(const struct bt_config *c)
{
	BT_STR struct bt_str text = {0}, again_text = {0};
	bt_config_print(c, &text);
	struct bt_config *again = config_of(bt_str_get(&text), NULL);
	assert_int_equal(again->n_services, c->n_services);
	for (size_t i = 0; i < c->n_services; i++) {
		BT_JSON json_t *x = bt_config_service_to_json(&c->services[i]);
		BT_JSON json_t *y = bt_config_service_to_json(&again->services[i]);
		if (!json_equal(x, y))
			fail_msg("reads back differently:\n%s", bt_str_get(&text));
		struct bt_config *from = NULL;
		struct bt_err err = {0};
		if (bt_config_service_from_json(x, &from, &err) < 0)
			fail_msg("%s", err.text);
		BT_JSON json_t *z = bt_config_service_to_json(&from->services[0]);
		assert_true(json_equal(x, z));
		bt_config_free(from);
	}
	bt_config_print(again, &again_text);
	assert_string_equal(bt_str_get(&text), bt_str_get(&again_text));
	bt_config_free(again);
}
