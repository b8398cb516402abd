/* When a master is killed its workers serve on, and hold the listening sockets, so that a new
 * nginx could not start beside them. Their sockets are handed to the new one instead. */
#include "driver/nginx_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct file_search {
	const char *path;
	bool found;
};

static void on_file_fd(void *arg, int fd, const char *target)
{
	struct file_search *s = arg;
	(void)fd;
	s->found = s->found || !strcmp(target, s->path);
}

struct orphans {
	const char *open_file;
	struct bt_nginx_proc *list;
	size_t n;
};

static void on_orphan(void *arg, const struct bt_nginx_proc *p, pid_t parent)
{
	struct orphans *o = arg;
	struct file_search s = {.path = o->open_file};
	BT_FREE char *title = bt_nginx_title(p->pid), *parent_title = NULL;
	if (!title || !bt_str_starts(title, "nginx: worker process"))
		return;
	parent_title = bt_nginx_title(parent);
	if (parent_title && bt_str_starts(parent_title, "nginx: master process"))
		return;
	if (bt_nginx_each_fd(p->pid, on_file_fd, &s) && s.found)
		bt_nginx_proc_add(&o->list, &o->n, *p);
}

size_t bt_nginx_orphans(const char *open_file, struct bt_nginx_proc **ret)
{
	struct orphans o = {.open_file = open_file};
	BT_FREE char *real = realpath(open_file, NULL);
	if (real)
		o.open_file = real;
	bt_nginx_each_process(on_orphan, &o);
	*ret = o.list;
	return o.n;
}

struct listening {
	struct bt_inodes held;
	int fds[64];
	size_t n;
};

static void on_listening(void *arg, const struct bt_tcp_socket *row)
{
	struct listening *l = arg;
	const struct bt_inode_fd *f =
		row->state == TCP_IS_LISTEN ? bt_inodes_find(&l->held, row->inode) : NULL;
	if (f && l->n < BT_ARRAY_LEN(l->fds))
		l->fds[l->n++] = f->fd;
}

/* Copies the orphan's listening sockets into this process, close-on-exec. */
static int take_listening(
	const struct bt_nginx_proc *orphan, int fds[64], size_t *ret_n, struct bt_err *err)
{
	struct listening l = {0};
	BT_CLOSE int pidfd = (int)syscall(SYS_pidfd_open, orphan->pid, 0);
	if (pidfd < 0 || !bt_nginx_proc_alive(orphan))
		return bt_err_set(err, BT_E_NOTFOUND, "worker %d is gone", (int)orphan->pid);
	bt_inodes_add_sockets(&l.held, orphan->pid);
	int r = bt_tcp_each(orphan->pid, on_listening, &l, err);
	free(l.held.list);
	size_t n = 0;
	for (; r == 0 && n < l.n; n++) {
		fds[n] = (int)syscall(SYS_pidfd_getfd, pidfd, l.fds[n], 0);
		if (fds[n] < 0) {
			r = bt_err_errno(
				err, errno, "take the socket of worker %d", (int)orphan->pid);
			break;
		}
	}
	if (r == 0 && n == 0)
		r = bt_err_set(err, BT_E_NOTFOUND, "worker %d listens nowhere", (int)orphan->pid);
	if (r < 0) {
		while (n > 0)
			close(fds[--n]);
		return r;
	}
	*ret_n = n;
	return 0;
}

/* In the second child: everything prepared before the fork, only system calls here. */
static void exec_detached(
	const int *fds, size_t n, const char *const *argv, char *const *envp, int status_fd)
{
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
	}
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	for (size_t i = 0; i < n; i++)
		fcntl(fds[i], F_SETFD, 0);
	execvpe(argv[0], (char *const *)argv, envp);
	int e = errno;
	if (write(status_fd, &e, sizeof e) < 0) {
		/* the parent is gone */
	}
	_exit(127);
}

static int spawn_detached(const int *fds, size_t n, const char *const *argv, char *const *envp)
{
	int status[2], failed = 0;
	if (pipe2(status, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0) {
		setsid();
		if (fork() == 0)
			exec_detached(fds, n, argv, envp, status[1]);
		_exit(0);
	}
	int r = pid < 0 ? -errno : 0;
	close(status[1]);
	if (r == 0) {
		waitpid(pid, NULL, 0);
		if (read(status[0], &failed, sizeof failed) == sizeof failed)
			r = -failed;
	}
	close(status[0]);
	return r;
}

/* nginx takes over sockets that its environment names: "NGINX=5;6;" is how its own binary upgrade
 * works. Such a start does not go into the background by itself, hence the double fork. */
int bt_nginx_start_adopted(
	const struct bt_nginx_proc *orphan, const char *const *argv, struct bt_err *err)
{
	int fds[64];
	size_t n = 0, n_env = 0;
	int r = take_listening(orphan, fds, &n, err);
	if (r < 0)
		return r;
	BT_STR struct bt_str inherit = {0};
	bt_str_add(&inherit, "NGINX=");
	for (size_t i = 0; i < n; i++)
		bt_str_addf(&inherit, "%d;", fds[i]);
	while (environ[n_env])
		n_env++;
	BT_FREE char **envp = bt_calloc(n_env + 2, sizeof *envp);
	size_t k = 0;
	for (size_t i = 0; i < n_env; i++)
		if (!bt_str_starts(environ[i], "NGINX="))
			envp[k++] = environ[i];
	envp[k] = inherit.data;
	r = spawn_detached(fds, n, argv, envp);
	while (n > 0)
		close(fds[--n]);
	return r < 0 ? bt_err_errno(err, r, "start %s", argv[0]) : 0;
}
