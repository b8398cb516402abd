/* From what a person wrote to what a shim is told. */
#include "driver/process.h"

#include "base/fs.h"
#include "base/str.h"
#include "config/config.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

struct maker {
	const struct bt_driver_env *env;
	const struct bt_start_request *rq;
	struct bt_placeholders p;
	struct bt_arena *a;
	struct bt_shim_spec *spec;
};

static int expand(struct maker *m, const char *text, const char **ret, struct bt_err *err)
{
	BT_STR struct bt_str out = {0};
	int r = bt_config_expand(text, &m->p, &out, err);
	if (r == 0)
		*ret = bt_arena_strdup(m->a, bt_str_get(&out));
	return r;
}

/* A later value of the same name replaces the earlier one. */
static int set_env(struct maker *m, const char *name, const char *value, struct bt_err *err)
{
	struct bt_shim_spec *s = m->spec;
	size_t n = strlen(name), i = 0;
	while (i < s->n_env && (strncmp(s->env[i], name, n) != 0 || s->env[i][n] != '='))
		i++;
	if (i == BT_SHIM_LIST_MAX)
		return bt_err_set(
			err, BT_E_CONFIG, "run.env: more than %d variables", BT_SHIM_LIST_MAX);
	s->env[i] = bt_arena_printf(m->a, "%s=%s", name, value);
	if (i == s->n_env)
		s->n_env++;
	return 0;
}

/* The app's environment starts from little: what an agent has in its own (its secrets, too) is
 * nobody else's. */
static int base_env(struct maker *m, const struct passwd *pw, struct bt_err *err)
{
	static const char *const handed_on[] = {
		"PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "JAVA_HOME"};
	const struct bt_start_request *rq = m->rq;
	char number[16];
	int r = set_env(
		m, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", err);
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(handed_on); i++)
		if (getenv(handed_on[i]))
			r = set_env(m, handed_on[i], getenv(handed_on[i]), err);
	snprintf(number, sizeof number, "%u", rq->ref.port);
	const struct bt_kv own[] = {{"HOME", pw ? pw->pw_dir : "/"},
		{"USER", pw ? pw->pw_name : "unknown"}, {"LOGNAME", pw ? pw->pw_name : "unknown"},
		{"BATON_SERVICE", rq->ref.service}, {"BATON_SLOT", rq->ref.slot},
		{"BATON_PORT", number}, {"BATON_VERSION", rq->version ? rq->version : ""},
		{"BATON_HOST", m->env->host}};
	/* A program that is not about an instance has neither slot nor port. */
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(own); i++)
		if (own[i].value[0] && (rq->ref.port || own[i].value != number))
			r = set_env(m, own[i].key, own[i].value, err);
	return r;
}

static int make_env(struct maker *m, const struct passwd *pw, struct bt_err *err)
{
	const struct bt_run *run = &m->rq->service->run;
	int r = base_env(m, pw, err);
	for (size_t i = 0; r == 0 && i < run->n_env; i++) {
		const char *value = NULL;
		r = expand(m, run->env[i].value, &value, err);
		if (r < 0)
			return bt_err_wrap(err, "run.env.%s", run->env[i].key);
		r = set_env(m, run->env[i].key, value, err);
	}
	for (size_t i = 0; r == 0 && i < m->rq->n_secrets; i++)
		r = set_env(m, m->rq->secrets[i].key, m->rq->secrets[i].value, err);
	unsigned char nonce[16];
	char hex[33];
	if (r == 0 && getrandom(nonce, sizeof nonce, 0) != sizeof nonce)
		return bt_err_errno(err, errno, "make a random number");
	bt_hex(nonce, sizeof nonce, hex);
	m->spec->marker = bt_arena_strdup(m->a, hex);
	return r == 0 ? set_env(m, BT_SHIM_MARKER_ENV, hex, err) : r;
}

static int make_argv(struct maker *m, struct bt_err *err)
{
	const struct bt_run *run = &m->rq->service->run;
	if (run->n_command == 0 || run->n_command > BT_SHIM_LIST_MAX)
		return bt_err_set(
			err, BT_E_CONFIG, "run.command: expected 1 to %d words", BT_SHIM_LIST_MAX);
	for (size_t i = 0; i < run->n_command; i++) {
		int r = expand(m, run->command[i], &m->spec->argv[i], err);
		if (r < 0)
			return bt_err_wrap(err, "run.command");
	}
	m->spec->n_argv = run->n_command;
	return 0;
}

