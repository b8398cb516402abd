/* Inside of the nginx driver, shared by its files: one *unit* is one nginx (a master with its
 * configuration), one *site* is one service behind it. Everything here runs on the loop. */
#pragma once
#include "driver/nginx_conf.h"
#include "driver/nginx_proc.h"
#include "driver/nginx_state.h"
#include "driver/op.h"
#include "net/http_client.h"

struct bt_nginx_batch;
struct bt_nginx_apply;

struct bt_nginx_unit {
	struct bt_nginx_unit *next;
	char *binary, *config, *prefix; /* config, prefix: NULL for nginx's own */
	bool managed;
	char *version_output; /* of `nginx -V`; NULL: not asked yet */
	bool facts_known;
	struct bt_nginx_facts facts;
	struct bt_nginx_apply *queue;	/* waiting, in order */
	struct bt_nginx_batch *running; /* NULL: idle */
	struct event *kick;
};

struct bt_nginx_known { /* what a worker's configuration has in rotation: ",127.0.0.1:8081," */
	struct bt_nginx_proc proc;
	char *in;
};

struct bt_nginx_site {
	struct bt_nginx_site *next;
	struct bt_nginx_unit *unit;
	char *service, *dir, *state_path; /* dir: <state>/balancers/<service> */
	struct bt_nginx_state *state;	  /* as on disk; NULL: never applied */
	struct bt_nginx_known *known;	  /* workers; see nginx_known.c */
	size_t n_known;
	char *trouble; /* of the last attempt to bring it back; NULL */
	char *certificate_trouble, *certificate_tried; /* what of the files on disk failed */
};

struct bt_nginx_driver {
	const struct bt_driver_env *env;
	struct bt_nginx_unit *units;
	struct bt_nginx_site *sites;
};
/* The driver table has no object, so there is one of these a process. */
struct bt_nginx_driver *bt_nginx_driver(void);

struct bt_nginx_unit *bt_nginx_unit_get(
	const char *binary, const char *config, const char *prefix, bool managed);
struct bt_nginx_site *bt_nginx_site_get(const char *service);
/* The unit of a service by its config; makes site and unit where they are new. */
struct bt_nginx_site *bt_nginx_site_of(const struct bt_service *service);
/* The file that baton owns. Caller frees. */
char *bt_nginx_file_of(const struct bt_nginx_site *site, const struct bt_nginx *n);
void bt_nginx_set_trouble(struct bt_nginx_site *site, const char *text);
bool bt_nginx_recovering(const struct bt_nginx_unit *u);

/* nginx_known.c: looks which workers have which configuration; cheap. */
void bt_nginx_learn(struct bt_nginx_unit *u);
/* Workers that are known to send nothing to these instances. Caller frees *ret. */
size_t bt_nginx_strangers(const struct bt_nginx_site *site, const struct bt_nginx_peer *peers,
	size_t n, struct bt_nginx_proc **ret);

/* `nginx -V` (once) and `nginx -T`: is the configuration good, and where are pid file and error
 * log? done gets the dump (NULL on failure; err then has nginx's own words). */
struct bt_nginx_test;
typedef void (*bt_nginx_test_fn)(void *arg, int result, const char *dump, const struct bt_err *err);
struct bt_nginx_test *bt_nginx_test_start(
	struct bt_nginx_unit *u, bt_nginx_test_fn done, void *arg);
struct bt_nginx_test *bt_nginx_test_cancel(struct bt_nginx_test *t);
/* "nginx -p … -c …" and more words, NULL-terminated, in argv[12]. */
void bt_nginx_argv(const struct bt_nginx_unit *u, const char *extra, const char *argv[static 12]);

/* Queues; see nginx_apply.c. */
struct bt_op *bt_nginx_apply_begin(const struct bt_pool *pool, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg);
void bt_nginx_recover_begin(struct bt_nginx_site *site);
/* nginx_hold.c */
struct bt_op *bt_nginx_hold_begin(const struct bt_service *service, const char *const *slots,
	size_t n_slots, bt_done_fn done, void *arg);
void bt_nginx_restart_begin(struct bt_nginx_site *site);
void bt_nginx_certificate_begin(struct bt_nginx_site *site);

/* nginx_certificate.c */
/* Begins a reload when the files are others than those that were loaded. */
void bt_nginx_certificate_look(struct bt_nginx_site *site);
/* After every batch; `own`: it was one that this began. */
void bt_nginx_certificate_ended(
	struct bt_nginx_site *site, bool own, int result, const struct bt_err *err);

struct bt_op *bt_nginx_drain_begin(const struct bt_drain_request *rq, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg);
struct bt_op *bt_nginx_watch_begin(const char *name, const struct bt_service *service,
	int64_t bake_ms, bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg);
struct bt_op *bt_nginx_observe_begin(const char *name, const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
		const struct bt_err *err),
	void *arg);

/* Tests stop the process after each durable step: "state", "file", "tested", "reloaded",
 * "workers", "answered", "restored", "committed". Called from any thread. NULL: nothing. */
extern void (*bt_nginx_step_hook)(const char *step);
