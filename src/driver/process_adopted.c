/* Instances that others started: a record and no shim.
 *
 * The record (instances/<service>/<slot>/adopted.json) names one process for ever: pid, start time
 * and boot id. It is held by a pidfd from the agent's start on, so a pid that is used again is
 * never mistaken for it, and everything that is sent to it goes by pidfd. What it started belongs
 * to it: a master's workers. Its process group does not, since a script that started several things
 * gave them all its own.
 *
 *   adopted → (its end) → forgotten
 *   adopted → stop: signals by run.stop, the rest by KILL → record removed → port looked at */
#include "driver/process_adopted.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "driver/foreign.h"
#include "driver/ports.h"
#include "shim/proc.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define RECORD "adopted.json"
#define RECORD_MAX 65536
#define RECORD_VERSION 1
#define LOOK_MS 50
#define MAX_TREE 1024

struct member { /* of the tree that is being stopped */
	pid_t pid;
	int fd;
};

struct job;

struct bt_adopted {
	struct bt_adopted *next;
	char *service, *slot, *version, *command, *dir;
	uint16_t port;
	uint32_t release;
	pid_t pid;
	int64_t start_ticks, since_wall_ms;
	int fd; /* pidfd */
	struct event *gone, *look;
	struct bt_process_op *waiter; /* for the record, or for the stop */
	struct job *job;	      /* the record is being written or removed */
	bool stop_wanted, removing, orphans_told;
	struct bt_shim_steps steps;
	size_t step;
	int64_t step_until_ms;
	struct member *tree; /* what it started */
	size_t n_tree;
};

static struct bt_adopted *list;

/* ---- the table ------------------------------------------------------------------------------- */

struct job {
	struct bt_adopted *instance; /* NULL: forgotten meanwhile */
	char *dir, *text;	     /* text NULL: remove */
	int result;
	struct bt_err err;
};

struct bt_adopted *bt_adopted_find(const char *service, const char *slot)
{
	struct bt_adopted *i = list;
	while (i && (strcmp(i->service, service) != 0 || strcmp(i->slot, slot) != 0))
		i = i->next;
	return i;
}

static void adopted_free(struct bt_adopted *i)
{
	for (struct bt_adopted **at = &list; *at; at = &(*at)->next)
		if (*at == i) {
			*at = i->next;
			break;
		}
	for (size_t k = 0; k < i->n_tree; k++)
		close(i->tree[k].fd);
	if (i->job)
		i->job->instance = NULL;
	if (i->waiter) /* it is answered after this */
		i->waiter->adopted = NULL;
	event_free(i->gone);
	event_free(i->look);
	close(i->fd);
	free(i->tree);
	free(i->service);
	free(i->slot);
	free(i->version);
	free(i->command);
	free(i->dir);
	free(i);
}

void bt_adopted_leave(struct bt_adopted *i, const struct bt_process_op *op)
{
	if (i->waiter == op)
		i->waiter = NULL;
}

void bt_adopted_forget_all(void)
{
	while (list) {
		if (list->waiter)
			bt_op_cancel(&list->waiter->op);
		adopted_free(list);
	}
}

static void wait_with(struct bt_adopted *i, struct bt_process_op *op)
{
	i->waiter = op;
	op->adopted = i;
}

static void answer(struct bt_process_op *op, int result, const struct bt_err *err)
{
	if (op)
		bt_process_op_finish(op, result, err);
}

/* ---- the record, beside the loop ------------------------------------------------------------ */

static void job_run(void *arg)
{
	struct job *j = arg;
	BT_FREE char *path = bt_asprintf("%s/" RECORD, j->dir);
	if (!j->text) {
		j->result = bt_fs_remove_tree(j->dir, &j->err);
		if (j->result == 0)
			bt_fs_fsync_parent(j->dir, NULL);
		return;
	}
	j->result = bt_fs_mkdirs(j->dir, 0700, &j->err);
	if (j->result == 0)
		j->result = bt_fs_write_atomic(path, j->text, strlen(j->text), 0600, &j->err);
	if (j->result == 0)
		j->result = bt_fs_fsync_parent(j->dir, &j->err);
}

/* It is gone, and so is its record: unless something started it again at once. */
static void removed(struct bt_adopted *i, int result, struct bt_err *err)
{
	char who[96];
	struct bt_process_op *op = i->waiter;
	if (result == 0 && i->stop_wanted && bt_process_find_listener(i->port, who, sizeof who))
		result = bt_err_set(err, BT_E_FAILED,
			"stop %s/%s: its processes are gone, but port %u is held by %s: what "
			"started it (a systemd unit, a script) seems to start it again; stop that",
			i->service, i->slot, i->port, who);
	adopted_free(i);
	answer(op, result, err);
}

