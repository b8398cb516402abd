/* One instance, from its directory to its shim and back.
 *
 *   PREPARING → LAUNCHING → LINKED → (REMOVING)
 *                   ↑          ↓ the shim is gone without a last word
 *                   └──────── LOST
 *
 * The directory's spec is the durable intent: it is there before a shim is, and removed only after
 * the shim's word that all is stopped. So after any crash what is found on disk says what to do. */
#include "driver/process_adopted.h"

#include "base/fs.h"
#include "driver/log_tail.h"
#include "driver/ports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A process that cannot even begin (a missing jar, a bad flag) ends within this; what fails later
 * is found by the health check. */
#define CONFIRM_MS 150
#define LAUNCH_TIMEOUT_MS 15000
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 30000
#define INTERRUPTED_MS 5000

struct bt_process_state bt_process;

struct bt_process_job {
	struct bt_instance *instance; /* NULL: forgotten meanwhile */
	char *dir;
	struct bt_arena *arena;
	const struct bt_shim_spec *spec; /* NULL: remove the directory */
	int result;
	struct bt_err err;
};

static void launch(struct bt_instance *i);
static void removed(struct bt_instance *i);
static void remove_dir(struct bt_instance *i);
static void on_timer(evutil_socket_t fd, short what, void *arg);

/* ---- the table ---------------------------------------------------------------------------- */

struct bt_instance *bt_instance_find(const char *service, const char *slot)
{
	struct bt_instance *i = bt_process.instances;
	while (i && (strcmp(i->service, service) != 0 || strcmp(i->slot, slot) != 0))
		i = i->next;
	return i;
}

struct bt_instance *bt_instance_add(const struct bt_shim_spec *spec, const char *dir)
{
	struct bt_instance *i = bt_calloc(1, sizeof *i);
	i->service = bt_strdup(spec->service);
	i->slot = bt_strdup(spec->slot);
	i->dir = bt_strdup(dir);
	i->log = bt_strdup(spec->log);
	i->version = bt_strdup(spec->version);
	i->marker = bt_strdup(spec->marker);
	i->port = (uint16_t)spec->port;
	i->release = (uint32_t)spec->release;
	i->steps = spec->stop;
	i->fd = -1;
	i->timer = event_new(bt_process.env.base, -1, 0, on_timer, i);
	i->next = bt_process.instances;
	bt_process.instances = i;
	struct stat st;
	i->log_from = stat(i->log, &st) == 0 ? st.st_size : 0;
	return i;
}

static void unlink_shim(struct bt_instance *i)
{
	if (i->readable)
		event_free(i->readable);
	i->readable = NULL;
	if (i->fd >= 0)
		close(i->fd);
	i->fd = -1;
}

/* Out of the table. */
static void instance_free(struct bt_instance *i)
{
	struct bt_instance **at = &bt_process.instances;
	while (*at && *at != i)
		at = &(*at)->next;
	if (*at)
		*at = i->next;
	unlink_shim(i);
	event_free(i->timer);
	bt_child_cancel(i->launcher);
	if (i->job)
		i->job->instance = NULL;
	free(i->service);
	free(i->slot);
	free(i->dir);
	free(i->log);
	free(i->version);
	free(i->marker);
	free(i);
}

void bt_process_forget(void)
{
	bt_adopted_forget_all();
	while (bt_process.instances) {
		struct bt_instance *i = bt_process.instances;
		if (i->starting)
			bt_op_cancel(&i->starting->op);
		if (i->stopping)
			bt_op_cancel(&i->stopping->op);
		instance_free(i);
	}
}

static void set_timer(struct bt_instance *i, int64_t ms)
{
	bt_timer_in(i->timer, ms);
}

/* ---- what the shim says ------------------------------------------------------------------- */

