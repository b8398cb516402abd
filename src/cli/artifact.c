/* The one file that a deployment ships: found by name or by a pattern, checked, hashed. */
#include "cli/files.h"

#include "base/fs.h"
#include "cli/bundle.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOWN 10 /* matches that an error lists */

void bt_artifact_done(struct bt_artifact *a)
{
	if (a->made)
		bt_fs_remove_tree(a->made, NULL);
	free(a->made);
	free(a->path);
	a->path = a->made = NULL;
}

static bool is_pattern(const char *path)
{
	return strpbrk(path, "*?[") != NULL;
}

/* glob() takes one text, and the directory before the pattern is no pattern. */
static char *whole_pattern(const char *dir, size_t n_dir, const char *pattern)
{
	BT_STR struct bt_str out = {0};
	for (size_t i = 0; i < n_dir; i++) {
		if (strchr("*?[\\", dir[i]))
			bt_str_addc(&out, '\\');
		bt_str_addc(&out, dir[i]);
	}
	bt_str_add(&out, pattern);
	return bt_strdup(bt_str_get(&out));
}

static int several(const glob_t *g, size_t skip, const char *pattern, struct bt_err *err)
{
	BT_STR struct bt_str list = {0};
	for (size_t i = 0; i < g->gl_pathc && i < SHOWN; i++)
		bt_str_addf(&list, "%s%.200s", i ? ", " : "", g->gl_pathv[i] + skip);
	if (g->gl_pathc > SHOWN)
		bt_str_addf(&list, " and %zu more", g->gl_pathc - SHOWN);
	return bt_err_set(err, BT_E_CONFIG,
		"artifact %s: expected exactly one match, found %zu: %s (write a closer pattern, "
		"or clean the build first)",
		pattern, g->gl_pathc, bt_str_get(&list));
}

/* *path becomes the one match. A file whose very name looks like a pattern is that file. */
static int resolve(char **path, size_t n_dir, struct bt_err *err)
{
	glob_t g = {0};
	if (!is_pattern(*path + n_dir) || bt_fs_exists(*path))
		return 0;
	BT_FREE char *whole = whole_pattern(*path, n_dir, *path + n_dir);
	int r = glob(whole, 0, NULL, &g);
	if (r != 0 && r != GLOB_NOMATCH)
		r = bt_err_set(err, BT_E_CONFIG, "artifact %s: cannot be looked for (%s)",
			*path + n_dir, r == GLOB_NOSPACE ? "out of memory" : "a read error");
	else if (r == GLOB_NOMATCH || g.gl_pathc == 0)
		r = bt_err_set(err, BT_E_CONFIG,
			"artifact %s: expected exactly one match, found none in %s", *path + n_dir,
			n_dir ? whole : "the current directory");
	else if (g.gl_pathc > 1)
		r = several(&g, n_dir, *path + n_dir, err);
	else {
		free(*path);
		*path = bt_strdup(g.gl_pathv[0]);
	}
	globfree(&g);
	return r;
}

/* The config names it relative to itself, the command line relative to where one stands. */
static int find(
	const struct bt_cli *cli, const struct bt_service *s, char **ret, struct bt_err *err)
{
	const char *bundle = bt_cli_get(cli, "bundle");
	const char *given = bundle ? bundle : bt_cli_get(cli, "artifact");
	const char *path = given ? given : s->artifact;
	if (!path)
		return bt_err_set(err, BT_E_CONFIG,
			"service %s: say what to deploy with --artifact FILE, or `artifact:` in "
			"the config",
			s->name);
	size_t n_dir = 0;
	if (given || path[0] == '/')
		*ret = bt_strdup(path);
	else
		*ret = bt_files_beside(s, path, &n_dir);
	return resolve(ret, n_dir, err);
}

static int check(const char *path, struct bt_err *err)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return bt_err_set(err, BT_E_CONFIG, "artifact %s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return bt_err_set(err, BT_E_CONFIG,
			"artifact %s is a directory: pack it first (tar -C %s -czf app.tar.gz .)",
			path, path);
	if (!S_ISREG(st.st_mode))
		return bt_err_set(err, BT_E_CONFIG, "artifact %s is not a file", path);
	if (st.st_size == 0)
		return bt_err_set(err, BT_E_CONFIG, "artifact %s is empty", path);
	if (access(path, R_OK) < 0)
		return bt_err_set(err, BT_E_CONFIG, "artifact %s: %s", path, strerror(errno));
	return 0;
}

int bt_files_artifact(const struct bt_cli *cli, const struct bt_service *s, struct bt_artifact *ret,
	struct bt_err *err)
{
	struct bt_artifact a = {0};
	int r = find(cli, s, &a.path, err);
	if (r == 0 && s->run.as == BT_RUNTIME_BUNDLE)
		r = bt_bundle_prepare(&a.path, s->run.appspec, &a.made, err);
	if (r == 0)
		r = check(a.path, err);
	if (r == 0)
		r = bt_fs_sha256(a.path, a.digest, &a.size, err);
	if (r < 0) {
		bt_artifact_done(&a);
		return r;
	}
	const char *slash = strrchr(a.path, '/');
	a.file_name = slash ? slash + 1 : a.path;
	*ret = a;
	return 0;
}

int bt_files_bundle_options(const struct bt_cli *cli, struct bt_arena *a,
	const struct bt_service **service, struct bt_err *err)
{
	static const char *const options[] = {"bundle", "appspec"};
	const char *name = bt_cli_get(cli, "appspec");
	for (size_t i = 0; i < BT_ARRAY_LEN(options); i++)
		if (bt_cli_get(cli, options[i]) && (*service)->run.as != BT_RUNTIME_BUNDLE)
			return bt_err_set(err, BT_E_CONFIG,
				"--%s: service %s is no CodeDeploy bundle: expected run: {as: "
				"bundle, …} in its config",
				options[i], (*service)->name);
	if (name && (!*name || *name == '/' || strstr(name, "..")))
		return bt_err_set(
			err, BT_E_CONFIG, "--appspec %s: expected a path in the bundle", name);
	if (!name)
		return 0;
	struct bt_service *copy = bt_arena_memdup(a, *service, sizeof *copy);
	copy->run.appspec = bt_arena_strdup(a, name);
	*service = copy;
	return 0;
}
