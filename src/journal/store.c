/* See store.h. The writer's connection belongs to whoever holds `lock`: the store's thread while it
 * commits, or the caller of bt_store_commit_now. Waiting transactions sit in a list under
 * `queue_lock`; one job of the thread takes the whole list, so whatever arrives while a commit
 * waits for the disk shares the next one. */
#include "journal/store.h"

#include "base/fs.h"
#include "base/str.h"

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define MAX_ARGS 12

struct arg {
	char type; /* i s b */
	int64_t number;
	char *data; /* NULL: SQL NULL */
	size_t len;
};

struct op {
	enum bt_sql what;
	struct arg args[MAX_ARGS];
	int64_t value;
};

struct bt_txn {
	struct op *ops;
	size_t n, cap;
	/* once submitted */
	struct bt_txn *next;
	bt_commit_fn done;
	void *arg;
	int result;
	struct bt_err err;
};

static const struct row {
	const char *sig, *text;
	int must;
} rows[] = {
#define BT_SQL_ROW(name, sig, must, text) [BT_SQL_##name] = {sig, text, must},
#include "journal/statements.h"
#undef BT_SQL_ROW
};

struct conn {
	sqlite3 *db;
	sqlite3_stmt *st[BT_SQL_COUNT];
};

struct bt_store {
	struct bt_work *work;
	struct conn writer, reader;
	pthread_mutex_t lock, queue_lock;
	struct bt_txn *head, **tail;	  /* waiting */
	struct bt_txn *done, **done_tail; /* committed, callbacks due */
	atomic_llong commits;
	char id[33];
};

struct bt_txn *bt_txn_new(void)
{
	return bt_calloc(1, sizeof(struct bt_txn));
}

struct bt_txn *bt_txn_free(struct bt_txn *t)
{
	if (!t)
		return NULL;
	for (size_t i = 0; i < t->n; i++)
		for (size_t a = 0; a < MAX_ARGS; a++)
			free(t->ops[i].args[a].data);
	free(t->ops);
	free(t);
	return NULL;
}

static void take_args(struct op *op, va_list ap)
{
	const char *sig = rows[op->what].sig;
	for (size_t i = 0; sig[i]; i++) {
		struct arg *a = &op->args[i];
		a->type = sig[i];
		if (sig[i] == 'i') {
			a->number = va_arg(ap, int64_t);
			continue;
		}
		const char *p = va_arg(ap, const char *);
		a->len = sig[i] == 'b' ? va_arg(ap, size_t) : p ? strlen(p) : 0;
		if (!p)
			continue;
		a->data = bt_malloc(a->len + 1);
		memcpy(a->data, p, a->len);
		a->data[a->len] = '\0';
	}
}

static void drop_args(struct op *op)
{
	for (size_t a = 0; a < MAX_ARGS; a++)
		free(op->args[a].data);
}

size_t bt_txn_add(struct bt_txn *t, enum bt_sql what, ...)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 8;
		t->ops = bt_realloc(t->ops, t->cap * sizeof *t->ops);
	}
	struct op *op = &t->ops[t->n];
	*op = (struct op){.what = what};
	va_list ap;
	va_start(ap, what);
	take_args(op, ap);
	va_end(ap);
	return t->n++;
}

int64_t bt_txn_value(const struct bt_txn *t, size_t n)
{
	return n < t->n ? t->ops[n].value : 0;
}

/* ---- one connection ---------------------------------------------------------------------- */

static int run_sql(sqlite3 *db, const char *sql, struct bt_err *err)
{
	char *why = NULL;
	if (sqlite3_exec(db, sql, NULL, NULL, &why) == SQLITE_OK)
		return 0;
	int r = bt_err_set(err, BT_E_STORE, "store: %s", why ? why : sqlite3_errmsg(db));
	sqlite3_free(why);
	return r;
}

