/* The executor over fake drivers: every task kind's do and undo, repeats, stale tokens, time
 * limits, secrets, and a crash after every line of the ledger. The world of the fakes outlives the
 * crash, as the real one does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/exec.h"
#include "base/fs.h"
#include "base/json.h"
#include "driver/op.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char yaml[] = "service: shop\n"
			   "artifact: shop.jar\n"
			   "hosts: [was1]\n"
			   "run:\n"
			   "  command: java -jar {artifact} --port={port}\n"
			   "  slots: {blue: 8081, green: 8082}\n"
			   "  secrets: [DB_PASSWORD]\n"
			   "health: {http: /health, every: 100ms, passes: 1, within: 5s}\n"
			   "identity: {path: /profile}\n"
			   "traffic:\n"
			   "  nginx: {on: was1, listen: \"8080\", server_name: shop.example.com, "
			   "routes: [{path: /, to: one}]}\n"
			   "  loopback: {vips: [192.0.2.10, \"2001:db8::10\"]}\n"
			   "notify:\n"
			   "  ops: {url: \"https://hooks.example.com/${DB_PASSWORD}\"}\n"
			   "  chat: {url: \"https://chat.example.com/x\", format: slack}\n"
			   "deploy: {strategy: blue-green, drain: 1s, bake: 1s}\n";

#define SENTINEL "s3cr3t-sentinel-value"

/* ---- the fake world ------------------------------------------------------------------------- */

static struct {
	uint32_t running[2]; /* release in blue, green; 0: none */
	int restarts[2];
	int starts, stops, places, prunes, applies;
	uint32_t releases[16];
	size_t n_releases;
	uint64_t generation;
	bool in[2];
	/* what the fakes shall do */
	int health_result, drain_result, watch_result, start_result, place_result;
	bool hang_health, hang_start, exec_secret_in_error;
	char saw_secret[64];
	const char *identity;
	bool vips[2];
	int puts, takes, vip_result;
	char posted[1024], posted_to[128], delivery[64];
	int posts, post_result;
	bool hang_post;
} world;

static struct event_base *base;

struct fake_op {
	struct bt_op op;
	struct event *ev;
	bt_done_fn done;
	void *arg;
	int result;
	char text[200];
	void (*effect)(int n);
	int n;
};

static void fake_free(struct bt_op *op)
{
	struct fake_op *f = (struct fake_op *)op;
	event_free(f->ev);
	free(f);
}

static void fake_fire(evutil_socket_t fd, short what, void *arg)
{
	struct fake_op f = *(struct fake_op *)arg;
	struct bt_err err = {0};
	(void)fd;
	(void)what;
	if (f.result >= 0 && f.effect)
		f.effect(f.n);
	fake_free(arg);
	if (f.result != 0)
		bt_err_set(&err, f.result < 0 ? f.result : BT_E_FAILED, "%s", f.text);
	f.done(f.arg, f.result, f.result ? &err : NULL);
}

static struct bt_op *fake(bt_done_fn done, void *arg, int result, const char *text, bool hang,
	void (*effect)(int), int n)
{
	struct fake_op *f = bt_calloc(1, sizeof *f);
	f->op.cancel = fake_free;
	f->done = done;
	f->arg = arg;
	f->result = result;
	f->effect = effect;
	f->n = n;
	snprintf(f->text, sizeof f->text, "%s", text);
	f->ev = evtimer_new(base, fake_fire, f);
	struct timeval now = {0, 0};
	if (!hang)
		evtimer_add(f->ev, &now);
	return &f->op;
}

static int slot_index(const char *slot)
{
	return strcmp(slot, "green") == 0;
}

static void effect_start(int n)
{
	world.running[n & 1] = (uint32_t)n >> 1;
	world.starts++;
}

static struct bt_op *fake_start(const struct bt_start_request *rq, bt_done_fn done, void *arg)
{
	int i = slot_index(rq->ref.slot);
	if (rq->n_secrets)
		snprintf(world.saw_secret, sizeof world.saw_secret, "%s", rq->secrets[0].value);
	bool same = world.running[i] == rq->release;
	return fake(done, arg, world.start_result, "exit code 1: cannot open " SENTINEL,
		world.hang_start, same ? NULL : effect_start,
		(int)(rq->release << 1 | (uint32_t)i));
}

static void effect_stop(int n)
{
	if (world.running[n])
		world.stops++;
	world.running[n] = 0;
}

static struct bt_op *fake_stop(const struct bt_instance_ref *ref, const struct bt_service *service,
	bt_progress_fn progress, bt_done_fn done, void *arg)
{
	assert_true(service->run.n_stop > 0);
	progress(arg, "TERM sent");
	return fake(done, arg, 0, "", false, effect_stop, slot_index(ref->slot));
}

static int fake_observe(const struct bt_instance_ref *ref, struct bt_arena *a,
	struct bt_seen_instance *ret, struct bt_err *err)
{
	int i = slot_index(ref->slot);
	(void)err;
	*ret = (struct bt_seen_instance){.slot = bt_arena_strdup(a, ref->slot),
		.port = ref->port,
		.state = world.running[i] ? BT_RUN_RUNNING : BT_RUN_ABSENT,
		.release = world.running[i],
		.pid = world.running[i] ? 100 + i : 0,
		.restarts = world.restarts[i]};
	return 0;
}

static void fake_log_path(const struct bt_instance_ref *ref, char *buf, size_t n)
{
	(void)ref;
	snprintf(buf, n, "/nonexistent");
}

static const struct bt_runtime_ops fake_rt = {.name = "fake",
	.start = fake_start,
	.stop = fake_stop,
	.observe = fake_observe,
	.log_path = fake_log_path};

static const struct bt_runtime_ops *find_rt(enum bt_runtime kind)
{
	(void)kind;
	return &fake_rt;
}

static void effect_apply(int n)
{
	world.generation = (uint64_t)n >> 2;
	world.in[0] = n & 1;
	world.in[1] = n & 2;
	world.applies++;
}

static struct bt_op *fake_apply(const struct bt_pool *pool, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	int n = (int)pool->generation << 2;
	(void)progress;
	(void)progress_arg;
	for (size_t i = 0; i < pool->n_members; i++)
		n |= pool->members[i].in << slot_index(pool->members[i].slot);
	bool old = pool->generation <= world.generation;
	bool same = old && world.in[0] == (bool)(n & 1) && world.in[1] == (bool)(n & 2);
	return fake(done, arg, old && !same ? BT_E_REFUSED : 0, "generation is old", false,
		same ? NULL : effect_apply, n);
}

static struct bt_op *fake_drain(const struct bt_drain_request *rq, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	assert_int_equal(rq->n_members, 1);
	progress(progress_arg, "1 connection");
	return fake(done, arg, world.drain_result, "2 connections left", false, NULL, 0);
}

