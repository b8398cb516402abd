/* The nginx driver against nginx itself: switches under load, every way a change can fail, and a
 * crash after each durable step. `test_nginx_live crash STEP DIR …` is the process that crashes. */
#include "expect.h"

#include "nginx_fixture.h"

#include "base/clock.h"
#include "driver/nginx_driver.h"
#include "driver/nginx_socket.h"
#include "driver/nginx_unit.h"
#include "net/pki.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct bt_balancer_ops *const ops = &bt_balancer_nginx;

enum { BLUE = 1, GREEN = 2 };

/* One service, its two backends and its nginx. */
struct shop {
	char name[32];
	uint16_t port, blue_port, green_port;
	pid_t blue, green, master;
	char *dir, *conf, *include;
	struct bt_nginx nginx;
	struct bt_service service;
};

static void shop_plain(struct shop *s, const char *name, enum bt_nginx_mode mode)
{
	*s = (struct shop){
		.port = next_port(), .blue_port = next_port(), .green_port = next_port()};
	snprintf(s->name, sizeof s->name, "%s", name);
	s->dir = bt_asprintf("%s/%s", world_dir, name);
	s->nginx = (struct bt_nginx){.mode = mode, .max_old_workers = 100};
	s->service = (struct bt_service){
		.name = s->name, .nginx = &s->nginx, .identity = {.path = "/profile"}};
}

static void shop_backends(struct shop *s)
{
	s->blue = backend_start("blue", s->blue_port);
	s->green = backend_start("green", s->green_port);
}

/* A user's own nginx with an upstream block of baton's, first sending to blue. */
static void shop_adopt(struct shop *s, const char *name)
{
	shop_plain(s, name, BT_NGINX_ADOPT);
	shop_backends(s);
	s->include = bt_asprintf("%s/baton.conf", s->dir);
	BT_FREE char *http = bt_asprintf("include %s;", s->include);
	BT_FREE char *server = bt_asprintf("location / { proxy_pass http://%s; }", name);
	s->conf = user_nginx(name, s->port, http, server);
	BT_FREE char *first =
		bt_asprintf("upstream %s { server 127.0.0.1:%u; }\n", name, s->blue_port);
	put_file(s->include, first);
	s->nginx.config = s->conf;
	s->nginx.prefix = s->dir;
	s->nginx.include = s->include;
	s->nginx.url = bt_asprintf("http://127.0.0.1:%u", s->port);
	s->master = nginx_start(s->conf, s->dir);
}

static void shop_managed(struct shop *s, const char *name)
{
	shop_plain(s, name, BT_NGINX_MANAGED);
	shop_backends(s);
	s->nginx.listen = bt_asprintf("127.0.0.1:%u", s->port);
	s->nginx.keepalive = 8;
}

static pid_t managed_master(const struct shop *s)
{
	BT_FREE char *pid =
		bt_asprintf("%s/balancers/%s/nginx/nginx.pid", world_env.state_dir, s->name);
	struct bt_nginx_proc master = {0};
	return bt_nginx_master(pid, &master) == 0 ? master.pid : 0;
}

static void shop_end(struct shop *s)
{
	pid_t managed = managed_master(s);
	if (managed)
		process_end(managed, SIGTERM);
	if (s->master)
		process_end(s->master, SIGTERM);
	if (s->blue)
		process_end(s->blue, SIGKILL);
	process_end(s->green, SIGKILL);
	free((char *)s->nginx.listen);
	free((char *)s->nginx.url);
	free(s->dir);
	free(s->conf);
	free(s->include);
}

static struct bt_op *begin_apply(struct shop *s, uint64_t generation, int in, struct answer *a)
{
	struct bt_pool_member m[2] = {
		{"127.0.0.1", s->blue_port, "blue", "was1", in & BLUE, false, false},
		{"127.0.0.1", s->green_port, "green", "was1", in & GREEN, false, false}};
	BT_FREE char *name = bt_asprintf("nginx/%s", s->name);
	struct bt_pool pool = {.name = name,
		.service_name = s->name,
		.service = &s->service,
		.generation = generation,
		.members = m,
		.n_members = 2};
	*a = (struct answer){0};
	return ops->apply(&pool, on_progress, a, on_done, a);
}

static int apply(struct shop *s, uint64_t generation, int in, struct answer *a)
{
	begin_apply(s, generation, in, a);
	assert_false(a->done); /* never from inside the verb */
	run_until(&a->done);
	return a->result;
}

static void apply_good(struct shop *s, uint64_t generation, int in)
{
	struct answer a;
	if (apply(s, generation, in, &a) != 0)
		fail_msg("generation %d: %s", (int)generation, a.err.text);
}

static void answers(struct shop *s, const char *who)
{
	char body[256];
	int status = get(s->port, "/profile", body, sizeof body);
	assert_int_equal(status, 200);
	assert_string_equal(body, who);
}

/* ---- observe ------------------------------------------------------------------------------ */

struct view {
	bool done, running;
	uint64_t generation;
	int in, n, old_workers; /* in: bits */
	char identity[64], trouble[512];
	uint16_t blue_port;
};

static void on_view(
	void *arg, int result, const struct bt_seen_balancer *seen, const struct bt_err *err)
{
	struct view *v = arg;
	(void)err;
	assert_int_equal(result, 0);
	v->done = true;
	v->running = seen->running;
	v->generation = seen->generation;
	v->old_workers = seen->old_workers;
	v->n = (int)seen->n_members;
	for (size_t i = 0; i < seen->n_members; i++)
		if (seen->members[i].in)
			v->in |= seen->members[i].port == v->blue_port ? BLUE : GREEN;
	snprintf(v->identity, sizeof v->identity, "%s", seen->identity ? seen->identity : "");
	snprintf(v->trouble, sizeof v->trouble, "%s", seen->trouble ? seen->trouble : "");
}

static struct view look(struct shop *s)
{
	struct view v = {.blue_port = s->blue_port};
	ops->observe("nginx/x", &s->service, on_view, &v);
	assert_false(v.done);
	run_until(&v.done);
	return v;
}

