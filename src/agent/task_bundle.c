/* CodeDeploy bundles: Lifecycle runs the scripts of an event, Install puts the files where they go.
 *
 * The scripts of an event run one after the other, each as a program under a shim of its own, by
 * the command's name and the script's number. So an agent that comes back begins with the first one
 * again and finds how each ended, up to the one that still runs. What a script starts in the
 * background lives on; but a script whose child holds its output open has failed, as with
 * CodeDeploy.
 *
 * Result codes: 0 done, 1 the script is missing, 2 it cannot be made executable, 3 it took too
 * long, 4 it failed, 5 it could not be started, 6 its output was left open, 7 nobody saw how it
 * ended. */
#include "agent/tasks.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"
#include "driver/bundle.h"
#include "driver/log_tail.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TAIL_CHARS 2048
#define NAME_MAX_LEN (BT_TASK_NAME_MAX + 8)

enum code { DONE, MISSING, NOT_EXECUTABLE, LATE, FAILED, NOT_STARTED, LEFT_OPEN, UNSEEN };

struct bt_task_bundle {
	enum bt_lifecycle event;
	struct bt_release_on_disk disk; /* the revision whose scripts they are */
	const struct bt_appspec *spec;
	const char *asked; /* the appspec's name; NULL */
	size_t at;	   /* the script that runs */
	int64_t begun_ms;
};

static const char *program_name(const struct bt_job *j, size_t i, char buf[static NAME_MAX_LEN])
{
	char name[BT_TASK_NAME_MAX];
	snprintf(buf, NAME_MAX_LEN, "%s-%zu", bt_task_exec_name(&j->key, name), i);
	return buf;
}

static const struct bt_appspec_event *event_of(const struct bt_job *j)
{
	return &j->bundle->spec->events[j->bundle->event];
}

/* ---- reading ----------------------------------------------------------------------------- */

static int read_common(struct bt_job *j, struct bt_err *err)
{
	int64_t release = 0;
	int r = bt_job_take_service(j, err);
	if (r == 0 && json_object_get(j->params, "slot"))
		r = bt_job_read_slot(j, err);
	if (r == 0)
		r = bt_json_int(j->params, "release", 1, UINT32_MAX, &release, err);
	if (r == 0)
		r = bt_json_str_opt(j->params, "version", &j->version, err);
	if (r == 0 && j->service->run.as != BT_RUNTIME_BUNDLE)
		r = bt_err_set(err, BT_E_PROTOCOL, "params.service: it is no bundle");
	if (r < 0)
		return r;
	j->release = (uint32_t)release;
	j->bundle = BT_ARENA_NEW(j->arena, struct bt_task_bundle);
	j->bundle->begun_ms = bt_clock_boot_ms();
	return 0;
}

/* A brace in a value is a brace: scripts have the environment for what placeholders are to others.
 */
static const char *literal(struct bt_job *j, const char *text)
{
	BT_STR struct bt_str out = {0};
	for (; *text; text++)
		bt_str_add(&out, *text == '{' ? "{{" : (char[]){*text, 0});
	return bt_arena_strdup(j->arena, bt_str_get(&out));
}

int bt_task_lifecycle_check(struct bt_job *j, struct bt_err *err)
{
	const char *event = NULL;
	int r = read_common(j, err);
	if (r == 0)
		r = bt_json_str(j->params, "event", &event, err);
	if (r < 0)
		return r;
	j->bundle->event = bt_lifecycle_find(event);
	if (j->bundle->event == BT_LIFECYCLES || !bt_lifecycles[j->bundle->event].scripts)
		return bt_err_set(
			err, BT_E_PROTOCOL, "params.event: '%.40s' has no scripts", event);
	return bt_job_read_env(j, literal, err);
}

/* ---- whose scripts ----------------------------------------------------------------------- */

/* The name of the appspec that the release's own config asks for; NULL: the usual ones. */
static const char *asked_name(struct bt_job *j, const struct bt_release_on_disk *disk)
{
	BT_JSON json_t *service = NULL;
	if (bt_release_service(disk, &service, NULL) < 0)
		return NULL;
	const json_t *run = json_object_get(service, "run");
	return bt_arena_strdup(j->arena, json_string_value(json_object_get(run, "appspec")));
}

