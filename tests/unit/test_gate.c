#include "net/gate.h"

#include "base/mem.h"
#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define H "Host: a\r\n"
#define CHUNKED "Transfer-Encoding: chunked\r\n"

/* what smuggling and sloppiness look like; status 0 is accepted */
static const struct {
	const char *name, *head;
	int status;
} rows[] = {
	{"plain", "GET / HTTP/1.1\r\n" H "\r\n", 0},
	{"1.0", "GET / HTTP/1.0\r\n" H "\r\n", 0},
	{"length", "POST /x HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n", 0},
	{"chunked", "POST /x HTTP/1.1\r\n" H CHUNKED "\r\n", 0},
	{"chunked in capitals", "POST / HTTP/1.1\r\n" H "TRANSFER-ENCODING: CHUNKED\r\n\r\n", 0},
	{"host with port", "GET / HTTP/1.1\r\nHost: a.b-c:8080\r\n\r\n", 0},
	{"IPv6 host", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 0},
	{"absolute", "GET http://a/x HTTP/1.1\r\n" H "\r\n", 0},
	{"empty value", "GET / HTTP/1.1\r\n" H "X:\r\n\r\n", 0},
	{"tab round a value", "GET / HTTP/1.1\r\n" H "X:\t y \t\r\n\r\n", 0},
	{"obs-text", "GET / HTTP/1.1\r\n" H "X: \xc3\xa4\r\n\r\n", 0},
	{"expects", "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\n\r\n", 0},

	{"length twice", "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
		400},
	{"length twice, equal",
		"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
	{"length twice, other case",
		"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\ncONTENT-lENGTH: 5\r\n\r\n", 400},
	{"length list", "POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n", 400},
	{"length signed", "POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n", 400},
	{"length negative", "POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\n", 400},
	{"length hex", "POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n", 400},
	{"length empty", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", 400},
	{"length with space", "POST / HTTP/1.1\r\n" H "Content-Length: 1 0\r\n\r\n", 400},
	{"length overflow", "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551621\r\n\r\n",
		400},
	{"length then chunked", "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n" CHUNKED "\r\n",
		400},
	{"chunked then length", "POST / HTTP/1.1\r\n" H CHUNKED "Content-Length: 5\r\n\r\n", 400},
	{"chunked twice", "POST / HTTP/1.1\r\n" H CHUNKED CHUNKED "\r\n", 400},
	{"gzip", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", 400},
	{"identity", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", 400},
	{"xchunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n", 400},
	{"chunked list", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked,\r\n\r\n", 400},
	{"vertical tab", "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\vchunked\r\n\r\n", 400},
	{"chunked in 1.0", "POST / HTTP/1.0\r\n" H CHUNKED "\r\n", 400},
	{"space before colon", "POST / HTTP/1.1\r\n" H "Content-Length : 5\r\n\r\n", 400},
	{"tab before colon", "POST / HTTP/1.1\r\n" H "Transfer-Encoding\t: chunked\r\n\r\n", 400},
	{"space in name", "GET / HTTP/1.1\r\n" H "X Y: 1\r\n\r\n", 400},
	{"no name", "GET / HTTP/1.1\r\n" H ": 1\r\n\r\n", 400},
	{"no colon", "GET / HTTP/1.1\r\n" H "Nothing\r\n\r\n", 400},
	{"folded", "GET / HTTP/1.1\r\n" H "X: 1\r\n 2\r\n\r\n", 400},
	{"folded first", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
	{"no host", "GET / HTTP/1.1\r\nX: 1\r\n\r\n", 400},
	{"no host in 1.0", "GET / HTTP/1.0\r\n\r\n", 400},
	{"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},
	{"second host", "GET / HTTP/1.1\r\n" H H "\r\n", 400},
	{"host with path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
	{"host with user", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
	{"host list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
	{"host with bad port", "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", 400},
	{"host with no port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400},
	{"open bracket", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400},
	{"second authorization",
		"GET / HTTP/1.1\r\n" H "Authorization: a\r\nAuthorization: b\r\n\r\n", 400},
	{"bare line feed", "GET / HTTP/1.1\n" H "\r\n", 400},
	{"bare line feed in headers", "GET / HTTP/1.1\r\n" H "X: 1\nY: 2\r\n\r\n", 400},
	{"bare line feed ends the head", "GET / HTTP/1.1\r\n" H "\n", 400},
	{"bare carriage return", "GET / HTTP/1.1\r\n" H "X: 1\rY: 2\r\n\r\n", 400},
	{"two carriage returns", "GET / HTTP/1.1\r\r\n" H "\r\n", 400},
	{"control", "GET / HTTP/1.1\r\n" H "X: \x01\r\n\r\n", 400},
	{"delete", "GET / HTTP/1.1\r\n" H "X: \x7f\r\n\r\n", 400},
	{"line before", "\r\nGET / HTTP/1.1\r\n" H "\r\n", 400},
	{"0.9", "GET /\r\n\r\n", 400},
	{"1.2", "GET / HTTP/1.2\r\n" H "\r\n", 400},
	{"2.0", "GET / HTTP/2.0\r\n" H "\r\n", 400},
	{"1.10", "GET / HTTP/1.10\r\n" H "\r\n", 400},
	{"http in lower case", "GET / http/1.1\r\n" H "\r\n", 400},
	{"two spaces", "GET  / HTTP/1.1\r\n" H "\r\n", 400},
	{"space after", "GET / HTTP/1.1 \r\n" H "\r\n", 400},
	{"space in target", "GET /a b HTTP/1.1\r\n" H "\r\n", 400},
	{"tab in target", "GET /a\tb HTTP/1.1\r\n" H "\r\n", 400},
	{"fragment", "GET /a#b HTTP/1.1\r\n" H "\r\n", 400},
	{"8 bit target", "GET /\xc3\xa4 HTTP/1.1\r\n" H "\r\n", 400},
	{"method in lower case", "get / HTTP/1.1\r\n" H "\r\n", 400},
	{"long method", "ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\n" H "\r\n", 400},
	{"absolute elsewhere", "GET http://b/x HTTP/1.1\r\n" H "\r\n", 400},
	{"absolute without path", "GET http://a HTTP/1.1\r\n" H "\r\n", 400},
	{"other scheme", "GET ftp://a/x HTTP/1.1\r\n" H "\r\n", 400},
	{"asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", 400},
	{"authority", "CONNECT a:443 HTTP/1.1\r\n" H "\r\n", 400},
	{"expects more", "POST / HTTP/1.1\r\n" H "Expect: 200-ok\r\n\r\n", 400},
	{"TLS hello on a plain port", "\x16\x03\x01\x02\x01\x01\xfc\x03\x03", 400},
};

/* step: how many bytes more with each call */
static int run(struct bt_gate *g, const char *head, size_t n, size_t step, struct bt_err *err)
{
	int r = 0;
	memset(g, 0, sizeof *g);
	for (size_t have = 0; have < n && r == 0;) {
		have = have + step < n ? have + step : n;
		r = bt_gate_head(g, head, have, err);
	}
	return r;
}

static void table(void **state)
{
	(void)state;
	struct bt_gate g;
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++)
		for (size_t step = 1; step <= 1000; step = step == 1 ? 7 : 1000 + (step == 1000)) {
			struct bt_err err = {0};
			size_t n = strlen(rows[i].head);
			int r = run(&g, rows[i].head, n, step, &err);
			if (rows[i].status != 0 ? (r != BT_E_PROTOCOL || g.status != rows[i].status)
						: (r != 1 || g.len != n))
				fail_msg("%s: %d, status %d, %s", rows[i].name, r, g.status,
					err.text);
		}
}

static void nul_is_refused(void **state)
{
	(void)state;
	struct bt_gate g;
	struct bt_err err = {0};
	static const char head[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
	assert_int_equal(run(&g, head, sizeof head - 1, 1000, &err), BT_E_PROTOCOL);
}

static bool spans(const char *head, struct bt_gate_span s, const char *text)
{
	return s.len == strlen(text) && memcmp(head + s.at, text, s.len) == 0;
}

static void parts(void **state)
{
	(void)state;
	struct bt_gate g;
	static const char head[] = "PATCH http://web1:80/v1/x?y=z HTTP/1.1\r\nX-A:  b c \r\n"
				   "hOST: web1:80\r\nConnection: foo , Close\r\n"
				   "Content-Length: 000012\r\n\r\nGET / HTTP/1.1\r\n";
	assert_int_equal(run(&g, head, sizeof head - 1, 3, NULL), 1);
	assert_true(spans(head, g.method, "PATCH"));
	assert_true(spans(head, g.target, "/v1/x?y=z"));
	assert_true(spans(head, g.host, "web1:80"));
	assert_true(spans(head, g.fields[0].name, "X-A"));
	assert_true(spans(head, g.fields[0].value, "b c"));
	assert_int_equal(g.n_fields, 4);
	assert_int_equal(g.body, BT_GATE_BODY_LENGTH);
	assert_int_equal(g.content_length, 12);
	assert_true(g.close);
	assert_int_equal(g.len, strlen(head) - strlen("GET / HTTP/1.1\r\n"));
}

static int with_filler(
	const char *before, const char *filler, size_t times, const char *after, struct bt_gate *g)
{
	BT_STR struct bt_str s = {0};
	bt_str_add(&s, before);
	for (size_t i = 0; i < times; i++)
		bt_str_add(&s, filler);
	bt_str_add(&s, after);
	return run(g, s.data, s.len, 999, NULL);
}

static void limits(void **state)
{
	(void)state;
	struct bt_gate g;
	const char *end = " HTTP/1.1\r\n" H "\r\n", *line = "GET / HTTP/1.1\r\n" H;
	assert_int_equal(with_filler("GET /", "x", 8191, end, &g), 1);
	assert_int_equal(with_filler("GET /", "x", 8192, end, &g), BT_E_PROTOCOL);
	assert_int_equal(g.status, 414);
	assert_int_equal(with_filler("GET /", "x", 9000, "", &g), BT_E_PROTOCOL);
	assert_int_equal(g.status, 414);
	assert_int_equal(with_filler(line, "X: y\r\n", 99, "\r\n", &g), 1);
	assert_int_equal(with_filler(line, "X: y\r\n", 100, "\r\n", &g), BT_E_PROTOCOL);
	assert_int_equal(g.status, 431);
	size_t room = BT_GATE_HEAD_MAX - strlen(line) - strlen("X: \r\n\r\n");
	BT_FREE char *start = bt_asprintf("%sX: ", line);
	assert_int_equal(with_filler(start, "y", room, "\r\n\r\n", &g), 1);
	assert_int_equal(g.len, BT_GATE_HEAD_MAX);
	assert_int_equal(with_filler(start, "y", room + 1, "\r\n\r\n", &g), BT_E_PROTOCOL);
	assert_int_equal(g.status, 431);
	assert_int_equal(with_filler(start, "y", 40000, "", &g), BT_E_PROTOCOL);
	assert_int_equal(g.status, 431);
}

static const struct {
	const char *text, *body; /* NULL: refused */
	size_t left;		 /* of the text, behind the body */
} chunk_rows[] = {
	{"0\r\n\r\n", "", 0},
	{"5\r\nhello\r\n0\r\n\r\n", "hello", 0},
	{"5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\nGET", "hello0123456789", 3},
	{"0005\r\nhello\r\n000\r\n\r\n", "hello", 0},
	{"", NULL, 0},
	{"\r\n", NULL, 0},
	{"5;x=y\r\nhello\r\n0\r\n\r\n", NULL, 0},
	{"5 \r\nhello\r\n0\r\n\r\n", NULL, 0},
	{"+5\r\nhello\r\n0\r\n\r\n", NULL, 0},
	{"0x5\r\nhello\r\n0\r\n\r\n", NULL, 0},
	{"5\nhello\r\n0\r\n\r\n", NULL, 0},
	{"5\rhello\r\n0\r\n\r\n", NULL, 0},
	{"5\r\nhelloX\r\n0\r\n\r\n", NULL, 0},
	{"5\r\nhello\n0\r\n\r\n", NULL, 0},
	{"5\r\nhello0\r\n\r\n", NULL, 0},
	{"0\r\nTrailer: x\r\n\r\n", NULL, 0},
	{"0\r\n\n", NULL, 0},
	{"1000000000000\r\n", NULL, 0},
};

static void chunks(void **state)
{
	(void)state;
	for (size_t i = 0; i < BT_ARRAY_LEN(chunk_rows); i++)
		for (size_t step = 1; step < 40; step += 6) {
			struct bt_gate_chunked c = {0};
			BT_STR struct bt_str body = {0};
			const char *p = chunk_rows[i].text, *end = p + strlen(p);
			int r = 0;
			while (p < end && r == 0) {
				size_t n = (size_t)(end - p) < step ? (size_t)(end - p) : step;
				size_t used = 0, len = 0;
				const char *data = NULL;
				r = bt_gate_chunked(&c, p, n, &used, &data, &len, NULL);
				assert_in_range(used, 1, n);
				bt_str_addn(&body, data, len);
				p += used;
			}
			if (chunk_rows[i].body) {
				assert_int_equal(r, 1);
				assert_string_equal(bt_str_get(&body), chunk_rows[i].body);
				assert_int_equal(end - p, chunk_rows[i].left);
			} else {
				assert_int_not_equal(r, 1);
			}
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table),
		cmocka_unit_test(nul_is_refused),
		cmocka_unit_test(parts),
		cmocka_unit_test(limits),
		cmocka_unit_test(chunks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
