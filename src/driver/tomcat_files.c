/* Files in a CATALINA_BASE. The user that Tomcat runs as may write there, and the agent may be
 * root: directories are opened part by part and kept open, and nothing is reached by a path that
 * somebody could turn elsewhere meanwhile. */
#include "driver/tomcat.h"

#include "base/fs.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_DEPTH 64

char *bt_tomcat_below(int dir, const char *name)
{
	return bt_asprintf("/proc/self/fd/%d/%s", dir, name);
}

/* ---- directories -------------------------------------------------------------------------------
 */

static int open_part(int at, const char *part)
{
	char target[4096];
	struct stat st;
	BT_CLOSE int fd = openat(at, part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode)) {
		if (st.st_uid != 0 && st.st_uid != geteuid())
			return -ELOOP;
		ssize_t n = readlinkat(fd, "", target, sizeof target - 1);
		if (n < 0)
			return -errno;
		target[n] = 0;
		int r = openat(at, target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return r < 0 ? -errno : r;
	}
	int r = S_ISDIR(st.st_mode) ? openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	return r >= 0 ? r : S_ISDIR(st.st_mode) ? -errno : -ENOTDIR;
}

int bt_tomcat_open_dir(int at, const char *path)
{
	int dir = fcntl(at, F_DUPFD_CLOEXEC, 0);
	BT_FREE char *parts = bt_strdup(path);
	for (char *save = NULL, *part = strtok_r(parts, "/", &save); part && dir >= 0;
		part = strtok_r(NULL, "/", &save)) {
		int next = strcmp(part, "..") ? open_part(dir, part) : -ELOOP;
		close(dir);
		dir = next;
	}
	return dir;
}

/* ---- copies ------------------------------------------------------------------------------------
 */

static int give(int fd, const struct bt_tomcat_owner *o)
{
	return o->uid >= 0 && fchown(fd, (uid_t)o->uid, (gid_t)o->gid) < 0 ? -errno : 0;
}

/* The blocks are shared where the file system can. Never a link: an application that writes to its
 * own file would change the release. */
static int copy_bytes(int in, int out)
{
	if (ioctl(out, FICLONE, in) == 0)
		return 0;
	for (;;) {
		ssize_t n = sendfile(out, in, NULL, 1 << 30);
		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

static int copy_file(
	int in, int dir, const char *name, mode_t mode, const struct bt_tomcat_owner *o)
{
	BT_CLOSE int out =
		openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0)
		return -errno;
	int r = copy_bytes(in, out);
	if (r == 0)
		r = give(out, o);
	if (r == 0 && fchmod(out, mode) < 0)
		r = -errno;
	return r;
}

static int copy_link(int from, const char *name, int dir, const struct bt_tomcat_owner *o)
{
	char target[4096];
	ssize_t n = readlinkat(from, name, target, sizeof target - 1);
	if (n < 0)
		return -errno;
	target[n] = 0;
	if (symlinkat(target, dir, name) < 0)
		return -errno;
	return o->uid >= 0 && fchownat(dir, name, (uid_t)o->uid, (gid_t)o->gid,
				      AT_SYMLINK_NOFOLLOW) < 0
		       ? -errno
		       : 0;
}

static int copy_tree(
	int from, int dir, const char *name, const struct bt_tomcat_owner *o, int depth);

static int copy_entry(
	int from, const char *name, int dir, const struct bt_tomcat_owner *o, int depth)
{
	struct stat st;
	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		return copy_link(from, name, dir, o);
	BT_CLOSE int in = openat(from, name,
		O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC |
			(S_ISDIR(st.st_mode) ? O_DIRECTORY : 0));
	if (in < 0)
		return -errno;
	return S_ISDIR(st.st_mode)   ? copy_tree(in, dir, name, o, depth + 1)
	       : S_ISREG(st.st_mode) ? copy_file(in, dir, name, st.st_mode & 0111 ? 0755 : 0644, o)
				     : -EINVAL;
}

static int copy_tree(
	int from, int dir, const char *name, const struct bt_tomcat_owner *o, int depth)
{
	if (depth > MAX_DEPTH)
		return -ENAMETOOLONG;
	if (mkdirat(dir, name, 0700) < 0)
		return -errno;
	BT_CLOSE int to = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int own = to < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 0);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	if (!d) {
		int saved = errno;
		if (own >= 0)
			close(own);
		return -saved;
	}
	int r = 0;
	for (struct dirent *e; r == 0 && (e = readdir(d));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = copy_entry(from, e->d_name, to, o, depth);
	closedir(d);
	if (r == 0)
		r = give(to, o);
	if (r == 0 && fchmod(to, 0755) < 0)
		r = -errno;
	return r;
}

int bt_tomcat_copy(const char *from, int dir, const char *name, const struct bt_tomcat_owner *owner,
	struct bt_err *err)
{
	struct stat st;
	BT_CLOSE int in = open(from, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (in < 0 || fstat(in, &st) < 0)
		return bt_err_errno(err, errno, "read %s", from);
	int r = S_ISDIR(st.st_mode) ? copy_tree(in, dir, name, owner, 0)
				    : copy_file(in, dir, name, 0644, owner);
	/* One sync for all: a web application may be thousands of files. */
	if (r == 0 && syncfs(dir) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	BT_FREE char *half = bt_tomcat_below(dir, name);
	bt_fs_remove_tree(half, NULL);
	return bt_err_errno(err, -r, "copy %s", from);
}
