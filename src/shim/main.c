/* baton-shim DIR [stop]: keeps the instance of that directory running, whatever happens to the
 * agent.
 *
 * It reads `spec`, and `status` if an earlier shim left one. A process that the status names and
 * that still lives is adopted; otherwise leftovers are ended and the app is started (with `stop` it
 * is not: that is how an instance is stopped whose shim is gone, too). The launcher returns once
 * that is done, or with one line on stderr (enum bt_shim_exit). Then the shim waits for the app's
 * end, for requests on `sock`, and for its clock: restart after a back-off, steps of a stop, the
 * log's rotation. Every change is written to `status` durably and told to subscribers. SIGTERM
 * means that the host shuts down: the app is stopped, to be started again at next boot.
 *
 * A spec with `once_ms` is a program that runs once: its end is the end, whatever it left running
 * is killed with it (but see `leave`), and how it ended is in the last status. Its limit is the
 * shim's to keep, so it holds without an agent. Nothing ever starts it a second time: where nobody
 * saw it end, the status says so. Who can still write to its log when it has ended well (a `tee`
 * that it writes through) gets a moment to end after it: its last words would be lost. Who stays is
 * something that was meant to go on, and cannot: the status names it. */
#include "shim/app.h"
#include "shim/link.h"
#include "shim/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_CHECK_MS 1000
#define HELD_WAIT_MS 5000
#define HELD_LOOK_MS 20

/* The daemon's word to its launcher, or one line of why not. */
#define OK "ok"
#define BUSY "another shim runs this instance"

struct shim {
	struct bt_shim_spec spec;
	struct bt_shim_status status;
	struct bt_app app;
	struct bt_shim_log log;
	struct bt_link link;
	struct bt_shim_steps stop;
	size_t step;
	int signals, lock;
	int64_t deadline_ms; /* of the back-off, the stop's step, or once; 0: none */
	int64_t log_check_ms, started_ms, ended_ms, backoff_ms;
	bool interrupted, done;
	bool held_over; /* the moment for those who hold its log is over */
	bool only_stop; /* started to end what there is, not to run it */
};

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int64_t wall_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- files ------------------------------------------------------------------------------- */

static int read_file(const char *name, char *buf, size_t max, size_t *ret_n)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	size_t n = 0;
	ssize_t r;
	while ((r = read(fd, buf + n, max - n)) > 0)
		n += (size_t)r;
	int saved = r < 0 ? errno : n == max ? EFBIG : 0;
	close(fd);
	*ret_n = n;
	return -saved;
}

static int write_status(const struct bt_shim_status *status)
{
	char buf[BT_SHIM_MESSAGE_MAX];
	struct bt_record_out out = {buf, 0, sizeof buf, false};
	if (bt_shim_status_write(status, &out) < 0)
		return -EMSGSIZE;
	int fd = open("status.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	ssize_t n = write(fd, out.data, out.len);
	int r = n < 0 ? -errno : n != (ssize_t)out.len ? -ENOSPC : fsync(fd) < 0 ? -errno : 0;
	close(fd);
	if (r < 0)
		return r;
	if (rename("status.new", "status") < 0)
		return -errno;
	int dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0) {
		fsync(dir);
		close(dir);
	}
	return 0;
}

/* A full disk must not keep a crashed app from being started again, so a status that cannot be
 * written only fails the first start. A stale status is safe: it names no living process. */
static int set_state(struct shim *s, enum bt_shim_state state, bool publish)
{
	s->status.state = state;
	int r = write_status(&s->status);
	if (publish)
		bt_link_publish(&s->link, &s->status);
	return r;
}

/* ---- start, end, restart ------------------------------------------------------------------ */

