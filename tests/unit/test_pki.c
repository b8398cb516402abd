#include "net/pki.h"

#include "net/cert_pair.h"

#include "base/fs.h"
#include "base/str.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <time.h>
#include <cmocka.h>

static char dir[64];
static const char *const names[] = {"localhost", "127.0.0.1", "::1", "web1.example.com"};

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/baton-pki-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return bt_fs_remove_tree(dir, NULL);
}

static const char *at(const char *name)
{
	static char path[4][128];
	static int turn;
	char *p = path[turn++ % 4];
	snprintf(p, 128, "%s/%s", dir, name);
	return p;
}

static X509 *cert_of(const char *pem)
{
	BIO *bio = BIO_new_mem_buf(pem, -1);
	X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	BIO_free(bio);
	return cert;
}

static X509 *cert_at(const char *name)
{
	char *pem = NULL;
	assert_int_equal(bt_fs_read(at(name), 65536, &pem, NULL, NULL), 0);
	X509 *cert = cert_of(pem);
	free(pem);
	return cert;
}

static bool trusted(X509 *cert, X509 *ca, const char *purpose)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	X509_STORE_add_cert(store, ca);
	X509_STORE_CTX_init(ctx, store, cert, NULL);
	X509_STORE_CTX_set_default(ctx, purpose);
	bool good = X509_verify_cert(ctx) == 1;
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	return good;
}

