/* Every statement of the store: name, signature of its arguments (i integer, s text, b blob),
 * `must` (code when it changes no row, 0: that is fine), text. Included with BT_SQL_ROW defined;
 * no include guard on purpose. */
/* meta */
BT_SQL_ROW(META_GET, "s", 0, "SELECT value FROM meta WHERE key=?1")
BT_SQL_ROW(META_SET, "ss", 0,
	"INSERT INTO meta(key,value) VALUES(?1,?2) ON CONFLICT(key) DO UPDATE SET value=?2")
/* after a restore: above all that agents may have seen since the backup */
BT_SQL_ROW(RAISE_TOKENS, "i", 0, "UPDATE services SET token=token+?1")
BT_SQL_ROW(MAX_CURSOR, "", 0, "SELECT max(cursor) FROM records")
BT_SQL_ROW(MAX_DEPLOYMENT, "", 0, "SELECT max(id) FROM deployments")
BT_SQL_ROW(MAX_RELEASE, "", 0, "SELECT max(id) FROM releases")
BT_SQL_ROW(ALIVE, "", 0, "SELECT 1")
/* services */
BT_SQL_ROW(SERVICE_PUT, "ssi", 0,
	"INSERT INTO services(name,config,updated_at) VALUES(?1,?2,?3)"
	" ON CONFLICT(name) DO UPDATE SET config=?2,updated_at=?3")
BT_SQL_ROW(SERVICE_LIVE, "si", 0, "UPDATE services SET live_release=?2 WHERE name=?1")
BT_SQL_ROW(SERVICE_RETIRE_AT, "si", 0, "UPDATE services SET retire_at=?2 WHERE name=?1")
BT_SQL_ROW(SERVICE_TOKEN, "si", 0, "UPDATE services SET token=max(token,?2) WHERE name=?1")
BT_SQL_ROW(SERVICES, "", 0,
	"SELECT name,config,live_release,retire_at,token,locked_by FROM services ORDER BY name "
	"LIMIT 10000")
BT_SQL_ROW(SERVICE_GET, "s", 0,
	"SELECT name,config,live_release,retire_at,token FROM services WHERE name=?1")
BT_SQL_ROW(SERVICE_NEW, "ssi", 0,
	"INSERT INTO services(name,config,updated_at) VALUES(?1,?2,?3) ON CONFLICT DO NOTHING")
BT_SQL_ROW(SERVICE_LOCK, "ss", 0, "UPDATE services SET locked_by=?2 WHERE name=?1")
/* stored configs: the newest is what counts; the same again makes no new version */
BT_SQL_ROW(CONFIG_PUT, "ssbsssi", 0,
	"INSERT INTO configs(service,version,config,files,hash,who,why,at)"
	" SELECT ?1,coalesce((SELECT max(version) FROM configs WHERE service=?1),0)+1,?2,?3,?4,?5,"
	"?6,?7 WHERE coalesce((SELECT hash FROM configs WHERE service=?1"
	" ORDER BY version DESC LIMIT 1),'')<>?4 RETURNING version")
BT_SQL_ROW(CONFIG_FORGET, "si", 0,
	"DELETE FROM configs WHERE service=?1 AND version<="
	"(SELECT max(version) FROM configs WHERE service=?1)-?2")
BT_SQL_ROW(CONFIG_LAST, "s", 0,
	"SELECT version,config,files,hash,who,why,at FROM configs WHERE service=?1"
	" ORDER BY version DESC LIMIT 1")
BT_SQL_ROW(CONFIG_GET, "si", 0,
	"SELECT version,config,files,hash,who,why,at FROM configs WHERE service=?1 AND version=?2")
BT_SQL_ROW(CONFIGS, "s", 0,
	"SELECT version,who,why,at FROM configs WHERE service=?1 ORDER BY version DESC LIMIT 100")
/* releases */
BT_SQL_ROW(RELEASE_ADD, "isssissssbi", 0,
	"INSERT INTO "
	"releases(id,service,version,digest,size,file_name,config,config_hash,by,secrets,"
	"created_at,state) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,'new')")
BT_SQL_ROW(RELEASE_FILES_PUT, "ib", 0, "UPDATE releases SET files=?2 WHERE id=?1")
BT_SQL_ROW(RELEASE_FILES, "i", 0, "SELECT files FROM releases WHERE id=?1")
BT_SQL_ROW(RELEASE_STATE, "is", 0,
	"UPDATE releases SET state=?2 WHERE id=?1 AND (?2='good' OR state='new')"
	" AND marked_by IS NULL")
