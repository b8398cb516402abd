/* The lifecycle events of a CodeDeploy deployment on a host: one row each. The appspec's parser,
 * the plan and the agent read the same rows. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum bt_lifecycle { /* in the order of an in-place deployment */
	BT_LIFE_BEFORE_BLOCK_TRAFFIC,
	BT_LIFE_BLOCK_TRAFFIC,
	BT_LIFE_AFTER_BLOCK_TRAFFIC,
	BT_LIFE_APPLICATION_STOP,
	BT_LIFE_DOWNLOAD_BUNDLE,
	BT_LIFE_BEFORE_INSTALL,
	BT_LIFE_INSTALL,
	BT_LIFE_AFTER_INSTALL,
	BT_LIFE_APPLICATION_START,
	BT_LIFE_VALIDATE_SERVICE,
	BT_LIFE_BEFORE_ALLOW_TRAFFIC,
	BT_LIFE_ALLOW_TRAFFIC,
	BT_LIFE_AFTER_ALLOW_TRAFFIC,
	BT_LIFECYCLES,
};

struct bt_lifecycle_info {
	const char *name;
	bool scripts; /* a bundle may have some for it */
	bool last;    /* … and they are the last successful revision's, not the new one's */
	bool traffic; /* comes only where something sends requests */
	bool app;     /* may leave the app other than it was: nothing takes that back by itself */
};
extern const struct bt_lifecycle_info bt_lifecycles[BT_LIFECYCLES];

/* BT_LIFECYCLES where there is none of that name. */
enum bt_lifecycle bt_lifecycle_find(const char *name);
/* The names of those that may have scripts; returns how many. */
size_t bt_lifecycle_names(const char *ret[static BT_LIFECYCLES]);