static int start_app(struct shim *s, bool first, char *why, size_t why_n)
{
	struct bt_app_launch launch;
	int r = bt_app_fork(&s->spec, &s->log, &s->app, &launch);
	if (r < 0) {
		snprintf(why, why_n, "start a process: %s", strerror(-r));
		return r;
	}
	s->status.pid = s->app.pid;
	s->status.start_ticks = s->app.start_ticks;
	s->status.adopted = 0;
	s->status.since_wall_ms = wall_ms();
	bt_proc_boot_id(s->status.boot_id, sizeof s->status.boot_id);
	/* Durable before the exec: a shim that is killed from here on leaves a name to adopt. */
	r = set_state(s, BT_SHIM_STARTING, false);
	if (r < 0 && first) {
		close(launch.go);
		close(launch.failed);
		kill(s->app.pid, SIGKILL);
		bt_app_reap(&s->app);
		s->status.pid = s->status.start_ticks = 0;
		snprintf(why, why_n, "write the instance's status: %s", strerror(-r));
		return r;
	}
	/* A slot's log holds all the releases that ran in it. */
	snprintf(why, why_n, "starting %s, pid %d", s->status.version, (int)s->app.pid);
	bt_shim_log_line(&s->log, why);
	why[0] = 0;
	r = bt_app_go(&s->app, &launch, &s->spec, why, why_n);
	if (r < 0) {
		s->status.pid = s->status.start_ticks = 0;
		return r;
	}
	s->started_ms = now_ms();
	s->log_check_ms = s->started_ms + LOG_CHECK_MS;
	if (s->spec.once_ms)
		s->deadline_ms = s->started_ms + s->spec.once_ms;
	set_state(s, BT_SHIM_RUNNING, true);
	return 0;
}

static void wait_for_restart(struct shim *s)
{
	if (s->backoff_ms == 0)
		s->backoff_ms = s->spec.backoff_ms;
	s->deadline_ms = now_ms() + s->backoff_ms;
	s->backoff_ms *= 2;
	if (s->backoff_ms > s->spec.backoff_max_ms)
		s->backoff_ms = s->spec.backoff_max_ms;
	s->status.pid = s->status.start_ticks = 0;
	set_state(s, BT_SHIM_WAITING, true);
}

static void restart(struct shim *s)
{
	char why[BT_SHIM_TEXT_MAX];
	s->deadline_ms = 0;
	s->status.restarts++;
	if (start_app(s, false, why, sizeof why) < 0) {
		snprintf(s->status.text, sizeof s->status.text, "%s", why);
		bt_shim_log_line(&s->log, why);
		wait_for_restart(s);
	}
}

static void describe_end(struct shim *s)
{
	char line[BT_SHIM_TEXT_MAX + 32];
	char *text = s->status.text;
	size_t n = sizeof s->status.text;
	s->status.exit_code = s->app.code;
	s->status.exit_signal = s->app.signal;
	if (s->app.signal > 0)
		snprintf(text, n, "ended by signal %d (%s)", s->app.signal,
			sigdescr_np(s->app.signal) ? sigdescr_np(s->app.signal) : "?");
	else if (s->app.code >= 0)
		snprintf(text, n, "exit code %d%s", s->app.code,
			s->app.code == 0 && s->status.state == BT_SHIM_RUNNING && !s->spec.once_ms
				? " (it must stay in the foreground)"
				: "");
	else
		snprintf(text, n, "%s",
			s->spec.once_ms
				? "nobody saw how it ended: what watched it was killed while it ran"
				: "ended; its exit status is unknown, since it was adopted");
	snprintf(line, sizeof line, "pid %d: %s", (int)s->app.pid, text);
	bt_shim_log_line(&s->log, line);
}

static void finish_stop(struct shim *s)
{
	bt_app_reap(&s->app);
	s->status.pid = s->status.start_ticks = 0;
	s->deadline_ms = 0;
	s->done = true;
	if (s->interrupted)
		s->status.held[0] = 0; /* nobody had its moment */
	unlink("sock"); /* before the word is out: the directory may be reused after it */
	set_state(s, s->interrupted ? BT_SHIM_INTERRUPTED : BT_SHIM_STOPPED, true);
}

