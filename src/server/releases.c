/* Releases are rows that never change but for their state: digest, canonical config, secrets. */
#include "plan/plan.h"
#include "server/server_priv.h"

#include <string.h>

struct bt_release *bt_release_free(struct bt_release *r)
{
	if (!r)
		return NULL;
	free(r->service);
	free(r->version);
	free(r->digest);
	free(r->file_name);
	free(r->state);
	free(r->marked_by);
	free(r->marked_why);
	free(r->sealed);
	json_decref(r->config);
	free(r);
	return NULL;
}

static struct bt_release *copy(const struct bt_release *r)
{
	struct bt_release *c = bt_calloc(1, sizeof *c);
	*c = (struct bt_release){.id = r->id,
		.service = bt_strdup(r->service),
		.version = bt_strdup(r->version),
		.digest = bt_strdup(r->digest),
		.file_name = bt_strdup(r->file_name),
		.state = bt_strdup(r->state),
		.sealed = bt_strdup(r->sealed),
		.size = r->size,
		.config = json_incref(r->config)};
	return c;
}

void bt_release_remember(struct bt_server *s, const struct bt_release *r)
{
	struct bt_release *c = copy(r);
	c->next = s->fresh;
	s->fresh = c;
}

static char *text_of(const json_t *row, const char *key)
{
	const char *t = json_string_value(json_object_get(row, key));
	return t ? bt_strdup(t) : NULL;
}

int bt_release_load(struct bt_server *s, uint32_t id, struct bt_release **ret, struct bt_err *err)
{
	for (const struct bt_release *f = s->fresh; f; f = f->next)
		if (f->id == id) {
			*ret = copy(f);
			return 0;
		}
	BT_JSON json_t *list = NULL;
	int r = bt_store_select(s->store, &list, err, BT_SQL_RELEASE_GET, (int64_t)id);
	if (r < 0)
		return r;
	json_t *row = json_array_get(list, 0);
	if (!row)
		return bt_err_set(err, BT_E_NOTFOUND, "no release number %u", id);
	struct bt_release *rel = bt_calloc(1, sizeof *rel);
	rel->id = id;
	rel->service = text_of(row, "service");
	rel->version = text_of(row, "version");
	rel->digest = text_of(row, "digest");
	rel->file_name = text_of(row, "file_name");
	rel->state = text_of(row, "state");
	rel->marked_by = text_of(row, "marked_by");
	rel->marked_why = text_of(row, "marked_why");
	rel->pruned_at = json_integer_value(json_object_get(row, "pruned_at"));
	rel->sealed = text_of(row, "secrets");
	rel->size = json_integer_value(json_object_get(row, "size"));
	const char *config = json_string_value(json_object_get(row, "config"));
	rel->config = config ? json_loads(config, 0, NULL) : NULL;
	if (!rel->config) {
		bt_release_free(rel);
		return bt_err_set(err, BT_E_CORRUPT, "release %u: its config does not parse", id);
	}
	*ret = rel;
	return 0;
}

static int open_sealed(struct bt_server *s, uint32_t id, const char *sealed, const char *what,
	json_t **ret, struct bt_err *err)
{
	int r = bt_secrets_open_json(s->key, sealed, ret, err);
	return r < 0 ? bt_err_wrap(err, "release %u: its %s", id, what) : 0;
}

int bt_release_secrets(
	struct bt_server *s, const struct bt_release *r, json_t **ret, struct bt_err *err)
{
	if (r->sealed && *r->sealed)
		return open_sealed(s, r->id, r->sealed, "secrets", ret, err);
	*ret = json_object();
	return 0;
}

int bt_release_files(struct bt_server *s, uint32_t id, json_t **ret, struct bt_err *err)
{
	BT_JSON json_t *rows = NULL;
	int r = bt_store_select(s->store, &rows, err, BT_SQL_RELEASE_FILES, (int64_t)id);
	const char *sealed = json_string_value(json_object_get(json_array_get(rows, 0), "files"));
	*ret = NULL;
	return r < 0 || !sealed ? r : open_sealed(s, id, sealed, "files", ret, err);
}

