/* The way back of a flow. A flow is about the hosts and instances that somebody chose, and may
 * leave them on purpose as no strategy would: out of rotation, stopped, each with a release of its
 * own. So there is no one release to go back to. Its plan says what it found; whatever it was about
 * and is otherwise now is put back as it was, and all others are left alone: who was out for
 * maintenance stays out, with or without the address on its loopback.
 *
 * What is out of rotation comes first, since it only adds; then, batch by batch, what serves the
 * wrong release; and last who serves and did not before. */
#include "plan/build.h"

#include "base/planted.h"
#include "base/str.h"

struct was {	    /* of a place, by the flow's plan */
	bool about; /* the flow was about it */
	uint32_t release;
	bool in;
};

struct back {
	struct bt_build *b;
	const struct bt_plan *before;
	struct was *was;       /* by place */
	bool *vip, *vip_about; /* by host of the service: it was there; the flow was about it */
	struct bt_list away, wrong, leave; /* see the stages */
};

/* ── what was ── */

static bool is_about(const struct bt_plan *p, uint16_t instance)
{
	for (size_t s = 0; s < p->n_stages; s++)
		for (size_t l = 0; l < p->stages[s].n_lanes; l++)
			for (size_t i = 0; i < p->stages[s].lanes[l].n_tasks; i++) {
				const struct bt_task *t = &p->stages[s].lanes[l].tasks[i];
				bool named = t->instance == instance;
				for (size_t k = 0; k < t->n_in; k++)
					named = named || t->in[k] == instance;
				for (size_t k = 0; t->kind == BT_TASK_SWITCH && k < t->n_out; k++)
					named = named || t->out[k] == instance;
				if (named && !t->skip)
					return true;
			}
	return false;
}

static bool is_about_vip(const struct bt_plan *p, uint16_t host)
{
	for (size_t s = 0; s < p->n_stages; s++)
		for (size_t l = 0; l < p->stages[s].n_lanes; l++)
			for (size_t i = 0; i < p->stages[s].lanes[l].n_tasks; i++) {
				const struct bt_task *t = &p->stages[s].lanes[l].tasks[i];
				if ((t->kind == BT_TASK_LOOPBACK_STOP ||
					    t->kind == BT_TASK_LOOPBACK_START) &&
					t->host == host && !t->skip)
					return true;
			}
	return false;
}

static void remember_vips(struct back *k)
{
	const struct bt_plan *p = k->before;
	for (uint16_t h = 0; h < k->b->service->n_hosts; h++) {
		k->vip[h] = true;
		for (uint16_t i = 0; i < p->n_hosts; i++) {
			if (!bt_streq(p->hosts[i], k->b->service->hosts[h]))
				continue;
			k->vip_about[h] = is_about_vip(p, i);
			for (size_t w = 0; w < p->n_without_vip; w++)
				k->vip[h] = k->vip[h] && p->without_vip[w] != i;
		}
	}
}

static void remember(struct back *k)
{
	const struct bt_plan *p = k->before;
	const struct bt_scene *s = &k->b->scene;
	for (size_t i = 0; i < s->n_places; i++)
		for (uint16_t n = 0; n < p->n_instances; n++) {
			const struct bt_plan_instance *in = &p->instances[n];
			if (!bt_streq(in->slot, bt_scene_slot(s, &s->places[i])) ||
				!bt_streq(p->hosts[in->host], bt_scene_host(s, &s->places[i])))
				continue;
			k->was[i] = (struct was){.about = is_about(p, n) || BT_BUG(BACK_TO_ALL),
				.release = in->expect_release,
				.in = (in->expect_in || BT_BUG(BACK_PUTS_IN)) &&
				      k->b->balancer != BT_NONE};
		}
	remember_vips(k);
}

/* ── what is otherwise ── */

/* Nothing of ours, or exactly that release. */
static bool runs_right(const struct back *k, uint16_t place)
{
	const struct bt_place *p = &k->b->scene.places[place];
	uint32_t release = k->was[place].release;
	return release ? bt_place_runs(p, release) : !bt_place_ours(p);
}

/* Not where nothing ran: an address in a pool with nobody behind it helps nobody. */
static bool shall_be_in(const struct back *k, uint16_t place)
{
	const struct was *w = &k->was[place];
	const struct bt_place *p = &k->b->scene.places[place];
	if (!w->about)
		return p->in;
	return w->in && (w->release || p->stranger);
}