/* Numbers now: the shim knows no user database. */
static int make_user(struct maker *m, const struct passwd **ret, struct bt_err *err)
{
	const char *user = m->rq->service->run.user;
	struct passwd *pw = user ? getpwnam(user) : getpwuid(geteuid());
	*ret = pw;
	if (!user || (pw && pw->pw_uid == geteuid()))
		return 0;
	if (!pw)
		return bt_err_set(
			err, BT_E_CONFIG, "run.user: there is no user '%s' on this host", user);
	if (geteuid() != 0)
		return bt_err_set(err, BT_E_REFUSED,
			"run.user: the agent runs as uid %u and cannot become '%s'; run it as "
			"root, "
			"or leave run.user out",
			(unsigned)geteuid(), user);
	int n = BT_SHIM_GROUPS_MAX;
	if (getgrouplist(user, pw->pw_gid, m->spec->groups, &n) < 0)
		n = BT_SHIM_GROUPS_MAX;
	m->spec->n_groups = (size_t)n;
	m->spec->uid = pw->pw_uid;
	m->spec->gid = pw->pw_gid;
	return 0;
}

static void make_limits(struct maker *m)
{
	const struct bt_limits *l = &m->rq->service->run.limits;
	/* memory is what a process writes to (heap, stacks, private maps): a JVM reserves far more
	 * addresses than it ever uses, so limiting those would only break it. */
	const struct bt_shim_limit all[] = {{RLIMIT_NOFILE, l->nofile}, {RLIMIT_NPROC, l->nproc},
		{RLIMIT_CORE, l->core_bytes}, {RLIMIT_DATA, l->memory_bytes}};
	for (size_t i = 0; i < BT_ARRAY_LEN(all); i++)
		if (all[i].value >= 0)
			m->spec->limits[m->spec->n_limits++] = all[i];
}

static int make_dir(struct maker *m, struct bt_err *err)
{
	const char *dir = m->rq->service->run.dir;
	m->spec->dir = m->rq->release_dir;
	if (!dir)
		return 0;
	int r = expand(m, dir, &m->spec->dir, err);
	if (r < 0)
		return bt_err_wrap(err, "run.dir");
	if (m->spec->dir[0] != '/')
		m->spec->dir = bt_arena_printf(m->a, "%s/%s", m->rq->release_dir, m->spec->dir);
	return 0;
}

static bool may_enter(const struct bt_shim_spec *s, const struct stat *st)
{
	if (s->uid == 0 || (st->st_uid == (uid_t)s->uid && st->st_mode & S_IXUSR))
		return true;
	for (size_t i = 0; i < s->n_groups; i++)
		if (st->st_gid == s->groups[i] && st->st_mode & S_IXGRP)
			return true;
	return st->st_mode & S_IXOTH;
}

/* Another user must be able to come to the release. The state directory is opened for passing
 * through (what lies in it keeps its own modes); a closed one above it is its owner's business. */
static int make_reachable(struct maker *m, struct bt_err *err)
{
	struct stat st;
	if (m->spec->uid < 0)
		return 0;
	if (stat(m->env->state_dir, &st) == 0 && (st.st_mode & 0011) != 0011)
		chmod(m->env->state_dir, (st.st_mode & 07777) | 0011);
	BT_FREE char *path = bt_strdup(m->rq->release_dir);
	for (char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash)
			*slash = 0;
		if (stat(path, &st) == 0 && !may_enter(m->spec, &st))
			return bt_err_set(err, BT_E_REFUSED,
				"run.user: '%s' cannot enter %s (mode %04o); chmod o+x it",
				m->rq->service->run.user, path, st.st_mode & 07777);
		if (!slash)
			return 0;
		*slash = '/';
	}
}

static int make_stop(struct maker *m, struct bt_err *err)
{
	const struct bt_run *run = &m->rq->service->run;
	if (run->n_stop == 0 || run->n_stop > BT_SHIM_STEPS_MAX)
		return bt_err_set(
			err, BT_E_CONFIG, "run.stop: expected 1 to %d steps", BT_SHIM_STEPS_MAX);
	for (size_t i = 0; i < run->n_stop; i++)
		m->spec->stop.items[m->spec->stop.n++] =
			(struct bt_shim_step){run->stop[i].signal, run->stop[i].wait_ms};
	return 0;
}

