/* Members of a pool as drivers keep them: compared, copied, and as JSON in their state files. */
#pragma once
#include "driver/driver.h"
#include <jansson.h>

#define BT_MEMBERS_MAX 8192

/* The same ones in the same order, in everything. */
bool bt_members_equal(
	const struct bt_pool_member *a, size_t n_a, const struct bt_pool_member *b, size_t n_b);
/* With their strings, into the arena. */
struct bt_pool_member *bt_members_copy(
	struct bt_arena *a, const struct bt_pool_member *members, size_t n);
struct bt_seen_member *bt_members_seen_copy(
	struct bt_arena *a, const struct bt_seen_member *members, size_t n);
json_t *bt_members_to_json(const struct bt_pool_member *members, size_t n);
/* The list below `key` of an object. BT_E_PROTOCOL, also where there are more than
 * BT_MEMBERS_MAX. */
int bt_members_from_json(const json_t *object, const char *key, struct bt_arena *a,
	const struct bt_pool_member **ret, size_t *ret_n, struct bt_err *err);
