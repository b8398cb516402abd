/* The haproxy family against haproxy itself, and its parsers against what haproxy says. */
#include "expect.h"

#include "nginx_fixture.h"

#include "base/clock.h"
#include "config/config.h"
#include "driver/l4_haproxy.h"
#include "driver/l4_site.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct bt_balancer_ops *const ops = &bt_balancer_l4;

enum { A = 1, B = 2 };

/* ---- what haproxy says -------------------------------------------------------------------- */

#define HEAD                                                                                       \
	"1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight "    \
	"srv_iweight srv_time_since_last_change srv_check_status srv_check_result "                \
	"srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id "         \
	"srv_fqdn srv_port srvrecord\n"

static void test_servers(void **state)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_haproxy_view v = {0};
	struct bt_err err = {0};
	(void)state;
	assert_int_equal(bt_haproxy_servers(HEAD
				 "4 shop 1 was1-a 10.0.0.1 2 0 1 1 1 8 3 0 6 0 0 0 - 8081 -\n"
				 "4 shop 2 was1-b ::1 2 8 1 1 1 1 0 2 0 0 0 0 - 8082 -\n"
				 "4 shop 3 sorry - 0 4 1 1 1 1 0 2 6 0 0 0 - 0 -\n\n",
				 a, &v, &err),
		0);
	assert_int_equal(v.n_servers, 3);
	assert_string_equal(v.servers[0].name, "was1-a");
	assert_string_equal(v.servers[1].address, "::1");
	assert_int_equal(v.servers[0].port, 8081);
	assert_true(bt_haproxy_is_in(&v.servers[0]) && bt_haproxy_is_served(&v.servers[0]));
	assert_false(bt_haproxy_is_in(&v.servers[1]));
	assert_true(bt_haproxy_is_in(&v.servers[2])); /* the configuration had it disabled, once */
	assert_false(bt_haproxy_is_served(&v.servers[2]));
	assert_int_equal(bt_haproxy_stat("# pxname,svname,qcur,scur,status,bck,check_status,"
					 "last_chk,hrsp_2xx,hrsp_5xx\n"
					 "shop,was1-a,1,2,DOWN,0,* L7STS,\"a \"\"b\"\",\nc\",5,1\n"
					 "shop,BACKEND,0,9,UP,0,,,50,4\n\n",
				 a, &v, &err),
		0);
	assert_true(v.servers[0].counted);
	assert_int_equal(v.servers[0].connections, 3);
	assert_string_equal(v.servers[0].check, "L7STS a \"b\",\nc");
	assert_false(v.servers[1].counted);
	assert_true(v.totals.http);
	assert_int_equal(v.totals.answers, 54);
	assert_int_equal(v.totals.failed, 4);
	assert_int_equal(bt_haproxy_info("Name: HAProxy\nVersion: 2.6.12\nPid: 812\n"
					 "Start_time_sec: 1700000000\n\n",
				 a, &v, &err),
		0);
	assert_int_equal(v.pid, 812);
	assert_int_equal(v.start_s, 1700000000);
}

static void test_nonsense(void **state)
{
	static const char *const texts[] = {"", "\n", "2\n# be_id\n", "1\n", "Unknown command.\n",
		HEAD "4 shop 1\n", HEAD "4 shop 1 a 10.0.0.1 x 0 1 1 1 8 3 0 6 0 0 0 - 8081 -\n"};
	BT_ARENA struct bt_arena *a = bt_arena_new();
	(void)state;
	for (size_t i = 0; i < BT_ARRAY_LEN(texts); i++) {
		struct bt_haproxy_view v = {0};
		struct bt_err err = {0};
		assert_int_equal(bt_haproxy_servers(texts[i], a, &v, &err), BT_E_PROTOCOL);
		assert_int_equal(bt_haproxy_info(texts[i], a, &v, &err), BT_E_PROTOCOL);
		assert_int_equal(bt_haproxy_stat(texts[i], a, &v, &err), BT_E_PROTOCOL);
	}
}

/* ---- a shop behind haproxy ---------------------------------------------------------------- */

