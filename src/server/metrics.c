/* GET /metrics: Prometheus' text. Counts of deployments come from the store, so they survive a
 * restart; task times are of this process; hosts and instances are as their agents last saw them.
 * Labels are names that a config holds (services, hosts, slots, kinds of tasks, results) and the
 * one version that is live: no deployment ids, nothing that grows with time. */
#include "base/clock.h"
#include "server/run.h"

#include <inttypes.h>
#include <string.h>

static const double bounds[] = {0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300};

struct bt_metric_task {
	struct bt_metric_task *next;
	char *task;
	int64_t count[BT_ARRAY_LEN(bounds) + 1], n, drains;
	double sum;
};

void bt_metrics_task(struct bt_server *s, const char *task, int64_t ms, bool drain)
{
	struct bt_metric_task *m = s->metrics;
	while (m && strcmp(m->task, task) != 0)
		m = m->next;
	if (!m) {
		m = bt_calloc(1, sizeof *m);
		m->task = bt_strdup(task);
		m->next = s->metrics;
		s->metrics = m;
	}
	double seconds = (double)(ms < 0 ? 0 : ms) / 1000;
	size_t i = 0;
	while (i < BT_ARRAY_LEN(bounds) && seconds > bounds[i])
		i++;
	m->count[i]++;
	m->n++;
	m->drains += drain;
	m->sum += seconds;
}

void bt_metrics_free(struct bt_server *s)
{
	while (s->metrics) {
		struct bt_metric_task *m = s->metrics;
		s->metrics = m->next;
		free(m->task);
		free(m);
	}
}

static void head(struct bt_str *out, const char *name, const char *type, const char *help)
{
	bt_str_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void label(struct bt_str *out, const char *text)
{
	for (; text && *text; text++) {
		if (*text == '"' || *text == '\\')
			bt_str_addc(out, '\\');
		bt_str_addc(out, *text == '\n' ? ' ' : *text);
	}
}

/* A service in an environment is named SERVICE@ENVIRONMENT: two labels. */
static void service_labels(struct bt_str *out, const char *name)
{
	const char *at = strrchr(name, '@');
	BT_FREE char *service = at ? bt_strndup(name, (size_t)(at - name)) : bt_strdup(name);
	bt_str_add(out, "service=\"");
	label(out, service);
	bt_str_add(out, "\",env=\"");
	label(out, at ? at + 1 : "");
	bt_str_add(out, "\"");
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *t = json_string_value(json_object_get(o, key));
	return t ? t : "";
}

/* service → strategy → result → row. Every result is there from a service's first day: a counter
 * that first appears with its first failure would hide that failure from increase(). */
static json_t *group(struct bt_server *s, const json_t *rows)
{
	json_t *groups = json_object(), *row;
	size_t i;
	for (const struct bt_svc *svc = s->services; svc; svc = svc->next) {
		const json_t *deploy = json_object_get(svc->config, "deploy");
		if (deploy)
			json_object_set_new(groups, svc->name,
				json_pack("{s:{}}", text_of(deploy, "strategy")));
	}
	json_array_foreach (rows, i, row) {
		const char *service = text_of(row, "service"), *strategy = text_of(row, "strategy");
		if (!json_object_get(groups, service))
			json_object_set_new(groups, service, json_object());
		json_t *of = json_object_get(groups, service);
		if (!json_object_get(of, strategy))
			json_object_set_new(of, strategy, json_object());
		json_object_set(json_object_get(of, strategy), text_of(row, "result"), row);
	}
	return groups;
}

static void total(struct bt_str *out, const char *name, const char *what, const char *service,
	const char *strategy, const char *result, const json_t *row)
{
	json_int_t n = json_integer_value(json_object_get(row, what));
	bt_str_addf(out, "%s{", name);
	service_labels(out, service);
	bt_str_addf(out, ",strategy=\"%s\",result=\"%s\"} ", strategy, result);
	if (bt_streq(what, "n"))
		bt_str_addf(out, "%" PRId64 "\n", (int64_t)n);
	else
		bt_str_addf(out, "%.3f\n", (double)n / 1000);
}

static void totals(struct bt_str *out, json_t *groups, const char *name, const char *what)
{
	const char *service, *strategy;
	json_t *of, *results;
	json_object_foreach (groups, service, of)
		json_object_foreach (of, strategy, results)
			for (int e = BT_END_DONE; e <= BT_END_REFUSED; e++)
				total(out, name, what, service, strategy, bt_end_name(e),
					json_object_get(results, bt_end_name(e)));
}

static void deployments(struct bt_server *s, struct bt_str *out)
{
	BT_JSON json_t *rows = NULL;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_DEPLOYMENT_TOTALS) < 0)
		return;
	BT_JSON json_t *groups = group(s, rows);
	head(out, "baton_deployments_total", "counter", "Ended deployments.");
	totals(out, groups, "baton_deployments_total", "n");
	head(out, "baton_deployment_duration_seconds", "summary",
		"Time of ended deployments, human pauses excluded.");
	totals(out, groups, "baton_deployment_duration_seconds_sum", "ms");
	totals(out, groups, "baton_deployment_duration_seconds_count", "n");
	head(out, "baton_deployments_running", "gauge", "Deployments that have not ended.");
	bt_str_addf(out, "baton_deployments_running %zu\n", bt_runs_count(s));
}

