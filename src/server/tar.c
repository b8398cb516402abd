#include "server/tar.h"

#include "base/fs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BLOCK 512

struct head {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
	char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct head) == BLOCK, "a tar head is one block");

static unsigned sum_of(const struct head *h)
{
	struct head copy = *h;
	const unsigned char *p = (const unsigned char *)&copy;
	unsigned sum = 0;
	memset(copy.checksum, ' ', sizeof copy.checksum);
	for (size_t i = 0; i < BLOCK; i++)
		sum += p[i];
	return sum;
}

static int put(int fd, const void *data, size_t n, struct bt_err *err)
{
	int r = bt_fs_write_all(fd, data, n);
	return r < 0 ? bt_err_errno(err, r, "write the backup") : 0;
}

int bt_tar_head(int fd, const char *name, int64_t size, int64_t mtime_s, struct bt_err *err)
{
	struct head h = {.type = '0', .magic = "ustar", .version = {'0', '0'}};
	if (strlen(name) > BT_TAR_NAME_MAX || size < 0 || size >> 33)
		return bt_err_set(
			err, BT_E_REFUSED, "%s: too long or too large for a backup", name);
	snprintf(h.name, sizeof h.name, "%s", name);
	snprintf(h.mode, sizeof h.mode, "%07o", 0600);
	snprintf(h.uid, sizeof h.uid, "%07o", 0);
	snprintf(h.gid, sizeof h.gid, "%07o", 0);
	snprintf(h.size, sizeof h.size, "%011llo", (unsigned long long)size);
	snprintf(h.mtime, sizeof h.mtime, "%011llo", (unsigned long long)mtime_s);
	snprintf(h.checksum, sizeof h.checksum, "%06o", sum_of(&h));
	h.checksum[7] = ' ';
	return put(fd, &h, sizeof h, err);
}

static size_t rest_of(int64_t size)
{
	return (size_t)((BLOCK - size % BLOCK) % BLOCK);
}

int bt_tar_pad(int fd, int64_t size, struct bt_err *err)
{
	static const char zeros[BLOCK];
	return put(fd, zeros, rest_of(size), err);
}

int bt_tar_end(int fd, struct bt_err *err)
{
	static const char zeros[2 * BLOCK];
	return put(fd, zeros, sizeof zeros, err);
}

static int get(int fd, void *data, size_t n, struct bt_err *err)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = read(fd, (char *)data + at, n - at);
		if (r < 0 && errno != EINTR)
			return bt_err_errno(err, errno, "read the backup");
		if (r == 0)
			return bt_err_set(err, BT_E_CORRUPT, "the backup is cut short");
		at += r > 0 ? (size_t)r : 0;
	}
	return 0;
}

static bool octal(const char *text, size_t n, int64_t *ret)
{
	int64_t value = 0;
	for (size_t i = 0; i < n && text[i] && text[i] != ' '; i++) {
		if (text[i] < '0' || text[i] > '7')
			return false;
		value = value * 8 + (text[i] - '0');
	}
	*ret = value;
	return true;
}

int bt_tar_next(
	int fd, char name[static BT_TAR_NAME_MAX + 1], int64_t *ret_size, struct bt_err *err)
{
	static const struct head zero;
	struct head h;
	int64_t sum = -1, size = 0;
	int r = get(fd, &h, sizeof h, err);
	if (r < 0)
		return r;
	if (memcmp(&h, &zero, sizeof h) == 0)
		return 0;
	if (memcmp(h.magic, "ustar", 6) != 0 || h.type != '0' || h.name[BT_TAR_NAME_MAX] ||
		h.prefix[0] || !octal(h.checksum, sizeof h.checksum, &sum) ||
		sum != (int64_t)sum_of(&h) || !octal(h.size, sizeof h.size, &size))
		return bt_err_set(
			err, BT_E_CORRUPT, "this is no backup of baton, or it is damaged");
	memcpy(name, h.name, BT_TAR_NAME_MAX + 1);
	*ret_size = size;
	return 1;
}

int bt_tar_skip_pad(int fd, int64_t size, struct bt_err *err)
{
	char rest[BLOCK];
	return get(fd, rest, rest_of(size), err);
}
