/* The base layer: text, durations, sizes, JSON getters, durable files, children, threads. */
#include "base/base64.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/loop.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_err_wraps_from_outside_in(void **state)
{
	(void)state;
	struct bt_err err = {0};
	assert_int_equal(bt_err_set(&err, BT_E_FAILED, "line one\nline two\n"), BT_E_FAILED);
	assert_string_equal(err.text, "line one line two");
	assert_int_equal(bt_err_wrap(&err, "host %s", "was1"), BT_E_FAILED);
	assert_string_equal(err.text, "host was1: line one line two");
	assert_int_equal(bt_err_errno(&err, ENOENT, "read x"), -ENOENT);
	assert_string_equal(err.text, "read x: No such file or directory");
	assert_int_equal(bt_err_wrap(NULL, "x"), -EIO);
}

static void test_err_is_cut_not_overrun(void **state)
{
	(void)state;
	struct bt_err err = {0};
	char big[3000];
	memset(big, 'x', sizeof big - 1);
	big[sizeof big - 1] = 0;
	bt_err_set(&err, BT_E_FAILED, "%s", big);
	assert_int_equal(strlen(err.text), BT_ERR_MAX - 1);
	assert_true(bt_str_ends(err.text, "..."));
}

static void test_durations(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t ms;
		const char *printed;
	} good[] = {{"0", 0, "0s"}, {"500ms", 500, "500ms"}, {"30s", 30000, "30s"},
		{"90s", 90000, "90s"}, {"5m", 300000, "5m"}, {"60m", 3600000, "1h"},
		{"400d", 400LL * 86400000, "400d"}};
	static const char *const bad[] = {
		"", "30", "s", "-1s", "1.5s", "1 s", "1S", "401d", "99999999999999999999s", "30sx"};
	char buf[32];
	struct bt_err err;
	for (size_t i = 0; i < BT_ARRAY_LEN(good); i++) {
		int64_t ms = -1;
		assert_int_equal(bt_duration_parse(good[i].text, &ms, &err), 0);
		assert_int_equal(ms, good[i].ms);
		assert_string_equal(bt_duration_format(ms, buf), good[i].printed);
	}
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		int64_t ms = -7;
		assert_int_equal(bt_duration_parse(bad[i], &ms, &err), BT_E_CONFIG);
		assert_int_equal(ms, -7);
	}
}

static void test_sizes(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t bytes;
	} good[] = {{"0", 0}, {"512", 512}, {"512b", 512}, {"64k", 65536}, {"64KiB", 65536},
		{"8m", 8 << 20}, {"2G", 2LL << 30}};
	static const char *const bad[] = {"", "k", "-1", "1.5m", "1t", "8 m", "8mm"};
	for (size_t i = 0; i < BT_ARRAY_LEN(good); i++) {
		int64_t n = -1;
		assert_int_equal(bt_size_parse(good[i].text, &n, NULL), 0);
		assert_int_equal(n, good[i].bytes);
	}
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		int64_t n;
		assert_int_equal(bt_size_parse(bad[i], &n, NULL), BT_E_CONFIG);
	}
}

static void test_ints_and_words(void **state)
{
	(void)state;
	int64_t v = 0;
	assert_int_equal(bt_int_parse("42", 0, 100, &v, NULL), 0);
	assert_int_equal(v, 42);
	assert_int_equal(bt_int_parse("-3", -5, 5, &v, NULL), 0);
	assert_int_equal(bt_int_parse("101", 0, 100, &v, NULL), BT_E_CONFIG);
	assert_int_equal(bt_int_parse("4x", 0, 100, &v, NULL), BT_E_CONFIG);
	assert_int_equal(bt_int_parse(" 4", 0, 100, &v, NULL), BT_E_CONFIG);
	assert_int_equal(bt_int_parse("99999999999999999999", 0, INT64_MAX, &v, NULL), BT_E_CONFIG);
	static const char *const words[] = {"health", "hosts", "traffic"};
	assert_string_equal(bt_nearest("helth", words, 3), "health");
	assert_null(bt_nearest("zzzzzz", words, 3));
	unsigned char raw[2];
	assert_int_equal(bt_unhex("0aFF", raw, 2), BT_E_PROTOCOL);
	assert_int_equal(bt_unhex("0aff", raw, 2), 0);
	assert_int_equal(raw[1], 255);
}

