/* After a boot of the host: what ran is started again, and gets requests only once it is healthy.
 *
 *     hold in force at the balancers ─▶ apps are started ─▶ each one healthy: its hold ends
 *
 * state_dir/boot names the boot that was seen last and the slots that are still held in it, so an
 * agent that is restarted meanwhile goes on, and one that is restarted later holds nothing. */
#pragma once
#include "agent/exec.h"
#include "base/log.h"

struct bt_boot;
/* Looks whether this is another boot than the last one. Before the drivers are started:
 * env->hold is set where something has to be held. */
int bt_boot_load(const char *state_dir, const struct bt_known *known, struct bt_driver_env *env,
	struct bt_boot **ret, struct bt_err *err);
/* Once the drivers are there: begins. Borrows all. */
void bt_boot_start(struct bt_boot *b, const struct bt_exec_env *env, const struct bt_log *log);
struct bt_boot *bt_boot_free(struct bt_boot *b); /* NULL is fine; returns NULL */
/* NULL: the slot of this host is not held (or b is NULL). Else done(arg, 0, NULL) once it is not.
 */
struct bt_op *bt_boot_wait(
	struct bt_boot *b, const char *service, const char *slot, bt_done_fn done, void *arg);
