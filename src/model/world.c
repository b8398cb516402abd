/* Observations as JSON. They come from agents, which may be older or hostile: strings and lists
 * are bounded, unknown members are left alone, and nothing here is an index. */
#include "model/world.h"

#include "base/json.h"
#include "base/str.h"
#include "model/service.h"

#include <string.h>

enum { MAX_LIST = 8192, MAX_TEXT = 4096 };

static const struct bt_enum run_states = {(const struct bt_enum_name[]){{"absent", BT_RUN_ABSENT},
	{"starting", BT_RUN_STARTING}, {"running", BT_RUN_RUNNING}, {"crashing", BT_RUN_CRASHING},
	{"stopping", BT_RUN_STOPPING}, {NULL, 0}}};

const char *bt_run_state_name(enum bt_run_state s)
{
	return bt_enum_name(&run_states, s);
}

struct bt_world *bt_world_free(struct bt_world *w)
{
	if (w)
		bt_arena_free(w->arena); /* the world itself lies in it */
	return NULL;
}

static void put_str(json_t *o, const char *key, const char *text)
{
	if (text)
		json_object_set_new(o, key, json_string(text));
}

static json_t *foreign_to_json(const struct bt_seen_foreign *f)
{
	json_t *o = json_pack("{s:i, s:I}", "pid", f->pid, "size", (json_int_t)f->size);
	put_str(o, "command", f->command);
	put_str(o, "user", f->user);
	put_str(o, "unit", f->unit);
	put_str(o, "artifact", f->artifact);
	put_str(o, "digest", f->digest);
	put_str(o, "no_artifact", f->no_artifact);
	put_str(o, "trouble", f->trouble);
	return o;
}

static json_t *instance_to_json(const struct bt_seen_instance *i)
{
	json_t *o = json_object();
	put_str(o, "slot", i->slot);
	json_object_set_new(o, "port", json_integer(i->port));
	put_str(o, "state", bt_run_state_name(i->state));
	json_object_set_new(o, "release", json_integer(i->release));
	if (i->installed)
		json_object_set_new(o, "installed", json_integer(i->installed));
	put_str(o, "version", i->version);
	json_object_set_new(o, "pid", json_integer(i->pid));
	put_str(o, "holder", i->holder);
	put_str(o, "identity", i->identity);
	json_object_set_new(o, "since_wall_ms", json_integer(i->since_wall_ms));
	json_object_set_new(o, "restarts", json_integer(i->restarts));
	if (i->connections)
		json_object_set_new(o, "connections", json_integer(i->connections));
	if (i->health != BT_VITAL_UNKNOWN)
		json_object_set_new(o, "healthy", json_boolean(i->health == BT_VITAL_HEALTHY));
	put_str(o, "unhealthy_why", i->unhealthy_why);
	if (i->adopted)
		json_object_set_new(o, "adopted", json_true());
	if (i->foreign)
		json_object_set_new(o, "foreign", foreign_to_json(i->foreign));
	return o;
}

static json_t *balancer_to_json(const struct bt_seen_balancer *b)
{
	json_t *o = json_object(), *members = json_array();
	put_str(o, "name", b->name);
	json_object_set_new(o, "generation", json_integer((json_int_t)b->generation));
	json_object_set_new(o, "running", json_boolean(b->running));
	for (size_t i = 0; i < b->n_members; i++) {
		json_t *m = json_object();
		put_str(m, "address", b->members[i].address);
		json_object_set_new(m, "port", json_integer(b->members[i].port));
		json_object_set_new(m, "in", json_boolean(b->members[i].in));
		if (b->members[i].one)
			json_object_set_new(m, "one", json_true());
		put_str(m, "host", b->members[i].host);
		put_str(m, "slot", b->members[i].slot);
		if (b->members[i].counted)
			json_object_set_new(
				m, "connections", json_integer(b->members[i].connections));
		json_array_append_new(members, m);
	}
	json_object_set_new(o, "members", members);
	put_str(o, "identity", b->identity);
	json_object_set_new(o, "old_workers", json_integer(b->old_workers));
	put_str(o, "trouble", b->trouble);
	put_str(o, "refuses", b->refuses);
	return o;
}

