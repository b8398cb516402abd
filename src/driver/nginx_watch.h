/* Counting nginx's answers from the access log of a managed nginx. Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct bt_nginx_answers {
	int64_t all, failed; /* failed: 5xx */
};
/* Adds the complete lines ("time status …") of text; returns the bytes used, so that a line that
 * is still being written is read again. A line of another form is passed over. */
size_t bt_nginx_answers_add(struct bt_nginx_answers *a, const char *text, size_t n);
