/* Plans: golden prints of the cases people meet, refusals with what they say, and thousands of
 * random worlds whose plans are walked task by task against what the engine will demand. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "expect.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "plan/flows.h"
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>

/* ── a service and a world in a few words ── */

struct world_case {
	struct bt_service service;
	struct bt_nginx nginx;
	struct bt_l4 l4;
	struct bt_seen_vip vips[8];
	struct bt_slot slots[8];
	const char *hosts[8], *on[2];
	struct bt_stop_step stop;
	struct bt_seen_host seen[9];
	struct bt_seen_instance instances[8][8];
	struct bt_seen_balancer balancer, second;
	struct bt_seen_member members[64];
	struct bt_world world;
	struct bt_plan_release known[4];
	struct bt_plan_request rq;
	char names[1024];
	size_t used;
};

static const char *keep(struct world_case *c, const char *text, size_t n)
{
	char *p = c->names + c->used;
	assert_true(c->used + n + 1 < sizeof c->names);
	memcpy(p, text, n);
	p[n] = 0;
	c->used += n + 1;
	return p;
}

static size_t words(struct world_case *c, const char *text, const char **ret, size_t max)
{
	size_t n = 0;
	while (*text) {
		size_t len = strcspn(text, " ");
		assert_true(n < max);
		ret[n++] = keep(c, text, len);
		text += len + strspn(text + len, " ");
	}
	return n;
}

/* nginx: host of the balancer, or NULL. */
static void setup(struct world_case *c, enum bt_strategy strategy, const char *hosts,
	const char *slots, const char *nginx)
{
	static const char *const versions[] = {"v1", "v2", "v3", "v4"};
	const char *slot_names[8];
	*c = (struct world_case){0};
	struct bt_service *s = &c->service;
	s->name = "shop";
	s->n_hosts = words(c, hosts, c->hosts, 8);
	s->hosts = c->hosts;
	s->run.n_slots = words(c, slots, slot_names, 8);
	for (size_t i = 0; i < s->run.n_slots; i++)
		c->slots[i] = (struct bt_slot){.name = slot_names[i], .port = (uint16_t)(8081 + i)};
	s->run.slots = c->slots;
	c->stop = (struct bt_stop_step){15, 30000};
	s->run.stop = &c->stop;
	s->run.n_stop = 1;
	s->health = (struct bt_health){.path = "/health", .within_ms = 60000, .timeout_ms = 2000};
	s->deploy = (struct bt_deploy){.strategy = strategy,
		.drain_ms = 30000,
		.batch = 1,
		.min_in_rotation = -1,
		.keep = 5};
	c->on[0] = nginx;
	c->nginx = (struct bt_nginx){
		.on = c->on, .n_on = 1, .mode = BT_NGINX_MANAGED, .listen = "8080"};
	s->nginx = nginx ? &c->nginx : NULL;
	for (size_t h = 0; h < s->n_hosts; h++) {
		static const char *const addresses[] = {
			"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"};
		c->seen[h] = (struct bt_seen_host){.host = c->hosts[h],
			.address = addresses[h],
			.instances = c->instances[h],
			.n_instances = s->run.n_slots};
		for (size_t i = 0; i < s->run.n_slots; i++)
			c->instances[h][i] = (struct bt_seen_instance){
				.slot = c->slots[i].name, .port = c->slots[i].port};
	}
	size_t n = s->n_hosts, at = n;
	for (size_t h = 0; h < n && nginx; h++)
		if (bt_streq(c->hosts[h], nginx))
			at = h;
	if (nginx) {
		c->seen[at].host = nginx;
		c->seen[at].balancers = &c->balancer;
		c->seen[at].n_balancers = 1;
		n += at == n;
	}
	c->balancer = (struct bt_seen_balancer){
		.name = "nginx/shop", .generation = 7, .running = true, .members = c->members};
	c->world = (struct bt_world){.hosts = c->seen, .n_hosts = n};
	for (uint32_t i = 0; i < 4; i++)
		c->known[i] = (struct bt_plan_release){i + 1, versions[i], NULL};
	c->rq = (struct bt_plan_request){.service = s,
		.world = &c->world,
		.release = c->known[1],
		.known = c->known,
		.n_known = 4,
		.first_task_id = 1};
}

/* Direct server return: every host holds the balancer's address. */
static void setup_dsr(
	struct world_case *c, enum bt_strategy strategy, const char *hosts, const char *slots)
{
	static const char *const vips[] = {"10.0.9.9"};
	setup(c, strategy, hosts, slots, "l4");
	c->l4 = (struct bt_l4){.kind = BT_BALANCER_NFTABLES,
		.mode = BT_L4_DSR,
		.on = c->on,
		.n_on = 1,
		.vip = vips[0]};
	c->service.nginx = NULL;
	c->service.l4 = &c->l4;
	c->service.loopback = (struct bt_loopback){.vips = vips, .n_vips = 1, .interface = "lo"};
	c->balancer.name = "nftables/shop";
	for (size_t h = 0; h < c->service.n_hosts; h++) {
		c->vips[h] = (struct bt_seen_vip){.address = vips[0], .there = true};
		c->seen[h].vips = &c->vips[h];
		c->seen[h].n_vips = 1;
	}
}

static struct bt_seen_instance *seen(struct world_case *c, const char *place)
{
	for (size_t h = 0; h < c->service.n_hosts; h++)
		for (size_t i = 0; i < c->service.run.n_slots; i++) {
			char name[64];
			snprintf(name, sizeof name, "%s/%s", c->hosts[h], c->slots[i].name);
			if (bt_streq(name, place))
				return &c->instances[h][i];
		}
	fail_msg("no place %s", place);
	return NULL;
}

static void runs(struct world_case *c, const char *place, uint32_t release)
{
	seen(c, place)->state = BT_RUN_RUNNING;
	seen(c, place)->release = release;
	if (c->service.run.as == BT_RUNTIME_BUNDLE)
		seen(c, place)->installed = release;
}

static void in(struct world_case *c, const char *place)
{
	size_t h = 0;
	while (strncmp(c->hosts[h], place, strlen(c->hosts[h])) != 0)
		h++;
	bool local = c->service.nginx && bt_nginx_is_on(&c->nginx, c->hosts[h]);
	c->members[c->balancer.n_members++] =
		(struct bt_seen_member){.address = local ? "127.0.0.1" : c->seen[h].address,
			.port = seen(c, place)->port,
			.in = true};
}

static void serves(struct world_case *c, const char *place, uint32_t release)
{
	runs(c, place, release);
	in(c, place);
}

/* ── walking a plan ── */

struct walk {
	const struct bt_plan *p;
	uint32_t running[64];					   /* release in each place */
	bool in[2][64], drained[2][64], healthy[64], stranger[64]; /* at each balancer */
	int64_t n_in[2];
};