/* ---- adopt: switches under load ----------------------------------------------------------- */

static void test_switches(void **state)
{
	(void)state;
	struct shop s;
	struct load l[2];
	int64_t took = 0;
	shop_adopt(&s, "switches");
	struct view v = look(&s);
	assert_true(v.running);
	assert_int_equal(v.in, BLUE);
	assert_int_equal(v.generation, 0);
	assert_string_equal(v.identity, "blue");
	assert_string_equal(v.trouble, "");
	for (size_t i = 0; i < 2; i++)
		load_start(&l[i], s.port, "/profile");
	for (int k = 1; k <= 20; k++) {
		const char *who = k % 2 ? "green" : "blue";
		for (size_t i = 0; i < 2; i++)
			atomic_store(&l[i].only, NULL);
		int64_t begin = bt_clock_boot_us();
		apply_good(&s, (uint64_t)k, k % 2 ? GREEN : BLUE);
		took += bt_clock_boot_us() - begin;
		for (size_t i = 0; i < 2; i++)
			atomic_store(&l[i].only, who);
		run_for(20);
	}
	for (size_t i = 0; i < 2; i++)
		load_stop(&l[i]);
	print_message("%d requests, 0 failed; a switch took %d ms\n", l[0].requests + l[1].requests,
		(int)(took / 20000));
	v = look(&s);
	assert_int_equal(v.generation, 20);
	assert_int_equal(v.in, BLUE);
	assert_int_equal(v.n, 2);
	assert_string_equal(v.trouble, "");
	shop_end(&s);
}

static void test_generations(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	shop_adopt(&s, "generations");
	apply_good(&s, 5, GREEN);
	BT_FREE char *before = get_file(s.include);
	assert_int_equal(apply(&s, 5, GREEN, &a), 0);
	assert_int_equal(apply(&s, 3, GREEN, &a), 0);
	assert_int_equal(apply(&s, 5, BLUE, &a), BT_E_REFUSED);
	contains(a.err.text, "generation 5 of generations is not newer than 5");
	BT_FREE char *after = get_file(s.include);
	assert_string_equal(before, after);
	answers(&s, "green");
	shop_end(&s);
}

static void test_cancel(void **state)
{
	(void)state;
	struct shop s;
	struct answer a, b;
	shop_adopt(&s, "cancel");
	bt_op_cancel(begin_apply(&s, 1, GREEN, &a)); /* still waits: never happens */
	run_for(50);
	assert_false(a.done);
	answers(&s, "blue");
	struct bt_op *op = begin_apply(&s, 2, GREEN, &a);
	run_for(5); /* in work: it ends, untold */
	bt_op_cancel(op);
	assert_int_equal(apply(&s, 3, GREEN, &b), 0);
	assert_false(a.done);
	answers(&s, "green");
	struct view v = {.blue_port = s.blue_port};
	bt_op_cancel(ops->observe("nginx/x", &s.service, on_view, &v));
	run_for(50);
	assert_false(v.done);
	shop_end(&s);
}

/* Documents 002 and 003: one `set` in the server block. */
static void test_variable_forms(void **state)
{
	(void)state;
	for (int form = 0; form < 2; form++) {
		struct shop s;
		struct answer a;
		shop_plain(&s, form ? "byurl" : "byport", BT_NGINX_ADOPT);
		shop_backends(&s);
		s.include = bt_asprintf("%s/service-url.inc", s.dir);
		BT_FREE char *server = bt_asprintf("include %s; location / { proxy_pass %s; }",
			s.include, form ? "$service_url" : "http://127.0.0.1:$service_port");
		s.conf = user_nginx(s.name, s.port, "", server);
		BT_FREE char *first =
			form ? bt_asprintf("set $service_url http://127.0.0.1:%u;\n", s.blue_port)
			     : bt_asprintf("set $service_port %u;\n", s.blue_port);
		put_file(s.include, first);
		s.nginx.form = form ? BT_NGINX_SERVICE_URL : BT_NGINX_SERVICE_PORT;
		s.nginx.config = s.conf;
		s.nginx.prefix = s.dir;
		s.nginx.include = s.include;
		s.nginx.url = bt_asprintf("http://127.0.0.1:%u/", s.port);
		s.master = nginx_start(s.conf, s.dir);
		struct view v = look(&s);
		assert_int_equal(v.in, BLUE);
		answers(&s, "blue");
		apply_good(&s, 1, GREEN);
		answers(&s, "green");
		v = look(&s);
		assert_int_equal(v.in, GREEN);
		assert_int_equal(v.n, 2);
		assert_int_equal(apply(&s, 2, BLUE | GREEN, &a), BT_E_CONFIG);
		contains(a.err.text, "one instance only");
		apply_good(&s, 3, 0);
		char body[64];
		assert_int_equal(get(s.port, "/profile", body, sizeof body), 503);
		shop_end(&s);
	}
}

/* ---- what goes wrong ---------------------------------------------------------------------- */

static void unchanged(struct shop *s, const char *text, uint64_t generation)
{
	BT_FREE char *now = get_file(s->include);
	assert_string_equal(now, text);
	struct view v = look(s);
	assert_int_equal(v.generation, generation);
	assert_string_equal(v.identity, "blue");
	BT_FREE char *dir = bt_asprintf("%s/balancers/%s", world_env.state_dir, s->name);
	BT_FREE char *path = bt_asprintf("%s/state.json", dir);
	BT_FREE char *json = get_file(path);
	assert_true(!json || !strstr(json, "\"pending\""));
}

