/* Health checks and identity against a server in the same loop, a listener, and commands. */
#include "base/clock.h"
#include "base/str.h"
#include "driver/health_probe.h"
#include "driver/nginx_proc.h"
#include "net/http_client.h"

#include <event2/buffer.h>
#include <arpa/inet.h>
#include <event2/http.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct bt_driver_env env;
static struct evhttp *http;
static uint16_t port;
static int asked, bad_first; /* requests so far; how many of them are answered 503 */
static char seen_header[64], seen_host[64];

static void on_request(struct evhttp_request *rq, void *arg)
{
	struct evbuffer *out = evhttp_request_get_output_buffer(rq);
	struct evkeyvalq *in = evhttp_request_get_input_headers(rq);
	const char *path = evhttp_request_get_uri(rq), *h = evhttp_find_header(in, "X-Probe");
	const char *host = evhttp_find_header(in, "Host");
	(void)arg;
	asked++;
	snprintf(seen_header, sizeof seen_header, "%s", h ? h : "");
	snprintf(seen_host, sizeof seen_host, "%s", host ? host : "");
	if (!strcmp(path, "/hang"))
		return; /* never answered */
	if (!strcmp(path, "/who")) {
		evbuffer_add_printf(out, "\n  green \r\n");
		evhttp_send_reply(rq, 200, "OK", out);
	} else if (asked <= bad_first) {
		evbuffer_add_printf(out, "starting\nsecond line");
		evhttp_send_reply(rq, 503, "no", out);
	} else {
		evbuffer_add_printf(out, "{\"status\":\"UP\",\"db\":{\"ok\":true}}");
		evhttp_send_reply(rq, 200, "OK", out);
	}
}

static int setup(void **state)
{
	(void)state;
	env.base = event_base_new();
	env.http = bt_http_client_new(env.base);
	http = evhttp_new(env.base);
	evhttp_set_gencb(http, on_request, NULL);
	struct evhttp_bound_socket *s = evhttp_bind_socket_with_handle(http, "127.0.0.1", 0);
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	getsockname(evhttp_bound_socket_get_fd(s), (struct sockaddr *)&a, &n);
	port = ntohs(a.sin_port);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	evhttp_free(http);
	bt_http_client_free(env.http);
	event_base_free(env.base);
	return 0;
}

struct answer {
	bool done;
	int result, lines;
	char text[BT_ERR_MAX], last_line[256];
};

static void on_done(void *arg, int result, const struct bt_err *err)
{
	struct answer *a = arg;
	assert_false(a->done);
	assert_int_equal(result, err->code);
	a->done = true;
	a->result = result;
	snprintf(a->text, sizeof a->text, "%s", err->text);
}

static void on_line(void *arg, const char *line)
{
	struct answer *a = arg;
	a->lines++;
	snprintf(a->last_line, sizeof a->last_line, "%s", line);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	*(bool *)arg = true;
}

static void run_until(const bool *flag, int ms)
{
	bool late = false;
	struct timeval t = {ms / 1000, ms % 1000 * 1000};
	struct event *e = evtimer_new(env.base, on_limit, &late);
	event_add(e, &t);
	while (!*flag && !late)
		event_base_loop(env.base, EVLOOP_ONCE);
	event_free(e);
}

static struct bt_health spec(enum bt_health_kind kind, const char *path)
{
	return (struct bt_health){.kind = kind,
		.path = path,
		.every_ms = 10,
		.timeout_ms = 2000,
		.within_ms = 20000,
		.passes = 2,
		.fails = 3};
}

static void check(const struct bt_health *h, int64_t within_ms, struct answer *a)
{
	struct bt_health_target t = {.health = h,
		.address = "127.0.0.1",
		.port = port,
		.slot = "green",
		.host = "was1",
		.artifact = "/r/shop.jar",
		.version = "v2",
		.within_ms = within_ms};
	*a = (struct answer){0};
	asked = 0;
	bt_health_wait(&env, &t, on_line, a, on_done, a);
	assert_false(a->done);
	run_until(&a->done, 30000);
	assert_true(a->done);
}

static void says(const struct answer *a, const char *words)
{
	if (!strstr(a->text, words))
		fail_msg("'%s' is not in '%s'", words, a->text);
}

