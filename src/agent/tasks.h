/* The functions behind the rows of the task table (tasks.c). */
#pragma once
#include "agent/job.h"

int bt_task_start_check(struct bt_job *j, struct bt_err *err);
void bt_task_slot_prior(struct bt_job *j);
void bt_task_start_go(struct bt_job *j);
void bt_task_start_undo(struct bt_job *j);
bool bt_task_start_there(struct bt_job *j);

int bt_task_stop_check(struct bt_job *j, struct bt_err *err);
void bt_task_stop_go(struct bt_job *j);
void bt_task_stop_undo(struct bt_job *j);
bool bt_task_stop_there(struct bt_job *j);

int bt_task_health_check(struct bt_job *j, struct bt_err *err);
void bt_task_health_go(struct bt_job *j);
void bt_task_bake_instance(struct bt_job *j);

int bt_task_component_check(struct bt_job *j, struct bt_err *err);
void bt_task_component_prior(struct bt_job *j);
void bt_task_component_go(struct bt_job *j);
void bt_task_component_undo(struct bt_job *j);
bool bt_task_component_there(struct bt_job *j);

int bt_task_prune_check(struct bt_job *j, struct bt_err *err);
void bt_task_prune_go(struct bt_job *j);

int bt_task_backend_check(struct bt_job *j, struct bt_err *err);
void bt_task_backend_go(struct bt_job *j);

int bt_task_switch_check(struct bt_job *j, struct bt_err *err);
void bt_task_switch_prior(struct bt_job *j);
void bt_task_switch_go(struct bt_job *j);

int bt_task_drain_check(struct bt_job *j, struct bt_err *err);
void bt_task_drain_go(struct bt_job *j);

int bt_task_bake_check(struct bt_job *j, struct bt_err *err);
void bt_task_bake_go(struct bt_job *j);

int bt_task_adopt_check(struct bt_job *j, struct bt_err *err);
void bt_task_adopt_go(struct bt_job *j);
void bt_task_adopt_undo(struct bt_job *j);
bool bt_task_adopt_there(struct bt_job *j);

int bt_task_observe_check(struct bt_job *j, struct bt_err *err);
void bt_task_observe_go(struct bt_job *j);

int bt_task_loopback_check(struct bt_job *j, struct bt_err *err);
void bt_task_loopback_prior(struct bt_job *j);
void bt_task_loopback_stop(struct bt_job *j);
void bt_task_loopback_start(struct bt_job *j);
void bt_task_loopback_undo(struct bt_job *j);
bool bt_task_loopback_is_off(struct bt_job *j);
bool bt_task_loopback_is_on(struct bt_job *j);

int bt_task_notify_check(struct bt_job *j, struct bt_err *err);
void bt_task_notify_go(struct bt_job *j);

#define BT_TASK_NAME_MAX 64
/* "7-12-1": of the program of an Exec, on this host's disk. */
const char *bt_task_exec_name(const struct bt_command_key *k, char buf[static BT_TASK_NAME_MAX]);
/* The last lines that a program wrote go into the task's log, and all of them on one line into
 * `all` (NULL: nowhere). Its very last one; NULL: it wrote none. */
const char *bt_task_keep_log(struct bt_job *j, const char *program, struct bt_str *all);
int bt_task_exec_check(struct bt_job *j, struct bt_err *err);
void bt_task_exec_go(struct bt_job *j);
void bt_task_exec_over(struct bt_job *j);
int bt_task_approve_check(struct bt_job *j, struct bt_err *err);

int bt_task_lifecycle_check(struct bt_job *j, struct bt_err *err);
void bt_task_lifecycle_go(struct bt_job *j);
void bt_task_lifecycle_over(struct bt_job *j);
int bt_task_install_check(struct bt_job *j, struct bt_err *err);
void bt_task_install_go(struct bt_job *j);
/* Whether what was placed is a bundle whose appspec holds; release_json as the command had it. */
int bt_task_bundle_placed(struct bt_job *j, const json_t *release_json, struct bt_err *err);
