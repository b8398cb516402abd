/* Plans of flows: each template of the company's tool before each kind of balancer, as golden
 * prints; who is meant, batches, stages that are done once, tasks of flows in deploy.hooks; and
 * what is refused, with the stage's name. Every plan is played through: nobody is stopped who gets
 * requests, and no more are out at once than the plan says. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "expect.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "config/config.h"
#include "plan/flows.h"
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>

/* ── a service by its config, and a world in a few words ── */

#define SHOP "service: shop\nhosts: [was1, was2]\ndeploy: {strategy: rolling}\n"
#define TOMCAT "run: {as: tomcat, slots: {a: 8080, b: 8081}}\n"
#define DSR                                                                                        \
	SHOP "run: {as: tomcat, slots: {a: 8080}}\n"                                               \
	     "traffic: {nftables: {on: l4, vip: 10.0.9.9, port: 8080, mode: dsr, interface: "      \
	     "eth0}}\n"
#define HAPROXY                                                                                    \
	SHOP TOMCAT "traffic: {haproxy: {on: l4, socket: /run/haproxy.sock, backend: shop, "       \
		    "server: '{host}-{slot}'}}\n"
#define NGINX SHOP TOMCAT "traffic: {nginx: {on: web1}}\n"
#define ROTATION SHOP TOMCAT "traffic: {rotation: {listen: '9000', interval: 1s, fall: 3}}\n"

struct lab {
	struct bt_config *config;
	struct bt_arena *arena;
	const struct bt_service *service;
	struct bt_seen_host *seen;
	struct bt_world world;
	struct bt_plan_release known[3];
	struct bt_plan_request rq;
};

static const char *env(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	return NULL;
}

static size_t host_number(const struct lab *l, const char *name)
{
	for (size_t i = 0; i < l->world.n_hosts; i++)
		if (bt_streq(l->seen[i].host, name))
			return i;
	fail_msg("no host %s", name);
	return 0;
}

static struct bt_seen_instance *instance(struct lab *l, const char *place)
{
	const char *slash = strchr(place, '/');
	BT_FREE char *host = bt_strndup(place, (size_t)(slash - place));
	struct bt_seen_host *h = &l->seen[host_number(l, host)];
	for (size_t i = 0; i < h->n_instances; i++)
		if (bt_streq(h->instances[i].slot, slash + 1))
			return (struct bt_seen_instance *)&h->instances[i];
	fail_msg("no place %s", place);
	return NULL;
}

static void add_member(struct lab *l, const char *place, bool in)
{
	const char *slash = strchr(place, '/');
	BT_FREE char *host = bt_strndup(place, (size_t)(slash - place));
	struct bt_balancer_facts facts;
	bt_service_balancer(l->service, &facts);
	for (size_t i = 0; i < l->world.n_hosts; i++) {
		struct bt_seen_balancer *b = (struct bt_seen_balancer *)l->seen[i].balancers;
		if (!b || (facts.own_host && !bt_streq(l->seen[i].host, host)))
			continue;
		((struct bt_seen_member *)b->members)[b->n_members++] =
			(struct bt_seen_member){.address = l->seen[host_number(l, host)].address,
				.port = instance(l, place)->port,
				.in = in,
				.host = bt_arena_strdup(l->arena, host),
				.slot = bt_arena_strdup(l->arena, slash + 1)};
	}
}

/* "was1/a:1+ was2/a:1": release 1 runs in both, and the first of them is in rotation. */
static void place(struct lab *l, const char *words)
{
	while (*words) {
		size_t n = strcspn(words, " "), name = strcspn(words, ":");
		BT_FREE char *where = bt_strndup(words, name);
		struct bt_seen_instance *i = instance(l, where);
		i->state = BT_RUN_RUNNING;
		i->release = (uint32_t)(words[name + 1] - '0');
		add_member(l, where, words[n - 1] == '+');
		words += n + strspn(words + n, " ");
	}
}

