/* Tasks by themselves: the run of one, and who waits for its end. */
#pragma once
#include "server/server_priv.h"

#define BT_TASK_WAIT_MAX_MS 600000

struct bt_http_exchange;
/* Answers 202 with the run's number, or, with a wait, its end as soon as it comes (200); 202 again
 * where it has not come in time. Takes the exchange over. */
void bt_tasks_answer(struct bt_server *s, struct bt_http_exchange *x, uint64_t id, int64_t wait_ms);
void bt_tasks_ended(struct bt_server *s, uint64_t id); /* its `end` was published */
void bt_tasks_free(struct bt_server *s);
