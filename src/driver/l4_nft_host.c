/* What the rules need of the balancer's host and of the hosts beside it, asked where it is true:
 * interfaces and sysctls of the agent's network, and the kernel's neighbours.
 *
 * Direct server return forwards to a member's address and leaves its MAC address to the kernel. One
 * that answers no ARP would swallow connections in silence, so it is asked for before the switch:
 * an entry is used (NTF_USE), which makes the kernel ask, and its notification awaited. That is for
 * those alone that have no valid entry, since it would undo one that a person made permanent. */
#include "driver/l4_nft.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- addresses and sysctls ---------------------------------------------------------------------
 */

static int family_of(const char *address)
{
	unsigned char buf[16];
	if (inet_pton(AF_INET, address, buf) == 1)
		return AF_INET;
	return inet_pton(AF_INET6, address, buf) == 1 ? AF_INET6 : AF_UNSPEC;
}

static bool same(const struct sockaddr *a, const char *text)
{
	unsigned char buf[16];
	if (!a || inet_pton(a->sa_family, text, buf) != 1)
		return false;
	if (a->sa_family == AF_INET)
		return memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr, buf, 4) ==
		       0;
	return memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, buf, 16) == 0;
}

static bool is_local(const struct ifaddrs *list, const char *address)
{
	for (; list; list = list->ifa_next)
		if (list->ifa_addr &&
			(list->ifa_addr->sa_family == AF_INET ||
				list->ifa_addr->sa_family == AF_INET6) &&
			same(list->ifa_addr, address))
			return true;
	return false;
}

static bool is_loopback(const char *address)
{
	return strncmp(address, "127.", 4) == 0 || bt_nft_same_address(address, "::1");
}

static bool forwards(int family)
{
	const char *path = family == AF_INET ? "/proc/sys/net/ipv4/ip_forward"
					     : "/proc/sys/net/ipv6/conf/all/forwarding";
	char c = '0';
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 || read(fd, &c, 1) != 1 || c != '0'; /* unreadable: the kernel will tell */
}

/* ---- the check
 * ----------------------------------------------------------------------------------- */

static const char *host_of(const struct bt_pool_member *m)
{
	return m->host ? m->host : "a member";
}

static int check_member(const struct bt_l4 *l4, const struct bt_pool_member *m,
	const struct ifaddrs *local, struct bt_err *err)
{
	bool dsr = l4->mode == BT_L4_DSR;
	int family = family_of(m->address);
	if (family == AF_UNSPEC)
		return bt_err_set(err, BT_E_REFUSED,
			"the address of %s is '%s': packets are sent to an IP address, so join its "
			"agent with --address IP",
			host_of(m), m->address);
	if (family != family_of(l4->vip))
		return bt_err_set(err, BT_E_REFUSED,
			"%s (%s) and the VIP %s are not of one address family", host_of(m),
			m->address, l4->vip);
	if (is_loopback(m->address))
		return bt_err_set(err, BT_E_REFUSED,
			"the address of %s is %s, where no packet from outside is sent: join its "
			"agent with --address and the one on the balancer's network",
			host_of(m), m->address);
	if (dsr && m->port != l4->port)
		return bt_err_set(err, BT_E_REFUSED,
			"%s listens on port %d and the VIP has %d: direct server return cannot "
			"change it",
			host_of(m), m->port, l4->port);
	if (dsr && is_local(local, m->address))
		return bt_err_set(err, BT_E_REFUSED,
			"%s (%s) is the balancer's own host: with direct server return instances "
			"run on others",
			host_of(m), m->address);
	return 0;
}

int bt_nft_host_check(const struct bt_l4_target *t, struct bt_err *err)
{
	const struct bt_l4 *l4 = t->service->l4;
	int family = family_of(l4->vip), r = 0;
	bool afar = false;
	struct ifaddrs *local = NULL;
	if (getifaddrs(&local) < 0)
		return bt_err_errno(err, errno, "this host's addresses");
	for (size_t i = 0; r == 0 && i < t->n_members; i++) {
		r = check_member(l4, &t->members[i], local, err);
		afar = afar || !is_local(local, t->members[i].address);
	}
	freeifaddrs(local);
	if (r < 0)
		return r;
	if (l4->mode == BT_L4_DSR && if_nametoindex(l4->nftables.interface) == 0)
		return bt_err_set(err, BT_E_REFUSED,
			"there is no interface '%s' here: traffic.nftables.interface names where "
			"clients' packets come in",
			l4->nftables.interface);
	if (l4->mode == BT_L4_NAT && afar && !forwards(family))
		return bt_err_set(err, BT_E_REFUSED, "this host forwards no packets: set %s=1",
			family == AF_INET ? "net.ipv4.ip_forward" : "net.ipv6.conf.all.forwarding");
	return 0;
}

