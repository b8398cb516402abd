/* Programs and approvals: what a service adds to its plans, programs that outlive their agent, and
 * a person who answers, or does not. What must hold of them: a program that may not be repeated is
 * begun once, and again only when a person wants it; what stands before a switch has succeeded when
 * the switch comes; an approval that nobody gave is none; and a run that fails says so at its end.
 */
#include "sim.h"

#include <string.h>

/* Beside the run's own stream of chance, so that what a seed does without hooks stays. */
uint64_t draw(const struct sim *s, uint64_t what)
{
	uint64_t z = s->seed * 0x9e3779b97f4a7c15u + what * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 30)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* ── scenario ── */

void hooks_pick(struct sim *s)
{
	static const char *const words[] = {"./hook", "now"};
	if (draw(s, 1) % 100 >= 35)
		return;
	for (unsigned w = 0; w < BT_HOOK_WHENS; w++) {
		unsigned n = (unsigned)(draw(s, 10 + w) % 4);
		for (unsigned i = 0; i < n && i < MAX_HOOKS; i++) {
			uint64_t dice = draw(s, 100 * (w + 1) + i);
			bool place = w == BT_HOOK_BEFORE_SWITCH || w == BT_HOOK_AFTER_SWITCH;
			struct bt_hook *h = &s->hooks[w][i];
			*h = (struct bt_hook){.kind = BT_TASK_EXEC,
				.on = (enum bt_hook_on)(dice % (place ? 3 : 2)),
				.timeout_ms = 60000};
			h->exec = (struct bt_task_exec){
				.run = words, .n_run = 2, .safe = dice / 8 % 4 == 0};
			if (dice / 64 % 5 == 0) {
				h->on = BT_ON_HOST;
				h->host = s->host_names[dice / 512 % s->n_service_hosts];
			}
			if (w != BT_HOOK_ON_FAILURE && dice / 4096 % 5 == 0) {
				h->kind = BT_TASK_APPROVE;
				h->within_ms = 60000 + (int64_t)(dice / 65536 % 600000);
			}
		}
		s->service.deploy.hooks[w] =
			(struct bt_hooks){s->hooks[w], n < MAX_HOOKS ? n : MAX_HOOKS};
	}
}

void hooks_reset(struct sim *s)
{
	memset(s->programs, 0, sizeof s->programs);
	memset(s->word, 0, sizeof s->word);
	memset(s->failed_surely, 0, sizeof s->failed_surely);
	s->asking = 0;
	s->n_approved = s->n_resumed = 0;
}

/* ── the plan, by the journal ── */

static const struct bt_plan *plan_now(const struct sim *s)
{
	for (size_t i = s->store.n_records; i-- > 0;)
		if (s->store.records[i].r.kind == BT_RECORD_PLAN)
			return s->store.records[i].r.plan;
	return NULL;
}

static bool is_hook(const struct bt_task *t)
{
	return t->kind == BT_TASK_EXEC || t->kind == BT_TASK_APPROVE || t->kind == BT_TASK_WAIT ||
	       t->kind == BT_TASK_NOTIFY || t->kind == BT_TASK_LIFECYCLE;
}

static bool is_program(enum bt_task_kind kind)
{
	return kind == BT_TASK_EXEC || kind == BT_TASK_NOTIFY || kind == BT_TASK_LIFECYCLE;
}

const struct bt_task *hooks_task(const struct sim *s, uint32_t id)
{
	const struct bt_plan *p = plan_now(s);
	return p ? bt_plan_task(p, id, NULL) : NULL;
}

static bool may_repeat(const struct sim *s, uint32_t id)
{
	const struct bt_task *t = hooks_task(s, id);
	return t && t->exec && t->exec->safe;
}

/* ── programs ── */

static void begin_program(struct sim *s, uint16_t h, struct task *t)
{
	struct program *p = &s->programs[t->c->key.task];
	if (p->attempt == t->c->key.attempt && !may_repeat(s, t->c->key.task))
		violated(s, "program of task %u runs twice in one attempt", t->c->key.task);
	*p = (struct program){
		.attempt = t->c->key.attempt, .host = h, .runs = p->runs + 1, .seen = true};
	p->good = !fault(s, s->odds.exec_fails, C_FAULT_EXEC_FAILED);
	p->ends_ms = s->now_ms + 10 + (int64_t)(draw(s, 7777 + t->c->key.task) % 20000);
	if (fault(s, s->odds.exec_hangs, C_FAULT_EXEC_HANGS)) {
		p->ends_ms = s->now_ms + t->c->wait_ms; /* its shim ends it */
		p->good = false;
	}
	if (s->bundle && t->c->kind == BT_TASK_LIFECYCLE)
		bundles_begins(s, h, t, p);
	trace(s, "world: program of task %u begins on %s", t->c->key.task, s->host_names[h]);
}

