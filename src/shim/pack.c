/* baton-pack tar DIR: the directory as a tar on stdout. baton-pack show ARCHIVE NAME…: of those
 * files in the archive the one that is named first, as its name, a newline, and what it holds; exit
 * code 3 where there is none of them.
 *
 * Beside the client, which itself loads no libarchive. The tar is the same for the same files
 * whenever and by whomever it is made: names in order, no times, no owners, and of the modes only
 * whether a file may be run. So an unchanged directory keeps its digest, and is not sent again. */
#include "shim/unpack_names.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHOW_MAX = 1 << 20, NAMES_MAX = 16, NOTHING = 3 };

static int complain(const char *path, const char *why)
{
	fprintf(stderr, "%s: %s\n", path, why);
	return -1;
}

/* ---- tar --------------------------------------------------------------------------------- */

static int write_data(struct archive *a, const char *path, int64_t size)
{
	static char buf[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), r = 0;
	if (fd < 0)
		return complain(path, strerror(errno));
	while (r == 0 && size > 0) {
		ssize_t n = read(fd, buf, size < (int64_t)sizeof buf ? (size_t)size : sizeof buf);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			r = complain(
				path, n < 0 ? strerror(errno) : "it was cut while it was read");
		else if (archive_write_data(a, buf, (size_t)n) != n)
			r = complain("write the tar", archive_error_string(a));
		else
			size -= n;
	}
	close(fd);
	return r;
}

static int add(struct archive *a, const char *path, const char *name, const struct stat *st)
{
	char target[BT_UNPACK_PATH_MAX];
	struct archive_entry *e = archive_entry_new();
	int r = 0;
	archive_entry_set_pathname(e, name);
	archive_entry_set_mtime(e, 0, 0);
	if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlink(path, target, sizeof target - 1);
		target[n > 0 ? n : 0] = 0;
		const char *why = n < 0 ? strerror(errno) : bt_unpack_link(name, target);
		r = why ? complain(path, why) : 0;
		archive_entry_set_filetype(e, AE_IFLNK);
		archive_entry_set_perm(e, 0777);
		archive_entry_set_symlink(e, target);
	} else {
		archive_entry_set_filetype(e, S_ISDIR(st->st_mode) ? AE_IFDIR : AE_IFREG);
		archive_entry_set_perm(e, S_ISDIR(st->st_mode) || st->st_mode & 0111 ? 0755 : 0644);
		archive_entry_set_size(e, S_ISREG(st->st_mode) ? st->st_size : 0);
	}
	if (r == 0 && archive_write_header(a, e) != ARCHIVE_OK)
		r = complain(path, archive_error_string(a));
	if (r == 0 && S_ISREG(st->st_mode))
		r = write_data(a, path, st->st_size);
	archive_entry_free(e);
	return r;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name); /* whatever the locale */
}

static int pack(struct archive *a, const char *path, const char *name, int depth)
{
	struct dirent **list = NULL;
	int n = depth > BT_UNPACK_DEPTH_MAX ? -1 : scandir(path, &list, NULL, by_name), r = 0;
	if (n < 0)
		return complain(path, depth > BT_UNPACK_DEPTH_MAX ? "too deep" : strerror(errno));
	for (int i = 0; i < n; i++) {
		const char *d = list[i]->d_name;
		char *in = NULL, *as = NULL;
		struct stat st;
		if (strcmp(d, ".") == 0 || strcmp(d, "..") == 0 || r < 0) {
			free(list[i]);
			continue;
		}
		if (asprintf(&in, "%s/%s", path, d) < 0 ||
			asprintf(&as, "%s%s%s", name, *name ? "/" : "", d) < 0)
			abort();
		if (lstat(in, &st) < 0)
			r = complain(in, strerror(errno));
		else if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode) && !S_ISLNK(st.st_mode))
			r = complain(in, "neither a file, a directory nor a link");
		else
			r = add(a, in, as, &st);
		if (r == 0 && S_ISDIR(st.st_mode))
			r = pack(a, in, as, depth + 1);
		free(in);
		free(as);
		free(list[i]);
	}
	free(list);
	return r;
}

static int tar(const char *dir)
{
	struct archive *a = archive_write_new();
	archive_write_set_format_pax_restricted(a);
	archive_write_set_bytes_in_last_block(a, 1);
	int r = archive_write_open_fd(a, 1) == ARCHIVE_OK
			? pack(a, dir, "", 0)
			: complain("write the tar", archive_error_string(a));
	if (archive_write_close(a) != ARCHIVE_OK && r == 0)
		r = complain("write the tar", archive_error_string(a));
	archive_write_free(a);
	return r < 0 ? 1 : 0;
}

/* ---- show -------------------------------------------------------------------------------- */

static int keep(struct archive *a, const char *name, char **ret, size_t *ret_n)
{
	char *data = malloc(SHOW_MAX + 1);
	size_t n = 0;
	la_ssize_t r;
	if (!data)
		abort();
	while (n <= SHOW_MAX && (r = archive_read_data(a, data + n, SHOW_MAX + 1 - n)) > 0)
		n += (size_t)r;
	if (n > SHOW_MAX || r < 0) {
		free(data);
		return complain(name, n > SHOW_MAX ? "larger than 1 MiB" : archive_error_string(a));
	}
	free(*ret);
	*ret = data;
	*ret_n = n;
	return 0;
}

static int show(const char *path, char **names, int n_names)
{
	struct archive *a = archive_read_new();
	struct archive_entry *e;
	char name[BT_UNPACK_PATH_MAX], *data = NULL;
	size_t n = 0;
	int best = n_names, r = 0;
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_format_tar(a);
	archive_read_support_format_zip(a);
	int got = archive_read_open_filename(a, path, 65536);
	while (got == ARCHIVE_OK && r == 0 &&
		(got = archive_read_next_header(a, &e)) >= ARCHIVE_WARN && got != ARCHIVE_EOF) {
		got = ARCHIVE_OK;
		if (bt_unpack_path(archive_entry_pathname(e), name))
			continue; /* what unpacks it says what is wrong */
		for (int i = 0; i < best && r == 0; i++)
			if (strcmp(name, names[i]) == 0 && archive_entry_filetype(e) == AE_IFREG) {
				best = i;
				r = keep(a, name, &data, &n);
			}
	}
	if (r == 0 && got != ARCHIVE_EOF)
		r = complain(path, "not a tar (plain, gzip, zstd) or zip archive");
	if (r == 0 && best < n_names) {
		printf("%s\n", names[best]);
		fwrite(data, 1, n, stdout);
	}
	archive_read_free(a);
	free(data);
	return r < 0 || fflush(stdout) != 0 ? 1 : best < n_names ? 0 : NOTHING;
}

int main(int argc, char **argv)
{
	setlocale(LC_ALL, "C.UTF-8");
	if (argc == 3 && strcmp(argv[1], "tar") == 0)
		return tar(argv[2]);
	if (argc > 3 && argc <= 3 + NAMES_MAX && strcmp(argv[1], "show") == 0)
		return show(argv[2], argv + 3, argc - 3);
	fprintf(stderr, "usage: baton-pack tar DIR | show ARCHIVE NAME… (started by baton)\n");
	return 2;
}