static void test_user_error(void **state)
{
	(void)state;
	struct shop s;
	struct load l;
	struct answer a;
	shop_adopt(&s, "usererror");
	BT_FREE char *good = get_file(s.conf), *text = get_file(s.include);
	BT_FREE char *bad = bt_asprintf("%sfoo bar;\n", good);
	struct bt_nginx_proc m = {.pid = s.master};
	struct bt_nginx_workers before, after;
	bt_nginx_workers_read(&m, &before);
	load_start(&l, s.port, "/profile");
	put_file(s.conf, bad);
	/* before anything is known of this nginx … */
	assert_int_equal(apply(&s, 1, GREEN, &a), BT_E_FAILED);
	contains(a.err.text, "unknown directive \"foo\" in");
	contains(a.err.text, "usererror/nginx.conf:");
	contains(a.err.text, "nothing was changed");
	struct view v = look(&s);
	contains(v.trouble, "unknown directive \"foo\" in");
	assert_int_equal(v.in, BLUE);
	/* … and after */
	put_file(s.conf, good);
	unchanged(&s, text, 0);
	apply_good(&s, 1, BLUE);
	free(text);
	text = get_file(s.include);
	bt_nginx_workers_done(&before);
	bt_nginx_workers_read(&m, &before);
	put_file(s.conf, bad);
	assert_int_equal(apply(&s, 2, GREEN, &a), BT_E_FAILED);
	contains(a.err.text, "unknown directive \"foo\"");
	unchanged(&s, text, 1);
	bt_nginx_workers_read(&m, &after);
	assert_int_equal(after.n_serving, before.n_serving);
	for (size_t i = 0; i < after.n_serving; i++) /* untouched: not even reloaded */
		assert_true(bt_nginx_proc_in(before.serving, before.n_serving, &after.serving[i]));
	bt_nginx_workers_done(&before);
	bt_nginx_workers_done(&after);
	load_stop(&l);
	shop_end(&s);
}

static void test_not_running(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	shop_adopt(&s, "notrunning");
	BT_FREE char *text = get_file(s.include);
	process_end(s.master, SIGTERM);
	assert_int_equal(apply(&s, 1, GREEN, &a), BT_E_FAILED);
	contains(a.err.text, "nginx is not running");
	BT_FREE char *now = get_file(s.include);
	assert_string_equal(now, text);
	struct view v = look(&s);
	assert_false(v.running);
	contains(v.trouble, "nginx is not running");
	s.master = nginx_start(s.conf, s.dir);
	apply_good(&s, 1, GREEN);
	answers(&s, "green");
	shop_end(&s);
}

static void test_not_included(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	shop_adopt(&s, "notincluded");
	BT_FREE char *elsewhere = bt_asprintf("%s/other.conf", s.dir);
	s.nginx.include = elsewhere;
	assert_int_equal(apply(&s, 1, GREEN, &a), BT_E_CONFIG);
	contains(a.err.text, "nginx does not read");
	contains(a.err.text, "add `include ");
	assert_false(bt_fs_exists(elsewhere));
	s.nginx.include = "relative.conf";
	assert_int_equal(apply(&s, 1, GREEN, &a), BT_E_CONFIG);
	contains(a.err.text, "absolute path");
	s.nginx.include = s.include;
	s.nginx.binary = "/nowhere/nginx";
	assert_true(apply(&s, 1, GREEN, &a) < 0);
	contains(a.err.text, "/nowhere/nginx");
	shop_end(&s);
}

/* The new instance is not who it should be: back, and blue serves on. */
static void test_wrong_identity(void **state)
{
	(void)state;
	struct shop s;
	struct load l;
	struct answer a;
	shop_adopt(&s, "impostor");
	BT_FREE char *text = get_file(s.include);
	s.service.identity.expect = "{slot}-v2";
	assert_int_equal(apply(&s, 1, GREEN, &a), BT_E_FAILED);
	contains(a.err.text, "nginx answers 200 'green");
	contains(a.err.text, "expected 'green-v2'");
	load_start(&l, s.port, "/profile");
	atomic_store(&l.only, "blue");
	unchanged(&s, text, 0);
	load_stop(&l);
	shop_end(&s);
}

/* nginx -t is content with a port that another process holds; the master is not. */
static void test_refused_reload(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	shop_adopt(&s, "refusedreload");
	BT_FREE char *text = get_file(s.include), *conf = get_file(s.conf);
	uint16_t taken = next_port();
	pid_t stranger = backend_start("stranger", taken);
	conf[strlen(conf) - 2] = 0; /* inside the http block's end */
	char *end = strrchr(conf, '}');
	*end = 0;
	BT_FREE char *more = bt_asprintf("%s}\nserver { listen 127.0.0.1:%u; } }\n", conf, taken);
	put_file(s.conf, more);
	assert_int_equal(apply(&s, 1, GREEN, &a), BT_E_FAILED);
	contains(a.err.text, "bind() to");
	BT_FREE char *now = get_file(s.include);
	assert_string_equal(now, text);
	answers(&s, "blue");
	process_end(stranger, SIGKILL);
	run_for(1); /* the way back is tried until nginx takes it */
	ops->tend();
	struct view v = look(&s);
	assert_string_equal(v.trouble, "");
	apply_good(&s, 2, GREEN);
	answers(&s, "green");
	shop_end(&s);
}

static pid_t victim;

static void kill_victim(const char *step)
{
	if (!strcmp(step, "reloaded"))
		kill(victim, SIGKILL);
}

static void end_orphans(const char *log)
{
	struct bt_nginx_proc *orphans = NULL;
	size_t n = bt_nginx_orphans(log, &orphans);
	while (n > 0)
		process_end(orphans[--n].pid, SIGKILL);
	free(orphans);
}

/* The master dies in mid-change: the prior file is back for whoever starts nginx again. */
static void test_killed_in_reload(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	shop_adopt(&s, "killedinreload");
	apply_good(&s, 1, BLUE);
	BT_FREE char *before = get_file(s.include);
	victim = s.master;
	bt_nginx_step_hook = kill_victim;
	int r = apply(&s, 2, GREEN, &a);
	bt_nginx_step_hook = NULL;
	assert_int_equal(r, BT_E_FAILED);
	contains(a.err.text, "master process ended during the reload");
	BT_FREE char *after = get_file(s.include);
	assert_string_equal(before, after);
	process_end(s.master, SIGKILL);
	s.master = 0;
	BT_FREE char *log = bt_asprintf("%s/error.log", s.dir);
	end_orphans(log);
	assert_int_equal(apply(&s, 2, GREEN, &a), BT_E_FAILED);
	contains(a.err.text, "nginx is not running");
	s.master = nginx_start(s.conf, s.dir);
	answers(&s, "blue");
	apply_good(&s, 2, GREEN);
	shop_end(&s);
}

