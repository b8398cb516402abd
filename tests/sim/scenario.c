/* One seed → a service, what runs before, what the run is for, faults, an operator. */
#include "sim.h"

#include <string.h>

const struct bt_plan_release known_releases[N_KNOWN] = {{1, "v1", NULL}, {2, "v2", NULL},
	{3, "v3", NULL}, {4, "v4", NULL}, {5, "v5", NULL}, {6, "v6", NULL}, {7, "v7", NULL},
	{8, "v8", NULL}, {9, "v9", NULL}};

static void pick_odds(struct sim *s)
{
	struct odds *o = &s->odds;
	if (s->opt.calm || chance(s, 200))
		return;
#define SOME(member, part, lo, hi)                                                                 \
	do {                                                                                       \
		if (chance(s, part))                                                               \
			o->member = (uint32_t)between(s, lo, hi);                                  \
	} while (0)
	SOME(lost, 350, 5, 200);
	SOME(repeated, 350, 5, 200);
	SOME(late, 300, 5, 100);
	SOME(commit_fails, 250, 5, 100);
	SOME(server_crash, 300, 3, 40);
	SOME(agent_crash, 300, 3, 40);
	SOME(switch_refused, 150, 20, 400);
	SOME(limit, 200, 5, 100);
	SOME(half, 150, 20, 200);
	SOME(disk_full, 100, 50, 400);
	SOME(app_slow, 250, 50, 500);
	SOME(app_never, 200, 50, 500);
	SOME(app_exits, 150, 50, 400);
	SOME(app_dies, 150, 50, 400);
	SOME(app_revives, 500, 300, 900);
	SOME(drain_slow, 200, 50, 300);
	SOME(bake_fails, 100, 50, 500);
	SOME(old_bad, 200, 1, 1);
#undef SOME
}

static void pick_deploy(struct sim *s)
{
	struct bt_deploy *d = &s->service.deploy;
	d->strategy = s->opt.strategy >= 0 ? (enum bt_strategy)s->opt.strategy
					   : (enum bt_strategy)between(s, 0, 2);
	if (s->opt.strategy == BUNDLE_BLUE_GREEN)
		d->strategy = BT_STRATEGY_BLUE_GREEN;
	else if (s->opt.strategy >= FLOW_STRATEGY)
		d->strategy = BT_STRATEGY_ROLLING;
	else if (d->strategy == BT_STRATEGY_ROLLING && s->opt.strategy < 0 && draw(s, 4) % 4 == 0)
		d->strategy = BT_STRATEGY_CANARY;
	d->canary = 1 + (int64_t)(draw(s, 5) % 2);
	d->drain_ms = between(s, 0, 6) * 1000;
	d->on_drain_timeout =
		chance(s, 200) ? BT_ON_DRAIN_TIMEOUT_FAIL : BT_ON_DRAIN_TIMEOUT_CONTINUE;
	d->bake_ms = chance(s, 500) ? between(s, 1, 10) * 1000 : 0;
	d->keep_warm_ms = chance(s, 300) ? 600000 : 0;
	d->on_failure = (enum bt_failure_policy)between(s, 0, 2);
	d->continue_n = between(s, 1, 2);
	d->batch = between(s, 1, 3);
	if (chance(s, 200)) {
		d->batch_percent = true;
		d->batch = between(s, 1, 100);
	}
	d->min_in_rotation = -1;
	d->timeout_ms = !s->opt.calm && chance(s, 60) ? between(s, 2, 40) * 1000 : 0;
	d->keep = 3;
	static const enum counter policies[] = {
		C_POLICY_ROLLBACK, C_POLICY_HALT, C_POLICY_CONTINUE};
	static const enum counter strategies[] = {
		C_STRATEGY_BLUE_GREEN, C_STRATEGY_ROLLING, C_STRATEGY_RECREATE, C_STRATEGY_CANARY};
	counters[policies[d->on_failure]]++;
	counters[strategies[d->strategy]]++;
}

