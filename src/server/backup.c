/* Making a backup. The store is copied first: every artifact that this copy names was complete by
 * then, and artifacts never change, so what is read later fits it. One that was dropped meanwhile
 * (nobody needed it for a month) is left out. */
#include "server/backup.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "base/version.h"
#include "journal/store.h"
#include "server/tar.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK (1u << 20)

struct source {
	char *path, *name, digest[65];
	int64_t size;
};

struct making {
	const char *dir;
	char *temp, *copy; /* the file and the store's copy, until they are done */
	struct source *list;
	size_t n;
	struct bt_backup_stats stats;
};

static struct source *add(struct making *m, char *path, const char *name)
{
	m->list = bt_realloc(m->list, (m->n + 1) * sizeof *m->list);
	struct source *s = &m->list[m->n++];
	*s = (struct source){.path = path, .name = bt_strdup(name)};
	return s;
}

static int add_file(struct making *m, const char *name, struct bt_err *err)
{
	struct source *s = add(m, bt_asprintf("%s/%s", m->dir, name), name);
	return bt_fs_sha256(s->path, s->digest, &s->size, err);
}

static int add_artifacts(struct making *m, struct bt_store *store, struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	size_t i;
	json_t *row;
	int r = bt_store_select(store, &rows, err, BT_SQL_ARTIFACTS);
	json_array_foreach (rows, i, row) {
		const char *digest = json_string_value(json_object_get(row, "digest"));
		BT_FREE char *name = bt_asprintf("artifacts/%s", digest);
		BT_FREE char *path = bt_asprintf("%s/%s", m->dir, name);
		struct stat st;
		if (stat(path, &st) < 0)
			continue;
		struct source *s = add(m, BT_STEAL(path), name);
		snprintf(s->digest, sizeof s->digest, "%s", digest);
		s->size = st.st_size;
		m->stats.artifacts++;
	}
	return r;
}

static int collect(struct making *m, bool artifacts, struct bt_err *err)
{
	static const char *const files[] = {
		"secret.key", "pki/ca.pem", "pki/ca.key", "pki/server.pem", "pki/server.key"};
	struct bt_store *store = NULL;
	BT_FREE char *db = bt_asprintf("%s/baton.db", m->dir);
	int r = bt_store_copy(db, m->copy, err);
	if (r == 0)
		r = bt_store_open(&(struct bt_store_spec){.path = m->copy}, &store, err);
	if (r == 0)
		snprintf(m->stats.store_id, sizeof m->stats.store_id, "%s", bt_store_id(store));
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(files); i++)
		r = add_file(m, files[i], err);
	if (r == 0 && artifacts)
		r = add_artifacts(m, store, err);
	bt_store_free(store); /* folds its WAL into the file */
	if (r < 0)
		return r;
	struct source *s = add(m, bt_strdup(m->copy), "baton.db");
	return bt_fs_sha256(s->path, s->digest, &s->size, err);
}

static char *manifest_of(struct making *m)
{
	json_t *files = json_array();
	for (size_t i = 0; i < m->n; i++)
		json_array_append_new(
			files, json_pack("{s:s, s:I, s:s}", "name", m->list[i].name, "size",
				       (json_int_t)m->list[i].size, "sha256", m->list[i].digest));
	bt_clock_format(bt_clock_wall_ms(), m->stats.made_at);
	BT_JSON json_t *j = json_pack("{s:i, s:s, s:s, s:s, s:i, s:o}", "backup", 1, "baton",
		bt_version, "made_at", m->stats.made_at, "store_id", m->stats.store_id, "schema",
		bt_schema_version(), "files", files);
	return bt_json_dump(j);
}

/* What is copied must be what the manifest says: an artifact that rotted on the disk is told now,
 * and not at the restore. */
static int copy_one(int fd, const struct source *s, struct bt_err *err)
{
	BT_CLOSE int in = open(s->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	BT_FREE char *buf = bt_malloc(CHUNK);
	unsigned char md[32];
	char digest[65];
	int64_t left = s->size;
	if (in < 0)
		return bt_err_errno(err, errno, "%s", s->path);
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_DigestInit_ex(c, EVP_sha256(), NULL);
	int r = bt_tar_head(fd, s->name, s->size, bt_clock_wall_ms() / 1000, err);
	while (r == 0 && left > 0) {
		ssize_t n = read(in, buf, left < (int64_t)CHUNK ? (size_t)left : CHUNK);
		if (n <= 0)
			r = bt_err_set(err, BT_E_CORRUPT, "%s changed while it was read", s->path);
		else if ((r = bt_fs_write_all(fd, buf, (size_t)n)) < 0)
			bt_err_errno(err, r, "write the backup");
		else
			EVP_DigestUpdate(c, buf, (size_t)n);
		left -= n > 0 ? n : 0;
	}
	EVP_DigestFinal_ex(c, md, NULL);
	EVP_MD_CTX_free(c);
	bt_hex(md, sizeof md, digest);
	if (r == 0 && !bt_streq(digest, s->digest))
		r = bt_err_set(err, BT_E_CORRUPT, "%s is not what it was: its SHA-256 is %.12s…",
			s->path, digest);
	return r == 0 ? bt_tar_pad(fd, s->size, err) : r;
}

static int write_all(struct making *m, int fd, struct bt_err *err)
{
	BT_FREE char *manifest = manifest_of(m);
	int64_t size = (int64_t)strlen(manifest);
	int r = bt_tar_head(fd, "manifest.json", size, bt_clock_wall_ms() / 1000, err);
	if (r == 0 && (r = bt_fs_write_all(fd, manifest, (size_t)size)) < 0)
		bt_err_errno(err, r, "write the backup");
	if (r == 0)
		r = bt_tar_pad(fd, size, err);
	for (size_t i = 0; r == 0 && i < m->n; i++) {
		r = copy_one(fd, &m->list[i], err);
		m->stats.bytes += m->list[i].size;
	}
	if (r == 0)
		r = bt_tar_end(fd, err);
	if (r == 0 && fsync(fd) < 0)
		r = bt_err_errno(err, errno, "sync the backup");
	return r;
}

static void making_done(struct making *m)
{
	unlink(m->copy);
	unlink(m->temp);
	for (size_t i = 0; i < m->n; i++) {
		free(m->list[i].path);
		free(m->list[i].name);
	}
	free(m->list);
	free(m->copy);
	free(m->temp);
}

int bt_server_backup(const char *state_dir, const char *file, bool artifacts,
	struct bt_backup_stats *ret, struct bt_err *err)
{
	struct making m = {.dir = state_dir};
	BT_FREE char *db = bt_asprintf("%s/baton.db", state_dir);
	if (!bt_fs_exists(db))
		return bt_err_set(err, BT_E_NOTFOUND,
			"%s holds no server's state: say where with --dir", state_dir);
	m.temp = bt_asprintf("%s.tmp.%d", file, (int)getpid());
	m.copy = bt_asprintf("%s.db.tmp.%d", file, (int)getpid());
	BT_CLOSE int fd = open(m.temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = fd < 0 ? bt_err_errno(err, errno, "%s", m.temp) : 0;
	if (r == 0)
		r = collect(&m, artifacts, err);
	if (r == 0)
		r = write_all(&m, fd, err);
	if (r == 0 && rename(m.temp, file) < 0)
		r = bt_err_errno(err, errno, "%s", file);
	if (r == 0)
		r = bt_fs_fsync_parent(file, err);
	making_done(&m);
	if (r == 0)
		*ret = m.stats;
	return r < 0 ? bt_err_wrap(err, "backup to %s", file) : 0;
}
