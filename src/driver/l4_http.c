/* An L4 appliance or cloud balancer behind a REST API.
 *
 * The API is told about one member at a time, so a change of several is not one change: those that
 * come in are told first and seen in before any is told to leave, so that at no moment fewer are in
 * rotation than before or after. Only members whose status differs are told anything, which makes a
 * repeat after a crash harmless and leaves what people did to others alone.
 *
 * That a call was answered with 200 says that the API took it, not that connections go elsewhere:
 * a change is done once `status` says so. Nothing is kept here: the desired state is the caller's,
 * and the real one is the appliance's. */
#include "driver/l4.h"

#include "base/clock.h"
#include "base/str.h"
#include "driver/l4_http.h"
#include "driver/op.h"

#include <stdio.h>
#include <string.h>

/* WRITE_MS: a Switch has a minute, and says better than that it is over what it waits for. */
enum { AT_ONCE = 8, FIRST_POLL_MS = 100, MAX_POLL_MS = 2000, WRITE_MS = 50000 };

static const struct bt_driver_env *env;

static int init(const struct bt_driver_env *e, struct bt_err *err)
{
	(void)err;
	env = e;
	return 0;
}

/* ---- the status of many ------------------------------------------------------------------- */

struct survey;
struct asked { /* one member */
	struct survey *survey;
	struct bt_api_try *call;
	int result;
	struct bt_api_state state;
	struct bt_err err;
};
struct survey {
	struct bt_service service; /* a copy: repeats may be off */
	struct bt_l4 l4;
	const struct bt_pool_member *members;
	size_t n, next, left;
	struct asked *asked;
	int64_t until_ms;
	bt_progress_fn progress;
	void *progress_arg;
	void (*done)(void *arg);
	void *arg;
};

static void ask_more(struct survey *s);

static void on_status(void *arg, int result, const char *body, size_t n, const struct bt_err *err)
{
	struct asked *a = arg;
	struct survey *s = a->survey;
	const struct bt_pool_member *m = &s->members[a - s->asked];
	a->call = NULL;
	a->result = result;
	if (result < 0)
		a->err = *err;
	else if (bt_api_read_state(&s->l4.http, body, n, &a->state, &a->err) < 0) {
		bt_err_wrap(&a->err, "status of %s/%s", m->host, m->slot);
		bt_api_hide(env, &s->service, &a->err);
		a->result = a->err.code;
	}
	s->left--;
	ask_more(s);
	if (s->left == 0)
		s->done(s->arg);
}

static void ask_more(struct survey *s)
{
	size_t flying = 0;
	for (size_t i = 0; i < s->next; i++)
		flying += s->asked[i].call != NULL;
	for (; s->next < s->n && flying < AT_ONCE; flying++, s->next++) {
		struct bt_api_request rq = {
			.service = &s->service,
			.member = &s->members[s->next],
			.verb = BT_API_STATUS,
			.until_ms = s->until_ms,
			.progress = s->progress,
			.progress_arg = s->progress_arg,
		};
		s->asked[s->next].survey = s;
		s->asked[s->next].call = bt_api_start(env, &rq, on_status, &s->asked[s->next]);
	}
}

/* done is called from the loop; n is not 0. */
static struct survey *survey_new(const struct bt_service *service,
	const struct bt_pool_member *members, size_t n, bool repeats, void (*done)(void *),
	void *arg)
{
	struct survey *s = bt_calloc(1, sizeof *s);
	s->l4 = *service->l4;
	if (!repeats)
		s->l4.http.retries = 0;
	s->service = *service;
	s->service.l4 = &s->l4;
	s->members = members;
	s->n = s->left = n;
	s->asked = bt_calloc(n, sizeof *s->asked);
	s->done = done;
	s->arg = arg;
	return s;
}

static struct survey *survey_free(struct survey *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n; i++)
		bt_api_cancel(s->asked[i].call);
	free(s->asked);
	free(s);
	return NULL;
}

/* ---- read --------------------------------------------------------------------------------- */

struct reading {
	struct bt_op op;
	struct bt_arena *arena;
	struct survey *survey;
	struct event *fire; /* there is nobody to ask about */
	bt_l4_seen_fn done;
	void *arg;
};

static void reading_free(struct reading *r)
{
	survey_free(r->survey);
	if (r->fire)
		event_free(r->fire);
	bt_arena_free(r->arena);
	free(r);
}

static void reading_cancel(struct bt_op *op)
{
	reading_free((struct reading *)op);
}

/* What is not known of one member is said of the whole: a plan made from a part would take what
 * serves for what is idle. Where a secret has not come yet there is nothing baton ever switched,
 * and the deployment that brings it must be able to begin. The result of the read. */
static int add_trouble(struct bt_l4_seen *seen, const struct asked *a)
{
	if (!seen->trouble)
		seen->trouble = a->err.text;
	if (a->result == BT_E_NOTFOUND)
		return 0;
	if (a->result != BT_E_UNREACHABLE && a->result != BT_E_TIMEOUT)
		return a->result;
	seen->running = false;
	if (!seen->refuses)
		seen->refuses = a->err.text;
	return 0;
}

