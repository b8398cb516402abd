#include "base/version.h"

const char bt_version[] = BATON_VERSION;
