/* Processes that others started: who alone listens on a port, and what it runs. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "driver/driver.h"

struct bt_foreign {
	pid_t pid;
	int64_t start_ticks; /* with pid and boot id it names the process for ever */
	uid_t uid;	     /* effective, like gid */
	gid_t gid;
	int64_t since_wall_ms;
	const char *name; /* comm */
	struct bt_seen_foreign seen;
};

/* The one process that all listeners of the port belong to: itself, or their ancestor that listens
 * too (a master with its workers). BT_E_NOTFOUND: nobody listens. BT_E_REFUSED: there are several,
 * they cannot be seen, or it is one of baton's own. Strings into the arena; seen.artifact is not
 * looked for. Blocks: it walks /proc. */
int bt_foreign_find(uint16_t port, struct bt_arena *a, struct bt_foreign *ret, struct bt_err *err);
/* The same beside the loop, and which file of its command line is the artifact, with its digest;
 * seen.no_artifact says why none is: most of all when the file was changed after the process
 * started, since it is then not what runs. *f is valid during done. */
struct bt_op *bt_foreign_examine(const struct bt_driver_env *env, uint16_t port,
	const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_foreign *f, const struct bt_err *err),
	void *arg);
/* Whether pid is root or was started by it, directly or not. */
bool bt_foreign_within(pid_t root, pid_t pid);
