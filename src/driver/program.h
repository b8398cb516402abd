/* A program that runs once, to its end, whatever happens to the agent: a shim watches it, keeps its
 * time limit and writes down how it ended. tasks/<name>/ is its directory, tasks/<name>.log what it
 * wrote. */
#pragma once
#include "driver/driver.h"

struct bt_program_end {
	bool seen;  /* false: nobody saw how it ended */
	bool began; /* false: it could not be started */
	bool late;  /* it was ended because its time was over */
	/* It ended well, or with `leave`, and who would not let go of its output until then; NULL
	 */
	const char *held;
	int code;	  /* exit code, -1 where a signal ended it */
	const char *text; /* one line; valid during the call */
};
typedef void (*bt_program_fn)(void *arg, const struct bt_program_end *end);

/* Where a program of that name was begun before, its end is waited for, and rq counts for nothing:
 * it is never started twice. `output` gets each line that it writes, while it runs; may be NULL.
 * Cancelling leaves it running. */
struct bt_op *bt_program_run(const struct bt_driver_env *env, const char *name,
	const struct bt_start_request *rq, int64_t limit_ms, bt_progress_fn output,
	bt_program_fn done, void *arg);
/* Its log file; buf of at least 4096 bytes is enough. */
void bt_program_log(const struct bt_driver_env *env, const char *name, char *buf, size_t n);
/* Removes what it left on the disk, once it has ended. */
void bt_program_forget(const struct bt_driver_env *env, const char *name);
/* The same for every program that has ended and that `keep` does not know. */
void bt_program_sweep(
	const struct bt_driver_env *env, bool (*keep)(void *arg, const char *name), void *arg);
