/* The types of config values: how each is read from a node, and written as JSON.
 * A reader tells every problem it sees and leaves the default in the field then. */
#include "config/keys.h"

#include "base/str.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { NAMES_MAX = 32 };

void bt_reading_wrong(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, const char *expected)
{
	bt_problem(r->sink, n, "%s: expected %s, found %s", k->path, expected,
		bt_node_shown(r->arena, n));
}
#define wrong bt_reading_wrong

/* The text of a scalar, or NULL after a problem. */
static const char *scalar(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, const char *expected)
{
	if (n->kind == BT_NODE_SCALAR && !bt_node_is_null(n))
		return n->text;
	wrong(r, k, n, expected);
	return NULL;
}

static bool fits(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n)
{
	const char *t = n->text;
	if (strlen(t) > (k->max ? (size_t)k->max : 32768)) {
		bt_problem(r->sink, n, "%s: longer than %lld bytes", k->path,
			k->max ? (long long)k->max : 32768LL);
		return false;
	}
	if (!bt_check_text(t)) {
		bt_problem(r->sink, n, "%s: a control character in the text", k->path);
		return false;
	}
	if (k->check && !k->check(t)) {
		wrong(r, k, n, k->expected);
		return false;
	}
	return true;
}

/* ── one text ── */

static void read_text(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	if (scalar(r, k, n, k->expected ? k->expected : "a text") && fits(r, k, n))
		*(const char **)field = bt_arena_strdup(r->arena, n->text);
}

static json_t *write_text(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	const char *t = *(const char *const *)field;
	return t ? json_string(t) : NULL;
}
const struct bt_key_type bt_type_text = {"text", read_text, write_text};

/* ── numbers ── */

static bool in_range(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	int64_t v, const char *low, const char *high)
{
	if (v >= k->min && (!k->max || v <= k->max))
		return true;
	if (k->max)
		bt_problem(r->sink, n, "%s: expected %s to %s, found %s", k->path, low, high,
			bt_node_shown(r->arena, n));
	else
		bt_problem(r->sink, n, "%s: expected at least %s, found %s", k->path, low,
			bt_node_shown(r->arena, n));
	return false;
}

static void read_duration(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	struct bt_err err;
	int64_t v;
	char low[32], high[32];
	const char *expected = "a duration with a unit such as 500ms, 30s, 5m, 2h";
	const char *t = scalar(r, k, n, expected);
	if (!t)
		return;
	if (bt_duration_parse(t, &v, &err) < 0)
		wrong(r, k, n, expected);
	else if (in_range(r, k, n, v, bt_duration_format(k->min, low),
			 bt_duration_format(k->max, high)))
		*(int64_t *)field = v;
}

static json_t *write_duration(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	char text[32];
	return json_string(bt_duration_format(*(const int64_t *)field, text));
}
const struct bt_key_type bt_type_duration = {"duration", read_duration, write_duration};

static void read_size(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	struct bt_err err;
	int64_t v;
	char low[32], high[32];
	const char *t = scalar(r, k, n, "a size such as 64k, 8m, 2g");
	if (!t)
		return;
	bool unit = strspn(t, "0123456789") < strlen(t) || bt_streq(t, "0");
	if (!unit || bt_size_parse(t, &v, &err) < 0)
		wrong(r, k, n, "a size with a unit such as 512b, 64k, 8m, 2g");
	else if (in_range(r, k, n, v, bt_size_format(k->min, low), bt_size_format(k->max, high)))
		*(int64_t *)field = v;
}

static json_t *write_size(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	char text[32];
	int64_t v = *(const int64_t *)field;
	if (v < 0)
		return NULL;
	const char *t = bt_size_format(v, text);
	bool bare = v > 0 && strspn(t, "0123456789") == strlen(t);
	return json_sprintf("%s%s", t, bare ? "b" : "");
}
const struct bt_key_type bt_type_size = {"size", read_size, write_size};

