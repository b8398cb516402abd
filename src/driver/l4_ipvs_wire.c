/* A message is a netlink header, a generic one (command, version) and attributes; what a service or
 * a real server is stands in one nested attribute. libmnl lays them out and walks them.
 *
 * Attributes that are not known are stepped over, since newer kernels add some. One that is known
 * and is too short for its type ends the reading: numbers that decide where traffic goes are not
 * guessed at. */
#include "driver/l4_ipvs_wire.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <stdio.h>
#include <string.h>

#define V4_MASK UINT32_MAX
#define V6_PREFIX 128

int bt_ipvs_address_parse(const char *text, struct bt_ipvs_address *ret, struct bt_err *err)
{
	struct bt_ipvs_address a = {.family = strchr(text, ':') ? AF_INET6 : AF_INET};
	if (inet_pton(a.family, text, a.bytes) != 1)
		return bt_err_set(err, BT_E_CONFIG,
			"expected an IPv4 or IPv6 address such as 10.0.0.7, found '%.100s'", text);
	*ret = a;
	return 0;
}

const char *bt_ipvs_address_text(const struct bt_ipvs_address *a, char buf[static 46])
{
	if (!inet_ntop(a->family, a->bytes, buf, 46))
		snprintf(buf, 46, "?");
	return buf;
}

bool bt_ipvs_address_equal(const struct bt_ipvs_address *a, const struct bt_ipvs_address *b)
{
	return a->family == b->family && memcmp(a->bytes, b->bytes, sizeof a->bytes) == 0;
}

/* ---- requests ------------------------------------------------------------------------------- */

static struct nlmsghdr *begin(
	void *buf, uint32_t seq, uint16_t type, uint16_t flags, uint8_t command, uint8_t version)
{
	memset(buf, 0, BT_IPVS_REQUEST_MAX); /* libmnl leaves what is between attributes as it is */
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_seq = seq;
	struct genlmsghdr *g = mnl_nlmsg_put_extra_header(h, sizeof *g);
	g->cmd = command;
	g->version = version;
	return h;
}

size_t bt_ipvs_ask_family(void *buf, uint32_t seq)
{
	struct nlmsghdr *h = begin(buf, seq, GENL_ID_CTRL, NLM_F_ACK, CTRL_CMD_GETFAMILY, 1);
	mnl_attr_put_strz(h, CTRL_ATTR_FAMILY_NAME, IPVS_GENL_NAME);
	return h->nlmsg_len;
}

static void put_service(struct nlmsghdr *h, const struct bt_ipvs_service *s, bool whole)
{
	struct ip_vs_flags flags = {s->flags, UINT32_MAX};
	struct nlattr *nest = mnl_attr_nest_start(h, IPVS_CMD_ATTR_SERVICE);
	mnl_attr_put_u16(h, IPVS_SVC_ATTR_AF, (uint16_t)s->address.family);
	mnl_attr_put_u16(h, IPVS_SVC_ATTR_PROTOCOL, IPPROTO_TCP);
	mnl_attr_put(h, IPVS_SVC_ATTR_ADDR, sizeof s->address.bytes, s->address.bytes);
	mnl_attr_put_u16(h, IPVS_SVC_ATTR_PORT, htons(s->port));
	if (whole) {
		mnl_attr_put_strz(h, IPVS_SVC_ATTR_SCHED_NAME, s->scheduler);
		mnl_attr_put(h, IPVS_SVC_ATTR_FLAGS, sizeof flags, &flags);
		mnl_attr_put_u32(h, IPVS_SVC_ATTR_TIMEOUT, 0);
		mnl_attr_put_u32(h, IPVS_SVC_ATTR_NETMASK,
			s->address.family == AF_INET6 ? V6_PREFIX : V4_MASK);
	}
	mnl_attr_nest_end(h, nest);
}

