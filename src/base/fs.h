/* Files that survive: write aside, fsync, rename, fsync the directory.
 * Paths are absolute or relative to the working directory; errors name the path. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include <stdint.h>
#include <sys/types.h>

/* The whole file, at most max bytes (BT_E_REFUSED when larger). NUL added after *ret_len bytes;
 * the caller frees. ret_len may be NULL. -ENOENT is forwarded with text set. */
int bt_fs_read(const char *path, size_t max, char **ret_data, size_t *ret_len, struct bt_err *err);
/* Replaces path as a whole or not at all, durably: path.tmp.<pid>.<n>, fsync, rename, fsync dir. */
int bt_fs_write_atomic(
	const char *path, const void *data, size_t n, mode_t mode, struct bt_err *err);
/* The same, but a regular file of ours that is already so, mode included, is left as it is. */
int bt_fs_write_if_changed(
	const char *path, const void *data, size_t n, mode_t mode, struct bt_err *err);
/* What a crash in the middle of that left beside path; whoever calls sees that nobody writes it
 * now. */
void bt_fs_remove_aside(const char *path);
int bt_fs_fsync_dir(const char *dir, struct bt_err *err);     /* the directory itself */
int bt_fs_fsync_parent(const char *path, struct bt_err *err); /* the directory that holds path */
int bt_fs_mkdirs(
	const char *path, mode_t mode, struct bt_err *err); /* mkdir -p, fsyncs parents made */
/* Atomically make `link` a symbolic link to target (rename over), and fsync its directory. */
int bt_fs_symlink_atomic(const char *target, const char *link, struct bt_err *err);
/* The file, durably; absent is fine. */
int bt_fs_remove(const char *path, struct bt_err *err);
/* rm -rf without following links or leaving the file system; absent is fine. */
int bt_fs_remove_tree(const char *path, struct bt_err *err);
int bt_fs_free_bytes(const char *path, int64_t *ret_bytes, struct bt_err *err);
bool bt_fs_exists(const char *path);
/* write(2) until done; -errno. */
int bt_fs_write_all(int fd, const void *data, size_t n);
/* Exclusive flock on path (created 0600). 0 with *ret_fd (O_CLOEXEC), or BT_E_REFUSED when held. */
int bt_fs_lock(const char *path, int *ret_fd, struct bt_err *err);
/* SHA-256 of a file, lower-case hex into ret_hex[65], and its size; reads to the end: blocks. */
int bt_fs_sha256(const char *path, char ret_hex[static 65], int64_t *ret_size, struct bt_err *err);
