#include "plan/build.h"

#include "base/planted.h"
#include "base/str.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Beyond what the app itself needs: messages, a busy host. */
enum { SLACK_MS = 30000 };

/* Room for one more entry; the old array stays behind in the arena, which ends with the plan. */
static void *grow(struct bt_arena *a, const void *old, size_t n, size_t *cap, size_t size)
{
	if (n < *cap)
		return (void *)old;
	*cap = *cap ? *cap * 2 : 4;
	void *p = bt_arena_alloc(a, *cap * size);
	if (n)
		memcpy(p, old, n * size);
	return p;
}

const char *bt_build_text(struct bt_build *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	const char *text = bt_arena_vprintf(b->arena, fmt, ap);
	va_end(ap);
	return text;
}

void bt_build_note(struct bt_build *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	const char *text = bt_arena_vprintf(b->arena, fmt, ap);
	va_end(ap);
	struct bt_plan *p = b->plan;
	const char **notes =
		grow(b->arena, p->notes, p->n_notes, &b->cap_notes, sizeof(const char *));
	notes[p->n_notes++] = text;
	p->notes = notes;
}

/* ── tables ── */

static void add_release(struct bt_build *b, uint32_t id, const char *version, const char *digest)
{
	struct bt_plan *p = b->plan;
	if (id == 0 || bt_plan_release(p, id))
		return;
	for (size_t i = 0; i < b->rq->n_known; i++)
		if (b->rq->known[i].id == id) {
			version = b->rq->known[i].version;
			digest = b->rq->known[i].digest;
		}
	struct bt_plan_release *list =
		grow(b->arena, p->releases, p->n_releases, &b->cap_releases, sizeof *p->releases);
	list[p->n_releases++] = (struct bt_plan_release){.id = id,
		.version = version ? bt_arena_strdup(b->arena, version)
				   : bt_arena_printf(b->arena, "release %u", id),
		.digest = bt_arena_strdup(b->arena, digest)};
	p->releases = list;
}

void bt_build_release(struct bt_build *b, const struct bt_plan_release *r)
{
	add_release(b, r->id, r->version, r->digest);
}

uint32_t bt_build_serving(struct bt_build *b)
{
	enum { OTHER_IN, SAME_IN, OTHER, SAME, RANKS };
	uint32_t found[RANKS] = {0};
	for (size_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		uint32_t release = p->release ? p->release : p->installed;
		bool same = release == b->plan->release;
		bool in = b->balancer != BT_NONE ? p->in : bt_place_ours(p);
		int rank = in ? (same ? SAME_IN : OTHER_IN) : (same ? SAME : OTHER);
		if (release && (in || !found[rank]))
			found[rank] = release;
	}
	for (int rank = 0; rank < RANKS; rank++)
		if (found[rank]) {
			add_release(b, found[rank], NULL, NULL);
			return found[rank];
		}
	return 0;
}

static uint16_t find_host(const char *const *hosts, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (bt_streq(hosts[i], name))
			return (uint16_t)i;
	return BT_NONE;
}

/* Those of the service, then those that are only a balancer's. */
static void add_hosts(struct bt_build *b)
{
	const struct bt_service *s = b->service;
	const struct bt_scene *scene = &b->scene;
	const char **hosts =
		BT_ARENA_ARRAY(b->arena, const char *, s->n_hosts + scene->n_balancers);
	size_t n = 0;
	for (; n < s->n_hosts; n++)
		hosts[n] = bt_arena_strdup(b->arena, s->hosts[n]);
	for (size_t i = 0; i < scene->n_balancers; i++)
		if (find_host(hosts, n, scene->balancers[i].on) == BT_NONE)
			hosts[n++] = bt_arena_strdup(b->arena, scene->balancers[i].on);
	b->plan->hosts = hosts;
	b->plan->n_hosts = n;
}

