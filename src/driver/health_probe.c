/* Every try opens a connection of its own: one kept open would be counted as traffic by a drain,
 * and would not notice that a listener has gone. */
#include "driver/health_probe.h"

#include "base/json.h"
#include "config/config.h"
#include "driver/nginx_render.h"
#include "net/http_client.h"

#include <errno.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX 65536
#define ARGV_MAX 128

struct bt_health_probe {
	const struct bt_driver_env *env;
	const struct bt_health_target *target;
	bt_health_probe_fn done;
	void *arg;
	struct bt_http_call *call;
	struct bt_child *child;
	int fd; /* tcp */
	struct event *event;
	bool healthy;
	struct bt_str answer;
};

static void probe_free(struct bt_health_probe *p)
{
	bt_http_cancel(p->call);
	bt_child_cancel(p->child);
	if (p->event)
		event_free(p->event);
	if (p->fd >= 0)
		close(p->fd);
	bt_str_done(&p->answer);
	free(p);
}

struct bt_health_probe *bt_health_probe_cancel(struct bt_health_probe *p)
{
	if (p)
		probe_free(p);
	return NULL;
}

static void probe_end(struct bt_health_probe *p, bool healthy)
{
	p->done(p->arg, healthy, bt_str_get(&p->answer));
	probe_free(p);
}

static void on_settled(evutil_socket_t fd, short what, void *arg)
{
	struct bt_health_probe *p = arg;
	(void)fd;
	(void)what;
	probe_end(p, p->healthy);
}

/* What is known inside the verb is told from the loop. */
static void settle(struct bt_health_probe *p, bool healthy)
{
	p->healthy = healthy;
	if (p->event)
		event_free(p->event);
	p->event = event_new(p->env->base, -1, 0, on_settled, p);
	bt_timer_in(p->event, 0);
}

static uint16_t port_of(const struct bt_health_target *t)
{
	const struct bt_slot slot = {.more = t->more, .n_more = t->n_more};
	return bt_health_port(t->health, &slot, t->port);
}

/* ---- http --------------------------------------------------------------------------------- */

