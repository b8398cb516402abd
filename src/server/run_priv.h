/* What runner.c, run_store.c, run_start.c and run_end.c share. */
#pragma once
#include "server/run.h"

struct bt_pending { /* an event that waits for its step */
	struct bt_pending *next;
	struct bt_arena *arena;
	enum bt_event_kind kind;
	struct bt_plan *plan;
	uint64_t token;
	struct bt_result result;
	const char *log, *by, *from, *host; /* from: address of the operator */
	enum bt_operator op;
	bool back;
	struct bt_txn *extra; /* START: the rows that come with it */
	bt_run_done_fn done;
	void *arg;
};

struct bt_out { /* a command of the step on its way */
	char *host, *json;
	size_t op; /* statement that returns its number */
};

struct bt_running {
	struct bt_running *next;
	struct bt_server *server;
	struct bt_log log;
	uint64_t id;
	char *service, *holder, *purpose; /* purpose: of its first plan */
	uint32_t release;
	json_t *service_json;
	struct bt_config *config;
	int64_t started_wall;
	struct bt_engine *engine;
	int64_t clock_offset;
	struct bt_pending *head, **tail;
	struct event *timer;
	json_t *lost;	 /* hosts the engine was told of */
	json_t *failing; /* "was1/green" of failed tasks */
	json_t *said;	 /* "./migrate.sh on was1" → last lines of a program that failed */
	json_t *sent_at; /* key text → engine time */
	struct bt_gather *gather;
	void *back;			 /* run_start.c: what the gathering is for */
	int64_t observed_since;		 /* boot ms: what was seen since is new enough */
	int64_t paused_since, paused_ms; /* engine time */
	/* the step on its way */
	struct bt_pending *current;
	struct bt_update update;
	struct bt_out *out;
	char **events;
	int64_t *cursors;
	bool in_flight, pumping;
	bool waiting;		/* for a retry */
	bool broken;		/* the journal could not be read again */
	bool dead;		/* its start failed */
	struct bt_tails *tails; /* run_end.c */
};

struct bt_running *bt_run_new(struct bt_server *s, uint64_t id, const char *service);
void bt_run_free(struct bt_running *r);
void bt_run_push(struct bt_running *r, struct bt_pending *p);
struct bt_pending *bt_pending_new(enum bt_event_kind kind);
char *bt_run_holder(const char *by_json); /* "alice" of {"name":"alice",…}; the caller frees */

/* run_store.c: the step's transaction, and what follows in memory once it is durable. */
int bt_run_transaction(struct bt_running *r, struct bt_txn **ret, struct bt_err *err);
void bt_run_effects(struct bt_running *r);
/* run_start.c */
void bt_run_plan_back(struct bt_running *r, uint32_t release, uint32_t first_task_id);
/* run_end.c: gathers log tails, then publishes `end`; frees the run when it ended. */
void bt_run_say_end(struct bt_running *r);
void bt_run_tails_free(struct bt_running *r);
