/* Windows of a calendar: what is inside, when it ends, and what is no window. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/str.h"
#include "model/window.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static int64_t at(const char *text) /* "2026-11-20 16:00", UTC */
{
	struct tm tm = {0};
	assert_non_null(strptime(text, "%Y-%m-%d %H:%M", &tm));
	return (int64_t)timegm(&tm) * 1000;
}

/* until NULL: outside */
static void check(const char *window, int zone, const char *now, const char *until)
{
	struct bt_window w;
	struct bt_err err;
	if (bt_window_parse(window, &w, &err) < 0)
		fail_msg("%s", err.text);
	int64_t end = bt_window_end(&w, at(now), zone), want = until ? at(until) : 0;
	if (end != want)
		fail_msg("%s at %s: ends %lld, expected %lld", window, now, (long long)end,
			(long long)want);
}

static void inside(void **state)
{
	(void)state;
	check("22:00-06:00", 0, "2026-11-20 21:59", NULL);
	check("22:00-06:00", 0, "2026-11-20 22:00", "2026-11-21 06:00");
	check("22:00-06:00", 0, "2026-11-21 05:59", "2026-11-21 06:00");
	check("22:00-06:00", 0, "2026-11-21 06:00", NULL);
	check("09:00-18:00", 540, "2026-11-20 00:00", "2026-11-20 09:00"); /* Seoul */
	check("20:00-24:00", 0, "2026-11-20 23:00", "2026-11-21 00:00");
	/* 2026-11-20 is a Friday */
	check("Fri 16:00-Mon 08:00", 0, "2026-11-20 15:59", NULL);
	check("Fri 16:00-Mon 08:00", 0, "2026-11-20 16:00", "2026-11-23 08:00");
	check("Fri 16:00-Mon 08:00", 0, "2026-11-23 07:59", "2026-11-23 08:00");
	check("Fri 16:00-Mon 08:00", 0, "2026-11-23 08:00", NULL);
	check("Fri 16:00-Mon 08:00", 540, "2026-11-20 07:00", "2026-11-22 23:00");
	check("Fri 16:00-Mon 08:00", -300, "2026-11-20 20:59", NULL);
	check("Tue 00:00-Wed 00:00", 0, "2026-11-24 12:00", "2026-11-25 00:00");
	check("2026-12-20..2027-01-03", 0, "2026-12-19 23:59", NULL);
	check("2026-12-20..2027-01-03", 0, "2026-12-20 00:00", "2027-01-04 00:00");
	check("2026-12-20..2027-01-03", 0, "2027-01-03 23:59", "2027-01-04 00:00");
	check("2026-12-20..2027-01-03", 0, "2027-01-04 00:00", NULL);
	check("2026-12-20 18:00..2026-12-20 20:00", 540, "2026-12-20 09:30", "2026-12-20 11:00");
	check("2028-02-29..2028-02-29", 0, "2028-02-29 10:00", "2028-03-01 00:00");
}

/* The calendar's own arithmetic against libc's, over four centuries. */
static void dates(void **state)
{
	(void)state;
	for (int64_t day = 0; day < 146097 + 1000; day += 13) {
		time_t t = (time_t)(day * 86400 + 43200);
		struct tm tm;
		char text[32], window[80], buf[64], want[64];
		gmtime_r(&t, &tm);
		strftime(text, sizeof text, "%Y-%m-%d", &tm);
		snprintf(window, sizeof window, "%s..%s", text, text);
		struct bt_window w;
		assert_int_equal(bt_window_parse(window, &w, NULL), 0);
		assert_int_equal(bt_window_end(&w, (int64_t)t * 1000, 0), (day + 1) * 86400000);
		strftime(want, sizeof want, "%a %Y-%m-%d %H:%M (+00:00)", &tm);
		assert_string_equal(bt_zone_time((int64_t)t * 1000, 0, buf), want);
	}
	char buf[64];
	assert_string_equal(
		bt_zone_time(at("2026-11-22 23:00"), 540, buf), "Mon 2026-11-23 08:00 (+09:00)");
	assert_string_equal(
		bt_zone_time(at("2026-11-23 00:00"), -210, buf), "Sun 2026-11-22 20:30 (-03:30)");
}

static void bad(void **state)
{
	(void)state;
	static const char *const windows[] = {"", "22:00", "22-06", "25:00-26:00", "22:00-22:00",
		"00:00-24:00", "Fri-Mon", "Fri 16:00-Fri 16:00", "fri 16:00-mon 08:00",
		"Fri 16:60-Mon 08:00", "2026-13-01..2026-13-02", "2026-02-30..2026-03-01",
		"2026-12-20..2026-12-19", "2026-12-20", "22:00-06:00 ", "2026-12-20..x"};
	static const char *const zones[] = {"", "Asia/Seoul", "9", "+9:00", "+15:00", "+09:00x"};
	struct bt_window w;
	struct bt_err err;
	int minutes;
	for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
		if (bt_window_parse(windows[i], &w, &err) != BT_E_CONFIG)
			fail_msg("'%s' is taken", windows[i]);
		assert_non_null(strstr(err.text, "Fri 16:00-Mon 08:00"));
	}
	for (size_t i = 0; i < sizeof zones / sizeof *zones; i++)
		if (bt_zone_parse(zones[i], &minutes, &err) != BT_E_CONFIG)
			fail_msg("'%s' is taken", zones[i]);
	assert_int_equal(bt_zone_parse("UTC", &minutes, &err), 0);
	assert_int_equal(minutes, 0);
	assert_int_equal(bt_zone_parse("-03:30", &minutes, &err), 0);
	assert_int_equal(minutes, -210);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inside),
		cmocka_unit_test(dates),
		cmocka_unit_test(bad),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
