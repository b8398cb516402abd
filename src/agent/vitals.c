/* An answer belongs to the process that gave it: with another pid the instance is unknown again.
 * The check is the one that its release was deployed with. Programs (health.exec) are run by
 * deployments only: whoever wrote one did not mean it to run for ever. */
#include "agent/vitals.h"

#include "agent/job.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"

#include <string.h>

struct vital {
	struct vital *next;
	struct bt_vitals *v;
	char *service, *slot, *why;
	int pid;
	int64_t due_ms, every_ms;
	bool known, healthy, met; /* met: still there in this round */
	struct bt_op *op;
	struct bt_config *config; /* of the release, while it is asked */
	struct bt_arena *arena;
};

struct bt_vitals {
	const struct bt_exec_env *env;
	struct vital *first;
	void (*changed)(void *arg);
	void *arg;
};

struct bt_vitals *bt_vitals_new(
	const struct bt_exec_env *env, void (*changed)(void *arg), void *arg)
{
	struct bt_vitals *v = bt_calloc(1, sizeof *v);
	v->env = env;
	v->changed = changed;
	v->arg = arg;
	return v;
}

static void quiet(struct vital *t)
{
	t->op = bt_op_cancel(t->op);
	t->config = bt_config_free(t->config);
	t->arena = bt_arena_free(t->arena);
}

static void vital_free(struct vital *t)
{
	quiet(t);
	free(t->service);
	free(t->slot);
	free(t->why);
	free(t);
}

struct bt_vitals *bt_vitals_free(struct bt_vitals *v)
{
	if (!v)
		return NULL;
	for (struct vital *t = v->first, *next; t; t = next) {
		next = t->next;
		vital_free(t);
	}
	free(v);
	return NULL;
}

static struct vital *find(const struct bt_vitals *v, const char *service, const char *slot)
{
	for (struct vital *t = v->first; t; t = t->next)
		if (bt_streq(t->service, service) && bt_streq(t->slot, slot))
			return t;
	return NULL;
}

static void on_health(void *arg, int result, const struct bt_err *err)
{
	struct vital *t = arg;
	bool healthy = result >= 0, turned = !t->known || t->healthy != healthy;
	t->op = NULL;
	t->known = true;
	t->healthy = healthy;
	free(t->why);
	t->why = healthy ? NULL : bt_strdup(err->text);
	quiet(t);
	t->due_ms = bt_clock_boot_ms() + t->every_ms;
	if (turned)
		t->v->changed(t->v->arg);
}

/* The check of the release that runs there; without one nothing is asked until the next turn. */
static const struct bt_health *check_of(
	struct vital *t, uint32_t release, struct bt_release_on_disk *disk)
{
	const struct bt_exec_env *x = t->v->env;
	BT_JSON json_t *service = NULL;
	if (x->drivers->release_find(x->driver, t->service, release, t->arena, disk, NULL) < 0 ||
		bt_release_service(disk, &service, NULL) < 0 ||
		bt_config_service_from_json(service, &t->config, NULL) < 0)
		return NULL;
	return &t->config->services[0].health;
}

static void ask(
	struct vital *t, const struct bt_instance_ref *ref, const struct bt_seen_instance *seen)
{
	const struct bt_exec_env *x = t->v->env;
	struct bt_release_on_disk disk = {0};
	t->arena = bt_arena_new();
	const struct bt_health *h = check_of(t, seen->release, &disk);
	t->every_ms = h ? h->watch_ms : 10000;
	t->due_ms = bt_clock_boot_ms() + (t->every_ms ? t->every_ms : 10000);
	if (!h || h->watch_ms == 0 || h->kind == BT_HEALTH_EXEC) {
		quiet(t);
		return;
	}
	struct bt_health_target target = {.health = h,
		.address = "127.0.0.1",
		.port = ref->port,
		.more = ref->more,
		.n_more = ref->n_more,
		.slot = t->slot,
		.host = x->driver->host,
		.artifact = disk.artifact,
		.version = disk.version,
		.within_ms = h->every_ms * (h->fails + h->passes - 1) + h->timeout_ms};
	t->op = x->drivers->health_wait(x->driver, &target, NULL, NULL, on_health, t);
}

static void look(struct bt_vitals *v, const struct bt_service *s, const struct bt_runtime_ops *rt,
	const struct bt_slot *slot, struct bt_arena *a)
{
	struct bt_instance_ref ref = {s->name, slot->name, slot->port, slot->more, slot->n_more};
	struct bt_seen_instance seen = {0};
	if (rt->observe(&ref, a, &seen, NULL) < 0 || seen.state != BT_RUN_RUNNING || !seen.release)
		return;
	struct vital *t = find(v, s->name, slot->name);
	if (t && t->pid != seen.pid) {
		quiet(t);
		t->known = false;
		t->due_ms = 0;
	}
	if (!t) {
		t = bt_calloc(1, sizeof *t);
		t->v = v;
		t->service = bt_strdup(s->name);
		t->slot = bt_strdup(slot->name);
		t->next = v->first;
		v->first = t;
	}
	if (t->due_ms == 0) /* a deployment looks at what has just started */
		t->due_ms = bt_clock_boot_ms() + 1000;
	t->pid = seen.pid;
	t->met = true;
	if (!t->op && bt_clock_boot_ms() >= t->due_ms)
		ask(t, &ref, &seen);
}

void bt_vitals_tick(struct bt_vitals *v)
{
	const struct bt_known *k = v->env->known;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	for (struct vital *t = v->first; t; t = t->next)
		t->met = false;
	for (size_t i = 0; i < bt_known_count(k); i++) {
		const struct bt_service *s = bt_known_at(k, i)->service;
		const struct bt_runtime_ops *rt = s ? v->env->drivers->runtime(s->run.as) : NULL;
		for (size_t n = 0; rt && n < s->run.n_slots; n++)
			look(v, s, rt, &s->run.slots[n], a);
	}
	for (struct vital **p = &v->first; *p;) {
		struct vital *t = *p;
		if (t->met) {
			p = &t->next;
			continue;
		}
		*p = t->next;
		vital_free(t);
	}
}

void bt_vitals_add(const struct bt_vitals *v, const char *service, json_t *seen)
{
	size_t i;
	json_t *instance;
	json_array_foreach (json_object_get(seen, "instances"), i, instance) {
		const struct vital *t =
			find(v, service, json_string_value(json_object_get(instance, "slot")));
		if (!t || !t->known ||
			json_integer_value(json_object_get(instance, "pid")) != t->pid)
			continue;
		json_object_set_new(instance, "healthy", json_boolean(t->healthy));
		if (!t->healthy)
			json_object_set_new(instance, "unhealthy_why", json_string(t->why));
	}
}
