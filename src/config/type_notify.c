/* notify: name → {url, format}: whom a Notify task may tell. A url may hold ${NAME} of run.secrets;
 * its value never comes into a config: the agent that sends puts it in. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

enum { NOTIFY_MAX = 20, URL_MAX = 2048 };

static const char form[] = "{url: 'https://…', format: json|slack}";

/* The url with a letter for each ${NAME}; false: it is malformed. */
static bool without_names(const char *url, struct bt_str *out)
{
	while (*url) {
		const char *end = bt_str_starts(url, "${") ? strchr(url, '}') : NULL;
		if (bt_str_starts(url, "${")) {
			BT_FREE char *name = bt_strndup(url + 2, end ? (size_t)(end - url - 2) : 0);
			if (!*name || !bt_check_env_name(name))
				return false;
			bt_str_addc(out, 'x');
			url = end + 1;
		} else
			bt_str_addc(out, *url++);
	}
	return true;
}

/* A secret may be the whole beginning, scheme included: then the agent looks at it. */
static bool check_url(const char *url)
{
	BT_STR struct bt_str plain = {0};
	if (!without_names(url, &plain))
		return false;
	if (!bt_str_starts(url, "${"))
		return bt_check_url(bt_str_get(&plain));
	BT_FREE char *whole = bt_asprintf("https://%s", bt_str_get(&plain));
	return bt_check_url(whole);
}

static bool read_one(struct bt_reading *r, const struct bt_key *k, const struct bt_node *name,
	const struct bt_node *n, struct bt_notify *to)
{
	static const char *const words[] = {"url", "format"};
	const struct bt_key url_key = {.path = k->path,
		.max = URL_MAX,
		.check = check_url,
		.expected = "a URL such as https://hooks.example.com/${HOOK}"};
	const struct bt_key format_key = {.path = k->path, .names = &bt_enum_notify_format};
	int format = BT_NOTIFY_JSON;
	*to = (struct bt_notify){.name = bt_arena_strdup(r->arena, name->text)};
	if (!bt_name_valid(name->text)) {
		bt_reading_wrong(r, k, name, "a name of letters, digits, '.', '_' and '-'");
		return false;
	}
	if (!bt_reading_only(r, k, n, words, BT_ARRAY_LEN(words), form))
		return false;
	const struct bt_node *v = bt_node_get(n, "url");
	if (!v) {
		bt_problem(r->sink, n, "%s.%s: url is missing: expected %s", k->path, name->text,
			form);
		return false;
	}
	bt_type_text.read(r, &url_key, v, &to->url, NULL);
	if ((v = bt_node_get(n, "format")))
		bt_type_enum.read(r, &format_key, v, &format, NULL);
	to->format = (enum bt_notify_format)format;
	return to->url != NULL;
}

static void read_notify(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_MAP || n->n > NOTIFY_MAX) {
		bt_problem(r->sink, n, "%s: expected a map of at most %d names to %s, found %s",
			k->path, NOTIFY_MAX, form,
			n->kind == BT_NODE_MAP ? "more" : bt_node_shown(r->arena, n));
		return;
	}
	struct bt_notify *list = BT_ARENA_ARRAY(r->arena, struct bt_notify, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++)
		used += read_one(r, k, n->keys[i], n->items[i], &list[used]);
	*(const struct bt_notify **)field = list;
	*(size_t *)count = used;
}

static json_t *write_notify(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_notify *list = *(const struct bt_notify *const *)field;
	size_t n = *(const size_t *)count;
	json_t *o = n ? json_object() : NULL;
	for (size_t i = 0; i < n; i++)
		json_object_set_new(o, list[i].name,
			json_pack("{s:s, s:s}", "url", list[i].url, "format",
				bt_enum_name(&bt_enum_notify_format, (int)list[i].format)));
	return o;
}
const struct bt_key_type bt_type_notify = {"map of {url, format}", read_notify, write_notify};

/* ── what only holds together ── */

static bool is_secret(const struct bt_service *s, const char *name, size_t n)
{
	for (size_t i = 0; i < s->run.n_secrets; i++)
		if (strlen(s->run.secrets[i]) == n && memcmp(s->run.secrets[i], name, n) == 0)
			return true;
	return false;
}

void bt_config_check_notify(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_node *at = bt_reading_at(r, "notify");
	for (size_t i = 0; at && i < s->n_notify; i++) {
		for (const char *p = s->notify[i].url; (p = strstr(p, "${")); p++) {
			size_t n = strcspn(p + 2, "}");
			if (!is_secret(s, p + 2, n))
				bt_problem(r->sink, at,
					"notify.%s.url: ${%.*s} is none of run.secrets: name it "
					"there",
					s->notify[i].name, (int)n, p + 2);
		}
	}
}
