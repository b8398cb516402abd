/* Commands that ask once and print: a table for people, the server's own JSON for programs. */
#include "base/clock.h"
#include "cli/answer.h"
#include "cli/client.h"
#include "cli/follow.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void service_row(struct bt_table *t, const json_t *s)
{
	BT_STR struct bt_str hosts = {0};
	bt_answer_join(json_object_get(s, "hosts"), &hosts);
	BT_TABLE_ROW(t, bt_answer_text(s, "name"),
		bt_answer_text(json_object_get(s, "release"), "version"),
		bt_answer_text(s, "phase"), bt_answer_text(s, "live_slot"), bt_str_get(&hosts));
}

static void print_gate(const json_t *s)
{
	BT_STR struct bt_str lines = {0};
	bt_answer_gate(s, &lines);
	fputs(bt_str_get(&lines), stdout);
}

static void state_of(const json_t *instance, struct bt_str *out)
{
	const char *holder = bt_answer_text(instance, "holder");
	bt_str_add(out, bt_answer_text(instance, "state"));
	const json_t *healthy = json_object_get(instance, "healthy");
	if (healthy)
		bt_str_add(out, json_is_true(healthy) ? ", healthy" : ", unhealthy");
	if (json_is_true(json_object_get(instance, "adopted")))
		bt_str_add(out, ", adopted");
	if (*holder)
		bt_str_addf(out, ", port held by %s", holder);
}

/* What does not hold: an instance that runs and is not healthy; at a balancer, what somebody else
 * changed, or a certificate that is no good. */
static void print_troubles(const json_t *hosts)
{
	size_t i, k;
	json_t *host, *balancer, *instance;
	json_array_foreach (hosts, i, host)
		json_array_foreach (json_object_get(host, "instances"), k, instance) {
			const char *why = bt_answer_text(instance, "unhealthy_why");
			if (*why)
				printf("attention: %s/%s is %s\n", bt_answer_text(host, "host"),
					bt_answer_text(instance, "slot"), why);
		}
	json_array_foreach (hosts, i, host)
		json_array_foreach (json_object_get(host, "balancers"), k, balancer) {
			const char *trouble = bt_answer_text(balancer, "trouble");
			const char *name = bt_answer_text(balancer, "name");
			if (*trouble)
				printf("attention: %.*s on %s: %s\n", (int)strcspn(name, "/"), name,
					bt_answer_text(host, "host"), trouble);
		}
}

/* Direct server return: which hosts hold the addresses that clients ask. */
static void print_addresses(const json_t *hosts)
{
	BT_TABLE struct bt_table t = {0};
	size_t i, k;
	json_t *host, *vip;
	BT_TABLE_ROW(&t, "ADDRESS", "HOST", "LOOPBACK");
	json_array_foreach (hosts, i, host)
		json_array_foreach (json_object_get(host, "vips"), k, vip)
			BT_TABLE_ROW(&t, bt_answer_text(vip, "address"),
				bt_answer_text(host, "host"),
				json_is_true(json_object_get(vip, "there")) ? "on" : "off");
	if (t.n_rows == 1)
		return;
	puts("");
	bt_table_print(&t);
	json_array_foreach (hosts, i, host)
		json_array_foreach (json_object_get(host, "vips"), k, vip)
			if (*bt_answer_text(vip, "trouble"))
				printf("attention: %s on %s: %s\n", bt_answer_text(vip, "address"),
					bt_answer_text(host, "host"),
					bt_answer_text(vip, "trouble"));
}

