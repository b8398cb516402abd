/* What an install puts where. A file's link is a link; one to a directory becomes that directory,
 * as CodeDeploy copies it: what it leads to need not be installed beside it. Unless that would
 * never end, or leads out of the revision. */
#include "driver/bundle_files.h"

#include "base/str.h"
#include "driver/artifact.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_DEPTH 100

struct gather {
	struct bt_bundle_files *files;
	const struct bt_cleanup *old;
	char *root; /* the revision, without links */
};

struct way { /* the directories that led here */
	const struct way *up;
	dev_t dev;
	ino_t ino;
	int depth;
};

static int add(struct gather *g, const char *from, const char *to, const struct stat *st,
	struct bt_err *err)
{
	struct bt_bundle_files *f = g->files;
	if (f->n == BT_UNPACK_MAX_ENTRIES)
		return bt_err_set(err, BT_E_CONFIG, "more than %d files", BT_UNPACK_MAX_ENTRIES);
	if (f->n == f->cap) {
		f->cap = f->cap ? f->cap * 2 : 64;
		struct bt_bundle_entry *more =
			BT_ARENA_ARRAY(f->arena, struct bt_bundle_entry, f->cap);
		if (f->n)
			memcpy(more, f->items, f->n * sizeof *more);
		f->items = more;
	}
	f->items[f->n++] = (struct bt_bundle_entry){
		.from = from, .to = to, .mode = st->st_mode, .mtime = st->st_mtime};
	return 0;
}

static int add_directory(struct gather *g, const char *from, const char *to, struct bt_err *err)
{
	return add(g, from, to, &(struct stat){.st_mode = S_IFDIR | 0755}, err);
}

static const char *join(struct gather *g, const char *dir, const char *name)
{
	return bt_arena_printf(
		g->files->arena, "%s%s%s", dir, bt_str_ends(dir, "/") ? "" : "/", name);
}

/* *st becomes the directory's. */
static bool leads_to_directory(
	const struct gather *g, const char *link, const struct way *way, struct stat *st)
{
	struct stat there;
	BT_FREE char *real = realpath(link, NULL);
	size_t n = strlen(g->root);
	if (!real || strncmp(real, g->root, n) != 0 || (real[n] && real[n] != '/') ||
		stat(real, &there) < 0 || !S_ISDIR(there.st_mode))
		return false;
	for (; way; way = way->up)
		if (way->dev == there.st_dev && way->ino == there.st_ino)
			return false;
	*st = there;
	return true;
}

/* Like lstat. */
static int look(const struct gather *g, const char *path, const struct way *way, struct stat *st)
{
	if (lstat(path, st) < 0)
		return -errno;
	if (S_ISLNK(st->st_mode))
		leads_to_directory(g, path, way, st);
	return 0;
}

static int gather_tree(struct gather *g, const char *from, const char *to, const struct stat *st,
	const struct way *up, struct bt_err *err);

static int gather_one(struct gather *g, const char *from, const char *to, const struct way *way,
	struct bt_err *err)
{
	struct stat st;
	int r = look(g, from, way, &st);
	if (r < 0)
		return bt_err_errno(err, -r, "read %s", from);
	if (!S_ISDIR(st.st_mode))
		return add(g, from, to, &st, err);
	r = add_directory(g, from, to, err);
	return r < 0 ? r : gather_tree(g, from, to, &st, way, err);
}

static int gather_tree(struct gather *g, const char *from, const char *to, const struct stat *st,
	const struct way *up, struct bt_err *err)
{
	struct way way = {up, st->st_dev, st->st_ino, up ? up->depth + 1 : 0};
	DIR *d = way.depth > MAX_DEPTH ? NULL : opendir(from);
	int r = 0;
	if (!d)
		return bt_err_errno(err, way.depth > MAX_DEPTH ? ELOOP : errno, "read %s", from);
	for (struct dirent *e; r == 0 && (e = readdir(d));)
		if (!bt_streq(e->d_name, ".") && !bt_streq(e->d_name, ".."))
			r = gather_one(
				g, join(g, from, e->d_name), join(g, to, e->d_name), &way, err);
	closedir(d);
	return r;
}

/* The destination and what lies above it, as far as the file system will not have it. */
static int gather_parents(struct gather *g, const char *destination, struct bt_err *err)
{
	struct stat st;
	int r = 0;
	for (const char *p = destination + 1; r == 0 && *p; p++) {
		size_t n = (size_t)(p + strcspn(p, "/") - destination);
		const char *part = bt_arena_strndup(g->files->arena, destination, n);
		if (lstat(part, &st) < 0 || bt_cleanup_has(g->old, part, true) ||
			bt_cleanup_has(g->old, part, false) || bt_cleanup_above(g->old, part))
			r = add_directory(g, NULL, part, err);
		p = destination + n;
		if (!*p)
			break;
	}
	return r;
}

static int gather_file(struct gather *g, const char *name, const char *revision,
	const struct bt_appspec_file *f, struct bt_err *err)
{
	const char *from = join(g, revision, f->source);
	const char *slash = strrchr(f->source, '/');
	struct stat st;
	int r = look(g, from, NULL, &st);
	if (r < 0)
		return bt_err_errno(
			err, -r, "%s:%d:%d: files: source %s", name, f->line, f->column, f->source);
	r = gather_parents(g, f->destination, err);
	if (r < 0)
		return r;
	if (S_ISDIR(st.st_mode))
		return gather_tree(g, from, f->destination, &st, NULL, err);
	return add(g, from, join(g, f->destination, slash ? slash + 1 : f->source), &st, err);
}

int bt_bundle_gather(const char *revision, const struct bt_appspec *spec,
	const struct bt_cleanup *old, struct bt_bundle_files *ret, struct bt_err *err)
{
	BT_FREE char *root = realpath(revision, NULL);
	struct gather g = {ret, old, root};
	int r = root ? 0 : bt_err_errno(err, errno, "read %s", revision);
	for (size_t i = 0; r == 0 && i < spec->n_files; i++)
		r = gather_file(&g, spec->name, revision, &spec->files[i], err);
	return r;
}
