/* The shim's socket: SEQPACKET, in the instance's directory, for its own user and root only. */
#pragma once
#include "shim/status.h"
#include <poll.h>

#define BT_LINK_CLIENTS 16
struct bt_link {
	int listener;
	struct {
		int fd;
		bool subscribed;
	} clients[BT_LINK_CLIENTS];
	size_t n;
};
/* Binds `name` in the working directory (a relative name is never too long for sun_path). */
int bt_link_open(struct bt_link *l, const char *name);
/* Adds the descriptors to be polled; returns how many (≤ 1 + BT_LINK_CLIENTS). */
size_t bt_link_poll(const struct bt_link *l, struct pollfd *fds);
/* Handles what poll found; on_request returns nothing, the status is answered after it. */
void bt_link_serve(struct bt_link *l, const struct pollfd *fds, size_t n,
	void (*on_request)(void *arg, const struct bt_shim_request *rq),
	const struct bt_shim_status *status, void *arg);
void bt_link_publish(struct bt_link *l, const struct bt_shim_status *status); /* to subscribers */
