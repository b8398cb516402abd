/* People come with a bearer token or the page's cookie, agents with a certificate.
 *
 * Tokens are 256 random bits and stored as SHA-256, so looking one up by its hash gives a guesser
 * nothing to measure. The cookie is a random session of its own that stands for a token; requests
 * that carry an Origin must come from this very host, also on loopback, where any page in the
 * browser could reach us. An agent's serial is looked up on each request: removing its host shuts
 * it out at once. */
#include "server/auth.h"

#include "base/clock.h"
#include "net/pki.h"
#include "server/hosts.h"

#include <stdio.h>
#include <string.h>

static void who_free(void *arg)
{
	struct bt_who *w = arg;
	free(w->name);
	free(w->from);
	json_decref(w->services);
	free(w);
}

const struct bt_who *bt_who(const struct bt_http_exchange *x)
{
	return bt_http_identity(x);
}

static const struct {
	const char *name;
	int role;
} roles[] = {{"viewer", BT_AUTH_VIEWER}, {"deployer", BT_AUTH_DEPLOYER}, {"admin", BT_AUTH_ADMIN}};

int bt_role_parse(const char *text, struct bt_err *err)
{
	for (size_t i = 0; text && i < BT_ARRAY_LEN(roles); i++)
		if (strcmp(roles[i].name, text) == 0)
			return roles[i].role;
	return bt_err_set(err, BT_E_CONFIG, "role '%s': expected viewer, deployer or admin",
		text ? text : "");
}

const char *bt_role_name(int role)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(roles); i++)
		if (roles[i].role == role)
			return roles[i].name;
	return "agent";
}

bool bt_who_sees(const struct bt_who *w, const char *service)
{
	return w && bt_scope_covers(w->services, service);
}

int bt_who_may(const struct bt_who *w, const char *service, struct bt_err *err)
{
	if (bt_who_sees(w, service))
		return 0;
	BT_STR struct bt_str scope = {0};
	if (w)
		bt_scope_words(w->services, &scope);
	return bt_err_set(err, BT_E_REFUSED,
		"the token '%s' is for %.200s; it does not cover the service %.80s",
		w ? w->name : "?", bt_str_get(&scope), service);
}

void bt_auth_cookie_name(struct bt_server *s, char name[static BT_COOKIE_NAME])
{
	snprintf(name, BT_COOKIE_NAME, "baton_session_%.8s", bt_store_id(s->store));
}

void bt_auth_session_hash(
	struct bt_server *s, const struct bt_http_exchange *x, char hash[static 65])
{
	char name[BT_COOKIE_NAME];
	bt_auth_cookie_name(s, name);
	size_t len = strlen(name);
	hash[0] = '\0';
	for (const char *c = bt_http_request_header(x, "Cookie"); c; c = strchr(c, ';')) {
		c += strspn(c, "; ");
		if (!*c)
			return;
		if (strncmp(c, name, len) != 0 || c[len] != '=')
			continue;
		BT_FREE char *session = bt_strndup(c + len + 1, strcspn(c + len + 1, "; "));
		bt_token_hash(session, hash);
		return;
	}
}

void bt_auth_token_hash(struct bt_server *s, const struct bt_http_exchange *x, char hash[static 65])
{
	const char *bearer = bt_http_request_header(x, "Authorization");
	char session[65];
	BT_JSON json_t *rows = NULL;
	hash[0] = '\0';
	if (bearer && strncasecmp(bearer, "Bearer ", 7) == 0) {
		bt_token_hash(bearer + 7, hash);
		return;
	}
	bt_auth_session_hash(s, x, session);
	if (!session[0] || bt_store_select(s->store, &rows, NULL, BT_SQL_SESSION_GET, session,
				   bt_clock_wall_ms()) < 0)
		return;
	const char *h = json_string_value(json_object_get(json_array_get(rows, 0), "token_hash"));
	if (h && strlen(h) == 64)
		memcpy(hash, h, 65);
}

static int check_origin(const struct bt_http_exchange *x, struct bt_err *err)
{
	const char *origin = bt_http_request_header(x, "Origin");
	const char *host = bt_http_request_header(x, "Host");
	const char *at = origin ? strstr(origin, "://") : NULL;
	if (!origin || (at && host && strcasecmp(at + 3, host) == 0))
		return 0;
	bt_err_set(err, BT_E_REFUSED, "a page of %s may not call this server", origin);
	return 403;
}

int bt_token_usable(const json_t *row, struct bt_err *err)
{
	const json_t *expires = json_object_get(row, "expires_at");
	char at[32];
	if (!row)
		return bt_err_set(err, BT_E_AUTH, "this token is not known here, or was revoked");
	if (expires && json_integer_value(expires) <= bt_clock_wall_ms())
		return bt_err_set(err, BT_E_AUTH, "the token '%s' expired at %s: get a new one",
			json_string_value(json_object_get(row, "name")),
			bt_clock_format(json_integer_value(expires), at));
	return 0;
}

