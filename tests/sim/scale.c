/* How long the engine itself takes for a run over many hosts: a rolling deployment in a world where
 * every command is done at once. What takes long in real life (apps, drains, the network, disks) is
 * not here; what is left is what one core of the server does for the whole run. */
#include "sim.h"

#include "base/str.h"
#include "config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct bt_config *service(int hosts)
{
	BT_STR struct bt_str text = {0};
	struct bt_config *c = NULL;
	struct bt_err err = {0};
	bt_str_add(&text, "service: shop\nrun: {command: ./x, slots: {one: 8081}}\n"
			  "traffic: {nginx: {listen: \"9000\"}}\n"
			  "deploy: {strategy: rolling, batch: 10%}\nhosts: [");
	for (int i = 0; i < hosts; i++)
		bt_str_addf(&text, "%sh%d", i ? ", " : "", i);
	bt_str_add(&text, "]\n");
	if (bt_config_parse(bt_str_get(&text), text.len, "scale", NULL, NULL, &c, NULL, &err) < 0)
		fprintf(stderr, "sim: %s\n", err.text);
	return c;
}

static void world(struct bt_world *w, const struct bt_service *s)
{
	struct bt_seen_host *hosts = BT_ARENA_ARRAY(w->arena, struct bt_seen_host, s->n_hosts);
	struct bt_seen_member *pool = BT_ARENA_ARRAY(w->arena, struct bt_seen_member, s->n_hosts);
	struct bt_seen_instance *in = BT_ARENA_ARRAY(w->arena, struct bt_seen_instance, s->n_hosts);
	struct bt_seen_balancer *nginx = BT_ARENA_NEW(w->arena, struct bt_seen_balancer);
	for (size_t i = 0; i < s->n_hosts; i++) {
		const char *address = bt_arena_printf(w->arena, "10.%zu.%zu.1", i / 256, i % 256);
		in[i] = (struct bt_seen_instance){.slot = "one",
			.port = 8081,
			.state = BT_RUN_RUNNING,
			.release = 1,
			.version = "v1"};
		pool[i] = (struct bt_seen_member){.address = address, .port = 8081, .in = true};
		hosts[i] = (struct bt_seen_host){.host = s->hosts[i],
			.address = address,
			.free_bytes = INT64_MAX,
			.instances = &in[i],
			.n_instances = 1};
	}
	*nginx = (struct bt_seen_balancer){.name = "nginx/shop",
		.generation = 1,
		.running = true,
		.members = pool,
		.n_members = s->n_hosts};
	hosts[0].balancers = nginx;
	hosts[0].n_balancers = 1;
	w->hosts = hosts;
	w->n_hosts = s->n_hosts;
}

static struct bt_result done(const struct bt_command *c)
{
	struct bt_result r = {.key = c->key, .prior = {.known = true}, .drained = true};
	r.prior.generation = c->kind == BT_TASK_SWITCH ? c->generation - 1 : 0;
	r.prior.running = c->kind == BT_TASK_INSTANCE_STOP;
	r.prior.release = r.prior.running ? 1 : 0;
	return r;
}

/* 0, or -1 with a line on stderr. */
static int play(struct bt_plan *plan, size_t *ret_tasks)
{
	struct bt_engine *e = bt_engine_new(1);
	struct bt_event ev = {.kind = BT_EVENT_START, .plan = plan, .token = 1, .now_ms = 1000};
	struct bt_command *queue = NULL;
	struct bt_result result;
	struct bt_err err = {0};
	size_t head = 0, tail = 0;
	int r;
	for (;;) {
		struct bt_update u;
		if ((r = bt_engine_step(e, &ev, &u, &err)) < 0)
			break;
		for (size_t i = 0; r == 0 && i < u.n_records; i++)
			r = bt_engine_apply(e, &u.records[i], &err);
		queue = bt_realloc(queue, (tail + u.n_commands) * sizeof *queue);
		if (u.n_commands)
			memcpy(queue + tail, u.commands, u.n_commands * sizeof *queue);
		tail += u.n_commands;
		bt_update_done(&u);
		if (r < 0 || head == tail)
			break;
		result = done(&queue[head++]);
		ev = (struct bt_event){
			.kind = BT_EVENT_RESULT, .result = &result, .now_ms = ev.now_ms + 1};
	}
	if (r < 0 || bt_engine_end(e) != BT_END_DONE) {
		fprintf(stderr, "sim: the run ended %s: %s\n", bt_end_name(bt_engine_end(e)),
			r < 0 ? err.text : bt_engine_reason(e));
		r = -1;
	}
	*ret_tasks = tail;
	free(queue);
	bt_engine_free(e);
	return r;
}

int sim_scale(int hosts)
{
	static const struct bt_plan_release known[] = {{1, "v1", "aa"}, {2, "v2", "bb"}};
	struct bt_config *c = service(hosts);
	struct bt_world w = {.arena = bt_arena_new()};
	struct bt_plan *plan = NULL;
	struct bt_err err = {0};
	size_t tasks = 0;
	int r = -1;
	if (c) {
		world(&w, &c->services[0]);
		struct bt_plan_request rq = {.service = &c->services[0],
			.world = &w,
			.release = known[1],
			.known = known,
			.n_known = BT_ARRAY_LEN(known),
			.first_task_id = 1};
		double from = seconds();
		r = bt_plan_deploy(&rq, &plan, &err);
		if (r < 0)
			fprintf(stderr, "sim: %s\n", err.text);
		else
			r = play(plan, &tasks);
		if (r == 0)
			printf("{\"bench\":\"sim\",\"subject\":\"engine\",\"metric\":\"seconds\","
			       "\"value\":%.3f,\"unit\":\"s\",\"hosts\":%d,\"tasks\":%zu}\n",
				seconds() - from, hosts, tasks);
	}
	bt_config_free(c);
	bt_arena_free(w.arena);
	return r;
}
