/* The part of the runtime `process` for instances that others started. */
#pragma once
#include "driver/process.h"

struct bt_adopted;
struct bt_adopted *bt_adopted_find(const char *service, const char *slot); /* NULL: none */
/* From the record in dir: true when the process that it names still runs. */
bool bt_adopted_load(const char *dir, const char *service, const char *slot);
struct bt_op *bt_adopted_take(const struct bt_adopt_request *rq, bt_done_fn done, void *arg);
struct bt_op *bt_adopted_disown(const struct bt_instance_ref *ref, bt_done_fn done, void *arg);
struct bt_op *bt_adopted_stop(struct bt_adopted *i, const struct bt_service *service,
	bt_progress_fn progress, bt_done_fn done, void *arg);
/* The wait of a step without a signal is over. */
void bt_adopted_next(struct bt_adopted *i);
/* Whether the process is it, or was started by it. */
bool bt_adopted_holds(const struct bt_adopted *i, pid_t pid);
void bt_adopted_observe(
	const struct bt_adopted *i, struct bt_arena *a, struct bt_seen_instance *ret);
/* Nobody waits with that operation any more. */
void bt_adopted_leave(struct bt_adopted *i, const struct bt_process_op *op);
/* The agent's end: what was adopted runs on. */
void bt_adopted_forget_all(void);
