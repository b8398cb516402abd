/* Logs of instances, asked of their agents while somebody reads them; and logs of a run's tasks,
 * from the files that results brought. */
#include "base/fs.h"
#include "server/api.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define ONCE_MS 10000
#define MAX_PARTS 256
#define RUN_LOG_MAX (16u << 20)

struct part {
	struct bt_reading *reading;
	struct bt_ask *ask;
	char *prefix; /* "was1/green" */
};

struct bt_reading {
	struct bt_reading *next;
	struct bt_server *server;
	struct bt_http_exchange *x;
	struct part parts[MAX_PARTS];
	size_t n, waiting;
	struct event *finish;
};

static void end_reading(struct bt_reading *rd)
{
	for (struct bt_reading **p = &rd->server->readings; *p; p = &(*p)->next)
		if (*p == rd) {
			*p = rd->next;
			break;
		}
	for (size_t i = 0; i < rd->n; i++) {
		bt_ask_cancel(rd->parts[i].ask);
		free(rd->parts[i].prefix);
	}
	event_free(rd->finish);
	free(rd);
}

static void on_close(void *arg)
{
	struct bt_reading *rd = arg;
	rd->x = NULL;
	bt_timer_in(rd->finish, 0);
}

static void on_finish(evutil_socket_t fd, short what, void *arg)
{
	struct bt_reading *rd = arg;
	(void)fd;
	(void)what;
	if (rd->x)
		bt_http_stream_end(rd->x);
	end_reading(rd);
}

void bt_api_logs_free(struct bt_server *s)
{
	while (s->readings)
		end_reading(s->readings);
}

static void send_text(struct bt_reading *rd, const struct bt_str *text)
{
	if (!rd->x || !text->len)
		return;
	size_t behind = bt_http_stream_send(rd->x, text->data, text->len);
	if (behind > BT_STREAM_BEHIND)
		bt_timer_in(rd->finish, 0);
}

static void on_lines(void *arg, const json_t *answer, bool end, const struct bt_err *err)
{
	struct part *p = arg;
	struct bt_reading *rd = p->reading;
	BT_STR struct bt_str text = {0};
	size_t i;
	json_t *line;
	json_array_foreach (json_object_get(answer, "lines"), i, line)
		if (json_is_string(line))
			bt_str_addf(&text, "%s │ %s\n", p->prefix, json_string_value(line));
	if (err)
		bt_str_addf(&text, "%s │ (%s)\n", p->prefix, err->text);
	if (end)
		p->ask = NULL;
	send_text(rd, &text);
	if (end && --rd->waiting == 0)
		bt_timer_in(rd->finish, 0);
}

static void ask_slot(struct bt_reading *rd, struct bt_host *h, const char *service,
	const char *slot, int64_t lines, bool follow)
{
	if (rd->n == MAX_PARTS)
		return;
	struct part *p = &rd->parts[rd->n++];
	p->reading = rd;
	p->prefix = bt_asprintf("%s/%s", h->name, slot);
	rd->waiting++;
	p->ask = bt_ask_start(h,
		json_pack("{s:s, s:s, s:s, s:I, s:b}", "kind", "logs", "service", service, "slot",
			slot, "lines", (json_int_t)lines, "follow", (int)follow),
		follow ? 0 : ONCE_MS, on_lines, p);
}

