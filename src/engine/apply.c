/* Records change the state here, and nowhere else. Nothing is decided: a record says what
 * happened, and this keeps the books. */
#include "engine/state.h"

#include <string.h>

static int corrupt(const struct bt_record *r, struct bt_err *err, const char *why)
{
	return bt_err_set(err, BT_E_CORRUPT, "journal: record of kind %d cannot follow: %s",
		(int)r->kind, why);
}

static const char *keep_text(struct bt_state *s, const char *text)
{
	return s->borrow ? text : bt_arena_strdup(s->arena, text);
}

static const uint16_t *keep_list(struct bt_state *s, const uint16_t *list, size_t n)
{
	return s->borrow || !n ? list : bt_arena_memdup(s->arena, list, n * sizeof *list);
}

static void apply_plan(struct bt_state *s, const struct bt_plan *p)
{
	if (s->plan)
		s->before = bt_arena_memdup(s->arena, s, sizeof *s);
	else {
		s->target = p->old_release;
		s->began_ms = s->now_ms;
	}
	s->phase = s->plan ? BT_PHASE_ROLLING_BACK : BT_PHASE_RUNNING;
	s->plan = p;
	s->stage = SIZE_MAX;
	s->failures = s->failures_stage = s->failures_own = 0;
	s->n_asking = 0;
	s->n_lanes = s->cap_lanes = s->n_sent = s->cap_sent = s->n_tasks = 0;
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++)
			s->n_tasks += p->stages[i].lanes[k].n_tasks;
	s->cap_tasks = s->n_tasks + 4;
	s->tasks = BT_ARENA_ARRAY(s->arena, struct bt_task_run, s->cap_tasks);
	size_t n = 0;
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++)
			for (size_t j = 0; j < p->stages[i].lanes[k].n_tasks; j++) {
				const struct bt_task *t = &p->stages[i].lanes[k].tasks[j];
				struct bt_task_run *run = &s->tasks[n++];
				*run = bt_state_new_task(t);
				run->stage = (uint16_t)i;
				run->lane = (uint16_t)k;
				if (t->id >= s->next_id)
					s->next_id = t->id + 1;
			}
	s->n_plan_tasks = s->observe_from = n;
	s->balancers = BT_ARENA_ARRAY(s->arena, struct bt_balancer_run, p->n_balancers);
	s->served = bt_arena_alloc(s->arena, p->n_balancers * p->n_instances);
	s->held = bt_arena_alloc(s->arena, p->n_instances);
	s->vip_off = bt_arena_alloc(s->arena, p->n_hosts);
	for (size_t i = 0; i < p->n_without_vip; i++)
		s->vip_off[p->without_vip[i]] = VIP_OFF;
	s->running = BT_ARENA_ARRAY(s->arena, uint32_t, p->n_instances);
	for (size_t i = 0; i < p->n_instances; i++)
		s->running[i] = p->instances[i].expect_release;
	bt_pool_begin(s);
}

static int apply_stage(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	if (r->stage >= s->plan->n_stages)
		return corrupt(r, err, "the plan has no such stage");
	s->stage = r->stage;
	s->failures_stage = 0;
	s->n_lanes = s->plan->stages[r->stage].n_lanes;
	s->cap_lanes = s->n_lanes;
	s->lanes = BT_ARENA_ARRAY(s->arena, struct bt_lane_run, s->n_lanes);
	size_t first = 0;
	while (first < s->n_plan_tasks && s->tasks[first].stage != r->stage)
		first++;
	for (size_t i = 0; i < s->n_lanes; i++) {
		s->lanes[i].first = s->lanes[i].at = first;
		first += s->plan->stages[r->stage].lanes[i].n_tasks;
	}
	return 0;
}

/* The first of the lane's tasks that is neither done nor skipped. */
static void move_lane(struct bt_state *s, const struct bt_task_run *t)
{
	if (t->own || t->stage != s->stage || t->lane >= s->n_lanes)
		return;
	struct bt_lane_run *l = &s->lanes[t->lane];
	size_t end = l->first + bt_state_lane(s, t->lane)->n_tasks;
	while (l->at < end &&
		(s->tasks[l->at].state == BT_TASK_DONE || s->tasks[l->at].state == BT_TASK_SKIPPED))
		l->at++;
}

static void move_lanes(struct bt_state *s)
{
	if (s->stage == SIZE_MAX)
		return;
	for (size_t i = 0; i < s->n_lanes; i++)
		if (s->lanes[i].first < s->n_plan_tasks)
			move_lane(s, &s->tasks[s->lanes[i].first]);
}

