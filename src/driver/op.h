/* How a driver makes an operation that can be cancelled: embed struct bt_op first. */
#pragma once
#include "driver/driver.h"

struct bt_op {
	void (*cancel)(struct bt_op *op); /* stops everything and frees op */
};
