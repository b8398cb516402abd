/* The server's loop around the engine: one event at a time; its records and commands in one
 * transaction; and only after the commit is memory changed, a result acknowledged, a command sent.
 * A failed commit throws the update away and rebuilds the engine from the journal. */
#include "sim.h"

#include "base/json.h"

#include <string.h>

struct batch { /* a message with commands */
	struct row **rows;
	size_t n;
};

static void next(struct sim *s);

/* ── commands leave ── */

static void answer_poll(struct sim *s, uint16_t h)
{
	struct server *v = &s->server;
	const struct bt_outbox_item **items;
	size_t n = bt_outbox_after(v->outbox[h], v->poll_after[h], 64, &items);
	if (n) {
		struct batch *b = BT_ARENA_NEW(s->arena, struct batch);
		b->rows = BT_ARENA_ARRAY(s->arena, struct row *, n);
		b->n = n;
		for (size_t i = 0; i < n; i++) {
			b->rows[i] = s->store.rows[strtoul(items[i]->json, NULL, 10)];
			if (!b->rows[i]->committed)
				violated(s, "a command left before its intent was durable");
		}
		v->polled[h] = false;
		message(s, EV_COMMANDS, h, (int64_t)n, b->rows);
	}
	free(items);
}

void server_poll(struct sim *s, uint16_t h, uint64_t after)
{
	struct server *v = &s->server;
	if (!v->up)
		return;
	v->polled[h] = true;
	v->poll_after[h] = after;
	answer_poll(s, h);
}

static void outbox_row(struct sim *s, struct row *row)
{
	char text[16];
	snprintf(text, sizeof text, "%u", row->index);
	struct bt_outbox_item item = {.seq = row->seq, .key = row->c.key, .json = text};
	bt_outbox_append(s->server.outbox[row->host], &item);
}

static struct row *new_row(struct sim *s, const struct bt_command *c, uint64_t seq)
{
	struct store *st = &s->store;
	if (st->n_rows == st->cap_rows) {
		st->cap_rows = st->cap_rows ? st->cap_rows * 2 : 64;
		st->rows = bt_realloc(st->rows, st->cap_rows * sizeof *st->rows);
	}
	struct row *row = BT_ARENA_NEW(s->arena, struct row);
	*row = (struct row){.seq = seq,
		.host = c->host,
		.c = journal_command(s, c),
		.index = (uint32_t)st->n_rows};
	st->rows[st->n_rows++] = row;
	return row;
}

static void send_commands(struct sim *s, const struct tx *t)
{
	struct server *v = &s->server;
	for (size_t i = 0; i < t->n_rows; i++)
		outbox_row(s, s->store.rows[t->first_row + i]);
	for (uint16_t h = 0; h < s->n_hosts; h++)
		if (v->polled[h])
			answer_poll(s, h);
}

/* ── results ── */

static void acknowledge(struct sim *s, const struct sev *cause)
{
	check_acknowledged(s, &cause->result.key);
	struct bt_command_key *key =
		bt_arena_memdup(s->arena, &cause->result.key, sizeof cause->result.key);
	message(s, EV_ACK, cause->from, 0, key);
}

/* What a refusal of an older token's copy settles is that copy, not the one sent since. */
static void settle(struct sim *s, const struct bt_result *r)
{
	struct server *v = &s->server;
	bool late = r->outcome == BT_OUTCOME_REFUSED && r->token &&
		    r->token < bt_engine_token(v->engine);
	if (late)
		return;
	for (size_t i = 0; i < s->store.n_rows; i++)
		if (bt_command_key_equal(&s->store.rows[i]->c.key, &r->key)) {
			s->store.rows[i]->settled = true;
			bt_outbox_settle(v->outbox[s->store.rows[i]->host], &r->key);
		}
}

/* With its end a run has nothing left to say. */
static void settle_run(struct sim *s)
{
	for (size_t i = 0; i < s->store.n_rows; i++) {
		struct row *row = s->store.rows[i];
		if (row->settled || row->c.key.deployment != s->deployment)
			continue;
		row->settled = true;
		bt_outbox_settle(s->server.outbox[row->host], &row->c.key);
	}
}

/* ── transactions ── */

