/* A service's addresses on its host's own interface (`lo`), as direct server return needs them: the
 * balancer passes packets on with the clients' destination unchanged, so every host answers to that
 * address, and none of them may say so to the network.
 *
 * All of this is asked of and told to the kernel by rtnetlink and /proc/sys/net, in the network
 * namespace of the calling thread; it answers at once, so nothing here needs a thread or an op. */
#pragma once
#include "base/mem.h"
#include "model/service.h"
#include "model/world.h"

/* What is there now: one a vip, in their order, in the arena. `trouble` names what would break the
 * service: the address is on another interface, ARP would be answered for it, … */
int bt_loopback_see(const struct bt_loopback *l, struct bt_arena *a, struct bt_seen_vip **ret,
	struct bt_err *err);
/* Sets what ARP needs, then adds the addresses that are missing (/32, /128), and sees both. All of
 * it there: nothing is changed. BT_E_REFUSED: an address is on another interface, or the interface
 * answers ARP; -EPERM: CAP_NET_ADMIN is missing. What was added before an error stays. */
int bt_loopback_put(const struct bt_loopback *l, struct bt_err *err);
/* Takes the addresses off, and sees them gone; the ARP settings stay, since other addresses may
 * need them. None there: nothing is changed. BT_E_REFUSED: an address is on another interface. */
int bt_loopback_take(const struct bt_loopback *l, struct bt_err *err);
