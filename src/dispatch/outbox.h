/* The server's outbox: per host a sequence of commands that leave in order and stay until their
 * result came. The cursor is (store id, sequence). Pure: the store makes it durable. */
#pragma once
#include "model/command.h"

struct bt_outbox_item {
	uint64_t seq; /* per host, from 1, no gaps at append */
	struct bt_command_key key;
	const char *json; /* the whole command as the agent gets it */
};
struct bt_outbox; /* of one host */
struct bt_outbox *bt_outbox_new(uint64_t last_seq);
struct bt_outbox *bt_outbox_free(struct bt_outbox *o);
uint64_t bt_outbox_next_seq(const struct bt_outbox *o);
void bt_outbox_append(
	struct bt_outbox *o, const struct bt_outbox_item *item); /* after the commit; copies */
/* Items after the cursor, at most max; borrowed until the outbox changes. Caller frees *ret. */
size_t bt_outbox_after(
	const struct bt_outbox *o, uint64_t seq, size_t max, const struct bt_outbox_item ***ret);
/* A result came (or the run ended): the item need not be offered again. A refusal that names a
 * token older than the run's settles nothing: the copy with the newer token still has to go. */
bool bt_outbox_settle(struct bt_outbox *o, const struct bt_command_key *key);
