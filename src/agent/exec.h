/* The executor: takes commands from the link, keeps the ledger's rule, runs tasks by the drivers.
 *
 *     offer ─▶ ACCEPTED durable ─▶ check (params, host policy) ─▶ prior state ─▶ BEGUN durable
 *           ─▶ effect (do / undo) ─▶ log kept, DONE durable ─▶ on_result: the link posts it
 *
 * Tasks of different (deployment, task) run side by side; a newer attempt or the undo of a task
 * waits until the older one has ended, and ends it where its kind may be repeated safely. */
#pragma once
#include "agent/known.h"
#include "agent/ledger_file.h"
#include "agent/policy.h"
#include "agent/redact.h"
#include "driver/driver.h"
#include "driver/foreign.h"
#include "driver/loopback.h"
#include "driver/notify.h"
#include "driver/program.h"
#include <jansson.h>

/* The drivers' entry points as one table, so that a test can put fakes in. */
struct bt_drivers {
	const struct bt_runtime_ops *(*runtime)(enum bt_runtime kind);
	const struct bt_balancer_ops *(*balancer)(const struct bt_service *service);
	struct bt_op *(*health_wait)(const struct bt_driver_env *, const struct bt_health_target *,
		bt_progress_fn, void *, bt_done_fn, void *);
	struct bt_op *(*health_watch)(const struct bt_driver_env *, const struct bt_health_target *,
		int64_t, bt_progress_fn, void *, bt_done_fn, void *);
	struct bt_op *(*identity_ask)(const struct bt_driver_env *, const char *, const char *,
		void (*)(void *, int, const char *, const struct bt_err *), void *);
	struct bt_op *(*artifact_place)(const struct bt_driver_env *,
		const struct bt_fetch_request *, bt_progress_fn, void *, bt_done_fn, void *);
	int (*release_find)(const struct bt_driver_env *, const char *, uint32_t, struct bt_arena *,
		struct bt_release_on_disk *, struct bt_err *);
	struct bt_op *(*foreign_examine)(const struct bt_driver_env *, uint16_t,
		const struct bt_service *,
		void (*)(void *, int, const struct bt_foreign *, const struct bt_err *), void *);
	size_t (*release_list)(
		const struct bt_driver_env *, const char *, struct bt_arena *, uint32_t **);
	int (*release_activate)(
		const struct bt_driver_env *, const char *, uint32_t, struct bt_err *);
	struct bt_op *(*release_prune)(const struct bt_driver_env *, const char *, const uint32_t *,
		size_t, bt_done_fn, void *);
	int (*loopback_see)(const struct bt_loopback *, struct bt_arena *, struct bt_seen_vip **,
		struct bt_err *);
	int (*loopback_put)(const struct bt_loopback *, struct bt_err *);
	int (*loopback_take)(const struct bt_loopback *, struct bt_err *);
	struct bt_op *(*notify_send)(
		const struct bt_driver_env *, const struct bt_notify_post *, bt_done_fn, void *);
	struct bt_op *(*program_run)(const struct bt_driver_env *, const char *,
		const struct bt_start_request *, int64_t, bt_progress_fn, bt_program_fn, void *);
};
const struct bt_drivers *bt_drivers_real(void);

struct bt_boot;
struct bt_exec_env {
	const struct bt_driver_env *driver; /* borrowed, like all below */
	const struct bt_drivers *drivers;
	const struct bt_policy *policy;
	struct bt_ledger_file *ledger;
	struct bt_known *known;
	struct bt_redact *redact;
	struct bt_boot *boot; /* boot.h; NULL: nothing is held */
	const char *agent_version, *address;
	const char *artifact_url; /* base: the digest is appended */
	int64_t keep_free_bytes;
	/* A command's ACCEPTED is durable, or it needs none: the cursor may pass seq. */
	void (*on_accepted)(void *arg, uint64_t seq);
	/* Its DONE is durable (or a repeat of it came): post it. */
	void (*on_result)(void *arg, const struct bt_command_key *key);
	/* Nothing was done and nothing written: post this. Borrowed during the call. */
	void (*on_refused)(void *arg, const struct bt_result *result);
	void (*on_progress)(void *arg, const struct bt_command_key *key, const char *line);
	void (*on_changed)(void *arg); /* the world changed: worth an observation */
	void *arg;
};

struct bt_exec;
struct bt_exec *bt_exec_new(const struct bt_exec_env *env);
/* Ends what runs without a trace, as a crash would. NULL is fine; returns NULL. */
struct bt_exec *bt_exec_free(struct bt_exec *x);
/* One command as it came; the next one may come when on_accepted was called for it (perhaps before
 * this returns), so that each meets a ledger that knows the ones before. Not called where this
 * returns BT_E_PROTOCOL: it has no key that could be answered, and err says what is wrong with it.
 */
int bt_exec_command(struct bt_exec *x, const json_t *command, struct bt_err *err);
/* After a start: goes on with what the ledger holds open. Returns how many. */
size_t bt_exec_recover(struct bt_exec *x);
size_t bt_exec_running(const struct bt_exec *x);
size_t bt_exec_busy(const struct bt_exec *x); /* those that change something */
/* {"log":…,"observation":…} kept for a result; NULL where none is. The caller decrefs. */
json_t *bt_exec_extras(const struct bt_exec *x, const struct bt_command_key *key);
void bt_exec_forget_extras(const struct bt_exec *x, const struct bt_command_key *key);
