/* The engine's inside: one state, changed by applying records only.
 *
 * The state is flat: arrays of plain structs, and pointers only to what never changes once it is
 * there (the plan, a pool's map, a list). So a step copies it with a few memcpy, applies to the
 * copy each record it decides on, and looks at the outcome for its next decision: what is decided
 * and what is replayed go through the same apply, and step changes nothing. */
#pragma once
#include "base/planted.h"
#include "engine/engine.h"

#define ENGINE_GRACE_MS 10000  /* past an attempt's own limit, for the way there and back */
#define ENGINE_GROWN_MS 120000 /* a limit that grows with each attempt grows up to here */
#define ENGINE_TRIES 3	       /* of an undo without answer, or a task of a rollback */
#define ENGINE_OBSERVE_TRIES 5
#define ENGINE_DRAIN_MS 30000 /* of the engine's own Drain where the plan has none to copy */

/* What a Switch's last command put in and took out, and what an undo has to (the members that the
 * pool before had otherwise). */
struct bt_switch_run {
	const uint16_t *in, *out, *undo_in, *undo_out;
	size_t n_in, n_out, n_undo_in, n_undo_out;
};

/* A run over a thousand hosts has ten thousand of these and a step copies them all, so what is
 * written seldom is behind a pointer and never changes there. */
struct bt_task_run {
	const struct bt_task *task;
	uint16_t stage, lane; /* lane BT_NONE: the engine's own Observe */
	bool own;	      /* the engine's, not the plan's */
	enum bt_task_state state;
	bool gave_up;	   /* UNKNOWN or UNDO_FAILED because no answer came in time */
	bool world_moved;  /* its prior state is not what the plan was made from */
	bool refused_late; /* Switch: failed, but a newer pool with its change is on its way */
	uint32_t attempt;  /* of the verb in use */
	uint32_t tries;	   /* since the task or an operator last began anew */
	int64_t sent_ms, limit_ms;
	int64_t not_before_ms;
	struct bt_prior prior;
	const char *detail;		   /* of the last result; may be NULL */
	const struct bt_command *command;  /* the last one sent; all zero before that */
	const struct bt_switch_run *moves; /* Switch: of the last command; all zero otherwise */
};

struct bt_lane_run {
	bool failed, undone;
	size_t first; /* index of its first task in the state's tasks */
	size_t at;    /* the first of its tasks that is neither done nor skipped */
};

struct bt_pool_sent { /* a pool on its way: nobody knows yet whether it is there */
	uint16_t balancer;
	uint64_t generation;
	const uint8_t *map; /* by instance */
	uint16_t one;	    /* of them, for routes to one; BT_NONE */
	size_t task;	    /* index */
};

struct bt_balancer_run {
	uint64_t highest;   /* generation handed out */
	uint64_t confirmed; /* generation */
	const uint8_t *map; /* by instance: the confirmed pool */
	uint16_t one;	    /* of it, for routes to one; BT_NONE */
	size_t n_at_start;  /* in rotation when the plan was made */
};

enum { VIP_OFF = 1, VIP_WAS_OFF = 2 }; /* it may be; it was, before it was (perhaps) taken off */

struct bt_state {
	struct bt_arena *arena; /* owns arrays and lists */
	uint64_t deployment, token;
	int64_t now_ms;
	int64_t began_ms;	 /* later by the time that did not count to the plan's limit */
	int64_t uncounted_ms;	 /* since when no time counts; -1: it does */
	int64_t stands_ms;	 /* since when it is paused or parked; -1: it is not */
	uint32_t n_asking;	 /* Approve tasks that wait for a word */
	enum bt_end closing_end; /* CLOSING: what it will end as */
	const struct bt_plan *plan;
	enum bt_phase phase, resume; /* resume: where PAUSED or PARKED go back to */
	enum bt_end end;
	const char *reason;
	bool stopping;	   /* an operator wants it rolled back */
	bool refused;	   /* the first failure was the plan's: out of date, or against a guard */
	bool borrow;	   /* a step's copy: records live as long as it does */
	uint32_t target;   /* the release that a rollback goes to */
	uint32_t failures; /* lanes of the current plan */
	uint32_t failures_stage, failures_own; /* of the current stage; of stages with a policy of
						  their own */
	size_t stage;			       /* SIZE_MAX: none yet */
	uint32_t next_id;

