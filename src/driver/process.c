/* The runtime `process`: one shim per instance, spoken to by its socket, adopted after a restart.
 * What is on disk (instances/<service>/<slot>/spec) says what shall run. */
#include "driver/process_adopted.h"
#include "driver/runtime.h"

#include "base/fs.h"
#include "driver/ports.h"
#include "shim/proc.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

char *bt_process_dir(const char *service, const char *slot)
{
	return bt_asprintf("%s/instances/%s/%s", bt_process.env.state_dir, service, slot);
}

static void process_log_path(const struct bt_instance_ref *ref, char *buf, size_t n)
{
	snprintf(buf, n, "%s/logs/%s/%s.log", bt_process.env.state_dir, ref->service, ref->slot);
}

/* ---- init: what runs is taken up ------------------------------------------------------------- */

/* false: there is nothing that could be adopted, and the directory is left from a crash. */
static bool take_up(const char *service, const char *slot)
{
	BT_FREE char *dir = bt_process_dir(service, slot);
	BT_FREE char *text = NULL;
	if (bt_adopted_load(dir, service, slot))
		return true;
	struct bt_shim_spec *spec = bt_malloc(sizeof *spec);
	BT_FREE void *hold = spec;
	int r = bt_process_spec_read(dir, &text, spec, NULL);
	if (r < 0) { /* one that cannot be read now may still be an app's that runs */
		BT_FREE char *path = bt_asprintf("%s/spec", dir);
		return bt_fs_exists(path);
	}
	/* The directory's name is what the server knows it by. */
	spec->service = service;
	spec->slot = slot;
	struct bt_instance *i = bt_instance_add(spec, dir);
	/* Until the shim speaks, its last written word is what observe tells; but for one of an
	 * earlier boot, which is no more. */
	i->ran = bt_process_status_read(dir, &i->status, NULL) == 0;
	i->seen = i->ran && !bt_process.env.hold;
	i->phase = BT_PROCESS_LOST;
	bt_instance_resume(i);
	return true;
}

static bool is_dir_entry(const struct dirent *e)
{
	return e->d_name[0] != '.' && (e->d_type == DT_DIR || e->d_type == DT_UNKNOWN);
}

static void take_up_service(const char *root, const char *service)
{
	BT_FREE char *path = bt_asprintf("%s/%s", root, service);
	DIR *d = opendir(path);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));)
		if (is_dir_entry(e) && !bt_instance_find(service, e->d_name) &&
			!bt_adopted_find(service, e->d_name) && !take_up(service, e->d_name)) {
			BT_FREE char *left = bt_process_dir(service, e->d_name);
			bt_fs_remove_tree(left, NULL);
		}
	closedir(d);
}

static int process_init(const struct bt_driver_env *env, struct bt_err *err)
{
	bt_process.env = *env;
	BT_FREE char *root = bt_asprintf("%s/instances", env->state_dir);
	int r = bt_fs_mkdirs(root, 0700, err);
	if (r < 0)
		return r;
	DIR *d = opendir(root);
	if (!d)
		return bt_err_errno(err, errno, "read %s", root);
	for (struct dirent *e; (e = readdir(d));)
		if (is_dir_entry(e))
			take_up_service(root, e->d_name);
	closedir(d);
	return 0;
}

static void process_wake(void)
{
	bt_process.env.hold = false;
	for (struct bt_instance *i = bt_process.instances, *next; i; i = next) {
		next = i->next;
		if (i->phase == BT_PROCESS_LOST && !event_pending(i->timer, EV_TIMEOUT, NULL))
			bt_instance_resume(i);
	}
}

/* ---- start ---------------------------------------------------------------------------------- */

static bool is_ours(const struct bt_instance *i, pid_t pid)
{
	char marker[256];
	if (!i || pid <= 0)
		return false;
	snprintf(marker, sizeof marker, BT_SHIM_MARKER_ENV "=%s", i->marker);
	return pid == i->status.pid || bt_proc_has_env(pid, marker);
}

/* Who listens on the port and is not of the instance; false: nobody. */
static bool find_stranger(const struct bt_instance *i, const struct bt_adopted *adopted,
	uint16_t port, char *buf, size_t n)
{
	struct bt_listener all[16];
	size_t k = bt_port_listeners(port, i ? (pid_t)i->status.pid : 0, all, BT_ARRAY_LEN(all));
	for (size_t j = 0; j < k; j++)
		if (!is_ours(i, all[j].pid) &&
			!(adopted && bt_adopted_holds(adopted, all[j].pid))) {
			bt_listener_describe(&all[j], buf, n);
			return true;
		}
	return false;
}

