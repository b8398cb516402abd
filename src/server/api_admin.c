/* Health, metrics, hosts, tokens. */
#include "base/clock.h"
#include "base/version.h"
#include "net/pki.h"
#include "server/api.h"
#include "server/hosts.h"

#include <string.h>

#define JOIN_TTL_MS 900000
#define JOIN_TTL_MAX ((int64_t)7 * 86400000)

void bt_api_health(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	if (bt_store_number(s->store, 0, BT_SQL_ALIVE) != 1) {
		bt_api_error(x, BT_E_STORE, "the store does not answer");
		return;
	}
	bt_http_reply_json(x, 200,
		json_pack("{s:s, s:s, s:s}", "status", "ok", "version", bt_version, "store_id",
			bt_store_id(s->store)));
}

static void reply_metrics(struct bt_http_exchange *x, struct bt_server *s)
{
	BT_STR struct bt_str out = {0};
	bt_metrics_print(s, &out);
	bt_http_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", out.data, out.len);
}

void bt_api_metrics(struct bt_http_exchange *x, void *arg)
{
	const struct bt_who *w = bt_who(x);
	if (w->services) { /* they name and count every service */
		bt_api_error(x, BT_E_REFUSED,
			"the token '%s' is limited to some services, and metrics are of all: use a "
			"viewer's token without a scope",
			w->name);
		return;
	}
	bt_fresh_then(arg, x, NULL, 0, reply_metrics);
}

/* ---- hosts ------------------------------------------------------------------------------- */

static json_t *instances_of(const struct bt_host *h, const struct bt_who *who)
{
	json_t *list = json_array(), *entry, *one;
	const char *service;
	size_t i;
	json_object_foreach (h->seen, service, entry) {
		const json_t *seen = json_object_get(entry, "seen");
		if (!bt_who_sees(who, service))
			continue;
		json_array_foreach (json_object_get(seen, "instances"), i, one) {
			json_t *copy = json_copy(one);
			json_object_set_new(copy, "service", json_string(service));
			json_array_append_new(list, copy);
		}
	}
	return list;
}

void bt_api_hosts(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	json_t *list = json_array();
	for (const struct bt_host *h = s->hosts; h; h = h->next) {
		if (h->revoked)
			continue;
		json_t *j = json_pack("{s:s, s:s?, s:s?, s:I, s:b, s:I, s:o}", "name", h->name,
			"address", h->address, "agent_version", h->agent_version, "protocol",
			(json_int_t)h->protocol, "connected", (int)bt_host_connected(h),
			"free_bytes", (json_int_t)h->free_bytes, "instances",
			instances_of(h, bt_who(x)));
		bt_api_set_time(j, "last_seen_at", h->poll ? bt_clock_wall_ms() : h->seen_wall_ms);
		json_array_insert_new(list, 0, j);
	}
	bt_http_reply_json(x, 200, json_pack("{s:o}", "hosts", list));
}

/* A change and its answer: what is answered once it is durable. */
struct change {
	struct bt_http_exchange *x;
	struct bt_host *remove;
	json_t *answer;
	int status;
	const char *what;
};

static void on_changed(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct change *c = arg;
	(void)t;
	if (result == BT_E_NOTFOUND || result == BT_E_EXISTS)
		bt_api_error(c->x, result, "%s", c->what);
	else if (result < 0)
		bt_http_reply_error(c->x, err);
	else
		bt_http_reply_json(c->x, c->status, BT_STEAL(c->answer));
	if (result == 0 && c->remove) {
		c->remove->revoked = true;
		bt_host_disconnect(c->remove);
	}
	json_decref(c->answer);
	free(c);
}

static struct change *change_new(
	struct bt_http_exchange *x, int status, json_t *answer, const char *what)
{
	struct change *c = bt_calloc(1, sizeof *c);
	*c = (struct change){x, NULL, answer, status, what};
	return c;
}

void bt_api_host_remove(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *name = bt_http_param(x, "host");
	struct bt_host *h = bt_host_find(s, name);
	if (!h || h->revoked) {
		bt_api_error(x, BT_E_NOTFOUND, "no host '%.80s'", name);
		return;
	}
	struct change *c = change_new(
		x, 200, json_pack("{s:s}", "removed", h->name), "that host is removed already");
	c->remove = h;
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_HOST_REVOKE, h->name, bt_clock_wall_ms());
	bt_txn_add(t, BT_SQL_CERT_DROP_ALL, h->name, bt_clock_wall_ms());
	bt_api_audit_add(t, x, NULL, "remove host", h->name);
	bt_store_commit(s->store, t, on_changed, c);
}

