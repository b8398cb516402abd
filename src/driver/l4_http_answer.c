/* An appliance's answer is somebody else's text: its size is bounded, its JSON may be anything, and
 * what it says is taken only where it has the form that the config promised. "Out" is every scalar
 * that is not the one for "in", since appliances have many words for it (disabled, drain, offline);
 * but a value that is no scalar at all, or is not there, is no answer. */
#include "driver/l4_http.h"

#include "base/json.h"
#include "config/call.h"

#include <string.h>

#define KEYS_SHOWN 8

/* ---- paths ---- */

static void add_keys(struct bt_str *out, const json_t *j)
{
	const char *key;
	json_t *value;
	size_t n = 0;
	if (!json_is_object(j)) {
		bt_str_add(out, json_is_array(j) ? "a list" : "no keys");
		return;
	}
	bt_str_add(out, json_object_size(j) ? "keys" : "an empty object");
	json_object_foreach ((json_t *)j, key, value) {
		if (n++ == KEYS_SHOWN) {
			bt_str_add(out, " ...");
			break;
		}
		bt_str_add(out, " ");
		bt_str_add_shown(out, key, strlen(key));
	}
}

/* The value at "data.items.0.state". */
static int at_path(const json_t *j, const char *path, const json_t **ret, struct bt_err *err)
{
	for (const char *p = path; *p;) {
		size_t n = strcspn(p, ".");
		BT_FREE char *word = bt_strndup(p, n);
		int64_t index;
		const json_t *next =
			json_is_array(j) && bt_int_parse(word, 0, INT32_MAX, &index, NULL) == 0
				? json_array_get(j, (size_t)index)
				: json_object_get(j, word);
		if (!next) {
			BT_STR struct bt_str found = {0};
			add_keys(&found, j);
			return bt_err_set(err, BT_E_FAILED,
				"%s is missing in the answer, found %s%s%.*s", path,
				bt_str_get(&found), p > path ? " in " : "",
				p > path ? (int)(p - path - 1) : 0, path);
		}
		j = next;
		p += n + (p[n] == '.');
	}
	*ret = j;
	return 0;
}

/* A scalar as people write it: true, 3, text without quotes. The caller frees; NULL: none. */
static char *scalar_text(const json_t *j)
{
	if (json_is_string(j))
		return bt_strdup(json_string_value(j));
	if (json_is_object(j) || json_is_array(j) || json_is_null(j))
		return NULL;
	return json_dumps(j, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
}

static const char *kind_of(const json_t *j)
{
	return json_is_object(j) ? "an object" : json_is_array(j) ? "a list" : "null";
}

static int read_in(const struct bt_appliance *a, const json_t *j, bool *ret, struct bt_err *err)
{
	const json_t *value = NULL;
	int r = at_path(j, a->in_rotation, &value, err);
	if (r < 0)
		return r;
	BT_FREE char *text = scalar_text(value);
	if (!text)
		return bt_err_set(err, BT_E_FAILED, "%s is %s, expected a value such as '%s'",
			a->in_rotation, kind_of(value), a->in_rotation_is);
	*ret = bt_streq(text, a->in_rotation_is);
	return 0;
}

static int read_connections(
	const struct bt_appliance *a, const json_t *j, uint32_t *ret, struct bt_err *err)
{
	const json_t *value = NULL;
	int64_t n = 0;
	int r = at_path(j, a->connections, &value, err);
	if (r < 0)
		return r;
	BT_FREE char *text = scalar_text(value);
	if (!text || json_is_real(value) || bt_int_parse(text, 0, UINT32_MAX, &n, NULL) < 0) {
		BT_STR struct bt_str shown = {0};
		bt_str_add_shown(
			&shown, text ? text : kind_of(value), strlen(text ? text : kind_of(value)));
		return bt_err_set(err, BT_E_FAILED, "%s is %s, expected a count of connections",
			a->connections, bt_str_get(&shown));
	}
	*ret = (uint32_t)n;
	return 0;
}

int bt_api_read_state(const struct bt_appliance *a, const char *body, size_t n,
	struct bt_api_state *ret, struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	struct bt_api_state s = {0};
	if (bt_json_parse(body, n, BT_API_ANSWER_MAX, &j, NULL) < 0) {
		BT_STR struct bt_str shown = {0};
		bt_str_add_shown(&shown, body, n);
		return bt_err_set(err, BT_E_FAILED, "the answer is no JSON: %s",
			shown.len ? shown.data : "it is empty");
	}
	int r = read_in(a, j, &s.in, err);
	if (r == 0 && a->connections)
		r = read_connections(a, j, &s.connections, err);
	if (r == 0)
		*ret = s;
	return r;
}

/* ---- secrets ---- */

/* The service's own, else what the agent keeps; NULL: there is none of that name. */
static const char *secret_of(
	const struct bt_driver_env *env, const struct bt_service *s, const char *name)
{
	for (size_t i = 0; i < s->n_secret_values; i++)
		if (bt_streq(s->secret_values[i].key, name))
			return s->secret_values[i].value;
	return env->secret ? env->secret(env->secret_arg, s->name, name) : NULL;
}

int bt_api_header(const struct bt_driver_env *env, const struct bt_service *s, const char *value,
	struct bt_str *out, struct bt_err *err)
{
	const char *name = NULL;
	size_t n = 0;
	for (const char *at; (at = bt_secret_ref(value, &name, &n)); value = name + n + 1) {
		BT_FREE char *word = bt_strndup(name, n);
		const char *secret = secret_of(env, s, word);
		bt_str_addn(out, value, (size_t)(at - value));
		if (!secret)
			return bt_err_set(err, BT_E_NOTFOUND,
				"the secret %s is not known on this host yet: a deployment brings "
				"it",
				word);
		bt_str_add(out, secret);
	}
	bt_str_add(out, value);
	const char *whole = bt_str_get(out);
	if (whole[strcspn(whole, "\r\n")])
		return bt_err_set(err, BT_E_CONFIG,
			"a header's value holds a line break: the secret in it must be one line");
	return 0;
}

static void hide_one(struct bt_err *err, const char *secret)
{
	BT_STR struct bt_str out = {0};
	const char *t = err->text, *at;
	size_t n = strlen(secret);
	if (n == 0 || !strstr(t, secret))
		return;
	for (; (at = strstr(t, secret)); t = at + n) {
		bt_str_addn(&out, t, (size_t)(at - t));
		bt_str_add(&out, "***");
	}
	bt_str_add(&out, t);
	bt_err_set(err, err->code, "%s", bt_str_get(&out));
}

void bt_api_hide(const struct bt_driver_env *env, const struct bt_service *s, struct bt_err *err)
{
	for (size_t i = 0; i < s->run.n_secrets; i++) {
		const char *secret = secret_of(env, s, s->run.secrets[i]);
		if (secret)
			hide_one(err, secret);
	}
}
