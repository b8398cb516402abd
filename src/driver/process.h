/* Inside the runtime `process`: an instance as the driver knows it, and its parts. */
#pragma once
#include "driver/driver.h"
#include "driver/op.h"
#include "shim/status.h"

enum bt_process_phase {
	BT_PROCESS_PREPARING, /* its directory is being written */
	BT_PROCESS_LAUNCHING, /* a shim is being started (or started anew) */
	BT_PROCESS_LINKED,    /* the shim reports */
	BT_PROCESS_LOST,      /* the shim is gone; a new one is started in a moment */
	BT_PROCESS_REMOVING,  /* its directory is being removed */
};

/* A spec in the making: strings in its arena. */
struct bt_process_spec {
	struct bt_arena *arena;
	struct bt_shim_spec *spec;
};
/* From a start request: placeholders, environment, user, limits. Everything a person wrote is
 * checked here, before anything is touched. */
int bt_process_spec_make(const struct bt_driver_env *env, const struct bt_start_request *rq,
	const char *log, struct bt_arena *a, struct bt_shim_spec **ret, struct bt_err *err);
/* Writes dir (0700) with the spec (0600) durably, without what an earlier one left. Blocks. */
int bt_process_spec_write(const char *dir, const struct bt_shim_spec *spec, struct bt_err *err);
/* Reads dir's spec: the caller frees *ret_text, which *ret points into. */
int bt_process_spec_read(
	const char *dir, char **ret_text, struct bt_shim_spec *ret, struct bt_err *err);
/* dir's status as the shim last wrote it; BT_E_NOTFOUND where there is none. */
int bt_process_status_read(const char *dir, struct bt_shim_status *ret, struct bt_err *err);

/* Connects to the shim of dir and subscribes: a descriptor, or -errno (no shim there). */
int bt_process_connect(const char *dir);
int bt_process_send(int fd, const struct bt_shim_request *rq);
/* The next message: 1 with *ret, 0 nothing yet, -errno (-EPIPE: the shim is gone). */
int bt_process_receive(int fd, struct bt_shim_status *ret);

/* ---- instances (process_instance.c) ------------------------------------------------------- */

/* One start or stop that somebody waits for. */
struct bt_process_op {
	struct bt_op op; /* first */
	bt_done_fn done;
	bt_progress_fn progress;
	void *arg;
	struct bt_instance *instance; /* NULL: it only brings an answer, from `later` */
	struct bt_adopted *adopted;   /* the same for what others started */
	struct event *later;
	int result;
	struct bt_err err;
};
struct bt_instance {
	struct bt_instance *next;
	char *service, *slot, *dir, *log, *version, *marker;
	uint16_t port;
	uint16_t more[BT_SLOT_PORTS]; /* its other ports */
	size_t n_more;
	uint32_t release;
	enum bt_process_phase phase;
	struct bt_shim_status status; /* the last one seen */
	bool seen;		      /* status holds something */
	bool fresh;		      /* begun by this agent: not found on disk */
	bool ran;		      /* it was RUNNING once: its shim is replaced when lost */
	int fd;			      /* of the shim's socket; -1 */
	struct event *readable, *timer;
	struct bt_child *launcher;
	struct bt_process_job *job; /* on a thread: writing or removing the directory */
	struct bt_process_op *starting, *stopping;
	bool stop_wanted;
	struct bt_shim_steps steps;
	struct bt_err failure; /* code < 0: why the start fails, once all is cleaned up */
	int64_t log_from;      /* where this start's lines begin */
	int64_t retry_ms;
};
/* The table. All of it lives on the loop's thread. */
struct bt_process_state {
	struct bt_driver_env env;
	struct bt_instance *instances;
};
extern struct bt_process_state bt_process;

struct bt_instance *bt_instance_find(const char *service, const char *slot);
struct bt_instance *bt_instance_add(const struct bt_shim_spec *spec, const char *dir);
/* Writes the directory and launches; takes the arena that spec lives in. */
void bt_instance_prepare(
	struct bt_instance *i, struct bt_arena *a, const struct bt_shim_spec *spec);
void bt_instance_resume(struct bt_instance *i);	 /* found on disk: link, or launch a new shim */
void bt_instance_stop(struct bt_instance *i);	 /* i->steps, i->stop_wanted are set */
void bt_instance_confirm(struct bt_instance *i); /* i->starting looks at the state it has */

struct bt_process_op *bt_process_op_new(bt_progress_fn progress, bt_done_fn done, void *arg);
/* Detaches it from its instance, calls done, frees. Only from a callback of the loop. */
void bt_process_op_finish(struct bt_process_op *op, int result, const struct bt_err *err);
/* The same at the loop's next turn. */
void bt_process_op_later(struct bt_process_op *op, int result, const struct bt_err *err);

/* ---- for runtimes that are processes with something of their own around them (tomcat.c) ---------
 */

char *bt_process_dir(const char *service, const char *slot); /* of its spec; the caller frees */
/* BT_E_FAILED names who listens on one of the slot's ports. */
int bt_process_ports_free(const struct bt_instance_ref *ref, struct bt_err *err);
/* Ends the wait of a stop's step without a signal (bt_shim_step), where the instance is at one. */
void bt_process_next(const char *service, const char *slot);

/* Forgets every instance and leaves them running: the agent's end. */
void bt_process_forget(void);
