/* Reading instances' logs, over rotations (shim/log.c): the last lines, and what comes after. */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include <event2/event.h>
#include <stdbool.h>

#define BT_LOG_TAIL_MAX (256u << 10)

/* Appends the last n lines of path, with those of path.1, path.2 … where it has fewer; at most
 * BT_LOG_TAIL_MAX bytes, whole lines (a longer last line is cut at its front). An absent log is
 * empty. */
int bt_log_tail_last(const char *path, size_t n_lines, struct bt_str *out, struct bt_err *err);

/* Follows the log: calls on_data first with its last n lines (before it returns), then with pieces
 * of at most 64 KiB of what is appended, also over rotations, nothing twice and nothing missing.
 * false ends it (no further call; free it as usual, not from within on_data). Its directory must
 * exist, the log may come later. */
struct bt_log_follow;
int bt_log_follow_start(struct event_base *base, const char *path, size_t n_lines,
	bool (*on_data)(void *arg, const char *data, size_t n), void *arg,
	struct bt_log_follow **ret, struct bt_err *err);
struct bt_log_follow *bt_log_follow_free(struct bt_log_follow *f); /* NULL is fine; returns NULL */
