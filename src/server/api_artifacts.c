/* Artifacts by SHA-256 in a directory. They come in parts at an offset, so an upload resumes where
 * it was cut; writing, hashing and fsync run beside the loop. The digest is checked before the
 * rename that makes an artifact visible: what has no .part at its end is whole. */
#include "base/clock.h"
#include "base/fs.h"
#include "server/api.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_ARTIFACT ((int64_t)16 << 30)
#define KEEP_FREE ((int64_t)64 << 20)

struct bt_upload { /* one part on its way */
	struct bt_upload *next;
	struct bt_server *server;
	struct bt_http_exchange *x;
	char *digest, *file_name, *dir, *part, *path;
	const void *data; /* borrowed from the exchange */
	size_t n;
	int64_t offset, size;
	/* outcome */
	int result;
	int64_t have; /* bytes of the part file now */
	bool complete, wrong_offset;
	struct bt_err err;
};

static void upload_free(struct bt_upload *u)
{
	for (struct bt_upload **p = &u->server->uploads; *p; p = &(*p)->next)
		if (*p == u) {
			*p = u->next;
			break;
		}
	free(u->digest);
	free(u->file_name);
	free(u->dir);
	free(u->part);
	free(u->path);
	free(u);
}

void bt_api_uploads_free(struct bt_server *s)
{
	while (s->uploads)
		upload_free(s->uploads);
}

static bool digest_good(const char *digest)
{
	return digest && strlen(digest) == 64 && strspn(digest, "0123456789abcdef") == 64;
}

static bool have_whole(struct bt_server *s, const char *digest, int64_t *ret_size)
{
	BT_JSON json_t *rows = NULL;
	BT_FREE char *name = bt_asprintf("artifacts/%s", digest);
	BT_FREE char *path = bt_server_path(s, name);
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_ARTIFACT_GET, digest) < 0 ||
		json_array_size(rows) == 0 || !bt_fs_exists(path))
		return false;
	*ret_size = json_integer_value(json_object_get(json_array_get(rows, 0), "size"));
	return true;
}

static int64_t part_size(struct bt_server *s, const char *digest)
{
	BT_FREE char *name = bt_asprintf("artifacts/%s.part", digest);
	BT_FREE char *path = bt_server_path(s, name);
	struct stat st;
	return stat(path, &st) == 0 ? (int64_t)st.st_size : 0;
}

void bt_api_artifact_head(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *digest = bt_http_param(x, "digest");
	int64_t size = 0;
	char offset[24];
	if (!digest_good(digest)) {
		bt_api_error(x, BT_E_PROTOCOL, "digest: expected 64 hex digits");
		return;
	}
	if (have_whole(s, digest, &size)) {
		bt_http_reply(x, 200, "application/octet-stream", NULL, (size_t)size);
		return;
	}
	snprintf(offset, sizeof offset, "%lld", (long long)part_size(s, digest));
	bt_http_reply_header(x, "Upload-Offset", offset);
	bt_api_error(x, BT_E_NOTFOUND, "artifact %.12s… is not here yet", digest);
}

/* ---- a part, beside the loop ------------------------------------------------------------- */

static int write_part(struct bt_upload *u, int fd)
{
	struct stat st;
	int64_t room = 0;
	if (fstat(fd, &st) < 0)
		return bt_err_errno(&u->err, errno, "%s", u->part);
	u->have = st.st_size;
	if (st.st_size != u->offset) {
		u->wrong_offset = true;
		return bt_err_set(&u->err, BT_E_EXISTS, "artifact %.12s…: %lld bytes are here",
			u->digest, (long long)st.st_size);
	}
	int r = bt_fs_free_bytes(u->dir, &room, &u->err);
	if (r < 0)
		return r;
	if (room < u->size - u->offset + KEEP_FREE)
		return bt_err_set(&u->err, -ENOSPC,
			"artifact %.12s…: %lld bytes are to come and %lld are free on the server, "
			"of which %lld are to be kept: make room there",
			u->digest, (long long)(u->size - u->offset), (long long)room,
			(long long)KEEP_FREE);
	if (lseek(fd, u->offset, SEEK_SET) < 0)
		return bt_err_errno(&u->err, errno, "%s", u->part);
	r = bt_fs_write_all(fd, u->data, u->n);
	if (r < 0) { /* a torn end is cut off, so that the client can go on from here */
		if (ftruncate(fd, u->offset) < 0)
			(void)unlink(u->part);
		return bt_err_errno(&u->err, -r, "write %s", u->part);
	}
	u->have = u->offset + (int64_t)u->n;
	return 0;
}

static int finish_part(struct bt_upload *u, int fd)
{
	char digest[65];
	int64_t size = 0;
	if (fsync(fd) < 0)
		return bt_err_errno(&u->err, errno, "fsync %s", u->part);
	int r = bt_fs_sha256(u->part, digest, &size, &u->err);
	if (r < 0)
		return r;
	if (strcmp(digest, u->digest) != 0) {
		(void)unlink(u->part);
		u->have = 0;
		return bt_err_set(&u->err, BT_E_CORRUPT,
			"artifact %.12s…: what came has the digest %.12s…: upload it again",
			u->digest, digest);
	}
	if (rename(u->part, u->path) < 0)
		return bt_err_errno(&u->err, errno, "rename %s", u->part);
	r = bt_fs_fsync_dir(u->dir, &u->err);
	u->complete = r == 0;
	return r;
}

