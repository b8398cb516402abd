/* Notify: tells somebody outside. A message that may have arrived is never sent again by itself:
 * whether it has is for a person to say, or does not matter (then the plan goes on). */
#include "agent/tasks.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Before the task's own limit, whose word is less to the point. */
#define MARGIN_MS 500

int bt_task_notify_check(struct bt_job *j, struct bt_err *err)
{
	const char *to = NULL, *text = NULL;
	int r = bt_job_take_service(j, err);
	if (r == 0)
		r = bt_json_str(j->params, "to", &to, err);
	if (r == 0)
		r = bt_json_str(j->params, "message", &text, err);
	if (r == 0)
		r = bt_json_str_opt(j->params, "version", &j->version, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < j->service->n_notify; i++)
		if (bt_streq(j->service->notify[i].name, to))
			j->notify = &j->service->notify[i];
	if (!j->notify)
		return bt_err_set(err, BT_E_REFUSED, "notify has no '%.80s' in the config of %s",
			to, j->service_name);
	return 0;
}

static json_t *own_body(struct bt_job *j, const char *message)
{
	char at[32];
	const char *flow = json_string_value(json_object_get(j->params, "flow"));
	return json_pack("{s:s, s:s?, s:I, s:s?, s:s, s:s, s:s}", "service", j->service_name,
		"version", j->version, "deployment", (json_int_t)j->key.deployment, "flow", flow,
		"message", message, "at", bt_clock_format(bt_clock_wall_ms(), at), "host",
		bt_job_env(j)->host);
}

/* Slack takes these three for markup: https://api.slack.com/reference/surfaces/formatting */
static void add_escaped(struct bt_str *out, const char *t)
{
	for (; *t; t++)
		if (*t == '&')
			bt_str_add(out, "&amp;");
		else if (*t == '<')
			bt_str_add(out, "&lt;");
		else if (*t == '>')
			bt_str_add(out, "&gt;");
		else
			bt_str_addc(out, *t);
}

static json_t *slack_body(struct bt_job *j, const char *message)
{
	BT_STR struct bt_str text = {0};
	add_escaped(&text, j->service_name);
	if (j->version) {
		bt_str_addc(&text, ' ');
		add_escaped(&text, j->version);
	}
	bt_str_addf(&text, ", deployment %" PRIu64 ": ", j->key.deployment);
	add_escaped(&text, message);
	return json_pack("{s:s}", "text", bt_str_get(&text));
}

static void on_sent(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	j->op = NULL; /* it has called back: it is gone */
	if (result > 0)
		bt_job_finish(j, BT_OUTCOME_UNKNOWN, "%s", err->text);
	else
		bt_job_finish_result(j, result, err, "told");
}

void bt_task_notify_go(struct bt_job *j)
{
	BT_STR struct bt_str url = {0};
	struct bt_err err = {0};
	struct bt_kv *secrets;
	char delivery[80];
	size_t n = bt_job_secrets(j, json_object_get(j->params, "secrets"), &secrets);
	const char *message = json_string_value(json_object_get(j->params, "message"));
	int r = bt_notify_url(j->notify->url, secrets, n, &url, &err);
	if (r < 0) {
		bt_err_wrap(&err, "notify %s", j->notify->name);
		bt_job_finish_result(j, r, &err, "");
		return;
	}
	snprintf(delivery, sizeof delivery, "%" PRIu64 "-%" PRIu32 "-%" PRIu32, j->key.deployment,
		j->key.task, j->key.attempt);
	BT_JSON json_t *body = j->notify->format == BT_NOTIFY_SLACK ? slack_body(j, message)
								    : own_body(j, message);
	BT_FREE char *text = bt_json_dump(body);
	struct bt_notify_post post = {.name = j->notify->name,
		.url = bt_str_get(&url),
		.delivery = delivery,
		.body = text,
		.timeout_ms =
			j->timeout_ms > 2 * MARGIN_MS ? j->timeout_ms - MARGIN_MS : j->timeout_ms};
	bt_job_say(j, "tell %s", j->notify->name);
	j->op = bt_job_exec(j)->drivers->notify_send(bt_job_env(j), &post, on_sent, j);
}
