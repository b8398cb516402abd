/* What travels between server and agent: commands one way, results the other.
 *
 * A command is (deployment, task, verb, attempt) plus a fencing token. The same four are a
 * repeat and change nothing; a token lower than the highest durably seen is refused.
 * The engine fills the numbers; the server adds `params` (names, addresses, specs) just before
 * the command becomes durable in the outbox, so that the agent needs no second question. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/task.h"
#include <jansson.h>
#include <stdint.h>

#define BT_WIRE_VERSION 1

struct bt_command_key {
	uint64_t deployment;
	uint32_t task;
	enum bt_verb verb;
	uint32_t attempt; /* from 1 */
};
bool bt_command_key_equal(const struct bt_command_key *a, const struct bt_command_key *b);

/* The state before a task's effect, recorded with `begun`, and restored by its undo. */
struct bt_prior {
	bool known;
	uint32_t release; /* InstanceStart/Stop: what ran in the slot, 0 nothing */
	bool running;
	bool present;	     /* ComponentDeploy: the release was already on disk */
	uint64_t generation; /* Switch: the confirmed generation before */
};

struct bt_command {
	struct bt_command_key key;
	uint64_t token; /* fencing; one per (service, start or takeover), rising */
	enum bt_task_kind kind;
	uint16_t host, instance, balancer; /* plan indexes; the server turns them into params */
	uint32_t release;
	uint64_t generation; /* Switch: the pool's new generation */
	const uint16_t *pool;
	size_t n_pool; /* Switch: all instances in rotation after it; BackendCheck: whom to check */
	uint16_t
		one; /* Switch: who of the pool serves routes `to: one`; BT_NONE: nobody is named */
	const uint16_t *out;
	size_t n_out;	       /* Drain: which to wait for */
	struct bt_prior prior; /* UNDO: what to restore */
	int64_t timeout_ms, wait_ms;
};

enum bt_outcome {
	BT_OUTCOME_DONE,
	BT_OUTCOME_FAILED,  /* it did not happen, and the world is as before or as `prior` says */
	BT_OUTCOME_UNKNOWN, /* nobody can tell: a person is needed where the task may not be
			       repeated */
	BT_OUTCOME_REFUSED, /* stale token, host policy, unknown task kind: nothing was done */
};
const char *bt_outcome_name(enum bt_outcome o);

struct bt_result {
	struct bt_command_key key;
	uint64_t token; /* only of a refusal without a look (BT_LEDGER_STALE …): of the command that
			   was refused. A late copy's says nothing about the copy with a newer token
			   that was sent since. 0: not said */
	enum bt_outcome outcome;
	struct bt_prior prior; /* as recorded with `begun` */
	bool drained;	       /* Drain: 0 connections were seen (else its deadline passed) */
	const char *detail;    /* one line for people: reason of a failure, or what was seen; may be
				  NULL */
};

json_t *bt_prior_to_json(const struct bt_prior *p);
int bt_prior_from_json(const json_t *j, struct bt_prior *ret, struct bt_err *err);
json_t *bt_key_to_json(const struct bt_command_key *k); /* {"deployment","task","verb","attempt"} */
int bt_key_from_json(const json_t *j, struct bt_command_key *ret, struct bt_err *err);
json_t *bt_result_to_json(const struct bt_result *r);
/* detail is copied into the arena. */
int bt_result_from_json(
	const json_t *j, struct bt_arena *a, struct bt_result *ret, struct bt_err *err);
