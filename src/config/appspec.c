/* The document is read as a tree whose nodes know their places (node.h), and each part by a
 * function of its own. Paths become normal here, so that whoever uses them can join them with
 * others. */
#include "config/appspec.h"

#include "base/str.h"
#include "config/node.h"

#include <string.h>

enum {
	MAX_FILES = 1000,
	MAX_PERMISSIONS = 1000,
	MAX_SCRIPTS = 100,
	MAX_EXCEPT = 100,
	MAX_PATH = 3000,
	MAX_NAME = 64,
	MAX_TIMEOUT_S = 3600,
};

struct reader {
	struct bt_appspec *a;
	struct bt_problem_sink sink;
};

static void wrong(struct reader *r, const struct bt_node *n, const char *what, const char *expected)
{
	bt_problem(&r->sink, n, "%s: expected %s, found %s", what, expected,
		bt_node_shown(r->a->arena, n));
}

/* Tells keys that are not among the words; false: it is no map. */
static bool keys_of(struct reader *r, const struct bt_node *n, const char *what,
	const char *const *words, size_t n_words)
{
	if (n->kind != BT_NODE_MAP) {
		BT_STR struct bt_str list = {0};
		for (size_t i = 0; i < n_words; i++)
			bt_str_addf(&list, "%s%s", i ? ", " : "", words[i]);
		BT_FREE char *expected = bt_asprintf("a map with %s", bt_str_get(&list));
		wrong(r, n, what, expected);
		return false;
	}
	for (size_t i = 0; i < n->n; i++) {
		bool known = false;
		for (size_t k = 0; k < n_words; k++)
			known = known || bt_streq(n->keys[i]->text, words[k]);
		if (known)
			continue;
		const char *near = bt_nearest(n->keys[i]->text, words, n_words);
		bt_problem(&r->sink, n->keys[i], "%s: unknown key %s%s%s%s", what,
			bt_node_shown(r->a->arena, n->keys[i]), near ? " (did you mean '" : "",
			near ? near : "", near ? "'?)" : "");
	}
	return true;
}

/* A key that has nothing behind its colon is as good as not there. */
static const struct bt_node *given(const struct bt_node *map, const char *key)
{
	const struct bt_node *v = bt_node_get(map, key);
	return v && !bt_node_is_null(v) ? v : NULL;
}

/* NULL after a problem. */
static const char *text_of(struct reader *r, const struct bt_node *n, const char *what,
	const char *expected, size_t max)
{
	bool plain = n->kind == BT_NODE_SCALAR && !bt_node_is_null(n) && n->text[0] &&
		     strlen(n->text) <= max;
	for (const char *t = plain ? n->text : ""; *t; t++)
		if ((unsigned char)*t < 0x20 || *t == 0x7f)
			plain = false;
	if (plain)
		return bt_arena_strdup(r->a->arena, n->text);
	wrong(r, n, what, expected);
	return NULL;
}

static bool number_of(struct reader *r, const struct bt_node *n, const char *what,
	const char *expected, int64_t min, int64_t max, int64_t *ret)
{
	if (n->kind == BT_NODE_SCALAR && bt_int_parse(n->text, min, max, ret, NULL) == 0)
		return true;
	wrong(r, n, what, expected);
	return false;
}

/* ── paths ── */

/* Without "." and doubled slashes; NULL where it says "..". The result does not begin with a
 * slash. */
static char *normal(struct bt_arena *a, const char *path)
{
	char *out = bt_arena_strdup(a, path), *to = out;
	for (const char *p = path; *p;) {
		p += strspn(p, "/");
		size_t n = strcspn(p, "/");
		if (n == 2 && p[0] == '.' && p[1] == '.')
			return NULL;
		if (n && !(n == 1 && p[0] == '.')) {
			if (to > out)
				*to++ = '/';
			memcpy(to, p, n);
			to += n;
		}
		p += n;
	}
	*to = 0;
	return out;
}

