/* The store with a real file: group commit, what a failed statement takes with it, a full disk,
 * a killed process, and the migration of a store that schema 1 wrote. */
#include "base/fs.h"
#include "base/str.h"
#include "journal/store.h"

#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	struct event_base *base;
	struct bt_store *store;
	char dir[64], path[96];
	int waiting, good, bad;
	int64_t last;
	int last_result;
};

static void open_store(struct fixture *f, int64_t max_pages)
{
	struct bt_err err;
	struct bt_store_spec spec = {.path = f->path, .base = f->base, .max_pages = max_pages};
	if (bt_store_open(&spec, &f->store, &err) < 0)
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	struct fixture *f = bt_calloc(1, sizeof *f);
	snprintf(f->dir, sizeof f->dir, "/tmp/bt-store-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof f->path, "%s/baton.db", f->dir);
	f->base = event_base_new();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	bt_store_free(f->store);
	event_base_free(f->base);
	(void)bt_fs_remove_tree(f->dir, NULL);
	free(f);
	return 0;
}

static void on_commit(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct fixture *f = arg;
	(void)err;
	f->waiting--;
	f->last_result = result;
	f->last = bt_txn_value(t, 0);
	if (result == 0)
		f->good++;
	else
		f->bad++;
}

static void submit(struct fixture *f, struct bt_txn *t)
{
	f->waiting++;
	bt_store_commit(f->store, t, on_commit, f);
}

static void wait_all(struct fixture *f)
{
	while (f->waiting > 0)
		event_base_loop(f->base, EVLOOP_ONCE);
}

static struct bt_txn *audit(const char *what)
{
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_AUDIT_ADD, (int64_t)1, "me", (const char *)NULL, (const char *)NULL,
		what, (const char *)NULL);
	return t;
}

static size_t count_audit(struct fixture *f)
{
	json_t *list;
	assert_int_equal(0, bt_store_select(f->store, &list, NULL, BT_SQL_AUDIT, (const char *)NULL,
				    (const char *)NULL, (int64_t)0, (int64_t)10000));
	size_t n = json_array_size(list);
	json_decref(list);
	return n;
}

static void test_every_statement_compiles(void **state)
{
	struct fixture *f = *state;
	open_store(f, 0);
	sqlite3 *db;
	assert_int_equal(SQLITE_OK, sqlite3_open(f->path, &db));
	static const struct {
		const char *name, *sig, *text;
	} all[] = {
#define BT_SQL_ROW(name, sig, must, text) {#name, sig, text},
#include "journal/statements.h"
#undef BT_SQL_ROW
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(all); i++) {
		sqlite3_stmt *st;
		if (sqlite3_prepare_v2(db, all[i].text, -1, &st, NULL) != SQLITE_OK)
			fail_msg("%s: %s", all[i].name, sqlite3_errmsg(db));
		assert_int_equal(sqlite3_bind_parameter_count(st), (int)strlen(all[i].sig));
		sqlite3_finalize(st);
	}
	sqlite3_close(db);
}

static void test_waiting_transactions_share_commits(void **state)
{
	struct fixture *f = *state;
	open_store(f, 0);
	int64_t before = bt_store_commits(f->store);
	for (int i = 0; i < 200; i++)
		submit(f, audit("x"));
	wait_all(f);
	assert_int_equal(200, f->good);
	assert_int_equal(200, count_audit(f));
	assert_true(bt_store_commits(f->store) - before < 200);
}

static void test_a_failed_one_takes_no_other_along(void **state)
{
	struct fixture *f = *state;
	open_store(f, 0);
	for (int i = 0; i < 3; i++) {
		struct bt_txn *t = audit("lease");
		bt_txn_add(t, BT_SQL_LEASE_TAKE, "shop", (int64_t)(i + 1), "me", (int64_t)5);
		submit(f, t);
	}
	wait_all(f);
	assert_int_equal(1, f->good);
	assert_int_equal(2, f->bad);
	assert_int_equal(BT_E_LEASE, f->last_result);
	assert_int_equal(1, count_audit(f)); /* the statement before the failed one is gone too */
	assert_int_equal(1, bt_store_number(f->store, -1, BT_SQL_LEASE_GET, "shop"));
}

