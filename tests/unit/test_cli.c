#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fs.h"
#include "cli/flow.h"
#include "cli/stream.h"
#include "cli/top.h"
#include "cli/view.h"

#include <stdio.h>
#include <string.h>

static void parse(const char *line, struct bt_cli *ret, int expect, const char *words)
{
	/* cli keeps pointers into argv, so the copies live as long as the test. */
	static char texts[32][256];
	static size_t used;
	char *text = texts[used++ % 32], *argv[32];
	int argc = 0;
	struct bt_err err = {0};
	snprintf(text, sizeof texts[0], "%s", line);
	for (char *p = strtok(text, " "); p; p = strtok(NULL, " "))
		argv[argc++] = p;
	int r = bt_cli_parse(argc, argv, ret, &err);
	assert_int_equal(r, expect);
	if (words)
		assert_non_null(strstr(err.text, words));
}

static void test_parse(void **state)
{
	(void)state;
	struct bt_cli c = {0};
	parse("deploy --version=1 shop -a f.jar", &c, 0, NULL);
	assert_string_equal(c.command->name, "deploy");
	assert_string_equal(bt_cli_get(&c, "version"), "1");
	assert_string_equal(bt_cli_get(&c, "artifact"), "f.jar");
	assert_string_equal(bt_cli_arg(&c, 0), "shop");
	assert_null(bt_cli_arg(&c, 1));
	assert_false(bt_cli_has(&c, "json"));
	parse("server run --listen 1:2 --listen 3:4", &c, 0, NULL);
	assert_string_equal(bt_cli_get(&c, "listen"), "3:4");
	parse("logs -fn5 shop", &c, BT_E_CONFIG, "takes no value");
	parse("logs shop -n5 -f", &c, 0, NULL);
	assert_string_equal(bt_cli_get(&c, "lines"), "5");
	parse("show -- --json", &c, 0, NULL);
	assert_string_equal(bt_cli_arg(&c, 0), "--json");
	parse("stauts", &c, BT_E_CONFIG, "did you mean 'status'");
	parse("agent rnu", &c, BT_E_CONFIG, "baton agent run");
	parse("show", &c, BT_E_CONFIG, "needs DEPLOYMENT");
	parse("show --help", &c, 0, NULL);
	assert_true(c.help);
}

/* The table itself: what parsing and help rely on. */
static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < bt_cli_commands_len; i++) {
		const struct bt_cli_command *c = &bt_cli_commands[i];
		assert_non_null(c->run);
		assert_true(c->summary[strlen(c->summary) - 1] == '.');
		assert_true(c->max_args >= c->min_args && c->max_args <= BT_CLI_MAX_ARGS);
		assert_ptr_equal(bt_cli_find(c->name), c);
		for (size_t j = 0; j < c->n_options; j++)
			for (size_t k = 0; k < j; k++) {
				assert_string_not_equal(c->options[j].name, c->options[k].name);
				assert_true(!c->options[j].letter ||
					    c->options[j].letter != c->options[k].letter);
			}
	}
}

static void test_exit_codes(void **state)
{
	(void)state;
	assert_int_equal(bt_exit_code(BT_E_CONFIG), 2);
	assert_int_equal(bt_exit_code(BT_E_AUTH), 2);
	assert_int_equal(bt_exit_code(BT_E_LEASE), 4);
	assert_int_equal(bt_exit_code(BT_E_UNREACHABLE), 5);
	assert_int_equal(bt_exit_code(-5), 1);
}

struct seen {
	struct bt_str text;
};

static int on_event(void *arg, const char *event, int64_t id, const char *data, size_t n)
{
	struct seen *s = arg;
	assert_int_equal(n, strlen(data));
	bt_str_addf(&s->text, "[%s %lld %s]", event, (long long)id, data);
	return 0;
}

