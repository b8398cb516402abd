/* Which slot is live? Three sources can tell: what the balancer sends to, what runs, and what the
 * identity URL answers through the balancer. The balancer's word counts, and the others must not
 * contradict it: a deployment that starts from a wrong belief stops the version that serves. */
#include "plan/scene.h"

#include "base/str.h"
#include "plan/plan.h"

#include <string.h>

/* The identity template with the place's values. */
static void expected_identity(
	const struct bt_scene *s, const struct bt_place *p, struct bt_str *out)
{
	char port[8];
	snprintf(port, sizeof port, "%u", p->port);
	const struct {
		const char *name, *value;
	} values[] = {{"{slot}", bt_scene_slot(s, p)}, {"{port}", port},
		{"{host}", bt_scene_host(s, p)}, {"{{", "{"}};
	const char *t = s->service->identity.expect ? s->service->identity.expect : "{slot}";
	while (*t) {
		size_t i = 0;
		while (i < BT_ARRAY_LEN(values) && !bt_str_starts(t, values[i].name))
			i++;
		if (i == BT_ARRAY_LEN(values)) {
			bt_str_addc(out, *t++);
			continue;
		}
		bt_str_add(out, values[i].value);
		t += strlen(values[i].name);
	}
}

static bool same_words(const char *a, const char *b)
{
	static const char space[] = " \t\r\n";
	a += strspn(a, space);
	b += strspn(b, space);
	size_t n = strlen(a), m = strlen(b);
	while (n && strchr(space, a[n - 1]))
		n--;
	while (m && strchr(space, b[m - 1]))
		m--;
	return n == m && !memcmp(a, b, n);
}

static bool identity_fits(const struct bt_scene *s, const struct bt_place *p, const char *said)
{
	BT_STR struct bt_str expected = {0};
	expected_identity(s, p, &expected);
	return same_words(bt_str_get(&expected), said);
}

/* A set of slots as bits would do for 64; counts per slot do for any number. */
struct slots {
	size_t *in, *up; /* hosts where the slot is in rotation / has something running */
	size_t n;
};

static void count(const struct bt_scene *s, struct bt_arena *a, struct slots *c)
{
	c->n = s->service->run.n_slots;
	c->in = BT_ARENA_ARRAY(a, size_t, c->n);
	c->up = BT_ARENA_ARRAY(a, size_t, c->n);
	for (size_t i = 0; i < s->n_places; i++) {
		const struct bt_place *p = &s->places[i];
		c->in[p->slot] += p->in;
		c->up[p->slot] += bt_place_ours(p) || p->stranger;
	}
}

static size_t used(const size_t *counts, size_t n, int *ret_first)
{
	size_t k = 0;
	for (size_t i = n; i-- > 0;)
		if (counts[i]) {
			k++;
			*ret_first = (int)i;
		}
	return k;
}

/* "web1 and web2" */
static void name_balancers(const struct bt_scene *s, struct bt_str *out)
{
	for (size_t i = 0; i < s->n_balancers; i++)
		bt_str_addf(out, "%s%s",
			i == 0			  ? ""
			: i + 1 == s->n_balancers ? " and "
						  : ", ",
			s->balancers[i].on);
}

enum { EVERY = -1, UP = -2 }; /* besides one balancer's number */

static bool is_named(const struct bt_place *p, int by)
{
	if (by == UP)
		return bt_place_ours(p) || p->stranger;
	return by == EVERY ? p->in : p->in_at >> (by & 31) & 1;
}

/* "blue (was1, was2) and green (was3)": which slots are in rotation, or have something running,
 * and where. */