static void see_host(struct lab *l, size_t at, const char *name)
{
	const struct bt_service *s = l->service;
	struct bt_seen_host *h = &l->seen[at];
	struct bt_balancer_facts facts;
	bt_service_balancer(s, &facts);
	h->host = name;
	h->address = bt_arena_printf(l->arena, "10.0.0.%zu", at + 1);
	for (size_t i = 0; i < s->n_hosts; i++)
		if (bt_streq(s->hosts[i], name))
			h->n_instances = s->run.n_slots;
	struct bt_seen_instance *list =
		BT_ARENA_ARRAY(l->arena, struct bt_seen_instance, s->run.n_slots);
	for (size_t i = 0; i < h->n_instances; i++)
		list[i] = (struct bt_seen_instance){
			.slot = s->run.slots[i].name, .port = s->run.slots[i].port};
	h->instances = list;
	if (h->n_instances && bt_service_has_loopback(s)) {
		struct bt_seen_vip *vip = BT_ARENA_NEW(l->arena, struct bt_seen_vip);
		*vip = (struct bt_seen_vip){.address = "10.0.9.9", .there = true};
		h->vips = vip;
		h->n_vips = 1;
	}
	if (bt_service_balances_on(s, name)) {
		struct bt_seen_balancer *b = BT_ARENA_NEW(l->arena, struct bt_seen_balancer);
		*b = (struct bt_seen_balancer){.generation = 7,
			.running = true,
			.name = bt_arena_printf(l->arena, "%s/shop", facts.family),
			.members = BT_ARENA_ARRAY(l->arena, struct bt_seen_member, 16)};
		h->balancers = b;
		h->n_balancers = 1;
	}
}

static void lab(struct lab *l, const char *text, const char *places)
{
	static const char *const versions[] = {"v1", "v2", "v3"};
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	*l = (struct lab){.arena = bt_arena_new()};
	if (bt_config_parse(text, strlen(text), "f", env, NULL, &l->config, &problems, &err) < 0)
		fail_msg("%s\n%s", err.text, text);
	const struct bt_service *s = l->service = &l->config->services[0];
	struct bt_balancer_facts facts;
	bt_service_balancer(s, &facts);
	l->world.hosts = l->seen =
		BT_ARENA_ARRAY(l->arena, struct bt_seen_host, s->n_hosts + facts.n_on);
	for (size_t i = 0; i < s->n_hosts; i++)
		see_host(l, l->world.n_hosts++, s->hosts[i]);
	for (size_t i = 0; !facts.own_host && i < facts.n_on; i++)
		see_host(l, l->world.n_hosts++, facts.on[i]);
	place(l, places);
	for (uint32_t i = 0; i < 3; i++)
		l->known[i] = (struct bt_plan_release){i + 1, versions[i], NULL};
	l->rq = (struct bt_plan_request){.service = l->service,
		.world = &l->world,
		.release = l->known[1],
		.known = l->known,
		.n_known = 3,
		.first_task_id = 1};
}

static void done(struct lab *l)
{
	bt_config_free(l->config);
	bt_arena_free(l->arena);
}

/* ── playing a plan ── */

struct play {
	const struct bt_plan *p;
	bool in[16], runs[16], drained[16], address[4];
	size_t n_in;
};

static void move(struct play *w, uint16_t place, bool in)
{
	w->n_in = w->n_in + in - w->in[place];
	w->in[place] = in;
	w->drained[place] = false;
}

