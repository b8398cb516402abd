#include "cli/stream.h"

#include <stdio.h>
#include <string.h>

#define EVENT_MAX (1 << 20)
#define SILENCE_MS 90000 /* a peer that vanished without a word; a fresh connection is cheap */

static int sse_dispatch(struct bt_sse *s)
{
	int r = s->data.len ? s->on_event(s->arg, s->event[0] ? s->event : "message", s->id,
				      bt_str_get(&s->data), s->data.len)
			    : 0;
	bt_str_reset(&s->data);
	s->event[0] = 0;
	s->id = -1;
	return r;
}

static int sse_line(struct bt_sse *s)
{
	const char *line = bt_str_get(&s->line);
	if (!*line)
		return sse_dispatch(s);
	const char *colon = strchr(line, ':');
	const char *value = colon ? colon + 1 + (colon[1] == ' ') : "";
	size_t name = colon ? (size_t)(colon - line) : strlen(line);
	if (name == 4 && !memcmp(line, "data", 4)) {
		if (s->data.len)
			bt_str_addc(&s->data, '\n');
		bt_str_add(&s->data, value);
	} else if (name == 5 && !memcmp(line, "event", 5)) {
		snprintf(s->event, sizeof s->event, "%.31s", value);
	} else if (name == 2 && !memcmp(line, "id", 2)) {
		if (bt_int_parse(value, 0, INT64_MAX, &s->id, NULL) < 0)
			s->id = -1;
	}
	return 0;
}

int bt_sse_feed(struct bt_sse *s, const void *data, size_t n)
{
	const char *p = data;
	for (size_t i = 0; i < n; i++) {
		if (p[i] != '\n') {
			if (p[i] != '\r')
				bt_str_addc(&s->line, p[i]);
			if (s->line.len + s->data.len > EVENT_MAX)
				return BT_E_PROTOCOL;
			continue;
		}
		int r = sse_line(s);
		bt_str_reset(&s->line);
		if (r < 0)
			return r;
	}
	return 0;
}

void bt_sse_reset(struct bt_sse *s)
{
	bt_str_reset(&s->line);
	bt_str_reset(&s->data);
	s->event[0] = 0;
	s->id = -1;
}

void bt_sse_done(struct bt_sse *s)
{
	bt_str_done(&s->line);
	bt_str_done(&s->data);
}

struct bt_stream {
	struct bt_client *client;
	char *path;
	const struct bt_stream_handlers *handlers;
	void *arg;
	struct bt_sse sse;
	int64_t cursor; /* -1: from now on */
	struct bt_http_call *call;
	struct event *timer; /* the next try, or the watch over silence */
	int tries;
	int status;
	bool is_away, over;
};

static void connect_stream(struct bt_stream *s);

static void arm(struct bt_stream *s, int64_t ms)
{
	bt_timer_in(s->timer, ms);
}

static void retry(struct bt_stream *s, const char *why)
{
	if (s->over)
		return;
	if (!s->is_away && s->tries > 0) { /* a server ends streams of slow readers: no news yet */
		s->is_away = true;
		s->handlers->away(s->arg, why);
	}
	/* 0, 0.2, 0.4 … 3.2 s: a restart takes a second or two. */
	int64_t wait = s->tries == 0 ? 0 : 200 << (s->tries > 4 ? 4 : s->tries - 1);
	s->tries++;
	arm(s, wait);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct bt_stream *s = arg;
	(void)fd;
	(void)what;
	if (s->call)
		s->call = bt_http_cancel(s->call);
	connect_stream(s);
}

static int on_event(void *arg, const char *event, int64_t id, const char *data, size_t n)
{
	struct bt_stream *s = arg;
	BT_JSON json_t *j = NULL;
	if (bt_json_parse(data, n, EVENT_MAX, &j, NULL) < 0)
		return 0; /* a newer server's event */
	if (id >= 0)
		s->cursor = id;
	if (!s->over)
		s->handlers->event(s->arg, event, j);
	return 0;
}

static void on_headers(void *arg, int status)
{
	struct bt_stream *s = arg;
	s->status = status;
}

static bool on_data(void *arg, const void *data, size_t n)
{
	struct bt_stream *s = arg;
	arm(s, SILENCE_MS);
	/* Only now is it back: a proxy may answer for a server that is not there. */
	if (s->status == 200) {
		s->tries = 0;
		if (s->is_away)
			s->handlers->back(s->arg);
		s->is_away = false;
	}
	return s->status != 200 || bt_sse_feed(&s->sse, data, n) == 0;
}

static void on_done(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct bt_stream *s = arg;
	s->call = NULL;
	evtimer_del(s->timer);
	if (r->status >= 400 && r->status < 500 && r->status != 429 && !s->over) {
		struct bt_err why = {0};
		bt_client_error(r->status, NULL, &why);
		if (r->status == 404)
			bt_err_set(&why, BT_E_NOTFOUND, "the server knows no such deployment");
		s->over = true;
		s->handlers->failed(s->arg, &why);
		return;
	}
	retry(s, r->status == 0 ? err->text : "the connection ended");
}

static void connect_stream(struct bt_stream *s)
{
	BT_FREE char *path = s->cursor < 0
				     ? bt_asprintf("%s?after=now", s->path)
				     : bt_asprintf("%s?after=%lld", s->path, (long long)s->cursor);
	BT_FREE char *url = NULL;
	BT_FREE char *auth = NULL;
	struct bt_http_header headers[2];
	struct bt_http_request rq;
	bt_client_request(s->client, "GET", path, headers, &url, &auth, &rq);
	headers[rq.n_headers++] = (struct bt_http_header){"Accept", "text/event-stream"};
	rq.on_data = on_data;
	rq.on_headers = on_headers;
	bt_sse_reset(&s->sse);
	s->status = 0;
	arm(s, SILENCE_MS);
	s->call = bt_http_start(s->client->http, &rq, on_done, s);
}

struct bt_stream *bt_stream_new(struct bt_client *c, const char *path, bool from_now,
	const struct bt_stream_handlers *handlers, void *arg)
{
	struct bt_stream *s = bt_calloc(1, sizeof *s);
	s->client = c;
	s->path = bt_strdup(path);
	s->cursor = from_now ? -1 : 0;
	s->handlers = handlers;
	s->arg = arg;
	s->sse.on_event = on_event;
	s->sse.arg = s;
	s->timer = evtimer_new(c->base, on_timer, s);
	connect_stream(s);
	return s;
}

struct bt_stream *bt_stream_free(struct bt_stream *s)
{
	if (!s)
		return NULL;
	s->over = true;
	bt_http_cancel(s->call);
	event_free(s->timer);
	bt_sse_done(&s->sse);
	free(s->path);
	free(s);
	return NULL;
}
