/* HTTP server on the loop: bufferevents, plain or TLS, one strict parser, a route table.
 *
 * Every request's bytes pass the gate (net/gate.h), which is the only parser there is, so there is
 * no second reader who could see another request in them; a violation is answered with 400 and
 * ends the connection. A body is read only after its route, its authorization and its size were
 * found good. Connections and the bytes buffered over all of them are capped, lower for peers that
 * have not authenticated. A handler may answer at once or later; on_close tells it that the peer
 * left. */
#pragma once
#include "base/err.h"
#include "base/json.h"
#include "base/loop.h"
#include <event2/buffer.h>
#include <stdint.h>

struct bt_http_server;
struct bt_http_exchange; /* one request and its answer */

enum bt_auth { /* what a route demands; checked by the server's auth callback before the handler */
	BT_AUTH_NONE,
	BT_AUTH_VIEWER,
	BT_AUTH_DEPLOYER,
	BT_AUTH_ADMIN,
	BT_AUTH_AGENT,
};
struct bt_route_row {
	const char *method;
	/* "/v1/deployments/{id}/events"; {x} matches one segment, unescaped; "*" every path, see
	 * bt_http_path */
	const char *pattern;
	enum bt_auth auth;
	size_t max_body; /* bytes; 413 beyond */
	void (*handle)(struct bt_http_exchange *x, void *arg);
	const char *summary; /* for docs/api.md and openapi.yaml */
};
struct bt_http_server_spec {
	const char *listen;		  /* "127.0.0.1:7070", "[::]:7071" */
	const char *cert_file, *key_file; /* NULL: plain */
	/* Ask for a client certificate signed by it; NULL: do not. A wrong one ends the handshake;
	 * none at all is let in (to join), but to no route that demands BT_AUTH_AGENT. */
	const char *client_ca_file;
	const struct bt_route_row *routes;
	size_t n_routes;
	void *arg; /* for handlers and callbacks */
	/* 0: go on (identity set by bt_http_set_identity), else the status (401, 403) with err's
	 * text. Asked of every route, BT_AUTH_NONE too: a page's Origin matters there as well. */
	int (*authorize)(
		struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err);
	const char *const *allowed_hosts; /* names and addresses without port */
	size_t n_allowed_hosts;		  /* Host header; empty: any name */
	bool host_optional;	 /* HTTP/1.0 without a Host header is taken, too: health checks */
	size_t max_connections;	 /* 0: 12,000 */
	size_t max_buffered;	 /* bytes over all connections; 0: 64 MiB */
	int64_t head_timeout_ms; /* handshake and head; 0: 15 s */
	int64_t idle_timeout_ms; /* between requests; 0: 2 min */
};
int bt_http_server_start(struct event_base *base, const struct bt_http_server_spec *spec,
	struct bt_http_server **ret, struct bt_err *err);
/* Closes every connection (their on_close is called). libevent lets go of some only in its loop:
 * one more event_base_loop(base, EVLOOP_NONBLOCK) before event_base_free leaves nothing behind. */
struct bt_http_server *bt_http_server_free(struct bt_http_server *s);
uint16_t bt_http_server_port(const struct bt_http_server *s);
int bt_http_server_reload_tls(
	struct bt_http_server *s, struct bt_err *err); /* new files, same paths */

/* In a handler. Strings are borrowed until the exchange is answered. */
const char *bt_http_param(const struct bt_http_exchange *x, const char *name); /* path segment */
const char *bt_http_path(const struct bt_http_exchange *x); /* as it came, without the query */
const char *bt_http_query(
	const struct bt_http_exchange *x, const char *name); /* NULL when absent */
const char *bt_http_request_header(const struct bt_http_exchange *x, const char *name);
const void *bt_http_body(const struct bt_http_exchange *x, size_t *ret_len);
const char *bt_http_peer(const struct bt_http_exchange *x);	   /* address */
const char *bt_http_peer_serial(const struct bt_http_exchange *x); /* of its certificate; NULL */
const char *bt_http_peer_cn(const struct bt_http_exchange *x);	   /* NULL */
void bt_http_set_identity(struct bt_http_exchange *x, void *identity, void (*free_fn)(void *));
void *bt_http_identity(const struct bt_http_exchange *x);
/* N of "Range: bytes=N-", or -1 when there is none in this form. */
int64_t bt_http_range_start(const struct bt_http_exchange *x);
/* Called when the peer goes away before the answer; the exchange is dead after it. Without it the
 * exchange stays valid until it is answered, and that answer goes nowhere. */
void bt_http_on_close(struct bt_http_exchange *x, void (*fn)(void *arg), void *arg);

/* Exactly one of these ends the exchange. Answering HEAD sends no body, but its length; there body
 * may be NULL with n the length that GET would have. */
void bt_http_reply(struct bt_http_exchange *x, int status, const char *content_type,
	const void *body, size_t n);
void bt_http_reply_header(
	struct bt_http_exchange *x, const char *name, const char *value);   /* before */
void bt_http_reply_json(struct bt_http_exchange *x, int status, json_t *j); /* steals j */
/* {"error":{"code":"not_found","message":"…"}} with the status that fits err->code. */
void bt_http_reply_error(struct bt_http_exchange *x, const struct bt_err *err);
/* A file segment from offset to the end, by sendfile where plain. */
void bt_http_reply_file(struct bt_http_exchange *x, const char *path, int64_t offset);
/* A stream (SSE, logs): start, then pieces, then end. send returns bytes still buffered:
 * past 256 KiB the caller ends the stream (the reader resumes by its cursor). SIZE_MAX: the peer
 * has left (told here only without on_close); end it. */
void bt_http_stream_start(struct bt_http_exchange *x, const char *content_type);
size_t bt_http_stream_send(struct bt_http_exchange *x, const void *data, size_t n);
void bt_http_stream_end(struct bt_http_exchange *x);
