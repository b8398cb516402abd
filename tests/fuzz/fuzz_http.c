/* libFuzzer: a whole server on loopback. Each input is what one connection says, cut in two, and
 * then shuts; the server has to end the connection, with nothing left of it. */
#include "base/str.h"
#include "net/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct event_base *base;
static struct bt_http_server *server;

static void answer(struct bt_http_exchange *x, void *arg)
{
	size_t n;
	(void)arg;
	const char *body = bt_http_body(x, &n), *id = bt_http_param(x, "id");
	const char *q = bt_http_query(x, "q"), *h = bt_http_request_header(x, "X-Y");
	if (id && (strchr(id, '/') || !*id || bt_streq(id, "..")))
		abort();
	bt_http_reply_header(x, "X-Q", q ? q : "");
	bt_http_reply_header(x, "X-H", h ? h : "");
	bt_http_reply(x, 200, "text/plain", body, n);
}

static void stream(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	bt_http_stream_start(x, "text/plain");
	bt_http_stream_send(x, "x", 1);
	bt_http_stream_end(x);
}

static void file(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	bt_http_reply_file(x, "/etc/hostname", bt_http_range_start(x));
}

static void on_leave(void *arg)
{
	(void)arg;
}

/* Held for ever: only the peer's leaving ends it. */
static void hold(struct bt_http_exchange *x, void *arg)
{
	bt_http_on_close(x, on_leave, arg);
}

static int authorize(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err)
{
	(void)arg;
	if (need == BT_AUTH_NONE ||
		bt_streq(bt_http_request_header(x, "Authorization"), "Bearer t"))
		return 0;
	bt_err_set(err, BT_E_AUTH, "no");
	return 401;
}

static const struct bt_route_row routes[] = {
	{"GET", "/", BT_AUTH_NONE, 100, answer, ""},
	{"POST", "/v1/{id}", BT_AUTH_NONE, 1000, answer, ""},
	{"GET", "/v1/{id}/x", BT_AUTH_ADMIN, 0, answer, ""},
	{"GET", "/s", BT_AUTH_NONE, 0, stream, ""},
	{"GET", "/f", BT_AUTH_NONE, 0, file, ""},
	{"GET", "/h", BT_AUTH_NONE, 0, hold, ""},
};

static void begin(void)
{
	static const char *const hosts[] = {"a", "::1"};
	struct bt_http_server_spec spec = {.listen = "127.0.0.1:0",
		.routes = routes,
		.n_routes = BT_ARRAY_LEN(routes),
		.authorize = authorize,
		.allowed_hosts = hosts,
		.n_allowed_hosts = 2};
	signal(SIGPIPE, SIG_IGN);
	base = event_base_new();
	if (bt_http_server_start(base, &spec, &server, NULL) < 0)
		abort();
}

static int dial(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(bt_http_server_port(server)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger reset = {1, 0}; /* no TIME_WAIT: there are many */
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		abort();
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void say(int fd, const uint8_t *data, size_t n)
{
	if (n > 0 && send(fd, data, n, 0) < 0 && errno != ECONNRESET && errno != EPIPE)
		abort();
	event_base_loop(base, EVLOOP_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char buf[65536];
	if (!base)
		begin();
	if (size < 2 || size > 60000)
		return 0;
	size_t cut = (size_t)data[0] * (size - 1) / 256;
	int fd = dial();
	say(fd, data + 1, cut);
	say(fd, data + 1 + cut, size - 1 - cut);
	shutdown(fd, SHUT_WR);
	ssize_t n;
	while ((n = recv(fd, buf, sizeof buf, 0)) > 0 || (n < 0 && errno == EAGAIN))
		event_base_loop(base, n < 0 ? EVLOOP_ONCE : EVLOOP_NONBLOCK);
	close(fd);
	event_base_loop(base, EVLOOP_NONBLOCK);
	return 0;
}
