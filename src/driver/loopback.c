/* One rtnetlink dump says where every address of the host is; so looking is one pass, and each
 * change is followed by another look.
 *
 * IPv4: scope host, so that the kernel never takes the address as the source of what the host
 * itself begins. IPv6: no duplicate address detection, since every other host of the service has
 * the same address, and deprecated (preferred for no time) for the same reason as scope host. The
 * kernel answers neighbour solicitations only for addresses of the interface that they came in at
 * (ndisc_recv_ns in Linux's net/ipv6/ndisc.c), so IPv6 needs nothing like arp_ignore; only
 * proxy_ndp with an entry for the address would answer. */
#include "driver/loopback.h"

#include "base/str.h"
#include "driver/arp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_S 5
#define ANSWER_BYTES 32768 /* a dump comes in pieces of at most 32 KiB */

struct place { /* where one address was found */
	const char *vip;
	uint8_t bytes[16];
	size_t n; /* 4 or 16 */
	bool here;
	uint8_t prefix; /* here */
	uint32_t flags; /* here: IFA_F_… */
	char elsewhere[IF_NAMESIZE];
};

struct look {
	int fd;
	uint32_t seq;
	unsigned index; /* of the interface */
	bool up;
	struct place *places;
	size_t n;
};

static const char *family(const struct place *p)
{
	return p->n == 4 ? "ARP" : "neighbour discovery";
}

/* ---- asking the kernel ---------------------------------------------------------------------- */

static int start(struct look *k, struct bt_err *err)
{
	struct timeval limit = {ANSWER_TIMEOUT_S, 0};
	k->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (k->fd < 0)
		return bt_err_errno(err, errno, "open rtnetlink");
	setsockopt(k->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return 0;
}

/* One answer of the kernel's; the caller's buffer holds it. */
static ssize_t receive(struct look *k, char *buf, size_t size, struct bt_err *err)
{
	for (;;) {
		struct sockaddr_nl from = {0};
		socklen_t len = sizeof from;
		ssize_t n = recvfrom(k->fd, buf, size, MSG_TRUNC, (struct sockaddr *)&from, &len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bt_err_errno(err, errno, "rtnetlink does not answer");
		if ((size_t)n > size)
			return bt_err_set(
				err, BT_E_PROTOCOL, "rtnetlink: an answer of %zd bytes", n);
		if (from.nl_pid == 0) /* other processes may write to us, too */
			return n;
	}
}

static struct place *find(struct look *k, int af, const void *bytes, size_t n)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->places[i].n == (af == AF_INET ? 4u : 16u) && n >= k->places[i].n &&
			memcmp(k->places[i].bytes, bytes, k->places[i].n) == 0)
			return &k->places[i];
	return NULL;
}

/* IFA_LOCAL is the host's own address; IFA_ADDRESS is the peer's where there is one. */
static void take_address(struct look *k, struct nlmsghdr *h)
{
	struct ifaddrmsg *m = NLMSG_DATA(h);
	const struct rtattr *address = NULL, *local = NULL;
	uint32_t flags = m->ifa_flags;
	int left = (int)IFA_PAYLOAD(h);
	for (struct rtattr *a = IFA_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFA_ADDRESS)
			address = a;
		else if (a->rta_type == IFA_LOCAL)
			local = a;
		else if (a->rta_type == IFA_FLAGS && RTA_PAYLOAD(a) >= sizeof flags)
			memcpy(&flags, RTA_DATA(a), sizeof flags);
	}
	local = local ? local : address;
	struct place *p =
		local ? find(k, m->ifa_family, RTA_DATA(local), RTA_PAYLOAD(local)) : NULL;
	if (!p)
		return;
	if (m->ifa_index == k->index) {
		p->here = true;
		p->prefix = m->ifa_prefixlen;
		p->flags = flags;
	} else if (!if_indextoname(m->ifa_index, p->elsewhere))
		snprintf(p->elsewhere, sizeof p->elsewhere, "#%u", m->ifa_index);
}

/* 1: more follows; 0: the end. */
static int take_piece(struct look *k, char *buf, size_t n, struct bt_err *err)
{
	for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf; NLMSG_OK(h, n);
		h = NLMSG_NEXT(h, n)) {
		if (h->nlmsg_seq != k->seq)
			continue;
		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type == NLMSG_ERROR) {
			const struct nlmsgerr *e = NLMSG_DATA(h);
			return bt_err_errno(err, -e->error, "rtnetlink: list addresses");
		}
		if (h->nlmsg_type == RTM_NEWADDR &&
			h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct ifaddrmsg)))
			take_address(k, h);
	}
	return 1;
}

