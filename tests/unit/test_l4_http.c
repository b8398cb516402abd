/* The http family against a small server that is a fake of somebody's appliance: it says so in its
 * answers, keeps a state for each member, and can be told to misbehave. */
#include "base/str.h"
#include "config/call.h"
#include "driver/l4.h"
#include "driver/l4_http.h"
#include "net/http_client.h"

#include <event2/buffer.h>
#include <arpa/inet.h>
#include <event2/http.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define SECRET "tok-3n-\"s3cret"

static struct bt_driver_env env;
static struct evhttp *http;
static uint16_t port;

/* ---- the fake appliance ---- */

static struct {
	bool enabled[2]; /* member 0 is was1/a, 1 is was2/a */
	int lag;	 /* a change is seen after so many questions */
	int pending[2];	 /* questions left until it is seen */
	bool next[2];
	int asked, told, failures, status; /* the next `failures` answers are `status` */
	const char *retry_after, *garbage;
	bool stubborn; /* takes every change and does none */
	bool auth;     /* wants the secret */
	size_t big;
	char order[64]; /* "+1-0": what was told, in order */
	char body[256], path[256];
} fake;

static void reply(struct evhttp_request *rq, int status, const char *text)
{
	struct evbuffer *out = evhttp_request_get_output_buffer(rq);
	evbuffer_add(out, text, strlen(text));
	evhttp_send_reply(rq, status, "fake", out);
}

static void tell_state(struct evhttp_request *rq, int m)
{
	char text[256];
	fake.asked++;
	if (fake.pending[m] > 0 && --fake.pending[m] == 0)
		fake.enabled[m] = fake.next[m];
	if (fake.big) {
		BT_FREE char *huge = bt_malloc(fake.big + 1);
		memset(huge, ' ', fake.big);
		huge[fake.big] = 0;
		reply(rq, 200, huge);
		return;
	}
	snprintf(text, sizeof text,
		"{\"note\":\"a fake appliance of a "
		"test\",\"data\":{\"state\":\"%s\",\"conns\":%d}}",
		fake.enabled[m] ? "enabled" : "disabled", 7 + m);
	reply(rq, 200, fake.garbage ? fake.garbage : text);
}

static void take_change(struct evhttp_request *rq, int m, bool on)
{
	size_t n = strlen(fake.order);
	fake.told++;
	snprintf(fake.order + n, sizeof fake.order - n, "%c%d", on ? '+' : '-', m);
	fake.next[m] = on;
	fake.pending[m] = fake.stubborn ? 0 : fake.lag;
	if (!fake.lag && !fake.stubborn)
		fake.enabled[m] = on;
	reply(rq, 200, "{}");
}

static void on_request(struct evhttp_request *rq, void *arg)
{
	struct evkeyvalq *in = evhttp_request_get_input_headers(rq);
	struct evbuffer *body = evhttp_request_get_input_buffer(rq);
	const char *path = evhttp_request_get_uri(rq);
	const char *auth = evhttp_find_header(in, "Authorization");
	int m = strstr(path, "was2") ? 1 : 0;
	(void)arg;
	size_t n = evbuffer_get_length(body);
	snprintf(fake.path, sizeof fake.path, "%s", path);
	if (fake.failures > 0) {
		fake.failures--;
		if (fake.retry_after)
			evhttp_add_header(evhttp_request_get_output_headers(rq), "Retry-After",
				fake.retry_after);
		reply(rq, fake.status, "no, \x01says the fake");
	} else if (fake.auth && !bt_streq(auth, "Bearer " SECRET)) {
		BT_FREE char *echo = bt_asprintf("who is %s?", auth ? auth : "this");
		reply(rq, 401, echo);
	} else if (evhttp_request_get_command(rq) == EVHTTP_REQ_GET) {
		tell_state(rq, m);
	} else {
		snprintf(fake.body, sizeof fake.body, "%.*s", (int)n,
			(const char *)evbuffer_pullup(body, -1));
		take_change(rq, m, strstr(fake.body, "enabled") != NULL);
	}
}

static void open_fake(void)
{
	http = evhttp_new(env.base);
	evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_PUT | EVHTTP_REQ_POST);
	evhttp_set_gencb(http, on_request, NULL);
	struct evhttp_bound_socket *s = evhttp_bind_socket_with_handle(http, "127.0.0.1", port);
	struct sockaddr_in a;
	socklen_t n = sizeof a;
	assert_non_null(s);
	getsockname(evhttp_bound_socket_get_fd(s), (struct sockaddr *)&a, &n);
	port = ntohs(a.sin_port);
}

