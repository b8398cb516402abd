/* Flows as people write them, over hosts and instances that they choose: out of rotation, off the
 * loopback, stopped, deployed, and back; or a part of that. Some hosts are out for maintenance
 * before, and stay so unless the flow itself is about them. When a flow is done the world is what
 * its plan leads to, task by task; when it is taken back, everything is as it was. */
#include "sim.h"

#include <string.h>

/* Of this run: a seed may have several. */
static uint64_t dice(const struct sim *s, uint64_t what)
{
	return draw(s, 5000 + 100 * s->deployment + what) >> 7;
}

static struct bt_hook *add(struct sim *s, unsigned stage, enum bt_task_kind kind)
{
	struct bt_flow_stage *st = &s->flow_stages[stage];
	struct bt_hook *h = &s->flow_tasks[stage][st->n_tasks++];
	*h = (struct bt_hook){.kind = kind, .within_ms = -1, .timeout_ms = 60000, .to = "ops"};
	return h;
}

/* What is no balancer's and no instance's business, somewhere in a lane or a stage of its own. */
static void add_other(struct sim *s, unsigned stage, uint64_t d)
{
	static const char *const words[] = {"./hook", "now"};
	struct bt_hook *h;
	switch (d % 8) {
	case 0:
	case 1:
		add(s, stage, BT_TASK_WAIT)->within_ms = 1 + (int64_t)(d / 8 % 40000);
		break;
	case 2:
		add(s, stage, BT_TASK_NOTIFY);
		break;
	case 3:
		h = add(s, stage, BT_TASK_EXEC);
		h->exec = (struct bt_task_exec){.run = words, .n_run = 2, .safe = d / 8 % 3 == 0};
		break;
	case 4:
		if (s->flow_stages[stage].per == BT_PER_ONCE)
			add(s, stage, BT_TASK_APPROVE)->within_ms =
				60000 + (int64_t)(d / 8 % 600000);
		break;
	default:
		break;
	}
}

enum form { FULL, OFF, ON, RESTART };

static void add_off(struct sim *s, unsigned stage, uint64_t d)
{
	if (d % 3) {
		add(s, stage, BT_TASK_L4_TURN_OFF);
	} else {
		add(s, stage, BT_TASK_SWITCH)->out = true;
		add(s, stage, BT_TASK_DRAIN);
	}
}

static void add_tasks(struct sim *s, unsigned stage, enum form form)
{
	uint64_t d = dice(s, 10);
	bool address = s->flow_stages[stage].per == BT_PER_HOST && d % 8 != 0;
	if (form == FULL || form == OFF)
		add_off(s, stage, d / 8);
	if (address && (form == FULL || form == OFF))
		add(s, stage, BT_TASK_LOOPBACK_STOP);
	add_other(s, stage, dice(s, 11));
	if (form == FULL || form == RESTART) {
		add(s, stage, d / 64 % 2 ? BT_TASK_TOMCAT_STOP : BT_TASK_INSTANCE_STOP);
		if (d / 128 % 3)
			add(s, stage, BT_TASK_COMPONENT_DEPLOY);
		if (d / 512 % 2)
			add(s, stage, BT_TASK_TOMCAT_START);
		else
			add(s, stage, BT_TASK_INSTANCE_START);
		add(s, stage, BT_TASK_HEALTH_CHECK);
	}
	add_other(s, stage, dice(s, 12));
	if (address && (form == FULL || form == ON))
		add(s, stage, BT_TASK_LOOPBACK_START);
	if (form == FULL || form == ON)
		add(s, stage, form == ON || d / 1024 % 3 ? BT_TASK_L4_TURN_ON : BT_TASK_SWITCH);
	add_other(s, stage, dice(s, 13));
}

static void add_stage(struct sim *s, enum bt_flow_per per)
{
	unsigned n = (unsigned)s->flow.n_stages++;
	uint64_t d = dice(s, 20 + n);
	s->flow_stages[n] = (struct bt_flow_stage){.per = per,
		.batch = (int64_t)(d % 4),
		.min_in_rotation = d / 4 % 3 == 0 ? 0 : -1,
		.on_failure = d / 16 % 3 == 0 ? (int)(d / 64 % 3) : -1,
		.continue_n = 1 + (int64_t)(d / 256 % 2),
		.tasks = s->flow_tasks[n]};
	if (per == BT_PER_ONCE) {
		add_other(s, n, dice(s, 30 + n));
		add_other(s, n, dice(s, 40 + n));
		s->flow.n_stages -= s->flow_stages[n].n_tasks == 0;
	}
}

