/* docs/flows.md, from the table of tasks and the flows that come with baton. */
#include "cli/flow.h"
#include "plan/flows.h"

static const char head[] =
	"# Flows\n\n"
	"A flow is stages in order; a stage is lanes side by side, one for each host or instance; "
	"a "
	"lane is tasks in order. baton has the flows of a company's deployment tool by their "
	"names, "
	"and a service has flows of its own in `baton.yaml`:\n\n"
	"```yaml\n"
	"flows:\n"
	"  restartOne: [L4TurnOff, TomcatStop, TomcatStart, L4TurnOn]    # each host in turn\n"
	"  releaseNight:\n"
	"    - {once: [{Exec: {run: [./migrate.sh, --up], on: was1, timeout: 5m}}]}\n"
	"    - per: host                        # a lane per host; two at a time, at least two in "
	"rotation\n"
	"      batch: 2\n"
	"      min_in_rotation: 2\n"
	"      tasks: [L4TurnOff, LoopbackStop, TomcatStop, ComponentDeploy, TomcatStart, "
	"LoopbackStart, L4TurnOn]\n"
	"    - {once: [{Approve: {within: 30m}}, {Notify: {to: ops}}]}\n"
	"```\n\n"
	"```\n"
	"baton flows                                  # all of them; --tasks: what they are made "
	"of\n"
	"baton flows show deployAndTomcatRestart\n"
	"baton plan shop --flow turnOffL4 --hosts was1   # every step, before anything is touched\n"
	"baton run turnOffL4 --service shop --hosts was1\n"
	"baton run deployAndTomcatRestartWithL4Control --service shop --hosts was1,was2 -a "
	"shop.war -v 1.4.2\n"
	"```\n\n"
	"A flow with `ComponentDeploy` in it deploys: it wants a version and an artifact, which "
	"are on "
	"all chosen hosts before the first of them is taken out. Any other flow works on what is "
	"live, and leaves it so. A run that fails puts the hosts that it changed back as they "
	"were; a "
	"host that was out before stays out.\n\n"
	"**A stage** has `per` (`host`, `instance`; `once` is written `{once: [...]}`), `tasks`, "
	"and "
	"if need be `name`, `batch` (lanes at a time, or a share; default: deploy.batch), "
	"`min_in_rotation` (default: deploy.min_in_rotation, else 1) and `on_failure` (default: "
	"deploy.on_failure). A list of tasks alone is one stage per host.\n\n"
	"**What is refused**, before anything happens, with the stage's name: to leave fewer in "
	"rotation than have to stay, and never nobody (unless `min_in_rotation: 0` says so); to "
	"stop "
	"an instance or to take the address off the loopback while it is in rotation; to put into "
	"rotation what does not run.\n\n"
	"`Approve` and `Wait` are the server's own: no host is asked. `Exec` in a stage `once` "
	"runs on "
	"the first chosen host, or where `on` says: a host, or `balancer`.\n\n";

static void scope_words(const struct bt_task_info *t, struct bt_str *out)
{
	static const struct {
		enum bt_task_scope scope;
		const char *word;
	} words[] = {
		{BT_SCOPE_HOST, "host"}, {BT_SCOPE_INSTANCE, "instance"}, {BT_SCOPE_ONCE, "once"}};
	bool any = false;
	for (size_t i = 0; i < BT_ARRAY_LEN(words); i++)
		if (t->scope & words[i].scope) {
			bt_str_addf(out, "%s%s", any ? ", " : "", words[i].word);
			any = true;
		}
}

static void repeat_words(const struct bt_task_info *t, struct bt_str *out)
{
	bt_str_add(out, t->repeat == BT_REPEAT_SAFE    ? "is done again"
			: t->repeat == BT_REPEAT_PROBE ? "asks first"
						       : "asks a person");
}

