/* One service: defaults from the table, what the file gives, what follows from it, and then what
 * must hold together. Every problem is told; the caller throws the result away if there is one. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

static void *field(struct bt_reading *r, const struct bt_key *k, size_t offset)
{
	char *base = k->in == BT_IN_NGINX ? (char *)r->nginx
		     : k->in == BT_IN_L4  ? (char *)r->l4
					  : (char *)r->service;
	return base + offset;
}

static void defaults(struct bt_reading *r, enum bt_key_in in)
{
	for (size_t i = 0; i < bt_n_keys; i++) {
		const struct bt_key *k = &bt_keys[i];
		if (!k->def || k->in != in || (in == BT_IN_L4 && k->family != r->l4->kind))
			continue;
		r->key = k;
		struct bt_node *n = bt_node_scalar(r->arena, k->def);
		n->plain = true;
		k->type->read(r, k, n, field(r, k, k->offset), field(r, k, k->count));
	}
}

static void need_nginx(struct bt_reading *r)
{
	if (r->nginx)
		return;
	r->nginx = BT_ARENA_NEW(r->arena, struct bt_nginx);
	r->nginx->mode = BT_NGINX_MANAGED;
	r->service->nginx = r->nginx;
	defaults(r, BT_IN_NGINX);
}

/* The first family that is named counts; another one beside it is told (together.c). */
static bool need_l4(struct bt_reading *r, enum bt_balancer_kind family)
{
	if (r->l4)
		return r->l4->kind == family;
	r->l4 = BT_ARENA_NEW(r->arena, struct bt_l4);
	r->l4->kind = family;
	r->service->l4 = r->l4;
	defaults(r, BT_IN_L4);
	return true;
}

static void read_group(struct bt_reading *r, const char *path, const struct bt_node *n);

static void read_value(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n)
{
	r->at[bt_key_index(k)] = n;
	if (k->in == BT_IN_NGINX)
		need_nginx(r);
	if (k->in == BT_IN_L4 && !need_l4(r, k->family))
		return;
	if (k->when == BT_KEY_ADOPT && !k->type)
		r->nginx->mode = BT_NGINX_ADOPT;
	if (!k->type) {
		if (k->shorthand && n->kind == BT_NODE_SCALAR && !bt_node_is_null(n)) {
			BT_FREE char *path = bt_asprintf("%s.%s", k->path, k->shorthand);
			read_value(r, bt_key_path(path), n);
		} else if (n->kind != BT_NODE_MAP)
			bt_problem(r->sink, n, "%s: expected a map of its keys, found %s", k->path,
				bt_node_shown(r->arena, n));
		else
			read_group(r, k->path, n);
		return;
	}
	if (bt_node_is_null(n)) {
		bt_problem(r->sink, n, "%s: expected a %s, found nothing", k->path, k->type->name);
		return;
	}
	r->key = k;
	k->type->read(r, k, n, field(r, k, k->offset), field(r, k, k->count));
}

