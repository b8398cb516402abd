/* Setting up, starting and stopping; the state directory. */
#include "server/gate.h"
#include "server/server.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/version.h"
#include "net/pki.h"
#include "server/api.h"
#include "server/tasks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_LISTEN "127.0.0.1:7070"
#define DEFAULT_AGENTS "0.0.0.0:7071"
#define CA_FILE "pki/ca.pem"

char *bt_server_path(const struct bt_server *s, const char *name)
{
	return bt_asprintf("%s/%s", s->state_dir, name);
}

struct bt_svc *bt_server_service(struct bt_server *s, const char *name)
{
	struct bt_svc *svc = s->services;
	while (svc && strcmp(svc->name, name) != 0)
		svc = svc->next;
	return svc;
}

struct bt_svc *bt_server_service_add(struct bt_server *s, const char *name)
{
	struct bt_svc *svc = bt_server_service(s, name);
	if (svc)
		return svc;
	svc = bt_calloc(1, sizeof *svc);
	svc->name = bt_strdup(name);
	svc->next = s->services;
	s->services = svc;
	return svc;
}

void bt_server_audit(struct bt_txn *t, const struct bt_audit *a)
{
	bt_txn_add(t, BT_SQL_AUDIT_ADD, bt_clock_wall_ms(), a->who, a->from, a->service, a->what,
		a->detail);
}

/* ---- files beside the loop --------------------------------------------------------------- */

struct write_job {
	char *path, *text;
};

struct write_told {
	struct write_job *job;
	void (*done)(void *);
	void *arg;
};

/* Frees its job on the thread: at the end of the process jobs still run, but nobody is told. */
static void write_run(void *arg)
{
	struct write_job *j = arg;
	struct bt_err err;
	char *slash = strrchr(j->path, '/');
	*slash = '\0';
	int r = bt_fs_mkdirs(j->path, 0700, &err);
	*slash = '/';
	if (r == 0)
		r = bt_fs_write_atomic(j->path, j->text, strlen(j->text), 0600, &err);
	if (r < 0)
		bt_log(NULL, BT_LOG_WARN, "%s", err.text);
	free(j->path);
	free(j->text);
	free(j);
}

static void write_done(void *arg)
{
	(void)arg;
}

static struct write_job *write_job(struct bt_server *s, const char *path, char *text)
{
	struct write_job *j = bt_calloc(1, sizeof *j);
	j->path = bt_server_path(s, path);
	j->text = text;
	return j;
}

void bt_server_write_later(struct bt_server *s, const char *path, char *text)
{
	bt_work_submit(s->work, write_run, write_done, write_job(s, path, text));
}

static void write_told_run(void *arg)
{
	struct write_told *w = arg;
	write_run(w->job);
}

static void write_told_done(void *arg)
{
	struct write_told *w = arg;
	w->done(w->arg);
	free(w);
}

void bt_server_write_then(
	struct bt_server *s, const char *path, char *text, void (*done)(void *arg), void *arg)
{
	struct write_told *w = bt_calloc(1, sizeof *w);
	*w = (struct write_told){write_job(s, path, text), done, arg};
	bt_work_submit(s->work, write_told_run, write_told_done, w);
}

/* ---- setting up -------------------------------------------------------------------------- */

bool bt_server_initialised(const char *state_dir)
{
	BT_FREE char *db = bt_asprintf("%s/baton.db", state_dir);
	return bt_fs_exists(db);
}

static size_t all_names(const struct bt_server_spec *spec, char ***ret)
{
	static const char *const always[] = {"localhost", "127.0.0.1", "::1"};
	char host[256] = "";
	size_t n = 0;
	char **list = bt_calloc(spec->n_names + BT_ARRAY_LEN(always) + 1, sizeof *list);
	for (size_t i = 0; i < BT_ARRAY_LEN(always); i++)
		list[n++] = bt_strdup(always[i]);
	if (gethostname(host, sizeof host - 1) == 0 && host[0] && strcmp(host, "localhost") != 0)
		list[n++] = bt_strdup(host);
	for (size_t i = 0; i < spec->n_names; i++) {
		size_t k = 0;
		while (k < n && strcasecmp(list[k], spec->names[i]) != 0)
			k++;
		if (k == n)
			list[n++] = bt_strdup(spec->names[i]);
	}
	*ret = list;
	return n;
}