/* ---- the service ---- */

static char status_url[128], change_url[128];
static struct bt_l4 l4;
static struct bt_service service;
static struct bt_pool_member members[2];
static const char *kept; /* what the agent keeps as TOKEN; NULL: nothing */

static const char *keep_secret(void *arg, const char *name, const char *secret)
{
	(void)arg;
	return bt_streq(name, "shop") && bt_streq(secret, "TOKEN") ? kept : NULL;
}

static int setup(void **state)
{
	static const char *const hosts[] = {"was1", "was2"};
	static const struct bt_slot slots[] = {{.name = "a", .port = 8081}};
	static const char *const secrets[] = {"TOKEN"};
	static const struct bt_kv headers[] = {{"Authorization", "Bearer ${TOKEN}"}};
	(void)state;
	memset(&fake, 0, sizeof fake);
	fake.enabled[0] = fake.enabled[1] = true;
	env.base = event_base_new();
	env.http = bt_http_client_new(env.base);
	env.host = "lb1";
	env.secret = keep_secret;
	kept = SECRET;
	port = 0;
	open_fake();
	snprintf(status_url, sizeof status_url,
		"http://127.0.0.1:%d/fake/{service}/{host}/{slot}?p={port}", port);
	snprintf(change_url, sizeof change_url, "http://127.0.0.1:%d/fake/{host}", port);
	l4 = (struct bt_l4){
		.kind = BT_BALANCER_HTTP,
		.http = {.status = {.method = "GET", .url = status_url},
			.on = {.method = "PUT",
				.url = change_url,
				.body = "{\"state\": \"enabled\", \"at\": \"{address}:{port}\"}"},
			.off = {.method = "POST",
				.url = change_url,
				.body = "{\"state\": \"off\"}"},
			.headers = headers,
			.n_headers = 1,
			.in_rotation = "data.state",
			.in_rotation_is = "enabled",
			.connections = "data.conns",
			.timeout_ms = 2000,
			.retries = 2,
			.verify = true},
	};
	service = (struct bt_service){.name = "shop",
		.hosts = hosts,
		.n_hosts = 2,
		.run = {.slots = slots, .n_slots = 1, .secrets = secrets, .n_secrets = 1},
		.l4 = &l4};
	for (int i = 0; i < 2; i++)
		members[i] = (struct bt_pool_member){
			.host = hosts[i], .slot = "a", .address = "10.0.0.1", .port = 8081};
	return bt_l4_http.init(&env, NULL);
}

static int teardown(void **state)
{
	(void)state;
	if (http)
		evhttp_free(http);
	bt_http_client_free(env.http);
	event_base_free(env.base);
	return 0;
}

/* ---- asking the family ---- */

static struct {
	bool done, running;
	int result, lines;
	size_t n;
	bool in[2], counted;
	uint32_t connections[2];
	char text[BT_ERR_MAX], trouble[BT_ERR_MAX], refuses[BT_ERR_MAX], lined[4096];
} got;

static void run(void)
{
	for (int i = 0; i < 100000 && !got.done; i++)
		event_base_loop(env.base, EVLOOP_ONCE);
	assert_true(got.done);
}

static void on_done(void *arg, int result, const struct bt_err *err)
{
	(void)arg;
	assert_false(got.done);
	got.done = true;
	got.result = result;
	snprintf(got.text, sizeof got.text, "%s", err->text);
}

static void on_line(void *arg, const char *line)
{
	size_t n = strlen(got.lined);
	(void)arg;
	got.lines++;
	snprintf(got.lined + n, sizeof got.lined - n, "%s\n", line);
}

static void on_seen(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	(void)arg;
	assert_false(got.done);
	got.done = true;
	got.result = result;
	snprintf(got.text, sizeof got.text, "%s", err->text);
	if (result < 0)
		return;
	got.running = seen->running;
	got.n = seen->n_members;
	assert_true(seen->n_members <= 2);
	for (size_t i = 0; i < seen->n_members; i++) {
		const struct bt_seen_member *m = &seen->members[i];
		assert_string_equal(m->slot, "a");
		assert_int_equal(m->port, 8081);
		int who = bt_streq(m->host, "was2");
		got.in[who] = m->in;
		got.connections[who] = m->connections;
		got.counted = m->counted;
	}
	snprintf(got.trouble, sizeof got.trouble, "%s", seen->trouble ? seen->trouble : "");
	snprintf(got.refuses, sizeof got.refuses, "%s", seen->refuses ? seen->refuses : "");
}

