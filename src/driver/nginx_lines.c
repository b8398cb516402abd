/* Directives of a managed server and its routes: baton's own, and what the service adds.
 *
 * What the service says takes the place of what baton says for the same thing. And nginx inherits
 * proxy_set_header and add_header only where a level has none of its own; a route that adds one
 * header does not mean to lose Host, so what would be inherited is said again there. */
#include "config/keys.h"
#include "driver/nginx_render.h"

#include <string.h>
#include <strings.h>

/* A request that may have had an effect (POST, PATCH, LOCK) is not sent twice: non_idempotent is
 * not among the reasons. */
static const char *const own[] = {
	"proxy_http_version 1.1",
	"proxy_set_header Host $baton_host",
	"proxy_set_header X-Real-IP $remote_addr",
	"proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for",
	"proxy_set_header X-Forwarded-Proto $scheme",
	"proxy_set_header Upgrade $http_upgrade",
	"proxy_set_header Connection $baton_connection",
	"proxy_connect_timeout 5s",
	"proxy_next_upstream error timeout",
};

static const char *const own_tls[] = {
	"ssl_protocols TLSv1.2 TLSv1.3",
	"ssl_session_cache shared:baton:1m",
};

static const char *const listed[] = {"proxy_set_header", "add_header"};

static size_t name_len(const char *line)
{
	return strcspn(line, " ");
}

static bool is_list(const char *line)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(listed); i++)
		if (strlen(listed[i]) == name_len(line) &&
			!strncmp(listed[i], line, name_len(line)))
			return true;
	return false;
}

/* The value's first word, without quotes: a header's name. */
static const char *key_of(const char *line, size_t *ret_n)
{
	const char *p = line + name_len(line);
	p += strspn(p, " ");
	p += *p == '"' || *p == '\'';
	*ret_n = strcspn(p, " \"'");
	return p;
}

static bool same_thing(const char *a, const char *b)
{
	size_t n = name_len(a), ka = 0, kb = 0;
	if (name_len(b) != n || strncmp(a, b, n) != 0)
		return false;
	const char *x = key_of(a, &ka), *y = key_of(b, &kb);
	return !is_list(a) || (ka == kb && !strncasecmp(x, y, ka));
}

static bool said(const char *line, const char *const *lines, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (same_thing(line, lines[i]))
			return true;
	return false;
}

static bool has_name_of(const char *line, const char *const *lines, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (name_len(line) == name_len(lines[i]) &&
			!strncmp(line, lines[i], name_len(line)))
			return true;
	return false;
}

static void add(struct bt_str *out, int indent, const char *line)
{
	bt_str_addf(out, "%*s%s;\n", indent, "", line);
}

int bt_nginx_render_check_lines(const struct bt_nginx *n, struct bt_err *err)
{
	for (size_t k = 0; k <= n->n_routes; k++) {
		bool server = k == n->n_routes;
		const char *const *lines = server ? n->directives : n->routes[k].directives;
		size_t n_lines = server ? n->n_directives : n->routes[k].n_directives;
		for (size_t i = 0; i < n_lines; i++)
			if (!bt_check_directive(lines[i]))
				return bt_err_set(err, BT_E_CONFIG,
					"nginx: directive '%s': expected " BT_DIRECTIVE_EXPECTED,
					lines[i]);
	}
	return 0;
}

void bt_nginx_render_tls_lines(const struct bt_nginx *n, struct bt_str *out)
{
	for (size_t i = 0; n->certificate && i < BT_ARRAY_LEN(own_tls); i++)
		if (!said(own_tls[i], n->directives, n->n_directives))
			add(out, 8, own_tls[i]);
}

void bt_nginx_render_server_lines(const struct bt_nginx *n, struct bt_str *out)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(own); i++)
		if (!said(own[i], n->directives, n->n_directives))
			add(out, 8, own[i]);
	for (size_t i = 0; i < n->n_directives; i++)
		add(out, 8, n->directives[i]);
}

/* A parent's line that nginx would not inherit. */
static bool lost(const char *line, const struct bt_route *route)
{
	return is_list(line) && has_name_of(line, route->directives, route->n_directives) &&
	       !said(line, route->directives, route->n_directives);
}

void bt_nginx_render_route_lines(
	const struct bt_nginx *n, const struct bt_route *route, struct bt_str *out)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(own); i++)
		if (lost(own[i], route) && !said(own[i], n->directives, n->n_directives))
			add(out, 12, own[i]);
	for (size_t i = 0; i < n->n_directives; i++)
		if (lost(n->directives[i], route))
			add(out, 12, n->directives[i]);
	for (size_t i = 0; i < route->n_directives; i++)
		add(out, 12, route->directives[i]);
}