static void walk_task(struct walk *w, const struct bt_task *t)
{
	switch (t->kind) {
	case BT_TASK_INSTANCE_START:
		assert_int_equal(w->running[t->instance], 0);
		assert_false(w->in[0][t->instance] || w->in[1][t->instance]);
		assert_false(w->stranger[t->instance]);
		w->running[t->instance] = t->release;
		w->drained[0][t->instance] = w->drained[1][t->instance] = false;
		w->healthy[t->instance] = false;
		break;
	case BT_TASK_INSTANCE_STOP:
		assert_false(w->in[0][t->instance] || w->in[1][t->instance]);
		assert_int_not_equal(w->running[t->instance], 0);
		for (size_t b = 0; b < w->p->n_balancers; b++)
			assert_true(w->drained[b][t->instance]);
		w->running[t->instance] = 0;
		w->stranger[t->instance] = false;
		break;
	case BT_TASK_LIFECYCLE:
		if (bt_streq(t->event, "ApplicationStop"))
			for (size_t i = 0; i < t->n_out; i++) {
				assert_false(w->in[0][t->out[i]] || w->in[1][t->out[i]]);
				w->running[t->out[i]] = 0;
			}
		break;
	case BT_TASK_INSTALL:
		for (size_t i = 0; i < t->n_out; i++) {
			w->running[t->out[i]] = t->release;
			w->healthy[t->out[i]] = false;
		}
		break;
	case BT_TASK_ADOPT:
		assert_true(w->stranger[t->instance]);
		w->running[t->instance] = t->release;
		break;
	case BT_TASK_HEALTH_CHECK:
		assert_int_equal(w->running[t->instance], t->release);
		w->healthy[t->instance] = true;
		break;
	case BT_TASK_BACKEND_CHECK:
		for (size_t i = 0; i < t->n_in; i++)
			assert_true(w->healthy[t->in[i]] || w->stranger[t->in[i]]);
		break;
	case BT_TASK_SWITCH: {
		uint16_t b = t->balancer;
		int64_t before = w->n_in[b];
		for (size_t i = 0; i < t->n_in; i++) {
			uint16_t k = t->in[i];
			assert_true(w->healthy[k] || w->stranger[k]);
			w->n_in[b] += !w->in[b][k];
			w->in[b][k] = true;
			w->drained[b][k] = false;
		}
		for (size_t i = 0; i < t->n_out; i++) {
			assert_true(w->in[b][t->out[i]]);
			w->n_in[b]--;
			w->in[b][t->out[i]] = false;
		}
		assert_true(w->n_in[b] >= before || w->n_in[b] >= w->p->min_in_rotation);
		break;
	}
	case BT_TASK_DRAIN:
		for (size_t i = 0; i < t->n_out; i++) {
			assert_false(w->in[t->balancer][t->out[i]]);
			w->drained[t->balancer][t->out[i]] = true;
		}
		break;
	default:
		break;
	}
}

/* Lanes of a stage in lock-step: everybody's first task, then everybody's second. */
static void walk_plan(struct walk *w, const struct bt_plan *p, const struct world_case *c)
{
	*w = (struct walk){.p = p};
	assert_true(p->n_instances <= 64);
	for (size_t i = 0; i < p->n_instances; i++) {
		size_t slots = c->service.run.n_slots;
		const struct bt_seen_instance *s = &c->instances[i / slots][i % slots];
		w->running[i] = s->state == BT_RUN_ABSENT ? 0 : s->release;
		w->stranger[i] = s->holder || s->adopted;
		for (size_t b = 0; b < 2; b++) {
			w->in[b][i] = p->instances[i].expect_in && b < p->n_balancers;
			w->n_in[b] += w->in[b][i];
		}
	}
	for (size_t s = 0; s < p->n_stages; s++) {
		bool more = true;
		for (size_t step = 0; more; step++) {
			more = false;
			for (size_t l = 0; l < p->stages[s].n_lanes; l++)
				if (step < p->stages[s].lanes[l].n_tasks) {
					walk_task(w, &p->stages[s].lanes[l].tasks[step]);
					more = true;
				}
		}
	}
}

/* Through JSON and back, and into the world: what serves at the end is what was asked for. */
/* What a flow found is there again. */
static void check_flow(const struct bt_plan *p, const struct walk *w, const struct world_case *c)
{
	const struct bt_plan *before = c->rq.before;
	for (size_t i = 0; p->purpose == BT_PLAN_ROLLBACK && i < p->n_instances; i++) {
		assert_int_equal(w->running[i], before->instances[i].expect_release);
		assert_int_equal(w->in[0][i], before->instances[i].expect_in);
	}
}

static void check_plan(const struct bt_plan *p, const struct world_case *c)
{
	struct bt_plan *again = NULL;
	struct bt_err err = {0};
	BT_JSON json_t *j = bt_plan_to_json(p);
	if (bt_plan_from_json(j, &again, &err) < 0)
		fail_msg("%s", err.text);
	BT_JSON json_t *k = bt_plan_to_json(again);
	assert_true(json_equal(j, k));
	bt_plan_free(again);
	struct walk w;
	walk_plan(&w, p, c);
	if (p->flow) {
		check_flow(p, &w, c);
		return;
	}
	for (size_t i = 0; i < p->n_instances; i++) {
		bool in = w.in[0][i];
		if (p->n_balancers > 1)
			assert_int_equal(w.in[1][i], in);
		if (in && p->purpose != BT_PLAN_RETIRE && p->release)
			assert_int_equal(w.running[i], p->release);
		if (in && !p->release && p->purpose == BT_PLAN_ROLLBACK)
			assert_true(w.stranger[i]);
		/* What a bundle's blue-green leaves, runs on. */
		bool runs_on = c->service.run.as == BT_RUNTIME_BUNDLE &&
			       p->strategy == BT_STRATEGY_BLUE_GREEN;
		if (!in && p->n_balancers && !runs_on && p->purpose != BT_PLAN_DEPLOY &&
			p->purpose != BT_PLAN_ADOPT)
			assert_int_equal(w.running[i], 0);
	}
	if (p->n_balancers && p->release && p->purpose != BT_PLAN_RETIRE &&
		p->purpose != BT_PLAN_ADOPT)
		assert_int_equal(w.n_in[0], p->strategy == BT_STRATEGY_BLUE_GREEN
						    ? c->service.n_hosts
						    : p->n_instances);
}

typedef int planner(const struct bt_plan_request *, struct bt_plan **, struct bt_err *);

static struct bt_plan *planned(struct world_case *c, planner *plan, const char *name)
{
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	if (plan(&c->rq, &p, &err) < 0)
		fail_msg("%s: %s", name, err.text);
	check_plan(p, c);
	return p;
}

