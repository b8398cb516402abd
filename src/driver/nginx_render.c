/* The text is compared byte for byte with golden files, and then nginx itself accepts it.
 *
 * Every upstream names the slots that are out of rotation as `backup`: a connection that a worker
 * with the previous configuration still holds finds the new slot that way when the old one has
 * stopped. They cost nothing while a primary answers.
 *
 * max_fails: where one primary is alone, marking it as failed could only turn one error into
 * seconds of 502s, so it is 0. Where there are several, a dead one is left out for a second. */
#include "driver/nginx_render.h"

#include <stdio.h>
#include <string.h>

/* ---- what may be written ------------------------------------------------------------------ */

static int check_text(
	const char *what, const char *text, const char *allowed_extra, struct bt_err *err)
{
	if (!text || !*text)
		return bt_err_set(err, BT_E_CONFIG, "nginx: %s is empty", what);
	for (const char *p = text; *p; p++) {
		unsigned char c = (unsigned char)*p;
		bool word =
			(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!word && !strchr(allowed_extra, c))
			return bt_err_set(err, BT_E_CONFIG,
				"nginx: %s '%s': character '%c' (0x%02x) is not allowed here", what,
				text, c >= 32 && c < 127 ? c : '?', c);
	}
	return 0;
}

static int check_path(const char *what, const char *text, struct bt_err *err)
{
	if (!text || text[0] != '/')
		return bt_err_set(err, BT_E_CONFIG, "nginx: %s '%s': an absolute path is expected",
			what, text ? text : "");
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 32 || strchr("\"\\$", *p))
			return bt_err_set(err, BT_E_CONFIG,
				"nginx: %s '%s': control characters and \" \\ $ are not allowed",
				what, text);
	return 0;
}

static int check_pool(const struct bt_pool *pool, struct bt_err *err)
{
	int r = check_text("service name", pool->service_name, "._-@", err);
	for (size_t i = 0; r == 0 && i < pool->n_members; i++) {
		r = check_text("address", pool->members[i].address, ".:-_", err);
		if (r == 0)
			r = check_text("slot", pool->members[i].slot, "._-", err);
		if (r == 0)
			r = check_text("host", pool->members[i].host, "._-", err);
	}
	return r;
}

/* ---- pieces ------------------------------------------------------------------------------- */

const char *bt_nginx_address(const char *address, uint16_t port, char *buf, size_t n)
{
	bool v6 = strchr(address, ':') != NULL;
	snprintf(buf, n, v6 ? "[%s]:%u" : "%s:%u", address, (unsigned)port);
	return buf;
}

static size_t count_in(const struct bt_pool *pool)
{
	size_t n = 0;
	for (size_t i = 0; i < pool->n_members; i++)
		n += pool->members[i].in;
	return n;
}

static void head(const struct bt_pool *pool, struct bt_str *out)
{
	bt_str_addf(out,
		"# Written by baton for service %s, generation %llu.\n"
		"# It is replaced at the next switch: change baton.yaml instead.\n",
		pool->service_name, (unsigned long long)pool->generation);
}

enum pick { PICK_ALL, PICK_ONE };

/* Who serves the routes to one instance; NULL: nobody is in rotation. */
static const struct bt_pool_member *the_one(const struct bt_pool *pool)
{
	const struct bt_pool_member *first = NULL;
	for (size_t i = pool->n_members; i-- > 0;)
		if (pool->members[i].in && (!first || !first->one || pool->members[i].one))
			first = &pool->members[i];
	return first;
}

static void servers(
	const struct bt_pool *pool, enum pick pick, const char *indent, struct bt_str *out)
{
	char addr[300];
	const struct bt_pool_member *only = pick == PICK_ONE ? the_one(pool) : NULL;
	size_t n_in = count_in(pool), n_primary = only ? 1 : n_in;
	size_t width = 0;
	for (size_t i = 0; i < pool->n_members; i++) {
		const struct bt_pool_member *m = &pool->members[i];
		size_t k = strlen(bt_nginx_address(m->address, m->port, addr, sizeof addr));
		width = k > width ? k : width;
	}
	for (size_t i = 0; i < pool->n_members; i++) {
		const struct bt_pool_member *m = &pool->members[i];
		bool primary = only ? m == only : m->in;
		const char *how = n_in == 0 || (pool->down && pool->down[i]) ? "down;"
				  : !primary				     ? "backup max_fails=0;"
				  : n_primary == 1			     ? "max_fails=0;"
						   : "max_fails=1 fail_timeout=1s;";
		bt_nginx_address(m->address, m->port, addr, sizeof addr);
		bt_str_addf(out, "%sserver %-*s %-28s # %s/%s\n", indent, (int)width, addr, how,
			m->host, m->slot);
	}
}

