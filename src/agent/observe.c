#include "agent/observe.h"

#include "agent/policy.h"
#include "base/fs.h"
#include "base/json.h"
#include "driver/members.h"
#include "driver/nginx_proc.h"
#include "driver/ports.h"
#include "model/world.h"

#include <stdio.h>
#include <string.h>

enum { HEALTH_MOST_MS = 10000 }; /* Observe has 20 s */

struct asked { /* one slot: who answers there, or who holds its port */
	struct bt_observing *o;
	size_t i;
	struct bt_op *op;
};

struct bt_observing {
	const struct bt_exec_env *env;
	struct bt_arena *arena;
	struct bt_config *config;
	const struct bt_service *service; /* with the secrets that came along */
	struct bt_seen_host seen;
	struct bt_seen_instance *instances;
	struct bt_seen_balancer *balancer;
	struct asked *asked, *health;
	struct bt_op *balancer_op;
	size_t pending;
	struct event *fire;
	void (*done)(void *arg, json_t *seen);
	void *arg;
};

static bool here(const struct bt_service *s, const char *host)
{
	for (size_t i = 0; i < s->n_hosts; i++)
		if (bt_streq(s->hosts[i], host))
			return true;
	return false;
}

static struct bt_instance_ref ref_of(const struct bt_service *s, size_t i)
{
	const struct bt_slot *slot = &s->run.slots[i];
	return (struct bt_instance_ref){s->name, slot->name, slot->port, slot->more, slot->n_more};
}

static void fire(evutil_socket_t fd, short what, void *arg)
{
	struct bt_observing *o = arg;
	(void)fd;
	(void)what;
	void (*done)(void *, json_t *) = o->done;
	void *done_arg = o->arg;
	BT_JSON json_t *j = bt_seen_host_to_json(&o->seen);
	bt_observe_cancel(o); /* frees it; nothing is running any more */
	done(done_arg, j);
}

static void one_less(struct bt_observing *o)
{
	if (--o->pending == 0)
		bt_timer_in(o->fire, 0);
}

static void on_identity(void *arg, int result, const char *body, const struct bt_err *err)
{
	struct asked *a = arg;
	(void)err; /* no answer is an answer: the identity stays unknown */
	a->op = NULL;
	if (result >= 0)
		a->o->instances[a->i].identity = bt_arena_strdup(a->o->arena, body);
	one_less(a->o);
}

static void ask_identity(struct bt_observing *o, size_t i)
{
	const struct bt_service *s = o->service;
	struct asked *a = &o->asked[i];
	if (!s->identity.path || o->instances[i].state != BT_RUN_RUNNING)
		return;
	BT_STR struct bt_str url = {0};
	bt_str_addf(&url, "%s://127.0.0.1:%d%s",
		s->health.kind == BT_HEALTH_HTTPS ? "https" : "http", o->instances[i].port,
		s->identity.path);
	*a = (struct asked){o, i, NULL};
	o->pending++;
	a->op = o->env->drivers->identity_ask(
		o->env->driver, bt_str_get(&url), NULL, on_identity, a);
}

static void on_health(void *arg, int result, const struct bt_err *err)
{
	struct asked *a = arg;
	struct bt_seen_instance *seen = &a->o->instances[a->i];
	a->op = NULL;
	seen->health = result < 0 ? BT_VITAL_UNHEALTHY : BT_VITAL_HEALTHY;
	seen->unhealthy_why = result < 0 ? bt_arena_strdup(a->o->arena, err->text) : NULL;
	one_less(a->o);
}

/* A bundle's app that hangs listens on, and nobody watches over its process: who makes a plan has
 * to know. */
static void ask_health(struct bt_observing *o, size_t i)
{
	const struct bt_service *s = o->service;
	struct asked *a = &o->health[i];
	if (s->run.as != BT_RUNTIME_BUNDLE || s->health.kind == BT_HEALTH_EXEC ||
		o->instances[i].state != BT_RUN_RUNNING)
		return;
	struct bt_instance_ref ref = ref_of(s, i);
	struct bt_health_target t = {.health = &s->health,
		.address = "127.0.0.1",
		.port = ref.port,
		.more = ref.more,
		.n_more = ref.n_more,
		.slot = ref.slot,
		.host = o->env->driver->host,
		.within_ms = s->health.every_ms * (s->health.fails + s->health.passes - 1) +
			     s->health.timeout_ms};
	if (t.within_ms > HEALTH_MOST_MS)
		t.within_ms = HEALTH_MOST_MS;
	*a = (struct asked){o, i, NULL};
	o->pending++;
	a->op = o->env->drivers->health_wait(o->env->driver, &t, NULL, NULL, on_health, a);
}