static void test_drift(void **state)
{
	(void)state;
	struct shop s;
	shop_adopt(&s, "drift");
	apply_good(&s, 1, GREEN);
	BT_FREE char *mine = bt_asprintf("upstream drift { server 127.0.0.1:%u; }\n", s.blue_port);
	put_file(s.include, mine);
	struct view v = look(&s);
	contains(v.trouble, "was changed by somebody else since generation 1");
	assert_int_equal(v.in, BLUE);
	ops->tend();
	run_for(100);
	BT_FREE char *now = get_file(s.include);
	assert_string_equal(now, mine); /* reported, not fought */
	apply_good(&s, 2, GREEN);
	v = look(&s);
	assert_string_equal(v.trouble, "");
	shop_end(&s);
}

/* ---- drain and old workers ---------------------------------------------------------------- */

struct held {
	pthread_t thread;
	uint16_t port;
	int status;
	char body[64];
};

static void *held_main(void *arg)
{
	struct held *h = arg;
	h->status = get(h->port, "/hold", h->body, sizeof h->body);
	return NULL;
}

static int drain(struct shop *s, int which, int64_t wait_ms, struct answer *a)
{
	struct bt_pool_member m = {"127.0.0.1", which == BLUE ? s->blue_port : s->green_port,
		which == BLUE ? "blue" : "green", "was1", false, false, false};
	struct bt_drain_request rq = {.name = "nginx/x",
		.service = &s->service,
		.members = &m,
		.n_members = 1,
		.wait_ms = wait_ms};
	*a = (struct answer){0};
	ops->drain(&rq, on_progress, a, on_done, a);
	assert_false(a->done);
	run_until(&a->done);
	return a->result;
}

struct accepted {
	uint16_t port;
	int n;
};

static void count_accepted(void *arg, const struct bt_tcp_socket *row)
{
	struct accepted *a = arg;
	/* without an inode it is still in the listener's queue */
	a->n += row->local_port == a->port && row->state == TCP_IS_ESTABLISHED && row->inode;
}

/* Until nginx's workers have n connections of clients. */
static void wait_accepted(uint16_t port, int n)
{
	struct accepted a = {.port = port};
	for (int64_t end = bt_clock_boot_ms() + 20000; bt_clock_boot_ms() < end;) {
		a.n = 0;
		assert_int_equal(bt_tcp_each(0, count_accepted, &a, NULL), 0);
		if (a.n >= n)
			return;
		poll(NULL, 0, 5);
	}
	fail_msg("%d connections at port %u, expected %d", a.n, port, n);
}

/* Until the backend holds a request. */
static void wait_held(uint16_t port)
{
	char body[64] = "";
	for (int64_t end = bt_clock_boot_ms() + 20000; bt_clock_boot_ms() < end; poll(NULL, 0, 10))
		if (get(port, "/held", body, sizeof body) == 200 && !strcmp(body, "1"))
			return;
	fail_msg("no request is held at port %u: '%s'", port, body);
}

/* Until at least `least` and at most `most` connections lead to the backend. */
static void wait_connections(uint16_t port, int64_t least, int64_t most)
{
	struct bt_nginx_peer peer = {"127.0.0.1", port};
	int64_t n = 0;
	for (int64_t end = bt_clock_boot_ms() + 20000; bt_clock_boot_ms() < end;
		poll(NULL, 0, 10)) {
		assert_int_equal(bt_nginx_connections(0, &peer, 1, &n, NULL), 0);
		if (n >= least && n <= most)
			return;
	}
	fail_msg("%d connections to port %u, expected %d to %d", (int)n, port, (int)least,
		(int)most);
}

struct releasing {
	struct event *tick;
	struct answer *a;
	uint16_t port;
	bool done;
};

/* As soon as the drain has said that it waits. */
static void on_releasing(evutil_socket_t fd, short what, void *arg)
{
	struct releasing *r = arg;
	char body[64];
	(void)fd;
	(void)what;
	if (r->done || !strstr(r->a->progress, "1 connection, 1 old worker"))
		return;
	assert_false(r->a->done);
	assert_int_equal(get(r->port, "/release", body, sizeof body), 200);
	r->done = true;
}

/* A request that was under way at the switch ends well, and only then is blue drained. */
static void drain_waits(struct shop *s)
{
	struct held held = {.port = s->port};
	struct answer a;
	struct releasing releasing = {.a = &a, .port = s->blue_port};
	struct bt_nginx_peer peer = {"127.0.0.1", s->blue_port};
	int64_t idle = 0; /* kept alive by nginx */
	assert_int_equal(bt_nginx_connections(0, &peer, 1, &idle, NULL), 0);
	assert_int_equal(pthread_create(&held.thread, NULL, held_main, &held), 0);
	wait_accepted(s->port, 1);
	wait_held(s->blue_port);
	wait_connections(s->blue_port, 1, idle + 1);
	apply_good(s, 1, GREEN);
	answers(s, "green");
	releasing.tick = event_new(world_env.base, -1, EV_PERSIST, on_releasing, &releasing);
	event_add(releasing.tick, &(struct timeval){0, 10000});
	int r = drain(s, BLUE, 20000, &a);
	event_free(releasing.tick);
	pthread_join(held.thread, NULL);
	assert_int_equal(r, 0);
	assert_true(releasing.done);
	assert_int_equal(held.status, 200);
	assert_string_equal(held.body, "blue");
	contains(a.progress, "0 connections, 0 old workers");
}

static void test_drain(void **state)
{
	(void)state;
	struct shop s;
	shop_adopt(&s, "drain");
	drain_waits(&s);
	shop_end(&s);
	shop_managed(&s, "drainmanaged");
	apply_good(&s, 0, BLUE);
	drain_waits(&s);
	shop_end(&s);
}

