#include "config/node.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define BOM "\xef\xbb\xbf" /* as editors on Windows begin a file */

enum {
	MAX_BYTES = 1 << 20,
	MAX_DEPTH = 32,
	MAX_ALIASES = 1000,
	MAX_WEIGHT = 100000, /* nodes a document may expand to */
	MAX_ENTRIES = 10000,
	MAX_KEYS = 1000,
	MAX_PROBLEMS = 200,
	MAX_DOCUMENTS = 1000,
};

/* ── problems ── */

static void put(struct bt_problem_sink *s, int line, int column, const char *fmt, va_list ap)
{
	struct bt_config_problems *l = s->list;
	if (l->n == MAX_PROBLEMS)
		return;
	BT_FREE char *text = NULL;
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	if (!l->arena)
		l->arena = bt_arena_new();
	if (l->n % 16 == 0) {
		struct bt_config_problem *more =
			BT_ARENA_ARRAY(l->arena, struct bt_config_problem, l->n + 16);
		if (l->n)
			memcpy(more, l->items, l->n * sizeof *more);
		l->items = more;
	}
	const char *line_text = !s->file ? bt_arena_printf(l->arena, "service config: %s", text)
					 : bt_arena_printf(l->arena, "%s:%d:%d: %s", s->file,
						   line ? line : 1, column ? column : 1, text);
	/* What all environments share is read for each of them. */
	for (size_t i = 0; i < l->n; i++)
		if (bt_streq(l->items[i].line, line_text))
			return;
	if (l->n + 1 == MAX_PROBLEMS)
		line_text =
			bt_arena_printf(l->arena, "%s (more problems are not shown)", line_text);
	/* People read a file from its top: in order of place, whichever check came first. */
	size_t at = l->n++;
	for (; at > 0 && l->items[at - 1].file == s->file &&
		(l->items[at - 1].at_line > line ||
			(l->items[at - 1].at_line == line && l->items[at - 1].at_column > column));
		at--)
		l->items[at] = l->items[at - 1];
	l->items[at] = (struct bt_config_problem){line_text, s->file, line, column};
}

void bt_problem(struct bt_problem_sink *s, const struct bt_node *at, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	put(s, at ? at->line : 0, at ? at->column : 0, fmt, ap);
	va_end(ap);
}

void bt_problem_at(struct bt_problem_sink *s, int line, int column, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	put(s, line, column, fmt, ap);
	va_end(ap);
}

/* ── YAML events → nodes ── */

struct anchor {
	struct anchor *next;
	const char *name;
	struct bt_node *node;
};

struct reader {
	yaml_parser_t parser;
	struct bt_arena *arena;
	struct bt_problem_sink *sink;
	struct anchor *anchors;
	int aliases;
	bool stopped; /* nothing more can be read */
};

static bool next(struct reader *r, yaml_event_t *event)
{
	if (r->stopped)
		return false;
	if (yaml_parser_parse(&r->parser, event))
		return true;
	const yaml_mark_t *m = &r->parser.problem_mark;
	bt_problem_at(r->sink, (int)m->line + 1, (int)m->column + 1, "not valid YAML: %s%s%s",
		r->parser.problem ? r->parser.problem : "cannot be read",
		r->parser.context ? " " : "", r->parser.context ? r->parser.context : "");
	r->stopped = true;
	return false;
}

static struct bt_node *stop(struct reader *r, const yaml_mark_t *m, const char *what)
{
	bt_problem_at(r->sink, (int)m->line + 1, (int)m->column + 1, "%s", what);
	r->stopped = true;
	return NULL;
}

static struct bt_node *new_node(struct reader *r, enum bt_node_kind kind, const yaml_event_t *event)
{
	struct bt_node *n = BT_ARENA_NEW(r->arena, struct bt_node);
	n->kind = kind;
	n->line = (int)event->start_mark.line + 1;
	n->column = (int)event->start_mark.column + 1;
	n->weight = 1;
	return n;
}

