#include "cli/view.h"

#include "base/clock.h"
#include "cli/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* Both views for people are made of the same sentences (say.h). The live view keeps the lanes of
 * the current stage, draws them at the bottom, and leaves them behind as plain text when the stage
 * is over; the cursor is never hidden and no mode of the terminal is changed, so there is nothing
 * to restore however the client ends. */

#define LANES 64

struct lane {
	char *name, *what, *progress;
	enum bt_mark mark;
	int64_t begun_ms, ended_ms;
};

struct bt_view {
	enum bt_view_mode mode;
	bool color;
	char *title;
	int64_t begun_ms;
	char *stage; /* live: header of the lanes below */
	struct lane lanes[LANES];
	size_t n_lanes, drawn; /* lines on the screen that will be drawn again */
	struct bt_str upload;  /* live: the bar; empty when there is none */
	int64_t upload_told_ms, upload_begun_ms, upload_first;
	struct bt_sayer *sayer;
	int64_t first_at_ms, last_at_ms; /* of the records */
	char *progress_told;		 /* plain: the last line, not to repeat it */
	int64_t progress_told_ms;
};

enum bt_view_mode bt_view_choose(bool json_wanted)
{
	const char *term = getenv("TERM");
	if (json_wanted)
		return BT_VIEW_JSON;
	return isatty(STDOUT_FILENO) && term && *term && !bt_streq(term, "dumb") ? BT_VIEW_LIVE
										 : BT_VIEW_PLAIN;
}

struct bt_view *bt_view_new(enum bt_view_mode mode)
{
	struct bt_view *v = bt_calloc(1, sizeof *v);
	const char *no_color = getenv("NO_COLOR");
	v->mode = mode;
	v->color = mode == BT_VIEW_LIVE && !(no_color && *no_color);
	v->begun_ms = bt_clock_boot_ms();
	v->title = bt_strdup("");
	v->sayer = bt_sayer_new();
	return v;
}

enum bt_view_mode bt_view_mode_of(const struct bt_view *v)
{
	return v->mode;
}

static void forget_lanes(struct bt_view *v)
{
	for (size_t i = 0; i < v->n_lanes; i++) {
		free(v->lanes[i].name);
		free(v->lanes[i].what);
		free(v->lanes[i].progress);
	}
	v->n_lanes = 0;
}

static void paint(struct bt_view *v, struct bt_str *out, enum bt_mark mark, const char *text)
{
	static const char *const colors[] = {[BT_MARK_NONE] = "",
		[BT_MARK_BEGIN] = "\033[36m",
		[BT_MARK_GOOD] = "\033[32m",
		[BT_MARK_BAD] = "\033[31m",
		[BT_MARK_NOTE] = "\033[33m"};
	if (v->color)
		bt_str_addf(out, "%s%s\033[0m", colors[mark], text);
	else
		bt_str_add(out, text);
}

static void seconds(int64_t ms, char buf[static 32])
{
	if (ms < 60000)
		snprintf(buf, 32, "%lld.%llds", (long long)(ms / 1000),
			(long long)(ms % 1000 / 100));
	else
		snprintf(buf, 32, "%lldm%02llds", (long long)(ms / 60000),
			(long long)(ms / 1000 % 60));
}

static size_t screen(size_t *ret_rows)
{
	struct winsize w = {0};
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 || w.ws_col < 20 || w.ws_row < 4)
		w = (struct winsize){.ws_col = 80, .ws_row = 24};
	*ret_rows = w.ws_row;
	return w.ws_col;
}

static void lane_line(struct bt_view *v, const struct lane *l, size_t columns, struct bt_str *out)
{
	static const char *const spinner[] = {"⠋", "⠙", "⠸", "⠴", "⠦", "⠇"};
	int64_t now = bt_clock_boot_ms(), end = l->ended_ms ? l->ended_ms : now;
	char took[32];
	seconds(end - l->begun_ms, took);
	bt_str_add(out, "  ");
	paint(v, out, l->mark,
		l->mark == BT_MARK_GOOD	 ? "✓"
		: l->mark == BT_MARK_BAD ? "✗"
					 : spinner[now / 120 % 6]);
	BT_STR struct bt_str text = {0};
	bt_str_addf(&text, "%-14s %7s  %s", l->name, took, l->what);
	if (l->progress)
		bt_str_addf(&text, " · %s", l->progress);
	bt_str_addc(out, ' ');
	bt_view_clean(out, text.data, columns - 5);
	bt_str_addc(out, '\n');
}

