/* The first start after a restore, and what follows until every service is settled.
 *
 * A run that was under way in the backup cannot be resumed from its journal: since then its host's
 * agent may have run more of it, or other runs, and it answers a command that it knows with the
 * result of that time. So the run ends here, its lease with it, and when the service's hosts are
 * connected it is brought to the release that serves now by a run of its own, planned from what
 * the hosts see: what the interrupted one had begun is cleared away, no request changes its way. */
#include "base/clock.h"
#include "server/planning.h"

#include <string.h>

#define UNKNOWN_CERTS_MS ((int64_t)BT_CERT_DAYS * 86400000)

struct bt_unsettled {
	struct bt_unsettled *next;
	struct bt_server *server;
	char *service;
	struct bt_gather *gather;
	struct bt_config *config;
};

static json_t *meta(struct bt_server *s, const char *key)
{
	BT_JSON json_t *rows = NULL;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_META_GET, key) < 0)
		return NULL;
	return json_incref(json_object_get(json_array_get(rows, 0), "value"));
}

int64_t bt_restored_floor(struct bt_server *s, const char *key)
{
	BT_JSON json_t *value = meta(s, key);
	int64_t n = 0;
	if (json_is_string(value))
		(void)bt_int_parse(json_string_value(value), 0, INT64_MAX, &n, NULL);
	return n;
}

bool bt_restored_lately(struct bt_server *s)
{
	BT_JSON json_t *value = meta(s, "restored");
	BT_JSON json_t *about = value ? json_loads(json_string_value(value), 0, NULL) : NULL;
	int64_t at = json_integer_value(json_object_get(about, "restored_ms"));
	return at > 0 && bt_clock_wall_ms() - at < UNKNOWN_CERTS_MS;
}

/* ---- what was under way --------------------------------------------------------------------- */

static int end_run(struct bt_server *s, const json_t *row, const char *made_at, struct bt_txn *t,
	struct bt_err *err)
{
	int64_t id = json_integer_value(json_object_get(row, "id")), wall = bt_clock_wall_ms();
	const char *service = json_string_value(json_object_get(row, "service"));
	BT_FREE char *reason = bt_asprintf(
		"the server was restored from the backup of %s, made in the middle of this run",
		made_at);
	struct bt_replay replay = {0};
	int r = bt_run_replay(s, (uint64_t)id, &replay, err);
	if (r < 0)
		return r;
	struct bt_record rec = {.kind = BT_RECORD_END,
		.at_ms = bt_engine_now(replay.engine),
		.end = BT_END_HALTED,
		.text = reason};
	int64_t cursor = s->next_cursor++;
	BT_JSON json_t *body = bt_record_to_json(&rec);
	BT_JSON json_t *event = bt_project_record(
		bt_engine_plan(replay.engine), service, (uint64_t)id, cursor, wall, &rec);
	BT_FREE char *text = bt_json_dump(body);
	BT_FREE char *shown = bt_json_dump(event);
	BT_FREE char *detail = bt_asprintf("deployment %lld: halted", (long long)id);
	bt_txn_add(t, BT_SQL_RECORD_ADD, cursor, id, wall, bt_record_kind_name(BT_RECORD_END), text,
		shown);
	bt_txn_add(t, BT_SQL_DEPLOYMENT_END, id, bt_phase_name(BT_PHASE_ENDED),
		bt_end_name(BT_END_HALTED), (int64_t)bt_end_exit_code("halted"), reason, wall,
		(int64_t)0);
	bt_txn_add(t, BT_SQL_LEASE_END, id);
	bt_txn_add(t, BT_SQL_OUTBOX_SETTLE_RUN, id);
	bt_server_audit(t, &(struct bt_audit){"restore", NULL, service, "end", detail});
	bt_replay_done(&replay);
	return 0;
}

static void add(struct bt_server *s, const char *service)
{
	struct bt_unsettled *u = bt_calloc(1, sizeof *u);
	u->server = s;
	u->service = bt_strdup(service);
	u->next = s->unsettled;
	s->unsettled = u;
}

static char *names(const struct bt_server *s)
{
	BT_JSON json_t *list = json_array();
	for (const struct bt_unsettled *u = s->unsettled; u; u = u->next)
		json_array_append_new(list, json_string(u->service));
	return bt_json_dump(list);
}

int bt_restored_begin(struct bt_server *s, struct bt_err *err)
{
	BT_JSON json_t *unsettled = meta(s, "unsettled");
	BT_JSON json_t *value = meta(s, "restored");
	BT_JSON json_t *about = value ? json_loads(json_string_value(value), 0, NULL) : NULL;
	BT_JSON json_t *rows = NULL;
	size_t i;
	json_t *row;
	const char *text = json_string_value(unsettled);
	const char *made_at = json_string_value(json_object_get(about, "made_at"));
	if (!text || bt_streq(text, "[]"))
		return 0;
	BT_JSON json_t *left = json_loads(text, 0, NULL);
	json_array_foreach (left, i, row) /* a later start: only these are left */
		add(s, json_string_value(row));
	if (json_is_array(left))
		return 0;
	struct bt_txn *t = bt_txn_new();
	int r = bt_store_select(s->store, &rows, err, BT_SQL_DEPLOYMENTS_OPEN);
	json_array_foreach (rows, i, row) {
		if (r == 0)
			r = end_run(s, row, made_at ? made_at : "?", t, err);
		if (r == 0)
			add(s, json_string_value(json_object_get(row, "service")));
	}
	BT_FREE char *list = names(s);
	bt_txn_add(t, BT_SQL_META_SET, "unsettled", list);
	if (r < 0) {
		bt_txn_free(t);
		return bt_err_wrap(err, "after the restore");
	}
	return bt_store_commit_now(s->store, t, err);
}