/* The last successful one; 0: there was none. */
static int last_release(struct bt_job *j, uint32_t *ret, struct bt_err *err)
{
	struct bt_bundle_state state;
	int r = bt_bundle_state_read(
		bt_job_env(j)->state_dir, j->service_name, j->arena, &state, err);
	const char *slot = j->slot		     ? j->slot
			   : j->service->run.n_slots ? j->service->run.slots[0].name
						     : "";
	const struct bt_bundle_last *last = r < 0 ? NULL : bt_bundle_last(&state, slot);
	*ret = last ? last->release : 0;
	return r;
}

/* 1: there is no revision whose scripts could run, and that is said. */
static int find_revision(struct bt_job *j, struct bt_err *err)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	struct bt_task_bundle *b = j->bundle;
	const char *event = bt_lifecycles[b->event].name;
	uint32_t id = j->release;
	int r = bt_lifecycles[b->event].last ? last_release(j, &id, err) : 0;
	if (r < 0)
		return r;
	if (!id) {
		bt_job_finish(j, BT_OUTCOME_DONE,
			"%s: no revision was installed here before, so there is no script", event);
		return 1;
	}
	r = x->drivers->release_find(x->driver, j->service_name, id, j->arena, &b->disk, err);
	if (r == BT_E_NOTFOUND && bt_lifecycles[b->event].last) {
		bt_job_finish(j, BT_OUTCOME_DONE,
			"%s: the revision that was installed last is no longer on this host, so "
			"there is no script",
			event);
		return 1;
	}
	if (r == 0)
		b->asked = asked_name(j, &b->disk);
	return r;
}

static int read_appspec(struct bt_job *j, const char *revision, const char *asked,
	const struct bt_appspec **ret, struct bt_err *err)
{
	struct bt_config_problems problems = {0};
	struct bt_appspec *spec = NULL;
	int r = bt_bundle_appspec(revision, asked, &spec, &problems, err);
	bt_config_problems_done(&problems);
	if (r < 0)
		return r;
	bt_arena_adopt(j->arena, spec->arena);
	*ret = spec;
	return 0;
}

int bt_task_bundle_placed(struct bt_job *j, const json_t *release_json, struct bt_err *err)
{
	const json_t *service = json_object_get(release_json, "service");
	const json_t *run = json_object_get(service ? service : release_json, "run");
	const char *as = json_string_value(json_object_get(run, "as"));
	if (!bt_streq(as, bt_enum_name(&bt_enum_runtime, BT_RUNTIME_BUNDLE)))
		return 0;
	const struct bt_exec_env *x = bt_job_exec(j);
	const struct bt_appspec *spec = NULL;
	struct bt_release_on_disk disk;
	int r = x->drivers->release_find(
		x->driver, j->service_name, j->release, j->arena, &disk, err);
	if (r == 0)
		r = read_appspec(j, disk.dir, json_string_value(json_object_get(run, "appspec")),
			&spec, err);
	return r < 0 ? r : bt_bundle_check(disk.dir, spec, err);
}

/* ---- the end of a script ----------------------------------------------------------------- */

/* What it wrote goes into the task's log; its last characters come back, in one line. */
static const char *keep_log(struct bt_job *j, const char **ret_last)
{
	BT_STR struct bt_str own = {0};
	char name[NAME_MAX_LEN];
	*ret_last = bt_task_keep_log(j, program_name(j, j->bundle->at, name), &own);
	size_t skip = own.len > TAIL_CHARS ? own.len - TAIL_CHARS : 0;
	return bt_arena_strdup(j->arena, bt_str_get(&own) + skip);
}

static void failed(
	struct bt_job *j, enum code code, const char *what, const char *last, const char *tail)
{
	const struct bt_task_bundle *b = j->bundle;
	BT_STR struct bt_str text = {0};
	bt_str_addf(&text, "%s: %s: result code %d, %s", bt_lifecycles[b->event].name,
		event_of(j)->scripts[b->at].location, (int)code, what);
	if (last)
		bt_str_addf(&text, ": %.400s", last);
	if (tail && last && !bt_streq(tail, last))
		bt_str_addf(&text, "; its log ends: %s", tail);
	bt_job_finish_text(
		j, code == UNSEEN ? BT_OUTCOME_UNKNOWN : BT_OUTCOME_FAILED, bt_str_get(&text));
}

static void next(struct bt_job *j);