static void compare(struct back *k)
{
	struct bt_build *b = k->b;
	bool balanced = b->balancer != BT_NONE;
	k->away = bt_list_new(b);
	k->wrong = bt_list_new(b);
	k->leave = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		bool right = runs_right(k, i), in = shall_be_in(k, i);
		if (!k->was[i].about)
			continue;
		if (p->in && !in)
			bt_list_add(&k->leave, i);
		else if (!right && (balanced ? p->in : bt_place_ours(p)))
			bt_list_add(&k->wrong, i);
		else if (!right || (in && !bt_build_reached(b, i)))
			bt_list_add(&k->away, i);
	}
	bt_list_order(b, &k->wrong);
}

/* ── stages ── */

static bool needs_start(const struct back *k, uint16_t place)
{
	return k->was[place].release && !runs_right(k, place);
}

static int check_start(struct back *k, uint16_t place, struct bt_err *err)
{
	struct bt_build *b = k->b;
	const struct bt_plan_release *r = bt_plan_release(b->plan, k->was[place].release);
	if (!bt_can_start(r))
		return bt_err_set(err, BT_E_REFUSED,
			"%s was adopted from a process that others had started, and does not run "
			"in %s any more; which file it ran was not known, so it cannot be started "
			"again: deploy that version's artifact instead",
			r->version, bt_build_place_name(b, place));
	return bt_plan_check_free(b, place, err);
}

/* Every release on the hosts that start it. */
static int prepare(struct back *k, struct bt_err *err)
{
	struct bt_build *b = k->b;
	const struct bt_list lists[] = {k->away, k->wrong, k->leave};
	bool *brought = BT_ARENA_ARRAY(b->arena, bool, b->scene.n_places);
	bt_build_stage(b, NULL, "prepare");
	for (uint16_t h = 0; h < b->service->n_hosts; h++) {
		bt_build_lane(b, b->service->hosts[h]);
		for (size_t l = 0; l < BT_ARRAY_LEN(lists); l++)
			for (size_t n = 0; n < lists[l].n; n++) {
				uint16_t place = lists[l].v[n];
				if (b->scene.places[place].host != h || !needs_start(k, place))
					continue;
				int r = check_start(k, place, err);
				if (r < 0)
					return r;
				bool known = false;
				for (size_t i = 0; i < b->scene.n_places; i++)
					known = known ||
						(brought[i] && b->scene.places[i].host == h &&
							k->was[i].release == k->was[place].release);
				if (!known)
					bt_build_component_of(b, h, k->was[place].release);
				brought[place] = true;
			}
	}
	return 0;
}

/* Into the place's lane: what ran there runs again. */
static void restore(struct back *k, uint16_t place)
{
	struct bt_build *b = k->b;
	const struct bt_place *p = &b->scene.places[place];
	uint32_t release = k->was[place].release;
	bool right = runs_right(k, place);
	if (!right && bt_place_ours(p)) {
		bt_build_drain(b, bt_list_one(b, place), NULL);
		bt_build_stop(b, place,
			bt_build_text(b, "%s ran there before", bt_build_version(b, release)));
	}
	if (needs_start(k, place))
		bt_build_start_of(b, place, release,
			bt_build_text(b, "%s ran there before", bt_build_version(b, release)));
	if (release)
		bt_build_health_of(b, place, release);
}

static void back_in(struct back *k, uint16_t place)
{
	struct bt_list one = bt_list_one(k->b, place), none = {0};
	if (!shall_be_in(k, place))
		return;
	bt_build_backend(k->b, one, NULL);
	bt_build_switch(k->b, one, none, NULL);
}

/* Where it was before, or where somebody shall be in rotation. */
static void address_stage(struct back *k)
{
	struct bt_build *b = k->b;
	bt_build_stage(b, "requests come to the hosts at this address", "address");
	for (uint16_t h = 0; h < b->service->n_hosts; h++) {
		struct bt_list all = bt_list_of_host(b, h);
		bool wanted = k->vip_about[h] && k->vip[h];
		for (size_t i = 0; i < all.n; i++)
			wanted = wanted || (k->was[all.v[i]].about && shall_be_in(k, all.v[i]));
		if (!wanted || bt_build_has_vip(b, h))
			continue;
		bt_build_lane(b, b->service->hosts[h]);
		bt_build_loopback(b, h, all, true, k->vip[h] ? "it was there before" : NULL);
	}
}

