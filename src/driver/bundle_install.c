/* Installing a bundle's files.
 *
 *   gather   what goes where, from the appspec and the unpacked tree (bundle_gather.c)
 *   check    twice the same place, files of others in the way, the host's policy, unknown users:
 *            until here nothing is changed
 *   begin    the clean-up list gets the new names besides the old ones, durably
 *   clean    what the last install put there is removed
 *   copy     each file aside, then over the name
 *   permit   owner, group, mode, of what was put there
 *   end      the list holds the new names alone, and the revision is the last one
 *
 * After a crash anywhere the whole is done again, and the list knows every name that may be there.
 */
#include "driver/bundle_files.h"

#include "base/fs.h"
#include "base/str.h"
#include "driver/artifact.h"
#include "driver/op.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASIDE ".baton-aside" /* in the directory where a file is being made */

struct owners { /* of a permission, as numbers */
	uid_t uid;
	gid_t gid;
};

struct install {
	struct bt_op op; /* first */
	const char *state_dir;
	struct bt_bundle_request rq; /* strings in the arena */
	struct bt_arena *arena;
	struct bt_appspec *spec;
	struct owners *owners; /* one a permission */
	struct bt_bundle_files files;
	struct bt_cleanup old;
	const char *allowed_dir; /* the last one that was allowed */
	struct bt_bundle_done what;
	void (*done)(void *arg, int result, const struct bt_bundle_done *what,
		const struct bt_err *err); /* NULL: nobody waits any more */
	void *arg;
	int result;
	struct bt_err err;
};

/* ---- check ------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
	return strcmp((*(const struct bt_bundle_entry *const *)a)->to,
		(*(const struct bt_bundle_entry *const *)b)->to);
}

/* A directory may be named by several; a file may not. */
static int check_twice(struct install *in, struct bt_err *err)
{
	const struct bt_bundle_entry **list =
		BT_ARENA_ARRAY(in->arena, const struct bt_bundle_entry *, in->files.n + 1);
	for (size_t i = 0; i < in->files.n; i++)
		list[i] = &in->files.items[i];
	if (in->files.n)
		qsort(list, in->files.n, sizeof *list, by_place);
	for (size_t i = 1; i < in->files.n; i++)
		if (bt_streq(list[i - 1]->to, list[i]->to) &&
			!(S_ISDIR(list[i - 1]->mode) && S_ISDIR(list[i]->mode)))
			return bt_err_set(err, BT_E_CONFIG,
				"%s: two files of the bundle go to %s: give one of them another "
				"destination",
				in->spec->name, list[i]->to);
	return 0;
}

/* The host's policy says it for a file's directory; asked once for each. Where a link leads is not
 * asked: it is made, or removed, and not followed. */
static int check_allowed(struct install *in, const char *path, bool directory, struct bt_err *err)
{
	const char *slash = strrchr(path, '/');
	size_t n = directory ? strlen(path) : slash > path ? (size_t)(slash - path) : 1;
	if (in->allowed_dir && strlen(in->allowed_dir) == n && !strncmp(in->allowed_dir, path, n))
		return 0;
	const char *dir = bt_arena_strndup(in->arena, path, n);
	int r = in->rq.allowed(in->rq.arg, dir, err);
	if (r == 0)
		in->allowed_dir = dir;
	return r;
}

static int check_file(struct install *in, struct bt_bundle_entry *e, struct bt_err *err)
{
	struct stat st;
	int r = check_allowed(in, e->to, false, err);
	if (r < 0)
		return r;
	if (bt_str_ends(e->to, "/" ASIDE))
		return bt_err_set(err, BT_E_CONFIG,
			"%s is a name of baton's own: give the file another one", e->to);
	if (lstat(e->to, &st) < 0 || bt_cleanup_has(&in->old, e->to, false) ||
		bt_cleanup_above(&in->old, e->to))
		return 0;
	if (S_ISDIR(st.st_mode))
		return bt_err_set(
			err, BT_E_EXISTS, "%s is there already, and is a directory", e->to);
	e->retained = in->spec->exists == BT_APPSPEC_RETAIN;
	if (in->spec->exists != BT_APPSPEC_DISALLOW)
		return 0;
	return bt_err_set(err, BT_E_EXISTS,
		"%s is there already, and no earlier revision put it there: remove it, or say "
		"file_exists_behavior: OVERWRITE or RETAIN",
		e->to);
}

