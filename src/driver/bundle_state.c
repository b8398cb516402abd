/* What is known of bundles on this host, on disk. state.json is replaced as a whole; the clean-up
 * list is a kind and a path, each ended by NUL, since a path may hold anything else. */
#include "driver/bundle_state.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

#define STATE_MAX (1u << 20)
#define LIST_MAX (256u << 20)

char *bt_bundle_dir(const char *state_dir, const char *service)
{
	return bt_asprintf("%s/bundles/%s", state_dir, service);
}

/* ---- the last revision ------------------------------------------------------------------- */

static int read_json(const char *path, json_t **ret, struct bt_err *err)
{
	BT_FREE char *text = NULL;
	size_t n;
	*ret = NULL;
	if (!bt_fs_exists(path))
		return 0;
	int r = bt_fs_read(path, STATE_MAX, &text, &n, err);
	return r < 0 ? r : bt_json_parse(text, n, STATE_MAX, ret, err);
}

/* A file that names no slots means all of them. */
static bool is_named(const json_t *slots, const char *slot)
{
	const json_t *one;
	size_t i;
	json_array_foreach ((json_t *)slots, i, one)
		if (bt_streq(json_string_value(one), slot))
			return true;
	return !slots;
}

int bt_bundle_state_read(const char *state_dir, const char *service, struct bt_arena *a,
	struct bt_bundle_state *ret, struct bt_err *err)
{
	BT_FREE char *dir = bt_bundle_dir(state_dir, service);
	BT_FREE char *path = bt_asprintf("%s/state.json", dir);
	BT_JSON json_t *j = NULL;
	json_t *slots = NULL, *one;
	const char *slot;
	int64_t installing = 0;
	const json_t *cut_short;
	*ret = (struct bt_bundle_state){0};
	int r = read_json(path, &j, err);
	if (r < 0 || !j)
		return r;
	r = bt_json_int_opt(j, "installing", 0, UINT32_MAX, &installing, err);
	if (r == 0)
		r = bt_json_object(j, "slots", &slots, err);
	if (r < 0)
		return bt_err_wrap(err, "%s", path);
	cut_short = json_object_get(j, "installing_slots");
	struct bt_bundle_last *list =
		BT_ARENA_ARRAY(a, struct bt_bundle_last, json_object_size(slots) + 1);
	json_object_foreach (slots, slot, one) {
		struct bt_bundle_last *l = &list[ret->n_last++];
		const char *version = "";
		int64_t release = 0;
		l->started = true; /* where nothing says else */
		r = bt_json_int(one, "release", 1, UINT32_MAX, &release, err);
		if (r == 0)
			r = bt_json_str(one, "version", &version, err);
		if (r == 0)
			r = bt_json_int_opt(one, "at", 0, INT64_MAX, &l->at_wall_ms, err);
		if (r == 0)
			r = bt_json_bool_opt(one, "started", &l->started, err);
		if (r < 0)
			return bt_err_wrap(err, "%s: slots.%s", path, slot);
		l->slot = bt_arena_strdup(a, slot);
		l->cut_short = installing && installing != release && is_named(cut_short, slot);
		l->release = (uint32_t)release;
		l->version = bt_arena_strdup(a, version);
	}
	ret->last = list;
	ret->installing = (uint32_t)installing;
	return 0;
}

const struct bt_bundle_last *bt_bundle_last(const struct bt_bundle_state *s, const char *slot)
{
	for (size_t i = 0; i < s->n_last; i++)
		if (bt_streq(s->last[i].slot, slot))
			return &s->last[i];
	return NULL;
}

static int read_state(const char *path, json_t **ret, struct bt_err *err)
{
	int r = read_json(path, ret, err);
	if (r == 0 && !*ret)
		*ret = json_pack("{s:i, s:{}}", "version", 1, "slots");
	return r;
}

static int write_state(const char *path, const json_t *j, struct bt_err *err)
{
	BT_FREE char *text = bt_json_dump(j);
	return bt_fs_write_atomic(path, text, strlen(text), 0600, err);
}

/* The files of what runs already may be put there again: it still runs that one. */
static void installed(json_t *slots, const char *slot, const struct bt_bundle_request *rq)
{
	const json_t *was = json_object_get(slots, slot), *said = json_object_get(was, "started");
	bool same = json_integer_value(json_object_get(was, "release")) == (json_int_t)rq->release;
	bool started = same && (!said || json_is_true(said));
	json_object_set_new(slots, slot,
		json_pack("{s:I, s:s, s:I, s:b}", "release", (json_int_t)rq->release, "version",
			rq->version, "at", (json_int_t)bt_clock_wall_ms(), "started", started));
}

