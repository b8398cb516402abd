/* flows: named lists of stages. A stage is `{per: host, tasks: […]}` with its batches and policy,
 * or `{once: […]}`; a list of tasks alone is one stage per host. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

#define MAX_STAGES 100
#define MAX_TASKS 100

static const char stage_form[] = "name, per, batch, min_in_rotation, on_failure and tasks, such as "
				 "{per: host, batch: 1, tasks: [L4TurnOff, TomcatStop]}";

/* A list with something in it, and not too much. */
static bool is_list(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	size_t max, const char *what)
{
	if (n->kind == BT_NODE_LIST && n->n && n->n <= max)
		return true;
	if (n->kind == BT_NODE_LIST && n->n)
		bt_problem(r->sink, n, "%s: expected at most %zu %s, found %zu", k->path, max, what,
			n->n);
	else
		bt_problem(r->sink, n,
			"%s: expected a list of %s such as [L4TurnOff, TomcatStop], found %s",
			k->path, what, bt_node_shown(r->arena, n));
	return false;
}

static void read_tasks(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	struct bt_flow_stage *stage)
{
	if (!is_list(r, k, n, MAX_TASKS, "tasks"))
		return;
	struct bt_hook *list = BT_ARENA_ARRAY(r->arena, struct bt_hook, n->n);
	for (size_t i = 0; i < n->n; i++)
		stage->n_tasks += bt_reading_task(r, k, n->items[i], &list[stage->n_tasks]);
	stage->tasks = list;
}

static const struct bt_key *part(
	struct bt_reading *r, const struct bt_key *k, const char *name, struct bt_key *ret)
{
	ret->path = bt_arena_printf(r->arena, "%s: %s", k->path, name);
	return ret;
}

static void read_stage(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	struct bt_flow_stage *stage)
{
	static const char *const words[] = {
		"name", "per", "batch", "min_in_rotation", "on_failure", "tasks"};
	struct bt_key at = {.max = 8192, .names = &bt_enum_flow_per};
	const struct bt_node *v;
	int per = BT_PER_HOST;
	*stage = (struct bt_flow_stage){.min_in_rotation = -1, .on_failure = -1};
	if (n->kind == BT_NODE_MAP && n->n == 1 && bt_streq(n->keys[0]->text, "once")) {
		stage->per = BT_PER_ONCE;
		read_tasks(r, k, n->items[0], stage);
		return;
	}
	if (!bt_reading_only(r, k, n, words, BT_ARRAY_LEN(words), stage_form))
		return;
	if ((v = bt_node_get(n, "per")))
		bt_type_enum.read(r, part(r, k, "per", &at), v, &per, NULL);
	stage->per = (enum bt_flow_per)per;
	if ((v = bt_node_get(n, "batch")))
		bt_type_batch.read(
			r, part(r, k, "batch", &at), v, &stage->batch, &stage->batch_percent);
	if ((v = bt_node_get(n, "min_in_rotation")))
		bt_reading_whole(r, part(r, k, "min_in_rotation", &at), v, &stage->min_in_rotation);
	at.names = &bt_enum_failure_policy;
	if ((v = bt_node_get(n, "on_failure")))
		bt_type_failure.read(r, part(r, k, "on_failure", &at), v, &stage->on_failure,
			&stage->continue_n);
	at.max = 64;
	if ((v = bt_node_get(n, "name")))
		bt_type_text.read(r, part(r, k, "name", &at), v, &stage->name, NULL);
	if ((v = bt_node_get(n, "tasks")))
		read_tasks(r, k, v, stage);
	else
		bt_problem(r->sink, n, "%s: tasks are missing: expected %s", k->path, stage_form);
}

static bool is_stage(const struct bt_node *n)
{
	return n->kind == BT_NODE_MAP &&
	       (bt_node_get(n, "tasks") || bt_node_get(n, "once") || bt_node_get(n, "per"));
}

/* One or the other: what stands alone among stages would be a stage of which nobody knows where
 * it begins and ends. */
static bool are_alike(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n)
{
	for (size_t i = 1; i < n->n; i++)
		if (is_stage(n->items[i]) != is_stage(n->items[0])) {
			bt_problem(r->sink, n->items[i],
				"%s: expected tasks alone or stages alone, found both: put the "
				"tasks into a stage of their own, {per: host, tasks: [...]}",
				k->path);
			return false;
		}
	return true;
}

