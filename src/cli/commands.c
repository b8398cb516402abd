#include "cli/cli.h"

/* One row a command. Options come before or after the arguments; a switch has no value. */

const struct bt_exit_info bt_exit_table[] = {
	{BT_EXIT_OK, "done; for `deploy` and `rollback`: the release serves"},
	{BT_EXIT_FAILED,
		"failed, and nothing is left half done: rolled back, refused, or not begun"},
	{BT_EXIT_USAGE, "the command line, `baton.yaml`, the artifact or the token does not hold"},
	{BT_EXIT_STUCK,
		"failed and NOT rolled back: a person is needed (`baton show ID` says where)"},
	{BT_EXIT_LEASE, "another deployment of the service is running"},
	{BT_EXIT_UNREACHABLE, "the server does not answer"},
	{BT_EXIT_INTERRUPTED, "interrupted (SIGINT, SIGTERM); what was begun is rolled back"},
};
const size_t bt_exit_table_len = BT_ARRAY_LEN(bt_exit_table);

#define OPTIONS(name, ...) static const struct bt_cli_option name[] = {__VA_ARGS__}
#define EXAMPLES(name, ...) static const char *const name[] = {__VA_ARGS__}
#define WITH_OPTIONS(o) .options = o, .n_options = BT_ARRAY_LEN(o)
#define WITH_EXAMPLES(e) .examples = e, .n_examples = BT_ARRAY_LEN(e)

#define JSON_OPTION                                                                                \
	{                                                                                          \
		"json", 0, NULL, "print JSON for programs"                                         \
	}
#define ENV_OPTION                                                                                 \
	{                                                                                          \
		"env", 'e', "NAME",                                                                \
			"the environment: SERVICE stands for SERVICE@NAME then (see "              \
			"docs/config.md)"                                                          \
	}
#define FORCE_OPTION                                                                               \
	{                                                                                          \
		"force", 0, NULL,                                                                  \
			"also a release that is marked bad; of an admin also past a lock or a "    \
			"freeze"                                                                   \
	}
#define FILE_OPTION                                                                                \
	{                                                                                          \
		"file", 'f', "FILE",                                                               \
			"the config (default: baton.yaml); may be given several times"             \
	}
#define DIR_OPTION                                                                                 \
	{                                                                                          \
		"dir", 0, "DIR",                                                                   \
			"the state directory (default: BATON_DIR, /var/lib/baton as root, else "   \
			"~/.local/state/baton)"                                                    \
	}

const struct bt_cli_option bt_cli_client_options[] = {
	{"server", 's', "URL", "the server (default: BATON_SERVER)"},
	{"token", 0, "TOKEN", "the access token (default: BATON_TOKEN, which `ps` does not show)"},
	{"cacert", 0, "FILE", "trust only this certificate authority (default: BATON_CACERT)"},
	{"config", 0, "FILE",
		"JSON with url, token and cacert (default: ~/.config/baton/client.json, then what "
		"a local `baton up` wrote)"},
	DIR_OPTION,
};
const size_t bt_cli_client_options_len = BT_ARRAY_LEN(bt_cli_client_options);

#define KEEP_OPTIONS                                                                               \
	{"keep-runs", 0, "N", "forget a service's runs beyond this many (default: 1000)"},         \
	{                                                                                          \
		"keep-for", 0, "TIME",                                                             \
			"forget runs that ended longer ago, except the newest 20 of a service "    \
			"(default: 180d)"                                                          \
	}
OPTIONS(up_options, DIR_OPTION,
	{"listen", 0, "ADDR:PORT", "where the API listens (default: 127.0.0.1:7070)"},
	{"agent-listen", 0, "ADDR:PORT",
		"where agents of other hosts connect (default: 127.0.0.1:7071)"},
	KEEP_OPTIONS);
EXAMPLES(up_examples, "baton up", "baton up --dir /tmp/try --listen 127.0.0.1:8070");
#define NAME_OPTION                                                                                \
	{                                                                                          \
		"name", 0, "NAME",                                                                 \
			"a DNS name or IP address of this server; may be given several times"      \
	}
OPTIONS(server_init_options, DIR_OPTION, NAME_OPTION);
EXAMPLES(server_init_examples, "baton server init --name deploy.example.com");
OPTIONS(backup_options, DIR_OPTION,
	{"without-artifacts", 0, NULL,
		"leave the artifacts out: small, but what no host has any "
		"more cannot be rolled back to"});
