/* deploy.hooks: lists of tasks that a person adds to the plan. An entry names its kind of task,
 * `{Exec: {run: …}}` or `{Approve: {within: 30m}}`; `{run: …}` alone is an Exec. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

#define SECOND 1000
#define MINUTE (60 * SECOND)
#define DAY ((int64_t)24 * 60 * MINUTE)
#define MAX_HOOKS 50

static const char exec_form[] =
	"run, on, timeout, env and repeat, such as {run: [./migrate.sh, --up], timeout: 5m}";
static const char approve_form[] = "within, such as {Approve: {within: 30m}}";

/* Keys of an entry carry the list's path, so that a problem says where it is. */
static struct bt_key part(const struct bt_key *k, int64_t min, int64_t max)
{
	return (struct bt_key){.path = k->path, .min = min, .max = max};
}

static void read_on(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_hook *h)
{
	int v = BT_ON_HOST;
	if (n->kind == BT_NODE_SCALAR && bt_enum_parse(&bt_enum_hook_on, n->text, &v, NULL) == 0) {
		h->on = (enum bt_hook_on)v;
	} else if (n->kind == BT_NODE_SCALAR && bt_name_valid(n->text)) {
		h->on = BT_ON_HOST;
		h->host = bt_arena_strdup(r->arena, n->text);
	} else
		bt_problem(r->sink, n,
			"%s: on: expected once, each host, each instance or the name of a host, "
			"found %s",
			k->path, bt_node_shown(r->arena, n));
}

static bool read_exec(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_hook *h)
{
	static const char *const words[] = {"run", "on", "timeout", "env", "repeat"};
	struct bt_key argv = part(k, 0, 2048), limit = part(k, 100, DAY), env = part(k, 0, 0);
	argv.check = bt_check_command;
	argv.expected = "only the placeholders " BT_PLACEHOLDERS " ({{ writes a brace)";
	env.check = bt_check_env_name;
	env.expected = "a name such as DB_URL";
	env.placeholders = true;
	if (!bt_reading_only(r, k, n, words, BT_ARRAY_LEN(words), exec_form))
		return false;
	const struct bt_node *v;
	int repeat = BT_REPEAT_NEVER;
	h->timeout_ms = bt_task_info(BT_TASK_EXEC)->timeout_ms;
	if (!(v = bt_node_get(n, "run"))) {
		bt_problem(r->sink, n, "%s: run is missing: expected %s", k->path, exec_form);
		return false;
	}
	bt_type_argv.read(r, &argv, v, &h->exec.run, &h->exec.n_run);
	if ((v = bt_node_get(n, "on")))
		read_on(r, k, v, h);
	if ((v = bt_node_get(n, "timeout")))
		bt_type_duration.read(r, &limit, v, &h->timeout_ms, NULL);
	if ((v = bt_node_get(n, "env")))
		bt_type_map.read(r, &env, v, &h->exec.env, &h->exec.n_env);
	limit.names = &bt_enum_repeat;
	if ((v = bt_node_get(n, "repeat")))
		bt_type_enum.read(r, &limit, v, &repeat, NULL);
	h->exec.safe = repeat == BT_REPEAT_SAFE;
	return h->exec.n_run > 0;
}

static bool read_approve(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_hook *h)
{
	static const char *const words[] = {"within"};
	const struct bt_key limit = part(k, SECOND, 30 * DAY);
	if (!bt_reading_only(r, k, n, words, 1, approve_form))
		return false;
	const struct bt_node *v = bt_node_get(n, "within");
	if (!v) {
		bt_problem(r->sink, n,
			"%s: within is missing: expected how long the run waits for the approval, "
			"such as {Approve: {within: 30m}}",
			k->path);
		return false;
	}
	bt_type_duration.read(r, &limit, v, &h->within_ms, NULL);
	return true;
}

static bool read_hook(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_hook *h)
{
	static const char *const kinds[] = {"Exec", "Approve", "run"};
	*h = (struct bt_hook){.kind = BT_TASK_EXEC, .on = BT_ON_ONCE};
	if (n->kind == BT_NODE_MAP && bt_node_get(n, "run"))
		return read_exec(r, k, n, h);
	const struct bt_task_info *info =
		n->kind == BT_NODE_MAP && n->n == 1 ? bt_task_find(n->keys[0]->text) : NULL;
	if (info && info->kind == BT_TASK_EXEC)
		return read_exec(r, k, n->items[0], h);
	if (info && info->kind == BT_TASK_APPROVE) {
		h->kind = BT_TASK_APPROVE;
		return read_approve(r, k, n->items[0], h);
	}
	const char *near = n->kind == BT_NODE_MAP && n->n
				   ? bt_nearest(n->keys[0]->text, kinds, BT_ARRAY_LEN(kinds))
				   : NULL;
	bt_problem(r->sink, n,
		"%s: expected a task, {run: [./migrate.sh, --up]} or {Approve: {within: 30m}}, "
		"found %s%s%s%s",
		k->path, bt_node_shown(r->arena, n->kind == BT_NODE_MAP && n->n ? n->keys[0] : n),
		near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
	return false;
}

static void read_hooks(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_LIST || n->n > MAX_HOOKS) {
		bt_problem(r->sink, n,
			"%s: expected a list of at most %d tasks such as [{run: [./migrate.sh, "
			"--up]}], found %s",
			k->path, MAX_HOOKS, bt_node_shown(r->arena, n));
		return;
	}
	struct bt_hook *list = BT_ARENA_ARRAY(r->arena, struct bt_hook, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++)
		used += read_hook(r, k, n->items[i], &list[used]);
	*(const struct bt_hook **)field = list;
	*(size_t *)count = used;
}

