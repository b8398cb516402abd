#include "net/http_client.h"

#include "base/mem.h"
#include "base/str.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* A plain evhttp server in the same loop as the client. */
struct fixture {
	struct event_base *base;
	struct evhttp *http;
	struct bt_http_client *client;
	uint16_t port;
	struct evhttp_request *held;
};

struct answer {
	struct fixture *f;
	int calls, status, code;
	char body[256], type[64], text[BT_ERR_MAX];
	size_t body_len, streamed;
	int headers_status;
	int64_t sent, received;
	struct bt_http_call *call, *victim;
};

static void on_request(struct evhttp_request *req, void *arg)
{
	struct fixture *f = arg;
	const char *path = evhttp_uri_get_path(evhttp_request_get_evhttp_uri(req));
	struct evbuffer *in = evhttp_request_get_input_buffer(req);
	struct evbuffer *out = evhttp_request_get_output_buffer(req);
	if (bt_streq(path, "/hold")) {
		f->held = req;
		return;
	}
	if (bt_streq(path, "/big"))
		for (int i = 0; i < 1000; i++)
			evbuffer_add(out,
				"0123456789012345678901234567890123456789012345678901234567"
				"8901",
				62);
	if (bt_streq(path, "/redirect")) {
		evhttp_add_header(evhttp_request_get_output_headers(req), "Location", "/");
		evhttp_send_reply(req, 302, "Found", out);
		return;
	}
	evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", "text/test");
	if (bt_streq(path, "/echo")) {
		const char *h = evhttp_find_header(evhttp_request_get_input_headers(req), "X-Test");
		evbuffer_add_printf(
			out, "%d %s ", (int)evhttp_request_get_command(req), h ? h : "-");
		evbuffer_add_buffer(out, in);
	}
	evhttp_send_reply(req, 200, "OK", out);
}

static int set_up(void **state)
{
	struct fixture *f = bt_calloc(1, sizeof *f);
	f->base = event_base_new();
	f->http = evhttp_new(f->base);
	evhttp_set_allowed_methods(f->http, 0xffff);
	evhttp_set_gencb(f->http, on_request, f);
	struct evhttp_bound_socket *s = evhttp_bind_socket_with_handle(f->http, "127.0.0.1", 0);
	struct sockaddr_in sin;
	socklen_t n = sizeof sin;
	getsockname(evhttp_bound_socket_get_fd(s), (struct sockaddr *)&sin, &n);
	f->port = ntohs(sin.sin_port);
	f->client = bt_http_client_new(f->base);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	f->client = bt_http_client_free(f->client);
	evhttp_free(f->http);
	event_base_free(f->base);
	free(f);
	return 0;
}

static void on_done(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct answer *a = arg;
	a->calls++;
	a->status = r->status;
	a->code = err ? err->code : 0;
	snprintf(a->text, sizeof a->text, "%s", err ? err->text : "");
	snprintf(a->body, sizeof a->body, "%s", r->body);
	a->body_len = r->body_len;
	const char *type = r->header(r, "content-type");
	snprintf(a->type, sizeof a->type, "%s", type ? type : "");
	event_base_loopbreak(a->f->base);
}

static void url(struct fixture *f, const char *path, char out[static 128])
{
	snprintf(out, 128, "http://127.0.0.1:%u%s", f->port, path);
}

static void run(struct fixture *f, struct bt_http_request *rq, const char *path, struct answer *a)
{
	char u[128];
	url(f, path, u);
	rq->url = u;
	if (!rq->timeout_ms)
		rq->timeout_ms = 10000;
	a->f = f;
	a->call = bt_http_start(f->client, rq, on_done, a);
	assert_int_equal(a->calls, 0);
	event_base_dispatch(f->base);
}

static void get_and_reuse(void **state)
{
	struct fixture *f = *state;
	for (int i = 0; i < 3; i++) {
		struct answer a = {0};
		struct bt_http_header h = {"X-Test", "ja"};
		struct bt_http_request rq = {.method = "GET", .headers = &h, .n_headers = 1};
		run(f, &rq, "/echo?secret=1", &a);
		assert_int_equal(a.calls, 1);
		assert_int_equal(a.status, 200);
		assert_string_equal(a.body, "1 ja ");
		assert_string_equal(a.type, "text/test");
	}
}

static void methods_with_bodies(void **state)
{
	static const struct {
		const char *method, *body, *answer;
	} rows[] = {
		{"POST", "hello", "2 - hello"},
		{"POST", "", "2 - "},
		{"PUT", "x", "8 - x"},
		{"PATCH", "part", "256 - part"},
		{"DELETE", "", "16 - "},
		{"HEAD", "", ""},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		struct answer a = {0};
		struct bt_http_request rq = {.method = rows[i].method,
			.body = rows[i].body,
			.body_len = strlen(rows[i].body)};
		run(*state, &rq, "/echo", &a);
		assert_int_equal(a.status, 200);
		assert_string_equal(a.body, rows[i].answer);
	}
}

static void no_redirect_is_followed(void **state)
{
	struct answer a = {0};
	struct bt_http_request rq = {.method = "GET"};
	run(*state, &rq, "/redirect", &a);
	assert_int_equal(a.status, 302);
}

static void only_http(void **state)
{
	struct fixture *f = *state;
	struct answer a = {.f = f};
	struct bt_http_request rq = {.method = "GET", .url = "file:///etc/passwd"};
	bt_http_start(f->client, &rq, on_done, &a);
	event_base_dispatch(f->base);
	assert_int_equal(a.status, 0);
	assert_int_equal(a.code, BT_E_UNREACHABLE);
	assert_int_equal(a.body_len, 0);
}

