/* A server for tests/net/test_http_server.py: every kind of answer, one argument a setting.
 *     server_main DIR [name=value …]   prints "port N" once it listens */
#include "base/str.h"
#include "net/http_server.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static struct {
	struct event_base *base;
	const char *dir;
	struct bt_http_exchange *held[4096];
	size_t n_held, left;
	struct bt_http_server *server;
} t;

static void echo(struct bt_http_exchange *x, void *arg)
{
	size_t n;
	(void)arg;
	const char *body = bt_http_body(x, &n);
	const char *id = bt_http_param(x, "id"), *q = bt_http_query(x, "q");
	json_t *j = json_pack("{s:s?, s:s?, s:s?, s:s?, s:s, s:I}", "id", id, "q", q, "cn",
		bt_http_peer_cn(x), "serial", bt_http_peer_serial(x), "peer", bt_http_peer(x),
		"length", (json_int_t)n);
	if (n < 100)
		json_object_set_new(j, "body", json_stringn(body, n));
	bt_http_reply_json(x, 200, j);
}

static void on_leave(void *arg)
{
	size_t at = (size_t)(uintptr_t)arg;
	t.held[at] = NULL;
	t.left++;
}

static void hold(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	if (t.n_held == BT_ARRAY_LEN(t.held)) {
		bt_http_reply(x, 503, NULL, NULL, 0);
		return;
	}
	t.held[t.n_held] = x;
	bt_http_on_close(x, on_leave, (void *)(uintptr_t)t.n_held++);
}

static void wake(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	size_t n = 0;
	for (size_t i = 0; i < t.n_held; i++)
		if (t.held[i]) {
			bt_http_reply(t.held[i], 200, "text/plain", "woken", 5);
			n++;
		}
	json_t *j = json_pack("{s:I, s:I}", "woken", (json_int_t)n, "left", (json_int_t)t.left);
	t.n_held = t.left = 0;
	bt_http_reply_json(x, 200, j);
}

static void count(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	bt_http_reply_json(x, 200,
		json_pack("{s:I, s:I}", "held", (json_int_t)(t.n_held - t.left), "left",
			(json_int_t)t.left));
}

static void file(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	BT_FREE char *path = bt_asprintf("%s/%s", t.dir, bt_http_param(x, "name"));
	int64_t from = bt_http_range_start(x);
	bt_http_reply_file(x, path, from < 0 ? 0 : from);
}

static void stream(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	bt_http_stream_start(x, "text/event-stream");
	bt_http_stream_send(x, "data: 1\n\n", 9);
	bt_http_stream_send(x, "", 0);
	bt_http_stream_send(x, "data: 2\n\n", 9);
	bt_http_stream_end(x);
}

/* Sends until 256 KiB wait for a reader who does not read, as a log stream does. */
static void flood(struct bt_http_exchange *x, void *arg)
{
	char data[1024];
	(void)arg;
	memset(data, 'x', sizeof data);
	bt_http_stream_start(x, "text/plain");
	while (bt_http_stream_send(x, data, sizeof data) < 256 * 1024)
		;
	bt_http_stream_end(x);
}

static void late_answer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	bt_http_reply(arg, 200, "text/plain", "late", 4);
}

/* Answers later and asks for no on_close: the answer of a peer that left goes nowhere. */
static void later(struct bt_http_exchange *x, void *arg)
{
	struct timeval tv = {0, 50000};
	(void)arg;
	event_base_once(t.base, -1, EV_TIMEOUT, late_answer, x, &tv);
}

static void fail(struct bt_http_exchange *x, void *arg)
{
	struct bt_err err = {0};
	(void)arg;
	bt_err_set(&err, BT_E_LEASE, "deployment 7 holds shop");
	bt_http_reply_header(x, "X-Evil", "a\r\nSet-Cookie: b");
	bt_http_reply_error(x, &err);
}

static void reload(struct bt_http_exchange *x, void *arg)
{
	struct bt_err err = {0};
	(void)arg;
	if (bt_http_server_reload_tls(t.server, &err) < 0)
		bt_http_reply_error(x, &err);
	else
		bt_http_reply(x, 204, NULL, NULL, 0);
}

