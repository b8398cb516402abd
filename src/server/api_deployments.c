/* Deployments: start, list, look at, operate. */
#include "base/clock.h"
#include "server/api.h"

#include <string.h>

static void start(struct bt_http_exchange *x, struct bt_server *s, bool preview)
{
	BT_JSON json_t *body = bt_api_body(x);
	if (body)
		bt_planning_deploy(s, x, body, preview);
}

void bt_api_plan(struct bt_http_exchange *x, void *arg)
{
	start(x, arg, true);
}

void bt_api_deploy(struct bt_http_exchange *x, void *arg)
{
	start(x, arg, false);
}

static void copy_members(json_t *to, const json_t *from, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		json_t *v = json_object_get(from, names[i]);
		if (v)
			json_object_set(to, names[i], v);
	}
}

json_t *bt_api_deployment_json(const json_t *row)
{
	static const char *const plain[] = {"id", "service", "version", "release", "old_release",
		"old_version", "strategy", "purpose", "phase", "end", "exit_code", "reason"};
	json_t *j = json_object();
	copy_members(j, row, plain, BT_ARRAY_LEN(plain));
	bt_api_set_time(j, "started_at", json_integer_value(json_object_get(row, "started_at")));
	bt_api_set_time(j, "ended_at", json_integer_value(json_object_get(row, "ended_at")));
	const char *by = json_string_value(json_object_get(row, "by"));
	json_t *who = by ? json_loads(by, 0, NULL) : NULL;
	if (who)
		json_object_set_new(j, "by", who);
	return j;
}

json_t *bt_api_find_deployment(struct bt_server *s, struct bt_http_exchange *x)
{
	int64_t id = 0;
	struct bt_err err;
	BT_JSON json_t *rows = NULL;
	const char *text = bt_http_param(x, "id");
	json_t *row = NULL;
	int r = 0;
	if (bt_int_parse(text, 1, INT64_MAX, &id, NULL) == 0)
		r = bt_store_select(s->store, &rows, &err, BT_SQL_DEPLOYMENT_GET, id);
	row = json_array_get(rows, 0);
	const char *service = json_string_value(json_object_get(row, "service"));
	if (r == 0 && !row)
		r = bt_err_set(&err, BT_E_NOTFOUND, "no deployment '%.40s'%s", text,
			id > 0 && id < s->next_deployment ? ": old ones are forgotten" : "");
	if (r == 0)
		r = bt_who_may(bt_who(x), service, &err);
	if (r == 0)
		return json_incref(row);
	bt_http_reply_error(x, &err);
	return NULL;
}

/* The row knows the phase of the last phase record; a run that goes on knows better. */
static json_t *listed(struct bt_server *s, const json_t *row)
{
	json_t *j = bt_api_deployment_json(row);
	const struct bt_running *run =
		bt_run_find(s, (uint64_t)json_integer_value(json_object_get(row, "id")));
	if (run && !json_object_get(row, "end"))
		json_object_set_new(j, "phase",
			json_string(bt_phase_name(bt_engine_phase(bt_run_engine(run)))));
	return j;
}

void bt_api_deployments(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_err err;
	BT_JSON json_t *rows = NULL;
	size_t i;
	json_t *row;
	const struct bt_who *w = bt_who(x);
	const char *service = bt_http_query(x, "service");
	int64_t limit = bt_api_query_int(x, "limit", 1, 1000, 50);
	int r = service ? bt_who_may(w, service, &err) : 0;
	if (r == 0) /* others' are among the newest: look further back for one's own */
		r = bt_store_select(s->store, &rows, &err, BT_SQL_DEPLOYMENTS, service,
			w->services && !service ? (int64_t)10000 : limit);
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	json_t *list = json_array();
	json_array_foreach (rows, i, row)
		if ((int64_t)json_array_size(list) < limit &&
			bt_who_sees(w, json_string_value(json_object_get(row, "service"))))
			json_array_append_new(list, listed(s, row));
	bt_http_reply_json(x, 200, json_pack("{s:o}", "deployments", list));
}

static json_t *tasks_json(const struct bt_engine *e, const json_t *plans)
{
	json_t *list = json_array();
	size_t i, k;
	json_t *json;
	json_array_foreach (plans, i, json) {
		struct bt_plan *p = NULL;
		if (bt_plan_from_json(json, &p, NULL) < 0)
			continue;
		for (k = 0; k < p->n_stages; k++)
			for (size_t l = 0; l < p->stages[k].n_lanes; l++)
				for (size_t t = 0; t < p->stages[k].lanes[l].n_tasks; t++) {
					uint32_t id = p->stages[k].lanes[l].tasks[t].id, n = 0;
					enum bt_task_state st = bt_engine_task(e, id, &n);
					json_t *task = bt_project_task(p, id);
					json_object_set_new(
						task, "state", json_string(bt_task_state_name(st)));
					json_object_set_new(task, "attempt", json_integer(n));
					json_object_set_new(
						task, "stage", json_string(p->stages[k].name));
					json_object_set_new(task, "lane",
						json_string(p->stages[k].lanes[l].name));
					json_array_append_new(list, task);
				}
		bt_plan_free(p);
	}
	return list;
}

