#include "agent/agent.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/cli.h"
#include "net/http_client.h"
#include "net/pki.h"
#include "server/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Server and agent as two processes, so that each may die alone: the server runs on this process's
 * loop; the agent is a child that is started again when it ends. What it deployed runs under shims
 * and outlives both.
 *
 *     D/up.lock      held by this process       D/client.json   address and token, for the client
 *     D/server/      bt_server's                D/agent/        bt_agent's */

#define HOST "local"
#define DAY_MS (24 * 3600 * 1000)

struct up {
	char *dir, *server_dir, *agent_dir, *client_file;
	char *token; /* admin, from client.json */
	struct event_base *base;
	struct bt_server *server;
	struct bt_http_client *http;
	struct event *sigchld, *sigterm, *sigint, *timer;
	pid_t agent; /* 0: none runs */
	bool connected, stopping;
	int64_t agent_begun_ms;
	int failures; /* agent ends in a row, each soon after its start */
	struct bt_err err;
};

static void later(struct up *u, int64_t ms)
{
	bt_timer_in(u->timer, ms);
}

/* ---- is the agent there? asked as any client does ---- */

static void on_hosts(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct up *u = arg;
	BT_JSON json_t *j = NULL;
	size_t i;
	json_t *host;
	(void)err;
	if (r->status == 200)
		bt_json_parse(r->body, r->body_len, r->body_len, &j, NULL);
	json_array_foreach (json_object_get(j, "hosts"), i, host)
		if (bt_streq(json_string_value(json_object_get(host, "name")), HOST) &&
			json_is_true(json_object_get(host, "connected")))
			u->connected = true;
	if (!u->connected) {
		later(u, 200);
		return;
	}
	printf("The local agent is connected: host \"" HOST "\" takes deployments.\n");
	fflush(stdout);
}

static void ask_hosts(struct up *u)
{
	BT_FREE char *url = bt_asprintf("%s/v1/hosts", bt_server_url(u->server));
	BT_FREE char *auth = bt_asprintf("Bearer %s", u->token);
	struct bt_http_header header = {"Authorization", auth};
	bt_http_start(u->http,
		&(struct bt_http_request){.method = "GET",
			.url = url,
			.headers = &header,
			.n_headers = 1,
			.timeout_ms = 10000},
		on_hosts, u);
}

/* ---- the agent's process ---- */

/* Nothing between fork and exec may allocate: a thread of the server may hold the allocator. */
static pid_t spawn(char *const argv[], struct bt_err *err)
{
	pid_t parent = getpid();
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0)
		return bt_err_errno(err, errno, "start the agent");
	if (pid > 0)
		return pid;
	/* Its own group: a Ctrl-C here is ours to pass on. Should we be killed, it ends as well,
	 * and the next start finds its directory free. */
	setpgid(0, 0);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(1);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	execv("/proc/self/exe", argv);
	_exit(127);
}

static void start_agent(struct up *u)
{
	struct bt_err err = {0};
	char *argv[] = {(char *)"baton", (char *)"agent", (char *)"run", (char *)"--dir",
		u->agent_dir, (char *)"--server", (char *)bt_server_agents_url(u->server),
		(char *)"--own-machine", NULL};
	pid_t pid = spawn(argv, &err);
	if (pid < 0) {
		bt_log(NULL, BT_LOG_ERROR, "%s", err.text);
		later(u, 5000);
		return;
	}
	u->agent = pid;
	u->agent_begun_ms = bt_clock_boot_ms();
	if (!u->connected)
		later(u, 100);
}

/* Started again at once after a long life, else with back-off: 0.2 … 12.8 s. */
static void on_child(evutil_socket_t number, short what, void *arg)
{
	struct up *u = arg;
	int status;
	(void)number;
	(void)what;
	if (u->agent <= 0 || waitpid(u->agent, &status, WNOHANG) != u->agent)
		return;
	u->agent = 0;
	if (u->stopping) {
		event_base_loopbreak(u->base);
		return;
	}
	u->failures = bt_clock_boot_ms() - u->agent_begun_ms > 30000 ? 0 : u->failures + 1;
	int64_t wait = u->failures ? 100 << (u->failures < 7 ? u->failures : 7) : 0;
	if (WIFSIGNALED(status))
		bt_log(NULL, BT_LOG_WARN,
			"the agent was ended by signal %d; started again in %lld ms",
			WTERMSIG(status), (long long)wait);
	else
		bt_log(NULL, BT_LOG_WARN, "the agent ended with exit code %d; again in %lld ms",
			WEXITSTATUS(status), (long long)wait);
	later(u, wait);
}

