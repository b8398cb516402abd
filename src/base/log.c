#include "base/log.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bt_log(const struct bt_log *log, enum bt_log_level level, const char *fmt, ...)
{
	static const char *const names[] = {"info ", "warn ", "error"};
	static const char *const priorities[] = {"<6>", "<4>", "<3>"};
	char line[2048], time[32] = "";
	int n = getenv("JOURNAL_STREAM")
			? snprintf(line, sizeof line, "%s", priorities[level])
			: snprintf(line, sizeof line, "%s %s ",
				  bt_clock_format(bt_clock_wall_ms(), time), names[level]);
	n += snprintf(line + n, sizeof line - (size_t)n, "%s", log ? log->context : "");
	va_list ap;
	va_start(ap, fmt);
	int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
	va_end(ap);
	size_t len = strlen(line);
	if (m < 0)
		return;
	for (char *p = line; *p; p++)
		if (*p == '\n')
			*p = ' ';
	line[len++] = '\n';
	if (bt_fs_write_all(STDERR_FILENO, line, len) < 0) {
		/* a log that cannot be written must not stop what it tells of */
	}
}