static void on_examined(void *arg, int result, const struct bt_foreign *f, const struct bt_err *err)
{
	struct asked *a = arg;
	struct bt_arena *to = a->o->arena;
	struct bt_seen_foreign *s = BT_ARENA_NEW(to, struct bt_seen_foreign);
	struct bt_err no = {0};
	a->op = NULL;
	if (result == 0) {
		*s = f->seen;
		s->command = bt_arena_strdup(to, s->command);
		s->user = bt_arena_strdup(to, s->user);
		s->unit = bt_arena_strdup(to, s->unit);
		s->artifact = bt_arena_strdup(to, s->artifact);
		s->digest = bt_arena_strdup(to, s->digest);
		s->no_artifact = bt_arena_strdup(to, s->no_artifact);
		if (bt_policy_adopt(a->o->env->policy, f->uid, s->user, &no) < 0)
			s->trouble = bt_arena_printf(to, "%s (pid %d) on port %d: %s", f->name,
				(int)f->pid, a->o->instances[a->i].port, no.text);
	} else {
		s->trouble = bt_arena_strdup(to, err->text);
	}
	a->o->instances[a->i].foreign = s;
	one_less(a->o);
}

static void examine(struct bt_observing *o, size_t i)
{
	struct asked *a = &o->asked[i];
	if (!o->instances[i].holder || a->op)
		return;
	*a = (struct asked){o, i, NULL};
	o->pending++;
	a->op = o->env->drivers->foreign_examine(
		o->env->driver, o->instances[i].port, o->service, on_examined, a);
}

/* Who is connected to what runs: requests in flight, and connections that are kept open. */
static void see_connections(struct bt_observing *o)
{
	size_t n = o->service->run.n_slots;
	uint16_t *ports = BT_ARENA_ARRAY(o->arena, uint16_t, n);
	uint32_t *counts = BT_ARENA_ARRAY(o->arena, uint32_t, n);
	for (size_t i = 0; i < n; i++)
		ports[i] = o->service->run.slots[i].port;
	bt_port_connections(ports, n, counts);
	for (size_t i = 0; i < n; i++)
		if (o->instances[i].state != BT_RUN_ABSENT)
			o->instances[i].connections = counts[i];
}

static int see_instances(struct bt_observing *o, struct bt_observe_what what, struct bt_err *err)
{
	const struct bt_service *s = o->service;
	const struct bt_runtime_ops *rt = o->env->drivers->runtime(s->run.as);
	if (!rt || !here(s, o->env->driver->host))
		return 0;
	o->instances = BT_ARENA_ARRAY(o->arena, struct bt_seen_instance, s->run.n_slots + 1);
	o->asked = BT_ARENA_ARRAY(o->arena, struct asked, s->run.n_slots + 1);
	o->health = BT_ARENA_ARRAY(o->arena, struct asked, s->run.n_slots + 1);
	for (size_t i = 0; i < s->run.n_slots; i++) {
		struct bt_instance_ref ref = ref_of(s, i);
		int r = rt->observe(&ref, o->arena, &o->instances[i], err);
		if (r < 0)
			return r;
		if (what.identity) {
			ask_identity(o, i);
			ask_health(o, i);
		}
		if (what.foreign)
			examine(o, i);
	}
	see_connections(o);
	o->seen.instances = o->instances;
	o->seen.n_instances = s->run.n_slots;
	return 0;
}

static void on_balancer(
	void *arg, int result, const struct bt_seen_balancer *seen, const struct bt_err *err)
{
	struct bt_observing *o = arg;
	struct bt_seen_balancer *b = o->balancer;
	o->balancer_op = NULL;
	if (result < 0) {
		b->trouble = bt_arena_strdup(o->arena, err ? err->text : "cannot be observed");
	} else {
		const char *name = b->name;
		*b = *seen;
		b->name = name;
		b->identity = bt_arena_strdup(o->arena, seen->identity);
		b->trouble = bt_arena_strdup(o->arena, seen->trouble);
		b->refuses = bt_arena_strdup(o->arena, seen->refuses);
		b->members = bt_members_seen_copy(o->arena, seen->members, seen->n_members);
	}
	o->seen.balancers = b;
	o->seen.n_balancers = 1;
	one_less(o);
}

static void see_balancer(struct bt_observing *o)
{
	const struct bt_service *s = o->service;
	const struct bt_balancer_ops *ops = o->env->drivers->balancer(s);
	struct bt_balancer_facts facts;
	bt_service_balancer(s, &facts);
	if (!ops || !bt_service_balances_on(s, o->env->driver->host))
		return;
	o->balancer = BT_ARENA_NEW(o->arena, struct bt_seen_balancer);
	o->balancer->name = bt_arena_printf(o->arena, "%s/%s", facts.family, s->name);
	/* What the host's owner does not allow is not even looked at. */
	struct bt_err err = {0};
	if (bt_policy_balancer(o->env->policy, s, &err) < 0 ||
		bt_policy_rotation(o->env->policy, s, o->env->driver->host, &err) < 0) {
		o->balancer->refuses = bt_arena_strdup(o->arena, err.text);
		o->seen.balancers = o->balancer;
		o->seen.n_balancers = 1;
		return;
	}
	o->pending++;
	o->balancer_op = ops->observe(o->balancer->name, s, on_balancer, o);
}