static struct sev *new_event(struct sim *s)
{
	struct server *v = &s->server;
	struct sev *e = v->spare;
	if (!e)
		return BT_ARENA_NEW(s->arena, struct sev);
	v->spare = e->next;
	*e = (struct sev){0};
	return e;
}

static void make_plan(struct sim *s, const struct bt_update *u)
{
	struct server *v = &s->server;
	struct bt_world *w = world_build(s, s->store.seen);
	struct bt_plan_request rq = {.service = &s->service,
		.world = w,
		.release = {u->wants_release, "vX", NULL},
		.known = known_releases,
		.n_known = N_KNOWN,
		.first_task_id = u->first_task_id,
		.before = s->flow_plan,
		.failed = s->purpose == BT_PLAN_DEPLOY || s->purpose == BT_PLAN_FLOW ? &s->service
										     : NULL,
		.failed_release = {s->release, "vY", NULL}};
	struct bt_plan *plan = NULL;
	struct bt_err err = {0};
	int r = bt_plan_rollback(&rq, &plan, &err);
	bt_world_free(w);
	struct sev *e = new_event(s);
	*e = (struct sev){.e = {.kind = r < 0 ? BT_EVENT_PLAN_FAILED : BT_EVENT_PLAN,
				  .plan = r < 0 ? NULL : journal_plan(s, plan),
				  .by = bt_arena_strdup(s->arena, err.text)}};
	if (r == 0) {
		counters[C_ENGINE_ROLLBACK_PLAN]++;
		s->n_plans++;
		s->min_in_rotation = plan->min_in_rotation;
		trace(s, "server: a rollback plan to release %u", u->wants_release);
		if (s->opt.verbose) {
			BT_STR struct bt_str text = {0};
			bt_plan_print(plan, &text);
			printf("%s\n", bt_str_get(&text));
		}
	}
	/* Before anything else: nothing of the queue can be a plan. */
	e->next = v->head;
	v->head = e;
	if (!v->tail)
		v->tail = e;
}

static void count_skipped(const struct bt_record *r)
{
	enum bt_task_kind k = r->command.kind;
	bool loopback = k == BT_TASK_LOOPBACK_STOP || k == BT_TASK_LOOPBACK_START;
	counters[C_ENGINE_SKIPPED]++;
	counters[C_ENGINE_VIP_KEPT] += loopback && bt_str_starts(r->text, "requests come");
	counters[C_ENGINE_VIP_AS_BEFORE] += loopback && bt_str_starts(r->text, "it was");
	counters[C_HOOK_SKIPPED] += bt_str_starts(r->text, "as the plan says");
}

static void count_record(struct sim *s, const struct bt_record *r)
{
	check_record(s, r);
	if (r->kind == BT_RECORD_RETRY)
		counters[r->command.wait_ms || bt_str_starts(r->text, "attempt")
				 ? C_ENGINE_RETRIED
				 : C_ENGINE_GAVE_UP]++;
	else if (r->kind == BT_RECORD_SKIPPED)
		count_skipped(r);
	else if (r->kind == BT_RECORD_LANE_UNDONE)
		counters[C_ENGINE_LANE_UNDONE]++;
	else if (r->kind == BT_RECORD_SENT && r->command.kind == BT_TASK_DRAIN &&
		 r->command.instance != BT_NONE)
		counters[C_ENGINE_OWN_DRAIN]++;
	else if (r->kind == BT_RECORD_PHASE && r->phase == BT_PHASE_PARKED) {
		counters[C_ENGINE_PARKED]++;
		s->was_parked = true;
	} else if (r->kind == BT_RECORD_OPERATOR && strstr(r->text, "deploy.timeout")) {
		counters[C_RUN_TOO_LONG]++;
		s->aborted = true;
	}
	if (!s->opt.verbose)
		return;
	BT_JSON json_t *j = r->kind == BT_RECORD_PLAN ? json_string("plan") : bt_record_to_json(r);
	BT_FREE char *text = bt_json_dump(j);
	trace(s, "journal: %s", text);
}

static void make_durable(struct sim *s)
{
	struct server *v = &s->server;
	struct tx *t = &v->tx;
	for (size_t i = 0; i < t->u.n_records; i++) {
		count_record(s, &t->u.records[i]);
		journal_add(s, &t->u.records[i]);
	}
	for (size_t i = 0; i < t->n_rows; i++)
		s->store.rows[t->first_row + i]->committed = true;
	if (t->cause->seen)
		s->store.seen[t->cause->from] = *t->cause->seen;
}

