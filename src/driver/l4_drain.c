/* Drained is: no connection to the instances is open, seen twice, since counts come from tables
 * that change while they are read. Who counts depends on where connections can be seen: at the
 * balancer, by the family; or, where replies or requests go past it, on the instance's own host,
 * where the agent there counts what is established to the instance's port. With direct server
 * return that is what came for the VIP: health checks ask at other addresses, and do not hold a
 * drain up. */
#include "driver/l4_site.h"

#include "base/clock.h"
#include "driver/members.h"
#include "driver/ports.h"

#include <stdio.h>

#define DRAIN_POLL_MS 100
/* Between the two looks that see none: what is on its way arrives. Longer where it comes over a
 * network and through the queues of two hosts, either of which may be busy. */
#define DRAIN_SURE_MS 30
#define DRAIN_SURE_FAR_MS 100

struct drain {
	struct bt_thread_op op;
	struct event *timer;
	struct bt_op *read;
	struct bt_arena *arena;
	const struct bt_l4_family *family;
	const char *name; /* of the family */
	struct bt_l4_target target;
	const struct bt_pool_member *wanted;
	size_t n_wanted;
	bool at_host;
	int zeros; /* looks in a row that saw nothing */
	int64_t deadline_ms, began_ms;
	struct bt_progress progress;
	bt_done_fn done;
	void *arg;
	/* of the job on the host */
	const char *vip; /* NULL: to any address of it */
	uint16_t *ports;
	uint32_t *counts;
	size_t n_ports;
	bool not_told; /* the kernel did not say */
};

static void drain_free(void *op)
{
	struct drain *d = op;
	bt_op_cancel(d->read);
	event_free(d->timer);
	bt_arena_free(d->arena);
	free(d);
}

static void drain_end(struct drain *d, int result, const struct bt_err *err)
{
	d->done(d->arg, result, err);
	drain_free(d);
}

/* Where a look takes long, looking is not all that is done. */
static void again(struct drain *d, int64_t left)
{
	int64_t took_ms = bt_clock_boot_ms() - d->began_ms;
	int64_t wait_ms = took_ms * 4 > DRAIN_POLL_MS ? took_ms * 4 : DRAIN_POLL_MS;
	bt_timer_in(d->timer, left < wait_ms ? left : wait_ms);
}

static void counted(struct drain *d, int64_t connections)
{
	struct bt_err err = {0};
	char line[64];
	snprintf(line, sizeof line, "%lld connection%s", (long long)connections,
		connections == 1 ? "" : "s");
	bt_progress_say(&d->progress, line);
	d->zeros = connections == 0 ? d->zeros + 1 : 0;
	if (d->zeros == 2) {
		drain_end(d, 0, &err);
		return;
	}
	int64_t left = d->deadline_ms - bt_clock_boot_ms();
	if (connections == 0) /* the second look is due, however late it is */
		bt_timer_in(d->timer, d->at_host ? DRAIN_SURE_FAR_MS : DRAIN_SURE_MS);
	else if (left > 0)
		again(d, left);
	else {
		bt_err_set(&err, BT_E_TIMEOUT, "still %s when the drain time passed", line);
		drain_end(d, 1, &err);
	}
}

/* Whether it can be asked again decides the time that is left. */
static void not_counted(struct drain *d, const struct bt_err *err)
{
	int64_t left = d->deadline_ms - bt_clock_boot_ms();
	struct bt_err copy = *err;
	bt_progress_say(&d->progress, err->text);
	d->zeros = 0;
	if (left > 0) {
		again(d, left);
		return;
	}
	bt_err_wrap(&copy, "connections cannot be counted");
	drain_end(d, copy.code, &copy);
}

/* ---- at the balancer ---------------------------------------------------------------------- */

static void on_read(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	struct drain *d = arg;
	struct bt_err why = {0};
	int64_t sum = 0;
	d->read = NULL;
	if (result < 0)
		why = *err;
	else if (!seen->running)
		bt_err_set(&why, BT_E_UNREACHABLE, "%s on %s: %s", d->name,
			bt_l4_driver()->env.host,
			seen->trouble ? seen->trouble : "it does not run");
	if (why.code < 0) {
		not_counted(d, &why);
		return;
	}
	for (size_t i = 0; i < d->n_wanted; i++) {
		const struct bt_seen_member *m = bt_l4_find(seen, &d->wanted[i]);
		if (m && !m->counted) {
			bt_err_set(&why, BT_E_FAILED,
				"%s does not count the connections of %s/%s, and the agent on %s "
				"does not either: it cannot be known when they have ended",
				d->name, d->wanted[i].host, d->wanted[i].slot, d->wanted[i].host);
			drain_end(d, why.code, &why);
			return;
		}
		sum += m ? m->connections : 0; /* unknown to it: it sends nothing there */
	}
	counted(d, sum);
}

