/* The gate: the one parser of HTTP requests. Pure and incremental: bytes in, a verdict out.
 *
 * Two readers that disagree about where a request ends are what request smuggling lives on, so
 * this one takes only what cannot be read in two ways. Refused are: bare CR or LF, control
 * characters, lines before the request line, folded headers, space before a colon, names that are
 * no tokens, a second header of a kind that counts once (Host, Content-Length, Authorization …), a
 * Content-Length that is not digits, Content-Length with Transfer-Encoding, any Transfer-Encoding
 * but chunked (or with HTTP/1.0), a missing or malformed Host, an absolute target whose authority
 * is not the Host, chunk extensions and trailers, versions other than 1.0 and 1.1. */
#pragma once
#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

enum {
	BT_GATE_HEAD_MAX = 32 * 1024, /* request line and headers; 431 beyond */
	BT_GATE_TARGET_MAX = 8 * 1024,
	BT_GATE_FIELDS_MAX = 100,
	BT_GATE_METHOD_MAX = 16,
};

struct bt_gate_span { /* offset and length within the head */
	uint16_t at, len;
};
struct bt_gate_field {
	struct bt_gate_span name, value; /* value without white space around it */
};
enum bt_gate_body { BT_GATE_BODY_NONE, BT_GATE_BODY_LENGTH, BT_GATE_BODY_CHUNKED };

struct bt_gate {	    /* zeroed to begin; one per request */
	bool host_optional; /* set by the caller: HTTP/1.0 may come without Host, as health checks
			       do */
	size_t at, line;
	bool has_request_line;
	/* valid once bt_gate_head gave 1 */
	size_t len; /* of the head, with its empty line */
	struct bt_gate_span method, target, host;
	int minor; /* HTTP/1.minor */
	enum bt_gate_body body;
	int64_t content_length;
	bool close;   /* the connection ends after the answer */
	bool expects; /* 100-continue */
	int status;   /* the answer to a violation: 400, 414, 431 */
	size_t n_fields;
	struct bt_gate_field fields[BT_GATE_FIELDS_MAX];
};
/* data: the request's bytes from its first one, more of them with each call (none is read twice).
 * 0: more is needed; 1: the head is whole; BT_E_PROTOCOL: a violation, see status. */
int bt_gate_head(struct bt_gate *g, const char *data, size_t n, struct bt_err *err);

struct bt_gate_chunked { /* zeroed to begin */
	int state, digits;
	uint64_t left;
};
/* Takes some bytes of a chunked body: *ret_used of them, of which ret_len at *ret_data are body.
 * 0: go on with the rest; 1: the body ended; BT_E_PROTOCOL. Uses at least one byte when n > 0. */
int bt_gate_chunked(struct bt_gate_chunked *c, const char *data, size_t n, size_t *ret_used,
	const char **ret_data, size_t *ret_len, struct bt_err *err);