static const char *inside(struct reader *r, const struct bt_node *n, const char *what)
{
	const char *text =
		text_of(r, n, what, "a path in the bundle, such as scripts/start.sh", MAX_PATH);
	const char *path = text ? normal(r->a->arena, text) : NULL;
	if (text && !path)
		bt_problem(&r->sink, n, "%s: %s leaves the bundle: expected a path below its root",
			what, bt_node_shown(r->a->arena, n));
	return path;
}

static const char *on_host(struct reader *r, const struct bt_node *n, const char *what)
{
	const char *text = text_of(r, n, what, "an absolute path, such as /srv/shop", MAX_PATH);
	const char *path = text && text[0] == '/' ? normal(r->a->arena, text) : NULL;
	if (text && !path)
		wrong(r, n, what, "an absolute path without '..', such as /srv/shop");
	return path ? bt_arena_printf(r->a->arena, "/%s", path) : NULL;
}

/* ── version, os, file_exists_behavior ── */

static void read_version(struct reader *r, const struct bt_node *n)
{
	if (n->kind != BT_NODE_SCALAR || !n->plain || !n->text[0] ||
		strspn(n->text, "0.") != strlen(n->text) || n->text[0] == '.')
		wrong(r, n, "version", "the number 0.0");
}

static void read_os(struct reader *r, const struct bt_node *n)
{
	if (n->kind != BT_NODE_SCALAR || !bt_streq(n->text, "linux"))
		wrong(r, n, "os", "linux");
}

static void read_exists(struct reader *r, const struct bt_node *n)
{
	static const char *const words[] = {
		[BT_APPSPEC_DISALLOW] = "DISALLOW",
		[BT_APPSPEC_OVERWRITE] = "OVERWRITE",
		[BT_APPSPEC_RETAIN] = "RETAIN",
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(words); i++)
		if (n->kind == BT_NODE_SCALAR && bt_streq(n->text, words[i])) {
			r->a->exists = (enum bt_appspec_exists)i;
			return;
		}
	wrong(r, n, "file_exists_behavior", "DISALLOW, OVERWRITE or RETAIN");
}

/* ── files ── */

static bool read_file(struct reader *r, const struct bt_node *n, struct bt_appspec_file *f)
{
	static const char *const words[] = {"source", "destination"};
	if (!keys_of(r, n, "files", words, 2))
		return false;
	const struct bt_node *source = given(n, "source");
	const struct bt_node *destination = given(n, "destination");
	if (!source || !destination)
		bt_problem(&r->sink, n,
			"files: %s is missing: expected {source: app, destination: "
			"/srv/shop}",
			source ? "destination" : "source");
	f->source = source ? inside(r, source, "files: source") : NULL;
	f->destination = destination ? on_host(r, destination, "files: destination") : NULL;
	f->line = n->line;
	f->column = n->column;
	return f->source && f->destination;
}

/* A list, or nothing at all. */
static bool list_of(struct reader *r, const struct bt_node *n, const char *what, size_t max)
{
	if (bt_node_is_null(n))
		return false;
	if (n->kind == BT_NODE_LIST && n->n <= max)
		return true;
	BT_FREE char *expected = bt_asprintf("a list of at most %zu", max);
	wrong(r, n, what, expected);
	return false;
}

static void read_files(struct reader *r, const struct bt_node *n)
{
	if (!list_of(r, n, "files", MAX_FILES))
		return;
	struct bt_appspec_file *list = BT_ARENA_ARRAY(r->a->arena, struct bt_appspec_file, n->n);
	for (size_t i = 0; i < n->n; i++)
		r->a->n_files += read_file(r, n->items[i], &list[r->a->n_files]);
	r->a->files = list;
}

/* ── permissions ── */

static bool one_level(const char *glob)
{
	return !strchr(glob, '/') && !strstr(glob, "**");
}

