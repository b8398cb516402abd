/* Stopping a Tomcat, each step with its own wait:
 *
 *   the shutdown port → catalina.sh stop → the signals of run.stop → KILL
 *
 * The shim is told first: its stop begins with a step that sends nothing and lasts as long as the
 * first two together (bt_shim_step). So the end of Tomcat is never taken for a crash, whoever dies
 * meanwhile the signals come in their time, and there is one place that says when all is gone. What
 * is done here is only the asking; where it is in vain, the shim is told to go on.
 *
 * After its restart an agent finds the stop under way. Then it asks at the shutdown port only: a
 * Tomcat that listens there was not asked yet, and one that does not is at its end already. */
#include "driver/process_adopted.h"
#include "driver/runtime.h"
#include "driver/tomcat.h"

#include "base/fs.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_MS 2000

struct asking;
struct job { /* on a thread: how this Tomcat is asked */
	struct bt_arena *arena;
	struct asking *asking; /* NULL: given up */
	const char *dir;       /* of the shim's spec; NULL: others started it */
	const char *base;
	/* found */
	const char *home; /* NULL: catalina.sh is not known */
	const char *const *envp;
	int64_t uid, gid;
	int port; /* -1: none; 0: not known */
	const char *word;
};
struct asking {
	struct bt_op op; /* first */
	const struct bt_driver_env *env;
	struct bt_arena *arena;
	struct bt_instance_ref ref;
	struct bt_service service; /* with the steps that the shim is given */
	bool goes_on;		   /* the stop was begun by an agent before this one */
	struct job *job;	   /* on its way */
	struct job facts;
	struct bt_op *inner;
	bool begun;
	int fd;
	struct event *connected, *timer;
	void (*after)(struct asking *s); /* the timer's */
	struct bt_child *child;
	bt_progress_fn progress;
	bt_done_fn done;
	void *arg;
};

static void begin(struct asking *s);

/* ---- how it is asked; on a thread
 * ---------------------------------------------------------------- */

static const char *variable(const struct bt_shim_spec *spec, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < spec->n_env; i++)
		if (!strncmp(spec->env[i], name, n) && spec->env[i][n] == '=')
			return spec->env[i] + n + 1;
	return NULL;
}

/* As it was started, but for the options of the server itself, and for the mark by which its shim
 * would take who asks for a part of it. */
static void take_environment(struct job *j, const struct bt_shim_spec *spec)
{
	static const char *const without[] = {"CATALINA_OPTS=", BT_SHIM_MARKER_ENV "="};
	const char **list = BT_ARENA_ARRAY(j->arena, const char *, spec->n_env + 1);
	size_t n = 0;
	for (size_t i = 0; i < spec->n_env; i++) {
		bool skip = false;
		for (size_t k = 0; k < BT_ARRAY_LEN(without); k++)
			skip = skip || bt_str_starts(spec->env[i], without[k]);
		if (!skip)
			list[n++] = bt_arena_strdup(j->arena, spec->env[i]);
	}
	j->envp = list;
	j->uid = spec->uid;
	j->gid = spec->gid;
}

/* Home and base are those that it was started with, whatever the config says by now. */
static void read_spec(struct job *j)
{
	struct bt_shim_spec *spec = bt_malloc(sizeof *spec);
	BT_FREE void *hold = spec;
	BT_FREE char *text = NULL;
	if (!j->dir || bt_process_spec_read(j->dir, &text, spec, NULL) < 0)
		return;
	j->home = bt_arena_strdup(j->arena, variable(spec, "CATALINA_HOME"));
	j->base = bt_arena_strdup(j->arena, variable(spec, "CATALINA_BASE"));
	take_environment(j, spec);
	explicit_bzero(text, strlen(text));
}

