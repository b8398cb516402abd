/* TCP sockets of a network namespace, and who has them open. Shared by nginx_socket.c and
 * nginx_orphan.c. */
#pragma once
#include "driver/nginx_proc.h"

struct bt_tcp_socket {
	int family;
	unsigned char local[16], remote[16];
	uint16_t local_port, remote_port;
	unsigned state;
	uint64_t inode;
};

enum { TCP_IS_ESTABLISHED = 1, TCP_IS_SYN_SENT = 2, TCP_IS_CLOSE_WAIT = 8, TCP_IS_LISTEN = 10 };

/* Every TCP socket in the network namespace of pid (0: our own). */
int bt_tcp_each(pid_t pid, void (*on)(void *arg, const struct bt_tcp_socket *row), void *arg,
	struct bt_err *err);

/* Each open file of a process: its descriptor and what it links to; false: not readable. */
bool bt_nginx_each_fd(pid_t pid, void (*on)(void *arg, int fd, const char *target), void *arg);

struct bt_inode_fd {
	uint64_t inode;
	int fd;
};

struct bt_inodes {
	struct bt_inode_fd *list;
	size_t n;
};

void bt_inodes_add_sockets(struct bt_inodes *s, pid_t pid); /* adds; the caller frees s->list */
const struct bt_inode_fd *bt_inodes_find(const struct bt_inodes *s, uint64_t inode); /* or NULL */
