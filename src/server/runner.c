/* The runner: drives one engine per active deployment.
 *
 * An event goes through bt_engine_step; its records, its commands and what follows from them
 * (lease, tokens, states) are one transaction. Only after its commit the records are applied,
 * commands enter the outboxes, polls are woken, results are acknowledged and events are published.
 * While a commit is on its way, further events of that deployment queue. A failed commit sends
 * nothing: the engine is rebuilt from the journal; whoever waits for an answer is told (an agent
 * posts its result again), and what nobody would repeat is tried again a second later.
 *
 * Engine time is CLOCK_BOOTTIME plus an offset; after a restart it goes on from the last record
 * plus the wall clock's difference, bounded, so that a jumped clock neither ends nor stretches a
 * drain by more than MAX_AWAY_MS. */
#include "base/clock.h"
#include "base/fs.h"
#include "server/run_priv.h"

#include <stdio.h>
#include <string.h>

#define RETRY_MS 1000
#define MAX_AWAY_MS 600000

static void pump(struct bt_running *r);

struct bt_running *bt_run_find(struct bt_server *s, uint64_t id)
{
	for (struct bt_running *r = s->runs; r; r = r->next)
		if (r->id == id)
			return r;
	return NULL;
}

const struct bt_engine *bt_run_engine(const struct bt_running *r)
{
	return r->engine;
}

uint64_t bt_run_id(const struct bt_running *r)
{
	return r->id;
}

const char *bt_run_service(const struct bt_running *r)
{
	return r->service;
}

bool bt_run_ending(const struct bt_running *r)
{
	return r->tails != NULL;
}

size_t bt_runs_count(struct bt_server *s)
{
	size_t n = 0;
	for (struct bt_running *r = s->runs; r; r = r->next)
		n += bt_engine_phase(r->engine) != BT_PHASE_ENDED;
	return n;
}

int bt_run_lease_free(struct bt_server *s, const char *service, struct bt_err *err)
{
	char at[32];
	for (struct bt_running *r = s->runs; r; r = r->next) {
		enum bt_phase phase = bt_engine_phase(r->engine);
		if (strcmp(r->service, service) != 0 || phase == BT_PHASE_ENDED)
			continue;
		return bt_err_set(err, BT_E_LEASE,
			"%s is held by deployment %llu of %s since %s (%s): %s", service,
			(unsigned long long)r->id, r->holder, bt_clock_format(r->started_wall, at),
			bt_phase_name(phase),
			phase == BT_PHASE_PARKED ? "once what it waits for is mended, resume it; "
						   "abort leaves it as it stands"
						 : "wait for it, or abort it");
	}
	return 0;
}

static int64_t now_of(const struct bt_running *r)
{
	return bt_clock_boot_ms() + r->clock_offset;
}

/* ---- the queue --------------------------------------------------------------------------- */

struct bt_pending *bt_pending_new(enum bt_event_kind kind)
{
	struct bt_pending *p = bt_calloc(1, sizeof *p);
	p->kind = kind;
	p->arena = bt_arena_new();
	return p;
}

static void pending_free(struct bt_pending *p)
{
	bt_plan_free(p->plan);
	bt_arena_free(p->arena);
	bt_txn_free(p->extra);
	free(p);
}

static void finish(struct bt_pending *p, int result, const struct bt_err *err)
{
	if (p->done)
		p->done(p->arg, result, err);
	pending_free(p);
}

void bt_run_push(struct bt_running *r, struct bt_pending *p)
{
	p->next = NULL;
	*r->tail = p;
	r->tail = &p->next;
	pump(r);
}

static struct bt_pending *shift(struct bt_running *r)
{
	struct bt_pending *p = r->head;
	r->head = p->next;
	if (!r->head)
		r->tail = &r->head;
	return p;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct bt_running *r = arg;
	(void)fd;
	(void)what;
	r->waiting = false;
	if (!r->broken && !r->head && !r->in_flight)
		bt_run_push(r, bt_pending_new(BT_EVENT_TIMER));
	else
		pump(r); /* a retry is due; what waits brings the time along */
}

static void set_timer(struct bt_running *r, int64_t in_ms)
{
	bt_timer_in(r->timer, in_ms > 0 ? in_ms : 1);
}

/* ---- the journal ------------------------------------------------------------------------- */

