/* What the kernel's IPVS answers. Never a crash and never past the end; each message brings the
 * reading forward, and what is read can be asked about again. */
#include "fuzz.h"

#include "driver/l4_ipvs_wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static _Alignas(8) char request[BT_IPVS_REQUEST_MAX];
	uint16_t type = 0;
	uint32_t seq = 0;
	if (size < 16 || size > 65536)
		return 0;
	memcpy(&type, data + 4, sizeof type);
	memcpy(&seq, data + 8, sizeof seq);
	char *copy = malloc(size); /* aligned, and of just its size */
	memcpy(copy, data, size);
	const void *at = copy;
	size_t left = size;
	for (;;) {
		struct bt_ipvs_reply r;
		struct bt_err err = {0};
		size_t before = left;
		int got = bt_ipvs_next(&at, &left, seq, type, AF_INET, &r, &err);
		if (got <= 0) {
			FUZZ_CHECK(got == 0 ? left == 0 : err.text[0] != 0);
			break;
		}
		FUZZ_CHECK(left < before);
		if (r.kind == BT_IPVS_SERVICE)
			FUZZ_CHECK(bt_ipvs_ask(request, 1, type, IPVS_CMD_NEW_SERVICE, &r.service,
					   NULL) <= sizeof request);
		if (r.kind == BT_IPVS_DEST) {
			struct bt_ipvs_service s = {.address = r.dest.address};
			FUZZ_CHECK(bt_ipvs_ask(request, 1, type, IPVS_CMD_SET_DEST, &s, &r.dest) <=
				   sizeof request);
		}
	}
	free(copy);
	return 0;
}
