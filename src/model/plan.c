/* The plan's JSON form, and the checks that let everybody behind it use an index without looking.
 *
 * A plan comes from a journal or over the wire, so reading trusts nothing: every index is held
 * against its table, every list against its bound, and every task against what its kind needs.
 * What passes is a plan the engine can run without another check. */
#include "model/plan.h"

#include "base/json.h"
#include "base/str.h"

#include <string.h>

enum { MAX_STAGES = 10000, MAX_TEXT = 2048, MAX_NOTES = 1000, MAX_WORDS = 1000, MAX_VALUE = 32768 };
#define MAX_MS ((int64_t)400 * 86400000)

static const struct bt_enum purposes = {(const struct bt_enum_name[]){{"deploy", BT_PLAN_DEPLOY},
	{"rollback", BT_PLAN_ROLLBACK}, {"retire", BT_PLAN_RETIRE}, {"adopt", BT_PLAN_ADOPT},
	{"prune", BT_PLAN_PRUNE}, {"flow", BT_PLAN_FLOW}, {NULL, 0}}};

const char *bt_plan_purpose_name(enum bt_plan_purpose p)
{
	return bt_enum_name(&purposes, p);
}

struct bt_plan *bt_plan_free(struct bt_plan *p)
{
	if (p)
		bt_arena_free(p->arena); /* the plan itself lies in it */
	return NULL;
}

const struct bt_plan_release *bt_plan_release(const struct bt_plan *p, uint32_t id)
{
	for (size_t i = 0; id && i < p->n_releases; i++)
		if (p->releases[i].id == id)
			return &p->releases[i];
	return NULL;
}

bool bt_plan_drain_fails(const struct bt_plan *p, const struct bt_task *t, bool drained)
{
	return t && t->kind == BT_TASK_DRAIN && !drained &&
	       p->on_drain_timeout == BT_ON_DRAIN_TIMEOUT_FAIL;
}

const struct bt_task *bt_plan_task(
	const struct bt_plan *p, uint32_t id, const struct bt_stage **ret_stage)
{
	for (size_t i = 0; i < p->n_stages; i++)
		for (size_t k = 0; k < p->stages[i].n_lanes; k++)
			for (size_t t = 0; t < p->stages[i].lanes[k].n_tasks; t++)
				if (p->stages[i].lanes[k].tasks[t].id == id) {
					if (ret_stage)
						*ret_stage = &p->stages[i];
					return &p->stages[i].lanes[k].tasks[t];
				}
	return NULL;
}

/* ── writing ── */

static json_t *indexes(const uint16_t *list, size_t n)
{
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_integer(list[i]));
	return a;
}

static json_t *strings(const char *const *list, size_t n)
{
	json_t *a = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_string(list[i]));
	return a;
}

static void put_str(json_t *o, const char *key, const char *text)
{
	if (text)
		json_object_set_new(o, key, json_string(text));
}

static void put_int(json_t *o, const char *key, int64_t v)
{
	json_object_set_new(o, key, json_integer(v));
}

static void put_exec(json_t *o, const struct bt_task_exec *e)
{
	json_object_set_new(o, "run", strings(e->run, e->n_run));
	json_t *env = json_object();
	for (size_t i = 0; i < e->n_env; i++)
		put_str(env, e->env[i].key, e->env[i].value);
	json_object_set_new(o, "env", env);
	put_str(o, "repeat",
		bt_enum_name(&bt_enum_repeat, e->safe ? BT_REPEAT_SAFE : BT_REPEAT_NEVER));
}

