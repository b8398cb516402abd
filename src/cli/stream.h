/* Server-sent events with a cursor: the stream goes on where it was after any break. */
#pragma once
#include "cli/client.h"

/* The parser alone: fed with pieces of any size, it calls on_event for each whole event. */
struct bt_sse {
	struct bt_str line, data;
	char event[32];
	int64_t id; /* of the event being read; -1 none */
	int (*on_event)(void *arg, const char *event, int64_t id, const char *data, size_t n);
	void *arg;
};
/* 0, BT_E_PROTOCOL (an event beyond 1 MiB), or what on_event returned < 0. */
int bt_sse_feed(struct bt_sse *s, const void *data, size_t n);
void bt_sse_reset(struct bt_sse *s); /* a new connection */
void bt_sse_done(struct bt_sse *s);

struct bt_stream_handlers {
	void (*event)(void *arg, const char *event, const json_t *data);
	/* The connection is gone, and is tried again; or is back. Told once each. */
	void (*away)(void *arg, const char *why);
	void (*back)(void *arg);
	/* The server will not serve this stream (wrong id, wrong token): the stream is over. */
	void (*failed)(void *arg, const struct bt_err *err);
};
struct bt_stream;
/* path without a query; begins with the first event, or with what comes from now on. */
struct bt_stream *bt_stream_new(struct bt_client *c, const char *path, bool from_now,
	const struct bt_stream_handlers *handlers, void *arg);
struct bt_stream *bt_stream_free(struct bt_stream *s); /* NULL is fine; returns NULL */