/* A stop's step that sends nothing. */
static bool is_quiet(const struct shim *s)
{
	return s->step < s->stop.n && s->stop.items[s->step].signal == 0;
}

static void next_step(struct shim *s);

/* A program that may leave others running has ended. What writes to its log still belongs to it,
 * and is waited for until its time is over; what remains of its group after that time is killed. */
static void on_leaving(struct shim *s)
{
	bool stopping = s->status.state == BT_SHIM_STOPPING;
	if (!stopping && !s->status.late &&
		bt_app_writes(&s->app, s->log.fd, s->status.held, sizeof s->status.held))
		return;
	if (!stopping)
		s->status.held[0] = 0;
	if (stopping && s->status.late && bt_app_group_left(&s->app)) {
		if (s->step >= s->stop.n)
			bt_app_signal_group(&s->app, SIGKILL);
		return;
	}
	finish_stop(s);
}

/* A program that runs once has ended well: is somebody left who may still say something? */
static bool is_held(struct shim *s)
{
	struct bt_shim_status *status = &s->status;
	if (!s->spec.once_ms || s->spec.leave || s->held_over || s->app.code != 0 ||
		status->state == BT_SHIM_STOPPING)
		return false;
	if (!bt_app_writes(&s->app, s->log.fd, status->held, sizeof status->held)) {
		status->held[0] = 0;
		return false;
	}
	s->held_over = now_ms() - s->ended_ms >= HELD_WAIT_MS;
	return !s->held_over;
}

/* The app's process has ended, or something that it left behind has. */
static void on_children(struct shim *s)
{
	char name[64];
	bool stopping = s->status.state == BT_SHIM_STOPPING;
	if (bt_app_collect(&s->app)) {
		describe_end(s);
		s->ended_ms = now_ms();
		if (!stopping)
			s->status.exits++;
	}
	if (!s->app.pid || !s->app.ended || is_held(s))
		return;
	if (s->spec.leave) {
		on_leaving(s);
		return;
	}
	if (bt_app_left(&s->app, &s->spec, name, sizeof name)) {
		/* Who was asked is gone: what it left behind was asked nothing. */
		if (stopping && is_quiet(s))
			next_step(s);
		/* A stop's step goes to those who have just become ours, too. A crash ends all. */
		bt_app_signal(&s->app, &s->spec,
			stopping && s->step < s->stop.n ? s->stop.items[s->step].signal : SIGKILL);
		return;
	}
	if (stopping || s->spec.once_ms) {
		finish_stop(s);
		return;
	}
	if (now_ms() - s->started_ms > s->spec.backoff_max_ms)
		s->backoff_ms = 0;
	bt_app_reap(&s->app);
	wait_for_restart(s);
}

/* ---- stop -------------------------------------------------------------------------------- */

static const char *signal_name(int sig)
{
	const char *name = sigabbrev_np(sig);
	return name ? name : "a signal";
}

static void run_step(struct shim *s)
{
	bool last = s->step >= s->stop.n;
	int sig = last ? SIGKILL : s->stop.items[s->step].signal;
	int64_t wait = last ? 1000 : s->stop.items[s->step].wait_ms;
	bt_app_new_step(&s->app);
	if (sig)
		snprintf(s->status.text, sizeof s->status.text,
			"%s sent to pid %d, waiting up to %lld.%lld s", signal_name(sig),
			(int)s->app.pid, (long long)(wait / 1000), (long long)(wait % 1000 / 100));
	else
		snprintf(s->status.text, sizeof s->status.text,
			"pid %d is to end by itself within %lld.%lld s", (int)s->app.pid,
			(long long)(wait / 1000), (long long)(wait % 1000 / 100));
	bt_link_publish(&s->link, &s->status);
	if (sig && s->spec.leave)
		bt_app_signal_group(&s->app, sig);
	else if (sig)
		bt_app_signal(&s->app, &s->spec, sig);
	s->deadline_ms = now_ms() + wait;
}

