/* Exec: a program of the user's, beside the release it came with. It runs under a shim, so an agent
 * that comes back finds it (or how it ended); only where nobody saw its end the outcome is unknown.
 */
#include "agent/tasks.h"

#include "base/json.h"
#include "base/str.h"
#include "driver/log_tail.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LOG_LINES 500
#define MAX_WORDS 1000

const char *bt_task_exec_name(const struct bt_command_key *k, char buf[static BT_TASK_NAME_MAX])
{
	snprintf(buf, BT_TASK_NAME_MAX, "%" PRIu64 "-%" PRIu32 "-%" PRIu32, k->deployment, k->task,
		k->attempt);
	return buf;
}

/* ---- reading ------------------------------------------------------------------------------ */

static int read_words(struct bt_job *j, struct bt_err *err)
{
	json_t *list = NULL, *word;
	size_t i;
	int r = bt_json_array(j->params, "run", &list, err);
	if (r < 0)
		return r;
	const char **words = BT_ARENA_ARRAY(j->arena, const char *, MAX_WORDS + 1);
	json_array_foreach (list, i, word) {
		if (!json_is_string(word) || i == MAX_WORDS)
			return bt_err_set(
				err, BT_E_PROTOCOL, "params.run[%zu]: expected a text", i);
		words[j->program.n_run++] = json_string_value(word);
	}
	j->program.run = words;
	return j->program.n_run ? 0 : bt_err_set(err, BT_E_PROTOCOL, "params.run: it is empty");
}

int bt_task_exec_check(struct bt_job *j, struct bt_err *err)
{
	int64_t release = 0;
	int r = bt_policy_exec(bt_job_exec(j)->policy, err);
	if (r == 0)
		r = bt_job_take_service(j, err);
	if (r == 0)
		r = bt_policy_run(bt_job_exec(j)->policy, j->service, err);
	if (r == 0 && json_object_get(j->params, "slot"))
		r = bt_job_read_slot(j, err);
	if (r == 0)
		r = bt_json_int(j->params, "release", 1, UINT32_MAX, &release, err);
	if (r == 0)
		r = bt_json_bool_opt(j->params, "safe", &j->program.safe, err);
	if (r == 0)
		r = bt_json_bool_opt(j->params, "anywhere", &j->anywhere, err);
	if (r == 0)
		r = read_words(j, err);
	if (r == 0)
		r = bt_job_read_env(j, NULL, err);
	j->release = (uint32_t)release;
	return r;
}

/* ---- running ------------------------------------------------------------------------------ */

const char *bt_task_keep_log(struct bt_job *j, const char *program, struct bt_str *all)
{
	BT_STR struct bt_str tail = {0};
	char path[4096];
	const char *last = NULL;
	bt_program_log(bt_job_env(j), program, path, sizeof path);
	bt_log_tail_last(path, LOG_LINES, &tail, NULL);
	for (char *save = NULL, *l = tail.len ? strtok_r(tail.data, "\n", &save) : NULL; l;
		l = strtok_r(NULL, "\n", &save)) {
		if (strstr(l, "Z baton: "))
			continue; /* the shim's own */
		BT_FREE char *line = bt_asprintf("| %.3900s", l);
		bt_job_log(j, line);
		if (all)
			bt_str_addf(all, "%s%s", last ? " | " : "", l);
		last = l;
	}
	return bt_arena_strdup(j->arena, last);
}

static void on_ended(void *arg, const struct bt_program_end *end)
{
	struct bt_job *j = arg;
	char limit[32], name[BT_TASK_NAME_MAX];
	j->op = NULL; /* it has called back: it is gone */
	j->ended = true;
	const char *last = bt_task_keep_log(j, bt_task_exec_name(&j->key, name), NULL);
	const char *sep = last ? ": " : "", *words = last ? last : "";
	if (end->held) {
		bt_job_finish(j, BT_OUTCOME_FAILED,
			"exit code 0, but it left %s running, which holds its output: it was "
			"ended; a program may leave nothing running (what shall run on is a "
			"service of its own)",
			end->held);
	} else if (end->began && end->seen && end->code == 0 && !end->late) {
		bt_job_finish(j, BT_OUTCOME_DONE, "exit code 0");
	} else if (!end->began) {
		bt_job_finish(j, BT_OUTCOME_FAILED, "%s", end->text);
	} else if (end->late) {
		bt_job_finish(j, BT_OUTCOME_FAILED,
			"not done within %s: it was ended with all that it had started%s%s",
			bt_duration_format(j->wait_ms, limit),
			last ? "; it last wrote: " : "; it wrote nothing", words);
	} else if (end->seen) {
		bt_job_finish(j, BT_OUTCOME_FAILED, "%s%s%s", end->text, sep, words);
	} else if (j->program.safe && j->restarts < 1) {
		j->restarts = 1;
		bt_job_say(j, "%s; it may be repeated, so it is run again", end->text);
		bt_program_forget(bt_job_env(j), bt_task_exec_name(&j->key, name));
		j->ended = false;
		bt_task_exec_go(j);
	} else {
		bt_job_finish(j, BT_OUTCOME_UNKNOWN,
			"%s; it may have done all, a part or nothing%s%s", end->text,
			last ? "; it last wrote: " : "", words);
	}
}

void bt_task_exec_go(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	struct bt_err err = {0};
	struct bt_release_on_disk disk = {0};
	char name[BT_TASK_NAME_MAX];
	int r = x->drivers->release_find(
		x->driver, j->service_name, j->release, j->arena, &disk, &err);
	if (r < 0 && j->anywhere)
		disk = (struct bt_release_on_disk){.dir = "/", .artifact = ""};
	else if (r < 0) {
		bt_job_finish_result(j, r, &err, "");
		return;
	}
	/* As an instance of its service runs, with another command and in the release's directory.
	 */
	struct bt_service *as = bt_arena_memdup(j->arena, j->service, sizeof *as);
	as->run.command = j->program.run;
	as->run.n_command = j->program.n_run;
	as->run.env = j->program.env;
	as->run.n_env = j->program.n_env;
	as->run.dir = NULL;
	struct bt_kv *secrets;
	size_t n = bt_job_secrets(j, json_object_get(j->params, "secrets"), &secrets);
	const char *version = json_string_value(json_object_get(j->params, "version"));
	struct bt_start_request rq = {
		.ref = j->slot ? bt_job_ref(j)
			       : (struct bt_instance_ref){.service = j->service_name, .slot = ""},
		.release = j->release,
		.version = disk.version ? disk.version : version,
		.artifact = disk.artifact,
		.release_dir = disk.dir,
		.service = as,
		.secrets = secrets,
		.n_secrets = n,
	};
	j->op = x->drivers->program_run(x->driver, bt_task_exec_name(&j->key, name), &rq,
		j->wait_ms, bt_job_show, on_ended, j);
}

void bt_task_exec_over(struct bt_job *j)
{
	char name[BT_TASK_NAME_MAX];
	if (j->ended)
		bt_program_forget(bt_job_env(j), bt_task_exec_name(&j->key, name));
}

/* ---- Approve ------------------------------------------------------------------------------ */

int bt_task_approve_check(struct bt_job *j, struct bt_err *err)
{
	(void)j;
	return bt_err_set(err, BT_E_PROTOCOL, "Approve is the server's own: no agent does it");
}