static json_t *task_to_json(const struct bt_task *t)
{
	json_t *o = json_object();
	put_int(o, "id", t->id);
	put_str(o, "task", bt_task_info(t->kind)->name);
	if (t->host != BT_NONE)
		put_int(o, "host", t->host);
	if (t->instance != BT_NONE)
		put_int(o, "instance", t->instance);
	if (t->balancer != BT_NONE)
		put_int(o, "balancer", t->balancer);
	if (t->release)
		put_int(o, "release", t->release);
	if (t->n_in)
		json_object_set_new(o, "in", indexes(t->in, t->n_in));
	if (t->n_out)
		json_object_set_new(o, "out", indexes(t->out, t->n_out));
	put_int(o, "timeout_ms", t->timeout_ms);
	if (t->wait_ms)
		put_int(o, "wait_ms", t->wait_ms);
	put_str(o, "why", t->why);
	put_str(o, "step", t->step);
	put_str(o, "skip", t->skip);
	put_str(o, "event", t->event);
	put_str(o, "to", t->to);
	put_str(o, "message", t->message);
	if (t->ignore)
		json_object_set_new(o, "ignore", json_true());
	if (t->exec)
		put_exec(o, t->exec);
	return o;
}

static json_t *stage_to_json(const struct bt_stage *s)
{
	json_t *o = json_object(), *lanes = json_array();
	put_str(o, "name", s->name);
	put_str(o, "why", s->why);
	if (s->side_by_side)
		put_int(o, "side_by_side", s->side_by_side);
	if (s->counted)
		put_int(o, "may_fail", s->may_fail);
	if (s->closing)
		json_object_set_new(o, "closing", json_true());
	if (s->own_policy) {
		put_str(o, "on_failure", bt_enum_name(&bt_enum_failure_policy, (int)s->on_failure));
		put_int(o, "continue_n", s->continue_n);
	}
	for (size_t i = 0; i < s->n_lanes; i++) {
		json_t *lane = json_object(), *tasks = json_array();
		put_str(lane, "name", s->lanes[i].name);
		for (size_t k = 0; k < s->lanes[i].n_tasks; k++)
			json_array_append_new(tasks, task_to_json(&s->lanes[i].tasks[k]));
		json_object_set_new(lane, "tasks", tasks);
		json_array_append_new(lanes, lane);
	}
	json_object_set_new(o, "lanes", lanes);
	return o;
}

static json_t *tables_to_json(const struct bt_plan *p, json_t *o)
{
	json_t *a = json_array();
	for (size_t i = 0; i < p->n_releases; i++) {
		json_t *r = json_object();
		put_int(r, "id", p->releases[i].id);
		put_str(r, "version", p->releases[i].version);
		put_str(r, "digest", p->releases[i].digest);
		json_array_append_new(a, r);
	}
	json_object_set_new(o, "releases", a);
	json_object_set_new(o, "hosts", strings(p->hosts, p->n_hosts));
	if (p->n_without_vip)
		json_object_set_new(o, "without_vip", indexes(p->without_vip, p->n_without_vip));
	a = json_array();
	for (size_t i = 0; i < p->n_instances; i++) {
		const struct bt_plan_instance *in = &p->instances[i];
		json_t *j = json_object();
		put_int(j, "host", in->host);
		put_str(j, "slot", in->slot);
		put_int(j, "port", in->port);
		put_str(j, "address", in->address);
		put_int(j, "expect_release", in->expect_release);
		json_object_set_new(j, "expect_in", json_boolean(in->expect_in));
		json_array_append_new(a, j);
	}
	json_object_set_new(o, "instances", a);
	a = json_array();
	for (size_t i = 0; i < p->n_balancers; i++) {
		json_t *j = json_object();
		put_int(j, "host", p->balancers[i].host);
		put_str(j, "name", p->balancers[i].name);
		put_int(j, "expect_generation", (int64_t)p->balancers[i].expect_generation);
		if (p->balancers[i].n_lacks)
			json_object_set_new(j, "lacks",
				indexes(p->balancers[i].lacks, p->balancers[i].n_lacks));
		if (p->balancers[i].own_host)
			json_object_set_new(j, "own_host", json_true());
		if (p->balancers[i].drains_at_host)
			json_object_set_new(j, "drains_at_host", json_true());
		if (p->balancers[i].routes_one)
			json_object_set_new(j, "routes_one", json_true());
		if (p->balancers[i].expect_one != BT_NONE)
			put_int(j, "expect_one", p->balancers[i].expect_one);
		json_array_append_new(a, j);
	}
	json_object_set_new(o, "balancers", a);
	return o;
}

