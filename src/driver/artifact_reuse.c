/* The same artifact with another configuration is another release, but need not travel twice. */
#include "driver/artifact.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The path of a release's single file when it has that digest, or NULL; the caller frees. */
static char *same_file(const char *root, const char *release, const char *digest)
{
	BT_FREE char *path = bt_asprintf("%s/%s/%s", root, release, BT_RELEASE_ABOUT);
	BT_FREE char *text = NULL;
	BT_JSON json_t *about = NULL;
	const char *has, *artifact;
	size_t n;
	if (!bt_fs_exists(path) || bt_fs_read(path, 65536, &text, &n, NULL) < 0 ||
		bt_json_parse(text, n, 65536, &about, NULL) < 0 ||
		bt_json_str(about, "digest", &has, NULL) < 0 ||
		bt_json_str(about, "artifact", &artifact, NULL) < 0)
		return NULL;
	if (!bt_streq(has, digest) || bt_streq(artifact, BT_RELEASE_TREE))
		return NULL;
	return bt_asprintf("%s/%s/%s", root, release, artifact);
}

/* Shares the blocks where the file system can; never a link: an app that wrote to its own file
 * would change the other release. */
/* From where both stand to the end; the kernel copies only within one file system. */
static bool copy_by_hand(int in, int out)
{
	char buf[1 << 16];
	ssize_t n;
	while ((n = read(in, buf, sizeof buf)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		int r = n < 0 ? -errno : bt_fs_write_all(out, buf, (size_t)n);
		if (r < 0) {
			errno = -r;
			return false;
		}
	}
	return true;
}

bool bt_release_copy(const char *from, const char *to)
{
	struct stat st;
	BT_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC);
	BT_CLOSE int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (in < 0 || out < 0 || fstat(in, &st) < 0)
		return false;
	if (ioctl(out, FICLONE, in) == 0)
		return true;
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = copy_file_range(in, NULL, out, NULL, (size_t)left, 0);
		if (n <= 0)
			return copy_by_hand(in, out);
		left -= n;
	}
	return true;
}

void bt_release_reuse(const char *root, const char *digest, const char *part)
{
	DIR *d = opendir(root);
	bool found = false;
	if (!d)
		return;
	for (struct dirent *e; !found && (e = readdir(d));) {
		BT_FREE char *from =
			e->d_name[0] == '.' ? NULL : same_file(root, e->d_name, digest);
		if (!from)
			continue;
		char has[65];
		found = bt_release_copy(from, part) && bt_fs_sha256(part, has, NULL, NULL) == 0 &&
			bt_streq(has, digest);
		if (!found)
			unlink(part);
	}
	closedir(d);
}