static int replay_page(struct bt_server *s, uint64_t id, struct bt_engine *e, struct bt_replay *to,
	int64_t *cursor, size_t *ret_n, struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	int r = bt_store_select(s->store, &rows, err, BT_SQL_RECORDS_OF, (int64_t)id, *cursor);
	size_t i;
	json_t *row;
	json_array_foreach (rows, i, row) {
		const char *text = json_string_value(json_object_get(row, "body"));
		BT_JSON json_t *body = text ? json_loads(text, 0, NULL) : NULL;
		BT_ARENA struct bt_arena *a = bt_arena_new();
		struct bt_record rec = {0};
		*cursor = json_integer_value(json_object_get(row, "cursor"));
		to->last_wall = json_integer_value(json_object_get(row, "wall_ms"));
		r = body ? bt_record_from_json(body, a, &rec, err)
			 : bt_err_set(err, BT_E_CORRUPT, "it does not parse");
		if (r == 0 && rec.plan)
			json_array_append(to->plans, json_object_get(body, "plan"));
		if (r == 0)
			r = bt_engine_apply(e, &rec, err);
		if (r < 0)
			return bt_err_wrap(err, "deployment %llu: record %lld",
				(unsigned long long)id, (long long)*cursor);
	}
	*ret_n = json_array_size(rows);
	return r;
}

void bt_replay_done(struct bt_replay *p)
{
	bt_engine_free(p->engine);
	json_decref(p->plans);
	*p = (struct bt_replay){0};
}

int bt_run_replay(struct bt_server *s, uint64_t id, struct bt_replay *ret, struct bt_err *err)
{
	struct bt_replay to = {.engine = bt_engine_new(id), .plans = json_array()};
	int64_t cursor = 0;
	size_t n = 1;
	int r = 0;
	while (r == 0 && n > 0)
		r = replay_page(s, id, to.engine, &to, &cursor, &n, err);
	if (r < 0)
		bt_replay_done(&to);
	else
		*ret = to;
	return r;
}

static int rebuild(struct bt_running *r, struct bt_err *err)
{
	struct bt_replay again;
	int rc = bt_run_replay(r->server, r->id, &again, err);
	if (rc < 0) {
		bt_log(&r->log, BT_LOG_ERROR, "read the journal again: %s", err->text);
		r->broken = true;
		set_timer(r, RETRY_MS);
		return rc;
	}
	bt_engine_free(r->engine);
	r->engine = BT_STEAL(again.engine);
	bt_replay_done(&again);
	r->broken = false;
	return 0;
}

/* ---- one step ---------------------------------------------------------------------------- */

static void make_event(struct bt_running *r, const struct bt_pending *p, struct bt_event *e)
{
	*e = (struct bt_event){
		.kind = p->kind,
		.now_ms = now_of(r),
		.plan = p->plan,
		.token = p->token,
		.result = p->kind == BT_EVENT_RESULT ? &p->result : NULL,
		.op = p->op,
		.by = p->by,
		.back = p->back,
	};
	const struct bt_plan *plan = bt_engine_plan(r->engine);
	for (size_t i = 0; p->kind == BT_EVENT_AGENT && plan && i < plan->n_hosts; i++)
		if (strcmp(plan->hosts[i], p->host) == 0)
			e->host = (uint16_t)i;
}

/* The plan of an agent's event has to know the host (a rollback plan may know fewer). */
static bool concerns(const struct bt_running *r, const struct bt_pending *p)
{
	const struct bt_plan *plan = bt_engine_plan(r->engine);
	if (p->kind != BT_EVENT_AGENT)
		return true;
	for (size_t i = 0; plan && i < plan->n_hosts; i++)
		if (strcmp(plan->hosts[i], p->host) == 0)
			return true;
	return false;
}

static void forget_plan(struct bt_update *u, struct bt_pending *p)
{
	/* A PLAN record borrows the event's plan; after apply the engine owns it. */
	for (size_t i = 0; i < u->n_records; i++)
		if (u->records[i].kind == BT_RECORD_PLAN && u->records[i].plan == p->plan)
			p->plan = NULL;
}

static void apply_all(struct bt_running *r)
{
	struct bt_err err;
	forget_plan(&r->update, r->current);
	for (size_t i = 0; i < r->update.n_records; i++) {
		struct bt_record *rec = &r->update.records[i];
		if (bt_engine_apply(r->engine, rec, &err) < 0) {
			bt_log(&r->log, BT_LOG_ERROR, "apply: %s", err.text);
			(void)rebuild(r, &err);
			return;
		}
	}
}

