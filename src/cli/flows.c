/* baton flows: which flows there are, what each one does, and the tasks that they are written with.
 * The service's own come from the config at hand, else from the server's; the rest is in here. */
#include "cli/client.h"
#include "cli/files.h"
#include "cli/flow.h"
#include "cli/stored.h"
#include "cli/table.h"
#include "plan/flows.h"

#include <stdio.h>
#include <string.h>

/* What a build server's empty variable leaves is not "all of them". */
static int put_names(const struct bt_cli *cli, const char *option, json_t *body, struct bt_err *err)
{
	BT_JSON json_t *list = json_array();
	bool given = false;
	for (size_t i = 0; i < cli->n_set; i++) {
		if (!bt_streq(cli->set[i].option->name, option))
			continue;
		given = true;
		for (const char *at = cli->set[i].value; *at;) {
			size_t n = strcspn(at, ",");
			if (n)
				json_array_append_new(list, json_stringn(at, n));
			at += n + (at[n] == ',');
		}
	}
	if (given && json_array_size(list) == 0)
		return bt_err_set(err, BT_E_CONFIG,
			"--%s: expected names such as a,b, found nothing; without --%s, all are "
			"meant",
			option, option);
	if (given)
		json_object_set(body, option, list);
	return 0;
}

int bt_flow_put(const struct bt_cli *cli, const char *flow, json_t *body, struct bt_err *err)
{
	json_object_set_new(body, "flow", json_string(flow));
	int r = put_names(cli, "hosts", body, err);
	return r < 0 ? r : put_names(cli, "instances", body, err);
}

int bt_flow_needs_release(
	const struct bt_service *s, const char *name, bool *ret, struct bt_err *err)
{
	const char *near = NULL;
	const struct bt_flow *f = bt_flow_find(s, name, &near);
	if (!f)
		return bt_flow_unknown(s, name, near, err);
	*ret = bt_flow_deploys(f);
	return 0;
}

/* ---- the list ------------------------------------------------------------------------------ */

struct source {
	struct bt_config *config;
	const struct bt_service *service; /* NULL: none is known; the built-in flows are */
};

/* Without a service that is named and without a config at hand, what baton brings is listed. */
static int open_source(struct bt_cli *cli, struct source *s, struct bt_err *err)
{
	BT_CLIENT struct bt_client *client = NULL;
	BT_FREE char *name = bt_files_name(cli);
	int r = 0;
	if (bt_files_at_hand(cli)) {
		r = bt_files_config(cli, &s->config, err);
		if (r == 0 && (name || s->config->n_services == 1))
			r = bt_files_service(cli, s->config, &s->service, err);
		return r;
	}
	if (!name)
		return 0;
	r = bt_client_open(cli, &client, err);
	if (r == 0)
		r = bt_stored_config(client, name, &s->config, NULL, err);
	if (r == 0)
		s->service = &s->config->services[0];
	return r;
}

/* "per host: L4TurnOff, TomcatStop; once: Approve" */
static void stages_of(const struct bt_flow *f, struct bt_str *out)
{
	for (size_t i = 0; i < f->n_stages; i++) {
		const struct bt_flow_stage *s = &f->stages[i];
		bt_str_addf(out, "%s%s%s: ", i ? "; " : "", s->per == BT_PER_ONCE ? "" : "per ",
			bt_enum_name(&bt_enum_flow_per, (int)s->per));
		for (size_t t = 0; t < s->n_tasks; t++)
			bt_str_addf(
				out, "%s%s", t ? ", " : "", bt_task_info(s->tasks[t].kind)->name);
	}
}

static json_t *flow_json(const struct bt_flow *f, const char *from)
{
	return json_pack("{s:s, s:s?, s:s, s:b, s:o}", "name", f->name, "doc", f->doc, "from", from,
		"deploys", (int)bt_flow_deploys(f), "stages", bt_flow_written(f));
}

static json_t *strategy_json(const struct bt_flow_strategy *s)
{
	json_t *stages = json_array();
	for (size_t i = 0; s->stages[i]; i++)
		json_array_append_new(stages, json_string(s->stages[i]));
	return json_pack("{s:s, s:s, s:s, s:b, s:o}", "name",
		bt_enum_name(&bt_enum_strategy, (int)s->strategy), "doc", s->doc, "from",
		"strategy", "deploys", 1, "stages", stages);
}

static void print_json(const struct bt_service *s)
{
	json_t *list = json_array();
	for (size_t i = 0; s && i < s->n_flows; i++)
		json_array_append_new(list, flow_json(&s->flows[i], s->name));
	for (size_t i = 0; i < bt_n_flows_built_in; i++)
		json_array_append_new(list, flow_json(&bt_flows_built_in[i], "baton"));
	for (size_t i = 0; i < bt_n_flows_strategies; i++)
		json_array_append_new(list, strategy_json(&bt_flows_strategies[i]));
	BT_JSON json_t *j = json_pack("{s:o}", "flows", list);
	BT_FREE char *text = json_dumps(j, JSON_INDENT(2));
	puts(text);
}

