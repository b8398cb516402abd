/* After a boot the file that nginx reads still names instances that are not up yet. It is written
 * again from the confirmed members, with those of this host `down` that nobody has found healthy,
 * by the steps of any other change; generation and members stay what was confirmed, so that the
 * server sees no other desired state, and the last hold, of no slot, is the confirmed text again.
 */
#include "driver/nginx_batch.h"

#include <string.h>

static bool listed(const char *const *slots, size_t n, const char *slot)
{
	for (size_t i = 0; i < n; i++)
		if (bt_streq(slots[i], slot))
			return true;
	return false;
}

static int held_text(const struct bt_nginx_site *site, const struct bt_service *service,
	const char *const *slots, size_t n_slots, struct bt_str *out, struct bt_err *err)
{
	const struct bt_nginx_state *s = site->state;
	const struct bt_nginx_target *c = &s->confirmed;
	BT_FREE struct bt_pool_member *members = bt_calloc(c->n_members + 1, sizeof *members);
	BT_FREE bool *down = bt_calloc(c->n_members + 1, sizeof *down);
	for (size_t i = 0; i < c->n_members; i++) {
		members[i] = c->members[i];
		down[i] = bt_streq(members[i].host, bt_nginx_driver()->env->host) &&
			  listed(slots, n_slots, members[i].slot);
		members[i].in = members[i].in && !down[i];
	}
	struct bt_pool pool = {.name = s->balancer,
		.service_name = s->service,
		.service = service,
		.generation = c->generation,
		.members = members,
		.n_members = c->n_members,
		.down = down};
	struct bt_nginx_layout layout = bt_nginx_layout_of(s->managed, site->unit->prefix);
	return bt_nginx_render(&pool, &layout, out, err);
}

/* 1: nothing is to do. */
static int prepare(struct bt_nginx_apply *op, const struct bt_service *service,
	const char *const *slots, size_t n_slots, struct bt_err *err)
{
	struct bt_nginx_state *w = op->want;
	BT_STR struct bt_str text = {0};
	if (!w->has_confirmed || w->link) /* a link names no single instance */
		return 1;
	if (w->has_pending || op->site->unit->running || op->site->unit->queue)
		return bt_err_set(err, BT_E_REFUSED, "nginx: another change is on its way");
	int r = held_text(op->site, service, slots, n_slots, &text, err);
	if (r < 0)
		return r;
	if (bt_streq(text.data, w->confirmed.text))
		return 1;
	w->pending = w->confirmed;
	w->pending.text = bt_arena_strdup(w->arena, text.data);
	w->has_pending = true;
	w->check = (struct bt_nginx_check){0};
	return 0;
}

struct told {
	struct bt_op op;
	struct event *now;
	bt_done_fn done;
	void *arg;
	struct bt_err err;
};

static void told_free(struct bt_op *op)
{
	struct told *t = (struct told *)op;
	event_free(t->now);
	free(t);
}

static void on_now(evutil_socket_t fd, short what, void *arg)
{
	struct told *t = arg;
	(void)fd;
	(void)what;
	t->done(t->arg, t->err.code, t->err.code ? &t->err : NULL);
	told_free(&t->op);
}

/* An answer without any change. */
static struct bt_op *tell(const struct bt_err *err, bt_done_fn done, void *arg)
{
	struct told *t = bt_calloc(1, sizeof *t);
	t->op.cancel = told_free;
	t->now = event_new(bt_nginx_driver()->env->base, -1, 0, on_now, t);
	t->done = done;
	t->arg = arg;
	if (err)
		t->err = *err;
	bt_timer_in(t->now, 0);
	return &t->op;
}

struct bt_op *bt_nginx_hold_begin(const struct bt_service *service, const char *const *slots,
	size_t n_slots, bt_done_fn done, void *arg)
{
	struct bt_nginx_site *site = bt_nginx_site_get(service->name);
	struct bt_err err = {0};
	if (!site->state)
		return tell(NULL, done, arg);
	struct bt_nginx_apply *op = bt_calloc(1, sizeof *op);
	op->op.cancel = bt_nginx_op_cancel;
	op->site = site;
	op->internal = op->hold = true;
	op->want = bt_nginx_state_copy(site->state);
	op->done = done;
	op->arg = arg;
	int r = prepare(op, service, slots, n_slots, &err);
	if (r != 0) {
		bt_nginx_state_free(op->want);
		free(op);
		return tell(r < 0 ? &err : NULL, done, arg);
	}
	bt_nginx_submit(op);
	return &op->op;
}
