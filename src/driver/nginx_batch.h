/* One change of one nginx: the services that go into the same reload, from the first write to
 * the confirmation or back. Shared by nginx_apply.c (who waits) and nginx_batch.c (the steps). */
#pragma once
#include "driver/nginx_unit.h"

enum bt_nginx_batch_kind {
	BT_NGINX_CHANGE,
	BT_NGINX_RECOVER,     /* after a crash: confirm or restore what is pending */
	BT_NGINX_RESTART,     /* a managed nginx that is not there any more */
	BT_NGINX_CERTIFICATE, /* a managed nginx whose certificate changed on disk */
};

struct bt_nginx_apply { /* one service that waits for its change */
	struct bt_op op;
	struct bt_nginx_apply *next;
	struct bt_nginx_site *site;
	struct bt_nginx_state *want; /* pending: what shall be */
	struct bt_err early;	     /* found wrong at once: only told from the loop */
	bool alone;		     /* a batch with others failed: its own reload this time */
	bool internal;		     /* nobody waits, or a hold */
	enum bt_nginx_batch_kind kind;
	bool hold; /* nginx_hold.c: good also where nginx does not run */
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done; /* NULL: cancelled or internal */
	void *arg;
};

#define BT_NGINX_BATCH_MAX 64

/* nginx_apply.c: at the end of its unit's queue. */
void bt_nginx_submit(struct bt_nginx_apply *op);
void bt_nginx_op_cancel(struct bt_op *op);
/* What a configuration needs to know of its place. */
struct bt_nginx_layout bt_nginx_layout_of(bool managed, const char *prefix);

/* Takes the ops over; `ended` is called from the loop with each op's answer still to be given:
 * result and err hold for all of them. */
void bt_nginx_batch_start(struct bt_nginx_unit *unit, enum bt_nginx_batch_kind kind,
	struct bt_nginx_apply *const *ops, size_t n,
	void (*ended)(struct bt_nginx_unit *unit, enum bt_nginx_batch_kind kind,
		struct bt_nginx_apply *const *ops, size_t n, int result, const struct bt_err *err));
enum bt_nginx_batch_kind bt_nginx_batch_kind(const struct bt_nginx_batch *b);
