/* Records as JSON, as journals and golden files keep them: names for kinds, members that are zero
 * left out, and a version in each, so that a journal of today is read by the code of tomorrow. */
#include "engine/engine.h"

#include "base/json.h"
#include "base/str.h"

static const char *const kinds[BT_RECORD_KINDS] = {
	[BT_RECORD_PLAN] = "plan",
	[BT_RECORD_TOKEN] = "token",
	[BT_RECORD_STAGE] = "stage",
	[BT_RECORD_SENT] = "sent",
	[BT_RECORD_RESULT] = "result",
	[BT_RECORD_RETRY] = "retry",
	[BT_RECORD_SKIPPED] = "skipped",
	[BT_RECORD_LANE_FAILED] = "lane_failed",
	[BT_RECORD_LANE_UNDONE] = "lane_undone",
	[BT_RECORD_OPERATOR] = "operator",
	[BT_RECORD_AGENT] = "agent",
	[BT_RECORD_PHASE] = "phase",
	[BT_RECORD_END] = "end",
};

static const char *const phases[] = {
	[BT_PHASE_NEW] = "new",
	[BT_PHASE_RUNNING] = "running",
	[BT_PHASE_PAUSED] = "paused",
	[BT_PHASE_UNDOING] = "undoing",
	[BT_PHASE_OBSERVING] = "observing",
	[BT_PHASE_PLANNING] = "planning",
	[BT_PHASE_ROLLING_BACK] = "rolling_back",
	[BT_PHASE_CLOSING] = "closing",
	[BT_PHASE_PARKED] = "parked",
	[BT_PHASE_ENDED] = "ended",
};

static const char *const ends[] = {
	[BT_END_NONE] = "none",
	[BT_END_DONE] = "done",
	[BT_END_ROLLED_BACK] = "rolled_back",
	[BT_END_HALTED] = "halted",
	[BT_END_PARKED] = "parked",
	[BT_END_REFUSED] = "refused",
};

static const char *const operators[] = {
	[BT_OP_PAUSE] = "pause",
	[BT_OP_RESUME] = "resume",
	[BT_OP_ABORT] = "abort",
	[BT_OP_PROMOTE] = "promote",
	[BT_OP_ROLLBACK] = "rollback",
	[BT_OP_APPROVE] = "approve",
	[BT_OP_REJECT] = "reject",
};

static const char *const states[] = {
	[BT_TASK_WAITING] = "waiting",
	[BT_TASK_SENT] = "running",
	[BT_TASK_DONE] = "done",
	[BT_TASK_FAILED] = "failed",
	[BT_TASK_UNKNOWN] = "unknown",
	[BT_TASK_UNDO_SENT] = "undoing",
	[BT_TASK_UNDONE] = "undone",
	[BT_TASK_UNDO_FAILED] = "undo_failed",
	[BT_TASK_SKIPPED] = "skipped",
};

#define NAME(table, i) ((size_t)(i) < BT_ARRAY_LEN(table) ? (table)[i] : "?")

const char *bt_record_kind_name(enum bt_record_kind k)
{
	return NAME(kinds, k);
}

const char *bt_phase_name(enum bt_phase p)
{
	return NAME(phases, p);
}

const char *bt_end_name(enum bt_end e)
{
	return NAME(ends, e);
}

const char *bt_operator_name(enum bt_operator o)
{
	return NAME(operators, o);
}

const char *bt_task_state_name(enum bt_task_state s)
{
	return NAME(states, s);
}

static int parse(const json_t *j, const char *key, const char *const *names, size_t n, int *ret,
	struct bt_err *err)
{
	const char *text = NULL;
	int r = bt_json_str(j, key, &text, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if (bt_streq(text, names[i])) {
			*ret = (int)i;
			return 0;
		}
	return bt_err_set(err, BT_E_PROTOCOL, "member '%s': '%s' is not known", key, text);
}
#define PARSE(j, key, table, ret, err) parse(j, key, table, BT_ARRAY_LEN(table), ret, err)

/* ── writing ── */

static void put_int(json_t *j, const char *key, uint64_t v)
{
	if (v)
		json_object_set_new(j, key, json_integer((json_int_t)v));
}

static void put_index(json_t *j, const char *key, uint16_t v)
{
	if (v != BT_NONE)
		json_object_set_new(j, key, json_integer(v));
}

static void put_list(json_t *j, const char *key, const uint16_t *list, size_t n)
{
	if (!n)
		return;
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_integer(list[i]));
	json_object_set_new(j, key, a);
}

static json_t *command_to_json(const struct bt_command *c)
{
	json_t *j = json_object();
	json_object_set_new(j, "key", bt_key_to_json(&c->key));
	json_object_set_new(j, "task", json_string(bt_task_info(c->kind)->name));
	put_int(j, "token", c->token);
	json_object_set_new(j, "host", json_integer(c->host));
	put_index(j, "instance", c->instance);
	put_index(j, "balancer", c->balancer);
	put_int(j, "release", c->release);
	put_int(j, "generation", c->generation);
	put_list(j, "pool", c->pool, c->n_pool);
	put_index(j, "one", c->one);
	put_list(j, "out", c->out, c->n_out);
	if (c->prior.known)
		json_object_set_new(j, "prior", bt_prior_to_json(&c->prior));
	put_int(j, "timeout_ms", (uint64_t)c->timeout_ms);
	put_int(j, "wait_ms", (uint64_t)c->wait_ms);
	return j;
}