/* Half of them are nginx; the others are told what the hosts do, or sit on them. */
static void pick_family(struct sim *s)
{
	static const char *const vips[] = {"10.9.9.9"};
	uint64_t dice = draw(s, 2) % 10;
	if (dice < 5)
		return;
	s->service.nginx = NULL;
	s->service.l4 = &s->l4;
	s->nginx.n_routes = 0;
	s->l4 = (struct bt_l4){.kind = BT_BALANCER_HAPROXY, .on = s->on, .n_on = s->n_balancers};
	if (dice < 8) {
		counters[C_RUN_DSR]++;
		s->dsr = true;
		s->l4.kind = BT_BALANCER_NFTABLES;
		s->l4.mode = BT_L4_DSR;
		s->l4.vip = vips[0];
		s->service.loopback =
			(struct bt_loopback){.vips = vips, .n_vips = 1, .interface = "lo"};
	} else if (dice < 9) {
		counters[C_RUN_OWN_HOST]++;
		s->own_host = true;
		s->l4.kind = BT_BALANCER_ROTATION;
		s->n_hosts = s->n_balancers = s->n_service_hosts;
		for (uint16_t b = 0; b < s->n_balancers; b++) {
			s->balancers[b] = (struct balancer){.exists = true, .host = b};
			s->on[b] = s->host_names[b];
		}
	}
}

static void pick_service(struct sim *s)
{
	static const char *const hosts[] = {"was1", "was2", "was3", "web1", "web2"};
	static const char *const slots[] = {"s1", "s2", "s3", "s4", "s5"};
	static const struct bt_stop_step stop = {15, 10000};
	struct bt_service *v = &s->service;
	pick_deploy(s);
	bool bg = v->deploy.strategy == BT_STRATEGY_BLUE_GREEN;
	s->n_service_hosts = (uint16_t)between(s, 1, MAX_SERVICE_HOSTS);
	s->n_slots = (uint16_t)(bg ? between(s, 2, 3) : between(s, 1, MAX_SLOTS));
	if (!bg && chance(s, 600) && s->n_slots > 2) /* most services are small */
		s->n_slots = 2;
	s->n_inst = s->n_service_hosts * s->n_slots;
	for (uint16_t i = 0; i < s->n_slots; i++)
		s->slots[i] = (struct bt_slot){slots[i], (uint16_t)(8081 + i), NULL, 0};
	for (uint16_t h = 0; h < s->n_service_hosts; h++)
		s->host_names[h] = hosts[h];
	s->n_hosts = s->n_service_hosts;
	v->name = "app";
	v->hosts = s->host_names;
	v->n_hosts = s->n_service_hosts;
	v->run.slots = s->slots;
	v->run.n_slots = s->n_slots;
	v->run.stop = &stop;
	v->run.n_stop = 1;
	v->health = (struct bt_health){
		.every_ms = 100, .timeout_ms = 1000, .within_ms = 20000, .passes = 1, .fails = 3};
	s->n_balancers = chance(s, 80) ? 0 : chance(s, 300) ? 2 : 1;
	if (!s->n_balancers) {
		counters[C_RUN_NO_BALANCER]++;
		return;
	}
	if (chance(s, 400)) {
		s->balancers[0].host = 0;
	} else {
		s->balancers[0].host = s->n_hosts;
		s->host_names[s->n_hosts++] = hosts[3];
	}
	if (s->n_balancers > 1) {
		counters[C_RUN_TWO_BALANCERS]++;
		s->balancers[1].host = s->n_hosts;
		s->host_names[s->n_hosts++] = hosts[4];
	}
	for (uint16_t b = 0; b < s->n_balancers; b++) {
		s->balancers[b].exists = true;
		s->on[b] = s->host_names[s->balancers[b].host];
	}
	s->nginx = (struct bt_nginx){.on = s->on, .n_on = s->n_balancers, .mode = BT_NGINX_ADOPT};
	if (chance(s, 500)) {
		s->routes[0] = (struct bt_route){.path = "/", .to = BT_ROUTE_ONE};
		s->routes[1] = (struct bt_route){.path = "/api", .to = BT_ROUTE_ALL};
		s->nginx.routes = s->routes;
		s->nginx.n_routes = 2;
	}
	v->nginx = &s->nginx;
	pick_family(s);
}