	struct bt_task_run *tasks; /* the plan's in order, then the engine's own */
	size_t n_tasks, cap_tasks, n_plan_tasks;
	size_t observe_from;	   /* index of the current round of Observe tasks */
	struct bt_lane_run *lanes; /* of the current stage */
	size_t n_lanes, cap_lanes;
	struct bt_pool_sent *sent;
	size_t n_sent, cap_sent;
	struct bt_balancer_run *balancers;
	uint8_t *served;   /* balancer × instance: was in rotation there and not drained since */
	uint8_t *held;	   /* by instance: stays behind because its lane failed */
	uint32_t *running; /* by instance: the release there, by facts and results */
	uint8_t *vip_off;  /* by host, of the service's address on its loopback: enum below */

	const struct bt_state *before; /* of an earlier plan, for views; never changes */
};

/* Memory for a step's copy, kept from step to step: to have a megabyte of fresh pages each time
 * costs more than to copy it. */
struct bt_scratch {
	char *memory;
	size_t size;
};

struct bt_step { /* what a step builds */
	struct bt_state s;
	struct bt_update *u;
	size_t cap_records, cap_commands;
	int64_t now_ms;
};

/* state.c */
/* The arrays' copies are in the scratch, until the next step; what joins them is in the arena. */
void bt_state_copy(struct bt_state *to, const struct bt_state *from, struct bt_arena *arena,
	struct bt_scratch *scratch);
struct bt_task_run bt_state_new_task(const struct bt_task *task);
struct bt_task_run *bt_state_task(const struct bt_state *s, uint32_t id); /* NULL: none such */
const struct bt_lane *bt_state_lane(const struct bt_state *s, size_t lane);
bool bt_state_outstanding(const struct bt_task_run *t);
bool bt_state_asks(const struct bt_task_run *t);       /* an Approve that waits for a word */
bool bt_state_with_agent(const struct bt_task_run *t); /* a command of it is outstanding */
bool bt_state_loopback(enum bt_task_kind kind);
/* What the current stage, or else the plan, does about lanes that fail. */
enum bt_failure_policy bt_state_policy(const struct bt_state *s);
bool bt_state_over_budget(const struct bt_state *s); /* more lanes failed than it allows */
bool bt_state_never(const struct bt_task *t);	     /* its effect may not be repeated unasked */
/* What it did to an app cannot be taken back here: only a plan of its own can (bundles). */
bool bt_state_spends(const struct bt_task *t);
bool bt_state_changed(const struct bt_state *s); /* effects on what serves that are still there */
bool bt_state_lane_over(const struct bt_state *s, size_t lane); /* done, or failed and undone */
bool bt_state_limited(const struct bt_state *s);		/* the plan's time limit runs */
int64_t bt_state_deadline(const struct bt_state *s, int64_t now_ms);
bool bt_state_in(const uint16_t *list, size_t n, uint16_t instance);
void *bt_state_grow(struct bt_arena *a, const void *old, size_t n, size_t *cap, size_t size);
#define BT_STATE_ROOM(s, array, n, cap)                                                            \
	((s)->array = (s)->n < (s)->cap ? (s)->array                                               \
					: bt_state_grow((s)->arena, (s)->array, (s)->n, &(s)->cap, \
						  sizeof *(s)->array))

/* apply.c: the only place that changes a state */
int bt_state_apply(struct bt_state *s, const struct bt_record *r, struct bt_err *err);

/* pool.c: the pools of balancers, as maps by instance */
const uint8_t *bt_pool_intended(const struct bt_state *s, uint16_t balancer);
/* Who of the pool that `t` is about to make serves the routes to one instance. */
uint16_t bt_pool_one(const struct bt_state *s, uint16_t balancer, const uint8_t *map);
bool bt_pool_may_hold(const struct bt_state *s, uint16_t balancer, uint16_t instance);
void bt_pool_begin(struct bt_state *s); /* a plan begins: from its facts */
void bt_pool_sent(struct bt_state *s, struct bt_task_run *t);
void bt_pool_result(struct bt_state *s, struct bt_task_run *t, enum bt_outcome o);