static void add_without_vip(struct bt_build *b)
{
	uint16_t *list = BT_ARENA_ARRAY(b->arena, uint16_t, b->service->n_hosts);
	for (uint16_t h = 0; h < b->service->n_hosts; h++)
		if (!bt_build_has_vip(b, h))
			list[b->plan->n_without_vip++] = h;
	b->plan->without_vip = list;
}

static void add_instances(struct bt_build *b)
{
	const struct bt_scene *s = &b->scene;
	struct bt_plan_instance *list =
		BT_ARENA_ARRAY(b->arena, struct bt_plan_instance, s->n_places);
	for (size_t i = 0; i < s->n_places; i++) {
		const struct bt_place *p = &s->places[i];
		list[i] = (struct bt_plan_instance){.host = p->host,
			.slot = bt_arena_strdup(b->arena, bt_scene_slot(s, p)),
			.port = p->port,
			.address = bt_arena_strdup(b->arena, p->address),
			.expect_release = p->release,
			.expect_in = p->in};
		add_release(b, p->release, p->version, NULL);
	}
	b->plan->instances = list;
	b->plan->n_instances = s->n_places;
}

static bool routes_one(const struct bt_nginx *n)
{
	if (!n)
		return false;
	for (size_t i = 0; i < n->n_routes; i++)
		if (n->routes[i].to == BT_ROUTE_ONE)
			return true;
	return false;
}

/* Where they differ (one was added, or set up anew), the next switch makes them alike. */
static void note_difference(struct bt_build *b)
{
	const struct bt_scene *s = &b->scene;
	for (uint16_t i = 0; i < s->n_places; i++)
		for (size_t k = 0; s->places[i].in && k < s->n_balancers; k++)
			if (bt_scene_knows(s, &s->places[i], k) &&
				!bt_scene_in_at(s, &s->places[i], k)) {
				bt_build_note(b,
					"%s on %s does not send to %s, and another one does: "
					"the first switch makes them alike",
					s->facts.family, s->balancers[k].on,
					bt_build_place_name(b, i));
				return;
			}
}

static void add_balancers(struct bt_build *b)
{
	const struct bt_scene *s = &b->scene;
	if (!s->n_balancers)
		return;
	struct bt_plan_balancer *list =
		BT_ARENA_ARRAY(b->arena, struct bt_plan_balancer, s->n_balancers);
	for (size_t i = 0; i < s->n_balancers; i++) {
		const struct bt_seen_balancer *seen = s->balancers[i].seen;
		list[i].host = find_host(b->plan->hosts, b->plan->n_hosts, s->balancers[i].on);
		list[i].name =
			bt_arena_printf(b->arena, "%s/%s", s->facts.family, b->service->name);
		list[i].own_host = s->facts.own_host;
		list[i].drains_at_host = s->facts.drains_at_host;
		list[i].expect_generation = seen ? seen->generation : 0;
		list[i].routes_one = routes_one(b->service->nginx);
		uint16_t *lacks = BT_ARENA_ARRAY(b->arena, uint16_t, s->n_places);
		for (size_t k = 0; k < s->n_places; k++)
			if (s->places[k].in && !bt_scene_in_at(s, &s->places[k], i))
				lacks[list[i].n_lacks++] = (uint16_t)k;
		list[i].lacks = lacks;
		list[i].expect_one = BT_NONE;
		for (size_t k = s->n_places; list[i].routes_one && k-- > 0;)
			if (s->places[k].one_at >> i & 1)
				list[i].expect_one = (uint16_t)k;
		if (seen && seen->trouble)
			bt_build_note(b, "%s on %s: %s", s->facts.family, s->balancers[i].on,
				seen->trouble);
	}
	b->plan->balancers = list;
	b->plan->n_balancers = s->n_balancers;
	b->balancer = 0;
	note_difference(b);
}

