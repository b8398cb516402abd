/* The agents' side: joining, polling, results, observations. An agent is who its certificate says,
 * never who its message says. */
#include "base/clock.h"
#include "base/fs.h"
#include "base/version.h"
#include "net/pki.h"
#include "server/api.h"

#include <string.h>

#define POLL_MAX_MS 60000
#define MAX_RESULTS 1000
#define RENEWED_KEEP_MS ((int64_t)86400000)
#define MAX_REPORTED ((int64_t)1 << 53)

static struct bt_host *host_of(const struct bt_http_exchange *x)
{
	return bt_who(x)->host;
}

/* ---- certificates ------------------------------------------------------------------------ */

struct signing {
	struct bt_http_exchange *x;
	struct bt_server *server;
	char *host, *cert;
	bool joins;
};

static void on_signed(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct signing *g = arg;
	char *ca = NULL;
	struct bt_err why;
	BT_FREE char *ca_path = bt_server_path(g->server, "pki/ca.pem");
	(void)t;
	if (result < 0) {
		if (result == BT_E_AUTH)
			bt_api_error(g->x, BT_E_AUTH, "join token: %s", err->text);
		else
			bt_http_reply_error(g->x, err);
	} else if (bt_fs_read(ca_path, 65536, &ca, NULL, &why) < 0) {
		bt_http_reply_error(g->x, &why);
	} else {
		struct bt_host *h = bt_host_add(g->server, g->host);
		h->revoked = false;
		bt_log(NULL, BT_LOG_INFO, "host=%s %s", g->host,
			g->joins ? "joined" : "renewed its certificate");
		bt_http_reply_json(g->x, 200,
			json_pack("{s:s, s:s, s:s}", "certificate", g->cert, "ca", ca, "host",
				g->host));
	}
	free(ca);
	free(g->host);
	free(g->cert);
	free(g);
}

static int sign(struct bt_server *s, const char *csr, const char *host, struct bt_txn *t,
	char **ret_cert, char serial[static 65], struct bt_err *err)
{
	int64_t not_after = 0;
	BT_FREE char *pki = bt_server_path(s, "pki");
	int r = bt_pki_sign(pki, csr, host, BT_CERT_DAYS, ret_cert, serial, &not_after, err);
	if (r == 0)
		bt_txn_add(t, BT_SQL_CERT_ADD, serial, host, not_after, bt_clock_wall_ms());
	return r;
}

/* In words, which of the reasons it is; the transaction below decides. */
static int check_join(struct bt_server *s, const char *hash, const char *host, struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	int r = bt_store_select(s->store, &rows, err, BT_SQL_JOIN_GET, hash);
	if (r < 0)
		return r;
	const json_t *row = json_array_get(rows, 0);
	if (!row)
		return bt_err_set(err, BT_E_AUTH, "join token: not known here");
	if (json_object_get(row, "used_at"))
		return bt_err_set(err, BT_E_AUTH, "join token: it was used already: get a new one");
	if (json_integer_value(json_object_get(row, "expires_at")) <= bt_clock_wall_ms())
		return bt_err_set(err, BT_E_AUTH, "join token: it has expired: get a new one");
	const char *named = json_string_value(json_object_get(row, "host"));
	if (!bt_streq(named, host))
		return bt_err_set(
			err, BT_E_AUTH, "join token: it is for host %s, not %s", named, host);
	return 0;
}

