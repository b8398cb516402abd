/* What haproxy does for a service. A member is `in` when nobody took it out: what haproxy's own
 * checks think of it comes and goes, and is told as trouble. Only where baton has not said anything
 * yet, and a configuration names servers before anything runs there, is who is found down no one
 * that serves. */
#include "driver/l4_haproxy.h"

#include <stdio.h>
#include <string.h>

/* Pids come around again; a start within the same second with the same pid does not. */
static uint64_t epoch_of(const struct bt_haproxy_view *v)
{
	return (uint64_t)v->start_s << 24 ^ (uint64_t)v->pid;
}

struct reading {
	struct bt_thread_op op;
	struct bt_op *look;
	const struct bt_l4_target *t;
	bt_l4_seen_fn done;
	void *arg;
	struct bt_arena *arena;
	struct bt_l4_seen seen;
	struct bt_seen_member *members;
	const char **words;
	/* of the job */
	int64_t pid;
	struct bt_haproxy_peer *peers;
};

static void reading_free(void *op)
{
	struct reading *r = op;
	bt_op_cancel(r->look);
	bt_arena_free(r->arena);
	free(r);
}

static void reading_end(struct reading *r, int result, const struct bt_err *err)
{
	r->done(r->arg, result, result < 0 ? NULL : &r->seen, err);
	reading_free(r);
}

static void run_old(void *arg)
{
	struct reading *r = arg;
	bt_haproxy_old_count(r->pid, r->peers, r->seen.n_members);
}

static void on_old(void *arg)
{
	struct reading *r = arg;
	struct bt_err none = {0};
	for (size_t i = 0; i < r->seen.n_members; i++)
		r->members[i].connections += r->peers[i].count;
	reading_end(r, 0, &none);
}

static void count_old(struct reading *r, const struct bt_haproxy_view *v)
{
	r->pid = v->pid;
	r->peers = BT_ARENA_ARRAY(r->arena, struct bt_haproxy_peer, r->seen.n_members + 1);
	for (size_t i = 0; i < r->seen.n_members; i++) {
		r->peers[i].address = r->members[i].address;
		r->peers[i].port = r->members[i].port;
	}
	bt_thread_op_run(&r->op, bt_haproxy_env()->work, run_old, on_old);
}

struct owner { /* of a server; host NULL: nobody of the service */
	const char *host, *slot;
};

static void own(const struct bt_haproxy_view *v, const struct bt_haproxy_server *h,
	const struct bt_pool_member *m, struct owner *owners)
{
	if (h && !owners[h - v->servers].host)
		owners[h - v->servers] = (struct owner){m->host, m->slot};
}

/* Those that the template names are known also where nothing was told yet; one that the backend
 * does not have is a reason to begin nothing. */
static void find_owners(struct reading *r, const struct bt_haproxy_view *v, struct owner *owners)
{
	const struct bt_l4_target *t = r->t;
	const struct bt_service *s = t->service;
	struct bt_err err = {0};
	for (size_t i = 0; i < t->n_members; i++)
		own(v, bt_haproxy_find(s, v, &t->members[i]), &t->members[i], owners);
	for (size_t h = 0; s->l4->haproxy.server && h < s->n_hosts; h++)
		for (size_t i = 0; i < s->run.n_slots; i++) {
			struct bt_pool_member m = {.host = s->hosts[h],
				.slot = s->run.slots[i].name,
				.port = s->run.slots[i].port};
			const struct bt_haproxy_server *found = bt_haproxy_find(s, v, &m);
			own(v, found, &m, owners);
			if (!found && !err.code)
				bt_haproxy_no_server(&err, s, v, &m);
		}
	if (!err.code)
		bt_haproxy_check_level(&err, &s->l4->haproxy, v);
	if (err.code)
		r->seen.refuses = bt_arena_strdup(r->arena, err.text);
}