static void next_step(struct shim *s)
{
	if (s->step < s->stop.n)
		s->step++;
	run_step(s); /* past the last: SIGKILL again each second, until all are gone */
}

static void begin_stop(struct shim *s, const struct bt_shim_steps *steps)
{
	if (s->status.state == BT_SHIM_STOPPING)
		return;
	s->stop = steps->n ? *steps : s->spec.stop;
	s->step = 0;
	if (!s->app.pid) { /* it waits for its next start */
		finish_stop(s);
		return;
	}
	set_state(s, BT_SHIM_STOPPING, true);
	run_step(s);
	on_children(s);
}

static void on_request(void *arg, const struct bt_shim_request *rq)
{
	struct shim *s = arg;
	if (rq->op == BT_SHIM_OP_STOP)
		begin_stop(s, &rq->steps);
	else if (rq->op == BT_SHIM_OP_NEXT && s->status.state == BT_SHIM_STOPPING && is_quiet(s)) {
		next_step(s);
		on_children(s);
	}
}

static void on_deadline(struct shim *s)
{
	if (s->status.state == BT_SHIM_WAITING) {
		restart(s);
		return;
	}
	if (s->status.state == BT_SHIM_RUNNING) { /* a program that runs once is late */
		s->deadline_ms = 0;
		if (s->spec.leave && s->app.ended) {
			finish_stop(s); /* status.held says who would not let go */
			return;
		}
		s->status.late = !s->app.ended;
		begin_stop(s, &s->spec.stop);
		return;
	}
	next_step(s);
	on_children(s);
}

/* ---- the loop ---------------------------------------------------------------------------- */

static void on_signals(struct shim *s)
{
	struct signalfd_siginfo si;
	while (read(s->signals, &si, sizeof si) == sizeof si)
		if (si.ssi_signo == SIGTERM) {
			s->interrupted = true;
			begin_stop(s, &s->spec.stop);
		}
	if (!s->done)
		on_children(s);
}

static void on_timers(struct shim *s)
{
	int64_t now = now_ms();
	if (s->log_check_ms && now >= s->log_check_ms) {
		bt_shim_log_check(&s->log); /* on a full disk it is tried again */
		s->log_check_ms = s->app.pid ? now + LOG_CHECK_MS : 0;
		/* Marked processes of an adopted app tell nobody of their end. */
		if (s->app.pid && s->app.ended)
			on_children(s);
	}
	if (!s->done && s->deadline_ms && now >= s->deadline_ms)
		on_deadline(s);
}

/* Somebody holds the log of a program that has ended; letting go of it tells nobody. */
static bool is_waiting_for_words(const struct shim *s)
{
	return s->app.pid && s->app.ended && s->status.held[0] && !s->held_over;
}

