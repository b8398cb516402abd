#include "cli/client.h"

#include "base/fs.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

char *bt_cli_state_dir(const struct bt_cli *cli)
{
	const char *dir = cli ? bt_cli_get(cli, "dir") : NULL;
	if (!dir)
		dir = getenv("BATON_DIR");
	if (dir && *dir)
		return bt_strdup(dir);
	if (geteuid() == 0)
		return bt_strdup("/var/lib/baton");
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	if (state && *state == '/')
		return bt_asprintf("%s/baton", state);
	return bt_asprintf("%s/.local/state/baton", home && *home ? home : "/tmp");
}

static const char *option_or_env(const struct bt_cli *cli, const char *option, const char *env)
{
	const char *value = bt_cli_get(cli, option);
	if (!value)
		value = getenv(env);
	return value && *value ? value : NULL;
}

static char *without_slash(const char *url)
{
	size_t n = strlen(url);
	while (n > 0 && url[n - 1] == '/')
		n--;
	return bt_strndup(url, n);
}

/* Fills what is not known yet. The file's token is for the file's address alone. */
static int merge_file(struct bt_client *c, const char *path, bool must_exist, struct bt_err *err)
{
	BT_FREE char *text = NULL;
	size_t n = 0;
	int r = bt_fs_read(path, 65536, &text, &n, err);
	if ((r == -ENOENT || r == -EACCES || r == -ENOTDIR) && !must_exist)
		return 0;
	BT_JSON json_t *j = NULL;
	const char *url = NULL, *token = NULL, *cacert = NULL;
	if (r == 0)
		r = bt_json_parse(text, n, 65536, &j, err);
	if (r == 0)
		r = bt_json_str(j, "url", &url, err);
	if (r == 0)
		r = bt_json_str_opt(j, "token", &token, err);
	if (r == 0)
		r = bt_json_str_opt(j, "cacert", &cacert, err);
	if (r < 0) {
		bt_err_wrap(err, "client config %s", path);
		if (err)
			err->code = BT_E_CONFIG;
		return BT_E_CONFIG;
	}
	BT_FREE char *plain = without_slash(url);
	if (!c->url)
		c->url = bt_strdup(plain);
	if (!bt_streq(c->url, plain))
		return 0;
	if (!c->token)
		c->token = bt_strdup(token);
	if (!c->cacert)
		c->cacert = bt_strdup(cacert);
	return 0;
}

static int find_server(struct bt_client *c, const struct bt_cli *cli, struct bt_err *err)
{
	const char *url = option_or_env(cli, "server", "BATON_SERVER");
	c->url = url ? without_slash(url) : NULL;
	c->token = bt_strdup(option_or_env(cli, "token", "BATON_TOKEN"));
	c->cacert = bt_strdup(option_or_env(cli, "cacert", "BATON_CACERT"));
	const char *file = bt_cli_get(cli, "config");
	const char *home = getenv("HOME");
	BT_FREE char *state = bt_cli_state_dir(cli);
	BT_FREE char *local = bt_asprintf("%s/client.json", state);
	BT_FREE char *user = bt_asprintf("%s/.config/baton/client.json", home ? home : "");
	int r = file ? merge_file(c, file, true, err) : 0;
	/* A state directory that was named outranks the user's file: it is the newer wish. */
	if (r == 0 && !file && (bt_cli_has(cli, "dir") || getenv("BATON_DIR")))
		r = merge_file(c, local, false, err);
	if (r == 0 && !file)
		r = merge_file(c, user, false, err);
	if (r == 0 && !file)
		r = merge_file(c, local, false, err);
	if (r < 0)
		return r;
	if (!c->url)
		return bt_err_set(err, BT_E_CONFIG,
			"no server is known (no %s): start one here with `baton up`, or say "
			"--server URL "
			"and BATON_TOKEN",
			local);
	if (!bt_str_starts(c->url, "http://") && !bt_str_starts(c->url, "https://"))
		return bt_err_set(err, BT_E_CONFIG,
			"server '%s': expected http://HOST:PORT or https://HOST:PORT", c->url);
	if (!c->token)
		return bt_err_set(err, BT_E_CONFIG,
			"no token for %s: set BATON_TOKEN (an admin makes one with `baton token "
			"create NAME`)",
			c->url);
	return 0;
}

int bt_client_open(const struct bt_cli *cli, struct bt_client **ret, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = bt_calloc(1, sizeof *c);
	int r = find_server(c, cli, err);
	if (r < 0)
		return r;
	if (c->cacert && access(c->cacert, R_OK) < 0)
		return bt_err_set(
			err, BT_E_CONFIG, "CA certificate %s: %s", c->cacert, strerror(errno));
	c->tls.ca_file = c->cacert;
	c->base = event_base_new();
	if (!c->base)
		return bt_err_set(err, -ENOMEM, "no event loop");
	c->http = bt_http_client_new(c->base);
	*ret = BT_STEAL(c);
	return 0;
}