static void play_task(struct play *w, const struct bt_task *t)
{
	if (t->skip)
		return;
	switch ((int)t->kind) {
	case BT_TASK_SWITCH:
		for (size_t i = 0; i < t->n_in; i++) {
			assert_true(w->runs[t->in[i]]);
			assert_true(w->address[w->p->instances[t->in[i]].host]);
			move(w, t->in[i], true);
		}
		for (size_t i = 0; i < t->n_out; i++)
			move(w, t->out[i], false);
		assert_true(!t->n_out || (int64_t)w->n_in >= w->p->min_in_rotation);
		break;
	case BT_TASK_DRAIN:
		for (size_t i = 0; i < t->n_out; i++) {
			assert_false(w->in[t->out[i]]);
			w->drained[t->out[i]] = true;
		}
		break;
	case BT_TASK_INSTANCE_STOP:
		assert_false(w->in[t->instance]);
		assert_true(w->drained[t->instance] || !w->p->n_balancers);
		w->runs[t->instance] = false;
		break;
	case BT_TASK_INSTANCE_START:
		assert_false(w->runs[t->instance]);
		w->runs[t->instance] = true;
		break;
	case BT_TASK_LOOPBACK_STOP:
	case BT_TASK_LOOPBACK_START:
		for (size_t i = 0; i < t->n_out; i++)
			assert_false(w->in[t->out[i]]);
		w->address[t->host] = t->kind == BT_TASK_LOOPBACK_START;
		break;
	default:
		break;
	}
}

/* Lanes side by side: everybody's first task, then everybody's second. */
static void play(const struct bt_plan *p, const struct lab *l)
{
	struct play w = {.p = p};
	for (uint16_t i = 0; i < p->n_instances; i++) {
		const struct bt_seen_host *h = &l->seen[p->instances[i].host];
		w.runs[i] = h->instances[i % l->service->run.n_slots].state == BT_RUN_RUNNING;
		w.drained[i] = !w.runs[i];
		w.address[p->instances[i].host] = !h->n_vips || h->vips[0].there;
		move(&w, i, p->instances[i].expect_in);
	}
	for (size_t s = 0; s < p->n_stages; s++) {
		bool more = !p->stages[s].closing;
		for (size_t step = 0; more; step++) {
			more = false;
			for (size_t k = 0; k < p->stages[s].n_lanes; k++)
				if (step < p->stages[s].lanes[k].n_tasks) {
					play_task(&w, &p->stages[s].lanes[k].tasks[step]);
					more = true;
				}
		}
	}
}

static void check(const struct bt_plan *p, const struct lab *l)
{
	struct bt_plan *again = NULL;
	struct bt_err err = {0};
	BT_JSON json_t *j = bt_plan_to_json(p);
	if (bt_plan_from_json(j, &again, &err) < 0)
		fail_msg("%s", err.text);
	BT_JSON json_t *k = bt_plan_to_json(again);
	assert_true(json_equal(j, k));
	bt_plan_free(again);
	play(p, l);
}

static int plan(struct lab *l, const char *flow, struct bt_plan **ret, struct bt_err *err)
{
	const char *near;
	*ret = NULL;
	if (!flow)
		return bt_plan_deploy(&l->rq, ret, err);
	l->rq.flow = bt_flow_find(l->service, flow, &near);
	assert_non_null(l->rq.flow);
	return bt_plan_flow(&l->rq, ret, err);
}

static void golden(struct lab *l, const char *flow, const char *name, bool json)
{
	struct bt_plan *p;
	struct bt_err err = {0};
	if (plan(l, flow, &p, &err) < 0)
		fail_msg("%s: %s", name, err.text);
	check(p, l);
	BT_STR struct bt_str text = {0};
	bt_plan_print(p, &text);
	is_golden(bt_str_get(&text), "plans/%s.txt", name);
	if (json) {
		BT_JSON json_t *j = bt_plan_to_json(p);
		BT_FREE char *dump = json_dumps(j, JSON_INDENT(1) | JSON_SORT_KEYS);
		is_golden(dump, "plans/%s.json", name);
	}
	bt_plan_free(p);
}

