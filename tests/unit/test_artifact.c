/* Placing releases, from a server with faults (artifact_parts.py) and with every kind of archive
 * that is refused. */
#include "expect.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/loop.h"
#include "base/str.h"
#include "driver/artifact.h"
#include "net/http_client.h"
#include "shim/unpack_names.h"

#include <setjmp.h>
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "answer.h"

#define PYTHON "/usr/bin/python3"
#define LIMIT_MS 60000

struct world {
	char dir[64], parts[80], state[80], shim[PATH_MAX], url[64];
	pid_t server;
	struct event_base *base;
	struct bt_work *work;
	struct bt_http_client *http;
	struct bt_driver_env env;
};
static struct world w;

static pid_t run_parts(const char *verb, int out)
{
	pid_t pid = fork();
	if (pid == 0) {
		if (out >= 0)
			dup2(out, 1);
		int null = open("/dev/null", O_WRONLY);
		if (null >= 0)
			dup2(null, 2);
		execl(PYTHON, PYTHON, GOLDEN_DIR "/../unit/artifact_parts.py", verb, w.parts,
			(char *)NULL);
		_exit(127);
	}
	return pid;
}

static int set_up_all(void **state)
{
	(void)state;
	int out[2], status;
	char port[16] = "";
	snprintf(w.dir, sizeof w.dir, "/tmp/baton-artifact-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	snprintf(w.parts, sizeof w.parts, "%s/parts", w.dir);
	assert_int_equal(mkdir(w.parts, 0700), 0);
	assert_int_equal(waitpid(run_parts("archives", -1), &status, 0) > 0 ? status : -1, 0);
	assert_int_equal(pipe(out), 0);
	w.server = run_parts("serve", out[1]);
	close(out[1]);
	assert_true(read(out[0], port, sizeof port - 1) > 1);
	close(out[0]);
	snprintf(w.url, sizeof w.url, "http://127.0.0.1:%d", atoi(port));
	ssize_t n = readlink("/proc/self/exe", w.shim, sizeof w.shim - 1);
	assert_true(n > 0);
	w.shim[n] = 0;
	for (int i = 0; i < 3; i++) /* tests/unit/test_artifact */
		*strrchr(w.shim, '/') = 0;
	strcat(w.shim, "/src/shim/baton-shim");
	return 0;
}

static int tear_down_all(void **state)
{
	(void)state;
	kill(w.server, SIGKILL);
	waitpid(w.server, NULL, 0);
	return bt_fs_remove_tree(w.dir, NULL);
}

static int set_up(void **state)
{
	(void)state;
	snprintf(w.state, sizeof w.state, "%s/state", w.dir);
	assert_int_equal(mkdir(w.state, 0755), 0);
	w.base = event_base_new();
	w.work = bt_work_new(w.base, 1);
	w.http = bt_http_client_new(w.base);
	w.env = (struct bt_driver_env){.base = w.base,
		.work = w.work,
		.http = w.http,
		.state_dir = w.state,
		.host = "was1",
		.shim_path = w.shim};
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	w.http = bt_http_client_free(w.http);
	w.work = bt_work_free(w.work);
	event_base_free(w.base);
	umount2(w.state, MNT_DETACH); /* left by a test that failed */
	return bt_fs_remove_tree(w.state, NULL);
}

static void wait_called(void)
{
	assert_true(answer_until(w.base, answer_called, LIMIT_MS));
}

struct want {
	uint32_t id;
	const char *mode, *file;
	bool unpack;
	int64_t keep_free;
};

static struct bt_op *begin(const struct want *want)
{
	static char digest[65], url[256];
	char path[300];
	int64_t size;
	snprintf(path, sizeof path, "%s/%s", w.parts, want->file);
	assert_int_equal(bt_fs_sha256(path, digest, &size, NULL), 0);
	snprintf(url, sizeof url, "%s/%s/%s", w.url, want->mode, want->file);
	struct bt_fetch_request rq = {.release = want->id,
		.service = "shop",
		.version = "v1.2",
		.digest = digest,
		.size = size,
		.file_name = want->file,
		.unpack = want->unpack,
		.release_json = "{\"service\":{}}",
		.url = url,
		.keep_free_bytes = want->keep_free};
	answer.called = false;
	answer.progress[0] = 0;
	struct bt_op *op = bt_artifact_place(&w.env, &rq, on_progress, NULL, on_done, NULL);
	assert_false(answer.called);
	return op;
}

/* So that the next one has nothing to be copied from. */
static void forget_releases(void)
{
	answer.called = false;
	bt_release_prune(&w.env, "shop", NULL, 0, on_done, NULL);
	wait_called();
	assert_int_equal(answer.result, 0);
}

static int place(uint32_t id, const char *mode, const char *file, bool unpack)
{
	struct want want = {id, mode, file, unpack, 0};
	begin(&want);
	wait_called();
	return answer.result;
}

/* What lies in the service's directory, sorted: "1 2 current". */
static const char *listing(void)
{
	static char text[1024];
	char path[128];
	struct dirent **names;
	size_t len = 0;
	snprintf(path, sizeof path, "%s/releases/shop", w.state);
	text[0] = 0;
	int n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0)
			len += (size_t)snprintf(text + len, sizeof text - len, "%s%s",
				len ? " " : "", names[i]->d_name);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
	return text;
}