static void test_json_says_which_member(void **state)
{
	(void)state;
	struct bt_err err;
	BT_JSON json_t *j = NULL;
	static const char text[] = "{\"a\":1,\"s\":\"x\",\"z\":null}";
	assert_int_equal(bt_json_parse(text, strlen(text), 1000, &j, &err), 0);
	int64_t n = 0;
	const char *s = "kept";
	assert_int_equal(bt_json_int(j, "a", 0, 5, &n, &err), 0);
	assert_int_equal(bt_json_int(j, "a", 2, 5, &n, &err), BT_E_PROTOCOL);
	assert_int_equal(bt_json_str(j, "a", &s, &err), BT_E_PROTOCOL);
	assert_string_equal(err.text, "member 'a': expected a string, found an integer");
	assert_int_equal(bt_json_str_opt(j, "z", &s, &err), 0);
	assert_string_equal(s, "kept");
	static const char *const bad[] = {"{\"a\":1,\"a\":2}", "{\"a\":\"\\u0000\"}", "{", "[1,]"};
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		BT_JSON json_t *k = NULL;
		assert_int_equal(
			bt_json_parse(bad[i], strlen(bad[i]), 1000, &k, &err), BT_E_PROTOCOL);
	}
	char deep[200];
	memset(deep, '[', 100);
	memset(deep + 100, ']', 100);
	BT_JSON json_t *k = NULL;
	assert_int_equal(bt_json_parse(deep, 200, 1000, &k, &err), BT_E_PROTOCOL);
	assert_int_equal(bt_json_parse(text, strlen(text), 5, &k, &err), BT_E_PROTOCOL);
}

static char dir[64];

static int make_dir(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/baton-base-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
	(void)state;
	return bt_fs_remove_tree(dir, NULL);
}

