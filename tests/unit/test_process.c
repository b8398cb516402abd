/* The runtime `process` with real shims and real processes. An agent's restart is
 * bt_process_forget followed by init: the driver keeps nothing but what is on disk. */
#include "expect.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "driver/log_tail.h"
#include "driver/ports.h"
#include "driver/process.h"
#include "driver/runtime.h"
#include "shim/log.h"
#include "shim/proc.h"

#include <setjmp.h>
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "answer.h"

#define LIMIT_MS 30000
#define SECRET "s3cr3t-sentinel-8814"

struct world {
	char dir[128], shim[PATH_MAX];
	struct event_base *base;
	struct bt_work *work;
	struct bt_driver_env env;
	struct bt_service service;
	struct bt_stop_step steps[3];
	const char *argv[8];
	struct bt_kv env_vars[4], secret;
};
static struct world w;
static const char *release_dir; /* NULL: the state directory */
static struct bt_instance_ref blue = {.service = "shop", .slot = "blue"};

static bool until(bool (*fact)(void))
{
	return answer_until(w.base, fact, LIMIT_MS);
}

static const struct bt_runtime_ops *rt(void)
{
	return bt_runtime_find(BT_RUNTIME_PROCESS);
}

static void agent_begins(void)
{
	w.base = event_base_new();
	w.work = bt_work_new(w.base, 1);
	w.env = (struct bt_driver_env){.base = w.base,
		.work = w.work,
		.state_dir = w.dir,
		.host = "was1",
		.shim_path = w.shim};
	assert_int_equal(rt()->init(&w.env, &answer.err), 0);
}

static void agent_ends(void)
{
	bt_process_forget();
	w.work = bt_work_free(w.work);
	event_base_free(w.base);
	w.base = NULL;
}

