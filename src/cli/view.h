/* What a person or a program sees of a running deployment.
 *
 * live:  on a terminal: the current stage with a line a lane, drawn again in place
 * plain: a line an event, with the time
 * json:  an object a line: {"event":"record|progress|upload|end|note", …}
 * Text from outside is printed without control characters. */
#pragma once
#include "base/json.h"
#include "base/str.h"

enum bt_view_mode { BT_VIEW_PLAIN, BT_VIEW_LIVE, BT_VIEW_JSON };

struct bt_view;
/* json_wanted, else by what stdout is (NO_COLOR, TERM). */
enum bt_view_mode bt_view_choose(bool json_wanted);
struct bt_view *bt_view_new(enum bt_view_mode mode);
struct bt_view *bt_view_free(struct bt_view *v); /* NULL is fine; returns NULL */
enum bt_view_mode bt_view_mode_of(const struct bt_view *v);
/* "shop 1.4.1 → 1.4.2" and the deployment's number, for the last line of the live view. */
void bt_view_title(struct bt_view *v, const char *title);
/* A sentence of the client itself. */
void bt_view_note(struct bt_view *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bt_view_upload(struct bt_view *v, const char *name, int64_t sent, int64_t size, bool resumed);
void bt_view_record(struct bt_view *v, const json_t *record);
int64_t bt_view_span_ms(const struct bt_view *v); /* from the first record to the last */
void bt_view_progress(struct bt_view *v, const json_t *progress);
void bt_view_end(struct bt_view *v, const json_t *end); /* the log tail and the end itself */
void bt_view_tick(struct bt_view *v);			/* 8 times a second: elapsed times */

/* Appends text without control characters, cut at `columns` (0: not), wide characters count 2. */
void bt_view_clean(struct bt_str *out, const char *text, size_t columns);
size_t bt_view_columns(const char *text);
/* "512 B" "8.1 KiB" "1.5 GiB": bytes for people. */
void bt_view_amount(int64_t bytes, char ret[static 16]);
/* "12:00:01" in local time of an RFC3339 time; "        " where it is none. */
void bt_view_time(const char *rfc3339, char ret[static 16]);