/* What it was started with, else what its server.xml says. */
static void read_port(struct job *j)
{
	struct bt_tomcat_state state;
	struct bt_tomcat_facts facts;
	BT_CLOSE int base = j->base ? open(j->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (base < 0)
		return;
	if (bt_tomcat_state_read(base, j->arena, &state, NULL) == 0) {
		j->port = state.shutdown_port;
		j->word = state.shutdown;
		return;
	}
	BT_FREE char *path = bt_tomcat_below(base, "conf/server.xml");
	BT_FREE char *text = NULL;
	size_t n;
	if (bt_fs_read(path, BT_TOMCAT_XML_MAX, &text, &n, NULL) < 0 ||
		bt_tomcat_facts_read(text, n, NULL, 0, &facts, NULL) < 0)
		return;
	j->port = facts.shutdown_port;
	j->word = bt_arena_strdup(j->arena, facts.shutdown);
}

static void job_run(void *arg)
{
	struct job *j = arg;
	read_spec(j);
	read_port(j);
}

/* ---- the operation
 * ------------------------------------------------------------------------------- */

static void asking_free(struct asking *s)
{
	bt_child_cancel(s->child);
	if (s->connected)
		event_free(s->connected);
	if (s->fd >= 0)
		close(s->fd);
	event_free(s->timer);
	if (s->job)
		s->job->asking = NULL;
	else
		bt_arena_free(s->arena);
	free(s);
}

/* The shim goes on with its steps: only nobody waits for it any more. */
static void asking_cancel(struct bt_op *op)
{
	struct asking *s = (struct asking *)op;
	bt_op_cancel(s->inner);
	asking_free(s);
}

static void on_stopped(void *arg, int result, const struct bt_err *err)
{
	struct asking *s = arg;
	bt_done_fn done = s->done;
	void *done_arg = s->arg;
	struct bt_err copy = err ? *err : (struct bt_err){0};
	asking_free(s);
	done(done_arg, result, result < 0 ? &copy : NULL);
}

static void say(struct asking *s, const char *line)
{
	if (s->progress)
		s->progress(s->arg, line);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct asking *s = arg;
	(void)fd;
	(void)what;
	s->after(s);
}

static void wait_then(struct asking *s, int64_t ms, void (*after)(struct asking *s))
{
	s->after = after;
	bt_timer_in(s->timer, ms);
}

/* ---- step by step
 * -------------------------------------------------------------------------------- */

static void to_signals(struct asking *s)
{
	event_del(s->timer);
	bt_process_next(s->ref.service, s->ref.slot);
}

static void on_catalina(void *arg, const struct bt_child_result *result)
{
	struct asking *s = arg;
	char why[256], line[320];
	s->child = NULL;
	/* Without CATALINA_PID it ends with 0 although it reached nobody; then it shows the
	 * exception. */
	bool nobody = strstr(result->output, "java.net.ConnectException") != NULL;
	if (result->exit_code == 0 && !nobody)
		return; /* it was told, and has the rest of the time */
	bt_child_describe(result, why, sizeof why);
	snprintf(line, sizeof line, "catalina.sh stop: %s", nobody ? "nobody listens" : why);
	say(s, line);
	to_signals(s);
}

static void ask_catalina(struct asking *s)
{
	int64_t wait = s->service.tomcat.stop_wait_ms;
	char line[128];
	struct bt_err err = {0};
	if (!s->facts.home || wait <= 0) {
		to_signals(s);
		return;
	}
	BT_FREE char *program = bt_asprintf("%s/bin/catalina.sh", s->facts.home);
	const char *const argv[] = {program, "stop", NULL};
	struct bt_child_spec spec = {.argv = argv,
		.envp = s->facts.envp,
		.cwd = "/",
		.uid = s->facts.uid < 0 ? (uid_t)-1 : (uid_t)s->facts.uid,
		.gid = s->facts.gid < 0 ? (gid_t)-1 : (gid_t)s->facts.gid,
		.timeout_ms = wait};
	snprintf(line, sizeof line, "catalina.sh stop, waiting up to %lld.%lld s",
		(long long)(wait / 1000), (long long)(wait % 1000 / 100));
	say(s, line);
	if (bt_child_start(s->env->base, &spec, on_catalina, s, &s->child, &err) < 0) {
		say(s, err.text);
		to_signals(s);
		return;
	}
	wait_then(s, wait, to_signals);
}

static void not_asked(struct asking *s, const char *why)
{
	char line[160];
	if (s->goes_on)
		return;
	snprintf(line, sizeof line, "its shutdown port %d: %s", s->facts.port, why);
	say(s, line);
	ask_catalina(s);
}

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct asking *s = arg;
	int64_t wait = s->service.tomcat.shutdown_wait_ms;
	char line[128];
	int error = 0;
	socklen_t n = sizeof error;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n);
	event_free(s->connected);
	s->connected = NULL;
	size_t word = strlen(s->facts.word);
	bool sent = what & EV_WRITE && !error &&
		    send(fd, s->facts.word, word, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)word;
	close(s->fd);
	s->fd = -1;
	if (!sent) {
		not_asked(s, error ? strerror(error) : "it does not answer");
		return;
	}
	snprintf(line, sizeof line, "asked at its shutdown port %d, waiting up to %lld.%lld s",
		s->facts.port, (long long)(wait / 1000), (long long)(wait % 1000 / 100));
	say(s, line);
	wait_then(s, wait, ask_catalina);
}