void bt_api_join(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *body = bt_api_body(x);
	const char *token = NULL, *csr = NULL, *host = NULL;
	char hash[65], serial[65];
	struct bt_err err;
	char *cert = NULL;
	if (!body)
		return;
	struct bt_txn *t = bt_txn_new();
	int r = bt_json_str(body, "token", &token, &err);
	if (r == 0)
		r = bt_json_str(body, "csr", &csr, &err);
	if (r == 0)
		r = bt_json_str(body, "host", &host, &err);
	if (r == 0) {
		BT_FREE char *secret = bt_strndup(token, strcspn(token, "."));
		bt_token_hash(secret, hash);
		r = check_join(s, hash, host, &err);
	}
	if (r == 0) {
		bt_txn_add(t, BT_SQL_JOIN_USE, hash, host, bt_clock_wall_ms());
		bt_txn_add(t, BT_SQL_HOST_PUT, host, bt_clock_wall_ms());
		bt_txn_add(t, BT_SQL_HOST_WELCOME, host);
		bt_txn_add(t, BT_SQL_CERT_DROP_ALL, host, bt_clock_wall_ms());
		bt_server_audit(t,
			&(struct bt_audit){.who = host, .from = bt_http_peer(x), .what = "join"});
		r = sign(s, csr, host, t, &cert, serial, &err);
	}
	if (r < 0) {
		bt_txn_free(t);
		bt_http_reply_error(x, &err);
		return;
	}
	struct signing *g = bt_calloc(1, sizeof *g);
	*g = (struct signing){x, s, bt_strdup(host), cert, true};
	bt_store_commit(s->store, t, on_signed, g);
}

void bt_api_renew(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *body = bt_api_body(x);
	const char *csr = NULL, *host = host_of(x)->name;
	char serial[65];
	struct bt_err err;
	char *cert = NULL;
	if (!body)
		return;
	struct bt_txn *t = bt_txn_new();
	int r = bt_json_str(body, "csr", &csr, &err);
	if (r == 0)
		r = sign(s, csr, host, t, &cert, serial, &err);
	if (r < 0) {
		bt_txn_free(t);
		bt_http_reply_error(x, &err);
		return;
	}
	bt_txn_add(t, BT_SQL_CERT_DROP_OTHERS, host, serial, bt_clock_wall_ms() + RENEWED_KEEP_MS);
	bt_api_audit_add(t, x, NULL, "renew", serial);
	struct signing *g = bt_calloc(1, sizeof *g);
	*g = (struct signing){x, s, bt_strdup(host), cert, false};
	bt_store_commit(s->store, t, on_signed, g);
}

/* ---- hello ------------------------------------------------------------------------------- */

static void take_tokens(struct bt_server *s, const json_t *tokens, struct bt_txn *t)
{
	const char *service;
	json_t *value;
	json_object_foreach ((json_t *)tokens, service, value) {
		int64_t n = json_integer_value(value);
		if (n <= 0 || n > MAX_REPORTED || !bt_service_name_valid(service))
			continue;
		struct bt_svc *svc = bt_server_service_add(s, service);
		if (svc->token < (uint64_t)n) {
			svc->token = (uint64_t)n;
			bt_txn_add(t, BT_SQL_SERVICE_TOKEN, service, n);
		}
	}
}

static void take_generations(struct bt_host *h, const json_t *generations, struct bt_txn *t)
{
	const char *name;
	json_t *value;
	json_object_foreach ((json_t *)generations, name, value) {
		int64_t n = json_integer_value(value);
		if (n <= 0 || n > MAX_REPORTED || strlen(name) > 255)
			continue;
		bt_host_generation(h, name, (uint64_t)n);
		bt_txn_add(t, BT_SQL_GENERATION_RAISE, h->name, name, n);
	}
}

/* An agent that saw more of this store than the store knows: an old copy was put back. Its commands
 * and numbers must not be mistaken for the ones the agents remember. */
static int check_restored(struct bt_server *s, struct bt_host *h, const char *store, int64_t cursor,
	int64_t deployment, struct bt_err *err)
{
	bool ours = bt_streq(store, bt_store_id(s->store));
	uint64_t last = bt_outbox_next_seq(h->outbox) - 1;
	int r = 0;
	if (ours && (uint64_t)cursor > last) {
		r = bt_store_renew_id(s->store, err);
		bt_log(NULL, BT_LOG_WARN,
			"host=%s saw command %lld, the store knows %llu: it was restored; its id "
			"is "
			"now %s",
			h->name, (long long)cursor, (unsigned long long)last,
			bt_store_id(s->store));
	}
	if (deployment >= s->next_deployment && deployment < MAX_REPORTED)
		s->next_deployment = deployment + 1;
	return r;
}

