#include "server/scope.h"

#include "base/json.h"

#include <ctype.h>
#include <string.h>

#define MAX_PATTERNS 100
#define MAX_PATTERN 150

/* '*' takes as little as it can; where the rest does not fit, the last one takes a character more.
 * So the time is bounded by the product of the lengths. */
static bool matches(const char *p, const char *s)
{
	const char *star = NULL, *from = NULL;
	while (*s) {
		if (*p == '*') {
			star = p++;
			from = s;
		} else if (*p == *s) {
			p++;
			s++;
		} else if (star && *from != '@') {
			p = star + 1;
			s = ++from;
		} else {
			return false;
		}
	}
	while (*p == '*')
		p++;
	return !*p;
}

bool bt_scope_covers(const json_t *scope, const char *service)
{
	size_t i;
	json_t *one;
	if (!scope)
		return true;
	json_array_foreach (scope, i, one)
		if (service && json_is_string(one) && matches(json_string_value(one), service))
			return true;
	return false;
}

static bool fits(const char *text, const char *more)
{
	size_t n = text ? strlen(text) : 0;
	if (n == 0 || n > MAX_PATTERN)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]) &&
			!strchr(more, text[i]))
			return false;
	return true;
}

static int check_list(const json_t *body, const char *key, const char *more, const char *expected,
	const json_t **ret, struct bt_err *err)
{
	const json_t *list = json_object_get(body, key);
	size_t i;
	json_t *one;
	if (list && (!json_is_array(list) || json_array_size(list) > MAX_PATTERNS))
		return bt_err_set(err, BT_E_CONFIG, "%s: expected a list of at most %d %s", key,
			MAX_PATTERNS, expected);
	json_array_foreach (list, i, one) {
		const char *text = json_string_value(one);
		const char *at = text ? strchr(text, '@') : NULL;
		if (!fits(text, more) || (at && (at == text || !at[1] || strchr(at + 1, '@'))))
			return bt_err_set(err, BT_E_CONFIG, "%s '%.80s': expected %s", key,
				text ? text : "", expected);
	}
	*ret = list;
	return 0;
}

int bt_scope_read(const json_t *body, json_t **ret, struct bt_err *err)
{
	const json_t *services = NULL, *environments = NULL;
	size_t i, k;
	json_t *one, *env;
	int r = check_list(body, "services", "@*",
		"names of services, such as shop, shop-*, shop@release or *@dev", &services, err);
	if (r == 0)
		r = check_list(body, "environments", "*", "names of environments, such as dev",
			&environments, err);
	if (r < 0)
		return r;
	if (!json_array_size(services) && !json_array_size(environments)) {
		*ret = NULL;
		return 0;
	}
	json_t *scope = json_array();
	json_array_foreach (services, i, one) {
		const char *text = json_string_value(one);
		if (!json_array_size(environments) || strchr(text, '@'))
			json_array_append(scope, one);
		else
			json_array_foreach (environments, k, env)
				json_array_append_new(
					scope, json_sprintf("%s@%s", text, json_string_value(env)));
	}
	if (!json_array_size(services))
		json_array_foreach (environments, k, env)
			json_array_append_new(scope, json_sprintf("*@%s", json_string_value(env)));
	*ret = scope;
	return 0;
}

void bt_scope_words(const json_t *scope, struct bt_str *out)
{
	size_t i;
	json_t *one;
	if (!scope)
		bt_str_add(out, "all services");
	json_array_foreach (scope, i, one)
		bt_str_addf(out, "%s%s", i ? ", " : "", json_string_value(one));
}
