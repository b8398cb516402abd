/* The link to the server: hello, long poll, results until they are acknowledged, progress,
 * observations, answers to asks. Everything is started by the agent; losing the server changes
 * nothing on the host, and the link tries again with growing, jittered pauses. */
#pragma once
#include "agent/exec.h"
#include "base/log.h"
#include "net/http_client.h"

struct bt_upgrade;
struct bt_link_env {
	const struct bt_exec_env *exec; /* base, drivers, known, ledger … */
	struct bt_http_client *http;
	const char *server_url; /* without a slash at its end */
	const struct bt_tls_identity *tls;
	const char *state_dir, *host, *address, *version;
	const struct bt_log *log;
	/* The new program is there: take it over and end the loop. NULL: it may not be replaced. */
	void (*on_upgrade)(void *arg, struct bt_upgrade *u);
	void *on_upgrade_arg;
};
struct bt_link;
struct bt_link *bt_link_new(const struct bt_link_env *env);
void bt_link_start(struct bt_link *l, struct bt_exec *exec);
struct bt_link *bt_link_free(struct bt_link *l); /* NULL is fine; returns NULL */

/* What the executor tells (arg is the link). */
void bt_link_on_accepted(void *link, uint64_t seq);
void bt_link_on_result(void *link, const struct bt_command_key *key);
void bt_link_on_refused(void *link, const struct bt_result *result);
void bt_link_on_progress(void *link, const struct bt_command_key *key, const char *line);
void bt_link_on_changed(void *link);
