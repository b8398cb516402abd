#include "cli/cli.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int bt_cli_main(int argc, char **argv)
{
	struct bt_cli cli;
	struct bt_err err = {0};
	setlocale(LC_TIME, "C");
	signal(SIGPIPE, SIG_IGN);
	int r = bt_cli_parse(argc - 1, argv + 1, &cli, &err);
	if (r == 0 && cli.help) {
		BT_STR struct bt_str out = {0};
		bt_cli_command_help(cli.command, &out);
		fputs(bt_str_get(&out), stdout);
		return 0;
	}
	if (r == 0)
		r = cli.command->run(&cli, &err);
	if (r >= 0 && fflush(stdout) == EOF && errno != EPIPE) {
		perror("baton: standard output");
		return BT_EXIT_FAILED;
	}
	if (r >= 0)
		return r;
	fprintf(stderr, "baton: %s\n", err.text[0] ? err.text : "failed without a reason");
	return bt_exit_code(r);
}
