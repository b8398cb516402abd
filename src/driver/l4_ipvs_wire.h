/* IPVS as the kernel speaks it: generic netlink, family "IPVS" (linux/ip_vs.h, linux/genetlink.h).
 *
 * Pure: requests into a buffer, replies out of one. Nothing here has a socket, so that the bytes
 * are held against dumps of a real kernel and the reading of them is fuzzed. Buffers are aligned to
 * 4 bytes, as malloc's and the kernel's messages are. Numbers are the host's, addresses and ports
 * in the messages the network's; the structs hold ports in the host's order. */
#pragma once
#include "base/err.h"
#include <linux/ip_vs.h>
#include <stddef.h>
#include <stdint.h>

#define BT_IPVS_REQUEST_MAX 512
#define BT_IPVS_DATAGRAM_MAX 65536 /* of replies; the kernel's dumps come in at most 32 KiB */

struct bt_ipvs_address {
	int family;	   /* AF_INET or AF_INET6 */
	uint8_t bytes[16]; /* of IPv4 the first 4; the others are 0 */
};
/* 0, or BT_E_CONFIG: it is neither an IPv4 nor an IPv6 address. */
int bt_ipvs_address_parse(const char *text, struct bt_ipvs_address *ret, struct bt_err *err);
const char *bt_ipvs_address_text(const struct bt_ipvs_address *a, char buf[static 46]);
bool bt_ipvs_address_equal(const struct bt_ipvs_address *a, const struct bt_ipvs_address *b);

struct bt_ipvs_service { /* a virtual service, TCP */
	struct bt_ipvs_address address;
	uint16_t port;
	char scheduler[IP_VS_SCHEDNAME_MAXLEN + 1];
	uint32_t flags;	  /* IP_VS_SVC_F_… */
	uint64_t packets; /* that came in since it was made, or its counters were zeroed */
};

struct bt_ipvs_dest { /* a real server of it */
	struct bt_ipvs_address address;
	uint16_t port;
	uint32_t forward;      /* IP_VS_CONN_F_FWD_MASK: MASQ, LOCALNODE, TUNNEL, DROUTE */
	int64_t weight;	       /* 0: no new connections */
	uint32_t upper, lower; /* thresholds of connections; 0: none */
	uint8_t tunnel_type;
	uint16_t tunnel_port, tunnel_flags;
	uint32_t active, inactive, persistent; /* connections, as read */
};

/* ---- requests: their length, within BT_IPVS_REQUEST_MAX ------------------------------------- */

/* CTRL_CMD_GETFAMILY: which number the family has in this kernel. */
size_t bt_ipvs_ask_family(void *buf, uint32_t seq);
/* One of IPVS_CMD_{NEW,SET,DEL,GET}_{SERVICE,DEST}. Of the service its address and port say which;
 * scheduler and flags count for NEW and SET. `dest` is NULL but for NEW, SET and DEL_DEST.
 * GET_DEST asks for all of the service's, as a dump. */
size_t bt_ipvs_ask(void *buf, uint32_t seq, uint16_t family, uint8_t command,
	const struct bt_ipvs_service *service, const struct bt_ipvs_dest *dest);

/* ---- replies --------------------------------------------------------------------------------- */

enum bt_ipvs_kind {
	BT_IPVS_OTHER, /* of another request, or not ours to know */
	BT_IPVS_END,   /* of the request: done, or `error` */
	BT_IPVS_FAMILY,
	BT_IPVS_SERVICE,
	BT_IPVS_DEST,
};
struct bt_ipvs_reply {
	enum bt_ipvs_kind kind;
	int error;     /* END: 0 or an errno */
	char why[160]; /* END: what the kernel says to it; "" nothing */
	bool torn;     /* of a dump: what it tells of changed while it was written */
	uint16_t family;
	struct bt_ipvs_service service;
	struct bt_ipvs_dest dest;
};
/* The next message of a datagram. `ip` is the family of the addresses in replies that do not say
 * theirs (of a dest, in old kernels). 1: *at and *left are past it; 0: there was none;
 * BT_E_PROTOCOL: it is none that IPVS sends. */
int bt_ipvs_next(const void **at, size_t *left, uint32_t seq, uint16_t family, int ip,
	struct bt_ipvs_reply *ret, struct bt_err *err);
