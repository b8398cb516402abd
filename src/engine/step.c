/* Deciding. A step works on a copy of the state: it makes a record, applies it to the copy and
 * looks again, until nothing is left to decide. The records and commands of that are the update. */
#include "engine/state.h"

#include "base/str.h"

#include <assert.h>
#include <string.h>

struct bt_record *bt_step_record(struct bt_step *st, enum bt_record_kind kind)
{
	struct bt_update *u = st->u;
	if (u->n_records == st->cap_records)
		u->records = bt_state_grow(
			u->arena, u->records, u->n_records, &st->cap_records, sizeof *u->records);
	struct bt_record *r = &u->records[u->n_records++];
	*r = (struct bt_record){.kind = kind, .at_ms = st->now_ms};
	return r;
}

void bt_step_apply(struct bt_step *st)
{
	struct bt_err err = {0};
	int r = bt_state_apply(&st->s, &st->u->records[st->u->n_records - 1], &err);
	assert(r == 0); /* an own decision always fits the state it was made from */
	(void)r;
}

void bt_step_phase(struct bt_step *st, enum bt_phase phase, const char *text)
{
	struct bt_record *r = bt_step_record(st, BT_RECORD_PHASE);
	r->phase = phase;
	r->text = text;
	bt_step_apply(st);
}

void bt_step_end(struct bt_step *st, enum bt_end end, const char *text)
{
	struct bt_record *r = bt_step_record(st, BT_RECORD_END);
	r->end = end;
	r->text = text;
	bt_step_apply(st);
}

void bt_step_close(struct bt_step *st, enum bt_end end, const char *text)
{
	const struct bt_plan *p = st->s.plan;
	for (size_t i = 0; i < p->n_stages; i++)
		if (p->stages[i].closing && !BT_BUG(NO_CLOSING)) {
			struct bt_record *r = bt_step_record(st, BT_RECORD_PHASE);
			r->phase = BT_PHASE_CLOSING;
			r->end = end;
			r->text = text;
			bt_step_apply(st);
			return;
		}
	bt_step_end(st, end, text);
}

/* The engine's own word on a task that no agent is told of. */
static void answer(
	struct bt_step *st, const struct bt_task_run *t, enum bt_outcome outcome, const char *text)
{
	struct bt_record *r = bt_step_record(st, BT_RECORD_RESULT);
	r->stage = t->stage;
	r->lane = t->lane;
	r->command.key = t->command->key;
	r->command.kind = t->task->kind;
	r->result = (struct bt_result){.key = t->command->key, .outcome = outcome, .detail = text};
	bt_step_apply(st);
}

void bt_step_skip(struct bt_step *st, struct bt_task_run *t, const char *text)
{
	struct bt_record *r = bt_step_record(st, BT_RECORD_SKIPPED);
	r->stage = t->stage;
	r->lane = t->lane;
	r->command = *t->command;
	r->command.key = (struct bt_command_key){
		st->s.deployment, t->task->id, t->command->key.verb, t->attempt ? t->attempt : 1};
	r->command.kind = t->task->kind;
	r->command.host = t->task->host;
	r->command.instance = t->task->instance;
	r->command.balancer = t->task->balancer;
	if (!t->attempt)
		r->command.one = BT_NONE;
	r->text = text;
	bt_step_apply(st);
}

void bt_step_lane_failed(struct bt_step *st, size_t lane, bool refused, const char *text)
{
	struct bt_record *r = bt_step_record(st, BT_RECORD_LANE_FAILED);
	r->stage = (uint16_t)st->s.stage;
	r->lane = (uint16_t)lane;
	r->end = refused ? BT_END_REFUSED : BT_END_NONE;
	r->text = text;
	bt_step_apply(st);
}

