/* IPVS (LVS) by netlink: out of rotation is weight 0. docs/balancers.md tells people about it.
 *
 * Asking the kernel may load modules, and what is remembered goes to the disk, so each operation is
 * a job on a thread with copies of what it needs; a job that was cancelled ends unheard.
 *
 * The kernel tells of no age of a service, so a table that was emptied and filled again (ipvsadm
 * -C, a restart of keepalived) is noticed by its counters: they never fall otherwise, but for
 * `ipvsadm --zero`, and then saying everything once more changes nothing.
 *
 * In a service of keepalived's a real server that comes in may still be missing: then the job is
 * done again and again until keepalived has put it back, or for as long as a Switch can wait. */
#include "base/clock.h"
#include "driver/l4_ipvs_work.h"
#include "driver/l4_site.h"
#include "driver/members.h"

#include <string.h>

#define AWAIT_MS 50000 /* of the minute that a Switch has */
#define AWAIT_POLL_MS 200

static struct bt_driver_env the_env;

/* ---- how often a service began anew ---------------------------------------------------------- */

struct age {
	struct age *next;
	char *service;
	uint64_t epoch, packets;
	bool there;
};
static struct age *ages;

static struct age *age_of(const char *service)
{
	for (struct age *a = ages; a; a = a->next)
		if (bt_streq(a->service, service))
			return a;
	struct age *a = bt_calloc(1, sizeof *a);
	*a = (struct age){.next = ages, .service = bt_strdup(service)};
	/* Another than any before this agent's start: what happened meanwhile nobody saw. */
	a->epoch = (uint64_t)bt_clock_wall_ms();
	return ages = a;
}

static uint64_t epoch_of(const char *service, const struct bt_ipvs_found *f)
{
	struct age *a = age_of(service);
	a->epoch += (a->there && !f->there) || (f->there && f->packets < a->packets);
	a->there = f->there;
	a->packets = f->packets;
	return a->epoch;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

struct job {
	struct bt_op op;
	struct bt_ipvs_task task;
	struct bt_arena *arena;
	const char *service;
	bool cancelled;
	/* one of the two */
	bt_done_fn done;
	bt_l4_seen_fn seen;
	void *arg;
	bt_progress_fn progress;
	void *progress_arg;
	/* of a write that waits for another program */
	struct event *timer;
	int64_t deadline_ms;
	char last_line[BT_ERR_MAX];
	/* what came out */
	int result;
	struct bt_err err;
	struct bt_str told;
	struct bt_ipvs_found found;
};

static void job_free(struct job *j)
{
	if (j->timer)
		event_free(j->timer);
	bt_str_done(&j->told);
	bt_arena_free(j->arena);
	free(j);
}

static void job_cancel(struct bt_op *op)
{
	((struct job *)op)->cancelled = true; /* the thread still has it */
}

static struct job *job_new(const struct bt_l4_target *t)
{
	const struct bt_l4 *l4 = t->service->l4;
	struct bt_arena *a = bt_arena_new();
	struct job *j = bt_calloc(1, sizeof *j);
	j->op.cancel = job_cancel;
	j->arena = a;
	j->service = bt_arena_strdup(a, t->service->name);
	j->task = (struct bt_ipvs_task){
		.arena = a,
		.memory_path = bt_arena_printf(
			a, "%s/l4/%s/ipvs.json", the_env.state_dir, t->service->name),
		.proc = "/proc/sys",
		.vip = bt_arena_strdup(a, l4->vip),
		.port = l4->port,
		.mode = l4->mode,
		.scheduler = bt_arena_strdup(a, l4->ipvs.scheduler),
		.weight = l4->ipvs.weight,
		.only = l4->n_on <= 1,
		.members = bt_members_copy(a, t->members, t->n_members),
		.fresh = t->fresh ? bt_arena_memdup(a, t->fresh, t->n_members * sizeof *t->fresh)
				  : NULL,
		.n_members = t->n_members,
	};
	return j;
}

/* ---- write ------------------------------------------------------------------------------------
 */

static void write_run(void *arg)
{
	struct job *j = arg;
	j->result = bt_ipvs_make(&j->task, &j->told, &j->err);
}

static void tell(struct job *j, const char *line)
{
	if (j->cancelled || !j->progress || !strcmp(line, j->last_line))
		return;
	snprintf(j->last_line, sizeof j->last_line, "%s", line);
	j->progress(j->progress_arg, line);
}

static void write_done(void *arg);

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	struct job *j = arg;
	(void)fd;
	(void)what;
	bt_err_clear(&j->err);
	bt_work_submit(the_env.work, write_run, write_done, j);
}

/* Only until then; who waits has a limit of its own. */
static bool awaits(struct job *j)
{
	if (j->result != 1 || j->cancelled)
		return false;
	if (bt_clock_boot_ms() >= j->deadline_ms) {
		BT_FREE char *what = bt_strdup(j->err.text);
		j->result = bt_err_set(&j->err, BT_E_TIMEOUT, "%s, and did not within %d s", what,
			AWAIT_MS / 1000);
		return false;
	}
	bt_err_wrap(&j->err, "waiting");
	tell(j, j->err.text);
	if (!j->timer)
		j->timer = event_new(the_env.base, -1, 0, on_again, j);
	bt_timer_in(j->timer, AWAIT_POLL_MS);
	return true;
}

static void write_done(void *arg)
{
	struct job *j = arg;
	char *line = j->told.data;
	for (char *end; line && (end = strchr(line, '\n')); line = end + 1) {
		*end = 0;
		tell(j, line);
	}
	bt_str_reset(&j->told);
	if (awaits(j))
		return;
	if (!j->cancelled)
		j->done(j->arg, j->result, j->result < 0 ? &j->err : NULL);
	job_free(j);
}

static struct bt_op *ipvs_write(const struct bt_l4_target *t, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct job *j = job_new(t);
	j->progress = progress;
	j->progress_arg = progress_arg;
	j->done = done;
	j->arg = arg;
	j->deadline_ms = bt_clock_boot_ms() + AWAIT_MS;
	bt_work_submit(the_env.work, write_run, write_done, j);
	return &j->op;
}

/* ---- read -------------------------------------------------------------------------------------
 */

static void read_run(void *arg)
{
	struct job *j = arg;
	j->result = bt_ipvs_look(&j->task, &j->found, &j->err);
}

static void read_done(void *arg)
{
	struct job *j = arg;
	const struct bt_ipvs_found *f = &j->found;
	struct bt_l4_seen seen = {
		.running = !f->refuses,
		.members = f->members,
		.n_members = f->n_members,
		.shared = f->adopted,
		.trouble = f->trouble,
		.refuses = f->refuses,
	};
	if (j->result == 0 && seen.running)
		seen.epoch = epoch_of(j->service, f);
	if (!j->cancelled)
		j->seen(j->arg, j->result, j->result < 0 ? NULL : &seen,
			j->result < 0 ? &j->err : NULL);
	job_free(j);
}

static struct bt_op *ipvs_read(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg)
{
	struct job *j = job_new(t);
	j->seen = done;
	j->arg = arg;
	bt_work_submit(the_env.work, read_run, read_done, j);
	return &j->op;
}

static int ipvs_init(const struct bt_driver_env *env, struct bt_err *err)
{
	(void)err;
	the_env = *env;
	return 0;
}

const struct bt_l4_family bt_l4_ipvs = {
	.kind = BT_BALANCER_IPVS,
	.init = ipvs_init,
	.write = ipvs_write,
	.read = ipvs_read,
};