static int next_timeout(const struct shim *s)
{
	int64_t at = s->log_check_ms;
	if (s->deadline_ms && (!at || s->deadline_ms < at))
		at = s->deadline_ms;
	/* What an adopted app left behind is not our child: its end is looked for. */
	if (s->app.pid && s->app.ended && !s->app.child)
		return 20;
	/* Most let go at once; the others are looked at with the log. */
	if (s->app.pid && s->app.ended && s->spec.leave && now_ms() - s->ended_ms < 1000)
		return 20;
	if (is_waiting_for_words(s))
		return HELD_LOOK_MS;
	if (!at)
		return -1;
	int64_t left = at - now_ms();
	return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void run(struct shim *s)
{
	while (!s->done) {
		struct pollfd fds[BT_LINK_CLIENTS + 3];
		size_t n = bt_link_poll(&s->link, fds);
		fds[n] = (struct pollfd){s->signals, POLLIN, 0};
		bool adopted = s->app.pid && !s->app.child && !s->app.ended;
		fds[n + 1] = (struct pollfd){adopted ? s->app.pidfd : -1, POLLIN, 0};
		int r = poll(fds, n + 2, next_timeout(s));
		if (r < 0 && errno != EINTR)
			exit(1); /* the app lives on and is adopted */
		if (r < 0)
			continue;
		if (fds[n].revents)
			on_signals(s);
		bool left = (s->spec.leave && s->app.ended) || is_waiting_for_words(s);
		if (!s->done && s->app.pid && (!s->app.child || left))
			on_children(s);
		if (!s->done)
			on_timers(s);
		if (!s->done)
			bt_link_serve(&s->link, fds, n, on_request, &s->status, s);
	}
}

/* ---- set-up ------------------------------------------------------------------------------ */

static int load(struct shim *s, char *why, size_t n)
{
	static char text[BT_SHIM_SPEC_MAX]; /* the spec's strings live here */
	size_t len;
	int r = read_file("spec", text, sizeof text, &len);
	if (r < 0) {
		snprintf(why, n, "read the instance's spec: %s", strerror(-r));
		return r;
	}
	char problem[128];
	if (bt_shim_spec_parse(text, len, &s->spec, problem, sizeof problem) < 0) {
		snprintf(why, n, "the instance's spec: %s", problem);
		return -EBADMSG;
	}
	r = bt_shim_log_open(&s->log, s->spec.log, s->spec.log_max_bytes, s->spec.log_keep);
	if (r < 0)
		snprintf(why, n, "open log %.200s: %s", s->spec.log, strerror(-r));
	return r;
}

static int prepare(struct shim *s, char *why, size_t n)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_SETMASK, &set, NULL);
	for (int i = 1; i < 32; i++)
		signal(i, i == SIGHUP || i == SIGINT || i == SIGPIPE ? SIG_IGN : SIG_DFL);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	s->lock = open("lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->signals < 0 || s->lock < 0) {
		snprintf(why, n, "prepare: %s", strerror(errno));
		return -errno;
	}
	if (flock(s->lock, LOCK_EX | LOCK_NB) < 0) {
		snprintf(why, n, BUSY);
		return -EBUSY;
	}
	int r = load(s, why, n);
	if (r == 0 && (r = bt_link_open(&s->link, "sock")) < 0)
		snprintf(why, n, "open the instance's socket: %s", strerror(-r));
	return r;
}

static bool adopt(struct shim *s, const struct bt_shim_status *old)
{
	if (bt_app_adopt(&s->app, (pid_t)old->pid, old->start_ticks, old->boot_id) < 0)
		return false;
	s->status = *old;
	s->status.shim_pid = getpid();
	s->status.adopted = 1;
	s->started_ms = now_ms();
	s->log_check_ms = s->started_ms + LOG_CHECK_MS;
	if (s->spec.once_ms) {
		int64_t ran = wall_ms() - old->since_wall_ms;
		ran = ran < 0 ? 0 : ran > s->spec.once_ms ? s->spec.once_ms : ran;
		s->deadline_ms = s->started_ms + s->spec.once_ms - ran;
	}
	set_state(s, BT_SHIM_RUNNING, true);
	return true;
}