json_t *bt_plan_to_json(const struct bt_plan *p)
{
	json_t *o = json_object();
	put_int(o, "version", BT_PLAN_VERSION);
	put_str(o, "purpose", bt_plan_purpose_name(p->purpose));
	put_str(o, "service", p->service);
	put_str(o, "strategy", bt_enum_name(&bt_enum_strategy, p->strategy));
	put_str(o, "flow", p->flow);
	put_int(o, "release", p->release);
	put_int(o, "old_release", p->old_release);
	tables_to_json(p, o);
	json_t *stages = json_array();
	for (size_t i = 0; i < p->n_stages; i++)
		json_array_append_new(stages, stage_to_json(&p->stages[i]));
	json_object_set_new(o, "stages", stages);
	put_str(o, "on_failure", bt_enum_name(&bt_enum_failure_policy, p->on_failure));
	put_int(o, "continue_n", p->continue_n);
	put_str(o, "on_drain_timeout", bt_enum_name(&bt_enum_drain_policy, p->on_drain_timeout));
	if (p->timeout_ms)
		put_int(o, "timeout_ms", p->timeout_ms);
	put_int(o, "min_in_rotation", p->min_in_rotation);
	json_object_set_new(o, "notes", strings(p->notes, p->n_notes));
	return o;
}

/* ── reading ── */

static int get_str(
	const json_t *o, const char *key, struct bt_arena *a, const char **ret, struct bt_err *err)
{
	return bt_json_text(o, key, MAX_TEXT, a, ret, err);
}

static int get_str_opt(
	const json_t *o, const char *key, struct bt_arena *a, const char **ret, struct bt_err *err)
{
	return bt_json_text_opt(o, key, MAX_TEXT, a, ret, err);
}

static int get_enum(
	const json_t *o, const char *key, const struct bt_enum *e, int *ret, struct bt_err *err)
{
	const char *text;
	int r = bt_json_str(o, key, &text, err);
	if (r < 0)
		return r;
	struct bt_err why;
	if (bt_enum_parse(e, text, ret, &why) < 0)
		return bt_err_set(err, BT_E_PROTOCOL, "member '%s': %s", key, why.text);
	return 0;
}

static int get_u32(const json_t *o, const char *key, uint32_t *ret, struct bt_err *err)
{
	int64_t v = 0;
	int r = bt_json_int(o, key, 0, UINT32_MAX, &v, err);
	if (r == 0)
		*ret = (uint32_t)v;
	return r;
}

/* An index below n; where the member may be absent, BT_NONE then. */
static int get_index(const json_t *o, const char *key, size_t n, bool optional, uint16_t *ret,
	struct bt_err *err)
{
	int64_t v = BT_NONE;
	if (!optional || json_object_get(o, key)) {
		int r = bt_json_int(o, key, 0, (int64_t)n - 1, &v, err);
		if (r < 0)
			return r;
	}
	*ret = (uint16_t)v;
	return 0;
}

static int get_indexes(const json_t *o, const char *key, size_t n, struct bt_arena *a,
	const uint16_t **ret, size_t *ret_n, struct bt_err *err)
{
	json_t *list;
	size_t len;
	if (!json_object_get(o, key))
		return 0;
	int r = bt_json_list(o, key, n, &list, &len, err);
	if (r < 0)
		return r;
	uint16_t *out = BT_ARENA_ARRAY(a, uint16_t, len);
	for (size_t i = 0; i < len; i++) {
		const json_t *j = json_array_get(list, i);
		int64_t v = json_is_integer(j) ? json_integer_value(j) : -1;
		if (v < 0 || v >= (int64_t)n)
			return bt_err_set(err, BT_E_PROTOCOL,
				"member '%s': entry %zu is no index below %zu", key, i, n);
		out[i] = (uint16_t)v;
	}
	*ret = out;
	*ret_n = len;
	return 0;
}

