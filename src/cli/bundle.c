/* A CodeDeploy bundle as `baton deploy` takes it: a directory, which is packed first, or an
 * archive. Its appspec is read before anything is sent, so that what is wrong in it is said here,
 * with its place. The agents read it again, from what they unpacked. */
#include "cli/bundle.h"

#include "base/fs.h"
#include "config/appspec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACKER "baton-pack"
#define SHOWN_MAX (BT_APPSPEC_MAX_BYTES + 4096)

extern char **environ;

/* Beside this program, or where it is installed or built; NULL: it is not there. */
static char *packer(void)
{
	static const char *const places[] = {
		PACKER, "../libexec/baton/" PACKER, "../lib/baton/" PACKER, "../shim/" PACKER};
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	self[n > 0 ? n : 0] = 0;
	const char *slash = strrchr(self, '/');
	for (size_t i = 0; slash && i < BT_ARRAY_LEN(places); i++) {
		char *path = bt_asprintf("%.*s/%s", (int)(slash - self), self, places[i]);
		if (access(path, X_OK) == 0)
			return path;
		free(path);
	}
	return NULL;
}

/* Runs it with stdout at fd; its exit code, or -errno. What it says on stderr is for the person. */
static int run(const char *const *argv, int fd)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;
	int status = 0;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, 1);
	int r = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r != 0)
		return -r;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EIO;
}

static int temporary(char **ret_dir, struct bt_err *err)
{
	const char *tmp = getenv("TMPDIR");
	const char *in = tmp && *tmp ? tmp : "/tmp";
	char *dir = bt_asprintf("%s/baton-XXXXXX", in); /* mkdtemp's form of a name */
	if (!mkdtemp(dir)) {
		int r = bt_err_errno(err, errno, "make a directory in %s", in);
		free(dir);
		return r;
	}
	*ret_dir = dir;
	return 0;
}

/* Runs the packer with its output in a file of the temporary directory. */
static int pack_into(const char *const *argv, const char *file, int *ret_code, struct bt_err *err)
{
	BT_CLOSE int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return bt_err_errno(err, errno, "write %s", file);
	int r = run(argv, fd);
	if (r < 0)
		return bt_err_errno(err, -r, "run %s", argv[0]);
	*ret_code = r;
	return 0;
}

static int tell(const struct bt_config_problems *problems, const char *path, struct bt_err *err)
{
	for (size_t i = 0; i < problems->n; i++)
		fprintf(stderr, "%s\n", problems->items[i].line);
	return bt_err_set(err, BT_E_CONFIG, "bundle %s: %zu problem%s in its appspec", path,
		problems->n, problems->n == 1 ? "" : "s");
}

static int check_text(
	const char *text, size_t n, const char *name, const char *path, struct bt_err *err)
{
	struct bt_config_problems problems = {0};
	struct bt_appspec *spec = NULL;
	int r = bt_appspec_parse(text, n, name, &spec, &problems, err);
	if (problems.n)
		r = tell(&problems, path, err);
	bt_appspec_free(spec);
	bt_config_problems_done(&problems);
	return r;
}

static int no_appspec(const char *path, const char *const *names, size_t n, struct bt_err *err)
{
	BT_STR struct bt_str list = {0};
	for (size_t i = 0; i < n; i++)
		bt_str_addf(&list, "%s%s", i ? ", " : "", names[i]);
	return bt_err_set(err, BT_E_CONFIG,
		"bundle %s has no appspec: expected one of %s at its root", path,
		bt_str_get(&list));
}

static int check_directory(const char *path, const char *asked, struct bt_err *err)
{
	const char *names[3];
	size_t n_names = bt_appspec_names(asked, names);
	for (size_t i = 0; i < n_names; i++) {
		BT_FREE char *file = bt_asprintf("%s/%s", path, names[i]);
		BT_FREE char *text = NULL;
		size_t n;
		if (!bt_fs_exists(file))
			continue;
		int r = bt_fs_read(file, BT_APPSPEC_MAX_BYTES, &text, &n, err);
		return r < 0 ? r : check_text(text, n, names[i], path, err);
	}
	return no_appspec(path, names, n_names, err);
}

static int check_archive(const char *program, const char *path, const char *asked, const char *dir,
	struct bt_err *err)
{
	const char *names[3], *argv[8] = {program, "show", path};
	size_t n_names = bt_appspec_names(asked, names), n;
	BT_FREE char *shown = bt_asprintf("%s/shown", dir);
	BT_FREE char *text = NULL;
	int code = 0;
	for (size_t i = 0; i < n_names; i++)
		argv[3 + i] = names[i];
	int r = pack_into(argv, shown, &code, err);
	if (r == 0 && code == 3)
		return no_appspec(path, names, n_names, err);
	if (r == 0 && code != 0)
		return bt_err_set(err, BT_E_CONFIG, "bundle %s cannot be read", path);
	if (r == 0)
		r = bt_fs_read(shown, SHOWN_MAX, &text, &n, err);
	if (r < 0)
		return r;
	size_t head = strcspn(text, "\n");
	text[head] = 0;
	return check_text(text + head + 1, n > head ? n - head - 1 : 0, text, path, err);
}

/* "build/revision/" → "revision.tar" */
static char *tar_name(const char *path)
{
	BT_FREE char *real = realpath(path, NULL);
	const char *slash = real ? strrchr(real, '/') : NULL;
	const char *name = slash && slash[1] && slash[1] != '.' ? slash + 1 : "bundle";
	return bt_asprintf("%.200s.tar", name);
}

static int pack_directory(const char *program, char **path, const char *dir, struct bt_err *err)
{
	BT_FREE char *name = tar_name(*path);
	BT_FREE char *tar = bt_asprintf("%s/%s", dir, name);
	const char *const argv[] = {program, "tar", *path, NULL};
	int code = 0;
	int r = pack_into(argv, tar, &code, err);
	if (r == 0 && code != 0)
		r = bt_err_set(err, BT_E_CONFIG, "bundle %s cannot be packed", *path);
	if (r < 0)
		return r;
	free(*path);
	*path = BT_STEAL(tar);
	return 0;
}

int bt_bundle_prepare(char **path, const char *asked, char **ret_dir, struct bt_err *err)
{
	struct stat st;
	BT_FREE char *program = packer();
	if (stat(*path, &st) < 0)
		return bt_err_set(err, BT_E_CONFIG, "bundle %s: %s", *path, strerror(errno));
	if (!program && !S_ISDIR(st.st_mode))
		return 0; /* the agents check it */
	if (!program)
		return bt_err_set(err, BT_E_CONFIG,
			"bundle %s is a directory, and %s, which packs it, is not beside this "
			"program: pack it yourself (tar -C %s -czf revision.tgz .)",
			*path, PACKER, *path);
	int r = temporary(ret_dir, err);
	if (r < 0)
		return r;
	if (!S_ISDIR(st.st_mode))
		return check_archive(program, *path, asked, *ret_dir, err);
	r = check_directory(*path, asked, err);
	return r < 0 ? r : pack_directory(program, path, *ret_dir, err);
}
