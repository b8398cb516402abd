/* Documents → services: the forms a file may have, ${ENV}, and what spans services. */
#include "config/config.h"

#include "base/str.h"
#include "config/keys.h"

#include <string.h>

enum { MAX_SERVICES = 500 };

struct parse {
	struct bt_arena *arena;
	struct bt_problem_sink sink;
	struct bt_service *services;
	size_t n, cap;
	struct bt_variables variables; /* of the document being read */
};

struct bt_config *bt_config_free(struct bt_config *c)
{
	if (c)
		bt_arena_free(c->arena); /* the config itself lies in it */
	return NULL;
}

void bt_config_problems_done(struct bt_config_problems *p)
{
	p->arena = bt_arena_free(p->arena);
	p->items = NULL;
	p->n = 0;
}

/* ── ${NAME} ── */

/* Where in a document a ${NAME} is a secret, which only an agent puts in: a value of the caller's
 * environment would be stored with the config for everybody to read. */
enum place { ANYWHERE, IN_TRAFFIC, IN_HTTP, OF_SECRETS };

static bool is_notify(const char *key, const struct bt_node *value)
{
	bool all = bt_streq(key, "notify") && value->kind == BT_NODE_MAP;
	for (size_t i = 0; all && i < value->n; i++)
		all = value->items[i]->kind == BT_NODE_MAP;
	return all;
}

static enum place place_of(enum place parent, const char *key, const struct bt_node *value)
{
	if (parent == OF_SECRETS || is_notify(key, value))
		return OF_SECRETS;
	if (bt_streq(key, "traffic"))
		return IN_TRAFFIC;
	if (parent == IN_TRAFFIC && bt_streq(key, "http"))
		return IN_HTTP;
	return parent == IN_HTTP && bt_streq(key, "headers") ? OF_SECRETS : ANYWHERE;
}

/* keep: ${NAME} is somebody else's to replace, and $${ is another way to write it. */
static void expand_text(struct parse *p, struct bt_node *n, bool keep)
{
	BT_STR struct bt_str out = {0};
	if (!strstr(n->text, "${"))
		return;
	for (const char *t = n->text; *t;) {
		if (bt_str_starts(t, "$${")) {
			bt_str_add(&out, "${");
			t += 3;
		} else if (bt_str_starts(t, "${") && !keep) {
			const char *end = strchr(t, '}');
			if (!end) {
				bt_problem(&p->sink, n, "'${' without '}' ($${ writes the text)");
				return;
			}
			BT_FREE char *name = bt_strndup(t + 2, (size_t)(end - t - 2));
			const char *value = bt_variables_get(&p->sink, n, &p->variables, name);
			bt_str_add(&out, value ? value : "0");
			t = end + 1;
		} else
			bt_str_addc(&out, *t++);
		if (out.len > 1 << 20) {
			bt_problem(&p->sink, n, "longer than 1 MiB with its variables");
			return;
		}
	}
	n->text = bt_arena_strdup(p->arena, bt_str_get(&out));
}

static void expand(struct parse *p, struct bt_node *n, enum place place)
{
	if (n->expanded)
		return;
	n->expanded = true;
	if (n->kind == BT_NODE_SCALAR)
		expand_text(p, n, place == OF_SECRETS);
	for (size_t i = 0; i < n->n; i++)
		expand(p, n->items[i],
			n->kind == BT_NODE_MAP ? place_of(place, n->keys[i]->text, n->items[i])
			: place == OF_SECRETS  ? place
					       : ANYWHERE);
}

static void read_declared(struct parse *p, const struct bt_node *doc)
{
	const struct bt_node *n = bt_node_get(doc, "env");
	p->variables.n = 0;
	if (!n)
		return;
	if (n->kind != BT_NODE_LIST) {
		bt_problem(&p->sink, n,
			"env: expected a list of variables such as [BUILD_NUMBER], "
			"found %s",
			bt_node_shown(p->arena, n));
		return;
	}
	p->variables.declared = BT_ARENA_ARRAY(p->arena, const char *, n->n);
	for (size_t i = 0; i < n->n; i++) {
		const struct bt_node *item = n->items[i];
		if (item->kind == BT_NODE_SCALAR && *item->text && bt_check_env_name(item->text))
			p->variables.declared[p->variables.n++] = item->text;
		else
			bt_problem(&p->sink, item,
				"env: expected a name such as BUILD_NUMBER, "
				"found %s",
				bt_node_shown(p->arena, item));
	}
}

