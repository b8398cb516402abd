/* Columns of text, as wide as they need to be. */
#pragma once
#include "base/str.h"

#define BT_TABLE_COLUMNS 12
struct bt_table {
	size_t n_columns, n_rows, cap;
	char **cells; /* row by row */
};
/* A row; absent cells may be NULL. Text is cleaned of control characters. */
void bt_table_row(struct bt_table *t, size_t n, const char *const *cells);
void bt_table_print(const struct bt_table *t); /* to stdout; the first row is the heading */
/* Each row as a line; columns whose heading is in skip (NULL-terminated; NULL: none) are left out.
 */
void bt_table_each(const struct bt_table *t, const char *const *skip,
	void (*line)(void *arg, size_t row, const char *text), void *arg);
void bt_table_done(struct bt_table *t);
#define BT_TABLE __attribute__((cleanup(bt_table_done)))
#define BT_TABLE_ROW(t, ...)                                                                       \
	do {                                                                                       \
		const char *const cells_[] = {__VA_ARGS__};                                        \
		bt_table_row((t), BT_ARRAY_LEN(cells_), cells_);                                   \
	} while (0)
