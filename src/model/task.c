#include "model/task.h"

#include "base/str.h"
#include "model/service.h"

#include <assert.h>

#define SECOND INT64_C(1000)
#define DAY (86400 * SECOND)
#define AT(member) .offset = offsetof(struct bt_hook, member)
#define WITH(member) .count = offsetof(struct bt_hook, member)
#define PARAMS(list) .params = list, .n_params = BT_ARRAY_LEN(list)

static const struct bt_task_param drain_params[] = {
	{.name = "drain",
		.type = BT_PARAM_DURATION,
		AT(within_ms),
		.max = DAY,
		.doc = "Longest wait for connections that are left; else deploy.drain.",
		.example = "30s"},
};
static const struct bt_task_param switch_params[] = {
	{.name = "to",
		.type = BT_PARAM_WAY,
		AT(out),
		.required = true,
		.doc = "`in` or `out` of rotation.",
		.example = "in"},
};
static const struct bt_task_param exec_params[] = {
	{.name = "run",
		.type = BT_PARAM_ARGV,
		AT(exec.run),
		WITH(exec.n_run),
		.required = true,
		.doc = "Program and arguments; a script begins with `#!`. No shell is involved. It "
		       "leaves nothing running: what does not hold its output is ended with it, "
		       "what holds it makes it fail.",
		.example = "[./migrate.sh, --up]"},
	{.name = "on",
		.type = BT_PARAM_WHERE,
		AT(on),
		WITH(host),
		.doc = "Where it runs: a host's name, or `balancer`; in hooks also `once`, `each "
		       "host`, `each instance`.",
		.example = "was1"},
	{.name = "timeout",
		.type = BT_PARAM_DURATION,
		AT(timeout_ms),
		.min = 100,
		.max = DAY,
		.doc = "After this it is ended: TERM, then KILL.",
		.example = "5m"},
	{.name = "env",
		.type = BT_PARAM_MAP,
		AT(exec.env),
		WITH(exec.n_env),
		.doc = "Environment besides run.env and the secrets.",
		.example = "{MODE: up}"},
	{.name = "repeat",
		.type = BT_PARAM_REPEAT,
		AT(exec.safe),
		.doc = "`safe`: may be run again when nobody knows how it ended; else a person is "
		       "asked.",
		.example = "safe"},
};
static const struct bt_task_param wait_params[] = {
	{.name = "for",
		.type = BT_PARAM_DURATION,
		AT(within_ms),
		.required = true,
		.min = 1,
		.max = DAY,
		.doc = "How long.",
		.example = "10s"},
};
static const struct bt_task_param approve_params[] = {
	{.name = "within",
		.type = BT_PARAM_DURATION,
		AT(within_ms),
		.required = true,
		.min = SECOND,
		.max = 30 * DAY,
		.doc = "How long the run waits for it; then it fails.",
		.example = "30m"},
};
static const struct bt_task_param notify_params[] = {
	{.name = "to",
		.type = BT_PARAM_NAME,
		AT(to),
		.required = true,
		.doc = "A name of `notify`.",
		.example = "ops"},
	{.name = "message",
		.type = BT_PARAM_TEXT,
		AT(message),
		.doc = "What it says; else what the run does.",
		.example = "shop is out"},
};