int bt_build_begin(struct bt_build *b, const struct bt_plan_request *rq,
	enum bt_plan_purpose purpose, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	const struct bt_service *s = rq->service;
	*b = (struct bt_build){.arena = a, .rq = rq, .service = s, .balancer = BT_NONE};
	int r = bt_scene_look(s, rq->world, a, &b->scene, err);
	if (r < 0)
		return r;
	struct bt_plan *p = b->plan = BT_ARENA_NEW(a, struct bt_plan);
	p->arena = a;
	p->purpose = purpose;
	p->service = bt_arena_strdup(a, s->name);
	p->strategy = s->deploy.strategy;
	p->on_failure = s->deploy.on_failure;
	p->continue_n = s->deploy.continue_n;
	p->timeout_ms = purpose == BT_PLAN_DEPLOY ? s->deploy.timeout_ms : 0;
	/* The way back, and the way out, wait for stragglers as long as `drain` says and no longer.
	 */
	bool leaves = purpose == BT_PLAN_ROLLBACK || purpose == BT_PLAN_RETIRE;
	p->on_drain_timeout = leaves && !BT_BUG(DRAIN_BINDS_BACK) ? BT_ON_DRAIN_TIMEOUT_CONTINUE
								  : s->deploy.on_drain_timeout;
	p->release = purpose == BT_PLAN_RETIRE || purpose == BT_PLAN_PRUNE ? 0 : rq->release.id;
	add_release(b, p->release, rq->release.version, rq->release.digest);
	add_hosts(b);
	add_without_vip(b);
	add_instances(b);
	add_balancers(b);
	BT_STEAL(a);
	return 0;
}

void bt_build_abandon(struct bt_build *b)
{
	b->arena = bt_arena_free(b->arena);
	b->plan = NULL;
}

static void drop_empty_lanes(struct bt_stage *s)
{
	struct bt_lane *lanes = (struct bt_lane *)s->lanes;
	size_t n = 0;
	for (size_t i = 0; i < s->n_lanes; i++)
		if (lanes[i].n_tasks)
			lanes[n++] = lanes[i];
	s->n_lanes = n;
}

int bt_build_end(struct bt_build *b, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_plan *p = b->plan;
	struct bt_stage *stages = (struct bt_stage *)p->stages;
	size_t n = 0;
	for (size_t i = 0; i < p->n_stages; i++) {
		drop_empty_lanes(&stages[i]);
		if (stages[i].n_lanes)
			stages[n++] = stages[i];
	}
	p->n_stages = n;
	if (b->n_tasks > BT_PLAN_MAX_TASKS) {
		size_t tasks = b->n_tasks;
		bt_build_abandon(b);
		return bt_err_set(err, BT_E_CONFIG, "the plan has %zu tasks, at most %d are run",
			tasks, BT_PLAN_MAX_TASKS);
	}
	*ret = p;
	b->plan = NULL;
	b->arena = NULL;
	return 0;
}

/* ── stages and lanes ── */

void bt_build_stage(struct bt_build *b, const char *why, const char *name_fmt, ...)
{
	va_list ap;
	va_start(ap, name_fmt);
	const char *name = bt_arena_vprintf(b->arena, name_fmt, ap);
	va_end(ap);
	struct bt_plan *p = b->plan;
	struct bt_stage *stages =
		grow(b->arena, p->stages, p->n_stages, &b->cap_stages, sizeof *p->stages);
	stages[p->n_stages++] =
		(struct bt_stage){.name = name, .why = bt_arena_strdup(b->arena, why)};
	p->stages = stages;
	b->cap_lanes = 0;
}

static struct bt_stage *stage(struct bt_build *b)
{
	assert(b->plan->n_stages);
	return (struct bt_stage *)&b->plan->stages[b->plan->n_stages - 1];
}

void bt_build_stage_closing(struct bt_build *b)
{
	stage(b)->closing = true;
}

void bt_build_stage_may_fail(struct bt_build *b, int64_t n)
{
	stage(b)->counted = true;
	stage(b)->may_fail = n;
}