static void on_ended(void *arg, const struct bt_program_end *end)
{
	struct bt_job *j = arg;
	struct bt_task_bundle *b = j->bundle;
	const struct bt_appspec_script *s = &event_of(j)->scripts[b->at];
	char limit[32];
	const char *last, *tail;
	j->op = NULL; /* it has called back: it is gone */
	j->ended = true;
	tail = keep_log(j, &last);
	if (!end->began) {
		failed(j, NOT_STARTED, end->text, last, tail);
	} else if (end->late) {
		BT_FREE char *what = bt_asprintf("not done within %s, so it was ended",
			bt_duration_format(s->timeout_ms, limit));
		failed(j, LATE, what, last, tail);
	} else if (end->held) {
		BT_FREE char *what = bt_asprintf(
			"it ended, but %s still held its output open after %s: send the output of "
			"what runs on in the background elsewhere",
			end->held, bt_duration_format(s->timeout_ms, limit));
		failed(j, LEFT_OPEN, what, last, tail);
	} else if (!end->seen) {
		failed(j, UNSEEN, end->text, last, tail);
	} else if (end->code != 0) {
		failed(j, FAILED, end->text, last, tail);
	} else {
		b->at++;
		next(j);
	}
}

/* ---- running ----------------------------------------------------------------------------- */

static int make_executable(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return -errno;
	return (st.st_mode & 0111) == 0111 || chmod(path, (st.st_mode & 07777) | 0555) == 0
		       ? 0
		       : -errno;
}

/* What is left of the script's own time and of the event's; at least something, so that a script
 * which has ended already, before a restart of the agent, is still found. */
static int64_t time_left(const struct bt_job *j)
{
	const struct bt_task_bundle *b = j->bundle;
	int64_t left = BT_APPSPEC_EVENT_MS - (bt_clock_boot_ms() - b->begun_ms);
	int64_t own = event_of(j)->scripts[b->at].timeout_ms;
	return left < 1000 ? 1000 : left < own ? left : own;
}

static void run(struct bt_job *j, const char *path)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	struct bt_task_bundle *b = j->bundle;
	const struct bt_appspec_script *s = &event_of(j)->scripts[b->at];
	struct bt_err err = {0};
	char name[NAME_MAX_LEN];
	struct bt_service *as = bt_arena_memdup(j->arena, j->service, sizeof *as);
	const char **command = BT_ARENA_ARRAY(j->arena, const char *, 2);
	command[0] = literal(j, path);
	as->run.command = command;
	as->run.n_command = 1;
	as->run.env = j->program.env;
	as->run.n_env = j->program.n_env;
	as->run.dir = NULL;
	if (s->runas)
		as->run.user = s->runas;
	if (bt_policy_exec(x->policy, &err) < 0 || bt_policy_run(x->policy, as, &err) < 0) {
		bt_err_wrap(&err, "%s: %s", bt_lifecycles[b->event].name, s->location);
		bt_job_finish(j, BT_OUTCOME_REFUSED, "%s", err.text);
		return;
	}
	struct bt_kv *secrets;
	size_t n = bt_job_secrets(j, json_object_get(j->params, "secrets"), &secrets);
	struct bt_start_request rq = {
		.ref = j->slot ? bt_job_ref(j)
			       : (struct bt_instance_ref){.service = j->service_name, .slot = ""},
		.release = b->disk.id,
		.version = b->disk.version,
		.artifact = b->disk.artifact,
		.release_dir = b->disk.dir,
		.service = as,
		.secrets = secrets,
		.n_secrets = n,
		.leave = true,
	};
	bt_job_say(j, "%s: %s%s%s", bt_lifecycles[b->event].name, s->location,
		as->run.user ? " as " : "", as->run.user ? as->run.user : "");
	j->ended = false;
	j->op = x->drivers->program_run(x->driver, program_name(j, b->at, name), &rq, time_left(j),
		bt_job_show, on_ended, j);
}

/* The slots that the job is about: its own one, or all of the host's. */
static const char *const *slots_of(struct bt_job *j, size_t *ret_n)
{
	const struct bt_run *run = &j->service->run;
	const char **slots = BT_ARENA_ARRAY(j->arena, const char *, run->n_slots + 1);
	*ret_n = j->slot ? 1 : run->n_slots;
	for (size_t i = 0; i < *ret_n; i++)
		slots[i] = j->slot ? j->slot : run->slots[i].name;
	return slots;
}