static struct bt_task_run *add_own(struct bt_state *s, const struct bt_record *r)
{
	const struct bt_command *c = &r->command;
	struct bt_task *task = BT_ARENA_NEW(s->arena, struct bt_task);
	task->id = c->key.task;
	task->kind = c->kind;
	task->host = c->host;
	task->instance = c->instance;
	task->balancer = c->balancer;
	task->out = keep_list(s, c->out, c->n_out);
	task->n_out = c->n_out;
	task->timeout_ms = c->timeout_ms;
	task->wait_ms = c->wait_ms;
	BT_STATE_ROOM(s, tasks, n_tasks, cap_tasks);
	struct bt_task_run *t = &s->tasks[s->n_tasks++];
	*t = bt_state_new_task(task);
	t->stage = r->stage;
	t->lane = r->lane;
	t->own = true;
	s->next_id = task->id + 1;
	return t;
}

static bool list_known(const struct bt_plan *p, const uint16_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] >= p->n_instances)
			return false;
	return true;
}

/* A command about a task of the plan says what the plan says. */
static bool fits_task(
	const struct bt_state *s, const struct bt_task_run *t, const struct bt_command *c)
{
	const struct bt_task *task = t->task;
	if (c->kind != task->kind || c->host != task->host || c->instance != task->instance ||
		c->balancer != task->balancer || bt_state_outstanding(t))
		return false;
	if (c->key.verb == BT_UNDO && (t->own || t->attempt == 0))
		return false; /* nothing was done */
	return t->own || (s->stage != SIZE_MAX && t->stage == s->stage);
}

/* The engine's own: Observe, and Drain before a stop. */
static bool fits_own(const struct bt_state *s, const struct bt_record *r)
{
	const struct bt_command *c = &r->command;
	if (c->key.task < s->next_id || c->key.task == UINT32_MAX || c->key.verb != BT_DO ||
		c->host >= s->plan->n_hosts)
		return false;
	if (c->kind == BT_TASK_OBSERVE)
		return c->instance == BT_NONE && c->balancer == BT_NONE && r->lane == BT_NONE;
	return c->kind == BT_TASK_DRAIN && c->instance < s->plan->n_instances &&
	       c->balancer < s->plan->n_balancers && s->stage != SIZE_MAX && r->stage == s->stage &&
	       r->lane < s->n_lanes;
}

/* From the moment it may be taken off, it may be off. What was known before that stays in mind:
 * an undo of which nobody says what was there has not begun anything. */
static void loopback_sent(struct bt_state *s, const struct bt_task_run *t)
{
	enum bt_task_kind takes_off =
		t->state == BT_TASK_SENT ? BT_TASK_LOOPBACK_STOP : BT_TASK_LOOPBACK_START;
	if (t->task->kind != takes_off)
		return;
	uint8_t *off = &s->vip_off[t->task->host];
	uint8_t before = t->attempt == 1 ? (uint8_t)(*off & VIP_OFF ? VIP_WAS_OFF : 0)
					 : (uint8_t)(*off & VIP_WAS_OFF);
	*off = VIP_OFF | before;
}

static void result_loopback(
	struct bt_state *s, const struct bt_task_run *t, const struct bt_prior *said)
{
	const struct bt_prior *prior = t->prior.known ? &t->prior : said;
	if (!bt_state_loopback(t->task->kind))
		return;
	uint8_t *off = &s->vip_off[t->task->host];
	if (t->task->kind == BT_TASK_LOOPBACK_START && t->state == BT_TASK_DONE)
		*off = 0;
	else if (t->state == BT_TASK_UNDONE)
		*off = (prior->known ? !prior->present : *off & VIP_WAS_OFF) ? VIP_OFF : 0;
}

static int apply_sent(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	const struct bt_command *c = &r->command;
	struct bt_task_run *t = bt_state_task(s, c->key.task);
	if (c->key.deployment != s->deployment || !list_known(s->plan, c->pool, c->n_pool) ||
		!list_known(s->plan, c->out, c->n_out))
		return corrupt(r, err, "a command of another run");
	if (t ? !fits_task(s, t, c) : !fits_own(s, r))
		return corrupt(r, err, "no such task waits to be sent");
	if (!t)
		t = add_own(s, r);
	if (t->command->key.verb != c->key.verb)
		t->tries = 0;
	t->state = c->key.verb == BT_DO ? BT_TASK_SENT : BT_TASK_UNDO_SENT;
	t->attempt = c->key.attempt;
	t->tries++;
	t->gave_up = false;
	t->sent_ms = r->at_ms;
	t->limit_ms = c->timeout_ms + c->wait_ms + ENGINE_GRACE_MS;
	if (bt_task_is_engines(c->kind))
		t->limit_ms = c->wait_ms;
	if (c->kind == BT_TASK_WAIT && (BT_BUG(WAIT_ENDS_AT_ONCE) || BT_BUG(WAIT_NEVER_ENDS)))
		t->limit_ms = BT_BUG(WAIT_ENDS_AT_ONCE) ? 0 : INT64_MAX / 2;
	s->n_asking += c->kind == BT_TASK_APPROVE;
	struct bt_command *kept = bt_arena_memdup(s->arena, c, sizeof *c);
	kept->pool = keep_list(s, c->pool, c->n_pool);
	kept->out = keep_list(s, c->out, c->n_out);
	t->command = kept;
	loopback_sent(s, t);
	if (c->kind == BT_TASK_SWITCH) {
		bt_pool_sent(s, t);
		if (BT_BUG(CONFIRM_EARLY))
			bt_pool_result(s, t, BT_OUTCOME_DONE);
	}
	return 0;
}