static void apply_update(struct sim *s)
{
	struct server *v = &s->server;
	struct bt_update *u = &v->tx.u;
	for (size_t i = 0; i < u->n_records; i++) {
		struct bt_err err = {0};
		if (bt_engine_apply(v->engine, &u->records[i], &err) < 0)
			violated(s, "apply: %s", err.text);
		v->n_applied++;
	}
}

static void set_timer(struct sim *s, int64_t deadline_ms)
{
	s->server.timer_stamp++;
	if (deadline_ms < INT64_MAX)
		at(s, deadline_ms - s->clock_ahead_ms, EV_TIMER, s->server.timer_stamp, 0, 0, NULL);
}

static void committed(struct sim *s)
{
	struct server *v = &s->server;
	struct tx t = v->tx;
	make_durable(s);
	apply_update(s);
	v->tx = (struct tx){0};
	if (bt_engine_phase(v->engine) == BT_PHASE_ENDED)
		settle_run(s);
	if (t.cause->e.kind == BT_EVENT_RESULT) {
		settle(s, &t.cause->result);
		if (!BT_BUG(ACK_BEFORE_COMMIT))
			acknowledge(s, t.cause);
	}
	if (!BT_BUG(SEND_BEFORE_COMMIT))
		send_commands(s, &t);
	set_timer(s, t.u.deadline_ms);
	if (t.u.wants_plan)
		make_plan(s, &t.u);
	bt_update_done(&t.u);
	t.cause->next = v->spare;
	v->spare = t.cause;
	check_server(s);
}

static void discard(struct sim *s)
{
	struct server *v = &s->server;
	struct tx *t = &v->tx;
	for (size_t i = 0; i < t->u.n_records; i++)
		if (t->u.records[i].kind == BT_RECORD_PLAN)
			bt_plan_free((struct bt_plan *)(uintptr_t)t->u.records[i].plan);
	bt_update_done(&t->u);
	v->tx = (struct tx){0};
}

static void failed_commit(struct sim *s)
{
	struct server *v = &s->server;
	struct sev *cause = v->tx.cause;
	counters[C_FAULT_COMMIT_FAILED]++;
	s->faulted = true;
	trace(s, "server: a commit failed");
	if (BT_BUG(APPLY_UNCOMMITTED)) {
		apply_update(s);
		bt_update_done(&v->tx.u);
		v->tx = (struct tx){0};
		check_server(s);
		return;
	}
	discard(s);
	journal_replay(s);
	/* Results come again, timers are due again; a start, a takeover, a plan and an operator's
	 * wish are tried again by who wanted them. */
	if (cause->e.kind == BT_EVENT_TIMER || cause->e.kind == BT_EVENT_RESULT ||
		cause->e.kind == BT_EVENT_AGENT) {
		set_timer(s, s->now_ms + s->clock_ahead_ms + 100);
		cause->next = v->spare;
		v->spare = cause;
	} else if (cause->e.kind == BT_EVENT_PLAN) {
		struct bt_event again = {.kind = BT_EVENT_TIMER, .now_ms = s->now_ms};
		cause->e = again;
		cause->next = v->head;
		v->head = cause;
	} else if (cause->e.kind == BT_EVENT_START) {
		violated(s, "the simulator does not fail the first commit");
	} else {
		cause->next = v->head;
		v->head = cause;
	}
	if (!v->tail)
		v->tail = v->head;
}

void server_commit(struct sim *s)
{
	struct server *v = &s->server;
	if (!v->tx.open)
		return;
	bool start = v->tx.cause->e.kind == BT_EVENT_START;
	if (!start && s->storm && chance(s, s->odds.commit_fails))
		failed_commit(s);
	else
		committed(s);
	next(s);
}