/* The same of every port of the slot; *ret_port says which. */
static bool find_stranger_anywhere(const struct bt_instance *i, const struct bt_adopted *adopted,
	const struct bt_instance_ref *ref, uint16_t *ret_port, char *buf, size_t n)
{
	for (size_t k = 0; k <= ref->n_more; k++) {
		*ret_port = k ? ref->more[k - 1].number : ref->port;
		if (find_stranger(i, adopted, *ret_port, buf, n))
			return true;
	}
	return false;
}

static void learn_ports(struct bt_instance *i, const struct bt_instance_ref *ref)
{
	for (i->n_more = 0; i->n_more < ref->n_more && i->n_more < BT_SLOT_PORTS; i->n_more++)
		i->more[i->n_more] = ref->more[i->n_more].number;
}

/* A slot that is in use: by the same release, or not to be started now. */
static void start_again(
	struct bt_instance *i, const struct bt_start_request *rq, struct bt_process_op *op)
{
	struct bt_err err = {0};
	const char *slot = rq->ref.slot, *service = rq->ref.service;
	if (i->stop_wanted || i->phase == BT_PROCESS_REMOVING)
		bt_err_set(&err, BT_E_REFUSED, "start %s/%s: it is being stopped", service, slot);
	else if (i->starting)
		bt_err_set(&err, BT_E_REFUSED, "start %s/%s: it is being started", service, slot);
	else if (i->release != rq->release)
		bt_err_set(&err, BT_E_EXISTS,
			"start %s/%s: release %u (%s) runs there; stop it first", service, slot,
			i->release, i->version);
	if (err.code) {
		bt_process_op_later(op, err.code, &err);
	} else if (i->phase == BT_PROCESS_LINKED && i->status.state == BT_SHIM_RUNNING) {
		bt_process_op_later(op, 0, NULL);
	} else {
		op->instance = i;
		i->starting = op;
		bt_instance_confirm(i);
	}
}

int bt_process_ports_free(const struct bt_instance_ref *ref, struct bt_err *err)
{
	char who[96];
	uint16_t port;
	if (!find_stranger_anywhere(NULL, NULL, ref, &port, who, sizeof who))
		return 0;
	return bt_err_set(err, BT_E_FAILED,
		"port %u is held by %s; stop it, or choose "
		"another port for slot %s",
		port, who, ref->slot);
}

static int start_new(
	const struct bt_start_request *rq, struct bt_process_op *op, struct bt_err *err)
{
	char log[4096];
	struct bt_shim_spec *spec;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	int r = bt_process_ports_free(&rq->ref, err);
	if (r < 0)
		return r;
	process_log_path(&rq->ref, log, sizeof log);
	r = bt_process_spec_make(&bt_process.env, rq, log, a, &spec, err);
	if (r < 0)
		return r;
	BT_FREE char *dir = bt_process_dir(rq->ref.service, rq->ref.slot);
	struct bt_instance *i = bt_instance_add(spec, dir);
	learn_ports(i, &rq->ref);
	op->instance = i;
	i->starting = op;
	bt_instance_prepare(i, BT_STEAL(a), spec);
	return 0;
}

static struct bt_op *process_start(const struct bt_start_request *rq, bt_done_fn done, void *arg)
{
	struct bt_process_op *op = bt_process_op_new(NULL, done, arg);
	struct bt_instance *i = bt_instance_find(rq->ref.service, rq->ref.slot);
	struct bt_err err = {0};
	if (i) {
		start_again(i, rq, op);
	} else if (bt_adopted_find(rq->ref.service, rq->ref.slot)) {
		bt_err_set(&err, BT_E_EXISTS,
			"start %s/%s: what was adopted runs there; stop it first", rq->ref.service,
			rq->ref.slot);
		bt_process_op_later(op, err.code, &err);
	} else if (start_new(rq, op, &err) < 0) {
		bt_err_wrap(&err, "start %s/%s", rq->ref.service, rq->ref.slot);
		bt_process_op_later(op, err.code, &err);
	}
	return &op->op;
}

/* ---- stop ----------------------------------------------------------------------------------- */

