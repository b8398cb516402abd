/* What `baton top` shows, as lines. Columns are as wide as their texts; what does not fit is cut,
 * and on a narrow terminal the columns that matter least are left out. */
#include "base/clock.h"
#include "cli/answer.h"
#include "cli/table.h"
#include "cli/top.h"
#include "cli/view.h"

#include <stdio.h>
#include <string.h>

#define NARROW 72 /* fewer columns than this: only what matters */
#define RUNS_ENDED 5

void bt_top_lines_done(struct bt_top_lines *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->lines[i].key);
		free(l->lines[i].text);
	}
	free(l->lines);
	*l = (struct bt_top_lines){0};
}

static struct bt_top_line *add(
	struct bt_top_lines *l, size_t columns, enum bt_mark mark, const char *text)
{
	struct bt_str cut = {0};
	if (l->n == l->cap) {
		l->cap = l->cap ? 2 * l->cap : 32;
		l->lines = bt_realloc(l->lines, l->cap * sizeof *l->lines);
	}
	bt_view_clean(&cut, text, columns);
	l->lines[l->n] = (struct bt_top_line){.mark = mark, .text = bt_str_steal(&cut)};
	return &l->lines[l->n++];
}

static void heading(struct bt_top_lines *l, size_t columns, const char *text)
{
	if (l->n)
		add(l, columns, BT_MARK_NONE, "");
	add(l, columns, BT_MARK_NONE, text)->heading = true;
}

/* "0.4s" "12s" "3m" "2h" "5d": short enough for a column. */
static void age(int64_t ms, char buf[static 32])
{
	int64_t s = ms < 0 ? 0 : ms / 1000;
	if (s < 10)
		snprintf(buf, 32, "%lld.%llds", (long long)s,
			(long long)(ms < 0 ? 0 : ms % 1000 / 100));
	else if (s < 120)
		snprintf(buf, 32, "%llds", (long long)s);
	else if (s < 7200)
		snprintf(buf, 32, "%lldm", (long long)(s / 60));
	else if (s < 172800)
		snprintf(buf, 32, "%lldh", (long long)(s / 3600));
	else
		snprintf(buf, 32, "%lldd", (long long)(s / 86400));
}

/* ---- tables whose rows are lines ----------------------------------------------------------- */

struct row {
	enum bt_mark mark;
	char *key;
	struct bt_str after; /* lines of their own below it, as bad news */
};

struct grid {
	struct bt_table table;
	struct row rows[1024];
	size_t n;
};

static bool full(const struct grid *g)
{
	return g->n == BT_ARRAY_LEN(g->rows);
}

#define ROW(g, m, k, ...)                                                                          \
	do {                                                                                       \
		(g)->rows[(g)->n++] = (struct row){.mark = (m), .key = (k)};                       \
		BT_TABLE_ROW(&(g)->table, __VA_ARGS__);                                            \
	} while (0)

struct put {
	struct bt_top_lines *lines;
	struct grid *grid;
	size_t columns;
};

static void put_row(void *arg, size_t row, const char *text)
{
	struct put *p = arg;
	struct row *r = &p->grid->rows[row];
	add(p->lines, p->columns, r->mark, text)->key = r->key;
	for (const char *line = bt_str_get(&r->after); *line;) {
		size_t n = strcspn(line, "\n");
		BT_FREE char *one = bt_asprintf("  %.*s", (int)n, line);
		add(p->lines, p->columns, BT_MARK_BAD, one);
		line += n + (line[n] == '\n');
	}
	bt_str_done(&r->after);
}

/* skip: headings of columns that are left out; NULL: none. */
static void put_grid(
	struct bt_top_lines *l, struct grid *g, const char *const *skip, size_t columns)
{
	struct put p = {l, g, columns};
	bt_table_each(&g->table, skip, put_row, &p);
	bt_table_done(&g->table);
	free(g);
}

static const json_t *doing(const struct bt_top_facts *f, const json_t *run)
{
	char id[32];
	bt_answer_number(run, "id", id);
	return json_object_get(f->doing, id);
}

static enum bt_mark mark_of_end(const char *end)
{
	return bt_streq(end, "done") ? BT_MARK_GOOD : BT_MARK_BAD;
}

static void run_row(struct grid *g, const struct bt_top_facts *f, const json_t *run)
{
	char id[32], took[32];
	const char *end = bt_answer_text(run, "end");
	bool open = !*end || bt_streq(end, "none");
	int64_t begun = bt_clock_parse(bt_answer_text(run, "started_at"));
	int64_t over = bt_clock_parse(bt_answer_text(run, "ended_at"));
	const json_t *now = doing(f, run);
	bt_answer_number(run, "id", id);
	age((over >= 0 ? over : f->now_ms) - begun, took);
	BT_FREE char *versions =
		*bt_answer_text(run, "old_version")
			? bt_asprintf("%s → %s", bt_answer_text(run, "old_version"),
				  bt_answer_text(run, "version"))
			: bt_strdup(bt_answer_text(run, "version"));
	BT_FREE char *state = bt_strdup(open ? bt_answer_text(run, "phase") : end);
	for (char *p = state; *p; p++)
		if (*p == '_')
			*p = ' ';
	bool bad = bt_streq(state, "parked") || bt_streq(state, "undoing");
	ROW(g, open ? bad ? BT_MARK_BAD : BT_MARK_BEGIN : mark_of_end(end),
		bt_asprintf("run/%s", id), id, bt_answer_text(run, "service"), versions, state,
		open ? bt_answer_text(now, "stage") : "", took,
		open ? bt_answer_text(now, "what") : bt_answer_text(run, "reason"));
}

