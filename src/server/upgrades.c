/* An agent becomes what this server is: it is offered the server's own program, says when it has
 * it, and then says hello as the new one, or as the old one and why. */
#include "base/fs.h"
#include "base/version.h"
#include "driver/places.h"
#include "server/api.h"

#include <stdio.h>
#include <string.h>

#define FETCH_MS 300000
#define HELLO_MS 90000 /* the agent's own patience for the trial, and then some */
#define BINARIES 3

struct bt_upgrade_run {
	struct bt_upgrade_run *next;
	struct bt_server *server;
	struct bt_host *host;
	struct bt_http_exchange *x; /* NULL: who asked has left */
	struct bt_ask *ask;	    /* NULL: it has the program, a hello is to come */
	struct event *limit;
	char *from;
};

struct bt_binary {
	char digest[65];
	char *path;
};

static void run_free(struct bt_upgrade_run *u)
{
	for (struct bt_upgrade_run **p = &u->server->upgrades; *p; p = &(*p)->next)
		if (*p == u) {
			*p = u->next;
			break;
		}
	bt_ask_cancel(u->ask);
	event_free(u->limit);
	free(u->from);
	free(u);
}

static void run_end(struct bt_upgrade_run *u, int code, const char *why)
{
	const char *host = u->host->name;
	if (code < 0)
		bt_log(NULL, BT_LOG_WARN, "host=%s not upgraded: %s", host, why);
	else
		bt_log(NULL, BT_LOG_INFO, "host=%s upgraded from %s to %s", host, u->from,
			bt_version);
	if (u->x && code < 0)
		bt_api_error(u->x, code, "host %s is not upgraded: %s", host, why);
	else if (u->x)
		bt_http_reply_json(u->x, 200,
			json_pack("{s:s, s:s, s:s}", "host", host, "from", u->from, "to",
				bt_version));
	run_free(u);
}

static void on_close(void *arg)
{
	struct bt_upgrade_run *u = arg;
	u->x = NULL; /* it goes on */
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	run_end(arg, BT_E_TIMEOUT, "its agent does not answer any more");
}

static void on_answer(void *arg, const json_t *answer, bool end, const struct bt_err *err)
{
	struct bt_upgrade_run *u = arg;
	(void)answer;
	if (!end)
		return;
	u->ask = NULL;
	if (err)
		run_end(u, err->code, err->text);
	else
		bt_timer_in(u->limit, HELLO_MS);
}

void bt_upgrades_hello(struct bt_server *s, struct bt_host *h, const json_t *hello)
{
	const char *failed = json_string_value(json_object_get(hello, "upgrade_failed"));
	const char *version = json_string_value(json_object_get(hello, "version"));
	struct bt_upgrade_run *u = s->upgrades;
	while (u && (u->host != h || u->ask))
		u = u->next;
	if (!u || json_is_true(json_object_get(hello, "trial")))
		return; /* it has yet to take its place */
	if (failed)
		run_end(u, BT_E_FAILED, failed);
	else if (!bt_streq(version, bt_version))
		run_end(u, BT_E_FAILED, "its agent came back as it was");
	else
		run_end(u, 0, NULL);
}

/* ---- the program ---------------------------------------------------------------------------- */

static void forget_binaries(struct bt_server *s)
{
	for (size_t i = 0; s->binaries && i < BINARIES; i++)
		free(s->binaries[i].path);
	free(s->binaries);
	s->binaries = NULL;
}

/* Read anew each time: whoever installed another one meanwhile offers that. */
static int offer(struct bt_server *s, json_t **ret, struct bt_err *err)
{
	static const char *const names[BINARIES] = {"baton-shim", "baton-unpack", "baton"};
	BT_FREE char *self = bt_place_self();
	BT_FREE char *shim = bt_place_shim(self);
	json_t *files = json_array();
	int r = 0;
	forget_binaries(s);
	s->binaries = bt_calloc(BINARIES, sizeof *s->binaries);
	for (size_t i = 0; i < BINARIES && r == 0; i++) {
		struct bt_binary *b = &s->binaries[i];
		int64_t size = 0;
		const char *slash = strrchr(shim, '/');
		b->path = i == BINARIES - 1
				  ? bt_strdup(self)
				  : bt_asprintf("%.*s/%s", (int)(slash - shim), shim, names[i]);
		r = bt_fs_sha256(b->path, b->digest, &size, err);
		json_array_append_new(
			files, json_pack("{s:s, s:s, s:I}", "name", names[i], "sha256", b->digest,
				       "size", (json_int_t)size));
	}
	if (r < 0) {
		json_decref(files);
		return bt_err_wrap(err, "this server's own program");
	}
	*ret = json_pack(
		"{s:s, s:s, s:o}", "kind", "upgrade", "version", bt_version, "files", files);
	return 0;
}

void bt_api_binary_get(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *digest = bt_http_param(x, "digest");
	int64_t from = bt_http_range_start(x);
	for (size_t i = 0; s->binaries && i < BINARIES; i++)
		if (bt_streq(s->binaries[i].digest, digest)) {
			bt_http_reply_file(x, s->binaries[i].path, from < 0 ? 0 : from);
			return;
		}
	bt_api_error(x, BT_E_NOTFOUND, "no such program is offered");
}

void bt_api_host_upgrade(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *name = bt_http_param(x, "host");
	struct bt_host *h = bt_host_find(s, name);
	struct bt_err err;
	json_t *question = NULL;
	if (!h || h->revoked) {
		bt_api_error(x, BT_E_NOTFOUND, "no host '%.80s'", name);
		return;
	}
	if (!bt_host_connected(h)) {
		bt_api_error(x, BT_E_UNREACHABLE, "host %s is not connected: is its agent running?",
			h->name);
		return;
	}
	for (const struct bt_upgrade_run *u = s->upgrades; u; u = u->next)
		if (u->host == h) {
			bt_api_error(x, BT_E_EXISTS, "host %s is being upgraded", h->name);
			return;
		}
	if (offer(s, &question, &err) < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	struct bt_txn *t = bt_txn_new();
	bt_api_audit_add(t, x, NULL, "upgrade agent", h->name);
	bt_store_commit(s->store, t, NULL, NULL);
	struct bt_upgrade_run *u = bt_calloc(1, sizeof *u);
	*u = (struct bt_upgrade_run){.next = s->upgrades,
		.server = s,
		.host = h,
		.x = x,
		.from = bt_strdup(h->agent_version ? h->agent_version : "?")};
	u->limit = evtimer_new(s->base, on_limit, u);
	s->upgrades = u;
	bt_http_on_close(x, on_close, u);
	bt_timer_in(u->limit, FETCH_MS);
	u->ask = bt_ask_start(h, question, 0, on_answer, u);
}

void bt_upgrades_free(struct bt_server *s)
{
	while (s->upgrades)
		run_free(s->upgrades);
	forget_binaries(s);
}