/* guard.c */
/* May the balancer's pool become `map`, which takes n_out out and puts these in? */
bool bt_guard_switch(const struct bt_state *s, uint16_t balancer, const uint8_t *map,
	const uint16_t *in, size_t n_in, size_t n_out, enum bt_verb verb);
/* NULL when the instance may be stopped, or why not. *ret_balancer: where it has to drain first;
 * BT_NONE where no drain helps. */
const char *bt_guard_stop(const struct bt_state *s, uint16_t instance, uint16_t *ret_balancer);
/* The same for what takes something away from several: NULL, or why not and for which; *ret_drains:
 * all that is missing are drains. */
const char *bt_guard_stops(const struct bt_state *s, const uint16_t *list, size_t n,
	uint16_t *ret_instance, bool *ret_drains);
/* Whether every host of those that are put in has the service's address. */
bool bt_guard_vip(const struct bt_state *s, const uint16_t *in, size_t n_in, enum bt_verb verb);

/* step.c */
int bt_state_step(const struct bt_state *from, struct bt_scratch *scratch, const struct bt_event *e,
	struct bt_update *ret, struct bt_err *err);
/* what deciding functions use: */
struct bt_record *bt_step_record(
	struct bt_step *st, enum bt_record_kind kind); /* next in the update, zeroed */
void bt_step_apply(struct bt_step *st);		       /* the record just made, to the copy */
void bt_step_phase(struct bt_step *st, enum bt_phase phase, const char *text);
void bt_step_end(struct bt_step *st, enum bt_end end, const char *text);
/* The same, after the plan's closing stages if it has any. */
void bt_step_close(struct bt_step *st, enum bt_end end, const char *text);
void bt_step_skip(struct bt_step *st, struct bt_task_run *t, const char *text);
void bt_step_lane_failed(struct bt_step *st, size_t lane, bool refused, const char *text);
const char *bt_step_words(struct bt_step *st, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* "InstanceStart on was1/green: detail" */
const char *bt_step_task_words(struct bt_step *st, const struct bt_task_run *t, const char *detail);

/* send.c: commands */
void bt_send_task(struct bt_step *st, struct bt_task_run *t, enum bt_verb verb);
/* false: the guard says that it has to wait */
bool bt_send_switch(struct bt_step *st, struct bt_task_run *t, enum bt_verb verb);
void bt_send_own(struct bt_step *st, const struct bt_task *task, uint16_t stage, uint16_t lane);
void bt_send_outstanding(struct bt_step *st);		       /* all again, after a takeover */
void bt_send_again(struct bt_step *st, struct bt_task_run *t); /* an own task, next attempt */
/* What failed goes back to waiting and is sent again, or the run parks after `tries`. */
void bt_send_retry_or_park(struct bt_step *st, struct bt_task_run *t, uint32_t tries);
void bt_send_ask(struct bt_step *st, struct bt_task_run *t); /* Approve, Wait: nothing leaves */
/* The engine's own Drains, side by side, before it takes away from these what they served with.
 * true: something was decided */
bool bt_send_drains_first(
	struct bt_step *st, const struct bt_task_run *t, const uint16_t *list, size_t n);

/* lanes.c, undo.c: true when something was decided, so look again */
bool bt_lanes_run(struct bt_step *st); /* RUNNING and ROLLING_BACK */
bool bt_undo_lane(struct bt_step *st, size_t lane);
bool bt_undo_run(struct bt_step *st);		    /* UNDOING */
bool bt_observe_run(struct bt_step *st);	    /* OBSERVING */
bool bt_lanes_ignores(const struct bt_task_run *t); /* its failure is only said */
/* Nothing is on its way and nothing was decided: who waits, waits for nothing. */
bool bt_lanes_stuck(const struct bt_step *st);