static void on_surveyed(void *arg)
{
	struct reading *r = arg;
	const struct survey *s = r->survey;
	struct bt_l4_seen seen = {.running = true};
	struct bt_seen_member *list = BT_ARENA_ARRAY(r->arena, struct bt_seen_member, s->n + 1);
	struct bt_err err = {0};
	for (size_t i = 0; i < s->n; i++) {
		const struct bt_pool_member *m = &s->members[i];
		const struct asked *a = &s->asked[i];
		if (a->result < 0) {
			if (add_trouble(&seen, a) < 0 && err.code == 0)
				err = a->err;
			continue;
		}
		list[seen.n_members++] = (struct bt_seen_member){
			.address = m->address ? m->address : "",
			.port = m->port,
			.host = m->host,
			.slot = m->slot,
			.in = a->state.in,
			.counted = s->l4.http.connections != NULL,
			.connections = a->state.connections,
		};
	}
	seen.members = list;
	r->done(r->arg, err.code, &seen, &err);
	reading_free(r);
}

static void on_nobody(evutil_socket_t fd, short what, void *arg)
{
	struct reading *r = arg;
	struct bt_l4_seen seen = {.running = true};
	struct bt_err none = {0};
	(void)fd;
	(void)what;
	r->done(r->arg, 0, &seen, &none);
	reading_free(r);
}

/* Every instance that the config has; addresses come with the first switch. */
static const struct bt_pool_member *of_config(
	const struct bt_service *s, struct bt_arena *a, size_t *ret_n)
{
	size_t n = s->n_hosts * s->run.n_slots;
	struct bt_pool_member *list = BT_ARENA_ARRAY(a, struct bt_pool_member, n + 1);
	for (size_t i = 0; i < n; i++) {
		const struct bt_slot *slot = &s->run.slots[i % s->run.n_slots];
		list[i] = (struct bt_pool_member){
			.host = s->hosts[i / s->run.n_slots],
			.slot = slot->name,
			.port = slot->port,
		};
	}
	*ret_n = n;
	return list;
}

static struct bt_op *read_state(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg)
{
	struct reading *r = bt_calloc(1, sizeof *r);
	const struct bt_pool_member *members = t->members;
	size_t n = t->n_members;
	r->op.cancel = reading_cancel;
	r->arena = bt_arena_new();
	r->done = done;
	r->arg = arg;
	if (n == 0)
		members = of_config(t->service, r->arena, &n);
	if (n == 0) {
		r->fire = evtimer_new(env->base, on_nobody, r);
		bt_timer_in(r->fire, 0);
		return &r->op;
	}
	/* Whoever looks is looked at in turn: no repeats that would hold up all of a host's
	 * observation. */
	r->survey = survey_new(t->service, members, n, false, on_surveyed, r);
	ask_more(r->survey);
	return &r->op;
}

/* ---- write -------------------------------------------------------------------------------- */

struct writing;
struct change { /* one member that is told */
	struct writing *w;
	const struct bt_pool_member *member;
	struct bt_api_try *call;
	struct event *timer;
	bool told, done;
	int64_t polls;
};
struct writing {
	struct bt_op op;
	const struct bt_service *service;
	struct survey *survey;
	struct change *changes; /* those that come in first */
	size_t n, n_in, next, flying, n_done;
	bool again;
	int64_t until_ms;
	struct event *fire;
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done;
	void *arg;
};

static void writing_free(struct writing *w)
{
	survey_free(w->survey);
	for (size_t i = 0; i < w->n; i++) {
		bt_api_cancel(w->changes[i].call);
		if (w->changes[i].timer)
			event_free(w->changes[i].timer);
	}
	if (w->fire)
		event_free(w->fire);
	free(w->changes);
	free(w);
}

static void writing_cancel(struct bt_op *op)
{
	writing_free((struct writing *)op);
}

/* On failure it says which members are changed already, since they stay so. */
static void writing_end(struct writing *w, int result, struct bt_err *err)
{
	BT_STR struct bt_str changed = {0};
	for (size_t i = 0; result < 0 && i < w->n; i++)
		if (w->changes[i].told)
			bt_str_addf(&changed, "%s%s/%s %s %s", changed.len ? ", " : "",
				w->changes[i].member->host, w->changes[i].member->slot,
				w->changes[i].done ? "is" : "was told to be",
				w->changes[i].member->in ? "in" : "out");
	if (changed.len) {
		char text[BT_ERR_MAX];
		snprintf(text, sizeof text, "%s", err->text);
		bt_err_set(err, err->code, "%s; before that %s", text, changed.data);
	}
	w->done(w->arg, result, err);
	writing_free(w);
}

static void say(struct writing *w, const struct bt_pool_member *m, const char *words)
{
	BT_FREE char *line = bt_asprintf("%s/%s %s", m->host, m->slot, words);
	if (w->progress)
		w->progress(w->progress_arg, line);
}

static void change_more(struct writing *w);
static void look(struct change *c);

static void on_poll_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	look(arg);
}

static void change_ends(struct change *c)
{
	c->done = true;
	c->w->flying--;
	c->w->n_done++;
	change_more(c->w);
}

