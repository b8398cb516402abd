/* GET /metrics: Prometheus' text. Counts of deployments come from the store, so they survive a
 * restart; task times are of this process. No deployment ids as labels. */
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

static const char *text_of(const json_t *o, const char *key)
{
	const char *t = json_string_value(json_object_get(o, key));
	return t ? t : "";
}

static void totals(struct bt_str *out, const json_t *rows, const char *name, const char *what)
{
	size_t i;
	json_t *row;
	json_array_foreach (rows, i, row) {
		bt_str_addf(out, "%s{service=\"", name);
		label(out, text_of(row, "service"));
		bt_str_addf(out, "\",env=\"\",strategy=\"%s\",result=\"%s\"} ",
			text_of(row, "strategy"), text_of(row, "result"));
		json_int_t n = json_integer_value(json_object_get(row, what));
		if (strcmp(what, "n") == 0)
			bt_str_addf(out, "%" PRId64 "\n", (int64_t)n);
		else
			bt_str_addf(out, "%.3f\n", (double)n / 1000);
	}
}

static void deployments(struct bt_server *s, struct bt_str *out)
{
	BT_JSON json_t *rows = NULL;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_DEPLOYMENT_TOTALS) < 0)
		return;
	head(out, "baton_deployments_total", "counter", "Ended deployments.");
	totals(out, rows, "baton_deployments_total", "n");
	head(out, "baton_deployment_duration_seconds", "summary",
		"Time of ended deployments, human pauses excluded.");
	totals(out, rows, "baton_deployment_duration_seconds_sum", "ms");
	totals(out, rows, "baton_deployment_duration_seconds_count", "n");
	head(out, "baton_deployments_running", "gauge", "Deployments that have not ended.");
	bt_str_addf(out, "baton_deployments_running %zu\n", bt_runs_count(s));
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

static void agents(struct bt_server *s, struct bt_str *out)
{
	head(out, "baton_agent_last_seen_timestamp_seconds", "gauge",
		"Last contact with the agent.");
	for (const struct bt_host *h = s->hosts; h; h = h->next) {
		if (h->revoked)
			continue;
		int64_t at = h->poll ? bt_clock_wall_ms() : h->seen_wall_ms;
		bt_str_add(out, "baton_agent_last_seen_timestamp_seconds{host=\"");
		label(out, h->name);
		bt_str_addf(out, "\"} %.3f\n", (double)at / 1000);
	}
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
	agents(s, out);
	head(out, "baton_release_info", "gauge", "The release that is live.");
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_RELEASE_INFO) == 0)
		json_array_foreach (rows, i, row) {
			bt_str_add(out, "baton_release_info{service=\"");
			label(out, text_of(row, "service"));
			bt_str_add(out, "\",version=\"");
			label(out, text_of(row, "version"));
			bt_str_add(out, "\"} 1\n");
		}
	head(out, "baton_store_commits_total", "counter", "Durable commits since the start.");
	bt_str_addf(out, "baton_store_commits_total %" PRId64 "\n", bt_store_commits(s->store));
	head(out, "baton_journal_records_total", "counter", "Journal records since the start.");
	bt_str_addf(out, "baton_journal_records_total %" PRId64 "\n", s->n_records);
}
