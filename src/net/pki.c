/* One self-signed CA per server signs the server's own certificate and those of its agents.
 *
 * Nothing of a certificate request is copied into a certificate but its public key: name, usage and
 * validity are the server's decision. ca.pem is written last when a CA is made, so its presence
 * means the pair is whole; a renewed server certificate keeps its key, so that no crash can leave a
 * key beside a certificate it does not fit. */
#include "net/pki.h"

#include "base/fs.h"
#include "base/str.h"
#include "net/x509.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
	CA_DAYS = 3650,
	SERVER_DAYS = 397,
	SKEW_S = 2 * 24 * 3600, /* clocks may be behind, or be set back by a day */
	MAX_PEM = 64 * 1024,
	MAX_CN = 64, /* X.520 */
};

static void key_free(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}
static void cert_free(X509 **c)
{
	X509_free(*c);
}
static void csr_free(X509_REQ **r)
{
	X509_REQ_free(*r);
}
static void bio_free(BIO **b)
{
	BIO_free(*b);
}
#define KEY __attribute__((cleanup(key_free)))
#define CERT __attribute__((cleanup(cert_free)))
#define CSR __attribute__((cleanup(csr_free)))
#define MEMORY __attribute__((cleanup(bio_free)))

static int crypto_error(struct bt_err *err, int code, const char *what)
{
	unsigned long e = ERR_peek_last_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;
	bt_err_set(err, code, "%s: %s", what, reason ? reason : "the crypto library refused");
	ERR_clear_error();
	return code;
}

/* ---- files ---- */

static int write_bio(BIO *bio, const char *path, mode_t mode, struct bt_err *err)
{
	char *data = NULL;
	long n = BIO_get_mem_data(bio, &data);
	return bt_fs_write_atomic(path, data, (size_t)n, mode, err);
}

static int write_key(EVP_PKEY *key, const char *path, struct bt_err *err)
{
	MEMORY BIO *bio = BIO_new(BIO_s_secmem());
	if (!bio || PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
		return crypto_error(err, BT_E_FAILED, "encode a private key");
	return write_bio(bio, path, 0600, err);
}

/* A file in PEM, read by `parse`; what was read is wiped, as it may be a key. */
static int read_pem(const char *path, const char *what, void *(*parse)(BIO *bio), void **ret,
	struct bt_err *err)
{
	BT_FREE char *pem = NULL;
	size_t n;
	int r = bt_fs_read(path, MAX_PEM, &pem, &n, err);
	if (r < 0)
		return r;
	MEMORY BIO *bio = BIO_new_mem_buf(pem, (int)n);
	void *found = parse(bio);
	OPENSSL_cleanse(pem, n);
	if (!found) {
		r = crypto_error(err, BT_E_CORRUPT, what);
		bt_err_wrap(err, "%s", path);
		return r;
	}
	*ret = found;
	return 0;
}

static void *parse_key(BIO *bio)
{
	return PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
}

static void *parse_cert(BIO *bio)
{
	return PEM_read_bio_X509(bio, NULL, NULL, NULL);
}

static int read_key(const char *path, EVP_PKEY **ret, struct bt_err *err)
{
	void *key = NULL;
	int r = read_pem(path, "expected a private key in PEM", parse_key, &key, err);
	if (r == 0)
		*ret = key;
	return r;
}

static int read_cert(const char *path, X509 **ret, struct bt_err *err)
{
	void *cert = NULL;
	int r = read_pem(path, "expected a certificate in PEM", parse_cert, &cert, err);
	if (r == 0)
		*ret = cert;
	return r;
}

struct ca {
	X509 *cert;
	EVP_PKEY *key;
};

static void ca_done(struct ca *ca)
{
	X509_free(ca->cert);
	EVP_PKEY_free(ca->key);
}

static int ca_read(const char *dir, struct ca *ret, struct bt_err *err)
{
	BT_FREE char *cert = bt_asprintf("%s/ca.pem", dir);
	BT_FREE char *key = bt_asprintf("%s/ca.key", dir);
	int r = read_cert(cert, &ret->cert, err);
	if (r == 0)
		r = read_key(key, &ret->key, err);
	if (r == 0 && X509_check_private_key(ret->cert, ret->key) != 1)
		r = crypto_error(err, BT_E_CORRUPT, "ca.key does not belong to ca.pem");
	return r < 0 ? (bt_err_wrap(err, "certificate authority in %s", dir), r) : 0;
}

/* ---- making certificates ---- */

static bool set_serial(X509 *cert)
{
	unsigned char raw[16];
	if (RAND_bytes(raw, sizeof raw) != 1)
		return false;
	raw[0] = (unsigned char)((raw[0] & 0x7f) | 0x40); /* positive and of one length */
	BIGNUM *bn = BN_bin2bn(raw, sizeof raw, NULL);
	bool good = bn && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert));
	BN_free(bn);
	return good;
}