void place(struct sim *s, uint16_t i, uint32_t release, bool in)
{
	s->inst[i] = (struct inst){.app = APP_HEALTHY,
		.release = release,
		.life = 1,
		.since_ms = -100000 * (int64_t)release,
		.healthy_ms = -1,
		.dies_ms = INT64_MAX};
	for (uint16_t b = 0; b < s->n_balancers; b++)
		s->balancers[b].in[i] = in && (!s->own_host || b == i / s->n_slots);
	s->disk[i / s->n_slots] |= 1u << release;
}

static void pick_world(struct sim *s)
{
	bool bg = s->service.deploy.strategy == BT_STRATEGY_BLUE_GREEN;
	for (uint16_t b = 0; b < s->n_balancers; b++)
		s->balancers[b].generation = (uint64_t)between(s, 0, 5);
	uint16_t live = (uint16_t)between(s, 0, s->n_slots - 1);
	if (s->purpose == BT_PLAN_DEPLOY && chance(s, 80)) {
		counters[C_RUN_FIRST]++;
		return;
	}
	/* What a rollback by hand leaves behind runs the new release. */
	uint32_t now = s->purpose == BT_PLAN_ROLLBACK ? NEW : OLD;
	for (uint16_t i = 0; i < s->n_inst; i++)
		if (!bg || i % s->n_slots == live)
			place(s, i, now, bg || !chance(s, 30));
	for (uint16_t i = 0; s->purpose == BT_PLAN_ADOPT && i < s->n_inst; i++) {
		s->inst[i].foreign = s->inst[i].app != APP_ABSENT;
		s->disk[i / s->n_slots] = 0;
	}
	if (!bg || s->purpose == BT_PLAN_ADOPT)
		return;
	if (s->purpose == BT_PLAN_DEPLOY &&
		chance(s, 5)) /* nobody can say which slot is live: the plan layer refuses */
		s->balancers[0].in[(live + 1) % s->n_slots] = s->n_balancers > 0;
	bool warm = s->purpose != BT_PLAN_DEPLOY || chance(s, 300);
	uint32_t other = s->purpose == BT_PLAN_ROLLBACK ? OLD : OLDER;
	for (uint16_t i = 0; i < s->n_inst && warm; i++)
		if (i % s->n_slots == (live + 1u) % s->n_slots && !chance(s, 30))
			place(s, i, other, false);
}

static int first_plan(struct sim *s, struct bt_plan **ret, struct bt_err *err)
{
	struct snapshot seen[MAX_HOSTS] = {{0}};
	for (uint16_t h = 0; h < s->n_hosts; h++)
		world_snapshot(s, h, &seen[h]);
	struct bt_world *w = world_build(s, seen);
	struct bt_plan_request rq = {.service = &s->service,
		.world = w,
		.release = known_releases[s->release ? s->release - 1 : 0],
		.known = known_releases,
		.n_known = N_KNOWN,
		.first_task_id = 1};
	int r = s->is_flow			 ? flows_plan(s, &rq, ret, err)
		: s->purpose == BT_PLAN_DEPLOY	 ? bt_plan_deploy(&rq, ret, err)
		: s->purpose == BT_PLAN_ROLLBACK ? bt_plan_rollback(&rq, ret, err)
		: s->purpose == BT_PLAN_ADOPT	 ? bt_plan_adopt(&rq, ret, err)
						 : bt_plan_retire(&rq, ret, err);
	bt_world_free(w);
	return r;
}

static void pick_times(struct sim *s)
{
	s->storm = !s->opt.calm;
	int64_t now = s->now_ms;
	at(s, now + between(s, 20, 400) * 1000, EV_STORM_OVER, (uint32_t)s->deployment, 0, 0, NULL);
	if (s->opt.calm)
		return;
	for (int64_t n = chance(s, 120) ? between(s, 1, 2) : 0; n > 0; n--)
		at(s, now + between(s, 0, 30000), EV_PARTITION, 0,
			(uint16_t)between(s, 0, s->n_hosts - 1),
			chance(s, 800) ? between(s, 3000, 100000) : between(s, 100000, 400000),
			NULL);
	for (int64_t n = chance(s, 250) ? between(s, 1, 2) : 0; n > 0; n--)
		at(s, now + between(s, 0, 25000), EV_OPERATOR, 0, 0,
			between(s, BT_OP_PAUSE, BT_OP_ROLLBACK), NULL);
	s->aborts_when_parked = chance(s, 150);
	if (!s->restored && s->opt.crash_after < 0 && s->rng % 5 == 0)
		at(s, now + (int64_t)(s->rng / 5 % 30000), EV_RESTORE, 0, 0, 0, NULL);
}

