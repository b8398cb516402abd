/* Children beside the loop. Their end is told by a pidfd, so no SIGCHLD handler is shared with
 * libraries and no pid is ever signalled after it was reaped. */
#include "base/fs.h"
#include "base/loop.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct bt_child {
	pid_t pid;
	int pidfd, out;
	struct event *exit_event, *out_event, *timer;
	size_t max_output;
	struct bt_str output;
	bool cut, timed_out;
	int status;
	void (*done)(void *, const struct bt_child_result *);
	void *arg;
};

static void child_free(struct bt_child *c)
{
	event_free(c->exit_event);
	event_free(c->timer);
	if (c->out_event)
		event_free(c->out_event);
	if (c->out >= 0)
		close(c->out);
	close(c->pidfd);
	bt_str_done(&c->output);
	free(c);
}

static void keep_tail(struct bt_child *c)
{
	if (c->output.len <= 2 * c->max_output)
		return;
	size_t drop = c->output.len - c->max_output;
	memmove(c->output.data, c->output.data + drop, c->max_output + 1);
	c->output.len = c->max_output;
	c->cut = true;
}

/* Reads what is there. false at the end of the stream. */
static bool drain_output(struct bt_child *c)
{
	char buf[8192];
	for (;;) {
		ssize_t n = read(c->out, buf, sizeof buf);
		if (n > 0) {
			bt_str_addn(&c->output, buf, (size_t)n);
			keep_tail(c);
			continue;
		}
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	}
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
	struct bt_child *c = arg;
	(void)fd;
	(void)what;
	if (!drain_output(c))
		event_del(c->out_event);
}

/* A grandchild may hold the pipe open: what counts is the child's own end. */
static void on_child_exit(evutil_socket_t fd, short what, void *arg)
{
	struct bt_child *c = arg;
	(void)fd;
	(void)what;
	siginfo_t info = {0};
	if (waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
		return;
	drain_output(c);
	if (c->timed_out) /* before it is reaped, so that the group's number is still ours */
		kill(-c->pid, SIGKILL);
	waitpid(c->pid, &c->status, 0);
	if (c->output.len > c->max_output) {
		size_t drop = c->output.len - c->max_output;
		memmove(c->output.data, c->output.data + drop, c->max_output + 1);
		c->output.len = c->max_output;
		c->cut = true;
	}
	struct bt_child_result r = {
		.exit_code = WIFEXITED(c->status) ? WEXITSTATUS(c->status) : -1,
		.signal = WIFSIGNALED(c->status) ? WTERMSIG(c->status) : 0,
		.timed_out = c->timed_out,
		.output = bt_str_get(&c->output),
		.output_len = c->output.len,
		.cut = c->cut,
	};
	void (*done)(void *, const struct bt_child_result *) = c->done;
	void *done_arg = c->arg;
	event_del(c->exit_event);
	done(done_arg, &r);
	child_free(c);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct bt_child *c = arg;
	(void)fd;
	(void)what;
	kill(-c->pid, c->timed_out ? SIGKILL : SIGTERM);
	if (!c->timed_out)
		bt_timer_in(c->timer, 2000);
	c->timed_out = true;
}

static void child_fail(int status_fd)
{
	int e = errno;
	if (write(status_fd, &e, sizeof e) < 0) {
		/* the parent is gone */
	}
	_exit(127);
}

static void child_main(const struct bt_child_spec *s, int in, int out, int status_fd)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (int i = 1; i < 32; i++)
		signal(i, SIG_DFL);
	setpgid(0, 0);
	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		child_fail(status_fd);
	if (s->gid != (gid_t)-1 && (setgroups(1, &s->gid) < 0 || setgid(s->gid) < 0))
		child_fail(status_fd);
	if (s->uid != (uid_t)-1 && setuid(s->uid) < 0)
		child_fail(status_fd);
	if (s->cwd && chdir(s->cwd) < 0)
		child_fail(status_fd);
	/* Libraries open descriptors of their own, not all of them close-on-exec. */
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	if (s->envp)
		execvpe(s->argv[0], (char *const *)s->argv, (char *const *)s->envp);
	else
		execvp(s->argv[0], (char *const *)s->argv);
	child_fail(status_fd);
}

