/* The simulator: the real engine, plan layer, outbox and ledger in a world made of numbers.
 *
 *     scenario.c  one seed → a service, a world, faults, an operator
 *     twist.c     plans that are not as strategies make them, and a world that moved on
 *     server.c    the server's loop: step, transaction, apply, send; crash
 *     journal.c   its journal, and the replay
 *     agent.c     the agent's loop: ledger on a fake disk, tasks, results; crash and recovery
 *     tasks.c     what tasks do to the world
 *     restore.c   a server that comes back from a backup
 *     hooks.c     programs, approvals, waits and notices in plans
 *     flows.c     flows over some hosts, and what must be there after them
 *     bundles.c   CodeDeploy bundles: scripts that start and stop, files on hosts, healthy hosts
 *     world.c     hosts, apps, balancers, requests: what tasks change and requests meet
 *     net.c       events in time; messages that are lost, repeated, late
 *     check.c     what must hold, after every event and at the end
 *     scale.c     a run over many hosts, for the engine's own time
 *     main.c      many seeds, crash after every effect, planted bugs, figures
 *
 * Everything random comes from the seed, so a seed replays its run, event by event. */
#pragma once
#include "base/planted.h"
#include "base/str.h"
#include "dispatch/ledger.h"
#include "dispatch/outbox.h"
#include "engine/engine.h"
#include "plan/flows.h"
#include "plan/plan.h"

#include <stdbool.h>
#include <stdio.h>

/* After the storm every limit has passed a few times by then. */
#define HORIZON_MS ((int64_t)8 * 3600 * 1000)
enum { MAX_SLOTS = 5, MAX_SERVICE_HOSTS = 3, MAX_HOSTS = 7, MAX_INST = 15 };
enum { MAX_BALANCERS = 3 };
#define DRAIN_RAN_OUT "connections are left"
enum { MAX_HOOKS = 3, MAX_FLOW_STAGES = 3, MAX_FLOW_TASKS = 16 };
/* Of options: no strategy, but a flow; a bundle, in place or blue-green. */
enum { FLOW_STRATEGY = 4, BUNDLE_STRATEGY, BUNDLE_BLUE_GREEN };
enum { MAX_BUNDLE_HOSTS = 5 };
enum { MAX_TASKS = 2048 }; /* ids of a run that are followed */
enum { FIRST_DEPLOYMENT = 7, OLD = 1, NEW = 2, OLDER = 3, FOREIGN = 9 };

