/* Recreate: everything is taken out and stopped, then started anew. For what cannot run twice;
 * requests fail meanwhile, and the plan says so. */
#include "plan/build.h"

int bt_plan_recreate(struct bt_build *b, struct bt_err *err)
{
	struct bt_list all = bt_list_new(b), in = bt_list_new(b), none = {0};
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		int r = bt_plan_check_free(b, i, err);
		if (r < 0)
			return r;
		bt_list_add(&all, i);
		if (p->in)
			bt_list_add(&in, i);
		if (p->release)
			b->plan->old_release = p->release;
	}
	b->plan->min_in_rotation = 0;
	if (b->plan->old_release)
		bt_build_note(b, "recreate: requests fail from the take-out until the new release "
				 "is switched in");
	bt_build_prepare(b, NULL);
	bt_build_hooks(b, BT_HOOK_BEFORE, none);
	bt_build_vip_stage(b, all);
	if (b->balancer != BT_NONE && in.n) {
		bt_build_stage(b, "no new request goes to what is about to stop", "take out");
		bt_build_lane_balancers(b);
		bt_build_switch(b, none, in, NULL);
	}
	bt_build_retire_stages(b, all, "the old release must be gone before the new one starts");
	bt_build_stage(b, NULL, "start");
	for (size_t i = 0; i < all.n; i++) {
		bt_build_lane_at(b, all.v[i]);
		bt_build_start(b, all.v[i], NULL);
		bt_build_health(b, all.v[i], NULL);
	}
	bt_build_check_stage(b, all);
	bt_build_hooks(b, BT_HOOK_BEFORE_SWITCH, all);
	bt_build_cutover_stage(b, all, none, NULL);
	bt_build_hooks(b, BT_HOOK_AFTER_SWITCH, all);
	bt_build_bake_stage(b, all, "bake");
	bt_build_prune_stage(b);
	return 0;
}
