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

void bt_table_print(const struct bt_table *t)
{
	size_t widths[BT_TABLE_COLUMNS] = {0};
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++) {
		size_t w = bt_view_columns(t->cells[i]);
		if (w > widths[i % t->n_columns])
			widths[i % t->n_columns] = w;
	}
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++) {
		bool last = i % t->n_columns == t->n_columns - 1;
		size_t w = bt_view_columns(t->cells[i]);
		fputs(t->cells[i], stdout);
		if (last)
			putchar('\n');
		else
			printf("%*s", (int)(widths[i % t->n_columns] - w + 2), "");
	}
}

void bt_table_done(struct bt_table *t)
{
	for (size_t i = 0; i < t->n_rows * t->n_columns; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct bt_table){0};
}
