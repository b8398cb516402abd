/* What the parts of the HTTP server share; private to net.
 *   http_server.c  listener, TLS, caps      http_conn.c  one connection: read, answer, close
 *   http_route.c   route table, parameters  http_reply.c answers, streams, files */
#pragma once
#include "base/str.h"
#include "net/gate.h"
#include "net/http_server.h"
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/keyvalq_struct.h>
#include <openssl/ssl.h>

struct bt_http_conn;

struct bt_http_server {
	struct event_base *base;
	struct bt_http_server_spec spec; /* strings owned below */
	char *cert_file, *key_file, *client_ca_file, **allowed_hosts;
	SSL_CTX *tls;
	struct evconnlistener *listener;
	struct event *accept_again; /* after descriptors ran out */
	uint16_t port;
	/* newest first; strangers (not authenticated) apart from the others */
	struct bt_http_conn_list {
		struct bt_http_conn *first, *last;
		size_t n;
	} strangers, known;
	size_t buffered;
};

enum bt_conn_state {
	BT_CONN_HEAD,	/* waiting for, or in, a request's head */
	BT_CONN_BODY,	/* in its body */
	BT_CONN_HELD,	/* the handler has it */
	BT_CONN_STREAM, /* the handler sends pieces */
	BT_CONN_FILE,	/* a file is on its way */
	BT_CONN_FLUSH,	/* what is written goes out, then the connection ends */
	BT_CONN_LINGER, /* our side is shut; the peer's bytes are thrown away for a moment */
};

struct bt_http_conn {
	struct bt_http_conn *prev, *next;
	struct bt_http_conn_list *list;
	struct bt_http_server *server;
	struct bufferevent *bev;
	struct event *deadline;
	enum bt_conn_state state;
	struct bt_gate gate;
	struct bt_gate_chunked chunked;
	int64_t body_left; /* Content-Length still to come */
	struct bt_http_exchange *x;
	size_t buffered; /* this connection's share of the server's */
	bool close_after, processing, idle;
	int file_fd; /* TLS only: read piece by piece */
	int64_t file_at, file_end;
	char peer[64];
};

struct bt_http_exchange {
	struct bt_http_conn *conn; /* NULL: the peer went away */
	const struct bt_http_server_spec *spec;
	const struct bt_route_row *row;
	char *head; /* names and values are NUL-terminated in place */
	size_t n_fields;
	struct bt_gate_field *fields;
	char *path, *query_text;
	char *params[8]; /* unescaped */
	size_t n_params;
	struct evkeyvalq query;
	bool has_query, is_head, http10, leaving;
	int64_t range_start; /* -1: none */
	struct bt_str body, reply_headers;
	void *identity;
	void (*identity_free)(void *);
	void (*on_close)(void *arg);
	void *on_close_arg;
	char peer[64];
	char cn[65], serial[65];
};

/* http_conn.c */
void bt_http_conn_new(struct bt_http_server *s, struct bufferevent *bev, const char *peer);
void bt_http_conn_close(struct bt_http_conn *c);    /* tells the handler, frees */
void bt_http_conn_known(struct bt_http_conn *c);    /* has shown who it is */
void bt_http_conn_answered(struct bt_http_conn *c); /* the exchange is over, bytes are queued */
void bt_http_conn_account(struct bt_http_conn *c);
/* http_route.c */
struct bt_http_exchange *bt_http_exchange_new(struct bt_http_conn *c, const char *head);
struct bt_http_exchange *bt_http_exchange_free(struct bt_http_exchange *x);
/* 0 with x->row set; else the status of the answer, with its words in err. */
int bt_http_route(struct bt_http_exchange *x, const char *method, const char *target,
	const char *host, struct bt_err *err);
int bt_http_authorize(struct bt_http_exchange *x, struct bt_err *err);
/* http_reply.c */
void bt_http_reply_status_error(
	struct bt_http_exchange *x, int status, const char *code, const char *message);
/* A whole answer for bytes that never became an exchange. */
void bt_http_reply_raw(struct bt_http_conn *c, int status, const char *message);
void bt_http_file_pump(struct bt_http_conn *c);
