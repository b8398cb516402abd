/* `baton top`. One stream of events says when something moved; only then, and every few seconds for
 * what no event tells (hosts, apps that die), the lists are asked for again. Asking runs the loop,
 * so keys and events are heard meanwhile: they only set wishes and draw; the outermost loop asks.
 */
#include "cli/top.h"

#include "base/clock.h"
#include "cli/answer.h"
#include "cli/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define EVERY_MS 5000
#define APART_MS 300
#define SAID_MAX 5000

struct detail { /* of the deployment that is looked at */
	int64_t id;
	json_t *deployment;
	struct bt_stream *stream;
	struct bt_sayer *sayer;
	struct bt_top_lines said;
	bool over; /* its end was told: the stream would begin anew */
	bool stay; /* the reader went up: new lines do not move the screen */
};

struct top {
	struct bt_client *client;
	struct bt_screen *screen; /* NULL: one look at everything */
	struct bt_stream *stream;
	json_t *services, *hosts, *deployments, *doing;
	char *trouble, *chosen;
	size_t first; /* line at the top of the screen */
	struct detail *detail;
	int64_t open_id; /* wish: look at this deployment */
	int64_t asked_ms;
	bool stale, quit;
};

/* ---- what the server says ------------------------------------------------------------------ */

static void set_trouble(struct top *t, const char *text)
{
	free(t->trouble);
	t->trouble = bt_strdup(text);
}

static int ask_one(
	struct top *t, const char *path, const char *list, json_t **to, struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	int r = bt_client_get(t->client, path, &j, err);
	if (r < 0)
		return r;
	json_decref(*to);
	*to = json_incref(json_object_get(j, list));
	return 0;
}

static void note(struct top *t, json_int_t id, const char *key, const char *text)
{
	char name[32];
	snprintf(name, sizeof name, "%" JSON_INTEGER_FORMAT, id);
	if (!json_object_get(t->doing, name))
		json_object_set_new(t->doing, name, json_object());
	json_object_set_new(json_object_get(t->doing, name), key, json_string(text));
}

/* What a deployment is at that had begun before we looked: its first task that has not ended. */
static int ask_doing(struct top *t, json_int_t id, struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	BT_FREE char *path = bt_asprintf("/v1/deployments/%" JSON_INTEGER_FORMAT, id);
	size_t i;
	json_t *task;
	int r = bt_client_get(t->client, path, &j, err);
	note(t, id, "stage", "");
	json_array_foreach (json_object_get(j, "tasks"), i, task) {
		const char *state = bt_answer_text(task, "state");
		if (bt_streq(state, "done") || bt_streq(state, "skipped"))
			continue;
		note(t, id, "stage", bt_answer_text(task, "stage"));
		note(t, id, "what", bt_answer_text(task, "words"));
		break;
	}
	return r;
}

static int ask_running(struct top *t, struct bt_err *err)
{
	BT_JSON json_t *list = json_incref(t->deployments);
	size_t i;
	json_t *d;
	int r = 0;
	json_array_foreach (list, i, d) {
		char id[32];
		bt_answer_number(d, "id", id);
		if (*bt_answer_text(d, "end"))
			json_object_del(t->doing, id);
		else if (!json_object_get(t->doing, id) && r == 0)
			r = ask_doing(t, json_integer_value(json_object_get(d, "id")), err);
	}
	return r;
}

static int ask_all(struct top *t, struct bt_err *err)
{
	t->stale = false;
	t->asked_ms = bt_clock_boot_ms();
	int r = ask_one(t, "/v1/services", "services", &t->services, err);
	if (r == 0)
		r = ask_one(t, "/v1/hosts", "hosts", &t->hosts, err);
	if (r == 0)
		r = ask_one(t, "/v1/deployments?limit=50", "deployments", &t->deployments, err);
	if (r == 0)
		r = ask_running(t, err);
	if (r == 0)
		set_trouble(t, NULL);
	return r;
}

/* ---- the screen ---------------------------------------------------------------------------- */