static void hand_out(struct bt_running *r, const struct bt_txn *t)
{
	for (size_t i = 0; i < r->update.n_commands; i++) {
		struct bt_out *o = &r->out[i];
		struct bt_host *h = bt_host_find(r->server, o->host);
		struct bt_outbox_item item = {.seq = (uint64_t)bt_txn_value(t, o->op),
			.key = r->update.commands[i].key,
			.json = o->json};
		bt_outbox_append(h->outbox, &item);
	}
	for (size_t i = 0; i < r->update.n_commands; i++)
		bt_host_wake(bt_host_find(r->server, r->out[i].host));
}

static void publish(struct bt_running *r)
{
	for (size_t i = 0; i < r->update.n_records; i++)
		bt_stream_record(r->server, r->id, r->cursors[i], r->events[i]);
}

static void drop_step(struct bt_running *r)
{
	for (size_t i = 0; r->out && i < r->update.n_commands; i++) {
		free(r->out[i].host);
		free(r->out[i].json);
	}
	for (size_t i = 0; r->events && i < r->update.n_records; i++)
		free(r->events[i]);
	free(r->out);
	free(r->events);
	free(r->cursors);
	r->out = NULL;
	r->events = NULL;
	r->cursors = NULL;
	bt_update_done(&r->update);
}

static bool repeats_itself(const struct bt_pending *p)
{
	return p->kind == BT_EVENT_TAKEOVER || p->kind == BT_EVENT_TIMER ||
	       p->kind == BT_EVENT_AGENT || p->kind == BT_EVENT_PLAN ||
	       p->kind == BT_EVENT_PLAN_FAILED;
}

static void step_failed(struct bt_running *r, int result, const struct bt_err *err)
{
	struct bt_pending *p = BT_STEAL(r->current);
	struct bt_err ignored;
	bt_log(&r->log, BT_LOG_ERROR, "not stored, nothing was sent: %s", err->text);
	drop_step(r);
	if (repeats_itself(p)) {
		p->next = r->head;
		if (!r->head)
			r->tail = &p->next;
		r->head = p;
		r->waiting = true;
	} else {
		r->dead = p->kind == BT_EVENT_START;
		finish(p, result, err);
	}
	if (r->dead)
		return;
	(void)rebuild(r, &ignored);
	set_timer(r, RETRY_MS);
}

static void on_commit(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct bt_running *r = arg;
	r->in_flight = false;
	if (result < 0) {
		step_failed(r, result, err);
		pump(r);
		return;
	}
	struct bt_pending *p = r->current;
	bool wants_plan = r->update.wants_plan;
	uint32_t release = r->update.wants_release, first = r->update.first_task_id;
	int64_t deadline = r->update.deadline_ms;
	apply_all(r);
	bt_run_effects(r); /* metrics, memory of services */
	hand_out(r, t);
	publish(r);
	r->current = NULL;
	drop_step(r);
	r->pumping = true; /* what `done` does may push */
	finish(p, 0, NULL);
	r->pumping = false;
	if (deadline != INT64_MAX)
		set_timer(r, deadline - now_of(r));
	else
		event_del(r->timer);
	if (wants_plan)
		bt_run_plan_back(r, release, first);
	enum bt_phase phase = bt_engine_phase(r->engine);
	if (phase == BT_PHASE_ENDED || phase == BT_PHASE_PARKED)
		bt_run_say_end(r);
	pump(r);
}

static void step_refused(struct bt_running *r, int rc, const struct bt_err *err)
{
	struct bt_pending *p = BT_STEAL(r->current);
	bt_update_done(&r->update);
	r->dead = p->kind == BT_EVENT_START;
	if (p->kind == BT_EVENT_PLAN && bt_engine_phase(r->engine) == BT_PHASE_PLANNING) {
		struct bt_pending *failed = bt_pending_new(BT_EVENT_PLAN_FAILED);
		failed->by = bt_arena_strdup(failed->arena, err->text);
		bt_run_push(r, failed);
	}
	finish(p, rc, err);
}

