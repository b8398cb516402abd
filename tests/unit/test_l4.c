/* What all L4 balancers have in common, with a family of this test's own, whose balancer is a page
 * of memory in a file: it outlives the process that is told to crash (`test_l4 crash STEP DIR
 * SERVICE GENERATION IN`). */
#include "expect.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/loop.h"
#include "base/mem.h"
#include "base/str.h"
#include "config/config.h"
#include "driver/l4.h"
#include "driver/l4_site.h"
#include "driver/members.h"
#include "driver/op.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct bt_driver_env env;
static const struct bt_balancer_ops *const ops = &bt_balancer_l4;

/* ---- the balancer of this test ------------------------------------------------------------ */

enum { A = 1, B = 2, SLOTS = 2 };

struct fake {
	bool running, no_read;
	uint64_t epoch;
	int in;		   /* bits of slots */
	int fail_writes;   /* so many from now on fail, after they began */
	bool hold_writes;  /* they wait */
	bool deaf;	   /* says it did, and did not */
	bool shared;	   /* others write to it, too */
	int writes, again; /* that were asked for; that were `again` */
	int fresh;	   /* bits of the last write */
	bool no_counts;
	uint32_t connections[SLOTS];
	int64_t all, failed;
	bool no_answers;
};
static struct fake *fake;

struct fake_op {
	struct bt_op op;
	struct event *timer;
	const struct bt_l4_target *t;
	bt_progress_fn progress;
	void *progress_arg;
	bt_done_fn done;
	bt_l4_seen_fn seen;
	bt_l4_answers_fn answers;
	void *arg;
};

static void fake_cancel(struct bt_op *op)
{
	struct fake_op *f = (struct fake_op *)op;
	event_free(f->timer);
	free(f);
}

static int bit_of(const char *slot)
{
	return bt_streq(slot, "a") ? A : B;
}

static void fake_write_now(struct fake_op *f)
{
	struct bt_err err = {0};
	if (fake->hold_writes) {
		bt_timer_in(f->timer, 5);
		return;
	}
	if (!fake->running)
		bt_err_set(&err, BT_E_UNREACHABLE, "fake is not there");
	else if (fake->fail_writes > 0) {
		fake->fail_writes--;
		bt_err_set(&err, BT_E_FAILED, "fake said no");
	}
	for (size_t i = 0; err.code == 0 && !fake->deaf && i < f->t->n_members; i++) {
		int bit = bit_of(f->t->members[i].slot);
		fake->in = f->t->members[i].in ? fake->in | bit : fake->in & ~bit;
	}
	if (f->progress)
		f->progress(f->progress_arg, "fake writes");
	f->done(f->arg, err.code, &err);
	fake_cancel(&f->op);
}

static void fake_read_now(struct fake_op *f)
{
	struct bt_err err = {0};
	if (fake->no_read) {
		bt_err_set(&err, BT_E_FAILED, "fake lets nobody look");
		f->seen(f->arg, err.code, NULL, &err);
		fake_cancel(&f->op);
		return;
	}
	struct bt_seen_member m[SLOTS] = {
		{.host = "was1", .slot = "a"}, {.host = "was1", .slot = "b"}};
	const char *words[SLOTS] = {NULL, NULL};
	for (int i = 0; i < SLOTS; i++) {
		m[i].address = "10.0.0.1";
		m[i].port = (uint16_t)(8081 + i);
		m[i].in = fake->in >> i & 1;
		m[i].counted = !fake->no_counts;
		m[i].connections = fake->connections[i];
		words[i] = m[i].in ? NULL : "in maintenance";
	}
	struct bt_l4_seen seen = {.running = fake->running,
		.epoch = fake->running ? fake->epoch : 0,
		.members = m,
		.n_members = fake->running ? SLOTS : 0,
		.words = words,
		.shared = fake->shared};
	f->seen(f->arg, 0, &seen, &err);
	fake_cancel(&f->op);
}

static void fake_answer_now(struct fake_op *f)
{
	struct bt_err err = {0};
	struct bt_l4_answers now = {.counted = !fake->no_counts,
		.all = fake->all,
		.failed = fake->failed,
		.epoch = fake->epoch};
	if (fake->no_answers)
		bt_err_set(&err, BT_E_UNREACHABLE, "fake is not there");
	f->answers(f->arg, err.code, &now, &err);
	fake_cancel(&f->op);
}

static void on_fake(evutil_socket_t fd, short what, void *arg)
{
	struct fake_op *f = arg;
	(void)fd;
	(void)what;
	if (f->seen)
		fake_read_now(f);
	else if (f->answers)
		fake_answer_now(f);
	else
		fake_write_now(f);
}

static struct fake_op *fake_op(const struct bt_l4_target *t, void *arg)
{
	struct fake_op *f = bt_calloc(1, sizeof *f);
	f->op.cancel = fake_cancel;
	f->t = t;
	f->arg = arg;
	f->timer = event_new(env.base, -1, 0, on_fake, f);
	bt_timer_in(f->timer, 1);
	return f;
}