static void name_places(const struct bt_scene *s, int by, struct bt_str *out)
{
	bool any = false;
	for (uint16_t slot = 0; slot < s->service->run.n_slots; slot++) {
		size_t n = 0;
		for (size_t i = 0; i < s->n_places; i++) {
			const struct bt_place *p = &s->places[i];
			if (p->slot != slot || !is_named(p, by))
				continue;
			if (n++ == 0)
				bt_str_addf(out, "%s%s (%s", any ? " and " : "",
					bt_scene_slot(s, p), bt_scene_host(s, p));
			else
				bt_str_addf(out, ", %s", bt_scene_host(s, p));
			if (by == UP && !bt_place_ours(p))
				bt_str_addf(out, ": %s", p->stranger);
			any = true;
		}
		if (n)
			bt_str_addc(out, ')');
	}
	if (!any)
		bt_str_add(out, by == UP ? "nothing" : "no slot");
}

static int disagree(const struct bt_scene *s, const char *what, struct bt_err *err)
{
	BT_STR struct bt_str text = {0};
	bt_str_addf(&text, "%s; ", what);
	for (size_t i = 0; i < s->n_balancers; i++) {
		const struct bt_scene_balancer *b = &s->balancers[i];
		if (!b->seen)
			continue;
		bt_str_addf(&text, "%s on %s sends to ", s->facts.family, b->on);
		name_places(s, (int)i, &text);
		bt_str_add(&text, ", ");
		if (b->seen->identity)
			bt_str_addf(&text, "through it '%s' answers, ", b->seen->identity);
	}
	bt_str_add(&text, "running: ");
	name_places(s, UP, &text);
	return bt_err_set(err, BT_E_REFUSED, "which slot of %s is live? %s", s->service->name,
		bt_str_get(&text));
}

static int family_disagrees(const struct bt_scene *s, const char *does, struct bt_err *err)
{
	BT_FREE char *what = bt_asprintf("%s %s", s->facts.family, does);
	return disagree(s, what, err);
}

/* Each instance that says who it is must be who it is. */
static int check_instances(const struct bt_scene *s, struct bt_err *err)
{
	if (!s->service->identity.path)
		return 0;
	for (size_t i = 0; i < s->n_places; i++) {
		const struct bt_place *p = &s->places[i];
		if (!p->identity || p->state != BT_RUN_RUNNING || identity_fits(s, p, p->identity))
			continue;
		BT_STR struct bt_str what = {0};
		bt_str_addf(&what, "%s/%s on port %u says it is '%s'", bt_scene_host(s, p),
			bt_scene_slot(s, p), p->port, p->identity);
		return disagree(s, bt_str_get(&what), err);
	}
	return 0;
}

static const char *said_through(const struct bt_scene *s, size_t balancer)
{
	const struct bt_seen_balancer *seen = s->balancers[balancer].seen;
	return seen ? seen->identity : NULL;
}

static bool fits_through(const struct bt_scene *s, size_t balancer, const char *said)
{
	for (size_t i = 0; i < s->n_places; i++)
		if (is_named(&s->places[i], (int)balancer) && identity_fits(s, &s->places[i], said))
			return true;
	return false;
}

static int check_through(const struct bt_scene *s, struct bt_err *err)
{
	for (size_t k = 0; s->service->identity.path && k < s->n_balancers; k++) {
		const char *said = said_through(s, k);
		if (said && !fits_through(s, k, said))
			return disagree(s, "the identity is not that of the slot in rotation", err);
	}
	return 0;
}

static bool any_through(const struct bt_scene *s)
{
	for (size_t k = 0; k < s->n_balancers; k++)
		if (said_through(s, k))
			return true;
	return false;
}

