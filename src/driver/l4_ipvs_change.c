/* Out of rotation is weight 0, and not the absence of a real server: what is taken away loses its
 * connections (the kernel drops their packets), what has weight 0 keeps them and gets no others.
 *
 * Weights belong to whoever made the service. One that keepalived or ipvsadm made comes back with
 * what it had before it was taken out, so that is remembered; the kernel holds the 0 only.
 *
 * keepalived also takes away real servers whose check fails, and puts them back when it passes, and
 * cannot be asked what it thinks. So in its services real servers are its own to make: one that is
 * not there is one that it finds down. */
#include "driver/l4_ipvs_change.h"

#include <assert.h>

#define WEIGHT 100 /* of a real server in a service where none has one */

/* ---- who is who ----------------------------------------------------------------------------- */

static const struct bt_ipvs_dest *seen_at(const struct bt_ipvs_dest *seen, size_t n,
	const struct bt_ipvs_address *address, uint16_t port)
{
	for (size_t i = 0; i < n; i++)
		if (seen[i].port == port && bt_ipvs_address_equal(&seen[i].address, address))
			return &seen[i];
	return NULL;
}

static bool is_member(const struct bt_ipvs_want *want, const struct bt_ipvs_known *k)
{
	for (size_t i = 0; i < want->n_members; i++)
		if (want->members[i].port == k->port &&
			bt_ipvs_address_equal(&want->members[i].address, &k->address))
			return true;
	return false;
}

/* A weight of 0 is the owner's word where baton's last one was not out. */
bool bt_ipvs_is_away(const struct bt_ipvs_want *want, const struct bt_ipvs_member *m,
	const struct bt_ipvs_dest *seen, size_t n_seen, const struct bt_ipvs_memory *memory)
{
	const struct bt_ipvs_dest *now = seen_at(seen, n_seen, &m->address, m->port);
	const struct bt_ipvs_known *k = bt_ipvs_memory_at(memory, &m->address, m->port);
	if (!want->adopted || !m->in || (now && now->weight > 0))
		return false;
	return now ? !m->fresh && !(k && k->out) : !(k && k->made);
}

/* ---- the plan ------------------------------------------------------------------------------- */

struct planning {
	const struct bt_ipvs_want *want;
	const struct bt_ipvs_dest *seen;
	size_t n_seen;
	const struct bt_ipvs_memory *before;
	struct bt_ipvs_change *changes;
	size_t n_changes;
	struct bt_ipvs_known *known;
	size_t n_known;
};

static int64_t weight_in(
	const struct planning *p, const struct bt_ipvs_dest *now, const struct bt_ipvs_known *known)
{
	int64_t most = 0;
	if (p->want->weight)
		return p->want->weight;
	if (now && now->weight > 0)
		return now->weight;
	if (known && known->weight > 0)
		return known->weight;
	for (size_t i = 0; i < p->n_seen; i++)
		most = p->seen[i].weight > most ? p->seen[i].weight : most;
	return most ? most : WEIGHT;
}

static void set_weight(struct planning *p, const struct bt_ipvs_dest *now, int64_t weight)
{
	struct bt_ipvs_change *c = &p->changes[p->n_changes++];
	*c = (struct bt_ipvs_change){.command = IPVS_CMD_SET_DEST, .to = *now, .from = *now};
	c->to.weight = weight;
}

static bool is_away(const struct planning *p, const struct bt_ipvs_member *m)
{
	return bt_ipvs_is_away(p->want, m, p->seen, p->n_seen, p->before);
}

static void bring_in(struct planning *p, const struct bt_ipvs_member *m)
{
	const struct bt_ipvs_dest *now = seen_at(p->seen, p->n_seen, &m->address, m->port);
	int64_t weight = weight_in(p, now, bt_ipvs_memory_at(p->before, &m->address, m->port));
	if (is_away(p, m))
		return;
	if (now && now->weight != weight)
		set_weight(p, now, weight);
	if (now)
		return;
	struct bt_ipvs_change *c = &p->changes[p->n_changes++];
	*c = (struct bt_ipvs_change){
		.command = IPVS_CMD_NEW_DEST,
		.to = {.address = m->address,
			.port = m->port,
			.forward = p->want->forward,
			.weight = weight},
	};
}

static void take_out(struct planning *p, const struct bt_ipvs_address *address, uint16_t port)
{
	const struct bt_ipvs_dest *now = seen_at(p->seen, p->n_seen, address, port);
	if (now && now->weight != 0)
		set_weight(p, now, 0);
}