static void init_makes_a_server(void **state)
{
	(void)state;
	struct bt_err err = {0};
	struct stat st;
	assert_int_equal(bt_pki_init(dir, names, 4, &err), 0);
	assert_int_equal(stat(at("ca.key"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(stat(at("server.key"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	X509 *ca = cert_at("ca.pem"), *server = cert_at("server.pem");
	assert_true(trusted(server, ca, "ssl_server"));
	assert_false(trusted(server, ca, "ssl_client"));
	for (size_t i = 0; i < 4; i++)
		assert_true(X509_check_host(server, names[i], 0, 0, NULL) == 1 ||
			    X509_check_ip_asc(server, names[i], 0) == 1);
	assert_int_equal(X509_check_host(server, "other.example.com", 0, 0, NULL), 0);
	X509_free(ca);
	X509_free(server);
}

static void init_keeps_an_authority(void **state)
{
	(void)state;
	struct bt_err err = {0};
	char before[65], after[65];
	assert_int_equal(bt_pki_init(dir, names, 4, &err), 0);
	assert_int_equal(bt_pki_fingerprint(at("ca.pem"), before, &err), 0);
	assert_int_equal(bt_pki_init(dir, names, 4, &err), BT_E_EXISTS);
	assert_int_equal(bt_pki_fingerprint(at("ca.pem"), after, &err), 0);
	assert_string_equal(before, after);
	assert_int_equal(strlen(after), 64);
}

static void reissue_keeps_the_key(void **state)
{
	(void)state;
	struct bt_err err = {0};
	const char *const other[] = {"new.example.com"};
	assert_int_equal(bt_pki_init(dir, names, 4, &err), 0);
	X509 *old = cert_at("server.pem");
	assert_int_equal(bt_pki_issue_server(dir, other, 1, &err), 0);
	X509 *new = cert_at("server.pem"), *ca = cert_at("ca.pem");
	assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(old), X509_get0_pubkey(new)), 1);
	assert_int_equal(X509_check_host(new, "new.example.com", 0, 0, NULL), 1);
	assert_int_equal(X509_check_host(new, "localhost", 0, 0, NULL), 0);
	assert_true(trusted(new, ca, "ssl_server"));
	X509_free(old);
	X509_free(new);
	X509_free(ca);
}

static void bad_names(void **state)
{
	(void)state;
	static const char *const rows[] = {
		"", "a b", "DNS:x", "x,IP:1.2.3.4", "-x", "*.example.com", "x\n"};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		struct bt_err err = {0};
		const char *sub = at("x");
		assert_int_equal(bt_pki_init(sub, &rows[i], 1, &err), BT_E_CONFIG);
		assert_false(bt_fs_exists(sub));
	}
}

static void agents_join(void **state)
{
	(void)state;
	struct bt_err err = {0};
	char *csr = NULL, *pem = NULL, serial[65], again[65];
	int64_t not_after = 0;
	assert_int_equal(bt_pki_init(dir, names, 4, &err), 0);
	assert_int_equal(bt_pki_make_csr(at("agent.key"), "was1", &csr, &err), 0);
	assert_int_equal(bt_pki_sign(dir, csr, "was1", 90, &pem, serial, &not_after, &err), 0);
	X509 *cert = cert_of(pem), *ca = cert_at("ca.pem");
	assert_true(trusted(cert, ca, "ssl_client"));
	assert_false(trusted(cert, ca, "ssl_server"));
	int64_t in90 = ((int64_t)time(NULL) + 90 * 86400) * 1000;
	assert_in_range(not_after, in90 - 60000, in90 + 60000);
	free(pem);
	assert_int_equal(bt_pki_sign(dir, csr, "was1", 100000, &pem, again, &not_after, &err), 0);
	assert_string_not_equal(serial, again);
	int64_t ca_end = 0;
	assert_int_equal(bt_pki_not_after(at("ca.pem"), &ca_end, &err), 0);
	assert_int_equal(not_after, ca_end);
	X509_free(cert);
	X509_free(ca);
	free(pem);
	free(csr);
}

static char *foreign_csr(const char *curve, const char *cn, const char *second_cn, bool spoil)
{
	EVP_PKEY *key = curve ? EVP_EC_gen(curve) : EVP_RSA_gen(2048);
	EVP_PKEY *other = EVP_EC_gen("P-256");
	X509_REQ *csr = X509_REQ_new();
	X509_NAME *name = X509_REQ_get_subject_name(csr);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const void *)cn, -1, -1, 0);
	if (second_cn)
		X509_NAME_add_entry_by_txt(
			name, "CN", MBSTRING_UTF8, (const void *)second_cn, -1, -1, 0);
	X509_REQ_set_pubkey(csr, key);
	X509_REQ_sign(csr, spoil ? other : key, EVP_sha256());
	BIO *bio = BIO_new(BIO_s_mem());
	PEM_write_bio_X509_REQ(bio, csr);
	char *data;
	long n = BIO_get_mem_data(bio, &data);
	char *pem = bt_strndup(data, (size_t)n);
	BIO_free(bio);
	X509_REQ_free(csr);
	EVP_PKEY_free(key);
	EVP_PKEY_free(other);
	return pem;
}

static void bad_requests(void **state)
{
	(void)state;
	struct bt_err err = {0};
	assert_int_equal(bt_pki_init(dir, names, 4, &err), 0);
	const struct {
		char *csr;
		int code;
	} rows[] = {
		{bt_strdup("nonsense"), BT_E_PROTOCOL},
		{foreign_csr("P-256", "was2", NULL, false), BT_E_REFUSED},
		{foreign_csr("P-256", "was1", "was2", false), BT_E_REFUSED},
		{foreign_csr("P-256", "was1", NULL, true), BT_E_PROTOCOL},
		{foreign_csr("P-384", "was1", NULL, false), BT_E_PROTOCOL},
		{foreign_csr(NULL, "was1", NULL, false), BT_E_PROTOCOL},
		{foreign_csr("P-256", "was1", NULL, false), 0},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		char *pem = NULL, serial[65];
		int64_t end;
		assert_int_equal(
			bt_pki_sign(dir, rows[i].csr, "was1", 90, &pem, serial, &end, &err),
			rows[i].code);
		free(pem);
		free(rows[i].csr);
	}
}

static void broken_files(void **state)
{
	(void)state;
	struct bt_err err = {0};
	int64_t end;
	char hex[65];
	assert_int_equal(bt_fs_write_atomic(at("x.pem"), "hello", 5, 0600, &err), 0);
	assert_int_equal(bt_pki_not_after(at("x.pem"), &end, &err), BT_E_CORRUPT);
	assert_non_null(strstr(err.text, "x.pem"));
	assert_true(bt_pki_fingerprint(at("absent.pem"), hex, &err) < 0);
}

static void tokens(void **state)
{
	(void)state;
	char *a = bt_token_new("bt_"), *b = bt_token_new("bt_"), hash[65];
	assert_int_equal(strlen(a), 46);
	assert_string_not_equal(a, b);
	assert_int_equal(
		strspn(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"), 46);
	free(a);
	free(b);
	bt_token_hash("abc", hash);
	assert_string_equal(
		hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void refused_pair(const char *certificate, const char *key, const char *words)
{
	struct bt_err err = {0};
	assert_int_equal(bt_cert_pair_check(at(certificate), at(key), &err), BT_E_CONFIG);
	if (!strstr(err.text, words) || strchr(err.text, '\n'))
		fail_msg("'%s' is not in '%s'", words, err.text);
}

static void pairs(void **state)
{
	(void)state;
	struct bt_err err = {0};
	assert_int_equal(bt_pki_init(dir, names, 4, &err), 0);
	assert_int_equal(bt_cert_pair_check(at("server.pem"), at("server.key"), &err), 0);
	assert_int_equal(bt_cert_pair_check(at("ca.pem"), at("ca.key"), &err), 0);
	refused_pair("server.pem", "ca.key", "does not fit its key");
	refused_pair("absent.pem", "server.key", "absent.pem: No such file");
	refused_pair("server.pem", "absent.key", "absent.key: No such file");
	refused_pair("server.key", "server.key", "holds no certificate in PEM form");
	refused_pair("server.pem", "server.pem", "holds no private key");
	FILE *f = fopen(at("locked.key"), "w");
	EVP_PKEY *key = EVP_EC_gen("P-256");
	assert_int_equal(
		PEM_write_PKCS8PrivateKey(f, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL), 1);
	fclose(f);
	EVP_PKEY_free(key);
	refused_pair("server.pem", "locked.key", "without a pass phrase");
	BT_FREE char *a = bt_cert_pair_stamp(at("server.pem"), at("server.key"));
	BT_FREE char *same = bt_cert_pair_stamp(at("server.pem"), at("server.key"));
	assert_string_equal(a, same);
	assert_int_equal(unlink(at("server.key")), 0);
	BT_FREE char *gone = bt_cert_pair_stamp(at("server.pem"), at("server.key"));
	assert_string_not_equal(a, gone);
	assert_true(bt_str_ends(gone, " -"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(init_makes_a_server, set_up, tear_down),
		cmocka_unit_test_setup_teardown(init_keeps_an_authority, set_up, tear_down),
		cmocka_unit_test_setup_teardown(reissue_keeps_the_key, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(agents_join, set_up, tear_down),
		cmocka_unit_test_setup_teardown(bad_requests, set_up, tear_down),
		cmocka_unit_test_setup_teardown(broken_files, set_up, tear_down),
		cmocka_unit_test_setup_teardown(pairs, set_up, tear_down),
		cmocka_unit_test(tokens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
