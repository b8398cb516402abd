/* The health-check instance: a balancer that is somebody else's asks each host's agent whether to
 * send there, and believes it after a few answers. So "out" is an answer, and a wait.
 *
 * Each agent knows the instances of its own host only. What it answers comes from memory: the
 * desired state, which is given at the start (resume) and with each change (write). While the
 * server is away, and after a restart of the agent, it answers as before.
 *
 * A service that nothing was ever applied to answers 503 from the moment that it is looked at: to
 * the checker that is the same as nobody there, and to a plan it shows that the port can be had.
 *
 * At PATH the host is in as long as one of its slots is; at PATH/SLOT it is that slot. A checker
 * that asks for the whole host is believed to send to all of it, so where slots come and go one by
 * one, each is to be asked for by its own path. */
#include "driver/l4_rotation.h"

#include "base/clock.h"
#include "base/str.h"
#include "config/config.h"
#include "driver/l4.h"
#include "driver/op.h"

#include <string.h>

struct slot {
	char *name;
	uint16_t port;
	struct bt_rotation_watch watch;
};
struct listener { /* one door; several services may be asked for at it */
	struct listener *next;
	char *listen;
	struct bt_door *door;
	size_t users;
};
struct place { /* a service on this host */
	struct place *next;
	char *name, *path, *listen, *body_in, *body_out;
	struct bt_rotation spec; /* numbers and flags only */
	bool applied;
	struct bt_rotation_watch watch; /* of the host as a whole */
	struct slot *slots;
	size_t n_slots;
	struct listener *listener; /* http */
	struct bt_door *door;	   /* tcp, while in */
};
struct waiting { /* a write that waits until it is believed */
	struct bt_op op;
	struct waiting *next, **link;
	struct place *place;
	struct event *timer;
	int64_t said; /* as last told */
	bool again;   /* said before: nobody waits */
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done;
	void *arg;
	struct bt_err err; /* it failed before it began */
};

static const struct bt_driver_env *env;
static uint64_t epoch; /* this process: another one is told again what does not hold */
static struct place *places;
static struct listener *listeners;
static struct waiting *waitings;

/* ---- answers ------------------------------------------------------------------------------ */

static void add_names(struct bt_str *out, const struct place *p, bool in)
{
	bool first = true;
	for (size_t i = 0; i < p->n_slots; i++) {
		if (p->slots[i].watch.in != in)
			continue;
		bt_str_addf(out, "%s%s%s",
			!first	   ? ", "
			: out->len ? "; "
				   : "",
			!first ? ""
			: in   ? "in: "
			       : "out: ",
			p->slots[i].name);
		first = false;
	}
}

static void say_host(const struct place *p, struct bt_str *out)
{
	if (p->watch.in ? p->body_in != NULL : p->body_out != NULL) {
		bt_str_add(out, p->watch.in ? p->body_in : p->body_out);
		return;
	}
	if (!p->applied) {
		bt_str_add(out, "out: not deployed yet\n");
		return;
	}
	add_names(out, p, true);
	add_names(out, p, false);
	bt_str_addc(out, '\n');
}

static void say_slot(const struct place *p, const struct slot *s, struct bt_str *out)
{
	const char *body = s->watch.in ? p->body_in : p->body_out;
	if (body)
		bt_str_add(out, body);
	else if (!p->applied)
		bt_str_add(out, "out: not deployed yet\n");
	else
		bt_str_addf(out, "%s: %s\n", s->watch.in ? "in" : "out", s->name);
}

static void check_waitings(void);

static void answer_place(struct place *p, const char *rest, struct bt_door_answer *a, int64_t now)
{
	if (*rest == '\0') {
		bt_rotation_asked(&p->watch, &p->spec, now);
		a->status = p->watch.in ? 200 : 503;
		say_host(p, a->body);
	}
	for (size_t i = 0; *rest == '/' && i < p->n_slots; i++) {
		struct slot *s = &p->slots[i];
		if (!bt_streq(s->name, rest + 1))
			continue;
		bt_rotation_asked(&s->watch, &p->spec, now);
		a->status = s->watch.in ? 200 : 503;
		say_slot(p, s, a->body);
	}
}

