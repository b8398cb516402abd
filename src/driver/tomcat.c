/* The runtime `tomcat`: `catalina.sh run` as a process, its shim and its log those of the runtime
 * `process`. What is Tomcat's own comes before and after: a start first makes the base and places
 * the release in it, on a thread; a stop first asks in Tomcat's way (tomcat_stop.c).
 *
 * catalina.sh and not java itself, since it knows what a Tomcat of that version is started with,
 * and reads a base's setenv.sh, as people expect. It becomes java by exec. */
#include "driver/process_adopted.h"
#include "driver/runtime.h"
#include "driver/tomcat.h"

#include "base/fs.h"
#include "base/str.h"
#include "config/config.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define WORD "SHUTDOWN" /* of a base that baton makes; the port is for this host only */

struct start;
struct job { /* on a thread; all of the plan is in its arena */
	struct bt_arena *arena;
	struct bt_tomcat_plan plan;
	struct start *start; /* NULL: given up */
	int result;
	struct bt_err err;
};
struct start {
	struct bt_op op; /* first */
	struct start *next;
	struct bt_start_request rq; /* strings borrowed from who asked, and from the arena */
	struct bt_arena *arena;
	struct bt_tomcat_plan plan;
	struct job *job;
	struct bt_op *inner;
	struct event *later;
	struct bt_err err;
	bt_done_fn done;
	void *arg;
};

static struct bt_driver_env env;
static struct start *starts;

static int tomcat_init(const struct bt_driver_env *e, struct bt_err *err)
{
	(void)err;
	env = *e; /* what runs is taken up by the runtime `process` */
	return 0;
}

/* ---- what both need
 * ------------------------------------------------------------------------------ */

int bt_tomcat_base_path(const struct bt_driver_env *e, const struct bt_service *service,
	const struct bt_instance_ref *ref, struct bt_arena *a, const char **ret, struct bt_err *err)
{
	BT_STR struct bt_str path = {0};
	int r = bt_config_tomcat_base(service, ref->slot, ref->port, &path, err);
	if (r < 0)
		return r;
	*ret = path.len ? bt_arena_strdup(a, bt_str_get(&path))
			: bt_arena_printf(
				  a, "%s/tomcat/%s/%s", e->state_dir, ref->service, ref->slot);
	return 0;
}

void bt_tomcat_ports(
	const struct bt_service *service, struct bt_arena *a, struct bt_instance_ref *ref)
{
	if (!service || !service->tomcat.shutdown_port || ref->n_more == BT_SLOT_PORTS)
		return;
	struct bt_port *all = BT_ARENA_ARRAY(a, struct bt_port, ref->n_more + 1);
	for (size_t i = 0; i < ref->n_more; i++)
		all[i] = ref->more[i];
	all[ref->n_more++] =
		(struct bt_port){BT_TOMCAT_SHUTDOWN, (uint16_t)service->tomcat.shutdown_port};
	ref->more = all;
}

static struct start *start_of(const char *service, const char *slot)
{
	struct start *s = starts;
	while (s && (strcmp(s->rq.ref.service, service) != 0 || strcmp(s->rq.ref.slot, slot) != 0))
		s = s->next;
	return s;
}

/* ---- the plan
 * ------------------------------------------------------------------------------------ */

/* What a server.xml may name as ${baton.port}, and every application can ask for. */
static void plan_properties(struct start *s)
{
	const struct bt_instance_ref *ref = &s->rq.ref;
	struct bt_kv *list = BT_ARENA_ARRAY(s->arena, struct bt_kv, ref->n_more + 2);
	size_t n = 0;
	list[n++] = (struct bt_kv){"baton.port", bt_arena_printf(s->arena, "%u", ref->port)};
	list[n++] = (struct bt_kv){"baton.slot", bt_arena_strdup(s->arena, ref->slot)};
	for (size_t i = 0; i < ref->n_more; i++)
		list[n++] = (struct bt_kv){
			bt_arena_printf(s->arena, "baton.port.%s", ref->more[i].name),
			bt_arena_printf(s->arena, "%u", ref->more[i].number)};
	s->plan.properties = list;
	s->plan.n_properties = n;
}

static int plan_owner(struct start *s, struct bt_err *err)
{
	const char *user = s->rq.service->run.user;
	const struct passwd *pw = user ? getpwnam(user) : NULL;
	s->plan.owner = (struct bt_tomcat_owner){-1, -1};
	if (user && !pw)
		return bt_err_set(
			err, BT_E_CONFIG, "run.user: there is no user '%s' on this host", user);
	if (pw && pw->pw_uid != geteuid())
		s->plan.owner = (struct bt_tomcat_owner){pw->pw_uid, pw->pw_gid};
	return 0;
}

