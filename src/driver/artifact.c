/* Placing a release: room checked, fetched once, digest checked, unpacked by a sandboxed child,
 * made durable, renamed into place. Until that rename nothing of it can be found, and what a crash
 * leaves is continued (the part) or begun anew (the rest).
 *
 *   prepare, reuse (thread) → fetch (loop) → check (thread) → unpack (child) → place (thread) */
#include "driver/artifact.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "driver/op.h"
#include "driver/zip_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define UNPACK_TIMEOUT_MS (20 * 60 * 1000)
#define UNPACK_MAX_BYTES ((int64_t)64 << 30)
/* Unpacked trees are guessed at this many times their archive before it is read; what an archive
 * really takes is bounded by the free space while it is unpacked. */
#define UNPACK_GUESS 2

struct place {
	struct bt_op op; /* first */
	const struct bt_driver_env *env;
	struct bt_arena *arena;
	struct bt_fetch_request rq; /* strings in the arena */
	const char *root, *part, *made, *dir, *tree;
	int part_fd;
	int64_t room; /* free bytes beyond those to be kept */
	bt_progress_fn progress;
	bt_done_fn done; /* NULL: cancelled */
	void *progress_arg, *arg;
	bool there, on_thread;
	void (*after)(struct place *p); /* the thread's work */
	struct bt_fetch *fetch;
	struct bt_child *child;
	struct event *later;
	int result;
	struct bt_err err;
};

static void place_free(struct place *p)
{
	bt_fetch_cancel(p->fetch);
	bt_child_cancel(p->child);
	if (p->later)
		event_free(p->later);
	if (p->part_fd >= 0)
		close(p->part_fd);
	bt_arena_free(p->arena);
	free(p);
}

/* A thread that is at work is let to its end; nobody hears of it. */
static void place_cancel(struct bt_op *op)
{
	struct place *p = (struct place *)op;
	p->done = NULL;
	if (!p->on_thread)
		place_free(p);
}

static void end(struct place *p, int result, const struct bt_err *err)
{
	bt_done_fn done = p->done;
	void *arg = p->arg;
	struct bt_err copy = err ? *err : (struct bt_err){0};
	if (result < 0)
		bt_err_wrap(&copy, "release %u of %s", p->rq.release, p->rq.service);
	place_free(p);
	done(arg, result, result < 0 ? &copy : NULL);
}

static void say(const struct place *p, const char *line)
{
	if (p->progress)
		p->progress(p->progress_arg, line);
}

/* ---- threads ----------------------------------------------------------------------------- */

struct job {
	struct place *p;
	int (*run)(struct place *p, struct bt_err *err);
};

static void job_run(void *arg)
{
	struct job *j = arg;
	j->p->result = j->run(j->p, &j->p->err);
}

static void job_done(void *arg)
{
	struct job *j = arg;
	struct place *p = j->p;
	free(j);
	p->on_thread = false;
	if (!p->done)
		place_free(p);
	else if (p->result < 0)
		end(p, p->result, &p->err);
	else
		p->after(p);
}

static void on_thread(struct place *p, int (*run)(struct place *p, struct bt_err *err),
	void (*after)(struct place *p))
{
	struct job *j = bt_calloc(1, sizeof *j);
	j->p = p;
	j->run = run;
	p->after = after;
	p->on_thread = true;
	bt_work_submit(p->env->work, job_run, job_done, j);
}

/* ---- prepare ------------------------------------------------------------------------------ */

static int check_room(struct place *p, int64_t have, struct bt_err *err)
{
	char need_text[32], free_text[32], keep_text[32];
	int64_t free_bytes;
	int r = bt_fs_free_bytes(p->root, &free_bytes, err);
	if (r < 0)
		return r;
	int64_t need = p->rq.size - have + (p->rq.unpack ? UNPACK_GUESS * p->rq.size : 0);
	p->room = free_bytes - p->rq.keep_free_bytes - (p->rq.size - have);
	if (need <= free_bytes - p->rq.keep_free_bytes)
		return 0;
	return bt_err_set(err, -ENOSPC,
		"it needs %s, and %s has %s free, of which %s are to be kept: make room, or keep "
		"fewer releases (deploy.keep)",
		bt_size_format(need, need_text), p->root, bt_size_format(free_bytes, free_text),
		bt_size_format(p->rq.keep_free_bytes, keep_text));
}

