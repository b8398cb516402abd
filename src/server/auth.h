/* Who asks, and may they? */
#pragma once
#include "server/server_priv.h"

struct bt_who {
	char *name;
	int role;	      /* enum bt_auth */
	json_t *services;     /* names it may act on; NULL: all */
	struct bt_host *host; /* agents */
};
int bt_auth_people(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err);
int bt_auth_agent(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err);
const struct bt_who *bt_who(const struct bt_http_exchange *x);
/* BT_E_REFUSED in words when this token's scope does not have the service. */
int bt_who_may(const struct bt_who *w, const char *service, struct bt_err *err);
bool bt_who_sees(const struct bt_who *w, const char *service);
int bt_role_parse(const char *text, struct bt_err *err); /* enum bt_auth, or < 0 */
