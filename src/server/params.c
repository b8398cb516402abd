/* Commands in words: the engine's are numbers and plan indexes; an agent gets names, addresses and
 * specs (docs/wire.md, "params by task kind"). One row a task kind. Secrets are not part of what is
 * stored: bt_params_complete puts them in when a command is handed to its host. */
#include "config/call.h"
#include "server/run.h"

#include <stdio.h>
#include <string.h>

bool bt_params_balancer_wants(const json_t *service, const char *secret)
{
	const json_t *http = json_object_get(json_object_get(service, "traffic"), "http");
	const char *name;
	json_t *value;
	json_object_foreach (json_object_get(http, "headers"), name, value) {
		const char *ref = NULL;
		size_t n = 0;
		for (const char *t = json_string_value(value); t && bt_secret_ref(t, &ref, &n);
			t = ref + n)
			if (!secret || (strlen(secret) == n && memcmp(secret, ref, n) == 0))
				return true;
	}
	return false;
}

json_t *bt_params_balancer_secrets(const json_t *service, const json_t *all)
{
	json_t *out = json_object(), *value;
	const char *name;
	json_object_foreach ((json_t *)all, name, value)
		if (bt_params_balancer_wants(service, name))
			json_object_set(out, name, value);
	return out;
}

struct build {
	struct bt_server *server;
	const struct bt_plan *plan;
	const char *service;
	const json_t *service_json; /* of the run */
	const struct bt_command *c;
	const struct bt_plan_instance *instance; /* NULL: none */
	const struct bt_plan_balancer *balancer;
	json_t *params;
};

/* The config that a release was made with; the run's own where the release is gone or none. */
static json_t *config_of(const struct build *b, uint32_t release)
{
	struct bt_release *r = NULL;
	if (release && bt_release_load(b->server, release, &r, NULL) == 0) {
		json_t *config = json_incref(r->config);
		bt_release_free(r);
		return config;
	}
	return json_incref((json_t *)b->service_json);
}

static void put_service(struct build *b, uint32_t release)
{
	json_object_set_new(b->params, "service", config_of(b, release));
}

static void put_slot(struct build *b)
{
	json_object_set_new(b->params, "slot", json_string(b->instance->slot));
	json_object_set_new(b->params, "port", json_integer(b->instance->port));
	json_object_set_new(b->params, "release", json_integer(b->c->release));
}

static json_t *member(const struct build *b, uint16_t index)
{
	const struct bt_plan_instance *i = &b->plan->instances[index];
	bool near = b->balancer && b->c->host == i->host; /* others need its address */
	return json_pack("{s:s, s:s, s:s, s:i}", "host", b->plan->hosts[i->host], "slot", i->slot,
		"address", near ? "127.0.0.1" : i->address, "port", (int)i->port);
}

static bool listed(const uint16_t *list, size_t n, uint16_t index)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == index)
			return true;
	return false;
}

static int observe(struct build *b, struct bt_err *err)
{
	json_t *names = json_array();
	(void)err;
	for (size_t i = 0; i < b->plan->n_balancers; i++)
		if (b->plan->balancers[i].host == b->c->host)
			json_array_append_new(names, json_string(b->plan->balancers[i].name));
	json_object_set(b->params, "service", (json_t *)b->service_json);
	json_object_set_new(b->params, "balancers", names);
	return 0;
}

static int component(struct build *b, struct bt_err *err)
{
	struct bt_release *r = NULL;
	struct bt_config *config = NULL;
	int rc = bt_release_load(b->server, b->c->release, &r, err);
	if (rc == 0)
		rc = bt_config_service_from_json(r->config, &config, err);
	if (rc == 0) {
		json_t *about = json_pack("{s:i, s:s, s:s, s:I, s:s, s:O}", "id", (int)r->id,
			"version", r->version, "digest", r->digest, "size", (json_int_t)r->size,
			"file_name", r->file_name, "service", r->config);
		json_object_update_new(b->params,
			json_pack("{s:i, s:s, s:s, s:I, s:s, s:b, s:o}", "release", (int)r->id,
				"version", r->version, "digest", r->digest, "size",
				(json_int_t)r->size, "file_name", r->file_name, "unpack",
				bt_config_unpacks(&config->services[0], r->file_name),
				"release_json", about));
	}
	bt_config_free(config);
	bt_release_free(r);
	return rc;
}