json_t *bt_seen_host_to_json(const struct bt_seen_host *h)
{
	json_t *o = json_object(), *a = json_array();
	put_str(o, "host", h->host);
	put_str(o, "address", h->address);
	put_str(o, "agent_version", h->agent_version);
	json_object_set_new(o, "free_bytes", json_integer(h->free_bytes));
	json_object_set_new(o, "can_bind_low", json_boolean(h->can_bind_low));
	put_str(o, "no_exec", h->no_exec);
	for (size_t i = 0; i < h->n_instances; i++)
		json_array_append_new(a, instance_to_json(&h->instances[i]));
	json_object_set_new(o, "instances", a);
	a = json_array();
	for (size_t i = 0; i < h->n_balancers; i++)
		json_array_append_new(a, balancer_to_json(&h->balancers[i]));
	json_object_set_new(o, "balancers", a);
	a = json_array();
	for (size_t i = 0; i < h->n_vips; i++) {
		json_t *v = json_pack("{s:b}", "there", (int)h->vips[i].there);
		put_str(v, "address", h->vips[i].address);
		put_str(v, "trouble", h->vips[i].trouble);
		json_array_append_new(a, v);
	}
	if (h->n_vips)
		json_object_set(o, "vips", a);
	json_decref(a);
	a = json_array();
	for (size_t i = 0; i < h->n_releases; i++)
		json_array_append_new(a, json_integer(h->releases[i]));
	json_object_set_new(o, "releases", a);
	return o;
}

static int get_text(const json_t *o, const char *key, bool must, struct bt_arena *a,
	const char **ret, struct bt_err *err)
{
	return must ? bt_json_text(o, key, MAX_TEXT, a, ret, err)
		    : bt_json_text_opt(o, key, MAX_TEXT, a, ret, err);
}

static int read_foreign(
	const json_t *o, struct bt_arena *a, struct bt_seen_instance *i, struct bt_err *err)
{
	const json_t *j = json_object_get(o, "foreign");
	int64_t pid = 0;
	int r;
	if (!j)
		return 0;
	struct bt_seen_foreign *f = BT_ARENA_NEW(a, struct bt_seen_foreign);
	if ((r = bt_json_int(j, "pid", 0, INT32_MAX, &pid, err)) < 0 ||
		(r = bt_json_int_opt(j, "size", 0, INT64_MAX, &f->size, err)) < 0 ||
		(r = get_text(j, "command", false, a, &f->command, err)) < 0 ||
		(r = get_text(j, "user", false, a, &f->user, err)) < 0 ||
		(r = get_text(j, "unit", false, a, &f->unit, err)) < 0 ||
		(r = get_text(j, "artifact", false, a, &f->artifact, err)) < 0 ||
		(r = get_text(j, "digest", false, a, &f->digest, err)) < 0 ||
		(r = get_text(j, "no_artifact", false, a, &f->no_artifact, err)) < 0 ||
		(r = get_text(j, "trouble", false, a, &f->trouble, err)) < 0)
		return bt_err_wrap(err, "foreign");
	f->pid = (int)pid;
	i->foreign = f;
	return 0;
}

static int read_instance(
	const json_t *j, struct bt_arena *a, struct bt_seen_instance *i, struct bt_err *err)
{
	const char *state = "";
	int64_t port = 0, release = 0, installed = 0, pid = 0, since = 0, restarts = 0, open = 0;
	int value = 0, r;
	bool healthy = false;
	if ((r = get_text(j, "slot", true, a, &i->slot, err)) < 0 ||
		(r = bt_json_int(j, "port", 0, UINT16_MAX, &port, err)) < 0 ||
		(r = bt_json_str(j, "state", &state, err)) < 0 ||
		(r = bt_json_int_opt(j, "release", 0, UINT32_MAX, &release, err)) < 0 ||
		(r = bt_json_int_opt(j, "installed", 0, UINT32_MAX, &installed, err)) < 0 ||
		(r = get_text(j, "version", false, a, &i->version, err)) < 0 ||
		(r = bt_json_int_opt(j, "pid", 0, INT32_MAX, &pid, err)) < 0 ||
		(r = get_text(j, "holder", false, a, &i->holder, err)) < 0 ||
		(r = get_text(j, "identity", false, a, &i->identity, err)) < 0 ||
		(r = bt_json_int_opt(j, "since_wall_ms", 0, INT64_MAX, &since, err)) < 0 ||
		(r = bt_json_int_opt(j, "restarts", 0, INT32_MAX, &restarts, err)) < 0 ||
		(r = bt_json_int_opt(j, "connections", 0, UINT32_MAX, &open, err)) < 0 ||
		(r = bt_json_bool_opt(j, "adopted", &i->adopted, err)) < 0 ||
		(r = bt_json_bool_opt(j, "healthy", &healthy, err)) < 0 ||
		(r = get_text(j, "unhealthy_why", false, a, &i->unhealthy_why, err)) < 0 ||
		(r = read_foreign(j, a, i, err)) < 0)
		return r;
	if (bt_enum_parse(&run_states, state, &value, NULL) < 0)
		return bt_err_set(err, BT_E_PROTOCOL, "member 'state': unknown state '%s'", state);
	i->state = (enum bt_run_state)value;
	i->port = (uint16_t)port;
	i->release = (uint32_t)release;
	i->installed = (uint32_t)installed;
	i->pid = (int)pid;
	i->since_wall_ms = since;
	i->restarts = (int)restarts;
	i->connections = (uint32_t)open;
	if (json_object_get(j, "healthy"))
		i->health = healthy ? BT_VITAL_HEALTHY : BT_VITAL_UNHEALTHY;
	return 0;
}