static void count_run(const struct sim *s)
{
	const struct bt_deploy *d = &s->service.deploy;
	deployments++;
	if (s->purpose == BT_PLAN_ROLLBACK)
		counters[C_RUN_ROLLBACK]++;
	if (s->purpose == BT_PLAN_RETIRE)
		counters[C_RUN_RETIRE]++;
	if (s->purpose == BT_PLAN_ADOPT)
		counters[C_RUN_ADOPT]++;
	for (uint16_t i = 0; s->purpose == BT_PLAN_DEPLOY && i < s->n_inst; i++)
		if (s->inst[i].adopted) {
			counters[C_RUN_OVER_ADOPTED]++;
			break;
		}
	if (d->keep_warm_ms && d->strategy == BT_STRATEGY_BLUE_GREEN)
		counters[C_RUN_WARM]++;
}

/* What the run starts from, for the checks. */
static void remember(struct sim *s, const struct bt_plan *plan)
{
	s->target = plan->old_release;
	s->min_in_rotation = plan->min_in_rotation;
	s->n_in_at_plan = 0;
	for (uint16_t i = 0; i < s->n_inst; i++)
		s->n_in_at_plan += world_in(s, i);
	memcpy(s->at_start, s->inst, sizeof s->inst);
	memcpy(s->vip_at_start, s->vip, sizeof s->vip);
	s->flow_plan = plan;
	flows_remember(s);
	bundles_remember(s);
	for (uint16_t i = 0; i < s->n_inst; i++)
		s->vip_excused[i / s->n_slots] |= !s->vip[i / s->n_slots] && world_in(s, i);
	for (uint16_t b = 0; b < s->n_balancers; b++) {
		s->balancers[b].one_served = s->balancers[b].one;
		s->balancers[b].one_moves = 0;
	}
	memcpy(s->balancers_at_start, s->balancers, sizeof s->balancers);
	s->one_excused = false;
	s->horizon_ms = s->now_ms + HORIZON_MS;
}

/* Before the first plan: somebody of those in rotation serves them. */
static void pick_one(struct sim *s)
{
	uint16_t from = (uint16_t)between(s, 0, s->n_inst - 1), one = BT_NONE;
	for (uint16_t i = 0; s->nginx.n_routes && i < s->n_inst; i++)
		if (world_in(s, (uint16_t)((from + i) % s->n_inst)))
			one = (uint16_t)((from + i) % s->n_inst);
	for (uint16_t b = 0; b < s->n_balancers; b++)
		s->balancers[b].one = one;
}

/* NULL: there is no plan for this. */
static struct bt_plan *plan_run(struct sim *s)
{
	struct bt_plan *plan = NULL;
	struct bt_err err = {0};
	s->allowed = 1u << s->release;
	for (uint16_t i = 0; i < s->n_inst; i++)
		s->allowed |= 1u << s->inst[i].release;
	bundles_allow(s);
	if (first_plan(s, &plan, &err) < 0) {
		trace(s, "no plan: %s", err.text);
		counters[C_PLAN_REFUSED]++;
		return NULL;
	}
	count_run(s);
	twist(s, plan);
	meddle(s);
	remember(s, plan);
	if (s->is_flow)
		flows_meddle(s);
	if (s->opt.verbose) {
		BT_STR struct bt_str text = {0};
		bt_plan_print(plan, &text);
		printf("%s\n", bt_str_get(&text));
	}
	pick_times(s);
	return plan;
}

