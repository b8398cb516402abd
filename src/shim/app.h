/* The app: one process with everything that it started. */
#pragma once
#include "shim/log.h"
#include "shim/spec.h"
#include <stdbool.h>
#include <sys/types.h>

struct bt_app {
	pid_t pid; /* 0: none */
	int64_t start_ticks;
	bool child;	  /* this shim's own; else adopted */
	int pidfd;	  /* adopted: its end is told here; -1 */
	bool ended;	  /* the process has ended; its group may not have */
	int code, signal; /* once ended: exit code or signal; -1, 0 unknown */
	/* Strays (outside of the group) that got the signal of the current step. */
	pid_t told[64];
	size_t n_told;
};

/* Forks; the child waits before its exec for bt_app_go, so that its pid can be made durable. */
struct bt_app_launch {
	int go, failed; /* pipes */
};
int bt_app_fork(const struct bt_shim_spec *spec, const struct bt_shim_log *log, struct bt_app *app,
	struct bt_app_launch *launch);
/* Lets it exec. 0 once the exec happened; else -errno with the step that failed in why, and the
 * child is reaped. */
int bt_app_go(struct bt_app *app, struct bt_app_launch *launch, const struct bt_shim_spec *spec,
	char *why, size_t why_n);
int bt_app_adopt(struct bt_app *app, pid_t pid, int64_t start_ticks, const char *boot_id);

/* Reaps what ended, except the app's own process, which stays as a zombie until bt_app_reap: while
 * it does, nobody else can have its pid or its group's number. true when the app has just ended. */
bool bt_app_collect(struct bt_app *app);
/* Sends sig to the group and to every stray that has not got it since bt_app_new_step. */
void bt_app_signal(struct bt_app *app, const struct bt_shim_spec *spec, int sig);
void bt_app_new_step(struct bt_app *app);
/* To the group alone; and whether anything of it is left besides the app's own process. */
void bt_app_signal_group(struct bt_app *app, int sig);
bool bt_app_group_left(const struct bt_app *app);
/* Whether a process that began with the app or later can still write to the file; its name. */
bool bt_app_writes(const struct bt_app *app, int fd, char *name, size_t n);
/* Whether the app or anything that it started is still there; NULL, or one of them in name. */
bool bt_app_left(const struct bt_app *app, const struct bt_shim_spec *spec, char *name, size_t n);
void bt_app_reap(struct bt_app *app); /* forgets the app; only when nothing is left */
/* SIGKILL to what an earlier run of the instance left behind. */
void bt_app_kill_leftovers(const struct bt_shim_spec *spec);
