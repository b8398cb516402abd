/* From a body to a wish: config, files, secrets and artifact that come along or are here already,
 * and the release that they are. Everything that can be refused without asking a host is refused
 * here. */
#include "server/planning_wish.h"

#include "base/base64.h"

#include <openssl/evp.h>
#include <string.h>

int bt_wish_check_hosts(struct bt_server *s, const struct bt_service *service, struct bt_err *err)
{
	const char **hosts = NULL;
	int r = 0;
	size_t n = bt_service_hosts(service, &hosts);
	for (size_t i = 0; i < n && r == 0; i++) {
		const struct bt_host *h = bt_host_find(s, hosts[i]);
		if (!h || h->revoked)
			r = bt_err_set(err, BT_E_CONFIG,
				"host '%s' is not known here: join its agent first (baton hosts "
				"lists the known ones)",
				hosts[i]);
		else if (!bt_host_connected(h))
			r = bt_err_set(err, BT_E_UNREACHABLE,
				"host %s is not connected: is its agent running?", hosts[i]);
	}
	free(hosts);
	return r;
}

static int check_secrets(const struct bt_service *service, const json_t *given, struct bt_err *err)
{
	const char *name;
	json_t *value;
	for (size_t i = 0; i < service->run.n_secrets; i++)
		if (!json_is_string(json_object_get(given, service->run.secrets[i])))
			return bt_err_set(err, BT_E_CONFIG,
				"secret %s of service %s has no value: set it in the environment "
				"of "
				"the caller",
				service->run.secrets[i], service->name);
	json_object_foreach ((json_t *)given, name, value) {
		bool declared = false;
		for (size_t i = 0; i < service->run.n_secrets; i++)
			declared = declared || bt_streq(service->run.secrets[i], name);
		if (!declared)
			return bt_err_set(err, BT_E_CONFIG,
				"secret %s is not declared in run.secrets of service %s", name,
				service->name);
	}
	return 0;
}

/* What was adopted never came here: its hosts have it, and copy it from there. */
static bool is_live(const struct bt_wish *w, const char *digest)
{
	const struct bt_svc *svc = bt_server_service(w->server, w->release->service);
	struct bt_release *live = NULL;
	if (!svc || !svc->live || bt_release_load(w->server, svc->live, &live, NULL) < 0)
		return false;
	bool same = bt_streq(live->digest, digest);
	bt_release_free(live);
	return same;
}

static int read_artifact(struct bt_wish *w, const json_t *body, struct bt_err *err)
{
	json_t *artifact = NULL;
	const char *digest = NULL, *file_name = "artifact";
	if (w->adopt || (w->preview && !json_object_get(body, "artifact")))
		return 0; /* a plan needs no bytes */
	int r = bt_json_object(body, "artifact", &artifact, err);
	if (r == 0)
		r = bt_json_str(artifact, "digest", &digest, err);
	if (r == 0)
		r = bt_json_str_opt(artifact, "file_name", &file_name, err);
	if (r < 0)
		return r;
	if (strlen(digest) != 64 || strspn(digest, "0123456789abcdef") != 64)
		return bt_err_set(err, BT_E_PROTOCOL, "artifact.digest: expected 64 hex digits");
	if (!*file_name || *file_name == '.' || strchr(file_name, '/') || strlen(file_name) > 255)
		return bt_err_set(err, BT_E_PROTOCOL, "artifact.file_name: expected a plain name");
	BT_JSON json_t *rows = NULL;
	r = bt_store_select(w->server->store, &rows, err, BT_SQL_ARTIFACT_GET, digest);
	if (r < 0)
		return r;
	const json_t *row = json_array_get(rows, 0);
	if (!row && !w->preview && !is_live(w, digest))
		return bt_err_set(err, BT_E_NOTFOUND,
			"artifact %.12s… is not here (yet): upload it first", digest);
	w->release->digest = bt_strdup(digest);
	w->release->file_name = bt_strdup(file_name);
	w->release->size = row ? json_integer_value(json_object_get(row, "size"))
			       : json_integer_value(json_object_get(artifact, "size"));
	return 0;
}

