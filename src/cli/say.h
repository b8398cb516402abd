/* Records of a run in words: the same sentences for the live view, plain lines and `baton top`. */
#pragma once
#include "base/json.h"
#include "base/str.h"

enum bt_mark { BT_MARK_NONE, BT_MARK_BEGIN, BT_MARK_GOOD, BT_MARK_BAD, BT_MARK_NOTE };

struct bt_said {
	enum bt_mark mark;
	const char *where;   /* borrowed until the next call; NULL: the run itself */
	struct bt_str words; /* the caller ends it */
};

/* What was said of one run, so that nothing is said twice. */
struct bt_sayer;
struct bt_sayer *bt_sayer_new(void);
struct bt_sayer *bt_sayer_free(struct bt_sayer *y); /* NULL is fine; returns NULL */
/* false: nothing is to be said. */
bool bt_say(struct bt_sayer *y, const json_t *record, struct bt_said *ret);
/* Where a record or progress belongs: its lane, else its task's place. A result and the progress of
 * a task are said where its begin was; NULL: the task has ended, or none was begun. */
const char *bt_say_place(struct bt_sayer *y, const json_t *record);
