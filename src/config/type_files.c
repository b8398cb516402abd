/* files: a path, or {from, to, mode, template}. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

static const char expected[] =
	"a path, or from, to, mode and template such as {from: shop.tmpl, to: "
	"shop.conf, mode: 0640, template: true}";

static void read_mode(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_file *f)
{
	const char *t = n->kind == BT_NODE_SCALAR ? n->text : "";
	size_t len = strspn(t, "01234567");
	if (t[len] || len < 3 || len > 4 || (len == 4 && *t != '0') || !(strtol(t, NULL, 8) & 0400))
		bt_reading_wrong(r, k, n, "a mode that lets its owner read, such as 0600 or 0644");
	else
		f->mode = (int)strtol(t, NULL, 8);
}

static bool text(struct bt_reading *r, const struct bt_node *n, bool (*check)(const char *),
	const char *want, int max, const char **ret)
{
	const struct bt_key key = {.path = "files", .max = max, .check = check, .expected = want};
	*ret = NULL;
	bt_type_text.read(r, &key, n, ret, NULL);
	return *ret != NULL;
}

static bool read_file(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_file *f)
{
	static const char *const words[] = {"from", "to", "mode", "template"};
	static const struct bt_key bool_key = {.path = "files"};
	static const char place[] = "a path in the release's directory without '..', and only the "
				    "placeholders {release} {port} {port.NAME} {slot} {host}";
	const struct bt_node *from = n, *to = NULL, *mode = NULL, *template = NULL;
	*f = (struct bt_file){.mode = 0600, .line = n->line, .column = n->column};
	if (n->kind != BT_NODE_SCALAR) {
		if (!bt_reading_only(r, k, n, words, BT_ARRAY_LEN(words), expected))
			return false;
		from = bt_node_get(n, "from");
		to = bt_node_get(n, "to");
		mode = bt_node_get(n, "mode");
		template = bt_node_get(n, "template");
	}
	if (!from) {
		bt_reading_wrong(r, k, n, expected);
		return false;
	}
	if (!text(r, from, NULL, "a path", 4096, &f->from))
		return false;
	const char *slash = strrchr(f->from, '/');
	struct bt_node *name = bt_node_scalar(r->arena, slash ? slash + 1 : f->from);
	name->line = from->line;
	name->column = from->column;
	if (mode)
		read_mode(r, k, mode, f);
	if (template)
		bt_type_bool.read(r, &bool_key, template, &f->template, NULL);
	return text(r, to ? to : name, bt_check_place, place, 255, &f->to);
}

static void read_files(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	if (n->kind != BT_NODE_LIST || n->n > BT_FILES_MAX) {
		bt_reading_wrong(
			r, k, n, "a list of at most 64 files such as [config/shop.properties]");
		return;
	}
	struct bt_file *list = BT_ARENA_ARRAY(r->arena, struct bt_file, n->n);
	size_t used = 0;
	for (size_t i = 0; i < n->n; i++) {
		if (!read_file(r, k, n->items[i], &list[used]))
			continue;
		for (size_t j = 0; j < used; j++)
			if (bt_streq(list[j].to, list[used].to))
				bt_problem(r->sink, n->items[i], "%s: two files become %s", k->path,
					bt_node_shown(
						r->arena, bt_node_scalar(r->arena, list[j].to)));
		used++;
	}
	*(const struct bt_file **)field = list;
	*(size_t *)count = used;
}

static json_t *write_files(const struct bt_key *k, const void *field, const void *count)
{
	(void)k;
	const struct bt_file *list = *(const struct bt_file *const *)field;
	json_t *a = *(const size_t *)count ? json_array() : NULL;
	for (size_t i = 0; i < *(const size_t *)count; i++)
		json_array_append_new(
			a, json_pack("{s:s, s:s, s:o, s:b}", "from", list[i].from, "to", list[i].to,
				   "mode", json_sprintf("%04o", (unsigned)list[i].mode), "template",
				   list[i].template));
	return a;
}
const struct bt_key_type bt_type_files = {"files", read_files, write_files};
