/* A queue with a start offset: appended at the tail, settled anywhere, and trimmed at the head, so
 * that what an agent asks for after its cursor is one binary search away. */
#include "dispatch/outbox.h"

#include <assert.h>
#include <string.h>

struct slot {
	struct bt_outbox_item item;
	char *json;
	bool settled;
};

struct bt_outbox {
	uint64_t next_seq;
	struct slot *slots;
	size_t head, tail, cap; /* live ones are [head, tail) */
	size_t open;
};

struct bt_outbox *bt_outbox_new(uint64_t last_seq)
{
	struct bt_outbox *o = bt_calloc(1, sizeof *o);
	o->next_seq = last_seq + 1;
	return o;
}

struct bt_outbox *bt_outbox_free(struct bt_outbox *o)
{
	if (!o)
		return NULL;
	for (size_t i = o->head; i < o->tail; i++)
		free(o->slots[i].json);
	free(o->slots);
	free(o);
	return NULL;
}

uint64_t bt_outbox_next_seq(const struct bt_outbox *o)
{
	return o->next_seq;
}

static void make_room(struct bt_outbox *o)
{
	if (o->tail < o->cap)
		return;
	if (o->head > o->cap / 2) {
		memmove(o->slots, o->slots + o->head, (o->tail - o->head) * sizeof *o->slots);
		o->tail -= o->head;
		o->head = 0;
		return;
	}
	o->cap = o->cap ? o->cap * 2 : 8;
	o->slots = bt_realloc(o->slots, o->cap * sizeof *o->slots);
}

void bt_outbox_append(struct bt_outbox *o, const struct bt_outbox_item *item)
{
	/* After a restart items come from the store, where settled ones leave gaps. */
	assert(item->seq >= o->next_seq);
	make_room(o);
	struct slot *s = &o->slots[o->tail++];
	s->item = *item;
	s->json = bt_strdup(item->json);
	s->item.json = s->json;
	s->settled = false;
	o->next_seq = item->seq + 1;
	o->open++;
}

static size_t first_after(const struct bt_outbox *o, uint64_t seq)
{
	size_t lo = o->head, hi = o->tail;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (o->slots[mid].item.seq <= seq)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

size_t bt_outbox_after(
	const struct bt_outbox *o, uint64_t seq, size_t max, const struct bt_outbox_item ***ret)
{
	size_t from = first_after(o, seq), n = 0;
	size_t room = o->tail - from < max ? o->tail - from : max;
	const struct bt_outbox_item **items = bt_calloc(room, sizeof *items);
	for (size_t i = from; i < o->tail && n < room; i++)
		if (!o->slots[i].settled)
			items[n++] = &o->slots[i].item;
	*ret = items;
	return n;
}

bool bt_outbox_settle(struct bt_outbox *o, const struct bt_command_key *key)
{
	bool found = false;
	/* A takeover appends the same key again with its new token: one result settles both. */
	for (size_t i = o->head; i < o->tail; i++) {
		struct slot *s = &o->slots[i];
		if (s->settled || !bt_command_key_equal(&s->item.key, key))
			continue;
		s->settled = found = true;
		free(s->json);
		s->json = NULL;
		s->item.json = NULL;
		o->open--;
	}
	while (o->head < o->tail && o->slots[o->head].settled)
		o->head++;
	if (o->head == o->tail)
		o->head = o->tail = 0;
	return found;
}
