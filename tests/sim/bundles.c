/* CodeDeploy bundles. Their own scripts stop and start what runs on a host, Install puts files, and
 * nobody but the port and a file of what was installed last says what is there. Scripts live beside
 * the agent: what they do happens whether somebody watches or not, all of it or a part.
 *
 * What must hold besides what holds for everybody: a script stops nothing that gets requests;
 * ApplicationStart starts the revision that the run brings; files are not replaced beneath another
 * release that serves; as many hosts stay healthy as deploy.codedeploy says, but for those that
 * broke by themselves; and at the end what runs, what is installed and what is in rotation are one
 * revision. */
#include "sim.h"

#include "model/lifecycle.h"

#include <string.h>

enum { MIXED = 31, SCRIPT_LIMIT_MS = 300000 };

struct script { /* of an event, at work on a host */
	uint32_t task;
	enum bt_lifecycle event;
	uint16_t host;
	struct program *program; /* who waits for it; of an attempt that may be over */
	uint32_t attempt;
	uint32_t release; /* whose start it is */
	bool ended;	  /* by a person */
};

/* Of this run: a seed may have several. */
static uint64_t dice(const struct sim *s, uint64_t what)
{
	return draw(s, 90000 + 1000 * s->deployment + what) >> 7;
}

/* ── the service ── */

static void pick_config(struct sim *s)
{
	struct bt_codedeploy *c = &s->service.deploy.codedeploy;
	uint64_t d = draw(s, 901) >> 5;
	int64_t n = s->n_service_hosts;
	static const enum counter configs[] = {C_BUNDLE_ONE, C_BUNDLE_HALF, C_BUNDLE_ALL};
	bool bg = s->service.deploy.strategy == BT_STRATEGY_BLUE_GREEN;
	*c = (struct bt_codedeploy){.min_healthy = -1,
		.style = bg ? BT_CODEDEPLOY_BLUE_GREEN : BT_CODEDEPLOY_IN_PLACE,
		.ignore_stop_failures = d % 3 == 0};
	c->config = (enum bt_codedeploy_config)(d / 4 % 3);
	if (d / 16 % 5 == 0) {
		c->min_healthy = (int64_t)(d / 128 % (uint64_t)n);
		counters[C_BUNDLE_NUMBER]++;
	} else if (d / 16 % 5 == 1) {
		c->min_healthy = (int64_t)(d / 128 % (uint64_t)(n > 1 ? 100 * (n - 1) / n + 1 : 2));
		c->min_healthy_percent = true;
		counters[C_BUNDLE_PERCENT]++;
	} else {
		counters[configs[c->config]]++;
	}
	counters[bg ? C_BUNDLE_BLUE_GREEN : C_BUNDLE_IN_PLACE]++;
	counters[C_BUNDLE_SLOTS] += !bg && s->n_slots > 1;
	counters[C_BUNDLE_NO_BALANCER] += s->n_balancers == 0;
	s->restarts = d / 4096 % 3 == 0;
}

/* More hosts, which is what a bundle's config is about; balancers of their own come after them. */
static void more_hosts(struct sim *s, uint16_t n)
{
	static const char *const names[] = {"was1", "was2", "was3", "was4", "was5"};
	uint16_t extra = n > s->n_service_hosts ? n - s->n_service_hosts : 0;
	for (uint16_t h = s->n_hosts; extra && h-- > s->n_service_hosts;)
		s->host_names[h + extra] = s->host_names[h];
	for (uint16_t b = 0; extra && b < s->n_balancers; b++)
		if (s->balancers[b].host >= s->n_service_hosts)
			s->balancers[b].host += extra;
	for (uint16_t h = 0; h < s->n_service_hosts + extra; h++)
		s->host_names[h] = names[h];
	s->n_service_hosts += extra;
	s->n_hosts += extra;
	s->service.n_hosts = s->n_service_hosts;
}