static int set_up(void **state)
{
	(void)state;
	memset(&w, 0, sizeof w);
	memset(&answer, 0, sizeof answer);
	snprintf(w.dir, sizeof w.dir, "/tmp/baton-process-XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	ssize_t n = readlink("/proc/self/exe", w.shim, sizeof w.shim - 1);
	assert_true(n > 0);
	w.shim[n] = 0;
	for (int i = 0; i < 3; i++) /* tests/unit/test_process */
		*strrchr(w.shim, '/') = 0;
	strcat(w.shim, "/src/shim/baton-shim");
	char who[64];
	blue.port = (uint16_t)(22000 + getpid() % 100);
	while (bt_process_find_listener(blue.port, who, sizeof who))
		blue.port++;
	w.steps[0] = (struct bt_stop_step){SIGTERM, 5000};
	w.env_vars[0] = (struct bt_kv){"GREETING", "hello {slot} on {port}"};
	w.secret = (struct bt_kv){"DB_PASSWORD", SECRET};
	w.service = (struct bt_service){.name = "shop",
		.run = {.as = BT_RUNTIME_PROCESS,
			.command = w.argv,
			.env = w.env_vars,
			.n_env = 1,
			.limits = {-1, -1, -1, -1},
			.stop = w.steps,
			.n_stop = 1,
			.log_max_bytes = 1 << 20,
			.log_keep = 3,
			.restart_backoff_ms = 100,
			.restart_backoff_max_ms = 400}};
	agent_begins();
	return 0;
}

static void finish(struct bt_op *op)
{
	answer.called = false;
	assert_non_null(op);
	assert_true(until(answer_called));
}

static void stop(void)
{
	answer.called = false;
	answer.progress[0] = 0;
	struct bt_op *op = rt()->stop(&blue, &w.service, on_progress, on_done, NULL);
	assert_false(answer.called);
	finish(op);
}

static int tear_down(void **state)
{
	(void)state;
	stop();
	agent_ends();
	assert_int_equal(bt_fs_remove_tree(w.dir, NULL), 0);
	return 0;
}

static void command(const char *a, const char *b, const char *c)
{
	w.argv[0] = a;
	w.argv[1] = b;
	w.argv[2] = c;
	w.service.run.n_command = c ? 3 : b ? 2 : 1;
}

static int start_release(uint32_t release)
{
	struct bt_start_request rq = {.ref = blue,
		.release = release,
		.version = "v1",
		.artifact = "/tmp/shop.jar",
		.release_dir = release_dir ? release_dir : w.dir,
		.service = &w.service,
		.secrets = &w.secret,
		.n_secrets = 1};
	answer.called = false;
	struct bt_op *op = rt()->start(&rq, on_done, NULL);
	assert_false(answer.called);
	finish(op);
	return answer.result;
}

static void start(void)
{
	if (start_release(7) < 0)
		fail_msg("start: %s", answer.err.text);
}

static struct bt_seen_instance seen_with(struct bt_arena *a)
{
	struct bt_seen_instance s;
	assert_int_equal(rt()->observe(&blue, a, &s, NULL), 0);
	return s;
}

static struct bt_seen_instance seen(void)
{
	static char holder[128];
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_seen_instance s = seen_with(a);
	snprintf(holder, sizeof holder, "%s", s.holder ? s.holder : "");
	s.holder = s.holder ? holder : NULL;
	s.slot = s.version = NULL;
	return s;
}

static char *log_text(void)
{
	char path[4096], *text = NULL;
	rt()->log_path(&blue, path, sizeof path);
	return bt_fs_read(path, 64 << 20, &text, NULL, NULL) < 0 ? bt_strdup("") : text;
}

static bool log_has(const char *words)
{
	BT_FREE char *text = log_text();
	return strstr(text, words) != NULL;
}

static bool log_is_ready(void)
{
	return log_has("ready");
}

static bool listens(void)
{
	char who[64];
	return bt_process_find_listener(blue.port, who, sizeof who);
}

static bool is_running(void)
{
	return seen().state == BT_RUN_RUNNING;
}

static bool gone(pid_t pid)
{
	struct bt_proc_stat st;
	return bt_proc_stat(pid, &st) < 0 || st.state == 'Z';
}

static pid_t shim_pid(void)
{
	return (pid_t)bt_instance_find("shop", "blue")->status.shim_pid;
}

/* A line "name=123" of the log, as a number. */
static pid_t logged_pid(const char *name)
{
	BT_FREE char *text = log_text();
	char *at = strstr(text, name);
	assert_non_null(at);
	return atoi(at + strlen(name));
}

static bool in_cmdline(pid_t pid, const char *words)
{
	char path[64], *text;
	size_t n;
	snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
	int r = bt_fs_read(path, 1 << 20, &text, &n, NULL);
	if (r == -ESRCH || r == -ENOENT) /* it has just ended */
		return false;
	assert_int_equal(r, 0);
	bool found = memmem(text, n, words, strlen(words)) != NULL;
	free(text);
	return found;
}

static mode_t mode_of(const char *name)
{
	struct stat st;
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", w.dir, name);
	assert_int_equal(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

static const char server[] =
	"import os, socket, time\n"
	"s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
	"s.bind(('127.0.0.1', int(os.environ['BATON_PORT']))); s.listen()\n"
	"print('greeting=' + os.environ['GREETING'], 'agent=' + os.environ.get('AGENT_ONLY', "
	"'-'))\n"
	"print('password ok' if os.environ['DB_PASSWORD'].startswith('s3cr3t') else 'no "
	"password')\n"
	"print('ready', flush=True)\n"
	"while True: time.sleep(3600)\n";

/* ---- tests ---------------------------------------------------------------------------------- */

static void test_life(void **state)
{
	(void)state;
	setenv("AGENT_ONLY", "leaked", 1);
	command("/usr/bin/python3", "-c", server);
	start();
	assert_true(until(log_is_ready));
	assert_true(until(listens));
	struct bt_seen_instance s = seen();
	assert_int_equal(s.state, BT_RUN_RUNNING);
	assert_int_equal(s.release, 7);
	assert_null(s.holder);
	assert_true(s.pid > 0 && s.since_wall_ms > 0);
	char greeting[64];
	snprintf(greeting, sizeof greeting, "greeting=hello blue on %u agent=-", blue.port);
	assert_true(log_has(greeting));
	assert_true(log_has("password ok"));
	assert_false(in_cmdline(s.pid, SECRET));
	assert_false(in_cmdline(shim_pid(), SECRET));
	assert_int_equal(mode_of("instances"), 0700);
	assert_int_equal(mode_of("instances/shop/blue"), 0700);
	assert_int_equal(mode_of("instances/shop/blue/spec"), 0600);
	assert_int_equal(mode_of("instances/shop/blue/status"), 0600);
	assert_int_equal(mode_of("instances/shop/blue/sock"), 0600);

	assert_int_equal(start_release(7), 0); /* the same again is done */
	assert_int_equal(seen().pid, s.pid);
	assert_int_equal(start_release(8), BT_E_EXISTS);
	contains(answer.err.text, "release 7");

	stop();
	assert_int_equal(answer.result, 0);
	contains(answer.progress, "TERM sent to pid");
	assert_true(gone(s.pid));
	assert_false(listens());
	assert_int_equal(seen().state, BT_RUN_ABSENT);
	char dir[256];
	snprintf(dir, sizeof dir, "%s/instances/shop/blue", w.dir);
	assert_false(bt_fs_exists(dir));
	stop(); /* what is absent is stopped */
	assert_int_equal(answer.result, 0);
}

static void test_exits_at_once(void **state)
{
	(void)state;
	command("/bin/sh", "-c", "echo first; echo 'Error: Unable to access jarfile'; exit 3");
	assert_int_equal(start_release(7), BT_E_FAILED);
	contains(answer.err.text, "exited at once: exit code 3: Error: Unable to access jarfile");
	assert_int_equal(seen().state, BT_RUN_ABSENT);
	command("/bin/sh", "-c", "kill -SEGV $$");
	assert_int_equal(start_release(7), BT_E_FAILED);
	contains(answer.err.text, "signal 11");
	contains(answer.err.text, "its log is empty");
	command("/nowhere/java", "-jar", "x.jar");
	assert_int_equal(start_release(7), BT_E_FAILED);
	contains(answer.err.text, "run /nowhere/java: No such file or directory");
	assert_int_equal(seen().state, BT_RUN_ABSENT);
	command("/bin/sleep", "1000", NULL);
	w.service.run.dir = "/nowhere";
	assert_int_equal(start_release(7), BT_E_FAILED);
	contains(answer.err.text, "working directory /nowhere");
	w.service.run.dir = NULL;
	w.service.run.user = "nobody-of-that-name";
	assert_int_equal(start_release(7), BT_E_CONFIG);
	contains(answer.err.text, "nobody-of-that-name");
}

static void test_port_held(void **state)
{
	(void)state;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(blue.port)};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char pid[32];
	inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	snprintf(pid, sizeof pid, "test_process (pid %d)", (int)getpid());
	command("/bin/sleep", "1000", NULL);
	assert_int_equal(start_release(7), BT_E_FAILED);
	contains(answer.err.text, "port ");
	contains(answer.err.text, " is held by");
	contains(answer.err.text, pid);
	assert_string_equal(seen().holder, pid);
	assert_int_equal(seen().state, BT_RUN_ABSENT);
	close(fd);

	/* A stranger that takes the port while the app does not: the stop says who it is. */
	start();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 1), 0);
	pid_t app = seen().pid;
	assert_string_equal(seen().holder, pid);
	stop();
	assert_int_equal(answer.result, BT_E_FAILED);
	contains(answer.err.text, "still held by");
	contains(answer.err.text, pid);
	assert_true(gone(app));
	close(fd);
}