static void read_except(struct reader *r, const struct bt_node *n, struct bt_appspec_permission *p)
{
	if (!list_of(r, n, "permissions: except", MAX_EXCEPT))
		return;
	const char **list = BT_ARENA_ARRAY(r->a->arena, const char *, n->n);
	for (size_t i = 0; i < n->n; i++) {
		static const char expected[] = "names in the object, such as '*.tmp'";
		const char *t = text_of(r, n->items[i], "permissions: except", expected, MAX_PATH);
		if (t && !one_level(t))
			wrong(r, n->items[i], "permissions: except", expected);
		else if (t)
			list[p->n_except++] = t;
	}
	p->except = list;
}

/* The digits count, whatever number YAML would make of them: 0644, 644 and '644' are the same. */
static void read_mode(struct reader *r, const struct bt_node *n, struct bt_appspec_permission *p)
{
	const char *t = n->kind == BT_NODE_SCALAR ? n->text : "";
	size_t digits = strspn(t, "01234567");
	if (digits < 1 || digits > 4 || t[digits]) {
		wrong(r, n, "permissions: mode", "1 to 4 octal digits, such as 0640");
		return;
	}
	p->mode = (int)strtol(t, NULL, 8);
}

static void read_types(struct reader *r, const struct bt_node *n, struct bt_appspec_permission *p)
{
	if (!list_of(r, n, "permissions: type", 2))
		return;
	p->files = p->directories = false;
	for (size_t i = 0; i < n->n; i++) {
		const struct bt_node *t = n->items[i];
		if (t->kind == BT_NODE_SCALAR && bt_streq(t->text, "file"))
			p->files = true;
		else if (t->kind == BT_NODE_SCALAR && bt_streq(t->text, "directory"))
			p->directories = true;
		else
			wrong(r, t, "permissions: type", "file or directory");
	}
}

static void not_here(struct reader *r, const struct bt_node *n, const char *key, const char *what)
{
	const struct bt_node *v = given(n, key);
	if (v)
		bt_problem(&r->sink, v,
			"permissions: %s: baton sets no %s: give owner, group and mode, or set "
			"them "
			"in an AfterInstall script",
			key, what);
}

static bool read_permission(
	struct reader *r, const struct bt_node *n, struct bt_appspec_permission *p)
{
	static const char *const words[] = {
		"object", "pattern", "except", "owner", "group", "mode", "type", "acls", "context"};
	const struct bt_node *v;
	*p = (struct bt_appspec_permission){.pattern = "**",
		.mode = -1,
		.files = true,
		.directories = true,
		.line = n->line,
		.column = n->column};
	if (!keys_of(r, n, "permissions", words, BT_ARRAY_LEN(words)))
		return false;
	not_here(r, n, "acls", "access control lists");
	not_here(r, n, "context", "SELinux context");
	if ((v = given(n, "object")))
		p->object = on_host(r, v, "permissions: object");
	else
		bt_problem(&r->sink, n,
			"permissions: object is missing: expected for example "
			"{object: /srv/shop, owner: shop}");
	if ((v = given(n, "pattern"))) {
		static const char expected[] =
			"'**', or names directly in the object, such as '*.sh'";
		const char *t = text_of(r, v, "permissions: pattern", expected, MAX_PATH);
		if (t && !bt_streq(t, "**") && !one_level(t))
			wrong(r, v, "permissions: pattern", expected);
		p->pattern = t ? t : p->pattern;
	}
	if ((v = given(n, "except")))
		read_except(r, v, p);
	if ((v = given(n, "owner")))
		p->owner = text_of(r, v, "permissions: owner", "a user name", MAX_NAME);
	if ((v = given(n, "group")))
		p->group = text_of(r, v, "permissions: group", "a group name", MAX_NAME);
	if ((v = given(n, "mode")))
		read_mode(r, v, p);
	if ((v = given(n, "type")))
		read_types(r, v, p);
	return p->object != NULL;
}

static void read_permissions(struct reader *r, const struct bt_node *n)
{
	if (!list_of(r, n, "permissions", MAX_PERMISSIONS))
		return;
	struct bt_appspec_permission *list =
		BT_ARENA_ARRAY(r->a->arena, struct bt_appspec_permission, n->n);
	for (size_t i = 0; i < n->n; i++)
		r->a->n_permissions += read_permission(r, n->items[i], &list[r->a->n_permissions]);
	r->a->permissions = list;
}

