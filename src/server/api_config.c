/* The stored config of a service: shown, applied, locked. */
#include "base/base64.h"
#include "base/clock.h"
#include "server/api.h"

#include <string.h>

/* Names and sizes of files; never what they hold. */
static json_t *files_json(const json_t *files)
{
	json_t *list = json_array(), *value;
	const char *to;
	json_object_foreach ((json_t *)files, to, value) {
		BT_FREE char *data = NULL;
		size_t n = 0;
		if (bt_unbase64(json_string_value(value), &data, &n, NULL) == 0)
			json_array_append_new(
				list, json_pack("{s:s, s:I}", "to", to, "size", (json_int_t)n));
	}
	return list;
}

static void put_about(json_t *j, const struct bt_stored *c)
{
	json_object_update_new(j, json_pack("{s:I, s:s*, s:s*}", "version", (json_int_t)c->version,
					  "who", c->who, "why", c->why));
	bt_api_set_time(j, "at", c->at);
}

void bt_api_config(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_err err;
	struct bt_stored c = {0};
	json_t *versions = NULL, *row;
	size_t i;
	const char *service = bt_http_param(x, "service");
	const struct bt_svc *svc = bt_server_service(s, service);
	int r = bt_who_may(bt_who(x), service, &err);
	if (r == 0)
		r = bt_stored_load(
			s, service, bt_api_query_int(x, "version", 1, INT64_MAX, 0), &c, &err);
	if (r == 0)
		r = bt_store_select(s->store, &versions, &err, BT_SQL_CONFIGS, service);
	if (r < 0) {
		bt_stored_done(&c);
		bt_http_reply_error(x, &err);
		return;
	}
	json_array_foreach (versions, i, row)
		bt_api_set_time(row, "at", json_integer_value(json_object_get(row, "at")));
	json_t *j = json_pack("{s:s, s:O, s:o, s:o, s:s*}", "service", service, "config", c.config,
		"files", files_json(c.files), "versions", versions, "locked_by",
		svc ? svc->locked_by : NULL);
	put_about(j, &c);
	bt_stored_done(&c);
	bt_http_reply_json(x, 200, j);
}

/* ---- apply ------------------------------------------------------------------------------- */

struct apply {
	struct bt_http_exchange *x;
	struct bt_server *server;
	struct bt_config *config;
	json_t *shown;
	size_t op;
	int64_t before;
	char *service, *who;
	int lock; /* 1 locked, 0 opened, -1 left as it is */
};

static void apply_free(struct apply *a)
{
	bt_config_free(a->config);
	json_decref(a->shown);
	free(a->service);
	free(a->who);
	free(a);
}

static void on_close(void *arg)
{
	((struct apply *)arg)->x = NULL;
}

static void on_applied(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct apply *a = arg;
	struct bt_svc *svc = NULL;
	int64_t version = result < 0 ? 0 : bt_txn_value(t, a->op);
	if (result == 0) {
		svc = bt_server_service_add(a->server, a->service);
		if (!svc->config) /* it was never deployed: this is all there is to show */
			svc->config = json_incref(a->shown);
		if (a->lock >= 0) {
			free(svc->locked_by);
			svc->locked_by = a->lock ? bt_strdup(a->who) : NULL;
		}
	}
	if (a->x && result < 0)
		bt_http_reply_error(a->x, err);
	else if (a->x)
		bt_http_reply_json(a->x, 200,
			json_pack("{s:s, s:I, s:b, s:s*}", "service", a->service, "version",
				(json_int_t)(version ? version : a->before), "changed",
				version != 0, "locked_by", svc->locked_by));
	apply_free(a);
}

/* Names of files whose contents differ; a file of one side alone shows in the config. */
static json_t *changed_files(const json_t *given, const json_t *stored)
{
	json_t *list = json_array(), *value, *other;
	const char *to;
	json_object_foreach ((json_t *)given, to, value)
		if ((other = json_object_get(stored, to)) && !json_equal(value, other))
			json_array_append_new(list, json_string(to));
	return list;
}