static json_t *write_exec(const struct bt_hook *h)
{
	char text[32];
	json_t *o = json_object(), *run = json_array(), *env = json_object();
	for (size_t i = 0; i < h->exec.n_run; i++)
		json_array_append_new(run, json_string(h->exec.run[i]));
	for (size_t i = 0; i < h->exec.n_env; i++)
		json_object_set_new(env, h->exec.env[i].key, json_string(h->exec.env[i].value));
	json_object_set_new(o, "run", run);
	json_object_set_new(o, "on",
		json_string(h->on == BT_ON_HOST ? h->host : bt_enum_name(&bt_enum_hook_on, h->on)));
	json_object_set_new(o, "timeout", json_string(bt_duration_format(h->timeout_ms, text)));
	if (h->exec.n_env)
		json_object_set(o, "env", env);
	json_decref(env);
	if (h->exec.safe)
		json_object_set_new(o, "repeat", json_string("safe"));
	return o;
}

static json_t *write_hooks(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_hook *list = *(const struct bt_hook *const *)field;
	size_t n = *(const size_t *)count;
	json_t *a = n ? json_array() : NULL;
	for (size_t i = 0; i < n; i++) {
		char text[32];
		json_t *o = json_object();
		json_object_set_new(o, bt_task_info(list[i].kind)->name,
			list[i].kind == BT_TASK_EXEC
				? write_exec(&list[i])
				: json_pack("{s:s}", "within",
					  bt_duration_format(list[i].within_ms, text)));
		json_array_append_new(a, o);
	}
	return a;
}
const struct bt_key_type bt_type_hooks = {"list of tasks", read_hooks, write_hooks};

/* ── what only holds together ── */

static bool is_placed(const char *t)
{
	return strstr(t, "{port}") || strstr(t, "{port.") || strstr(t, "{slot}");
}

static bool names_place(const struct bt_hook *h)
{
	bool placed = false;
	for (size_t i = 0; i < h->exec.n_run; i++)
		placed = placed || is_placed(h->exec.run[i]);
	for (size_t i = 0; i < h->exec.n_env; i++)
		placed = placed || is_placed(h->exec.env[i].value);
	return placed;
}

static void check_hook(struct bt_reading *r, const char *path, const struct bt_node *at,
	enum bt_hook_when when, const struct bt_hook *h)
{
	const struct bt_service *s = r->service;
	bool known = h->on != BT_ON_HOST;
	for (size_t i = 0; i < s->n_hosts && !known; i++)
		known = bt_streq(s->hosts[i], h->host);
	if (!known)
		bt_problem(r->sink, at,
			"%s: on: expected once, each host, each instance or one of the service's "
			"hosts, found '%s'",
			path, h->host);
	if (when == BT_HOOK_ON_FAILURE && h->kind == BT_TASK_APPROVE)
		bt_problem(r->sink, at, "%s: Approve: nobody is asked once a run has failed", path);
	if (when == BT_HOOK_BEFORE_SWITCH || when == BT_HOOK_AFTER_SWITCH)
		return;
	if (h->on == BT_ON_EACH_INSTANCE)
		bt_problem(r->sink, at,
			"%s: on: each instance: there are new instances in before_switch and "
			"after_switch only",
			path);
	else if (names_place(h))
		bt_problem(r->sink, at,
			"%s: {port} and {slot}: there are new instances in before_switch and "
			"after_switch only",
			path);
}

void bt_config_check_hooks(struct bt_reading *r)
{
	for (int w = 0; w < BT_HOOK_WHENS; w++) {
		char path[64];
		snprintf(path, sizeof path, "deploy.hooks.%s", bt_enum_name(&bt_enum_hook_when, w));
		const struct bt_node *at = bt_reading_at(r, path);
		const struct bt_hooks *hooks = &r->service->deploy.hooks[w];
		/* Entries that were told of already are missing from the list. */
		for (size_t i = 0; at && at->n == hooks->n && i < hooks->n; i++)
			check_hook(r, path, at->items[i], (enum bt_hook_when)w, &hooks->list[i]);
	}
}