bool bt_auth_holds(struct bt_server *s, const char *token_hash, const char *session_hash)
{
	BT_JSON json_t *tokens = NULL;
	BT_JSON json_t *sessions = NULL;
	if (bt_store_select(s->store, &tokens, NULL, BT_SQL_TOKEN_GET, token_hash) < 0 ||
		(*session_hash && bt_store_select(s->store, &sessions, NULL, BT_SQL_SESSION_GET,
					  session_hash, bt_clock_wall_ms()) < 0))
		return true;
	return bt_token_usable(json_array_get(tokens, 0), NULL) == 0 &&
	       (!*session_hash || json_array_size(sessions) > 0);
}

static struct bt_who *who_new(struct bt_http_exchange *x, const char *name, int role)
{
	struct bt_who *w = bt_calloc(1, sizeof *w);
	w->name = bt_strdup(name);
	w->from = bt_strdup(bt_http_peer(x));
	w->role = role;
	bt_http_set_identity(x, w, who_free);
	return w;
}

int bt_auth_people(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err)
{
	struct bt_server *s = arg;
	char hash[65];
	BT_JSON json_t *rows = NULL;
	int r = check_origin(x, err);
	if (r || need == BT_AUTH_NONE)
		return r;
	bt_auth_token_hash(s, x, hash);
	if (!hash[0]) {
		bt_err_set(err, BT_E_AUTH, "no token: send 'Authorization: Bearer …', or log in");
		return 401;
	}
	if (bt_store_select(s->store, &rows, err, BT_SQL_TOKEN_GET, hash) < 0)
		return 503;
	json_t *row = json_array_get(rows, 0);
	if (bt_token_usable(row, err) < 0)
		return 401;
	int role = bt_role_parse(json_string_value(json_object_get(row, "role")), NULL);
	const char *name = json_string_value(json_object_get(row, "name"));
	if (need == BT_AUTH_AGENT || role < (int)need) {
		bt_err_set(
			err, BT_E_REFUSED, "the role of the token '%s' is too low for this", name);
		return 403;
	}
	const char *services = json_string_value(json_object_get(row, "services"));
	/* Made before admins had to be without a scope: who may make tokens has none in truth. */
	if (services && need == BT_AUTH_ADMIN) {
		bt_err_set(err, BT_E_REFUSED, "the token '%s' is limited to some services: %s",
			name, "this needs an admin's token for all of them");
		return 403;
	}
	struct bt_who *w = who_new(x, name, role);
	w->services = services ? json_loads(services, 0, NULL) : NULL;
	return 0;
}

/* One that was signed after the backup from which this store came: of a host that it knows, and by
 * its authority, or there would be no connection. A new row; NULL: it is not. */
static json_t *adopt_certificate(struct bt_server *s, const char *host, const char *serial)
{
	const struct bt_host *h = bt_host_find(s, host);
	int64_t now = bt_clock_wall_ms();
	if (!h || h->revoked || !bt_restored_lately(s))
		return NULL;
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_CERT_PUT, serial, host, now + BT_CERT_DAYS * (int64_t)86400000, now);
	bt_server_audit(
		t, &(struct bt_audit){.who = host, .what = "adopt certificate", .detail = serial});
	bt_store_commit(s->store, t, NULL, NULL);
	return json_pack("{s:s}", "host", host);
}

int bt_auth_agent(struct bt_http_exchange *x, enum bt_auth need, void *arg, struct bt_err *err)
{
	struct bt_server *s = arg;
	const char *cn = bt_http_peer_cn(x), *serial = bt_http_peer_serial(x);
	BT_JSON json_t *rows = NULL;
	if (need == BT_AUTH_NONE)
		return 0;
	if (!cn || !serial) {
		bt_err_set(err, BT_E_AUTH, "a client certificate is needed: join first");
		return 401;
	}
	if (bt_store_select(s->store, &rows, err, BT_SQL_CERT_GET, serial) < 0)
		return 503;
	const json_t *row = json_array_get(rows, 0);
	BT_JSON json_t *adopted = row ? NULL : adopt_certificate(s, cn, serial);
	row = row ? row : adopted;
	const json_t *drop_at = json_object_get(row, "drop_at");
	struct bt_host *h = bt_host_find(s, cn);
	if (!row || !h || h->revoked ||
		!bt_streq(json_string_value(json_object_get(row, "host")), cn) ||
		(drop_at && json_integer_value(drop_at) <= bt_clock_wall_ms())) {
		bt_err_set(err, BT_E_REFUSED, "the certificate of %s is revoked: join again", cn);
		return 403;
	}
	who_new(x, cn, BT_AUTH_AGENT)->host = h;
	return 0;
}
