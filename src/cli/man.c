/* Manual pages, from the same tables as `baton help`, docs/cli.md and docs/config.md. */
#include "cli/cli.h"
#include "config/keys.h"

#include <stdio.h>
#include <string.h>

/* Text of the tables: `code` becomes bold, and nothing of it is a request. */
static void text(struct bt_str *out, const char *t)
{
	bool code = false, begins = true;
	for (; t && *t; t++) {
		if (begins && (*t == '.' || *t == '\''))
			bt_str_add(out, "\\&");
		begins = *t == '\n';
		switch (*t) {
		case '`':
			code = !code;
			bt_str_add(out, code ? "\\fB" : "\\fR");
			break;
		case '\\':
			bt_str_add(out, "\\e");
			break;
		case '-':
			bt_str_add(out, "\\-");
			break;
		case '~':
			bt_str_add(out, "\\(ti");
			break;
		case '^':
			bt_str_add(out, "\\(ha");
			break;
		default:
			bt_str_addc(out, *t);
		}
	}
}

static void paragraphs(struct bt_str *out, const char *t)
{
	while (t && *t) {
		size_t n = strcspn(t, "\n");
		BT_FREE char *one = bt_strndup(t, n);
		bt_str_add(out, ".PP\n");
		text(out, one);
		bt_str_addc(out, '\n');
		t += n + (t[n] == '\n');
	}
}

static void options(struct bt_str *out, const struct bt_cli_option *o, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bt_str_add(out, ".TP\n");
		if (o[i].letter)
			bt_str_addf(out, "\\fB\\-%c\\fR, ", o[i].letter);
		bt_str_add(out, "\\fB\\-\\-");
		text(out, o[i].name);
		bt_str_add(out, "\\fR");
		if (o[i].value) {
			bt_str_add(out, o[i].value[0] == '[' ? "\\fI" : " \\fI");
			text(out, o[i].value);
			bt_str_add(out, "\\fR");
		}
		bt_str_addc(out, '\n');
		text(out, o[i].help);
		bt_str_addc(out, '\n');
	}
}

static void command(struct bt_str *out, const struct bt_cli_command *c)
{
	bt_str_addf(out, ".SS \"baton %s", c->name);
	bt_str_addf(out, "%s%s%s\"\n", *c->args ? " " : "", c->args,
		c->n_options || c->client ? " [OPTIONS]" : "");
	text(out, c->summary);
	bt_str_addc(out, '\n');
	paragraphs(out, c->details);
	options(out, c->options, c->n_options);
	bt_str_add(out, ".PP\nExit status: ");
	for (const char *p = c->exits; *p; p++)
		bt_str_addf(out, *p == ' ' ? ", " : "%c", *p);
	bt_str_add(out, c->client ? ". Takes the connection options.\n" : ".\n");
	if (!c->n_examples)
		return;
	bt_str_add(out, ".PP\n.EX\n");
	for (size_t i = 0; i < c->n_examples; i++) {
		bt_str_add(out, "    ");
		text(out, c->examples[i]);
		bt_str_addc(out, '\n');
	}
	bt_str_add(out, ".EE\n");
}

static const char *const variables[][2] = {
	{"BATON_SERVER", "Address of the server, as `--server`."},
	{"BATON_TOKEN", "Access token, as `--token`; `ps` does not show it."},
	{"BATON_CACERT", "The certificate authority to trust, as `--cacert`."},
	{"BATON_DIR", "State directory of `baton up` and of the server, as `--dir`."},
	{"BATON_JOIN_TOKEN", "Join token for `baton agent join`."},
	{"NO_COLOR", "Set to anything: no colours on a terminal."},
};
static const char *const places[][2] = {
	{"baton.yaml", "The services, in the directory where `baton deploy` is called; see "
		       "baton.yaml(5)."},
	{"~/.config/baton/client.json", "JSON with url, token and cacert of the usual server."},
	{"/etc/baton/policy.yaml", "What tasks may do on a host."},
	{"/var/lib/baton", "State of the server and of an agent."},
};

static void pairs(struct bt_str *out, const char *const (*list)[2], size_t n)
{
	for (size_t i = 0; i < n; i++) {
		bt_str_add(out, ".TP\n\\fB");
		text(out, list[i][0]);
		bt_str_add(out, "\\fR\n");
		text(out, list[i][1]);
		bt_str_addc(out, '\n');
	}
}

