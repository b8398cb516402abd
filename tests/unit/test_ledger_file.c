/* The agent's ledger on disk: torn at every byte, damaged where it was durable, written only after
 * a sync, tried again when the disk says no, compacted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/ledger_file.h"
#include "base/fs.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], path[96];
static struct event_base *base;

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/bt-ledger-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/ledger", dir);
	base = event_base_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	event_base_free(base);
	bt_fs_remove_tree(dir, NULL);
	return 0;
}

/* ---- a disk that can fail, and remembers what was synced ---- */

struct disk {
	atomic_int fail_writes, fail_syncs; /* how many more fail */
	atomic_size_t written, synced;
	atomic_int syncs;
};

static int disk_write(void *arg, int fd, const void *data, size_t n)
{
	struct disk *d = arg;
	if (d->fail_writes > 0) {
		d->fail_writes--;
		(void)!write(fd, data, n / 2); /* a full disk takes a part */
		return -ENOSPC;
	}
	d->written += n;
	return bt_fs_write_all(fd, data, n);
}

static int disk_sync(void *arg, int fd)
{
	struct disk *d = arg;
	(void)fd;
	d->syncs++;
	if (d->fail_syncs > 0) {
		d->fail_syncs--;
		return -EIO;
	}
	d->synced = d->written;
	return 0;
}

struct waiting {
	struct disk *disk;
	int left, failed;
	size_t synced_at_least;
};

static void on_done(void *arg, int result, const struct bt_err *err)
{
	struct waiting *w = arg;
	(void)err;
	if (result < 0)
		w->failed++;
	else if (w->disk)
		assert_true(w->disk->synced == w->disk->written); /* never told before the sync */
	if (--w->left == 0)
		event_base_loopbreak(base);
}

static void run_until(struct waiting *w)
{
	struct timeval limit = {20, 0};
	event_base_loopexit(base, &limit);
	event_base_dispatch(base);
	assert_int_equal(w->left, 0);
}

static struct bt_ledger_file *open_ledger(struct disk *d, size_t compact, size_t *ret_cut)
{
	struct bt_ledger_io io = {disk_write, disk_sync, d};
	struct bt_ledger_file_spec spec = {
		.path = path, .io = d ? &io : NULL, .compact_bytes = compact, .retry_ms = 10};
	struct bt_ledger_file *f = NULL;
	struct bt_err err = {0};
	size_t cut = 0;
	int r = bt_ledger_file_open(base, &spec, &f, &cut, &err);
	if (r < 0)
		print_message("%s\n", err.text);
	assert_int_equal(r, 0);
	if (ret_cut)
		*ret_cut = cut;
	return f;
}

static struct bt_command_key key(uint64_t deployment, uint32_t task)
{
	return (struct bt_command_key){deployment, task, BT_DO, 1};
}

static void add(struct bt_ledger_file *f, enum bt_ledger_kind kind, uint64_t dep, uint32_t task,
	struct waiting *w)
{
	struct bt_ledger_entry e = {.kind = kind, .key = key(dep, task)};
	if (kind == BT_LEDGER_ACCEPTED) {
		e.seq = dep * 100 + task;
		e.service = "shop";
		e.token = dep;
		e.task = BT_TASK_INSTANCE_START;
		e.command = "{\"task\":\"InstanceStart\",\"params\":{\"slot\":\"green\"}}";
	}
	if (kind == BT_LEDGER_BEGUN)
		e.prior = (struct bt_prior){.known = true, .release = 7, .running = true};
	if (kind == BT_LEDGER_DONE)
		e.result = (struct bt_result){
			.key = e.key, .outcome = BT_OUTCOME_DONE, .detail = "pid 12"};
	w->left++;
	bt_ledger_file_append(f, &e, on_done, w);
}

static void write_three_tasks(struct disk *d)
{
	struct waiting w = {.disk = d};
	struct bt_ledger_file *f = open_ledger(d, 0, NULL);
	for (uint32_t t = 1; t <= 3; t++) {
		add(f, BT_LEDGER_ACCEPTED, 1, t, &w);
		run_until(&w);
		add(f, BT_LEDGER_BEGUN, 1, t, &w);
		run_until(&w);
		add(f, BT_LEDGER_DONE, 1, t, &w);
		run_until(&w);
	}
	bt_ledger_file_free(f);
}

static void test_told_only_after_sync(void **state)
{
	(void)state;
	struct disk d = {0};
	write_three_tasks(&d);
	assert_int_equal(d.syncs, 9);
	struct bt_ledger_file *f = open_ledger(NULL, 0, NULL);
	struct bt_command_key k = key(1, 3);
	assert_non_null(bt_ledger_result(bt_ledger_file_ledger(f), &k));
	assert_int_equal(bt_ledger_cursor(bt_ledger_file_ledger(f)), 103);
	bt_ledger_file_free(f);
}

static int count_line(void *arg, uint64_t n, const char *json, size_t len, struct bt_err *err)
{
	size_t *lines = arg;
	(void)n;
	(void)json;
	(void)len;
	(void)err;
	++*lines;
	return 0;
}