/* A thread may outlive who asked: nothing of it is borrowed. */
static int make_plan(struct start *s, struct bt_err *err)
{
	const struct bt_start_request *rq = &s->rq;
	const struct bt_tomcat *t = &rq->service->tomcat;
	struct bt_arena *a = s->arena;
	struct bt_kv *connector = BT_ARENA_ARRAY(a, struct bt_kv, t->n_connector + 1);
	for (size_t i = 0; i < t->n_connector; i++)
		connector[i] = (struct bt_kv){bt_arena_strdup(a, t->connector[i].key),
			bt_arena_strdup(a, t->connector[i].value)};
	BT_FREE char *name = bt_tomcat_name(t->context ? t->context : "/");
	s->plan = (struct bt_tomcat_plan){
		.service = bt_arena_strdup(a, rq->ref.service),
		.slot = bt_arena_strdup(a, rq->ref.slot),
		.port = rq->ref.port,
		.artifact = bt_arena_strdup(a, rq->artifact),
		.home = bt_arena_strdup(a, t->home),
		.name = bt_arena_strdup(a, name),
		.take_over = t->take_over,
		.jars_to_skip = bt_arena_strdup(a, t->jars_to_skip),
		.server = {.port = rq->ref.port,
			.shutdown_port = bt_tomcat_shutdown_port(t, rq->ref.more, rq->ref.n_more),
			.shutdown = WORD,
			.connector = connector,
			.n_connector = t->n_connector,
			.access_log = t->access_log},
	};
	plan_properties(s);
	int r = bt_tomcat_base_path(&env, rq->service, &rq->ref, a, &s->plan.base, err);
	return r < 0 ? r : plan_owner(s, err);
}

/* ---- the process
 * --------------------------------------------------------------------------------- */

static const char *java_options(const struct start *s)
{
	const struct bt_tomcat *t = &s->rq.service->tomcat;
	BT_STR struct bt_str out = {0};
	/* A Tomcat that could not listen would go on without. */
	bt_str_add(&out, "-Dorg.apache.catalina.startup.EXIT_ON_INIT_FAILURE=true");
	for (size_t i = 0; i < s->plan.n_properties; i++)
		bt_str_addf(
			&out, " -D%s=%s", s->plan.properties[i].key, s->plan.properties[i].value);
	if (t->xmx)
		bt_str_addf(&out, " -Xmx%s", t->xmx);
	if (t->java_opts)
		bt_str_addf(&out, " %s", t->java_opts);
	return bt_arena_strdup(s->arena, bt_str_get(&out));
}

static const struct bt_service *as_process(const struct start *s)
{
	struct bt_arena *a = s->arena;
	struct bt_service *as = BT_ARENA_NEW(a, struct bt_service);
	*as = *s->rq.service;
	const char **argv = BT_ARENA_ARRAY(a, const char *, 2);
	argv[0] = bt_arena_printf(a, "%s/bin/catalina.sh", s->plan.home);
	argv[1] = "run";
	as->run.command = argv;
	as->run.n_command = 2;
	if (!as->run.dir)
		as->run.dir = s->plan.base;
	BT_FREE char *temp = bt_asprintf("%s/temp", s->plan.base);
	const struct bt_kv own[] = {
		/* Debian's base has none, and its unit says /tmp, too. */
		{"CATALINA_TMPDIR", bt_fs_exists(temp) ? bt_arena_strdup(a, temp) : "/tmp"},
		{"CATALINA_HOME", s->plan.home},
		{"CATALINA_BASE", s->plan.base},
		{"CATALINA_OPTS", java_options(s)},
	};
	struct bt_kv *list = BT_ARENA_ARRAY(a, struct bt_kv, as->run.n_env + BT_ARRAY_LEN(own));
	size_t n = 0;
	list[n++] = own[0]; /* which run.env may replace */
	for (size_t i = 0; i < as->run.n_env; i++)
		list[n++] = as->run.env[i];
	for (size_t i = 1; i < BT_ARRAY_LEN(own); i++)
		list[n++] = own[i];
	as->run.env = list;
	as->run.n_env = n;
	return as;
}

/* ---- start
 * --------------------------------------------------------------------------------------- */

static void start_free(struct start *s)
{
	struct start **at = &starts;
	while (*at && *at != s)
		at = &(*at)->next;
	if (*at)
		*at = s->next;
	if (s->later)
		event_free(s->later);
	if (s->job)
		s->job->start = NULL;
	else
		bt_arena_free(s->arena);
	free(s);
}

