/* The handlers that api.c's route table names, a file a subject. */
#pragma once
#include "server/auth.h"
#include "server/planning.h"

/* api_services.c */
void bt_api_services(struct bt_http_exchange *x, void *arg);
void bt_api_service(struct bt_http_exchange *x, void *arg);
void bt_api_service_rollback(struct bt_http_exchange *x, void *arg);
void bt_api_service_adopt(struct bt_http_exchange *x, void *arg);
void bt_api_service_restart(struct bt_http_exchange *x, void *arg);
/* api_releases.c */
void bt_api_releases(struct bt_http_exchange *x, void *arg);
void bt_api_release(struct bt_http_exchange *x, void *arg);
void bt_api_release_mark(struct bt_http_exchange *x, void *arg);
void bt_api_prune(struct bt_http_exchange *x, void *arg);
/* api_config.c */
void bt_api_config(struct bt_http_exchange *x, void *arg);
void bt_api_apply(struct bt_http_exchange *x, void *arg);
/* api_logs.c */
void bt_api_logs(struct bt_http_exchange *x, void *arg);
void bt_api_logs_free(struct bt_server *s);
void bt_api_run_log(struct bt_http_exchange *x, void *arg);
/* api_deployments.c */
void bt_api_plan(struct bt_http_exchange *x, void *arg);
void bt_api_deploy(struct bt_http_exchange *x, void *arg);
void bt_api_deployments(struct bt_http_exchange *x, void *arg);
void bt_api_deployment(struct bt_http_exchange *x, void *arg);
void bt_api_deployment_events(struct bt_http_exchange *x, void *arg);
void bt_api_operate(struct bt_http_exchange *x, void *arg);
void bt_api_events(struct bt_http_exchange *x, void *arg);
/* api_tasks.c */
void bt_api_task(struct bt_http_exchange *x, void *arg);
void bt_api_task_get(struct bt_http_exchange *x, void *arg);
/* api_admin.c */
void bt_api_health(struct bt_http_exchange *x, void *arg);
void bt_api_metrics(struct bt_http_exchange *x, void *arg);
void bt_api_hosts(struct bt_http_exchange *x, void *arg);
void bt_api_host_upgrade(struct bt_http_exchange *x, void *arg); /* upgrades.c */
void bt_api_binary_get(struct bt_http_exchange *x, void *arg);
void bt_api_host_remove(struct bt_http_exchange *x, void *arg);
void bt_api_join_token(struct bt_http_exchange *x, void *arg);
void bt_api_tokens(struct bt_http_exchange *x, void *arg);
void bt_api_token_add(struct bt_http_exchange *x, void *arg);
void bt_api_token_revoke(struct bt_http_exchange *x, void *arg);
/* api_gate.c */
void bt_api_lock(struct bt_http_exchange *x, void *arg);
void bt_api_unlock(struct bt_http_exchange *x, void *arg);
void bt_api_freezes(struct bt_http_exchange *x, void *arg);
void bt_api_freeze_add(struct bt_http_exchange *x, void *arg);
void bt_api_freeze_remove(struct bt_http_exchange *x, void *arg);
void bt_api_queue(struct bt_http_exchange *x, void *arg);
void bt_api_queue_ticket(struct bt_http_exchange *x, void *arg);
void bt_api_queue_leave(struct bt_http_exchange *x, void *arg);
/* api_audit.c */
void bt_api_audit(struct bt_http_exchange *x, void *arg);
/* What the caller of x does, for the audit. service, detail: may be NULL. */
void bt_api_audit_add(struct bt_txn *t, const struct bt_http_exchange *x, const char *service,
	const char *what, const char *detail);
/* api_session.c */
void bt_api_session(struct bt_http_exchange *x, void *arg);
void bt_api_session_get(struct bt_http_exchange *x, void *arg);
void bt_api_session_end(struct bt_http_exchange *x, void *arg);
void bt_api_login_link(struct bt_http_exchange *x, void *arg);
void bt_logins_free(struct bt_server *s);
/* api_page.c */
void bt_api_page(struct bt_http_exchange *x, void *arg);
void bt_api_page_file(struct bt_http_exchange *x, void *arg);
/* api_artifacts.c */
void bt_api_artifact_head(struct bt_http_exchange *x, void *arg);
void bt_api_artifact_part(struct bt_http_exchange *x, void *arg);
void bt_api_uploads_free(struct bt_server *s);
void bt_api_artifact_get(struct bt_http_exchange *x, void *arg); /* agents */
/* api_agents.c */
void bt_api_join(struct bt_http_exchange *x, void *arg);
void bt_api_hello(struct bt_http_exchange *x, void *arg);
void bt_api_commands(struct bt_http_exchange *x, void *arg);
void bt_api_results(struct bt_http_exchange *x, void *arg);
void bt_api_progress(struct bt_http_exchange *x, void *arg);
void bt_api_observation(struct bt_http_exchange *x, void *arg);
void bt_api_stream(struct bt_http_exchange *x, void *arg);
void bt_api_renew(struct bt_http_exchange *x, void *arg);

/* The deployment that the path names, when this token may see it; else answers and returns NULL. A
 * new reference to its row. */
json_t *bt_api_find_deployment(struct bt_server *s, struct bt_http_exchange *x);
json_t *bt_api_deployment_json(const json_t *row);
/* The service that the path names, in the same way. */
struct bt_svc *bt_api_find_service(struct bt_server *s, struct bt_http_exchange *x);
