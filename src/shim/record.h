/* Records: "key=value" NUL, one after the other. The spec, the status and the messages between a
 * shim and the driver are all made of them, so they share one bounded parser. The first record
 * names the format and its version; "end=" is the last one, so a cut text is noticed.
 * Unknown keys are skipped: an older shim understands a newer agent, and the other way round.
 * No libraries: the shim is a static executable. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_RECORD_KEY_MAX 32

/* Writes into the caller's buffer; `full` is set when something did not fit. */
struct bt_record_out {
	char *data;
	size_t len, cap;
	bool full;
};
void bt_record_add(struct bt_record_out *out, const char *key, const char *value);
void bt_record_addf(struct bt_record_out *out, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

enum bt_record_kind {
	BT_RECORD_INT,	/* int64_t within [min, max] */
	BT_RECORD_TEXT, /* char[max], cut when it is longer */
	BT_RECORD_PTR,	/* const char *, borrowed from the parsed text */
	BT_RECORD_MANY, /* many(): called for each occurrence; written by the owner */
};
struct bt_record_field {
	const char *key;
	enum bt_record_kind kind;
	size_t offset;
	int64_t min, max;
	bool needed;
	int (*many)(void *obj, const char *value); /* 0, or -EBADMSG */
};

/* Fills obj from text, which is changed (keys are cut off) and must outlive obj's pointers.
 * text[n - 1] must be NUL. 0, or -EBADMSG with one line in why. */
int bt_record_parse(char *text, size_t n, const char *format, int version,
	const struct bt_record_field *fields, size_t n_fields, void *obj, char *why, size_t why_n);
/* Writes obj's fields (all but MANY) after the format's record, without the end. */
void bt_record_write(struct bt_record_out *out, const char *format, int version,
	const struct bt_record_field *fields, size_t n_fields, const void *obj);
/* Decimal digits with an optional '-', the whole text, in range: 0, or -EBADMSG. */
int bt_record_int(const char *text, int64_t min, int64_t max, int64_t *ret);
