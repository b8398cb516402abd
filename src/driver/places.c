#include "driver/places.h"

#include "base/str.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

char *bt_place_self(void)
{
	char buf[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", buf, sizeof buf - 1);
	static const char gone[] = " (deleted)";
	if (n <= 0)
		return bt_strdup("baton");
	buf[n] = '\0';
	if (bt_str_ends(buf, gone)) /* replaced since: what lies there now */
		buf[n - (ssize_t)sizeof gone + 1] = '\0';
	return bt_strdup(buf);
}

char *bt_place_shim(const char *self)
{
	static const char *const places[] = {"baton-shim", "../libexec/baton/baton-shim",
		"../lib/baton/baton-shim", "../shim/baton-shim"};
	const char *slash = strrchr(self, '/');
	int dir = slash ? (int)(slash - self) : 1;
	for (size_t i = 0; i < BT_ARRAY_LEN(places); i++) {
		char *path = bt_asprintf("%.*s/%s", dir, slash ? self : ".", places[i]);
		if (access(path, X_OK) == 0)
			return path;
		free(path);
	}
	return bt_asprintf("%.*s/%s", dir, slash ? self : ".", places[0]);
}
