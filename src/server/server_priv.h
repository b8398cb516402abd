/* What the files of this folder share. Everything here runs on the loop's thread; only store
 * transactions, hashing and file work run beside it. */
#pragma once
#include "base/json.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/str.h"
#include "config/config.h"
#include "dispatch/outbox.h"
#include "engine/engine.h"
#include "journal/store.h"
#include "model/world.h"
#include "net/http_server.h"
#include "server/server.h"

#define BT_KEY_BYTES 32
#define BT_AGENT_LOST_MS 15000	   /* without contact: the engine is told */
#define BT_GATHER_MS 15000	   /* hosts' time to say what they see */
#define BT_GATHER_FOREIGN_MS 60000 /* and to hash an artifact */
#define BT_TASK_LOG_MAX 65536	   /* of one result */
#define BT_STREAM_BEHIND 262144	   /* a reader further behind is cut off */
#define BT_CERT_DAYS 90
#define BT_TAIL_LINES 20 /* of what failed, at the end of a run */
#define BT_WHY_MAX 500	 /* what a person gives as a reason */

struct bt_svc { /* a service that was deployed at least once */
	struct bt_svc *next;
	char *name;
	json_t *config;	   /* canonical, of the last deployment */
	uint32_t live;	   /* release; 0 none */
	int64_t retire_at; /* wall; 0: nothing is kept warm */
	uint64_t token;	   /* highest fencing token handed out or reported */
	char *locked_by;   /* the admin who locked its stored config; NULL: nobody did */
};

/* Which file a name named. */
struct bt_file_mark {
	dev_t dev;
	ino_t ino;
	struct timespec changed;
};

struct bt_server {
	struct event_base *base;
	char *state_dir, *url, *agents_url;
	char **names; /* DNS names and IPs of this server */
	size_t n_names;
	int lock_fd;
	bool stopping;	    /* nothing new begins */
	bool plain;	    /* people's listener has no TLS */
	char *tls_files[2]; /* else its certificate and key, and when they were last read */
	struct bt_file_mark tls_marks[2];
	struct bt_store *store;
	struct bt_work *work;
	struct bt_http_server *people, *agents;
	unsigned char key[BT_KEY_BYTES];
	int64_t next_cursor, next_deployment, next_release;
	int64_t started_boot_ms;
	struct bt_svc *services;
	struct bt_release *fresh;	     /* releases.c */
	struct bt_host *hosts;		     /* hosts.c */
	struct bt_ask *asks;		     /* asks.c */
	struct bt_running *runs;	     /* runner.c */
	struct bt_wish *wishes;		     /* planning.c */
	struct bt_unsettled *unsettled;	     /* restored.c */
	struct bt_upgrade_run *upgrades;     /* upgrades.c */
	struct bt_binary *binaries;	     /* that were offered */
	struct bt_fresh *fresh_waits;	     /* fresh.c */
	struct bt_task_waiter *task_waiters; /* api_tasks.c */
	struct bt_reading *readings;	     /* api_logs.c */
	struct bt_sub *subs;		     /* stream.c */
	struct bt_upload *uploads;	     /* api_artifacts.c */
	struct bt_gate *gate;		     /* gate.c */
	struct bt_login *logins;	     /* api_session.c */
	struct bt_metric_task *metrics;	     /* metrics.c */
	struct event *tick;		     /* housekeeping.c */
	int64_t n_ticks, n_records;
	int64_t keep_runs, keep_for_ms; /* retention.c */
	size_t prune_at;
	bool pruning, more_to_prune;
	int n_starting; /* runs whose first transaction is on its way */
};

/* server.c */
char *bt_server_path(const struct bt_server *s, const char *name); /* state_dir/name */
/* Writes state_dir/path, with the directory it needs, beside the loop; takes over the text. */
void bt_server_write_later(struct bt_server *s, const char *path, char *text);
/* The same, and done(arg) on the loop when it is there; not called once the server stops. */
void bt_server_write_then(
	struct bt_server *s, const char *path, char *text, void (*done)(void *arg), void *arg);
struct bt_svc *bt_server_service(struct bt_server *s, const char *name); /* NULL: unknown */
struct bt_svc *bt_server_service_add(struct bt_server *s, const char *name);
/* Who did what: kept for `baton audit`. All but who and what may be NULL. */
struct bt_audit {
	const char *who, *from; /* token or host; its address */
	const char *service;
	const char *what, *detail;
};
void bt_server_audit(struct bt_txn *t, const struct bt_audit *a);

int bt_server_lock(const char *dir, int *ret_fd, struct bt_err *err);

/* upgrades.c */
struct bt_host;
void bt_upgrades_hello(struct bt_server *s, struct bt_host *h, const json_t *hello);
void bt_upgrades_free(struct bt_server *s);

/* restored.c: the store came from a backup. begin: before runs are taken over. */
int bt_restored_begin(struct bt_server *s, struct bt_err *err);
void bt_restored_tick(struct bt_server *s);
void bt_restored_free(struct bt_server *s);
int64_t bt_restored_floor(struct bt_server *s, const char *key); /* where numbers go on; 0 */
/* Within the life of a certificate since then: one may have been signed after the backup. */
bool bt_restored_lately(struct bt_server *s);

