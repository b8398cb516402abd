#include "cli/upload.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define TRIES 8 /* in a row without a byte more */

struct upload {
	struct bt_client *client;
	const struct bt_artifact *artifact;
	struct bt_view *view;
	int fd;
	int64_t offset, first;
	char *buffer;
};

static void on_progress(void *arg, int64_t sent)
{
	struct upload *u = arg;
	int64_t at = u->offset + sent;
	if (at < u->artifact->size)
		bt_view_upload(
			u->view, u->artifact->file_name, at, u->artifact->size, u->first > 0);
}

/* 0: *offset says where to go on; 1: it is all there. */
static int ask_offset(struct upload *u, struct bt_err *err)
{
	static const int fine[] = {404, 0};
	BT_ANSWER struct bt_client_answer a = {0};
	BT_FREE char *path = bt_asprintf("/v1/artifacts/%s", u->artifact->digest);
	int r = bt_client_do(
		u->client, &(struct bt_client_call){.method = "HEAD", .path = path}, fine, &a, err);
	if (r < 0)
		return r;
	if (a.status != 404)
		return 1;
	u->offset =
		a.upload_offset > 0 && a.upload_offset <= u->artifact->size ? a.upload_offset : 0;
	return 0;
}

static int64_t offset_in(const struct bt_client_answer *a)
{
	if (a->upload_offset >= 0)
		return a->upload_offset;
	const json_t *j = json_object_get(a->body, "offset");
	if (!j)
		j = json_object_get(json_object_get(a->body, "error"), "offset");
	return json_is_integer(j) ? json_integer_value(j) : -1;
}

static int read_part(struct upload *u, size_t *ret, struct bt_err *err)
{
	int64_t left = u->artifact->size - u->offset;
	size_t want = left < BT_UPLOAD_PART ? (size_t)left : BT_UPLOAD_PART, have = 0;
	while (have < want) {
		ssize_t n = pread(u->fd, u->buffer + have, want - have, u->offset + (int64_t)have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return bt_err_errno(err, errno, "read %s", u->artifact->path);
		if (n == 0)
			return bt_err_set(err, BT_E_CORRUPT,
				"artifact %s was cut while it was sent", u->artifact->path);
		have += (size_t)n;
	}
	*ret = have;
	return 0;
}

/* 0: go on at u->offset; 1: complete. */
static int send_part(struct upload *u, struct bt_err *err)
{
	static const int fine[] = {409, 0};
	BT_ANSWER struct bt_client_answer a = {0};
	size_t n = 0;
	int r = read_part(u, &n, err);
	if (r < 0)
		return r;
	BT_FREE char *name = bt_url_escape(u->artifact->file_name);
	BT_FREE char *path = bt_asprintf("/v1/artifacts/%s?size=%lld&name=%s", u->artifact->digest,
		(long long)u->artifact->size, name);
	r = bt_client_do(u->client,
		&(struct bt_client_call){.method = "PATCH",
			.path = path,
			.raw = u->buffer,
			.raw_len = n,
			.upload_offset = u->offset,
			.on_progress = on_progress,
			.arg = u},
		fine, &a, err);
	if (r < 0)
		return r;
	if (a.status == 201)
		return 1;
	int64_t next = offset_in(&a);
	if (next < 0 && a.status == 200)
		next = u->offset + (int64_t)n;
	if (next < 0 || next > u->artifact->size)
		return bt_client_error(a.status, a.body, err);
	u->offset = next;
	return 0;
}

static bool may_retry(int code)
{
	return code == BT_E_UNREACHABLE || code == BT_E_TIMEOUT || code == BT_E_EXISTS;
}

static int send_all(struct upload *u, struct bt_err *err)
{
	int tries = 0, r = 0;
	while (r == 0) {
		int64_t before = u->offset;
		r = send_part(u, err);
		tries = r >= 0 && u->offset > before ? 0 : tries + 1;
		if (r == 0 && tries >= TRIES)
			r = bt_err_set(err, BT_E_PROTOCOL, "the server does not take byte %lld",
				(long long)u->offset);
		if (!may_retry(r) || tries >= TRIES)
			continue;
		if (tries == 1 && r == BT_E_EXISTS) /* another service's, or another person's */
			bt_view_note(u->view, "somebody else is sending the same file: waiting");
		else if (tries == 1)
			bt_view_note(
				u->view, "upload interrupted (%s), going on", err ? err->text : "");
		r = bt_client_wait(u->client, 250 << (tries < 4 ? tries : 4), err);
		if (r == 0)
			r = ask_offset(u, err);
		if (u->offset > before)
			tries = 0;
		if (may_retry(r))
			r = 0;
	}
	return r;
}

int bt_upload(
	struct bt_client *c, const struct bt_artifact *a, struct bt_view *v, struct bt_err *err)
{
	struct upload u = {.client = c, .artifact = a, .view = v};
	int r = ask_offset(&u, err);
	if (r < 0)
		return bt_err_wrap(err, "upload %s", a->file_name);
	if (r == 1) {
		bt_view_note(v, "%s is on the server already (sha256 %.12s…), nothing to send",
			a->file_name, a->digest);
		return 0;
	}
	BT_CLOSE int fd = open(a->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return bt_err_errno(err, errno, "read %s", a->path);
	BT_FREE char *buffer = bt_malloc(BT_UPLOAD_PART);
	u.fd = fd;
	u.buffer = buffer;
	u.first = u.offset;
	bt_view_upload(v, a->file_name, u.offset, a->size, u.first > 0);
	r = send_all(&u, err);
	if (r < 0)
		return bt_err_wrap(err, "upload %s", a->file_name);
	bt_view_upload(v, a->file_name, a->size, a->size, false);
	return 0;
}
