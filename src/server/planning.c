/* From a wish to a running deployment. Everything that can be refused without asking a host is
 * refused first; then every host of the service says what it sees now; then the plan is made from
 * that, and only a plan that holds becomes rows, a lease and first commands (run_start.c). */
#include "server/planning_wish.h"
#include "server/tasks.h"

#include "base/clock.h"

#include <string.h>

static void on_close(void *arg)
{
	struct bt_wish *w = arg;
	w->x = NULL; /* a client that leaves changes nothing: what it asked for goes on */
}

static struct bt_wish *wish_new(struct bt_server *s, struct bt_http_exchange *x)
{
	struct bt_wish *w = bt_calloc(1, sizeof *w);
	w->server = s;
	w->x = x;
	w->next = s->wishes;
	s->wishes = w;
	return w;
}

static void wish_free(struct bt_wish *w)
{
	for (struct bt_wish **p = &w->server->wishes; *p; p = &(*p)->next)
		if (*p == w) {
			*p = w->next;
			break;
		}
	bt_gather_cancel(w->gather);
	bt_release_free(w->release);
	bt_config_free(w->config);
	free(w->by);
	free(w->holder);
	free(w->sealed);
	free(w->files);
	json_decref(w->given);
	json_decref(w->contents);
	json_decref(w->secrets);
	json_decref(w->pruned);
	json_decref(w->body);
	json_decref(w->only_hosts);
	json_decref(w->only_slots);
	free(w->task);
	free(w);
}

static void refuse(struct bt_wish *w, const struct bt_err *err)
{
	if (w->x)
		bt_http_reply_error(w->x, err);
	else
		bt_log(NULL, BT_LOG_WARN, "service=%s not started: %s",
			w->release ? w->release->service : "?", err->text);
	wish_free(w);
}

/* ---- with the world ---------------------------------------------------------------------- */

static void drop_pruned(struct bt_wish *w)
{
	struct bt_txn *t = bt_txn_new();
	bt_retention_drop(w->server, t, w->pruned);
	bt_store_commit(w->server->store, t, NULL, NULL);
}

static void on_started(void *arg, uint64_t id, int result, const struct bt_err *err)
{
	struct bt_wish *w = arg;
	if (result < 0) {
		refuse(w, err);
		return;
	}
	bt_gate_begun(w->server, w->ticket, w->release->service, w->holder);
	if (w->pruned)
		drop_pruned(w);
	if (w->x && w->task) {
		bt_http_on_close(w->x, NULL, NULL);
		bt_tasks_answer(w->server, BT_STEAL(w->x), id, w->task->wait_ms);
	} else if (w->x)
		bt_http_reply_json(w->x, 201,
			json_pack("{s:O*, s:I, s:s, s:{s:i, s:s}}", "removed", w->pruned, "id",
				(json_int_t)id, "service", w->release->service, "release", "id",
				(int)w->release->id, "version", w->release->version));
	wish_free(w);
}

static void show(struct bt_wish *w, struct bt_plan *p)
{
	BT_STR struct bt_str text = {0};
	bt_plan_print(p, &text);
	if (w->x)
		bt_http_reply_json(w->x, 200,
			json_pack("{s:o, s:s}", "plan", bt_plan_to_json(p), "text",
				bt_str_get(&text)));
	bt_plan_free(p);
	wish_free(w);
}

static void nothing_warm(struct bt_wish *w)
{
	struct bt_txn *t = bt_txn_new();
	w->retire->retire_at = 0;
	bt_txn_add(t, BT_SQL_SERVICE_RETIRE_AT, w->retire->name, (int64_t)0);
	bt_store_commit(w->server->store, t, NULL, NULL);
	wish_free(w);
}

static void begin(struct bt_wish *w, struct bt_plan *p)
{
	struct bt_err err;
	struct bt_run_start spec = {
		.release = w->release,
		.new_release = w->new_release,
		.config_hash = w->hash,
		.by = w->by,
		.holder = w->holder,
		.sealed = w->sealed,
		.n_sealed = w->n_sealed,
		.files = w->files,
		.n_files = w->n_files,
		.plan = p,
	};
	if (bt_run_start(w->server, &spec, on_started, w, &err) < 0)
		refuse(w, &err);
}

