/* How a driver makes an operation that can be cancelled: embed struct bt_op first. */
#pragma once
#include "driver/driver.h"

struct bt_op {
	void (*cancel)(struct bt_op *op); /* stops everything and frees op */
};

/* One of which a part runs on a thread: embed this first. A thread cannot be called back: while
 * it is at work a cancel only takes note, and `free_op` follows when it has ended. */
struct bt_thread_op {
	struct bt_op op;
	void (*free_op)(void *op); /* the operation that embeds this, with all that it has */
	void (*run)(void *op), (*then)(void *op);
	bool working, cancelled;
};
void bt_thread_op_init(struct bt_thread_op *o, void (*free_op)(void *op));
/* run(op) on a thread, then(op) on the loop; no `then` after a cancel. */
void bt_thread_op_run(struct bt_thread_op *o, struct bt_work *work, void (*run)(void *op),
	void (*then)(void *op));

/* What an operation says for people: a line again only once it has become another. */
struct bt_progress {
	bt_progress_fn fn; /* NULL: nobody listens */
	void *arg;
	char last[BT_ERR_MAX];
};
void bt_progress_say(struct bt_progress *p, const char *line);