static void test_websocket_outlives_drain(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	char byte;
	shop_adopt(&s, "websocket");
	apply_good(&s, 0, BLUE);
	int ws = open_websocket(s.port);
	apply_good(&s, 1, GREEN);
	assert_int_equal(drain(&s, BLUE, 300, &a), 1);
	contains(a.err.text, "still 1 connection, 1 old worker when the drain time passed");
	/* It still holds, and counts against max_old_workers. */
	assert_int_not_equal(recv(ws, &byte, 1, MSG_DONTWAIT | MSG_PEEK), 0); /* not cut */
	s.nginx.max_old_workers = 0;
	assert_int_equal(apply(&s, 2, BLUE, &a), BT_E_REFUSED);
	contains(a.err.text, "1 old workers still shut down (max_old_workers is 0)");
	contains(a.err.text, "worker_shutdown_timeout");
	contains(a.err.text, "held by connections: ");
	answers(&s, "green");
	struct view v = look(&s);
	assert_int_equal(v.old_workers, 1);
	/* And back: the websocket's worker never sent to green, which is drained all the same. */
	s.nginx.max_old_workers = 100;
	apply_good(&s, 3, BLUE);
	assert_int_equal(drain(&s, GREEN, 20000, &a), 0);
	assert_int_equal(drain(&s, BLUE, 0, &a), 1);
	close(ws);
	assert_int_equal(drain(&s, BLUE, 20000, &a), 0);
	shop_end(&s);
}

/* The only primary dies: the backup serves at once, and the primary is back at once (max_fails=0,
 * where nginx would leave it out for ten seconds). */
static void test_primary_dies(void **state)
{
	(void)state;
	struct shop s;
	shop_adopt(&s, "dies");
	apply_good(&s, 1, GREEN);
	process_end(s.green, SIGKILL);
	for (int i = 0; i < 20; i++)
		answers(&s, "blue");
	s.green = backend_start("green", s.green_port);
	answers(&s, "green");
	shop_end(&s);
}

/* A connection from before the switch, first used when blue has stopped: the old worker knows
 * green as backup. */
static void test_straggler(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	char reply[512];
	shop_adopt(&s, "straggler");
	apply_good(&s, 1, BLUE);
	int fd = dial(s.port);
	assert_true(fd >= 0);
	static const char half[] = "GET /profile HTTP/1.1\r\nHost: test\r\n";
	assert_int_equal(bt_fs_write_all(fd, half, sizeof half - 1), 0);
	wait_accepted(s.port, 1);
	run_for(50);
	apply_good(&s, 2, GREEN);
	assert_int_equal(drain(&s, BLUE, 200, &a), 1);
	contains(a.err.text, "0 connections, 1 old worker");
	process_end(s.blue, SIGKILL);
	s.blue = 0;
	assert_int_equal(bt_fs_write_all(fd, "\r\n", 2), 0);
	ssize_t n = recv(fd, reply, sizeof reply - 1, 0);
	assert_true(n > 0);
	reply[n] = 0;
	contains(reply, "HTTP/1.1 200");
	contains(reply, "green");
	close(fd);
	assert_int_equal(drain(&s, BLUE, 20000, &a), 0);
	shop_end(&s);
}

/* In a network namespace of its own: connects to itself, tells the pipe, holds. */
static void other_namespace(uint16_t port, int ready)
{
	char answer = 'n';
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	if (unshare(CLONE_NEWNET) == 0) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		struct sockaddr_in a = {.sin_family = AF_INET,
			.sin_port = htons(port),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		if (ioctl(fd, SIOCSIFFLAGS, &lo) == 0 &&
			bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 4) == 0 &&
			dial(port) >= 0 && dial(port) >= 0)
			answer = 'y';
	}
	bt_fs_write_all(ready, &answer, 1);
	for (;;)
		pause();
}

static void test_namespace(void **state)
{
	(void)state;
	int ready[2];
	char answer = 0;
	uint16_t port = next_port();
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		other_namespace(port, ready[1]);
	}
	assert_int_equal(read(ready[0], &answer, 1), 1);
	if (answer == 'y') {
		struct bt_nginx_peer peers[] = {
			{"127.0.0.1", port}, {"127.0.0.2", port}, {"::1", port}};
		int64_t there = 0, here = 0;
		assert_int_equal(bt_nginx_connections(pid, peers, 3, &there, NULL), 0);
		assert_int_equal(bt_nginx_connections(0, peers, 3, &here, NULL), 0);
		assert_int_equal(there, 2);
		assert_int_equal(here, 0);
	}
	process_end(pid, SIGKILL);
	close(ready[0]);
	close(ready[1]);
	if (answer != 'y')
		skip(); /* not root: namespaces cannot be made */
}

/* ---- several services --------------------------------------------------------------------- */

static int count_reloads(const struct shop *s)
{
	BT_FREE char *path = bt_asprintf("%s/error.log", s->dir);
	BT_FREE char *log = get_file(path);
	int n = 0;
	for (const char *p = log; p && (p = strstr(p, "(SIGHUP) received")); p++)
		n++;
	return n;
}

