/* Files of a release: what the server sent, rendered for every slot that the release may run in, so
 * that all of it is there, and never changes, once the release is placed. */
#include "agent/job.h"

#include "base/base64.h"
#include "base/json.h"
#include "base/str.h"

#include <string.h>

#define MAX_PLACED 4096

struct render {
	struct bt_job *j;
	const struct bt_service *service;
	struct bt_placed_file *list;
	size_t n;
	char *artifact;
};

/* Where the path is taken by the same content (another slot's), nothing is added. */
static int add(struct render *r, const struct bt_file *f, const char *path, const char *data,
	size_t n, size_t first, struct bt_err *err)
{
	for (size_t i = 0; i < r->n; i++) {
		const struct bt_placed_file *p = &r->list[i];
		if (!bt_streq(p->path, path))
			continue;
		if (i >= first && p->n == n && memcmp(p->data, data, n) == 0)
			return 0;
		return bt_err_set(err, BT_E_CONFIG,
			"files: %s would be written twice with other contents%s", path,
			i >= first ? ": put {slot} in its `to`" : "");
	}
	if (r->n == MAX_PLACED)
		return bt_err_set(
			err, BT_E_CONFIG, "files: more than %d over all slots", MAX_PLACED);
	r->list[r->n++] = (struct bt_placed_file){bt_arena_strdup(r->j->arena, path),
		bt_arena_memdup(r->j->arena, data, n), n, (mode_t)f->mode};
	return 0;
}

static int render_for(struct render *r, const struct bt_file *f, const struct bt_slot *slot,
	const char *data, size_t n, size_t first, struct bt_err *err)
{
	const struct bt_placeholders p = {.artifact = r->artifact,
		.release = r->j->version,
		.slot = slot->name,
		.host = bt_job_env(r->j)->host,
		.port = slot->port,
		.ports = slot->more,
		.n_ports = slot->n_more};
	BT_STR struct bt_str path = {0}, text = {0};
	int e = bt_config_expand(f->to, &p, &path, err);
	if (e == 0 && f->template)
		e = bt_config_expand(data, &p, &text, err);
	if (e < 0)
		return bt_err_wrap(err, "files: %s", f->to);
	return add(r, f, bt_str_get(&path), f->template ? bt_str_get(&text) : data,
		f->template ? text.len : n, first, err);
}

static int render_one(struct render *r, const struct bt_file *f, struct bt_err *err)
{
	const char *sent = NULL;
	BT_FREE char *data = NULL;
	size_t n = 0, first = r->n;
	json_t *files = json_object_get(r->j->params, "files");
	int e = bt_json_str(files, f->to, &sent, err);
	if (e == 0)
		e = bt_unbase64(sent, &data, &n, err);
	if (e < 0)
		return bt_err_wrap(err, "params.files");
	for (size_t i = 0; e == 0 && i < r->service->run.n_slots; i++)
		e = render_for(r, f, &r->service->run.slots[i], data, n, first, err);
	return e;
}

int bt_job_render_files(struct bt_job *j, const json_t *service, struct bt_err *err)
{
	if (!json_array_size(json_object_get(service, "files")))
		return 0;
	int e = bt_config_service_from_json(service, &j->config, err);
	if (e < 0)
		return e;
	j->service = &j->config->services[0];
	struct render r = {.j = j,
		.service = j->service,
		.list = BT_ARENA_ARRAY(j->arena, struct bt_placed_file, MAX_PLACED),
		.artifact = bt_job_artifact(j)};
	e = bt_policy_run(bt_job_exec(j)->policy, j->service, err); /* whose the files become */
	for (size_t i = 0; e == 0 && i < r.service->n_files; i++)
		e = render_one(&r, &r.service->files[i], err);
	free(r.artifact);
	j->files = r.list;
	j->n_files = r.n;
	return e;
}
