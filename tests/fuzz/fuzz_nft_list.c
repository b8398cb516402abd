/* Any bytes as what nft lists: others may write into the same tables, and baton reads them to know
 * where connections go. What was read can be written again. */
#include "fuzz.h"

#include "driver/l4_nft.h"

#include <string.h>

static void read_as(const uint8_t *data, size_t size, const struct bt_l4 *l4)
{
	static const struct bt_pool_member member = {.address = "10.9.0.11",
		.port = 8080,
		.slot = "main",
		.host = "was1",
		.in = true,
		.one = false};
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_service service = {.name = "shop@release", .l4 = l4};
	struct bt_l4_target target = {.service = &service, .members = &member, .n_members = 1};
	struct bt_nft_found found = {0};
	struct bt_err err = {0};
	if (bt_nft_tables_read((const char *)data, size, &service, &found, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	bt_err_clear(&err);
	if (bt_nft_table_read((const char *)data, size, &service, a, &found, &err) < 0) {
		FUZZ_CHECK(err.text[0]);
		return;
	}
	for (size_t i = 0; i < found.n_members; i++) {
		FUZZ_CHECK(found.members[i].address[0] && found.members[i].port);
		FUZZ_CHECK(found.leads || !found.members[i].in);
	}
	for (size_t i = 0; i < found.n_chains; i++)
		FUZZ_CHECK(found.chains[i][0]);
	BT_FREE char *text = bt_nft_render(&target, &found);
	FUZZ_CHECK(strstr(text, "nftables"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct bt_l4 nat = {
		.kind = BT_BALANCER_NFTABLES, .vip = "10.9.0.100", .port = 80};
	static const struct bt_l4 dsr = {.kind = BT_BALANCER_NFTABLES,
		.mode = BT_L4_DSR,
		.vip = "10.9.0.100",
		.port = 8080,
		.nftables = {.interface = "lan"}};
	read_as(data, size, &nat);
	read_as(data, size, &dsr);
	return 0;
}