static void test_merge(void **state)
{
	(void)state;
	struct shop a, b;
	struct answer ra, rb, rb2;
	shop_adopt(&a, "mergea");
	/* b lives in a's nginx, with a file and a server of its own */
	shop_plain(&b, "mergeb", BT_NGINX_ADOPT);
	shop_backends(&b);
	b.include = bt_asprintf("%s/b.conf", a.dir);
	BT_FREE char *first =
		bt_asprintf("upstream mergeb { server 127.0.0.1:%u; }\n", b.blue_port);
	put_file(b.include, first);
	BT_FREE char *http = bt_asprintf("include %s; include %s;"
					 "server { listen 127.0.0.1:%u; location / { proxy_pass "
					 "http://mergeb; } }",
		a.include, b.include, b.port);
	free(a.conf);
	a.conf = user_nginx("mergea", a.port, http, "location / { proxy_pass http://mergea; }");
	a.nginx.config = a.conf;
	b.nginx.config = a.conf;
	b.nginx.prefix = a.dir;
	b.nginx.include = b.include;
	b.nginx.url = bt_asprintf("http://127.0.0.1:%u", b.port);
	kill(a.master, SIGHUP);
	for (int64_t end = bt_clock_boot_ms() + 5000; bt_clock_boot_ms() < end;) {
		char body[64];
		if (get(b.port, "/profile", body, sizeof body) == 200)
			break;
	}
	int before = count_reloads(&a);
	begin_apply(&a, 1, GREEN, &ra);
	begin_apply(&b, 1, GREEN, &rb);
	begin_apply(&b, 2, BLUE, &rb2); /* the same service again: after the first */
	run_until(&ra.done);
	assert_true(rb.done);
	assert_int_equal(ra.result, 0);
	assert_int_equal(rb.result, 0);
	assert_int_equal(count_reloads(&a), before + 1);
	run_until(&rb2.done);
	assert_int_equal(rb2.result, 0);
	assert_int_equal(count_reloads(&a), before + 2);
	answers(&a, "green");
	answers(&b, "blue");
	/* One of the two is wrong: the other one is switched all the same. */
	b.service.identity.expect = "somebody else";
	begin_apply(&a, 2, BLUE, &ra);
	begin_apply(&b, 3, GREEN, &rb);
	run_until(&ra.done);
	run_until(&rb.done);
	assert_int_equal(ra.result, 0);
	assert_int_equal(rb.result, BT_E_FAILED);
	contains(rb.err.text, "expected 'somebody else'");
	answers(&a, "blue");
	answers(&b, "blue");
	b.master = 0;
	b.conf = NULL;
	shop_end(&b);
	shop_end(&a);
}

/* ---- managed ------------------------------------------------------------------------------ */

static void test_managed(void **state)
{
	(void)state;
	struct shop s;
	struct load l;
	struct answer a;
	char body[256];
	static const struct bt_route routes[] = {
		{.path = "/", .to = BT_ROUTE_ONE}, {.path = "/all/", .to = BT_ROUTE_ALL}};
	shop_managed(&s, "managed");
	s.nginx.routes = routes;
	s.nginx.n_routes = 2;
	struct view v = look(&s);
	assert_false(v.running);
	assert_string_equal(v.trouble, "");
	apply_good(&s, 1, 0);
	assert_int_equal(get(s.port, "/profile", body, sizeof body), 503);
	assert_string_equal(body, "managed has no instance in rotation");
	apply_good(&s, 2, BLUE);
	load_start(&l, s.port, "/profile");
	apply_good(&s, 3, BLUE | GREEN);
	int seen = 0;
	for (int i = 0; i < 20; i++) { /* one: always blue; all: both */
		answers(&s, "blue");
		assert_int_equal(get(s.port, "/all/profile", body, sizeof body), 200);
		seen |= !strcmp(body, "blue") ? BLUE : GREEN;
	}
	assert_int_equal(seen, BLUE | GREEN);
	apply_good(&s, 4, GREEN);
	answers(&s, "green");
	assert_int_equal(drain(&s, BLUE, 10000, &a), 0);
	v = look(&s);
	assert_true(v.running);
	assert_int_equal(v.in, GREEN);
	assert_int_equal(v.generation, 4);
	assert_string_equal(v.trouble, "");
	load_stop(&l);
	shop_end(&s);
}

/* Over TLS, checked by a health check as well; then its log is rotated, and at last the service
 * moves into the user's own nginx. */
static void test_managed_tls(void **state)
{
	(void)state;
	struct shop s, own;
	struct answer a = {0};
	const char *names[] = {"127.0.0.1"};
	shop_managed(&s, "tls");
	BT_FREE char *pki = bt_asprintf("%s/pki", world_dir);
	BT_FREE char *pem = bt_asprintf("%s/server.pem", pki);
	BT_FREE char *key = bt_asprintf("%s/server.key", pki);
	assert_int_equal(bt_fs_mkdirs(pki, 0755, NULL), 0);
	assert_int_equal(bt_pki_init(pki, names, 1, NULL), 0);
	s.nginx.certificate = pem;
	s.nginx.certificate_key = key;
	apply_good(&s, 1, BLUE);
	struct view v = look(&s);
	assert_string_equal(v.identity, "blue");
	struct bt_health h = {.kind = BT_HEALTH_HTTPS,
		.path = "/profile",
		.contains = "blue",
		.every_ms = 20,
		.timeout_ms = 5000,
		.passes = 1};
	struct bt_health_target t = {
		.health = &h, .address = "127.0.0.1", .port = s.port, .within_ms = 20000};
	bt_health_wait(&world_env, &t, on_progress, &a, on_done, &a);
	run_until(&a.done);
	assert_string_equal(a.err.text, "");
	h.verify = true; /* its CA is nobody's here */
	t.within_ms = 300;
	a = (struct answer){0};
	bt_health_wait(&world_env, &t, on_progress, &a, on_done, &a);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_FAILED);

	BT_FREE char *log =
		bt_asprintf("%s/balancers/tls/nginx/logs/access.log", world_env.state_dir);
	BT_FREE char *older = bt_asprintf("%s.1", log);
	assert_int_equal(truncate(log, 65 << 20), 0);
	ops->tend();
	assert_true(bt_fs_exists(older));
	for (int64_t end = bt_clock_boot_ms() + 10000;
		!bt_fs_exists(log) && bt_clock_boot_ms() < end;)
		run_for(10);
	assert_true(bt_fs_exists(log));

	shop_adopt(&own, "tls2");
	snprintf(own.name, sizeof own.name, "tls");
	own.nginx.upstream = "tls2";
	pid_t managed = managed_master(&s);
	assert_true(managed > 0);
	apply_good(&own, 2, GREEN);
	answers(&own, "green");
	for (int64_t end = bt_clock_boot_ms() + 10000;
		managed_master(&s) && bt_clock_boot_ms() < end;)
		run_for(10);
	assert_int_equal(managed_master(&s), 0);
	shop_end(&own);
	shop_end(&s);
}