static int check_directory(struct install *in, const struct bt_bundle_entry *e, struct bt_err *err)
{
	struct stat st;
	int r = check_allowed(in, e->to, true, err);
	if (r < 0 || stat(e->to, &st) < 0 || S_ISDIR(st.st_mode) ||
		bt_cleanup_has(&in->old, e->to, false))
		return r;
	return bt_err_set(err, BT_E_EXISTS, "%s is there already, and is no directory", e->to);
}

static int check_owner(struct install *in, const struct bt_appspec_permission *p, struct owners *o,
	struct bt_err *err)
{
	char buf[4096];
	struct passwd pw, *user = NULL;
	struct group gr, *group = NULL;
	*o = (struct owners){(uid_t)-1, (gid_t)-1};
	if (p->mode > 0 && (p->mode & 06000) && !in->rq.set_id)
		return bt_err_set(err, BT_E_REFUSED,
			"%s:%d:%d: permissions: mode %04o would run as another user, and this "
			"host's policy lets nothing run as root (rule 'root')",
			in->spec->name, p->line, p->column, p->mode);
	if (p->owner && (getpwnam_r(p->owner, &pw, buf, sizeof buf, &user) != 0 || !user))
		return bt_err_set(err, BT_E_CONFIG,
			"%s:%d:%d: permissions: there is no user '%s' on this host", in->spec->name,
			p->line, p->column, p->owner);
	if (user)
		o->uid = user->pw_uid;
	if (p->group && (getgrnam_r(p->group, &gr, buf, sizeof buf, &group) != 0 || !group))
		return bt_err_set(err, BT_E_CONFIG,
			"%s:%d:%d: permissions: there is no group '%s' on this host",
			in->spec->name, p->line, p->column, p->group);
	if (group)
		o->gid = group->gr_gid;
	return 0;
}

static int check(struct install *in, struct bt_err *err)
{
	int r = check_twice(in, err);
	for (size_t i = 0; r == 0 && i < in->files.n; i++)
		r = S_ISDIR(in->files.items[i].mode) ? check_directory(in, &in->files.items[i], err)
						     : check_file(in, &in->files.items[i], err);
	in->owners = BT_ARENA_ARRAY(in->arena, struct owners, in->spec->n_permissions + 1);
	for (size_t i = 0; r == 0 && i < in->spec->n_permissions; i++)
		r = check_owner(in, &in->spec->permissions[i], &in->owners[i], err);
	return r;
}

/* ---- the list, and cleaning -------------------------------------------------------------- */

static char *list_path(const struct install *in)
{
	BT_FREE char *dir = bt_bundle_dir(in->state_dir, in->rq.service);
	return bt_asprintf("%s/cleanup", dir);
}

/* One name for all: a name made from the file's own could be too long. */
static char *aside_of(const char *path)
{
	return bt_asprintf("%.*s/" ASIDE, (int)(strrchr(path, '/') - path), path);
}

/* Directories that others made are theirs, and stay. */
static bool is_ours(const struct install *in, const struct bt_bundle_entry *e)
{
	struct stat st;
	if (!S_ISDIR(e->mode))
		return !e->retained;
	return lstat(e->to, &st) < 0 || bt_cleanup_has(&in->old, e->to, true) ||
	       bt_cleanup_above(&in->old, e->to);
}

static int write_list(struct install *in, bool with_old, struct bt_err *err)
{
	struct bt_cleanup list = {.arena = in->arena};
	BT_FREE char *path = list_path(in);
	for (size_t i = 0; i < in->files.n; i++)
		if (with_old ? is_ours(in, &in->files.items[i]) : in->files.items[i].made)
			bt_cleanup_add(
				&list, in->files.items[i].to, S_ISDIR(in->files.items[i].mode));
	for (size_t i = 0; with_old && i < in->old.n; i++)
		bt_cleanup_add(&list, in->old.items[i].path, in->old.items[i].directory);
	bt_cleanup_sort(&list);
	return bt_cleanup_write(path, &list, err);
}

/* What an install that was cut short was just making. */
static void unlink_aside(const char *path)
{
	BT_FREE char *aside = aside_of(path);
	unlink(aside);
}

/* In reverse order of names, so that a directory comes after what is in it. Where the way there
 * leads elsewhere by now, what is there is not what was put there. */