void bt_api_logs(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_svc *svc = bt_api_find_service(s, x);
	struct bt_config *config = NULL;
	struct bt_err err;
	if (!svc)
		return;
	if (bt_config_service_from_json(svc->config, &config, &err) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	const struct bt_service *service = &config->services[0];
	const char *slot = bt_http_query(x, "slot"), *host = bt_http_query(x, "host");
	bool follow = bt_streq(bt_http_query(x, "follow"), "1");
	int64_t lines = bt_api_query_int(x, "lines", 0, 100000, 100);
	struct bt_reading *rd = bt_calloc(1, sizeof *rd);
	rd->server = s;
	rd->next = s->readings;
	s->readings = rd;
	rd->x = x;
	rd->finish = evtimer_new(s->base, on_finish, rd);
	for (size_t i = 0; i < service->n_hosts; i++)
		for (size_t k = 0; k < service->run.n_slots; k++) {
			struct bt_host *h = bt_host_find(s, service->hosts[i]);
			const char *name = service->run.slots[k].name;
			if (h && (!slot || bt_streq(slot, name)) &&
				(!host || bt_streq(host, h->name)))
				ask_slot(rd, h, service->name, name, lines, follow);
		}
	bt_config_free(config);
	if (!rd->n) {
		bt_api_error(x, BT_E_NOTFOUND, "%s has no such slot or host", svc->name);
		end_reading(rd);
		return;
	}
	bt_http_on_close(x, on_close, rd);
	bt_http_stream_start(x, "text/plain; charset=utf-8");
}

/* ---- a run's tasks ----------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t list_logs(const char *dir, char ***ret)
{
	char **names = NULL;
	size_t n = 0;
	DIR *d = opendir(dir);
	for (struct dirent *e; d && n < 10000 && (e = readdir(d));)
		if (bt_str_ends(e->d_name, ".log")) {
			names = bt_realloc(names, (n + 1) * sizeof *names);
			names[n++] = bt_strdup(e->d_name);
		}
	if (d)
		closedir(d);
	if (n)
		qsort(names, n, sizeof *names, by_name);
	*ret = names;
	return n;
}

static void heading(
	struct bt_str *out, const json_t *words, unsigned id, const char *verb, unsigned attempt)
{
	char key[16];
	snprintf(key, sizeof key, "%u", id);
	const char *text = json_string_value(json_object_get(words, key));
	bt_str_addf(out, "== task %u: %s%s", id, bt_streq(verb, "undo") ? "undo: " : "",
		text ? text : "");
	if (attempt > 1)
		bt_str_addf(out, " (attempt %u)", attempt);
	bt_str_addc(out, '\n');
}

static void add_log(
	struct bt_str *out, const char *dir, const char *name, const json_t *words, int64_t task)
{
	unsigned id = 0, attempt = 0;
	char verb[8] = "";
	char *text = NULL;
	if (sscanf(name, "%u-%7[a-z]-%u.log", &id, verb, &attempt) != 3 ||
		(task && (int64_t)id != task) || out->len > RUN_LOG_MAX)
		return;
	BT_FREE char *path = bt_asprintf("%s/%s", dir, name);
	if (bt_fs_read(path, BT_TASK_LOG_MAX + 1024, &text, NULL, NULL) < 0)
		return;
	heading(out, words, id, verb, attempt);
	bt_str_addf(out, "%s%s", text, bt_str_ends(text, "\n") ? "" : "\n");
	free(text);
}

/* Task → what it does, from the events that told it. */
static json_t *words_of(struct bt_server *s, int64_t deployment)
{
	json_t *words = json_object(), *row;
	int64_t cursor = 0;
	size_t i, n = 1;
	while (n) {
		BT_JSON json_t *rows = NULL;
		if (bt_store_select(s->store, &rows, NULL, BT_SQL_EVENTS_OF, deployment, cursor) <
			0)
			break;
		n = json_array_size(rows);
		json_array_foreach (rows, i, row) {
			const char *text = json_string_value(json_object_get(row, "event"));
			BT_JSON json_t *event = json_loads(text ? text : "", 0, NULL);
			json_t *task = json_object_get(event, "task");
			char key[16];
			cursor = json_integer_value(json_object_get(row, "cursor"));
			snprintf(key, sizeof key, "%u",
				(unsigned)json_integer_value(json_object_get(task, "id")));
			if (json_object_get(task, "words"))
				json_object_set(words, key, json_object_get(task, "words"));
		}
	}
	return words;
}

void bt_api_run_log(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *row = bt_api_find_deployment(s, x);
	BT_STR struct bt_str out = {0};
	char **names = NULL;
	char sub[64];
	if (!row)
		return;
	snprintf(sub, sizeof sub, "runs/%lld",
		(long long)json_integer_value(json_object_get(row, "id")));
	BT_FREE char *dir = bt_server_path(s, sub);
	size_t n = list_logs(dir, &names);
	BT_JSON json_t *words = words_of(s, json_integer_value(json_object_get(row, "id")));
	int64_t task = bt_api_query_int(x, "task", 1, UINT32_MAX, 0);
	for (size_t i = 0; i < n; i++) {
		add_log(&out, dir, names[i], words, task);
		free(names[i]);
	}
	free(names);
	bt_http_reply(x, 200, "text/plain; charset=utf-8", bt_str_get(&out), out.len);
}
