/* Plans that are not as strategies make them (flows written by hand, or a strategy's bug), and a
 * world that moved on after the plan was made. */
#include "sim.h"

#include <string.h>

static void drop_empty(struct bt_plan *p)
{
	struct bt_stage *stages = (struct bt_stage *)(uintptr_t)p->stages;
	size_t n = 0;
	for (size_t i = 0; i < p->n_stages; i++) {
		struct bt_lane *lanes = (struct bt_lane *)(uintptr_t)stages[i].lanes;
		size_t k = 0;
		for (size_t j = 0; j < stages[i].n_lanes; j++)
			if (lanes[j].n_tasks)
				lanes[k++] = lanes[j];
		stages[i].n_lanes = k;
		if (k)
			stages[n++] = stages[i];
	}
	p->n_stages = n;
}

static void drop_tasks(struct bt_plan *p, enum bt_task_kind kind, bool outs_only)
{
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++) {
			struct bt_lane *l = (struct bt_lane *)(uintptr_t)&p->stages[i].lanes[k];
			struct bt_task *t = (struct bt_task *)(uintptr_t)l->tasks;
			size_t n = 0;
			for (size_t j = 0; j < l->n_tasks; j++)
				if (t[j].kind != kind || (outs_only && t[j].n_in))
					t[n++] = t[j];
			l->n_tasks = n;
		}
	drop_empty(p);
}

/* All batches in one stage: lanes side by side that only the guard holds apart. */
static void merge_batches(struct sim *s, struct bt_plan *p)
{
	struct bt_stage *stages = (struct bt_stage *)(uintptr_t)p->stages;
	size_t first = SIZE_MAX, n_lanes = 0, n = 0;
	for (size_t i = 0; i < p->n_stages; i++)
		n_lanes += stages[i].n_lanes;
	struct bt_lane *lanes = BT_ARENA_ARRAY(p->arena, struct bt_lane, n_lanes);
	size_t k = 0;
	for (size_t i = 0; i < p->n_stages; i++) {
		if (!bt_str_starts(stages[i].name, "batch")) {
			stages[n++] = stages[i];
			continue;
		}
		if (first == SIZE_MAX)
			first = n++;
		memcpy(lanes + k, stages[i].lanes, stages[i].n_lanes * sizeof *lanes);
		k += stages[i].n_lanes;
		stages[first] = stages[i];
	}
	if (first == SIZE_MAX)
		return;
	stages[first].lanes = lanes;
	stages[first].n_lanes = k;
	stages[first].side_by_side = (uint16_t)between(s, 0, 3);
	p->n_stages = n;
	counters[C_PLAN_MERGED]++;
	s->merged = true;
}

static bool names(const uint16_t *list, size_t n, uint16_t inst)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == inst)
			return true;
	return false;
}

static bool in_plan(const struct bt_plan *p, uint16_t inst)
{
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++)
			for (size_t j = 0; j < p->stages[i].lanes[k].n_tasks; j++) {
				const struct bt_task *t = &p->stages[i].lanes[k].tasks[j];
				if (t->instance == inst || names(t->in, t->n_in, inst))
					return true;
			}
	return false;
}

/* The balancer's bake in the lane of the cutover, as a flow may have it: when it sees errors, the
 * lane's undo switches back. */
static void join_bake(struct bt_plan *p)
{
	struct bt_stage *stages = (struct bt_stage *)(uintptr_t)p->stages;
	for (size_t i = 0; i + 1 < p->n_stages; i++) {
		if (!bt_streq(stages[i].name, "cutover") || !bt_streq(stages[i + 1].name, "bake"))
			continue;
		struct bt_lane *cut = (struct bt_lane *)(uintptr_t)stages[i].lanes;
		struct bt_lane *bake = (struct bt_lane *)(uintptr_t)&stages[i + 1]
					       .lanes[stages[i + 1].n_lanes - 1];
		if (bake->tasks[0].balancer == BT_NONE)
			return;
		size_t n = cut->n_tasks;
		struct bt_task *t = BT_ARENA_ARRAY(p->arena, struct bt_task, n + 1);
		memcpy(t, cut->tasks, n * sizeof *t);
		t[n] = bake->tasks[0];
		cut->tasks = t;
		cut->n_tasks = n + 1;
		bake->n_tasks = 0;
		drop_empty(p);
		counters[C_PLAN_JOINED]++;
		return;
	}
}

