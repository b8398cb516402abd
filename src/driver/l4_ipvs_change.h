/* What has to change so that IPVS sends to those who are in, and to no other instance of the
 * service: pure, from what was read, what is wanted and what is remembered. */
#pragma once
#include "driver/driver.h"
#include "driver/l4_ipvs_memory.h"

/* What is wanted. Addresses are parsed before, since one that cannot be is refused. */
struct bt_ipvs_member {
	struct bt_ipvs_address address;
	uint16_t port;
	bool in;
	bool fresh; /* it comes in by this change */
	const char *slot, *host;
};
struct bt_ipvs_want {
	struct bt_ipvs_address vip; /* of the virtual service */
	uint16_t port;
	bool adopted; /* it is another program's */
	bool again;   /* nothing new is said, so nobody is waited for */
	const struct bt_ipvs_member *members;
	size_t n_members;
	int64_t weight;	  /* of who is in, where the config says one; 0: see bt_ipvs_plan */
	uint32_t forward; /* of a real server that is made */
};

struct bt_ipvs_change {
	uint8_t command;	      /* IPVS_CMD_{NEW,SET,DEL}_DEST */
	struct bt_ipvs_dest to, from; /* from: as it was; not of NEW_DEST */
};
struct bt_ipvs_plan {
	/* In this order, so that at no moment fewer serve than before or after. */
	const struct bt_ipvs_change *changes;
	size_t n_changes;
	struct bt_ipvs_memory memory; /* to be on disk before the first change */
	bool remembers;		      /* it is another than before */
};
/* A member that is in gets the weight that the config says; where it says none, it keeps the one it
 * has, gets back the one it had, or the highest of the others, or 100. Real servers that are
 * neither members nor remembered belong to others and are left alone. In a service that was adopted
 * no real server is made, and one that its owner has taken away, or has put at 0, is let in only if
 * it is fresh or was taken out by baton. */
void bt_ipvs_plan(const struct bt_ipvs_want *want, const struct bt_ipvs_dest *seen, size_t n_seen,
	const struct bt_ipvs_memory *memory, struct bt_arena *a, struct bt_ipvs_plan *ret);
/* It is told to be in, and who owns the service keeps it from new connections. */
bool bt_ipvs_is_away(const struct bt_ipvs_want *want, const struct bt_ipvs_member *m,
	const struct bt_ipvs_dest *seen, size_t n_seen, const struct bt_ipvs_memory *memory);
/* Who is away and comes in, or is all that would be left in when others go out: its owner has to
 * put its real server back before anything is changed. NULL: nobody is waited for. */
const struct bt_ipvs_member *bt_ipvs_awaited(const struct bt_ipvs_want *want,
	const struct bt_ipvs_dest *seen, size_t n_seen, const struct bt_ipvs_memory *memory);
/* The first member that is not as it is wanted, or NULL. */
const struct bt_ipvs_member *bt_ipvs_differs(const struct bt_ipvs_want *want,
	const struct bt_ipvs_dest *seen, size_t n_seen, const struct bt_ipvs_memory *memory);