/* kill -9 of the master: its workers serve on, a new master takes their sockets over. */
static void test_managed_master_killed(void **state)
{
	(void)state;
	struct shop s;
	struct load l[2];
	shop_managed(&s, "killed");
	apply_good(&s, 1, BLUE);
	pid_t first = managed_master(&s), second = 0;
	assert_true(first > 0);
	for (size_t i = 0; i < 2; i++)
		load_start(&l[i], s.port, "/profile");
	process_end(first, SIGKILL);
	for (int64_t end = bt_clock_boot_ms() + 20000; !second && bt_clock_boot_ms() < end;) {
		ops->tend();
		run_for(50);
		second = managed_master(&s);
	}
	assert_true(second > 0 && second != first);
	run_for(300);
	BT_FREE char *log =
		bt_asprintf("%s/balancers/%s/nginx/logs/error.log", world_env.state_dir, s.name);
	struct bt_nginx_proc *orphans = NULL;
	for (int64_t end = bt_clock_boot_ms() + 10000; bt_clock_boot_ms() < end;) {
		size_t n = bt_nginx_orphans(log, &orphans);
		free(orphans);
		if (n == 0)
			break;
		run_for(20);
	}
	assert_int_equal(bt_nginx_orphans(log, &orphans), 0);
	free(orphans);
	apply_good(&s, 2, GREEN);
	for (size_t i = 0; i < 2; i++)
		load_stop(&l[i]);
	answers(&s, "green");
	struct view v = look(&s);
	assert_string_equal(v.trouble, "");
	assert_int_equal(v.generation, 2);
	shop_end(&s);
}

/* Its port is taken: the first start fails, and says why. Nothing stays behind. */
static void test_managed_port_taken(void **state)
{
	(void)state;
	struct shop s;
	struct answer a;
	shop_managed(&s, "porttaken");
	pid_t stranger = backend_start("stranger", s.port);
	assert_true(apply(&s, 1, BLUE, &a) < 0);
	contains(a.err.text, "bind() to");
	contains(a.err.text, "Address already in use");
	assert_int_equal(managed_master(&s), 0);
	BT_FREE char *state_path =
		bt_asprintf("%s/balancers/%s/state.json", world_env.state_dir, s.name);
	assert_false(bt_fs_exists(state_path));
	process_end(stranger, SIGKILL);
	apply_good(&s, 1, BLUE);
	answers(&s, "blue");
	shop_end(&s);
}

/* nginx writes its log after the answer. */
static void wait_log(struct shop *s, int lines)
{
	BT_FREE char *path =
		bt_asprintf("%s/balancers/%s/nginx/logs/access.log", world_env.state_dir, s->name);
	int n = 0;
	for (int64_t end = bt_clock_boot_ms() + 20000; bt_clock_boot_ms() < end;) {
		BT_FREE char *text = get_file(path);
		n = 0;
		for (const char *p = text; p && (p = strchr(p, '\n')); p++)
			n++;
		if (n >= lines)
			return;
		poll(NULL, 0, 5);
	}
	fail_msg("%d lines in the log, expected %d", n, lines);
}

static void test_watch(void **state)
{
	(void)state;
	struct shop s;
	struct answer a = {0};
	char body[256];
	shop_managed(&s, "watch");
	s.service.deploy.bake_max_5xx = 0.1;
	apply_good(&s, 1, BLUE);
	get(s.port, "/fail", body, sizeof body); /* before the watch: not counted */
	wait_log(&s, 2);			 /* and the confirmation's own question */
	ops->watch("nginx/x", &s.service, 300, on_progress, &a, on_done, &a);
	for (int i = 0; i < 30; i++)
		assert_int_equal(get(s.port, "/profile", body, sizeof body), 200);
	assert_int_equal(get(s.port, "/fail", body, sizeof body), 500);
	wait_log(&s, 2 + 31);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	contains(a.progress, "31 answers, 1 of them 5xx");
	a = (struct answer){0};
	ops->watch("nginx/x", &s.service, 20000, on_progress, &a, on_done, &a);
	for (int i = 0; i < 20; i++)
		get(s.port, i % 2 ? "/fail" : "/profile", body, sizeof body);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_FAILED);
	contains(a.err.text, "nginx answered 10 of 20 requests with 5xx, more than 10%");
	shop_end(&s);
	shop_adopt(&s, "watchadopt");
	a = (struct answer){0};
	ops->watch("nginx/x", &s.service, 50, on_progress, &a, on_done, &a);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	contains(a.progress, "are not counted");
	shop_end(&s);
}

/* ---- a crash after each durable step ------------------------------------------------------ */

static const char *crash_step;

static void crash_at(const char *step)
{
	if (!strcmp(step, crash_step))
		_exit(9);
}

static int crash_main(char **argv)
{
	struct shop s = {
		.blue_port = (uint16_t)atoi(argv[5]), .green_port = (uint16_t)atoi(argv[6])};
	struct answer a;
	crash_step = argv[2];
	world_open(argv[3]);
	ops->init(&world_env, NULL);
	snprintf(s.name, sizeof s.name, "%s", argv[4]);
	BT_FREE char *dir = bt_asprintf("%s/%s", world_dir, s.name);
	BT_FREE char *conf = bt_asprintf("%s/nginx.conf", dir);
	BT_FREE char *include = bt_asprintf("%s/baton.conf", dir);
	BT_FREE char *listen = bt_asprintf("127.0.0.1:%s", argv[7]);
	s.nginx = (struct bt_nginx){.max_old_workers = 100};
	if (argv[8][0] == 'm') {
		s.nginx.mode = BT_NGINX_MANAGED;
		s.nginx.listen = listen;
	} else {
		s.nginx.config = conf;
		s.nginx.prefix = dir;
		s.nginx.include = include;
		s.nginx.url = bt_asprintf("http://%s", listen);
	}
	s.service = (struct bt_service){
		.name = s.name, .nginx = &s.nginx, .identity = {.path = "/profile"}};
	if (argv[8][1] == 'w') /* an identity that never comes: the way back */
		s.service.identity.expect = "never";
	bt_nginx_step_hook = crash_at;
	return apply(&s, 2, GREEN, &a) == 0 ? 0 : 1;
}