/* A release that is adopted has no artifact at the server: only its name goes along. */
static int adopt(struct build *b, struct bt_err *err)
{
	int rc = component(b, err);
	json_object_del(b->params, "unpack");
	put_slot(b);
	put_service(b, b->c->release);
	return rc;
}

static int start(struct build *b, struct bt_err *err)
{
	(void)err;
	put_slot(b);
	return 0;
}

static int stop(struct build *b, struct bt_err *err)
{
	(void)err;
	put_slot(b);
	uint32_t runs = b->c->key.verb == BT_UNDO ? b->c->prior.release : b->c->release;
	put_service(b, runs ? runs : b->instance->expect_release);
	return 0;
}

static int health(struct build *b, struct bt_err *err)
{
	(void)err;
	put_slot(b);
	put_service(b, b->c->release);
	json_t *config = json_object_get(b->params, "service");
	json_object_set_new(
		b->params, "identity", json_boolean(json_object_get(config, "identity") != NULL));
	return 0;
}

static int backend_check(struct build *b, struct bt_err *err)
{
	json_t *targets = json_array();
	(void)err;
	put_service(b, b->c->release ? b->c->release : b->plan->release);
	for (size_t i = 0; i < b->c->n_pool; i++)
		json_array_append_new(targets, member(b, b->c->pool[i]));
	json_object_set_new(b->params, "targets", targets);
	return 0;
}

static int put_switch(struct build *b, struct bt_err *err)
{
	json_t *members = json_array(), *slots = json_array();
	const struct bt_task *t =
		b->c->key.verb == BT_DO ? bt_plan_task(b->plan, b->c->key.task, NULL) : NULL;
	(void)err;
	for (uint16_t i = 0; i < b->plan->n_instances; i++) {
		bool in = listed(b->c->pool, b->c->n_pool, i);
		json_t *m = member(b, i);
		json_object_set_new(m, "in", json_boolean(in));
		if (t && listed(t->in, t->n_in, i))
			json_object_set_new(m, "comes", json_true());
		if (in && i == b->c->one)
			json_object_set_new(m, "one", json_true());
		json_array_append_new(members, m);
		if (in)
			json_array_append_new(slots, json_string(b->plan->instances[i].slot));
	}
	json_object_update_new(
		b->params, json_pack("{s:s, s:I, s:o, s:{s:o}}", "balancer", b->balancer->name,
				   "generation", (json_int_t)b->c->generation, "members", members,
				   "expect", "slots", slots));
	uint32_t release = b->plan->release ? b->plan->release : b->plan->old_release;
	put_service(b, b->plan->release);
	if (bt_params_balancer_wants(json_object_get(b->params, "service"), NULL))
		json_object_set_new(b->params, "secrets_of", json_integer(release));
	return 0;
}

static int drain(struct build *b, struct bt_err *err)
{
	json_t *members = json_array();
	(void)err;
	for (size_t i = 0; i < b->c->n_out; i++)
		json_array_append_new(members, member(b, b->c->out[i]));
	json_object_set_new(b->params, "balancer", json_string(b->balancer->name));
	json_object_set_new(b->params, "members", members);
	put_service(b, b->plan->release);
	return 0;
}

static int bake(struct build *b, struct bt_err *err)
{
	if (b->instance)
		return health(b, err);
	json_object_set_new(b->params, "balancer", json_string(b->balancer->name));
	put_service(b, b->plan->release);
	return 0;
}

/* The last `keep` good ones, what runs anywhere, and what this run is about. */
static int prune(struct build *b, struct bt_err *err)
{
	struct bt_config *config = NULL;
	json_t *keep = json_array();
	BT_JSON json_t *good = NULL;
	size_t i;
	json_t *row;
	int r = bt_config_service_from_json(b->service_json, &config, err);
	if (r == 0)
		r = bt_store_select(b->server->store, &good, err, BT_SQL_RELEASES_GOOD, b->service,
			config->services[0].deploy.keep);
	json_array_foreach (good, i, row)
		json_array_append(keep, json_object_get(row, "id"));
	for (i = 0; i < b->plan->n_releases; i++)
		json_array_append_new(keep, json_integer(b->plan->releases[i].id));
	struct bt_world *w = r == 0 ? bt_world_last_seen(b->server, &config->services[0]) : NULL;
	for (i = 0; w && i < w->n_hosts; i++)
		for (size_t k = 0; k < w->hosts[i].n_instances; k++)
			if (w->hosts[i].instances[k].release)
				json_array_append_new(
					keep, json_integer(w->hosts[i].instances[k].release));
	json_object_update_new(b->params, json_pack("{s:s, s:o, s:i}", "service_name", b->service,
						  "keep", keep, "current", (int)b->plan->release));
	bt_world_free(w);
	bt_config_free(config);
	return r;
}