static int dump(struct look *k, struct bt_err *err)
{
	struct {
		struct nlmsghdr h;
		struct ifaddrmsg m;
	} rq = {.h = {.nlmsg_len = sizeof rq,
			.nlmsg_type = RTM_GETADDR,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
			.nlmsg_seq = ++k->seq}};
	_Alignas(struct nlmsghdr) char buf[ANSWER_BYTES];
	for (size_t i = 0; i < k->n; i++) {
		k->places[i].here = false;
		k->places[i].elsewhere[0] = '\0';
	}
	if (send(k->fd, &rq, sizeof rq, 0) != sizeof rq)
		return bt_err_errno(err, errno, "rtnetlink: list addresses");
	for (int more = 1; more > 0;) {
		ssize_t n = receive(k, buf, sizeof buf, err);
		more = n < 0 ? (int)n : take_piece(k, buf, (size_t)n, err);
		if (more < 0)
			return more;
	}
	return 0;
}

struct change {
	struct nlmsghdr h;
	struct ifaddrmsg m;
	char room[96];
};

static void add_attribute(struct change *c, unsigned short type, const void *data, size_t n)
{
	struct rtattr *a = (struct rtattr *)(void *)((char *)c + NLMSG_ALIGN(c->h.nlmsg_len));
	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(n);
	memcpy(RTA_DATA(a), data, n);
	c->h.nlmsg_len = (uint32_t)(NLMSG_ALIGN(c->h.nlmsg_len) + RTA_ALIGN(a->rta_len));
}

/* The errno that the kernel answered with, 0 good; < 0 with err where it did not answer. */
static int tell(struct look *k, struct change *c, struct bt_err *err)
{
	_Alignas(struct nlmsghdr) char buf[ANSWER_BYTES];
	if (send(k->fd, c, c->h.nlmsg_len, 0) != (ssize_t)c->h.nlmsg_len)
		return bt_err_errno(err, errno, "rtnetlink");
	for (;;) {
		ssize_t n = receive(k, buf, sizeof buf, err);
		if (n < 0)
			return (int)n;
		size_t left = (size_t)n;
		for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf; NLMSG_OK(h, left);
			h = NLMSG_NEXT(h, left)) {
			const struct nlmsgerr *e = NLMSG_DATA(h);
			if (h->nlmsg_seq == k->seq && h->nlmsg_type == NLMSG_ERROR &&
				h->nlmsg_len >= NLMSG_LENGTH(sizeof *e))
				return -e->error;
		}
	}
}

static int change(struct look *k, const struct place *p, bool add, struct bt_err *err)
{
	bool v4 = p->n == 4;
	struct change c = {
		.h = {.nlmsg_len = NLMSG_LENGTH(sizeof c.m),
			.nlmsg_type = add ? RTM_NEWADDR : RTM_DELADDR,
			.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK |
						  (add ? NLM_F_CREATE | NLM_F_EXCL : 0)),
			.nlmsg_seq = ++k->seq},
		.m = {.ifa_family = v4 ? AF_INET : AF_INET6,
			.ifa_prefixlen = add ? (uint8_t)(p->n * 8) : p->prefix,
			.ifa_scope = v4 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE,
			.ifa_index = k->index},
	};
	const uint32_t flags = IFA_F_NODAD;
	const struct ifa_cacheinfo deprecated = {.ifa_prefered = 0, .ifa_valid = UINT32_MAX};
	add_attribute(&c, IFA_LOCAL, p->bytes, p->n);
	add_attribute(&c, IFA_ADDRESS, p->bytes, p->n);
	if (add && !v4) {
		add_attribute(&c, IFA_FLAGS, &flags, sizeof flags);
		add_attribute(&c, IFA_CACHEINFO, &deprecated, sizeof deprecated);
	}
	int e = tell(k, &c, err);
	if (e <= 0 || e == EEXIST || e == EADDRNOTAVAIL) /* somebody else has just done it */
		return e < 0 ? e : 0;
	const char *hint = e == EPERM		? " (the agent needs CAP_NET_ADMIN)"
			   : e == EACCES && !v4 ? " (IPv6 is off there: sysctl "
						  "net.ipv6.conf.*.disable_ipv6)"
						: "";
	return bt_err_errno(err, e, "%s %s%s", add ? "add" : "remove", p->vip, hint);
}

/* ---- looking -------------------------------------------------------------------------------- */

static int read_interface(struct look *k, const char *name, struct bt_err *err)
{
	struct ifreq q = {0};
	BT_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(q.ifr_name, sizeof q.ifr_name, "%s", name);
	k->index = if_nametoindex(name);
	if (!k->index || fd < 0 || ioctl(fd, SIOCGIFFLAGS, &q) < 0)
		return bt_err_errno(err, errno, "interface %s", name);
	k->up = q.ifr_flags & IFF_UP;
	if (!(q.ifr_flags & (IFF_LOOPBACK | IFF_NOARP)))
		return bt_err_set(err, BT_E_REFUSED,
			"interface %s answers to the network for its addresses: expected lo or a "
			"dummy interface",
			name);
	return 0;
}

