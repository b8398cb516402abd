/* One thread writes, so entries keep their order without a lock; the loop owns everything else.
 *
 *     append ─▶ pending ─▶ [batch: one write, one fdatasync on the thread] ─▶ apply, callbacks
 *                              │ failed (disk full, I/O error)
 *                              ▼ retry_ms later
 *                          the whole ledger and the batch, written aside and renamed
 *
 * After a failed fdatasync the kernel may have dropped the dirty pages and will not say so again,
 * so nothing of the old file's tail is trusted: the second try writes a new file. Space for some
 * hundred entries is reserved ahead (fallocate), so that a full disk does not stop the agent from
 * recording what it has just done. */
#include "agent/ledger_file.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK_LEN 16
#define RESERVE_BYTES (256 * 1024)
#define FILE_MAX (256u << 20)
#define LINE_MAX (8u << 20)

struct item {
	struct item *next;
	char *json;
	bool droppable;
	bt_ledger_done done;
	void *arg;
};

struct bt_ledger_file {
	struct event_base *base;
	struct bt_work *work;
	char *path;
	struct bt_ledger_io io;
	size_t compact_bytes, size, compacted_size;
	int64_t retry_ms;
	int fd;
	struct bt_ledger *ledger;
	uint64_t next_n; /* number of the next line */
	struct item *pending, **tail;
	struct item *batch;  /* with the thread */
	struct bt_str bytes; /* of the batch */
	bool busy, rewrite;  /* rewrite: the next batch goes into a new file */
	int result;	     /* of the thread */
	struct bt_err err;
	bool troubled;
	struct event *retry;
};

/* ---- the line format --------------------------------------------------------------------- */

static void check_of(const char *text, size_t n, char out[static CHECK_LEN + 1])
{
	unsigned char md[SHA256_DIGEST_LENGTH];
	SHA256((const unsigned char *)text, n, md);
	bt_hex(md, CHECK_LEN / 2, out);
}

void bt_ledger_line_add(struct bt_str *out, uint64_t n, uint64_t synced, const char *json)
{
	size_t at = out->len;
	bt_str_addf(out, "%*s %" PRIu64 " %" PRIu64 " ", CHECK_LEN, "", n, synced);
	bt_str_add(out, json);
	char check[CHECK_LEN + 1];
	check_of(out->data + at + CHECK_LEN + 1, out->len - at - CHECK_LEN - 1, check);
	memcpy(out->data + at, check, CHECK_LEN);
	bt_str_addc(out, '\n');
}

struct line {
	uint64_t n, synced;
	const char *json;
	size_t json_len;
};

static bool number(const char **p, const char *end, uint64_t *ret)
{
	uint64_t v = 0;
	const char *s = *p;
	while (s < end && *s >= '0' && *s <= '9' && v < UINT64_MAX / 16)
		v = v * 10 + (uint64_t)(*s++ - '0');
	if (s == *p || s >= end || *s != ' ')
		return false;
	*p = s + 1;
	*ret = v;
	return true;
}

/* text is one line without its newline. */
static bool line_parse(const char *text, size_t len, struct line *ret)
{
	char check[CHECK_LEN + 1];
	if (len < CHECK_LEN + 6 || text[CHECK_LEN] != ' ')
		return false;
	check_of(text + CHECK_LEN + 1, len - CHECK_LEN - 1, check);
	if (memcmp(check, text, CHECK_LEN) != 0)
		return false;
	const char *p = text + CHECK_LEN + 1, *end = text + len;
	if (!number(&p, end, &ret->n) || !number(&p, end, &ret->synced))
		return false;
	ret->json = p;
	ret->json_len = (size_t)(end - p);
	return true;
}

/* Whether a good line after `at` knows line n as synced. */
static bool was_synced(const char *at, const char *end, uint64_t n)
{
	while (at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		struct line l;
		if (!nl)
			return false;
		if (line_parse(at, (size_t)(nl - at), &l) && l.synced >= n)
			return true;
		at = nl + 1;
	}
	return false;
}

int bt_ledger_scan(const char *data, size_t len,
	int (*each)(void *arg, uint64_t n, const char *json, size_t json_len, struct bt_err *err),
	void *arg, size_t *ret_good, struct bt_err *err)
{
	const char *at = data, *end = data + len;
	uint64_t n = 1;
	while (at < end) {
		const char *nl = memchr(at, '\n', (size_t)(end - at));
		struct line l;
		if (!nl || !line_parse(at, (size_t)(nl - at), &l) || l.n != n)
			break;
		int r = each(arg, n, l.json, l.json_len, err);
		if (r < 0)
			return r;
		n++;
		at = nl + 1;
	}
	if (at < end && was_synced(at, end, n))
		return bt_err_set(err, BT_E_CORRUPT,
			"line %" PRIu64 " (byte %zu) is damaged, and it had been written safely", n,
			(size_t)(at - data));
	*ret_good = (size_t)(at - data);
	return 0;
}

