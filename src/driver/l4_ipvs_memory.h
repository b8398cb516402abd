/* What is remembered of a virtual service beside the desired state, since the kernel has no place
 * for it: whose it is, and what its real servers had before they were told something. */
#pragma once
#include "base/mem.h"
#include "driver/l4_ipvs_wire.h"

struct bt_ipvs_known { /* a real server that was told something */
	struct bt_ipvs_address address;
	uint16_t port;
	int64_t weight; /* it had when it was last taken out; 0: it never was */
	bool out;	/* that was the last word: a weight of 0 is baton's */
	bool made;	/* it was not there before: ours to take away */
};
struct bt_ipvs_memory {
	struct bt_ipvs_address vip; /* of the virtual service; family 0: not known yet */
	uint16_t port;
	/* Another program's, which was there before: its real servers come and go as that one has
	 * it. Else it was made here. */
	bool adopted;
	const struct bt_ipvs_known *list;
	size_t n;
};
int bt_ipvs_memory_parse(const char *text, size_t n, struct bt_arena *a, struct bt_ipvs_memory *ret,
	struct bt_err *err);
char *bt_ipvs_memory_dump(const struct bt_ipvs_memory *m); /* the caller frees */
bool bt_ipvs_memory_equal(const struct bt_ipvs_memory *a, const struct bt_ipvs_memory *b);
/* The file; nothing is remembered where there is none. Saving makes its directory. */
int bt_ipvs_memory_load(
	const char *path, struct bt_arena *a, struct bt_ipvs_memory *ret, struct bt_err *err);
int bt_ipvs_memory_save(const char *path, const struct bt_ipvs_memory *m, struct bt_err *err);
/* NULL: it is not remembered. */
const struct bt_ipvs_known *bt_ipvs_memory_at(
	const struct bt_ipvs_memory *m, const struct bt_ipvs_address *address, uint16_t port);
/* Forgets what is remembered of another virtual service, which the config named before. */
void bt_ipvs_memory_keep(struct bt_ipvs_memory *m, const struct bt_ipvs_service *service);
/* Whether the virtual service is another's: as remembered; else one that is there is, unless real
 * servers are remembered as made here. */
bool bt_ipvs_memory_adopted(const struct bt_ipvs_memory *m, bool there);
