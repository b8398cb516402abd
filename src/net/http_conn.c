/* One connection. Bytes come in through the read callback, pass the gate, become an exchange, and
 * the handler's answer goes out; then the next request of the same connection is looked at.
 *
 * Callbacks of a bufferevent are deferred, so nothing here runs inside a write, and a connection is
 * freed only from a callback of its own, by its deadline, or by the server. While a handler holds
 * an exchange the connection keeps reading (up to the watermark) only to learn that the peer left.
 * Everything that waits has a deadline: head, body, idle, unsent bytes; only held exchanges and
 * streams may last. */
#include "net/http_internal.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	INPUT_MAX = 40 * 1024, /* > BT_GATE_HEAD_MAX: a head always fits */
	OUTPUT_PAUSE = 256 * 1024,
	BODY_BYTES_PER_S = 16 * 1024, /* slower than this plus BODY_GRACE_MS is cut off */
	BODY_GRACE_MS = 30000,
	LINGER_MS = 2000,
	FLUSH_MS = 60000,
	PIPELINE_TURN = 16, /* requests before other connections get their turn */
};

static void process(struct bt_http_conn *c);

static void list_remove(struct bt_http_conn *c)
{
	struct bt_http_conn_list *l = c->list;
	*(c->prev ? &c->prev->next : &l->first) = c->next;
	*(c->next ? &c->next->prev : &l->last) = c->prev;
	l->n--;
}

static void list_add(struct bt_http_conn_list *l, struct bt_http_conn *c)
{
	c->list = l;
	c->prev = NULL;
	c->next = l->first;
	*(l->first ? &l->first->prev : &l->last) = c;
	l->first = c;
	l->n++;
}

void bt_http_conn_known(struct bt_http_conn *c)
{
	if (c->list == &c->server->known)
		return;
	list_remove(c);
	list_add(&c->server->known, c);
}

static void set_deadline(struct bt_http_conn *c, int64_t ms)
{
	bt_timer_in(c->deadline, ms);
}

/* Bytes of a file being sent are not in memory, so they do not count. */
void bt_http_conn_account(struct bt_http_conn *c)
{
	size_t now = evbuffer_get_length(bufferevent_get_input(c->bev));
	if (c->state != BT_CONN_FILE)
		now += evbuffer_get_length(bufferevent_get_output(c->bev));
	if (c->x)
		now += c->x->body.len;
	c->server->buffered += now - c->buffered;
	c->buffered = now;
}

static size_t buffered_max(const struct bt_http_conn *c)
{
	size_t max = c->server->spec.max_buffered;
	return c->list == &c->server->strangers ? max / 2 : max;
}

void bt_http_conn_close(struct bt_http_conn *c)
{
	struct bt_http_exchange *x = BT_STEAL(c->x);
	bool handed_over = c->state == BT_CONN_HELD || c->state == BT_CONN_STREAM;
	list_remove(c);
	c->server->buffered -= c->buffered;
	if (c->file_fd >= 0)
		close(c->file_fd);
	event_free(c->deadline);
	bufferevent_free(c->bev);
	free(c);
	if (!x)
		return;
	x->conn = NULL;
	if (handed_over && !x->on_close)
		return; /* the handler still has it: its answer frees it and goes nowhere */
	if (handed_over) {
		x->leaving = true;
		x->on_close(x->on_close_arg);
	}
	bt_http_exchange_free(x);
}

/* ---- ending ---- */

static void linger(struct bt_http_conn *c)
{
	SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
	c->state = BT_CONN_LINGER;
	if (ssl && SSL_is_init_finished(ssl) && SSL_shutdown(ssl) < 0)
		ERR_clear_error();
	shutdown(bufferevent_getfd(c->bev), SHUT_WR);
	evbuffer_drain(bufferevent_get_input(c->bev), SIZE_MAX);
	set_deadline(c, LINGER_MS);
}

static bool output_empty(const struct bt_http_conn *c)
{
	return evbuffer_get_length(bufferevent_get_output(c->bev)) == 0;
}

/* Queued bytes go out first; the write callback goes on when they are gone. */
static void flush_and_close(struct bt_http_conn *c)
{
	c->state = BT_CONN_FLUSH;
	set_deadline(c, FLUSH_MS);
	if (output_empty(c))
		linger(c);
}

