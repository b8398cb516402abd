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

static const char *const placeholders[] = {"artifact", "release", "port", "slot", "host"};
enum { IDENTITY_FROM = 2 }; /* who answers is a place: nginx knows nothing of releases */

/* `{word}` is a placeholder, `{{` a brace, and every other brace itself. */
static bool known_placeholders(const char *t, size_t from)
{
	for (; *t; t++) {
		if (*t != '{')
			continue;
		if (t[1] == '{') {
			t++;
			continue;
		}
		size_t n = strspn(t + 1, "abcdefghijklmnopqrstuvwxyz_");
		if (n == 0 || t[1 + n] != '}')
			continue;
		bool known = false;
		for (size_t i = from; i < BT_ARRAY_LEN(placeholders); i++)
			known = known || (strlen(placeholders[i]) == n &&
						 !strncmp(t + 1, placeholders[i], n));
		if (!known)
			return false;
	}
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

int bt_config_expand(
	const char *text, const struct bt_placeholders *p, struct bt_str *out, struct bt_err *err)
{
	char port[8];
	snprintf(port, sizeof port, "%u", p->port);
	const char *const values[] = {p->artifact, p->release, port, p->slot, p->host};
	while (*text) {
		size_t n = *text == '{' ? strspn(text + 1, "abcdefghijklmnopqrstuvwxyz_") : 0;
		if (*text == '{' && text[1] == '{') {
			bt_str_addc(out, '{');
			text += 2;
			continue;
		}
		if (n == 0 || text[1 + n] != '}') {
			bt_str_addc(out, *text++);
			continue;
		}
		BT_FREE char *word = bt_strndup(text + 1, n);
		const char *value = NULL;
		for (size_t i = 0; i < BT_ARRAY_LEN(placeholders); i++)
			if (bt_streq(placeholders[i], word))
				value = values[i];
		if (!value)
			return bt_err_set(err, BT_E_CONFIG,
				"unknown placeholder {%s}: expected {artifact}, {release}, {port}, "
				"{slot} or {host} ({{ writes a brace)",
				word);
		bt_str_add(out, value);
		text += n + 2;
	}
	return 0;
}
