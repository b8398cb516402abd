/* The health-check instance over real connections, and the rule of when a checker believes it. */
#include "base/str.h"
#include "driver/l4.h"
#include "driver/l4_rotation.h"
#include "net/http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static struct bt_driver_env env;
static struct bt_l4 l4;
static struct bt_service service;
static const char *const hosts[] = {"was1", "was2"};
static const struct bt_slot slots[] = {{.name = "a", .port = 8081}, {.name = "b", .port = 8082}};
static char listen_text[32];
static uint16_t port;

/* A port that nobody has at the moment. */
static uint16_t free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
	getsockname(fd, (struct sockaddr *)&a, &n);
	close(fd);
	return ntohs(a.sin_port);
}

static int setup_all(void **state)
{
	(void)state;
	env.base = event_base_new();
	env.http = bt_http_client_new(env.base);
	env.host = "was1";
	return bt_l4_rotation.init(&env, NULL);
}

static int teardown_all(void **state)
{
	(void)state;
	bt_http_client_free(env.http);
	return 0; /* doors stay open as long as the process: so does the loop */
}

/* Each test has a service of its own, since the family never forgets one. */
static void begin(const char *name)
{
	port = free_port();
	snprintf(listen_text, sizeof listen_text, "127.0.0.1:%d", port);
	env.hold = false;
	l4 = (struct bt_l4){.kind = BT_BALANCER_ROTATION,
		.rotation = {.listen = listen_text,
			.path = "/rotation/{service}",
			.interval_ms = 50,
			.fall = 2,
			.rise = 2}};
	service = (struct bt_service){.name = name,
		.hosts = hosts,
		.n_hosts = 2,
		.run = {.slots = slots, .n_slots = 2},
		.l4 = &l4};
}

static struct bt_pool_member members[4];
static struct bt_l4_target target(bool a, bool b)
{
	for (int i = 0; i < 4; i++)
		members[i] = (struct bt_pool_member){.host = hosts[i / 2],
			.slot = slots[i % 2].name,
			.address = "127.0.0.1",
			.port = slots[i % 2].port,
			.in = i >= 2 || (i ? b : a)}; /* the other host's say nothing here */
	return (struct bt_l4_target){.service = &service, .members = members, .n_members = 4};
}

/* ---- asking ---- */

static struct {
	bool done;
	int result, status;
	char body[512], text[BT_ERR_MAX], lines[2048];
	size_t n;
	bool in[2];
	char refuses[BT_ERR_MAX];
} got;

static void on_answer(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	bool *done = arg;
	(void)err;
	*done = true;
	got.status = r->status;
	snprintf(got.body, sizeof got.body, "%s", r->status ? r->body : "");
}

static int ask_with(const char *method, const char *path)
{
	BT_FREE char *url = bt_asprintf("http://127.0.0.1:%d%s", port, path);
	struct bt_http_request rq = {
		.method = method, .url = url, .timeout_ms = 5000, .no_reuse = true};
	bool done = false;
	bt_http_start(env.http, &rq, on_answer, &done);
	while (!done)
		event_base_loop(env.base, EVLOOP_ONCE);
	return got.status;
}

static int ask(const char *path)
{
	return ask_with("GET", path);
}

/* What a checker of old says: HTTP/1.0 and no Host. */
static int ask_raw(const char *request)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), status = 0;
	char text[2048] = "";
	size_t n = 0;
	connect(fd, (struct sockaddr *)&a, sizeof a);
	for (ssize_t sent = -1; sent < 0;) {
		event_base_loop(env.base, EVLOOP_NONBLOCK);
		sent = send(fd, request, strlen(request), MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN && errno != ENOTCONN)
			break;
	}
	for (;;) {
		event_base_loop(env.base, EVLOOP_NONBLOCK);
		ssize_t r = recv(fd, text + n, sizeof text - 1 - n, 0);
		if (r == 0 || (r < 0 && errno != EAGAIN))
			break;
		n += r > 0 ? (size_t)r : 0;
	}
	close(fd);
	text[n] = 0;
	if (sscanf(text, "HTTP/1.%*d %d", &status) != 1)
		return 0;
	return status;
}

static bool connects(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool good = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
	close(fd);
	event_base_loop(env.base, EVLOOP_NONBLOCK);
	return good;
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
	size_t n = strlen(got.lines);
	(void)arg;
	snprintf(got.lines + n, sizeof got.lines - n, "%s\n", line);
}

static void on_seen(void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	(void)arg;
	(void)err;
	assert_int_equal(result, 0);
	assert_true(seen->running);
	got.done = true;
	got.n = seen->n_members;
	snprintf(got.refuses, sizeof got.refuses, "%s", seen->refuses ? seen->refuses : "");
	for (size_t i = 0; i < seen->n_members && i < 2; i++) {
		assert_string_equal(seen->members[i].host, "was1");
		assert_string_equal(seen->members[i].slot, slots[i].name);
		got.in[i] = seen->members[i].in;
	}
}

