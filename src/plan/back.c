/* The way back: from whatever the world is now to the old release serving again.
 *
 * It never refuses over an unclear world, as a deployment does: a run that failed half-way is such
 * a world. What serves is kept serving; what still runs the old release is used as it is, so with
 * a warm slot the way back is one switch; only what is missing is started. Release 0 is the state
 * before a first deployment: nothing of ours, and a stranger who served before serves again. */
#include "plan/build.h"

/* What taking a slot would mean. */
struct slot_count {
	size_t runs;  /* the old release, already */
	size_t wrong; /* serves and does not run it: it would have to leave rotation first */
	bool in;      /* somebody sends there */
};

static struct slot_count count(const struct bt_build *b, uint16_t slot)
{
	struct slot_count c = {0};
	for (size_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		if (p->slot != slot)
			continue;
		bool runs = bt_place_runs(p, b->plan->release);
		c.runs += runs;
		c.wrong += p->in && !runs;
		c.in = c.in || p->in;
	}
	return c;
}

static bool better(const struct slot_count *a, const struct slot_count *b)
{
	if (a->wrong != b->wrong)
		return a->wrong < b->wrong;
	if (a->runs != b->runs)
		return a->runs > b->runs;
	return a->runs && a->in && !b->in;
}

/* Where the old release shall serve: first a slot where nothing that serves has to make room, of
 * these the one where it runs on most hosts (best: in rotation already), else an idle one. */
static uint16_t back_slot(const struct bt_build *b)
{
	uint16_t n = (uint16_t)b->service->run.n_slots, live = n, best;
	for (uint16_t slot = n; slot-- > 0;)
		if (count(b, slot).in)
			live = slot;
	best = bt_plan_idle_slot(b, live < n ? live : -1);
	struct slot_count least = count(b, best);
	for (uint16_t slot = 0; slot < n; slot++) {
		struct slot_count c = count(b, slot);
		if (better(&c, &least)) {
			best = slot;
			least = c;
		}
	}
	return best;
}

/* Stop what runs there, if anything, then start the old release and see it healthy. */
static void restart(struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	if (bt_place_ours(p)) {
		bt_build_drain(b, bt_list_one(b, place), NULL);
		bt_build_stop(b, place, NULL);
	}
	bt_build_start(b, place,
		bt_build_text(b, "%s does not run there", bt_build_version(b, b->plan->release)));
	bt_build_health(b, place, NULL);
}

static int prepare(struct bt_build *b, struct bt_list places, struct bt_err *err)
{
	bool *hosts = BT_ARENA_ARRAY(b->arena, bool, b->service->n_hosts);
	const struct bt_plan_release *back = bt_plan_release(b->plan, b->plan->release);
	if (places.n && !bt_can_start(back))
		return bt_err_set(err, BT_E_REFUSED,
			"%s was adopted from a process that others had started, and does not run "
			"in %s any more; which file it ran was not known, so it cannot be started "
			"again: deploy that version's artifact instead",
			back->version, bt_build_place_name(b, places.v[0]));
	for (size_t i = 0; i < places.n; i++) {
		int r = bt_plan_check_free(b, places.v[i], err);
		if (r < 0)
			return r;
		hosts[b->scene.places[places.v[i]].host] = true;
	}
	if (places.n)
		bt_build_prepare(b, hosts);
	return 0;
}

/* The release that serves now and shall not. */
/* One switch to exactly `to`, then everything else of ours is drained and stopped. `absent` are
 * members of `to` that this plan took out of rotation before. */
static void take_over(struct bt_build *b, struct bt_list to, struct bt_list absent)
{
	struct bt_list in = bt_list_new(b), out = bt_list_new(b), rest = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		bool wanted = bt_list_has(to, i);
		if (wanted && (!p->in_all || bt_list_has(absent, i)))
			bt_list_add(&in, i);
		if (!wanted && p->in)
			bt_list_add(&out, i);
		/* Before the first deployment there was no adopted one either: it is left alone. */
		if (!wanted && !(p->adopted && b->plan->release == 0))
			bt_list_add(&rest, i);
	}
	if (b->balancer != BT_NONE && in.n) {
		bt_build_check_stage(b, in);
	}
	if (b->balancer != BT_NONE && (in.n || out.n)) {
		bt_build_stage(b, to.n ? "one switch back" : "nothing served before", "cutover");
		bt_build_lane_balancers(b);
		bt_build_switch(b, in, out, NULL);
	}
	bt_build_retire_stages(b, rest,
		to.n ? bt_build_text(b, "%s serves again",
			       b->plan->release ? bt_build_version(b, b->plan->release)
						: "what served before")
		     : "back to nothing, as before");
}