static struct bt_l4_target target(bool one, bool two)
{
	members[0].in = one;
	members[1].in = two;
	return (struct bt_l4_target){.service = &service, .members = members, .n_members = 2};
}

static void write_it(bool one, bool two)
{
	struct bt_l4_target t = target(one, two);
	memset(&got, 0, sizeof got);
	bt_l4_http.write(&t, on_line, NULL, on_done, NULL);
	assert_false(got.done);
	run();
	assert_null(strstr(got.text, "s3cret"));
	assert_null(strstr(got.lined, "s3cret"));
}

static void read_with(const struct bt_l4_target *t, int result)
{
	memset(&got, 0, sizeof got);
	bt_l4_http.read(t, on_seen, NULL);
	assert_false(got.done);
	run();
	assert_int_equal(got.result, result);
	assert_null(strstr(got.text, "s3cret"));
	assert_null(strstr(got.trouble, "s3cret"));
}

static void read_it(const struct bt_l4_target *t)
{
	read_with(t, 0);
}

static void says(const char *text, const char *words)
{
	if (!strstr(text, words))
		fail_msg("'%s' is not in '%s'", words, text);
}

/* ---- the tests ---- */

static void test_read(void **state)
{
	struct bt_l4_target t = {.service = &service}; /* nothing was applied yet */
	(void)state;
	fake.enabled[1] = false;
	fake.auth = true;
	read_it(&t);
	assert_true(got.running && got.in[0] && !got.in[1] && got.counted);
	assert_int_equal(got.n, 2);
	assert_int_equal(got.connections[0], 7);
	assert_int_equal(got.connections[1], 8);
	assert_string_equal(got.trouble, "");
	l4.http.connections = NULL;
	t = target(true, true);
	read_it(&t);
	assert_true(got.in[0] && !got.in[1] && !got.counted);
	says(fake.path, "?p=8081");
	says(fake.path, "/fake/shop/was");
	service.name = "shop@dev";
	service.n_hosts = 1;
	kept = NULL;
	read_it(&(struct bt_l4_target){.service = &service});
	assert_true(got.running);
	assert_int_equal(got.n, 0);
	says(got.trouble, "TOKEN is not known");
	assert_string_equal(got.refuses, ""); /* or the deployment that brings it could not begin */
	const struct bt_kv given[] = {{"TOKEN", SECRET}};
	service.secret_values = given;
	service.n_secret_values = 1;
	read_it(&(struct bt_l4_target){.service = &service});
	assert_int_equal(got.n, 1);
	says(fake.path, "/fake/shop%40dev/was1/a");
}

static void test_write(void **state)
{
	(void)state;
	fake.lag = 3;
	fake.enabled[1] = false;
	write_it(false, true); /* what comes in is seen in before anything leaves */
	assert_int_equal(got.result, 0);
	assert_string_equal(fake.order, "+1-0");
	assert_true(!fake.enabled[0] && fake.enabled[1]);
	says(got.lined, "was2/a is told, waits until it is seen in\nwas2/a is in rotation\n");
	says(got.lined, "was1/a is out of rotation\n");
	assert_string_equal(fake.body, "{\"state\": \"off\"}");
	int told = fake.told;
	write_it(false, true); /* again: nobody is told anything */
	assert_int_equal(got.result, 0);
	assert_int_equal(fake.told, told);
	write_it(true, true);
	assert_string_equal(fake.body, "{\"state\": \"enabled\", \"at\": \"10.0.0.1:8081\"}");
	memset(&got, 0, sizeof got);
	struct bt_l4_target none = {.service = &service};
	bt_l4_http.write(&none, NULL, NULL, on_done, NULL);
	run();
	assert_int_equal(got.result, 0);
}

static void test_cancel(void **state)
{
	struct bt_l4_target t = target(false, true);
	(void)state;
	fake.stubborn = true;
	memset(&got, 0, sizeof got);
	struct bt_op *op = bt_l4_http.write(&t, on_line, NULL, on_done, NULL);
	while (fake.asked < 5) /* it goes on asking */
		event_base_loop(env.base, EVLOOP_ONCE);
	bt_op_cancel(op);
	assert_false(got.done);
	op = bt_l4_http.read(&t, on_seen, NULL);
	event_base_loop(env.base, EVLOOP_ONCE);
	bt_op_cancel(op);
	assert_false(got.done);
}