/* What occurred, counted over all runs: the report, and a test that everything does occur. */
#define COUNTERS(X)                                                                                \
	X(FAULT_MESSAGE_LOST, "fault: message lost")                                               \
	X(FAULT_MESSAGE_REPEATED, "fault: message repeated")                                       \
	X(FAULT_MESSAGE_LATE, "fault: message late, overtaken by others")                          \
	X(FAULT_PARTITION, "fault: host unreachable for a while")                                  \
	X(FAULT_SERVER_CRASH, "fault: server crash")                                               \
	X(FAULT_SERVER_CRASH_COMMIT_LOST, "fault: server crash in a commit that was lost")         \
	X(FAULT_SERVER_CRASH_COMMIT_KEPT, "fault: server crash in a commit that was kept")         \
	X(FAULT_COMMIT_FAILED, "fault: commit failed")                                             \
	X(FAULT_AGENT_CRASH, "fault: agent crash")                                                 \
	X(FAULT_TAIL_LOST, "fault: unsynced tail of an agent's file lost")                         \
	X(FAULT_CLOCK, "fault: clock jumps over a restart")                                        \
	X(FAULT_ZOMBIE, "fault: command of a replaced server")                                     \
	X(FAULT_RESTORED, "fault: server restored from an older backup in the middle of a run")    \
	X(FAULT_APP_SLOW, "fault: app starts slowly")                                              \
	X(FAULT_APP_NEVER, "fault: app never healthy")                                             \
	X(FAULT_APP_EXITS, "fault: app exits at once")                                             \
	X(FAULT_APP_DIES, "fault: app dies later")                                                 \
	X(FAULT_APP_REVIVES, "fault: dead app comes back")                                         \
	X(FAULT_SWITCH_REFUSED, "fault: balancer refuses a change")                                \
	X(FAULT_LIMIT_BEFORE, "fault: time limit of a task passed before its effect")              \
	X(FAULT_LIMIT_AFTER, "fault: time limit of a task passed after its effect")                \
	X(FAULT_HALF, "fault: start or stop failed half-way")                                      \
	X(FAULT_DISK_FULL, "fault: release does not fit on the disk")                              \
	X(FAULT_DRAIN_LATE, "fault: drain deadline passed")                                        \
	X(FAULT_BAKE_FAILED, "fault: bake saw errors")                                             \
	X(FAULT_EXEC_FAILED, "fault: a program fails")                                             \
	X(FAULT_EXEC_HANGS, "fault: a program hangs until its time is over")                       \
	X(FAULT_WATCHER_KILLED, "fault: nobody sees how a program ends")                           \
	X(FAULT_NOTICE_FAILED, "fault: a notice that may fail fails")                              \
	X(FAULT_OUTSIDER, "fault: somebody changed the world after the plan")                      \
	X(FAULT_BAD_PLAN, "fault: plan against a guard")                                           \
	X(PLAN_WIDENED, "plan: a switch names who is out already")                                 \
	X(PLAN_JOINED, "plan: the bake in the lane of the cutover")                                \
	X(PLAN_MERGED, "plan: batches side by side, held apart by the guard")                      \
	X(OPERATOR_PAUSE, "operator: pause")                                                       \
	X(OPERATOR_RESUME, "operator: resume")                                                     \
	X(OPERATOR_ABORT, "operator: abort")                                                       \
	X(OPERATOR_PROMOTE, "operator: promote")                                                   \
	X(OPERATOR_ROLLBACK, "operator: rollback")                                                 \
	X(OPERATOR_APPROVE, "operator: approve")                                                   \
	X(OPERATOR_REJECT, "operator: reject")                                                     \
	X(OPERATOR_REFUSED, "operator: wish refused")                                              \
	X(LEDGER_NEW, "ledger: new command")                                                       \
	X(LEDGER_RUNNING, "ledger: repeat of a running command")                                   \
	X(LEDGER_ANSWERED, "ledger: repeat of a done command")                                     \
	X(LEDGER_STALE, "ledger: stale command refused")                                           \
	X(LEDGER_COMPACTED, "ledger: file written anew, shortest")                                 \
	X(RECOVER_RUN, "recovery: accepted, not begun")                                            \
	X(RECOVER_AGAIN, "recovery: begun, done again")                                            \
	X(RECOVER_PROBE, "recovery: begun, probed")                                                \
	X(RECOVER_PARK, "recovery: begun, may not be repeated, looked for")                        \
	X(ENGINE_GAVE_UP, "engine: attempt given up")                                              \
	X(ENGINE_RETRIED, "engine: task sent again")                                               \
	X(ENGINE_SKIPPED, "engine: task skipped")                                                  \
	X(ENGINE_OWN_DRAIN, "engine: own drain")                                                   \
	X(ENGINE_LANE_UNDONE, "engine: lane undone")                                               \
	X(ENGINE_ROLLBACK_PLAN, "engine: rollback plan run")                                       \
	X(ENGINE_PARKED, "engine: parked")                                                         \
	X(ENGINE_TAKEOVER, "engine: takeover")                                                     \
	X(ENGINE_REPLAYED, "engine: journal replayed")                                             \
	X(ENGINE_REPLAYED_JSON, "engine: journal replayed through JSON")                           \
	X(ENGINE_CLOSING, "engine: closing stages without a rollback plan")                        \
	X(ENGINE_VIP_KEPT, "engine: an address stays, since others are reached at it")             \
	X(ENGINE_VIP_AS_BEFORE, "engine: an address is left as it was before")                     \
	X(HOOK_RUN, "hook: a program succeeded")                                                   \
	X(HOOK_ASKED, "hook: an approval is asked for")                                            \
	X(HOOK_SILENCE, "hook: nobody approved in time")                                           \
	X(HOOK_WAITED, "hook: a wait is over")                                                     \
	X(HOOK_IGNORED, "hook: a failure that is ignored")                                         \
	X(HOOK_SKIPPED, "hook: a task that the plan says not to do")                               \
	X(FLOW_RUN, "flow: run")                                                                   \
	X(FLOW_DEPLOYS, "flow: with a release")                                                    \
	X(FLOW_MAINTENANCE, "flow: over a host that was out before")                               \
	X(FLOW_OWN_POLICY, "flow: a stage with a policy of its own")                               \
	X(FLOW_NEIGHBOUR, "flow: meanwhile an app that it is not about dies")                      \
	X(FLOW_DONE, "flow: done")                                                                 \
	X(FLOW_UNDONE, "flow: undone step by step")                                                \
	X(FLOW_BACK, "flow: rolled back by its own way back")                                      \
	X(BUNDLE_IN_PLACE, "bundle: run in place")                                                 \
	X(BUNDLE_BLUE_GREEN, "bundle: run blue-green")                                             \
	X(BUNDLE_ONE, "bundle: OneAtATime")                                                        \
	X(BUNDLE_HALF, "bundle: HalfAtATime")                                                      \
	X(BUNDLE_ALL, "bundle: AllAtOnce")                                                         \
	X(BUNDLE_NUMBER, "bundle: minimum healthy hosts as a number")                              \
	X(BUNDLE_PERCENT, "bundle: minimum healthy hosts as a share")                              \
	X(BUNDLE_SLOTS, "bundle: several slots a host")                                            \
	X(BUNDLE_NO_BALANCER, "bundle: without a balancer")                                        \
	X(BUNDLE_OVER_OTHERS, "bundle: first deployment over what others started")                 \
	X(BUNDLE_NOT_SERVING, "bundle: over hosts that did not serve")                             \
	X(BUNDLE_ROLLBACK, "bundle: rollback by hand")                                             \
	X(BUNDLE_STOPPED, "bundle: ApplicationStop stopped an app")                                \
	X(BUNDLE_STARTED, "bundle: ApplicationStart started one")                                  \
	X(BUNDLE_NO_SCRIPT, "bundle: an event without a script")                                   \
	X(BUNDLE_HALF_DONE, "bundle: a script that failed had done a part")                        \
	X(BUNDLE_PORT_HELD, "bundle: ApplicationStart found something else at its port")           \
	X(BUNDLE_STOP_IGNORED, "bundle: an ApplicationStop that failed is passed over")            \
	X(BUNDLE_INSTALLED, "bundle: installed")                                                   \
	X(BUNDLE_REINSTALLED, "bundle: an install that a crash cut short is done again")           \
	X(FAULT_INSTALL, "fault: an install fails, before it changed something or half-way")       \
	X(BUNDLE_DONE, "bundle: done on every host")                                               \
	X(BUNDLE_BEHIND, "bundle: done, and hosts stayed behind")                                  \
	X(BUNDLE_UNTOUCHED, "bundle: ended with every host as it was")                             \
	X(BUNDLE_BACK, "bundle: rolled back to the revision before")                               \
	X(BUNDLE_TO_NOTHING, "bundle: rolled back to nothing")                                     \
	X(BUNDLE_HALTED, "bundle: halted")                                                         \
	X(VIP_OFF, "loopback: address taken off")                                                  \
	X(VIP_ON, "loopback: address put on")                                                      \
	X(VIP_MISSING, "loopback: an address that is missing before a run")                        \
	X(STRATEGY_BLUE_GREEN, "run: blue-green")                                                  \
	X(STRATEGY_ROLLING, "run: rolling")                                                        \
	X(STRATEGY_RECREATE, "run: recreate")                                                      \
	X(STRATEGY_CANARY, "run: canary")                                                          \
	X(RUN_DSR, "run: direct server return")                                                    \
	X(RUN_OWN_HOST, "run: each host tells whether it is in")                                   \
	X(RUN_FIRST, "run: first deployment")                                                      \
	X(RUN_TOO_LONG, "run: longer than deploy.timeout, so aborted")                             \
	X(RUN_AGAIN, "run: after another, on the same agents")                                     \
	X(RUN_SETTLE, "run: settles what a restore found")                                         \
	X(RUN_ROLLBACK, "run: rollback by hand")                                                   \
	X(RUN_RETIRE, "run: retire")                                                               \
	X(RUN_ADOPT, "run: adoption of what others started")                                       \
	X(RUN_OVER_ADOPTED, "run: deployment over what was adopted")                               \
	X(RUN_WARM, "run: old slot kept warm")                                                     \
	X(RUN_NO_BALANCER, "run: without a balancer")                                              \
	X(RUN_TWO_BALANCERS, "run: two balancers")                                                 \
	X(POLICY_ROLLBACK, "policy: rollback")                                                     \
	X(POLICY_HALT, "policy: halt")                                                             \
	X(POLICY_CONTINUE, "policy: continue")                                                     \
	X(END_DONE, "end: done")                                                                   \
	X(END_DONE_BEHIND, "end: done, lanes stayed behind")                                       \
	X(END_ROLLED_BACK_UNDO, "end: rolled back by undo alone")                                  \
	X(END_ROLLED_BACK_PLAN, "end: rolled back by a rollback plan")                             \
	X(END_HALTED, "end: halted")                                                               \
	X(END_PARKED, "end: parked, given up by the operator")                                     \
	X(END_REFUSED, "end: refused")                                                             \
	X(PLAN_REFUSED, "end: no plan")