static void transact(struct sim *s, struct sev *cause, struct bt_update *u)
{
	struct server *v = &s->server;
	uint64_t seq[MAX_HOSTS];
	for (uint16_t h = 0; h < s->n_hosts; h++)
		seq[h] = bt_outbox_next_seq(v->outbox[h]);
	v->tx = (struct tx){.open = true, .u = *u, .cause = cause, .first_row = s->store.n_rows};
	for (size_t i = 0; i < u->n_commands; i++) {
		new_row(s, &u->commands[i], seq[u->commands[i].host]++);
		v->tx.n_rows++;
	}
	if (BT_BUG(SEND_BEFORE_COMMIT))
		send_commands(s, &v->tx);
	if (BT_BUG(ACK_BEFORE_COMMIT) && cause->e.kind == BT_EVENT_RESULT)
		acknowledge(s, cause);
	if (s->storm && chance(s, s->odds.server_crash))
		at(s, s->now_ms + between(s, 0, 3), EV_CRASH_SERVER, 0, 0, 0, NULL);
	at(s, s->now_ms + between(s, 0, 5), EV_COMMIT, v->incarnation, 0, 0, NULL);
}

/* 1: a transaction was begun; 0: nothing to keep. */
static int handle(struct sim *s, struct sev *e)
{
	struct server *v = &s->server;
	struct bt_update u = {0};
	struct bt_err err = {0};
	e->e.now_ms = s->now_ms + s->clock_ahead_ms;
	if (e->e.kind == BT_EVENT_RESULT)
		e->e.result = &e->result;
	int r = bt_engine_step(v->engine, &e->e, &u, &err);
	if (r < 0) {
		if (e->e.kind == BT_EVENT_OPERATOR)
			counters[C_OPERATOR_REFUSED]++;
		else if (e->e.kind == BT_EVENT_PLAN)
			bt_plan_free((struct bt_plan *)(uintptr_t)e->e.plan);
		else
			violated(s, "the engine refused event %d: %s", (int)e->e.kind, err.text);
		return 0;
	}
	if (u.n_records || u.n_commands) {
		transact(s, e, &u);
		return 1;
	}
	if (e->e.kind == BT_EVENT_RESULT) {
		settle(s, &e->result);
		acknowledge(s, e);
	}
	set_timer(s, u.deadline_ms);
	if (u.wants_plan && e->e.kind == BT_EVENT_TIMER)
		make_plan(s, &u);
	bt_update_done(&u);
	return 0;
}

static void next(struct sim *s)
{
	struct server *v = &s->server;
	while (v->up && !v->tx.open && v->head && !s->failed) {
		struct sev *e = v->head;
		v->head = e->next;
		if (!v->head)
			v->tail = NULL;
		if (handle(s, e) == 0) {
			e->next = v->spare;
			v->spare = e;
		}
	}
}

static struct sev *push(struct sim *s)
{
	struct server *v = &s->server;
	struct sev *e = new_event(s);
	if (v->tail)
		v->tail->next = e;
	else
		v->head = e;
	v->tail = e;
	return e;
}

void server_result(struct sim *s, uint16_t h, const struct bt_result *r, struct snapshot *seen)
{
	if (!s->server.up)
		return;
	struct sev *e = push(s);
	e->e.kind = BT_EVENT_RESULT;
	e->result = *r;
	e->from = h;
	e->seen = seen;
	next(s);
}

void server_timer(struct sim *s, uint32_t stamp)
{
	if (!s->server.up || stamp != s->server.timer_stamp)
		return;
	push(s)->e.kind = BT_EVENT_TIMER;
	next(s);
}

void server_operator(struct sim *s, enum bt_operator op)
{
	if (!s->server.up)
		return;
	struct sev *e = push(s);
	e->e.kind = BT_EVENT_OPERATOR;
	e->e.op = op;
	e->e.by = "ann";
	next(s);
}

void server_start(struct sim *s, struct bt_plan *plan)
{
	struct sev *e = push(s);
	e->e.kind = BT_EVENT_START;
	e->e.plan = journal_plan(s, plan);
	e->e.token = s->token;
	next(s);
}

/* ── life ── */

static void drop_queue(struct sim *s)
{
	struct server *v = &s->server;
	for (struct sev *e = v->head; e; e = e->next)
		if (e->e.kind == BT_EVENT_PLAN || e->e.kind == BT_EVENT_START)
			bt_plan_free((struct bt_plan *)(uintptr_t)e->e.plan);
	v->head = v->tail = v->spare = NULL;
}