/* The state as it is, changed: `installing`, and the slots' last one where it has ended. */
static int change(
	const char *state_dir, const struct bt_bundle_request *rq, bool ended, struct bt_err *err)
{
	BT_FREE char *dir = bt_bundle_dir(state_dir, rq->service);
	BT_FREE char *path = bt_asprintf("%s/state.json", dir);
	BT_JSON json_t *j = NULL;
	int r = bt_fs_mkdirs(dir, 0700, err);
	if (r == 0)
		r = read_state(path, &j, err);
	if (r < 0)
		return r;
	json_t *slots = json_object_get(j, "slots"), *names = json_array();
	for (size_t i = 0; i < rq->n_slots; i++) {
		json_array_append_new(names, json_string(rq->slots[i]));
		if (ended)
			installed(slots, rq->slots[i], rq);
	}
	json_object_set_new(j, "installing", json_integer(ended ? 0 : (json_int_t)rq->release));
	json_object_set_new(j, "installing_slots", names);
	return write_state(path, j, err);
}

int bt_bundle_started(const char *state_dir, const char *service, const char *const *slots,
	size_t n_slots, struct bt_err *err)
{
	BT_FREE char *dir = bt_bundle_dir(state_dir, service);
	BT_FREE char *path = bt_asprintf("%s/state.json", dir);
	BT_JSON json_t *j = NULL;
	int r = read_state(path, &j, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_slots; i++) {
		json_t *one = json_object_get(json_object_get(j, "slots"), slots[i]);
		if (one)
			json_object_set_new(one, "started", json_true());
	}
	r = bt_fs_mkdirs(dir, 0700, err);
	return r < 0 ? r : write_state(path, j, err);
}

int bt_bundle_state_begin(
	const char *state_dir, const struct bt_bundle_request *rq, struct bt_err *err)
{
	return change(state_dir, rq, false, err);
}

int bt_bundle_state_end(
	const char *state_dir, const struct bt_bundle_request *rq, struct bt_err *err)
{
	return change(state_dir, rq, true, err);
}

void bt_bundle_state_tidy(const char *state_dir, const char *service)
{
	BT_FREE char *dir = bt_bundle_dir(state_dir, service);
	BT_FREE char *path = bt_asprintf("%s/state.json", dir);
	bt_fs_remove_aside(path);
}

/* ---- the clean-up list ------------------------------------------------------------------- */

void bt_cleanup_add(struct bt_cleanup *c, const char *path, bool directory)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 64;
		struct bt_cleanup_entry *more =
			BT_ARENA_ARRAY(c->arena, struct bt_cleanup_entry, c->cap);
		if (c->n)
			memcpy(more, c->items, c->n * sizeof *more);
		c->items = more;
	}
	c->items[c->n++] = (struct bt_cleanup_entry){bt_arena_strdup(c->arena, path), directory};
}

static int by_path(const void *a, const void *b)
{
	const struct bt_cleanup_entry *x = a, *y = b;
	int r = strcmp(x->path, y->path);
	return r ? r : (int)x->directory - (int)y->directory;
}

void bt_cleanup_sort(struct bt_cleanup *c)
{
	size_t n = 0;
	if (c->n)
		qsort(c->items, c->n, sizeof *c->items, by_path);
	for (size_t i = 0; i < c->n; i++)
		if (n == 0 || by_path(&c->items[n - 1], &c->items[i]) != 0)
			c->items[n++] = c->items[i];
	c->n = n;
}

bool bt_cleanup_has(const struct bt_cleanup *c, const char *path, bool directory)
{
	struct bt_cleanup_entry key = {path, directory};
	return c->n && bsearch(&key, c->items, c->n, sizeof key, by_path);
}

bool bt_cleanup_above(const struct bt_cleanup *c, const char *path)
{
	BT_FREE char *part = bt_strdup(path);
	bool found = false;
	for (char *slash; c->n && !found && (slash = strrchr(part, '/')) && slash > part;) {
		*slash = 0;
		found = bt_cleanup_has(c, part, false);
	}
	return found;
}

int bt_cleanup_read(const char *file, struct bt_cleanup *ret, struct bt_err *err)
{
	BT_FREE char *text = NULL;
	size_t n = 0;
	if (!bt_fs_exists(file))
		return 0;
	int r = bt_fs_read(file, LIST_MAX, &text, &n, err);
	for (size_t at = 0; r == 0 && at < n;) {
		size_t len = strlen(text + at);
		if (at + len == n || (text[at] != 'f' && text[at] != 'd') || text[at + 1] != '/')
			r = bt_err_set(err, BT_E_CORRUPT, "%s: not a list of files", file);
		else
			bt_cleanup_add(ret, text + at + 1, text[at] == 'd');
		at += len + 1;
	}
	bt_cleanup_sort(ret);
	return r;
}

int bt_cleanup_write(const char *file, const struct bt_cleanup *c, struct bt_err *err)
{
	BT_STR struct bt_str text = {0};
	for (size_t i = 0; i < c->n; i++) {
		bt_str_addc(&text, c->items[i].directory ? 'd' : 'f');
		bt_str_addn(&text, c->items[i].path, strlen(c->items[i].path) + 1);
	}
	return bt_fs_write_atomic(file, bt_str_get(&text), text.len, 0600, err);
}
