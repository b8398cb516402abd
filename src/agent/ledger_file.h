/* The ledger's file: the pure ledger (dispatch/ledger.h) made durable.
 *
 * One line an entry: "<check> <n> <synced> <json>\n". `check` is the first 16 hex digits of the
 * SHA-256 of what follows it; n counts lines from 1; `synced` is how many lines were known to be
 * on disk when this one was written. So a bad line tells what it is: the unsynced tail of a crash
 * (no later line knows it as synced; it is cut), or damage to what was durable (the agent refuses
 * to start rather than forget what it did).
 *
 * Entries that wait while a sync runs go out together with the next one (group commit). */
#pragma once
#include "base/loop.h"
#include "base/str.h"
#include "dispatch/ledger.h"

struct bt_ledger_file;

/* How bytes reach the disk; a test puts its own in. NULL: write(2) and fdatasync(2). */
struct bt_ledger_io {
	int (*write)(void *arg, int fd, const void *data, size_t n); /* 0 or -errno */
	int (*sync)(void *arg, int fd);
	void *arg;
};
struct bt_ledger_file_spec {
	const char *path;
	const struct bt_ledger_io *io;
	size_t compact_bytes; /* 0: 1 MiB */
	int64_t retry_ms;     /* after a failed write; 0: 1 s */
};
/* Reads what is there, cuts a torn tail, compacts when it is large. BT_E_CORRUPT: durable lines are
 * damaged. *ret_cut: bytes of torn tail that were dropped. */
int bt_ledger_file_open(struct event_base *base, const struct bt_ledger_file_spec *spec,
	struct bt_ledger_file **ret, size_t *ret_cut, struct bt_err *err);
/* What the thread has not begun is dropped, as a crash would. NULL is fine; returns NULL. */
struct bt_ledger_file *bt_ledger_file_free(struct bt_ledger_file *f);
/* What is durable now. */
const struct bt_ledger *bt_ledger_file_ledger(const struct bt_ledger_file *f);

/* done on the loop once e is durable and applied (result 0). An ACCEPTED entry that cannot be
 * written gives result < 0 and is forgotten, since nothing was done yet; the others are tried
 * again until the disk takes them: their effect happened, or is about to be waited for. */
typedef void (*bt_ledger_done)(void *arg, int result, const struct bt_err *err);
void bt_ledger_file_append(
	struct bt_ledger_file *f, const struct bt_ledger_entry *e, bt_ledger_done done, void *arg);
/* run(arg) on the ledger's thread, in order with the appends; then done(arg) on the loop. */
void bt_ledger_file_job(
	struct bt_ledger_file *f, void (*run)(void *), void (*done)(void *), void *arg);
/* The trouble of the last write that is still being tried again; NULL: none. */
const char *bt_ledger_file_trouble(const struct bt_ledger_file *f);

/* The line format, for tests. */
void bt_ledger_line_add(struct bt_str *out, uint64_t n, uint64_t synced, const char *json);
/* Good lines in order; stops at the first bad one. *ret_good: bytes of good lines. each returns
 * < 0 to stop. BT_E_CORRUPT as above. */
int bt_ledger_scan(const char *data, size_t len,
	int (*each)(void *arg, uint64_t n, const char *json, size_t json_len, struct bt_err *err),
	void *arg, size_t *ret_good, struct bt_err *err);
