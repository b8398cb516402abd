/* Starting the app, and making sure that nothing of it is left.
 *
 * Own child: the shim is a child subreaper, so whatever the app starts and abandons becomes the
 * shim's direct child. Only three things are ever signalled: the group while its leader is alive
 * or an unreaped zombie, and direct children, which cannot be replaced before they are reaped.
 * Adopted app: processes are found by the marker in their environment (or the app's session) and
 * signalled by a pidfd that was taken before the check. So no pid is ever guessed. */
#include "shim/app.h"

#include "shim/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum step {
	STEP_SETUP,
	STEP_LIMIT,
	STEP_USER,
	STEP_DIR,
	STEP_EXEC,
	STEP_INTERPRETER,
	STEP_RETURN,
};
struct failure {
	int step, error;
};

static void child_fail(int fd, int step)
{
	struct failure f = {step, errno};
	if (write(fd, &f, sizeof f) < 0) {
		/* the shim is gone */
	}
	_exit(127);
}

static void become_user(const struct bt_shim_spec *s, int fd)
{
	if (s->gid >= 0 && (setgroups(s->n_groups, s->groups) < 0 ||
				   setresgid((gid_t)s->gid, (gid_t)s->gid, (gid_t)s->gid) < 0))
		child_fail(fd, STEP_USER);
	if (s->uid >= 0 && setresuid((uid_t)s->uid, (uid_t)s->uid, (uid_t)s->uid) < 0)
		child_fail(fd, STEP_USER);
}

/* The agent may be protected from the kernel's out-of-memory choice; its apps are not. */
static void give_up_oom_protection(void)
{
	char text[16];
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t n = read(fd, text, sizeof text - 1);
	text[n > 0 ? n : 0] = 0;
	if (atoi(text) < 0 && pwrite(fd, "0", 1, 0) < 0) {
		/* raising it is always allowed; if not, it is no reason not to start */
	}
	close(fd);
}

static bool has_return(const char *path)
{
	char line[256];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, sizeof line - 1);
	line[n > 0 ? n : 0] = 0;
	char *end = strchr(line, '\n');
	return end > line && end[-1] == '\r';
}

