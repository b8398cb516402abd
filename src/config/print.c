/* Model → JSON by the key table, and JSON → YAML: `lint --print`, what releases store, and the
 * table of docs/config.md. */
#include "config/config.h"

#include "base/str.h"
#include "config/keys.h"

#include <stdio.h>
#include <string.h>

/* ── model → JSON ── */

bool bt_key_applies(const struct bt_service *s, const struct bt_key *k)
{
	enum bt_health_kind health = s->health.kind;
	if (k->in == BT_IN_NGINX && !s->nginx)
		return false;
	if (k->in == BT_IN_L4 && (!s->l4 || s->l4->kind != k->family))
		return false;
	if (s->run.as == BT_RUNTIME_BUNDLE && bt_config_not_for_bundles(k->path))
		return false;
	switch (k->when) {
	case BT_KEY_ADOPT:
		return s->nginx->mode == BT_NGINX_ADOPT;
	case BT_KEY_MANAGED:
		return s->nginx->mode == BT_NGINX_MANAGED;
	case BT_KEY_HTTP:
		return health == BT_HEALTH_HTTP || health == BT_HEALTH_HTTPS;
	case BT_KEY_HTTPS:
		return health == BT_HEALTH_HTTPS;
	case BT_KEY_PROCESS:
		return s->run.as == BT_RUNTIME_PROCESS;
	case BT_KEY_TOMCAT:
		return s->run.as == BT_RUNTIME_TOMCAT;
	case BT_KEY_LOOPBACK:
		return bt_service_has_loopback(s);
	case BT_KEY_BUNDLE:
		return s->run.as == BT_RUNTIME_BUNDLE;
	default:
		return true;
	}
}

/* Puts the value below its path, making the groups on the way. */
static void put(json_t *root, const char *path, json_t *value)
{
	json_t *at = root;
	for (const char *dot; (dot = strchr(path, '.')); path = dot + 1) {
		char name[64];
		snprintf(name, sizeof name, "%.*s", (int)(dot - path), path);
		json_t *next = json_object_get(at, name);
		if (!next) {
			next = json_object();
			json_object_set_new(at, name, next);
		}
		at = next;
	}
	json_object_set_new(at, path, value);
}

json_t *bt_config_service_to_json(const struct bt_service *s)
{
	json_t *root = json_object();
	for (size_t i = 0; i < bt_n_keys; i++) {
		const struct bt_key *k = &bt_keys[i];
		if (!k->type || !bt_key_applies(s, k))
			continue;
		const char *base = k->in == BT_IN_NGINX ? (const char *)s->nginx
				   : k->in == BT_IN_L4	? (const char *)s->l4
							: (const char *)s;
		json_t *value = k->type->write(k, base + k->offset, base + k->count);
		if (value)
			put(root, k->path, value);
	}
	return root;
}

/* ── JSON → YAML ── */

static bool plain(const char *t)
{
	static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "y",
		"n", "True", "False", "Null", "Yes", "No", "On", "Off", "Y", "N", "TRUE", "FALSE",
		"NULL", "YES", "NO", "ON", "OFF"};
	size_t n = strspn(t, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-%");
	size_t digits = strspn(t, "0123456789._");
	if (!*t || t[n] || *t == '-' || *t == '.' || *t == '%' || !t[digits])
		return false;
	/* 1e3 and 0x1f are numbers to other readers of YAML */
	if (digits && strspn(t, "0123456789abcdefABCDEFxXo._-") == n)
		return false;
	for (size_t i = 0; i < BT_ARRAY_LEN(words); i++)
		if (bt_streq(t, words[i]))
			return false;
	return true;
}

/* One character of UTF-8; n is its length. Invalid bytes cannot come from JSON or YAML. */
static uint32_t decode(const char *t, size_t *ret_n)
{
	unsigned char c = (unsigned char)*t;
	size_t n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
	uint32_t v = n == 1 ? c : c & (0x7fu >> n);
	for (size_t i = 1; i < n && t[i]; i++)
		v = v << 6 | ((unsigned char)t[i] & 0x3f);
	*ret_n = strnlen(t, n);
	return v;
}

/* Whether YAML lets the character stand as it is within double quotes, on one line. */
static bool printable(uint32_t v)
{
	return (v >= 0x20 && v <= 0x7e) ||
	       (v >= 0xa0 && v <= 0xd7ff && v != 0x2028 && v != 0x2029) ||
	       (v >= 0xe000 && v <= 0xfffd && v != 0xfeff) || v >= 0x10000;
}