void bt_build_stage_policy(struct bt_build *b, enum bt_failure_policy policy, int64_t continue_n)
{
	struct bt_stage *s = stage(b);
	s->own_policy = true;
	s->on_failure = policy;
	s->continue_n = continue_n;
}

/* A lane that got no task is taken back when the next one begins, or its stage ends. */
static struct bt_lane *lane(struct bt_build *b)
{
	struct bt_stage *s = stage(b);
	assert(s->n_lanes);
	return (struct bt_lane *)&s->lanes[s->n_lanes - 1];
}

void bt_build_lane(struct bt_build *b, const char *name)
{
	struct bt_stage *s = stage(b);
	struct bt_lane *lanes = grow(b->arena, s->lanes, s->n_lanes, &b->cap_lanes, sizeof *lanes);
	lanes[s->n_lanes++] = (struct bt_lane){.name = bt_arena_strdup(b->arena, name)};
	s->lanes = lanes;
	b->cap_tasks = 0;
}

const char *bt_build_place_name(struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	return bt_build_text(b, "%s/%s", bt_scene_host(&b->scene, p), bt_scene_slot(&b->scene, p));
}

void bt_build_lane_at(struct bt_build *b, uint16_t place)
{
	bt_build_lane(b, bt_build_place_name(b, place));
}

static void lane_balancer(struct bt_build *b, uint16_t balancer)
{
	bt_build_lane(b, b->plan->hosts[b->plan->balancers[balancer].host]);
}

void bt_build_lane_balancers(struct bt_build *b)
{
	BT_STR struct bt_str name = {0};
	for (size_t i = 0; i < b->plan->n_balancers; i++)
		bt_str_addf(
			&name, "%s%s", i ? ", " : "", b->plan->hosts[b->plan->balancers[i].host]);
	bt_build_lane(b, bt_str_get(&name));
}

/* ── tasks ── */

/* Why a task is there, where its strategy has no better words. */
static const char *const reasons[BT_TASK_KINDS] = {
	[BT_TASK_INSTANCE_START] = "its place is free",
	[BT_TASK_INSTANCE_STOP] = "nothing is sent to it any more",
	[BT_TASK_HEALTH_CHECK] = "no request goes there before that",
	[BT_TASK_BACKEND_CHECK] = "its requests will come from there",
	[BT_TASK_DRAIN] = "what was begun there is finished there",
	[BT_TASK_BAKE] = "healthy once is not healthy yet",
	[BT_TASK_LOOPBACK_STOP] = "its connections are gone: nobody is cut off",
	[BT_TASK_LOOPBACK_START] = "it answers at the balancer's address again",
};

struct bt_task *bt_build_task(
	struct bt_build *b, enum bt_task_kind kind, uint16_t host, const char *why)
{
	struct bt_lane *l = lane(b);
	struct bt_task *tasks = grow(b->arena, l->tasks, l->n_tasks, &b->cap_tasks, sizeof *tasks);
	struct bt_task *t = &tasks[l->n_tasks++];
	l->tasks = tasks;
	*t = (struct bt_task){.id = b->rq->first_task_id + (uint32_t)b->n_tasks++,
		.kind = kind,
		.host = host,
		.instance = BT_NONE,
		.balancer = BT_NONE,
		.timeout_ms = bt_task_info(kind)->timeout_ms,
		.why = bt_arena_strdup(b->arena, why ? why : reasons[kind])};
	return t;
}

struct bt_lane *bt_build_current_lane(struct bt_build *b)
{
	return lane(b);
}

static struct bt_task *last(struct bt_build *b)
{
	struct bt_lane *l = lane(b);
	return (struct bt_task *)&l->tasks[l->n_tasks - 1];
}

