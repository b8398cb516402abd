#include "shim/record.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct bt_record_out *out, const char *data, size_t n)
{
	if (out->full || n > out->cap - out->len) {
		out->full = true;
		return;
	}
	memcpy(out->data + out->len, data, n);
	out->len += n;
}

void bt_record_add(struct bt_record_out *out, const char *key, const char *value)
{
	put(out, key, strlen(key));
	put(out, "=", 1);
	put(out, value, strlen(value) + 1);
}

void bt_record_addf(struct bt_record_out *out, const char *key, const char *fmt, ...)
{
	char value[512];
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(value, sizeof value, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof value)
		out->full = true;
	else
		bt_record_add(out, key, value);
}

int bt_record_int(const char *text, int64_t min, int64_t max, int64_t *ret)
{
	const char *digits = text[0] == '-' ? text + 1 : text;
	size_t n = strlen(digits);
	if (n == 0 || n > 19 || strspn(digits, "0123456789") != n)
		return -EBADMSG;
	errno = 0;
	long long v = strtoll(text, NULL, 10);
	if (errno || v < min || v > max)
		return -EBADMSG;
	*ret = v;
	return 0;
}

static int set_field(const struct bt_record_field *f, void *obj, const char *value)
{
	char *at = (char *)obj + f->offset;
	switch (f->kind) {
	case BT_RECORD_INT: {
		int64_t v;
		if (bt_record_int(value, f->min, f->max, &v) < 0)
			return -EBADMSG;
		memcpy(at, &v, sizeof v);
		return 0;
	}
	case BT_RECORD_TEXT: {
		size_t n = strnlen(value, (size_t)f->max - 1);
		memcpy(at, value, n);
		at[n] = 0;
		return 0;
	}
	case BT_RECORD_PTR:
		memcpy(at, &value, sizeof value);
		return 0;
	case BT_RECORD_MANY:
		return f->many(obj, value);
	}
	return -EBADMSG;
}

/* The record at *p: key and value, *p behind it. 1, 0 at the end, -EBADMSG. */
static int next(char **p, char *end, char **ret_key, char **ret_value)
{
	if (*p == end)
		return 0;
	char *key = *p;
	size_t n = strlen(key); /* the text ends in NUL */
	char *eq = memchr(key, '=', n);
	if (!eq || eq == key || eq - key > BT_RECORD_KEY_MAX)
		return -EBADMSG;
	*eq = 0;
	*ret_key = key;
	*ret_value = eq + 1;
	*p = key + n + 1;
	return 1;
}

static int check_needed(
	const struct bt_record_field *fields, size_t n, uint64_t seen, char *why, size_t why_n)
{
	for (size_t i = 0; i < n; i++)
		if (fields[i].needed && !(seen >> i & 1)) {
			snprintf(why, why_n, "'%s' is missing", fields[i].key);
			return -EBADMSG;
		}
	return 0;
}

int bt_record_parse(char *text, size_t n, const char *format, int version,
	const struct bt_record_field *fields, size_t n_fields, void *obj, char *why, size_t why_n)
{
	char *p = text, *end = text + n, *key, *value;
	uint64_t seen = 0;
	int64_t v;
	if (n == 0 || text[n - 1] != 0 || next(&p, end, &key, &value) != 1 ||
		strcmp(key, format) != 0 || bt_record_int(value, 1, 1000000, &v) < 0) {
		snprintf(why, why_n, "not a %s of version %d", format, version);
		return -EBADMSG;
	}
	for (;;) {
		int r = next(&p, end, &key, &value);
		if (r <= 0) {
			snprintf(why, why_n, r < 0 ? "a record has no key" : "cut short");
			return -EBADMSG;
		}
		if (strcmp(key, "end") == 0)
			return check_needed(fields, n_fields, seen, why, why_n);
		for (size_t i = 0; i < n_fields; i++) {
			if (strcmp(fields[i].key, key) != 0)
				continue;
			seen |= (uint64_t)1 << i;
			if (set_field(&fields[i], obj, value) < 0) {
				snprintf(why, why_n, "'%s' has a bad value", key);
				return -EBADMSG;
			}
		}
	}
}

void bt_record_write(struct bt_record_out *out, const char *format, int version,
	const struct bt_record_field *fields, size_t n_fields, const void *obj)
{
	bt_record_addf(out, format, "%d", version);
	for (size_t i = 0; i < n_fields; i++) {
		const char *at = (const char *)obj + fields[i].offset;
		int64_t v;
		const char *ptr;
		switch (fields[i].kind) {
		case BT_RECORD_INT:
			memcpy(&v, at, sizeof v);
			bt_record_addf(out, fields[i].key, "%lld", (long long)v);
			break;
		case BT_RECORD_TEXT:
			bt_record_add(out, fields[i].key, at);
			break;
		case BT_RECORD_PTR:
			memcpy(&ptr, at, sizeof ptr);
			if (ptr)
				bt_record_add(out, fields[i].key, ptr);
			break;
		case BT_RECORD_MANY:
			break;
		}
	}
}