static void golden(struct world_case *c, planner *plan, const char *name)
{
	struct bt_plan *p = planned(c, plan, name);
	BT_STR struct bt_str text = {0};
	bt_plan_print(p, &text);
	is_golden(bt_str_get(&text), "plans/%s.txt", name);
	bt_plan_free(p);
}

/* Journals hold plans: what version 1 looks like may not change under them. */
static void golden_json(struct world_case *c, planner *plan, const char *name)
{
	struct bt_plan *p = planned(c, plan, name);
	BT_JSON json_t *j = bt_plan_to_json(p);
	BT_FREE char *text = json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS);
	is_golden(text, "plans/%s.json", name);
	bt_plan_free(p);
}

static void refused(struct world_case *c, planner *plan, int code, const char *says)
{
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	assert_int_equal(plan(&c->rq, &p, &err), code);
	assert_null(p);
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
}

/* ── cases ── */

static const char *const smoke[] = {"./smoke.sh", "{port}"}, *const note[] = {"./note.sh"};
static const struct bt_hook before[] = {
	{.kind = BT_TASK_EXEC,
		.exec = {.run = note, .n_run = 1},
		.on = BT_ON_EACH_HOST,
		.timeout_ms = 60000},
	{.kind = BT_TASK_EXEC,
		.exec = {.run = note, .n_run = 1},
		.on = BT_ON_HOST,
		.host = "was2",
		.timeout_ms = 60000},
};
static const struct bt_hook around[] = {
	{.kind = BT_TASK_EXEC,
		.exec = {.run = smoke, .n_run = 2, .safe = true},
		.on = BT_ON_EACH_INSTANCE,
		.timeout_ms = 60000},
	{.kind = BT_TASK_EXEC,
		.exec = {.run = note, .n_run = 1},
		.on = BT_ON_EACH_HOST,
		.timeout_ms = 60000},
	{.kind = BT_TASK_APPROVE, .within_ms = 1800000},
};
static const struct bt_hook going_back[] = {
	{.kind = BT_TASK_EXEC, .exec = {.run = note, .n_run = 1}, .timeout_ms = 60000}};

static void hook(struct world_case *c)
{
	struct bt_hooks *h = c->service.deploy.hooks;
	h[BT_HOOK_BEFORE] = (struct bt_hooks){before, 2};
	h[BT_HOOK_BEFORE_SWITCH] = (struct bt_hooks){around, 3};
	h[BT_HOOK_AFTER_SWITCH] = (struct bt_hooks){around, 1};
	h[BT_HOOK_ON_FAILURE] = (struct bt_hooks){going_back, 1};
}

static void hooks(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green", "web1");
	serves(&c, "was1/blue", 1);
	serves(&c, "was2/blue", 1);
	hook(&c);
	golden(&c, bt_plan_deploy, "hooks-blue-green");
	golden_json(&c, bt_plan_deploy, "hooks-blue-green");

	/* The way back of a run that failed tells, too; a rollback by hand has nobody to tell. */
	c.rq.failed = &c.service;
	c.rq.failed_release = (struct bt_plan_release){2, "v2", NULL};
	c.rq.release = (struct bt_plan_release){1, "v1", NULL};
	golden(&c, bt_plan_rollback, "hooks-rollback");

	setup(&c, BT_STRATEGY_ROLLING, "was1 was2", "a b", "web1");
	serves(&c, "was1/a", 1);
	serves(&c, "was1/b", 1);
	serves(&c, "was2/a", 1);
	serves(&c, "was2/b", 1);
	c.service.deploy.batch = 2;
	hook(&c);
	golden(&c, bt_plan_deploy, "hooks-rolling");

	c.seen[1].no_exec = "host policy (/etc/baton/policy.yaml, rule 'exec'): off";
	refused(&c, bt_plan_deploy, BT_E_REFUSED,
		"deploy.hooks.before needs to run a program on was2: host policy");
}

static void blue_green(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	golden(&c, bt_plan_deploy, "blue-green-first");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	serves(&c, "local/blue", 1);
	c.service.deploy.bake_ms = 60000;
	golden(&c, bt_plan_deploy, "blue-green");
	golden_json(&c, bt_plan_deploy, "blue-green");

	runs(&c, "local/green", 3);
	c.service.deploy.keep_warm_ms = 600000;
	golden(&c, bt_plan_deploy, "blue-green-warm");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green", "web1");
	serves(&c, "was1/green", 1);
	serves(&c, "was2/green", 1);
	golden(&c, bt_plan_deploy, "blue-green-two-hosts");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "a b c", "web1");
	serves(&c, "was1/a", 1);
	serves(&c, "was2/a", 1);
	runs(&c, "was1/b", 3);
	golden(&c, bt_plan_deploy, "blue-green-three-slots");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", NULL);
	runs(&c, "local/blue", 1);
	golden(&c, bt_plan_deploy, "blue-green-no-balancer");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	c.nginx.mode = BT_NGINX_ADOPT;
	in(&c, "local/blue");
	seen(&c, "local/blue")->holder = "java (pid 812)";
	golden(&c, bt_plan_deploy, "blue-green-adopt-stranger");
}

static void changes(void **state)
{
	(void)state;
	struct world_case c;
	/* what was rolled out before becomes blue-green */
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "a b", "web1");
	static const char *const places[] = {"was1/a", "was1/b", "was2/a", "was2/b"};
	for (size_t i = 0; i < 4; i++)
		serves(&c, places[i], 1);
	golden(&c, bt_plan_deploy, "blue-green-after-rolling");
	seen(&c, "was2/b")->release = 3;
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "nginx sends to several slots");

	/* a host has left the config, or joined it */
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green", "web1");
	serves(&c, "was1/blue", 1);
	c.members[c.balancer.n_members++] =
		(struct bt_seen_member){.address = "10.0.0.9", .port = 8081, .in = true};
	golden(&c, bt_plan_deploy, "blue-green-hosts-changed");
	c.balancer.generation = 0; /* baton has never written there: it is a stranger */
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "10.0.0.9:8081, which is no slot of shop");
}

/* The same at a second nginx, on a host of its own. */
static void second_nginx(struct world_case *c)
{
	struct bt_seen_host *h = &c->seen[c->world.n_hosts++];
	*h = (struct bt_seen_host){.host = "web2", .balancers = &c->second, .n_balancers = 1};
	c->second = c->balancer;
	c->second.generation = 3;
	c->on[1] = "web2";
	c->nginx.n_on = 2;
}