/* What the config named once and names no more: nothing new goes there, and when nothing is left of
 * it and it was made here, it goes. */
static void part_with(struct planning *p, const struct bt_ipvs_known *k)
{
	const struct bt_ipvs_dest *now = seen_at(p->seen, p->n_seen, &k->address, k->port);
	take_out(p, &k->address, k->port);
	if (!now || !k->made)
		return;
	if (now->weight != 0 || now->active != 0 || now->inactive != 0) {
		p->known[p->n_known++] = *k; /* until a later look finds it empty */
		return;
	}
	struct bt_ipvs_change *c = &p->changes[p->n_changes++];
	*c = (struct bt_ipvs_change){.command = IPVS_CMD_DEL_DEST, .to = *now, .from = *now};
}

static void remember(struct planning *p, const struct bt_ipvs_member *m)
{
	const struct bt_ipvs_dest *now = seen_at(p->seen, p->n_seen, &m->address, m->port);
	const struct bt_ipvs_known *k = bt_ipvs_memory_at(p->before, &m->address, m->port);
	struct bt_ipvs_known *to = &p->known[p->n_known];
	*to = k ? *k : (struct bt_ipvs_known){.address = m->address, .port = m->port};
	if (now && now->weight > 0 && !m->in)
		to->weight = now->weight;
	to->out = !m->in;
	to->made = now ? to->made : m->in && !is_away(p, m);
	p->n_known += to->weight > 0 || to->made;
}

void bt_ipvs_plan(const struct bt_ipvs_want *want, const struct bt_ipvs_dest *seen, size_t n_seen,
	const struct bt_ipvs_memory *memory, struct bt_arena *a, struct bt_ipvs_plan *ret)
{
	size_t most = want->n_members + 2 * memory->n + 1;
	struct planning p = {
		.want = want,
		.seen = seen,
		.n_seen = n_seen,
		.before = memory,
		.changes = BT_ARENA_ARRAY(a, struct bt_ipvs_change, most),
		.known = BT_ARENA_ARRAY(a, struct bt_ipvs_known, most),
	};
	for (size_t i = 0; i < want->n_members; i++)
		remember(&p, &want->members[i]);
	for (size_t i = 0; i < want->n_members; i++)
		if (want->members[i].in)
			bring_in(&p, &want->members[i]);
	for (size_t i = 0; i < want->n_members; i++)
		if (!want->members[i].in)
			take_out(&p, &want->members[i].address, want->members[i].port);
	for (size_t i = 0; i < memory->n; i++)
		if (!is_member(want, &memory->list[i]))
			part_with(&p, &memory->list[i]);
	assert(p.n_changes <= most && p.n_known <= most);
	*ret = (struct bt_ipvs_plan){
		.changes = p.changes,
		.n_changes = p.n_changes,
		.memory = {want->vip, want->port, want->adopted, p.known, p.n_known},
	};
	ret->remembers = !bt_ipvs_memory_equal(memory, &ret->memory);
}

const struct bt_ipvs_member *bt_ipvs_awaited(const struct bt_ipvs_want *want,
	const struct bt_ipvs_dest *seen, size_t n_seen, const struct bt_ipvs_memory *memory)
{
	const struct bt_ipvs_member *away = NULL;
	bool goes = false, serves = false;
	for (size_t i = 0; !want->again && i < want->n_members; i++) {
		const struct bt_ipvs_member *m = &want->members[i];
		const struct bt_ipvs_dest *now = seen_at(seen, n_seen, &m->address, m->port);
		bool is = bt_ipvs_is_away(want, m, seen, n_seen, memory);
		if (is && m->fresh)
			return m;
		away = is && !away ? m : away;
		serves = serves || (m->in && !is);
		goes = goes || (!m->in && now && now->weight > 0);
	}
	return goes && !serves ? away : NULL;
}

const struct bt_ipvs_member *bt_ipvs_differs(const struct bt_ipvs_want *want,
	const struct bt_ipvs_dest *seen, size_t n_seen, const struct bt_ipvs_memory *memory)
{
	for (size_t i = 0; i < want->n_members; i++) {
		const struct bt_ipvs_member *m = &want->members[i];
		const struct bt_ipvs_dest *now = seen_at(seen, n_seen, &m->address, m->port);
		if ((now && now->weight > 0) != m->in &&
			!bt_ipvs_is_away(want, m, seen, n_seen, memory))
			return m;
	}
	return NULL;
}
