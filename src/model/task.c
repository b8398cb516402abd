#include "model/task.h"

#include "base/str.h"

#include <assert.h>

static const struct bt_task_info table[BT_TASK_KINDS] = {
	[BT_TASK_OBSERVE] = {BT_TASK_OBSERVE, "Observe", "ObserveTask", BT_REPEAT_SAFE, false,
		false, false, 20000,
		"Report what runs on the host and where its balancers send traffic."},
	[BT_TASK_COMPONENT_DEPLOY] = {BT_TASK_COMPONENT_DEPLOY, "ComponentDeploy",
		"ComponentDeployTask", BT_REPEAT_PROBE, true, false, true, 900000,
		"Fetch a release to the host, check its digest and unpack it beside the running "
		"one."},
	[BT_TASK_INSTANCE_START] = {BT_TASK_INSTANCE_START, "InstanceStart", "InstanceStartTask",
		BT_REPEAT_PROBE, true, false, true, 60000, "Start a release in a slot."},
	[BT_TASK_INSTANCE_STOP] = {BT_TASK_INSTANCE_STOP, "InstanceStop", "InstanceStopTask",
		BT_REPEAT_PROBE, true, false, true, 300000,
		"Run the stop sequence of a slot until its processes are gone and its port is "
		"free."},
	[BT_TASK_HEALTH_CHECK] = {BT_TASK_HEALTH_CHECK, "HealthCheck", "HealthCheckTask",
		BT_REPEAT_SAFE, false, false, false, 600000,
		"Wait until an instance is healthy, asked on its own host."},
	[BT_TASK_BACKEND_CHECK] = {BT_TASK_BACKEND_CHECK, "BackendCheck", "BackendCheckTask",
		BT_REPEAT_SAFE, false, false, false, 60000,
		"Check new instances from the balancer's host, at the address the balancer will "
		"use."},
	[BT_TASK_SWITCH] = {BT_TASK_SWITCH, "Switch", "SwitchTask", BT_REPEAT_PROBE, true, false,
		true, 60000, "Give a balancer a new pool and see it confirmed there."},
	[BT_TASK_DRAIN] = {BT_TASK_DRAIN, "Drain", "DrainTask", BT_REPEAT_SAFE, false, true, false,
		30000,
		"Wait until no connection to an instance is left, or its drain time has passed."},
	[BT_TASK_BAKE] = {BT_TASK_BAKE, "Bake", "BakeTask", BT_REPEAT_SAFE, false, true, false,
		30000, "Watch health and the balancer's answers for a while after a cutover."},
	[BT_TASK_PRUNE] = {BT_TASK_PRUNE, "Prune", "PruneTask", BT_REPEAT_SAFE, false, false, true,
		120000, "Remove releases that are no longer kept from the host."},
	[BT_TASK_ADOPT] = {BT_TASK_ADOPT, "Adopt", "AdoptTask", BT_REPEAT_PROBE, true, false, true,
		300000,
		"Record the process that listens on a slot's port, and that others started, as "
		"the slot's instance; it is left as it is."},
	[BT_TASK_EXEC] = {BT_TASK_EXEC, "Exec", "ExecTask", BT_REPEAT_NEVER, false, false, true,
		300000,
		"Run a program in the release's directory on a host; exit code 0 is good. It is "
		"never repeated by itself, unless it says `repeat: safe`."},
	[BT_TASK_APPROVE] = {BT_TASK_APPROVE, "Approve", "ApproveTask", BT_REPEAT_SAFE, false, true,
		false, 0, "Wait until a person approves (baton approve) or rejects."},
};

const struct bt_task_info *bt_task_info(enum bt_task_kind kind)
{
	assert(kind >= 0 && kind < BT_TASK_KINDS);
	return &table[kind];
}

const struct bt_task_info *bt_task_find(const char *name_or_alias)
{
	for (int i = 0; i < BT_TASK_KINDS; i++)
		if (bt_streq(table[i].name, name_or_alias) ||
			bt_streq(table[i].alias, name_or_alias))
			return &table[i];
	return NULL;
}

const char *bt_verb_name(enum bt_verb verb)
{
	return verb == BT_UNDO ? "undo" : "do";
}

int bt_verb_parse(const char *text, enum bt_verb *ret, struct bt_err *err)
{
	if (bt_streq(text, "do"))
		*ret = BT_DO;
	else if (bt_streq(text, "undo"))
		*ret = BT_UNDO;
	else
		return bt_err_set(err, BT_E_PROTOCOL, "expected 'do' or 'undo', found '%s'", text);
	return 0;
}
