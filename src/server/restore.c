/* Putting a backup back: unpacked beside what is there, checked to the last byte, its store raised
 * above what agents may have seen, and only then moved into place, baton.db last: a directory that
 * has it is whole. */
#include "server/backup.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "journal/store.h"
#include "server/server_priv.h"
#include "server/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (1u << 20)
#define MANIFEST_MAX (64u << 20)
/* Far above what can have happened since the backup: an agent refuses a lower token and keeps a
 * release by its number, and a client reads events after its cursor. Generations and the numbers of
 * deployments are raised to what agents say when they connect. */
#define RAISE_TOKENS ((int64_t)1000000)
#define RAISE_NUMBERS ((int64_t)1000)

struct restoring {
	int fd;
	const char *dir;
	char *temp; /* dir/restore.tmp */
	struct stat owner;
	json_t *manifest, *files; /* name → {size, sha256}: those still to come */
	struct bt_backup_stats stats;
};

/* The directory's owner owns what is in it, also where root restores for the server's user. */
static void give(const struct restoring *x, const char *path)
{
	if (geteuid() == 0 && lchown(path, x->owner.st_uid, x->owner.st_gid) < 0)
		return; /* the server says which file it cannot read */
}

static bool is_name(const char *name)
{
	static const char *const plain[] = {"baton.db", "secret.key", "pki/ca.pem", "pki/ca.key",
		"pki/server.pem", "pki/server.key"};
	for (size_t i = 0; i < BT_ARRAY_LEN(plain); i++)
		if (bt_streq(name, plain[i]))
			return true;
	return bt_str_starts(name, "artifacts/") && strlen(name + 10) == 64 &&
	       strspn(name + 10, "0123456789abcdef") == 64;
}

static int read_manifest(struct restoring *x, struct bt_err *err)
{
	char name[BT_TAR_NAME_MAX + 1];
	int64_t size = 0, format = 0;
	json_t *files = NULL, *one;
	const char *made = "";
	size_t i;
	int r = bt_tar_next(x->fd, name, &size, err);
	if (r >= 0 && (r == 0 || !bt_streq(name, "manifest.json") || size > MANIFEST_MAX))
		return bt_err_set(err, BT_E_CORRUPT, "this is no backup of baton");
	if (r < 0)
		return r;
	BT_FREE char *text = bt_calloc(1, (size_t)size + 1);
	if (read(x->fd, text, (size_t)size) != size)
		return bt_err_set(err, BT_E_CORRUPT, "the backup is cut short");
	r = bt_tar_skip_pad(x->fd, size, err);
	if (r == 0)
		r = bt_json_parse(text, (size_t)size, MANIFEST_MAX, &x->manifest, err);
	if (r == 0)
		r = bt_json_int(x->manifest, "backup", 1, INT32_MAX, &format, err);
	if (r == 0 && format != 1)
		r = bt_err_set(
			err, BT_E_REFUSED, "a newer baton made this backup: restore with it");
	if (r == 0)
		r = bt_json_str_opt(x->manifest, "made_at", &made, err);
	if (r == 0)
		r = bt_json_array(x->manifest, "files", &files, err);
	if (r < 0)
		return r;
	snprintf(x->stats.made_at, sizeof x->stats.made_at, "%.31s", made);
	x->files = json_object();
	json_array_foreach (files, i, one) {
		const char *file = json_string_value(json_object_get(one, "name"));
		if (!file || !is_name(file) || json_object_get(x->files, file))
			return bt_err_set(
				err, BT_E_CORRUPT, "the manifest names '%.100s'", file ? file : "");
		json_object_set(x->files, file, one);
	}
	return json_object_get(x->files, "baton.db")
		       ? 0
		       : bt_err_set(err, BT_E_CORRUPT, "the backup has no store");
}

