/* One row a task kind: what it reads, records, does, undoes, and how it sees that it is done.
 * Where undo is missing, the command carries the absolute state (Switch) or there is nothing to
 * undo. Where `there` is missing, doing it again is the same as asking: the driver answers at once
 * when the state is already what was asked for. */
#include "agent/tasks.h"

const struct bt_task_row bt_task_rows[BT_TASK_KINDS] = {
	[BT_TASK_OBSERVE] = {.check = bt_task_observe_check, .go = bt_task_observe_go},
	[BT_TASK_COMPONENT_DEPLOY] =
		{
			.check = bt_task_component_check,
			.prior = bt_task_component_prior,
			.go = bt_task_component_go,
			.undo = bt_task_component_undo,
			.there = bt_task_component_there,
		},
	[BT_TASK_INSTANCE_START] =
		{
			.check = bt_task_start_check,
			.prior = bt_task_slot_prior,
			.go = bt_task_start_go,
			.undo = bt_task_start_undo,
			.there = bt_task_start_there,
		},
	[BT_TASK_INSTANCE_STOP] =
		{
			.check = bt_task_stop_check,
			.prior = bt_task_slot_prior,
			.go = bt_task_stop_go,
			.undo = bt_task_stop_undo,
			.there = bt_task_stop_there,
		},
	[BT_TASK_HEALTH_CHECK] = {.check = bt_task_health_check, .go = bt_task_health_go},
	[BT_TASK_BACKEND_CHECK] = {.check = bt_task_backend_check, .go = bt_task_backend_go},
	[BT_TASK_SWITCH] =
		{
			.check = bt_task_switch_check,
			.prior = bt_task_switch_prior,
			.go = bt_task_switch_go,
		},
	[BT_TASK_DRAIN] = {.check = bt_task_drain_check, .go = bt_task_drain_go},
	[BT_TASK_BAKE] = {.check = bt_task_bake_check, .go = bt_task_bake_go},
	[BT_TASK_ADOPT] =
		{
			.check = bt_task_adopt_check,
			.prior = bt_task_slot_prior,
			.go = bt_task_adopt_go,
			.undo = bt_task_adopt_undo,
			.there = bt_task_adopt_there,
		},
	[BT_TASK_PRUNE] = {.check = bt_task_prune_check, .go = bt_task_prune_go},
	[BT_TASK_EXEC] =
		{
			.check = bt_task_exec_check,
			.go = bt_task_exec_go,
			.lasting = true,
			.over = bt_task_exec_over,
		},
	[BT_TASK_LOOPBACK_STOP] =
		{
			.check = bt_task_loopback_check,
			.prior = bt_task_loopback_prior,
			.go = bt_task_loopback_stop,
			.undo = bt_task_loopback_undo,
			.there = bt_task_loopback_is_off,
		},
	[BT_TASK_LOOPBACK_START] =
		{
			.check = bt_task_loopback_check,
			.prior = bt_task_loopback_prior,
			.go = bt_task_loopback_start,
			.undo = bt_task_loopback_undo,
			.there = bt_task_loopback_is_on,
		},
	[BT_TASK_NOTIFY] = {.check = bt_task_notify_check, .go = bt_task_notify_go},
	[BT_TASK_LIFECYCLE] =
		{
			.check = bt_task_lifecycle_check,
			.go = bt_task_lifecycle_go,
			.lasting = true,
			.over = bt_task_lifecycle_over,
		},
	[BT_TASK_INSTALL] = {.check = bt_task_install_check, .go = bt_task_install_go},
	[BT_TASK_APPROVE] = {.check = bt_task_approve_check},
};