/* Whether the host may choose the address as its own when it asks others, and where it has it: one
 * line of the file is "fe8000…01 02 40 20 80 lan", the fourth number the flags. */
static bool speaks_as(const char *vip, char interface[static IF_NAMESIZE])
{
	struct in6_addr want, have;
	char line[128], hex[33], name[32];
	bool found = false;
	FILE *f = inet_pton(AF_INET6, vip, &want) == 1 ? fopen("/proc/net/if_inet6", "re") : NULL;
	while (f && !found && fgets(line, sizeof line, f)) {
		unsigned flags;
		if (sscanf(line, "%32s %*x %*x %*x %x %31s", hex, &flags, name) != 3 ||
			bt_unhex(hex, &have, sizeof have) < 0)
			continue;
		found = memcmp(&want, &have, sizeof want) == 0 && !(flags & IFA_F_DEPRECATED);
	}
	if (f)
		fclose(f);
	if (found)
		snprintf(interface, IF_NAMESIZE, "%.*s", IF_NAMESIZE - 1, name);
	return found;
}

int bt_nft_source_check(const struct bt_l4 *l4, struct bt_err *err)
{
	char interface[IF_NAMESIZE];
	if (l4->mode != BT_L4_DSR || !speaks_as(l4->vip, interface))
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"this host asks others from the VIP %s, and those that have it on their loopback "
		"would answer themselves: ip addr change %s/128 dev %s preferred_lft 0",
		l4->vip, l4->vip, interface);
}

void bt_nft_host_trouble(const struct bt_l4 *l4, char *buf, size_t n)
{
	struct ifaddrs *local = NULL;
	buf[0] = 0;
	if (getifaddrs(&local) == 0 && !is_local(local, l4->vip))
		snprintf(buf, n,
			"no interface of this host has %s: clients reach it only while one has (ip "
			"addr add, keepalived)",
			l4->vip);
	freeifaddrs(local);
}

/* ---- neighbours
 * ------------------------------------------------------------------------------------ */

struct neighbours {
	const struct bt_l4_target *t;
	uint32_t interface;
	int family;
	bool *known, *failed; /* of each member */
};

static struct mnl_socket *route_socket(unsigned groups)
{
	struct mnl_socket *s = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (s && mnl_socket_bind(s, groups, MNL_SOCKET_AUTOPID) < 0) {
		mnl_socket_close(s);
		s = NULL;
	}
	return s;
}

static struct nlmsghdr *neighbour_message(
	const struct neighbours *n, char *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	struct ndmsg *d = mnl_nlmsg_put_extra_header(h, sizeof *d);
	d->ndm_family = (uint8_t)n->family;
	d->ndm_ifindex = (int)n->interface;
	return h;
}

/* Sends and reads the answers up to the end; -errno. */
static int exchange(struct mnl_socket *s, struct nlmsghdr *h, mnl_cb_t on, void *arg)
{
	_Alignas(struct nlmsghdr) char buf[32768];
	static _Atomic uint32_t seq;
	h->nlmsg_seq = ++seq;
	int r = 1;
	if (mnl_socket_sendto(s, h, h->nlmsg_len) < 0)
		return -errno;
	while (r > 0) {
		ssize_t got = mnl_socket_recvfrom(s, buf, sizeof buf);
		r = got < 0 ? -1
			    : mnl_cb_run(buf, (size_t)got, h->nlmsg_seq, mnl_socket_get_portid(s),
				      on, arg);
	}
	return r < 0 ? -errno : 0;
}

static int use(struct mnl_socket *s, const struct neighbours *n, const char *address)
{
	_Alignas(struct nlmsghdr) char buf[256];
	unsigned char ip[16];
	struct nlmsghdr *h = neighbour_message(n, buf, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_ACK);
	((struct ndmsg *)mnl_nlmsg_get_payload(h))->ndm_flags = NTF_USE;
	if (inet_pton(n->family, address, ip) != 1)
		return -EINVAL;
	mnl_attr_put(h, NDA_DST, n->family == AF_INET ? 4 : 16, ip);
	return exchange(s, h, NULL, NULL);
}

