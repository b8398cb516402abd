/* Runs: each active deployment drives one engine. See runner.c. */
#pragma once
#include "plan/plan.h"
#include "server/hosts.h"

struct bt_running;

/* A deployment about to start. The plan is taken over on success and failure alike; the rest is
 * borrowed. */
struct bt_run_start {
	const struct bt_release *release; /* target */
	bool new_release;		  /* its row comes with the run's transaction */
	const char *config_hash, *by;	  /* by: JSON text of who and why */
	const unsigned char *sealed;
	size_t n_sealed;
	const unsigned char *files; /* sealed, too; NULL: none */
	size_t n_files;
	struct bt_plan *plan;
	const char *holder; /* who, for the lease */
};
/* done once, after the commit or its failure, never from inside. */
int bt_run_start(struct bt_server *s, const struct bt_run_start *spec,
	void (*done)(void *arg, uint64_t id, int result, const struct bt_err *err), void *arg,
	struct bt_err *err);
/* Takes over what a former server left unended. */
int bt_runs_resume(struct bt_server *s, struct bt_err *err);
void bt_runs_free(struct bt_server *s);

struct bt_running *bt_run_find(struct bt_server *s, uint64_t id);
/* BT_E_LEASE with holder, number and time when the service is being deployed. */
int bt_run_lease_free(struct bt_server *s, const char *service, struct bt_err *err);

/* done once, after it is durable; result -> refusal in words. */
typedef void (*bt_run_done_fn)(void *arg, int result, const struct bt_err *err);
/* by, from: who asks, and that one's address (NULL: none). */
void bt_run_operate(struct bt_running *r, enum bt_operator op, const char *by, const char *from,
	bt_run_done_fn done, void *arg);
/* log may be NULL. */
void bt_run_result(struct bt_running *r, const struct bt_result *result, const char *log,
	bt_run_done_fn done, void *arg);
void bt_runs_tick(struct bt_server *s); /* agents lost and back */

const struct bt_engine *bt_run_engine(const struct bt_running *r);
bool bt_run_end_pending(
	const struct bt_running *r); /* its `end` waits for the last lines of logs */
const char *bt_run_service(const struct bt_running *r);
uint64_t bt_run_id(const struct bt_running *r);
bool bt_run_ending(const struct bt_running *r); /* its `end` event is still to come */
size_t bt_runs_count(struct bt_server *s);
/* A run rebuilt from the journal, an ended one too. */
struct bt_replay {
	struct bt_engine *engine;
	json_t *plans;	   /* all of its plans */
	int64_t last_wall; /* wall time of the last one */
};
int bt_run_replay(struct bt_server *s, uint64_t id, struct bt_replay *ret, struct bt_err *err);
void bt_replay_done(struct bt_replay *p);

/* params.c: the whole command as the agent gets it, without "seq" and without secrets. */
int bt_params_command(struct bt_server *s, const struct bt_plan *p, const char *service,
	const json_t *service_json, const struct bt_command *c, json_t **ret, struct bt_err *err);
/* Whether a header of the API of the service's balancer (traffic.http) refers to the secret; NULL:
 * to any. service: canonical JSON. */
bool bt_params_balancer_wants(const json_t *service, const char *secret);
/* Of all secrets (name → value) those. A new reference. */
json_t *bt_params_balancer_secrets(const json_t *service, const json_t *all);
/* Adds seq, and the secrets or files that a command's release needs. A new reference. */
int bt_params_complete(
	struct bt_server *s, const struct bt_outbox_item *item, json_t **ret, struct bt_err *err);
/* Whether what was added is more than a few lines: then it is handed out by itself. */
bool bt_params_is_large(const json_t *command);
/* Digest of the artifact that the command needs, or NULL. */
const char *bt_params_digest(const json_t *command);

/* project.c: a record as people see it. */
json_t *bt_project_record(const struct bt_plan *p, const char *service, uint64_t deployment,
	int64_t cursor, int64_t wall_ms, const struct bt_record *r);
json_t *bt_project_task(const struct bt_plan *p, uint32_t id); /* NULL: not in this plan */
int bt_end_exit_code(const char *end);

/* stream.c: Server-Sent Events. */
void bt_stream_open(
	struct bt_server *s, struct bt_http_exchange *x, uint64_t deployment, int64_t after);
void bt_stream_record(struct bt_server *s, uint64_t deployment, int64_t cursor, const char *event);
void bt_stream_progress(struct bt_server *s, uint64_t deployment, const json_t *event);
/* tails: instance → lines; NULL: what was kept */
void bt_stream_end_event(struct bt_server *s, uint64_t deployment, json_t *tails);
void bt_stream_ping(struct bt_server *s);
/* Ends those whose token was revoked or has expired, or whose session is over. */
void bt_streams_check(struct bt_server *s);
void bt_streams_free(struct bt_server *s);