static int prepare(struct conn *c, const struct op *op, sqlite3_stmt **ret, struct bt_err *err)
{
	sqlite3_stmt **st = &c->st[op->what];
	if (!*st && sqlite3_prepare_v3(c->db, rows[op->what].text, -1, SQLITE_PREPARE_PERSISTENT,
			    st, NULL) != SQLITE_OK)
		return bt_err_set(err, BT_E_STORE, "store: %s", sqlite3_errmsg(c->db));
	for (int i = 0; i < MAX_ARGS && op->args[i].type; i++) {
		const struct arg *a = &op->args[i];
		if (a->type == 'i')
			sqlite3_bind_int64(*st, i + 1, a->number);
		else if (!a->data)
			sqlite3_bind_null(*st, i + 1);
		else if (a->type == 's')
			sqlite3_bind_text(*st, i + 1, a->data, (int)a->len, SQLITE_STATIC);
		else
			sqlite3_bind_blob(*st, i + 1, a->data, (int)a->len, SQLITE_STATIC);
	}
	*ret = *st;
	return 0;
}

static int must_text(enum bt_sql what, struct bt_err *err)
{
	int code = rows[what].must;
	const char *text = code == BT_E_LEASE	   ? "another deployment holds the lease"
			   : code == BT_E_NOTFOUND ? "no such row"
			   : code == BT_E_EXISTS   ? "it is there already"
			   : code == BT_E_AUTH	   ? "it is not valid (any more)"
						   : "store: a statement changed nothing";
	return bt_err_set(err, code, "%s", text);
}

static int run_op(struct conn *c, struct op *op, struct bt_err *err)
{
	sqlite3_stmt *st;
	int r = prepare(c, op, &st, err);
	if (r < 0)
		return r;
	bool row = false;
	int rc;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		if (!row)
			op->value = sqlite3_column_int64(st, 0);
		row = true;
	}
	if (rc != SQLITE_DONE)
		r = bt_err_set(err, BT_E_STORE, "store: %s", sqlite3_errmsg(c->db));
	else if (rows[op->what].must && !row && sqlite3_changes(c->db) == 0)
		r = must_text(op->what, err);
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	return r;
}

static void close_conn(struct conn *c)
{
	for (size_t i = 0; i < BT_SQL_COUNT; i++)
		sqlite3_finalize(c->st[i]);
	sqlite3_close(c->db);
}

static int open_conn(struct conn *c, const char *path, struct bt_err *err)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
	if (sqlite3_open_v2(path, &c->db, flags, NULL) != SQLITE_OK)
		return bt_err_set(err, BT_E_STORE, "open store %s: %s", path,
			c->db ? sqlite3_errmsg(c->db) : "no memory");
	sqlite3_extended_result_codes(c->db, 1);
	sqlite3_busy_timeout(c->db, 5000);
	int r = run_sql(c->db,
		"PRAGMA auto_vacuum=INCREMENTAL;" /* counts while the file is still empty */
		"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA trusted_schema=0;"
		"PRAGMA wal_autocheckpoint=1000; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-4096",
		err);
	return r < 0 ? bt_err_wrap(err, "open store %s", path) : 0;
}

/* ---- transactions ------------------------------------------------------------------------ */

static void run_txn(struct conn *c, struct bt_txn *t)
{
	t->result = run_sql(c->db, "SAVEPOINT t", &t->err);
	if (t->result < 0)
		return;
	for (size_t i = 0; i < t->n && t->result == 0; i++)
		t->result = run_op(c, &t->ops[i], &t->err);
	struct bt_err ignored;
	if (t->result == 0)
		t->result = run_sql(c->db, "RELEASE t", &t->err);
	if (t->result < 0) /* a full disk may have ended the outer transaction already */
		(void)run_sql(c->db, "ROLLBACK TO t; RELEASE t", &ignored);
}

/* The whole list in one transaction. When the outer one fails, all of them failed: nothing of
 * them is in the store. */