/* Nothing to store; only the deadline may be new. */
static void step_empty(struct bt_running *r)
{
	int64_t deadline = r->update.deadline_ms;
	bool wants_plan = r->update.wants_plan;
	uint32_t release = r->update.wants_release, first = r->update.first_task_id;
	if (deadline != INT64_MAX)
		set_timer(r, deadline - now_of(r));
	drop_step(r);
	finish(BT_STEAL(r->current), 0, NULL);
	if (wants_plan)
		bt_run_plan_back(r, release, first);
}

static void take_step(struct bt_running *r)
{
	struct bt_pending *p = r->current = shift(r);
	struct bt_event e;
	struct bt_err err = {0};
	r->update = (struct bt_update){.deadline_ms = INT64_MAX};
	if (!concerns(r, p)) {
		finish(BT_STEAL(r->current), 0, NULL);
		return;
	}
	make_event(r, p, &e);
	int rc = bt_engine_step(r->engine, &e, &r->update, &err);
	if (rc < 0) {
		step_refused(r, rc, &err);
		return;
	}
	if (!r->update.n_records && !r->update.n_commands) {
		step_empty(r);
		return;
	}
	struct bt_txn *t = NULL;
	rc = bt_run_transaction(r, &t, &err);
	if (rc < 0) {
		bt_txn_free(t);
		step_failed(r, rc, &err);
		return;
	}
	r->in_flight = true;
	bt_store_commit(r->server->store, t, on_commit, r);
}

static void pump(struct bt_running *r)
{
	struct bt_err err;
	if (r->pumping || r->waiting || r->server->stopping || (r->broken && rebuild(r, &err) < 0))
		return;
	r->pumping = true;
	while (!r->in_flight && r->head && !r->dead && !r->waiting)
		take_step(r);
	r->pumping = false;
	if (r->dead && !r->in_flight)
		bt_run_free(r);
}

/* ---- events from outside ----------------------------------------------------------------- */

void bt_run_operate(struct bt_running *r, enum bt_operator op, const char *by, const char *from,
	bt_run_done_fn done, void *arg)
{
	struct bt_pending *p = bt_pending_new(BT_EVENT_OPERATOR);
	p->op = op;
	p->by = bt_arena_strdup(p->arena, by);
	p->from = bt_arena_strdup(p->arena, from);
	p->done = done;
	p->arg = arg;
	bt_run_push(r, p);
}

void bt_run_result(struct bt_running *r, const struct bt_result *result, const char *log,
	bt_run_done_fn done, void *arg)
{
	struct bt_pending *p = bt_pending_new(BT_EVENT_RESULT);
	p->result = *result;
	p->result.detail = bt_arena_strdup(p->arena, result->detail);
	p->log = bt_arena_strdup(p->arena, log);
	p->done = done;
	p->arg = arg;
	bt_run_push(r, p);
}

static void tell_agent(struct bt_running *r, const char *host, bool back)
{
	struct bt_pending *p = bt_pending_new(BT_EVENT_AGENT);
	p->host = bt_arena_strdup(p->arena, host);
	p->back = back;
	p->by = back ? "its agent is back" : "no contact with its agent";
	if (back)
		json_object_del(r->lost, host);
	else
		json_object_set_new(r->lost, host, json_true());
	bt_log(&r->log, back ? BT_LOG_INFO : BT_LOG_WARN, "host=%s %s", host, p->by);
	bt_run_push(r, p);
}

static void tick(struct bt_running *r)
{
	const struct bt_plan *plan = bt_engine_plan(r->engine);
	if (r->in_flight || r->head || !plan || bt_engine_phase(r->engine) == BT_PHASE_ENDED)
		return; /* next second: the plan must not change under the loop below */
	for (size_t i = 0; i < plan->n_hosts; i++) {
		const struct bt_host *h = bt_host_find(r->server, plan->hosts[i]);
		bool lost = !h || h->revoked || bt_host_silent_ms(h) >= BT_AGENT_LOST_MS;
		bool told = json_object_get(r->lost, plan->hosts[i]) != NULL;
		if (lost != told) {
			tell_agent(r, plan->hosts[i], !lost);
			return;
		}
	}
}

void bt_runs_tick(struct bt_server *s)
{
	for (struct bt_running *r = s->runs, *next; r; r = next) {
		next = r->next;
		tick(r);
	}
}

/* ---- birth and death --------------------------------------------------------------------- */

