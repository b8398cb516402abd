#include "engine/state.h"

#include "model/lifecycle.h"

#include <string.h>

void *bt_state_grow(struct bt_arena *a, const void *old, size_t n, size_t *cap, size_t size)
{
	size_t room = *cap < 4 ? 8 : *cap * 2;
	void *p = bt_arena_alloc(a, room * size);
	if (n)
		memcpy(p, old, n * size);
	*cap = room;
	return p;
}

/* The next piece of the scratch; counts only where there is no memory yet. */
static void *copy(char *base, size_t *at, const void *from, size_t n, size_t size)
{
	char *to = base ? base + *at : NULL;
	if (to && n)
		memcpy(to, from, n * size);
	*at += (n * size + 15) & ~(size_t)15;
	return to;
}

static size_t copy_all(struct bt_state *to, const struct bt_state *from, char *base)
{
	size_t n_inst = from->plan->n_instances, n_bal = from->plan->n_balancers, at = 0;
	to->cap_tasks = from->n_tasks;
	to->tasks = copy(base, &at, from->tasks, from->n_tasks, sizeof *from->tasks);
	to->cap_lanes = from->n_lanes;
	to->lanes = copy(base, &at, from->lanes, from->n_lanes, sizeof *from->lanes);
	to->cap_sent = from->n_sent;
	to->sent = copy(base, &at, from->sent, from->n_sent, sizeof *from->sent);
	to->balancers = copy(base, &at, from->balancers, n_bal, sizeof *from->balancers);
	to->served = copy(base, &at, from->served, n_bal * n_inst, 1);
	to->held = copy(base, &at, from->held, n_inst, 1);
	to->running = copy(base, &at, from->running, n_inst, sizeof *from->running);
	to->vip_off = copy(base, &at, from->vip_off, from->plan->n_hosts, 1);
	return at;
}

void bt_state_copy(struct bt_state *to, const struct bt_state *from, struct bt_arena *arena,
	struct bt_scratch *scratch)
{
	*to = *from;
	to->arena = arena;
	if (!from->plan)
		return;
	size_t size = copy_all(to, from, NULL);
	if (size > scratch->size) {
		free(scratch->memory);
		scratch->memory = bt_malloc(size);
		scratch->size = size;
	}
	copy_all(to, from, scratch->memory);
}

struct bt_task_run bt_state_new_task(const struct bt_task *task)
{
	static const struct bt_command none;
	static const struct bt_switch_run no_moves;
	return (struct bt_task_run){.task = task, .command = &none, .moves = &no_moves};
}

struct bt_task_run *bt_state_task(const struct bt_state *s, uint32_t id)
{
	if (!s->n_tasks)
		return NULL;
	/* Ids count up in the plan's order, so the place is nearly always the difference. */
	size_t guess = (size_t)(id - s->tasks[0].task->id);
	if (guess < s->n_tasks && s->tasks[guess].task->id == id)
		return &s->tasks[guess];
	for (size_t i = 0; i < s->n_tasks; i++)
		if (s->tasks[i].task->id == id)
			return &s->tasks[i];
	return NULL;
}

const struct bt_lane *bt_state_lane(const struct bt_state *s, size_t lane)
{
	return &s->plan->stages[s->stage].lanes[lane];
}

bool bt_state_outstanding(const struct bt_task_run *t)
{
	return t->state == BT_TASK_SENT || t->state == BT_TASK_UNDO_SENT;
}

bool bt_state_asks(const struct bt_task_run *t)
{
	return t->task->kind == BT_TASK_APPROVE && t->state == BT_TASK_SENT;
}

bool bt_state_with_agent(const struct bt_task_run *t)
{
	return bt_state_outstanding(t) && !bt_task_is_engines(t->task->kind);
}

bool bt_state_loopback(enum bt_task_kind kind)
{
	return kind == BT_TASK_LOOPBACK_STOP || kind == BT_TASK_LOOPBACK_START;
}

static const struct bt_stage *own_policy(const struct bt_state *s)
{
	const struct bt_stage *stage = s->stage == SIZE_MAX ? NULL : &s->plan->stages[s->stage];
	return stage && stage->own_policy ? stage : NULL;
}

