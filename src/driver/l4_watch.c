/* The bake at an L4 balancer. One that looks into what it passes on counts its answers, and a share
 * of 5xx above the service's ends the bake; for the others it is enough that they go on answering
 * us: whether the instances are well is the health check's to see. */
#include "driver/l4_site.h"

#include "driver/bake.h"

#include <stdio.h>

#define WATCH_SILENT 8 /* looks in a row without an answer */

struct watch {
	struct bt_bake bake;
	struct bt_op *ask;
	const struct bt_l4_family *family;
	const char *name;
	struct bt_l4_target target;
	bool started;
	struct bt_l4_answers last; /* as counted by the balancer */
	int64_t all, failed;	   /* since the bake began */
	int silent;
};

static void watch_cancel(struct bt_op *op)
{
	struct watch *w = (struct watch *)op;
	bt_op_cancel(w->ask);
	event_free(w->bake.timer);
	free(w);
}

static void no_answer(struct watch *w, const struct bt_err *err)
{
	struct bt_err copy = *err;
	if (++w->silent < WATCH_SILENT) {
		bt_bake_go_on(&w->bake);
		return;
	}
	bt_err_wrap(&copy, "%s did not answer %d times in a row", w->name, w->silent);
	bt_bake_end(&w->bake, copy.code, &copy);
}

static void add(struct watch *w, const struct bt_l4_answers *now)
{
	bool anew = w->started && now->epoch != w->last.epoch;
	if (w->started) {
		w->all += now->all - (anew ? 0 : w->last.all);
		w->failed += now->failed - (anew ? 0 : w->last.failed);
	}
	w->last = *now;
	w->started = true;
}

static void on_answers(
	void *arg, int result, const struct bt_l4_answers *now, const struct bt_err *err)
{
	struct watch *w = arg;
	w->ask = NULL;
	if (result < 0) {
		no_answer(w, err);
		return;
	}
	w->silent = 0;
	if (now->counted) {
		add(w, now);
		bt_bake_counted(&w->bake, w->name, w->all, w->failed);
	} else {
		char line[160];
		snprintf(line, sizeof line, "%s does not count answers", w->name);
		bt_progress_say(&w->bake.progress, line);
		bt_bake_go_on(&w->bake);
	}
}

static void on_read(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	struct watch *w = arg;
	struct bt_err bad = {0};
	struct bt_l4_answers none = {0};
	if (result == 0 && !seen->running)
		result = bt_err_set(&bad, BT_E_UNREACHABLE, "%s does not run", w->name);
	on_answers(w, result, &none, bad.code ? &bad : err);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;
	struct bt_err err = {0};
	(void)fd;
	(void)what;
	if (!w->family) {
		bt_err_set(&err, BT_E_REFUSED, "this agent has no driver for %s", w->name);
		bt_bake_end(&w->bake, err.code, &err);
	} else if (w->family->answers) {
		w->ask = w->family->answers(&w->target, on_answers, w);
	} else {
		w->ask = w->family->read(&w->target, on_read, w);
	}
}

struct bt_op *bt_l4_watch_begin(const char *name, const struct bt_service *service, int64_t bake_ms,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	struct watch *w = bt_calloc(1, sizeof *w);
	struct bt_balancer_facts facts;
	(void)name;
	bt_service_balancer(service, &facts);
	w->bake = (struct bt_bake){.op = {watch_cancel},
		.progress = {.fn = progress, .arg = progress_arg},
		.done = done,
		.arg = arg};
	w->family = bt_l4_family_of(service);
	w->name = facts.family;
	w->target.service = service;
	bt_bake_begin(&w->bake, bt_l4_driver()->env.base, service, bake_ms, on_timer);
	return &w->bake.op;
}
