#include "driver/foreign.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "config/config.h"
#include "driver/op.h"
#include "driver/ports.h"
#include "shim/proc.h"
#include "shim/spec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_HOLDERS 64
#define MAX_ARGS 512
#define COMMAND_SHOWN 300
#define TICK_MS 20 /* a start time is known to a hundredth of a second */
#define DEPTH 64   /* of a process tree: a loop would be the kernel's, but pids are used again */

bool bt_foreign_within(pid_t root, pid_t pid)
{
	struct bt_proc_stat st;
	for (int i = 0; i < DEPTH && pid > 1; i++) {
		if (pid == root)
			return true;
		if (bt_proc_stat(pid, &st) < 0)
			return false;
		pid = st.ppid;
	}
	return false;
}

/* ---- /proc/PID ----------------------------------------------------------------------------- */

static char *proc_file(pid_t pid, const char *name, size_t *ret_n)
{
	char path[64];
	char *text = NULL;
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	return bt_fs_read(path, 256u << 10, &text, ret_n, NULL) < 0 ? NULL : text;
}

static size_t split_args(char *text, size_t n, const char **ret, size_t max)
{
	size_t k = 0;
	for (size_t i = 0; i < n && k < max; i += strlen(text + i) + 1)
		ret[k++] = text + i;
	return k;
}

/* The effective id in a line of /proc/PID/status, such as "Uid:"; -1: not to be seen. */
static unsigned effective_id(pid_t pid, const char *name)
{
	size_t n;
	unsigned id;
	char format[32], key[16];
	BT_FREE char *text = proc_file(pid, "status", &n);
	snprintf(key, sizeof key, "\n%s", name);
	snprintf(format, sizeof format, "\n%s %%*u %%u", name);
	const char *line = text ? strstr(text, key) : NULL;
	return line && sscanf(line, format, &id) == 1 ? id : (unsigned)-1;
}

static const char *user_name(uid_t uid, struct bt_arena *a)
{
	char buf[4096];
	struct passwd pw, *found = NULL;
	if (getpwuid_r(uid, &pw, buf, sizeof buf, &found) == 0 && found)
		return bt_arena_strdup(a, found->pw_name);
	return bt_arena_printf(a, "uid %u", (unsigned)uid);
}

/* "0::/system.slice/shop.service" → "shop.service"; a login's scope is nobody who would start it
 * again. */
static const char *unit_of(pid_t pid, struct bt_arena *a)
{
	size_t n;
	BT_FREE char *text = proc_file(pid, "cgroup", &n);
	char *line =
		text ? strrchr(text, '/') : NULL; /* v2 has one line; v1's last one is its own */
	if (!line)
		return NULL;
	line[strcspn(line, "\n")] = 0;
	return bt_str_ends(line, ".service") ? bt_arena_strdup(a, line + 1) : NULL;
}

static const char *command_line(pid_t pid, const char *name, struct bt_arena *a)
{
	size_t n = 0;
	const char *args[MAX_ARGS];
	BT_STR struct bt_str line = {0};
	BT_FREE char *text = proc_file(pid, "cmdline", &n);
	size_t k = text ? split_args(text, n, args, MAX_ARGS) : 0;
	for (size_t i = 0; i < k && line.len < COMMAND_SHOWN; i++)
		bt_str_addf(&line, "%s%s", i ? " " : "", args[i]);
	if (line.len > COMMAND_SHOWN)
		return bt_arena_printf(a, "%.*s…", COMMAND_SHOWN, bt_str_get(&line));
	return line.len ? bt_arena_strdup(a, bt_str_get(&line)) : bt_arena_strdup(a, name);
}

/* ---- who listens ---------------------------------------------------------------------------- */

/* What this agent started is adopted by nobody: neither its own process nor an instance. */
static int check_not_ours(const struct bt_foreign *f, uint16_t port, struct bt_err *err)
{
	static const char mark[] = BT_SHIM_MARKER_ENV "=";
	size_t n = 0;
	BT_FREE char *env = proc_file(f->pid, "environ", &n);
	bool instance = false;
	for (size_t i = 0; env && !instance && i < n; i += strlen(env + i) + 1)
		instance = bt_str_starts(env + i, mark);
	if (f->pid == getpid())
		return bt_err_set(
			err, BT_E_REFUSED, "baton itself listens on port %u", (unsigned)port);
	if (instance)
		return bt_err_set(err, BT_E_REFUSED,
			"%s (pid %d) on port %u is an instance that baton started", f->name,
			(int)f->pid, (unsigned)port);
	return 0;
}