static int clean(struct install *in, struct bt_err *err)
{
	in->allowed_dir = NULL;
	for (size_t i = in->old.n; i-- > 0;) {
		const struct bt_cleanup_entry *e = &in->old.items[i];
		if (check_allowed(in, e->path, e->directory, NULL) < 0)
			continue;
		if (e->directory) {
			(void)rmdir(e->path); /* others may have put something there */
			continue;
		}
		unlink_aside(e->path);
		if (unlink(e->path) == 0)
			in->what.removed++;
		else if (errno != ENOENT && errno != ENOTDIR && errno != EISDIR)
			return bt_err_errno(err, errno, "remove %s", e->path);
	}
	in->allowed_dir = NULL;
	return 0;
}

/* ---- copy -------------------------------------------------------------------------------- */

static int make_directory(struct install *in, struct bt_bundle_entry *e, struct bt_err *err)
{
	struct stat st;
	if (mkdir(e->to, 0755) == 0) {
		if (chmod(e->to, 0755) < 0)
			return bt_err_errno(err, errno, "make directory %s", e->to);
		e->made = true;
		in->what.directories++;
		return 0;
	}
	int saved = errno;
	if (saved == EEXIST && stat(e->to, &st) == 0 && S_ISDIR(st.st_mode)) {
		e->made = bt_cleanup_has(&in->old, e->to, true);
		return 0;
	}
	return bt_err_errno(err, saved, "make directory %s", e->to);
}

static int copy_link(const struct bt_bundle_entry *e, const char *aside, struct bt_err *err)
{
	char target[4096];
	ssize_t n = readlink(e->from, target, sizeof target - 1);
	target[n > 0 ? n : 0] = 0;
	return n < 0 || symlink(target, aside) < 0 ? bt_err_errno(err, errno, "copy %s", e->to) : 0;
}

/* With its time, which browsers and caches go by; a tar of `deploy --bundle DIRECTORY` has none. */
static int copy_data(const struct bt_bundle_entry *e, const char *aside, struct bt_err *err)
{
	const struct timespec times[] = {{e->mtime, 0}, {e->mtime, 0}};
	errno = 0;
	if (!bt_release_copy(e->from, aside) || chmod(aside, e->mode & 0111 ? 0755 : 0644) < 0 ||
		(e->mtime > 0 && utimensat(AT_FDCWD, aside, times, 0) < 0))
		return bt_err_errno(err, errno ? errno : EIO, "copy %s", e->to);
	return 0;
}

static int copy_file(struct install *in, struct bt_bundle_entry *e, struct bt_err *err)
{
	if (e->retained) {
		in->what.retained++;
		return 0;
	}
	BT_FREE char *aside = aside_of(e->to);
	unlink(aside);
	int r = S_ISLNK(e->mode) ? copy_link(e, aside, err) : copy_data(e, aside, err);
	if (r == 0 && rename(aside, e->to) < 0)
		r = bt_err_errno(err, errno, "place %s", e->to);
	if (r < 0) {
		unlink(aside);
		return r;
	}
	e->made = true;
	in->what.files++;
	return 0;
}

static int copy(struct install *in, struct bt_err *err)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < in->files.n; i++)
		r = S_ISDIR(in->files.items[i].mode) ? make_directory(in, &in->files.items[i], err)
						     : copy_file(in, &in->files.items[i], err);
	return r;
}

/* ---- permit ------------------------------------------------------------------------------ */

static int permit_one(
	const struct install *in, size_t k, const struct bt_bundle_entry *e, struct bt_err *err)
{
	const struct bt_appspec_permission *p = &in->spec->permissions[k];
	const struct owners *o = &in->owners[k];
	bool link = S_ISLNK(e->mode);
	if ((p->owner || p->group) && lchown(e->to, o->uid, o->gid) < 0)
		return bt_err_errno(err, errno, "give %s to %s%s%s", e->to,
			p->owner ? p->owner : "", p->group ? ":" : "", p->group ? p->group : "");
	if (p->mode >= 0 && !link && chmod(e->to, (mode_t)p->mode) < 0)
		return bt_err_errno(err, errno, "set the mode of %s", e->to);
	return 0;
}

static int permit(const struct install *in, struct bt_err *err)
{
	int r = 0;
	for (size_t k = 0; k < in->spec->n_permissions; k++)
		for (size_t i = 0; r == 0 && i < in->files.n; i++)
			if (in->files.items[i].made &&
				bt_appspec_permits(&in->spec->permissions[k], in->files.items[i].to,
					S_ISDIR(in->files.items[i].mode)))
				r = permit_one(in, k, &in->files.items[i], err);
	return r;
}