/* ---- http --------------------------------------------------------------------------------- */

static void test_http(void **state)
{
	(void)state;
	struct answer a;
	struct bt_kv json[] = {{"status", "UP"}, {"db.ok", "true"}},
		     headers[] = {{"X-Probe", "baton"}};
	struct bt_health h = spec(BT_HEALTH_HTTP, "/health");
	h.json = json;
	h.n_json = 2;
	h.headers = headers;
	h.n_headers = 1;
	bad_first = 3;
	check(&h, 0, &a);
	assert_int_equal(a.result, 0);
	assert_int_equal(asked, 5); /* three bad ones, then two in a row */
	assert_int_equal(a.lines, 5);
	assert_string_equal(a.last_line, "try 5: 200");
	assert_string_equal(seen_header, "baton");
	bad_first = 1000000;
	check(&h, 500, &a);
	assert_int_equal(a.result, BT_E_FAILED);
	says(&a, "not healthy within 500ms, ");
	says(&a, " tries; GET http://127.0.0.1:");
	says(&a, "/health: 503 starting (expected 200)");
	bad_first = 0;
	json[1].value = "false";
	check(&h, 400, &a);
	says(&a, "db.ok is 'true', expected 'false'");
	h.n_json = 0;
	h.contains = "DOWN";
	check(&h, 400, &a);
	says(&a, "200 without 'DOWN': {\"status\":\"UP\"");
	h.contains = "UP";
	h.path = "/hang";
	h.timeout_ms = 40;
	check(&h, 500, &a);
	assert_int_equal(a.result, BT_E_FAILED);
	assert_true(asked >= 1);
}

static void test_unreachable(void **state)
{
	(void)state;
	struct answer a;
	struct bt_health h = spec(BT_HEALTH_HTTP, "/"), tcp = spec(BT_HEALTH_TCP, NULL);
	h.port = tcp.port = 1; /* nobody listens there */
	check(&h, 400, &a);
	assert_int_equal(a.result, BT_E_FAILED);
	says(&a, "127.0.0.1:1");
	check(&tcp, 400, &a);
	assert_int_equal(a.result, BT_E_FAILED);
	says(&a, "connect to 127.0.0.1:1: Connection refused");
}

static void test_judge(void **state)
{
	(void)state;
	static const struct {
		const char *body, *key, *value;
		int good;
	} t[] = {
		{"{\"a\":{\"b\":[{\"c\":3}]}}", "a.b.0.c", "3", 0},
		{"{\"a\":1.5}", "a", "1.5", 0},
		{"{\"a\":null}", "a", "null", 0},
		{"{\"a\":\"null\"}", "a", "null", 0},
		{"{\"a\":{}}", "a", "", 1},
		{"{\"a\":\"x\"}", "b", "x", 1},
		{"[\"x\"]", "0", "x", 0},
		{"not json", "a", "x", 1},
		{"", "a", "x", 1},
		{"{\"a\":\"x\"", "a", "x", 1},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(t); i++) {
		struct bt_kv kv = {t[i].key, t[i].value};
		struct bt_health h = {.json = &kv, .n_json = 1};
		BT_STR struct bt_str why = {0};
		assert_int_equal(
			bt_health_judge(&h, 200, t[i].body, strlen(t[i].body), &why), t[i].good);
		if (t[i].good == 0)
			assert_string_equal(why.data, "200");
	}
	struct bt_health h = {.status = 204};
	BT_STR struct bt_str why = {0};
	assert_int_equal(bt_health_judge(&h, 204, "", 0, &why), 0);
	bt_str_reset(&why);
	assert_int_equal(bt_health_judge(&h, 200, "a\x01\x1b[31m", 7, &why), 1);
	assert_string_equal(why.data, "200 a  [31m (expected 204)"); /* no control characters */
	char long_body[1000];
	memset(long_body, 'x', sizeof long_body);
	bt_str_reset(&why);
	bt_health_judge(&h, 500, long_body, sizeof long_body, &why);
	assert_true(why.len < 200);
}

/* ---- tcp, exec ---------------------------------------------------------------------------- */