EXAMPLES(backup_examples, "baton backup /backup/baton-$(date +%F).tar");
OPTIONS(restore_options, DIR_OPTION);
EXAMPLES(restore_examples, "baton restore /backup/baton-2026-11-21.tar --dir /var/lib/baton");
OPTIONS(server_run_options, DIR_OPTION,
	{"listen", 0, "ADDR:PORT", "where people connect (default: 127.0.0.1:7070)"},
	{"agent-listen", 0, "ADDR:PORT", "where agents connect (default: 0.0.0.0:7071)"},
	{"cert", 0, "FILE", "TLS certificate for people; without one only loopback is served"},
	{"key", 0, "FILE", "its key"}, NAME_OPTION, KEEP_OPTIONS);
EXAMPLES(server_run_examples,
	"baton server run --listen 0.0.0.0:7070 --cert deploy.pem --key deploy.key");
OPTIONS(agent_run_options, DIR_OPTION,
	{"own-machine", 0, NULL, "allow the caller's own user and paths, as `baton up` does"},
	{"server", 0, "URL", "the agents' address of the server (default: as joined)"},
	{"policy", 0, "FILE", "what tasks may do on this host (default: /etc/baton/policy.yaml)"});
OPTIONS(agent_join_options, DIR_OPTION,
	{"token", 0, "TOKEN",
		"from `baton join-token HOST`; works once (default: BATON_JOIN_TOKEN)"},
	{"host", 0, "NAME", "the host's name, as in the token (default: this machine's)"},
	{"address", 0, "ADDR", "how other hosts reach this one (default: its way to the server)"});
EXAMPLES(agent_join_examples, "baton agent join https://deploy.example.com:7071 --token btj_…");
OPTIONS(init_options, {"print", 0, NULL, "to standard output, no file"},
	{"file", 'f', "FILE", "the file to make (default: baton.yaml)"});
EXAMPLES(init_examples, "baton init", "sudo baton init --print");
OPTIONS(lint_options, FILE_OPTION, ENV_OPTION,
	{"print", 0, NULL, "print the config with every default filled in"});
EXAMPLES(lint_examples, "baton lint", "baton lint --print -f shop.yaml -f api.yaml");
#define ON_OPTIONS                                                                                 \
	{"hosts", 0, "HOST,…", "only on these hosts of the service, in the config's order"},       \
	{                                                                                          \
		"instances", 0, "SLOT,…", "only these instances on each host"                      \
	}
#define SERVICE_OPTION                                                                             \
	{                                                                                          \
		"service", 0, "SERVICE", "whose (default: the only one in baton.yaml)"             \
	}
#define BUNDLE_OPTIONS                                                                             \
	{"bundle", 0, "PATH",                                                                      \
		"a CodeDeploy bundle: a directory, zip, tar or tgz with an appspec in it"},        \
	{                                                                                          \
		"appspec", 0, "NAME",                                                              \
			"name of that appspec (default: appspec.yaml, then appspec.yml)"           \
	}
OPTIONS(plan_options, FILE_OPTION, ENV_OPTION, {"artifact", 'a', "FILE", "plan for this artifact"},
	BUNDLE_OPTIONS, {"version", 'v', "NAME", "name of the release to plan for (default: next)"},
	{"flow", 0, "FLOW", "plan this flow, or a deployment by this strategy"}, ON_OPTIONS,
	JSON_OPTION);
EXAMPLES(plan_examples, "baton plan", "baton plan shop --json",
	"baton plan shop --flow turnOffL4 --hosts was1");
OPTIONS(flows_options, SERVICE_OPTION, FILE_OPTION, ENV_OPTION,
	{"tasks", 0, NULL, "the tasks that flows are written with"},
	{"markdown", 0, NULL, "all of it, as docs/flows.md"}, JSON_OPTION);