void bt_api_join_token(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *body = bt_api_body(x);
	const char *host = NULL, *ttl = NULL;
	char hash[65], fingerprint[65];
	int64_t ms = JOIN_TTL_MS;
	struct bt_err err;
	if (!body)
		return;
	BT_FREE char *ca = bt_server_path(s, "pki/ca.pem");
	int r = bt_json_str(body, "host", &host, &err);
	if (r == 0)
		r = bt_json_str_opt(body, "ttl", &ttl, &err);
	if (r == 0 && !bt_name_valid(host))
		r = bt_err_set(&err, BT_E_CONFIG,
			"host '%.80s': expected letters, digits, '.', '_', '-'", host);
	if (r == 0 && ttl)
		r = bt_duration_parse(ttl, &ms, &err);
	if (r == 0 && (ms <= 0 || ms > JOIN_TTL_MAX))
		r = bt_err_set(&err, BT_E_CONFIG, "ttl '%s': expected up to 7d", ttl);
	if (r == 0)
		r = bt_pki_fingerprint(ca, fingerprint, &err);
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	BT_FREE char *token = bt_token_new("btj_");
	BT_FREE char *text = bt_asprintf("%s.%s", token, fingerprint);
	bt_token_hash(token, hash);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_JOIN_ADD, hash, host, bt_clock_wall_ms() + ms);
	bt_api_audit_add(t, x, NULL, "join token", host);
	json_t *answer = json_pack("{s:s, s:s}", "token", text, "host", host);
	bt_api_set_time(answer, "expires_at", bt_clock_wall_ms() + ms);
	bt_store_commit(s->store, t, on_changed, change_new(x, 201, answer, "join token"));
}

/* ---- tokens ------------------------------------------------------------------------------ */

void bt_api_tokens(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_err err;
	json_t *rows = NULL, *row;
	size_t i;
	if (bt_store_select(s->store, &rows, &err, BT_SQL_TOKENS) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	json_array_foreach (rows, i, row) {
		const char *services = json_string_value(json_object_get(row, "services"));
		json_t *list = services ? json_loads(services, 0, NULL) : NULL;
		if (list)
			json_object_set_new(row, "services", list);
		bt_api_set_time(
			row, "created_at", json_integer_value(json_object_get(row, "created_at")));
		bt_api_set_time(
			row, "expires_at", json_integer_value(json_object_get(row, "expires_at")));
		bt_api_set_time(
			row, "revoked_at", json_integer_value(json_object_get(row, "revoked_at")));
	}
	bt_http_reply_json(x, 200, json_pack("{s:o}", "tokens", rows));
}

/* What a new token may do. An admin makes tokens, so a limit of its own would be none. */
static int read_token(const json_t *body, const char **name, const char **role, json_t **scope,
	int64_t *ttl_ms, struct bt_err *err)
{
	const char *ttl = NULL;
	int r = bt_json_str(body, "name", name, err);
	if (r == 0)
		r = bt_json_str(body, "role", role, err);
	if (r == 0)
		r = bt_json_str_opt(body, "ttl", &ttl, err);
	if (r == 0 && !bt_name_valid(*name))
		return bt_err_set(err, BT_E_CONFIG,
			"name '%.80s': expected letters, digits, '.', '_', '-'", *name);
	int rank = r == 0 ? bt_role_parse(*role, err) : r;
	if (rank < 0)
		return rank;
	if (ttl && (bt_duration_parse(ttl, ttl_ms, err) < 0 || *ttl_ms <= 0))
		return bt_err_set(
			err, BT_E_CONFIG, "ttl '%.40s': expected a time such as 12h or 30d", ttl);
	r = bt_scope_read(body, scope, err);
	if (r == 0 && *scope && rank == BT_AUTH_ADMIN)
		return bt_err_set(err, BT_E_CONFIG,
			"an admin covers all services: leave out services and environments, or "
			"choose the role deployer");
	return r;
}

void bt_api_token_add(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *body = bt_api_body(x);
	BT_JSON json_t *scope = NULL;
	BT_STR struct bt_str words = {0};
	const char *name = NULL, *role = NULL;
	char hash[65];
	int64_t ttl = 0, now = bt_clock_wall_ms();
	struct bt_err err;
	if (!body)
		return;
	if (read_token(body, &name, &role, &scope, &ttl, &err) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	BT_FREE char *token = bt_token_new("bt_");
	BT_FREE char *stored = scope ? bt_json_dump(scope) : NULL;
	bt_token_hash(token, hash);
	bt_str_addf(&words, "%s: %s of ", name, role);
	bt_scope_words(scope, &words);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(
		t, BT_SQL_TOKEN_ADD, hash, name, role, stored, now, ttl ? now + ttl : (int64_t)0);
	bt_api_audit_add(t, x, NULL, "token create", words.data);
	json_t *answer = json_pack("{s:s, s:s, s:s, s:O*}", "token", token, "name", name, "role",
		role, "services", scope);
	bt_api_set_time(answer, "expires_at", ttl ? now + ttl : 0);
	bt_store_commit(s->store, t, on_changed,
		change_new(x, 201, answer,
			"a token of that name is in use: choose another, or revoke it first"));
}

void bt_api_token_revoke(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *name = bt_http_param(x, "name");
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_TOKEN_REVOKE, name, bt_clock_wall_ms());
	bt_api_audit_add(t, x, NULL, "token revoke", name);
	bt_store_commit(s->store, t, on_changed,
		change_new(x, 200, json_pack("{s:s}", "revoked", name),
			"no token of that name is in use (baton token list)"));
}
