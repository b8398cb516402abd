/* Errors: a code for the program, one line for the person who reads it.
 *
 * A function that can fail returns int: 0 is good, < 0 is -errno or one of the
 * BT_E_* codes and is only forwarded, > 0 is an answer documented at the function.
 * It takes `struct bt_err *err` last and fills it when it returns < 0; err may be NULL.
 * Each layer adds its few words once with bt_err_wrap, so the line reads from the outside in:
 *     host was1: reload nginx: configuration test failed: unknown directive "foo" in /etc/…:12
 */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	BT_E_CONFIG = -5001,	  /* what a person wrote does not hold (exit code 2) */
	BT_E_PROTOCOL = -5002,	  /* a peer said something that is not in the protocol */
	BT_E_REFUSED = -5003,	  /* a policy, a guard or a role says no */
	BT_E_LEASE = -5004,	  /* another deployment holds the lease (exit code 4) */
	BT_E_UNREACHABLE = -5005, /* no answer from a peer (exit code 5 at the client) */
	BT_E_TIMEOUT = -5006,	  /* a deadline passed */
	BT_E_CORRUPT = -5007,	  /* stored data or an artifact is not what was written */
	BT_E_FAILED = -5008,	  /* an outside program or service answered that it failed */
	BT_E_NOTFOUND = -5009,	  /* the named thing does not exist */
	BT_E_AUTH = -5010,	  /* who asks is not known */
	BT_E_EXISTS = -5011,	  /* the thing is already there, and differs */
	BT_E_STORE = -5012,	  /* the database said no */
};

#define BT_ERR_MAX 1024

struct bt_err {
	int code;	       /* 0 while nothing went wrong */
	char text[BT_ERR_MAX]; /* one line, no newline, cut with "..." when too long */
};

/* Fill err and return code (which must be < 0). Newlines in the text become spaces. */
int bt_err_set(struct bt_err *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* -errno_value with ": strerror" appended to the text. */
int bt_err_errno(struct bt_err *err, int errno_value, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Put "<words>: " before the text that is there; returns err's code (or -EIO where err is NULL). */
int bt_err_wrap(struct bt_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bt_err_clear(struct bt_err *err);
