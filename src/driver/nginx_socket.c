/* The kernel's tables of TCP sockets: how many connections lead to an instance, and what holds an
 * old worker. A namespace is read through any process in it, so nginx may live in another one. */
#include "driver/nginx_socket.h"

#include "base/fs.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TABLE_MAX (64 << 20)

/* The kernel prints addresses as 32-bit words in its own byte order. */
static bool parse_address(const char *hex, int family, unsigned char out[16])
{
	int words = family == AF_INET6 ? 4 : 1;
	for (int i = 0; i < words; i++) {
		char part[9] = {0};
		memcpy(part, hex + 8 * i, 8);
		char *end;
		uint32_t word = (uint32_t)strtoul(part, &end, 16);
		if (*end)
			return false;
		memcpy(out + 4 * i, &word, 4);
	}
	return true;
}

static bool parse_row(const char *line, int family, struct bt_tcp_socket *ret)
{
	char local[40], remote[40];
	unsigned lp, rp, state;
	unsigned long long inode;
	if (sscanf(line, " %*u: %39[0-9A-Fa-f]:%x %39[0-9A-Fa-f]:%x %x %*s %*s %*s %*u %*u %llu",
		    local, &lp, remote, &rp, &state, &inode) != 6)
		return false;
	size_t want = family == AF_INET6 ? 32 : 8;
	*ret = (struct bt_tcp_socket){.family = family,
		.local_port = (uint16_t)lp,
		.remote_port = (uint16_t)rp,
		.state = state,
		.inode = inode};
	return strlen(local) == want && strlen(remote) == want &&
	       parse_address(local, family, ret->local) &&
	       parse_address(remote, family, ret->remote);
}

/* Every TCP socket in the network namespace of pid (0: our own). */
int bt_tcp_each(pid_t pid, void (*on)(void *arg, const struct bt_tcp_socket *row), void *arg,
	struct bt_err *err)
{
	static const struct {
		const char *name;
		int family;
	} tables[] = {{"tcp", AF_INET}, {"tcp6", AF_INET6}};
	for (size_t i = 0; i < BT_ARRAY_LEN(tables); i++) {
		char path[64];
		if (pid > 0)
			snprintf(path, sizeof path, "/proc/%d/net/%s", (int)pid, tables[i].name);
		else
			snprintf(path, sizeof path, "/proc/self/net/%s", tables[i].name);
		BT_FREE char *text = NULL;
		size_t n = 0;
		int r = bt_fs_read(path, TABLE_MAX, &text, &n, err);
		if (r == -ENOENT && i == 1)
			continue; /* no IPv6 */
		if (r < 0)
			return r;
		/* A busy host has tens of thousands of rows: nothing here looks beyond its row. */
		for (char *line = text, *end = text + n, *eol; line < end; line = eol + 1) {
			struct bt_tcp_socket row;
			eol = memchr(line, '\n', (size_t)(end - line));
			if (!eol)
				eol = end; /* bt_fs_read puts a NUL there */
			*eol = 0;
			if (parse_row(line, tables[i].family, &row))
				on(arg, &row);
		}
	}
	return 0;
}

struct wanted {
	int family;
	unsigned char address[16];
	uint16_t port;
};

struct counting {
	struct wanted *wanted;
	size_t n;
	int64_t count;
};

static void count_row(void *arg, const struct bt_tcp_socket *row)
{
	struct counting *c = arg;
	if (row->state != TCP_IS_ESTABLISHED && row->state != TCP_IS_SYN_SENT &&
		row->state != TCP_IS_CLOSE_WAIT)
		return;
	for (size_t i = 0; i < c->n; i++)
		if (c->wanted[i].family == row->family && c->wanted[i].port == row->remote_port &&
			!memcmp(c->wanted[i].address, row->remote,
				row->family == AF_INET ? 4 : 16)) {
			c->count++;
			return;
		}
}

/* A name may have several addresses, and nginx uses them all. */
static int resolve(const struct bt_nginx_peer *p, struct counting *c, struct bt_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	int r = getaddrinfo(p->address, NULL, &hints, &list);
	if (r != 0)
		return bt_err_set(
			err, BT_E_NOTFOUND, "address '%s': %s", p->address, gai_strerror(r));
	for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		struct wanted w = {.family = ai->ai_family, .port = p->port};
		if (ai->ai_family == AF_INET)
			memcpy(w.address, &((struct sockaddr_in *)(void *)ai->ai_addr)->sin_addr,
				4);
		else if (ai->ai_family == AF_INET6)
			memcpy(w.address, &((struct sockaddr_in6 *)(void *)ai->ai_addr)->sin6_addr,
				16);
		else
			continue;
		c->wanted = bt_realloc(c->wanted, (c->n + 1) * sizeof w);
		c->wanted[c->n++] = w;
	}
	freeaddrinfo(list);
	return 0;
}

