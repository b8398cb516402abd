/* `baton top`: what it knows, and what that looks like. The screens are made of plain lines, so
 * that a terminal, a pipe and a test see the same. */
#pragma once
#include "base/json.h"
#include "cli/say.h"

struct bt_top_line {
	enum bt_mark mark;
	bool heading;
	char *key; /* "service/shop", "run/17": can be chosen; NULL: cannot */
	char *text;
};
struct bt_top_lines {
	struct bt_top_line *lines;
	size_t n, cap;
};
void bt_top_lines_done(struct bt_top_lines *l);
#define BT_TOP_LINES __attribute__((cleanup(bt_top_lines_done)))

struct bt_top_facts {
	const char *url;
	const char *trouble;	/* one line while the server is away; NULL */
	const json_t *services; /* of GET /v1/services, /v1/hosts, /v1/deployments; NULL: not */
	const json_t *hosts;	/* known yet */
	const json_t *deployments;
	const json_t *doing; /* number of a running deployment → {"stage","what","mark"} */
	int64_t now_ms;	     /* wall */
};
/* Everything: runs, services with their slots, hosts. `columns` is the width it must fit in. */
void bt_top_overview(const struct bt_top_facts *f, size_t columns, struct bt_top_lines *ret);

/* One deployment: a heading, then what was said, cut at `columns`. `said` was made by bt_top_say.
 */
void bt_top_run(const json_t *deployment, const struct bt_top_lines *said, int64_t now_ms,
	size_t columns, struct bt_top_lines *ret);
/* A record, progress or end of a deployment as lines to keep; nothing where nothing is to be said.
 */
void bt_top_say(
	struct bt_top_lines *said, struct bt_sayer *sayer, const char *event, const json_t *data);

/* top_screen.c: the terminal, by ncurses. */
struct bt_screen;
/* BT_E_FAILED where the terminal cannot do it (TERM). color: false for NO_COLOR. */
int bt_screen_open(bool color, struct bt_screen **ret, struct bt_err *err);
struct bt_screen *bt_screen_close(struct bt_screen *s); /* as it was; NULL is fine; returns NULL */
void bt_screen_resized(struct bt_screen *s);
void bt_screen_size(const struct bt_screen *s, size_t *ret_rows, size_t *ret_columns);
/* Lines from `first` on, with `chosen` (a key or NULL) marked; the last row holds `foot`. */
void bt_screen_draw(struct bt_screen *s, const struct bt_top_lines *l, size_t first,
	const char *chosen, const char *foot);
enum bt_key_press {
	BT_PRESS_NONE, /* nothing was typed */
	BT_PRESS_OTHER,
	BT_PRESS_QUIT,
	BT_PRESS_BACK,
	BT_PRESS_ENTER,
	BT_PRESS_UP,
	BT_PRESS_DOWN,
	BT_PRESS_PAGE_UP,
	BT_PRESS_PAGE_DOWN,
	BT_PRESS_HOME,
	BT_PRESS_END,
};
enum bt_key_press bt_screen_key(struct bt_screen *s);
