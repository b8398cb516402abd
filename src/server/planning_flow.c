/* A wish for a flow: which one it is, on whom, and with which release. A flow that deploys wants a
 * version and an artifact like every deployment; any other works on the live release and changes
 * neither it nor the stored config. */
#include "server/planning_wish.h"

#include "plan/flows.h"

#include <string.h>

/* Up to so many names, each once. */
enum { MAX_NAMES = 4096 };

static int read_names(const json_t *body, const char *key, json_t **ret, struct bt_err *err)
{
	json_t *list = json_object_get(body, key), *name;
	size_t i;
	if (!list)
		return 0;
	if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > MAX_NAMES)
		return bt_err_set(err, BT_E_PROTOCOL,
			"%s: expected a list of 1 to %d names; without the list, all are meant",
			key, MAX_NAMES);
	json_array_foreach (list, i, name)
		if (!json_is_string(name) || !bt_name_valid(json_string_value(name)))
			return bt_err_set(err, BT_E_PROTOCOL,
				"%s: entry %zu is no name of letters, digits, '.', '_' and '-'",
				key, i);
	*ret = json_incref(list);
	return 0;
}

int bt_wish_read_flow(struct bt_wish *w, const json_t *body, struct bt_err *err)
{
	int strategy;
	int r = bt_json_str_opt(body, "flow", &w->flow_name, err);
	if (r < 0 || !w->flow_name)
		return r;
	w->by_strategy = bt_enum_parse(&bt_enum_strategy, w->flow_name, &strategy, NULL) == 0;
	r = read_names(body, "hosts", &w->only_hosts, err);
	if (r == 0)
		r = read_names(body, "instances", &w->only_slots, err);
	if (r == 0 && w->by_strategy && (w->only_hosts || w->only_slots))
		r = bt_err_set(err, BT_E_CONFIG,
			"%s is a strategy, which is for all hosts of the service: hosts and "
			"instances go with a flow",
			w->flow_name);
	if (r == 0 && !w->by_strategy)
		w->make = bt_plan_flow;
	return r;
}

void bt_wish_use_strategy(struct bt_wish *w)
{
	json_t *config = json_deep_copy(w->given), *deploy = json_object_get(config, "deploy");
	if (!deploy) {
		deploy = json_object();
		json_object_set_new(config, "deploy", deploy);
	}
	json_object_set_new(deploy, "strategy", json_string(w->flow_name));
	json_decref(w->given);
	w->given = config;
}

int bt_wish_find_flow(struct bt_wish *w, struct bt_err *err)
{
	const char *near = NULL;
	const struct bt_service *s = &w->config->services[0];
	w->flow = w->task ? &w->task->flow : bt_flow_find(s, w->flow_name, &near);
	if (w->flow)
		return 0;
	return bt_flow_unknown(s, w->flow_name, near, err);
}

bool bt_wish_on_live(const struct bt_wish *w)
{
	return w->flow && !bt_flow_deploys(w->flow);
}

int bt_wish_take_live(struct bt_wish *w, struct bt_err *err)
{
	const char *service = w->config->services[0].name;
	const struct bt_svc *svc = bt_server_service(w->server, service);
	if (!svc || !svc->live)
		return bt_err_set(err, BT_E_NOTFOUND,
			"%s has no live release, and %s brings none: deploy one first (or `baton "
			"adopt` what runs)",
			service, w->flow->name);
	struct bt_release *live = NULL;
	int r = bt_release_load(w->server, svc->live, &live, err);
	if (r < 0)
		return r;
	bt_release_free(w->release);
	w->release = live;
	json_decref(live->config);
	live->config = json_incref(w->given);
	return 0;
}

static size_t strings(struct bt_arena *a, const json_t *list, const char *const **ret)
{
	const char **out = BT_ARENA_ARRAY(a, const char *, json_array_size(list));
	for (size_t i = 0; i < json_array_size(list); i++)
		out[i] = json_string_value(json_array_get(list, i));
	*ret = out;
	return json_array_size(list);
}

void bt_wish_fill_flow(const struct bt_wish *w, struct bt_arena *a, struct bt_plan_request *rq)
{
	rq->flow = w->flow;
	rq->n_hosts = strings(a, w->only_hosts, &rq->hosts);
	rq->n_slots = strings(a, w->only_slots, &rq->slots);
}
