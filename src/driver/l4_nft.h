/* nftables as an L4 balancer: what the family (l4_nft.c) is made of.
 *
 * A service has one table of baton's own. docs/balancers.md says what is in it and why; the rules
 * themselves are l4_nft_render.c. Everything here but the last two parts is pure. */
#pragma once
#include "driver/l4.h"
#include <jansson.h>
#include <netinet/in.h>

#define BT_NFT_NAME_MAX 256 /* of tables, chains and sets, with the NUL */
#define BT_NFT_LISTING_MAX (8u << 20)

/* ---- what shall be (l4_nft_render.c) -------------------------------------------------------- */

enum bt_nft_family { BT_NFT_IP, BT_NFT_IP6, BT_NFT_NETDEV, BT_NFT_FAMILIES };
const char *bt_nft_family_name(enum bt_nft_family f);
enum bt_nft_family bt_nft_family_of(const struct bt_l4 *l4);
/* "baton_shop"; '@' becomes '/', which no service's name has. */
void bt_nft_table_name(const char *service, char buf[static BT_NFT_NAME_MAX]);
/* The chain that sends to a member, and with direct server return the set of its connections. */
void bt_nft_chain_name(const char *address, uint16_t port, char buf[static BT_NFT_NAME_MAX]);
void bt_nft_flows_name(const char *address, uint16_t port, char buf[static BT_NFT_NAME_MAX]);
#define BT_NFT_CHAIN_PREFIX "to_"
#define BT_NFT_FLOWS_PREFIX "flows_"
#define BT_NFT_CHOOSE "choose"
/* The chain that the interface's packets come through. */
void bt_nft_ingress_name(const char *interface, char buf[static BT_NFT_NAME_MAX]);

/* ---- what is there (l4_nft_list.c) ---------------------------------------------------------- */

struct bt_nft_found {
	uint64_t handle;	      /* of the table; 0: it is not there */
	bool others[BT_NFT_FAMILIES]; /* tables of the same name in other families: an older mode */
	bool leads;		      /* a rule hands the service's packets to the members */
	struct bt_seen_member
		*members; /* those that have a chain; `in`: new connections go there */
	size_t n_members;
	const char **chains, **sets; /* names of those that a write has to take away if unwanted */
	size_t n_chains, n_sets;
};
/* The answer of `nft -j list tables`: handle and others of *ret. */
int bt_nft_tables_read(const char *text, size_t n, const struct bt_service *s,
	struct bt_nft_found *ret, struct bt_err *err);
/* The answer of `nft -j -t list table FAMILY NAME`: the rest. Strings into the arena. */
int bt_nft_table_read(const char *text, size_t n, const struct bt_service *s, struct bt_arena *a,
	struct bt_nft_found *ret, struct bt_err *err);
/* Whether two texts are the same IP address. */
bool bt_nft_same_address(const char *a, const char *b);

/* One transaction for `nft -j -f -` that makes the table as the target wants it, whatever of it is
 * there. The caller frees. */
char *bt_nft_render(const struct bt_l4_target *t, const struct bt_nft_found *found);

/* ---- the host (l4_nft_host.c; may block) ----------------------------------------------------- */

/* 0, or why this host cannot serve the target: an address that is none, an interface that is not
 * there, a member that is the balancer's own host, forwarding that is off. */
int bt_nft_host_check(const struct bt_l4_target *t, struct bt_err *err);
/* 0, or that an IPv6 VIP for direct server return is an address that the host itself speaks from
 * (IPv4 chooses by routes, IPv6 among all addresses), so that its health checks had no answer. */
int bt_nft_source_check(const struct bt_l4 *l4, struct bt_err *err);
/* The VIP is on none of this host's interfaces (or, with direct server return, not on that one):
 * who says so, into buf; "" when all is well. */
void bt_nft_host_trouble(const struct bt_l4 *l4, char *buf, size_t n);
/* Every member that is in answers for its address on the interface, within wait_ms; asks those
 * that the kernel does not know yet. */
int bt_nft_neighbours(const struct bt_l4_target *t, int64_t wait_ms, struct bt_err *err);

/* ---- connections (l4_nft_count.c; may block) ------------------------------------------------- */

/* Counts connections to the VIP's port by the member that answers them, into members[i].connections
 * and .counted. Those that ended (TIME_WAIT, CLOSE) are none. */
int bt_nft_count(const struct bt_l4 *l4, struct bt_seen_member *members, size_t n_members,
	struct bt_err *err);
