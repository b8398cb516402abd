#include "agent/boot_priv.h"

#include "agent/job.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/str.h"
#include "driver/op.h"

#include <string.h>

#define AGAIN_MS 1000
#define HOLD_WITHIN_MS 30000 /* then apps are started all the same: late is worse than a 502 */

/* ---- waiting for the end of a hold ---------------------------------------------------------- */

static bool is_held(const struct bt_boot *b, const char *service, const char *slot)
{
	for (const struct bt_boot_slot *s = b->slots; s; s = s->next)
		if (bt_streq(s->service->name, service) && bt_streq(s->name, slot))
			return true;
	return false;
}

static void waiter_drop(struct bt_boot_waiter *w)
{
	struct bt_boot_waiter **p = &w->boot->waiters;
	while (*p && *p != w)
		p = &(*p)->next;
	if (*p)
		*p = w->next;
	free(w->service);
	free(w->slot);
	free(w);
}

static void waiter_cancel(struct bt_op *op)
{
	waiter_drop((struct bt_boot_waiter *)op);
}

struct bt_op *bt_boot_wait(
	struct bt_boot *b, const char *service, const char *slot, bt_done_fn done, void *arg)
{
	if (!b || !is_held(b, service, slot))
		return NULL;
	struct bt_boot_waiter *w = bt_calloc(1, sizeof *w);
	w->op.cancel = waiter_cancel;
	w->boot = b;
	w->service = bt_strdup(service);
	w->slot = bt_strdup(slot);
	w->done = done;
	w->arg = arg;
	w->next = b->waiters;
	b->waiters = w;
	return &w->op;
}

static void tell_waiters(struct bt_boot *b)
{
	for (struct bt_boot_waiter *w = b->waiters; w;) {
		if (is_held(b, w->service, w->slot)) {
			w = w->next;
			continue;
		}
		bt_done_fn done = w->done;
		void *arg = w->arg;
		waiter_drop(w);
		done(arg, 0, NULL);
		w = b->waiters; /* the call may have changed the list */
	}
}

/* ---- health --------------------------------------------------------------------------------- */

static void slot_quiet(struct bt_boot_slot *s)
{
	s->health = bt_op_cancel(s->health);
	bt_config_free(s->config);
	s->config = NULL;
	bt_arena_free(s->arena);
	s->arena = NULL;
}

static void slot_free(struct bt_boot_slot *s)
{
	slot_quiet(s);
	free(s->why);
	free(s->name);
	free(s);
}

static void kick(struct bt_boot *b, int64_t ms)
{
	bt_timer_in(b->timer, ms);
}

static void on_health(void *arg, int result, const struct bt_err *err)
{
	struct bt_boot_slot *s = arg;
	struct bt_boot *b = s->service->boot;
	s->health = NULL;
	slot_quiet(s);
	if (result < 0) {
		if (!bt_streq(s->why, err->text)) {
			bt_log(b->log, BT_LOG_WARN,
				"after the boot, %s/%s gets no requests yet: %s", s->service->name,
				s->name, err->text);
			free(s->why);
			s->why = bt_strdup(err->text);
		}
		kick(b, AGAIN_MS);
		return;
	}
	s->healthy = true;
	s->service->dirty = true;
	kick(b, 0);
}

/* As the release that runs there was deployed. */
static int read_service(struct bt_boot_slot *s, struct bt_release_on_disk *disk, struct bt_err *err)
{
	const struct bt_exec_env *x = s->service->boot->env;
	BT_JSON json_t *service = NULL;
	int r = x->drivers->release_find(
		x->driver, s->service->name, s->release, s->arena, disk, err);
	if (r == 0)
		r = bt_release_service(disk, &service, err);
	if (r == 0)
		r = bt_config_service_from_json(service, &s->config, err);
	return r;
}

static void check_health(struct bt_boot_slot *s)
{
	const struct bt_exec_env *x = s->service->boot->env;
	struct bt_release_on_disk disk = {0};
	struct bt_err err = {0};
	s->arena = bt_arena_new();
	if (read_service(s, &disk, &err) < 0) {
		on_health(s, err.code, &err);
		return;
	}
	struct bt_health_target t = {.health = &s->config->services[0].health,
		.address = "127.0.0.1",
		.port = s->port,
		.slot = s->name,
		.host = x->driver->host,
		.artifact = disk.artifact,
		.version = disk.version};
	s->health = x->drivers->health_wait(x->driver, &t, NULL, NULL, on_health, s);
}

/* ---- holds ---------------------------------------------------------------------------------- */

