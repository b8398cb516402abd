/* The engine: a pure state machine that runs plans.
 *
 *     event ──step──▶ update {records, commands, deadline, wants}
 *                        │ one transaction: event's records + outgoing commands
 *                        ▼ committed
 *                      apply(record) … then the commands leave
 *
 * step() only decides and changes nothing; apply() alone changes state and never decides, so a
 * journal replays to the same state under newer code. A failed commit: throw the update away,
 * send nothing, rebuild the engine from the journal.
 * Time comes with events (ms, CLOCK_BOOTTIME of whoever drives it, continued over restarts).
 *
 * Guards live here: never fewer in rotation than min_in_rotation; never stop an instance that is
 * not confirmed out of rotation and drained (0 connections, or its drain deadline passed); with
 * direct server return, never take the address off a host that has such an instance, since
 * established connections would stall, and never put one in rotation on a host without it.
 *
 * Besides the plan's tasks the engine makes its own, with ids above the plan's: Observe on every
 * host before a rollback, and Drain where an undo or a rollback is to stop what served a moment
 * ago. Their commands and records look like all others.
 *
 * An Approve task is the engine's alone: its SENT record says that it asks, no command leaves, and
 * its RESULT is an operator's word or the end of its time. Time for which a run stands still or
 * asks does not count to the plan's limit. A Wait is the engine's, too, and ends with its time;
 * that does count, and goes on while the run stands still.
 *
 * A parked run is not ended: it holds its lease until an operator resumes it (what failed is tried
 * again), rolls it back (observes again) or aborts it (BT_END_PARKED). */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/command.h"
#include "model/plan.h"
#include <jansson.h>
#include <stdint.h>

#define BT_RECORD_VERSION 1

enum bt_phase {	      /* of a run, as status shows it */
	BT_PHASE_NEW, /* no plan yet */
	BT_PHASE_RUNNING,
	BT_PHASE_PAUSED,    /* running tasks finish, nothing new starts */
	BT_PHASE_UNDOING,   /* a lane failed: it is undone, other lanes finish their task */
	BT_PHASE_OBSERVING, /* asks every host what is there, before the rollback plan is made */
	BT_PHASE_PLANNING,  /* wants_plan: waits for BT_EVENT_PLAN */
	BT_PHASE_ROLLING_BACK,
	BT_PHASE_CLOSING, /* its end is known; the plan's closing stages come before it */
	BT_PHASE_PARKED,  /* a person is needed: an unknown outcome of a task that may not repeat, a
			     failed undo, a rollback that failed again and again, a host that does
			     not answer, no rollback plan */
	BT_PHASE_ENDED,
};
const char *bt_phase_name(enum bt_phase p);

enum bt_end { /* of an ended run; PARKED runs end as BT_END_PARKED (exit code 3) */
	BT_END_NONE,
	BT_END_DONE,	    /* exit code 0 */
	BT_END_ROLLED_BACK, /* exit code 1 */
	BT_END_HALTED,	    /* policy halt: stopped where it stands; exit code 3 */
	BT_END_PARKED,	    /* exit code 3 */
	BT_END_REFUSED, /* nothing was changed (plan out of date, guard cannot hold); exit code 1 */
};
const char *bt_end_name(enum bt_end e);

enum bt_event_kind {
	BT_EVENT_START,	      /* a plan for a new run */
	BT_EVENT_PLAN,	      /* the rollback plan that wants_plan asked for */
	BT_EVENT_PLAN_FAILED, /* no rollback plan can be made: parks with the reason */
	BT_EVENT_RESULT,
	BT_EVENT_TIMER, /* only time passed */
	BT_EVENT_OPERATOR,
	BT_EVENT_AGENT,	   /* a host's agent was lost (no contact for long) or is back: for people;
			      what the engine does about it hangs on each task's own limit */
	BT_EVENT_TAKEOVER, /* a server (re)started: new token; commands without result are sent
			      again */
};
enum bt_operator {
	BT_OP_PAUSE,
	BT_OP_RESUME,
	BT_OP_ABORT,
	BT_OP_PROMOTE,
	BT_OP_ROLLBACK,
	BT_OP_APPROVE, /* the answers to an Approve task */
	BT_OP_REJECT,
};

struct bt_event {
	enum bt_event_kind kind;
	int64_t now_ms;
	const struct bt_plan *plan; /* START, PLAN: borrowed; the record holds it by reference */
	uint64_t token;		    /* START, TAKEOVER */
	const struct bt_result *result; /* RESULT */
	enum bt_operator op;		/* OPERATOR */
	const char *by;			/* OPERATOR: who; AGENT, PLAN_FAILED: reason; may be NULL */
	uint16_t host;			/* AGENT */
	bool back;			/* AGENT */
};

/* What happened, durable. The kinds are the engine's; the JSON form is what journals, golden files
 * and `baton show` read. Fields not used by a kind are zero. */