static struct bt_op *fake_write(const struct bt_l4_target *t, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct fake_op *f = fake_op(t, arg);
	f->progress = progress;
	f->progress_arg = progress_arg;
	f->done = done;
	fake->writes++;
	fake->again += t->again;
	fake->fresh = 0;
	for (size_t i = 0; t->fresh && i < t->n_members; i++)
		fake->fresh |= t->fresh[i] ? bit_of(t->members[i].slot) : 0;
	return &f->op;
}

static struct bt_op *fake_read(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg)
{
	struct fake_op *f = fake_op(t, arg);
	f->seen = done;
	return &f->op;
}

static struct bt_op *fake_answers(const struct bt_l4_target *t, bt_l4_answers_fn done, void *arg)
{
	struct fake_op *f = fake_op(t, arg);
	f->answers = done;
	return &f->op;
}

static int resumed = -1; /* bits that were in */

static void fake_resume(const struct bt_l4_target *t)
{
	resumed = 0;
	for (size_t i = 0; i < t->n_members; i++)
		if (t->members[i].in)
			resumed |= bit_of(t->members[i].slot);
}

static const struct bt_l4_family fake_family = {.kind = BT_BALANCER_HAPROXY,
	.write = fake_write,
	.read = fake_read,
	.answers = fake_answers,
	.resume = fake_resume};
static const struct bt_l4_family blind_family = {
	.kind = BT_BALANCER_HTTP, .write = fake_write, .read = fake_read};
/* In place of the driver's own list. */
const struct bt_l4_family *const bt_l4_families[] = {&fake_family, &blind_family, NULL};

/* ---- the world ---------------------------------------------------------------------------- */

static void map_fake(void)
{
	BT_FREE char *path = bt_asprintf("%s/fake", dir);
	BT_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, sizeof *fake), 0);
	fake = mmap(NULL, sizeof *fake, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(fake != MAP_FAILED);
}

static void open_world(const char *where)
{
	snprintf(dir, sizeof dir, "%s", where);
	struct event_base *base = event_base_new();
	env = (struct bt_driver_env){.base = base,
		.work = bt_work_new(base, 2),
		.host = "was1",
		.state_dir = bt_asprintf("%s/state", dir)};
	map_fake();
}

static void start_driver(void)
{
	struct bt_err err = {0};
	if (ops->init(&env, &err) < 0)
		fail_msg("init: %s", err.text);
}

static int setup(void **state)
{
	char made[] = "/tmp/baton-l4-XXXXXX";
	(void)state;
	if (!mkdtemp(made))
		return -1;
	open_world(made);
	return ops->init(&env, NULL);
}

static int teardown(void **state)
{
	(void)state;
	bt_work_free(env.work);
	bt_fs_remove_tree(dir, NULL);
	free((char *)env.state_dir);
	munmap(fake, sizeof *fake);
	return 0;
}

/* Without the services of the tests before, which the one balancer here is not for. */
static void forget_services(void)
{
	for (struct bt_l4_site *s = bt_l4_driver()->sites; s; s = s->next) {
		unlink(s->state_path);
		s->state = bt_l4_state_free(s->state);
		s->owed = s->asked = s->recovering = false;
		free(s->trouble);
		s->trouble = NULL;
	}
}

static int fresh(void **state)
{
	(void)state;
	forget_services();
	*fake = (struct fake){.running = true, .epoch = 7};
	resumed = -1;
	return 0;
}

struct answer {
	bool done;
	int result;
	struct bt_err err;
	char progress[512];
};

static void on_done(void *arg, int result, const struct bt_err *err)
{
	struct answer *a = arg;
	assert_false(a->done);
	a->done = true;
	a->result = result;
	if (err)
		a->err = *err;
}

static void on_line(void *arg, const char *line)
{
	struct answer *a = arg;
	snprintf(a->progress, sizeof a->progress, "%s", line);
}

static void run_until(const bool *flag)
{
	for (int64_t end = bt_clock_boot_ms() + 30000; !*flag && bt_clock_boot_ms() < end;) {
		struct timeval tick = {0, 20000};
		event_base_loopexit(env.base, &tick);
		event_base_loop(env.base, EVLOOP_ONCE);
	}
	assert_true(*flag);
}

static bool idle(const struct bt_l4_site *s)
{
	return !s->running && !s->queue;
}

static void run_idle(const char *service)
{
	const struct bt_l4_site *s = bt_l4_site_get(service);
	bool done = idle(s);
	for (int64_t end = bt_clock_boot_ms() + 30000; !done && bt_clock_boot_ms() < end;
		done = idle(s)) {
		event_base_loop(env.base, EVLOOP_ONCE);
	}
	assert_true(done);
}

static void tend(const char *service)
{
	ops->tend();
	run_idle(service);
}