/* ---- adopt -------------------------------------------------------------------------------- */

static void adopted_upstream(
	const struct bt_pool *pool, enum pick pick, const char *name, struct bt_str *out)
{
	int keepalive = pool->service->nginx->keepalive;
	bt_str_addf(out, "upstream %s {\n", name);
	servers(pool, pick, "    ", out);
	if (keepalive > 0 && count_in(pool) > 0)
		bt_str_addf(out, "    keepalive %d;\n    keepalive_timeout 4s;\n", keepalive);
	bt_str_add(out, "}\n");
}

static int render_upstream(const struct bt_pool *pool, struct bt_str *out, struct bt_err *err)
{
	const struct bt_nginx *n = pool->service->nginx;
	const char *name = n->upstream ? n->upstream : pool->service_name;
	int r = check_text("upstream", name, "._-", err);
	if (r == 0 && n->one)
		r = check_text("one", n->one, "._-", err);
	if (r < 0)
		return r;
	if (pool->n_members == 0)
		return bt_err_set(
			err, BT_E_CONFIG, "nginx: upstream '%s' would have no server at all", name);
	head(pool, out);
	if (count_in(pool) == 0)
		bt_str_add(out, "# No instance is in rotation: nginx answers 502.\n");
	adopted_upstream(pool, PICK_ALL, name, out);
	if (n->one)
		adopted_upstream(pool, PICK_ONE, n->one, out);
	return 0;
}

static int render_variable(const struct bt_pool *pool, struct bt_str *out, struct bt_err *err)
{
	const struct bt_nginx *n = pool->service->nginx;
	bool port_form = n->form == BT_NGINX_SERVICE_PORT;
	const char *name = n->variable ? n->variable : port_form ? "service_port" : "service_url";
	if (name[0] == '$')
		name++;
	int r = check_text("variable", name, "_", err);
	if (r < 0)
		return r;
	if (count_in(pool) > 1)
		return bt_err_set(err, BT_E_CONFIG,
			"nginx: `set $%s` can send to one instance only, and %zu shall be in "
			"rotation: use `form: upstream` for more than one",
			name, count_in(pool));
	head(pool, out);
	const struct bt_pool_member *m = the_one(pool);
	char addr[300];
	if (!m)
		bt_str_addf(out, "# No instance is in rotation.\nset $%s %s;\nreturn 503;\n", name,
			port_form ? "0" : "http://127.0.0.1:0");
	else if (port_form)
		bt_str_addf(
			out, "# %s/%s\nset $%s %u;\n", m->host, m->slot, name, (unsigned)m->port);
	else
		bt_str_addf(out, "# %s/%s\nset $%s http://%s;\n", m->host, m->slot, name,
			bt_nginx_address(m->address, m->port, addr, sizeof addr));
	return 0;
}

/* A link to the file of the slot that is in rotation. With none the text is empty: the link stays
 * where it is, since taking it away would take the user's whole site away. */
static int render_link(const struct bt_pool *pool, struct bt_str *out, struct bt_err *err)
{
	const struct bt_nginx *n = pool->service->nginx;
	const struct bt_pool_member *to = NULL;
	for (size_t i = 0; i < pool->n_members; i++) {
		const struct bt_pool_member *m = &pool->members[i];
		if (to && m->in && !bt_streq(to->slot, m->slot))
			return bt_err_set(err, BT_E_CONFIG,
				"nginx: a site is one slot, and %s and %s shall be in rotation",
				to->slot, m->slot);
		if (m->in)
			to = m;
	}
	for (size_t i = 0; to && i < n->n_sites; i++)
		if (bt_streq(n->sites[i].key, to->slot)) {
			int r = check_path("site", n->sites[i].value, err);
			bt_str_addf(out, "-> %s", n->sites[i].value);
			return r;
		}
	return to ? bt_err_set(err, BT_E_CONFIG, "nginx: slot %s has no site", to->slot) : 0;
}

/* ---- managed ------------------------------------------------------------------------------ */