static int get_strings(const json_t *o, const char *key, size_t max, struct bt_arena *a,
	const char *const **ret, size_t *ret_n, struct bt_err *err)
{
	json_t *list;
	size_t n;
	int r = bt_json_list(o, key, max, &list, &n, err);
	if (r < 0)
		return r;
	const char **out = BT_ARENA_ARRAY(a, const char *, n);
	for (size_t i = 0; i < n; i++) {
		const json_t *j = json_array_get(list, i);
		const char *text = json_string_value(j);
		if (!text || strlen(text) > MAX_TEXT || strlen(text) != json_string_length(j))
			return bt_err_set(err, BT_E_PROTOCOL,
				"member '%s': entry %zu is no string of at most %d bytes", key, i,
				(int)MAX_TEXT);
		out[i] = bt_arena_strdup(a, text);
	}
	*ret = out;
	*ret_n = n;
	return 0;
}

static int read_releases(const json_t *o, struct bt_plan *p, struct bt_err *err)
{
	json_t *list;
	int r = bt_json_list(o, "releases", BT_PLAN_MAX_INSTANCES, &list, &p->n_releases, err);
	if (r < 0)
		return r;
	struct bt_plan_release *out =
		BT_ARENA_ARRAY(p->arena, struct bt_plan_release, p->n_releases);
	p->releases = out;
	for (size_t i = 0; i < p->n_releases; i++) {
		const json_t *j = json_array_get(list, i);
		if ((r = get_u32(j, "id", &out[i].id, err)) < 0 ||
			(r = get_str(j, "version", p->arena, &out[i].version, err)) < 0 ||
			(r = get_str_opt(j, "digest", p->arena, &out[i].digest, err)) < 0)
			return bt_err_wrap(err, "releases[%zu]", i);
		if (out[i].id == 0)
			return bt_err_set(
				err, BT_E_PROTOCOL, "releases[%zu]: id 0 is no release", i);
	}
	return 0;
}

static int read_instances(const json_t *o, struct bt_plan *p, struct bt_err *err)
{
	json_t *list;
	int r = bt_json_list(o, "instances", BT_PLAN_MAX_INSTANCES, &list, &p->n_instances, err);
	if (r < 0)
		return r;
	struct bt_plan_instance *out =
		BT_ARENA_ARRAY(p->arena, struct bt_plan_instance, p->n_instances);
	p->instances = out;
	for (size_t i = 0; i < p->n_instances; i++) {
		const json_t *j = json_array_get(list, i);
		int64_t port = 0;
		if ((r = get_index(j, "host", p->n_hosts, false, &out[i].host, err)) < 0 ||
			(r = get_str(j, "slot", p->arena, &out[i].slot, err)) < 0 ||
			(r = bt_json_int(j, "port", 0, UINT16_MAX, &port, err)) < 0 ||
			(r = get_str(j, "address", p->arena, &out[i].address, err)) < 0 ||
			(r = get_u32(j, "expect_release", &out[i].expect_release, err)) < 0 ||
			(r = bt_json_bool(j, "expect_in", &out[i].expect_in, err)) < 0)
			return bt_err_wrap(err, "instances[%zu]", i);
		out[i].port = (uint16_t)port;
	}
	return 0;
}

static int read_hosts(const json_t *o, struct bt_plan *p, struct bt_err *err)
{
	int r = get_strings(
		o, "hosts", BT_PLAN_MAX_INSTANCES, p->arena, &p->hosts, &p->n_hosts, err);
	return r < 0 ? r
		     : get_indexes(o, "without_vip", p->n_hosts, p->arena, &p->without_vip,
			       &p->n_without_vip, err);
}

static int read_balancers(const json_t *o, struct bt_plan *p, struct bt_err *err)
{
	json_t *list;
	int r = bt_json_list(o, "balancers", BT_PLAN_MAX_INSTANCES, &list, &p->n_balancers, err);
	if (r < 0)
		return r;
	struct bt_plan_balancer *out =
		BT_ARENA_ARRAY(p->arena, struct bt_plan_balancer, p->n_balancers);
	p->balancers = out;
	for (size_t i = 0; i < p->n_balancers; i++) {
		const json_t *j = json_array_get(list, i);
		int64_t generation = 0;
		if ((r = get_index(j, "host", p->n_hosts, false, &out[i].host, err)) < 0 ||
			(r = get_str(j, "name", p->arena, &out[i].name, err)) < 0 ||
			(r = bt_json_int(j, "expect_generation", 0, INT64_MAX, &generation, err)) <
				0 ||
			(r = get_indexes(j, "lacks", p->n_instances, p->arena, &out[i].lacks,
				 &out[i].n_lacks, err)) < 0 ||
			(r = bt_json_bool_opt(j, "own_host", &out[i].own_host, err)) < 0 ||
			(r = bt_json_bool_opt(j, "drains_at_host", &out[i].drains_at_host, err)) <
				0 ||
			(r = bt_json_bool_opt(j, "routes_one", &out[i].routes_one, err)) < 0 ||
			(r = get_index(j, "expect_one", p->n_instances, true, &out[i].expect_one,
				 err)) < 0)
			return bt_err_wrap(err, "balancers[%zu]", i);
		out[i].expect_generation = (uint64_t)generation;
	}
	return 0;
}

