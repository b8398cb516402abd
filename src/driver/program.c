/* The directory is the memory: a spec there means that the program was (or is about to be) begun,
 * the shim's status says how far it came. So whoever comes back (an agent after its restart) does
 * the same as who begins: write the spec if there is none, see that a shim watches, wait for the
 * last status. */
#include "driver/program.h"

#include "base/fs.h"
#include "driver/log_tail.h"
#include "driver/process.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LAUNCH_TIMEOUT_MS 15000
#define RETRY_MS 200
#define LAUNCHES 5
#define LOG_BYTES (1 << 20)
#define STOP_WAIT_MS 5000

struct job {			 /* on a thread: the directory and its spec */
	struct program *program; /* NULL: cancelled meanwhile */
	char *dir;
	struct bt_arena *arena;
	const struct bt_shim_spec *spec;
	int result;
	struct bt_err err;
};

struct program {
	struct bt_op op; /* first */
	const struct bt_driver_env *env;
	char *dir, *log;
	bt_progress_fn output;
	bt_program_fn done;
	void *arg;
	struct job *job;
	struct bt_child *launcher;
	struct bt_log_follow *follow;
	struct bt_str line; /* that has no end yet */
	struct event *readable, *timer;
	int fd, launches;
	bool waited;	      /* since the last launch */
	char why[BT_ERR_MAX]; /* before it began: what went wrong */
};

static void look(struct program *p);

/* ---- names ------------------------------------------------------------------------------- */

static char *dir_of(const struct bt_driver_env *env, const char *name)
{
	return bt_asprintf("%s/tasks/%s", env->state_dir, name);
}

void bt_program_log(const struct bt_driver_env *env, const char *name, char *buf, size_t n)
{
	snprintf(buf, n, "%s/tasks/%s.log", env->state_dir, name);
}

void bt_program_forget(const struct bt_driver_env *env, const char *name)
{
	BT_FREE char *dir = dir_of(env, name);
	char log[4096], older[4100];
	bt_program_log(env, name, log, sizeof log);
	snprintf(older, sizeof older, "%s.1", log);
	bt_fs_remove_tree(dir, NULL);
	unlink(log);
	unlink(older);
}

static bool has_ended(const struct bt_shim_status *s)
{
	return s->state == BT_SHIM_STOPPED || s->state == BT_SHIM_FAILED ||
	       s->state == BT_SHIM_INTERRUPTED;
}

void bt_program_sweep(
	const struct bt_driver_env *env, bool (*keep)(void *arg, const char *name), void *arg)
{
	BT_FREE char *root = bt_asprintf("%s/tasks", env->state_dir);
	DIR *d = opendir(root);
	for (struct dirent *e; d && (e = readdir(d));) {
		struct bt_shim_status s;
		BT_FREE char *dir = dir_of(env, e->d_name);
		bool begun = bt_process_status_read(dir, &s, NULL) == 0;
		if (e->d_name[0] != '.' && !strchr(e->d_name, '.') && !keep(arg, e->d_name) &&
			(!begun || has_ended(&s)))
			bt_program_forget(env, e->d_name);
	}
	if (d)
		closedir(d);
}

/* ---- ending ------------------------------------------------------------------------------ */

static void unlink_shim(struct program *p)
{
	if (p->readable)
		event_free(p->readable);
	if (p->fd >= 0)
		close(p->fd);
	p->readable = NULL;
	p->fd = -1;
}

static void program_free(struct bt_op *op)
{
	struct program *p = (struct program *)op;
	unlink_shim(p);
	bt_child_cancel(p->launcher);
	bt_log_follow_free(p->follow);
	bt_str_done(&p->line);
	event_free(p->timer);
	if (p->job)
		p->job->program = NULL;
	free(p->dir);
	free(p->log);
	free(p);
}

static void finish(struct program *p, const struct bt_program_end *end)
{
	p->done(p->arg, end);
	program_free(&p->op);
}

static void ended(struct program *p, const struct bt_shim_status *s)
{
	struct bt_program_end end = {
		.began = s->state != BT_SHIM_FAILED,
		.seen = s->exit_code >= 0 || s->exit_signal > 0,
		.late = s->late,
		.held = s->held[0] ? s->held : NULL,
		.code = (int)s->exit_code,
		.text = s->text,
	};
	finish(p, &end);
}

static void not_begun(struct program *p, const char *why)
{
	struct bt_program_end end = {.code = -1, .text = why};
	finish(p, &end);
}

/* ---- what it writes ---------------------------------------------------------------------- */

static bool on_output(void *arg, const char *data, size_t n)
{
	struct program *p = arg;
	for (size_t i = 0; i < n; i++) {
		if (data[i] != '\n') {
			if (p->line.len < 1000)
				bt_str_addc(&p->line, data[i]);
			continue;
		}
		/* The shim's own lines are between the program's. */
		if (p->line.len && !strstr(bt_str_get(&p->line), "Z baton: "))
			p->output(p->arg, bt_str_get(&p->line));
		bt_str_reset(&p->line);
	}
	return true;
}

