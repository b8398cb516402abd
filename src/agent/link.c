/* Hello, then polls, one exchange at a time. A poll's commands go to the executor one by one, each
 * when the one before is durable; the next poll carries the cursor past them all. Any failure
 * leads back to hello after a pause: the server may have become another one meanwhile. */
#include "agent/link_priv.h"

#include "agent/upgrade.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

#include <event2/util.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#define POLL_WAIT_S 25
#define POLL_TIMEOUT_MS 40000
#define HELLO_TIMEOUT_MS 15000
#define PAUSE_MAX_MS 10000
#define PAUSE_WRONG_MS 20000 /* what a person must mend is not asked for every second */
#define ANSWER_MAX (16u << 20)

static void hello(struct bt_link *l);
static void poll_commands(struct bt_link *l);

/* ---- exchanges ----------------------------------------------------------------------------- */

struct bt_link_call {
	struct bt_http_call *http;
	char *url, *body;
	bt_link_done done;
	void *arg;
};

static void call_free(struct bt_link_call *c)
{
	free(c->url);
	free(c->body);
	free(c);
}

static void on_answer(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct bt_link_call *c = arg;
	struct bt_err bad = {0};
	BT_JSON json_t *answer = NULL;
	int status = r->status;
	if (status && r->body_len &&
		bt_json_parse(r->body, r->body_len, ANSWER_MAX, &answer, &bad) < 0 &&
		status < 300) {
		bt_err_wrap(&bad, "answer of %s", c->url);
		status = 0;
		err = &bad;
	}
	c->done(c->arg, status, answer, err);
	call_free(c);
}

struct bt_link_call *bt_link_call(struct bt_link *l, const char *method, const char *path,
	json_t *body, int64_t timeout_ms, bt_link_done done, void *arg)
{
	static const struct bt_http_header json = {"Content-Type", "application/json"};
	struct bt_link_call *c = bt_calloc(1, sizeof *c);
	c->url = bt_asprintf("%s%s", l->env.server_url, path);
	c->body = body ? bt_json_dump(body) : NULL;
	json_decref(body);
	c->done = done;
	c->arg = arg;
	struct bt_http_request rq = {.method = method,
		.url = c->url,
		.headers = &json,
		.n_headers = c->body ? 1 : 0,
		.body = c->body,
		.body_len = c->body ? strlen(c->body) : 0,
		.tls = l->env.tls,
		.timeout_ms = timeout_ms,
		.max_body = ANSWER_MAX};
	c->http = bt_http_start(l->env.http, &rq, on_answer, c);
	return c;
}

struct bt_link_call *bt_link_call_cancel(struct bt_link_call *c)
{
	if (c) {
		bt_http_cancel(c->http);
		call_free(c);
	}
	return NULL;
}

const char *bt_link_words(int status, json_t *answer, const struct bt_err *err, char *buf, size_t n)
{
	const char *said =
		json_string_value(json_object_get(json_object_get(answer, "error"), "message"));
	if (!status)
		snprintf(buf, n, "%s", err && err->text[0] ? err->text : "no answer");
	else
		snprintf(buf, n, "%d: %s", status, said ? said : "no reason given");
	return buf;
}

int64_t bt_link_pause(unsigned failures, int64_t max_ms)
{
	int64_t ms = 200;
	uint32_t dice;
	for (unsigned i = 1; i < failures && ms < max_ms; i++)
		ms *= 2;
	if (ms > max_ms)
		ms = max_ms;
	evutil_secure_rng_get_bytes(&dice, sizeof dice);
	return ms / 2 + (int64_t)(dice % (uint32_t)(ms / 2 + 1));
}

/* ---- up and down --------------------------------------------------------------------------- */

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	hello(arg);
}

static void down(struct bt_link *l, int64_t max_pause_ms, const char *why)
{
	l->up = false;
	l->failures++;
	if (!l->told_down)
		bt_log(l->env.log, BT_LOG_WARN,
			"no link to %s: %s; what runs here goes on, trying again",
			l->env.server_url, why);
	l->told_down = true;
	bt_timer_in(l->again,
		bt_link_pause(max_pause_ms == PAUSE_WRONG_MS ? 32 : l->failures, max_pause_ms));
}

static void failed(struct bt_link *l, int status, json_t *answer, const struct bt_err *err)
{
	char words[BT_ERR_MAX];
	bt_link_words(status, answer, err, words, sizeof words);
	bool wrong = status == 401 || status == 403 || status == 409;
	down(l, wrong ? PAUSE_WRONG_MS : PAUSE_MAX_MS, words);
}