static void add_server(
	struct reading *r, const struct bt_haproxy_server *h, const struct owner *owner)
{
	size_t at = r->seen.n_members;
	struct bt_seen_member *m = &r->members[at];
	*m = (struct bt_seen_member){.address = bt_arena_strdup(r->arena, h->address),
		.port = h->port,
		.in = bt_haproxy_is_in(h) &&
		      (r->t->n_members > 0 || h->op_state != BT_HAPROXY_STOPPED),
		.counted = h->counted,
		.connections = h->connections};
	bool ours = owner->host != NULL;
	m->host = bt_arena_strdup(r->arena, owner->host);
	m->slot = bt_arena_strdup(r->arena, owner->slot);
	if (h->backup && !ours)
		return; /* who says sorry when nobody else is there */
	r->words[at] = h->admin_state & BT_HAPROXY_MAINT   ? "in maintenance"
		       : h->admin_state & BT_HAPROXY_DRAIN ? "draining"
							   : NULL;
	if (ours && m->in && h->op_state == BT_HAPROXY_STOPPED && !r->seen.trouble)
		r->seen.trouble = bt_arena_printf(
			r->arena, "it finds %s down%s%s", h->name, *h->check ? ": " : "", h->check);
	r->seen.n_members++;
}

static void on_view(
	void *arg, int result, const struct bt_haproxy_view *v, const struct bt_err *err)
{
	struct reading *r = arg;
	struct bt_err none = {0};
	r->look = NULL;
	if (result == BT_E_UNREACHABLE) {
		r->seen.trouble = r->seen.refuses = bt_arena_strdup(r->arena, err->text);
		reading_end(r, 0, &none);
		return;
	}
	if (result < 0) {
		reading_end(r, result, err);
		return;
	}
	r->members = BT_ARENA_ARRAY(r->arena, struct bt_seen_member, v->n_servers + 1);
	r->words = BT_ARENA_ARRAY(r->arena, const char *, v->n_servers + 1);
	r->seen.running = true;
	r->seen.epoch = epoch_of(v);
	r->seen.members = r->members;
	r->seen.words = r->words;
	struct owner *owners = BT_ARENA_ARRAY(r->arena, struct owner, v->n_servers + 1);
	find_owners(r, v, owners);
	for (size_t i = 0; i < v->n_servers; i++)
		add_server(r, &v->servers[i], &owners[i]);
	if (r->t->counting)
		count_old(r, v);
	else
		reading_end(r, 0, &none);
}

struct bt_op *bt_haproxy_read(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg)
{
	struct reading *r = bt_calloc(1, sizeof *r);
	bt_thread_op_init(&r->op, reading_free);
	r->t = t;
	r->done = done;
	r->arg = arg;
	r->arena = bt_arena_new();
	r->look = bt_haproxy_look(&t->service->l4->haproxy, on_view, r);
	return &r->op.op;
}

/* ---- answers ------------------------------------------------------------------------------ */

struct counting {
	struct bt_op op;
	struct bt_op *look;
	bt_l4_answers_fn done;
	void *arg;
};

static void counting_cancel(struct bt_op *op)
{
	struct counting *c = (struct counting *)op;
	bt_op_cancel(c->look);
	free(c);
}

static void on_counted(
	void *arg, int result, const struct bt_haproxy_view *v, const struct bt_err *err)
{
	struct counting *c = arg;
	struct bt_l4_answers now = {0};
	c->look = NULL;
	if (v)
		now = (struct bt_l4_answers){.counted = v->totals.http,
			.all = v->totals.answers,
			.failed = v->totals.failed,
			.epoch = epoch_of(v)};
	c->done(c->arg, result, v ? &now : NULL, err);
	counting_cancel(&c->op);
}

struct bt_op *bt_haproxy_answers(const struct bt_l4_target *t, bt_l4_answers_fn done, void *arg)
{
	struct counting *c = bt_calloc(1, sizeof *c);
	c->op.cancel = counting_cancel;
	c->done = done;
	c->arg = arg;
	c->look = bt_haproxy_look(&t->service->l4->haproxy, on_counted, c);
	return &c->op;
}
