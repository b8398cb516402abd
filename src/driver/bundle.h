/* CodeDeploy bundles on a host: what was installed last, and the installing.
 *
 *   bundles/<service>/state.json   the last revision that was installed whole, for each slot, and
 *                                  whether its ApplicationStart succeeded since
 *   bundles/<service>/cleanup      what its files are: the next install removes them first
 *   bundles/<service>/lock         held while one installs */
#pragma once
#include "config/appspec.h"
#include "driver/driver.h"

struct bt_bundle_last {
	const char *slot;
	uint32_t release;
	const char *version;
	int64_t at_wall_ms;
	bool started;	/* since then: what runs is that one */
	bool cut_short; /* an install of another one for the slot has begun and not ended */
};
struct bt_bundle_state {
	uint32_t installing; /* an install that has not ended: what is there is of both; 0: none */
	const struct bt_bundle_last *last;
	size_t n_last;
};
/* Strings into the arena. Nothing installed yet: all zero. */
int bt_bundle_state_read(const char *state_dir, const char *service, struct bt_arena *a,
	struct bt_bundle_state *ret, struct bt_err *err);
/* What is installed for these slots has been started. Blocks. */
int bt_bundle_started(const char *state_dir, const char *service, const char *const *slots,
	size_t n_slots, struct bt_err *err);
/* The slot's last one; NULL: none. */
const struct bt_bundle_last *bt_bundle_last(const struct bt_bundle_state *s, const char *slot);

/* The appspec of an unpacked revision: under the asked name (may be NULL), then the usual ones.
 * BT_E_NOTFOUND names them; BT_E_CONFIG has every problem in *problems. Blocks. */
int bt_bundle_appspec(const char *revision, const char *asked, struct bt_appspec **ret,
	struct bt_config_problems *problems, struct bt_err *err);
/* That every file and script it names is in the revision. Blocks. */
int bt_bundle_check(const char *revision, const struct bt_appspec *a, struct bt_err *err);

struct bt_bundle_request { /* copied */
	const char *service, *version;
	uint32_t release;
	const char *revision;	  /* the unpacked directory */
	const char *appspec;	  /* the asked name; NULL */
	const char *const *slots; /* whose last revision it becomes */
	size_t n_slots;
	/* Whether the owner of the host lets a file be put there; must outlive the operation. */
	bool set_id; /* … and lets it be a set-user-id or set-group-id program */
	int (*allowed)(const void *arg, const char *path, struct bt_err *err);
	const void *arg;
};
struct bt_bundle_done {
	size_t files, directories, retained, removed;
};
/* Removes what the last install put there, copies the files, sets permissions, and records the
 * revision as the last one. Everything that can be refused is, before anything is changed. A repeat
 * finishes what a crash cut short: the clean-up list names new and old files before the first is
 * touched. */
struct bt_op *bt_bundle_install(const struct bt_driver_env *env, const struct bt_bundle_request *rq,
	void (*done)(
		void *arg, int result, const struct bt_bundle_done *what, const struct bt_err *err),
	void *arg);
