#include "cli/files.h"

#include "base/fs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *lookup(void *arg, const char *name)
{
	(void)arg;
	return getenv(name);
}

/* Each problem a line; 1 where they explain the failure r. */
static int tell(struct bt_config_problems *found, int r, size_t *problems)
{
	for (size_t i = 0; i < found->n; i++)
		fprintf(stderr, "%s\n", found->items[i].line);
	*problems += found->n;
	if (r < 0 && found->n)
		r = 1;
	bt_config_problems_done(found);
	return r;
}

/* 1: the file has problems, which were printed. */
static int parse_file(
	const char *path, struct bt_config **ret, size_t *problems, struct bt_err *err)
{
	BT_FREE char *text = NULL;
	size_t n = 0;
	int r = bt_fs_read(path, 1 << 20, &text, &n, err);
	if (r == -ENOENT)
		return bt_err_set(err, BT_E_CONFIG,
			"%s: no such file; name the config with --file, or write a baton.yaml "
			"(docs/config.md)",
			path);
	if (r < 0)
		return bt_err_set(err, BT_E_CONFIG, "%s: %s", path,
			r == BT_E_REFUSED ? "larger than 1 MiB" : strerror(-r));
	struct bt_config_problems found = {0};
	r = bt_config_parse(text, n, path, lookup, NULL, ret, &found, err);
	return tell(&found, r, problems);
}

static int merge(
	struct bt_config **all, struct bt_config *one, size_t *problems, struct bt_err *err)
{
	if (!*all) {
		*all = one;
		return 0;
	}
	struct bt_config_problems found = {0};
	int r = bt_config_merge(*all, one, &found, err);
	return tell(&found, r, problems);
}

static size_t named_files(const struct bt_cli *cli, const char *files[static BT_CLI_MAX_SET * 2])
{
	size_t n = 0;
	for (size_t i = 0; i < cli->n_set; i++)
		if (bt_streq(cli->set[i].option->name, "file"))
			files[n++] = cli->set[i].value;
	if (bt_streq(cli->command->name, "lint"))
		for (size_t i = 0; i < cli->n_args; i++)
			files[n++] = cli->args[i];
	if (!n)
		files[n++] = "baton.yaml";
	return n;
}

static int choose_environment(const struct bt_cli *cli, struct bt_config *c, struct bt_err *err);

int bt_files_config(const struct bt_cli *cli, struct bt_config **ret, struct bt_err *err)
{
	const char *files[BT_CLI_MAX_SET * 2];
	size_t n = named_files(cli, files), problems = 0;
	struct bt_config *all = NULL;
	int r = 0;
	for (size_t i = 0; i < n && r >= 0; i++) {
		struct bt_config *one = NULL;
		r = parse_file(files[i], &one, &problems, err);
		if (r == 0)
			r = merge(&all, one, &problems, err);
	}
	if (r >= 0 && problems)
		r = bt_err_set(err, BT_E_CONFIG, "%zu problem%s in %s%s", problems,
			problems == 1 ? "" : "s", files[0], n > 1 ? " and others" : "");
	if (r >= 0)
		r = choose_environment(cli, all, err);
	if (r < 0) {
		bt_config_free(all);
		return r;
	}
	*ret = all;
	return 0;
}

char *bt_files_name(const struct bt_cli *cli)
{
	/* Where the first argument is a flow, an option says which service is meant. */
	bool flow =
		bt_streq(cli->command->name, "run") || bt_str_starts(cli->command->name, "flows");
	const char *name = flow ? bt_cli_get(cli, "service") : bt_cli_arg(cli, 0),
		   *env = bt_cli_get(cli, "env");
	return name && env && !strchr(name, '@') ? bt_asprintf("%s@%s", name, env)
						 : bt_strdup(name);
}

/* The only service of that name in whichever environment; NULL: none, or several. */
static const struct bt_service *in_one_environment(const struct bt_config *c, const char *name)
{
	const struct bt_service *found = NULL;
	size_t n = strlen(name);
	for (size_t i = 0; i < c->n_services; i++) {
		const char *other = c->services[i].name;
		if (strncmp(other, name, n) != 0 || other[n] != '@')
			continue;
		if (found)
			return NULL;
		found = &c->services[i];
	}
	return found;
}

int bt_files_service(const struct bt_cli *cli, const struct bt_config *c,
	const struct bt_service **ret, struct bt_err *err)
{
	BT_FREE char *name = bt_files_name(cli);
	const struct bt_service *s = bt_config_find(c, name);
	if (!s && name)
		s = in_one_environment(c, name);
	if (s) {
		*ret = s;
		return 0;
	}
	BT_STR struct bt_str names = {0};
	for (size_t i = 0; i < c->n_services; i++)
		bt_str_addf(&names, "%s%s", i ? ", " : "", c->services[i].name);
	return name ? bt_err_set(err, BT_E_CONFIG, "no service '%s' in the config, which has: %s",
			      name, bt_str_get(&names))
		    : bt_err_set(err, BT_E_CONFIG, "say which service: %s", bt_str_get(&names));
}

/* Leaves only services of --env. */
static int choose_environment(const struct bt_cli *cli, struct bt_config *c, struct bt_err *err)
{
	const char *env = bt_cli_get(cli, "env");
	if (!env)
		return 0;
	BT_STR struct bt_str names = {0};
	struct bt_service *kept = BT_ARENA_ARRAY(c->arena, struct bt_service, c->n_services);
	size_t n = 0;
	for (size_t i = 0; i < c->n_services; i++) {
		const char *at = strchr(c->services[i].name, '@');
		if (at && bt_streq(at + 1, env))
			kept[n++] = c->services[i];
		bt_str_addf(&names, "%s%s", i ? ", " : "", c->services[i].name);
	}
	if (!n)
		return bt_err_set(err, BT_E_CONFIG,
			"no service has an environment '%s' in the config, which has: %s", env,
			bt_str_get(&names));
	c->services = kept;
	c->n_services = n;
	return 0;
}

int bt_files_secrets(const struct bt_service *s, bool keep, json_t **ret, struct bt_err *err)
{
	BT_JSON json_t *values = json_object();
	BT_STR struct bt_str missing = {0};
	for (size_t i = 0; i < s->run.n_secrets; i++) {
		const char *name = s->run.secrets[i], *value = getenv(name);
		if (value)
			json_object_set_new(values, name, json_string(value));
		else
			bt_str_addf(&missing, "%s%s", missing.len ? ", " : "", name);
	}
	if (missing.len && !keep)
		return bt_err_set(err, BT_E_CONFIG,
			"service %s: run.secrets are not in the environment: %s", s->name,
			missing.data);
	*ret = BT_STEAL(values);
	return 0;
}

char *bt_files_beside(const struct bt_service *s, const char *path, size_t *ret_n_dir)
{
	const char *slash = s->file ? strrchr(s->file, '/') : NULL;
	size_t n = slash && path[0] != '/' ? (size_t)(slash + 1 - s->file) : 0;
	if (ret_n_dir)
		*ret_n_dir = n;
	return bt_asprintf("%.*s%s", (int)n, s->file ? s->file : "", path);
}

bool bt_files_at_hand(const struct bt_cli *cli)
{
	return bt_cli_has(cli, "file") || bt_fs_exists("baton.yaml");
}