static void on_world(void *arg, struct bt_world *world, const struct bt_err *err)
{
	struct bt_wish *w = arg;
	struct bt_plan *plan = NULL;
	struct bt_err why;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_plan_release *known = NULL;
	const struct bt_release *rel = w->release;
	w->gather = NULL;
	if (!world) {
		refuse(w, err);
		return;
	}
	struct bt_plan_request rq = {
		.service = &w->config->services[0],
		.world = world,
		.release = {rel->id, rel->version, rel->digest},
		.first_task_id = 1,
	};
	rq.n_known = bt_release_known(w->server, rel->service, a, &known);
	rq.known = known;
	bt_wish_fill_flow(w, a, &rq);
	int r = w->make(&rq, &plan, &why);
	if (r == 0 && w->adopt)
		bt_release_adopted(w->release, plan, world);
	bt_world_free(world);
	if (r < 0) {
		refuse(w, &why);
	} else if (w->preview) {
		show(w, plan);
	} else if (plan->n_stages == 0 && w->retire) {
		bt_plan_free(plan);
		nothing_warm(w);
	} else if (plan->n_stages == 0) {
		bt_plan_free(plan);
		bt_err_set(&why, BT_E_REFUSED, "%s %s serves already: there is nothing to do",
			rel->service, rel->version);
		refuse(w, &why);
	} else {
		begin(w, plan);
	}
}

static void gather(struct bt_wish *w)
{
	if (w->x)
		bt_http_on_close(w->x, on_close, w);
	w->gather = bt_gather_start(w->server, &w->config->services[0], w->release->config,
		bt_clock_boot_ms(), w->adopt, w->secrets, on_world, w);
}

void bt_planning_deploy(
	struct bt_server *s, struct bt_http_exchange *x, const json_t *body, bool preview)
{
	struct bt_wish *w = wish_new(s, x);
	struct bt_err err;
	w->preview = preview;
	w->make = bt_plan_deploy;
	w->body = json_incref((json_t *)body);
	if (bt_wish_read(w, body, &err) < 0) {
		refuse(w, &err);
		return;
	}
	gather(w);
}

void bt_planning_task(struct bt_server *s, struct bt_http_exchange *x, const json_t *body)
{
	struct bt_wish *w = wish_new(s, x);
	struct bt_err err;
	if (bt_wish_read_task(w, body, &err) < 0) {
		refuse(w, &err);
		return;
	}
	gather(w);
}

void bt_planning_adopt(struct bt_server *s, struct bt_http_exchange *x, const json_t *body)
{
	struct bt_wish *w = wish_new(s, x);
	struct bt_err err;
	w->adopt = true;
	w->make = bt_plan_adopt;
	if (bt_wish_read(w, body, &err) < 0) {
		refuse(w, &err);
		return;
	}
	gather(w);
}

/* The live release's version and bytes, with the config that came, or the stored one. */
static int restart_body(struct bt_wish *w, const char *service, json_t *body, struct bt_err *err)
{
	const struct bt_svc *svc = bt_server_service(w->server, service);
	struct bt_release *live = NULL;
	int r = bt_who_may(bt_who(w->x), service, err);
	if (r == 0 && (!svc || !svc->live))
		r = bt_err_set(err, BT_E_NOTFOUND,
			"%s has no live release to restart: deploy one first", service);
	if (r == 0)
		r = bt_release_load(w->server, svc->live, &live, err);
	if (r == 0 && !*live->digest)
		r = bt_err_set(err, BT_E_REFUSED,
			"%s was adopted, and what it runs is not known: deploy a release first",
			service);
	if (r == 0)
		json_object_update_new(
			body, json_pack("{s:s, s:s, s:b, s:{s:s, s:I, s:s}}", "service", service,
				      "version", live->version, "keep_secrets", 1, "artifact",
				      "digest", live->digest, "size", (json_int_t)live->size,
				      "file_name", live->file_name));
	bt_release_free(live);
	return r;
}

void bt_planning_restart(
	struct bt_server *s, struct bt_http_exchange *x, const char *service, json_t *body)
{
	struct bt_wish *w = wish_new(s, x);
	struct bt_err err;
	w->again = true;
	w->make = bt_plan_deploy;
	if (restart_body(w, service, body, &err) < 0 || bt_wish_read(w, body, &err) < 0) {
		refuse(w, &err);
		return;
	}
	gather(w);
}

/* ---- a release that is known ------------------------------------------------------------- */

