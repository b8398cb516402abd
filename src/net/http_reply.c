/* Answers: whole, streamed, or from a file. An exchange whose peer left (conn is NULL) takes its
 * answer all the same and is freed by it. */
#include "base/fs.h"
#include "net/http_internal.h"

#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <event2/util.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_PIECE = 128 * 1024 };

static const struct {
	int status;
	const char *reason;
	const char *code; /* of an error that has only a status */
} status_rows[] = {
	{200, "OK", NULL},
	{201, "Created", NULL},
	{202, "Accepted", NULL},
	{204, "No Content", NULL},
	{206, "Partial Content", NULL},
	{302, "Found", NULL},
	{303, "See Other", NULL},
	{304, "Not Modified", NULL},
	{400, "Bad Request", "protocol"},
	{401, "Unauthorized", "auth"},
	{403, "Forbidden", "refused"},
	{404, "Not Found", "not_found"},
	{405, "Method Not Allowed", "refused"},
	{408, "Request Timeout", "timeout"},
	{409, "Conflict", "exists"},
	{413, "Content Too Large", "too_large"},
	{414, "URI Too Long", "protocol"},
	{416, "Range Not Satisfiable", "refused"},
	{422, "Unprocessable Content", "failed"},
	{431, "Request Header Fields Too Large", "protocol"},
	{500, "Internal Server Error", "internal"},
	{502, "Bad Gateway", "unreachable"},
	{503, "Service Unavailable", "busy"},
	{504, "Gateway Timeout", "timeout"},
	{507, "Insufficient Storage", "no_space"},
};

static const struct {
	int code;
	const char *name;
	int status;
} error_rows[] = {
	{BT_E_CONFIG, "config", 400},
	{BT_E_PROTOCOL, "protocol", 400},
	{BT_E_AUTH, "auth", 401},
	{BT_E_REFUSED, "refused", 403},
	{BT_E_NOTFOUND, "not_found", 404},
	{-ENOENT, "not_found", 404},
	{BT_E_LEASE, "lease", 409},
	{BT_E_EXISTS, "exists", 409},
	{-EFBIG, "too_large", 413},
	{BT_E_CORRUPT, "corrupt", 422},
	{BT_E_FAILED, "failed", 422},
	{BT_E_UNREACHABLE, "unreachable", 502},
	{BT_E_STORE, "store", 503},
	{-EBUSY, "busy", 503},
	{BT_E_TIMEOUT, "timeout", 504},
	{-ENOSPC, "no_space", 507},
};

static const char *name_of(int code)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(error_rows); i++)
		if (error_rows[i].code == code)
			return error_rows[i].name;
	return "internal";
}

static const char *reason_of(int status)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(status_rows); i++)
		if (status_rows[i].status == status)
			return status_rows[i].reason;
	return "Unknown";
}

static const char *code_of(int status)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(status_rows); i++)
		if (status_rows[i].status == status && status_rows[i].code)
			return status_rows[i].code;
	return "internal";
}

/* ---- heads ---- */

static bool has_reply_header(const struct bt_http_exchange *x, const char *name)
{
	size_t n = strlen(name);
	const char *p = bt_str_get(&x->reply_headers);
	while (*p) {
		if (strncasecmp(p, name, n) == 0 && p[n] == ':')
			return true;
		p += strcspn(p, "\n");
		p += *p == '\n';
	}
	return false;
}

/* length: -1 for a stream, whose length nobody knows yet */
static void send_head(struct bt_http_exchange *x, int status, const char *type, int64_t length)
{
	struct bt_http_conn *c = x->conn;
	struct evbuffer *out = bufferevent_get_output(c->bev);
	if (length < 0 && x->http10)
		c->close_after = true;
	evbuffer_add_printf(out, "HTTP/1.1 %d %s\r\n", status, reason_of(status));
	char date[64];
	if (evutil_date_rfc1123(date, sizeof date, NULL) > 0)
		evbuffer_add_printf(out, "Date: %s\r\n", date);
	if (type)
		evbuffer_add_printf(out, "Content-Type: %s\r\n", type);
	if (length >= 0 && status != 204 && status != 304)
		evbuffer_add_printf(out, "Content-Length: %lld\r\n", (long long)length);
	else if (length < 0 && !x->http10)
		evbuffer_add_printf(out, "Transfer-Encoding: chunked\r\n");
	if (!has_reply_header(x, "Cache-Control"))
		evbuffer_add_printf(out, "Cache-Control: no-store\r\n");
	if (status == 401)
		evbuffer_add_printf(out, "WWW-Authenticate: Bearer\r\n");
	evbuffer_add_printf(out, "X-Content-Type-Options: nosniff\r\n%s%s\r\n",
		c->close_after ? "Connection: close\r\n" : "", bt_str_get(&x->reply_headers));
}