static void floor_at(struct bt_build *b, size_t min)
{
	b->plan->min_in_rotation = (int64_t)(min < b->scene.n_in ? min : b->scene.n_in);
}

/* Before the first deployment: only a stranger that served may serve again. */
static int to_nothing(struct bt_build *b)
{
	struct bt_list strangers = bt_list_new(b);
	if (b->scene.n_in)
		for (uint16_t i = 0; i < b->scene.n_places; i++)
			if (bt_place_runs(&b->scene.places[i], 0))
				bt_list_add(&strangers, i);
	floor_at(b, strangers.n);
	if (strangers.n)
		bt_build_note(b, "what served before was not started by baton: it is switched to "
				 "again and left as it is");
	take_over(b, strangers, (struct bt_list){0});
	return 0;
}

static struct bt_list join(struct bt_build *b, struct bt_list x, struct bt_list y)
{
	struct bt_list all = bt_list_new(b);
	for (size_t i = 0; i < x.n; i++)
		bt_list_add(&all, x.v[i]);
	for (size_t i = 0; i < y.n; i++)
		if (!bt_list_has(all, y.v[i]))
			bt_list_add(&all, y.v[i]);
	return all;
}

/* Who serves and may go on while the old release starts in the places of `gone`. */
static struct bt_list staying(struct bt_build *b, struct bt_list gone)
{
	struct bt_list stay = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		if (b->scene.places[i].in && !bt_list_has(gone, i))
			bt_list_add(&stay, i);
	return stay;
}

/* They leave in one switch, and what stays takes it all, at every balancer: of several, one may
 * send to the former alone and another one to the latter. */
static void make_room(struct bt_build *b, struct bt_list gone, struct bt_list stay)
{
	struct bt_list fresh = bt_list_new(b);
	for (size_t i = 0; i < stay.n; i++)
		if (!b->scene.places[stay.v[i]].in_all)
			bt_list_add(&fresh, stay.v[i]);
	if (fresh.n) {
		bt_build_stage(b, "they have more to bear for a while", "confirm");
		for (size_t i = 0; i < fresh.n; i++) {
			bt_build_lane_at(b, fresh.v[i]);
			bt_build_health_of(b, fresh.v[i], b->scene.places[fresh.v[i]].release);
		}
		bt_build_check_stage(b, fresh);
	}
	bt_build_stage(b, "what serves elsewhere takes all requests", "make room");
	bt_build_lane_balancers(b);
	bt_build_switch(b, fresh, gone, NULL);
}

static void start_or_confirm(
	struct bt_build *b, uint16_t slot, struct bt_list to, struct bt_list missing, bool roomy)
{
	const char *name = b->service->run.slots[slot].name;
	const char *version = bt_build_version(b, b->plan->release);
	if (missing.n)
		bt_build_stage(
			b, bt_build_text(b, "%s has to run in %s first", version, name), "start");
	else
		bt_build_stage(
			b, bt_build_text(b, "%s still runs in %s", version, name), "confirm");
	for (size_t i = 0; i < to.n; i++) {
		struct bt_list none = {0}, one = bt_list_one(b, to.v[i]);
		bt_build_lane_at(b, to.v[i]);
		if (!bt_list_has(missing, to.v[i])) {
			bt_build_health(b, to.v[i], NULL);
			continue;
		}
		if (b->scene.places[to.v[i]].in && !roomy)
			bt_build_switch(b, none, one, NULL);
		restart(b, to.v[i]);
	}
}

static int back_blue_green(struct bt_build *b, struct bt_err *err)
{
	struct bt_list to = bt_list_new(b), missing = bt_list_new(b), gone = bt_list_new(b);
	uint16_t slot = back_slot(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		if (p->slot != slot)
			continue;
		bt_list_add(&to, i);
		if (bt_place_runs(p, b->plan->release))
			continue;
		bt_list_add(&missing, i);
		if (p->in)
			bt_list_add(&gone, i);
	}
	int r = prepare(b, missing, err);
	if (r < 0)
		return r;
	struct bt_list stay = staying(b, gone);
	bool roomy = gone.n && stay.n;
	bt_build_vip_stage(b, roomy ? join(b, to, stay) : to);
	if (roomy)
		make_room(b, gone, stay);
	start_or_confirm(b, slot, to, missing, roomy);
	floor_at(b, to.n < stay.n ? to.n : stay.n);
	take_over(b, to, missing);
	return 0;
}

/* ── where every slot is an instance: rolling and recreate ── */

struct sorted {
	struct bt_list good;	/* runs the old release, in rotation */
	struct bt_list ready;	/* runs it, out of rotation */
	struct bt_list missing; /* out of rotation, something else or nothing runs */
	struct bt_list wrong;	/* in rotation, something else or nothing runs */
};