static struct bt_op *fake_watch(const char *name, const struct bt_service *service, int64_t ms,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	(void)name;
	(void)service;
	(void)ms;
	(void)progress;
	(void)progress_arg;
	return fake(done, arg, world.watch_result, "40% of 50 answers were 5xx", false, NULL, 0);
}

struct fake_seen {
	struct bt_op op;
	struct event *ev;
	void (*done)(void *, int, const struct bt_seen_balancer *, const struct bt_err *);
	void *arg;
};

static void seen_free(struct bt_op *op)
{
	event_free(((struct fake_seen *)op)->ev);
	free(op);
}

static void seen_fire(evutil_socket_t fd, short what, void *arg)
{
	struct fake_seen f = *(struct fake_seen *)arg;
	struct bt_seen_member m[2] = {{.address = "127.0.0.1", .port = 8081, .in = world.in[0]},
		{.address = "127.0.0.1", .port = 8082, .in = world.in[1]}};
	struct bt_seen_balancer b = {.name = "nginx/shop",
		.generation = world.generation,
		.running = true,
		.members = m,
		.n_members = 2};
	(void)fd;
	(void)what;
	seen_free(arg);
	f.done(f.arg, 0, &b, NULL);
}

static struct bt_op *fake_lb_observe(const char *name, const struct bt_service *service,
	void (*done)(void *, int, const struct bt_seen_balancer *, const struct bt_err *),
	void *arg)
{
	struct fake_seen *f = bt_calloc(1, sizeof *f);
	struct timeval now = {0, 0};
	(void)name;
	(void)service;
	f->op.cancel = seen_free;
	f->done = done;
	f->arg = arg;
	f->ev = evtimer_new(base, seen_fire, f);
	evtimer_add(f->ev, &now);
	return &f->op;
}

static const struct bt_balancer_ops fake_lb = {.name = "fake",
	.apply = fake_apply,
	.drain = fake_drain,
	.watch = fake_watch,
	.observe = fake_lb_observe};

static const struct bt_balancer_ops *find_lb(const struct bt_service *s)
{
	return s->nginx ? &fake_lb : NULL;
}

static struct bt_op *fake_health(const struct bt_driver_env *env, const struct bt_health_target *t,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	(void)env;
	assert_non_null(t->health);
	progress(progress_arg, "try 1: 503 " SENTINEL);
	return fake(done, arg, world.health_result, "not healthy within 5s: 503 " SENTINEL,
		world.hang_health, NULL, 0);
}

static struct bt_op *fake_health_watch(const struct bt_driver_env *env,
	const struct bt_health_target *t, int64_t ms, bt_progress_fn progress, void *progress_arg,
	bt_done_fn done, void *arg)
{
	(void)ms;
	return fake_health(env, t, progress, progress_arg, done, arg);
}

struct fake_who {
	struct bt_op op;
	struct event *ev;
	void (*done)(void *, int, const char *, const struct bt_err *);
	void *arg;
};

static void who_free(struct bt_op *op)
{
	event_free(((struct fake_who *)op)->ev);
	free(op);
}

static void who_fire(evutil_socket_t fd, short what, void *arg)
{
	struct fake_who f = *(struct fake_who *)arg;
	(void)fd;
	(void)what;
	who_free(arg);
	f.done(f.arg, 0, world.identity, NULL);
}

static struct bt_op *fake_identity(const struct bt_driver_env *env, const char *url,
	const char *host, void (*done)(void *, int, const char *, const struct bt_err *), void *arg)
{
	struct fake_who *f = bt_calloc(1, sizeof *f);
	struct timeval now = {0, 0};
	(void)env;
	(void)host;
	assert_non_null(strstr(url, "/profile"));
	f->op.cancel = who_free;
	f->done = done;
	f->arg = arg;
	f->ev = evtimer_new(base, who_fire, f);
	evtimer_add(f->ev, &now);
	return &f->op;
}

static bool have_release(uint32_t id)
{
	for (size_t i = 0; i < world.n_releases; i++)
		if (world.releases[i] == id)
			return true;
	return false;
}

static void effect_place(int n)
{
	world.places++;
	if (!have_release((uint32_t)n))
		world.releases[world.n_releases++] = (uint32_t)n;
}

static struct bt_op *fake_place(const struct bt_driver_env *env, const struct bt_fetch_request *rq,
	bt_progress_fn progress, void *progress_arg, bt_done_fn done, void *arg)
{
	(void)env;
	progress(progress_arg, "50%");
	return fake(done, arg, world.place_result, "digest is wrong", false, effect_place,
		(int)rq->release);
}

static json_t *service_json;

static int fake_release_find(const struct bt_driver_env *env, const char *service, uint32_t id,
	struct bt_arena *a, struct bt_release_on_disk *ret, struct bt_err *err)
{
	(void)env;
	if (!have_release(id))
		return bt_err_set(err, BT_E_NOTFOUND, "release %u of %s is not here", id, service);
	BT_JSON json_t *j = json_pack("{s:O,s:s}", "service", service_json, "version", "v");
	BT_FREE char *text = bt_json_dump(j);
	*ret = (struct bt_release_on_disk){.id = id,
		.version = "v",
		.dir = "/r",
		.artifact = "/r/shop.jar",
		.release_json = bt_arena_strdup(a, text)};
	return 0;
}

static size_t fake_release_list(
	const struct bt_driver_env *env, const char *service, struct bt_arena *a, uint32_t **ret)
{
	(void)env;
	(void)service;
	*ret = bt_arena_memdup(a, world.releases, sizeof world.releases);
	return world.n_releases;
}

static int fake_activate(
	const struct bt_driver_env *env, const char *service, uint32_t id, struct bt_err *err)
{
	(void)env;
	(void)service;
	(void)id;
	(void)err;
	return 0;
}

static struct bt_op *fake_prune(const struct bt_driver_env *env, const char *service,
	const uint32_t *keep, size_t n_keep, bt_done_fn done, void *arg)
{
	size_t n = 0;
	(void)env;
	(void)service;
	for (size_t i = 0; i < world.n_releases; i++) {
		bool kept = false;
		for (size_t k = 0; k < n_keep; k++)
			kept |= keep[k] == world.releases[i];
		if (kept)
			world.releases[n++] = world.releases[i];
	}
	world.n_releases = n;
	world.prunes++;
	return fake(done, arg, 0, "", false, NULL, 0);
}

static size_t vip_index(const char *vip)
{
	return strchr(vip, ':') != NULL;
}

static int fake_vips_see(const struct bt_loopback *l, struct bt_arena *a, struct bt_seen_vip **ret,
	struct bt_err *err)
{
	(void)err;
	assert_string_equal(l->interface, "lo");
	*ret = BT_ARENA_ARRAY(a, struct bt_seen_vip, l->n_vips);
	for (size_t i = 0; i < l->n_vips; i++)
		(*ret)[i] = (struct bt_seen_vip){
			.address = l->vips[i], .there = world.vips[vip_index(l->vips[i])]};
	return 0;
}

static int take_vip_result(void)
{
	int r = world.vip_result;
	world.vip_result = 0;
	return r;
}

