/* Commands: a SENT record and its command, always both. */
#include "engine/state.h"

#include <string.h>

static void leave(struct bt_step *st, const struct bt_command *c)
{
	struct bt_update *u = st->u;
	if (u->n_commands == st->cap_commands)
		u->commands = bt_state_grow(u->arena, u->commands, u->n_commands, &st->cap_commands,
			sizeof *u->commands);
	u->commands[u->n_commands++] = *c;
}

static struct bt_record *sent(
	struct bt_step *st, const struct bt_task *task, uint16_t stage, uint16_t lane)
{
	struct bt_record *r = bt_step_record(st, BT_RECORD_SENT);
	r->stage = stage;
	r->lane = lane;
	r->command = (struct bt_command){
		.key = {st->s.deployment, task->id, BT_DO, 1},
		.token = st->s.token,
		.kind = task->kind,
		.host = task->host,
		.instance = task->instance,
		.balancer = task->balancer,
		.release = task->release,
		.one = BT_NONE,
		.out = task->out,
		.n_out = task->n_out,
		.timeout_ms = task->timeout_ms,
		.wait_ms = task->wait_ms,
	};
	return r;
}

static void go(struct bt_step *st, struct bt_record *r)
{
	struct bt_command c = r->command;
	bt_step_apply(st);
	leave(st, &c);
}

/* What of the list does not have to stay behind. */
static const uint16_t *not_held(struct bt_step *st, const uint16_t *list, size_t n, size_t *ret_n)
{
	uint16_t *left = bt_arena_alloc(st->u->arena, n * sizeof *left);
	size_t k = 0;
	for (size_t i = 0; i < n; i++)
		if (!st->s.held[list[i]])
			left[k++] = list[i];
	*ret_n = k;
	return left;
}

static struct bt_record *next_attempt(
	struct bt_step *st, const struct bt_task_run *t, enum bt_verb verb)
{
	struct bt_record *r = sent(st, t->task, t->stage, t->lane);
	struct bt_command *c = &r->command;
	c->key.verb = verb;
	c->key.attempt = t->command->key.verb == verb ? t->attempt + 1 : 1;
	c->prior = t->prior;
	/* To take a release off a disk is quick, however long it took to get there. */
	if (verb == BT_UNDO && c->kind == BT_TASK_COMPONENT_DEPLOY &&
		c->timeout_ms > ENGINE_GROWN_MS)
		c->timeout_ms = ENGINE_GROWN_MS;
	/* Who did not answer in time gets more of it. */
	int64_t grown = c->timeout_ms << (t->tries < 3 ? t->tries : 3);
	if (grown > ENGINE_GROWN_MS)
		grown = ENGINE_GROWN_MS;
	if (t->gave_up && c->key.attempt > 1 && grown > c->timeout_ms)
		c->timeout_ms = grown;
	return r;
}

void bt_send_task(struct bt_step *st, struct bt_task_run *t, enum bt_verb verb)
{
	struct bt_record *r = next_attempt(st, t, verb);
	struct bt_command *c = &r->command;
	if (verb == BT_DO && c->kind == BT_TASK_DRAIN && !t->own)
		c->out = not_held(st, t->task->out, t->task->n_out, &c->n_out);
	if (verb == BT_DO && c->kind == BT_TASK_BACKEND_CHECK)
		c->pool = not_held(st, t->task->in, t->task->n_in, &c->n_pool);
	go(st, r);
}

void bt_send_ask(struct bt_step *st, struct bt_task_run *t)
{
	(void)next_attempt(st, t, BT_DO);
	bt_step_apply(st);
}

/* The pool with the task's change. false: a guard is against it. */
static bool pool_of(
	struct bt_step *st, const struct bt_task_run *t, enum bt_verb verb, uint8_t **ret)
{
	struct bt_state *s = &st->s;
	uint16_t b = t->task->balancer;
	size_t n_in = t->moves->n_undo_in, n_out = t->moves->n_undo_out;
	const uint16_t *in = t->moves->undo_in, *out = t->moves->undo_out;
	if (verb == BT_DO) {
		in = not_held(st, t->task->in, t->task->n_in, &n_in);
		out = not_held(st, t->task->out, t->task->n_out, &n_out);
	}
	uint8_t *map = bt_arena_memdup(st->u->arena, bt_pool_intended(s, b), s->plan->n_instances);
	for (size_t i = 0; i < n_out; i++)
		map[out[i]] = 0;
	for (size_t i = 0; i < n_in; i++)
		map[in[i]] = 1;
	*ret = map;
	return bt_guard_vip(s, in, n_in, verb) && bt_guard_switch(s, b, map, in, n_in, n_out, verb);
}

