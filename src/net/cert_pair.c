#include "net/cert_pair.h"

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"

#include <inttypes.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>
#include <sys/stat.h>

#define PEM_MAX (1u << 20)

/* nginx takes keys without a pass phrase only, and nobody is there to be asked. */
static int no_phrase(char *buf, int size, int rwflag, void *arg)
{
	(void)buf, (void)size, (void)rwflag, (void)arg;
	return -1;
}

static BIO *read_pem(const char *path, char **ret_text, struct bt_err *err)
{
	size_t n = 0;
	if (bt_fs_read(path, PEM_MAX, ret_text, &n, err) < 0)
		return NULL;
	return BIO_new_mem_buf(*ret_text, (int)n);
}

int bt_cert_pair_check(const char *certificate, const char *key, struct bt_err *err)
{
	BT_FREE char *cert_text = NULL;
	char *key_text = NULL;
	struct bt_err why = {0};
	BIO *in = read_pem(certificate, &cert_text, &why);
	if (!in)
		return bt_err_set(err, BT_E_CONFIG, "certificate %s", why.text);
	X509 *cert = PEM_read_bio_X509(in, NULL, no_phrase, NULL);
	BIO_free(in);
	if (!cert) {
		ERR_clear_error();
		return bt_err_set(err, BT_E_CONFIG,
			"certificate %s: it holds no certificate in "
			"PEM form",
			certificate);
	}
	int r = 0;
	EVP_PKEY *private = NULL;
	in = read_pem(key, &key_text, &why);
	if (!in)
		r = bt_err_set(err, BT_E_CONFIG, "key %s", why.text);
	else if (!(private = PEM_read_bio_PrivateKey(in, NULL, no_phrase, NULL)))
		r = bt_err_set(err, BT_E_CONFIG,
			"key %s: it holds no private key in PEM form without a pass phrase", key);
	else if (X509_check_private_key(cert, private) != 1)
		r = bt_err_set(err, BT_E_CONFIG, "certificate %s does not fit its key %s",
			certificate, key);
	ERR_clear_error();
	EVP_PKEY_free(private);
	BIO_free(in);
	X509_free(cert);
	if (key_text)
		OPENSSL_cleanse(key_text, strlen(key_text));
	free(key_text);
	return r;
}

char *bt_cert_pair_stamp(const char *certificate, const char *key)
{
	const char *const paths[] = {certificate, key};
	struct bt_str out = {0};
	for (size_t i = 0; i < BT_ARRAY_LEN(paths); i++) {
		struct stat st;
		if (i)
			bt_str_addc(&out, ' ');
		if (stat(paths[i], &st) < 0)
			bt_str_addc(&out, '-');
		else
			bt_str_addf(&out, "%ju:%jd:%jd.%09ld", (uintmax_t)st.st_ino,
				(intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec,
				st.st_mtim.tv_nsec);
	}
	return bt_str_steal(&out);
}