static void too_large(void **state)
{
	struct answer a = {0};
	struct bt_http_request rq = {.method = "GET", .max_body = 1000};
	run(*state, &rq, "/big", &a);
	assert_int_equal(a.status, 0);
	assert_int_equal(a.code, BT_E_REFUSED);
	assert_non_null(strstr(a.text, "larger than 1000 bytes"));
}

static void times_out(void **state)
{
	struct answer a = {0};
	struct bt_http_request rq = {.method = "GET", .timeout_ms = 50};
	run(*state, &rq, "/hold", &a);
	assert_int_equal(a.status, 0);
	assert_int_equal(a.code, BT_E_TIMEOUT);
}

static void unreachable_names_the_peer(void **state)
{
	struct fixture *f = *state;
	struct answer a = {.f = f};
	struct bt_http_request rq = {.method = "GET", .url = "http://127.0.0.1:1/x?token=secret"};
	bt_http_start(f->client, &rq, on_done, &a);
	event_base_dispatch(f->base);
	assert_int_equal(a.code, BT_E_UNREACHABLE);
	assert_string_equal(a.text, "GET http://127.0.0.1:1/x: connect: Connection refused");
}

static bool count_data(void *arg, const void *data, size_t n)
{
	struct answer *a = arg;
	(void)data;
	a->streamed += n;
	return true;
}

static bool stop_at_once(void *arg, const void *data, size_t n)
{
	(void)data;
	((struct answer *)arg)->streamed += n;
	return false;
}

static void keep_status(void *arg, int status)
{
	((struct answer *)arg)->headers_status = status;
}

static void keep_progress(void *arg, int64_t sent, int64_t received)
{
	((struct answer *)arg)->sent = sent;
	((struct answer *)arg)->received = received;
}

static void streams(void **state)
{
	struct answer a = {0};
	struct bt_http_request rq = {.method = "GET",
		.on_data = count_data,
		.on_headers = keep_status,
		.on_progress = keep_progress};
	run(*state, &rq, "/big", &a);
	assert_int_equal(a.status, 200);
	assert_int_equal(a.headers_status, 200);
	assert_int_equal(a.streamed, 62000);
	assert_int_equal(a.received, 62000);
	assert_int_equal(a.body_len, 0);
	struct answer b = {0};
	rq.on_data = stop_at_once;
	run(*state, &rq, "/big", &b);
	assert_int_equal(b.status, 0);
	assert_int_equal(b.code, BT_E_REFUSED);
}

static bool cancel_all(void *arg, const void *data, size_t n)
{
	struct answer *a = arg;
	(void)data;
	(void)n;
	a->victim = bt_http_cancel(a->victim);
	a->call = bt_http_cancel(a->call);
	a->streamed++;
	return true;
}

static void leave(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	event_base_loopbreak(arg);
}

static void cancels_inside_callbacks(void **state)
{
	struct fixture *f = *state;
	struct answer a = {.f = f}, b = {.f = f};
	char big[128], hold[128];
	url(f, "/big", big);
	url(f, "/hold", hold);
	struct bt_http_request rq = {.method = "GET", .url = big, .on_data = cancel_all};
	struct bt_http_request other = {.method = "GET", .url = hold};
	a.victim = bt_http_start(f->client, &other, on_done, &b);
	a.call = bt_http_start(f->client, &rq, on_done, &a);
	while (!a.streamed)
		event_base_loop(f->base, EVLOOP_ONCE);
	struct timeval soon = {0, 20000};
	event_base_once(f->base, -1, EV_TIMEOUT, leave, f->base, &soon);
	event_base_dispatch(f->base);
	assert_int_equal(a.calls, 0);
	assert_int_equal(b.calls, 0);
	assert_int_equal(a.streamed, 1);
	assert_null(a.call);
}

static void cancel_before_anything(void **state)
{
	struct fixture *f = *state;
	struct answer a = {.f = f};
	struct bt_http_request rq = {.method = "GET", .url = "http://127.0.0.1:1/"};
	struct bt_http_call *call = bt_http_start(f->client, &rq, on_done, &a);
	assert_null(bt_http_cancel(call));
	assert_null(bt_http_cancel(NULL));
	event_base_loop(f->base, EVLOOP_NONBLOCK);
	assert_int_equal(a.calls, 0);
}

static void free_ends_calls(void **state)
{
	struct fixture *f = *state;
	struct answer a = {.f = f};
	char hold[128];
	url(f, "/hold", hold);
	struct bt_http_request rq = {.method = "GET", .url = hold};
	bt_http_start(f->client, &rq, on_done, &a);
	while (!f->held)
		event_base_loop(f->base, EVLOOP_ONCE);
	f->client = bt_http_client_free(f->client);
	assert_int_equal(a.calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(get_and_reuse, set_up, tear_down),
		cmocka_unit_test_setup_teardown(methods_with_bodies, set_up, tear_down),
		cmocka_unit_test_setup_teardown(no_redirect_is_followed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(only_http, set_up, tear_down),
		cmocka_unit_test_setup_teardown(too_large, set_up, tear_down),
		cmocka_unit_test_setup_teardown(times_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(unreachable_names_the_peer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(streams, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cancels_inside_callbacks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(cancel_before_anything, set_up, tear_down),
		cmocka_unit_test_setup_teardown(free_ends_calls, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
