/* From a head to an exchange: its route, parameters, query, and whether the peer may. */
#include "base/str.h"
#include "net/http_internal.h"
#include "net/x509.h"

#include <ctype.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http.h>
#include <string.h>
#include <strings.h>

static void read_certificate(struct bt_http_exchange *x, SSL *ssl)
{
	X509 *cert = ssl ? SSL_get0_peer_certificate(ssl) : NULL;
	if (!cert || SSL_get_verify_result(ssl) != X509_V_OK)
		return;
	if (bt_x509_cn(X509_get_subject_name(cert), x->cn, sizeof x->cn))
		bt_x509_serial(cert, x->serial);
}

/* "bytes=N-" */
static int64_t range_start(const char *value)
{
	int64_t n;
	if (!value || strncasecmp(value, "bytes=", 6) != 0 || !bt_str_ends(value, "-"))
		return -1;
	BT_FREE char *digits = bt_strndup(value + 6, strlen(value) - 7);
	return bt_int_parse(digits, 0, INT64_MAX / 2, &n, NULL) == 0 ? n : -1;
}

struct bt_http_exchange *bt_http_exchange_new(struct bt_http_conn *c, const char *head)
{
	struct bt_http_exchange *x = bt_calloc(1, sizeof *x);
	const struct bt_gate *g = &c->gate;
	x->conn = c;
	x->spec = &c->server->spec;
	x->head = bt_malloc(g->len + 1);
	memcpy(x->head, head, g->len);
	x->head[g->len] = 0;
	x->n_fields = g->n_fields;
	x->fields = bt_calloc(g->n_fields, sizeof *x->fields);
	memcpy(x->fields, g->fields, g->n_fields * sizeof *x->fields);
	/* after each of them stands a separator that is not needed any more */
	for (size_t i = 0; i < x->n_fields; i++) {
		x->head[x->fields[i].name.at + x->fields[i].name.len] = 0;
		x->head[x->fields[i].value.at + x->fields[i].value.len] = 0;
	}
	x->head[g->method.at + g->method.len] = 0;
	x->head[g->target.at + g->target.len] = 0;
	x->is_head = bt_streq(x->head + g->method.at, "HEAD");
	x->http10 = g->minor == 0;
	x->range_start = range_start(bt_http_request_header(x, "Range"));
	snprintf(x->peer, sizeof x->peer, "%s", c->peer);
	read_certificate(x, bufferevent_openssl_get_ssl(c->bev));
	return x;
}

struct bt_http_exchange *bt_http_exchange_free(struct bt_http_exchange *x)
{
	if (!x)
		return NULL;
	if (x->identity_free)
		x->identity_free(x->identity);
	if (x->has_query)
		evhttp_clear_headers(&x->query);
	for (size_t i = 0; i < x->n_params; i++)
		free(x->params[i]);
	bt_str_done(&x->body);
	bt_str_done(&x->reply_headers);
	free(x->fields);
	free(x->head);
	free(x->path);
	free(x->query_text);
	free(x);
	return NULL;
}

/* ---- the route ---- */

static bool escapes_hold(const char *text)
{
	for (const char *p = text; (p = strchr(p, '%')); p++)
		if (!isxdigit((unsigned char)p[1]) || !isxdigit((unsigned char)p[2]) ||
			(p[1] == '0' && p[2] == '0'))
			return false;
	return true;
}

/* One segment, unescaped; NULL where it is what could climb out of a directory. */
static char *segment(const char *text, size_t n)
{
	BT_FREE char *raw = bt_strndup(text, n);
	size_t len = 0;
	char *plain = evhttp_uridecode(raw, 0, &len);
	if (!plain || len == 0 || strchr(plain, '/') || bt_streq(plain, ".") ||
		bt_streq(plain, "..")) {
		free(plain);
		return NULL;
	}
	return plain;
}

static void forget_params(struct bt_http_exchange *x)
{
	while (x->n_params > 0)
		free(x->params[--x->n_params]);
}

static bool pattern_fits(struct bt_http_exchange *x, const char *pattern)
{
	const char *path = x->path;
	if (bt_streq(pattern, "*"))
		return true;
	while (*pattern || *path) {
		if (*pattern != '/' || *path != '/') /* one of them is at its end */
			return false;
		size_t want = strcspn(pattern + 1, "/") + 1, have = strcspn(path + 1, "/") + 1;
		if (pattern[1] == '{') {
			char *value = x->n_params < BT_ARRAY_LEN(x->params)
					      ? segment(path + 1, have - 1)
					      : NULL;
			if (!value)
				return false;
			x->params[x->n_params++] = value;
		} else if (want != have || memcmp(pattern, path, want) != 0) {
			return false;
		}
		pattern += want;
		path += have;
	}
	return true;
}

static const struct bt_route_row *find_row(
	struct bt_http_exchange *x, const char *method, bool *ret_path_known)
{
	for (size_t i = 0; i < x->spec->n_routes; i++) {
		const struct bt_route_row *row = &x->spec->routes[i];
		forget_params(x);
		if (!pattern_fits(x, row->pattern))
			continue;
		*ret_path_known = true;
		if (bt_streq(row->method, method))
			return row;
	}
	forget_params(x);
	return NULL;
}