/* Was the world as the plan took it to be? */
static bool moved(const struct bt_state *s, const struct bt_task_run *t, const struct bt_prior *p)
{
	const struct bt_task *task = t->task;
	if (!p->known || t->command->key.verb != BT_DO || t->attempt != 1)
		return false;
	if (task->kind == BT_TASK_INSTANCE_START)
		return p->running && p->release != s->running[task->instance] &&
		       p->release != task->release;
	if (task->kind == BT_TASK_INSTANCE_STOP)
		return p->running && p->release != s->running[task->instance];
	/* Who is used as it runs must be who the plan takes it for. */
	if (task->kind == BT_TASK_HEALTH_CHECK && task->release)
		return p->running && p->release != task->release;
	if (task->kind == BT_TASK_SWITCH)
		return p->generation < s->plan->balancers[task->balancer].expect_generation ||
		       p->generation > s->balancers[task->balancer].highest;
	return false;
}

static void result_instance(struct bt_state *s, const struct bt_task_run *t)
{
	uint16_t i = t->task->instance;
	for (size_t k = 0;
		t->state == BT_TASK_DONE && t->task->kind == BT_TASK_INSTALL && k < t->task->n_out;
		k++)
		s->running[t->task->out[k]] = t->task->release;
	if (i == BT_NONE)
		return;
	if (t->state == BT_TASK_DONE && t->task->kind == BT_TASK_INSTANCE_START)
		s->running[i] = t->task->release;
	else if (t->state == BT_TASK_DONE && t->task->kind == BT_TASK_INSTANCE_STOP)
		s->running[i] = 0;
	else if (t->state == BT_TASK_UNDONE && (t->task->kind == BT_TASK_INSTANCE_START ||
						       t->task->kind == BT_TASK_INSTANCE_STOP))
		s->running[i] = t->prior.running ? t->prior.release : 0;
}

static void result_drain(struct bt_state *s, struct bt_task_run *t, bool drained)
{
	const struct bt_command *c = t->command;
	/* The engine's own drains come before something has to be undone: they may run out. */
	if (bt_plan_drain_fails(s->plan, t->own ? NULL : t->task, drained)) {
		t->state = BT_TASK_FAILED;
		return;
	}
	for (size_t i = 0; i < c->n_out; i++)
		if (!bt_pool_may_hold(s, c->balancer, c->out[i]))
			s->served[c->balancer * s->plan->n_instances + c->out[i]] = 0;
}

static int apply_result(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	const struct bt_result *res = &r->result;
	struct bt_task_run *t = bt_state_task(s, res->key.task);
	bool undo = res->key.verb == BT_UNDO;
	if (!t || !bt_state_outstanding(t) || undo != (t->state == BT_TASK_UNDO_SENT))
		return corrupt(r, err, "a result that nobody waits for");
	if (moved(s, t, &res->prior))
		t->world_moved = true;
	if (!undo && res->prior.known && !t->prior.known)
		t->prior = res->prior;
	t->detail = keep_text(s, res->detail);
	s->n_asking -= bt_state_asks(t);
	/* Nobody knows, and asking again does no harm: as with an answer that never came. */
	t->gave_up = res->outcome == BT_OUTCOME_UNKNOWN && !bt_state_never(t->task);
	if (t->task->kind == BT_TASK_SWITCH) {
		bt_pool_result(s, t, res->outcome);
		move_lanes(s);
		return 0;
	}
	switch (res->outcome) {
	case BT_OUTCOME_DONE:
		t->state = undo ? BT_TASK_UNDONE : BT_TASK_DONE;
		break;
	case BT_OUTCOME_UNKNOWN:
		t->state = undo ? BT_TASK_UNDO_FAILED : BT_TASK_UNKNOWN;
		break;
	case BT_OUTCOME_FAILED:
	case BT_OUTCOME_REFUSED:
		t->state = undo ? BT_TASK_UNDO_FAILED : BT_TASK_FAILED;
		break;
	}
	result_instance(s, t);
	result_loopback(s, t, &res->prior);
	if (t->state == BT_TASK_DONE && t->task->kind == BT_TASK_DRAIN)
		result_drain(s, t, res->drained);
	move_lane(s, t);
	return 0;
}

