/* One call to the API. Where it is done, done may have freed what the request borrowed: after it
 * only what is the try's own is touched.
 *
 *  What may be repeated is repeated: no answer at all, 5xx, and 429, each after
 * a longer pause, or the one that Retry-After asks for (RFC 9110, 10.2.3: seconds; its other form,
 * a date, would trust the appliance's clock). To turn a member on or off twice is the same as once,
 * so a repeat after an answer that was lost does no harm. */
#include "base/clock.h"
#include "config/call.h"
#include "driver/l4_http.h"

#include <stdio.h>
#include <string.h>

enum { FIRST_PAUSE_MS = 200, MAX_PAUSE_MS = 5000, MAX_RETRY_AFTER_S = 30, MAX_HEADERS = 64 };

struct bt_api_try {
	const struct bt_driver_env *env;
	struct bt_api_request rq;
	bt_api_fn done;
	void *arg;
	char *url;
	struct bt_str body;
	struct bt_http_header *headers; /* values are owned */
	size_t n_headers;
	struct bt_tls_identity tls;
	struct bt_http_call *call;
	struct event *timer;
	int64_t tried;
	struct bt_err err; /* of what never began */
};

static const char *const words[] = {
	[BT_API_STATUS] = "status of", [BT_API_ON] = "turn on", [BT_API_OFF] = "turn off"};

static const struct bt_appliance *appliance(const struct bt_api_try *t)
{
	return &t->rq.service->l4->http;
}

static const struct bt_api_call *call_of(const struct bt_api_try *t)
{
	const struct bt_appliance *a = appliance(t);
	return t->rq.verb == BT_API_STATUS ? &a->status
	       : t->rq.verb == BT_API_ON   ? &a->on
					   : &a->off;
}

static void try_free(struct bt_api_try *t)
{
	bt_http_cancel(t->call);
	event_free(t->timer);
	for (size_t i = 0; i < t->n_headers; i++)
		free((char *)t->headers[i].value);
	free(t->headers);
	free(t->url);
	bt_str_done(&t->body);
	free(t);
}

struct bt_api_try *bt_api_cancel(struct bt_api_try *t)
{
	if (t)
		try_free(t);
	return NULL;
}

static void finish(struct bt_api_try *t, int result, const char *body, size_t n, struct bt_err *err)
{
	const struct bt_pool_member *m = t->rq.member;
	if (result < 0) {
		bt_err_wrap(err, "%s %s/%s", words[t->rq.verb], m->host ? m->host : "?",
			m->slot ? m->slot : "?");
		bt_api_hide(t->env, t->rq.service, err);
	}
	t->done(t->arg, result, body, n, err);
	try_free(t);
}

/* ---- repeats ---- */

static int64_t pause_ms(const struct bt_api_try *t, const struct bt_http_response *r)
{
	const char *after = r->status ? r->header(r, "retry-after") : NULL;
	int64_t s, pause = FIRST_PAUSE_MS;
	if (after && bt_int_parse(after, 0, MAX_RETRY_AFTER_S, &s, NULL) == 0 && s > 0)
		return s * 1000;
	for (int64_t i = 1; i < t->tried && pause < MAX_PAUSE_MS; i++)
		pause *= 2;
	return pause < MAX_PAUSE_MS ? pause : MAX_PAUSE_MS;
}

static bool may_repeat(const struct bt_http_response *r, const struct bt_err *err)
{
	if (r->status == 0)
		return err->code == BT_E_UNREACHABLE || err->code == BT_E_TIMEOUT;
	return r->status == 429 || r->status >= 500;
}

static bool in_time(const struct bt_api_try *t, const struct bt_http_response *r)
{
	return !t->rq.until_ms || bt_clock_boot_ms() + pause_ms(t, r) < t->rq.until_ms;
}

static void repeat_later(struct bt_api_try *t, const struct bt_http_response *r, struct bt_err *why)
{
	int64_t ms = pause_ms(t, r);
	if (t->rq.progress) {
		BT_FREE char *line =
			bt_asprintf("%s %s/%s: %s; again in %lld ms", words[t->rq.verb],
				t->rq.member->host, t->rq.member->slot, why->text, (long long)ms);
		struct bt_err safe = {0};
		bt_err_set(&safe, BT_E_FAILED, "%s", line);
		bt_api_hide(t->env, t->rq.service, &safe);
		t->rq.progress(t->rq.progress_arg, safe.text);
	}
	bt_timer_in(t->timer, ms);
}

