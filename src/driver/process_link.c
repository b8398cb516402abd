/* The driver's end of a shim's socket. */
#include "driver/process.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int bt_process_connect(const char *dir)
{
	/* sun_path holds 108 bytes, and state directories are longer: the way goes through the
	 * directory's descriptor. */
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	BT_CLOSE int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return -errno;
	snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/sock", at);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	struct bt_shim_request rq = {.op = BT_SHIM_OP_SUBSCRIBE};
	int r = connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -errno
								 : bt_process_send(fd, &rq);
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

int bt_process_send(int fd, const struct bt_shim_request *rq)
{
	char buf[BT_SHIM_MESSAGE_MAX];
	struct bt_record_out out = {buf, 0, sizeof buf, false};
	int r = bt_shim_request_write(rq, &out);
	if (r < 0)
		return r;
	return send(fd, out.data, out.len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int bt_process_receive(int fd, struct bt_shim_status *ret)
{
	char buf[BT_SHIM_MESSAGE_MAX], why[128];
	ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	return bt_shim_status_parse(buf, (size_t)n, ret, why, sizeof why) < 0 ? -EPIPE : 1;
}