/* The last line that the app itself wrote since its start; "" when it wrote none. */
static void last_line(const struct bt_instance *i, char *buf, size_t n)
{
	char text[8193];
	BT_CLOSE int fd = open(i->log, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	buf[0] = 0;
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	int64_t from = i->log_from <= st.st_size ? i->log_from : 0;
	if (from < st.st_size - (int64_t)sizeof text + 1)
		from = st.st_size - (int64_t)sizeof text + 1;
	ssize_t got = pread(fd, text, sizeof text - 1, from);
	text[got > 0 ? got : 0] = 0;
	for (char *save = NULL, *l = strtok_r(text, "\n", &save); l;
		l = strtok_r(NULL, "\n", &save))
		if (!strstr(l, "Z baton: "))
			snprintf(buf, n, "%s", l);
}

static void exited_at_once(struct bt_instance *i)
{
	char line[512];
	last_line(i, line, sizeof line);
	struct bt_err err = {0};
	bt_err_set(&err, BT_E_FAILED, "%s/%s %s: %s%s%s", i->service, i->slot,
		i->fresh ? "exited at once" : "crashes again and again", i->status.text,
		line[0] ? ": " : "; its log is empty", line);
	if (!i->fresh) { /* somebody else's start: its shim goes on trying */
		bt_process_op_later(i->starting, err.code, &err);
		i->starting->instance = NULL;
		i->starting = NULL;
		return;
	}
	i->failure = err; /* told when all is stopped and removed */
	bt_instance_stop(i);
}

void bt_instance_confirm(struct bt_instance *i)
{
	if (!i->starting || i->failure.code || i->phase != BT_PROCESS_LINKED || !i->seen)
		return;
	if (i->status.state == BT_SHIM_WAITING || (i->fresh && i->status.exits > 0))
		exited_at_once(i);
	else if (i->status.state == BT_SHIM_RUNNING && !event_pending(i->timer, EV_TIMEOUT, NULL))
		set_timer(i, CONFIRM_MS);
}

/* Nothing runs any more and the shim has gone: what is left is the directory. */
static void stopped(struct bt_instance *i)
{
	unlink_shim(i);
	event_del(i->timer);
	if (i->starting && !i->failure.code)
		bt_err_set(&i->failure, BT_E_FAILED, "%s/%s was stopped while it started",
			i->service, i->slot);
	remove_dir(i);
}

static void lost(struct bt_instance *i, int64_t delay_ms)
{
	unlink_shim(i);
	i->phase = BT_PROCESS_LOST;
	set_timer(i, delay_ms);
}

static void on_status(struct bt_instance *i, const struct bt_shim_status *s)
{
	bool news = !i->seen || strcmp(i->status.text, s->text) != 0;
	i->status = *s;
	i->seen = true;
	switch ((enum bt_shim_state)s->state) {
	case BT_SHIM_RUNNING:
		i->ran = true;
		i->retry_ms = 0;
		break;
	case BT_SHIM_STOPPED:
	case BT_SHIM_FAILED:
		stopped(i);
		return;
	case BT_SHIM_INTERRUPTED:
		if (i->stop_wanted)
			stopped(i);
		else
			lost(i, INTERRUPTED_MS);
		return;
	default:
		break;
	}
	if (news && i->stopping && i->stopping->progress && s->text[0])
		i->stopping->progress(i->stopping->arg, s->text);
	bt_instance_confirm(i);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct bt_instance *i = arg;
	struct bt_shim_status s;
	(void)what;
	/* One message a call: handling it may free the instance. */
	int r = bt_process_receive(fd, &s);
	if (r > 0)
		on_status(i, &s);
	else if (r < 0)
		lost(i, 0);
}

static bool link_shim(struct bt_instance *i)
{
	int fd = bt_process_connect(i->dir);
	if (fd < 0)
		return false;
	i->fd = fd;
	i->phase = BT_PROCESS_LINKED;
	i->readable = event_new(bt_process.env.base, fd, EV_READ | EV_PERSIST, on_readable, i);
	event_add(i->readable, NULL);
	event_del(i->timer);
	if (i->stop_wanted)
		bt_instance_stop(i);
	return true;
}

/* ---- launching a shim --------------------------------------------------------------------- */

/* Tells who waits for the start; an instance that was there before it goes on trying. */
static void start_failed(struct bt_instance *i, const char *why)
{
	struct bt_err err = {0};
	bt_err_set(&err, BT_E_FAILED, "start %s/%s: %s", i->service, i->slot, why);
	if (i->fresh) { /* told when all is stopped and removed */
		i->failure = err;
		i->stop_wanted = true;
		return;
	}
	bt_process_op_later(i->starting, err.code, &err);
	i->starting->instance = NULL;
	i->starting = NULL;
}

/* `nothing`: the shim said why it started nothing. Otherwise it was killed, or another one is at
 * it: an app may run that nobody was told of, and only a shim can tell and end it. So the
 * directory, which names that app, stays until one has answered. */
static void launch_failed(struct bt_instance *i, const char *why, bool nothing)
{
	if (nothing && !i->ran) {
		if (!i->failure.code)
			bt_err_set(&i->failure, BT_E_FAILED, "start %s/%s: %s", i->service, i->slot,
				why);
		stopped(i);
		return;
	}
	if (i->starting && !i->failure.code)
		start_failed(i, why);
	/* It shall run, or be stopped: this is tried until it works. */
	i->retry_ms = i->retry_ms ? i->retry_ms * 2 : RETRY_MIN_MS;
	if (i->retry_ms > RETRY_MAX_MS)
		i->retry_ms = RETRY_MAX_MS;
	i->status.state = BT_SHIM_WAITING;
	i->status.pid = 0;
	snprintf(i->status.text, sizeof i->status.text, "%s", why);
	i->seen = true;
	lost(i, i->retry_ms);
}

static void on_launched(void *arg, const struct bt_child_result *result)
{
	struct bt_instance *i = arg;
	struct bt_shim_status s;
	char why[512];
	i->launcher = NULL;
	if (link_shim(i)) /* also when it failed because another shim is there */
		return;
	int r = bt_process_status_read(i->dir, &s, NULL);
	if (r == 0 && (s.state == BT_SHIM_STOPPED || s.state == BT_SHIM_INTERRUPTED)) {
		on_status(i, &s);
		return;
	}
	/* A status with a process is a trace of an app, whoever wrote it. */
	if (r == 0 && s.pid)
		i->ran = true;
	if (result->exit_code > 0 && result->output_len > 0)
		snprintf(why, sizeof why, "%.*s", (int)strcspn(result->output, "\n"),
			result->output);
	else
		bt_child_describe(result, why, sizeof why);
	launch_failed(i, why, result->exit_code == BT_SHIM_EXIT_NOTHING);
}

static void launch(struct bt_instance *i)
{
	const char *const argv[] = {
		bt_process.env.shim_path, i->dir, i->stop_wanted ? "stop" : NULL, NULL};
	struct bt_child_spec spec = {
		.argv = argv, .uid = (uid_t)-1, .gid = (gid_t)-1, .timeout_ms = LAUNCH_TIMEOUT_MS};
	struct bt_err err = {0};
	i->phase = BT_PROCESS_LAUNCHING;
	if (bt_child_start(bt_process.env.base, &spec, on_launched, i, &i->launcher, &err) < 0)
		launch_failed(i, err.text, true);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct bt_instance *i = arg;
	(void)fd;
	(void)what;
	if (i->phase == BT_PROCESS_LOST) {
		bt_instance_resume(i);
		return;
	}
	if (i->starting && i->phase == BT_PROCESS_LINKED && !i->failure.code &&
		i->status.state == BT_SHIM_RUNNING)
		bt_process_op_finish(i->starting, 0, NULL);
}

void bt_instance_resume(struct bt_instance *i)
{
	struct bt_shim_status s;
	if (link_shim(i) || bt_process.env.hold)
		return; /* what is held waits, without a timer, for bt_process_wake */
	if (bt_process_status_read(i->dir, &s, NULL) == 0) {
		i->status = s;
		i->seen = true;
		i->ran = s.state != BT_SHIM_FAILED;
		if (s.state == BT_SHIM_STOPPED || s.state == BT_SHIM_FAILED) {
			stopped(i);
			return;
		}
	}
	launch(i);
}

/* ---- the directory, on a thread ------------------------------------------------------------ */

static void job_run(void *arg)
{
	struct bt_process_job *job = arg;
	if (job->spec) {
		job->result = bt_process_spec_write(job->dir, job->spec, &job->err);
	} else {
		/* The intent goes first: a shim that comes late finds the stopped status, or no
		 * spec, and starts nothing. */
		BT_FREE char *spec = bt_asprintf("%s/spec", job->dir);
		unlink(spec);
		job->result = bt_fs_remove_tree(job->dir, &job->err);
	}
	if (!job->spec && job->result == 0 &&
		bt_fs_exists(job->dir) == false) /* the intent is gone durably */
		bt_fs_fsync_parent(job->dir, NULL);
}

static void job_done(void *arg)
{
	struct bt_process_job *job = arg;
	struct bt_instance *i = job->instance;
	bool wrote = job->spec != NULL;
	int result = job->result;
	struct bt_err err = job->err;
	bt_arena_free(job->arena);
	free(job->dir);
	free(job);
	if (!i)
		return;
	i->job = NULL;
	if (!wrote) {
		if (result < 0 && !i->failure.code)
			i->failure = err;
		removed(i);
	} else if (result < 0) {
		i->failure = err;
		bt_err_wrap(&i->failure, "start %s/%s", i->service, i->slot);
		stopped(i);
	} else if (i->stop_wanted) {
		stopped(i);
	} else {
		launch(i);
	}
}

static void submit(struct bt_instance *i, struct bt_arena *a, const struct bt_shim_spec *spec)
{
	struct bt_process_job *job = bt_calloc(1, sizeof *job);
	job->instance = i;
	job->dir = bt_strdup(i->dir);
	job->arena = a;
	job->spec = spec;
	i->job = job;
	bt_work_submit(bt_process.env.work, job_run, job_done, job);
}

void bt_instance_prepare(struct bt_instance *i, struct bt_arena *a, const struct bt_shim_spec *spec)
{
	i->phase = BT_PROCESS_PREPARING;
	i->fresh = true;
	submit(i, a, spec);
}

static void remove_dir(struct bt_instance *i)
{
	i->phase = BT_PROCESS_REMOVING;
	submit(i, NULL, NULL);
}

/* The last step: nothing is left of the instance but those who wait for it. */
static void removed(struct bt_instance *i)
{
	struct bt_process_op *starting = i->starting, *stopping = i->stopping;
	struct bt_err failure = i->failure, held = {0};
	char who[96];
	for (size_t k = 0; stopping && !held.code && k <= i->n_more; k++) {
		uint16_t port = k ? i->more[k - 1] : i->port;
		if (bt_process_find_listener(port, who, sizeof who))
			bt_err_set(&held, BT_E_FAILED,
				"stop %s/%s: its processes are gone, but port %u is still held by "
				"%s",
				i->service, i->slot, port, who);
	}
	if (starting)
		starting->instance = NULL;
	if (stopping)
		stopping->instance = NULL;
	instance_free(i);
	if (starting)
		bt_process_op_finish(starting, failure.code ? failure.code : BT_E_FAILED, &failure);
	if (stopping)
		bt_process_op_finish(stopping, held.code, &held);
}

/* ---- stop --------------------------------------------------------------------------------- */

void bt_instance_stop(struct bt_instance *i)
{
	struct bt_shim_request rq = {.op = BT_SHIM_OP_STOP, .steps = i->steps};
	i->stop_wanted = true;
	switch (i->phase) {
	case BT_PROCESS_LINKED:
		event_del(i->timer);
		if (bt_process_send(i->fd, &rq) < 0)
			lost(i, 0);
		break;
	case BT_PROCESS_LOST:
		event_del(i->timer);
		bt_instance_resume(i);
		break;
	case BT_PROCESS_PREPARING: /* seen when it is over */
	case BT_PROCESS_LAUNCHING:
	case BT_PROCESS_REMOVING:
		break;
	}
}
