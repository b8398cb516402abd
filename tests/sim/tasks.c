/* What tasks do to the world, as drivers do it: `begun` with the prior state, the effect (which is
 * done once whatever was there), `done`. */
#include "sim.h"

#include <string.h>

struct bt_prior task_observe(struct sim *s, const struct bt_command *c)
{
	struct bt_prior p = {.known = true};
	if (c->instance != BT_NONE) {
		const struct inst *i = &s->inst[c->instance];
		p.running = i->app != APP_ABSENT && !i->foreign;
		p.release = p.running ? i->release : 0;
		if (s->bundle) {
			p.running = bundles_listens(s, c->instance, i);
			p.release = p.running ? bundles_release(&s->bundles[c->host],
							c->instance % s->n_slots)
					      : 0;
		}
	}
	bool loopback = c->kind == BT_TASK_LOOPBACK_STOP || c->kind == BT_TASK_LOOPBACK_START;
	p.present = loopback ? s->vip[c->host] : s->disk[c->host] & 1u << c->release;
	p.generation = s->balancers[c->balancer == BT_NONE ? 0 : c->balancer].generation;
	return p;
}

static int64_t duration(struct sim *s, const struct bt_command *c)
{
	switch (c->kind) {
	case BT_TASK_COMPONENT_DEPLOY:
		return between(s, 100, 4000);
	case BT_TASK_SWITCH:
		return between(s, 50, 400);
	default:
		return between(s, 1, 60);
	}
}

void task_again(struct sim *s, uint16_t h, struct task *t, int64_t at_ms)
{
	at(s, at_ms, EV_TASK, t->stamp, h, 0, t);
}

void task_done(struct sim *s, uint16_t h, struct task *t, enum bt_outcome o, const char *detail)
{
	bool undoable = bt_task_info(t->c->kind)->has_undo;
	if (o == BT_OUTCOME_DONE && undoable && fault(s, s->odds.limit, C_FAULT_LIMIT_AFTER)) {
		o = BT_OUTCOME_UNKNOWN;
		detail = "not done within its limit";
	}
	t->result.key = t->c->key;
	t->result.token = t->c->token;
	t->result.outcome = o;
	t->result.prior = t->prior;
	t->result.detail = detail;
	t->step = STEP_FINISH;
	trace(s, "agent of %s: %s %s %u/%u: %s %s", s->host_names[h], bt_verb_name(t->c->key.verb),
		bt_task_info(t->c->kind)->name, t->c->key.task, t->c->key.attempt,
		bt_outcome_name(o), detail ? detail : "");
	struct line l = {.e = {.kind = BT_LEDGER_DONE, .key = t->c->key, .result = t->result},
		.then = t,
		.seen = t->seen};
	agent_write(s, h, &l);
}

/* After an effect on the world: the place where the crash tests strike. */
void task_effect(struct sim *s, uint16_t h)
{
	if (s->storm && chance(s, s->odds.agent_crash * 3))
		at(s, s->now_ms, EV_CRASH_AGENT, 0, h, 0, NULL);
	if ((int64_t)s->n_effects++ != s->opt.crash_after)
		return;
	if (s->opt.crash_who & 2)
		at(s, s->now_ms, EV_CRASH_AGENT, 0, h, 1, NULL);
	if (s->opt.crash_who & 1)
		at(s, s->now_ms, EV_CRASH_SERVER, 0, 0, 1, NULL);
}

static void start(struct sim *s, uint16_t h, struct task *t, uint32_t release)
{
	uint16_t i = t->c->instance;
	struct inst *in = &s->inst[i];
	if (in->app != APP_ABSENT) {
		if (in->release == release && !in->foreign)
			task_done(s, h, t, BT_OUTCOME_DONE, "it runs");
		else
			task_done(s, h, t, BT_OUTCOME_FAILED, "something else runs in the slot");
		return;
	}
	if (!(s->disk[h] & 1u << release)) {
		task_done(s, h, t, BT_OUTCOME_FAILED, "the release is not on the disk");
		return;
	}
	if (release == s->release && fault(s, s->odds.app_exits, C_FAULT_APP_EXITS)) {
		task_done(s, h, t, BT_OUTCOME_FAILED, "exit code 1");
		return;
	}
	world_start(s, i, release);
	task_effect(s, h);
	bool half = fault(s, s->odds.half, C_FAULT_HALF);
	task_done(s, h, t, half ? BT_OUTCOME_FAILED : BT_OUTCOME_DONE, half ? "no answer" : NULL);
}