static void test_sse(void **state)
{
	(void)state;
	static const char stream[] =
		": hello\n\nid: 7\nevent: record\ndata: {\"a\":1}\n\n"
		"event: progress\r\ndata: x\r\ndata:y\r\n\r\n"
		"id: 99999999999999999999\ndata: z\n\nevent: none\n\ndata: cut";
	static const char expect[] = "[record 7 {\"a\":1}][progress -1 x\ny][message -1 z]";
	for (size_t piece = 1; piece <= sizeof stream; piece++) {
		struct seen seen = {0};
		struct bt_sse sse = {.on_event = on_event, .arg = &seen, .id = -1};
		for (size_t i = 0; i + 1 < sizeof stream; i += piece) {
			size_t left = sizeof stream - 1 - i;
			assert_int_equal(
				bt_sse_feed(&sse, stream + i, left < piece ? left : piece), 0);
		}
		assert_string_equal(bt_str_get(&seen.text), expect);
		/* What the connection cut off is not an event of the next one. */
		bt_sse_reset(&sse);
		assert_int_equal(bt_sse_feed(&sse, "data: w\n\n", 9), 0);
		assert_non_null(strstr(seen.text.data, "[message -1 w]"));
		assert_null(strstr(seen.text.data, "cut"));
		bt_sse_done(&sse);
		bt_str_done(&seen.text);
	}
}

static void test_sse_is_bounded(void **state)
{
	(void)state;
	struct seen seen = {0};
	struct bt_sse sse = {.on_event = on_event, .arg = &seen, .id = -1};
	char block[4096];
	int r = 0;
	memset(block, 'x', sizeof block);
	for (int i = 0; i < 1024 && r == 0; i++)
		r = bt_sse_feed(&sse, block, sizeof block);
	assert_int_equal(r, BT_E_PROTOCOL);
	bt_sse_done(&sse);
	bt_str_done(&seen.text);
}

static void check_clean(const char *text, size_t columns, const char *expect)
{
	BT_STR struct bt_str s = {0};
	bt_view_clean(&s, text, columns);
	assert_string_equal(bt_str_get(&s), expect);
}

static void test_clean(void **state)
{
	(void)state;
	check_clean("plain", 0, "plain");
	check_clean("\033[2Jx\ry\tz\177", 0, " [2Jx y z ");
	check_clean("a\xc2\x9b"
		    "31mb",
		0, "a 31mb"); /* C1 */
	check_clean("\xff\xc3(", 0,
		"?"
		"?(");
	check_clean("\xe2\x80\xae"
		    "gpj",
		0, " gpj"); /* right-to-left override */
	check_clean("한국어", 0, "한국어");
	check_clean("한국어", 5, "한국…");
	check_clean("한국어", 6, "한국어");
	check_clean("abcdef", 4, "abc…");
	check_clean("abcd", 4, "abcd");
	assert_int_equal(bt_view_columns("a한"), 3);
}

static void test_time(void **state)
{
	(void)state;
	char t[16];
	bt_view_time("2026-11-21T06:39:02.123Z", t);
	assert_int_equal(strlen(t), 8);
	assert_string_equal(t + 5, ":02");
	bt_view_time("yesterday", t);
	assert_string_equal(t, "        ");
	bt_view_time(NULL, t);
	assert_string_equal(t, "        ");
}

