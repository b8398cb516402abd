/* Rotation of a file that somebody else has open for appending and never reopens.
 *
 * The head is copied aside to path.1, then cut off the file with FALLOC_FL_COLLAPSE_RANGE: the app
 * goes on appending to the same file all the while and not a byte is lost (ext4, XFS). Where the
 * file system cannot do that (tmpfs, btrfs), everything is copied and the file truncated; only
 * there, what is written between the last read and the truncation is lost (microseconds).
 * The rename and the cut happen under an exclusive flock, so that a reader who holds a shared one
 * sees either both or neither (driver/log_tail.c). The lock is on a descriptor that the app does
 * not inherit: it goes with the shim. */
#include "shim/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096

int bt_shim_log_open(struct bt_shim_log *log, const char *path, int64_t max_bytes, int64_t keep)
{
	int n = snprintf(log->path, sizeof log->path, "%s", path);
	if (n < 0 || (size_t)n >= sizeof log->path)
		return -ENAMETOOLONG;
	log->max_bytes = max_bytes;
	log->keep = keep;
	log->rotate_fd = -1;
	log->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (log->fd < 0)
		return -errno;
	log->rotate_fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	return log->rotate_fd < 0 ? -errno : 0;
}

/* Copies [from, to) of the log to the end of fd. */
static int copy_range(int in, int out, int64_t from, int64_t to)
{
	char buf[65536];
	while (from < to) {
		size_t want = to - from < (int64_t)sizeof buf ? (size_t)(to - from) : sizeof buf;
		ssize_t n = pread(in, buf, want, from);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		for (ssize_t done = 0, w; done < n; done += w) {
			w = write(out, buf + done, (size_t)(n - done));
			if (w < 0)
				return -errno;
		}
		from += n;
	}
	return 0;
}

static void shift(const struct bt_shim_log *log)
{
	char from[4096], to[4096];
	for (int64_t i = log->keep; i > 1; i--) {
		snprintf(from, sizeof from, "%s.%lld", log->path, (long long)i - 1);
		snprintf(to, sizeof to, "%s.%lld", log->path, (long long)i);
		rename(from, to); /* the oldest is replaced; gaps are fine */
	}
}

static int64_t size_of(int fd)
{
	struct stat st;
	return fstat(fd, &st) < 0 ? -errno : st.st_size;
}

/* The rest of a file that cannot be collapsed: copied until nothing is new, then cut. */
static int cut_by_truncation(struct bt_shim_log *log, int out, int64_t copied)
{
	for (;;) {
		int64_t size = size_of(log->rotate_fd);
		if (size < 0)
			return (int)size;
		if (size <= copied)
			break;
		int r = copy_range(log->rotate_fd, out, copied, size);
		if (r < 0)
			return r;
		copied = size;
	}
	return ftruncate(log->rotate_fd, 0) < 0 ? -errno : 0;
}

static int rotate_to(struct bt_shim_log *log, int out, const char *aside, const char *first)
{
	int64_t size = size_of(log->rotate_fd);
	if (size < 0)
		return (int)size;
	int64_t head = (size - 1) / BLOCK * BLOCK;
	int r = head > 0 ? copy_range(log->rotate_fd, out, 0, head) : 0;
	if (r < 0)
		return r;
	while (flock(log->rotate_fd, LOCK_EX) < 0 && errno == EINTR)
		;
	if (head == 0 || fallocate(log->rotate_fd, FALLOC_FL_COLLAPSE_RANGE, 0, head) < 0)
		r = cut_by_truncation(log, out, head);
	if (r == 0) {
		shift(log);
		if (log->keep > 0 && rename(aside, first) < 0)
			r = -errno;
	}
	flock(log->rotate_fd, LOCK_UN);
	return r;
}

int bt_shim_log_check(struct bt_shim_log *log)
{
	char aside[4096], first[4096];
	int64_t size = size_of(log->rotate_fd);
	if (size < 0)
		return (int)size;
	if (log->max_bytes <= 0 || size <= log->max_bytes)
		return 0;
	snprintf(aside, sizeof aside, "%s.new", log->path);
	snprintf(first, sizeof first, "%s.1", log->path);
	const char *to = log->keep > 0 ? aside : "/dev/null";
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640);
	if (out < 0)
		return -errno;
	int r = rotate_to(log, out, aside, first);
	close(out);
	if (r < 0 && log->keep > 0)
		unlink(aside);
	return r < 0 ? r : 1;
}

void bt_shim_log_line(struct bt_shim_log *log, const char *text)
{
	char line[512], when[32] = "";
	struct timespec t;
	struct tm tm;
	clock_gettime(CLOCK_REALTIME, &t);
	gmtime_r(&t.tv_sec, &tm);
	strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
	int n = snprintf(
		line, sizeof line, "%s.%03ldZ baton: %s\n", when, t.tv_nsec / 1000000, text);
	if (n >= (int)sizeof line) {
		n = sizeof line - 1;
		line[n - 1] = '\n';
	}
	if (log->fd >= 0 && write(log->fd, line, (size_t)n) < 0) {
		/* a full disk: the status carries the same words */
	}
}
