/* How a host answers and asks by ARP: net.ipv4.conf.*.arp_ignore and arp_announce, of the calling
 * thread's network namespace. Private to the driver of loopback addresses. */
#pragma once
#include "base/err.h"
#include "base/mem.h"

/* Raises what is too low for addresses on the loopback in `all`, which counts for every interface:
 * arp_ignore to 1, arp_announce to 2 (Linux, Documentation/networking/ip-sysctl.rst). Values that
 * do are left as they are. */
int bt_arp_set(struct bt_err *err);
/* NULL: no interface answers for an address of another one, or names it when it asks. Else the one
 * that does, and what was expected (arena). */
const char *bt_arp_trouble(struct bt_arena *a);
