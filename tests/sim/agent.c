/* An agent: the real ledger on a disk that loses its unsynced tail, and the order of things that
 * the ledger's header asks for. */
#include "sim.h"

#include <string.h>

static struct agent *agent(struct sim *s, uint16_t h)
{
	return &s->agents[h];
}

static void post(struct sim *s, uint16_t h, const struct bt_result *r, struct snapshot *seen)
{
	struct answer *a = BT_ARENA_NEW(s->arena, struct answer);
	if (r->outcome != BT_OUTCOME_REFUSED && !bt_ledger_result(agent(s, h)->ledger, &r->key))
		violated(s, "a result of task %u is posted before it is durable", r->key.task);
	a->r = *r;
	a->r.detail = bt_arena_strdup(s->arena, r->detail);
	a->seen = seen;
	message(s, EV_RESULT, h, 0, a);
}

/* Its cursor counts in the server's store: hello comes first, and is durable. */
static bool knows_store(const struct sim *s, uint16_t h)
{
	return !s->restored || s->restoring ||
	       bt_streq(bt_ledger_store(s->agents[h].ledger), "restored");
}

static void poll_server(struct sim *s, uint16_t h)
{
	if (!knows_store(s, h))
		return;
	bool other = s->restored && !s->restoring; /* it names the store */
	message(s, EV_POLL, h, (int64_t)bt_ledger_cursor(agent(s, h)->ledger), other ? s : NULL);
}

/* ── the disk ── */

static void forget_task(struct agent *a, struct task *t)
{
	t->live = false;
	for (size_t i = 0; i < a->n_tasks; i++)
		if (a->tasks[i] == t) {
			a->tasks[i] = a->tasks[--a->n_tasks];
			return;
		}
}

static struct task *running(const struct agent *a, const struct bt_command_key *key)
{
	for (size_t i = 0; i < a->n_tasks; i++)
		if (bt_command_key_equal(&a->tasks[i]->c->key, key))
			return a->tasks[i];
	return NULL;
}

/* What an undo or a later attempt makes meaningless is cancelled wherever it stands. */
static void cancel_others(struct sim *s, struct agent *a, const struct bt_command_key *key)
{
	for (size_t i = a->n_tasks; i-- > 0;)
		if (a->tasks[i]->c->key.task == key->task) {
			trace(s, "agent: cancels %s of task %u",
				bt_verb_name(a->tasks[i]->c->key.verb), key->task);
			forget_task(a, a->tasks[i]);
		}
}

static struct task *begin(struct sim *s, uint16_t h, const struct bt_command *c)
{
	struct agent *a = agent(s, h);
	cancel_others(s, a, &c->key);
	struct task *t = BT_ARENA_NEW(s->arena, struct task);
	t->c = c;
	t->live = true;
	t->stamp = a->incarnation;
	if (a->n_tasks == a->cap_tasks) {
		a->cap_tasks = a->cap_tasks ? a->cap_tasks * 2 : 8;
		a->tasks = bt_realloc(a->tasks, a->cap_tasks * sizeof *a->tasks);
	}
	a->tasks[a->n_tasks++] = t;
	return t;
}

static void accepted(struct sim *s, uint16_t h, const struct line *l)
{
	const struct bt_command *c = &s->store.rows[l->row]->c;
	struct agent *a = agent(s, h);
	if (!BT_BUG(REPEAT_RUNS) && (running(a, &c->key) || bt_ledger_result(a->ledger, &c->key)))
		return; /* a repeat */
	task_go(s, h, begin(s, h, c));
}

static void apply_line(struct sim *s, uint16_t h, const struct line *l)
{
	struct agent *a = agent(s, h);
	struct bt_err err = {0};
	if (bt_ledger_apply(a->ledger, &l->e, &err) < 0)
		violated(s, "agent of %s: %s", s->host_names[h], err.text);
}

void agent_synced(struct sim *s, uint16_t h, size_t to)
{
	struct agent *a = agent(s, h);
	a->syncing_to = 0;
	if (to > a->n_synced)
		a->n_synced = to;
	while (a->n_applied < to && !s->failed) {
		struct line l = a->lines[a->n_applied++];
		apply_line(s, h, &l);
		if (l.e.kind == BT_LEDGER_ACCEPTED && l.e.key.deployment) {
			accepted(s, h, &l);
		} else if (l.e.kind == BT_LEDGER_BEGUN && l.then->live &&
			   l.then->step == STEP_BEGIN) {
			l.then->step = STEP_BEGUN;
			task_go(s, h, l.then);
		} else if (l.e.kind == BT_LEDGER_DONE) {
			if (l.then)
				forget_task(a, l.then);
			if (!BT_BUG(POST_BEFORE_FSYNC))
				post(s, h, bt_ledger_result(a->ledger, &l.e.key), l.seen);
		}
	}
	if (a->n_lines > a->n_synced && !a->syncing_to) {
		a->syncing_to = a->n_lines;
		at(s, s->now_ms + between(s, 0, 4), EV_SYNC, a->incarnation, h, (int64_t)a->n_lines,
			NULL);
	}
}