static void make_lines(const struct top *t, size_t columns, struct bt_top_lines *ret)
{
	if (t->detail) {
		bt_top_run(
			t->detail->deployment, &t->detail->said, bt_clock_wall_ms(), columns, ret);
		return;
	}
	struct bt_top_facts f = {.url = t->client->url,
		.trouble = t->trouble,
		.services = t->services,
		.hosts = t->hosts,
		.deployments = t->deployments,
		.doing = t->doing,
		.now_ms = bt_clock_wall_ms()};
	bt_top_overview(&f, columns, ret);
}

static size_t find_chosen(const struct top *t, const struct bt_top_lines *l)
{
	for (size_t i = 0; i < l->n; i++)
		if (t->chosen && bt_streq(l->lines[i].key, t->chosen))
			return i;
	return l->n;
}

static void draw(struct top *t)
{
	BT_TOP_LINES struct bt_top_lines l = {0};
	size_t rows, columns;
	if (!t->screen)
		return;
	bt_screen_size(t->screen, &rows, &columns);
	make_lines(t, columns, &l);
	size_t room = rows > 1 ? rows - 1 : 1, last = l.n > room ? l.n - room : 0;
	if (t->detail && !t->detail->stay)
		t->first = last;
	size_t at = t->detail ? l.n : find_chosen(t, &l);
	if (at < l.n && at < t->first)
		t->first = at;
	if (at < l.n && at >= t->first + room)
		t->first = at - room + 1;
	if (t->first > last)
		t->first = last;
	bt_screen_draw(t->screen, &l, t->first, t->detail ? NULL : t->chosen,
		t->detail ? "↑↓ scroll  ← back  q quit" : "↑↓ choose  Enter look  q quit");
}

/* ---- events -------------------------------------------------------------------------------- */

static void on_event(void *arg, const char *event, const json_t *data)
{
	struct top *t = arg;
	json_int_t id = json_integer_value(json_object_get(data, "deployment"));
	const char *kind = bt_answer_text(data, "kind");
	const char *words = bt_answer_text(json_object_get(data, "task"), "words");
	if (bt_streq(event, "progress")) {
		BT_FREE char *what = bt_asprintf("%s · %s", words, bt_answer_text(data, "line"));
		note(t, id, "what", what);
	} else if (bt_streq(event, "record")) {
		t->stale = true;
		if (*bt_answer_text(data, "stage"))
			note(t, id, "stage", bt_answer_text(data, "stage"));
		if (bt_streq(kind, "sent") && *words)
			note(t, id, "what", words);
		else if (bt_streq(kind, "lane_failed") || bt_streq(kind, "phase"))
			note(t, id, "what", bt_answer_text(data, "text"));
	}
	draw(t);
}

static void on_away(void *arg, const char *why)
{
	struct top *t = arg;
	BT_FREE char *text = bt_asprintf("the server is away (%s), trying again", why);
	set_trouble(t, text);
	draw(t);
}

static void on_back(void *arg)
{
	struct top *t = arg;
	t->stale = true;
}

static void on_failed(void *arg, const struct bt_err *err)
{
	struct top *t = arg;
	set_trouble(t, err->text);
	draw(t);
}

static const struct bt_stream_handlers all_events = {on_event, on_away, on_back, on_failed};

static void on_detail_event(void *arg, const char *event, const json_t *data)
{
	struct top *t = arg;
	struct detail *d = t->detail;
	if (d->over)
		return;
	if (d->said.n < SAID_MAX || bt_streq(event, "end"))
		bt_top_say(&d->said, d->sayer, event, data);
	if (bt_streq(event, "end")) {
		d->over = true;
		t->open_id = d->id; /* its heading has changed */
	}
	draw(t);
}

static void on_detail_away(void *arg, const char *why)
{
	(void)arg;
	(void)why; /* the stream of everything says it */
}

static void on_detail_back(void *arg)
{
	(void)arg;
}

static const struct bt_stream_handlers run_events = {
	on_detail_event, on_detail_away, on_detail_back, on_failed};

static void close_detail(struct top *t)
{
	struct detail *d = t->detail;
	if (!d)
		return;
	bt_stream_free(d->stream);
	bt_sayer_free(d->sayer);
	bt_top_lines_done(&d->said);
	json_decref(d->deployment);
	free(d);
	t->detail = NULL;
	t->first = 0;
}