/* Health now, or look again; FAILED at the deadline. */
static void health(struct sim *s, uint16_t h, struct task *t, const struct inst *in, int64_t within)
{
	int64_t deadline = t->started_ms + within;
	if (in->app == APP_HEALTHY)
		task_done(s, h, t, BT_OUTCOME_DONE, NULL);
	else if (s->now_ms >= deadline || in->app == APP_ABSENT)
		task_done(s, h, t, BT_OUTCOME_FAILED, "never healthy");
	else if (in->healthy_ms > s->now_ms && in->healthy_ms < deadline)
		task_again(s, h, t, in->healthy_ms + 1);
	else
		task_again(s, h, t, deadline);
}

static void stop(struct sim *s, uint16_t h, struct task *t)
{
	const struct inst *in = &s->inst[t->c->instance];
	if (in->app != APP_ABSENT && !in->foreign) {
		world_stop(s, t->c->instance);
		task_effect(s, h);
		if (t->c->key.verb == BT_DO && fault(s, s->odds.half, C_FAULT_HALF)) {
			task_done(s, h, t, BT_OUTCOME_FAILED, "its port is held");
			return;
		}
	}
	task_done(s, h, t, BT_OUTCOME_DONE, NULL);
}

static void undo_stop(struct sim *s, uint16_t h, struct task *t)
{
	const struct inst *in = &s->inst[t->c->instance];
	struct bt_prior p = t->prior;
	if (!p.running || !p.known) {
		task_done(s, h, t, BT_OUTCOME_DONE, "nothing ran before");
		return;
	}
	if (in->app == APP_ABSENT) {
		world_start(s, t->c->instance, p.release);
		task_effect(s, h);
	}
	if (in->release != p.release)
		task_done(s, h, t, BT_OUTCOME_FAILED, "something else runs in the slot");
	else
		health(s, h, t, in, 60000);
}

static void adopt(struct sim *s, uint16_t h, struct task *t)
{
	struct inst *in = &s->inst[t->c->instance];
	bool undo = t->c->key.verb == BT_UNDO;
	if (undo && in->adopted && !t->prior.running) {
		in->adopted = false;
		in->foreign = true;
		if (BT_BUG(ADOPTION_STOPS))
			world_stop(s, t->c->instance);
		task_effect(s, h);
	} else if (!undo && in->foreign && in->app == APP_HEALTHY && !BT_BUG(ADOPTION_FORGOTTEN)) {
		in->foreign = false;
		in->adopted = true;
		s->disk[h] |= 1u << t->c->release;
		task_effect(s, h);
	}
	bool there = undo || in->adopted || BT_BUG(ADOPTION_FORGOTTEN);
	task_done(s, h, t, there ? BT_OUTCOME_DONE : BT_OUTCOME_FAILED,
		there ? NULL : "nothing of others listens there");
}

static void undo_start(struct sim *s, uint16_t h, struct task *t)
{
	const struct inst *in = &s->inst[t->c->instance];
	if (t->prior.known && t->prior.running && t->prior.release == in->release)
		task_done(s, h, t, BT_OUTCOME_DONE, "it ran before");
	else
		stop(s, h, t);
}

static void component(struct sim *s, uint16_t h, struct task *t)
{
	uint32_t bit = 1u << t->c->release;
	if (t->c->key.verb == BT_UNDO) {
		if (t->prior.known && !t->prior.present)
			s->disk[h] &= ~bit;
		task_effect(s, h);
		task_done(s, h, t, BT_OUTCOME_DONE, NULL);
		return;
	}
	if (!(s->disk[h] & bit) && fault(s, s->odds.disk_full, C_FAULT_DISK_FULL)) {
		task_done(s, h, t, BT_OUTCOME_FAILED, "disk full");
		return;
	}
	s->disk[h] |= bit;
	task_effect(s, h);
	task_done(s, h, t, BT_OUTCOME_DONE, NULL);
}

