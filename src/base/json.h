/* jansson, with getters that say which member was wrong. All getters borrow.
 * The `_opt` forms leave *ret as it is where the member is absent or null. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include <jansson.h>

#define BT_JSON __attribute__((cleanup(bt_json_cleanup)))
void bt_json_cleanup(json_t **j);

/* Strict: no duplicate keys, no NUL, depth ≤ 64, at most max bytes; BT_E_PROTOCOL otherwise. */
int bt_json_parse(const char *text, size_t n, size_t max, json_t **ret, struct bt_err *err);
char *bt_json_dump(const json_t *j); /* compact, sorted keys; the caller frees; never NULL */

int bt_json_str(const json_t *obj, const char *key, const char **ret, struct bt_err *err);
int bt_json_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
	struct bt_err *err);
int bt_json_bool(const json_t *obj, const char *key, bool *ret, struct bt_err *err);
int bt_json_array(const json_t *obj, const char *key, json_t **ret, struct bt_err *err);
int bt_json_object(const json_t *obj, const char *key, json_t **ret, struct bt_err *err);
int bt_json_str_opt(const json_t *obj, const char *key, const char **ret, struct bt_err *err);
int bt_json_int_opt(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
	struct bt_err *err);
int bt_json_bool_opt(const json_t *obj, const char *key, bool *ret, struct bt_err *err);
/* A text of at most max bytes, copied into the arena. */
int bt_json_text(const json_t *obj, const char *key, size_t max, struct bt_arena *a,
	const char **ret, struct bt_err *err);
int bt_json_text_opt(const json_t *obj, const char *key, size_t max, struct bt_arena *a,
	const char **ret, struct bt_err *err);
/* An array of at most max entries. */
int bt_json_list(const json_t *obj, const char *key, size_t max, json_t **ret, size_t *ret_n,
	struct bt_err *err);
