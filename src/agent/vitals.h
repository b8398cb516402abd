/* Is what runs still healthy? Deployments check health while they are at it; this asks in between
 * (health.watch), so that people see on the page that an instance that was healthy is not any more.
 * Nothing is done about it: traffic is the operator's and nginx's own. */
#pragma once
#include "agent/exec.h"

struct bt_vitals;
/* changed: an instance turned healthy or unhealthy; from the loop. */
struct bt_vitals *bt_vitals_new(
	const struct bt_exec_env *env, void (*changed)(void *arg), void *arg);
struct bt_vitals *bt_vitals_free(struct bt_vitals *v); /* NULL is fine; returns NULL */
/* About once a second: asks those whose turn it is. */
void bt_vitals_tick(struct bt_vitals *v);
/* Adds "healthy" and "unhealthy_why" (world.h) to the instances of a seen host, where known. */
void bt_vitals_add(const struct bt_vitals *v, const char *service, json_t *seen);