static void go_on(struct bt_link *l)
{
	bt_upgrade_came_up();
	if (l->told_down || !l->up)
		bt_log(l->env.log, BT_LOG_INFO, "linked to %s", l->env.server_url);
	l->up = true;
	l->told_down = false;
	l->failures = 0;
	bt_posts_kick(l->posts);
	bt_watch_now(l->watch);
	poll_commands(l);
}

/* ---- hello --------------------------------------------------------------------------------- */

struct seen {
	json_t *tokens;
	uint64_t deployment;
};

static void see_entry(void *arg, const struct bt_ledger_entry *e)
{
	struct seen *s = arg;
	if (e->key.deployment > s->deployment)
		s->deployment = e->key.deployment;
	if (e->kind != BT_LEDGER_ACCEPTED || !e->service)
		return;
	json_int_t have = json_integer_value(json_object_get(s->tokens, e->service));
	if ((json_int_t)e->token > have)
		json_object_set_new(s->tokens, e->service, json_integer((json_int_t)e->token));
}

static json_t *generations(const struct bt_known *k)
{
	json_t *o = json_object();
	for (size_t i = 0; i < bt_known_count(k); i++) {
		const struct bt_known_service *s = bt_known_at(k, i);
		for (size_t b = 0; b < s->n_balancers; b++)
			json_object_set_new(o, s->balancers[b].name,
				json_integer((json_int_t)s->balancers[b].generation));
	}
	return o;
}

static json_t *hello_body(struct bt_link *l)
{
	const struct bt_ledger *ledger = bt_ledger_file_ledger(l->env.exec->ledger);
	const char *store = bt_ledger_store(ledger);
	struct seen seen = {json_object(), 0};
	bt_ledger_compact(ledger, see_entry, &seen);
	BT_FREE char *boot = NULL;
	if (bt_fs_read("/proc/sys/kernel/random/boot_id", 256, &boot, NULL, NULL) == 0)
		boot[strcspn(boot, "\n")] = '\0';
	const struct bt_upgrade_start *up = bt_upgrade_started();
	return json_pack("{s:b,s:s*,s:i,s:s,s:s,s:s,s:s,s:s?,s:I,s:o,s:o,s:I}", "trial",
		up->trial_fd >= 0, "upgrade_failed", up->failed, "wire", BT_WIRE_VERSION, "version",
		l->env.version, "host", l->env.host, "address", l->env.address, "boot_id",
		boot ? boot : "", "store", store, "cursor", (json_int_t)bt_ledger_cursor(ledger),
		"tokens", seen.tokens, "generations", generations(l->env.exec->known), "deployment",
		(json_int_t)seen.deployment);
}

static void on_store(void *arg, int result, const struct bt_err *err)
{
	(void)result; /* tried until it is durable */
	(void)err;
	go_on(arg);
}

static int read_hello(struct bt_link *l, json_t *answer, const char **ret_store, struct bt_err *err)
{
	int64_t wire = 0, cursor = 0;
	const char *version = "?";
	int r = bt_json_int(answer, "wire", 1, INT32_MAX, &wire, err);
	if (r < 0)
		return r;
	bt_json_str_opt(answer, "version", &version, NULL);
	if (wire != BT_WIRE_VERSION)
		return bt_err_set(err, BT_E_PROTOCOL,
			"the server %s speaks wire %d, this agent %s speaks wire %d: upgrade the "
			"%s",
			version, (int)wire, l->env.version, BT_WIRE_VERSION,
			wire > BT_WIRE_VERSION ? "agent" : "server");
	r = bt_json_str(answer, "store", ret_store, err);
	if (r == 0)
		r = bt_json_int(answer, "cursor", 0, INT64_MAX, &cursor, err);
	if (r == 0)
		l->cursor = (uint64_t)cursor;
	return r;
}

static void on_hello(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct bt_link *l = arg;
	struct bt_err bad = {0};
	const char *store = NULL;
	l->call = NULL;
	if (status != 200) {
		failed(l, status, answer, err);
		return;
	}
	if (read_hello(l, answer, &store, &bad) < 0) {
		down(l, PAUSE_WRONG_MS, bad.text);
		return;
	}
	const char *known = bt_ledger_store(bt_ledger_file_ledger(l->env.exec->ledger));
	if (bt_streq(known, store)) {
		go_on(l);
		return;
	}
	if (known)
		bt_log(l->env.log, BT_LOG_WARN,
			"the server's store is another one now (%s, was %s): going on at %" PRIu64,
			store, known, l->cursor);
	struct bt_ledger_entry e = {.kind = BT_LEDGER_STORE, .store = store, .seq = l->cursor};
	bt_ledger_file_append(l->env.exec->ledger, &e, on_store, l);
}