static int open_detail(struct top *t, struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	int64_t id = t->open_id;
	BT_FREE char *path = bt_asprintf("/v1/deployments/%" PRId64, id);
	bool again = t->detail && t->detail->id == id;
	t->open_id = 0;
	int r = bt_client_get(t->client, path, &j, err);
	if (r < 0)
		return r;
	if (again && !t->detail)
		return 0; /* the reader went back meanwhile */
	if (again) {
		t->detail->stream = bt_stream_free(t->detail->stream);
		json_decref(t->detail->deployment);
		t->detail->deployment = json_incref(j);
		return 0;
	}
	close_detail(t);
	t->detail = bt_calloc(1, sizeof *t->detail);
	t->detail->id = id;
	t->detail->deployment = json_incref(j);
	t->detail->sayer = bt_sayer_new();
	BT_FREE char *events = bt_asprintf("%s/events", path);
	t->detail->stream = bt_stream_new(t->client, events, false, &run_events, t);
	return 0;
}

/* ---- keys ---------------------------------------------------------------------------------- */

/* The next line that can be chosen, `step` up or down. */
static void choose(struct top *t, const struct bt_top_lines *l, int step)
{
	size_t at = find_chosen(t, l);
	if (at == l->n && step > 0)
		at = SIZE_MAX; /* before the first line */
	for (at += (size_t)step; at < l->n; at += (size_t)step)
		if (l->lines[at].key) {
			free(t->chosen);
			t->chosen = bt_strdup(l->lines[at].key);
			return;
		}
	if (step < 0)
		t->first = 0;
}

static void scroll_by(struct top *t, const struct bt_top_lines *l, long step)
{
	size_t rows, columns;
	bt_screen_size(t->screen, &rows, &columns);
	size_t last = l->n + 1 > rows ? l->n + 1 - rows : 0;
	if (step < 0)
		t->first = t->first > (size_t)-step ? t->first - (size_t)-step : 0;
	else
		t->first = (size_t)step < last - t->first ? t->first + (size_t)step : last;
	if (t->detail) {
		t->detail->stay = t->first < last;
		return;
	}
	free(t->chosen); /* else the screen would go back to it */
	t->chosen = NULL;
}

static void look_at_chosen(struct top *t)
{
	size_t i;
	json_t *d;
	if (!t->chosen)
		return;
	if (bt_str_starts(t->chosen, "run/")) {
		bt_int_parse(t->chosen + 4, 1, INT64_MAX, &t->open_id, NULL);
		return;
	}
	json_array_foreach (t->deployments, i, d) /* a service: its newest */
		if (bt_streq(bt_answer_text(d, "service"), strchr(t->chosen, '/') + 1)) {
			t->open_id = json_integer_value(json_object_get(d, "id"));
			return;
		}
}

static void leave(struct top *t)
{
	t->quit = true;
	t->client->signals = t->client->leave_at; /* ends a call that is under way */
}

static void act(struct top *t, enum bt_key_press key)
{
	BT_TOP_LINES struct bt_top_lines l = {0};
	size_t rows, columns;
	bt_screen_size(t->screen, &rows, &columns);
	make_lines(t, columns, &l);
	long page = rows > 2 ? (long)rows - 2 : 1;
	switch (key) {
	case BT_PRESS_QUIT:
		leave(t);
		break;
	case BT_PRESS_BACK:
		close_detail(t);
		break;
	case BT_PRESS_ENTER:
		if (!t->detail)
			look_at_chosen(t);
		break;
	case BT_PRESS_UP:
	case BT_PRESS_DOWN:
		if (t->detail)
			scroll_by(t, &l, key == BT_PRESS_UP ? -1 : 1);
		else
			choose(t, &l, key == BT_PRESS_UP ? -1 : 1);
		break;
	case BT_PRESS_PAGE_UP:
	case BT_PRESS_PAGE_DOWN:
		scroll_by(t, &l, key == BT_PRESS_PAGE_UP ? -page : page);
		break;
	case BT_PRESS_HOME:
	case BT_PRESS_END:
		scroll_by(t, &l, key == BT_PRESS_HOME ? -(long)l.n : (long)l.n);
		break;
	case BT_PRESS_NONE:
	case BT_PRESS_OTHER:
		break;
	}
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
	struct top *t = arg;
	enum bt_key_press key;
	char none;
	(void)what;
	while ((key = bt_screen_key(t->screen)) != BT_PRESS_NONE)
		act(t, key);
	if (read(fd, &none, 0) < 0 && errno != EAGAIN) /* the terminal is gone */
		leave(t);
	draw(t);
}