void bt_http_reply_header(struct bt_http_exchange *x, const char *name, const char *value)
{
	bt_str_addf(&x->reply_headers, "%s: ", name);
	for (const char *p = value; *p; p++) /* no value may begin a header of its own */
		bt_str_addc(&x->reply_headers, (unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
	bt_str_add(&x->reply_headers, "\r\n");
}

/* False where the peer left: the exchange is gone, or its on_close still runs. */
static bool can_answer(struct bt_http_exchange *x)
{
	if (x->conn)
		return true;
	if (!x->leaving)
		bt_http_exchange_free(x);
	return false;
}

/* ---- whole answers ---- */

void bt_http_reply(struct bt_http_exchange *x, int status, const char *content_type,
	const void *body, size_t n)
{
	if (!can_answer(x))
		return;
	send_head(x, status, content_type, (int64_t)n);
	if (!x->is_head && n > 0 && status != 204 && status != 304)
		evbuffer_add(bufferevent_get_output(x->conn->bev), body, n);
	bt_http_conn_answered(x->conn);
}

void bt_http_reply_json(struct bt_http_exchange *x, int status, json_t *j)
{
	BT_FREE char *text = bt_json_dump(j);
	json_decref(j);
	bt_http_reply(x, status, "application/json", text, strlen(text));
}

static json_t *error_json(const char *code, const char *message)
{
	/* a message may quote what a peer sent, which need not be UTF-8 */
	json_t *text = json_string(message);
	if (!text) {
		BT_FREE char *plain = bt_strdup(message);
		for (char *p = plain; *p; p++)
			*p = (unsigned char)*p < 0x80 ? *p : '?';
		text = json_string(plain);
	}
	return json_pack("{s:{s:s, s:o}}", "error", "code", code, "message", text);
}

void bt_http_reply_status_error(
	struct bt_http_exchange *x, int status, const char *code, const char *message)
{
	bt_http_reply_json(x, status, error_json(code ? code : code_of(status), message));
}

void bt_http_reply_error(struct bt_http_exchange *x, const struct bt_err *err)
{
	int status = 500;
	for (size_t i = 0; i < BT_ARRAY_LEN(error_rows); i++)
		if (error_rows[i].code == err->code)
			status = error_rows[i].status;
	bt_http_reply_status_error(x, status, name_of(err->code), err->text);
}

void bt_http_reply_raw(struct bt_http_conn *c, int status, const char *message)
{
	json_t *j = error_json(code_of(status), message);
	BT_FREE char *text = bt_json_dump(j);
	json_decref(j);
	evbuffer_add_printf(bufferevent_get_output(c->bev),
		"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
		"Connection: close\r\n\r\n%s",
		status, reason_of(status), strlen(text), text);
}

/* ---- streams ---- */

void bt_http_stream_start(struct bt_http_exchange *x, const char *content_type)
{
	if (!x->conn)
		return;
	bt_http_reply_header(x, "X-Accel-Buffering", "no");
	send_head(x, 200, content_type, -1);
	x->conn->state = BT_CONN_STREAM;
}

size_t bt_http_stream_send(struct bt_http_exchange *x, const void *data, size_t n)
{
	if (!x->conn)
		return SIZE_MAX;
	struct evbuffer *out = bufferevent_get_output(x->conn->bev);
	if (n > 0 && !x->is_head) {
		if (!x->http10)
			evbuffer_add_printf(out, "%zx\r\n", n);
		evbuffer_add(out, data, n);
		if (!x->http10)
			evbuffer_add(out, "\r\n", 2);
		bt_http_conn_account(x->conn);
	}
	return evbuffer_get_length(out);
}

void bt_http_stream_end(struct bt_http_exchange *x)
{
	if (!can_answer(x))
		return;
	if (!x->http10 && !x->is_head)
		evbuffer_add(bufferevent_get_output(x->conn->bev), "0\r\n\r\n", 5);
	bt_http_conn_answered(x->conn);
}

/* ---- files ---- */

/* Plain: the kernel sends one segment. TLS has to see the bytes: piece by piece, as they leave. */
static void send_file(struct bt_http_conn *c, int fd, int64_t offset, int64_t size)
{
	c->state = BT_CONN_FILE;
	c->file_fd = -1;
	if (bufferevent_openssl_get_ssl(c->bev)) {
		c->file_fd = fd;
		c->file_at = offset;
		c->file_end = size;
		bt_http_file_pump(c);
		return;
	}
	if (evbuffer_add_file(bufferevent_get_output(c->bev), fd, offset, size - offset) != 0) {
		close(fd);
		c->close_after = true; /* less than promised: the peer sees it */
	}
}

static int open_file(struct bt_http_exchange *x, const char *path, int64_t *ret_size)
{
	struct bt_err err = {0};
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		bt_err_errno(&err, errno, "read %s", path);
	} else if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		fd = bt_err_set(&err, BT_E_NOTFOUND, "%s is not a file", path);
	}
	if (fd < 0) {
		bt_http_reply_error(x, &err);
		return -1;
	}
	*ret_size = st.st_size;
	return fd;
}