struct shop {
	const char *name, *mode;
	char *dir, *conf, *socket, *state_file;
	uint16_t port, a_port, b_port;
	pid_t a, b, haproxy;
	struct bt_config *config;
	struct bt_service *service;
};

struct traits {
	const char *mode;	 /* "http", "tcp" */
	const char *check;	 /* of the servers; "" */
	const char *level;	 /* of the socket */
	bool state_file, server; /* baton.yaml has them */
	const char *within;	 /* health.within */
};

static const struct traits plain = {
	"http", "check inter 100 rise 1 fall 1", "admin", true, true, "20s"};

static void read_config(struct shop *s, const struct traits *t)
{
	struct bt_err err = {0};
	BT_FREE char *file = bt_asprintf(", state_file: %s", s->state_file);
	BT_FREE char *text = bt_asprintf("service: %s\nhosts: [was1]\n"
					 "run:\n  command: app {port}\n  slots: {a: %u, b: %u}\n"
					 "health: {http: /profile, within: %s}\n"
					 "deploy: {strategy: rolling, bake_max_5xx: 10%%}\n"
					 "traffic: {haproxy: {socket: %s%s%s}}\n",
		s->name, s->a_port, s->b_port, t->within, s->socket,
		t->server ? ", server: '{host}-{slot}'" : "", t->state_file ? file : "");
	if (bt_config_parse(text, strlen(text), "baton.yaml", NULL, NULL, &s->config, NULL, &err) <
		0)
		fail_msg("%s", err.text);
	s->service = (struct bt_service *)&s->config->services[0];
}

static void write_conf(struct shop *s, const struct traits *t)
{
	BT_FREE char *text = bt_asprintf("global\n"
					 "  stats socket %s mode 600 level %s\n"
					 "  server-state-file %s\n"
					 "defaults\n  mode %s\n"
					 "  timeout connect 2s\n  timeout client 30s\n"
					 "  timeout server 30s\n  retries 0\n"
					 "  load-server-state-from-file global\n"
					 "frontend all\n  bind 127.0.0.1:%u\n"
					 "  default_backend %s\n"
					 "backend other\n  server x 127.0.0.1:1\n"
					 "backend %s\n"
					 "  server was1-a 127.0.0.1:%u %s\n"
					 "  server was1-b 127.0.0.1:%u %s\n",
		s->socket, t->level, s->state_file, t->mode, s->port, s->name, s->name, s->a_port,
		t->check, s->b_port, t->check);
	put_file(s->conf, text);
}

static pid_t spawn_haproxy(const struct shop *s, pid_t old)
{
	char number[16];
	snprintf(number, sizeof number, "%d", (int)old);
	pid_t parent = getpid(), pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			execlp("haproxy", "haproxy", "-q", "-db", "-f", s->conf,
				old ? "-sf" : (char *)NULL, number, (char *)NULL);
		_exit(127);
	}
	return pid;
}

/* Until the process answers at the socket. */
static void wait_answers(const struct shop *s, pid_t pid)
{
	BT_FREE char *mine = bt_asprintf("\nPid: %d\n", (int)pid);
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	snprintf(at.sun_path, sizeof at.sun_path, "%s", s->socket);
	for (int64_t end = bt_clock_boot_ms() + 20000; bt_clock_boot_ms() < end;) {
		BT_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		char buf[8192] = "";
		size_t n = 0;
		if (connect(fd, (struct sockaddr *)&at, sizeof at) == 0 &&
			bt_fs_write_all(fd, "show info\n", 10) == 0)
			for (ssize_t k; n < sizeof buf - 1 &&
					(k = read(fd, buf + n, sizeof buf - 1 - n)) > 0;)
				n += (size_t)k;
		buf[n] = 0;
		if (strstr(buf, mine))
			return;
		poll(NULL, 0, 10);
	}
	fail_msg("haproxy %d does not answer at %s", (int)pid, s->socket);
}

static void start_haproxy(struct shop *s)
{
	s->haproxy = spawn_haproxy(s, 0);
	wait_answers(s, s->haproxy);
}