static void test_outbox_numbers_have_no_gap(void **state)
{
	struct fixture *f = *state;
	open_store(f, 0);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_HOST_PUT, "was1", (int64_t)1);
	submit(f, t);
	for (int i = 1; i <= 4; i++) {
		t = bt_txn_new();
		bt_txn_add(t, BT_SQL_HOST_NEXT_SEQ, "was1");
		bt_txn_add(t, BT_SQL_OUTBOX_ADD, "was1", (int64_t)1, (int64_t)i, "do", (int64_t)1,
			(const char *)NULL, "{}");
		if (i == 2) /* fails: shop is not there twice */
			bt_txn_add(t, BT_SQL_HOST_NEXT_SEQ, "nobody");
		submit(f, t);
		wait_all(f);
	}
	assert_int_equal(1, f->bad);
	assert_int_equal(3, f->last);
	json_t *list;
	assert_int_equal(0, bt_store_select(f->store, &list, NULL, BT_SQL_OUTBOX_OPEN, "was1"));
	assert_int_equal(3, json_array_size(list));
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(
			i + 1, json_integer_value(json_object_get(json_array_get(list, i), "seq")));
	json_decref(list);
}

static void test_full_disk_is_told_and_harmless(void **state)
{
	struct fixture *f = *state;
	open_store(f, 80);
	char big[20001];
	memset(big, 'x', 20000);
	big[20000] = '\0';
	while (f->bad == 0 && f->good < 1000) {
		submit(f, audit(big));
		wait_all(f);
	}
	assert_int_equal(1, f->bad);
	assert_int_equal(BT_E_STORE, f->last_result);
	size_t n = count_audit(f);
	assert_int_equal(f->good, n);
	f->store = bt_store_free(f->store);
	open_store(f, 0); /* room again */
	assert_int_equal(n, count_audit(f));
	submit(f, audit("after"));
	wait_all(f);
	assert_int_equal(n + 1, count_audit(f));
}

/* A child commits and reports each durable one by a pipe until it is killed: whatever was
 * reported must be there. */
static void child(struct fixture *f, int fd)
{
	open_store(f, 0);
	for (int i = 0; i < 100000; i++) {
		if (bt_store_commit_now(f->store, audit("c"), NULL) < 0)
			_exit(1);
		if (write(fd, "x", 1) != 1)
			_exit(0);
	}
	_exit(0);
}

static void test_killed_writer_loses_nothing_reported(void **state)
{
	struct fixture *f = *state;
	int fds[2];
	assert_int_equal(0, pipe(fds));
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		child(f, fds[1]);
	close(fds[1]);
	size_t reported = 0;
	char c;
	while (reported < 25 && read(fds[0], &c, 1) == 1)
		reported++;
	assert_int_equal(0, kill(pid, SIGKILL));
	while (read(fds[0], &c, 1) == 1)
		reported++;
	close(fds[0]);
	assert_int_equal(pid, waitpid(pid, NULL, 0));
	open_store(f, 0);
	assert_true(reported >= 25);
	assert_true(count_audit(f) >= reported);
	assert_true(count_audit(f) <= reported + 1);
}

static void load_v1(struct fixture *f, const char *more)
{
	BT_FREE char *sql = NULL;
	struct bt_err err;
	if (bt_fs_read(GOLDEN_DIR "/store-v1.sql", 1 << 20, &sql, NULL, &err) < 0)
		fail_msg("%s", err.text);
	sqlite3 *db;
	assert_int_equal(SQLITE_OK, sqlite3_open(f->path, &db));
	char *why = NULL;
	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		fail_msg("%s", why);
	assert_int_equal(SQLITE_OK, sqlite3_exec(db, more, NULL, NULL, NULL));
	sqlite3_close(db);
}

static int find_backup(struct fixture *f, char *path, size_t n)
{
	DIR *d = opendir(f->dir);
	int found = 0;
	for (struct dirent *e; (e = readdir(d));)
		if (bt_str_ends(e->d_name, ".bak") && bt_str_starts(e->d_name, "baton.db.v1.")) {
			snprintf(path, n, "%s/%s", f->dir, e->d_name);
			found++;
		}
	closedir(d);
	return found;
}

