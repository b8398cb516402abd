/* The runtimes' rows. */
#pragma once
#include "driver/driver.h"

extern const struct bt_runtime_ops bt_runtime_process, bt_runtime_tomcat, bt_runtime_bundle;
