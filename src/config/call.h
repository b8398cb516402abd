/* Texts of calls to an API outside: templates with placeholders, and header values that refer to
 * secrets. Pure. */
#pragma once
#include "base/err.h"
#include "base/str.h"
#include <stdbool.h>
#include <stdint.h>

#define BT_CALL_PLACEHOLDERS "{host} {slot} {port} {address} {service}"

struct bt_call_values {
	const char *host, *slot, *service;
	const char *address; /* NULL: not known (yet) */
	uint16_t port;
};
/* How a value is written into the text: percent-encoded, all but letters, digits and -._~ (RFC
 * 3986, unreserved), or as the inside of a JSON string. */
enum bt_call_form { BT_CALL_URL, BT_CALL_JSON };

bool bt_check_call(const char *t);     /* only these placeholders; {{ writes a brace */
bool bt_check_call_url(const char *t); /* … and a URL once they are replaced; no user@ in it */
bool bt_check_method(const char *t);   /* a token of upper-case letters */
/* BT_E_CONFIG names an unknown placeholder, BT_E_NOTFOUND one that is not known. */
int bt_call_expand(const char *text, const struct bt_call_values *v, enum bt_call_form form,
	struct bt_str *out, struct bt_err *err);

/* The next ${NAME} at or after t: where it begins, its name and length; NULL: there is none. */
const char *bt_secret_ref(const char *t, const char **ret_name, size_t *ret_n);