int bt_planning_check_files(
	const struct bt_service *service, const json_t *given, struct bt_err *err)
{
	size_t total = 0;
	for (size_t i = 0; i < service->n_files; i++) {
		const char *to = service->files[i].to;
		const char *text = json_string_value(json_object_get(given, to));
		BT_FREE char *data = NULL;
		size_t n = 0;
		if (!text)
			return bt_err_set(err, BT_E_CONFIG,
				"file %s of service %s has no content: the caller sends it in "
				"`files`, as base64",
				to, service->name);
		if (bt_unbase64(text, &data, &n, err) < 0)
			return bt_err_wrap(err, "files: %s", to);
		total += n;
	}
	if (total > BT_FILES_MAX_BYTES)
		return bt_err_set(err, BT_E_CONFIG, "files of service %s: more than %d KiB",
			service->name, BT_FILES_MAX_BYTES / 1024);
	if (json_object_size(given) != service->n_files)
		return bt_err_set(err, BT_E_CONFIG,
			"files: more than the config of service %s names", service->name);
	return 0;
}

/* Config, secrets and files of a release, under the server's key, so that the hash tells nobody a
 * guessed secret. */
static void hash_config(
	struct bt_wish *w, const char *config, const char *secrets, const char *files)
{
	unsigned char md[32];
	unsigned int n = 0;
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	EVP_DigestInit_ex(c, EVP_sha256(), NULL);
	EVP_DigestUpdate(c, w->server->key, BT_KEY_BYTES);
	EVP_DigestUpdate(c, config, strlen(config) + 1);
	EVP_DigestUpdate(c, secrets, strlen(secrets));
	if (files) /* releases without any keep the hash that they have */
		EVP_DigestUpdate(c, files, strlen(files) + 1);
	EVP_DigestFinal_ex(c, md, &n);
	EVP_MD_CTX_free(c);
	bt_hex(md, sizeof md, w->hash);
}

/* The same version means the same artifact. With the same config and secrets it is the same
 * release; with others it becomes a release of its own under that version. */
static int choose_release(
	struct bt_wish *w, const json_t *secrets, const json_t *files, struct bt_err *err)
{
	struct bt_release *rel = w->release;
	BT_JSON json_t *rows = NULL;
	BT_FREE char *config = bt_json_dump(rel->config);
	char *text = bt_json_dump(secrets);
	BT_FREE char *files_text = json_object_size(files) ? bt_json_dump(files) : NULL;
	hash_config(w, config, text, files_text);
	int r = 0;
	if (files_text)
		r = bt_secrets_seal(w->server->key, files_text, &w->files, &w->n_files, err);
	if (r == 0 && json_object_size(secrets) > 0)
		r = bt_secrets_seal(w->server->key, text, &w->sealed, &w->n_sealed, err);
	explicit_bzero(text, strlen(text));
	free(text);
	if (r == 0)
		r = bt_store_select(w->server->store, &rows, err, BT_SQL_RELEASE_BY_VERSION,
			rel->service, rel->version);
	if (r < 0)
		return r;
	const json_t *row = json_array_get(rows, 0);
	const char *digest = json_string_value(json_object_get(row, "digest"));
	if (row && w->adopt)
		return bt_err_set(err, BT_E_EXISTS,
			"version %s of %s exists already: choose another with --version",
			rel->version, rel->service);
	if (row && rel->digest && !bt_streq(digest, rel->digest))
		return bt_err_set(err, BT_E_EXISTS,
			"version %s of %s exists with another artifact (%.12s…): a release never "
			"changes, choose another version",
			rel->version, rel->service, digest);
	/* A run that failed may be tried again; what a person said holds. */
	const char *by = json_string_value(json_object_get(row, "marked_by"));
	BT_FREE char *what = bt_asprintf("%s %s", rel->service, rel->version);
	if (row && by && !w->force && !w->preview)
		r = bt_release_bad(what, json_string_value(json_object_get(row, "state")), by,
			json_string_value(json_object_get(row, "marked_why")), err);
	if (r < 0)
		return r;
	if (row && !w->again &&
		bt_streq(json_string_value(json_object_get(row, "config_hash")), w->hash)) {
		rel->id = (uint32_t)json_integer_value(json_object_get(row, "id"));
		return 0;
	}
	w->new_release = true;
	rel->id = (uint32_t)(w->preview ? w->server->next_release : w->server->next_release++);
	if (w->n_sealed) {
		rel->sealed = bt_malloc(2 * w->n_sealed + 1);
		bt_hex(w->sealed, w->n_sealed, rel->sealed);
	}
	return 0;
}

