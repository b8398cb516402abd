#include "agent/exec.h"

const struct bt_drivers *bt_drivers_real(void)
{
	static const struct bt_drivers real = {
		.runtime = bt_runtime_find,
		.balancer = bt_balancer_find,
		.health_wait = bt_health_wait,
		.health_watch = bt_health_watch,
		.identity_ask = bt_identity_ask,
		.foreign_examine = bt_foreign_examine,
		.artifact_place = bt_artifact_place,
		.release_find = bt_release_find,
		.release_list = bt_release_list,
		.release_activate = bt_release_activate,
		.release_prune = bt_release_prune,
		.loopback_see = bt_loopback_see,
		.loopback_put = bt_loopback_put,
		.loopback_take = bt_loopback_take,
		.notify_send = bt_notify_send,
		.program_run = bt_program_run,
	};
	return &real;
}