bool bt_reading_whole(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, int64_t *ret)
{
	struct bt_err err;
	int64_t max = k->max ? k->max : INT32_MAX;
	const char *t = scalar(r, k, n, "a whole number");
	if (!t)
		return false;
	if (bt_int_parse(t, k->min, max, ret, &err) == 0)
		return true;
	bt_problem(r->sink, n, "%s: expected a whole number from %lld to %lld, found %s", k->path,
		(long long)k->min, (long long)max, bt_node_shown(r->arena, n));
	return false;
}

static void read_count(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	int64_t v;
	if (bt_reading_whole(r, k, n, &v))
		*(int64_t *)field = v;
}

static json_t *write_count(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	int64_t v = *(const int64_t *)field;
	return v < 0 ? NULL : json_integer(v); /* -1 stands for "not given" */
}
const struct bt_key_type bt_type_count = {"number", read_count, write_count};

static void read_number(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	int64_t v;
	if (bt_reading_whole(r, k, n, &v))
		*(int *)field = (int)v;
}

static json_t *write_number(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	return json_integer(*(const int *)field);
}
const struct bt_key_type bt_type_number = {"number", read_number, write_number};

static void read_port(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	struct bt_key bounds = *k;
	int64_t v;
	(void)count;
	bounds.min = 1;
	bounds.max = UINT16_MAX;
	if (bt_reading_whole(r, &bounds, n, &v))
		*(uint16_t *)field = (uint16_t)v;
}

static json_t *write_port(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	uint16_t v = *(const uint16_t *)field;
	return v ? json_integer(v) : NULL;
}
const struct bt_key_type bt_type_port = {"port", read_port, write_port};

static void read_bool(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	bool yes = n->kind == BT_NODE_SCALAR && n->plain && bt_streq(n->text, "true");
	if (yes || (n->kind == BT_NODE_SCALAR && n->plain && bt_streq(n->text, "false")))
		*(bool *)field = yes;
	else
		wrong(r, k, n, "true or false");
}

static json_t *write_bool(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	return json_boolean(*(const bool *)field);
}
const struct bt_key_type bt_type_bool = {"true or false", read_bool, write_bool};

static void read_enum(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	struct bt_err err;
	int v;
	const char *t = scalar(r, k, n, "a word");
	if (!t)
		return;
	if (bt_enum_parse(k->names, t, &v, &err) < 0)
		bt_problem(r->sink, n, "%s: %s", k->path, err.text);
	else
		*(int *)field = v;
}

static json_t *write_enum(const struct bt_key *k, const void *field, const void *count)
{
	(void)count;
	return json_string(bt_enum_name(k->names, *(const int *)field));
}
const struct bt_key_type bt_type_enum = {"word", read_enum, write_enum};

/* "5%" or "0.05". Digits and one point only, so that no locale or exponent gets in. */
static void read_share(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	const char *t = scalar(r, k, n, "a share such as 5% or 0.05");
	if (!t)
		return;
	size_t whole = strspn(t, "0123456789"), at = whole, part = 0;
	double v = 0, scale = 1;
	for (size_t i = 0; i < whole; i++)
		v = v * 10 + (t[i] - '0');
	if (t[at] == '.') {
		part = strspn(t + ++at, "0123456789");
		for (size_t i = 0; i < part && i < 15; i++) {
			v = v * 10 + (t[at + i] - '0');
			scale *= 10;
		}
		at += part;
	}
	v /= scale;
	bool percent = t[at] == '%';
	if (percent)
		v /= 100;
	if ((!whole && !part) || t[at + percent] || whole > 3 || v > 1)
		wrong(r, k, n, "a share from 0% to 100%, such as 5% or 0.05");
	else
		*(double *)field = v;
}

static json_t *write_share(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	char text[40];
	double v = *(const double *)field;
	for (int digits = 0; digits <= 15; digits++) {
		snprintf(text, sizeof text, "%.*f", digits, v);
		if (fabs(strtod(text, NULL) - v) < 1e-15)
			break;
	}
	return json_string(text);
}
const struct bt_key_type bt_type_share = {"share", read_share, write_share};

