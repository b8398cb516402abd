#include "plan/flows.h"

#include "base/mem.h"
#include "base/str.h"

#define TASK(k)                                                                                    \
	{                                                                                          \
		.kind = BT_TASK_##k, .within_ms = -1                                               \
	}
#define STAGE(how, list)                                                                           \
	{                                                                                          \
		.per = (how), .min_in_rotation = -1, .on_failure = -1, .tasks = (list),            \
		.n_tasks = BT_ARRAY_LEN(list)                                                      \
	}

static const struct bt_hook turn_off[] = {TASK(L4_TURN_OFF)};
static const struct bt_hook turn_on[] = {TASK(L4_TURN_ON)};
static const struct bt_hook restart[] = {TASK(TOMCAT_STOP), TASK(TOMCAT_START)};
static const struct bt_hook deploy[] = {
	TASK(TOMCAT_STOP), TASK(COMPONENT_DEPLOY), TASK(TOMCAT_START)};
static const struct bt_hook controlled[] = {TASK(L4_TURN_OFF), TASK(LOOPBACK_STOP),
	TASK(TOMCAT_STOP), TASK(COMPONENT_DEPLOY), TASK(TOMCAT_START), TASK(LOOPBACK_START),
	TASK(L4_TURN_ON)};
static const struct bt_hook each_instance[] = {TASK(L4_TURN_OFF), TASK(TOMCAT_STOP),
	TASK(COMPONENT_DEPLOY), TASK(TOMCAT_START), TASK(HEALTH_CHECK), TASK(L4_TURN_ON)};

static const struct bt_flow_stage per_host_deploy[] = {STAGE(BT_PER_HOST, deploy)};
static const struct bt_flow_stage per_host_restart[] = {STAGE(BT_PER_HOST, restart)};
static const struct bt_flow_stage per_host_off[] = {STAGE(BT_PER_HOST, turn_off)};
static const struct bt_flow_stage per_host_on[] = {STAGE(BT_PER_HOST, turn_on)};
static const struct bt_flow_stage per_host_controlled[] = {STAGE(BT_PER_HOST, controlled)};
static const struct bt_flow_stage per_instance[] = {STAGE(BT_PER_INSTANCE, each_instance)};

const struct bt_flow bt_flows_built_in[] = {
	{"deployAndTomcatRestart",
		"Stop each host's Tomcat, deploy, start it: for hosts that get no requests, or "
		"without a balancer.",
		per_host_deploy, 1},
	{"tomcatRestart", "Stop and start each host's Tomcat with the release that it has.",
		per_host_restart, 1},
	{"turnOffL4", "Take hosts out of the balancer, and wait for their connections.",
		per_host_off, 1},
	{"turnOnL4", "Put hosts back into the balancer.", per_host_on, 1},
	{"deployAndTomcatRestartWithL4Control",
		"Host by host: out of the balancer, off the loopback, stop, deploy, start, and "
		"back.",
		per_host_controlled, 1},
	{"multiInstanceDeployToReleaseWithL4Control",
		"Instance by instance: out of its pools, stop, deploy, start, check, and back.",
		per_instance, 1},
};
const size_t bt_n_flows_built_in = BT_ARRAY_LEN(bt_flows_built_in);

static const char *const blue_green[] = {"prepare: the release on every host",
	"start: in the idle slot", "check: from the balancer", "cutover: one switch",
	"bake: watch it", "drain: the old slot", "retire: stop it", "prune: old releases", NULL};
static const char *const rolling[] = {"prepare: the release on every host",
	"batch 1 … N: out, drained, stopped, started, healthy, back in; a bake after each",
	"prune: old releases", NULL};
static const char *const canary[] = {"prepare: the release on every host",
	"canary: a few instances first, as in a batch", "bake: watch them",
	"batch 1 … N: the others", "bake: watch them, too", "prune: old releases", NULL};
static const char *const recreate[] = {"prepare: the release on every host",
	"take out, drain, retire: all of them", "start: all of them", "check, cutover, bake",
	"prune: old releases", NULL};

const struct bt_flow_strategy bt_flows_strategies[] = {
	{BT_STRATEGY_BLUE_GREEN, "The new release in the idle slot, then one switch.", blue_green},
	{BT_STRATEGY_ROLLING, "Instance by instance.", rolling},
	{BT_STRATEGY_CANARY, "A few first, watched; then the others.", canary},
	{BT_STRATEGY_RECREATE, "All down, then all up; requests fail meanwhile.", recreate},
};
const size_t bt_n_flows_strategies = BT_ARRAY_LEN(bt_flows_strategies);

static const struct bt_flow *find(const struct bt_flow *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (bt_streq(list[i].name, name))
			return &list[i];
	return NULL;
}

const struct bt_flow *bt_flow_find(
	const struct bt_service *service, const char *name, const char **ret_near)
{
	const char *names[BT_FLOWS_MAX + BT_ARRAY_LEN(bt_flows_built_in)];
	size_t n = 0;
	const struct bt_flow *f = service ? find(service->flows, service->n_flows, name) : NULL;
	if (!f)
		f = find(bt_flows_built_in, bt_n_flows_built_in, name);
	*ret_near = NULL;
	if (f)
		return f;
	for (size_t i = 0; service && i < service->n_flows; i++)
		names[n++] = service->flows[i].name;
	for (size_t i = 0; i < bt_n_flows_built_in; i++)
		names[n++] = bt_flows_built_in[i].name;
	*ret_near = bt_nearest(name, names, n);
	return NULL;
}

bool bt_flow_deploys(const struct bt_flow *f)
{
	for (size_t i = 0; i < f->n_stages; i++)
		for (size_t k = 0; k < f->stages[i].n_tasks; k++)
			if (f->stages[i].tasks[k].kind == BT_TASK_COMPONENT_DEPLOY)
				return true;
	return false;
}

int bt_flow_unknown(
	const struct bt_service *service, const char *name, const char *near, struct bt_err *err)
{
	const char *other;
	const struct bt_task_info *task = bt_task_find_in_flow(name, &other);
	if (task)
		return bt_err_set(err, BT_E_CONFIG,
			"'%s' is a task, and no flow: expected a flow such as turnOffL4, or one of "
			"your own with %s in it (`baton flows` lists them)",
			name, task->name);
	return bt_err_set(err, BT_E_CONFIG,
		"no flow '%.80s'%s%s%s among those of baton%s%s%s: `baton flows` lists them", name,
		service ? " in the config of " : "", service ? service->name : "",
		service ? ", nor" : "", near ? " (did you mean '" : "", near ? near : "",
		near ? "'?)" : "");
}