static void parked(struct bt_server *s, struct bt_str *out)
{
	BT_JSON json_t *rows = NULL;
	size_t i, n = 0;
	json_t *row;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_DEPLOYMENTS_OPEN) < 0)
		return;
	json_array_foreach (rows, i, row)
		n += bt_streq(text_of(row, "phase"), "parked");
	head(out, "baton_deployments_parked", "gauge", "Deployments that wait for a person.");
	bt_str_addf(out, "baton_deployments_parked %zu\n", n);
}

static void histogram(
	struct bt_str *out, const char *name, const struct bt_metric_task *m, const char *labels)
{
	int64_t below = 0;
	for (size_t i = 0; i < BT_ARRAY_LEN(bounds); i++) {
		below += m->count[i];
		bt_str_addf(out, "%s_bucket{%s%sle=\"%g\"} %" PRId64 "\n", name, labels,
			*labels ? "," : "", bounds[i], below);
	}
	bt_str_addf(out, "%s_bucket{%s%sle=\"+Inf\"} %" PRId64 "\n", name, labels,
		*labels ? "," : "", m->n);
	const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";
	bt_str_addf(out, "%s_sum%s%s%s %.3f\n", name, open, labels, close, m->sum);
	bt_str_addf(out, "%s_count%s%s%s %" PRId64 "\n", name, open, labels, close, m->n);
}

static void tasks(struct bt_server *s, struct bt_str *out)
{
	head(out, "baton_task_duration_seconds", "histogram",
		"Time from sending a task to its result.");
	for (const struct bt_metric_task *m = s->metrics; m; m = m->next) {
		BT_FREE char *labels = bt_asprintf("task=\"%s\"", m->task);
		histogram(out, "baton_task_duration_seconds", m, labels);
	}
	head(out, "baton_drain_duration_seconds", "histogram", "Time of drains.");
	for (const struct bt_metric_task *m = s->metrics; m; m = m->next)
		if (m->drains)
			histogram(out, "baton_drain_duration_seconds", m, "");
}

/* ---- hosts, and what their agents saw ---------------------------------------------------- */

typedef double (*host_fn)(const struct bt_host *h);

static double host_last_seen(const struct bt_host *h)
{
	return (double)(h->poll ? bt_clock_wall_ms() : h->seen_wall_ms) / 1000;
}

static double host_connected(const struct bt_host *h)
{
	return bt_host_connected(h);
}

static double host_free(const struct bt_host *h)
{
	return (double)h->free_bytes;
}

static void each_host(
	struct bt_server *s, struct bt_str *out, const char *name, const char *help, host_fn value)
{
	head(out, name, "gauge", help);
	for (const struct bt_host *h = s->hosts; h; h = h->next) {
		if (h->revoked)
			continue;
		bt_str_addf(out, "%s{host=\"", name);
		label(out, h->name);
		bt_str_addf(out, "\"} %.15g\n", value(h));
	}
}

