/* Out of rotation is weight 0, and not the absence of a real server: what is taken away loses its
 * connections (the kernel drops their packets), what has weight 0 keeps them and gets no others.
 *
 * Weights belong to whoever made the service. One that keepalived or ipvsadm made comes back with
 * what it had before it was taken out, so that is remembered; the kernel holds the 0 only. */
#include "driver/l4_ipvs_change.h"

#include "base/json.h"
#include "base/str.h"

#include <assert.h>
#include <string.h>

#define MEMORY_VERSION 1
#define MEMORY_MAX (1u << 20)
#define KNOWN_MAX 16384
#define WEIGHT 100 /* of a real server in a service where none has one */

/* ---- memory --------------------------------------------------------------------------------- */

char *bt_ipvs_memory_dump(const struct bt_ipvs_memory *m)
{
	char text[46];
	json_t *list = json_array();
	for (size_t i = 0; i < m->n; i++) {
		const struct bt_ipvs_known *k = &m->list[i];
		json_array_append_new(
			list, json_pack("{s:s, s:i, s:I, s:b}", "address",
				      bt_ipvs_address_text(&k->address, text), "port", (int)k->port,
				      "weight", (json_int_t)k->weight, "made", (int)k->made));
	}
	BT_JSON json_t *j = json_pack("{s:i, s:o}", "version", MEMORY_VERSION, "servers", list);
	return bt_json_dump(j);
}

static int known_from_json(const json_t *j, struct bt_ipvs_known *ret, struct bt_err *err)
{
	const char *address = NULL;
	int64_t port = 0;
	int r = bt_json_str(j, "address", &address, err);
	if (r == 0)
		r = bt_json_int(j, "port", 0, 65535, &port, err);
	if (r == 0)
		r = bt_json_int(j, "weight", 0, INT32_MAX, &ret->weight, err);
	if (r == 0)
		r = bt_json_bool(j, "made", &ret->made, err);
	if (r == 0)
		r = bt_ipvs_address_parse(address, &ret->address, err);
	ret->port = (uint16_t)port;
	return r;
}

int bt_ipvs_memory_parse(const char *text, size_t n, struct bt_arena *a, struct bt_ipvs_memory *ret,
	struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	json_t *list = NULL;
	int64_t version;
	int r = bt_json_parse(text, n, MEMORY_MAX, &j, err);
	if (r == 0)
		r = bt_json_int(j, "version", 1, MEMORY_VERSION, &version, err);
	if (r == 0)
		r = bt_json_array(j, "servers", &list, err);
	if (r < 0)
		return r;
	size_t n_list = json_array_size(list);
	if (n_list > KNOWN_MAX)
		return bt_err_set(err, BT_E_CORRUPT, "more than %d real servers", KNOWN_MAX);
	struct bt_ipvs_known *known = BT_ARENA_ARRAY(a, struct bt_ipvs_known, n_list + 1);
	for (size_t i = 0; r == 0 && i < n_list; i++)
		r = known_from_json(json_array_get(list, i), &known[i], err);
	if (r == 0)
		*ret = (struct bt_ipvs_memory){known, n_list};
	return r;
}

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

static const struct bt_ipvs_known *known_at(
	const struct bt_ipvs_memory *m, const struct bt_ipvs_member *of)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->list[i].port == of->port &&
			bt_ipvs_address_equal(&m->list[i].address, &of->address))
			return &m->list[i];
	return NULL;
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

static void bring_in(struct planning *p, const struct bt_ipvs_member *m)
{
	const struct bt_ipvs_dest *now = seen_at(p->seen, p->n_seen, &m->address, m->port);
	int64_t weight = weight_in(p, now, known_at(p->before, m));
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
	const struct bt_ipvs_known *k = known_at(p->before, m);
	struct bt_ipvs_known *to = &p->known[p->n_known];
	*to = k ? *k : (struct bt_ipvs_known){.address = m->address, .port = m->port};
	if (now && now->weight > 0 && !m->in)
		to->weight = now->weight;
	to->made = now ? to->made : m->in;
	p->n_known += to->weight > 0 || to->made;
}

static bool memory_equal(const struct bt_ipvs_memory *a, const struct bt_ipvs_memory *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (a->list[i].port != b->list[i].port || a->list[i].weight != b->list[i].weight ||
			a->list[i].made != b->list[i].made ||
			!bt_ipvs_address_equal(&a->list[i].address, &b->list[i].address))
			return false;
	return true;
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
		.changes = p.changes, .n_changes = p.n_changes, .memory = {p.known, p.n_known}};
	ret->remembers = !memory_equal(memory, &ret->memory);
}

const struct bt_ipvs_member *bt_ipvs_differs(
	const struct bt_ipvs_want *want, const struct bt_ipvs_dest *seen, size_t n_seen)
{
	for (size_t i = 0; i < want->n_members; i++) {
		const struct bt_ipvs_member *m = &want->members[i];
		const struct bt_ipvs_dest *now = seen_at(seen, n_seen, &m->address, m->port);
		if ((now && now->weight > 0) != m->in)
			return m;
	}
	return NULL;
}