static bool add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
	X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	bool good = ext && X509_add_ext(cert, ext, -1) == 1;
	X509_EXTENSION_free(ext);
	return good;
}

static bool add_cn(X509_NAME *name, const char *cn)
{
	return X509_NAME_add_entry_by_txt(
		       name, "CN", MBSTRING_UTF8, (const unsigned char *)cn, -1, -1, 0) == 1;
}

/* Everything but extensions and the signature. No certificate outlives its CA. */
static X509 *cert_new(const char *cn, X509 *issuer, EVP_PKEY *key, int days)
{
	X509 *cert = X509_new();
	bool good = cert && X509_set_version(cert, X509_VERSION_3) == 1 && set_serial(cert) &&
		    add_cn(X509_get_subject_name(cert), cn) && X509_set_pubkey(cert, key) == 1 &&
		    X509_gmtime_adj(X509_getm_notBefore(cert), -SKEW_S) &&
		    X509_time_adj_ex(X509_getm_notAfter(cert), days, 0, NULL) &&
		    X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer : cert)) == 1;
	if (good && issuer &&
		ASN1_TIME_compare(X509_get0_notAfter(cert), X509_get0_notAfter(issuer)) > 0)
		good = X509_set1_notAfter(cert, X509_get0_notAfter(issuer)) == 1;
	if (!good) {
		X509_free(cert);
		return NULL;
	}
	return cert;
}

static bool dns_char(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '.' || c == '_';
}

static bool dns_name(const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < n; i++)
		if (!dns_char(name[i]))
			return false;
	return n > 0 && n <= 253 && name[0] != '-' && name[0] != '.';
}

static GENERAL_NAME *general_name(const char *name)
{
	unsigned char ip[16];
	int family = strchr(name, ':') ? AF_INET6 : AF_INET;
	GENERAL_NAME *g = GENERAL_NAME_new();
	ASN1_STRING *value;
	if (inet_pton(family, name, ip) == 1) {
		value = ASN1_OCTET_STRING_new();
		ASN1_STRING_set(value, ip, family == AF_INET6 ? 16 : 4);
		GENERAL_NAME_set0_value(g, GEN_IPADD, value);
	} else {
		value = ASN1_IA5STRING_new();
		ASN1_STRING_set(value, name, -1);
		GENERAL_NAME_set0_value(g, GEN_DNS, value);
	}
	return g;
}

static int check_names(const char *const *names, size_t n, struct bt_err *err)
{
	unsigned char ip[16];
	if (n == 0)
		return bt_err_set(err, BT_E_CONFIG, "a server certificate needs a name");
	for (size_t i = 0; i < n; i++)
		if (inet_pton(AF_INET6, names[i], ip) != 1 && !dns_name(names[i]))
			return bt_err_set(err, BT_E_CONFIG,
				"server name '%s': expected a DNS name or an IP address", names[i]);
	return 0;
}

static bool add_names(X509 *cert, const char *const *names, size_t n)
{
	GENERAL_NAMES *all = GENERAL_NAMES_new();
	for (size_t i = 0; i < n; i++)
		sk_GENERAL_NAME_push(all, general_name(names[i]));
	bool good = X509_add1_ext_i2d(cert, NID_subject_alt_name, all, 0, 0) == 1;
	GENERAL_NAMES_free(all);
	return good;
}

static int ca_make(const char *dir, struct ca *ret, struct bt_err *err)
{
	BT_FREE char *cert_path = bt_asprintf("%s/ca.pem", dir);
	BT_FREE char *key_path = bt_asprintf("%s/ca.key", dir);
	char cn[MAX_CN];
	unsigned char id[8];
	char id_hex[17];
	if (bt_fs_exists(cert_path))
		return bt_err_set(err, BT_E_EXISTS,
			"%s is there already: a new authority would lock every agent out; remove "
			"the directory if that is meant",
			cert_path);
	if (RAND_bytes(id, sizeof id) != 1)
		return crypto_error(err, BT_E_FAILED, "random numbers");
	bt_hex(id, sizeof id, id_hex);
	snprintf(cn, sizeof cn, "baton CA %s", id_hex);
	ret->key = EVP_EC_gen("P-256");
	ret->cert = ret->key ? cert_new(cn, NULL, ret->key, CA_DAYS) : NULL;
	if (!ret->cert ||
		!add_ext(ret->cert, ret->cert, NID_basic_constraints,
			"critical,CA:TRUE,pathlen:0") ||
		!add_ext(ret->cert, ret->cert, NID_key_usage, "critical,keyCertSign,cRLSign") ||
		!add_ext(ret->cert, ret->cert, NID_subject_key_identifier, "hash") ||
		!X509_sign(ret->cert, ret->key, EVP_sha256()))
		return crypto_error(err, BT_E_FAILED, "make the certificate authority");
	MEMORY BIO *bio = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(bio, ret->cert);
	int r = write_key(ret->key, key_path, err);
	return r < 0 ? r : write_bio(bio, cert_path, 0644, err);
}