static void loopback(struct sim *s, uint16_t h, struct task *t)
{
	bool on = t->c->kind == BT_TASK_LOOPBACK_START;
	if (t->c->key.verb == BT_UNDO)
		on = BT_BUG(VIP_PRIOR_FORGOTTEN) ? !on : t->prior.present;
	world_vip(s, h, on);
	/* An undo goes back to what was, also where that was wrong. */
	if (t->c->key.verb == BT_UNDO && !on && !s->vip_at_start[h])
		s->vip_excused[h] = world_host_was_in(s, h);
	task_effect(s, h);
	bool half = t->c->key.verb == BT_DO && fault(s, s->odds.half, C_FAULT_HALF);
	task_done(s, h, t, half ? BT_OUTCOME_FAILED : BT_OUTCOME_DONE, half ? "no answer" : NULL);
}

static void backend(struct sim *s, uint16_t h, struct task *t)
{
	for (size_t i = 0; i < t->c->n_pool; i++)
		if (s->inst[t->c->pool[i]].app != APP_HEALTHY) {
			task_done(s, h, t, BT_OUTCOME_FAILED, "a backend does not answer");
			return;
		}
	task_done(s, h, t, BT_OUTCOME_DONE, NULL);
}

static void switch_pool(struct sim *s, uint16_t h, struct task *t)
{
	const struct bt_command *c = t->c;
	bool in[MAX_INST] = {0};
	for (size_t i = 0; i < c->n_pool; i++)
		in[c->pool[i]] = true;
	const struct balancer *b = &s->balancers[c->balancer];
	if (c->generation <= b->generation) {
		bool same = !memcmp(in, b->in, sizeof in);
		task_done(s, h, t, same ? BT_OUTCOME_DONE : BT_OUTCOME_REFUSED,
			same ? NULL : "a newer generation is there");
		return;
	}
	if (s->nginx.form != BT_NGINX_UPSTREAM && c->n_pool > 1) {
		s->faulted = true;
		task_done(s, h, t, BT_OUTCOME_FAILED, "there is room for one address");
		return;
	}
	if (fault(s, s->odds.switch_refused, C_FAULT_SWITCH_REFUSED)) {
		task_done(s, h, t, BT_OUTCOME_FAILED, "configuration test failed");
		return;
	}
	world_pool(s, c->balancer, in, c->one, c->generation);
	task_effect(s, h);
	task_done(s, h, t, BT_OUTCOME_DONE, NULL);
}

static void drain(struct sim *s, uint16_t h, struct task *t)
{
	int64_t free_ms = s->now_ms, deadline = t->started_ms + t->c->wait_ms;
	for (size_t i = 0; i < t->c->n_out; i++) {
		const struct inst *in = &s->inst[t->c->out[i]];
		int64_t busy_ms = in->busy_until_ms[t->c->balancer];
		if (in->app == APP_HEALTHY && busy_ms > free_ms)
			free_ms = busy_ms;
	}
	if (free_ms <= s->now_ms) {
		t->result.drained = true;
		task_done(s, h, t, BT_OUTCOME_DONE, NULL);
	} else if (s->now_ms >= deadline) {
		counters[C_FAULT_DRAIN_LATE]++;
		s->faulted = true;
		for (size_t i = 0; i < t->c->n_out; i++)
			s->inst[t->c->out[i]].cut_allowed[t->c->balancer] =
				!s->balancers[t->c->balancer].in[t->c->out[i]];
		task_done(s, h, t, BT_OUTCOME_DONE, DRAIN_RAN_OUT);
	} else {
		task_again(s, h, t, free_ms < deadline ? free_ms : deadline);
	}
}

static void bake(struct sim *s, uint16_t h, struct task *t)
{
	if (s->now_ms < t->started_ms + t->c->wait_ms) {
		task_again(s, h, t, t->started_ms + t->c->wait_ms);
		return;
	}
	bool bad = t->c->instance != BT_NONE && s->inst[t->c->instance].app != APP_HEALTHY;
	if (fault(s, s->odds.bake_fails, C_FAULT_BAKE_FAILED))
		bad = true;
	task_done(s, h, t, bad ? BT_OUTCOME_FAILED : BT_OUTCOME_DONE, bad ? "errors" : NULL);
}