static void remember(struct reader *r, const yaml_char_t *name, struct bt_node *node)
{
	if (!name || !node)
		return;
	struct anchor *a = BT_ARENA_NEW(r->arena, struct anchor);
	a->next = r->anchors;
	a->name = bt_arena_strdup(r->arena, (const char *)name);
	a->node = node;
	r->anchors = a;
}

/* An anchor is known once its node is complete, so no tree can hold itself. */
static struct bt_node *resolve(struct reader *r, const yaml_event_t *event, int depth)
{
	const char *name = (const char *)event->data.alias.anchor;
	if (++r->aliases > MAX_ALIASES)
		return stop(r, &event->start_mark, "more than 1000 aliases");
	for (const struct anchor *a = r->anchors; a; a = a->next)
		if (bt_streq(a->name, name)) {
			if (depth + a->node->height > MAX_DEPTH)
				return stop(r, &event->start_mark, "nested deeper than 32");
			return a->node;
		}
	return stop(r, &event->start_mark, "this alias names no anchor above it");
}

static struct bt_node *read_node(struct reader *r, yaml_event_t *event, int depth);

static void tag(struct reader *r, const yaml_char_t *t, const yaml_event_t *event)
{
	if (t)
		bt_problem_at(r->sink, (int)event->start_mark.line + 1,
			(int)event->start_mark.column + 1, "tags such as '%.40s' are not taken",
			(const char *)t);
}

static struct bt_node *read_scalar(struct reader *r, const yaml_event_t *event)
{
	struct bt_node *n = new_node(r, BT_NODE_SCALAR, event);
	const char *text = (const char *)event->data.scalar.value;
	n->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	n->text = bt_arena_strndup(r->arena, text, event->data.scalar.length);
	if (strlen(n->text) != event->data.scalar.length)
		bt_problem(r->sink, n, "a NUL byte in a text");
	tag(r, event->data.scalar.tag, event);
	remember(r, event->data.scalar.anchor, n);
	return n;
}

static bool append(struct reader *r, struct bt_node *to, struct bt_node *key, struct bt_node *item,
	size_t *cap)
{
	if (to->n == *cap) {
		*cap = *cap ? *cap * 2 : 8;
		struct bt_node **items = BT_ARENA_ARRAY(r->arena, struct bt_node *, *cap);
		struct bt_node **keys = BT_ARENA_ARRAY(r->arena, struct bt_node *, *cap);
		if (to->n) {
			memcpy(items, to->items, to->n * sizeof *items);
			memcpy(keys, to->keys, to->n * sizeof *keys);
		}
		to->items = items;
		to->keys = keys;
	}
	to->keys[to->n] = key;
	to->items[to->n++] = item;
	to->weight += item->weight;
	if (item->height + 1 > to->height)
		to->height = item->height + 1;
	size_t max = to->kind == BT_NODE_MAP ? MAX_KEYS : MAX_ENTRIES;
	if (to->weight <= MAX_WEIGHT && to->n <= max)
		return true;
	bt_problem(r->sink, to,
		"too large: at most %d keys, %d entries, and %d values with aliases", (int)MAX_KEYS,
		(int)MAX_ENTRIES, (int)MAX_WEIGHT);
	r->stopped = true;
	return false;
}

static struct bt_node *read_list(struct reader *r, const yaml_event_t *start, int depth)
{
	struct bt_node *list = new_node(r, BT_NODE_LIST, start);
	const yaml_char_t *anchor = start->data.sequence_start.anchor;
	tag(r, start->data.sequence_start.tag, start);
	size_t cap = 0;
	yaml_event_t event;
	while (next(r, &event)) {
		bool end = event.type == YAML_SEQUENCE_END_EVENT;
		struct bt_node *item = end ? NULL : read_node(r, &event, depth + 1);
		yaml_event_delete(&event);
		if (end) {
			remember(r, anchor, list);
			return list;
		}
		if (!item || !append(r, list, NULL, item, &cap))
			return NULL;
	}
	return NULL;
}

