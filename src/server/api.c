/* The route tables: dispatch, authorization, docs/api.md and docs/openapi.yaml come from them
 * (tests/unit/test_api_docs.c holds the documents against them). */
#include "server/api.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>

#define SMALL 65536
#define BIG (2u << 20)
#define PART ((8u << 20) + 1024)

const struct bt_route_row bt_people_routes[] = {
	{"GET", "/v1/health", BT_AUTH_NONE, 0, bt_api_health,
		"Is the server up, and which store it has"},
	{"GET", "/metrics", BT_AUTH_VIEWER, 0, bt_api_metrics,
		"Metrics in Prometheus' text format"},
	{"GET", "/v1/services", BT_AUTH_VIEWER, 0, bt_api_services,
		"Every service with its live release and phase: find (in its name), limit"},
	{"GET", "/v1/services/{service}", BT_AUTH_VIEWER, 0, bt_api_service,
		"One service, with what its hosts see and which slot is live"},
	{"GET", "/v1/services/{service}/releases", BT_AUTH_VIEWER, 0, bt_api_releases,
		"Its releases, newest first"},
	{"GET", "/v1/services/{service}/releases/{release}", BT_AUTH_VIEWER, 0, bt_api_release,
		"One release by version or number, with its config and names of files"},
	{"POST", "/v1/services/{service}/releases/{release}", BT_AUTH_DEPLOYER, SMALL,
		bt_api_release_mark, "Say that it is good or bad: state, why"},
	{"POST", "/v1/services/{service}/prune", BT_AUTH_DEPLOYER, SMALL, bt_api_prune,
		"Remove artifacts that no release needs, on the server and its hosts"},
	{"GET", "/v1/services/{service}/logs", BT_AUTH_VIEWER, 0, bt_api_logs,
		"Lines of its instances' logs: slot, host, lines, follow"},
	{"GET", "/v1/services/{service}/config", BT_AUTH_VIEWER, 0, bt_api_config,
		"Its stored config and who stored it: version"},
	{"POST", "/v1/services/{service}/config", BT_AUTH_DEPLOYER, BIG, bt_api_apply,
		"Store a config: config, files, lock (admins); check: only say what would change"},
	{"POST", "/v1/services/{service}/restart", BT_AUTH_DEPLOYER, BIG, bt_api_service_restart,
		"The live release again, with the stored config or one that comes along"},
	{"POST", "/v1/services/{service}/rollback", BT_AUTH_DEPLOYER, SMALL,
		bt_api_service_rollback,
		"Back to an earlier release: to (version or number), or the one before"},
	{"POST", "/v1/services/{service}/adopt", BT_AUTH_DEPLOYER, BIG, bt_api_service_adopt,
		"Record what others started and what serves now as the live release"},
	{"POST", "/v1/services/{service}/lock", BT_AUTH_DEPLOYER, SMALL, bt_api_lock,
		"Refuse deployments and rollbacks until it is unlocked: why"},
	{"DELETE", "/v1/services/{service}/lock", BT_AUTH_DEPLOYER, 0, bt_api_unlock, "Unlock"},
	{"POST", "/v1/services/{service}/queue", BT_AUTH_DEPLOYER, SMALL, bt_api_queue,
		"A ticket: a place among those who wait to deploy it"},
	{"GET", "/v1/services/{service}/queue/{ticket}", BT_AUTH_DEPLOYER, 0, bt_api_queue_ticket,
		"Its place, and whether its turn has come; ask every second, or it is given up"},
	{"DELETE", "/v1/services/{service}/queue/{ticket}", BT_AUTH_DEPLOYER, 0, bt_api_queue_leave,
		"Leave the queue"},
	{"GET", "/v1/freezes", BT_AUTH_VIEWER, 0, bt_api_freezes,
		"When deployments are refused, by the calendar"},
	{"POST", "/v1/freezes", BT_AUTH_ADMIN, SMALL, bt_api_freeze_add,
		"Refuse deployments during a window: during, zone, why, services, environments"},
	{"DELETE", "/v1/freezes/{freeze}", BT_AUTH_ADMIN, 0, bt_api_freeze_remove, "End a freeze"},
	{"POST", "/v1/plan", BT_AUTH_DEPLOYER, BIG, bt_api_plan,
		"What a deployment would do; nothing is stored"},
	{"POST", "/v1/deployments", BT_AUTH_DEPLOYER, BIG, bt_api_deploy, "Start a deployment"},
	{"POST", "/v1/tasks", BT_AUTH_DEPLOYER, SMALL, bt_api_task,
		"Run one task: task, action, serviceName, host, instanceId, port, file, "
		"deployPath; "
		"?wait="},
	{"GET", "/v1/tasks/{id}", BT_AUTH_VIEWER, 0, bt_api_task_get,
		"How it went, or goes; ?wait= answers at its end"},
	{"GET", "/v1/deployments", BT_AUTH_VIEWER, 0, bt_api_deployments,
		"Deployments, newest first: service, limit"},
	{"GET", "/v1/deployments/{id}", BT_AUTH_VIEWER, 0, bt_api_deployment,
		"One deployment with its plans and tasks"},
	{"GET", "/v1/deployments/{id}/events", BT_AUTH_VIEWER, 0, bt_api_deployment_events,
		"Its events as Server-Sent Events after a cursor; ends after `end`"},
	{"GET", "/v1/deployments/{id}/log", BT_AUTH_VIEWER, 0, bt_api_run_log,
		"Logs of its tasks as text: task"},
	{"POST", "/v1/deployments/{id}/{op}", BT_AUTH_DEPLOYER, SMALL, bt_api_operate,
		"pause, resume, abort, promote, rollback, approve or reject it: why"},
	{"GET", "/v1/events", BT_AUTH_VIEWER, 0, bt_api_events,
		"Events of all deployments after a cursor, or after `now`"},
	{"GET", "/v1/hosts", BT_AUTH_VIEWER, 0, bt_api_hosts, "Hosts, their agents and instances"},
	{"DELETE", "/v1/hosts/{host}", BT_AUTH_ADMIN, 0, bt_api_host_remove,
		"Remove a host: its certificates are revoked at once"},
	{"POST", "/v1/hosts/{host}/upgrade", BT_AUTH_ADMIN, SMALL, bt_api_host_upgrade,
		"Its agent becomes this server's version; answers when it has"},
	{"POST", "/v1/join-tokens", BT_AUTH_ADMIN, SMALL, bt_api_join_token,
		"A single-use token for a host's agent: host, ttl"},
	{"GET", "/v1/tokens", BT_AUTH_ADMIN, 0, bt_api_tokens,
		"Names, roles and scopes of tokens (never the tokens)"},
	{"POST", "/v1/tokens", BT_AUTH_ADMIN, SMALL, bt_api_token_add,
		"A new token: name, role, services, environments, ttl; shown once"},
	{"DELETE", "/v1/tokens/{name}", BT_AUTH_ADMIN, 0, bt_api_token_revoke, "Revoke a token"},
	{"GET", "/v1/audit", BT_AUTH_ADMIN, 0, bt_api_audit,
		"Who did what, newest first: service, who, since, limit"},
	{"HEAD", "/v1/artifacts/{digest}", BT_AUTH_DEPLOYER, 0, bt_api_artifact_head,
		"Is it complete, or how much of it is here"},
	{"PATCH", "/v1/artifacts/{digest}", BT_AUTH_DEPLOYER, PART, bt_api_artifact_part,
		"Upload a part of at most 8 MiB at Upload-Offset: size, name"},
	{"POST", "/v1/session", BT_AUTH_NONE, SMALL, bt_api_session,
		"Log the page in by token or link: an HttpOnly cookie"},
	{"GET", "/v1/session", BT_AUTH_VIEWER, 0, bt_api_session_get,
		"Who asks: name, role and services of the token"},
	{"DELETE", "/v1/session", BT_AUTH_NONE, 0, bt_api_session_end, "Log out"},
	{"POST", "/v1/login-links", BT_AUTH_VIEWER, SMALL, bt_api_login_link,
		"An address that logs a browser in as this token, once, within ten minutes"},
	{"GET", "/", BT_AUTH_NONE, 0, bt_api_page, "The page"},
	{"GET", "/page/{file}", BT_AUTH_NONE, 0, bt_api_page_file, "Its scripts and styles"},
};
const size_t bt_people_routes_n = BT_ARRAY_LEN(bt_people_routes);