/* flow NULL: a deployment by the service's strategy. */
static void refused(const char *config, const char *places, const char *flow, const char *hosts,
	const char *says)
{
	struct lab l;
	struct bt_plan *p;
	struct bt_err err = {0};
	lab(&l, config, places);
	l.rq.hosts = &hosts;
	l.rq.n_hosts = hosts != NULL;
	int r = plan(&l, flow, &p, &err);
	assert_int_equal(r, BT_E_REFUSED);
	assert_null(p);
	assert_string_equal(err.text, says);
	done(&l);
}

/* ── templates ── */

/* All templates before one balancer, in one file: what each would do, or why it will not. */
static void templates_of(const char *config, const char *places, const char *name)
{
	BT_STR struct bt_str all = {0};
	for (size_t i = 0; i < bt_n_flows_built_in; i++) {
		const char *flow = bt_flows_built_in[i].name;
		struct lab l;
		struct bt_plan *p;
		struct bt_err err = {0};
		lab(&l, config, places);
		bt_str_addf(&all, "%s== %s\n", i ? "\n" : "", flow);
		/* On one host: both of them could not be out. */
		static const char *const one[] = {"was1"};
		bool off = bt_streq(flow, "turnOffL4");
		l.rq.hosts = one;
		l.rq.n_hosts = off;
		int r = plan(&l, flow, &p, &err);
		if (r == 0) {
			check(p, &l);
			bt_plan_print(p, &all);
		} else {
			assert_int_equal(r, BT_E_REFUSED);
			bt_str_addf(&all, "refused: %s\n", err.text);
		}
		bt_plan_free(p);
		done(&l);
	}
	is_golden(bt_str_get(&all), "plans/%s.txt", name);
}

static void templates(void **state)
{
	(void)state;
	static const char everywhere[] = "was1/a:1+ was1/b:1+ was2/a:1+ was2/b:1+";
	templates_of(DSR, "was1/a:1+ was2/a:1+", "flow-nftables-dsr");
	templates_of(HAPROXY, everywhere, "flow-haproxy");
	templates_of(NGINX, everywhere, "flow-nginx");
	templates_of(ROTATION, everywhere, "flow-rotation");
	templates_of(SHOP TOMCAT, "was1/a:1 was1/b:1 was2/a:1 was2/b:1", "flow-no-balancer");
	/* Journals hold plans: what they look like may not change under them. */
	struct lab l;
	lab(&l, DSR, "was1/a:1+ was2/a:1+");
	golden(&l, "deployAndTomcatRestartWithL4Control", "flow-deploy-dsr", true);
	done(&l);
}

/* ── who is meant ── */

static void chosen(void **state)
{
	(void)state;
	struct lab l;
	static const char *const hosts[] = {"was2"}, *const slots[] = {"b"};
	/* One host of two, which was out: nothing is taken out, its late requests are waited for.
	 */
	lab(&l, DSR, "was1/a:1+ was2/a:1");
	l.rq.hosts = hosts;
	l.rq.n_hosts = 1;
	golden(&l, "deployAndTomcatRestartWithL4Control", "flow-one-host", false);
	done(&l);
	/* One instance of each host. */
	lab(&l, HAPROXY, "was1/a:1+ was1/b:1+ was2/a:1+ was2/b:1+");
	l.rq.slots = slots;
	l.rq.n_slots = 1;
	golden(&l, "multiInstanceDeployToReleaseWithL4Control", "flow-one-instance", false);
	l.rq.hosts = hosts;
	l.rq.n_hosts = 1;
	golden(&l, "turnOffL4", "flow-one-place", false);
	done(&l);
	/* Nobody whom the service has. */
	static const char *const nobody[] = {"was3"}, *const none[] = {"blue"};
	struct bt_plan *p;
	struct bt_err err = {0};
	lab(&l, NGINX, "was1/a:1+ was2/a:1+");
	l.rq.hosts = nobody;
	l.rq.n_hosts = 1;
	assert_int_equal(plan(&l, "turnOffL4", &p, &err), BT_E_CONFIG);
	assert_string_equal(
		err.text, "shop has no host 'was3', only was1, was2 (did you mean 'was1'?)");
	l.rq.n_hosts = 0;
	l.rq.slots = none;
	l.rq.n_slots = 1;
	assert_int_equal(plan(&l, "turnOffL4", &p, &err), BT_E_CONFIG);
	assert_string_equal(err.text, "shop has no instance 'blue', only a, b");
	done(&l);
}