static void write_flow(struct sim *s)
{
	static const enum form forms[] = {FULL, FULL, FULL, FULL, FULL, OFF, ON, RESTART};
	uint64_t d = dice(s, 1);
	s->flow = (struct bt_flow){.name = "night", .stages = s->flow_stages};
	if (d % 3 == 0)
		add_stage(s, BT_PER_ONCE);
	add_stage(s, d / 3 % 4 ? BT_PER_HOST : BT_PER_INSTANCE);
	add_tasks(s, (unsigned)s->flow.n_stages - 1, forms[s->opt.calm ? 0 : d / 16 % 8]);
	if (d / 128 % 3 == 0)
		add_stage(s, BT_PER_ONCE);
}

static void choose(struct sim *s)
{
	uint64_t d = dice(s, 2);
	s->n_chosen_hosts = s->n_chosen_slots = 0;
	for (uint16_t h = 0; h < s->n_service_hosts && d % 3; h++)
		if (d >> (8 + h) & 1)
			s->chosen_hosts[s->n_chosen_hosts++] = s->host_names[h];
	for (uint16_t k = 0; k < s->n_slots && d / 3 % 5 == 0; k++)
		if (d >> (16 + k) & 1)
			s->chosen_slots[s->n_chosen_slots++] = s->slots[k].name;
}

/* Strategies that leave slots idle have their own ways. */
bool flows_pick(struct sim *s)
{
	bool forced = s->opt.strategy == FLOW_STRATEGY;
	uint64_t d = dice(s, 0);
	if (s->bundle || s->service.deploy.strategy == BT_STRATEGY_BLUE_GREEN ||
		(!forced && s->opt.strategy >= 0))
		return false;
	if (!forced && (!s->n_balancers || d % 3 || s->opt.calm))
		return false;
	if (s->n_balancers == 0)
		s->flow = *bt_flow_find(NULL, "deployAndTomcatRestart", &(const char *){0});
	else if (d / 8 % 4 == 0)
		s->flow = bt_flows_built_in[s->opt.calm ? 4 : d / 64 % bt_n_flows_built_in];
	else
		write_flow(s);
	choose(s);
	s->purpose = bt_flow_deploys(&s->flow) ? BT_PLAN_DEPLOY : BT_PLAN_FLOW;
	return true;
}

void flows_world(struct sim *s)
{
	bool dark = false; /* an address is missing in rotation, and nobody knows since when */
	for (uint16_t h = 0; h < s->n_service_hosts; h++) {
		uint64_t d = draw(s, 700 + h) >> 3;
		bool deploys = s->purpose == BT_PLAN_DEPLOY || s->purpose == BT_PLAN_FLOW;
		bool out = s->is_flow ? d % 5 == 0 : s->dsr && d % 6 == 0;
		if (s->opt.calm || !deploys)
			return;
		if (s->dsr && !out && d / 64 % 12 == 0 && !dark) {
			s->vip[h] = false;
			dark = true;
			counters[C_VIP_MISSING]++;
		}
		if (!out)
			continue;
		counters[C_FLOW_MAINTENANCE] += s->is_flow;
		for (uint16_t i = h * s->n_slots; i < (h + 1) * s->n_slots; i++) {
			for (uint16_t b = 0; b < s->n_balancers; b++)
				s->balancers[b].in[i] = false;
			if (d / 1024 % 2 && s->inst[i].app == APP_HEALTHY)
				s->inst[i] = (struct inst){.life = 1};
		}
		if (d / 2048 % 3)
			s->vip[h] = false;
	}
}

int flows_plan(
	struct sim *s, const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err)
{
	struct bt_plan_request flow = *rq;
	flow.flow = &s->flow;
	flow.hosts = s->chosen_hosts;
	flow.n_hosts = s->n_chosen_hosts;
	flow.slots = s->chosen_slots;
	flow.n_slots = s->n_chosen_slots;
	/* What is live has been everywhere once. */
	for (uint16_t h = 0; s->purpose == BT_PLAN_FLOW && h < s->n_service_hosts; h++)
		s->disk[h] |= 1u << s->release;
	int r = bt_plan_flow(&flow, ret, err);
	if (r == 0) {
		counters[C_FLOW_RUN]++;
		counters[C_FLOW_DEPLOYS] += s->purpose == BT_PLAN_DEPLOY;
		for (size_t i = 0; i < (*ret)->n_stages; i++)
			counters[C_FLOW_OWN_POLICY] += (*ret)->stages[i].own_policy;
	}
	return r;
}

static bool named(const uint16_t *list, size_t n, uint16_t i)
{
	while (n-- > 0)
		if (list[n] == i)
			return true;
	return false;
}

void flows_remember(struct sim *s)
{
	const struct bt_plan *p = s->flow_plan;
	memset(s->flow_about, 0, sizeof s->flow_about);
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++)
			for (size_t j = 0; j < p->stages[i].lanes[k].n_tasks; j++) {
				const struct bt_task *t = &p->stages[i].lanes[k].tasks[j];
				bool pool = t->kind == BT_TASK_SWITCH && !t->skip;
				for (uint16_t n = 0; n < s->n_inst; n++)
					s->flow_about[n] |= (t->instance == n && !t->skip) ||
							    (pool && named(t->in, t->n_in, n)) ||
							    (pool && named(t->out, t->n_out, n));
			}
}