static void test_agent_restart(void **state)
{
	(void)state;
	command("/usr/bin/python3", "-c", server);
	start();
	assert_true(until(log_is_ready));
	struct bt_seen_instance s = seen();
	pid_t shim = shim_pid();
	agent_ends();
	assert_false(gone(s.pid));
	agent_begins();
	assert_int_equal(seen().pid, s.pid); /* at once, before the shim spoke */
	assert_true(until(is_running));
	assert_int_equal(seen().pid, s.pid);
	assert_int_equal(seen().release, 7);
	assert_int_equal(seen().since_wall_ms, s.since_wall_ms);
	assert_int_equal(shim_pid(), shim);
	assert_int_equal(start_release(7), 0);
	stop();
	assert_int_equal(answer.result, 0);
	assert_true(gone(s.pid));
}

static pid_t old_shim;
static bool has_new_shim(void)
{
	struct bt_instance *i = bt_instance_find("shop", "blue");
	return i && i->phase == BT_PROCESS_LINKED && i->seen && i->status.shim_pid != old_shim;
}

static bool is_adopted(void)
{
	return has_new_shim() && bt_instance_find("shop", "blue")->status.adopted;
}

static void test_shim_killed(void **state)
{
	(void)state;
	command("/usr/bin/python3", "-c", server);
	start();
	assert_true(until(log_is_ready));
	struct bt_seen_instance s = seen();
	old_shim = shim_pid();
	kill(old_shim, SIGKILL); /* the agent sees it and adopts */
	assert_true(until(is_adopted));
	assert_int_equal(seen().pid, s.pid);
	assert_true(listens());

	agent_ends();
	old_shim = bt_process.instances ? 0 : old_shim;
	agent_begins();
	assert_true(until(is_running));
	old_shim = shim_pid();
	agent_ends();
	kill(old_shim, SIGKILL); /* nobody sees it */
	agent_begins();
	assert_true(until(is_adopted));
	assert_int_equal(seen().pid, s.pid);
	assert_int_equal(seen().restarts, 0);

	/* The adopted app dies: its shim starts it again, now as its own child. */
	kill(s.pid, SIGKILL);
	int64_t end = bt_clock_boot_ms() + LIMIT_MS;
	while ((seen().pid == s.pid || !is_running()) && bt_clock_boot_ms() < end)
		event_base_loop(w.base, EVLOOP_ONCE);
	assert_int_equal(seen().state, BT_RUN_RUNNING);
	assert_int_equal(seen().restarts, 1);
	assert_true(log_has("its exit status is unknown"));
	assert_false(bt_instance_find("shop", "blue")->status.adopted);
}

static void test_all_killed(void **state)
{
	(void)state;
	command("/usr/bin/python3", "-c", server);
	start();
	assert_true(until(log_is_ready));
	struct bt_seen_instance s = seen();
	old_shim = shim_pid();
	agent_ends();
	kill(old_shim, SIGKILL);
	kill(s.pid, SIGKILL);
	agent_begins(); /* as after a power cut: what shall run runs again */
	assert_true(until(has_new_shim));
	assert_true(until(is_running));
	assert_int_not_equal(seen().pid, s.pid);
	assert_int_equal(seen().restarts, 1);

	/* The same, but it is stopped before anybody looked. */
	s = seen();
	old_shim = shim_pid();
	agent_ends();
	kill(old_shim, SIGKILL);
	kill(s.pid, SIGKILL);
	agent_begins();
	stop();
	assert_int_equal(answer.result, 0);
	assert_int_equal(seen().state, BT_RUN_ABSENT);
}

/* A recycled pid: the status names a process that is not the app (another start time). */
static void test_recycled_pid(void **state)
{
	(void)state;
	char path[256], *text;
	size_t n;
	command("/bin/sleep", "1000", NULL);
	start();
	struct bt_shim_status st = bt_instance_find("shop", "blue")->status;
	agent_ends();
	kill((pid_t)st.shim_pid, SIGKILL);
	kill((pid_t)st.pid, SIGKILL);
	snprintf(path, sizeof path, "%s/instances/shop/blue/status", w.dir);
	st.pid = getpid(); /* lives, and was started at another time */
	char buf[BT_SHIM_MESSAGE_MAX];
	struct bt_record_out out = {buf, 0, sizeof buf, false};
	assert_int_equal(bt_shim_status_write(&st, &out), 0);
	assert_int_equal(bt_fs_write_atomic(path, buf, out.len, 0600, NULL), 0);
	old_shim = (pid_t)st.shim_pid;
	agent_begins();
	assert_true(until(has_new_shim));
	assert_true(until(is_running));
	assert_int_not_equal(seen().pid, getpid());
	assert_false(bt_instance_find("shop", "blue")->status.adopted);
	assert_int_equal(bt_fs_read(path, 4096, &text, &n, NULL), 0);
	free(text);
}

