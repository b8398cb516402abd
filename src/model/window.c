#include "model/window.h"

#include "base/str.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { HOUR = 60, DAY = 24 * HOUR, WEEK = 7 * DAY };

static const char *const days[] = {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"};

/* Days since 1970-01-01 of a date of the Gregorian calendar, and back (years 1970 to 9999). */
static int64_t days_of(int year, int month, int day)
{
	static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	int64_t y = year - 1;
	int64_t n = y * 365 + y / 4 - y / 100 + y / 400 - 719162;
	return n + before[month - 1] + (leap && month > 2) + day - 1;
}

static void date_of(int64_t n, int *year, int *month, int *day)
{
	int y = 1970 + (int)(n / 366), m = 1;
	while (days_of(y + 1, 1, 1) <= n)
		y++;
	while (m < 12 && days_of(y, m + 1, 1) <= n)
		m++;
	*year = y;
	*month = m;
	*day = (int)(n - days_of(y, m, 1)) + 1;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* So many digits, not more. */
static bool number(const char **p, int digits, int64_t lo, int64_t hi, int64_t *ret)
{
	int64_t v = 0;
	for (int i = 0; i < digits; i++, (*p)++) {
		if (!isdigit((unsigned char)**p))
			return false;
		v = v * 10 + **p - '0';
	}
	*ret = v;
	return v >= lo && v <= hi;
}

static bool word(const char **p, const char *text)
{
	if (!bt_str_starts(*p, text))
		return false;
	*p += strlen(text);
	return true;
}

static bool clock_time(const char **p, int64_t *ret)
{
	int64_t h, m;
	if (!number(p, 2, 0, 24, &h) || !word(p, ":") || !number(p, 2, 0, 59, &m))
		return false;
	*ret = h * HOUR + m;
	return *ret <= DAY;
}

static bool week_time(const char **p, int64_t *ret)
{
	int64_t t;
	for (int i = 0; i < 7; i++)
		if (word(p, days[i])) {
			if (!word(p, " ") || !clock_time(p, &t))
				return false;
			*ret = (i * DAY + t) % WEEK;
			return true;
		}
	return false;
}

/* A date alone is its beginning, or with `whole` the beginning of the next day. */
static bool date(const char **p, bool whole, int64_t *ret)
{
	int64_t y, m, d, t = whole ? DAY : 0;
	if (!number(p, 4, 1970, 9999, &y) || !word(p, "-") || !number(p, 2, 1, 12, &m) ||
		!word(p, "-") || !number(p, 2, 1, 31, &d))
		return false;
	if (word(p, " ") && !clock_time(p, &t))
		return false;
	int64_t first = days_of((int)y, (int)m, 1);
	int64_t next = m == 12 ? days_of((int)y + 1, 1, 1) : days_of((int)y, (int)m + 1, 1);
	*ret = (first + d - 1) * DAY + t;
	return first + d <= next; /* the month has that day */
}

int bt_window_parse(const char *text, struct bt_window *ret, struct bt_err *err)
{
	struct bt_window w = {.kind = BT_WINDOW_DAILY};
	const char *p = text;
	bool good;
	if (isalpha((unsigned char)*p)) {
		w.kind = BT_WINDOW_WEEKLY;
		good = week_time(&p, &w.from) && word(&p, "-") && week_time(&p, &w.to) &&
		       w.from != w.to;
	} else if (strstr(text, "..")) {
		w.kind = BT_WINDOW_DATES;
		good = date(&p, false, &w.from) && word(&p, "..") && date(&p, true, &w.to) &&
		       w.from < w.to;
	} else {
		good = clock_time(&p, &w.from) && word(&p, "-") && clock_time(&p, &w.to) &&
		       w.from % DAY != w.to % DAY;
		w.from %= DAY;
		w.to %= DAY;
	}
	if (!good || *p)
		return bt_err_set(err, BT_E_CONFIG,
			"expected hours of a day (22:00-06:00), a stretch of the week (Fri "
			"16:00-Mon 08:00) or dates (2026-12-20..2027-01-03), found '%.80s'",
			text);
	*ret = w;
	return 0;
}

int bt_zone_parse(const char *text, int *ret_min, struct bt_err *err)
{
	const char *p = text;
	int64_t t = 0;
	bool utc = bt_streq(text, "UTC");
	bool west = !utc && word(&p, "-");
	if (!utc && ((!west && !word(&p, "+")) || !clock_time(&p, &t) || *p || t > 14 * HOUR))
		return bt_err_set(err, BT_E_CONFIG,
			"expected a distance from UTC such as +09:00, or UTC, found '%.40s'", text);
	*ret_min = (int)(west ? -t : t);
	return 0;
}

/* ---- asking ------------------------------------------------------------------------------- */

static int64_t left_of(int64_t now, const struct bt_window *w, int64_t round)
{
	int64_t length = (w->to - w->from + round) % round;
	int64_t since = ((now - w->from) % round + round) % round;
	return since < length ? length - since : 0;
}

int64_t bt_window_end(const struct bt_window *w, int64_t wall_ms, int zone_min)
{
	int64_t now = wall_ms / 60000 + zone_min, left = 0;
	if (w->kind == BT_WINDOW_DATES)
		left = now >= w->from && now < w->to ? w->to - now : 0;
	else if (w->kind == BT_WINDOW_DAILY)
		left = left_of(now, w, DAY);
	else
		left = left_of(now + 3 * DAY, w, WEEK); /* 1970 began on a Thursday */
	return left ? (wall_ms / 60000 + left) * 60000 : 0;
}

const char *bt_zone_time(int64_t wall_ms, int zone_min, char buf[static 64])
{
	int64_t t = wall_ms / 60000 + zone_min;
	int year, month, day, away = zone_min < 0 ? -zone_min : zone_min;
	date_of(t / DAY, &year, &month, &day);
	snprintf(buf, 64, "%s %04d-%02d-%02d %02d:%02d (%c%02d:%02d)", days[(t / DAY + 3) % 7],
		year, month, day, (int)(t % DAY / HOUR), (int)(t % HOUR), zone_min < 0 ? '-' : '+',
		away / HOUR, away % HOUR);
	return buf;
}
