#include "config/call.h"

#include "config/keys.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {"host", "slot", "port", "address", "service"};

static int which(const char *t, size_t len)
{
	return bt_placeholder_index(names, BT_ARRAY_LEN(names), t, len);
}

bool bt_check_call(const char *t)
{
	for (size_t n; (n = bt_placeholder_next(&t, NULL)); t += n)
		if (which(t, n) < 0)
			return false;
	return true;
}

bool bt_check_call_url(const char *t)
{
	static const struct bt_call_values any = {"h", "s", "e", "a", 1};
	BT_STR struct bt_str url = {0};
	if (bt_call_expand(t, &any, BT_CALL_URL, &url, NULL) < 0)
		return false;
	const char *authority = strstr(bt_str_get(&url), "://");
	return authority && bt_check_url(url.data) &&
	       !memchr(authority + 3, '@', strcspn(authority + 3, "/?"));
}

bool bt_check_method(const char *t)
{
	size_t n = strspn(t, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
	return n > 0 && n <= 16 && !t[n];
}

static void add_value(struct bt_str *out, const char *value, enum bt_call_form form)
{
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;
		if (form == BT_CALL_URL)
			bt_str_addf(out, isalnum(c) || strchr("-._~", c) ? "%c" : "%%%02X", c);
		else if (c == '"' || c == '\\')
			bt_str_addf(out, "\\%c", c);
		else
			bt_str_addf(out, c < 0x20 ? "\\u%04x" : "%c", c);
	}
}

int bt_call_expand(const char *text, const struct bt_call_values *v, enum bt_call_form form,
	struct bt_str *out, struct bt_err *err)
{
	char port[8];
	snprintf(port, sizeof port, "%u", v->port);
	const char *const values[] = {v->host, v->slot, port, v->address, v->service};
	for (size_t n; (n = bt_placeholder_next(&text, out)); text += n) {
		int i = which(text, n);
		if (i < 0)
			return bt_placeholder_unknown(err, text, n, BT_CALL_PLACEHOLDERS);
		if (!values[i])
			return bt_err_set(err, BT_E_NOTFOUND, "%.*s is not known", (int)n, text);
		add_value(out, values[i], form);
	}
	return 0;
}

const char *bt_secret_ref(const char *t, const char **ret_name, size_t *ret_n)
{
	for (; (t = strstr(t, "${")); t += 2) {
		size_t n = strcspn(t + 2, "}");
		if (!t[2 + n])
			return NULL;
		*ret_name = t + 2;
		*ret_n = n;
		return t;
	}
	return NULL;
}