/* From here on what runs is what was installed. false: that could not be kept, and is said. */
static bool note_start(struct bt_job *j)
{
	struct bt_err err = {0};
	size_t n;
	if (j->bundle->event != BT_LIFE_APPLICATION_START)
		return true;
	const char *const *slots = slots_of(j, &n);
	int r = bt_bundle_started(bt_job_env(j)->state_dir, j->service_name, slots, n, &err);
	if (r < 0)
		bt_job_finish_result(j, r, &err, "");
	return r == 0;
}

static void next(struct bt_job *j)
{
	struct bt_task_bundle *b = j->bundle;
	const struct bt_appspec_event *e = event_of(j);
	if (b->at == e->n) {
		if (!note_start(j))
			return;
		bt_job_finish(j, BT_OUTCOME_DONE, "%s: result code 0, %zu script%s",
			bt_lifecycles[b->event].name, e->n, e->n == 1 ? "" : "s");
		return;
	}
	const char *path =
		bt_arena_printf(j->arena, "%s/%s", b->disk.dir, e->scripts[b->at].location);
	int r = make_executable(path);
	if (r == -ENOENT || r == -ENOTDIR)
		failed(j, MISSING, "it is not in the bundle", NULL, NULL);
	else if (r < 0) {
		BT_FREE char *what = bt_asprintf("it cannot be made executable: %s", strerror(-r));
		failed(j, NOT_EXECUTABLE, what, NULL, NULL);
	} else
		run(j, path);
}

void bt_task_lifecycle_go(struct bt_job *j)
{
	struct bt_task_bundle *b = j->bundle;
	struct bt_err err = {0};
	int r = find_revision(j, &err);
	if (r == 0)
		r = read_appspec(j, b->disk.dir, b->asked, &b->spec, &err);
	if (r < 0) {
		bt_err_wrap(&err, "%s", bt_lifecycles[b->event].name);
		bt_job_finish_result(j, r, &err, "");
	}
	if (r != 0)
		return;
	if (event_of(j)->n == 0 && note_start(j))
		bt_job_finish(j, BT_OUTCOME_DONE, "%s: no script", bt_lifecycles[b->event].name);
	else if (event_of(j)->n)
		next(j);
}

void bt_task_lifecycle_over(struct bt_job *j)
{
	char name[NAME_MAX_LEN];
	size_t n = j->bundle && j->bundle->spec && j->ended ? event_of(j)->n : 0;
	for (size_t i = 0; i < n; i++)
		bt_program_forget(bt_job_env(j), program_name(j, i, name));
}

/* ---- Install ----------------------------------------------------------------------------- */

int bt_task_install_check(struct bt_job *j, struct bt_err *err)
{
	/* Who may write files to where a host's owner keeps his own might as well run a program. */
	int r = bt_policy_exec(bt_job_exec(j)->policy, err);
	return r < 0 ? r : read_common(j, err);
}

static void on_installed(
	void *arg, int result, const struct bt_bundle_done *what, const struct bt_err *err)
{
	struct bt_job *j = arg;
	char text[160];
	snprintf(text, sizeof text, "%zu files and %zu directories%s", what->files,
		what->directories, what->removed ? "" : ", nothing was there before");
	if (what->removed)
		bt_job_say(j, "%zu files of the revision before were removed first", what->removed);
	if (what->retained)
		bt_job_say(j, "%zu files were there already and are retained", what->retained);
	bt_job_finish_result(j, result, err, text);
}

static int allowed(const void *arg, const char *path, struct bt_err *err)
{
	return bt_policy_place(arg, path, err);
}

void bt_task_install_go(struct bt_job *j)
{
	const struct bt_exec_env *x = bt_job_exec(j);
	struct bt_release_on_disk disk;
	struct bt_err err = {0};
	int r = x->drivers->release_find(
		x->driver, j->service_name, j->release, j->arena, &disk, &err);
	if (r < 0) {
		bt_job_finish_result(j, r, &err, "");
		return;
	}
	size_t n_slots;
	const char *const *slots = slots_of(j, &n_slots);
	struct bt_bundle_request rq = {
		.service = j->service_name,
		.version = disk.version,
		.release = j->release,
		.revision = disk.dir,
		.appspec = asked_name(j, &disk),
		.slots = slots,
		.n_slots = n_slots,
		.set_id = x->policy->root,
		.allowed = allowed,
		.arg = x->policy,
	};
	j->op = bt_bundle_install(x->driver, &rq, on_installed, j);
}