/* A failure comes after the first one, and once. */
static int vips_set(const struct bt_loopback *l, bool there, struct bt_err *err)
{
	for (size_t i = 0; i < l->n_vips; i++) {
		world.vips[vip_index(l->vips[i])] = there;
		if (world.vip_result < 0)
			return bt_err_set(err, take_vip_result(), "it is on eth0");
	}
	return 0;
}

static int fake_vips_put(const struct bt_loopback *l, struct bt_err *err)
{
	world.puts++;
	return vips_set(l, true, err);
}

static int fake_vips_take(const struct bt_loopback *l, struct bt_err *err)
{
	world.takes++;
	return vips_set(l, false, err);
}

static struct bt_op *fake_notify(const struct bt_driver_env *env, const struct bt_notify_post *post,
	bt_done_fn done, void *arg)
{
	(void)env;
	world.posts++;
	snprintf(world.posted, sizeof world.posted, "%s", post->body);
	snprintf(world.posted_to, sizeof world.posted_to, "%s", post->url);
	snprintf(world.delivery, sizeof world.delivery, "%s", post->delivery);
	return fake(done, arg, world.post_result, "ops answered 500 for " SENTINEL, world.hang_post,
		NULL, 0);
}

static const struct bt_drivers fakes = {.runtime = find_rt,
	.balancer = find_lb,
	.health_wait = fake_health,
	.health_watch = fake_health_watch,
	.identity_ask = fake_identity,
	.artifact_place = fake_place,
	.release_find = fake_release_find,
	.release_list = fake_release_list,
	.release_activate = fake_activate,
	.release_prune = fake_prune,
	.loopback_see = fake_vips_see,
	.loopback_put = fake_vips_put,
	.loopback_take = fake_vips_take,
	.notify_send = fake_notify};

/* ---- the agent's half, as agent.c puts it together ------------------------------------------ */

static struct {
	char dir[64];
	struct bt_driver_env driver;
	struct bt_policy *policy;
	struct bt_redact *redact;
	struct bt_ledger_file *ledger;
	struct bt_known *known;
	struct bt_exec_env env;
	struct bt_exec *exec;
	/* what the link would have been told */
	uint64_t accepted;
	struct bt_command_key done[64];
	size_t n_done;
	enum bt_outcome refused_as;
	char refused[1024];
	int n_refused;
	char said[65536]; /* all that left the host as text */
	const char *policy_text;
	size_t stop_after_lines; /* 0: never */
} host;

static void on_accepted(void *arg, uint64_t seq)
{
	(void)arg;
	host.accepted = seq;
}

static void say(const char *text)
{
	size_t n = strlen(host.said);
	snprintf(host.said + n, sizeof host.said - n, "%s\n", text ? text : "");
}

static void on_result(void *arg, const struct bt_command_key *key)
{
	(void)arg;
	host.done[host.n_done++] = *key;
	const struct bt_result *r = bt_ledger_result(bt_ledger_file_ledger(host.ledger), key);
	assert_non_null(r);
	say(r->detail);
	BT_JSON json_t *extras = bt_exec_extras(host.exec, key);
	say(json_string_value(json_object_get(extras, "log")));
	event_base_loopbreak(base);
}

static void on_refused(void *arg, const struct bt_result *r)
{
	(void)arg;
	host.refused_as = r->outcome;
	host.n_refused++;
	snprintf(host.refused, sizeof host.refused, "%s", r->detail);
	say(r->detail);
}

static void on_progress(void *arg, const struct bt_command_key *key, const char *line)
{
	(void)arg;
	(void)key;
	say(line);
}

static void on_changed(void *arg)
{
	(void)arg;
}

static void power_on(void)
{
	char path[96];
	struct bt_err err = {0};
	size_t cut;
	snprintf(path, sizeof path, "%s/ledger", host.dir);
	host.driver = (struct bt_driver_env){.base = base, .state_dir = host.dir, .host = "was1"};
	struct bt_policy_spec ps = {.path = "policy", .own_machine = true, .state_dir = host.dir};
	const char *text = host.policy_text ? host.policy_text : "";
	assert_int_equal(bt_policy_parse(text, strlen(text), &ps, &host.policy, &err), 0);
	host.redact = bt_redact_new();
	struct bt_ledger_file_spec ls = {.path = path};
	if (bt_ledger_file_open(base, &ls, &host.ledger, &cut, &err) < 0)
		fail_msg("%s", err.text);
	if (bt_known_load(host.dir, host.ledger, host.redact, NULL, &host.known, &err) < 0)
		fail_msg("%s", err.text);
	host.env = (struct bt_exec_env){.driver = &host.driver,
		.drivers = &fakes,
		.policy = host.policy,
		.ledger = host.ledger,
		.known = host.known,
		.redact = host.redact,
		.agent_version = "0.1",
		.address = "127.0.0.1",
		.artifact_url = "https://s/v1/agent/artifacts",
		.on_accepted = on_accepted,
		.on_result = on_result,
		.on_refused = on_refused,
		.on_progress = on_progress,
		.on_changed = on_changed};
	host.exec = bt_exec_new(&host.env);
}

static void power_off(void)
{
	host.exec = bt_exec_free(host.exec);
	host.ledger = bt_ledger_file_free(host.ledger);
	host.known = bt_known_free(host.known);
	host.policy = bt_policy_free(host.policy);
	host.redact = bt_redact_free(host.redact);
}

static int setup(void **state)
{
	(void)state;
	struct bt_config *c = NULL;
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	base = event_base_new();
	memset(&world, 0, sizeof world);
	memset(&host, 0, sizeof host);
	world.identity = "green";
	snprintf(host.dir, sizeof host.dir, "/tmp/bt-exec-XXXXXX");
	assert_non_null(mkdtemp(host.dir));
	if (bt_config_parse(yaml, strlen(yaml), "baton.yaml", NULL, NULL, &c, &problems, &err) < 0)
		fail_msg("%s", err.text);
	service_json = bt_config_service_to_json(&c->services[0]);
	bt_config_problems_done(&problems);
	bt_config_free(c);
	power_on();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	power_off();
	json_decref(service_json);
	event_base_free(base);
	bt_fs_remove_tree(host.dir, NULL);
	return 0;
}

/* ---- commands -------------------------------------------------------------------------------- */

static uint64_t seq;

static json_t *command(const char *task, enum bt_verb verb, uint32_t id, json_t *params)
{
	struct bt_command_key key = {1, id, verb, 1};
	return json_pack("{s:I,s:i,s:o,s:i,s:s,s:s,s:o,s:i,s:i}", "seq", (json_int_t)++seq, "wire",
		1, "key", bt_key_to_json(&key), "token", 5, "service", "shop", "task", task,
		"params", params, "timeout_ms", 10000, "wait_ms", 0);
}

