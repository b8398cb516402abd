/* docs/api.md and docs/openapi.yaml against the route table: every route is there with its role and
 * summary, and nothing is there that is no route. */
#include "base/fs.h"
#include "server/server_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const char *const roles[] = {[BT_AUTH_NONE] = "none",
	[BT_AUTH_VIEWER] = "viewer",
	[BT_AUTH_DEPLOYER] = "deployer",
	[BT_AUTH_ADMIN] = "admin",
	[BT_AUTH_AGENT] = "agent"};

static char *read_doc(const char *name)
{
	BT_FREE char *path = bt_asprintf("%s/%s", GOLDEN_DIR "/../../docs", name);
	struct bt_err err;
	char *text = NULL;
	if (bt_fs_read(path, 1 << 20, &text, NULL, &err) < 0)
		fail_msg("%s", err.text);
	return text;
}

static void check_markdown(const char *md, const struct bt_route_row *rows, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		BT_FREE char *line = bt_asprintf("| %s | `%s` | %s | %s |\n", rows[i].method,
			rows[i].pattern, roles[rows[i].auth], rows[i].summary);
		if (!strstr(md, line))
			fail_msg("docs/api.md lacks: %s", line);
	}
}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;
	for (const char *at = text; (at = strstr(at, what)); at += strlen(what))
		n++;
	return n;
}

static void test_markdown(void **state)
{
	BT_FREE char *md = read_doc("api.md");
	(void)state;
	check_markdown(md, bt_people_routes, bt_people_routes_n);
	check_markdown(md, bt_agent_routes, bt_agent_routes_n);
	size_t n = 0;
	for (size_t i = 0; i < BT_ARRAY_LEN(roles); i++) {
		BT_FREE char *cell = bt_asprintf("` | %s | ", roles[i]);
		n += count(md, cell);
	}
	assert_int_equal(bt_people_routes_n + bt_agent_routes_n, n);
}

static void lower(char *to, const char *from)
{
	do
		*to++ = (char)(*from >= 'A' && *from <= 'Z' ? *from + 32 : *from);
	while (*from++);
}

static void test_openapi(void **state)
{
	BT_FREE char *doc = read_doc("openapi.yaml");
	char method[16];
	(void)state;
	for (size_t i = 0; i < bt_people_routes_n; i++) {
		const struct bt_route_row *row = &bt_people_routes[i];
		BT_FREE char *path = bt_asprintf("\n  %s:\n", row->pattern);
		lower(method, row->method);
		BT_FREE char *want =
			bt_asprintf("\n    %s:\n      summary: \"%s\"\n      x-role: %s\n", method,
				row->summary, roles[row->auth]);
		const char *at = strstr(doc, path);
		if (!at) {
			fail_msg("docs/openapi.yaml lacks %s", row->pattern);
			return;
		}
		const char *next = strstr(at + 1, "\n  /"), *found = strstr(at, want);
		if (!found || (next && found > next))
			fail_msg("docs/openapi.yaml: %s %s: expected%s", row->method, row->pattern,
				want);
	}
	assert_int_equal(bt_people_routes_n, count(doc, "\n      x-role: "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_markdown),
		cmocka_unit_test(test_openapi),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
