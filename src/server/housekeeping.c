/* What time alone brings: lost agents every second; pings and contacts every 15; warm slots whose
 * time has passed; the server's own certificate. What is forgotten is retention.c's. */
#include "base/clock.h"
#include "net/pki.h"
#include "server/gate.h"
#include "server/planning.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define DAY_MS ((int64_t)86400000)
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

static bool mark(const char *path, struct bt_file_mark *ret)
{
	struct stat st;
	*ret = (struct bt_file_mark){0};
	if (stat(path, &st) < 0)
		return false;
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
	ret->changed = st.st_ctim;
	return true;
}

static bool same(const struct bt_file_mark *a, const struct bt_file_mark *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->changed.tv_sec == b->changed.tv_sec &&
	       a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Whoever renews the people's certificate puts two files there, one after the other: a pair that
 * does not fit is said once, and the old one serves until the next change. */
static void follow_people_tls(struct bt_server *s)
{
	struct bt_file_mark now[2];
	struct bt_err err = {0};
	if (s->plain || !mark(s->tls_files[0], &now[0]) || !mark(s->tls_files[1], &now[1]))
		return;
	if (same(&now[0], &s->tls_marks[0]) && same(&now[1], &s->tls_marks[1]))
		return;
	bool first = !s->tls_marks[0].ino;
	memcpy(s->tls_marks, now, sizeof now);
	if (bt_http_server_reload_tls(s->people, &err) < 0)
		bt_log(NULL, BT_LOG_ERROR, "the new %s is not used: %s", s->tls_files[0], err.text);
	else if (!first)
		bt_log(NULL, BT_LOG_INFO, "%s is new and in use", s->tls_files[0]);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct bt_server *s = arg;
	(void)fd;
	(void)what;
	s->n_ticks++;
	bt_asks_tick(s);
	bt_runs_tick(s);
	bt_gate_tick(s);
	retire_warm(s);
	follow_people_tls(s);
	bt_restored_tick(s);
	if (s->n_ticks % 2 == 0)
		bt_streams_check(s);
	if (s->n_ticks % 15 == 0) {
		bt_stream_ping(s);
		store_contacts(s);
	}
	if (s->n_ticks % 3600 == 1) {
		bt_retention_hourly(s);
		renew_own(s);
	}
	bt_retention_tick(s);
}

int bt_housekeeping_start(struct bt_server *s, struct bt_err *err)
{
	struct timeval second = {1, 0};
	s->tick = event_new(s->base, -1, EV_PERSIST, on_tick, s);
	if (!s->tick || event_add(s->tick, &second) < 0)
		return bt_err_set(err, BT_E_FAILED, "start the housekeeping timer");
	return 0;
}