/* One file, written, synced and compared. */
static int take_file(struct restoring *x, const char *name, int64_t size, struct bt_err *err)
{
	const json_t *want = json_object_get(x->files, name);
	BT_FREE char *path = bt_asprintf("%s/%s", x->temp, name);
	BT_FREE char *buf = bt_malloc(CHUNK);
	unsigned char md[32];
	char digest[65];
	if (!want || json_integer_value(json_object_get(want, "size")) != size)
		return bt_err_set(err, BT_E_CORRUPT, "%s is not as the manifest says", name);
	BT_CLOSE int out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (out < 0)
		return bt_err_errno(err, errno, "%s", path);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_DigestInit_ex(c, EVP_sha256(), NULL);
	int r = 0;
	for (int64_t left = size; r == 0 && left > 0;) {
		ssize_t n = read(x->fd, buf, left < (int64_t)CHUNK ? (size_t)left : CHUNK);
		if (n <= 0)
			r = bt_err_set(err, BT_E_CORRUPT, "the backup is cut short in %s", name);
		else if ((r = bt_fs_write_all(out, buf, (size_t)n)) < 0)
			bt_err_errno(err, r, "%s", path);
		else
			EVP_DigestUpdate(c, buf, (size_t)n);
		left -= n > 0 ? n : 0;
	}
	EVP_DigestFinal_ex(c, md, NULL);
	EVP_MD_CTX_free(c);
	bt_hex(md, sizeof md, digest);
	if (r == 0 && !bt_streq(digest, json_string_value(json_object_get(want, "sha256"))))
		r = bt_err_set(err, BT_E_CORRUPT, "%s is damaged in the backup", name);
	if (r == 0 && fsync(out) < 0)
		r = bt_err_errno(err, errno, "sync %s", path);
	give(x, path);
	x->stats.bytes += size;
	x->stats.artifacts += bt_str_starts(name, "artifacts/");
	json_object_del(x->files, name);
	return r == 0 ? bt_tar_skip_pad(x->fd, size, err) : r;
}

static int unpack(struct restoring *x, struct bt_err *err)
{
	static const char *const dirs[] = {"", "/pki", "/artifacts"};
	char name[BT_TAR_NAME_MAX + 1];
	int64_t size = 0;
	int r = bt_fs_remove_tree(x->temp, err);
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(dirs); i++) {
		BT_FREE char *path = bt_asprintf("%s%s", x->temp, dirs[i]);
		r = bt_fs_mkdirs(path, 0700, err);
		give(x, path);
	}
	while (r == 0 && (r = bt_tar_next(x->fd, name, &size, err)) == 1)
		r = take_file(x, name, size, err);
	const char *missing = json_object_iter_key(json_object_iter(x->files));
	if (r == 0 && missing)
		r = bt_err_set(err, BT_E_CORRUPT, "%s is missing in the backup", missing);
	return r;
}

static int raise_store(struct restoring *x, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/baton.db", x->temp);
	struct bt_store *s = NULL;
	char number[32];
	int r = bt_store_open(&(struct bt_store_spec){.path = path}, &s, err);
	if (r < 0)
		return r;
	BT_JSON json_t *about = json_pack("{s:s, s:s, s:I}", "store_id", bt_store_id(s), "made_at",
		x->stats.made_at, "restored_ms", (json_int_t)bt_clock_wall_ms());
	BT_FREE char *text = bt_json_dump(about);
	BT_FREE char *detail = bt_asprintf("the backup of %s", x->stats.made_at);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_RAISE_TOKENS, RAISE_TOKENS);
	snprintf(number, sizeof number, "%lld",
		(long long)(bt_store_number(s, 0, BT_SQL_MAX_RELEASE) + RAISE_NUMBERS));
	bt_txn_add(t, BT_SQL_META_SET, "release_floor", number);
	snprintf(number, sizeof number, "%lld",
		(long long)(bt_store_number(s, 0, BT_SQL_MAX_CURSOR) + RAISE_TOKENS));
	bt_txn_add(t, BT_SQL_META_SET, "cursor_floor", number);
	bt_txn_add(t, BT_SQL_META_SET, "restored", text);
	bt_txn_add(t, BT_SQL_META_SET, "unsettled", "1");
	bt_server_audit(
		t, &(struct bt_audit){.who = "console", .what = "restore", .detail = detail});
	r = bt_store_commit_now(s, t, err);
	if (r == 0)
		r = bt_store_renew_id(s, err);
	snprintf(x->stats.store_id, sizeof x->stats.store_id, "%s", bt_store_id(s));
	bt_store_free(s);
	give(x, path);
	return r;
}

