/* Whether a file is a whole zip archive, as a WAR must be. */
#pragma once
#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

/* Reads the end of the file and one entry's header, and unpacks nothing. BT_E_CORRUPT says why it
 * is none. Blocks. */
int bt_zip_check(const char *path, struct bt_err *err);
/* The same of what lies at an open descriptor. */
int bt_zip_check_fd(int fd, struct bt_err *err);