/* ── maps and lists of texts ── */

static void read_map(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_MAP) {
		wrong(r, k, n, "a map of names to texts");
		return;
	}
	struct bt_kv *list = BT_ARENA_ARRAY(r->arena, struct bt_kv, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++) {
		const struct bt_node *key = n->keys[i], *value = n->items[i];
		if (!*key->text || strlen(key->text) > 256 || (k->check && !k->check(key->text)) ||
			!bt_check_text(key->text))
			wrong(r, k, key, k->expected ? k->expected : "a name");
		else if (value->kind != BT_NODE_SCALAR || bt_node_is_null(value))
			wrong(r, k, value, "a text");
		else if (!bt_check_text(value->text) || strlen(value->text) > 32768)
			bt_problem(r->sink, value, "%s: a control character, or more than 32k",
				k->path);
		else if (k->placeholders && !bt_check_command(value->text))
			wrong(r, k, value,
				"only the placeholders " BT_PLACEHOLDERS " ({{ writes a brace)");
		else
			list[used++] = (struct bt_kv){bt_arena_strdup(r->arena, key->text),
				bt_arena_strdup(r->arena, value->text)};
	}
	*(const struct bt_kv **)field = list;
	*(size_t *)count = used;
}

static json_t *write_map(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_kv *list = *(const struct bt_kv *const *)field;
	size_t n = *(const size_t *)count;
	json_t *o = n ? json_object() : NULL;
	for (size_t i = 0; i < n; i++)
		json_object_set_new(o, list[i].key, json_string(list[i].value));
	return o;
}
const struct bt_key_type bt_type_map = {"map", read_map, write_map};

static void read_texts(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	bool unique, void *field, void *count)
{
	const char **list = BT_ARENA_ARRAY(r->arena, const char *, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++) {
		const struct bt_node *item = n->items[i];
		if (!scalar(r, k, item, k->expected ? k->expected : "a text") || !fits(r, k, item))
			continue;
		for (size_t j = 0; unique && j < used; j++)
			if (bt_streq(list[j], item->text))
				bt_problem(r->sink, item, "%s: %s is listed twice", k->path,
					bt_node_shown(r->arena, item));
		list[used++] = bt_arena_strdup(r->arena, item->text);
	}
	*(const char *const **)field = list;
	*(size_t *)count = used;
}

enum { MAX_LISTED = 4096 }; /* hosts */

static void read_list(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_LIST || (k->required && n->n == 0))
		wrong(r, k, n, "a list such as [a, b]");
	else if (n->n > MAX_LISTED)
		bt_problem(r->sink, n, "%s: at most %d, found %zu", k->path, MAX_LISTED, n->n);
	else
		read_texts(r, k, n, true, field, count);
}

static json_t *write_list(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const char *const *list = *(const char *const *const *)field;
	size_t n = *(const size_t *)count;
	json_t *a = n ? json_array() : NULL;
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_string(list[i]));
	return a;
}
const struct bt_key_type bt_type_list = {"list", read_list, write_list};

/* One name, or a list of some. */
static void read_names(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	const char *one = NULL;
	if (n->kind == BT_NODE_LIST && n->n > 0 && n->n <= NAMES_MAX) {
		read_texts(r, k, n, true, field, count);
		return;
	}
	if (n->kind == BT_NODE_SCALAR)
		read_text(r, k, n, &one, NULL);
	else
		wrong(r, k, n, "a name, or a list of up to 32 such as [a, b]");
	if (!one)
		return;
	const char **list = BT_ARENA_ARRAY(r->arena, const char *, 1);
	list[0] = one;
	*(const char *const **)field = list;
	*(size_t *)count = 1;
}

static json_t *write_names(const struct bt_key *k, const void *field, const void *count)
{
	const char *const *list = *(const char *const *const *)field;
	return *(const size_t *)count == 1 ? json_string(list[0]) : write_list(k, field, count);
}
const struct bt_key_type bt_type_names = {"name or list", read_names, write_names};