void bt_http_reply_file(struct bt_http_exchange *x, const char *path, int64_t offset)
{
	int64_t size = 0;
	if (!can_answer(x))
		return;
	int fd = open_file(x, path, &size);
	if (fd < 0)
		return;
	if (offset < 0 || offset > size) {
		close(fd);
		BT_FREE char *range = bt_asprintf("bytes */%lld", (long long)size);
		bt_http_reply_header(x, "Content-Range", range);
		bt_http_reply_status_error(x, 416, NULL, "the range begins after the end");
		return;
	}
	struct bt_http_conn *c = x->conn;
	bool part = offset > 0;
	bt_http_reply_header(x, "Accept-Ranges", "bytes");
	if (part) {
		BT_FREE char *range = bt_asprintf("bytes %lld-%lld/%lld", (long long)offset,
			(long long)size - 1, (long long)size);
		bt_http_reply_header(x, "Content-Range", range);
	}
	send_head(x, part ? 206 : 200, "application/octet-stream", size - offset);
	if (x->is_head || offset == size)
		close(fd);
	else
		send_file(c, fd, offset, size);
	bt_http_conn_answered(c);
}

static void file_done(struct bt_http_conn *c)
{
	if (c->file_fd >= 0)
		close(c->file_fd);
	c->file_fd = -1;
	c->state = BT_CONN_HELD; /* so that answered() sets what comes next */
	bt_http_conn_answered(c);
}

void bt_http_file_pump(struct bt_http_conn *c)
{
	struct evbuffer *out = bufferevent_get_output(c->bev);
	if (c->file_fd < 0) {
		if (evbuffer_get_length(out) == 0)
			file_done(c);
		return;
	}
	struct evbuffer_iovec space;
	if (evbuffer_reserve_space(out, FILE_PIECE, &space, 1) < 1)
		abort();
	size_t want = c->file_end - c->file_at < FILE_PIECE ? (size_t)(c->file_end - c->file_at)
							    : (size_t)FILE_PIECE;
	ssize_t n = pread(c->file_fd, space.iov_base, want, c->file_at);
	space.iov_len = n > 0 ? (size_t)n : 0;
	evbuffer_commit_space(out, &space, 1);
	c->file_at += n > 0 ? n : 0;
	if (n <= 0)
		c->close_after = true; /* less than promised: the peer sees it */
	if (n <= 0 || c->file_at == c->file_end) {
		close(c->file_fd);
		c->file_fd = -1; /* the rest goes out; the next write callback ends it */
	}
}
