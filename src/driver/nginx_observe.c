/* What nginx really sends to: the file as it lies there, the processes as the kernel shows them,
 * and who answers. Waits until a change that a crash interrupted is confirmed or undone. */
#include "base/fs.h"
#include "driver/nginx_link.h"
#include "driver/nginx_unit.h"
#include "net/cert_pair.h"

#include <errno.h>
#include <string.h>

#define RECOVERY_POLL_MS 50
#define FILE_MAX (1u << 20)

struct observe {
	struct bt_thread_op op;
	struct bt_nginx_site *site;
	struct event *timer;
	struct bt_nginx_test *test;
	struct bt_op *ask;
	bool steady;  /* no change of this nginx was under way when the look began */
	bool differs; /* the file is not what was confirmed */
	void (*done)(void *, int, const struct bt_seen_balancer *, const struct bt_err *);
	void *arg;
	struct bt_arena *arena; /* everything below lives in it */
	struct bt_nginx nginx;	/* what of the config is needed */
	struct bt_service
		sited; /* with form `site`: name, slots, nginx; nginx NULL: another form */
	const char *name, *service, *file, *pid_file, *confirmed_text, *identity_url,
		*identity_host;
	struct bt_seen_balancer seen;
};

static void observe_free(void *op)
{
	struct observe *o = op;
	bt_nginx_test_cancel(o->test);
	bt_op_cancel(o->ask);
	event_free(o->timer);
	bt_arena_free(o->arena);
	free(o);
}

static void observe_end(struct observe *o)
{
	struct bt_err none = {0};
	o->done(o->arg, 0, &o->seen, &none);
	observe_free(o);
}

static void trouble(struct observe *o, const char *text)
{
	if (!o->seen.trouble)
		o->seen.trouble = bt_arena_strdup(o->arena, text);
}

/* ---- the file and the processes (on a thread) --------------------------------------------- */

static void look_at_link(struct observe *o)
{
	struct bt_err err = {0};
	BT_FREE char *value = NULL;
	struct bt_seen_member *members = NULL;
	int r = bt_nginx_value_read(o->file, true, &value, &err);
	if (r == 0)
		r = bt_nginx_link_members(
			&o->sited, value, o->arena, &members, &o->seen.n_members, &err);
	o->seen.members = members;
	o->differs = r == 0 && o->confirmed_text && !bt_streq(value, o->confirmed_text);
	if (r < 0) {
		o->seen.refuses = bt_arena_strdup(o->arena, err.text);
		trouble(o, err.text);
	}
}

static void look_at_file(struct observe *o)
{
	if (o->sited.nginx) {
		look_at_link(o);
		return;
	}
	struct bt_err err = {0};
	BT_FREE char *text = NULL;
	size_t n = 0;
	int r = bt_fs_read(o->file, FILE_MAX, &text, &n, &err);
	if (r == -ENOENT && !o->confirmed_text)
		return; /* never deployed */
	if (r < 0) {
		trouble(o, err.text);
		return;
	}
	o->differs = o->confirmed_text && strcmp(text, o->confirmed_text) != 0;
	struct bt_seen_member *members = NULL;
	r = bt_nginx_conf_members(
		text, n, &o->nginx, o->service, o->arena, &members, &o->seen.n_members, &err);
	o->seen.members = members;
	if (r < 0) {
		bt_err_wrap(&err, "%s", o->file);
		trouble(o, err.text);
	}
}

static void look_at_processes(struct observe *o)
{
	struct bt_nginx_proc master;
	if (!o->pid_file || bt_nginx_master(o->pid_file, &master) != 0)
		return;
	struct bt_nginx_workers w;
	bt_nginx_workers_read(&master, &w);
	o->seen.running = true;
	o->seen.old_workers = (int)w.n_leaving;
	bt_nginx_workers_done(&w);
}

/* Of the config that is asked about, which may be one that is not in force yet. */
static void look_at_certificate(struct observe *o)
{
	struct bt_err err = {0};
	if (o->nginx.certificate && o->nginx.certificate_key &&
		bt_cert_pair_check(o->nginx.certificate, o->nginx.certificate_key, &err) < 0)
		o->seen.refuses = bt_arena_strdup(o->arena, err.text);
}