enum counter {
#define X(id, words) C_##id,
	COUNTERS(X)
#undef X
		COUNTER_COUNT
};
extern uint64_t counters[COUNTER_COUNT];
extern uint64_t requests, deployments; /* simulated ones */
extern const char *const counter_words[COUNTER_COUNT];

/* ── events in time (net.c) ── */

enum ev_kind {
	EV_POLL,     /* at the server */
	EV_COMMANDS, /* at an agent */
	EV_RESULT,   /* at the server */
	EV_ACK,	     /* at an agent */
	EV_COMMIT,
	EV_TIMER,
	EV_SERVER_UP,
	EV_AGENT_UP,
	EV_AGENT_TICK, /* polls and posts again what got lost */
	EV_SYNC,
	EV_TASK,
	EV_APP,
	EV_SCRIPT,
	EV_OPERATOR,
	EV_CRASH_SERVER,
	EV_CRASH_AGENT,
	EV_PARTITION,
	EV_RESTORE,
	EV_RESTORED,
	EV_STORM_OVER, /* faults cease */
};

struct ev {
	int64_t at_ms;
	uint64_t order; /* of creation: equal times keep it */
	enum ev_kind kind;
	uint32_t stamp; /* of the process it belongs to: a dead one's events are nothing */
	uint16_t host;
	int64_t arg;
	void *p;
};

