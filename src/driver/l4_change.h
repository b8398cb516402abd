/* One change of what a service's L4 balancer does: who waits for it, and its steps. Shared by
 * l4_change.c (the queue) and l4_steps.c. */
#pragma once
#include "driver/l4_site.h"

enum bt_l4_change_kind { BT_L4_APPLY, BT_L4_HOLD, BT_L4_TEND };

struct bt_l4_change {
	struct bt_op op;
	struct bt_l4_change *next;
	struct bt_l4_site *site;
	enum bt_l4_change_kind kind;
	struct bt_l4_state *asked; /* APPLY: its pending; HOLD: its held; TEND: NULL */
	struct bt_err early;	   /* found wrong at once: only told from the loop */
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done; /* NULL: cancelled, or nobody waits */
	void *arg;
	/* of the steps */
	struct bt_l4_state *want; /* what shall be on disk; borrows from asked */
	struct bt_l4_target target;
	struct bt_err err; /* why it goes back */
	void (*saved)(struct bt_l4_change *c, int r);
	void (*said)(struct bt_l4_change *c, int r, const struct bt_err *err);
	void (*looked)(struct bt_l4_change *c, int r, const struct bt_err *err);
	int save_result;
	struct bt_err save_err;
	/* what a look has found */
	bool runs, as_told;
	bool overruled; /* others have put in who is out */
	uint64_t epoch;
	struct bt_str differs;
};

/* l4_steps.c: begins; ends in bt_l4_change_ended. */
void bt_l4_change_start(struct bt_l4_change *c);
/* l4_change.c */
void bt_l4_change_ended(struct bt_l4_change *c, int result, const struct bt_err *err);
