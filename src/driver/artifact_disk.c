/* Releases on disk: finding, listing, activating and removing them. */
#include "driver/artifact.h"
#include "driver/bundle.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "driver/op.h"
#include "shim/spec.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define JSON_MAX (4u << 20)

char *bt_release_root(const struct bt_driver_env *env, const char *service)
{
	return bt_asprintf("%s/releases/%s", env->state_dir, service);
}

char *bt_release_artifact(const struct bt_driver_env *env, const struct bt_fetch_request *rq)
{
	BT_FREE char *root = bt_release_root(env, rq->service);
	return bt_asprintf(
		"%s/%u/%s", root, rq->release, rq->unpack ? BT_RELEASE_TREE : rq->file_name);
}

static bool is_plain_name(const char *s, size_t max)
{
	return s && s[0] && s[0] != '.' && strlen(s) <= max && !strchr(s, '/');
}

int bt_release_check_names(const struct bt_fetch_request *rq, struct bt_err *err)
{
	if (!is_plain_name(rq->service, BT_NAME_MAX))
		return bt_err_set(err, BT_E_REFUSED, "'%.100s' is no name of a service",
			rq->service ? rq->service : "");
	if (!is_plain_name(rq->file_name, 200) || bt_streq(rq->file_name, "release.json"))
		return bt_err_set(err, BT_E_REFUSED, "'%.200s' is no name for an artifact",
			rq->file_name ? rq->file_name : "");
	if (!rq->digest || strlen(rq->digest) != 64 || strspn(rq->digest, "0123456789abcdef") != 64)
		return bt_err_set(err, BT_E_REFUSED, "'%.70s' is no SHA-256 digest",
			rq->digest ? rq->digest : "");
	if (rq->release == 0 || rq->size <= 0)
		return bt_err_set(err, BT_E_REFUSED, "release %u of %lld bytes: it is empty",
			rq->release, (long long)rq->size);
	return 0;
}

int bt_release_find(const struct bt_driver_env *env, const char *service, uint32_t id,
	struct bt_arena *a, struct bt_release_on_disk *ret, struct bt_err *err)
{
	BT_FREE char *root = bt_release_root(env, service);
	const char *dir = bt_arena_printf(a, "%s/%u", root, id);
	BT_FREE char *about_path = bt_asprintf("%s/%s", dir, BT_RELEASE_ABOUT);
	BT_FREE char *json_path = bt_asprintf("%s/release.json", dir);
	BT_FREE char *text = NULL, *json = NULL;
	BT_JSON json_t *about = NULL;
	const char *version, *artifact;
	size_t n;
	if (!is_plain_name(service, BT_NAME_MAX) || id == 0 || !bt_fs_exists(about_path))
		return bt_err_set(
			err, BT_E_NOTFOUND, "release %u of %s is not on this host", id, service);
	int r = bt_fs_read(about_path, JSON_MAX, &text, &n, err);
	if (r == 0)
		r = bt_json_parse(text, n, JSON_MAX, &about, err);
	if (r == 0)
		r = bt_json_str(about, "version", &version, err);
	if (r == 0)
		r = bt_json_str(about, "artifact", &artifact, err);
	if (r == 0)
		r = bt_fs_read(json_path, JSON_MAX, &json, NULL, err);
	if (r < 0)
		return bt_err_wrap(err, "release %u of %s", id, service);
	ret->id = id;
	ret->version = bt_arena_strdup(a, version);
	ret->artifact = bt_arena_printf(a, "%s/%s", dir, artifact);
	ret->dir = bt_streq(artifact, BT_RELEASE_TREE) ? ret->artifact : dir;
	ret->release_json = bt_arena_strdup(a, json);
	return 0;
}

/* The id that a directory's name is, or 0. */
static uint32_t id_of(const char *name)
{
	int64_t id;
	return name[0] != '0' && bt_int_parse(name, 1, UINT32_MAX, &id, NULL) == 0 ? (uint32_t)id
										   : 0;
}

size_t bt_release_list(const struct bt_driver_env *env, const char *service, struct bt_arena *a,
	uint32_t **ret_ids)
{
	BT_FREE char *root = bt_release_root(env, service);
	BT_STR struct bt_str ids = {0};
	DIR *d = opendir(root);
	*ret_ids = NULL;
	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));) {
		uint32_t id = id_of(e->d_name);
		BT_FREE char *about = bt_asprintf("%s/%s/%s", root, e->d_name, BT_RELEASE_ABOUT);
		if (id && bt_fs_exists(about))
			bt_str_addn(&ids, &id, sizeof id);
	}
	closedir(d);
	*ret_ids = bt_arena_memdup(a, bt_str_get(&ids), ids.len);
	return ids.len / sizeof(uint32_t);
}

int bt_release_activate(
	const struct bt_driver_env *env, const char *service, uint32_t id, struct bt_err *err)
{
	struct bt_release_on_disk found;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	int r = bt_release_find(env, service, id, a, &found, err);
	if (r < 0)
		return r;
	BT_FREE char *root = bt_release_root(env, service);
	BT_FREE char *link = bt_asprintf("%s/current", root);
	char target[16];
	snprintf(target, sizeof target, "%u", id);
	return bt_fs_symlink_atomic(target, link, err);
}

/* ---- prune ------------------------------------------------------------------------------- */

