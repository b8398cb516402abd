/* The app's log: a file the app itself appends to, so it survives the shim; and its rotation. */
#pragma once
#include <stdint.h>

struct bt_shim_log {
	char path[4000];
	int64_t max_bytes; /* 0: never rotated */
	int64_t keep;	   /* rotated files kept: path.1 (newest) … path.N */
	int fd;		   /* O_APPEND, for the app's stdout and stderr */
	int rotate_fd;	   /* the same file, opened apart: carries the flock of a rotation */
};
int bt_shim_log_open(struct bt_shim_log *log, const char *path, int64_t max_bytes, int64_t keep);
/* Rotates when the file has grown past max_bytes. 0, 1 when it rotated, or -errno. */
int bt_shim_log_check(struct bt_shim_log *log);
/* One line of the shim's own, with the time in front. */
void bt_shim_log_line(struct bt_shim_log *log, const char *text);