static bool has_command(enum bt_record_kind k)
{
	return k == BT_RECORD_SENT || k == BT_RECORD_RETRY || k == BT_RECORD_SKIPPED;
}

static bool has_lane(enum bt_record_kind k)
{
	return has_command(k) || k == BT_RECORD_RESULT || k == BT_RECORD_LANE_FAILED ||
	       k == BT_RECORD_LANE_UNDONE;
}

json_t *bt_record_to_json(const struct bt_record *r)
{
	json_t *j = json_object();
	json_object_set_new(j, "v", json_integer(BT_RECORD_VERSION));
	json_object_set_new(j, "kind", json_string(NAME(kinds, r->kind)));
	json_object_set_new(j, "at_ms", json_integer(r->at_ms));
	if (r->kind == BT_RECORD_PLAN)
		json_object_set_new(j, "plan", bt_plan_to_json(r->plan));
	if (r->kind == BT_RECORD_TOKEN)
		put_int(j, "token", r->token);
	if (has_lane(r->kind) || r->kind == BT_RECORD_STAGE)
		json_object_set_new(j, "stage", json_integer(r->stage));
	if (has_lane(r->kind))
		put_index(j, "lane", r->lane);
	if (has_command(r->kind))
		json_object_set_new(j, "command", command_to_json(&r->command));
	if (r->kind == BT_RECORD_RESULT) {
		json_object_set_new(j, "task", json_string(bt_task_info(r->command.kind)->name));
		json_object_set_new(j, "result", bt_result_to_json(&r->result));
	}
	if (r->kind == BT_RECORD_PHASE)
		json_object_set_new(j, "phase", json_string(NAME(phases, r->phase)));
	if (r->kind == BT_RECORD_END || r->end != BT_END_NONE)
		json_object_set_new(j, "end", json_string(NAME(ends, r->end)));
	if (r->kind == BT_RECORD_OPERATOR)
		json_object_set_new(j, "op", json_string(NAME(operators, r->op)));
	if (r->kind == BT_RECORD_AGENT) {
		json_object_set_new(j, "host", json_integer(r->host));
		json_object_set_new(j, "back", json_boolean(r->back));
	}
	if (r->text) {
		json_t *text = json_string(r->text);
		json_object_set_new(
			j, "text", text ? text : json_string("(the text is not UTF-8)"));
	}
	return j;
}

/* ── reading ── */

static int get_index(const json_t *j, const char *key, uint16_t *ret, struct bt_err *err)
{
	int64_t v = BT_NONE;
	int r = bt_json_int_opt(j, key, 0, BT_NONE, &v, err);
	if (r < 0)
		return r;
	*ret = (uint16_t)v;
	return 0;
}

static int get_list(const json_t *j, const char *key, struct bt_arena *a, const uint16_t **ret,
	size_t *ret_n, struct bt_err *err)
{
	const json_t *list = json_object_get(j, key);
	size_t n = json_array_size(list);
	if (list && !json_is_array(list))
		return bt_err_set(err, BT_E_PROTOCOL, "member '%s': expected an array", key);
	if (n > BT_PLAN_MAX_INSTANCES)
		return bt_err_set(err, BT_E_PROTOCOL, "member '%s': %zu entries", key, n);
	uint16_t *items = bt_arena_alloc(a, n * sizeof *items);
	for (size_t i = 0; i < n; i++) {
		const json_t *v = json_array_get(list, i);
		if (!json_is_integer(v) || json_integer_value(v) < 0 ||
			json_integer_value(v) >= BT_PLAN_MAX_INSTANCES)
			return bt_err_set(err, BT_E_PROTOCOL, "member '%s': expected indexes", key);
		items[i] = (uint16_t)json_integer_value(v);
	}
	*ret = items;
	*ret_n = n;
	return 0;
}

static int get_kind(const json_t *j, enum bt_task_kind *ret, struct bt_err *err)
{
	const char *name = NULL;
	int r = bt_json_str(j, "task", &name, err);
	if (r < 0)
		return r;
	const struct bt_task_info *info = bt_task_find(name);
	if (!info)
		return bt_err_set(err, BT_E_PROTOCOL, "'%s' is no kind of task", name);
	*ret = info->kind;
	return 0;
}

#define MAX_MS ((int64_t)400 * 86400000)

