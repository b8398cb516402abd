/* Our client against our server over TLS: trust by CA file, by pin, and client certificates. */
#include "base/fs.h"
#include "base/str.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/pki.h"

#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static struct {
	char dir[64], ca[128], cert[128], key[128], client_cert[128], client_key[128], pin[65];
	struct event_base *base;
	struct bt_http_server *server;
	struct bt_http_client *client;
} t;

static void who(struct bt_http_exchange *x, void *arg)
{
	const char *cn = bt_http_peer_cn(x);
	(void)arg;
	bt_http_reply(x, 200, "text/plain", cn ? cn : "nobody", strlen(cn ? cn : "nobody"));
}

static const struct bt_route_row routes[] = {{"GET", "/", BT_AUTH_NONE, 0, who, ""}};

static int make_agent(struct bt_err *err)
{
	BT_FREE char *csr = NULL;
	BT_FREE char *pem = NULL;
	char serial[65];
	int64_t end;
	int r = bt_pki_make_csr(t.client_key, "was1", &csr, err);
	if (r == 0)
		r = bt_pki_sign(t.dir, csr, "was1", 90, &pem, serial, &end, err);
	return r < 0 ? r : bt_fs_write_atomic(t.client_cert, pem, strlen(pem), 0644, err);
}

static int set_up(void **state)
{
	static const char *const names[] = {"localhost", "127.0.0.1"};
	struct bt_err err = {0};
	(void)state;
	snprintf(t.dir, sizeof t.dir, "/tmp/baton-tls-XXXXXX");
	if (!mkdtemp(t.dir))
		return -1;
	snprintf(t.ca, sizeof t.ca, "%s/ca.pem", t.dir);
	snprintf(t.cert, sizeof t.cert, "%s/server.pem", t.dir);
	snprintf(t.key, sizeof t.key, "%s/server.key", t.dir);
	snprintf(t.client_cert, sizeof t.client_cert, "%s/agent.pem", t.dir);
	snprintf(t.client_key, sizeof t.client_key, "%s/agent.key", t.dir);
	if (bt_pki_init(t.dir, names, 2, &err) < 0 || make_agent(&err) < 0 ||
		bt_pki_fingerprint(t.ca, t.pin, &err) < 0)
		return -1;
	t.base = event_base_new();
	struct bt_http_server_spec spec = {.listen = "127.0.0.1:0",
		.cert_file = t.cert,
		.key_file = t.key,
		.client_ca_file = t.ca,
		.routes = routes,
		.n_routes = 1};
	t.client = bt_http_client_new(t.base);
	return bt_http_server_start(t.base, &spec, &t.server, &err);
}

static int tear_down(void **state)
{
	(void)state;
	bt_http_client_free(t.client);
	bt_http_server_free(t.server);
	event_base_free(t.base);
	return bt_fs_remove_tree(t.dir, NULL);
}

struct answer {
	int status;
	char text[BT_ERR_MAX];
};

static void on_done(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct answer *a = arg;
	a->status = r->status;
	snprintf(a->text, sizeof a->text, "%s", err ? err->text : r->body);
	event_base_loopbreak(t.base);
}

static struct answer ask(const char *host, const struct bt_tls_identity *tls)
{
	struct answer a = {0};
	BT_FREE char *url = bt_asprintf("https://%s:%u/", host, bt_http_server_port(t.server));
	struct bt_http_request rq = {.method = "GET", .url = url, .tls = tls, .timeout_ms = 20000};
	bt_http_start(t.client, &rq, on_done, &a);
	event_base_dispatch(t.base);
	return a;
}

static void trust_by_file(void **state)
{
	(void)state;
	struct bt_tls_identity tls = {.ca_file = t.ca};
	for (int i = 0; i < 2; i++) {
		struct answer a = ask("127.0.0.1", &tls);
		assert_int_equal(a.status, 200);
		assert_string_equal(a.text, "nobody");
	}
	assert_int_equal(ask("127.0.0.2", &tls).status, 0); /* no name of the certificate */
	assert_int_equal(ask("127.0.0.1", NULL).status, 0); /* the system does not know the CA */
}

static void client_certificate(void **state)
{
	(void)state;
	struct bt_tls_identity tls = {
		.ca_file = t.ca, .cert_file = t.client_cert, .key_file = t.client_key};
	assert_string_equal(ask("localhost", &tls).text, "was1");
	/* a connection made with a certificate serves nobody else */
	struct bt_tls_identity bare = {.ca_file = t.ca};
	assert_string_equal(ask("localhost", &bare).text, "nobody");
	assert_string_equal(ask("localhost", &tls).text, "was1");
}