static void stage_line(struct bt_view *v, size_t columns, struct bt_str *out)
{
	if (!v->stage)
		return;
	BT_STR struct bt_str text = {0};
	bt_view_clean(&text, v->stage, columns - 1);
	paint(v, out, BT_MARK_BEGIN, bt_str_get(&text));
	bt_str_addc(out, '\n');
}

static void erase(struct bt_view *v, struct bt_str *out)
{
	if (v->drawn)
		bt_str_addf(out, "\033[%zuA\r\033[J", v->drawn);
	v->drawn = 0;
}

static void flush(const struct bt_str *out)
{
	fwrite(bt_str_get(out), 1, out->len, stdout);
	fflush(stdout);
}

static void draw(struct bt_view *v, struct bt_str *out)
{
	size_t rows, columns = screen(&rows), shown = 0, hidden = 0;
	size_t room = rows > 5 ? rows - 4 : 1;
	size_t before = out->len;
	stage_line(v, columns, out);
	for (size_t i = 0; i < v->n_lanes; i++) {
		bool running = !v->lanes[i].ended_ms;
		if (v->n_lanes > room && (shown >= room || !running)) {
			hidden++;
			continue;
		}
		lane_line(v, &v->lanes[i], columns, out);
		shown++;
	}
	if (hidden)
		bt_str_addf(out, "  … and %zu more\n", hidden);
	if (v->upload.len) {
		bt_view_clean(out, v->upload.data, columns - 1);
		bt_str_addc(out, '\n');
	}
	char took[32];
	seconds(bt_clock_boot_ms() - v->begun_ms, took);
	BT_STR struct bt_str last = {0};
	bt_str_addf(&last, "%s%s%s · Ctrl-C rolls back", v->title, *v->title ? " · " : "", took);
	if (*v->title) {
		bt_view_clean(out, last.data, columns - 1);
		bt_str_addc(out, '\n');
	}
	for (size_t i = before; i < out->len; i++)
		v->drawn += out->data[i] == '\n';
}

void bt_view_tick(struct bt_view *v)
{
	if (v->mode != BT_VIEW_LIVE)
		return;
	BT_STR struct bt_str out = {0};
	erase(v, &out);
	draw(v, &out);
	flush(&out);
}

/* The stage stays on the screen as it ended. */
static void leave_stage(struct bt_view *v)
{
	BT_STR struct bt_str out = {0};
	size_t rows, columns = screen(&rows);
	erase(v, &out);
	stage_line(v, columns, &out);
	for (size_t i = 0; i < v->n_lanes; i++) {
		if (!v->lanes[i].ended_ms) {
			v->lanes[i].ended_ms = bt_clock_boot_ms();
			v->lanes[i].mark = BT_MARK_GOOD;
		}
		lane_line(v, &v->lanes[i], columns, &out);
	}
	flush(&out);
	forget_lanes(v);
	free(v->stage);
	v->stage = NULL;
}

struct bt_view *bt_view_free(struct bt_view *v)
{
	if (!v)
		return NULL;
	if (v->mode == BT_VIEW_LIVE)
		leave_stage(v);
	forget_lanes(v);
	bt_str_done(&v->upload);
	bt_sayer_free(v->sayer);
	free(v->progress_told);
	free(v->stage);
	free(v->title);
	free(v);
	return NULL;
}

void bt_view_title(struct bt_view *v, const char *title)
{
	free(v->title);
	v->title = bt_strdup(title);
}

