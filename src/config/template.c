/* ${NAME} of the caller's environment, in baton.yaml and in templates; and templates, which travel
 * with their {placeholders}, since only the agent knows slot and port. */
#include "config/config.h"

#include "base/str.h"
#include "config/keys.h"

#include <string.h>

static bool declared(const struct bt_variables *v, const char *name)
{
	for (size_t i = 0; i < v->n; i++)
		if (bt_streq(v->declared[i], name))
			return true;
	return false;
}

const char *bt_variables_get(struct bt_problem_sink *sink, const struct bt_node *at,
	const struct bt_variables *v, const char *name)
{
	if (!bt_check_env_name(name) || !*name) {
		bt_problem(sink, at, "'${%.60s}' is no variable ($${ writes the text)", name);
		return NULL;
	}
	if (!declared(v, name)) {
		const char *near = bt_nearest(name, v->declared, v->n);
		bt_problem(sink, at,
			"${%.60s} is not declared: put 'env: [%.60s]' at the top of the file, or "
			"write $${%.60s} for the text%s%s%s",
			name, name, name, near ? " (did you mean '" : "", near ? near : "",
			near ? "'?)" : "");
		return NULL;
	}
	const char *value = v->env ? v->env(v->arg, name) : NULL;
	if (!value)
		bt_problem(sink, at, "${%s} is not set in the environment", name);
	return value;
}

/* ── a template ── */

struct rendering {
	const struct bt_template *t;
	struct bt_problem_sink sink;
	struct bt_variables variables;
	struct bt_node at;
	struct bt_str *out;
};

static void step(struct rendering *r, const char **p, size_t n)
{
	for (; n; n--, ++*p) {
		if (**p == '\n') {
			r->at.line++;
			r->at.column = 1;
		} else if (((unsigned char)**p & 0xc0) != 0x80)
			r->at.column++;
	}
}

/* A brace of the text is doubled where it would be taken for another's. */
static void add_text(struct rendering *r, const char *text)
{
	for (; *text; text++)
		bt_str_add(r->out, *text == '{' ? "{{" : (char[]){*text, 0});
}

/* $${ or ${NAME}; how much of the text it is. */
static size_t variable(struct rendering *r, const char *p)
{
	if (p[1] == '$') {
		bt_str_add(r->out, "${{");
		return 3;
	}
	const char *end = strpbrk(p, "}\n");
	if (!end || *end != '}') {
		bt_problem(&r->sink, &r->at, "'${' without '}' ($${ writes the text)");
		return 2;
	}
	BT_FREE char *name = bt_strndup(p + 2, (size_t)(end - p - 2));
	const char *value = bt_variables_get(&r->sink, &r->at, &r->variables, name);
	add_text(r, value ? value : "");
	return (size_t)(end + 1 - p);
}

static void unknown(struct rendering *r, const char *p, size_t n)
{
	static const char *const words[] = {
		"{artifact}", "{release}", "{port}", "{slot}", "{host}"};
	BT_FREE char *word = bt_strndup(p, n < 60 ? n : 60);
	const char *near = bt_nearest(word, words, BT_ARRAY_LEN(words));
	bt_problem(&r->sink, &r->at,
		"unknown placeholder %s: expected one of " BT_PLACEHOLDERS
		" ({{ writes a brace)%s%s%s",
		word, near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static size_t placeholder(struct rendering *r, const char *p, size_t n)
{
	BT_FREE char *word = bt_strndup(p, n);
	const struct bt_run *run = &r->t->service->run;
	if (bt_str_starts(word, "{port.")) {
		BT_FREE char *name = bt_strndup(p + 6, n - 7);
		if (run->n_slots && !bt_slot_port(&run->slots[0], name))
			bt_problem(
				&r->sink, &r->at, "unknown port {port.%s}: no slot names it", name);
	} else if (!bt_check_command(word))
		unknown(r, p, n);
	bt_str_add(r->out, word);
	return n;
}

static void render(struct rendering *r)
{
	const char *p = r->t->text;
	while (*p) {
		size_t n = bt_placeholder_len(p);
		if (bt_str_starts(p, "${") || bt_str_starts(p, "$${"))
			n = variable(r, p);
		else if (n)
			n = placeholder(r, p, n);
		else {
			n = p[0] == '{' && p[1] == '{' ? 2 : 1;
			bt_str_addn(r->out, p, n);
		}
		step(r, &p, n);
	}
}

int bt_config_template(const struct bt_template *t, struct bt_config_problems *problems,
	struct bt_str *out, struct bt_err *err)
{
	size_t before = problems->n;
	struct rendering r = {.t = t,
		.sink = {problems, t->path},
		.variables = {(const char **)t->service->declared, t->service->n_declared, t->env,
			t->env_arg},
		.at = {.line = 1, .column = 1},
		.out = out};
	if (strlen(t->text) != t->n)
		bt_problem_at(&r.sink, 1, 1, "a NUL byte: a template is a text");
	else
		render(&r);
	if (problems->n == before && t->service->run.n_slots > 1 &&
		bt_config_differs_by_slot(bt_str_get(out)) &&
		!bt_config_differs_by_slot(t->file->to)) {
		struct bt_problem_sink sink = {problems, t->service->file};
		bt_problem_at(&sink, t->file->line, t->file->column,
			"files: %s differs from slot to slot, and %s would be one file for all of "
			"them: put {slot} in `to`, such as {slot}/%s",
			t->file->from, t->file->to, t->file->to);
	}
	return problems->n == before
		       ? 0
		       : bt_err_set(err, BT_E_CONFIG, "%s", problems->items[before].line);
}
