/* InstanceStart, InstanceStop, HealthCheck, and the instance's half of Bake. */
#include "agent/tasks.h"

#include "base/json.h"
#include "base/str.h"

#include <stdio.h>
#include <string.h>

static const struct bt_runtime_ops *runtime(struct bt_job *j)
{
	return bt_job_exec(j)->drivers->runtime(j->service->run.as);
}

static int need_runtime(struct bt_job *j, struct bt_err *err)
{
	if (runtime(j))
		return 0;
	return bt_err_set(err, BT_E_REFUSED, "the runtime of %s is not in this agent (%s)",
		j->service_name, bt_job_exec(j)->agent_version);
}

/* ---- prior state --------------------------------------------------------------------------- */

static void see_prior(struct bt_job *j)
{
	struct bt_seen_instance seen;
	if (!bt_job_slot_seen(j, j->arena, &seen)) {
		bt_job_finish(j, BT_OUTCOME_FAILED, "slot %s cannot be observed", j->slot);
		return;
	}
	j->prior.known = true;
	j->prior.running = seen.state != BT_RUN_ABSENT;
	j->prior.release = j->prior.running ? seen.release : 0;
	bt_job_begin(j);
}

static void want(struct bt_job *j, uint32_t release, bool run, json_t *secrets)
{
	bt_known_want_slot(
		bt_job_exec(j)->known, j->service_name, j->slot, j->port, release, run, secrets);
}

/* ---- starting a release -------------------------------------------------------------------- */

/* The secrets of the command, else those that the slot was last started with. */
static json_t *secrets_of(struct bt_job *j)
{
	json_t *given = json_object_get(j->params, "secrets");
	const struct bt_wanted_slot *w =
		bt_known_slot(bt_job_exec(j)->known, j->service_name, j->slot);
	return json_is_object(given) ? given : w ? w->secrets : NULL;
}

static void start_release(struct bt_job *j, uint32_t id, bt_done_fn done)
{
	struct bt_err err = {0};
	struct bt_release_on_disk disk;
	int r = bt_job_release_service(j, id, &disk, &err);
	if (r == 0)
		r = bt_policy_run(bt_job_exec(j)->policy, j->service, &err);
	if (r == 0)
		r = need_runtime(j, &err);
	if (r < 0) {
		bt_job_finish_result(j, r, &err, "");
		return;
	}
	struct bt_kv *secrets;
	size_t n_secrets = bt_job_secrets(j, secrets_of(j), &secrets);
	want(j, id, true, json_object_get(j->params, "secrets"));
	bt_job_say(j, "start %s in %s on port %d", disk.version ? disk.version : "release", j->slot,
		j->port);
	struct bt_start_request rq = {
		.ref = bt_job_ref(j),
		.release = id,
		.version = disk.version,
		.artifact = disk.artifact,
		.release_dir = disk.dir,
		.service = j->service,
		.secrets = secrets,
		.n_secrets = n_secrets,
	};
	j->version = disk.version;
	j->op = runtime(j)->start(&rq, done, j);
}

static void on_stopped(void *arg, int result, const struct bt_err *err)
{
	bt_job_finish_result(arg, result, err, "stopped");
}

static void stop_slot(struct bt_job *j)
{
	struct bt_instance_ref ref = bt_job_ref(j);
	want(j, j->release, false, NULL);
	j->op = runtime(j)->stop(&ref, j->service, bt_job_progress, on_stopped, j);
}

/* ---- health -------------------------------------------------------------------------------- */

static void health_target(struct bt_job *j, struct bt_health_target *t)
{
	struct bt_instance_ref ref = bt_job_ref(j);
	*t = (struct bt_health_target){.health = &j->service->health,
		.address = "127.0.0.1",
		.port = j->port,
		.more = ref.more,
		.n_more = ref.n_more,
		.slot = j->slot,
		.host = bt_job_env(j)->host};
	struct bt_release_on_disk disk;
	const struct bt_exec_env *x = bt_job_exec(j);
	if (j->release && x->drivers->release_find(x->driver, j->service_name, j->release, j->arena,
				  &disk, NULL) == 0) {
		t->artifact = disk.artifact;
		t->version = disk.version;
		j->version = disk.version;
	}
}

