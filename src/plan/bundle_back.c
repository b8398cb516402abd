/* The way back of a CodeDeploy bundle: CodeDeploy deploys the last good revision again, on the
 * hosts that were changed.
 *
 * In place: who runs it already and gets requests is left alone; who runs it and is out of rotation
 * is put in; every other host passes through the whole lifecycle with the old revision. Blue-green:
 * where the old one still runs in its slot, its files are installed again; where it does not, it
 * passes through the lifecycle there; then its slot passes the events that allow traffic, and the
 * others those that block it.
 *
 * Back to nothing, after a first deployment that failed: what was installed is taken out and its
 * ApplicationStop runs. What ran before, and was installed by others, is left alone, or put back.
 */
#include "plan/bundle.h"

#include "base/planted.h"
#include "base/str.h"

static bool in(const struct bt_build *b, const struct bt_bundle_lane *l)
{
	for (size_t i = 0; b->balancer != BT_NONE && i < l->here.n; i++)
		if (!b->scene.places[l->here.v[i]].in_all)
			return false;
	return true;
}

static bool runs(const struct bt_build *b, const struct bt_bundle_lane *l)
{
	for (size_t i = 0; i < l->here.n; i++) {
		const struct bt_place *p = &b->scene.places[l->here.v[i]];
		if (p->state != BT_RUN_RUNNING || p->health == BT_VITAL_UNHEALTHY ||
			p->release != b->plan->release)
			return false;
	}
	return true;
}

static bool by_slot(const struct bt_build *b)
{
	return b->service->deploy.codedeploy.style == BT_CODEDEPLOY_BLUE_GREEN;
}

static void begin_lane(struct bt_build *b, const struct bt_bundle_lane *l)
{
	if (by_slot(b))
		bt_build_lane_at(b, l->here.v[0]);
	else
		bt_build_lane(b, b->plan->hosts[l->host]);
}

static void put_in(struct bt_build *b, const struct bt_bundle_lane *l)
{
	begin_lane(b, l);
	for (size_t i = 0; b->plan->release && i < l->here.n; i++)
		bt_build_health(b, l->here.v[i], NULL);
	bt_build_backend(b, l->here, NULL);
	bt_build_switch(b, l->here, (struct bt_list){0}, "it runs what served before");
}

/* ---- in place ---------------------------------------------------------------------------- */

static void prepare(struct bt_build *b, const struct bt_bundle_lane *list, size_t n)
{
	bool *hosts = BT_ARENA_ARRAY(b->arena, bool, b->service->n_hosts);
	bool any = false;
	for (size_t i = 0; i < n; i++)
		if (!runs(b, &list[i]))
			any = hosts[list[i].host] = true;
	if (any)
		bt_build_prepare(b, hosts);
}

static int in_place(struct bt_build *b, struct bt_err *err)
{
	struct bt_bundle_rule rule;
	struct bt_bundle_lane *list;
	int r = bt_build_bundle_rule(b, &rule, err);
	if (r < 0)
		return r;
	size_t n = bt_build_bundle_lanes(b, &list), k = 0;
	const struct bt_bundle_lane *last = NULL;
	bt_build_bundle_floor(b, &rule);
	prepare(b, list, n);
	bt_build_vip_stage(b, bt_build_bundle_everywhere(b));
	bt_build_stage(b, "they run it already: it takes nothing away", "repair");
	for (size_t i = 0; i < n; i++)
		if (runs(b, &list[i]) && !in(b, &list[i]))
			put_in(b, &list[i]);
	for (size_t i = 0; i < n; i++) {
		if (runs(b, &list[i]))
			continue;
		/* Who serves comes after those that do not, and is not mixed with them. */
		if (last && last->healthy != list[i].healthy)
			k = 0;
		last = &list[i];
		if (k++ % rule.at_a_time == 0)
			bt_build_stage(b, NULL, "back, from %s", b->plan->hosts[list[i].host]);
		bt_build_lane(b, b->plan->hosts[list[i].host]);
		bt_build_bundle_block(b, &list[i]);
		bt_build_bundle_replace(b, &list[i]);
		bt_build_bundle_allow(b, &list[i]);
	}
	return 0;
}

/* ---- blue-green -------------------------------------------------------------------------- */

/* The slot where it runs on most hosts; where on none, the first one after what serves that gets
 * the fewest requests. */
static int where_to(struct bt_build *b)
{
	int n_slots = (int)b->service->run.n_slots, best = -1, after = 0;
	size_t most = 0, fewest = 0;
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		if (b->scene.places[i].in)
			after = b->scene.places[i].slot + 1;
	for (int k = 0; k < n_slots; k++) {
		int slot = (after + k) % n_slots;
		struct bt_list places = bt_build_bundle_slot(b, slot);
		size_t n = 0, n_in = 0;
		for (size_t i = 0; i < places.n; i++) {
			struct bt_bundle_lane l = bt_build_bundle_lane_at(b, places.v[i]);
			n += runs(b, &l);
			n_in += b->scene.places[places.v[i]].in;
		}
		if (best >= 0 && (n < most || (n == most && n_in >= fewest)))
			continue;
		best = slot;
		most = n;
		fewest = n_in;
	}
	return best;
}