/* A command line split at blanks; quotes group, a backslash takes the next character as it is
 * (within double quotes only before " and \). No shell is ever asked. */
static struct bt_node *split(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n)
{
	struct bt_node *list = bt_node_scalar(r->arena, "");
	BT_STR struct bt_str word = {0};
	size_t max = strlen(n->text) / 2 + 2;
	char quote = 0;
	bool any = false;
	list->kind = BT_NODE_LIST;
	list->items = BT_ARENA_ARRAY(r->arena, struct bt_node *, max);
	for (const char *p = n->text;; p++) {
		bool blank = *p == ' ' || *p == '\t' || *p == '\n' || !*p;
		if (!quote && blank) {
			if (any) {
				struct bt_node *item = bt_node_scalar(r->arena, bt_str_get(&word));
				item->line = n->line;
				item->column = n->column;
				list->items[list->n++] = item;
			}
			bt_str_reset(&word);
			any = false;
		}
		if (!*p)
			break;
		if (quote ? *p == quote : *p == '\'' || *p == '"') {
			quote = quote ? 0 : *p;
			any = true;
		} else if (*p == '\\' && quote != '\'' && p[1] &&
			   (!quote || p[1] == '"' || p[1] == '\\')) {
			bt_str_addc(&word, *++p);
			any = true;
		} else if (quote || !blank) {
			bt_str_addc(&word, *p);
			any = true;
		}
	}
	if (quote)
		bt_problem(r->sink, n, "%s: a %c is never closed", k->path, quote);
	return list;
}

static void read_argv(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	static const char expected[] = "a command such as java -jar {artifact}, or a list";
	if (n->kind == BT_NODE_MAP || bt_node_is_null(n) ||
		(n->kind == BT_NODE_LIST && n->n > 1000)) {
		wrong(r, k, n, expected);
		return;
	}
	const struct bt_node *list = n->kind == BT_NODE_LIST ? n : split(r, k, n);
	if (list->n == 0 || (list->items[0]->kind == BT_NODE_SCALAR && !*list->items[0]->text)) {
		wrong(r, k, n, expected);
		return;
	}
	read_texts(r, k, list, false, field, count);
}
const struct bt_key_type bt_type_argv = {"command", read_argv, write_list};

/* ── maps of our own: stop steps ── */

bool bt_reading_only(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	const char *const *words, size_t n_words, const char *expected)
{
	if (n->kind != BT_NODE_MAP) {
		wrong(r, k, n, expected);
		return false;
	}
	for (size_t i = 0; i < n->n; i++) {
		bool known = false;
		for (size_t j = 0; j < n_words; j++)
			known = known || bt_streq(words[j], n->keys[i]->text);
		const char *near = known ? NULL : bt_nearest(n->keys[i]->text, words, n_words);
		if (!known)
			bt_problem(r->sink, n->keys[i], "unknown key %s in %s, expected %s%s%s%s",
				bt_node_shown(r->arena, n->keys[i]), k->path, expected,
				near ? " (did you mean '" : "", near ? near : "",
				near ? "'?)" : "");
	}
	return true;
}

static const struct bt_enum signals = {(const struct bt_enum_name[]){{"TERM", SIGTERM},
	{"INT", SIGINT}, {"QUIT", SIGQUIT}, {"HUP", SIGHUP}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2},
	{"WINCH", SIGWINCH}, {"KILL", SIGKILL}, {NULL, 0}}};