static void test_repeats(void **state)
{
	(void)state;
	fake.failures = 2;
	fake.status = 503;
	write_it(false, true);
	assert_int_equal(got.result, 0);
	says(got.lined, "again in");
	fake.failures = 1;
	fake.status = 429;
	fake.retry_after = "1";
	write_it(true, true);
	assert_int_equal(got.result, 0);
	says(got.lined, "answered 429 no,  says the fake; again in 1000 ms");
	fake.failures = 100;
	fake.status = 500;
	fake.retry_after = "99999999"; /* beyond the bound: our own pause */
	write_it(false, true);
	assert_int_equal(got.result, BT_E_FAILED);
	says(got.text, "status of was1/a: GET http://127.0.0.1:");
	says(got.text, "answered 500 no,  says the fake (tried 3 times)");
	fake.failures = 1;
	fake.status = 404; /* it does not know the host; asking again does not help */
	write_it(false, true);
	assert_int_equal(got.result, BT_E_FAILED);
	says(got.text, "answered 404");
	assert_int_equal(fake.failures, 0);
}

static void test_down(void **state)
{
	struct bt_l4_target t = target(false, true);
	(void)state;
	evhttp_free(http);
	http = NULL;
	write_it(false, true);
	assert_int_equal(got.result, BT_E_UNREACHABLE);
	says(got.text, "status of was1/a: ");
	says(got.text, "(tried 3 times)");
	read_it(&t);
	assert_false(got.running);
	assert_int_equal(got.n, 0);
	says(got.refuses, "status of was1/a: ");
	open_fake(); /* at the same port */
	write_it(false, true);
	assert_int_equal(got.result, 0);
	assert_string_equal(fake.order, "-0");
}

/* What is only said again: in is told, and not waited for. */
static void test_again(void **state)
{
	struct bt_l4_target t = target(true, true);
	(void)state;
	t.again = true;
	fake.stubborn = true;
	fake.enabled[0] = false;
	memset(&got, 0, sizeof got);
	bt_l4_http.write(&t, on_line, NULL, on_done, NULL);
	run();
	assert_int_equal(got.result, 0);
	assert_string_equal(fake.order, "+0");
}

/* It takes the change and then goes away: what was changed is said. */
static void test_down_between(void **state)
{
	(void)state;
	fake.enabled[1] = false;
	fake.lag = 1;
	struct bt_l4_target t = target(false, true);
	memset(&got, 0, sizeof got);
	bt_l4_http.write(&t, on_line, NULL, on_done, NULL);
	while (!strchr(fake.order, '-'))
		event_base_loop(env.base, EVLOOP_ONCE);
	evhttp_free(http);
	http = NULL;
	run();
	assert_true(got.result == BT_E_UNREACHABLE || got.result == BT_E_TIMEOUT);
	says(got.text, "before that was2/a is in");
}

static void test_wrong_token(void **state)
{
	struct bt_l4_target t = target(true, true);
	(void)state;
	fake.auth = true;
	kept = "wrong-s3cret";
	write_it(false, true);
	assert_int_equal(got.result, BT_E_AUTH);
	says(got.text, "answered 401 who is Bearer ***?");
	read_with(&t, BT_E_AUTH);
	says(got.text, "answered 401");
	kept = "two\nlines";
	write_it(false, true);
	assert_int_equal(got.result, BT_E_CONFIG);
	kept = NULL;
	write_it(false, true);
	assert_int_equal(got.result, BT_E_NOTFOUND);
	assert_int_equal(fake.told, 0);
}

static void test_too_large(void **state)
{
	(void)state;
	fake.big = BT_API_ANSWER_MAX + 1;
	write_it(false, true);
	assert_int_equal(got.result, BT_E_REFUSED);
	says(got.text, "the answer is larger than 1048576 bytes");
	assert_int_equal(fake.asked, 2); /* of each member once */
	assert_int_equal(fake.told, 0);
}

static void answers(const char *body, const char *expected)
{
	struct bt_api_state s = {0};
	struct bt_err err = {0};
	int r = bt_api_read_state(&l4.http, body, strlen(body), &s, &err);
	if (r == 0)
		snprintf(err.text, sizeof err.text, "%s %u", s.in ? "in" : "out", s.connections);
	assert_string_equal(err.text, expected);
}

