/* The transaction of one step, and what follows in memory once it is durable. Records that mean
 * more than themselves have a row in `writes`: what else is written with them. */
#include "base/clock.h"
#include "server/run_priv.h"

#include <stdio.h>
#include <string.h>

static const struct bt_plan *plan_at(const struct bt_running *r, size_t record)
{
	for (size_t i = record + 1; i-- > 0;)
		if (r->update.records[i].kind == BT_RECORD_PLAN)
			return r->update.records[i].plan;
	return bt_engine_plan(r->engine);
}

static void key_text(const struct bt_command_key *k, char buf[static 48])
{
	snprintf(buf, 48, "%u %s %u", k->task, bt_verb_name(k->verb), k->attempt);
}

/* ---- writes ------------------------------------------------------------------------------ */

static void write_token(struct bt_running *r, const struct bt_record *rec, struct bt_txn *t)
{
	bt_txn_add(t, BT_SQL_SERVICE_TOKEN, r->service, (int64_t)rec->token);
	bt_txn_add(t, BT_SQL_DEPLOYMENT_TOKEN, (int64_t)r->id, (int64_t)rec->token);
}

static void write_result(struct bt_running *r, const struct bt_record *rec, struct bt_txn *t)
{
	const struct bt_command_key *k = &rec->result.key;
	(void)r;
	bt_txn_add(t, BT_SQL_OUTBOX_SETTLE, (int64_t)k->deployment, (int64_t)k->task,
		bt_verb_name(k->verb), (int64_t)k->attempt);
}

static void write_sent(struct bt_running *r, const struct bt_record *rec, struct bt_txn *t)
{
	const struct bt_command *c = &rec->command;
	const struct bt_plan *p = plan_at(r, r->update.n_records - 1);
	if (c->kind == BT_TASK_SWITCH && p && c->balancer < p->n_balancers)
		bt_txn_add(t, BT_SQL_GENERATION_RAISE, p->hosts[c->host],
			p->balancers[c->balancer].name, (int64_t)c->generation);
}

static void write_operator(struct bt_running *r, const struct bt_record *rec, struct bt_txn *t)
{
	BT_JSON json_t *j = bt_record_to_json(rec);
	const char *op = json_string_value(json_object_get(j, "op"));
	/* the run's own limit wishes too, and that is nobody's */
	const struct bt_pending *p = r->current;
	const char *by = p && p->by ? p->by : "baton", *why = by + strcspn(by, ":");
	BT_FREE char *who = bt_strndup(by, (size_t)(why - by)); /* of "alice: WHY" */
	BT_FREE char *detail = bt_asprintf("deployment %llu%s", (unsigned long long)r->id, why);
	bt_server_audit(t, &(struct bt_audit){who, p ? p->from : NULL, r->service, op, detail});
}

static void write_phase(struct bt_running *r, const struct bt_record *rec, struct bt_txn *t)
{
	bt_txn_add(t, BT_SQL_DEPLOYMENT_PHASE, (int64_t)r->id, bt_phase_name(rec->phase));
}

static int64_t paused_ms(const struct bt_running *r, int64_t now)
{
	return r->paused_ms + (r->paused_since ? now - r->paused_since : 0);
}

static int64_t retire_at(const struct bt_running *r)
{
	int64_t warm = r->config->services[0].deploy.keep_warm_ms;
	return warm > 0 ? bt_clock_wall_ms() + warm : 0;
}

/* What serves, and what is kept warm, is as it was. */
static bool leaves_live(const struct bt_running *r)
{
	return bt_streq(r->purpose, "prune") || bt_streq(r->purpose, "flow");
}

static void write_end(struct bt_running *r, const struct bt_record *rec, struct bt_txn *t)
{
	const char *end = bt_end_name(rec->end);
	bool deploy = bt_streq(r->purpose, "deploy"), retire = bt_streq(r->purpose, "retire");
	const char *reason = rec->text ? rec->text : bt_engine_reason(r->engine);
	bt_txn_add(t, BT_SQL_DEPLOYMENT_END, (int64_t)r->id, bt_phase_name(BT_PHASE_ENDED), end,
		(int64_t)bt_end_exit_code(end), reason, bt_clock_wall_ms(),
		paused_ms(r, rec->at_ms));
	bt_txn_add(t, BT_SQL_LEASE_END, (int64_t)r->id);
	bt_txn_add(t, BT_SQL_OUTBOX_SETTLE_RUN, (int64_t)r->id);
	if (rec->end == BT_END_DONE && retire) {
		bt_txn_add(t, BT_SQL_SERVICE_RETIRE_AT, r->service, (int64_t)0);
	} else if (rec->end == BT_END_DONE && !leaves_live(r)) {
		bt_txn_add(t, BT_SQL_RELEASE_STATE, (int64_t)r->release, "good");
		bt_txn_add(t, BT_SQL_SERVICE_LIVE, r->service, (int64_t)r->release);
		bt_txn_add(t, BT_SQL_SERVICE_RETIRE_AT, r->service, retire_at(r));
		BT_FREE char *why = bt_asprintf("deployment %llu", (unsigned long long)r->id);
		bt_stored_put_release(r->server, t, r->service_json, r->release, r->holder, why);
	} else if (deploy && rec->end != BT_END_REFUSED) {
		bt_txn_add(t, BT_SQL_RELEASE_STATE, (int64_t)r->release, "bad");
	}
	BT_FREE char *detail = bt_asprintf("deployment %llu: %s", (unsigned long long)r->id, end);
	bt_server_audit(t, &(struct bt_audit){r->holder, NULL, r->service, "end", detail});
}