/* What a task of each kind cannot do without. */
static const struct {
	bool instance, balancer, release, in, out, either;
} needs[BT_TASK_KINDS] = {
	[BT_TASK_COMPONENT_DEPLOY] = {.release = true},
	[BT_TASK_INSTANCE_START] = {.instance = true, .release = true},
	[BT_TASK_INSTANCE_STOP] = {.instance = true},
	[BT_TASK_HEALTH_CHECK] = {.instance = true, .release = true},
	[BT_TASK_BACKEND_CHECK] = {.balancer = true, .in = true},
	[BT_TASK_SWITCH] = {.balancer = true},
	[BT_TASK_DRAIN] = {.balancer = true, .out = true},
	[BT_TASK_BAKE] = {.either = true},
	[BT_TASK_ADOPT] = {.instance = true, .release = true},
	[BT_TASK_EXEC] = {.release = true},
	[BT_TASK_LOOPBACK_STOP] = {.out = true},
	[BT_TASK_LOOPBACK_START] = {.out = true},
	[BT_TASK_LIFECYCLE] = {.release = true},
	[BT_TASK_INSTALL] = {.release = true},
};

/* Nobody's agent does it: the engine itself. */
bool bt_task_is_engines(enum bt_task_kind kind)
{
	return kind == BT_TASK_APPROVE || kind == BT_TASK_WAIT;
}

/* Where its host is the instances', they must be on it. */
static bool all_on_host(const struct bt_plan *p, const uint16_t *list, size_t n, uint16_t host)
{
	for (size_t i = 0; i < n; i++)
		if (p->instances[list[i]].host != host)
			return false;
	return true;
}

static int check_task(const struct bt_plan *p, const struct bt_task *t, struct bt_err *err)
{
	const char *missing = NULL;
	bool has_instance = t->instance != BT_NONE, has_balancer = t->balancer != BT_NONE;
	if (needs[t->kind].instance && !has_instance)
		missing = "an instance";
	else if (needs[t->kind].balancer && !has_balancer)
		missing = "a balancer";
	else if (needs[t->kind].either && has_instance == has_balancer)
		missing = "either an instance or a balancer";
	else if (needs[t->kind].release && !t->release)
		missing = "a release";
	else if (needs[t->kind].in && !t->n_in)
		missing = "instances in 'in'";
	else if (needs[t->kind].out && !t->n_out)
		missing = "instances in 'out'";
	else if (t->kind == BT_TASK_SWITCH && !t->n_in && !t->n_out)
		missing = "instances in 'in' or 'out'";
	else if (t->host == BT_NONE && !bt_task_is_engines(t->kind))
		missing = "a host";
	else if (t->kind == BT_TASK_LIFECYCLE && !t->event)
		missing = "an event";
	else if (t->kind == BT_TASK_NOTIFY && !t->to)
		missing = "somebody in 'to'";
	if (missing)
		return bt_err_set(
			err, BT_E_PROTOCOL, "%s needs %s", bt_task_info(t->kind)->name, missing);
	if (t->release && !bt_plan_release(p, t->release))
		return bt_err_set(
			err, BT_E_PROTOCOL, "release %u is not in 'releases'", t->release);
	if (has_instance && p->instances[t->instance].host != t->host)
		return bt_err_set(
			err, BT_E_PROTOCOL, "instance %u is not on its host", t->instance);
	bool at_host = (t->kind == BT_TASK_DRAIN && has_balancer &&
			       p->balancers[t->balancer].drains_at_host) ||
		       t->kind == BT_TASK_LOOPBACK_STOP || t->kind == BT_TASK_LOOPBACK_START;
	if (at_host && !all_on_host(p, t->out, t->n_out, t->host))
		return bt_err_set(err, BT_E_PROTOCOL, "an instance of 'out' is not on its host");
	if (has_balancer && !at_host && p->balancers[t->balancer].host != t->host)
		return bt_err_set(
			err, BT_E_PROTOCOL, "balancer %u is not on its host", t->balancer);
	return 0;
}