struct bt_client *bt_client_free(struct bt_client *c)
{
	if (!c)
		return NULL;
	if (c->sigint)
		event_free(c->sigint);
	if (c->sigterm)
		event_free(c->sigterm);
	bt_http_client_free(c->http);
	if (c->base)
		event_base_free(c->base);
	free(c->url);
	free(c->token);
	free(c->cacert);
	free(c);
	return NULL;
}

void bt_client_cleanup(struct bt_client **c)
{
	*c = bt_client_free(*c);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	struct bt_client *c = arg;
	(void)number;
	(void)what;
	c->signals++;
}

bool bt_client_leaves(const struct bt_client *c)
{
	return c->leave_at && c->signals >= c->leave_at;
}

static void on_waited(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	*(bool *)arg = true;
}

int bt_client_wait(struct bt_client *c, int64_t ms, struct bt_err *err)
{
	bool over = false;
	struct event *timer = evtimer_new(c->base, on_waited, &over);
	bt_timer_in(timer, ms);
	while (!over && !bt_client_leaves(c))
		event_base_loop(c->base, EVLOOP_ONCE);
	event_free(timer);
	return over ? 0 : bt_err_set(err, -EINTR, "interrupted");
}

void bt_client_catch_signals(struct bt_client *c)
{
	c->sigint = evsignal_new(c->base, SIGINT, on_signal, c);
	c->sigterm = evsignal_new(c->base, SIGTERM, on_signal, c);
	evsignal_add(c->sigint, NULL);
	evsignal_add(c->sigterm, NULL);
}

void bt_client_request(const struct bt_client *c, const char *method, const char *path,
	struct bt_http_header header[static 1], char **ret_url, char **ret_auth,
	struct bt_http_request *ret)
{
	*ret_url = bt_asprintf("%s%s", c->url, path);
	*ret_auth = bt_asprintf("Bearer %s", c->token);
	header[0] = (struct bt_http_header){"Authorization", *ret_auth};
	*ret = (struct bt_http_request){.method = method,
		.url = *ret_url,
		.headers = header,
		.n_headers = 1,
		.tls = c->cacert ? &c->tls : NULL};
}

struct pending {
	struct bt_client *client;
	struct bt_client_answer answer;
	struct bt_err err;
	const struct bt_client_call *call;
	bool done, told;
};

static void on_progress(void *arg, int64_t sent, int64_t received)
{
	struct pending *p = arg;
	(void)received;
	p->call->on_progress(p->call->arg, sent);
}

static void on_done(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct pending *p = arg;
	p->done = true;
	p->answer.status = r->status;
	if (r->status == 0) {
		p->err = *err;
		return;
	}
	const char *offset = r->header(r, "upload-offset");
	int64_t n = -1;
	p->answer.upload_offset =
		offset && bt_int_parse(offset, 0, INT64_MAX, &n, NULL) == 0 ? n : -1;
	/* A proxy's answer is no JSON; bt_client_error then goes by the status. */
	if (r->body_len &&
		bt_json_parse(r->body, r->body_len, r->body_len, &p->answer.body, NULL) < 0)
		p->answer.body = NULL;
}

static void on_slow(evutil_socket_t fd, short what, void *arg)
{
	struct pending *p = arg;
	(void)fd;
	(void)what;
	if (!p->told)
		fprintf(stderr, "baton: waiting for %s …\n", p->client->url);
	p->told = true;
}

void bt_client_answer_done(struct bt_client_answer *a)
{
	json_decref(a->body);
	a->body = NULL;
}

static bool is_fine(int status, const int *fine)
{
	for (; fine && *fine; fine++)
		if (*fine == status)
			return true;
	return status < 400;
}

/* The reason without what was asked for; and what to look at. */
static int unreachable(const struct bt_client *c, struct bt_err *err)
{
	int code = err ? err->code : BT_E_UNREACHABLE;
	if (!err || (code != BT_E_UNREACHABLE && code != BT_E_TIMEOUT))
		return bt_err_wrap(err, "server %s", c->url);
	const char *why = strstr(err->text, ": connect: ");
	BT_FREE char *text = bt_strdup(why ? why + 2 : err->text);
	return bt_err_set(err, code,
		"server %s does not answer: %s (is `baton up` or `baton server run` running "
		"there?)",
		c->url, text);
}