/* ---- a service ---------------------------------------------------------------------------- */

struct shop {
	const char *name;
	struct bt_config *config;
	const struct bt_service *service;
};

static struct shop shop_new(const char *name)
{
	struct shop s = {.name = name};
	struct bt_err err = {0};
	BT_FREE char *text =
		bt_asprintf("service: %s\nhosts: [was1]\n"
			    "run:\n  command: app {port}\n  slots: {a: 8081, b: 8082}\n"
			    "deploy: {strategy: rolling, bake_max_5xx: 10%%}\n"
			    "traffic: {haproxy: {on: l4, socket: /run/l4.sock}}\n",
			name);
	if (bt_config_parse(text, strlen(text), "baton.yaml", NULL, NULL, &s.config, NULL, &err) <
		0)
		fail_msg("%s", err.text);
	s.service = &s.config->services[0];
	return s;
}

static int coming; /* bits of whom the change says that it brings */

static struct bt_op *begin_apply(struct shop *s, uint64_t generation, int in, struct answer *a)
{
	struct bt_pool_member m[SLOTS] = {{.address = "10.0.0.1",
						  .port = 8081,
						  .slot = "a",
						  .host = "was1",
						  .in = in & A,
						  .comes = coming & A},
		{.address = "10.0.0.1",
			.port = 8082,
			.slot = "b",
			.host = "was1",
			.in = in & B,
			.comes = coming & B}};
	struct bt_pool pool = {.name = "haproxy/shop",
		.service_name = s->name,
		.service = s->service,
		.generation = generation,
		.members = m,
		.n_members = SLOTS};
	*a = (struct answer){0};
	return ops->apply(&pool, on_line, a, on_done, a);
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
	assert_int_equal(fake->in, in);
}

static int hold(struct shop *s, const char *const *slots, size_t n, struct answer *a)
{
	*a = (struct answer){0};
	ops->hold(s->service, slots, n, on_done, a);
	run_until(&a->done);
	return a->result;
}

struct view {
	bool done, running;
	uint64_t generation;
	int in;
	size_t n;
	char trouble[256], refuses[256];
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
	v->n = seen->n_members;
	for (size_t i = 0; i < seen->n_members; i++)
		if (seen->members[i].in)
			v->in |= bit_of(seen->members[i].slot);
	snprintf(v->trouble, sizeof v->trouble, "%s", seen->trouble ? seen->trouble : "");
	snprintf(v->refuses, sizeof v->refuses, "%s", seen->refuses ? seen->refuses : "");
}

static struct view observe(struct shop *s)
{
	struct view v = {0};
	ops->observe("haproxy/shop", s->service, on_view, &v);
	assert_false(v.done);
	run_until(&v.done);
	return v;
}

static struct bt_l4_state *on_disk(const char *service)
{
	struct bt_l4_state *s = NULL;
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/state/l4/%s/state.json", dir, service);
	int r = bt_l4_state_load(path, &s, &err);
	if (r < 0)
		fail_msg("%s", err.text);
	return r == 0 ? s : NULL;
}

static void crash(const char *step, struct shop *s, int generation, int in);
static void expect_state(struct shop *s, uint64_t generation, int in);

/* ---- apply -------------------------------------------------------------------------------- */

