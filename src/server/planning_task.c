/* One task by itself, as a deployment tool's client sends it:
 * `{"task":"TomcatTask","action":"stop"}`.
 *
 * It becomes a flow of one task, so that roles, lease, journal, guards and the way back are those
 * of every run. What the message leaves open has to be clear from what is known here: where several
 * services, hosts or instances could be meant, it is refused, and the refusal lists them. */
#include "server/planning_wish.h"
#include "server/tasks.h"

#include "plan/flows.h"

#include <string.h>

/* The messages of such a client; a task's own name goes without an action. */
static const struct {
	const char *task, *action;
	enum bt_task_kind kind;
} messages[] = {
	{"TomcatTask", "stop", BT_TASK_TOMCAT_STOP},
	{"TomcatTask", "start", BT_TASK_TOMCAT_START},
	{"L4Task", "turnOff", BT_TASK_L4_TURN_OFF},
	{"L4Task", "turnOn", BT_TASK_L4_TURN_ON},
	{"LoopbackTask", "stop", BT_TASK_LOOPBACK_STOP},
	{"LoopbackTask", "start", BT_TASK_LOOPBACK_START},
	{"ComponentDeployTask", "componentDeployStart", BT_TASK_COMPONENT_DEPLOY},
};

struct target {
	const char *service, *host, *slot; /* slot NULL: all of the host's */
};

struct finding {
	struct bt_server *server;
	const struct bt_who *who;
	const char *service, *host, *slot; /* what the message says; NULL: nothing */
	int64_t port;			   /* 0: nothing */
	bool by_instance;
	struct bt_arena *arena;
	struct target *found;
	size_t n, cap;
};

enum { MAX_LISTED = 12, MAX_FOUND = 100000 };

