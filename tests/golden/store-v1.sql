-- A store as schema 1 wrote it; never edited.
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE services(name TEXT PRIMARY KEY, config TEXT NOT NULL, live_release INTEGER, retire_at INTEGER, token INTEGER NOT NULL DEFAULT 0, updated_at INTEGER NOT NULL);
CREATE TABLE releases(id INTEGER PRIMARY KEY, service TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, file_name TEXT NOT NULL, config TEXT NOT NULL, config_hash TEXT NOT NULL, by TEXT, secrets BLOB, created_at INTEGER NOT NULL, state TEXT NOT NULL);
CREATE INDEX releases_service ON releases(service,version,id);
CREATE TABLE deployments(id INTEGER PRIMARY KEY, service TEXT NOT NULL, version TEXT, release INTEGER NOT NULL, old_release INTEGER NOT NULL, old_version TEXT, purpose TEXT NOT NULL, strategy TEXT NOT NULL, by TEXT, token INTEGER NOT NULL, started_at INTEGER NOT NULL, phase TEXT NOT NULL, end TEXT, exit_code INTEGER, reason TEXT, ended_at INTEGER, paused_ms INTEGER NOT NULL DEFAULT 0);
CREATE INDEX deployments_service ON deployments(service,id);
CREATE INDEX deployments_open ON deployments(id) WHERE end IS NULL;
CREATE TABLE records(cursor INTEGER PRIMARY KEY, deployment INTEGER NOT NULL, wall_ms INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, event TEXT NOT NULL);
CREATE INDEX records_deployment ON records(deployment,cursor);
CREATE TABLE leases(service TEXT PRIMARY KEY, deployment INTEGER NOT NULL, holder TEXT NOT NULL, since INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE hosts(name TEXT PRIMARY KEY, address TEXT, agent_version TEXT, protocol INTEGER, last_seq INTEGER NOT NULL DEFAULT 0, last_seen_at INTEGER, created_at INTEGER NOT NULL, revoked_at INTEGER) WITHOUT ROWID;
CREATE TABLE outbox(host TEXT NOT NULL, seq INTEGER NOT NULL, deployment INTEGER NOT NULL, task INTEGER NOT NULL, verb TEXT NOT NULL, attempt INTEGER NOT NULL, digest TEXT, json TEXT NOT NULL, settled INTEGER NOT NULL DEFAULT 0, PRIMARY KEY(host,seq)) WITHOUT ROWID;
CREATE INDEX outbox_key ON outbox(deployment,task,verb,attempt);
CREATE INDEX outbox_open ON outbox(host,seq) WHERE settled=0;
CREATE INDEX outbox_digest ON outbox(host,digest) WHERE digest IS NOT NULL;
CREATE TABLE generations(host TEXT NOT NULL, balancer TEXT NOT NULL, generation INTEGER NOT NULL, PRIMARY KEY(host,balancer)) WITHOUT ROWID;
CREATE TABLE certificates(serial TEXT PRIMARY KEY, host TEXT NOT NULL, not_after INTEGER NOT NULL, created_at INTEGER NOT NULL, drop_at INTEGER) WITHOUT ROWID;
CREATE TABLE join_tokens(hash TEXT PRIMARY KEY, host TEXT NOT NULL, expires_at INTEGER NOT NULL, used_at INTEGER) WITHOUT ROWID;
CREATE TABLE tokens(hash TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, services TEXT, created_at INTEGER NOT NULL, revoked_at INTEGER) WITHOUT ROWID;
CREATE UNIQUE INDEX tokens_name ON tokens(name) WHERE revoked_at IS NULL;
CREATE TABLE artifacts(digest TEXT PRIMARY KEY, size INTEGER NOT NULL, file_name TEXT, created_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, wall_ms INTEGER NOT NULL, who TEXT, what TEXT NOT NULL, detail TEXT);
PRAGMA user_version=1;

INSERT INTO meta VALUES('store_id','0123456789abcdef0123456789abcdef');

INSERT INTO hosts(name,created_at,last_seq) VALUES('was1',1,41);

INSERT INTO releases VALUES(3,'shop','v3','ab',10,'shop.jar','{}','h','{}',NULL,5,'good');

INSERT INTO deployments(id,service,version,release,old_release,purpose,strategy,token,started_at,phase,end) VALUES(7,'shop','v3',3,0,'deploy','blue-green',9,5,'ended','done');