static struct bt_task *add_at(
	struct bt_build *b, enum bt_task_kind kind, uint16_t place, const char *why)
{
	struct bt_task *t = bt_build_task(b, kind, b->scene.places[place].host, why);
	t->instance = place;
	return t;
}

static struct bt_task *add_balanced(
	struct bt_build *b, enum bt_task_kind kind, uint16_t balancer, const char *why)
{
	struct bt_task *t = bt_build_task(b, kind, b->plan->balancers[balancer].host, why);
	t->balancer = balancer;
	return t;
}

void bt_build_component(struct bt_build *b, uint16_t host, const char *why)
{
	bt_build_task(b, BT_TASK_COMPONENT_DEPLOY, host, why)->release = b->plan->release;
}

static bool on_disk(const struct bt_seen_host *h, uint32_t release)
{
	for (size_t i = 0; i < h->n_releases; i++)
		if (h->releases[i] == release)
			return true;
	return false;
}

void bt_build_component_of(struct bt_build *b, uint16_t host, uint32_t release)
{
	const char *version = bt_build_version(b, release);
	const char *name = b->service->hosts[host];
	bt_build_component(b, host,
		on_disk(b->scene.hosts[host], release)
			? bt_build_text(
				  b, "%s is on %s already: it is checked, not sent", version, name)
			: bt_build_text(b, "%s is not on %s yet", version, name));
	last(b)->release = release;
}

static int64_t health_ms(const struct bt_service *s)
{
	return s->health.within_ms + s->health.timeout_ms + SLACK_MS;
}

void bt_build_start(struct bt_build *b, uint16_t place, const char *why)
{
	add_at(b, BT_TASK_INSTANCE_START, place, why)->release = b->plan->release;
}

void bt_build_start_of(struct bt_build *b, uint16_t place, uint32_t release, const char *why)
{
	bt_build_start(b, place, why);
	last(b)->release = release;
}

void bt_build_adopt(struct bt_build *b, uint16_t place, const char *why)
{
	add_at(b, BT_TASK_ADOPT, place, why)->release = b->plan->release;
}

/* An adopted one may be the last that can be had of its release: said before it is stopped. */
static void note_adopted(struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	const struct bt_plan_release *r = bt_plan_release(b->plan, p->release);
	if (!p->adopted)
		return;
	bt_build_note(b,
		"%s is an adopted process (pid %d) that others started: it is stopped by "
		"its pid and start time, after the drain%s",
		bt_build_place_name(b, place), p->pid,
		bt_can_start(r) ? ""
				: "; the file that it runs is not known, so it cannot be started "
				  "again after that");
}

bool bt_can_start(const struct bt_plan_release *r)
{
	return !r || !r->digest || *r->digest;
}

/* Long enough for the stop sequence, and for its undo, which starts the old one again and waits
 * until it is healthy. */
void bt_build_stop(struct bt_build *b, uint16_t place, const char *why)
{
	int64_t stop = 0;
	for (size_t i = 0; i < b->service->run.n_stop; i++)
		stop += b->service->run.stop[i].wait_ms;
	if (!why && b->balancer == BT_NONE)
		why = "there is no balancer to tell";
	note_adopted(b, place);
	struct bt_task *t = add_at(b, BT_TASK_INSTANCE_STOP, place, why);
	t->timeout_ms = stop + health_ms(b->service);
}

void bt_build_health(struct bt_build *b, uint16_t place, const char *why)
{
	struct bt_task *t = add_at(b, BT_TASK_HEALTH_CHECK, place, why);
	t->release = b->plan->release;
	t->timeout_ms = health_ms(b->service);
}

void bt_build_health_of(struct bt_build *b, uint16_t place, uint32_t release)
{
	bt_build_health(b, place, NULL);
	last(b)->release = release;
}

bool bt_build_has_vip(const struct bt_build *b, uint16_t host)
{
	const struct bt_seen_host *h = b->scene.hosts[host];
	for (size_t i = 0; bt_service_has_loopback(b->service) && i < h->n_vips; i++)
		if (!h->vips[i].there)
			return false;
	return true;
}