static void test_apply(void **state)
{
	struct shop s = shop_new("apply");
	struct answer a;
	(void)state;
	assert_int_equal(apply(&s, 1, A | B, &a), 0);
	assert_string_equal(a.progress, "fake writes");
	assert_int_equal(fake->in, A | B);
	struct bt_l4_state *d = on_disk("apply");
	assert_non_null(d);
	assert_true(d->has_confirmed && !d->has_pending);
	assert_int_equal(d->confirmed.generation, 1);
	assert_int_equal(d->epoch, 7);
	assert_string_equal(d->confirmed.service->l4->haproxy.socket, "/run/l4.sock");
	bt_l4_state_free(d);
	struct stat st;
	BT_FREE char *path = bt_asprintf("%s/state/l4/apply/state.json", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	struct view v = observe(&s);
	assert_true(v.running);
	assert_int_equal(v.generation, 1);
	assert_int_equal(v.in, A | B);
	assert_string_equal(v.trouble, "");
	bt_config_free(s.config);
}

static void test_generations(void **state)
{
	struct shop s = shop_new("generations");
	struct answer a;
	(void)state;
	apply_good(&s, 5, A | B);
	int writes = fake->writes;
	assert_int_equal(apply(&s, 5, A | B, &a), 0); /* the same again */
	assert_int_equal(apply(&s, 4, A | B, &a), 0);
	assert_int_equal(fake->writes, writes);
	assert_int_equal(apply(&s, 5, A, &a), BT_E_REFUSED);
	assert_int_equal(apply(&s, 4, A, &a), BT_E_REFUSED);
	contains(a.err.text, "not newer than 5");
	assert_int_equal(fake->in, A | B);
	apply_good(&s, 6, A);
	bt_config_free(s.config);
}

/* Who has to be seen taking requests: who was out by the last word, whatever the balancer has. */
static void test_fresh(void **state)
{
	struct shop s = shop_new("fresh");
	(void)state;
	apply_good(&s, 1, A);
	assert_int_equal(fake->fresh, A); /* there was no last word */
	fake->in = A | B;
	apply_good(&s, 2, A | B);
	assert_int_equal(fake->fresh, B);
	apply_good(&s, 3, B);
	assert_int_equal(fake->fresh, 0);
	crash("written", &s, 4, A);
	expect_state(&s, 4, A);
	assert_int_equal(fake->fresh, A); /* also after a crash */
	bt_config_free(s.config);
}

/* The first change knows no last word: who serves already, or is down, is not waited for when the
 * change says whom it brings; and neither after a crash, since that is on disk. */
static void test_fresh_of_the_first(void **state)
{
	struct shop s = shop_new("coming");
	(void)state;
	coming = B;
	apply_good(&s, 1, A | B);
	coming = 0;
	assert_int_equal(fake->fresh, B);
	bt_config_free(s.config);

	const struct bt_pool_member m[] = {
		{.address = "10.0.0.1", .port = 1, .slot = "a", .host = "was1"},
		{.address = "10.0.0.1", .port = 2, .slot = "b", .host = "was1", .comes = true}};
	json_t *j = json_pack("{s:o}", "members", bt_members_to_json(m, 2));
	struct bt_arena *a = bt_arena_new();
	const struct bt_pool_member *read = NULL;
	size_t n = 0;
	assert_int_equal(bt_members_from_json(j, "members", a, &read, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_false(read[0].comes);
	assert_true(read[1].comes);
	bt_arena_free(a);
	json_decref(j);
}

static void test_failure_goes_back(void **state)
{
	struct shop s = shop_new("back");
	struct answer a;
	(void)state;
	apply_good(&s, 1, A | B);
	fake->fail_writes = 1;
	assert_int_equal(apply(&s, 2, A, &a), BT_E_FAILED);
	assert_string_equal(a.err.text, "fake said no");
	assert_int_equal(fake->in, A | B);
	assert_int_equal(fake->again, 1);
	struct bt_l4_state *d = on_disk("back");
	assert_false(d->has_pending);
	assert_int_equal(d->confirmed.generation, 1);
	bt_l4_state_free(d);

	fake->deaf = true; /* what was not done is not confirmed */
	assert_int_equal(apply(&s, 2, A, &a), BT_E_FAILED);
	contains(a.err.text,
		"haproxy has was1/b in rotation, baton's last word was out of rotation");
	fake->deaf = false;
	apply_good(&s, 2, A);
	bt_config_free(s.config);
}

static void test_failure_without_way_back(void **state)
{
	struct shop s = shop_new("stuck");
	struct answer a;
	(void)state;
	apply_good(&s, 1, A | B);
	fake->fail_writes = 2;
	assert_int_equal(apply(&s, 2, A, &a), BT_E_FAILED);
	contains(a.err.text,
		"fake said no; and it could not be told again what was in force before");
	contains(observe(&s).trouble, "could not be told again");
	fake->in = A; /* half of it was done */
	tend("stuck");
	assert_int_equal(fake->in, A | B);
	assert_string_equal(observe(&s).trouble, "");
	bt_config_free(s.config);
}

static void test_first_failure(void **state)
{
	struct shop s = shop_new("first");
	struct answer a;
	(void)state;
	fake->fail_writes = 1;
	assert_int_equal(apply(&s, 1, A, &a), BT_E_FAILED);
	assert_null(on_disk("first"));
	assert_int_equal(fake->writes, 1);
	assert_int_equal(observe(&s).generation, 0);
	apply_good(&s, 1, A);
	bt_config_free(s.config);
}

static void test_queue_and_cancel(void **state)
{
	struct shop s = shop_new("queue");
	struct answer one, two, three;
	(void)state;
	fake->hold_writes = true;
	struct bt_op *first = begin_apply(&s, 1, A, &one);
	begin_apply(&s, 2, B, &two);
	struct bt_op *last = begin_apply(&s, 3, A | B, &three);
	while (fake->writes == 0)
		event_base_loop(env.base, EVLOOP_ONCE);
	bt_op_cancel(last);  /* waits: goes away */
	bt_op_cancel(first); /* has begun: ends unheard */
	fake->hold_writes = false;
	run_until(&two.done);
	assert_int_equal(two.result, 0);
	run_idle("queue");
	assert_false(one.done);
	assert_false(three.done);
	assert_int_equal(fake->writes, 2);
	assert_int_equal(fake->in, B);
	assert_int_equal(observe(&s).generation, 2);
	bt_config_free(s.config);
}

static void test_nowhere_to_write(void **state)
{
	struct shop s = shop_new("full");
	struct answer a;
	(void)state;
	apply_good(&s, 1, A | B);
	BT_FREE char *at = bt_asprintf("%s/state/l4/full", dir);
	BT_FREE char *aside = bt_asprintf("%s.aside", at);
	assert_int_equal(rename(at, aside), 0);
	BT_CLOSE int fd = open(at, O_CREAT | O_WRONLY | O_CLOEXEC, 0600); /* a file in its place */
	assert_true(fd >= 0);
	assert_true(apply(&s, 2, A, &a) < 0);
	assert_int_equal(fake->in, A | B); /* untouched: pending was not on disk */
	assert_int_equal(fake->writes, 1);
	unlink(at);
	assert_int_equal(rename(aside, at), 0);
	apply_good(&s, 2, A);
	bt_config_free(s.config);
}

/* ---- crashes ------------------------------------------------------------------------------ */

static const char *crash_at;

static void on_step(const char *step)
{
	if (!strcmp(step, crash_at))
		_exit(42);
}

static int crash_main(char **argv)
{
	crash_at = argv[2];
	open_world(argv[3]);
	start_driver();
	struct shop s = shop_new(argv[4]);
	struct answer a;
	bt_l4_step_hook = on_step;
	begin_apply(&s, (uint64_t)atoi(argv[5]), atoi(argv[6]), &a);
	run_until(&a.done);
	return 1; /* it was to crash */
}

static void crash(const char *step, struct shop *s, int generation, int in)
{
	char number[16], bits[16];
	snprintf(number, sizeof number, "%d", generation);
	snprintf(bits, sizeof bits, "%d", in);
	pid_t pid = fork();
	if (pid == 0) {
		execl("/proc/self/exe", "test_l4", "crash", step, dir, s->name, number, bits, NULL);
		_exit(1);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 42);
}

static void expect_state(struct shop *s, uint64_t generation, int in)
{
	start_driver(); /* as an agent that starts anew */
	struct view v = observe(s);
	assert_int_equal(v.generation, generation);
	assert_int_equal(v.in, in);
	assert_int_equal(fake->in, in);
	assert_string_equal(v.trouble, "");
	struct bt_l4_state *d = on_disk(s->name);
	assert_false(d->has_pending);
	bt_l4_state_free(d);
}

static void test_crash_after_pending(void **state)
{
	struct shop s = shop_new("crash-pending");
	(void)state;
	apply_good(&s, 1, A | B);
	crash("pending", &s, 2, A);
	assert_int_equal(fake->in, A | B);
	expect_state(&s, 1, A | B); /* it had not reached the balancer */
	assert_int_equal(resumed, A | B);
	apply_good(&s, 2, A);
	bt_config_free(s.config);
}

static void test_crash_after_written(void **state)
{
	struct shop s = shop_new("crash-written");
	(void)state;
	apply_good(&s, 1, A | B);
	crash("written", &s, 2, A);
	assert_int_equal(fake->in, A);
	expect_state(&s, 2, A);
	bt_config_free(s.config);
}

static void test_crash_half_written(void **state)
{
	struct shop s = shop_new("crash-half");
	(void)state;
	apply_good(&s, 1, A);
	crash("pending", &s, 2, B);
	fake->in = A | B;
	expect_state(&s, 1, A);
	bt_config_free(s.config);
}

static void test_crash_of_the_first(void **state)
{
	struct shop s = shop_new("crash-first");
	(void)state;
	crash("pending", &s, 1, A);
	assert_int_equal(fake->in, 0);
	expect_state(&s, 1, A); /* there is nothing to go back to */
	bt_config_free(s.config);
}

static void test_crash_after_confirmed(void **state)
{
	struct shop s = shop_new("crash-confirmed");
	(void)state;
	apply_good(&s, 1, A | B);
	crash("confirmed", &s, 2, A);
	int writes = fake->writes;
	expect_state(&s, 2, A);
	assert_int_equal(fake->writes, writes);
	bt_config_free(s.config);
}

static void test_crash_on_the_way_back(void **state)
{
	struct shop s = shop_new("crash-back");
	(void)state;
	apply_good(&s, 1, A | B);
	fake->fail_writes = 1;
	crash("restored", &s, 2, A);
	expect_state(&s, 1, A | B);
	fake->fail_writes = 1;
	crash("cleared", &s, 2, A);
	expect_state(&s, 1, A | B);
	bt_config_free(s.config);
}

static void test_crash_and_no_balancer(void **state)
{
	struct shop s = shop_new("crash-away");
	(void)state;
	apply_good(&s, 1, A | B);
	crash("written", &s, 2, A);
	fake->running = false;
	start_driver();
	struct view v = observe(&s); /* does not wait for what cannot be finished */
	assert_false(v.running);
	assert_int_equal(v.generation, 1);
	assert_int_equal(v.in, A | B); /* what was confirmed stands for it */
	fake->running = true;
	tend("crash-away");
	v = observe(&s);
	assert_int_equal(v.generation, 2);
	assert_int_equal(fake->in, A);
	bt_config_free(s.config);
}

/* A pending that nobody could finish does not stand in the way of the next change. */
static void test_next_over_pending(void **state)
{
	struct shop s = shop_new("crash-next");
	(void)state;
	apply_good(&s, 1, A | B);
	crash("pending", &s, 2, A);
	fake->running = false;
	start_driver();
	run_idle(s.name);
	fake->running = true;
	apply_good(&s, 3, B);
	expect_state(&s, 3, B);
	bt_config_free(s.config);
}

/* ---- tend --------------------------------------------------------------------------------- */

static void test_tend_after_restart(void **state)
{
	struct shop s = shop_new("tend");
	(void)state;
	apply_good(&s, 1, A);
	fake->in = A | B; /* a restart: it forgot, and counts anew */
	fake->epoch = 8;
	tend("tend");
	assert_int_equal(fake->in, A);
	assert_int_equal(fake->again, 1);
	struct bt_l4_state *d = on_disk("tend");
	assert_int_equal(d->epoch, 8);
	bt_l4_state_free(d);
	tend("tend");
	assert_int_equal(fake->again, 1);

	fake->epoch = 9; /* one that forgot nothing */
	tend("tend");
	assert_int_equal(fake->again, 1);
	d = on_disk("tend");
	assert_int_equal(d->epoch, 9);
	bt_l4_state_free(d);
	bt_config_free(s.config);
}

static void test_tend_leaves_people(void **state)
{
	struct shop s = shop_new("drift");
	(void)state;
	apply_good(&s, 1, A | B);
	fake->in = B;
	tend("drift");
	start_driver(); /* nor does a start of the agent fight it */
	tend("drift");
	assert_int_equal(fake->in, B);
	struct view v = observe(&s);
	assert_int_equal(v.in, B);
	assert_string_equal(
		v.trouble, "haproxy has was1/a in maintenance, baton's last word was in rotation");
	apply_good(&s, 2, A | B); /* the next change decides */
	bt_config_free(s.config);
}

/* Who checks the members puts back those that are well; nobody has to ask for a look. */
static void test_out_stays_out_where_others_write(void **state)
{
	struct shop s = shop_new("shared");
	(void)state;
	fake->shared = true;
	apply_good(&s, 1, A);
	fake->in = A | B;
	bool out = false;
	for (int64_t end = bt_clock_boot_ms() + 30000; !out && bt_clock_boot_ms() < end;) {
		event_base_loop(env.base, EVLOOP_ONCE);
		out = fake->in == A;
	}
	assert_true(out);
	run_idle("shared");
	fake->in = 0; /* whom they take out stays out */
	tend("shared");
	assert_int_equal(fake->in, 0);
	assert_string_equal(observe(&s).trouble,
		"haproxy has was1/a in maintenance, baton's last word was in rotation");
	bt_config_free(s.config);
}

static void test_tend_when_it_came_back(void **state)
{
	struct shop s = shop_new("comeback");
	(void)state;
	fake->epoch = 0; /* a balancer that cannot tell */
	apply_good(&s, 1, A);
	fake->running = false;
	tend("comeback");
	fake->in = A | B;
	fake->running = true;
	fake->fail_writes = 1;
	tend("comeback");
	contains(observe(&s).trouble, "could not be told again");
	assert_int_equal(fake->in, A | B);
	tend("comeback"); /* and once more, until it was heard */
	assert_int_equal(fake->in, A);
	assert_string_equal(observe(&s).trouble, "");
	bt_config_free(s.config);
}

static void test_observe_blind(void **state)
{
	struct shop s = shop_new("blind");
	(void)state;
	apply_good(&s, 1, A);
	fake->no_read = true;
	struct view v = observe(&s);
	assert_false(v.running);
	assert_int_equal(v.in, A);
	assert_string_equal(v.refuses, "fake lets nobody look");
	bt_config_free(s.config);
}

/* ---- hold --------------------------------------------------------------------------------- */

static void test_hold(void **state)
{
	struct shop s = shop_new("hold");
	struct answer a;
	static const char *const both[] = {"a", "b"};
	(void)state;
	assert_int_equal(hold(&s, both, 2, &a), 0); /* nothing was applied: nothing to do */
	assert_int_equal(fake->writes, 0);
	apply_good(&s, 1, A | B);
	assert_int_equal(hold(&s, both, 1, &a), 0);
	assert_int_equal(fake->in, B);
	assert_int_equal(observe(&s).generation, 1);
	assert_string_equal(observe(&s).trouble, "");

	fake->epoch++; /* held also over a restart of either */
	fake->in = A | B;
	start_driver();
	assert_int_equal(resumed, B);
	tend("hold");
	assert_int_equal(fake->in, B);
	assert_int_equal(hold(&s, NULL, 0, &a), 0);
	assert_int_equal(fake->in, A | B);

	assert_int_equal(hold(&s, both, 2, &a), 0);
	assert_int_equal(fake->in, 0);
	apply_good(&s, 2, A); /* a change decides anew */
	bt_config_free(s.config);
}

static void test_hold_without_balancer(void **state)
{
	struct shop s = shop_new("hold-away");
	struct answer a;
	static const char *const one[] = {"a"};
	(void)state;
	apply_good(&s, 1, A | B);
	fake->running = false;
	assert_int_equal(hold(&s, one, 1, &a), 0);
	assert_int_equal(fake->in, A | B);
	fake->running = true;
	tend("hold-away");
	assert_int_equal(fake->in, B);
	bt_config_free(s.config);
}

static void test_hold_refused(void **state)
{
	struct shop s = shop_new("hold-busy");
	struct answer change, a;
	static const char *const one[] = {"a"};
	(void)state;
	apply_good(&s, 1, A | B);
	begin_apply(&s, 2, A, &change);
	assert_int_equal(hold(&s, one, 1, &a), BT_E_REFUSED);
	run_until(&change.done);
	assert_int_equal(fake->in, A);
	fake->fail_writes = 1; /* it runs, and said no */
	assert_int_equal(hold(&s, one, 1, &a), BT_E_FAILED);
	assert_int_equal(hold(&s, one, 1, &a), 0);
	assert_int_equal(fake->in, 0);
	bt_config_free(s.config);
}

/* ---- drain -------------------------------------------------------------------------------- */

static struct bt_op *begin_drain(const struct bt_service *s, uint16_t port, const char *host,
	int64_t wait_ms, struct answer *a)
{
	struct bt_pool_member m = {"10.0.0.1", port, "a", host, false, false, false};
	struct bt_drain_request rq = {.name = "haproxy/shop",
		.service = s,
		.members = &m,
		.n_members = 1,
		.wait_ms = wait_ms};
	*a = (struct answer){0};
	return ops->drain(&rq, on_line, a, on_done, a);
}

static void run_for_line(struct answer *a, const char *line)
{
	for (int64_t end = bt_clock_boot_ms() + 30000;
		strcmp(a->progress, line) != 0 && bt_clock_boot_ms() < end;)
		event_base_loop(env.base, EVLOOP_ONCE);
	assert_string_equal(a->progress, line);
}

static void test_drain(void **state)
{
	struct shop s = shop_new("drain");
	struct answer a;
	(void)state;
	fake->connections[0] = 2;
	fake->connections[1] = 9; /* another's */
	begin_drain(s.service, 8081, "was1", 30000, &a);
	run_for_line(&a, "2 connections");
	fake->connections[0] = 1;
	run_for_line(&a, "1 connection");
	fake->connections[0] = 0;
	run_for_line(&a, "0 connections");
	assert_false(a.done); /* once is not enough */
	fake->connections[0] = 1;
	run_for_line(&a, "1 connection");
	assert_false(a.done);
	fake->connections[0] = 0;
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	bt_config_free(s.config);
}

static void test_drain_deadline(void **state)
{
	struct shop s = shop_new("drain-late");
	struct answer a;
	(void)state;
	fake->connections[0] = 3;
	begin_drain(s.service, 8081, "was1", 50, &a);
	run_until(&a.done);
	assert_int_equal(a.result, 1);
	assert_string_equal(a.err.text, "still 3 connections when the drain time passed");

	fake->running = false;
	begin_drain(s.service, 8081, "was1", 50, &a);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_UNREACHABLE);
	fake->running = true;
	fake->no_counts = true;
	begin_drain(s.service, 8081, "was1", 60000, &a);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_FAILED);
	contains(a.err.text, "does not count");

	bt_op_cancel(begin_drain(s.service, 8081, "was1", 60000, &a)); /* at once, … */
	fake->no_counts = false;
	struct bt_op *op = begin_drain(s.service, 8081, "was1", 60000, &a);
	run_for_line(&a, "3 connections"); /* … and in the middle */
	bt_op_cancel(op);
	assert_false(a.done);
	bt_config_free(s.config);
}

static int listen_somewhere(uint16_t *ret_port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, n), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
	*ret_port = ntohs(at.sin_port);
	return fd;
}

