/* Any bytes as nginx's configuration, as its dump and as what it says of itself: people write these
 * files, and baton reads them to know where traffic goes. */
#include "fuzz.h"

#include "driver/nginx_conf.h"

#include <string.h>

static bool count(void *arg, int depth, char end, size_t n_words, const char *const *words)
{
	size_t *n = arg;
	FUZZ_CHECK(depth >= 0 && n_words <= BT_NGINX_WORDS_MAX);
	FUZZ_CHECK(end == ';' || end == '{' || (end == '}' && n_words == 0));
	for (size_t i = 0; i < n_words; i++)
		*n += strlen(words[i]);
	return true;
}

static bool on_file(void *arg, const char *path)
{
	FUZZ_CHECK(path);
	return ++*(size_t *)arg < 100;
}

static void members(const char *text, size_t n, enum bt_nginx_form form)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_nginx nginx = {.mode = BT_NGINX_ADOPT,
		.include = "/x",
		.form = form,
		.upstream = "shop",
		.variable = "service_url"};
	struct bt_seen_member *m = NULL;
	struct bt_err err = {0};
	size_t n_members = 0;
	if (bt_nginx_conf_members(text, n, &nginx, "shop", a, &m, &n_members, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	for (size_t i = 0; i < n_members; i++)
		FUZZ_CHECK(m[i].address);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BT_FREE char *text = bt_strndup((const char *)data, size);
	size_t n = strlen(text), seen = 0;
	struct bt_nginx_facts facts = {0};
	struct bt_err err = {0};
	if (bt_nginx_conf_read((const char *)data, size, count, &seen, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	members(text, n, BT_NGINX_UPSTREAM);
	members(text, n, BT_NGINX_SERVICE_PORT);
	members(text, n, BT_NGINX_SERVICE_URL);
	bt_nginx_facts_read(text, text, "/prefix", &facts);
	bt_nginx_facts_done(&facts);
	seen = 0;
	bt_nginx_dump_files(text, on_file, &seen);
	BT_FREE char *reason = bt_nginx_reason(text);
	FUZZ_CHECK(reason);
	return 0;
}