static int choose(
	const struct bt_listener *all, size_t n, uint16_t port, pid_t *ret, struct bt_err *err)
{
	BT_STR struct bt_str names = {0};
	size_t roots = 0;
	for (size_t i = 0; i < n; i++) {
		char who[96];
		bool below = false;
		for (size_t k = 0; all[i].pid && k < n; k++)
			below |= k != i && all[k].pid && all[k].pid != all[i].pid &&
				 bt_foreign_within(all[k].pid, all[i].pid);
		if (below)
			continue;
		roots++;
		*ret = all[i].pid;
		bt_str_addf(&names, "%s%s", names.len ? " and " : "",
			bt_listener_describe(&all[i], who, sizeof who));
	}
	if (roots > 1)
		return bt_err_set(err, BT_E_REFUSED,
			"port %u has %zu candidates: %s; stop all but the one that is to be "
			"adopted",
			(unsigned)port, roots, bt_str_get(&names));
	if (*ret == 0)
		return bt_err_set(err, BT_E_REFUSED,
			"port %u is held by %s, which this agent may not look at: let the agent "
			"run as that user, or as root",
			(unsigned)port, bt_str_get(&names));
	return 0;
}

int bt_foreign_find(uint16_t port, struct bt_arena *a, struct bt_foreign *ret, struct bt_err *err)
{
	struct bt_listener all[MAX_HOLDERS];
	struct bt_foreign f = {0};
	struct bt_proc_stat st;
	size_t n = bt_port_listeners(port, 0, all, MAX_HOLDERS);
	if (n == 0)
		return bt_err_set(err, BT_E_NOTFOUND, "nothing listens on port %u", (unsigned)port);
	int r = choose(all, n, port, &f.pid, err);
	if (r == 0 && bt_proc_stat(f.pid, &st) < 0)
		r = bt_err_set(err, BT_E_NOTFOUND,
			"pid %d, which listened on port %u, has just ended", (int)f.pid,
			(unsigned)port);
	if (r < 0)
		return r;
	f.start_ticks = st.start_ticks;
	f.name = bt_arena_strdup(a, st.name);
	f.uid = effective_id(f.pid, "Uid:");
	f.gid = effective_id(f.pid, "Gid:");
	f.since_wall_ms = bt_clock_wall_ms() - bt_clock_boot_ms() +
			  st.start_ticks * 1000 / sysconf(_SC_CLK_TCK);
	f.seen.pid = (int)f.pid;
	f.seen.command = command_line(f.pid, st.name, a);
	f.seen.user = user_name(f.uid, a);
	f.seen.unit = unit_of(f.pid, a);
	r = check_not_ours(&f, port, err);
	if (r == 0)
		*ret = f;
	return r;
}

/* ---- what it runs --------------------------------------------------------------------------- */

/* Of the service's config: copied, since a thread reads it. */
struct hint {
	const char *artifact; /* NULL: the config names none */
	bool unpack, is_program;
};

static const char *suffix(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	const char *dot = path ? strrchr(slash ? slash : path, '.') : NULL;
	return dot ? dot : "";
}

/* Its argument as a file of this host, or NULL. What the process sees as its root and working
 * directory counts. */
static const char *file_of(pid_t pid, const char *arg, struct bt_arena *a)
{
	char cwd[PATH_MAX], link[64];
	struct stat st;
	if (!*arg || *arg == '-')
		return NULL;
	snprintf(link, sizeof link, "/proc/%d/cwd", (int)pid);
	ssize_t n = readlink(link, cwd, sizeof cwd - 1);
	if (n < 0)
		return NULL;
	cwd[n] = 0;
	const char *path =
		*arg == '/' ? bt_arena_strdup(a, arg) : bt_arena_printf(a, "%s/%s", cwd, arg);
	return stat(path, &st) == 0 && S_ISREG(st.st_mode) ? path : NULL;
}

/* After -jar; else the first file with the ending of the config's artifact; else the program, where
 * the command is the artifact itself. */
