/* Drivers change the world on a host and read it back. One vtable a family, one row in a registry.
 *
 * Nothing blocks the loop: a verb takes a `struct bt_op` and calls its done exactly once, from the
 * loop, perhaps before the verb returns control to the loop the next time (never from inside the
 * verb itself). bt_op_cancel ends it early; done is then not called. */
#pragma once
#include "base/err.h"
#include "base/loop.h"
#include "model/service.h"
#include "model/world.h"
#include <event2/event.h>
#include <stdint.h>

struct bt_http_client; /* net/http_client.h */
struct bt_tls_identity;

/* What every driver is given, once, at the agent's start. */
struct bt_driver_env {
	struct event_base *base;
	struct bt_work *work; /* threads for what blocks */
	struct bt_http_client *http;
	const char *state_dir; /* the agent's: instances/, releases/, balancers/, logs/ live here */
	const char *host;      /* this host's name */
	const char *shim_path; /* the shim's executable */
	const char *self_path; /* this binary, for helper children (`baton unpack`) */
	bool hold; /* init starts nothing: wake() does, once balancers send nothing there */
	/* Who this agent is to its server: artifact downloads present it. NULL in tests: plain
	 * http. */
	const struct bt_tls_identity *tls;
	/* A secret that this host keeps for the API of the service's balancer; NULL: none of that
	 * name. Borrowed for a moment. The function may be NULL. */
	const char *(*secret)(void *arg, const char *service, const char *name);
	void *secret_arg;
};

/* Progress for people while something runs: one short line. May be NULL. */
typedef void (*bt_progress_fn)(void *arg, const char *line);

/* One running operation. */
struct bt_op;
struct bt_op *bt_op_cancel(struct bt_op *op); /* NULL is fine; returns NULL */

/* ---- runtime: instances ------------------------------------------------------------------ */

struct bt_instance_ref {
	const char *service, *slot;
	uint16_t port;
	const struct bt_port *more; /* the slot's other ports, as the config at hand has them */
	size_t n_more;
};
struct bt_start_request { /* what it points to is there until the start is done or cancelled */
	struct bt_instance_ref ref;
	uint32_t release;
	const char *version;
	const char *artifact; /* absolute path: what {artifact} becomes */
	const char *release_dir;
	const struct bt_service *service; /* of that release: run spec and env */
	const struct bt_kv *secrets;
	size_t n_secrets;
	bool leave; /* a program's: what it starts in the background outlives it (shim/spec.h) */
};
struct bt_adopt_request {
	struct bt_instance_ref ref;
	uint32_t release;
	const char *version, *command;
	pid_t pid; /* as bt_foreign_find found it */
	int64_t start_ticks, since_wall_ms;
};
/* `result` is 0, or < 0 with err (valid during the call). An app that exits at once is an error
 * BT_E_FAILED whose text has its exit and last line. */
typedef void (*bt_done_fn)(void *arg, int result, const struct bt_err *err);

struct bt_runtime_ops {
	const char *name;
	enum bt_runtime kind;
	int (*init)(const struct bt_driver_env *env, struct bt_err *err); /* adopts what runs */
	/* Starts and returns when the process is there (health is another task). Starting what
	 * already runs with the same release is done at once. Port held by a stranger: error naming
	 * it. */
	struct bt_op *(*start)(const struct bt_start_request *rq, bt_done_fn done, void *arg);
	/* Runs the stop sequence; done when the group is gone and its ports are free. Absent:
	 * done. */
	struct bt_op *(*stop)(const struct bt_instance_ref *ref, const struct bt_service *service,
		bt_progress_fn progress, bt_done_fn done, void *arg);
	/* Records a process that others started as the slot's instance, durably, and leaves it as
	 * it is: `observe` tells of it and `stop` ends it, by pidfd. BT_E_NOTFOUND: it is gone. */
	struct bt_op *(*adopt)(const struct bt_adopt_request *rq, bt_done_fn done, void *arg);
	/* Forgets that record; the process runs on. None there: done. */
	struct bt_op *(*disown)(const struct bt_instance_ref *ref, bt_done_fn done, void *arg);
	/* What is there now, without blocking (shims report changes); strings into the arena. */
	int (*observe)(const struct bt_instance_ref *ref, struct bt_arena *a,
		struct bt_seen_instance *ret, struct bt_err *err);
	/* Starts what shall run and was not started since `hold` of the environment was set. */
	void (*wake)(void);
	/* Path of the current log file (older ones are .1 .2 …), into buf. */
	void (*log_path)(const struct bt_instance_ref *ref, char *buf, size_t n);
};
const struct bt_runtime_ops *bt_runtime_find(enum bt_runtime kind);

