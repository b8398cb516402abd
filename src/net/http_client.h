/* HTTP client on the loop: libcurl's multi_socket. One per process. */
#pragma once
#include "base/err.h"
#include "base/loop.h"
#include <stdint.h>

struct bt_http_client;
struct bt_tls_identity {		  /* files in PEM; NULL members: not used */
	const char *ca_file;		  /* trust only this CA */
	const char *cert_file, *key_file; /* present this certificate */
	const char *pin_sha256; /* hex of the CA certificate's SHA-256, for joining before the CA is
				   known */
};
struct bt_http_client *bt_http_client_new(struct event_base *base);
struct bt_http_client *bt_http_client_free(struct bt_http_client *c);

struct bt_http_header {
	const char *name, *value;
};
struct bt_http_request {
	const char *method; /* "GET" … */
	const char *url;
	const char *unix_socket; /* NULL: TCP */
	const struct bt_http_header *headers;
	size_t n_headers;
	const void *body;
	size_t body_len;		   /* borrowed until done */
	const struct bt_tls_identity *tls; /* copied; NULL: system trust */
	bool insecure;			   /* health checks of a local https app */
	bool no_reuse;			   /* a fresh connection (confirmation through a proxy) */
	int64_t timeout_ms;		   /* whole exchange; 0: none (streams) */
	int64_t connect_timeout_ms;	   /* 0: 5 s */
	size_t max_body;		   /* beyond it the request fails; 0: 1 MiB */
	/* A stream: called with each piece instead of collecting. NULL: collect.
	 * Return false to end the transfer (done gets BT_E_REFUSED). */
	bool (*on_data)(void *arg, const void *data, size_t n);
	/* Called once headers are in, before data; may be NULL. */
	void (*on_headers)(void *arg, int status);
	/* Upload or download progress in bytes; may be NULL. */
	void (*on_progress)(void *arg, int64_t sent, int64_t received);
};
struct bt_http_response {
	int status; /* 0: no answer, see err */
	const char *body;
	size_t body_len; /* NUL added; borrowed during done */
	/* header by lower-case name, or NULL */
	const char *(*header)(const struct bt_http_response *r, const char *name);
	bool sent; /* some of the request's body has left, so the peer may have acted on it; of
		      requests with a body */
	void *priv;
};
struct bt_http_call;
/* done exactly once, from the loop, unless cancelled. err is set when status is 0
 * (BT_E_UNREACHABLE / BT_E_TIMEOUT, with the peer's address and the reason). Never fails itself. */
struct bt_http_call *bt_http_start(struct bt_http_client *c, const struct bt_http_request *rq,
	void (*done)(void *arg, const struct bt_http_response *, const struct bt_err *err),
	void *arg);
struct bt_http_call *bt_http_cancel(struct bt_http_call *call); /* NULL is fine; returns NULL */