/* The host shuts down: the shim gets SIGTERM, stops the app, and it is started at the next boot. */
static pid_t waited_for;
static bool it_is_gone(void)
{
	return gone(waited_for);
}

static void test_shutdown(void **state)
{
	(void)state;
	command("/usr/bin/python3", "-c",
		"import signal, sys, time\n"
		"signal.signal(15, lambda *a: (print('got TERM', flush=True), sys.exit(0)))\n"
		"print('ready', flush=True)\n"
		"time.sleep(3600)\n");
	start();
	assert_true(until(log_is_ready));
	waited_for = seen().pid;
	old_shim = shim_pid();
	agent_ends();
	kill(old_shim, SIGTERM);
	w.base = event_base_new();
	assert_true(until(it_is_gone));
	waited_for = old_shim;
	assert_true(until(it_is_gone));
	event_base_free(w.base);
	assert_true(log_has("got TERM"));
	agent_begins();
	assert_true(until(is_running));
	assert_int_not_equal(shim_pid(), old_shim);
}

/* After a reboot a pid and its start time may be anybody's. */
static void test_other_boot(void **state)
{
	(void)state;
	char path[256], buf[BT_SHIM_MESSAGE_MAX];
	struct bt_record_out out = {buf, 0, sizeof buf, false};
	command("/bin/sleep", "1000", NULL);
	start();
	struct bt_shim_status st = bt_instance_find("shop", "blue")->status;
	agent_ends();
	kill((pid_t)st.shim_pid, SIGKILL);
	st.boot_id[0] = st.boot_id[0] == '0' ? '1' : '0';
	snprintf(path, sizeof path, "%s/instances/shop/blue/status", w.dir);
	assert_int_equal(bt_shim_status_write(&st, &out), 0);
	assert_int_equal(bt_fs_write_atomic(path, buf, out.len, 0600, NULL), 0);
	old_shim = (pid_t)st.shim_pid;
	agent_begins();
	assert_true(until(has_new_shim));
	assert_true(until(is_running));
	assert_int_not_equal(seen().pid, st.pid);
	assert_false(bt_instance_find("shop", "blue")->status.adopted);
	assert_true(gone((pid_t)st.pid)); /* by its marker: it would hold the port */
}

static const char forker[] = "import os, time\n"
			     "def daemon(name, ignore):\n"
			     "    if os.fork() == 0:\n"
			     "        os.setsid()\n"
			     "        if os.fork() == 0:\n"
			     "            if ignore: __import__('signal').signal(15, 1)\n"
			     "            print('%s=%d' % (name, os.getpid()), flush=True)\n"
			     "            time.sleep(3600)\n"
			     "        os._exit(0)\n"
			     "daemon('polite', False)\n"
			     "daemon('stubborn', True)\n"
			     "if os.fork() == 0:\n"
			     "    print('child=%d' % os.getpid(), flush=True)\n"
			     "    time.sleep(3600)\n"
			     "time.sleep(0.1)\n"
			     "print('ready', flush=True)\n"
			     "time.sleep(3600)\n";

static bool all_forked(void)
{
	return log_has("polite=") && log_has("stubborn=") && log_has("child=") && log_has("ready");
}

static void forked_are_gone(void)
{
	assert_true(gone(logged_pid("polite=")));
	assert_true(gone(logged_pid("stubborn=")));
	assert_true(gone(logged_pid("child=")));
}

static void test_strays(void **state)
{
	(void)state;
	command("/usr/bin/python3", "-c", forker);
	w.steps[0].wait_ms = 300;
	start();
	assert_true(until(all_forked));
	stop();
	assert_int_equal(answer.result, 0);
	forked_are_gone();
}

static void test_strays_of_adopted(void **state)
{
	(void)state;
	command("/usr/bin/python3", "-c", forker);
	w.steps[0].wait_ms = 300;
	start();
	assert_true(until(all_forked));
	old_shim = shim_pid();
	kill(old_shim, SIGKILL);
	assert_true(until(is_adopted));
	stop();
	assert_int_equal(answer.result, 0);
	forked_are_gone();
}

static bool restarted_often(void)
{
	return seen().restarts >= 4;
}

static bool log_says_missing(void)
{
	return log_has("No such file or directory");
}

static bool is_crashing(void)
{
	return seen().state == BT_RUN_CRASHING;
}

static void test_back_off(void **state)
{
	(void)state;
	command("/bin/sh", "-c", "echo run; sleep 0.3; echo bad luck; exit 4");
	start();
	assert_true(until(is_crashing));
	assert_int_equal(seen().pid, 0);
	assert_true(until(restarted_often));
	assert_true(log_has("exit code 4"));
	/* The back-off doubles to its maximum: 100, 200, 400, 400 ms. */
	int64_t began = bt_clock_boot_ms();
	assert_true(until(is_crashing));
	int restarts = seen().restarts;
	stop();
	assert_int_equal(answer.result, 0);
	assert_true(restarts <= 4 + (bt_clock_boot_ms() - began) / 400);
}

static void test_kill_after_term(void **state)
{
	(void)state;
	command("/usr/bin/python3", "-c",
		"import signal, time\n"
		"signal.signal(signal.SIGTERM, lambda *a: print('got TERM', flush=True))\n"
		"signal.signal(signal.SIGUSR1, lambda *a: print('got USR1', flush=True))\n"
		"print('ready', flush=True)\n"
		"while True: time.sleep(3600)\n");
	w.steps[0] = (struct bt_stop_step){SIGUSR1, 200};
	w.steps[1] = (struct bt_stop_step){SIGTERM, 200};
	w.service.run.n_stop = 2;
	start();
	assert_true(until(log_is_ready));
	pid_t pid = seen().pid;
	stop();
	assert_int_equal(answer.result, 0);
	assert_true(gone(pid));
	assert_true(log_has("got USR1\ngot TERM\n"));
	contains(answer.progress, "USR1 sent");
	contains(answer.progress, "TERM sent");
	contains(answer.progress, "KILL sent");
	assert_true(log_has("signal 9"));
}