void bt_wish_read_by(struct bt_wish *w, const json_t *by)
{
	const struct bt_who *who = w->x ? bt_who(w->x) : NULL;
	static const char *const said[] = {"build_url", "commit"};
	json_t *j = json_object();
	for (size_t i = 0; i < BT_ARRAY_LEN(said); i++)
		if (json_is_string(json_object_get(by, said[i])))
			json_object_set(j, said[i], json_object_get(by, said[i]));
	w->holder = bt_strdup(who ? who->name : "baton");
	json_object_set_new(j, "name", json_string(w->holder));
	if (who)
		json_object_set_new(j, "from", json_string(who->from));
	w->by = bt_json_dump(j);
	json_decref(j);
}

/* What the body brings, else what is stored here. */
static int read_config(
	struct bt_wish *w, const json_t *body, const char *service, struct bt_err *err)
{
	json_t *config = json_object_get(body, "config"), *files = json_object_get(body, "files");
	struct bt_stored stored = {0};
	int r = 0;
	if (files && !json_is_object(files))
		return bt_err_set(err, BT_E_PROTOCOL, "files: expected an object");
	if (config && !json_is_object(config))
		return bt_err_set(err, BT_E_PROTOCOL, "config: expected an object");
	if (!config)
		r = bt_stored_load(w->server, service, 0, &stored, err);
	if (r == 0) {
		w->given = json_incref(config ? config : stored.config);
		w->contents = json_incref(config || files ? files : stored.files);
		if (w->by_strategy)
			bt_wish_use_strategy(w);
		r = bt_config_service_from_json(w->given, &w->config, err);
	}
	bt_stored_done(&stored);
	if (r == 0 && w->flow_name)
		r = w->by_strategy ? 0 : bt_wish_find_flow(w, err);
	if (r == 0 && !bt_streq(w->config->services[0].name, service))
		r = bt_err_set(err, BT_E_CONFIG, "service %s comes with the config of %s", service,
			w->config->services[0].name);
	if (r == 0 && !w->preview)
		r = bt_stored_allows(w->server, &w->config->services[0],
			bt_who(w->x)->role >= BT_AUTH_ADMIN, err);
	return r;
}

/* What the body brings; with keep_secrets, the live release's where it brings none. */
static int read_secrets(
	struct bt_wish *w, const json_t *body, const char *service, struct bt_err *err)
{
	const struct bt_svc *svc = bt_server_service(w->server, service);
	const struct bt_run *run = &w->config->services[0].run;
	json_t *given = json_object_get(body, "env_secrets");
	struct bt_release *live = NULL;
	BT_JSON json_t *kept = NULL;
	bool keep = false;
	if (given && !json_is_object(given))
		return bt_err_set(err, BT_E_PROTOCOL, "env_secrets: expected an object");
	w->secrets = given ? json_copy(given) : json_object();
	int r = bt_json_bool_opt(body, "keep_secrets", &keep, err);
	if (r < 0 || !keep || !svc || !svc->live)
		return r;
	r = bt_release_load(w->server, svc->live, &live, err);
	if (r == 0)
		r = bt_release_secrets(w->server, live, &kept, err);
	for (size_t i = 0; r == 0 && i < run->n_secrets; i++) {
		json_t *value = json_object_get(kept, run->secrets[i]);
		if (value && !json_object_get(w->secrets, run->secrets[i]))
			json_object_set(w->secrets, run->secrets[i], value);
	}
	bt_release_free(live);
	return r;
}

