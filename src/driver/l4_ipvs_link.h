/* The kernel's IPVS, asked over a netlink socket. Every call waits for the kernel's answer, which
 * may load a module first: on a thread of bt_work, never on the loop. */
#pragma once
#include "base/mem.h"
#include "driver/l4_ipvs_wire.h"

#define BT_IPVS_DESTS_MAX 16384 /* real servers of one service */

struct bt_ipvs_link {
	struct mnl_socket *socket; /* in the network namespace of the thread that opened it */
	uint32_t seq;
	uint16_t family;
	int ip; /* of the service asked about */
	char buf[BT_IPVS_DATAGRAM_MAX] __attribute__((aligned(8)));
};
/* BT_E_NOTFOUND: this kernel has no IPVS; BT_E_REFUSED: this process may not ask. The text of both
 * says what to do. On an error there is nothing to close. */
int bt_ipvs_open(struct bt_ipvs_link *link, struct bt_err *err);
void bt_ipvs_close(struct bt_ipvs_link *link);

/* The service of that address and port. 1: there is none. */
int bt_ipvs_service(struct bt_ipvs_link *link, const struct bt_ipvs_service *which,
	struct bt_ipvs_service *ret, struct bt_err *err);
/* Its real servers, into the arena. */
int bt_ipvs_dests(struct bt_ipvs_link *link, const struct bt_ipvs_service *which,
	struct bt_arena *a, struct bt_ipvs_dest **ret, size_t *ret_n, struct bt_err *err);
/* One of IPVS_CMD_{NEW,SET,DEL}_{SERVICE,DEST}; `dest` NULL for a service's. */
int bt_ipvs_do(struct bt_ipvs_link *link, uint8_t command, const struct bt_ipvs_service *service,
	const struct bt_ipvs_dest *dest, struct bt_err *err);
