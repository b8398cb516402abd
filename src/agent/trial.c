/* Between two programs: this process has let go of everything an agent holds, and stays the one
 * that systemd knows. */
#include "agent/upgrade_priv.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIAL_ENV "BATON_UPGRADE_TRIAL"
#define FAILED_ENV "BATON_UPGRADE_FAILED"
#define HELLO_WITHIN_MS 30000
#define END_WITHIN_MS 10000
#define ARGS_MAX 65536

static struct bt_upgrade_start started = {.trial_fd = -1};

const struct bt_upgrade_start *bt_upgrade_started(void)
{
	static bool read_it;
	const char *fd = getenv(TRIAL_ENV), *failed = getenv(FAILED_ENV);
	int64_t n;
	if (read_it)
		return &started;
	read_it = true;
	if (fd && bt_int_parse(fd, 3, 1 << 20, &n, NULL) == 0)
		started.trial_fd = (int)n;
	started.failed = failed && *failed ? bt_strdup(failed) : NULL;
	unsetenv(TRIAL_ENV);
	unsetenv(FAILED_ENV);
	return &started;
}

void bt_upgrade_came_up(void)
{
	if (started.trial_fd < 0)
		return;
	if (write(started.trial_fd, "ok", 2) < 0)
		return; /* the old one is gone: this one goes on as it is */
	close(started.trial_fd);
	started.trial_fd = -1;
}

/* The arguments that this process was started with, for the next one. NULL-terminated; lives as
 * long as the process does, which is not long. */
static char **own_args(void)
{
	BT_FREE char *text = NULL;
	size_t n = 0, count = 0;
	char **argv = bt_calloc(64, sizeof *argv);
	if (bt_fs_read("/proc/self/cmdline", ARGS_MAX, &text, &n, NULL) < 0)
		return argv;
	for (size_t at = 0; at < n && count < 63; at += strlen(text + at) + 1)
		argv[count++] = bt_strdup(text + at);
	return argv;
}

static pid_t start_trial(const char *program, char **argv, int fd)
{
	/* Made before the fork: after it nothing may allocate, since another thread may hold the
	 * allocator. */
	size_t n = 0;
	while (environ[n])
		n++;
	BT_FREE char *trial = bt_asprintf("%s=%d", TRIAL_ENV, fd);
	BT_FREE char **env = bt_calloc(n + 2, sizeof *env);
	memcpy(env, environ, n * sizeof *env);
	env[n] = trial;
	pid_t parent = getpid(), pid = fork();
	if (pid != 0)
		return pid;
	/* Whoever stops this service stops the trial with it. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	execve(program, argv, env);
	_exit(127);
}

/* 0: it said hello. *pid becomes 0 when it has ended. What it says on stderr is in the log of the
 * service. */
static int watch_trial(pid_t *pid, int fd, struct bt_err *err)
{
	int64_t until = bt_clock_boot_ms() + HELLO_WITHIN_MS;
	char word[8];
	for (;;) {
		int64_t left = until - bt_clock_boot_ms();
		struct pollfd p = {fd, POLLIN, 0};
		int n = left > 0 ? poll(&p, 1, (int)left) : 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return bt_err_set(err, BT_E_TIMEOUT,
				"the new agent (pid %d) did not reach its server within %d s",
				(int)*pid, HELLO_WITHIN_MS / 1000);
		if (read(fd, word, sizeof word) == 2)
			return 0;
		int status = 0; /* its end of the pipe is closed: it is on its way out */
		bool reaped = waitpid(*pid, &status, 0) == *pid;
		*pid = 0;
		if (reaped && WIFEXITED(status))
			return bt_err_set(err, BT_E_FAILED, "the new agent ended with exit code %d",
				WEXITSTATUS(status));
		return bt_err_set(err, BT_E_FAILED, "the new agent ended before it said hello");
	}
}

static void end_trial(pid_t pid)
{
	int64_t until = bt_clock_boot_ms() + END_WITHIN_MS;
	kill(pid, SIGTERM);
	while (waitpid(pid, NULL, WNOHANG) == 0) {
		if (bt_clock_boot_ms() > until)
			kill(pid, SIGKILL);
		poll(NULL, 0, 10);
	}
}

static int try_new(struct bt_upgrade *u, char **argv, struct bt_err *err)
{
	int fds[2];
	if (pipe(fds) < 0)
		return bt_err_errno(err, errno, "pipe");
	pid_t pid = start_trial(bt_upgrade_new(u), argv, fds[1]);
	close(fds[1]);
	int r = pid < 0 ? bt_err_errno(err, errno, "start %s", bt_upgrade_new(u))
			: watch_trial(&pid, fds[0], err);
	close(fds[0]);
	if (pid > 0)
		end_trial(pid);
	return r == 0 ? bt_upgrade_into_place(u, err) : r;
}

void bt_upgrade_finish(struct bt_upgrade *u)
{
	struct bt_err err = {0};
	char **argv = own_args();
	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	signal(SIGPIPE, SIG_IGN);
	if (try_new(u, argv, &err) < 0)
		setenv(FAILED_ENV, err.text, 1);
	BT_FREE char *self = bt_strdup(bt_upgrade_self(u));
	bt_upgrade_free(u);
	execv(self, argv);
}
