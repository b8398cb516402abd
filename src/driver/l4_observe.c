/* What an L4 balancer really does for a service. Waits until a change that a crash interrupted was
 * looked at. Where the balancer cannot be asked, what it was told last stands for what it does, and
 * nothing is begun on that ground (`refuses`). */
#include "driver/l4_site.h"

#include "base/clock.h"
#include "driver/members.h"

#include <string.h>

#define RECOVERY_POLL_MS 50
#define RECOVERY_MS 5000 /* then what there is has to do: it may wait for a member to be well */

struct observe {
	struct bt_op op;
	struct event *timer;
	struct bt_op *doing; /* the read, then the identity's */
	struct bt_l4_site *site;
	const struct bt_l4_family *family;
	int64_t begun_ms;
	bool only_generation;
	bool steady;	     /* no change was under way when the look began */
	const char *through; /* URL of the identity; NULL: not asked */
	struct bt_arena *arena;
	const char *kind;
	struct bt_l4_target target;
	struct bt_seen_balancer seen;
	void (*done)(void *, int, const struct bt_seen_balancer *, const struct bt_err *);
	void *arg;
};

static void observe_cancel(struct bt_op *op)
{
	struct observe *o = (struct observe *)op;
	bt_op_cancel(o->doing);
	event_free(o->timer);
	bt_arena_free(o->arena);
	free(o);
}

static void observe_end(struct observe *o)
{
	struct bt_err none = {0};
	o->done(o->arg, 0, &o->seen, &none);
	observe_cancel(&o->op);
}

static void trouble(struct observe *o, const char *text)
{
	if (!o->seen.trouble)
		o->seen.trouble = bt_arena_strdup(o->arena, text);
}

static void on_identity(void *arg, int result, const char *body, const struct bt_err *err)
{
	struct observe *o = arg;
	(void)err; /* no answer is an answer: the identity stays unknown */
	o->doing = NULL;
	if (result == 0)
		o->seen.identity = bt_arena_strdup(o->arena, body);
	observe_end(o);
}

static void copy_members(struct observe *o, const struct bt_l4_seen *seen)
{
	struct bt_seen_member *m =
		BT_ARENA_ARRAY(o->arena, struct bt_seen_member, seen->n_members + 1);
	for (size_t i = 0; i < seen->n_members; i++) {
		m[i] = seen->members[i];
		m[i].address = bt_arena_strdup(o->arena, m[i].address);
		m[i].host = bt_arena_strdup(o->arena, m[i].host);
		m[i].slot = bt_arena_strdup(o->arena, m[i].slot);
	}
	o->seen.members = m;
	o->seen.n_members = seen->n_members;
}

static void assume_members(struct observe *o)
{
	size_t n = o->target.n_members;
	struct bt_seen_member *m = BT_ARENA_ARRAY(o->arena, struct bt_seen_member, n + 1);
	for (size_t i = 0; i < n; i++) {
		const struct bt_pool_member *t = &o->target.members[i];
		m[i] = (struct bt_seen_member){.address = t->address,
			.port = t->port,
			.in = t->in,
			.host = t->host,
			.slot = t->slot};
	}
	o->seen.members = m;
	o->seen.n_members = n;
}

/* Drift: while it began anew, and is told again, it is not a person's doing. What it still has to
 * be told will be told at any moment, so whoever plans from what is there now would be contradicted
 * in the middle of it. */
static void tell_difference(struct observe *o, const struct bt_l4_seen *seen)
{
	const struct bt_l4_state *s = o->site->state;
	BT_STR struct bt_str line = {0};
	if (o->site->owed && s && s->has_confirmed && !o->seen.refuses &&
		!bt_l4_as_told(o->kind, seen, o->target.members, o->target.n_members, &line))
		o->seen.refuses = bt_arena_printf(o->arena,
			"what was in force before could not be told again yet, and will be in a "
			"moment: %s",
			bt_str_get(&line));
	bt_str_reset(&line);
	bool quiet = o->steady && !o->site->running && !o->site->queue && s && s->has_confirmed &&
		     s->confirmed.generation == o->seen.generation;
	if (quiet && !bt_l4_as_told(o->kind, seen, o->target.members, o->target.n_members, &line))
		trouble(o, bt_str_get(&line));
}

