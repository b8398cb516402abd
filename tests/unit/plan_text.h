/* Plans that tests write as JSON, with ' for ". */
#pragma once
#include "model/plan.h"

struct bt_plan *plan_of_text(const char *text); /* the caller frees */