/* {signal, grace} or {signal, wait}: the same two values under the form's own name. */
static bool read_step(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	const char *wait, struct bt_stop_step *step)
{
	static const struct bt_key bounds = {
		.path = "run.stop", .min = 0, .max = 24 * 3600000, .names = &signals};
	const char *words[] = {"signal", wait};
	BT_STR struct bt_str expected = {0};
	bt_str_addf(&expected, "signal and %s such as {signal: TERM, %s: 30s}", wait, wait);
	if (!bt_reading_only(r, k, n, words, 2, bt_str_get(&expected)))
		return false;
	const struct bt_node *signal = bt_node_get(n, "signal"), *ms = bt_node_get(n, wait);
	if (signal && signal->kind == BT_NODE_SCALAR && bt_str_starts(signal->text, "SIG")) {
		struct bt_node *bare = bt_node_scalar(r->arena, signal->text + 3);
		bare->line = signal->line;
		bare->column = signal->column;
		signal = bare;
	}
	if (signal)
		bt_type_enum.read(r, &bounds, signal, &step->signal, NULL);
	if (ms)
		bt_type_duration.read(r, &bounds, ms, &step->wait_ms, NULL);
	return true;
}

/* {signal: TERM, grace: 30s} means: TERM, 30 s, then KILL. A list says every step itself. */
static void read_stop(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	size_t n_steps = n->kind == BT_NODE_LIST ? n->n : 2;
	if (n_steps == 0 || n_steps > 20 || n->kind == BT_NODE_SCALAR) {
		wrong(r, k, n, "{signal: TERM, grace: 30s} or a list of {signal, wait} steps");
		return;
	}
	struct bt_stop_step *list = BT_ARENA_ARRAY(r->arena, struct bt_stop_step, n_steps);
	for (size_t i = 0; i < n_steps; i++)
		list[i] = (struct bt_stop_step){i ? SIGKILL : SIGTERM, i ? 10000 : 30000};
	if (n->kind == BT_NODE_LIST) {
		for (size_t i = 0; i < n_steps; i++) {
			list[i] = (struct bt_stop_step){SIGTERM, 30000};
			if (!read_step(r, k, n->items[i], "wait", &list[i]))
				return;
		}
	} else {
		if (!read_step(r, k, n, "grace", &list[0]))
			return;
		n_steps = list[0].signal == SIGKILL ? 1 : 2;
	}
	*(const struct bt_stop_step **)field = list;
	*(size_t *)count = n_steps;
}

static json_t *write_stop(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_stop_step *list = *(const struct bt_stop_step *const *)field;
	json_t *a = json_array();
	for (size_t i = 0; i < *(const size_t *)count; i++) {
		char text[32];
		json_t *o = json_object();
		json_object_set_new(
			o, "signal", json_string(bt_enum_name(&signals, list[i].signal)));
		json_object_set_new(
			o, "wait", json_string(bt_duration_format(list[i].wait_ms, text)));
		json_array_append_new(a, o);
	}
	return a;
}
const struct bt_key_type bt_type_stop = {"stop sequence", read_stop, write_stop};

/* ── deploy's own ── */

/* rollback, halt, "continue 2" or {continue: 2}; the count is how many lanes may fail. */
static void read_failure(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	static const char *const words[] = {"continue"};
	static const char expected[] = "rollback, halt, or continue N (lanes that may fail)";
	const struct bt_key range = {.path = k->path, .min = 1, .max = 8192};
	const struct bt_node *number = NULL;
	if (n->kind == BT_NODE_MAP) {
		if (bt_reading_only(r, k, n, words, 1, expected) &&
			!(number = bt_node_get(n, "continue")))
			wrong(r, k, n, expected);
	} else if (scalar(r, k, n, expected)) {
		if (bt_str_starts(n->text, "continue ")) {
			struct bt_node *rest =
				bt_node_scalar(r->arena, n->text + 9 + strspn(n->text + 9, " "));
			rest->line = n->line;
			rest->column = n->column;
			number = rest;
		} else if (bt_streq(n->text, "continue"))
			wrong(r, k, n, expected);
		else
			bt_type_enum.read(r, k, n, field, NULL);
	}
	if (number && bt_reading_whole(r, &range, number, (int64_t *)count))
		*(int *)field = BT_ON_FAILURE_CONTINUE;
}

static json_t *write_failure(const struct bt_key *k, const void *field, const void *count)
{
	int policy = *(const int *)field;
	if (policy == BT_ON_FAILURE_CONTINUE)
		return json_sprintf("continue %lld", (long long)*(const int64_t *)count);
	return json_string(bt_enum_name(k->names, policy));
}
const struct bt_key_type bt_type_failure = {"policy", read_failure, write_failure};