bool bt_build_reached(const struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	return p->in_all && bt_build_has_vip(b, p->host);
}

void bt_build_loopback(
	struct bt_build *b, uint16_t host, struct bt_list out, bool on, const char *why)
{
	if (!bt_service_has_loopback(b->service))
		return;
	struct bt_task *t =
		bt_build_task(b, on ? BT_TASK_LOOPBACK_START : BT_TASK_LOOPBACK_STOP, host, why);
	t->out = out.v;
	t->n_out = out.n;
}

void bt_build_vip_stage(struct bt_build *b, struct bt_list places)
{
	if (b->balancer == BT_NONE)
		return;
	bt_build_stage(b, "requests come to the hosts at this address", "address");
	for (uint16_t h = 0; h < b->service->n_hosts; h++) {
		struct bt_list here = bt_list_of_host(b, h);
		bool wanted = false;
		for (size_t i = 0; i < here.n; i++)
			wanted = wanted || bt_list_has(places, here.v[i]);
		if (!wanted || bt_build_has_vip(b, h))
			continue;
		bt_build_lane(b, b->service->hosts[h]);
		bt_build_loopback(b, h, here, true, "it is missing there");
	}
}

static void backend_at(struct bt_build *b, uint16_t balancer, struct bt_list in, const char *why)
{
	struct bt_task *t = add_balanced(b, BT_TASK_BACKEND_CHECK, balancer, why);
	t->in = in.v;
	t->n_in = in.n;
}

/* Who answers on its own host answers the balancer, too, where each knows its own host only. */
static bool checks_backends(const struct bt_build *b)
{
	return !b->scene.facts.own_host;
}

void bt_build_backend(struct bt_build *b, struct bt_list in, const char *why)
{
	for (uint16_t i = 0; in.n && checks_backends(b) && i < b->plan->n_balancers; i++)
		backend_at(b, i, in, why);
}

/* Those of the list that the balancer knows. */
static struct bt_list known_at(struct bt_build *b, uint16_t balancer, struct bt_list l)
{
	if (!b->scene.facts.own_host)
		return l;
	struct bt_list own = bt_list_new(b);
	for (size_t i = 0; i < l.n; i++)
		if (bt_scene_knows(&b->scene, &b->scene.places[l.v[i]], balancer))
			bt_list_add(&own, l.v[i]);
	return own;
}

void bt_build_switch(struct bt_build *b, struct bt_list in, struct bt_list out, const char *why)
{
	for (uint16_t i = 0; i < b->plan->n_balancers; i++) {
		struct bt_list to = known_at(b, i, in), from = known_at(b, i, out);
		if (!to.n && !from.n)
			continue;
		struct bt_task *t = add_balanced(b, BT_TASK_SWITCH, i,
			why ? why
			    : bt_build_text(
				      b, "one change, confirmed by %s", b->scene.facts.family));
		t->timeout_ms += bt_service_balancer_settle_ms(b->service);
		t->in = to.v;
		t->n_in = to.n;
		t->out = from.v;
		t->n_out = from.n;
	}
}

static struct bt_task *drain_of(
	struct bt_build *b, uint16_t balancer, uint16_t host, struct bt_list out, const char *why)
{
	struct bt_task *t = add_balanced(b, BT_TASK_DRAIN, balancer, why);
	t->host = host;
	t->out = out.v;
	t->n_out = out.n;
	t->wait_ms = b->service->deploy.drain_ms;
	t->timeout_ms += t->wait_ms;
	return t;
}

