/* A log is path, and what was cut off it: path.1 (newest), path.2 … (shim/log.c). A rotation moves
 * the first N bytes of path into a new path.1; the shim does both under an exclusive flock, and a
 * reader looks under a shared one. So a reader at offset P of path, who finds another file as
 * path.1, reads what it missed there (P…N), and goes on at 0 — or at P-N when it was further.
 * A lock that is held for long is a shim that was stopped in the middle: then it is not waited for
 * but looked at again a moment later. */
#include "driver/log_tail.h"

#include "base/loop.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 65536
#define ROTATED_MAX 1000
#define LOCK_RETRY_MS 20

/* ---- the last lines ------------------------------------------------------------------------ */

/* The last `max` bytes of path up to `end` (< 0: its end), in front of out. false: absent. */
static bool read_end(const char *path, int64_t end, size_t max, struct bt_str *out)
{
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	if (end < 0 || end > st.st_size)
		end = st.st_size;
	size_t n = end < (int64_t)max ? (size_t)end : max;
	BT_FREE char *buf = bt_malloc(n + 1);
	ssize_t got = pread(fd, buf, n, end - (int64_t)n);
	if (got <= 0)
		return true;
	struct bt_str joined = {0};
	bt_str_addn(&joined, buf, (size_t)got);
	bt_str_addn(&joined, bt_str_get(out), out->len);
	bt_str_done(out);
	*out = joined;
	return true;
}

/* Where the last n lines of the text begin; *whole: whether there are n. A last line without its
 * newline counts. */
static size_t find_lines(const struct bt_str *s, size_t n, bool *whole)
{
	size_t at = s->len, seen = 0;
	*whole = true;
	if (n == 0)
		return s->len;
	while (at > 0) {
		if (s->data[at - 1] == '\n' && at < s->len && ++seen == n)
			return at;
		at--;
	}
	*whole = false;
	return 0;
}

static void tail_to(const char *path, int64_t end, size_t n_lines, struct bt_str *out)
{
	struct bt_str text = {0};
	char rotated[4096];
	bool whole = false, more = true;
	read_end(path, end, BT_LOG_TAIL_MAX, &text);
	size_t from = find_lines(&text, n_lines, &whole);
	for (int i = 1; i < ROTATED_MAX && !whole && more && text.len < BT_LOG_TAIL_MAX; i++) {
		snprintf(rotated, sizeof rotated, "%s.%d", path, i);
		more = read_end(rotated, -1, BT_LOG_TAIL_MAX - text.len, &text);
		from = find_lines(&text, n_lines, &whole);
	}
	/* Cut in the middle of a line at the limit: begin with the next whole one. */
	if (!whole && text.len >= BT_LOG_TAIL_MAX) {
		char *nl = memchr(text.data, '\n', text.len - 1);
		from = nl ? (size_t)(nl + 1 - text.data) : 0;
	}
	if (text.len > from)
		bt_str_addn(out, text.data + from, text.len - from);
	bt_str_done(&text);
}

int bt_log_tail_last(const char *path, size_t n_lines, struct bt_str *out, struct bt_err *err)
{
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0 && errno != ENOENT)
		return bt_err_errno(err, errno, "read log %s", path);
	if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0) {
		/* a rotation is on its way: at worst a line is there twice */
	}
	tail_to(path, -1, n_lines, out);
	return 0;
}

/* ---- following ------------------------------------------------------------------------------ */

struct bt_log_follow {
	char *path, *first; /* path and path.1 */
	const char *name;   /* path's last part */
	int inotify;
	struct event *changed, *again;
	int64_t at;	 /* offset in path that is delivered */
	dev_t dev;	 /* of path */
	ino_t ino, last; /* path's, and path.1's as last seen; 0: absent */
	bool ended;
	bool (*on_data)(void *arg, const char *data, size_t n);
	void *arg;
};