static void on_http(void *arg, const char *path, struct bt_door_answer *a)
{
	const struct listener *l = arg;
	int64_t now = bt_clock_boot_ms();
	/* a service's own path comes before a slot's of another one */
	for (struct place *p = places; p; p = p->next)
		if (p->listener == l && bt_streq(p->path, path)) {
			answer_place(p, "", a, now);
			check_waitings();
			return;
		}
	for (struct place *p = places; p && a->status == 404; p = p->next) {
		size_t n = strlen(p->path);
		n -= bt_str_ends(p->path, "/");
		if (p->listener == l && strncmp(p->path, path, n) == 0 && path[n] == '/')
			answer_place(p, path + n, a, now);
	}
	if (a->status == 404)
		bt_str_add(a->body, "no such service or slot here\n");
	check_waitings();
}

static void on_tcp(void *arg, const char *path, struct bt_door_answer *a)
{
	struct place *p = arg;
	(void)path;
	(void)a;
	bt_rotation_asked(&p->watch, &p->spec, bt_clock_boot_ms());
	check_waitings();
}

/* ---- doors -------------------------------------------------------------------------------- */

static int take_listener(const char *listen, struct listener **ret, struct bt_err *err)
{
	struct listener *l = listeners;
	while (l && !bt_streq(l->listen, listen))
		l = l->next;
	if (!l) {
		l = bt_calloc(1, sizeof *l);
		int r = bt_door_open(env->base, listen, false, on_http, l, &l->door, err);
		if (r < 0) {
			free(l);
			return r;
		}
		l->listen = bt_strdup(listen);
		l->next = listeners;
		listeners = l;
	}
	l->users++;
	*ret = l;
	return 0;
}

static void leave_listener(struct listener *l)
{
	struct listener **at = &listeners;
	if (!l || --l->users)
		return;
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	bt_door_close(l->door);
	free(l->listen);
	free(l);
}

/* Opens what the service's config wants, before anything of the place is changed, so that a port
 * that cannot be had leaves everything as it is. What is the same already is kept. */
static int open_doors(struct place *p, const struct bt_rotation *r, const char *listen, bool in,
	struct listener **ret_listener, struct bt_door **ret_door, struct bt_err *err)
{
	bool same = p->listen && bt_streq(p->listen, listen) && p->spec.tcp == r->tcp;
	*ret_listener = same ? p->listener : NULL;
	*ret_door = same && in ? p->door : NULL;
	if (!r->tcp && !*ret_listener)
		return take_listener(listen, ret_listener, err);
	if (r->tcp && in && !*ret_door)
		return bt_door_open(env->base, listen, true, on_tcp, p, ret_door, err);
	return 0;
}

/* ---- what is wanted ----------------------------------------------------------------------- */

static bool wanted_in(const struct bt_l4_target *t, const char *slot)
{
	for (size_t i = 0; i < t->n_members; i++)
		if (bt_streq(t->members[i].host, env->host) && bt_streq(t->members[i].slot, slot))
			return t->members[i].in;
	return false;
}

static struct place *find_place(const char *service)
{
	struct place *p = places;
	while (p && !bt_streq(p->name, service))
		p = p->next;
	return p;
}

static struct place *take_place(const char *service)
{
	struct place *p = find_place(service);
	if (p)
		return p;
	p = bt_calloc(1, sizeof *p);
	p->name = bt_strdup(service);
	p->next = places;
	places = p;
	return p;
}

