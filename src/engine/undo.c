/* Back: a lane's tasks in reverse order, each from the state that was there before it; and what
 * follows once every failed lane is undone. */
#include "engine/state.h"

/* true: it is not sent now, and *ret_decided tells whether something else was decided. */
static bool undo_of_loopback(struct bt_step *st, struct bt_task_run *t, bool *ret_decided)
{
	const struct bt_task *task = t->task;
	bool start = task->kind == BT_TASK_LOOPBACK_START, drains;
	uint16_t instance;
	*ret_decided = true;
	if (t->prior.known && t->prior.present == start && !BT_BUG(VIP_PRIOR_FORGOTTEN)) {
		bt_step_skip(st, t, start ? "it was there before" : "it was not there before");
		return true;
	}
	if (!start || !bt_guard_stops(&st->s, task->out, task->n_out, &instance, &drains))
		return false;
	if (drains)
		*ret_decided = bt_send_drains_first(st, t, task->out, task->n_out);
	else /* another lane's, which is not undone */
		bt_step_skip(st, t,
			bt_step_words(st, "requests come to %s at it",
				st->s.plan->instances[instance].slot));
	return true;
}

static bool send_undo(struct bt_step *st, struct bt_task_run *t)
{
	const struct bt_task *task = t->task;
	bool decided;
	if (t->not_before_ms > st->now_ms)
		return false;
	if (task->kind == BT_TASK_SWITCH) {
		bool kept =
			st->s.plan->n_balancers > 1 && task->balancer == 0 && BT_BUG(OTHERS_KEPT);
		if (t->moves->n_undo_in + t->moves->n_undo_out > 0 && !kept)
			return bt_send_switch(st, t, BT_UNDO);
		bt_step_skip(st, t, "it changed nothing");
		return true;
	}
	if (bt_state_loopback(task->kind) && undo_of_loopback(st, t, &decided))
		return decided;
	if (task->kind == BT_TASK_INSTANCE_START) {
		bool same = t->prior.release == task->release || t->state == BT_TASK_FAILED;
		if (t->prior.known && t->prior.running && same) {
			bt_step_skip(st, t, "what runs there ran before");
			return true;
		}
		uint16_t balancer;
		const char *why = bt_guard_stop(&st->s, task->instance, &balancer);
		if (why && balancer != BT_NONE)
			return bt_send_drains_first(st, t, &task->instance, 1);
		if (why) {
			bt_step_phase(st, BT_PHASE_PARKED, bt_step_task_words(st, t, why));
			return true;
		}
	}
	bt_send_task(st, t, BT_UNDO);
	return true;
}

static bool undo_failed(struct bt_step *st, struct bt_task_run *t)
{
	/* A release that stays on a disk harms nobody: no reason to stop the others. */
	if (t->task->kind == BT_TASK_COMPONENT_DEPLOY) {
		bt_step_skip(st, t, "the release stays on the disk");
		return true;
	}
	/* No answer: it is asked again. "I cannot": a person has to look, and an operator who
	 * resumes has (tries is 0 then). */
	bt_send_retry_or_park(st, t, t->gave_up ? ENGINE_TRIES : 1);
	return true;
}

bool bt_undo_lane(struct bt_step *st, size_t lane)
{
	struct bt_state *s = &st->s;
	const struct bt_lane_run *l = &s->lanes[lane];
	size_t n = bt_state_lane(s, lane)->n_tasks;
	for (size_t k = 0; k < n; k++) {
		struct bt_task_run *t =
			&s->tasks[l->first + (BT_BUG(UNDO_FORWARD) ? k : n - 1 - k)];
		/* What served there before may not be there any more: it stays out of rotation. */
		if (bt_state_spends(t->task) && !BT_BUG(SPENT_UNDONE) &&
			t->state != BT_TASK_WAITING && !bt_state_outstanding(t))
			break;
		switch (t->state) {
		case BT_TASK_SENT:
		case BT_TASK_UNDO_SENT:
			return false;
		case BT_TASK_UNDO_FAILED:
			return undo_failed(st, t);
		case BT_TASK_FAILED:
			/* A start or stop that failed may have come half-way; so may one of several
			 * addresses. */
			if ((t->task->kind == BT_TASK_INSTANCE_START ||
				    t->task->kind == BT_TASK_INSTANCE_STOP ||
				    bt_state_loopback(t->task->kind)) &&
				!BT_BUG(HALF_IS_NOTHING))
				return send_undo(st, t);
			break;
		case BT_TASK_UNKNOWN:
			if (BT_BUG(UNKNOWN_IS_FAILED))
				break;
			__attribute__((fallthrough));
		case BT_TASK_DONE:
			if (bt_task_info(t->task->kind)->has_undo)
				return send_undo(st, t);
			break;
		default:
			break;
		}
	}
	struct bt_record *r = bt_step_record(st, BT_RECORD_LANE_UNDONE);
	r->stage = (uint16_t)s->stage;
	r->lane = (uint16_t)lane;
	bt_step_apply(st);
	return true;
}