static void read_group(struct bt_reading *r, const char *path, const struct bt_node *n)
{
	for (size_t i = 0; i < n->n; i++) {
		const char *near = NULL;
		const struct bt_key *k = bt_key_find(path, n->keys[i]->text, &near);
		if (k) {
			read_value(r, k, n->items[i]);
			continue;
		}
		bt_problem(r->sink, n->keys[i], "unknown key %s%s%s%s%s%s",
			bt_node_shown(r->arena, n->keys[i]), *path ? " in " : "", path,
			near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	}
}

bool bt_config_is_archive(const char *name)
{
	static const char *const ends[] = {".tar.gz", ".tgz", ".tar.zst", ".zip"};
	for (size_t i = 0; i < BT_ARRAY_LEN(ends); i++)
		if (bt_str_ends(name, ends[i]))
			return true;
	return false;
}

/* A config that names no file, or a pattern that leaves its ending open, leaves it to what came. */
static bool is_open(const struct bt_service *s)
{
	return !s->artifact || bt_str_ends(s->artifact, "*");
}

bool bt_config_unpacks(const struct bt_service *s, const char *file_name)
{
	if (s->run.as == BT_RUNTIME_BUNDLE)
		return true;
	return s->unpack && (!is_open(s) || bt_config_is_archive(file_name) ||
				    (s->run.as == BT_RUNTIME_TOMCAT && s->tomcat.exploded));
}

static const struct bt_node *scalar(struct bt_reading *r, const char *text)
{
	return bt_node_scalar(r->arena, text);
}

/* nginx and haproxy would take an `@` for something else. */
static const char *upstream_of(struct bt_reading *r)
{
	char *name = bt_arena_strdup(r->arena, r->service->name);
	char *at = name ? strchr(name, '@') : NULL;
	if (at)
		*at = '-';
	return name;
}

static void derive_nginx(struct bt_reading *r)
{
	struct bt_nginx *n = r->nginx;
	if (!n->n_on) {
		n->on = r->service->hosts;
		n->n_on = 1;
	}
	if (n->mode == BT_NGINX_ADOPT) {
		if (!n->upstream)
			n->upstream = upstream_of(r);
		if (!n->variable)
			n->variable =
				n->form == BT_NGINX_SERVICE_URL ? "service_url" : "service_port";
		n->server_name = NULL;
		n->keepalive = 0;
		return;
	}
	if (!n->listen)
		n->listen = n->certificate ? "8443" : "8080";
	if (!n->n_routes) {
		struct bt_route *route = BT_ARENA_NEW(r->arena, struct bt_route);
		*route = (struct bt_route){.path = "/", .to = BT_ROUTE_ALL};
		n->routes = route;
		n->n_routes = 1;
	}
}

static void derive_l4(struct bt_reading *r)
{
	struct bt_l4 *l = r->l4;
	if (!l->n_on && l->kind != BT_BALANCER_ROTATION) {
		l->on = r->service->hosts;
		l->n_on = 1;
	}
	if (l->kind == BT_BALANCER_HAPROXY && !l->haproxy.backend)
		l->haproxy.backend = upstream_of(r);
	if (l->vip && !l->port && r->service->run.n_slots == 1)
		l->port = r->service->run.slots[0].port;
}

/* Defaults that depend on other values. Idempotent: a printed config reads to the same. */
static void derive(struct bt_reading *r)
{
	struct bt_service *s = r->service;
	if (!s->n_hosts) {
		const char **hosts = BT_ARENA_ARRAY(r->arena, const char *, 1);
		hosts[0] = "local";
		s->hosts = hosts;
		s->n_hosts = 1;
	}
	if (!bt_reading_at(r, "unpack"))
		s->unpack = is_open(s) || bt_config_is_archive(s->artifact) ||
			    (s->run.as == BT_RUNTIME_TOMCAT && s->tomcat.exploded);
	if (s->run.as == BT_RUNTIME_BUNDLE) {
		s->unpack = true;
		s->deploy.strategy = s->deploy.codedeploy.style == BT_CODEDEPLOY_BLUE_GREEN
					     ? BT_STRATEGY_BLUE_GREEN
					     : BT_STRATEGY_ROLLING;
	}
	if (!s->run.n_stop) {
		struct bt_node *empty = bt_node_scalar(r->arena, "");
		empty->kind = BT_NODE_MAP;
		bt_type_stop.read(r, bt_key_path("run.stop"), empty, &s->run.stop, &s->run.n_stop);
	}
	if (!bt_reading_at(r, "health.http") && !bt_reading_at(r, "health.https") &&
		!bt_reading_at(r, "health.exec"))
		s->health.kind = BT_HEALTH_TCP;
	if (s->identity.path && !s->identity.expect)
		s->identity.expect = scalar(r, "{slot}")->text;
	if (r->l4 && r->l4->mode == BT_L4_DSR && r->l4->vip && !s->loopback.n_vips) {
		s->loopback.vips = &r->l4->vip;
		s->loopback.n_vips = 1;
	}
	if (r->nginx)
		derive_nginx(r);
	if (r->l4)
		derive_l4(r);
}

void bt_reading_service(struct bt_reading *r)
{
	struct bt_service *s = r->service;
	*s = (struct bt_service){.file = r->sink->file, .line = r->node->line};
	s->run.limits = (struct bt_limits){-1, -1, -1, -1};
	s->deploy.min_in_rotation = s->deploy.codedeploy.min_healthy = -1;
	r->nginx = NULL;
	r->l4 = NULL;
	r->at = BT_ARENA_ARRAY(r->arena, const struct bt_node *, bt_n_keys);
	defaults(r, BT_IN_SERVICE);
	read_group(r, "", r->node);
	for (size_t i = 0; i < bt_n_keys; i++)
		if (bt_keys[i].required && !bt_keys[i].derived && !r->at[i] &&
			bt_key_applies(s, &bt_keys[i]))
			bt_problem(r->sink, r->node, "'%s' is missing: expected for example %s: %s",
				bt_keys[i].path, bt_keys[i].path, bt_keys[i].example);
	derive(r);
	bt_config_check_service(r);
}
