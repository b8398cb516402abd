/* The services' addresses on this host's loopback, after a start of the agent: what should be there
 * by desired state and is not (the host was booted, somebody took it off) is put back at once, or
 * tried again until it is there. What should not be there is never put there, and never taken away
 * without a task: only a deployment knows that nobody is connected to it. */
#pragma once
#include "agent/exec.h"
#include "base/log.h"

struct bt_addresses;
/* Before the first look at the host is reported. Borrows both. */
struct bt_addresses *bt_addresses_start(const struct bt_exec_env *env, const struct bt_log *log);
struct bt_addresses *bt_addresses_free(struct bt_addresses *a); /* NULL is fine; returns NULL */