static void job_done(void *arg)
{
	struct job *j = arg;
	struct bt_adopted *i = j->instance;
	struct bt_err err = j->err;
	int result = j->result;
	bool wrote = j->text != NULL;
	free(j->dir);
	free(j->text);
	free(j);
	if (!i)
		return;
	i->job = NULL;
	if (!wrote || result < 0)
		removed(i, result, &err);
	else
		answer(i->waiter, 0, NULL);
}

static void submit(struct bt_adopted *i, char *text)
{
	struct job *j = bt_calloc(1, sizeof *j);
	j->instance = i;
	j->dir = bt_strdup(i->dir);
	j->text = text;
	i->job = j;
	bt_work_submit(bt_process.env.work, job_run, job_done, j);
}

static char *record_text(const struct bt_adopted *i)
{
	char boot[64] = "";
	bt_proc_boot_id(boot, sizeof boot);
	BT_JSON json_t *j = json_pack("{s:i, s:i, s:I, s:s, s:I, s:i, s:s, s:i, s:s}", "format",
		RECORD_VERSION, "pid", (int)i->pid, "start_ticks", (json_int_t)i->start_ticks,
		"boot_id", boot, "since_wall_ms", (json_int_t)i->since_wall_ms, "release",
		(int)i->release, "version", i->version, "port", (int)i->port, "command",
		i->command);
	return bt_json_dump(j);
}

/* ---- its end --------------------------------------------------------------------------------- */

static void remove_record(struct bt_adopted *i)
{
	i->removing = true;
	event_del(i->look);
	event_del(i->gone);
	submit(i, NULL);
}

static void look(evutil_socket_t fd, short what, void *arg);

static void on_gone(evutil_socket_t fd, short what, void *arg)
{
	struct bt_adopted *i = arg;
	if (i->job) /* its record is just being written: look again when that is over */
		bt_timer_in(i->look, LOOK_MS);
	else if (i->stop_wanted)
		look(fd, what, i);
	else
		remove_record(i);
}

/* ---- into the table ---------------------------------------------------------------------------
 */

static struct bt_adopted *add(const struct bt_adopt_request *rq, struct bt_err *err)
{
	char boot[64] = "";
	bt_proc_boot_id(boot, sizeof boot);
	int fd = bt_proc_open(rq->pid, rq->start_ticks, boot);
	if (fd < 0) {
		bt_err_set(err, BT_E_NOTFOUND, "pid %d does not run any more", (int)rq->pid);
		return NULL;
	}
	struct bt_adopted *i = bt_calloc(1, sizeof *i);
	i->service = bt_strdup(rq->ref.service);
	i->slot = bt_strdup(rq->ref.slot);
	i->version = bt_strdup(rq->version ? rq->version : "");
	i->command = bt_strdup(rq->command ? rq->command : "");
	i->dir = bt_asprintf(
		"%s/instances/%s/%s", bt_process.env.state_dir, rq->ref.service, rq->ref.slot);
	i->port = rq->ref.port;
	i->release = rq->release;
	i->pid = rq->pid;
	i->start_ticks = rq->start_ticks;
	i->since_wall_ms = rq->since_wall_ms;
	i->fd = fd;
	i->look = event_new(bt_process.env.base, -1, 0, look, i);
	i->gone = event_new(bt_process.env.base, fd, EV_READ, on_gone, i);
	event_add(i->gone, NULL);
	i->next = list;
	list = i;
	return i;
}

bool bt_adopted_load(const char *dir, const char *service, const char *slot)
{
	BT_FREE char *path = bt_asprintf("%s/" RECORD, dir);
	BT_FREE char *text = NULL;
	BT_JSON json_t *j = NULL;
	int64_t format = 0, pid = 0, release = 0, port = 0;
	const char *boot = "";
	char now[64] = "";
	size_t n;
	struct bt_adopt_request rq = {.ref.service = service, .ref.slot = slot};
	if (!bt_fs_exists(path) || bt_fs_read(path, RECORD_MAX, &text, &n, NULL) < 0 ||
		bt_json_parse(text, n, RECORD_MAX, &j, NULL) < 0 ||
		bt_json_int(j, "format", 1, RECORD_VERSION, &format, NULL) < 0 ||
		bt_json_int(j, "pid", 2, INT32_MAX, &pid, NULL) < 0 ||
		bt_json_int(j, "start_ticks", 1, INT64_MAX, &rq.start_ticks, NULL) < 0 ||
		bt_json_str(j, "boot_id", &boot, NULL) < 0 ||
		bt_json_int(j, "since_wall_ms", 0, INT64_MAX, &rq.since_wall_ms, NULL) < 0 ||
		bt_json_int(j, "release", 0, UINT32_MAX, &release, NULL) < 0 ||
		bt_json_str(j, "version", &rq.version, NULL) < 0 ||
		bt_json_int(j, "port", 1, UINT16_MAX, &port, NULL) < 0 ||
		bt_json_str(j, "command", &rq.command, NULL) < 0)
		return false;
	bt_proc_boot_id(now, sizeof now);
	if (strcmp(boot, now) != 0)
		return false; /* of another boot: another process may have its pid and even its tick
			       */
	rq.pid = (pid_t)pid;
	rq.release = (uint32_t)release;
	rq.ref.port = (uint16_t)port;
	return add(&rq, NULL) != NULL;
}