static bool same_file(const char *a, const char *b)
{
	char da[65], db[65];
	return bt_fs_sha256(a, da, NULL, NULL) == 0 && bt_fs_sha256(b, db, NULL, NULL) == 0 &&
	       strcmp(da, db) == 0;
}

static void is_whole(uint32_t id)
{
	char original[300];
	struct bt_release_on_disk r;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	assert_int_equal(bt_release_find(&w.env, "shop", id, a, &r, NULL), 0);
	assert_string_equal(r.version, "v1.2");
	assert_string_equal(r.release_json, "{\"service\":{}}");
	snprintf(original, sizeof original, "%s/shop.jar", w.parts);
	assert_true(bt_str_ends(r.artifact, "/shop.jar"));
	assert_true(same_file(r.artifact, original));
}

static void test_single_file(void **state)
{
	(void)state;
	struct bt_release_on_disk r;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	assert_int_equal(bt_release_find(&w.env, "shop", 1, a, &r, &answer.err), BT_E_NOTFOUND);
	assert_int_equal(place(1, "ok", "shop.jar", false), 0);
	is_whole(1);
	contains(answer.progress, "fetched 3.0 of 3.0 MiB");
	assert_string_equal(listing(), "1");
	/* Once there it is not asked for again. */
	assert_int_equal(place(1, "missing", "shop.jar", false), 0);
	/* Nor for the next release of the same artifact; the copy is its own. */
	assert_int_equal(place(2, "missing", "shop.jar", false), 0);
	is_whole(2);
	char first[200], second[200];
	struct stat a1, a2;
	snprintf(first, sizeof first, "%s/releases/shop/1/shop.jar", w.state);
	snprintf(second, sizeof second, "%s/releases/shop/2/shop.jar", w.state);
	assert_int_equal(stat(first, &a1) | stat(second, &a2), 0);
	assert_int_not_equal(a1.st_ino, a2.st_ino);
	/* A release that is not what it was is no source: then it is fetched. */
	const char *both[] = {first, second};
	for (int i = 0; i < 2; i++) {
		int fd = open(both[i], O_WRONLY | O_CLOEXEC);
		assert_int_equal(pwrite(fd, "!", 1, 5), 1);
		close(fd);
	}
	assert_int_equal(place(3, "missing", "shop.jar", false), BT_E_NOTFOUND);
	assert_int_equal(place(3, "ok", "shop.jar", false), 0);
	is_whole(3);
	forget_releases();
	assert_int_equal(place(1, "ok", "shop.jar", false), 0);
	/* The same number with another artifact is a contradiction. */
	assert_int_equal(place(1, "ok", "good.zip", true), BT_E_EXISTS);
	contains(answer.err.text, "another artifact");
	is_whole(1);
	assert_string_equal(listing(), "1");
}