void bundles_pick(struct sim *s)
{
	static const char *const slots[] = {"s1", "s2", "s3"};
	struct bt_service *v = &s->service;
	bool forced = s->opt.strategy >= BUNDLE_STRATEGY;
	bool bg = v->deploy.strategy == BT_STRATEGY_BLUE_GREEN;
	uint64_t d = draw(s, 900) >> 5;
	if (bg && !s->n_balancers)
		return; /* blue-green needs one */
	if (!forced && (s->opt.strategy >= 0 || s->opt.calm || d % 8))
		return;
	s->bundle = true;
	v->run.as = BT_RUNTIME_BUNDLE;
	v->run.stop = NULL;
	v->run.n_stop = 0;
	v->deploy.strategy = bg ? BT_STRATEGY_BLUE_GREEN : BT_STRATEGY_ROLLING;
	v->deploy.keep_warm_ms = 0;
	if (v->deploy.on_failure == BT_ON_FAILURE_CONTINUE)
		v->deploy.on_failure = d / 8 % 2 ? BT_ON_FAILURE_HALT : BT_ON_FAILURE_ROLLBACK;
	if (!bg)
		s->n_slots = d / 16 % 5 < 3 ? 1 : (uint16_t)(2 + d / 16 % 2);
	v->run.n_slots = s->n_slots;
	for (uint16_t k = 0; k < s->n_slots; k++)
		s->slots[k] = (struct bt_slot){slots[k], (uint16_t)(8081 + k), NULL, 0};
	if (!s->own_host)
		more_hosts(s, (uint16_t)(1 + d / 256 % MAX_BUNDLE_HOSTS));
	s->n_inst = s->n_service_hosts * s->n_slots;
	if (bg && v->nginx && s->n_service_hosts == 1 && !s->nginx.n_routes && d / 4096 % 2)
		s->nginx.form = BT_NGINX_SERVICE_PORT; /* has room for one address */
	pick_config(s);
}

/* ── the world before ── */

/* The host does not serve: down, out of rotation, or left by an install that was cut short. */
static void not_serving(struct sim *s, uint16_t h, uint64_t d)
{
	counters[C_BUNDLE_NOT_SERVING]++;
	for (uint16_t i = h * s->n_slots; i < (h + 1) * s->n_slots; i++) {
		bool dies = d % 4 == 3; /* and is still sent to */
		if (dies) {
			s->inst[i].app = APP_DEAD;
			s->inst[i].died = true;
			continue;
		}
		for (uint16_t b = 0; b < s->n_balancers; b++)
			s->balancers[b].in[i] = false;
		if (d % 4 != 1)
			s->inst[i] = (struct inst){.life = 1};
	}
	if (d % 4 == 2) {
		s->bundles[h].installing = s->bundles[h].files;
		s->bundles[h].files = MIXED;
		memset(s->bundles[h].cut_short, 1, sizeof s->bundles[h].cut_short);
	}
}

static void over_others(struct sim *s, uint64_t d)
{
	for (uint16_t i = 0; i < s->n_inst; i++)
		if (s->service.deploy.strategy != BT_STRATEGY_BLUE_GREEN ||
			i % s->n_slots == d % s->n_slots)
			place(s, i, FOREIGN, true);
	counters[C_BUNDLE_OVER_OTHERS]++;
}

void bundles_world(struct sim *s)
{
	bool first = true, bg = s->service.deploy.strategy == BT_STRATEGY_BLUE_GREEN;
	if (!s->bundle)
		return;
	for (uint16_t i = 0; i < s->n_inst; i++) {
		struct bundle *b = &s->bundles[i / s->n_slots];
		uint32_t release = s->inst[i].app ? s->inst[i].release : 0;
		b->last[i % s->n_slots] = release;
		b->started[i % s->n_slots] = true;
		if (release && (!b->files || world_in(s, i)))
			b->files = release;
		first = first && !release;
	}
	if (first && dice(s, 0) % 2 && !s->opt.calm)
		over_others(s, dice(s, 1));
	for (uint16_t h = 0; h < s->n_service_hosts && !bg && !first && !s->opt.calm; h++)
		if (dice(s, 2 + h) % 6 == 0)
			not_serving(s, h, dice(s, 2 + h) / 8);
}

static bool blue_green(const struct sim *s)
{
	return s->service.deploy.codedeploy.style == BT_CODEDEPLOY_BLUE_GREEN;
}

/* In place every slot of the host serves; blue-green, one of them. */
static bool healthy(const struct sim *s, uint16_t h)
{
	uint16_t n = 0;
	for (uint16_t i = h * s->n_slots; i < (h + 1) * s->n_slots; i++)
		n += s->inst[i].app == APP_HEALTHY && (!s->n_balancers || world_in(s, i));
	return n >= (blue_green(s) ? 1 : s->n_slots);
}

/* It broke by itself. */
static bool broke(const struct sim *s, uint16_t h)
{
	for (uint16_t i = h * s->n_slots; i < (h + 1) * s->n_slots; i++)
		if (s->inst[i].died || s->inst[i].release == FOREIGN)
			return true;
	return false;
}