static int64_t count_ended(struct fixture *f)
{
	json_t *list, *row;
	size_t i;
	int64_t n = 0;
	assert_int_equal(0, bt_store_select(f->store, &list, NULL, BT_SQL_DEPLOYMENT_TOTALS));
	json_array_foreach (list, i, row) {
		n += json_integer_value(json_object_get(row, "n"));
		if (strcmp(json_string_value(json_object_get(row, "strategy")), "rolling") == 0)
			assert_int_equal(2500, json_integer_value(json_object_get(row, "ms")));
	}
	json_decref(list);
	return n;
}

static void test_schema_1_is_migrated_after_a_backup(void **state)
{
	struct fixture *f = *state;
	char backup[512];
	load_v1(f, "");
	open_store(f, 0);
	assert_string_equal("0123456789abcdef0123456789abcdef", bt_store_id(f->store));
	assert_int_equal(7, bt_store_number(f->store, 0, BT_SQL_MAX_DEPLOYMENT));
	assert_int_equal(3, bt_store_number(f->store, 0, BT_SQL_RELEASES_GOOD, "shop", (int64_t)5));
	/* what had ended was counted, and what ends from now on is: once */
	assert_int_equal(1, count_ended(f));
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_DEPLOYMENT_ADD, (int64_t)8, "shop", "v8", (int64_t)3, (int64_t)3, "v3",
		"deploy", "rolling", "{}", (int64_t)9, (int64_t)1000);
	for (int i = 0; i < 2; i++)
		bt_txn_add(t, BT_SQL_DEPLOYMENT_END, (int64_t)8, "ended", "done", (int64_t)0, "",
			(int64_t)5000, (int64_t)1500);
	assert_int_equal(0, bt_store_commit_now(f->store, t, NULL));
	assert_int_equal(2, count_ended(f));
	t = bt_txn_new();
	bt_txn_add(t, BT_SQL_SESSION_ADD, "h", "t", (int64_t)9);
	assert_int_equal(0, bt_store_commit_now(f->store, t, NULL));
	assert_int_equal(1, find_backup(f, backup, sizeof backup));
	sqlite3 *db;
	sqlite3_stmt *st;
	assert_int_equal(SQLITE_OK, sqlite3_open(backup, &db));
	assert_int_equal(
		SQLITE_OK, sqlite3_prepare_v2(db,
				   "SELECT (SELECT last_seq FROM hosts),v.user_version FROM "
				   "pragma_user_version v",
				   -1, &st, NULL));
	assert_int_equal(SQLITE_ROW, sqlite3_step(st));
	assert_int_equal(41, sqlite3_column_int(st, 0));
	assert_int_equal(1, sqlite3_column_int(st, 1));
	sqlite3_finalize(st);
	sqlite3_close(db);
	f->store = bt_store_free(f->store);
	open_store(f, 0); /* a second open has nothing to migrate */
	assert_int_equal(1, find_backup(f, backup, sizeof backup));
}

static void test_newer_schema_is_refused(void **state)
{
	struct fixture *f = *state;
	load_v1(f, "PRAGMA user_version=999");
	struct bt_store_spec spec = {.path = f->path};
	struct bt_err err;
	assert_int_equal(BT_E_REFUSED, bt_store_open(&spec, &f->store, &err));
	assert_non_null(strstr(err.text, "999"));
}

static void test_no_database_is_told(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(
		0, bt_fs_write_atomic(f->path, "no database at all, but text", 28, 0600, NULL));
	struct bt_store_spec spec = {.path = f->path};
	struct bt_err err;
	assert_int_equal(BT_E_STORE, bt_store_open(&spec, &f->store, &err));
	assert_non_null(strstr(err.text, f->path));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_every_statement_compiles),
		T(test_waiting_transactions_share_commits),
		T(test_a_failed_one_takes_no_other_along),
		T(test_outbox_numbers_have_no_gap),
		T(test_full_disk_is_told_and_harmless),
		T(test_killed_writer_loses_nothing_reported),
		T(test_schema_1_is_migrated_after_a_backup),
		T(test_newer_schema_is_refused),
		T(test_no_database_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
