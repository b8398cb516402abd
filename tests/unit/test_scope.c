/* Patterns of a token's scope. */
#include "server/scope.h"

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static bool covers(const char *pattern, const char *service)
{
	BT_JSON json_t *scope = json_pack("[s, s]", "never", pattern);
	return bt_scope_covers(scope, service);
}

static void test_patterns(void **state)
{
	(void)state;
	assert_true(bt_scope_covers(NULL, "anything@all"));
	assert_true(covers("shop", "shop") && !covers("shop", "shop2") && !covers("shop", "sho"));
	assert_true(!covers("shop", "shop@release") && !covers("shop", "SHOP"));
	assert_true(covers("shop*", "shop") && covers("shop*", "shop-api"));
	assert_true(!covers("shop*", "shop@release") && !covers("*", "shop@release"));
	assert_true(covers("*@dev", "shop@dev") && !covers("*@dev", "shop") &&
		    !covers("*@dev", "shop@dev2"));
	assert_true(covers("shop@*", "shop@dev") && covers("*@*", "a@b") && !covers("*@*", "a"));
	assert_true(covers("a*b*c", "axxbxbxc") && !covers("a*b*c", "axxbxbx"));
	assert_false(bt_scope_covers(json_null(), "shop"));
	assert_false(covers("*", NULL));
}

static void expect_scope(const char *body, const char *want)
{
	BT_JSON json_t *j = json_loads(body, 0, NULL);
	BT_JSON json_t *scope = NULL;
	BT_STR struct bt_str words = {0};
	struct bt_err err;
	int r = bt_scope_read(j, &scope, &err);
	if (want)
		assert_int_equal(0, r);
	else
		assert_int_equal(BT_E_CONFIG, r);
	if (!want)
		return;
	bt_scope_words(scope, &words);
	assert_string_equal(want, words.data);
}

static void test_reading(void **state)
{
	(void)state;
	expect_scope("{}", "all services");
	expect_scope("{\"services\":[],\"environments\":[]}", "all services");
	expect_scope("{\"services\":[\"shop\",\"a-*@dev\"]}", "shop, a-*@dev");
	expect_scope("{\"environments\":[\"dev\"]}", "*@dev");
	expect_scope(
		"{\"services\":[\"a\",\"b@x\"],\"environments\":[\"d\",\"s*\"]}", "a@d, a@s*, b@x");
	static const char *const bad[] = {"{\"services\":\"shop\"}", "{\"services\":[1]}",
		"{\"services\":[\"\"]}", "{\"services\":[\"a b\"]}", "{\"services\":[\"a@\"]}",
		"{\"services\":[\"@a\"]}", "{\"services\":[\"a@b@c\"]}",
		"{\"environments\":[\"a@b\"]}", "{\"services\":[\"a/b\"]}"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		expect_scope(bad[i], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_reading),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