/* The older process stays until it has nothing to serve; it is returned. */
static pid_t reload_haproxy(struct shop *s)
{
	pid_t old = s->haproxy;
	s->haproxy = spawn_haproxy(s, old);
	wait_answers(s, s->haproxy);
	return old;
}

static void shop_new(struct shop *s, const char *name, const struct traits *t)
{
	*s = (struct shop){.name = name,
		.mode = t->mode,
		.port = next_port(),
		.a_port = next_port(),
		.b_port = next_port()};
	s->dir = bt_asprintf("%s/%s", world_dir, name);
	assert_int_equal(bt_fs_mkdirs(s->dir, 0755, NULL), 0);
	s->conf = bt_asprintf("%s/haproxy.cfg", s->dir);
	s->socket = bt_asprintf("%s/s", s->dir);
	s->state_file = bt_asprintf("%s/server-state", s->dir);
	s->a = backend_start("a", s->a_port);
	s->b = backend_start("b", s->b_port);
	read_config(s, t);
	write_conf(s, t);
	put_file(s->state_file, ""); /* as a person begins: haproxy warns where there is none */
	start_haproxy(s);
}

static void shop_end(struct shop *s)
{
	process_end(s->haproxy, SIGKILL);
	process_end(s->a, SIGKILL);
	if (s->b)
		process_end(s->b, SIGKILL);
	struct bt_l4_site *site = bt_l4_site_get(s->name);
	unlink(site->state_path);
	site->state = bt_l4_state_free(site->state);
	bt_config_free(s->config);
	free(s->dir);
	free(s->conf);
	free(s->socket);
	free(s->state_file);
}

static int apply(struct shop *s, uint64_t generation, int in, struct answer *a)
{
	struct bt_pool_member m[2] = {{"127.0.0.1", s->a_port, "a", "was1", in & A, false, false},
		{"127.0.0.1", s->b_port, "b", "was1", in & B, false, false}};
	struct bt_pool pool = {.name = "haproxy/shop",
		.service_name = s->name,
		.service = s->service,
		.generation = generation,
		.members = m,
		.n_members = 2};
	*a = (struct answer){0};
	ops->apply(&pool, on_progress, a, on_done, a);
	assert_false(a->done);
	run_until(&a->done);
	return a->result;
}

static void apply_good(struct shop *s, uint64_t generation, int in)
{
	struct answer a;
	if (apply(s, generation, in, &a) != 0)
		fail_msg("generation %d: %s", (int)generation, a.err.text);
}

struct view {
	bool done, running;
	int in;
	uint32_t connections;
	char trouble[512], refuses[512];
};

static void on_view(
	void *arg, int result, const struct bt_seen_balancer *seen, const struct bt_err *err)
{
	struct view *v = arg;
	(void)err;
	assert_int_equal(result, 0);
	v->done = true;
	v->running = seen->running;
	for (size_t i = 0; i < seen->n_members; i++)
		if (seen->members[i].in)
			v->in |= bt_streq(seen->members[i].slot, "a") ? A : B;
	snprintf(v->trouble, sizeof v->trouble, "%s", seen->trouble ? seen->trouble : "");
	snprintf(v->refuses, sizeof v->refuses, "%s", seen->refuses ? seen->refuses : "");
}

static struct view observe(struct shop *s)
{
	struct view v = {0};
	ops->observe("haproxy/shop", s->service, on_view, &v);
	run_until(&v.done);
	return v;
}

static void tend(struct shop *s)
{
	const struct bt_l4_site *site = bt_l4_site_get(s->name);
	ops->tend();
	while (site->running || site->queue)
		event_base_loop(world_env.base, EVLOOP_ONCE);
}

struct said {
	bool done;
	char text[16384];
};

static void on_text(void *arg, int result, const char *text, const struct bt_err *err)
{
	struct said *s = arg;
	(void)err;
	assert_int_equal(result, 0);
	snprintf(s->text, sizeof s->text, "%s", text);
	s->done = true;
}

