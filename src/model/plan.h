/* A plan: stages in order; a stage is lanes side by side; a lane is tasks in order.
 *
 * Strategies make plans from a service and the observed world; the engine runs them and knows
 * nothing else. Everything is an index into the plan's own small tables, so the engine and the
 * simulator never compare strings. A plan is immutable once made; its arena owns everything. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/service.h"
#include "model/task.h"
#include <jansson.h>

#define BT_PLAN_VERSION 1
#define BT_NONE UINT16_MAX /* no host / instance / balancer */
#define BT_PLAN_MAX_TASKS 65535
#define BT_PLAN_MAX_INSTANCES 8192

struct bt_plan_release { /* 0 is "none" everywhere a release number is used */
	uint32_t id;	 /* the server's number of the release */
	const char *version;
	const char *digest; /* sha256 hex of the artifact */
};

struct bt_plan_instance {
	uint16_t host; /* index into hosts */
	const char *slot;
	uint16_t port;
	const char *address; /* as the balancer reaches it */
	/* The facts the plan was made from; a mismatch before the first effect plans anew. */
	uint32_t expect_release; /* what runs there now, 0: nothing */
	bool expect_in;		 /* in rotation now */
};

struct bt_plan_balancer {
	uint16_t host;
	const char *name;	    /* "nginx" + "/" + service, unique at its host */
	uint64_t expect_generation; /* last confirmed generation it was made from */
	const uint16_t *lacks;	    /* instances that another balancer sends to, and this one not */
	size_t n_lacks;
	bool own_host; /* it knows the instances of its host only; all such ones are one pool */
	bool drains_at_host; /* its Drains run where the instances are */
	bool routes_one;     /* some of its routes go to one instance of those in rotation */
	uint16_t expect_one; /* … which is this one now; BT_NONE: none, or it is not known */
};

struct bt_task {
	uint32_t id; /* unique in the run, also over its rollback plans */
	enum bt_task_kind kind;
	uint16_t host;	   /* whose agent does it; BT_NONE: Approve */
	uint16_t instance; /* BT_NONE where the task is not about one */
	uint16_t balancer; /* BT_NONE, or for Switch, Drain, BackendCheck, Bake at a balancer */
	uint32_t release;  /* what to deploy / start; 0 where it has none */
	const uint16_t *in;
	size_t n_in; /* Switch: instances to put in rotation; BackendCheck: to check */
	const uint16_t *out;
	size_t n_out;	    /* Switch: instances to take out; Drain: to wait for; LoopbackStop,
			       LoopbackStart: those that are reached at the address */
	int64_t timeout_ms; /* limit of one attempt */
	int64_t wait_ms;    /* Drain: its deadline; Bake, Wait: its length; Approve: its time */
	const struct bt_task_exec *exec; /* Exec: what it runs; else NULL */
	const char *step;  /* as the flow calls what it belongs to: "L4TurnOff"; NULL: itself */
	const char *skip;  /* why it is not done at all: said, and passed over; NULL: it is */
	const char *event; /* Lifecycle: "ApplicationStart"; else NULL */
	const char *to, *message; /* Notify: to whom, and what (may be NULL) */
	bool ignore;		  /* its failure is said, and the lane goes on; of no use where
				     the kind has an undo: what may have come half-way is undone */
	const char *why;	  /* shown by `baton plan`: "green is idle: nginx sends to blue" */
};

struct bt_lane {
	const char *name; /* "was1" or "was1/green" or the balancer's host */
	const struct bt_task *tasks;
	size_t n_tasks;
};

struct bt_stage {
	const char *name; /* "prepare" "start" "cutover" "bake" "retire", "batch 1 of 3" … */
	const char *why;
	const struct bt_lane *lanes; /* at least one, each with at least one task */
	size_t n_lanes;
	uint16_t side_by_side; /* lanes at a time, 0: all */
	/* Comes when the run ends otherwise than done, and only then. What fails here is said and
	 * changes nothing. */
	bool closing;
	bool own_policy; /* what follows is said of this stage; else the plan's holds */
	enum bt_failure_policy on_failure;
	int64_t continue_n;
	/* Without a policy of its own: as many lanes as `may_fail` may have failed in the whole run
	 * by now, whatever the plan's policy; with more than that it holds. */
	bool counted;
	int64_t may_fail;
};

enum bt_plan_purpose {
	BT_PLAN_DEPLOY,
	BT_PLAN_ROLLBACK,
	BT_PLAN_RETIRE,
	BT_PLAN_ADOPT,
	BT_PLAN_PRUNE,
	BT_PLAN_FLOW, /* a flow without a new release: what is live stays so */
};
/* Whether the run leaves what serves as it is, and its config, too. */
static inline bool bt_plan_only_cleans(enum bt_plan_purpose p)
{
	return p == BT_PLAN_RETIRE || p == BT_PLAN_PRUNE || p == BT_PLAN_FLOW;
}
const char *bt_plan_purpose_name(enum bt_plan_purpose p);

struct bt_plan {
	struct bt_arena *arena;
	enum bt_plan_purpose purpose;
	const char *service;
	enum bt_strategy strategy;
	const char *flow;     /* the flow that it was made from; NULL: the strategy */
	uint32_t release;     /* the one that shall serve at the end; 0 for RETIRE, PRUNE */
	uint32_t old_release; /* the one that serves now; 0: nothing */
	const struct bt_plan_release *releases;
	size_t n_releases;
	const char *const *hosts;
	size_t n_hosts;
	const struct bt_plan_instance *instances;
	size_t n_instances;
	const struct bt_plan_balancer *balancers;
	size_t n_balancers;
	const uint16_t *without_vip; /* hosts whose loopback lacks the service's address now */
	size_t n_without_vip;
	const struct bt_stage *stages;
	size_t n_stages;
	enum bt_failure_policy on_failure;
	int64_t continue_n;
	enum bt_drain_policy on_drain_timeout;
	int64_t timeout_ms;	 /* of the run before it is rolled back; 0: none */
	int64_t min_in_rotation; /* over all hosts; the guard; 0 allows an empty pool */
	const char *const *notes;
	size_t n_notes; /* sentences for the reader */
};

struct bt_plan *bt_plan_free(struct bt_plan *p);  /* NULL is fine; returns NULL */
json_t *bt_plan_to_json(const struct bt_plan *p); /* the caller decrefs; carries "version" */
/* The release by number; NULL when the plan does not name it (also for 0). */
const struct bt_plan_release *bt_plan_release(const struct bt_plan *p, uint32_t id);
/* Whether the plan's task t (NULL: none of the plan's) has failed though its agent did all that it
 * was told: a Drain that ran out with connections left, where the plan says `fail`. */
bool bt_plan_drain_fails(const struct bt_plan *p, const struct bt_task *t, bool drained);
/* Whether the engine itself does the kind, and no command leaves: Approve, Wait. */
bool bt_task_is_engines(enum bt_task_kind kind);
/* A task by its id; NULL where this plan has none. */
const struct bt_task *bt_plan_task(
	const struct bt_plan *p, uint32_t id, const struct bt_stage **ret_stage);
/* Checks every index and bound, that task ids are unique and that each task has what its kind needs
 * (a Switch a balancer, an InstanceStart an instance and a release); BT_E_PROTOCOL names the
 * member.
 */
int bt_plan_from_json(const json_t *j, struct bt_plan **ret, struct bt_err *err);