static void several_nginx(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green", "web1");
	serves(&c, "was1/blue", 1);
	serves(&c, "was2/blue", 1);
	second_nginx(&c);
	c.service.deploy.bake_ms = 10000;
	golden(&c, bt_plan_deploy, "blue-green-two-nginx");
	/* one was added: nothing is there yet */
	c.second = (struct bt_seen_balancer){.name = "nginx/shop"};
	golden(&c, bt_plan_deploy, "blue-green-nginx-added");
	/* they send to different slots */
	static const struct bt_seen_member green[] = {
		{.address = "10.0.0.1", .port = 8082, .in = true}};
	c.second.members = green;
	c.second.n_members = 1;
	refused(&c, bt_plan_deploy, BT_E_REFUSED,
		"nginx on web1 sends to blue (was1, was2), nginx on web2 sends to green (was1)");
	c.world.n_hosts--;
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "host web2 (nginx of shop) has not reported");

	/* half a cutover goes back to where the old release still runs, though not everywhere: in
	 * the slot that the first nginx went to, every instance would have to make room */
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2 was3", "blue green", "web1");
	serves(&c, "was1/green", 2);
	serves(&c, "was2/green", 2);
	serves(&c, "was3/green", 2);
	second_nginx(&c);
	runs(&c, "was1/blue", 1);
	runs(&c, "was3/blue", 1);
	static const struct bt_seen_member blue[] = {
		{.address = "10.0.0.1", .port = 8081, .in = true},
		{.address = "10.0.0.3", .port = 8081, .in = true}};
	c.second.members = blue;
	c.second.n_members = 2;
	c.service.deploy.min_in_rotation = 2;
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "blue-green-back-two-nginx");
	/* where it runs nowhere any more, one nginx must take over what the other one serves */
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1", "blue green", "web1");
	serves(&c, "was1/blue", 2);
	second_nginx(&c);
	runs(&c, "was1/green", 3);
	c.second.members = green;
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "blue-green-back-make-room");

	/* one of them stands beside an instance */
	setup(&c, BT_STRATEGY_ROLLING, "was1", "1 2", "was1");
	serves(&c, "was1/1", 1);
	serves(&c, "was1/2", 1);
	second_nginx(&c);
	static const struct bt_seen_member far[] = {
		{.address = "10.0.0.1", .port = 8081, .in = true},
		{.address = "10.0.0.1", .port = 8082, .in = true}};
	c.second.members = far;
	golden(&c, bt_plan_deploy, "rolling-two-nginx");

	/* whom the second one misses is first on the way back, though the first one sends all of
	 * `one` there: taking out the other one would leave the second with nobody */
	setup(&c, BT_STRATEGY_ROLLING, "was1 was2", "1", "web1");
	serves(&c, "was1/1", 2);
	serves(&c, "was2/1", 2);
	second_nginx(&c);
	c.second.n_members = 1;
	c.members[1].one = true;
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "rolling-back-one-missed");
}

static void rolling(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_ROLLING, "was1 was2", "1 2", "web1");
	golden(&c, bt_plan_deploy, "rolling-first");
	static const char *const places[] = {"was1/1", "was1/2", "was2/1", "was2/2"};
	for (size_t i = 0; i < 4; i++)
		serves(&c, places[i], 1);
	golden(&c, bt_plan_deploy, "rolling");
	c.service.deploy.batch = 50;
	c.service.deploy.batch_percent = true;
	c.service.deploy.bake_ms = 10000;
	seen(&c, "was2/1")->state = BT_RUN_ABSENT;
	golden(&c, bt_plan_deploy, "rolling-half-one-down");
	/* "/" goes to one instance: it is replaced last, unless it is down */
	static const struct bt_route routes[] = {
		{.path = "/", .to = BT_ROUTE_ONE}, {.path = "/api", .to = BT_ROUTE_ALL}};
	setup(&c, BT_STRATEGY_ROLLING, "was1 was2", "1 2", "web1");
	c.nginx.routes = routes;
	c.nginx.n_routes = 2;
	for (size_t i = 0; i < 4; i++)
		serves(&c, places[i], 1);
	c.members[1].one = true;
	golden(&c, bt_plan_deploy, "rolling-one");
	c.rq.release = c.known[0];
	for (size_t i = 0; i < 4; i++)
		seen(&c, places[i])->release = 2;
	golden(&c, bt_plan_rollback, "rollback-rolling-one");
	seen(&c, "was1/2")->state = BT_RUN_ABSENT;
	golden(&c, bt_plan_deploy, "rolling-one-down");
	setup(&c, BT_STRATEGY_ROLLING, "local", "one", "local");
	serves(&c, "local/one", 1);
	golden(&c, bt_plan_deploy, "rolling-single");
	setup(&c, BT_STRATEGY_ROLLING, "local", "1 2", NULL);
	runs(&c, "local/1", 2);
	runs(&c, "local/2", 1);
	golden(&c, bt_plan_deploy, "rolling-half-done-no-balancer");
}

static void canary(void **state)
{
	(void)state;
	static const char *const places[] = {"was1/1", "was1/2", "was2/1", "was2/2"};
	struct world_case c;
	setup(&c, BT_STRATEGY_CANARY, "was1 was2", "1 2", "web1");
	c.service.deploy.canary = 1;
	c.service.deploy.batch = 2;
	c.service.deploy.bake_ms = 10000;
	for (size_t i = 0; i < 4; i++)
		serves(&c, places[i], 1);
	golden(&c, bt_plan_deploy, "canary");
	c.service.deploy.canary = 50;
	c.service.deploy.canary_percent = true;
	c.service.deploy.batch = 1;
	c.service.deploy.bake_ms = 0;
	golden(&c, bt_plan_deploy, "canary-half");
	runs(&c, "was1/1", 2);
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "canary-back");
}

/* An address that is missing on a host that shall serve. */
static void addresses(void **state)
{
	(void)state;
	struct world_case c;
	setup_dsr(&c, BT_STRATEGY_ROLLING, "was1 was2", "1");
	serves(&c, "was1/1", 1);
	runs(&c, "was2/1", 1);
	c.vips[1].there = false;
	golden(&c, bt_plan_deploy, "address-rolling");
	golden_json(&c, bt_plan_deploy, "address-rolling");
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "address-back");
	setup_dsr(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green");
	serves(&c, "was1/blue", 1);
	serves(&c, "was2/blue", 1);
	c.vips[0].there = false;
	golden(&c, bt_plan_deploy, "address-blue-green");
}

/* ── the way back of a flow ── */

static struct bt_plan *before_flow(struct world_case *c, const char *name)
{
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	const char *near;
	c->rq.flow = bt_flow_find(&c->service, name, &near);
	if (bt_plan_flow(&c->rq, &p, &err) < 0)
		fail_msg("%s: %s", name, err.text);
	c->rq.before = p;
	c->rq.first_task_id = 100;
	return p;
}

