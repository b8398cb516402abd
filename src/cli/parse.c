#include "cli/cli.h"

#include <string.h>

const struct bt_cli_command *bt_cli_find(const char *name)
{
	for (size_t i = 0; i < bt_cli_commands_len; i++)
		if (bt_streq(bt_cli_commands[i].name, name))
			return &bt_cli_commands[i];
	return NULL;
}

static int unknown_command(const char *word, struct bt_err *err)
{
	const char *names[64];
	size_t n = 0;
	for (size_t i = 0; i < bt_cli_commands_len && n < BT_ARRAY_LEN(names); i++)
		if (!bt_cli_commands[i].hidden)
			names[n++] = bt_cli_commands[i].name;
	const char *near = bt_nearest(word, names, n);
	return near ? bt_err_set(err, BT_E_CONFIG,
			      "unknown command '%s' (did you mean '%s'?); `baton help` lists them",
			      word, near)
		    : bt_err_set(err, BT_E_CONFIG, "unknown command '%s'; `baton help` lists them",
			      word);
}

/* "server" alone names a family: its commands are said. */
static int family(const char *word, const char *next, struct bt_err *err)
{
	BT_STR struct bt_str list = {0};
	size_t n = strlen(word);
	for (size_t i = 0; i < bt_cli_commands_len; i++)
		if (!strncmp(bt_cli_commands[i].name, word, n) && bt_cli_commands[i].name[n] == ' ')
			bt_str_addf(&list, "%s`baton %s`", list.len ? " or " : "",
				bt_cli_commands[i].name);
	if (!list.len)
		return unknown_command(word, err);
	return next ? bt_err_set(err, BT_E_CONFIG, "unknown command '%s %s': %s", word, next,
			      list.data)
		    : bt_err_set(err, BT_E_CONFIG, "'%s' needs one word more: %s", word, list.data);
}

static const struct bt_cli_option *in(
	const struct bt_cli_option *options, size_t n, const char *name, size_t len, char letter)
{
	for (size_t i = 0; i < n; i++)
		if (name ? strlen(options[i].name) == len && !strncmp(options[i].name, name, len)
			 : letter && options[i].letter == letter)
			return &options[i];
	return NULL;
}

const struct bt_cli_option *bt_cli_option_find(
	const struct bt_cli_command *c, const char *name, size_t len, char letter)
{
	const struct bt_cli_option *o = in(c->options, c->n_options, name, len, letter);
	if (!o && c->client)
		o = in(bt_cli_client_options, bt_cli_client_options_len, name, len, letter);
	return o;
}

static int unknown_option(const struct bt_cli_command *c, const char *word, struct bt_err *err)
{
	const char *names[32];
	size_t n = 0;
	for (size_t i = 0; i < c->n_options && n < BT_ARRAY_LEN(names); i++)
		names[n++] = c->options[i].name;
	for (size_t i = 0; c->client && i < bt_cli_client_options_len && n < BT_ARRAY_LEN(names);
		i++)
		names[n++] = bt_cli_client_options[i].name;
	const char *bare = word + strspn(word, "-");
	const char *near = bt_nearest(bare, names, n);
	return near ? bt_err_set(err, BT_E_CONFIG,
			      "unknown option '%s' (did you mean '--%s'?); see `baton help %s`",
			      word, near, c->name)
		    : bt_err_set(err, BT_E_CONFIG, "unknown option '%s'; see `baton help %s`", word,
			      c->name);
}

static int set_option(
	struct bt_cli *cli, const struct bt_cli_option *o, const char *value, struct bt_err *err)
{
	if (cli->n_set == BT_CLI_MAX_SET)
		return bt_err_set(err, BT_E_CONFIG, "more than %d options", BT_CLI_MAX_SET);
	cli->set[cli->n_set].option = o;
	cli->set[cli->n_set++].value = value;
	return 0;
}