static const char *kind_of(enum bt_param_type type)
{
	static const char *const kinds[] = {
		[BT_PARAM_ARGV] = "command",
		[BT_PARAM_DURATION] = "duration",
		[BT_PARAM_TEXT] = "text",
		[BT_PARAM_NAME] = "name",
		[BT_PARAM_MAP] = "map",
		[BT_PARAM_WHERE] = "where",
		[BT_PARAM_REPEAT] = "`safe`, `never`",
		[BT_PARAM_WAY] = "`in`, `out`",
	};
	return kinds[type];
}

static void tasks(struct bt_str *out)
{
	bt_str_add(out,
		"## Tasks\n\n"
		"The names with `Task` at the end are taken everywhere, too. *After a crash*: what "
		"happens to a task that was begun and whose end nobody saw.\n\n"
		"| task | also | stands in stages per | does | undo | after a crash | time limit "
		"|\n"
		"| --- | --- | --- | --- | --- | --- | --- |\n");
	for (int k = 0; k < BT_TASK_NAMES; k++) {
		const struct bt_task_info *t = bt_task_info((enum bt_task_kind)k);
		char limit[32];
		if (t->scope == BT_SCOPE_NONE)
			continue;
		bt_str_addf(out, "| `%s` | `%s` | ", t->name, t->alias);
		scope_words(t, out);
		bt_str_addf(out, " | %s%s%s | %s | ", t->summary, t->does ? " It " : "",
			t->does ? t->does : "", t->undoes ? t->undoes : "");
		repeat_words(t, out);
		bt_str_addf(out, "%s%s | %s |\n", t->asks ? ": " : "", t->asks ? t->asks : "",
			t->timeout_ms ? bt_duration_format(t->timeout_ms, limit) : "");
	}
}

static void params(struct bt_str *out)
{
	bt_str_add(out, "\n## Parameters\n\n"
			"| task | parameter | type | meaning | example |\n"
			"| --- | --- | --- | --- | --- |\n");
	for (int k = 0; k < BT_TASK_NAMES; k++) {
		const struct bt_task_info *t = bt_task_info((enum bt_task_kind)k);
		for (size_t i = 0; i < t->n_params; i++)
			bt_str_addf(out, "| `%s` | `%s`%s | %s | %s | `%s` |\n", t->name,
				t->params[i].name, t->params[i].required ? " (required)" : "",
				kind_of(t->params[i].type), t->params[i].doc, t->params[i].example);
	}
}

static void flows(struct bt_str *out)
{
	bt_str_add(out, "\n## Flows that come with baton\n\n| flow | what | tasks |\n"
			"| --- | --- | --- |\n");
	for (size_t i = 0; i < bt_n_flows_built_in; i++) {
		const struct bt_flow *f = &bt_flows_built_in[i];
		bt_str_addf(out, "| `%s` | %s | ", f->name, f->doc);
		for (size_t s = 0; s < f->n_stages; s++)
			for (size_t t = 0; t < f->stages[s].n_tasks; t++)
				bt_str_addf(out, "%s%s", t ? ", " : "",
					bt_task_info(f->stages[s].tasks[t].kind)->name);
		bt_str_add(out, " |\n");
	}
	bt_str_add(out,
		"\nThe strategies are seen as flows, too (`baton plan --flow rolling`): their "
		"stages are made from what is there.\n\n| strategy | what | stages |\n"
		"| --- | --- | --- |\n");
	for (size_t i = 0; i < bt_n_flows_strategies; i++) {
		const struct bt_flow_strategy *s = &bt_flows_strategies[i];
		bt_str_addf(out, "| `%s` | %s | ",
			bt_enum_name(&bt_enum_strategy, (int)s->strategy), s->doc);
		for (size_t k = 0; s->stages[k]; k++)
			bt_str_addf(out, "%s%s", k ? "; " : "", s->stages[k]);
		bt_str_add(out, " |\n");
	}
}

void bt_flows_markdown(struct bt_str *out)
{
	bt_str_add(out, head);
	tasks(out);
	params(out);
	flows(out);
}