static bool find_marked(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	return st->state != 'Z' && bt_proc_has_env(pid, arg);
}

static bool find_shim(void *arg, pid_t pid, const struct bt_proc_stat *st)
{
	if (strcmp(st->name, "baton-shim") != 0 || st->state == 'Z' || !in_cmdline(pid, w.dir))
		return false;
	*(pid_t *)arg = pid;
	return true;
}

static int number(const char *name, int otherwise)
{
	const char *text = getenv(name);
	return text ? atoi(text) : otherwise;
}

/* The shim is killed at any moment of a start, a life and a stop: every operation ends, with an
 * app that runs or with nothing at all, and after the stop nothing is left. */
static void test_shim_killed_at_any_moment(void **state)
{
	(void)state;
	char marker[64];
	unsigned seed = (unsigned)number("CHAOS_SEED", getpid());
	int rounds = number("CHAOS_ROUNDS", 25);
	print_message("CHAOS_SEED=%u CHAOS_ROUNDS=%d\n", seed, rounds);
	command("/bin/sh", "-c", "sleep 1000 & sleep 1000");
	snprintf(marker, sizeof marker, "CHAOS=%u", seed);
	w.env_vars[0] = (struct bt_kv){"CHAOS", marker + 6};
	w.steps[0] = (struct bt_stop_step){SIGTERM, 2000};
	for (int round = 0; round < rounds; round++) {
		pid_t shim = 0;
		struct bt_start_request rq = {.ref = blue,
			.release = 7,
			.version = "v1",
			.artifact = "x",
			.release_dir = w.dir,
			.service = &w.service};
		int kill_at = (int)(rand_r(&seed) % 24);
		bool stopping = rand_r(&seed) % 2;
		answer.called = false;
		struct bt_op *op = stopping ? NULL : rt()->start(&rq, on_done, NULL);
		if (stopping) {
			start();
			answer.called = false;
			op = rt()->stop(&blue, &w.service, NULL, on_done, NULL);
		}
		assert_non_null(op);
		struct event *tick = event_new(w.base, -1, EV_PERSIST, on_tick, NULL);
		event_add(tick, &(struct timeval){0, 1000});
		for (int i = 0; i < kill_at && !answer.called; i++)
			event_base_loop(w.base, EVLOOP_ONCE);
		event_free(tick);
		if (bt_proc_each(find_shim, &shim))
			kill(shim, SIGKILL);
		assert_true(until(answer_called));
		if (answer.result == 0 && !stopping)
			assert_true(until(is_running));
		stop();
		assert_int_equal(answer.result, 0);
		assert_int_equal(seen().state, BT_RUN_ABSENT);
		assert_false(bt_proc_each(find_marked, marker));
	}
}

/* Puts a program in the shim's place: lines of sh, in which $shim is the real one and $1 the
 * instance's directory. What stops an instance goes to the real one, and is counted. */
static void instead_of_shim(const char *lines)
{
	static char path[200];
	snprintf(path, sizeof path, "%s/instead", w.dir);
	BT_FREE char *text =
		bt_asprintf("#!/bin/sh\nshim=%s dir=%s\n"
			    "[ $# = 1 ] || { echo >>$dir/asked; exec $shim \"$@\"; }\n%s",
			w.shim, w.dir, lines);
	assert_int_equal(bt_fs_write_atomic(path, text, strlen(text), 0700, NULL), 0);
	bt_process.env.shim_path = path;
	w.env_vars[0] = (struct bt_kv){"GREETING", "marked"};
	command("/bin/sleep", "1000", NULL);
}

static bool is_marked_there(void)
{
	return bt_proc_each(find_marked, "GREETING=marked");
}

/* A shim that dies between its app's start and its word to the agent: the app is not forgotten. */
static void test_shim_dies_unheard(void **state)
{
	(void)state;
	instead_of_shim("$shim \"$1\"\n"
			"kill -9 $(tr '\\0' '\\n' <\"$1/status\" | sed -n 's/^shim_pid=//p')\n"
			"flock \"$1/lock\" true\n" /* it has ended */
			"echo not a word; exit 3\n");
	assert_true(start_release(7) < 0);
	contains(answer.err.text, "start shop/blue: not a word");
	assert_int_equal(seen().state, BT_RUN_ABSENT);
	assert_false(is_marked_there());
	bt_process.env.shim_path = w.shim;
	start();
	assert_true(is_marked_there());
}

static bool is_asked_often(void)
{
	char path[200], *text;
	size_t n;
	snprintf(path, sizeof path, "%s/asked", w.dir);
	if (bt_fs_read(path, 4096, &text, &n, NULL) < 0)
		return false;
	free(text);
	return n >= 3;
}

static bool is_over(void)
{
	char path[200];
	snprintf(path, sizeof path, "%s/over", w.dir);
	return bt_fs_exists(path);
}

/* The launcher is killed while its shim is slow to come up: the agent asks again until one can say
 * what became of the instance, and the late shim leaves nothing. */
