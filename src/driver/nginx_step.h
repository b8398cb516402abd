/* Inside of a change of nginx: what the files of its steps share.
 *
 * nginx_batch.c decides which step comes next; nginx_files.c writes and restores, on a thread;
 * nginx_reload.c starts and reloads the master; nginx_ask.c asks through nginx who answers. */
#pragma once
#include "driver/nginx_batch.h"

typedef void (*bt_nginx_ended_fn)(struct bt_nginx_unit *, enum bt_nginx_batch_kind,
	struct bt_nginx_apply *const *, size_t, int, const struct bt_err *);

struct bt_nginx_batch {
	struct bt_nginx_unit *unit;
	enum bt_nginx_batch_kind kind;
	struct bt_nginx_apply *ops[BT_NGINX_BATCH_MAX];
	size_t n;
	bt_nginx_ended_fn ended;
	int result; /* of the whole, once something failed */
	struct bt_err err;

	bool has_master, wrote, reloaded, started, restoring;
	struct bt_nginx_proc master;
	struct bt_nginx_workers before;
	struct bt_nginx_proc *orphans;
	size_t n_orphans;
	off_t log_at;
	int64_t deadline_ms;
	size_t asking; /* the op whose answer is awaited */

	struct event *timer;
	void (*on_timer)(struct bt_nginx_batch *b);
	struct bt_nginx_test *test;
	struct bt_child *child;

	/* the job on a thread */
	int (*work)(struct bt_nginx_batch *b, struct bt_err *err);
	void (*work_done)(struct bt_nginx_batch *b, int r);
	int work_result;
	struct bt_err work_err;
	bool backwards; /* RECOVER: the prior text stays */
};

/* nginx_batch.c */
void bt_nginx_batch_after(
	struct bt_nginx_batch *b, int64_t ms, void (*fn)(struct bt_nginx_batch *b));
void bt_nginx_batch_say(struct bt_nginx_batch *b, const char *line);
void bt_nginx_batch_fail(struct bt_nginx_batch *b, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void bt_nginx_batch_workers_ready(struct bt_nginx_batch *b);
void bt_nginx_batch_answered(struct bt_nginx_batch *b);
void bt_nginx_step(const char *step); /* for bt_nginx_step_hook */

/* nginx_files.c: on a thread */
int bt_nginx_files_write(struct bt_nginx_batch *b, struct bt_err *err);
int bt_nginx_files_restore(struct bt_nginx_batch *b, struct bt_err *err);
int bt_nginx_files_clear(struct bt_nginx_batch *b, struct bt_err *err);
int bt_nginx_files_commit(struct bt_nginx_batch *b, struct bt_err *err);
int bt_nginx_files_judge(struct bt_nginx_batch *b, struct bt_err *err);	      /* sets backwards */
int bt_nginx_files_certificate(struct bt_nginx_batch *b, struct bt_err *err); /* is it good? */

/* nginx_reload.c: end in bt_nginx_batch_workers_ready or bt_nginx_batch_fail */
void bt_nginx_reload(struct bt_nginx_batch *b);
void bt_nginx_start(struct bt_nginx_batch *b);

/* nginx_ask.c: ends in bt_nginx_batch_answered or bt_nginx_batch_fail */
void bt_nginx_ask(struct bt_nginx_batch *b);