static int read_vips(
	const struct bt_loopback *l, struct look *k, struct bt_arena *a, struct bt_err *err)
{
	k->places = BT_ARENA_ARRAY(a, struct place, l->n_vips);
	k->n = l->n_vips;
	for (size_t i = 0; i < l->n_vips; i++) {
		struct place *p = &k->places[i];
		*p = (struct place){.vip = l->vips[i], .n = 4};
		if (inet_pton(AF_INET, p->vip, p->bytes) == 1)
			continue;
		p->n = 16;
		if (inet_pton(AF_INET6, p->vip, p->bytes) != 1)
			return bt_err_set(err, BT_E_PROTOCOL,
				"'%.60s' is no address: expected IPv4 or IPv6", p->vip);
	}
	return 0;
}

static int look(const struct bt_loopback *l, struct look *k, struct bt_arena *a, struct bt_err *err)
{
	*k = (struct look){.fd = -1};
	int r = read_vips(l, k, a, err);
	if (r == 0)
		r = read_interface(k, l->interface, err);
	if (r == 0)
		r = start(k, err);
	return r < 0 ? r : dump(k, err);
}

static void done(struct look *k)
{
	if (k->fd >= 0)
		close(k->fd);
}

static const char *trouble_of(const struct look *k, const struct place *p,
	const struct bt_loopback *l, struct bt_arena *a)
{
	if (p->elsewhere[0])
		return bt_arena_printf(a,
			"it is on %s, which answers %s for it: remove it there (ip addr del)",
			p->elsewhere, family(p));
	if (!p->here)
		return NULL;
	if (p->prefix != p->n * 8)
		return bt_arena_printf(a,
			"it is on %s as /%d, which takes in its neighbours, too: expected /%zu",
			l->interface, p->prefix, p->n * 8);
	if (!k->up)
		return bt_arena_printf(
			a, "%s is down: ip link set %s up", l->interface, l->interface);
	if (p->flags & IFA_F_DADFAILED)
		return bt_arena_printf(a,
			"the kernel found it at another host (duplicate address detection): remove "
			"it from %s, baton adds it without",
			l->interface);
	return p->n == 4 ? bt_arp_trouble(a) : NULL;
}

int bt_loopback_see(const struct bt_loopback *l, struct bt_arena *a, struct bt_seen_vip **ret,
	struct bt_err *err)
{
	struct look k;
	int r = look(l, &k, a, err);
	if (r == 0) {
		struct bt_seen_vip *seen = BT_ARENA_ARRAY(a, struct bt_seen_vip, k.n);
		for (size_t i = 0; i < k.n; i++)
			seen[i] = (struct bt_seen_vip){.address = bt_arena_strdup(a, l->vips[i]),
				.there = k.places[i].here,
				.trouble = trouble_of(&k, &k.places[i], l, a)};
		*ret = seen;
	}
	done(&k);
	return r;
}

/* ---- changing ------------------------------------------------------------------------------- */

static int check_elsewhere(const struct look *k, struct bt_err *err)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->places[i].elsewhere[0])
			return bt_err_set(err, BT_E_REFUSED,
				"%s is on interface %s, where this host answers %s for it: remove "
				"it there (ip addr del) before baton looks after it",
				k->places[i].vip, k->places[i].elsewhere, family(&k->places[i]));
	return 0;
}

static int change_all(struct look *k, bool add, struct bt_err *err)
{
	int r = check_elsewhere(k, err);
	for (size_t i = 0; r == 0 && i < k->n; i++)
		if (k->places[i].here != add)
			r = change(k, &k->places[i], add, err);
	return r < 0 ? r : dump(k, err);
}

static int confirm(const struct look *k, const struct bt_loopback *l, bool add, struct bt_arena *a,
	struct bt_err *err)
{
	for (size_t i = 0; i < k->n; i++) {
		const struct place *p = &k->places[i];
		if (p->here != add)
			return bt_err_set(err, BT_E_FAILED, "%s is %s on %s all the same", p->vip,
				add ? "not" : "still", l->interface);
		const char *trouble = add ? trouble_of(k, p, l, a) : NULL;
		if (trouble)
			return bt_err_set(err, BT_E_FAILED, "%s: %s", p->vip, trouble);
	}
	return 0;
}

static bool any_v4(const struct look *k)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->places[i].n == 4)
			return true;
	return false;
}

int bt_loopback_put(const struct bt_loopback *l, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct look k;
	int r = look(l, &k, a, err);
	if (r == 0)
		r = check_elsewhere(&k, err);
	/* First, so that ARP is never answered in between. */
	if (r == 0 && any_v4(&k))
		r = bt_arp_set(err);
	if (r == 0)
		r = change_all(&k, true, err);
	if (r == 0)
		r = confirm(&k, l, true, a, err);
	done(&k);
	return r;
}

int bt_loopback_take(const struct bt_loopback *l, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct look k;
	int r = look(l, &k, a, err);
	if (r == 0)
		r = change_all(&k, false, err);
	if (r == 0)
		r = confirm(&k, l, false, a, err);
	done(&k);
	return r;
}
