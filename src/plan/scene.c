#include "plan/scene.h"

#include "base/str.h"

#include <string.h>

static const struct bt_seen_host *find_host(const struct bt_world *w, const char *name)
{
	for (size_t i = 0; i < w->n_hosts; i++)
		if (bt_streq(w->hosts[i].host, name))
			return &w->hosts[i];
	return NULL;
}

static const struct bt_seen_instance *find_instance(const struct bt_seen_host *h, const char *slot)
{
	for (size_t i = 0; i < h->n_instances; i++)
		if (bt_streq(h->instances[i].slot, slot))
			return &h->instances[i];
	return NULL;
}

static bool loopback(const char *address)
{
	static const char *const names[] = {"127.0.0.1", "localhost", "::1", "[::1]", ""};
	for (size_t i = 0; i < BT_ARRAY_LEN(names); i++)
		if (bt_streq(address, names[i]))
			return true;
	return false;
}

static bool is_member(const struct bt_scene *s, const struct bt_scene_balancer *b,
	const struct bt_place *p, const struct bt_seen_member *m)
{
	const struct bt_seen_host *h = s->hosts[p->host];
	if (s->facts.own_host && h != b->host)
		return false;
	if (m->host && m->slot)
		return bt_streq(m->host, bt_scene_host(s, p)) &&
		       bt_streq(m->slot, bt_scene_slot(s, p));
	if (m->port != p->port)
		return false;
	return bt_streq(m->address, p->address) || bt_streq(m->address, h->address) ||
	       (h == b->host && loopback(m->address));
}

static int find_balancer(const struct bt_world *w, const struct bt_scene *s,
	struct bt_scene_balancer *b, struct bt_err *err)
{
	b->host = find_host(w, b->on);
	if (!b->host)
		return bt_err_set(err, BT_E_REFUSED,
			"host %s (%s of %s) has not reported: is its agent running?", b->on,
			s->facts.family, s->service->name);
	for (size_t i = 0; i < b->host->n_balancers; i++) {
		const struct bt_seen_balancer *seen = &b->host->balancers[i];
		size_t n = strlen(s->facts.family);
		if (bt_str_starts(seen->name, s->facts.family) && seen->name[n] == '/' &&
			bt_streq(seen->name + n + 1, s->service->name))
			b->seen = seen;
	}
	if (!b->seen && !(s->service->nginx && s->service->nginx->mode == BT_NGINX_MANAGED))
		return bt_err_set(err, BT_E_REFUSED,
			"host %s has not reported what %s/%s sends where: it cannot be told "
			"which slot is live",
			b->on, s->facts.family, s->service->name);
	return 0;
}

