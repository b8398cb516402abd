#include "shim/proc.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PF_KTHREAD 0x00200000u /* the kernel's linux/sched.h: it has no environment */
#define EXEC_LOOKS 5

static int read_small(const char *path, char *buf, size_t n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t r = read(fd, buf, n - 1);
	int saved = errno;
	close(fd);
	if (r < 0)
		return -saved;
	buf[r] = 0;
	return 0;
}

int bt_proc_stat(pid_t pid, struct bt_proc_stat *ret)
{
	char path[48], buf[1024];
	struct bt_proc_stat s = {0};
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	int r = read_small(path, buf, sizeof buf);
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	/* The name may hold anything, also ") ": the last parenthesis ends it. */
	char *open_ = strchr(buf, '('), *close_ = strrchr(buf, ')');
	if (!open_ || !close_ || close_ < open_)
		return -EBADMSG;
	snprintf(s.name, sizeof s.name, "%.*s", (int)(close_ - open_ - 1), open_ + 1);
	long long start;
	unsigned flags;
	int n = sscanf(close_ + 1,
		" %c %d %d %d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %lld",
		&s.state, &s.ppid, &s.pgid, &s.sid, &flags, &start);
	if (n != 6)
		return -EBADMSG;
	s.kernel = flags & PF_KTHREAD;
	s.start_ticks = start;
	*ret = s;
	return 0;
}

int bt_proc_boot_id(char *buf, size_t n)
{
	int r = read_small("/proc/sys/kernel/random/boot_id", buf, n);
	if (r == 0)
		buf[strcspn(buf, "\n")] = 0;
	return r;
}

bool bt_proc_alive(int pidfd)
{
	struct pollfd p = {pidfd, POLLIN, 0};
	return poll(&p, 1, 0) == 0; /* readable once it ended */
}

int bt_proc_signal(int pidfd, int sig)
{
	return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int bt_proc_open(pid_t pid, int64_t start_ticks, const char *boot_id)
{
	char now[64];
	struct bt_proc_stat st;
	if (pid <= 1 || start_ticks <= 0)
		return -ESRCH;
	int r = bt_proc_boot_id(now, sizeof now);
	if (r < 0)
		return r;
	if (strcmp(now, boot_id) != 0)
		return -ESRCH;
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -errno;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	/* The pidfd is taken first: what is read of the pid while the pidfd's process lives is
	 * about that process. */
	r = bt_proc_stat(pid, &st);
	if (r == 0 && (st.start_ticks != start_ticks || !bt_proc_alive(fd)))
		r = -ESRCH;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* -1: the process showed no environment at all. */
static int look_for_env(pid_t pid, const char *assignment)
{
	char path[48];
	char buf[65536];
	size_t want = strlen(assignment) + 1, kept = 0; /* with its NUL */
	snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	int found = -1;
	for (ssize_t n; found <= 0 && (n = read(fd, buf + kept, sizeof buf - kept)) > 0;) {
		size_t len = kept + (size_t)n;
		found = memmem(buf, len, assignment, want) != NULL;
		kept = len < want ? len : want;
		memmove(buf, buf + len - kept, kept);
	}
	close(fd);
	return found;
}

bool bt_proc_has_env(pid_t pid, const char *assignment)
{
	/* In the middle of its exec a process shows none for a moment. */
	for (int i = 0; i < EXEC_LOOKS; i++) {
		struct bt_proc_stat st;
		int found = look_for_env(pid, assignment);
		if (found >= 0)
			return found;
		if (bt_proc_stat(pid, &st) < 0 || st.state == 'Z' || st.kernel)
			return false;
		poll(NULL, 0, 1);
	}
	return false;
}

bool bt_proc_each(bool (*fn)(void *arg, pid_t pid, const struct bt_proc_stat *st), void *arg)
{
	DIR *d = opendir("/proc");
	if (!d)
		return false;
	bool found = false;
	for (struct dirent *e; !found && (e = readdir(d));) {
		struct bt_proc_stat st;
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		pid_t pid = atoi(e->d_name);
		if (bt_proc_stat(pid, &st) == 0)
			found = fn(arg, pid, &st);
	}
	closedir(d);
	return found;
}
