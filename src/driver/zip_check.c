/* A zip is read from its end: the end record names the central directory, whose first header names
 * the first entry. A file that was cut while it was copied has no end record, a page of HTML that a
 * download answered with has none, and an empty one is no web application. The numbers come from
 * outside: each is held against the file's size before it is used.
 *
 * APPNOTE.TXT 6.3.10 of PKWARE: 4.3.16 (end record), 4.3.14 and 4.3.15 (zip64), 4.3.12 (central
 * header), 4.3.7 (local header). */
#include "driver/zip_check.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	END_BYTES = 22,
	COMMENT_MAX = 65535,
	LOCATOR_BYTES = 20,
	END64_BYTES = 56,
	CENTRAL_BYTES = 46,
};

static uint32_t u16(const unsigned char *p)
{
	return (uint32_t)(p[0] | p[1] << 8);
}

static uint64_t u32(const unsigned char *p)
{
	return u16(p) | (uint64_t)u16(p + 2) << 16;
}

static uint64_t u64(const unsigned char *p)
{
	return u32(p) | u32(p + 4) << 32;
}

static bool is_at(const unsigned char *p, const char *two)
{
	return p[0] == 'P' && p[1] == 'K' && p[2] == (unsigned char)two[0] &&
	       p[3] == (unsigned char)two[1];
}

static bool read_at(int fd, uint64_t at, void *buf, size_t n)
{
	return at <= INT64_MAX && pread(fd, buf, n, (off_t)at) == (ssize_t)n;
}

struct end { /* of the central directory */
	uint64_t entries, bytes, at;
};

/* The zip64 records stand right before the end record. */
static bool read_end64(int fd, uint64_t end_at, struct end *e)
{
	unsigned char locator[LOCATOR_BYTES], end[END64_BYTES];
	if (end_at < LOCATOR_BYTES ||
		!read_at(fd, end_at - LOCATOR_BYTES, locator, sizeof locator) ||
		!is_at(locator, "\6\7") || u64(locator + 8) >= end_at ||
		!read_at(fd, u64(locator + 8), end, sizeof end) || !is_at(end, "\6\6"))
		return false;
	*e = (struct end){u64(end + 32), u64(end + 40), u64(end + 48)};
	return true;
}

/* The last end record whose comment reaches to the file's end. */
static bool find_end(int fd, uint64_t size, struct end *ret, uint64_t *ret_at)
{
	size_t n = size < END_BYTES + COMMENT_MAX ? (size_t)size : END_BYTES + COMMENT_MAX;
	BT_FREE unsigned char *tail = bt_malloc(n + 1);
	if (n < END_BYTES || !read_at(fd, size - n, tail, n))
		return false;
	for (size_t i = n - END_BYTES + 1; i-- > 0;) {
		const unsigned char *p = tail + i;
		if (!is_at(p, "\5\6") || u16(p + 20) != n - END_BYTES - i)
			continue;
		*ret_at = size - n + i;
		*ret = (struct end){u16(p + 10), u32(p + 12), u32(p + 16)};
		return (ret->entries != 0xffff && ret->bytes != 0xffffffff &&
			       ret->at != 0xffffffff) ||
		       read_end64(fd, *ret_at, ret);
	}
	return false;
}

/* Programs may write something before the archive: then all offsets are off by its length. */
static bool has_first_entry(int fd, const struct end *e, uint64_t end_at)
{
	unsigned char central[CENTRAL_BYTES], local[4];
	if (e->bytes < CENTRAL_BYTES || e->bytes > end_at || e->at > end_at - e->bytes)
		return false;
	uint64_t before = 0;
	if (!read_at(fd, e->at, central, sizeof central))
		return false;
	if (!is_at(central, "\1\2")) {
		before = end_at - e->bytes - e->at;
		if (!read_at(fd, e->at + before, central, sizeof central) ||
			!is_at(central, "\1\2"))
			return false;
	}
	uint64_t first = u32(central + 42);
	return first == 0xffffffff ||
	       (first + before < e->at + before &&
		       read_at(fd, first + before, local, sizeof local) && is_at(local, "\3\4"));
}

int bt_zip_check_fd(int fd, struct bt_err *err)
{
	struct stat st;
	struct end e;
	uint64_t end_at;
	if (fstat(fd, &st) < 0)
		return bt_err_errno(err, errno, "read it");
	if (!S_ISREG(st.st_mode) || !find_end(fd, (uint64_t)st.st_size, &e, &end_at))
		return bt_err_set(err, BT_E_CORRUPT,
			"it is no zip archive, or only a part of one (its end is missing)");
	if (e.entries == 0)
		return bt_err_set(err, BT_E_CORRUPT, "it is a zip archive without any entry");
	if (!has_first_entry(fd, &e, end_at))
		return bt_err_set(err, BT_E_CORRUPT,
			"it is a broken zip archive: its directory is not where its end says");
	return 0;
}

int bt_zip_check(const char *path, struct bt_err *err)
{
	BT_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return bt_err_errno(err, errno, "open it");
	return bt_zip_check_fd(fd, err);
}
