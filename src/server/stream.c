/* Server-Sent Events. A reader first gets what is in the store after its cursor, then what is
 * committed from now on; since both carry the journal's row number, nothing comes twice and nothing
 * is left out. A reader that falls behind is cut off and comes back with its cursor. */
#include "base/clock.h"
#include "base/fs.h"
#include "server/auth.h"
#include "server/run.h"

#include <stdio.h>
#include <string.h>

#define TAIL_MAX (1u << 20)

struct bt_sub {
	struct bt_sub *next;
	struct bt_server *server;
	struct bt_http_exchange *x;
	uint64_t deployment; /* 0: all */
	int64_t cursor;
	json_t *scope;		     /* of its token */
	char token[65], session[65]; /* hashes of what let it in; no session: a bearer */
	bool closed, busy;
};

static void drop(struct bt_sub *sub)
{
	for (struct bt_sub **p = &sub->server->subs; *p; p = &(*p)->next)
		if (*p == sub) {
			*p = sub->next;
			break;
		}
	json_decref(sub->scope);
	free(sub);
}

static void on_close(void *arg)
{
	struct bt_sub *sub = arg;
	sub->x = NULL;
	if (sub->busy)
		sub->closed = true; /* whoever sends drops it */
	else
		drop(sub);
}

/* false: the reader is gone or was cut off. */
static bool send_text(struct bt_sub *sub, const struct bt_str *text)
{
	if (!sub->x || sub->closed)
		return false;
	sub->busy = true;
	size_t behind = bt_http_stream_send(sub->x, text->data, text->len);
	sub->busy = false;
	if (!sub->closed && behind <= BT_STREAM_BEHIND)
		return true;
	if (sub->x && !sub->closed)
		bt_http_stream_end(sub->x);
	sub->x = NULL;
	return false;
}

static bool send_record(struct bt_sub *sub, int64_t cursor, const char *event)
{
	BT_STR struct bt_str text = {0};
	if (cursor <= sub->cursor)
		return true;
	sub->cursor = cursor;
	bt_str_addf(&text, "id: %lld\nevent: record\ndata: %s\n\n", (long long)cursor, event);
	return send_text(sub, &text);
}

static bool in_scope(const struct bt_sub *sub, const char *event)
{
	if (!sub->scope)
		return true;
	BT_JSON json_t *j = json_loads(event, 0, NULL);
	const char *service = json_string_value(json_object_get(j, "service"));
	return bt_scope_covers(sub->scope, service);
}

/* One page from the store; the number of rows, or -1 when the reader is gone. */
static int send_page(struct bt_sub *sub)
{
	BT_JSON json_t *rows = NULL;
	struct bt_err err;
	int r = sub->deployment ? bt_store_select(sub->server->store, &rows, &err, BT_SQL_EVENTS_OF,
					  (int64_t)sub->deployment, sub->cursor)
				: bt_store_select(sub->server->store, &rows, &err,
					  BT_SQL_EVENTS_ALL, sub->cursor);
	if (r < 0) {
		bt_log(NULL, BT_LOG_ERROR, "events: %s", err.text);
		if (sub->x)
			bt_http_stream_end(sub->x);
		sub->x = NULL;
		return -1;
	}
	size_t i;
	json_t *row;
	json_array_foreach (rows, i, row) {
		int64_t cursor = json_integer_value(json_object_get(row, "cursor"));
		const char *event = json_string_value(json_object_get(row, "event"));
		if (!in_scope(sub, event))
			sub->cursor = cursor;
		else if (!send_record(sub, cursor, event))
			return -1;
	}
	return (int)json_array_size(rows);
}

static json_t *kept_tails(struct bt_server *s, uint64_t id)
{
	char path[64];
	char *text = NULL;
	snprintf(path, sizeof path, "runs/%llu/tail.json", (unsigned long long)id);
	BT_FREE char *full = bt_server_path(s, path);
	if (bt_fs_read(full, TAIL_MAX, &text, NULL, NULL) < 0)
		return NULL;
	json_t *j = json_loads(text, 0, NULL);
	free(text);
	return j;
}

static json_t *end_event(struct bt_server *s, uint64_t id, json_t *tails)
{
	BT_JSON json_t *rows = NULL;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_DEPLOYMENT_GET, (int64_t)id) < 0)
		return NULL;
	const json_t *row = json_array_get(rows, 0);
	const char *end = json_string_value(json_object_get(row, "end"));
	const char *reason = json_string_value(json_object_get(row, "reason"));
	const struct bt_running *run = bt_run_find(s, id);
	bool waits = !end && run && bt_engine_phase(bt_run_engine(run)) == BT_PHASE_PARKED;
	if (waits) {
		end = "parked";
		reason = bt_engine_reason(bt_run_engine(run));
	}
	if (!end || (!tails && run && bt_run_end_pending(run)))
		return NULL; /* it is published when the last lines are there */
	json_t *j = json_pack("{s:I, s:s, s:i, s:s}", "deployment", (json_int_t)id, "end", end,
		"exit_code", bt_end_exit_code(end), "reason", reason ? reason : "");
	if (waits)
		json_object_set_new(j, "waits", json_true());
	json_t *t = tails ? json_incref(tails) : kept_tails(s, id);
	json_object_set_new(j, "log_tail", t ? t : json_object());
	return j;
}

