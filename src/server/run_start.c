/* How a run begins: rows, lease and first records in one transaction; and how its way back is
 * planned from what the hosts see. */
#include "base/clock.h"
#include "server/run_priv.h"

#include <string.h>

struct starting {
	void (*done)(void *arg, uint64_t id, int result, const struct bt_err *err);
	void *arg;
	uint64_t id;
	struct bt_server *server;
	struct bt_svc *svc;
	json_t *config;
	bool retire;
};

char *bt_run_holder(const char *by_json)
{
	BT_JSON json_t *by = by_json ? json_loads(by_json, 0, NULL) : NULL;
	const char *name = json_string_value(json_object_get(by, "name"));
	return bt_strdup(name ? name : "?");
}

static void forget_fresh(struct bt_server *s)
{
	/* The row is in the store now, or never comes. */
	while (s->fresh) {
		struct bt_release *r = s->fresh;
		s->fresh = r->next;
		bt_release_free(r);
	}
}

static void on_started(void *arg, int result, const struct bt_err *err)
{
	struct starting *st = arg;
	if (result == 0 && !st->retire) {
		json_decref(st->svc->config);
		st->svc->config = json_incref(st->config);
		st->svc->retire_at = 0;
	}
	if (--st->server->n_starting == 0)
		forget_fresh(st->server);
	st->done(st->arg, st->id, result, err);
	json_decref(st->config);
	free(st);
}

static void put_release(struct bt_txn *t, const struct bt_run_start *spec, const char *config)
{
	const struct bt_release *r = spec->release;
	bt_txn_add(t, BT_SQL_RELEASE_ADD, (int64_t)r->id, r->service, r->version, r->digest,
		(int64_t)r->size, r->file_name, config, spec->config_hash, spec->by,
		(const char *)spec->sealed, spec->n_sealed, bt_clock_wall_ms());
	if (spec->files)
		bt_txn_add(t, BT_SQL_RELEASE_FILES_PUT, (int64_t)r->id, spec->files, spec->n_files);
}

static struct bt_txn *first_rows(
	struct bt_running *r, const struct bt_run_start *spec, uint64_t token, bool retire)
{
	const struct bt_release *rel = spec->release;
	const struct bt_plan *p = spec->plan;
	const struct bt_plan_release *old = bt_plan_release(p, p->old_release);
	struct bt_txn *t = bt_txn_new();
	BT_FREE char *config = bt_json_dump(rel->config);
	BT_FREE char *detail = bt_asprintf("deployment %llu: %s %s", (unsigned long long)r->id,
		bt_plan_purpose_name(p->purpose), rel->version);
	BT_JSON json_t *by = spec->by ? json_loads(spec->by, 0, NULL) : NULL;
	if (!retire || !bt_server_service(r->server, r->service))
		bt_txn_add(t, BT_SQL_SERVICE_PUT, r->service, config, bt_clock_wall_ms());
	if (!retire)
		bt_txn_add(t, BT_SQL_SERVICE_RETIRE_AT, r->service, (int64_t)0);
	if (spec->new_release)
		put_release(t, spec, config);
	bt_txn_add(t, BT_SQL_LEASE_TAKE, r->service, (int64_t)r->id, r->holder, bt_clock_wall_ms());
	bt_txn_add(t, BT_SQL_DEPLOYMENT_ADD, (int64_t)r->id, r->service, rel->version,
		(int64_t)rel->id, (int64_t)p->old_release, old ? old->version : (const char *)NULL,
		bt_plan_purpose_name(p->purpose),
		p->flow ? p->flow : bt_enum_name(&bt_enum_strategy, (int)p->strategy), spec->by,
		(int64_t)token, r->started_wall);
	const char *from = json_string_value(json_object_get(by, "from"));
	bt_server_audit(t, &(struct bt_audit){spec->holder, from, r->service, "start", detail});
	return t;
}