bool bt_send_switch(struct bt_step *st, struct bt_task_run *t, enum bt_verb verb)
{
	struct bt_state *s = &st->s;
	uint16_t b = t->task->balancer;
	size_t n_inst = s->plan->n_instances;
	uint8_t *map;
	if (!pool_of(st, t, verb, &map))
		return false;
	struct bt_record *r = next_attempt(st, t, verb);
	uint16_t *pool = bt_arena_alloc(st->u->arena, n_inst * sizeof *pool);
	size_t n = 0;
	for (uint16_t i = 0; i < n_inst; i++)
		if (map[i])
			pool[n++] = i;
	r->command.pool = pool;
	r->command.n_pool = n;
	r->command.one = bt_pool_one(s, b, map);
	r->command.out = NULL;
	r->command.n_out = 0;
	r->command.generation = s->balancers[b].highest + !BT_BUG(GENERATION_REUSED);
	go(st, r);
	return true;
}

void bt_send_own(struct bt_step *st, const struct bt_task *task, uint16_t stage, uint16_t lane)
{
	go(st, sent(st, task, stage, lane));
}

void bt_send_again(struct bt_step *st, struct bt_task_run *t)
{
	go(st, next_attempt(st, t, BT_DO));
}

void bt_send_outstanding(struct bt_step *st)
{
	const struct bt_state *s = &st->s;
	for (size_t i = 0; i < s->n_tasks; i++)
		if (bt_state_with_agent(&s->tasks[i]))
			leave(st, s->tasks[i].command);
}

void bt_send_retry_or_park(struct bt_step *st, struct bt_task_run *t, uint32_t tries)
{
	if (t->tries >= tries) {
		bt_step_phase(st, BT_PHASE_PARKED, bt_step_task_words(st, t, t->detail));
		return;
	}
	struct bt_record *r = bt_step_record(st, BT_RECORD_RETRY);
	r->stage = t->stage;
	r->lane = t->lane;
	r->command = *t->command;
	r->command.wait_ms = t->tries == 0 || t->gave_up ? 0 : (int64_t)1000 << t->tries;
	r->text = bt_step_words(st, "attempt %u may follow", t->attempt + 1);
	bt_step_apply(st);
}

/* The deadline of the plan's own drains, if it has one. */
static int64_t drain_ms(const struct bt_state *s)
{
	for (size_t i = 0; i < s->n_plan_tasks; i++)
		if (s->tasks[i].task->kind == BT_TASK_DRAIN)
			return s->tasks[i].task->wait_ms;
	return ENGINE_DRAIN_MS;
}

static struct bt_task_run *own_drain(
	const struct bt_state *s, const struct bt_task_run *t, uint16_t instance, uint16_t balancer)
{
	for (size_t i = s->n_tasks; i-- > s->n_plan_tasks;) {
		struct bt_task_run *o = &s->tasks[i];
		if (o->task->kind == BT_TASK_DRAIN && o->stage == t->stage && o->lane == t->lane &&
			o->task->instance == instance && o->task->balancer == balancer &&
			o->state != BT_TASK_DONE && o->state != BT_TASK_SKIPPED)
			return o;
	}
	return NULL;
}

static bool drain_first(
	struct bt_step *st, const struct bt_task_run *t, uint16_t instance, uint16_t balancer)
{
	struct bt_task_run *o = own_drain(&st->s, t, instance, balancer);
	if (!o) {
		uint16_t *out = bt_arena_memdup(st->u->arena, &instance, sizeof instance);
		struct bt_task task = {
			.id = st->s.next_id,
			.kind = BT_TASK_DRAIN,
			.host = st->s.plan->balancers[balancer].drains_at_host
					? st->s.plan->instances[instance].host
					: st->s.plan->balancers[balancer].host,
			.instance = instance,
			.balancer = balancer,
			.out = out,
			.n_out = 1,
			.timeout_ms = bt_task_info(BT_TASK_DRAIN)->timeout_ms,
			.wait_ms = drain_ms(&st->s),
		};
		bt_send_own(st, &task, t->stage, t->lane);
		return true;
	}
	if (o->state == BT_TASK_SENT)
		return false;
	if (o->state != BT_TASK_WAITING) {
		bt_send_retry_or_park(st, o, ENGINE_TRIES);
		return true;
	}
	if (o->not_before_ms > st->now_ms)
		return false;
	bt_send_again(st, o);
	return true;
}

bool bt_send_drains_first(
	struct bt_step *st, const struct bt_task_run *t, const uint16_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t balancer;
		if (bt_guard_stop(&st->s, list[i], &balancer) && balancer != BT_NONE &&
			drain_first(st, t, list[i], balancer))
			return true;
	}
	return false;
}