static const char facts[] =
	"{\"services\":[{\"name\":\"shop\",\"phase\":\"running\",\"release\":{\"id\":1,"
	"\"version\":\"1.4.1\"},\"balancers\":[{\"host\":\"web1\",\"running\":false,\"trouble\":"
	"\"nginx is not running "
	"(/run/nginx.pid)\"}],\"slots\":[{\"host\":\"was1\",\"slot\":\"blue\","
	"\"port\":8081,\"state\":\"running\",\"version\":\"1.4.1\",\"in\":true,\"since\":"
	"\"2026-11-21T06:39:02.000Z\"},{\"host\":\"was1\",\"slot\":\"green\",\"port\":8082,"
	"\"state\":"
	"\"crashing\",\"version\":\"버전\",\"in\":false},{\"host\":\"was1\",\"slot\":\"red\","
	"\"port\":8083,"
	"\"state\":\"absent\",\"stranger\":\"java (pid 812)\",\"in\":false}]}],"
	"\"hosts\":[{\"name\":\"was1\",\"connected\":false,\"last_seen_at\":"
	"\"2026-11-21T06:39:02.000Z\",\"free_bytes\":1073741824}],"
	"\"deployments\":[{\"id\":17,\"service\":\"shop\",\"version\":\"1.4.2\",\"old_version\":"
	"\"1.4.1\",\"phase\":\"running\",\"started_at\":\"2026-11-21T06:39:02.000Z\"},{\"id\":16,"
	"\"service\":\"shop\",\"version\":\"1.4.1\",\"phase\":\"ended\",\"end\":\"rolled_back\","
	"\"reason\":"
	"\"bad \\u001b[31m news\",\"started_at\":\"2026-11-21T06:30:00.000Z\",\"ended_at\":"
	"\"2026-11-21T06:30:12.000Z\"}],"
	"\"doing\":{\"17\":{\"stage\":\"bake\",\"what\":\"watch\"}}}";

static const struct bt_top_line *line_with(const struct bt_top_lines *l, const char *text)
{
	for (size_t i = 0; i < l->n; i++)
		if (strstr(l->lines[i].text, text))
			return &l->lines[i];
	fail_msg("no line with '%s'", text);
	return NULL;
}

static void test_top(void **state)
{
	(void)state;
	BT_JSON json_t *j = json_loads(facts, 0, NULL);
	assert_non_null(j);
	struct bt_top_facts f = {.url = "http://x",
		.services = json_object_get(j, "services"),
		.hosts = json_object_get(j, "hosts"),
		.deployments = json_object_get(j, "deployments"),
		.doing = json_object_get(j, "doing"),
		.now_ms = 1795243142000 + 65000};
	for (size_t columns = 20; columns < 160; columns += 7) {
		BT_TOP_LINES struct bt_top_lines l = {0};
		bt_top_overview(&f, columns, &l);
		for (size_t i = 0; i < l.n; i++)
			assert_true(bt_view_columns(l.lines[i].text) <= columns);
	}
	BT_TOP_LINES struct bt_top_lines l = {0};
	bt_top_overview(&f, 0, &l);
	assert_string_equal(line_with(&l, "was1/blue")->text,
		"  was1/blue   1.4.1    running         in        8081  65s");
	assert_int_equal(line_with(&l, "was1/blue")->mark, BT_MARK_GOOD);
	assert_string_equal(line_with(&l, "was1/green")->text,
		"  was1/green  버전     crashing        out       8082  -");
	assert_string_equal(line_with(&l, "was1/red")->text,
		"  was1/red    -        java (pid 812)  out       8083  -");
	assert_int_equal(line_with(&l, "nginx is not running")->mark, BT_MARK_BAD);
	assert_string_equal(line_with(&l, "17")->text,
		"17  shop     1.4.1 → 1.4.2  running      bake   65s   watch");
	assert_string_equal(line_with(&l, "17")->key, "run/17");
	assert_string_equal(line_with(&l, "rolled back")->text,
		"16  shop     1.4.1          rolled back  -      12s   bad  [31m news");
	assert_string_equal(
		line_with(&l, "1.0 GiB")->text, "was1  -        -      NO         65s   1.0 GiB");
}

/* docs/flows.md is what the table of tasks and the flows that come with baton say. */
static void test_flows_document(void **state)
{
	(void)state;
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/../../docs/flows.md", GOLDEN_DIR);
	BT_FREE char *doc = NULL;
	BT_STR struct bt_str made = {0};
	if (bt_fs_read(path, 1 << 20, &doc, NULL, &err) < 0)
		fail_msg("%s", err.text);
	bt_flows_markdown(&made);
	if (strcmp(doc, bt_str_get(&made)) != 0)
		fail_msg("docs/flows.md is old: build/src/cli/baton flows --markdown > "
			 "docs/flows.md");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_top),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_exit_codes),
		cmocka_unit_test(test_sse),
		cmocka_unit_test(test_sse_is_bounded),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_flows_document),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