/* One option word, and the next where it takes a value. 0, or 1 when that one was used up. */
static int parse_option(struct bt_cli *cli, const char *word, const char *next, struct bt_err *err)
{
	bool is_long = word[1] == '-';
	const char *name = word + (is_long ? 2 : 1);
	const char *equals = is_long ? strchr(name, '=') : NULL;
	size_t len = equals ? (size_t)(equals - name) : strlen(name);
	if (bt_streq(word, "--help") || bt_streq(word, "-h")) {
		cli->help = true;
		return 0;
	}
	const struct bt_cli_option *o =
		bt_cli_option_find(cli->command, is_long ? name : NULL, len, is_long ? 0 : name[0]);
	if (!o)
		return unknown_option(cli->command, word, err);
	const char *attached = equals ? equals + 1 : !is_long && name[1] ? name + 1 : NULL;
	if (!o->value)
		return attached ? bt_err_set(err, BT_E_CONFIG, "option '%s' takes no value", word)
				: set_option(cli, o, "", err);
	if (o->value[0] == '[' && !attached)
		return set_option(cli, o, "", err);
	if (!attached && !next)
		return bt_err_set(err, BT_E_CONFIG, "option '%s' needs a value: --%s %s", word,
			o->name, o->value);
	int r = set_option(cli, o, attached ? attached : next, err);
	return r < 0 ? r : attached ? 0 : 1;
}

static int check_count(const struct bt_cli *cli, struct bt_err *err)
{
	const struct bt_cli_command *c = cli->command;
	if (cli->help)
		return 0;
	if ((int)cli->n_args < c->min_args)
		return bt_err_set(err, BT_E_CONFIG, "'%s' needs %s: baton %s %s", c->name, c->args,
			c->name, c->args);
	if ((int)cli->n_args > c->max_args)
		return bt_err_set(err, BT_E_CONFIG, "'%s' is one word too many: baton %s%s%s",
			cli->args[c->max_args], c->name, *c->args ? " " : "", c->args);
	return 0;
}

/* The command's own words come first; 1 or 2 of them. */
static int find_command(
	int argc, char **argv, struct bt_cli *cli, int *ret_used, struct bt_err *err)
{
	if (argc == 0 || bt_streq(argv[0], "--help") || bt_streq(argv[0], "-h")) {
		cli->command = bt_cli_find("help");
		*ret_used = argc ? 1 : 0;
		return 0;
	}
	const char *word = argv[0];
	if (bt_streq(word, "--version") || bt_streq(word, "-V"))
		word = "version";
	const char *next = argc > 1 && argv[1][0] != '-' ? argv[1] : NULL;
	if (next) {
		BT_FREE char *two = bt_asprintf("%s %s", word, next);
		if ((cli->command = bt_cli_find(two))) {
			*ret_used = 2;
			return 0;
		}
	}
	if ((cli->command = bt_cli_find(word))) {
		*ret_used = 1;
		return 0;
	}
	if (word[0] == '-')
		return bt_err_set(err, BT_E_CONFIG,
			"the command comes first, then options: baton COMMAND %s", word);
	return family(word, next, err);
}

int bt_cli_parse(int argc, char **argv, struct bt_cli *ret, struct bt_err *err)
{
	struct bt_cli cli = {0};
	int i = 0;
	int r = find_command(argc, argv, &cli, &i, err);
	bool only_args = false;
	for (; r >= 0 && i < argc; i++) {
		const char *word = argv[i];
		if (!only_args && bt_streq(word, "--")) {
			only_args = true;
		} else if (!only_args && word[0] == '-' && word[1]) {
			r = parse_option(&cli, word, i + 1 < argc ? argv[i + 1] : NULL, err);
			if (r > 0)
				i++;
		} else if (cli.n_args == BT_CLI_MAX_ARGS) {
			r = bt_err_set(err, BT_E_CONFIG, "more than %d words", BT_CLI_MAX_ARGS);
		} else {
			cli.args[cli.n_args++] = word;
		}
	}
	if (r >= 0)
		r = check_count(&cli, err);
	if (r < 0)
		return r;
	*ret = cli;
	return 0;
}

const char *bt_cli_get(const struct bt_cli *cli, const char *option)
{
	for (size_t i = cli->n_set; i-- > 0;)
		if (bt_streq(cli->set[i].option->name, option))
			return cli->set[i].value;
	return NULL;
}

bool bt_cli_has(const struct bt_cli *cli, const char *option)
{
	return bt_cli_get(cli, option) != NULL;
}

const char *bt_cli_arg(const struct bt_cli *cli, size_t i)
{
	return i < cli->n_args ? cli->args[i] : NULL;
}

int bt_exit_code(int err_code)
{
	switch (err_code) {
	case BT_E_CONFIG:
	case BT_E_AUTH:
	case BT_E_NOTFOUND:
		return BT_EXIT_USAGE;
	case BT_E_LEASE:
		return BT_EXIT_LEASE;
	case BT_E_UNREACHABLE:
	case BT_E_TIMEOUT:
		return BT_EXIT_UNREACHABLE;
	default:
		return BT_EXIT_FAILED;
	}
}
