#include "agent/upgrade_priv.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "driver/artifact.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES (256 << 20)
#define OWNER_TIMEOUT_MS 20000

struct file {
	const char *name;
	char *place, *aside, digest[65];
	int64_t size;
	int fd;
};

struct bt_upgrade {
	struct bt_upgrade_env env;
	struct file files[BT_UPGRADE_FILES];
	size_t n, at;
	size_t owner; /* the package manager that is asked next */
	char *self, *version;
	struct bt_child *child;
	struct bt_fetch *fetch;
	struct event *later;
	struct bt_err err;
	bt_done_fn done;
	void *arg;
};

static void end(struct bt_upgrade *u, int result)
{
	bt_done_fn done = u->done;
	u->done = NULL;
	if (done)
		done(u->arg, result, &u->err);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct bt_upgrade *u = arg;
	(void)fd;
	(void)what;
	end(u, u->err.code);
}

static void fail_later(struct bt_upgrade *u)
{
	bt_timer_in(u->later, 0);
}

/* ---- may it, can it ------------------------------------------------------------------------- */

static char *place_of(const struct bt_upgrade_env *env, const char *name)
{
	const char *slash = strrchr(env->shim_path, '/');
	if (bt_streq(name, "baton"))
		return bt_strdup(env->self_path);
	return bt_asprintf("%.*s/%s", slash ? (int)(slash - env->shim_path) : 1,
		slash ? env->shim_path : ".", name);
}

static int read_file(struct bt_upgrade *u, const json_t *j, struct bt_err *err)
{
	static const char *const names[BT_UPGRADE_FILES] = {"baton-shim", "baton-unpack", "baton"};
	const char *name = names[u->n], *said = NULL, *digest = NULL;
	struct file *f = &u->files[u->n];
	int64_t size = 0;
	int r = bt_json_str(j, "name", &said, err);
	if (r == 0)
		r = bt_json_str(j, "sha256", &digest, err);
	if (r == 0)
		r = bt_json_int(j, "size", 1, MAX_BYTES, &size, err);
	if (r == 0 && (!bt_streq(said, name) || strlen(digest) != 64 ||
			      strspn(digest, "0123456789abcdef") != 64))
		r = bt_err_set(
			err, BT_E_PROTOCOL, "the server offers '%.40s', expected %s", said, name);
	if (r < 0)
		return r;
	f->name = name;
	f->place = place_of(&u->env, name);
	f->aside = bt_asprintf("%s.new", f->place);
	f->size = size;
	f->fd = -1;
	memcpy(f->digest, digest, sizeof f->digest);
	u->n++;
	return 0;
}

static int check_place(const struct file *f, struct bt_err *err)
{
	BT_FREE char *dir = bt_strndup(f->place, (size_t)(strrchr(f->place, '/') - f->place));
	struct stat st;
	if (lstat(f->place, &st) < 0 || !S_ISREG(st.st_mode))
		return bt_err_set(err, BT_E_REFUSED,
			"%s is no plain file any more: install baton anew there", f->place);
	if (access(dir, W_OK) < 0)
		return bt_err_errno(err, errno, "the agent may not write to %s", dir);
	return 0;
}

static int check(struct bt_upgrade *u, const json_t *offer, struct bt_err *err)
{
	json_t *files = NULL, *one;
	const char *version = "?";
	char digest[65];
	size_t i;
	int r = 0;
	if (!u->env.replaceable)
		return bt_err_set(err, BT_E_REFUSED,
			"this agent is a part of `baton up`: upgrade that and start it again");
	if (u->env.in_trial)
		return bt_err_set(err, BT_E_REFUSED, "an upgrade is under way");
	if (!u->env.exec->policy->upgrade)
		return bt_err_set(err, BT_E_REFUSED,
			"host policy (%s, rule 'upgrade'): the agent may not take its server's "
			"program over; `upgrade: true` allows it",
			u->env.exec->policy->file);
	r = bt_json_str_opt(offer, "version", &version, err);
	if (r == 0)
		r = bt_json_array(offer, "files", &files, err);
	if (r == 0 && json_array_size(files) != BT_UPGRADE_FILES)
		r = bt_err_set(err, BT_E_PROTOCOL, "expected %d files", BT_UPGRADE_FILES);
	u->version = bt_strdup(version);
	json_array_foreach (files, i, one) {
		if (r == 0)
			r = read_file(u, one, err);
		if (r == 0)
			r = check_place(&u->files[i], err);
	}
	if (r == 0)
		r = bt_fs_sha256(u->env.self_path, digest, NULL, err);
	if (r == 0 && bt_streq(digest, u->files[BT_UPGRADE_FILES - 1].digest))
		r = bt_err_set(err, BT_E_EXISTS, "it runs this very program (%s) already", version);
	return r;
}

/* ---- whose file is it ----------------------------------------------------------------------- */

static void fetch_next(struct bt_upgrade *u);
static void ask_owner(struct bt_upgrade *u);

static const char *const owners[][3] = {{"dpkg-query", "-S", "apt"}, {"rpm", "-qf", "dnf"}};

static void on_owner(void *arg, const struct bt_child_result *r)
{
	struct bt_upgrade *u = arg;
	u->child = NULL;
	if (r->exit_code == 0) {
		bt_err_set(&u->err, BT_E_REFUSED,
			"%s belongs to the package manager (%.*s): upgrade it with %s",
			u->env.self_path, (int)strcspn(r->output, ":\n"), r->output,
			owners[u->owner][2]);
		end(u, u->err.code);
		return;
	}
	u->owner++;
	ask_owner(u);
}