/* The slots of the config, with what was said of those that were there before. */
static void set_slots(struct place *p, const struct bt_l4_target *t, bool held, int64_t now)
{
	const struct bt_run *run = &t->service->run;
	struct slot *fresh = bt_calloc(run->n_slots + 1, sizeof *fresh);
	bool any = false, began = p->slots == NULL;
	for (size_t i = 0; i < run->n_slots; i++) {
		bool in = !held && wanted_in(t, run->slots[i].name), was = false;
		any = any || in;
		for (size_t k = 0; k < p->n_slots; k++)
			if (bt_streq(p->slots[k].name, run->slots[i].name)) {
				fresh[i].watch = p->slots[k].watch;
				was = true;
			}
		fresh[i].name = bt_strdup(run->slots[i].name);
		fresh[i].port = run->slots[i].port;
		if (!was || fresh[i].watch.in != in)
			bt_rotation_changed(&fresh[i].watch, in, now);
	}
	for (size_t k = 0; k < p->n_slots; k++)
		free(p->slots[k].name);
	free(p->slots);
	p->slots = fresh;
	p->n_slots = run->n_slots;
	if (began || p->watch.in != any)
		bt_rotation_changed(&p->watch, any, now);
}

static void set_text(char **at, const char *text)
{
	free(*at);
	*at = bt_strdup(text);
}

/* Answers by the target from now on; on failure as before. */
static int settle(struct place *p, const struct bt_l4_target *t, bool held, struct bt_err *err)
{
	const struct bt_rotation *r = &t->service->l4->rotation;
	const char *listen = bt_rotation_listen(r, env->host);
	struct listener *listener = NULL;
	struct bt_door *door = NULL;
	bool in = false;
	for (size_t i = 0; i < t->service->run.n_slots && !held; i++)
		in = in || wanted_in(t, t->service->run.slots[i].name);
	if (!listen)
		return bt_err_set(err, BT_E_CONFIG,
			"traffic.rotation says nowhere where the agent of %s listens", env->host);
	int e = open_doors(p, r, listen, in, &listener, &door, err);
	if (e < 0)
		return bt_err_wrap(err, "health-check instance of %s", p->name);
	if (listener != p->listener)
		leave_listener(p->listener);
	if (door != p->door)
		bt_door_close(p->door);
	p->listener = listener;
	p->door = door;
	BT_FREE char *path = bt_config_rotation_path(t->service, env->host);
	set_text(&p->path, path);
	set_text(&p->listen, listen);
	set_text(&p->body_in, r->body_in);
	set_text(&p->body_out, r->body_out);
	p->spec = (struct bt_rotation){
		.tcp = r->tcp, .interval_ms = r->interval_ms, .fall = r->fall, .rise = r->rise};
	set_slots(p, t, held, bt_clock_boot_ms());
	return 0;
}

/* ---- the wait ----------------------------------------------------------------------------- */

/* Whom to listen for about the slot: who asks for it by its path; where nobody ever did, who asks
 * for the host, if the host says the same. */
static const struct bt_rotation_watch *watch_of(const struct place *p, const struct slot *s)
{
	return !s->watch.ever && p->watch.in == s->watch.in && (p->watch.ever || p->spec.tcp)
		       ? &p->watch
		       : &s->watch;
}

static int64_t wait_ms(const struct place *p, int64_t now)
{
	int64_t most = 0;
	for (size_t i = 0; i < p->n_slots; i++) {
		int64_t ms =
			bt_rotation_wait_ms(watch_of(p, &p->slots[i]), &p->spec, p->spec.tcp, now);
		most = ms > most ? ms : most;
	}
	return most;
}

static void waiting_free(struct waiting *w)
{
	*w->link = w->next;
	if (w->next)
		w->next->link = w->link;
	event_free(w->timer);
	free(w);
}

static void waiting_cancel(struct bt_op *op)
{
	waiting_free((struct waiting *)op);
}

