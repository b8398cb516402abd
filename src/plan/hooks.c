/* Where the tasks that a person adds to a plan stand: deploy.hooks.
 *
 * Each entry of a list is a stage of its own, so that they run in order over all hosts. Rolling
 * replaces instances in lanes of their own, so there the entries go into the lanes: `once` into
 * that of the first instance, which then is a batch of its own, `each host` into that of the first
 * one of each host. What stands before a switch in its lane has succeeded when the switch comes. */
#include "plan/build.h"

#include "base/str.h"

static const char *const titles[BT_HOOK_WHENS] = {
	[BT_HOOK_BEFORE] = "before",
	[BT_HOOK_BEFORE_SWITCH] = "before the switch",
	[BT_HOOK_AFTER_SWITCH] = "after the switch",
	[BT_HOOK_ON_FAILURE] = "on failure",
};

static const struct bt_hooks *hooks_of(const struct bt_build *b, enum bt_hook_when when)
{
	return &b->service->deploy.hooks[when];
}

static void stage(struct bt_build *b, enum bt_hook_when when, size_t i, size_t n)
{
	const char *why = when == BT_HOOK_ON_FAILURE ? "only if the run goes back or halts" : NULL;
	if (n == 1)
		bt_build_stage(b, why, "%s", titles[when]);
	else
		bt_build_stage(b, why, "%s, %zu of %zu", titles[when], i + 1, n);
}

static const char *why_of(struct bt_build *b, enum bt_hook_when when)
{
	return bt_build_text(b, "deploy.hooks.%s", bt_enum_name(&bt_enum_hook_when, when));
}

/* ---- stages ------------------------------------------------------------------------------ */

static bool is_exec(const struct bt_hook *h)
{
	return h->kind == BT_TASK_EXEC;
}

/* Of the kinds that are nobody's place: done once, wherever they stand. */
static bool is_once(const struct bt_hook *h)
{
	return bt_task_is_engines(h->kind) || h->kind == BT_TASK_NOTIFY;
}

/* Every place of the service, a lane for each host. */
static void at_all(struct bt_build *b, const struct bt_hook *h)
{
	for (uint16_t host = 0; host < b->service->n_hosts; host++) {
		struct bt_list here = bt_list_new(b);
		for (uint16_t i = 0; i < b->scene.n_places; i++)
			if (b->scene.places[i].host == host)
				bt_list_add(&here, i);
		bt_build_lane(b, b->plan->hosts[host]);
		bt_build_flow_task(b, h, here, (struct bt_list){0}, BT_HOOK_BEFORE);
	}
}

static void each_place(
	struct bt_build *b, const struct bt_hook *h, struct bt_list places, enum bt_hook_when when)
{
	for (size_t i = 0; i < places.n; i++) {
		bt_build_lane_at(b, places.v[i]);
		bt_build_flow_task(b, h, bt_list_one(b, places.v[i]), places, when);
	}
}

/* Does the hook concern the host, which is the n-th that could be? */
static bool wanted(const struct bt_build *b, const struct bt_hook *h, uint16_t host, size_t n)
{
	if (h->on == BT_ON_HOST)
		return bt_streq(b->plan->hosts[host], h->host);
	return h->on != BT_ON_ONCE || n == 0;
}

static void at_places(
	struct bt_build *b, const struct bt_hook *h, struct bt_list places, const char *why)
{
	bool *seen_host = BT_ARENA_ARRAY(b->arena, bool, b->plan->n_hosts);
	size_t n = 0;
	for (size_t i = 0; i < places.n; i++) {
		uint16_t host = b->scene.places[places.v[i]].host;
		bool again = seen_host[host] && h->on != BT_ON_EACH_INSTANCE;
		seen_host[host] = true;
		if (again || !wanted(b, h, host, n++))
			continue;
		bt_build_lane_at(b, places.v[i]);
		bt_build_exec(b, &h->exec, host, places.v[i], h->timeout_ms, why);
	}
}

static void at_hosts(struct bt_build *b, const struct bt_hook *h, const char *why)
{
	for (uint16_t host = 0, n = 0; host < b->service->n_hosts; host++)
		if (wanted(b, h, host, n++)) {
			bt_build_lane(b, b->plan->hosts[host]);
			bt_build_exec(b, &h->exec, host, BT_NONE, h->timeout_ms, why);
		}
}

void bt_build_hooks(struct bt_build *b, enum bt_hook_when when, struct bt_list places)
{
	const struct bt_hooks *hooks = hooks_of(b, when);
	for (size_t i = 0; i < hooks->n; i++) {
		const struct bt_hook *h = &hooks->list[i];
		const char *why = why_of(b, when);
		stage(b, when, i, hooks->n);
		if (h->kind == BT_TASK_APPROVE) {
			bt_build_lane(b, "approval");
			bt_build_approve(b, h->within_ms, why);
		} else if (is_once(h)) {
			bt_build_lane(b, "once");
			bt_build_flow_task(
				b, h, bt_list_one(b, places.n ? places.v[0] : 0), places, when);
		} else if (!is_exec(h)) {
			if (places.n)
				each_place(b, h, places, when);
			else
				at_all(b, h);
		} else if (places.n) {
			at_places(b, h, places, why);
		} else
			at_hosts(b, h, why);
	}
}

/* ---- lanes of rolling -------------------------------------------------------------------- */