/* A line that stays: above what is drawn in place. */
static void print_line(
	struct bt_view *v, const char *time, const char *where, enum bt_mark mark, const char *text)
{
	BT_STR struct bt_str out = {0};
	BT_STR struct bt_str words = {0};
	erase(v, &out);
	bt_view_clean(&words, text, 0);
	if (v->mode == BT_VIEW_LIVE) {
		paint(v, &out, mark, bt_str_get(&words));
	} else {
		bt_str_addf(&out, "%s ", time);
		size_t from = out.len;
		bt_view_clean(&out, where ? where : "baton", 0);
		size_t columns = bt_view_columns(out.data + from);
		bt_str_addf(&out, "%*s %s", columns < 14 ? (int)(14 - columns) : 0, "",
			bt_str_get(&words));
	}
	bt_str_addc(&out, '\n');
	if (v->mode == BT_VIEW_LIVE)
		draw(v, &out);
	flush(&out);
}

static void now_text(char ret[static 16])
{
	char buf[32];
	bt_view_time(bt_clock_format(bt_clock_wall_ms(), buf), ret);
}

static void print_json(const char *event, const json_t *data)
{
	BT_JSON json_t *j = data ? json_copy((json_t *)data) : json_object();
	json_object_set_new(j, "event", json_string(event));
	BT_FREE char *text = bt_json_dump(j);
	puts(text);
	fflush(stdout);
}

void bt_view_note(struct bt_view *v, const char *fmt, ...)
{
	char text[BT_ERR_MAX], time[16];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (v->mode == BT_VIEW_JSON) {
		BT_JSON json_t *j = json_pack("{s:s}", "text", text);
		print_json("note", j);
		return;
	}
	now_text(time);
	print_line(v, time, NULL, BT_MARK_NOTE, text);
}

static void upload_bar(struct bt_view *v, const char *name, int64_t sent, int64_t size)
{
	char have[16], all[16], speed[16];
	int64_t took = bt_clock_boot_ms() - v->upload_begun_ms;
	int filled = size ? (int)(sent * 24 / size) : 24;
	bt_view_amount(sent, have);
	bt_view_amount(size, all);
	bt_view_amount(took > 0 ? (sent - v->upload_first) * 1000 / took : 0, speed);
	bt_str_reset(&v->upload);
	bt_str_addf(&v->upload, "upload %s ", name);
	for (int i = 0; i < 24; i++)
		bt_str_add(&v->upload, i < filled ? "█" : "░");
	bt_str_addf(&v->upload, " %3d%%  %s of %s  %s/s", size ? (int)(sent * 100 / size) : 100,
		have, all, speed);
}

void bt_view_upload(struct bt_view *v, const char *name, int64_t sent, int64_t size, bool resumed)
{
	int64_t now = bt_clock_boot_ms();
	bool first = !v->upload_begun_ms;
	if (first) {
		v->upload_begun_ms = v->upload_told_ms = now;
		v->upload_first = sent;
	}
	if (v->mode == BT_VIEW_LIVE) {
		upload_bar(v, name, sent, size);
		if (sent < size && !first && now - v->upload_told_ms < 100)
			return;
		v->upload_told_ms = now;
		bt_view_tick(v);
		if (sent < size)
			return;
		bt_str_reset(&v->upload);
	} else if (sent < size && !(first && resumed) && now - v->upload_told_ms < 5000) {
		return; /* elsewhere a line every five seconds is enough */
	}
	v->upload_told_ms = now;
	char bytes[16], all[16], took[32];
	bt_view_amount(sent, bytes);
	bt_view_amount(size, all);
	seconds(now - v->upload_begun_ms, took);
	if (v->mode == BT_VIEW_JSON) {
		BT_JSON json_t *j = json_pack("{s:s, s:I, s:I}", "file", name, "sent",
			(json_int_t)sent, "size", (json_int_t)size);
		print_json("upload", j);
	} else if (sent == size) {
		bt_view_note(v, "uploaded %s: %s in %s", name, bytes, took);
	} else {
		bt_view_note(v, "uploading %s: %s of %s%s", name, bytes, all,
			first && resumed ? " were there already" : "");
	}
}

/* ---- records ---- */

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s && *s ? s : NULL;
}