/* Where connections are counted at their end, each host counts its own. */
static void drain_at(struct bt_build *b, uint16_t balancer, struct bt_list out, const char *why)
{
	out = known_at(b, balancer, out);
	if (!b->scene.facts.drains_at_host) {
		if (out.n)
			drain_of(b, balancer, b->plan->balancers[balancer].host, out, why);
		return;
	}
	for (uint16_t h = 0; h < b->service->n_hosts; h++) {
		struct bt_list here = bt_list_new(b);
		for (size_t i = 0; i < out.n; i++)
			if (b->scene.places[out.v[i]].host == h)
				bt_list_add(&here, out.v[i]);
		if (here.n)
			drain_of(b, balancer, h, here, why);
	}
}

void bt_build_drain(struct bt_build *b, struct bt_list out, const char *why)
{
	for (uint16_t i = 0; out.n && i < b->plan->n_balancers; i++)
		drain_at(b, i, out, why);
}

static void bake_at(struct bt_build *b, uint16_t balancer)
{
	struct bt_task *t = add_balanced(b, BT_TASK_BAKE, balancer, NULL);
	t->wait_ms = b->service->deploy.bake_ms;
	t->timeout_ms += t->wait_ms;
}

void bt_build_bake(struct bt_build *b, uint16_t place)
{
	struct bt_task *t = add_at(b, BT_TASK_BAKE, place, NULL);
	t->release = b->plan->release;
	t->wait_ms = b->service->deploy.bake_ms;
	t->timeout_ms += t->wait_ms;
}

static const char *const *copy_words(struct bt_build *b, const char *const *list, size_t n)
{
	const char **out = BT_ARENA_ARRAY(b->arena, const char *, n);
	for (size_t i = 0; i < n; i++)
		out[i] = bt_arena_strdup(b->arena, list[i]);
	return out;
}

void bt_build_exec(struct bt_build *b, const struct bt_task_exec *exec, uint16_t host,
	uint16_t place, int64_t limit_ms, const char *why)
{
	struct bt_task *t = bt_build_task(b, BT_TASK_EXEC, host, why);
	struct bt_task_exec *e = BT_ARENA_NEW(b->arena, struct bt_task_exec);
	struct bt_kv *env = BT_ARENA_ARRAY(b->arena, struct bt_kv, exec->n_env);
	for (size_t i = 0; i < exec->n_env; i++)
		env[i] = (struct bt_kv){bt_arena_strdup(b->arena, exec->env[i].key),
			bt_arena_strdup(b->arena, exec->env[i].value)};
	*e = *exec;
	e->run = copy_words(b, exec->run, exec->n_run);
	e->env = env;
	t->exec = e;
	t->instance = place;
	t->release = b->plan->release;
	t->wait_ms = limit_ms;
	t->timeout_ms = SLACK_MS; /* to end what did not end by itself */
}

void bt_build_approve(struct bt_build *b, int64_t within_ms, const char *why)
{
	bt_build_task(b, BT_TASK_APPROVE, BT_NONE, why)->wait_ms = within_ms;
}

void bt_build_prune(struct bt_build *b, uint16_t host)
{
	bt_build_task(b, BT_TASK_PRUNE, host,
		bt_build_text(b, "the last %lld good releases are kept",
			(long long)b->service->deploy.keep));
}

/* ── lists and words ── */

struct bt_list bt_list_new(struct bt_build *b)
{
	return (struct bt_list){.v = BT_ARENA_ARRAY(b->arena, uint16_t, b->scene.n_places)};
}

struct bt_list bt_list_one(struct bt_build *b, uint16_t place)
{
	return (struct bt_list){.v = bt_arena_memdup(b->arena, &place, sizeof place), .n = 1};
}

struct bt_list bt_list_of_host(struct bt_build *b, uint16_t host)
{
	struct bt_list all = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		if (b->scene.places[i].host == host)
			bt_list_add(&all, i);
	return all;
}

void bt_list_add(struct bt_list *l, uint16_t place)
{
	l->v[l->n++] = place;
}

bool bt_list_has(struct bt_list l, uint16_t place)
{
	for (size_t i = 0; i < l.n; i++)
		if (l.v[i] == place)
			return true;
	return false;
}

