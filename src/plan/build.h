/* Building a plan: stages, lanes and tasks appended in order, with timeouts from the task table and
 * the service, and the tables (hosts, instances, balancer, releases) made from the scene.
 * Instance index in the plan = place index in the scene. */
#pragma once
#include "plan/plan.h"
#include "plan/scene.h"

struct bt_list { /* of instance indexes; lives in the plan's arena */
	uint16_t *v;
	size_t n;
};

struct bt_build {
	struct bt_arena *arena; /* the plan's */
	struct bt_plan *plan;
	const struct bt_plan_request *rq;
	const struct bt_service *service;
	struct bt_scene scene;
	uint16_t balancer; /* BT_NONE: there is none; else 0, the first of the plan's */
	size_t n_tasks;	   /* in the whole plan */
	int refused;	   /* < 0: a hook cannot stand where it is, and why says it */
	struct bt_err why;
	bool *hooks_out; /* by place: deploy.hooks took it out; NULL: none did */
	/* what is being added to: capacities of the growing tables */
	size_t cap_stages, cap_lanes, cap_tasks, cap_notes, cap_releases;
};

/* Looks at the scene and fills the plan's tables. On failure nothing is owned by the caller. */
int bt_build_begin(struct bt_build *b, const struct bt_plan_request *rq,
	enum bt_plan_purpose purpose, struct bt_err *err);
/* Drops stages without lanes; BT_E_CONFIG where the plan grew too large. Gives the plan away. */
int bt_build_end(struct bt_build *b, struct bt_plan **ret, struct bt_err *err);
void bt_build_abandon(struct bt_build *b); /* after a failure in between */

void bt_build_stage(struct bt_build *b, const char *why, const char *name_fmt, ...)
	__attribute__((format(printf, 3, 4)));