void agent_write(struct sim *s, uint16_t h, const struct line *l)
{
	struct agent *a = agent(s, h);
	if (a->n_lines == a->cap_lines) {
		a->cap_lines = a->cap_lines ? a->cap_lines * 2 : 32;
		a->lines = bt_realloc(a->lines, a->cap_lines * sizeof *a->lines);
	}
	a->lines[a->n_lines++] = *l;
	if (s->storm && chance(s, s->odds.agent_crash))
		at(s, s->now_ms + between(s, 0, 60), EV_CRASH_AGENT, 0, h, 0, NULL);
	if (l->e.kind == BT_LEDGER_DONE && BT_BUG(POST_BEFORE_FSYNC))
		post(s, h, &l->e.result, l->seen);
	if (l->e.kind == BT_LEDGER_BEGUN && BT_BUG(EFFECT_BEFORE_BEGUN)) {
		l->then->step = STEP_BEGUN;
		task_go(s, h, l->then);
	}
	if (a->syncing_to)
		return;
	a->syncing_to = a->n_lines;
	at(s, s->now_ms + between(s, 0, 4), EV_SYNC, a->incarnation, h, (int64_t)a->n_lines, NULL);
}

/* ── messages ── */

static void take(struct sim *s, uint16_t h, struct row *row, bool zombie)
{
	struct agent *a = agent(s, h);
	const struct bt_command *c = &row->c;
	char text[16];
	if (row->seq <= a->cursor && !zombie)
		return;
	enum bt_ledger_answer answer = bt_ledger_offer(a->ledger, "app", &c->key, c->token);
	static const enum counter answers[] = {
		[BT_LEDGER_NEW] = C_LEDGER_NEW,
		[BT_LEDGER_RUNNING] = C_LEDGER_RUNNING,
		[BT_LEDGER_ANSWERED] = C_LEDGER_ANSWERED,
		[BT_LEDGER_STALE] = C_LEDGER_STALE,
	};
	counters[answers[answer]]++;
	struct line l = {.e = {.kind = BT_LEDGER_ACCEPTED,
				 .seq = row->seq,
				 .service = "app",
				 .token = c->token,
				 .key = c->key,
				 .task = c->kind},
		.row = row->index};
	snprintf(text, sizeof text, "%u", row->index);
	l.e.command = bt_arena_strdup(s->arena, text);
	if (!zombie)
		a->cursor = row->seq;
	if (BT_BUG(CURSOR_FIRST)) {
		struct line first = {.e = {.kind = BT_LEDGER_ACCEPTED,
					     .seq = row->seq,
					     .service = "app",
					     .token = c->token}};
		agent_write(s, h, &first);
		a->n_synced = a->n_lines;
	}
	if (answer == BT_LEDGER_STALE) {
		struct bt_result r = {.key = c->key,
			.token = c->token,
			.outcome = BT_OUTCOME_REFUSED,
			.detail = "stale"};
		post(s, h, &r, NULL);
		l.e.key = (struct bt_command_key){0};
		l.e.command = NULL;
	}
	agent_write(s, h, &l);
}

void agent_commands(struct sim *s, uint16_t h, struct row *const *rows, size_t n)
{
	struct agent *a = agent(s, h);
	if (!a->up)
		return;
	for (size_t i = 0; i < n; i++)
		take(s, h, rows[i], rows[i]->seq == 0);
	poll_server(s, h);
}

void agent_acked(struct sim *s, uint16_t h, const struct bt_command_key *key)
{
	struct agent *a = agent(s, h);
	if (!a->up || !bt_ledger_result(a->ledger, key))
		return;
	struct line l = {.e = {.kind = BT_LEDGER_ACKED, .key = *key}};
	agent_write(s, h, &l);
}

static struct snapshot *seen_of(const struct agent *a, const struct bt_command_key *key)
{
	for (size_t i = 0; i < a->n_lines; i++)
		if (a->lines[i].e.kind == BT_LEDGER_DONE &&
			bt_command_key_equal(&a->lines[i].e.key, key))
			return a->lines[i].seen;
	return NULL;
}

void agent_tick(struct sim *s, uint16_t h)
{
	struct agent *a = agent(s, h);
	const struct bt_result **results;
	size_t n = bt_ledger_unacked(a->ledger, &results);
	for (size_t i = 0; i < n; i++)
		post(s, h, results[i], seen_of(a, &results[i]->key));
	free(results);
	poll_server(s, h);
	at(s, s->now_ms + between(s, 2000, 4000), EV_AGENT_TICK, a->incarnation, h, 0, NULL);
}