static void move_last(struct bt_list *l, uint16_t place)
{
	for (size_t i = 0; i + 1 < l->n; i++)
		if (l->v[i] == place) {
			memmove(l->v + i, l->v + i + 1, (l->n - 1 - i) * sizeof *l->v);
			l->v[l->n - 1] = place;
			return;
		}
}

/* Balancers that differ may each have another one; the first one's comes last of all. */
void bt_list_order(const struct bt_build *b, struct bt_list *l)
{
	for (size_t i = 0, left = l->n; left > 0; left--)
		if (bt_build_reached(b, l->v[i]))
			move_last(l, l->v[i]);
		else
			i++;
	for (size_t i = b->plan->n_balancers; i-- > 0;) {
		uint16_t one = b->plan->balancers[i].expect_one;
		if (one != BT_NONE && b->scene.places[one].state == BT_RUN_RUNNING &&
			bt_build_reached(b, one))
			move_last(l, one);
	}
}

const char *bt_build_version(struct bt_build *b, uint32_t release)
{
	const struct bt_plan_release *r = bt_plan_release(b->plan, release);
	return r ? r->version : "nothing";
}

/* ── common stages ── */

void bt_build_prepare(struct bt_build *b, const bool *hosts)
{
	bt_build_stage(b, NULL, "prepare");
	for (uint16_t h = 0; h < b->service->n_hosts; h++) {
		if (hosts && !hosts[h])
			continue;
		bt_build_lane(b, b->service->hosts[h]);
		bt_build_component_of(b, h, b->plan->release);
	}
}

void bt_build_check_stage(struct bt_build *b, struct bt_list in)
{
	bt_build_stage(b, NULL, "check");
	for (uint16_t i = 0; in.n && checks_backends(b) && i < b->plan->n_balancers; i++) {
		lane_balancer(b, i);
		backend_at(b, i, in, NULL);
	}
}

void bt_build_cutover_stage(
	struct bt_build *b, struct bt_list in, struct bt_list out, const char *why)
{
	if (b->balancer == BT_NONE)
		return;
	bt_build_stage(b, NULL, "cutover");
	bt_build_lane_balancers(b);
	bt_build_switch(b, in, out, why);
}

void bt_build_bake_stage(struct bt_build *b, struct bt_list places, const char *name)
{
	if (b->service->deploy.bake_ms == 0)
		return;
	bt_build_stage(b, NULL, "%s", name);
	for (size_t i = 0; i < places.n; i++) {
		bt_build_lane_at(b, places.v[i]);
		bt_build_bake(b, places.v[i]);
	}
	for (uint16_t i = 0; i < b->plan->n_balancers; i++) {
		lane_balancer(b, i);
		bake_at(b, i);
	}
}

void bt_build_prune_stage(struct bt_build *b)
{
	bt_build_stage(b, NULL, "prune");
	for (uint16_t h = 0; h < b->service->n_hosts; h++) {
		bt_build_lane(b, b->service->hosts[h]);
		bt_build_prune(b, h);
	}
}

void bt_build_retire_stages(struct bt_build *b, struct bt_list places, const char *why)
{
	struct bt_list ours = bt_list_new(b);
	for (size_t i = 0; i < places.n; i++)
		if (bt_place_ours(&b->scene.places[places.v[i]]))
			bt_list_add(&ours, places.v[i]);
	if (!ours.n)
		return;
	bt_build_stage(b, NULL, "drain");
	for (uint16_t i = 0; i < b->plan->n_balancers; i++) {
		lane_balancer(b, i);
		drain_at(b, i, ours, NULL);
	}
	bt_build_stage(b, why, "retire");
	for (size_t i = 0; i < ours.n; i++) {
		bt_build_lane_at(b, ours.v[i]);
		bt_build_stop(b, ours.v[i], NULL);
	}
}
