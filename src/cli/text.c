/* Text for terminals: an app's log line or a hostile file name must not move the cursor. */
#include "base/clock.h"
#include "cli/view.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* One UTF-8 sequence; bytes that are none count as one replacement character each. */
static size_t decode(const unsigned char *p, uint32_t *ret)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	uint32_t c = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));
	if (n > 1 && (p[0] < 0xc2 || p[0] > 0xf4))
		n = 0;
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80) {
			n = 0;
			break;
		}
		c = c << 6 | (p[i] & 0x3f);
	}
	*ret = n ? c : 0xfffd;
	return n ? n : 1;
}

static size_t width(uint32_t c)
{
	static const uint32_t wide[][2] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3},
		{0xf900, 0xfaff}, {0xfe30, 0xfe6f}, {0xff00, 0xff60}, {0x1f300, 0x1faff}};
	for (size_t i = 0; i < BT_ARRAY_LEN(wide); i++)
		if (c >= wide[i][0] && c <= wide[i][1])
			return 2;
	return 1;
}

/* Escape, C1 and the marks that turn the direction of text. */
static bool is_control(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
	       (c >= 0x2066 && c <= 0x2069);
}

void bt_view_clean(struct bt_str *out, const char *text, size_t columns)
{
	size_t used = 0, total = columns ? bt_view_columns(text) : 0;
	size_t limit = total > columns ? columns - 1 : SIZE_MAX;
	for (const unsigned char *p = (const unsigned char *)text; *p;) {
		uint32_t c;
		size_t n = decode(p, &c);
		size_t w = width(c);
		if (used + w > limit) {
			bt_str_add(out, "…");
			break;
		}
		if (is_control(c))
			bt_str_addc(out, ' ');
		else if (c == 0xfffd && n == 1)
			bt_str_addc(out, '?');
		else
			bt_str_addn(out, p, n);
		used += w;
		p += n;
	}
}

size_t bt_view_columns(const char *text)
{
	size_t total = 0;
	for (const unsigned char *p = (const unsigned char *)text; *p;) {
		uint32_t c;
		p += decode(p, &c);
		total += width(c);
	}
	return total;
}

void bt_view_time(const char *rfc3339, char ret[static 16])
{
	int64_t ms = bt_clock_parse(rfc3339);
	if (ms < 0) {
		snprintf(ret, 16, "%8s", "");
		return;
	}
	time_t seconds = (time_t)(ms / 1000);
	struct tm local;
	localtime_r(&seconds, &local);
	strftime(ret, 16, "%H:%M:%S", &local);
}

void bt_view_amount(int64_t bytes, char ret[static 16])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	double n = (double)(bytes < 0 ? 0 : bytes);
	size_t i = 0;
	for (; n >= 1024 && i + 1 < BT_ARRAY_LEN(units); i++)
		n /= 1024;
	snprintf(ret, 16, i ? "%.1f %s" : "%.0f %s", n, units[i]);
}