/* ── stages ── */

#define FOUR                                                                                       \
	"service: shop\nhosts: [was1, was2, was3, was4]\ndeploy: {strategy: rolling}\n"            \
	"run: {as: tomcat, slots: {a: 8080}}\ntraffic: {nginx: {on: web1}}\n"                      \
	"notify: {ops: {url: 'http://127.0.0.1:9/x'}}\nflows:\n"
#define FOUR_IN "was1/a:1+ was2/a:1+ was3/a:1+ was4/a:1+"

static void batches(void **state)
{
	(void)state;
	struct lab l;
	lab(&l,
		FOUR "  f:\n    - {name: pairs, per: host, batch: 50%, min_in_rotation: 2, "
		     "on_failure: halt, tasks: [L4TurnOff, TomcatStop, TomcatStart, L4TurnOn]}\n"
		     "    - {per: host, batch: 3, tasks: [HealthCheck]}\n",
		FOUR_IN);
	golden(&l, "f", "flow-batches", false);
	done(&l);
}

static void once(void **state)
{
	(void)state;
	struct lab l;
	lab(&l,
		FOUR
		"  f:\n    - {once: [{Exec: {run: [./a], on: balancer}}, {Exec: {run: [./b], on: "
		"was3, timeout: 5s}}, {Exec: {run: ./c}}, {Approve: {within: 5m}}]}\n"
		"    - {per: host, batch: 4, tasks: [{Exec: {run: './d {host}'}}, {Wait: {for: "
		"2s}}]}\n"
		"    - {per: instance, batch: 4, tasks: [{Exec: {run: './e {port}'}}]}\n"
		"    - {name: told, per: once, tasks: [{Notify: {to: ops, message: gone}}]}\n",
		FOUR_IN);
	golden(&l, "f", "flow-once", false);
	/* Whose owner allows no programs: found before anything happens, also where it is the
	 * balancer's host alone. */
	struct bt_plan *p;
	struct bt_err err = {0};
	l.seen[host_number(&l, "web1")].no_exec = "host policy (policy.yaml, rule 'exec'): off";
	assert_int_equal(plan(&l, "f", &p, &err), BT_E_REFUSED);
	assert_string_equal(err.text,
		"flow f, stage 'once (stage 1)': Exec needs to run a program on web1: host policy "
		"(policy.yaml, rule 'exec'): off");
	done(&l);
}

/* ── what may not be ── */