static ino_t inode_of(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

static void soon(struct bt_log_follow *f, int ms)
{
	bt_timer_in(f->again, ms);
}

/* Delivers up to one piece of fd from *at: how many bytes. */
static ssize_t deliver(struct bt_log_follow *f, int fd, int64_t *at)
{
	char buf[PIECE];
	ssize_t n = pread(fd, buf, sizeof buf, *at);
	if (n <= 0)
		return 0;
	*at += n;
	if (!f->on_data(f->arg, buf, (size_t)n))
		f->ended = true;
	return n;
}

/* The path.N that was path.1 before: the files that came since are before it. 0: none (gone). */
static int find_last_seen(const struct bt_log_follow *f)
{
	char path[4096];
	for (int i = 1; i < ROTATED_MAX; i++) {
		snprintf(path, sizeof path, "%s.%d", f->path, i);
		ino_t ino = inode_of(path);
		if (ino == 0)
			return i; /* past the oldest: all of them are new */
		if (ino == f->last)
			return i;
	}
	return ROTATED_MAX;
}

/* path was rotated, perhaps several times: what was missed is in path.N-1 … path.1.
 * false: not all of it is delivered yet. */
static bool catch_up(struct bt_log_follow *f)
{
	while (!f->ended && inode_of(f->first) != f->last) {
		char path[4096];
		int n = find_last_seen(f) - 1;
		snprintf(path, sizeof path, "%s.%d", f->path, n);
		BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
		struct stat st;
		if (n < 1 || fd < 0 || fstat(fd, &st) < 0) {
			f->last = inode_of(f->first);
			f->at = 0;
			return true;
		}
		if (f->at < st.st_size && deliver(f, fd, &f->at) > 0 && f->at < st.st_size)
			return false;
		f->at -= st.st_size;
		if (f->at < 0)
			f->at = 0;
		f->last = st.st_ino;
	}
	return true;
}

static void step(struct bt_log_follow *f)
{
	BT_CLOSE int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct stat st;
	if (f->ended || fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
		soon(f, LOCK_RETRY_MS);
		return;
	}
	if (!catch_up(f)) {
		soon(f, 0);
		return;
	}
	/* The same file is cut by a rotation, so another one is a new log. */
	if (f->ino && (st.st_ino != f->ino || st.st_dev != f->dev))
		f->at = 0;
	f->ino = st.st_ino;
	f->dev = st.st_dev;
	if (f->at > st.st_size) /* truncated by somebody */
		f->at = 0;
	if (!f->ended && f->at < st.st_size && deliver(f, fd, &f->at) > 0 && f->at < st.st_size)
		soon(f, 0);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	step(arg);
}

static void on_changed(evutil_socket_t fd, short what, void *arg)
{
	struct bt_log_follow *f = arg;
	_Alignas(struct inotify_event) char buf[8192];
	bool ours = false;
	(void)what;
	for (ssize_t n; (n = read(fd, buf, sizeof buf)) > 0;)
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *e = (const struct inotify_event *)(void *)p;
			ours |= e->len == 0 || strcmp(e->name, f->name) == 0;
			p += sizeof *e + e->len;
		}
	if (ours && !event_pending(f->again, EV_TIMEOUT, NULL))
		step(f);
}

/* A piece for the caller at most: the last lines, then what comes. */
static void first_lines(struct bt_log_follow *f, size_t n_lines)
{
	BT_STR struct bt_str text = {0};
	struct stat st;
	BT_CLOSE int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0) {
		/* see bt_log_tail_last */
	}
	f->last = inode_of(f->first);
	if (fd >= 0 && fstat(fd, &st) == 0) {
		f->at = st.st_size;
		f->ino = st.st_ino;
		f->dev = st.st_dev;
	}
	if (n_lines > 0)
		tail_to(f->path, f->at, n_lines, &text);
	if (text.len > 0 && !f->on_data(f->arg, text.data, text.len))
		f->ended = true;
}

int bt_log_follow_start(struct event_base *base, const char *path, size_t n_lines,
	bool (*on_data)(void *arg, const char *data, size_t n), void *arg,
	struct bt_log_follow **ret, struct bt_err *err)
{
	const char *slash = strrchr(path, '/');
	if (!slash || strlen(path) > 4000)
		return bt_err_set(err, -EINVAL, "follow log %s: expected an absolute path", path);
	BT_FREE char *dir = bt_strndup(path, (size_t)(slash - path));
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	/* The directory is watched, so that a log that is not there yet is seen when it comes. */
	if (fd < 0 || inotify_add_watch(fd, dir, IN_MODIFY | IN_CREATE | IN_MOVED_TO) < 0) {
		int saved = errno;
		bt_cleanup_close(&fd);
		return bt_err_errno(err, saved, "follow log %s", path);
	}
	struct bt_log_follow *f = bt_calloc(1, sizeof *f);
	f->path = bt_strdup(path);
	f->first = bt_asprintf("%s.1", path);
	f->name = strrchr(f->path, '/') + 1;
	f->inotify = fd;
	f->on_data = on_data;
	f->arg = arg;
	f->changed = event_new(base, f->inotify, EV_READ | EV_PERSIST, on_changed, f);
	f->again = event_new(base, -1, 0, on_again, f);
	event_add(f->changed, NULL);
	*ret = f;
	first_lines(f, n_lines);
	return 0;
}

struct bt_log_follow *bt_log_follow_free(struct bt_log_follow *f)
{
	if (!f)
		return NULL;
	event_free(f->changed);
	event_free(f->again);
	close(f->inotify);
	free(f->path);
	free(f->first);
	free(f);
	return NULL;
}