enum bt_record_kind {
	BT_RECORD_PLAN,	       /* a plan begins (purpose tells which) */
	BT_RECORD_TOKEN,       /* start or takeover */
	BT_RECORD_STAGE,       /* a stage begins */
	BT_RECORD_SENT,	       /* a command leaves (do or undo): the intent */
	BT_RECORD_RESULT,      /* its result */
	BT_RECORD_RETRY,       /* without an answer in time: its outcome is unknown now; on a failed
				  task: it may be sent again, after wait_ms */
	BT_RECORD_SKIPPED,     /* a task is not needed (held back, promoted, or the run stops) */
	BT_RECORD_LANE_FAILED, /* with the reason */
	BT_RECORD_LANE_UNDONE,
	BT_RECORD_OPERATOR,
	BT_RECORD_AGENT,
	BT_RECORD_PHASE, /* to another phase, with the reason */
	BT_RECORD_END,
	BT_RECORD_KINDS,
};

const char *bt_record_kind_name(enum bt_record_kind k);
const char *bt_operator_name(enum bt_operator o);

struct bt_record {
	enum bt_record_kind kind;
	int64_t at_ms;		    /* engine time */
	const struct bt_plan *plan; /* PLAN: owned by whoever made it until apply takes it over */
	uint64_t token;
	uint16_t stage, lane;
	struct bt_command command; /* SENT, RETRY; key also in RESULT */
	struct bt_result result;   /* RESULT */
	enum bt_phase phase;
	enum bt_end end;
	enum bt_operator op;
	uint16_t host;
	bool back;
	const char *text; /* reason, for people; may be NULL */
};
/* `plan` names hosts and so on by index; the plan itself is embedded in a PLAN record. */
json_t *bt_record_to_json(const struct bt_record *r);
/* Strings, arrays and plan go into the arena / are owned by the caller through r->plan. */
int bt_record_from_json(
	const json_t *j, struct bt_arena *a, struct bt_record *ret, struct bt_err *err);

struct bt_update {
	struct bt_arena *arena; /* owns what records and commands point to */
	struct bt_record *records;
	size_t n_records;
	struct bt_command *commands;
	size_t n_commands;	/* may leave only after the commit */
	int64_t deadline_ms;	/* next TIMER is due; INT64_MAX: none */
	bool wants_plan;	/* make a rollback plan from the observed world (OBSERVE results) */
	uint32_t wants_release; /* … to this release */
	uint32_t first_task_id; /* … whose task ids start here */
};
void bt_update_done(struct bt_update *u);

struct bt_engine;
struct bt_engine *bt_engine_new(uint64_t deployment);
struct bt_engine *bt_engine_free(struct bt_engine *e);

/* 0: update filled (perhaps with nothing in it). BT_E_REFUSED: the event may not be (an operator's
 * wish that makes no sense now, a second START); nothing changes, the text says why.
 * Results of unknown, superseded or repeated commands give an empty update. */
int bt_engine_step(const struct bt_engine *e, const struct bt_event *event,
	struct bt_update *ret_update, struct bt_err *err);
/* Applies one committed record; takes over r->plan (PLAN records). BT_E_CORRUPT when the record
 * cannot follow what was applied before. */
int bt_engine_apply(struct bt_engine *e, struct bt_record *r, struct bt_err *err);

/* Read-only views for status, projections and the simulator's checks. */
enum bt_task_state {
	BT_TASK_WAITING,
	BT_TASK_SENT,
	BT_TASK_DONE,
	BT_TASK_FAILED,
	BT_TASK_UNKNOWN,
	BT_TASK_UNDO_SENT,
	BT_TASK_UNDONE,
	BT_TASK_UNDO_FAILED,
	BT_TASK_SKIPPED,
};
const char *bt_task_state_name(enum bt_task_state s);
const struct bt_plan *bt_engine_plan(const struct bt_engine *e); /* the current one; NULL before */
const struct bt_plan *bt_engine_first_plan(const struct bt_engine *e); /* the run's; NULL before */
enum bt_phase bt_engine_phase(const struct bt_engine *e);
enum bt_end bt_engine_end(const struct bt_engine *e);
const char *bt_engine_reason(const struct bt_engine *e); /* of failure or parking; "" */
enum bt_task_state bt_engine_task(
	const struct bt_engine *e, uint32_t task_id, uint32_t *ret_attempt);
bool bt_engine_asks(const struct bt_engine *e); /* an Approve waits for a person's word */
uint64_t bt_engine_token(const struct bt_engine *e);
int64_t bt_engine_now(const struct bt_engine *e); /* time of the last record */
bool bt_engine_in_rotation(const struct bt_engine *e, uint16_t instance); /* by confirmed pools */
uint64_t bt_engine_generation(
	const struct bt_engine *e, uint16_t balancer); /* highest handed out */
/* Commands that were sent and have no result: what a takeover sends again. Caller frees *ret. */
size_t bt_engine_outstanding(const struct bt_engine *e, struct bt_command **ret);
