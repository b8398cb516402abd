#include "agent/boot.h"

#include "agent/job.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "driver/op.h"
#include "shim/proc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define AGAIN_MS 1000
#define HOLD_WITHIN_MS 30000 /* then apps are started all the same: late is worse than a 502 */
#define FILE_MAX (1u << 20)

struct slot {
	struct slot *next;
	struct service *service;
	char *name;
	uint16_t port;
	uint32_t release;
	struct bt_arena *arena; /* of health */
	struct bt_config *config;
	struct bt_op *health;
	char *why;    /* it was not healthy last */
	bool healthy; /* or nobody's any more: its hold is to end */
	bool ending;  /* its hold ends with the change that is under way */
};

struct service {
	struct service *next;
	struct bt_boot *boot;
	char *name;
	struct bt_op *op; /* a hold under way */
	bool in_force, dirty, told;
};

struct waiter {
	struct bt_op op;
	struct waiter *next;
	struct bt_boot *boot;
	char *service, *slot;
	bt_done_fn done;
	void *arg;
};

struct bt_boot {
	char *path, id[80];
	struct slot *slots;
	struct service *services;
	struct waiter *waiters;
	struct event *timer;
	int64_t begun_ms;
	bool awake;
	const struct bt_exec_env *env;
	const struct bt_log *log;
};

/* ---- the file ----------------------------------------------------------------------------- */

static json_t *to_json(const struct bt_boot *b)
{
	json_t *held = json_array();
	for (const struct slot *s = b->slots; s; s = s->next)
		json_array_append_new(held,
			json_pack("{s:s, s:s, s:i, s:I}", "service", s->service->name, "slot",
				s->name, "port", (int)s->port, "release", (json_int_t)s->release));
	return json_pack("{s:i, s:s, s:o}", "version", 1, "boot", b->id, "held", held);
}

struct save {
	char *path, *text;
};

static void save_run(void *arg)
{
	struct save *s = arg;
	/* Not written: the next start of the agent holds, once more, what is healthy already. */
	(void)bt_fs_write_atomic(s->path, s->text, strlen(s->text), 0600, NULL);
}

static void save_done(void *arg)
{
	struct save *s = arg;
	free(s->path);
	free(s->text);
	free(s);
}

static void save(struct bt_boot *b)
{
	struct save *s = bt_calloc(1, sizeof *s);
	BT_JSON json_t *j = to_json(b);
	s->path = bt_strdup(b->path);
	s->text = bt_json_dump(j);
	bt_work_submit(b->env->driver->work, save_run, save_done, s);
}

static struct service *service_of(struct bt_boot *b, const char *name)
{
	struct service **p = &b->services;
	for (; *p; p = &(*p)->next)
		if (strcmp((*p)->name, name) == 0)
			return *p;
	*p = bt_calloc(1, sizeof **p);
	(*p)->boot = b;
	(*p)->name = bt_strdup(name);
	return *p;
}

static void add(
	struct bt_boot *b, const char *service, const char *slot, uint16_t port, uint32_t release)
{
	struct slot *s = bt_calloc(1, sizeof *s);
	s->service = service_of(b, service);
	s->name = bt_strdup(slot);
	s->port = port;
	s->release = release;
	s->next = b->slots;
	b->slots = s;
}

static void take_held(struct bt_boot *b, const json_t *held)
{
	size_t i;
	json_t *one;
	json_array_foreach (held, i, one) {
		const char *service = json_string_value(json_object_get(one, "service"));
		const char *slot = json_string_value(json_object_get(one, "slot"));
		if (service && slot)
			add(b, service, slot,
				(uint16_t)json_integer_value(json_object_get(one, "port")),
				(uint32_t)json_integer_value(json_object_get(one, "release")));
	}
}

static void take_wanted(struct bt_boot *b, const struct bt_known *known)
{
	for (size_t i = 0; i < bt_known_count(known); i++) {
		const struct bt_known_service *s = bt_known_at(known, i);
		for (size_t k = 0; k < s->n_slots; k++)
			if (s->slots[k].run)
				add(b, s->name, s->slots[k].slot, s->slots[k].port,
					s->slots[k].release);
	}
}

/* The kernel's boot, and process 1's: a container is booted without the kernel, and what it shows
 * of the kernel's boot id depends on who mounted what over it. */
static int boot_id(char id[static 80], struct bt_err *err)
{
	struct bt_proc_stat first = {0};
	char kernel[40] = "";
	int r = bt_proc_boot_id(kernel, sizeof kernel);
	if (r < 0)
		return bt_err_errno(err, r, "read the kernel's boot id");
	(void)bt_proc_stat(1, &first); /* hidden from us: the kernel's has to do */
	snprintf(id, 80, "%s %lld", kernel, (long long)first.start_ticks);
	return 0;
}