void bt_build_lane(struct bt_build *b, const char *name);
void bt_build_lane_at(struct bt_build *b, uint16_t place); /* "was1/green" */
void bt_build_lane_balancers(struct bt_build *b);	   /* one for all of them */
void bt_build_note(struct bt_build *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *bt_build_text(struct bt_build *b, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Any task, with the table's limit; `why` may be NULL. */
struct bt_task *bt_build_task(
	struct bt_build *b, enum bt_task_kind kind, uint16_t host, const char *why);
struct bt_lane *bt_build_current_lane(struct bt_build *b);
/* What holds for failures in the current stage. */
/* How many lanes may have failed in the run by the end of the current stage. */
void bt_build_stage_may_fail(struct bt_build *b, int64_t n);
void bt_build_stage_policy(struct bt_build *b, enum bt_failure_policy policy, int64_t continue_n);
/* Tasks, appended to the current lane. `why` may be NULL. */
void bt_build_component(struct bt_build *b, uint16_t host, const char *why);
void bt_build_start(struct bt_build *b, uint16_t place, const char *why);
/* The same three of a release that may be another than the plan's, and is known to it. */
void bt_build_component_of(struct bt_build *b, uint16_t host, uint32_t release);
void bt_build_start_of(struct bt_build *b, uint16_t place, uint32_t release, const char *why);
void bt_build_health_of(struct bt_build *b, uint16_t place, uint32_t release);
void bt_build_stop(struct bt_build *b, uint16_t place, const char *why);
void bt_build_adopt(struct bt_build *b, uint16_t place, const char *why);
void bt_build_health(struct bt_build *b, uint16_t place, const char *why);
/* The service's address onto the host's loopback or off it; `out` are all its instances that are
 * reached there. Nothing where the service has no such address. */
void bt_build_loopback(
	struct bt_build *b, uint16_t host, struct bt_list out, bool on, const char *why);
/* Whether nothing is known to be missing there. */
bool bt_build_has_vip(const struct bt_build *b, uint16_t host);
/* Whether every balancer sends there, and the service's address is there for it. */
bool bt_build_reached(const struct bt_build *b, uint16_t place);
/* A stage that puts it on the places' hosts where it is missing: what is put in rotation needs it.
 * One lane a host, since all its instances share it: a lane that is undone takes nothing from
 * others. */
void bt_build_vip_stage(struct bt_build *b, struct bt_list places);
struct bt_list bt_list_of_host(struct bt_build *b, uint16_t host); /* all its places */
/* The three below do nothing without a balancer or with empty lists. With several, each has a task
 * of its own, in their order. */
void bt_build_backend(struct bt_build *b, struct bt_list in, const char *why);
void bt_build_switch(struct bt_build *b, struct bt_list in, struct bt_list out, const char *why);
void bt_build_drain(struct bt_build *b, struct bt_list out, const char *why);
void bt_build_bake(struct bt_build *b, uint16_t place);
void bt_build_prune(struct bt_build *b, uint16_t host);

/* Runs `exec` with the plan's release; place may be BT_NONE. */
void bt_build_exec(struct bt_build *b, const struct bt_task_exec *exec, uint16_t host,
	uint16_t place, int64_t limit_ms, const char *why);
void bt_build_approve(struct bt_build *b, int64_t within_ms, const char *why);

struct bt_list bt_list_new(struct bt_build *b); /* room for every place */
struct bt_list bt_list_one(struct bt_build *b, uint16_t place);
void bt_list_add(struct bt_list *l, uint16_t place);
bool bt_list_has(struct bt_list l, uint16_t place);
/* The order in which instances are replaced. Whom one of several balancers misses comes first:
 * there it takes nothing away. Of the others, who serves the routes to one instance, and runs, goes
 * to the end: so they move once, to one that stays. */
void bt_list_order(const struct bt_build *b, struct bt_list *l);

/* What a failure goes back to: what serves, if there is one another release than the plan's; else
 * what runs, or (a bundle) what is installed. 0: nothing. In the plan's table. */
uint32_t bt_build_serving(struct bt_build *b);
const char *bt_build_version(struct bt_build *b, uint32_t release);
/* Not what was adopted while nobody knew which file it runs: its digest is "". */
bool bt_can_start(const struct bt_plan_release *r);
const char *bt_build_place_name(struct bt_build *b, uint16_t place); /* "was1/green" */

/* Stages that every strategy has. */
void bt_build_check_stage(struct bt_build *b, struct bt_list in); /* from every balancer */
void bt_build_prepare(struct bt_build *b, const bool *hosts);	  /* hosts NULL: all */
void bt_build_bake_stage(struct bt_build *b, struct bt_list places, const char *name);
/* One switch at every balancer, in order; nothing without one. */
void bt_build_cutover_stage(
	struct bt_build *b, struct bt_list in, struct bt_list out, const char *why);
void bt_build_prune_stage(struct bt_build *b);
/* Drain then stop: stages "drain" and "retire"; for places where something of ours runs. */
void bt_build_retire_stages(struct bt_build *b, struct bt_list places, const char *why);

/* The service's own tasks (hooks.c). `places`: the new instances; none of them: hosts alone. */
void bt_build_hooks(struct bt_build *b, enum bt_hook_when when, struct bt_list places);
/* Into the current lane, which is `place`'s. */
void bt_build_hooks_lane(struct bt_build *b, enum bt_hook_when when, uint16_t place,
	bool first_of_all, bool first_of_host);
/* Whether tasks around a switch are done at the first instance only; of each host. */
bool bt_build_hooks_lead(const struct bt_build *b, bool *ret_by_host);
/* Stages for the end of a run that fails: on_failure of the service that is (was) to be deployed,
 * with the release of it. */
void bt_build_hooks_closing(struct bt_build *b, const struct bt_service *of, uint32_t release);
void bt_build_stage_closing(struct bt_build *b); /* the current stage is one */
/* Puts a release into the plan's table; 0 and known ones change nothing. */
void bt_build_release(struct bt_build *b, const struct bt_plan_release *r);
/* BT_E_REFUSED where a host's policy lets nobody run the programs that the plan has. */
int bt_build_check_exec(struct bt_build *b, struct bt_err *err);

/* The strategies' own planners. */
int bt_plan_blue_green(struct bt_build *b, struct bt_err *err);
int bt_plan_rolling(struct bt_build *b, struct bt_err *err);
int bt_plan_recreate(struct bt_build *b, struct bt_err *err);
int bt_plan_back(struct bt_build *b, struct bt_err *err);
/* CodeDeploy bundles: the lifecycle on each host, by deploy.codedeploy (bundle.c); and the way back
 * (bundle_back.c). */
int bt_plan_bundle(struct bt_build *b, struct bt_err *err);
int bt_plan_bundle_back(struct bt_build *b, struct bt_err *err);
/* The way back of a flow: exactly what `before`, its plan, was about and found otherwise is as that
 * found it again. BT_E_REFUSED where that cannot be: what ran there cannot be started again. */
int bt_plan_flow_back(struct bt_build *b, const struct bt_plan *before, struct bt_err *err);
/* A task of a hook into the current lane, as in a flow. `with`: what runs the new release by then;
 * after the switch it serves. What may not be is kept in b->refused. */
void bt_build_flow_task(struct bt_build *b, const struct bt_hook *h, struct bt_list here,
	struct bt_list with, enum bt_hook_when when);
int bt_plan_flow_build(struct bt_build *b, struct bt_err *err);
int bt_plan_adoption(struct bt_build *b, struct bt_err *err);
/* Blue-green: the next slot after the live one (-1: none) where nothing runs. */
uint16_t bt_plan_idle_slot(const struct bt_build *b, int live);
/* Instances at a time, from `batch` and what min_in_rotation leaves. */
size_t bt_plan_batch(const struct bt_build *b);
/* BT_E_REFUSED when a stranger holds the port of the place. */
int bt_plan_check_free(struct bt_build *b, uint16_t place, struct bt_err *err);