static void hello(struct bt_link *l)
{
	l->up = false;
	l->call = bt_link_call(
		l, "POST", "/v1/agent/hello", hello_body(l), HELLO_TIMEOUT_MS, on_hello, l);
}

/* ---- commands ------------------------------------------------------------------------------ */

static void feed(struct bt_link *l)
{
	l->feeding = true;
	while (!l->waiting && l->next_command < json_array_size(l->commands)) {
		struct bt_err err = {0};
		json_t *c = json_array_get(l->commands, l->next_command++);
		l->waiting = true;
		if (bt_exec_command(l->exec, c, &err) < 0) {
			bt_log(l->env.log, BT_LOG_ERROR, "a command that cannot be answered: %s",
				err.text);
			l->waiting = false;
		}
	}
	l->feeding = false;
	if (l->waiting || !l->commands)
		return;
	json_decref(l->commands);
	l->commands = NULL;
	poll_commands(l);
}

void bt_link_on_accepted(void *link, uint64_t seq)
{
	struct bt_link *l = link;
	if (seq > l->cursor)
		l->cursor = seq;
	l->waiting = false;
	if (!l->feeding && l->commands)
		feed(l);
}

static void on_poll(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct bt_link *l = arg;
	const char *store = NULL;
	json_t *commands = NULL, *ask;
	size_t i;
	struct bt_err bad = {0};
	l->call = NULL;
	if (status == 204) {
		poll_commands(l);
		return;
	}
	if (status != 200) {
		failed(l, status, answer, err);
		return;
	}
	int r = bt_json_str(answer, "store", &store, &bad);
	if (r == 0)
		r = bt_json_array(answer, "commands", &commands, &bad);
	if (r < 0) {
		down(l, PAUSE_MAX_MS, bad.text);
		return;
	}
	if (!bt_streq(store, bt_ledger_store(bt_ledger_file_ledger(l->env.exec->ledger)))) {
		down(l, PAUSE_MAX_MS, "its store is another one now");
		return;
	}
	json_array_foreach (json_object_get(answer, "asks"), i, ask)
		bt_asks_take(l->asks, ask);
	l->commands = json_incref(commands);
	l->next_command = 0;
	l->waiting = false;
	feed(l);
}

static void poll_commands(struct bt_link *l)
{
	char path[512];
	if (!l->up || l->call)
		return;
	snprintf(path, sizeof path, "/v1/agent/commands?store=%s&after=%" PRIu64 "&wait=%ds",
		bt_ledger_store(bt_ledger_file_ledger(l->env.exec->ledger)), l->cursor,
		POLL_WAIT_S);
	l->call = bt_link_call(l, "GET", path, NULL, POLL_TIMEOUT_MS, on_poll, l);
}

/* ---- the executor's words ------------------------------------------------------------------ */

void bt_link_on_result(void *link, const struct bt_command_key *key)
{
	struct bt_link *l = link;
	l->produced++;
	bt_posts_result(l->posts, key);
	/* What a task needed for a moment goes back: the agent shares its host with the apps. */
	if (bt_exec_running(l->exec) == 0)
		malloc_trim(0);
}

void bt_link_on_refused(void *link, const struct bt_result *result)
{
	struct bt_link *l = link;
	bt_posts_refused(l->posts, result);
}

void bt_link_on_progress(void *link, const struct bt_command_key *key, const char *line)
{
	struct bt_link *l = link;
	bt_posts_progress(l->posts, key, line);
}

void bt_link_on_changed(void *link)
{
	struct bt_link *l = link;
	bt_watch_now(l->watch);
}

/* ---- life ---------------------------------------------------------------------------------- */

struct bt_link *bt_link_new(const struct bt_link_env *env)
{
	struct bt_link *l = bt_calloc(1, sizeof *l);
	l->env = *env;
	l->again = evtimer_new(env->exec->driver->base, on_again, l);
	l->posts = bt_posts_new(l);
	l->watch = bt_watch_new(l);
	l->asks = bt_asks_new(l);
	return l;
}

void bt_link_start(struct bt_link *l, struct bt_exec *exec)
{
	l->exec = exec;
	hello(l);
}

struct bt_link *bt_link_free(struct bt_link *l)
{
	if (!l)
		return NULL;
	bt_link_call_cancel(l->call);
	bt_posts_free(l->posts);
	bt_watch_free(l->watch);
	bt_asks_free(l->asks);
	event_free(l->again);
	json_decref(l->commands);
	free(l);
	return NULL;
}