/* A key, or NULL (with a problem) where it is no scalar; a second one of the same name is told. */
static struct bt_node *read_key(
	struct reader *r, struct bt_node *map, yaml_event_t *event, int depth)
{
	struct bt_node *key = read_node(r, event, depth + 1);
	if (!key)
		return NULL;
	if (key->kind != BT_NODE_SCALAR) {
		bt_problem(r->sink, key, "a key must be a word");
		r->stopped = true;
		return NULL;
	}
	for (size_t i = 0; i < map->n; i++)
		if (bt_streq(map->keys[i]->text, key->text))
			bt_problem(r->sink, key, "duplicate key %s: it is on line %d already",
				bt_node_shown(r->arena, key), map->keys[i]->line);
	return key;
}

static struct bt_node *read_map(struct reader *r, const yaml_event_t *start, int depth)
{
	struct bt_node *map = new_node(r, BT_NODE_MAP, start);
	const yaml_char_t *anchor = start->data.mapping_start.anchor;
	tag(r, start->data.mapping_start.tag, start);
	size_t cap = 0;
	yaml_event_t event;
	while (next(r, &event)) {
		bool end = event.type == YAML_MAPPING_END_EVENT;
		struct bt_node *key = end ? NULL : read_key(r, map, &event, depth);
		yaml_event_delete(&event);
		if (end) {
			remember(r, anchor, map);
			return map;
		}
		if (!key || !next(r, &event))
			return NULL;
		struct bt_node *value = read_node(r, &event, depth + 1);
		yaml_event_delete(&event);
		if (!value || !append(r, map, key, value, &cap))
			return NULL;
	}
	return NULL;
}

static struct bt_node *read_node(struct reader *r, yaml_event_t *event, int depth)
{
	if (depth > MAX_DEPTH)
		return stop(r, &event->start_mark, "nested deeper than 32");
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return resolve(r, event, depth);
	case YAML_SCALAR_EVENT:
		return read_scalar(r, event);
	case YAML_SEQUENCE_START_EVENT:
		return read_list(r, event, depth);
	case YAML_MAPPING_START_EVENT:
		return read_map(r, event, depth);
	default:
		return stop(r, &event->start_mark, "not expected here");
	}
}

static size_t read_documents(struct reader *r, struct bt_node **docs)
{
	size_t n = 0;
	yaml_event_t event;
	while (next(r, &event)) {
		yaml_event_type_t type = event.type;
		yaml_event_delete(&event);
		if (type == YAML_STREAM_END_EVENT)
			break;
		if (type != YAML_DOCUMENT_START_EVENT || !next(r, &event))
			continue;
		r->anchors = NULL;
		struct bt_node *doc = read_node(r, &event, 1);
		if (doc && n == MAX_DOCUMENTS)
			doc = stop(r, &event.start_mark, "more than 1000 documents");
		yaml_event_delete(&event);
		if (doc)
			docs[n++] = doc;
	}
	return n;
}

struct bt_node **bt_node_read_yaml(
	struct bt_arena *a, struct bt_problem_sink *s, const char *text, size_t n, size_t *ret_n)
{
	struct bt_node **docs = BT_ARENA_ARRAY(a, struct bt_node *, MAX_DOCUMENTS);
	*ret_n = 0;
	if (n > MAX_BYTES) {
		bt_problem_at(s, 1, 1, "a config of %zu bytes, at most 1 MiB is taken", n);
		return docs;
	}
	struct reader r = {.arena = a, .sink = s};
	if (n >= sizeof BOM - 1 && memcmp(text, BOM, sizeof BOM - 1) == 0) {
		text += sizeof BOM - 1;
		n -= sizeof BOM - 1;
	}
	if (!yaml_parser_initialize(&r.parser))
		abort(); /* out of memory */
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
	*ret_n = read_documents(&r, docs);
	yaml_parser_delete(&r.parser);
	return docs;
}