void server_crash(struct sim *s)
{
	struct server *v = &s->server;
	if (!v->up || !s->store.n_records)
		return;
	trace(s, "server crashes%s", v->tx.open ? " in a commit" : "");
	v->up = false;
	v->incarnation++;
	v->timer_stamp++;
	drop_queue(s);
	if (v->tx.open && chance(s, 500)) {
		counters[C_FAULT_SERVER_CRASH_COMMIT_KEPT]++;
		make_durable(s);
		for (size_t i = 0; i < v->tx.u.n_records; i++)
			if (v->tx.u.records[i].kind == BT_RECORD_PLAN)
				bt_plan_free((struct bt_plan *)(uintptr_t)v->tx.u.records[i].plan);
		if (v->tx.cause->e.kind == BT_EVENT_RESULT)
			settle(s, &v->tx.cause->result);
		bt_update_done(&v->tx.u);
		v->tx = (struct tx){0};
	} else if (v->tx.open) {
		counters[C_FAULT_SERVER_CRASH_COMMIT_LOST]++;
		discard(s);
	}
	v->engine = bt_engine_free(v->engine);
	for (uint16_t h = 0; h < s->n_hosts; h++) {
		v->outbox[h] = bt_outbox_free(v->outbox[h]);
		v->polled[h] = false;
	}
	at(s, s->now_ms + between(s, 20, 5000), EV_SERVER_UP, v->incarnation, 0, 0, NULL);
}

/* A server that was replaced and does not know it sends one more command. */
static void zombie(struct sim *s)
{
	uint16_t i = (uint16_t)between(s, 0, s->n_inst - 1);
	struct bt_command c = {
		.key = {s->deployment, 60000 + (uint32_t)between(s, 0, 999), BT_DO, 1},
		.token = s->token - 1,
		.kind = BT_TASK_INSTANCE_STOP,
		.host = i / s->n_slots,
		.instance = i,
		.balancer = BT_NONE,
		.timeout_ms = 1000};
	struct row *row = new_row(s, &c, 0);
	row->committed = true;
	row->settled = true;
	struct row **rows = BT_ARENA_NEW(s->arena, struct row *);
	rows[0] = row;
	at(s, s->now_ms + between(s, 100, 4000), EV_COMMANDS, (uint32_t)s->token, c.host, -1, rows);
}

void server_boot(struct sim *s)
{
	struct server *v = &s->server;
	v->up = true;
	for (uint16_t h = 0; h < s->n_hosts; h++)
		v->outbox[h] = bt_outbox_new(0);
	for (size_t i = 0; i < s->store.n_rows; i++) {
		struct row *row = s->store.rows[i];
		if (!row->committed || row->seq == 0)
			continue;
		outbox_row(s, row);
		if (row->settled)
			bt_outbox_settle(v->outbox[row->host], &row->c.key);
	}
	if (!s->store.n_records) {
		v->engine = bt_engine_new(s->deployment);
		return;
	}
	trace(s, "server starts");
	/* It goes on from its last record plus a bounded difference of wall clocks. */
	if (fault(s, 200, C_FAULT_CLOCK))
		s->clock_ahead_ms += between(s, -2000, 600000);
	if (s->now_ms + s->clock_ahead_ms < 0)
		s->clock_ahead_ms = 0;
	journal_replay(s);
	if (s->failed || bt_engine_phase(v->engine) == BT_PHASE_ENDED)
		return;
	counters[C_ENGINE_TAKEOVER]++;
	struct sev *e = push(s);
	e->e.kind = BT_EVENT_TAKEOVER;
	e->e.token = ++s->token;
	next(s);
	if (s->storm && chance(s, 150))
		zombie(s);
}

void server_next_run(struct sim *s)
{
	struct server *v = &s->server;
	drop_queue(s);
	v->timer_stamp++;
	v->engine = bt_engine_free(v->engine);
	v->engine = bt_engine_new(s->deployment);
	v->n_applied = s->store.n_records = 0;
	memset(s->store.seen, 0, sizeof s->store.seen);
	memset(s->sent, 0, sizeof s->sent);
}

void server_free(struct sim *s)
{
	struct server *v = &s->server;
	drop_queue(s);
	if (v->tx.open)
		discard(s);
	v->engine = bt_engine_free(v->engine);
	for (uint16_t h = 0; h < s->n_hosts; h++)
		v->outbox[h] = bt_outbox_free(v->outbox[h]);
	for (size_t i = 0; i < s->n_originals; i++)
		bt_plan_free(s->plans[i]);
	free(s->plans);
	free(s->store.records);
	free(s->store.rows);
}