static struct sorted sort(struct bt_build *b)
{
	struct sorted s = {bt_list_new(b), bt_list_new(b), bt_list_new(b), bt_list_new(b)};
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		bool missed = b->balancer != BT_NONE && !bt_build_reached(b, i);
		bool runs = bt_place_runs(p, b->plan->release);
		bool in = p->in || (b->balancer == BT_NONE && bt_place_ours(p));
		bt_list_add(
			runs ? (in && !missed ? &s.good : &s.ready) : (in ? &s.wrong : &s.missing),
			i);
	}
	bt_list_order(b, &s.wrong);
	return s;
}

static void confirm(struct bt_build *b, struct bt_list good)
{
	bt_build_stage(b, "they serve the old release already", "confirm");
	for (size_t i = 0; i < good.n; i++) {
		bt_build_lane_at(b, good.v[i]);
		bt_build_health(b, good.v[i], NULL);
	}
}

/* What is out of rotation comes first, since it only adds; then batch by batch what serves. */
static int back_rolling(struct bt_build *b, struct bt_err *err)
{
	struct sorted s = sort(b);
	struct bt_list none = {0}, away = join(b, s.ready, s.missing);
	size_t k = bt_plan_batch(b);
	int r = prepare(b, join(b, s.missing, s.wrong), err);
	if (r < 0)
		return r;
	bt_build_vip_stage(b, join(b, away, s.wrong));
	bt_build_stage(b, "what is out of rotation first: it takes nothing away", "repair");
	for (size_t i = 0; i < away.n; i++) {
		struct bt_list one = bt_list_one(b, away.v[i]);
		bt_build_lane_at(b, away.v[i]);
		if (bt_list_has(s.missing, away.v[i]))
			restart(b, away.v[i]);
		else
			bt_build_health(b, away.v[i], NULL);
		bt_build_backend(b, one, NULL);
		bt_build_switch(b, one, none, NULL);
	}
	for (size_t i = 0; i < s.wrong.n; i++) {
		struct bt_list one = bt_list_one(b, s.wrong.v[i]);
		if (i % k == 0)
			bt_build_stage(
				b, NULL, "batch %zu of %zu", i / k + 1, (s.wrong.n + k - 1) / k);
		bt_build_lane_at(b, s.wrong.v[i]);
		bt_build_switch(b, none, one, NULL);
		restart(b, s.wrong.v[i]);
		bt_build_backend(b, one, NULL);
		bt_build_switch(b, one, none, NULL);
	}
	confirm(b, s.good);
	floor_at(b, b->balancer == BT_NONE ? 0 : b->scene.n_places - k);
	return 0;
}

static int back_recreate(struct bt_build *b, struct bt_err *err)
{
	struct sorted s = sort(b);
	struct bt_list none = {0}, away = join(b, s.ready, s.missing);
	struct bt_list start = join(b, s.missing, s.wrong), in = join(b, away, s.wrong);
	int r = prepare(b, start, err);
	if (r < 0)
		return r;
	bt_build_vip_stage(b, in);
	b->plan->min_in_rotation = 0;
	if (b->balancer != BT_NONE && s.wrong.n) {
		bt_build_stage(b, "no new request goes to what is about to stop", "take out");
		bt_build_lane_balancers(b);
		bt_build_switch(b, none, s.wrong, NULL);
	}
	bt_build_retire_stages(b, start, "it must be gone before the old release starts");
	bt_build_stage(b, NULL, "start");
	for (size_t i = 0; i < in.n; i++) {
		bt_build_lane_at(b, in.v[i]);
		if (bt_list_has(start, in.v[i]))
			bt_build_start(b, in.v[i], NULL);
		bt_build_health(b, in.v[i], NULL);
	}
	if (b->balancer != BT_NONE && in.n) {
		bt_build_check_stage(b, in);
		bt_build_stage(b, NULL, "cutover");
		bt_build_lane_balancers(b);
		bt_build_switch(b, in, none, NULL);
	}
	confirm(b, s.good);
	return 0;
}

int bt_plan_back(struct bt_build *b, struct bt_err *err)
{
	b->plan->old_release = bt_build_serving(b);
	if (b->service->run.as == BT_RUNTIME_BUNDLE)
		return bt_plan_bundle_back(b, err);
	if (b->plan->release == 0)
		return to_nothing(b);
	switch (b->service->deploy.strategy) {
	case BT_STRATEGY_ROLLING:
	case BT_STRATEGY_CANARY:
		return back_rolling(b, err);
	case BT_STRATEGY_RECREATE:
		return back_recreate(b, err);
	default:
		return back_blue_green(b, err);
	}
}