static void put_dest(struct nlmsghdr *h, const struct bt_ipvs_dest *d, bool whole)
{
	struct nlattr *nest = mnl_attr_nest_start(h, IPVS_CMD_ATTR_DEST);
	mnl_attr_put_u16(h, IPVS_DEST_ATTR_ADDR_FAMILY, (uint16_t)d->address.family);
	mnl_attr_put(h, IPVS_DEST_ATTR_ADDR, sizeof d->address.bytes, d->address.bytes);
	mnl_attr_put_u16(h, IPVS_DEST_ATTR_PORT, htons(d->port));
	if (whole) {
		mnl_attr_put_u32(h, IPVS_DEST_ATTR_FWD_METHOD, d->forward);
		mnl_attr_put_u32(h, IPVS_DEST_ATTR_WEIGHT, (uint32_t)d->weight);
		mnl_attr_put_u32(h, IPVS_DEST_ATTR_U_THRESH, d->upper);
		mnl_attr_put_u32(h, IPVS_DEST_ATTR_L_THRESH, d->lower);
	}
	if (whole && d->forward == IP_VS_CONN_F_TUNNEL) {
		mnl_attr_put_u8(h, IPVS_DEST_ATTR_TUN_TYPE, d->tunnel_type);
		mnl_attr_put_u16(h, IPVS_DEST_ATTR_TUN_PORT, htons(d->tunnel_port));
		mnl_attr_put_u16(h, IPVS_DEST_ATTR_TUN_FLAGS, d->tunnel_flags);
	}
	mnl_attr_nest_end(h, nest);
}

size_t bt_ipvs_ask(void *buf, uint32_t seq, uint16_t family, uint8_t command,
	const struct bt_ipvs_service *service, const struct bt_ipvs_dest *dest)
{
	uint16_t flags = command == IPVS_CMD_GET_DEST ? NLM_F_DUMP : NLM_F_ACK;
	struct nlmsghdr *h = begin(buf, seq, family, flags, command, IPVS_GENL_VERSION);
	put_service(h, service, command == IPVS_CMD_NEW_SERVICE || command == IPVS_CMD_SET_SERVICE);
	if (dest)
		put_dest(h, dest, command == IPVS_CMD_NEW_DEST || command == IPVS_CMD_SET_DEST);
	return h->nlmsg_len;
}

/* ---- replies -------------------------------------------------------------------------------- */

#define ATTRIBUTES 24 /* more than any of the enums has */

/* The attributes of one level by their type, checked to be as long as `least` says. */
struct level {
	const struct nlattr *of[ATTRIBUTES];
};

static bool walk(
	struct level *l, const void *payload, size_t n, const uint8_t least[static ATTRIBUTES])
{
	const struct nlattr *attr;
	memset(l, 0, sizeof *l);
	mnl_attr_for_each_payload(payload, n)
	{
		uint16_t type = mnl_attr_get_type(attr);
		if (type >= ATTRIBUTES)
			continue;
		if (mnl_attr_get_payload_len(attr) < least[type])
			return false;
		l->of[type] = attr;
	}
	return true;
}

static bool nested(
	struct level *l, const struct nlattr *nest, const uint8_t least[static ATTRIBUTES])
{
	return walk(l, mnl_attr_get_payload(nest), mnl_attr_get_payload_len(nest), least);
}

static uint16_t u16(const struct nlattr *a)
{
	return a ? mnl_attr_get_u16(a) : 0;
}

static uint32_t u32(const struct nlattr *a)
{
	return a ? mnl_attr_get_u32(a) : 0;
}

static void text(const struct nlattr *a, char *to, size_t n)
{
	size_t len = a ? mnl_attr_get_payload_len(a) : 0;
	len = len < n - 1 ? len : n - 1;
	if (len)
		memcpy(to, mnl_attr_get_payload(a), len);
	to[len] = 0;
}

/* IPv4 addresses come with 12 bytes of anything behind them. */
static bool address(const struct nlattr *a, int family, struct bt_ipvs_address *ret)
{
	if (!a || (family != AF_INET && family != AF_INET6))
		return false;
	*ret = (struct bt_ipvs_address){.family = family};
	memcpy(ret->bytes, mnl_attr_get_payload(a), family == AF_INET ? 4 : 16);
	return true;
}

static uint64_t packets_in(const struct nlattr *stats)
{
	static const uint8_t least[ATTRIBUTES] = {[IPVS_STATS_ATTR_INPKTS] = 8};
	struct level l;
	return stats && nested(&l, stats, least) && l.of[IPVS_STATS_ATTR_INPKTS]
		       ? mnl_attr_get_u64(l.of[IPVS_STATS_ATTR_INPKTS])
		       : 0;
}

