/* One question to haproxy's runtime API. A connection that sends one line gets its answer and then
 * the end; so the end of the answer needs no guess, and nothing is shared with another question. */
#include "driver/l4_haproxy.h"

#include "base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ASK_WITHIN_MS 5000
#define ASK_AGAIN_MS 10 /* while the socket's queue is full */
#define ANSWER_MAX (4u << 20)

struct ask {
	struct bt_op op;
	int fd;
	struct event *event, *timer; /* the socket's; the deadline, or the next try */
	char *socket, *line;
	size_t sent;
	struct bt_str answer;
	int64_t deadline_ms;
	bt_haproxy_answer_fn done;
	void *arg;
};

static void drop_socket(struct ask *a)
{
	if (a->event)
		event_free(a->event);
	if (a->fd >= 0)
		close(a->fd);
	a->event = NULL;
	a->fd = -1;
}

static void ask_cancel(struct bt_op *op)
{
	struct ask *a = (struct ask *)op;
	drop_socket(a);
	event_free(a->timer);
	bt_str_done(&a->answer);
	free(a->socket);
	free(a->line);
	free(a);
}

static void ask_end(struct ask *a, const struct bt_err *err)
{
	a->done(a->arg, err->code, bt_str_get(&a->answer), err);
	ask_cancel(&a->op);
}

static void ask_failed(struct ask *a, int e, const char *what)
{
	struct bt_err err = {0};
	if (e == ENOENT)
		bt_err_set(&err, BT_E_UNREACHABLE,
			"there is no stats socket %s: is haproxy running, with 'stats socket %s "
			"level admin' in its global section?",
			a->socket, a->socket);
	else if (e == ECONNREFUSED)
		bt_err_set(&err, BT_E_UNREACHABLE,
			"nobody listens at the stats socket %s: is haproxy running?", a->socket);
	else if (e == EACCES || e == EPERM)
		bt_err_set(&err, BT_E_REFUSED,
			"this agent may not open the stats socket %s: give it 'user' or 'group' "
			"and 'mode 660' in haproxy's global section",
			a->socket);
	else {
		bt_err_errno(&err, e, "%s haproxy's stats socket %s", what, a->socket);
		if (e == ETIMEDOUT)
			err.code = BT_E_UNREACHABLE;
	}
	ask_end(a, &err);
}

static void on_socket(evutil_socket_t fd, short what, void *arg);

static void expect(struct ask *a, short what)
{
	int64_t left = a->deadline_ms - bt_clock_boot_ms();
	if (a->event)
		event_free(a->event);
	a->event = event_new(bt_haproxy_env()->base, a->fd, what, on_socket, a);
	struct timeval t = {left > 0 ? left / 1000 : 0, left > 0 ? left % 1000 * 1000 : 1};
	event_add(a->event, &t);
}

static void read_some(struct ask *a)
{
	char buf[16384];
	ssize_t n = recv(a->fd, buf, sizeof buf, 0);
	struct bt_err err = {0};
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		expect(a, EV_READ);
	} else if (n < 0) {
		ask_failed(a, errno, "read from");
	} else if (n == 0) {
		ask_end(a, &err);
	} else if (a->answer.len + (size_t)n > ANSWER_MAX) {
		bt_err_set(&err, BT_E_PROTOCOL, "%s answers more than %u MiB to '%.60s'", a->socket,
			ANSWER_MAX >> 20, a->line);
		ask_end(a, &err);
	} else {
		bt_str_addn(&a->answer, buf, (size_t)n);
		expect(a, EV_READ);
	}
}

static void send_some(struct ask *a)
{
	ssize_t n = send(a->fd, a->line + a->sent, strlen(a->line + a->sent), MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		ask_failed(a, errno, "write to");
		return;
	}
	a->sent += n > 0 ? (size_t)n : 0;
	expect(a, a->line[a->sent] ? EV_WRITE : EV_READ);
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
	struct ask *a = arg;
	(void)fd;
	if (what & EV_TIMEOUT)
		ask_failed(a, ETIMEDOUT, "ask");
	else if (what & EV_WRITE)
		send_some(a);
	else
		read_some(a);
}

/* To a local socket: at once, or never, or its queue is full. */
static void on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct ask *a = arg;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	(void)fd;
	(void)what;
	snprintf(at.sun_path, sizeof at.sun_path, "%s", a->socket);
	a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (a->fd < 0) {
		ask_failed(a, errno, "make");
	} else if (strlen(a->socket) >= sizeof at.sun_path) {
		ask_failed(a, ENAMETOOLONG, "open");
	} else if (connect(a->fd, (struct sockaddr *)&at, sizeof at) == 0) {
		expect(a, EV_WRITE);
	} else if (errno == EAGAIN && bt_clock_boot_ms() < a->deadline_ms) {
		drop_socket(a);
		bt_timer_in(a->timer, ASK_AGAIN_MS);
	} else {
		ask_failed(a, errno, "open");
	}
}

struct bt_op *bt_haproxy_ask(
	const char *socket, const char *command, bt_haproxy_answer_fn done, void *arg)
{
	struct ask *a = bt_calloc(1, sizeof *a);
	a->op.cancel = ask_cancel;
	a->fd = -1;
	a->socket = bt_strdup(socket);
	a->line = bt_asprintf("%s\n", command);
	a->deadline_ms = bt_clock_boot_ms() + ASK_WITHIN_MS;
	a->done = done;
	a->arg = arg;
	a->timer = event_new(bt_haproxy_env()->base, -1, 0, on_connect, a);
	bt_timer_in(a->timer, 0);
	return &a->op;
}
