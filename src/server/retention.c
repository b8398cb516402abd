/* What a server forgets. Once an hour: certificates, join tokens, sessions and settled commands
 * whose time is over, and artifacts that no release needs. In between, a few runs at a time: those
 * past their number or their age, with their records, their logs and the releases that only they
 * named.
 *
 * A run stays while anything may still need it: the newest of each service, the one that made its
 * live release live (a rollback reads there what was live before), one that holds a lease or has
 * not ended. A release stays while it is live, while a run that is kept names it, or while it is
 * among the newest good ones. So the highest numbers always stay, and no number is given out twice.
 * Counts of ended runs go into `totals` in the same transaction, so that metrics never fall.
 *
 * Logs go first: a crash in between leaves a run without logs, which the next round takes, and
 * never files that nobody knows. */
#include "base/clock.h"
#include "base/fs.h"
#include "server/run.h"

#include <stdio.h>

#define DAY_MS ((int64_t)86400000)
#define UNUSED_ARTIFACT_MS (30 * DAY_MS)
#define OLD_OUTBOX_MS (7 * DAY_MS)
#define AT_LEAST 20 /* runs and good releases of each service, however old */
#define EVERY_TICKS 10

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

void bt_retention_drop(struct bt_server *s, struct bt_txn *t, const json_t *rows)
{
	size_t i;
	json_t *row;
	struct unlink_job *job =
		bt_calloc(1, sizeof *job + json_array_size(rows) * sizeof *job->paths);
	json_array_foreach (rows, i, row) {
		const char *digest = json_string_value(json_object_get(row, "digest"));
		BT_FREE char *name = bt_asprintf("artifacts/%s", digest);
		job->paths[job->n++] = bt_server_path(s, name);
		bt_txn_add(t, BT_SQL_ARTIFACT_FORGET, digest);
		bt_txn_add(t, BT_SQL_RELEASES_PRUNED, digest, bt_clock_wall_ms());
	}
	bt_work_submit(s->work, unlink_run, unlink_done, job);
}

static void drop_artifacts(struct bt_server *s, struct bt_txn *t)
{
	BT_JSON json_t *rows = NULL;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_ARTIFACTS_UNUSED,
		    bt_clock_wall_ms() - UNUSED_ARTIFACT_MS) == 0)
		bt_retention_drop(s, t, rows);
}

void bt_retention_hourly(struct bt_server *s)
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

/* ---- runs -------------------------------------------------------------------------------- */

struct prune {
	struct bt_server *server;
	char *service;
	json_t *rows; /* id, release, old_release */
	size_t n;
	char *dirs[];
};

static void prune_free(struct prune *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->dirs[i]);
	json_decref(p->rows);
	free(p->service);
	free(p);
}

static void prune_logs(void *arg) /* on a thread */
{
	struct prune *p = arg;
	for (size_t i = 0; i < p->n; i++)
		(void)bt_fs_remove_tree(p->dirs[i], NULL);
}

static void on_pruned(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct prune *p = arg;
	(void)t;
	p->server->pruning = false;
	if (result < 0)
		bt_log(NULL, BT_LOG_WARN, "service=%s old runs are not forgotten: %s", p->service,
			err->text);
	else
		bt_log(NULL, BT_LOG_INFO, "service=%s forgot %zu old runs", p->service, p->n);
	prune_free(p);
}

static void prune_rows(void *arg)
{
	struct prune *p = arg;
	struct bt_server *s = p->server;
	size_t i;
	json_t *row;
	if (s->stopping) {
		prune_free(p);
		return;
	}
	struct bt_txn *t = bt_txn_new();
	json_array_foreach (p->rows, i, row) {
		int64_t id = json_integer_value(json_object_get(row, "id"));
		bt_txn_add(t, BT_SQL_RUN_DROP_RECORDS, id);
		bt_txn_add(t, BT_SQL_RUN_DROP_OUTBOX, id);
		bt_txn_add(t, BT_SQL_RUN_DROP, id);
	}
	static const char *const named[] = {"release", "old_release"};
	json_array_foreach (p->rows, i, row)
		for (size_t k = 0; k < BT_ARRAY_LEN(named); k++)
			bt_txn_add(t, BT_SQL_RELEASE_DROP, p->service,
				json_integer_value(json_object_get(row, named[k])),
				(int64_t)AT_LEAST);
	bt_txn_add(t, BT_SQL_VACUUM_SOME);
	bt_store_commit(s->store, t, on_pruned, p);
}

/* true: this service may have more. */
static bool prune_service(struct bt_server *s, const struct bt_svc *svc)
{
	json_t *rows = NULL;
	int64_t least = s->keep_runs < AT_LEAST ? s->keep_runs : AT_LEAST;
	if (bt_store_select(s->store, &rows, NULL, BT_SQL_RUNS_OLD, svc->name, least, s->keep_runs,
		    bt_clock_wall_ms() - s->keep_for_ms) < 0)
		return false;
	size_t n = json_array_size(rows), i;
	if (!n) {
		json_decref(rows);
		return false;
	}
	struct prune *p = bt_calloc(1, sizeof *p + n * sizeof *p->dirs);
	*p = (struct prune){.server = s, .service = bt_strdup(svc->name), .rows = rows};
	json_t *row;
	json_array_foreach (rows, i, row) {
		BT_FREE char *name = bt_asprintf("runs/%" JSON_INTEGER_FORMAT,
			json_integer_value(json_object_get(row, "id")));
		p->dirs[p->n++] = bt_server_path(s, name);
	}
	s->pruning = true;
	bt_work_submit(s->work, prune_logs, prune_rows, p);
	return true;
}

/* One service a step, in turn; at once again where there was something to do. A release that is
 * being looked up for a run that has not begun is named by no run yet: then it waits. */
void bt_retention_tick(struct bt_server *s)
{
	if (s->pruning || s->wishes || s->n_starting ||
		(!s->more_to_prune && s->n_ticks % EVERY_TICKS != 1))
		return;
	size_t n = 0;
	for (const struct bt_svc *svc = s->services; svc; svc = svc->next)
		n++;
	if (!n)
		return;
	if (!s->more_to_prune)
		s->prune_at++;
	size_t at = s->prune_at % n;
	const struct bt_svc *svc = s->services;
	while (at--)
		svc = svc->next;
	s->more_to_prune = prune_service(s, svc);
}
