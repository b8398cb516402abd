/* baton-unpack ARCHIVE DIR MAX_BYTES MAX_ENTRIES: unpacks into the (empty) directory.
 *
 * A program of its own, so that the agent never loads libarchive, and what an archive does to the
 * parser stays in a process that can reach nothing else. It makes plain files, directories and
 * links inside the tree; owner, set-id bits and everything else an archive may wish for are left
 * out. 0, or 1 with one line on stderr. */
#include "shim/unpack_names.h"
#include "shim/unpack_sandbox.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What a well-meant archive does not reach: this much from each packed byte. */
#define RATIO_MAX 200
#define RATIO_FREE_BYTES ((int64_t)64 << 20)

struct unpack {
	struct archive *a;
	int root;
	int64_t packed, max_bytes, max_entries;
	int64_t bytes, entries;
	char name[BT_UNPACK_PATH_MAX]; /* of the entry at hand, plain */
};

static int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int complain(const char *fmt, ...)
{
	char line[1400];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	for (char *p = line; *p; p++) /* names come from outside */
		if ((unsigned char)*p < 32 || *p == 127)
			*p = '?';
	fprintf(stderr, "%s\n", line);
	return -1;
}

static int complain_errno(const struct unpack *u)
{
	if (errno == ENOSPC || errno == EDQUOT)
		return complain("disk full while unpacking '%s'", u->name);
	if (errno == EFBIG)
		return complain("'%s' is larger than the %lld bytes there is room for", u->name,
			(long long)u->max_bytes);
	return complain("unpack '%s': %s", u->name, strerror(errno));
}

/* Opens beneath the root, never through a symbolic link. */
static int open_beneath(const struct unpack *u, const char *path, int flags, mode_t mode)
{
	struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = mode,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
	return (int)syscall(SYS_openat2, u->root, path[0] ? path : ".", &how, sizeof how);
}

/* The directory that holds the entry, made where it is missing; *ret_last is the entry's name in
 * it. A descriptor, or -1 with errno. */
