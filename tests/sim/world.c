/* Hosts, apps, a balancer, and requests.
 *
 * Requests flow without a gap: whenever the pool, or an app, is about to change, the moment before
 * is when a request can still be sent where things stood. So instead of drawing arrivals, one
 * request begins at every member of the pool just before each change (and at every effect of any
 * kind), and lasts a random time; `busy_until_ms` is the end of the last one an instance holds.
 * That meets every order of arrivals and changes that a stream of requests could meet. */
#include "sim.h"

#include <string.h>

const char *world_name(struct sim *s, uint16_t inst)
{
	static char names[4][32];
	static unsigned next;
	char *text = names[next++ % 4];
	snprintf(text, 32, "%s/%s", s->host_names[inst / s->n_slots],
		s->slots[inst % s->n_slots].name);
	return text;
}

static bool serves(const struct inst *i)
{
	return i->app == APP_HEALTHY;
}

bool world_in(const struct sim *s, uint16_t inst)
{
	for (uint16_t b = 0; b < s->n_balancers; b++)
		if (s->balancers[b].in[inst])
			return true;
	return false;
}

bool world_was_in(const struct sim *s, uint16_t inst)
{
	for (uint16_t b = 0; b < s->n_balancers; b++)
		if (s->balancers_at_start[b].in[inst])
			return true;
	return false;
}

bool world_host_was_in(const struct sim *s, uint16_t h)
{
	for (uint16_t i = h * s->n_slots; i < (h + 1) * s->n_slots; i++)
		if (world_was_in(s, i))
			return true;
	return false;
}

static void requests_through(struct sim *s, uint16_t b)
{
	for (uint16_t i = 0; i < s->n_inst; i++) {
		struct inst *in = &s->inst[i];
		if (!s->balancers[b].in[i])
			continue;
		requests++;
		uint16_t h = i / s->n_slots;
		if (s->dsr && !s->vip[h] && !s->vip_excused[h])
			violated(s, "a request was sent to %s, whose host has no address for it",
				world_name(s, i));
		if (!serves(in)) {
			if (!in->died)
				violated(s, "a request was sent to %s, where nothing serves",
					world_name(s, i));
			continue;
		}
		if (!(s->allowed & 1u << in->release))
			violated(s, "a request was sent to %s, where release %u runs",
				world_name(s, i), in->release);
		int64_t lasts = chance(s, 900) ? between(s, 5, 400) : between(s, 400, 4000);
		if (chance(s, s->odds.drain_slow))
			lasts = between(s, 4000, 60000);
		if (s->now_ms + lasts > in->busy_until_ms[b])
			in->busy_until_ms[b] = s->now_ms + lasts;
	}
}

void world_requests(struct sim *s)
{
	for (uint16_t b = 0; b < s->n_balancers; b++)
		requests_through(s, b);
}

static bool may_fail(const struct sim *s, uint32_t release)
{
	return release == s->release || s->odds.old_bad;
}

void world_start(struct sim *s, uint16_t i, uint32_t release)
{
	struct inst *in = &s->inst[i];
	world_requests(s);
	check_leaves_alone(s, "starts", i);
	bool bad = may_fail(s, release);
	*in = (struct inst){.app = APP_STARTING,
		.release = release,
		.life = in->life + 1,
		.since_ms = s->now_ms,
		.healthy_ms = s->now_ms + between(s, 300, 3000),
		.dies_ms = INT64_MAX};
	if (bad && fault(s, s->odds.app_slow, C_FAULT_APP_SLOW))
		in->healthy_ms = s->now_ms + between(s, 5000, 70000);
	if ((bad && fault(s, s->odds.app_never, C_FAULT_APP_NEVER)) ||
		(s->opt.bad_release && release == s->release && s->purpose != BT_PLAN_FLOW)) {
		in->healthy_ms = INT64_MAX;
		s->faulted = true;
	}
	if (bad && fault(s, s->odds.app_dies, C_FAULT_APP_DIES))
		in->dies_ms = s->now_ms + between(s, 500, 40000);
	trace(s, "world: %s starts release %u, healthy at %.3f", world_name(s, i), release,
		in->healthy_ms == INT64_MAX ? -1.0 : (double)in->healthy_ms / 1000);
	if (in->healthy_ms < INT64_MAX)
		at(s, in->healthy_ms, EV_APP, in->life, i, 0, NULL);
	if (in->dies_ms < INT64_MAX)
		at(s, in->dies_ms, EV_APP, in->life, i, 0, NULL);
}

