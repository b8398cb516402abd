/* Kinds of L4 balancers that this agent can drive: one row each. */
#include "driver/l4.h"

#include <stddef.h>

const struct bt_l4_family *const bt_l4_families[] = {
	&bt_l4_haproxy,
	&bt_l4_nftables,
	&bt_l4_ipvs,
	&bt_l4_http,
	&bt_l4_rotation,
	NULL,
};