static struct bt_op *process_stop(const struct bt_instance_ref *ref,
	const struct bt_service *service, bt_progress_fn progress, bt_done_fn done, void *arg)
{
	struct bt_instance *i = bt_instance_find(ref->service, ref->slot);
	struct bt_adopted *adopted = i ? NULL : bt_adopted_find(ref->service, ref->slot);
	if (adopted)
		return bt_adopted_stop(adopted, service, progress, done, arg);
	struct bt_process_op *op = bt_process_op_new(progress, done, arg);
	struct bt_err err = {0};
	if (!i) {
		bt_process_op_later(op, 0, NULL);
		return &op->op;
	}
	if (i->stopping) {
		bt_err_set(&err, BT_E_REFUSED, "stop %s/%s: it is being stopped", ref->service,
			ref->slot);
		bt_process_op_later(op, err.code, &err);
		return &op->op;
	}
	if (service && service->run.n_stop > 0 && !i->stop_wanted) {
		i->steps.n = 0;
		for (size_t k = 0; k < service->run.n_stop && k < BT_SHIM_STEPS_MAX; k++)
			i->steps.items[i->steps.n++] = (struct bt_shim_step){
				service->run.stop[k].signal, service->run.stop[k].wait_ms};
	}
	if (ref->n_more)
		learn_ports(i, ref);
	op->instance = i;
	i->stopping = op;
	if (!i->stop_wanted)
		bt_instance_stop(i);
	return &op->op;
}

void bt_process_next(const char *service, const char *slot)
{
	const struct bt_shim_request rq = {.op = BT_SHIM_OP_NEXT};
	struct bt_instance *i = bt_instance_find(service, slot);
	struct bt_adopted *adopted = i ? NULL : bt_adopted_find(service, slot);
	/* A shim that cannot be told comes to its next step by itself. */
	if (i && i->phase == BT_PROCESS_LINKED)
		bt_process_send(i->fd, &rq);
	else if (adopted)
		bt_adopted_next(adopted);
}

/* ---- observe -------------------------------------------------------------------------------- */

static enum bt_run_state state_of(const struct bt_instance *i)
{
	if (i->stop_wanted || i->phase == BT_PROCESS_REMOVING)
		return BT_RUN_STOPPING;
	if (i->phase == BT_PROCESS_PREPARING || !i->seen)
		return BT_RUN_STARTING;
	switch ((enum bt_shim_state)i->status.state) {
	case BT_SHIM_RUNNING:
		return i->starting ? BT_RUN_STARTING : BT_RUN_RUNNING;
	case BT_SHIM_WAITING:
	case BT_SHIM_FAILED:
		return BT_RUN_CRASHING;
	case BT_SHIM_STOPPING:
	case BT_SHIM_STOPPED:
		return BT_RUN_STOPPING;
	default:
		return BT_RUN_STARTING;
	}
}

static int process_observe(const struct bt_instance_ref *ref, struct bt_arena *a,
	struct bt_seen_instance *ret, struct bt_err *err)
{
	const struct bt_instance *i = bt_instance_find(ref->service, ref->slot);
	char who[96];
	(void)err;
	struct bt_seen_instance s = {.slot = bt_arena_strdup(a, ref->slot), .port = ref->port};
	uint16_t port;
	const struct bt_adopted *adopted = i ? NULL : bt_adopted_find(ref->service, ref->slot);
	if (find_stranger_anywhere(i, adopted, ref, &port, who, sizeof who))
		s.holder = port == ref->port ? bt_arena_strdup(a, who)
					     : bt_arena_printf(a, "%s on its port %u", who, port);
	if (adopted)
		bt_adopted_observe(adopted, a, &s);
	if (i) {
		s.state = state_of(i);
		s.release = i->release;
		s.version = bt_arena_strdup(a, i->version);
		s.pid = (int)i->status.pid;
		s.since_wall_ms = i->status.since_wall_ms;
		s.restarts = (int)i->status.restarts;
	}
	*ret = s;
	return 0;
}

const struct bt_runtime_ops bt_runtime_process = {
	.name = "process",
	.kind = BT_RUNTIME_PROCESS,
	.init = process_init,
	.start = process_start,
	.stop = process_stop,
	.adopt = bt_adopted_take,
	.disown = bt_adopted_disown,
	.observe = process_observe,
	.log_path = process_log_path,
	.wake = process_wake,
};