void world_app(struct sim *s, uint16_t i, uint32_t life)
{
	struct inst *in = &s->inst[i];
	if (in->life != life || in->app == APP_ABSENT)
		return;
	if (in->dies_ms <= s->now_ms && in->app != APP_DEAD) {
		trace(s, "world: %s dies", world_name(s, i));
		in->app = APP_DEAD;
		in->died = true;
		s->faulted = true; /* told by the run that started it, which may be over by now */
		memset(in->busy_until_ms, 0, sizeof in->busy_until_ms);
		in->dies_ms = INT64_MAX;
		if (fault(s, s->odds.app_revives, C_FAULT_APP_REVIVES)) {
			in->healthy_ms = s->now_ms + between(s, 1000, 10000);
			at(s, in->healthy_ms, EV_APP, life, i, 0, NULL);
		}
	} else if (in->healthy_ms <= s->now_ms && in->app != APP_HEALTHY &&
		   (in->app == APP_STARTING || in->healthy_ms == s->now_ms)) {
		trace(s, "world: %s is healthy", world_name(s, i));
		in->app = APP_HEALTHY;
	}
}

void world_stop(struct sim *s, uint16_t i)
{
	struct inst *in = &s->inst[i];
	world_requests(s);
	if (in->app == APP_ABSENT)
		return;
	bool healthy[MAX_HOSTS];
	bundles_healthy(s, healthy);
	check_stop(s, i);
	check_leaves_alone(s, "stops", i);
	trace(s, "world: %s stops release %u", world_name(s, i), in->release);
	in->app = APP_ABSENT;
	in->release = 0;
	in->life++;
	memset(in->busy_until_ms, 0, sizeof in->busy_until_ms);
	bundles_took(s, healthy);
}

void world_vip(struct sim *s, uint16_t host, bool on)
{
	world_requests(s);
	if (!on && s->vip[host])
		check_vip_off(s, host);
	if (on != s->vip[host])
		counters[on ? C_VIP_ON : C_VIP_OFF]++;
	trace(s, "world: the address is %s the loopback of %s", on ? "on" : "off",
		s->host_names[host]);
	s->vip[host] = on;
	s->vip_excused[host] = s->vip_excused[host] && !on;
}

void world_pool(struct sim *s, uint16_t balancer, const bool *in, uint16_t one, uint64_t generation)
{
	bool was[MAX_INST], healthy[MAX_HOSTS];
	struct balancer *b = &s->balancers[balancer];
	bundles_healthy(s, healthy);
	uint16_t was_one = b->one;
	world_requests(s);
	memcpy(was, b->in, sizeof was);
	memcpy(b->in, in, sizeof was);
	b->generation = generation;
	b->one = one;
	if (s->opt.verbose) {
		char text[MAX_INST + 1] = {0};
		for (uint16_t i = 0; i < s->n_inst; i++)
			text[i] = in[i] ? '1' : '.';
		trace(s, "world: pool of %s %s, one %d, generation %llu", s->on[balancer], text,
			one == BT_NONE ? -1 : one, (unsigned long long)generation);
	}
	for (uint16_t i = 0; i < s->n_inst; i++)
		if (in[i])
			s->inst[i].cut_allowed[balancer] = false;
	check_pool_change(s, balancer, was);
	check_one(s, balancer, was_one);
	bundles_took(s, healthy);
	world_requests(s);
}

void world_snapshot(const struct sim *s, uint16_t host, struct snapshot *ret)
{
	*ret = (struct snapshot){.there = true, .releases = s->disk[host], .vip = s->vip[host]};
	for (uint16_t k = 0; host < s->n_service_hosts && k < s->n_slots; k++)
		ret->inst[k] = s->inst[host * s->n_slots + k];
	if (s->bundle && host < s->n_service_hosts)
		ret->bundle = s->bundles[host];
	for (uint16_t b = 0; b < s->n_balancers; b++)
		if (s->balancers[b].host == host)
			ret->balancer = s->balancers[b];
}

static const char *address(struct sim *s, uint16_t host)
{
	static const char *const addresses[MAX_HOSTS] = {
		"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"};
	(void)s;
	return addresses[host];
}

/* An agent sees who holds the port, and nothing of its own. */
static void see_foreign(struct bt_arena *a, struct bt_seen_instance *seen)
{
	struct bt_seen_foreign *f = BT_ARENA_NEW(a, struct bt_seen_foreign);
	*f = (struct bt_seen_foreign){
		.pid = 7, .command = "java -jar app.jar", .user = "app", .digest = "d"};
	f->artifact = "app.jar";
	seen->foreign = f;
	seen->holder = "java (pid 7)";
	seen->state = BT_RUN_ABSENT;
	seen->release = 0;
}