static void (*const writes[BT_RECORD_KINDS])(
	struct bt_running *r, const struct bt_record *rec, struct bt_txn *t) = {
	[BT_RECORD_TOKEN] = write_token,
	[BT_RECORD_SENT] = write_sent,
	[BT_RECORD_RESULT] = write_result,
	[BT_RECORD_OPERATOR] = write_operator,
	[BT_RECORD_PHASE] = write_phase,
	[BT_RECORD_END] = write_end,
};

static void put_record(struct bt_running *r, size_t i, struct bt_txn *t)
{
	const struct bt_record *rec = &r->update.records[i];
	int64_t wall = bt_clock_wall_ms();
	BT_JSON json_t *body = bt_record_to_json(rec);
	r->cursors[i] = r->server->next_cursor++;
	BT_JSON json_t *event =
		bt_project_record(plan_at(r, i), r->service, r->id, r->cursors[i], wall, rec);
	BT_FREE char *text = bt_json_dump(body);
	r->events[i] = bt_json_dump(event);
	bt_txn_add(t, BT_SQL_RECORD_ADD, r->cursors[i], (int64_t)r->id, wall,
		json_string_value(json_object_get(body, "kind")), text, r->events[i]);
	if (writes[rec->kind])
		writes[rec->kind](r, rec, t);
}

static int put_command(struct bt_running *r, size_t i, struct bt_txn *t, struct bt_err *err)
{
	const struct bt_command *c = &r->update.commands[i];
	const struct bt_plan *p = plan_at(r, r->update.n_records ? r->update.n_records - 1 : 0);
	BT_JSON json_t *j = NULL;
	if (!p || c->host >= p->n_hosts)
		return bt_err_set(err, BT_E_CORRUPT, "a command for a host that no plan names");
	const char *host = p->hosts[c->host];
	if (!bt_host_find(r->server, host))
		return bt_err_set(err, BT_E_NOTFOUND, "host %s is not known any more", host);
	int rc = bt_params_command(r->server, p, r->service, r->service_json, c, &j, err);
	if (rc < 0)
		return bt_err_wrap(err, "host %s", host);
	struct bt_out *o = &r->out[i];
	o->host = bt_strdup(host);
	o->json = bt_json_dump(j);
	o->op = bt_txn_add(t, BT_SQL_HOST_NEXT_SEQ, host);
	bt_txn_add(t, BT_SQL_OUTBOX_ADD, host, (int64_t)c->key.deployment, (int64_t)c->key.task,
		bt_verb_name(c->key.verb), (int64_t)c->key.attempt, bt_params_digest(j), o->json);
	return 0;
}

int bt_run_transaction(struct bt_running *r, struct bt_txn **ret, struct bt_err *err)
{
	const struct bt_update *u = &r->update;
	struct bt_txn *t = *ret = r->current->extra ? BT_STEAL(r->current->extra) : bt_txn_new();
	r->out = bt_calloc(u->n_commands + 1, sizeof *r->out);
	r->events = bt_calloc(u->n_records + 1, sizeof *r->events);
	r->cursors = bt_calloc(u->n_records + 1, sizeof *r->cursors);
	for (size_t i = 0; i < u->n_records; i++)
		put_record(r, i, t);
	int rc = 0;
	for (size_t i = 0; i < u->n_commands && rc == 0; i++)
		rc = put_command(r, i, t, err);
	return rc;
}

/* ---- effects in memory ------------------------------------------------------------------- */

static void forget_outbox(struct bt_running *r, const struct bt_command_key *k)
{
	for (struct bt_host *h = r->server->hosts; h; h = h->next)
		while (bt_outbox_settle(h->outbox, k))
			;
}

static void keep_log(struct bt_running *r, const struct bt_record *rec)
{
	char path[128];
	const struct bt_command_key *k = &rec->result.key;
	snprintf(path, sizeof path, "runs/%llu/%06u-%s-%u.log", (unsigned long long)r->id, k->task,
		bt_verb_name(k->verb), k->attempt);
	bt_server_write_later(r->server, path, bt_strdup(r->current->log));
}

