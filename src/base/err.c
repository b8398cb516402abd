#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* One line is a promise to whoever greps a log: fold what an outside program printed. */
static void fold(char *text)
{
	for (char *p = text; *p; p++)
		if (*p == '\n' || *p == '\r' || *p == '\t')
			*p = ' ';
	size_t n = strlen(text);
	while (n > 0 && text[n - 1] == ' ')
		text[--n] = 0;
}

static void put(char *text, const char *fmt, va_list ap)
{
	int n = vsnprintf(text, BT_ERR_MAX, fmt, ap);
	if (n >= BT_ERR_MAX)
		memcpy(text + BT_ERR_MAX - 4, "...", 4);
	fold(text);
}

int bt_err_set(struct bt_err *err, int code, const char *fmt, ...)
{
	assert(code < 0);
	if (err) {
		va_list ap;
		va_start(ap, fmt);
		put(err->text, fmt, ap);
		va_end(ap);
		err->code = code;
	}
	return code;
}

int bt_err_errno(struct bt_err *err, int errno_value, const char *fmt, ...)
{
	if (errno_value < 0)
		errno_value = -errno_value;
	if (errno_value == 0)
		errno_value = EIO;
	if (err) {
		char words[BT_ERR_MAX];
		va_list ap;
		va_start(ap, fmt);
		put(words, fmt, ap);
		va_end(ap);
		bt_err_set(err, -errno_value, "%s: %s", words, strerror(errno_value));
	}
	return -errno_value;
}

int bt_err_wrap(struct bt_err *err, const char *fmt, ...)
{
	if (!err)
		return -EIO;
	char words[BT_ERR_MAX], old[BT_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	put(words, fmt, ap);
	va_end(ap);
	memcpy(old, err->text, sizeof old);
	return bt_err_set(err, err->code < 0 ? err->code : -EIO, "%s: %s", words, old);
}

void bt_err_clear(struct bt_err *err)
{
	if (err) {
		err->code = 0;
		err->text[0] = 0;
	}
}
