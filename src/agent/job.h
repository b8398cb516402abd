/* One command that runs: what the rows of the task table work on. Private to the executor. */
#pragma once
#include "agent/exec.h"
#include "agent/observe.h"

struct bt_job;
struct bt_task_row { /* indexed by enum bt_task_kind */
	/* Reads params into the job and asks the host policy. < 0: nothing will be done. */
	int (*check)(struct bt_job *j, struct bt_err *err);
	/* Finds the state before the effect and calls bt_job_begin, at once or later. NULL: there
	 * is none to record. */
	void (*prior)(struct bt_job *j);
	void (*go)(struct bt_job *j);	/* ends in bt_job_finish */
	void (*undo)(struct bt_job *j); /* restores j->prior; NULL: as go, or nothing to undo */
	/* What its `go` begins outlives the agent, and `go` finds it again: so a begun task that
	 * may not be repeated is gone on with. */
	bool lasting;
	void (*over)(struct bt_job *j); /* its result is durable; may be NULL */
	/* Whether the effect is there already (after a restart, or when the time limit passed). */
	bool (*there)(struct bt_job *j);
};
extern const struct bt_task_row bt_task_rows[BT_TASK_KINDS];

enum bt_job_phase {
	BT_JOB_ACCEPTING, /* waits for the ledger */
	BT_JOB_QUEUED,	  /* behind an older command of the same task */
	BT_JOB_PREPARING,
	BT_JOB_BEGINNING, /* waits for the ledger */
	BT_JOB_GOING,
	BT_JOB_ENDING, /* waits for the ledger */
};

#define BT_JOB_MAX_OPS 256

struct bt_job {
	struct bt_job *next;
	struct bt_exec *x;
	struct bt_arena *arena;
	json_t *command;
	json_t *params; /* borrowed from command */
	struct bt_command_key key;
	enum bt_task_kind kind;
	const struct bt_task_row *row;
	const char *service_name;
	uint64_t seq, token;
	int64_t timeout_ms, wait_ms;
	bool begun;    /* BEGUN is on disk, with the prior state */
	bool given_up; /* a later command of the same task waits, and this one may end */
	enum bt_job_phase phase;

	struct bt_prior prior; /* DO: found before the effect; UNDO: to restore */
	bool drained;
	json_t *observation;
	struct bt_str log;
	int64_t started_ms;
	enum bt_outcome outcome;
	char *detail;
	char *last_progress;

	/* read by check */
	struct bt_config *config; /* owns service */
	const struct bt_service *service;
	const char *slot, *balancer;
	uint16_t port;
	uint32_t release;
	struct bt_pool_member *members;
	size_t n_members;
	const char *version, *digest, *file_name;
	int64_t size;
	const struct bt_foreign *foreign; /* Adopt: who listens */
	const struct bt_placed_file *files;
	size_t n_files;
	bool unpack, identity;
	bool zip; /* ComponentDeploy: the artifact is for a Tomcat */
	const uint32_t *keep;
	size_t n_keep;
	struct bt_task_exec program;
	const struct bt_notify *notify;
	struct bt_task_bundle *bundle; /* Lifecycle, Install: task_bundle.c */
	bool ended;		       /* Exec: nothing of the program is left */
	bool anywhere;		       /* Exec: also where its release is not on this host */

	/* running */
	struct bt_op *op;
	struct bt_op *ops[BT_JOB_MAX_OPS]; /* BackendCheck: one a target */
	size_t n_ops_left;
	struct event *limit, *look;
	int restarts; /* of the instance when the look began; -1: not known yet */
	struct bt_observing *observing;
};

const struct bt_exec_env *bt_job_exec(const struct bt_job *j);
const struct bt_driver_env *bt_job_env(const struct bt_job *j);
/* Records BEGUN with j->prior, then go or undo. */
void bt_job_begin(struct bt_job *j);
/* The end: outcome and one line for people. Cancels what still runs. */
void bt_job_finish(struct bt_job *j, enum bt_outcome outcome, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* The same with a text of any length. */
void bt_job_finish_text(struct bt_job *j, enum bt_outcome outcome, const char *text);
/* Ends as a driver answered: 0 DONE, BT_E_REFUSED REFUSED, other FAILED with the error's text. */
void bt_job_finish_result(struct bt_job *j, int result, const struct bt_err *err, const char *done);
/* true: the slot is about to be started again after a boot of this host, and the task goes, from
 * its beginning, once it was. */
bool bt_job_waits_for_boot(struct bt_job *j, const char *slot);
/* A line for the task's log and, as progress, for who watches. */
void bt_job_say(struct bt_job *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bt_job_log(struct bt_job *j, const char *text); /* into the log only */
void bt_job_show(void *job, const char *line);	     /* a bt_progress_fn: not into the log */
/* The command's secrets as pairs, in the job's arena. */
size_t bt_job_secrets(struct bt_job *j, json_t *secrets, struct bt_kv **ret);
/* The service's own environment, then params.env, into j->program; `value` (NULL: as it is) says
 * what a text of the latter becomes. */
int bt_job_read_env(struct bt_job *j, const char *(*value)(struct bt_job *j, const char *text),
	struct bt_err *err);
void bt_job_progress(void *job, const char *line); /* a bt_progress_fn */

/* bits that rows share (job_read.c) */
int bt_job_read_service(struct bt_job *j, struct bt_err *err); /* params.service; learned, too */
int bt_job_take_service(struct bt_job *j, struct bt_err *err); /* the same, not learned */
int bt_job_read_slot(struct bt_job *j, struct bt_err *err);    /* slot, port, release */
int bt_job_read_members(struct bt_job *j, const char *key, struct bt_err *err);
/* The service that a release was made with; the caller decrefs. */
int bt_release_service(const struct bt_release_on_disk *release, json_t **ret, struct bt_err *err);
/* The service as release id was made with; into the job (config, service). */
int bt_job_release_service(
	struct bt_job *j, uint32_t id, struct bt_release_on_disk *ret, struct bt_err *err);
/* The job's slot for a runtime. */
struct bt_instance_ref bt_job_ref(const struct bt_job *j);
/* Path of the artifact that the job places; the caller frees. */
char *bt_job_artifact(const struct bt_job *j);
/* params.files with the config's `files` and its slots → j->files: templates rendered for every
 * slot, each path once. The config is in the job then. */
int bt_job_render_files(struct bt_job *j, const json_t *service, struct bt_err *err);
/* What is in the job's slot now. False: it cannot be seen. */
bool bt_job_slot_seen(struct bt_job *j, struct bt_arena *a, struct bt_seen_instance *ret);
/* Adds the last lines of the slot's log to the job's. The app's very last line, and how it ended as
 * its shim wrote it; NULL where there is none (arena; either may be NULL). */
void bt_job_log_tail(struct bt_job *j, int lines, const char **ret_last, const char **ret_exit);
/* While a check waits: fail at once when the instance dies. */
void bt_job_look_for_death(struct bt_job *j);