void scenario(struct sim *s)
{
	s->deployment = FIRST_DEPLOYMENT;
	pick_service(s);
	bundles_pick(s);
	hooks_pick(s);
	pick_odds(s);
	if (!s->opt.calm && s->rng % 3 == 0)
		s->odds.exec_fails = s->odds.exec_hangs = 60;
	if (!s->opt.calm && s->opt.crash_after < 0 && !s->opt.journal)
		s->runs_left = chance(s, 250) ? (uint32_t)between(s, 1, 3) : 0;
	s->purpose = s->opt.calm || chance(s, 850) ? BT_PLAN_DEPLOY
		     : chance(s, 600)		   ? BT_PLAN_ROLLBACK
						   : BT_PLAN_RETIRE;
	if (!s->opt.calm && s->opt.crash_after < 0 && !s->opt.journal && s->rng % 29 == 0 &&
		!s->bundle) {
		s->purpose = BT_PLAN_ADOPT;
		s->runs_left += 2;
	}
	if (s->bundle && s->purpose == BT_PLAN_RETIRE)
		s->purpose = BT_PLAN_ROLLBACK;
	s->is_flow = s->purpose == BT_PLAN_DEPLOY && flows_pick(s);
	s->release = s->purpose == BT_PLAN_DEPLOY ? NEW : s->purpose == BT_PLAN_RETIRE ? 0 : OLD;
	memset(s->vip, s->dsr, sizeof s->vip);
	pick_world(s);
	flows_world(s);
	bundles_world(s);
	pick_one(s);
	struct bt_plan *plan = plan_run(s);
	if (!plan) {
		s->ended = true;
		return;
	}
	server_boot(s);
	for (uint16_t h = 0; h < s->n_hosts; h++)
		agent_boot(s, h);
	server_start(s, plan);
}

static void reset_run(struct sim *s)
{
	s->n_plans = s->resumes = 0;
	hooks_reset(s);
	s->bad_plan = s->merged = s->outsider = s->faulted = s->was_parked = s->aborted =
		s->operator_waits = false;
}

/* What serves is to stay, and what else the interrupted run had begun goes away. */
void scenario_settle(struct sim *s, uint32_t release)
{
	s->purpose = BT_PLAN_ROLLBACK;
	s->release = release;
	s->is_flow = false;
	reset_run(s);
	server_next_run(s);
	struct bt_plan *plan = plan_run(s);
	s->faulted = true;
	if (!plan) {
		s->ended = true;
		return;
	}
	counters[C_RUN_SETTLE]++;
	server_start(s, plan);
}

/* Whatever the last run was: a newer release, back to an older one, or the warm slot's end. */
void scenario_next(struct sim *s)
{
	uint32_t newest = 0;
	s->runs_left--;
	for (uint16_t i = 0; i < s->n_inst; i++)
		if (s->inst[i].release > newest && s->inst[i].release < FOREIGN)
			newest = s->inst[i].release;
	s->deployment++;
	counters[C_RUN_AGAIN]++;
	s->purpose = chance(s, 500)   ? BT_PLAN_DEPLOY
		     : chance(s, 600) ? BT_PLAN_ROLLBACK
				      : BT_PLAN_RETIRE;
	if (s->bundle && s->purpose == BT_PLAN_RETIRE)
		s->purpose = BT_PLAN_DEPLOY;
	s->release = s->purpose == BT_PLAN_RETIRE   ? 0
		     : s->purpose == BT_PLAN_DEPLOY ? (newest < 7 ? newest + 1 : 4)
						    : OLD;
	s->is_flow = s->purpose == BT_PLAN_DEPLOY && flows_pick(s);
	if (s->purpose == BT_PLAN_FLOW)
		s->release = newest ? newest : OLD;
	reset_run(s);
	/* What went wrong before may still be there. */
	for (uint16_t h = 0; h < s->n_hosts; h++)
		s->faulted |= s->agents[h].partition_until_ms > s->now_ms;
	for (uint16_t i = 0; i < s->n_inst; i++)
		s->faulted |= s->inst[i].app == APP_STARTING || s->inst[i].app == APP_DEAD;
	server_next_run(s);
	struct bt_plan *plan = plan_run(s);
	trace(s, "deployment %llu", (unsigned long long)s->deployment);
	if (!plan) {
		s->ended = true;
		return;
	}
	s->token++;
	for (uint16_t h = 0; h < s->n_hosts; h++)
		if (chance(s, 200))
			at(s, s->now_ms + between(s, 0, 1000), EV_CRASH_AGENT, 0, h, 0, NULL);
	server_start(s, plan);
}