/* ---- settling ------------------------------------------------------------------------------- */

static void unsettled_free(struct bt_unsettled *u)
{
	bt_gather_cancel(u->gather);
	bt_config_free(u->config);
	free(u->service);
	free(u);
}

void bt_restored_free(struct bt_server *s)
{
	while (s->unsettled) {
		struct bt_unsettled *u = s->unsettled;
		s->unsettled = u->next;
		unsettled_free(u);
	}
}

/* The release that serves; 0: none, or one that the backup does not know. */
static uint32_t live_release(struct bt_unsettled *u, const struct bt_world *w, struct bt_err *err)
{
	struct bt_server *s = u->server;
	const struct bt_service *service = &u->config->services[0];
	struct bt_svc *svc = bt_server_service(s, u->service);
	BT_STR struct bt_str why = {0};
	struct bt_release *known = NULL;
	uint32_t release = 0;
	int slot = -1;
	if (bt_plan_live_slot(service, w, &slot, &why, err) < 0)
		return svc ? svc->live : 0; /* two serve: back to the one that was live */
	for (size_t h = 0; slot >= 0 && h < w->n_hosts; h++)
		for (size_t i = 0; i < w->hosts[h].n_instances; i++)
			if (bt_streq(
				    w->hosts[h].instances[i].slot, service->run.slots[slot].name) &&
				w->hosts[h].instances[i].release)
				release = w->hosts[h].instances[i].release;
	if (!release) {
		bt_err_set(err, BT_E_NOTFOUND, "nothing serves");
		return 0;
	}
	if (bt_release_load(s, release, &known, err) < 0 || !bt_streq(known->service, u->service)) {
		bt_err_set(err, BT_E_NOTFOUND,
			"release %u serves, which is newer than the backup: deploy again", release);
		release = 0;
	}
	bt_release_free(known);
	return release;
}

static void on_world(void *arg, struct bt_world *w, const struct bt_err *err)
{
	struct bt_unsettled *u = arg;
	struct bt_server *s = u->server;
	struct bt_err why = {0};
	u->gather = NULL;
	if (!w) {
		bt_log(NULL, BT_LOG_WARN, "service=%s after the restore: %s", u->service,
			err->text);
		return; /* asked again */
	}
	uint32_t release = live_release(u, w, &why);
	bt_world_free(w);
	for (struct bt_unsettled **p = &s->unsettled; *p; p = &(*p)->next)
		if (*p == u) {
			*p = u->next;
			break;
		}
	BT_FREE char *list = names(s);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_META_SET, "unsettled", list);
	if (release) {
		bt_txn_add(t, BT_SQL_SERVICE_LIVE, u->service, (int64_t)release);
		bt_txn_add(t, BT_SQL_RELEASE_STATE, (int64_t)release, "good");
	}
	bt_store_commit(s->store, t, NULL, NULL);
	struct bt_svc *svc = bt_server_service(s, u->service);
	if (release && svc) {
		svc->live = release;
		bt_planning_settle(s, svc);
	} else {
		bt_log(NULL, BT_LOG_WARN, "service=%s after the restore: %s", u->service, why.text);
	}
	unsettled_free(u);
}

/* And none is in the middle of a change that the server of before asked for: what it does now,
 * the hosts cannot have seen. */
static bool all_quiet(struct bt_server *s, const struct bt_service *service)
{
	const char **hosts = NULL;
	bool all = true;
	size_t n = bt_service_hosts(service, &hosts);
	for (size_t i = 0; i < n; i++) {
		const struct bt_host *h = bt_host_find(s, hosts[i]);
		all = all && h && bt_host_connected(h) && h->poll && h->busy == 0;
	}
	free(hosts);
	return all;
}

void bt_restored_tick(struct bt_server *s)
{
	for (struct bt_unsettled *u = s->unsettled; u; u = u->next) {
		struct bt_svc *svc = bt_server_service(s, u->service);
		if (u->gather || !svc || !svc->config || bt_run_lease_free(s, u->service, NULL) < 0)
			continue;
		if (!u->config && bt_config_service_from_json(svc->config, &u->config, NULL) < 0)
			continue;
		if (all_quiet(s, &u->config->services[0]))
			u->gather = bt_gather_start(s, &u->config->services[0], svc->config,
				bt_clock_boot_ms(), false, NULL, on_world, u);
	}
}