static int open_parent(const struct unpack *u, const char **ret_last)
{
	char path[BT_UNPACK_PATH_MAX];
	strcpy(path, u->name);
	int at = dup(u->root);
	for (char *p = path, *slash; at >= 0 && (slash = strchr(p, '/')); p = slash + 1) {
		*slash = 0;
		if (mkdirat(at, p, 0755) < 0 && errno != EEXIST) {
			close(at);
			return -1;
		}
		int next = openat(at, p, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		int saved = errno;
		close(at);
		errno = saved;
		at = next;
	}
	const char *last = strrchr(u->name, '/');
	*ret_last = last ? last + 1 : u->name;
	return at;
}

static int count(struct unpack *u, int64_t bytes)
{
	u->bytes += bytes;
	if (u->bytes > u->max_bytes)
		return complain("it unpacks to more than the %lld bytes there is room for: refused",
			(long long)u->max_bytes);
	if (u->bytes > RATIO_FREE_BYTES && u->bytes / RATIO_MAX > u->packed)
		return complain(
			"it unpacks to more than %d times its size: refused as a bomb", RATIO_MAX);
	return 0;
}

static int write_data(struct unpack *u, int fd)
{
	const void *data;
	size_t n;
	la_int64_t at, end = 0;
	for (;;) {
		int r = archive_read_data_block(u->a, &data, &n, &at);
		if (r == ARCHIVE_EOF)
			break;
		if (r < ARCHIVE_WARN)
			return complain(
				"'%s' cannot be read: %s", u->name, archive_error_string(u->a));
		if (at < end || at > u->max_bytes || (int64_t)n > u->max_bytes)
			return complain("'%s' is larger than the %lld bytes there is room for",
				u->name, (long long)u->max_bytes);
		/* Holes count, too: what they promise may be filled later. */
		if (count(u, at - end + (int64_t)n) < 0)
			return -1;
		for (size_t done = 0; done < n;) {
			ssize_t w = pwrite(
				fd, (const char *)data + done, n - done, at + (la_int64_t)done);
			if (w < 0 && errno == EINTR)
				continue;
			if (w < 0)
				return complain_errno(u);
			done += (size_t)w;
		}
		end = at + (la_int64_t)n;
	}
	return ftruncate(fd, end) < 0 ? complain_errno(u) : 0;
}

static int make_file(struct unpack *u, struct archive_entry *e, int at, const char *last)
{
	/* Only whether it may be run is taken from the archive. */
	mode_t mode = archive_entry_perm(e) & 0111 ? 0755 : 0644;
	int fd = openat(at, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return complain_errno(u);
	int r = write_data(u, fd);
	const struct timespec times[2] = {{archive_entry_mtime(e), 0}, {archive_entry_mtime(e), 0}};
	if (r == 0 && fchmod(fd, mode) < 0)
		r = complain_errno(u);
	if (r == 0 && archive_entry_mtime_is_set(e))
		futimens(fd, times);
	close(fd);
	return r;
}

static int make_symlink(struct unpack *u, struct archive_entry *e, int at, const char *last)
{
	const char *target = archive_entry_symlink(e);
	const char *why = bt_unpack_link(u->name, target);
	if (why)
		return complain("'%s' is %s: refused", u->name, why);
	return symlinkat(target, at, last) < 0 ? complain_errno(u) : 0;
}

/* Only to a plain file that is there already: a hard link to a symbolic link would carry its
 * target to another depth. */
static int make_hardlink(struct unpack *u, struct archive_entry *e, int at, const char *last)
{
	char path[BT_UNPACK_PATH_MAX];
	struct stat st;
	const char *why = bt_unpack_path(archive_entry_hardlink(e), path);
	if (why)
		return complain("'%s' is a hard link whose target has %s: refused", u->name, why);
	int fd = open_beneath(u, path, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		if (fd >= 0)
			close(fd);
		return complain("'%s' is a hard link to '%s', which is no file of the archive: "
				"refused",
			u->name, path);
	}
	close(fd);
	return linkat(u->root, path, at, last, 0) < 0 ? complain_errno(u) : 0;
}

static int make_dir(struct unpack *u, int at, const char *last)
{
	struct stat st;
	if (mkdirat(at, last, 0755) == 0)
		return 0;
	if (errno == EEXIST && fstatat(at, last, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		S_ISDIR(st.st_mode))
		return 0;
	return complain_errno(u);
}

static const char *kind_of(mode_t type)
{
	return type == AE_IFCHR || type == AE_IFBLK ? "a device node"
	       : type == AE_IFIFO		    ? "a named pipe"
	       : type == AE_IFSOCK		    ? "a socket"
						    : "of an unknown kind";
}

static int make_entry(struct unpack *u, struct archive_entry *e)
{
	const char *name = archive_entry_pathname(e), *last;
	const char *why = bt_unpack_path(name, u->name);
	mode_t type = archive_entry_filetype(e);
	struct stat st;
	if (why)
		return complain("'%.200s' has %s: refused", name ? name : "", why);
	if (!u->name[0]) /* "./" itself */
		return 0;
	bool hard = archive_entry_hardlink(e) != NULL;
	if (!hard && type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)
		return complain("'%s' is %s: refused", u->name, kind_of(type));
	int at = open_parent(u, &last);
	if (at < 0)
		return errno == ELOOP || errno == ENOTDIR
			       ? complain("'%s' lies behind a link or a file: refused", u->name)
			       : complain_errno(u);
	/* The later entry of a name replaces the earlier one, as tar does; never a directory. */
	if ((hard || type != AE_IFDIR) && fstatat(at, last, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		!S_ISDIR(st.st_mode))
		unlinkat(at, last, 0);
	int r = hard		   ? make_hardlink(u, e, at, last)
		: type == AE_IFDIR ? make_dir(u, at, last)
		: type == AE_IFLNK ? make_symlink(u, e, at, last)
				   : make_file(u, e, at, last);
	close(at);
	return r;
}

static int unpack(struct unpack *u)
{
	struct archive_entry *e;
	for (;;) {
		int r = archive_read_next_header(u->a, &e);
		if (r == ARCHIVE_EOF)
			break;
		if (r < ARCHIVE_WARN)
			return complain("not a readable archive: %s",
				archive_error_string(u->a) ? archive_error_string(u->a) : "?");
		if (++u->entries > u->max_entries)
			return complain(
				"more than %lld entries: refused", (long long)u->max_entries);
		if (make_entry(u, e) < 0)
			return -1;
	}
	if (u->entries == 0)
		return complain("the archive is empty");
	return 0;
}

static struct archive *open_archive(int fd)
{
	struct archive *a = archive_read_new();
	if (!a)
		return NULL;
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_tar(a);
	archive_read_support_format_zip(a);
	if (archive_read_open_fd(a, fd, 65536) != ARCHIVE_OK) {
		complain("not a tar (plain, gzip, zstd) or zip archive: %s",
			archive_error_string(a));
		archive_read_free(a);
		return NULL;
	}
	return a;
}

int main(int argc, char **argv)
{
	struct unpack u = {0};
	struct stat st;
	const char *what;
	int confined = 0;
	if (argc != 5) {
		fprintf(stderr, "usage: baton-unpack ARCHIVE DIR MAX_BYTES MAX_ENTRIES\n");
		return 2;
	}
	close_range(3, ~0u, 0);
	signal(SIGXFSZ, SIG_IGN); /* EFBIG instead */
	setlocale(LC_ALL, "C.UTF-8");
	umask(022);
	u.max_bytes = strtoll(argv[3], NULL, 10);
	u.max_entries = strtoll(argv[4], NULL, 10);
	int fd = open(argv[1], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	u.root = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || u.root < 0 || fstat(fd, &st) < 0) {
		complain("open %s: %s", fd < 0 ? argv[1] : argv[2], strerror(errno));
		return 1;
	}
	u.packed = st.st_size;
	if (bt_unpack_confine(u.root, u.max_bytes, &confined, &what) < 0) {
		complain("%s: %s", what, strerror(errno));
		return 1;
	}
	if (!confined) {
		complain("this kernel has no Landlock (Linux 5.19 or newer), and only root can use "
			 "chroot instead: archives cannot be unpacked safely here");
		return 1;
	}
	u.a = open_archive(fd);
	int r = u.a ? unpack(&u) : -1;
	if (u.a)
		archive_read_free(u.a);
	/* Not by exit: a leak checker would look at files that are out of reach by now. */
	_exit(r < 0 ? 1 : 0);
}