/* Beside the flow, on a host that it is not about, an app dies: nothing of the flow's. */
void flows_meddle(struct sim *s)
{
	uint16_t i = (uint16_t)(dice(s, 60) % s->n_inst);
	if (s->opt.calm || dice(s, 61) % 4 || s->flow_about[i] || s->inst[i].app != APP_HEALTHY ||
		s->inst[i].adopted || s->inst[i].foreign)
		return;
	trace(s, "world: %s dies, which the flow is not about", world_name(s, i));
	counters[C_FLOW_NEIGHBOUR]++;
	s->inst[i].app = APP_DEAD;
	s->inst[i].died = true;
}

/* Programs of a bundle's events, notices that may not fail, and what the plan says not to do. */
void flows_twist(struct sim *s, struct bt_plan *p)
{
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++)
			for (size_t j = 0; j < p->stages[i].lanes[k].n_tasks; j++) {
				struct bt_task *t = (struct bt_task *)(uintptr_t)&p->stages[i]
							    .lanes[k]
							    .tasks[j];
				uint64_t d = dice(s, 1000 + t->id);
				if (t->kind == BT_TASK_EXEC && d % 3 == 0) {
					t->kind = BT_TASK_LIFECYCLE;
					t->exec = NULL;
					t->event = "AfterInstall";
				}
				if (t->kind == BT_TASK_NOTIFY && d % 3 == 0 && !s->opt.calm)
					t->ignore = false;
				if (t->kind == BT_TASK_LIFECYCLE && d / 3 % 3 == 0)
					t->ignore = true;
				if (!bt_task_info(t->kind)->has_undo && !t->skip &&
					t->kind != BT_TASK_DRAIN &&
					t->kind != BT_TASK_HEALTH_CHECK &&
					t->kind != BT_TASK_BACKEND_CHECK && d / 9 % 8 == 0)
					t->skip = "as the plan says";
			}
}

/* ── what a flow leads to ── */

struct fate {
	uint32_t release[MAX_INST];
	bool in[MAX_BALANCERS][MAX_INST], vip[MAX_HOSTS];
};

static void play(struct fate *f, const struct bt_task *t)
{
	if (t->skip)
		return;
	switch (t->kind) {
	case BT_TASK_INSTANCE_START:
		f->release[t->instance] = t->release;
		break;
	case BT_TASK_INSTANCE_STOP:
		f->release[t->instance] = 0;
		break;
	case BT_TASK_SWITCH:
		for (size_t i = 0; i < t->n_out; i++)
			f->in[t->balancer][t->out[i]] = false;
		for (size_t i = 0; i < t->n_in; i++)
			f->in[t->balancer][t->in[i]] = true;
		break;
	case BT_TASK_LOOPBACK_STOP:
	case BT_TASK_LOOPBACK_START:
		f->vip[t->host] = t->kind == BT_TASK_LOOPBACK_START;
		break;
	default:
		break;
	}
}

void flows_done(struct sim *s)
{
	const struct bt_plan *p = s->flow_plan;
	struct fate f = {0};
	counters[C_FLOW_DONE]++;
	if (s->outsider)
		return;
	for (uint16_t i = 0; i < s->n_inst; i++) {
		f.release[i] = s->at_start[i].app == APP_ABSENT ? 0 : s->at_start[i].release;
		for (uint16_t b = 0; b < s->n_balancers; b++)
			f.in[b][i] = s->balancers_at_start[b].in[i];
	}
	memcpy(f.vip, s->vip_at_start, sizeof f.vip);
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes && !p->stages[i].closing; k++)
			for (size_t j = 0; j < p->stages[i].lanes[k].n_tasks; j++)
				play(&f, &p->stages[i].lanes[k].tasks[j]);
	for (uint16_t i = 0; i < s->n_inst; i++) {
		uint32_t now = s->inst[i].app == APP_ABSENT ? 0 : s->inst[i].release;
		if (now != f.release[i])
			violated(s, "done, and %s runs release %u instead of %u", world_name(s, i),
				now, f.release[i]);
		for (uint16_t b = 0; b < s->n_balancers; b++)
			if (s->balancers[b].in[i] != f.in[b][i])
				violated(s, "done, and %s is %s rotation", world_name(s, i),
					f.in[b][i] ? "out of" : "in");
	}
	for (uint16_t h = 0; h < s->n_service_hosts; h++)
		if (s->vip[h] != f.vip[h])
			violated(s, "done, and the address is %s the loopback of %s",
				s->vip[h] ? "on" : "off", s->host_names[h]);
}
