/* The bake at the balancer: what share of nginx's own answers is 5xx? A managed nginx has a log of
 * its own, whose first two fields are baton's (nginx_render.c). In adopt mode the log is the
 * user's, holds every service, and may be of any form: nothing is counted, and that is said. */
#include "driver/nginx_watch.h"

#include "base/clock.h"
#include "driver/nginx_unit.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WATCH_POLL_MS 250
#define WATCH_MIN_ANSWERS 20
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
	struct bt_op op;
	struct event *timer;
	char *log, *buf;
	ino_t inode;
	off_t at;
	struct bt_nginx_answers seen;
	double max_share;
	int64_t end_ms;
	bool started;
	char last_line[160];
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done;
	void *arg;
};

static void watch_free(struct watch *w)
{
	event_free(w->timer);
	free(w->log);
	free(w->buf);
	free(w);
}

static void watch_cancel(struct bt_op *op)
{
	watch_free((struct watch *)op);
}

static void tell(struct watch *w, const char *line)
{
	if (!strcmp(line, w->last_line))
		return;
	snprintf(w->last_line, sizeof w->last_line, "%s", line);
	if (w->progress)
		w->progress(w->progress_arg, line);
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

static void watch_end(struct watch *w, int result, const struct bt_err *err)
{
	w->done(w->arg, result, err);
	watch_free(w);
}

static void on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;
	struct bt_err err = {0};
	char line[160];
	(void)fd;
	(void)what;
	if (w->log) {
		read_log(w);
		snprintf(line, sizeof line, "%lld answers, %lld of them 5xx",
			(long long)w->seen.all, (long long)w->seen.failed);
		tell(w, line);
	} else {
		tell(w, "nginx's log is the user's own: 5xx answers are not counted");
	}
	if (w->seen.all >= WATCH_MIN_ANSWERS &&
		(double)w->seen.failed > w->max_share * (double)w->seen.all) {
		bt_err_set(&err, BT_E_FAILED,
			"nginx answered %lld of %lld requests with 5xx, more than %.4g%% "
			"(bake_max_5xx)",
			(long long)w->seen.failed, (long long)w->seen.all, 100 * w->max_share);
		watch_end(w, err.code, &err);
		return;
	}
	int64_t left = w->end_ms - bt_clock_boot_ms();
	if (left <= 0)
		watch_end(w, 0, &err);
	else
		bt_nginx_timer(w->timer, left < WATCH_POLL_MS ? left : WATCH_POLL_MS);
}

struct bt_op *bt_nginx_watch_begin(const char *name, const struct bt_service *service,
	int64_t bake_ms, bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	struct watch *w = bt_calloc(1, sizeof *w);
	(void)name;
	w->op.cancel = watch_cancel;
	w->timer = event_new(bt_nginx_driver()->env->base, -1, 0, on_watch, w);
	if (service->nginx->mode == BT_NGINX_MANAGED) {
		w->log = bt_asprintf("%s/logs/access.log", bt_nginx_site_of(service)->unit->prefix);
		w->buf = bt_malloc(WATCH_READ);
		read_log(w);
		w->started = true; /* a log that is made later counts from its start */
	}
	w->max_share = service->deploy.bake_max_5xx;
	w->end_ms = bt_clock_boot_ms() + bake_ms;
	w->progress = progress;
	w->progress_arg = progress_arg;
	w->done = done;
	w->arg = arg;
	bt_nginx_timer(w->timer, 0);
	return &w->op;
}
