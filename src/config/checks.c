/* What a text must look like, key by key. Texts that end up in nginx's configuration are held to
 * a narrow alphabet, so that no value can end a directive and begin another. */
#include "config/keys.h"

#include "base/str.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool bt_check_text(const char *t)
{
	for (; *t; t++)
		if (((unsigned char)*t < 0x20 && *t != '\t' && *t != '\n') || *t == 0x7f)
			return false;
	return true;
}

static bool only(const char *t, const char *more)
{
	if (!*t)
		return false;
	for (; *t; t++)
		if (!isalnum((unsigned char)*t) && !strchr(more, *t))
			return false;
	return true;
}

bool bt_check_abs_path(const char *t)
{
	return t[0] == '/' && only(t, "/._-+@%=:,~");
}

bool bt_check_url_path(const char *t)
{
	return t[0] == '/' && only(t, "/._-+@%=:,~!*()&?");
}

bool bt_check_route(const char *t)
{
	return t[0] == '/' && only(t, "/._-~%+@:,!");
}

bool bt_check_url(const char *t)
{
	bool scheme = bt_str_starts(t, "http://") || bt_str_starts(t, "https://");
	const char *rest = scheme ? strstr(t, "://") + 3 : "";
	return scheme && isalnum((unsigned char)rest[rest[0] == '[']) &&
	       only(rest, "/._-+@%=:,~!*()&?[]");
}

bool bt_check_env_name(const char *t)
{
	return !isdigit((unsigned char)*t) && only(t, "_") && strlen(t) <= 256;
}

bool bt_check_header_name(const char *t)
{
	return strlen(t) <= 128 && only(t, "-_");
}

bool bt_check_json_path(const char *t)
{
	return t[0] != '.' && !bt_str_ends(t, ".") && !strstr(t, "..") && only(t, "._-@$:/");
}

bool bt_check_rotation_path(const char *t)
{
	BT_STR struct bt_str plain = {0};
	for (; *t; t++)
		if (bt_str_starts(t, "{service}") || bt_str_starts(t, "{host}"))
			t = strchr(t, '}');
		else
			bt_str_addc(&plain, *t);
	t = bt_str_get(&plain);
	return t[0] == '/' && only(t, "/._-+@=:,~");
}

bool bt_check_interface(const char *t)
{
	return *t && t[0] != '-' && strlen(t) <= 15 && only(t, "._-@") && !bt_streq(t, ".") &&
	       !bt_streq(t, "..") && !bt_streq(t, "all") && !bt_streq(t, "default");
}

bool bt_check_listen(const char *t)
{
	const char *colon = strrchr(t, ':');
	const char *port = colon ? colon + 1 : t;
	int64_t v;
	if (!isdigit((unsigned char)*port) || bt_int_parse(port, 1, 65535, &v, NULL) < 0)
		return false;
	BT_FREE char *address = bt_strndup(t, colon ? (size_t)(colon - t) : 0);
	return !colon || bt_streq(address, "*") || only(address, ".:[]-");
}

bool bt_check_server_name(const char *t)
{
	return t[0] != ' ' && only(t, ".-_* ");
}

bool bt_check_variable(const char *t)
{
	return !isdigit((unsigned char)*t) && only(t, "_");
}

bool bt_check_user(const char *t)
{
	return t[0] != '-' && strlen(t) <= 64 && only(t, "._-$");
}

/* In the order of bt_config_expand's values. */
static const char *const placeholders[] = {"artifact", "release", "port", "slot", "host"};
enum {
	PLACE_FROM = 1,	   /* a place in the release's directory: the artifact's path is none */
	IDENTITY_FROM = 2, /* who answers is a place: nginx knows nothing of releases */
};

#define PORT "port."

size_t bt_placeholder_len(const char *t)
{
	if (t[0] != '{' || t[1] == '{')
		return 0;
	size_t n = strspn(t + 1, "abcdefghijklmnopqrstuvwxyz_");
	size_t name = bt_str_starts(t + 1, PORT) ? bt_port_name_len(t + 1 + strlen(PORT)) : 0;
	if (name)
		n = strlen(PORT) + name;
	return n && t[1 + n] == '}' ? n + 2 : 0;
}