static void test_shim_comes_late(void **state)
{
	(void)state;
	char path[200];
	instead_of_shim("exec >/dev/null 2>&1\n"
			"{ flock \"$1/lock\" sh -c \"touch $dir/held\n"
			"until [ -e $dir/go ]; do sleep 0.01; done\" && $shim \"$1\"; touch "
			"$dir/over; } &\n"
			"until [ -e $dir/held ]; do sleep 0.01; done; kill -9 $$\n");
	struct bt_start_request rq = {.ref = blue,
		.release = 7,
		.version = "v1",
		.artifact = "x",
		.release_dir = w.dir,
		.service = &w.service};
	answer.called = false;
	assert_non_null(rt()->start(&rq, on_done, NULL));
	assert_true(until(is_asked_often));
	assert_false(answer.called);
	assert_int_equal(seen().state, BT_RUN_STOPPING);
	snprintf(path, sizeof path, "%s/go", w.dir);
	assert_int_equal(bt_fs_write_atomic(path, "", 0, 0600, NULL), 0);
	assert_true(until(answer_called));
	assert_true(answer.result < 0);
	contains(answer.err.text, "start shop/blue: ");
	assert_true(until(is_over));
	assert_int_equal(seen().state, BT_RUN_ABSENT);
	assert_false(is_marked_there());
}

/* A shim that comes after all was stopped, before the directory is gone, starts nothing. */
static void test_shim_comes_after_the_stop(void **state)
{
	(void)state;
	char late[200], path[300], buf[BT_SHIM_MESSAGE_MAX], *spec;
	size_t n;
	w.env_vars[0] = (struct bt_kv){"GREETING", "marked"};
	command("/bin/sleep", "1000", NULL);
	start();
	struct bt_shim_status st = bt_instance_find("shop", "blue")->status;
	snprintf(path, sizeof path, "%s/instances/shop/blue/spec", w.dir);
	assert_int_equal(bt_fs_read(path, BT_SHIM_SPEC_MAX, &spec, &n, NULL), 0);
	stop();
	snprintf(late, sizeof late, "%s/late", w.dir);
	assert_int_equal(mkdir(late, 0700), 0);
	snprintf(path, sizeof path, "%s/spec", late);
	assert_int_equal(bt_fs_write_atomic(path, spec, n, 0600, NULL), 0);
	free(spec);
	st.state = BT_SHIM_STOPPED;
	struct bt_record_out out = {buf, 0, sizeof buf, false};
	assert_int_equal(bt_shim_status_write(&st, &out), 0);
	snprintf(path, sizeof path, "%s/status", late);
	assert_int_equal(bt_fs_write_atomic(path, buf, out.len, 0600, NULL), 0);
	BT_FREE char *run = bt_asprintf("%s %s 2>/dev/null", w.shim, late);
	assert_int_equal(WEXITSTATUS(system(run)), BT_SHIM_EXIT_NOTHING);
	assert_false(is_marked_there());
}

/* An app that ran, and cannot be started again for now, is tried until it can. */
static void test_missing_for_a_while(void **state)
{
	(void)state;
	char app[200], away[200];
	snprintf(app, sizeof app, "%s/app", w.dir);
	snprintf(away, sizeof away, "%s/away", w.dir);
	const char *text = "#!/bin/sh\nexec sleep 1000\n";
	assert_int_equal(bt_fs_write_atomic(app, text, strlen(text), 0700, NULL), 0);
	command(app, NULL, NULL);
	start();
	struct bt_shim_status st = bt_instance_find("shop", "blue")->status;
	old_shim = (pid_t)st.shim_pid;
	assert_int_equal(rename(app, away), 0);
	agent_ends();
	kill(old_shim, SIGKILL);
	kill((pid_t)st.pid, SIGKILL);
	agent_begins();
	assert_true(until(is_crashing));
	assert_true(until(log_says_missing));
	assert_int_equal(rename(away, app), 0);
	assert_true(until(is_running));
}

/* A cancelled operation says nothing more; the instance goes on. */
static bool quiet_step_runs(void)
{
	return strstr(answer.progress, "is to end by itself") != NULL;
}

static bool is_armed(void)
{
	return log_has("armed");
}

/* Somebody asks the app in another way, and the shim knows of it: its end is no crash. */
static void test_quiet_step(void **state)
{
	(void)state;
	w.steps[0] = (struct bt_stop_step){0, 60000};
	w.steps[1] = (struct bt_stop_step){SIGTERM, 5000};
	w.service.run.n_stop = 2;
	command("/bin/sh", "-c", "trap 'exit 0' USR1; echo ready; while :; do sleep 0.02; done");
	start();
	assert_true(until(log_is_ready));
	pid_t app = seen().pid;
	answer.called = false;
	answer.progress[0] = 0;
	rt()->stop(&blue, &w.service, on_progress, on_done, NULL);
	assert_true(until(quiet_step_runs));
	assert_false(gone(app));
	assert_int_equal(kill(app, SIGUSR1), 0);
	assert_true(until(answer_called));
	assert_int_equal(answer.result, 0);
	assert_true(gone(app));
	assert_null(strstr(answer.progress, "TERM sent"));

	/* What is asked in vain is not waited for, once the shim is told; and what the app leaves
	 * behind was not asked at all. */
	start();
	assert_true(until(log_is_ready));
	app = seen().pid;
	answer.called = false;
	answer.progress[0] = 0;
	rt()->stop(&blue, &w.service, on_progress, on_done, NULL);
	assert_true(until(quiet_step_runs));
	bt_process_next("shop", "blue");
	assert_true(until(answer_called));
	assert_int_equal(answer.result, 0);
	contains(answer.progress, "TERM sent");
	assert_true(gone(app));

	command("/bin/sh", "-c",
		"sleep 1000 & echo left=$!; trap 'exit 0' USR1; echo armed; while :; do sleep "
		"0.02; done");
	start();
	assert_true(until(is_armed));
	answer.called = false;
	answer.progress[0] = 0;
	rt()->stop(&blue, &w.service, on_progress, on_done, NULL);
	assert_true(until(quiet_step_runs));
	assert_int_equal(kill(seen().pid, SIGUSR1), 0);
	assert_true(until(answer_called));
	assert_int_equal(answer.result, 0);
	contains(answer.progress, "TERM sent");
	assert_true(gone(logged_pid("left=")));
}

