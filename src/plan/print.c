/* A plan for people: numbered stages, a line per task, lane names in one column, reasons behind. */
#include "plan/plan.h"

#include "base/str.h"

#include <string.h>

enum { LANE_MAX = 32, WORDS_MAX = 72, COMMAND_MAX = 60 };

static void instance_name(const struct bt_plan *p, uint16_t i, struct bt_str *out)
{
	const struct bt_plan_instance *in = &p->instances[i];
	bt_str_addf(out, "%s/%s", p->hosts[in->host], in->slot);
}

static void instance_names(
	const struct bt_plan *p, const uint16_t *list, size_t n, struct bt_str *out)
{
	for (size_t i = 0; i < n; i++) {
		if (i)
			bt_str_add(out, i + 1 == n ? " and " : ", ");
		instance_name(p, list[i], out);
	}
}

static const char *version(const struct bt_plan *p, uint32_t release)
{
	const struct bt_plan_release *r = bt_plan_release(p, release);
	return r ? r->version : "?";
}

static void duration(struct bt_str *out, int64_t ms)
{
	char text[32];
	bt_str_add(out, bt_duration_format(ms, text));
}

static void switch_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(out, "switch %s ", p->balancers[t->balancer].name);
	if (p->n_balancers > 1)
		bt_str_addf(out, "on %s ", p->hosts[t->host]);
	if (t->n_in) {
		bt_str_add(out, t->n_out ? "to " : "to include ");
		instance_names(p, t->in, t->n_in, out);
	}
	if (t->n_out) {
		bt_str_add(out, t->n_in ? ", away from " : "away from ");
		instance_names(p, t->out, t->n_out, out);
	}
}

static void start_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(out, "start %s %s in ", p->service, version(p, t->release));
	instance_name(p, t->instance, out);
	bt_str_addf(out, " (port %u)", p->instances[t->instance].port);
}

static void stop_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	uint32_t release = p->instances[t->instance].expect_release;
	if (release)
		bt_str_addf(out, "stop %s %s in ", p->service, version(p, release));
	else
		bt_str_add(out, "stop what runs in ");
	instance_name(p, t->instance, out);
}

static void health_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_add(out, "wait until ");
	instance_name(p, t->instance, out);
	bt_str_add(out, " is healthy");
}

static void backend_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_add(out, "check ");
	instance_names(p, t->in, t->n_in, out);
	bt_str_addf(out, " from %s", p->hosts[t->host]);
}

static void drain_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_add(out, "wait until nothing is connected to ");
	instance_names(p, t->out, t->n_out, out);
	if (p->n_balancers > 1)
		bt_str_addf(out, " from %s", p->hosts[t->host]);
	bt_str_add(out, ", at most ");
	duration(out, t->wait_ms);
}

static void bake_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_add(out, "watch ");
	if (t->instance != BT_NONE) {
		bt_str_add(out, "the health of ");
		instance_name(p, t->instance, out);
	} else
		bt_str_addf(out, "the answers of %s%s%s", p->balancers[t->balancer].name,
			p->n_balancers > 1 ? " on " : "",
			p->n_balancers > 1 ? p->hosts[t->host] : "");
	bt_str_add(out, " for ");
	duration(out, t->wait_ms);
}

static void component_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(out, "put %s %s on %s", p->service, version(p, t->release), p->hosts[t->host]);
}

static void observe_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(out, "look at what runs on %s", p->hosts[t->host]);
}

static void prune_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(out, "remove old releases of %s from %s", p->service, p->hosts[t->host]);
}

static void adopt_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_add(out, "take over what serves in ");
	instance_name(p, t->instance, out);
	bt_str_addf(out, " as %s", version(p, t->release));
}

static void exec_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	BT_STR struct bt_str line = {0};
	for (size_t i = 0; t->exec && i < t->exec->n_run; i++)
		bt_str_addf(&line, "%s%s", i ? " " : "", t->exec->run[i]);
	bool cut = line.len > COMMAND_MAX;
	bt_str_addf(out, "run %.*s%s %s ", cut ? COMMAND_MAX : (int)line.len, bt_str_get(&line),
		cut ? "…" : "", t->instance == BT_NONE ? "on" : "for");
	if (t->instance == BT_NONE)
		bt_str_add(out, p->hosts[t->host]);
	else
		instance_name(p, t->instance, out);
	bt_str_add(out, ", at most ");
	duration(out, t->wait_ms);
}

