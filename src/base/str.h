/* A growing text buffer, and the small parsers that config, wire and CLI share. */
#pragma once
#include "base/err.h"
#include "base/mem.h"

struct bt_str {
	char *data; /* always NUL-terminated once something was added; NULL before */
	size_t len, cap;
};

#define BT_STR __attribute__((cleanup(bt_str_done)))
void bt_str_done(struct bt_str *s); /* frees the data and zeroes s */
void bt_str_add(struct bt_str *s, const char *text);
void bt_str_addn(struct bt_str *s, const void *data, size_t n);
void bt_str_addc(struct bt_str *s, char c);
/* The first line of what others sent, cut at 120 bytes, without control characters. */
void bt_str_add_shown(struct bt_str *s, const char *body, size_t n);
void bt_str_addf(struct bt_str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bt_str_reset(struct bt_str *s);		/* length 0, memory kept */
char *bt_str_steal(struct bt_str *s);		/* the caller frees; never NULL; s is empty after */
const char *bt_str_get(const struct bt_str *s); /* never NULL; borrowed */

bool bt_streq(const char *a, const char *b); /* NULL equals NULL only */
bool bt_str_starts(const char *s, const char *prefix);
bool bt_str_ends(const char *s, const char *suffix);

/* "250ms" "30s" "5m" "2h" "1d" (an integer and a unit; "0" alone is allowed) → ms.
 * BT_E_CONFIG with what was expected otherwise, or past 400 days. */
int bt_duration_parse(const char *text, int64_t *ret_ms, struct bt_err *err);
/* The shortest exact form: 90000 → "90s", 60000 → "1m", 1500 → "1500ms". buf ≥ 32 bytes. */
const char *bt_duration_format(int64_t ms, char buf[static 32]);
/* "512" "64k" "8m" "2g" (powers of 1024, upper or lower case, optional "iB"/"b") → bytes. */
int bt_size_parse(const char *text, int64_t *ret_bytes, struct bt_err *err);
const char *bt_size_format(int64_t bytes, char buf[static 32]);

/* Decimal digits only, the whole text, within [min, max]; BT_E_CONFIG otherwise. */
int bt_int_parse(const char *text, int64_t min, int64_t max, int64_t *ret, struct bt_err *err);

/* The nearest of n words by edit distance, or NULL where none is near: for "did you mean". */
const char *bt_nearest(const char *word, const char *const *words, size_t n);

void bt_hex(const void *data, size_t n, char *out);  /* out: 2n+1 bytes, lower case */
int bt_unhex(const char *text, void *out, size_t n); /* 0, or BT_E_PROTOCOL */
