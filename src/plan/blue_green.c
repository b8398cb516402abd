/* Blue-green: the new release starts in an idle slot of every host, proves itself there, and takes
 * over in one switch. The old slot keeps running until the bake is over, so going back is one
 * switch too. All hosts use the same slot, so that a name says what serves. */
#include "plan/build.h"

#include "base/planted.h"
#include "base/str.h"

/* 0: nothing runs there, 1: it runs out of rotation, 2: it serves on some host. */
static int busy(const struct bt_build *b, uint16_t slot)
{
	int most = 0;
	for (size_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		int n = p->slot != slot ? 0 : p->in ? 2 : bt_place_ours(p);
		if (n > most)
			most = n;
	}
	return most;
}

uint16_t bt_plan_idle_slot(const struct bt_build *b, int live)
{
	uint16_t n = (uint16_t)b->service->run.n_slots;
	uint16_t from = (uint16_t)(live + 1);
	for (int limit = 0; limit < 2; limit++)
		for (uint16_t i = 0; i < n; i++) {
			uint16_t slot = (uint16_t)((from + i) % n);
			if (slot != live && busy(b, slot) <= limit)
				return slot;
		}
	return from % n;
}

static void start_lane(struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	struct bt_list one = bt_list_one(b, place);
	bt_build_lane_at(b, place);
	if (p->in)
		bt_build_switch(b, (struct bt_list){0}, one, "every slot serves: one makes room");
	if (bt_place_ours(p)) {
		bt_build_drain(b, one, p->in ? NULL : "late requests may still be there");
		bt_build_stop(b, place,
			p->in ? NULL
			      : bt_build_text(b, "%s still runs there, and nothing is sent to it",
					bt_build_version(b, p->release)));
	}
	bt_build_start(b, place, NULL);
	bt_build_health(b, place, NULL);
}

static void cutover(struct bt_build *b, struct bt_list to, struct bt_list from)
{
	bt_build_check_stage(b, to);
	bt_build_hooks(b, BT_HOOK_BEFORE_SWITCH, to);
	if (b->balancer == BT_NONE)
		bt_build_note(b, "there is no balancer: whoever calls the service has to follow to "
				 "the new port");
	bt_build_cutover_stage(
		b, to, from, "one change moves every new request, and nginx confirms it");
	bt_build_hooks(b, BT_HOOK_AFTER_SWITCH, to);
}

static void retire(struct bt_build *b, struct bt_list old, int live)
{
	char text[32];
	if (live < 0)
		return;
	for (size_t i = 0; i < old.n; i++) {
		const struct bt_place *p = &b->scene.places[old.v[i]];
		if (!bt_place_ours(p) && p->stranger)
			bt_build_note(b,
				"%s is served by %s, which baton did not start: it is left "
				"running (`baton adopt` before lets it be stopped after the "
				"cutover); stop it yourself when nothing needs it",
				bt_build_place_name(b, old.v[i]), p->stranger);
	}
	const char *name = b->service->run.slots[live].name;
	if (b->service->deploy.keep_warm_ms > 0)
		bt_build_note(b,
			"%s keeps running for %s after the deployment, so that a "
			"rollback is one switch",
			name, bt_duration_format(b->service->deploy.keep_warm_ms, text));
	else
		bt_build_retire_stages(b, old, bt_build_text(b, "%s has handed over", name));
}

static const char *idle_why(struct bt_build *b, uint16_t target, const char *why)
{
	const char *name = b->service->run.slots[target].name;
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		if (p->adopted && p->in)
			why = bt_build_text(b, "%s, where %s is an adopted process (pid %d)", why,
				bt_build_place_name(b, i), p->pid);
	}
	return busy(b, target) == 2 ? bt_build_text(b, "%s is next: %s", name, why)
				    : bt_build_text(b, "%s is idle: %s", name, why);
}

/* What serves is half ours and half not: a way back would have to start our half where the other
 * half holds the port. */
static int check_live(struct bt_build *b, int live, struct bt_err *err)
{
	const struct bt_place *ours = NULL, *other = NULL;
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		if (p->slot == live && bt_place_ours(p))
			ours = p;
		else if (p->slot == live && p->stranger)
			other = p;
	}
	if (!ours || !other)
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"%s/%s is served by %s, which baton did not start, and %s/%s by %s, which it "
		"knows: "
		"take the former over, too (baton adopt), or stop it",
		bt_scene_host(&b->scene, other), bt_scene_slot(&b->scene, other), other->stranger,
		bt_scene_host(&b->scene, ours), bt_scene_slot(&b->scene, ours),
		bt_build_version(b, ours->release));
}

int bt_plan_blue_green(struct bt_build *b, struct bt_err *err)
{
	BT_STR struct bt_str live_why = {0};
	int live = -1;
	int r = bt_plan_live_slot(b->service, b->rq->world, &live, &live_why, err);
	if (r == 0 && live >= 0)
		r = check_live(b, live, err);
	if (r < 0)
		return r;
	uint16_t target = bt_plan_idle_slot(b, live);
	struct bt_list to = bt_list_new(b), from = bt_list_new(b), old = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		if (p->slot == target) {
			if ((r = bt_plan_check_free(b, i, err)) < 0)
				return r;
			bt_list_add(&to, i);
		} else {
			if (p->in)
				bt_list_add(&from, i);
			if (live >= 0 && (p->in || p->slot == live))
				bt_list_add(&old, i);
		}
		if (live >= 0 && p->slot == live && p->release)
			b->plan->old_release = p->release;
	}
	const char *why = idle_why(b, target, bt_str_get(&live_why));
	b->plan->min_in_rotation = (int64_t)(from.n < to.n ? from.n : to.n);
	int64_t wanted = b->service->deploy.min_in_rotation;
	if (wanted >= 0 && wanted < b->plan->min_in_rotation)
		b->plan->min_in_rotation = wanted;
	bt_build_prepare(b, NULL);
	bt_build_hooks(b, BT_HOOK_BEFORE, (struct bt_list){0});
	bt_build_vip_stage(b, to);
	bt_build_stage(b, why, "start");
	for (size_t i = 0; i < to.n; i++)
		start_lane(b, to.v[i]);
	if (BT_BUG(ADOPTED_EARLY) && old.n && b->scene.places[old.v[0]].adopted)
		retire(b, old, live);
	cutover(b, to, from);
	bt_build_bake_stage(b, to, "bake");
	retire(b, old, live);
	bt_build_prune_stage(b);
	return 0;
}
