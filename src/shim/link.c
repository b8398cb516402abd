#include "shim/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int bt_link_open(struct bt_link *l, const char *name)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	*l = (struct bt_link){.listener = -1};
	snprintf(a.sun_path, sizeof a.sun_path, "%s", name);
	unlink(name); /* the caller holds the instance's lock: it is a dead shim's */
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	mode_t old = umask(0177);
	int r = bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 16) < 0 ? -errno : 0;
	umask(old);
	if (r < 0) {
		close(fd);
		return r;
	}
	l->listener = fd;
	return 0;
}

size_t bt_link_poll(const struct bt_link *l, struct pollfd *fds)
{
	fds[0] = (struct pollfd){l->listener, POLLIN, 0};
	for (size_t i = 0; i < l->n; i++)
		fds[i + 1] = (struct pollfd){l->clients[i].fd, POLLIN, 0};
	return l->n + 1;
}

static int send_status(int fd, const struct bt_shim_status *status)
{
	char buf[BT_SHIM_MESSAGE_MAX];
	struct bt_record_out out = {buf, 0, sizeof buf, false};
	if (bt_shim_status_write(status, &out) < 0)
		return -EMSGSIZE;
	return send(fd, out.data, out.len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void drop(struct bt_link *l, int fd)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->clients[i].fd == fd) {
			close(fd);
			l->clients[i] = l->clients[--l->n];
			return;
		}
}

void bt_link_publish(struct bt_link *l, const struct bt_shim_status *status)
{
	/* Backwards, since a client that does not read is dropped on the way. */
	for (size_t i = l->n; i-- > 0;)
		if (l->clients[i].subscribed && send_status(l->clients[i].fd, status) < 0)
			drop(l, l->clients[i].fd);
}

static void accept_one(struct bt_link *l)
{
	int fd = accept4(l->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	struct ucred peer;
	socklen_t n = sizeof peer;
	if (l->n == BT_LINK_CLIENTS || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0 ||
		(peer.uid != 0 && peer.uid != geteuid())) {
		close(fd);
		return;
	}
	l->clients[l->n].fd = fd;
	l->clients[l->n++].subscribed = false;
}

static void set_subscribed(struct bt_link *l, int fd)
{
	for (size_t i = 0; i < l->n; i++)
		if (l->clients[i].fd == fd)
			l->clients[i].subscribed = true;
}

void bt_link_serve(struct bt_link *l, const struct pollfd *fds, size_t n,
	void (*on_request)(void *arg, const struct bt_shim_request *rq),
	const struct bt_shim_status *status, void *arg)
{
	for (size_t i = 1; i < n; i++) {
		char buf[BT_SHIM_MESSAGE_MAX], why[128];
		struct bt_shim_request rq;
		if (!fds[i].revents)
			continue;
		ssize_t got = recv(fds[i].fd, buf, sizeof buf, MSG_DONTWAIT);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (got <= 0 || bt_shim_request_parse(buf, (size_t)got, &rq, why, sizeof why) < 0) {
			drop(l, fds[i].fd);
			continue;
		}
		if (rq.op == BT_SHIM_OP_SUBSCRIBE)
			set_subscribed(l, fds[i].fd);
		on_request(arg, &rq);
		if (rq.op != BT_SHIM_OP_STOP && send_status(fds[i].fd, status) < 0)
			drop(l, fds[i].fd);
	}
	if (fds[0].revents)
		accept_one(l);
}
