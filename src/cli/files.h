/* What the client reads from the caller's disk: baton.yaml, the artifact, secrets. */
#pragma once
#include "base/json.h"
#include "cli/cli.h"
#include "config/config.h"

/* The files of --file (or args, for lint), or ./baton.yaml; with --env only that environment's
 * services. Every problem goes to standard error, a
 * line each; then BT_E_CONFIG with their number. */
int bt_files_config(const struct bt_cli *cli, struct bt_config **ret, struct bt_err *err);
/* Whether a config is at hand: --file was given, or ./baton.yaml is there. */
bool bt_files_at_hand(const struct bt_cli *cli);
/* The service that the first argument names, or the only one. */
int bt_files_service(const struct bt_cli *cli, const struct bt_config *c,
	const struct bt_service **ret, struct bt_err *err);
/* The first argument, as SERVICE@ENVIRONMENT where --env was given; NULL where there is none. The
 * caller frees. */
char *bt_files_name(const struct bt_cli *cli);
/* Values of run.secrets from the environment; BT_E_CONFIG names all that are missing, unless the
 * server may keep the last release's. */
int bt_files_secrets(const struct bt_service *s, bool keep, json_t **ret, struct bt_err *err);

/* {"to": base64} of every file of `files:`. Every problem goes to standard error, a line each; then
 * BT_E_CONFIG with their number. */
int bt_files_contents(const struct bt_service *s, json_t **ret, struct bt_err *err);
/* A path that the config names relative to itself; the caller frees. *ret_n_dir (may be NULL): how
 * much of it is the config's directory. */
char *bt_files_beside(const struct bt_service *s, const char *path, size_t *ret_n_dir);

struct bt_artifact {
	char *path;
	const char *file_name; /* in path */
	int64_t size;
	char digest[65];
	char *made; /* a directory that ends with it; NULL */
};
void bt_artifact_done(struct bt_artifact *a);
/* What --appspec says, in a copy of the service where it differs; BT_E_CONFIG where --bundle or
 * --appspec do not fit it. `a` is the config's arena. */
int bt_files_bundle_options(const struct bt_cli *cli, struct bt_arena *a,
	const struct bt_service **service, struct bt_err *err);
/* Found (the one match of a pattern) and checked: a readable file that is not empty; then hashed.
 */
int bt_files_artifact(const struct bt_cli *cli, const struct bt_service *s, struct bt_artifact *ret,
	struct bt_err *err);