static int exec(struct build *b, struct bt_err *err)
{
	const struct bt_stage *stage = NULL;
	const struct bt_task *t = bt_plan_task(b->plan, b->c->key.task, &stage);
	const struct bt_plan_release *rel = t ? bt_plan_release(b->plan, t->release) : NULL;
	if (!t || !t->exec || !rel)
		return bt_err_set(err, BT_E_CORRUPT, "task %u: no program", b->c->key.task);
	if (b->instance)
		put_slot(b);
	put_service(b, t->release);
	json_t *run = json_array(), *env = json_object();
	for (size_t i = 0; i < t->exec->n_run; i++)
		json_array_append_new(run, json_string(t->exec->run[i]));
	for (size_t i = 0; i < t->exec->n_env; i++)
		json_object_set_new(env, t->exec->env[i].key, json_string(t->exec->env[i].value));
	char number[24];
	snprintf(number, sizeof number, "%llu", (unsigned long long)b->c->key.deployment);
	json_object_set_new(env, "BATON_DEPLOYMENT", json_string(number));
	/* Whoever is told of a failure is told, too, where the release never came. */
	json_object_update_new(
		b->params, json_pack("{s:o, s:o, s:i, s:s, s:b, s:b}", "run", run, "env", env,
				   "release", (int)t->release, "version", rel->version, "safe",
				   t->exec->safe, "anywhere", stage->closing));
	return 0;
}

/* Direct server return is told as its balancer is: with the config of what shall serve. */
static int loopback(struct build *b, struct bt_err *err)
{
	(void)err;
	put_service(b, b->plan->release);
	return 0;
}

/* Whom to tell is the run's own config's word; the secrets are those of the release that serves or
 * shall serve. */
static int notify(struct build *b, struct bt_err *err)
{
	const struct bt_plan *p = b->plan;
	const struct bt_task *t = bt_plan_task(p, b->c->key.task, &(const struct bt_stage *){NULL});
	if (!t || !t->to)
		return bt_err_set(err, BT_E_CORRUPT, "task %u: nobody to tell", b->c->key.task);
	const char *flow = p->flow ? p->flow : bt_enum_name(&bt_enum_strategy, (int)p->strategy);
	uint32_t id = t->release ? t->release : p->release ? p->release : p->old_release;
	const struct bt_plan_release *rel = bt_plan_release(p, id);
	json_t *message = t->message ? json_string(t->message)
				     : json_sprintf("%s %s%s%s", bt_plan_purpose_name(p->purpose),
					       flow, rel ? " of " : "", rel ? rel->version : "");
	json_object_set(b->params, "service", (json_t *)b->service_json);
	json_object_update_new(b->params,
		json_pack("{s:s, s:o, s:s, s:I, s:s*}", "to", t->to, "message", message, "flow",
			flow, "release", (json_int_t)id, "version", rel ? rel->version : NULL));
	return 0;
}

/* The commit that the release was built from, as who deployed it first said; NULL: unknown. */
static json_t *commit_of(const struct build *b, uint32_t release)
{
	BT_JSON json_t *rows = NULL, *by = NULL;
	if (bt_store_select(b->server->store, &rows, NULL, BT_SQL_RELEASE_GET, (int64_t)release) <
		0)
		return NULL;
	const char *text = json_string_value(json_object_get(json_array_get(rows, 0), "by"));
	by = text ? json_loads(text, 0, NULL) : NULL;
	return json_incref(json_object_get(by, "commit"));
}