struct bt_running *bt_run_new(struct bt_server *s, uint64_t id, const char *service)
{
	struct bt_running *r = bt_calloc(1, sizeof *r);
	r->server = s;
	r->id = id;
	r->service = bt_strdup(service);
	r->engine = bt_engine_new(id);
	r->tail = &r->head;
	r->timer = evtimer_new(s->base, on_timer, r);
	r->lost = json_object();
	r->failing = json_object();
	r->said = json_object();
	r->sent_at = json_object();
	r->observed_since = bt_clock_boot_ms();
	snprintf(r->log.context, sizeof r->log.context, "deployment=%llu service=%.64s ",
		(unsigned long long)id, service);
	r->next = s->runs;
	s->runs = r;
	return r;
}

void bt_run_free(struct bt_running *r)
{
	for (struct bt_running **p = &r->server->runs; *p; p = &(*p)->next)
		if (*p == r) {
			*p = r->next;
			break;
		}
	struct bt_err stops;
	bt_err_set(&stops, BT_E_STORE, "the server is stopping");
	if (r->current)
		finish(BT_STEAL(r->current), BT_E_STORE, &stops);
	while (r->head)
		finish(shift(r), BT_E_STORE, &stops);
	drop_step(r);
	if (r->gather) {
		bt_gather_cancel(r->gather);
		free(r->back);
	}
	bt_run_tails_free(r);
	event_free(r->timer);
	bt_engine_free(r->engine);
	bt_config_free(r->config);
	json_decref(r->service_json);
	json_decref(r->lost);
	json_decref(r->failing);
	json_decref(r->said);
	json_decref(r->sent_at);
	free(r->purpose);
	free(r->service);
	free(r->holder);
	free(r);
}

void bt_runs_free(struct bt_server *s)
{
	while (s->runs)
		bt_run_free(s->runs);
}

static int resume(struct bt_server *s, const json_t *row, struct bt_err *err)
{
	uint64_t id = (uint64_t)json_integer_value(json_object_get(row, "id"));
	const char *service = json_string_value(json_object_get(row, "service"));
	struct bt_release *rel = NULL;
	struct bt_replay replay = {0};
	int rc = bt_release_load(
		s, (uint32_t)json_integer_value(json_object_get(row, "release")), &rel, err);
	if (rc < 0)
		return bt_err_wrap(err, "deployment %llu", (unsigned long long)id);
	struct bt_running *r = bt_run_new(s, id, service);
	r->release = rel->id;
	r->service_json = json_incref(rel->config);
	r->started_wall = json_integer_value(json_object_get(row, "started_at"));
	r->paused_ms = json_integer_value(json_object_get(row, "paused_ms"));
	r->purpose = bt_strdup(json_string_value(json_object_get(row, "purpose")));
	r->holder = bt_run_holder(json_string_value(json_object_get(row, "by")));
	bt_release_free(rel);
	rc = bt_config_service_from_json(r->service_json, &r->config, err);
	if (rc == 0)
		rc = bt_run_replay(s, id, &replay, err);
	if (rc < 0) {
		bt_run_free(r);
		return rc;
	}
	bt_engine_free(r->engine);
	r->engine = BT_STEAL(replay.engine);
	int64_t away = bt_clock_wall_ms() - replay.last_wall;
	bt_replay_done(&replay);
	away = away < 0 ? 0 : away > MAX_AWAY_MS ? MAX_AWAY_MS : away;
	r->clock_offset = bt_engine_now(r->engine) + away - bt_clock_boot_ms();
	struct bt_svc *svc = bt_server_service_add(s, service);
	struct bt_pending *p = bt_pending_new(BT_EVENT_TAKEOVER);
	p->token = ++svc->token;
	bt_log(&r->log, BT_LOG_INFO, "taken over in phase %s",
		bt_phase_name(bt_engine_phase(r->engine)));
	bt_run_push(r, p);
	return 0;
}

/* One journal that cannot be read must not keep every other service down: its lease stays with it,
 * so that nobody deploys over what it left. */
int bt_runs_resume(struct bt_server *s, struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	size_t i;
	json_t *row;
	int r = bt_store_select(s->store, &rows, err, BT_SQL_DEPLOYMENTS_OPEN);
	json_array_foreach (rows, i, row) {
		struct bt_err why;
		if (resume(s, row, &why) < 0)
			bt_log(NULL, BT_LOG_ERROR, "not taken over, its lease stays: %s", why.text);
	}
	return r;
}
