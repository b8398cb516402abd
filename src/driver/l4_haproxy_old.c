/* A reload (-sf) leaves the older process to finish what it serves, and nothing at the socket tells
 * of it: the new one starts counting at none. But what it has open can be seen, where agent and
 * haproxy share a network and a process namespace; elsewhere there is nothing to see, and the new
 * process's count has to do. */
#include "driver/l4_haproxy.h"

#include "driver/nginx_socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct old {
	char comm[32]; /* of the process that is asked */
	pid_t but;
	struct bt_inodes inodes;
	struct bt_haproxy_peer *peers;
	size_t n_peers;
};

static bool comm_of(pid_t pid, char *buf, size_t n)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t k = fd < 0 ? -1 : read(fd, buf, n - 1);
	buf[k > 0 ? k : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;
	return k > 0;
}

static void on_process(void *arg, const struct bt_nginx_proc *p, pid_t parent)
{
	struct old *o = arg;
	char comm[32];
	(void)parent;
	if (p->pid != o->but && comm_of(p->pid, comm, sizeof comm) && bt_streq(comm, o->comm))
		bt_inodes_add_sockets(&o->inodes, p->pid);
}

static bool is_peer(const struct bt_haproxy_peer *p, const struct bt_tcp_socket *row)
{
	unsigned char want[16];
	int family = strchr(p->address, ':') ? AF_INET6 : AF_INET;
	if (row->remote_port != p->port || inet_pton(family, p->address, want) != 1)
		return false;
	if (row->family == family)
		return memcmp(row->remote, want, family == AF_INET6 ? 16 : 4) == 0;
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	return row->family == AF_INET6 && memcmp(row->remote, mapped, 12) == 0 &&
	       memcmp(row->remote + 12, want, 4) == 0;
}

static void on_row(void *arg, const struct bt_tcp_socket *row)
{
	struct old *o = arg;
	if (row->state != TCP_IS_ESTABLISHED && row->state != TCP_IS_SYN_SENT &&
		row->state != TCP_IS_CLOSE_WAIT)
		return;
	for (size_t i = 0; i < o->n_peers; i++)
		if (is_peer(&o->peers[i], row) && bt_inodes_find(&o->inodes, row->inode))
			o->peers[i].count++;
}

void bt_haproxy_old_count(int64_t pid, struct bt_haproxy_peer *peers, size_t n)
{
	struct old o = {.but = (pid_t)pid, .peers = peers, .n_peers = n};
	if (comm_of(o.but, o.comm, sizeof o.comm))
		bt_nginx_each_process(on_process, &o);
	if (o.inodes.n)
		(void)bt_tcp_each(0, on_row, &o, NULL);
	free(o.inodes.list);
}
