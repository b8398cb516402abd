/* The page's files, gzip'd into the binary by tools/embed.py. */
#pragma once
#include <stddef.h>

struct bt_page_file {
	const char *name, *type;
	const char *etag; /* with its quotes */
	size_t at, len;	  /* in bt_page_data */
};
extern const struct bt_page_file bt_page_files[];
extern const size_t bt_page_files_n;
extern const unsigned char bt_page_data[];