/* ---- watching ---------------------------------------------------------------------------- */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct program *p = arg;
	struct bt_shim_status s;
	(void)what;
	int r = bt_process_receive(fd, &s);
	if (r > 0 && has_ended(&s)) {
		ended(p, &s);
	} else if (r < 0) {
		unlink_shim(p);
		look(p);
	}
}

static void on_launched(void *arg, const struct bt_child_result *result)
{
	struct program *p = arg;
	p->launcher = NULL;
	if (result->exit_code == 1 && result->output_len > 0)
		snprintf(p->why, sizeof p->why, "%.*s", (int)strcspn(result->output, "\n"),
			result->output);
	else if (result->exit_code != 0)
		bt_child_describe(result, p->why, sizeof p->why);
	look(p);
}

static void launch(struct program *p)
{
	const char *const argv[] = {p->env->shim_path, p->dir, NULL};
	struct bt_child_spec spec = {
		.argv = argv, .uid = (uid_t)-1, .gid = (gid_t)-1, .timeout_ms = LAUNCH_TIMEOUT_MS};
	struct bt_err err = {0};
	p->launches++;
	p->waited = false;
	if (bt_child_start(p->env->base, &spec, on_launched, p, &p->launcher, &err) < 0)
		not_begun(p, err.text);
}

/* Either the first turn of the loop, or another try. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct program *p = arg;
	(void)fd;
	(void)what;
	if (p->why[0] && !p->launches)
		not_begun(p, p->why);
	else
		look(p);
}

/* Where does it stand? A shim that answers, else the last word of one that ended, else it needs
 * one. */
static void look(struct program *p)
{
	struct bt_shim_status s;
	p->fd = bt_process_connect(p->dir);
	if (p->fd >= 0) {
		p->readable = event_new(p->env->base, p->fd, EV_READ | EV_PERSIST, on_readable, p);
		event_add(p->readable, NULL);
		return;
	}
	bool known = bt_process_status_read(p->dir, &s, NULL) == 0;
	if (known && has_ended(&s))
		ended(p, &s);
	else if (p->launches == 0 || (p->waited && p->launches < LAUNCHES))
		launch(p);
	else if (!p->waited) { /* a shim may be between its socket's end and its last word */
		p->waited = true;
		bt_timer_in(p->timer, RETRY_MS);
	} else if (known) {
		struct bt_program_end lost = {.began = true,
			.code = -1,
			.text = p->why[0] ? p->why
					  : "nobody saw how it ended: whatever was to watch it "
					    "ended at once"};
		finish(p, &lost);
	} else
		not_begun(p, p->why);
}

/* ---- beginning --------------------------------------------------------------------------- */

static void job_run(void *arg)
{
	struct job *job = arg;
	job->result = bt_process_spec_write(job->dir, job->spec, &job->err);
}

static void job_done(void *arg)
{
	struct job *job = arg;
	struct program *p = job->program;
	if (p) {
		p->job = NULL;
		if (job->result < 0)
			not_begun(p, job->err.text);
		else
			launch(p);
	}
	bt_arena_free(job->arena);
	free(job->dir);
	free(job);
}

static int begin(
	struct program *p, const struct bt_start_request *rq, int64_t limit_ms, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_shim_spec *spec;
	int r = bt_process_spec_make(p->env, rq, p->log, a, &spec, err);
	if (r < 0)
		return r;
	spec->once_ms = limit_ms;
	spec->leave = rq->leave;
	spec->log_max_bytes = LOG_BYTES;
	spec->log_keep = 1;
	spec->stop = (struct bt_shim_steps){.n = 1};
	spec->stop.items[0] = (struct bt_shim_step){SIGTERM, STOP_WAIT_MS};
	struct job *job = p->job = bt_calloc(1, sizeof *job);
	*job = (struct job){.program = p, .dir = bt_strdup(p->dir), .spec = spec};
	job->arena = BT_STEAL(a);
	bt_work_submit(p->env->work, job_run, job_done, job);
	return 0;
}

struct bt_op *bt_program_run(const struct bt_driver_env *env, const char *name,
	const struct bt_start_request *rq, int64_t limit_ms, bt_progress_fn output,
	bt_program_fn done, void *arg)
{
	char log[4096];
	struct bt_err err = {0};
	struct program *p = bt_calloc(1, sizeof *p);
	bt_program_log(env, name, log, sizeof log);
	*p = (struct program){.op = {program_free},
		.env = env,
		.dir = dir_of(env, name),
		.log = bt_strdup(log),
		.output = output,
		.done = done,
		.arg = arg,
		.fd = -1};
	BT_FREE char *root = bt_asprintf("%s/tasks", env->state_dir);
	BT_FREE char *spec = bt_asprintf("%s/spec", p->dir);
	p->timer = evtimer_new(env->base, on_timer, p);
	bool begun = bt_fs_exists(spec);
	int r = bt_fs_mkdirs(root, 0700, &err);
	if (r == 0 && output)
		r = bt_log_follow_start(env->base, p->log, 1000, on_output, p, &p->follow, &err);
	if (r == 0 && !begun)
		r = begin(p, rq, limit_ms, &err);
	if (r < 0)
		snprintf(p->why, sizeof p->why, "%s", err.text);
	if (begun || r < 0) /* never from inside the verb */
		bt_timer_in(p->timer, 0);
	return &p->op;
}