/* Looking changes nothing; that the host's owner allows no more is said beforehand. */
static void see_vips(struct bt_observing *o)
{
	const struct bt_service *s = o->service;
	struct bt_seen_vip *seen = NULL;
	struct bt_err err = {0}, no = {0};
	if (!bt_service_has_loopback(s) || !here(s, o->env->driver->host))
		return;
	if (o->env->drivers->loopback_see(&s->loopback, o->arena, &seen, &err) < 0) {
		seen = BT_ARENA_ARRAY(o->arena, struct bt_seen_vip, s->loopback.n_vips);
		for (size_t i = 0; i < s->loopback.n_vips; i++)
			seen[i] = (struct bt_seen_vip){.address = s->loopback.vips[i],
				.trouble = bt_arena_strdup(o->arena, err.text)};
	}
	if (bt_policy_network(o->env->policy, "traffic.loopback", &no) < 0)
		for (size_t i = 0; i < s->loopback.n_vips; i++)
			seen[i].trouble = bt_arena_strdup(o->arena, no.text);
	o->seen.vips = seen;
	o->seen.n_vips = s->loopback.n_vips;
}

static void see_host(struct bt_observing *o)
{
	uint32_t *ids = NULL;
	o->seen.host = o->env->driver->host;
	o->seen.address = o->env->address;
	o->seen.agent_version = o->env->agent_version;
	struct bt_err no = {0};
	if (bt_policy_exec(o->env->policy, &no) < 0)
		o->seen.no_exec = bt_arena_strdup(o->arena, no.text);
	o->seen.can_bind_low = bt_nginx_can_bind_low(80);
	bt_fs_free_bytes(o->env->driver->state_dir, &o->seen.free_bytes, NULL);
	o->seen.n_releases =
		o->env->drivers->release_list(o->env->driver, o->service->name, o->arena, &ids);
	o->seen.releases = ids;
}

static const struct bt_service *with_secrets(
	struct bt_observing *o, const struct bt_service *service, const json_t *secrets)
{
	struct bt_service *own = bt_arena_memdup(o->arena, service, sizeof *service);
	struct bt_kv *list = BT_ARENA_ARRAY(o->arena, struct bt_kv, json_object_size(secrets) + 1);
	const char *name;
	json_t *value;
	json_object_foreach ((json_t *)secrets, name, value) {
		if (!json_is_string(value))
			continue;
		bt_redact_add(o->env->redact, json_string_value(value));
		list[own->n_secret_values++] = (struct bt_kv){bt_arena_strdup(o->arena, name),
			bt_arena_strdup(o->arena, json_string_value(value))};
	}
	own->secret_values = list;
	return own;
}

int bt_observe_start(const struct bt_exec_env *env, const json_t *service,
	struct bt_observe_what what, void (*done)(void *arg, json_t *seen), void *arg,
	struct bt_observing **ret, struct bt_err *err)
{
	struct bt_config *c = NULL;
	int r = bt_config_service_from_json(service, &c, err);
	if (r < 0)
		return r;
	struct bt_observing *o = bt_calloc(1, sizeof *o);
	*o = (struct bt_observing){.env = env,
		.arena = bt_arena_new(),
		.config = c,
		.done = done,
		.arg = arg,
		.pending = 1};
	o->fire = evtimer_new(env->driver->base, fire, o);
	o->service = with_secrets(o, &c->services[0], what.secrets);
	see_host(o);
	r = see_instances(o, what, err);
	if (r < 0) {
		bt_observe_cancel(o);
		return r;
	}
	see_vips(o);
	see_balancer(o);
	one_less(o);
	*ret = o;
	return 0;
}

struct bt_observing *bt_observe_cancel(struct bt_observing *o)
{
	if (!o)
		return NULL;
	for (size_t i = 0; o->asked && i < o->service->run.n_slots; i++) {
		bt_op_cancel(o->asked[i].op);
		bt_op_cancel(o->health[i].op);
	}
	bt_op_cancel(o->balancer_op);
	event_free(o->fire);
	bt_config_free(o->config);
	bt_arena_free(o->arena);
	free(o);
	return NULL;
}

uint64_t bt_observe_pulse(const struct bt_exec_env *env)
{
	uint64_t h = 1469598103934665603u;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	for (size_t k = 0; k < bt_known_count(env->known); k++) {
		const struct bt_service *s = bt_known_at(env->known, k)->service;
		const struct bt_runtime_ops *rt = s ? env->drivers->runtime(s->run.as) : NULL;
		for (size_t i = 0; rt && here(s, env->driver->host) && i < s->run.n_slots; i++) {
			struct bt_instance_ref ref = ref_of(s, i);
			struct bt_seen_instance seen = {0};
			if (rt->observe(&ref, a, &seen, NULL) < 0)
				continue;
			uint64_t facts[] = {k, i, (uint64_t)seen.state, seen.release,
				(uint64_t)seen.pid, (uint64_t)seen.restarts};
			for (size_t f = 0; f < BT_ARRAY_LEN(facts); f++)
				h = (h ^ facts[f]) * 1099511628211u;
		}
	}
	return h;
}