static void on_read(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	struct observe *o = arg;
	const struct bt_l4_state *s = o->site->state;
	o->doing = NULL;
	if (o->site->trouble)
		trouble(o, o->site->trouble);
	if (result < 0) {
		o->seen.refuses = bt_arena_strdup(o->arena, err->text);
		trouble(o, err->text);
		assume_members(o);
	} else if (!seen->running) {
		trouble(o, seen->trouble ? seen->trouble : "it does not run");
		o->seen.refuses = bt_arena_strdup(o->arena, seen->refuses);
		assume_members(o);
	} else {
		o->seen.running = true;
		o->seen.refuses = bt_arena_strdup(o->arena, seen->refuses);
		copy_members(o, seen);
		if (seen->trouble)
			trouble(o, seen->trouble);
		tell_difference(o, seen);
	}
	if (s && s->has_pending && (o->steady || o->site->recovering))
		trouble(o, "a change was interrupted and is not undone yet");
	if (o->seen.running && o->through)
		o->doing = bt_identity_ask(&bt_l4_driver()->env, o->through, NULL, on_identity, o);
	else
		observe_end(o);
}

static void look(struct observe *o)
{
	struct bt_l4_state *s = o->site->state;
	if (s && s->has_confirmed) {
		const struct bt_pool_member *m = bt_l4_state_effective(s, bt_l4_driver()->env.host);
		o->seen.generation = s->confirmed.generation;
		o->target.members = bt_members_copy(o->arena, m, s->confirmed.n_members);
		o->target.n_members = s->confirmed.n_members;
	}
	o->steady = !o->site->running && !o->site->queue;
	o->doing = o->family->read(&o->target, on_read, o);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct observe *o = arg;
	(void)fd;
	(void)what;
	bool late = bt_clock_boot_ms() - o->begun_ms > RECOVERY_MS;
	if (o->site->recovering && !late) {
		bt_l4_timer(o->timer, RECOVERY_POLL_MS);
	} else if (o->only_generation) {
		const struct bt_l4_state *s = o->site->state;
		o->seen.generation = s && s->has_confirmed ? s->confirmed.generation : 0;
		observe_end(o);
	} else if (o->family) {
		look(o);
	} else {
		o->seen.refuses =
			bt_arena_printf(o->arena, "this agent has no driver for %s", o->kind);
		observe_end(o);
	}
}

struct bt_op *bt_l4_observe_begin(const char *name, const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
		const struct bt_err *err),
	void *arg)
{
	struct observe *o = bt_calloc(1, sizeof *o);
	struct bt_balancer_facts facts;
	bt_service_balancer(service, &facts);
	o->op.cancel = observe_cancel;
	o->begun_ms = bt_clock_boot_ms();
	o->arena = bt_arena_new();
	o->site = bt_l4_site_get(service->name);
	o->family = bt_l4_family_of(service);
	o->kind = facts.family;
	o->target.service = service;
	o->seen.name = bt_arena_strdup(o->arena, name);
	if (service->identity.path)
		o->through = bt_arena_strdup(o->arena, service->identity.through);
	o->done = done;
	o->arg = arg;
	o->timer = event_new(bt_l4_driver()->env.base, -1, 0, on_timer, o);
	bt_l4_timer(o->timer, 0);
	return &o->op;
}

struct bt_op *bt_l4_generation_begin(const char *name, const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
		const struct bt_err *err),
	void *arg)
{
	struct observe *o = (struct observe *)bt_l4_observe_begin(name, service, done, arg);
	o->only_generation = true;
	return &o->op;
}
