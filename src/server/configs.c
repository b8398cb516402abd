/* Stored configs. A version is a row that never changes: the canonical config, and what its files
 * hold, sealed as secrets are. So the page, a client without a baton.yaml and a restart have one
 * thing to work from, and `baton diff` one to compare with. */
#include "server/server_priv.h"

#include "base/clock.h"

#include <openssl/evp.h>
#include <string.h>

#define KEPT 100 /* versions of a service */

void bt_stored_done(struct bt_stored *c)
{
	json_decref(c->config);
	json_decref(c->files);
	free(c->hash);
	free(c->who);
	free(c->why);
	*c = (struct bt_stored){0};
}

static char *copy(const json_t *row, const char *key)
{
	return bt_strdup(json_string_value(json_object_get(row, key)));
}

int bt_stored_load(struct bt_server *s, const char *service, int64_t version, struct bt_stored *ret,
	struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	int r = version ? bt_store_select(s->store, &rows, err, BT_SQL_CONFIG_GET, service, version)
			: bt_store_select(s->store, &rows, err, BT_SQL_CONFIG_LAST, service);
	const json_t *row = json_array_get(rows, 0);
	if (r < 0)
		return r;
	if (!row && version)
		return bt_err_set(err, BT_E_NOTFOUND,
			"no version %lld of the config of %s is stored here", (long long)version,
			service);
	if (!row)
		return bt_err_set(err, BT_E_NOTFOUND,
			"no config of %s is stored: `baton apply` stores one", service);
	const char *config = json_string_value(json_object_get(row, "config"));
	const char *sealed = json_string_value(json_object_get(row, "files"));
	struct bt_stored c = {.version = json_integer_value(json_object_get(row, "version")),
		.at = json_integer_value(json_object_get(row, "at")),
		.config = config ? json_loads(config, 0, NULL) : NULL,
		.hash = copy(row, "hash"),
		.who = copy(row, "who"),
		.why = copy(row, "why")};
	if (!c.config)
		r = bt_err_set(
			err, BT_E_CORRUPT, "the stored config of %s does not parse", service);
	if (r == 0 && sealed)
		r = bt_secrets_open_json(s->key, sealed, &c.files, err);
	if (r < 0) {
		bt_stored_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

static void hash(struct bt_server *s, const char *config, const char *files, char hex[static 65])
{
	unsigned char md[32];
	unsigned int n = 0;
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_DigestInit_ex(c, EVP_sha256(), NULL);
	EVP_DigestUpdate(c, s->key, BT_KEY_BYTES);
	EVP_DigestUpdate(c, config, strlen(config) + 1);
	EVP_DigestUpdate(c, files, strlen(files));
	EVP_DigestFinal_ex(c, md, &n);
	EVP_MD_CTX_free(c);
	bt_hex(md, sizeof md, hex);
}

int bt_stored_put(struct bt_server *s, struct bt_txn *t, const struct bt_service *service,
	const json_t *files, const char *who, const char *why, size_t *ret_op, struct bt_err *err)
{
	BT_JSON json_t *config = bt_config_service_to_json(service);
	BT_FREE char *text = bt_json_dump(config);
	BT_FREE char *files_text = json_object_size(files) ? bt_json_dump(files) : NULL;
	BT_FREE unsigned char *sealed = NULL;
	size_t n_sealed = 0;
	char hex[65];
	hash(s, text, files_text ? files_text : "", hex);
	int r = files_text ? bt_secrets_seal(s->key, files_text, &sealed, &n_sealed, err) : 0;
	if (r < 0)
		return r;
	size_t op = bt_txn_add(t, BT_SQL_CONFIG_PUT, service->name, text, (const void *)sealed,
		n_sealed, (const char *)hex, who, why, bt_clock_wall_ms());
	bt_txn_add(t, BT_SQL_CONFIG_FORGET, service->name, (int64_t)KEPT);
	if (ret_op)
		*ret_op = op;
	return 0;
}

void bt_stored_put_release(struct bt_server *s, struct bt_txn *t, const json_t *config,
	uint32_t release, const char *who, const char *why)
{
	struct bt_config *c = NULL;
	BT_JSON json_t *files = NULL;
	struct bt_err err = {0};
	int r = bt_config_service_from_json(config, &c, &err);
	if (r == 0)
		r = bt_release_files(s, release, &files, &err);
	if (r == 0)
		r = bt_stored_put(s, t, &c->services[0], files, who, why, NULL, &err);
	if (r < 0)
		bt_log(NULL, BT_LOG_ERROR, "the config of release %u is not stored: %s", release,
			err.text);
	bt_config_free(c);
}

/* ---- locked ------------------------------------------------------------------------------ */

static json_t *what_is_locked(const json_t *config)
{
	json_t *c = json_deep_copy(config);
	json_object_del(c, "artifact");
	json_object_del(c, "unpack");
	json_object_del(json_object_get(c, "run"), "env");
	return c;
}

/* The path of the first key whose value differs; false: they are the same. */
static bool differs(const json_t *a, const json_t *b, struct bt_str *path)
{
	const char *key;
	json_t *value;
	size_t len = path->len;
	if (json_equal(a, b))
		return false;
	if (!json_is_object(a) || !json_is_object(b))
		return true;
	BT_JSON json_t *all = json_copy((json_t *)a);
	json_object_update_missing(all, (json_t *)b);
	json_object_foreach (all, key, value) {
		bt_str_addf(path, "%s%s", path->len ? "." : "", key);
		if (differs(json_object_get(a, key), json_object_get(b, key), path))
			return true;
		path->len = len;
	}
	return true;
}

int bt_stored_allows(
	struct bt_server *s, const struct bt_service *service, bool admin, struct bt_err *err)
{
	const struct bt_svc *svc = bt_server_service(s, service->name);
	struct bt_stored stored = {0};
	BT_STR struct bt_str path = {0};
	if (admin || !svc || !svc->locked_by)
		return 0;
	int r = bt_stored_load(s, service->name, 0, &stored, err);
	if (r < 0)
		return r;
	BT_JSON json_t *given = bt_config_service_to_json(service);
	BT_JSON json_t *free_given = what_is_locked(given);
	BT_JSON json_t *free_stored = what_is_locked(stored.config);
	if (differs(free_given, free_stored, &path))
		r = bt_err_set(err, BT_E_REFUSED,
			"the config of %s is locked by %s, and %s differs from its version %lld: "
			"without an admin only artifact, run.env and the contents of files may "
			"change",
			service->name, svc->locked_by, path.len ? bt_str_get(&path) : "it",
			(long long)stored.version);
	bt_stored_done(&stored);
	return r;
}
