#include "driver/members.h"

#include "base/json.h"
#include "base/str.h"

#define TEXT_MAX 4096

static bool equal(const struct bt_pool_member *a, const struct bt_pool_member *b)
{
	return a->port == b->port && a->in == b->in && a->one == b->one &&
	       bt_streq(a->address, b->address) && bt_streq(a->slot, b->slot) &&
	       bt_streq(a->host, b->host);
}

bool bt_members_equal(
	const struct bt_pool_member *a, size_t n_a, const struct bt_pool_member *b, size_t n_b)
{
	if (n_a != n_b)
		return false;
	for (size_t i = 0; i < n_a; i++)
		if (!equal(&a[i], &b[i]))
			return false;
	return true;
}

struct bt_pool_member *bt_members_copy(
	struct bt_arena *a, const struct bt_pool_member *members, size_t n)
{
	struct bt_pool_member *copy = BT_ARENA_ARRAY(a, struct bt_pool_member, n + 1);
	for (size_t i = 0; i < n; i++) {
		copy[i] = members[i];
		copy[i].address = bt_arena_strdup(a, members[i].address);
		copy[i].slot = bt_arena_strdup(a, members[i].slot);
		copy[i].host = bt_arena_strdup(a, members[i].host);
	}
	return copy;
}

struct bt_seen_member *bt_members_seen_copy(
	struct bt_arena *a, const struct bt_seen_member *members, size_t n)
{
	struct bt_seen_member *copy = BT_ARENA_ARRAY(a, struct bt_seen_member, n + 1);
	for (size_t i = 0; i < n; i++) {
		copy[i] = members[i];
		copy[i].address = bt_arena_strdup(a, members[i].address);
		copy[i].slot = bt_arena_strdup(a, members[i].slot);
		copy[i].host = bt_arena_strdup(a, members[i].host);
	}
	return copy;
}

json_t *bt_members_to_json(const struct bt_pool_member *members, size_t n)
{
	json_t *list = json_array();
	for (size_t i = 0; i < n; i++) {
		const struct bt_pool_member *m = &members[i];
		json_t *o = json_pack("{s:s, s:i, s:s, s:s, s:b}", "address", m->address, "port",
			(int)m->port, "slot", m->slot, "host", m->host, "in", (int)m->in);
		if (m->one)
			json_object_set_new(o, "one", json_true());
		if (m->comes)
			json_object_set_new(o, "comes", json_true());
		json_array_append_new(list, o);
	}
	return list;
}

static int from_json(
	const json_t *j, struct bt_arena *a, struct bt_pool_member *ret, struct bt_err *err)
{
	int64_t port = 0;
	int r = bt_json_text(j, "address", TEXT_MAX, a, &ret->address, err);
	if (r == 0)
		r = bt_json_text(j, "slot", TEXT_MAX, a, &ret->slot, err);
	if (r == 0)
		r = bt_json_text(j, "host", TEXT_MAX, a, &ret->host, err);
	if (r == 0)
		r = bt_json_bool(j, "in", &ret->in, err);
	if (r == 0)
		r = bt_json_bool_opt(j, "one", &ret->one, err);
	if (r == 0)
		r = bt_json_bool_opt(j, "comes", &ret->comes, err);
	if (r == 0)
		r = bt_json_int(j, "port", 1, 65535, &port, err);
	ret->port = (uint16_t)port;
	return r;
}

int bt_members_from_json(const json_t *object, const char *key, struct bt_arena *a,
	const struct bt_pool_member **ret, size_t *ret_n, struct bt_err *err)
{
	json_t *list = NULL;
	size_t n = 0;
	int r = bt_json_list(object, key, BT_MEMBERS_MAX, &list, &n, err);
	if (r < 0)
		return r;
	struct bt_pool_member *members = BT_ARENA_ARRAY(a, struct bt_pool_member, n + 1);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = from_json(json_array_get(list, i), a, &members[i], err);
	if (r < 0)
		return r;
	*ret = members;
	*ret_n = n;
	return 0;
}
