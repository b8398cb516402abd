#include "base/version.h"
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

/* Text for people, folded at 80 columns with a hanging indent. */
static void fold(struct bt_str *out, const char *text, size_t indent)
{
	size_t column = indent;
	while (*text) {
		size_t n = strcspn(text, " \n");
		if (column > indent && column + n + 1 > 80) {
			bt_str_addf(out, "\n%*s", (int)indent, "");
			column = indent;
		} else if (column > indent) {
			bt_str_addc(out, ' ');
			column++;
		}
		bt_str_addn(out, text, n);
		column += n;
		text += n;
		if (*text == '\n') {
			bt_str_addf(out, "\n%*s", (int)indent, "");
			column = indent;
		}
		if (*text)
			text++;
	}
	bt_str_addc(out, '\n');
}

static const char *exit_meaning(int code)
{
	for (size_t i = 0; i < bt_exit_table_len; i++)
		if (bt_exit_table[i].code == code)
			return bt_exit_table[i].meaning;
	return "";
}

static void overview(struct bt_str *out)
{
	bt_str_add(out, "baton hands live traffic from one version of a service to the next.\n\n"
			"usage: baton COMMAND [ARGS] [OPTIONS]\n\n");
	size_t widest = 0;
	for (size_t i = 0; i < bt_cli_commands_len; i++)
		if (strlen(bt_cli_commands[i].name) > widest)
			widest = strlen(bt_cli_commands[i].name);
	for (size_t i = 0; i < bt_cli_commands_len; i++) {
		const struct bt_cli_command *c = &bt_cli_commands[i];
		if (c->heading)
			bt_str_addf(out, "%s%s\n", i ? "\n" : "", c->heading);
		if (!c->hidden)
			bt_str_addf(out, "  %-*s  %s\n", (int)widest, c->name, c->summary);
	}
	bt_str_add(out,
		"\n`baton help COMMAND` says more. To begin: `baton up`, then write a baton.yaml "
		"and\n`baton deploy`.\n");
}

static void option_names(const struct bt_cli_option *o, struct bt_str *out)
{
	if (o->letter)
		bt_str_addf(out, "-%c, ", o->letter);
	bt_str_addf(out, "--%s", o->name);
	if (o->value)
		bt_str_addf(out, "%s%s", o->value[0] == '[' ? "" : " ", o->value);
}

static void help_options(const struct bt_cli_option *options, size_t n, struct bt_str *out)
{
	for (size_t i = 0; i < n; i++) {
		BT_STR struct bt_str names = {0};
		option_names(&options[i], &names);
		bt_str_addf(out, "  %-24s", names.data);
		if (names.len > 22)
			bt_str_addf(out, "\n%*s", 26, "");
		fold(out, options[i].help, 26);
	}
}

void bt_cli_command_help(const struct bt_cli_command *c, struct bt_str *out)
{
	bt_str_addf(out, "usage: baton %s%s%s%s\n\n", c->name, *c->args ? " " : "", c->args,
		c->n_options || c->client ? " [OPTIONS]" : "");
	fold(out, c->summary, 0);
	if (c->details)
		fold(out, c->details, 0);
	if (c->n_options)
		bt_str_add(out, "\noptions:\n");
	help_options(c->options, c->n_options, out);
	if (c->client) {
		bt_str_add(out, "\nconnection:\n");
		help_options(bt_cli_client_options, bt_cli_client_options_len, out);
	}
	bt_str_add(out, "\nexit codes:\n");
	for (const char *p = c->exits; *p;) {
		int code = 0, used = 0;
		if (sscanf(p, "%d %n", &code, &used) != 1)
			break;
		bt_str_addf(out, "  %-5d", code);
		fold(out, exit_meaning(code), 7);
		p += used;
	}
	if (c->n_examples)
		bt_str_add(out, "\nexamples:\n");
	for (size_t i = 0; i < c->n_examples; i++)
		bt_str_addf(out, "  %s\n", c->examples[i]);
}

