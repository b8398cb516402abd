#include "base/json.h"

#include "base/str.h"

#include <stdint.h>
#include <string.h>

void bt_json_cleanup(json_t **j)
{
	json_decref(*j);
	*j = NULL;
}

/* jansson bounds the depth at 2048; a peer never needs more than 64. */
static bool too_deep(const char *text, size_t n)
{
	int depth = 0;
	bool in_string = false;
	for (size_t i = 0; i < n; i++) {
		char c = text[i];
		if (in_string && c == '\\')
			i++;
		else if (c == '"')
			in_string = !in_string;
		else if (!in_string && (c == '{' || c == '['))
			depth++;
		else if (!in_string && (c == '}' || c == ']'))
			depth--;
		if (depth > 64)
			return true;
	}
	return false;
}

int bt_json_parse(const char *text, size_t n, size_t max, json_t **ret, struct bt_err *err)
{
	if (n > max)
		return bt_err_set(
			err, BT_E_PROTOCOL, "JSON of %zu bytes, at most %zu are taken", n, max);
	if (too_deep(text, n))
		return bt_err_set(err, BT_E_PROTOCOL, "JSON nested deeper than 64");
	json_error_t e;
	json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);
	if (!j)
		return bt_err_set(
			err, BT_E_PROTOCOL, "JSON line %d column %d: %s", e.line, e.column, e.text);
	*ret = j;
	return 0;
}

char *bt_json_dump(const json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
	return text ? text : bt_strdup("null");
}

static int wrong(const char *key, const char *expected, const json_t *j, struct bt_err *err)
{
	static const char *const names[] = {"an object", "an array", "a string", "an integer",
		"a real", "true", "false", "null"};
	return bt_err_set(err, BT_E_PROTOCOL, "member '%s': expected %s, found %s", key, expected,
		j ? names[json_typeof(j)] : "nothing");
}

int bt_json_str(const json_t *obj, const char *key, const char **ret, struct bt_err *err)
{
	const json_t *j = json_object_get(obj, key);
	if (!json_is_string(j) || strlen(json_string_value(j)) != json_string_length(j))
		return wrong(key, "a string", j, err);
	*ret = json_string_value(j);
	return 0;
}

int bt_json_int(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
	struct bt_err *err)
{
	const json_t *j = json_object_get(obj, key);
	if (!json_is_integer(j))
		return wrong(key, "an integer", j, err);
	int64_t v = json_integer_value(j);
	if (v < min || v > max)
		return bt_err_set(err, BT_E_PROTOCOL,
			"member '%s': expected %lld to %lld, found %lld", key, (long long)min,
			(long long)max, (long long)v);
	*ret = v;
	return 0;
}

int bt_json_bool(const json_t *obj, const char *key, bool *ret, struct bt_err *err)
{
	const json_t *j = json_object_get(obj, key);
	if (!json_is_boolean(j))
		return wrong(key, "true or false", j, err);
	*ret = json_is_true(j);
	return 0;
}

int bt_json_array(const json_t *obj, const char *key, json_t **ret, struct bt_err *err)
{
	json_t *j = json_object_get(obj, key);
	if (!json_is_array(j))
		return wrong(key, "an array", j, err);
	*ret = j;
	return 0;
}

int bt_json_object(const json_t *obj, const char *key, json_t **ret, struct bt_err *err)
{
	json_t *j = json_object_get(obj, key);
	if (!json_is_object(j))
		return wrong(key, "an object", j, err);
	*ret = j;
	return 0;
}

static bool absent(const json_t *obj, const char *key)
{
	const json_t *j = json_object_get(obj, key);
	return !j || json_is_null(j);
}

int bt_json_str_opt(const json_t *obj, const char *key, const char **ret, struct bt_err *err)
{
	return absent(obj, key) ? 0 : bt_json_str(obj, key, ret, err);
}

int bt_json_int_opt(const json_t *obj, const char *key, int64_t min, int64_t max, int64_t *ret,
	struct bt_err *err)
{
	return absent(obj, key) ? 0 : bt_json_int(obj, key, min, max, ret, err);
}

int bt_json_bool_opt(const json_t *obj, const char *key, bool *ret, struct bt_err *err)
{
	return absent(obj, key) ? 0 : bt_json_bool(obj, key, ret, err);
}

int bt_json_text(const json_t *obj, const char *key, size_t max, struct bt_arena *a,
	const char **ret, struct bt_err *err)
{
	const char *text = NULL;
	int r = bt_json_str(obj, key, &text, err);
	if (r < 0)
		return r;
	if (strlen(text) > max)
		return bt_err_set(
			err, BT_E_PROTOCOL, "member '%s': longer than %zu bytes", key, max);
	*ret = bt_arena_strdup(a, text);
	return 0;
}

int bt_json_text_opt(const json_t *obj, const char *key, size_t max, struct bt_arena *a,
	const char **ret, struct bt_err *err)
{
	return absent(obj, key) ? 0 : bt_json_text(obj, key, max, a, ret, err);
}

int bt_json_list(const json_t *obj, const char *key, size_t max, json_t **ret, size_t *ret_n,
	struct bt_err *err)
{
	json_t *list;
	int r = bt_json_array(obj, key, &list, err);
	if (r < 0)
		return r;
	if (json_array_size(list) > max)
		return bt_err_set(
			err, BT_E_PROTOCOL, "member '%s': more than %zu entries", key, max);
	*ret = list;
	*ret_n = json_array_size(list);
	return 0;
}