static void read_flow(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_flow *flow)
{
	if (!is_list(r, k, n, MAX_STAGES, "stages or tasks") || !are_alike(r, k, n))
		return;
	struct bt_flow_stage *list = BT_ARENA_ARRAY(r->arena, struct bt_flow_stage, n->n);
	flow->stages = list;
	if (!is_stage(n->items[0])) { /* tasks alone: one stage per host */
		list[0] = (struct bt_flow_stage){.min_in_rotation = -1, .on_failure = -1};
		read_tasks(r, k, n, &list[0]);
		flow->n_stages = 1;
		return;
	}
	for (size_t i = 0; i < n->n; i++)
		read_stage(r, k, n->items[i], &list[i]);
	flow->n_stages = n->n;
}

static void read_flows(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_MAP || n->n > BT_FLOWS_MAX) {
		bt_problem(r->sink, n,
			"%s: expected at most %d named flows such as {night: [L4TurnOff, "
			"TomcatStop]}, found %s",
			k->path, BT_FLOWS_MAX, bt_node_shown(r->arena, n));
		return;
	}
	struct bt_flow *list = BT_ARENA_ARRAY(r->arena, struct bt_flow, n->n);
	for (size_t i = 0; i < n->n; i++) {
		const char *name = n->keys[i]->text;
		struct bt_key at = *k;
		at.path = bt_arena_printf(r->arena, "flows.%s", name);
		if (!bt_name_valid(name)) {
			bt_problem(r->sink, n->keys[i],
				"flows: expected a name of letters, digits, '.', '_' and '-', "
				"found %s",
				bt_node_shown(r->arena, n->keys[i]));
			continue;
		}
		list[i].name = bt_arena_strdup(r->arena, name);
		read_flow(r, &at, n->items[i], &list[i]);
	}
	*(const struct bt_flow **)field = list;
	*(size_t *)count = n->n;
}

static json_t *write_stage(const struct bt_flow_stage *s)
{
	json_t *o = json_object(), *tasks = json_array();
	if (s->name)
		json_object_set_new(o, "name", json_string(s->name));
	json_object_set_new(o, "per", json_string(bt_enum_name(&bt_enum_flow_per, (int)s->per)));
	if (s->batch)
		json_object_set_new(
			o, "batch", bt_type_batch.write(NULL, &s->batch, &s->batch_percent));
	if (s->min_in_rotation >= 0)
		json_object_set_new(o, "min_in_rotation", json_integer(s->min_in_rotation));
	if (s->on_failure >= 0)
		json_object_set_new(o, "on_failure",
			bt_type_failure.write(&(struct bt_key){.names = &bt_enum_failure_policy},
				&s->on_failure, &s->continue_n));
	for (size_t i = 0; i < s->n_tasks; i++)
		json_array_append_new(tasks, bt_task_written(&s->tasks[i]));
	json_object_set_new(o, "tasks", tasks);
	return o;
}

json_t *bt_flow_written(const struct bt_flow *f)
{
	json_t *stages = json_array();
	for (size_t i = 0; i < f->n_stages; i++)
		json_array_append_new(stages, write_stage(&f->stages[i]));
	return stages;
}

static json_t *write_flows(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_flow *list = *(const struct bt_flow *const *)field;
	size_t n = *(const size_t *)count;
	json_t *o = n ? json_object() : NULL;
	for (size_t i = 0; i < n; i++)
		json_object_set_new(o, list[i].name, bt_flow_written(&list[i]));
	return o;
}
const struct bt_key_type bt_type_flows = {"flows by name", read_flows, write_flows};

/* ── what only holds together ── */

static bool names_place(const char *t)
{
	return strstr(t, "{port}") || strstr(t, "{port.") || strstr(t, "{slot}");
}

static bool has_place(const struct bt_hook *t)
{
	bool any = false;
	for (size_t i = 0; i < t->exec.n_run; i++)
		any = any || names_place(t->exec.run[i]);
	for (size_t i = 0; i < t->exec.n_env; i++)
		any = any || names_place(t->exec.env[i].value);
	return any;
}