void hooks_program(struct sim *s, uint16_t h, struct task *t)
{
	struct program *p = &s->programs[t->c->key.task];
	bool begun = p->attempt == t->c->key.attempt;
	if (!begun && bundles_no_script(s, h, t))
		task_done(s, h, t, BT_OUTCOME_DONE, "no script");
	else if (t->anew || !begun) {
		t->anew = false;
		begin_program(s, h, t);
		task_effect(s, h);
		task_again(s, h, t, p->ends_ms);
	} else if (!p->seen && may_repeat(s, t->c->key.task)) {
		t->anew = true;
		task_again(s, h, t, s->now_ms + 1);
	} else if (!p->seen) {
		task_done(s, h, t, BT_OUTCOME_UNKNOWN, "nobody saw how it ended");
	} else if (s->now_ms < p->ends_ms) {
		task_again(s, h, t, p->ends_ms);
	} else {
		if (p->good)
			bundles_started(s, h, t);
		task_done(s, h, t, p->good ? BT_OUTCOME_DONE : BT_OUTCOME_FAILED,
			p->good ? NULL : "exit code 1");
	}
}

/* Nobody can tell whether a notice went out before a crash. One that may fail is no fault. */
void hooks_notice(struct sim *s, uint16_t h, struct task *t)
{
	uint32_t id = t->c->key.task;
	struct program *p = &s->programs[id];
	const struct bt_task *task = hooks_task(s, id);
	if (t->recovered) {
		task_done(s, h, t, BT_OUTCOME_UNKNOWN, "nobody knows whether it was sent");
		return;
	}
	if (p->attempt == t->c->key.attempt)
		violated(s, "the notice of task %u is sent twice in one attempt", id);
	p->attempt = t->c->key.attempt;
	task_effect(s, h);
	bool ignored = task && task->ignore;
	bool fails = ignored ? draw(s, 99999 + id) % 3 == 0 && !s->opt.calm
			     : fault(s, s->odds.exec_fails, C_FAULT_EXEC_FAILED);
	if (ignored && fails)
		counters[C_FAULT_NOTICE_FAILED]++;
	task_done(s, h, t, fails ? BT_OUTCOME_FAILED : BT_OUTCOME_DONE, fails ? "503" : NULL);
}

/* With the agent, what watches its programs may be killed, too. */
void hooks_agent_crashed(struct sim *s, uint16_t h)
{
	for (size_t i = 0; i < MAX_TASKS; i++) {
		struct program *p = &s->programs[i];
		if (p->runs && p->host == h && p->seen && p->ends_ms > s->now_ms &&
			fault(s, 150, C_FAULT_WATCHER_KILLED))
			p->seen = false;
	}
}

/* ── a person ── */

/* The same person on the same task has the same mind, also after a crash. */
bool hooks_answer(struct sim *s, enum bt_operator *ret)
{
	uint64_t mind = draw(s, 55555 + s->asking) % 10;
	if (!s->asking || mind == 0)
		return false; /* is away */
	*ret = mind == 1 ? BT_OP_REJECT : BT_OP_APPROVE;
	return true;
}

/* ── what must hold ── */

enum { SAID_SENT = 1, SAID_DONE, SAID_FAILED, SAID_SKIPPED };

static void check_before_switch(struct sim *s, const struct bt_record *r)
{
	const struct bt_plan *p = plan_now(s);
	for (size_t i = 0; p && i <= r->stage && i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++) {
			/* With `continue`, or where so many may fail, a lane that failed is left
			 * behind with its hooks. */
			if ((i == r->stage ||
				    s->service.deploy.on_failure == BT_ON_FAILURE_CONTINUE ||
				    p->stages[i].own_policy || p->stages[i].counted) &&
				(i != r->stage || k != r->lane))
				continue;
			const struct bt_lane *l = &p->stages[i].lanes[k];
			for (size_t j = 0; j < l->n_tasks; j++) {
				const struct bt_task *t = &l->tasks[j];
				if (i == r->stage && t->id >= r->command.key.task)
					break;
				uint8_t said = s->word[t->id];
				if (is_hook(t) && !p->stages[i].closing && said != SAID_DONE &&
					said != SAID_SKIPPED && !(said == SAID_FAILED && t->ignore))
					violated(s,
						"a switch comes before %s of task %u has succeeded",
						bt_task_info(t->kind)->name, t->id);
			}
		}
}