size_t bt_placeholder_next(const char **t, struct bt_str *out)
{
	size_t n = 0;
	while (**t && !(n = bt_placeholder_len(*t))) {
		if (out)
			bt_str_addc(out, **t);
		*t += (*t)[0] == '{' && (*t)[1] == '{' ? 2 : 1;
	}
	return n;
}

int bt_placeholder_unknown(struct bt_err *err, const char *t, size_t len, const char *expected)
{
	return bt_err_set(err, BT_E_CONFIG,
		"unknown placeholder %.*s: expected one of %s ({{ writes a brace)",
		(int)(len < 80 ? len : 80), t, expected);
}

int bt_placeholder_index(const char *const *names, size_t n_names, const char *t, size_t len)
{
	for (size_t i = 0; i < n_names; i++)
		if (strlen(names[i]) == len - 2 && !strncmp(t + 1, names[i], len - 2))
			return (int)i;
	return -1;
}

static int which(const char *t, size_t len)
{
	return bt_placeholder_index(placeholders, BT_ARRAY_LEN(placeholders), t, len);
}

static bool is_port(const char *t)
{
	return bt_str_starts(t, "{" PORT);
}

/* `{word}` is a placeholder, `{{` a brace, and every other brace itself. */
static bool known_placeholders(const char *t, int from)
{
	for (size_t n; (n = bt_placeholder_next(&t, NULL)); t += n)
		if (is_port(t) ? from == IDENTITY_FROM : which(t, n) < from)
			return false;
	return true;
}

bool bt_check_command(const char *t)
{
	return known_placeholders(t, 0);
}

bool bt_check_identity(const char *t)
{
	return *t && known_placeholders(t, IDENTITY_FROM);
}

/* The kernel's names are of at most 15 characters, and a module has each. */
bool bt_check_scheduler(const char *t)
{
	return strlen(t) <= 15 && only(t, "_-");
}

/* Nothing in it ends a command of the runtime API, or a word of one. */
bool bt_check_haproxy_name(const char *t)
{
	return only(t, "._:-");
}

bool bt_check_haproxy_server(const char *t)
{
	return only(t, "._:-{}") && !strstr(t, "{{") && bt_check_identity(t);
}

/* The number of {port.NAME} as text; "" where the slot has none of that name. */
static const char *port_of(
	const struct bt_placeholders *p, const char *t, size_t len, char text[static 8])
{
	const struct bt_slot slot = {.more = p->ports, .n_more = p->n_ports};
	size_t skip = 1 + strlen(PORT);
	BT_FREE char *name = bt_strndup(t + skip, len - skip - 1);
	uint16_t port = bt_slot_port(&slot, name);
	snprintf(text, 8, "%u", port);
	return port ? text : NULL;
}

int bt_config_expand(
	const char *text, const struct bt_placeholders *p, struct bt_str *out, struct bt_err *err)
{
	char port[8], other[8];
	snprintf(port, sizeof port, "%u", p->port);
	const char *const values[] = {p->artifact, p->release, port, p->slot, p->host};
	for (size_t n; (n = bt_placeholder_next(&text, out)); text += n) {
		int i = which(text, n);
		const char *value = is_port(text) ? port_of(p, text, n, other)
				    : i >= 0	  ? values[i]
						  : NULL;
		if (!value)
			return bt_placeholder_unknown(err, text, n, BT_PLACEHOLDERS);
		bt_str_add(out, value);
	}
	return 0;
}

bool bt_config_differs_by_slot(const char *text)
{
	for (size_t n; (n = bt_placeholder_next(&text, NULL)); text += n)
		if (is_port(text) || bt_str_starts(text, "{port}") || bt_str_starts(text, "{slot}"))
			return true;
	return false;
}

bool bt_check_place(const char *t)
{
	static const char *const ours[] = {"release.json", ".baton.json"};
	for (size_t i = 0; i < BT_ARRAY_LEN(ours); i++)
		if (bt_streq(t, ours[i]))
			return false;
	if (!known_placeholders(t, PLACE_FROM) || strchr(t, '\n') || strchr(t, '\t'))
		return false;
	for (const char *part = t;; part = strchr(part, '/') + 1) {
		size_t n = strcspn(part, "/");
		if (n == 0 || (part[0] == '.' && (n == 1 || (n == 2 && part[1] == '.'))))
			return false;
		if (!part[n])
			return true;
	}
}