/* What applying would change: the stored config, and which files' contents differ. */
static void reply_check(struct bt_http_exchange *x, const struct bt_stored *c, const json_t *files)
{
	json_t *j = json_pack(
		"{s:O?, s:o}", "config", c->config, "files", changed_files(files, c->files));
	put_about(j, c);
	bt_http_reply_json(x, 200, j);
}

static int check_lock(
	const struct bt_http_exchange *x, const json_t *body, int *ret_lock, struct bt_err *err)
{
	bool lock = false;
	int r = bt_json_bool_opt(body, "lock", &lock, err);
	*ret_lock = json_object_get(body, "lock") ? (int)lock : -1;
	if (r == 0 && *ret_lock >= 0 && bt_who(x)->role < BT_AUTH_ADMIN)
		r = bt_err_set(err, BT_E_REFUSED,
			"%s a config is an admin's: the token %s is a deployer's",
			lock ? "locking" : "unlocking", bt_who(x)->name);
	return r;
}

static void commit(struct bt_server *s, struct apply *a, const json_t *files)
{
	struct bt_err err;
	struct bt_txn *t = bt_txn_new();
	const struct bt_service *service = &a->config->services[0];
	a->shown = bt_config_service_to_json(service);
	BT_FREE char *text = bt_json_dump(a->shown);
	bt_txn_add(t, BT_SQL_SERVICE_NEW, a->service, text, bt_clock_wall_ms());
	int r = bt_stored_put(s, t, service, files, a->who, "apply", &a->op, &err);
	if (r < 0) {
		bt_txn_free(t);
		bt_http_reply_error(a->x, &err);
		apply_free(a);
		return;
	}
	if (a->lock >= 0)
		bt_txn_add(
			t, BT_SQL_SERVICE_LOCK, a->service, a->lock ? a->who : (const char *)NULL);
	bt_api_audit_add(t, a->x, a->service, "apply",
		a->lock > 0    ? "locked"
		: a->lock == 0 ? "unlocked"
			       : NULL);
	bt_http_on_close(a->x, on_close, a);
	bt_store_commit(s->store, t, on_applied, a);
}

void bt_api_apply(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_err err;
	struct bt_stored stored = {0};
	struct apply *a;
	bool check = false;
	json_t *config = NULL;
	const char *service = bt_http_param(x, "service");
	BT_JSON json_t *body = bt_api_body(x);
	if (!body)
		return;
	a = bt_calloc(1, sizeof *a);
	*a = (struct apply){.x = x,
		.server = s,
		.service = bt_strdup(service),
		.who = bt_strdup(bt_who(x)->name)};
	const json_t *files = json_object_get(body, "files");
	int r = bt_who_may(bt_who(x), service, &err);
	if (r == 0)
		r = bt_json_bool_opt(body, "check", &check, &err);
	if (r == 0)
		r = check_lock(x, body, &a->lock, &err);
	if (r == 0)
		r = bt_json_object(body, "config", &config, &err);
	if (r == 0)
		r = bt_config_service_from_json(config, &a->config, &err);
	if (r == 0 && !bt_streq(a->config->services[0].name, service))
		r = bt_err_set(&err, BT_E_CONFIG, "service %s comes with the config of %s", service,
			a->config->services[0].name);
	if (r == 0)
		r = bt_planning_check_files(&a->config->services[0], files, &err);
	if (r == 0 && !check)
		r = bt_stored_allows(
			s, &a->config->services[0], bt_who(x)->role >= BT_AUTH_ADMIN, &err);
	if (r == 0 && bt_stored_load(s, service, 0, &stored, &err) == 0)
		a->before = stored.version;
	if (r == 0 && !check) {
		commit(s, a, files);
	} else {
		if (r == 0)
			reply_check(x, &stored, files);
		else
			bt_http_reply_error(x, &err);
		apply_free(a);
	}
	bt_stored_done(&stored);
}