/* Usage and key identifiers of a leaf, then the CA's signature. */
static bool finish_leaf(X509 *cert, const struct ca *ca, const char *usage)
{
	return add_ext(cert, ca->cert, NID_basic_constraints, "critical,CA:FALSE") &&
	       add_ext(cert, ca->cert, NID_key_usage, "critical,digitalSignature") &&
	       add_ext(cert, ca->cert, NID_ext_key_usage, usage) &&
	       add_ext(cert, ca->cert, NID_subject_key_identifier, "hash") &&
	       add_ext(cert, ca->cert, NID_authority_key_identifier, "keyid:always") &&
	       X509_sign(cert, ca->key, EVP_sha256()) > 0;
}

static int issue_server(const char *dir, const struct ca *ca, const char *const *names, size_t n,
	struct bt_err *err)
{
	BT_FREE char *cert_path = bt_asprintf("%s/server.pem", dir);
	BT_FREE char *key_path = bt_asprintf("%s/server.key", dir);
	KEY EVP_PKEY *key = NULL;
	int r = bt_fs_exists(key_path) ? read_key(key_path, &key, err) : 1;
	if (r < 0)
		return r;
	if (r == 1 && !(key = EVP_EC_gen("P-256")))
		return crypto_error(err, BT_E_FAILED, "make a key");
	if (r == 1 && (r = write_key(key, key_path, err)) < 0)
		return r;
	CERT X509 *cert = cert_new("baton server", ca->cert, key, SERVER_DAYS);
	if (!cert || !add_names(cert, names, n) || !finish_leaf(cert, ca, "serverAuth"))
		return crypto_error(err, BT_E_FAILED, "make the server's certificate");
	/* the CA follows: a joining agent finds it in the handshake by its fingerprint */
	MEMORY BIO *bio = BIO_new(BIO_s_mem());
	PEM_write_bio_X509(bio, cert);
	PEM_write_bio_X509(bio, ca->cert);
	return write_bio(bio, cert_path, 0644, err);
}

int bt_pki_init(const char *dir, const char *const *names, size_t n_names, struct bt_err *err)
{
	__attribute__((cleanup(ca_done))) struct ca ca = {0};
	int r = check_names(names, n_names, err); /* before anything is written */
	if (r == 0)
		r = bt_fs_mkdirs(dir, 0700, err);
	if (r == 0)
		r = ca_make(dir, &ca, err);
	return r < 0 ? r : issue_server(dir, &ca, names, n_names, err);
}

int bt_pki_issue_server(
	const char *dir, const char *const *names, size_t n_names, struct bt_err *err)
{
	__attribute__((cleanup(ca_done))) struct ca ca = {0};
	int r = check_names(names, n_names, err);
	if (r == 0)
		r = ca_read(dir, &ca, err);
	return r < 0 ? r : issue_server(dir, &ca, names, n_names, err);
}

/* ---- agents ---- */

static int check_host(const char *host, struct bt_err *err)
{
	if (!dns_name(host) || strlen(host) > MAX_CN)
		return bt_err_set(err, BT_E_CONFIG,
			"host name '%.80s': expected at most 64 letters, digits, '.', '-', '_'",
			host);
	return 0;
}

int bt_pki_make_csr(const char *key_path, const char *host, char **ret_csr_pem, struct bt_err *err)
{
	int r = check_host(host, err);
	if (r < 0)
		return r;
	KEY EVP_PKEY *key = EVP_EC_gen("P-256");
	CSR X509_REQ *csr = X509_REQ_new();
	MEMORY BIO *bio = BIO_new(BIO_s_mem());
	if (!key || !csr || !bio || X509_REQ_set_version(csr, X509_REQ_VERSION_1) != 1 ||
		!add_cn(X509_REQ_get_subject_name(csr), host) ||
		X509_REQ_set_pubkey(csr, key) != 1 || X509_REQ_sign(csr, key, EVP_sha256()) <= 0 ||
		PEM_write_bio_X509_REQ(bio, csr) != 1)
		return crypto_error(err, BT_E_FAILED, "make a certificate request");
	r = write_key(key, key_path, err);
	if (r < 0)
		return r;
	char *data = NULL;
	long n = BIO_get_mem_data(bio, &data);
	*ret_csr_pem = bt_strndup(data, (size_t)n);
	return 0;
}