static void test_answers(void **state)
{
	(void)state;
	answers("{\"data\":{\"state\":\"enabled\",\"conns\":3}}", "in 3");
	answers("{\"data\":{\"state\":\"drain\",\"conns\":\"12\"}}", "out 12");
	answers("{\"data\":{\"state\":\"enabled\",\"conns\":-1}}",
		"data.conns is -1, expected a count of connections");
	answers("{\"data\":{\"state\":\"enabled\",\"conns\":1.5}}",
		"data.conns is 1.5, expected a count of connections");
	answers("{\"data\":{\"state\":\"enabled\",\"conns\":[]}}",
		"data.conns is a list, expected a count of connections");
	answers("{\"data\":{\"state\":\"enabled\",\"conns\":99999999999}}",
		"data.conns is 99999999999, expected a count of connections");
	answers("{\"data\":{\"status\":\"enabled\",\"conns\":3}}",
		"data.state is missing in the answer, found keys status conns in data");
	answers("{\"x\":1,\"y\":2}", "data.state is missing in the answer, found keys x y");
	answers("{}", "data.state is missing in the answer, found an empty object");
	answers("[1]", "data.state is missing in the answer, found a list");
	answers("{\"data\":5}", "data.state is missing in the answer, found no keys in data");
	answers("{\"data\":{\"state\":null}}",
		"data.state is null, expected a value such as 'enabled'");
	answers("{\"data\":{\"state\":{}}}",
		"data.state is an object, expected a value such as 'enabled'");
	answers("<html>it works</html>", "the answer is no JSON: <html>it works</html>");
	answers(" ", "the answer is no JSON: it is empty");
	answers("{\"data\":{},\"data\":{}}", "the answer is no JSON: {\"data\":{},\"data\":{}}");
	l4.http.in_rotation = "items.1.up";
	l4.http.in_rotation_is = "true";
	l4.http.connections = NULL;
	answers("{\"items\":[{\"up\":false},{\"up\":true}]}", "in 0");
	answers("{\"items\":[{\"up\":false}]}",
		"items.1.up is missing in the answer, found a list in items");
	fake.garbage = "rubbish";
	l4.http.retries = 0;
	write_it(false, true);
	assert_int_equal(got.result, BT_E_FAILED);
	assert_string_equal(got.text, "status of was1/a: the answer is no JSON: rubbish");
	assert_int_equal(fake.told, 0);
	struct bt_l4_target t = target(true, true);
	read_with(&t, BT_E_FAILED);
	assert_string_equal(got.text, "status of was1/a: the answer is no JSON: rubbish");
}

static void test_templates(void **state)
{
	const struct bt_call_values v = {"h\"1", "a/b", "s vc", NULL, 80};
	struct bt_err err = {0};
	BT_STR struct bt_str url = {0}, body = {0};
	(void)state;
	assert_int_equal(
		bt_call_expand("{host}/{slot}{port}{{x}{ y}", &v, BT_CALL_URL, &url, &err), 0);
	assert_string_equal(url.data, "h%221/a%2Fb80{x}{ y}");
	assert_int_equal(bt_call_expand("{\"h\":\"{host}\"}", &v, BT_CALL_JSON, &body, &err), 0);
	assert_string_equal(body.data, "{\"h\":\"h\\\"1\"}");
	assert_int_equal(bt_call_expand("{address}", &v, BT_CALL_URL, &url, &err), BT_E_NOTFOUND);
	assert_int_equal(bt_call_expand("{prot}", &v, BT_CALL_URL, &url, &err), BT_E_CONFIG);
	says(err.text, "unknown placeholder {prot}");
	assert_true(bt_check_call("{host} {\"a\":{}} {{prot}"));
	assert_false(bt_check_call("{prot}"));
	assert_true(bt_check_call_url("https://{address}:{port}/x?y={slot}"));
	assert_false(bt_check_call_url("https://user@lb/"));
	assert_false(bt_check_call_url("ftp://lb/"));
	assert_false(bt_check_call_url("https://lb/{port.x}"));
}

int main(void)
{
#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {TEST(test_read), TEST(test_write), TEST(test_cancel),
		TEST(test_repeats), TEST(test_down), TEST(test_down_between), TEST(test_again),
		TEST(test_wrong_token), TEST(test_too_large), TEST(test_answers),
		TEST(test_templates)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