static int read_members(
	const json_t *j, struct bt_arena *a, struct bt_seen_balancer *b, struct bt_err *err)
{
	json_t *list;
	int r = bt_json_list(j, "members", MAX_LIST, &list, &b->n_members, err);
	if (r < 0)
		return r;
	struct bt_seen_member *m = BT_ARENA_ARRAY(a, struct bt_seen_member, b->n_members);
	b->members = m;
	for (size_t i = 0; i < b->n_members; i++) {
		const json_t *o = json_array_get(list, i);
		int64_t port = 0;
		if ((r = get_text(o, "address", true, a, &m[i].address, err)) < 0 ||
			(r = bt_json_int(o, "port", 0, UINT16_MAX, &port, err)) < 0 ||
			(r = bt_json_bool(o, "in", &m[i].in, err)) < 0 ||
			(r = bt_json_bool_opt(o, "one", &m[i].one, err)) < 0 ||
			(r = get_text(o, "host", false, a, &m[i].host, err)) < 0 ||
			(r = get_text(o, "slot", false, a, &m[i].slot, err)) < 0)
			return bt_err_wrap(err, "members[%zu]", i);
		m[i].port = (uint16_t)port;
		int64_t connections = 0;
		m[i].counted = json_object_get(o, "connections") != NULL;
		if (m[i].counted &&
			(r = bt_json_int(o, "connections", 0, UINT32_MAX, &connections, err)) < 0)
			return bt_err_wrap(err, "members[%zu]", i);
		m[i].connections = (uint32_t)connections;
	}
	return 0;
}

static int read_balancer(
	const json_t *j, struct bt_arena *a, struct bt_seen_balancer *b, struct bt_err *err)
{
	int64_t generation = 0, old_workers = 0;
	int r;
	if ((r = get_text(j, "name", true, a, &b->name, err)) < 0 ||
		(r = bt_json_int(j, "generation", 0, INT64_MAX, &generation, err)) < 0 ||
		(r = bt_json_bool(j, "running", &b->running, err)) < 0 ||
		(r = read_members(j, a, b, err)) < 0 ||
		(r = get_text(j, "identity", false, a, &b->identity, err)) < 0 ||
		(r = bt_json_int_opt(j, "old_workers", 0, INT32_MAX, &old_workers, err)) < 0 ||
		(r = get_text(j, "trouble", false, a, &b->trouble, err)) < 0 ||
		(r = get_text(j, "refuses", false, a, &b->refuses, err)) < 0)
		return r;
	b->generation = (uint64_t)generation;
	b->old_workers = (int)old_workers;
	return 0;
}

static int read_vips(
	const json_t *j, struct bt_arena *a, struct bt_seen_host *h, struct bt_err *err)
{
	json_t *list;
	if (!json_object_get(j, "vips"))
		return 0;
	int r = bt_json_list(j, "vips", MAX_LIST, &list, &h->n_vips, err);
	if (r < 0)
		return r;
	struct bt_seen_vip *v = BT_ARENA_ARRAY(a, struct bt_seen_vip, h->n_vips);
	h->vips = v;
	for (size_t i = 0; i < h->n_vips; i++) {
		const json_t *o = json_array_get(list, i);
		if ((r = get_text(o, "address", true, a, &v[i].address, err)) < 0 ||
			(r = bt_json_bool(o, "there", &v[i].there, err)) < 0 ||
			(r = get_text(o, "trouble", false, a, &v[i].trouble, err)) < 0)
			return bt_err_wrap(err, "vips[%zu]", i);
	}
	return 0;
}

