/* The client's frame: one table of commands from which parsing, `baton help` and docs/cli.md come.
 */
#pragma once
#include "base/err.h"
#include "base/str.h"

enum bt_exit { /* documented in docs/cli.md, from bt_exit_table */
	BT_EXIT_OK = 0,
	BT_EXIT_FAILED = 1,	 /* nothing is left half done: rolled back, refused, or not begun */
	BT_EXIT_USAGE = 2,	 /* the command line, baton.yaml, the token */
	BT_EXIT_STUCK = 3,	 /* failed and NOT rolled back */
	BT_EXIT_LEASE = 4,	 /* another deployment of the service is running */
	BT_EXIT_UNREACHABLE = 5, /* no answer from the server */
	BT_EXIT_INTERRUPTED = 130,
};
struct bt_exit_info {
	int code;
	const char *meaning;
};
extern const struct bt_exit_info bt_exit_table[];
extern const size_t bt_exit_table_len;

struct bt_cli_option {
	const char *name;  /* long name without dashes */
	char letter;	   /* 0: none */
	const char *value; /* what the value is called; NULL: a switch; "[=…]": may be left out */
	const char *help;
};

#define BT_CLI_MAX_ARGS 64
#define BT_CLI_MAX_SET 64

struct bt_cli;
struct bt_cli_command {
	const char *name; /* "deploy", "server init": one or two words */
	const char *args; /* for the usage line: "SERVICE", "[FILE…]"; "" */
	int min_args, max_args;
	const char *heading; /* of the overview, above this and what follows; NULL: none */
	const char *summary; /* one sentence */
	const char *details; /* paragraphs; NULL */
	const struct bt_cli_option *options;
	size_t n_options;
	bool hidden;	   /* for programs: no help lists it */
	bool client;	   /* talks to a server: the connection options apply */
	const char *exits; /* codes it may end with, "0 1 2" */
	const char *const *examples;
	size_t n_examples;
	int (*run)(struct bt_cli *cli, struct bt_err *err); /* exit code, or < 0 and err */
};
extern const struct bt_cli_command bt_cli_commands[];
extern const size_t bt_cli_commands_len;
extern const struct bt_cli_option bt_cli_client_options[];
extern const size_t bt_cli_client_options_len;

struct bt_cli {
	const struct bt_cli_command *command;
	const char *args[BT_CLI_MAX_ARGS];
	size_t n_args;
	struct {
		const struct bt_cli_option *option;
		const char *value; /* "" for a switch */
	} set[BT_CLI_MAX_SET];
	size_t n_set;
	bool help; /* --help was given */
};

/* argv without the program's name. BT_E_CONFIG with the nearest word and where help is. */
int bt_cli_parse(int argc, char **argv, struct bt_cli *ret, struct bt_err *err);
/* The last value given; NULL where the option is absent. */
const char *bt_cli_get(const struct bt_cli *cli, const char *option);
bool bt_cli_has(const struct bt_cli *cli, const char *option);
const char *bt_cli_arg(const struct bt_cli *cli, size_t i); /* NULL where absent */

void bt_cli_command_help(const struct bt_cli_command *c, struct bt_str *out);
const struct bt_cli_command *bt_cli_find(const char *name);
/* The option of a long name of len bytes, or of a letter (name NULL); connection options too. */
const struct bt_cli_option *bt_cli_option_find(
	const struct bt_cli_command *c, const char *name, size_t len, char letter);
/* man.c: "baton.1", "baton.yaml.5"; BT_E_CONFIG for another. */
int bt_cli_man(const char *page, struct bt_str *out, struct bt_err *err);
void bt_cli_bash_completion(struct bt_str *out); /* complete.c: the script that bash reads */

/* What an error means for whoever started us. */
int bt_exit_code(int err_code);
struct bt_server_spec;
/* --keep-runs and --keep-for of a server. */
int bt_cli_keep(const struct bt_cli *cli, struct bt_server_spec *spec, struct bt_err *err);
/* State directory of `baton up`: --dir, BATON_DIR, or the user's default. Caller frees. */
char *bt_cli_state_dir(const struct bt_cli *cli);

/* All of it: parse, run, one line for an error; the exit code. */
int bt_cli_main(int argc, char **argv);

/* The commands. */
int bt_cmd_lint(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_plan(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_deploy(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_run(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_flows(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_flows_show(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_apply(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_diff(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_restart(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_rollback(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_init(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_adopt(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_show(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_operate(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_lock(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_unlock(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_freeze_add(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_freeze_list(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_freeze_remove(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_status(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_history(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_release_list(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_release_show(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_release_mark(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_release_prune(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_hosts(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_top(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_logs(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_token_create(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_token_list(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_token_revoke(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_hosts_upgrade(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_audit(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_page(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_join_token(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_up(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_server_init(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_server_run(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_backup(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_restore(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_agent_run(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_agent_join(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_complete(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_version(struct bt_cli *cli, struct bt_err *err);
int bt_cmd_help(struct bt_cli *cli, struct bt_err *err);
