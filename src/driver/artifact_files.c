/* Further files of a release. They are written while the release is in the making, so that they
 * come with it by its one rename, and go with it. */
#include "driver/artifact.h"

#include "base/fs.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASIDE ".baton-file"

struct owner {
	uid_t uid;
	gid_t gid;
	bool other; /* than the agent's own user */
};

static int find_owner(const char *user, struct owner *ret, struct bt_err *err)
{
	struct passwd pw, *found = NULL;
	char buf[4096];
	*ret = (struct owner){0};
	if (!user)
		return 0;
	if (getpwnam_r(user, &pw, buf, sizeof buf, &found) != 0 || !found)
		return bt_err_set(
			err, BT_E_CONFIG, "run.user: there is no user '%s' on this host", user);
	*ret = (struct owner){pw.pw_uid, pw.pw_gid, pw.pw_uid != geteuid()};
	return 0;
}

/* The directory that holds the file, made where it is missing; -errno. No part may be a link. */
static int open_parent(int root, const char *path, const char **ret_name)
{
	int dir = fcntl(root, F_DUPFD_CLOEXEC, 0);
	const char *slash;
	for (; dir >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
		BT_FREE char *part = bt_strndup(path, (size_t)(slash - path));
		bool made = mkdirat(dir, part, 0755) == 0;
		int next =
			made || errno == EEXIST
				? openat(dir, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
				: -1;
		if (next >= 0 && made) /* whatever the umask: others run the app */
			(void)fchmod(next, 0755);
		int e = errno;
		close(dir);
		errno = e;
		dir = next;
	}
	*ret_name = path;
	return dir < 0 ? -errno : dir;
}

static int write_one(
	int root, const struct bt_placed_file *f, const struct owner *o, struct bt_err *err)
{
	const char *name;
	BT_CLOSE int dir = open_parent(root, f->path, &name);
	if (dir < 0)
		return bt_err_errno(err, -dir, "files: make the directory of %s", f->path);
	(void)unlinkat(dir, ASIDE, 0);
	BT_CLOSE int fd =
		openat(dir, ASIDE, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : bt_fs_write_all(fd, f->data, f->n);
	if (r == 0 && o->other && fchown(fd, o->uid, o->gid) < 0)
		r = -errno;
	if (r == 0 && (fchmod(fd, f->mode) < 0 || renameat(dir, ASIDE, dir, name) < 0))
		r = -errno;
	return r < 0 ? bt_err_errno(err, -r, "files: write %s", f->path) : 0;
}

static int check(const char *path, const char *taken, struct bt_err *err)
{
	if (taken && (bt_streq(path, taken) || bt_streq(path, "release.json") ||
			     bt_streq(path, BT_RELEASE_ABOUT)))
		return bt_err_set(err, BT_E_CONFIG,
			"files: %s is the artifact's or baton's own name: choose another `to`",
			path);
	for (const char *part = path;; part += strcspn(part, "/") + 1) {
		size_t n = strcspn(part, "/");
		if (n == 0 || n > 255 || (n <= 2 && !strncmp(part, "..", n)))
			return bt_err_set(err, BT_E_REFUSED,
				"files: '%s' is no path below the release's directory", path);
		if (!part[n])
			return 0;
	}
}

int bt_release_write_files(
	const char *dir, const char *taken, const struct bt_fetch_request *rq, struct bt_err *err)
{
	struct owner owner;
	if (!rq->n_files)
		return 0;
	BT_CLOSE int root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = root < 0 ? bt_err_errno(err, errno, "read %s", dir)
			 : find_owner(rq->owner, &owner, err);
	for (size_t i = 0; r == 0 && i < rq->n_files; i++) {
		r = check(rq->files[i].path, taken, err);
		if (r == 0)
			r = write_one(root, &rq->files[i], &owner, err);
	}
	return r;
}