static void observe(struct sim *s, uint16_t h, struct task *t)
{
	t->seen = BT_ARENA_NEW(s->arena, struct snapshot);
	world_snapshot(s, h, t->seen);
	task_done(s, h, t, BT_OUTCOME_DONE, NULL);
}

static void act(struct sim *s, uint16_t h, struct task *t)
{
	bool undo = t->c->key.verb == BT_UNDO;
	if (bt_task_info(t->c->kind)->has_undo && fault(s, s->odds.limit, C_FAULT_LIMIT_BEFORE)) {
		task_done(s, h, t, BT_OUTCOME_UNKNOWN, "not begun within its limit");
		return;
	}
	switch (t->c->kind) {
	case BT_TASK_OBSERVE:
		observe(s, h, t);
		break;
	case BT_TASK_COMPONENT_DEPLOY:
		component(s, h, t);
		break;
	case BT_TASK_INSTANCE_START:
		if (undo)
			undo_start(s, h, t);
		else
			start(s, h, t, t->c->release);
		break;
	case BT_TASK_INSTANCE_STOP:
		if (undo)
			undo_stop(s, h, t);
		else
			stop(s, h, t);
		break;
	case BT_TASK_ADOPT:
		adopt(s, h, t);
		break;
	case BT_TASK_HEALTH_CHECK:
		health(s, h, t, &s->inst[t->c->instance], t->c->timeout_ms - 20000);
		break;
	case BT_TASK_BACKEND_CHECK:
		backend(s, h, t);
		break;
	case BT_TASK_SWITCH:
		switch_pool(s, h, t);
		break;
	case BT_TASK_DRAIN:
		drain(s, h, t);
		break;
	case BT_TASK_BAKE:
		bake(s, h, t);
		break;
	case BT_TASK_LOOPBACK_STOP:
	case BT_TASK_LOOPBACK_START:
		loopback(s, h, t);
		break;
	case BT_TASK_NOTIFY:
		hooks_notice(s, h, t);
		break;
	case BT_TASK_INSTALL:
		bundles_install(s, h, t);
		break;
	case BT_TASK_EXEC:
	case BT_TASK_LIFECYCLE:
		hooks_program(s, h, t);
		break;
	default:
		task_done(s, h, t, BT_OUTCOME_DONE, NULL);
		break;
	}
}

/* A command without its prior (its result never came): the ledger of the DO has it. Where the DO
 * was never begun there is nothing to undo. */
static bool undo_prior(struct sim *s, uint16_t h, struct task *t)
{
	if (t->c->prior.known)
		t->prior = t->c->prior;
	else if (!bt_ledger_prior(
			 s->agents[h].ledger, t->c->key.deployment, t->c->key.task, &t->prior))
		return false;
	return true;
}

void task_go(struct sim *s, uint16_t h, struct task *t)
{
	if (!t->live || s->failed)
		return;
	if (t->step == STEP_BEGIN) {
		bool undo = t->c->key.verb == BT_UNDO;
		if (bt_ledger_result(s->agents[h].ledger, &t->c->key))
			violated(s, "%s of task %u runs again though it is done",
				bt_verb_name(t->c->key.verb), t->c->key.task);
		t->started_ms = s->now_ms;
		if (undo && !undo_prior(s, h, t) && t->c->kind != BT_TASK_SWITCH) {
			task_done(s, h, t, BT_OUTCOME_DONE, "it was never begun");
			return;
		}
		if (!undo && !(t->recovered && t->prior.known))
			t->prior = task_observe(s, t->c);
		struct line l = {
			.e = {.kind = BT_LEDGER_BEGUN, .key = t->c->key, .prior = t->prior},
			.then = t};
		agent_write(s, h, &l);
	} else if (t->step == STEP_BEGUN) {
		t->step = STEP_EFFECT;
		task_again(s, h, t, s->now_ms + duration(s, t->c));
	} else if (t->step == STEP_EFFECT) {
		struct bt_prior p;
		if (t->c->key.verb == BT_DO && !bt_ledger_prior(s->agents[h].ledger,
						       t->c->key.deployment, t->c->key.task, &p))
			violated(s, "task %u takes effect before it is durably begun",
				t->c->key.task);
		act(s, h, t);
	}
}
