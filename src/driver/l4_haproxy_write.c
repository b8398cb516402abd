/* Makes haproxy's backend as it shall be. Who comes in is told first and seen taking requests
 * before anybody is taken out, so that a switch leaves no gap; where it is not seen in time, what
 * was changed is changed back. */
#include "driver/l4_haproxy.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

#define POLL_MS 100
#define COMMANDS_MAX 8000 /* haproxy reads a line into one buffer of 16 KiB */

enum phase { PHASE_IN, PHASE_OUT, PHASE_KEEP, PHASE_BACK };

struct prior { /* a server that was changed, and how it was */
	const char *server, *state;
};

struct writing {
	struct bt_op op;
	struct bt_op *doing; /* a look, an ask or the file */
	struct event *timer;
	struct bt_arena *arena;
	const struct bt_l4_target *t;
	const struct bt_haproxy *h;
	enum phase phase;
	bool first; /* no look yet */
	struct prior *priors;
	size_t n_priors;
	struct bt_str commands; /* still to be said */
	int64_t deadline_ms;
	struct bt_err err;     /* why it goes back */
	struct bt_err missing; /* `again`: who is not there any more */
	struct bt_progress progress;
	bt_done_fn done;
	void *arg;
};

static void look(struct writing *w);

static void writing_cancel(struct bt_op *op)
{
	struct writing *w = (struct writing *)op;
	bt_op_cancel(w->doing);
	event_free(w->timer);
	bt_str_done(&w->commands);
	bt_arena_free(w->arena);
	free(w);
}

static void writing_end(struct writing *w)
{
	w->done(w->arg, w->err.code, &w->err);
	writing_cancel(&w->op);
}

/* ---- saying ------------------------------------------------------------------------------- */

static void command(struct writing *w, const char *server, const char *state)
{
	bt_str_addf(&w->commands, "set server %s/%s state %s;", w->h->backend, server, state);
}

static void back(struct writing *w);
static void said_all(struct writing *w);

static void failed(struct writing *w, int code, const char *text)
{
	if (w->phase == PHASE_BACK) {
		BT_FREE char *first = bt_strdup(w->err.text);
		bool said = strstr(first, text) != NULL;
		bt_err_set(&w->err, w->err.code, "%s; and haproxy could not be told to go back%s%s",
			first, said ? "" : ": ", said ? "" : text);
		writing_end(w);
		return;
	}
	bt_err_set(&w->err, code, "%s", text);
	back(w);
}

static void say(struct writing *w);

static void on_said(void *arg, int result, const char *text, const struct bt_err *err)
{
	struct writing *w = arg;
	char said[400];
	w->doing = NULL;
	if (result < 0) {
		failed(w, result, err->text);
	} else if (*bt_haproxy_complaint(text, said, sizeof said)) {
		BT_FREE char *line = bt_asprintf("haproxy says to 'set server': %s", said);
		failed(w, BT_E_FAILED, line);
	} else {
		say(w);
	}
}

/* As many as fit into one line. */
static void say(struct writing *w)
{
	size_t n = 0;
	const char *all = bt_str_get(&w->commands);
	for (const char *end; n < COMMANDS_MAX && (end = strchr(all + n, ';'));)
		n = (size_t)(end + 1 - all);
	if (n == 0) {
		said_all(w);
		return;
	}
	BT_FREE char *line = bt_strndup(all, n - 1);
	BT_FREE char *rest = bt_strdup(all + n);
	bt_str_reset(&w->commands);
	bt_str_add(&w->commands, rest);
	w->doing = bt_haproxy_ask(w->h->socket, line, on_said, w);
}

static void on_kept(void *arg, int result, const struct bt_err *err)
{
	struct writing *w = arg;
	w->doing = NULL;
	if (result < 0) {
		BT_FREE char *line = bt_asprintf(
			"haproxy's state file (traffic.haproxy.state_file): %s", err->text);
		failed(w, result, line);
		return;
	}
	if (w->phase != PHASE_BACK)
		w->err = w->missing;
	writing_end(w);
}

static void keep(struct writing *w)
{
	if (w->h->state_file) {
		w->doing = bt_haproxy_keep(w->h, on_kept, w);
		return;
	}
	if (w->phase != PHASE_BACK)
		w->err = w->missing;
	writing_end(w);
}

static void back(struct writing *w)
{
	w->phase = PHASE_BACK;
	bt_str_reset(&w->commands);
	if (w->n_priors == 0) {
		writing_end(w);
		return;
	}
	for (size_t i = 0; i < w->n_priors; i++)
		command(w, w->priors[i].server, w->priors[i].state);
	say(w);
}

static void said_all(struct writing *w)
{
	if (w->phase == PHASE_BACK)
		keep(w);
	else
		look(w);
}

/* ---- what is to be said ------------------------------------------------------------------- */

static const char *state_of(const struct bt_haproxy_server *h)
{
	return h->admin_state & BT_HAPROXY_FORCED_MAINT ? "maint"
	       : h->admin_state & BT_HAPROXY_DRAIN	? "drain"
							: "ready";
}