static const char *read_service(const struct nlattr *nest, struct bt_ipvs_service *ret)
{
	static const uint8_t least[ATTRIBUTES] = {
		[IPVS_SVC_ATTR_AF] = 2,
		[IPVS_SVC_ATTR_ADDR] = 16,
		[IPVS_SVC_ATTR_PORT] = 2,
		[IPVS_SVC_ATTR_FLAGS] = sizeof(struct ip_vs_flags),
	};
	struct level l;
	struct ip_vs_flags flags = {0, 0};
	if (!nested(&l, nest, least))
		return "an attribute of a service is too short";
	if (!address(l.of[IPVS_SVC_ATTR_ADDR], u16(l.of[IPVS_SVC_ATTR_AF]), &ret->address))
		return "a service has no address";
	ret->port = ntohs(u16(l.of[IPVS_SVC_ATTR_PORT]));
	text(l.of[IPVS_SVC_ATTR_SCHED_NAME], ret->scheduler, sizeof ret->scheduler);
	if (l.of[IPVS_SVC_ATTR_FLAGS])
		memcpy(&flags, mnl_attr_get_payload(l.of[IPVS_SVC_ATTR_FLAGS]), sizeof flags);
	ret->flags = flags.flags;
	ret->packets = packets_in(l.of[IPVS_SVC_ATTR_STATS64]);
	return NULL;
}

static const char *read_dest(const struct nlattr *nest, int ip, struct bt_ipvs_dest *ret)
{
	static const uint8_t least[ATTRIBUTES] = {
		[IPVS_DEST_ATTR_ADDR] = 16,
		[IPVS_DEST_ATTR_PORT] = 2,
		[IPVS_DEST_ATTR_FWD_METHOD] = 4,
		[IPVS_DEST_ATTR_WEIGHT] = 4,
		[IPVS_DEST_ATTR_U_THRESH] = 4,
		[IPVS_DEST_ATTR_L_THRESH] = 4,
		[IPVS_DEST_ATTR_ACTIVE_CONNS] = 4,
		[IPVS_DEST_ATTR_INACT_CONNS] = 4,
		[IPVS_DEST_ATTR_PERSIST_CONNS] = 4,
		[IPVS_DEST_ATTR_ADDR_FAMILY] = 2,
		[IPVS_DEST_ATTR_TUN_TYPE] = 1,
		[IPVS_DEST_ATTR_TUN_PORT] = 2,
		[IPVS_DEST_ATTR_TUN_FLAGS] = 2,
	};
	struct level l;
	if (!nested(&l, nest, least))
		return "an attribute of a real server is too short";
	const struct nlattr *family = l.of[IPVS_DEST_ATTR_ADDR_FAMILY];
	if (!address(l.of[IPVS_DEST_ATTR_ADDR], family ? u16(family) : ip, &ret->address))
		return "a real server has no address";
	if (!l.of[IPVS_DEST_ATTR_PORT] || !l.of[IPVS_DEST_ATTR_WEIGHT] ||
		!l.of[IPVS_DEST_ATTR_ACTIVE_CONNS])
		return "a real server has no port, weight or count of connections";
	ret->port = ntohs(u16(l.of[IPVS_DEST_ATTR_PORT]));
	ret->forward = u32(l.of[IPVS_DEST_ATTR_FWD_METHOD]) & IP_VS_CONN_F_FWD_MASK;
	ret->weight = (int32_t)u32(l.of[IPVS_DEST_ATTR_WEIGHT]);
	ret->upper = u32(l.of[IPVS_DEST_ATTR_U_THRESH]);
	ret->lower = u32(l.of[IPVS_DEST_ATTR_L_THRESH]);
	ret->active = u32(l.of[IPVS_DEST_ATTR_ACTIVE_CONNS]);
	ret->inactive = u32(l.of[IPVS_DEST_ATTR_INACT_CONNS]);
	ret->persistent = u32(l.of[IPVS_DEST_ATTR_PERSIST_CONNS]);
	if (l.of[IPVS_DEST_ATTR_TUN_TYPE])
		ret->tunnel_type = mnl_attr_get_u8(l.of[IPVS_DEST_ATTR_TUN_TYPE]);
	ret->tunnel_port = ntohs(u16(l.of[IPVS_DEST_ATTR_TUN_PORT]));
	ret->tunnel_flags = u16(l.of[IPVS_DEST_ATTR_TUN_FLAGS]);
	return NULL;
}

/* NLMSG_ERROR answers a request with 0 or an errno; behind it, unless it was cut, the request, and
 * then perhaps a sentence of the kernel's. NLMSG_DONE ends a dump with the same number. */
