#include "expect.h"

#include "base/fs.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

void contains(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("'%s' is not in '%s'", part, text);
}

void is_golden(const char *text, const char *file, ...)
{
	struct bt_err err = {0};
	char name[256];
	va_list args;
	va_start(args, file);
	vsnprintf(name, sizeof name, file, args);
	va_end(args);
	BT_FREE char *path = bt_asprintf("%s/%s", GOLDEN_DIR, name);
	BT_FREE char *want = NULL;
	if (getenv("BATON_GOLDEN_UPDATE"))
		assert_int_equal(bt_fs_write_atomic(path, text, strlen(text), 0644, &err), 0);
	if (bt_fs_read(path, 1 << 20, &want, NULL, &err) < 0)
		fail_msg("%s", err.text);
	if (!bt_streq(want, text))
		fail_msg("%s differs:\n%s", path, text);
}