static void offer(json_t *c)
{
	struct bt_err err = {0};
	host.accepted = 0;
	if (bt_exec_command(host.exec, c, &err) < 0)
		fail_msg("%s", err.text);
	json_decref(c);
	while (!host.accepted)
		event_base_loop(base, EVLOOP_ONCE);
}

static void wait_results(size_t n)
{
	struct timeval limit = {20, 0};
	event_base_loopexit(base, &limit);
	while (host.n_done < n && !event_base_got_exit(base))
		event_base_dispatch(base);
	assert_int_equal(host.n_done, n);
}

static const struct bt_result *run(json_t *c)
{
	size_t n = host.n_done;
	offer(c);
	wait_results(n + 1);
	return bt_ledger_result(bt_ledger_file_ledger(host.ledger), &host.done[n]);
}

static json_t *slot_params(const char *slot, uint32_t release)
{
	return json_pack("{s:s,s:i,s:i,s:O}", "slot", slot, "port",
		strcmp(slot, "green") ? 8081 : 8082, "release", (int)release, "service",
		service_json);
}

static json_t *start_params(const char *slot, uint32_t release)
{
	json_t *p = slot_params(slot, release);
	json_object_del(p, "service");
	json_object_set_new(p, "secrets", json_pack("{s:s}", "DB_PASSWORD", SENTINEL));
	return p;
}

static json_t *deploy_params(uint32_t release)
{
	return json_pack("{s:i,s:s,s:s,s:i,s:s,s:b,s:{s:O}}", "release", (int)release, "version",
		"v2", "digest", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		"size", 10, "file_name", "shop.jar", "unpack", 0, "release_json", "service",
		service_json);
}

static json_t *switch_params(int generation, bool blue, bool green)
{
	return json_pack("{s:s,s:i,s:O,s:[{s:s,s:s,s:s,s:i,s:b},{s:s,s:s,s:s,s:i,s:b}]}",
		"balancer", "nginx/shop", "generation", generation, "service", service_json,
		"members", "host", "was1", "slot", "blue", "address", "127.0.0.1", "port", 8081,
		"in", (int)blue, "host", "was1", "slot", "green", "address", "127.0.0.1", "port",
		8082, "in", (int)green);
}

static json_t *drain_params(void)
{
	return json_pack("{s:s,s:O,s:[{s:s,s:s,s:s,s:i}]}", "balancer", "nginx/shop", "service",
		service_json, "members", "host", "was1", "slot", "blue", "address", "127.0.0.1",
		"port", 8081);
}

static void check_done(const struct bt_result *r)
{
	if (r->outcome != BT_OUTCOME_DONE)
		fail_msg("%s: %s", bt_outcome_name(r->outcome), r->detail);
}

static void has_release(uint32_t id)
{
	world.releases[world.n_releases++] = id;
}

/* ---- one deployment's tasks, do and undo ------------------------------------------------------
 */

static void test_deploy_and_undo(void **state)
{
	(void)state;
	const struct bt_result *r = run(command("ComponentDeploy", BT_DO, 1, deploy_params(2)));
	check_done(r);
	assert_false(r->prior.present);
	assert_true(have_release(2));
	check_done(run(command("ComponentDeploy", BT_UNDO, 1, deploy_params(2))));
	assert_false(have_release(2));
	/* what was there before stays */
	has_release(3);
	r = run(command("ComponentDeploy", BT_DO, 2, deploy_params(3)));
	assert_true(r->prior.present);
	check_done(run(command("ComponentDeploy", BT_UNDO, 2, deploy_params(3))));
	assert_true(have_release(3));
}

static void test_start_and_undo(void **state)
{
	(void)state;
	has_release(2);
	const struct bt_result *r =
		run(command("InstanceStart", BT_DO, 1, start_params("green", 2)));
	check_done(r);
	assert_string_equal(r->detail, "started, pid 101");
	assert_true(r->prior.known && !r->prior.running);
	assert_int_equal(world.running[1], 2);
	assert_string_equal(world.saw_secret, SENTINEL);
	assert_true(bt_known_slot(host.known, "shop", "green")->run);
	check_done(run(command("InstanceStart", BT_UNDO, 1, start_params("green", 2))));
	assert_int_equal(world.running[1], 0);
	assert_false(bt_known_slot(host.known, "shop", "green")->run);
}

static void test_stop_and_undo(void **state)
{
	(void)state;
	has_release(2);
	check_done(run(command("InstanceStart", BT_DO, 1, start_params("blue", 2))));
	const struct bt_result *r = run(command("InstanceStop", BT_DO, 2, slot_params("blue", 2)));
	check_done(r);
	assert_true(r->prior.running);
	assert_int_equal(r->prior.release, 2);
	assert_int_equal(world.running[0], 0);
	world.saw_secret[0] = '\0';
	check_done(run(command("InstanceStop", BT_UNDO, 2, slot_params("blue", 2))));
	assert_int_equal(world.running[0], 2);
	assert_string_equal(world.saw_secret, SENTINEL); /* kept on this host for that */
	/* an undo whose old release does not become healthy has failed */
	check_done(run(command("InstanceStop", BT_DO, 3, slot_params("blue", 2))));
	world.health_result = BT_E_TIMEOUT;
	assert_int_equal(run(command("InstanceStop", BT_UNDO, 3, slot_params("blue", 2)))->outcome,
		BT_OUTCOME_FAILED);
}

static void test_switch(void **state)
{
	(void)state;
	world.generation = 4;
	world.in[0] = true;
	const struct bt_result *r = run(command("Switch", BT_DO, 1, switch_params(5, false, true)));
	check_done(r);
	assert_int_equal(r->prior.generation, 4);
	assert_true(!world.in[0] && world.in[1]);
	check_done(run(command("Switch", BT_UNDO, 1, switch_params(6, true, false))));
	assert_true(world.in[0] && !world.in[1]);
	check_done(
		run(command("Switch", BT_UNDO, 3, switch_params(7, true, true)))); /* not begun */
	assert_true(world.in[0] && world.in[1]);
	check_done(run(command("Switch", BT_DO, 4, switch_params(8, true, false))));
	r = run(command("Switch", BT_DO, 2, switch_params(3, false, true)));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	assert_true(world.in[0]);
}

static void test_drain(void **state)
{
	(void)state;
	const struct bt_result *r = run(command("Drain", BT_DO, 1, drain_params()));
	check_done(r);
	assert_true(r->drained);
	world.drain_result = 1;
	r = run(command("Drain", BT_DO, 2, drain_params()));
	check_done(r);
	assert_false(r->drained);
	assert_string_equal(r->detail, "2 connections left");
	/* Whether that fails is the plan's to say: a way back goes on. */
	json_object_set_new(
		json_object_get(service_json, "deploy"), "on_drain_timeout", json_string("fail"));
	r = run(command("Drain", BT_DO, 3, drain_params()));
	check_done(r);
	assert_false(r->drained);
}

