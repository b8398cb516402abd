/* Polling for health: at once, then every `every`; the same loop waits for a start (`passes` in a
 * row or the deadline) and watches a bake (`fails` in a row, or its end). */
#include "driver/health_probe.h"

#include "base/clock.h"
#include "driver/op.h"

#include <string.h>

struct health {
	struct bt_op op;
	const struct bt_driver_env *env;
	struct bt_health_target target;
	bool watch;
	int64_t begin_ms, deadline_ms, tried_ms;
	int tries, passes, fails;
	char *last, *last_bad;
	struct event *next, *end;
	struct bt_health_probe *probe;
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done;
	void *arg;
};

static void health_free(struct health *h)
{
	bt_health_probe_cancel(h->probe);
	event_free(h->next);
	event_free(h->end);
	free(h->last);
	free(h->last_bad);
	free(h);
}

static void health_cancel(struct bt_op *op)
{
	health_free((struct health *)op);
}

static void health_end(struct health *h, const struct bt_err *err)
{
	h->done(h->arg, err->code, err);
	health_free(h);
}

static void unhealthy(struct health *h)
{
	struct bt_err err = {0};
	char in[32];
	BT_STR struct bt_str what = {0};
	bt_health_probe_words(&h->target, &what);
	if (h->watch)
		bt_err_set(&err, BT_E_FAILED,
			"not healthy any more: %d checks in a row failed; %s: %s", h->fails,
			bt_str_get(&what), h->last_bad);
	else
		bt_err_set(&err, BT_E_FAILED, "not healthy within %s, %d %s; %s: %s",
			bt_duration_format(h->deadline_ms - h->begin_ms, in), h->tries,
			h->tries == 1 ? "try" : "tries", bt_str_get(&what),
			h->last ? h->last : "no answer yet");
	health_end(h, &err);
}

static void say(struct health *h, bool healthy, const char *answer)
{
	/* A bake is quiet while all is well. */
	if (!h->progress || (h->watch && healthy && h->tries > 1 && h->passes > 1))
		return;
	BT_FREE char *line = bt_asprintf("try %d: %s", h->tries, answer);
	h->progress(h->progress_arg, line);
}

static void keep(char **slot, const char *text)
{
	char *copy = bt_strdup(text);
	free(*slot);
	*slot = copy;
}

static void on_probe(void *arg, bool healthy, const char *answer)
{
	struct health *h = arg;
	const struct bt_health *spec = h->target.health;
	struct bt_err none = {0};
	h->probe = NULL;
	h->tries++;
	h->passes = healthy ? h->passes + 1 : 0;
	h->fails = healthy ? 0 : h->fails + 1;
	keep(&h->last, answer);
	if (!healthy)
		keep(&h->last_bad, answer);
	say(h, healthy, answer);
	if (!h->watch && h->passes >= (spec->passes > 0 ? spec->passes : 1))
		health_end(h, &none);
	else if (h->watch && h->fails >= (spec->fails > 0 ? spec->fails : 1))
		unhealthy(h);
	else
		bt_timer_in(h->next, h->tried_ms + spec->every_ms - bt_clock_boot_ms());
}

static void on_next(evutil_socket_t fd, short what, void *arg)
{
	struct health *h = arg;
	(void)fd;
	(void)what;
	h->tried_ms = bt_clock_boot_ms();
	h->probe = bt_health_probe_start(h->env, &h->target, on_probe, h);
}

static void on_end(evutil_socket_t fd, short what, void *arg)
{
	struct health *h = arg;
	struct bt_err none = {0};
	(void)fd;
	(void)what;
	if (h->watch)
		health_end(h, &none);
	else
		unhealthy(h);
}

static struct bt_op *begin(const struct bt_driver_env *env, const struct bt_health_target *t,
	bool watch, int64_t length_ms, bt_progress_fn progress, void *progress_arg, bt_done_fn done,
	void *arg)
{
	struct health *h = bt_calloc(1, sizeof *h);
	h->op.cancel = health_cancel;
	h->env = env;
	h->target = *t;
	h->watch = watch;
	h->begin_ms = bt_clock_boot_ms();
	h->deadline_ms = h->begin_ms + length_ms;
	h->progress = progress;
	h->progress_arg = progress_arg;
	h->done = done;
	h->arg = arg;
	h->next = event_new(env->base, -1, 0, on_next, h);
	h->end = event_new(env->base, -1, 0, on_end, h);
	bt_timer_in(h->next, 0);
	bt_timer_in(h->end, length_ms);
	return &h->op;
}

struct bt_op *bt_health_wait(const struct bt_driver_env *env, const struct bt_health_target *t,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	int64_t within = t->within_ms ? t->within_ms : t->health->within_ms;
	return begin(env, t, false, within, progress, progress_arg, done, arg);
}

struct bt_op *bt_health_watch(const struct bt_driver_env *env, const struct bt_health_target *t,
	int64_t bake_ms, bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	return begin(env, t, true, bake_ms, progress, progress_arg, done, arg);
}