static void approve_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	(void)p;
	bt_str_add(out, "wait until a person approves, at most ");
	duration(out, t->wait_ms);
}

static void loopback_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bool on = t->kind == BT_TASK_LOOPBACK_START;
	bt_str_addf(out, "%s %s's address %s the loopback of %s", on ? "put" : "take", p->service,
		on ? "on" : "off", p->hosts[t->host]);
}

static void wait_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	(void)p;
	bt_str_add(out, "wait ");
	duration(out, t->wait_ms);
}

static void notify_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(out, "tell %s, from %s", t->to ? t->to : "?", p->hosts[t->host]);
}

static void lifecycle_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(
		out, "run the scripts of %s on %s", t->event ? t->event : "?", p->hosts[t->host]);
}

static void install_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	bt_str_addf(out, "install the files of %s %s on %s", p->service, version(p, t->release),
		p->hosts[t->host]);
}

static void (*const words[BT_TASK_KINDS])(
	const struct bt_plan *, const struct bt_task *, struct bt_str *) = {
	[BT_TASK_OBSERVE] = observe_words,
	[BT_TASK_COMPONENT_DEPLOY] = component_words,
	[BT_TASK_INSTANCE_START] = start_words,
	[BT_TASK_INSTANCE_STOP] = stop_words,
	[BT_TASK_HEALTH_CHECK] = health_words,
	[BT_TASK_BACKEND_CHECK] = backend_words,
	[BT_TASK_SWITCH] = switch_words,
	[BT_TASK_DRAIN] = drain_words,
	[BT_TASK_BAKE] = bake_words,
	[BT_TASK_PRUNE] = prune_words,
	[BT_TASK_ADOPT] = adopt_words,
	[BT_TASK_EXEC] = exec_words,
	[BT_TASK_APPROVE] = approve_words,
	[BT_TASK_LOOPBACK_STOP] = loopback_words,
	[BT_TASK_LOOPBACK_START] = loopback_words,
	[BT_TASK_WAIT] = wait_words,
	[BT_TASK_NOTIFY] = notify_words,
	[BT_TASK_LIFECYCLE] = lifecycle_words,
	[BT_TASK_INSTALL] = install_words,
};

void bt_plan_task_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out)
{
	words[t->kind](p, t, out);
}

static void pad(struct bt_str *out, size_t from, size_t width)
{
	while (out->len - from < width)
		bt_str_addc(out, ' ');
}

/* Reasons are said once; NULL where the task's was. `said` holds those so far, one a line. */
static const char *fresh_reason(const struct bt_task *t, struct bt_str *said)
{
	if (!t->why)
		return NULL;
	BT_FREE char *line = bt_asprintf("\n%s\n", t->why);
	if (strstr(bt_str_get(said), line))
		return NULL;
	bt_str_add(said, line);
	return t->why;
}

struct layout {
	size_t lane, step, words; /* widths; step 0: no task is part of one */
	struct bt_str said;
};

static void print_lane(
	const struct bt_plan *p, const struct bt_lane *lane, struct layout *l, struct bt_str *out)
{
	for (size_t i = 0; i < lane->n_tasks; i++) {
		const struct bt_task *t = &lane->tasks[i];
		size_t from = out->len;
		const char *why = fresh_reason(t, &l->said);
		size_t at = 5 + l->lane + 2;
		bool same = i > 0 && t->step && bt_streq(t->step, lane->tasks[i - 1].step);
		bt_str_addf(out, "     %s", i == 0 ? lane->name : "");
		pad(out, from, at);
		if (l->step) {
			bt_str_add(out, t->step && !same ? t->step : "");
			pad(out, from, at += l->step + 2);
		}
		if (t->skip)
			bt_str_addf(out, "(skipped: %s)", t->skip);
		else
			bt_plan_task_words(p, t, out);
		if (why && !t->skip) {
			pad(out, from, at + l->words);
			bt_str_addf(out, "  # %s", why);
		}
		bt_str_addc(out, '\n');
	}
}