/* A scalar as people write it: true, 3, 1.5, text without quotes. Caller frees; NULL: none. */
static char *scalar_text(const json_t *j)
{
	if (json_is_string(j))
		return bt_strdup(json_string_value(j));
	if (!j || json_is_object(j) || json_is_array(j))
		return NULL;
	return json_dumps(j, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
}

/* "components.db.status", "items.0.name". */
static const json_t *at_path(const json_t *j, const char *path)
{
	BT_FREE char *copy = bt_strdup(path);
	for (char *save = NULL, *word = strtok_r(copy, ".", &save); word && j;
		word = strtok_r(NULL, ".", &save)) {
		int64_t index;
		if (json_is_array(j) && bt_int_parse(word, 0, INT32_MAX, &index, NULL) == 0)
			j = json_array_get(j, (size_t)index);
		else
			j = json_object_get(j, word);
	}
	return j;
}

static int judge_json(const struct bt_health *h, const char *body, size_t n, struct bt_str *why)
{
	json_error_t e;
	BT_JSON json_t *j = json_loadb(body, n, JSON_DECODE_ANY, &e);
	if (!j) {
		bt_str_add(why, "the answer is not JSON: ");
		bt_str_add_shown(why, body, n);
		return 1;
	}
	for (size_t i = 0; i < h->n_json; i++) {
		BT_FREE char *text = scalar_text(at_path(j, h->json[i].key));
		if (text && bt_streq(text, h->json[i].value))
			continue;
		bt_str_addf(why, "%s is %s%s%s, expected '%s'", h->json[i].key, text ? "'" : "",
			text ? text : "not there", text ? "'" : "", h->json[i].value);
		return 1;
	}
	return 0;
}

int bt_health_judge(
	const struct bt_health *h, int status, const char *body, size_t n, struct bt_str *why)
{
	int want = h->status ? h->status : 200;
	bt_str_addf(why, "%d", status);
	if (status != want) {
		bt_str_add(why, " ");
		bt_str_add_shown(why, body, n);
		bt_str_addf(why, " (expected %d)", want);
		return 1;
	}
	if (h->contains && !memmem(body, n, h->contains, strlen(h->contains))) {
		bt_str_addf(why, " without '%s': ", h->contains);
		bt_str_add_shown(why, body, n);
		return 1;
	}
	if (h->n_json == 0)
		return 0;
	bt_str_add(why, " ");
	size_t keep = why->len;
	int r = judge_json(h, body, n, why);
	if (r == 0) {
		why->len = keep - 1;
		why->data[why->len] = 0;
	}
	return r;
}

static void url_of(const struct bt_health_target *t, struct bt_str *out)
{
	char addr[300];
	const char *path = t->health->path ? t->health->path : "/";
	bt_str_addf(out, "%s://%s%s%s", t->health->kind == BT_HEALTH_HTTPS ? "https" : "http",
		bt_nginx_address(t->address, port_of(t), addr, sizeof addr),
		path[0] == '/' ? "" : "/", path);
}

static void on_http(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct bt_health_probe *p = arg;
	p->call = NULL;
	if (r->status == 0) { /* the error says what was asked, and so does who shows the answer */
		BT_STR struct bt_str asked = {0};
		bt_health_probe_words(p->target, &asked);
		bt_str_add(&asked, ": ");
		const char *text = err ? err->text : "no answer";
		bool twice = bt_str_starts(text, bt_str_get(&asked));
		bt_str_add(&p->answer, text + (twice ? asked.len : 0));
		probe_end(p, false);
		return;
	}
	bool good = bt_health_judge(p->target->health, r->status, r->body ? r->body : "",
			    r->body_len, &p->answer) == 0;
	probe_end(p, good);
}

static void start_http(struct bt_health_probe *p)
{
	const struct bt_health *h = p->target->health;
	BT_STR struct bt_str url = {0};
	url_of(p->target, &url);
	BT_FREE struct bt_http_header *headers = bt_calloc(h->n_headers + 1, sizeof *headers);
	for (size_t i = 0; i < h->n_headers; i++)
		headers[i] = (struct bt_http_header){h->headers[i].key, h->headers[i].value};
	struct bt_http_request rq = {.method = "GET",
		.url = url.data,
		.headers = headers,
		.n_headers = h->n_headers,
		.insecure = !h->verify,
		.no_reuse = true,
		.timeout_ms = h->timeout_ms,
		.connect_timeout_ms = h->timeout_ms,
		.max_body = BODY_MAX};
	p->call = bt_http_start(p->env->http, &rq, on_http, p);
}

/* ---- tcp ---------------------------------------------------------------------------------- */

static void on_connected(evutil_socket_t fd, short what, void *arg)
{
	struct bt_health_probe *p = arg;
	int e = 0;
	socklen_t n = sizeof e;
	if (what & EV_TIMEOUT)
		e = ETIMEDOUT;
	else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0)
		e = errno;
	bt_str_add(&p->answer, e ? strerror(e) : "connected");
	probe_end(p, e == 0);
}

static void start_tcp(struct bt_health_probe *p)
{
	/* Numbers only: a look-up would block, and hosts are given by address. */
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
	struct addrinfo *ai = NULL;
	char port[8];
	snprintf(port, sizeof port, "%u", (unsigned)port_of(p->target));
	int e = getaddrinfo(p->target->address, port, &hints, &ai);
	if (e != 0) {
		bt_str_addf(&p->answer, "'%s' is not an IP address", p->target->address);
		settle(p, false);
		return;
	}
	p->fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int r = p->fd < 0 ? -1 : connect(p->fd, ai->ai_addr, ai->ai_addrlen);
	int saved = errno;
	freeaddrinfo(ai);
	if (r < 0 && saved != EINPROGRESS) {
		bt_str_add(&p->answer, strerror(saved));
		settle(p, false);
		return;
	}
	int64_t ms = p->target->health->timeout_ms;
	struct timeval limit = {ms / 1000, ms % 1000 * 1000};
	p->event = event_new(p->env->base, p->fd, EV_WRITE, on_connected, p);
	event_add(p->event, ms > 0 ? &limit : NULL);
}