static void on_thread(void *arg)
{
	struct bt_upload *u = arg;
	BT_CLOSE int fd = open(u->part, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	u->result = fd < 0 ? bt_err_errno(&u->err, errno, "open %s", u->part) : write_part(u, fd);
	if (u->result == 0 && u->have == u->size)
		u->result = finish_part(u, fd);
}

static void reply_failed(struct bt_upload *u)
{
	int status = u->result == -ENOSPC	 ? 507
		     : u->wrong_offset		 ? 409
		     : u->result == BT_E_CORRUPT ? 422
						 : 503;
	const char *code = status == 507   ? "no_space"
			   : status == 409 ? "offset"
			   : status == 422 ? "corrupt"
					   : "store";
	bt_http_reply_json(u->x, status,
		json_pack("{s:I, s:{s:s, s:s, s:I}}", "offset", (json_int_t)u->have, "error",
			"code", code, "message", u->err.text, "offset", (json_int_t)u->have));
}

static void on_indexed(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct bt_upload *u = arg;
	(void)t;
	if (result < 0)
		bt_http_reply_error(u->x, err);
	else
		bt_http_reply_json(u->x, 201, json_pack("{s:I}", "offset", (json_int_t)u->size));
	upload_free(u);
}

static void on_loop(void *arg)
{
	struct bt_upload *u = arg;
	if (u->result == 0 && u->complete) {
		struct bt_txn *t = bt_txn_new();
		bt_txn_add(t, BT_SQL_ARTIFACT_ADD, u->digest, u->size, u->file_name,
			bt_clock_wall_ms());
		bt_txn_add(t, BT_SQL_RELEASES_PRUNED, u->digest, (int64_t)0);
		bt_store_commit(u->server->store, t, on_indexed, u);
		return;
	}
	if (u->result < 0)
		reply_failed(u);
	else
		bt_http_reply_json(u->x, 200, json_pack("{s:I}", "offset", (json_int_t)u->have));
	upload_free(u);
}

static int read_part(struct bt_http_exchange *x, const char *digest, int64_t *ret_offset,
	int64_t *ret_size, size_t *ret_n, struct bt_err *err)
{
	const char *offset = bt_http_request_header(x, "Upload-Offset");
	int64_t size = bt_api_query_int(x, "size", 0, MAX_ARTIFACT, -1), at;
	size_t n;
	(void)bt_http_body(x, &n);
	if (!digest_good(digest))
		return bt_err_set(err, BT_E_PROTOCOL, "digest: expected 64 hex digits");
	if (size < 0)
		return bt_err_set(err, BT_E_PROTOCOL, "size: expected bytes, at most 16 GiB");
	if (size == 0)
		return bt_err_set(err, BT_E_CONFIG, "the artifact is empty");
	if (!offset || bt_int_parse(offset, 0, size, &at, NULL) < 0)
		return bt_err_set(err, BT_E_PROTOCOL, "Upload-Offset: expected 0 to size");
	/* Nothing more at the end: all came, and nobody was there to finish it. */
	if ((n == 0 && at < size) || (int64_t)n > size - at)
		return bt_err_set(err, BT_E_PROTOCOL,
			"a part of %zu bytes at %lld does not fit into %lld", n, (long long)at,
			(long long)size);
	*ret_offset = at;
	*ret_size = size;
	*ret_n = n;
	return 0;
}

void bt_api_artifact_part(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *digest = bt_http_param(x, "digest"), *name = bt_http_query(x, "name");
	int64_t offset = 0, size = 0, have;
	size_t n = 0;
	struct bt_err err;
	if (read_part(x, digest, &offset, &size, &n, &err) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	if (have_whole(s, digest, &have)) { /* the same digest is not stored twice */
		bt_http_reply_json(x, 201, json_pack("{s:I}", "offset", (json_int_t)have));
		return;
	}
	struct bt_upload *u = s->uploads;
	while (u && strcmp(u->digest, digest) != 0)
		u = u->next;
	if (u) {
		bt_api_error(
			x, BT_E_EXISTS, "another upload of %.12s… is writing: try again", digest);
		return;
	}
	u = bt_calloc(1, sizeof *u);
	*u = (struct bt_upload){.server = s, .x = x, .offset = offset, .size = size, .n = n};
	u->data = bt_http_body(x, &n);
	u->digest = bt_strdup(digest);
	u->file_name = bt_strdup(name);
	u->dir = bt_server_path(s, "artifacts");
	u->path = bt_asprintf("%s/%s", u->dir, digest);
	u->part = bt_asprintf("%s.part", u->path);
	u->next = s->uploads;
	s->uploads = u;
	bt_work_submit(s->work, on_thread, on_loop, u);
}

/* ---- to agents --------------------------------------------------------------------------- */

void bt_api_artifact_get(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *digest = bt_http_param(x, "digest");
	const struct bt_host *h = bt_who(x)->host;
	int64_t size = 0, from = bt_http_range_start(x);
	if (!digest_good(digest) ||
		bt_store_number(s->store, 0, BT_SQL_OUTBOX_DIGEST, h->name, digest) != 1) {
		bt_api_error(x, BT_E_REFUSED, "no command sent to %s needs this artifact", h->name);
		return;
	}
	if (!have_whole(s, digest, &size)) {
		bt_api_error(x, BT_E_NOTFOUND, "artifact %.12s… is gone from the server", digest);
		return;
	}
	BT_FREE char *name = bt_asprintf("artifacts/%s", digest);
	BT_FREE char *path = bt_server_path(s, name);
	bt_http_reply_file(x, path, from < 0 ? 0 : from);
}
