/* What time alone brings: lost agents every second; pings and contacts every 15; warm slots whose
 * time has passed; certificates, tokens, sessions and artifacts that nobody needs any more. */
#include "base/clock.h"
#include "base/fs.h"
#include "net/pki.h"
#include "server/planning.h"

#include <stdio.h>
#include <string.h>

#define DAY_MS ((int64_t)86400000)
#define UNUSED_ARTIFACT_MS (30 * DAY_MS)
#define OLD_OUTBOX_MS (7 * DAY_MS)
#define RENEW_BEFORE_MS (30 * DAY_MS)

static void store_contacts(struct bt_server *s)
{
	struct bt_txn *t = bt_txn_new();
	bool any = false;
	for (struct bt_host *h = s->hosts; h; h = h->next) {
		if (h->poll)
			bt_host_touch(h);
		if (!h->retouched)
			continue;
		h->retouched = false;
		any = true;
		bt_txn_add(t, BT_SQL_HOST_TOUCH, h->name, h->seen_wall_ms);
	}
	if (any)
		bt_store_commit(s->store, t, NULL, NULL);
	else
		bt_txn_free(t);
}

static void retire_warm(struct bt_server *s)
{
	int64_t now = bt_clock_wall_ms();
	for (struct bt_svc *svc = s->services; svc; svc = svc->next)
		if (svc->retire_at > 0 && svc->retire_at <= now &&
			bt_run_lease_free(s, svc->name, NULL) == 0) {
			svc->retire_at = now + 60000; /* once a minute until it worked */
			bt_planning_retire(s, svc);
		}
}

struct unlink_job {
	size_t n;
	char *paths[];
};

static void unlink_run(void *arg)
{
	struct unlink_job *j = arg;
	for (size_t i = 0; i < j->n; i++)
		(void)bt_fs_remove_tree(j->paths[i], NULL);
	for (size_t i = 0; i < j->n; i++)
		free(j->paths[i]);
	free(j);
}

static void unlink_done(void *arg)
{
	(void)arg;
}

static void drop_artifacts(struct bt_server *s, struct bt_txn *t)
{
	BT_JSON json_t *rows = NULL;
	size_t i;
	json_t *row;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_ARTIFACTS_UNUSED,
		    bt_clock_wall_ms() - UNUSED_ARTIFACT_MS) < 0)
		return;
	struct unlink_job *job =
		bt_calloc(1, sizeof *job + json_array_size(rows) * sizeof *job->paths);
	json_array_foreach (rows, i, row) {
		const char *digest = json_string_value(json_object_get(row, "digest"));
		BT_FREE char *name = bt_asprintf("artifacts/%s", digest);
		job->paths[job->n++] = bt_server_path(s, name);
		bt_txn_add(t, BT_SQL_ARTIFACT_FORGET, digest);
	}
	bt_work_submit(s->work, unlink_run, unlink_done, job);
}

static void forget_old(struct bt_server *s)
{
	int64_t now = bt_clock_wall_ms();
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_CERT_FORGET, now);
	bt_txn_add(t, BT_SQL_JOIN_FORGET, now - DAY_MS);
	bt_txn_add(t, BT_SQL_SESSION_FORGET, now);
	bt_txn_add(t, BT_SQL_OUTBOX_FORGET, now - OLD_OUTBOX_MS);
	drop_artifacts(s, t);
	bt_store_commit(s->store, t, NULL, NULL);
}

static void renew_own(struct bt_server *s)
{
	struct bt_err err;
	int64_t end = 0;
	BT_FREE char *dir = bt_server_path(s, "pki");
	BT_FREE char *cert = bt_server_path(s, "pki/server.pem");
	if (bt_pki_not_after(cert, &end, &err) < 0 || end - bt_clock_wall_ms() > RENEW_BEFORE_MS)
		return;
	int r = bt_pki_issue_server(dir, (const char *const *)s->names, s->n_names, &err);
	if (r == 0)
		r = bt_http_server_reload_tls(s->agents, &err);
	if (r < 0)
		bt_log(NULL, BT_LOG_ERROR, "renew the server's certificate: %s", err.text);
	else
		bt_log(NULL, BT_LOG_INFO, "renewed the server's certificate");
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct bt_server *s = arg;
	(void)fd;
	(void)what;
	s->n_ticks++;
	bt_asks_tick(s);
	bt_runs_tick(s);
	retire_warm(s);
	bt_restored_tick(s);
	if (s->n_ticks % 15 == 0) {
		bt_stream_ping(s);
		store_contacts(s);
	}
	if (s->n_ticks % 3600 == 1) {
		forget_old(s);
		renew_own(s);
	}
}

int bt_housekeeping_start(struct bt_server *s, struct bt_err *err)
{
	struct timeval second = {1, 0};
	s->tick = event_new(s->base, -1, EV_PERSIST, on_tick, s);
	if (!s->tick || event_add(s->tick, &second) < 0)
		return bt_err_set(err, BT_E_FAILED, "start the housekeeping timer");
	return 0;
}