static int read_exec(const json_t *j, struct bt_plan *p, struct bt_task *t, struct bt_err *err)
{
	struct bt_task_exec *e = BT_ARENA_NEW(p->arena, struct bt_task_exec);
	json_t *env = NULL, *value;
	const char *name, *repeat = NULL;
	int how = BT_REPEAT_NEVER, r;
	if ((r = get_strings(j, "run", MAX_WORDS, p->arena, &e->run, &e->n_run, err)) < 0 ||
		(r = bt_json_object(j, "env", &env, err)) < 0 ||
		(r = bt_json_str(j, "repeat", &repeat, err)) < 0)
		return r;
	if (e->n_run == 0 || json_object_size(env) > MAX_WORDS ||
		bt_enum_parse(&bt_enum_repeat, repeat, &how, NULL) < 0)
		return bt_err_set(err, BT_E_PROTOCOL, "'run', 'env' or 'repeat' of an Exec");
	struct bt_kv *list = BT_ARENA_ARRAY(p->arena, struct bt_kv, json_object_size(env));
	json_object_foreach (env, name, value) {
		const char *text = json_string_value(value);
		if (!text || json_string_length(value) > MAX_VALUE ||
			strlen(text) != json_string_length(value))
			return bt_err_set(err, BT_E_PROTOCOL, "env.%.64s: no text", name);
		list[e->n_env++] = (struct bt_kv){
			bt_arena_strdup(p->arena, name), bt_arena_strdup(p->arena, text)};
	}
	e->env = list;
	e->safe = how == BT_REPEAT_SAFE;
	t->exec = e;
	return 0;
}

static int read_task(const json_t *j, struct bt_plan *p, struct bt_task *t, struct bt_err *err)
{
	const char *kind;
	int64_t timeout = 0, wait = 0, release = 0;
	int r;
	if ((r = get_u32(j, "id", &t->id, err)) < 0 ||
		(r = bt_json_str(j, "task", &kind, err)) < 0 ||
		(r = get_index(j, "host", p->n_hosts, true, &t->host, err)) < 0 ||
		(r = get_index(j, "instance", p->n_instances, true, &t->instance, err)) < 0 ||
		(r = get_index(j, "balancer", p->n_balancers, true, &t->balancer, err)) < 0 ||
		(r = bt_json_int_opt(j, "release", 0, UINT32_MAX, &release, err)) < 0 ||
		(r = get_indexes(j, "in", p->n_instances, p->arena, &t->in, &t->n_in, err)) < 0 ||
		(r = get_indexes(j, "out", p->n_instances, p->arena, &t->out, &t->n_out, err)) <
			0 ||
		(r = bt_json_int(j, "timeout_ms", 0, MAX_MS, &timeout, err)) < 0 ||
		(r = bt_json_int_opt(j, "wait_ms", 0, MAX_MS, &wait, err)) < 0 ||
		(r = get_str_opt(j, "why", p->arena, &t->why, err)) < 0 ||
		(r = get_str_opt(j, "step", p->arena, &t->step, err)) < 0 ||
		(r = get_str_opt(j, "skip", p->arena, &t->skip, err)) < 0 ||
		(r = get_str_opt(j, "event", p->arena, &t->event, err)) < 0 ||
		(r = get_str_opt(j, "to", p->arena, &t->to, err)) < 0 ||
		(r = get_str_opt(j, "message", p->arena, &t->message, err)) < 0 ||
		(r = bt_json_bool_opt(j, "ignore", &t->ignore, err)) < 0)
		return r;
	const struct bt_task_info *info = bt_task_find(kind);
	if (!info)
		return bt_err_set(err, BT_E_PROTOCOL, "unknown task '%s'", kind);
	t->kind = info->kind;
	t->release = (uint32_t)release;
	t->timeout_ms = timeout;
	t->wait_ms = wait;
	if (t->kind == BT_TASK_EXEC && (r = read_exec(j, p, t, err)) < 0)
		return r;
	return check_task(p, t, err);
}

