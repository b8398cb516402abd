/* Who asks, and may they? */
#pragma once
#include "server/scope.h"
#include "server/server_priv.h"

struct bt_who {
	char *name;
	char *from;	      /* its address */
	int role;	      /* enum bt_auth */
	json_t *services;     /* its scope (scope.h); NULL: all */
	struct bt_host *host; /* agents */
};
int bt_auth_people(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err);
int bt_auth_agent(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err);
const struct bt_who *bt_who(const struct bt_http_exchange *x);
/* BT_E_REFUSED in words when this token's scope does not have the service. */
int bt_who_may(const struct bt_who *w, const char *service, struct bt_err *err);
bool bt_who_sees(const struct bt_who *w, const char *service);
/* A row of TOKEN_GET, or NULL; BT_E_AUTH when it is none or has expired. */
int bt_token_usable(const json_t *row, struct bt_err *err);
int bt_role_parse(const char *text, struct bt_err *err); /* enum bt_auth, or < 0 */
const char *bt_role_name(int role);
/* Hash of the token that the request stands for, or of its session; an empty text where none. */
void bt_auth_token_hash(
	struct bt_server *s, const struct bt_http_exchange *x, char hash[static 65]);
void bt_auth_session_hash(
	struct bt_server *s, const struct bt_http_exchange *x, char hash[static 65]);
/* Do they still let in? session: of a cookie; "" for a bearer. Where the store says nothing: yes.
 */
bool bt_auth_holds(struct bt_server *s, const char *token_hash, const char *session_hash);
/* Of this server alone: browsers share cookies among all ports of a machine. */
#define BT_COOKIE_NAME 64
void bt_auth_cookie_name(struct bt_server *s, char name[static BT_COOKIE_NAME]);