static int read_names(struct bt_wish *w, const json_t *body, struct bt_err *err)
{
	const char *service = NULL, *version = NULL;
	int r = bt_json_str(body, "service", &service, err);
	if (r == 0)
		r = bt_who_may(bt_who(w->x), service, err);
	BT_FREE char *numbered = bt_asprintf("adopted-%lld", (long long)w->server->next_release);
	bool open = w->adopt || (w->flow_name && !w->by_strategy);
	if (r == 0)
		r = open ? bt_json_str_opt(body, "version", &version, err)
			 : bt_json_str(body, "version", &version, err);
	if (r == 0)
		r = bt_json_bool_opt(body, "force", &w->force, err);
	if (r < 0)
		return r;
	if (!version && w->flow_name)
		version = "live"; /* of a flow that brings none; of another it is asked for below */
	version = version ? version : numbered;
	if (!bt_name_valid(version))
		return bt_err_set(err, BT_E_CONFIG,
			"version '%.80s': expected letters, digits, '.', '_', '-', at most %d",
			version, BT_NAME_MAX);
	w->release = bt_calloc(1, sizeof *w->release);
	w->release->service = bt_strdup(service);
	w->release->version = bt_strdup(version);
	return 0;
}

/* What holds for every run: nobody else is at it, nothing forbids it, and its hosts are there. */
static int admit(struct bt_wish *w, const json_t *body, struct bt_err *err)
{
	const struct bt_service *s = &w->config->services[0];
	int r = w->preview ? 0 : bt_run_lease_free(w->server, s->name, err);
	if (r == 0 && !w->preview)
		r = bt_gate_check(w->server, w->x, s->name, body, true, err);
	w->ticket = json_integer_value(json_object_get(body, "ticket"));
	return r < 0 ? r : bt_wish_check_hosts(w->server, s, err);
}

/* A flow that brings no release. */
static int on_live(struct bt_wish *w, const json_t *body, struct bt_err *err)
{
	int r = bt_wish_take_live(w, err);
	if (r == 0)
		r = admit(w, body, err);
	bt_wish_read_by(w, json_object_get(body, "by"));
	return r;
}

int bt_wish_read(struct bt_wish *w, const json_t *body, struct bt_err *err)
{
	int r = bt_wish_read_flow(w, body, err);
	if (r == 0)
		r = read_names(w, body, err);
	if (r < 0)
		return r;
	const char *service = w->release->service;
	r = read_config(w, body, service, err);
	if (r == 0 && bt_wish_on_live(w))
		return on_live(w, body, err);
	if (r == 0 && w->flow && !json_object_get(body, "version"))
		r = bt_err_set(err, BT_E_CONFIG,
			"flow %s deploys: it needs a version and an artifact", w->flow->name);
	if (r == 0)
		r = read_secrets(w, body, service, err);
	if (r < 0)
		return r;
	const struct bt_service *svc = &w->config->services[0];
	w->release->config = json_incref(w->given);
	r = read_artifact(w, body, err);
	if (r == 0 && !(w->preview && json_object_size(w->secrets) == 0))
		r = check_secrets(svc, w->secrets, err);
	if (r == 0 && !(w->preview && !w->contents))
		r = bt_planning_check_files(svc, w->contents, err);
	if (r == 0)
		r = admit(w, body, err);
	if (r == 0)
		r = choose_release(w, w->secrets, w->contents, err);
	bt_wish_read_by(w, json_object_get(body, "by"));
	return r;
}
