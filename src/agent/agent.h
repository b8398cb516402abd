/* The agent: one per host. It dials out to the server, runs tasks through the drivers, remembers
 * what it did in its ledger, and goes on serving when the server is away.
 *
 * Its state directory holds
 *     agent.json   server, host, address        ca.pem     whom it trusts
 *     agent.pem    its key and certificate, one file so that both change in one rename (0600)
 *     ledger       what was accepted, begun and done (append-only, each line checked)
 *     services/    what it was told of each service    desired/   what should run here
 *     results/     logs of tasks whose result the server has not acknowledged
 *     releases/ instances/ balancers/ logs/     the drivers' own
 *     lock         held while an agent runs on it */
#pragma once
#include "base/err.h"
#include "base/loop.h"

#define BT_AGENT_POLICY_FILE "/etc/baton/policy.yaml"

struct bt_agent_spec {
	const char *state_dir;	/* must exist and hold what join (or place) wrote */
	const char *server_url; /* agents' listener, "https://deploy:7071"; NULL: from agent.json */
	const char *host;	/* NULL: from agent.json */
	const char *address;	/* as other hosts reach this one; NULL: from agent.json */
	const char *policy_file; /* NULL: BT_AGENT_POLICY_FILE, whose absence means the defaults; a
				    file that is given must exist */
	const char *shim_path;	 /* the shim's executable; NULL: beside this binary */
	const char *self_path;	 /* this binary, for helper children; NULL: /proc/self/exe */
	bool is_process;	 /* the whole process is this agent: it may become a newer one */
	bool own_machine; /* `baton up`: the caller's own user, paths and exec checks are allowed */
};

/* What `baton agent` does: own loop, until SIGTERM or SIGINT (then 0). */
int bt_agent_main(const struct bt_agent_spec *spec, struct bt_err *err);

/* What `baton agent join URL --token T` does; blocks on a loop of its own. Makes a key and a CSR,
 * trusts only the CA whose fingerprint the token carries, and writes agent.pem, ca.pem and
 * agent.json; agent.json comes last, so a directory that has it is whole. host NULL: this
 * machine's name up to the first dot; it must be the one the token was made for. address NULL:
 * this host's own address on the way to the server. A directory that is joined is BT_E_EXISTS. */
int bt_agent_join(const char *url, const char *token, const char *dir, const char *host,
	const char *address, struct bt_err *err);

/* The same without a network, for `baton up`: make the CSR with bt_agent_csr (its key stays in
 * dir), sign it with bt_pki_sign, and place it. Placing again replaces the old identity. */
int bt_agent_csr(const char *dir, const char *host, char **ret_csr_pem, struct bt_err *err);
int bt_agent_place(const char *dir, const char *server_url, const char *host, const char *address,
	const char *cert_pem, const char *ca_pem, struct bt_err *err);
bool bt_agent_is_joined(const char *dir);
