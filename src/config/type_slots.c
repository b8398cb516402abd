/* Slots and their ports. A slot is a number, or a map of named ports of which `port` is the first:
 * where requests go, and what {port} is. */
#include "config/keys.h"

#include "base/str.h"

#include <ctype.h>
#include <string.h>

#define FIRST "port"

static const char expected[] = "a port, or ports by name such as {port: 8081, management: 9081}";

size_t bt_port_name_len(const char *t)
{
	return islower((unsigned char)*t) ? strspn(t, "abcdefghijklmnopqrstuvwxyz0123456789_-") : 0;
}

static bool port_name(const char *t)
{
	return *t && strlen(t) <= 31 && !t[bt_port_name_len(t)];
}

static bool number(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, uint16_t *ret)
{
	const struct bt_key range = {.path = k->path, .min = 1, .max = 65535};
	int64_t v;
	if (!bt_reading_whole(r, &range, n, &v))
		return false;
	*ret = (uint16_t)v;
	return true;
}

static bool read_ports(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_slot *slot)
{
	if (n->kind == BT_NODE_SCALAR)
		return number(r, k, n, &slot->port);
	if (n->kind != BT_NODE_MAP || n->n > BT_SLOT_PORTS + 1 || !bt_node_get(n, FIRST)) {
		bt_reading_wrong(r, k, n, expected);
		return false;
	}
	struct bt_port *more = BT_ARENA_ARRAY(r->arena, struct bt_port, n->n);
	for (size_t i = 0; i < n->n; i++) {
		const char *name = n->keys[i]->text;
		if (bt_streq(name, FIRST)) {
			if (!number(r, k, n->items[i], &slot->port))
				return false;
			continue;
		}
		if (!port_name(name)) {
			bt_reading_wrong(r, k, n->keys[i],
				"a port's name of a-z, 0-9, '_' and '-' that begins with a letter, "
				"at most 31");
			return false;
		}
		struct bt_port *p = &more[slot->n_more];
		if (!number(r, k, n->items[i], &p->number))
			return false;
		p->name = bt_arena_strdup(r->arena, name);
		slot->n_more++;
	}
	slot->more = more;
	return true;
}

/* The name of the slot's port of this number; NULL: none. "" is the first one. */
static const char *has_port(const struct bt_slot *s, uint16_t port)
{
	if (s->port == port)
		return "";
	for (size_t i = 0; i < s->n_more; i++)
		if (s->more[i].number == port)
			return s->more[i].name;
	return NULL;
}

static void same_port(struct bt_reading *r, const struct bt_key *k, const struct bt_node *at,
	const struct bt_slot *a, const struct bt_slot *b, uint16_t port)
{
	if (has_port(a, port))
		bt_problem(r->sink, at, "%s: slots %s and %s have the same port %u", k->path,
			a->name, b->name, port);
}

static void compare(struct bt_reading *r, const struct bt_key *k, const struct bt_node *at,
	const struct bt_slot *earlier, const struct bt_slot *later)
{
	same_port(r, k, at, earlier, later, later->port);
	for (size_t i = 0; i < later->n_more; i++)
		same_port(r, k, at, earlier, later, later->more[i].number);
	bool same = earlier->n_more == later->n_more;
	for (size_t i = 0; same && i < later->n_more; i++)
		same = bt_slot_port(earlier, later->more[i].name) != 0;
	if (!same)
		bt_problem(r->sink, at,
			"%s: slots %s and %s name different ports: expected the "
			"same names in every slot",
			k->path, earlier->name, later->name);
}

static void within(struct bt_reading *r, const struct bt_key *k, const struct bt_node *at,
	const struct bt_slot *s)
{
	for (size_t i = 0; i < s->n_more; i++) {
		struct bt_slot before = *s;
		before.n_more = i;
		if (has_port(&before, s->more[i].number))
			bt_problem(r->sink, at, "%s: slot %s has port %u twice", k->path, s->name,
				s->more[i].number);
	}
}

