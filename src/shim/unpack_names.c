#include "shim/unpack_names.h"

#include <string.h>

/* The next component of *p, NULL at the end; *p goes behind it. */
static const char *component(const char **p, size_t *ret_n)
{
	while (**p == '/')
		(*p)++;
	if (!**p)
		return NULL;
	const char *start = *p;
	*ret_n = strcspn(start, "/");
	*p += *ret_n;
	return start;
}

static bool is(const char *c, size_t n, const char *word)
{
	return n == strlen(word) && memcmp(c, word, n) == 0;
}

const char *bt_unpack_path(const char *name, char buf[static BT_UNPACK_PATH_MAX])
{
	size_t len = 0, n, depth = 0;
	const char *c;
	buf[0] = 0;
	if (!name || !name[0])
		return "an empty name";
	if (name[0] == '/')
		return "an absolute path";
	while ((c = component(&name, &n))) {
		if (is(c, n, "."))
			continue;
		if (is(c, n, ".."))
			return "'..' in its path";
		if (n > 255 || len + n + 2 > BT_UNPACK_PATH_MAX)
			return "a path that is too long";
		if (++depth > BT_UNPACK_DEPTH_MAX)
			return "a path that is too deep";
		if (len)
			buf[len++] = '/';
		memcpy(buf + len, c, n);
		len += n;
		buf[len] = 0;
	}
	return NULL;
}

static size_t depth_of(const char *path)
{
	size_t n, depth = 0;
	while (component(&path, &n))
		depth++;
	return depth;
}

const char *bt_unpack_link(const char *path, const char *target)
{
	size_t n, up = 0, depth = depth_of(path);
	bool down = false;
	const char *c;
	if (!target || !target[0])
		return "a link without a target";
	if (target[0] == '/')
		return "a link to an absolute path";
	if (strlen(target) >= BT_UNPACK_PATH_MAX)
		return "a link whose target is too long";
	while ((c = component(&target, &n))) {
		if (is(c, n, "."))
			continue;
		if (!is(c, n, "..")) {
			down = true;
			continue;
		}
		if (down)
			return "a link with '..' after a name";
		if (++up >= depth) /* the link's own directory is depth - 1 deep */
			return "a link that leaves the archive";
	}
	return NULL;
}
