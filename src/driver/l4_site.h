/* Inside of the L4 balancers' row: one site a service, and its queue of changes. */
#pragma once
#include "driver/l4.h"
#include "driver/l4_state.h"
#include "base/str.h"
#include "driver/op.h"

struct bt_l4_change;

struct bt_l4_site { /* lives as long as the process */
	struct bt_l4_site *next;
	char *service, *state_path;
	struct bt_l4_state *state; /* as it is on disk; NULL: nothing */
	struct bt_l4_change *queue, *running;
	struct event *kick;
	struct event *soon; /* the next look, where others write to the balancer, too; NULL */
	bool recovering;    /* what a crash left pending was not looked at yet */
	bool owed;	    /* what is in force was not said, or not heard: say it again */
	bool shared;	    /* as the last look has found: others write to the balancer, too */
	bool asked, ran;    /* whether it ran when it was asked last */
	char *trouble;	    /* of what nobody waited for; NULL */
};

struct bt_l4_driver {
	struct bt_driver_env env;
	struct bt_l4_site *sites;
};
struct bt_l4_driver *bt_l4_driver(void);
struct bt_l4_site *bt_l4_site_get(const char *service);
/* NULL: no such family here. */
const struct bt_l4_family *bt_l4_family_of(const struct bt_service *s);

/* l4_change.c */
struct bt_op *bt_l4_apply_begin(const struct bt_pool *pool, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg);
struct bt_op *bt_l4_hold_begin(const struct bt_service *service, const char *const *slots,
	size_t n_slots, bt_done_fn done, void *arg);
/* Looks after the site, unless that or a change is on its way. */
void bt_l4_tend_begin(struct bt_l4_site *site);

/* l4_match.c */
/* The member among what was read; NULL: not there, which is out. */
const struct bt_seen_member *bt_l4_find(
	const struct bt_l4_seen *seen, const struct bt_pool_member *m);
/* Whether every member is as the list says. Else
 * "haproxy has was1/a in maintenance, baton's last word was in rotation" goes into out. */
bool bt_l4_as_told(const char *family, const struct bt_l4_seen *seen,
	const struct bt_pool_member *members, size_t n, struct bt_str *out);

struct bt_op *bt_l4_drain_begin(const struct bt_drain_request *rq, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg);
struct bt_op *bt_l4_watch_begin(const char *name, const struct bt_service *service, int64_t bake_ms,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg);
struct bt_op *bt_l4_observe_begin(const char *name, const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
		const struct bt_err *err),
	void *arg);
struct bt_op *bt_l4_generation_begin(const char *name, const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
		const struct bt_err *err),
	void *arg);

/* Tests stop the process after each durable or outward step: "pending", "written", "confirmed",
 * "restored", "cleared". Called from any thread. NULL: nothing. */
extern void (*bt_l4_step_hook)(const char *step);
void bt_l4_step(const char *step);