/* A crash leaves any prefix of the file: every one must open, with exactly its whole lines. */
static void test_torn_at_every_byte(void **state)
{
	(void)state;
	write_three_tasks(NULL);
	BT_FREE char *data = NULL;
	size_t len = 0, whole = 0;
	assert_int_equal(bt_fs_read(path, 1 << 20, &data, &len, NULL), 0);
	for (size_t cut = 0; cut <= len; cut++) {
		size_t lines = 0, good = 0;
		if (cut > 0 && data[cut - 1] == '\n')
			whole++;
		assert_int_equal(bt_ledger_scan(data, cut, count_line, &lines, &good, NULL), 0);
		assert_int_equal(lines, whole);
		assert_true(good <= cut);
	}
	assert_int_equal(whole, 9);
}

static void test_torn_tail_is_cut_and_goes_on(void **state)
{
	(void)state;
	write_three_tasks(NULL);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(truncate(path, st.st_size - 5), 0);
	size_t cut = 0;
	struct bt_ledger_file *f = open_ledger(NULL, 0, &cut);
	assert_true(cut > 0);
	struct bt_command_key k = key(1, 3);
	assert_null(bt_ledger_result(bt_ledger_file_ledger(f), &k));
	struct waiting w = {0};
	add(f, BT_LEDGER_DONE, 1, 3, &w);
	run_until(&w);
	bt_ledger_file_free(f);
	f = open_ledger(NULL, 0, &cut);
	assert_int_equal(cut, 0);
	assert_non_null(bt_ledger_result(bt_ledger_file_ledger(f), &k));
	bt_ledger_file_free(f);
}

/* Damage to any byte of what was durable before the last line is seen, and never cut away. */
static void test_damage_is_refused(void **state)
{
	(void)state;
	write_three_tasks(NULL);
	BT_FREE char *data = NULL;
	size_t len = 0, last = 0;
	assert_int_equal(bt_fs_read(path, 1 << 20, &data, &len, NULL), 0);
	for (size_t i = 0; i + 1 < len; i++)
		if (data[i] == '\n')
			last = i + 1;
	for (size_t i = 0; i < len; i++) {
		size_t lines = 0, good = 0;
		data[i] ^= 1;
		int r = bt_ledger_scan(data, len, count_line, &lines, &good, NULL);
		data[i] ^= 1;
		if (i < last - 1)
			assert_int_equal(r, BT_E_CORRUPT);
		else
			assert_int_equal(r, 0); /* the last line may be a torn one */
		if (i >= last)
			assert_int_equal(good, last);
	}
}

static void test_full_disk(void **state)
{
	(void)state;
	struct disk d = {0};
	struct waiting w = {0};
	struct bt_ledger_file *f = open_ledger(&d, 0, NULL);
	add(f, BT_LEDGER_ACCEPTED, 1, 1, &w);
	run_until(&w);
	d.fail_writes = 1;
	add(f, BT_LEDGER_ACCEPTED, 1, 2, &w); /* nothing done yet: refused */
	run_until(&w);
	assert_int_equal(w.failed, 1);
	assert_non_null(bt_ledger_file_trouble(f));
	assert_int_equal(bt_ledger_cursor(bt_ledger_file_ledger(f)), 101);
	d.fail_writes = 1;
	d.fail_syncs = 1;
	add(f, BT_LEDGER_BEGUN, 1, 1, &w); /* tried until the disk takes it */
	run_until(&w);
	add(f, BT_LEDGER_DONE, 1, 1, &w);
	run_until(&w);
	assert_int_equal(w.failed, 1);
	assert_null(bt_ledger_file_trouble(f));
	bt_ledger_file_free(f);
	size_t cut = 1;
	f = open_ledger(NULL, 0, &cut);
	assert_int_equal(cut, 0);
	struct bt_command_key k = key(1, 1);
	assert_string_equal(bt_ledger_result(bt_ledger_file_ledger(f), &k)->detail, "pid 12");
	k = key(1, 2);
	assert_int_equal(bt_ledger_offer(bt_ledger_file_ledger(f), "shop", &k, 1), BT_LEDGER_NEW);
	bt_ledger_file_free(f);
}

static void test_compaction_keeps_what_matters(void **state)
{
	(void)state;
	struct waiting w = {0};
	struct bt_ledger_file *f = open_ledger(NULL, 4096, NULL);
	struct bt_ledger_entry store = {.kind = BT_LEDGER_STORE, .store = "s1", .seq = 4};
	w.left++;
	bt_ledger_file_append(f, &store, on_done, &w);
	run_until(&w);
	for (uint64_t dep = 1; dep <= 200; dep++) {
		add(f, BT_LEDGER_ACCEPTED, dep, 1, &w);
		add(f, BT_LEDGER_BEGUN, dep, 1, &w);
		add(f, BT_LEDGER_DONE, dep, 1, &w);
		add(f, BT_LEDGER_ACKED, dep, 1, &w);
		run_until(&w);
	}
	bt_ledger_file_free(f);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_true(st.st_size < 16384); /* 200 deployments would be over 100 KiB */
	f = open_ledger(NULL, 0, NULL);
	const struct bt_ledger *l = bt_ledger_file_ledger(f);
	assert_int_equal(bt_ledger_cursor(l), 20001);
	assert_string_equal(bt_ledger_store(l), "s1");
	assert_int_equal(bt_ledger_token(l, "shop"), 200);
	struct bt_command_key k = key(200, 1);
	assert_int_equal(bt_ledger_offer(l, "shop", &k, 200), BT_LEDGER_ANSWERED);
	bt_ledger_file_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_told_only_after_sync, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn_at_every_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn_tail_is_cut_and_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_compaction_keeps_what_matters, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