static void out(struct world_case *c, size_t member)
{
	c->members[member].in = false;
}

static void flow_back(void **state)
{
	(void)state;
	struct world_case c;
	/* was1 is done; was2 was under way, its address off; was3 was out for maintenance, and is
	 * not one of the flow's hosts. */
	static const char *const chosen[] = {"was1", "was2"};
	setup_dsr(&c, BT_STRATEGY_ROLLING, "was1 was2 was3", "1 2");
	static const char *const places[] = {"was1/1", "was1/2", "was2/1", "was2/2"};
	for (size_t i = 0; i < 4; i++)
		serves(&c, places[i], 1);
	runs(&c, "was3/1", 1);
	c.vips[2].there = false;
	c.rq.hosts = chosen;
	c.rq.n_hosts = 2;
	struct bt_plan *p = before_flow(&c, "deployAndTomcatRestartWithL4Control");
	runs(&c, "was1/1", 2);
	runs(&c, "was1/2", 2);
	out(&c, 2);
	out(&c, 3);
	runs(&c, "was2/1", 0);
	seen(&c, "was2/1")->state = BT_RUN_ABSENT;
	c.vips[1].there = false;
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "flow-back");
	bt_plan_free(p);
}

/* Each instance has its own release, and a host that was out goes out again. */
static void flow_back_to_what_was(void **state)
{
	(void)state;
	struct world_case c;
	setup_dsr(&c, BT_STRATEGY_ROLLING, "was1 was2", "1 2");
	serves(&c, "was1/1", 1);
	serves(&c, "was1/2", 3);
	c.service.deploy.min_in_rotation = 0;
	runs(&c, "was2/1", 1);
	c.vips[1].there = false;
	struct bt_plan *p = before_flow(&c, "deployAndTomcatRestartWithL4Control");
	static const char *const places[] = {"was1/1", "was1/2", "was2/1", "was2/2"};
	for (size_t i = 0; i < 4; i++)
		runs(&c, places[i], 2);
	in(&c, "was2/1");
	in(&c, "was2/2");
	c.vips[1].there = true;
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "flow-back-mixed");
	bt_plan_free(p);
	/* Nothing but the pool. */
	setup_dsr(&c, BT_STRATEGY_ROLLING, "was1 was2", "1");
	serves(&c, "was1/1", 1);
	serves(&c, "was2/1", 1);
	static const char *const one[] = {"was2"};
	c.rq.hosts = one;
	c.rq.n_hosts = 1;
	c.rq.release = c.known[0];
	p = before_flow(&c, "turnOffL4");
	out(&c, 1);
	golden(&c, bt_plan_rollback, "flow-back-turn-off");
	bt_plan_free(p);
}

static void recreate(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_RECREATE, "was1", "one", "web1");
	serves(&c, "was1/one", 1);
	golden(&c, bt_plan_deploy, "recreate");
	golden(&c, bt_plan_rollback, "recreate-back");
}

static void rollback(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	c.rq.release = c.known[0];
	serves(&c, "local/green", 2);
	runs(&c, "local/blue", 1);
	golden(&c, bt_plan_rollback, "rollback-warm");
	seen(&c, "local/blue")->state = BT_RUN_ABSENT;
	golden(&c, bt_plan_rollback, "rollback-cold");
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	c.rq.release = c.known[0];
	serves(&c, "local/blue", 1);
	golden(&c, bt_plan_rollback, "rollback-nothing-happened");
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	c.rq.release = (struct bt_plan_release){0};
	serves(&c, "local/blue", 2);
	golden(&c, bt_plan_rollback, "rollback-first");
	setup(&c, BT_STRATEGY_ROLLING, "was1 was2", "1 2", "web1");
	c.rq.release = c.known[0];
	serves(&c, "was1/1", 2);
	serves(&c, "was2/1", 1);
	serves(&c, "was2/2", 1);
	golden(&c, bt_plan_rollback, "rollback-rolling");
}

static void retire(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green", "web1");
	serves(&c, "was1/blue", 2);
	serves(&c, "was2/blue", 2);
	runs(&c, "was1/green", 1);
	runs(&c, "was2/green", 1);
	golden(&c, bt_plan_retire, "retire");
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	serves(&c, "local/blue", 2);
	golden(&c, bt_plan_retire, "retire-nothing");
}

static void refusals(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green", "web1");
	serves(&c, "was1/blue", 1);
	serves(&c, "was2/green", 1);
	refused(&c, bt_plan_deploy, BT_E_REFUSED,
		"which slot of shop is live? nginx sends to several slots; nginx on web1 sends to "
		"blue (was1) and green (was2), running: blue (was1) and green (was2)");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	in(&c, "local/blue");
	runs(&c, "local/green", 1);
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "nginx sends where nothing runs");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	serves(&c, "local/blue", 1);
	c.service.identity = (struct bt_identity){.path = "/profile", .expect = "{slot}"};
	c.balancer.identity = "blue\n";
	struct bt_plan *p = NULL;
	assert_int_equal(bt_plan_deploy(&c.rq, &p, NULL), 0);
	bt_plan_free(p);
	c.balancer.identity = "green";
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "through it 'green' answers");
	c.balancer.identity = NULL;
	seen(&c, "local/blue")->identity = "green";
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "local/blue on port 8081 says it is 'green'");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	serves(&c, "local/blue", 1);
	seen(&c, "local/green")->holder = "python3 (pid 9)";
	refused(&c, bt_plan_deploy, BT_E_REFUSED,
		"port 8082 of local/green is held by python3 (pid 9), which baton did not start");

	c.members[c.balancer.n_members++] =
		(struct bt_seen_member){.address = "127.0.0.1", .port = 80, .in = true};
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "127.0.0.1:80, which is no slot of shop");
	c.service.deploy.strategy = BT_STRATEGY_ROLLING;
	seen(&c, "local/green")->holder = NULL;
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "127.0.0.1:80, which is no slot of shop");

	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1", "blue green", "web1");
	c.nginx.listen = "127.0.0.1:80";
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "may not listen on port 80");
	c.seen[1].can_bind_low = true;
	assert_int_equal(bt_plan_deploy(&c.rq, &p, NULL), 0);
	bt_plan_free(p);
	c.nginx.mode = BT_NGINX_ADOPT;
	c.balancer.running = false;
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "nginx on web1 is not running");
	c.seen[1].n_balancers = 0;
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "has not reported what nginx/shop sends where");
	c.world.n_hosts = 1;
	refused(&c, bt_plan_deploy, BT_E_REFUSED, "host web1 (nginx of shop) has not reported");
	c.world.n_hosts = 0;
	refused(&c, bt_plan_rollback, BT_E_REFUSED, "has not reported");
}