static int find_balancers(
	const struct bt_world *w, struct bt_arena *a, struct bt_scene *s, struct bt_err *err)
{
	const struct bt_balancer_facts *n = &s->facts;
	bt_service_balancer(s->service, &s->facts);
	if (n->kind == BT_BALANCER_NONE)
		return 0;
	if (n->n_on == 0 || (n->n_on > 32 && !n->own_host))
		return bt_err_set(err, BT_E_CONFIG, "service %s has %zu %s, expected 1 to 32",
			s->service->name, n->n_on, n->family);
	s->balancers = BT_ARENA_ARRAY(a, struct bt_scene_balancer, n->n_on);
	s->n_balancers = n->n_on;
	for (size_t i = 0; i < n->n_on; i++) {
		s->balancers[i].on = n->on[i];
		int r = find_balancer(w, s, &s->balancers[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Baton put it in while the config still named its host: the next switch takes it out. */
static bool is_gone(
	const struct bt_scene *s, const struct bt_scene_balancer *b, const struct bt_seen_member *m)
{
	if (b->seen->generation == 0 || loopback(m->address))
		return false;
	for (size_t h = 0; h < s->service->n_hosts; h++)
		if (bt_streq(s->hosts[h]->address, m->address))
			return false;
	return true;
}

static void match_members(struct bt_scene *s, size_t at)
{
	struct bt_scene_balancer *b = &s->balancers[at];
	size_t bit = s->facts.own_host ? 0 : at;
	for (size_t m = 0; b->seen && m < b->seen->n_members; m++) {
		const struct bt_seen_member *member = &b->seen->members[m];
		bool known = false;
		for (size_t i = 0; i < s->n_places; i++) {
			struct bt_place *p = &s->places[i];
			if (!is_member(s, b, p, member))
				continue;
			known = true;
			if (!member->in)
				continue;
			p->one = p->one || member->one;
			p->one_at |= (uint32_t)member->one << bit;
			p->in_at |= (uint32_t)1 << bit;
			s->n_in += !p->in;
			p->in = true;
		}
		if (known || !member->in)
			continue;
		if (is_gone(s, b, member))
			b->gone_member = member;
		else
			b->other_member = member;
	}
}

/* As the balancers reach it; NULL: its host has told no address. */
static const char *address_of(const struct bt_scene *s, const struct bt_seen_host *h)
{
	for (size_t i = 0; i < s->n_balancers && !s->facts.own_host; i++)
		if (s->balancers[i].host != h)
			return h->address;
	return "127.0.0.1";
}

static int fill_place(struct bt_scene *s, struct bt_place *p, struct bt_err *err)
{
	const struct bt_slot *slot = &s->service->run.slots[p->slot];
	const struct bt_seen_host *h = s->hosts[p->host];
	const struct bt_seen_instance *seen = find_instance(h, slot->name);
	p->port = slot->port;
	p->address = address_of(s, h);
	if (!p->address)
		return bt_err_set(err, BT_E_REFUSED,
			"host %s has told no address, so %s on %s cannot send to it", h->host,
			s->facts.family, s->facts.on[0]);
	if (!seen)
		return 0;
	p->state = seen->state;
	p->installed = seen->installed;
	if (bt_place_ours(p)) {
		p->release = seen->release;
		p->version = seen->version;
	}
	p->stranger = seen->holder;
	p->foreign = seen->foreign;
	p->adopted = bt_place_ours(p) && seen->adopted;
	p->pid = seen->pid;
	p->identity = seen->identity;
	p->since_wall_ms = seen->since_wall_ms;
	p->connections = seen->connections;
	p->health = seen->health;
	p->unhealthy_why = seen->unhealthy_why;
	return 0;
}

int bt_scene_look(const struct bt_service *service, const struct bt_world *w, struct bt_arena *a,
	struct bt_scene *ret, struct bt_err *err)
{
	struct bt_scene s = {.service = service};
	size_t n_slots = service->run.n_slots;
	int r = find_balancers(w, a, &s, err);
	if (r < 0)
		return r;
	s.n_places = service->n_hosts * n_slots;
	if (s.n_places == 0 || s.n_places > BT_PLAN_MAX_INSTANCES)
		return bt_err_set(err, BT_E_CONFIG,
			"service %s has %zu instances, expected 1 to %d", service->name, s.n_places,
			BT_PLAN_MAX_INSTANCES);
	s.hosts = BT_ARENA_ARRAY(a, const struct bt_seen_host *, service->n_hosts);
	s.places = BT_ARENA_ARRAY(a, struct bt_place, s.n_places);
	for (size_t i = 0; i < s.n_places; i++) {
		struct bt_place *p = &s.places[i];
		p->host = (uint16_t)(i / n_slots);
		p->slot = (uint16_t)(i % n_slots);
		s.hosts[p->host] = find_host(w, service->hosts[p->host]);
		if (!s.hosts[p->host])
			return bt_err_set(err, BT_E_REFUSED,
				"host %s of %s has not reported: is its agent running?",
				service->hosts[p->host], service->name);
		if ((r = fill_place(&s, p, err)) < 0)
			return r;
	}
	for (size_t i = 0; i < s.n_balancers; i++)
		match_members(&s, i);
	uint32_t all = s.facts.own_host ? 1 : (uint32_t)(((uint64_t)1 << s.n_balancers) - 1);
	for (size_t i = 0; i < s.n_places; i++)
		s.places[i].in_all = s.places[i].in && s.places[i].in_at == all;
	*ret = s;
	return 0;
}

bool bt_scene_knows(const struct bt_scene *s, const struct bt_place *p, size_t balancer)
{
	return !s->facts.own_host || s->balancers[balancer].host == s->hosts[p->host];
}

bool bt_scene_in_at(const struct bt_scene *s, const struct bt_place *p, size_t balancer)
{
	if (s->facts.own_host)
		return p->in && bt_scene_knows(s, p, balancer);
	return p->in_at >> balancer & 1;
}

bool bt_place_runs(const struct bt_place *p, uint32_t release)
{
	if (release == 0)
		return p->adopted || (!bt_place_ours(p) && p->stranger);
	/* What still starts may be what hangs: it is started anew. */
	return p->release == release && p->state == BT_RUN_RUNNING;
}

const char *bt_scene_slot(const struct bt_scene *s, const struct bt_place *p)
{
	return s->service->run.slots[p->slot].name;
}

const char *bt_scene_host(const struct bt_scene *s, const struct bt_place *p)
{
	return s->service->hosts[p->host];
}
