#include "plan/plan.h"

#include "base/str.h"
#include "plan/build.h"
#include "plan/flows.h"

#include <string.h>

static int (*const strategies[])(struct bt_build *, struct bt_err *) = {
	[BT_STRATEGY_BLUE_GREEN] = bt_plan_blue_green,
	[BT_STRATEGY_ROLLING] = bt_plan_rolling,
	[BT_STRATEGY_RECREATE] = bt_plan_recreate,
	[BT_STRATEGY_CANARY] = bt_plan_rolling,
};

int bt_plan_check_free(struct bt_build *b, uint16_t place, struct bt_err *err)
{
	const struct bt_place *p = &b->scene.places[place];
	if (!p->stranger)
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"port %u of %s is held by %s, which baton did not start: stop it, or give %s "
		"another port",
		p->port, bt_build_place_name(b, place), p->stranger, bt_scene_slot(&b->scene, p));
}

/* "8080", "127.0.0.1:80", "[::]:443" → the port; 0 where there is none to be seen. */
static long listen_port(const char *listen)
{
	const char *colon = listen ? strrchr(listen, ':') : NULL;
	return listen ? strtol(colon ? colon + 1 : listen, NULL, 10) : 0;
}

static int check_ports(
	const struct bt_nginx *n, const struct bt_scene_balancer *at, struct bt_err *err)
{
	const char *const listens[] = {n->listen, n->redirect};
	for (size_t i = 0; i < BT_ARRAY_LEN(listens); i++) {
		long port = listen_port(listens[i]);
		if (port > 0 && port < 1024 && !at->host->can_bind_low)
			return bt_err_set(err, BT_E_REFUSED,
				"the agent on %s may not listen on port %ld (below 1024): use a "
				"higher port, or give it CAP_NET_BIND_SERVICE",
				at->on, port);
	}
	return 0;
}

static int check_balancer(
	struct bt_build *b, const struct bt_scene_balancer *at, struct bt_err *err)
{
	const struct bt_nginx *n = b->service->nginx;
	const char *family = b->scene.facts.family;
	bool managed = n && n->mode == BT_NGINX_MANAGED;
	if (at->seen && at->seen->refuses)
		return bt_err_set(
			err, BT_E_REFUSED, "%s on %s: %s", family, at->on, at->seen->refuses);
	if (!managed && !at->seen->running)
		return bt_err_set(err, BT_E_REFUSED,
			"%s on %s is not running: start it, then deploy", family, at->on);
	const struct bt_seen_member *gone = at->gone_member, *other = at->other_member;
	if ((gone || other) && b->scene.facts.keeps_others) {
		const struct bt_seen_member *one = gone ? gone : other;
		bt_build_note(b,
			"%s on %s sends to %s:%u too, which is no slot of %s: what others put "
			"there stays",
			family, at->on, one->address, one->port, b->service->name);
		gone = other = NULL;
	}
	if (gone && b->scene.n_in == 0)
		other = gone; /* nothing else serves */
	else if (gone)
		bt_build_note(b,
			"%s on %s sends to %s:%u too, a host that is no longer one of "
			"%s: the switch takes it out, and what runs there is left running",
			family, at->on, gone->address, gone->port, b->service->name);
	if (other)
		return bt_err_set(err, BT_E_REFUSED,
			"%s on %s sends to %s:%u, which is no slot of %s: give what serves "
			"there "
			"a slot, or take it out of %s",
			family, at->on, other->address, other->port, b->service->name, family);
	return managed ? check_ports(n, at, err) : 0;
}

