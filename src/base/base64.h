/* RFC 4648 base64 with padding: bytes that travel in JSON. */
#pragma once
#include "base/err.h"
#include <stddef.h>

char *bt_base64(const void *data, size_t n); /* the caller frees */
/* Strict; the caller frees *ret, which has a NUL after its *ret_n bytes. BT_E_PROTOCOL. */
int bt_unbase64(const char *text, char **ret, size_t *ret_n, struct bt_err *err);
