/* A task as a person writes it, in a flow or in a hook: its name alone, `L4TurnOff`, or the name
 * and its parameters, `{Exec: {run: …}}`; `{run: …}` alone is an Exec. What each kind of task is
 * given is one table (model/task.c), from which reading, writing and docs/flows.md come. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

/* "{Approve: {within: 30m}}": with what it cannot do without, or else its first parameter. */
static void example_of(const struct bt_task_info *t, struct bt_str *out)
{
	bool any = false;
	bt_str_addf(out, "{%s: {", t->name);
	for (size_t i = 0; i < t->n_params; i++)
		if (t->params[i].required) {
			bt_str_addf(out, "%s%s: %s", any ? ", " : "", t->params[i].name,
				t->params[i].example);
			any = true;
		}
	if (!any && t->n_params)
		bt_str_addf(out, "%s: %s", t->params[0].name, t->params[0].example);
	bt_str_add(out, "}}");
}

/* "its parameters run, on, timeout, env and repeat, such as {Exec: {run: [./migrate.sh, --up]}}" */
static void names_of(const struct bt_task_info *t, struct bt_str *out)
{
	if (!t->n_params) {
		bt_str_addf(out, "no parameter: %s alone", t->name);
		return;
	}
	bt_str_add(out, t->n_params > 1 ? "its parameters " : "its parameter ");
	for (size_t i = 0; i < t->n_params; i++)
		bt_str_addf(out, "%s%s",
			i == 0		       ? ""
			: i + 1 == t->n_params ? " and "
					       : ", ",
			t->params[i].name);
	bt_str_add(out, ", such as ");
	example_of(t, out);
}

static void read_where(
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
			"%s: expected once, each host, each instance, balancer or the name of a "
			"host, found %s",
			k->path, bt_node_shown(r->arena, n));
}

static const struct bt_enum ways = {
	(const struct bt_enum_name[]){{"in", false}, {"out", true}, {NULL, 0}}};

static void read_word(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	const struct bt_enum *names, int *v)
{
	struct bt_key word = *k;
	word.names = names;
	bt_type_enum.read(r, &word, n, v, NULL);
}

/* The key has the task's path, so that a problem says whose parameter it is. */
static void read_param(struct bt_reading *r, const struct bt_key *task,
	const struct bt_task_param *p, const struct bt_node *n, struct bt_hook *h)
{
	struct bt_key k = {.path = bt_arena_printf(r->arena, "%s.%s", task->path, p->name),
		.min = p->min,
		.max = p->max};
	void *field = (char *)h + p->offset, *count = (char *)h + p->count;
	int v;
	switch (p->type) {
	case BT_PARAM_ARGV:
		k.max = 2048;
		k.check = bt_check_command;
		k.expected = "only the placeholders " BT_PLACEHOLDERS " ({{ writes a brace)";
		bt_type_argv.read(r, &k, n, field, count);
		break;
	case BT_PARAM_DURATION:
		bt_type_duration.read(r, &k, n, field, NULL);
		break;
	case BT_PARAM_TEXT:
		k.max = 1024;
		k.check = bt_check_command;
		k.expected = n->kind == BT_NODE_SCALAR ? "only the placeholders " BT_PLACEHOLDERS
							 " ({{ writes a brace)"
						       : "a text";
		bt_type_text.read(r, &k, n, field, NULL);
		break;
	case BT_PARAM_NAME:
		k.max = BT_NAME_MAX;
		k.check = bt_name_valid;
		k.expected = "a name of letters, digits, '.', '_' and '-'";
		bt_type_text.read(r, &k, n, field, NULL);
		break;
	case BT_PARAM_MAP:
		k.check = bt_check_env_name;
		k.expected = "a name such as DB_URL";
		k.placeholders = true;
		bt_type_map.read(r, &k, n, field, count);
		break;
	case BT_PARAM_WHERE:
		read_where(r, &k, n, h);
		break;
	case BT_PARAM_REPEAT:
		v = BT_REPEAT_NEVER;
		read_word(r, &k, n, &bt_enum_repeat, &v);
		*(bool *)field = v == BT_REPEAT_SAFE;
		break;
	case BT_PARAM_WAY:
		v = false;
		read_word(r, &k, n, &ways, &v);
		*(bool *)field = v;
		break;
	}
}