/* ── world (world.c) ── */

enum app { APP_ABSENT, APP_STARTING, APP_HEALTHY, APP_DEAD };
struct inst {
	enum app app;
	uint32_t release, life; /* life: counts starts */
	int64_t since_ms, healthy_ms, dies_ms;
	/* by balancer: */
	int64_t busy_until_ms[MAX_BALANCERS]; /* the last request that it holds from there ends */
	bool cut_allowed[MAX_BALANCERS]; /* its drain deadline passed since it was last in rotation
					  */
	bool died;			 /* by itself: what follows is the app's fault */
	bool foreign;			 /* others started it, and baton knows nothing of it */
	bool adopted;			 /* others started it, and it was recorded */
};
struct balancer {
	bool exists; /* in a snapshot: there is one on that host */
	uint16_t host;
	uint64_t generation;
	bool in[MAX_INST];
	uint16_t one;	     /* who serves routes to one */
	uint16_t one_served; /* the last that did */
	uint32_t one_moves;  /* in this run */
};
struct bundle { /* what the agent's file says of installs on a host, and what is there */
	uint32_t last[MAX_SLOTS]; /* by slot: the last one that was installed whole; 0: none */
	uint32_t installing;	  /* one that has not ended, for these slots */
	bool cut_short[MAX_SLOTS];
	bool started[MAX_SLOTS]; /* since the last one */
	uint32_t files;		 /* MIXED: of more than one */
	int64_t at_ms;		 /* when it ended */
	const struct task *by;	 /* who installs */
};
struct snapshot { /* what Observe saw on a host */
	bool there;
	struct bundle bundle;
	struct inst inst[MAX_SLOTS];
	struct balancer balancer;
	uint32_t releases; /* bit per release */
	bool vip;
};