bool agent_quiet(const struct sim *s, uint16_t h)
{
	return s->agents[h].n_tasks == 0;
}

/* ── life ── */

void agent_crash(struct sim *s, uint16_t h)
{
	struct agent *a = agent(s, h);
	if (!a->up)
		return;
	trace(s, "agent of %s crashes", s->host_names[h]);
	a->up = false;
	a->incarnation++;
	for (size_t i = 0; i < a->n_tasks; i++)
		a->tasks[i]->live = false;
	a->n_tasks = 0;
	hooks_agent_crashed(s, h);
	/* Of what was not synced, any first part may have reached the disk. */
	size_t keep = (size_t)between(s, (int64_t)a->n_synced, (int64_t)a->n_lines);
	if (keep < a->n_lines)
		counters[C_FAULT_TAIL_LOST]++;
	a->n_lines = a->n_synced = keep;
	a->syncing_to = 0;
	a->ledger = bt_ledger_free(a->ledger);
	at(s, s->now_ms + between(s, 50, 3000), EV_AGENT_UP, a->incarnation, h, 0, NULL);
}

/* ── the file written anew, as an agent does at a start ── */

struct compact {
	struct agent *a;
	struct line *lines;
	size_t n;
};

static void keep_line(void *arg, const struct bt_ledger_entry *e)
{
	struct compact *c = arg;
	struct line l = {.e = *e};
	if (e->command)
		l.row = (uint32_t)strtoul(e->command, NULL, 10);
	if (e->kind == BT_LEDGER_DONE)
		l.seen = seen_of(c->a, &e->key);
	c->lines[c->n++] = l;
}

static void compact(struct sim *s, struct agent *a)
{
	/* Entries point into the ledger: they live as long as what they are copied to. */
	struct compact c = {a, bt_calloc(a->n_lines + 8, sizeof *c.lines), 0};
	bt_ledger_compact(a->ledger, keep_line, &c);
	for (size_t i = 0; i < c.n; i++) {
		struct bt_ledger_entry *e = &c.lines[i].e;
		e->service = bt_arena_strdup(s->arena, e->service);
		e->command = bt_arena_strdup(s->arena, e->command);
		e->store = bt_arena_strdup(s->arena, e->store);
		e->result.detail = bt_arena_strdup(s->arena, e->result.detail);
	}
	free(a->lines);
	a->lines = c.lines;
	a->cap_lines = a->n_lines + 8;
	a->n_lines = a->n_synced = c.n;
	counters[C_LEDGER_COMPACTED]++;
}

static void recover(struct sim *s, uint16_t h)
{
	struct agent *a = agent(s, h);
	struct bt_ledger_open *open;
	static const enum counter hows[] = {
		[BT_RECOVER_RUN] = C_RECOVER_RUN,
		[BT_RECOVER_AGAIN] = C_RECOVER_AGAIN,
		[BT_RECOVER_PROBE] = C_RECOVER_PROBE,
		[BT_RECOVER_PARK] = C_RECOVER_PARK,
	};
	size_t n = bt_ledger_recover(a->ledger, &open);
	for (size_t i = 0; i < n; i++) {
		size_t row = (size_t)strtoul(open[i].accepted.command, NULL, 10);
		counters[hows[open[i].how]]++;
		struct task *t = begin(s, h, &s->store.rows[row]->c);
		t->recovered = open[i].begun;
		t->anew = open[i].how == BT_RECOVER_AGAIN && t->c->kind == BT_TASK_EXEC;
		t->prior = open[i].prior;
		task_go(s, h, t);
	}
	free(open);
}

void agent_boot(struct sim *s, uint16_t h)
{
	struct agent *a = agent(s, h);
	a->up = true;
	a->ledger = bt_ledger_new();
	for (size_t i = 0; i < a->n_lines; i++)
		apply_line(s, h, &a->lines[i]);
	if (a->n_lines && chance(s, 300)) {
		compact(s, a);
		a->ledger = bt_ledger_free(a->ledger);
		a->ledger = bt_ledger_new();
		for (size_t i = 0; i < a->n_lines; i++)
			apply_line(s, h, &a->lines[i]);
	}
	a->n_applied = a->n_lines;
	a->cursor = bt_ledger_cursor(a->ledger);
	trace(s, "agent of %s starts, cursor %llu", s->host_names[h],
		(unsigned long long)a->cursor);
	if (knows_store(s, h))
		check_agent_start(s, h);
	else
		restore_greet(s, h);
	recover(s, h);
	agent_tick(s, h);
}