static void test_write_atomic_leaves_nothing_aside(void **state)
{
	(void)state;
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/a/b/file", dir);
	BT_FREE char *parent = bt_asprintf("%s/a/b", dir);
	assert_int_equal(bt_fs_write_atomic(path, "x", 1, 0600, &err), -ENOENT);
	assert_int_equal(bt_fs_mkdirs(parent, 0700, &err), 0);
	assert_int_equal(bt_fs_write_atomic(path, "one", 3, 0600, &err), 0);
	assert_int_equal(bt_fs_write_atomic(path, "second", 6, 0640, &err), 0);
	char *data = NULL;
	size_t n = 0;
	assert_int_equal(bt_fs_read(path, 100, &data, &n, &err), 0);
	assert_string_equal(data, "second");
	free(data);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_int_equal(bt_fs_read(path, 3, &data, &n, &err), BT_E_REFUSED);
	char hex[65];
	int64_t size;
	assert_int_equal(bt_fs_sha256(path, hex, &size, &err), 0);
	assert_int_equal(size, 6);
	assert_string_equal(
		hex, "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(parent), 0); /* nothing else was left in it */
}

static ino_t inode(const char *path)
{
	struct stat st;
	assert_int_equal(lstat(path, &st), 0);
	return st.st_ino;
}

static void test_write_if_changed_replaces_what_is_not_so(void **state)
{
	(void)state;
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/conf", dir);
	BT_FREE char *other = bt_asprintf("%s/other", dir);
	BT_FREE char *data = NULL;
	struct stat st;
	assert_int_equal(bt_fs_write_if_changed(path, "one", 3, 0644, &err), 0);
	ino_t first = inode(path);
	assert_int_equal(bt_fs_write_if_changed(path, "one", 3, 0644, &err), 0);
	assert_int_equal(inode(path), first);
	assert_int_equal(bt_fs_write_if_changed(path, "two", 3, 0644, &err), 0);
	assert_int_equal(bt_fs_read(path, 100, &data, NULL, &err), 0);
	assert_string_equal(data, "two");
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(bt_fs_write_if_changed(path, "two", 3, 0644, &err), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	/* Somebody's link to a file with the same content is replaced, not followed. */
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(symlink(other, path), 0);
	assert_int_equal(bt_fs_write_if_changed(path, "two", 3, 0644, &err), 0);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_not_equal(inode(path), inode(other));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(unlink(other), 0);
	assert_int_equal(bt_fs_write_if_changed(path, "", 0, 0600, &err), 0);
	assert_int_equal(bt_fs_write_if_changed(path, "", 0, 0600, &err), 0);
	assert_int_equal(unlink(path), 0);
}

static void test_remove_tree_does_not_follow_links(void **state)
{
	(void)state;
	struct bt_err err = {0};
	BT_FREE char *keep = bt_asprintf("%s/keep", dir);
	BT_FREE char *precious = bt_asprintf("%s/keep/precious", dir);
	BT_FREE char *tree = bt_asprintf("%s/tree/sub", dir);
	BT_FREE char *link = bt_asprintf("%s/tree/sub/link", dir);
	BT_FREE char *root = bt_asprintf("%s/tree", dir);
	assert_int_equal(bt_fs_mkdirs(keep, 0700, &err), 0);
	assert_int_equal(bt_fs_write_atomic(precious, "x", 1, 0600, &err), 0);
	assert_int_equal(bt_fs_mkdirs(tree, 0700, &err), 0);
	assert_int_equal(bt_fs_symlink_atomic(keep, link, &err), 0);
	assert_int_equal(bt_fs_symlink_atomic(keep, link, &err), 0); /* replaces */
	assert_int_equal(bt_fs_remove_tree(root, &err), 0);
	assert_false(bt_fs_exists(root));
	assert_true(bt_fs_exists(precious));
	assert_int_equal(bt_fs_remove_tree(root, &err), 0);
}

static void test_lock_is_exclusive(void **state)
{
	(void)state;
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/lock", dir);
	BT_CLOSE int fd = -1;
	int second = -1;
	assert_int_equal(bt_fs_lock(path, &fd, &err), 0);
	assert_int_equal(bt_fs_lock(path, &second, &err), BT_E_REFUSED);
	assert_int_equal(second, -1);
}

struct seen {
	struct event_base *base;
	struct bt_child_result r;
	char output[256];
	int calls, left;
};

static void on_child(void *arg, const struct bt_child_result *r)
{
	struct seen *s = arg;
	s->r = *r;
	s->calls++;
	snprintf(s->output, sizeof s->output, "%s", r->output);
	event_base_loopbreak(s->base);
}

static void run_child(struct seen *s, const struct bt_child_spec *spec)
{
	struct bt_child *c;
	struct bt_err err = {0};
	*s = (struct seen){.base = event_base_new()};
	assert_int_equal(bt_child_start(s->base, spec, on_child, s, &c, &err), 0);
	event_base_dispatch(s->base);
	event_base_free(s->base);
	assert_int_equal(s->calls, 1);
}

static void test_child_output_and_exit(void **state)
{
	(void)state;
	struct seen s;
	const char *const argv[] = {"sh", "-c", "cat; echo err >&2; exit 3", NULL};
	run_child(&s, &(struct bt_child_spec){.argv = argv,
			      .input = "in ",
			      .input_len = 3,
			      .uid = (uid_t)-1,
			      .gid = (gid_t)-1});
	assert_int_equal(s.r.exit_code, 3);
	assert_string_equal(s.output, "in err\n");
	char words[100];
	struct bt_child_result r = {.exit_code = 3, .output = "a\nlast\n", .output_len = 7};
	assert_string_equal(bt_child_describe(&r, words, sizeof words), "exit code 3: last");
}

static void test_child_keeps_the_tail(void **state)
{
	(void)state;
	struct seen s;
	const char *const argv[] = {"sh", "-c", "seq 1 20000; echo end", NULL};
	run_child(&s, &(struct bt_child_spec){
			      .argv = argv, .max_output = 64, .uid = (uid_t)-1, .gid = (gid_t)-1});
	assert_int_equal(s.r.exit_code, 0);
	assert_true(s.r.cut);
	assert_true(bt_str_ends(s.output, "20000\nend\n"));
	assert_int_equal(s.r.output_len, 64);
}

static void test_child_deadline_ends_the_group(void **state)
{
	(void)state;
	struct seen s;
	const char *const argv[] = {"sh", "-c", "trap '' TERM; sleep 1000 & wait; wait", NULL};
	run_child(&s, &(struct bt_child_spec){
			      .argv = argv, .timeout_ms = 50, .uid = (uid_t)-1, .gid = (gid_t)-1});
	assert_true(s.r.timed_out);
	assert_int_equal(s.r.signal, SIGKILL);
}

static void test_child_that_cannot_start(void **state)
{
	(void)state;
	struct event_base *base = event_base_new();
	struct bt_child *c = NULL;
	struct bt_err err = {0};
	const char *const argv[] = {"/nonexistent/program", NULL};
	assert_int_equal(
		bt_child_start(base,
			&(struct bt_child_spec){.argv = argv, .uid = (uid_t)-1, .gid = (gid_t)-1},
			on_child, NULL, &c, &err),
		-ENOENT);
	assert_string_equal(err.text, "run /nonexistent/program: No such file or directory");
	event_base_free(base);
}

struct count {
	struct event_base *base;
	int run, done, total;
};

static void work_run(void *arg)
{
	((struct count *)arg)->run++; /* one thread: in order, no race */
}

static void work_done(void *arg)
{
	struct count *c = arg;
	if (++c->done == c->total)
		event_base_loopbreak(c->base);
}

static void test_work_comes_back_on_the_loop(void **state)
{
	(void)state;
	struct count c = {.base = event_base_new(), .total = 1000};
	struct bt_work *w = bt_work_new(c.base, 1);
	for (int i = 0; i < c.total; i++)
		bt_work_submit(w, work_run, work_done, &c);
	event_base_dispatch(c.base);
	bt_work_free(w);
	event_base_free(c.base);
	assert_int_equal(c.run, 1000);
	assert_int_equal(c.done, 1000);
}

static void test_arena(void **state)
{
	(void)state;
	struct bt_arena *a = bt_arena_new();
	for (size_t i = 1; i < 3000; i += 7) {
		char *p = bt_arena_alloc(a, i);
		assert_int_equal((uintptr_t)p % 16, 0);
		for (size_t k = 0; k < i; k++)
			assert_int_equal(p[k], 0);
		memset(p, 'x', i);
	}
	assert_string_equal(bt_arena_printf(a, "%d-%s", 7, "x"), "7-x");
	assert_null(bt_arena_strdup(a, NULL));
	assert_null(bt_arena_free(a));
}

static void test_base64(void **state)
{
	(void)state;
	static const struct {
		const char *plain, *text;
	} table[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"},
		{"\xff\xfe\xfd\xfc", "//79/A=="}};
	static const char *const bad[] = {
		"Z", "Zg", "Zg=", "Zg===", "====", "Zm 9", "Zm9v\n", "Zg==Zg=="};
	for (size_t i = 0; i < BT_ARRAY_LEN(table); i++) {
		BT_FREE char *text = bt_base64(table[i].plain, strlen(table[i].plain));
		BT_FREE char *back = NULL;
		size_t n = 99;
		assert_string_equal(text, table[i].text);
		assert_int_equal(bt_unbase64(text, &back, &n, NULL), 0);
		assert_int_equal(n, strlen(table[i].plain));
		assert_string_equal(back, table[i].plain);
	}
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		char *back = NULL;
		size_t n;
		assert_int_equal(bt_unbase64(bad[i], &back, &n, NULL), BT_E_PROTOCOL);
	}
}

static void test_clock(void **state)
{
	char buf[32];
	(void)state;
	static const int64_t times[] = {0, 1, 999, 1795255142123, 4102444799999};
	for (size_t i = 0; i < BT_ARRAY_LEN(times); i++)
		assert_int_equal(bt_clock_parse(bt_clock_format(times[i], buf)), times[i]);
	assert_int_equal(bt_clock_parse("2026-11-21T06:39:02Z"), 1795243142000);
	assert_int_equal(bt_clock_parse("2026-11-21T06:39:02.5Z"), 1795243142500);
	assert_int_equal(bt_clock_parse("2026-11-21T06:39:02.123456Z"), 1795243142123);
	static const char *const bad[] = {NULL, "", "now", "2026-11-21", "2026-11-21T06:39:02",
		"2026-11-21T06:39:02+09:00", "2026-13-21T06:39:02Z", "2026-11-21T06:39:02Zx"};
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++)
		assert_int_equal(bt_clock_parse(bad[i]), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_err_wraps_from_outside_in),
		cmocka_unit_test(test_err_is_cut_not_overrun),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_ints_and_words),
		cmocka_unit_test(test_json_says_which_member),
		cmocka_unit_test_setup_teardown(
			test_write_atomic_leaves_nothing_aside, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(
			test_write_if_changed_replaces_what_is_not_so, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(
			test_remove_tree_does_not_follow_links, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_lock_is_exclusive, make_dir, drop_dir),
		cmocka_unit_test(test_child_output_and_exit),
		cmocka_unit_test(test_child_keeps_the_tail),
		cmocka_unit_test(test_child_deadline_ends_the_group),
		cmocka_unit_test(test_child_that_cannot_start),
		cmocka_unit_test(test_work_comes_back_on_the_loop),
		cmocka_unit_test(test_arena),
	};
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