static void free_names(char **names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

static int put_token(
	struct bt_store *store, const char *name, const char *role, char **ret, struct bt_err *err)
{
	char hash[65];
	char *token = bt_token_new("bt_");
	struct bt_txn *t = bt_txn_new();
	bt_token_hash(token, hash);
	bt_txn_add(t, BT_SQL_TOKEN_ADD, hash, name, role, (const char *)NULL, bt_clock_wall_ms(),
		(int64_t)0);
	bt_server_audit(
		t, &(struct bt_audit){.who = "console", .what = "token create", .detail = name});
	int r = bt_store_commit_now(store, t, err);
	if (r < 0) {
		free(token);
		return r == BT_E_EXISTS
			       ? bt_err_set(err, BT_E_EXISTS,
					 "a token named '%s' exists: revoke it first", name)
			       : r;
	}
	*ret = token;
	return 0;
}

int bt_server_lock(const char *dir, int *ret_fd, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/server.lock", dir);
	int r = bt_fs_lock(path, ret_fd, err);
	if (r == BT_E_REFUSED)
		return bt_err_set(err, BT_E_REFUSED, "a baton server runs on %s already", dir);
	return r;
}

/* The store comes last: a directory that has it is whole. */
static int init_locked(
	const struct bt_server_spec *spec, char **ret_admin_token, struct bt_err *err)
{
	BT_FREE char *pki = bt_asprintf("%s/pki", spec->state_dir);
	BT_FREE char *artifacts = bt_asprintf("%s/artifacts", spec->state_dir);
	BT_FREE char *key = bt_asprintf("%s/secret.key", spec->state_dir);
	BT_FREE char *db = bt_asprintf("%s/baton.db", spec->state_dir);
	BT_FREE char *fresh = bt_asprintf("%s/baton.db.new", spec->state_dir);
	char **names = NULL;
	struct bt_store *store = NULL;
	if (bt_fs_exists(db))
		return bt_err_set(err, BT_E_EXISTS, "%s is set up already", spec->state_dir);
	size_t n = all_names(spec, &names);
	int r = bt_fs_remove_tree(pki, err); /* of a set-up that did not come to its end */
	if (r == 0)
		r = bt_fs_remove_tree(fresh, err);
	if (r == 0)
		r = bt_fs_mkdirs(pki, 0700, err);
	if (r == 0)
		r = bt_fs_mkdirs(artifacts, 0700, err);
	if (r == 0)
		r = bt_pki_init(pki, (const char *const *)names, n, err);
	if (r == 0)
		r = bt_secrets_make_key(key, err);
	if (r == 0)
		r = bt_store_open(&(struct bt_store_spec){.path = fresh}, &store, err);
	if (r == 0)
		r = put_token(store, "admin", "admin", ret_admin_token, err);
	bt_store_free(store); /* folds the WAL into the file */
	if (r == 0 && rename(fresh, db) < 0)
		r = bt_err_errno(err, errno, "rename %s", fresh);
	if (r == 0)
		r = bt_fs_fsync_parent(db, err);
	free_names(names, n);
	return r;
}

int bt_server_init(const struct bt_server_spec *spec, char **ret_admin_token, struct bt_err *err)
{
	BT_CLOSE int lock = -1;
	int r = bt_fs_mkdirs(spec->state_dir, 0700, err);
	if (r == 0)
		r = bt_server_lock(spec->state_dir, &lock, err);
	if (r == 0)
		r = init_locked(spec, ret_admin_token, err);
	return r < 0 ? bt_err_wrap(err, "set up %s", spec->state_dir) : 0;
}

int bt_server_new_token(const char *state_dir, const char *name, const char *role, char **ret_token,
	struct bt_err *err)
{
	BT_CLOSE int lock = -1;
	BT_FREE char *db = bt_asprintf("%s/baton.db", state_dir);
	struct bt_store *store = NULL;
	if (!bt_server_initialised(state_dir))
		return bt_err_set(
			err, BT_E_NOTFOUND, "%s is not set up: run baton server init", state_dir);
	int r = bt_role_parse(role, err);
	if (r < 0)
		return r;
	r = bt_server_lock(state_dir, &lock, err);
	if (r == 0)
		r = bt_store_open(&(struct bt_store_spec){.path = db}, &store, err);
	if (r == 0)
		r = put_token(store, name, role, ret_token, err);
	bt_store_free(store);
	return r;
}

/* ---- running ----------------------------------------------------------------------------- */

static bool is_loopback(const char *listen)
{
	return bt_str_starts(listen, "127.") || bt_str_starts(listen, "[::1]") ||
	       bt_str_starts(listen, "localhost:");
}

static int load_services(struct bt_server *s, struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	int r = bt_store_select(s->store, &rows, err, BT_SQL_SERVICES);
	size_t i;
	json_t *row;
	json_array_foreach (rows, i, row) {
		struct bt_svc *svc =
			bt_server_service_add(s, json_string_value(json_object_get(row, "name")));
		const char *config = json_string_value(json_object_get(row, "config"));
		svc->config = config ? json_loads(config, 0, NULL) : NULL;
		svc->live = (uint32_t)json_integer_value(json_object_get(row, "live_release"));
		svc->retire_at = json_integer_value(json_object_get(row, "retire_at"));
		svc->token = (uint64_t)json_integer_value(json_object_get(row, "token"));
		svc->locked_by = bt_strdup(json_string_value(json_object_get(row, "locked_by")));
	}
	return r;
}

static int load(struct bt_server *s, struct bt_err *err)
{
	BT_FREE char *db = bt_server_path(s, "baton.db");
	BT_FREE char *key = bt_server_path(s, "secret.key");
	if (!bt_fs_exists(db))
		return bt_err_set(err, BT_E_NOTFOUND, "%s is not set up: run baton server init",
			s->state_dir);
	int r = bt_secrets_load_key(key, s->key, err);
	if (r == 0)
		r = bt_store_open(
			&(struct bt_store_spec){.path = db, .base = s->base}, &s->store, err);
	if (r < 0)
		return r;
	s->work = bt_work_new(s->base, 2);
	s->next_cursor = bt_store_number(s->store, 0, BT_SQL_MAX_CURSOR) + 1;
	s->next_deployment = bt_store_number(s->store, 0, BT_SQL_MAX_DEPLOYMENT) + 1;
	s->next_release = bt_store_number(s->store, 0, BT_SQL_MAX_RELEASE) + 1;
	int64_t cursor = bt_restored_floor(s, "cursor_floor");
	int64_t release = bt_restored_floor(s, "release_floor");
	s->next_cursor = cursor > s->next_cursor ? cursor : s->next_cursor;
	s->next_release = release > s->next_release ? release : s->next_release;
	r = load_services(s, err);
	if (r == 0)
		r = bt_gate_load(s, err);
	return r == 0 ? bt_hosts_load(s, err) : r;
}

static int listen_people(struct bt_server *s, const struct bt_server_spec *spec, struct bt_err *err)
{
	const char *listen = spec->listen ? spec->listen : DEFAULT_LISTEN;
	s->plain = !spec->tls_cert;
	s->tls_files[0] = spec->tls_cert ? bt_strdup(spec->tls_cert) : NULL;
	s->tls_files[1] = spec->tls_key ? bt_strdup(spec->tls_key) : NULL;
	if (s->plain && !is_loopback(listen))
		return bt_err_set(err, BT_E_REFUSED,
			"listen %s: without TLS only loopback is allowed: give a certificate and "
			"its key, or listen on 127.0.0.1",
			listen);
	/* The gate compares names as Host has them: an IPv6 address in brackets. */
	const char **hosts = bt_calloc(s->n_names + 1, sizeof *hosts);
	for (size_t i = 0; i < s->n_names; i++)
		hosts[i] = strcmp(s->names[i], "::1") == 0 ? "[::1]" : s->names[i];
	struct bt_http_server_spec people = {
		.listen = listen,
		.cert_file = spec->tls_cert,
		.key_file = spec->tls_key,
		.routes = bt_people_routes,
		.n_routes = bt_people_routes_n,
		.arg = s,
		.authorize = bt_auth_people,
		.allowed_hosts = hosts,
		.n_allowed_hosts = s->n_names,
	};
	int r = bt_http_server_start(s->base, &people, &s->people, err);
	free(hosts);
	return r;
}

static int listen_agents(struct bt_server *s, const struct bt_server_spec *spec, struct bt_err *err)
{
	BT_FREE char *ca = bt_server_path(s, CA_FILE);
	BT_FREE char *cert = bt_server_path(s, "pki/server.pem");
	BT_FREE char *key = bt_server_path(s, "pki/server.key");
	struct bt_http_server_spec agents = {
		.listen = spec->agents_listen ? spec->agents_listen : DEFAULT_AGENTS,
		.cert_file = cert,
		.key_file = key,
		.client_ca_file = ca,
		.routes = bt_agent_routes,
		.n_routes = bt_agent_routes_n,
		.arg = s,
		.authorize = bt_auth_agent,
	};
	return bt_http_server_start(s->base, &agents, &s->agents, err);
}

static char *url_of(const char *scheme, const char *listen, uint16_t port)
{
	const char *colon = strrchr(listen, ':');
	BT_FREE char *host = bt_strndup(listen, colon ? (size_t)(colon - listen) : strlen(listen));
	bool any = bt_streq(host, "0.0.0.0") || bt_streq(host, "[::]") || !*host;
	return bt_asprintf("%s://%s:%u", scheme, any ? "127.0.0.1" : host, (unsigned)port);
}

static int start(struct bt_server *s, const struct bt_server_spec *spec, struct bt_err *err)
{
	int r = bt_server_lock(s->state_dir, &s->lock_fd, err);
	if (r == 0)
		r = load(s, err);
	if (r == 0)
		r = listen_people(s, spec, err);
	if (r == 0)
		r = listen_agents(s, spec, err);
	if (r == 0)
		r = bt_restored_begin(s, err);
	if (r == 0)
		r = bt_runs_resume(s, err);
	if (r == 0)
		r = bt_housekeeping_start(s, err);
	if (r < 0)
		return r;
	s->url = url_of(s->plain ? "http" : "https", spec->listen ? spec->listen : DEFAULT_LISTEN,
		bt_http_server_port(s->people));
	s->agents_url = url_of("https", spec->agents_listen ? spec->agents_listen : DEFAULT_AGENTS,
		bt_http_server_port(s->agents));
	bt_log(NULL, BT_LOG_INFO, "server %s on %s, agents on %s, store %s", bt_version, s->url,
		s->agents_url, bt_store_id(s->store));
	return 0;
}

int bt_server_run(struct event_base *base, const struct bt_server_spec *spec,
	struct bt_server **ret, struct bt_err *err)
{
	struct bt_server *s = bt_calloc(1, sizeof *s);
	s->base = base;
	s->lock_fd = -1;
	s->state_dir = bt_strdup(spec->state_dir);
	s->started_boot_ms = bt_clock_boot_ms();
	s->n_names = all_names(spec, &s->names);
	s->keep_runs = spec->keep_runs ? spec->keep_runs : 1000;
	s->keep_for_ms = spec->keep_for_ms ? spec->keep_for_ms : 180 * (int64_t)86400000;
	int r = start(s, spec, err);
	if (r < 0) {
		bt_server_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

static void free_services(struct bt_server *s)
{
	while (s->services) {
		struct bt_svc *svc = s->services;
		s->services = svc->next;
		json_decref(svc->config);
		free(svc->locked_by);
		free(svc->name);
		free(svc);
	}
}

struct bt_server *bt_server_free(struct bt_server *s)
{
	if (!s)
		return NULL;
	if (s->tick)
		event_free(s->tick);
	s->stopping = true;
	if (s->store)
		bt_store_finish(s->store); /* its callbacks may still give files to write */
	if (s->work)
		bt_work_free(s->work);
	bt_runs_free(s); /* who waits for an answer gets one, */
	bt_planning_free(s);
	bt_tasks_free(s);
	bt_restored_free(s);
	bt_upgrades_free(s);
	bt_http_server_free(s->agents); /* the others hear the line go dead */
	bt_http_server_free(s->people);
	free(s->tls_files[0]);
	free(s->tls_files[1]);
	bt_api_logs_free(s);
	bt_api_uploads_free(s);
	bt_logins_free(s);
	bt_store_free(s->store);
	bt_asks_drop(s);
	bt_streams_free(s);
	bt_hosts_free(s);
	bt_metrics_free(s);
	bt_gate_free(s);
	free_services(s);
	explicit_bzero(s->key, sizeof s->key);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	free_names(s->names, s->n_names);
	free(s->state_dir);
	free(s->url);
	free(s->agents_url);
	free(s);
	return NULL;
}

const char *bt_server_url(const struct bt_server *s)
{
	return s->url;
}

const char *bt_server_agents_url(const struct bt_server *s)
{
	return s->agents_url;
}

int bt_server_sign_agent(struct bt_server *s, const char *host, const char *csr_pem,
	char **ret_cert_pem, char **ret_ca_pem, struct bt_err *err)
{
	char serial[65];
	int64_t not_after = 0, now = bt_clock_wall_ms();
	BT_FREE char *pki = bt_server_path(s, "pki");
	BT_FREE char *ca_path = bt_server_path(s, CA_FILE);
	BT_FREE char *cert = NULL, *ca = NULL;
	int r = bt_fs_read(ca_path, 65536, &ca, NULL, err);
	if (r == 0)
		r = bt_pki_sign(pki, csr_pem, host, BT_CERT_DAYS, &cert, serial, &not_after, err);
	if (r < 0)
		return r;
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_HOST_PUT, host, now);
	bt_txn_add(t, BT_SQL_HOST_WELCOME, host);
	bt_txn_add(t, BT_SQL_CERT_DROP_ALL, host, now);
	bt_txn_add(t, BT_SQL_CERT_ADD, serial, host, not_after, now);
	bt_server_audit(t, &(struct bt_audit){.who = "console", .what = "join", .detail = host});
	r = bt_store_commit_now(s->store, t, err);
	if (r < 0)
		return r;
	bt_host_add(s, host)->revoked = false;
	*ret_cert_pem = BT_STEAL(cert);
	*ret_ca_pem = BT_STEAL(ca);
	return 0;
}
