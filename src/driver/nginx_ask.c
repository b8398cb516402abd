/* Who answers through nginx after a change? Workers are new already, so a wrong answer, or a
 * refused connection, is soon final: while a better one is waited for, it is what users get. No
 * answer yet says nothing on a busy host: there it is asked again until its own, longer, deadline.
 */
#include "driver/nginx_step.h"

#include "base/clock.h"

#include <string.h>

#define ANSWER_POLL_MS 50
#define ANSWER_WITHIN_MS 20000
#define WRONG_WITHIN_MS 3000 /* from the first wrong answer */
#define ANSWER_TIMEOUT_MS 5000

static void ask_again(struct bt_nginx_batch *b);

static bool body_is(const struct bt_http_response *r, const char *expect)
{
	size_t n = r->body_len;
	const char *p = r->body;
	while (n > 0 && strchr(" \t\r\n", p[n - 1]) && p[n - 1])
		n--;
	while (n > 0 && strchr(" \t\r\n", *p) && *p) {
		p++;
		n--;
	}
	return n == strlen(expect) && !memcmp(p, expect, n);
}

static bool answer_is_good(const struct bt_nginx_check *c, const struct bt_http_response *r)
{
	if (r->status == 0)
		return false;
	if (c->n_expect == 0)
		return r->status < 502 || r->status > 504;
	for (size_t i = 0; i < c->n_expect; i++)
		if (r->status / 100 == 2 && body_is(r, c->expect[i]))
			return true;
	return false;
}

static void on_answer(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct bt_nginx_batch *b = arg;
	const struct bt_nginx_check *c = &b->ops[b->asking]->want->check;
	if (answer_is_good(c, r)) {
		b->asking++;
		b->deadline_ms = bt_clock_boot_ms() + ANSWER_WITHIN_MS;
		bt_nginx_batch_after(b, 0, ask_again);
		return;
	}
	int64_t now = bt_clock_boot_ms();
	bool silent = err && err->code == BT_E_TIMEOUT;
	if (!silent && b->deadline_ms > now + WRONG_WITHIN_MS)
		b->deadline_ms = now + WRONG_WITHIN_MS;
	if (now < b->deadline_ms) {
		bt_nginx_batch_after(b, ANSWER_POLL_MS, ask_again);
		return;
	}
	if (r->status == 0)
		bt_nginx_batch_fail(b, BT_E_FAILED, "nginx: no answer at %s after the reload: %s",
			c->url, err ? err->text : "");
	else if (c->n_expect == 0)
		bt_nginx_batch_fail(b, BT_E_FAILED, "nginx answers %d at %s after the reload",
			r->status, c->url);
	else
		bt_nginx_batch_fail(b, BT_E_FAILED,
			"nginx answers %d '%.*s' at %s after the reload, expected '%s'%s",
			r->status, (int)(r->body_len > 80 ? 80 : r->body_len), r->body, c->url,
			c->expect[0], c->n_expect > 1 ? " or another one in rotation" : "");
}

/* A fresh connection each time: an old one could still reach an old worker. */
static void ask_again(struct bt_nginx_batch *b)
{
	while (b->asking < b->n && !b->ops[b->asking]->want->check.url)
		b->asking++;
	if (b->asking == b->n) {
		bt_nginx_batch_answered(b);
		return;
	}
	const struct bt_nginx_check *c = &b->ops[b->asking]->want->check;
	struct bt_http_header host = {"Host", c->host};
	struct bt_http_request rq = {.method = "GET",
		.url = c->url,
		.headers = &host,
		.n_headers = c->host ? 1 : 0,
		.insecure = true,
		.no_reuse = true,
		.timeout_ms = ANSWER_TIMEOUT_MS,
		.max_body = 65536};
	bt_http_start(bt_nginx_driver()->env->http, &rq, on_answer, b);
}

void bt_nginx_ask(struct bt_nginx_batch *b)
{
	b->asking = 0;
	b->deadline_ms = bt_clock_boot_ms() + ANSWER_WITHIN_MS;
	ask_again(b);
}