static int read_lane(
	const json_t *j, struct bt_plan *p, struct bt_lane *lane, size_t *total, struct bt_err *err)
{
	json_t *tasks;
	int r;
	if ((r = get_str(j, "name", p->arena, &lane->name, err)) < 0 ||
		(r = bt_json_list(j, "tasks", BT_PLAN_MAX_TASKS, &tasks, &lane->n_tasks, err)) < 0)
		return r;
	*total += lane->n_tasks;
	if (lane->n_tasks == 0 || *total > BT_PLAN_MAX_TASKS)
		return bt_err_set(err, BT_E_PROTOCOL, "%s",
			lane->n_tasks ? "too many tasks in the plan" : "a lane without a task");
	struct bt_task *out = BT_ARENA_ARRAY(p->arena, struct bt_task, lane->n_tasks);
	lane->tasks = out;
	for (size_t i = 0; i < lane->n_tasks; i++)
		if ((r = read_task(json_array_get(tasks, i), p, &out[i], err)) < 0)
			return bt_err_wrap(err, "tasks[%zu]", i);
	return 0;
}

static int read_stage(const json_t *j, struct bt_plan *p, struct bt_stage *stage, size_t *total,
	struct bt_err *err)
{
	json_t *lanes;
	int64_t side_by_side = 0;
	int r;
	if ((r = get_str(j, "name", p->arena, &stage->name, err)) < 0 ||
		(r = get_str_opt(j, "why", p->arena, &stage->why, err)) < 0 ||
		(r = bt_json_int_opt(
			 j, "side_by_side", 0, BT_PLAN_MAX_INSTANCES, &side_by_side, err)) < 0 ||
		(r = bt_json_list(
			 j, "lanes", BT_PLAN_MAX_INSTANCES, &lanes, &stage->n_lanes, err)) < 0)
		return r;
	if (stage->n_lanes == 0)
		return bt_err_set(err, BT_E_PROTOCOL, "a stage without a lane");
	stage->side_by_side = (uint16_t)side_by_side;
	stage->own_policy = json_object_get(j, "on_failure") != NULL;
	int policy = 0;
	if (stage->own_policy &&
		((r = get_enum(j, "on_failure", &bt_enum_failure_policy, &policy, err)) < 0 ||
			(r = bt_json_int(j, "continue_n", 0, BT_PLAN_MAX_INSTANCES,
				 &stage->continue_n, err)) < 0))
		return r;
	stage->on_failure = (enum bt_failure_policy)policy;
	stage->counted = json_object_get(j, "may_fail") != NULL;
	if ((r = bt_json_int_opt(j, "may_fail", 0, BT_PLAN_MAX_INSTANCES, &stage->may_fail, err)) <
		0)
		return r;
	if (json_object_get(j, "closing") &&
		(r = bt_json_bool(j, "closing", &stage->closing, err)) < 0)
		return r;
	struct bt_lane *out = BT_ARENA_ARRAY(p->arena, struct bt_lane, stage->n_lanes);
	stage->lanes = out;
	for (size_t i = 0; i < stage->n_lanes; i++)
		if ((r = read_lane(json_array_get(lanes, i), p, &out[i], total, err)) < 0)
			return bt_err_wrap(err, "lanes[%zu]", i);
	return 0;
}