/* As a person does it. */
static void person(struct shop *s, const char *command, struct said *ret)
{
	*ret = (struct said){0};
	bt_haproxy_ask(s->socket, command, on_text, ret);
	run_until(&ret->done);
}

static void answers(struct shop *s, const char *who)
{
	char body[256];
	for (int i = 0; i < 6; i++) {
		assert_int_equal(get(s->port, "/profile", body, sizeof body), 200);
		assert_string_equal(body, who);
	}
}

/* ---- switches ----------------------------------------------------------------------------- */

static void switches(struct shop *s)
{
	struct load load;
	apply_good(s, 1, A | B);
	load_start(&load, s->port, "/profile");
	uint64_t generation = 1;
	for (int i = 0; i < 4; i++) {
		apply_good(s, ++generation, A);
		run_for(50); /* what was asked before ends */
		answers(s, "a");
		apply_good(s, ++generation, A | B);
		apply_good(s, ++generation, B);
		run_for(50);
		answers(s, "b");
		apply_good(s, ++generation, A); /* all at once: in before out */
	}
	load_stop(&load);
	struct view v = observe(s);
	assert_true(v.running);
	assert_int_equal(v.in, A);
	assert_string_equal(v.trouble, "");
	assert_string_equal(v.refuses, "");
}

static void test_http(void **state)
{
	struct shop s;
	(void)state;
	shop_new(&s, "shop-http", &plain);
	switches(&s);
	shop_end(&s);
}

static void test_tcp(void **state)
{
	struct traits t = plain;
	struct shop s;
	(void)state;
	t.mode = "tcp";
	shop_new(&s, "shop-tcp", &t);
	switches(&s);
	shop_end(&s);
}

/* Without checks, without a template, without a state file. */
static void test_bare(void **state)
{
	struct traits t = plain;
	struct shop s;
	struct answer a;
	(void)state;
	t.check = "";
	t.state_file = t.server = false;
	shop_new(&s, "shop-bare", &t);
	switches(&s);
	s.a_port = 9; /* no server has that address */
	assert_int_equal(apply(&s, 100, A, &a), BT_E_NOTFOUND);
	contains(a.err.text, "knows no server at 127.0.0.1:");
	contains(a.err.text, "was1-b (127.0.0.1:");
	shop_end(&s);
}

static void until_down(struct shop *s)
{
	BT_FREE char *ask = bt_asprintf("show servers state %s", s->name);
	struct said said;
	process_end(s->b, SIGKILL);
	s->b = 0;
	do /* its checks have seen it */
		person(s, ask, &said);
	while (!strstr(said.text, "was1-b 127.0.0.1 0 "));
}

/* In is what haproxy sends to, and not what it was told. */
static void test_waits_until_seen(void **state)
{
	struct traits t = plain;
	struct shop s;
	struct answer a = {0};
	(void)state;
	t.within = "1s";
	shop_new(&s, "shop-slow", &t);
	apply_good(&s, 1, A);
	until_down(&s);
	assert_int_equal(apply(&s, 2, B, &a), BT_E_TIMEOUT);
	contains(a.err.text, "was1-b: DOWN, L4CON");
	contains(a.progress, "sends nothing yet to was1-b");
	assert_int_equal(observe(&s).in, A); /* and it is as it was */
	answers(&s, "a");

	bt_config_free(s.config);
	read_config(&s, &plain);
	struct bt_pool_member m[2] = {{"127.0.0.1", s.a_port, "a", "was1", false, false, false},
		{"127.0.0.1", s.b_port, "b", "was1", true, false, false}};
	struct bt_pool pool = {.name = "haproxy/shop",
		.service_name = s.name,
		.service = s.service,
		.generation = 3,
		.members = m,
		.n_members = 2};
	a = (struct answer){0};
	ops->apply(&pool, on_progress, &a, on_done, &a);
	while (!strstr(a.progress, "sends nothing yet"))
		event_base_loop(world_env.base, EVLOOP_ONCE);
	answers(&s, "a"); /* no gap meanwhile */
	assert_false(a.done);
	s.b = backend_start("b", s.b_port);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	answers(&s, "b");
	shop_end(&s);
}