/* A program that failed says why in its own words. */
static void keep_words(struct bt_running *r, const struct bt_record *rec)
{
	const struct bt_plan *p = bt_engine_plan(r->engine);
	const struct bt_task *t = p ? bt_plan_task(p, rec->result.key.task, NULL) : NULL;
	if (!t || !t->exec || !r->current->log)
		return;
	json_t *lines = json_array();
	BT_FREE char *text = bt_strdup(r->current->log);
	for (char *save = NULL, *l = strtok_r(text, "\n", &save); l;
		l = strtok_r(NULL, "\n", &save)) {
		const char *bar = strstr(l, " | ");
		if (*l == '+' && bar)
			json_array_append_new(lines, json_string(bar + 3));
		if (json_array_size(lines) > BT_TAIL_LINES)
			json_array_remove(lines, 0);
	}
	BT_FREE char *name = bt_asprintf("%s on %s", t->exec->run[0], p->hosts[t->host]);
	json_object_set_new(r->said, name, lines);
}

static void saw_result(struct bt_running *r, const struct bt_record *rec)
{
	char key[48];
	key_text(&rec->result.key, key);
	json_t *sent = json_object_get(r->sent_at, key);
	if (sent)
		bt_metrics_task(r->server, bt_task_info(rec->command.kind)->name,
			rec->at_ms - json_integer_value(sent), rec->command.kind == BT_TASK_DRAIN);
	json_object_del(r->sent_at, key);
	forget_outbox(r, &rec->result.key);
	if (r->current->log && r->current->log[0])
		keep_log(r, rec);
	if (rec->result.outcome == BT_OUTCOME_DONE)
		return;
	keep_words(r, rec);
	BT_JSON json_t *task = bt_project_task(bt_engine_plan(r->engine), rec->result.key.task);
	const char *instance = json_string_value(json_object_get(task, "instance"));
	if (instance)
		json_object_set_new(r->failing, instance, json_true());
}

static void saw_phase(struct bt_running *r, const struct bt_record *rec)
{
	if (rec->phase == BT_PHASE_PAUSED) {
		r->paused_since = rec->at_ms;
	} else if (r->paused_since) {
		r->paused_ms = paused_ms(r, rec->at_ms);
		r->paused_since = 0;
	}
	if (rec->phase == BT_PHASE_OBSERVING)
		r->observed_since = bt_clock_boot_ms();
	bt_log(&r->log, BT_LOG_INFO, "%s%s%s", bt_phase_name(rec->phase), rec->text ? ": " : "",
		rec->text ? rec->text : "");
}

static void saw_end(struct bt_running *r, const struct bt_record *rec)
{
	struct bt_svc *svc = bt_server_service_add(r->server, r->service);
	for (struct bt_host *h = r->server->hosts; h; h = h->next) {
		const struct bt_outbox_item **items = NULL;
		size_t n = bt_outbox_after(h->outbox, 0, SIZE_MAX, &items);
		struct bt_command_key *keys = bt_calloc(n + 1, sizeof *keys);
		for (size_t i = 0; i < n; i++)
			keys[i] = items[i]->key;
		free(items);
		for (size_t i = 0; i < n; i++)
			if (keys[i].deployment == r->id)
				bt_outbox_settle(h->outbox, &keys[i]);
		free(keys);
	}
	if (rec->end == BT_END_DONE && leaves_live(r)) {
		/* nothing to note */
	} else if (rec->end == BT_END_DONE && !bt_streq(r->purpose, "retire")) {
		svc->live = r->release;
		svc->retire_at = retire_at(r);
	} else if (rec->end == BT_END_DONE) {
		svc->retire_at = 0;
	}
	bt_log(&r->log, rec->end == BT_END_DONE ? BT_LOG_INFO : BT_LOG_WARN, "ended: %s%s%s",
		bt_end_name(rec->end), rec->text ? ": " : "", rec->text ? rec->text : "");
}

void bt_run_effects(struct bt_running *r)
{
	for (size_t i = 0; i < r->update.n_records; i++) {
		const struct bt_record *rec = &r->update.records[i];
		char key[48];
		r->server->n_records++;
		switch (rec->kind) {
		case BT_RECORD_PLAN:
			json_object_clear(r->lost);
			break;
		case BT_RECORD_SENT:
			key_text(&rec->command.key, key);
			json_object_set_new(r->sent_at, key, json_integer(rec->at_ms));
			break;
		case BT_RECORD_RESULT:
			saw_result(r, rec);
			break;
		case BT_RECORD_PHASE:
			saw_phase(r, rec);
			break;
		case BT_RECORD_END:
			saw_end(r, rec);
			break;
		default:
			break;
		}
	}
}