static void report(struct waiting *w)
{
	const struct place *p = w->place;
	int64_t said = p->watch.said;
	for (size_t i = 0; i < p->n_slots; i++)
		said += p->slots[i].watch.said;
	if (!w->progress || said == w->said)
		return;
	BT_FREE char *line =
		bt_asprintf("%s answers %s on %s, and was asked %lld times since", p->name,
			p->spec.tcp   ? (p->watch.in ? "by an open port" : "by a closed port")
			: p->watch.in ? "in"
				      : "out",
			env->host, (long long)said);
	w->said = said;
	w->progress(w->progress_arg, line);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct waiting *w = arg;
	struct bt_err err = w->err;
	(void)fd;
	(void)what;
	int64_t ms = err.code || w->again ? 0 : wait_ms(w->place, bt_clock_boot_ms());
	if (ms > 0) {
		report(w);
		bt_timer_in(w->timer, ms);
		return;
	}
	bt_done_fn done = w->done;
	void *done_arg = w->arg;
	waiting_free(w);
	done(done_arg, err.code, &err);
}

/* Somebody asked: the wait may be over sooner, or later, than was thought. */
static void check_waitings(void)
{
	for (struct waiting *w = waitings; w; w = w->next)
		bt_timer_in(w->timer, 0);
}

/* ---- the family --------------------------------------------------------------------------- */

static int init(const struct bt_driver_env *e, struct bt_err *err)
{
	(void)err;
	env = e;
	epoch = (uint64_t)bt_clock_boot_us() + 1;
	return 0;
}

static struct bt_op *write_state(const struct bt_l4_target *t, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct waiting *w = bt_calloc(1, sizeof *w);
	w->op.cancel = waiting_cancel;
	w->place = take_place(t->service->name);
	w->again = t->again;
	w->progress = progress;
	w->progress_arg = progress_arg;
	w->done = done;
	w->arg = arg;
	w->timer = evtimer_new(env->base, on_timer, w);
	w->next = waitings;
	w->link = &waitings;
	if (waitings)
		waitings->link = &w->next;
	waitings = w;
	if (settle(w->place, t, false, &w->err) == 0)
		w->place->applied = true;
	bt_timer_in(w->timer, 0);
	return &w->op;
}

struct reading {
	struct bt_op op;
	struct place *place;
	struct event *fire;
	struct bt_err err; /* it cannot answer at all */
	bt_l4_seen_fn done;
	void *arg;
};

static void reading_cancel(struct bt_op *op)
{
	struct reading *r = (struct reading *)op;
	event_free(r->fire);
	free(r);
}

static void on_read(evutil_socket_t fd, short what, void *arg)
{
	struct reading *r = arg;
	const struct place *p = r->place;
	struct bt_l4_seen seen = {
		.running = true, .epoch = epoch, .refuses = r->err.code ? r->err.text : NULL};
	struct bt_seen_member *list = bt_calloc(p->n_slots + 1, sizeof *list);
	struct bt_err none = {0};
	(void)fd;
	(void)what;
	for (size_t i = 0; i < p->n_slots; i++)
		list[i] = (struct bt_seen_member){
			.address = "127.0.0.1",
			.port = p->slots[i].port,
			.host = env->host,
			.slot = p->slots[i].name,
			.in = p->slots[i].watch.in,
		};
	seen.members = list;
	seen.n_members = p->n_slots;
	r->done(r->arg, 0, &seen, &none);
	free(list);
	reading_cancel(&r->op);
}

static struct bt_op *read_state(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg)
{
	struct reading *r = bt_calloc(1, sizeof *r);
	const struct bt_l4_target nothing = {.service = t->service};
	r->op.cancel = reading_cancel;
	r->place = take_place(t->service->name);
	r->done = done;
	r->arg = arg;
	r->fire = evtimer_new(env->base, on_read, r);
	if (!r->place->applied)
		settle(r->place, &nothing, false, &r->err);
	bt_timer_in(r->fire, 0);
	return &r->op;
}

/* After a boot of the host its instances are out until they are healthy again: who holds them is
 * the caller, and until it has said so, nobody is in. */
static void resume(const struct bt_l4_target *t)
{
	struct place *p = take_place(t->service->name);
	struct bt_err err = {0};
	if (settle(p, t, env->hold, &err) == 0)
		p->applied = true;
}

const struct bt_l4_family bt_l4_rotation = {
	.kind = BT_BALANCER_ROTATION,
	.init = init,
	.write = write_state,
	.read = read_state,
	.resume = resume,
};