/* what a person says holds against what runs say */
BT_SQL_ROW(RELEASE_MARK, "isss", 0,
	"UPDATE releases SET state=?2,marked_by=?3,marked_why=?4 WHERE id=?1")
BT_SQL_ROW(RELEASES_PRUNED, "si", 0, "UPDATE releases SET pruned_at=nullif(?2,0) WHERE digest=?1")
/* artifacts of a service's releases that none needs: the live one, the newest good ones, those of
 * runs that have not ended, and every release of other services do */
BT_SQL_ROW(ARTIFACTS_TO_PRUNE, "sii", 0,
	"SELECT a.digest,a.size,group_concat(DISTINCT r.version) AS versions FROM artifacts a JOIN"
	" releases r ON r.digest=a.digest WHERE r.service=?1 AND NOT EXISTS(SELECT 1 FROM releases"
	" n WHERE n.digest=a.digest AND (n.service<>?1 OR n.id=?3 OR n.id IN (SELECT id FROM"
	" releases WHERE service=?1 AND state='good' ORDER BY id DESC LIMIT ?2) OR EXISTS(SELECT 1"
	" FROM deployments d WHERE d.end IS NULL AND n.id IN (d.release,d.old_release))))"
	" GROUP BY a.digest LIMIT 1000")
BT_SQL_ROW(RELEASE_GET, "i", 0,
	"SELECT "
	"id,service,version,digest,size,file_name,config,config_hash,secrets,state,created_at,by,"
	"marked_by,marked_why,pruned_at FROM releases WHERE id=?1")
BT_SQL_ROW(RELEASES_OF, "s", 0,
	"SELECT id,version,digest,size,file_name,config_hash,state,created_at,marked_by,marked_why,"
	"pruned_at FROM releases WHERE service=?1 ORDER BY id DESC LIMIT 1000")
BT_SQL_ROW(RELEASE_BY_VERSION, "ss", 0,
	"SELECT id,version,digest,config_hash,state,marked_by,marked_why FROM releases WHERE "
	"service=?1 AND version=?2"
	" ORDER BY id DESC LIMIT 1")
BT_SQL_ROW(RELEASES_GOOD, "si", 0,
	"SELECT id FROM releases WHERE service=?1 AND state='good' AND pruned_at IS NULL ORDER BY "
	"id DESC LIMIT ?2")
BT_SQL_ROW(RELEASE_INFO, "", 0,
	"SELECT r.service,r.version FROM services s JOIN releases r ON r.id=s.live_release"
	" ORDER BY r.service LIMIT 10000")
/* who may begin: locks, freezes, the queue */
BT_SQL_ROW(LOCKS, "", 0, "SELECT service,who,why,since FROM locks LIMIT 10000")
BT_SQL_ROW(LOCK_PUT, "sssi", 0,
	"INSERT INTO locks(service,who,why,since) VALUES(?1,?2,?3,?4)"
	" ON CONFLICT(service) DO UPDATE SET who=?2,why=?3,since=?4")
BT_SQL_ROW(LOCK_REMOVE, "s", 0, "DELETE FROM locks WHERE service=?1")
BT_SQL_ROW(FREEZES, "", 0,
	"SELECT id,services,during,zone,why,who,created_at FROM freezes ORDER BY id LIMIT 10000")
BT_SQL_ROW(FREEZE_ADD, "sssssi", BT_E_STORE,
	"INSERT INTO freezes(services,during,zone,why,who,created_at) VALUES(?1,?2,?3,?4,?5,?6)"
	" RETURNING id")
BT_SQL_ROW(FREEZE_REMOVE, "i", 0, "DELETE FROM freezes WHERE id=?1")
BT_SQL_ROW(TICKETS, "", 0, "SELECT id,service,who,since FROM tickets ORDER BY id LIMIT 10000")
BT_SQL_ROW(TICKET_ADD, "ssi", BT_E_STORE,
	"INSERT INTO tickets(service,who,since) VALUES(?1,?2,?3) RETURNING id")
BT_SQL_ROW(TICKET_REMOVE, "i", 0, "DELETE FROM tickets WHERE id=?1")
/* deployments */
BT_SQL_ROW(DEPLOYMENT_ADD, "issiissssii", 0,
	"INSERT INTO "
	"deployments(id,service,version,release,old_release,old_version,purpose,strategy,"
	"by,token,started_at,phase) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,'new')")
