/* Connections that the rules translated, from the kernel's table of connections: asked of the VIP
 * and answered by a member. The kernel is asked for those to the VIP's port alone; one that knows
 * no such filter (before Linux 5.8) lists all, so every entry is looked at here, too. It is not
 * asked for an IPv6 address: Linux takes that filter the wrong way round (seen with 6.18), and
 * lists all connections but those to it.
 *
 * A connection counts from its first packet until both ends have closed it. TIME_WAIT is over;
 * CLOSE was reset. */
#include "driver/l4_nft.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <string.h>

/* Which parts of a tuple a dump is filtered by (include/net/netfilter of the kernel keeps them to
 * itself; they are part of its interface all the same). */
enum { FILTER_IP_DST = 1 << 1, FILTER_PROTO_NUM = 1 << 3, FILTER_PROTO_DST_PORT = 1 << 5 };

struct end {
	unsigned char ip[16];
	size_t ip_len;
	uint16_t port; /* network order */
};
struct counting {
	int family;
	struct end vip;
	struct bt_seen_member *members;
	struct end *ends; /* of each member */
	size_t n_members;
};

static int on_attribute(const struct nlattr *a, void *arg)
{
	const struct nlattr **at = arg;
	if (mnl_attr_get_type(a) <= CTA_MAX)
		at[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

/* The attributes within one; all NULL where there is none. CTA_MAX is the largest of them. */
static void within(const struct nlattr *a, const struct nlattr *ret[static CTA_MAX + 1])
{
	memset((void *)ret, 0, sizeof *ret * (CTA_MAX + 1));
	if (a)
		mnl_attr_parse_nested(a, on_attribute, (void *)ret);
}

static bool take_address(const struct nlattr *a, size_t len, struct end *ret)
{
	if (!a || mnl_attr_get_payload_len(a) != len)
		return false;
	memcpy(ret->ip, mnl_attr_get_payload(a), len);
	ret->ip_len = len;
	return true;
}

/* One end of a TCP connection: source or destination of a tuple. */
static bool read_end(const struct nlattr *tuple, int family, bool source, struct end *ret)
{
	const struct nlattr *parts[CTA_MAX + 1], *ip[CTA_MAX + 1], *proto[CTA_MAX + 1];
	bool v4 = family == AF_INET;
	within(tuple, parts);
	within(parts[CTA_TUPLE_IP], ip);
	within(parts[CTA_TUPLE_PROTO], proto);
	const struct nlattr *port = proto[source ? CTA_PROTO_SRC_PORT : CTA_PROTO_DST_PORT];
	if (!proto[CTA_PROTO_NUM] || mnl_attr_get_u8(proto[CTA_PROTO_NUM]) != IPPROTO_TCP ||
		!port || mnl_attr_get_payload_len(port) != 2)
		return false;
	ret->port = mnl_attr_get_u16(port);
	return take_address(ip[v4 ? (source ? CTA_IP_V4_SRC : CTA_IP_V4_DST)
				  : (source ? CTA_IP_V6_SRC : CTA_IP_V6_DST)],
		v4 ? 4 : 16, ret);
}

static bool is_open(const struct nlattr *info)
{
	const struct nlattr *parts[CTA_MAX + 1], *tcp[CTA_MAX + 1];
	within(info, parts);
	within(parts[CTA_PROTOINFO_TCP], tcp);
	if (!tcp[CTA_PROTOINFO_TCP_STATE])
		return false;
	uint8_t state = mnl_attr_get_u8(tcp[CTA_PROTOINFO_TCP_STATE]);
	return state != TCP_CONNTRACK_NONE && state != TCP_CONNTRACK_TIME_WAIT &&
	       state != TCP_CONNTRACK_CLOSE;
}

static bool same_end(const struct end *a, const struct end *b)
{
	return a->port == b->port && a->ip_len == b->ip_len && memcmp(a->ip, b->ip, a->ip_len) == 0;
}

static bool parse_end(int family, const char *address, uint16_t port, struct end *ret)
{
	*ret = (struct end){.ip_len = family == AF_INET ? 4 : 16, .port = htons(port)};
	return inet_pton(family, address, ret->ip) == 1;
}

static int on_connection(const struct nlmsghdr *h, void *arg)
{
	struct counting *c = arg;
	const struct nlattr *at[CTA_MAX + 1] = {0};
	struct end asked, answers;
	mnl_attr_parse(h, sizeof(struct nfgenmsg), on_attribute, (void *)at);
	if (!read_end(at[CTA_TUPLE_ORIG], c->family, false, &asked) || !same_end(&asked, &c->vip) ||
		!read_end(at[CTA_TUPLE_REPLY], c->family, true, &answers) ||
		!is_open(at[CTA_PROTOINFO]))
		return MNL_CB_OK;
	for (size_t i = 0; i < c->n_members; i++)
		if (same_end(&c->ends[i], &answers)) {
			c->members[i].connections++;
			break;
		}
	return MNL_CB_OK;
}

static struct nlmsghdr *dump_request(const struct counting *c, char *buf, bool filter)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	h->nlmsg_seq = 1;
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof *g);
	g->nfgen_family = (uint8_t)c->family;
	g->version = NFNETLINK_V0;
	if (!filter)
		return h;
	bool v4 = c->family == AF_INET;
	struct nlattr *tuple = mnl_attr_nest_start(h, CTA_TUPLE_ORIG), *part;
	if (v4) {
		part = mnl_attr_nest_start(h, CTA_TUPLE_IP);
		mnl_attr_put(h, CTA_IP_V4_DST, c->vip.ip_len, c->vip.ip);
		mnl_attr_nest_end(h, part);
	}
	part = mnl_attr_nest_start(h, CTA_TUPLE_PROTO);
	mnl_attr_put_u8(h, CTA_PROTO_NUM, IPPROTO_TCP);
	mnl_attr_put_u16(h, CTA_PROTO_DST_PORT, c->vip.port);
	mnl_attr_nest_end(h, part);
	mnl_attr_nest_end(h, tuple);
	struct nlattr *flags = mnl_attr_nest_start(h, CTA_FILTER);
	mnl_attr_put_u32(h, CTA_FILTER_ORIG_FLAGS,
		(v4 ? FILTER_IP_DST : 0) | FILTER_PROTO_NUM | FILTER_PROTO_DST_PORT);
	mnl_attr_put_u32(h, CTA_FILTER_REPLY_FLAGS, 0);
	mnl_attr_nest_end(h, flags);
	return h;
}

