/* Who answers at this URL? Asked on a connection of its own, with a short deadline. */
#include "base/str.h"
#include "driver/op.h"
#include "net/http_client.h"

#include <string.h>

#define IDENTITY_TIMEOUT_MS 2000
#define IDENTITY_MAX 256

struct identity {
	struct bt_op op;
	struct bt_http_call *call;
	char *url;
	void (*done)(void *, int, const char *, const struct bt_err *);
	void *arg;
};

static void identity_free(struct identity *i)
{
	free(i->url);
	free(i);
}

static void identity_cancel(struct bt_op *op)
{
	struct identity *i = (struct identity *)op;
	bt_http_cancel(i->call);
	identity_free(i);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static char *trimmed(const char *body, size_t n)
{
	while (n > 0 && is_blank(*body)) {
		body++;
		n--;
	}
	n = n > IDENTITY_MAX ? IDENTITY_MAX : n;
	while (n > 0 && is_blank(body[n - 1]))
		n--;
	return bt_strndup(body, n);
}

static void on_answer(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct identity *i = arg;
	struct bt_err e = {0};
	BT_FREE char *body = NULL;
	if (r->status == 0) {
		bt_err_set(&e, err && err->code < 0 ? err->code : BT_E_UNREACHABLE,
			"identity at %s: %s", i->url, err ? err->text : "no answer");
	} else if (r->status / 100 != 2) {
		bt_err_set(&e, BT_E_FAILED, "identity at %s: status %d", i->url, r->status);
	} else {
		body = trimmed(r->body ? r->body : "", r->body ? r->body_len : 0);
	}
	i->done(i->arg, e.code, body ? body : "", &e);
	identity_free(i);
}

struct bt_op *bt_identity_ask(const struct bt_driver_env *env, const char *url,
	const char *host_header,
	void (*done)(void *arg, int result, const char *body, const struct bt_err *err), void *arg)
{
	struct identity *i = bt_calloc(1, sizeof *i);
	struct bt_http_header host = {"Host", host_header};
	i->op.cancel = identity_cancel;
	i->url = bt_strdup(url);
	i->done = done;
	i->arg = arg;
	struct bt_http_request rq = {.method = "GET",
		.url = i->url,
		.headers = &host,
		.n_headers = host_header ? 1 : 0,
		.insecure = true, /* a name to compare, and no secret goes along */
		.no_reuse = true,
		.timeout_ms = IDENTITY_TIMEOUT_MS,
		.max_body = 65536};
	i->call = bt_http_start(env->http, &rq, on_answer, i);
	return &i->op;
}
