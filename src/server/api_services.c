/* Services: what serves, and going back or anew. */
#include "base/clock.h"
#include "plan/scene.h"
#include "server/api.h"
#include "server/gate.h"

#include <string.h>

struct bt_svc *bt_api_find_service(struct bt_server *s, struct bt_http_exchange *x)
{
	const char *name = bt_http_param(x, "service");
	struct bt_svc *svc = bt_server_service(s, name);
	struct bt_err err;
	if (bt_who_may(bt_who(x), name, &err) < 0) {
		bt_http_reply_error(x, &err);
		return NULL;
	}
	if (svc && svc->config)
		return svc;
	bt_api_error(x, BT_E_NOTFOUND,
		"no service '%.80s' here: it comes with its first deployment", name);
	return NULL;
}

static const struct bt_running *run_of(struct bt_server *s, const char *service)
{
	for (int64_t id = s->next_deployment - 1; id > 0 && id > s->next_deployment - 1000; id--) {
		const struct bt_running *r = bt_run_find(s, (uint64_t)id);
		if (r && bt_streq(bt_run_service(r), service) &&
			bt_engine_phase(bt_run_engine(r)) != BT_PHASE_ENDED)
			return r;
	}
	return NULL;
}

static void put_release(struct bt_server *s, json_t *j, const char *key, uint32_t id)
{
	struct bt_release *rel = NULL;
	if (id && bt_release_load(s, id, &rel, NULL) == 0)
		json_object_set_new(j, key,
			json_pack("{s:i, s:s}", "id", (int)rel->id, "version", rel->version));
	bt_release_free(rel);
}

static json_t *slot_json(const struct bt_scene *s, const struct bt_place *p)
{
	json_t *in_at = json_array();
	for (size_t i = 0; i < s->n_balancers; i++)
		if (bt_scene_in_at(s, p, i))
			json_array_append_new(in_at, json_string(s->balancers[i].on));
	json_t *o = json_pack("{s:s, s:s, s:i, s:s, s:I, s:s*, s:s*, s:s*, s:b, s:b, s:o, s:I}",
		"host", bt_scene_host(s, p), "slot", bt_scene_slot(s, p), "port", (int)p->port,
		"state", bt_run_state_name(p->state), "release", (json_int_t)p->release, "version",
		p->version, "stranger", p->stranger, "identity", p->identity, "in", (int)p->in,
		"one", (int)p->one, "in_at", in_at, "connections", (json_int_t)p->connections);
	if (p->health != BT_VITAL_UNKNOWN)
		json_object_set_new(o, "healthy", json_boolean(p->health == BT_VITAL_HEALTHY));
	if (p->unhealthy_why)
		json_object_set_new(o, "unhealthy_why", json_string(p->unhealthy_why));
	bt_api_set_time(o, "since", p->since_wall_ms);
	return o;
}

/* host × slot as the plan layer sees it, so that "in rotation" means one thing everywhere. */
static void put_slots(json_t *j, const struct bt_service *service, const struct bt_world *w)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_scene scene;
	struct bt_err err;
	json_t *list = json_array();
	json_object_set_new(j, "slots", list);
	if (bt_scene_look(service, w, a, &scene, &err) < 0) {
		json_object_set_new(j, "trouble", json_string(err.text));
		return;
	}
	for (size_t i = 0; i < scene.n_places; i++)
		json_array_append_new(list, slot_json(&scene, &scene.places[i]));
	json_t *balancers = json_array();
	json_object_set_new(j, "balancers", balancers);
	for (size_t i = 0; i < scene.n_balancers; i++) {
		const struct bt_seen_balancer *b = scene.balancers[i].seen;
		json_array_append_new(balancers,
			json_pack("{s:s, s:s, s:b, s:i, s:s*}", "host", scene.balancers[i].on,
				"family", scene.facts.family, "running", b ? (int)b->running : 0,
				"old_workers", b ? b->old_workers : 0, "trouble",
				b ? b->trouble : NULL));
	}
}