static bool read_params(struct bt_reading *r, const struct bt_key *list,
	const struct bt_task_info *t, const struct bt_node *n, struct bt_hook *h)
{
	const char *words[16];
	struct bt_key k = {.path = bt_arena_printf(r->arena, "%s: %s", list->path, t->name)};
	BT_STR struct bt_str expected = {0}, example = {0};
	bool good = true;
	example_of(t, &example);
	for (size_t i = 0; i < t->n_params && i < BT_ARRAY_LEN(words); i++)
		words[i] = t->params[i].name;
	names_of(t, &expected);
	if (!bt_reading_only(r, &k, n, words, t->n_params, bt_str_get(&expected)))
		return false;
	for (size_t i = 0; i < t->n_params; i++) {
		const struct bt_task_param *p = &t->params[i];
		const struct bt_node *v = bt_node_get(n, p->name);
		size_t before = r->sink->list->n;
		if (v)
			read_param(r, &k, p, v, h);
		else if (p->required)
			bt_problem(r->sink, n, "%s.%s is missing: expected such as %s", k.path,
				p->name, bt_str_get(&example));
		good = good && r->sink->list->n == before;
	}
	return good;
}

/* What is no task, as it was found: a map of several is most often one whose parameters stand
 * beside its name instead of below it. */
static const char *found(struct bt_reading *r, const struct bt_node *name)
{
	BT_STR struct bt_str keys = {0};
	if (name->kind != BT_NODE_MAP || name->n < 2)
		return bt_node_shown(r->arena, name);
	for (size_t i = 0; i < name->n && i < 4; i++)
		bt_str_addf(
			&keys, "%s%s", i ? " and " : "", bt_node_shown(r->arena, name->keys[i]));
	return bt_arena_printf(r->arena,
		"a map of %s: it takes one task's name, and the task's parameters below that",
		bt_str_get(&keys));
}

static bool unknown(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *name, const char *near)
{
	bt_problem(r->sink, name,
		"%s: expected a task such as L4TurnOff, {run: [./migrate.sh, --up]} or {Approve: "
		"{within: 30m}}, found %s%s%s%s (baton flows --tasks lists them)",
		k->path, found(r, name), near ? " (did you mean '" : "", near ? near : "",
		near ? "'?)" : "");
	return false;
}

bool bt_reading_task(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_hook *ret)
{
	static const struct bt_node none = {.kind = BT_NODE_MAP};
	const struct bt_node *name = n, *params = &none;
	const struct bt_task_info *t;
	const char *near = NULL;
	if (n->kind == BT_NODE_MAP && bt_node_get(n, "run")) {
		t = bt_task_info(BT_TASK_EXEC);
		params = n;
	} else {
		if (n->kind == BT_NODE_MAP && n->n == 1) {
			name = n->keys[0];
			params = bt_node_is_null(n->items[0]) ? &none : n->items[0];
		}
		t = name->kind == BT_NODE_SCALAR && name->text
			    ? bt_task_find_in_flow(name->text, &near)
			    : NULL;
		if (!t)
			return unknown(r, k, name, near);
	}
	*ret = (struct bt_hook){.kind = t->kind, .on = BT_ON_ONCE, .within_ms = -1};
	ret->timeout_ms = t->kind == BT_TASK_EXEC ? t->timeout_ms : 0;
	if (params == &none) { /* its place, for problems */
		struct bt_node *here = bt_arena_memdup(r->arena, &none, sizeof none);
		here->line = name->line;
		here->column = name->column;
		params = here;
	}
	return read_params(r, k, t, params, ret);
}

/* ── writing ── */

static json_t *write_param(const struct bt_task_param *p, const struct bt_hook *h)
{
	const void *field = (const char *)h + p->offset, *count = (const char *)h + p->count;
	char text[32];
	int64_t ms;
	switch (p->type) {
	case BT_PARAM_ARGV:
		return bt_type_argv.write(NULL, field, count);
	case BT_PARAM_DURATION:
		ms = *(const int64_t *)field;
		return ms < 0 || (ms == 0 && !p->required)
			       ? NULL
			       : json_string(bt_duration_format(ms, text));
	case BT_PARAM_TEXT:
	case BT_PARAM_NAME:
		return *(const char *const *)field ? json_string(*(const char *const *)field)
						   : NULL;
	case BT_PARAM_MAP:
		return *(const size_t *)count ? bt_type_map.write(NULL, field, count) : NULL;
	case BT_PARAM_WHERE:
		return json_string(
			h->on == BT_ON_HOST ? h->host : bt_enum_name(&bt_enum_hook_on, (int)h->on));
	case BT_PARAM_REPEAT:
		return *(const bool *)field ? json_string("safe") : NULL;
	case BT_PARAM_WAY:
		return json_string(bt_enum_name(&ways, *(const bool *)field));
	}
	return NULL;
}

json_t *bt_task_written(const struct bt_hook *h)
{
	const struct bt_task_info *t = bt_task_info(h->kind);
	json_t *params = json_object();
	for (size_t i = 0; i < t->n_params; i++) {
		json_t *v = write_param(&t->params[i], h);
		if (v)
			json_object_set_new(params, t->params[i].name, v);
	}
	if (json_object_size(params) == 0) {
		json_decref(params);
		return json_string(t->name);
	}
	return json_pack("{s:o}", t->name, params);
}