static void ask_port(struct asking *s)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)s->facts.port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0 ||
		(connect(s->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
		not_asked(s, strerror(errno));
		return;
	}
	s->connected = event_new(s->env->base, s->fd, EV_WRITE, on_connected, s);
	event_add(s->connected, &(struct timeval){CONNECT_MS / 1000, 0});
}

static void begin(struct asking *s)
{
	if (s->begun)
		return;
	s->begun = true;
	if (s->facts.port > 0 && s->facts.word && s->service.tomcat.shutdown_wait_ms > 0)
		ask_port(s);
	else if (s->facts.port >= 0 && !s->goes_on)
		ask_catalina(s);
}

/* The first word is that the stop has begun: from here on Tomcat may end. */
static void on_progress(void *arg, const char *line)
{
	struct asking *s = arg;
	say(s, line);
	begin(s);
}

/* ---- beginning
 * ----------------------------------------------------------------------------------- */

static void add_step(struct asking *s, int64_t wait_ms)
{
	struct bt_run *run = &s->service.run;
	if (wait_ms <= 0)
		return;
	struct bt_stop_step *steps = BT_ARENA_ARRAY(s->arena, struct bt_stop_step, run->n_stop + 1);
	steps[0] = (struct bt_stop_step){0, wait_ms};
	for (size_t i = 0; i < run->n_stop; i++)
		steps[i + 1] = run->stop[i];
	run->stop = steps;
	run->n_stop++;
}

static void job_done(void *arg)
{
	struct job *j = arg;
	struct asking *s = j->asking;
	if (!s) {
		bt_arena_free(j->arena);
		free(j);
		return;
	}
	const struct bt_tomcat *t = &s->service.tomcat;
	s->facts = *j;
	s->job = NULL;
	free(j);
	if (s->facts.port >= 0)
		add_step(s, (s->facts.port ? t->shutdown_wait_ms : 0) +
				    (s->facts.home ? t->stop_wait_ms : 0));
	s->inner = bt_runtime_process.stop(&s->ref, &s->service, on_progress, on_stopped, s);
	if (s->goes_on)
		begin(s);
}

struct bt_op *bt_tomcat_stop(const struct bt_driver_env *env, const struct bt_instance_ref *ref,
	const struct bt_service *service, bt_progress_fn progress, bt_done_fn done, void *arg)
{
	const struct bt_instance *i = bt_instance_find(ref->service, ref->slot);
	const struct bt_adopted *adopted = i ? NULL : bt_adopted_find(ref->service, ref->slot);
	if (!service || (!i && !adopted))
		return bt_runtime_process.stop(ref, service, progress, done, arg);
	struct asking *s = bt_calloc(1, sizeof *s);
	BT_FREE char *dir = bt_process_dir(ref->service, ref->slot);
	*s = (struct asking){.op = {asking_cancel},
		.env = env,
		.arena = bt_arena_new(),
		.ref = *ref,
		.service = *service,
		.goes_on = i && i->seen && i->status.state == BT_SHIM_STOPPING,
		.fd = -1,
		.progress = progress,
		.done = done,
		.arg = arg};
	s->ref.service = bt_arena_strdup(s->arena, ref->service);
	s->ref.slot = bt_arena_strdup(s->arena, ref->slot);
	bt_tomcat_ports(service, s->arena, &s->ref);
	s->timer = evtimer_new(env->base, on_timer, s);
	struct job *j = s->job = bt_calloc(1, sizeof *j);
	*j = (struct job){.arena = s->arena,
		.asking = s,
		.dir = i ? bt_arena_strdup(s->arena, dir) : NULL,
		.uid = -1,
		.gid = -1,
		.port = -1};
	if (adopted)
		bt_tomcat_base_path(env, service, ref, s->arena, &j->base, NULL);
	bt_work_submit(env->work, job_run, job_done, j);
	return &s->op;
}
