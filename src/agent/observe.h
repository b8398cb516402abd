/* Looks at everything of one service on this host: its slots, its balancer, its releases. */
#pragma once
#include "agent/exec.h"

struct bt_observing;
struct bt_observe_what {
	bool identity; /* running instances are asked who they are, too */
	bool foreign;  /* what holds a slot's port and is not baton's is looked at (and hashed) */
	/* name → value, for the API of the service's balancer, instead of those that are kept; used
	 * for this look only, and hidden from then on. NULL: none. Borrowed during the start. */
	const json_t *secrets;
};
/* service: canonical JSON.
 * done exactly once, from the loop, never from inside this call, unless it is cancelled; seen is a
 * seen host (world.h) as JSON, borrowed. A service that cannot be read is BT_E_PROTOCOL at once. */
int bt_observe_start(const struct bt_exec_env *env, const json_t *service,
	struct bt_observe_what what, void (*done)(void *arg, json_t *seen), void *arg,
	struct bt_observing **ret, struct bt_err *err);
struct bt_observing *bt_observe_cancel(struct bt_observing *o); /* NULL is fine; returns NULL */

/* What changes when an instance starts, dies or stops: a number to compare, without any I/O. */
uint64_t bt_observe_pulse(const struct bt_exec_env *env);