/* Two uses: start the agent where none runs, and see it connect once. */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct up *u = arg;
	(void)fd;
	(void)what;
	if (u->stopping)
		return;
	if (!u->agent)
		start_agent(u);
	else if (!u->connected)
		ask_hosts(u);
}

static void on_stop(evutil_socket_t number, short what, void *arg)
{
	struct up *u = arg;
	(void)number;
	(void)what;
	if (u->stopping || !u->agent) {
		event_base_loopbreak(u->base);
		return;
	}
	u->stopping = true;
	puts("\nstopping server and agent; the deployed apps and nginx keep running");
	fflush(stdout);
	kill(u->agent, SIGTERM);
}

/* ---- the state directory ---- */

static int lock_dir(const struct up *u, int *ret_fd, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/up.lock", u->dir);
	BT_FREE char *holder = NULL;
	int r = bt_fs_lock(path, ret_fd, err);
	if (r == BT_E_REFUSED) {
		if (bt_fs_read(path, 32, &holder, NULL, NULL) < 0)
			holder = bt_strdup("");
		return bt_err_set(err, BT_E_REFUSED,
			"another `baton up` (process %s) runs on %s: use that one, stop it, or "
			"choose "
			"another directory with --dir",
			*holder ? holder : "unknown", u->dir);
	}
	if (r < 0)
		return r;
	char pid[32];
	int n = snprintf(pid, sizeof pid, "%d", (int)getpid());
	if (ftruncate(*ret_fd, 0) < 0 || pwrite(*ret_fd, pid, (size_t)n, 0) < 0)
		return bt_err_errno(err, errno, "write %s", path);
	return 0;
}

static int read_token(struct up *u)
{
	BT_FREE char *text = NULL;
	BT_JSON json_t *j = NULL;
	const char *token = NULL;
	size_t n = 0;
	if (bt_fs_read(u->client_file, 65536, &text, &n, NULL) < 0 ||
		bt_json_parse(text, n, 65536, &j, NULL) < 0 ||
		bt_json_str(j, "token", &token, NULL) < 0)
		return 1;
	u->token = bt_strdup(token);
	return 0;
}

/* The first start makes the server's directory; a lost client.json is made again. */
static int prepare(struct up *u, struct bt_server_spec *spec, struct bt_err *err)
{
	int r = 0;
	if (!bt_server_initialised(u->server_dir))
		r = bt_server_init(spec, &u->token, err);
	else if (read_token(u) == 1)
		r = bt_server_new_token(u->server_dir, "up", "admin", &u->token, err);
	return r;
}

static int write_client_file(const struct up *u, struct bt_err *err)
{
	BT_JSON json_t *j =
		json_pack("{s:s, s:s}", "url", bt_server_url(u->server), "token", u->token);
	BT_FREE char *text = bt_json_dump(j);
	return bt_fs_write_atomic(u->client_file, text, strlen(text), 0600, err);
}

/* The local agent's certificate; the agent itself renews it while it runs. */
static int place_agent(const struct up *u, struct bt_err *err)
{
	BT_FREE char *csr = NULL;
	BT_FREE char *cert = NULL;
	BT_FREE char *ca = NULL;
	BT_FREE char *file = bt_asprintf("%s/agent.pem", u->agent_dir);
	int64_t not_after = 0;
	if (bt_agent_is_joined(u->agent_dir) && bt_pki_not_after(file, &not_after, NULL) == 0 &&
		not_after > bt_clock_wall_ms() + DAY_MS)
		return 0;
	int r = bt_fs_mkdirs(u->agent_dir, 0700, err);
	if (r == 0)
		r = bt_agent_csr(u->agent_dir, HOST, &csr, err);
	if (r == 0)
		r = bt_server_sign_agent(u->server, HOST, csr, &cert, &ca, err);
	if (r == 0)
		r = bt_agent_place(u->agent_dir, bt_server_agents_url(u->server), HOST, "127.0.0.1",
			cert, ca, err);
	return r < 0 ? bt_err_wrap(err, "local agent") : 0;
}