/* What only looks or waits need not be waited for. */
static bool drop_watches(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	bool progress = false;
	for (size_t i = 0; i < s->observe_from; i++) {
		struct bt_task_run *t = &s->tasks[i];
		/* A lane's own drain is part of its undo. */
		if (t->state != BT_TASK_SENT || bt_task_info(t->task->kind)->effect ||
			(t->own && s->phase == BT_PHASE_UNDOING))
			continue;
		bt_step_skip(st, t, "the run stops");
		progress = true;
	}
	return progress;
}

static void all_undone(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	if (!bt_state_changed(s))
		bt_step_close(st, s->refused && !s->stopping ? BT_END_REFUSED : BT_END_ROLLED_BACK,
			s->reason);
	else if (!s->stopping && bt_state_policy(s) == BT_ON_FAILURE_HALT)
		bt_step_close(st, BT_END_HALTED, s->reason);
	else
		bt_step_phase(st, BT_PHASE_OBSERVING, s->reason);
}

bool bt_undo_run(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	bool progress = drop_watches(st), over = true;
	for (size_t i = 0; s->stage != SIZE_MAX && i < s->n_lanes; i++) {
		struct bt_lane_run *l = &s->lanes[i];
		if (bt_state_lane_over(s, i))
			continue;
		if (!l->failed) {
			struct bt_task_run *t = &s->tasks[l->at];
			over &= !bt_state_outstanding(t);
			if (t->state != BT_TASK_FAILED && t->state != BT_TASK_UNKNOWN)
				continue;
			if (bt_lanes_ignores(t)) {
				bt_step_skip(st, t, t->detail);
				progress = true;
				continue;
			}
			bt_step_lane_failed(
				st, i, t->world_moved, bt_step_task_words(st, t, t->detail));
		}
		progress |= bt_undo_lane(st, i);
		if (s->phase != BT_PHASE_UNDOING)
			return true;
		over &= bt_state_lane_over(s, i);
	}
	if (over) {
		all_undone(st);
		return true;
	}
	/* To undo this lane would leave too few in rotation, since another one stopped half-way and
	 * nobody is coming back. What is left is for a plan that is made from what is there: it
	 * knows both lanes. */
	if (!progress && bt_lanes_stuck(st)) {
		all_undone(st);
		return true;
	}
	return progress;
}

/* ── before a rollback: what is there? ── */

static struct bt_task_run *observer(const struct bt_state *s, uint16_t host)
{
	for (size_t i = s->observe_from; i < s->n_tasks; i++)
		if (s->tasks[i].task->kind == BT_TASK_OBSERVE && s->tasks[i].task->host == host)
			return &s->tasks[i];
	return NULL;
}

static void observe(struct bt_step *st, uint16_t host)
{
	struct bt_task task = {
		.id = st->s.next_id,
		.kind = BT_TASK_OBSERVE,
		.host = host,
		.instance = BT_NONE,
		.balancer = BT_NONE,
		.timeout_ms = bt_task_info(BT_TASK_OBSERVE)->timeout_ms,
	};
	bt_send_own(st, &task, 0, BT_NONE);
}

/* An operator may want a parked run rolled back while others of its lanes are still at it. */
static bool still_changing(const struct bt_state *s)
{
	for (size_t i = 0; i < s->observe_from; i++)
		if (bt_state_outstanding(&s->tasks[i]))
			return true;
	return false;
}

bool bt_observe_run(struct bt_step *st)
{
	bool progress = drop_watches(st), all = true;
	if (still_changing(&st->s))
		return progress;
	for (uint16_t h = 0; h < st->s.plan->n_hosts; h++) {
		struct bt_task_run *t = observer(&st->s, h);
		all &= t && t->state == BT_TASK_DONE;
		if (!t) {
			observe(st, h);
			progress = true;
		} else if (t->state == BT_TASK_FAILED || t->state == BT_TASK_UNKNOWN) {
			bt_send_retry_or_park(st, t, ENGINE_OBSERVE_TRIES);
			return true;
		} else if (t->state == BT_TASK_WAITING && t->not_before_ms <= st->now_ms) {
			bt_send_again(st, t);
			progress = true;
		}
	}
	if (all)
		bt_step_phase(st, BT_PHASE_PLANNING, NULL);
	return progress;
}