/* ---- health ------------------------------------------------------------------------------ */

struct bt_health_target {
	const struct bt_health *health;
	const char *address;	    /* "127.0.0.1" */
	uint16_t port;		    /* the slot's */
	const struct bt_port *more; /* its others */
	size_t n_more;
	const char *slot, *host, *artifact, *version; /* for exec's placeholders; may be NULL */
	int64_t within_ms; /* the deadline of this check; 0: health->within_ms */
};
/* Polls at once, then every health->every_ms, until `passes` in a row or the deadline.
 * The error text has the last answer and the count of tries. */
struct bt_op *bt_health_wait(const struct bt_driver_env *env, const struct bt_health_target *t,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg);
/* Watches for bake_ms: BT_E_FAILED as soon as `fails` checks in a row failed, 0 at the end. */
struct bt_op *bt_health_watch(const struct bt_driver_env *env, const struct bt_health_target *t,
	int64_t bake_ms, bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg);
/* One GET, for identity URLs: body trimmed, at most 256 bytes; "" with result < 0. */
struct bt_op *bt_identity_ask(const struct bt_driver_env *env, const char *url,
	const char *host_header,
	void (*done)(void *arg, int result, const char *body, const struct bt_err *err), void *arg);

/* ---- balancer ---------------------------------------------------------------------------- */

struct bt_pool_member {
	const char *address;
	uint16_t port;
	const char *slot, *host;
	bool in;  /* in rotation; the others are named as `backup` so that a straggler is served */
	bool one; /* of those in rotation, who serves routes `to: one`; nobody: the first does */
	bool comes; /* this change puts it in; only told, never kept. Nobody comes: it is not told
		     */
};
/* Desired state of one service at one balancer. */
struct bt_pool {
	const char *name; /* bt_plan_balancer.name */
	const char *service_name;
	const struct bt_service *service;
	uint64_t generation;
	const struct bt_pool_member *members;
	size_t n_members; /* every slot of every host */
	/* Of each member: not even a backup, since it is being started after a boot. NULL: none. */
	const bool *down;
};
struct bt_drain_request {
	const char *name;
	const struct bt_service *service;
	const struct bt_pool_member *members;
	size_t n_members; /* to wait for */
	int64_t wait_ms;
};
struct bt_balancer_ops {
	const char *name;
	/* Re-reads what was applied before; confirms or restores an unconfirmed file first. */
	int (*init)(const struct bt_driver_env *env, struct bt_err *err);
	/* Write aside, fsync, rename, test, reload, confirm. On any failure the old file is back
	 * and the proxy untouched. A generation ≤ the confirmed one with the same members: done at
	 * once; ≤ with other members: BT_E_REFUSED. Calls queue; waiting ones merge into one
	 * reload. */
	struct bt_op *(*apply)(const struct bt_pool *pool, bt_progress_fn progress,
		void *progress_arg, bt_done_fn done, void *arg);
	/* 0 with *drained false only when on_drain_timeout is left to the engine: done(result 1)
	 * means the deadline passed with connections left (err text has the count), 0 means
	 * drained. */
	struct bt_op *(*drain)(const struct bt_drain_request *rq, bt_progress_fn progress,
		void *progress_arg, bt_done_fn done, void *arg);
	/* Watches the balancer's own answers for bake_ms: BT_E_FAILED when the 5xx share passes the
	 * service's bake_max_5xx (at least 20 answers), 0 at the end or where it cannot count. */
	struct bt_op *(*watch)(const char *name, const struct bt_service *service, int64_t bake_ms,
		bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg);
	/* Asynchronous, since identity is asked over HTTP. Strings valid during the call. */
	struct bt_op *(*observe)(const char *name, const struct bt_service *service,
		void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
			const struct bt_err *err),
		void *arg);
	/* The same, but nothing is looked at: only `generation` is told. NULL: observe tells it. */
	struct bt_op *(*generation)(const char *name, const struct bt_service *service,
		void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
			const struct bt_err *err),
		void *arg);
	/* Called every few seconds by the agent: re-applies the last confirmed desired state when
	 * the proxy was restarted without it. Drift made by people is reported, not fought. */
	void (*tend)(void);
	/* After a boot of this host: these of its slots get no request, whatever was confirmed; an
	 * empty list takes that back. The desired state stays what it is. Where the proxy does not
	 * run it counts for its next start. BT_E_REFUSED: something else is on its way, try again.
	 */
	struct bt_op *(*hold)(const struct bt_service *service, const char *const *slots,
		size_t n_slots, bt_done_fn done, void *arg);
};
const struct bt_balancer_ops *bt_balancer_find(const struct bt_service *service); /* NULL: none */
/* Every row of the table, for init and tend; NULL past the last. */
const struct bt_balancer_ops *bt_balancer_at(size_t i);