/* ---- into place --------------------------------------------------------------------------- */

static int put_aside(struct restoring *x, struct bt_err *err)
{
	static const char *const names[] = {"baton.db", "baton.db-wal", "baton.db-shm",
		"secret.key", "pki", "artifacts", "runs"};
	BT_FREE char *to = bt_asprintf("%s/replaced-%lld", x->dir, (long long)bt_clock_wall_ms());
	bool any = false;
	for (size_t i = 0; i < BT_ARRAY_LEN(names); i++) {
		BT_FREE char *from = bt_asprintf("%s/%s", x->dir, names[i]);
		BT_FREE char *into = bt_asprintf("%s/%s", to, names[i]);
		if (!bt_fs_exists(from))
			continue;
		if (!any && bt_fs_mkdirs(to, 0700, err) < 0)
			return err->code;
		any = true;
		if (rename(from, into) < 0)
			return bt_err_errno(err, errno, "move %s aside", from);
	}
	if (any) {
		give(x, to);
		x->stats.replaced = BT_STEAL(to);
	}
	return bt_fs_fsync_dir(x->dir, err);
}

static int put_in_place(struct restoring *x, struct bt_err *err)
{
	static const char *const names[] = {"secret.key", "pki", "artifacts", "baton.db"};
	int r = put_aside(x, err);
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(names); i++) {
		BT_FREE char *from = bt_asprintf("%s/%s", x->temp, names[i]);
		BT_FREE char *to = bt_asprintf("%s/%s", x->dir, names[i]);
		if (rename(from, to) < 0)
			r = bt_err_errno(err, errno, "%s", to);
		else
			r = bt_fs_fsync_dir(x->dir, err);
	}
	return r;
}

static int sync_dirs(const struct restoring *x, struct bt_err *err)
{
	static const char *const dirs[] = {"/pki", "/artifacts", ""};
	int r = 0;
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(dirs); i++) {
		BT_FREE char *path = bt_asprintf("%s%s", x->temp, dirs[i]);
		r = bt_fs_fsync_dir(path, err);
	}
	return r;
}

int bt_server_restore(
	const char *file, const char *state_dir, struct bt_backup_stats *ret, struct bt_err *err)
{
	struct restoring x = {.dir = state_dir};
	BT_CLOSE int lock = -1;
	BT_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC);
	x.fd = fd;
	int r = fd < 0 ? bt_err_errno(err, errno, "%s", file) : bt_fs_mkdirs(state_dir, 0700, err);
	if (r == 0)
		r = bt_server_lock(state_dir, &lock, err);
	if (r == BT_E_REFUSED)
		return bt_err_set(
			err, r, "a server runs on %s: stop it before restoring over it", state_dir);
	if (r < 0)
		return bt_err_wrap(err, "restore");
	x.temp = bt_asprintf("%s/restore.tmp", state_dir);
	if (stat(state_dir, &x.owner) < 0)
		r = bt_err_errno(err, errno, "%s", state_dir);
	if (r == 0)
		r = read_manifest(&x, err);
	if (r == 0)
		r = unpack(&x, err);
	if (r == 0)
		r = raise_store(&x, err);
	if (r == 0)
		r = sync_dirs(&x, err);
	if (r == 0)
		r = put_in_place(&x, err);
	(void)bt_fs_remove_tree(x.temp, NULL);
	json_decref(x.manifest);
	json_decref(x.files);
	free(x.temp);
	if (r == 0)
		*ret = x.stats;
	else
		free(x.stats.replaced);
	return r < 0 ? bt_err_wrap(err, "restore of %s", file) : 0;
}
