#include "base/str.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

void bt_str_done(struct bt_str *s)
{
	free(s->data);
	*s = (struct bt_str){0};
}

static void reserve(struct bt_str *s, size_t more)
{
	size_t need = s->len + more + 1;
	if (need <= s->cap)
		return;
	size_t cap = s->cap ? s->cap : 64;
	while (cap < need)
		cap *= 2;
	s->data = bt_realloc(s->data, cap);
	s->cap = cap;
}

void bt_str_addn(struct bt_str *s, const void *data, size_t n)
{
	reserve(s, n);
	if (n)
		memcpy(s->data + s->len, data, n);
	s->len += n;
	s->data[s->len] = 0;
}

void bt_str_add(struct bt_str *s, const char *text)
{
	bt_str_addn(s, text, strlen(text));
}

void bt_str_addc(struct bt_str *s, char c)
{
	bt_str_addn(s, &c, 1);
}

void bt_str_addf(struct bt_str *s, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	reserve(s, (size_t)n);
	va_start(ap, fmt);
	vsnprintf(s->data + s->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	s->len += (size_t)n;
}

void bt_str_reset(struct bt_str *s)
{
	s->len = 0;
	if (s->data)
		s->data[0] = 0;
}

char *bt_str_steal(struct bt_str *s)
{
	reserve(s, 0);
	s->data[s->len] = 0;
	char *p = s->data;
	*s = (struct bt_str){0};
	return p;
}

const char *bt_str_get(const struct bt_str *s)
{
	return s->data ? s->data : "";
}

bool bt_streq(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool bt_str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool bt_str_ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);
	return n >= m && strcmp(s + n - m, suffix) == 0;
}

struct unit {
	const char *name;
	int64_t factor;
};

static const struct unit duration_units[] = {
	{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
#define MAX_DURATION_MS ((int64_t)400 * 86400000)

int bt_duration_parse(const char *text, int64_t *ret_ms, struct bt_err *err)
{
	int64_t n = 0;
	const char *p = text;
	for (; isdigit((unsigned char)*p) && n <= MAX_DURATION_MS; p++)
		n = n * 10 + (*p - '0');
	if (p != text && n <= MAX_DURATION_MS) {
		if (!*p && n == 0) {
			*ret_ms = 0;
			return 0;
		}
		for (size_t i = 0; i < BT_ARRAY_LEN(duration_units); i++)
			if (strcmp(p, duration_units[i].name) == 0 &&
				n <= MAX_DURATION_MS / duration_units[i].factor) {
				*ret_ms = n * duration_units[i].factor;
				return 0;
			}
	}
	return bt_err_set(err, BT_E_CONFIG,
		"expected a duration with a unit such as 500ms, 30s, 5m, 2h, found '%s'", text);
}

const char *bt_duration_format(int64_t ms, char buf[static 32])
{
	if (ms == 0)
		return "0s";
	for (size_t i = 0; i < BT_ARRAY_LEN(duration_units); i++)
		if (ms % duration_units[i].factor == 0) {
			snprintf(buf, 32, "%lld%s", (long long)(ms / duration_units[i].factor),
				duration_units[i].name);
			return buf;
		}
	return buf;
}

static const struct unit size_units[] = {{"g", 1 << 30}, {"m", 1 << 20}, {"k", 1 << 10}, {"", 1}};

int bt_size_parse(const char *text, int64_t *ret_bytes, struct bt_err *err)
{
	int64_t n = 0, max = (int64_t)1 << 50;
	const char *p = text;
	for (; isdigit((unsigned char)*p) && n <= max; p++)
		n = n * 10 + (*p - '0');
	char unit[2] = {(char)tolower((unsigned char)*p), 0};
	const char *rest = *p ? p + 1 : p;
	bool tail = !*rest || !strcasecmp(rest, "b") || !strcasecmp(rest, "ib");
	if (!strcasecmp(p, "b")) {
		unit[0] = 0;
		tail = true;
	}
	if (p != text && tail)
		for (size_t i = 0; i < BT_ARRAY_LEN(size_units); i++)
			if (!strcmp(unit, size_units[i].name) && n <= max / size_units[i].factor) {
				*ret_bytes = n * size_units[i].factor;
				return 0;
			}
	return bt_err_set(
		err, BT_E_CONFIG, "expected a size such as 64k, 8m, 2g, found '%s'", text);
}

const char *bt_size_format(int64_t bytes, char buf[static 32])
{
	for (size_t i = 0; i < BT_ARRAY_LEN(size_units); i++)
		if (bytes && bytes % size_units[i].factor == 0) {
			snprintf(buf, 32, "%lld%s", (long long)(bytes / size_units[i].factor),
				size_units[i].name);
			return buf;
		}
	return "0";
}

int bt_int_parse(const char *text, int64_t min, int64_t max, int64_t *ret, struct bt_err *err)
{
	char *end = NULL;
	bool digits = isdigit((unsigned char)text[0]) ||
		      (text[0] == '-' && isdigit((unsigned char)text[1]));
	long long v = 0;
	size_t len = strlen(text);
	if (digits && len < 20)
		v = strtoll(text, &end, 10);
	if (!digits || len >= 20 || *end || v < min || v > max)
		return bt_err_set(err, BT_E_CONFIG,
			"expected a whole number from %lld to %lld, found '%s'", (long long)min,
			(long long)max, text);
	*ret = v;
	return 0;
}

/* Levenshtein, bounded: config keys and commands are short words. */
static size_t distance(const char *a, const char *b)
{
	enum { MAX = 48 };
	size_t n = strlen(a), m = strlen(b);
	if (n >= MAX || m >= MAX)
		return MAX;
	size_t row[MAX + 1];
	for (size_t j = 0; j <= m; j++)
		row[j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[m];
}

const char *bt_nearest(const char *word, const char *const *words, size_t n)
{
	size_t best = (strlen(word) + 2) / 3 + 1;
	const char *found = NULL;
	for (size_t i = 0; i < n; i++) {
		size_t d = distance(word, words[i]);
		if (d < best) {
			best = d;
			found = words[i];
		}
	}
	return found;
}

void bt_hex(const void *data, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = data;
	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * n] = 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int bt_unhex(const char *text, void *out, size_t n)
{
	unsigned char *p = out;
	if (strlen(text) != 2 * n)
		return BT_E_PROTOCOL;
	for (size_t i = 0; i < n; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
		if (high < 0 || low < 0)
			return BT_E_PROTOCOL;
		p[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

#define SHOWN 120

void bt_str_add_shown(struct bt_str *s, const char *body, size_t n)
{
	while (n > 0 && (unsigned char)*body <= ' ') {
		body++;
		n--;
	}
	size_t shown = 0;
	while (shown < n && shown < SHOWN && body[shown] != '\n' && body[shown] != '\r')
		shown++;
	for (size_t i = 0; i < shown; i++)
		bt_str_addc(s, (unsigned char)body[i] < ' ' || body[i] == 127 ? ' ' : body[i]);
	if (shown == SHOWN && n > SHOWN)
		bt_str_add(s, "...");
}
