#include "net/x509.h"

#include <ctype.h>
#include <openssl/bn.h>
#include <stdio.h>
#include <string.h>

void bt_x509_serial(const X509 *cert, char ret_hex[static 65])
{
	BIGNUM *bn = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
	char *hex = bn ? BN_bn2hex(bn) : NULL;
	ret_hex[0] = 0;
	if (hex) {
		const char *p = hex;
		while (*p == '0' && p[1])
			p++;
		if (strlen(p) <= 64)
			strcpy(ret_hex, p);
		for (char *c = ret_hex; *c; c++)
			*c = (char)tolower((unsigned char)*c);
	}
	OPENSSL_free(hex);
	BN_free(bn);
}

bool bt_x509_cn(const X509_NAME *subject, char *buf, size_t n)
{
	int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
	if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0)
		return false;
	unsigned char *text = NULL;
	int len = ASN1_STRING_to_UTF8(
		&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
	bool good = len > 0 && (size_t)len < n && !memchr(text, 0, (size_t)len);
	if (good)
		snprintf(buf, n, "%.*s", len, (const char *)text);
	OPENSSL_free(text);
	return good;
}