static int check_balancers(struct bt_build *b, struct bt_err *err)
{
	for (size_t i = 0; i < b->scene.n_balancers; i++) {
		int r = check_balancer(b, &b->scene.balancers[i], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int finish(struct bt_build *b, int r, struct bt_plan **ret, struct bt_err *err)
{
	if (r < 0) {
		bt_build_abandon(b);
		return r;
	}
	return bt_build_end(b, ret, err);
}

int bt_plan_deploy(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_build b;
	int r = bt_build_begin(&b, rq, BT_PLAN_DEPLOY, err);
	if (r < 0)
		return r;
	r = check_balancers(&b, err);
	if (r == 0)
		r = rq->service->run.as == BT_RUNTIME_BUNDLE
			    ? bt_plan_bundle(&b, err)
			    : strategies[rq->service->deploy.strategy](&b, err);
	if (r == 0) {
		bt_build_hooks_closing(&b, rq->service, rq->release.id);
		r = bt_build_check_exec(&b, err);
	}
	return finish(&b, r, ret, err);
}

int bt_plan_flow(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_build b;
	int r = bt_build_begin(
		&b, rq, bt_flow_deploys(rq->flow) ? BT_PLAN_DEPLOY : BT_PLAN_FLOW, err);
	if (r < 0)
		return r;
	r = check_balancers(&b, err);
	if (r == 0)
		r = bt_plan_flow_build(&b, err);
	if (r == 0) {
		bt_build_hooks_closing(&b, rq->service, rq->release.id);
		r = bt_build_check_exec(&b, err);
	}
	return finish(&b, r, ret, err);
}

int bt_plan_rollback(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_build b;
	int r = bt_build_begin(&b, rq, BT_PLAN_ROLLBACK, err);
	if (r < 0)
		return r;
	r = rq->before && rq->before->flow ? bt_plan_flow_back(&b, rq->before, err)
					   : bt_plan_back(&b, err);
	if (r == 0 && rq->failed) {
		bt_build_release(&b, &rq->failed_release);
		bt_build_hooks_closing(&b, rq->failed, rq->failed_release.id);
	}
	return finish(&b, r, ret, err);
}

int bt_plan_adopt(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_build b;
	int r = bt_build_begin(&b, rq, BT_PLAN_ADOPT, err);
	if (r < 0)
		return r;
	r = check_balancers(&b, err);
	return finish(&b, r < 0 ? r : bt_plan_adoption(&b, err), ret, err);
}

/* Without a balancer only blue-green has something to retire: what is not the live slot. */
static int retire(struct bt_build *b, struct bt_err *err)
{
	struct bt_list idle = bt_list_new(b);
	int live = -1;
	if (b->balancer == BT_NONE) {
		BT_STR struct bt_str why = {0};
		int r = bt_plan_live_slot(b->service, b->rq->world, &live, &why, err);
		if (r < 0)
			return r;
	}
	bool by_slot = b->service->deploy.strategy == BT_STRATEGY_BLUE_GREEN && live >= 0;
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		bool serving = b->balancer != BT_NONE ? p->in : !by_slot || p->slot == live;
		if (serving && p->release)
			b->plan->old_release = p->release;
		else if (!serving && bt_place_ours(p))
			bt_list_add(&idle, i);
	}
	b->plan->min_in_rotation = (int64_t)b->scene.n_in;
	if (!idle.n)
		bt_build_note(b, "nothing runs out of rotation: there is nothing to retire");
	bt_build_retire_stages(b, idle, "its warm time is over, and nothing is sent to it");
	return 0;
}

int bt_plan_prune(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_build b;
	int r = bt_build_begin(&b, rq, BT_PLAN_PRUNE, err);
	if (r < 0)
		return r;
	b.plan->on_failure =
		BT_ON_FAILURE_CONTINUE; /* one host's disk is no reason to spare others */
	b.plan->continue_n = BT_PLAN_MAX_INSTANCES;
	bt_build_prune_stage(&b);
	return finish(&b, 0, ret, err);
}

int bt_plan_retire(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_build b;
	int r = bt_build_begin(&b, rq, BT_PLAN_RETIRE, err);
	if (r < 0)
		return r;
	return finish(&b, retire(&b, err), ret, err);
}
