/* What the unpacking child gives up before it reads the first byte of an archive. */
#pragma once
#include <stdint.h>

/* From here on: writing beneath dir_fd only, no other file opened, no program run, no socket, no
 * process touched; CPU, memory and file size bounded. 0, or -errno with *what. Landlock where the
 * kernel has it, else chroot into the directory where permitted; *confined says whether. */
int bt_unpack_confine(int dir_fd, int64_t max_file_bytes, int *ret_confined, const char **what);
