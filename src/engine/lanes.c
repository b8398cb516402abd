/* A stage's lanes, forward. The same code runs a plan and a rollback plan; they differ in what a
 * failure means: in a plan the lane is undone, in a rollback the task is tried again, and again,
 * and then the run parks. */
#include "engine/state.h"

static bool rolling_back(const struct bt_step *st)
{
	return st->s.phase == BT_PHASE_ROLLING_BACK;
}

/* Is anything left of the task once what stays behind is left alone? */
static bool all_held(const struct bt_state *s, const struct bt_task *t)
{
	if (t->instance != BT_NONE)
		return s->held[t->instance];
	if (t->n_in + t->n_out == 0)
		return false;
	for (size_t i = 0; i < t->n_in; i++)
		if (!s->held[t->in[i]])
			return false;
	for (size_t i = 0; i < t->n_out; i++)
		if (!s->held[t->out[i]])
			return false;
	return true;
}

/* What takes away what these serve with. true: decided (sent, or failed); false: it waits. */
static bool send_stop(
	struct bt_step *st, size_t lane, struct bt_task_run *t, const uint16_t *list, size_t n)
{
	uint16_t instance;
	bool drains;
	const char *why = bt_guard_stops(&st->s, list, n, &instance, &drains);
	if (!why || (BT_BUG(VIP_OFF_EARLY) && bt_state_loopback(t->task->kind))) {
		bt_send_task(st, t, BT_DO);
		return true;
	}
	/* A rollback plan cannot know what served a moment ago: the engine drains it. */
	if (rolling_back(st) && drains)
		return bt_send_drains_first(st, t, list, n);
	if (t->task->instance == BT_NONE)
		why = bt_step_words(st, "%s: %s", st->s.plan->instances[instance].slot, why);
	if (rolling_back(st))
		bt_step_phase(st, BT_PHASE_PARKED, bt_step_task_words(st, t, why));
	else
		bt_step_lane_failed(st, lane, true, bt_step_task_words(st, t, why));
	return true;
}

static bool begin_task(struct bt_step *st, size_t lane, struct bt_task_run *t)
{
	if (t->not_before_ms > st->now_ms)
		return false;
	if (t->task->skip) {
		bt_step_skip(st, t, t->task->skip);
		return true;
	}
	if (st->s.failures && all_held(&st->s, t->task)) {
		bt_step_skip(st, t, "it stays behind");
		return true;
	}
	if (t->task->kind == BT_TASK_SWITCH)
		return bt_send_switch(st, t, BT_DO);
	if (t->task->kind == BT_TASK_INSTANCE_STOP)
		return send_stop(st, lane, t, &t->task->instance, 1);
	/* What a bundle's scripts do to an app may be to stop it. */
	bool script = t->task->kind == BT_TASK_LIFECYCLE && bt_state_spends(t->task);
	if (t->task->kind == BT_TASK_LOOPBACK_STOP || (script && !BT_BUG(SCRIPT_UNGUARDED)))
		return send_stop(st, lane, t, t->task->out, t->task->n_out);
	if (bt_task_is_engines(t->task->kind))
		bt_send_ask(st, t);
	else
		bt_send_task(st, t, BT_DO);
	return true;
}

bool bt_lanes_ignores(const struct bt_task_run *t)
{
	return t->task->ignore && !t->world_moved && !bt_task_info(t->task->kind)->has_undo &&
	       !BT_BUG(IGNORED_FAILS);
}

static bool task_failed(struct bt_step *st, size_t lane, struct bt_task_run *t)
{
	bool closing = st->s.plan->stages[t->stage].closing;
	if (t->task->kind == BT_TASK_PRUNE || closing || bt_lanes_ignores(t) ||
		(BT_BUG(HOOK_FORGIVEN) && t->task->kind == BT_TASK_EXEC)) {
		/* A host that keeps too much is no reason to go back, and from the end of a run
		 * that failed there is nowhere to go. */
		bt_step_skip(st, t, bt_step_words(st, "%s", t->detail ? t->detail : "failed"));
		return true;
	}
	if (t->state == BT_TASK_UNKNOWN && bt_state_never(t->task)) {
		/* A person who resumes has looked, and wants it done again. */
		bt_send_retry_or_park(st, t, BT_BUG(NEVER_AGAIN) ? 2 : 1);
		return true;
	}
	if (rolling_back(st))
		bt_send_retry_or_park(st, t, ENGINE_TRIES);
	else
		bt_step_lane_failed(st, lane, t->world_moved,
			bt_step_task_words(st, t,
				t->world_moved ? "the world changed since the plan was made"
					       : t->detail));
	return true;
}

static bool advance(struct bt_step *st, size_t lane)
{
	struct bt_task_run *t = &st->s.tasks[st->s.lanes[lane].at];
	switch (t->state) {
	case BT_TASK_WAITING:
		return begin_task(st, lane, t);
	case BT_TASK_FAILED:
	case BT_TASK_UNKNOWN:
		return task_failed(st, lane, t);
	default:
		return false;
	}
}

static const char *stayed_behind(struct bt_step *st)
{
	return bt_step_words(st, "%u lane%s stayed behind: %s", st->s.failures,
		st->s.failures == 1 ? "" : "s", st->s.reason);
}

