/* Linked before the library's own: another version, and so another program. */
#include "base/version.h"

const char bt_version[] = "99.1.0-next";