/* Nobody to ask but what runs: one slot, or else the one that was started last. */
static int live_without_balancer(const struct bt_scene *s, const struct slots *c, int *ret_slot,
	struct bt_str *why, struct bt_err *err)
{
	int slot = -1;
	size_t n = used(c->up, c->n, &slot);
	if (n == 0)
		bt_str_add(why, "nothing runs");
	else if (n == 1)
		bt_str_addf(why, "only %s runs", s->service->run.slots[slot].name);
	if (n < 2) {
		*ret_slot = slot;
		return 0;
	}
	int64_t newest = 0;
	bool tie = false;
	for (size_t i = 0; i < s->n_places; i++) {
		const struct bt_place *p = &s->places[i];
		if (!bt_place_ours(p) && !p->stranger)
			continue;
		if (p->since_wall_ms > newest) {
			tie = false;
			newest = p->since_wall_ms;
			slot = p->slot;
		} else if (p->since_wall_ms == newest && p->slot != slot)
			tie = true;
	}
	if (tie || newest == 0)
		return disagree(s, "several slots run and there is no balancer to ask", err);
	bt_str_addf(why, "%s was started last, and there is no balancer to ask",
		s->service->run.slots[slot].name);
	*ret_slot = slot;
	return 0;
}

/* Several slots serve, on every host the same ones, and all with one release: what a rolling
 * deployment left. (One switch of blue-green never leaves that.) */
static bool all_alike(const struct bt_scene *s, const struct slots *c)
{
	uint32_t release = 0;
	for (size_t i = 0; i < s->n_places; i++) {
		const struct bt_place *p = &s->places[i];
		if (p->in != (c->in[p->slot] > 0))
			return false;
		if (!p->in)
			continue;
		if (!p->release || (release && p->release != release))
			return false;
		release = p->release;
	}
	return true;
}

static int live_by_balancer(const struct bt_scene *s, const struct slots *c, int *ret_slot,
	struct bt_str *why, struct bt_err *err)
{
	int slot = -1, up = -1;
	size_t n_in = used(c->in, c->n, &slot), n_up = used(c->up, c->n, &up);
	if (n_in > 1 && !all_alike(s, c))
		return family_disagrees(s, "sends to several slots", err);
	if (n_up == 0 && !any_through(s)) {
		if (slot < 0)
			bt_str_addf(why, "nothing runs and %s sends nowhere", s->facts.family);
		else
			bt_str_addf(why, "nothing runs, though %s sends to %s", s->facts.family,
				s->service->run.slots[slot].name);
		*ret_slot = -1;
		return 0;
	}
	int r = check_through(s, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < s->n_places; i++)
		if (s->places[i].one) /* so that the next one takes over from it, and once */
			slot = s->places[i].slot;
	if (n_in == 0)
		bt_str_addf(why, "%s sends nowhere", s->facts.family);
	else if (!c->up[slot])
		return family_disagrees(s, "sends where nothing runs", err);
	else {
		bt_str_addf(why, "%s on ", s->facts.family);
		name_balancers(s, why);
		bt_str_addf(why, " send%s to ", s->n_balancers > 1 ? "" : "s");
		if (n_in > 1)
			name_places(s, EVERY, why);
		else
			bt_str_add(why, s->service->run.slots[slot].name);
	}
	*ret_slot = slot;
	return 0;
}

int bt_plan_live_slot(const struct bt_service *service, const struct bt_world *w, int *ret_slot,
	struct bt_str *ret_why, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_scene s;
	struct slots c;
	int r = bt_scene_look(service, w, a, &s, err);
	if (r < 0)
		return r;
	count(&s, a, &c);
	if (service->deploy.strategy != BT_STRATEGY_BLUE_GREEN) {
		/* Every slot is an instance here, and several serve at once. */
		int first = -1;
		used(s.n_balancers ? c.in : c.up, c.n, &first);
		if (s.n_balancers)
			bt_str_addf(ret_why, "%zu of %zu instances are in rotation", s.n_in,
				s.n_places);
		else
			bt_str_add(ret_why, first < 0 ? "nothing runs" : "there is no balancer");
		*ret_slot = first;
		return 0;
	}
	if ((r = check_instances(&s, err)) < 0)
		return r;
	return s.n_balancers ? live_by_balancer(&s, &c, ret_slot, ret_why, err)
			     : live_without_balancer(&s, &c, ret_slot, ret_why, err);
}
