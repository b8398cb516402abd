#include "base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t bt_clock_boot_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t bt_clock_boot_ms(void)
{
	return bt_clock_boot_us() / 1000;
}

int64_t bt_clock_wall_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

const char *bt_clock_format(int64_t wall_ms, char buf[static 32])
{
	time_t s = (time_t)(wall_ms / 1000);
	struct tm tm;
	gmtime_r(&s, &tm);
	size_t n = strftime(buf, 32, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, 32 - n, ".%03dZ", (int)(wall_ms % 1000));
	return buf;
}

int64_t bt_clock_parse(const char *rfc3339)
{
	struct tm utc = {0};
	const char *rest = rfc3339 ? strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &utc) : NULL;
	int64_t ms = 0;
	if (rest && *rest == '.') {
		int64_t unit = 100;
		for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
			ms += (*rest - '0') * unit;
	}
	return rest && *rest == 'Z' && !rest[1] ? (int64_t)timegm(&utc) * 1000 + ms : -1;
}
