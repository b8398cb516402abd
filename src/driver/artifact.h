/* Inside the artifact driver: where releases lie, and how one gets there.
 *
 *   releases/<service>/.part-<digest>   what was downloaded so far
 *   releases/<service>/.new-<id>        a release in the making
 *   releases/<service>/.old-<id>        one that is being removed
 *   releases/<service>/<id>/            whole: it came by one rename
 *       release.json                    the server's description
 *       .baton.json                     version, digest, artifact's name
 *       shop.jar, or app/               the artifact, or what it unpacked to
 *       …                               beside it, or within app/: the release's further files
 *   releases/<service>/current          → <id> */
#pragma once
#include "driver/driver.h"

#define BT_RELEASE_ABOUT ".baton.json"
#define BT_RELEASE_TREE "app" /* what an archive is unpacked to */
#define BT_UNPACK_MAX_ENTRIES 500000

char *bt_release_root(const struct bt_driver_env *env, const char *service); /* caller frees */
/* service, file name and digest are what they may be: nothing that leaves the directory. */
int bt_release_check_names(const struct bt_fetch_request *rq, struct bt_err *err);

/* Writes the files below dir, the directories on their way, too. Links are not followed; a file of
 * the artifact makes way, but the artifact itself and what is ours (`taken`, a file's name) do not.
 * The caller syncs. Blocks. */
int bt_release_write_files(
	const char *dir, const char *taken, const struct bt_fetch_request *rq, struct bt_err *err);

/* Where another release of the service is the same single file: copies it to `part`, as though it
 * had been fetched. One that is not what it was is no source. Best effort. Blocks. */
void bt_release_reuse(const char *root, const char *digest, const char *part);
/* A copy at `to`, which is new; the blocks are shared where the file system can. Blocks. */
bool bt_release_copy(const char *from, const char *to);

/* The download: to an open part file, resumed where it is, retried while it makes progress. */
struct bt_fetch;
struct bt_fetch_spec {
	const struct bt_driver_env *env;
	const char *url; /* copied */
	int fd;		 /* of the part; the caller's */
	int64_t size;	 /* expected */
	bt_progress_fn progress;
	void *progress_arg;
	void (*done)(void *arg, int result, const struct bt_err *err);
	void *arg;
};
struct bt_fetch *bt_fetch_start(const struct bt_fetch_spec *spec); /* never calls done itself */
struct bt_fetch *bt_fetch_cancel(struct bt_fetch *f);		   /* NULL is fine */
