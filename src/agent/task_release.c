/* ComponentDeploy and Prune: releases on this host's disk; and Observe. */
#include "agent/tasks.h"

#include "base/json.h"
#include "base/str.h"

#include <inttypes.h>
#include <string.h>

/* ---- ComponentDeploy ----------------------------------------------------------------------- */

static bool digest_is_good(const char *digest)
{
	return strlen(digest) == 64 && strspn(digest, "0123456789abcdef") == 64;
}

int bt_task_component_check(struct bt_job *j, struct bt_err *err)
{
	int64_t release = 0;
	json_t *about = NULL;
	int r = bt_json_int(j->params, "release", 1, UINT32_MAX, &release, err);
	if (r == 0)
		r = bt_json_str(j->params, "version", &j->version, err);
	if (r == 0)
		r = bt_json_str(j->params, "digest", &j->digest, err);
	if (r == 0)
		r = bt_json_int(j->params, "size", 0, INT64_MAX, &j->size, err);
	if (r == 0)
		r = bt_json_str(j->params, "file_name", &j->file_name, err);
	if (r == 0)
		r = bt_json_bool_opt(j->params, "unpack", &j->unpack, err);
	if (r == 0)
		r = bt_json_object(j->params, "release_json", &about, err);
	if (r < 0)
		return r;
	j->release = (uint32_t)release;
	if (!digest_is_good(j->digest))
		return bt_err_set(err, BT_E_PROTOCOL, "params.digest: expected 64 hex digits");
	if (strchr(j->file_name, '/') || j->file_name[0] == '.' || !j->file_name[0])
		return bt_err_set(err, BT_E_PROTOCOL, "params.file_name: expected a plain name");
	json_t *service = json_object_get(about, "service");
	j->zip = bt_streq(json_string_value(json_object_get(json_object_get(service, "run"), "as")),
		bt_enum_name(&bt_enum_runtime, BT_RUNTIME_TOMCAT));
	r = bt_known_learn(bt_job_exec(j)->known, json_is_object(service) ? service : about, err);
	return r == 0 && j->key.verb == BT_DO ? bt_job_render_files(j, service, err) : r;
}

static struct bt_fetch_request request(const struct bt_job *j)
{
	return (struct bt_fetch_request){
		.release = j->release,
		.service = j->service_name,
		.version = j->version,
		.digest = j->digest,
		.size = j->size,
		.file_name = j->file_name,
		.unpack = j->unpack,
		.zip = j->zip && !j->unpack,
		.files = j->files,
		.n_files = j->n_files,
		.owner = j->service ? j->service->run.user : NULL,
		.keep_free_bytes = bt_job_exec(j)->keep_free_bytes,
	};
}

char *bt_job_artifact(const struct bt_job *j)
{
	const struct bt_fetch_request rq = request(j);
	return bt_release_artifact(bt_job_env(j), &rq);
}

static bool on_disk(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	struct bt_release_on_disk disk;
	return x->drivers->release_find(
		       x->driver, j->service_name, j->release, j->arena, &disk, NULL) == 0;
}

void bt_task_component_prior(struct bt_job *j)
{
	j->prior.known = true;
	j->prior.present = on_disk(j);
	bt_job_begin(j);
}

bool bt_task_component_there(struct bt_job *j)
{
	return on_disk(j);
}

static void on_placed(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	struct bt_err why = {0};
	j->op = NULL; /* it has called back: it is gone */
	if (result >= 0 &&
		bt_task_bundle_placed(j, json_object_get(j->params, "release_json"), &why) < 0)
		bt_job_finish(j, BT_OUTCOME_FAILED, "%s", why.text);
	else
		bt_job_finish_result(
			j, result, err, j->prior.present ? "was there already" : "placed");
}

void bt_task_component_go(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	BT_FREE char *url = bt_asprintf("%s/%s", x->artifact_url, j->digest);
	BT_FREE char *about = bt_json_dump(json_object_get(j->params, "release_json"));
	struct bt_fetch_request rq = request(j);
	rq.release_json = bt_arena_strdup(j->arena, about);
	rq.url = bt_arena_strdup(j->arena, url);
	j->op = x->drivers->artifact_place(x->driver, &rq, bt_job_progress, j, on_placed, j);
}

static void on_pruned(void *arg, int result, const struct bt_err *err)
{
	bt_job_finish_result(arg, result, err, "removed");
}

void bt_task_component_undo(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	uint32_t *ids = NULL;
	if (j->prior.present) {
		bt_job_finish(j, BT_OUTCOME_DONE, "it was there before");
		return;
	}
	size_t n = x->drivers->release_list(x->driver, j->service_name, j->arena, &ids), kept = 0;
	uint32_t *keep = BT_ARENA_ARRAY(j->arena, uint32_t, n + 1);
	for (size_t i = 0; i < n; i++)
		if (ids[i] != j->release)
			keep[kept++] = ids[i];
	j->op = x->drivers->release_prune(x->driver, j->service_name, keep, kept, on_pruned, j);
}

/* ---- Prune --------------------------------------------------------------------------------- */

int bt_task_prune_check(struct bt_job *j, struct bt_err *err)
{
	json_t *list = NULL, *id;
	int64_t current = 0;
	size_t i;
	int r = bt_json_array(j->params, "keep", &list, err);
	if (r == 0)
		r = bt_json_int_opt(j->params, "current", 0, UINT32_MAX, &current, err);
	if (r < 0)
		return r;
	const struct bt_known_service *s = bt_known_find(bt_job_exec(j)->known, j->service_name);
	size_t n_slots = s ? s->n_slots : 0;
	uint32_t *keep = BT_ARENA_ARRAY(j->arena, uint32_t, json_array_size(list) + n_slots + 1);
	json_array_foreach (list, i, id) {
		if (!json_is_integer(id) || json_integer_value(id) < 0 ||
			json_integer_value(id) > UINT32_MAX)
			return bt_err_set(err, BT_E_PROTOCOL, "params.keep[%zu]: a release", i);
		keep[j->n_keep++] = (uint32_t)json_integer_value(id);
	}
	/* Whatever the server counted: what should run here, or is current, is never removed. */
	for (i = 0; i < n_slots; i++)
		if (s->slots[i].run)
			keep[j->n_keep++] = s->slots[i].release;
	if (current)
		keep[j->n_keep++] = (uint32_t)current;
	j->keep = keep;
	j->release = (uint32_t)current;
	return 0;
}

void bt_task_prune_go(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	struct bt_err err = {0};
	if (j->release &&
		x->drivers->release_activate(x->driver, j->service_name, j->release, &err) < 0)
		bt_job_say(
			j, "%s", err.text); /* a host without it, such as a balancer's: no harm */
	j->op = x->drivers->release_prune(
		x->driver, j->service_name, j->keep, j->n_keep, on_pruned, j);
}

/* ---- Observe ------------------------------------------------------------------------------- */

int bt_task_observe_check(struct bt_job *j, struct bt_err *err)
{
	return bt_job_read_service(j, err);
}

static void on_seen(void *arg, json_t *seen)
{
	struct bt_job *j = arg;
	j->observing = NULL;
	j->observation = json_incref(seen);
	bt_job_finish(j, BT_OUTCOME_DONE, "%s", "");
}

void bt_task_observe_go(struct bt_job *j)
{
	struct bt_err err = {0};
	int r = bt_observe_start(bt_job_exec(j), json_object_get(j->params, "service"),
		(struct bt_observe_what){.identity = true}, on_seen, j, &j->observing, &err);
	if (r < 0)
		bt_job_finish_result(j, r, &err, "");
}