static void finish(struct bt_step *st)
{
	if (st->s.phase == BT_PHASE_CLOSING)
		bt_step_end(st, st->s.closing_end, st->s.reason);
	else if (rolling_back(st))
		bt_step_end(st, BT_END_ROLLED_BACK, NULL);
	else if (!st->s.failures)
		bt_step_end(st, BT_END_DONE, NULL);
	else if (bt_state_changed(&st->s))
		bt_step_end(st, BT_END_DONE, stayed_behind(st));
	else
		bt_step_close(st, BT_END_ROLLED_BACK, NULL);
}

/* Closing stages are for the end of a run that failed: in a plan that goes forward they come only
 * when it does, and then they alone. A rollback plan is such an end as a whole. */
static bool comes(const struct bt_state *s, size_t stage)
{
	bool closing = s->plan->stages[stage].closing;
	return s->phase == BT_PHASE_RUNNING   ? !closing
	       : s->phase == BT_PHASE_CLOSING ? closing
					      : true;
}

static bool next_stage(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	size_t next = s->stage == SIZE_MAX ? 0 : s->stage + 1;
	while (next < s->plan->n_stages && !comes(s, next))
		next++;
	if (next == s->plan->n_stages) {
		enum bt_phase before = s->phase;
		finish(st);
		return before != BT_PHASE_CLOSING && s->phase == BT_PHASE_CLOSING;
	}
	bt_step_record(st, BT_RECORD_STAGE)->stage = (uint16_t)next;
	bt_step_apply(st);
	return true;
}

static bool started(const struct bt_state *s, const struct bt_lane_run *l)
{
	return l->failed || l->at > l->first || s->tasks[l->first].state != BT_TASK_WAITING;
}

static bool over_budget(const struct bt_state *s)
{
	return s->phase == BT_PHASE_RUNNING && (s->stopping || bt_state_over_budget(s));
}

bool bt_lanes_stuck(const struct bt_step *st)
{
	const struct bt_state *s = &st->s;
	for (size_t i = 0; i < s->n_tasks; i++)
		if (bt_state_outstanding(&s->tasks[i]) || s->tasks[i].not_before_ms > st->now_ms)
			return false;
	return true;
}

/* Why a Switch waits that nobody comes to help. */
static const char *why_stuck(struct bt_step *st, const struct bt_task_run *t)
{
	const struct bt_plan *p = st->s.plan;
	for (size_t i = 0; i < t->task->n_in; i++) {
		uint16_t host = p->instances[t->task->in[i]].host;
		if (st->s.vip_off[host] & VIP_OFF)
			return bt_step_words(st, "the address of %s is not on %s's loopback",
				p->service, p->hosts[host]);
	}
	return "it would leave fewer in rotation than min_in_rotation allows, and nobody is coming "
	       "back";
}

/* Lanes that wait for others to be back in rotation, and there are no others. */
static bool unstick(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	for (size_t i = 0; i < s->n_lanes; i++) {
		if (bt_state_lane_over(s, i))
			continue;
		struct bt_task_run *t = &s->tasks[s->lanes[i].at];
		const char *why = why_stuck(st, t);
		if (rolling_back(st))
			bt_step_phase(st, BT_PHASE_PARKED, bt_step_task_words(st, t, why));
		else if (s->lanes[i].failed)
			bt_step_phase(st, BT_PHASE_UNDOING, s->reason);
		else
			bt_step_lane_failed(st, i, true, bt_step_task_words(st, t, why));
		return true;
	}
	return false;
}

static bool run_lanes(struct bt_step *st, bool *ret_over)
{
	struct bt_state *s = &st->s;
	size_t limit = s->plan->stages[s->stage].side_by_side;
	size_t active = 0;
	bool progress = false, over = true;
	for (size_t i = 0; i < s->n_lanes; i++)
		active += !bt_state_lane_over(s, i) && started(s, &s->lanes[i]);
	for (size_t i = 0; i < s->n_lanes; i++) {
		enum bt_phase phase = s->phase;
		if (bt_state_lane_over(s, i))
			continue;
		bool was = started(s, &s->lanes[i]);
		if (!was && limit && active >= limit) {
			over = false;
			continue;
		}
		progress |= s->lanes[i].failed ? bt_undo_lane(st, i) : advance(st, i);
		if (s->phase != phase)
			return true;
		over &= bt_state_lane_over(s, i);
		active += !was && !bt_state_lane_over(s, i) && started(s, &s->lanes[i]);
		if (over_budget(s))
			break;
	}
	*ret_over = over || BT_BUG(STAGE_EARLY);
	return progress;
}

bool bt_lanes_run(struct bt_step *st)
{
	struct bt_state *s = &st->s;
	bool over = false;
	if (over_budget(s)) {
		bt_step_phase(st, BT_PHASE_UNDOING, s->reason);
		return true;
	}
	/* A run that closes is through with the stage it was at, whatever its lanes had before
	 * them. */
	if (s->stage == SIZE_MAX || !comes(s, s->stage))
		return next_stage(st);
	if (run_lanes(st, &over))
		return true;
	if (over)
		return next_stage(st);
	return bt_lanes_stuck(st) && unstick(st);
}