static void on_identity(void *arg, int result, const char *body, const struct bt_err *err)
{
	struct bt_job *j = arg;
	j->op = NULL;
	if (result < 0) {
		bt_job_finish(j, BT_OUTCOME_FAILED, "healthy, but its identity cannot be asked: %s",
			err ? err->text : "no answer");
		return;
	}
	struct bt_placeholders p = {.release = j->version ? j->version : "",
		.slot = j->slot,
		.host = bt_job_env(j)->host,
		.port = j->port};
	const char *template = j->service->identity.expect;
	BT_STR struct bt_str expected = {0};
	struct bt_err bad = {0};
	if (bt_config_expand(template ? template : "{slot}", &p, &expected, &bad) < 0)
		bt_job_finish(j, BT_OUTCOME_FAILED, "identity.expect: %s", bad.text);
	else if (strcmp(bt_str_get(&expected), body) != 0)
		bt_job_finish(j, BT_OUTCOME_FAILED,
			"healthy, but port %d says it is '%.200s', expected '%.200s': another "
			"program or release answers there",
			j->port, body, bt_str_get(&expected));
	else
		bt_job_finish(j, BT_OUTCOME_DONE, "healthy, and it says it is '%.200s'", body);
}

static void on_healthy(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	j->op = NULL;
	if (result < 0) {
		bt_job_log_tail(j, 20, NULL, NULL);
		bt_job_finish_result(j, result, err, "");
		return;
	}
	if (!j->identity || !j->service->identity.path) {
		bt_job_finish(j, BT_OUTCOME_DONE, "healthy%s%s", j->last_progress ? ": " : "",
			j->last_progress ? j->last_progress : "");
		return;
	}
	BT_STR struct bt_str url = {0};
	bt_str_addf(&url, "%s://127.0.0.1:%d%s",
		j->service->health.kind == BT_HEALTH_HTTPS ? "https" : "http", j->port,
		j->service->identity.path);
	j->op = bt_job_exec(j)->drivers->identity_ask(
		bt_job_env(j), bt_str_get(&url), NULL, on_identity, j);
}

static void wait_healthy(struct bt_job *j)
{
	struct bt_health_target t;
	health_target(j, &t);
	j->op = bt_job_exec(j)->drivers->health_wait(
		bt_job_env(j), &t, bt_job_progress, j, on_healthy, j);
	bt_job_look_for_death(j);
}

/* The old release was started again: it counts when it is healthy. */
static void on_restarted(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	if (result < 0) {
		bt_job_finish_result(j, result, err, "");
		return;
	}
	j->op = NULL;
	j->release = j->prior.release;
	j->identity = false;
	wait_healthy(j);
}

static void restore(struct bt_job *j)
{
	bt_job_say(j, "start what ran in %s before", j->slot);
	start_release(j, j->prior.release, on_restarted);
}

/* ---- InstanceStart ------------------------------------------------------------------------- */

int bt_task_start_check(struct bt_job *j, struct bt_err *err)
{
	struct bt_release_on_disk disk;
	int r = bt_job_read_slot(j, err);
	if (r < 0)
		return r;
	r = bt_job_release_service(j, j->release, &disk, err);
	if (j->key.verb == BT_DO) {
		if (r == 0)
			r = bt_policy_run(bt_job_exec(j)->policy, j->service, err);
		return r < 0 ? r : need_runtime(j, err);
	}
	/* An undo may come after the release is gone: then the last known description stops it. */
	const struct bt_known_service *known =
		bt_known_find(bt_job_exec(j)->known, j->service_name);
	if (r < 0 && known && known->text) {
		BT_JSON json_t *service = NULL;
		bt_err_clear(err);
		r = bt_json_parse(known->text, strlen(known->text), SIZE_MAX, &service, err);
		if (r == 0)
			r = bt_config_service_from_json(service, &j->config, err);
		if (r == 0)
			j->service = &j->config->services[0];
	}
	return r < 0 ? r : need_runtime(j, err);
}

