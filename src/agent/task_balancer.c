/* BackendCheck, Switch, Drain and Bake: what happens at the balancer's host. */
#include "agent/tasks.h"

#include "base/json.h"
#include "base/str.h"

#include <inttypes.h>
#include <string.h>

static const struct bt_balancer_ops *balancer(struct bt_job *j)
{
	return bt_job_exec(j)->drivers->balancer(j->service);
}

static int read_balancer(struct bt_job *j, struct bt_err *err)
{
	int r = bt_json_str(j->params, "balancer", &j->balancer, err);
	if (r == 0)
		r = bt_job_read_service(j, err);
	if (r == 0)
		r = bt_policy_balancer(bt_job_exec(j)->policy, j->service, err);
	if (r == 0)
		r = bt_policy_rotation(
			bt_job_exec(j)->policy, j->service, bt_job_env(j)->host, err);
	if (r == 0 && !balancer(j))
		r = bt_err_set(err, BT_E_REFUSED,
			"service %s has no balancer that this agent knows", j->service_name);
	return r;
}

/* ---- BackendCheck -------------------------------------------------------------------------- */

int bt_task_backend_check(struct bt_job *j, struct bt_err *err)
{
	int r = bt_job_read_service(j, err);
	if (r == 0)
		r = bt_job_read_members(j, "targets", err);
	if (r == 0 && j->n_members > BT_JOB_MAX_OPS)
		r = bt_err_set(err, BT_E_PROTOCOL, "params.targets: more than %d", BT_JOB_MAX_OPS);
	return r;
}

struct target {
	struct bt_job *j;
	size_t i;
};

static void on_target(void *arg, int result, const struct bt_err *err)
{
	struct target *t = arg;
	struct bt_job *j = t->j;
	const struct bt_pool_member *m = &j->members[t->i];
	j->ops[t->i] = NULL;
	if (result < 0) {
		bt_job_finish(j, BT_OUTCOME_FAILED, "%s:%d (%s/%s) from %s: %s", m->address,
			m->port, m->host ? m->host : "?", m->slot ? m->slot : "?",
			bt_job_env(j)->host, err ? err->text : "not healthy");
		return;
	}
	if (--j->n_ops_left == 0)
		bt_job_finish(j, BT_OUTCOME_DONE, "%zu of %zu answer at the balancer's address",
			j->n_members, j->n_members);
}

static void on_no_target(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	bt_job_finish(arg, BT_OUTCOME_DONE, "nothing to check");
}

void bt_task_backend_go(struct bt_job *j)
{
	/* A program that checks the app's host says nothing about the way to it from here, and
	 * neither does another port than the one that requests go to. */
	struct bt_health *health = BT_ARENA_NEW(j->arena, struct bt_health);
	*health = j->service->health;
	if (health->kind == BT_HEALTH_EXEC || health->port || health->port_name)
		health->kind = BT_HEALTH_TCP;
	health->port = 0;
	health->port_name = NULL;
	j->n_ops_left = j->n_members;
	if (!j->n_members)
		on_no_target(-1, 0, j);
	struct target *targets = BT_ARENA_ARRAY(j->arena, struct target, j->n_members + 1);
	for (size_t i = 0; i < j->n_members; i++) {
		struct bt_health_target t = {.health = health,
			.address = j->members[i].address,
			.port = j->members[i].port,
			.slot = j->members[i].slot,
			.host = j->members[i].host};
		targets[i] = (struct target){j, i};
		j->ops[i] = bt_job_exec(j)->drivers->health_wait(
			bt_job_env(j), &t, bt_job_progress, j, on_target, &targets[i]);
	}
}

/* ---- Switch -------------------------------------------------------------------------------- */

int bt_task_switch_check(struct bt_job *j, struct bt_err *err)
{
	int64_t generation = 0;
	int r = read_balancer(j, err);
	if (r == 0)
		r = bt_json_int(j->params, "generation", 1, INT64_MAX, &generation, err);
	if (r == 0)
		r = bt_job_read_members(j, "members", err);
	j->size = generation;
	return r;
}

static void on_prior(
	void *arg, int result, const struct bt_seen_balancer *seen, const struct bt_err *err)
{
	struct bt_job *j = arg;
	j->op = NULL;
	if (result < 0) {
		bt_job_finish_result(j, result, err, "");
		return;
	}
	j->prior.known = true;
	j->prior.generation = seen->generation;
	bt_known_want_balancer(bt_job_exec(j)->known, j->service_name, j->balancer,
		(uint64_t)j->size, json_object_get(j->params, "secrets"));
	bt_job_begin(j);
}

void bt_task_switch_prior(struct bt_job *j)
{
	const struct bt_balancer_ops *ops = balancer(j);
	j->op = (ops->generation ? ops->generation : ops->observe)(
		j->balancer, j->service, on_prior, j);
}

static void on_applied(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	size_t in = 0;
	for (size_t i = 0; i < j->n_members; i++)
		in += j->members[i].in;
	char done[96];
	snprintf(done, sizeof done, "generation %" PRId64 " confirmed, %zu in rotation", j->size,
		in);
	bt_job_finish_result(j, result, err, done);
}

/* What goes on after a boot of this host must not send to an app that is still starting. */
static bool waits_for_boot(struct bt_job *j)
{
	for (size_t i = 0; i < j->n_members; i++)
		if (j->members[i].in && bt_streq(j->members[i].host, bt_job_env(j)->host) &&
			bt_job_waits_for_boot(j, j->members[i].slot))
			return true;
	return false;
}

void bt_task_switch_go(struct bt_job *j)
{
	if (waits_for_boot(j))
		return;
	struct bt_pool pool = {
		.name = j->balancer,
		.service_name = j->service_name,
		.service = j->service,
		.generation = (uint64_t)j->size,
		.members = j->members,
		.n_members = j->n_members,
	};
	j->op = balancer(j)->apply(&pool, bt_job_progress, j, on_applied, j);
}

/* ---- Drain --------------------------------------------------------------------------------- */

int bt_task_drain_check(struct bt_job *j, struct bt_err *err)
{
	int r = read_balancer(j, err);
	return r < 0 ? r : bt_job_read_members(j, "members", err);
}

static void on_drained(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	j->drained = result == 0;
	if (result == 1) { /* connections are left: whether that fails is the plan's to say */
		j->op = NULL;
		bt_job_finish(j, BT_OUTCOME_DONE, "%s",
			err && err->text[0] ? err->text : "connections are left");
		return;
	}
	bt_job_finish_result(j, result, err, "no connection is left");
}

void bt_task_drain_go(struct bt_job *j)
{
	struct bt_drain_request rq = {
		.name = j->balancer,
		.service = j->service,
		.members = j->members,
		.n_members = j->n_members,
		.wait_ms = j->wait_ms,
	};
	j->op = balancer(j)->drain(&rq, bt_job_progress, j, on_drained, j);
}

/* ---- Bake ---------------------------------------------------------------------------------- */

int bt_task_bake_check(struct bt_job *j, struct bt_err *err)
{
	return json_object_get(j->params, "balancer") ? read_balancer(j, err)
						      : bt_task_health_check(j, err);
}

static void on_watched(void *arg, int result, const struct bt_err *err)
{
	bt_job_finish_result(arg, result, err, "its answers stayed good");
}

void bt_task_bake_go(struct bt_job *j)
{
	if (!j->balancer) {
		bt_task_bake_instance(j);
		return;
	}
	j->op = balancer(j)->watch(
		j->balancer, j->service, j->wait_ms, bt_job_progress, j, on_watched, j);
}
