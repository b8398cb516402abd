/* The terminal of `baton top`. ncurses keeps the modes of the terminal and puts them back, also
 * when it is stopped with Ctrl-Z; resizing is told by the caller, whose loop hears SIGWINCH. */
#include "cli/top.h"

#include <curses.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define ESCAPE 27

struct bt_screen {
	SCREEN *screen;
	bool color;
};

static void use_colors(struct bt_screen *s)
{
	static const struct {
		enum bt_mark mark;
		short color;
	} pairs[] = {{BT_MARK_BEGIN, COLOR_CYAN}, {BT_MARK_GOOD, COLOR_GREEN},
		{BT_MARK_BAD, COLOR_RED}, {BT_MARK_NOTE, COLOR_YELLOW}};
	if (!has_colors() || start_color() == ERR || use_default_colors() == ERR) {
		s->color = false;
		return;
	}
	for (size_t i = 0; i < BT_ARRAY_LEN(pairs); i++)
		init_pair((short)pairs[i].mark, pairs[i].color, -1);
}

int bt_screen_open(bool color, struct bt_screen **ret, struct bt_err *err)
{
	/* Texts are UTF-8 whatever the caller's locale says, as everywhere in baton. */
	setlocale(LC_CTYPE, "");
	if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		setlocale(LC_CTYPE, "C.UTF-8");
	struct bt_screen *s = bt_calloc(1, sizeof *s);
	s->screen = newterm(NULL, stdout, stdin);
	if (!s->screen) {
		const char *term = getenv("TERM");
		free(s);
		return bt_err_set(err, BT_E_FAILED,
			"the terminal '%s' cannot be drawn on: set TERM, or use `baton top --once`",
			term ? term : "");
	}
	set_term(s->screen);
	s->color = color;
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	/* Arrows of terminals that do not mind the mode that keypad() asked for. */
	define_key("\033[A", KEY_UP);
	define_key("\033[B", KEY_DOWN);
	define_key("\033[C", KEY_RIGHT);
	define_key("\033[D", KEY_LEFT);
	set_escdelay(50);
	curs_set(0);
	if (color)
		use_colors(s);
	*ret = s;
	return 0;
}

struct bt_screen *bt_screen_close(struct bt_screen *s)
{
	if (!s)
		return NULL;
	endwin();
	delscreen(s->screen);
	free(s);
	return NULL;
}

void bt_screen_resized(struct bt_screen *s)
{
	struct winsize w = {0};
	(void)s;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 0 && w.ws_col > 0)
		resizeterm(w.ws_row, w.ws_col);
	clearok(stdscr, TRUE);
}

void bt_screen_size(const struct bt_screen *s, size_t *ret_rows, size_t *ret_columns)
{
	(void)s;
	*ret_rows = LINES > 0 ? (size_t)LINES : 1;
	*ret_columns = COLS > 0 ? (size_t)COLS : 1;
}

static void draw_line(struct bt_screen *s, int y, const struct bt_top_line *line, bool chosen)
{
	attr_t a = (line->heading ? A_BOLD : 0) | (chosen ? A_REVERSE : 0);
	if (s->color && line->mark != BT_MARK_NONE)
		a |= (attr_t)COLOR_PAIR(line->mark);
	attrset((int)a);
	mvaddstr(y, 0, line->text);
	if (chosen)
		hline(' ' | A_REVERSE, COLS);
	attrset(A_NORMAL);
}

void bt_screen_draw(struct bt_screen *s, const struct bt_top_lines *l, size_t first,
	const char *chosen, const char *foot)
{
	erase();
	size_t rows = LINES > 1 ? (size_t)LINES - 1 : 1;
	for (size_t i = 0; i < rows && first + i < l->n; i++) {
		const struct bt_top_line *line = &l->lines[first + i];
		draw_line(s, (int)i, line, chosen && bt_streq(line->key, chosen));
	}
	if (LINES > 1) {
		attrset(A_DIM);
		mvaddstr(LINES - 1, 0, foot);
		attrset(A_NORMAL);
	}
	refresh();
}

enum bt_key_press bt_screen_key(struct bt_screen *s)
{
	static const struct {
		int code;
		enum bt_key_press press;
	} keys[] = {{ERR, BT_PRESS_NONE}, {'q', BT_PRESS_QUIT}, {'Q', BT_PRESS_QUIT},
		{ESCAPE, BT_PRESS_BACK}, {KEY_LEFT, BT_PRESS_BACK}, {KEY_BACKSPACE, BT_PRESS_BACK},
		{'h', BT_PRESS_BACK}, {'\r', BT_PRESS_ENTER}, {'\n', BT_PRESS_ENTER},
		{KEY_ENTER, BT_PRESS_ENTER}, {KEY_RIGHT, BT_PRESS_ENTER}, {'l', BT_PRESS_ENTER},
		{KEY_UP, BT_PRESS_UP}, {'k', BT_PRESS_UP}, {KEY_DOWN, BT_PRESS_DOWN},
		{'j', BT_PRESS_DOWN}, {KEY_PPAGE, BT_PRESS_PAGE_UP},
		{KEY_NPAGE, BT_PRESS_PAGE_DOWN}, {' ', BT_PRESS_PAGE_DOWN},
		{KEY_HOME, BT_PRESS_HOME}, {'g', BT_PRESS_HOME}, {KEY_END, BT_PRESS_END},
		{'G', BT_PRESS_END}};
	(void)s;
	int c = getch();
	for (size_t i = 0; i < BT_ARRAY_LEN(keys); i++)
		if (keys[i].code == c)
			return keys[i].press;
	return BT_PRESS_OTHER;
}
