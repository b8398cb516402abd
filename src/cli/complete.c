/* What bash may offer for the word at the cursor. The script that bash reads only asks here, so the
 * table of commands, which usage lines and parsing come from, is what completion knows, too: the
 * words of a usage line (SERVICE, RELEASE …) say what is looked up. A person waits with a key
 * pressed: the server gets a moment, and every failure is silence. */
#include "cli/client.h"
#include "cli/files.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_MS 800

struct complete {
	const char *begin;   /* what stands at the cursor already */
	const char *before;  /* "--slot=" where option and value are one word; "" */
	struct bt_cli typed; /* command, arguments and options before the cursor */
	struct bt_str *out;
};

static void offer(struct complete *c, const char *word)
{
	if (!word || !bt_str_starts(word, c->begin))
		return;
	/* A word that the shell would read as something else cannot be offered. */
	for (const char *p = word; *p; p++)
		if ((unsigned char)*p <= ' ' || strchr("\"'`$\\;&|<>(){}[]*?!#~:=", *p))
			return;
	bt_str_addf(c->out, "%s%s\n", c->before, word);
}

static json_t *ask(struct complete *c, const char *path)
{
	BT_CLIENT struct bt_client *client = NULL;
	json_t *j = NULL;
	if (bt_client_open(&c->typed, &client, NULL) < 0)
		return NULL;
	client->patience_ms = PATIENCE_MS;
	return bt_client_get(client, path, &j, NULL) == 0 ? j : NULL;
}

static void offer_each(struct complete *c, const char *path, const char *list, const char *key)
{
	BT_JSON json_t *j = ask(c, path);
	size_t i;
	json_t *one;
	json_array_foreach (json_object_get(j, list), i, one)
		offer(c, json_string_value(json_object_get(one, key)));
}

/* ---- what a word of a usage line stands for ------------------------------------------------ */

static void services(struct complete *c)
{
	/* A service that was never deployed is known to the file alone. */
	struct bt_config *config = NULL;
	bool reads_file = false;
	for (size_t i = 0; c->typed.command && i < c->typed.command->n_options; i++)
		reads_file = reads_file || bt_streq(c->typed.command->options[i].name, "file");
	if (reads_file && bt_files_config(&c->typed, &config, NULL) == 0) {
		for (size_t i = 0; i < config->n_services; i++)
			offer(c, config->services[i].name);
		bt_config_free(config);
		return;
	}
	offer_each(c, "/v1/services", "services", "name");
}