/* ── documents ── */

/* The map without the key: what belongs to the file is not the service's. */
static struct bt_node *without(struct parse *p, const struct bt_node *map, const char *key)
{
	struct bt_node *copy = bt_arena_memdup(p->arena, map, sizeof *map);
	copy->items = BT_ARENA_ARRAY(p->arena, struct bt_node *, map->n);
	copy->keys = BT_ARENA_ARRAY(p->arena, struct bt_node *, map->n);
	copy->n = 0;
	for (size_t i = 0; i < map->n; i++)
		if (!bt_streq(map->keys[i]->text, key)) {
			copy->keys[copy->n] = map->keys[i];
			copy->items[copy->n++] = map->items[i];
		}
	return copy;
}

static void add_one(struct parse *p, const struct bt_node *n)
{
	if (p->n == MAX_SERVICES) {
		bt_problem(&p->sink, n, "more than 500 services");
		return;
	}
	if (p->n == p->cap) {
		p->cap = p->cap ? p->cap * 4 : 1;
		struct bt_service *more = BT_ARENA_ARRAY(p->arena, struct bt_service, p->cap);
		if (p->n)
			memcpy(more, p->services, p->n * sizeof *more);
		p->services = more;
	}
	struct bt_reading r = {
		.arena = p->arena, .sink = &p->sink, .service = &p->services[p->n], .node = n};
	bt_reading_service(&r);
	r.service->declared = p->variables.declared;
	r.service->n_declared = p->variables.n;
	for (size_t i = 0; r.service->name && i < p->n; i++)
		if (p->services[i].name)
			bt_config_check_pair(&p->sink, n, &p->services[i], r.service);
	p->n++;
}

static void set(struct bt_node *map, const struct bt_node *key, struct bt_node *value)
{
	size_t at = 0;
	while (at < map->n && !bt_streq(map->keys[at]->text, key->text))
		at++;
	map->keys[at] = (struct bt_node *)key;
	map->items[at] = value;
	map->n += at == map->n;
}

/* What the environment says instead of, or beside, what all of them share; `~` takes a key away. */
static struct bt_node *overlay(
	struct parse *p, const struct bt_node *base, const struct bt_node *over)
{
	struct bt_node *m = bt_arena_memdup(p->arena, base, sizeof *base);
	m->items = BT_ARENA_ARRAY(p->arena, struct bt_node *, base->n + over->n);
	m->keys = BT_ARENA_ARRAY(p->arena, struct bt_node *, base->n + over->n);
	memcpy(m->items, base->items, base->n * sizeof *m->items);
	memcpy(m->keys, base->keys, base->n * sizeof *m->keys);
	for (size_t i = 0; i < over->n; i++) {
		const struct bt_node *key = over->keys[i], *was = bt_node_get(m, key->text);
		struct bt_node *value = over->items[i];
		if (bt_node_is_null(value))
			m = was ? without(p, m, key->text) : m;
		else if (was && was->kind == BT_NODE_MAP && value->kind == BT_NODE_MAP)
			set(m, key, overlay(p, was, value));
		else
			set(m, key, value);
	}
	return m;
}

static void add_environment(struct parse *p, const struct bt_node *base, const struct bt_node *name,
	const struct bt_node *over)
{
	static const char *const ours[] = {"service", "environments"};
	const struct bt_node *service = bt_node_get(base, "service");
	struct bt_node empty = {.kind = BT_NODE_MAP};
	if (!bt_name_valid(name->text)) {
		bt_problem(&p->sink, name,
			"environments: expected a name of letters, digits, '.', '_' and '-', found "
			"%s",
			bt_node_shown(p->arena, name));
		return;
	}
	if (!bt_node_is_null(over) && over->kind != BT_NODE_MAP) {
		bt_problem(&p->sink, over,
			"environments.%s: expected a map of what differs there, found %s",
			name->text, bt_node_shown(p->arena, over));
		return;
	}
	over = bt_node_is_null(over) ? &empty : over;
	for (size_t i = 0; i < BT_ARRAY_LEN(ours); i++)
		if (bt_node_get(over, ours[i])) {
			bt_problem(&p->sink, bt_node_get(over, ours[i]),
				"environments.%s: '%s' cannot differ from one to another",
				name->text, ours[i]);
			return;
		}
	struct bt_node *all = overlay(p, base, over);
	if (service && service->kind == BT_NODE_SCALAR) {
		struct bt_node *full = bt_arena_memdup(p->arena, service, sizeof *service);
		full->text = bt_arena_printf(p->arena, "%s@%s", service->text, name->text);
		set(all, bt_node_scalar(p->arena, "service"), full);
	}
	all->line = name->line;
	all->column = name->column;
	add_one(p, all);
}

