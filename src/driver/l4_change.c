/* Who waits for a change of an L4 balancer, and in which order: one queue a service. A change that
 * is cancelled before its turn goes away; one that has begun runs to its end, only nobody is told:
 * half a change of a balancer is not something to leave behind. */
#include "driver/l4_change.h"

#define SHARED_LOOK_MS 200

static void kick(struct bt_l4_site *s);

static void change_free(struct bt_l4_change *c)
{
	bt_l4_state_free(c->want);
	bt_l4_state_free(c->asked);
	bt_str_done(&c->differs);
	free(c);
}

/* A program that puts back whoever is well has to be contradicted before many requests have gone
 * there. */
static void on_soon(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	bt_l4_tend_begin(arg);
}

static bool has_out(const struct bt_l4_state *s)
{
	for (size_t i = 0; i < s->confirmed.n_members; i++)
		if (!s->confirmed.members[i].in)
			return true;
	return s->n_held > 0;
}

static void look_soon(struct bt_l4_site *s)
{
	if (!s->shared || !s->state || !s->state->has_confirmed || !has_out(s->state))
		return;
	if (!s->soon)
		s->soon = event_new(bt_l4_driver()->env.base, -1, 0, on_soon, s);
	bt_timer_in(s->soon, SHARED_LOOK_MS);
}

void bt_l4_change_ended(struct bt_l4_change *c, int result, const struct bt_err *err)
{
	struct bt_l4_site *s = c->site;
	s->running = NULL;
	kick(s);
	look_soon(s);
	if (c->done)
		c->done(c->arg, result, err);
	change_free(c);
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct bt_l4_site *s = arg;
	struct bt_l4_change *c = s->queue;
	(void)fd;
	(void)what;
	if (s->running || !c)
		return;
	s->queue = c->next;
	c->next = NULL;
	s->running = c;
	if (c->early.code < 0)
		bt_l4_change_ended(c, c->early.code, &c->early);
	else
		bt_l4_change_start(c);
}

static void kick(struct bt_l4_site *s)
{
	if (!s->kick)
		s->kick = event_new(bt_l4_driver()->env.base, -1, 0, on_kick, s);
	bt_timer_in(s->kick, 0);
}

static void change_cancel(struct bt_op *op)
{
	struct bt_l4_change *c = (struct bt_l4_change *)op;
	for (struct bt_l4_change **p = &c->site->queue; *p; p = &(*p)->next)
		if (*p == c) {
			*p = c->next;
			change_free(c);
			return;
		}
	c->done = NULL;
	c->progress = NULL;
}

static struct bt_l4_change *submit(struct bt_l4_site *site, enum bt_l4_change_kind kind)
{
	struct bt_l4_change *c = bt_calloc(1, sizeof *c), **p = &site->queue;
	c->op.cancel = change_cancel;
	c->site = site;
	c->kind = kind;
	while (*p)
		p = &(*p)->next;
	*p = c;
	kick(site);
	return c;
}

struct bt_op *bt_l4_apply_begin(const struct bt_pool *pool, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	const struct bt_service *s = pool->service;
	struct bt_l4_change *c = submit(bt_l4_site_get(s->name), BT_L4_APPLY);
	c->asked = bt_l4_state_new(s->name, pool->name);
	c->progress = progress;
	c->progress_arg = progress_arg;
	c->done = done;
	c->arg = arg;
	if (!bt_l4_family_of(s))
		bt_err_set(&c->early, BT_E_REFUSED, "this agent has no driver for %s",
			bt_enum_name(&bt_enum_balancer, (int)s->l4->kind));
	else
		(void)bt_l4_wish_set(c->asked, &c->asked->pending, pool, &c->early);
	return &c->op;
}

/* After a boot the balancer may name instances of this host that are not up yet: they count as out,
 * durably, until the list is empty. What was confirmed stays, so that the server sees no other
 * desired state, and the last hold, of no slot, brings it back. */
struct bt_op *bt_l4_hold_begin(const struct bt_service *service, const char *const *slots,
	size_t n_slots, bt_done_fn done, void *arg)
{
	struct bt_l4_site *site = bt_l4_site_get(service->name);
	bool busy = site->running || site->queue || (site->state && site->state->has_pending);
	struct bt_l4_change *c = submit(site, BT_L4_HOLD);
	c->asked = bt_l4_state_new(service->name, "");
	bt_l4_state_hold(c->asked, slots, n_slots);
	c->done = done;
	c->arg = arg;
	if (busy)
		bt_err_set(&c->early, BT_E_REFUSED, "another change of the balancer is on its way");
	return &c->op;
}

void bt_l4_tend_begin(struct bt_l4_site *site)
{
	if (!site->running && !site->queue)
		submit(site, BT_L4_TEND);
}