static void repair_stage(struct back *k)
{
	struct bt_build *b = k->b;
	bt_build_stage(b, "what is out of rotation first: it takes nothing away", "repair");
	for (size_t i = 0; i < k->away.n; i++) {
		bt_build_lane_at(b, k->away.v[i]);
		restore(k, k->away.v[i]);
		back_in(k, k->away.v[i]);
	}
}

static void batch_stages(struct back *k, size_t size)
{
	struct bt_build *b = k->b;
	struct bt_list none = {0};
	for (size_t i = 0; i < k->wrong.n; i++) {
		uint16_t place = k->wrong.v[i];
		if (i % size == 0)
			bt_build_stage(b, NULL, "batch %zu of %zu", i / size + 1,
				(k->wrong.n + size - 1) / size);
		bt_build_lane_at(b, place);
		bt_build_switch(b, none, bt_list_one(b, place), NULL);
		restore(k, place);
		back_in(k, place);
	}
}

static void leave_stages(struct back *k)
{
	struct bt_build *b = k->b;
	struct bt_list none = {0};
	bt_build_stage(b, "they were out of rotation before, and stay so", "take out");
	for (size_t i = 0; i < k->leave.n; i++) {
		struct bt_list one = bt_list_one(b, k->leave.v[i]);
		bt_build_lane_at(b, k->leave.v[i]);
		bt_build_switch(b, none, one, NULL);
		if (runs_right(k, k->leave.v[i]))
			bt_build_drain(b, one, NULL);
		else
			restore(k, k->leave.v[i]);
	}
	bt_build_stage(b, "it was not there before", "address");
	for (uint16_t h = 0; h < b->service->n_hosts; h++) {
		struct bt_list all = bt_list_of_host(b, h);
		bool used = false;
		for (size_t i = 0; i < all.n; i++)
			used = used || shall_be_in(k, all.v[i]);
		if (used || !k->vip_about[h] || k->vip[h] || !bt_build_has_vip(b, h))
			continue;
		bt_build_lane(b, b->service->hosts[h]);
		bt_build_loopback(b, h, all, false, NULL);
	}
}

/* Instances at a time, so that no fewer stay than in the flow; and the floor, which has to let the
 * last stages come to what was there before. */
static size_t batch_size(struct back *k)
{
	struct bt_build *b = k->b;
	int64_t in = (int64_t)b->scene.n_in, most = in, size = (int64_t)bt_plan_batch(b);
	for (size_t i = 0; i < k->away.n; i++)
		most += shall_be_in(k, k->away.v[i]) && !b->scene.places[k->away.v[i]].in;
	int64_t floor = k->before->min_in_rotation < in ? k->before->min_in_rotation : in;
	if (size > most - floor)
		size = most - floor;
	if (size < 1)
		size = 1;
	if (k->wrong.n && floor > most - size)
		floor = most - size;
	if (floor > most - (int64_t)k->leave.n)
		floor = most - (int64_t)k->leave.n;
	b->plan->min_in_rotation = b->balancer == BT_NONE || floor < 0 ? 0 : floor;
	return (size_t)size;
}

int bt_plan_flow_back(struct bt_build *b, const struct bt_plan *before, struct bt_err *err)
{
	struct back k = {.b = b,
		.before = before,
		.was = BT_ARENA_ARRAY(b->arena, struct was, b->scene.n_places),
		.vip = BT_ARENA_ARRAY(b->arena, bool, b->service->n_hosts),
		.vip_about = BT_ARENA_ARRAY(b->arena, bool, b->service->n_hosts)};
	b->plan->flow = bt_arena_strdup(b->arena, before->flow);
	b->plan->old_release = before->release;
	for (size_t i = 0; i < before->n_releases; i++)
		bt_build_release(b, &before->releases[i]);
	remember(&k);
	compare(&k);
	bt_build_note(b, "what %s found otherwise is put back as it was; all others are left alone",
		before->flow);
	int r = prepare(&k, err);
	if (r < 0)
		return r;
	size_t size = batch_size(&k);
	address_stage(&k);
	repair_stage(&k);
	batch_stages(&k, size);
	leave_stages(&k);
	return 0;
}