static void ask_owner(struct bt_upgrade *u)
{
	for (; u->owner < BT_ARRAY_LEN(owners); u->owner++) {
		const char *const argv[] = {
			owners[u->owner][0], owners[u->owner][1], u->env.self_path, NULL};
		struct bt_child_spec spec = {.argv = argv,
			.uid = (uid_t)-1,
			.gid = (gid_t)-1,
			.timeout_ms = OWNER_TIMEOUT_MS};
		if (bt_child_start(
			    u->env.exec->driver->base, &spec, on_owner, u, &u->child, NULL) == 0)
			return;
	}
	fetch_next(u);
}

/* ---- fetching ------------------------------------------------------------------------------- */

/* Of the kind of machine that this one is, or the trial could only fail. */
static int check_machine(const struct file *f, const char *self, struct bt_err *err)
{
	Elf64_Ehdr mine = {0}, theirs = {0};
	BT_CLOSE int fd = open(self, O_RDONLY | O_CLOEXEC);
	bool read_both = fd >= 0 && pread(fd, &mine, sizeof mine, 0) == sizeof mine &&
			 pread(f->fd, &theirs, sizeof theirs, 0) == sizeof theirs;
	if (read_both && memcmp(theirs.e_ident, mine.e_ident, EI_CLASS + 1) == 0 &&
		theirs.e_machine == mine.e_machine)
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"the server's %s is not for this kind of machine: install it here by hand",
		f->name);
}

static int settle_file(struct bt_upgrade *u, struct file *f, struct bt_err *err)
{
	char digest[65];
	int64_t size = 0;
	int r = bt_fs_sha256(f->aside, digest, &size, err);
	if (r == 0 && (size != f->size || !bt_streq(digest, f->digest)))
		r = bt_err_set(err, BT_E_CORRUPT, "%s from the server is not what it named: %.12s…",
			f->name, digest);
	if (r == 0)
		r = check_machine(f, u->env.self_path, err);
	if (r == 0 && (fchmod(f->fd, 0755) < 0 || fsync(f->fd) < 0))
		r = bt_err_errno(err, errno, "%s", f->aside);
	close(f->fd);
	f->fd = -1;
	return r;
}

static void on_fetched(void *arg, int result, const struct bt_err *err)
{
	struct bt_upgrade *u = arg;
	u->fetch = NULL;
	if (result < 0)
		u->err = *err;
	else if (settle_file(u, &u->files[u->at], &u->err) == 0) {
		u->at++;
		fetch_next(u);
		return;
	}
	end(u, u->err.code);
}

static void fetch_next(struct bt_upgrade *u)
{
	if (u->at == u->n) {
		fail_later(u); /* without an error: done */
		return;
	}
	struct file *f = &u->files[u->at];
	unlink(f->aside);
	f->fd = open(f->aside, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (f->fd < 0) {
		bt_err_errno(&u->err, errno, "%s", f->aside);
		fail_later(u);
		return;
	}
	BT_FREE char *url = bt_asprintf("%s/v1/agent/binaries/%s", u->env.server_url, f->digest);
	struct bt_fetch_spec spec = {.env = u->env.exec->driver,
		.url = url,
		.fd = f->fd,
		.size = f->size,
		.done = on_fetched,
		.arg = u};
	u->fetch = bt_fetch_start(&spec);
}

struct bt_upgrade *bt_upgrade_start(
	const struct bt_upgrade_env *env, const json_t *offer, bt_done_fn done, void *arg)
{
	struct bt_upgrade *u = bt_calloc(1, sizeof *u);
	u->env = *env;
	u->done = done;
	u->arg = arg;
	u->later = evtimer_new(env->exec->driver->base, on_later, u);
	if (check(u, offer, &u->err) < 0)
		fail_later(u);
	else
		ask_owner(u);
	u->self = bt_strdup(env->self_path);
	return u;
}

struct bt_upgrade *bt_upgrade_free(struct bt_upgrade *u)
{
	if (!u)
		return NULL;
	bt_child_cancel(u->child);
	bt_fetch_cancel(u->fetch);
	if (u->later)
		event_free(u->later);
	for (size_t i = 0; i < u->n; i++) {
		struct file *f = &u->files[i];
		if (f->fd >= 0)
			close(f->fd);
		unlink(f->aside);
		free(f->place);
		free(f->aside);
	}
	free(u->self);
	free(u->version);
	free(u);
	return NULL;
}

/* ---- the other side of the loop ------------------------------------------------------------- */

void bt_upgrade_leave_loop(struct bt_upgrade *u)
{
	event_free(u->later);
	u->later = NULL;
	memset(&u->env, 0, sizeof u->env);
}

const char *bt_upgrade_self(const struct bt_upgrade *u)
{
	return u->self;
}

const char *bt_upgrade_new(const struct bt_upgrade *u)
{
	return u->files[u->n - 1].aside;
}

/* baton last: it is the one that is started. */
int bt_upgrade_into_place(struct bt_upgrade *u, struct bt_err *err)
{
	for (size_t i = 0; i < u->n; i++)
		if (rename(u->files[i].aside, u->files[i].place) < 0)
			return bt_err_errno(err, errno, "%s", u->files[i].place);
	int r = 0;
	for (size_t i = 0; i < u->n && r == 0; i++)
		r = bt_fs_fsync_parent(u->files[i].place, err);
	return r;
}