int bt_process_spec_make(const struct bt_driver_env *env, const struct bt_start_request *rq,
	const char *log, struct bt_arena *a, struct bt_shim_spec **ret, struct bt_err *err)
{
	const struct bt_run *run = &rq->service->run;
	struct bt_shim_spec *s = BT_ARENA_NEW(a, struct bt_shim_spec);
	*s = (struct bt_shim_spec){
		.service = bt_arena_strdup(a, rq->ref.service),
		.slot = bt_arena_strdup(a, rq->ref.slot),
		.version = bt_arena_strdup(a, rq->version ? rq->version : ""),
		.release = rq->release,
		.port = rq->ref.port,
		.uid = -1,
		.gid = -1,
		.log = bt_arena_strdup(a, log),
		.log_max_bytes = run->log_max_bytes,
		.log_keep = run->log_keep,
		.backoff_ms = run->restart_backoff_ms > 0 ? run->restart_backoff_ms : 1000,
	};
	s->backoff_max_ms = run->restart_backoff_max_ms > s->backoff_ms
				    ? run->restart_backoff_max_ms
				    : s->backoff_ms;
	struct maker m = {env, rq,
		{rq->artifact, rq->version ? rq->version : "", rq->ref.slot, env->host,
			rq->ref.port, rq->ref.more, rq->ref.n_more},
		a, s};
	const struct passwd *pw = NULL;
	int r = make_argv(&m, err);
	if (r == 0)
		r = make_user(&m, &pw, err);
	if (r == 0)
		r = make_env(&m, pw, err);
	if (r == 0)
		r = make_reachable(&m, err);
	if (r == 0)
		r = make_dir(&m, err);
	if (r == 0)
		r = make_stop(&m, err);
	if (r < 0)
		return r;
	make_limits(&m);
	s->dir = bt_arena_strdup(a, s->dir);
	*ret = s;
	return 0;
}

int bt_process_spec_write(const char *dir, const struct bt_shim_spec *spec, struct bt_err *err)
{
	struct bt_record_out out = {bt_malloc(BT_SHIM_SPEC_MAX), 0, BT_SHIM_SPEC_MAX - 1, false};
	BT_FREE char *data = out.data;
	BT_FREE char *path = bt_asprintf("%s/spec", dir);
	BT_FREE char *logs = bt_strndup(spec->log, (size_t)(strrchr(spec->log, '/') - spec->log));
	if (bt_shim_spec_write(spec, &out) < 0)
		return bt_err_set(err, BT_E_CONFIG,
			"command and environment are longer than %u bytes", BT_SHIM_SPEC_MAX);
	int r = bt_fs_remove_tree(dir, err);
	if (r == 0)
		r = bt_fs_mkdirs(logs, 0755, err);
	if (r == 0)
		r = bt_fs_mkdirs(dir, 0700, err);
	if (r == 0)
		r = bt_fs_write_atomic(path, out.data, out.len, 0600, err);
	explicit_bzero(out.data, out.len);
	return r;
}

int bt_process_spec_read(
	const char *dir, char **ret_text, struct bt_shim_spec *ret, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/spec", dir);
	BT_FREE char *text = NULL;
	char why[160];
	size_t n;
	int r = bt_fs_read(path, BT_SHIM_SPEC_MAX, &text, &n, err);
	if (r < 0)
		return r;
	if (bt_shim_spec_parse(text, n, ret, why, sizeof why) < 0)
		return bt_err_set(err, BT_E_CORRUPT, "%s: %s", path, why);
	*ret_text = BT_STEAL(text);
	return 0;
}

int bt_process_status_read(const char *dir, struct bt_shim_status *ret, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/status", dir);
	BT_FREE char *text = NULL;
	char why[160];
	size_t n;
	if (!bt_fs_exists(path))
		return bt_err_set(err, BT_E_NOTFOUND, "%s: there is none", path);
	int r = bt_fs_read(path, BT_SHIM_MESSAGE_MAX, &text, &n, err);
	if (r < 0)
		return r;
	if (bt_shim_status_parse(text, n, ret, why, sizeof why) < 0)
		return bt_err_set(err, BT_E_CORRUPT, "%s: %s", path, why);
	return 0;
}