static int check_managed(
	const struct bt_nginx *n, const struct bt_nginx_layout *l, struct bt_err *err)
{
	int r = check_text("listen", n->listen, ".:[]*", err);
	if (r == 0 && n->redirect)
		r = check_text("redirect", n->redirect, ".:[]*", err);
	if (r == 0 && n->server_name)
		r = check_text("server_name", n->server_name, ".*_- ", err);
	if (r == 0 && (n->certificate || n->certificate_key)) {
		r = check_path("certificate", n->certificate, err);
		if (r == 0)
			r = check_path("certificate_key", n->certificate_key, err);
	}
	if (r == 0)
		r = bt_nginx_render_check_lines(n, err);
	if (r == 0)
		r = check_path("prefix", l->prefix, err);
	if (r == 0 && l->worker_user)
		r = check_text("user", l->worker_user, "_-", err);
	for (size_t i = 0; r == 0 && i < n->n_routes; i++) {
		r = check_text("route", n->routes[i].path, "/._-~%+@:,!", err);
		if (r == 0 && n->routes[i].path[0] != '/')
			r = bt_err_set(err, BT_E_CONFIG, "nginx: route '%s' must begin with /",
				n->routes[i].path);
	}
	return r;
}

static void managed_main(
	const struct bt_nginx *n, const struct bt_nginx_layout *l, struct bt_str *out)
{
	if (l->worker_user)
		bt_str_addf(out, "user %s;\n", l->worker_user);
	bt_str_addf(out,
		"worker_processes auto;\n"
		"worker_rlimit_nofile 8192;\n"
		"pid \"%s/nginx.pid\";\n"
		"error_log \"%s/logs/error.log\" warn;\n",
		l->prefix, l->prefix);
	if (n->worker_shutdown_timeout_ms > 0)
		bt_str_addf(out, "worker_shutdown_timeout %lldms;\n",
			(long long)n->worker_shutdown_timeout_ms);
	bt_str_add(out, "\nevents {\n    worker_connections 4096;\n}\n\n");
}

/* The log's first fields are for baton's own counting, so their order is a contract with
 * nginx_watch.c: time, status, seconds. */
