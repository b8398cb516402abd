/* What pki and the HTTP server both ask of a certificate; private to net. */
#pragma once
#include <openssl/x509.h>
#include <stdbool.h>

/* Serial as lower-case hex without leading zeros; "" when it is longer than 32 bytes. */
void bt_x509_serial(const X509 *cert, char ret_hex[static 65]);
/* The subject's one common name into buf; false when there is none, more than one, or it does not
 * fit or holds a NUL. */
bool bt_x509_cn(const X509_NAME *subject, char *buf, size_t n);
