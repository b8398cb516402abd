/* The few parts of POSIX tar (ustar) that a backup needs: plain files with short names, in order.
 * Any tar program reads it; what is read back must be of exactly this form. */
#pragma once
#include "base/err.h"
#include <stdint.h>

#define BT_TAR_NAME_MAX 99

/* The head of a file of size bytes; its bytes follow by the caller, then bt_tar_pad. */
int bt_tar_head(int fd, const char *name, int64_t size, int64_t mtime_s, struct bt_err *err);
int bt_tar_pad(int fd, int64_t size, struct bt_err *err);
int bt_tar_end(int fd, struct bt_err *err);
/* The next head: 1; 0 at the end; BT_E_CORRUPT where it is neither (cut short, another format). */
int bt_tar_next(
	int fd, char name[static BT_TAR_NAME_MAX + 1], int64_t *ret_size, struct bt_err *err);
int bt_tar_skip_pad(int fd, int64_t size, struct bt_err *err);