static int open_input(const struct bt_child_spec *s)
{
	if (!s->input)
		return open("/dev/null", O_RDONLY | O_CLOEXEC);
	int fd = memfd_create("baton-input", MFD_CLOEXEC);
	if (fd >= 0 &&
		(bt_fs_write_all(fd, s->input, s->input_len) < 0 || lseek(fd, 0, SEEK_SET) < 0)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Forks and waits until the exec happened or failed (microseconds): 0 or -errno. */
static int spawn(const struct bt_child_spec *s, pid_t *ret_pid, int *ret_out)
{
	int out[2], status[2], failed = 0;
	BT_CLOSE int in = open_input(s);
	if (in < 0)
		return -errno;
	if (pipe2(out, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(status, O_CLOEXEC) < 0) {
		close(out[0]);
		close(out[1]);
		return -EMFILE;
	}
	pid_t pid = fork();
	if (pid == 0)
		child_main(s, in, out[1], status[1]);
	int r = pid < 0 ? -errno : 0;
	close(out[1]);
	close(status[1]);
	if (r == 0 && read(status[0], &failed, sizeof failed) == sizeof failed) {
		waitpid(pid, NULL, 0);
		r = -failed;
	}
	close(status[0]);
	if (r < 0) {
		close(out[0]);
		return r;
	}
	*ret_pid = pid;
	*ret_out = out[0];
	return 0;
}

int bt_child_start(struct event_base *base, const struct bt_child_spec *spec,
	void (*done)(void *arg, const struct bt_child_result *), void *arg, struct bt_child **ret,
	struct bt_err *err)
{
	pid_t pid = -1;
	int out = -1;
	int r = spawn(spec, &pid, &out);
	if (r < 0)
		return bt_err_errno(err, r, "run %s", spec->argv[0]);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		r = -errno;
		kill(-pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(out);
		return bt_err_errno(err, r, "watch %s", spec->argv[0]);
	}
	fcntl(pidfd, F_SETFD, FD_CLOEXEC);
	fcntl(out, F_SETFL, O_NONBLOCK);
	struct bt_child *c = bt_calloc(1, sizeof *c);
	c->pid = pid;
	c->pidfd = pidfd;
	c->out = out;
	c->max_output = spec->max_output ? spec->max_output : 65536;
	c->done = done;
	c->arg = arg;
	c->exit_event = event_new(base, pidfd, EV_READ | EV_PERSIST, on_child_exit, c);
	c->out_event = event_new(base, out, EV_READ | EV_PERSIST, on_output, c);
	c->timer = event_new(base, -1, 0, on_timeout, c);
	event_add(c->exit_event, NULL);
	event_add(c->out_event, NULL);
	if (spec->timeout_ms > 0) {
		bt_timer_in(c->timer, spec->timeout_ms);
	}
	*ret = c;
	return 0;
}

struct bt_child *bt_child_cancel(struct bt_child *c)
{
	if (!c)
		return NULL;
	kill(-c->pid, SIGKILL);
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
	child_free(c);
	return NULL;
}

const char *bt_child_describe(const struct bt_child_result *r, char *buf, size_t n)
{
	size_t end = r->output_len;
	while (end > 0 && (r->output[end - 1] == '\n' || r->output[end - 1] == ' '))
		end--;
	size_t start = end;
	while (start > 0 && r->output[start - 1] != '\n')
		start--;
	const char *how = r->timed_out ? "timed out" : r->signal ? "ended by signal" : "exit code";
	int number = r->timed_out ? 0 : r->signal ? r->signal : r->exit_code;
	int k = r->timed_out ? snprintf(buf, n, "%s", how) : snprintf(buf, n, "%s %d", how, number);
	if (end > start && (size_t)k < n)
		snprintf(buf + k, n - (size_t)k, ": %.*s", (int)(end - start), r->output + start);
	return buf;
}
