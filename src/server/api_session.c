/* The page's session: a cookie that stands for a token, so the page never holds the token itself.
 *
 * One gets it by the token, or by a login link: 256 random bits that whoever holds a token asks for
 * (`baton page`, `baton up`), good once and for ten minutes. A link lies in the part of the address
 * after `#`, which browsers send to nobody, so no log of a proxy has it; the page exchanges it and
 * takes it out of its address at once. Links live in memory: a restart forgets them. */
#include "base/clock.h"
#include "base/version.h"
#include "net/pki.h"
#include "server/api.h"

#include <stdio.h>
#include <string.h>

#define SESSION_MS ((int64_t)12 * 3600 * 1000)
#define LINK_MS 600000
#define LINKS_MAX 64

struct bt_login {
	struct bt_login *next; /* the newest first */
	char hash[65], token_hash[65];
	int64_t until_boot_ms;
};

void bt_logins_free(struct bt_server *s)
{
	while (s->logins) {
		struct bt_login *l = s->logins;
		s->logins = l->next;
		free(l);
	}
}

/* Those that are over go, and the oldest beyond what anybody would need. */
static void forget_old(struct bt_server *s)
{
	struct bt_login **p = &s->logins;
	size_t n = 0;
	while (*p) {
		struct bt_login *l = *p;
		if (l->until_boot_ms > bt_clock_boot_ms() && ++n < LINKS_MAX) {
			p = &l->next;
			continue;
		}
		*p = l->next;
		free(l);
	}
}

static char *new_link(struct bt_server *s, const char *token_hash)
{
	struct bt_login *l = bt_calloc(1, sizeof *l);
	char *link = bt_token_new("btl_");
	forget_old(s);
	bt_token_hash(link, l->hash);
	memcpy(l->token_hash, token_hash, sizeof l->token_hash);
	l->until_boot_ms = bt_clock_boot_ms() + LINK_MS;
	l->next = s->logins;
	s->logins = l;
	return link;
}

char *bt_server_login_link(struct bt_server *s, const char *token)
{
	char hash[65];
	bt_token_hash(token, hash);
	BT_FREE char *link = new_link(s, hash);
	return bt_asprintf("%s/#login=%s", s->url, link);
}

/* Its token's hash; the link is used up. */
static int use_link(struct bt_server *s, const char *link, char ret[static 65], struct bt_err *err)
{
	char hash[65];
	bt_token_hash(link, hash);
	forget_old(s);
	for (struct bt_login **p = &s->logins; *p; p = &(*p)->next) {
		struct bt_login *l = *p;
		if (strcmp(l->hash, hash) != 0)
			continue;
		memcpy(ret, l->token_hash, sizeof l->token_hash);
		*p = l->next;
		free(l);
		return 0;
	}
	return bt_err_set(err, BT_E_AUTH,
		"this login link was used already, or is over: `baton page` prints a new one");
}

void bt_api_login_link(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	char hash[65];
	bt_auth_token_hash(s, x, hash);
	if (!bt_http_request_header(x, "Authorization")) {
		/* else whoever borrows a session for a minute could keep it for ever */
		bt_api_error(x, BT_E_REFUSED, "a login link is made with a token, not by the page");
		return;
	}
	BT_FREE char *link = new_link(s, hash);
	BT_FREE char *path = bt_asprintf("/#login=%s", link);
	json_t *answer = json_pack("{s:s, s:s}", "path", path, "name", bt_who(x)->name);
	bt_api_set_time(answer, "expires_at", bt_clock_wall_ms() + LINK_MS);
	bt_http_reply_json(x, 201, answer);
}

/* ---- the session ------------------------------------------------------------------------- */

static json_t *who_json(struct bt_server *s, const char *name, const char *role, json_t *services)
{
	return json_pack("{s:s, s:s, s:o, s:s, s:s}", "name", name, "role", role, "services",
		services ? services : json_null(), "version", bt_version, "store_id",
		bt_store_id(s->store));
}

static json_t *row_json(struct bt_server *s, const json_t *row)
{
	const char *services = json_string_value(json_object_get(row, "services"));
	return who_json(s, json_string_value(json_object_get(row, "name")),
		json_string_value(json_object_get(row, "role")),
		services ? json_loads(services, 0, NULL) : NULL);
}

void bt_api_session_get(struct bt_http_exchange *x, void *arg)
{
	const struct bt_who *w = bt_who(x);
	bt_http_reply_json(x, 200,
		who_json(arg, w->name, bt_role_name(w->role),
			w->services ? json_incref(w->services) : NULL));
}

struct opening {
	struct bt_http_exchange *x;
	char *cookie;
	json_t *answer;
	int status;
};

static void on_stored(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct opening *o = arg;
	(void)t;
	if (result < 0) {
		bt_http_reply_error(o->x, err);
	} else {
		bt_http_reply_header(o->x, "Set-Cookie", o->cookie);
		bt_http_reply_json(o->x, o->status, BT_STEAL(o->answer));
	}
	json_decref(o->answer);
	free(o->cookie);
	free(o);
}

static void commit(struct bt_server *s, struct bt_txn *t, struct bt_http_exchange *x, char *cookie,
	json_t *answer, int status)
{
	struct opening *o = bt_calloc(1, sizeof *o);
	*o = (struct opening){x, cookie, answer, status};
	bt_store_commit(s->store, t, on_stored, o);
}

static char *cookie(struct bt_server *s, const char *session, int64_t seconds)
{
	char name[BT_COOKIE_NAME];
	bt_auth_cookie_name(s, name);
	return bt_asprintf("%s=%s; HttpOnly; SameSite=Strict; Path=/; Max-Age=%lld%s", name,
		session, (long long)seconds, s->plain ? "" : "; Secure");
}

static int read_login(
	struct bt_server *s, const json_t *body, char hash[static 65], struct bt_err *err)
{
	const char *token = NULL, *link = NULL;
	int r = bt_json_str_opt(body, "link", &link, err);
	if (r == 0 && link)
		return use_link(s, link, hash, err);
	if (r == 0)
		r = bt_json_str(body, "token", &token, err);
	if (r == 0)
		bt_token_hash(token, hash);
	return r;
}

void bt_api_session(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *body = bt_api_body(x);
	BT_JSON json_t *rows = NULL;
	char token_hash[65], hash[65];
	struct bt_err err;
	if (!body)
		return;
	int r = read_login(s, body, token_hash, &err);
	if (r == 0)
		r = bt_store_select(s->store, &rows, &err, BT_SQL_TOKEN_GET, token_hash);
	if (r == 0)
		r = bt_token_usable(json_array_get(rows, 0), &err);
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	const json_t *row = json_array_get(rows, 0);
	BT_FREE char *session = bt_token_new("bts_");
	bt_token_hash(session, hash);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_SESSION_ADD, hash, token_hash, bt_clock_wall_ms() + SESSION_MS);
	bt_server_audit(
		t, &(struct bt_audit){.who = json_string_value(json_object_get(row, "name")),
			   .from = bt_http_peer(x),
			   .what = "log in",
			   .detail = "page"});
	commit(s, t, x, cookie(s, session, SESSION_MS / 1000), row_json(s, row), 201);
}

void bt_api_session_end(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	char hash[65];
	bt_auth_session_hash(s, x, hash);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_SESSION_END, hash);
	commit(s, t, x, cookie(s, "", 0), json_object(), 200);
}
