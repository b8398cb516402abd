/* The bake at a balancer: its answers are looked at for a time, and too large a share of 5xx ends
 * it early. How they are counted is the matter of who embeds this first. */
#pragma once
#include "driver/op.h"

struct bt_bake {
	/* set by who embeds it */
	struct bt_op op; /* cancel frees all, also once the bake has ended */
	struct bt_progress progress;
	bt_done_fn done;
	void *arg;
	/* bt_bake_begin's */
	struct event *timer; /* cancel frees it */
	double max_share;
	int64_t end_ms;
};
/* Calls `look` with b at once, and again a moment after each time that it went on. */
void bt_bake_begin(struct bt_bake *b, struct event_base *base, const struct bt_service *service,
	int64_t bake_ms, event_callback_fn look);
/* What `who` has answered since the bake began; failed: with 5xx. Says it, and goes on unless they
 * are enough answers to tell that too many failed. */
void bt_bake_counted(struct bt_bake *b, const char *who, int64_t all, int64_t failed);
/* To the next look; where the time is over, to the end, which is good. */
void bt_bake_go_on(struct bt_bake *b);
void bt_bake_end(struct bt_bake *b, int result, const struct bt_err *err);