static int by_number(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static int check_ids(const struct bt_plan *p, size_t total, struct bt_err *err)
{
	uint32_t *ids = BT_ARENA_ARRAY(p->arena, uint32_t, total);
	size_t n = 0;
	for (size_t s = 0; s < p->n_stages; s++)
		for (size_t l = 0; l < p->stages[s].n_lanes; l++)
			for (size_t t = 0; t < p->stages[s].lanes[l].n_tasks; t++)
				ids[n++] = p->stages[s].lanes[l].tasks[t].id;
	qsort(ids, n, sizeof *ids, by_number);
	for (size_t i = 1; i < n; i++)
		if (ids[i] == ids[i - 1])
			return bt_err_set(err, BT_E_PROTOCOL, "task id %u is used twice", ids[i]);
	return 0;
}

static int read_stages(const json_t *o, struct bt_plan *p, struct bt_err *err)
{
	json_t *list;
	size_t total = 0;
	int r = bt_json_list(o, "stages", MAX_STAGES, &list, &p->n_stages, err);
	if (r < 0)
		return r;
	struct bt_stage *out = BT_ARENA_ARRAY(p->arena, struct bt_stage, p->n_stages);
	p->stages = out;
	for (size_t i = 0; i < p->n_stages; i++)
		if ((r = read_stage(json_array_get(list, i), p, &out[i], &total, err)) < 0)
			return bt_err_wrap(err, "stages[%zu]", i);
	return check_ids(p, total, err);
}

static int read_head(const json_t *j, struct bt_plan *p, struct bt_err *err)
{
	int64_t version;
	int purpose = 0, strategy = 0, policy = 0, drain = 0;
	int r;
	if ((r = bt_json_int(j, "version", 1, BT_PLAN_VERSION, &version, err)) < 0 ||
		(r = get_enum(j, "purpose", &purposes, &purpose, err)) < 0 ||
		(r = get_str(j, "service", p->arena, &p->service, err)) < 0 ||
		(r = get_enum(j, "strategy", &bt_enum_strategy, &strategy, err)) < 0 ||
		(r = get_str_opt(j, "flow", p->arena, &p->flow, err)) < 0 ||
		(r = get_u32(j, "release", &p->release, err)) < 0 ||
		(r = get_u32(j, "old_release", &p->old_release, err)) < 0 ||
		(r = get_enum(j, "on_failure", &bt_enum_failure_policy, &policy, err)) < 0 ||
		(r = bt_json_int(j, "continue_n", 0, BT_PLAN_MAX_INSTANCES, &p->continue_n, err)) <
			0 ||
		(r = get_enum(j, "on_drain_timeout", &bt_enum_drain_policy, &drain, err)) < 0 ||
		(r = bt_json_int_opt(j, "timeout_ms", 0, MAX_MS, &p->timeout_ms, err)) < 0 ||
		(r = bt_json_int(j, "min_in_rotation", 0, BT_PLAN_MAX_INSTANCES,
			 &p->min_in_rotation, err)) < 0 ||
		(r = get_strings(j, "notes", MAX_NOTES, p->arena, &p->notes, &p->n_notes, err)) < 0)
		return r;
	p->purpose = (enum bt_plan_purpose)purpose;
	p->strategy = (enum bt_strategy)strategy;
	p->on_failure = (enum bt_failure_policy)policy;
	p->on_drain_timeout = (enum bt_drain_policy)drain;
	return 0;
}

int bt_plan_from_json(const json_t *j, struct bt_plan **ret, struct bt_err *err)
{
	BT_ARENA struct bt_arena *arena = bt_arena_new();
	struct bt_plan *p = BT_ARENA_NEW(arena, struct bt_plan);
	p->arena = arena;
	int r;
	if ((r = read_head(j, p, err)) < 0 || (r = read_releases(j, p, err)) < 0 ||
		(r = read_hosts(j, p, err)) < 0 || (r = read_instances(j, p, err)) < 0 ||
		(r = read_balancers(j, p, err)) < 0 || (r = read_stages(j, p, err)) < 0)
		return bt_err_wrap(err, "plan");
	if ((p->release && !bt_plan_release(p, p->release)) ||
		(p->old_release && !bt_plan_release(p, p->old_release)))
		return bt_err_set(err, BT_E_PROTOCOL,
			"plan: 'release' or 'old_release' is not in 'releases'");
	BT_STEAL(arena);
	*ret = p;
	return 0;
}