static int command_from_json(
	const json_t *j, struct bt_arena *a, struct bt_command *c, struct bt_err *err)
{
	json_t *key = NULL;
	int64_t token = 0, release = 0, generation = 0, host = 0;
	const json_t *prior = json_object_get(j, "prior");
	int r;
	if ((r = bt_json_object(j, "key", &key, err)) < 0 ||
		(r = bt_key_from_json(key, &c->key, err)) < 0 ||
		(r = get_kind(j, &c->kind, err)) < 0 ||
		(r = bt_json_int_opt(j, "token", 0, INT64_MAX, &token, err)) < 0 ||
		(r = bt_json_int(j, "host", 0, UINT16_MAX, &host, err)) < 0 ||
		(r = get_index(j, "instance", &c->instance, err)) < 0 ||
		(r = get_index(j, "balancer", &c->balancer, err)) < 0 ||
		(r = bt_json_int_opt(j, "release", 0, UINT32_MAX, &release, err)) < 0 ||
		(r = bt_json_int_opt(j, "generation", 0, INT64_MAX, &generation, err)) < 0 ||
		(r = get_list(j, "pool", a, &c->pool, &c->n_pool, err)) < 0 ||
		(r = get_index(j, "one", &c->one, err)) < 0 ||
		(r = get_list(j, "out", a, &c->out, &c->n_out, err)) < 0 ||
		(r = bt_json_int_opt(j, "timeout_ms", 0, MAX_MS, &c->timeout_ms, err)) < 0 ||
		(r = bt_json_int_opt(j, "wait_ms", 0, MAX_MS, &c->wait_ms, err)) < 0)
		return r;
	if (prior && (r = bt_prior_from_json(prior, &c->prior, err)) < 0)
		return r;
	c->token = (uint64_t)token;
	c->host = (uint16_t)host;
	c->release = (uint32_t)release;
	c->generation = (uint64_t)generation;
	return 0;
}

static int parts_from_json(
	const json_t *j, struct bt_arena *a, struct bt_record *rec, struct bt_err *err)
{
	json_t *part = NULL;
	int64_t token = 0, stage = 0, host = 0;
	int phase = 0, op = 0, r;
	switch (rec->kind) {
	case BT_RECORD_TOKEN:
		r = bt_json_int(j, "token", 1, INT64_MAX, &token, err);
		rec->token = (uint64_t)token;
		return r;
	case BT_RECORD_PHASE:
		r = PARSE(j, "phase", phases, &phase, err);
		rec->phase = (enum bt_phase)phase;
		return r;
	case BT_RECORD_OPERATOR:
		r = PARSE(j, "op", operators, &op, err);
		rec->op = (enum bt_operator)op;
		return r;
	case BT_RECORD_AGENT:
		if ((r = bt_json_int(j, "host", 0, UINT16_MAX, &host, err)) < 0)
			return r;
		rec->host = (uint16_t)host;
		return bt_json_bool(j, "back", &rec->back, err);
	default:
		break;
	}
	if (has_lane(rec->kind) || rec->kind == BT_RECORD_STAGE)
		if ((r = bt_json_int(j, "stage", 0, UINT16_MAX, &stage, err)) < 0)
			return r;
	rec->stage = (uint16_t)stage;
	if (has_lane(rec->kind) && (r = get_index(j, "lane", &rec->lane, err)) < 0)
		return r;
	if (has_command(rec->kind))
		return (r = bt_json_object(j, "command", &part, err)) < 0
			       ? r
			       : command_from_json(part, a, &rec->command, err);
	if (rec->kind != BT_RECORD_RESULT)
		return 0;
	if ((r = get_kind(j, &rec->command.kind, err)) < 0 ||
		(r = bt_json_object(j, "result", &part, err)) < 0 ||
		(r = bt_result_from_json(part, a, &rec->result, err)) < 0)
		return r;
	rec->command.key = rec->result.key;
	return 0;
}

int bt_record_from_json(
	const json_t *j, struct bt_arena *a, struct bt_record *ret, struct bt_err *err)
{
	struct bt_record rec = {0};
	const char *text = NULL;
	int64_t version = 0;
	int kind = 0, end = 0, r;
	if ((r = bt_json_int(j, "v", 1, INT64_MAX, &version, err)) < 0)
		return r;
	if (version > BT_RECORD_VERSION)
		return bt_err_set(err, BT_E_PROTOCOL,
			"record of version %lld; this baton reads up to %d: use a newer one",
			(long long)version, BT_RECORD_VERSION);
	if ((r = PARSE(j, "kind", kinds, &kind, err)) < 0 ||
		(r = bt_json_int(j, "at_ms", INT64_MIN, INT64_MAX, &rec.at_ms, err)) < 0 ||
		(r = bt_json_str_opt(j, "text", &text, err)) < 0)
		return r;
	rec.kind = (enum bt_record_kind)kind;
	if (json_object_get(j, "end") || rec.kind == BT_RECORD_END)
		if ((r = PARSE(j, "end", ends, &end, err)) < 0)
			return r;
	rec.end = (enum bt_end)end;
	if ((r = parts_from_json(j, a, &rec, err)) < 0)
		return bt_err_wrap(err, "record '%s'", kinds[kind]);
	rec.text = bt_arena_strdup(a, text);
	if (rec.kind == BT_RECORD_PLAN) { /* last: what is made here is the caller's */
		struct bt_plan *plan = NULL;
		if ((r = bt_plan_from_json(json_object_get(j, "plan"), &plan, err)) < 0)
			return r;
		rec.plan = plan;
	}
	*ret = rec;
	return 0;
}