static void see_sent(struct sim *s, const struct bt_record *r)
{
	uint32_t id = r->command.key.task;
	const struct bt_plan *p = plan_now(s);
	if (r->command.kind == BT_TASK_SWITCH && r->command.key.verb == BT_DO && p &&
		p->purpose == BT_PLAN_DEPLOY)
		check_before_switch(s, r);
	if (r->command.kind == BT_TASK_WAIT) {
		s->word[id] = SAID_SENT;
		s->programs[id].ends_ms = r->at_ms + r->command.wait_ms;
	} else if (is_program(r->command.kind)) {
		/* A way back tries an event again that failed, and not one that nobody saw end. */
		bool again = p && p->purpose == BT_PLAN_ROLLBACK && s->failed_surely[id] &&
			     r->command.kind == BT_TASK_LIFECYCLE;
		if (r->command.key.attempt > 1 && !may_repeat(s, id) && !again &&
			s->resumed_at[id] == s->n_resumed)
			violated(s, "task %u is sent again, and nobody wanted it", id);
		s->resumed_at[id] = s->n_resumed;
		s->word[id] = SAID_SENT;
	} else if (r->command.kind == BT_TASK_APPROVE) {
		s->word[id] = SAID_SENT;
		s->asking = id;
		s->approved_at = s->n_approved;
		counters[C_HOOK_ASKED]++;
	}
}

static void see_result(struct sim *s, const struct bt_record *r)
{
	uint32_t id = r->result.key.task;
	bool good = r->result.outcome == BT_OUTCOME_DONE;
	s->word[id] = good ? SAID_DONE : SAID_FAILED;
	s->failed_surely[id] = r->result.outcome == BT_OUTCOME_FAILED;
	if (r->command.kind == BT_TASK_EXEC && good)
		counters[C_HOOK_RUN]++;
	if (r->command.kind == BT_TASK_WAIT) {
		counters[C_HOOK_WAITED]++;
		if (r->at_ms < s->programs[id].ends_ms)
			violated(s, "the wait of task %u is over %lld ms early", id,
				(long long)(s->programs[id].ends_ms - r->at_ms));
	}
	if (r->command.kind != BT_TASK_APPROVE)
		return;
	s->asking = 0;
	if (good && s->approved_at == s->n_approved)
		violated(s, "task %u counts as approved, and nobody did", id);
	if (!good)
		s->aborted = true; /* a person's word, or none: nothing went wrong */
	if (!good && bt_str_starts(r->result.detail, "nobody"))
		counters[C_HOOK_SILENCE]++;
}

void hooks_record(struct sim *s, const struct bt_record *r)
{
	const struct bt_task hook_of = {.kind = r->command.kind};
	bool hook = is_hook(&hook_of);
	if (r->kind == BT_RECORD_OPERATOR && r->op == BT_OP_APPROVE)
		s->n_approved++;
	else if (r->kind == BT_RECORD_OPERATOR &&
		 (r->op == BT_OP_RESUME || r->op == BT_OP_ROLLBACK))
		s->n_resumed++;
	else if (r->kind == BT_RECORD_SENT)
		see_sent(s, r);
	else if (r->kind == BT_RECORD_RESULT && hook)
		see_result(s, r);
	else if (r->kind == BT_RECORD_SKIPPED && hook) {
		const struct bt_task *t = hooks_task(s, r->command.key.task);
		counters[C_HOOK_IGNORED] += t && t->ignore && s->word[t->id] == SAID_FAILED;
		if (s->word[r->command.key.task] != SAID_FAILED) /* a closing one may be both */
			s->word[r->command.key.task] = SAID_SKIPPED;
		if (r->command.kind == BT_TASK_APPROVE)
			s->asking = 0;
	} else if (r->kind == BT_RECORD_PHASE && r->phase == BT_PHASE_CLOSING)
		counters[C_ENGINE_CLOSING]++;
}

/* Who wanted to be told of a failure was told, and nobody of a success. */
void hooks_end(struct sim *s, enum bt_end end)
{
	const struct bt_plan *p = plan_now(s);
	if (end == BT_END_PARKED || (s->purpose != BT_PLAN_DEPLOY && s->purpose != BT_PLAN_FLOW))
		return;
	for (size_t i = 0; p && i < p->n_stages; i++)
		for (size_t k = 0; p->stages[i].closing && k < p->stages[i].n_lanes; k++)
			for (size_t j = 0; j < p->stages[i].lanes[k].n_tasks; j++) {
				uint32_t id = p->stages[i].lanes[k].tasks[j].id;
				if (end == BT_END_DONE && s->word[id])
					violated(s, "done, and task %u for a failure ran", id);
				if (end != BT_END_DONE && !s->word[id])
					violated(s, "ended as %s without task %u", bt_end_name(end),
						id);
			}
}