static int read_kind(const json_t *body, enum bt_task_kind *ret, struct bt_err *err)
{
	const char *task = NULL, *action = NULL, *near = NULL;
	const char *words[BT_ARRAY_LEN(messages)];
	size_t n = 0;
	int r = bt_json_str(body, "task", &task, err);
	if (r == 0)
		r = bt_json_str_opt(body, "action", &action, err);
	if (r < 0)
		return r;
	for (size_t i = 0; action && i < BT_ARRAY_LEN(messages); i++) {
		if (!bt_streq(messages[i].task, task))
			continue;
		words[n++] = messages[i].action;
		if (bt_streq(messages[i].action, action)) {
			*ret = messages[i].kind;
			return 0;
		}
	}
	if (n) {
		near = bt_nearest(action, words, n);
		return bt_err_set(err, BT_E_CONFIG,
			"%s: expected the action %s%s%s, found '%.60s'%s%s%s", task, words[0],
			n > 1 ? " or " : "", n > 1 ? words[1] : "", action,
			near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	}
	const struct bt_task_info *info = bt_task_find_in_flow(task, &near);
	if (info && !(info->scope & BT_SCOPE_PLACE))
		info = NULL;
	if (!info || info->kind == BT_TASK_EXEC)
		return bt_err_set(err, BT_E_CONFIG,
			"task '%.60s'%s%.60s: expected TomcatTask, L4Task, LoopbackTask or "
			"ComponentDeployTask with its action, or a task's own name such as "
			"L4TurnOff%s%s%s",
			task, action ? " " : "", action ? action : "",
			near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	for (size_t i = 0; i < info->n_params; i++)
		if (info->params[i].required)
			return bt_err_set(err, BT_E_CONFIG,
				"%s: a task by itself takes no parameters, and this one needs %s: "
				"write it into a flow",
				info->name, info->params[i].name);
	*ret = info->kind;
	return 0;
}

/* A parameter that is not known would be one that is not kept to. */
static int check_members(const json_t *body, struct bt_err *err)
{
	static const char *const known[] = {"task", "action", "serviceName", "service", "host",
		"instanceId", "port", "file", "version", "deployPath", "by"};
	const char *name;
	json_t *value;
	json_object_foreach ((json_t *)body, name, value) {
		bool found = false;
		for (size_t i = 0; i < BT_ARRAY_LEN(known); i++)
			found = found || bt_streq(name, known[i]);
		const char *near = found ? NULL : bt_nearest(name, known, BT_ARRAY_LEN(known));
		if (!found)
			return bt_err_set(err, BT_E_CONFIG,
				"unknown member '%.60s': a task takes task, action, serviceName, "
				"host, instanceId, port, file, version and deployPath%s%s%s",
				name, near ? " (did you mean '" : "", near ? near : "",
				near ? "'?)" : "");
	}
	return 0;
}

static int read_target(struct finding *f, const json_t *body, struct bt_err *err)
{
	int r = bt_json_str_opt(body, "serviceName", &f->service, err);
	if (r == 0 && !f->service)
		r = bt_json_str_opt(body, "service", &f->service, err);
	if (r == 0)
		r = bt_json_str_opt(body, "host", &f->host, err);
	if (r == 0)
		r = bt_json_str_opt(body, "instanceId", &f->slot, err);
	if (r == 0)
		r = bt_json_int_opt(body, "port", 1, 65535, &f->port, err);
	return r;
}

static void add(struct finding *f, const char *service, const char *host, const char *slot)
{
	if (f->n == f->cap) {
		size_t cap = f->cap ? f->cap * 2 : 16;
		struct target *more = BT_ARENA_ARRAY(f->arena, struct target, cap);
		if (f->n)
			memcpy(more, f->found, f->n * sizeof *more);
		f->found = more;
		f->cap = cap;
	}
	f->found[f->n++] = (struct target){bt_arena_strdup(f->arena, service),
		bt_arena_strdup(f->arena, host), bt_arena_strdup(f->arena, slot)};
}

/* The port that clients ask is the service's as a whole; an instance's is its own. */
static bool fits(const struct finding *f, const struct bt_service *s, const struct bt_slot *slot)
{
	if (f->slot && !bt_streq(slot->name, f->slot))
		return false;
	return !f->port || slot->port == f->port || (s->l4 && s->l4->port == f->port);
}

static void look_at(struct finding *f, const struct bt_service *s)
{
	for (size_t h = 0; h < s->n_hosts && f->n < MAX_FOUND; h++) {
		size_t n = 0;
		if (f->host && !bt_streq(s->hosts[h], f->host))
			continue;
		for (size_t i = 0; i < s->run.n_slots; i++) {
			if (!fits(f, s, &s->run.slots[i]))
				continue;
			bool alone = f->by_instance || f->slot || f->port;
			if (alone || n == 0)
				add(f, s->name, s->hosts[h], alone ? s->run.slots[i].name : NULL);
			n++;
		}
	}
}

/* Every place that the caller may work on and that the message could mean. */
static void find(struct finding *f)
{
	for (const struct bt_svc *svc = f->server->services; svc; svc = svc->next) {
		struct bt_config *config = NULL;
		if ((f->service && !bt_streq(svc->name, f->service)) ||
			!bt_who_sees(f->who, svc->name) || !svc->config ||
			bt_config_service_from_json(svc->config, &config, NULL) < 0)
			continue;
		look_at(f, &config->services[0]);
		bt_config_free(config);
	}
}

static int one(struct finding *f, const char *task, struct target *ret, struct bt_err *err)
{
	BT_STR struct bt_str list = {0};
	find(f);
	if (f->n == 1) {
		*ret = f->found[0];
		return 0;
	}
	for (size_t i = 0; i < f->n && i < MAX_LISTED; i++)
		bt_str_addf(&list, "%s%s on %s%s%s", i ? ", " : "", f->found[i].service,
			f->found[i].host, f->found[i].slot ? "/" : "",
			f->found[i].slot ? f->found[i].slot : "");
	if (f->n > MAX_LISTED)
		bt_str_addf(&list, " and %zu more", f->n - MAX_LISTED);
	if (f->n == 0)
		return bt_err_set(err, BT_E_CONFIG,
			"%s: no deployed service fits serviceName '%s', host '%s', instanceId '%s' "
			"and "
			"port %lld",
			task, f->service ? f->service : "any", f->host ? f->host : "any",
			f->slot ? f->slot : "any", (long long)f->port);
	return bt_err_set(err, BT_E_CONFIG,
		"%s could mean %s: say which with serviceName, host and instanceId", task,
		bt_str_get(&list));
}

/* ---- ComponentDeploy: what comes, and where to --------------------------------------------- */

static int read_path(
	const struct bt_service *s, const struct target *t, const char *path, struct bt_err *err)
{
	const struct bt_slot *slot = t->slot ? bt_service_slot(s, t->slot) : &s->run.slots[0];
	struct bt_placeholders p = {.slot = slot->name, .host = t->host, .port = slot->port};
	BT_STR struct bt_str base = {0};
	if (s->run.as == BT_RUNTIME_TOMCAT && bt_streq(path, s->tomcat.context))
		return 0;
	if (s->run.as == BT_RUNTIME_TOMCAT && s->tomcat.base &&
		bt_config_expand(s->tomcat.base, &p, &base, NULL) == 0) {
		size_t n = base.len;
		const char *rest = strncmp(path, bt_str_get(&base), n) == 0 ? path + n : "?";
		if (bt_streq(rest, "") || bt_streq(rest, "/webapps") || bt_streq(rest, "/webapps/"))
			return 0;
	}
	return bt_err_set(err, BT_E_CONFIG,
		"deployPath '%.200s' is not where %s is deployed on %s: its config says %s%s%s; "
		"leave "
		"deployPath out, or change the config",
		path, s->name, t->host,
		s->run.as == BT_RUNTIME_TOMCAT ? "context " : "the release's own directory",
		s->run.as == BT_RUNTIME_TOMCAT && s->tomcat.context ? s->tomcat.context : "",
		base.len ? bt_str_get(&base) : "");
}

/* `file` is an artifact's digest, or a release's version. */
static int read_file(struct bt_server *s, const struct target *t, const json_t *body, json_t *wish,
	struct bt_err *err)
{
	const char *file = NULL, *version = NULL;
	BT_JSON json_t *rows = NULL;
	struct bt_release *known = NULL;
	int r = bt_json_str(body, "file", &file, err);
	if (r == 0)
		r = bt_json_str_opt(body, "version", &version, err);
	uint32_t id = r == 0 ? bt_release_find_text(s, t->service, file) : 0;
	if (id) {
		r = bt_release_load(s, id, &known, err);
		if (r == 0)
			json_object_update_new(wish,
				json_pack("{s:s, s:{s:s, s:I, s:s}}", "version", known->version,
					"artifact", "digest", known->digest, "size",
					(json_int_t)known->size, "file_name", known->file_name));
		bt_release_free(known);
		return r;
	}
	if (r == 0)
		r = bt_store_select(s->store, &rows, err, BT_SQL_ARTIFACT_GET, file);
	if (r < 0)
		return r;
	json_t *row = json_array_get(rows, 0);
	if (!row)
		return bt_err_set(err, BT_E_CONFIG,
			"file '%.80s': expected the sha256 of an uploaded artifact (PATCH "
			"/v1/artifacts/{digest}), or a version of %s",
			file, t->service);
	json_object_set_new(
		wish, "version", version ? json_string(version) : json_stringn(file, 12));
	json_object_set(wish, "artifact", row);
	return 0;
}

static int put_release(struct bt_server *s, const struct target *t, const json_t *body,
	json_t *wish, struct bt_err *err)
{
	const struct bt_svc *svc = bt_server_service(s, t->service);
	struct bt_config *config = NULL;
	const char *path = NULL;
	int r = bt_json_str_opt(body, "deployPath", &path, err);
	if (r == 0 && path) {
		r = bt_config_service_from_json(svc->config, &config, err);
		if (r == 0)
			r = read_path(&config->services[0], t, path, err);
		bt_config_free(config);
	}
	return r < 0 ? r : read_file(s, t, body, wish, err);
}

/* ---- the wish ------------------------------------------------------------------------------ */

static int make(struct bt_wish *w, const json_t *body, json_t **ret, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct finding f = {.server = w->server, .who = bt_who(w->x), .arena = a};
	struct target t = {0};
	enum bt_task_kind kind = BT_TASK_OBSERVE;
	int r = read_kind(body, &kind, err);
	if (r == 0)
		r = check_members(body, err);
	if (r == 0)
		r = read_target(&f, body, err);
	if (r < 0)
		return r;
	const struct bt_task_info *info = bt_task_info(kind);
	f.by_instance = kind == BT_TASK_TOMCAT_STOP || kind == BT_TASK_TOMCAT_START ||
			kind == BT_TASK_INSTANCE_STOP || kind == BT_TASK_INSTANCE_START;
	if (info->scope == BT_SCOPE_HOST) /* an instance is no part of it */
		f.slot = NULL;
	r = one(&f, info->name, &t, err);
	if (r < 0)
		return r;
	BT_JSON json_t *wish = json_pack("{s:s, s:s, s:[s], s:b}", "service", t.service, "flow",
		info->name, "hosts", t.host, "keep_secrets", 1);
	if (t.slot && info->scope != BT_SCOPE_HOST)
		json_object_set_new(wish, "instances", json_pack("[s]", t.slot));
	if (kind == BT_TASK_COMPONENT_DEPLOY)
		r = put_release(w->server, &t, body, wish, err);
	json_t *by = json_object_get(body, "by");
	if (by)
		json_object_set(wish, "by", by);
	if (r < 0)
		return r;
	struct bt_task_wish *task = w->task = bt_calloc(1, sizeof *task);
	task->hook = (struct bt_hook){.kind = kind, .within_ms = -1};
	task->stage = (struct bt_flow_stage){.per = BT_PER_HOST,
		.min_in_rotation = -1,
		.on_failure = -1,
		.tasks = &task->hook,
		.n_tasks = 1};
	task->flow = (struct bt_flow){info->name, info->summary, &task->stage, 1};
	*ret = BT_STEAL(wish);
	return 0;
}

int bt_wish_read_task(struct bt_wish *w, const json_t *body, struct bt_err *err)
{
	json_t *wish = NULL;
	const char *wait = bt_http_query(w->x, "wait");
	int64_t wait_ms = 0;
	if (wait && bt_duration_parse(wait, &wait_ms, err) < 0)
		return bt_err_wrap(err, "wait");
	if (wait_ms > BT_TASK_WAIT_MAX_MS)
		return bt_err_set(err, BT_E_CONFIG, "wait: at most 10m");
	int r = make(w, body, &wish, err);
	if (r < 0)
		return r;
	w->task->wait_ms = wait_ms;
	json_decref(w->body);
	w->body = wish;
	return bt_wish_read(w, wish, err);
}