struct hello {
	struct bt_http_exchange *x;
	struct bt_host *host;
	int64_t cursor;
};

static void on_hello(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct hello *o = arg;
	char at[32];
	(void)t;
	if (result < 0)
		bt_http_reply_error(o->x, err);
	else
		bt_http_reply_json(o->x, 200,
			json_pack("{s:i, s:s, s:s, s:s, s:I}", "wire", BT_WIRE_VERSION, "version",
				bt_version, "store", bt_store_id(o->host->server->store),
				"server_time", bt_clock_format(bt_clock_wall_ms(), at), "cursor",
				(json_int_t)o->cursor));
	bt_asks_again(o->host);
	free(o);
}

static void replace(char **to, const char *text)
{
	free(*to);
	*to = bt_strdup(text);
}

void bt_api_hello(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_host *h = host_of(x);
	BT_JSON json_t *body = bt_api_body(x);
	const char *version = "", *address = NULL, *store = NULL;
	int64_t wire = 0, cursor = 0, deployment = 0;
	struct bt_err err;
	if (!body)
		return;
	int r = bt_json_int(body, "wire", 1, INT32_MAX, &wire, &err);
	if (r == 0)
		r = bt_json_str_opt(body, "version", &version, &err);
	if (r == 0 && wire != BT_WIRE_VERSION)
		r = bt_err_set(&err, BT_E_EXISTS,
			"agent %s on %s speaks wire %lld, server %s speaks %d: upgrade the %s",
			version, h->name, (long long)wire, bt_version, BT_WIRE_VERSION,
			wire < BT_WIRE_VERSION ? "agent" : "server");
	if (r == 0)
		r = bt_json_str_opt(body, "address", &address, &err);
	if (r == 0)
		r = bt_json_str_opt(body, "store", &store, &err);
	if (r == 0)
		r = bt_json_int_opt(body, "cursor", 0, INT64_MAX, &cursor, &err);
	if (r == 0)
		r = bt_json_int_opt(body, "deployment", 0, INT64_MAX, &deployment, &err);
	if (r == 0)
		r = check_restored(s, h, store, cursor, deployment, &err);
	if (r < 0) {
		bt_log(NULL, BT_LOG_WARN, "host=%s hello: %s", h->name, err.text);
		bt_http_reply_error(x, &err);
		return;
	}
	h->result_mark = h->seen_mark = 0;
	struct bt_txn *t = bt_txn_new();
	take_tokens(s, json_object_get(body, "tokens"), t);
	take_generations(h, json_object_get(body, "generations"), t);
	replace(&h->address, address);
	replace(&h->agent_version, version);
	h->protocol = wire;
	bt_host_touch(h);
	bt_txn_add(t, BT_SQL_HOST_SEEN, h->name, address, version, wire, h->seen_wall_ms);
	h->busy = -1;
	bt_upgrades_hello(s, h, body);
	struct hello *o = bt_calloc(1, sizeof *o);
	bool same = bt_streq(store, bt_store_id(s->store));
	*o = (struct hello){x, h, same ? cursor : 0};
	bt_store_commit(s->store, t, on_hello, o);
}

/* ---- commands ---------------------------------------------------------------------------- */

void bt_api_commands(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *store = bt_http_query(x, "store"), *wait = bt_http_query(x, "wait");
	int64_t ms = 25000, after = bt_api_query_int(x, "after", 0, INT64_MAX, -1);
	struct bt_err err;
	if (after < 0 || !store || (wait && bt_duration_parse(wait, &ms, &err) < 0)) {
		bt_api_error(x, BT_E_PROTOCOL, "commands: expected store, after and wait (25s)");
		return;
	}
	if (!bt_streq(store, bt_store_id(s->store))) {
		bt_http_reply_json(x, 200,
			json_pack("{s:s, s:[], s:[]}", "store", bt_store_id(s->store), "commands",
				"asks"));
		return;
	}
	bt_host_poll(host_of(x), x, (uint64_t)after, ms > POLL_MAX_MS ? POLL_MAX_MS : ms);
}