void bt_api_deployment(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *row = bt_api_find_deployment(s, x);
	struct bt_replay replay;
	struct bt_err err;
	if (!row)
		return;
	uint64_t id = (uint64_t)json_integer_value(json_object_get(row, "id"));
	if (bt_run_replay(s, id, &replay, &err) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	const struct bt_engine *e = replay.engine;
	json_t *plans = replay.plans;
	json_t *j = bt_api_deployment_json(row);
	json_object_set_new(j, "phase", json_string(bt_phase_name(bt_engine_phase(e))));
	if (!json_object_get(j, "reason") && *bt_engine_reason(e))
		json_object_set_new(j, "reason", json_string(bt_engine_reason(e)));
	size_t n = json_array_size(plans);
	if (n)
		json_object_set(j, "plan", json_array_get(plans, n - 1));
	json_object_set(j, "plans", plans);
	json_object_set_new(j, "tasks", tasks_json(e, plans));
	bt_replay_done(&replay);
	bt_http_reply_json(x, 200, j);
}

static int64_t cursor_of(const struct bt_http_exchange *x)
{
	int64_t n = bt_api_query_int(x, "after", 0, INT64_MAX, -1);
	const char *last = bt_http_request_header(x, "Last-Event-ID"); /* a browser's reconnect */
	if (last && bt_int_parse(last, 0, INT64_MAX, &n, NULL) < 0)
		n = 0;
	return n < 0 ? 0 : n;
}

void bt_api_deployment_events(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *row = bt_api_find_deployment(s, x);
	if (row)
		bt_stream_open(s, x, (uint64_t)json_integer_value(json_object_get(row, "id")),
			cursor_of(x));
}

void bt_api_events(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	bool now = bt_streq(bt_http_query(x, "after"), "now") &&
		   !bt_http_request_header(x, "Last-Event-ID");
	bt_stream_open(
		s, x, 0, now ? bt_store_number(s->store, 0, BT_SQL_RECORD_LAST) : cursor_of(x));
}

/* ---- operators --------------------------------------------------------------------------- */

struct wait {
	struct bt_http_exchange *x;
	uint64_t id;
};

static void on_close(void *arg)
{
	struct wait *w = arg;
	w->x = NULL;
}

static void on_operated(void *arg, int result, const struct bt_err *err)
{
	struct wait *w = arg;
	if (w->x && result < 0)
		bt_http_reply_error(w->x, err);
	else if (w->x)
		bt_http_reply_json(w->x, 202, json_pack("{s:I}", "id", (json_int_t)w->id));
	free(w);
}

/* "alice", or "alice: WHY" with what the body says. */
static int read_why(struct bt_http_exchange *x, char **ret_by, struct bt_err *err)
{
	size_t n;
	const void *data = bt_http_body(x, &n);
	BT_JSON json_t *body = NULL;
	const char *why = NULL;
	int r = n ? bt_json_parse(data, n, n, &body, err) : 0;
	if (r == 0 && body)
		r = bt_json_str_opt(body, "why", &why, err);
	if (r == 0 && why && strlen(why) > BT_WHY_MAX)
		r = bt_err_set(err, BT_E_PROTOCOL, "why: longer than %d characters", BT_WHY_MAX);
	if (r == 0)
		*ret_by = why && *why ? bt_asprintf("%s: %s", bt_who(x)->name, why)
				      : bt_strdup(bt_who(x)->name);
	return r;
}

void bt_api_operate(struct bt_http_exchange *x, void *arg)
{
	static const struct {
		const char *name;
		enum bt_operator op;
	} ops[] = {{"pause", BT_OP_PAUSE}, {"resume", BT_OP_RESUME}, {"abort", BT_OP_ABORT},
		{"promote", BT_OP_PROMOTE}, {"rollback", BT_OP_ROLLBACK},
		{"approve", BT_OP_APPROVE}, {"reject", BT_OP_REJECT}};
	struct bt_server *s = arg;
	const char *op = bt_http_param(x, "op");
	size_t i = 0;
	while (i < BT_ARRAY_LEN(ops) && strcmp(ops[i].name, op) != 0)
		i++;
	if (i == BT_ARRAY_LEN(ops)) {
		bt_api_error(x, BT_E_NOTFOUND,
			"no operation '%.40s': expected pause, resume, abort, promote, rollback, "
			"approve or reject",
			op);
		return;
	}
	BT_JSON json_t *row = bt_api_find_deployment(s, x);
	if (!row)
		return;
	uint64_t id = (uint64_t)json_integer_value(json_object_get(row, "id"));
	struct bt_running *run = bt_run_find(s, id);
	if (!run || bt_engine_phase(bt_run_engine(run)) == BT_PHASE_ENDED) {
		bt_api_error(x, BT_E_EXISTS, "deployment %llu has ended%s", (unsigned long long)id,
			ops[i].op == BT_OP_ROLLBACK
				? ": baton rollback SERVICE goes back to the release before"
				: "");
		return;
	}
	BT_FREE char *by = NULL;
	struct bt_err err;
	if (read_why(x, &by, &err) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	struct wait *w = bt_calloc(1, sizeof *w);
	*w = (struct wait){x, id};
	bt_http_on_close(x, on_close, w);
	bt_run_operate(run, ops[i].op, by, bt_who(x)->from, on_operated, w);
}
