/* Windows of a calendar: hours of a day, a stretch of a week, or from one date to another, on a
 * clock that is `zone` minutes ahead of UTC. Pure: the time comes from whoever asks. */
#pragma once
#include "base/err.h"
#include <stdint.h>

enum bt_window_kind { BT_WINDOW_DAILY, BT_WINDOW_WEEKLY, BT_WINDOW_DATES };
struct bt_window { /* in minutes: of the day, of the week (from Monday), since 1970 */
	enum bt_window_kind kind;
	int64_t from, to; /* it ends before `to`; DAILY and WEEKLY may go over their end */
};

/* "22:00-06:00", "Fri 16:00-Mon 08:00", "2026-12-20..2027-01-03" (both days whole) or
 * "2026-12-20 18:00..2027-01-03 08:00". BT_E_CONFIG says what was expected. */
int bt_window_parse(const char *text, struct bt_window *ret, struct bt_err *err);
/* When the window that holds this moment ends (wall ms); 0: none does. */
int64_t bt_window_end(const struct bt_window *w, int64_t wall_ms, int zone_min);
/* "local" is the caller's business; else "UTC", "+09:00", "-03:30". BT_E_CONFIG otherwise. */
int bt_zone_parse(const char *text, int *ret_min, struct bt_err *err);
/* "Mon 2026-11-23 08:00 (+09:00)" */
const char *bt_zone_time(int64_t wall_ms, int zone_min, char buf[static 64]);