void bundles_allow(struct sim *s)
{
	for (uint16_t i = 0; s->bundle && i < s->n_inst; i++)
		s->allowed |= 1u << s->bundles[i / s->n_slots].last[i % s->n_slots];
}

void bundles_remember(struct sim *s)
{
	s->n_healthy_at_start = 0;
	for (uint16_t h = 0; s->bundle && h < s->n_service_hosts; h++) {
		s->healthy_at_start[h] = healthy(s, h);
		s->n_healthy_at_start += healthy(s, h);
	}
	memcpy(s->bundles_at_start, s->bundles, sizeof s->bundles);
	memset(s->behind, 0, sizeof s->behind);
	counters[C_BUNDLE_ROLLBACK] += s->bundle && s->purpose == BT_PLAN_ROLLBACK;
}

/* ── what an agent sees ── */

/* What starts may listen before it answers, and what hangs listens on. */
bool bundles_listens(const struct sim *s, uint16_t inst, const struct inst *i)
{
	uint64_t d = draw(s, 7000000 + 100 * inst + i->life) >> 7;
	switch (i->app) {
	case APP_HEALTHY:
		return true;
	case APP_STARTING:
		return d % 4 == 0;
	case APP_DEAD:
		return d % 3 == 0;
	default:
		return false;
	}
}

uint32_t bundles_release(const struct bundle *b, uint16_t slot)
{
	bool cut_short = b->installing && b->installing != b->last[slot] && b->cut_short[slot];
	return cut_short || !b->started[slot] ? 0 : b->last[slot];
}

/* ── scripts ── */

static enum bt_lifecycle event_of(const struct sim *s, const struct task *t)
{
	const struct bt_task *task = hooks_task(s, t->c->key.task);
	return task && task->event ? bt_lifecycle_find(task->event) : BT_LIFECYCLES;
}

/* The last revision that was installed: of the slot, or of the host's first one. */
static uint32_t last_of(const struct sim *s, uint16_t h, const struct task *t)
{
	uint16_t k = t->c->instance == BT_NONE ? 0 : t->c->instance % s->n_slots;
	return s->bundles[h].last[k];
}

bool bundles_no_script(struct sim *s, uint16_t h, const struct task *t)
{
	enum bt_lifecycle e =
		s->bundle && t->c->kind == BT_TASK_LIFECYCLE ? event_of(s, t) : BT_LIFECYCLES;
	if (e == BT_LIFECYCLES)
		return false;
	bool none = bt_lifecycles[e].last && !last_of(s, h, t);
	if (e != BT_LIFE_APPLICATION_STOP && e != BT_LIFE_APPLICATION_START)
		none = none || draw(s, 950 + e) % 3 == 0;
	counters[C_BUNDLE_NO_SCRIPT] += none;
	return none;
}

/* Program of `t` begins: what it will do, and when. One that fails does a part of it. */
void bundles_begins(struct sim *s, uint16_t h, const struct task *t, struct program *p)
{
	struct script *script = BT_ARENA_NEW(s->arena, struct script);
	*script = (struct script){.task = t->c->key.task,
		.event = event_of(s, t),
		.host = h,
		.program = p,
		.attempt = t->c->key.attempt,
		.release = t->c->release};
	p->script = script;
	if (p->ends_ms > s->now_ms + SCRIPT_LIMIT_MS)
		p->ends_ms = s->now_ms + SCRIPT_LIMIT_MS;
	size_t n = t->c->n_out;
	if (!p->good)
		n = (size_t)between(s, 0, (int64_t)n);
	if (script->event == BT_LIFE_VALIDATE_SERVICE && p->ends_ms < s->now_ms + 5000)
		p->ends_ms = s->now_ms + 5000;
	if (script->event == BT_LIFE_APPLICATION_STOP ||
		script->event == BT_LIFE_APPLICATION_START) {
		counters[C_BUNDLE_HALF_DONE] += !p->good && n;
		for (size_t i = 0; i < n; i++)
			at(s, between(s, s->now_ms, p->ends_ms - 1), EV_SCRIPT, 0, h, t->c->out[i],
				script);
	} else if (script->event == BT_LIFE_VALIDATE_SERVICE && p->good) {
		for (size_t i = 0; i < n; i++)
			at(s, p->ends_ms - 1, EV_SCRIPT, 0, h, t->c->out[i], script);
	}
}

