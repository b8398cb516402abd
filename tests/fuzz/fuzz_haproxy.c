/* Any bytes as answers of haproxy's runtime API: the socket's path comes from a person, so whoever
 * listens there may say anything. */
#include "fuzz.h"

#include "driver/l4_haproxy_parse.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BT_FREE char *text = bt_strndup((const char *)data, size);
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_haproxy_view v = {0};
	struct bt_err err = {0};
	const char **names = NULL;
	char said[64];
	FUZZ_CHECK(strlen(bt_haproxy_complaint(text, said, sizeof said)) < sizeof said);
	if (bt_haproxy_info(text, a, &v, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	if (bt_haproxy_servers(text, a, &v, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	for (size_t i = 0; i < v.n_servers; i++)
		FUZZ_CHECK(v.servers[i].name && v.servers[i].address && v.servers[i].status);
	(void)bt_haproxy_stat(text, a, &v, &err); /* of those servers */
	struct bt_haproxy_server one = {.name = "was1-a"};
	v.servers = &one;
	v.n_servers = 1;
	(void)bt_haproxy_stat(text, a, &v, &err);
	FUZZ_CHECK(v.totals.answers >= 0 && v.totals.failed >= 0);
	size_t n = bt_haproxy_backends(text, a, &names);
	for (size_t i = 0; i < n; i++)
		FUZZ_CHECK(names[i] && *names[i]);
	return 0;
}