/* ---- writing ----------------------------------------------------------------------------- */

static int real_write(void *arg, int fd, const void *data, size_t n)
{
	(void)arg;
	return bt_fs_write_all(fd, data, n);
}

static int real_sync(void *arg, int fd)
{
	(void)arg;
	return fdatasync(fd) < 0 ? -errno : 0;
}

static int open_append(struct bt_ledger_file *f, struct bt_err *err)
{
	int fd = open(f->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return bt_err_errno(err, errno, "open %s", f->path);
	struct stat st;
	if (fstat(fd, &st) < 0) {
		int e = errno;
		close(fd);
		return bt_err_errno(err, e, "stat %s", f->path);
	}
	/* Not everywhere possible, and only a comfort where it is not. */
	(void)!fallocate(fd, FALLOC_FL_KEEP_SIZE, st.st_size, RESERVE_BYTES);
	if (f->fd >= 0)
		close(f->fd);
	f->fd = fd;
	f->size = (size_t)st.st_size;
	return 0;
}

struct emit {
	struct bt_str *out;
	uint64_t n;
};

static void emit_entry(void *arg, const struct bt_ledger_entry *e)
{
	struct emit *m = arg;
	BT_JSON json_t *j = bt_ledger_entry_to_json(e);
	BT_FREE char *text = bt_json_dump(j);
	bt_ledger_line_add(m->out, ++m->n, 0, text);
}

static void run_batch(void *arg)
{
	struct bt_ledger_file *f = arg;
	if (f->rewrite) {
		f->result = bt_fs_write_atomic(
			f->path, bt_str_get(&f->bytes), f->bytes.len, 0600, &f->err);
		return;
	}
	f->result = f->io.write(f->io.arg, f->fd, f->bytes.data, f->bytes.len);
	if (f->result == 0)
		f->result = f->io.sync(f->io.arg, f->fd);
	if (f->result < 0)
		bt_err_errno(&f->err, -f->result, "write %s", f->path);
}

static void batch_done(void *arg);

static void start_batch(struct bt_ledger_file *f)
{
	if (f->busy || !f->pending)
		return;
	size_t limit =
		f->compact_bytes > 2 * f->compacted_size ? f->compact_bytes : 2 * f->compacted_size;
	if (f->size > limit)
		f->rewrite = true;
	bt_str_reset(&f->bytes);
	uint64_t synced = f->next_n - 1;
	if (f->rewrite) {
		struct emit m = {&f->bytes, 0};
		bt_ledger_compact(f->ledger, emit_entry, &m);
		f->next_n = m.n + 1;
		synced = 0;
	}
	f->batch = f->pending;
	f->pending = NULL;
	f->tail = &f->pending;
	for (struct item *i = f->batch; i; i = i->next)
		bt_ledger_line_add(&f->bytes, f->next_n++, synced, i->json);
	f->busy = true;
	bt_err_clear(&f->err);
	bt_work_submit(f->work, run_batch, batch_done, f);
}

static void item_free(struct item *i)
{
	free(i->json);
	free(i);
}

static int apply_json(struct bt_ledger *l, const char *json, size_t n, struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	BT_ARENA struct bt_arena *arena = bt_arena_new();
	struct bt_ledger_entry e;
	int r = bt_json_parse(json, n, LINE_MAX, &j, err);
	if (r == 0)
		r = bt_ledger_entry_from_json(j, arena, &e, err);
	if (r == 0)
		r = bt_ledger_apply(l, &e, err);
	return r;
}

/* Nothing was done yet for what was only accepted: say so now. The rest waits for the disk. */
static void batch_failed(struct bt_ledger_file *f)
{
	struct bt_err err = f->err;
	struct item *batch = f->batch, *keep = NULL, **tail = &keep;
	f->batch = NULL;
	f->rewrite = f->troubled = true;
	struct item *dropped = NULL, **drop_tail = &dropped;
	while (batch) {
		struct item *i = batch;
		batch = i->next;
		i->next = NULL;
		struct item ***to = i->droppable ? &drop_tail : &tail;
		**to = i;
		*to = &i->next;
	}
	*tail = f->pending;
	if (!f->pending)
		f->tail = tail;
	f->pending = keep;
	if (!f->pending)
		f->tail = &f->pending;
	while (dropped) {
		struct item *i = dropped;
		dropped = i->next;
		i->done(i->arg, err.code, &err);
		item_free(i);
	}
	bt_timer_in(f->retry, f->retry_ms);
}

static void batch_done(void *arg)
{
	struct bt_ledger_file *f = arg;
	if (f->result == 0 && f->rewrite)
		f->result = open_append(f, &f->err);
	f->busy = false;
	if (f->result < 0) {
		batch_failed(f);
		return;
	}
	if (f->rewrite)
		f->compacted_size = f->size;
	else
		f->size += f->bytes.len;
	f->rewrite = f->troubled = false;
	struct item *batch = BT_STEAL(f->batch);
	/* All are durable: apply all before anyone acts on one. */
	for (struct item *i = batch; i; i = i->next) {
		struct bt_err err = {0};
		int r = apply_json(f->ledger, i->json, strlen(i->json), &err);
		if (r < 0) {
			bt_log(NULL, BT_LOG_ERROR, "ledger: %s", err.text);
			abort(); /* what was written cannot be read: a defect, not a condition */
		}
	}
	start_batch(f);
	while (batch) {
		struct item *i = batch;
		batch = i->next;
		if (i->done)
			i->done(i->arg, 0, NULL);
		item_free(i);
	}
	start_batch(f);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	start_batch(arg);
}

void bt_ledger_file_append(
	struct bt_ledger_file *f, const struct bt_ledger_entry *e, bt_ledger_done done, void *arg)
{
	BT_JSON json_t *j = bt_ledger_entry_to_json(e);
	struct item *i = bt_calloc(1, sizeof *i);
	*i = (struct item){NULL, bt_json_dump(j), e->kind == BT_LEDGER_ACCEPTED, done, arg};
	*f->tail = i;
	f->tail = &i->next;
	if (!evtimer_pending(f->retry, NULL) || i->droppable)
		start_batch(f);
}

void bt_ledger_file_job(
	struct bt_ledger_file *f, void (*run)(void *), void (*done)(void *), void *arg)
{
	bt_work_submit(f->work, run, done, arg);
}

const struct bt_ledger *bt_ledger_file_ledger(const struct bt_ledger_file *f)
{
	return f->ledger;
}

const char *bt_ledger_file_trouble(const struct bt_ledger_file *f)
{
	return f->troubled ? f->err.text : NULL;
}

/* ---- opening ----------------------------------------------------------------------------- */

static int load_line(void *arg, uint64_t n, const char *json, size_t len, struct bt_err *err)
{
	struct bt_ledger_file *f = arg;
	int r = apply_json(f->ledger, json, len, err);
	if (r < 0)
		return bt_err_wrap(err, "line %" PRIu64, n);
	f->next_n = n + 1;
	return 0;
}

static int load(struct bt_ledger_file *f, size_t *ret_cut, struct bt_err *err)
{
	BT_FREE char *data = NULL;
	size_t len = 0, good = 0;
	struct bt_err own = {0};
	int r = bt_fs_read(f->path, FILE_MAX, &data, &len, &own);
	if (r == -ENOENT) {
		*ret_cut = 0;
		return 0;
	}
	if (r < 0)
		return bt_err_set(err, r, "%s", own.text);
	r = bt_ledger_scan(data, len, load_line, f, &good, err);
	if (r < 0) {
		bt_err_wrap(err, "ledger %s", f->path);
		return r;
	}
	if (good < len && truncate(f->path, (off_t)good) < 0)
		return bt_err_errno(err, errno, "cut the torn tail of %s", f->path);
	*ret_cut = len - good;
	return 0;
}

int bt_ledger_file_open(struct event_base *base, const struct bt_ledger_file_spec *spec,
	struct bt_ledger_file **ret, size_t *ret_cut, struct bt_err *err)
{
	struct bt_ledger_file *f = bt_calloc(1, sizeof *f);
	f->base = base;
	f->path = bt_strdup(spec->path);
	f->io = spec->io ? *spec->io : (struct bt_ledger_io){real_write, real_sync, NULL};
	f->compact_bytes = spec->compact_bytes ? spec->compact_bytes : 1 << 20;
	f->retry_ms = spec->retry_ms ? spec->retry_ms : 1000;
	f->fd = -1;
	f->next_n = 1;
	f->tail = &f->pending;
	f->ledger = bt_ledger_new();
	f->retry = evtimer_new(base, on_retry, f);
	size_t cut = 0;
	int r = load(f, &cut, err);
	if (r == 0)
		r = open_append(f, err);
	/* What was read may not have been synced by the one who wrote it. */
	if (r == 0 && (fsync(f->fd) < 0))
		r = bt_err_errno(err, errno, "sync %s", f->path);
	if (r == 0)
		r = bt_fs_fsync_parent(f->path, err);
	f->work = bt_work_new(base, 1);
	if (r < 0) {
		bt_ledger_file_free(f);
		return r;
	}
	*ret_cut = cut;
	*ret = f;
	return 0;
}

struct bt_ledger_file *bt_ledger_file_free(struct bt_ledger_file *f)
{
	if (!f)
		return NULL;
	f->work = bt_work_free(f->work);
	while (f->batch || f->pending) {
		struct item **from = f->batch ? &f->batch : &f->pending, *i = *from;
		*from = i->next;
		item_free(i);
	}
	event_free(f->retry);
	if (f->fd >= 0)
		close(f->fd);
	bt_str_done(&f->bytes);
	f->ledger = bt_ledger_free(f->ledger);
	free(f->path);
	free(f);
	return NULL;
}