/* ---- the answer ---- */

static int judge(const struct bt_api_try *t, const struct bt_http_response *r,
	const struct bt_err *no_answer, struct bt_err *err)
{
	if (r->status == 0)
		return bt_err_set(err, no_answer->code, "%s", no_answer->text);
	if (r->status >= 200 && r->status < 300)
		return 0;
	BT_STR struct bt_str shown = {0};
	bt_str_add_shown(&shown, r->body ? r->body : "", r->body_len);
	bool who = r->status == 401 || r->status == 403;
	return bt_err_set(err, who ? BT_E_AUTH : BT_E_FAILED, "%s %.*s: answered %d%s%s%s",
		call_of(t)->method, (int)strcspn(t->url, "?"), t->url, r->status,
		shown.len ? " " : "", bt_str_get(&shown),
		who ? " (does traffic.http.headers hold what the API wants?)" : "");
}

static void on_answer(void *arg, const struct bt_http_response *r, const struct bt_err *no_answer)
{
	struct bt_api_try *t = arg;
	struct bt_err err = {0};
	t->call = NULL;
	int result = judge(t, r, no_answer, &err);
	if (result < 0 && may_repeat(r, no_answer) && t->tried <= appliance(t)->retries &&
		in_time(t, r)) {
		repeat_later(t, r, &err);
		return;
	}
	if (result < 0 && t->tried > 1) {
		char text[sizeof err.text];
		snprintf(text, sizeof text, "%s", err.text);
		bt_err_set(&err, err.code, "%s (tried %lld times)", text, (long long)t->tried);
	}
	finish(t, result, r->body ? r->body : "", r->body_len, &err);
}

static void send_it(struct bt_api_try *t)
{
	const struct bt_appliance *a = appliance(t);
	struct bt_http_request rq = {
		.method = call_of(t)->method,
		.url = t->url,
		.headers = t->headers,
		.n_headers = t->n_headers,
		.body = t->body.len ? t->body.data : NULL,
		.body_len = t->body.len,
		.tls = a->ca ? &t->tls : NULL,
		.insecure = !a->verify,
		.timeout_ms = a->timeout_ms,
		.connect_timeout_ms = a->timeout_ms,
		.max_body = BT_API_ANSWER_MAX,
	};
	t->tried++;
	t->call = bt_http_start(t->env->http, &rq, on_answer, t);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct bt_api_try *t = arg;
	(void)fd;
	(void)what;
	if (t->err.code)
		finish(t, t->err.code, "", 0, &t->err);
	else
		send_it(t);
}

/* ---- what is sent ---- */

static int write_request(struct bt_api_try *t, struct bt_err *err)
{
	const struct bt_appliance *a = appliance(t);
	const struct bt_pool_member *m = t->rq.member;
	const struct bt_call_values v = {
		.host = m->host,
		.slot = m->slot,
		.port = m->port,
		.address = m->address,
		.service = t->rq.service->name,
	};
	BT_STR struct bt_str url = {0};
	if (a->n_headers > MAX_HEADERS)
		return bt_err_set(err, BT_E_CONFIG, "more than %d headers", MAX_HEADERS);
	int r = bt_call_expand(call_of(t)->url, &v, BT_CALL_URL, &url, err);
	if (r == 0 && call_of(t)->body)
		r = bt_call_expand(call_of(t)->body, &v, BT_CALL_JSON, &t->body, err);
	t->url = bt_str_steal(&url);
	t->headers = bt_calloc(a->n_headers + 1, sizeof *t->headers);
	for (size_t i = 0; r == 0 && i < a->n_headers; i++) {
		BT_STR struct bt_str value = {0};
		r = bt_api_header(t->env, t->rq.service, a->headers[i].value, &value, err);
		t->headers[i].name = a->headers[i].key;
		t->headers[i].value = bt_str_steal(&value);
		t->n_headers++;
	}
	return r;
}

struct bt_api_try *bt_api_start(
	const struct bt_driver_env *env, const struct bt_api_request *rq, bt_api_fn done, void *arg)
{
	struct bt_api_try *t = bt_calloc(1, sizeof *t);
	t->env = env;
	t->rq = *rq;
	t->done = done;
	t->arg = arg;
	t->tls.ca_file = appliance(t)->ca;
	t->timer = evtimer_new(env->base, on_timer, t);
	write_request(t, &t->err);
	bt_timer_in(t->timer, 0);
	return t;
}