static void test_interruptions(void **state)
{
	(void)state;
	assert_int_equal(place(1, "cut", "shop.jar", false), 0); /* breaks off, twice */
	is_whole(1);
	forget_releases();
	assert_int_equal(place(2, "busy", "shop.jar", false), 0); /* 503 at first */
	is_whole(2);
	forget_releases();
	assert_int_equal(place(3, "norange", "shop.jar", false), 0);
	is_whole(3);
	forget_releases();
	assert_int_equal(place(4, "missing", "shop.jar", false), BT_E_NOTFOUND);
	contains(answer.err.text, "release 4 of shop: fetch http://127.0.0.1:");
	contains(answer.err.text, "answers 404");
	char text[64];
	snprintf(text, sizeof text, "%s", w.url);
	snprintf(w.url, sizeof w.url, "http://127.0.0.1:1");
	assert_int_equal(place(5, "ok", "shop.jar", false), BT_E_UNREACHABLE);
	snprintf(w.url, sizeof w.url, "%s", text);
}

/* What an earlier agent fetched is not fetched again; a part that lies is found out. */
static void test_resume(void **state)
{
	(void)state;
	char from[300], part[300], digest[65], *data;
	int64_t size;
	size_t n;
	snprintf(from, sizeof from, "%s/shop.jar", w.parts);
	assert_int_equal(bt_fs_sha256(from, digest, &size, NULL), 0);
	assert_int_equal(bt_fs_read(from, 64 << 20, &data, &n, NULL), 0);
	snprintf(part, sizeof part, "%s/releases/shop", w.state);
	assert_int_equal(bt_fs_mkdirs(part, 0755, NULL), 0);
	snprintf(part, sizeof part, "%s/releases/shop/.part-%s", w.state, digest);
	assert_int_equal(bt_fs_write_atomic(part, data, n, 0600, NULL), 0);
	assert_int_equal(place(1, "missing", "shop.jar", false), 0); /* it is all there */
	is_whole(1);
	assert_int_equal(bt_fs_write_atomic(part, data, n / 2, 0600, NULL), 0);
	assert_int_equal(place(2, "norange", "shop.jar", false), 0);
	is_whole(2);
	assert_int_equal(bt_fs_write_atomic(part, data, n / 2, 0600, NULL), 0);
	assert_int_equal(place(3, "ok", "shop.jar", false), 0);
	is_whole(3);
	data[17] ^= 1;
	assert_int_equal(bt_fs_write_atomic(part, data, n / 2, 0600, NULL), 0);
	assert_int_equal(place(4, "ok", "shop.jar", false), BT_E_CORRUPT);
	assert_string_equal(listing(), "1 2 3"); /* the lying part is gone */
	assert_int_equal(place(4, "ok", "shop.jar", false), 0);
	is_whole(4);
	free(data);
}

static void test_wrong_bytes(void **state)
{
	(void)state;
	assert_int_equal(place(1, "wrong", "shop.jar", false), BT_E_CORRUPT);
	contains(answer.err.text, "release 1 of shop: what came is not what was sent");
	assert_int_equal(place(1, "longer", "shop.jar", false), BT_E_CORRUPT);
	assert_string_equal(listing(), "");
	struct bt_fetch_request rq = {.release = 1,
		.service = "../shop",
		.digest = "00",
		.size = 5,
		.file_name = "x",
		.url = w.url};
	const char *names[] = {"../x", ".hidden", "", "release.json", "a/b"};
	answer.called = false;
	bt_artifact_place(&w.env, &rq, NULL, NULL, on_done, NULL);
	wait_called();
	assert_int_equal(answer.result, BT_E_REFUSED);
	rq.service = "shop";
	for (size_t i = 0; i < BT_ARRAY_LEN(names); i++) {
		rq.file_name = names[i];
		answer.called = false;
		bt_artifact_place(&w.env, &rq, NULL, NULL, on_done, NULL);
		wait_called();
		assert_int_equal(answer.result, BT_E_REFUSED);
	}
}