static void crash_child(const struct shop *s, const char *step, const char *how)
{
	char blue[8], green[8], port[8];
	snprintf(blue, sizeof blue, "%u", s->blue_port);
	snprintf(green, sizeof green, "%u", s->green_port);
	snprintf(port, sizeof port, "%u", s->port);
	pid_t pid = fork();
	if (pid == 0) {
		execl("/proc/self/exe", "crash", "crash", step, world_dir, s->name, blue, green,
			port, how, (char *)NULL);
		_exit(127);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 9)
		fail_msg("step %s: status %x, expected the crash", step, (unsigned)status);
}

static void crash_once(const char *step, bool managed, bool wrong, bool expect_new)
{
	static int count;
	struct shop s;
	struct load l;
	char name[32], how[3] = {managed ? 'm' : 'a', wrong ? 'w' : 'r', 0};
	snprintf(name, sizeof name, "crash%d", count++);
	if (managed)
		shop_managed(&s, name);
	else
		shop_adopt(&s, name);
	apply_good(&s, 1, BLUE);
	load_start(&l, s.port, "/profile");
	crash_child(&s, step, how);
	struct bt_err err = {0};
	assert_int_equal(ops->init(&world_env, &err), 0);
	struct view v = look(&s); /* waits until it is settled */
	if (strcmp(v.trouble, "") && !wrong)
		fail_msg("step %s: %s", step, v.trouble);
	const char *who = expect_new ? "green" : "blue";
	assert_int_equal(v.generation, expect_new ? 2 : 1);
	assert_int_equal(v.in, expect_new ? GREEN : BLUE);
	assert_string_equal(v.identity, who);
	BT_FREE char *path = bt_asprintf("%s/balancers/%s/state.json", world_env.state_dir, name);
	BT_FREE char *json = get_file(path);
	assert_non_null(json);
	assert_null(strstr(json, "\"pending\""));
	/* The server sends the same command again. */
	apply_good(&s, 2, GREEN);
	answers(&s, "green");
	load_stop(&l);
	shop_end(&s);
}

static void test_crashes(void **state)
{
	(void)state;
	static const struct {
		const char *step;
		bool wrong, expect_new;
	} t[] = {
		{"state", false, false}, /* nothing was written: the prior one stays */
		{"file", false, true},	 /* written: recovery confirms it */
		{"tested", false, true},
		{"reloaded", false, true},
		{"workers", false, true},
		{"answered", false, true},
		{"committed", false, true},
		{"restored", true, false},
		{"reloaded", true, false},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(t); i++)
		for (int managed = 0; managed < 2; managed++)
			crash_once(t[i].step, managed, t[i].wrong, t[i].expect_new);
}

/* The very first change of a managed nginx: nothing was there before. */
static void test_crashes_at_first(void **state)
{
	(void)state;
	static const struct {
		const char *step;
		bool wrong, expect_new;
	} t[] = {
		{"state", false, false},
		{"file", false, false}, /* nginx did not run yet: nothing to confirm */
		{"workers", false, true},
		{"answered", false, true},
		{"restored", true, false},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(t); i++) {
		struct shop s;
		char name[32];
		snprintf(name, sizeof name, "first%zu", i);
		shop_managed(&s, name);
		crash_child(&s, t[i].step, t[i].wrong ? "mw" : "mr");
		assert_int_equal(ops->init(&world_env, NULL), 0);
		struct view v = look(&s);
		assert_int_equal(v.generation, t[i].expect_new ? 2 : 0);
		assert_int_equal(v.in, t[i].expect_new ? GREEN : 0);
		assert_int_equal(v.running, t[i].expect_new);
		assert_string_equal(v.trouble, "");
		apply_good(&s, 2, GREEN);
		answers(&s, "green");
		shop_end(&s);
	}
}

/* The host went down in the middle: nginx is not there, nothing can be confirmed. */
static void test_crash_then_no_nginx(void **state)
{
	(void)state;
	struct shop s;
	shop_adopt(&s, "rebooted");
	apply_good(&s, 1, BLUE);
	BT_FREE char *before = get_file(s.include);
	crash_child(&s, "file", "ar");
	process_end(s.master, SIGKILL);
	s.master = 0;
	BT_FREE char *log = bt_asprintf("%s/error.log", s.dir);
	end_orphans(log);
	assert_int_equal(ops->init(&world_env, NULL), 0);
	struct view v = look(&s);
	assert_false(v.running);
	BT_FREE char *after = get_file(s.include);
	assert_string_equal(before, after);
	s.master = nginx_start(s.conf, s.dir);
	answers(&s, "blue");
	apply_good(&s, 2, GREEN);
	shop_end(&s);
}

int main(int argc, char **argv)
{
	if (argc == 9 && !strcmp(argv[1], "crash"))
		return crash_main(argv);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_switches),
		cmocka_unit_test(test_generations),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_variable_forms),
		cmocka_unit_test(test_user_error),
		cmocka_unit_test(test_not_running),
		cmocka_unit_test(test_not_included),
		cmocka_unit_test(test_wrong_identity),
		cmocka_unit_test(test_refused_reload),
		cmocka_unit_test(test_killed_in_reload),
		cmocka_unit_test(test_drift),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_websocket_outlives_drain),
		cmocka_unit_test(test_primary_dies),
		cmocka_unit_test(test_straggler),
		cmocka_unit_test(test_namespace),
		cmocka_unit_test(test_merge),
		cmocka_unit_test(test_managed),
		cmocka_unit_test(test_managed_tls),
		cmocka_unit_test(test_managed_master_killed),
		cmocka_unit_test(test_managed_port_taken),
		cmocka_unit_test(test_watch),
		cmocka_unit_test(test_crashes),
		cmocka_unit_test(test_crashes_at_first),
		cmocka_unit_test(test_crash_then_no_nginx),
	};
	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