/* ---- on the host -------------------------------------------------------------------------- */

static void run_count(void *arg)
{
	struct drain *d = arg;
	d->not_told = false;
	if (d->vip)
		d->not_told = !bt_port_connections_to(d->vip, d->ports, d->n_ports, d->counts);
	else
		bt_port_connections(d->ports, d->n_ports, d->counts);
}

static void on_counted(void *arg)
{
	struct drain *d = arg;
	int64_t sum = 0;
	if (d->not_told) {
		struct bt_err err = {0};
		bt_err_set(&err, BT_E_FAILED, "the kernel does not tell of its connections");
		not_counted(d, &err);
		return;
	}
	for (size_t i = 0; i < d->n_ports; i++)
		sum += d->counts[i];
	counted(d, sum);
}

static bool find_ports(struct drain *d, struct bt_err *err)
{
	const char *host = bt_l4_driver()->env.host;
	d->ports = BT_ARENA_ARRAY(d->arena, uint16_t, d->n_wanted + 1);
	d->counts = BT_ARENA_ARRAY(d->arena, uint32_t, d->n_wanted + 1);
	d->n_ports = 0;
	for (size_t i = 0; i < d->n_wanted; i++) {
		const struct bt_pool_member *m = &d->wanted[i];
		bool known = false;
		if (!bt_streq(m->host, host)) {
			bt_err_set(err, BT_E_REFUSED,
				"connections behind %s are counted on their own host, %s for "
				"%s/%s, and this is %s",
				d->name, m->host, m->host, m->slot, host);
			return false;
		}
		for (size_t k = 0; k < d->n_ports; k++)
			known = known || d->ports[k] == m->port;
		if (!known)
			d->ports[d->n_ports++] = m->port;
	}
	return true;
}

/* ---- both --------------------------------------------------------------------------------- */

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct drain *d = arg;
	struct bt_err err = {0};
	(void)fd;
	(void)what;
	d->began_ms = bt_clock_boot_ms();
	if (!d->family) {
		bt_err_set(&err, BT_E_REFUSED, "this agent has no driver for %s", d->name);
		drain_end(d, err.code, &err);
	} else if (!d->at_host) {
		d->read = d->family->read(&d->target, on_read, d);
	} else if (d->ports || find_ports(d, &err)) {
		bt_thread_op_run(&d->op, bt_l4_driver()->env.work, run_count, on_counted);
	} else {
		drain_end(d, err.code, &err);
	}
}

struct bt_op *bt_l4_drain_begin(const struct bt_drain_request *rq, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct drain *d = bt_calloc(1, sizeof *d);
	struct bt_balancer_facts facts;
	const struct bt_l4_state *s = bt_l4_site_get(rq->service->name)->state;
	bt_service_balancer(rq->service, &facts);
	bt_thread_op_init(&d->op, drain_free);
	d->arena = bt_arena_new();
	d->family = bt_l4_family_of(rq->service);
	d->name = facts.family;
	d->at_host = facts.drains_at_host;
	if (rq->service->l4->mode == BT_L4_DSR)
		d->vip = bt_arena_strdup(d->arena, rq->service->l4->vip);
	d->wanted = bt_members_copy(d->arena, rq->members, rq->n_members);
	d->n_wanted = rq->n_members;
	d->target = (struct bt_l4_target){
		.service = rq->service, .members = d->wanted, .n_members = d->n_wanted};
	if (s && s->has_confirmed) {
		d->target.members =
			bt_members_copy(d->arena, s->confirmed.members, s->confirmed.n_members);
		d->target.n_members = s->confirmed.n_members;
	}
	d->target.counting = true;
	d->deadline_ms = bt_clock_boot_ms() + rq->wait_ms;
	d->progress = (struct bt_progress){.fn = progress, .arg = progress_arg};
	d->done = done;
	d->arg = arg;
	d->timer = event_new(bt_l4_driver()->env.base, -1, 0, on_timer, d);
	bt_timer_in(d->timer, 0);
	return &d->op.op;
}