static void read_batch(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	static const char expected[] = "instances at a time such as 2, or a share such as 50%";
	struct bt_err err;
	const char *t = scalar(r, k, n, expected);
	if (!t)
		return;
	size_t digits = strspn(t, "0123456789");
	bool percent = digits && t[digits] == '%' && !t[digits + 1];
	BT_FREE char *number = bt_strndup(t, digits);
	int64_t v;
	if ((!percent && t[digits]) || !digits ||
		bt_int_parse(number, 1, percent ? 100 : 8192, &v, &err) < 0) {
		wrong(r, k, n, expected);
		return;
	}
	*(int64_t *)field = v;
	*(bool *)count = percent;
}

static json_t *write_batch(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	int64_t v = *(const int64_t *)field;
	return *(const bool *)count ? json_sprintf("%lld%%", (long long)v) : json_integer(v);
}
const struct bt_key_type bt_type_batch = {"number or share", read_batch, write_batch};

/* ── the four kinds of health; the field is the whole struct bt_health ── */

static void health_kind(struct bt_reading *r, struct bt_health *h, enum bt_health_kind kind)
{
	static const char *const paths[] = {
		"health.http", "health.https", "health.tcp", "health.exec"};
	const struct bt_node *other = NULL;
	for (size_t i = 0; i < BT_ARRAY_LEN(paths); i++)
		if ((int)i != (int)kind && bt_reading_at(r, paths[i]))
			other = bt_reading_at(r, paths[i]);
	if (other)
		bt_problem(r->sink, r->at[bt_key_index(r->key)],
			"%s: only one of http, https, tcp and exec (another is on line %d)",
			r->key->path, other->line);
	h->kind = kind;
}

static void read_health_path(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	struct bt_health *h = field;
	read_text(r, k, n, &h->path, count);
	health_kind(r, h, BT_HEALTH_HTTP);
}

static void read_health_tls_path(struct bt_reading *r, const struct bt_key *k,
	const struct bt_node *n, void *field, void *count)
{
	struct bt_health *h = field;
	read_text(r, k, n, &h->path, count);
	health_kind(r, h, BT_HEALTH_HTTPS);
}

static json_t *write_health_path(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	const struct bt_health *h = field;
	return h->kind == BT_HEALTH_HTTP ? json_string(h->path) : NULL;
}

static json_t *write_health_tls_path(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	const struct bt_health *h = field;
	return h->kind == BT_HEALTH_HTTPS ? json_string(h->path) : NULL;
}

static void read_health_tcp(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	if (n->kind == BT_NODE_SCALAR && n->plain && bt_streq(n->text, "true"))
		health_kind(r, field, BT_HEALTH_TCP);
	else
		wrong(r, k, n, "true (health.port gives another port than the slot's)");
}

static json_t *write_health_tcp(const struct bt_key *k, const void *field, const void *count)
{
	(void)k, (void)count;
	return ((const struct bt_health *)field)->kind == BT_HEALTH_TCP ? json_true() : NULL;
}

static void read_health_exec(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	(void)count;
	struct bt_health *h = field;
	read_argv(r, k, n, &h->argv, &h->n_argv);
	health_kind(r, h, BT_HEALTH_EXEC);
}

static json_t *write_health_exec(const struct bt_key *k, const void *field, const void *count)
{
	(void)count;
	const struct bt_health *h = field;
	return h->kind == BT_HEALTH_EXEC ? write_list(k, &h->argv, &h->n_argv) : NULL;
}
const struct bt_key_type bt_type_health_path = {"path", read_health_path, write_health_path};
const struct bt_key_type bt_type_health_tls_path = {
	"path", read_health_tls_path, write_health_tls_path};
const struct bt_key_type bt_type_health_tcp = {"true", read_health_tcp, write_health_tcp};
const struct bt_key_type bt_type_health_exec = {"command", read_health_exec, write_health_exec};