struct prune {
	struct bt_op op; /* first */
	struct bt_driver_env env;
	char *root, *instances, *service;
	uint32_t *keep;
	size_t n_keep;
	bt_done_fn done; /* NULL: cancelled */
	void *arg;
	int result;
	struct bt_err err;
};

/* What an instance was started from stays, whoever counted: its spec is there as long as it runs.
 */
static void keep_running(struct prune *p)
{
	DIR *d = opendir(p->instances);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		BT_FREE char *path = bt_asprintf("%s/%s/spec", p->instances, e->d_name);
		BT_FREE char *text = NULL;
		struct bt_shim_spec *spec = bt_malloc(sizeof *spec);
		BT_FREE void *hold = spec;
		char why[160];
		size_t n;
		if (e->d_name[0] == '.' ||
			bt_fs_read(path, BT_SHIM_SPEC_MAX, &text, &n, NULL) < 0 ||
			bt_shim_spec_parse(text, n, spec, why, sizeof why) < 0)
			continue;
		p->keep = bt_realloc(p->keep, (p->n_keep + 1) * sizeof *p->keep);
		p->keep[p->n_keep++] = (uint32_t)spec->release;
	}
	closedir(d);
}

/* The scripts of the last bundle that was installed stop it, one day. */
static void keep_bundles(struct prune *p)
{
	struct bt_bundle_state s;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	if (bt_bundle_state_read(p->env.state_dir, p->service, a, &s, NULL) < 0)
		return;
	p->keep = bt_realloc(p->keep, (p->n_keep + s.n_last + 1) * sizeof *p->keep);
	for (size_t i = 0; i < s.n_last; i++)
		p->keep[p->n_keep++] = s.last[i].release;
}

static void keep_current(struct prune *p)
{
	BT_FREE char *link = bt_asprintf("%s/current", p->root);
	char target[32];
	ssize_t n = readlink(link, target, sizeof target - 1);
	target[n > 0 ? n : 0] = 0;
	if (id_of(target)) {
		p->keep = bt_realloc(p->keep, (p->n_keep + 1) * sizeof *p->keep);
		p->keep[p->n_keep++] = id_of(target);
	}
}

static bool is_kept(const struct prune *p, uint32_t id)
{
	for (size_t i = 0; i < p->n_keep; i++)
		if (p->keep[i] == id)
			return true;
	return false;
}

/* A part that nobody downloads to at the moment. */
static bool is_left_part(const char *path)
{
	BT_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* A release in the making that nobody makes any more: a placement takes minutes, not a day. */
static bool is_left_new(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && bt_clock_wall_ms() / 1000 - st.st_mtime > 86400;
}

static void prune_one(struct prune *p, const char *name)
{
	BT_FREE char *path = bt_asprintf("%s/%s", p->root, name);
	BT_FREE char *old = bt_asprintf("%s/.old-%s", p->root, name);
	uint32_t id = id_of(name);
	struct bt_err err = {0};
	int r = 0;
	if (id && !is_kept(p, id)) {
		/* Renamed first: half a release is never found under its name. */
		r = rename(path, old) < 0 ? bt_err_errno(&err, errno, "remove %s", path)
					  : bt_fs_remove_tree(old, &err);
	} else if (bt_str_starts(name, ".old-") ||
		   (bt_str_starts(name, ".part-") && is_left_part(path)) ||
		   (bt_str_starts(name, ".new-") && is_left_new(path))) {
		r = bt_fs_remove_tree(path, &err);
	}
	if (r < 0 && p->result == 0) {
		p->result = r;
		p->err = err;
	}
}

static void prune_run(void *arg)
{
	struct prune *p = arg;
	keep_running(p);
	keep_bundles(p);
	keep_current(p);
	DIR *d = opendir(p->root);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));)
		if (!bt_streq(e->d_name, ".") && !bt_streq(e->d_name, ".."))
			prune_one(p, e->d_name);
	closedir(d);
	bt_fs_fsync_dir(p->root, NULL);
}

static void prune_done(void *arg)
{
	struct prune *p = arg;
	bt_done_fn done = p->done;
	void *done_arg = p->arg;
	int result = p->result;
	struct bt_err err = p->err;
	free(p->root);
	free(p->instances);
	free(p->service);
	free(p->keep);
	free(p);
	if (done)
		done(done_arg, result, result < 0 ? &err : NULL);
}

static void prune_cancel(struct bt_op *op)
{
	((struct prune *)op)->done = NULL; /* freed when the thread is done with it */
}

struct bt_op *bt_release_prune(const struct bt_driver_env *env, const char *service,
	const uint32_t *keep, size_t n_keep, bt_done_fn done, void *arg)
{
	struct prune *p = bt_calloc(1, sizeof *p);
	p->op.cancel = prune_cancel;
	p->env = *env;
	p->service = bt_strdup(service);
	p->root = bt_release_root(env, service);
	p->instances = bt_asprintf("%s/instances/%s", env->state_dir, service);
	p->keep = bt_calloc(n_keep + 1, sizeof *keep);
	if (n_keep)
		memcpy(p->keep, keep, n_keep * sizeof *keep);
	p->n_keep = n_keep;
	p->done = done;
	p->arg = arg;
	bt_work_submit(env->work, prune_run, prune_done, p);
	return &p->op;
}
