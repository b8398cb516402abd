/* Which services a token covers: names and patterns, in which '*' stands for any characters but
 * '@', so that shop* is not shop@release. A service in an environment is named SERVICE@ENVIRONMENT.
 */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include <jansson.h>

/* scope: an array of patterns; NULL covers every service. */
bool bt_scope_covers(const json_t *scope, const char *service);
/* From {"services":[pattern…],"environments":[name…]}: a pattern that names no environment is taken
 * in each of the given ones, and environments alone mean all services in them. *ret is NULL where
 * neither is given. The caller decrefs. BT_E_CONFIG in words. */
int bt_scope_read(const json_t *body, json_t **ret, struct bt_err *err);
void bt_scope_words(const json_t *scope, struct bt_str *out); /* "shop, *@dev" or "all services" */
