#include "cli/table.h"

#include "cli/view.h"

#include <assert.h>
#include <stdio.h>

void bt_table_row(struct bt_table *t, size_t n, const char *const *cells)
{
	assert(n <= BT_TABLE_COLUMNS && (!t->n_rows || n == t->n_columns));
	t->n_columns = n;
	if (t->n_rows == t->cap) {
		t->cap = t->cap ? t->cap * 2 : 16;
		t->cells = bt_realloc(t->cells, t->cap * n * sizeof *t->cells);
	}
	for (size_t i = 0; i < n; i++) {
		struct bt_str s = {0};
		bt_view_clean(&s, cells[i] && *cells[i] ? cells[i] : "-", 0);
		t->cells[t->n_rows * n + i] = bt_str_steal(&s);
	}
	t->n_rows++;
}

static bool skipped(const char *heading, const char *const *skip)
{
	for (; skip && *skip; skip++)
		if (bt_streq(heading, *skip))
			return true;
	return false;
}

static size_t widest(const struct bt_table *t, size_t column)
{
	size_t most = 0;
	for (size_t row = 0; row < t->n_rows; row++) {
		size_t w = bt_view_columns(t->cells[row * t->n_columns + column]);
		most = w > most ? w : most;
	}
	return most;
}

static void add_row(const struct bt_table *t, const size_t *widths, size_t row,
	const char *const *skip, struct bt_str *out)
{
	size_t gap = 0;
	for (size_t i = 0; i < t->n_columns; i++) {
		const char *cell = t->cells[row * t->n_columns + i];
		if (skipped(t->cells[i], skip))
			continue;
		bt_str_addf(out, "%*s%s", (int)gap, "", cell);
		gap = widths[i] - bt_view_columns(cell) + 2;
	}
}

void bt_table_each(const struct bt_table *t, const char *const *skip,
	void (*line)(void *arg, size_t row, const char *text), void *arg)
{
	size_t widths[BT_TABLE_COLUMNS];
	for (size_t i = 0; i < t->n_columns; i++)
		widths[i] = widest(t, i);
	for (size_t row = 0; row < t->n_rows; row++) {
		BT_STR struct bt_str text = {0};
		add_row(t, widths, row, skip, &text);
		line(arg, row, bt_str_get(&text));
	}
}

static void print_line(void *arg, size_t row, const char *text)
{
	(void)arg;
	(void)row;
	puts(text);
}

void bt_table_print(const struct bt_table *t)
{
	bt_table_each(t, NULL, print_line, NULL);
}

void bt_table_done(struct bt_table *t)
{
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct bt_table){0};
}