void bt_http_conn_answered(struct bt_http_conn *c)
{
	c->x = bt_http_exchange_free(c->x);
	memset(&c->gate, 0, sizeof c->gate);
	memset(&c->chunked, 0, sizeof c->chunked);
	if (c->state != BT_CONN_FILE) {
		c->state = c->close_after ? BT_CONN_FLUSH : BT_CONN_HEAD;
		c->idle = true;
		set_deadline(c, c->close_after ? FLUSH_MS : c->server->spec.idle_timeout_ms);
	}
	bt_http_conn_account(c);
	if (!c->processing) /* go on with what the peer sent meanwhile, from the loop */
		bufferevent_trigger(
			c->bev, EV_READ, BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
}

static void refuse(struct bt_http_conn *c, int status, const char *message)
{
	c->close_after = true;
	if (c->x)
		bt_http_reply_status_error(c->x, status, NULL, message);
	else
		bt_http_reply_raw(c, status, message);
	flush_and_close(c);
}

/* ---- reading ---- */

static bool take_body(struct bt_http_conn *c, const char *data, size_t n)
{
	if (n > c->x->row->max_body - c->x->body.len) {
		refuse(c, 413, "the body is larger than this path takes");
		return false;
	}
	bt_str_addn(&c->x->body, data, n);
	bt_http_conn_account(c);
	if (c->server->buffered > buffered_max(c)) {
		refuse(c, 503, "too many bytes are waiting: try again later");
		return false;
	}
	return true;
}

static void handle(struct bt_http_conn *c)
{
	c->state = BT_CONN_HELD;
	evtimer_del(c->deadline);
	c->x->row->handle(c->x, c->x->spec->arg);
}

/* One contiguous piece a turn. Returns whether there may be more to do. */
static bool read_body(struct bt_http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	size_t n = evbuffer_get_contiguous_space(in), used = n, len = n;
	if (n == 0)
		return false;
	const char *data = (const char *)evbuffer_pullup(in, (ev_ssize_t)n), *part = data;
	bool ended;
	if (c->gate.body == BT_GATE_BODY_CHUNKED) {
		struct bt_err err = {0};
		int r = bt_gate_chunked(&c->chunked, data, n, &used, &part, &len, &err);
		if (r < 0) {
			refuse(c, 400, err.text);
			return false;
		}
		ended = r == 1;
	} else {
		if ((int64_t)n > c->body_left)
			len = used = (size_t)c->body_left;
		c->body_left -= (int64_t)len;
		ended = c->body_left == 0;
	}
	if (!take_body(c, part, len))
		return false;
	evbuffer_drain(in, used);
	if (ended)
		handle(c);
	return true;
}

/* The head is whole: who, what, may they; only then is a body read. */
static void begin_exchange(struct bt_http_conn *c, const char *head)
{
	struct bt_gate *g = &c->gate;
	struct bt_err err = {0};
	struct bt_http_exchange *x = c->x = bt_http_exchange_new(c, head);
	int64_t max = 0;
	c->close_after = g->close;
	evbuffer_drain(bufferevent_get_input(c->bev), g->len);
	bool has_body = g->body == BT_GATE_BODY_CHUNKED || g->content_length > 0;
	int status = bt_http_route(x, x->head + g->method.at, x->head + g->target.at,
		g->host.len ? x->head + g->host.at : "", &err);
	if (status == 0) {
		max = (int64_t)x->row->max_body;
		status = bt_http_authorize(x, &err);
	}
	if (status == 0 && g->content_length > max) {
		bt_err_set(&err, BT_E_REFUSED, "the body is larger than the %lld bytes taken here",
			(long long)max);
		status = 413;
	}
	if (status == 0 && !has_body) {
		handle(c);
		return;
	}
	if (status != 0) { /* a body that nobody reads ends the connection */
		c->close_after |= has_body;
		bt_http_reply_status_error(x, status, NULL, err.text);
		return;
	}
	if (g->expects)
		bufferevent_write(c->bev, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	c->state = BT_CONN_BODY;
	c->body_left = g->content_length;
	int64_t most = g->body == BT_GATE_BODY_CHUNKED ? max : g->content_length;
	set_deadline(c, BODY_GRACE_MS + most * 1000 / BODY_BYTES_PER_S);
}

static bool read_head(struct bt_http_conn *c)
{
	struct evbuffer *in = bufferevent_get_input(c->bev);
	struct bt_err err = {0};
	size_t n = evbuffer_get_length(in);
	if (n == 0)
		return false;
	if (n > BT_GATE_HEAD_MAX + 1)
		n = BT_GATE_HEAD_MAX + 1;
	if (c->idle) { /* from its first byte on, a head has to come in quickly */
		c->idle = false;
		set_deadline(c, c->server->spec.head_timeout_ms);
	}
	const char *head = (const char *)evbuffer_pullup(in, (ev_ssize_t)n);
	c->gate.host_optional = c->server->spec.host_optional;
	int r = bt_gate_head(&c->gate, head, n, &err);
	if (r < 0)
		refuse(c, c->gate.status, err.text);
	else if (r == 1)
		begin_exchange(c, head);
	return r == 1;
}

static bool step(struct bt_http_conn *c)
{
	switch (c->state) {
	case BT_CONN_HEAD:
		if (evbuffer_get_length(bufferevent_get_output(c->bev)) > OUTPUT_PAUSE)
			return false; /* answers are not being read: no more of them */
		return read_head(c);
	case BT_CONN_BODY:
		return read_body(c);
	case BT_CONN_FLUSH:
	case BT_CONN_LINGER:
		evbuffer_drain(bufferevent_get_input(c->bev), SIZE_MAX);
		return false;
	case BT_CONN_HELD:
	case BT_CONN_STREAM:
	case BT_CONN_FILE:
		return false;
	}
	return false;
}

static void process(struct bt_http_conn *c)
{
	int requests = 0;
	c->processing = true;
	while (step(c))
		if (c->state == BT_CONN_HEAD && ++requests == PIPELINE_TURN) {
			bufferevent_trigger(c->bev, EV_READ,
				BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
			break;
		}
	c->processing = false;
	bt_http_conn_account(c);
	if (c->state == BT_CONN_FLUSH && output_empty(c))
		linger(c);
	else if (c->list == &c->server->strangers && c->server->buffered > buffered_max(c) &&
		 c->state == BT_CONN_HEAD && c->buffered > 0)
		bt_http_conn_close(c);
}

/* ---- callbacks ---- */

static void on_read(struct bufferevent *bev, void *arg)
{
	(void)bev;
	process(arg);
}

static void on_write(struct bufferevent *bev, void *arg)
{
	struct bt_http_conn *c = arg;
	(void)bev;
	if (c->state == BT_CONN_FILE)
		bt_http_file_pump(c);
	process(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
	struct bt_http_conn *c = arg;
	SSL *ssl = bufferevent_openssl_get_ssl(bev);
	if (what & BEV_EVENT_CONNECTED) {
		if (ssl && SSL_get0_peer_certificate(ssl))
			bt_http_conn_known(c); /* its chain was verified in the handshake */
		return;
	}
	/* A peer that only shut its sending side still gets what was answered. */
	if ((what & BEV_EVENT_EOF) && !c->x && c->state != BT_CONN_LINGER && !output_empty(c)) {
		if (c->state != BT_CONN_FILE)
			c->state = BT_CONN_FLUSH;
		c->close_after = true;
		return;
	}
	bt_http_conn_close(c);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct bt_http_conn *c = arg;
	(void)fd;
	(void)what;
	if (c->state == BT_CONN_BODY || (c->state == BT_CONN_HEAD && !c->idle && c->gate.at > 0))
		refuse(c, 408, "the request did not come in in time");
	else
		bt_http_conn_close(c);
}

void bt_http_conn_new(struct bt_http_server *s, struct bufferevent *bev, const char *peer)
{
	struct bt_http_conn *c = bt_calloc(1, sizeof *c);
	struct timeval stalled = {FLUSH_MS / 1000, 0};
	c->server = s;
	c->bev = bev;
	c->file_fd = -1;
	snprintf(c->peer, sizeof c->peer, "%s", peer);
	c->deadline = evtimer_new(s->base, on_deadline, c);
	list_add(&s->strangers, c);
	bufferevent_setcb(bev, on_read, on_write, on_event, c);
	bufferevent_setwatermark(bev, EV_READ, 0, INPUT_MAX);
	bufferevent_set_timeouts(bev, NULL, &stalled);
	bufferevent_enable(bev, EV_READ | EV_WRITE);
	/* the first head, with the handshake before it, comes in quickly or not at all */
	set_deadline(c, s->spec.head_timeout_ms);
}
