/* Schema versions. Each entry takes the store from its index to the next version; entries are
 * never edited once released, only appended. PRAGMA user_version holds the version; before a
 * migration the whole store is copied beside itself, so that an older binary can be put back. */
#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "journal/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

static const char *const migrations[] = {
	/* 0 → 1 */
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE services(name TEXT PRIMARY KEY, config TEXT NOT NULL, live_release INTEGER,"
	" retire_at INTEGER, token INTEGER NOT NULL DEFAULT 0, updated_at INTEGER NOT NULL);"
	"CREATE TABLE releases(id INTEGER PRIMARY KEY, service TEXT NOT NULL, version TEXT NOT "
	"NULL,"
	" digest TEXT NOT NULL, size INTEGER NOT NULL, file_name TEXT NOT NULL, config TEXT NOT "
	"NULL,"
	" config_hash TEXT NOT NULL, by TEXT, secrets BLOB, created_at INTEGER NOT NULL,"
	" state TEXT NOT NULL);"
	"CREATE INDEX releases_service ON releases(service,version,id);"
	"CREATE TABLE deployments(id INTEGER PRIMARY KEY, service TEXT NOT NULL, version TEXT,"
	" release INTEGER NOT NULL, old_release INTEGER NOT NULL, old_version TEXT, purpose TEXT "
	"NOT"
	" NULL, strategy TEXT NOT NULL, by TEXT, token INTEGER NOT NULL, started_at INTEGER NOT "
	"NULL,"
	" phase TEXT NOT NULL, end TEXT, exit_code INTEGER, reason TEXT, ended_at INTEGER,"
	" paused_ms INTEGER NOT NULL DEFAULT 0);"
	"CREATE INDEX deployments_service ON deployments(service,id);"
	"CREATE INDEX deployments_open ON deployments(id) WHERE end IS NULL;"
	"CREATE TABLE records(cursor INTEGER PRIMARY KEY, deployment INTEGER NOT NULL, wall_ms "
	"INTEGER"
	" NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, event TEXT NOT NULL);"
	"CREATE INDEX records_deployment ON records(deployment,cursor);"
	"CREATE TABLE leases(service TEXT PRIMARY KEY, deployment INTEGER NOT NULL, holder TEXT NOT"
	" NULL, since INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE hosts(name TEXT PRIMARY KEY, address TEXT, agent_version TEXT, protocol "
	"INTEGER,"
	" last_seq INTEGER NOT NULL DEFAULT 0, last_seen_at INTEGER, created_at INTEGER NOT NULL,"
	" revoked_at INTEGER) WITHOUT ROWID;"
	"CREATE TABLE outbox(host TEXT NOT NULL, seq INTEGER NOT NULL, deployment INTEGER NOT NULL,"
	" task INTEGER NOT NULL, verb TEXT NOT NULL, attempt INTEGER NOT NULL, digest TEXT,"
	" json TEXT NOT NULL, settled INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(host,seq))"
	" WITHOUT ROWID;"
	"CREATE INDEX outbox_key ON outbox(deployment,task,verb,attempt);"
	"CREATE INDEX outbox_open ON outbox(host,seq) WHERE settled=0;"
	"CREATE INDEX outbox_digest ON outbox(host,digest) WHERE digest IS NOT NULL;"
	"CREATE TABLE generations(host TEXT NOT NULL, balancer TEXT NOT NULL, generation INTEGER "
	"NOT"
	" NULL, PRIMARY KEY(host,balancer)) WITHOUT ROWID;"
	"CREATE TABLE certificates(serial TEXT PRIMARY KEY, host TEXT NOT NULL, not_after INTEGER "
	"NOT"
	" NULL, created_at INTEGER NOT NULL, drop_at INTEGER) WITHOUT ROWID;"
	"CREATE TABLE join_tokens(hash TEXT PRIMARY KEY, host TEXT NOT NULL, expires_at INTEGER NOT"
	" NULL, used_at INTEGER) WITHOUT ROWID;"
	"CREATE TABLE tokens(hash TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, "
	"services"
	" TEXT, created_at INTEGER NOT NULL, revoked_at INTEGER) WITHOUT ROWID;"
	"CREATE UNIQUE INDEX tokens_name ON tokens(name) WHERE revoked_at IS NULL;"
	"CREATE TABLE artifacts(digest TEXT PRIMARY KEY, size INTEGER NOT NULL, file_name TEXT,"
	" created_at INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, wall_ms INTEGER NOT NULL, who "
	"TEXT,"
	" what TEXT NOT NULL, detail TEXT);",
	/* 1 → 2: cookie sessions of the page */
	"CREATE TABLE sessions(hash TEXT PRIMARY KEY, token_hash TEXT NOT NULL, expires_at INTEGER "
	"NOT"
	" NULL) WITHOUT ROWID;"
	"CREATE INDEX releases_digest ON releases(digest);",
	/* 2 → 3: tokens that expire; whom and where from, service by service, in the audit */
	"ALTER TABLE tokens ADD COLUMN expires_at INTEGER;"
	"ALTER TABLE audit ADD COLUMN source TEXT;"
	"ALTER TABLE audit ADD COLUMN service TEXT;"
	"CREATE INDEX audit_service ON audit(service,id) WHERE service IS NOT NULL;",
	/* 3 → 4: files of a release, sealed as its secrets are */
	"ALTER TABLE releases ADD COLUMN files BLOB;",
	/* 4 → 5: what runs that are forgotten counted */
	"CREATE TABLE totals(service TEXT NOT NULL, strategy TEXT NOT NULL, result TEXT NOT NULL,"
	" n INTEGER NOT NULL, ms INTEGER NOT NULL, PRIMARY KEY(service,strategy,result))"
	" WITHOUT ROWID;",
	/* 5 → 6: configs as they were applied or served, and who locked them; what a person says of
	 * a release */
	"CREATE TABLE configs(service TEXT NOT NULL, version INTEGER NOT NULL, config TEXT NOT "
	"NULL,"
	" files BLOB, hash TEXT NOT NULL, who TEXT, why TEXT, at INTEGER NOT NULL,"
	" PRIMARY KEY(service,version)) WITHOUT ROWID;"
	"ALTER TABLE services ADD COLUMN locked_by TEXT;"
	"ALTER TABLE releases ADD COLUMN marked_by TEXT;"
	"ALTER TABLE releases ADD COLUMN marked_why TEXT;",
	/* 6 → 7: locks, freezes, and who waits for a turn */
	"CREATE TABLE locks(service TEXT PRIMARY KEY, who TEXT NOT NULL, why TEXT NOT NULL, since"
	" INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE freezes(id INTEGER PRIMARY KEY AUTOINCREMENT, services TEXT, during TEXT NOT"
	" NULL, zone TEXT NOT NULL, why TEXT NOT NULL, who TEXT NOT NULL, created_at INTEGER NOT"
	" NULL);"
	"CREATE TABLE tickets(id INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, who TEXT"
	" NOT NULL, since INTEGER NOT NULL);",
	/* 7 → 8: releases whose artifact was removed */
	"ALTER TABLE releases ADD COLUMN pruned_at INTEGER;",
	/* 8 → 9: totals count every run at its end, so that nobody has to count them all again */
	"INSERT INTO totals(service,strategy,result,n,ms) SELECT service,strategy,end,count(*),"
	"coalesce(sum(ended_at-started_at-paused_ms),0) FROM deployments WHERE end IS NOT NULL"
	" GROUP BY service,strategy,end ON CONFLICT(service,strategy,result) DO UPDATE SET"
	" n=n+excluded.n,ms=ms+excluded.ms;"
	"CREATE TRIGGER deployments_count AFTER UPDATE OF end ON deployments WHEN old.end IS NULL"
	" AND new.end IS NOT NULL BEGIN INSERT INTO totals(service,strategy,result,n,ms)"
	" VALUES(new.service,new.strategy,new.end,1,"
	"coalesce(new.ended_at-new.started_at-new.paused_ms,0)) ON CONFLICT(service,strategy,"
	"result) DO UPDATE SET n=n+1,ms=ms+excluded.ms; END;",
};

int bt_schema_version(void)
{
	return (int)BT_ARRAY_LEN(migrations);
}

static int get_version(sqlite3 *db, int *ret, struct bt_err *err)
{
	sqlite3_stmt *st = NULL;
	if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL) != SQLITE_OK ||
		sqlite3_step(st) != SQLITE_ROW) {
		sqlite3_finalize(st);
		return bt_err_set(err, BT_E_STORE, "%s", sqlite3_errmsg(db));
	}
	*ret = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	return 0;
}

