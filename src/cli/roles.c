/* `server` and `agent`: the other roles of the same binary, in the foreground. */
#include "agent/agent.h"
#include "base/fs.h"
#include "base/log.h"
#include "cli/view.h"
#include "cli/cli.h"
#include "server/backup.h"
#include "server/server.h"

#include <signal.h>
#include <stdio.h>

static size_t names_of(const struct bt_cli *cli, const char *names[static BT_CLI_MAX_SET])
{
	size_t n = 0;
	for (size_t i = 0; i < cli->n_set; i++)
		if (bt_streq(cli->set[i].option->name, "name"))
			names[n++] = cli->set[i].value;
	return n;
}

int bt_cmd_server_init(struct bt_cli *cli, struct bt_err *err)
{
	const char *names[BT_CLI_MAX_SET];
	BT_FREE char *dir = bt_cli_state_dir(cli);
	BT_FREE char *token = NULL;
	struct bt_server_spec spec = {.state_dir = dir, .names = names};
	spec.n_names = names_of(cli, names);
	int r = bt_server_init(&spec, &token, err);
	if (r < 0)
		return r;
	fprintf(stderr,
		"%s is set up. The first admin token, shown only now; keep it, and use it as "
		"BATON_TOKEN:\n",
		dir);
	puts(token);
	fprintf(stderr, "next: baton server run --dir %s\n", dir);
	return 0;
}

int bt_cli_keep(const struct bt_cli *cli, struct bt_server_spec *spec, struct bt_err *err)
{
	const char *runs = bt_cli_get(cli, "keep-runs"), *time = bt_cli_get(cli, "keep-for");
	if (runs && bt_int_parse(runs, 1, 1000000, &spec->keep_runs, err) < 0)
		return bt_err_wrap(err, "--keep-runs");
	if (time && bt_duration_parse(time, &spec->keep_for_ms, err) < 0)
		return bt_err_wrap(err, "--keep-for");
	if (time && spec->keep_for_ms < 1)
		return bt_err_set(err, BT_E_CONFIG, "--keep-for: expected a time such as 90d");
	return 0;
}

static void on_stop(evutil_socket_t number, short what, void *arg)
{
	(void)number;
	(void)what;
	event_base_loopbreak(arg);
}

int bt_cmd_server_run(struct bt_cli *cli, struct bt_err *err)
{
	const char *names[BT_CLI_MAX_SET];
	BT_FREE char *dir = bt_cli_state_dir(cli);
	struct bt_server_spec spec = {.state_dir = dir,
		.names = names,
		.listen = bt_cli_get(cli, "listen"),
		.agents_listen = bt_cli_get(cli, "agent-listen"),
		.tls_cert = bt_cli_get(cli, "cert"),
		.tls_key = bt_cli_get(cli, "key")};
	spec.n_names = names_of(cli, names);
	int r = bt_cli_keep(cli, &spec, err);
	if (r < 0)
		return r;
	if (!bt_server_initialised(dir))
		return bt_err_set(err, BT_E_CONFIG,
			"%s is not set up yet: baton server init --dir %s", dir, dir);
	struct event_base *base = event_base_new();
	struct event *term = evsignal_new(base, SIGTERM, on_stop, base);
	struct event *intr = evsignal_new(base, SIGINT, on_stop, base);
	evsignal_add(term, NULL);
	evsignal_add(intr, NULL);
	struct bt_server *server = NULL;
	r = bt_server_run(base, &spec, &server, err);
	if (r == 0) {
		bt_log(NULL, BT_LOG_INFO,
			"baton " BATON_VERSION " serves people at %s, agents at %s",
			bt_server_url(server), bt_server_agents_url(server));
		event_base_dispatch(base);
		bt_log(NULL, BT_LOG_INFO, "stopping; runs go on where they are at the next start");
	}
	bt_server_free(server);
	event_free(term);
	event_free(intr);
	/* libevent lets go of a connection in its loop when a callback was on its way */
	event_base_loop(base, EVLOOP_NONBLOCK);
	event_base_free(base);
	return r;
}

static char *agent_dir(const struct bt_cli *cli)
{
	if (bt_cli_has(cli, "dir") || getenv("BATON_DIR"))
		return bt_cli_state_dir(cli);
	BT_FREE char *dir = bt_cli_state_dir(cli);
	return bt_asprintf("%s-agent", dir);
}

int bt_cmd_agent_run(struct bt_cli *cli, struct bt_err *err)
{
	BT_FREE char *dir = agent_dir(cli);
	if (!bt_agent_is_joined(dir))
		return bt_err_set(err, BT_E_CONFIG,
			"%s has no certificate yet: baton agent join URL --token T --dir %s", dir,
			dir);
	return bt_agent_main(&(struct bt_agent_spec){.state_dir = dir,
				     .server_url = bt_cli_get(cli, "server"),
				     .policy_file = bt_cli_get(cli, "policy"),
				     .own_machine = bt_cli_has(cli, "own-machine")},
		err);
}

int bt_cmd_agent_join(struct bt_cli *cli, struct bt_err *err)
{
	BT_FREE char *dir = agent_dir(cli);
	const char *token = bt_cli_get(cli, "token");
	if (!token)
		token = getenv("BATON_JOIN_TOKEN");
	if (!token || !*token)
		return bt_err_set(err, BT_E_CONFIG,
			"a join token is needed: --token T (an admin makes one with `baton "
			"join-token HOST`)");
	int r = bt_agent_join(
		cli->args[0], token, dir, bt_cli_get(cli, "host"), bt_cli_get(cli, "address"), err);
	if (r < 0)
		return r;
	printf("joined; next: baton agent run --dir %s\n", dir);
	return 0;
}

/* ---- backup and restore ---------------------------------------------------------------------- */

/* The server's directory; `baton up` keeps it below its own. */
static char *server_dir(const struct bt_cli *cli)
{
	char *dir = bt_cli_state_dir(cli);
	BT_FREE char *client = bt_asprintf("%s/client.json", dir);
	if (bt_server_initialised(dir) || !bt_fs_exists(client))
		return dir;
	char *below = bt_asprintf("%s/server", dir);
	free(dir);
	return below;
}

static void print_stats(const char *file, const struct bt_backup_stats *s)
{
	char size[32];
	bt_view_amount(s->bytes, size);
	printf("%s: store %.8s of %s, %zu artifact%s, %s\n", file, s->store_id, s->made_at,
		s->artifacts, s->artifacts == 1 ? "" : "s", size);
}

int bt_cmd_backup(struct bt_cli *cli, struct bt_err *err)
{
	BT_FREE char *dir = server_dir(cli);
	struct bt_backup_stats stats = {0};
	int r = bt_server_backup(
		dir, cli->args[0], !bt_cli_has(cli, "without-artifacts"), &stats, err);
	if (r == 0)
		print_stats(cli->args[0], &stats);
	return r;
}

int bt_cmd_restore(struct bt_cli *cli, struct bt_err *err)
{
	BT_FREE char *dir = server_dir(cli);
	struct bt_backup_stats stats = {0};
	if (!bt_cli_has(cli, "dir"))
		return bt_err_set(err, BT_E_CONFIG,
			"restore replaces a server's state: say which with --dir DIR");
	int r = bt_server_restore(cli->args[0], dir, &stats, err);
	if (r < 0)
		return r;
	print_stats(cli->args[0], &stats);
	if (stats.replaced)
		printf("what was in %s lies in %s\n", dir, stats.replaced);
	printf("next: start the server on %s; tokens that were revoked since %s are good again: "
	       "`baton token list`\n",
		dir, stats.made_at);
	free(stats.replaced);
	return 0;
}