static void greet(const struct up *u)
{
	BT_FREE char *usual = bt_cli_state_dir(NULL);
	bool found = bt_streq(usual, u->dir), person = isatty(STDOUT_FILENO);
	BT_FREE char *link = person ? bt_server_login_link(u->server, u->token) : NULL;
	printf("baton " BATON_VERSION " is up at %s, all its state is in %s\n",
		bt_server_url(u->server), u->dir);
	/* A link logs in whoever reads it first: it is for a person's terminal, never for a log. */
	if (link)
		printf("The page, logged in (once, within 10 minutes; later: baton page):\n  %s\n",
			link);
	else
		printf("The page: %s/ (baton page logs you in)\n", bt_server_url(u->server));
	printf("Next, in another terminal:\n");
	if (!found)
		printf("  export BATON_DIR=%s\n", u->dir);
	printf("  baton lint                      # checks ./baton.yaml (hosts: [" HOST "])\n"
	       "  baton deploy --version 1        # deploys it\n"
	       "Ctrl-C stops server and agent; what was deployed keeps running.\n");
	fflush(stdout);
}

static struct event *on_signal(struct up *u, int number, event_callback_fn fn)
{
	struct event *e = evsignal_new(u->base, number, fn, u);
	evsignal_add(e, NULL);
	return e;
}

static int run(struct up *u, const struct bt_server_spec *spec, struct bt_err *err)
{
	u->base = event_base_new();
	u->sigchld = on_signal(u, SIGCHLD, on_child);
	u->sigterm = on_signal(u, SIGTERM, on_stop);
	u->sigint = on_signal(u, SIGINT, on_stop);
	u->timer = evtimer_new(u->base, on_timer, u);
	u->http = bt_http_client_new(u->base);
	int r = bt_server_run(u->base, spec, &u->server, err);
	if (r == 0)
		r = write_client_file(u, err);
	if (r == 0)
		r = place_agent(u, err);
	if (r == 0) {
		greet(u);
		start_agent(u);
		event_base_dispatch(u->base);
	}
	bt_http_client_free(u->http);
	bt_server_free(u->server);
	event_free(u->timer);
	event_free(u->sigint);
	event_free(u->sigterm);
	event_free(u->sigchld);
	/* libevent lets go of a connection in its loop when a callback was on its way */
	event_base_loop(u->base, EVLOOP_NONBLOCK);
	event_base_free(u->base);
	return r;
}

int bt_cmd_up(struct bt_cli *cli, struct bt_err *err)
{
	BT_FREE char *given = bt_cli_state_dir(cli);
	BT_CLOSE int lock = -1;
	/* Tells the agent that it is ours to replace; here, while there are no other threads. */
	setenv("BATON_UP", "1", 1);
	int r = bt_fs_mkdirs(given, 0700, err);
	if (r < 0)
		return r;
	struct up u = {.dir = realpath(given, NULL)};
	if (!u.dir)
		return bt_err_errno(err, errno, "state directory %s", given);
	u.server_dir = bt_asprintf("%s/server", u.dir);
	u.agent_dir = bt_asprintf("%s/agent", u.dir);
	u.client_file = bt_asprintf("%s/client.json", u.dir);
	const char *listen = bt_cli_get(cli, "listen"), *agents = bt_cli_get(cli, "agent-listen");
	struct bt_server_spec spec = {.state_dir = u.server_dir,
		.listen = listen ? listen : "127.0.0.1:7070",
		.agents_listen = agents ? agents : "127.0.0.1:7071"};
	r = bt_cli_keep(cli, &spec, err);
	if (r == 0)
		r = lock_dir(&u, &lock, err);
	if (r == 0)
		r = prepare(&u, &spec, err);
	if (r == 0)
		r = run(&u, &spec, err);
	free(u.token);
	free(u.client_file);
	free(u.agent_dir);
	free(u.server_dir);
	free(u.dir);
	return r;
}
