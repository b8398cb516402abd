/* Any bytes as a host's policy: it is read or refused with a line that says why, and nothing is
 * ever allowed that the text does not name. */
#include "fuzz.h"

#include "agent/policy.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bt_policy_spec spec = {.path = "policy.yaml", .state_dir = "/var/lib/baton"};
	struct bt_policy *p = NULL;
	struct bt_err err = {0};
	if (bt_policy_parse((const char *)data, size, &spec, &p, &err) < 0) {
		FUZZ_CHECK(err.text[0] && !p);
		return 0;
	}
	FUZZ_CHECK(p->port_min <= p->port_max);
	FUZZ_CHECK(!p->root || memmem(data, size, "root", 4));
	FUZZ_CHECK(!p->exec || memmem(data, size, "exec", 4));
	for (size_t i = 0; i < p->n_paths; i++)
		FUZZ_CHECK(p->paths[i][0] == '/');
	bt_policy_free(p);
	return 0;
}
