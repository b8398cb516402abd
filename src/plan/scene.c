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

static bool is_member(
	const struct bt_scene *s, const struct bt_place *p, const struct bt_seen_member *m)
{
	const struct bt_seen_host *h = s->hosts[p->host];
	if (m->port != p->port)
		return false;
	return bt_streq(m->address, p->address) || bt_streq(m->address, h->address) ||
	       (h == s->balancer_host && loopback(m->address));
}

static int find_balancer(const struct bt_world *w, struct bt_scene *s, struct bt_err *err)
{
	const struct bt_nginx *n = s->service->nginx;
	if (!n)
		return 0;
	s->balancer_host = find_host(w, n->on);
	if (!s->balancer_host)
		return bt_err_set(err, BT_E_REFUSED,
			"host %s (nginx of %s) has not reported: is its agent running?", n->on,
			s->service->name);
	for (size_t i = 0; i < s->balancer_host->n_balancers; i++) {
		const struct bt_seen_balancer *b = &s->balancer_host->balancers[i];
		if (bt_str_starts(b->name, "nginx/") && bt_streq(b->name + 6, s->service->name))
			s->balancer = b;
	}
	if (!s->balancer && n->mode == BT_NGINX_ADOPT)
		return bt_err_set(err, BT_E_REFUSED,
			"host %s has not reported what nginx/%s sends where: it cannot be told "
			"which slot is live",
			n->on, s->service->name);
	return 0;
}

/* Baton put it in while the config still named its host: the next switch takes it out. */
static bool is_gone(const struct bt_scene *s, const struct bt_seen_member *m)
{
	if (s->balancer->generation == 0 || loopback(m->address))
		return false;
	for (size_t h = 0; h < s->service->n_hosts; h++)
		if (bt_streq(s->hosts[h]->address, m->address))
			return false;
	return true;
}

static void match_members(struct bt_scene *s)
{
	for (size_t m = 0; s->balancer && m < s->balancer->n_members; m++) {
		const struct bt_seen_member *member = &s->balancer->members[m];
		bool known = false;
		for (size_t i = 0; i < s->n_places; i++)
			if (is_member(s, &s->places[i], member)) {
				known = true;
				if (member->in && member->one)
					s->places[i].one = true;
				if (member->in && !s->places[i].in) {
					s->places[i].in = true;
					s->n_in++;
				}
			}
		if (known || !member->in)
			continue;
		if (is_gone(s, member))
			s->gone_member = member;
		else
			s->other_member = member;
	}
}

static int fill_place(struct bt_scene *s, struct bt_place *p, struct bt_err *err)
{
	const struct bt_slot *slot = &s->service->run.slots[p->slot];
	const struct bt_seen_host *h = s->hosts[p->host];
	const struct bt_seen_instance *seen = find_instance(h, slot->name);
	p->port = slot->port;
	p->address = !s->balancer_host || h == s->balancer_host ? "127.0.0.1" : h->address;
	if (!p->address)
		return bt_err_set(err, BT_E_REFUSED,
			"host %s has told no address, so nginx on %s cannot send to it", h->host,
			s->service->nginx->on);
	if (!seen)
		return 0;
	p->state = seen->state;
	if (bt_place_ours(p)) {
		p->release = seen->release;
		p->version = seen->version;
	}
	p->stranger = seen->holder;
	p->identity = seen->identity;
	p->since_wall_ms = seen->since_wall_ms;
	return 0;
}

int bt_scene_look(const struct bt_service *service, const struct bt_world *w, struct bt_arena *a,
	struct bt_scene *ret, struct bt_err *err)
{
	struct bt_scene s = {.service = service};
	size_t n_slots = service->run.n_slots;
	int r = find_balancer(w, &s, err);
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
	match_members(&s);
	*ret = s;
	return 0;
}

bool bt_place_runs(const struct bt_place *p, uint32_t release)
{
	if (release == 0)
		return !bt_place_ours(p) && p->stranger;
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
