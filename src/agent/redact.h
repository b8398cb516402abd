/* Secrets never leave the host in text: every log, detail and progress line passes here.
 * The set holds the values of all secrets that were ever given to this process, and the single
 * lines of those that have several; a match becomes "***".
 * What comes out is well-formed UTF-8 without control characters, whatever went in. */
#pragma once
#include "base/str.h"

struct bt_redact;
struct bt_redact *bt_redact_new(void);
struct bt_redact *bt_redact_free(struct bt_redact *r);	     /* NULL is fine; returns NULL */
void bt_redact_add(struct bt_redact *r, const char *secret); /* "" is nothing to hide */
/* text with every secret replaced, appended to out. */
void bt_redact_into(const struct bt_redact *r, const char *text, struct bt_str *out);
/* The same as a new string; the caller frees. NULL gives NULL. */
char *bt_redact_dup(const struct bt_redact *r, const char *text);