static void make_zstd(const char *path)
{
	struct archive *a = archive_write_new();
	struct archive_entry *e = archive_entry_new();
	archive_write_add_filter_zstd(a);
	archive_write_set_format_pax_restricted(a);
	assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
	archive_entry_set_pathname(e, "shop/bin/run");
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 04755);
	archive_entry_set_size(e, 10);
	assert_int_equal(archive_write_header(a, e), ARCHIVE_OK);
	assert_int_equal(archive_write_data(a, "#!/bin/sh\n", 10), 10);
	archive_entry_free(e);
	archive_write_close(a);
	archive_write_free(a);
}

static void test_archives(void **state)
{
	(void)state;
	static const char *const files[] = {"good.tar.gz", "good.tar", "good.zip", "good.tar.zst"};
	char zstd[300], path[600];
	struct stat st;
	snprintf(zstd, sizeof zstd, "%s/good.tar.zst", w.parts);
	make_zstd(zstd);
	for (uint32_t i = 0; i < BT_ARRAY_LEN(files); i++) {
		struct bt_release_on_disk r;
		BT_ARENA struct bt_arena *a = bt_arena_new();
		if (place(i + 1, "ok", files[i], true) < 0)
			fail_msg("%s: %s", files[i], answer.err.text);
		assert_int_equal(bt_release_find(&w.env, "shop", i + 1, a, &r, NULL), 0);
		assert_string_equal(r.dir, r.artifact);
		snprintf(path, sizeof path, "%s/shop/bin/run", r.artifact);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 07777, 0755); /* set-id bits are gone */
		snprintf(path, sizeof path, "%s/shop/lib/now", r.artifact);
		if (i < 3)
			assert_int_equal(stat(path, &st) == 0 ? st.st_size : -1, 3000);
		snprintf(path, sizeof path, "%s/shop/größe.txt", r.artifact);
		if (i < 3)
			assert_int_equal(stat(path, &st) == 0 ? st.st_size : -1, 5);
	}
	assert_string_equal(listing(), "1 2 3 4");
}

static void test_bad_archives(void **state)
{
	(void)state;
	static const struct {
		const char *file, *words;
	} bad[] = {
		{"bad-absolute.tar.gz", "absolute path"},
		{"bad-dotdot.tar.gz", "'..' in its path"},
		{"bad-link-absolute.tar.gz", "link to an absolute path"},
		{"bad-link-up.tar.gz", "leaves the archive"},
		{"bad-link-chain.tar.gz", "'..' after a name"},
		{"bad-link-through.tar.gz", "behind a link"},
		{"bad-hard-absolute.tar.gz", "absolute path"},
		{"bad-hard-up.tar.gz", "'..'"},
		{"bad-hard-to-link.tar.gz", "no file of the archive"},
		{"bad-hard-nothing.tar.gz", "no file of the archive"},
		{"bad-char-device.tar.gz", "device node"},
		{"bad-block-device.tar.gz", "device node"},
		{"bad-fifo.tar.gz", "named pipe"},
		{"bad-long-name.tar.gz", "too long"},
		{"bad-long-path.tar.gz", "too"},
		{"bad-deep.tar.gz", "too deep"},
		{"bad-file-as-dir.tar.gz", "behind a link or a file"},
		{"bad-dir-as-file.tar.gz", "File exists"},
		{"bad-empty.tar.gz", "empty"},
		{"bad-zip-dotdot.zip", "'..'"},
		{"bad-zip-link.zip", "absolute"},
		{"bad-zip-bomb.zip", "bomb"},
		{"bad-not-an-archive.tar.gz", "not a tar"},
		{"bad-cut.tar.gz", "truncated"},
		{"bad-zeros.tar", "empty"},
		{"bad-lies.tar", "cannot be read"},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		assert_int_equal(place(9, "ok", bad[i].file, true), BT_E_FAILED);
		contains(answer.err.text, bad[i].words);
		contains(answer.err.text, "unpack bad-");
		assert_string_equal(listing(), "");
	}
}

