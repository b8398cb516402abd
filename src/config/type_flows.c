/* flows: named lists of stages. A stage is `{per: host, tasks: […]}` with its batches and policy,
 * or
 * `{once: […]}`; a task alone in the list is a stage of its own, per host. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

#define MAX_STAGES 100
#define MAX_TASKS 100

static const char stage_form[] = "name, per, batch, min_in_rotation, on_failure and tasks, such as "
				 "{per: host, batch: 1, tasks: [L4TurnOff, TomcatStop]}";

static void read_tasks(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	struct bt_flow_stage *stage)
{
	if (n->kind != BT_NODE_LIST || n->n == 0 || n->n > MAX_TASKS) {
		bt_problem(r->sink, n,
			"%s: expected a list of at most %d tasks such as [L4TurnOff, TomcatStop], "
			"found %s",
			k->path, MAX_TASKS, bt_node_shown(r->arena, n));
		return;
	}
	struct bt_hook *list = BT_ARENA_ARRAY(r->arena, struct bt_hook, n->n);
	for (size_t i = 0; i < n->n; i++)
		stage->n_tasks += bt_reading_task(r, k, n->items[i], &list[stage->n_tasks]);
	stage->tasks = list;
}

static void read_stage(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	struct bt_flow_stage *stage)
{
	static const char *const words[] = {
		"name", "per", "batch", "min_in_rotation", "on_failure", "tasks"};
	struct bt_key part = {.path = k->path, .max = 8192, .names = &bt_enum_flow_per};
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
		bt_type_enum.read(r, &part, v, &per, NULL);
	stage->per = (enum bt_flow_per)per;
	if ((v = bt_node_get(n, "batch")))
		bt_type_batch.read(r, &part, v, &stage->batch, &stage->batch_percent);
	if ((v = bt_node_get(n, "min_in_rotation")))
		bt_reading_whole(r, &part, v, &stage->min_in_rotation);
	part.names = &bt_enum_failure_policy;
	if ((v = bt_node_get(n, "on_failure")))
		bt_type_failure.read(r, &part, v, &stage->on_failure, &stage->continue_n);
	part.max = 64;
	if ((v = bt_node_get(n, "name")))
		bt_type_text.read(r, &part, v, &stage->name, NULL);
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

static void read_flow(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_flow *flow)
{
	if (n->kind != BT_NODE_LIST || n->n == 0 || n->n > MAX_STAGES) {
		bt_problem(r->sink, n,
			"%s: expected a list of at most %d stages or tasks, found %s", k->path,
			MAX_STAGES, bt_node_shown(r->arena, n));
		return;
	}
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

static void check_task(struct bt_reading *r, const struct bt_node *at, const char *flow,
	const struct bt_flow_stage *s, const struct bt_hook *t)
{
	static const enum bt_task_scope scopes[] = {
		[BT_PER_HOST] = BT_SCOPE_HOST,
		[BT_PER_INSTANCE] = BT_SCOPE_INSTANCE,
		[BT_PER_ONCE] = BT_SCOPE_ONCE,
	};
	const struct bt_task_info *info = bt_task_info(t->kind);
	if (!(info->scope & scopes[s->per]))
		bt_problem(r->sink, at, "flows.%s: %s stands %s, found in a stage %s%s", flow,
			info->name,
			info->scope == BT_SCOPE_ONCE   ? "in stages `once`"
			: info->scope == BT_SCOPE_HOST ? "in stages per host"
						       : "in stages per host or per instance",
			s->per == BT_PER_ONCE ? "" : "per ",
			bt_enum_name(&bt_enum_flow_per, (int)s->per));
	if (t->kind == BT_TASK_EXEC && s->per != BT_PER_ONCE && t->on != BT_ON_ONCE)
		bt_problem(r->sink, at,
			"flows.%s: on: only in stages `once`: a lane's Exec runs on its host",
			flow);
	if (t->kind == BT_TASK_EXEC && s->per == BT_PER_ONCE &&
		(t->on == BT_ON_EACH_HOST || t->on == BT_ON_EACH_INSTANCE))
		bt_problem(r->sink, at,
			"flows.%s: on: expected balancer or a host's name: `per: host` is for each "
			"host",
			flow);
	for (size_t i = 0;
		t->kind == BT_TASK_EXEC && s->per != BT_PER_INSTANCE && i < t->exec.n_run; i++)
		if (names_place(t->exec.run[i])) {
			bt_problem(r->sink, at,
				"flows.%s: {port} and {slot} are an instance's: use per: instance",
				flow);
			break;
		}
	bool known = t->kind != BT_TASK_NOTIFY || !t->to;
	for (size_t i = 0; i < r->service->n_notify && !known; i++)
		known = bt_streq(r->service->notify[i].name, t->to);
	if (!known)
		bt_problem(r->sink, at, "flows.%s: Notify: nobody is called '%s' in `notify`", flow,
			t->to);
}

void bt_config_check_flows(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_node *at = bt_reading_at(r, "flows");
	for (size_t i = 0; at && i < s->n_flows; i++)
		for (size_t k = 0; k < s->flows[i].n_stages; k++) {
			const struct bt_flow_stage *stage = &s->flows[i].stages[k];
			for (size_t t = 0; t < stage->n_tasks; t++)
				check_task(
					r, at->items[i], s->flows[i].name, stage, &stage->tasks[t]);
		}
}
