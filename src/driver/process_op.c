#include "driver/process_adopted.h"

static void detach(struct bt_process_op *op)
{
	struct bt_instance *i = op->instance;
	if (i && i->starting == op)
		i->starting = NULL;
	if (i && i->stopping == op)
		i->stopping = NULL;
	op->instance = NULL;
	if (op->adopted)
		bt_adopted_leave(op->adopted, op);
	op->adopted = NULL;
}

static void op_free(struct bt_process_op *op)
{
	detach(op);
	if (op->later)
		event_free(op->later);
	free(op);
}

/* The instance goes on: only nobody waits for it any more. */
static void op_cancel(struct bt_op *op)
{
	op_free((struct bt_process_op *)op);
}

struct bt_process_op *bt_process_op_new(bt_progress_fn progress, bt_done_fn done, void *arg)
{
	struct bt_process_op *op = bt_calloc(1, sizeof *op);
	op->op.cancel = op_cancel;
	op->progress = progress;
	op->done = done;
	op->arg = arg;
	return op;
}

void bt_process_op_finish(struct bt_process_op *op, int result, const struct bt_err *err)
{
	bt_done_fn done = op->done;
	void *arg = op->arg;
	struct bt_err copy = err ? *err : (struct bt_err){0};
	op_free(op);
	done(arg, result, result < 0 ? &copy : NULL);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct bt_process_op *op = arg;
	(void)fd;
	(void)what;
	bt_process_op_finish(op, op->result, &op->err);
}

void bt_process_op_later(struct bt_process_op *op, int result, const struct bt_err *err)
{
	op->result = result;
	if (err)
		op->err = *err;
	op->later = event_new(bt_process.env.base, -1, 0, on_later, op);
	bt_timer_in(op->later, 0);
}