static void fails(struct sim *s, const struct script *x, const char *why)
{
	trace(s, "world: program of task %u: %s", x->task, why);
	s->faulted = true;
	if (x->program->attempt == x->attempt)
		x->program->good = false;
}

static void stops(struct sim *s, uint16_t i)
{
	if (s->inst[i].app == APP_ABSENT)
		return;
	counters[C_BUNDLE_STOPPED]++;
	world_stop(s, i);
}

static void starts(struct sim *s, const struct script *x, uint16_t i)
{
	const struct bundle *b = &s->bundles[x->host];
	if (b->files != x->release)
		violated(s, "ApplicationStart on %s finds release %u installed instead of %u",
			s->host_names[x->host], b->files, x->release);
	if (s->restarts)
		stops(s, i);
	if (s->inst[i].app != APP_ABSENT && s->inst[i].release == x->release &&
		s->inst[i].app != APP_DEAD)
		return; /* it says that it runs */
	if (s->inst[i].app != APP_ABSENT) {
		counters[C_BUNDLE_PORT_HELD]++;
		fails(s, x, "something else runs in the slot");
		return;
	}
	if (x->release == s->release && fault(s, s->odds.app_exits, C_FAULT_APP_EXITS)) {
		fails(s, x, "it exits at once");
		return;
	}
	counters[C_BUNDLE_STARTED]++;
	world_start(s, i, x->release);
}

void bundles_script(struct sim *s, void *script, uint16_t i)
{
	const struct script *x = script;
	if (x->ended || s->failed)
		return;
	if (x->event == BT_LIFE_APPLICATION_STOP)
		stops(s, i);
	else if (x->event == BT_LIFE_APPLICATION_START)
		starts(s, x, i);
	else if (s->inst[i].app != APP_HEALTHY)
		fails(s, x, "it does not answer");
	if (x->event != BT_LIFE_VALIDATE_SERVICE)
		task_effect(s, x->host);
}

void bundles_started(struct sim *s, uint16_t h, const struct task *t)
{
	for (size_t i = 0; s->bundle && i < t->c->n_out; i++)
		if (event_of(s, t) == BT_LIFE_APPLICATION_START)
			s->bundles[h].started[t->c->out[i] % s->n_slots] = true;
}

/* What nobody watched any more does not go on beside what a person wants next. */
void bundles_looked_after(struct sim *s)
{
	/* Nobody else can end what others started, and what no script of the bundle's knows. */
	bool back = s->n_plans || s->purpose == BT_PLAN_ROLLBACK;
	for (uint16_t i = 0; s->bundle && back && i < s->n_inst; i++)
		if (s->inst[i].release == FOREIGN && !world_in(s, i))
			s->inst[i] = (struct inst){.life = s->inst[i].life + 1};
	for (size_t i = 0; i < MAX_TASKS; i++)
		if (s->programs[i].script && !s->programs[i].seen)
			s->programs[i].script->ended = true;
}

/* ── Install ── */

static bool at_work(const struct sim *s, uint16_t h, const struct task *t)
{
	for (size_t i = 0; i < s->agents[h].n_tasks; i++)
		if (s->agents[h].tasks[i] == t)
			return t->halfway;
	return false;
}

static void check_beneath(struct sim *s, const struct task *t)
{
	for (size_t i = 0; i < t->c->n_out; i++) {
		uint16_t n = t->c->out[i];
		if (s->inst[n].app == APP_HEALTHY && world_in(s, n) &&
			s->inst[n].release != t->c->release && s->inst[n].release != FOREIGN)
			violated(s, "files of release %u are put beneath %s, which serves",
				t->c->release, world_name(s, n));
	}
}

static void installed(struct sim *s, uint16_t h, const struct task *t)
{
	struct bundle *b = &s->bundles[h];
	counters[C_BUNDLE_INSTALLED]++;
	b->installing = 0;
	b->files = t->c->release;
	b->at_ms = s->now_ms;
	for (size_t i = 0; i < t->c->n_out; i++) {
		uint16_t k = t->c->out[i] % s->n_slots;
		b->started[k] = b->started[k] && b->last[k] == t->c->release;
		b->last[k] = t->c->release;
	}
	trace(s, "world: release %u is installed on %s", t->c->release, s->host_names[h]);
}

