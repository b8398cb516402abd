/* Observations for the server: every ten seconds, and at once after something changed, a tenth of a
 * second apart. Instances are compared every second by a number that costs no I/O; balancers are
 * tended in the same breath. */
#include "agent/link_priv.h"
#include "agent/vitals.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"

#include <string.h>

#define EVERY_MS 10000
#define APART_MS 100
#define PULSE_MS 1000
#define TEND_EVERY 3 /* pulses */
#define POST_TIMEOUT_MS 15000

struct one { /* a service that is being looked at */
	struct bt_watch *w;
	char *name;
	struct bt_observing *observing;
};

struct bt_watch {
	struct bt_link *l;
	struct event *soon, *pulse;
	struct one *ones;
	size_t n_ones, left;
	bool again; /* a wish came while looking or posting */
	json_t *services;
	struct bt_link_call *post;
	struct bt_vitals *vitals;
	int64_t begun_ms; /* the last round */
	int64_t produced; /* results whose effects it saw */
	uint64_t last_pulse;
	unsigned pulses;
};

static void wish(struct bt_watch *w, int64_t ms)
{
	bt_timer_in(w->soon, ms);
}

static void wish_soon(struct bt_watch *w)
{
	int64_t left = w->begun_ms + APART_MS - bt_clock_boot_ms();
	wish(w, left > 0 ? left : 0);
}

void bt_watch_now(struct bt_watch *w)
{
	if (w->ones || w->post)
		w->again = true;
	else
		wish_soon(w);
}

static void next_round(struct bt_watch *w)
{
	if (w->again)
		wish_soon(w);
	else
		wish(w, EVERY_MS);
	w->again = false;
}

static void on_posted(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct bt_watch *w = arg;
	(void)status; /* the next one follows anyway */
	(void)answer;
	(void)err;
	w->post = NULL;
	next_round(w);
}

static void forget_round(struct bt_watch *w)
{
	for (size_t i = 0; i < w->n_ones; i++) {
		bt_observe_cancel(w->ones[i].observing);
		free(w->ones[i].name);
	}
	free(w->ones);
	w->ones = NULL;
	w->n_ones = 0;
	json_decref(w->services);
	w->services = NULL;
}

static void round_done(struct bt_watch *w)
{
	struct bt_link *l = w->l;
	int64_t free_bytes = -1;
	bt_fs_free_bytes(l->env.state_dir, &free_bytes, NULL);
	json_t *body = json_pack("{s:s,s:s,s:s,s:I,s:O,s:I}", "host", l->env.host, "address",
		l->env.address, "agent_version", l->env.version, "free_bytes",
		(json_int_t)free_bytes, "services", w->services, "produced",
		(json_int_t)w->produced);
	json_object_set_new(body, "busy", json_integer((json_int_t)bt_exec_busy(l->exec)));
	const char *trouble = bt_ledger_file_trouble(l->env.exec->ledger);
	if (trouble)
		json_object_set_new(body, "trouble", json_string(trouble));
	forget_round(w);
	w->post = bt_link_call(
		l, "POST", "/v1/agent/observation", body, POST_TIMEOUT_MS, on_posted, w);
}

static void on_seen(void *arg, json_t *seen)
{
	struct one *o = arg;
	bt_vitals_add(o->w->vitals, o->name, seen);
	json_object_set(o->w->services, o->name, seen);
	o->observing = NULL;
	if (--o->w->left == 0)
		round_done(o->w);
}

static void start_one(struct bt_watch *w, const struct bt_known_service *s)
{
	struct one *o = &w->ones[w->n_ones];
	BT_JSON json_t *service = NULL;
	*o = (struct one){w, NULL, NULL};
	if (!s->text || bt_json_parse(s->text, strlen(s->text), SIZE_MAX, &service, NULL) < 0)
		return;
	if (bt_observe_start(w->l->env.exec, service, (struct bt_observe_what){0}, on_seen, o,
		    &o->observing, NULL) < 0)
		return;
	o->name = bt_strdup(s->name);
	w->n_ones++;
	w->left++;
}

static void on_soon(evutil_socket_t fd, short what, void *arg)
{
	struct bt_watch *w = arg;
	const struct bt_known *k = w->l->env.exec->known;
	(void)fd;
	(void)what;
	if (!w->l->up || w->ones || w->post) {
		if (!w->l->up)
			wish(w, EVERY_MS);
		return;
	}
	w->ones = bt_calloc(bt_known_count(k) + 1, sizeof *w->ones);
	w->services = json_object();
	w->begun_ms = bt_clock_boot_ms();
	w->produced = w->l->produced;
	w->left = 1; /* nothing ends before all have begun */
	for (size_t i = 0; i < bt_known_count(k); i++)
		start_one(w, bt_known_at(k, i));
	if (--w->left == 0)
		round_done(w);
}

static void tend(void)
{
	const struct bt_balancer_ops *ops;
	for (size_t i = 0; (ops = bt_balancer_at(i)); i++)
		if (ops->tend)
			ops->tend();
}

static void on_pulse(evutil_socket_t fd, short what, void *arg)
{
	struct bt_watch *w = arg;
	(void)fd;
	(void)what;
	uint64_t now = bt_observe_pulse(w->l->env.exec);
	if (now != w->last_pulse)
		bt_watch_now(w);
	w->last_pulse = now;
	bt_vitals_tick(w->vitals);
	if (w->pulses++ % TEND_EVERY == 0)
		tend();
}

static void on_vitals(void *arg)
{
	bt_watch_now(arg);
}

struct bt_watch *bt_watch_new(struct bt_link *l)
{
	struct bt_watch *w = bt_calloc(1, sizeof *w);
	struct event_base *base = l->env.exec->driver->base;
	struct timeval tv = {PULSE_MS / 1000, 0};
	w->l = l;
	w->soon = evtimer_new(base, on_soon, w);
	w->pulse = event_new(base, -1, EV_PERSIST, on_pulse, w);
	event_add(w->pulse, &tv);
	w->vitals = bt_vitals_new(l->env.exec, on_vitals, w);
	return w;
}

struct bt_watch *bt_watch_free(struct bt_watch *w)
{
	if (!w)
		return NULL;
	forget_round(w);
	bt_vitals_free(w->vitals);
	bt_link_call_cancel(w->post);
	event_free(w->soon);
	event_free(w->pulse);
	free(w);
	return NULL;
}