static void run_list(struct bt_store *s, struct bt_txn *list)
{
	struct conn *c = &s->writer;
	struct bt_err err = {0};
	int r = run_sql(c->db, "BEGIN IMMEDIATE", &err);
	for (struct bt_txn *t = list; t && r == 0; t = t->next) {
		run_txn(c, t);
		if (sqlite3_get_autocommit(c->db)) /* SQLite rolled everything back */
			r = t->result < 0 ? (err = t->err, t->result) : BT_E_STORE;
	}
	if (r == 0)
		r = run_sql(c->db, "COMMIT", &err);
	if (r < 0) {
		if (!sqlite3_get_autocommit(c->db))
			(void)run_sql(c->db, "ROLLBACK", NULL);
		for (struct bt_txn *t = list; t; t = t->next) {
			t->result = r;
			t->err = err;
		}
		return;
	}
	atomic_fetch_add(&s->commits, 1);
}

static void on_thread(void *arg)
{
	struct bt_store *s = arg;
	pthread_mutex_lock(&s->lock);
	pthread_mutex_lock(&s->queue_lock);
	struct bt_txn *list = s->head;
	s->head = NULL;
	s->tail = &s->head;
	pthread_mutex_unlock(&s->queue_lock);
	if (list) {
		run_list(s, list);
		pthread_mutex_lock(&s->queue_lock);
		*s->done_tail = list;
		while (*s->done_tail)
			s->done_tail = &(*s->done_tail)->next;
		pthread_mutex_unlock(&s->queue_lock);
	}
	pthread_mutex_unlock(&s->lock);
}

static void on_loop(void *arg)
{
	struct bt_store *s = arg;
	pthread_mutex_lock(&s->queue_lock);
	struct bt_txn *list = s->done;
	s->done = NULL;
	s->done_tail = &s->done;
	pthread_mutex_unlock(&s->queue_lock);
	while (list) {
		struct bt_txn *t = list;
		list = t->next;
		if (t->done)
			t->done(t->arg, t, t->result, &t->err);
		bt_txn_free(t);
	}
}

void bt_store_commit(struct bt_store *s, struct bt_txn *t, bt_commit_fn done, void *arg)
{
	t->done = done;
	t->arg = arg;
	t->next = NULL;
	pthread_mutex_lock(&s->queue_lock);
	bool first = !s->head;
	*s->tail = t;
	s->tail = &t->next;
	pthread_mutex_unlock(&s->queue_lock);
	if (first) /* otherwise the job that waits for the thread takes this one along */
		bt_work_submit(s->work, on_thread, on_loop, s);
}

void bt_store_finish(struct bt_store *s)
{
	s->work = bt_work_free(s->work);
	on_loop(s);
}

int bt_store_commit_now(struct bt_store *s, struct bt_txn *t, struct bt_err *err)
{
	pthread_mutex_lock(&s->lock);
	run_list(s, t);
	pthread_mutex_unlock(&s->lock);
	int r = t->result;
	if (r < 0 && err)
		*err = t->err;
	bt_txn_free(t);
	return r;
}

/* ---- reading ----------------------------------------------------------------------------- */

static json_t *column(sqlite3_stmt *st, int i)
{
	switch (sqlite3_column_type(st, i)) {
	case SQLITE_INTEGER:
		return json_integer(sqlite3_column_int64(st, i));
	case SQLITE_FLOAT:
		return json_real(sqlite3_column_double(st, i));
	case SQLITE_TEXT:
		return json_stringn((const char *)sqlite3_column_text(st, i),
			(size_t)sqlite3_column_bytes(st, i));
	case SQLITE_BLOB: {
		size_t n = (size_t)sqlite3_column_bytes(st, i);
		BT_FREE char *hex = bt_malloc(2 * n + 1);
		bt_hex(sqlite3_column_blob(st, i), n, hex);
		return json_string(hex);
	}
	default:
		return NULL;
	}
}

static int vselect(
	struct bt_store *s, json_t **ret, struct bt_err *err, enum bt_sql what, va_list ap)
{
	struct op op = {.what = what};
	take_args(&op, ap);
	sqlite3_stmt *st;
	int r = prepare(&s->reader, &op, &st, err);
	if (r < 0) {
		drop_args(&op);
		return r;
	}
	json_t *out = json_array();
	int rc;
	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		json_t *o = json_object();
		for (int i = 0; i < sqlite3_column_count(st); i++) {
			json_t *v = column(st, i);
			if (v)
				json_object_set_new(o, sqlite3_column_name(st, i), v);
		}
		json_array_append_new(out, o);
	}
	if (rc != SQLITE_DONE)
		r = bt_err_set(err, BT_E_STORE, "store: %s", sqlite3_errmsg(s->reader.db));
	sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	drop_args(&op);
	if (r < 0)
		json_decref(out);
	else
		*ret = out;
	return r;
}