EXAMPLES(flows_examples, "baton flows", "baton flows --tasks");
OPTIONS(flows_show_options, SERVICE_OPTION, FILE_OPTION, ENV_OPTION);
EXAMPLES(flows_show_examples, "baton flows show deployAndTomcatRestartWithL4Control");
OPTIONS(run_options,
	{"service", 0, "SERVICE,…",
		"whose (default: the only one in baton.yaml); several have a run each, in this "
		"order, "
		"until one fails"},
	ON_OPTIONS,
	{"artifact", 'a', "FILE",
		"what a flow that deploys brings (default: as in the config); with several "
		"services "
		"one for all, or SERVICE=FILE for each"},
	{"version", 'v', "NAME", "how people will call that release, such as a git tag"},
	FILE_OPTION, ENV_OPTION, {"yes", 'y', NULL, "do not ask on a terminal"}, FORCE_OPTION,
	{"detach", 'd', NULL, "leave as soon as the server has taken it over"},
	{"json", 0, NULL, "one event a line, as JSON"},
	{"build-url", 0, "URL", "noted with the run (default: BUILD_URL)"},
	{"commit", 0, "ID", "noted with the run (default: GIT_COMMIT)"},
	{"wait", 'w', "[=TIME]",
		"wait for the turn behind other runs of the service, at most TIME"});
EXAMPLES(run_examples,
	"baton run deployAndTomcatRestartWithL4Control --service shop --hosts was1,was2 -a "
	"shop.war -v 1.4.2",
	"baton run turnOffL4 --service shop --hosts was1",
	"baton run multiInstanceDeployToReleaseWithL4Control --service a,b -a a=a.war -a b=b.war "
	"-v "
	"7");
OPTIONS(deploy_options,
	{"artifact", 'a', "FILE",
		"what to deploy, or a pattern that matches one file (default: `artifact` in the "
		"config)"},
	BUNDLE_OPTIONS,
	{"version", 'v', "NAME", "how people will call this release, such as a git tag"},
	FILE_OPTION, ENV_OPTION, {"yes", 'y', NULL, "do not ask on a terminal"}, FORCE_OPTION,
	{"detach", 'd', NULL, "leave as soon as the server has taken it over"},
	{"json", 0, NULL, "one event a line, as JSON"},
	{"build-url", 0, "URL", "noted with the deployment (default: BUILD_URL)"},
	{"commit", 0, "ID", "noted with the deployment (default: GIT_COMMIT)"},
	{"wait", 'w', "[=TIME]",
		"wait for the turn behind other deployments of the service, at most TIME"});
EXAMPLES(deploy_examples, "baton deploy shop --artifact build/libs/shop.jar --version 1.4.2",
	"baton deploy -v \"$GIT_COMMIT\" --json   # the only service in baton.yaml");
OPTIONS(restart_options, FILE_OPTION, ENV_OPTION, FORCE_OPTION,
	{"wait", 'w', "[=TIME]",
		"wait for the turn behind other deployments of the service, at most TIME"},
	{"detach", 'd', NULL, "leave as soon as the server has taken it over"},
	{"json", 0, NULL, "one event a line, as JSON"},
	{"build-url", 0, "URL", "noted with the deployment (default: BUILD_URL)"},
	{"commit", 0, "ID", "noted with the deployment (default: GIT_COMMIT)"});
EXAMPLES(restart_examples, "baton restart shop",
	"DB_PASSWORD=new baton restart shop   # with another secret");
OPTIONS(apply_options, FILE_OPTION, ENV_OPTION,
	{"lock", 0, NULL, "from now on only admins may change it (admins)"},
	{"unlock", 0, NULL, "deployers may change it again (admins)"}, JSON_OPTION);
EXAMPLES(apply_examples, "baton apply", "baton apply shop --lock -f prod.yaml");
OPTIONS(diff_options, FILE_OPTION, ENV_OPTION);
EXAMPLES(diff_examples, "baton diff shop", "baton diff && echo same");
OPTIONS(adopt_options,
	{"version", 'v', "NAME", "how people will call what runs (default: adopted- and a number)"},
	FILE_OPTION, ENV_OPTION,
	{"detach", 'd', NULL, "leave as soon as the server has taken it over"},
	{"json", 0, NULL, "one event a line, as JSON"});
EXAMPLES(adopt_examples, "baton adopt shop", "baton adopt shop --version 1.4.1");
OPTIONS(json_only, JSON_OPTION);
OPTIONS(show_options, {"no-follow", 0, NULL, "say where one that still runs stands, and end"},
	JSON_OPTION);