/* What runs in the slots of one service, host by host. */
static void print_world(const json_t *service)
{
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "INSTANCE", "PORT", "STATE", "VERSION", "PID", "RESTARTS", "SINCE");
	const json_t *hosts = json_object_get(json_object_get(service, "world"), "hosts");
	size_t i, k;
	json_t *host, *instance;
	json_array_foreach (hosts, i, host) {
		json_array_foreach (json_object_get(host, "instances"), k, instance) {
			char port[32], pid[32], restarts[32], since[32];
			bt_answer_number(instance, "port", port);
			bt_answer_number(instance, "pid", pid);
			bt_answer_number(instance, "restarts", restarts);
			bt_answer_time(instance, "since_wall_ms", since);
			BT_FREE char *name = bt_asprintf("%s/%s", bt_answer_text(host, "host"),
				bt_answer_text(instance, "slot"));
			BT_STR struct bt_str state = {0};
			state_of(instance, &state);
			BT_TABLE_ROW(&t, name, port, bt_str_get(&state),
				bt_answer_text(instance, "version"), bt_streq(pid, "0") ? "" : pid,
				restarts, since);
		}
	}
	bt_table_print(&t);
	const char *why = bt_answer_text(json_object_get(service, "live"), "why");
	if (*why)
		printf("%s\n", why);
	print_troubles(hosts);
	print_addresses(hosts);
}

int bt_cmd_status(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	BT_FREE char *name = cli->n_args ? bt_url_escape(cli->args[0]) : NULL;
	BT_FREE char *path = bt_asprintf("/v1/services%s%s", name ? "/" : "", name ? name : "");
	int r = bt_answer_get(cli, &c, path, &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "SERVICE", "VERSION", "STATE", "LIVE", "HOSTS");
	const json_t *list = json_object_get(j, "services");
	if (!list)
		service_row(&t, j);
	size_t i;
	json_t *s;
	json_array_foreach (list, i, s)
		service_row(&t, s);
	if (t.n_rows == 1) {
		puts("no services yet: `baton deploy` makes the first");
		return 0;
	}
	bt_table_print(&t);
	if (!list)
		print_gate(j);
	json_array_foreach (list, i, s)
		print_gate(s);
	if (!list) {
		puts("");
		print_world(j);
	}
	return 0;
}

