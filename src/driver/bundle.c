/* The runtime `bundle`: an app that a CodeDeploy bundle's own scripts start and stop. Nothing here
 * starts anything; whether it runs is told by whether its port is listened on, and which release it
 * is by what was installed last. */
#include "driver/bundle_state.h"
#include "driver/process.h"
#include "driver/runtime.h"

#include "base/fs.h"
#include "base/str.h"
#include "driver/ports.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct bt_driver_env bundle_env;
static pid_t listeners[64]; /* by port: who was found last, so that nobody else is looked at */

/* ---- the unpacked revision --------------------------------------------------------------- */

int bt_bundle_appspec(const char *revision, const char *asked, struct bt_appspec **ret,
	struct bt_config_problems *problems, struct bt_err *err)
{
	const char *names[3];
	size_t n_names = bt_appspec_names(asked, names);
	BT_STR struct bt_str list = {0};
	for (size_t i = 0; i < n_names; i++) {
		BT_FREE char *path = bt_asprintf("%s/%s", revision, names[i]);
		BT_FREE char *text = NULL;
		size_t n;
		bt_str_addf(&list, "%s%s", i ? ", " : "", names[i]);
		if (!bt_fs_exists(path))
			continue;
		int r = bt_fs_read(path, BT_APPSPEC_MAX_BYTES, &text, &n, err);
		return r < 0 ? r : bt_appspec_parse(text, n, names[i], ret, problems, err);
	}
	return bt_err_set(err, BT_E_NOTFOUND,
		"the bundle has no appspec: expected one of %s at its root", bt_str_get(&list));
}

static int missing(const struct bt_appspec *a, int line, int column, const char *what,
	const char *path, struct bt_err *err)
{
	return bt_err_set(err, BT_E_CONFIG, "%s:%d:%d: %s %s is not in the bundle", a->name, line,
		column, what, path[0] ? path : "/");
}

int bt_bundle_check(const char *revision, const struct bt_appspec *a, struct bt_err *err)
{
	struct stat st;
	for (size_t i = 0; i < a->n_files; i++) {
		BT_FREE char *path = bt_asprintf("%s/%s", revision, a->files[i].source);
		if (lstat(path, &st) < 0)
			return missing(a, a->files[i].line, a->files[i].column, "files: source",
				a->files[i].source, err);
	}
	for (int e = 0; e < BT_LIFECYCLES; e++)
		for (size_t i = 0; i < a->events[e].n; i++) {
			const struct bt_appspec_script *s = &a->events[e].scripts[i];
			BT_FREE char *path = bt_asprintf("%s/%s", revision, s->location);
			BT_FREE char *what = bt_asprintf("hooks: %s:", bt_lifecycles[e].name);
			if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
				return missing(a, s->line, s->column, what, s->location, err);
		}
	return 0;
}

/* ---- the runtime ------------------------------------------------------------------------- */

static int bundle_init(const struct bt_driver_env *env, struct bt_err *err)
{
	(void)err;
	bundle_env = *env;
	return 0;
}

static struct bt_op *not_ours(const char *what, bt_done_fn done, void *arg)
{
	struct bt_process_op *op = bt_process_op_new(NULL, done, arg);
	struct bt_err err = {0};
	int r = bt_err_set(&err, BT_E_REFUSED,
		"a CodeDeploy bundle is %s by its own scripts: deploy it, or run its lifecycle",
		what);
	bt_process_op_later(op, r, &err);
	return &op->op;
}

static struct bt_op *bundle_start(const struct bt_start_request *rq, bt_done_fn done, void *arg)
{
	(void)rq;
	return not_ours("started", done, arg);
}

static struct bt_op *bundle_stop(const struct bt_instance_ref *ref,
	const struct bt_service *service, bt_progress_fn progress, bt_done_fn done, void *arg)
{
	(void)ref, (void)service, (void)progress;
	return not_ours("stopped", done, arg);
}

static int bundle_observe(const struct bt_instance_ref *ref, struct bt_arena *a,
	struct bt_seen_instance *ret, struct bt_err *err)
{
	struct bt_bundle_state state;
	struct bt_listener l;
	struct bt_seen_instance s = {.slot = bt_arena_strdup(a, ref->slot), .port = ref->port};
	int r = bt_bundle_state_read(bundle_env.state_dir, ref->service, a, &state, err);
	if (r < 0)
		return r;
	const struct bt_bundle_last *last = bt_bundle_last(&state, ref->slot);
	pid_t *hint = &listeners[ref->port % BT_ARRAY_LEN(listeners)];
	if (bt_port_listeners(ref->port, *hint, &l, 1)) {
		s.state = BT_RUN_RUNNING;
		s.pid = (int)l.pid;
		*hint = l.pid;
	}
	/* Of an install that was cut short nobody can say which release it is; and what was not
	 * started since may be what ran before. */
	s.installed = last ? last->release : 0;
	if (last && last->started && !last->cut_short) {
		s.release = last->release;
		s.version = last->version;
		s.since_wall_ms = last->at_wall_ms;
	}
	*ret = s;
	return 0;
}

static void bundle_log_path(const struct bt_instance_ref *ref, char *buf, size_t n)
{
	snprintf(buf, n, "%s/logs/%s/%s.log", bundle_env.state_dir, ref->service, ref->slot);
}

const struct bt_runtime_ops bt_runtime_bundle = {
	.name = "bundle",
	.kind = BT_RUNTIME_BUNDLE,
	.init = bundle_init,
	.start = bundle_start,
	.stop = bundle_stop,
	.observe = bundle_observe,
	.log_path = bundle_log_path,
};
