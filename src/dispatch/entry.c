/* Ledger entries as JSON lines. */
#include "dispatch/ledger.h"

#include "base/json.h"
#include "base/str.h"

static const char *const kinds[] = {
	[BT_LEDGER_STORE] = "store",
	[BT_LEDGER_ACCEPTED] = "accepted",
	[BT_LEDGER_BEGUN] = "begun",
	[BT_LEDGER_DONE] = "done",
	[BT_LEDGER_ACKED] = "acked",
};

json_t *bt_ledger_entry_to_json(const struct bt_ledger_entry *e)
{
	json_t *j = json_pack("{s:s}", "entry", kinds[e->kind]);
	if (e->kind == BT_LEDGER_STORE) {
		json_object_set_new(j, "store", json_string(e->store));
		json_object_set_new(j, "seq", json_integer((json_int_t)e->seq));
		return j;
	}
	if (e->key.deployment)
		json_object_set_new(j, "key", bt_key_to_json(&e->key));
	if (e->kind == BT_LEDGER_ACCEPTED) {
		json_object_set_new(j, "seq", json_integer((json_int_t)e->seq));
		json_object_set_new(j, "service", json_string(e->service));
		json_object_set_new(j, "token", json_integer((json_int_t)e->token));
		if (e->key.deployment)
			json_object_set_new(j, "task", json_string(bt_task_info(e->task)->name));
		if (e->command)
			json_object_set_new(j, "command", json_string(e->command));
	} else if (e->kind == BT_LEDGER_BEGUN) {
		json_object_set_new(j, "prior", bt_prior_to_json(&e->prior));
	} else if (e->kind == BT_LEDGER_DONE) {
		json_object_set_new(j, "result", bt_result_to_json(&e->result));
	}
	return j;
}

static int accepted_from_json(
	const json_t *j, struct bt_arena *a, struct bt_ledger_entry *e, struct bt_err *err)
{
	int64_t token = 0;
	const char *service = NULL, *task = NULL, *command = NULL;
	int r;
	if ((r = bt_json_str(j, "service", &service, err)) < 0 ||
		(r = bt_json_int(j, "token", 0, INT64_MAX, &token, err)) < 0 ||
		(r = bt_json_str_opt(j, "task", &task, err)) < 0 ||
		(r = bt_json_str_opt(j, "command", &command, err)) < 0)
		return r;
	const struct bt_task_info *info = bt_task_find(task ? task : "Observe");
	if (!info)
		return bt_err_set(
			err, BT_E_PROTOCOL, "member 'task': '%s' is no kind of task", task);
	e->service = bt_arena_strdup(a, service);
	e->token = (uint64_t)token;
	e->task = info->kind;
	e->command = bt_arena_strdup(a, command);
	return 0;
}

static int parts_from_json(
	const json_t *j, struct bt_arena *a, struct bt_ledger_entry *e, struct bt_err *err)
{
	json_t *part = NULL;
	const char *store = NULL;
	int64_t seq = 0;
	int r;
	if ((r = bt_json_int_opt(j, "seq", 0, INT64_MAX, &seq, err)) < 0)
		return r;
	e->seq = (uint64_t)seq;
	if (e->kind == BT_LEDGER_STORE) {
		if ((r = bt_json_str(j, "store", &store, err)) < 0)
			return r;
		e->store = bt_arena_strdup(a, store);
		return 0;
	}
	const json_t *key = json_object_get(j, "key");
	if (key || e->kind != BT_LEDGER_ACCEPTED)
		if ((r = bt_key_from_json(key, &e->key, err)) < 0)
			return r;
	if (e->kind == BT_LEDGER_ACCEPTED)
		return accepted_from_json(j, a, e, err);
	if (e->kind == BT_LEDGER_BEGUN)
		return (r = bt_json_object(j, "prior", &part, err)) < 0
			       ? r
			       : bt_prior_from_json(part, &e->prior, err);
	if (e->kind == BT_LEDGER_DONE)
		return (r = bt_json_object(j, "result", &part, err)) < 0
			       ? r
			       : bt_result_from_json(part, a, &e->result, err);
	return 0;
}

int bt_ledger_entry_from_json(
	const json_t *j, struct bt_arena *a, struct bt_ledger_entry *ret, struct bt_err *err)
{
	struct bt_ledger_entry e = {0};
	const char *kind = NULL;
	int r = bt_json_str(j, "entry", &kind, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < BT_ARRAY_LEN(kinds); i++) {
		if (!bt_streq(kind, kinds[i]))
			continue;
		e.kind = (enum bt_ledger_kind)i;
		if ((r = parts_from_json(j, a, &e, err)) < 0)
			return r;
		*ret = e;
		return 0;
	}
	return bt_err_set(err, BT_E_PROTOCOL, "'%s' is no kind of ledger entry", kind);
}
