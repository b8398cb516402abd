#include "driver/l4_ipvs_memory.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

#include <errno.h>
#include <string.h>

#define MEMORY_VERSION 1
#define MEMORY_MAX (1u << 20)
#define KNOWN_MAX 16384

/* ---- text ------------------------------------------------------------------------------------ */

char *bt_ipvs_memory_dump(const struct bt_ipvs_memory *m)
{
	char text[46];
	json_t *list = json_array();
	for (size_t i = 0; i < m->n; i++) {
		const struct bt_ipvs_known *k = &m->list[i];
		json_array_append_new(list, json_pack("{s:s, s:i, s:I, s:b, s:b}", "address",
						    bt_ipvs_address_text(&k->address, text), "port",
						    (int)k->port, "weight", (json_int_t)k->weight,
						    "out", (int)k->out, "made", (int)k->made));
	}
	BT_JSON json_t *j = json_pack("{s:i, s:o}", "version", MEMORY_VERSION, "servers", list);
	if (m->vip.family)
		json_object_set_new(j, "service",
			json_pack("{s:s, s:i, s:b}", "address", bt_ipvs_address_text(&m->vip, text),
				"port", (int)m->port, "adopted", (int)m->adopted));
	return bt_json_dump(j);
}

static int place_from_json(
	const json_t *j, struct bt_ipvs_address *address, uint16_t *ret_port, struct bt_err *err)
{
	const char *text = NULL;
	int64_t port = 0;
	int r = bt_json_str(j, "address", &text, err);
	if (r == 0)
		r = bt_json_int(j, "port", 0, 65535, &port, err);
	if (r == 0)
		r = bt_ipvs_address_parse(text, address, err);
	*ret_port = (uint16_t)port;
	return r;
}

static int known_from_json(const json_t *j, struct bt_ipvs_known *ret, struct bt_err *err)
{
	int r = place_from_json(j, &ret->address, &ret->port, err);
	if (r == 0)
		r = bt_json_int(j, "weight", 0, INT32_MAX, &ret->weight, err);
	if (r == 0)
		r = bt_json_bool(j, "made", &ret->made, err);
	ret->out = ret->weight > 0; /* as older agents meant it, who did not write it */
	return r == 0 ? bt_json_bool_opt(j, "out", &ret->out, err) : r;
}

static int service_from_json(const json_t *j, struct bt_ipvs_memory *ret, struct bt_err *err)
{
	json_t *service = NULL;
	if (!json_object_get(j, "service")) /* older agents did not write it */
		return 0;
	int r = bt_json_object(j, "service", &service, err);
	if (r == 0)
		r = place_from_json(service, &ret->vip, &ret->port, err);
	return r == 0 ? bt_json_bool(service, "adopted", &ret->adopted, err) : r;
}

int bt_ipvs_memory_parse(const char *text, size_t n, struct bt_arena *a, struct bt_ipvs_memory *ret,
	struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	json_t *list = NULL;
	int64_t version;
	struct bt_ipvs_memory m = {0};
	int r = bt_json_parse(text, n, MEMORY_MAX, &j, err);
	if (r == 0)
		r = bt_json_int(j, "version", 1, MEMORY_VERSION, &version, err);
	if (r == 0)
		r = bt_json_array(j, "servers", &list, err);
	if (r == 0)
		r = service_from_json(j, &m, err);
	if (r < 0)
		return r;
	m.n = json_array_size(list);
	if (m.n > KNOWN_MAX)
		return bt_err_set(err, BT_E_CORRUPT, "more than %d real servers", KNOWN_MAX);
	struct bt_ipvs_known *known = BT_ARENA_ARRAY(a, struct bt_ipvs_known, m.n + 1);
	for (size_t i = 0; r == 0 && i < m.n; i++)
		r = known_from_json(json_array_get(list, i), &known[i], err);
	m.list = known;
	if (r == 0)
		*ret = m;
	return r;
}

/* ---- the file -------------------------------------------------------------------------------- */

int bt_ipvs_memory_load(
	const char *path, struct bt_arena *a, struct bt_ipvs_memory *ret, struct bt_err *err)
{
	BT_FREE char *text = NULL;
	size_t n = 0;
	int r = bt_fs_read(path, MEMORY_MAX, &text, &n, err);
	if (r == -ENOENT) {
		bt_err_clear(err);
		*ret = (struct bt_ipvs_memory){0};
		return 0;
	}
	if (r == 0)
		r = bt_ipvs_memory_parse(text, n, a, ret, err);
	return r < 0 ? bt_err_wrap(err, "%s", path) : 0;
}

int bt_ipvs_memory_save(const char *path, const struct bt_ipvs_memory *m, struct bt_err *err)
{
	BT_FREE char *text = bt_ipvs_memory_dump(m);
	BT_FREE char *dir = bt_strdup(path);
	char *slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	int r = bt_fs_mkdirs(dir, 0700, err);
	return r < 0 ? r : bt_fs_write_atomic(path, text, strlen(text), 0600, err);
}

/* ---- questions ------------------------------------------------------------------------------- */

static bool known_equal(const struct bt_ipvs_known *a, const struct bt_ipvs_known *b)
{
	return a->port == b->port && a->weight == b->weight && a->out == b->out &&
	       a->made == b->made && bt_ipvs_address_equal(&a->address, &b->address);
}

bool bt_ipvs_memory_equal(const struct bt_ipvs_memory *a, const struct bt_ipvs_memory *b)
{
	if (a->n != b->n || a->port != b->port || a->adopted != b->adopted ||
		!bt_ipvs_address_equal(&a->vip, &b->vip))
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!known_equal(&a->list[i], &b->list[i]))
			return false;
	return true;
}

const struct bt_ipvs_known *bt_ipvs_memory_at(
	const struct bt_ipvs_memory *m, const struct bt_ipvs_address *address, uint16_t port)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->list[i].port == port && bt_ipvs_address_equal(&m->list[i].address, address))
			return &m->list[i];
	return NULL;
}

void bt_ipvs_memory_keep(struct bt_ipvs_memory *m, const struct bt_ipvs_service *service)
{
	if (m->vip.family &&
		(m->port != service->port || !bt_ipvs_address_equal(&m->vip, &service->address)))
		*m = (struct bt_ipvs_memory){0};
}

bool bt_ipvs_memory_adopted(const struct bt_ipvs_memory *m, bool there)
{
	if (m->vip.family)
		return m->adopted;
	for (size_t i = 0; i < m->n; i++)
		if (m->list[i].made)
			return false;
	return there;
}
