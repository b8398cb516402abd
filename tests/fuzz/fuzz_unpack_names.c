/* Names and link targets of archives: what is accepted cannot leave the tree, even through any
 * chain of links that were accepted as well. The input is lines: "path" or "path -> target". */
#include "fuzz.h"

#include "shim/unpack_names.h"

#include <string.h>

#define LINKS 64
#define HOPS 200

struct link {
	char path[BT_UNPACK_PATH_MAX], target[BT_UNPACK_PATH_MAX];
};
static struct link links[LINKS];
static size_t n_links;

static void check_plain(const char *path)
{
	FUZZ_CHECK(path[0] != '/' && strlen(path) < BT_UNPACK_PATH_MAX);
	for (const char *p = path; *p; p += strspn(p, "/")) {
		size_t n = strcspn(p, "/");
		FUZZ_CHECK(n > 0 && n <= 255);
		FUZZ_CHECK(!(n == 1 && p[0] == '.') && !(n == 2 && p[0] == '.' && p[1] == '.'));
		p += n;
		FUZZ_CHECK(!(p[0] == '/' && (p[1] == '/' || !p[1])));
	}
}

static const char *target_of(const char *path)
{
	for (size_t i = 0; i < n_links; i++)
		if (strcmp(links[i].path, path) == 0)
			return links[i].target;
	return NULL;
}

/* Puts `way` in front of what is left to walk; false: too long to go on. */
static int prepend(char *left, size_t cap, const char *way, size_t n)
{
	size_t have = strlen(left);
	if (n + have + 2 > cap)
		return 0;
	memmove(left + n + 1, left, have + 1);
	memcpy(left, way, n);
	left[n] = '/';
	return 1;
}

/* Walks as the kernel does: a name that is a link is replaced by its target. */
static void walk(const char *path)
{
	char at[4 * BT_UNPACK_PATH_MAX] = "", left[4 * BT_UNPACK_PATH_MAX];
	strcpy(left, path);
	for (int hops = 0; left[0] && hops < HOPS;) {
		size_t skip = strspn(left, "/");
		memmove(left, left + skip, strlen(left + skip) + 1);
		size_t n = strcspn(left, "/"), len = strlen(at);
		if (n == 0)
			break;
		if (n == 2 && memcmp(left, "..", 2) == 0) {
			FUZZ_CHECK(len > 0); /* this would leave the tree */
			char *slash = strrchr(at, '/');
			*(slash ? slash : at) = 0;
		} else if (!(n == 1 && left[0] == '.')) {
			if (len + n + 2 > sizeof at)
				return;
			if (len)
				at[len++] = '/';
			memcpy(at + len, left, n);
			at[len + n] = 0;
		}
		memmove(left, left + n, strlen(left + n) + 1);
		const char *target = target_of(at);
		if (!target)
			continue;
		hops++;
		char *slash = strrchr(at, '/');
		*(slash ? slash : at) = 0;
		if (!prepend(left, sizeof left, target, strlen(target)))
			return;
	}
}

/* As in a tree: nothing is made behind a link, and a name is one thing. */
static int behind_link(const char *path)
{
	char part[BT_UNPACK_PATH_MAX];
	for (size_t n = 0; path[n]; n++) {
		if (path[n] != '/')
			continue;
		memcpy(part, path, n);
		part[n] = 0;
		if (target_of(part))
			return 1;
	}
	return 0;
}

static int is_above_something(const char *path)
{
	size_t n = strlen(path);
	for (size_t i = 0; i < n_links; i++)
		if (strncmp(links[i].path, path, n) == 0 &&
			(links[i].path[n] == '/' || !links[i].path[n]))
			return 1;
	return 0;
}

static void line(char *text)
{
	char path[BT_UNPACK_PATH_MAX];
	char *arrow = strstr(text, " -> ");
	if (arrow)
		*arrow = 0;
	const char *why = bt_unpack_path(text, path);
	if (why)
		return;
	check_plain(path);
	if (!arrow || !path[0] || bt_unpack_link(path, arrow + 4))
		return;
	FUZZ_CHECK(arrow[4] != '/' && arrow[4]);
	if (n_links == LINKS || behind_link(path) || is_above_something(path))
		return;
	strcpy(links[n_links].path, path);
	strcpy(links[n_links++].target, arrow + 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[4096];
	if (size >= sizeof text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	n_links = 0;
	for (char *p = text, *nl; *p; p = nl + 1) {
		nl = strchr(p, '\n');
		if (nl)
			*nl = 0;
		line(p);
		if (!nl)
			break;
	}
	for (size_t i = 0; i < n_links; i++)
		walk(links[i].path);
	return 0;
}
