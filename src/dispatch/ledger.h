/* The agent's memory of commands: a pure layer that decides, driven by the agent with real files
 * and by the simulator with a fake disk.
 *
 * The rule: `accepted` is durable before the cursor advances, `begun` (with the prior state)
 * before the effect, `done` before the result is posted, and a result is kept until the server
 * acknowledges it. A repeat of the same four is answered from here and changes nothing. A token
 * lower than the highest durably seen for that service is refused.
 *
 * Late copies: a DO whose UNDO was accepted, and an attempt lower than an accepted one, are stale
 * as well. What was accepted for one task runs one after the other, in order of arrival: an UNDO
 * begins when its DO has ended or was cancelled.
 *
 * Memory is bounded: acknowledged entries of a service go when its next deployment is accepted. */
#pragma once
#include "model/command.h"

enum bt_ledger_kind {
	BT_LEDGER_STORE,
	BT_LEDGER_ACCEPTED,
	BT_LEDGER_BEGUN,
	BT_LEDGER_DONE,
	BT_LEDGER_ACKED
};
struct bt_ledger_entry { /* one durable line of the agent's file */
	enum bt_ledger_kind kind;
	const char *store;   /* STORE: id of the server's store */
	uint64_t seq;	     /* ACCEPTED, STORE: cursor */
	const char *service; /* ACCEPTED */
	uint64_t token;	     /* ACCEPTED; with key.deployment 0 the line only keeps the token */
	struct bt_command_key key;
	enum bt_task_kind task;
	const char *command;	 /* ACCEPTED: the whole command's JSON, to run it again */
	struct bt_prior prior;	 /* BEGUN */
	struct bt_result result; /* DONE */
};
json_t *bt_ledger_entry_to_json(const struct bt_ledger_entry *e);
int bt_ledger_entry_from_json(
	const json_t *j, struct bt_arena *a, struct bt_ledger_entry *ret, struct bt_err *err);

struct bt_ledger;
struct bt_ledger *bt_ledger_new(void);
struct bt_ledger *bt_ledger_free(struct bt_ledger *l);
/* Applies a durable entry (also at start, for every line of the file). Copies what it keeps. */
int bt_ledger_apply(struct bt_ledger *l, const struct bt_ledger_entry *e, struct bt_err *err);

enum bt_ledger_answer {
	BT_LEDGER_NEW,	    /* write ACCEPTED, then run it */
	BT_LEDGER_RUNNING,  /* a repeat of one that runs: nothing to do. Writing ACCEPTED for a
			       repeat is good: it raises the cursor and the token only */
	BT_LEDGER_ANSWERED, /* a repeat of one that is done: post its result again (likewise) */
	BT_LEDGER_STALE,    /* token too low, or a late copy: post REFUSED. A line that only keeps
			       the token may raise the cursor over it */
};
enum bt_ledger_answer bt_ledger_offer(const struct bt_ledger *l, const char *service,
	const struct bt_command_key *key, uint64_t token);

/* After a start: what was accepted or begun and has no result, in order of arrival. Without what
 * an UNDO or a later attempt has made meaningless, and of deployments that have ended. */
enum bt_recovery {
	BT_RECOVER_RUN,	  /* accepted, not begun: run it */
	BT_RECOVER_AGAIN, /* begun, kind is safe: run it again with the recorded prior */
	BT_RECOVER_PROBE, /* begun: ask the world, then run what is missing, with the recorded prior
			   */
	BT_RECOVER_PARK,  /* begun, kind is never: post UNKNOWN */
};
struct bt_ledger_open {
	struct bt_ledger_entry accepted; /* borrowed from the ledger */
	bool begun;
	struct bt_prior prior;
	enum bt_recovery how;
};
size_t bt_ledger_recover(const struct bt_ledger *l, struct bt_ledger_open **ret); /* caller frees */
/* Results that the server has not acknowledged. Borrowed results; caller frees the array. */
size_t bt_ledger_unacked(const struct bt_ledger *l, const struct bt_result ***ret);
const struct bt_result *bt_ledger_result(
	const struct bt_ledger *l, const struct bt_command_key *key);
/* The prior recorded for the first DO of a task that was begun, for its UNDO when the command came
 * without one (a later attempt may have found what the first one left). */
bool bt_ledger_prior(
	const struct bt_ledger *l, uint64_t deployment, uint32_t task, struct bt_prior *ret);
uint64_t bt_ledger_cursor(const struct bt_ledger *l);
const char *bt_ledger_store(const struct bt_ledger *l); /* NULL before the first */
uint64_t bt_ledger_token(const struct bt_ledger *l, const char *service); /* highest seen; 0 */
/* Entries that rebuild the same ledger, shortest: for compaction. The callback writes one. */
void bt_ledger_compact(const struct bt_ledger *l,
	void (*emit)(void *arg, const struct bt_ledger_entry *), void *arg);
