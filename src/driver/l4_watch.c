/* The bake at an L4 balancer. One that looks into what it passes on counts its answers, and a share
 * of 5xx above the service's ends the bake; for the others it is enough that they go on answering
 * us: whether the instances are well is the health check's to see. */
#include "driver/l4_site.h"

#include "base/clock.h"

#include <string.h>

#define WATCH_POLL_MS 250
#define WATCH_MIN_ANSWERS 20
#define WATCH_SILENT 8 /* looks in a row without an answer */

struct watch {
	struct bt_op op;
	struct event *timer;
	struct bt_op *ask;
	const struct bt_l4_family *family;
	const char *name;
	struct bt_l4_target target;
	bool started;
	struct bt_l4_answers last; /* as counted by the balancer */
	int64_t all, failed;	   /* since the bake began */
	int silent;
	double max_share;
	int64_t end_ms;
	char last_line[160];
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done;
	void *arg;
};

static void watch_cancel(struct bt_op *op)
{
	struct watch *w = (struct watch *)op;
	bt_op_cancel(w->ask);
	event_free(w->timer);
	free(w);
}

static void watch_end(struct watch *w, int result, const struct bt_err *err)
{
	w->done(w->arg, result, err);
	watch_cancel(&w->op);
}

static void tell(struct watch *w, const char *line)
{
	if (!strcmp(line, w->last_line))
		return;
	snprintf(w->last_line, sizeof w->last_line, "%s", line);
	if (w->progress)
		w->progress(w->progress_arg, line);
}

static void go_on(struct watch *w)
{
	struct bt_err none = {0};
	int64_t left = w->end_ms - bt_clock_boot_ms();
	if (left <= 0)
		watch_end(w, 0, &none);
	else
		bt_l4_timer(w->timer, left < WATCH_POLL_MS ? left : WATCH_POLL_MS);
}

static void no_answer(struct watch *w, const struct bt_err *err)
{
	struct bt_err copy = *err;
	if (++w->silent < WATCH_SILENT) {
		go_on(w);
		return;
	}
	bt_err_wrap(&copy, "%s did not answer %d times in a row", w->name, w->silent);
	watch_end(w, copy.code, &copy);
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
	struct bt_err bad = {0};
	char line[160];
	w->ask = NULL;
	if (result < 0) {
		no_answer(w, err);
		return;
	}
	w->silent = 0;
	if (!now->counted) {
		snprintf(line, sizeof line, "%s does not count answers", w->name);
		tell(w, line);
		go_on(w);
		return;
	}
	add(w, now);
	snprintf(line, sizeof line, "%lld answers, %lld of them 5xx", (long long)w->all,
		(long long)w->failed);
	tell(w, line);
	if (w->all < WATCH_MIN_ANSWERS || (double)w->failed <= w->max_share * (double)w->all) {
		go_on(w);
		return;
	}
	bt_err_set(&bad, BT_E_FAILED,
		"%s passed on %lld of %lld answers with 5xx, more than %.4g%% (bake_max_5xx)",
		w->name, (long long)w->failed, (long long)w->all, 100 * w->max_share);
	watch_end(w, bad.code, &bad);
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
		watch_end(w, err.code, &err);
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
	w->op.cancel = watch_cancel;
	w->family = bt_l4_family_of(service);
	w->name = facts.family;
	w->target.service = service;
	w->max_share = service->deploy.bake_max_5xx;
	w->end_ms = bt_clock_boot_ms() + bake_ms;
	w->progress = progress;
	w->progress_arg = progress_arg;
	w->done = done;
	w->arg = arg;
	w->timer = event_new(bt_l4_driver()->env.base, -1, 0, on_timer, w);
	bt_l4_timer(w->timer, 0);
	return &w->op;
}
