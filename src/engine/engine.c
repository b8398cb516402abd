/* The engine as others see it: a state with its plans, and read-only views. */
#include "engine/state.h"

struct bt_engine {
	struct bt_state s;
	struct bt_scratch *scratch;
	struct bt_plan **plans; /* owned */
	size_t n_plans;
};

struct bt_engine *bt_engine_new(uint64_t deployment)
{
	struct bt_engine *e = bt_calloc(1, sizeof *e);
	e->s.arena = bt_arena_new();
	e->scratch = bt_calloc(1, sizeof *e->scratch);
	e->s.deployment = deployment;
	e->s.stage = SIZE_MAX;
	e->s.next_id = 1;
	e->s.uncounted_ms = e->s.stands_ms = -1;
	return e;
}

struct bt_engine *bt_engine_free(struct bt_engine *e)
{
	if (!e)
		return NULL;
	for (size_t i = 0; i < e->n_plans; i++)
		bt_plan_free(e->plans[i]);
	free(e->plans);
	free(e->scratch->memory);
	free(e->scratch);
	bt_arena_free(e->s.arena);
	free(e);
	return NULL;
}

void bt_update_done(struct bt_update *u)
{
	bt_arena_free(u->arena);
	*u = (struct bt_update){0};
}

int bt_engine_step(const struct bt_engine *e, const struct bt_event *event,
	struct bt_update *ret_update, struct bt_err *err)
{
	return bt_state_step(&e->s, e->scratch, event, ret_update, err);
}

int bt_engine_apply(struct bt_engine *e, struct bt_record *r, struct bt_err *err)
{
	int res = bt_state_apply(&e->s, r, err);
	if (res == 0 && r->kind == BT_RECORD_PLAN) {
		e->plans = bt_realloc(e->plans, (e->n_plans + 1) * sizeof *e->plans);
		/* From here on the engine owns it: the record only lent it to be read. */
		e->plans[e->n_plans++] = (struct bt_plan *)(uintptr_t)r->plan;
	}
	return res;
}

const struct bt_plan *bt_engine_plan(const struct bt_engine *e)
{
	return e->s.plan;
}

const struct bt_plan *bt_engine_first_plan(const struct bt_engine *e)
{
	return e->n_plans ? e->plans[0] : NULL;
}

enum bt_phase bt_engine_phase(const struct bt_engine *e)
{
	return e->s.phase;
}

enum bt_end bt_engine_end(const struct bt_engine *e)
{
	return e->s.end;
}

const char *bt_engine_reason(const struct bt_engine *e)
{
	return e->s.reason ? e->s.reason : "";
}

enum bt_task_state bt_engine_task(
	const struct bt_engine *e, uint32_t task_id, uint32_t *ret_attempt)
{
	for (const struct bt_state *s = &e->s; s; s = s->before) {
		const struct bt_task_run *t = bt_state_task(s, task_id);
		if (!t)
			continue;
		if (ret_attempt)
			*ret_attempt = t->attempt;
		return t->state;
	}
	if (ret_attempt)
		*ret_attempt = 0;
	return BT_TASK_WAITING;
}

bool bt_engine_asks(const struct bt_engine *e)
{
	return e->s.phase != BT_PHASE_ENDED && e->s.n_asking > 0;
}

uint64_t bt_engine_token(const struct bt_engine *e)
{
	return e->s.token;
}

int64_t bt_engine_now(const struct bt_engine *e)
{
	return e->s.now_ms;
}

bool bt_engine_in_rotation(const struct bt_engine *e, uint16_t instance)
{
	for (size_t b = 0; e->s.plan && b < e->s.plan->n_balancers; b++)
		if (e->s.balancers[b].map[instance])
			return true;
	return false;
}

uint64_t bt_engine_generation(const struct bt_engine *e, uint16_t balancer)
{
	return e->s.plan ? e->s.balancers[balancer].highest : 0;
}

size_t bt_engine_outstanding(const struct bt_engine *e, struct bt_command **ret)
{
	struct bt_command *c = bt_calloc(e->s.n_tasks, sizeof *c);
	size_t n = 0;
	for (size_t i = 0; i < e->s.n_tasks; i++)
		if (bt_state_with_agent(&e->s.tasks[i]))
			c[n++] = *e->s.tasks[i].command;
	*ret = c;
	return n;
}
