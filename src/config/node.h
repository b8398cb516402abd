/* A YAML or JSON document as a tree whose every node knows its line and column.
 * The tree is bounded before anybody walks it: size, depth, entries, and what aliases expand to. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "config/config.h"
#include <jansson.h>
#include <stdbool.h>

enum bt_node_kind { BT_NODE_SCALAR, BT_NODE_LIST, BT_NODE_MAP };

struct bt_node {
	enum bt_node_kind kind;
	int line, column;	/* from 1; 0: did not come from a file */
	const char *text;	/* SCALAR; never NULL there */
	bool plain;		/* SCALAR: written without quotes */
	bool expanded;		/* ${…} is done */
	struct bt_node **items; /* LIST: entries; MAP: values */
	struct bt_node **keys;	/* MAP: scalars, all different */
	size_t n;
	size_t weight; /* nodes below and including this one, aliases expanded */
	int height;    /* levels below */
};

/* Where problems go: one line each, bounded in number. */
struct bt_problem_sink {
	struct bt_config_problems *list;
	const char *file; /* NULL: from JSON */
};
void bt_problem(struct bt_problem_sink *s, const struct bt_node *at, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void bt_problem_at(struct bt_problem_sink *s, int line, int column, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* All documents of a YAML text; what is wrong goes to the sink (duplicate keys, tags, syntax, what
 * is too large). Returns the documents that could be read. */
struct bt_node **bt_node_read_yaml(
	struct bt_arena *a, struct bt_problem_sink *s, const char *text, size_t n, size_t *ret_n);
/* NULL with a problem where the JSON holds what no document may. */
struct bt_node *bt_node_from_json(struct bt_arena *a, struct bt_problem_sink *s, const json_t *j);
struct bt_node *bt_node_scalar(struct bt_arena *a, const char *text); /* without a place */

const struct bt_node *bt_node_get(const struct bt_node *map, const char *key); /* NULL: absent */
bool bt_node_is_null(const struct bt_node *n); /* nothing, null or ~ without quotes */
/* What stands there, for "found …": short, one line; in the arena. */
const char *bt_node_shown(struct bt_arena *a, const struct bt_node *n);