int bt_boot_load(const char *state_dir, const struct bt_known *known, struct bt_driver_env *env,
	struct bt_boot **ret, struct bt_err *err)
{
	struct bt_boot *b = bt_calloc(1, sizeof *b);
	BT_FREE char *text = NULL;
	BT_JSON json_t *j = NULL;
	size_t n = 0;
	b->path = bt_asprintf("%s/boot", state_dir);
	int r = boot_id(b->id, err);
	if (r == 0)
		r = bt_fs_read(b->path, FILE_MAX, &text, &n, err);
	bool first = r == -ENOENT &&
		     b->id[0]; /* an agent before this file, or a new host: all goes on */
	if (first)
		r = 0;
	else if (r == 0)
		r = bt_json_parse(text, n, FILE_MAX, &j, err);
	if (r < 0) {
		bt_err_wrap(err, "%s", b->path);
		bt_boot_free(b);
		return r;
	}
	if (bt_streq(json_string_value(json_object_get(j, "boot")), b->id))
		take_held(b, json_object_get(j, "held"));
	else if (!first)
		take_wanted(b, known);
	/* Durable before anything is started or held in this boot. */
	BT_JSON json_t *now = to_json(b);
	BT_FREE char *dump = bt_json_dump(now);
	/* An agent that starts again in the same boot has nothing to write, and so needs no room.
	 */
	r = bt_streq(text, dump) ? 0 : bt_fs_write_atomic(b->path, dump, strlen(dump), 0600, err);
	if (r < 0) {
		bt_boot_free(b);
		return r;
	}
	env->hold = b->slots != NULL;
	*ret = b;
	return 0;
}

/* ---- waiting for the end of a hold ---------------------------------------------------------- */

static bool is_held(const struct bt_boot *b, const char *service, const char *slot)
{
	for (const struct slot *s = b->slots; s; s = s->next)
		if (bt_streq(s->service->name, service) && bt_streq(s->name, slot))
			return true;
	return false;
}

static void waiter_drop(struct waiter *w)
{
	struct waiter **p = &w->boot->waiters;
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
	waiter_drop((struct waiter *)op);
}

struct bt_op *bt_boot_wait(
	struct bt_boot *b, const char *service, const char *slot, bt_done_fn done, void *arg)
{
	if (!b || !is_held(b, service, slot))
		return NULL;
	struct waiter *w = bt_calloc(1, sizeof *w);
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
	for (struct waiter *w = b->waiters; w;) {
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

static void slot_quiet(struct slot *s)
{
	s->health = bt_op_cancel(s->health);
	bt_config_free(s->config);
	s->config = NULL;
	bt_arena_free(s->arena);
	s->arena = NULL;
}

static void slot_free(struct slot *s)
{
	slot_quiet(s);
	free(s->why);
	free(s->name);
	free(s);
}

static void kick(struct bt_boot *b, int64_t ms)
{
	struct timeval tv = {ms / 1000, ms % 1000 * 1000};
	evtimer_add(b->timer, &tv);
}

static void on_health(void *arg, int result, const struct bt_err *err)
{
	struct slot *s = arg;
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
static int read_service(struct slot *s, struct bt_release_on_disk *disk, struct bt_err *err)
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

static void check_health(struct slot *s)
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

static void drop_ended(struct service *v)
{
	struct bt_boot *b = v->boot;
	bool any = false;
	for (struct slot **p = &b->slots; *p;) {
		struct slot *s = *p;
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
	save(b);
	tell_waiters(b);
}

static void on_hold(void *arg, int result, const struct bt_err *err)
{
	struct service *v = arg;
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

static void hold(struct service *v)
{
	struct bt_boot *b = v->boot;
	const struct bt_known_service *known = bt_known_find(b->env->known, v->name);
	const struct bt_balancer_ops *ops =
		known && known->service ? b->env->drivers->balancer(known->service) : NULL;
	size_t n = 0;
	for (const struct slot *s = b->slots; s; s = s->next)
		n++;
	BT_FREE const char **slots = bt_calloc(n + 1, sizeof *slots);
	n = 0;
	v->dirty = false;
	for (struct slot *s = b->slots; s; s = s->next) {
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
	for (struct slot *s = b->slots; s; s = s->next) {
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
	for (struct service *v = b->services; v; v = v->next) {
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
	for (struct slot *s = b->slots; s && b->awake; s = s->next)
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
		struct slot *s = b->slots;
		b->slots = s->next;
		slot_free(s);
	}
	while (b->services) {
		struct service *v = b->services;
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