static int authorize(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err)
{
	(void)arg;
	const char *token = bt_http_request_header(x, "Authorization");
	const char *origin = bt_http_request_header(x, "Origin");
	if (origin && !bt_streq(origin, "http://localhost"))
		return bt_err_set(err, BT_E_REFUSED, "another page"), 403;
	if (need == BT_AUTH_NONE)
		return 0;
	if (need == BT_AUTH_AGENT) {
		if (bt_streq(bt_http_peer_cn(x), "revoked"))
			return bt_err_set(err, BT_E_REFUSED, "this host was removed"), 403;
		return 0;
	}
	if (!token)
		return bt_err_set(err, BT_E_AUTH, "no token"), 401;
	if (!bt_streq(token, "Bearer good"))
		return bt_err_set(err, BT_E_REFUSED, "the role is too low"), 403;
	return 0;
}

static const struct bt_route_row routes[] = {
	{"GET", "/", BT_AUTH_NONE, 0, echo, ""},
	{"POST", "/echo", BT_AUTH_NONE, 8 << 20, echo, ""},
	{"POST", "/small", BT_AUTH_NONE, 1000, echo, ""},
	{"GET", "/v1/things/{id}", BT_AUTH_NONE, 0, echo, ""},
	{"GET", "/v1/things/{id}/more", BT_AUTH_NONE, 0, echo, ""},
	{"GET", "/hold", BT_AUTH_NONE, 0, hold, ""},
	{"GET", "/wake", BT_AUTH_NONE, 0, wake, ""},
	{"GET", "/count", BT_AUTH_NONE, 0, count, ""},
	{"GET", "/file/{name}", BT_AUTH_NONE, 0, file, ""},
	{"GET", "/stream", BT_AUTH_NONE, 0, stream, ""},
	{"GET", "/flood", BT_AUTH_NONE, 0, flood, ""},
	{"GET", "/later", BT_AUTH_NONE, 0, later, ""},
	{"GET", "/fail", BT_AUTH_NONE, 0, fail, ""},
	{"POST", "/secret", BT_AUTH_ADMIN, 8 << 20, echo, ""},
	{"GET", "/agent", BT_AUTH_AGENT, 0, echo, ""},
	{"POST", "/reload", BT_AUTH_NONE, 0, reload, ""},
};

static void quit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	event_base_loopbreak(arg);
}

static const char *setting(int argc, char **argv, const char *name)
{
	size_t n = strlen(name);
	for (int i = 2; i < argc; i++)
		if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=')
			return argv[i] + n + 1;
	return NULL;
}

static int64_t number(int argc, char **argv, const char *name)
{
	const char *text = setting(argc, argv, name);
	return text ? strtoll(text, NULL, 10) : 0;
}

int main(int argc, char **argv)
{
	struct bt_err err = {0};
	if (argc < 2)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	t.dir = argv[1];
	t.base = event_base_new();
	const char *hosts[] = {setting(argc, argv, "host"), "::1"};
	const char *listen = setting(argc, argv, "listen");
	struct bt_http_server_spec spec = {.listen = listen ? listen : "127.0.0.1:0",
		.cert_file = setting(argc, argv, "cert"),
		.key_file = setting(argc, argv, "key"),
		.client_ca_file = setting(argc, argv, "client_ca"),
		.routes = routes,
		.n_routes = BT_ARRAY_LEN(routes),
		.authorize = authorize,
		.allowed_hosts = hosts,
		.n_allowed_hosts = hosts[0] ? 2 : 0,
		.max_connections = (size_t)number(argc, argv, "max_connections"),
		.max_buffered = (size_t)number(argc, argv, "max_buffered"),
		.head_timeout_ms = number(argc, argv, "head_timeout"),
		.idle_timeout_ms = number(argc, argv, "idle_timeout")};
	if (bt_http_server_start(t.base, &spec, &t.server, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	struct event *term = evsignal_new(t.base, SIGTERM, quit, t.base);
	evsignal_add(term, NULL);
	printf("port %u\n", bt_http_server_port(t.server));
	fflush(stdout);
	event_base_dispatch(t.base);
	bt_http_server_free(t.server);
	/* libevent lets go of a connection in its loop when a callback was on its way */
	event_base_loop(t.base, EVLOOP_NONBLOCK);
	event_free(term);
	event_base_free(t.base);
	return 0;
}