static void test_disk_full(void **state)
{
	(void)state;
	struct want want = {1, "ok", "shop.jar", false, INT64_MAX / 2};
	begin(&want);
	wait_called();
	assert_int_equal(answer.result, -ENOSPC);
	contains(answer.err.text, "are to be kept");
	assert_string_equal(listing(), "");

	if (geteuid() != 0 || mount("none", w.state, "tmpfs", 0, "size=2m") < 0)
		skip();
	assert_int_equal(place(1, "ok", "shop.jar", false), -ENOSPC);
	contains(answer.err.text, "release 1 of shop: it needs 3");
	assert_string_equal(listing(), "");
	/* It fits when it is looked at, and not any more when it comes. */
	char fill[128];
	snprintf(fill, sizeof fill, "%s/fill", w.state);
	umount(w.state);
	assert_int_equal(mount("none", w.state, "tmpfs", 0, "size=4m"), 0);
	struct want later = {1, "ok", "shop.jar", false, 0};
	begin(&later);
	while (!answer.called && !strstr(answer.progress, "fetched"))
		event_base_loop(w.base, EVLOOP_ONCE);
	BT_FREE char *zeros = bt_calloc(1, 4 << 20);
	int fd = open(fill, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, zeros, 65536) > 0)
		;
	close(fd);
	wait_called();
	if (answer.result < 0) { /* the whole may have come with the first progress */
		assert_int_equal(answer.result, -ENOSPC);
		contains(answer.err.text, "No space left");
		assert_string_equal(listing(), "");
	}
	/* An archive that outgrows the disk. */
	umount(w.state);
	assert_int_equal(mount("none", w.state, "tmpfs", 0, "size=1m"), 0);
	assert_int_equal(place(2, "ok", "bad-zip-bomb.zip", true), BT_E_FAILED);
	contains(answer.err.text, "there is room for");
	assert_string_equal(listing(), "");
	assert_int_equal(umount(w.state), 0);
}

static void make_spec(uint32_t release)
{
	char dir[200], path[256], text[1024];
	snprintf(dir, sizeof dir, "%s/instances/shop/blue", w.state);
	snprintf(path, sizeof path, "%s/spec", dir);
	assert_int_equal(bt_fs_mkdirs(dir, 0700, NULL), 0);
	int n = snprintf(text, sizeof text,
		"baton-shim-spec=1%cservice=shop%cslot=blue%crelease=%u%cmarker=0123456789abcdef%c"
		"dir=/%clog=/x%carg=x%cstop=15:1%cend=",
		0, 0, 0, release, 0, 0, 0, 0, 0, 0);
	assert_int_equal(bt_fs_write_atomic(path, text, (size_t)n + 1, 0600, NULL), 0);
}

static void test_retention(void **state)
{
	(void)state;
	char path[256], target[64];
	uint32_t *ids;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	assert_int_equal(bt_release_list(&w.env, "shop", a, &ids), 0);
	for (uint32_t i = 1; i <= 6; i++)
		assert_int_equal(place(i, "ok", i % 2 ? "shop.jar" : "good.zip", i % 2 == 0), 0);
	assert_int_equal(bt_release_list(&w.env, "shop", a, &ids), 6);
	assert_int_equal(bt_release_activate(&w.env, "shop", 2, NULL), 0);
	assert_int_equal(bt_release_activate(&w.env, "shop", 9, &answer.err), BT_E_NOTFOUND);
	snprintf(path, sizeof path, "%s/releases/shop/current", w.state);
	ssize_t n = readlink(path, target, sizeof target);
	assert_int_equal(n, 1);
	assert_int_equal(target[0], '2');
	make_spec(3); /* runs */
	answer.called = false;
	bt_release_prune(&w.env, "shop", (uint32_t[]){5, 6}, 2, on_done, NULL);
	wait_called();
	assert_int_equal(answer.result, 0);
	assert_string_equal(listing(), "2 3 5 6 current");
}

/* Cancelled at any moment: done is not called, nothing half made is found, and it can be begun
 * again. */