/* One sync for each place: thousands of fsyncs would take minutes. */
static int sync_all(const struct install *in, struct bt_err *err)
{
	for (size_t i = 0; i < in->spec->n_files; i++) {
		const char *dir = in->spec->files[i].destination;
		BT_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || syncfs(fd) < 0)
			return bt_err_errno(err, errno, "sync %s", dir);
	}
	return 0;
}

/* ---- all of it --------------------------------------------------------------------------- */

static int look_up(struct install *in, struct bt_err *err)
{
	struct bt_config_problems problems = {0};
	BT_FREE char *path = list_path(in);
	int r = bt_bundle_appspec(in->rq.revision, in->rq.appspec, &in->spec, &problems, err);
	bt_config_problems_done(&problems);
	in->old.arena = in->files.arena = in->arena;
	if (r == 0)
		r = bt_cleanup_read(path, &in->old, err);
	if (r == 0)
		r = bt_bundle_gather(in->rq.revision, in->spec, &in->old, &in->files, err);
	return r < 0 ? r : check(in, err);
}

static int put_in_place(struct install *in, struct bt_err *err)
{
	int r = bt_bundle_state_begin(in->state_dir, &in->rq, err);
	if (r == 0)
		r = write_list(in, true, err);
	if (r == 0)
		r = clean(in, err);
	if (r == 0)
		r = copy(in, err);
	if (r == 0)
		r = permit(in, err);
	if (r == 0)
		r = sync_all(in, err);
	if (r == 0)
		r = write_list(in, false, err);
	return r < 0 ? r : bt_bundle_state_end(in->state_dir, &in->rq, err);
}

static int install(struct install *in, struct bt_err *err)
{
	BT_FREE char *dir = bt_bundle_dir(in->state_dir, in->rq.service);
	BT_FREE char *lock = bt_asprintf("%s/lock", dir);
	BT_FREE char *list = list_path(in);
	BT_CLOSE int fd = -1;
	int r = bt_fs_mkdirs(dir, 0700, err);
	if (r == 0)
		r = bt_fs_lock(lock, &fd, err);
	if (r == BT_E_REFUSED)
		return bt_err_set(
			err, BT_E_FAILED, "another install of %s is at work", in->rq.service);
	if (r < 0)
		return r;
	bt_fs_remove_aside(list);
	bt_bundle_state_tidy(in->state_dir, in->rq.service);
	r = look_up(in, err);
	return r < 0 ? r : put_in_place(in, err);
}

static void on_thread(void *arg)
{
	struct install *in = arg;
	in->result = install(in, &in->err);
}

static void on_done(void *arg)
{
	struct install *in = arg;
	if (in->done)
		in->done(in->arg, in->result, &in->what, in->result < 0 ? &in->err : NULL);
	bt_appspec_free(in->spec);
	bt_arena_free(in->arena);
	free(in);
}

/* A thread that is at work is let to its end; nobody hears of it. */
static void cancel(struct bt_op *op)
{
	((struct install *)op)->done = NULL;
}

struct bt_op *bt_bundle_install(const struct bt_driver_env *env, const struct bt_bundle_request *rq,
	void (*done)(
		void *arg, int result, const struct bt_bundle_done *what, const struct bt_err *err),
	void *arg)
{
	struct install *in = bt_calloc(1, sizeof *in);
	struct bt_arena *a = in->arena = bt_arena_new();
	in->op.cancel = cancel;
	in->done = done;
	in->arg = arg;
	in->state_dir = bt_arena_strdup(a, env->state_dir);
	in->rq = *rq;
	in->rq.service = bt_arena_strdup(a, rq->service);
	in->rq.version = bt_arena_strdup(a, rq->version ? rq->version : "");
	in->rq.revision = bt_arena_strdup(a, rq->revision);
	in->rq.appspec = bt_arena_strdup(a, rq->appspec);
	const char **slots = BT_ARENA_ARRAY(a, const char *, rq->n_slots + 1);
	for (size_t i = 0; i < rq->n_slots; i++)
		slots[i] = bt_arena_strdup(a, rq->slots[i]);
	in->rq.slots = slots;
	bt_work_submit(env->work, on_thread, on_done, in);
	return &in->op;
}