static void refusals(void **state)
{
	(void)state;
	static const char two[] = "was1/a:1+ was2/a:1+";
	/* The last one out. */
	refused(DSR, two, "turnOffL4", NULL,
		"flow turnOffL4, stage 'hosts, batch 2 of 2': to take was2/a out would leave "
		"nobody "
		"in rotation for shop");
	refused(DSR, "was1/a:1+ was2/a:1", "deployAndTomcatRestartWithL4Control", "was1",
		"flow deployAndTomcatRestartWithL4Control, stage 'hosts, batch 1 of 1': to take "
		"was1/a out would leave nobody in rotation for shop");
	refused(FOUR "  f: [{name: half, per: host, min_in_rotation: 3, tasks: [L4TurnOff]}]\n",
		FOUR_IN, "f", NULL,
		"flow f, stage 'half, batch 2 of 4': to take was2/a out would leave 2 in rotation, "
		"and at least 3 have to stay");
	refused(FOUR
		"  f: [{per: host, batch: 2, min_in_rotation: 3, tasks: [L4TurnOff, L4TurnOn]}]\n",
		FOUR_IN, "f", NULL,
		"flow f, stage 'hosts, batch 1 of 2': a batch of 2 would leave 2 in rotation, and "
		"at least 3 have to stay");
	refused(FOUR "  f: [{per: host, batch: 4, tasks: [L4TurnOff, L4TurnOn]}]\n", FOUR_IN, "f",
		NULL,
		"flow f, stage 'hosts, batch 1 of 1': a batch of 4 would leave nobody in rotation, "
		"and at least 1 has to stay");
	/* What gets requests. */
	refused(DSR, two, "tomcatRestart", NULL,
		"flow tomcatRestart, stage 'hosts, batch 1 of 2': TomcatStop of was1/a while it is "
		"in rotation: requests would fail; put L4TurnOff before it (or run turnOffL4 "
		"first)");
	refused(DSR "flows: {f: [LoopbackStop]}\n", two, "f", NULL,
		"flow f, stage 'hosts, batch 1 of 2': LoopbackStop on was1 while was1/a is in "
		"rotation: established requests would stall; put L4TurnOff before it");
	/* What does not run, or is not reached. */
	refused(DSR, "was1/a:1+", "turnOnL4", "was2",
		"flow turnOnL4, stage 'hosts, batch 1 of 1': L4TurnOn would put was2/a into "
		"rotation, where nothing runs");
	refused(DSR "flows: {f: [L4TurnOff, LoopbackStop, L4TurnOn]}\n", two, "f", NULL,
		"flow f, stage 'hosts, batch 1 of 2': L4TurnOn would put was1 into rotation, and "
		"the address of shop is not on its loopback: LoopbackStart comes first");
	refused(DSR "flows: {f: [L4TurnOff, TomcatStart]}\n", two, "f", NULL,
		"flow f, stage 'hosts, batch 1 of 2': TomcatStart of was1/a, where something runs: "
		"a stop comes before it");
	/* Nobody to be taken out of. */
	refused(SHOP TOMCAT, "was1/a:1 was2/a:1", "turnOffL4", NULL,
		"flow turnOffL4, stage 'hosts, batch 1 of 2': L4TurnOff needs a balancer, and shop "
		"has none in `traffic`");
	refused(SHOP TOMCAT "flows: {f: [{once: [{Exec: {run: x, on: balancer}}]}]}\n", "", "f",
		NULL,
		"flow f, stage 'once (stage 1)': Exec on the balancer's host, and shop has no "
		"balancer in `traffic`");
}

/* A strange process on a port, an address that somebody took off, a balancer that is not there. */
static void worlds(void **state)
{
	(void)state;
	struct lab l;
	struct bt_plan *p;
	struct bt_err err = {0};
	lab(&l, DSR, "was1/a:1+ was2/a:1");
	((struct bt_seen_vip *)l.seen[host_number(&l, "was2")].vips)->there = false;
	assert_int_equal(plan(&l, "turnOnL4", &p, &err), BT_E_REFUSED);
	assert_string_equal(err.text,
		"flow turnOnL4, stage 'hosts, batch 2 of 2': L4TurnOn would put was2 into "
		"rotation, "
		"and the address of shop is not on its loopback: LoopbackStart comes first");
	/* The flow that puts it back needs it not. */
	static const char *const was2[] = {"was2"};
	l.rq.hosts = was2;
	l.rq.n_hosts = 1;
	golden(&l, "deployAndTomcatRestartWithL4Control", "flow-address-missing", false);
	/* Somebody has it elsewhere: found before the host is taken out. */
	((struct bt_seen_vip *)l.seen[host_number(&l, "was2")].vips)->trouble =
		"it is on eth0, which answers ARP for it: remove it there (ip addr del)";
	assert_int_equal(plan(&l, "deployAndTomcatRestartWithL4Control", &p, &err), BT_E_REFUSED);
	assert_string_equal(err.text,
		"flow deployAndTomcatRestartWithL4Control, stage 'hosts, batch 1 of 1': "
		"LoopbackStop on was2: 10.0.9.9: it is on eth0, which answers ARP for it: remove "
		"it "
		"there (ip addr del)");
	done(&l);
	lab(&l, DSR, "was1/a:1+");
	l.rq.hosts = was2;
	l.rq.n_hosts = 1;
	instance(&l, "was2/a")->holder = "nc (pid 4)";
	assert_int_equal(plan(&l, "deployAndTomcatRestartWithL4Control", &p, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "port 8080 of was2/a is held by nc (pid 4)"));
	done(&l);
	lab(&l, HAPROXY, "was1/a:1+ was2/a:1+");
	((struct bt_seen_balancer *)l.seen[host_number(&l, "l4")].balancers)->running = false;
	assert_int_equal(plan(&l, "turnOffL4", &p, &err), BT_E_REFUSED);
	assert_string_equal(err.text, "haproxy on l4 is not running: start it, then deploy");
	done(&l);
}