void bundles_install(struct sim *s, uint16_t h, struct task *t)
{
	struct bundle *b = &s->bundles[h];
	if (!t->halfway) {
		if (fault(s, s->odds.disk_full, C_FAULT_INSTALL)) {
			task_done(s, h, t, BT_OUTCOME_FAILED, "a file of others is in the way");
			return;
		}
		if (!(s->disk[h] & 1u << t->c->release)) {
			task_done(s, h, t, BT_OUTCOME_FAILED, "the release is not on the disk");
			return;
		}
		if (b->by != t && at_work(s, h, b->by)) {
			s->faulted = true;
			task_done(s, h, t, BT_OUTCOME_FAILED, "another install is at work");
			return;
		}
		check_beneath(s, t);
		counters[C_BUNDLE_REINSTALLED] += t->recovered && b->installing;
		world_requests(s);
		b->by = t;
		b->installing = t->c->release;
		memset(b->cut_short, 0, sizeof b->cut_short);
		for (size_t i = 0; i < t->c->n_out; i++)
			b->cut_short[t->c->out[i] % s->n_slots] = true;
		b->files = MIXED;
		t->halfway = true;
		task_effect(s, h);
		task_again(s, h, t, s->now_ms + between(s, 10, 3000));
		return;
	}
	t->halfway = false;
	if (fault(s, s->odds.disk_full, C_FAULT_INSTALL)) {
		task_done(s, h, t, BT_OUTCOME_FAILED, "disk full");
		return;
	}
	installed(s, h, t);
	task_effect(s, h);
	bool late = fault(s, s->odds.limit, C_FAULT_LIMIT_AFTER);
	task_done(s, h, t, late ? BT_OUTCOME_UNKNOWN : BT_OUTCOME_DONE,
		late ? "not done within its limit" : NULL);
}

/* ── healthy hosts ── */

void bundles_healthy(const struct sim *s, bool *ret_by_host)
{
	for (uint16_t h = 0; s->bundle && h < s->n_service_hosts; h++)
		ret_by_host[h] = healthy(s, h);
}

/* M of docs/codedeploy.md, but never so many that not even one host could be taken. */
static int64_t must_stay(const struct sim *s, int64_t *ret_m)
{
	const struct bt_codedeploy *c = &s->service.deploy.codedeploy;
	int64_t n = s->n_service_hosts, m, at_a_time;
	if (c->min_healthy >= 0) {
		m = c->min_healthy_percent ? (n * c->min_healthy + 99) / 100 : c->min_healthy;
		at_a_time = n - m;
	} else if (c->config == BT_CODEDEPLOY_ALL_AT_ONCE) {
		m = 0;
		at_a_time = n;
	} else if (c->config == BT_CODEDEPLOY_HALF_AT_A_TIME) {
		m = (n + 1) / 2;
		at_a_time = n / 2 ? n / 2 : 1;
	} else {
		m = n - 1;
		at_a_time = 1;
	}
	*ret_m = m;
	return m < n - at_a_time ? m : n - at_a_time;
}

void bundles_took(struct sim *s, const bool *was)
{
	int64_t m, before = 0, after = 0, min;
	bool took = false;
	if (!s->bundle || s->bad_plan || s->outsider || (s->n_plans && !s->target))
		return; /* back to nothing nobody has to stay */
	min = must_stay(s, &m);
	if (blue_green(s))
		min = s->n_service_hosts;
	for (uint16_t h = 0; h < s->n_service_hosts; h++) {
		bool now = healthy(s, h);
		took = took || (was[h] && !now);
		before += was[h] || broke(s, h);
		after += now || broke(s, h);
	}
	if (blue_green(s) && before < min)
		min = before;
	if (s->n_healthy_at_start < min)
		min = s->n_healthy_at_start; /* an undo goes back to that */
	if (took && after < min)
		violated(s, "%lld hosts are healthy, at least %lld of %u have to be",
			(long long)after, (long long)min, s->n_service_hosts);
}

/* ── the end ── */

void bundles_record(struct sim *s, const struct bt_record *r)
{
	const struct bt_task *t =
		r->kind == BT_RECORD_SKIPPED ? hooks_task(s, r->command.key.task) : NULL;
	if (t && t->ignore && t->kind == BT_TASK_LIFECYCLE && s->failed_surely[t->id] &&
		s->word[t->id])
		counters[C_BUNDLE_STOP_IGNORED]++;
	if (r->kind != BT_RECORD_LANE_FAILED || s->n_plans)
		return;
	const struct bt_stage *stage = &s->flow_plan->stages[r->stage];
	uint16_t h = stage->lanes[r->lane].tasks[0].host;
	if (h < s->n_service_hosts)
		s->behind[h] = true;
}

