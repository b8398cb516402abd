/* The agent takes its server's program over, the apps untouched under their shims:
 *
 *     policy ─▶ nobody else's file ─▶ fetched beside its own, checked ─▶ the loop ends ─▶
 *     trial: the new program runs as the agent, from aside, until it has said hello ─▶
 *     renamed into place ─▶ this process becomes it
 *
 * Until the trial has succeeded nothing is in place, so a program that does not come up, or a power
 * cut, leaves the old one. Off unless the host's policy says `upgrade: true`. */
#pragma once
#include "agent/exec.h"

#define BT_UPGRADE_FILES 3

struct bt_upgrade;
struct bt_upgrade_env {
	const struct bt_exec_env *exec;
	const char *server_url, *self_path, *shim_path;
	bool replaceable; /* this process is an agent of its own; false: part of `baton up` */
	bool in_trial;
};
/* offer: {"version","files":[{"name","sha256","size"}]}. done(0): bt_upgrade_take what it left and
 * end the loop. Never called from inside; it may free the upgrade. */
struct bt_upgrade *bt_upgrade_start(
	const struct bt_upgrade_env *env, const json_t *offer, bt_done_fn done, void *arg);
struct bt_upgrade *bt_upgrade_free(struct bt_upgrade *u); /* removes what is aside */

/* With the agent gone: trial, then exec of the new program; of the old one where that fails. Only
 * returns when neither can be executed. */
void bt_upgrade_finish(struct bt_upgrade *u);

/* What a process that was started by this finds in its environment; read once, at the start. */
struct bt_upgrade_start {
	int trial_fd;	    /* -1: no trial; else says "ok" there after hello */
	const char *failed; /* why the old one is back; NULL */
};
const struct bt_upgrade_start *bt_upgrade_started(void);
void bt_upgrade_came_up(void); /* hello was answered */
