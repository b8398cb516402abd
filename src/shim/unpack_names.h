/* Names in archives come from outside: which of them may be made in the release's directory.
 * Pure: the same checks are fuzzed (tests/fuzz/fuzz_unpack_names.c). */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define BT_UNPACK_PATH_MAX 1024
#define BT_UNPACK_DEPTH_MAX 64

/* Copies the entry's path into buf in its plain form ("./a//b/" → "a/b"). NULL and buf filled, or
 * why it is refused. The root itself ("./") gives "". */
const char *bt_unpack_path(const char *name, char buf[static BT_UNPACK_PATH_MAX]);
/* Whether a symbolic link at `path` (plain) may have this target: NULL, or why not. Only targets
 * whose ".." all come first and do not climb past the root are taken: then no chain of links can
 * leave the tree, whatever the links on the way point to. */
const char *bt_unpack_link(const char *path, const char *target);
