/* Inside the bundle driver: what goes where. */
#pragma once
#include "driver/bundle_state.h"

#include <sys/types.h>

struct bt_bundle_entry {
	const char *from; /* NULL: a directory on the way to a destination */
	const char *to;
	mode_t mode; /* with its type */
	time_t mtime;
	bool retained, made;
};
struct bt_bundle_files {
	struct bt_arena *arena;
	struct bt_bundle_entry *items; /* a directory before what is in it */
	size_t n, cap;
};

/* From the appspec and the unpacked tree, as the host will be once `old` is removed. Blocks. */
int bt_bundle_gather(const char *revision, const struct bt_appspec *spec,
	const struct bt_cleanup *old, struct bt_bundle_files *ret, struct bt_err *err);
