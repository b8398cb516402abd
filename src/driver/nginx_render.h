/* What baton writes for nginx: text from a pool, nothing else. Pure: no files, no clock.
 *
 * adopt:   one file that the user's nginx includes (an upstream block, or one `set`).
 * managed: a whole configuration that runs from a private prefix. */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include "driver/driver.h"

struct bt_nginx_layout {	 /* managed only */
	const char *prefix;	 /* absolute directory: logs/, tmp/ and nginx.pid live below it */
	const char *worker_user; /* NULL: nginx's own default */
};

/* Appends to out. BT_E_CONFIG names what cannot be written (a character that would end a
 * directive, two instances in rotation where the file holds one `set`). layout may be NULL in
 * adopt mode. */
int bt_nginx_render(const struct bt_pool *pool, const struct bt_nginx_layout *layout,
	struct bt_str *out, struct bt_err *err);

/* nginx_lines.c: directives of a managed server and its routes, what baton says and what the
 * service adds; checked before, so that none ends another. */
int bt_nginx_render_check_lines(const struct bt_nginx *n, struct bt_err *err);
void bt_nginx_render_tls_lines(const struct bt_nginx *n, struct bt_str *out);
void bt_nginx_render_server_lines(const struct bt_nginx *n, struct bt_str *out);
void bt_nginx_render_route_lines(
	const struct bt_nginx *n, const struct bt_route *route, struct bt_str *out);

/* "127.0.0.1:8081", "[::1]:8081"; buf ≥ 300 bytes; returns buf. */
const char *bt_nginx_address(const char *address, uint16_t port, char *buf, size_t n);

/* Where a request through this nginx goes: "http://127.0.0.1:8080" without a path, by `url` or
 * `listen`; "" where neither is known. */
void bt_nginx_base_url(const struct bt_nginx *n, struct bt_str *out);