static int apply_retry(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	struct bt_task_run *t = bt_state_task(s, r->command.key.task);
	if (!t)
		return corrupt(r, err, "no such task");
	if (bt_state_outstanding(t)) {
		t->state = t->state == BT_TASK_SENT ? BT_TASK_UNKNOWN : BT_TASK_UNDO_FAILED;
		t->gave_up = true;
		t->detail = keep_text(s, r->text);
		return 0;
	}
	if (t->state == BT_TASK_UNDO_FAILED)
		t->state = BT_TASK_UNKNOWN; /* so it is undone again */
	else if (t->state == BT_TASK_FAILED || t->state == BT_TASK_UNKNOWN)
		t->state = BT_TASK_WAITING;
	else
		return corrupt(r, err, "the task did not fail");
	t->not_before_ms = r->at_ms + r->command.wait_ms;
	return 0;
}

static void hold(struct bt_state *s, const uint16_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s->held[list[i]] = 1;
}

static bool only_brings(const struct bt_lane *l)
{
	for (size_t i = 0; i < l->n_tasks; i++)
		if (l->tasks[i].kind != BT_TASK_COMPONENT_DEPLOY &&
			l->tasks[i].kind != BT_TASK_LOOPBACK_START)
			return false;
	return true;
}

/* Whoever a failed lane was about stays as it is, and on a host that a release or the address could
 * not be brought to all do (but not where that was one of a lane's tasks, and other instances of
 * the host have lanes of their own); and where its successor stays out, the predecessor on the same
 * host stays in. */
static void hold_lane(struct bt_state *s, size_t lane)
{
	const struct bt_plan *p = s->plan;
	const struct bt_lane *l = bt_state_lane(s, lane);
	for (size_t i = 0; i < l->n_tasks; i++) {
		const struct bt_task *t = &l->tasks[i];
		if (t->instance != BT_NONE)
			s->held[t->instance] = 1;
		hold(s, t->in, t->n_in);
		if (!bt_state_loopback(t->kind) || only_brings(l))
			hold(s, t->out, t->n_out);
		for (size_t k = 0;
			t->kind == BT_TASK_COMPONENT_DEPLOY && only_brings(l) && k < p->n_instances;
			k++)
			if (p->instances[k].host == t->host)
				s->held[k] = 1;
	}
	for (size_t i = 0; i < s->n_plan_tasks; i++) {
		const struct bt_task *t = s->tasks[i].task;
		if (t->kind != BT_TASK_SWITCH || s->tasks[i].state != BT_TASK_WAITING)
			continue;
		for (size_t k = 0; k < t->n_in; k++)
			for (size_t o = 0; s->held[t->in[k]] && o < t->n_out; o++)
				if (!s->held[t->out[o]] && p->instances[t->out[o]].host ==
								   p->instances[t->in[k]].host) {
					s->held[t->out[o]] = 1;
					break;
				}
	}
}

static int apply_lane(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	if (s->stage == SIZE_MAX || r->stage != s->stage || r->lane >= s->n_lanes)
		return corrupt(r, err, "no such lane runs");
	struct bt_lane_run *l = &s->lanes[r->lane];
	if (r->kind == BT_RECORD_LANE_UNDONE) {
		l->undone = true;
		return 0;
	}
	l->failed = true;
	s->failures_stage++;
	s->failures_own += s->plan->stages[s->stage].own_policy;
	if (!s->failures++ && !s->stopping) {
		s->reason = keep_text(s, r->text);
		s->refused = r->end == BT_END_REFUSED;
	}
	hold_lane(s, r->lane);
	return 0;
}

static void apply_operator(struct bt_state *s, const struct bt_record *r)
{
	if (r->op == BT_OP_ABORT || r->op == BT_OP_ROLLBACK) {
		if (!s->stopping && !s->failures)
			s->reason = keep_text(s, r->text);
		s->stopping = true;
	}
	if (r->op == BT_OP_RESUME || r->op == BT_OP_ROLLBACK)
		for (size_t i = 0; i < s->n_tasks; i++)
			s->tasks[i].tries = 0;
}

