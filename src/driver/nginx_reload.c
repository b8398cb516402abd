/* The master: started, reloaded, and watched until every worker that serves is a new one. */
#include "driver/nginx_step.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WORKERS_POLL_MS 10
#define WORKERS_WITHIN_MS 10000
#define LOG_TAIL_MAX 65536

/* ---- workers ------------------------------------------------------------------------------ */

static off_t log_size(const struct bt_nginx_unit *u)
{
	struct stat st;
	return u->facts.error_log && stat(u->facts.error_log, &st) == 0 ? st.st_size : 0;
}

/* What the master has complained of since the reload; NULL: nothing. Caller frees. */
static char *log_complaint(const struct bt_nginx_batch *b)
{
	const char *path = b->unit->facts.error_log;
	BT_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) : -1;
	if (fd < 0)
		return NULL;
	BT_FREE char *text = bt_calloc(1, LOG_TAIL_MAX + 1);
	ssize_t n = pread(fd, text, LOG_TAIL_MAX, b->log_at);
	if (n <= 0)
		return NULL;
	BT_FREE char *own = b->has_master ? bt_asprintf("[emerg] %d#", (int)b->master.pid)
					  : bt_strdup("[emerg] ");
	const char *line = strstr(text, own);
	return line ? bt_nginx_reason(line) : NULL;
}

static bool workers_are_new(struct bt_nginx_batch *b)
{
	struct bt_nginx_workers now;
	bt_nginx_workers_read(&b->master, &now);
	bool good = now.n_serving > 0;
	for (size_t i = 0; i < now.n_serving; i++)
		good = good &&
		       !bt_nginx_proc_in(b->before.serving, b->before.n_serving, &now.serving[i]);
	bt_nginx_workers_done(&now);
	return good;
}

static void wait_workers(struct bt_nginx_batch *b)
{
	if (!b->has_master) /* just started: its pid file comes when it is up */
		b->has_master = bt_nginx_master(b->unit->facts.pid_file, &b->master) == 0;
	else if (!bt_nginx_proc_alive(&b->master)) {
		b->has_master = false;
		if (!b->started) {
			bt_nginx_batch_fail(b, BT_E_FAILED,
				"nginx: its master process ended during the reload");
			return;
		}
	}
	if (b->has_master && workers_are_new(b)) {
		bt_nginx_batch_workers_ready(b);
		return;
	}
	BT_FREE char *complaint = log_complaint(b);
	if (complaint)
		bt_nginx_batch_fail(b, BT_E_FAILED, "nginx refused the reload: %s", complaint);
	else if (bt_clock_boot_ms() >= b->deadline_ms)
		bt_nginx_batch_fail(b, BT_E_TIMEOUT,
			"nginx: no new workers within %d s of the reload",
			WORKERS_WITHIN_MS / 1000);
	else
		bt_nginx_batch_after(b, WORKERS_POLL_MS, wait_workers);
}

static void expect_workers(struct bt_nginx_batch *b)
{
	b->deadline_ms = bt_clock_boot_ms() + WORKERS_WITHIN_MS;
	bt_nginx_batch_after(b, WORKERS_POLL_MS, wait_workers);
}

/* ---- start -------------------------------------------------------------------------------- */

static void on_started(void *arg, const struct bt_child_result *r)
{
	struct bt_nginx_batch *b = arg;
	b->child = NULL;
	if (r->exit_code != 0) {
		BT_FREE char *reason = bt_nginx_reason(r->output);
		b->started = false;
		bt_nginx_batch_fail(b, BT_E_FAILED, "nginx does not start: %s",
			r->timed_out ? "no answer within 20 s" : reason);
		return;
	}
	expect_workers(b);
}

/* The workers of a killed master go on serving: their listening sockets are taken over, so that
 * nobody is refused; where that is not allowed they are asked to leave first. */
void bt_nginx_start(struct bt_nginx_batch *b)
{
	struct bt_nginx_unit *u = b->unit;
	const char *argv[12];
	bt_nginx_argv(u, NULL, argv);
	b->log_at = log_size(u);
	b->started = true;
	b->n_orphans = bt_nginx_orphans(u->facts.error_log, &b->orphans);
	if (b->n_orphans > 0 && bt_nginx_start_adopted(&b->orphans[0], argv, NULL) == 0) {
		bt_nginx_batch_say(
			b, "nginx's master was gone: a new one takes over its workers' sockets");
		expect_workers(b);
		return;
	}
	for (size_t i = 0; i < b->n_orphans; i++)
		kill(b->orphans[i].pid, SIGQUIT);
	struct bt_child_spec spec = {
		.argv = argv, .uid = (uid_t)-1, .gid = (gid_t)-1, .timeout_ms = 20000};
	struct bt_err err = {0};
	if (bt_child_start(bt_nginx_driver()->env->base, &spec, on_started, b, &b->child, &err) <
		0) {
		b->started = false;
		bt_nginx_batch_fail(b, err.code, "nginx: %s", err.text);
	}
}

/* ---- reload ------------------------------------------------------------------------------- */

void bt_nginx_reload(struct bt_nginx_batch *b)
{
	bt_nginx_workers_done(&b->before);
	bt_nginx_workers_read(&b->master, &b->before);
	b->log_at = log_size(b->unit);
	if (!bt_nginx_proc_alive(&b->master) || kill(b->master.pid, SIGHUP) < 0) {
		int e = errno;
		b->has_master = false;
		bt_nginx_batch_fail(b, BT_E_FAILED, "nginx: signal master process %d: %s",
			(int)b->master.pid, strerror(e));
		return;
	}
	b->reloaded = true;
	bt_nginx_step("reloaded");
	expect_workers(b);
}
