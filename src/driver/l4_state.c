#include "driver/l4_state.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "config/config.h"
#include "driver/members.h"

#include <errno.h>
#include <string.h>

#define STATE_VERSION 1
#define STATE_MAX (4u << 20)
#define HELD_MAX 8192

struct bt_l4_state *bt_l4_state_new(const char *service, const char *balancer)
{
	struct bt_arena *a = bt_arena_new();
	struct bt_l4_state *s = BT_ARENA_NEW(a, struct bt_l4_state);
	s->arena = a;
	s->service = bt_arena_strdup(a, service);
	s->balancer = bt_arena_strdup(a, balancer);
	return s;
}

struct bt_l4_state *bt_l4_state_free(struct bt_l4_state *s)
{
	if (s)
		bt_arena_free(s->arena);
	return NULL;
}

void bt_l4_state_hold(struct bt_l4_state *s, const char *const *slots, size_t n)
{
	const char **held = BT_ARENA_ARRAY(s->arena, const char *, n + 1);
	for (size_t i = 0; i < n; i++)
		held[i] = bt_arena_strdup(s->arena, slots[i]);
	s->held = held;
	s->n_held = n;
}

static bool is_held(const struct bt_l4_state *s, const char *slot)
{
	for (size_t i = 0; i < s->n_held; i++)
		if (bt_streq(s->held[i], slot))
			return true;
	return false;
}

const struct bt_pool_member *bt_l4_state_effective(struct bt_l4_state *s, const char *host)
{
	const struct bt_l4_wish *c = &s->confirmed;
	struct bt_pool_member *members =
		BT_ARENA_ARRAY(s->arena, struct bt_pool_member, c->n_members + 1);
	for (size_t i = 0; i < c->n_members; i++) {
		members[i] = c->members[i];
		if (bt_streq(members[i].host, host) && is_held(s, members[i].slot))
			members[i].in = false;
	}
	return members;
}

/* ---- in ----------------------------------------------------------------------------------- */

static int take_config(
	struct bt_l4_state *s, struct bt_l4_wish *w, const json_t *config, struct bt_err *err)
{
	struct bt_config *c = NULL;
	int r = bt_config_service_from_json(config, &c, err);
	if (r < 0)
		return r;
	const struct bt_service *service = &c->services[0];
	bt_arena_adopt(s->arena, c->arena);
	if (!service->l4)
		return bt_err_set(err, BT_E_PROTOCOL, "config: no balancer of this kind");
	w->service = service;
	return 0;
}

int bt_l4_wish_set(struct bt_l4_state *s, struct bt_l4_wish *ret, const struct bt_pool *pool,
	struct bt_err *err)
{
	BT_JSON json_t *config = bt_config_service_to_json(pool->service);
	struct bt_l4_wish w = {.generation = pool->generation,
		.members = bt_members_copy(s->arena, pool->members, pool->n_members),
		.n_members = pool->n_members};
	int r = take_config(s, &w, config, err);
	if (r == 0)
		*ret = w;
	return r;
}

static int wish_from_json(
	const json_t *j, struct bt_l4_state *s, struct bt_l4_wish *ret, struct bt_err *err)
{
	int64_t generation = 0;
	json_t *config = NULL;
	int r = bt_json_int(j, "generation", 0, INT64_MAX, &generation, err);
	ret->generation = (uint64_t)generation;
	if (r == 0)
		r = bt_members_from_json(
			j, "members", s->arena, &ret->members, &ret->n_members, err);
	if (r == 0)
		r = bt_json_object(j, "config", &config, err);
	return r == 0 ? take_config(s, ret, config, err) : r;
}

static int held_from_json(const json_t *j, struct bt_l4_state *s, struct bt_err *err)
{
	json_t *list = NULL;
	if (!json_object_get(j, "held"))
		return 0;
	size_t n = 0;
	int r = bt_json_list(j, "held", HELD_MAX, &list, &n, err);
	if (r < 0)
		return r;
	BT_FREE const char **slots = bt_calloc(n + 1, sizeof *slots);
	for (size_t i = 0; i < n; i++)
		if (!(slots[i] = json_string_value(json_array_get(list, i))))
			return bt_err_set(err, BT_E_PROTOCOL, "held: names of slots expected");
	bt_l4_state_hold(s, slots, n);
	return 0;
}