int bt_run_start(struct bt_server *s, const struct bt_run_start *spec,
	void (*done)(void *arg, uint64_t id, int result, const struct bt_err *err), void *arg,
	struct bt_err *err)
{
	const struct bt_release *rel = spec->release;
	struct bt_plan *plan = spec->plan;
	struct bt_config *config = NULL;
	bool retire = bt_plan_only_cleans(plan->purpose);
	int rc = bt_run_lease_free(s, rel->service, err);
	if (rc == 0)
		rc = bt_config_service_from_json(rel->config, &config, err);
	if (rc < 0) {
		bt_plan_free(plan);
		return rc;
	}
	struct bt_svc *svc = bt_server_service_add(s, rel->service);
	struct bt_running *r = bt_run_new(s, (uint64_t)s->next_deployment++, rel->service);
	r->release = rel->id;
	r->config = config;
	r->service_json = json_incref(rel->config);
	r->started_wall = bt_clock_wall_ms();
	r->holder = bt_strdup(spec->holder);
	r->purpose = bt_strdup(bt_plan_purpose_name(plan->purpose));
	struct starting *st = bt_calloc(1, sizeof *st);
	*st = (struct starting){done, arg, r->id, s, svc, json_incref(rel->config), retire};
	s->n_starting++;
	if (spec->new_release) /* its commands are made before its row is stored */
		bt_release_remember(s, rel);
	struct bt_pending *p = bt_pending_new(BT_EVENT_START);
	p->plan = plan;
	p->token = ++svc->token;
	p->extra = first_rows(r, spec, p->token, retire);
	p->done = on_started;
	p->arg = st;
	bt_run_push(r, p);
	return 0;
}

/* ---- the way back ------------------------------------------------------------------------ */

struct back {
	struct bt_running *run;
	uint32_t release, first_task_id;
};

static void cannot(struct bt_running *r, const struct bt_err *err)
{
	struct bt_pending *p = bt_pending_new(BT_EVENT_PLAN_FAILED);
	p->by = bt_arena_strdup(p->arena, err->text);
	bt_log(&r->log, BT_LOG_ERROR, "no plan back: %s", err->text);
	bt_run_push(r, p);
}

static int plan_back(struct bt_running *r, const struct back *b, struct bt_world *w,
	struct bt_plan **ret, struct bt_err *err)
{
	struct bt_release *rel = NULL;
	struct bt_config *config = NULL;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_plan_release *known = NULL;
	struct bt_plan_request rq = {.world = w,
		.first_task_id = b->first_task_id,
		.before = bt_engine_first_plan(r->engine)};
	int rc = 0;
	if (b->release)
		rc = bt_release_load(r->server, b->release, &rel, err);
	if (rc == 0)
		rc = bt_config_service_from_json(rel ? rel->config : r->service_json, &config, err);
	if (rc == 0) {
		rq.service = &config->services[0];
		if (rel)
			rq.release = (struct bt_plan_release){rel->id, rel->version, rel->digest};
		rq.n_known = bt_release_known(r->server, r->service, a, &known);
		rq.known = known;
		if (bt_streq(r->purpose, "deploy") || bt_streq(r->purpose, "flow"))
			rq.failed = &r->config->services[0];
		rq.failed_release.id = r->release; /* its version is among the known */
		rc = bt_plan_rollback(&rq, ret, err);
	}
	bt_config_free(config);
	bt_release_free(rel);
	return rc;
}

static void on_world(void *arg, struct bt_world *w, const struct bt_err *err)
{
	struct back *b = arg;
	struct bt_running *r = b->run;
	struct bt_plan *plan = NULL;
	struct bt_err why;
	r->gather = NULL;
	if (!w)
		cannot(r, err);
	else if (plan_back(r, b, w, &plan, &why) < 0)
		cannot(r, &why);
	bt_world_free(w);
	if (plan) {
		struct bt_pending *p = bt_pending_new(BT_EVENT_PLAN);
		p->plan = plan;
		bt_run_push(r, p);
	}
	free(b);
}

void bt_run_plan_back(struct bt_running *r, uint32_t release, uint32_t first_task_id)
{
	if (r->gather)
		return; /* on its way */
	struct back *b = bt_calloc(1, sizeof *b);
	*b = (struct back){r, release, first_task_id};
	r->back = b;
	r->gather = bt_gather_start(r->server, &r->config->services[0], r->service_json,
		r->observed_since, false, NULL, on_world, b);
}