static void deployments(struct complete *c)
{
	BT_JSON json_t *j = ask(c, "/v1/deployments?limit=20");
	size_t i;
	json_t *one;
	bt_str_add(c->out, "<nosort>\n"); /* the newest first */
	json_array_foreach (json_object_get(j, "deployments"), i, one) {
		BT_FREE char *id = bt_asprintf(
			"%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(one, "id")));
		offer(c, id);
	}
}

static void releases(struct complete *c)
{
	const char *service = bt_cli_arg(&c->typed, 0);
	BT_FREE char *name = service ? bt_url_escape(service) : NULL;
	BT_FREE char *path = bt_asprintf("/v1/services/%s/releases", name ? name : "");
	if (service)
		offer_each(c, path, "releases", "version");
}

static void slots(struct complete *c)
{
	const char *service = bt_cli_arg(&c->typed, 0);
	BT_FREE char *name = service ? bt_url_escape(service) : NULL;
	BT_FREE char *path = bt_asprintf("/v1/services/%s", name ? name : "");
	BT_JSON json_t *j = service ? ask(c, path) : NULL;
	const json_t *map =
		json_object_get(json_object_get(json_object_get(j, "config"), "run"), "slots");
	const char *slot;
	json_t *port;
	json_object_foreach ((json_t *)map, slot, port)
		offer(c, slot);
}

static void hosts(struct complete *c)
{
	offer_each(c, "/v1/hosts", "hosts", "name");
}

static void roles(struct complete *c)
{
	static const char *const names[] = {"viewer", "deployer", "admin"};
	for (size_t i = 0; i < BT_ARRAY_LEN(names); i++)
		offer(c, names[i]);
}

static void shells(struct complete *c)
{
	offer(c, "bash");
}

static void files(struct complete *c)
{
	bt_str_add(c->out, "<files>\n");
}

static bool said_before(size_t command, const char *first)
{
	size_t n = strlen(first);
	for (size_t i = 0; i < command; i++)
		if (bt_str_starts(bt_cli_commands[i].name, first) &&
			strchr(" ", bt_cli_commands[i].name[n]))
			return true;
	return false;
}

static void commands(struct complete *c)
{
	for (size_t i = 0; i < bt_cli_commands_len; i++) {
		BT_FREE char *first =
			bt_strndup(bt_cli_commands[i].name, strcspn(bt_cli_commands[i].name, " "));
		if (!bt_cli_commands[i].hidden && !said_before(i, first))
			offer(c, first);
	}
}

static void second_words(struct complete *c, const char *first)
{
	size_t n = strlen(first);
	for (size_t i = 0; i < bt_cli_commands_len; i++)
		if (bt_str_starts(bt_cli_commands[i].name, first) &&
			bt_cli_commands[i].name[n] == ' ' && !bt_cli_commands[i].hidden)
			offer(c, bt_cli_commands[i].name + n + 1);
}

static const struct {
	const char *word;
	void (*offer)(struct complete *c);
} kinds[] = {{"SERVICE", services}, {"DEPLOYMENT", deployments}, {"RELEASE", releases},
	{"SLOT", slots}, {"HOST", hosts}, {"ROLE", roles}, {"SHELL", shells}, {"FILE", files},
	{"DIR", files}, {"COMMAND", commands}};

/* "[FILE…]", "DEPLOYMENT|SERVICE" */
static void offer_kinds(struct complete *c, const char *usage, size_t n)
{
	for (size_t at = 0; at < n;) {
		size_t len = 0;
		while (at + len < n && ((usage[at + len] >= 'A' && usage[at + len] <= 'Z')))
			len++;
		for (size_t k = 0; len && k < BT_ARRAY_LEN(kinds); k++)
			if (strlen(kinds[k].word) == len &&
				strncmp(kinds[k].word, usage + at, len) == 0)
				kinds[k].offer(c);
		at += len ? len : 1;
	}
}

static void offer_argument(struct complete *c)
{
	const char *usage = c->typed.command->args;
	for (size_t i = 0; *usage; i++) {
		size_t n = strcspn(usage, " ");
		if (i == c->typed.n_args || (!usage[n] && strstr(usage, "…"))) {
			offer_kinds(c, usage, n);
			return;
		}
		usage += n + (usage[n] == ' ');
	}
}

static void offer_options(struct complete *c, const struct bt_cli_option *options, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		BT_FREE char *word = bt_asprintf("--%s", options[i].name);
		offer(c, word);
	}
}

/* ---- the line ------------------------------------------------------------------------------ */

static void offer_for(struct complete *c, const struct bt_cli_option *open)
{
	const struct bt_cli_command *command = c->typed.command;
	const char *equals = strchr(c->begin, '=');
	if (!open && bt_str_starts(c->begin, "--") && equals) {
		open = bt_cli_option_find(
			command, c->begin + 2, (size_t)(equals - c->begin) - 2, 0);
		c->before = bt_strndup(c->begin, (size_t)(equals - c->begin) + 1);
		c->begin = equals + 1;
		if (!open)
			return;
	}
	if (open) {
		offer_kinds(c, open->value, strlen(open->value));
	} else if (c->begin[0] == '-') {
		offer_options(c, command->options, command->n_options);
		if (command->client)
			offer_options(c, bt_cli_client_options, bt_cli_client_options_len);
		offer(c, "--help");
	} else {
		offer_argument(c);
	}
}