uint32_t bt_release_find_text(struct bt_server *s, const char *service, const char *text)
{
	int64_t id = bt_store_number(s->store, 0, BT_SQL_RELEASE_BY_VERSION, service, text);
	if (id > 0 || bt_int_parse(text, 1, UINT32_MAX, &id, NULL) < 0)
		return id > 0 ? (uint32_t)id : 0;
	struct bt_release *r = NULL;
	if (bt_release_load(s, (uint32_t)id, &r, NULL) < 0)
		return 0;
	bool same = bt_streq(r->service, service);
	bt_release_free(r);
	return same ? (uint32_t)id : 0;
}

uint32_t bt_release_previous(struct bt_server *s, const char *service, uint32_t live)
{
	int64_t id = bt_store_number(s->store, 0, BT_SQL_DEPLOYMENT_BEFORE, service, (int64_t)live);
	if (id > 0)
		return (uint32_t)id;
	BT_JSON json_t *list = NULL;
	if (bt_store_select(s->store, &list, NULL, BT_SQL_RELEASES_GOOD, service, (int64_t)2) < 0)
		return 0;
	for (size_t i = 0; i < json_array_size(list); i++) {
		id = json_integer_value(json_object_get(json_array_get(list, i), "id"));
		if (id != live)
			return (uint32_t)id;
	}
	return 0;
}

int bt_release_bad(
	const char *what, const char *state, const char *by, const char *why, struct bt_err *err)
{
	if (!bt_streq(state, "bad"))
		return 0;
	return by ? bt_err_set(err, BT_E_REFUSED,
			    "%s was marked bad by %s%s%s: --force takes it all "
			    "the same",
			    what, by, why ? ": " : "", why ? why : "")
		  : bt_err_set(err, BT_E_REFUSED,
			    "the deployment of %s failed, so it is bad: --force takes it all the "
			    "same",
			    what);
}

size_t bt_release_known(
	struct bt_server *s, const char *service, struct bt_arena *a, struct bt_plan_release **ret)
{
	BT_JSON json_t *list = NULL;
	if (bt_store_select(s->store, &list, NULL, BT_SQL_RELEASES_OF, service) < 0)
		return 0;
	size_t n = json_array_size(list);
	*ret = BT_ARENA_ARRAY(a, struct bt_plan_release, n + 1);
	for (size_t i = 0; i < n; i++) {
		const json_t *row = json_array_get(list, i);
		(*ret)[i] = (struct bt_plan_release){
			.id = (uint32_t)json_integer_value(json_object_get(row, "id")),
			.version = bt_arena_strdup(
				a, json_string_value(json_object_get(row, "version"))),
			.digest = bt_arena_strdup(
				a, json_string_value(json_object_get(row, "digest"))),
		};
	}
	return n;
}

static const struct bt_seen_instance *seen_at(
	const struct bt_world *w, const char *host, const char *slot)
{
	for (size_t h = 0; h < w->n_hosts; h++)
		for (size_t i = 0; bt_streq(w->hosts[h].host, host) && i < w->hosts[h].n_instances;
			i++)
			if (bt_streq(w->hosts[h].instances[i].slot, slot))
				return &w->hosts[h].instances[i];
	return NULL;
}

void bt_release_adopted(struct bt_release *r, const struct bt_plan *p, const struct bt_world *w)
{
	const struct bt_seen_foreign *common = NULL;
	bool same = true;
	const struct bt_lane *lane = &p->stages[0].lanes[0];
	for (size_t t = 0; t < lane->n_tasks; t++) {
		const struct bt_plan_instance *i = &p->instances[lane->tasks[t].instance];
		const struct bt_seen_instance *seen = seen_at(w, p->hosts[i->host], i->slot);
		const struct bt_seen_foreign *f = seen ? seen->foreign : NULL;
		same &= f && f->digest && (!common || bt_streq(common->digest, f->digest));
		common = f;
	}
	const char *slash = same && common ? strrchr(common->artifact, '/') : NULL;
	r->digest = bt_strdup(slash ? common->digest : "");
	r->size = slash ? common->size : 0;
	r->file_name = bt_strdup(slash ? slash + 1 : "unknown");
}
