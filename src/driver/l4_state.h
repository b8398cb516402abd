/* What one service's L4 balancer was told last, on disk: l4/<service>/state.json.
 *
 * `pending` is written and synced before the balancer is touched, and goes away only when it became
 * `confirmed` or was taken back; so whoever finds it after a crash finishes the one or the other.
 * Each holds the service's config of that time, so that an agent whose server is away can say it
 * all again. */
#pragma once
#include "driver/driver.h"

struct bt_l4_wish { /* one desired state */
	uint64_t generation;
	const struct bt_pool_member *members;
	size_t n_members;
	const struct bt_service *service; /* in the state's arena */
};

struct bt_l4_state {
	struct bt_arena *arena;
	const char *service, *balancer; /* "shop", "haproxy/shop" */
	bool has_confirmed, has_pending;
	struct bt_l4_wish confirmed, pending;
	uint64_t epoch; /* of the balancer when it was last seen to be as confirmed; 0: unknown */
	const char *const *held; /* slots of this host that are out whatever was confirmed */
	size_t n_held;
};

struct bt_l4_state *bt_l4_state_new(const char *service, const char *balancer);
struct bt_l4_state *bt_l4_state_free(struct bt_l4_state *s); /* NULL is fine; returns NULL */
/* A deep copy with an arena of its own. */
struct bt_l4_state *bt_l4_state_copy(const struct bt_l4_state *s);
/* Into the state's arena. */
int bt_l4_wish_set(struct bt_l4_state *s, struct bt_l4_wish *ret, const struct bt_pool *pool,
	struct bt_err *err);
void bt_l4_state_hold(struct bt_l4_state *s, const char *const *slots, size_t n);
/* The confirmed members, those of `host` that are held as out; in the state's arena. */
const struct bt_pool_member *bt_l4_state_effective(struct bt_l4_state *s, const char *host);

char *bt_l4_state_dump(const struct bt_l4_state *s); /* caller frees */
int bt_l4_state_parse(const char *text, size_t n, struct bt_l4_state **ret, struct bt_err *err);
/* Durably; with neither confirmed nor pending the file goes away. Blocks. */
int bt_l4_state_save(const struct bt_l4_state *s, const char *path, struct bt_err *err);
/* 1: there is none. Blocks. */
int bt_l4_state_load(const char *path, struct bt_l4_state **ret, struct bt_err *err);