/* Others started it, and an agent has looked at it. */
static const struct bt_seen_foreign somebody = {.pid = 812,
	.command = "java -jar /srv/shop.jar",
	.user = "shop",
	.artifact = "/srv/shop.jar",
	.digest = "d"};

static void foreign(struct world_case *c, const char *place, const struct bt_seen_foreign *f)
{
	seen(c, place)->holder = "java (pid 812)";
	seen(c, place)->foreign = f;
}

static void adoption(void **state)
{
	(void)state;
	struct world_case c;
	struct bt_seen_foreign other = somebody;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "was1 was2", "blue green", "web1");
	refused(&c, bt_plan_adopt, BT_E_REFUSED,
		"nothing to adopt: no process that others started listens on the ports 8081 (blue) "
		"and 8082 (green) of shop");
	foreign(&c, "was1/blue", &somebody);
	foreign(&c, "was2/blue", &other);
	refused(&c, bt_plan_adopt, BT_E_REFUSED, "nginx sends nowhere");
	in(&c, "was1/blue");
	in(&c, "was2/blue");
	other.digest = NULL;
	other.no_artifact = "/srv/shop.jar was changed after the process started";
	other.unit = "shop.service";
	golden(&c, bt_plan_adopt, "adopt-blue-green");

	other.trouble = "port 8081 has 2 candidates: java (pid 812) and python3 (pid 9)";
	refused(&c, bt_plan_adopt, BT_E_REFUSED, "was2/blue: port 8081 has 2 candidates");
	seen(&c, "was2/blue")->foreign = NULL;
	refused(&c, bt_plan_adopt, BT_E_REFUSED, "the agent of was2 is too old");
	seen(&c, "was2/blue")->holder = NULL;
	refused(&c, bt_plan_adopt, BT_E_REFUSED, "nothing listens on port 8081 of was2/blue");
	runs(&c, "was2/blue", 1);
	refused(&c, bt_plan_adopt, BT_E_EXISTS, "was2/blue runs v1, which baton has already");
	refused(&c, bt_plan_deploy, BT_E_REFUSED,
		"was1/blue is served by java (pid 812), which baton did not start, and was2/blue "
		"by "
		"v1, which it knows");
	seen(&c, "was2/blue")->adopted = true;
	struct bt_plan *p = NULL;
	assert_int_equal(bt_plan_adopt(&c.rq, &p, NULL), 0);
	assert_int_equal(p->stages[0].lanes[0].n_tasks, 2); /* was1's, and its health check */
	bt_plan_free(p);

	setup(&c, BT_STRATEGY_ROLLING, "local", "a b c", "local");
	foreign(&c, "local/a", &somebody);
	refused(&c, bt_plan_adopt, BT_E_REFUSED, "nginx sends to none of the ports");
	in(&c, "local/a");
	foreign(&c, "local/b", &somebody);
	golden(&c, bt_plan_adopt, "adopt-rolling");
}

/* What was adopted is an instance like others, until it has to be started again. */
static void over_adopted(void **state)
{
	(void)state;
	struct world_case c;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	serves(&c, "local/blue", 1);
	seen(&c, "local/blue")->adopted = true;
	seen(&c, "local/blue")->pid = 812;
	c.known[0].digest = "";
	golden(&c, bt_plan_deploy, "over-adopted");

	/* After it: one switch back while it runs, and no way once it does not. */
	runs(&c, "local/green", 2);
	c.members[0].in = false;
	in(&c, "local/green");
	c.rq.release = (struct bt_plan_release){1, "v1", ""};
	golden(&c, bt_plan_rollback, "rollback-adopted");
	*seen(&c, "local/blue") = (struct bt_seen_instance){.slot = "blue", .port = 8081};
	refused(&c, bt_plan_rollback, BT_E_REFUSED, "so it cannot be started again");
	c.known[0].digest = "d";
	c.rq.release.digest = "d";
	struct bt_plan *p = NULL;
	assert_int_equal(bt_plan_rollback(&c.rq, &p, NULL), 0);
	bt_plan_free(p);

	/* Back to what was before a first deployment: what others started is never stopped. */
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	runs(&c, "local/blue", 1);
	seen(&c, "local/blue")->adopted = true;
	serves(&c, "local/green", 2);
	c.rq.release = (struct bt_plan_release){0};
	golden(&c, bt_plan_rollback, "back-to-adopted");
}

static void live_slot(void **state)
{
	(void)state;
	struct world_case c;
	BT_STR struct bt_str why = {0};
	int slot = 5;
	setup(&c, BT_STRATEGY_BLUE_GREEN, "local", "blue green", "local");
	assert_int_equal(bt_plan_live_slot(&c.service, &c.world, &slot, &why, NULL), 0);
	assert_int_equal(slot, -1);
	bt_str_reset(&why);
	in(&c, "local/blue"); /* an include that was written by hand before anything ran */
	assert_int_equal(bt_plan_live_slot(&c.service, &c.world, &slot, &why, NULL), 0);
	assert_int_equal(slot, -1);
	assert_string_equal(bt_str_get(&why), "nothing runs, though nginx sends to blue");
	bt_str_reset(&why);
	runs(&c, "local/blue", 1);
	runs(&c, "local/green", 1);
	assert_int_equal(bt_plan_live_slot(&c.service, &c.world, &slot, &why, NULL), 0);
	assert_int_equal(slot, 0);
	assert_string_equal(bt_str_get(&why), "nginx on local sends to blue");
	bt_str_reset(&why);
	c.service.nginx = NULL;
	seen(&c, "local/blue")->since_wall_ms = 10;
	seen(&c, "local/green")->since_wall_ms = 20;
	assert_int_equal(bt_plan_live_slot(&c.service, &c.world, &slot, &why, NULL), 0);
	assert_int_equal(slot, 1);
	seen(&c, "local/blue")->since_wall_ms = 20;
	assert_int_equal(bt_plan_live_slot(&c.service, &c.world, &slot, &why, NULL), BT_E_REFUSED);
}

/* ── random worlds ── */