static void read_it(const struct bt_l4_target *t)
{
	memset(&got, 0, sizeof got);
	bt_l4_rotation.read(t, on_seen, NULL);
	assert_false(got.done);
	while (!got.done)
		event_base_loop(env.base, EVLOOP_ONCE);
}

static void start_write(bool a, bool b)
{
	struct bt_l4_target t = target(a, b);
	memset(&got, 0, sizeof got);
	bt_l4_rotation.write(&t, on_line, NULL, on_done, NULL);
	assert_false(got.done);
}

static int write_it(bool a, bool b)
{
	start_write(a, b);
	while (!got.done)
		event_base_loop(env.base, EVLOOP_ONCE);
	return got.result;
}

/* ---- the tests ---- */

static void test_answers(void **state)
{
	struct bt_l4_target nothing = {.service = &service};
	(void)state;
	begin("shop@dev");
	read_it(&nothing); /* from the moment that it is looked at */
	assert_int_equal(got.n, 2);
	assert_true(!got.in[0] && !got.in[1]);
	assert_int_equal(ask("/rotation/shop@dev"), 503);
	assert_string_equal(got.body, "out: not deployed yet\n");
	assert_int_equal(write_it(true, false), 0);
	assert_int_equal(ask("/rotation/shop@dev"), 200);
	assert_string_equal(got.body, "in: a; out: b\n");
	assert_int_equal(ask("/rotation/shop@dev/a"), 200);
	assert_string_equal(got.body, "in: a\n");
	assert_int_equal(ask("/rotation/shop@dev/b"), 503);
	assert_string_equal(got.body, "out: b\n");
	assert_int_equal(ask("/rotation/shop@dev/c"), 404);
	assert_int_equal(ask("/rotation/shop"), 404);
	assert_int_equal(ask("/rotation/shop@dev/"), 404);
	assert_int_equal(ask("/"), 404);
	assert_int_equal(ask_with("HEAD", "/rotation/shop@dev"), 200);
	assert_int_equal(ask_with("OPTIONS", "/rotation/shop@dev?x=y"), 200);
	assert_int_equal(ask_with("POST", "/rotation/shop@dev"), 405);
	assert_int_equal(ask_raw("GET /rotation/shop@dev HTTP/1.0\r\n\r\n"), 200);
	assert_int_equal(ask_raw("GET /rotation/shop@dev/b HTTP/1.0\r\n\r\n"), 503);
	assert_int_equal(ask_raw("GET /rotation/shop@dev HTTP/1.1\r\n\r\n"), 400);
	read_it(&nothing);
	assert_true(got.in[0] && !got.in[1]);
	assert_int_equal(write_it(false, false), 0);
	assert_int_equal(ask("/rotation/shop@dev"), 503);
	assert_string_equal(got.body, "out: a, b\n");
	l4.rotation.body_in = "alive";
	l4.rotation.body_out = "away";
	l4.rotation.path = "/up/{host}";
	assert_int_equal(write_it(false, true), 0);
	assert_int_equal(ask("/up/was1"), 200);
	assert_string_equal(got.body, "alive");
	assert_int_equal(ask("/up/was1/a"), 503);
	assert_string_equal(got.body, "away");
	assert_int_equal(ask("/rotation/shop@dev"), 404);
}

/* Several services at one address, and one that cannot have its own. */
static void test_doors(void **state)
{
	struct bt_l4_target nothing = {.service = &service};
	char first[sizeof listen_text];
	(void)state;
	begin("one");
	snprintf(first, sizeof first, "%s", listen_text);
	uint16_t first_port = port;
	assert_int_equal(write_it(true, true), 0);
	begin("two");
	l4.rotation.listen = first;
	port = first_port;
	assert_int_equal(write_it(false, true), 0);
	assert_int_equal(ask("/rotation/one"), 200);
	assert_int_equal(ask("/rotation/two/a"), 503);
	begin("three");
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	read_it(&nothing); /* a plan is refused before anything is done */
	assert_non_null(strstr(got.refuses, listen_text));
	assert_int_equal(write_it(true, true), -EADDRINUSE);
	assert_non_null(strstr(got.text, "three"));
	close(fd);
	assert_int_equal(write_it(true, true), 0);
	assert_int_equal(ask("/rotation/three"), 200);
	/* to where it cannot listen it does not move */
	l4.rotation.listen = "192.0.2.1:80";
	assert_true(write_it(false, false) < 0);
	assert_int_equal(ask("/rotation/three"), 200);
	/* and where it can, the old address is left */
	static const struct bt_kv here[] = {{"was2", "1"}, {"was1", listen_text}};
	uint16_t old = port;
	port = free_port();
	snprintf(listen_text, sizeof listen_text, "127.0.0.1:%d", port);
	l4.rotation.on_host = here;
	l4.rotation.n_on_host = 2;
	assert_int_equal(write_it(true, false), 0);
	assert_int_equal(ask("/rotation/three/b"), 503);
	port = old;
	assert_int_equal(ask("/rotation/three"), 0);
}