static void runs(const struct bt_top_facts *f, size_t columns, struct bt_top_lines *l)
{
	static const char *const less[] = {"STAGE", "WHAT", NULL};
	struct grid *g = bt_calloc(1, sizeof *g);
	size_t i, ended = 0;
	json_t *run;
	heading(l, columns, "RUNS");
	ROW(g, BT_MARK_NONE, NULL, "ID", "SERVICE", "VERSION", "STATE", "STAGE", "TIME", "WHAT");
	json_array_foreach (f->deployments, i, run) {
		const char *end = bt_answer_text(run, "end");
		bool open = !*end || bt_streq(end, "none");
		if (!full(g) && (open || ended++ < RUNS_ENDED))
			run_row(g, f, run);
	}
	bool none = g->n == 1;
	put_grid(l, g, columns && columns < NARROW ? less : NULL, columns);
	if (none)
		add(l, columns, BT_MARK_NONE,
			f->deployments ? "none yet: `baton deploy` starts one" : "…");
}

static void slot_row(struct grid *g, const struct bt_top_facts *f, const json_t *slot)
{
	char port[32], up[32] = "";
	const char *state = bt_answer_text(slot, "state"),
		   *holder = bt_answer_text(slot, "stranger");
	int64_t since = bt_clock_parse(bt_answer_text(slot, "since"));
	bool runs = bt_streq(state, "running"), in = json_is_true(json_object_get(slot, "in"));
	if (json_is_false(json_object_get(slot, "healthy"))) {
		state = "unhealthy";
		runs = false;
	}
	bt_answer_number(slot, "port", port);
	if (since > 0)
		age(f->now_ms - since, up);
	BT_FREE char *name =
		bt_asprintf("  %s/%s", bt_answer_text(slot, "host"), bt_answer_text(slot, "slot"));
	enum bt_mark mark = in					? runs ? BT_MARK_GOOD : BT_MARK_BAD
			    : runs || bt_streq(state, "absent") ? BT_MARK_NONE
								: BT_MARK_NOTE;
	ROW(g, mark, NULL, name, bt_answer_text(slot, "version"), *holder ? holder : state,
		in ? "in" : "out", port, up);
}

static void service_rows(struct grid *g, const struct bt_top_facts *f, const json_t *service)
{
	size_t i;
	json_t *one;
	const char *phase = bt_answer_text(service, "phase");
	BT_FREE char *key = bt_asprintf("service/%s", bt_answer_text(service, "name"));
	ROW(g, bt_streq(phase, "idle") ? BT_MARK_NONE : BT_MARK_BEGIN, BT_STEAL(key),
		bt_answer_text(service, "name"),
		bt_answer_text(json_object_get(service, "release"), "version"), phase, " ", " ",
		" ");
	json_array_foreach (json_object_get(service, "slots"), i, one)
		if (!full(g))
			slot_row(g, f, one);
	struct bt_str *after = &g->rows[g->n - 1].after;
	bt_answer_gate(service, after);
	if (*bt_answer_text(service, "trouble"))
		bt_str_addf(after, "%s\n", bt_answer_text(service, "trouble"));
	json_array_foreach (json_object_get(service, "balancers"), i, one)
		if (*bt_answer_text(one, "trouble"))
			bt_str_addf(after, "%s on %s: %s\n", bt_answer_text(one, "family"),
				bt_answer_text(one, "host"), bt_answer_text(one, "trouble"));
}

static void services(const struct bt_top_facts *f, size_t columns, struct bt_top_lines *l)
{
	static const char *const less[] = {"PORT", NULL};
	struct grid *g = bt_calloc(1, sizeof *g);
	size_t i;
	json_t *service;
	heading(l, columns, "SERVICES");
	ROW(g, BT_MARK_NONE, NULL, "SERVICE", "VERSION", "STATE", "ROTATION", "PORT", "UP");
	json_array_foreach (f->services, i, service)
		if (!full(g))
			service_rows(g, f, service);
	bool none = g->n == 1;
	put_grid(l, g, columns && columns < NARROW ? less : NULL, columns);
	if (none)
		add(l, columns, BT_MARK_NONE,
			f->services ? "none yet: `baton deploy` makes the first" : "…");
}

