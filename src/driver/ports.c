/* The kernel is asked by sock_diag for listening sockets alone: /proc/net/tcp lists every
 * connection, which takes long on a busy balancer. It is the fallback where sock_diag is absent.
 * A socket's owner is who has its inode among /proc/PID/fd. */
#include "driver/ports.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_SOCKETS 32

struct sockets {
	uint16_t port;
	struct {
		unsigned long inode;
		uid_t uid;
		bool found;
	} items[MAX_SOCKETS];
	size_t n;
};

static void add_socket(struct sockets *s, unsigned long inode, uid_t uid)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->items[i].inode == inode)
			return;
	if (s->n == MAX_SOCKETS)
		return;
	s->items[s->n].inode = inode;
	s->items[s->n].uid = uid;
	s->items[s->n++].found = false;
}

typedef void (*on_diag)(void *arg, const struct inet_diag_msg *m);

static bool ask_diag(int fd, int family, uint32_t states)
{
	struct {
		struct nlmsghdr h;
		struct inet_diag_req_v2 r;
	} rq = {
		.h = {.nlmsg_len = sizeof rq,
			.nlmsg_type = SOCK_DIAG_BY_FAMILY,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
		.r = {.sdiag_family = (uint8_t)family,
			.sdiag_protocol = IPPROTO_TCP,
			.idiag_states = states},
	};
	return send(fd, &rq, sizeof rq, 0) == sizeof rq;
}

/* One datagram of the answer: 1 more follow, 0 the end, -1 an error. */
static int read_diag(on_diag on, void *arg, char *buf, size_t len)
{
	size_t left = len;
	for (struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf; NLMSG_OK(h, left);
		h = NLMSG_NEXT(h, left)) {
		if (h->nlmsg_type == NLMSG_DONE)
			return 0;
		if (h->nlmsg_type != SOCK_DIAG_BY_FAMILY)
			return -1;
		if (h->nlmsg_len < NLMSG_LENGTH(sizeof(struct inet_diag_msg)))
			return -1;
		on(arg, NLMSG_DATA(h));
	}
	return 1;
}

/* Every TCP socket in one of the states; false: the kernel does not say. */
static bool each_diag(uint32_t states, on_diag on, void *arg)
{
	static const int families[] = {AF_INET, AF_INET6};
	BT_CLOSE int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	if (fd < 0)
		return false;
	struct timeval limit = {1, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	for (size_t i = 0; i < BT_ARRAY_LEN(families); i++) {
		_Alignas(struct nlmsghdr) char buf[16384];
		int r = ask_diag(fd, families[i], states) ? 1 : -1;
		while (r > 0) {
			ssize_t n = recv(fd, buf, sizeof buf, 0);
			if (n < 0 && errno == EINTR)
				continue;
			r = n <= 0 ? -1 : read_diag(on, arg, buf, (size_t)n);
		}
		if (r < 0)
			return false;
	}
	return true;
}

static void on_listening(void *arg, const struct inet_diag_msg *m)
{
	struct sockets *s = arg;
	if (ntohs(m->id.idiag_sport) == s->port)
		add_socket(s, m->idiag_inode, m->idiag_uid);
}

struct counting {
	const uint16_t *ports;
	size_t n;
	uint32_t *counts;
	const struct in6_addr *to; /* NULL: any; IPv4 as ::ffff:a.b.c.d */
};

/* A socket for both families has IPv4 addresses in that form, too. */
static struct in6_addr mapped(int family, const void *address)
{
	struct in6_addr a = {0};
	if (family == AF_INET6) {
		memcpy(&a, address, 16);
		return a;
	}
	a.s6_addr[10] = a.s6_addr[11] = 0xff;
	memcpy(&a.s6_addr[12], address, 4);
	return a;
}

static void on_open(void *arg, const struct inet_diag_msg *m)
{
	struct counting *c = arg;
	uint16_t port = ntohs(m->id.idiag_sport);
	struct in6_addr at = mapped(m->idiag_family, m->id.idiag_src);
	if (c->to && memcmp(c->to, &at, sizeof at) != 0)
		return;
	for (size_t i = 0; i < c->n; i++)
		c->counts[i] += c->ports[i] == port;
}

void bt_port_connections(const uint16_t *ports, size_t n, uint32_t *ret_counts)
{
	struct counting c = {ports, n, ret_counts, NULL};
	memset(ret_counts, 0, n * sizeof *ret_counts);
	if (!each_diag(1u << TCP_ESTABLISHED, on_open, &c))
		memset(ret_counts, 0, n * sizeof *ret_counts);
}

bool bt_port_connections_to(
	const char *address, const uint16_t *ports, size_t n, uint32_t *ret_counts)
{
	static const uint32_t states = 1u << TCP_SYN_RECV | 1u << TCP_ESTABLISHED |
				       1u << TCP_CLOSE_WAIT | 1u << TCP_FIN_WAIT1 |
				       1u << TCP_CLOSING | 1u << TCP_LAST_ACK;
	unsigned char bytes[16];
	int family = strchr(address, ':') ? AF_INET6 : AF_INET;
	memset(ret_counts, 0, n * sizeof *ret_counts);
	if (inet_pton(family, address, bytes) != 1)
		return false;
	struct in6_addr to = mapped(family, bytes);
	struct counting c = {ports, n, ret_counts, &to};
	return each_diag(states, on_open, &c);
}

static void by_proc(struct sockets *s, const char *path)
{
	FILE *f = fopen(path, "re");
	char line[512];
	if (!f)
		return;
	while (fgets(line, sizeof line, f)) {
		unsigned port, state, uid;
		unsigned long inode;
		if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*s %x %*s %*s %*s %u %*d %lu", &port,
			    &state, &uid, &inode) == 4 &&
			state == 10 && port == s->port)
			add_socket(s, inode, uid);
	}
	fclose(f);
}