/* ── JSON → nodes ── */

struct bt_node *bt_node_scalar(struct bt_arena *a, const char *text)
{
	struct bt_node *n = BT_ARENA_NEW(a, struct bt_node);
	n->text = bt_arena_strdup(a, text);
	n->weight = 1;
	return n;
}

static struct bt_node *from_json(
	struct bt_arena *a, struct bt_problem_sink *s, const json_t *j, int depth, size_t *total)
{
	struct bt_node *n = bt_node_scalar(a, "");
	n->plain = !json_is_string(j);
	if (depth > MAX_DEPTH || ++*total > MAX_WEIGHT) {
		bt_problem(s, NULL, "too large or nested deeper than 32");
		return NULL;
	}
	if (json_is_array(j) || json_is_object(j)) {
		size_t i = 0, size = json_is_array(j) ? json_array_size(j) : json_object_size(j);
		n->kind = json_is_array(j) ? BT_NODE_LIST : BT_NODE_MAP;
		n->items = BT_ARENA_ARRAY(a, struct bt_node *, size);
		n->keys = BT_ARENA_ARRAY(a, struct bt_node *, size);
		const json_t *item;
		void *it = json_object_iter((json_t *)j);
		for (; i < size; i++) {
			item = it ? json_object_iter_value(it) : json_array_get(j, i);
			if (it)
				n->keys[i] = bt_node_scalar(a, json_object_iter_key(it));
			n->items[i] = from_json(a, s, item, depth + 1, total);
			if (!n->items[i])
				return NULL;
			it = it ? json_object_iter_next((json_t *)j, it) : NULL;
		}
		n->n = size;
	} else if (json_is_string(j)) {
		n->text = bt_arena_strndup(a, json_string_value(j), json_string_length(j));
		if (strlen(n->text) != json_string_length(j))
			bt_problem(s, NULL, "a NUL byte in a text");
	} else if (json_is_integer(j))
		n->text = bt_arena_printf(a, "%lld", (long long)json_integer_value(j));
	else if (json_is_real(j))
		n->text = bt_arena_printf(a, "%.17g", json_real_value(j));
	else
		n->text = json_is_true(j) ? "true" : json_is_false(j) ? "false" : "null";
	return n;
}

struct bt_node *bt_node_from_json(struct bt_arena *a, struct bt_problem_sink *s, const json_t *j)
{
	size_t total = 0;
	return from_json(a, s, j, 1, &total);
}

/* ── looking ── */

const struct bt_node *bt_node_get(const struct bt_node *map, const char *key)
{
	for (size_t i = 0; map->kind == BT_NODE_MAP && i < map->n; i++)
		if (bt_streq(map->keys[i]->text, key))
			return map->items[i];
	return NULL;
}

bool bt_node_is_null(const struct bt_node *n)
{
	return n->kind == BT_NODE_SCALAR && n->plain &&
	       (!*n->text || bt_streq(n->text, "~") || bt_streq(n->text, "null"));
}

const char *bt_node_shown(struct bt_arena *a, const struct bt_node *n)
{
	if (n->kind == BT_NODE_LIST)
		return n->n ? "a list" : "an empty list";
	if (n->kind == BT_NODE_MAP)
		return n->n ? "a map" : "an empty map";
	if (bt_node_is_null(n))
		return "nothing";
	enum { MAX_SHOWN = 60 };
	size_t len = strlen(n->text), cut = len;
	if (len > MAX_SHOWN)
		for (cut = MAX_SHOWN; cut && ((unsigned char)n->text[cut] & 0xc0) == 0x80;)
			cut--;
	return bt_arena_printf(a, "'%.*s%s'", (int)cut, n->text, cut < len ? "…" : "");
}
