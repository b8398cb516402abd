#include "base/base64.h"

#include "base/mem.h"

#include <limits.h>
#include <openssl/evp.h>
#include <string.h>

char *bt_base64(const void *data, size_t n)
{
	char *out = bt_malloc((n + 2) / 3 * 4 + 1);
	out[EVP_EncodeBlock((unsigned char *)out, data, (int)n)] = 0;
	return out;
}

int bt_unbase64(const char *text, char **ret, size_t *ret_n, struct bt_err *err)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	size_t n = strlen(text), plain = strspn(text, letters), pad = n - plain;
	if (n % 4 || n > INT_MAX || pad > 2 || strspn(text + plain, "=") != pad)
		return bt_err_set(err, BT_E_PROTOCOL, "not base64");
	unsigned char *out = bt_malloc(n / 4 * 3 + 1);
	int got = EVP_DecodeBlock(out, (const unsigned char *)text, (int)n);
	if (got < 0 || (size_t)got < pad) {
		free(out);
		return bt_err_set(err, BT_E_PROTOCOL, "not base64");
	}
	out[(size_t)got - pad] = 0;
	*ret = (char *)out;
	*ret_n = (size_t)got - pad;
	return 0;
}