static void test_tcp(void **state)
{
	(void)state;
	begin("plain");
	l4.rotation.tcp = true;
	struct bt_l4_target nothing = {.service = &service};
	read_it(&nothing);
	assert_false(connects());
	assert_int_equal(write_it(true, false), 0);
	assert_true(connects());
	assert_int_equal(write_it(false, true), 0);
	assert_true(connects());
	assert_int_equal(write_it(false, false), 0);
	assert_false(connects());
}

static void test_resume(void **state)
{
	(void)state;
	begin("again");
	struct bt_l4_target t = target(true, false), nothing = {.service = &service};
	bt_l4_rotation.resume(&t);
	assert_int_equal(ask("/rotation/again/a"), 200);
	assert_int_equal(ask("/rotation/again/b"), 503);
	read_it(&nothing); /* looking changes nothing */
	assert_true(got.in[0] && !got.in[1]);
	begin("booted");
	env.hold = true; /* the host was booted: out until somebody says otherwise */
	t = target(true, true);
	bt_l4_rotation.resume(&t);
	assert_int_equal(ask("/rotation/booted"), 503);
	assert_int_equal(write_it(true, true), 0);
	assert_int_equal(ask("/rotation/booted"), 200);
}

/* It is waited for until the checker has had its answers. */
static void test_waits(void **state)
{
	(void)state;
	begin("waits");
	l4.rotation.interval_ms = 200;
	start_write(true, true);
	assert_int_equal(ask("/rotation/waits"), 200);
	assert_false(got.done); /* two are needed */
	while (!got.done) {
		ask("/rotation/waits");
		event_base_loop(env.base, EVLOOP_NONBLOCK);
	}
	assert_int_equal(got.result, 0);
	assert_non_null(strstr(got.lines, "waits answers in on was1"));
	start_write(false, false);
	int told = 0;
	while (!got.done) {
		assert_int_equal(ask("/rotation/waits"), 503);
		told++;
	}
	assert_true(told >= 2);
	struct bt_l4_target t = target(true, true);
	got.done = false;
	bt_op_cancel(bt_l4_rotation.write(&t, on_line, NULL, on_done, NULL));
	assert_int_equal(ask("/rotation/waits"), 200);
	assert_false(got.done);
}

static void test_watch(void **state)
{
	const struct bt_rotation r = {.interval_ms = 1000, .fall = 3, .rise = 2};
	struct bt_rotation_watch w = {0};
	(void)state;
	/* nobody was ever heard: the time alone, and the grace */
	bt_rotation_changed(&w, false, 10000);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 10000), 3250);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 13249), 1);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 13250), 0);
	/* heard in time */
	bt_rotation_asked(&w, &r, 10900);
	bt_rotation_asked(&w, &r, 11900);
	assert_true(bt_rotation_wait_ms(&w, &r, false, 12899) > 0);
	bt_rotation_asked(&w, &r, 12900);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 12900), 350);
	/* its third question is late: the time does not count before it */
	bt_rotation_changed(&w, false, 20000);
	bt_rotation_asked(&w, &r, 21000);
	bt_rotation_asked(&w, &r, 22500);
	assert_true(bt_rotation_wait_ms(&w, &r, false, 23900) > 0);
	bt_rotation_asked(&w, &r, 24000);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 24000), 250);
	/* three of them at once are several checkers, and none of them believes yet */
	bt_rotation_changed(&w, false, 30000);
	for (int i = 0; i < 3; i++)
		bt_rotation_asked(&w, &r, 30100);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 30100), 3150);
	/* it stopped asking */
	bt_rotation_changed(&w, false, 40000);
	bt_rotation_asked(&w, &r, 40500);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 42749), 1);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 42750), 0);
	/* a closed port hears nobody */
	bt_rotation_changed(&w, false, 50000);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, true, 50000), 3250);
	/* in: seen in */
	bt_rotation_changed(&w, true, 60000);
	bt_rotation_asked(&w, &r, 60100);
	assert_true(bt_rotation_wait_ms(&w, &r, false, 61099) > 0);
	bt_rotation_asked(&w, &r, 61100);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 61100), 250);
	/* nobody asks any more: fall × interval at most */
	bt_rotation_changed(&w, true, 70000);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 70000), 3250);
	assert_int_equal(bt_rotation_wait_ms(&w, &r, false, 73250), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_watch),
		cmocka_unit_test(test_answers), cmocka_unit_test(test_doors),
		cmocka_unit_test(test_tcp), cmocka_unit_test(test_resume),
		cmocka_unit_test(test_waits)};
	return cmocka_run_group_tests(tests, setup_all, teardown_all);
}
