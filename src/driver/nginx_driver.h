#pragma once
#include "driver/driver.h"

extern const struct bt_balancer_ops bt_balancer_nginx;