static void hosts(const struct bt_top_facts *f, size_t columns, struct bt_top_lines *l)
{
	static const char *const less[] = {"ADDRESS", "AGENT", NULL};
	struct grid *g = bt_calloc(1, sizeof *g);
	size_t i;
	json_t *host;
	heading(l, columns, "HOSTS");
	ROW(g, BT_MARK_NONE, NULL, "HOST", "ADDRESS", "AGENT", "CONNECTED", "SEEN", "FREE");
	json_array_foreach (f->hosts, i, host) {
		char seen[32] = "", room[32] = "";
		bool here = json_is_true(json_object_get(host, "connected"));
		int64_t at = bt_clock_parse(bt_answer_text(host, "last_seen_at"));
		int64_t bytes = json_integer_value(json_object_get(host, "free_bytes"));
		if (at >= 0 && !here)
			age(f->now_ms - at, seen);
		if (bytes > 0)
			bt_view_amount(bytes, room);
		if (!full(g))
			ROW(g, here ? BT_MARK_NONE : BT_MARK_BAD, NULL,
				bt_answer_text(host, "name"), bt_answer_text(host, "address"),
				bt_answer_text(host, "agent_version"), here ? "yes" : "NO",
				here ? "now" : seen, room);
	}
	bool none = g->n == 1;
	put_grid(l, g, columns && columns < NARROW ? less : NULL, columns);
	if (none)
		add(l, columns, BT_MARK_NONE, f->hosts ? "none yet: `baton join-token HOST`" : "…");
}

void bt_top_overview(const struct bt_top_facts *f, size_t columns, struct bt_top_lines *ret)
{
	char at[32], clock[16];
	bt_view_time(bt_clock_format(f->now_ms, at), clock);
	BT_FREE char *title = bt_asprintf("baton · %s · %s", f->url, clock);
	add(ret, columns, BT_MARK_NONE, title)->heading = true;
	if (f->trouble)
		add(ret, columns, BT_MARK_BAD, f->trouble);
	services(f, columns, ret);
	runs(f, columns, ret);
	hosts(f, columns, ret);
}

/* ---- one deployment ------------------------------------------------------------------------ */

void bt_top_run(const json_t *deployment, const struct bt_top_lines *said, int64_t now_ms,
	size_t columns, struct bt_top_lines *ret)
{
	char id[32], took[32];
	const char *end = bt_answer_text(deployment, "end"),
		   *old = bt_answer_text(deployment, "old_version");
	int64_t begun = bt_clock_parse(bt_answer_text(deployment, "started_at"));
	int64_t over = bt_clock_parse(bt_answer_text(deployment, "ended_at"));
	bt_answer_number(deployment, "id", id);
	age((over >= 0 ? over : now_ms) - begun, took);
	BT_FREE char *title = bt_asprintf("deployment %s · %s %s%s%s · %s · %s · %s", id,
		bt_answer_text(deployment, "service"), bt_answer_text(deployment, "version"),
		*old ? " over " : "", old, bt_answer_text(deployment, "strategy"),
		*end ? end : bt_answer_text(deployment, "phase"), took);
	add(ret, columns, BT_MARK_NONE, title)->heading = true;
	add(ret, columns, BT_MARK_NONE, "");
	for (size_t i = 0; i < said->n; i++)
		add(ret, columns, said->lines[i].mark, said->lines[i].text);
}

static void say_tail(struct bt_top_lines *said, const json_t *end)
{
	const char *instance;
	json_t *lines, *line;
	size_t i;
	json_object_foreach (json_object_get((json_t *)end, "log_tail"), instance, lines) {
		if (!json_array_size(lines))
			continue;
		BT_FREE char *head = bt_asprintf("last lines of %s:", instance);
		add(said, 0, BT_MARK_NOTE, head);
		json_array_foreach (lines, i, line) {
			BT_FREE char *text = bt_asprintf(
				"  │ %s", json_string_value(line) ? json_string_value(line) : "");
			add(said, 0, BT_MARK_NONE, text);
		}
	}
}

static void say_end(struct bt_top_lines *said, const json_t *end)
{
	const char *name = bt_answer_text(end, "end"), *why = bt_answer_text(end, "reason");
	say_tail(said, end);
	BT_FREE char *text = bt_asprintf("ended: %s%s%s", name, *why ? ": " : "", why);
	for (char *p = text; *p && *p != ':'; p++)
		if (*p == '_')
			*p = ' ';
	add(said, 0, mark_of_end(name), text);
}

void bt_top_say(
	struct bt_top_lines *said, struct bt_sayer *sayer, const char *event, const json_t *data)
{
	struct bt_said s = {0};
	if (bt_streq(event, "end")) {
		say_end(said, data);
	} else if (bt_streq(event, "record") && bt_say(sayer, data, &s)) {
		char at[16];
		bool stage = bt_streq(bt_answer_text(data, "kind"), "stage");
		bt_view_time(bt_answer_text(data, "at"), at);
		BT_FREE char *text = bt_asprintf(
			"%s %-14s %s", at, s.where && !stage ? s.where : "", bt_str_get(&s.words));
		add(said, 0, s.mark, text);
	} else if (bt_streq(event, "progress")) {
		const char *where = bt_say_place(sayer, data);
		BT_FREE char *text = where ? bt_asprintf("%8s %-14s   %s", "", where,
						     bt_answer_text(data, "line"))
					   : NULL;
		if (text)
			add(said, 0, BT_MARK_NONE, text);
	}
	bt_str_done(&s.words);
}