/* With `environments`, one service for each of them: shop@dev, shop@release. */
static void add_service(struct parse *p, const struct bt_node *n)
{
	if (n->kind != BT_NODE_MAP) {
		bt_problem(&p->sink, n, "a service: expected a map of its keys, found %s",
			bt_node_shown(p->arena, n));
		return;
	}
	const struct bt_node *environments = bt_node_get(n, "environments");
	if (!environments || !p->sink.file) { /* JSON is always one service */
		add_one(p, n);
		return;
	}
	if (environments->kind != BT_NODE_MAP || environments->n == 0) {
		bt_problem(&p->sink, environments,
			"environments: expected a map such as {dev: {hosts: [dev1]}, release: "
			"{…}}, "
			"found %s",
			environments->kind == BT_NODE_MAP ? "an empty one"
							  : bt_node_shown(p->arena, environments));
		return;
	}
	const struct bt_node *base = without(p, n, "environments");
	for (size_t i = 0; i < environments->n; i++)
		add_environment(p, base, environments->keys[i], environments->items[i]);
}

/* services: {shop: {…}}: the name is the key. */
static void add_named(struct parse *p, struct bt_node *name, const struct bt_node *n)
{
	if (n->kind == BT_NODE_MAP && !bt_node_get(n, "service")) {
		struct bt_node *copy = bt_arena_memdup(p->arena, n, sizeof *n);
		copy->items = BT_ARENA_ARRAY(p->arena, struct bt_node *, n->n + 1);
		copy->keys = BT_ARENA_ARRAY(p->arena, struct bt_node *, n->n + 1);
		copy->items[0] = name;
		copy->keys[0] = bt_node_scalar(p->arena, "service");
		for (size_t i = 0; i < n->n; i++) {
			copy->items[i + 1] = n->items[i];
			copy->keys[i + 1] = n->keys[i];
		}
		copy->n = n->n + 1;
		copy->line = name->line;
		copy->column = name->column;
		add_service(p, copy);
		return;
	}
	const struct bt_node *own = bt_node_get(n, "service");
	if (own && !(own->kind == BT_NODE_SCALAR && bt_streq(own->text, name->text)))
		bt_problem(&p->sink, own,
			"service: expected '%.63s', the key it stands under, or "
			"nothing",
			name->text);
	add_service(p, n);
}

static void add_services(struct parse *p, const struct bt_node *doc, const struct bt_node *list)
{
	static const char *const words[] = {"services", "env"};
	for (size_t i = 0; i < doc->n; i++)
		if (!bt_streq(doc->keys[i]->text, "services")) {
			const char *near = bt_nearest(doc->keys[i]->text, words, 2);
			bt_problem(&p->sink, doc->keys[i],
				"unknown key %s beside services, expected services and env%s%s%s",
				bt_node_shown(p->arena, doc->keys[i]),
				near ? " (did you mean '" : "", near ? near : "",
				near ? "'?)" : "");
		}
	if (list->kind == BT_NODE_SCALAR || list->n == 0) {
		bt_problem(&p->sink, list, "services: expected a map of services by name, found %s",
			list->n || list->kind == BT_NODE_SCALAR ? bt_node_shown(p->arena, list)
								: "an empty one");
		return;
	}
	for (size_t i = 0; i < list->n; i++)
		if (list->kind == BT_NODE_MAP)
			add_named(p, list->keys[i], list->items[i]);
		else
			add_service(p, list->items[i]);
}

static void add_document(struct parse *p, struct bt_node *doc)
{
	if (bt_node_is_null(doc))
		return; /* an empty document between two --- */
	if (doc->kind != BT_NODE_MAP) {
		bt_problem(&p->sink, doc,
			"expected a map that begins with 'service: NAME' or 'services:', found %s",
			bt_node_shown(p->arena, doc));
		return;
	}
	read_declared(p, doc);
	struct bt_node *rest = without(p, doc, "env");
	rest->expanded = false;
	expand(p, rest, ANYWHERE);
	const struct bt_node *services = bt_node_get(rest, "services");
	if (services)
		add_services(p, rest, services);
	else
		add_service(p, rest);
}