int bt_cmd_history(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	const char *limit = bt_cli_get(cli, "limit");
	int64_t n = 20;
	if (limit && bt_int_parse(limit, 1, 1000, &n, err) < 0)
		return bt_err_wrap(err, "--limit");
	BT_FREE char *name = bt_url_escape(cli->n_args ? cli->args[0] : "");
	BT_FREE char *path = bt_asprintf(
		"/v1/deployments?limit=%" PRId64 "%s%s", n, *name ? "&service=" : "", name);
	int r = bt_answer_get(cli, &c, path, &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(
		&t, "ID", "SERVICE", "WHAT", "VERSION", "FROM", "STARTED", "BY", "STATE", "REASON");
	size_t i;
	json_t *d;
	json_array_foreach (json_object_get(j, "deployments"), i, d) {
		char id[32], started[32];
		bt_answer_number(d, "id", id);
		bt_answer_time(d, "started_at", started);
		const char *end = bt_answer_text(d, "end");
		const char *purpose = bt_answer_text(d, "purpose");
		bool forward = bt_streq(purpose, "deploy") || bt_streq(purpose, "flow");
		BT_TABLE_ROW(&t, id, bt_answer_text(d, "service"),
			forward ? bt_answer_text(d, "strategy") : purpose,
			bt_answer_text(d, "version"), bt_answer_text(d, "old_version"), started,
			bt_answer_text(json_object_get(d, "by"), "name"),
			*end && !bt_streq(end, "none") ? end : bt_answer_text(d, "phase"),
			bt_answer_text(d, "reason"));
	}
	if (t.n_rows == 1)
		puts("no deployments yet");
	else
		bt_table_print(&t);
	return 0;
}

static int remove_host(struct bt_cli *cli, const char *host, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_ANSWER struct bt_client_answer a = {0};
	BT_FREE char *name = bt_url_escape(host);
	BT_FREE char *path = bt_asprintf("/v1/hosts/%s", name);
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_do(c, &(struct bt_client_call){.method = "DELETE", .path = path},
			NULL, &a, err);
	if (r == 0)
		printf("host %s may not connect any more; its apps go on running\n", host);
	return r;
}

int bt_cmd_hosts(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	const char *gone = bt_cli_get(cli, "remove");
	if (gone)
		return remove_host(cli, gone, err);
	int r = bt_answer_get(cli, &c, "/v1/hosts", &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "HOST", "ADDRESS", "AGENT", "CONNECTED", "LAST SEEN", "FREE");
	size_t i;
	json_t *h;
	json_array_foreach (json_object_get(j, "hosts"), i, h) {
		char seen[32], size[32] = "";
		bt_answer_time(h, "last_seen_at", seen);
		int64_t free_bytes = json_integer_value(json_object_get(h, "free_bytes"));
		if (free_bytes > 0)
			bt_view_amount(free_bytes, size);
		BT_TABLE_ROW(&t, bt_answer_text(h, "name"), bt_answer_text(h, "address"),
			bt_answer_text(h, "agent_version"),
			json_is_true(json_object_get(h, "connected")) ? "yes" : "NO", seen, size);
	}
	if (t.n_rows == 1)
		puts("no hosts yet: `baton join-token HOST`, then `baton agent join` there");
	else
		bt_table_print(&t);
	return 0;
}

/* A service stands for its newest deployment. */
static int find_deployment(struct bt_client *c, const char *word, int64_t *ret, struct bt_err *err)
{
	if (bt_int_parse(word, 1, INT64_MAX, ret, NULL) == 0)
		return 0;
	BT_JSON json_t *j = NULL;
	BT_FREE char *name = bt_url_escape(word);
	BT_FREE char *path = bt_asprintf("/v1/deployments?limit=1&service=%s", name);
	int r = bt_client_get(c, path, &j, err);
	if (r < 0)
		return r;
	const json_t *d = json_array_get(json_object_get(j, "deployments"), 0);
	if (!d)
		return bt_err_set(err, BT_E_NOTFOUND,
			"'%s' is no deployment's number, and no service "
			"with a deployment",
			word);
	return bt_json_int(d, "id", 1, INT64_MAX, ret, err);
}

int bt_cmd_operate(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	int64_t id = 0;
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = find_deployment(c, cli->args[0], &id, err);
	BT_FREE char *path = bt_asprintf("/v1/deployments/%" PRId64 "/%s", id, cli->command->name);
	const char *why = bt_cli_get(cli, "why");
	BT_JSON json_t *body = why ? json_pack("{s:s}", "why", why) : NULL;
	if (r == 0 && why && !body)
		return bt_err_set(err, BT_E_CONFIG, "-m: expected UTF-8 text");
	if (r == 0)
		r = bt_client_post(c, path, body, NULL, err);
	if (r < 0)
		return bt_err_wrap(err, "%s %s", cli->command->name, cli->args[0]);
	printf("deployment %" PRId64 ": the server was asked to %s; `baton show %" PRId64
	       "` follows it\n",
		id, cli->command->name, id);
	return 0;
}

struct printer {
	bool done;
	int status;
	struct bt_str body; /* of an error */
	struct bt_err err;
};

static void on_headers(void *arg, int status)
{
	((struct printer *)arg)->status = status;
}

static bool on_text(void *arg, const void *data, size_t n)
{
	struct printer *p = arg;
	if (p->status != 200) {
		bt_str_addn(&p->body, data, n < 65536 ? n : 65536);
		return p->body.len < 65536;
	}
	return fwrite(data, 1, n, stdout) == n && fflush(stdout) == 0;
}

static void on_printed(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct printer *p = arg;
	p->done = true;
	if (!p->status)
		p->status = r->status;
	if (r->status == 0)
		p->err = *err;
}

/* A text of any length, to stdout as it comes. */
static int print_text(struct bt_client *c, const char *path, struct bt_err *err)
{
	struct printer p = {0};
	BT_FREE char *url = NULL;
	BT_FREE char *auth = NULL;
	BT_JSON json_t *body = NULL;
	struct bt_http_header headers[1];
	struct bt_http_request rq;
	bt_client_request(c, "GET", path, headers, &url, &auth, &rq);
	rq.on_data = on_text;
	rq.on_headers = on_headers;
	bt_http_start(c->http, &rq, on_printed, &p);
	while (!p.done)
		event_base_loop(c->base, EVLOOP_ONCE);
	int r = 0;
	if (p.status >= 400) {
		if (p.body.len)
			bt_json_parse(p.body.data, p.body.len, p.body.len, &body, NULL);
		r = bt_client_error(p.status, body, err);
	} else if (p.err.code && !ferror(stdout)) {
		*err = p.err;
		r = bt_err_wrap(err, "server %s", c->url);
	}
	bt_str_done(&p.body);
	return r;
}

int bt_cmd_logs(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	const char *lines = bt_cli_get(cli, "lines");
	int64_t n = 100;
	if (lines && bt_int_parse(lines, 0, 100000, &n, err) < 0)
		return bt_err_wrap(err, "--lines");
	int r = bt_client_open(cli, &c, err);
	if (r < 0)
		return r;
	BT_STR struct bt_str path = {0};
	BT_FREE char *name = bt_url_escape(cli->args[0]);
	bt_str_addf(&path, "/v1/services/%s/logs?lines=%" PRId64, name, n);
	if (bt_cli_has(cli, "follow"))
		bt_str_add(&path, "&follow=1");
	static const char *const filters[] = {"slot", "host"};
	for (size_t i = 0; i < BT_ARRAY_LEN(filters); i++) {
		const char *value = bt_cli_get(cli, filters[i]);
		BT_FREE char *escaped = value ? bt_url_escape(value) : NULL;
		if (escaped)
			bt_str_addf(&path, "&%s=%s", filters[i], escaped);
	}
	return print_text(c, path.data, err);
}

/* Who began it, from where and out of what. */
static void print_by(const json_t *by)
{
	static const char *const said[][2] = {
		{"from", " from "}, {"commit", ", commit "}, {"build_url", ", "}};
	if (!*bt_answer_text(by, "name"))
		return;
	printf("by %s", bt_answer_text(by, "name"));
	for (size_t i = 0; i < BT_ARRAY_LEN(said); i++) {
		BT_STR struct bt_str text = {0};
		bt_view_clean(&text, bt_answer_text(by, said[i][0]), 0);
		if (text.len)
			printf("%s%s", said[i][1], text.data);
	}
	puts("");
}

static void print_head(const json_t *d, int64_t id, const char *what)
{
	char started[32];
	bt_answer_time(d, "started_at", started);
	const char *old = bt_answer_text(d, "old_version");
	printf("deployment %" PRId64 " of %s%s%s, %s, begun %s\n", id, what, *old ? " over " : "",
		old, bt_answer_text(d, "strategy"), started);
	print_by(json_object_get(d, "by"));
}

static int replay(struct bt_client *c, int64_t id, const char *what, bool json, struct bt_err *err)
{
	bt_client_catch_signals(c);
	struct bt_view *v = bt_view_new(json ? BT_VIEW_JSON : BT_VIEW_PLAIN);
	int r = bt_follow(&(struct bt_follow){.client = c, .view = v, .id = id, .what = what}, err);
	bt_view_free(v);
	return r;
}

static int stands(const struct bt_cli *cli, const json_t *d, int64_t id)
{
	if (bt_answer_as_json(cli, d))
		return BT_EXIT_OK;
	printf("it goes on (%s): `baton show %" PRId64 "` follows it\n", bt_answer_text(d, "phase"),
		id);
	return BT_EXIT_OK;
}

int bt_cmd_show(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *d = NULL;
	int64_t id = 0;
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = find_deployment(c, cli->args[0], &id, err);
	BT_FREE char *path = bt_asprintf("/v1/deployments/%" PRId64, id);
	if (r == 0)
		r = bt_client_get(c, path, &d, err);
	if (r < 0)
		return r;
	bool json = bt_cli_has(cli, "json");
	BT_FREE char *what =
		bt_asprintf("%s %s", bt_answer_text(d, "service"), bt_answer_text(d, "version"));
	if (!json)
		print_head(d, id, what);
	bool leave = bt_cli_has(cli, "no-follow") && !bt_streq(bt_answer_text(d, "phase"), "ended");
	r = leave ? stands(cli, d, id) : replay(c, id, what, json, err);
	if (r >= 0 && !json && r != BT_EXIT_INTERRUPTED) {
		BT_FREE char *log = bt_asprintf("/v1/deployments/%" PRId64 "/log", id);
		puts("\nlogs of the tasks:");
		int printed = print_text(c, log, err);
		if (printed < 0)
			return printed;
	}
	return r;
}
