#include "agent/loopback.h"

#include "base/str.h"

#include <string.h>

#define AGAIN_S 2

struct bt_addresses {
	const struct bt_exec_env *env;
	const struct bt_log *log;
	struct event *timer;
	char *why; /* it did not go last */
};

static int put_back(struct bt_addresses *a, const struct bt_known_service *s, struct bt_err *err)
{
	BT_ARENA struct bt_arena *arena = bt_arena_new();
	struct bt_loopback l = bt_known_loopback(s, arena);
	struct bt_seen_vip *seen = NULL;
	bool missing = false;
	if (!l.n_vips)
		return 0;
	int r = bt_policy_network(a->env->policy, "traffic.loopback", err);
	if (r == 0)
		r = a->env->drivers->loopback_see(&l, arena, &seen, err);
	for (size_t i = 0; r == 0 && i < l.n_vips; i++)
		missing = missing || !seen[i].there || seen[i].trouble;
	if (r < 0 || !missing)
		return r;
	r = a->env->drivers->loopback_put(&l, err);
	if (r == 0)
		bt_log(a->log, BT_LOG_INFO, "%s of %s is on %s again", l.vips[0], s->name,
			l.interface);
	return r;
}

static void look(struct bt_addresses *a)
{
	const struct bt_known *known = a->env->known;
	struct bt_err first = {0};
	for (size_t i = 0; i < bt_known_count(known); i++) {
		const struct bt_known_service *s = bt_known_at(known, i);
		struct bt_err err = {0};
		if (put_back(a, s, &err) < 0 && !first.code)
			bt_err_set(&first, err.code, "the address of %s is not back: %s", s->name,
				err.text);
	}
	if (!first.code)
		return;
	if (!bt_streq(a->why, first.text)) {
		bt_log(a->log, BT_LOG_WARN, "%s", first.text);
		free(a->why);
		a->why = bt_strdup(first.text);
	}
	bt_timer_in(a->timer, AGAIN_S * 1000);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	look(arg);
}

/* It was taken off on purpose, and something else (the network's own configuration) has put it
 * there since. */
static void tell_strays(struct bt_addresses *a, const struct bt_known_service *s)
{
	const struct bt_wanted_loopback *w = &s->loopback;
	const struct bt_loopback l = {(const char *const *)w->vips, w->n_vips, w->interface};
	BT_ARENA struct bt_arena *arena = bt_arena_new();
	struct bt_seen_vip *seen = NULL;
	if (!w->told || w->on || !w->n_vips ||
		a->env->drivers->loopback_see(&l, arena, &seen, NULL) < 0)
		return;
	for (size_t i = 0; i < l.n_vips; i++)
		if (seen[i].there && !bt_known_holder(a->env->known, s->name, l.vips[i]))
			bt_log(a->log, BT_LOG_WARN,
				"%s is on this host, though it was taken off for %s: whatever put "
				"it there does so at each boot",
				l.vips[i], s->name);
}

struct bt_addresses *bt_addresses_start(const struct bt_exec_env *env, const struct bt_log *log)
{
	struct bt_addresses *a = bt_calloc(1, sizeof *a);
	*a = (struct bt_addresses){.env = env, .log = log};
	a->timer = evtimer_new(env->driver->base, on_timer, a);
	look(a);
	for (size_t i = 0; i < bt_known_count(env->known); i++)
		tell_strays(a, bt_known_at(env->known, i));
	return a;
}

struct bt_addresses *bt_addresses_free(struct bt_addresses *a)
{
	if (!a)
		return NULL;
	event_free(a->timer);
	free(a->why);
	free(a);
	return NULL;
}