/* ---- results ----------------------------------------------------------------------------- */

struct batch {
	struct bt_http_exchange *x;
	json_t *acked;
	size_t waiting;
};

struct one {
	struct batch *batch;
	struct bt_command_key key;
};

static void batch_done(struct batch *b)
{
	if (--b->waiting > 0)
		return;
	bt_http_reply_json(b->x, 200, json_pack("{s:o}", "acked", b->acked));
	free(b);
}

static void on_result(void *arg, int result, const struct bt_err *err)
{
	struct one *o = arg;
	if (result == 0 || result == BT_E_REFUSED)
		json_array_append_new(o->batch->acked, bt_key_to_json(&o->key));
	else
		bt_log(NULL, BT_LOG_WARN, "a result of deployment %llu is not acknowledged: %s",
			(unsigned long long)o->key.deployment, err->text);
	batch_done(o->batch);
	free(o);
}

/* 0: it was sent to this host and has no result; 1: known or nobody's any more, acknowledge it. */
static int check_sent(
	struct bt_server *s, struct bt_host *h, const struct bt_command_key *k, struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	size_t i;
	json_t *row;
	bool ours = false, open = false;
	int r = bt_store_select(s->store, &rows, err, BT_SQL_OUTBOX_SENT_TO, (int64_t)k->deployment,
		(int64_t)k->task, bt_verb_name(k->verb), (int64_t)k->attempt);
	if (r < 0)
		return r;
	json_array_foreach (rows, i, row)
		if (bt_streq(json_string_value(json_object_get(row, "host")), h->name)) {
			ours = true;
			open = open || !json_integer_value(json_object_get(row, "settled"));
		}
	if (json_array_size(rows) > 0 && !ours)
		return bt_err_set(err, BT_E_REFUSED,
			"task %u of deployment %llu was not sent to host %s", k->task,
			(unsigned long long)k->deployment, h->name);
	return ours && open ? 0 : 1;
}

static int take_result(struct bt_server *s, struct bt_host *h, struct batch *b, const json_t *j,
	struct bt_arena *a, struct bt_err *err)
{
	struct bt_result res = {0};
	const char *log = NULL;
	int r = bt_result_from_json(j, a, &res, err);
	if (r == 0)
		r = bt_json_str_opt(j, "log", &log, err);
	if (r == 0)
		r = check_sent(s, h, &res.key, err);
	if (r < 0)
		return r;
	struct bt_running *run = bt_run_find(s, res.key.deployment);
	if (r == 1 || !run) {
		json_array_append_new(b->acked, bt_key_to_json(&res.key));
		return 0;
	}
	json_t *seen = json_object_get(j, "observation");
	if (json_is_object(seen))
		bt_host_saw(h, bt_run_service(run), seen);
	BT_FREE char *cut = log ? bt_strndup(log, BT_TASK_LOG_MAX) : NULL;
	struct one *o = bt_calloc(1, sizeof *o);
	*o = (struct one){b, res.key};
	b->waiting++;
	bt_run_result(run, &res, cut, on_result, o);
	return 0;
}

void bt_api_results(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_host *h = host_of(x);
	BT_JSON json_t *body = bt_api_body(x);
	BT_ARENA struct bt_arena *a = bt_arena_new();
	json_t *list = NULL, *j;
	size_t i;
	struct bt_err err;
	if (!body)
		return;
	bt_host_touch(h);
	int r = bt_json_array(body, "results", &list, &err);
	if (r == 0 && json_array_size(list) > MAX_RESULTS)
		r = bt_err_set(&err, BT_E_PROTOCOL, "more than %d results", MAX_RESULTS);
	/* All are checked before the first is taken: a bad one takes none along. */
	json_array_foreach (list, i, j) {
		struct bt_result res = {0};
		if (r == 0)
			r = bt_result_from_json(j, a, &res, &err);
		if (r == 0)
			r = check_sent(s, h, &res.key, &err);
		if (r < 0)
			break;
		r = 0;
	}
	if (r < 0) {
		bt_log(NULL, BT_LOG_WARN, "host=%s results: %s", h->name, err.text);
		bt_http_reply_error(x, &err);
		return;
	}
	int64_t mark = json_integer_value(json_object_get(body, "produced"));
	if (mark > h->result_mark)
		h->result_mark = mark;
	struct batch *b = bt_calloc(1, sizeof *b);
	*b = (struct batch){x, json_array(), 1};
	json_array_foreach (list, i, j)
		if (take_result(s, h, b, j, a, &err) < 0)
			bt_log(NULL, BT_LOG_WARN, "host=%s result: %s", h->name, err.text);
	batch_done(b);
}

