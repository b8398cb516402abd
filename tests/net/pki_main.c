/* pki_main DIR HOST…: an authority in DIR for localhost, and DIR/HOST.pem, DIR/HOST.key for each.
 */
#include "base/fs.h"
#include "net/pki.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	static const char *const names[] = {"localhost", "127.0.0.1"};
	struct bt_err err = {0};
	if (argc < 2 || bt_pki_init(argv[1], names, 2, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	for (int i = 2; i < argc; i++) {
		BT_FREE char *key = bt_asprintf("%s/%s.key", argv[1], argv[i]);
		BT_FREE char *cert = bt_asprintf("%s/%s.pem", argv[1], argv[i]);
		BT_FREE char *csr = NULL;
		BT_FREE char *pem = NULL;
		char serial[65];
		int64_t end;
		if (bt_pki_make_csr(key, argv[i], &csr, &err) < 0 ||
			bt_pki_sign(argv[1], csr, argv[i], 90, &pem, serial, &end, &err) < 0 ||
			bt_fs_write_atomic(cert, pem, strlen(pem), 0644, &err) < 0) {
			fprintf(stderr, "%s\n", err.text);
			return 1;
		}
		printf("%s\n", serial);
	}
	return 0;
}
