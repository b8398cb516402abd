/* POST /v1/tasks and GET /v1/tasks/{id}: a task is a run of one, so what is said of it is what is
 * said of a deployment, and who asks with ?wait= is answered when it has ended. */
#include "server/api.h"
#include "server/tasks.h"

struct bt_task_waiter {
	struct bt_task_waiter *next;
	struct bt_server *server;
	struct bt_http_exchange *x;
	struct event *late;
	uint64_t id;
};

static json_t *row_of(struct bt_server *s, uint64_t id)
{
	BT_JSON json_t *rows = NULL;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_DEPLOYMENT_GET, (int64_t)id) < 0)
		return NULL;
	return json_incref(json_array_get(rows, 0));
}

static void answer(struct bt_server *s, struct bt_http_exchange *x, uint64_t id)
{
	BT_JSON json_t *row = row_of(s, id);
	json_t *j = row ? bt_api_deployment_json(row) : json_pack("{s:I}", "id", (json_int_t)id);
	bool ended = row && json_is_string(json_object_get(row, "end"));
	json_object_del(j, "version"); /* a task is of what is there */
	json_object_set(j, "task", json_object_get(j, "strategy"));
	json_object_del(j, "strategy");
	bt_http_reply_json(x, ended ? 200 : 202, j);
}

static void drop(struct bt_task_waiter *w)
{
	for (struct bt_task_waiter **p = &w->server->task_waiters; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	event_free(w->late);
	free(w);
}

static void finish(struct bt_task_waiter *w)
{
	struct bt_server *s = w->server;
	struct bt_http_exchange *x = w->x;
	uint64_t id = w->id;
	drop(w);
	bt_http_on_close(x, NULL, NULL);
	answer(s, x, id);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	finish(arg);
}

static void on_close(void *arg)
{
	drop(arg);
}

void bt_tasks_answer(struct bt_server *s, struct bt_http_exchange *x, uint64_t id, int64_t wait_ms)
{
	BT_JSON json_t *row = row_of(s, id);
	if (!wait_ms || (row && json_is_string(json_object_get(row, "end")))) {
		answer(s, x, id);
		return;
	}
	struct bt_task_waiter *w = bt_calloc(1, sizeof *w);
	*w = (struct bt_task_waiter){s->task_waiters, s, x, NULL, id};
	s->task_waiters = w;
	w->late = evtimer_new(s->base, on_late, w);
	bt_timer_in(w->late, wait_ms);
	bt_http_on_close(x, on_close, w);
}

void bt_tasks_ended(struct bt_server *s, uint64_t id)
{
	for (struct bt_task_waiter *w = s->task_waiters, *next; w; w = next) {
		next = w->next;
		if (w->id == id)
			finish(w);
	}
}

void bt_tasks_free(struct bt_server *s)
{
	while (s->task_waiters)
		finish(s->task_waiters);
}

void bt_api_task(struct bt_http_exchange *x, void *arg)
{
	BT_JSON json_t *body = bt_api_body(x);
	if (body)
		bt_planning_task(arg, x, body);
}

void bt_api_task_get(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *row = bt_api_find_deployment(s, x);
	const char *wait = bt_http_query(x, "wait");
	int64_t wait_ms = 0;
	struct bt_err err;
	if (!row)
		return;
	if (wait && bt_duration_parse(wait, &wait_ms, &err) < 0) {
		bt_err_wrap(&err, "wait");
		bt_http_reply_error(x, &err);
		return;
	}
	bt_tasks_answer(s, x, (uint64_t)json_integer_value(json_object_get(row, "id")),
		wait_ms < BT_TASK_WAIT_MAX_MS ? wait_ms : BT_TASK_WAIT_MAX_MS);
}