static void child_main(const struct bt_shim_spec *s, int log_fd, int go, int fd)
{
	sigset_t none;
	char byte;
	sigemptyset(&none);
	for (int i = 1; i < 32; i++)
		signal(i, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (setsid() < 0 || null < 0 || dup2(null, 0) < 0 || dup2(log_fd, 1) < 0 ||
		dup2(log_fd, 2) < 0)
		child_fail(fd, STEP_SETUP);
	umask(022);
	give_up_oom_protection();
	for (size_t i = 0; i < s->n_limits; i++) {
		rlim_t v = (rlim_t)s->limits[i].value;
		if (setrlimit((__rlimit_resource_t)s->limits[i].resource, &(struct rlimit){v, v}) <
			0)
			child_fail(fd, STEP_LIMIT);
	}
	become_user(s, fd);
	if (chdir(s->dir) < 0)
		child_fail(fd, STEP_DIR);
	/* Without the word of a living shim nothing is started. */
	if (read(go, &byte, 1) != 1)
		_exit(127);
	environ = (char **)s->env;
	execvp(s->argv[0], (char **)s->argv);
	/* A file that is there and is "not found": what its first line names is not. */
	int error = errno;
	bool script = error == ENOENT && strchr(s->argv[0], '/') && access(s->argv[0], F_OK) == 0;
	bool carriage_return = script && has_return(s->argv[0]);
	errno = error;
	child_fail(fd, carriage_return ? STEP_RETURN : script ? STEP_INTERPRETER : STEP_EXEC);
}

int bt_app_fork(const struct bt_shim_spec *spec, const struct bt_shim_log *log, struct bt_app *app,
	struct bt_app_launch *launch)
{
	int go[2], failed[2];
	struct bt_proc_stat st;
	if (pipe2(go, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(failed, O_CLOEXEC) < 0) {
		int saved = errno;
		close(go[0]);
		close(go[1]);
		return -saved;
	}
	pid_t pid = fork();
	if (pid == 0) {
		close(go[1]);
		child_main(spec, log->fd, go[0], failed[1]);
	}
	int r = pid < 0 ? -errno : bt_proc_stat(pid, &st);
	close(go[0]);
	close(failed[1]);
	if (r < 0) {
		close(go[1]); /* a child that was made reads the end and exits */
		close(failed[0]);
		if (pid > 0)
			waitpid(pid, NULL, 0);
		return r;
	}
	*app = (struct bt_app){
		.pid = pid, .start_ticks = st.start_ticks, .child = true, .pidfd = -1, .code = -1};
	*launch = (struct bt_app_launch){go[1], failed[0]};
	return 0;
}

static const char *describe_failure(
	const struct failure *f, const struct bt_shim_spec *s, char *why, size_t n)
{
	const char *error = strerror(f->error);
	switch ((enum step)f->step) {
	case STEP_SETUP:
		snprintf(why, n, "prepare the process: %s", error);
		break;
	case STEP_LIMIT:
		snprintf(why, n, "set a limit: %s", error);
		break;
	case STEP_USER:
		snprintf(why, n, "become user %lld: %s", (long long)s->uid, error);
		break;
	case STEP_DIR:
		snprintf(why, n, "enter working directory %.150s: %s", s->dir, error);
		break;
	case STEP_EXEC:
		snprintf(why, n, "run %.150s: %s", s->argv[0], error);
		break;
	case STEP_INTERPRETER:
		snprintf(why, n,
			"run %.150s: its interpreter is missing on this host (its first line, #!, "
			"names it)",
			s->argv[0]);
		break;
	case STEP_RETURN:
		snprintf(why, n,
			"run %.150s: its first line ends with a carriage return, which is part of "
			"the interpreter's name: save it with Unix line ends",
			s->argv[0]);
		break;
	}
	return why;
}

int bt_app_go(struct bt_app *app, struct bt_app_launch *launch, const struct bt_shim_spec *spec,
	char *why, size_t why_n)
{
	struct failure f;
	ssize_t n;
	signal(SIGPIPE, SIG_IGN);
	if (write(launch->go, "g", 1) < 0) {
		/* it failed before: the other pipe says how */
	}
	close(launch->go);
	do
		n = read(launch->failed, &f, sizeof f);
	while (n < 0 && errno == EINTR);
	close(launch->failed);
	if (n != sizeof f)
		return 0;
	waitpid(app->pid, NULL, 0);
	*app = (struct bt_app){.pidfd = -1};
	describe_failure(&f, spec, why, why_n);
	return f.error > 0 ? -f.error : -EIO;
}

int bt_app_adopt(struct bt_app *app, pid_t pid, int64_t start_ticks, const char *boot_id)
{
	struct bt_proc_stat st;
	int fd = bt_proc_open(pid, start_ticks, boot_id);
	if (fd < 0)
		return fd;
	if (bt_proc_stat(pid, &st) < 0 || st.state == 'Z') {
		close(fd);
		return -ESRCH;
	}
	*app = (struct bt_app){.pid = pid, .start_ticks = start_ticks, .pidfd = fd, .code = -1};
	return 0;
}

static void note_end(struct bt_app *app, const siginfo_t *si)
{
	app->ended = true;
	app->code = si->si_code == CLD_EXITED ? si->si_status : -1;
	app->signal = si->si_code == CLD_EXITED ? 0 : si->si_status;
}

struct scan {
	pid_t self;
	const struct bt_app *app;
	const char *marker; /* NULL: direct children only */
	int sig;	    /* 0: none */
	struct bt_app *told;
	char *name;
	size_t name_n;
};

/* Direct children apart from the app itself. */
static bool is_ours_child(const struct scan *s, pid_t pid, const struct bt_proc_stat *st)
{
	return st->ppid == s->self && pid != s->app->pid;
}

static bool reap_one(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	struct scan *s = arg;
	if (is_ours_child(s, pid, st) && st->state == 'Z')
		waitpid(pid, NULL, WNOHANG);
	return false;
}

bool bt_app_collect(struct bt_app *app)
{
	bool was = app->ended;
	for (;;) {
		siginfo_t si = {0};
		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0)
			break;
		if (!app->child || si.si_pid != app->pid) {
			waitpid(si.si_pid, NULL, WNOHANG);
			continue;
		}
		note_end(app, &si);
		/* The zombie hides the others from waitid. */
		struct scan s = {.self = getpid(), .app = app};
		bt_proc_each(reap_one, &s);
		break;
	}
	if (!app->child && app->pid && !bt_proc_alive(app->pidfd))
		app->ended = true;
	return app->ended && !was;
}

static bool tell_once(struct bt_app *app, pid_t pid)
{
	for (size_t i = 0; i < app->n_told; i++)
		if (app->told[i] == pid)
			return false;
	if (app->n_told < sizeof app->told / sizeof app->told[0])
		app->told[app->n_told++] = pid;
	return true;
}

static bool signal_child(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	struct scan *s = arg;
	if (!is_ours_child(s, pid, st) || st->state == 'Z' || st->pgid == s->app->pid)
		return false;
	if (s->sig == SIGKILL || tell_once(s->told, pid))
		kill(pid, s->sig);
	return false;
}

/* A pidfd of the process when it belongs to the instance, else -1. */
static int open_marked(const struct scan *s, pid_t pid, const struct bt_proc_stat *st)
{
	struct bt_proc_stat leader;
	if (pid == s->self || st->state == 'Z' || pid <= 1)
		return -1;
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -1;
	bool ours = bt_proc_has_env(pid, s->marker);
	if (!ours && s->app && s->app->pid && st->sid == s->app->pid) {
		/* Its session's number is the app's as long as no other process has that pid. */
		int r = bt_proc_stat(s->app->pid, &leader);
		ours = r == -ESRCH || (r == 0 && leader.start_ticks == s->app->start_ticks);
	}
	if (ours && bt_proc_alive(fd))
		return fd;
	close(fd);
	return -1;
}

static bool signal_marked(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	struct scan *s = arg;
	int fd = open_marked(s, pid, st);
	if (fd < 0)
		return false;
	if (s->sig == SIGKILL || !s->told || tell_once(s->told, pid))
		bt_proc_signal(fd, s->sig);
	close(fd);
	return false;
}

void bt_app_signal_group(struct bt_app *app, int sig)
{
	/* Of an adopted app nobody holds the group's number once it has ended. */
	if (app->pid && (app->child || !app->ended))
		kill(-app->pid, sig);
}

static bool in_group(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	const struct bt_app *app = arg;
	return st->pgid == app->pid && pid != app->pid && st->state != 'Z';
}

bool bt_app_group_left(const struct bt_app *app)
{
	return app->pid && app->child && bt_proc_each(in_group, (void *)app);
}

struct writer {
	const struct bt_app *app;
	struct stat file;
	char *name;
	size_t n;
};

/* The mode of /proc/PID/fd/N tells how it was opened: who only reads the file is no writer. */
static bool writes(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	struct writer *w = arg;
	char path[48];
	struct stat fd, file;
	bool found = false;
	if (pid == w->app->pid || pid == getpid() || st->state == 'Z' ||
		st->start_ticks < w->app->start_ticks)
		return false;
	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	DIR *d = opendir(path);
	for (struct dirent *e; d && !found && (e = readdir(d));)
		found = e->d_name[0] != '.' &&
			fstatat(dirfd(d), e->d_name, &fd, AT_SYMLINK_NOFOLLOW) == 0 &&
			(fd.st_mode & S_IWUSR) && fstatat(dirfd(d), e->d_name, &file, 0) == 0 &&
			file.st_dev == w->file.st_dev && file.st_ino == w->file.st_ino;
	if (d)
		closedir(d);
	if (found)
		snprintf(w->name, w->n, "%s (pid %d)", st->name, (int)pid);
	return found;
}

bool bt_app_writes(const struct bt_app *app, int fd, char *name, size_t n)
{
	struct writer w = {.app = app, .name = name, .n = n};
	return fstat(fd, &w.file) == 0 && bt_proc_each(writes, &w);
}

static const char *marker_of(const struct bt_shim_spec *spec, char *buf, size_t n)
{
	snprintf(buf, n, BT_SHIM_MARKER_ENV "=%s", spec->marker);
	return buf;
}

void bt_app_new_step(struct bt_app *app)
{
	app->n_told = 0;
}

void bt_app_signal(struct bt_app *app, const struct bt_shim_spec *spec, int sig)
{
	char marker[256];
	struct scan s = {.self = getpid(), .app = app, .sig = sig, .told = app};
	if (app->child) {
		if (sig == SIGKILL || tell_once(app, app->pid))
			kill(-app->pid, sig);
		bt_proc_each(signal_child, &s);
		return;
	}
	s.marker = marker_of(spec, marker, sizeof marker);
	bt_proc_each(signal_marked, &s);
}

static bool name_it(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	struct scan *s = arg;
	if (s->marker) {
		int fd = open_marked(s, pid, st);
		if (fd < 0)
			return false;
		close(fd);
	} else if (!is_ours_child(s, pid, st) && !(pid == s->app->pid && st->state != 'Z') &&
		   st->pgid != s->app->pid) {
		return false;
	} else if (st->state == 'Z') {
		return false;
	}
	snprintf(s->name, s->name_n, "%s (pid %d)", st->name, (int)pid);
	return true;
}

bool bt_app_left(const struct bt_app *app, const struct bt_shim_spec *spec, char *name, size_t n)
{
	char marker[256];
	if (!app->pid)
		return false;
	struct scan s = {.self = getpid(), .app = app, .name = name, .name_n = n};
	if (!app->child)
		s.marker = marker_of(spec, marker, sizeof marker);
	return bt_proc_each(name_it, &s);
}

void bt_app_reap(struct bt_app *app)
{
	if (app->child && app->pid)
		waitpid(app->pid, NULL, WNOHANG);
	if (app->pidfd >= 0)
		close(app->pidfd);
	*app = (struct bt_app){.pidfd = -1, .code = -1};
}

void bt_app_kill_leftovers(const struct bt_shim_spec *spec)
{
	char marker[256], name[64];
	struct scan s = {.self = getpid(), .sig = SIGKILL, .name = name, .name_n = sizeof name};
	s.marker = marker_of(spec, marker, sizeof marker);
	/* Twice, since a process may fork while the list is read; the kernel needs a moment to end
	 * them, which is what the second look finds. */
	for (int i = 0; i < 200 && bt_proc_each(name_it, &s); i++) {
		bt_proc_each(signal_marked, &s);
		poll(NULL, 0, 5);
	}
}