BT_SQL_ROW(DEPLOYMENT_PHASE, "is", 0, "UPDATE deployments SET phase=?2 WHERE id=?1")
BT_SQL_ROW(DEPLOYMENT_TOKEN, "ii", 0, "UPDATE deployments SET token=?2 WHERE id=?1")
BT_SQL_ROW(DEPLOYMENT_END, "issisii", BT_E_STORE,
	"UPDATE deployments SET phase=?2,end=?3,exit_code=?4,reason=?5,ended_at=?6,paused_ms=?7"
	" WHERE id=?1")
BT_SQL_ROW(DEPLOYMENT_GET, "i", 0, "SELECT * FROM deployments WHERE id=?1")
BT_SQL_ROW(DEPLOYMENTS, "si", 0,
	"SELECT * FROM deployments WHERE ?1 IS NULL OR service=?1 ORDER BY id DESC LIMIT ?2")
BT_SQL_ROW(DEPLOYMENTS_OPEN, "", 0,
	"SELECT * FROM deployments WHERE end IS NULL ORDER BY id LIMIT 10000")
BT_SQL_ROW(DEPLOYMENT_BEFORE, "si", 0,
	"SELECT old_release FROM deployments WHERE service=?1 AND release=?2 AND end='done' AND"
	" old_release>0 AND old_release<>?2 AND NOT EXISTS(SELECT 1 FROM releases r WHERE"
	" r.id=old_release AND (r.state='bad' OR r.pruned_at IS NOT NULL)) ORDER BY id DESC LIMIT "
	"1")
/* counted by a trigger at each run's end */
BT_SQL_ROW(DEPLOYMENT_TOTALS, "", 0, "SELECT service,strategy,result,n,ms FROM totals LIMIT 10000")
/* Ended runs of a service past a number (?3) or a time (?4), the oldest first; never the newest
 * ?2, nor the one that made the live release live, nor one that holds a lease. */
BT_SQL_ROW(RUNS_OLD, "siii", 0,
	"SELECT id,release,old_release FROM deployments WHERE service=?1 AND end IS NOT NULL AND"
	" id<coalesce((SELECT id FROM deployments WHERE service=?1 ORDER BY id DESC LIMIT 1 OFFSET"
	" ?2-1),0) AND (ended_at<?4 OR id<coalesce((SELECT id FROM deployments WHERE service=?1"
	" ORDER BY id DESC LIMIT 1 OFFSET ?3-1),0)) AND id<>coalesce((SELECT max(d.id) FROM"
	" deployments d JOIN services s ON s.name=d.service AND s.live_release=d.release WHERE"
	" d.service=?1 AND d.end='done'),0) AND id NOT IN (SELECT deployment FROM leases)"
	" ORDER BY id LIMIT 20")
BT_SQL_ROW(RUN_DROP_RECORDS, "i", 0, "DELETE FROM records WHERE deployment=?1")
BT_SQL_ROW(RUN_DROP_OUTBOX, "i", 0, "DELETE FROM outbox WHERE deployment=?1")
BT_SQL_ROW(RUN_DROP, "i", 0, "DELETE FROM deployments WHERE id=?1")
/* A release (?2) of a service that no run names any more and that is neither live nor among the
 * ?3 newest good ones. */
BT_SQL_ROW(RELEASE_DROP, "sii", 0,
	"DELETE FROM releases WHERE id=?2 AND service=?1 AND id<(SELECT max(id) FROM releases) AND"
	" NOT EXISTS(SELECT 1 FROM deployments WHERE service=?1 AND (release=?2 OR old_release=?2))"
	" AND NOT EXISTS(SELECT 1 FROM services WHERE live_release=?2) AND id NOT IN (SELECT id "
	"FROM"
	" releases WHERE service=?1 AND state='good' ORDER BY id DESC LIMIT ?3)")
/* Gives free pages back, a few at a time; nothing on a store that was made before there was that.
 */
BT_SQL_ROW(VACUUM_SOME, "", 0, "PRAGMA incremental_vacuum(256)")
/* records */
BT_SQL_ROW(RECORD_ADD, "iiisss", 0,
	"INSERT INTO records(cursor,deployment,wall_ms,kind,body,event) VALUES(?1,?2,?3,?4,?5,?6)")
BT_SQL_ROW(RECORDS_OF, "ii", 0,
	"SELECT cursor,wall_ms,body FROM records WHERE deployment=?1 AND cursor>?2 ORDER BY cursor"
	" LIMIT 1000")
BT_SQL_ROW(EVENTS_OF, "ii", 0,
	"SELECT cursor,event FROM records WHERE deployment=?1 AND cursor>?2 ORDER BY cursor LIMIT "
	"200")