/* Long lines are left to stick out rather than to push all reasons off the screen. */
static struct layout lay_out(const struct bt_plan *p)
{
	struct layout l = {.lane = 4};
	BT_STR struct bt_str text = {0};
	for (size_t s = 0; s < p->n_stages; s++)
		for (size_t i = 0; i < p->stages[s].n_lanes; i++) {
			const struct bt_lane *lane = &p->stages[s].lanes[i];
			size_t n = strlen(lane->name);
			if (n > l.lane && n <= LANE_MAX)
				l.lane = n;
			for (size_t t = 0; t < lane->n_tasks; t++) {
				const char *step = lane->tasks[t].step;
				if (step && strlen(step) > l.step)
					l.step = strlen(step);
				bt_str_reset(&text);
				if (lane->tasks[t].skip)
					continue;
				bt_plan_task_words(p, &lane->tasks[t], &text);
				if (text.len > l.words && text.len <= WORDS_MAX)
					l.words = text.len;
			}
		}
	return l;
}

static void print_head(const struct bt_plan *p, struct bt_str *out)
{
	const char *strategy = p->flow ? p->flow : bt_enum_name(&bt_enum_strategy, p->strategy);
	if (p->purpose == BT_PLAN_RETIRE)
		bt_str_addf(out, "retire what no longer serves of %s", p->service);
	else if (p->purpose == BT_PLAN_PRUNE)
		bt_str_addf(out, "remove what is no longer kept of %s", p->service);
	else if (p->purpose == BT_PLAN_ADOPT)
		bt_str_addf(
			out, "adopt what serves of %s as %s", p->service, version(p, p->release));
	else if (p->purpose == BT_PLAN_FLOW)
		bt_str_addf(out, "run %s for %s", strategy, p->service);
	else if (p->purpose == BT_PLAN_ROLLBACK && p->flow)
		bt_str_addf(out, "take back what %s did to %s", p->flow, p->service);
	else if (p->release)
		bt_str_addf(out, "%s %s %s (%s)",
			p->purpose == BT_PLAN_DEPLOY ? "deploy" : "roll back to", p->service,
			version(p, p->release), strategy);
	else
		bt_str_addf(out, "roll back %s to nothing (%s)", p->service, strategy);
	bool replaces =
		p->purpose != BT_PLAN_FLOW && !bt_plan_only_cleans(p->purpose) &&
		!(p->purpose == BT_PLAN_ROLLBACK && (p->flow || p->old_release == p->release));
	if (p->old_release && replaces)
		bt_str_addf(out, ", %s %s",
			p->old_release == p->release ? "starting anew" : "in place of",
			version(p, p->old_release));
	bt_str_addc(out, '\n');
}

static void print_on_failure(enum bt_failure_policy policy, int64_t continue_n, struct bt_str *out)
{
	bt_str_addf(out, "on failure: %s", bt_enum_name(&bt_enum_failure_policy, policy));
	if (policy == BT_ON_FAILURE_CONTINUE)
		bt_str_addf(out, ", up to %lld may fail", (long long)continue_n);
}

static void print_policy(const struct bt_plan *p, struct bt_str *out)
{
	bt_str_addf(out, "\nin rotation: never fewer than %lld\n", (long long)p->min_in_rotation);
	if (p->purpose == BT_PLAN_DEPLOY || p->purpose == BT_PLAN_FLOW) {
		print_on_failure(p->on_failure, p->continue_n, out);
		bt_str_addc(out, '\n');
		if (p->timeout_ms) {
			bt_str_add(out, "time limit: ");
			duration(out, p->timeout_ms);
			bt_str_add(out, ", then it is rolled back\n");
		}
	}
	for (size_t i = 0; i < p->n_notes; i++)
		bt_str_addf(out, "note: %s\n", p->notes[i]);
}

void bt_plan_print(const struct bt_plan *p, struct bt_str *out)
{
	struct layout l = lay_out(p);
	print_head(p, out);
	for (size_t s = 0; s < p->n_stages; s++) {
		const struct bt_stage *stage = &p->stages[s];
		bt_str_addf(out, "\n%3zu. %s", s + 1, stage->name);
		if (stage->why)
			bt_str_addf(out, ": %s", stage->why);
		if (stage->own_policy) {
			bt_str_add(out, " (");
			print_on_failure(stage->on_failure, stage->continue_n, out);
			bt_str_addc(out, ')');
		}
		bt_str_addc(out, '\n');
		for (size_t i = 0; i < stage->n_lanes; i++)
			print_lane(p, &stage->lanes[i], &l, out);
	}
	if (!p->n_stages)
		bt_str_add(out, "\nnothing to do\n");
	print_policy(p, out);
	bt_str_done(&l.said);
}