static void test_health(void **state)
{
	(void)state;
	world.running[1] = 2;
	json_t *p = slot_params("green", 2);
	json_object_set_new(p, "identity", json_true());
	const struct bt_result *r = run(command("HealthCheck", BT_DO, 1, p));
	check_done(r);
	world.identity = "blue";
	p = slot_params("green", 2);
	json_object_set_new(p, "identity", json_true());
	r = run(command("HealthCheck", BT_DO, 2, p));
	assert_int_equal(r->outcome, BT_OUTCOME_FAILED);
	assert_non_null(strstr(r->detail, "says it is 'blue', expected 'green'"));
	r = run(command("HealthCheck", BT_DO, 3, slot_params("green", 9)));
	assert_int_equal(r->outcome, BT_OUTCOME_FAILED);
	assert_non_null(strstr(r->detail, "runs release 2, expected 9"));
}

/* The app dies while its health is awaited: nobody waits for the deadline. */
static void test_death_is_seen(void **state)
{
	(void)state;
	world.hang_health = true;
	world.running[1] = 2;
	offer(command("HealthCheck", BT_DO, 1, slot_params("green", 2)));
	for (int i = 0; i < 3; i++)
		event_base_loop(base, EVLOOP_ONCE);
	world.running[1] = 0;
	wait_results(1);
	const struct bt_result *r =
		bt_ledger_result(bt_ledger_file_ledger(host.ledger), &host.done[0]);
	assert_int_equal(r->outcome, BT_OUTCOME_FAILED);
	assert_non_null(strstr(r->detail, "does not run any more"));
}

static void test_backend_check_and_bake(void **state)
{
	(void)state;
	json_t *p = json_pack("{s:O,s:[{s:s,s:i},{s:s,s:i}]}", "service", service_json, "targets",
		"address", "127.0.0.1", "port", 8081, "address", "127.0.0.1", "port", 8082);
	check_done(run(command("BackendCheck", BT_DO, 1, p)));
	world.health_result = BT_E_TIMEOUT;
	p = json_pack("{s:O,s:[{s:s,s:i},{s:s,s:i}]}", "service", service_json, "targets",
		"address", "127.0.0.1", "port", 8081, "address", "127.0.0.1", "port", 8082);
	assert_int_equal(run(command("BackendCheck", BT_DO, 2, p))->outcome, BT_OUTCOME_FAILED);
	p = json_pack("{s:O,s:[]}", "service", service_json, "targets");
	check_done(run(command("BackendCheck", BT_DO, 3, p)));
	world.running[0] = 2;
	assert_int_equal(
		run(command("Bake", BT_DO, 4, slot_params("blue", 2)))->outcome, BT_OUTCOME_FAILED);
	world.health_result = 0;
	check_done(run(command("Bake", BT_DO, 5, slot_params("blue", 2))));
	p = json_pack("{s:s,s:O}", "balancer", "nginx/shop", "service", service_json);
	check_done(run(command("Bake", BT_DO, 6, p)));
	world.watch_result = BT_E_FAILED;
	p = json_pack("{s:s,s:O}", "balancer", "nginx/shop", "service", service_json);
	const struct bt_result *r = run(command("Bake", BT_DO, 7, p));
	assert_int_equal(r->outcome, BT_OUTCOME_FAILED);
	assert_non_null(strstr(r->detail, "5xx"));
}

static void test_prune_spares_what_runs(void **state)
{
	(void)state;
	for (uint32_t id = 1; id <= 5; id++)
		has_release(id);
	check_done(run(command("InstanceStart", BT_DO, 1, start_params("blue", 2))));
	json_t *p = json_pack("{s:s,s:[i],s:i}", "service_name", "shop", "keep", 4, "current", 5);
	check_done(run(command("Prune", BT_DO, 2, p)));
	assert_int_equal(world.n_releases, 3);
	assert_true(have_release(2) && have_release(4) && have_release(5));
}