static void check_scope(struct bt_reading *r, const struct bt_node *at, const char *flow,
	const struct bt_flow_stage *s, const struct bt_task_info *info)
{
	static const enum bt_task_scope scopes[] = {
		[BT_PER_HOST] = BT_SCOPE_HOST,
		[BT_PER_INSTANCE] = BT_SCOPE_INSTANCE,
		[BT_PER_ONCE] = BT_SCOPE_ONCE,
	};
	if (info->scope & scopes[s->per])
		return;
	bt_problem(r->sink, at, "flows.%s: %s stands %s, found in a stage %s%s: expected %s", flow,
		info->name,
		info->scope == BT_SCOPE_ONCE   ? "in stages `once`"
		: info->scope == BT_SCOPE_HOST ? "in stages per host"
					       : "in stages per host or per instance",
		s->per == BT_PER_ONCE ? "" : "per ", bt_enum_name(&bt_enum_flow_per, (int)s->per),
		info->scope == BT_SCOPE_ONCE ? "{once: [...]}" : "{per: host, tasks: [...]}");
}

static void check_where(struct bt_reading *r, const struct bt_node *at, const char *flow,
	const struct bt_flow_stage *s, const struct bt_hook *t)
{
	const struct bt_service *service = r->service;
	bool known = t->on != BT_ON_HOST || bt_service_balances_on(service, t->host);
	if (s->per != BT_PER_ONCE && t->on != BT_ON_ONCE) {
		bt_problem(r->sink, at,
			"flows.%s: Exec.on: only in stages `once`: a lane's Exec runs on its host",
			flow);
		return;
	}
	if (t->on == BT_ON_EACH_HOST || t->on == BT_ON_EACH_INSTANCE)
		bt_problem(r->sink, at,
			"flows.%s: Exec.on: expected balancer or a host's name: `per: host` is for "
			"each host",
			flow);
	for (size_t i = 0; i < service->n_hosts && !known; i++)
		known = bt_streq(service->hosts[i], t->host);
	if (!known)
		bt_problem(r->sink, at,
			"flows.%s: Exec.on: expected balancer or a host of the service or of its "
			"balancer, found '%s'",
			flow, t->host);
}

static void check_task(struct bt_reading *r, const struct bt_node *at, const char *flow,
	const struct bt_flow_stage *s, const struct bt_hook *t)
{
	check_scope(r, at, flow, s, bt_task_info(t->kind));
	if (t->kind == BT_TASK_EXEC) {
		check_where(r, at, flow, s, t);
		if (s->per != BT_PER_INSTANCE && has_place(t))
			bt_problem(r->sink, at,
				"flows.%s: Exec: {port} and {slot} are an instance's: use per: "
				"instance",
				flow);
	}
	bool known = t->kind != BT_TASK_NOTIFY || !t->to;
	for (size_t i = 0; i < r->service->n_notify && !known; i++)
		known = bt_streq(r->service->notify[i].name, t->to);
	if (!known)
		bt_problem(r->sink, at, "flows.%s: Notify.to: nobody is called '%s' in `notify`",
			flow, t->to);
}

/* Where the task stands in the text. Tasks that were told of already are missing from the stage:
 * then it is the stage's place. */
static const struct bt_node *task_at(
	const struct bt_node *flow, size_t stage, const struct bt_flow_stage *s, size_t task)
{
	const struct bt_node *list = flow, *once;
	if (is_stage(flow->items[0])) {
		list = flow = flow->items[stage];
		once = bt_node_get(flow, "once");
		list = once ? once : bt_node_get(flow, "tasks");
	}
	return list && list->kind == BT_NODE_LIST && list->n == s->n_tasks ? list->items[task]
									   : flow;
}

void bt_config_check_flows(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_node *at = bt_reading_at(r, "flows");
	for (size_t i = 0; at && i < s->n_flows; i++)
		for (size_t k = 0; k < s->flows[i].n_stages; k++) {
			const struct bt_flow_stage *stage = &s->flows[i].stages[k];
			for (size_t t = 0; t < stage->n_tasks; t++)
				check_task(r, task_at(at->items[i], k, stage, t), s->flows[i].name,
					stage, &stage->tasks[t]);
		}
}
