/* Inside the bundle driver: the durable half of an install. All of it blocks. */
#pragma once
#include "driver/bundle.h"

char *bt_bundle_dir(const char *state_dir, const char *service); /* the caller frees */
/* Begins (installing = rq's release) or, at the end, makes it the slots' last one. */
int bt_bundle_state_begin(
	const char *state_dir, const struct bt_bundle_request *rq, struct bt_err *err);
int bt_bundle_state_end(
	const char *state_dir, const struct bt_bundle_request *rq, struct bt_err *err);
/* Removes what a crash left beside it; while the lock is held. */
void bt_bundle_state_tidy(const char *state_dir, const char *service);

struct bt_cleanup { /* what an install put there */
	struct bt_arena *arena;
	struct bt_cleanup_entry {
		const char *path;
		bool directory;
	} * items; /* by path */
	size_t n, cap;
};
void bt_cleanup_add(struct bt_cleanup *c, const char *path, bool directory); /* copies the path */
void bt_cleanup_sort(struct bt_cleanup *c); /* by path, each once */
bool bt_cleanup_has(const struct bt_cleanup *c, const char *path, bool directory); /* once sorted */
/* Whether a file of the list (it may be a link) lies on the way to path. */
bool bt_cleanup_above(const struct bt_cleanup *c, const char *path);
int bt_cleanup_read(const char *file, struct bt_cleanup *ret, struct bt_err *err); /* sorted */
int bt_cleanup_write(const char *file, const struct bt_cleanup *c, struct bt_err *err);