static void look_later(struct change *c)
{
	int64_t ms = FIRST_POLL_MS;
	for (int64_t i = 1; i < c->polls && ms < MAX_POLL_MS; i++)
		ms *= 2;
	if (!c->timer)
		c->timer = evtimer_new(env->base, on_poll_timer, c);
	bt_timer_in(c->timer, ms);
}

static void on_look(void *arg, int result, const char *body, size_t n, const struct bt_err *err)
{
	struct change *c = arg;
	struct writing *w = c->w;
	struct bt_api_state state = {0};
	struct bt_err e = *err;
	c->call = NULL;
	if (result == 0 && bt_api_read_state(&w->service->l4->http, body, n, &state, &e) < 0) {
		result = bt_err_wrap(&e, "status of %s/%s", c->member->host, c->member->slot);
		bt_api_hide(env, w->service, &e);
	}
	if (result < 0) {
		writing_end(w, result, &e);
		return;
	}
	c->polls++;
	if (state.in != c->member->in && bt_clock_boot_ms() >= w->until_ms) {
		bt_err_set(&e, BT_E_TIMEOUT,
			"%s/%s was told to be %s, and the API still says that it is %s",
			c->member->host, c->member->slot, c->member->in ? "in" : "out",
			state.in ? "in" : "out");
		writing_end(w, e.code, &e);
		return;
	}
	if (state.in != c->member->in) {
		if (c->polls == 1)
			say(w, c->member,
				c->member->in ? "is told, waits until it is seen in"
					      : "is told, waits until it is seen out");
		look_later(c);
		return;
	}
	say(w, c->member, c->member->in ? "is in rotation" : "is out of rotation");
	change_ends(c);
}

static void look(struct change *c)
{
	struct bt_api_request rq = {c->w->service, c->member, BT_API_STATUS, c->w->until_ms,
		c->w->progress, c->w->progress_arg};
	c->call = bt_api_start(env, &rq, on_look, c);
}

static void on_told(void *arg, int result, const char *body, size_t n, const struct bt_err *err)
{
	struct change *c = arg;
	(void)body;
	(void)n;
	c->call = NULL;
	if (result < 0) {
		struct bt_err e = *err;
		writing_end(c->w, result, &e);
		return;
	}
	c->told = true;
	if (c->w->again && c->member->in)
		change_ends(c);
	else
		look(c);
}

/* Starts what may be started: nobody leaves before all that come in are seen in. */
static void change_more(struct writing *w)
{
	struct bt_err none = {0};
	if (w->n_done == w->n) {
		writing_end(w, 0, &none);
		return;
	}
	size_t end = w->n_done < w->n_in ? w->n_in : w->n;
	for (; w->next < end && w->flying < AT_ONCE; w->next++, w->flying++) {
		struct change *c = &w->changes[w->next];
		struct bt_api_request rq = {w->service, c->member,
			c->member->in ? BT_API_ON : BT_API_OFF, w->until_ms, w->progress,
			w->progress_arg};
		c->call = bt_api_start(env, &rq, on_told, c);
	}
}

static void on_differences(void *arg)
{
	struct writing *w = arg;
	struct survey *s = w->survey;
	w->changes = bt_calloc(s->n, sizeof *w->changes);
	for (size_t i = 0; i < s->n; i++)
		if (s->asked[i].result < 0) {
			struct bt_err e = s->asked[i].err;
			writing_end(w, s->asked[i].result, &e);
			return;
		}
	for (int in = 1; in >= 0; in--) {
		for (size_t i = 0; i < s->n; i++)
			if (s->members[i].in == in && s->asked[i].state.in != s->members[i].in)
				w->changes[w->n++] =
					(struct change){.w = w, .member = &s->members[i]};
		if (in)
			w->n_in = w->n;
	}
	w->survey = NULL;
	change_more(w);
	survey_free(s);
}

static void on_nothing(evutil_socket_t fd, short what, void *arg)
{
	struct bt_err none = {0};
	(void)fd;
	(void)what;
	writing_end(arg, 0, &none);
}

static struct bt_op *write_state(const struct bt_l4_target *t, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct writing *w = bt_calloc(1, sizeof *w);
	w->op.cancel = writing_cancel;
	w->service = t->service;
	w->again = t->again;
	w->until_ms = bt_clock_boot_ms() + WRITE_MS;
	w->progress = progress;
	w->progress_arg = progress_arg;
	w->done = done;
	w->arg = arg;
	if (t->n_members == 0) {
		w->fire = evtimer_new(env->base, on_nothing, w);
		bt_timer_in(w->fire, 0);
		return &w->op;
	}
	w->survey = survey_new(t->service, t->members, t->n_members, true, on_differences, w);
	w->survey->until_ms = w->until_ms;
	w->survey->progress = progress;
	w->survey->progress_arg = progress_arg;
	ask_more(w->survey);
	return &w->op;
}

const struct bt_l4_family bt_l4_http = {
	.kind = BT_BALANCER_HTTP,
	.init = init,
	.write = write_state,
	.read = read_state,
};