BT_SQL_ROW(RECORD_LAST, "", 0, "SELECT coalesce(max(cursor),0) FROM records")
BT_SQL_ROW(EVENTS_ALL, "i", 0,
	"SELECT cursor,event FROM records WHERE cursor>?1 ORDER BY cursor LIMIT 200")
/* leases: only a run's terminal record ends one */
BT_SQL_ROW(LEASE_TAKE, "sisi", BT_E_LEASE,
	"INSERT INTO leases(service,deployment,holder,since) VALUES(?1,?2,?3,?4)"
	" ON CONFLICT(service) DO NOTHING")
BT_SQL_ROW(LEASE_END, "i", 0, "DELETE FROM leases WHERE deployment=?1")
BT_SQL_ROW(LEASE_GET, "s", 0, "SELECT deployment,holder,since FROM leases WHERE service=?1")
/* outbox: a command's row stays until the run is old, `settled` says that its result came */
BT_SQL_ROW(HOST_NEXT_SEQ, "s", BT_E_NOTFOUND,
	"UPDATE hosts SET last_seq=last_seq+1 WHERE name=?1 RETURNING last_seq")
BT_SQL_ROW(OUTBOX_ADD, "siisiss", BT_E_STORE,
	"INSERT INTO outbox(host,seq,deployment,task,verb,attempt,digest,json)"
	" SELECT name,last_seq,?2,?3,?4,?5,?6,?7 FROM hosts WHERE name=?1")
BT_SQL_ROW(OUTBOX_SETTLE, "iisi", 0,
	"UPDATE outbox SET settled=1,json='' WHERE deployment=?1 AND task=?2 AND verb=?3 AND "
	"attempt=?4")
BT_SQL_ROW(OUTBOX_SETTLE_RUN, "i", 0,
	"UPDATE outbox SET settled=1,json='' WHERE deployment=?1 AND settled=0")
BT_SQL_ROW(OUTBOX_OPEN, "s", 0,
	"SELECT seq,deployment,task,verb,attempt,json FROM outbox WHERE host=?1 AND settled=0"
	" ORDER BY seq LIMIT 100000")
BT_SQL_ROW(OUTBOX_SENT_TO, "iisi", 0,
	"SELECT host,settled FROM outbox WHERE deployment=?1 AND task=?2 AND verb=?3 AND "
	"attempt=?4")
BT_SQL_ROW(OUTBOX_DIGEST, "ss", 0, "SELECT 1 FROM outbox WHERE host=?1 AND digest=?2 LIMIT 1")
BT_SQL_ROW(OUTBOX_FORGET, "i", 0,
	"DELETE FROM outbox WHERE settled=1 AND deployment IN"
	" (SELECT id FROM deployments WHERE ended_at<?1)")
/* traffic generations: the highest handed out */
BT_SQL_ROW(GENERATION_RAISE, "ssi", 0,
	"INSERT INTO generations(host,balancer,generation) VALUES(?1,?2,?3) ON "
	"CONFLICT(host,balancer)"
	" DO UPDATE SET generation=max(generation,?3)")
BT_SQL_ROW(GENERATIONS, "", 0, "SELECT host,balancer,generation FROM generations LIMIT 100000")
/* hosts and certificates */
BT_SQL_ROW(HOST_PUT, "si", 0,
	"INSERT INTO hosts(name,created_at) VALUES(?1,?2) ON CONFLICT(name) DO NOTHING")
BT_SQL_ROW(HOST_SEEN, "sssii", 0,
	"UPDATE hosts SET address=?2,agent_version=?3,protocol=?4,last_seen_at=?5 WHERE name=?1")
BT_SQL_ROW(HOST_TOUCH, "si", 0, "UPDATE hosts SET last_seen_at=?2 WHERE name=?1")
BT_SQL_ROW(HOSTS, "", 0,
	"SELECT name,address,agent_version,protocol,last_seq,last_seen_at,created_at,revoked_at"
	" FROM hosts ORDER BY name LIMIT 100000")
BT_SQL_ROW(HOST_REVOKE, "si", BT_E_NOTFOUND,
	"UPDATE hosts SET revoked_at=?2 WHERE name=?1 AND revoked_at IS NULL")
BT_SQL_ROW(HOST_WELCOME, "s", 0, "UPDATE hosts SET revoked_at=NULL WHERE name=?1")
BT_SQL_ROW(CERT_ADD, "ssii", 0,
	"INSERT INTO certificates(serial,host,not_after,created_at) VALUES(?1,?2,?3,?4)")
BT_SQL_ROW(CERT_PUT, "ssii", 0,
	"INSERT INTO certificates(serial,host,not_after,created_at) VALUES(?1,?2,?3,?4)"
	" ON CONFLICT(serial) DO NOTHING")
