/* What nft lists, read back into what baton wrote: others may have changed it, so nothing is taken
 * for granted, and what the rules do counts, not what they are called. */
#include "driver/l4_nft.h"

#include "base/json.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <string.h>

#define MAX_NAMES 20000 /* of chains and sets; a service has at most 8192 members */

bool bt_nft_same_address(const char *a, const char *b)
{
	unsigned char x[16], y[16];
	for (int family = AF_INET;; family = AF_INET6) {
		if (inet_pton(family, a, x) == 1)
			return inet_pton(family, b, y) == 1 &&
			       memcmp(x, y, family == AF_INET ? 4 : 16) == 0;
		if (family == AF_INET6)
			return false;
	}
}

static int objects(
	const char *text, size_t n, json_t **ret_doc, json_t **ret_list, struct bt_err *err)
{
	json_t *doc = NULL;
	int r = bt_json_parse(text, n, BT_NFT_LISTING_MAX, &doc, err);
	if (r == 0)
		r = bt_json_array(doc, "nftables", ret_list, err);
	if (r < 0) {
		json_decref(doc);
		return bt_err_wrap(err, "what nft lists");
	}
	*ret_doc = doc;
	return 0;
}

static const char *text_of(const json_t *o, const char *key)
{
	const char *t = json_string_value(json_object_get(o, key));
	return t ? t : "";
}

int bt_nft_tables_read(const char *text, size_t n, const struct bt_service *s,
	struct bt_nft_found *ret, struct bt_err *err)
{
	BT_JSON json_t *doc = NULL;
	json_t *list, *item;
	size_t i;
	char name[BT_NFT_NAME_MAX];
	int r = objects(text, n, &doc, &list, err);
	if (r < 0)
		return r;
	struct bt_nft_found found = {0};
	enum bt_nft_family own = bt_nft_family_of(s->l4);
	bt_nft_table_name(s->name, name);
	json_array_foreach (list, i, item) {
		const json_t *t = json_object_get(item, "table");
		if (strcmp(text_of(t, "name"), name) != 0)
			continue;
		for (int f = 0; f < BT_NFT_FAMILIES; f++) {
			if (strcmp(text_of(t, "family"),
				    bt_nft_family_name((enum bt_nft_family)f)) != 0)
				continue;
			json_int_t handle = json_integer_value(json_object_get(t, "handle"));
			if (f != (int)own)
				found.others[f] = true;
			else if (handle > 0)
				found.handle = (uint64_t)handle;
		}
	}
	*ret = found;
	return 0;
}

/* ---- one table ------------------------------------------------------------------------------- */

struct listing {
	const json_t *list, *choices;
	const struct bt_l4 *l4;
	struct bt_arena *arena;
	struct bt_nft_found *found;
};

/* The listed things of a kind, from *i on; NULL at the end. */
static const json_t *next(const struct listing *l, const char *kind, size_t *i)
{
	while (*i < json_array_size(l->list)) {
		const json_t *o = json_object_get(json_array_get(l->list, (*i)++), kind);
		if (json_is_object(o))
			return o;
	}
	return NULL;
}

/* The part of a rule of that name, such as "dnat"; NULL: it has none. */
static const json_t *part(const json_t *rule, const char *name)
{
	const json_t *list = json_object_get(rule, "expr");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *o = json_object_get(json_array_get(list, i), name);
		if (o)
			return o;
	}
	return NULL;
}

static bool matches(const json_t *rule, const char *field, const char *address, json_int_t number)
{
	const json_t *list = json_object_get(rule, "expr");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *m = json_object_get(json_array_get(list, i), "match");
		const json_t *left = json_object_get(json_object_get(m, "left"), "payload");
		const json_t *right = json_object_get(m, "right");
		if (strcmp(text_of(left, "field"), field) != 0 ||
			strcmp(text_of(m, "op"), "==") != 0)
			continue;
		return address ? json_is_string(right) &&
					 bt_nft_same_address(json_string_value(right), address)
			       : json_integer_value(right) == number;
	}
	return false;
}

static bool has_hook(const struct listing *l, const char *chain, const char *hook)
{
	size_t i = 0;
	for (const json_t *c; (c = next(l, "chain", &i));)
		if (strcmp(text_of(c, "name"), chain) == 0)
			return strcmp(text_of(c, "hook"), hook) == 0;
	return false;
}