int bt_client_do(struct bt_client *c, const struct bt_client_call *call, const int *fine,
	struct bt_client_answer *ret, struct bt_err *err)
{
	BT_FREE char *url = NULL, *auth = NULL, *body = NULL;
	struct bt_http_header headers[3];
	struct bt_http_request rq;
	char offset[32];
	bt_client_request(c, call->method, call->path, headers, &url, &auth, &rq);
	if (call->json) {
		body = bt_json_dump(call->json);
		rq.body = body;
		rq.body_len = strlen(body);
		headers[rq.n_headers++] =
			(struct bt_http_header){"Content-Type", "application/json"};
	} else if (call->raw) {
		rq.body = call->raw;
		rq.body_len = call->raw_len;
		snprintf(offset, sizeof offset, "%lld", (long long)call->upload_offset);
		headers[rq.n_headers++] = (struct bt_http_header){"Upload-Offset", offset};
		headers[rq.n_headers++] =
			(struct bt_http_header){"Content-Type", "application/octet-stream"};
	}
	rq.timeout_ms = call->raw ? 600000 : c->patience_ms ? c->patience_ms : 60000;
	rq.max_body = 16 << 20;
	struct pending p = {.client = c, .call = call, .answer = {.upload_offset = -1}};
	if (call->on_progress)
		rq.on_progress = on_progress;
	struct bt_http_call *running = bt_http_start(c->http, &rq, on_done, &p);
	struct event *slow = evtimer_new(c->base, on_slow, &p);
	if (!call->raw)
		bt_timer_in(slow, 3000);
	while (!p.done && !bt_client_leaves(c))
		event_base_loop(c->base, EVLOOP_ONCE);
	event_free(slow);
	if (!p.done) {
		bt_http_cancel(running);
		return bt_err_set(err, -EINTR, "interrupted");
	}
	if (p.answer.status == 0) {
		if (err)
			*err = p.err;
		return unreachable(c, err);
	}
	int r = is_fine(p.answer.status, fine)
			? 0
			: bt_client_error(p.answer.status, p.answer.body, err);
	if (r < 0) {
		bt_client_answer_done(&p.answer);
		return r;
	}
	*ret = p.answer;
	return 0;
}

int bt_client_error(int status, const json_t *body, struct bt_err *err)
{
	static const struct {
		const char *code;
		int status, err;
	} table[] = {{"config", 400, BT_E_CONFIG}, {"protocol", 0, BT_E_PROTOCOL},
		{"auth", 401, BT_E_AUTH}, {"refused", 403, BT_E_REFUSED},
		{"not_found", 404, BT_E_NOTFOUND}, {"lease", 409, BT_E_LEASE},
		{"exists", 0, BT_E_EXISTS}, {"failed", 422, BT_E_FAILED},
		{"store", 507, BT_E_STORE}, {"", 502, BT_E_UNREACHABLE},
		{"", 503, BT_E_UNREACHABLE}, {"", 504, BT_E_UNREACHABLE}};
	const json_t *error = json_object_get(body, "error");
	const char *code = json_string_value(json_object_get(error, "code"));
	const char *message = json_string_value(json_object_get(error, "message"));
	const json_t *problems = json_object_get(error, "problems");
	if (!problems)
		problems = json_object_get(body, "problems");
	size_t i;
	json_t *line;
	json_array_foreach (problems, i, line)
		fprintf(stderr, "%s\n", json_string_value(line) ? json_string_value(line) : "");
	int found = BT_E_FAILED;
	for (i = BT_ARRAY_LEN(table); i-- > 0;)
		if (code ? bt_streq(code, table[i].code) : status == table[i].status)
			found = table[i].err;
	if (message && status == 401)
		return bt_err_set(err, found,
			"%s (the server does not take this token: BATON_TOKEN)", message);
	if (message)
		return bt_err_set(err, found, "%s", message);
	return bt_err_set(err, found, "the server answered %d without saying why", status);
}

int bt_client_get(struct bt_client *c, const char *path, json_t **ret, struct bt_err *err)
{
	struct bt_client_answer a;
	int r = bt_client_do(
		c, &(struct bt_client_call){.method = "GET", .path = path}, NULL, &a, err);
	if (r < 0)
		return r;
	if (!a.body)
		return bt_err_set(err, BT_E_PROTOCOL,
			"%s%s did not answer with JSON: is it a baton server?", c->url, path);
	*ret = a.body;
	return 0;
}

int bt_client_post(
	struct bt_client *c, const char *path, const json_t *body, json_t **ret, struct bt_err *err)
{
	struct bt_client_answer a;
	BT_JSON json_t *empty = json_object();
	int r = bt_client_do(c,
		&(struct bt_client_call){
			.method = "POST", .path = path, .json = body ? body : empty},
		NULL, &a, err);
	if (r < 0)
		return r;
	if (ret)
		*ret = a.body;
	else
		bt_client_answer_done(&a);
	return 0;
}

char *bt_url_escape(const char *text)
{
	struct bt_str s = {0};
	for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
		if (isalnum(*p) || strchr("-._~", *p))
			bt_str_addc(&s, (char)*p);
		else
			bt_str_addf(&s, "%%%02X", *p);
	}
	return bt_str_steal(&s);
}