static void read_slots(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_MAP || n->n == 0 || n->n > 100) {
		bt_reading_wrong(
			r, k, n, "a map of slot names to ports such as {blue: 8081, green: 8082}");
		return;
	}
	struct bt_slot *list = BT_ARENA_ARRAY(r->arena, struct bt_slot, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++) {
		struct bt_slot slot = {0};
		if (!bt_name_valid(n->keys[i]->text)) {
			bt_reading_wrong(r, k, n->keys[i],
				"a slot name of letters, digits, '.', '_' and '-', at most 63");
			continue;
		}
		slot.name = bt_arena_strdup(r->arena, n->keys[i]->text);
		if (!read_ports(r, k, n->items[i], &slot))
			continue;
		within(r, k, n->items[i], &slot);
		for (size_t j = 0; j < used; j++)
			compare(r, k, n->items[i], &list[j], &slot);
		list[used++] = slot;
	}
	*(const struct bt_slot **)field = list;
	*(size_t *)count = used;
}

static json_t *write_slots(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_slot *list = *(const struct bt_slot *const *)field;
	json_t *o = json_object();
	for (size_t i = 0; i < *(const size_t *)count; i++) {
		json_t *ports = json_integer(list[i].port);
		if (list[i].n_more)
			ports = json_pack("{s:o}", FIRST, ports);
		for (size_t m = 0; m < list[i].n_more; m++)
			json_object_set_new(
				ports, list[i].more[m].name, json_integer(list[i].more[m].number));
		json_object_set_new(o, list[i].name, ports);
	}
	return o;
}
const struct bt_key_type bt_type_slots = {"slots", read_slots, write_slots};

/* A number, or the name of a port that every slot has; the field is the whole struct bt_health. */
static void read_health_port(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	struct bt_health *h = field;
	(void)count;
	if (n->kind == BT_NODE_SCALAR && port_name(n->text))
		h->port_name = bt_arena_strdup(r->arena, n->text);
	else
		number(r, k, n, &h->port);
}

static json_t *write_health_port(const struct bt_key *k, const void *field, const void *count)
{
	const struct bt_health *h = field;
	(void)k, (void)count;
	return h->port_name ? json_string(h->port_name) : h->port ? json_integer(h->port) : NULL;
}
const struct bt_key_type bt_type_health_port = {"port", read_health_port, write_health_port};

/* ── names of ports elsewhere in the config ── */

static void check_name(
	struct bt_reading *r, const char *path, const struct bt_node *at, const char *name)
{
	const struct bt_slot *s = r->service->run.slots;
	const char *names[BT_SLOT_PORTS];
	if (!r->service->run.n_slots || bt_slot_port(s, name))
		return;
	for (size_t i = 0; i < s->n_more; i++)
		names[i] = s->more[i].name;
	const char *near = bt_nearest(name, names, s->n_more);
	bt_problem(r->sink, at, "%s: no port '%s' in run.slots%s%s%s", path, name,
		near	    ? " (did you mean '"
		: s->n_more ? ""
			    : ", which names none: expected for "
			      "example {blue: {port: 8081, management: 9081}, …}",
		near ? near : "", near ? "'?)" : "");
}

/* Every {port.NAME} below the node. */
static void check_text(struct bt_reading *r, const char *path, const struct bt_node *n)
{
	const char *t = n->kind == BT_NODE_SCALAR ? n->text : "";
	for (size_t len; (len = bt_placeholder_next(&t, NULL)); t += len)
		if (bt_str_starts(t, "{port.")) {
			BT_FREE char *name = bt_strndup(t + 6, len - 7);
			check_name(r, path, n, name);
		}
	for (size_t i = 0; i < n->n; i++)
		check_text(r, path, n->items[i]);
}

void bt_config_check_ports(struct bt_reading *r)
{
	if (r->service->health.port_name)
		check_name(r, "health.port", bt_reading_at(r, "health.port"),
			r->service->health.port_name);
	for (size_t i = 0; i < bt_n_keys; i++)
		if (r->at[i] && (bt_keys[i].placeholders || bt_keys[i].check == bt_check_command ||
					bt_keys[i].type == &bt_type_hooks))
			check_text(r, bt_keys[i].path, r->at[i]);
}