/* ── in deploy.hooks ── */

#define NOTIFY "notify: {ops: {url: 'http://127.0.0.1:9/x'}}\n"
#define HOOKS(strategy, lists)                                                                     \
	"service: shop\nhosts: [was1, was2]\nrun: {as: tomcat, slots: {a: 8080, b: 8081}}\n"       \
	"traffic: {nginx: {on: web1}}\n" NOTIFY "deploy:\n  strategy: " strategy                   \
	"\n  hooks: {" lists "}\n"

static void in_hooks(void **state)
{
	(void)state;
	struct lab l;
	lab(&l,
		HOOKS("blue-green", "before: [{Notify: {to: ops, message: begins}}, {Wait: {for: "
				    "1s}}], after_switch: "
				    "[{Wait: {for: 2s}}], on_failure: [{Notify: {to: ops}}]"),
		"was1/a:1+ was2/a:1+");
	golden(&l, NULL, "flow-hooks-blue-green", false);
	done(&l);
	/* A host's old instance is taken out by hand, with a look at it, before the switch. */
	lab(&l,
		HOOKS("rolling", "before_switch: [HealthCheck, {Wait: {for: 1s}}, L4TurnOff], "
				 "after_switch: [{Notify: {to: ops}}]"),
		"was1/a:1+ was1/b:1+ was2/a:1+ was2/b:1+");
	golden(&l, NULL, "flow-hooks-rolling", false);
	done(&l);
	/* What the strategy needs is not taken from it. */
	refused(HOOKS("blue-green", "before: [L4TurnOff]"), "was1/a:1+ was2/a:1+", NULL, NULL,
		"deploy.hooks.before: to take was1/a out would leave 1 in rotation, and at least 2 "
		"have to stay");
	refused(HOOKS("blue-green\n  min_in_rotation: 1", "before: [L4TurnOff]"),
		"was1/a:1+ was2/a:1+", NULL, NULL,
		"deploy.hooks.before: to take was2/a out would leave nobody in rotation for shop");
	refused(HOOKS("blue-green", "after_switch: [TomcatStop]"), "was1/a:1+ was2/a:1+", NULL,
		NULL,
		"deploy.hooks.after_switch: TomcatStop of was1/b while it is in rotation: requests "
		"would fail; put L4TurnOff before it (or run turnOffL4 first)");
	refused("service: shop\nhosts: [was1]\nrun: {as: tomcat, slots: {a: 8080, b: "
		"8081}}\ndeploy: "
		"{strategy: blue-green, hooks: {before: [L4TurnOff]}}\n",
		"was1/a:1", NULL, NULL,
		"deploy.hooks.before: L4TurnOff needs a balancer, and shop has none in `traffic`");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(templates),
		cmocka_unit_test(chosen),
		cmocka_unit_test(batches),
		cmocka_unit_test(once),
		cmocka_unit_test(refusals),
		cmocka_unit_test(worlds),
		cmocka_unit_test(in_hooks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
