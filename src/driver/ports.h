/* Who listens on a TCP port of this host (of the agent's network namespace), and who is connected.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct bt_listener {
	pid_t pid; /* 0: not to be seen (another user's process, another pid namespace) */
	uid_t uid;
	char name[32];
};
/* All of them, at most max (IPv4 and IPv6, any address): 0: the port is free. `hint` is looked at
 * first: when it holds the sockets, no other process is looked for; 0: none. */
size_t bt_port_listeners(uint16_t port, pid_t hint, struct bt_listener *ret, size_t max);
/* How many connections to each port are open on this host; 0 where the kernel does not say. */
void bt_port_connections(const uint16_t *ports, size_t n, uint32_t *ret_counts);
/* The same of connections that were made to this address of the host (a VIP): from the handshake
 * until what was sent has arrived at the other end, since only then may the address be taken away.
 * false: the kernel does not say, or it is no address. */
bool bt_port_connections_to(
	const char *address, const uint16_t *ports, size_t n, uint32_t *ret_counts);
/* "java (pid 812)", or "a process of user 33"; returns buf. */
const char *bt_listener_describe(const struct bt_listener *l, char *buf, size_t n);
/* Whether anybody listens on the port, and who, into buf ("" when free). */
bool bt_process_find_listener(uint16_t port, char *buf, size_t n);
