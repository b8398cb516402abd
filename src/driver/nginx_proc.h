/* nginx as the kernel shows it: master, workers, connections. Reads /proc and changes nothing,
 * but for bt_nginx_start_adopted. Everything here may block for milliseconds. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct bt_nginx_proc { /* a process is the same one while pid and start time are */
	pid_t pid;
	uint64_t start;
};
bool bt_nginx_proc_alive(const struct bt_nginx_proc *p);

/* 0 with the running master that the pid file names, 1 where there is none (no file, a stale one,
 * a pid that is something else by now). */
int bt_nginx_master(const char *pid_file, struct bt_nginx_proc *ret);

struct bt_nginx_workers {
	struct bt_nginx_proc *serving, *leaving; /* leaving: "is shutting down" */
	size_t n_serving, n_leaving;
	size_t n_starting; /* forked, not yet ready */
};
/* Every process, by /proc. */
void bt_nginx_each_process(
	void (*on)(void *arg, const struct bt_nginx_proc *p, pid_t parent), void *arg);
/* Its title: its arguments up to the first NUL. Caller frees; NULL where it is gone. */
char *bt_nginx_title(pid_t pid);
void bt_nginx_proc_add(struct bt_nginx_proc **list, size_t *n, struct bt_nginx_proc p);
/* Children of the master. Caller calls _done. */
void bt_nginx_workers_read(const struct bt_nginx_proc *master, struct bt_nginx_workers *ret);
void bt_nginx_workers_done(struct bt_nginx_workers *w);
bool bt_nginx_proc_in(const struct bt_nginx_proc *list, size_t n, const struct bt_nginx_proc *p);

/* Connections from the network namespace of `ns` (0: our own) to address:port that are being
 * opened or are open. < 0 where the table cannot be read. */
struct bt_nginx_peer {
	const char *address;
	uint16_t port;
};
int bt_nginx_connections(pid_t ns, const struct bt_nginx_peer *peers, size_t n_peers,
	int64_t *ret_count, struct bt_err *err);
/* "3 from 10.0.0.7, 1 to 127.0.0.1:8081": what these processes hold open, the most frequent
 * first; nothing is added where it cannot be read. */
void bt_nginx_holders(const struct bt_nginx_proc *procs, size_t n, struct bt_str *out);

/* Workers whose master is gone and which have this file open (a log in a private prefix). They
 * go on serving and hold the listening sockets. Caller frees *ret. */
size_t bt_nginx_orphans(const char *open_file, struct bt_nginx_proc **ret);
/* Starts nginx on the listening sockets that an orphan holds, in a session of its own, so that no
 * connection is refused between the two. argv NULL-terminated. */
int bt_nginx_start_adopted(
	const struct bt_nginx_proc *orphan, const char *const *argv, struct bt_err *err);

/* May a process that this one starts listen on this port? (root or a capability, or the port is
 * not privileged here) */
bool bt_nginx_can_bind_low(uint16_t port);
