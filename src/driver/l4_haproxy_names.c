/* Which server of the backend is which instance. A person has named them; a template says how, or
 * else the address does, as baton and haproxy both know it. */
#include "driver/l4_haproxy.h"

#include "config/config.h"

#include <arpa/inet.h>
#include <string.h>

static bool name_of(const struct bt_service *s, const char *host, const char *slot, uint16_t port,
	struct bt_str *out)
{
	const struct bt_placeholders p = {
		.artifact = "", .release = "", .host = host, .slot = slot, .port = port};
	bt_str_reset(out);
	return bt_config_expand(s->l4->haproxy.server, &p, out, NULL) == 0;
}

static bool same_address(const char *a, const char *b)
{
	unsigned char x[16], y[16];
	int family = strchr(a, ':') ? AF_INET6 : AF_INET;
	size_t n = family == AF_INET6 ? 16 : 4;
	return bt_streq(a, b) || (inet_pton(family, a, x) == 1 && inet_pton(family, b, y) == 1 &&
					 memcmp(x, y, n) == 0);
}

const struct bt_haproxy_server *bt_haproxy_find(
	const struct bt_service *s, const struct bt_haproxy_view *v, const struct bt_pool_member *m)
{
	BT_STR struct bt_str name = {0};
	bool named = s->l4->haproxy.server && name_of(s, m->host, m->slot, m->port, &name);
	for (size_t i = 0; i < v->n_servers; i++) {
		const struct bt_haproxy_server *h = &v->servers[i];
		if (named ? bt_streq(h->name, bt_str_get(&name))
			  : h->port == m->port && same_address(h->address, m->address))
			return h;
	}
	return NULL;
}

#define LISTED 20

int bt_haproxy_no_server(struct bt_err *err, const struct bt_service *s,
	const struct bt_haproxy_view *v, const struct bt_pool_member *m)
{
	const struct bt_haproxy *h = &s->l4->haproxy;
	BT_STR struct bt_str name = {0}, list = {0};
	BT_FREE const char **names = bt_calloc(v->n_servers + 1, sizeof *names);
	for (size_t i = 0; i < v->n_servers; i++) {
		names[i] = v->servers[i].name;
		if (i < LISTED)
			bt_str_addf(&list, "%s%s", i ? ", " : "", names[i]);
		if (i < LISTED && !h->server)
			bt_str_addf(&list, " (%s:%u)", v->servers[i].address, v->servers[i].port);
	}
	bt_str_add(&list, v->n_servers > LISTED ? ", …" : "");
	const char *host = bt_haproxy_env()->host;
	const char *has = v->n_servers ? bt_str_get(&list) : "none";
	if (!h->server || !name_of(s, m->host, m->slot, m->port, &name))
		return bt_err_set(err, BT_E_NOTFOUND,
			"haproxy on %s knows no server at %s:%u (%s/%s) in backend %s; it has %s: "
			"name them by traffic.haproxy.server, such as '{host}-{slot}'",
			host, m->address, m->port, m->host, m->slot, h->backend, has);
	const char *near = bt_nearest(bt_str_get(&name), names, v->n_servers);
	return bt_err_set(err, BT_E_NOTFOUND,
		"haproxy on %s knows no server %s (%s/%s) in backend %s%s%s%s; it has %s", host,
		bt_str_get(&name), m->host, m->slot, h->backend, near ? " (did you mean " : "",
		near ? near : "", near ? "?)" : "", has);
}

int bt_haproxy_check_level(
	struct bt_err *err, const struct bt_haproxy *h, const struct bt_haproxy_view *v)
{
	if (v->admin)
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"haproxy's stats socket %s does not let its state be changed: write 'level admin' "
		"at its 'stats socket' line",
		h->socket);
}