static void name_of(pid_t pid, char *buf, size_t n)
{
	char path[48];
	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	snprintf(buf, n, "?");
	FILE *f = fopen(path, "re");
	if (!f)
		return;
	if (fgets(buf, (int)n, f))
		buf[strcspn(buf, "\n")] = 0;
	fclose(f);
}

/* Marks the sockets that the process holds; whether it holds any. */
static bool holds(struct sockets *s, pid_t pid, uid_t *ret_uid)
{
	char path[48], link[64];
	bool any = false;
	snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
	DIR *d = opendir(path);
	if (!d)
		return false;
	for (struct dirent *e; (e = readdir(d));) {
		unsigned long inode;
		ssize_t n = readlinkat(dirfd(d), e->d_name, link, sizeof link - 1);
		if (n <= 0)
			continue;
		link[n] = 0;
		if (sscanf(link, "socket:[%lu]", &inode) != 1)
			continue;
		for (size_t i = 0; i < s->n; i++)
			if (s->items[i].inode == inode) {
				s->items[i].found = any = true;
				*ret_uid = s->items[i].uid;
			}
	}
	closedir(d);
	return any;
}

struct holders {
	struct bt_listener *items;
	size_t n, max;
};

static void look_at(struct sockets *s, pid_t pid, struct holders *h)
{
	uid_t uid;
	if (h->n == h->max || !holds(s, pid, &uid))
		return;
	struct bt_listener *l = &h->items[h->n++];
	*l = (struct bt_listener){.pid = pid, .uid = uid};
	name_of(pid, l->name, sizeof l->name);
}

static bool all_found(const struct sockets *s)
{
	for (size_t i = 0; i < s->n; i++)
		if (!s->items[i].found)
			return false;
	return true;
}

static void look_everywhere(struct sockets *s, pid_t but, struct holders *h)
{
	DIR *d = opendir("/proc");
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		pid_t pid = isdigit((unsigned char)e->d_name[0]) ? atoi(e->d_name) : 0;
		if (pid > 0 && pid != but)
			look_at(s, pid, h);
	}
	closedir(d);
}

size_t bt_port_listeners(uint16_t port, pid_t hint, struct bt_listener *ret, size_t max)
{
	struct sockets s = {.port = port};
	struct holders h = {ret, 0, max};
	if (!each_diag(1u << TCP_LISTEN, on_listening, &s)) {
		by_proc(&s, "/proc/net/tcp");
		by_proc(&s, "/proc/net/tcp6");
	}
	if (hint > 0 && s.n > 0)
		look_at(&s, hint, &h);
	if (!all_found(&s))
		look_everywhere(&s, hint, &h);
	for (size_t i = 0; i < s.n && h.n < max; i++)
		if (!s.items[i].found)
			ret[h.n++] = (struct bt_listener){.uid = s.items[i].uid};
	return h.n;
}

const char *bt_listener_describe(const struct bt_listener *l, char *buf, size_t n)
{
	if (l->pid)
		snprintf(buf, n, "%s (pid %d)", l->name, (int)l->pid);
	else
		snprintf(buf, n, "a process of user %u", (unsigned)l->uid);
	return buf;
}

bool bt_process_find_listener(uint16_t port, char *buf, size_t n)
{
	struct bt_listener l;
	buf[0] = 0;
	if (bt_port_listeners(port, 0, &l, 1) == 0)
		return false;
	bt_listener_describe(&l, buf, n);
	return true;
}