static int read_releases(
	const json_t *j, struct bt_arena *a, struct bt_seen_host *h, struct bt_err *err)
{
	json_t *list;
	int r = bt_json_list(j, "releases", MAX_LIST, &list, &h->n_releases, err);
	if (r < 0)
		return r;
	uint32_t *out = BT_ARENA_ARRAY(a, uint32_t, h->n_releases);
	for (size_t i = 0; i < h->n_releases; i++) {
		const json_t *v = json_array_get(list, i);
		if (!json_is_integer(v) || json_integer_value(v) < 1 ||
			json_integer_value(v) > UINT32_MAX)
			return bt_err_set(err, BT_E_PROTOCOL,
				"member 'releases': entry %zu is no release", i);
		out[i] = (uint32_t)json_integer_value(v);
	}
	h->releases = out;
	return 0;
}

int bt_seen_host_from_json(
	const json_t *j, struct bt_arena *a, struct bt_seen_host *ret, struct bt_err *err)
{
	struct bt_seen_host h = {0};
	json_t *list;
	int r;
	if ((r = get_text(j, "host", true, a, &h.host, err)) < 0 ||
		(r = get_text(j, "address", false, a, &h.address, err)) < 0 ||
		(r = get_text(j, "agent_version", false, a, &h.agent_version, err)) < 0 ||
		(r = bt_json_int_opt(j, "free_bytes", 0, INT64_MAX, &h.free_bytes, err)) < 0 ||
		(r = bt_json_bool_opt(j, "can_bind_low", &h.can_bind_low, err)) < 0 ||
		(r = get_text(j, "no_exec", false, a, &h.no_exec, err)) < 0 ||
		(r = bt_json_list(j, "instances", MAX_LIST, &list, &h.n_instances, err)) < 0)
		return bt_err_wrap(err, "host");
	struct bt_seen_instance *in = BT_ARENA_ARRAY(a, struct bt_seen_instance, h.n_instances);
	h.instances = in;
	for (size_t i = 0; i < h.n_instances; i++)
		if ((r = read_instance(json_array_get(list, i), a, &in[i], err)) < 0)
			return bt_err_wrap(err, "host %s: instances[%zu]", h.host, i);
	if ((r = bt_json_list(j, "balancers", MAX_LIST, &list, &h.n_balancers, err)) < 0)
		return bt_err_wrap(err, "host %s", h.host);
	struct bt_seen_balancer *b = BT_ARENA_ARRAY(a, struct bt_seen_balancer, h.n_balancers);
	h.balancers = b;
	for (size_t i = 0; i < h.n_balancers; i++)
		if ((r = read_balancer(json_array_get(list, i), a, &b[i], err)) < 0)
			return bt_err_wrap(err, "host %s: balancers[%zu]", h.host, i);
	if ((r = read_vips(j, a, &h, err)) < 0 || (r = read_releases(j, a, &h, err)) < 0)
		return bt_err_wrap(err, "host %s", h.host);
	*ret = h;
	return 0;
}

json_t *bt_world_to_json(const struct bt_world *w)
{
	json_t *o = json_object(), *a = json_array();
	json_object_set_new(o, "version", json_integer(BT_WORLD_VERSION));
	for (size_t i = 0; i < w->n_hosts; i++)
		json_array_append_new(a, bt_seen_host_to_json(&w->hosts[i]));
	json_object_set_new(o, "hosts", a);
	return o;
}

int bt_world_from_json(const json_t *j, struct bt_world **ret, struct bt_err *err)
{
	BT_ARENA struct bt_arena *arena = bt_arena_new();
	struct bt_world *w = BT_ARENA_NEW(arena, struct bt_world);
	w->arena = arena;
	int64_t version;
	json_t *list;
	int r;
	if ((r = bt_json_int(j, "version", 1, BT_WORLD_VERSION, &version, err)) < 0 ||
		(r = bt_json_list(j, "hosts", MAX_LIST, &list, &w->n_hosts, err)) < 0)
		return bt_err_wrap(err, "world");
	struct bt_seen_host *h = BT_ARENA_ARRAY(arena, struct bt_seen_host, w->n_hosts);
	w->hosts = h;
	for (size_t i = 0; i < w->n_hosts; i++)
		if ((r = bt_seen_host_from_json(json_array_get(list, i), arena, &h[i], err)) < 0)
			return bt_err_wrap(err, "world: hosts[%zu]", i);
	BT_STEAL(arena);
	*ret = w;
	return 0;
}