const struct bt_route_row bt_agent_routes[] = {
	{"POST", "/v1/join", BT_AUTH_NONE, SMALL, bt_api_join, "A certificate for a join token"},
	{"POST", "/v1/agent/hello", BT_AUTH_AGENT, BIG, bt_api_hello,
		"Versions, cursor, tokens and generations"},
	{"GET", "/v1/agent/commands", BT_AUTH_AGENT, 0, bt_api_commands,
		"Commands after a cursor, held until there is one"},
	{"POST", "/v1/agent/results", BT_AUTH_AGENT, 8u << 20, bt_api_results,
		"Results, acknowledged once durable"},
	{"POST", "/v1/agent/progress", BT_AUTH_AGENT, BIG, bt_api_progress,
		"What running tasks say, not durable"},
	{"POST", "/v1/agent/observation", BT_AUTH_AGENT, 8u << 20, bt_api_observation,
		"What the host sees"},
	{"GET", "/v1/agent/artifacts/{digest}", BT_AUTH_AGENT, 0, bt_api_artifact_get,
		"An artifact of a command sent to this host"},
	{"GET", "/v1/agent/binaries/{digest}", BT_AUTH_AGENT, 0, bt_api_binary_get,
		"A file of the program that an upgrade offers"},
	{"POST", "/v1/agent/stream/{ask}", BT_AUTH_AGENT, 8u << 20, bt_api_stream,
		"The answer to a question"},
	{"POST", "/v1/agent/renew", BT_AUTH_AGENT, SMALL, bt_api_renew,
		"A new certificate before the old one expires"},
};
const size_t bt_agent_routes_n = BT_ARRAY_LEN(bt_agent_routes);

