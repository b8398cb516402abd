/* The server as the command line sees it: set it up once, run it on a loop, stop it.
 *
 * One state directory holds everything:
 *     baton.db            the store (SQLite, WAL)      secret.key   encrypts env_secrets (0600)
 *     pki/                CA and the agents' listener's certificate (net/pki.h)
 *     artifacts/          by digest; *.part while they come
 *     runs/ID/            task logs of deployment ID
 *     server.lock         held while a server runs on this directory
 * Two listeners: people (bearer token or cookie; plain HTTP on loopback only) and agents (TLS, the
 * client certificate names the host). */
#pragma once
#include "base/err.h"
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

struct bt_server_spec {
	const char *state_dir;
	const char *listen;		/* people; NULL: "127.0.0.1:7070"; port 0: any free one */
	const char *agents_listen;	/* NULL: "0.0.0.0:7071" (`up` gives "127.0.0.1:7071") */
	const char *tls_cert, *tls_key; /* people's listener; NULL: plain, then loopback only */
	/* DNS names and IPs under which agents and people reach this server; localhost, 127.0.0.1,
	 * ::1 and the machine's name are always added. For the certificate and the Host check. */
	const char *const *names;
	size_t n_names;
	/* Ended runs that are kept of each service, and how long; 0: 1,000 and 180 days. */
	int64_t keep_runs, keep_for_ms;
};

struct bt_server;

/* True where bt_server_init was done before in this directory. */
bool bt_server_initialised(const char *state_dir);
/* Makes the directory, CA, key file, store and the first admin token, which is returned once and
 * only here (the caller prints and frees it). BT_E_EXISTS when it was done before. */
int bt_server_init(const struct bt_server_spec *spec, char **ret_admin_token, struct bt_err *err);
/* Opens the store (migrating it after a backup), takes over unended runs and listens.
 * BT_E_REFUSED: another server runs on this directory, or a plain listener is not on loopback. */
int bt_server_run(struct event_base *base, const struct bt_server_spec *spec,
	struct bt_server **ret, struct bt_err *err);
struct bt_server *bt_server_free(struct bt_server *s); /* NULL is fine; returns NULL */

/* "http://127.0.0.1:7070" and "https://127.0.0.1:7071"; owned by the server. */
/* An address that logs one browser in as the holder of this token, once, within ten minutes; for
 * the person at this terminal alone. The caller frees it. */
char *bt_server_login_link(struct bt_server *s, const char *token);
const char *bt_server_url(const struct bt_server *s);
const char *bt_server_agents_url(const struct bt_server *s);

/* For `up`: signs the local agent's CSR (agent/agent.h makes it and places what comes back), and
 * welcomes the host. Older certificates of it are dropped. The caller frees both texts. */
int bt_server_sign_agent(struct bt_server *s, const char *host, const char *csr_pem,
	char **ret_cert_pem, char **ret_ca_pem, struct bt_err *err);
/* A new admin token, for `up` on a directory that was set up before and `baton server token`
 * (run beside a stopped server); the caller frees it. */
int bt_server_new_token(const char *state_dir, const char *name, const char *role, char **ret_token,
	struct bt_err *err);