/* Before baton has said anything, who is down does not serve; later, that is no reason to say so.
 */
static void test_found_down(void **state)
{
	struct traits t = plain;
	struct shop s;
	struct answer a;
	(void)state;
	t.within = "1s";
	shop_new(&s, "shop-down", &t);
	assert_int_equal(observe(&s).in, A | B);
	until_down(&s);
	assert_int_equal(observe(&s).in, A);
	assert_int_equal(apply(&s, 1, A | B, &a), BT_E_TIMEOUT); /* so b comes in */
	s.b = backend_start("b", s.b_port);
	apply_good(&s, 1, A | B);
	until_down(&s);
	struct view v = observe(&s);
	assert_int_equal(v.in, A | B);
	contains(v.trouble, "finds was1-b down: L4CON");
	apply_good(&s, 2, B); /* nor does a stay for b's sake */
	assert_int_equal(apply(&s, 3, A, &a), 0);
	struct said said;
	person(&s, "set server shop-down/was1-b state ready", &said);
	assert_int_equal(apply(&s, 4, A | B, &a), BT_E_TIMEOUT); /* told already, and not seen */
	shop_end(&s);
}

/* ---- mistakes ----------------------------------------------------------------------------- */

static void test_mistakes(void **state)
{
	struct shop s;
	struct answer a;
	(void)state;
	shop_new(&s, "shop-wrong", &plain);
	struct bt_l4 l4 = *s.service->l4;
	s.service->l4 = &l4;
	l4.haproxy.backend = "shop-wring";
	assert_int_equal(apply(&s, 1, A, &a), BT_E_NOTFOUND);
	contains(a.err.text, "no backend shop-wring (did you mean shop-wrong?)");
	contains(a.err.text, "it has other, shop-wrong");
	contains(observe(&s).refuses, "no backend shop-wring");
	l4.haproxy.backend = "shop-wrong";
	l4.haproxy.server = "{host}_{slot}";
	assert_int_equal(apply(&s, 1, A, &a), BT_E_NOTFOUND);
	contains(a.err.text, "haproxy on was1 knows no server was1_a (was1/a)");
	contains(a.err.text, "did you mean was1-a?");
	contains(observe(&s).refuses, "knows no server was1_a");
	l4.haproxy.server = "{host}-{slot}";
	l4.haproxy.state_file = "/proc/nowhere/file";
	assert_true(apply(&s, 1, A, &a) < 0);
	contains(a.err.text, "/proc/nowhere/file");
	assert_int_equal(observe(&s).in, A | B); /* taken back */
	l4.haproxy.state_file = NULL;
	l4.haproxy.socket = "/tmp/no-such-socket";
	assert_int_equal(apply(&s, 1, A, &a), BT_E_UNREACHABLE);
	contains(a.err.text, "there is no stats socket /tmp/no-such-socket");
	struct view v = observe(&s);
	assert_false(v.running);
	contains(v.refuses, "there is no stats socket");
	l4.haproxy.socket = s.conf; /* a file */
	assert_true(apply(&s, 1, A, &a) < 0);
	l4.haproxy.socket = s.socket;
	process_end(s.haproxy, SIGKILL);
	assert_int_equal(apply(&s, 1, A, &a), BT_E_UNREACHABLE);
	contains(a.err.text, "is haproxy running?");
	start_haproxy(&s);
	apply_good(&s, 1, A);
	shop_end(&s);
}

static void test_level(void **state)
{
	struct traits t = plain;
	struct shop s;
	struct answer a;
	(void)state;
	t.level = "operator";
	shop_new(&s, "shop-level", &t);
	assert_int_equal(apply(&s, 1, A, &a), BT_E_REFUSED);
	contains(a.err.text, "level admin");
	struct view v = observe(&s);
	assert_true(v.running);
	contains(v.refuses, "level admin");
	shop_end(&s);
}