static void row(struct bt_table *t, const struct bt_flow *f, const char *from)
{
	BT_STR struct bt_str stages = {0};
	stages_of(f, &stages);
	BT_TABLE_ROW(t, f->name, from, bt_str_get(&stages));
}

static void print_table(const struct bt_service *s)
{
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "FLOW", "FROM", "WHAT IT DOES");
	for (size_t i = 0; s && i < s->n_flows; i++)
		row(&t, &s->flows[i], s->name);
	for (size_t i = 0; i < bt_n_flows_built_in; i++)
		row(&t, &bt_flows_built_in[i], "baton");
	for (size_t i = 0; i < bt_n_flows_strategies; i++)
		BT_TABLE_ROW(&t,
			bt_enum_name(&bt_enum_strategy, (int)bt_flows_strategies[i].strategy),
			"strategy", bt_flows_strategies[i].doc);
	bt_table_print(&t);
}

static void print_tasks(void)
{
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "TASK", "ALSO", "PARAMETERS", "WHAT IT DOES");
	for (int k = 0; k < BT_TASK_NAMES; k++) {
		const struct bt_task_info *i = bt_task_info((enum bt_task_kind)k);
		BT_STR struct bt_str params = {0};
		for (size_t p = 0; p < i->n_params; p++)
			bt_str_addf(&params, "%s%s", p ? ", " : "", i->params[p].name);
		if (i->scope != BT_SCOPE_NONE)
			BT_TABLE_ROW(&t, i->name, i->alias, bt_str_get(&params), i->summary);
	}
	bt_table_print(&t);
}

int bt_cmd_flows(struct bt_cli *cli, struct bt_err *err)
{
	struct source s = {0};
	if (bt_cli_has(cli, "markdown")) {
		BT_STR struct bt_str out = {0};
		bt_flows_markdown(&out);
		fputs(bt_str_get(&out), stdout);
		return 0;
	}
	if (bt_cli_has(cli, "tasks")) {
		print_tasks();
		return 0;
	}
	int r = open_source(cli, &s, err);
	if (r == 0 && bt_cli_has(cli, "json"))
		print_json(s.service);
	else if (r == 0)
		print_table(s.service);
	bt_config_free(s.config);
	return r;
}

/* ---- one ----------------------------------------------------------------------------------- */

static void print_flow(const struct bt_flow *f, const char *from)
{
	printf("%s (%s)%s%s\n", f->name, from, f->doc ? ": " : "", f->doc ? f->doc : "");
	for (size_t i = 0; i < f->n_stages; i++) {
		const struct bt_flow_stage *s = &f->stages[i];
		printf("\n%3zu. %s%s%s%s", i + 1, s->name ? s->name : "", s->name ? ", " : "",
			s->per == BT_PER_ONCE ? "" : "per ",
			bt_enum_name(&bt_enum_flow_per, (int)s->per));
		if (s->batch)
			printf(", %lld%s at a time", (long long)s->batch,
				s->batch_percent ? "%" : "");
		if (s->min_in_rotation >= 0)
			printf(", at least %lld in rotation", (long long)s->min_in_rotation);
		puts("");
		for (size_t t = 0; t < s->n_tasks; t++) {
			BT_JSON json_t *j = bt_task_written(&s->tasks[t]);
			BT_FREE char *params =
				json_is_string(j)
					? NULL
					: json_dumps(json_object_iter_value(json_object_iter(j)),
						  JSON_COMPACT);
			const struct bt_task_info *info = bt_task_info(s->tasks[t].kind);
			printf("     %-16s %s%s%s\n", info->name, info->summary, params ? " " : "",
				params ? params : "");
		}
	}
	printf("\n`baton plan SERVICE --flow %s` shows every step that it would take now\n",
		f->name);
}

static bool print_strategy(const char *name)
{
	for (size_t i = 0; i < bt_n_flows_strategies; i++) {
		const struct bt_flow_strategy *s = &bt_flows_strategies[i];
		if (!bt_streq(bt_enum_name(&bt_enum_strategy, (int)s->strategy), name))
			continue;
		printf("%s (strategy): %s\nIts stages are made from what is there:\n\n", name,
			s->doc);
		for (size_t k = 0; s->stages[k]; k++)
			printf("%3zu. %s\n", k + 1, s->stages[k]);
		printf("\n`baton plan SERVICE --flow %s` shows every step that it would take now\n",
			name);
		return true;
	}
	return false;
}

int bt_cmd_flows_show(struct bt_cli *cli, struct bt_err *err)
{
	struct source s = {0};
	const char *name = cli->args[0], *near = NULL;
	if (print_strategy(name))
		return 0;
	int r = open_source(cli, &s, err);
	const struct bt_flow *f = r == 0 ? bt_flow_find(s.service, name, &near) : NULL;
	if (f)
		print_flow(f, s.service && f >= s.service->flows &&
					      f < s.service->flows + s.service->n_flows
				      ? s.service->name
				      : "baton");
	else if (r == 0)
		r = bt_flow_unknown(s.service, name, near, err);
	bt_config_free(s.config);
	return r;
}