BT_SQL_ROW(CERT_DROP_OTHERS, "ssi", 0,
	"UPDATE certificates SET drop_at=min(coalesce(drop_at,?3),?3) WHERE host=?1 AND serial<>?2")
BT_SQL_ROW(CERT_DROP_ALL, "si", 0,
	"UPDATE certificates SET drop_at=min(coalesce(drop_at,?2),?2) WHERE host=?1")
BT_SQL_ROW(CERT_GET, "s", 0, "SELECT host,not_after,drop_at FROM certificates WHERE serial=?1")
BT_SQL_ROW(CERT_FORGET, "i", 0, "DELETE FROM certificates WHERE not_after<?1")
/* join tokens, tokens, sessions */
BT_SQL_ROW(JOIN_ADD, "ssi", 0, "INSERT INTO join_tokens(hash,host,expires_at) VALUES(?1,?2,?3)")
BT_SQL_ROW(JOIN_USE, "ssi", BT_E_AUTH,
	"UPDATE join_tokens SET used_at=?3 WHERE hash=?1 AND host=?2 AND used_at IS NULL AND"
	" expires_at>?3")
BT_SQL_ROW(JOIN_GET, "s", 0, "SELECT host,expires_at,used_at FROM join_tokens WHERE hash=?1")
BT_SQL_ROW(JOIN_FORGET, "i", 0, "DELETE FROM join_tokens WHERE expires_at<?1")
BT_SQL_ROW(TOKEN_ADD, "ssssii", BT_E_EXISTS,
	"INSERT INTO tokens(hash,name,role,services,created_at,expires_at)"
	" VALUES(?1,?2,?3,?4,?5,nullif(?6,0))"
	" ON CONFLICT DO NOTHING")
BT_SQL_ROW(TOKEN_GET, "s", 0,
	"SELECT name,role,services,expires_at FROM tokens WHERE hash=?1 AND revoked_at IS NULL")
BT_SQL_ROW(TOKENS, "", 0,
	"SELECT name,role,services,created_at,expires_at,revoked_at FROM tokens ORDER BY "
	"created_at LIMIT "
	"1000")
BT_SQL_ROW(TOKEN_REVOKE, "si", BT_E_NOTFOUND,
	"UPDATE tokens SET revoked_at=?2 WHERE name=?1 AND revoked_at IS NULL")
BT_SQL_ROW(
	SESSION_ADD, "ssi", 0, "INSERT INTO sessions(hash,token_hash,expires_at) VALUES(?1,?2,?3)")
BT_SQL_ROW(SESSION_GET, "si", 0, "SELECT token_hash FROM sessions WHERE hash=?1 AND expires_at>?2")
BT_SQL_ROW(SESSION_END, "s", 0, "DELETE FROM sessions WHERE hash=?1")
BT_SQL_ROW(SESSION_FORGET, "i", 0, "DELETE FROM sessions WHERE expires_at<?1")
/* artifacts, audit */
BT_SQL_ROW(ARTIFACT_ADD, "sisi", 0,
	"INSERT INTO artifacts(digest,size,file_name,created_at) VALUES(?1,?2,?3,?4)"
	" ON CONFLICT(digest) DO UPDATE SET created_at=?4")
BT_SQL_ROW(ARTIFACTS, "", 0, "SELECT digest FROM artifacts ORDER BY digest LIMIT 1000000")
BT_SQL_ROW(ARTIFACT_GET, "s", 0, "SELECT digest,size,file_name FROM artifacts WHERE digest=?1")
BT_SQL_ROW(ARTIFACTS_UNUSED, "i", 0,
	"SELECT digest FROM artifacts a WHERE created_at<?1 AND NOT EXISTS(SELECT 1 FROM releases r"
	" WHERE r.digest=a.digest AND (r.state<>'bad' OR r.created_at>=?1)) LIMIT 100")
BT_SQL_ROW(ARTIFACT_FORGET, "s", 0, "DELETE FROM artifacts WHERE digest=?1")
BT_SQL_ROW(AUDIT_ADD, "isssss", 0,
	"INSERT INTO audit(wall_ms,who,source,service,what,detail) VALUES(?1,?2,?3,?4,?5,?6)")
BT_SQL_ROW(AUDIT, "ssii", 0,
	"SELECT id,wall_ms,who,source AS \"from\",service,what,detail FROM audit WHERE (?1 IS NULL "
	"OR "
	"service=?1)"
	" AND (?2 IS NULL OR who=?2) AND wall_ms>=?3 ORDER BY id DESC LIMIT ?4")