static uint32_t seed, world_number; /* BATON_SHOW_PLAN=number prints that one */
static uint32_t pick(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

static void random_world(struct world_case *c, enum bt_strategy strategy)
{
	static const char *const hosts[] = {"was1", "was1 was2", "was1 was2 was3"};
	static const char *const slots[] = {"a b", "a b c", "a b c d", "a"};
	static const char *const balancers[] = {"web1", "was1", NULL};
	setup(c, strategy, hosts[pick(3)], slots[pick(strategy ? 4 : 3)], balancers[pick(3)]);
	uint32_t live = pick((uint32_t)c->service.run.n_slots + 1);
	for (size_t h = 0; h < c->service.n_hosts; h++)
		for (size_t i = 0; i < c->service.run.n_slots; i++) {
			struct bt_seen_instance *s = &c->instances[h][i];
			char place[64];
			snprintf(place, sizeof place, "%s/%s", c->hosts[h], c->slots[i].name);
			uint32_t what = pick(10);
			bool serving = strategy ? what < 6 : i == live;
			if (serving || what == 7)
				runs(c, place, serving ? 1 + pick(2) : 1 + pick(4));
			if (s->release && pick(12) == 0)
				s->state = pick(2) ? BT_RUN_CRASHING : BT_RUN_ABSENT;
			if (s->state == BT_RUN_ABSENT && pick(20) == 0)
				s->holder = "nc (pid 4)";
			s->since_wall_ms = pick(1000);
			if (c->service.nginx && (serving ? pick(10) > 0 : pick(30) == 0))
				in(c, place);
		}
	c->service.deploy.batch = 1 + pick(3);
	c->service.deploy.bake_ms = pick(2) * 1000;
	c->service.deploy.keep_warm_ms = pick(2) * 1000;
	if (pick(3) == 0)
		c->service.deploy.min_in_rotation = pick(3);
	c->rq.release = c->known[pick(3)];
}

/* ── CodeDeploy bundles ── */

static void bundle(struct world_case *c, const char *hosts, const char *slots, const char *nginx,
	enum bt_codedeploy_config config)
{
	setup(c, BT_STRATEGY_ROLLING, hosts, slots, nginx);
	c->service.run.as = BT_RUNTIME_BUNDLE;
	c->service.deploy.codedeploy = (struct bt_codedeploy){.config = config, .min_healthy = -1};
}

static void all_serve(struct world_case *c, uint32_t release)
{
	for (size_t h = 0; h < c->service.n_hosts; h++) {
		char place[64];
		snprintf(place, sizeof place, "%s/%s", c->hosts[h], c->slots[0].name);
		serves(c, place, release);
	}
}

static void bundles(void **state)
{
	(void)state;
	struct world_case c;
	bundle(&c, "was1", "main", NULL, BT_CODEDEPLOY_ONE_AT_A_TIME);
	golden(&c, bt_plan_deploy, "bundle-first");

	bundle(&c, "was1 was2", "main", "web1", BT_CODEDEPLOY_ONE_AT_A_TIME);
	all_serve(&c, 1);
	c.service.deploy.codedeploy.ignore_stop_failures = true;
	golden(&c, bt_plan_deploy, "bundle");
	golden_json(&c, bt_plan_deploy, "bundle");

	bundle(&c, "was1 was2 was3 was4", "main", "web1", BT_CODEDEPLOY_HALF_AT_A_TIME);
	serves(&c, "was1/main", 1);
	serves(&c, "was2/main", 1);
	serves(&c, "was4/main", 1);
	golden(&c, bt_plan_deploy, "bundle-unhealthy-first");

	bundle(&c, "was1 was2 was3", "main", "web1", BT_CODEDEPLOY_ONE_AT_A_TIME);
	serves(&c, "was1/main", 2);
	runs(&c, "was2/main", 2);
	serves(&c, "was3/main", 1);
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "bundle-back");

	bundle(&c, "was1 was2", "main", "web1", BT_CODEDEPLOY_ONE_AT_A_TIME);
	serves(&c, "was1/main", 2);
	c.rq.release = (struct bt_plan_release){0};
	c.rq.failed = &c.service;
	c.rq.failed_release = c.known[1];
	golden(&c, bt_plan_rollback, "bundle-back-to-nothing");

	bundle(&c, "was1", "main", NULL, BT_CODEDEPLOY_ONE_AT_A_TIME);
	c.seen[0].no_exec = "host policy (/etc/baton/policy.yaml, rule 'exec'): off";
	refused(&c, bt_plan_deploy, BT_E_REFUSED,
		"ApplicationStop needs to run a program on was1: host policy");
}

static void bundles_blue_green(void **state)
{
	(void)state;
	struct world_case c;
	for (int back = 0; back < 2; back++) {
		bundle(&c, "was1 was2", "blue green", "web1", BT_CODEDEPLOY_ALL_AT_ONCE);
		c.service.deploy.codedeploy.style = BT_CODEDEPLOY_BLUE_GREEN;
		c.service.deploy.strategy = BT_STRATEGY_BLUE_GREEN;
		runs(&c, "was1/blue", 1);
		runs(&c, "was2/blue", 1);
		in(&c, back ? "was1/green" : "was1/blue");
		in(&c, "was2/blue");
		if (!back) {
			golden(&c, bt_plan_deploy, "bundle-blue-green");
			continue;
		}
		runs(&c, "was1/green", 2);
		c.rq.release = c.known[0];
		golden(&c, bt_plan_rollback, "bundle-blue-green-back");
	}
}

static void blue_green_bundle(struct world_case *c, const char *hosts)
{
	bundle(c, hosts, "blue green", "web1", BT_CODEDEPLOY_ALL_AT_ONCE);
	c->service.deploy.codedeploy.style = BT_CODEDEPLOY_BLUE_GREEN;
	c->service.deploy.strategy = BT_STRATEGY_BLUE_GREEN;
}

/* What the simulator found. */
static void bundles_found(void **state)
{
	(void)state;
	struct world_case c;
	/* The old one runs on one of two hosts only, and both slots get requests. */
	blue_green_bundle(&c, "was1 was2");
	serves(&c, "was1/blue", 1);
	serves(&c, "was1/green", 2);
	serves(&c, "was2/green", 2);
	c.rq.release = c.known[0];
	golden(&c, bt_plan_rollback, "bundle-blue-green-back-half");

	/* Back to nothing leaves alone what others run in the other slot. */
	blue_green_bundle(&c, "was1");
	serves(&c, "was1/blue", 0);
	runs(&c, "was1/green", 2);
	c.rq.release = (struct bt_plan_release){0};
	c.rq.failed_release = c.known[1];
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	assert_int_equal(bt_plan_rollback(&c.rq, &p, &err), 0);
	assert_int_equal(p->n_stages, 1);
	assert_int_equal(p->stages[0].n_lanes, 1);
	assert_string_equal(p->stages[0].lanes[0].name, "was1/green");
	bt_plan_free(p);

	/* What serves is what a failure goes back to, though another one is installed beside it. */
	blue_green_bundle(&c, "was1");
	serves(&c, "was1/blue", 1);
	seen(&c, "was1/green")->installed = 2;
	c.rq.release = c.known[0];
	p = planned(&c, bt_plan_rollback, "serving");
	assert_int_equal(p->old_release, 1);
	bt_plan_free(p);

	/* What gets requests on a host that does not serve as a whole counts for nothing. */
	bundle(&c, "was1 was2", "a b", "web1", BT_CODEDEPLOY_ONE_AT_A_TIME);
	serves(&c, "was1/a", 1);
	runs(&c, "was1/b", 1);
	serves(&c, "was2/a", 1);
	serves(&c, "was2/b", 1);
	p = planned(&c, bt_plan_deploy, "partly");
	assert_int_equal(p->min_in_rotation, 2);
	bt_plan_free(p);

	/* An approval that is rejected before the first host is no host that may fail. */
	bundle(&c, "was1 was2 was3", "main", "web1", BT_CODEDEPLOY_ALL_AT_ONCE);
	all_serve(&c, 1);
	static const struct bt_hook approve = {.kind = BT_TASK_APPROVE, .within_ms = 60000};
	c.service.deploy.hooks[BT_HOOK_BEFORE] = (struct bt_hooks){&approve, 1};
	p = planned(&c, bt_plan_deploy, "approve");
	size_t asked = 0;
	for (size_t i = 0; i < p->n_stages; i++)
		if (p->stages[i].lanes[0].tasks[0].kind == BT_TASK_APPROVE) {
			assert_true(p->stages[i].own_policy);
			assert_int_equal(p->stages[i].continue_n, 0);
			asked++;
		}
	assert_int_equal(asked, 1);
	bt_plan_free(p);
}

