/* Strategies: service + release + observed world → plan. Pure: no I/O, no clock, no randomness. */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include "model/plan.h"
#include "model/service.h"
#include "model/world.h"

struct bt_plan_request {
	const struct bt_service *service;
	const struct bt_world *world;	/* every host of the service and its balancer hosts */
	struct bt_plan_release release; /* to deploy */
	/* Known releases (id → version, digest), for what runs now; at least the ones in the world.
	 */
	const struct bt_plan_release *known;
	size_t n_known;
	uint32_t first_task_id; /* ids start here (a rollback goes on counting) */
	/* bt_plan_flow: what runs, and on whom of the service; empty: on all. */
	const struct bt_flow *flow;
	const char *const *hosts, *const *slots;
	size_t n_hosts, n_slots;
	/* bt_plan_rollback: the plan of the run that is taken back; one that was made from a flow
	 * says what its run found, and that is put back. NULL: there is none. */
	const struct bt_plan *before;
	/* The way back of a deployment that failed: what it was, for its on_failure; or NULL. */
	const struct bt_service *failed;
	struct bt_plan_release failed_release;
};

/* A deployment by the service's strategy. BT_E_CONFIG / BT_E_REFUSED with the reason in one line
 * (a stranger on the idle slot's port, sources that disagree about who is live and what each says).
 */
int bt_plan_deploy(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);
/* The flow rq->flow. With ComponentDeploy in it it deploys rq->release; else rq->release is the
 * live one, and what runs keeps its release. BT_E_REFUSED names the stage that may not be: it would
 * take the last one out of rotation, or stop what gets requests. */
int bt_plan_flow(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);
/* From the observed world back to rq->release serving everywhere it should: the fast path is one
 * Switch where its instances still run (warm); otherwise they are started first.
 * Used by the engine's automatic rollback and by `baton rollback`. */
int bt_plan_rollback(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);
/* Records what others started and what serves now as the release: nothing is stopped, started or
 * switched. BT_E_REFUSED in one line where nothing serves, where it is not clear which process
 * does, or where a host's policy says no. The world has been asked for its foreign processes. */
int bt_plan_adopt(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);
/* Stop instances that run and are not in rotation (a warm slot whose time has passed). */
int bt_plan_retire(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);

/* Remove releases that are no longer kept from every host of the service. */
int bt_plan_prune(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);

/* Which slot is live and who said so: `why` is one sentence. Shared with `status`.
 * 0: *ret_slot index into service->run.slots, or -1 where nothing serves; the first in rotation
 * where several serve one release (as rolling does).
 * BT_E_REFUSED: balancer, instances and identity disagree; the text has what each says. */
int bt_plan_live_slot(const struct bt_service *s, const struct bt_world *w, int *ret_slot,
	struct bt_str *ret_why, struct bt_err *err);

/* For people: stages, lanes, tasks and reasons, as `baton plan` prints them (plain text, no
 * colour). */
void bt_plan_print(const struct bt_plan *p, struct bt_str *out);
/* "start app v2 in was1/green" – one task in words, shared with the client's live view. */
void bt_plan_task_words(const struct bt_plan *p, const struct bt_task *t, struct bt_str *out);