static int dial(uint16_t port)
{
	struct sockaddr_in at = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	return fd;
}

/* What the balancer does not see is counted where it ends. */
static void test_drain_at_host(void **state)
{
	struct bt_l4 l4 = {.kind = BT_BALANCER_HTTP};
	struct bt_service service = {.name = "drain-host", .l4 = &l4};
	struct answer a;
	uint16_t port = 0;
	(void)state;
	int at = listen_somewhere(&port), client = dial(port), server = accept(at, NULL, NULL);
	fake->connections[0] = 5; /* which nobody asks for */
	begin_drain(&service, port, "was1", 30000, &a);
	run_for_line(&a, "1 connection");
	close(client);
	close(server);
	run_until(&a.done);
	assert_int_equal(a.result, 0);

	begin_drain(&service, port, "was2", 30000, &a);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_REFUSED);
	contains(a.err.text, "was2/a");
	close(at);
}

/* ---- watch -------------------------------------------------------------------------------- */

static struct bt_op *begin_watch(const struct bt_service *s, int64_t ms, struct answer *a)
{
	*a = (struct answer){0};
	return ops->watch("haproxy/shop", s, ms, on_line, a, on_done, a);
}

static void test_watch(void **state)
{
	struct shop s = shop_new("watch");
	struct answer a;
	(void)state;
	fake->all = fake->failed = 1000; /* of before */
	begin_watch(s.service, 60000, &a);
	run_for_line(&a, "0 answers, 0 of them 5xx");
	fake->all += 19;
	fake->failed += 19; /* too few to judge by */
	run_for_line(&a, "19 answers, 19 of them 5xx");
	fake->epoch++; /* counting begins anew */
	fake->all = 1;
	fake->failed = 0;
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_FAILED);
	contains(a.err.text, "19 of 20 requests");

	begin_watch(s.service, 1, &a);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	struct bt_op *op = begin_watch(s.service, 60000, &a);
	run_for_line(&a, "0 answers, 0 of them 5xx");
	bt_op_cancel(op);
	bt_config_free(s.config);
}