/* Who listens there is not haproxy: one that says nothing, one that never ends. */
static void test_strangers(void **state)
{
	struct shop s;
	struct answer a;
	(void)state;
	shop_new(&s, "shop-strange", &plain);
	struct bt_l4 l4 = *s.service->l4;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	s.service->l4 = &l4;
	snprintf(at.sun_path, sizeof at.sun_path, "%s/mute", s.dir);
	int mute = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(mute, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(mute, 8), 0);
	l4.haproxy.socket = at.sun_path;
	assert_int_equal(apply(&s, 1, A, &a), BT_E_UNREACHABLE);
	contains(a.err.text, at.sun_path);
	close(mute);

	unlink(at.sun_path);
	int loud = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(loud, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(loud, 8), 0);
	pid_t pid = fork();
	if (pid == 0) {
		static char zeros[65536];
		int fd = accept(loud, NULL, NULL);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		memset(zeros, 'x', sizeof zeros);
		while (write(fd, zeros, sizeof zeros) > 0)
			;
		_exit(0);
	}
	assert_int_equal(apply(&s, 1, A, &a), BT_E_PROTOCOL);
	contains(a.err.text, "more than 4 MiB");
	process_end(pid, SIGKILL);
	close(loud);
	shop_end(&s);
}

/* ---- what haproxy forgets ----------------------------------------------------------------- */

static void test_reload_with_state_file(void **state)
{
	struct shop s;
	struct said said;
	(void)state;
	shop_new(&s, "shop-reload", &plain);
	apply_good(&s, 1, A);
	pid_t old = reload_haproxy(&s);
	waitpid(old, NULL, 0);
	person(&s, "show servers state shop-reload", &said);
	contains(said.text, "was1-b 127.0.0.1 2 8 "); /* it drains, and nobody said so again */
	answers(&s, "a");
	assert_string_equal(observe(&s).trouble, "");
	apply_good(&s, 2, B);
	old = reload_haproxy(&s);
	waitpid(old, NULL, 0);
	answers(&s, "b");
	shop_end(&s);
}

static void test_restart_without_state_file(void **state)
{
	struct traits t = plain;
	struct shop s;
	(void)state;
	t.state_file = false;
	shop_new(&s, "shop-restart", &t);
	apply_good(&s, 1, A);
	tend(&s);
	process_end(s.haproxy, SIGKILL);
	tend(&s);
	start_haproxy(&s);
	assert_int_equal(observe(&s).in, A | B); /* it has forgotten */
	tend(&s);
	assert_int_equal(observe(&s).in, A);
	answers(&s, "a");
	shop_end(&s);
}

static void test_people(void **state)
{
	struct shop s;
	struct said said;
	(void)state;
	shop_new(&s, "shop-people", &plain);
	apply_good(&s, 1, A | B);
	person(&s, "set server shop-people/was1-a state maint", &said);
	tend(&s);
	struct view v = observe(&s);
	assert_int_equal(v.in, B);
	assert_string_equal(
		v.trouble, "haproxy has was1/a in maintenance, baton's last word was in rotation");
	apply_good(&s, 2, B); /* out is out: maintenance stays what it is */
	person(&s, "show servers state shop-people", &said);
	contains(said.text, "was1-a 127.0.0.1 0 1 ");
	apply_good(&s, 3, A | B);
	assert_string_equal(observe(&s).trouble, "");
	shop_end(&s);
}

/* ---- drain and bake ----------------------------------------------------------------------- */

static void begin_drain(struct shop *s, int64_t wait_ms, struct answer *a)
{
	struct bt_pool_member m = {"127.0.0.1", s->a_port, "a", "was1", false, false, false};
	struct bt_drain_request rq = {.name = "haproxy/shop",
		.service = s->service,
		.members = &m,
		.n_members = 1,
		.wait_ms = wait_ms};
	*a = (struct answer){0};
	ops->drain(&rq, on_progress, a, on_done, a);
}

static void until_line(struct answer *a, const char *line)
{
	for (int64_t end = bt_clock_boot_ms() + 20000;
		!strstr(a->progress, line) && bt_clock_boot_ms() < end;)
		event_base_loop(world_env.base, EVLOOP_ONCE);
	contains(a->progress, line);
}