/* ---- artifact ---------------------------------------------------------------------------- */

/* A file that comes with a release besides its artifact. */
struct bt_placed_file {
	const char *path; /* relative to the release's directory */
	const void *data;
	size_t n;
	mode_t mode;
};
struct bt_fetch_request {
	uint32_t release;
	const char *service, *version, *digest; /* sha256 hex */
	int64_t size;
	const char *file_name; /* "shop.jar" */
	bool unpack;
	bool zip;		  /* not unpacked, but it must be a zip archive: a WAR */
	const char *release_json; /* the immutable description, written beside it */
	const struct bt_placed_file *files;
	size_t n_files;
	const char *owner; /* of the files: the user that the service runs as; NULL: the agent's */
	/* Where to get it from; `open_url` gives the URL of the artifact at the server. */
	const char *url;
	const char
		*local; /* a file of this host that it is: copied, and nothing is fetched; NULL */
	int64_t keep_free_bytes;
};
/* releases/<service>/<id>/{release.json,artifact…}: fetched once (resumes a part), digest checked,
 * unpacked in a sandboxed child, placed by one rename, fsynced. done: artifact path by
 * bt_release_find. */
struct bt_op *bt_artifact_place(const struct bt_driver_env *env, const struct bt_fetch_request *rq,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg);

/* Where the artifact of a release lies once it is placed; the caller frees. */
char *bt_release_artifact(const struct bt_driver_env *env, const struct bt_fetch_request *rq);

struct bt_release_on_disk {
	uint32_t id;
	const char *version, *dir, *artifact, *release_json;
};
/* 0, or BT_E_NOTFOUND. Strings into the arena. */
int bt_release_find(const struct bt_driver_env *env, const char *service, uint32_t id,
	struct bt_arena *a, struct bt_release_on_disk *ret, struct bt_err *err);
size_t bt_release_list(const struct bt_driver_env *env, const char *service, struct bt_arena *a,
	uint32_t **ret_ids);
/* releases/<service>/current → <id>, atomically. */
int bt_release_activate(
	const struct bt_driver_env *env, const char *service, uint32_t id, struct bt_err *err);
/* Removes every release of the service but the given ones (the server names the ones to keep). */
struct bt_op *bt_release_prune(const struct bt_driver_env *env, const char *service,
	const uint32_t *keep, size_t n_keep, bt_done_fn done, void *arg);