static void page_baton(struct bt_str *out)
{
	bt_str_add(out,
		".TH BATON 1 \"\" \"baton " BATON_VERSION "\" \"User Commands\"\n"
		".SH NAME\nbaton \\- hand live traffic from one version of a service to the "
		"next\n"
		".SH SYNOPSIS\n\\fBbaton\\fR \\fICOMMAND\\fR [\\fIARGS\\fR] "
		"[\\fIOPTIONS\\fR]\n"
		".SH DESCRIPTION\n"
		"baton deploys services to servers that you own, without dropping a "
		"request: it starts the new version beside the old one, waits until it is "
		"healthy, moves the traffic, watches, and goes back by itself when "
		"something fails.\n"
		".PP\nOptions stand before or after the arguments. An error is one line on "
		"standard error.\n"
		".SH COMMANDS\n");
	for (size_t i = 0; i < bt_cli_commands_len; i++)
		if (!bt_cli_commands[i].hidden)
			command(out, &bt_cli_commands[i]);
	bt_str_add(out, ".SH CONNECTION OPTIONS\nOf every command that talks to a server. Without "
			"any of them, a \\fBbaton up\\fR of the same user on the same machine is "
			"found.\n");
	options(out, bt_cli_client_options, bt_cli_client_options_len);
	bt_str_add(out, ".SH EXIT STATUS\n");
	for (size_t i = 0; i < bt_exit_table_len; i++) {
		bt_str_addf(out, ".TP\n\\fB%d\\fR\n", bt_exit_table[i].code);
		text(out, bt_exit_table[i].meaning);
		bt_str_addc(out, '\n');
	}
	bt_str_add(out, ".SH ENVIRONMENT\n");
	pairs(out, variables, BT_ARRAY_LEN(variables));
	bt_str_add(out, ".SH FILES\n");
	pairs(out, places, BT_ARRAY_LEN(places));
	bt_str_add(out, ".SH SEE ALSO\n\\fBbaton.yaml\\fR(5)\n");
}

static void labelled(struct bt_str *out, const char *label, const char *value)
{
	bt_str_addf(out, ".br\n%s: ", label);
	text(out, value);
	bt_str_addc(out, '\n');
}

static void key(struct bt_str *out, const struct bt_key *k)
{
	BT_STR struct bt_str kind = {0};
	if (!k->type) {
		bt_str_addf(out, ".SS %s\n", k->path);
		text(out, k->doc);
		bt_str_addc(out, '\n');
		return;
	}
	bt_str_add(out, ".TP\n\\fB");
	text(out, k->path);
	bt_str_add(out, "\\fR (");
	bt_config_key_kind(k, &kind);
	text(out, bt_str_get(&kind));
	bt_str_add(out, k->required ? ", required)\n" : ")\n");
	text(out, k->doc);
	bt_str_addc(out, '\n');
	if (k->def || k->derived)
		labelled(out, "Default", k->def ? k->def : k->derived);
	if (k->example)
		labelled(out, "Example", k->example);
}

static void page_config(struct bt_str *out)
{
	bt_str_add(out, ".TH BATON.YAML 5 \"\" \"baton " BATON_VERSION "\" \"File Formats\"\n"
			".SH NAME\nbaton.yaml \\- services and how baton deploys them\n"
			".SH SYNOPSIS\n.EX\n"
			"service: hello\nartifact: hello.jar\nrun:\n"
			"  command: java \\-jar {artifact} \\-\\-server.port={port}\n"
			"  slots: {blue: 8081, green: 8082}\n"
			"health: {http: /health}\ntraffic: {nginx: {listen: \"8080\"}}\n.EE\n"
			".SH DESCRIPTION\n"
			"YAML, read strictly: an unknown key is an error that names the line, the "
			"column and the nearest right word. \\fBbaton lint\\fR checks it, "
			"\\fBbaton lint \\-\\-print\\fR prints it with every default, and "
			"\\fBbaton plan\\fR shows what a deployment would do.\n"
			".PP\nDurations carry a unit (500ms, 30s, 5m, 2h, 1d), and so do sizes "
			"(64k, 8m, 2g).\n"
			".SH KEYS\n");
	for (size_t i = 0; i < bt_n_keys; i++)
		key(out, &bt_keys[i]);
	bt_str_add(out, ".SH SEE ALSO\n\\fBbaton\\fR(1)\n");
}

static const struct {
	const char *name;
	void (*write)(struct bt_str *out);
} pages[] = {{"baton.1", page_baton}, {"baton.yaml.5", page_config}};

int bt_cli_man(const char *name, struct bt_str *out, struct bt_err *err)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(pages); i++)
		if (bt_streq(pages[i].name, name)) {
			pages[i].write(out);
			return 0;
		}
	return bt_err_set(err, BT_E_CONFIG, "--man %s: expected baton.1 or baton.yaml.5", name);
}
