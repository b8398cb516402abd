/* AES-256-GCM under a key that lives in its own file (0600) beside the store, so that a copy of the
 * database alone gives no secret away. The nonce is random, 96 bits, per sealing. */
#include "base/fs.h"
#include "server/server_priv.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

#define NONCE 12
#define TAG 16
#define MAX_SEALED (1u << 20)

int bt_secrets_make_key(const char *path, struct bt_err *err)
{
	unsigned char key[BT_KEY_BYTES];
	char hex[2 * BT_KEY_BYTES + 1];
	if (RAND_bytes(key, sizeof key) != 1)
		return bt_err_set(err, BT_E_FAILED, "no random bytes for the secrets' key");
	bt_hex(key, sizeof key, hex);
	int r = bt_fs_write_atomic(path, hex, strlen(hex), 0600, err);
	OPENSSL_cleanse(key, sizeof key);
	OPENSSL_cleanse(hex, sizeof hex);
	return r;
}

int bt_secrets_load_key(const char *path, unsigned char key[BT_KEY_BYTES], struct bt_err *err)
{
	BT_FREE char *hex = NULL;
	size_t n;
	int r = bt_fs_read(path, 4096, &hex, &n, err);
	if (r < 0)
		return r;
	if (n != 2 * BT_KEY_BYTES || bt_unhex(hex, key, BT_KEY_BYTES) < 0)
		r = bt_err_set(err, BT_E_CORRUPT,
			"%s: expected %d hex digits: restore it from a backup", path,
			2 * BT_KEY_BYTES);
	OPENSSL_cleanse(hex, n);
	return r;
}

int bt_secrets_seal(const unsigned char *key, const char *text, unsigned char **ret, size_t *ret_n,
	struct bt_err *err)
{
	size_t n = strlen(text);
	int len = 0, last = 0;
	if (n > MAX_SEALED)
		return bt_err_set(err, BT_E_REFUSED, "secrets: more than %u bytes", MAX_SEALED);
	unsigned char *out = bt_malloc(NONCE + n + TAG);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	bool good =
		RAND_bytes(out, NONCE) == 1 &&
		EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, out) == 1 &&
		EVP_EncryptUpdate(c, out + NONCE, &len, (const unsigned char *)text, (int)n) == 1 &&
		EVP_EncryptFinal_ex(c, out + NONCE + len, &last) == 1 &&
		EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG, out + NONCE + n) == 1;
	EVP_CIPHER_CTX_free(c);
	if (!good) {
		free(out);
		return bt_err_set(err, BT_E_FAILED, "secrets: encryption failed");
	}
	*ret = out;
	*ret_n = NONCE + n + TAG;
	return 0;
}

int bt_secrets_open(const unsigned char *key, const char *hex, char **ret_text, struct bt_err *err)
{
	size_t n = strlen(hex) / 2;
	int len = 0, last = 0;
	if (n < NONCE + TAG || n > MAX_SEALED + NONCE + TAG)
		return bt_err_set(err, BT_E_CORRUPT, "secrets: not what was stored");
	BT_FREE unsigned char *in = bt_malloc(n);
	if (bt_unhex(hex, in, n) < 0)
		return bt_err_set(err, BT_E_CORRUPT, "secrets: not what was stored");
	size_t m = n - NONCE - TAG;
	char *out = bt_malloc(m + 1);
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	bool good = EVP_DecryptInit_ex(c, EVP_aes_256_gcm(), NULL, key, in) == 1 &&
		    EVP_DecryptUpdate(c, (unsigned char *)out, &len, in + NONCE, (int)m) == 1 &&
		    EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG, in + NONCE + m) == 1 &&
		    EVP_DecryptFinal_ex(c, (unsigned char *)out + len, &last) == 1;
	EVP_CIPHER_CTX_free(c);
	if (!good) {
		free(out);
		return bt_err_set(err, BT_E_CORRUPT,
			"secrets: they were not sealed with this server's secret.key");
	}
	out[m] = '\0';
	*ret_text = out;
	return 0;
}

int bt_secrets_open_json(
	const unsigned char *key, const char *hex, json_t **ret, struct bt_err *err)
{
	char *text = NULL;
	int r = bt_secrets_open(key, hex, &text, err);
	if (r < 0)
		return r;
	*ret = json_loads(text, 0, NULL);
	explicit_bzero(text, strlen(text));
	free(text);
	return *ret ? 0 : bt_err_set(err, BT_E_CORRUPT, "what was sealed does not parse");
}