/* ── agent (agent.c) ── */

struct row { /* a command in the store's outbox */
	uint64_t seq;
	uint16_t host;
	struct bt_command c;
	bool committed, settled;
	uint32_t index;
};

enum step { STEP_BEGIN, STEP_BEGUN, STEP_EFFECT, STEP_FINISH };
struct task { /* that an agent runs */
	const struct bt_command *c;
	enum step step;
	bool live, recovered;
	bool anew;    /* Exec: begins its program (again) whatever ran before */
	bool halfway; /* Install: it has begun to change files */
	struct bt_prior prior;
	int64_t started_ms;
	uint32_t life; /* Bake: of the instance when it began */
	struct bt_result result;
	struct snapshot *seen;
	uint32_t stamp;
};
struct script;
struct program { /* of an Exec task, beside the agent */
	uint32_t attempt, runs;
	uint16_t host;
	int64_t ends_ms;
	bool good, seen;       /* seen: what watches it lives */
	struct script *script; /* of a bundle's event; NULL */
};
struct answer { /* a message with a result */
	struct bt_result r;
	struct snapshot *seen;
};
struct line { /* of an agent's file */
	struct bt_ledger_entry e;
	struct task *then; /* BEGUN, DONE: whose next step it allows */
	uint32_t row;	   /* ACCEPTED */
	struct snapshot *seen;
};
struct agent {
	bool up;
	uint32_t incarnation;
	struct bt_ledger *ledger;
	struct line *lines;
	size_t n_lines, cap_lines, n_synced, n_applied, syncing_to;
	uint64_t cursor; /* highest sequence taken up in memory */
	struct task **tasks;
	size_t n_tasks, cap_tasks;
	int64_t partition_until_ms;
	bool ticking;
};

/* ── server (server.c) ── */

struct stored { /* a durable record */
	struct bt_record r;
};
struct sev { /* an event in the server's queue */
	struct bt_event e;
	struct bt_result result;
	uint16_t from;
	struct snapshot *seen;
	struct sev *next;
};
struct tx {
	bool open;
	struct bt_update u;
	struct sev *cause;
	size_t first_row, n_rows;
};
struct server {
	bool up;
	uint32_t incarnation, timer_stamp;
	struct bt_engine *engine;
	size_t n_applied;
	struct bt_outbox *outbox[MAX_HOSTS];
	bool polled[MAX_HOSTS]; /* a poll is held open */
	uint64_t poll_after[MAX_HOSTS];
	struct sev *head, *tail, *spare;
	struct tx tx;
};
struct store {
	struct stored *records;
	size_t n_records, cap_records;
	struct row **rows;
	size_t n_rows, cap_rows;
	struct snapshot seen[MAX_HOSTS];
};

/* ── all of a run ── */

struct odds { /* of 1000, while the storm lasts */
	uint32_t lost, repeated, late, commit_fails, switch_refused, disk_full;
	uint32_t server_crash, agent_crash; /* at a transaction, at a line of the file */
	uint32_t limit, half; /* a task's time limit passes; a start or stop fails half-way */
	uint32_t app_slow, app_never, app_exits, app_dies, app_revives, drain_slow, bake_fails;
	uint32_t exec_fails, exec_hangs;
	uint32_t old_bad; /* apps of the old release fail as well */
};