/* "${" in a value must not be taken for a variable when the text is read again. */
static void put_text(struct bt_str *out, const char *t)
{
	if (plain(t)) {
		bt_str_add(out, t);
		return;
	}
	bt_str_addc(out, '"');
	while (*t) {
		size_t n;
		uint32_t v = decode(t, &n);
		if (*t == '$' && t[1] == '{')
			bt_str_add(out, "$$");
		else if (*t == '"' || *t == '\\')
			bt_str_addf(out, "\\%c", *t);
		else if (*t == '\n')
			bt_str_add(out, "\\n");
		else if (*t == '\t')
			bt_str_add(out, "\\t");
		else if (printable(v))
			bt_str_addn(out, t, n);
		else
			bt_str_addf(out, "\\U%08X", v);
		t += n;
	}
	bt_str_addc(out, '"');
}

static void put_flow(struct bt_str *out, const json_t *j)
{
	const char *key;
	const json_t *item;
	size_t i = 0;
	if (json_is_object(j)) {
		bt_str_addc(out, '{');
		json_object_foreach ((json_t *)j, key, item) {
			bt_str_add(out, i++ ? ", " : "");
			put_text(out, key);
			bt_str_add(out, ": ");
			put_flow(out, item);
		}
		bt_str_addc(out, '}');
	} else if (json_is_array(j)) {
		bt_str_addc(out, '[');
		json_array_foreach (j, i, item) {
			bt_str_add(out, i ? ", " : "");
			put_flow(out, item);
		}
		bt_str_addc(out, ']');
	} else if (json_is_string(j))
		put_text(out, json_string_value(j));
	else if (json_is_integer(j))
		bt_str_addf(out, "%lld", (long long)json_integer_value(j));
	else
		bt_str_add(out, json_is_true(j) ? "true" : "false");
}

/* Groups of the key table stand as blocks, everything else on its line. */
static bool is_group(const char *path)
{
	for (size_t i = 0; i < bt_n_keys; i++)
		if (bt_streq(bt_keys[i].path, path))
			return !bt_keys[i].type;
	return false;
}

static void put_block(struct bt_str *out, const json_t *map, const char *parent, int indent)
{
	const char *key;
	const json_t *item;
	json_object_foreach ((json_t *)map, key, item) {
		BT_FREE char *path = bt_asprintf("%s%s%s", parent, *parent ? "." : "", key);
		bt_str_addf(out, "%*s%s:", indent, "", key);
		if (is_group(path)) {
			bt_str_addc(out, '\n');
			put_block(out, item, path, indent + 2);
		} else {
			bt_str_addc(out, ' ');
			put_flow(out, item);
			bt_str_addc(out, '\n');
		}
	}
}

void bt_config_print(const struct bt_config *c, struct bt_str *out)
{
	if (c->n_services != 1)
		bt_str_add(out, "services:\n");
	for (size_t i = 0; i < c->n_services; i++) {
		json_t *j = bt_config_service_to_json(&c->services[i]);
		if (c->n_services != 1)
			bt_str_addf(out, "  %s:\n", c->services[i].name);
		put_block(out, j, "", c->n_services == 1 ? 0 : 4);
		json_decref(j);
	}
}

/* ── the table of docs/config.md ── */

static void cell(struct bt_str *out, const char *t)
{
	for (; t && *t; t++)
		bt_str_addf(out, *t == '|' ? "\\|" : "%c", *t);
}

void bt_config_key_kind(const struct bt_key *k, struct bt_str *out)
{
	if (!k->type)
		bt_str_add(out, "group");
	else if (k->type == &bt_type_enum || k->type == &bt_type_failure)
		for (const struct bt_enum_name *n = k->names->names; n->name; n++)
			bt_str_addf(out, "%s`%s`", n == k->names->names ? "" : ", ", n->name);
	else
		bt_str_add(out, k->type->name);
}

void bt_config_keys_markdown(struct bt_str *out)
{
	bt_str_add(out, "| key | type | default | meaning | example |\n"
			"| --- | --- | --- | --- | --- |\n");
	for (size_t i = 0; i < bt_n_keys; i++) {
		const struct bt_key *k = &bt_keys[i];
		bt_str_addf(out, "| `%s` | ", k->path);
		bt_config_key_kind(k, out);
		bt_str_add(out, " | ");
		if (k->def)
			bt_str_addf(out, "`%s`", k->def);
		else if (k->derived)
			cell(out, k->derived);
		else if (k->required)
			bt_str_add(out, "required");
		bt_str_add(out, " | ");
		cell(out, k->doc);
		bt_str_add(out, " | ");
		if (k->example) {
			bt_str_addc(out, '`');
			cell(out, k->example);
			bt_str_addc(out, '`');
		}
		bt_str_add(out, " |\n");
	}
}