static void on_resize(evutil_socket_t number, short what, void *arg)
{
	struct top *t = arg;
	(void)number;
	(void)what;
	bt_screen_resized(t->screen);
	draw(t);
}

static void on_hangup(evutil_socket_t number, short what, void *arg)
{
	(void)number;
	(void)what;
	leave(arg);
}

static void on_second(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	draw(arg);
}

/* ---- life ---------------------------------------------------------------------------------- */

static int64_t wait_left(const struct top *t)
{
	int64_t since = bt_clock_boot_ms() - t->asked_ms;
	return (t->stale ? APART_MS : EVERY_MS) - since;
}

static void on_due(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

/* Whatever happens first may have left a wish. */
static void turn(struct event_base *base, struct event *due, int64_t ms)
{
	bt_timer_in(due, ms);
	event_base_loop(base, EVLOOP_ONCE);
}

static int watch(struct top *t, struct bt_err *err)
{
	struct event_base *base = t->client->base;
	struct timeval second = {1, 0};
	struct event *input = event_new(base, STDIN_FILENO, EV_READ | EV_PERSIST, on_input, t);
	struct event *resize = evsignal_new(base, SIGWINCH, on_resize, t);
	struct event *hangup = evsignal_new(base, SIGHUP, on_hangup, t);
	struct event *tick = event_new(base, -1, EV_PERSIST, on_second, t);
	event_add(input, NULL);
	struct event *due = evtimer_new(base, on_due, t); /* only ends a turn of the loop */
	event_add(resize, NULL);
	event_add(hangup, NULL);
	event_add(tick, &second);
	t->stream = bt_stream_new(t->client, "/v1/events", true, &all_events, t);
	t->stale = true; /* what happened between the first answers and the stream */
	draw(t);
	while (!t->quit && !bt_client_leaves(t->client)) {
		struct bt_err trouble = {0};
		int64_t left = wait_left(t);
		int r = t->open_id  ? open_detail(t, &trouble)
			: left <= 0 ? ask_all(t, &trouble)
				    : 1;
		if (r < 0 && r != -EINTR)
			set_trouble(t, trouble.text);
		if (r < 1)
			draw(t);
		else
			turn(base, due, left);
	}
	bt_stream_free(t->stream);
	event_free(input);
	event_free(resize);
	event_free(hangup);
	event_free(due);
	event_free(tick);
	(void)err;
	return BT_EXIT_OK;
}

static void print_once(struct top *t)
{
	BT_TOP_LINES struct bt_top_lines l = {0};
	make_lines(t, 0, &l);
	for (size_t i = 0; i < l.n; i++)
		puts(l.lines[i].text);
}

int bt_cmd_top(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
	bool once = bt_cli_has(cli, "once") || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) ||
		    !term || bt_streq(term, "dumb");
	int r = bt_client_open(cli, &c, err);
	if (r < 0)
		return r;
	struct top t = {.client = c, .doing = json_object()};
	bt_client_catch_signals(c);
	c->leave_at = 1;
	/* The first answers come before the screen, so that what does not work is said in words. */
	r = ask_all(&t, err);
	if (r == 0 && once)
		print_once(&t);
	else if (r == 0)
		r = bt_screen_open(!(no_color && *no_color), &t.screen, err);
	if (r == 0 && t.screen)
		r = watch(&t, err);
	close_detail(&t);
	bt_screen_close(t.screen);
	json_decref(t.services);
	json_decref(t.hosts);
	json_decref(t.deployments);
	json_decref(t.doing);
	free(t.trouble);
	free(t.chosen);
	return r;
}
