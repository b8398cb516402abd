/* Nothing of the URL comes into a text here but its scheme and host: with a webhook the path is the
 * password, also where a redaction of values would not know it (a URL that is one secret is shown
 * by libcurl in parts). Only on a connection of its own, since libcurl sends a request again where
 * a kept connection turns out to be closed; and without redirects, which would take the body
 * elsewhere. */
#include "driver/notify.h"

#include "base/str.h"
#include "base/version.h"
#include "driver/op.h"
#include "net/http_client.h"

#include <ctype.h>
#include <string.h>

#define SHOWN_BYTES 120 /* of an answer that is not 2xx */
#define URL_MAX 8192

struct notify {
	struct bt_op op;
	struct bt_http_call *call;
	char *name, *url, *body;
	char shown[SHOWN_BYTES + 1];
	size_t n_shown;
	int status; /* 0: no answer yet */
	bt_done_fn done;
	void *arg;
};

static void notify_free(struct notify *n)
{
	free(n->name);
	free(n->url);
	free(n->body);
	free(n);
}

static void notify_cancel(struct bt_op *op)
{
	struct notify *n = (struct notify *)op;
	bt_http_cancel(n->call);
	notify_free(n);
}

/* ---- the answer ----------------------------------------------------------------------------- */

static void on_headers(void *arg, int status)
{
	struct notify *n = arg;
	n->status = status;
}

/* The beginning is kept for people; what follows is of no use, however long it is. */
static bool on_data(void *arg, const void *data, size_t len)
{
	struct notify *n = arg;
	size_t room = SHOWN_BYTES - n->n_shown;
	len = len < room ? len : room;
	memcpy(n->shown + n->n_shown, data, len);
	n->n_shown += len;
	return n->n_shown < SHOWN_BYTES;
}

/* "connect: Connection refused" of "POST https://…: connect: Connection refused". */
static const char *reason(const struct notify *n, const struct bt_err *err)
{
	size_t skip = strlen("POST ") + strcspn(n->url, "?");
	const char *text = err ? err->text : "";
	if (strlen(text) > skip + 2 && bt_str_starts(text + skip, ": "))
		return text + skip + 2;
	return "no answer";
}

/* http://host:port of the URL. */
static int place_len(const char *url)
{
	const char *rest = strstr(url, "://");
	return rest ? (int)(rest + 3 - url + (ptrdiff_t)strcspn(rest + 3, "/?#")) : 0;
}

static const char *place(const struct notify *n, char *buf, size_t size)
{
	const char *at = strchr(n->url, '@'); /* a password may stand before it */
	int len = place_len(n->url);
	if (at && at < n->url + len)
		snprintf(buf, size, "%.*s", (int)(n->url + len - at - 1), at + 1);
	else
		snprintf(buf, size, "%.*s", len, n->url);
	return buf;
}

static void on_end(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct notify *n = arg;
	struct bt_err e = {0};
	char where[300];
	int result = 0, status = r->status ? r->status : n->status;
	place(n, where, sizeof where);
	n->shown[strcspn(n->shown, "\r\n")] = '\0';
	if (status / 100 == 2) {
		bt_err_clear(&e);
	} else if (status) {
		result = bt_err_set(&e, BT_E_FAILED, "%s (%s) answered %d, expected 2xx%s%s%s",
			n->name, where, status,
			status / 100 == 3 ? "; redirects are not followed" : "",
			n->shown[0] ? ": " : "", n->shown);
	} else if (r->sent) {
		bt_err_set(&e, BT_E_UNREACHABLE, "it is not known whether %s (%s) took it: %s",
			n->name, where, reason(n, err));
		result = 1;
	} else {
		result = bt_err_set(
			&e, BT_E_UNREACHABLE, "%s (%s): %s", n->name, where, reason(n, err));
	}
	n->done(n->arg, result, result ? &e : NULL);
	notify_free(n);
}

struct bt_op *bt_notify_send(const struct bt_driver_env *env, const struct bt_notify_post *post,
	bt_done_fn done, void *arg)
{
	struct notify *n = bt_calloc(1, sizeof *n);
	BT_FREE char *agent = bt_asprintf("baton/%s", bt_version);
	const struct bt_http_header headers[] = {{"Content-Type", "application/json"},
		{"User-Agent", agent}, {"X-Baton-Delivery", post->delivery}};
	*n = (struct notify){.op = {notify_cancel},
		.name = bt_strdup(post->name),
		.url = bt_strdup(post->url),
		.body = bt_strdup(post->body),
		.done = done,
		.arg = arg};
	struct bt_http_request rq = {.method = "POST",
		.url = n->url,
		.headers = headers,
		.n_headers = BT_ARRAY_LEN(headers),
		.body = n->body,
		.body_len = strlen(n->body),
		.no_reuse = true,
		.timeout_ms = post->timeout_ms,
		.on_headers = on_headers,
		.on_data = on_data};
	n->call = bt_http_start(env->http, &rq, on_end, n);
	return &n->op;
}

/* ---- the URL -------------------------------------------------------------------------------- */

static const char *value_of(
	const struct bt_kv *secrets, size_t n_secrets, const char *name, size_t len)
{
	for (size_t i = 0; i < n_secrets; i++)
		if (strlen(secrets[i].key) == len && memcmp(secrets[i].key, name, len) == 0)
			return secrets[i].value;
	return NULL;
}

static bool is_url(const char *t)
{
	bool scheme = bt_str_starts(t, "http://") || bt_str_starts(t, "https://");
	size_t n = strlen(t);
	for (size_t i = 0; i < n; i++)
		if (!isgraph((unsigned char)t[i]))
			return false;
	return scheme && n <= URL_MAX && place_len(t) > (int)(strstr(t, "://") + 3 - t);
}

int bt_notify_url(const char *template, const struct bt_kv *secrets, size_t n_secrets,
	struct bt_str *out, struct bt_err *err)
{
	for (const char *p = template; *p;) {
		const char *end = bt_str_starts(p, "${") ? strchr(p, '}') : NULL;
		if (!end) {
			bt_str_addc(out, *p++);
			continue;
		}
		const char *value = value_of(secrets, n_secrets, p + 2, (size_t)(end - p - 2));
		if (!value)
			return bt_err_set(err, BT_E_REFUSED,
				"the secret %.*s of its url did not come along: expected it in "
				"run.secrets, with a value since the last deployment",
				(int)(end - p - 2), p + 2);
		bt_str_add(out, value);
		p = end + 1;
	}
	if (!is_url(bt_str_get(out)))
		return bt_err_set(err, BT_E_REFUSED,
			"with its secrets the url is none: expected http:// or https://, a host, "
			"and no blank or other character that a URL has not");
	return 0;
}