OPTIONS(top_options, {"once", 0, NULL, "print everything once, on a terminal, too"});
OPTIONS(history_options, {"limit", 'n', "N", "how many (default: 20)"}, JSON_OPTION);
OPTIONS(logs_options, {"follow", 'f', NULL, "go on as lines are written"},
	{"lines", 'n', "N", "how many of the last lines of each instance (default: 100)"},
	{"slot", 0, "SLOT", "only this slot"}, {"host", 0, "HOST", "only this host"});
EXAMPLES(logs_examples, "baton logs -f shop", "baton logs shop --slot green --lines 20");
OPTIONS(hosts_options, {"remove", 0, "HOST", "revoke the certificate of this host"}, JSON_OPTION);
OPTIONS(mark_options, {"message", 'm', "WHY", "why, for who reads it later"}, JSON_OPTION);
OPTIONS(prune_options, {"json", 0, NULL, "one event a line, as JSON"});
OPTIONS(rollback_options, FORCE_OPTION,
	{"to", 0, "RELEASE", "version or number (default: the good one before the live one)"},
	{"detach", 'd', NULL, "leave as soon as the server has taken it over"},
	{"json", 0, NULL, "one event a line, as JSON"});
EXAMPLES(rollback_examples, "baton rollback shop", "baton rollback shop --to 1.4.1");
OPTIONS(why_options, {"why", 'm', "TEXT", "the reason, for the run's log and the audit"});
EXAMPLES(lock_examples, "baton lock shop -m 'stock-taking until six'");
OPTIONS(freeze_options, {"why", 'm', "TEXT", "the reason, for those who meet it"},
	{"service", 0, "PATTERN",
		"only this service, or those that a pattern such as shop-* names; may be given "
		"several times"},
	{"environment", 0, "NAME", "only in this environment; may be given several times"},
	{"zone", 0, "ZONE", "such as +09:00 or UTC (default: the server's own clock)"});
EXAMPLES(freeze_examples, "baton freeze add 'Fri 16:00-Mon 08:00' -m 'no Friday evenings'",
	"baton freeze add 2026-12-20..2027-01-03 --environment release -m holidays");
EXAMPLES(approve_examples, "baton approve 12 -m 'numbers look good'");
EXAMPLES(reject_examples, "baton reject shop -m 'checkout is slow'");
OPTIONS(token_create_options, {"role", 0, "ROLE", "viewer, deployer or admin (default: deployer)"},
	{"service", 0, "PATTERN",
		"only for this service, or those that a pattern such as shop-* names; may be given "
		"several times"},
	{"environment", 0, "NAME",
		"only in this environment: services named SERVICE@NAME; may be given several "
		"times"},
	{"ttl", 0, "TIME", "how long it is good, such as 30d (default: until it is revoked)"},
	JSON_OPTION);
EXAMPLES(token_create_examples, "baton token create jenkins --service shop --service 'api-*'",
	"baton token create night --environment dev --ttl 30d",
	"baton token create grafana --role viewer");
OPTIONS(audit_options, {"service", 0, "SERVICE", "only what was done to this service"},
	{"who", 0, "NAME", "only what this token or host did"},
	{"since", 0, "TIME", "only since then: 2h, 7d, or 2026-11-21T08:00:00Z"},
	{"limit", 'n', "N", "how many (default: 50)"}, JSON_OPTION);
EXAMPLES(audit_examples, "baton audit --service shop --since 7d", "baton audit --who jenkins");
OPTIONS(join_token_options, {"ttl", 0, "TIME", "how long it may be used (default: 15m)"},
	JSON_OPTION);
OPTIONS(help_options, {"markdown", 0, NULL, "all of it, as docs/cli.md"},
	{"completion", 0, "SHELL", "a completion script for this shell: bash"},
	{"man", 0, "PAGE", "a manual page: baton.1 or baton.yaml.5"});

#define OPERATE_ARGS "DEPLOYMENT|SERVICE"