static bool is_p256(EVP_PKEY *key)
{
	char group[32] = "";
	return key && EVP_PKEY_is_a(key, "EC") &&
	       EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 &&
	       (bt_streq(group, "prime256v1") || bt_streq(group, "P-256"));
}

static int check_csr(X509_REQ *csr, const char *host, struct bt_err *err)
{
	char cn[MAX_CN + 1];
	EVP_PKEY *key = csr ? X509_REQ_get0_pubkey(csr) : NULL;
	if (!csr || !is_p256(key) || X509_REQ_verify(csr, key) != 1)
		return crypto_error(err, BT_E_PROTOCOL,
			"expected a certificate request in PEM, signed with its own P-256 key");
	if (!bt_x509_cn(X509_REQ_get_subject_name(csr), cn, sizeof cn) || !bt_streq(cn, host))
		return bt_err_set(
			err, BT_E_REFUSED, "the certificate request is not for host %s", host);
	return 0;
}

static int64_t asn1_ms(const ASN1_TIME *t)
{
	struct tm tm = {0};
	if (ASN1_TIME_to_tm(t, &tm) != 1)
		return 0;
	return (int64_t)timegm(&tm) * 1000;
}

int bt_pki_sign(const char *dir, const char *csr_pem, const char *host, int days,
	char **ret_cert_pem, char ret_serial[static 65], int64_t *ret_not_after_wall_ms,
	struct bt_err *err)
{
	int r = check_host(host, err);
	if (r < 0)
		return r;
	size_t n = strnlen(csr_pem, MAX_PEM + 1);
	if (n > MAX_PEM)
		return bt_err_set(err, BT_E_PROTOCOL, "the certificate request is too long");
	MEMORY BIO *in = BIO_new_mem_buf(csr_pem, (int)n);
	CSR X509_REQ *csr = PEM_read_bio_X509_REQ(in, NULL, NULL, NULL);
	if ((r = check_csr(csr, host, err)) < 0)
		return r;
	__attribute__((cleanup(ca_done))) struct ca ca = {0};
	if ((r = ca_read(dir, &ca, err)) < 0)
		return r;
	CERT X509 *cert = cert_new(host, ca.cert, X509_REQ_get0_pubkey(csr), days);
	MEMORY BIO *out = BIO_new(BIO_s_mem());
	if (!cert || !out || !finish_leaf(cert, &ca, "clientAuth") ||
		PEM_write_bio_X509(out, cert) != 1)
		return crypto_error(err, BT_E_FAILED, "sign a host's certificate");
	char *data = NULL;
	long len = BIO_get_mem_data(out, &data);
	*ret_cert_pem = bt_strndup(data, (size_t)len);
	bt_x509_serial(cert, ret_serial);
	*ret_not_after_wall_ms = asn1_ms(X509_get0_notAfter(cert));
	return 0;
}

/* ---- questions ---- */

int bt_pki_not_after(const char *cert_file, int64_t *ret_wall_ms, struct bt_err *err)
{
	CERT X509 *cert = NULL;
	int r = read_cert(cert_file, &cert, err);
	if (r == 0)
		*ret_wall_ms = asn1_ms(X509_get0_notAfter(cert));
	return r;
}

int bt_pki_fingerprint(const char *cert_file, char ret_hex[static 65], struct bt_err *err)
{
	CERT X509 *cert = NULL;
	unsigned char digest[32];
	int r = read_cert(cert_file, &cert, err);
	if (r < 0)
		return r;
	if (X509_digest(cert, EVP_sha256(), digest, NULL) != 1)
		return crypto_error(err, BT_E_FAILED, "fingerprint");
	bt_hex(digest, sizeof digest, ret_hex);
	return 0;
}

char *bt_token_new(const char *prefix)
{
	unsigned char raw[33] = {0}; /* the 33rd byte only fills the last group of four letters */
	char text[45];
	if (RAND_bytes(raw, 32) != 1)
		abort();
	EVP_EncodeBlock((unsigned char *)text, raw, sizeof raw);
	text[43] = 0;
	for (char *p = text; *p; p++)
		*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
	char *token = bt_asprintf("%s%s", prefix, text);
	OPENSSL_cleanse(raw, sizeof raw);
	OPENSSL_cleanse(text, sizeof text);
	return token;
}

void bt_token_hash(const char *token, char ret_hex[static 65])
{
	unsigned char digest[32];
	if (EVP_Digest(token, strlen(token), digest, NULL, EVP_sha256(), NULL) != 1)
		abort();
	bt_hex(digest, sizeof digest, ret_hex);
}
