/* The bake at the balancer: what share of nginx's own answers is 5xx? A managed nginx has a log of
 * its own, whose first two fields are baton's (nginx_render.c). In adopt mode the log is the
 * user's, holds every service, and may be of any form: nothing is counted, and that is said. */
#include "driver/nginx_watch.h"

#include "driver/bake.h"
#include "driver/nginx_unit.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WATCH_READ (1 << 20)

size_t bt_nginx_answers_add(struct bt_nginx_answers *a, const char *text, size_t n)
{
	size_t used = 0;
	for (const char *p = text, *eol; (eol = memchr(p, '\n', n - used)); p = eol + 1) {
		const char *status = memchr(p, ' ', (size_t)(eol - p));
		used = (size_t)(eol + 1 - text);
		if (!status || eol - status < 4 || status[1] < '1' || status[1] > '5')
			continue;
		a->all++;
		a->failed += status[1] == '5';
	}
	return used;
}

struct watch {
	struct bt_bake bake;
	char *log, *buf; /* log NULL: it is the user's own */
	ino_t inode;
	off_t at;
	struct bt_nginx_answers seen;
	bool started;
};

static void watch_cancel(struct bt_op *op)
{
	struct watch *w = (struct watch *)op;
	event_free(w->bake.timer);
	free(w->log);
	free(w->buf);
	free(w);
}

/* What came since the last look; a file that was rotated away meanwhile begins anew. */
static void read_log(struct watch *w)
{
	struct stat st;
	BT_CLOSE int fd = open(w->log, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	if (!w->started) {
		w->at = st.st_size;
		w->inode = st.st_ino;
		w->started = true;
	}
	if (st.st_ino != w->inode || st.st_size < w->at) {
		w->inode = st.st_ino;
		w->at = 0;
	}
	for (;;) {
		ssize_t n = pread(fd, w->buf, WATCH_READ, w->at);
		size_t used = n > 0 ? bt_nginx_answers_add(&w->seen, w->buf, (size_t)n) : 0;
		if (used == 0)
			return;
		w->at += (off_t)used;
	}
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;
	(void)fd;
	(void)what;
	if (w->log) {
		read_log(w);
		bt_bake_counted(&w->bake, "nginx", w->seen.all, w->seen.failed);
	} else {
		bt_progress_say(&w->bake.progress,
			"nginx's log is the user's own: 5xx answers are not counted");
		bt_bake_go_on(&w->bake);
	}
}

struct bt_op *bt_nginx_watch_begin(const char *name, const struct bt_service *service,
	int64_t bake_ms, bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	struct watch *w = bt_calloc(1, sizeof *w);
	(void)name;
	w->bake = (struct bt_bake){.op = {watch_cancel},
		.progress = {.fn = progress, .arg = progress_arg},
		.done = done,
		.arg = arg};
	if (service->nginx->mode == BT_NGINX_MANAGED) {
		w->log = bt_asprintf("%s/logs/access.log", bt_nginx_site_of(service)->unit->prefix);
		w->buf = bt_malloc(WATCH_READ);
		read_log(w);
		w->started = true; /* a log that is made later counts from its start */
	}
	bt_bake_begin(&w->bake, bt_nginx_driver()->env->base, service, bake_ms, on_watch);
	return &w->bake.op;
}