void bt_build_hooks_lane(struct bt_build *b, enum bt_hook_when when, uint16_t place,
	bool first_of_all, bool first_of_host)
{
	const struct bt_hooks *hooks = hooks_of(b, when);
	uint16_t host = b->scene.places[place].host;
	for (size_t i = 0; i < hooks->n; i++) {
		const struct bt_hook *h = &hooks->list[i];
		if (h->kind == BT_TASK_APPROVE) {
			if (first_of_all)
				bt_build_approve(b, h->within_ms, why_of(b, when));
			continue;
		}
		if (!is_exec(h)) {
			if (first_of_all || !is_once(h))
				bt_build_flow_task(
					b, h, bt_list_one(b, place), bt_list_one(b, place), when);
			continue;
		}
		bool here = h->on == BT_ON_EACH_INSTANCE ? true
			    : h->on == BT_ON_ONCE	 ? first_of_all
							 : first_of_host;
		if (here && wanted(b, h, host, 0))
			bt_build_exec(b, &h->exec, host, place, h->timeout_ms, why_of(b, when));
	}
}

bool bt_build_hooks_lead(const struct bt_build *b, bool *ret_by_host)
{
	bool once = false;
	*ret_by_host = false;
	for (int w = BT_HOOK_BEFORE_SWITCH; w <= BT_HOOK_AFTER_SWITCH; w++)
		for (size_t i = 0; i < hooks_of(b, w)->n; i++) {
			const struct bt_hook *h = &hooks_of(b, w)->list[i];
			once = once || is_once(h) || (is_exec(h) && h->on == BT_ON_ONCE);
			*ret_by_host =
				*ret_by_host || h->on == BT_ON_EACH_HOST || h->on == BT_ON_HOST;
		}
	return once;
}

/* ---- the end that was not wished for ----------------------------------------------------- */

static bool known_host(const struct bt_build *b, const char *host, uint16_t *ret)
{
	for (uint16_t i = 0; i < b->service->n_hosts; i++)
		if (bt_streq(b->plan->hosts[i], host)) {
			*ret = i;
			return true;
		}
	return false;
}

void bt_build_hooks_closing(struct bt_build *b, const struct bt_service *of, uint32_t release)
{
	const struct bt_hooks *hooks = &of->deploy.hooks[BT_HOOK_ON_FAILURE];
	uint32_t back_to = b->plan->release;
	for (size_t i = 0; i < hooks->n; i++) {
		const struct bt_hook *h = &hooks->list[i];
		const char *why = why_of(b, BT_HOOK_ON_FAILURE);
		uint16_t host;
		stage(b, BT_HOOK_ON_FAILURE, i, hooks->n);
		bt_build_stage_closing(b);
		if (!is_exec(h)) {
			bt_build_lane(b, "once");
			bt_build_flow_task(
				b, h, bt_list_one(b, 0), (struct bt_list){0}, BT_HOOK_ON_FAILURE);
			continue;
		}
		b->plan->release = release; /* whose files the programs are */
		for (size_t k = 0, n = 0; k < of->n_hosts; k++)
			if (known_host(b, of->hosts[k], &host) && wanted(b, h, host, n++)) {
				bt_build_lane(b, b->plan->hosts[host]);
				bt_build_exec(b, &h->exec, host, BT_NONE, h->timeout_ms, why);
			}
		b->plan->release = back_to;
	}
}

/* ---- who may run programs ---------------------------------------------------------------- */

/* The plan's hosts are the service's, then those that only balance. */
static const struct bt_seen_host *seen_host(const struct bt_build *b, uint16_t host)
{
	if (host < b->service->n_hosts)
		return b->scene.hosts[host];
	for (size_t i = 0; i < b->scene.n_balancers; i++)
		if (bt_streq(b->scene.balancers[i].on, b->plan->hosts[host]))
			return b->scene.balancers[i].host;
	return NULL;
}

static int check_exec(
	struct bt_build *b, const struct bt_stage *s, const struct bt_task *t, struct bt_err *err)
{
	bool runs = t->kind == BT_TASK_EXEC || t->kind == BT_TASK_LIFECYCLE;
	const struct bt_seen_host *seen = runs ? seen_host(b, t->host) : NULL;
	const char *no = seen ? seen->no_exec : NULL;
	if (!no)
		return 0;
	const char *on = b->plan->hosts[t->host];
	if (b->plan->flow && !t->why)
		return bt_err_set(err, BT_E_REFUSED,
			"flow %s, stage '%s': Exec needs to run a program on %s: %s", b->plan->flow,
			s->name, on, no);
	return bt_err_set(err, BT_E_REFUSED, "%s needs to run a program on %s: %s",
		t->event ? t->event : t->why, on, no);
}

int bt_build_check_exec(struct bt_build *b, struct bt_err *err)
{
	int r = 0;
	if (b->refused < 0) {
		*err = b->why;
		return b->refused;
	}
	for (size_t s = 0; s < b->plan->n_stages; s++)
		for (size_t l = 0; l < b->plan->stages[s].n_lanes; l++)
			for (size_t t = 0; t < b->plan->stages[s].lanes[l].n_tasks && r == 0; t++)
				r = check_exec(b, &b->plan->stages[s],
					&b->plan->stages[s].lanes[l].tasks[t], err);
	return r;
}