static json_t *summary(struct bt_server *s, struct bt_svc *svc, struct bt_world *w,
	const struct bt_service *service, bool full)
{
	json_t *j = json_pack("{s:s}", "name", svc->name);
	put_release(s, j, "release", svc->live);
	const struct bt_running *run = run_of(s, svc->name);
	json_object_set_new(j, "phase",
		json_string(run ? bt_phase_name(bt_engine_phase(bt_run_engine(run))) : "idle"));
	if (run && bt_engine_asks(bt_run_engine(run)))
		json_object_set_new(j, "asks", json_integer((json_int_t)bt_run_id(run)));
	bt_gate_put(s, j, svc->name);
	const char **hosts = NULL;
	size_t n = service ? bt_service_hosts(service, &hosts) : 0;
	json_t *list = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_string(hosts[i]));
	free(hosts);
	json_object_set_new(j, "hosts", list);
	BT_STR struct bt_str why = {0};
	struct bt_err err = {0};
	int slot = -1;
	int r = service && w ? bt_plan_live_slot(service, w, &slot, &why, &err) : -1;
	const char *name = r == 0 && slot >= 0 ? service->run.slots[slot].name : NULL;
	if (name)
		json_object_set_new(j, "live_slot", json_string(name));
	json_object_set_new(j, "strategy",
		service ? json_string(
				  bt_enum_name(&bt_enum_strategy, (int)service->deploy.strategy))
			: json_null());
	if (service && w)
		put_slots(j, service, w);
	if (full) {
		json_object_set_new(j, "live",
			json_pack("{s:s?, s:s}", "slot", name, "why",
				r == 0 ? bt_str_get(&why) : err.text));
		json_object_set(j, "config", svc->config);
		put_release(s, j, "rollback_to",
			svc->live ? bt_release_previous(s, svc->name, svc->live) : 0);
		if (w)
			json_object_set_new(j, "world", bt_world_to_json(w));
	}
	return j;
}

static json_t *service_json(struct bt_server *s, struct bt_svc *svc, bool full)
{
	struct bt_config *config = NULL;
	const struct bt_service *service = NULL;
	if (bt_config_service_from_json(svc->config, &config, NULL) == 0)
		service = &config->services[0];
	struct bt_world *w = service ? bt_world_last_seen(s, service) : NULL;
	json_t *j = summary(s, svc, w, service, full);
	bt_world_free(w);
	bt_config_free(config);
	return j;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(struct bt_svc *const *)a)->name, (*(struct bt_svc *const *)b)->name);
}

/* Each row costs a look at what its hosts saw: a page that shows thirty asks for thirty. */
static void reply_services(struct bt_http_exchange *x, struct bt_server *s)
{
	const char *find = bt_http_query(x, "find");
	size_t limit = (size_t)bt_api_query_int(x, "limit", 1, 1000000, 1000000), n = 0;
	struct bt_svc **all = NULL;
	for (struct bt_svc *svc = s->services; svc; svc = svc->next)
		if (svc->config && bt_who_sees(bt_who(x), svc->name) &&
			(!find || strstr(svc->name, find))) {
			all = bt_realloc(all, (n + 1) * sizeof *all);
			all[n++] = svc;
		}
	if (n)
		qsort(all, n, sizeof *all, by_name);
	json_t *list = json_array();
	for (size_t i = 0; i < n && i < limit; i++)
		json_array_append_new(list, service_json(s, all[i], false));
	free(all);
	bt_http_reply_json(
		x, 200, json_pack("{s:o, s:I}", "services", list, "total", (json_int_t)n));
}

void bt_api_services(struct bt_http_exchange *x, void *arg)
{
	bt_fresh_then(arg, x, NULL, 0, reply_services);
}

static void reply_service(struct bt_http_exchange *x, struct bt_server *s)
{
	struct bt_svc *svc = bt_api_find_service(s, x);
	if (svc)
		bt_http_reply_json(x, 200, service_json(s, svc, true));
}

void bt_api_service(struct bt_http_exchange *x, void *arg)
{
	struct bt_svc *svc = bt_api_find_service(arg, x);
	struct bt_config *config = NULL;
	const char **hosts = NULL;
	size_t n = 0;
	if (!svc)
		return;
	if (bt_config_service_from_json(svc->config, &config, NULL) == 0)
		n = bt_service_hosts(&config->services[0], &hosts);
	bt_fresh_then(arg, x, hosts, n, reply_service);
	free(hosts);
	bt_config_free(config);
}

void bt_api_service_rollback(struct bt_http_exchange *x, void *arg)
{
	BT_JSON json_t *body = NULL;
	size_t n;
	struct bt_err err;
	const char *to = NULL, *service = bt_http_param(x, "service");
	bool force = false;
	(void)bt_http_body(x, &n);
	if (n && !(body = bt_api_body(x)))
		return;
	if (bt_who_may(bt_who(x), service, &err) < 0 ||
		(body && (bt_json_str_opt(body, "to", &to, &err) < 0 ||
				 bt_json_bool_opt(body, "force", &force, &err) < 0))) {
		bt_http_reply_error(x, &err);
		return;
	}
	bt_planning_rollback(arg, x, service, body);
}

void bt_api_service_adopt(struct bt_http_exchange *x, void *arg)
{
	BT_JSON json_t *body = bt_api_body(x);
	if (!body)
		return;
	json_object_set_new(body, "service", json_string(bt_http_param(x, "service")));
	bt_planning_adopt(arg, x, body);
}

void bt_api_service_restart(struct bt_http_exchange *x, void *arg)
{
	size_t n;
	(void)bt_http_body(x, &n);
	BT_JSON json_t *body = n ? bt_api_body(x) : json_object();
	if (body)
		bt_planning_restart(arg, x, bt_http_param(x, "service"), body);
}
