/* Any bytes as the state file of an L4 balancer: what can be read can be written and read again. */
#include "fuzz.h"

#include "driver/l4_state.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bt_l4_state *s = NULL;
	struct bt_err err = {0};
	if (bt_l4_state_parse((const char *)data, size, &s, &err) < 0) {
		FUZZ_CHECK(err.text[0]);
		return 0;
	}
	struct bt_l4_state *copy = bt_l4_state_copy(s);
	BT_FREE char *one = bt_l4_state_dump(s);
	BT_FREE char *two = bt_l4_state_dump(copy);
	FUZZ_CHECK(!strcmp(one, two));
	if (s->has_confirmed)
		FUZZ_CHECK(bt_l4_state_effective(s, "was1"));
	bt_l4_state_free(copy);
	bt_l4_state_free(s);
	return 0;
}
