/* What plans of CodeDeploy bundles have in common: lanes of lifecycle events. */
#pragma once
#include "model/lifecycle.h"
#include "plan/build.h"

/* The instances on a host, or one of them: what a lane is about. */
struct bt_bundle_lane {
	uint16_t host;
	struct bt_list here;
	bool healthy; /* each runs, and gets requests where there is a balancer */
};

/* One a host of the service, in the order that CodeDeploy takes them: those that do not serve come
 * first, and whoever serves the routes to one instance last. Into the plan's arena. */
size_t bt_build_bundle_lanes(struct bt_build *b, struct bt_bundle_lane **ret);
/* The lane of one place. */
struct bt_bundle_lane bt_build_bundle_lane_at(struct bt_build *b, uint16_t place);

/* Parts of the current lane, in their order. The events that concern traffic are left out without a
 * balancer. */
void bt_build_bundle_block(struct bt_build *b, const struct bt_bundle_lane *l);
/* ApplicationStop to ValidateService, and health. */
void bt_build_bundle_replace(struct bt_build *b, const struct bt_bundle_lane *l);
void bt_build_bundle_allow(struct bt_build *b, const struct bt_bundle_lane *l);
struct bt_task *bt_build_bundle_event(
	struct bt_build *b, enum bt_lifecycle event, const struct bt_bundle_lane *l);
/* ApplicationStop, whose failure may be passed over. */
void bt_build_bundle_stop(struct bt_build *b, const struct bt_bundle_lane *l);
void bt_build_bundle_install(struct bt_build *b, const struct bt_bundle_lane *l);

/* deploy.codedeploy for n hosts: hosts at a time, and how many have to stay (or become) healthy.
 * BT_E_CONFIG where none is left to deploy to. */
struct bt_bundle_rule {
	size_t n, at_a_time, healthy;
};
int bt_build_bundle_rule(const struct bt_build *b, struct bt_bundle_rule *ret, struct bt_err *err);
/* min_in_rotation, from that. */
void bt_build_bundle_floor(struct bt_build *b, const struct bt_bundle_rule *rule);
struct bt_list bt_build_bundle_everywhere(struct bt_build *b);
struct bt_list bt_build_bundle_slot(struct bt_build *b, int slot); /* on every host */
/* Requests go to the ones, and no longer to the others; each passes its events. */
void bt_build_bundle_take_over(struct bt_build *b, struct bt_list to, struct bt_list from);
int bt_build_bundle_blue_green(struct bt_build *b, struct bt_err *err);