static int begin(struct shim *s, char *why, size_t n)
{
	static char text[BT_SHIM_MESSAGE_MAX];
	struct bt_shim_status old;
	size_t len;
	char problem[128];
	bool known = read_file("status", text, sizeof text, &len) == 0 &&
		     bt_shim_status_parse(text, len, &old, problem, sizeof problem) == 0;
	s->app.pidfd = -1;
	if (known && s->spec.once_ms &&
		(old.state == BT_SHIM_STOPPED || old.state == BT_SHIM_FAILED ||
			old.state == BT_SHIM_INTERRUPTED)) {
		unlink("sock"); /* it has ended, and that is written: nothing is left to do */
		s->done = true;
		return 0;
	}
	/* The agent gave this shim up, another one stopped the instance, and the directory is about
	 * to be removed, the spec first. */
	if (!s->only_stop && (known ? old.state == BT_SHIM_STOPPED : access("spec", F_OK) < 0)) {
		snprintf(why, n, "the instance was stopped meanwhile");
		return -ECANCELED;
	}
	if (known && adopt(s, &old))
		return 0;
	if (!s->spec.leave)
		bt_app_kill_leftovers(&s->spec);
	s->status = (struct bt_shim_status){.shim_pid = getpid(),
		.release = s->spec.release,
		.port = s->spec.port,
		.exit_code = -1};
	snprintf(s->status.version, sizeof s->status.version, "%s",
		s->spec.version ? s->spec.version : "");
	if (known) {
		s->status.restarts = old.restarts + 1;
		s->status.exits = old.exits;
		snprintf(s->status.text, sizeof s->status.text, "started again after its shim");
	}
	if (known && s->spec.once_ms)
		snprintf(s->status.text, sizeof s->status.text,
			"nobody saw how it ended: what watched it was killed, or the host stopped");
	if (s->only_stop || (known && s->spec.once_ms)) {
		finish_stop(s);
		return 0;
	}
	int r = start_app(s, !known, why, n);
	if (r == 0)
		return 0;
	snprintf(s->status.text, sizeof s->status.text, "%s", why);
	if (known) { /* it ran before: it is tried until it works */
		bt_shim_log_line(&s->log, why);
		why[0] = 0;
		wait_for_restart(s);
		return 0;
	}
	unlink("sock");
	set_state(s, BT_SHIM_FAILED, false);
	return r;
}

static void daemon_main(const char *dir, bool only_stop, int report)
{
	static struct shim s;
	s.only_stop = only_stop;
	char why[512] = "";
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (setsid() < 0 || null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
		snprintf(why, sizeof why, "leave the caller's session: %s", strerror(errno));
	else if (chdir(dir) < 0)
		snprintf(why, sizeof why, "enter %.300s: %s", dir, strerror(errno));
	else if (prepare(&s, why, sizeof why) == 0)
		begin(&s, why, sizeof why);
	size_t n = strlen(why);
	if (write(report, n ? why : OK, n ? n : strlen(OK)) < 0) {
		/* the caller is gone; the instance is not its any more */
	}
	close(report);
	if (n)
		_exit(1);
	run(&s);
	_exit(0);
}

/* Returns once the app runs or could not be started. */
int main(int argc, char **argv)
{
	int report[2];
	/* Whatever the agent had open is not the instance's, nor its app's. */
	close_range(3, ~0u, 0);
	bool only_stop = argc == 3 && strcmp(argv[2], "stop") == 0;
	if ((argc != 2 && !only_stop) || argv[1][0] == '-') {
		fprintf(stderr, "usage: baton-shim DIR [stop] (started by the agent)\n");
		return BT_SHIM_EXIT_USAGE;
	}
	if (pipe2(report, O_CLOEXEC) < 0) {
		perror("baton-shim: pipe");
		return BT_SHIM_EXIT_NOTHING;
	}
	pid_t pid = fork();
	if (pid < 0) {
		perror("baton-shim: fork");
		return BT_SHIM_EXIT_NOTHING;
	}
	if (pid == 0) {
		close(report[0]);
		daemon_main(argv[1], only_stop, report[1]);
	}
	close(report[1]);
	char text[512];
	size_t n = 0;
	ssize_t r;
	while (n < sizeof text - 1 && (r = read(report[0], text + n, sizeof text - 1 - n)) > 0)
		n += (size_t)r;
	text[n] = 0;
	if (strcmp(text, OK) == 0)
		return BT_SHIM_EXIT_RUNS;
	fprintf(stderr, "%s\n", n ? text : "the shim ended without a word");
	return n && strcmp(text, BUSY) != 0 ? BT_SHIM_EXIT_NOTHING : BT_SHIM_EXIT_UNKNOWN;
}
