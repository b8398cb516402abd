/* Questions to agents: not durable, answered by posts to /v1/agent/stream/{ask}. The id is random,
 * and only the host that was asked may answer. */
#include "base/clock.h"
#include "server/hosts.h"

#include <openssl/rand.h>
#include <string.h>

struct bt_ask {
	struct bt_ask *next;
	struct bt_host *host;
	char id[25];
	struct event *timer;
	json_t *question;
	bt_ask_fn on_answer;
	void *arg;
	int64_t timeout_ms;
};

static void unlink_ask(struct bt_ask *a)
{
	for (struct bt_ask **p = &a->host->server->asks; *p; p = &(*p)->next)
		if (*p == a) {
			*p = a->next;
			break;
		}
	/* One that was not handed out yet needs no answer any more. */
	size_t i;
	json_t *q;
	json_array_foreach (a->host->asks, i, q)
		if (bt_streq(json_string_value(json_object_get(q, "ask")), a->id)) {
			json_array_remove(a->host->asks, i);
			break;
		}
	event_free(a->timer);
	json_decref(a->question);
	free(a);
}

static void fail(struct bt_ask *a, int code, const char *why)
{
	struct bt_err err;
	bt_ask_fn fn = a->on_answer;
	void *arg = a->arg;
	bt_err_set(&err, code, "host %s %s", a->host->name, why);
	unlink_ask(a);
	fn(arg, NULL, true, &err);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct bt_ask *a = arg;
	(void)fd;
	(void)what;
	bool connected = bt_host_connected(a->host);
	fail(a, connected ? BT_E_TIMEOUT : BT_E_UNREACHABLE,
		connected ? "did not answer in time" : "is not connected: is its agent running?");
}

struct bt_ask *bt_ask_start(
	struct bt_host *h, json_t *question, int64_t timeout_ms, bt_ask_fn on_answer, void *arg)
{
	unsigned char random[12];
	struct bt_ask *a = bt_calloc(1, sizeof *a);
	if (RAND_bytes(random, sizeof random) != 1)
		abort(); /* OpenSSL without random numbers: nothing here is safe */
	bt_hex(random, sizeof random, a->id);
	a->host = h;
	a->on_answer = on_answer;
	a->arg = arg;
	a->timeout_ms = timeout_ms;
	a->timer = evtimer_new(h->server->base, on_timeout, a);
	a->next = h->server->asks;
	h->server->asks = a;
	json_object_set_new(question, "ask", json_string(a->id));
	if (timeout_ms > 0 || !bt_host_connected(h)) {
		int64_t ms = bt_host_connected(h) ? timeout_ms : 0;
		bt_timer_in(a->timer, ms);
	}
	a->question = question;
	json_array_append(h->asks, question);
	bt_host_wake(h);
	return a;
}

struct bt_ask *bt_ask_cancel(struct bt_ask *a)
{
	if (!a)
		return NULL;
	struct bt_host *h = a->host;
	json_t *stop = json_pack("{s:s, s:s}", "ask", a->id, "kind", "stop");
	unlink_ask(a);
	if (bt_host_connected(h)) {
		json_array_append_new(h->asks, stop);
		bt_host_wake(h);
	} else {
		json_decref(stop);
	}
	return NULL;
}

bool bt_ask_answer(struct bt_host *h, const char *id, const json_t *answer)
{
	struct bt_ask *a = h->server->asks;
	while (a && (a->host != h || strcmp(a->id, id) != 0))
		a = a->next;
	if (!a)
		return false;
	const char *error = json_string_value(json_object_get(answer, "error"));
	if (error) {
		fail(a, BT_E_FAILED, error);
		return true;
	}
	bool end = json_is_true(json_object_get(answer, "end"));
	bt_ask_fn fn = a->on_answer;
	void *arg = a->arg;
	if (end)
		unlink_ask(a);
	fn(arg, answer, end, NULL);
	return true;
}

/* What was handed to an agent that died before it answered is handed to its successor; an agent
 * that only lost its link knows the id and goes on. */
void bt_asks_again(struct bt_host *h)
{
	json_array_clear(h->asks);
	for (struct bt_ask *a = h->server->asks; a; a = a->next)
		if (a->host == h)
			json_array_insert(h->asks, 0, a->question);
	bt_host_wake(h);
}

void bt_asks_tick(struct bt_server *s)
{
	for (struct bt_ask *a = s->asks, *next; a; a = next) {
		next = a->next;
		if (a->timeout_ms == 0 && !bt_host_connected(a->host)) {
			bt_timer_in(a->timer, 0); /* ends it from the loop, one at a time */
		}
	}
}

void bt_asks_drop(struct bt_server *s)
{
	while (s->asks)
		unlink_ask(s->asks);
}