int bt_store_select(struct bt_store *s, json_t **ret, struct bt_err *err, enum bt_sql what, ...)
{
	va_list ap;
	va_start(ap, what);
	int r = vselect(s, ret, err, what, ap);
	va_end(ap);
	return r;
}

int64_t bt_store_number(struct bt_store *s, int64_t otherwise, enum bt_sql what, ...)
{
	json_t *list = NULL;
	va_list ap;
	va_start(ap, what);
	int r = vselect(s, &list, NULL, what, ap);
	va_end(ap);
	int64_t n = otherwise;
	if (r == 0 && json_array_size(list) > 0) {
		json_t *first = json_array_get(list, 0);
		void *it = json_object_iter(first);
		if (it && json_is_integer(json_object_iter_value(it)))
			n = json_integer_value(json_object_iter_value(it));
	}
	json_decref(list);
	return n;
}

/* ---- opening ----------------------------------------------------------------------------- */

static void random_id(char id[static 33])
{
	unsigned char bytes[16];
	if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		abort(); /* cannot happen for so few bytes once the kernel is up */
	bt_hex(bytes, sizeof bytes, id);
}

int bt_store_renew_id(struct bt_store *s, struct bt_err *err)
{
	char id[33];
	random_id(id);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_META_SET, "store_id", id);
	int r = bt_store_commit_now(s, t, err);
	if (r == 0)
		memcpy(s->id, id, sizeof s->id);
	return r;
}

static int load_id(struct bt_store *s, struct bt_err *err)
{
	json_t *list;
	int r = bt_store_select(s, &list, err, BT_SQL_META_GET, "store_id");
	if (r < 0)
		return r;
	const char *id = json_string_value(json_object_get(json_array_get(list, 0), "value"));
	if (id)
		snprintf(s->id, sizeof s->id, "%s", id);
	json_decref(list);
	return id ? 0 : bt_store_renew_id(s, err);
}

static int open_both(struct bt_store *s, const struct bt_store_spec *spec, struct bt_err *err)
{
	int r = open_conn(&s->writer, spec->path, err);
	if (r == 0)
		r = bt_schema_migrate(s->writer.db, spec->path, err);
	if (r == 0)
		r = open_conn(&s->reader, spec->path, err);
	if (r == 0)
		r = run_sql(s->reader.db, "PRAGMA query_only=1", err);
	if (r == 0)
		r = load_id(s, err);
	if (r == 0 && spec->max_pages > 0) {
		char sql[64];
		snprintf(sql, sizeof sql, "PRAGMA max_page_count=%lld", (long long)spec->max_pages);
		r = run_sql(s->writer.db, sql, err);
	}
	return r;
}

int bt_store_open(const struct bt_store_spec *spec, struct bt_store **ret, struct bt_err *err)
{
	struct bt_store *s = bt_calloc(1, sizeof *s);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->queue_lock, NULL);
	s->tail = &s->head;
	s->done_tail = &s->done;
	int r = open_both(s, spec, err);
	if (r < 0) {
		bt_store_free(s);
		return r;
	}
	if (spec->base)
		s->work = bt_work_new(spec->base, 1);
	*ret = s;
	return 0;
}

struct bt_store *bt_store_free(struct bt_store *s)
{
	if (!s)
		return NULL;
	bt_work_free(s->work);
	for (struct bt_txn *t = s->done; t;) {
		struct bt_txn *next = t->next;
		bt_txn_free(t);
		t = next;
	}
	close_conn(&s->reader);
	close_conn(&s->writer);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->queue_lock);
	free(s);
	return NULL;
}

const char *bt_store_id(const struct bt_store *s)
{
	return s->id;
}

int64_t bt_store_commits(const struct bt_store *s)
{
	return atomic_load(&((struct bt_store *)s)->commits);
}