static int state_from_json(const json_t *j, struct bt_l4_state *s, struct bt_err *err)
{
	int64_t version = 0, epoch = 0;
	const char *service = NULL, *balancer = NULL;
	json_t *wish;
	int r = bt_json_int(j, "version", STATE_VERSION, STATE_VERSION, &version, err);
	if (r == 0)
		r = bt_json_str(j, "service", &service, err);
	if (r == 0)
		r = bt_json_str(j, "balancer", &balancer, err);
	if (r == 0) /* any 64 bits, as a signed number */
		r = bt_json_int(j, "epoch", INT64_MIN, INT64_MAX, &epoch, err);
	if (r == 0 && (wish = json_object_get(j, "confirmed"))) {
		r = wish_from_json(wish, s, &s->confirmed, err);
		s->has_confirmed = r == 0;
	}
	if (r == 0 && (wish = json_object_get(j, "pending"))) {
		r = wish_from_json(wish, s, &s->pending, err);
		s->has_pending = r == 0;
	}
	if (r == 0)
		r = held_from_json(j, s, err);
	s->service = bt_arena_strdup(s->arena, service);
	s->balancer = bt_arena_strdup(s->arena, balancer);
	s->epoch = (uint64_t)epoch;
	return r;
}

int bt_l4_state_parse(const char *text, size_t n, struct bt_l4_state **ret, struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	int r = bt_json_parse(text, n, STATE_MAX, &j, err);
	if (r < 0)
		return r;
	struct bt_l4_state *s = bt_l4_state_new(NULL, NULL);
	r = state_from_json(j, s, err);
	if (r < 0) {
		bt_l4_state_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* ---- out ---------------------------------------------------------------------------------- */

static json_t *wish_to_json(const struct bt_l4_wish *w)
{
	return json_pack("{s:I, s:o, s:o}", "generation", (json_int_t)w->generation, "members",
		bt_members_to_json(w->members, w->n_members), "config",
		bt_config_service_to_json(w->service));
}

char *bt_l4_state_dump(const struct bt_l4_state *s)
{
	BT_JSON json_t *j = json_pack("{s:i, s:s, s:s, s:I}", "version", STATE_VERSION, "service",
		s->service, "balancer", s->balancer, "epoch", (json_int_t)s->epoch);
	json_t *held = json_array();
	for (size_t i = 0; i < s->n_held; i++)
		json_array_append_new(held, json_string(s->held[i]));
	json_object_set_new(j, "held", held);
	if (s->has_confirmed)
		json_object_set_new(j, "confirmed", wish_to_json(&s->confirmed));
	if (s->has_pending)
		json_object_set_new(j, "pending", wish_to_json(&s->pending));
	return bt_json_dump(j);
}

struct bt_l4_state *bt_l4_state_copy(const struct bt_l4_state *s)
{
	struct bt_l4_state *copy = NULL;
	BT_FREE char *text = bt_l4_state_dump(s);
	if (bt_l4_state_parse(text, strlen(text), &copy, NULL) < 0)
		abort(); /* what we wrote can be read */
	return copy;
}

/* ---- the file ----------------------------------------------------------------------------- */

int bt_l4_state_save(const struct bt_l4_state *s, const char *path, struct bt_err *err)
{
	if (!s->has_confirmed && !s->has_pending)
		return bt_fs_remove(path, err);
	BT_FREE char *dir = bt_strdup(path);
	*strrchr(dir, '/') = 0;
	int r = bt_fs_mkdirs(dir, 0700, err);
	if (r < 0)
		return r;
	BT_FREE char *text = bt_l4_state_dump(s);
	return bt_fs_write_atomic(path, text, strlen(text), 0600, err);
}

int bt_l4_state_load(const char *path, struct bt_l4_state **ret, struct bt_err *err)
{
	BT_FREE char *text = NULL;
	size_t n = 0;
	int r = bt_fs_read(path, STATE_MAX, &text, &n, err);
	if (r == -ENOENT) {
		bt_err_clear(err);
		return 1;
	}
	if (r == 0)
		r = bt_l4_state_parse(text, n, ret, err);
	return r < 0 ? bt_err_wrap(err, "%s", path) : 0;
}