static void send_end(struct bt_sub *sub, const json_t *event)
{
	BT_STR struct bt_str text = {0};
	BT_FREE char *data = bt_json_dump(event);
	bt_str_addf(&text, "event: end\ndata: %s\n\n", data);
	if (send_text(sub, &text) && sub->deployment && sub->x) {
		bt_http_stream_end(sub->x);
		sub->x = NULL;
	}
}

/* Where it starts, so that a reader who began at `now` comes back to the right place. */
static void send_begin(struct bt_sub *sub)
{
	BT_STR struct bt_str text = {0};
	bt_str_addf(&text, "id: %lld\nevent: begin\ndata: {\"cursor\":%lld}\n\n",
		(long long)sub->cursor, (long long)sub->cursor);
	(void)send_text(sub, &text);
}

void bt_stream_open(
	struct bt_server *s, struct bt_http_exchange *x, uint64_t deployment, int64_t after)
{
	struct bt_sub *sub = bt_calloc(1, sizeof *sub);
	const struct bt_who *who = bt_who(x);
	sub->server = s;
	sub->x = x;
	sub->deployment = deployment;
	sub->cursor = after;
	sub->scope = deployment || !who ? NULL : json_incref(who->services);
	bt_auth_token_hash(s, x, sub->token);
	if (!bt_http_request_header(x, "Authorization"))
		bt_auth_session_hash(s, x, sub->session);
	sub->next = s->subs;
	s->subs = sub;
	bt_http_on_close(x, on_close, sub);
	bt_http_reply_header(x, "Cache-Control", "no-store");
	bt_http_reply_header(x, "X-Accel-Buffering", "no");
	bt_http_stream_start(x, "text/event-stream");
	if (!deployment)
		send_begin(sub);
	int n = sub->x ? 1 : -1;
	while (n > 0)
		n = send_page(sub);
	const struct bt_running *run = deployment ? bt_run_find(s, deployment) : NULL;
	if (n == 0 && deployment && !(run && bt_run_ending(run))) {
		BT_JSON json_t *end = end_event(s, deployment, NULL);
		if (end)
			send_end(sub, end);
	}
	if (!sub->x)
		drop(sub);
}

static void sweep(struct bt_server *s)
{
	for (struct bt_sub *sub = s->subs, *next; sub; sub = next) {
		next = sub->next;
		if (!sub->x)
			drop(sub);
	}
}

void bt_stream_record(struct bt_server *s, uint64_t deployment, int64_t cursor, const char *event)
{
	for (struct bt_sub *sub = s->subs; sub; sub = sub->next)
		if (sub->x && (!sub->deployment || sub->deployment == deployment)) {
			if (in_scope(sub, event))
				(void)send_record(sub, cursor, event);
			else if (cursor > sub->cursor)
				sub->cursor = cursor;
		}
	sweep(s);
}

void bt_stream_progress(struct bt_server *s, uint64_t deployment, const json_t *event)
{
	BT_STR struct bt_str text = {0};
	for (struct bt_sub *sub = s->subs; sub; sub = sub->next)
		if (sub->x && (!sub->deployment || sub->deployment == deployment)) {
			BT_FREE char *data = bt_json_dump(event);
			if (!in_scope(sub, data))
				continue;
			bt_str_reset(&text);
			bt_str_addf(&text, "event: progress\ndata: %s\n\n", data);
			(void)send_text(sub, &text);
		}
	sweep(s);
}

void bt_stream_end_event(struct bt_server *s, uint64_t deployment, json_t *tails)
{
	BT_JSON json_t *event = end_event(s, deployment, tails);
	for (struct bt_sub *sub = s->subs; event && sub; sub = sub->next)
		if (sub->x && sub->deployment == deployment)
			send_end(sub, event);
	sweep(s);
}

void bt_stream_ping(struct bt_server *s)
{
	BT_STR struct bt_str text = {0};
	bt_str_add(&text, ": still here\n\n");
	for (struct bt_sub *sub = s->subs; sub; sub = sub->next)
		if (sub->x)
			(void)send_text(sub, &text);
	sweep(s);
}

void bt_streams_check(struct bt_server *s)
{
	for (struct bt_sub *sub = s->subs; sub; sub = sub->next)
		if (sub->x && !bt_auth_holds(s, sub->token, sub->session)) {
			bt_http_stream_end(sub->x);
			sub->x = NULL;
		}
	sweep(s);
}

void bt_streams_free(struct bt_server *s)
{
	while (s->subs)
		drop(s->subs);
}