/* ---- what is not durable ----------------------------------------------------------------- */

static void one_progress(struct bt_server *s, struct bt_host *h, const json_t *item)
{
	struct bt_command_key key;
	const char *line = json_string_value(json_object_get(item, "line"));
	struct bt_running *run;
	if (!line || bt_key_from_json(json_object_get(item, "key"), &key, NULL) < 0 ||
		!(run = bt_run_find(s, key.deployment)))
		return;
	BT_JSON json_t *task = bt_project_task(bt_engine_plan(bt_run_engine(run)), key.task);
	if (!bt_streq(json_string_value(json_object_get(task, "host")), h->name))
		return;
	BT_JSON json_t *event =
		json_pack("{s:I, s:s, s:O, s:s}", "deployment", (json_int_t)key.deployment,
			"service", bt_run_service(run), "task", task, "line", line);
	bt_stream_progress(s, key.deployment, event);
}

void bt_api_progress(struct bt_http_exchange *x, void *arg)
{
	BT_JSON json_t *body = bt_api_body(x);
	size_t i;
	json_t *item;
	if (!body)
		return;
	bt_host_touch(host_of(x));
	json_array_foreach (json_object_get(body, "items"), i, item)
		one_progress(arg, host_of(x), item);
	bt_http_reply(x, 202, NULL, NULL, 0);
}

static int take_seen(struct bt_host *h, const json_t *body, const char *service, json_t *part,
	struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_seen_host seen;
	const char *key;
	json_t *value;
	BT_JSON json_t *j = json_copy(part);
	json_object_foreach ((json_t *)body, key, value)
		if (strcmp(key, "services") != 0)
			json_object_set(j, key, value);
	json_object_set_new(j, "host", json_string(h->name));
	int r = bt_seen_host_from_json(j, a, &seen, err);
	if (r < 0)
		return bt_err_wrap(err, "service %s", service);
	bt_host_saw(h, service, j);
	return 0;
}

void bt_api_observation(struct bt_http_exchange *x, void *arg)
{
	struct bt_host *h = host_of(x);
	BT_JSON json_t *body = bt_api_body(x);
	const char *service;
	json_t *part;
	struct bt_err err;
	if (!body)
		return;
	bt_host_touch(h);
	h->busy = json_integer_value(json_object_get(body, "busy")); /* an older agent: 0 */
	json_t *free_bytes = json_object_get(body, "free_bytes");
	if (json_is_integer(free_bytes))
		h->free_bytes = json_integer_value(free_bytes);
	json_object_foreach (json_object_get(body, "services"), service, part)
		if (take_seen(h, body, service, part, &err) < 0) {
			bt_log(NULL, BT_LOG_WARN, "host=%s observation: %s", h->name, err.text);
			bt_http_reply_error(x, &err);
			return;
		}
	h->seen_mark = json_integer_value(json_object_get(body, "produced"));
	bt_http_reply(x, 204, NULL, NULL, 0);
	bt_fresh_check(arg);
}

void bt_api_stream(struct bt_http_exchange *x, void *arg)
{
	BT_JSON json_t *body = bt_api_body(x);
	(void)arg;
	if (!body)
		return;
	bt_host_touch(host_of(x));
	if (bt_ask_answer(host_of(x), bt_http_param(x, "ask"), body))
		bt_http_reply(x, 204, NULL, NULL, 0);
	else
		bt_api_error(x, BT_E_NOTFOUND, "nobody waits for this answer");
}