/* secrets.c: values for run.secrets, AES-256-GCM under the key file. */
int bt_secrets_make_key(const char *path, struct bt_err *err);
int bt_secrets_load_key(const char *path, unsigned char key[BT_KEY_BYTES], struct bt_err *err);
/* The caller frees *ret. nonce ‖ ciphertext ‖ tag. */
int bt_secrets_seal(const unsigned char *key, const char *text, unsigned char **ret, size_t *ret_n,
	struct bt_err *err);
/* BT_E_CORRUPT when it was not sealed with this key. */
int bt_secrets_open(const unsigned char *key, const char *hex, char **ret_text, struct bt_err *err);
/* The same of a JSON text; a new reference. */
int bt_secrets_open_json(
	const unsigned char *key, const char *hex, json_t **ret, struct bt_err *err);

/* releases.c */
struct bt_release {
	uint32_t id;
	char *service, *version, *digest, *file_name, *state;
	char *marked_by, *marked_why; /* who said good or bad; NULL: nobody did */
	int64_t size, pruned_at;      /* pruned: its artifact was removed; 0: it was not */
	json_t *config;		      /* canonical service */
	char *sealed;		      /* secrets, hex; NULL: none */
	struct bt_release *next;
};
int bt_release_load(struct bt_server *s, uint32_t id, struct bt_release **ret, struct bt_err *err);
struct bt_release *bt_release_free(struct bt_release *r);
/* One whose row is still on its way to the store is known from here. */
void bt_release_remember(struct bt_server *s, const struct bt_release *r);
/* Fills in what is adopted: the artifact that all places of the plan run; an empty digest where it
 * is not known, or is not the same everywhere. */
struct bt_plan;
void bt_release_adopted(struct bt_release *r, const struct bt_plan *p, const struct bt_world *w);
/* name → value of its secrets; a new reference; an empty object where it has none. */
int bt_release_secrets(
	struct bt_server *s, const struct bt_release *r, json_t **ret, struct bt_err *err);
/* "to" → base64 of its files; a new reference; NULL where it has none. Not part of a loaded
 * release, since few who load one need them. */
int bt_release_files(struct bt_server *s, uint32_t id, json_t **ret, struct bt_err *err);
/* The release of a service by number or version; 0: none. */
uint32_t bt_release_find_text(struct bt_server *s, const char *service, const char *text);
/* Where a rollback without a name goes: what was live before `live`, else the newest other good
 * one; 0: nowhere. */
uint32_t bt_release_previous(struct bt_server *s, const char *service, uint32_t live);
/* BT_E_REFUSED where the state is bad: who said so, and what to do. */
int bt_release_bad(
	const char *what, const char *state, const char *by, const char *why, struct bt_err *err);
/* id → version, digest of every release of the service, into the arena. */
size_t bt_release_known(
	struct bt_server *s, const char *service, struct bt_arena *a, struct bt_plan_release **ret);

/* configs.c: the config of a service that is stored here: the newest that was applied, or that came
 * with a run that ended well. */
struct bt_stored {
	int64_t version, at;
	json_t *config; /* canonical */
	json_t *files;	/* "to" → base64; NULL: it has none */
	char *hash, *who, *why;
};
/* The newest, or one version (0: the newest); BT_E_NOTFOUND. */
int bt_stored_load(struct bt_server *s, const char *service, int64_t version, struct bt_stored *ret,
	struct bt_err *err);
void bt_stored_done(struct bt_stored *c);
/* Adds a version to the transaction, unless it is what is stored. Returns the statement's number:
 * its value is the new version, 0 where nothing changed. */
int bt_stored_put(struct bt_server *s, struct bt_txn *t, const struct bt_service *service,
	const json_t *files, const char *who, const char *why, size_t *ret_op, struct bt_err *err);
/* What a release was made of, once it serves. */
void bt_stored_put_release(struct bt_server *s, struct bt_txn *t, const json_t *config,
	uint32_t release, const char *who, const char *why);
/* Where the stored config is locked, others than admins may change only what a release is anyway:
 * artifact, run.env, contents of files. BT_E_REFUSED names the first key that differs. */
int bt_stored_allows(
	struct bt_server *s, const struct bt_service *service, bool admin, struct bt_err *err);

/* api.c */
extern const struct bt_route_row bt_people_routes[];
extern const size_t bt_people_routes_n;
extern const struct bt_route_row bt_agent_routes[];
extern const size_t bt_agent_routes_n;
/* The body as a JSON object; answers 400 itself and returns NULL when it is none. */
json_t *bt_api_body(struct bt_http_exchange *x);
void bt_api_error(struct bt_http_exchange *x, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int64_t bt_api_query_int(const struct bt_http_exchange *x, const char *name, int64_t min,
	int64_t max, int64_t otherwise);
void bt_api_set_time(json_t *o, const char *key, int64_t wall_ms);

/* housekeeping.c */
int bt_housekeeping_start(struct bt_server *s, struct bt_err *err);
/* retention.c */
void bt_retention_tick(struct bt_server *s); /* a bounded step; each second */
void bt_retention_hourly(struct bt_server *s);
/* Removes artifacts (rows with a digest) and says so of their releases. */
void bt_retention_drop(struct bt_server *s, struct bt_txn *t, const json_t *rows);
/* metrics.c */
void bt_metrics_task(struct bt_server *s, const char *task, int64_t ms, bool drain);
void bt_metrics_free(struct bt_server *s);
void bt_metrics_print(struct bt_server *s, struct bt_str *out);
