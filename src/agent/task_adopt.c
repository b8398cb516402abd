/* Adopt: what others started becomes the slot's instance. The process is left as it is; kept of it
 * are its name for ever (pid, start time, boot id) and, where it is known, the file that it runs,
 * so that a rollback can start that again once it was stopped. */
#include "agent/tasks.h"

#include "base/json.h"
#include "base/str.h"

#include <string.h>

static const struct bt_runtime_ops *runtime(struct bt_job *j)
{
	return bt_job_exec(j)->drivers->runtime(j->service->run.as);
}

int bt_task_adopt_check(struct bt_job *j, struct bt_err *err)
{
	json_t *about = NULL;
	int r = bt_job_read_slot(j, err);
	if (r == 0)
		r = bt_job_read_service(j, err);
	if (r == 0)
		r = bt_json_str(j->params, "version", &j->version, err);
	if (r == 0)
		r = bt_json_str(j->params, "digest", &j->digest, err);
	if (r == 0)
		r = bt_json_str(j->params, "file_name", &j->file_name, err);
	if (r == 0)
		r = bt_json_int(j->params, "size", 0, INT64_MAX, &j->size, err);
	if (r == 0)
		r = bt_json_object(j->params, "release_json", &about, err);
	if (r == 0 && *j->digest && j->key.verb == BT_DO)
		r = bt_job_render_files(j, json_object_get(about, "service"), err);
	if (r == 0 && (!runtime(j) || !runtime(j)->adopt))
		r = bt_err_set(
			err, BT_E_REFUSED, "the runtime of %s cannot adopt", j->service_name);
	return r;
}

static void on_recorded(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	struct bt_seen_instance seen;
	char done[96] = "adopted";
	/* It is not wanted to run: after a boot it is for others to start, as before. */
	if (result == 0 && bt_job_slot_seen(j, j->arena, &seen))
		snprintf(done, sizeof done, "adopted pid %d, which is left as it is", seen.pid);
	bt_job_finish_result(j, result, err, done);
}

static void record(struct bt_job *j)
{
	struct bt_adopt_request rq = {.ref = bt_job_ref(j),
		.release = j->release,
		.version = j->version,
		.command = j->foreign->seen.command,
		.pid = j->foreign->pid,
		.start_ticks = j->foreign->start_ticks,
		.since_wall_ms = j->foreign->since_wall_ms};
	j->op = runtime(j)->adopt(&rq, on_recorded, j);
}

static void on_kept(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	j->op = NULL;
	if (result < 0) /* it serves all the same, and a rollback will say what it lacks */
		bt_job_say(j, "its artifact is not kept: %s", err->text);
	record(j);
}

static void keep_artifact(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	BT_FREE char *about = bt_json_dump(json_object_get(j->params, "release_json"));
	struct bt_fetch_request rq = {.release = j->release,
		.service = j->service_name,
		.version = j->version,
		.digest = j->digest,
		.size = j->size,
		.file_name = j->file_name,
		.release_json = about,
		.url = "",
		.local = j->foreign->seen.artifact,
		.files = j->files,
		.n_files = j->n_files,
		.owner = j->service->run.user,
		.keep_free_bytes = x->keep_free_bytes};
	bt_job_say(j, "keep %s as release %u", rq.local, j->release);
	j->op = x->drivers->artifact_place(x->driver, &rq, bt_job_progress, j, on_kept, j);
}

static void on_examined(void *arg, int result, const struct bt_foreign *f, const struct bt_err *err)
{
	struct bt_job *j = arg;
	struct bt_err no = {0};
	j->op = NULL;
	if (result == 0)
		result = bt_policy_adopt(bt_job_exec(j)->policy, f->uid, f->seen.user, &no);
	else
		no = *err;
	if (result < 0) {
		bt_job_finish_result(j, result, &no, "");
		return;
	}
	if (*j->digest && !bt_streq(j->digest, f->seen.digest)) {
		bt_job_finish(j, BT_OUTCOME_FAILED,
			"%s (pid %d) on port %d is not what was found there a moment ago; adopt "
			"again",
			f->name, (int)f->pid, j->port);
		return;
	}
	struct bt_foreign *copy = BT_ARENA_NEW(j->arena, struct bt_foreign);
	*copy = *f;
	copy->seen.command = bt_arena_strdup(j->arena, f->seen.command);
	copy->seen.artifact = bt_arena_strdup(j->arena, f->seen.artifact);
	j->foreign = copy;
	bt_job_say(j, "%s on port %d, pid %d, of %s", copy->seen.command, j->port, (int)f->pid,
		f->seen.user);
	if (*j->digest)
		keep_artifact(j);
	else
		record(j);
}

void bt_task_adopt_go(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	j->op = x->drivers->foreign_examine(x->driver, j->port, j->service, on_examined, j);
}

bool bt_task_adopt_there(struct bt_job *j)
{
	struct bt_seen_instance seen;
	return bt_job_slot_seen(j, j->arena, &seen) && seen.adopted && seen.release == j->release &&
	       seen.state == BT_RUN_RUNNING;
}

static void on_disowned(void *arg, int result, const struct bt_err *err)
{
	bt_job_finish_result(arg, result, err, "given up; it runs on as before");
}

void bt_task_adopt_undo(struct bt_job *j)
{
	struct bt_instance_ref ref = bt_job_ref(j);
	if (j->prior.running && j->prior.release == j->release) {
		bt_job_finish(j, BT_OUTCOME_DONE, "it was adopted before");
		return;
	}
	bt_known_want_slot(
		bt_job_exec(j)->known, j->service_name, j->slot, j->port, j->release, false, NULL);
	j->op = runtime(j)->disown(&ref, on_disowned, j);
}