static const struct bt_task_info table[BT_TASK_NAMES] = {
	[BT_TASK_OBSERVE] = {BT_TASK_OBSERVE, "Observe", "ObserveTask", BT_REPEAT_SAFE, false,
		false, false, 20000,
		"Report what runs on the host and where its balancers send traffic.",
		.scope = BT_SCOPE_NONE},
	[BT_TASK_COMPONENT_DEPLOY] = {BT_TASK_COMPONENT_DEPLOY, "ComponentDeploy",
		"ComponentDeployTask", BT_REPEAT_PROBE, true, false, true, 900000,
		"Fetch a release to the host, check its digest and unpack it beside the running "
		"one.",
		.scope = BT_SCOPE_PLACE,
		.does = "fetches what is missing, checks the digest, unpacks aside, renames",
		.undoes = "removes the release, unless it was there before",
		.asks = "whether it is there"},
	[BT_TASK_INSTANCE_START] = {BT_TASK_INSTANCE_START, "InstanceStart", "InstanceStartTask",
		BT_REPEAT_PROBE, true, false, true, 60000, "Start a release in a slot.",
		.scope = BT_SCOPE_PLACE, .does = "starts it under its supervisor",
		.undoes = "stops it, or starts what ran before",
		.asks = "whether it runs with that release"},
	[BT_TASK_INSTANCE_STOP] = {BT_TASK_INSTANCE_STOP, "InstanceStop", "InstanceStopTask",
		BT_REPEAT_PROBE, true, false, true, 300000,
		"Run the stop sequence of a slot until its processes are gone and its port is "
		"free.",
		.scope = BT_SCOPE_PLACE, .does = "runs run.stop to its end",
		.undoes = "starts what ran before and waits until it is healthy",
		.asks = "whether it is gone and its port free"},
	[BT_TASK_HEALTH_CHECK] = {BT_TASK_HEALTH_CHECK, "HealthCheck", "HealthCheckTask",
		BT_REPEAT_SAFE, false, false, false, 600000,
		"Wait until an instance is healthy, asked on its own host.",
		.scope = BT_SCOPE_PLACE, .does = "asks as `health` says, until it passes"},
	[BT_TASK_BACKEND_CHECK] = {BT_TASK_BACKEND_CHECK, "BackendCheck", "BackendCheckTask",
		BT_REPEAT_SAFE, false, false, false, 60000,
		"Check new instances from the balancer's host, at the address the balancer will "
		"use.",
		.scope = BT_SCOPE_NONE},
	[BT_TASK_SWITCH] = {BT_TASK_SWITCH, "Switch", "SwitchTask", BT_REPEAT_PROBE, true, false,
		true, 60000, "Give a balancer a new pool and see it confirmed there.",
		.scope = BT_SCOPE_PLACE, PARAMS(switch_params),
		.does = "changes the pool, and sees it there", .undoes = "the pool of before",
		.asks = "which pool is there"},
	[BT_TASK_DRAIN] = {BT_TASK_DRAIN, "Drain", "DrainTask", BT_REPEAT_SAFE, false, true, false,
		30000,
		"Wait until no connection to an instance is left, or its drain time has passed.",
		.scope = BT_SCOPE_PLACE, PARAMS(drain_params),
		.does = "counts connections until there are none"},
	[BT_TASK_BAKE] = {BT_TASK_BAKE, "Bake", "BakeTask", BT_REPEAT_SAFE, false, true, false,
		30000, "Watch health and the balancer's answers for a while after a cutover.",
		.scope = BT_SCOPE_NONE},
	[BT_TASK_PRUNE] = {BT_TASK_PRUNE, "Prune", "PruneTask", BT_REPEAT_SAFE, false, false, true,
		120000, "Remove releases that are no longer kept from the host.",
		.scope = BT_SCOPE_NONE},
	[BT_TASK_ADOPT] = {BT_TASK_ADOPT, "Adopt", "AdoptTask", BT_REPEAT_PROBE, true, false, true,
		300000,
		"Record the process that listens on a slot's port, and that others started, as "
		"the slot's instance; it is left as it is.",
		.scope = BT_SCOPE_NONE},
	[BT_TASK_EXEC] = {BT_TASK_EXEC, "Exec", "ExecTask", BT_REPEAT_NEVER, false, false, true,
		300000,
		"Run a program in the release's directory on a host; exit code 0 is good. It is "
		"never repeated by itself, unless it says `repeat: safe`.",
		.scope = BT_SCOPE_ANY, PARAMS(exec_params),
		.does = "runs the program under a supervisor of its own",
		.asks = "how it ended; where nobody knows, a person"},
	[BT_TASK_APPROVE] = {BT_TASK_APPROVE, "Approve", "ApproveTask", BT_REPEAT_SAFE, false, true,
		false, 0, "Wait until a person approves (baton approve) or rejects.",
		.scope = BT_SCOPE_ONCE, PARAMS(approve_params),
		.does = "asks, and goes on at `baton approve`"},
	[BT_TASK_LOOPBACK_STOP] = {BT_TASK_LOOPBACK_STOP, "LoopbackStop", "LoopbackStopTask",
		BT_REPEAT_PROBE, true, false, true, 30000,
		"Take the service's address off the host's loopback, once nothing is connected to "
		"it any more.",
		.scope = BT_SCOPE_HOST, .does = "removes the address, and sees it gone",
		.undoes = "puts it back, if it was there", .asks = "whether it is there"},
	[BT_TASK_LOOPBACK_START] = {BT_TASK_LOOPBACK_START, "LoopbackStart", "LoopbackStartTask",
		BT_REPEAT_PROBE, true, false, true, 30000,
		"Put the service's address on the host's loopback, with arp_ignore and "
		"arp_announce "
		"as direct server return needs them.",
		.scope = BT_SCOPE_HOST,
		.does = "adds the address and sets what ARP needs, and sees both",
		.undoes = "removes it, if it was not there", .asks = "whether it is there"},
	[BT_TASK_WAIT] = {BT_TASK_WAIT, "Wait", "WaitTask", BT_REPEAT_SAFE, false, true, false, 0,
		"Let time pass.", .scope = BT_SCOPE_ANY, PARAMS(wait_params),
		.does = "waits; nothing is asked of a host"},
	[BT_TASK_NOTIFY] = {BT_TASK_NOTIFY, "Notify", "NotifyTask", BT_REPEAT_NEVER, false, false,
		true, 30000,
		"Tell somebody outside by HTTP: JSON of baton's own, or a text that Slack takes.",
		.scope = BT_SCOPE_ONCE, PARAMS(notify_params),
		.does = "sends one POST, from an agent; an answer of 2xx is good",
		.asks = "nobody can tell: a person, where it is not known whether it was sent"},
	[BT_TASK_LIFECYCLE] = {BT_TASK_LIFECYCLE, "Lifecycle", "LifecycleTask", BT_REPEAT_NEVER,
		false, false, true, 3600000,
		"Run the scripts that a CodeDeploy bundle has for an event.",
		.scope = BT_SCOPE_NONE},
	[BT_TASK_INSTALL] = {BT_TASK_INSTALL, "Install", "InstallTask", BT_REPEAT_SAFE, false,
		false, true, 900000,
		"Put a CodeDeploy bundle's files where its appspec says, without what the last "
		"one put there.",
		.scope = BT_SCOPE_NONE},
	[BT_TASK_L4_TURN_OFF] = {BT_TASK_L4_TURN_OFF, "L4TurnOff", "L4TurnOffTask", BT_REPEAT_PROBE,
		true, false, true, 0,
		"Take a host out of the balancer: no new connections, then wait until those it has "
		"are gone or the drain time has passed.",
		.scope = BT_SCOPE_PLACE, PARAMS(drain_params), .does = "is Switch out, then Drain",
		.undoes = "the pool of before", .asks = "which pool is there"},
	[BT_TASK_L4_TURN_ON] = {BT_TASK_L4_TURN_ON, "L4TurnOn", "L4TurnOnTask", BT_REPEAT_PROBE,
		true, false, true, 0, "Put a host back into the balancer, and see it in.",
		.scope = BT_SCOPE_PLACE,
		.does = "is BackendCheck from the balancer, then Switch in",
		.undoes = "the pool of before", .asks = "which pool is there"},
	[BT_TASK_TOMCAT_STOP] = {BT_TASK_TOMCAT_STOP, "TomcatStop", "TomcatStopTask",
		BT_REPEAT_PROBE, true, false, true, 0,
		"Stop the host's Tomcat instances until they are gone and their ports free.",
		.scope = BT_SCOPE_PLACE, .does = "is InstanceStop",
		.undoes = "starts what ran before and waits until it is healthy",
		.asks = "whether it is gone and its port free"},
	[BT_TASK_TOMCAT_START] = {BT_TASK_TOMCAT_START, "TomcatStart", "TomcatStartTask",
		BT_REPEAT_PROBE, true, false, true, 0,
		"Start the host's Tomcat instances with the release and wait until they are "
		"healthy.",
		.scope = BT_SCOPE_PLACE, .does = "is InstanceStart, then HealthCheck",
		.undoes = "stops it, or starts what ran before",
		.asks = "whether it runs with that release"},
};

const struct bt_task_info *bt_task_info(enum bt_task_kind kind)
{
	assert(kind >= 0 && kind < BT_TASK_NAMES);
	return &table[kind];
}

static const struct bt_task_info *find(const char *name_or_alias, int n)
{
	for (int i = 0; i < n; i++)
		if (bt_streq(table[i].name, name_or_alias) ||
			bt_streq(table[i].alias, name_or_alias))
			return &table[i];
	return NULL;
}

const struct bt_task_info *bt_task_find(const char *name_or_alias)
{
	return find(name_or_alias, BT_TASK_KINDS);
}

const struct bt_task_info *bt_task_find_in_flow(const char *name_or_alias, const char **ret_near)
{
	const struct bt_task_info *t = find(name_or_alias, BT_TASK_NAMES);
	const char *names[2 * BT_TASK_NAMES];
	size_t n = 0;
	*ret_near = NULL;
	if (t && t->scope != BT_SCOPE_NONE)
		return t;
	for (int i = 0; i < BT_TASK_NAMES; i++)
		if (table[i].scope != BT_SCOPE_NONE) {
			names[n++] = table[i].name;
			names[n++] = table[i].alias;
		}
	*ret_near = bt_nearest(name_or_alias, names, n);
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