/* ── hooks ── */

static bool read_script(
	struct reader *r, const struct bt_node *n, const char *event, struct bt_appspec_script *s)
{
	static const char *const words[] = {"location", "timeout", "runas", "sudo"};
	const struct bt_node *v;
	BT_FREE char *what = bt_asprintf("hooks: %s", event);
	*s = (struct bt_appspec_script){
		.timeout_ms = BT_APPSPEC_EVENT_MS, .line = n->line, .column = n->column};
	if (!keys_of(r, n, what, words, BT_ARRAY_LEN(words)))
		return false;
	if ((v = given(n, "location")))
		s->location = inside(r, v, what);
	else
		bt_problem(&r->sink, n,
			"%s: location is missing: expected for example {location: "
			"scripts/start.sh}",
			what);
	if (s->location && !s->location[0]) {
		wrong(r, v, what, "the path of a script in the bundle");
		s->location = NULL;
	}
	int64_t seconds;
	if ((v = given(n, "timeout")) &&
		number_of(r, v, what, "timeout in whole seconds, 1 to 3600", 1, MAX_TIMEOUT_S,
			&seconds))
		s->timeout_ms = seconds * 1000;
	if ((v = given(n, "runas")))
		s->runas = text_of(r, v, what, "a user name in runas", MAX_NAME);
	/* It says how CodeDeploy's agent is to become that user; baton's becomes it either way. */
	if ((v = given(n, "sudo")) &&
		(v->kind != BT_NODE_SCALAR ||
			(!bt_streq(v->text, "true") && !bt_streq(v->text, "false"))))
		wrong(r, v, what, "true or false in sudo");
	return s->location != NULL;
}

static void unknown_event(struct reader *r, const struct bt_node *key)
{
	const char *names[BT_LIFECYCLES];
	size_t n = bt_lifecycle_names(names);
	if (bt_lifecycle_find(key->text) < BT_LIFECYCLES) {
		bt_problem(&r->sink, key, "hooks: %s cannot have scripts: it is baton's own",
			key->text);
		return;
	}
	const char *near = bt_nearest(key->text, names, n);
	BT_STR struct bt_str list = {0};
	for (size_t i = 0; i < n && !near; i++)
		bt_str_addf(&list, "%s%s", i ? ", " : ": expected ", names[i]);
	bt_problem(&r->sink, key, "hooks: unknown event %s%s%s%s%s",
		bt_node_shown(r->a->arena, key), near ? " (did you mean '" : "", near ? near : "",
		near ? "'?)" : "", bt_str_get(&list));
}

static void read_event(struct reader *r, const struct bt_node *key, const struct bt_node *n)
{
	enum bt_lifecycle e = bt_lifecycle_find(key->text);
	if (e == BT_LIFECYCLES || !bt_lifecycles[e].scripts) {
		unknown_event(r, key);
		return;
	}
	BT_FREE char *what = bt_asprintf("hooks: %s", key->text);
	if (!list_of(r, n, what, MAX_SCRIPTS))
		return;
	struct bt_appspec_script *list =
		BT_ARENA_ARRAY(r->a->arena, struct bt_appspec_script, n->n);
	for (size_t i = 0; i < n->n; i++)
		r->a->events[e].n +=
			read_script(r, n->items[i], key->text, &list[r->a->events[e].n]);
	r->a->events[e].scripts = list;
}

static void read_hooks(struct reader *r, const struct bt_node *n)
{
	if (n->kind != BT_NODE_MAP) {
		wrong(r, n, "hooks", "a map of lifecycle events to lists of scripts");
		return;
	}
	for (size_t i = 0; i < n->n; i++)
		read_event(r, n->keys[i], n->items[i]);
}

/* ── the document ── */