int bt_nginx_connections(pid_t ns, const struct bt_nginx_peer *peers, size_t n_peers,
	int64_t *ret_count, struct bt_err *err)
{
	struct counting c = {0};
	int r = 0;
	for (size_t i = 0; r == 0 && i < n_peers; i++)
		r = resolve(&peers[i], &c, err);
	if (r == 0)
		r = bt_tcp_each(ns, count_row, &c, err);
	if (r == 0)
		*ret_count = c.count;
	free(c.wanted);
	return r;
}

/* ---- what processes hold ------------------------------------------------------------------ */

/* Calls on() for each open file of pid: its descriptor and what it links to. */
bool bt_nginx_each_fd(pid_t pid, void (*on)(void *arg, int fd, const char *target), void *arg)
{
	char dir[64], target[512];
	snprintf(dir, sizeof dir, "/proc/%d/fd", (int)pid);
	DIR *d = opendir(dir);
	if (!d)
		return false;
	for (struct dirent *e; (e = readdir(d));) {
		if (!isdigit((unsigned char)e->d_name[0]))
			continue;
		ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
		if (n <= 0)
			continue;
		target[n] = 0;
		on(arg, atoi(e->d_name), target);
	}
	closedir(d);
	return true;
}

static void on_socket_fd(void *arg, int fd, const char *target)
{
	struct bt_inodes *s = arg;
	if (!bt_str_starts(target, "socket:["))
		return;
	s->list = bt_realloc(s->list, (s->n + 1) * sizeof *s->list);
	s->list[s->n++] = (struct bt_inode_fd){strtoull(target + 8, NULL, 10), fd};
}

void bt_inodes_add_sockets(struct bt_inodes *s, pid_t pid)
{
	(void)bt_nginx_each_fd(pid, on_socket_fd, s);
}

const struct bt_inode_fd *bt_inodes_find(const struct bt_inodes *s, uint64_t inode)
{
	for (size_t i = 0; i < s->n; i++)
		if (s->list[i].inode == inode)
			return &s->list[i];
	return NULL;
}

struct tally {
	char text[80];
	int count;
};

#define TALLIES 32

struct holding {
	struct bt_inodes inodes;
	struct bt_tcp_socket *rows;
	size_t n_rows;
	struct tally tallies[TALLIES];
	size_t n;
};

static void keep_row(void *arg, const struct bt_tcp_socket *row)
{
	struct holding *h = arg;
	if (row->state == TCP_IS_LISTEN || !bt_inodes_find(&h->inodes, row->inode))
		return;
	h->rows = bt_realloc(h->rows, (h->n_rows + 1) * sizeof *row);
	h->rows[h->n_rows++] = *row;
}

/* A client's port is its own each time, a backend's is what names it. nginx's side of a client's
 * connection has a local port that it listens on: the low, repeated one. */
static void tally_row(struct holding *h, const struct bt_tcp_socket *row)
{
	char addr[INET6_ADDRSTRLEN], text[80];
	inet_ntop(row->family, row->remote, addr, sizeof addr);
	if (row->remote_port < 32768 && row->local_port >= 32768)
		snprintf(text, sizeof text, "to %s:%u", addr, row->remote_port);
	else
		snprintf(text, sizeof text, "from %s", addr);
	for (size_t i = 0; i < h->n; i++)
		if (!strcmp(h->tallies[i].text, text)) {
			h->tallies[i].count++;
			return;
		}
	if (h->n < TALLIES) {
		snprintf(h->tallies[h->n].text, sizeof text, "%s", text);
		h->tallies[h->n++].count = 1;
	}
}

static int by_count(const void *a, const void *b)
{
	return ((const struct tally *)b)->count - ((const struct tally *)a)->count;
}

void bt_nginx_holders(const struct bt_nginx_proc *procs, size_t n, struct bt_str *out)
{
	struct holding h = {0};
	for (size_t i = 0; i < n; i++)
		bt_inodes_add_sockets(&h.inodes, procs[i].pid);
	if (n > 0 && h.inodes.n > 0)
		(void)bt_tcp_each(procs[0].pid, keep_row, &h, NULL);
	for (size_t i = 0; i < h.n_rows; i++)
		tally_row(&h, &h.rows[i]);
	qsort(h.tallies, h.n, sizeof h.tallies[0], by_count);
	for (size_t i = 0; i < h.n && i < 4; i++)
		bt_str_addf(out, "%s%d %s", i ? ", " : "", h.tallies[i].count, h.tallies[i].text);
	free(h.inodes.list);
	free(h.rows);
}