/* -errno. */
static int dump(struct mnl_socket *s, struct counting *c, bool filter)
{
	_Alignas(struct nlmsghdr) char request[512], buf[65536];
	struct nlmsghdr *h = dump_request(c, request, filter);
	int r = 1;
	for (size_t i = 0; i < c->n_members; i++)
		c->members[i].connections = 0;
	if (mnl_socket_sendto(s, h, h->nlmsg_len) < 0)
		return -errno;
	while (r > 0) {
		ssize_t n = mnl_socket_recvfrom(s, buf, sizeof buf);
		r = n < 0 ? -1
			  : mnl_cb_run(
				    buf, (size_t)n, 1, mnl_socket_get_portid(s), on_connection, c);
	}
	return r < 0 ? -errno : 0;
}

int bt_nft_count(const struct bt_l4 *l4, struct bt_seen_member *members, size_t n_members,
	struct bt_err *err)
{
	struct counting c = {
		.family = strchr(l4->vip, ':') ? AF_INET6 : AF_INET,
		.members = members,
		.n_members = n_members,
	};
	BT_FREE struct end *ends = bt_calloc(n_members + 1, sizeof *ends);
	int r = -EINVAL;
	c.ends = ends;
	for (size_t i = 0; i < n_members; i++)
		if (!parse_end(c.family, members[i].address, members[i].port, &ends[i]))
			ends[i].ip_len = 0;
	if (!parse_end(c.family, l4->vip, l4->port, &c.vip))
		return bt_err_errno(err, EINVAL, "the VIP %s", l4->vip);
	/* A filter that is refused leaves nothing in the socket, an unknown one is passed over. */
	for (int filter = 1; r < 0 && filter >= 0; filter--) {
		struct mnl_socket *s = mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC);
		r = !s || mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID) < 0 ? -errno
									: dump(s, &c, filter);
		if (s)
			mnl_socket_close(s);
	}
	if (r < 0)
		return bt_err_errno(err, -r, "count connections (conntrack)");
	for (size_t i = 0; i < n_members; i++)
		members[i].counted = true;
	return 0;
}