static const char *find_artifact(
	const struct bt_foreign *f, const struct hint *h, struct bt_arena *a)
{
	size_t n = 0;
	const char *args[MAX_ARGS];
	BT_FREE char *text = proc_file(f->pid, "cmdline", &n);
	size_t k = text ? split_args(text, n, args, MAX_ARGS) : 0;
	for (size_t i = 0, jar = 0; i < k; i++) {
		if (jar && *args[i] != '-') /* options may stand between */
			return file_of(f->pid, args[i], a);
		jar |= bt_streq(args[i], "-jar");
	}
	const char *ending = suffix(h->artifact);
	for (size_t i = 0; *ending && i < k; i++)
		if (bt_streq(suffix(args[i]), ending) && file_of(f->pid, args[i], a))
			return file_of(f->pid, args[i], a);
	if (h->is_program) {
		char link[64], exe[PATH_MAX];
		snprintf(link, sizeof link, "/proc/%d/exe", (int)f->pid);
		ssize_t len = readlink(link, exe, sizeof exe - 1);
		return len > 0 ? file_of(f->pid, bt_arena_strndup(a, exe, (size_t)len), a) : NULL;
	}
	/* A config without an artifact's name leaves the script of an interpreter. */
	for (size_t i = 1; !*ending && i < k; i++)
		if (file_of(f->pid, args[i], a))
			return file_of(f->pid, args[i], a);
	return NULL;
}

/* With no more rights than the process has: its command line is its own, and might name a file
 * that only root may read. (The calls below are about this thread alone.) */
static int open_as(const struct bt_foreign *f, const char *path)
{
	if (geteuid() != 0)
		return open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	syscall(SYS_setfsgid, f->gid);
	syscall(SYS_setfsuid, f->uid);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	syscall(SYS_setfsuid, geteuid());
	syscall(SYS_setfsgid, getegid());
	return fd;
}

static void look_at_artifact(struct bt_foreign *f, const struct hint *h, struct bt_arena *a)
{
	struct stat st;
	char digest[65], open_file[48];
	struct bt_err err = {0};
	struct bt_seen_foreign *seen = &f->seen;
	seen->artifact = find_artifact(f, h, a);
	if (!seen->artifact) {
		seen->no_artifact = "its command line names no file that could be the artifact";
		return;
	}
	BT_CLOSE int fd = open_as(f, seen->artifact);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		seen->no_artifact =
			bt_arena_printf(a, "%s cannot be read by %s", seen->artifact, seen->user);
		return;
	}
	snprintf(open_file, sizeof open_file, "/proc/self/fd/%d", fd);
	int64_t changed = (int64_t)st.st_ctim.tv_sec * 1000 + st.st_ctim.tv_nsec / 1000000;
	if (changed > f->since_wall_ms + TICK_MS)
		seen->no_artifact = bt_arena_printf(a,
			"%s was changed after the process started, so it is not what runs",
			seen->artifact);
	else if (h->unpack && (h->artifact || bt_config_is_archive(seen->artifact)))
		seen->no_artifact = "the service's artifact is an archive, and what runs is what "
				    "was unpacked";
	else if (bt_fs_sha256(open_file, digest, &seen->size, &err) < 0)
		seen->no_artifact = bt_arena_strdup(a, err.text);
	else
		seen->digest = bt_arena_strdup(a, digest);
}

/* ---- beside the loop ------------------------------------------------------------------------- */

struct examine {
	struct bt_op op; /* first */
	struct bt_arena *arena;
	uint16_t port;
	struct hint hint;
	struct bt_foreign found;
	int result;
	struct bt_err err;
	/* NULL: cancelled; the thread is let to its end */
	void (*done)(void *arg, int result, const struct bt_foreign *f, const struct bt_err *err);
	void *arg;
};

static void examine_cancel(struct bt_op *op)
{
	((struct examine *)op)->done = NULL;
}

static void examine_run(void *arg)
{
	struct examine *x = arg;
	x->result = bt_foreign_find(x->port, x->arena, &x->found, &x->err);
	if (x->result == 0)
		look_at_artifact(&x->found, &x->hint, x->arena);
}

static void examine_done(void *arg)
{
	struct examine *x = arg;
	if (x->done)
		x->done(x->arg, x->result, x->result < 0 ? NULL : &x->found,
			x->result < 0 ? &x->err : NULL);
	bt_arena_free(x->arena);
	free(x);
}

struct bt_op *bt_foreign_examine(const struct bt_driver_env *env, uint16_t port,
	const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_foreign *f, const struct bt_err *err),
	void *arg)
{
	struct examine *x = bt_calloc(1, sizeof *x);
	x->op.cancel = examine_cancel;
	x->arena = bt_arena_new();
	x->port = port;
	x->hint.artifact = bt_arena_strdup(x->arena, service->artifact);
	x->hint.unpack = service->unpack;
	x->hint.is_program =
		service->run.n_command > 0 && strstr(service->run.command[0], "{artifact}");
	x->done = done;
	x->arg = arg;
	bt_work_submit(env->work, examine_run, examine_done, x);
	return &x->op;
}