/* A host without its port; an IPv6 address without its brackets too. */
static size_t host_name(const char **host)
{
	if (**host != '[')
		return strcspn(*host, ":");
	(*host)++;
	return strcspn(*host, "]");
}

static bool host_allowed(const struct bt_http_server_spec *spec, const char *host)
{
	size_t n = host_name(&host);
	for (size_t i = 0; i < spec->n_allowed_hosts; i++) {
		const char *name = spec->allowed_hosts[i];
		bool address = strchr(name, ':') && name[0] != '[';
		size_t len = address ? strlen(name) : host_name(&name);
		if (len == n && strncasecmp(name, host, n) == 0)
			return true;
	}
	return spec->n_allowed_hosts == 0;
}

static int split_target(struct bt_http_exchange *x, const char *target, struct bt_err *err)
{
	size_t n = strcspn(target, "?");
	x->path = bt_strndup(target, n);
	x->query_text = bt_strdup(target[n] ? target + n + 1 : "");
	if (!escapes_hold(target)) {
		bt_err_set(err, BT_E_PROTOCOL, "the path holds a broken %% escape");
		return 400;
	}
	if (evhttp_parse_query_str(x->query_text, &x->query) != 0) {
		bt_err_set(err, BT_E_PROTOCOL, "the query is not name=value&…");
		return 400;
	}
	x->has_query = true;
	return 0;
}

int bt_http_route(struct bt_http_exchange *x, const char *method, const char *target,
	const char *host, struct bt_err *err)
{
	bool known = false;
	if (!host_allowed(x->spec, host)) {
		bt_err_set(err, BT_E_REFUSED,
			"'%.100s' is not a name of this server: use one it was started with", host);
		return 403;
	}
	int status = split_target(x, target, err);
	if (status)
		return status;
	x->row = find_row(x, method, &known);
	if (!x->row && x->is_head)
		x->row = find_row(x, "GET", &known);
	if (x->row)
		return 0;
	bt_err_set(err, BT_E_NOTFOUND, known ? "%s is not a method of %.200s" : "no %s %.200s",
		method, x->path);
	return known ? 405 : 404;
}

int bt_http_authorize(struct bt_http_exchange *x, struct bt_err *err)
{
	enum bt_auth need = x->row->auth;
	if (need == BT_AUTH_AGENT && !x->cn[0]) {
		bt_err_set(err, BT_E_AUTH, "an agent shows its certificate here: join first");
		return 401;
	}
	int status = need == BT_AUTH_NONE ? 0 : 403;
	if (x->spec->authorize)
		status = x->spec->authorize(x, need, x->spec->arg, err);
	else if (status)
		bt_err_set(err, BT_E_REFUSED, "nobody may");
	if (status == 0 && need != BT_AUTH_NONE)
		bt_http_conn_known(x->conn);
	return status;
}

/* ---- what handlers ask ---- */

const char *bt_http_param(const struct bt_http_exchange *x, const char *name)
{
	size_t at = 0, len = strlen(name);
	for (const char *p = x->row ? x->row->pattern : ""; (p = strchr(p, '{')); p++, at++)
		if (strncmp(p + 1, name, len) == 0 && p[len + 1] == '}' && at < x->n_params)
			return x->params[at];
	return NULL;
}

const char *bt_http_path(const struct bt_http_exchange *x)
{
	return x->path;
}

const char *bt_http_query(const struct bt_http_exchange *x, const char *name)
{
	return x->has_query ? evhttp_find_header(&x->query, name) : NULL;
}

const char *bt_http_request_header(const struct bt_http_exchange *x, const char *name)
{
	for (size_t i = 0; i < x->n_fields; i++)
		if (strcasecmp(x->head + x->fields[i].name.at, name) == 0)
			return x->head + x->fields[i].value.at;
	return NULL;
}

const void *bt_http_body(const struct bt_http_exchange *x, size_t *ret_len)
{
	*ret_len = x->body.len;
	return bt_str_get(&x->body);
}

const char *bt_http_peer(const struct bt_http_exchange *x)
{
	return x->peer;
}

const char *bt_http_peer_serial(const struct bt_http_exchange *x)
{
	return x->serial[0] ? x->serial : NULL;
}

const char *bt_http_peer_cn(const struct bt_http_exchange *x)
{
	return x->cn[0] ? x->cn : NULL;
}

int64_t bt_http_range_start(const struct bt_http_exchange *x)
{
	return x->range_start;
}

void bt_http_set_identity(struct bt_http_exchange *x, void *identity, void (*free_fn)(void *))
{
	if (x->identity_free)
		x->identity_free(x->identity);
	x->identity = identity;
	x->identity_free = free_fn;
}

void *bt_http_identity(const struct bt_http_exchange *x)
{
	return x->identity;
}

void bt_http_on_close(struct bt_http_exchange *x, void (*fn)(void *arg), void *arg)
{
	x->on_close = fn;
	x->on_close_arg = arg;
}
