/* The form `site`: what nginx reads is a link to one of the user's whole files, one for each slot.
 *
 * A *value* is what lies at a path: a file's text, or "-> TARGET" for a link where links are meant.
 * (No text of nginx's begins so.) Everything here reads files and may block. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/service.h"
#include "model/world.h"

#define BT_NGINX_LINK "-> "

/* NULL where nothing is there. links: a link is a value, and not what it leads to. Caller frees. */
int bt_nginx_value_read(const char *path, bool links, char **ret, struct bt_err *err);
int bt_nginx_value_write(const char *path, const char *value, struct bt_err *err);

/* What the value at nginx->include sends to, all of it in rotation; nothing where nothing is there.
 * BT_E_REFUSED: it is neither a link to nor a copy of one of the sites; or a site of a slot does
 * not exist, or names no server at that slot's port. */
int bt_nginx_link_members(const struct bt_service *s, const char *value, struct bt_arena *a,
	struct bt_seen_member **ret, size_t *ret_n, struct bt_err *err);