/* ---- exec --------------------------------------------------------------------------------- */

static void on_exec(void *arg, const struct bt_child_result *r)
{
	struct bt_health_probe *p = arg;
	char how[256];
	p->child = NULL;
	bt_str_add(&p->answer, bt_child_describe(r, how, sizeof how));
	probe_end(p, r->exit_code == 0 && !r->timed_out);
}

static int expand_argv(
	const struct bt_health_target *t, struct bt_arena *a, const char **argv, struct bt_err *err)
{
	struct bt_placeholders ph = {.artifact = t->artifact ? t->artifact : "",
		.release = t->version ? t->version : "",
		.slot = t->slot ? t->slot : "",
		.host = t->host ? t->host : "",
		.port = t->port,
		.ports = t->more,
		.n_ports = t->n_more};
	size_t n = t->health->n_argv;
	if (n == 0 || n > ARGV_MAX)
		return bt_err_set(err, BT_E_CONFIG, "health: exec needs 1 to %d words", ARGV_MAX);
	for (size_t i = 0; i < n; i++) {
		BT_STR struct bt_str word = {0};
		int r = bt_config_expand(t->health->argv[i], &ph, &word, err);
		if (r < 0)
			return r;
		argv[i] = bt_arena_strdup(a, bt_str_get(&word));
	}
	return 0;
}

static void start_exec(struct bt_health_probe *p)
{
	struct bt_err err = {0};
	const char *argv[ARGV_MAX + 1] = {0};
	BT_ARENA struct bt_arena *a = bt_arena_new();
	int r = expand_argv(p->target, a, argv, &err);
	struct bt_child_spec spec = {.argv = argv,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.timeout_ms = p->target->health->timeout_ms,
		.max_output = 4096};
	if (r == 0)
		r = bt_child_start(p->env->base, &spec, on_exec, p, &p->child, &err);
	if (r < 0) {
		bt_str_add(&p->answer, err.text);
		settle(p, false);
	}
}

/* ---- the table ---------------------------------------------------------------------------- */

static const struct {
	void (*start)(struct bt_health_probe *p);
} kinds[] = {
	[BT_HEALTH_HTTP] = {start_http},
	[BT_HEALTH_HTTPS] = {start_http},
	[BT_HEALTH_TCP] = {start_tcp},
	[BT_HEALTH_EXEC] = {start_exec},
};

struct bt_health_probe *bt_health_probe_start(const struct bt_driver_env *env,
	const struct bt_health_target *t, bt_health_probe_fn done, void *arg)
{
	struct bt_health_probe *p = bt_calloc(1, sizeof *p);
	p->env = env;
	p->target = t;
	p->done = done;
	p->arg = arg;
	p->fd = -1;
	kinds[t->health->kind].start(p);
	return p;
}

void bt_health_probe_words(const struct bt_health_target *t, struct bt_str *out)
{
	char addr[300];
	switch (t->health->kind) {
	case BT_HEALTH_HTTP:
	case BT_HEALTH_HTTPS:
		bt_str_add(out, "GET ");
		url_of(t, out);
		break;
	case BT_HEALTH_TCP:
		bt_str_addf(out, "connect to %s",
			bt_nginx_address(t->address, port_of(t), addr, sizeof addr));
		break;
	case BT_HEALTH_EXEC:
		bt_str_addf(out, "run %s", t->health->n_argv ? t->health->argv[0] : "nothing");
		break;
	}
}
