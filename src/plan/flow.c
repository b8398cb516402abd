/* A flow becomes a plan: its stages in order, each in batches of lanes, a lane for each host or
 * instance that was chosen; and each task becomes those that the engine runs.
 *
 * While the plan is made, every take-out and every stop is played through: a flow that would leave
 * fewer in rotation than it may, or stop what still gets requests, is refused before anything
 * happens, and the refusal names the stage. The lowest number that was seen becomes the engine's
 * guard, so that a run holds to what the plan said. */
#include "plan/build.h"
#include "plan/flows.h"

#include "base/str.h"

#include <string.h>

struct flow {
	struct bt_build *b;
	const struct bt_flow *flow;
	const char *stage;   /* its name, for refusals */
	bool *chosen;	     /* by place */
	bool *in, *runs;     /* by place: as it will be when the next task comes */
	bool *drained;	     /* by place: since it was in rotation, in this plan */
	bool *address;	     /* by host: the loopback has the service's */
	bool *serves;	     /* by place: in rotation, and not where nothing runs */
	size_t n_in, lowest; /* in rotation now, and at the worst */
	int64_t floor;	     /* of the stage */
	struct bt_err *err;
	int result;
};

static void refuse(struct flow *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void refuse(struct flow *f, const char *fmt, ...)
{
	char text[BT_ERR_MAX];
	va_list ap;
	if (f->result < 0)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (f->flow)
		f->result = bt_err_set(f->err, BT_E_REFUSED, "flow %s, stage '%s': %s",
			f->flow->name, f->stage, text);
	else
		f->result = bt_err_set(f->err, BT_E_REFUSED, "%s: %s", f->stage, text);
}

static const char *place_name(struct flow *f, uint16_t place)
{
	return bt_build_place_name(f->b, place);
}

/* One instance, or their host. */
static const char *who(struct flow *f, struct bt_list here)
{
	return here.n == 1 ? place_name(f, here.v[0])
			   : f->b->plan->hosts[f->b->scene.places[here.v[0]].host];
}

/* ── tasks ── */

static struct bt_task *add(struct flow *f, enum bt_task_kind kind, uint16_t host,
	const struct bt_hook *h, const char *why)
{
	struct bt_task *t = bt_build_task(f->b, kind, host, why);
	t->step = bt_task_info(h->kind)->name;
	return t;
}

/* The tasks that were appended since `from` belong to the flow's task. */
static void mark(struct flow *f, size_t from, const struct bt_hook *h)
{
	struct bt_lane *l = bt_build_current_lane(f->b);
	for (size_t i = from; i < l->n_tasks; i++)
		((struct bt_task *)l->tasks)[i].step = bt_task_info(h->kind)->name;
}

static size_t n_tasks(struct flow *f)
{
	return bt_build_current_lane(f->b)->n_tasks;
}

/* Shown in the plan, and not done. */
static void skip(struct flow *f, const struct bt_hook *h, enum bt_task_kind kind, uint16_t host,
	struct bt_list here, const char *why)
{
	struct bt_task *t = add(f, kind, host, h, NULL);
	t->skip = why;
	if (kind == BT_TASK_SWITCH || kind == BT_TASK_DRAIN)
		t->balancer = 0;
	if (kind == BT_TASK_SWITCH)
		t->host = f->b->plan->balancers[0].host;
	if (kind == BT_TASK_INSTANCE_STOP) {
		t->instance = here.v[0];
		return;
	}
	t->out = here.v;
	t->n_out = here.n;
}

static struct bt_list filter(struct flow *f, struct bt_list l, const bool *by, bool value)
{
	struct bt_list out = bt_list_new(f->b);
	for (size_t i = 0; i < l.n; i++)
		if (by[l.v[i]] == value)
			bt_list_add(&out, l.v[i]);
	return out;
}

static bool has_balancer(struct flow *f, const struct bt_hook *h)
{
	if (f->b->balancer != BT_NONE)
		return true;
	refuse(f, "%s needs a balancer, and %s has none in `traffic`", bt_task_info(h->kind)->name,
		f->b->service->name);
	return false;
}

static void set_in(struct flow *f, struct bt_list l, bool in)
{
	for (size_t i = 0; i < l.n; i++) {
		f->n_in = f->n_in + in - f->serves[l.v[i]];
		f->in[l.v[i]] = f->serves[l.v[i]] = in;
		f->drained[l.v[i]] = false;
	}
	if (f->n_in < f->lowest)
		f->lowest = f->n_in;
}

static void check_floor(struct flow *f, struct bt_list here)
{
	if ((int64_t)f->n_in >= f->floor)
		return;
	if (f->n_in == 0)
		refuse(f, "to take %s out would leave nobody in rotation for %s", who(f, here),
			f->b->service->name);
	else
		refuse(f,
			"to take %s out would leave %zu in rotation, and at least %lld have to "
			"stay",
			who(f, here), f->n_in, (long long)f->floor);
}

static void switch_out(struct flow *f, const struct bt_hook *h, struct bt_list here)
{
	struct bt_list in = filter(f, here, f->in, true), none = {0};
	size_t from = n_tasks(f);
	if (!has_balancer(f, h))
		return;
	if (!in.n) {
		skip(f, h, BT_TASK_SWITCH, BT_NONE, here,
			bt_build_text(f->b, "%s is out of rotation already", who(f, here)));
		return;
	}
	bt_build_switch(f->b, none, in, NULL);
	mark(f, from, h);
	set_in(f, in, false);
	check_floor(f, in);
}

static void drain(struct flow *f, const struct bt_hook *h, struct bt_list here)
{
	size_t from = n_tasks(f);
	if (!has_balancer(f, h))
		return;
	bt_build_drain(f->b, here, NULL);
	struct bt_lane *l = bt_build_current_lane(f->b);
	for (size_t i = from; h->within_ms >= 0 && i < l->n_tasks; i++) {
		struct bt_task *t = (struct bt_task *)&l->tasks[i];
		t->timeout_ms += h->within_ms - t->wait_ms;
		t->wait_ms = h->within_ms;
	}
	for (size_t i = 0; i < here.n; i++)
		f->drained[here.v[i]] = true;
	mark(f, from, h);
}

/* What was taken out by a run before may still hold requests. */
static void drain_first(struct flow *f, struct bt_list here)
{
	struct bt_list late = filter(f, filter(f, here, f->runs, true), f->drained, false);
	bt_build_drain(f->b, late, "late requests may still be there");
	for (size_t i = 0; i < late.n; i++)
		f->drained[late.v[i]] = true;
}

static void turn_off(struct flow *f, const struct bt_hook *h, struct bt_list here)
{
	switch_out(f, h, here);
	if (f->result == 0)
		drain(f, h, here);
}

static void switch_in(struct flow *f, const struct bt_hook *h, struct bt_list here, bool check)
{
	struct bt_list out = filter(f, here, f->in, false), none = {0};
	size_t from = n_tasks(f);
	if (!has_balancer(f, h))
		return;
	for (size_t i = 0; i < here.n; i++) {
		uint16_t host = f->b->scene.places[here.v[i]].host;
		if (!f->runs[here.v[i]])
			refuse(f, "%s would put %s into rotation, where nothing runs",
				bt_task_info(h->kind)->name, place_name(f, here.v[i]));
		else if (!f->address[host])
			refuse(f,
				"%s would put %s into rotation, and the address of %s is not on "
				"its loopback: LoopbackStart comes first",
				bt_task_info(h->kind)->name, f->b->plan->hosts[host],
				f->b->service->name);
	}
	if (f->result < 0)
		return;
	if (!out.n) {
		skip(f, h, BT_TASK_SWITCH, BT_NONE, here,
			bt_build_text(f->b, "%s is in rotation already", who(f, here)));
		return;
	}
	if (check)
		bt_build_backend(f->b, out, NULL);
	bt_build_switch(f->b, out, none, NULL);
	mark(f, from, h);
	set_in(f, out, true);
}

static const char *no_loopback(struct flow *f)
{
	const struct bt_balancer_facts *facts = &f->b->scene.facts;
	if (bt_service_has_loopback(f->b->service))
		return NULL;
	if (facts->kind == BT_BALANCER_NONE)
		return "there is no balancer, and no address of it on the hosts";
	return bt_build_text(f->b,
		"%s sends to the hosts' own addresses: nothing is on their loopback (only direct "
		"server return has it)",
		facts->family);
}

/* Its agent would refuse both ways (the address is on another interface, the host's policy says
 * no): better now than when the host is out. */
static bool can_loopback(struct flow *f, const struct bt_hook *h, uint16_t host)
{
	const struct bt_seen_host *seen = f->b->scene.hosts[host];
	for (size_t i = 0; i < seen->n_vips; i++)
		if (!seen->vips[i].there && seen->vips[i].trouble) {
			refuse(f, "%s on %s: %s: %s", bt_task_info(h->kind)->name,
				f->b->plan->hosts[host], seen->vips[i].address,
				seen->vips[i].trouble);
			return false;
		}
	return true;
}

static void loopback(struct flow *f, const struct bt_hook *h, struct bt_list here, bool on)
{
	uint16_t host = f->b->scene.places[here.v[0]].host;
	enum bt_task_kind kind = on ? BT_TASK_LOOPBACK_START : BT_TASK_LOOPBACK_STOP;
	struct bt_list all = bt_list_new(f->b);
	const char *why = no_loopback(f);
	if (why) {
		skip(f, h, kind, host, here, why);
		return;
	}
	if (!can_loopback(f, h, host))
		return;
	/* All instances of the host are reached at the address, chosen or not. */
	for (uint16_t i = 0; i < f->b->scene.n_places; i++)
		if (f->b->scene.places[i].host == host)
			bt_list_add(&all, i);
	for (size_t i = 0; !on && i < all.n; i++)
		if (f->in[all.v[i]]) {
			refuse(f,
				"LoopbackStop on %s while %s is in rotation: established requests "
				"would stall; put L4TurnOff before it",
				f->b->plan->hosts[host], place_name(f, all.v[i]));
			return;
		}
	size_t from = n_tasks(f);
	if (!on)
		drain_first(f, all);
	mark(f, from, h);
	struct bt_task *t = add(f, kind, host, h,
		on ? "it answers at the balancer's address again"
		   : "its connections are gone: nobody is cut off");
	t->out = all.v;
	t->n_out = all.n;
	f->address[host] = on;
}

static void stop(struct flow *f, const struct bt_hook *h, struct bt_list here)
{
	for (size_t i = 0; i < here.n && f->result == 0; i++) {
		uint16_t place = here.v[i];
		size_t from = n_tasks(f);
		if (f->in[place])
			refuse(f,
				"%s of %s while it is in rotation: requests would fail; put "
				"L4TurnOff before it (or run turnOffL4 first)",
				bt_task_info(h->kind)->name, place_name(f, place));
		else if (!f->runs[place])
			skip(f, h, BT_TASK_INSTANCE_STOP, f->b->scene.places[place].host,
				bt_list_one(f->b, place), "nothing runs there");
		else {
			drain_first(f, bt_list_one(f->b, place));
			bt_build_stop(f->b, place, NULL);
			mark(f, from, h);
			f->runs[place] = false;
		}
	}
}

/* What shall run there: the new release, or the one that it has. */
static uint32_t release_of(struct flow *f, uint16_t place)
{
	const struct bt_place *p = &f->b->scene.places[place];
	if (f->b->plan->purpose == BT_PLAN_DEPLOY || !p->release)
		return f->b->plan->release;
	return p->release;
}

static void health(struct flow *f, const struct bt_hook *h, struct bt_list here)
{
	size_t from = n_tasks(f);
	for (size_t i = 0; i < here.n; i++) {
		bt_build_health(f->b, here.v[i], NULL);
		struct bt_lane *l = bt_build_current_lane(f->b);
		((struct bt_task *)l->tasks)[l->n_tasks - 1].release = release_of(f, here.v[i]);
	}
	mark(f, from, h);
}

static void start(struct flow *f, const struct bt_hook *h, struct bt_list here, bool wait)
{
	size_t from = n_tasks(f);
	for (size_t i = 0; i < here.n && f->result == 0; i++) {
		uint16_t place = here.v[i];
		if (f->runs[place]) {
			refuse(f, "%s of %s, where something runs: a stop comes before it",
				bt_task_info(h->kind)->name, place_name(f, place));
			return;
		}
		/* What a stop of this plan left free is free. */
		int r = bt_place_ours(&f->b->scene.places[place])
				? 0
				: bt_plan_check_free(f->b, place, f->err);
		if (r < 0) {
			f->result = r;
			return;
		}
		bt_build_start(f->b, place, "its place is free");
		struct bt_lane *l = bt_build_current_lane(f->b);
		((struct bt_task *)l->tasks)[l->n_tasks - 1].release = release_of(f, place);
		f->runs[place] = true;
	}
	mark(f, from, h);
	if (wait)
		health(f, h, here);
}

static void component(struct flow *f, const struct bt_hook *h, struct bt_list here)
{
	size_t from = n_tasks(f);
	uint16_t host = f->b->scene.places[here.v[0]].host;
	bt_build_component(f->b, host, "it was brought before: checked, not sent again");
	mark(f, from, h);
}

static void exec(struct flow *f, const struct bt_hook *h, uint16_t host, uint16_t place)
{
	size_t from = n_tasks(f);
	bt_build_exec(f->b, &h->exec, host, place, h->timeout_ms, NULL);
	mark(f, from, h);
}

/* Those that are neither a host's nor an instance's. */
static bool engines(struct flow *f, const struct bt_hook *h, uint16_t host)
{
	if (h->kind == BT_TASK_WAIT) {
		add(f, BT_TASK_WAIT, BT_NONE, h, NULL)->wait_ms = h->within_ms;
	} else if (h->kind == BT_TASK_APPROVE) {
		size_t from = n_tasks(f);
		bt_build_approve(f->b, h->within_ms, NULL);
		mark(f, from, h);
	} else if (h->kind == BT_TASK_NOTIFY) {
		struct bt_task *t = add(f, BT_TASK_NOTIFY, host, h, NULL);
		t->to = bt_arena_strdup(f->b->arena, h->to);
		t->message = bt_arena_strdup(f->b->arena, h->message);
		t->ignore = true; /* that nobody listens is no reason to go back */
	} else
		return false;
	return true;
}

/* One task of the flow, for the lane's places. */
static void one(struct flow *f, const struct bt_hook *h, struct bt_list here, bool by_instance)
{
	uint16_t host = f->b->scene.places[here.v[0]].host;
	switch ((int)h->kind) {
	case BT_TASK_L4_TURN_OFF:
		turn_off(f, h, here);
		break;
	case BT_TASK_L4_TURN_ON:
		switch_in(f, h, here, true);
		break;
	case BT_TASK_SWITCH:
		if (h->out)
			switch_out(f, h, here);
		else
			switch_in(f, h, here, false);
		break;
	case BT_TASK_DRAIN:
		drain(f, h, here);
		break;
	case BT_TASK_LOOPBACK_STOP:
	case BT_TASK_LOOPBACK_START:
		loopback(f, h, here, h->kind == BT_TASK_LOOPBACK_START);
		break;
	case BT_TASK_TOMCAT_STOP:
	case BT_TASK_INSTANCE_STOP:
		stop(f, h, here);
		break;
	case BT_TASK_TOMCAT_START:
	case BT_TASK_INSTANCE_START:
		start(f, h, here, h->kind == BT_TASK_TOMCAT_START);
		break;
	case BT_TASK_HEALTH_CHECK:
		health(f, h, here);
		break;
	case BT_TASK_COMPONENT_DEPLOY:
		component(f, h, here);
		break;
	case BT_TASK_EXEC:
		exec(f, h, host, by_instance ? here.v[0] : BT_NONE);
		break;
	default:
		engines(f, h, host);
	}
}

/* ── lanes and batches ── */

static size_t batch_of(const struct flow *f, const struct bt_flow_stage *s, size_t lanes)
{
	const struct bt_deploy *d = &f->b->service->deploy;
	int64_t n = s->batch ? s->batch : d->batch;
	bool percent = s->batch ? s->batch_percent : d->batch_percent;
	if (percent)
		n = (int64_t)lanes * n / 100;
	if (n > (int64_t)lanes)
		n = (int64_t)lanes;
	return n < 1 ? 1 : (size_t)n;
}

/* The places of each lane, one list a lane. */
static struct bt_list *lanes_of(struct flow *f, const struct bt_flow_stage *s, size_t *ret_n)
{
	const struct bt_scene *scene = &f->b->scene;
	struct bt_list *lanes = BT_ARENA_ARRAY(f->b->arena, struct bt_list, scene->n_places);
	size_t n = 0;
	for (uint16_t i = 0; i < scene->n_places; i++) {
		if (!f->chosen[i])
			continue;
		bool same = s->per == BT_PER_HOST && n &&
			    scene->places[lanes[n - 1].v[0]].host == scene->places[i].host;
		if (!same)
			lanes[n++] = bt_list_new(f->b);
		bt_list_add(&lanes[n - 1], i);
	}
	*ret_n = n;
	return lanes;
}

static void stage_floor(struct flow *f, const struct bt_flow_stage *s)
{
	int64_t in = (int64_t)f->n_in, min = s->min_in_rotation;
	if (min < 0)
		min = f->b->service->deploy.min_in_rotation;
	f->floor = min >= 0 ? (min < in ? min : in) : in > 0 ? 1 : 0;
}

static void policy(struct flow *f, const struct bt_flow_stage *s)
{
	if (s->on_failure >= 0)
		bt_build_stage_policy(f->b, (enum bt_failure_policy)s->on_failure, s->continue_n);
}

static void lane(struct flow *f, const struct bt_flow_stage *s, struct bt_list here)
{
	uint16_t host = f->b->scene.places[here.v[0]].host;
	if (s->per == BT_PER_INSTANCE)
		bt_build_lane_at(f->b, here.v[0]);
	else
		bt_build_lane(f->b, f->b->plan->hosts[host]);
	for (size_t t = 0; t < s->n_tasks && f->result == 0; t++)
		one(f, &s->tasks[t], here, s->per == BT_PER_INSTANCE);
}

/* Lanes of a batch run side by side: at the worst all of them are at their lowest at once. So all
 * leave before the first comes back, in the count. */
static void batch(struct flow *f, const struct bt_flow_stage *s, struct bt_list *lanes, size_t n)
{
	size_t before = f->n_in, deepest = 0;
	for (size_t i = 0; i < n && f->result == 0; i++) {
		size_t was = f->n_in, lowest = f->lowest;
		f->lowest = was;
		lane(f, s, lanes[i]);
		deepest += was - f->lowest;
		f->lowest = lowest;
	}
	size_t worst = before > deepest ? before - deepest : 0;
	if (worst < f->lowest)
		f->lowest = worst;
	if (f->result == 0 && f->b->balancer != BT_NONE && (int64_t)worst < f->floor) {
		const char *left = worst ? bt_build_text(f->b, "%zu", worst) : "nobody";
		refuse(f, "a batch of %zu would leave %s in rotation, and at least %lld %s to stay",
			n, left, (long long)f->floor, f->floor == 1 ? "has" : "have");
	}
}

static void stages(struct flow *f, const struct bt_flow_stage *s, size_t number)
{
	size_t n;
	struct bt_list *lanes = lanes_of(f, s, &n);
	size_t k = batch_of(f, s, n), batches = (n + k - 1) / k;
	const char *name = s->name ? s->name : s->per == BT_PER_HOST ? "hosts" : "instances";
	stage_floor(f, s);
	for (size_t i = 0; i < batches && f->result == 0; i++) {
		size_t len = n - i * k < k ? n - i * k : k;
		f->stage = bt_build_text(f->b,
			f->flow->n_stages > 1 && !s->name ? "%s, batch %zu of %zu (stage %zu)"
							  : "%s, batch %zu of %zu",
			name, i + 1, batches, number);
		bt_build_stage(f->b, NULL, "%s", f->stage);
		policy(f, s);
		batch(f, s, lanes + i * k, len);
	}
}

static uint16_t find_host(struct flow *f, const char *name)
{
	for (uint16_t i = 0; i < f->b->plan->n_hosts; i++)
		if (bt_streq(f->b->plan->hosts[i], name))
			return i;
	return BT_NONE;
}

static uint16_t first_host(struct flow *f)
{
	for (uint16_t i = 0; i < f->b->scene.n_places; i++)
		if (f->chosen[i])
			return f->b->scene.places[i].host;
	return 0;
}

static uint16_t once_host(struct flow *f, const struct bt_hook *h)
{
	if (h->on == BT_ON_BALANCER && f->b->balancer == BT_NONE)
		refuse(f, "%s on the balancer's host, and %s has no balancer in `traffic`",
			bt_task_info(h->kind)->name, f->b->service->name);
	else if (h->on == BT_ON_BALANCER)
		return f->b->plan->balancers[0].host;
	if (h->on != BT_ON_HOST)
		return first_host(f);
	uint16_t host = find_host(f, h->host);
	if (host == BT_NONE)
		refuse(f, "%s on %s, which is neither a host of %s nor of its balancer",
			bt_task_info(h->kind)->name, h->host, f->b->service->name);
	return host == BT_NONE ? 0 : host;
}

static void once(struct flow *f, const struct bt_flow_stage *s, size_t number)
{
	f->stage = s->name ? bt_arena_strdup(f->b->arena, s->name)
			   : bt_build_text(f->b, "once (stage %zu)", number);
	bt_build_stage(f->b, NULL, "%s", f->stage);
	policy(f, s);
	bt_build_lane(f->b, "once");
	for (size_t i = 0; i < s->n_tasks && f->result == 0; i++) {
		const struct bt_hook *h = &s->tasks[i];
		uint16_t host = once_host(f, h);
		if (!engines(f, h, host) && h->kind == BT_TASK_EXEC && f->result == 0)
			exec(f, h, host, BT_NONE);
	}
}

/* ── who is meant ── */

static bool named(const char *const *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (bt_streq(list[i], name))
			return true;
	return n == 0;
}

static int unknown(const struct bt_service *s, const char *what, const char *name,
	const char *const *known, size_t n, struct bt_err *err)
{
	BT_STR struct bt_str list = {0};
	const char *near = bt_nearest(name, known, n);
	for (size_t i = 0; i < n && i < 20; i++)
		bt_str_addf(&list, "%s%s", i ? ", " : "", known[i]);
	return bt_err_set(err, BT_E_CONFIG, "%s has no %s '%s', only %s%s%s%s", s->name, what, name,
		bt_str_get(&list), near ? " (did you mean '" : "", near ? near : "",
		near ? "'?)" : "");
}

static int check_names(const struct bt_plan_request *rq, struct bt_arena *a, struct bt_err *err)
{
	const struct bt_service *s = rq->service;
	const char **slots = BT_ARENA_ARRAY(a, const char *, s->run.n_slots);
	for (size_t i = 0; i < s->run.n_slots; i++)
		slots[i] = s->run.slots[i].name;
	for (size_t i = 0; i < rq->n_hosts; i++)
		if (!named(s->hosts, s->n_hosts, rq->hosts[i]))
			return unknown(s, "host", rq->hosts[i], s->hosts, s->n_hosts, err);
	for (size_t i = 0; i < rq->n_slots; i++)
		if (!named(slots, s->run.n_slots, rq->slots[i]))
			return unknown(s, "instance", rq->slots[i], slots, s->run.n_slots, err);
	return 0;
}

static void look(struct flow *f)
{
	const struct bt_scene *s = &f->b->scene;
	const struct bt_plan_request *rq = f->b->rq;
	f->chosen = BT_ARENA_ARRAY(f->b->arena, bool, s->n_places);
	f->in = BT_ARENA_ARRAY(f->b->arena, bool, s->n_places);
	f->runs = BT_ARENA_ARRAY(f->b->arena, bool, s->n_places);
	f->serves = BT_ARENA_ARRAY(f->b->arena, bool, s->n_places);
	f->drained = BT_ARENA_ARRAY(f->b->arena, bool, s->n_places);
	f->address = BT_ARENA_ARRAY(f->b->arena, bool, f->b->service->n_hosts);
	for (size_t i = 0; i < s->n_places; i++) {
		f->chosen[i] = named(rq->hosts, rq->n_hosts, bt_scene_host(s, &s->places[i])) &&
			       named(rq->slots, rq->n_slots, bt_scene_slot(s, &s->places[i]));
		f->in[i] = s->places[i].in;
		f->runs[i] = bt_place_ours(&s->places[i]);
		f->serves[i] = f->in[i] && (f->runs[i] || s->places[i].stranger);
		f->n_in += f->serves[i];
		if (s->places[i].release && s->places[i].release != f->b->plan->release &&
			(s->places[i].in || !f->b->plan->old_release))
			f->b->plan->old_release = s->places[i].release;
	}
	for (size_t h = 0; h < f->b->service->n_hosts; h++) {
		f->address[h] = true;
		for (size_t i = 0; i < s->hosts[h]->n_vips; i++)
			f->address[h] = f->address[h] && s->hosts[h]->vips[i].there;
	}
	f->lowest = f->n_in;
}

/* What the flow brings is on its hosts before the first of them is taken out: what cannot be had
 * or is no archive fails where it costs nothing. */
static void prepare(struct flow *f)
{
	bool *hosts = BT_ARENA_ARRAY(f->b->arena, bool, f->b->service->n_hosts);
	for (size_t i = 0; i < f->b->scene.n_places; i++)
		if (f->chosen[i])
			hosts[f->b->scene.places[i].host] = true;
	bt_build_prepare(f->b, hosts);
}

int bt_plan_flow_build(struct bt_build *b, struct bt_err *err)
{
	const struct bt_flow *flow = b->rq->flow;
	struct flow f = {.b = b, .flow = flow, .err = err, .stage = "prepare"};
	int r = check_names(b->rq, b->arena, err);
	if (r < 0)
		return r;
	b->plan->flow = bt_arena_strdup(b->arena, flow->name);
	look(&f);
	if (b->plan->purpose == BT_PLAN_DEPLOY)
		prepare(&f);
	for (size_t i = 0; i < flow->n_stages && f.result == 0; i++) {
		if (flow->stages[i].per == BT_PER_ONCE)
			once(&f, &flow->stages[i], i + 1);
		else
			stages(&f, &flow->stages[i], i + 1);
	}
	if (f.result < 0)
		return f.result;
	b->plan->min_in_rotation = b->balancer == BT_NONE ? 0 : (int64_t)f.lowest;
	if (b->plan->purpose == BT_PLAN_DEPLOY)
		bt_build_prune_stage(b);
	return 0;
}

/* ── a task among a strategy's own ── */

/* What the plan has done before the hook's turn comes, for what shall serve (`with`); and what
 * other hooks took out. Blue-green and recreate have put nothing but `with` into rotation. */
static void look_at_hook(struct flow *f, struct bt_list with, enum bt_hook_when when)
{
	struct bt_build *b = f->b;
	enum bt_strategy strategy = b->service->deploy.strategy;
	bool all = strategy == BT_STRATEGY_BLUE_GREEN || strategy == BT_STRATEGY_RECREATE;
	bool after = when == BT_HOOK_AFTER_SWITCH;
	look(f);
	for (size_t i = 0; after && all && i < b->scene.n_places; i++)
		f->in[i] = false;
	for (size_t i = 0; i < with.n; i++) {
		f->runs[with.v[i]] = true;
		f->in[with.v[i]] = after;
	}
	if (!b->hooks_out)
		b->hooks_out = BT_ARENA_ARRAY(b->arena, bool, b->scene.n_places);
	f->n_in = 0;
	for (size_t i = 0; i < b->scene.n_places; i++) {
		f->in[i] = f->serves[i] = f->in[i] && !b->hooks_out[i];
		f->n_in += f->in[i];
	}
	/* The engine holds to the plan's word, so the plan does. */
	f->floor = b->plan->min_in_rotation < (int64_t)f->n_in ? b->plan->min_in_rotation
							       : (int64_t)f->n_in;
	f->lowest = f->n_in;
}

void bt_build_flow_task(struct bt_build *b, const struct bt_hook *h, struct bt_list here,
	struct bt_list with, enum bt_hook_when when)
{
	struct flow f = {.b = b, .err = &b->why};
	if (b->refused < 0)
		return;
	f.stage = bt_build_text(b, "deploy.hooks.%s", bt_enum_name(&bt_enum_hook_when, (int)when));
	look_at_hook(&f, with, when);
	bool *before = bt_arena_memdup(b->arena, f.in, b->scene.n_places * sizeof *before);
	one(&f, h, here, here.n == 1);
	for (size_t i = 0; i < b->scene.n_places; i++)
		b->hooks_out[i] = !f.in[i] && (before[i] || b->hooks_out[i]);
	b->refused = f.result;
}