/* Whether the release is there: 1; 0 not; BT_E_EXISTS when it is of another artifact. */
static int look(struct place *p, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/%s", p->dir, BT_RELEASE_ABOUT);
	BT_FREE char *text = NULL;
	BT_JSON json_t *about = NULL;
	const char *digest;
	size_t n;
	if (!bt_fs_exists(path))
		return 0;
	int r = bt_fs_read(path, 65536, &text, &n, err);
	if (r == 0)
		r = bt_json_parse(text, n, 65536, &about, err);
	if (r == 0)
		r = bt_json_str(about, "digest", &digest, err);
	if (r < 0)
		return r;
	if (!bt_streq(digest, p->rq.digest))
		return bt_err_set(err, BT_E_EXISTS,
			"it is on this host with another artifact (%.12s…, not %.12s…)", digest,
			p->rq.digest);
	return 1;
}

/* Whatever the agent's umask: an instance may run as another user (run.user). */
static int make_open_dir(const char *path, struct bt_err *err)
{
	int r = bt_fs_mkdirs(path, 0755, err);
	if (r == 0 && chmod(path, 0755) < 0)
		r = bt_err_errno(err, errno, "make directory %s", path);
	return r;
}

static int prepare(struct place *p, struct bt_err *err)
{
	struct stat st;
	BT_FREE char *all = bt_strndup(p->root, (size_t)(strrchr(p->root, '/') - p->root));
	int r = make_open_dir(all, err);
	if (r == 0)
		r = make_open_dir(p->root, err);
	if (r == 0)
		r = look(p, err);
	if (r != 0) {
		p->there = r > 0;
		return r < 0 ? r : 0;
	}
	r = bt_fs_remove_tree(p->made, err);
	if (r < 0)
		return r;
	if (p->rq.local)
		unlink(p->part);
	bool is_new = !bt_fs_exists(p->part);
	if (p->rq.local && !bt_release_copy(p->rq.local, p->part)) {
		unlink(p->part);
		return bt_err_set(err, BT_E_FAILED, "%s cannot be copied", p->rq.local);
	}
	if (is_new && !p->rq.local)
		bt_release_reuse(p->root, p->rq.digest, p->part);
	p->part_fd = open(p->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (p->part_fd < 0 || fstat(p->part_fd, &st) < 0)
		return bt_err_errno(err, errno, "write %s", p->part);
	if (flock(p->part_fd, LOCK_EX | LOCK_NB) < 0)
		return bt_err_set(err, BT_E_REFUSED, "the same artifact is being fetched already");
	r = check_room(p, st.st_size < p->rq.size ? st.st_size : p->rq.size, err);
	if (r < 0 && is_new)
		unlink(p->part);
	return r;
}

/* ---- check -------------------------------------------------------------------------------- */

static int check(struct place *p, struct bt_err *err)
{
	char digest[65];
	int64_t size;
	if (fsync(p->part_fd) < 0)
		return bt_err_errno(err, errno, "write %s", p->part);
	int r = bt_fs_sha256(p->part, digest, &size, err);
	if (r < 0)
		return r;
	if (size != p->rq.size || !bt_streq(digest, p->rq.digest)) {
		unlink(p->part); /* it would be the same the next time */
		return bt_err_set(err, BT_E_CORRUPT,
			"what came is not what was sent: %lld bytes with SHA-256 %.12s…, expected "
			"%lld with %.12s…; deploy again",
			(long long)size, digest, (long long)p->rq.size, p->rq.digest);
	}
	r = p->rq.zip && !p->rq.unpack ? bt_zip_check_fd(p->part_fd, err) : 0;
	if (r < 0) {
		unlink(p->part);
		return bt_err_wrap(err, "%s is no WAR", p->rq.file_name);
	}
	r = make_open_dir(p->made, err);
	return r == 0 && p->rq.unpack ? make_open_dir(p->tree, err) : r;
}

/* ---- place -------------------------------------------------------------------------------- */

static int write_about(struct place *p, struct bt_err *err)
{
	BT_JSON json_t *about = json_pack("{s:s, s:s, s:s}", "version", p->rq.version, "digest",
		p->rq.digest, "artifact", p->rq.unpack ? BT_RELEASE_TREE : p->rq.file_name);
	BT_FREE char *text = bt_json_dump(about);
	BT_FREE char *about_path = bt_asprintf("%s/%s", p->made, BT_RELEASE_ABOUT);
	BT_FREE char *json_path = bt_asprintf("%s/release.json", p->made);
	int r = bt_fs_write_atomic(
		json_path, p->rq.release_json, strlen(p->rq.release_json), 0600, err);
	return r < 0 ? r : bt_fs_write_atomic(about_path, text, strlen(text), 0644, err);
}

static int move_part(struct place *p, struct bt_err *err)
{
	BT_FREE char *to = bt_asprintf("%s/%s", p->made, p->rq.file_name);
	if (fchmod(p->part_fd, 0755) < 0 || rename(p->part, to) < 0)
		return bt_err_errno(err, errno, "place %s", to);
	return 0;
}

/* One sync for a whole tree: thousands of fsyncs would take minutes. */
static int sync_tree(struct place *p, struct bt_err *err)
{
	BT_CLOSE int fd = open(p->made, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || syncfs(fd) < 0)
		return bt_err_errno(err, errno, "sync %s", p->made);
	return 0;
}

static int place(struct place *p, struct bt_err *err)
{
	int r = p->rq.unpack ? 0 : move_part(p, err);
	if (r == 0)
		r = bt_release_write_files(p->rq.unpack ? p->tree : p->made,
			p->rq.unpack ? NULL : p->rq.file_name, &p->rq, err);
	if (r == 0)
		r = write_about(p, err);
	if (r == 0)
		r = sync_tree(p, err);
	if (r == 0 && rename(p->made, p->dir) < 0)
		r = bt_err_errno(err, errno, "place %s", p->dir);
	if (r == 0)
		r = bt_fs_fsync_dir(p->root, err);
	if (r < 0)
		bt_fs_remove_tree(p->made, NULL);
	else if (p->rq.unpack)
		unlink(p->part);
	return r;
}

/* ---- from step to step ---------------------------------------------------------------------- */

static int remove_made(struct place *p, struct bt_err *err)
{
	struct bt_err why = p->err;
	/* The archive's digest is right, so it would be refused again; and it may be what fills the
	 * disk. */
	bt_fs_remove_tree(p->made, NULL);
	unlink(p->part);
	*err = why;
	return why.code;
}

static void after_place(struct place *p)
{
	end(p, 0, NULL);
}

static void on_unpacked(void *arg, const struct bt_child_result *r)
{
	struct place *p = arg;
	char why[1200];
	p->child = NULL;
	if (r->exit_code == 0) {
		on_thread(p, place, after_place);
		return;
	}
	if (r->exit_code == 1 && r->output_len > 0)
		snprintf(why, sizeof why, "%.*s", (int)strcspn(r->output, "\n"), r->output);
	else
		bt_child_describe(r, why, sizeof why);
	bt_err_set(&p->err, BT_E_FAILED, "unpack %s: %s", p->rq.file_name, why);
	on_thread(p, remove_made, after_place); /* and ends with p->err */
}

static char *unpack_program(const struct bt_driver_env *env)
{
	const char *slash = strrchr(env->shim_path, '/');
	return bt_asprintf("%.*s/baton-unpack", slash ? (int)(slash - env->shim_path) : 1,
		slash ? env->shim_path : ".");
}

static void after_check(struct place *p)
{
	char bytes[32], entries[32];
	BT_FREE char *program = unpack_program(p->env);
	if (!p->rq.unpack) {
		on_thread(p, place, after_place);
		return;
	}
	int64_t limit = p->room < UNPACK_MAX_BYTES ? p->room : UNPACK_MAX_BYTES;
	snprintf(bytes, sizeof bytes, "%lld", (long long)limit);
	snprintf(entries, sizeof entries, "%d", BT_UNPACK_MAX_ENTRIES);
	const char *const argv[] = {program, p->part, p->tree, bytes, entries, NULL};
	static const char *const envp[] = {"LC_ALL=C.UTF-8", NULL};
	struct bt_child_spec spec = {.argv = argv,
		.envp = envp,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.timeout_ms = UNPACK_TIMEOUT_MS};
	say(p, "unpacking");
	if (bt_child_start(p->env->base, &spec, on_unpacked, p, &p->child, &p->err) < 0)
		on_thread(p, remove_made, after_place);
}

static int drop_part_when_full(struct place *p, struct bt_err *err)
{
	struct bt_err why = p->err;
	/* What fills the disk is given back; after any other failure the part is continued. */
	if (why.code == -ENOSPC || why.code == -EDQUOT || why.code == BT_E_CORRUPT)
		unlink(p->part);
	*err = why;
	return why.code;
}

static void on_fetched(void *arg, int result, const struct bt_err *err)
{
	struct place *p = arg;
	p->fetch = NULL;
	if (result < 0) {
		p->err = *err;
		on_thread(p, drop_part_when_full, after_place);
		return;
	}
	on_thread(p, check, after_check);
}

static void after_prepare(struct place *p)
{
	if (p->there) {
		end(p, 0, NULL);
		return;
	}
	if (p->rq.local) {
		on_thread(p, check, after_check);
		return;
	}
	struct bt_fetch_spec spec = {.env = p->env,
		.url = p->rq.url,
		.fd = p->part_fd,
		.size = p->rq.size,
		.progress = p->progress,
		.progress_arg = p->progress_arg,
		.done = on_fetched,
		.arg = p};
	p->fetch = bt_fetch_start(&spec);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct place *p = arg;
	(void)fd;
	(void)what;
	if (p->result < 0)
		end(p, p->result, &p->err);
	else
		on_thread(p, prepare, after_prepare);
}

static void copy_request(struct place *p, const struct bt_fetch_request *rq)
{
	struct bt_arena *a = p->arena;
	p->rq = *rq;
	p->rq.service = bt_arena_strdup(a, rq->service ? rq->service : "");
	p->rq.version = bt_arena_strdup(a, rq->version ? rq->version : "");
	p->rq.digest = bt_arena_strdup(a, rq->digest);
	p->rq.file_name = bt_arena_strdup(a, rq->file_name);
	p->rq.release_json = bt_arena_strdup(a, rq->release_json ? rq->release_json : "{}");
	p->rq.url = bt_arena_strdup(a, rq->url);
	p->rq.local = bt_arena_strdup(a, rq->local);
	p->rq.owner = bt_arena_strdup(a, rq->owner);
	struct bt_placed_file *files = BT_ARENA_ARRAY(a, struct bt_placed_file, rq->n_files + 1);
	for (size_t i = 0; i < rq->n_files; i++) {
		files[i] = rq->files[i];
		files[i].path = bt_arena_strdup(a, rq->files[i].path);
		files[i].data = bt_arena_memdup(a, rq->files[i].data, rq->files[i].n);
	}
	p->rq.files = files;
}

struct bt_op *bt_artifact_place(const struct bt_driver_env *env, const struct bt_fetch_request *rq,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	struct place *p = bt_calloc(1, sizeof *p);
	p->op.cancel = place_cancel;
	p->env = env;
	p->arena = bt_arena_new();
	p->part_fd = -1;
	p->progress = progress;
	p->progress_arg = progress_arg;
	p->done = done;
	p->arg = arg;
	copy_request(p, rq);
	p->result = bt_release_check_names(&p->rq, &p->err);
	BT_FREE char *root = bt_release_root(env, p->rq.service);
	p->root = bt_arena_strdup(p->arena, root);
	p->part = bt_arena_printf(p->arena, "%s/.part-%s", root, p->rq.digest);
	p->made = bt_arena_printf(p->arena, "%s/.new-%u", root, p->rq.release);
	p->dir = bt_arena_printf(p->arena, "%s/%u", root, p->rq.release);
	p->tree = bt_arena_printf(p->arena, "%s/%s", p->made, BT_RELEASE_TREE);
	p->later = event_new(env->base, -1, 0, on_later, p);
	bt_timer_in(p->later, 0);
	return &p->op;
}