static void markdown_options(const struct bt_cli_option *options, size_t n, struct bt_str *out)
{
	if (!n)
		return;
	bt_str_add(out, "\n| option | |\n| --- | --- |\n");
	for (size_t i = 0; i < n; i++) {
		bt_str_add(out, "| `");
		option_names(&options[i], out);
		bt_str_addf(out, "` | %s |\n", options[i].help);
	}
}

static void markdown_command(const struct bt_cli_command *c, struct bt_str *out)
{
	bt_str_addf(out, "\n## baton %s\n\n```\nbaton %s%s%s%s\n```\n\n%s\n", c->name, c->name,
		*c->args ? " " : "", c->args, c->n_options || c->client ? " [OPTIONS]" : "",
		c->summary);
	for (const char *p = c->details; p && *p;) {
		size_t n = strcspn(p, "\n");
		bt_str_addf(out, "\n%.*s\n", (int)n, p);
		p += n + (p[n] == '\n');
	}
	markdown_options(c->options, c->n_options, out);
	bt_str_add(out, "\nExit codes: ");
	for (const char *p = c->exits; *p; p++)
		bt_str_addf(out, *p == ' ' ? ", " : "%c", *p);
	bt_str_add(out, c->client ? ". Talks to the server (see connection options).\n" : ".\n");
	if (c->n_examples)
		bt_str_add(out, "\n```\n");
	for (size_t i = 0; i < c->n_examples; i++)
		bt_str_addf(out, "%s\n", c->examples[i]);
	if (c->n_examples)
		bt_str_add(out, "```\n");
}

static void markdown(struct bt_str *out)
{
	bt_str_add(out, "# The command line\n\n"
			"<!-- written by `baton help --markdown` from the table in "
			"src/cli/commands.c; a test holds it there -->\n\n"
			"Options stand before or after the arguments. Errors are one line on "
			"standard error, `baton: …`.\n\n"
			"## Exit codes\n\n| code | meaning |\n| --- | --- |\n");
	for (size_t i = 0; i < bt_exit_table_len; i++)
		bt_str_addf(out, "| %d | %s |\n", bt_exit_table[i].code, bt_exit_table[i].meaning);
	bt_str_add(out,
		"\n## Connection options\n\n"
		"Of every command that talks to a server. Without any of them, a `baton up` of "
		"the same user on the same machine is found.\n");
	markdown_options(bt_cli_client_options, bt_cli_client_options_len, out);
	for (size_t i = 0; i < bt_cli_commands_len; i++)
		if (!bt_cli_commands[i].hidden)
			markdown_command(&bt_cli_commands[i], out);
}

int bt_cmd_help(struct bt_cli *cli, struct bt_err *err)
{
	BT_STR struct bt_str out = {0};
	const char *shell = bt_cli_get(cli, "completion"), *page = bt_cli_get(cli, "man");
	if (bt_cli_has(cli, "markdown")) {
		markdown(&out);
	} else if (shell) {
		if (!bt_streq(shell, "bash"))
			return bt_err_set(
				err, BT_E_CONFIG, "--completion %s: expected bash", shell);
		bt_cli_bash_completion(&out);
	} else if (page) {
		int r = bt_cli_man(page, &out, err);
		if (r < 0)
			return r;
	} else if (!cli->n_args) {
		overview(&out);
	} else {
		struct bt_cli asked;
		char *words[] = {
			(char *)cli->args[0], (char *)bt_cli_arg(cli, 1), (char *)"--help"};
		if (!words[1])
			words[1] = words[2];
		int r = bt_cli_parse(cli->n_args == 1 ? 2 : 3, words, &asked, err);
		if (r < 0)
			return r;
		bt_cli_command_help(asked.command, &out);
	}
	fputs(bt_str_get(&out), stdout);
	return 0;
}

int bt_cmd_version(struct bt_cli *cli, struct bt_err *err)
{
	(void)cli;
	(void)err;
	printf("baton %s\n", bt_version);
	return 0;
}