enum bt_failure_policy bt_state_policy(const struct bt_state *s)
{
	const struct bt_stage *own = own_policy(s);
	return own ? own->on_failure : s->plan->on_failure;
}

bool bt_state_over_budget(const struct bt_state *s)
{
	const struct bt_stage *own = own_policy(s);
	const struct bt_stage *stage = s->stage == SIZE_MAX ? NULL : &s->plan->stages[s->stage];
	if (stage && !own && stage->counted)
		return !BT_BUG(TOO_MANY_FAIL) && (int64_t)s->failures > stage->may_fail;
	int64_t n = own ? own->continue_n : s->plan->continue_n;
	uint32_t failed = own ? s->failures_stage : s->failures - s->failures_own;
	return (int64_t)failed > (bt_state_policy(s) == BT_ON_FAILURE_CONTINUE ? n : 0);
}

bool bt_state_never(const struct bt_task *t)
{
	return bt_task_info(t->kind)->repeat == BT_REPEAT_NEVER && !(t->exec && t->exec->safe);
}

/* A strategy puts an address on as it brings a release: where it is missing, and to stay. In a flow
 * it is one of the things that the flow is for. */
static bool serves(const struct bt_state *s, enum bt_task_kind kind)
{
	return kind == BT_TASK_INSTANCE_START || kind == BT_TASK_INSTANCE_STOP ||
	       kind == BT_TASK_SWITCH || kind == BT_TASK_LOOPBACK_STOP ||
	       (kind == BT_TASK_LOOPBACK_START && s->plan->flow);
}

bool bt_state_spends(const struct bt_task *t)
{
	if (t->kind != BT_TASK_LIFECYCLE)
		return t->kind == BT_TASK_INSTALL;
	enum bt_lifecycle e = bt_lifecycle_find(t->event);
	return e < BT_LIFECYCLES && bt_lifecycles[e].app;
}

bool bt_state_changed(const struct bt_state *s)
{
	for (size_t i = 0; i < s->n_plan_tasks; i++) {
		const struct bt_task_run *t = &s->tasks[i];
		/* One that failed, or whose failure is passed over, may have done a part. */
		if (bt_state_spends(t->task) &&
			(t->state == BT_TASK_FAILED || (t->state == BT_TASK_SKIPPED && t->attempt)))
			return true;
		if (!serves(s, t->task->kind) && !bt_state_spends(t->task))
			continue;
		if (bt_state_outstanding(t) || t->state == BT_TASK_DONE ||
			t->state == BT_TASK_UNKNOWN || t->state == BT_TASK_UNDO_FAILED)
			return true;
	}
	return false;
}

bool bt_state_lane_over(const struct bt_state *s, size_t lane)
{
	const struct bt_lane_run *l = &s->lanes[lane];
	if (l->failed)
		return l->undone;
	return l->at == l->first + bt_state_lane(s, lane)->n_tasks;
}

bool bt_state_limited(const struct bt_state *s)
{
	return s->phase == BT_PHASE_RUNNING && s->plan->timeout_ms > 0 && !s->stopping &&
	       s->uncounted_ms < 0;
}

int64_t bt_state_deadline(const struct bt_state *s, int64_t now_ms)
{
	int64_t deadline = INT64_MAX;
	if (s->phase == BT_PHASE_ENDED)
		return deadline;
	if (bt_state_limited(s))
		deadline = s->began_ms + s->plan->timeout_ms;
	for (size_t i = 0; i < s->n_tasks; i++) {
		const struct bt_task_run *t = &s->tasks[i];
		int64_t due = INT64_MAX;
		if (bt_state_asks(t) && s->stands_ms >= 0)
			continue;
		if (bt_state_outstanding(t))
			due = t->sent_ms + t->limit_ms;
		else if (t->not_before_ms > now_ms)
			due = t->not_before_ms;
		if (due < deadline)
			deadline = due;
	}
	return deadline;
}

bool bt_state_in(const uint16_t *list, size_t n, uint16_t instance)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == instance)
			return true;
	return false;
}