/* Stages with hosts, as "batch size:lanes that may have failed by its end". */
static void rule(const char *hosts, const char *down, enum bt_codedeploy_config config,
	int64_t min_healthy, bool percent, const char *expected)
{
	struct world_case c;
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	BT_STR struct bt_str text = {0};
	bundle(&c, hosts, "main", "web1", config);
	c.service.deploy.codedeploy.min_healthy = min_healthy;
	c.service.deploy.codedeploy.min_healthy_percent = percent;
	for (size_t h = 0; h < c.service.n_hosts; h++) {
		char place[64];
		snprintf(place, sizeof place, "%s/main", c.hosts[h]);
		if (!strstr(down, c.hosts[h]))
			serves(&c, place, 1);
	}
	if (bt_plan_deploy(&c.rq, &p, &err) < 0) {
		assert_string_equal(err.text, expected);
		return;
	}
	for (size_t i = 0; i < p->n_stages; i++)
		if (strncmp(p->stages[i].name, "batch", 5) == 0)
			bt_str_addf(&text, "%s%zu:%lld", text.len ? " " : "", p->stages[i].n_lanes,
				(long long)p->stages[i].may_fail);
	bt_str_addf(&text, ", %lld", (long long)p->min_in_rotation);
	assert_string_equal(bt_str_get(&text), expected);
	bt_plan_free(p);
}

static void bundle_rules(void **state)
{
	(void)state;
	enum bt_codedeploy_config one = BT_CODEDEPLOY_ONE_AT_A_TIME,
				  half = BT_CODEDEPLOY_HALF_AT_A_TIME,
				  all = BT_CODEDEPLOY_ALL_AT_ONCE;
	rule("a", "", one, -1, false, "1:0, 0");
	rule("a b c", "", one, -1, false, "1:0 1:0 1:1, 2");
	rule("a b c", "", half, -1, false, "1:0 1:0 1:1, 2"); /* half of 3 is 1; 2 must succeed */
	rule("a b c d e", "", half, -1, false, "2:0 2:1 1:2, 3");
	rule("a", "", half, -1, false, "1:0, 0");
	rule("a b c", "", all, -1, false, "3:2, 0"); /* one that works is enough */
	rule("a b c d", "", one, 2, false, "2:0 2:2, 2");
	rule("a b c d", "", one, 1, false, "3:2 1:3, 1");
	rule("a b c", "", one, 50, true, "1:0 1:0 1:1, 2"); /* 1.5 is rounded up */
	rule("a b c", "", one, 0, false, "3:2, 0");
	rule("a b c", "b", one, -1, false, "1:0 1:0 1:1, 2");
	rule("a b c", "a b c", one, -1, false, "1:1 1:1 1:1, 0"); /* nothing can be taken away */
	rule("a b c", "", one, 90, true,
		"deploy.codedeploy.minimum_healthy_hosts: 90% of 3 hosts leaves none to deploy "
		"to: expected a smaller one");
}

static void random_worlds(void **state)
{
	(void)state;
	planner *const planners[] = {bt_plan_deploy, bt_plan_rollback, bt_plan_retire};
	size_t made[3][3] = {{0}};
	for (uint32_t i = 0; i < 12000; i++) {
		seed = i * 2654435761u + 1;
		struct world_case c;
		struct bt_plan *p = NULL;
		struct bt_err err = {0};
		uint32_t strategy = pick(3), which = pick(3);
		random_world(&c, (enum bt_strategy)strategy);
		if (which == 1 && pick(6) == 0)
			c.rq.release = (struct bt_plan_release){0};
		int r = planners[which](&c.rq, &p, &err);
		if (r < 0) {
			assert_int_equal(r, BT_E_REFUSED);
			assert_true(err.text[0]);
			continue;
		}
		if (getenv("BATON_SHOW_PLAN") && i == (uint32_t)atoi(getenv("BATON_SHOW_PLAN"))) {
			BT_STR struct bt_str text = {0};
			bt_plan_print(p, &text);
			BT_FREE char *j = bt_json_dump(bt_world_to_json(&c.world));
			print_message("%s\n%s\n", bt_str_get(&text), j);
		}
		world_number = i;
		check_plan(p, &c);
		made[which][strategy]++;
		bt_plan_free(p);
	}
	world_number = 0;
	for (size_t i = 0; i < 9; i++)
		assert_true(made[i / 3][i % 3] > 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blue_green),
		cmocka_unit_test(hooks),
		cmocka_unit_test(changes),
		cmocka_unit_test(several_nginx),
		cmocka_unit_test(rolling),
		cmocka_unit_test(canary),
		cmocka_unit_test(addresses),
		cmocka_unit_test(flow_back),
		cmocka_unit_test(flow_back_to_what_was),
		cmocka_unit_test(recreate),
		cmocka_unit_test(rollback),
		cmocka_unit_test(retire),
		cmocka_unit_test(refusals),
		cmocka_unit_test(adoption),
		cmocka_unit_test(over_adopted),
		cmocka_unit_test(live_slot),
		cmocka_unit_test(bundles),
		cmocka_unit_test(bundles_blue_green),
		cmocka_unit_test(bundles_found),
		cmocka_unit_test(bundle_rules),
		cmocka_unit_test(random_worlds),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	if (failed && world_number)
		print_message("random world %u\n", world_number);
	return failed;
}