/* Who is asked for an approval is not asked while the run stands still. */
static void stand(struct bt_state *s)
{
	bool stands = s->phase == BT_PHASE_PAUSED || s->phase == BT_PHASE_PARKED;
	if (stands && s->stands_ms < 0)
		s->stands_ms = s->now_ms;
	if (stands || s->stands_ms < 0)
		return;
	for (size_t i = 0; i < s->n_tasks && s->n_asking; i++)
		if (bt_state_asks(&s->tasks[i]))
			s->tasks[i].sent_ms += s->now_ms - s->stands_ms;
	s->stands_ms = -1;
}

/* Time in which the run waits for people does not count to its limit. */
static void count_time(struct bt_state *s)
{
	bool counts = s->stands_ms < 0 && !s->n_asking;
	if (!counts && s->uncounted_ms < 0)
		s->uncounted_ms = s->now_ms;
	if (!counts || s->uncounted_ms < 0)
		return;
	s->began_ms += s->now_ms - s->uncounted_ms;
	s->uncounted_ms = -1;
}

static void apply_phase(struct bt_state *s, const struct bt_record *r)
{
	bool held_up = s->phase == BT_PHASE_PAUSED || s->phase == BT_PHASE_PARKED;
	bool going_on = held_up && s->resume == r->phase;
	if (r->phase == BT_PHASE_PAUSED || r->phase == BT_PHASE_PARKED)
		s->resume = held_up ? s->resume : s->phase;
	if (r->phase == BT_PHASE_CLOSING && r->end != BT_END_NONE)
		s->closing_end = r->end;
	if (r->phase == BT_PHASE_OBSERVING && !going_on)
		s->observe_from = s->n_tasks;
	if (r->phase == BT_PHASE_PARKED)
		s->reason = keep_text(s, r->text);
	s->phase = r->phase;
	stand(s);
}

static void apply_token(struct bt_state *s, const struct bt_record *r)
{
	s->token = r->token;
	/* What was answered while nobody listened gets the time to arrive. */
	for (size_t i = 0; i < s->n_tasks; i++)
		if (bt_state_with_agent(&s->tasks[i])) {
			s->tasks[i].sent_ms = r->at_ms;
			struct bt_command *c =
				bt_arena_memdup(s->arena, s->tasks[i].command, sizeof *c);
			c->token = r->token;
			s->tasks[i].command = c;
		}
}

static int apply_task_record(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	if (r->kind == BT_RECORD_SENT)
		return apply_sent(s, r, err);
	if (r->kind == BT_RECORD_RESULT)
		return apply_result(s, r, err);
	if (r->kind == BT_RECORD_RETRY)
		return apply_retry(s, r, err);
	struct bt_task_run *t = bt_state_task(s, r->command.key.task);
	if (!t)
		return corrupt(r, err, "no such task");
	s->n_asking -= bt_state_asks(t);
	t->state = BT_TASK_SKIPPED;
	move_lane(s, t);
	return 0;
}

static int apply_record(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	if (s->phase == BT_PHASE_ENDED)
		return corrupt(r, err, "the run has ended");
	if (r->kind == BT_RECORD_PLAN ? !r->plan : !s->plan)
		return corrupt(r, err, "there is no plan");
	if (r->at_ms > s->now_ms)
		s->now_ms = r->at_ms;
	switch (r->kind) {
	case BT_RECORD_PLAN:
		apply_plan(s, r->plan);
		return 0;
	case BT_RECORD_TOKEN:
		apply_token(s, r);
		return 0;
	case BT_RECORD_STAGE:
		return apply_stage(s, r, err);
	case BT_RECORD_SENT:
	case BT_RECORD_RESULT:
	case BT_RECORD_RETRY:
	case BT_RECORD_SKIPPED:
		return apply_task_record(s, r, err);
	case BT_RECORD_LANE_FAILED:
	case BT_RECORD_LANE_UNDONE:
		return apply_lane(s, r, err);
	case BT_RECORD_OPERATOR:
		apply_operator(s, r);
		return 0;
	case BT_RECORD_AGENT:
		return 0;
	case BT_RECORD_PHASE:
		apply_phase(s, r);
		return 0;
	case BT_RECORD_END:
		s->phase = BT_PHASE_ENDED;
		s->end = r->end;
		if (r->text)
			s->reason = keep_text(s, r->text);
		return 0;
	case BT_RECORD_KINDS:
		break;
	}
	return corrupt(r, err, "unknown kind");
}

int bt_state_apply(struct bt_state *s, const struct bt_record *r, struct bt_err *err)
{
	int res = apply_record(s, r, err);
	if (res == 0)
		count_time(s);
	return res;
}