/* Who listens runs, and which release it is says the file of what was installed. */
static void see_bundle(const struct sim *s, uint16_t h, uint16_t k, const struct snapshot *n,
	struct bt_seen_instance *seen)
{
	bool listens = bundles_listens(s, h * s->n_slots + k, &n->inst[k]);
	seen->health = !listens			       ? BT_VITAL_UNKNOWN
		       : n->inst[k].app == APP_HEALTHY ? BT_VITAL_HEALTHY
						       : BT_VITAL_UNHEALTHY;
	seen->state = listens ? BT_RUN_RUNNING : BT_RUN_ABSENT;
	seen->release = bundles_release(&n->bundle, k);
	seen->installed = n->bundle.last[k];
	seen->since_wall_ms = seen->release ? n->bundle.at_ms + 1000000 : 0;
}

static void build_host(struct sim *s, struct bt_arena *a, uint16_t h, const struct snapshot *n,
	struct bt_seen_host *ret)
{
	static const enum bt_run_state states[] = {
		[APP_ABSENT] = BT_RUN_ABSENT,
		[APP_STARTING] = BT_RUN_STARTING,
		[APP_HEALTHY] = BT_RUN_RUNNING,
		[APP_DEAD] = BT_RUN_CRASHING,
	};
	*ret = (struct bt_seen_host){.host = s->host_names[h], .address = address(s, h)};
	if (h < s->n_service_hosts) {
		struct bt_seen_instance *list =
			BT_ARENA_ARRAY(a, struct bt_seen_instance, s->n_slots);
		for (uint16_t k = 0; k < s->n_slots; k++) {
			list[k].slot = s->slots[k].name;
			list[k].port = s->slots[k].port;
			list[k].state = states[n->inst[k].app];
			list[k].release = n->inst[k].release;
			list[k].since_wall_ms = n->inst[k].since_ms + 1000000;
			list[k].adopted = n->inst[k].adopted;
			if (n->inst[k].foreign)
				see_foreign(a, &list[k]);
			if (s->bundle)
				see_bundle(s, h, k, n, &list[k]);
		}
		ret->instances = list;
		ret->n_instances = s->n_slots;
	}
	if (s->dsr && h < s->n_service_hosts) {
		struct bt_seen_vip *vip = BT_ARENA_NEW(a, struct bt_seen_vip);
		*vip = (struct bt_seen_vip){.address = s->l4.vip, .there = n->vip};
		ret->vips = vip;
		ret->n_vips = 1;
	}
	uint32_t *releases = BT_ARENA_ARRAY(a, uint32_t, 16);
	for (uint32_t r = 1; r < 16; r++)
		if (n->releases & 1u << r)
			releases[ret->n_releases++] = r;
	ret->releases = releases;
	if (!n->balancer.exists)
		return;
	struct bt_seen_balancer *b = BT_ARENA_NEW(a, struct bt_seen_balancer);
	struct bt_seen_member *m = BT_ARENA_ARRAY(a, struct bt_seen_member, s->n_inst);
	for (uint16_t i = 0; i < s->n_inst; i++)
		m[i] = (struct bt_seen_member){.address = address(s, i / s->n_slots),
			.port = s->slots[i % s->n_slots].port,
			.in = n->balancer.in[i],
			.one = n->balancer.one == i};
	struct bt_balancer_facts facts;
	bt_service_balancer(&s->service, &facts);
	*b = (struct bt_seen_balancer){.name = bt_arena_printf(a, "%s/app", facts.family),
		.generation = n->balancer.generation,
		.running = true,
		.members = m,
		.n_members = s->n_inst};
	ret->balancers = b;
	ret->n_balancers = 1;
}

struct bt_world *world_build(struct sim *s, const struct snapshot *seen)
{
	struct bt_arena *a = bt_arena_new();
	struct bt_world *w = BT_ARENA_NEW(a, struct bt_world);
	struct bt_seen_host *hosts = BT_ARENA_ARRAY(a, struct bt_seen_host, s->n_hosts);
	w->arena = a;
	w->hosts = hosts;
	for (uint16_t h = 0; h < s->n_hosts; h++)
		if (seen[h].there)
			build_host(s, a, h, &seen[h], &hosts[w->n_hosts++]);
	return w;
}