/* Whether a hook's chain hands the VIP's packets on. */
static bool leads(const struct listing *l)
{
	bool dsr = l->l4->mode == BT_L4_DSR;
	char chain[BT_NFT_NAME_MAX] = "prerouting";
	size_t i = 0;
	if (dsr)
		bt_nft_ingress_name(l->l4->nftables.interface, chain);
	for (const json_t *r; (r = next(l, "rule", &i));)
		if (strcmp(text_of(r, "chain"), chain) == 0 && matches(r, "daddr", l->l4->vip, 0) &&
			matches(r, "dport", NULL, l->l4->port) &&
			strcmp(text_of(part(r, "goto"), "target"),
				dsr ? "service" : BT_NFT_CHOOSE) == 0)
			return has_hook(l, chain, dsr ? "ingress" : "prerouting");
	return false;
}

/* Who may be chosen for a new connection: [[0, {"goto": …}], …]. */
static const json_t *choices(const struct listing *l)
{
	size_t i = 0;
	for (const json_t *r; (r = next(l, "rule", &i));)
		if (strcmp(text_of(r, "chain"), BT_NFT_CHOOSE) == 0)
			return json_object_get(json_object_get(part(r, "vmap"), "data"), "set");
	return NULL;
}

static bool is_chosen(const struct listing *l, const char *chain)
{
	for (size_t i = 0; i < json_array_size(l->choices); i++) {
		const json_t *verdict = json_array_get(json_array_get(l->choices, i), 1);
		if (strcmp(text_of(json_object_get(verdict, "goto"), "target"), chain) == 0)
			return true;
	}
	return false;
}

static void add_member(struct listing *l, const json_t *rule, struct bt_seen_member *m)
{
	const json_t *to = part(rule, l->l4->mode == BT_L4_DSR ? "fwd" : "dnat");
	const char *address = text_of(to, "addr");
	json_int_t port = l->l4->mode == BT_L4_DSR
				  ? l->l4->port
				  : json_integer_value(json_object_get(to, "port"));
	if (!*address || port < 1 || port > UINT16_MAX)
		return;
	*m = (struct bt_seen_member){.address = bt_arena_strdup(l->arena, address),
		.port = (uint16_t)port,
		.in = l->found->leads && is_chosen(l, text_of(rule, "chain"))};
	l->found->n_members++;
}

static size_t names(const struct listing *l, const char *kind, const char ***ret)
{
	size_t i = 0, n = 0;
	while (next(l, kind, &i))
		n++;
	const char **list = BT_ARENA_ARRAY(l->arena, const char *, n + 1);
	i = n = 0;
	for (const json_t *o; (o = next(l, kind, &i));)
		if (*text_of(o, "name"))
			list[n++] = bt_arena_strdup(l->arena, text_of(o, "name"));
	*ret = list;
	return n;
}

int bt_nft_table_read(const char *text, size_t n, const struct bt_service *s, struct bt_arena *a,
	struct bt_nft_found *ret, struct bt_err *err)
{
	BT_JSON json_t *doc = NULL;
	json_t *list;
	int r = objects(text, n, &doc, &list, err);
	if (r < 0)
		return r;
	if (json_array_size(list) > MAX_NAMES * 8)
		return bt_err_set(err, BT_E_PROTOCOL,
			"what nft lists: more than %d things in one table", MAX_NAMES * 8);
	struct listing l = {list, NULL, s->l4, a, ret};
	size_t i = 0, n_rules = 0;
	ret->n_chains = names(&l, "chain", &ret->chains);
	ret->n_sets = names(&l, "set", &ret->sets);
	l.choices = choices(&l);
	ret->leads = leads(&l);
	while (next(&l, "rule", &i))
		n_rules++;
	ret->members = BT_ARENA_ARRAY(a, struct bt_seen_member, n_rules + 1);
	ret->n_members = 0;
	i = 0;
	for (const json_t *rule; (rule = next(&l, "rule", &i));)
		if (bt_str_starts(text_of(rule, "chain"), BT_NFT_CHAIN_PREFIX))
			add_member(&l, rule, &ret->members[ret->n_members]);
	return 0;
}