/* Where it runs its files are installed again, since those of a host are one set. */
static void reinstall(struct bt_build *b, struct bt_list to)
{
	bt_build_prepare(b, NULL);
	bt_build_stage(b, "the files of the host are those of the one that serves", "Install");
	for (size_t i = 0; i < to.n; i++) {
		struct bt_bundle_lane l = bt_build_bundle_lane_at(b, to.v[i]);
		if (!runs(b, &l) || BT_BUG(FILES_STAY))
			continue;
		bt_build_lane_at(b, to.v[i]);
		bt_build_bundle_install(b, &l);
	}
}

/* Where it does not run it is started anew, out of rotation. Returns how many have to leave it. */
static size_t start_anew(struct bt_build *b, struct bt_list to)
{
	size_t left = 0;
	bt_build_stage(b, "it runs there no longer", "start");
	for (size_t i = 0; i < to.n; i++) {
		struct bt_bundle_lane l = bt_build_bundle_lane_at(b, to.v[i]);
		if (runs(b, &l))
			continue;
		left += b->scene.places[to.v[i]].in;
		bt_build_lane_at(b, to.v[i]);
		bt_build_bundle_block(b, &l);
		bt_build_bundle_replace(b, &l);
	}
	return left;
}

static void blue_green(struct bt_build *b)
{
	int slot = where_to(b);
	struct bt_list to = bt_build_bundle_slot(b, slot), add = bt_list_new(b),
		       from = bt_list_new(b);
	reinstall(b, to);
	size_t left = start_anew(b, to), stay = b->scene.n_in - left;
	b->plan->min_in_rotation = (int64_t)(stay < to.n ? stay : to.n);
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		struct bt_bundle_lane l = bt_build_bundle_lane_at(b, i);
		if (p->slot == slot && !(p->in_all && runs(b, &l)))
			bt_list_add(&add, i);
		if (p->slot != slot && p->in)
			bt_list_add(&from, i);
	}
	bt_build_vip_stage(b, to);
	bt_build_stage(b, "it runs there", "originals");
	for (size_t i = 0; i < add.n; i++) {
		bt_build_lane_at(b, add.v[i]);
		bt_build_health(b, add.v[i], NULL);
	}
	bt_build_bundle_take_over(b, add, from);
}

/* ---- to nothing -------------------------------------------------------------------------- */

static bool installed(const struct bt_build *b, const struct bt_bundle_lane *l)
{
	for (size_t i = 0; i < l->here.n; i++)
		if (b->scene.places[l->here.v[i]].installed)
			return true;
	return false;
}

static bool all_run(const struct bt_build *b, const struct bt_bundle_lane *l)
{
	for (size_t i = 0; i < l->here.n; i++)
		if (b->scene.places[l->here.v[i]].state != BT_RUN_RUNNING)
			return false;
	return true;
}

/* It got requests when the run that is taken back began. */
static bool was_in(const struct bt_build *b, const struct bt_bundle_lane *l)
{
	const struct bt_plan *p = b->rq->before;
	for (size_t k = 0; k < l->here.n; k++) {
		const struct bt_place *place = &b->scene.places[l->here.v[k]];
		bool found = false;
		for (size_t i = 0; p && i < p->n_instances; i++)
			found = found || (p->instances[i].expect_in &&
						 bt_streq(p->instances[i].slot,
							 bt_scene_slot(&b->scene, place)) &&
						 bt_streq(p->hosts[p->instances[i].host],
							 bt_scene_host(&b->scene, place)));
		if (!found)
			return false;
	}
	return true;
}

/* Blue-green, the slots of a host are not each other's. */
static size_t lanes(struct bt_build *b, struct bt_bundle_lane **ret)
{
	if (!by_slot(b))
		return bt_build_bundle_lanes(b, ret);
	struct bt_bundle_lane *list =
		BT_ARENA_ARRAY(b->arena, struct bt_bundle_lane, b->scene.n_places);
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		list[i] = bt_build_bundle_lane_at(b, i);
	*ret = list;
	return b->scene.n_places;
}

static int to_nothing(struct bt_build *b)
{
	struct bt_bundle_lane *list;
	size_t n = lanes(b, &list), stays = 0;
	for (size_t i = 0; i < n; i++)
		if (!installed(b, &list[i]) && in(b, &list[i]))
			stays += list[i].here.n;
	b->plan->min_in_rotation = b->balancer == BT_NONE ? 0 : (int64_t)stays;
	bt_build_stage(b, "nothing was installed there: what ran before runs on", "repair");
	for (size_t i = 0; i < n; i++)
		if (!installed(b, &list[i]) && all_run(b, &list[i]) && !in(b, &list[i]) &&
			was_in(b, &list[i]))
			put_in(b, &list[i]);
	bt_build_stage(b, "back to nothing, as before", "retire");
	bt_build_release(b, &b->rq->failed_release);
	for (size_t i = 0; i < n; i++) {
		if (!installed(b, &list[i]))
			continue;
		/* Whose scripts they are. */
		b->plan->release = b->rq->failed_release.id;
		begin_lane(b, &list[i]);
		bt_build_bundle_block(b, &list[i]);
		bt_build_bundle_stop(b, &list[i]);
		b->plan->release = 0;
	}
	return 0;
}

int bt_plan_bundle_back(struct bt_build *b, struct bt_err *err)
{
	if (b->plan->release == 0)
		return to_nothing(b);
	if (!by_slot(b))
		return in_place(b, err);
	blue_green(b);
	return 0;
}
