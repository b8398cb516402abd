#include "driver/op.h"

#include "base/str.h"

#include <stdio.h>

struct bt_op *bt_op_cancel(struct bt_op *op)
{
	if (op)
		op->cancel(op);
	return NULL;
}

/* ---- on a thread -------------------------------------------------------------------------- */

static void thread_op_cancel(struct bt_op *op)
{
	struct bt_thread_op *o = (struct bt_thread_op *)op;
	o->cancelled = true;
	if (!o->working)
		o->free_op(o);
}

void bt_thread_op_init(struct bt_thread_op *o, void (*free_op)(void *op))
{
	*o = (struct bt_thread_op){.op = {thread_op_cancel}, .free_op = free_op};
}

static void on_thread(void *arg)
{
	struct bt_thread_op *o = arg;
	o->run(o);
}

static void on_ended(void *arg)
{
	struct bt_thread_op *o = arg;
	o->working = false;
	if (o->cancelled)
		o->free_op(o);
	else
		o->then(o);
}

void bt_thread_op_run(
	struct bt_thread_op *o, struct bt_work *work, void (*run)(void *op), void (*then)(void *op))
{
	o->run = run;
	o->then = then;
	o->working = true;
	bt_work_submit(work, on_thread, on_ended, o);
}

/* ---- progress ----------------------------------------------------------------------------- */

void bt_progress_say(struct bt_progress *p, const char *line)
{
	if (bt_streq(line, p->last))
		return;
	snprintf(p->last, sizeof p->last, "%s", line);
	if (p->fn)
		p->fn(p->arg, line);
}