const struct bt_cli_command bt_cli_commands[] = {
	{.name = "up",
		.heading = "To begin",
		.args = "",
		.summary = "Run server and local agent on this machine.",
		.details =
			"Needs no set-up: the first start makes the state directory, a certificate "
			"authority and a token. Stopping it (Ctrl-C, SIGTERM) leaves the deployed "
			"apps and nginx running, and the next start takes them over again.",
		WITH_OPTIONS(up_options),
		WITH_EXAMPLES(up_examples),
		.exits = "0 1 2",
		.run = bt_cmd_up},
	{.name = "init",
		.args = "",
		.summary = "Write a baton.yaml to start from, by what runs on this host.",
		.details =
			"Looks at listening processes, at the nginx that runs (`nginx -T`) and at "
			"the health paths that the app answers, and says beside each line what was "
			"found. Changes nothing else, and never writes over a file. Run it as the "
			"user of the app, or as root, so that processes can be seen.",
		WITH_OPTIONS(init_options),
		WITH_EXAMPLES(init_examples),
		.exits = "0 1 2",
		.run = bt_cmd_init},
	{.name = "lint",
		.args = "[FILE…]",
		.max_args = BT_CLI_MAX_ARGS,
		.summary = "Check baton.yaml: every problem, with file, line and column.",
		WITH_OPTIONS(lint_options),
		WITH_EXAMPLES(lint_examples),
		.exits = "0 2",
		.run = bt_cmd_lint},
	{.name = "plan",
		.heading = "To deploy",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "Show every step that a deployment would take now, and why.",
		.details =
			"Nothing is touched. Without --file and ./baton.yaml the config is the one "
			"that the server has stored.",
		WITH_OPTIONS(plan_options),
		WITH_EXAMPLES(plan_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_plan},
	{.name = "deploy",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "Deploy a release and stay until it serves, or is rolled back.",
		.details = "Uploads the artifact (in parts that resume; the same bytes are not "
			   "sent twice), "
			   "starts the deployment on the server and shows what it does: a line a "
			   "lane on a "
			   "terminal, a line an event elsewhere (NO_COLOR is honoured).\n"
			   "The deployment runs on the server. A client that dies changes nothing; "
			   "after "
			   "a restart of the server the client goes on where it was. Ctrl-C or "
			   "SIGTERM asks "
			   "the server to abort and roll back, and waits for it; a second one "
			   "leaves at "
			   "once.\n"
			   "Values of `run.secrets` are taken from the environment. Without "
			   "--file and ./baton.yaml the config is the one that the server has "
			   "stored, and secrets that are not in the environment stay as they are.",
		WITH_OPTIONS(deploy_options),
		WITH_EXAMPLES(deploy_examples),
		.client = true,
		.exits = "0 1 2 3 4 5 130",
		.run = bt_cmd_deploy},
	{.name = "run",
		.args = "FLOW",
		.min_args = 1,
		.max_args = 1,
		.summary = "Run a flow: one of baton's templates, or one of the config's.",
		.details =
			"A flow with ComponentDeploy deploys, and wants --version and an artifact; "
			"any "
			"other works on the live release and leaves it so. It is shown, aborted "
			"and "
			"rolled back like every deployment: what it changed is put back as it was.",
		WITH_OPTIONS(run_options),
		WITH_EXAMPLES(run_examples),
		.client = true,
		.exits = "0 1 2 3 4 5 130",
		.run = bt_cmd_run},
	{.name = "flows",
		.args = "",
		.summary = "List the flows: the config's, baton's templates, and strategies.",
		WITH_OPTIONS(flows_options),
		WITH_EXAMPLES(flows_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_flows},
	{.name = "flows show",
		.args = "FLOW",
		.min_args = 1,
		.max_args = 1,
		.summary = "Show the stages and tasks of a flow.",
		WITH_OPTIONS(flows_show_options),
		WITH_EXAMPLES(flows_show_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_flows_show},
	{.name = "restart",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "Start the live release anew, without a dropped request.",
		.details =
			"Makes a new release of the same artifact and version with the config at "
			"hand (--file, else ./baton.yaml, else the one that the server has "
			"stored), "
			"and deploys it as configured. So changed config takes effect. Secrets "
			"that "
			"are not in the environment stay as they are.",
		WITH_OPTIONS(restart_options),
		WITH_EXAMPLES(restart_examples),
		.client = true,
		.exits = "0 1 2 3 4 5 130",
		.run = bt_cmd_restart},
	{.name = "apply",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "Store the config on the server; nothing that runs changes.",
		.details =
			"Without SERVICE, of every service in the file. The stored config is what "
			"deploy and restart work with where no baton.yaml is at hand, and what "
			"`baton diff` compares with. Each change is a new version. A run that ends "
			"well stores its own config, and a rollback the one of its release.",
		WITH_OPTIONS(apply_options),
		WITH_EXAMPLES(apply_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_apply},
	{.name = "diff",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "Compare the config at hand with the stored one.",
		.details = "Line by line as `baton lint --print` prints them: - stored, + at hand. "
			   "Contents of files are compared, too. Exit codes are those of diff: 0 "
			   "the same, 1 different, 2 trouble.",
		WITH_OPTIONS(diff_options),
		WITH_EXAMPLES(diff_examples),
		.client = true,
		.exits = "0 1 2",
		.run = bt_cmd_diff},
	{.name = "adopt",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "Take over what already serves, as it is.",
		.details =
			"Finds the process that others started and that listens on the live slot's "
			"port (the one that nginx sends to), and records it as the live release. "
			"Nothing is stopped, started or switched. The next deployment stops it by "
			"its pid and start time, after the cutover and the drain; until then a "
			"rollback to it is one switch. The file that it runs is kept where it can "
			"be told, so that a later rollback can start it with `run.command`.",
		WITH_OPTIONS(adopt_options),
		WITH_EXAMPLES(adopt_examples),
		.client = true,
		.exits = "0 1 2 3 4 5 130",
		.run = bt_cmd_adopt},
	{.name = "status",
		.heading = "To look",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "Show what serves, where, and since when.",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 2 5",
		.run = bt_cmd_status},
	{.name = "top",
		.args = "",
		.summary = "Watch services, slots, runs and hosts on a terminal.",
		.details =
			"Up and down choose a service or a run, Enter shows what the run does, "
			"left or Escape goes back, q leaves. Where standard output is no terminal "
			"it prints everything once.",
		WITH_OPTIONS(top_options),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_top},
	{.name = "history",
		.args = "[SERVICE]",
		.max_args = 1,
		.summary = "List deployments, the newest first.",
		WITH_OPTIONS(history_options),
		.client = true,
		.exits = "0 2 5",
		.run = bt_cmd_history},
	{.name = "show",
		.args = OPERATE_ARGS,
		.min_args = 1,
		.max_args = 1,
		.summary = "Replay a deployment with the logs of its tasks.",
		.details = "A deployment that still runs is followed to its end, unless "
			   "--no-follow is given.",
		WITH_OPTIONS(show_options),
		.client = true,
		.exits = "0 1 2 3 5",
		.run = bt_cmd_show},
	{.name = "logs",
		.args = "SERVICE",
		.min_args = 1,
		.max_args = 1,
		.summary = "Print what the instances of a service wrote.",
		WITH_OPTIONS(logs_options),
		WITH_EXAMPLES(logs_examples),
		.client = true,
		.exits = "0 2 5",
		.run = bt_cmd_logs},
	{.name = "release list",
		.args = "SERVICE",
		.min_args = 1,
		.max_args = 1,
		.summary = "List the releases of a service, the newest first.",
		.details =
			"A release is new, good (it served) or bad; the live one and those whose "
			"artifact was removed (pruned) are marked.",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 2 5",
		.run = bt_cmd_release_list},
	{.name = "release show",
		.args = "SERVICE RELEASE",
		.min_args = 2,
		.max_args = 2,
		.summary = "Show what a release is made of.",
		.details = "RELEASE is a version or a number. Of files and secrets only names are "
			   "shown.",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 2 5",
		.run = bt_cmd_release_show},
	{.name = "release good",
		.args = "SERVICE RELEASE",
		.min_args = 2,
		.max_args = 2,
		.summary = "Say that a release is good.",
		WITH_OPTIONS(mark_options),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_release_mark},
	{.name = "release bad",
		.args = "SERVICE RELEASE",
		.min_args = 2,
		.max_args = 2,
		.summary = "Say that a release is bad.",
		.details =
			"deploy and rollback refuse it without --force then, and it is no longer "
			"what a rollback goes to by itself.",
		WITH_OPTIONS(mark_options),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_release_mark},
	{.name = "release prune",
		.args = "SERVICE",
		.min_args = 1,
		.max_args = 1,
		.summary = "Remove artifacts that no release needs.",
		.details =
			"The live release, the last `deploy.keep` good ones and what a run needs "
			"are kept; the artifacts of the others go from the server, and their "
			"directories from the hosts.",
		WITH_OPTIONS(prune_options),
		.client = true,
		.exits = "0 1 2 3 4 5 130",
		.run = bt_cmd_release_prune},
	{.name = "releases",
		.args = "SERVICE",
		.min_args = 1,
		.max_args = 1,
		.summary = "The same as `release list`.",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 2 5",
		.run = bt_cmd_release_list},
	{.name = "rollback",
		.heading = "To step in",
		.args = "SERVICE",
		.min_args = 1,
		.max_args = 1,
		.summary = "Go back to a release that was good.",
		.details = "Where the old instance is still warm this is one switch.",
		WITH_OPTIONS(rollback_options),
		WITH_EXAMPLES(rollback_examples),
		.client = true,
		.exits = "0 1 2 3 4 5 130",
		.run = bt_cmd_rollback},
	{.name = "pause",
		.args = OPERATE_ARGS,
		.min_args = 1,
		.max_args = 1,
		.summary = "Let running steps finish and start no new one.",
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_operate},
	{.name = "resume",
		.args = OPERATE_ARGS,
		.min_args = 1,
		.max_args = 1,
		.summary = "Go on after a pause, or with what waits for a person.",
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_operate},
	{.name = "abort",
		.args = OPERATE_ARGS,
		.min_args = 1,
		.max_args = 1,
		.summary = "Stop a deployment and roll it back; one that waits for a person is "
			   "left as it stands.",
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_operate},
	{.name = "promote",
		.args = OPERATE_ARGS,
		.min_args = 1,
		.max_args = 1,
		.summary = "End the bake now: the new release is good.",
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_operate},
	{.name = "lock",
		.heading = "To hold deployments back",
		.args = "SERVICE",
		.min_args = 1,
		.max_args = 1,
		.summary = "Refuse deployments and rollbacks of a service until it is unlocked.",
		.details = "A deployment that runs goes on, and can be paused, aborted and rolled "
			   "back as ever.",
		WITH_OPTIONS(why_options),
		WITH_EXAMPLES(lock_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_lock},
	{.name = "unlock",
		.args = "SERVICE",
		.min_args = 1,
		.max_args = 1,
		.summary = "Take the lock off a service, whoever put it there.",
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_unlock},
	{.name = "freeze add",
		.args = "WINDOW",
		.min_args = 1,
		.max_args = 1,
		.summary = "Refuse deployments by the calendar; rollbacks stay possible.",
		.details = "WINDOW is hours of a day (22:00-06:00), a stretch of the week (Fri "
			   "16:00-Mon 08:00), or dates, both days included "
			   "(2026-12-20..2027-01-03), on the server's clock or with --zone.",
		WITH_OPTIONS(freeze_options),
		WITH_EXAMPLES(freeze_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_freeze_add},
	{.name = "freeze list",
		.args = "",
		.summary = "List the freezes.",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_freeze_list},
	{.name = "freeze remove",
		.args = "ID",
		.min_args = 1,
		.max_args = 1,
		.summary = "End a freeze.",
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_freeze_remove},
	{.name = "approve",
		.heading = "To decide",
		.args = OPERATE_ARGS,
		.min_args = 1,
		.max_args = 1,
		.summary = "Say yes to a deployment that waits for an approval: it goes on.",
		WITH_OPTIONS(why_options),
		WITH_EXAMPLES(approve_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_operate},
	{.name = "reject",
		.args = OPERATE_ARGS,
		.min_args = 1,
		.max_args = 1,
		.summary = "Say no to a deployment that waits for an approval: it fails and goes "
			   "back.",
		WITH_OPTIONS(why_options),
		WITH_EXAMPLES(reject_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_operate},
	{.name = "hosts",
		.heading = "Hosts, access, upkeep",
		.args = "",
		.summary = "List hosts and their agents.",
		WITH_OPTIONS(hosts_options),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_hosts},
	{.name = "page",
		.args = "",
		.summary = "Print an address that opens the page, logged in as this token.",
		.details =
			"The address is good once and for ten minutes. Whoever opens it first is "
			"logged in as you for 12 hours, so do not send it to anybody.",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_page},
	{.name = "hosts upgrade",
		.args = "[HOST]",
		.max_args = 1,
		.summary = "Let agents become the server's version; their apps run on.",
		.details =
			"Without HOST: every connected host whose agent is of another version, one "
			"after the other, until one fails. The agent tries the new program first "
			"and keeps the old one where it does not reach the server. The host's "
			"policy must allow it (`upgrade: true`).",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_hosts_upgrade},
	{.name = "token create",
		.args = "NAME",
		.min_args = 1,
		.max_args = 1,
		.summary = "Make an access token; it is shown once.",
		.details = "With neither --service nor --environment it is for all services. In a "
			   "pattern, `*` stands for any characters but `@`: `shop*` is not "
			   "`shop@release`. With both, each service is taken in each environment.",
		WITH_OPTIONS(token_create_options),
		WITH_EXAMPLES(token_create_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_token_create},
	{.name = "token list",
		.args = "",
		.summary = "List the tokens' names, roles, scopes and times; never the tokens.",
		WITH_OPTIONS(json_only),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_token_list},
	{.name = "token revoke",
		.args = "NAME",
		.min_args = 1,
		.max_args = 1,
		.summary = "Make a token useless at once.",
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_token_revoke},
	{.name = "audit",
		.args = "",
		.summary = "List who did what and from where, the newest first.",
		WITH_OPTIONS(audit_options),
		WITH_EXAMPLES(audit_examples),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_audit},
	{.name = "join-token",
		.args = "HOST",
		.min_args = 1,
		.max_args = 1,
		.summary = "Make a single-use token with which a host's agent joins.",
		WITH_OPTIONS(join_token_options),
		.client = true,
		.exits = "0 1 2 5",
		.run = bt_cmd_join_token},
	{.name = "backup",
		.args = "FILE",
		.min_args = 1,
		.max_args = 1,
		.summary = "Copy a server's state into one file, also while it runs.",
		.details = "Run it on the server's machine, as its user or root: the file holds "
			   "the keys of the authority and of the secrets, and is written with mode "
			   "0600. It is a tar of the store (as of one instant), the keys and the "
			   "artifacts, each with its SHA-256; logs of tasks are not in it.",
		WITH_OPTIONS(backup_options),
		WITH_EXAMPLES(backup_examples),
		.exits = "0 1 2",
		.run = bt_cmd_backup},
	{.name = "restore",
		.args = "FILE",
		.min_args = 1,
		.max_args = 1,
		.summary = "Put a backup into a directory where no server runs.",
		.details =
			"Everything is checked before anything is touched; what was there is "
			"moved aside. Agents connect again by themselves and refuse what an older "
			"server may still send. A deployment that was under way in the backup is "
			"ended, and its service is brought to the release that serves.",
		WITH_OPTIONS(restore_options),
		WITH_EXAMPLES(restore_examples),
		.exits = "0 1 2",
		.run = bt_cmd_restore},
	{.name = "server init",
		.heading = "Server and agents",
		.args = "",
		.summary = "Make a server's state directory, its CA and the first admin token.",
		WITH_OPTIONS(server_init_options),
		WITH_EXAMPLES(server_init_examples),
		.exits = "0 1 2",
		.run = bt_cmd_server_init},
	{.name = "server run",
		.args = "",
		.summary = "Run the server.",
		WITH_OPTIONS(server_run_options),
		WITH_EXAMPLES(server_run_examples),
		.exits = "0 1 2",
		.run = bt_cmd_server_run},
	{.name = "agent join",
		.args = "URL",
		.min_args = 1,
		.max_args = 1,
		.summary = "Get this host's certificate from the server.",
		WITH_OPTIONS(agent_join_options),
		WITH_EXAMPLES(agent_join_examples),
		.exits = "0 1 2 5",
		.run = bt_cmd_agent_join},
	{.name = "agent run",
		.args = "",
		.summary = "Run this host's agent.",
		WITH_OPTIONS(agent_run_options),
		.exits = "0 1 2",
		.run = bt_cmd_agent_run},
	{.name = "version",
		.heading = "Help",
		.args = "",
		.summary = "Print the version.",
		.exits = "0",
		.run = bt_cmd_version},
	{.name = "help",
		.args = "[COMMAND]",
		.max_args = 2,
		.summary = "Explain a command.",
		WITH_OPTIONS(help_options),
		.exits = "0 2",
		.run = bt_cmd_help},
	{.name = "complete",
		.args = "CWORD WORD…",
		.min_args = 1,
		.max_args = BT_CLI_MAX_ARGS,
		.summary = "Say what may stand at the cursor, for the completion script.",
		.hidden = true,
		.exits = "0 1 2",
		.run = bt_cmd_complete},
};
const size_t bt_cli_commands_len = BT_ARRAY_LEN(bt_cli_commands);