static int hold_request(uint16_t port)
{
	static const char rq[] = "GET /hold HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
	int fd = dial(port);
	assert_true(fd >= 0);
	assert_int_equal(bt_fs_write_all(fd, rq, sizeof rq - 1), 0);
	return fd;
}

static void until_held(uint16_t port)
{
	char body[64];
	for (int i = 0; i < 1000 && get(port, "/held", body, sizeof body) && atoi(body) == 0; i++)
		poll(NULL, 0, 10);
	assert_int_equal(atoi(body), 1);
}

static void drains(struct shop *s, bool reload)
{
	struct answer a;
	char body[64];
	pid_t old = 0;
	apply_good(s, 1, A);
	int held = hold_request(s->port);
	until_held(s->a_port);
	apply_good(s, 2, B);
	if (reload)
		old = reload_haproxy(s);
	begin_drain(s, 200, &a);
	run_until(&a.done);
	assert_int_equal(a.result, 1);
	assert_string_equal(a.err.text, "still 1 connection when the drain time passed");
	begin_drain(s, 30000, &a);
	until_line(&a, "1 connection\n");
	assert_int_equal(get(s->a_port, "/release", body, sizeof body), 200);
	assert_true(read(held, body, sizeof body) > 0); /* it is answered */
	close(held);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	if (old)
		waitpid(old, NULL, 0);
}

static void test_drain_http(void **state)
{
	struct shop s;
	(void)state;
	shop_new(&s, "shop-drain", &plain);
	drains(&s, false);
	shop_end(&s);
}

static void test_drain_tcp(void **state)
{
	struct traits t = plain;
	struct shop s;
	(void)state;
	t.mode = "tcp";
	shop_new(&s, "shop-drain-tcp", &t);
	drains(&s, false);
	shop_end(&s);
}

/* What the process of before the reload still serves counts, too. */
static void test_drain_over_reload(void **state)
{
	struct shop s;
	(void)state;
	shop_new(&s, "shop-drain-old", &plain);
	drains(&s, true);
	shop_end(&s);
}

static void test_bake(void **state)
{
	struct traits t = plain;
	struct shop s;
	struct answer a = {0};
	char body[64];
	(void)state;
	shop_new(&s, "shop-bake", &plain);
	apply_good(&s, 1, A);
	ops->watch("haproxy/shop", s.service, 60000, on_progress, &a, on_done, &a);
	until_line(&a, "0 answers, 0 of them 5xx");
	for (int i = 0; i < 25; i++)
		assert_int_equal(get(s.port, "/fail", body, sizeof body), 500);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_FAILED);
	contains(a.err.text, "with 5xx, more than 10%");
	a = (struct answer){0};
	ops->watch("haproxy/shop", s.service, 100, on_progress, &a, on_done, &a);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	shop_end(&s);

	t.mode = "tcp";
	shop_new(&s, "shop-bake-tcp", &t);
	apply_good(&s, 1, A);
	a = (struct answer){0};
	ops->watch("haproxy/shop", s.service, 100, on_progress, &a, on_done, &a);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	assert_string_equal(a.progress, "haproxy does not count answers\n");
	shop_end(&s);
}

static int setup(void **state)
{
	char dir[] = "/tmp/baton-haproxy-XXXXXX";
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	if (!mkdtemp(dir))
		return -1;
	world_open(dir);
	return ops->init(&world_env, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_servers),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_http),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_bare),
		cmocka_unit_test(test_waits_until_seen),
		cmocka_unit_test(test_found_down),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_strangers),
		cmocka_unit_test(test_reload_with_state_file),
		cmocka_unit_test(test_restart_without_state_file),
		cmocka_unit_test(test_people),
		cmocka_unit_test(test_drain_http),
		cmocka_unit_test(test_drain_tcp),
		cmocka_unit_test(test_drain_over_reload),
		cmocka_unit_test(test_bake),
	};
	return cmocka_run_group_tests(tests, setup, world_teardown);
}