/* Reads the words between the command and the cursor; the option that waits for its value there. */
static const struct bt_cli_option *read_typed(
	struct bt_cli *cli, const char *const *words, size_t n)
{
	const struct bt_cli_option *open = NULL;
	bool only_args = false;
	for (size_t i = 0; i < n; i++) {
		const char *w = words[i];
		if (bt_streq(w, "=") && open)
			continue; /* bash makes three words of --slot=blue */
		const struct bt_cli_option *before = open;
		open = NULL;
		if (before) {
			if (cli->n_set < BT_CLI_MAX_SET) {
				cli->set[cli->n_set].option = before;
				cli->set[cli->n_set++].value = w;
			}
		} else if (only_args || w[0] != '-' || !w[1]) {
			if (cli->n_args < BT_CLI_MAX_ARGS)
				cli->args[cli->n_args++] = w;
		} else if (bt_streq(w, "--")) {
			only_args = true;
		} else if (w[1] == '-') {
			if (!strchr(w, '='))
				open = bt_cli_option_find(cli->command, w + 2, strlen(w + 2), 0);
		} else if (!w[2]) {
			open = bt_cli_option_find(cli->command, NULL, 0, w[1]);
		}
		if (open && (!open->value || open->value[0] == '['))
			open = NULL;
	}
	return open;
}

/* The words after "baton", the last one being typed; a line a candidate, and "<files>" where the
 * shell's own file names fit, "<nosort>" where the order matters. */
static void complete(const char *const *words, size_t n, struct bt_str *out)
{
	struct complete c = {.begin = n ? words[n - 1] : "", .before = "", .out = out};
	if (n <= 1) {
		commands(&c);
		return;
	}
	n--; /* the word at the cursor is no word yet */
	size_t used = 1;
	if (n > 1) {
		BT_FREE char *two = bt_asprintf("%s %s", words[0], words[1]);
		if ((c.typed.command = bt_cli_find(two)))
			used = 2;
	}
	if (used == 1) {
		c.typed.command = bt_cli_find(words[0]);
		if (n == 1)
			second_words(&c, words[0]);
	}
	if (!c.typed.command)
		return;
	const struct bt_cli_option *open = read_typed(&c.typed, words + used, n - used);
	if (open && bt_streq(c.begin, "="))
		c.begin = "";
	offer_for(&c, open);
	if (*c.before)
		free((char *)c.before);
}

/* complete CWORD WORD…, as bash has them. */
int bt_cmd_complete(struct bt_cli *cli, struct bt_err *err)
{
	BT_STR struct bt_str out = {0};
	int64_t at = 0;
	int r = bt_int_parse(cli->args[0], 1, BT_CLI_MAX_ARGS, &at, err);
	if (r < 0)
		return r;
	const char *words[BT_CLI_MAX_ARGS] = {0};
	size_t n = 0;
	for (size_t i = 2; i < cli->n_args && i <= (size_t)at + 1; i++)
		words[n++] = cli->args[i];
	if (n < (size_t)at)
		words[n++] = "";
	/* What goes wrong with a lookup is nothing that belongs on a command line. */
	if (!freopen("/dev/null", "w", stderr))
		return BT_EXIT_FAILED;
	complete(words, n, &out);
	fputs(bt_str_get(&out), stdout);
	return 0;
}

static const char script[] = "# bash completion for baton; asks the program itself\n"
			     "_baton() {\n"
			     "\tlocal word\n"
			     "\tCOMPREPLY=()\n"
			     "\twhile IFS= read -r word; do\n"
			     "\t\tcase $word in\n"
			     "\t\t'<files>') compopt -o default ;;\n"
			     "\t\t'<nosort>') compopt -o nosort ;;\n"
			     "\t\t*) COMPREPLY+=(\"$word\") ;;\n"
			     "\t\tesac\n"
			     "\tdone < <(timeout 2 \"$1\" complete -- \"$COMP_CWORD\" "
			     "\"${COMP_WORDS[@]}\" 2>/dev/null)\n"
			     "} 2>/dev/null\n"
			     "complete -F _baton baton\n";

void bt_cli_bash_completion(struct bt_str *out)
{
	bt_str_add(out, script);
}