static struct lane *lane_of(struct bt_view *v, const char *name)
{
	for (size_t i = 0; i < v->n_lanes; i++)
		if (bt_streq(v->lanes[i].name, name))
			return &v->lanes[i];
	if (v->n_lanes == LANES)
		return &v->lanes[LANES - 1];
	struct lane *l = &v->lanes[v->n_lanes++];
	*l = (struct lane){.name = bt_strdup(name), .begun_ms = bt_clock_boot_ms()};
	return l;
}

static void live_record(struct bt_view *v, const json_t *r, const struct bt_said *s)
{
	const char *kind = text_of(r, "kind");
	bool result = bt_streq(kind, "result");
	if (bt_streq(kind, "stage")) {
		leave_stage(v);
		v->stage = bt_strdup(s->words.data);
	} else if (s->where && (result || bt_streq(kind, "sent"))) {
		struct lane *l = lane_of(v, s->where);
		free(l->what);
		free(l->progress);
		l->what = bt_strdup(s->words.data);
		l->progress = NULL;
		l->mark = s->mark;
		l->ended_ms = result ? bt_clock_boot_ms() : 0;
	} else {
		print_line(v, "", s->where, s->mark, s->words.data);
	}
	bt_view_tick(v);
}

static void note_time(struct bt_view *v, const char *at)
{
	int64_t ms = bt_clock_parse(at);
	if (ms < 0)
		return;
	v->last_at_ms = ms;
	if (!v->first_at_ms)
		v->first_at_ms = v->last_at_ms;
}

int64_t bt_view_span_ms(const struct bt_view *v)
{
	return v->last_at_ms - v->first_at_ms;
}

void bt_view_record(struct bt_view *v, const json_t *record)
{
	if (v->mode == BT_VIEW_JSON) {
		print_json("record", record);
		return;
	}
	struct bt_said s = {0};
	note_time(v, text_of(record, "at"));
	if (bt_say(v->sayer, record, &s)) {
		char time[16];
		bt_view_time(text_of(record, "at"), time);
		if (v->mode == BT_VIEW_LIVE)
			live_record(v, record, &s);
		else
			print_line(v, time,
				bt_streq(text_of(record, "kind"), "stage") ? NULL : s.where, s.mark,
				s.words.data);
	}
	bt_str_done(&s.words);
}

void bt_view_progress(struct bt_view *v, const json_t *progress)
{
	const char *line = text_of(progress, "line"), *where = bt_say_place(v->sayer, progress);
	if (v->mode == BT_VIEW_JSON) {
		print_json("progress", progress);
		return;
	}
	if (!line || !where) /* late: its result was said */
		return;
	if (v->mode == BT_VIEW_LIVE) {
		struct lane *l = lane_of(v, where);
		free(l->progress);
		l->progress = bt_strdup(line);
		if (!l->what)
			l->what = bt_strdup("");
	} else if (!bt_streq(line, v->progress_told) &&
		   bt_clock_boot_ms() - v->progress_told_ms >= 1000) {
		char time[16];
		free(v->progress_told);
		v->progress_told = bt_strdup(line);
		v->progress_told_ms = bt_clock_boot_ms();
		now_text(time);
		print_line(v, time, where, BT_MARK_NONE, line);
	}
}

void bt_view_end(struct bt_view *v, const json_t *end)
{
	if (v->mode == BT_VIEW_JSON) {
		print_json("end", end);
		return;
	}
	if (v->mode == BT_VIEW_LIVE)
		leave_stage(v);
	bt_view_title(v, "");
	const char *instance;
	json_t *lines, *line;
	size_t i;
	json_object_foreach (json_object_get(end, "log_tail"), instance, lines) {
		if (!json_array_size(lines))
			continue;
		printf("last lines of %s:\n", instance);
		json_array_foreach (lines, i, line) {
			BT_STR struct bt_str clean = {0};
			bt_view_clean(
				&clean, json_string_value(line) ? json_string_value(line) : "", 0);
			printf("  │ %s\n", bt_str_get(&clean));
		}
	}
	fflush(stdout);
}