struct bt_op *bt_adopted_take(const struct bt_adopt_request *rq, bt_done_fn done, void *arg)
{
	struct bt_process_op *op = bt_process_op_new(NULL, done, arg);
	struct bt_adopted *i = bt_adopted_find(rq->ref.service, rq->ref.slot);
	struct bt_err err = {0};
	bool same = i && i->pid == rq->pid && i->start_ticks == rq->start_ticks && !i->job &&
		    !i->stop_wanted;
	if (bt_instance_find(rq->ref.service, rq->ref.slot) || (i && !same)) {
		bt_err_set(&err, BT_E_EXISTS, "adopt %s/%s: something else is the slot's instance",
			rq->ref.service, rq->ref.slot);
	} else if (i) {
		i->release = rq->release;
		free(i->version);
		i->version = bt_strdup(rq->version ? rq->version : "");
	} else {
		i = add(rq, &err);
	}
	if (err.code) {
		bt_process_op_later(op, err.code, &err);
		return &op->op;
	}
	wait_with(i, op);
	submit(i, record_text(i));
	return &op->op;
}

struct bt_op *bt_adopted_disown(const struct bt_instance_ref *ref, bt_done_fn done, void *arg)
{
	struct bt_process_op *op = bt_process_op_new(NULL, done, arg);
	struct bt_adopted *i = bt_adopted_find(ref->service, ref->slot);
	struct bt_err err = {0};
	if (!i) {
		bt_process_op_later(op, 0, NULL);
	} else if (i->stop_wanted || i->job) {
		bt_err_set(&err, BT_E_REFUSED, "%s/%s is being %s", ref->service, ref->slot,
			i->stop_wanted ? "stopped" : "recorded");
		bt_process_op_later(op, err.code, &err);
	} else {
		wait_with(i, op);
		remove_record(i);
	}
	return &op->op;
}

/* ---- stop ------------------------------------------------------------------------------------ */

struct search {
	struct bt_adopted *i;
	const char *boot;
};

static bool is_known(const struct bt_adopted *i, pid_t pid)
{
	for (size_t k = 0; k < i->n_tree; k++)
		if (i->tree[k].pid == pid && bt_proc_alive(i->tree[k].fd))
			return true;
	return false;
}

static bool collect(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	struct search *s = arg;
	struct bt_adopted *i = s->i;
	if (pid == i->pid || st->state == 'Z' || i->n_tree == MAX_TREE || is_known(i, pid) ||
		!bt_foreign_within(i->pid, pid))
		return false;
	int fd = bt_proc_open(pid, st->start_ticks, s->boot);
	if (fd < 0)
		return false;
	i->tree = bt_realloc(i->tree, (i->n_tree + 1) * sizeof *i->tree);
	i->tree[i->n_tree++] = (struct member){pid, fd};
	return false;
}

/* While it lives, what it started is found beneath it; afterwards only what was found before. */
static void collect_tree(struct bt_adopted *i)
{
	char boot[64] = "";
	bt_proc_boot_id(boot, sizeof boot);
	struct search s = {i, boot};
	if (bt_proc_alive(i->fd))
		bt_proc_each(collect, &s);
}

static size_t alive(const struct bt_adopted *i)
{
	size_t n = bt_proc_alive(i->fd);
	for (size_t k = 0; k < i->n_tree; k++)
		n += bt_proc_alive(i->tree[k].fd);
	return n;
}

/* A signal goes to the process itself, which tells its own; to them only once it is gone, and KILL
 * to all at once. */
static int send_signal(struct bt_adopted *i, int number)
{
	int r = 0;
	bool itself = bt_proc_alive(i->fd);
	if (itself)
		r = bt_proc_signal(i->fd, number);
	for (size_t k = 0; (!itself || number == SIGKILL) && k < i->n_tree; k++)
		bt_proc_signal(i->tree[k].fd, number);
	return r == -ESRCH ? 0 : r;
}