json_t *bt_api_body(struct bt_http_exchange *x)
{
	size_t n;
	const void *data = bt_http_body(x, &n);
	json_t *j = NULL;
	struct bt_err err;
	int r = n ? bt_json_parse(data, n, n, &j, &err)
		  : bt_err_set(&err, BT_E_PROTOCOL, "the body is empty: expected a JSON object");
	if (r == 0 && !json_is_object(j)) {
		json_decref(j);
		r = bt_err_set(&err, BT_E_PROTOCOL, "the body: expected a JSON object");
	}
	if (r == 0)
		return j;
	bt_http_reply_error(x, &err);
	return NULL;
}

void bt_api_error(struct bt_http_exchange *x, int code, const char *fmt, ...)
{
	struct bt_err err;
	va_list ap;
	char text[BT_ERR_MAX];
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	bt_err_set(&err, code, "%s", text);
	bt_http_reply_error(x, &err);
}

int64_t bt_api_query_int(const struct bt_http_exchange *x, const char *name, int64_t min,
	int64_t max, int64_t otherwise)
{
	const char *text = bt_http_query(x, name);
	int64_t n;
	return text && bt_int_parse(text, min, max, &n, NULL) == 0 ? n : otherwise;
}

void bt_api_set_time(json_t *o, const char *key, int64_t wall_ms)
{
	char at[32];
	if (wall_ms > 0)
		json_object_set_new(o, key, json_string(bt_clock_format(wall_ms, at)));
}