/* VACUUM INTO writes a consistent copy in one go; it counts only once it is on the disk. */
static int backup(sqlite3 *db, const char *path, int version, struct bt_err *err)
{
	BT_FREE char *to =
		bt_asprintf("%s.v%d.%lld.bak", path, version, (long long)bt_clock_wall_ms());
	char *sql = sqlite3_mprintf("VACUUM INTO %Q", to);
	int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	sqlite3_free(sql);
	if (rc != SQLITE_OK)
		return bt_err_set(err, BT_E_STORE, "backup to %s: %s", to, sqlite3_errmsg(db));
	BT_CLOSE int fd = open(to, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return bt_err_errno(err, errno, "backup to %s", to);
	return bt_fs_fsync_parent(to, err);
}

int bt_schema_migrate(sqlite3 *db, const char *path, struct bt_err *err)
{
	int version = 0, newest = bt_schema_version();
	int r = get_version(db, &version, err);
	if (r < 0)
		return bt_err_wrap(err, "store %s", path);
	if (version > newest)
		return bt_err_set(err, BT_E_REFUSED,
			"store %s has schema %d, this baton knows up to %d: use the newer baton, "
			"or "
			"put the backup back that it made beside the store",
			path, version, newest);
	if (version > 0 && version < newest && (r = backup(db, path, version, err)) < 0)
		return bt_err_wrap(err, "store %s: schema %d", path, version);
	for (; version < newest; version++) {
		BT_FREE char *sql = bt_asprintf("BEGIN IMMEDIATE;%s PRAGMA user_version=%d; COMMIT",
			migrations[version], version + 1);
		char *why = NULL;
		if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK) {
			bt_err_set(err, BT_E_STORE, "store %s: to schema %d: %s", path, version + 1,
				why ? why : sqlite3_errmsg(db));
			sqlite3_free(why);
			sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
			return BT_E_STORE;
		}
	}
	return 0;
}