static void test_watch_silent(void **state)
{
	struct bt_l4 l4 = {.kind = BT_BALANCER_HTTP};
	struct bt_service blind = {.name = "watch-blind", .l4 = &l4};
	struct shop s = shop_new("watch-silent");
	struct answer a;
	(void)state;
	fake->no_answers = true;
	begin_watch(s.service, 60000, &a);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_UNREACHABLE);
	begin_watch(&blind, 300, &a);
	run_until(&a.done);
	assert_int_equal(a.result, 0);
	assert_string_equal(a.progress, "http does not count answers");
	fake->running = false;
	begin_watch(&blind, 60000, &a);
	run_until(&a.done);
	assert_int_equal(a.result, BT_E_UNREACHABLE);
	bt_config_free(s.config);
}

/* ---- the file ----------------------------------------------------------------------------- */

static void test_state_file(void **state)
{
	struct shop s = shop_new("file");
	(void)state;
	apply_good(&s, 1, A | B);
	struct bt_l4_state *d = on_disk("file");
	BT_FREE char *text = bt_l4_state_dump(d);
	bt_l4_state_free(d);
	size_t n = strlen(text);
	for (size_t i = 0; i < n; i++) { /* cut, and with a byte that is wrong: never a crash */
		struct bt_l4_state *bad = NULL;
		assert_true(bt_l4_state_parse(text, i, &bad, NULL) < 0);
		BT_FREE char *copy = bt_strdup(text);
		copy[i] = copy[i] == 'x' ? '1' : 'x';
		if (bt_l4_state_parse(copy, n, &bad, NULL) == 0)
			bt_l4_state_free(bad);
	}
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/state/l4/file/state.json", dir);
	assert_int_equal(bt_fs_write_atomic(path, "{}", 2, 0600, NULL), 0);
	assert_true(ops->init(&env, &err) < 0);
	contains(err.text, path);
	assert_int_equal(bt_fs_write_atomic(path, text, n, 0600, NULL), 0);
	start_driver();
	bt_config_free(s.config);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 7 && !strcmp(argv[1], "crash"))
		return crash_main(argv);
