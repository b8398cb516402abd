/* Releases of a service: listed, shown, marked, removed. */
#include "base/base64.h"
#include "server/api.h"

#include <string.h>

static void put_times(json_t *j)
{
	static const char *const times[] = {"created_at", "pruned_at"};
	for (size_t i = 0; i < BT_ARRAY_LEN(times); i++)
		if (json_object_get(j, times[i]))
			bt_api_set_time(
				j, times[i], json_integer_value(json_object_get(j, times[i])));
}

void bt_api_releases(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_svc *svc = bt_api_find_service(s, x);
	struct bt_err err;
	json_t *rows = NULL, *row;
	size_t i;
	if (!svc)
		return;
	if (bt_store_select(s->store, &rows, &err, BT_SQL_RELEASES_OF, svc->name) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	json_array_foreach (rows, i, row) {
		put_times(row);
		json_object_del(row, "config_hash");
		json_object_set_new(row, "live",
			json_boolean(json_integer_value(json_object_get(row, "id")) == svc->live));
	}
	bt_http_reply_json(x, 200, json_pack("{s:o}", "releases", rows));
}

/* The release that the path names, or 0 after an answer. */
static uint32_t find(struct bt_server *s, struct bt_http_exchange *x, const struct bt_svc *svc)
{
	const char *text = bt_http_param(x, "release");
	uint32_t id = bt_release_find_text(s, svc->name, text);
	if (!id)
		bt_api_error(x, BT_E_NOTFOUND, "no release '%.80s' of %s", text, svc->name);
	return id;
}

/* What a release is made of; of files and secrets the names only. */
static json_t *contents(struct bt_server *s, uint32_t id, const json_t *row)
{
	const char *config = json_string_value(json_object_get(row, "config")), *to;
	const char *by = json_string_value(json_object_get(row, "by"));
	json_t *j = json_copy((json_t *)row), *files = json_array(), *value;
	BT_JSON json_t *sent = NULL;
	if (bt_release_files(s, id, &sent, NULL) == 0)
		json_object_foreach (sent, to, value) {
			BT_FREE char *data = NULL;
			size_t n = 0;
			if (bt_unbase64(json_string_value(value), &data, &n, NULL) == 0)
				json_array_append_new(files,
					json_pack("{s:s, s:I}", "to", to, "size", (json_int_t)n));
		}
	json_object_set_new(j, "files", files);
	json_object_set_new(j, "config", config ? json_loads(config, 0, NULL) : json_null());
	json_object_set_new(j, "by", by ? json_loads(by, 0, NULL) : json_null());
	json_object_del(j, "config_hash");
	json_object_del(j, "secrets");
	put_times(j);
	return j;
}

void bt_api_release(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_svc *svc = bt_api_find_service(s, x);
	struct bt_err err;
	BT_JSON json_t *rows = NULL;
	uint32_t id = svc ? find(s, x, svc) : 0;
	if (!id)
		return;
	if (bt_store_select(s->store, &rows, &err, BT_SQL_RELEASE_GET, (int64_t)id) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	json_t *j = contents(s, id, json_array_get(rows, 0));
	json_object_set_new(j, "live", json_boolean(id == svc->live));
	bt_http_reply_json(x, 200, j);
}

struct marking {
	struct bt_http_exchange *x;
	uint32_t id;
	char state[8];
};

static void on_close(void *arg)
{
	((struct marking *)arg)->x = NULL;
}

static void on_marked(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct marking *m = arg;
	(void)t;
	if (m->x && result < 0)
		bt_http_reply_error(m->x, err);
	else if (m->x)
		bt_http_reply_json(
			m->x, 200, json_pack("{s:i, s:s}", "id", (int)m->id, "state", m->state));
	free(m);
}

void bt_api_release_mark(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_err err;
	const char *state = NULL, *why = NULL;
	struct bt_svc *svc = bt_api_find_service(s, x);
	uint32_t id = svc ? find(s, x, svc) : 0;
	BT_JSON json_t *body = id ? bt_api_body(x) : NULL;
	if (!body)
		return;
	int r = bt_json_str(body, "state", &state, &err);
	if (r == 0)
		r = bt_json_str_opt(body, "why", &why, &err);
	if (r == 0 && !bt_streq(state, "good") && !bt_streq(state, "bad"))
		r = bt_err_set(&err, BT_E_CONFIG, "state '%.40s': expected good or bad", state);
	if (r == 0 && why && strlen(why) > 500)
		r = bt_err_set(&err, BT_E_CONFIG, "why: more than 500 bytes");
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	struct bt_txn *t = bt_txn_new();
	struct marking *m = bt_calloc(1, sizeof *m);
	m->x = x;
	m->id = id;
	strcpy(m->state, state);
	bt_txn_add(t, BT_SQL_RELEASE_MARK, (int64_t)id, state, bt_who(x)->name, why);
	BT_FREE char *detail = bt_asprintf("release %u%s%s", id, why ? ": " : "", why ? why : "");
	bt_api_audit_add(t, x, svc->name, state, detail);
	bt_http_on_close(x, on_close, m);
	bt_store_commit(s->store, t, on_marked, m);
}

void bt_api_prune(struct bt_http_exchange *x, void *arg)
{
	bt_planning_prune(arg, x, bt_http_param(x, "service"));
}