static void run_look(void *arg)
{
	struct observe *o = arg;
	look_at_certificate(o);
	look_at_processes(o);
	look_at_file(o);
}

/* ---- on the loop -------------------------------------------------------------------------- */

/* A `set` names one instance; the other slots are known from what was applied. */
static void add_known_members(struct observe *o)
{
	const struct bt_nginx_state *s = o->site->state;
	if (o->nginx.mode == BT_NGINX_MANAGED || o->nginx.form == BT_NGINX_UPSTREAM || !s ||
		!s->has_confirmed)
		return;
	size_t n = o->seen.n_members, max = n + s->confirmed.n_members;
	struct bt_seen_member *all = BT_ARENA_ARRAY(o->arena, struct bt_seen_member, max);
	if (n)
		memcpy(all, o->seen.members, n * sizeof *all);
	for (size_t i = 0; i < s->confirmed.n_members; i++) {
		const struct bt_pool_member *m = &s->confirmed.members[i];
		bool known = false;
		for (size_t k = 0; k < n; k++) {
			bool same = all[k].port == m->port;
			if (same && o->nginx.form == BT_NGINX_SERVICE_PORT)
				all[k].address = bt_arena_strdup(o->arena, m->address);
			known = known || (same && bt_streq(all[k].address, m->address));
		}
		if (!known)
			all[o->seen.n_members++] = (struct bt_seen_member){
				.address = bt_arena_strdup(o->arena, m->address), .port = m->port};
	}
	o->seen.members = all;
}

static void on_identity(void *arg, int result, const char *body, const struct bt_err *err)
{
	struct observe *o = arg;
	(void)err;
	o->ask = NULL;
	if (result == 0)
		o->seen.identity = bt_arena_strdup(o->arena, body);
	observe_end(o);
}

/* Between the write of a file and its confirmation it is we who changed it. */
static void tell_difference(struct observe *o)
{
	const struct bt_nginx_state *s = o->site->state;
	bool same = s && s->has_confirmed && s->confirmed.generation == o->seen.generation;
	if (!o->differs || !o->steady || o->site->unit->running || !same)
		return;
	BT_FREE char *line = bt_asprintf("%s was changed by somebody else since generation %llu",
		o->file, (unsigned long long)o->seen.generation);
	trouble(o, line);
}

static void on_looked(void *arg)
{
	struct observe *o = arg;
	const struct bt_nginx_state *s = o->site->state;
	tell_difference(o);
	add_known_members(o);
	bt_nginx_learn(o->site->unit);
	if (!o->seen.running && (s || !o->site->unit->managed)) {
		BT_FREE char *line = bt_asprintf("nginx is not running (%s)",
			o->pid_file ? o->pid_file : "its pid file is not known");
		trouble(o, line);
	}
	if (s && s->has_pending)
		trouble(o, "a change of nginx was interrupted and is not undone yet");
	if (o->site->trouble)
		trouble(o, o->site->trouble);
	if (o->site->certificate_trouble)
		trouble(o, o->site->certificate_trouble);
	if (o->seen.running && o->identity_url)
		o->ask = bt_identity_ask(
			bt_nginx_driver()->env, o->identity_url, o->identity_host, on_identity, o);
	else
		observe_end(o);
}

static void look(struct observe *o)
{
	const struct bt_nginx_unit *u = o->site->unit;
	const struct bt_nginx_state *s = o->site->state;
	if (u->facts_known)
		o->pid_file = bt_arena_strdup(o->arena, u->facts.pid_file);
	if (s && s->has_confirmed) {
		o->seen.generation = s->confirmed.generation;
		o->confirmed_text = bt_arena_strdup(o->arena, s->confirmed.text);
	}
	o->steady = !u->running;
	bt_thread_op_run(&o->op, bt_nginx_driver()->env->work, run_look, on_looked);
}

static void on_observe_tested(void *arg, int result, const char *dump, const struct bt_err *err)
{
	struct observe *o = arg;
	(void)dump;
	o->test = NULL;
	if (result < 0)
		trouble(o, err->text);
	look(o);
}

