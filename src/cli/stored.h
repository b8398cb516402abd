/* The config of a service that the server has stored. */
#pragma once
#include "cli/client.h"
#include "config/config.h"

/* BT_E_NOTFOUND in words for who has no baton.yaml here; *ret_answer (may be NULL) is the whole
 * answer. */
int bt_stored_config(struct bt_client *c, const char *service, struct bt_config **ret,
	json_t **ret_answer, struct bt_err *err);
/* POST to /v1/services/SERVICE/…; the caller decrefs *ret. */
int bt_stored_post(struct bt_client *c, const char *service, const char *what, const json_t *body,
	json_t **ret, struct bt_err *err);