static void test_cancel(void **state)
{
	(void)state;
	struct want want = {1, "ok", "good.tar.gz", true, 0};
	struct bt_release_on_disk r;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	for (int turns = 0; turns < 12; turns++) {
		struct bt_op *op = begin(&want);
		for (int i = 0; i < turns && !answer.called; i++)
			event_base_loop(w.base, EVLOOP_ONCE);
		if (answer.called)
			break;
		bt_op_cancel(op);
		/* What is on a thread ends; the next one waits for its turn behind it. */
		answer.called = false;
		bt_release_prune(&w.env, "shop", (uint32_t[]){1}, 1, on_done, NULL);
		wait_called();
		assert_int_equal(answer.result, 0);
	}
	assert_int_equal(place(1, "ok", "good.tar.gz", true), 0);
	assert_int_equal(bt_release_find(&w.env, "shop", 1, a, &r, NULL), 0);
}

static void test_names(void **state)
{
	(void)state;
	char buf[BT_UNPACK_PATH_MAX];
	assert_null(bt_unpack_path("./a//b/./c/", buf));
	assert_string_equal(buf, "a/b/c");
	assert_null(bt_unpack_path("./", buf));
	assert_string_equal(buf, "");
	assert_null(bt_unpack_path("..a/b..", buf));
	assert_non_null(bt_unpack_path("a/..", buf));
	assert_non_null(bt_unpack_path("", buf));
	assert_null(bt_unpack_link("a/b/l", "../../x"));
	assert_non_null(bt_unpack_link("a/b/l", "../../../x"));
	assert_null(bt_unpack_link("l", "x/y"));
	assert_non_null(bt_unpack_link("l", ".."));
	assert_non_null(bt_unpack_link("a/l", "x/.."));
	assert_non_null(bt_unpack_link("a/l", "/"));
}

/* Further files: no link is followed, nothing leaves the directory, another user can read them. */
static void test_files(void **state)
{
	(void)state;
	char dir[120], path[200];
	struct stat st;
	struct bt_err err = {0};
	snprintf(dir, sizeof dir, "%s/files", w.dir);
	snprintf(path, sizeof path, "%s/link", dir);
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(symlink(w.dir, path), 0);
	struct bt_placed_file f[] = {{"a/b/c.conf", "text", 4, 0640}, {"a/d", "", 0, 0600}};
	struct bt_fetch_request rq = {
		.files = f, .n_files = 2, .owner = geteuid() == 0 ? "daemon" : NULL};
	assert_int_equal(bt_release_write_files(dir, "shop.jar", &rq, &err), 0);
	f[0].data = "other";
	f[0].n = 5;
	assert_int_equal(bt_release_write_files(dir, NULL, &rq, &err), 0);
	snprintf(path, sizeof path, "%s/a/b/c.conf", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(st.st_size, 5);
	if (geteuid() == 0)
		assert_int_not_equal(st.st_uid, 0);
	snprintf(path, sizeof path, "%s/a/b", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	static const char *const bad[] = {"link/x", "../x", "a/../x", "./x", "/x", "a//x", "", "a/",
		"shop.jar", "release.json", ".baton.json", "a/b", "a/d/e"};
	rq.n_files = 1;
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		f[0].path = bad[i];
		err = (struct bt_err){0};
		assert_true(bt_release_write_files(dir, "shop.jar", &rq, &err) < 0);
		assert_non_null(strstr(err.text, "files: "));
	}
	snprintf(path, sizeof path, "%s/x", w.dir);
	assert_false(bt_fs_exists(path));
	f[0].path = "y";
	rq.owner = "no-such-user-here";
	assert_int_equal(bt_release_write_files(dir, NULL, &rq, &err), BT_E_CONFIG);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
	const struct CMUnitTest tests[] = {T(test_single_file), T(test_interruptions),
		T(test_resume), T(test_wrong_bytes), T(test_archives), T(test_bad_archives),
		T(test_disk_full), T(test_retention), T(test_cancel), T(test_names), T(test_files)};
	return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