static bool lives(const struct inst *i)
{
	return i->app == APP_HEALTHY || i->died;
}

/* What runs, what is installed and what is in rotation: all of `release`. */
static void check_host(struct sim *s, uint16_t h, uint32_t release, const char *what)
{
	const struct bundle *b = &s->bundles[h];
	uint16_t in = 0;
	for (uint16_t i = h * s->n_slots; i < (h + 1) * s->n_slots; i++) {
		bool serves = s->n_balancers ? world_in(s, i) : true;
		for (uint16_t k = 0; k < s->n_balancers && !s->own_host; k++)
			serves = serves && s->balancers[k].in[i];
		if (s->inst[i].release == FOREIGN)
			return; /* swapped by hand: nobody can tell */
		in += serves;
		if (!serves && !blue_green(s))
			violated(s, "%s, and %s is out of rotation", what, world_name(s, i));
		if (serves && (!lives(&s->inst[i]) || s->inst[i].release != release))
			violated(s, "%s, and %s runs release %u (%d)", what, world_name(s, i),
				s->inst[i].release, (int)s->inst[i].app);
		if (serves && b->last[i % s->n_slots] != release)
			violated(s, "%s, and release %u counts as installed for %s", what,
				b->last[i % s->n_slots], world_name(s, i));
	}
	if (in != (blue_green(s) ? 1 : s->n_slots))
		violated(s, "%s, and %u slots of %s serve", what, in, s->host_names[h]);
	if (b->files != release || b->installing)
		violated(s, "%s, and the files on %s are of release %u", what, s->host_names[h],
			b->files);
}

/* Whoever stayed behind gets no requests, or serves what it did. */
static void check_behind(struct sim *s, uint16_t h)
{
	for (uint16_t i = h * s->n_slots; i < (h + 1) * s->n_slots; i++)
		if (world_in(s, i) && s->inst[i].release != s->at_start[i].release && !s->outsider)
			violated(s, "%s stayed behind and is in rotation with release %u",
				world_name(s, i), s->inst[i].release);
}

void bundles_done(struct sim *s, bool behind)
{
	int64_t m, n = 0;
	must_stay(s, &m);
	if (s->bad_plan && blue_green(s))
		return;
	for (uint16_t h = 0; h < s->n_service_hosts; h++) {
		if (s->behind[h] && behind) {
			check_behind(s, h);
			continue;
		}
		n++;
		check_host(s, h, s->release, "done");
	}
	if (n < m || n < 1)
		violated(s, "done, and %lld of %u hosts have it, which is too few", (long long)n,
			s->n_service_hosts);
	counters[behind ? C_BUNDLE_BEHIND : C_BUNDLE_DONE]++;
}

/* Back to nothing: what was installed is stopped, what others started is as it was. */
static void check_nothing(struct sim *s)
{
	counters[C_BUNDLE_TO_NOTHING]++;
	for (uint16_t i = 0; i < s->n_inst && !s->outsider; i++) {
		const struct inst *now = &s->inst[i], *was = &s->at_start[i];
		bool same = now->release == was->release && now->life == was->life;
		if (now->app != APP_ABSENT && !same &&
			!s->service.deploy.codedeploy.ignore_stop_failures)
			violated(s, "back to nothing, and %s runs release %u", world_name(s, i),
				now->release);
		if (world_in(s, i) && !same)
			violated(s, "back to nothing, and %s is in rotation", world_name(s, i));
		if (same && was->app == APP_HEALTHY && world_was_in(s, i) && !world_in(s, i) &&
			!s->bundles[i / s->n_slots].last[i % s->n_slots])
			violated(s, "back to what others started, and %s is out of rotation",
				world_name(s, i));
	}
}

void bundles_rolled_back(struct sim *s)
{
	if (!s->target) {
		check_nothing(s);
		return;
	}
	counters[C_BUNDLE_BACK]++;
	for (uint16_t h = 0; h < s->n_service_hosts; h++)
		check_host(s, h, s->target, "rolled back");
}

void bundles_as_before(struct sim *s)
{
	counters[C_BUNDLE_UNTOUCHED]++;
	for (uint16_t h = 0; h < s->n_service_hosts; h++) {
		const struct bundle *now = &s->bundles[h], *was = &s->bundles_at_start[h];
		if (now->files != was->files || now->installing != was->installing ||
			memcmp(now->last, was->last, sizeof now->last) != 0)
			violated(s, "undone, and release %u is installed on %s instead of %u",
				now->files, s->host_names[h], was->files);
	}
}