static void test_cancel(void **state)
{
	(void)state;
	command("/bin/sleep", "1000", NULL);
	struct bt_start_request rq = {.ref = blue,
		.release = 7,
		.version = "v1",
		.artifact = "x",
		.release_dir = w.dir,
		.service = &w.service};
	answer.called = false;
	bt_op_cancel(rt()->start(&rq, on_done, NULL));
	assert_true(until(is_running));
	bt_op_cancel(rt()->stop(&blue, &w.service, NULL, on_done, NULL));
	assert_int_equal(seen().state, BT_RUN_STOPPING);
	assert_int_equal(start_release(7), BT_E_REFUSED);
	stop();
	assert_int_equal(answer.result, 0);
}

static void test_user_and_limits(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	char closed[200];
	struct stat st;
	assert_int_equal(chmod(w.dir, 0700), 0); /* opened for passing through, not for looking */
	w.service.run.user = "nobody";
	w.service.run.limits = (struct bt_limits){321, -1, 0, 1 << 30};
	command("/bin/sh", "-c",
		"id -un; id -gn; ulimit -n; ulimit -c; ulimit -d; echo ready; exec sleep 1000");
	start();
	assert_int_equal(stat(w.dir, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0711);
	assert_true(until(log_is_ready));
	assert_true(log_has("nobody\nnogroup\n321\n0\n1048576\nready"));
	old_shim = shim_pid();
	kill(old_shim, SIGKILL);
	assert_true(until(is_adopted));
	stop();
	/* A directory that is not the agent's own, and closed: said in words. */
	snprintf(closed, sizeof closed, "%s/closed", w.dir);
	assert_int_equal(mkdir(closed, 0700), 0);
	strcat(closed, "/release");
	assert_int_equal(mkdir(closed, 0755), 0);
	release_dir = closed;
	assert_int_equal(start_release(7), BT_E_REFUSED);
	release_dir = NULL;
	contains(answer.err.text, "'nobody' cannot enter /tmp/baton-process-");
	contains(answer.err.text, "/closed (mode 0700)");
}

/* ---- logs ----------------------------------------------------------------------------------- */

struct reader {
	struct bt_str text;
	long next; /* the line expected; -1: any */
	bool broken;
};

static bool on_log(void *arg, const char *data, size_t n)
{
	struct reader *r = arg;
	bt_str_addn(&r->text, data, n);
	char *line = r->text.data, *nl;
	while ((nl = strchr(line, '\n'))) {
		*nl = 0;
		if (!strstr(line, "baton:") && line[0] == 'n') {
			if (r->next < 0) /* the tail before it is bounded */
				r->next = atol(line + 1);
			if (atol(line + 1) != r->next)
				r->broken = true;
			r->next = atol(line + 1) + 1;
		}
		line = nl + 1;
	}
	size_t left = strlen(line);
	memmove(r->text.data, line, left + 1);
	r->text.len = left;
	return true;
}

#define LINES 300000
static struct reader reader;
static bool read_all(void)
{
	return reader.next == LINES || reader.broken;
}

/* Every line that was written is in the files, in order, once; and a follower got just them. */
static void test_rotation(void **state)
{
	(void)state;
	char path[4096], file[4200];
	struct bt_log_follow *f;
	rt()->log_path(&blue, path, sizeof path);
	command("/usr/bin/python3", "-c",
		"import os, time\n"
		"for i in range(300):\n"
		"    for k in range(10):\n"
		"        os.write(1, b''.join(b'n%08d some words to fill\\n' % (i*1000+k*100+j)"
		" for j in range(100)))\n"
		"    time.sleep(0.012)\n"
		"time.sleep(3600)\n");
	w.service.run.log_max_bytes = 200000;
	w.service.run.log_keep = 900;
	start();
	reader = (struct reader){.next = -1};
	assert_int_equal(bt_log_follow_start(w.base, path, 1000000, on_log, &reader, &f, NULL), 0);
	assert_true(until(read_all));
	f = bt_log_follow_free(f);
	assert_false(reader.broken);
	stop();
	struct reader all = {0};
	int n = 0;
	do
		snprintf(file, sizeof file, "%s.%d", path, ++n);
	while (bt_fs_exists(file));
	assert_true(n > 2); /* it was rotated more than once */
	while (--n >= 0) {
		char *text;
		size_t len;
		snprintf(file, sizeof file, n ? "%s.%d" : "%s", path, n);
		assert_int_equal(bt_fs_read(file, 64 << 20, &text, &len, NULL), 0);
		on_log(&all, text, len);
		free(text);
	}
	assert_false(all.broken);
	assert_int_equal(all.next, LINES);
	bt_str_done(&all.text);
	bt_str_done(&reader.text);
}

/* Where a file's head cannot be cut off (tmpfs), it is copied and truncated. */
static void test_rotation_by_copy(void **state)
{
	(void)state;
	char dir[] = "/dev/shm/baton-log-XXXXXX", path[128], file[160];
	static struct bt_shim_log log;
	if (!mkdtemp(dir))
		skip();
	snprintf(path, sizeof path, "%s/x.log", dir);
	assert_int_equal(bt_shim_log_open(&log, path, 5000, 3), 0);
	BT_STR struct bt_str all = {0}, found = {0};
	for (int i = 0; i < 400; i++) {
		char line[32];
		int n = snprintf(line, sizeof line, "line %d of many\n", i);
		bt_str_addn(&all, line, (size_t)n);
		assert_int_equal(write(log.fd, line, (size_t)n), n);
		assert_true(bt_shim_log_check(&log) >= 0);
	}
	for (int i = 3; i >= 0; i--) {
		char *text;
		size_t n;
		snprintf(file, sizeof file, i ? "%s.%d" : "%s", path, i);
		if (bt_fs_read(file, 1 << 20, &text, &n, NULL) < 0)
			continue;
		assert_true(n < 5100);
		bt_str_addn(&found, text, n);
		free(text);
	}
	assert_string_equal(bt_str_get(&found), bt_str_get(&all));
	close(log.fd);
	close(log.rotate_fd);
	assert_int_equal(bt_fs_remove_tree(dir, NULL), 0);
}

static void put(const char *path, const char *text)
{
	assert_int_equal(bt_fs_write_atomic(path, text, strlen(text), 0600, NULL), 0);
}

static void tail_is(const char *path, size_t n, const char *expected)
{
	BT_STR struct bt_str out = {0};
	assert_int_equal(bt_log_tail_last(path, n, &out, NULL), 0);
	assert_string_equal(bt_str_get(&out), expected);
}

static void test_tail(void **state)
{
	(void)state;
	char path[256], first[300], second[300];
	snprintf(path, sizeof path, "%s/t.log", w.dir);
	snprintf(first, sizeof first, "%s.1", path);
	snprintf(second, sizeof second, "%s.2", path);
	tail_is(path, 5, "");
	put(path, "e\nf\n");
	tail_is(path, 1, "f\n");
	tail_is(path, 9, "e\nf\n");
	put(first, "c\nd\npart of ");
	put(second, "a\nb\n");
	tail_is(path, 0, "");
	tail_is(path, 2, "part of e\nf\n");
	tail_is(path, 3, "d\npart of e\nf\n");
	tail_is(path, 5, "b\nc\nd\npart of e\nf\n");
	tail_is(path, 50, "a\nb\nc\nd\npart of e\nf\n");
	put(path, "unfinished");
	tail_is(path, 1, "part of unfinished");
	BT_STR struct bt_str big = {0}, out = {0};
	for (int i = 0; i < 40000; i++)
		bt_str_addf(&big, "line %08d of many\n", i);
	put(path, bt_str_get(&big));
	assert_int_equal(bt_log_tail_last(path, 1000000, &out, NULL), 0);
	assert_true(out.len <= BT_LOG_TAIL_MAX && out.len > BT_LOG_TAIL_MAX - 100);
	assert_true(bt_str_starts(out.data, "line "));
	assert_true(bt_str_ends(out.data, "line 00039999 of many\n"));
}

static int listen_on(int family, uint16_t *ret_port)
{
	struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family};
	socklen_t n = family == AF_INET6 ? sizeof a : sizeof(struct sockaddr_in);
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)(void *)&a, n), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)(void *)&a, &n), 0);
	*ret_port = ntohs(a.sin6_port); /* at the same place in both families */
	return fd;
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)(void *)&a, sizeof a), 0);
	return fd;
}