static int may_go_back(const struct bt_wish *w, struct bt_err *err)
{
	const struct bt_release *r = w->release;
	BT_FREE char *what = bt_asprintf("%s %s", r->service, r->version);
	if (r->pruned_at)
		return bt_err_set(err, BT_E_REFUSED,
			"the artifact of %s was removed (pruned): deploy that version again", what);
	return w->force ? 0 : bt_release_bad(what, r->state, r->marked_by, r->marked_why, err);
}

static int load(struct bt_wish *w, uint32_t id, struct bt_err *err)
{
	int r = bt_release_load(w->server, id, &w->release, err);
	if (r == 0)
		r = bt_config_service_from_json(w->release->config, &w->config, err);
	if (r == 0 && w->make == bt_plan_rollback)
		r = may_go_back(w, err);
	if (r == 0)
		r = bt_run_lease_free(w->server, w->release->service, err);
	if (r == 0)
		r = bt_wish_check_hosts(w->server, &w->config->services[0], err);
	return r;
}

void bt_planning_rollback(
	struct bt_server *s, struct bt_http_exchange *x, const char *service, const json_t *body)
{
	struct bt_wish *w = wish_new(s, x);
	struct bt_err err;
	const struct bt_svc *svc = bt_server_service(s, service);
	const char *to = json_string_value(json_object_get(body, "to"));
	w->force = json_is_true(json_object_get(body, "force"));
	w->make = bt_plan_rollback;
	bt_wish_read_by(w, NULL);
	uint32_t id = !svc ? 0
		      : to ? bt_release_find_text(s, service, to)
			   : bt_release_previous(s, service, svc->live);
	int r = 0;
	if (!svc)
		r = bt_err_set(&err, BT_E_NOTFOUND, "no service '%s' here", service);
	else if (!id && to)
		r = bt_err_set(&err, BT_E_NOTFOUND,
			"no release '%s' of %s: `baton release list %s` lists them", to, service,
			service);
	else if (!id)
		r = bt_err_set(&err, BT_E_NOTFOUND,
			"%s has no earlier good release: `baton release list %s` lists them",
			service, service);
	else
		r = bt_gate_check(s, x, service, body, false, &err);
	if (r == 0)
		r = load(w, id, &err);
	if (r < 0) {
		refuse(w, &err);
		return;
	}
	gather(w);
}

void bt_planning_retire(struct bt_server *s, struct bt_svc *svc)
{
	struct bt_wish *w = wish_new(s, NULL);
	struct bt_err err;
	w->make = bt_plan_retire;
	w->retire = svc;
	bt_wish_read_by(w, NULL);
	if (!svc->live || load(w, svc->live, &err) < 0) {
		if (!svc->live)
			bt_err_set(&err, BT_E_NOTFOUND, "%s has no live release", svc->name);
		refuse(w, &err);
		return;
	}
	gather(w);
}

void bt_planning_settle(struct bt_server *s, struct bt_svc *svc)
{
	struct bt_wish *w = wish_new(s, NULL);
	struct bt_err err;
	w->make = bt_plan_rollback;
	bt_wish_read_by(w, NULL);
	if (load(w, svc->live, &err) < 0)
		refuse(w, &err);
	else
		gather(w);
}

void bt_planning_prune(struct bt_server *s, struct bt_http_exchange *x, const char *service)
{
	struct bt_wish *w = wish_new(s, x);
	struct bt_err err;
	const struct bt_svc *svc = bt_server_service(s, service);
	w->make = bt_plan_prune;
	bt_wish_read_by(w, NULL);
	int r = bt_who_may(bt_who(x), service, &err);
	if (r == 0 && (!svc || !svc->live))
		r = bt_err_set(&err, BT_E_NOTFOUND,
			"%s has no live release: there is nothing to prune", service);
	if (r == 0)
		r = load(w, svc->live, &err);
	if (r == 0)
		r = bt_store_select(s->store, &w->pruned, &err, BT_SQL_ARTIFACTS_TO_PRUNE, service,
			w->config->services[0].deploy.keep, (int64_t)svc->live);
	if (r < 0) {
		refuse(w, &err);
		return;
	}
	gather(w);
}

void bt_planning_free(struct bt_server *s)
{
	struct bt_err err;
	bt_err_set(&err, BT_E_STORE, "the server is stopping");
	while (s->wishes)
		refuse(s->wishes, &err);
}
