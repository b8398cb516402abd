/* Drained is: every worker that was shutting down when we began is gone (it holds an older
 * configuration, so a connection that its client opened earlier could still bring a request for
 * the instance; those that are known never to have sent there do not count), and no connection to
 * the instances is open in nginx's network namespace. */
#include "base/clock.h"
#include "driver/nginx_unit.h"

#include <stdio.h>

#define DRAIN_POLL_MS 60

struct drain {
	struct bt_thread_op op;
	struct bt_nginx_site *site;
	struct bt_nginx_unit *unit;
	struct event *timer;
	struct bt_nginx_test *test;
	bool looked;
	int64_t deadline_ms;
	struct bt_progress progress;
	bt_done_fn done;
	void *arg;
	struct bt_arena *arena;
	struct bt_nginx_peer *peers;
	size_t n_peers;
	const char *pid_file;
	/* of the job */
	pid_t ns;
	struct bt_nginx_proc *old, *strangers; /* strangers: never sent to the instances */
	size_t n_old, n_strangers;
	int64_t connections, took_ms;
	int result;
	struct bt_err err;
};

static void drain_free(void *op)
{
	struct drain *d = op;
	bt_nginx_test_cancel(d->test);
	event_free(d->timer);
	bt_arena_free(d->arena);
	free(d->old);
	free(d->strangers);
	free(d);
}

static void drain_end(struct drain *d, int result)
{
	d->done(d->arg, result, &d->err);
	drain_free(d);
}

/* ---- on a thread -------------------------------------------------------------------------- */

static void first_look(struct drain *d)
{
	struct bt_nginx_proc master;
	d->looked = true;
	if (!d->pid_file || bt_nginx_master(d->pid_file, &master) != 0)
		return; /* no nginx: what is connected is seen from here */
	struct bt_nginx_workers w;
	bt_nginx_workers_read(&master, &w);
	d->ns = master.pid;
	d->old = bt_calloc(w.n_leaving + 1, sizeof *d->old);
	for (size_t i = 0; i < w.n_leaving; i++)
		if (!bt_nginx_proc_in(d->strangers, d->n_strangers, &w.leaving[i]))
			d->old[d->n_old++] = w.leaving[i];
	bt_nginx_workers_done(&w);
}

/* The kernel hands out its table in pieces, so that a row can be missed or seen twice while others
 * come and go: nothing is only nothing when it is seen again. */
static int count_connections(struct drain *d)
{
	int r = 0;
	for (int i = 0; r == 0 && i < 2 && (i == 0 || d->connections == 0); i++)
		r = bt_nginx_connections(d->ns, d->peers, d->n_peers, &d->connections, &d->err);
	return r;
}

static void run_count(void *arg)
{
	struct drain *d = arg;
	int64_t began_ms = bt_clock_boot_ms();
	if (!d->looked)
		first_look(d);
	size_t n = 0;
	for (size_t i = 0; i < d->n_old; i++)
		if (bt_nginx_proc_alive(&d->old[i]))
			d->old[n++] = d->old[i];
	d->n_old = n;
	d->result = count_connections(d);
	if (d->result < 0 && d->ns > 0) { /* the master went away: its sockets did not */
		d->ns = 0;
		bt_err_clear(&d->err);
		d->result = count_connections(d);
	}
	d->took_ms = bt_clock_boot_ms() - began_ms;
}

/* ---- on the loop -------------------------------------------------------------------------- */

static void on_counted(void *arg)
{
	struct drain *d = arg;
	if (d->result < 0) {
		bt_err_wrap(&d->err, "nginx: count connections");
		drain_end(d, d->err.code);
		return;
	}
	char line[160];
	snprintf(line, sizeof line, "%lld connection%s, %zu old worker%s",
		(long long)d->connections, d->connections == 1 ? "" : "s", d->n_old,
		d->n_old == 1 ? "" : "s");
	bt_progress_say(&d->progress, line);
	if (d->connections == 0 && d->n_old == 0) {
		drain_end(d, 0);
		return;
	}
	int64_t left = d->deadline_ms - bt_clock_boot_ms();
	if (left <= 0) {
		BT_STR struct bt_str holders = {0};
		bt_nginx_holders(d->old, d->n_old, &holders);
		bt_err_set(&d->err, BT_E_TIMEOUT, "still %s when the drain time passed%s%s", line,
			holders.len ? ", which hold " : "", bt_str_get(&holders));
		drain_end(d, 1);
		return;
	}
	/* Where the table is so long that a look takes long, looking is not all this host does. */
	int64_t wait_ms = d->took_ms * 4 > DRAIN_POLL_MS ? d->took_ms * 4 : DRAIN_POLL_MS;
	bt_timer_in(d->timer, left < wait_ms ? left : wait_ms);
}

static void count(struct drain *d)
{
	if (d->unit->facts_known && !d->pid_file)
		d->pid_file = bt_arena_strdup(d->arena, d->unit->facts.pid_file);
	if (!d->looked && !d->strangers)
		d->n_strangers = bt_nginx_strangers(d->site, d->peers, d->n_peers, &d->strangers);
	bt_thread_op_run(&d->op, bt_nginx_driver()->env->work, run_count, on_counted);
}

static void on_drain_tested(void *arg, int result, const char *dump, const struct bt_err *err)
{
	struct drain *d = arg;
	(void)dump;
	d->test = NULL;
	if (result < 0) {
		d->err = *err;
		bt_err_wrap(&d->err, "where nginx's workers are is not known");
		drain_end(d, d->err.code);
		return;
	}
	count(d);
}

static void on_drain_timer(evutil_socket_t fd, short what, void *arg)
{
	struct drain *d = arg;
	(void)fd;
	(void)what;
	if (d->unit->facts_known)
		count(d);
	else
		d->test = bt_nginx_test_start(d->unit, on_drain_tested, d);
}

struct bt_op *bt_nginx_drain_begin(const struct bt_drain_request *rq, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct drain *d = bt_calloc(1, sizeof *d);
	bt_thread_op_init(&d->op, drain_free);
	d->site = bt_nginx_site_of(rq->service);
	d->unit = d->site->unit;
	d->arena = bt_arena_new();
	d->n_peers = rq->n_members;
	d->peers = BT_ARENA_ARRAY(d->arena, struct bt_nginx_peer, rq->n_members);
	for (size_t i = 0; i < rq->n_members; i++) {
		d->peers[i].address = bt_arena_strdup(d->arena, rq->members[i].address);
		d->peers[i].port = rq->members[i].port;
	}
	d->deadline_ms = bt_clock_boot_ms() + rq->wait_ms;
	d->progress = (struct bt_progress){.fn = progress, .arg = progress_arg};
	d->done = done;
	d->arg = arg;
	d->timer = event_new(bt_nginx_driver()->env->base, -1, 0, on_drain_timer, d);
	bt_timer_in(d->timer, 0);
	return &d->op.op;
}