static void test_observe(void **state)
{
	(void)state;
	has_release(2);
	world.running[1] = 2;
	world.generation = 8;
	json_t *p = json_pack("{s:O,s:[s]}", "service", service_json, "balancers", "nginx/shop");
	check_done(run(command("Observe", BT_DO, 1, p)));
	BT_JSON json_t *extras = bt_exec_extras(host.exec, &host.done[0]);
	struct bt_seen_host seen;
	struct bt_err err = {0};
	BT_ARENA struct bt_arena *a = bt_arena_new();
	if (bt_seen_host_from_json(json_object_get(extras, "observation"), a, &seen, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(seen.n_instances, 2);
	assert_int_equal(seen.instances[1].release, 2);
	assert_string_equal(seen.instances[1].identity, "green");
	assert_null(seen.instances[0].identity);
	assert_int_equal(seen.n_balancers, 1);
	assert_int_equal(seen.balancers[0].generation, 8);
	assert_int_equal(seen.n_releases, 1);
	/* kept over a restart while the result is not acknowledged; crash litter is not */
	char litter[128];
	snprintf(litter, sizeof litter, "%s/results/1-9-do-1.json.tmp.1.1", host.dir);
	assert_int_equal(bt_fs_write_atomic(litter, "x", 1, 0600, NULL), 0);
	power_off();
	power_on();
	BT_JSON json_t *kept = bt_exec_extras(host.exec, &host.done[0]);
	assert_non_null(kept);
	assert_false(bt_fs_exists(litter));
	bt_exec_forget_extras(host.exec, &host.done[0]);
	assert_null(bt_exec_extras(host.exec, &host.done[0]));
}

/* ---- the rules --------------------------------------------------------------------------------
 */

static void test_repeat_changes_nothing(void **state)
{
	(void)state;
	has_release(2);
	json_t *c = command("InstanceStart", BT_DO, 1, start_params("green", 2));
	check_done(run(json_incref(c)));
	assert_int_equal(world.starts, 1);
	world.running[1] = 0; /* whatever happened since: a repeat does not do it again */
	check_done(run(json_incref(c)));
	assert_int_equal(world.starts, 1);
	power_off();
	power_on();
	assert_int_equal(bt_exec_recover(host.exec), 0);
	check_done(run(c));
	assert_int_equal(world.starts, 1);
}

static void test_stale_token(void **state)
{
	(void)state;
	has_release(2);
	check_done(run(command("InstanceStart", BT_DO, 1, start_params("green", 2))));
	power_off();
	power_on();
	json_t *c = command("InstanceStop", BT_DO, 2, slot_params("green", 2));
	json_object_set_new(c, "token", json_integer(4));
	offer(c);
	assert_int_equal(host.n_refused, 1);
	assert_int_equal(host.refused_as, BT_OUTCOME_REFUSED);
	assert_non_null(strstr(host.refused, "stale"));
	assert_int_equal(world.running[1], 2);
}

static void test_strange_commands(void **state)
{
	(void)state;
	offer(command("Fly", BT_DO, 1, json_object()));
	assert_non_null(strstr(host.refused, "older than the server"));
	json_t *c = command("InstanceStop", BT_DO, 2, slot_params("green", 2));
	json_object_set_new(c, "wire", json_integer(2));
	offer(c);
	assert_non_null(strstr(host.refused, "speaks wire 1, the command is of wire 2"));
	assert_int_equal(host.n_refused, 2);
	const struct bt_result *r = run(command("InstanceStop", BT_DO, 3, json_object()));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	struct bt_err err = {0};
	BT_JSON json_t *none = json_pack("{s:i}", "seq", 9);
	assert_int_equal(bt_exec_command(host.exec, none, &err), BT_E_PROTOCOL);
	json_t *evil = slot_params("green", 2);
	json_object_set_new(evil, "slot", json_string("../../etc"));
	r = run(command("InstanceStop", BT_DO, 4, evil));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
}

static void test_policy_comes_first(void **state)
{
	(void)state;
	power_off();
	host.policy_text = "tasks: [InstanceStop]\nports: 8081-8081\n";
	power_on();
	has_release(2);
	const struct bt_result *r =
		run(command("InstanceStart", BT_DO, 1, start_params("green", 2)));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	assert_non_null(strstr(r->detail, "rule 'tasks'"));
	world.running[1] = 2;
	r = run(command("InstanceStop", BT_DO, 2, slot_params("green", 2)));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	assert_non_null(strstr(r->detail, "rule 'ports'"));
	assert_int_equal(world.starts + world.stops, 0);
	assert_int_equal(world.running[1], 2);
}

static void test_time_limit(void **state)
{
	(void)state;
	has_release(2);
	world.hang_start = true;
	json_t *c = command("InstanceStart", BT_DO, 1, start_params("green", 2));
	json_object_set_new(c, "timeout_ms", json_integer(50));
	const struct bt_result *r = run(c);
	assert_int_equal(r->outcome, BT_OUTCOME_UNKNOWN); /* half of it may be there */
	assert_non_null(strstr(r->detail, "not done within 50ms"));
	world.hang_health = true;
	world.running[1] = 2;
	c = command("HealthCheck", BT_DO, 3, slot_params("green", 2));
	json_object_set_new(c, "timeout_ms", json_integer(50));
	assert_int_equal(run(c)->outcome, BT_OUTCOME_FAILED); /* a check leaves nothing behind */
	/* the effect came about, only its confirmation did not */
	world.running[0] = 2;
	c = command("InstanceStart", BT_DO, 2, start_params("blue", 2));
	json_object_set_new(c, "timeout_ms", json_integer(50));
	check_done(run(c));
}

static void test_later_attempt_ends_a_waiting_check(void **state)
{
	(void)state;
	world.hang_health = true;
	world.running[1] = 2;
	offer(command("HealthCheck", BT_DO, 1, slot_params("green", 2)));
	json_t *c = command("HealthCheck", BT_DO, 1, slot_params("green", 2));
	struct bt_command_key second = {1, 1, BT_DO, 2};
	json_object_set_new(c, "key", bt_key_to_json(&second));
	while (!strstr(host.said, "try 1")) /* the first one waits for health now */
		event_base_loop(base, EVLOOP_ONCE);
	world.hang_health = false;
	offer(c);
	wait_results(2);
	const struct bt_ledger *l = bt_ledger_file_ledger(host.ledger);
	assert_int_equal(bt_ledger_result(l, &host.done[0])->outcome, BT_OUTCOME_FAILED);
	assert_non_null(strstr(bt_ledger_result(l, &host.done[0])->detail, "given up"));
	check_done(bt_ledger_result(l, &second));
}

/* The lease moved on: what the last deployment left running makes way for the next one's task. */
static void test_next_deployment_ends_what_was_left(void **state)
{
	(void)state;
	has_release(2);
	world.hang_health = true;
	world.running[1] = 2;
	offer(command("HealthCheck", BT_DO, 1, slot_params("green", 2)));
	while (!strstr(host.said, "try 1"))
		event_base_loop(base, EVLOOP_ONCE);
	json_t *c = command("InstanceStart", BT_DO, 1, start_params("blue", 2));
	struct bt_command_key next = {2, 1, BT_DO, 1};
	json_object_set_new(c, "key", bt_key_to_json(&next));
	json_object_set_new(c, "token", json_integer(6));
	offer(c);
	wait_results(2);
	const struct bt_ledger *l = bt_ledger_file_ledger(host.ledger);
	assert_int_equal(host.done[0].deployment, 1);
	assert_int_equal(bt_ledger_result(l, &host.done[0])->outcome, BT_OUTCOME_FAILED);
	check_done(bt_ledger_result(l, &next));
}

/* An undo that overtakes a second attempt in the queue: that one must not begin any more. */
static void test_undo_passes_a_queued_attempt(void **state)
{
	(void)state;
	has_release(2);
	world.hang_start = true;
	json_t *c = command("InstanceStart", BT_DO, 1, start_params("green", 2));
	json_object_set_new(c, "timeout_ms", json_integer(300));
	offer(c);
	c = command("InstanceStart", BT_DO, 1, start_params("green", 2));
	struct bt_command_key second = {1, 1, BT_DO, 2};
	json_object_set_new(c, "key", bt_key_to_json(&second));
	offer(c);
	offer(command("InstanceStart", BT_UNDO, 1, start_params("green", 2)));
	world.hang_start = false;
	wait_results(3);
	assert_int_equal(world.starts, 0);
	const struct bt_ledger *l = bt_ledger_file_ledger(host.ledger);
	assert_non_null(strstr(bt_ledger_result(l, &second)->detail, "given up"));
}

static void test_undo_of_what_never_began(void **state)
{
	(void)state;
	world.running[1] = 7;
	has_release(7);
	const struct bt_result *r =
		run(command("InstanceStart", BT_UNDO, 1, start_params("green", 7)));
	check_done(r);
	assert_non_null(strstr(r->detail, "never begun"));
	assert_int_equal(world.running[1], 7);
	/* the release is not even here: its start failed, and there is nothing in the way of undo
	 */
	r = run(command("InstanceStart", BT_DO, 2, start_params("blue", 9)));
	assert_int_equal(r->outcome, BT_OUTCOME_FAILED);
	check_done(run(command("InstanceStart", BT_UNDO, 2, start_params("blue", 9))));
}

/* Nothing that leaves the host as text holds a secret: details, logs, progress, refusals. */
static void test_secrets_stay(void **state)
{
	(void)state;
	has_release(2);
	world.start_result = BT_E_FAILED;
	assert_int_equal(run(command("InstanceStart", BT_DO, 1, start_params("green", 2)))->outcome,
		BT_OUTCOME_FAILED);
	assert_non_null(strstr(host.said, "cannot open ***"));
	world.start_result = 0;
	world.health_result = BT_E_TIMEOUT;
	world.running[1] = 2;
	run(command("HealthCheck", BT_DO, 2, slot_params("green", 2)));
	offer(command("Fly " SENTINEL, BT_DO, 3, json_object()));
	assert_null(strstr(host.said, SENTINEL));
	/* after a restart, too: the ledger and the desired state are where it is still known */
	power_off();
	power_on();
	run(command("HealthCheck", BT_DO, 4, slot_params("green", 2)));
	assert_null(strstr(host.said, SENTINEL));
	char path[128];
	struct stat st;
	snprintf(path, sizeof path, "%s/ledger", host.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 077, 0);
	snprintf(path, sizeof path, "%s/desired/shop.json", host.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 077, 0);
}

/* ---- loopback, notify --------------------------------------------------------------------------
 */

static json_t *service_params(void)
{
	return json_pack("{s:O}", "service", service_json);
}

static bool vips_are(bool there)
{
	return world.vips[0] == there && world.vips[1] == there;
}

static bool wanted(bool on)
{
	const struct bt_known_service *s = bt_known_find(host.known, "shop");
	return s && s->loopback.told && s->loopback.on == on;
}

static void test_loopback(void **state)
{
	(void)state;
	const struct bt_result *r = run(command("LoopbackStart", BT_DO, 1, service_params()));
	check_done(r);
	assert_string_equal(r->detail, "192.0.2.10, 2001:db8::10 on lo");
	assert_true(r->prior.known && !r->prior.present && vips_are(true) && wanted(true));
	r = run(command("LoopbackStop", BT_DO, 2, service_params()));
	check_done(r);
	assert_true(r->prior.present && vips_are(false) && wanted(false));
	check_done(run(command("LoopbackStop", BT_UNDO, 2, service_params())));
	assert_true(vips_are(true) && wanted(true));
	check_done(run(command("LoopbackStart", BT_UNDO, 1, service_params())));
	assert_true(vips_are(false) && wanted(false));
	/* What was there before a start stays, and what was not before a stop. */
	world.vips[0] = world.vips[1] = true;
	r = run(command("LoopbackStart", BT_DO, 3, service_params()));
	assert_true(r->prior.present);
	check_done(run(command("LoopbackStart", BT_UNDO, 3, service_params())));
	assert_true(vips_are(true));
	world.vips[0] = world.vips[1] = false;
	check_done(run(command("LoopbackStop", BT_DO, 4, service_params())));
	check_done(run(command("LoopbackStop", BT_UNDO, 4, service_params())));
	assert_true(vips_are(false) && wanted(false));
	/* It is known after a crash. */
	check_done(run(command("LoopbackStart", BT_DO, 5, service_params())));
	power_off();
	power_on();
	assert_true(wanted(true));
}

static void test_loopback_failures(void **state)
{
	(void)state;
	/* Half of it went: what was there before is there again, and is still wanted. */
	check_done(run(command("LoopbackStart", BT_DO, 1, service_params())));
	world.vip_result = BT_E_REFUSED;
	const struct bt_result *r = run(command("LoopbackStop", BT_DO, 2, service_params()));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	assert_non_null(strstr(r->detail, "eth0"));
	assert_true(vips_are(true) && wanted(true));
	check_done(run(command("LoopbackStop", BT_DO, 3, service_params())));
	world.vip_result = -1;
	r = run(command("LoopbackStart", BT_DO, 4, service_params()));
	assert_int_equal(r->outcome, BT_OUTCOME_FAILED);
	assert_true(vips_are(false) && wanted(false));
	/* A service without addresses, and a host whose owner says no. */
	json_t *plain = json_deep_copy(service_json);
	json_object_del(json_object_get(plain, "traffic"), "loopback");
	r = run(command("LoopbackStart", BT_DO, 5, json_pack("{s:o}", "service", plain)));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	power_off();
	host.policy_text = "network: false\n";
	power_on();
	r = run(command("LoopbackStart", BT_DO, 6, service_params()));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	assert_non_null(strstr(r->detail, "rule 'network'"));
	assert_true(vips_are(false));
}

static void test_loopback_is_shared(void **state)
{
	(void)state;
	/* api asks at the same IPv4 address. */
	BT_JSON json_t *api = json_deep_copy(service_json);
	json_object_set_new(api, "service", json_string("api"));
	json_object_set_new(json_object_get(json_object_get(api, "traffic"), "loopback"), "vips",
		json_string("192.0.2.10"));
	json_t *c = command("LoopbackStart", BT_DO, 1, json_pack("{s:O}", "service", api));
	json_object_set_new(c, "service", json_string("api"));
	check_done(run(c));
	check_done(run(command("LoopbackStart", BT_DO, 2, service_params())));
	const struct bt_result *r = run(command("LoopbackStop", BT_DO, 3, service_params()));
	check_done(r);
	assert_true(world.vips[0] && !world.vips[1]);
	assert_true(wanted(false));
	assert_non_null(strstr(host.said, "192.0.2.10 stays: api has it, too"));
	c = command("LoopbackStop", BT_DO, 4, json_pack("{s:O}", "service", api));
	json_object_set_new(c, "service", json_string("api"));
	check_done(run(c));
	assert_true(vips_are(false));
}

/* A config that names another address than the last: the old one goes with the next task. */
static void test_loopback_moves(void **state)
{
	(void)state;
	check_done(run(command("LoopbackStart", BT_DO, 1, service_params())));
	json_t *moved = json_deep_copy(service_json);
	json_object_set_new(json_object_get(json_object_get(moved, "traffic"), "loopback"), "vips",
		json_string("2001:db8::10"));
	check_done(run(command("LoopbackStart", BT_DO, 2, json_pack("{s:o}", "service", moved))));
	assert_true(!world.vips[0] && world.vips[1]);
}

static json_t *notify_params(const char *to, const char *message)
{
	return json_pack("{s:O,s:s,s:s,s:s,s:s,s:{s:s}}", "service", service_json, "to", to,
		"message", message, "version", "v2", "flow", "turnOffL4", "secrets", "DB_PASSWORD",
		SENTINEL);
}

static void test_notify(void **state)
{
	(void)state;
	check_done(run(command("Notify", BT_DO, 1, notify_params("ops", "shop is out"))));
	assert_string_equal(world.posted_to, "https://hooks.example.com/" SENTINEL);
	assert_string_equal(world.delivery, "1-1-1");
	BT_JSON json_t *said = json_loads(world.posted, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(said, "message")), "shop is out");
	assert_string_equal(json_string_value(json_object_get(said, "service")), "shop");
	assert_string_equal(json_string_value(json_object_get(said, "version")), "v2");
	assert_string_equal(json_string_value(json_object_get(said, "flow")), "turnOffL4");
	assert_string_equal(json_string_value(json_object_get(said, "host")), "was1");
	assert_int_equal(json_integer_value(json_object_get(said, "deployment")), 1);
	assert_true(json_is_string(json_object_get(said, "at")));
	check_done(run(command("Notify", BT_DO, 2, notify_params("chat", "a < b & <!here>"))));
	assert_string_equal(
		world.posted, "{\"text\":\"shop v2, deployment 1: a &lt; b &amp; &lt;!here&gt;\"}");
	world.post_result = BT_E_FAILED;
	const struct bt_result *r =
		run(command("Notify", BT_DO, 3, notify_params("ops", "shop is out")));
	assert_int_equal(r->outcome, BT_OUTCOME_FAILED);
	world.post_result = 1;
	r = run(command("Notify", BT_DO, 4, notify_params("ops", "shop is out")));
	assert_int_equal(r->outcome, BT_OUTCOME_UNKNOWN);
	int posts = world.posts;
	r = run(command("Notify", BT_DO, 5, notify_params("nobody", "shop is out")));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	json_t *p = notify_params("ops", "shop is out");
	json_object_del(p, "secrets");
	r = run(command("Notify", BT_DO, 6, p));
	assert_int_equal(r->outcome, BT_OUTCOME_REFUSED);
	assert_non_null(strstr(r->detail, "DB_PASSWORD"));
	assert_int_equal(world.posts, posts);
	assert_null(strstr(host.said, SENTINEL));
}

/* Whether a message left before a crash nobody can tell, so it is not sent again. */
static void test_notify_is_never_repeated(void **state)
{
	(void)state;
	world.hang_post = true;
	offer(command("Notify", BT_DO, 1, notify_params("ops", "shop is out")));
	while (!world.posts)
		event_base_loop(base, EVLOOP_ONCE);
	power_off();
	world.hang_post = false;
	power_on();
	assert_int_equal(bt_exec_recover(host.exec), 1);
	wait_results(1);
	assert_int_equal(
		bt_ledger_result(bt_ledger_file_ledger(host.ledger), &host.done[0])->outcome,
		BT_OUTCOME_UNKNOWN);
	assert_int_equal(world.posts, 1);
}

/* ---- a crash after every line of the ledger ----------------------------------------------------
 */

struct scenario {
	const char *name, *task;
	enum bt_verb verb;
	json_t *(*params)(void);
	void (*before)(void);
	bool (*reached)(void);
};

static json_t *p_start(void)
{
	return start_params("green", 2);
}
static json_t *p_stop(void)
{
	return slot_params("blue", 1);
}
static json_t *p_deploy(void)
{
	return deploy_params(2);
}
static json_t *p_switch(void)
{
	return switch_params(5, false, true);
}
static json_t *p_health(void)
{
	return slot_params("blue", 1);
}
static void b_world(void)
{
	has_release(1);
	world.running[0] = 1;
	world.generation = 4;
	world.in[0] = true;
}
static void b_start(void)
{
	b_world();
	has_release(2);
}
static bool r_start(void)
{
	return world.running[1] == 2 && world.starts == 1;
}
static bool r_stop(void)
{
	return world.running[0] == 0 && world.stops == 1;
}
static bool r_deploy(void)
{
	return have_release(2) && world.places == 1;
}
static bool r_switch(void)
{
	return world.in[1] && !world.in[0] && world.generation == 5 && world.applies == 1;
}
static bool r_health(void)
{
	return world.running[0] == 1 && world.starts == 0;
}

static void b_vips(void)
{
	world.vips[0] = world.vips[1] = true;
}
static void b_no_vips(void)
{
}
static bool r_off(void)
{
	return vips_are(false) && world.takes == 1 && wanted(false);
}
static bool r_on(void)
{
	return vips_are(true) && world.puts == 1 && wanted(true);
}

static const struct scenario scenarios[] = {
	{"loopback off", "LoopbackStop", BT_DO, service_params, b_vips, r_off},
	{"loopback on", "LoopbackStart", BT_DO, service_params, b_no_vips, r_on},
	{"start", "InstanceStart", BT_DO, p_start, b_start, r_start},
	{"stop", "InstanceStop", BT_DO, p_stop, b_world, r_stop},
	{"deploy", "ComponentDeploy", BT_DO, p_deploy, b_world, r_deploy},
	{"switch", "Switch", BT_DO, p_switch, b_world, r_switch},
	{"health", "HealthCheck", BT_DO, p_health, b_world, r_health},
};

/* The ledger as a crash leaves it: `lines` lines of what the whole run wrote. */
static void cut_ledger(size_t lines)
{
	char path[96];
	BT_FREE char *data = NULL;
	size_t len = 0, at = 0;
	snprintf(path, sizeof path, "%s/ledger", host.dir);
	assert_int_equal(bt_fs_read(path, 1 << 20, &data, &len, NULL), 0);
	for (; lines; lines--)
		at = (size_t)(strchr(data + at, '\n') - data) + 1;
	assert_int_equal(truncate(path, (off_t)at), 0);
}

static void crash_after(const struct scenario *s, size_t lines, bool effect_happened)
{
	void *state = NULL;
	setup(&state);
	s->before();
	typeof(world) before = world;
	json_t *c = command(s->task, s->verb, 1, s->params());
	check_done(run(json_incref(c)));
	power_off();
	cut_ledger(lines);
	if (!effect_happened)
		world = before;
	host.n_done = 0;
	power_on();
	size_t open = bt_exec_recover(host.exec);
	if (lines == 0) {
		assert_int_equal(open, 0);
		check_done(run(json_incref(c))); /* the server sends it again: its cursor is old */
	} else if (lines < 3) {
		assert_int_equal(open, 1);
		wait_results(1);
	} else {
		assert_int_equal(open, 0);
		check_done(run(json_incref(c)));
	}
	struct bt_command_key key = {1, 1, s->verb, 1};
	check_done(bt_ledger_result(bt_ledger_file_ledger(host.ledger), &key));
	if (!s->reached())
		fail_msg("%s: crash after line %zu, effect %d: the world is wrong", s->name, lines,
			effect_happened);
	json_decref(c);
	teardown(&state);
}

static void test_crash_after_each_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < BT_ARRAY_LEN(scenarios); i++) {
		crash_after(&scenarios[i], 0, false);
		crash_after(&scenarios[i], 1, false); /* accepted */
		crash_after(&scenarios[i], 2, false); /* begun, nothing happened yet */
		crash_after(&scenarios[i], 2, true);  /* begun, and the effect happened */
		crash_after(&scenarios[i], 3, true);  /* done */
	}
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_deploy_and_undo),
		T(test_start_and_undo),
		T(test_stop_and_undo),
		T(test_switch),
		T(test_drain),
		T(test_health),
		T(test_death_is_seen),
		T(test_backend_check_and_bake),
		T(test_prune_spares_what_runs),
		T(test_observe),
		T(test_repeat_changes_nothing),
		T(test_stale_token),
		T(test_strange_commands),
		T(test_policy_comes_first),
		T(test_time_limit),
		T(test_later_attempt_ends_a_waiting_check),
		T(test_next_deployment_ends_what_was_left),
		T(test_undo_passes_a_queued_attempt),
		T(test_undo_of_what_never_began),
		T(test_secrets_stay),
		T(test_loopback),
		T(test_loopback_failures),
		T(test_loopback_is_shared),
		T(test_loopback_moves),
		T(test_notify),
		T(test_notify_is_never_repeated),
		cmocka_unit_test(test_crash_after_each_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
