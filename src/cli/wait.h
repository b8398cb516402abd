/* Waiting for a turn behind other deployments of a service: a place in the server's queue, kept by
 * asking for it every second. */
#pragma once
#include "cli/client.h"
#include "cli/view.h"

struct bt_wait {
	struct bt_client *client;
	struct bt_view *view;
	const char *service;
	int64_t limit_ms; /* 0: as long as it takes */
	int64_t ticket;	  /* 0 before the first call; what the deployment brings along */
	int64_t begun_ms;
};
/* 0: it is our turn, now or never. BT_E_LEASE: not within the limit; -EINTR: a signal. The place is
 * given back on every failure. May be called again where somebody was faster. */
int bt_wait_turn(struct bt_wait *w, struct bt_err *err);
void bt_wait_leave(struct bt_wait *w); /* gives the place back; nothing without one */