#define TEST(name) cmocka_unit_test_setup(name, fresh)
	const struct CMUnitTest tests[] = {
		TEST(test_apply),
		TEST(test_generations),
		TEST(test_fresh),
		TEST(test_fresh_of_the_first),
		TEST(test_failure_goes_back),
		TEST(test_failure_without_way_back),
		TEST(test_first_failure),
		TEST(test_queue_and_cancel),
		TEST(test_nowhere_to_write),
		TEST(test_crash_after_pending),
		TEST(test_crash_after_written),
		TEST(test_crash_half_written),
		TEST(test_crash_of_the_first),
		TEST(test_crash_after_confirmed),
		TEST(test_crash_on_the_way_back),
		TEST(test_crash_and_no_balancer),
		TEST(test_next_over_pending),
		TEST(test_tend_after_restart),
		TEST(test_tend_leaves_people),
		TEST(test_out_stays_out_where_others_write),
		TEST(test_tend_when_it_came_back),
		TEST(test_observe_blind),
		TEST(test_hold),
		TEST(test_hold_without_balancer),
		TEST(test_hold_refused),
		TEST(test_drain),
		TEST(test_drain_deadline),
		TEST(test_drain_at_host),
		TEST(test_watch),
		TEST(test_watch_silent),
		TEST(test_state_file),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