static void drop_ended(struct bt_boot_service *v)
{
	struct bt_boot *b = v->boot;
	bool any = false;
	for (struct bt_boot_slot **p = &b->slots; *p;) {
		struct bt_boot_slot *s = *p;
		if (s->service != v || !s->ending) {
			p = &s->next;
			continue;
		}
		bt_log(b->log, BT_LOG_INFO,
			"after the boot, %s/%s is healthy and gets its requests", v->name, s->name);
		*p = s->next;
		slot_free(s);
		any = true;
	}
	if (!any)
		return;
	bt_boot_save(b);
	tell_waiters(b);
}

static void on_hold(void *arg, int result, const struct bt_err *err)
{
	struct bt_boot_service *v = arg;
	struct bt_boot *b = v->boot;
	v->op = NULL;
	if (result < 0) {
		if (!v->told && result != BT_E_REFUSED)
			bt_log(b->log, BT_LOG_WARN, "after the boot, balancer of %s: %s", v->name,
				err->text);
		v->told = v->told || result != BT_E_REFUSED;
		v->dirty = true;
		kick(b, AGAIN_MS);
		return;
	}
	v->in_force = true;
	drop_ended(v);
	kick(b, 0);
}

static void hold(struct bt_boot_service *v)
{
	struct bt_boot *b = v->boot;
	const struct bt_known_service *known = bt_known_find(b->env->known, v->name);
	const struct bt_balancer_ops *ops =
		known && known->service ? b->env->drivers->balancer(known->service) : NULL;
	size_t n = 0;
	for (const struct bt_boot_slot *s = b->slots; s; s = s->next)
		n++;
	BT_FREE const char **slots = bt_calloc(n + 1, sizeof *slots);
	n = 0;
	v->dirty = false;
	for (struct bt_boot_slot *s = b->slots; s; s = s->next) {
		if (s->service != v)
			continue;
		s->ending = s->healthy;
		if (!s->healthy)
			slots[n++] = s->name;
	}
	if (ops && ops->hold)
		v->op = ops->hold(known->service, slots, n, on_hold, v);
	else
		on_hold(v, 0, NULL);
}

/* What was stopped or replaced meanwhile is in the hands of who did that. */
static void let_go(struct bt_boot *b)
{
	for (struct bt_boot_slot *s = b->slots; s; s = s->next) {
		const struct bt_wanted_slot *w =
			bt_known_slot(b->env->known, s->service->name, s->name);
		if (s->healthy || (w && w->run && w->release == s->release))
			continue;
		slot_quiet(s);
		s->healthy = s->service->dirty = true;
	}
}

static void wake(struct bt_boot *b)
{
	const struct bt_runtime_ops *rt;
	for (int kind = 0; kind <= BT_RUNTIME_PROCESS; kind++)
		if ((rt = b->env->drivers->runtime((enum bt_runtime)kind)) && rt->wake)
			rt->wake();
	b->awake = true;
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct bt_boot *b = arg;
	bool all = true, late = bt_clock_boot_ms() - b->begun_ms > HOLD_WITHIN_MS;
	(void)fd;
	(void)what;
	let_go(b);
	for (struct bt_boot_service *v = b->services; v; v = v->next) {
		if (!v->op && (v->dirty || !v->in_force))
			hold(v);
		all = all && v->in_force;
	}
	if (!b->awake && (all || late)) {
		if (!all)
			bt_log(b->log, BT_LOG_WARN,
				"after the boot, apps are started although their balancer could "
				"not be told to wait");
		wake(b);
	}
	for (struct bt_boot_slot *s = b->slots; s && b->awake; s = s->next)
		if (!s->health && !s->healthy)
			check_health(s);
	if (b->slots)
		kick(b, AGAIN_MS);
}

void bt_boot_start(struct bt_boot *b, const struct bt_exec_env *env, const struct bt_log *log)
{
	b->env = env;
	b->log = log;
	b->begun_ms = bt_clock_boot_ms();
	b->timer = evtimer_new(env->driver->base, on_timer, b);
	if (b->slots)
		kick(b, 0);
}

struct bt_boot *bt_boot_free(struct bt_boot *b)
{
	if (!b)
		return NULL;
	while (b->waiters)
		waiter_drop(b->waiters);
	while (b->slots) {
		struct bt_boot_slot *s = b->slots;
		b->slots = s->next;
		slot_free(s);
	}
	while (b->services) {
		struct bt_boot_service *v = b->services;
		b->services = v->next;
		bt_op_cancel(v->op);
		free(v->name);
		free(v);
	}
	if (b->timer)
		event_free(b->timer);
	free(b->path);
	free(b);
	return NULL;
}
