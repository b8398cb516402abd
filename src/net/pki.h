/* The server's certificate authority, and what agents need to join. All keys are EC P-256. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include <stdint.h>

/* Makes dir/ca.pem, ca.key (0600), server.pem, server.key; names: DNS names and IPs of the server.
 */
int bt_pki_init(const char *dir, const char *const *names, size_t n_names, struct bt_err *err);
/* A new server certificate from the CA in dir (at init, and when it nears expiry). */
int bt_pki_issue_server(
	const char *dir, const char *const *names, size_t n_names, struct bt_err *err);
/* Key + CSR for an agent; the key is written to key_path (0600). Caller frees *ret_csr_pem. */
int bt_pki_make_csr(const char *key_path, const char *host, char **ret_csr_pem, struct bt_err *err);
/* Signs a CSR whose CN must be host; the serial (hex) is returned for the revocation list. */
int bt_pki_sign(const char *dir, const char *csr_pem, const char *host, int days,
	char **ret_cert_pem, char ret_serial[static 65], int64_t *ret_not_after_wall_ms,
	struct bt_err *err);
int bt_pki_not_after(const char *cert_file, int64_t *ret_wall_ms, struct bt_err *err);
/* SHA-256 of the (first) certificate's DER, lower-case hex. */
int bt_pki_fingerprint(const char *cert_file, char ret_hex[static 65], struct bt_err *err);
/* 256 random bits in URL-safe base64 (43 characters) with a prefix such as "bt_" ; caller frees. */
char *bt_token_new(const char *prefix);
void bt_token_hash(const char *token, char ret_hex[static 65]); /* SHA-256 */