/* The first switch that takes out also names one who is out already (for maintenance, say): its
 * undo must leave that one out. */
static void widen(struct sim *s, struct bt_plan *p)
{
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++)
			for (size_t j = 0; j < p->stages[i].lanes[k].n_tasks; j++) {
				struct bt_task *t = (struct bt_task *)(uintptr_t)&p->stages[i]
							    .lanes[k]
							    .tasks[j];
				if (t->kind != BT_TASK_SWITCH || !t->n_out)
					continue;
				uint16_t *out = BT_ARENA_ARRAY(p->arena, uint16_t, MAX_INST);
				memcpy(out, t->out, t->n_out * sizeof *out);
				for (uint16_t x = 0; x < s->n_inst; x++)
					if (s->inst[x].app == APP_ABSENT && !world_in(s, x) &&
						!in_plan(p, x)) {
						out[t->n_out++] = x;
						counters[C_PLAN_WIDENED]++;
						break;
					}
				t->out = out;
				return;
			}
}

void twist(struct sim *s, struct bt_plan *p)
{
	if (s->is_flow)
		flows_twist(s, p);
	if (chance(s, 200) && !s->is_flow)
		widen(s, p);
	if (chance(s, 300))
		join_bake(p);
	/* Behind two balancers a lane may have taken at one what another needs for its undo there:
	 * batches are what keeps them apart. */
	if (s->service.deploy.strategy == BT_STRATEGY_ROLLING && !s->service.deploy.bake_ms &&
		s->n_balancers < 2 && !s->bundle && chance(s, 400))
		merge_batches(s, p);
	if (s->opt.calm || s->opt.crash_after >= 0 || !s->n_balancers || !chance(s, 30))
		return;
	s->bad_plan = true;
	counters[C_FAULT_BAD_PLAN]++;
	/* A later run cannot know what served in the one before: its strategies drain always. */
	switch (between(s, s->deployment == FIRST_DEPLOYMENT ? 0 : 1, s->is_flow ? 3 : 2)) {
	case 0:
		trace(s, "the plan has no drains");
		drop_tasks(p, BT_TASK_DRAIN, false);
		break;
	case 1:
		trace(s, "the plan takes nothing out");
		drop_tasks(p, BT_TASK_SWITCH, true);
		break;
	case 3:
		trace(s, "the plan leaves the address off");
		drop_tasks(p, BT_TASK_LOOPBACK_START, false);
		break;
	default:
		trace(s, "the plan asks for more in rotation than it leaves");
		p->min_in_rotation = (int64_t)p->n_instances;
		break;
	}
}

/* Between the plan and the run somebody else changes something. */
void meddle(struct sim *s)
{
	if (s->opt.crash_after >= 0 || s->opt.calm || !chance(s, 40))
		return;
	counters[C_FAULT_OUTSIDER]++;
	s->outsider = true;
	uint16_t i = (uint16_t)between(s, 0, s->n_inst - 1);
	if (s->n_balancers && chance(s, 400)) {
		trace(s, "an outsider makes a new generation");
		s->balancers[between(s, 0, s->n_balancers - 1)].generation += 3;
	} else {
		trace(s, "an outsider runs release 9 in %s", world_name(s, i));
		bool in[MAX_BALANCERS]; /* who sends there is none of its doing */
		for (uint16_t b = 0; b < s->n_balancers; b++)
			in[b] = s->balancers[b].in[i];
		place(s, i, FOREIGN, false);
		for (uint16_t b = 0; b < s->n_balancers; b++)
			s->balancers[b].in[i] = in[b];
	}
	s->allowed |= 1u << FOREIGN;
}
