/* A door is one address that checkers ask. Over HTTP it is the server of baton's own API with one
 * handler for every path: its parser is strict, its connections are few and short. In TCP mode it
 * is a bare listener: whoever connects is let go at once, since the connection was the answer. */
#include "base/str.h"
#include "driver/l4_rotation.h"
#include "net/http_server.h"

#include <errno.h>
#include <event2/listener.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 256, HEAD_MS = 5000, IDLE_MS = 120000, MAX_BUFFERED = 4 << 20 };

struct bt_door {
	bt_door_fn fn;
	void *arg;
	struct bt_http_server *http;
	struct evconnlistener *tcp;
};

static void on_request(struct bt_http_exchange *x, void *arg)
{
	struct bt_door *d = arg;
	BT_STR struct bt_str body = {0};
	struct bt_door_answer a = {404, &body};
	d->fn(d->arg, bt_http_path(x), &a);
	bt_http_reply_header(x, "Cache-Control", "no-store");
	bt_http_reply(x, a.status, "text/plain; charset=utf-8", bt_str_get(&body), body.len);
}

static const struct bt_route_row routes[] = {
	{"GET", "*", BT_AUTH_NONE, 0, on_request, "whether to send requests here"},
	{"OPTIONS", "*", BT_AUTH_NONE, 0, on_request, "the same"},
};

static int open_http(
	struct event_base *base, const char *listen, struct bt_door *d, struct bt_err *err)
{
	const struct bt_http_server_spec spec = {
		.listen = listen,
		.routes = routes,
		.n_routes = BT_ARRAY_LEN(routes),
		.arg = d,
		.host_optional = true,
		.max_connections = MAX_CONNECTIONS,
		.max_buffered = MAX_BUFFERED,
		.head_timeout_ms = HEAD_MS,
		.idle_timeout_ms = IDLE_MS,
	};
	return bt_http_server_start(base, &spec, &d->http, err);
}

static void on_accept(
	struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
	struct bt_door *d = arg;
	(void)l;
	(void)sa;
	(void)len;
	close(fd);
	d->fn(d->arg, NULL, NULL);
}

static int open_tcp(
	struct event_base *base, const char *listen, struct bt_door *d, struct bt_err *err)
{
	struct sockaddr_storage ss = {0};
	int len = sizeof ss;
	if (evutil_parse_sockaddr_port(listen, (struct sockaddr *)&ss, &len) != 0)
		return bt_err_set(err, BT_E_CONFIG,
			"listen on '%s': expected ADDRESS:PORT such as 10.0.0.1:9100", listen);
	d->tcp = evconnlistener_new_bind(base, on_accept, d,
		LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 128,
		(struct sockaddr *)&ss, len);
	return d->tcp ? 0 : bt_err_errno(err, errno, "listen on %s", listen);
}

/* A port alone: every address, of both families where the host has both. */
static int open_at(struct event_base *base, const char *listen, bool tcp, struct bt_door *d,
	struct bt_err *err)
{
	int (*open)(struct event_base *, const char *, struct bt_door *, struct bt_err *) =
		tcp ? open_tcp : open_http;
	const char *port = bt_str_starts(listen, "*:") ? listen + 2 : listen;
	if (strchr(port, ':'))
		return open(base, listen, d, err);
	BT_FREE char *six = bt_asprintf("[::]:%s", port), *four = bt_asprintf("0.0.0.0:%s", port);
	struct bt_err no = {0};
	int r = open(base, six, d, &no);
	if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL)
		return open(base, four, d, err);
	return r < 0 ? bt_err_set(err, r, "%s", no.text) : r;
}

int bt_door_open(struct event_base *base, const char *listen, bool tcp, bt_door_fn fn, void *arg,
	struct bt_door **ret, struct bt_err *err)
{
	struct bt_door *d = bt_calloc(1, sizeof *d);
	d->fn = fn;
	d->arg = arg;
	int r = open_at(base, listen, tcp, d, err);
	if (r < 0) {
		bt_door_close(d);
		return r;
	}
	*ret = d;
	return 0;
}

struct bt_door *bt_door_close(struct bt_door *d)
{
	if (!d)
		return NULL;
	bt_http_server_free(d->http);
	if (d->tcp)
		evconnlistener_free(d->tcp);
	free(d);
	return NULL;
}