static void test_tcp(void **state)
{
	(void)state;
	struct answer a;
	struct bt_health h = spec(BT_HEALTH_TCP, NULL);
	check(&h, 0, &a);
	assert_int_equal(a.result, 0);
	assert_string_equal(a.last_line, "try 2: connected");
}

static void test_exec(void **state)
{
	(void)state;
	struct answer a;
	const char *argv[] = {"/bin/sh", "-c",
		"echo \"$1 $2 $3\"; test \"$1\" = green -a \"$3\" = v2", "x", "{slot}", "{port}",
		"{release}"};
	struct bt_health h = spec(BT_HEALTH_EXEC, NULL);
	h.argv = argv;
	h.n_argv = BT_ARRAY_LEN(argv);
	check(&h, 0, &a);
	assert_string_equal(a.text, "");
	assert_int_equal(a.result, 0);
	argv[4] = "blue";
	check(&h, 1500, &a);
	says(&a, "run /bin/sh: exit code 1: blue ");
	argv[0] = "/nowhere/check";
	check(&h, 400, &a);
	says(&a, "/nowhere/check");
	argv[0] = "/bin/sh";
	argv[2] = "sleep 30";
	h.timeout_ms = 50;
	check(&h, 1500, &a);
	assert_int_equal(a.result, BT_E_FAILED);
	says(&a, "timed out");
}

/* ---- watch, cancel, identity -------------------------------------------------------------- */

static void test_watch(void **state)
{
	(void)state;
	struct bt_health h = spec(BT_HEALTH_HTTP, "/health");
	struct bt_health_target t = {.health = &h, .address = "127.0.0.1", .port = port};
	struct answer a = {0};
	asked = bad_first = 0;
	bt_health_watch(&env, &t, 150, on_line, &a, on_done, &a);
	run_until(&a.done, 20000);
	assert_int_equal(a.result, 0);
	assert_true(asked > 1);
	assert_int_equal(a.lines, 1); /* quiet while all is well */
	a = (struct answer){0};
	bad_first = 0;
	asked = 0;
	bt_health_watch(&env, &t, 20000, on_line, &a, on_done, &a);
	run_until(&a.done, 60);
	assert_false(a.done);
	bad_first = 1000000;
	int before = asked;
	run_until(&a.done, 20000);
	assert_int_equal(a.result, BT_E_FAILED);
	assert_true(asked - before >= 3 && asked - before <= 4);
	says(&a, "not healthy any more: 3 checks in a row failed; GET http://");
	says(&a, "503 starting");
	a = (struct answer){0};
	struct bt_op *op = bt_health_wait(&env, &t, on_line, &a, on_done, &a);
	run_until(&a.done, 15);
	assert_null(bt_op_cancel(op));
	run_until(&a.done, 60);
	assert_false(a.done);
}

struct who {
	bool done;
	int result;
	char body[300], text[BT_ERR_MAX];
};

static void on_who(void *arg, int result, const char *body, const struct bt_err *err)
{
	struct who *w = arg;
	w->done = true;
	w->result = result;
	snprintf(w->body, sizeof w->body, "%s", body);
	snprintf(w->text, sizeof w->text, "%s", err->text);
}

static struct who ask(const char *path, const char *host)
{
	struct who w = {0};
	BT_FREE char *url = bt_asprintf("http://127.0.0.1:%u%s", port, path);
	bt_identity_ask(&env, url, host, on_who, &w);
	assert_false(w.done);
	run_until(&w.done, 20000);
	assert_true(w.done);
	return w;
}

static void test_identity(void **state)
{
	(void)state;
	struct who w = ask("/who", "shop.example.com");
	assert_int_equal(w.result, 0);
	assert_string_equal(w.body, "green");
	assert_string_equal(seen_host, "shop.example.com");
	asked = 0;
	bad_first = 1;
	w = ask("/health", NULL);
	assert_int_equal(w.result, BT_E_FAILED);
	assert_string_equal(w.body, "");
	assert_non_null(strstr(w.text, "status 503"));
}

static void test_low_ports(void **state)
{
	(void)state;
	assert_true(bt_nginx_can_bind_low(8080));
	if (geteuid() == 0)
		assert_true(bt_nginx_can_bind_low(80));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_http),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_judge),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_low_ports),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