static const char *read_end(const struct nlmsghdr *h, struct bt_ipvs_reply *ret)
{
	static const uint8_t least[ATTRIBUTES] = {0};
	size_t n = mnl_nlmsg_get_payload_len(h);
	int error = 0;
	struct level l;
	ret->kind = BT_IPVS_END;
	if (n >= sizeof error)
		memcpy(&error, mnl_nlmsg_get_payload(h), sizeof error);
	if (error > 0 || error < -4095) /* the kernel's errnos are below 4096 */
		return "an error with a number that is none";
	ret->error = -error;
	if (h->nlmsg_type == NLMSG_DONE)
		return NULL;
	if (n < sizeof(struct nlmsgerr))
		return "an error without the request that it answers";
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(h);
	size_t at = sizeof *e;
	if (!(h->nlmsg_flags & NLM_F_CAPPED) && e->msg.nlmsg_len > sizeof e->msg)
		at += MNL_ALIGN((size_t)e->msg.nlmsg_len - sizeof e->msg);
	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || at >= n)
		return NULL;
	if (walk(&l, (const char *)e + at, n - at, least))
		text(l.of[NLMSGERR_ATTR_MSG], ret->why, sizeof ret->why);
	return NULL;
}

static const char *read_genl(
	const struct nlmsghdr *h, uint16_t family, int ip, struct bt_ipvs_reply *ret)
{
	static const uint8_t of_ctrl[ATTRIBUTES] = {[CTRL_ATTR_FAMILY_ID] = 2};
	static const uint8_t of_ipvs[ATTRIBUTES] = {0};
	bool ctrl = h->nlmsg_type == GENL_ID_CTRL;
	struct level l;
	if (!ctrl && h->nlmsg_type != family)
		return NULL;
	size_t n = mnl_nlmsg_get_payload_len(h);
	if (n < sizeof(struct genlmsghdr))
		return "a message without a generic header";
	const struct genlmsghdr *g = mnl_nlmsg_get_payload(h);
	if (!walk(&l, g + 1, n - sizeof *g, ctrl ? of_ctrl : of_ipvs))
		return "an attribute is too short";
	if (ctrl) {
		if (!l.of[CTRL_ATTR_FAMILY_ID])
			return "a family without a number";
		ret->kind = BT_IPVS_FAMILY;
		ret->family = u16(l.of[CTRL_ATTR_FAMILY_ID]);
	} else if (g->cmd == IPVS_CMD_NEW_SERVICE && l.of[IPVS_CMD_ATTR_SERVICE]) {
		ret->kind = BT_IPVS_SERVICE;
		return read_service(l.of[IPVS_CMD_ATTR_SERVICE], &ret->service);
	} else if (g->cmd == IPVS_CMD_NEW_DEST && l.of[IPVS_CMD_ATTR_DEST]) {
		ret->kind = BT_IPVS_DEST;
		return read_dest(l.of[IPVS_CMD_ATTR_DEST], ip, &ret->dest);
	}
	return NULL;
}

int bt_ipvs_next(const void **at, size_t *left, uint32_t seq, uint16_t family, int ip,
	struct bt_ipvs_reply *ret, struct bt_err *err)
{
	const struct nlmsghdr *h = *at;
	if (*left == 0)
		return 0;
	/* libmnl takes lengths for signed: one above 2 GiB would pass as less than what is left */
	if (*left > BT_IPVS_DATAGRAM_MAX || !mnl_nlmsg_ok(h, (int)*left) || h->nlmsg_len > *left)
		return bt_err_set(err, BT_E_PROTOCOL, "IPVS: a message that is cut");
	size_t len = MNL_ALIGN((size_t)h->nlmsg_len);
	len = len < *left ? len : *left;
	struct bt_ipvs_reply out = {.kind = BT_IPVS_OTHER};
	const char *wrong = NULL;
	if (h->nlmsg_seq == seq) {
		out.torn = (h->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
		if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE)
			wrong = read_end(h, &out);
		else if (h->nlmsg_type >= NLMSG_MIN_TYPE)
			wrong = read_genl(h, family, ip, &out);
	}
	if (wrong)
		return bt_err_set(err, BT_E_PROTOCOL, "IPVS: the kernel sent %s", wrong);
	*at = (const char *)*at + len;
	*left -= len;
	*ret = out;
	return 1;
}