static void read_document(struct reader *r, const struct bt_node *n)
{
	static const struct {
		const char *key;
		void (*read)(struct reader *r, const struct bt_node *n);
		bool required;
		const char *example;
	} parts[] = {
		{"version", read_version, true, "0.0"},
		{"os", read_os, true, "linux"},
		{"files", read_files, false, NULL},
		{"file_exists_behavior", read_exists, false, NULL},
		{"permissions", read_permissions, false, NULL},
		{"hooks", read_hooks, false, NULL},
	};
	const char *words[BT_ARRAY_LEN(parts)];
	for (size_t i = 0; i < BT_ARRAY_LEN(parts); i++)
		words[i] = parts[i].key;
	if (!keys_of(r, n, "appspec", words, BT_ARRAY_LEN(words)))
		return;
	for (size_t i = 0; i < BT_ARRAY_LEN(parts); i++) {
		const struct bt_node *v = given(n, parts[i].key);
		if (v)
			parts[i].read(r, v);
		else if (parts[i].required)
			bt_problem(&r->sink, n, "'%s' is missing: expected %s: %s", parts[i].key,
				parts[i].key, parts[i].example);
	}
}

int bt_appspec_parse(const char *text, size_t n, const char *file_name, struct bt_appspec **ret,
	struct bt_config_problems *problems, struct bt_err *err)
{
	struct bt_arena *arena = bt_arena_new();
	struct bt_appspec *a = BT_ARENA_NEW(arena, struct bt_appspec);
	a->arena = arena;
	a->name = bt_arena_strdup(arena, file_name);
	struct reader r = {a, {problems, file_name}};
	size_t n_documents = 0, before = problems->n;
	struct bt_node **documents = bt_node_read_yaml(arena, &r.sink, text, n, &n_documents);
	if (problems->n == before && n_documents != 1)
		bt_problem_at(&r.sink, 1, 1, "expected one document, found %zu", n_documents);
	else if (problems->n == before)
		read_document(&r, documents[0]);
	if (problems->n > before) {
		bt_err_set(err, BT_E_CONFIG, "%s", problems->items[before].line);
		bt_appspec_free(a);
		return BT_E_CONFIG;
	}
	*ret = a;
	return 0;
}

struct bt_appspec *bt_appspec_free(struct bt_appspec *a)
{
	if (a)
		bt_arena_free(a->arena);
	return NULL;
}

size_t bt_appspec_names(const char *asked, const char *ret[static 3])
{
	static const char *const usual[] = {"appspec.yaml", "appspec.yml"};
	size_t n = 0;
	if (asked)
		ret[n++] = asked;
	for (size_t i = 0; i < BT_ARRAY_LEN(usual); i++)
		if (!asked || !bt_streq(asked, usual[i]))
			ret[n++] = usual[i];
	return n;
}

/* ── who a permission is for ── */

/* '*' is any number of any characters. Each star is tried once to the end, so time is bounded by
 * the product of both lengths. */
static bool matches(const char *glob, const char *name)
{
	const char *star = NULL, *from = NULL;
	while (*name) {
		if (*glob == '*') {
			star = glob++;
			from = name;
		} else if (*glob == *name) {
			glob++;
			name++;
		} else if (star) {
			glob = star + 1;
			name = ++from;
		} else
			return false;
	}
	return glob[strspn(glob, "*")] == 0;
}

bool bt_appspec_permits(const struct bt_appspec_permission *p, const char *path, bool is_directory)
{
	if (is_directory ? !p->directories : !p->files)
		return false;
	if (!is_directory && bt_streq(path, p->object))
		return true;
	size_t n = bt_streq(p->object, "/") ? 0 : strlen(p->object);
	if (strncmp(path, p->object, n) != 0 || path[n] != '/' || !path[n + 1])
		return false;
	const char *rest = path + n + 1;
	bool direct = !strchr(rest, '/');
	for (size_t i = 0; direct && i < p->n_except; i++)
		if (matches(p->except[i], rest))
			return false;
	return bt_streq(p->pattern, "**") || (direct && matches(p->pattern, rest));
}