static int on_neighbour(const struct nlmsghdr *h, void *arg)
{
	struct neighbours *n = arg;
	const struct ndmsg *d = mnl_nlmsg_get_payload(h);
	const struct nlattr *a;
	size_t len = n->family == AF_INET ? 4 : 16;
	if ((uint32_t)d->ndm_ifindex != n->interface || d->ndm_family != n->family)
		return MNL_CB_OK;
	mnl_attr_for_each(a, h, sizeof *d)
	{
		unsigned char ip[16];
		if (mnl_attr_get_type(a) != NDA_DST || mnl_attr_get_payload_len(a) != len)
			continue;
		for (size_t i = 0; i < n->t->n_members; i++) {
			if (inet_pton(n->family, n->t->members[i].address, ip) != 1 ||
				memcmp(ip, mnl_attr_get_payload(a), len) != 0)
				continue;
			n->known[i] = d->ndm_state & (NUD_REACHABLE | NUD_STALE | NUD_DELAY |
							     NUD_PROBE | NUD_PERMANENT | NUD_NOARP);
			n->failed[i] = d->ndm_state & NUD_FAILED;
		}
	}
	return MNL_CB_OK;
}

/* One who is in and of whom nothing is known yet; NULL: none. */
static const struct bt_pool_member *missing(const struct neighbours *n, bool *ret_failed)
{
	const struct bt_pool_member *first = NULL;
	*ret_failed = false;
	for (size_t i = 0; i < n->t->n_members; i++)
		if (n->t->members[i].in && !n->known[i]) {
			first = first ? first : &n->t->members[i];
			*ret_failed = *ret_failed || n->failed[i];
		}
	return first;
}

static int list(struct neighbours *n, struct mnl_socket *ask, struct bt_err *err)
{
	_Alignas(struct nlmsghdr) char buf[256];
	int r = exchange(ask, neighbour_message(n, buf, RTM_GETNEIGH, NLM_F_DUMP), on_neighbour, n);
	return r < 0 ? bt_err_errno(err, -r, "ask the kernel for its neighbours") : 0;
}

static int use_missing(struct neighbours *n, struct mnl_socket *ask, struct bt_err *err)
{
	int r = list(n, ask, err);
	for (size_t i = 0; r == 0 && i < n->t->n_members; i++) {
		const struct bt_pool_member *m = &n->t->members[i];
		int e = m->in && !n->known[i] ? use(ask, n, m->address) : 0;
		if (e < 0)
			r = bt_err_errno(err, -e, "ask for the MAC address of %s (%s) on %s",
				host_of(m), m->address, n->t->service->l4->nftables.interface);
	}
	return r;
}

static int await(struct neighbours *n, struct mnl_socket *ask, struct mnl_socket *news,
	int64_t wait_ms, struct bt_err *err)
{
	int64_t deadline = bt_clock_boot_ms() + wait_ms;
	for (;;) {
		char heard[8192];
		bool failed = false;
		int r = list(n, ask, err);
		if (r < 0)
			return r;
		const struct bt_pool_member *m = missing(n, &failed);
		int64_t left = deadline - bt_clock_boot_ms();
		if (!m)
			return 0;
		struct pollfd p = {.fd = mnl_socket_get_fd(news), .events = POLLIN};
		if (failed || left <= 0 || poll(&p, 1, (int)left) <= 0)
			return bt_err_set(err, BT_E_FAILED,
				"the MAC address of %s (%s) is not to be found on %s: does it "
				"answer %s there?",
				host_of(m), m->address, n->t->service->l4->nftables.interface,
				n->family == AF_INET ? "ARP" : "neighbour solicitations");
		while (recv(p.fd, heard, sizeof heard, MSG_DONTWAIT) > 0) {
			/* what it was is asked for above */
		}
	}
}

int bt_nft_neighbours(const struct bt_l4_target *t, int64_t wait_ms, struct bt_err *err)
{
	const struct bt_l4 *l4 = t->service->l4;
	BT_FREE bool *known = bt_calloc(t->n_members + 1, sizeof *known);
	BT_FREE bool *failed = bt_calloc(t->n_members + 1, sizeof *failed);
	struct neighbours n = {
		t, if_nametoindex(l4->nftables.interface), family_of(l4->vip), known, failed};
	struct mnl_socket *ask = route_socket(0), *news = route_socket(RTMGRP_NEIGH);
	int r = ask && news ? 0 : bt_err_errno(err, errno, "open a socket to the kernel");
	if (r == 0)
		r = use_missing(&n, ask, err);
	if (r == 0)
		r = await(&n, ask, news, wait_ms, err);
	if (ask)
		mnl_socket_close(ask);
	if (news)
		mnl_socket_close(news);
	return r;
}
