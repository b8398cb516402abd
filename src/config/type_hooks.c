/* deploy.hooks: lists of tasks that a person adds to the plan (type_tasks.c reads each). */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

#define MAX_HOOKS 50

static void read_hooks(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_LIST || n->n > MAX_HOOKS) {
		bt_problem(r->sink, n,
			"%s: expected a list of at most %d tasks such as [{run: [./migrate.sh, "
			"--up]}], found %s",
			k->path, MAX_HOOKS, bt_node_shown(r->arena, n));
		return;
	}
	struct bt_hook *list = BT_ARENA_ARRAY(r->arena, struct bt_hook, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++)
		used += bt_reading_task(r, k, n->items[i], &list[used]);
	*(const struct bt_hook **)field = list;
	*(size_t *)count = used;
}

static json_t *write_hooks(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_hook *list = *(const struct bt_hook *const *)field;
	size_t n = *(const size_t *)count;
	json_t *a = n ? json_array() : NULL;
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, bt_task_written(&list[i]));
	return a;
}
const struct bt_key_type bt_type_hooks = {"list of tasks", read_hooks, write_hooks};

/* ── what only holds together ── */

static bool is_placed(const char *t)
{
	return strstr(t, "{port}") || strstr(t, "{port.") || strstr(t, "{slot}");
}

static bool names_place(const struct bt_hook *h)
{
	bool placed = false;
	for (size_t i = 0; i < h->exec.n_run; i++)
		placed = placed || is_placed(h->exec.run[i]);
	for (size_t i = 0; i < h->exec.n_env; i++)
		placed = placed || is_placed(h->exec.env[i].value);
	return placed;
}

static void check_hook(struct bt_reading *r, const char *path, const struct bt_node *at,
	enum bt_hook_when when, const struct bt_hook *h)
{
	const struct bt_service *s = r->service;
	bool known = h->on != BT_ON_HOST;
	if (h->on == BT_ON_BALANCER)
		bt_problem(r->sink, at,
			"%s: on: balancer is for stages `once` of a flow: the release is on the "
			"service's own hosts",
			path);
	for (size_t i = 0; i < s->n_hosts && !known; i++)
		known = bt_streq(s->hosts[i], h->host);
	if (!known)
		bt_problem(r->sink, at,
			"%s: on: expected once, each host, each instance or one of the service's "
			"hosts, found '%s'",
			path, h->host);
	if (when == BT_HOOK_ON_FAILURE && h->kind == BT_TASK_APPROVE)
		bt_problem(r->sink, at, "%s: Approve: nobody is asked once a run has failed", path);
	else if (when == BT_HOOK_ON_FAILURE && h->kind != BT_TASK_EXEC &&
		 h->kind != BT_TASK_NOTIFY && h->kind != BT_TASK_WAIT)
		bt_problem(r->sink, at,
			"%s: %s: once a run has failed nothing is changed any more: expected Exec "
			"or Notify",
			path, bt_task_info(h->kind)->name);
	bool told = h->kind != BT_TASK_NOTIFY || !h->to;
	for (size_t i = 0; i < s->n_notify && !told; i++)
		told = bt_streq(s->notify[i].name, h->to);
	if (!told)
		bt_problem(
			r->sink, at, "%s: Notify: nobody is called '%s' in `notify`", path, h->to);
	if (when == BT_HOOK_BEFORE_SWITCH || when == BT_HOOK_AFTER_SWITCH)
		return;
	if (h->on == BT_ON_EACH_INSTANCE)
		bt_problem(r->sink, at,
			"%s: on: each instance: there are new instances in before_switch and "
			"after_switch only",
			path);
	else if (names_place(h))
		bt_problem(r->sink, at,
			"%s: {port} and {slot}: there are new instances in before_switch and "
			"after_switch only",
			path);
}

void bt_config_check_hooks(struct bt_reading *r)
{
	for (int w = 0; w < BT_HOOK_WHENS; w++) {
		char path[64];
		snprintf(path, sizeof path, "deploy.hooks.%s", bt_enum_name(&bt_enum_hook_when, w));
		const struct bt_node *at = bt_reading_at(r, path);
		const struct bt_hooks *hooks = &r->service->deploy.hooks[w];
		/* Entries that were told of already are missing from the list. */
		for (size_t i = 0; at && at->n == hooks->n && i < hooks->n; i++)
			check_hook(r, path, at->items[i], (enum bt_hook_when)w, &hooks->list[i]);
	}
}
