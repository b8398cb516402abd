/* Addresses as numbers. The C library's inet_pton belongs to sockets, which a pure layer does not
 * touch; and what is wanted here is stricter about IPv4 than inet_aton and the same for IPv6 as
 * RFC 4291 section 2.2. */
#include "config/keys.h"

#include "base/str.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Four decimal parts without leading zeros; how much of the text it is, 0: it is none. */
static size_t ipv4(const char *t, uint8_t ret[static 4])
{
	const char *p = t;
	for (int i = 0; i < 4; i++) {
		unsigned v = 0;
		int digits = 0;
		if (i && *p++ != '.')
			return 0;
		for (; isdigit((unsigned char)*p) && digits < 4; digits++)
			v = v * 10 + (unsigned)(*p++ - '0');
		if (digits == 0 || v > 255 || (digits > 1 && p[-digits] == '0'))
			return 0;
		ret[i] = (uint8_t)v;
	}
	return (size_t)(p - t);
}

struct groups {
	uint16_t at[8];
	int n, gap; /* gap: where :: stands; -1: nowhere */
};

/* One group, or a dotted end that is two. Returns what follows it; NULL: it is none. */
static const char *group(const char *t, struct groups *g)
{
	uint8_t four[4];
	size_t dotted = ipv4(t, four);
	if (dotted && !t[dotted] && g->n <= 6) {
		g->at[g->n++] = (uint16_t)(four[0] << 8 | four[1]);
		g->at[g->n++] = (uint16_t)(four[2] << 8 | four[3]);
		return t + dotted;
	}
	size_t digits = strspn(t, "0123456789abcdefABCDEF");
	if (digits == 0 || digits > 4 || g->n == 8)
		return NULL;
	char text[5] = "";
	memcpy(text, t, digits);
	g->at[g->n++] = (uint16_t)strtoul(text, NULL, 16);
	return t + digits;
}

static bool ipv6(const char *t, uint8_t ret[static 16])
{
	struct groups g = {.gap = -1};
	if (bt_str_starts(t, "::")) {
		g.gap = 0;
		t += 2;
	}
	while (*t) {
		t = group(t, &g);
		if (!t || (*t && *t != ':'))
			return false;
		if (bt_str_starts(t, "::") && g.gap < 0) {
			g.gap = g.n;
			t += 2;
		} else if (*t && !*++t)
			return false; /* a colon ends it */
	}
	if (g.gap < 0 ? g.n != 8 : g.n > 7)
		return false;
	memset(ret, 0, 16);
	for (int i = 0; i < g.n; i++) {
		int at = g.gap < 0 || i < g.gap ? i : 8 - g.n + i;
		ret[2 * at] = (uint8_t)(g.at[i] >> 8);
		ret[2 * at + 1] = (uint8_t)g.at[i];
	}
	return true;
}

size_t bt_address_parse(const char *t, uint8_t ret[static 16])
{
	size_t n = ipv4(t, ret);
	if (n && !t[n])
		return 4;
	return strlen(t) < 46 && ipv6(t, ret) ? 16 : 0;
}

bool bt_check_vip(const char *t)
{
	static const uint8_t zero[16];
	uint8_t a[16];
	switch (bt_address_parse(t, a)) {
	case 4:
		return a[0] != 0 && a[0] != 127 && a[0] < 224;
	case 16: /* not ::, ::1, ::ffff:0:0/96, fe80::/10, ff00::/8 */
		return memcmp(a, zero, 10) != 0 && a[0] != 0xff &&
		       !(a[0] == 0xfe && (a[1] & 0xc0) == 0x80);
	default:
		return false;
	}
}
