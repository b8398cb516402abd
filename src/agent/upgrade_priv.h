/* What the trial needs of the files that were fetched. */
#pragma once
#include "agent/upgrade.h"

const char *bt_upgrade_self(const struct bt_upgrade *u); /* in place */
const char *bt_upgrade_new(const struct bt_upgrade *u);	 /* aside */
int bt_upgrade_into_place(struct bt_upgrade *u, struct bt_err *err);
/* Before the loop is gone. */
void bt_upgrade_leave_loop(struct bt_upgrade *u);
