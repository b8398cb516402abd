/* Routes: a list of {path, to, directives}. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

#define PATH "traffic.nginx.routes"

static const char expected[] = "path and to, such as {path: /api, to: all}";
static const struct bt_key path_key = {
	.path = PATH, .check = bt_check_route, .max = 1024, .expected = "a path such as /api"};
static const struct bt_key to_key = {.path = PATH, .names = &bt_enum_route_to};
static const struct bt_key directives_key = {
	.path = PATH, .check = bt_check_directive, .max = 4096, .expected = BT_DIRECTIVE_EXPECTED};

/* false: it has no path. */
static bool read_route(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	struct bt_route *route)
{
	static const char *const words[] = {"path", "to", "directives"};
	int to = BT_ROUTE_ALL;
	if (!bt_reading_only(r, k, n, words, BT_ARRAY_LEN(words), expected))
		return false;
	const struct bt_node *path = bt_node_get(n, "path");
	if (!path)
		bt_problem(r->sink, n, "%s: expected %s", k->path, expected);
	else
		bt_type_text.read(r, &path_key, path, &route->path, NULL);
	if (bt_node_get(n, "to"))
		bt_type_enum.read(r, &to_key, bt_node_get(n, "to"), &to, NULL);
	if (bt_node_get(n, "directives"))
		bt_type_list.read(r, &directives_key, bt_node_get(n, "directives"),
			&route->directives, &route->n_directives);
	route->to = (enum bt_route_to)to;
	return route->path != NULL;
}

static void read_routes(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_LIST || n->n == 0 || n->n > 500) {
		bt_reading_wrong(r, k, n, "a list of {path: /, to: one|all}");
		return;
	}
	struct bt_route *list = BT_ARENA_ARRAY(r->arena, struct bt_route, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++) {
		struct bt_route route = {0};
		if (!read_route(r, k, n->items[i], &route))
			continue;
		const struct bt_node *path = bt_node_get(n->items[i], "path");
		for (size_t j = 0; j < used; j++)
			if (bt_streq(list[j].path, route.path))
				bt_problem(r->sink, path, "%s: %s is routed twice", k->path,
					bt_node_shown(r->arena, path));
		list[used++] = route;
	}
	*(const struct bt_route **)field = list;
	*(size_t *)count = used;
}

static json_t *write_routes(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_route *list = *(const struct bt_route *const *)field;
	json_t *a = json_array();
	for (size_t i = 0; i < *(const size_t *)count; i++) {
		json_t *o = json_object();
		json_object_set_new(o, "path", json_string(list[i].path));
		json_object_set_new(
			o, "to", json_string(bt_enum_name(&bt_enum_route_to, list[i].to)));
		json_t *directives = bt_type_list.write(
			&directives_key, &list[i].directives, &list[i].n_directives);
		if (directives)
			json_object_set_new(o, "directives", directives);
		json_array_append_new(a, o);
	}
	return a;
}
const struct bt_key_type bt_type_routes = {"routes", read_routes, write_routes};
