/* The rules, as one transaction: packets see the old ones or the new ones and nothing between.
 *
 * Chains are emptied and filled again, and neither table nor sets are replaced: the table's handle
 * tells an own change from a flush by somebody else, and the sets remember who serves whom.
 *
 * NAT (family ip or ip6). Conntrack asks these rules for the first packet of a connection only, so
 * established ones keep their member whatever is written. `choose` goes round in turn.
 *
 *     prerouting, output   daddr VIP, dport PORT → choose → to_MEMBER: dnat
 *     postrouting          what was translated here: masquerade, so that replies come back
 *     redirects            IPv6 without masquerade: members are told of no shorter way to clients
 *
 * Direct server return (family netdev, before routing and conntrack). Nothing remembers
 * connections but these rules. A packet is handed to the kernel's neighbour output, which writes
 * the member's MAC address before it and takes care of that address as for any neighbour.
 *
 *     on_INTERFACE   daddr VIP, dport PORT → service
 *     service        begins a connection, and none that began just now, or that has ended: opening
 *                    in flows_MEMBER → to_MEMBER, for each; else → choose
 *     opening        forget who served this client's port before; → choose
 *     choose         by a hash of client and port → to_MEMBER, of those that are in
 *     to_MEMBER      remember it in flows_MEMBER; forward
 *
 * The hash has a constant seed, so that after a flush of the rules most connections find their
 * member again. `young` is there since a SYN that is repeated must reach the member of the first
 * one, also when the members have changed between. What ended is forgotten after a minute
 * (`closing`), what is idle after an hour. Sets have a size: once one is full the hash alone
 * decides for further connections. */
#include "driver/l4_nft.h"

#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

#define YOUNG_S 15 /* SYNs are repeated after 1, 3 and 7 s */
#define BRIEF_S 60 /* not yet answered, or ended */
#define IDLE_S 3600
#define MAX_FLOWS 131072 /* of one member: 2 MB at once, some 15 MB when full */
#define HASH_SEED 0x6261746f

enum { PRIO_DSTNAT = -100, PRIO_SRCNAT = 100 };

struct render {
	const struct bt_l4_target *t;
	const struct bt_nft_found *found;
	const struct bt_l4 *l4;
	const char *family;
	const char *ip; /* the protocol of the VIP: "ip" or "ip6" */
	char table[BT_NFT_NAME_MAX];
	struct bt_str out;
	size_t n;
};

const char *bt_nft_family_name(enum bt_nft_family f)
{
	static const char *const names[] = {"ip", "ip6", "netdev"};
	return names[f];
}

enum bt_nft_family bt_nft_family_of(const struct bt_l4 *l4)
{
	if (l4->mode == BT_L4_DSR)
		return BT_NFT_NETDEV;
	return strchr(l4->vip, ':') ? BT_NFT_IP6 : BT_NFT_IP;
}

void bt_nft_table_name(const char *service, char buf[static BT_NFT_NAME_MAX])
{
	snprintf(buf, BT_NFT_NAME_MAX, "baton_%s", service);
	for (char *c = buf; *c; c++)
		if (*c == '@')
			*c = '/';
}

/* nft's names hold letters, digits and / - _ . */
static void member_name(
	const char *prefix, const char *address, uint16_t port, char buf[static BT_NFT_NAME_MAX])
{
	snprintf(buf, BT_NFT_NAME_MAX, "%s%.64s_%d", prefix, address, port);
	for (char *c = buf; *c; c++)
		if (*c == ':')
			*c = '-';
}

void bt_nft_chain_name(const char *address, uint16_t port, char buf[static BT_NFT_NAME_MAX])
{
	member_name(BT_NFT_CHAIN_PREFIX, address, port, buf);
}

void bt_nft_flows_name(const char *address, uint16_t port, char buf[static BT_NFT_NAME_MAX])
{
	member_name(BT_NFT_FLOWS_PREFIX, address, port, buf);
}