/* What CodeDeploy tells a script. A service's environment is its deployment group. */
static json_t *lifecycle_env(const struct build *b, const struct bt_task *t)
{
	char id[24];
	const char *at = strchr(b->service, '@');
	BT_FREE char *application =
		bt_strndup(b->service, at ? (size_t)(at - b->service) : strlen(b->service));
	const char *group = at ? at + 1 : b->service;
	snprintf(id, sizeof id, "%llu", (unsigned long long)b->c->key.deployment);
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o*}", "APPLICATION_NAME", application,
		"DEPLOYMENT_ID", id, "DEPLOYMENT_GROUP_NAME", group, "DEPLOYMENT_GROUP_ID", group,
		"LIFECYCLE_EVENT", t->event, "BATON_DEPLOYMENT", id, "BUNDLE_COMMIT",
		commit_of(b, t->release));
}

static int install(struct build *b, struct bt_err *err)
{
	const struct bt_task *t = bt_plan_task(b->plan, b->c->key.task, NULL);
	const struct bt_plan_release *rel = t ? bt_plan_release(b->plan, t->release) : NULL;
	if (!rel)
		return bt_err_set(err, BT_E_CORRUPT, "task %u: no release", b->c->key.task);
	if (b->instance)
		put_slot(b);
	put_service(b, t->release);
	json_object_set_new(b->params, "release", json_integer(t->release));
	json_object_set_new(b->params, "version", json_string(rel->version));
	return 0;
}

static int lifecycle(struct build *b, struct bt_err *err)
{
	const struct bt_task *t = bt_plan_task(b->plan, b->c->key.task, NULL);
	int r = install(b, err);
	if (r == 0 && !t->event)
		r = bt_err_set(err, BT_E_CORRUPT, "task %u: no event", b->c->key.task);
	if (r < 0)
		return r;
	json_object_set_new(b->params, "event", json_string(t->event));
	json_object_set_new(b->params, "env", lifecycle_env(b, t));
	return 0;
}

static int approve(struct build *b, struct bt_err *err)
{
	return bt_err_set(err, BT_E_CORRUPT, "task %u: no host approves", b->c->key.task);
}

static const struct param_row {
	int (*fill)(struct build *b, struct bt_err *err);
	bool instance, balancer; /* needs one */
} rows[BT_TASK_KINDS] = {
	[BT_TASK_OBSERVE] = {observe, false, false},
	[BT_TASK_COMPONENT_DEPLOY] = {component, false, false},
	[BT_TASK_INSTANCE_START] = {start, true, false},
	[BT_TASK_INSTANCE_STOP] = {stop, true, false},
	[BT_TASK_HEALTH_CHECK] = {health, true, false},
	[BT_TASK_BACKEND_CHECK] = {backend_check, false, false},
	[BT_TASK_SWITCH] = {put_switch, false, true},
	[BT_TASK_DRAIN] = {drain, false, true},
	[BT_TASK_BAKE] = {bake, false, false},
	[BT_TASK_PRUNE] = {prune, false, false},
	[BT_TASK_ADOPT] = {adopt, true, false},
	[BT_TASK_EXEC] = {exec, false, false},
	[BT_TASK_LIFECYCLE] = {lifecycle, false, false},
	[BT_TASK_INSTALL] = {install, false, false},
	[BT_TASK_APPROVE] = {approve, false, false},
	[BT_TASK_LOOPBACK_STOP] = {loopback, false, false},
	[BT_TASK_LOOPBACK_START] = {loopback, false, false},
	[BT_TASK_NOTIFY] = {notify, false, false},
};

int bt_params_command(struct bt_server *s, const struct bt_plan *p, const char *service,
	const json_t *service_json, const struct bt_command *c, json_t **ret, struct bt_err *err)
{
	struct build b = {s, p, service, service_json, c, NULL, NULL, json_object()};
	if (c->instance != BT_NONE && c->instance < p->n_instances)
		b.instance = &p->instances[c->instance];
	if (c->balancer != BT_NONE && c->balancer < p->n_balancers)
		b.balancer = &p->balancers[c->balancer];
	const struct param_row *row = &rows[c->kind];
	int r = (row->instance && !b.instance) || (row->balancer && !b.balancer) ||
				(c->kind == BT_TASK_BAKE && !b.instance && !b.balancer)
			? bt_err_set(err, BT_E_CORRUPT, "task %u: %s without its place",
				  c->key.task, bt_task_info(c->kind)->name)
			: row->fill(&b, err);
	if (r < 0) {
		json_decref(b.params);
		return r;
	}
	*ret = json_pack("{s:i, s:o, s:I, s:s, s:s, s:o, s:I, s:I}", "wire", BT_WIRE_VERSION, "key",
		bt_key_to_json(&c->key), "token", (json_int_t)c->token, "service", service, "task",
		bt_task_info(c->kind)->name, "params", b.params, "timeout_ms",
		(json_int_t)c->timeout_ms, "wait_ms", (json_int_t)c->wait_ms);
	if (c->key.verb == BT_UNDO && c->prior.known)
		json_object_set_new(*ret, "prior", bt_prior_to_json(&c->prior));
	return 0;
}

