/* From a wish to a running deployment: check, gather what the hosts see, plan, start. */
#pragma once
#include "server/auth.h"
#include "server/run.h"

/* POST /v1/deployments (preview false) and POST /v1/plan; answers x. body is borrowed. */
void bt_planning_deploy(
	struct bt_server *s, struct bt_http_exchange *x, const json_t *body, bool preview);
/* POST /v1/tasks: one task by itself. */
void bt_planning_task(struct bt_server *s, struct bt_http_exchange *x, const json_t *body);
/* POST /v1/services/{service}/adopt: what serves becomes the live release; as a deployment, without
 * an artifact, and the version may be left out. */
void bt_planning_adopt(struct bt_server *s, struct bt_http_exchange *x, const json_t *body);
/* POST /v1/services/{service}/rollback; body (may be NULL): to, a version or number, absent: the
 * one before; force: one that is bad, too. */
void bt_planning_rollback(
	struct bt_server *s, struct bt_http_exchange *x, const char *service, const json_t *body);
/* POST /v1/services/{service}/restart: the live release again, with the config that the body brings
 * or the stored one; body is completed. */
void bt_planning_restart(
	struct bt_server *s, struct bt_http_exchange *x, const char *service, json_t *body);
/* Every file of the config, and no other, comes with what it holds. */
int bt_planning_check_files(
	const struct bt_service *service, const json_t *given, struct bt_err *err);
/* POST /v1/services/{service}/prune: artifacts that no release needs go from the server, and a run
 * removes releases that are not kept from the hosts. */
void bt_planning_prune(struct bt_server *s, struct bt_http_exchange *x, const char *service);
/* At the end: who waits is told that the server stops. */
void bt_planning_free(struct bt_server *s);
/* Stops a warm slot whose time has passed. */
/* After a restore: clears away what is not the live release's. */
void bt_planning_settle(struct bt_server *s, struct bt_svc *svc);
void bt_planning_retire(struct bt_server *s, struct bt_svc *svc);