static struct bt_config *give(struct parse *p)
{
	struct bt_config *c = BT_ARENA_NEW(p->arena, struct bt_config);
	c->arena = p->arena;
	c->services = p->services;
	c->n_services = p->n;
	return c;
}

static struct parse begin(const char *file_name, struct bt_config_problems *problems)
{
	struct parse p = {.arena = bt_arena_new()};
	p.sink = (struct bt_problem_sink){
		problems, file_name ? bt_arena_strdup(p.arena, file_name) : NULL};
	return p;
}

/* The first problem becomes the error; 0 where there is none. */
static int verdict(struct parse *p, size_t before, struct bt_config **ret, struct bt_err *err)
{
	const struct bt_config_problems *l = p->sink.list;
	if (l->n == before) {
		*ret = give(p);
		return 0;
	}
	bt_err_set(err, BT_E_CONFIG, "%s", l->items[before].line);
	bt_arena_free(p->arena);
	return BT_E_CONFIG;
}

int bt_config_parse(const char *text, size_t n, const char *file_name, bt_config_env env,
	void *env_arg, struct bt_config **ret, struct bt_config_problems *problems,
	struct bt_err *err)
{
	struct bt_config_problems own = {0};
	struct bt_config_problems *list = problems ? problems : &own;
	size_t before = list->n, n_docs = 0;
	struct parse p = begin(file_name ? file_name : "baton.yaml", list);
	p.variables.env = env;
	p.variables.arg = env_arg;
	struct bt_node **docs = bt_node_read_yaml(p.arena, &p.sink, text, n, &n_docs);
	for (size_t i = 0; i < n_docs; i++)
		add_document(&p, docs[i]);
	if (p.n == 0 && list->n == before)
		bt_problem_at(&p.sink, 1, 1,
			"no service: expected a map that begins with 'service: NAME' or "
			"'services:'");
	int r = verdict(&p, before, ret, err);
	bt_config_problems_done(&own);
	return r;
}

int bt_config_service_from_json(const json_t *j, struct bt_config **ret, struct bt_err *err)
{
	struct bt_config_problems list = {0};
	struct parse p = begin(NULL, &list);
	const struct bt_node *n = bt_node_from_json(p.arena, &p.sink, j);
	if (n)
		add_service(&p, n);
	int r = verdict(&p, 0, ret, err);
	if (r == BT_E_CONFIG && list.n > 1) { /* whoever sent it over a wire sees only the error */
		BT_STR struct bt_str all = {0};
		for (size_t i = 0; i < list.n; i++)
			bt_str_addf(&all, "%s%s", i ? "; " : "", list.items[i].line);
		bt_err_set(err, r, "%s", all.data);
	}
	bt_config_problems_done(&list);
	return r;
}

int bt_config_merge(struct bt_config *to, struct bt_config *from,
	struct bt_config_problems *problems, struct bt_err *err)
{
	struct bt_config_problems own = {0};
	struct bt_config_problems *list = problems ? problems : &own;
	size_t before = list->n, n = to->n_services + from->n_services;
	for (size_t i = 0; i < from->n_services; i++)
		for (size_t j = 0; j < to->n_services; j++) {
			struct bt_problem_sink sink = {list, from->services[i].file};
			const struct bt_node at = {.line = from->services[i].line, .column = 1};
			bt_config_check_pair(&sink, &at, &to->services[j], &from->services[i]);
		}
	int r = 0;
	if (list->n > before)
		r = bt_err_set(err, BT_E_CONFIG, "%s", list->items[before].line);
	else {
		struct bt_service *all = BT_ARENA_ARRAY(to->arena, struct bt_service, n);
		memcpy(all, to->services, to->n_services * sizeof *all);
		for (size_t i = 0; i < from->n_services; i++)
			all[to->n_services + i] = from->services[i];
		to->services = all;
		to->n_services = n;
		bt_arena_adopt(to->arena, from->arena);
		from = NULL;
	}
	bt_config_free(from);
	bt_config_problems_done(&own);
	return r;
}

const struct bt_service *bt_config_find(const struct bt_config *c, const char *name)
{
	if (!name)
		return c->n_services == 1 ? &c->services[0] : NULL;
	for (size_t i = 0; i < c->n_services; i++)
		if (bt_streq(c->services[i].name, name))
			return &c->services[i];
	return NULL;
}