const char *bt_step_words(struct bt_step *st, const char *fmt, ...)
{
	char text[BT_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return bt_arena_strdup(st->u->arena, text);
}

const char *bt_step_task_words(struct bt_step *st, const struct bt_task_run *t, const char *detail)
{
	const struct bt_plan *p = st->s.plan;
	const struct bt_task *task = t->task;
	const char *slot = task->instance == BT_NONE ? NULL : p->instances[task->instance].slot;
	const char *program = task->exec ? task->exec->run[0] : NULL;
	if (task->host == BT_NONE)
		return bt_step_words(st, "%s%s%s", bt_task_info(task->kind)->name,
			detail ? ": " : "", detail ? detail : "");
	return bt_step_words(st, "%s%s%s%.100s on %s%s%s%s%s",
		t->command->key.verb == BT_UNDO ? "undo of " : "", bt_task_info(task->kind)->name,
		program ? " " : "", program ? program : "", p->hosts[task->host], slot ? "/" : "",
		slot ? slot : "", detail ? ": " : "", detail ? detail : "");
}

/* ── events ── */

static int refuse(struct bt_err *err, const char *why)
{
	return bt_err_set(err, BT_E_REFUSED, "%s", why);
}

static void record_token(struct bt_step *st, uint64_t token)
{
	bt_step_record(st, BT_RECORD_TOKEN)->token = token;
	bt_step_apply(st);
}

static void record_plan(struct bt_step *st, const struct bt_plan *plan)
{
	bt_step_record(st, BT_RECORD_PLAN)->plan = plan;
	bt_step_apply(st);
}

static int on_start(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	if (st->s.plan)
		return refuse(err, "the run has its plan already");
	if (e->token == 0)
		return refuse(err, "a run starts with a fencing token above 0");
	record_plan(st, e->plan);
	record_token(st, e->token);
	return 0;
}

static int on_plan(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	if (st->s.phase != BT_PHASE_PLANNING)
		return refuse(err, "no rollback plan is wanted now");
	if (e->kind == BT_EVENT_PLAN) {
		record_plan(st, e->plan);
		bt_step_phase(st, BT_PHASE_ROLLING_BACK, NULL);
		return 0;
	}
	bt_step_phase(st, BT_PHASE_PARKED,
		bt_step_words(st, "no rollback plan can be made: %s", e->by ? e->by : "no reason"));
	return 0;
}

static bool awaited(const struct bt_state *s, const struct bt_result *r)
{
	const struct bt_task_run *t = bt_state_task(s, r->key.task);
	if (r->key.deployment != s->deployment || !t || !bt_state_with_agent(t) ||
		t->command->key.verb != r->key.verb)
		return false;
	if (t->attempt != r->key.attempt && !BT_BUG(ANY_RESULT))
		return false;
	if (t->refused_late)
		return false; /* said already */
	/* A copy that came late, with the token from before a takeover, was refused: the copy
	 * with the new token is on its way, and its answer is the one that counts. */
	return !(r->outcome == BT_OUTCOME_REFUSED && r->token && r->token < s->token);
}

static void on_result(struct bt_step *st, const struct bt_result *res)
{
	struct bt_state *s = &st->s;
	if (!awaited(s, res))
		return;
	struct bt_task_run *t = bt_state_task(s, res->key.task);
	struct bt_record *r = bt_step_record(st, BT_RECORD_RESULT);
	r->stage = t->stage;
	r->lane = t->lane;
	r->command.key = res->key;
	r->command.kind = t->task->kind;
	r->result = *res;
	r->result.detail = bt_arena_strdup(st->u->arena, res->detail);
	bt_step_apply(st);
	t = bt_state_task(s, res->key.task);
	enum bt_phase phase = s->phase == BT_PHASE_PAUSED ? s->resume : s->phase;
	if (t->world_moved && !t->own && t->stage == s->stage && !s->lanes[t->lane].failed &&
		(phase == BT_PHASE_RUNNING || phase == BT_PHASE_UNDOING))
		bt_step_lane_failed(st, t->lane, true,
			bt_step_task_words(st, t, "the world changed since the plan was made"));
}

static void record_operator(struct bt_step *st, const struct bt_event *e, const char *words)
{
	struct bt_record *r = bt_step_record(st, BT_RECORD_OPERATOR);
	r->op = e->op;
	r->text = bt_step_words(st, "%s by %s", words, e->by ? e->by : "an operator");
	bt_step_apply(st);
}

static int on_pause(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	enum bt_phase p = st->s.phase;
	if (p == BT_PHASE_PAUSED || p == BT_PHASE_PARKED)
		return refuse(err, "the run stands still already");
	record_operator(st, e, "paused");
	bt_step_phase(st, BT_PHASE_PAUSED, NULL);
	return 0;
}

static int on_resume(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	enum bt_phase p = st->s.phase;
	if (p != BT_PHASE_PAUSED && p != BT_PHASE_PARKED)
		return refuse(err, "the run is neither paused nor parked");
	record_operator(st, e, "resumed");
	enum bt_phase to = st->s.resume;
	if (p == BT_PHASE_PARKED && to == BT_PHASE_PLANNING)
		to = BT_PHASE_OBSERVING; /* what was seen then is old */
	bt_step_phase(st, to, NULL);
	return 0;
}

/* Abort and rollback: both go back to what served before. */
static int on_stop(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	enum bt_phase p = st->s.phase;
	const char *words = e->op == BT_OP_ABORT ? "aborted" : "rolled back";
	if (p == BT_PHASE_PARKED) {
		record_operator(st, e, words);
		if (e->op == BT_OP_ABORT)
			bt_step_end(st, BT_END_PARKED, NULL);
		else
			bt_step_phase(st, BT_PHASE_OBSERVING, NULL);
		return 0;
	}
	enum bt_phase at = p == BT_PHASE_PAUSED ? st->s.resume : p;
	if (at == BT_PHASE_CLOSING)
		return refuse(err, "the run is ending already");
	if (at != BT_PHASE_RUNNING && at != BT_PHASE_UNDOING)
		return refuse(err, "the run is being rolled back already");
	record_operator(st, e, words);
	if (p == BT_PHASE_PAUSED)
		bt_step_phase(st, at, NULL);
	return 0;
}

static int on_promote(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	struct bt_state *s = &st->s;
	bool found = false;
	for (size_t i = 0; i < s->n_tasks && s->phase == BT_PHASE_RUNNING; i++)
		if (s->tasks[i].task->kind == BT_TASK_BAKE && s->tasks[i].state == BT_TASK_SENT)
			found = true;
	if (!found)
		return refuse(err, "no bake is running that could be ended early");
	record_operator(st, e, "promoted");
	for (size_t i = 0; i < s->n_tasks; i++)
		if (s->tasks[i].task->kind == BT_TASK_BAKE && s->tasks[i].state == BT_TASK_SENT)
			bt_step_skip(st, &s->tasks[i], "promoted");
	return 0;
}

/* One word answers every Approve that waits. */
static int on_answer(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	struct bt_state *s = &st->s;
	bool yes = e->op == BT_OP_APPROVE;
	if (!s->n_asking)
		return refuse(err, "no approval is waited for");
	record_operator(st, e, yes ? "approved" : "rejected");
	const char *words = st->u->records[st->u->n_records - 1].text;
	for (size_t i = 0; i < s->n_tasks && s->n_asking; i++)
		if (bt_state_asks(&s->tasks[i]))
			answer(st, &s->tasks[i], yes ? BT_OUTCOME_DONE : BT_OUTCOME_FAILED, words);
	return 0;
}

static int on_operator(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	switch (e->op) {
	case BT_OP_PAUSE:
		return on_pause(st, e, err);
	case BT_OP_RESUME:
		return on_resume(st, e, err);
	case BT_OP_PROMOTE:
		return on_promote(st, e, err);
	case BT_OP_ABORT:
	case BT_OP_ROLLBACK:
		return on_stop(st, e, err);
	case BT_OP_APPROVE:
	case BT_OP_REJECT:
		return on_answer(st, e, err);
	}
	return refuse(err, "unknown wish");
}

static int on_takeover(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	if (e->token <= st->s.token)
		return refuse(err, "a takeover needs a higher fencing token");
	record_token(st, e->token);
	if (!BT_BUG(NO_RESEND))
		bt_send_outstanding(st);
	return 0;
}

static int on_event(struct bt_step *st, const struct bt_event *e, struct bt_err *err)
{
	if (st->s.phase == BT_PHASE_ENDED)
		return e->kind == BT_EVENT_RESULT || e->kind == BT_EVENT_TIMER ||
				       e->kind == BT_EVENT_AGENT
			       ? 0
			       : refuse(err, "the run has ended");
	if (e->kind == BT_EVENT_START)
		return on_start(st, e, err);
	if (!st->s.plan)
		return refuse(err, "the run has no plan yet");
	switch (e->kind) {
	case BT_EVENT_PLAN:
	case BT_EVENT_PLAN_FAILED:
		return on_plan(st, e, err);
	case BT_EVENT_RESULT:
		on_result(st, e->result);
		return 0;
	case BT_EVENT_OPERATOR:
		return on_operator(st, e, err);
	case BT_EVENT_TAKEOVER:
		return on_takeover(st, e, err);
	case BT_EVENT_AGENT: {
		struct bt_record *r = bt_step_record(st, BT_RECORD_AGENT);
		r->host = e->host;
		r->back = e->back;
		r->text = bt_arena_strdup(st->u->arena, e->by);
		bt_step_apply(st);
		return 0;
	}
	default:
		return 0;
	}
}

/* No answer within the limit: nobody knows whether it happened. */
static void give_up_late(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	for (size_t i = 0; i < s->n_tasks && s->phase != BT_PHASE_ENDED; i++) {
		struct bt_task_run *t = &s->tasks[i];
		if (!bt_state_outstanding(t) || t->sent_ms + t->limit_ms > st->now_ms)
			continue;
		if (t->task->kind == BT_TASK_WAIT) {
			answer(st, t, BT_OUTCOME_DONE, NULL);
			continue;
		}
		if (bt_state_asks(t)) {
			char limit[32];
			if (s->stands_ms < 0)
				answer(st, t,
					BT_BUG(SILENCE_IS_YES) ? BT_OUTCOME_DONE
							       : BT_OUTCOME_FAILED,
					bt_step_words(st, "nobody approved within %s",
						bt_duration_format(t->limit_ms, limit)));
			continue;
		}
		struct bt_record *r = bt_step_record(st, BT_RECORD_RETRY);
		r->stage = t->stage;
		r->lane = t->lane;
		r->command = *t->command;
		r->text = bt_step_words(
			st, "no answer within %lld s", (long long)(t->limit_ms / 1000));
		bt_step_apply(st);
	}
}

/* The run's own limit has passed: as if an operator had aborted it. */
static void out_of_time(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	if (!s->plan || !bt_state_limited(s) || s->began_ms + s->plan->timeout_ms > st->now_ms)
		return;
	struct bt_record *r = bt_step_record(st, BT_RECORD_OPERATOR);
	r->op = BT_OP_ABORT;
	r->text = bt_step_words(st, "aborted: not done within %lld s (deploy.timeout)",
		(long long)(s->plan->timeout_ms / 1000));
	bt_step_apply(st);
}

static bool decide(struct bt_step *st)
{
	switch (st->s.phase) {
	case BT_PHASE_RUNNING:
	case BT_PHASE_ROLLING_BACK:
	case BT_PHASE_CLOSING:
		return bt_lanes_run(st);
	case BT_PHASE_UNDOING:
		return bt_undo_run(st);
	case BT_PHASE_OBSERVING:
		return bt_observe_run(st);
	default:
		return false;
	}
}

int bt_state_step(const struct bt_state *from, struct bt_scratch *scratch, const struct bt_event *e,
	struct bt_update *ret, struct bt_err *err)
{
	struct bt_update u = {.arena = bt_arena_new()};
	/* Time never runs backwards, whatever the clock of who drives us does. */
	struct bt_step st = {
		.u = &u, .now_ms = e->now_ms > from->now_ms ? e->now_ms : from->now_ms};
	bt_state_copy(&st.s, from, u.arena, scratch);
	st.s.borrow = true;
	int r = on_event(&st, e, err);
	if (r < 0) {
		bt_update_done(&u);
		return r;
	}
	give_up_late(&st);
	out_of_time(&st);
	while (decide(&st))
		;
	u.deadline_ms = bt_state_deadline(&st.s, st.now_ms);
	u.wants_plan = st.s.phase == BT_PHASE_PLANNING;
	if (u.wants_plan) {
		u.wants_release = BT_BUG(ROLLBACK_RELEASE) ? st.s.plan->release : st.s.target;
		u.first_task_id = st.s.next_id;
	}
	*ret = u;
	return 0;
}
