/* A server's state in one file, and back. Beside a running server, by its files alone: what is in
 * it (the authority's key, the key of the secrets) never crosses the network.
 *
 * The file is a tar: manifest.json first (what follows, each with size and SHA-256), then baton.db
 * (one consistent copy), secret.key, pki/…, artifacts/DIGEST…. Logs of tasks are not in it. */
#pragma once
#include "base/err.h"
#include <stdint.h>

struct bt_backup_stats {
	char store_id[40]; /* of the store that was copied; restore: of the new one */
	char made_at[32];
	size_t artifacts;
	int64_t bytes;
	char *replaced; /* restore: where what was there lies now; NULL: nothing was. Caller frees
			 */
};
/* Replaces `file` as a whole or not at all; 0600. */
int bt_server_backup(const char *state_dir, const char *file, bool artifacts,
	struct bt_backup_stats *ret, struct bt_err *err);
/* Into a directory where no server runs (BT_E_REFUSED); every byte is checked before anything that
 * is there is touched. The store gets a new id, and tokens above all that agents
 * may have seen; runs that were under way are settled at the server's next start (restored.c). */
int bt_server_restore(
	const char *file, const char *state_dir, struct bt_backup_stats *ret, struct bt_err *err);