static void stop_failed(struct bt_adopted *i, int error)
{
	struct bt_err err = {0};
	bt_err_errno(&err, -error, "stop %s/%s: signal pid %d", i->service, i->slot, (int)i->pid);
	i->stop_wanted = false;
	answer(i->waiter, err.code, &err);
}

static int signal_now(const struct bt_adopted *i)
{
	return i->step > 0 && i->step <= i->steps.n ? i->steps.items[i->step - 1].signal : SIGKILL;
}

/* The next step, or KILL after the last one. False: it failed, and nobody is waited for. */
static bool next_step(struct bt_adopted *i)
{
	char line[96];
	bool more = i->step < i->steps.n;
	i->step_until_ms = bt_clock_boot_ms() + (more ? i->steps.items[i->step].wait_ms : 1000);
	i->step++;
	if (signal_now(i))
		snprintf(line, sizeof line, "SIG%s to pid %d", sigabbrev_np(signal_now(i)),
			(int)i->pid);
	else
		snprintf(line, sizeof line, "pid %d is to end by itself", (int)i->pid);
	if (i->waiter && i->waiter->progress)
		i->waiter->progress(i->waiter->arg, line);
	int r = send_signal(i, signal_now(i));
	if (r < 0)
		stop_failed(i, r);
	return r >= 0;
}

/* What it started was asked nothing; so once it is gone, a step without a signal is over for them.
 */
static bool step_is_over(const struct bt_adopted *i)
{
	return bt_clock_boot_ms() >= i->step_until_ms ||
	       (signal_now(i) == 0 && !bt_proc_alive(i->fd));
}

void bt_adopted_next(struct bt_adopted *i)
{
	if (i->stop_wanted && signal_now(i) == 0)
		i->step_until_ms = 0; /* as it is looked at next */
}

static void look(evutil_socket_t fd, short what, void *arg)
{
	struct bt_adopted *i = arg;
	(void)fd;
	(void)what;
	if (!i->stop_wanted || i->job) { /* it ended by itself while its record was written */
		on_gone(fd, what, i);
		return;
	}
	collect_tree(i);
	if (alive(i) == 0) {
		remove_record(i);
		return;
	}
	if (step_is_over(i)) {
		if (!next_step(i))
			return;
	} else if (!bt_proc_alive(i->fd) && !i->orphans_told) {
		i->orphans_told = true;
		send_signal(i, signal_now(i));
	}
	bt_timer_in(i->look, LOOK_MS);
}

struct bt_op *bt_adopted_stop(struct bt_adopted *i, const struct bt_service *service,
	bt_progress_fn progress, bt_done_fn done, void *arg)
{
	struct bt_process_op *op = bt_process_op_new(progress, done, arg);
	struct bt_err err = {0};
	if (i->waiter || (i->job && !i->removing)) {
		bt_err_set(&err, BT_E_REFUSED, "stop %s/%s: it is being %s", i->service, i->slot,
			i->stop_wanted ? "stopped" : "recorded");
		bt_process_op_later(op, err.code, &err);
		return &op->op;
	}
	wait_with(i, op);
	bool goes_on = i->stop_wanted || i->removing; /* and somebody waits for it again */
	i->stop_wanted = true;
	if (goes_on)
		return &op->op;
	i->orphans_told = false;
	i->steps.n = 0;
	i->step = 0;
	i->step_until_ms = 0;
	for (size_t k = 0; service && k < service->run.n_stop && k < BT_SHIM_STEPS_MAX; k++)
		i->steps.items[i->steps.n++] = (struct bt_shim_step){
			service->run.stop[k].signal, service->run.stop[k].wait_ms};
	bt_timer_in(i->look, 0);
	return &op->op;
}

/* ---- observe ----------------------------------------------------------------------------------
 */

bool bt_adopted_holds(const struct bt_adopted *i, pid_t pid)
{
	return pid > 0 && bt_foreign_within(i->pid, pid);
}

void bt_adopted_observe(const struct bt_adopted *i, struct bt_arena *a, struct bt_seen_instance *s)
{
	if (i->removing && !i->stop_wanted)
		return; /* it ended, or was given up */
	s->adopted = true;
	s->state = i->stop_wanted ? BT_RUN_STOPPING : BT_RUN_RUNNING;
	s->release = i->release;
	s->version = bt_arena_strdup(a, i->version);
	s->pid = (int)i->pid;
	s->since_wall_ms = i->since_wall_ms;
}