typedef int64_t (*seen_fn)(const json_t *seen);

static int64_t instance_runs(const json_t *instance)
{
	return bt_streq(text_of(instance, "state"), "running");
}

static int64_t instance_restarts(const json_t *instance)
{
	return json_integer_value(json_object_get(instance, "restarts"));
}

static int64_t balancer_pool(const json_t *balancer)
{
	size_t i;
	json_t *member;
	int64_t n = 0;
	json_array_foreach (json_object_get(balancer, "members"), i, member)
		n += json_is_true(json_object_get(member, "in"));
	return n;
}

static int64_t balancer_holds(const json_t *balancer)
{
	return json_is_true(json_object_get(balancer, "running")) && !*text_of(balancer, "trouble");
}

static void seen_line(struct bt_str *out, const char *name, const char *service,
	const struct bt_host *h, const char *slot, int64_t value)
{
	bt_str_addf(out, "%s{", name);
	service_labels(out, service);
	bt_str_add(out, ",host=\"");
	label(out, h->name);
	if (slot) {
		bt_str_add(out, "\",slot=\"");
		label(out, slot);
	}
	bt_str_addf(out, "\"} %" PRId64 "\n", value);
}

/* list: "instances", which have slots, or "balancers". */
static void each_seen(struct bt_server *s, struct bt_str *out, const char *list, const char *name,
	const char *help, seen_fn value)
{
	const char *service;
	json_t *entry, *one;
	size_t i;
	head(out, name, "gauge", help);
	for (const struct bt_host *h = s->hosts; h; h = h->next) {
		if (h->revoked)
			continue;
		json_object_foreach (h->seen, service, entry)
			json_array_foreach (
				json_object_get(json_object_get(entry, "seen"), list), i, one)
				seen_line(out, name, service, h,
					json_string_value(json_object_get(one, "slot")),
					value(one));
	}
}

static void hosts(struct bt_server *s, struct bt_str *out)
{
	each_host(s, out, "baton_agent_last_seen_timestamp_seconds", "Last contact with the agent.",
		host_last_seen);
	each_host(
		s, out, "baton_agent_connected", "Whether the agent is connected.", host_connected);
	each_host(s, out, "baton_host_free_bytes", "Free space in the agent's state directory.",
		host_free);
	each_seen(s, out, "instances", "baton_instance_running", "Whether the slot's app runs.",
		instance_runs);
	each_seen(s, out, "instances", "baton_instance_restarts",
		"How often the slot's app was started again since it was deployed.",
		instance_restarts);
	each_seen(s, out, "balancers", "baton_balancer_members_in_rotation",
		"Instances that the balancer sends requests to.", balancer_pool);
	each_seen(s, out, "balancers", "baton_balancer_up",
		"Whether the balancer runs and serves what was confirmed.", balancer_holds);
}

void bt_metrics_print(struct bt_server *s, struct bt_str *out)
{
	BT_JSON json_t *rows = NULL;
	size_t i;
	json_t *row;
	head(out, "baton_build_info", "gauge", "Version of the server.");
	bt_str_add(out, "baton_build_info{version=\"" BATON_VERSION "\"} 1\n");
	deployments(s, out);
	tasks(s, out);
	parked(s, out);
	hosts(s, out);
	head(out, "baton_release_info", "gauge", "The release that is live.");
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_RELEASE_INFO) == 0)
		json_array_foreach (rows, i, row) {
			bt_str_add(out, "baton_release_info{");
			service_labels(out, text_of(row, "service"));
			bt_str_add(out, ",version=\"");
			label(out, text_of(row, "version"));
			bt_str_add(out, "\"} 1\n");
		}
	head(out, "baton_store_commits_total", "counter", "Durable commits since the start.");
	bt_str_addf(out, "baton_store_commits_total %" PRId64 "\n", bt_store_commits(s->store));
	head(out, "baton_journal_records_total", "counter", "Journal records since the start.");
	bt_str_addf(out, "baton_journal_records_total %" PRId64 "\n", s->n_records);
}
