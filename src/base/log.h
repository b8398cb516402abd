/* Log lines of server, agent and cli (no other layer logs). One line on stderr:
 *     2026-11-21T06:39:02.123Z info  deployment=17 task=4 host=was1 nginx reloaded
 * Under systemd (JOURNAL_STREAM) the time is left out and <N> priorities are put in.
 * The context belongs to the caller's object, so a line never guesses whom it speaks of. */
#pragma once
#include <stdarg.h>

enum bt_log_level { BT_LOG_INFO, BT_LOG_WARN, BT_LOG_ERROR };

struct bt_log {
	char context[160]; /* "deployment=17 host=was1 "; empty is fine */
};

/* log may be NULL: no context. */
void bt_log(const struct bt_log *log, enum bt_log_level level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
