/* A copy of a store that others are writing to: one read transaction, so it is as the store was at
 * one instant between two commits. */
#include "base/fs.h"
#include "base/str.h"
#include "journal/store.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

int bt_store_copy(const char *path, const char *to, struct bt_err *err)
{
	sqlite3 *db = NULL;
	/* Made here with the right mode: VACUUM INTO fills an empty file. */
	BT_CLOSE int fd = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return bt_err_errno(err, errno, "%s", to);
	int rc = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);
	if (rc == SQLITE_OK) {
		sqlite3_busy_timeout(db, 5000);
		char *sql = sqlite3_mprintf("VACUUM INTO %Q", to);
		rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
		sqlite3_free(sql);
	}
	int r = rc == SQLITE_OK ? 0
				: bt_err_set(err, BT_E_STORE, "copy %s: %s", path,
					  db ? sqlite3_errmsg(db) : "no memory");
	sqlite3_close(db);
	if (r == 0 && fsync(fd) < 0)
		r = bt_err_errno(err, errno, "sync %s", to);
	return r;
}