/* What is being placed is placed to its end; nothing is started of it. */
static void start_cancel(struct bt_op *op)
{
	struct start *s = (struct start *)op;
	bt_op_cancel(s->inner);
	start_free(s);
}

static void start_end(struct start *s, int result, const struct bt_err *err)
{
	bt_done_fn done = s->done;
	void *arg = s->arg;
	struct bt_err copy = err ? *err : (struct bt_err){0};
	start_free(s);
	done(arg, result, result < 0 ? &copy : NULL);
}

static void on_started(void *arg, int result, const struct bt_err *err)
{
	struct start *s = arg;
	s->inner = NULL;
	start_end(s, result, err);
}

static void job_run(void *arg)
{
	struct job *j = arg;
	j->result = bt_tomcat_prepare(&j->plan, &j->err);
}

static void job_done(void *arg)
{
	struct job *j = arg;
	struct start *s = j->start;
	int result = j->result;
	struct bt_err err = j->err;
	if (!s)
		bt_arena_free(j->arena);
	free(j);
	if (!s)
		return;
	s->job = NULL;
	if (result < 0) {
		bt_err_wrap(&err, "start %s/%s", s->rq.ref.service, s->rq.ref.slot);
		start_end(s, result, &err);
		return;
	}
	s->rq.service = as_process(s);
	s->inner = bt_runtime_process.start(&s->rq, on_started, s);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct start *s = arg;
	(void)fd;
	(void)what;
	start_end(s, s->err.code, &s->err);
}

/* Nothing of the base is touched before it is known that the slot is free. */
static int check(struct start *s, struct bt_err *err)
{
	const struct bt_instance_ref *ref = &s->rq.ref;
	int r = start_of(ref->service, ref->slot)
			? bt_err_set(err, BT_E_REFUSED, "it is being started")
			: bt_process_ports_free(ref, err);
	if (r == 0)
		r = make_plan(s, err);
	return r < 0 ? bt_err_wrap(err, "start %s/%s", ref->service, ref->slot) : 0;
}

static struct bt_op *tomcat_start(const struct bt_start_request *rq, bt_done_fn done, void *arg)
{
	/* A slot in use: the same release, or an answer that says what is in the way. */
	if (bt_instance_find(rq->ref.service, rq->ref.slot) ||
		bt_adopted_find(rq->ref.service, rq->ref.slot))
		return bt_runtime_process.start(rq, done, arg);
	struct start *s = bt_calloc(1, sizeof *s);
	s->op.cancel = start_cancel;
	s->arena = bt_arena_new();
	s->rq = *rq;
	s->done = done;
	s->arg = arg;
	bt_tomcat_ports(rq->service, s->arena, &s->rq.ref);
	if (check(s, &s->err) < 0) {
		s->later = event_new(env.base, -1, 0, on_later, s);
		bt_timer_in(s->later, 0);
		return &s->op;
	}
	struct job *j = s->job = bt_calloc(1, sizeof *j);
	*j = (struct job){.arena = s->arena, .plan = s->plan, .start = s};
	s->next = starts;
	starts = s;
	bt_work_submit(env.work, job_run, job_done, j);
	return &s->op;
}

/* ---- the rest
 * ------------------------------------------------------------------------------------ */

static struct bt_op *tomcat_stop(const struct bt_instance_ref *ref,
	const struct bt_service *service, bt_progress_fn progress, bt_done_fn done, void *arg)
{
	return bt_tomcat_stop(&env, ref, service, progress, done, arg);
}

static int tomcat_observe(const struct bt_instance_ref *ref, struct bt_arena *a,
	struct bt_seen_instance *ret, struct bt_err *err)
{
	const struct start *s = start_of(ref->service, ref->slot);
	int r = bt_runtime_process.observe(ref, a, ret, err);
	if (r == 0 && s && ret->state == BT_RUN_ABSENT) {
		ret->state = BT_RUN_STARTING;
		ret->release = s->rq.release;
		ret->version = bt_arena_strdup(a, s->rq.version);
	}
	return r;
}

static void tomcat_log_path(const struct bt_instance_ref *ref, char *buf, size_t n)
{
	bt_runtime_process.log_path(ref, buf, n);
}

const struct bt_runtime_ops bt_runtime_tomcat = {
	.name = "tomcat",
	.kind = BT_RUNTIME_TOMCAT,
	.init = tomcat_init,
	.start = tomcat_start,
	.stop = tomcat_stop,
	.adopt = bt_adopted_take,
	.disown = bt_adopted_disown,
	.observe = tomcat_observe,
	.log_path = tomcat_log_path,
};
