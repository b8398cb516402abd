/* The store: one SQLite file (WAL, synchronous=FULL), one writer thread, group commit.
 *
 * A change is a transaction: statements of the table in journal/statements.h, collected on the
 * loop and committed on the store's own thread. Transactions that wait while the disk is busy share
 * the next commit, each in a savepoint, so that one that fails does not take the others with it.
 * `done` runs on the loop in the order of submission, and only after the commit was durable.
 * Reads use a second connection on the loop's thread: WAL readers never wait for the writer, and
 * every statement is bounded by a LIMIT or a key. */
#pragma once
#include "base/err.h"
#include "base/loop.h"
#include <jansson.h>
#include <stdint.h>

enum bt_sql {
#define BT_SQL_ROW(name, sig, must, text) BT_SQL_##name,
#include "journal/statements.h"
#undef BT_SQL_ROW
	BT_SQL_COUNT,
};

struct bt_store;
struct bt_store_spec {
	const char *path;
	struct event_base *base; /* NULL: no thread, only bt_store_commit_now */
	int64_t max_pages;	 /* of 4 KiB; 0: no limit (tests fill the disk with it) */
};
/* Opens or creates it, and migrates an older schema after a backup beside it. BT_E_STORE /
 * BT_E_CORRUPT with the path; a schema newer than this binary knows is BT_E_REFUSED. */
int bt_store_open(const struct bt_store_spec *spec, struct bt_store **ret, struct bt_err *err);
/* Commits what waits (its done callbacks are not called). NULL is fine; returns NULL. */
struct bt_store *bt_store_free(struct bt_store *s);
const char *bt_store_id(const struct bt_store *s); /* random, made with the store */
/* A copy of the store at path, as of one instant, whoever writes to it meanwhile; `to` (0600) must
 * not be there. */
int bt_store_copy(const char *path, const char *to, struct bt_err *err);
/* A restored store: it takes a new id (kept at the next open). */
int bt_store_renew_id(struct bt_store *s, struct bt_err *err);

/* A transaction under construction. */
struct bt_txn;
struct bt_txn *bt_txn_new(void);
struct bt_txn *bt_txn_free(struct bt_txn *t);
/* Appends a statement. The arguments are what the row's signature says: i int64_t, s const char *
 * (copied, may be NULL), b const void * and size_t (copied). Returns its number in the transaction.
 */
size_t bt_txn_add(struct bt_txn *t, enum bt_sql what, ...);
/* After the commit: the first column that statement n returned (RETURNING), 0 otherwise. */
int64_t bt_txn_value(const struct bt_txn *t, size_t n);

/* Takes over the transaction; done(arg, t, result, err) exactly once, then it is freed.
 * result: 0, BT_E_STORE, or the `must` code of a statement that changed no row. */
typedef void (*bt_commit_fn)(
	void *arg, const struct bt_txn *t, int result, const struct bt_err *err);
void bt_store_commit(struct bt_store *s, struct bt_txn *t, bt_commit_fn done, void *arg);
/* At once on this thread (set-up and tests); takes over the transaction. */
int bt_store_commit_now(struct bt_store *s, struct bt_txn *t, struct bt_err *err);

/* Rows as an array of objects (column name → integer, string, real; NULL columns are absent; blobs
 * are hex strings). Arguments as bt_txn_add. The caller decrefs. */
int bt_store_select(struct bt_store *s, json_t **ret, struct bt_err *err, enum bt_sql what, ...);
/* The first row's first column as an integer, or `otherwise` where there is none. */
int64_t bt_store_number(struct bt_store *s, int64_t otherwise, enum bt_sql what, ...);
/* The end of writing: commits what waits and calls its done callbacks; nothing may be submitted any
 * more. */
void bt_store_finish(struct bt_store *s);
int64_t bt_store_commits(const struct bt_store *s); /* durable commits since the start */

/* journal/schema.c: used by store.c. */
struct sqlite3;
int bt_schema_migrate(struct sqlite3 *db, const char *path, struct bt_err *err);
int bt_schema_version(void);