/* Listeners of both families, as Java's listens for IPv4 too; neither they nor the clients' own
 * ends count. */
static void test_connections_are_counted(void **state)
{
	uint16_t ports[3];
	uint32_t counts[3] = {9, 9, 9};
	int fds[6] = {listen_on(AF_INET, &ports[0]), listen_on(AF_INET6, &ports[1]),
		listen_on(AF_INET, &ports[2])};
	(void)state;
	fds[3] = connect_to(ports[0]);
	fds[4] = connect_to(ports[0]);
	fds[5] = connect_to(ports[1]);
	bt_port_connections(ports, 3, counts);
	assert_int_equal(counts[0], 2);
	assert_int_equal(counts[1], 1);
	assert_int_equal(counts[2], 0);
	int taken[2] = {accept(fds[0], NULL, NULL), accept(fds[0], NULL, NULL)};
	close(taken[0]);
	close(taken[1]);
	bt_port_connections(ports, 3, counts);
	assert_int_equal(counts[0], 0);
	for (size_t i = 0; i < 6; i++)
		close(fds[i]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {T(test_life), T(test_exits_at_once), T(test_port_held),
		T(test_agent_restart), T(test_shim_killed), T(test_all_killed),
		T(test_recycled_pid), T(test_strays), T(test_strays_of_adopted), T(test_back_off),
		T(test_kill_after_term), T(test_quiet_step), T(test_cancel),
		T(test_shim_killed_at_any_moment), T(test_shim_dies_unheard),
		T(test_shim_comes_late), T(test_shim_comes_after_the_stop),
		T(test_missing_for_a_while), T(test_user_and_limits), T(test_rotation),
		T(test_rotation_by_copy), T(test_shutdown), T(test_other_boot), T(test_tail),
		cmocka_unit_test(test_connections_are_counted)};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