struct options {
	bool verbose, calm;
	int64_t crash_after; /* effect number, -1: never */
	int crash_who;	     /* 1 server, 2 agent, 3 both */
	bool bad_release;    /* the new release never gets healthy */
	int strategy;	     /* -1: by the seed */
	bool json;	     /* every replay through JSON */
	FILE *journal;	     /* where the finished run's records go */
};

struct sim {
	uint64_t seed, rng;
	struct options opt;
	struct bt_arena *arena;
	int64_t now_ms;
	struct ev *heap;
	size_t n_heap, cap_heap;
	uint64_t order;
	uint64_t deployment; /* of the run that is on; a seed may have several in a row */
	uint32_t runs_left;
	int64_t horizon_ms;	/* the run must have ended */
	int64_t clock_ahead_ms; /* the server's clock, against the world's */
	bool storm;		/* faults happen */
	bool faulted, failed;
	char why[512];
	struct odds odds;

	struct bt_service service;
	struct bt_nginx nginx;
	struct bt_l4 l4;
	bool dsr, own_host;
	struct bt_slot slots[MAX_SLOTS];
	const char *host_names[MAX_HOSTS];
	uint16_t n_hosts, n_service_hosts, n_slots, n_inst;
	enum bt_plan_purpose purpose;
	uint32_t release; /* what the run is to bring */
	bool bad_plan, outsider, merged;
	struct bt_route routes[2];
	bool one_excused; /* a lane failed: what it did is taken back */

	struct inst inst[MAX_INST], at_start[MAX_INST];
	struct balancer balancers[MAX_BALANCERS], balancers_at_start[MAX_BALANCERS];
	const char *on[MAX_BALANCERS];
	uint16_t n_balancers;
	uint32_t disk[MAX_HOSTS];		      /* releases, a bit each */
	bool vip[MAX_HOSTS], vip_at_start[MAX_HOSTS]; /* the address is on its loopback */
	bool vip_excused[MAX_HOSTS]; /* it was missing in rotation before the run */
	int64_t min_in_rotation, n_in_at_plan;
	uint32_t allowed; /* releases that may serve */
	uint64_t n_effects;

	struct bt_plan **plans; /* the originals of those that the engine gets */
	size_t n_originals;
	struct server server;
	struct store store;
	struct agent agents[MAX_HOSTS];
	struct bt_command_key sent[MAX_TASKS]; /* by task: the last that was durably sent */
	bool ran_out[MAX_TASKS]; /* its last result is of a drain with connections left */
	uint64_t token;
	uint32_t n_plans, resumes;
	enum bt_phase phase;	  /* by the journal */
	bool operator_waits;	  /* an event to resume is on its way */
	bool restoring, restored; /* no server; it was once */
	bool aborts_when_parked, was_parked, aborted, ended;
	uint32_t target; /* what a rollback goes to */

	bool is_flow; /* the run's plan comes from a flow, */
	struct bt_flow flow;
	struct bt_flow_stage flow_stages[MAX_FLOW_STAGES];
	struct bt_hook flow_tasks[MAX_FLOW_STAGES][MAX_FLOW_TASKS];
	const char *chosen_hosts[MAX_SERVICE_HOSTS], *chosen_slots[MAX_SLOTS];
	size_t n_chosen_hosts, n_chosen_slots;
	const struct bt_plan *flow_plan; /* this one, */
	bool flow_about[MAX_INST];	 /* which is about these */

	bool bundle, restarts; /* its ApplicationStart ends what runs there first */
	struct bundle bundles[MAX_BUNDLE_HOSTS], bundles_at_start[MAX_BUNDLE_HOSTS];
	int64_t n_healthy_at_start;
	bool healthy_at_start[MAX_BUNDLE_HOSTS];
	bool behind[MAX_BUNDLE_HOSTS]; /* a lane of it failed */