void bt_nft_ingress_name(const char *interface, char buf[static BT_NFT_NAME_MAX])
{
	snprintf(buf, BT_NFT_NAME_MAX, "on_%.32s", interface);
	for (char *c = buf; *c; c++)
		if (!strchr("/-_.", *c) && !((*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') ||
						   (*c >= 'A' && *c <= 'Z')))
			*c = '_';
}

/* ---- commands ------------------------------------------------------------------------------ */

/* One line each, so that a person can compare two of them. Takes the object. */
static void say(struct render *r, const char *verb, const char *kind, json_t *object)
{
	json_t *command = json_pack("{s:{s:o}}", verb, kind, object);
	BT_FREE char *text = bt_json_dump(command);
	bt_str_addf(&r->out, "%s%s", r->n++ ? ",\n" : "", text);
	json_decref(command);
}

static json_t *named(const struct render *r, const char *name)
{
	return json_pack("{s:s, s:s, s:s}", "family", r->family, "table", r->table, "name", name);
}

static void table(struct render *r, const char *verb, const char *family)
{
	say(r, verb, "table", json_pack("{s:s, s:s}", "family", family, "name", r->table));
}

/* Adds a chain where it is not there yet, and empties it. */
static void chain(struct render *r, const char *name)
{
	say(r, "add", "chain", named(r, name));
	say(r, "flush", "chain", named(r, name));
}

static void base_chain(
	struct render *r, const char *name, const char *type, const char *hook, int priority)
{
	json_t *c = named(r, name);
	json_object_set_new(c, "type", json_string(type));
	json_object_set_new(c, "hook", json_string(hook));
	json_object_set_new(c, "prio", json_integer(priority));
	json_object_set_new(c, "policy", json_string("accept"));
	if (strcmp(hook, "ingress") == 0)
		json_object_set_new(c, "dev", json_string(r->l4->nftables.interface));
	say(r, "add", "chain", c);
	say(r, "flush", "chain", named(r, name));
}

/* Takes the list of expressions. */
static void rule(struct render *r, const char *chain_name, json_t *expressions)
{
	say(r, "add", "rule",
		json_pack("{s:s, s:s, s:s, s:o}", "family", r->family, "table", r->table, "chain",
			chain_name, "expr", expressions));
}

/* ---- expressions ----------------------------------------------------------------------------- */

static json_t *payload(const char *protocol, const char *field)
{
	return json_pack("{s:{s:s, s:s}}", "payload", "protocol", protocol, "field", field);
}

static json_t *match(const char *op, json_t *left, json_t *right)
{
	return json_pack("{s:{s:s, s:o, s:o}}", "match", "op", op, "left", left, "right", right);
}

static json_t *jump(const char *target)
{
	return json_pack("{s:{s:s}}", "goto", "target", target);
}

/* Who speaks: the client's address and port. */
static json_t *client(const struct render *r)
{
	return json_pack("{s:[o, o]}", "concat", payload(r->ip, "saddr"), payload("tcp", "sport"));
}

static json_t *flags(json_t *of, const char *op, json_t *are)
{
	return match(op, json_pack("{s:[o, o]}", "&", payload("tcp", "flags"), of), are);
}

static json_t *begins(void)
{
	return flags(
		json_pack("[s, s, s, s]", "fin", "syn", "rst", "ack"), "==", json_string("syn"));
}

static json_t *in_set(const struct render *r, const char *op, const char *set)
{
	return match(op, client(r), json_sprintf("@%s", set));
}

/* Remembers who speaks in the set, for that long; 0: the set's own time. */
static json_t *remember(const struct render *r, const char *set, int seconds)
{
	json_t *who = client(r);
	if (seconds)
		who = json_pack("{s:{s:o, s:i}}", "elem", "val", who, "timeout", seconds);
	return json_pack("{s:{s:s, s:o, s:o}}", "set", "op", "update", "elem", who, "set",
		json_sprintf("@%s", set));
}

static json_t *forget(const struct render *r, const char *set)
{
	return json_pack("{s:{s:s, s:o, s:o}}", "set", "op", "delete", "elem", client(r), "set",
		json_sprintf("@%s", set));
}

/* ---- what both modes have -------------------------------------------------------------------- */

static void to_service(struct render *r, const char *from, const char *target)
{
	rule(r, from,
		json_pack("[o, o, o]",
			match("==", payload(r->ip, "daddr"), json_string(r->l4->vip)),
			match("==", payload("tcp", "dport"), json_integer(r->l4->port)),
			jump(target)));
}

/* The verdict map over those that are in; nothing is chosen where nobody is. */
static void choose(struct render *r)
{
	json_t *list = json_array();
	char name[BT_NFT_NAME_MAX];
	for (size_t i = 0; i < r->t->n_members; i++) {
		const struct bt_pool_member *m = &r->t->members[i];
		if (!m->in)
			continue;
		bt_nft_chain_name(m->address, m->port, name);
		json_array_append_new(
			list, json_pack("[i, o]", (int)json_array_size(list), jump(name)));
	}
	size_t n = json_array_size(list);
	json_t *key = r->l4->mode == BT_L4_DSR
			      ? json_pack("{s:{s:i, s:i, s:o}}", "jhash", "mod", (int)n, "seed",
					HASH_SEED, "expr", client(r))
			      : json_pack("{s:{s:s, s:i, s:i}}", "numgen", "mode", "inc", "mod",
					(int)n, "offset", 0);
	json_t *rules = json_pack("[{s:{s:o, s:{s:o}}}]", "vmap", "key", key, "data", "set", list);
	if (n)
		rule(r, BT_NFT_CHOOSE, rules);
	else
		json_decref(rules);
}

/* ---- NAT ------------------------------------------------------------------------------------- */

static json_t *is_tcp(void)
{
	return match("==", json_pack("{s:{s:s}}", "meta", "key", "l4proto"), json_string("tcp"));
}

/* What the connection's first packet had. */
static json_t *original(const char *key, json_t *value)
{
	return match("==", json_pack("{s:{s:s, s:s}}", "ct", "key", key, "dir", "original"), value);
}

static void masquerade(struct render *r)
{
	BT_FREE char *daddr = bt_asprintf("%s daddr", r->ip);
	rule(r, "postrouting",
		json_pack("[o, o, o, o, {s:n}]", is_tcp(),
			match("in", json_pack("{s:{s:s}}", "ct", "key", "status"),
				json_string("dnat")),
			original(daddr, json_string(r->l4->vip)),
			original("proto-dst", json_integer(r->l4->port)), "masquerade"));
}

/* Replies that leave by the interface they came in at make the kernel tell the member of a shorter
 * way, which leads past the translation. IPv4's NAT drops that word by itself; conntrack knows
 * nothing of IPv6's. */
static bool hides_ways(const struct render *r)
{
	return r->l4->mode == BT_L4_NAT && !r->l4->nftables.masquerade && strcmp(r->ip, "ip6") == 0;
}

static void hide_ways(struct render *r)
{
	base_chain(r, "redirects", "filter", "output", 0);
	for (size_t i = 0; i < r->t->n_members; i++)
		rule(r, "redirects",
			json_pack("[o, o, {s:n}]",
				match("==", payload("icmpv6", "type"), json_string("nd-redirect")),
				match("==", payload("ip6", "daddr"),
					json_string(r->t->members[i].address)),
				"drop"));
}

static void nat(struct render *r)
{
	char name[BT_NFT_NAME_MAX];
	base_chain(r, "prerouting", "nat", "prerouting", PRIO_DSTNAT);
	base_chain(r, "output", "nat", "output", PRIO_DSTNAT);
	base_chain(r, "postrouting", "nat", "postrouting", PRIO_SRCNAT);
	chain(r, BT_NFT_CHOOSE);
	for (size_t i = 0; i < r->t->n_members; i++) {
		const struct bt_pool_member *m = &r->t->members[i];
		bt_nft_chain_name(m->address, m->port, name);
		chain(r, name);
		rule(r, name,
			json_pack("[o, {s:{s:s, s:i}}]", is_tcp(), "dnat", "addr", m->address,
				"port", (int)m->port));
	}
	choose(r);
	to_service(r, "prerouting", BT_NFT_CHOOSE);
	to_service(r, "output", BT_NFT_CHOOSE);
	if (r->l4->nftables.masquerade)
		masquerade(r);
	if (hides_ways(r))
		hide_ways(r);
}

/* ---- direct server return ----------------------------------------------------------------------
 */

/* One that is there stays as it is: nft marks a set that rules write to as dynamic, its JSON cannot
 * say so, and the same set without that mark would be another one. */
static void set(struct render *r, const char *name, int seconds, int size)
{
	for (size_t i = 0; i < r->found->n_sets; i++)
		if (strcmp(r->found->sets[i], name) == 0)
			return;
	json_t *s = named(r, name);
	json_object_set_new(s, "type",
		json_pack("[s, s]", strcmp(r->ip, "ip6") == 0 ? "ipv6_addr" : "ipv4_addr",
			"inet_service"));
	json_object_set_new(s, "flags", json_pack("[s]", "timeout"));
	json_object_set_new(s, "timeout", json_integer(seconds));
	json_object_set_new(s, "size", json_integer(size));
	say(r, "add", "set", s);
}

static void to_member(struct render *r, const struct bt_pool_member *m)
{
	char name[BT_NFT_NAME_MAX], flows[BT_NFT_NAME_MAX];
	bt_nft_chain_name(m->address, m->port, name);
	bt_nft_flows_name(m->address, m->port, flows);
	rule(r, name, json_pack("[o, o]", begins(), remember(r, flows, BRIEF_S)));
	rule(r, name,
		json_pack("[o, o]", flags(json_pack("[s, s]", "fin", "rst"), "!=", json_integer(0)),
			remember(r, "closing", 0)));
	rule(r, name, json_pack("[o, o]", in_set(r, "==", "closing"), remember(r, flows, BRIEF_S)));
	rule(r, name,
		json_pack("[o, o, o]", flags(json_pack("[s]", "syn"), "==", json_integer(0)),
			in_set(r, "!=", "closing"), remember(r, flows, 0)));
	rule(r, name,
		json_pack("[{s:{s:s, s:s, s:s}}]", "fwd", "dev", r->l4->nftables.interface,
			"family", r->ip, "addr", m->address));
}

static void service_chains(struct render *r)
{
	char name[BT_NFT_NAME_MAX], flows[BT_NFT_NAME_MAX];
	rule(r, "opening", json_pack("[o]", remember(r, "young", 0)));
	rule(r, "opening", json_pack("[o]", forget(r, "closing")));
	rule(r, "service",
		json_pack("[o, o, o]", begins(), in_set(r, "!=", "young"), jump("opening")));
	/* The connection of that port has ended: another one begins, however soon. */
	rule(r, "service",
		json_pack("[o, o, o]", begins(), in_set(r, "==", "closing"), jump("opening")));
	for (size_t i = 0; i < r->t->n_members; i++) {
		const struct bt_pool_member *m = &r->t->members[i];
		bt_nft_chain_name(m->address, m->port, name);
		bt_nft_flows_name(m->address, m->port, flows);
		rule(r, "opening", json_pack("[o]", forget(r, flows)));
		rule(r, "service", json_pack("[o, o]", in_set(r, "==", flows), jump(name)));
	}
	rule(r, "opening", json_pack("[o]", jump(BT_NFT_CHOOSE)));
	rule(r, "service", json_pack("[o]", jump(BT_NFT_CHOOSE)));
}

static void direct(struct render *r)
{
	char name[BT_NFT_NAME_MAX], ingress[BT_NFT_NAME_MAX];
	bt_nft_ingress_name(r->l4->nftables.interface, ingress);
	set(r, "young", YOUNG_S, MAX_FLOWS);
	set(r, "closing", BRIEF_S, MAX_FLOWS);
	base_chain(r, ingress, "filter", "ingress", 0);
	chain(r, "service");
	chain(r, "opening");
	chain(r, BT_NFT_CHOOSE);
	for (size_t i = 0; i < r->t->n_members; i++) {
		const struct bt_pool_member *m = &r->t->members[i];
		bt_nft_flows_name(m->address, m->port, name);
		set(r, name, IDLE_S, MAX_FLOWS);
		bt_nft_chain_name(m->address, m->port, name);
		chain(r, name);
	}
	for (size_t i = 0; i < r->t->n_members; i++)
		to_member(r, &r->t->members[i]);
	choose(r);
	service_chains(r);
	to_service(r, ingress, "service");
}

/* ---- what is there and not wanted
 * ---------------------------------------------------------------- */

static bool is_member_part(const struct render *r, const char *name,
	void (*name_of)(const char *, uint16_t, char[static BT_NFT_NAME_MAX]))
{
	char wanted[BT_NFT_NAME_MAX];
	for (size_t i = 0; i < r->t->n_members; i++) {
		name_of(r->t->members[i].address, r->t->members[i].port, wanted);
		if (strcmp(wanted, name) == 0)
			return true;
	}
	return false;
}

static bool wanted_chain(const struct render *r, const char *name)
{
	static const char *const nat_chains[] = {"prerouting", "output", "postrouting"};
	static const char *const direct_chains[] = {"service", "opening"};
	char ingress[BT_NFT_NAME_MAX];
	bool dsr = r->l4->mode == BT_L4_DSR;
	if (strcmp(name, "redirects") == 0)
		return hides_ways(r);
	for (size_t i = 0; !dsr && i < BT_ARRAY_LEN(nat_chains); i++)
		if (strcmp(name, nat_chains[i]) == 0)
			return true;
	for (size_t i = 0; dsr && i < BT_ARRAY_LEN(direct_chains); i++)
		if (strcmp(name, direct_chains[i]) == 0)
			return true;
	if (dsr)
		bt_nft_ingress_name(r->l4->nftables.interface, ingress);
	return strcmp(name, BT_NFT_CHOOSE) == 0 || (dsr && strcmp(name, ingress) == 0) ||
	       is_member_part(r, name, bt_nft_chain_name);
}

static bool wanted_set(const struct render *r, const char *name)
{
	return r->l4->mode == BT_L4_DSR &&
	       (strcmp(name, "young") == 0 || strcmp(name, "closing") == 0 ||
		       is_member_part(r, name, bt_nft_flows_name));
}

static void take_away(struct render *r)
{
	const struct bt_nft_found *f = r->found;
	for (size_t i = 0; i < f->n_chains; i++)
		if (!wanted_chain(r, f->chains[i]))
			say(r, "flush", "chain", named(r, f->chains[i]));
	for (size_t i = 0; i < f->n_chains; i++)
		if (!wanted_chain(r, f->chains[i]))
			say(r, "delete", "chain", named(r, f->chains[i]));
	for (size_t i = 0; i < f->n_sets; i++)
		if (!wanted_set(r, f->sets[i]))
			say(r, "delete", "set", named(r, f->sets[i]));
	for (int i = 0; i < BT_NFT_FAMILIES; i++)
		if (f->others[i])
			table(r, "delete", bt_nft_family_name((enum bt_nft_family)i));
}

char *bt_nft_render(const struct bt_l4_target *t, const struct bt_nft_found *found)
{
	const struct bt_l4 *l4 = t->service->l4;
	struct render r = {.t = t,
		.found = found,
		.l4 = l4,
		.family = bt_nft_family_name(bt_nft_family_of(l4)),
		.ip = strchr(l4->vip, ':') ? "ip6" : "ip"};
	bt_nft_table_name(t->service->name, r.table);
	bt_str_add(&r.out, "{\"nftables\":[\n");
	table(&r, "add", r.family);
	if (l4->mode == BT_L4_DSR)
		direct(&r);
	else
		nat(&r);
	take_away(&r);
	bt_str_add(&r.out, "\n]}\n");
	return bt_str_steal(&r.out);
}