const char *bt_params_digest(const json_t *command)
{
	return json_string_value(json_object_get(json_object_get(command, "params"), "digest"));
}

/* ---- on the way out ---------------------------------------------------------------------- */

/* Whether the url that a Notify goes to holds one. */
static bool tells_with_secrets(const json_t *params)
{
	const json_t *all = json_object_get(json_object_get(params, "service"), "notify");
	const char *to = json_string_value(json_object_get(params, "to"));
	const json_t *one = to ? json_object_get(all, to) : NULL;
	const char *url = json_string_value(json_object_get(one, "url"));
	return url && strstr(url, "${");
}

/* An InstanceStart and an Exec need their release's secrets, an undo of InstanceStop those of what
 * it starts again, and a Notify those that its url may hold. */
static uint32_t needs_secrets_of(const json_t *command)
{
	/* a Switch, where the balancer's API wants some */
	const json_t *balancer = json_object_get(json_object_get(command, "params"), "secrets_of");
	if (balancer)
		return (uint32_t)json_integer_value(balancer);

	const char *task = json_string_value(json_object_get(command, "task"));
	const json_t *key = json_object_get(command, "key");
	bool undo = bt_streq(json_string_value(json_object_get(key, "verb")), "undo");
	const json_t *params = json_object_get(command, "params");
	bool runs = bt_streq(task, "InstanceStart") || bt_streq(task, "Exec") ||
		    bt_streq(task, "Lifecycle") ||
		    (bt_streq(task, "Notify") && tells_with_secrets(params));
	const json_t *from = runs && !undo ? params
			     : bt_streq(task, "InstanceStop") && undo
				     ? json_object_get(command, "prior")
				     : NULL;
	return (uint32_t)json_integer_value(json_object_get(from, "release"));
}

static uint32_t needs_files_of(const json_t *command)
{
	const json_t *key = json_object_get(command, "key");
	const char *task = json_string_value(json_object_get(command, "task"));
	if ((!bt_streq(task, "ComponentDeploy") && !bt_streq(task, "Adopt")) ||
		!bt_streq(json_string_value(json_object_get(key, "verb")), "do"))
		return 0;
	return (uint32_t)json_integer_value(
		json_object_get(json_object_get(command, "params"), "release"));
}

bool bt_params_is_large(const json_t *command)
{
	return json_object_get(json_object_get(command, "params"), "files") != NULL;
}

int bt_params_complete(
	struct bt_server *s, const struct bt_outbox_item *item, json_t **ret, struct bt_err *err)
{
	json_t *j = json_loads(item->json, 0, NULL);
	if (!j)
		return bt_err_set(err, BT_E_CORRUPT, "a stored command does not parse");
	json_object_set_new(j, "seq", json_integer((json_int_t)item->seq));
	uint32_t release = needs_secrets_of(j);
	struct bt_release *rel = NULL;
	json_t *secrets = NULL;
	int r = 0;
	if (release && (r = bt_release_load(s, release, &rel, err)) == 0)
		r = bt_release_secrets(s, rel, &secrets, err);
	json_t *params = json_object_get(j, "params");
	if (secrets && json_object_get(params, "secrets_of")) {
		json_t *all = secrets;
		secrets = bt_params_balancer_secrets(json_object_get(params, "service"), all);
		json_decref(all);
	}
	if (secrets)
		json_object_set_new(params, "secrets", secrets);
	bt_release_free(rel);
	json_t *files = NULL;
	release = r == 0 ? needs_files_of(j) : 0;
	if (release)
		r = bt_release_files(s, release, &files, err);
	if (files)
		json_object_set_new(json_object_get(j, "params"), "files", files);
	if (r < 0)
		json_decref(j);
	else
		*ret = j;
	return r;
}
