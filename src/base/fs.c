#include "base/fs.h"

#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

int bt_fs_write_all(int fd, const void *data, size_t n)
{
	const char *p = data;
	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -errno;
		p += w;
		n -= (size_t)w;
	}
	return 0;
}

int bt_fs_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct bt_err *err)
{
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return bt_err_errno(err, errno, "read %s", path);
	BT_STR struct bt_str s = {0};
	char buf[65536];
	for (;;) {
		ssize_t r = read(fd, buf, sizeof buf);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return bt_err_errno(err, errno, "read %s", path);
		if (r == 0)
			break;
		bt_str_addn(&s, buf, (size_t)r);
		if (s.len > max)
			return bt_err_set(
				err, BT_E_REFUSED, "read %s: larger than %zu bytes", path, max);
	}
	if (ret_len)
		*ret_len = s.len;
	*ret_data = bt_str_steal(&s);
	return 0;
}

int bt_fs_fsync_dir(const char *dir, struct bt_err *err)
{
	BT_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return bt_err_errno(err, errno, "sync directory %s", dir);
	return 0;
}

static char *parent_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return bt_strdup(".");
	return slash == path ? bt_strdup("/") : bt_strndup(path, (size_t)(slash - path));
}

int bt_fs_fsync_parent(const char *path, struct bt_err *err)
{
	BT_FREE char *dir = parent_of(path);
	return bt_fs_fsync_dir(dir, err);
}

static char *name_aside(const char *path)
{
	static atomic_uint counter;
	return bt_asprintf("%s.tmp.%d.%u", path, (int)getpid(), atomic_fetch_add(&counter, 1));
}

static int write_synced(const char *path, const void *data, size_t n, mode_t mode)
{
	BT_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	if (fd < 0)
		return -errno;
	int r = bt_fs_write_all(fd, data, n);
	if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		r = -errno;
	return r;
}

int bt_fs_write_atomic(
	const char *path, const void *data, size_t n, mode_t mode, struct bt_err *err)
{
	BT_FREE char *aside = name_aside(path);
	int r = write_synced(aside, data, n, mode);
	if (r == 0 && rename(aside, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(aside);
		return bt_err_errno(err, r, "write %s", path);
	}
	return bt_fs_fsync_parent(path, err);
}

void bt_fs_remove_aside(const char *path)
{
	BT_FREE char *dir = parent_of(path);
	const char *slash = strrchr(path, '/');
	BT_FREE char *start = bt_asprintf("%s.tmp.", slash ? slash + 1 : path);
	DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));)
		if (bt_str_starts(e->d_name, start))
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

static bool is_already(const char *path, const void *data, size_t n, mode_t mode)
{
	struct stat st;
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
		(st.st_mode & 07777) != mode || st.st_uid != geteuid() || st.st_size != (off_t)n)
		return false;
	BT_FREE char *have = bt_malloc(n + 1);
	size_t got = 0;
	for (ssize_t r; got < n && (r = read(fd, have + got, n - got)) > 0;)
		got += (size_t)r;
	return got == n && memcmp(have, data, n) == 0;
}

int bt_fs_write_if_changed(
	const char *path, const void *data, size_t n, mode_t mode, struct bt_err *err)
{
	return is_already(path, data, n, mode) ? 0 : bt_fs_write_atomic(path, data, n, mode, err);
}

int bt_fs_mkdirs(const char *path, mode_t mode, struct bt_err *err)
{
	struct stat st;
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode)
			       ? 0
			       : bt_err_set(err, -ENOTDIR,
					 "make directory %s: a file is in the way", path);
	BT_FREE char *parent = parent_of(path);
	if (!bt_streq(parent, path)) {
		int r = bt_fs_mkdirs(parent, mode, err);
		if (r < 0)
			return r;
	}
	if (mkdir(path, mode) < 0 && errno != EEXIST)
		return bt_err_errno(err, errno, "make directory %s", path);
	return bt_fs_fsync_dir(parent, err);
}

int bt_fs_symlink_atomic(const char *target, const char *link, struct bt_err *err)
{
	BT_FREE char *aside = name_aside(link);
	if (symlink(target, aside) < 0)
		return bt_err_errno(err, errno, "link %s", link);
	if (rename(aside, link) < 0) {
		int saved = errno;
		unlink(aside);
		return bt_err_errno(err, saved, "link %s", link);
	}
	return bt_fs_fsync_parent(link, err);
}

int bt_fs_remove(const char *path, struct bt_err *err)
{
	if (unlink(path) < 0 && errno != ENOENT)
		return bt_err_errno(err, errno, "remove %s", path);
	int r = bt_fs_fsync_parent(path, err);
	if (r == -ENOENT) { /* its directory is not there either */
		bt_err_clear(err);
		r = 0;
	}
	return r;
}

static int remove_at(int dirfd, const char *name, dev_t dev)
{
	struct stat st;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISDIR(st.st_mode))
		return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
	if (st.st_dev != dev)
		return -EXDEV;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	DIR *d = fdopendir(fd);
	if (!d) {
		int saved = errno;
		close(fd);
		return -saved;
	}
	int r = 0;
	for (struct dirent *e; r == 0 && (e = readdir(d));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			r = remove_at(fd, e->d_name, dev);
	closedir(d);
	if (r == 0 && unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		r = -errno;
	return r;
}

int bt_fs_remove_tree(const char *path, struct bt_err *err)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : bt_err_errno(err, errno, "remove %s", path);
	int r = remove_at(AT_FDCWD, path, st.st_dev);
	return r < 0 ? bt_err_errno(err, r, "remove %s", path) : 0;
}

int bt_fs_free_bytes(const char *path, int64_t *ret_bytes, struct bt_err *err)
{
	struct statvfs v;
	if (statvfs(path, &v) < 0)
		return bt_err_errno(err, errno, "free space of %s", path);
	*ret_bytes = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
	return 0;
}

bool bt_fs_exists(const char *path)
{
	return access(path, F_OK) == 0;
}

int bt_fs_lock(const char *path, int *ret_fd, struct bt_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return bt_err_errno(err, errno, "lock %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		int saved = errno;
		close(fd);
		if (saved == EWOULDBLOCK)
			return bt_err_set(
				err, BT_E_REFUSED, "lock %s: another process holds it", path);
		return bt_err_errno(err, saved, "lock %s", path);
	}
	*ret_fd = fd;
	return 0;
}

int bt_fs_sha256(const char *path, char ret_hex[static 65], int64_t *ret_size, struct bt_err *err)
{
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return bt_err_errno(err, errno, "read %s", path);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char digest[32];
	int64_t size = 0;
	int r = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) ? 0 : -ENOMEM;
	char *buf = bt_malloc(1 << 17);
	while (r == 0) {
		ssize_t n = read(fd, buf, 1 << 17);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = -errno;
		if (n <= 0)
			break;
		size += n;
		EVP_DigestUpdate(ctx, buf, (size_t)n);
	}
	if (r == 0)
		EVP_DigestFinal_ex(ctx, digest, NULL);
	free(buf);
	EVP_MD_CTX_free(ctx);
	if (r < 0)
		return bt_err_errno(err, r, "read %s", path);
	bt_hex(digest, 32, ret_hex);
	if (ret_size)
		*ret_size = size;
	return 0;
}