static void trust_by_pin(void **state)
{
	(void)state;
	struct bt_tls_identity tls = {.pin_sha256 = t.pin};
	assert_int_equal(ask("localhost", &tls).status, 200);
	assert_int_equal(ask("127.0.0.2", &tls).status, 0);
	char wrong[65];
	snprintf(wrong, sizeof wrong, "%s", t.pin);
	wrong[0] = wrong[0] == '0' ? '1' : '0';
	struct bt_tls_identity other = {.pin_sha256 = wrong};
	struct answer a = ask("localhost", &other);
	assert_int_equal(a.status, 0);
	assert_non_null(strstr(a.text, "the authority the join token names"));
	/* and again, so that no session or connection of the good one helps */
	assert_int_equal(ask("localhost", &tls).status, 200);
	assert_int_equal(ask("localhost", &other).status, 0);
}

/* The pin names the server's own leaf: that is no authority, and it does not verify. */
static void pin_of_the_leaf(void **state)
{
	(void)state;
	char leaf[65];
	assert_int_equal(bt_pki_fingerprint(t.cert, leaf, NULL), 0);
	struct bt_tls_identity tls = {.pin_sha256 = leaf};
	assert_int_equal(ask("localhost", &tls).status, 0);
}

/* Somebody without the CA's key shows the right CA beside a leaf of his own. */
static void pin_with_a_foreign_leaf(void **state)
{
	static const char *const names[] = {"localhost"};
	(void)state;
	BT_FREE char *other = bt_asprintf("%s/other", t.dir);
	BT_FREE char *cert = bt_asprintf("%s/server.pem", other);
	BT_FREE char *key = bt_asprintf("%s/server.key", other);
	BT_FREE char *chain = bt_asprintf("%s/chain.pem", other);
	BT_FREE char *leaf = NULL;
	BT_FREE char *ca = NULL;
	assert_int_equal(bt_pki_init(other, names, 1, NULL), 0);
	assert_int_equal(bt_fs_read(cert, 65536, &leaf, NULL, NULL), 0);
	assert_int_equal(bt_fs_read(t.ca, 65536, &ca, NULL, NULL), 0);
	BT_FREE char *both = bt_asprintf("%s%s", leaf, ca);
	assert_int_equal(bt_fs_write_atomic(chain, both, strlen(both), 0644, NULL), 0);
	t.server = bt_http_server_free(t.server);
	struct bt_http_server_spec spec = {.listen = "127.0.0.1:0",
		.cert_file = chain,
		.key_file = key,
		.routes = routes,
		.n_routes = 1};
	assert_int_equal(bt_http_server_start(t.base, &spec, &t.server, NULL), 0);
	struct bt_tls_identity tls = {.pin_sha256 = t.pin};
	assert_int_equal(ask("localhost", &tls).status, 0);
}

static void bad_listeners(void **state)
{
	(void)state;
	static const char *const rows[] = {"", "x", "127.0.0.1", "127.0.0.1:99999", "1.2.3:80"};
	struct bt_http_server *s = NULL;
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		struct bt_http_server_spec spec = {.listen = rows[i]};
		assert_int_equal(bt_http_server_start(t.base, &spec, &s, NULL), BT_E_CONFIG);
	}
	struct bt_err err = {0};
	BT_FREE char *taken = bt_asprintf("127.0.0.1:%u", bt_http_server_port(t.server));
	struct bt_http_server_spec spec = {.listen = taken};
	assert_true(bt_http_server_start(t.base, &spec, &s, &err) < 0);
	assert_non_null(strstr(err.text, "Address already in use"));
	struct bt_http_server_spec no_key = {
		.listen = "127.0.0.1:0", .cert_file = t.cert, .key_file = t.client_key};
	assert_int_equal(bt_http_server_start(t.base, &no_key, &s, &err), BT_E_CONFIG);
	assert_null(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(trust_by_file, set_up, tear_down),
		cmocka_unit_test_setup_teardown(client_certificate, set_up, tear_down),
		cmocka_unit_test_setup_teardown(trust_by_pin, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pin_of_the_leaf, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pin_with_a_foreign_leaf, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_listeners, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