	struct bt_hook hooks[BT_HOOK_WHENS][MAX_HOOKS];
	struct program programs[MAX_TASKS];
	uint8_t word[MAX_TASKS];	/* of Exec and Approve tasks: what the journal says */
	uint32_t resumed_at[MAX_TASKS]; /* n_resumed when it was last sent */
	bool failed_surely[MAX_TASKS];	/* its end was seen, and was bad */
	uint32_t asking;		/* the Approve task that waits; 0: none */
	uint32_t n_approved, approved_at, n_resumed;
};

/* net.c */
uint64_t rnd(struct sim *s);
int64_t between(struct sim *s, int64_t lo, int64_t hi);
bool chance(struct sim *s, uint32_t of_1000);
bool fault(struct sim *s, uint32_t of_1000, enum counter c); /* only in the storm; counted */
void at(struct sim *s, int64_t ms, enum ev_kind kind, uint32_t stamp, uint16_t host, int64_t arg,
	void *p);
bool next_event(struct sim *s, struct ev *ret);
void message(struct sim *s, enum ev_kind kind, uint16_t host, int64_t arg, void *p);
void trace(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* check.c */
void violated(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void check_pool_change(struct sim *s, uint16_t balancer, const bool *was);
void check_one(struct sim *s, uint16_t balancer, uint16_t was);
void check_stop(struct sim *s, uint16_t inst);
void check_vip_off(struct sim *s, uint16_t host);
void check_as_before(struct sim *s);
void check_leaves_alone(struct sim *s, const char *what, uint16_t inst);
void check_agent_start(struct sim *s, uint16_t host);
void check_server(struct sim *s);
void check_record(struct sim *s, const struct bt_record *r); /* as it becomes durable */
void check_acknowledged(struct sim *s, const struct bt_command_key *key);
void check_end(struct sim *s);

/* world.c */
void world_requests(struct sim *s); /* those that begin now, a moment before something changes */
void world_start(struct sim *s, uint16_t i, uint32_t release);
void world_stop(struct sim *s, uint16_t i);
void world_app(struct sim *s, uint16_t i, uint32_t life);
void world_pool(
	struct sim *s, uint16_t balancer, const bool *in, uint16_t one, uint64_t generation);
void world_vip(struct sim *s, uint16_t host, bool on);
bool world_in(const struct sim *s, uint16_t inst); /* some balancer sends there */
bool world_host_was_in(const struct sim *s, uint16_t h);
bool world_was_in(const struct sim *s, uint16_t inst); /* … did when the run began */
void world_snapshot(const struct sim *s, uint16_t host, struct snapshot *ret);
struct bt_world *world_build(struct sim *s, const struct snapshot *seen);
const char *world_name(struct sim *s, uint16_t inst);

/* agent.c */
void agent_boot(struct sim *s, uint16_t h);
void agent_crash(struct sim *s, uint16_t h);
void agent_commands(struct sim *s, uint16_t h, struct row *const *rows, size_t n);
void agent_acked(struct sim *s, uint16_t h, const struct bt_command_key *key);
void agent_tick(struct sim *s, uint16_t h);
void agent_synced(struct sim *s, uint16_t h, size_t to);
void agent_write(struct sim *s, uint16_t h, const struct line *l);
bool agent_quiet(const struct sim *s, uint16_t h);
/* tasks.c */
void task_go(struct sim *s, uint16_t h, struct task *t);
/* What an effect's code ends with. */
void task_again(struct sim *s, uint16_t h, struct task *t, int64_t at_ms);
void task_done(struct sim *s, uint16_t h, struct task *t, enum bt_outcome o, const char *detail);
void task_effect(struct sim *s, uint16_t h);
struct bt_prior task_observe(struct sim *s, const struct bt_command *c);

/* journal.c */
void journal_add(struct sim *s, const struct bt_record *r);
struct bt_command journal_command(
	struct sim *s, const struct bt_command *c);		/* a copy that lasts */
struct bt_plan *journal_plan(struct sim *s, struct bt_plan *p); /* keeps p; a copy for the engine */
void journal_replay(struct sim *s);

/* server.c */
void server_boot(struct sim *s);
void server_crash(struct sim *s);
void server_poll(struct sim *s, uint16_t h, uint64_t after);
void server_result(struct sim *s, uint16_t h, const struct bt_result *r, struct snapshot *seen);
void server_commit(struct sim *s);
void server_timer(struct sim *s, uint32_t stamp);
void server_operator(struct sim *s, enum bt_operator op);
void server_start(struct sim *s, struct bt_plan *plan);
void server_next_run(struct sim *s);
void server_free(struct sim *s);

/* restore.c */
void restore_begin(struct sim *s);
void restore_greet(struct sim *s, uint16_t h); /* an agent says hello to the other store */
void restore_go_on(struct sim *s);

/* twist.c */
void twist(struct sim *s, struct bt_plan *p);
void meddle(struct sim *s);

/* flows.c */
bool flows_pick(struct sim *s);	 /* false: this run has none */
void flows_world(struct sim *s); /* hosts that are out for maintenance, addresses missing */
int flows_plan(
	struct sim *s, const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);
void flows_remember(struct sim *s);
void flows_meddle(struct sim *s);
void flows_twist(struct sim *s, struct bt_plan *p);
void flows_done(struct sim *s); /* the world is what the flow's plan leads to */

/* bundles.c */
void bundles_pick(struct sim *s); /* after the service: some are a bundle's */
void bundles_world(struct sim *s);
void bundles_allow(struct sim *s); /* what is installed may serve */
void bundles_remember(struct sim *s);
bool bundles_listens(const struct sim *s, uint16_t inst, const struct inst *i);
uint32_t bundles_release(const struct bundle *b, uint16_t slot); /* as an agent tells it */
bool bundles_no_script(struct sim *s, uint16_t h, const struct task *t);
void bundles_begins(struct sim *s, uint16_t h, const struct task *t, struct program *p);
void bundles_started(struct sim *s, uint16_t h, const struct task *t); /* as its agent sees it */
void bundles_script(struct sim *s, void *script, uint16_t inst);       /* something of it happens */
void bundles_install(struct sim *s, uint16_t h, struct task *t);
void bundles_looked_after(struct sim *s); /* by a person who lets a parked run go on */
/* Before something is taken away, and after it. */
void bundles_healthy(const struct sim *s, bool *ret_by_host);
void bundles_took(struct sim *s, const bool *was);
void bundles_record(struct sim *s, const struct bt_record *r);
void bundles_done(struct sim *s, bool behind);
void bundles_rolled_back(struct sim *s);
void bundles_as_before(struct sim *s);

/* hooks.c */
const struct bt_task *hooks_task(const struct sim *s, uint32_t id); /* of the plan that runs */
uint64_t draw(const struct sim *s, uint64_t what); /* beside the run's own stream of chance */
void hooks_pick(struct sim *s);
void hooks_reset(struct sim *s); /* another run */
void hooks_program(struct sim *s, uint16_t h, struct task *t);
void hooks_notice(struct sim *s, uint16_t h, struct task *t);
void hooks_agent_crashed(struct sim *s, uint16_t h);
bool hooks_answer(struct sim *s, enum bt_operator *ret); /* false: nobody will */
void hooks_record(struct sim *s, const struct bt_record *r);
void hooks_end(struct sim *s, enum bt_end end);

/* scenario.c */
void scenario(struct sim *s);
void place(struct sim *s, uint16_t i, uint32_t release, bool in); /* an instance that runs */
void scenario_settle(struct sim *s, uint32_t release);		  /* after a restore */
void scenario_next(struct sim *s); /* another run in the world that the last one left */
extern const struct bt_plan_release known_releases[];
enum { N_KNOWN = 9 };
/* run.c */
bool run(uint64_t seed, const struct options *o, char why[512], uint64_t *ret_effects,
	enum bt_end *ret_end);

/* scale.c: 0, or -1 when the run did not end well; prints a line of JSON */
int sim_scale(int hosts);