void bt_task_slot_prior(struct bt_job *j)
{
	see_prior(j);
}

static void on_started(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	struct bt_seen_instance seen;
	char done[64] = "started";
	if (result < 0)
		bt_job_log_tail(j, 20, NULL, NULL);
	else if (bt_job_slot_seen(j, j->arena, &seen) && seen.pid > 0)
		snprintf(done, sizeof done, "started, pid %d", seen.pid);
	bt_job_finish_result(j, result, err, done);
}

void bt_task_start_go(struct bt_job *j)
{
	start_release(j, j->release, on_started);
}

void bt_task_start_undo(struct bt_job *j)
{
	if (j->prior.running && j->prior.release == j->release)
		bt_job_finish(j, BT_OUTCOME_DONE, "it ran before, too");
	else if (j->prior.running && j->prior.release)
		restore(j);
	else
		stop_slot(j);
}

bool bt_task_start_there(struct bt_job *j)
{
	struct bt_seen_instance seen;
	return bt_job_slot_seen(j, j->arena, &seen) && seen.release == j->release &&
	       seen.state == BT_RUN_RUNNING;
}

/* ---- InstanceStop -------------------------------------------------------------------------- */

int bt_task_stop_check(struct bt_job *j, struct bt_err *err)
{
	int r = bt_job_read_slot(j, err);
	if (r == 0)
		r = bt_job_read_service(j, err);
	return r < 0 ? r : need_runtime(j, err);
}

void bt_task_stop_go(struct bt_job *j)
{
	stop_slot(j);
}

void bt_task_stop_undo(struct bt_job *j)
{
	if (!j->prior.running)
		bt_job_finish(j, BT_OUTCOME_DONE, "it did not run before");
	else if (!j->prior.release)
		bt_job_finish(j, BT_OUTCOME_FAILED,
			"%s ran a release that is not known, so it cannot be started again",
			j->slot);
	else
		restore(j);
}

bool bt_task_stop_there(struct bt_job *j)
{
	struct bt_seen_instance seen;
	return bt_job_slot_seen(j, j->arena, &seen) && seen.state == BT_RUN_ABSENT && !seen.holder;
}

/* ---- HealthCheck --------------------------------------------------------------------------- */

int bt_task_health_check(struct bt_job *j, struct bt_err *err)
{
	int r = bt_job_read_slot(j, err);
	if (r == 0)
		r = bt_job_read_service(j, err);
	if (r == 0)
		r = bt_json_bool_opt(j->params, "identity", &j->identity, err);
	if (r == 0)
		r = bt_policy_health(bt_job_exec(j)->policy, j->service, err);
	return r < 0 ? r : need_runtime(j, err);
}

void bt_task_health_go(struct bt_job *j)
{
	struct bt_seen_instance seen;
	/* What ran before a boot of this host is about to be started again: that it does not run
	 * yet says nothing about it. */
	if (bt_job_waits_for_boot(j, j->slot))
		return;
	if (bt_job_slot_seen(j, j->arena, &seen) && seen.state != BT_RUN_ABSENT && j->release &&
		seen.release && seen.release != j->release) {
		bt_job_finish(j, BT_OUTCOME_FAILED, "%s runs release %u, expected %u", j->slot,
			seen.release, j->release);
		return;
	}
	wait_healthy(j);
}

/* ---- Bake at an instance ------------------------------------------------------------------- */

static void on_watched(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	if (result < 0)
		bt_job_log_tail(j, 20, NULL, NULL);
	bt_job_finish_result(j, result, err, "stayed healthy");
}

void bt_task_bake_instance(struct bt_job *j)
{
	struct bt_health_target t;
	health_target(j, &t);
	j->op = bt_job_exec(j)->drivers->health_watch(
		bt_job_env(j), &t, j->wait_ms, bt_job_progress, j, on_watched, j);
	bt_job_look_for_death(j);
}