static void on_observe_timer(evutil_socket_t fd, short what, void *arg)
{
	struct observe *o = arg;
	struct bt_nginx_unit *u = o->site->unit;
	struct bt_nginx_proc master;
	(void)fd;
	(void)what;
	if (bt_nginx_recovering(u))
		bt_timer_in(o->timer, RECOVERY_POLL_MS);
	else if (!u->managed &&
		 (!u->facts_known || bt_nginx_master(u->facts.pid_file, &master) != 0))
		o->test = bt_nginx_test_start(u, on_observe_tested, o);
	else
		look(o);
}

static void set_sites(struct observe *o, const struct bt_service *service)
{
	const struct bt_nginx *n = service->nginx;
	struct bt_arena *a = o->arena;
	if (n->mode != BT_NGINX_ADOPT || n->form != BT_NGINX_SITE)
		return;
	struct bt_kv *sites = BT_ARENA_ARRAY(a, struct bt_kv, n->n_sites);
	struct bt_slot *slots = BT_ARENA_ARRAY(a, struct bt_slot, service->run.n_slots);
	for (size_t i = 0; i < n->n_sites; i++)
		sites[i] = (struct bt_kv){
			bt_arena_strdup(a, n->sites[i].key), bt_arena_strdup(a, n->sites[i].value)};
	for (size_t i = 0; i < service->run.n_slots; i++) {
		slots[i].name = bt_arena_strdup(a, service->run.slots[i].name);
		slots[i].port = service->run.slots[i].port;
	}
	o->nginx.include = bt_arena_strdup(a, n->include);
	o->nginx.sites = sites;
	o->nginx.n_sites = n->n_sites;
	o->sited.name = o->service;
	o->sited.run.slots = slots;
	o->sited.run.n_slots = service->run.n_slots;
	o->sited.nginx = &o->nginx;
}

static void set_identity_url(struct observe *o, const struct bt_service *service)
{
	const struct bt_identity *id = &service->identity;
	const struct bt_nginx *n = service->nginx;
	if (!id->path)
		return;
	BT_STR struct bt_str url = {0};
	if (id->through) {
		bt_str_add(&url, id->through);
	} else {
		bt_nginx_base_url(n, &url);
		if (url.len > 0)
			bt_str_add(&url, id->path);
	}
	if (url.len > 0)
		o->identity_url = bt_arena_strdup(o->arena, url.data);
	if (n->mode == BT_NGINX_MANAGED && n->server_name && !strpbrk(n->server_name, "*_ "))
		o->identity_host = bt_arena_strdup(o->arena, n->server_name);
}

struct bt_op *bt_nginx_observe_begin(const char *name, const struct bt_service *service,
	void (*done)(void *arg, int result, const struct bt_seen_balancer *seen,
		const struct bt_err *err),
	void *arg)
{
	struct observe *o = bt_calloc(1, sizeof *o);
	struct bt_arena *a = bt_arena_new();
	const struct bt_nginx *n = service->nginx;
	bt_thread_op_init(&o->op, observe_free);
	o->arena = a;
	o->site = bt_nginx_site_of(service);
	o->done = done;
	o->arg = arg;
	o->nginx = (struct bt_nginx){.mode = n->mode,
		.form = n->form,
		.upstream = bt_arena_strdup(a, n->upstream),
		.variable = bt_arena_strdup(a, n->variable),
		.certificate = bt_arena_strdup(a, n->certificate),
		.certificate_key = bt_arena_strdup(a, n->certificate_key)};
	o->service = bt_arena_strdup(a, service->name);
	o->seen.name = bt_arena_strdup(a, name);
	BT_FREE char *file = bt_nginx_file_of(o->site, n);
	o->file = bt_arena_strdup(a, file);
	set_identity_url(o, service);
	set_sites(o, service);
	o->timer = event_new(bt_nginx_driver()->env->base, -1, 0, on_observe_timer, o);
	bt_timer_in(o->timer, 0);
	return &o->op.op;
}
