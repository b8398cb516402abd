/* The end of a run, as its readers see it: the last lines of what failed are fetched from the
 * agents, kept beside the task logs, and then `end` is published. */
#include "base/clock.h"
#include "server/run_priv.h"
#include "server/tasks.h"

#include <stdio.h>
#include <string.h>

#define TAIL_MS 3000
#define MAX_TAILS 8

struct tail {
	struct bt_tails *tails;
	struct bt_ask *ask;
	char *instance;
};

struct bt_tails {
	struct bt_running *run;
	struct tail items[MAX_TAILS];
	size_t n, waiting;
	json_t *lines; /* instance → lines */
	struct event *finish;
	struct write *write; /* while the file is on its way */
};

struct write {
	struct bt_tails *tails; /* NULL: nobody waits for it any more */
};

void bt_run_tails_free(struct bt_running *r)
{
	struct bt_tails *t = BT_STEAL(r->tails);
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++) {
		bt_ask_cancel(t->items[i].ask);
		free(t->items[i].instance);
	}
	if (t->write)
		t->write->tails = NULL;
	event_free(t->finish);
	json_decref(t->lines);
	free(t);
}

bool bt_run_end_pending(const struct bt_running *r)
{
	return r->tails != NULL;
}

static void publish(struct bt_tails *t)
{
	struct bt_running *r = t->run;
	BT_JSON json_t *lines = json_incref(t->lines);
	bt_run_tails_free(r);
	uint64_t id = r->id;
	struct bt_server *s = r->server;
	if (bt_engine_phase(r->engine) == BT_PHASE_ENDED)
		bt_run_free(r);
	bt_stream_end_event(s, id, lines);
	bt_tasks_ended(s, id);
}

static void on_written(void *arg)
{
	struct write *w = arg;
	struct bt_tails *t = w->tails;
	free(w);
	if (t) {
		t->write = NULL;
		publish(t);
	}
}

/* Published once the lines are kept, so that who reads the end again reads the same. */
static void on_finish(evutil_socket_t fd, short what, void *arg)
{
	struct bt_tails *t = arg;
	struct bt_running *r = t->run;
	char path[64];
	(void)fd;
	(void)what;
	if (r->in_flight || r->head) { /* late results are answered first */
		bt_timer_in(t->finish, 50);
		return;
	}
	if (json_object_size(t->lines) == 0) {
		publish(t);
		return;
	}
	snprintf(path, sizeof path, "runs/%llu/tail.json", (unsigned long long)r->id);
	t->write = bt_calloc(1, sizeof *t->write);
	t->write->tails = t;
	bt_server_write_then(r->server, path, bt_json_dump(t->lines), on_written, t->write);
}

/* What the slot's app before this one wrote explains nothing: the shim's own line says where the
 * last one begins. */
static void drop_former(json_t *list)
{
	size_t i, from = 0;
	json_t *line;
	json_array_foreach (list, i, line)
		if (strstr(json_string_value(line), "Z baton: starting "))
			from = i;
	while (from--)
		json_array_remove(list, 0);
}

static void on_lines(void *arg, const json_t *answer, bool end, const struct bt_err *err)
{
	struct tail *p = arg;
	struct bt_tails *t = p->tails;
	json_t *list = json_object_get(t->lines, p->instance), *more, *line;
	size_t i;
	(void)err;
	more = json_object_get(answer, "lines");
	if (!list && json_array_size(more) > 0) {
		list = json_array();
		json_object_set_new(t->lines, p->instance, list);
	}
	json_array_foreach (more, i, line)
		if (json_is_string(line))
			json_array_append(list, line);
	while (json_array_size(list) > BT_TAIL_LINES)
		json_array_remove(list, 0);
	if (!end)
		return;
	drop_former(list);
	p->ask = NULL;
	if (--t->waiting == 0)
		bt_timer_in(t->finish, 0);
}

static void ask_tail(struct bt_tails *t, const char *instance)
{
	struct bt_running *r = t->run;
	const char *slash = strchr(instance, '/');
	BT_FREE char *host = slash ? bt_strndup(instance, (size_t)(slash - instance)) : NULL;
	struct bt_host *h = host ? bt_host_find(r->server, host) : NULL;
	if (!h || t->n == MAX_TAILS)
		return;
	struct tail *p = &t->items[t->n++];
	p->tails = t;
	p->instance = bt_strdup(instance);
	t->waiting++;
	p->ask = bt_ask_start(h,
		json_pack("{s:s, s:s, s:s, s:i, s:b}", "kind", "logs", "service", r->service,
			"slot", slash + 1, "lines", BT_TAIL_LINES, "follow", 0),
		TAIL_MS, on_lines, p);
}

void bt_run_say_end(struct bt_running *r)
{
	const char *instance;
	json_t *value;
	if (r->tails)
		return;
	struct bt_tails *t = r->tails = bt_calloc(1, sizeof *t);
	t->run = r;
	t->lines = bt_engine_end(r->engine) == BT_END_DONE ? json_object() : json_copy(r->said);
	t->finish = evtimer_new(r->server->base, on_finish, t);
	if (bt_engine_end(r->engine) != BT_END_DONE)
		json_object_foreach (r->failing, instance, value)
			ask_tail(t, instance);
	if (t->waiting == 0)
		bt_timer_in(t->finish, 0);
}