static void change(struct writing *w, const struct bt_haproxy_server *h, const char *state)
{
	w->priors[w->n_priors++] = (struct prior){bt_arena_strdup(w->arena, h->name), state_of(h)};
	command(w, h->name, state);
}

/* Those of the phase that are not as they shall be; an `out` may be in maintenance as well. */
static void find_changes(struct writing *w, const struct bt_haproxy_view *v, bool in)
{
	for (size_t i = 0; i < w->t->n_members; i++) {
		const struct bt_pool_member *m = &w->t->members[i];
		const struct bt_haproxy_server *h = bt_haproxy_find(w->t->service, v, m);
		if (h && m->in == in && bt_haproxy_is_in(h) != in)
			change(w, h, in ? "ready" : "drain");
	}
}

static bool check(struct writing *w, const struct bt_haproxy_view *v, struct bt_err *err)
{
	if (bt_haproxy_check_level(err, w->h, v) < 0)
		return false;
	for (size_t i = 0; i < w->t->n_members; i++) {
		const struct bt_pool_member *m = &w->t->members[i];
		if (bt_haproxy_find(w->t->service, v, m))
			continue;
		bt_err_clear(err);
		bt_haproxy_no_server(err, w->t->service, v, m);
		if (!w->t->again)
			return false;
		w->missing = *err; /* the others are told all the same */
	}
	return true;
}

static bool was_changed(const struct writing *w, const struct bt_haproxy_server *h)
{
	for (size_t i = 0; i < w->n_priors; i++)
		if (bt_streq(w->priors[i].server, h->name))
			return true;
	return false;
}

/* The first of the phase that haproxy does not have so; who comes in has to get requests. NULL:
 * there is none. */
static const struct bt_haproxy_server *waits_for(
	const struct writing *w, const struct bt_haproxy_view *v, bool in)
{
	for (size_t i = 0; i < w->t->n_members; i++) {
		const struct bt_pool_member *m = &w->t->members[i];
		const struct bt_haproxy_server *h = bt_haproxy_find(w->t->service, v, m);
		if (!h || m->in != in)
			continue;
		bool comes = in && !w->t->again &&
			     ((w->t->fresh && w->t->fresh[i]) || was_changed(w, h));
		if (comes ? !bt_haproxy_is_served(h) : bt_haproxy_is_in(h) != in)
			return h;
	}
	return NULL;
}

static void wait_on(struct writing *w, const struct bt_haproxy_server *h)
{
	char line[400];
	const char *what = w->phase == PHASE_OUT		? "has not taken out"
			   : h->op_state == BT_HAPROXY_STARTING ? "warms up"
								: "sends nothing yet to";
	snprintf(line, sizeof line, "haproxy %s %s: %s%s%.200s", what, h->name, h->status,
		*h->check ? ", " : "", h->check);
	if (bt_clock_boot_ms() >= w->deadline_ms) {
		BT_FREE char *late = bt_asprintf("%s, and health.within has passed", line);
		failed(w, BT_E_TIMEOUT, late);
		return;
	}
	bt_progress_say(&w->progress, line);
	bt_timer_in(w->timer, POLL_MS);
}

static void on_view(
	void *arg, int result, const struct bt_haproxy_view *v, const struct bt_err *err)
{
	struct writing *w = arg;
	struct bt_err bad = {0};
	w->doing = NULL;
	if (result < 0 || (w->first && !check(w, v, &bad))) {
		failed(w, result < 0 ? result : bad.code, result < 0 ? err->text : bad.text);
		return;
	}
	if (w->first) {
		w->first = false;
		w->priors = BT_ARENA_ARRAY(w->arena, struct prior, 2 * v->n_servers + 1);
		find_changes(w, v, true);
		say(w);
		return;
	}
	const struct bt_haproxy_server *late = waits_for(w, v, w->phase == PHASE_IN);
	if (late) {
		wait_on(w, late);
	} else if (w->phase == PHASE_IN) {
		w->phase = PHASE_OUT;
		find_changes(w, v, false);
		say(w);
	} else {
		w->phase = PHASE_KEEP;
		keep(w);
	}
}

static void look(struct writing *w)
{
	w->doing = bt_haproxy_look(w->h, on_view, w);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	look(arg);
}

struct bt_op *bt_haproxy_write(const struct bt_l4_target *t, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct writing *w = bt_calloc(1, sizeof *w);
	w->op.cancel = writing_cancel;
	w->arena = bt_arena_new();
	w->t = t;
	w->h = &t->service->l4->haproxy;
	w->first = true;
	w->deadline_ms = bt_clock_boot_ms() + t->service->health.within_ms;
	w->progress = (struct bt_progress){.fn = progress, .arg = progress_arg};
	w->done = done;
	w->arg = arg;
	w->timer = event_new(bt_haproxy_env()->base, -1, 0, on_timer, w);
	look(w);
	return &w->op;
}
