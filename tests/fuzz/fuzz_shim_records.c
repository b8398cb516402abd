/* What a shim and the driver read from each other: spec, status, request. Never a crash, and what
 * is read and written again is read as the same. The first byte chooses which. */
#include "fuzz.h"

#include "shim/status.h"

#include <stdlib.h>
#include <string.h>

static char out_data[2 * BT_SHIM_SPEC_MAX];

static char *copy(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1); /* of just its size: a step too far is seen */
	memcpy(text, data, size);
	text[size] = 0;
	return text;
}

static void try_spec(const uint8_t *data, size_t size)
{
	static struct bt_shim_spec a, b;
	static char why[160];
	char *text = copy(data, size), *again = NULL;
	struct bt_record_out out = {out_data, 0, sizeof out_data, false};
	if (bt_shim_spec_parse(text, size + 1, &a, why, sizeof why) == 0) {
		FUZZ_CHECK(a.argv[0][0] && !a.argv[a.n_argv] && a.stop.n <= BT_SHIM_STEPS_MAX);
		FUZZ_CHECK(bt_shim_spec_write(&a, &out) == 0);
		again = copy((uint8_t *)out.data, out.len - 1);
		FUZZ_CHECK(bt_shim_spec_parse(again, out.len, &b, why, sizeof why) == 0);
		FUZZ_CHECK(a.n_argv == b.n_argv && a.n_env == b.n_env && a.uid == b.uid);
		FUZZ_CHECK(a.n_limits == b.n_limits && a.n_groups == b.n_groups);
		FUZZ_CHECK(memcmp(&a.stop, &b.stop, sizeof a.stop) == 0);
		for (size_t i = 0; i < a.n_argv; i++)
			FUZZ_CHECK(strcmp(a.argv[i], b.argv[i]) == 0);
	} else {
		FUZZ_CHECK(why[0]);
	}
	free(text);
	free(again);
}

static void try_status(const uint8_t *data, size_t size)
{
	static struct bt_shim_status a, b;
	char why[160] = "", *text = copy(data, size), *again = NULL;
	struct bt_record_out out = {out_data, 0, sizeof out_data, false};
	if (bt_shim_status_parse(text, size + 1, &a, why, sizeof why) == 0) {
		FUZZ_CHECK(bt_shim_status_write(&a, &out) == 0 && out.len <= BT_SHIM_MESSAGE_MAX);
		again = copy((uint8_t *)out.data, out.len - 1);
		FUZZ_CHECK(bt_shim_status_parse(again, out.len, &b, why, sizeof why) == 0);
		FUZZ_CHECK(strcmp(a.text, b.text) == 0 && strcmp(a.boot_id, b.boot_id) == 0);
		FUZZ_CHECK(a.pid == b.pid && a.start_ticks == b.start_ticks);
	} else {
		FUZZ_CHECK(why[0]);
	}
	free(text);
	free(again);
}

static void try_request(const uint8_t *data, size_t size)
{
	struct bt_shim_request a, b;
	char why[160] = "", *text = copy(data, size), *again = NULL;
	struct bt_record_out out = {out_data, 0, sizeof out_data, false};
	if (bt_shim_request_parse(text, size + 1, &a, why, sizeof why) == 0) {
		FUZZ_CHECK(bt_shim_request_write(&a, &out) == 0);
		again = copy((uint8_t *)out.data, out.len - 1);
		FUZZ_CHECK(bt_shim_request_parse(again, out.len, &b, why, sizeof why) == 0);
		FUZZ_CHECK(memcmp(&a.steps, &b.steps, sizeof a.steps) == 0 && a.op == b.op);
	} else {
		FUZZ_CHECK(why[0]);
	}
	free(text);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 65536)
		return 0;
	switch (data[0] % 3) {
	case 0:
		try_spec(data + 1, size - 1);
		break;
	case 1:
		try_status(data + 1, size - 1);
		break;
	default:
		try_request(data + 1, size - 1);
		break;
	}
	return 0;
}