static void managed_http(
	const struct bt_nginx *n, const struct bt_nginx_layout *l, struct bt_str *out)
{
	char size[32];
	static const char *const temp[] = {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"};
	for (size_t i = 0; i < BT_ARRAY_LEN(temp); i++)
		bt_str_addf(out, "    %s_temp_path \"%s/tmp/%s\";\n", temp[i], l->prefix, temp[i]);
	bt_str_addf(out,
		"\n"
		"    log_format baton '$msec $status $request_time $upstream_addr $upstream_status "
		"'\n"
		"                     '$upstream_response_time $remote_addr \"$request\" "
		"$body_bytes_sent';\n"
		"    access_log \"%s/logs/access.log\" baton;\n"
		"\n"
		"    server_tokens off;\n"
		"    tcp_nodelay on;\n"
		"    client_max_body_size %s;\n"
		"\n"
		"    map $http_upgrade $baton_connection {\n"
		"        default upgrade;\n"
		"        ''      '';\n"
		"    }\n"
		"    map $http_host $baton_host {\n"
		"        default $http_host;\n"
		"        ''      $host;\n"
		"    }\n"
		"\n",
		l->prefix, bt_size_format(n->max_body_bytes, size));
}

static void managed_upstreams(const struct bt_pool *pool, struct bt_str *out)
{
	static const struct {
		enum pick pick;
		const char *name;
	} ups[] = {{PICK_ONE, "baton_one"}, {PICK_ALL, "baton_all"}};
	for (size_t i = 0; i < BT_ARRAY_LEN(ups); i++) {
		bt_str_addf(out, "    upstream %s {\n", ups[i].name);
		servers(pool, ups[i].pick, "        ", out);
		/* Shorter than any common server's idle timeout, so that a POST is not sent down a
		 * connection that the app is about to close. */
		if (pool->service->nginx->keepalive > 0)
			bt_str_addf(out, "        keepalive %d;\n        keepalive_timeout 4s;\n",
				pool->service->nginx->keepalive);
		bt_str_add(out, "    }\n");
	}
	bt_str_add(out, "\n");
}

static void managed_server(const struct bt_pool *pool, struct bt_str *out)
{
	const struct bt_nginx *n = pool->service->nginx;
	static const struct bt_route everything = {.path = "/", .to = BT_ROUTE_ALL};
	const struct bt_route *routes = n->n_routes ? n->routes : &everything;
	size_t n_routes = n->n_routes ? n->n_routes : 1;
	bool root = false;
	bt_str_addf(out, "    server {\n        listen %s%s%s;\n        server_name %s;\n",
		n->listen, n->certificate ? " ssl" : "", n->certificate && n->http2 ? " http2" : "",
		n->server_name ? n->server_name : "_");
	if (n->certificate)
		bt_str_addf(out,
			"        ssl_certificate \"%s\";\n"
			"        ssl_certificate_key \"%s\";\n",
			n->certificate, n->certificate_key);
	bt_nginx_render_tls_lines(n, out);
	if (count_in(pool) == 0) {
		bt_str_addf(out,
			"\n"
			"        # No instance is in rotation.\n"
			"        location / {\n"
			"            default_type text/plain;\n"
			"            add_header Retry-After 5 always;\n"
			"            return 503 \"%s has no instance in rotation\\n\";\n"
			"        }\n    }\n",
			pool->service_name);
		return;
	}
	bt_str_add(out, "\n");
	bt_nginx_render_server_lines(n, out);
	for (size_t i = 0; i < n_routes; i++) {
		root = root || bt_streq(routes[i].path, "/");
		bt_str_addf(out, "\n        location %s {\n            proxy_pass http://%s;\n",
			routes[i].path, routes[i].to == BT_ROUTE_ONE ? "baton_one" : "baton_all");
		bt_nginx_render_route_lines(n, &routes[i], out);
		bt_str_add(out, "        }\n");
	}
	if (!root)
		bt_str_add(out, "\n        location / {\n            return 404;\n        }\n");
	bt_str_add(out, "    }\n");
}

/* 308: the method and the body stay as they are. */
static void managed_redirect(const struct bt_nginx *n, struct bt_str *out)
{
	if (!n->certificate || !n->redirect)
		return;
	const char *colon = strrchr(n->listen, ':'), *port = colon ? colon + 1 : n->listen;
	bool usual = bt_streq(port, "443");
	bt_str_addf(out,
		"\n    server {\n        listen %s;\n        server_name %s;\n"
		"        return 308 https://$host%s%s$request_uri;\n    }\n",
		n->redirect, n->server_name ? n->server_name : "_", usual ? "" : ":",
		usual ? "" : port);
}

static int render_managed(const struct bt_pool *pool, const struct bt_nginx_layout *l,
	struct bt_str *out, struct bt_err *err)
{
	const struct bt_nginx *n = pool->service->nginx;
	if (!l)
		return bt_err_set(err, BT_E_CONFIG, "nginx: a managed nginx needs its prefix");
	int r = check_managed(n, l, err);
	if (r < 0)
		return r;
	if (pool->n_members == 0)
		return bt_err_set(err, BT_E_CONFIG, "nginx: service %s has no slot to send to",
			pool->service_name);
	head(pool, out);
	managed_main(n, l, out);
	bt_str_add(out, "http {\n");
	managed_http(n, l, out);
	managed_upstreams(pool, out);
	managed_server(pool, out);
	managed_redirect(n, out);
	bt_str_add(out, "}\n");
	return 0;
}

int bt_nginx_render(const struct bt_pool *pool, const struct bt_nginx_layout *layout,
	struct bt_str *out, struct bt_err *err)
{
	const struct bt_nginx *n = pool->service->nginx;
	int r = check_pool(pool, err);
	if (r < 0)
		return r;
	if (n->mode == BT_NGINX_MANAGED)
		return render_managed(pool, layout, out, err);
	if (n->form == BT_NGINX_UPSTREAM)
		return render_upstream(pool, out, err);
	if (n->form == BT_NGINX_SITE)
		return render_link(pool, out, err);
	return render_variable(pool, out, err);
}

void bt_nginx_base_url(const struct bt_nginx *n, struct bt_str *out)
{
	if (n->url && *n->url) {
		size_t len = strlen(n->url);
		while (len > 0 && n->url[len - 1] == '/')
			len--;
		bt_str_addn(out, n->url, len);
		return;
	}
	if (n->mode != BT_NGINX_MANAGED || !n->listen)
		return;
	const char *listen = n->listen, *colon = strrchr(listen, ':');
	const char *port = colon && !strchr(colon, ']') ? colon + 1 : listen;
	size_t host_len = port == listen ? 0 : (size_t)(colon - listen);
	bool any = host_len == 0 || (host_len == 1 && listen[0] == '*') ||
		   (host_len == 7 && !strncmp(listen, "0.0.0.0", 7));
	bool any6 = host_len == 4 && !strncmp(listen, "[::]", 4);
	bt_str_add(out, n->certificate ? "https://" : "http://");
	if (any || any6)
		bt_str_add(out, any ? "127.0.0.1" : "[::1]");
	else
		bt_str_addn(out, listen, host_len);
	bt_str_addf(out, ":%s", port);
}
