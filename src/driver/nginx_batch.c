/* The steps of one change:
 *
 *   look ─ write ─ test ─ reload ─ workers ─ answers ─ commit
 *            └───────┴──────┴────────┴─────────┴──▶ restore ─ (reload ─ workers) ─ clear
 *
 * Durable before it is done: state.json holds the new text and the prior one before nginx's file
 * is touched, and loses them only when the new one is confirmed or the prior one is in force
 * again. A reload that nginx's master refuses shows in its error log and in workers that stay, so
 * neither its exit status nor the signal counts as a success: only new workers do. */
#include "driver/nginx_step.h"

#include "base/clock.h"
#include "base/fs.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#define ENDED_WITHIN_MS 5000
#define ENDED_POLL_MS 10

enum bt_nginx_batch_kind bt_nginx_batch_kind(const struct bt_nginx_batch *b)
{
	return b->kind;
}

void bt_nginx_step(const char *step)
{
	if (bt_nginx_step_hook)
		bt_nginx_step_hook(step);
}

void bt_nginx_batch_say(struct bt_nginx_batch *b, const char *line)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->ops[i]->progress)
			b->ops[i]->progress(b->ops[i]->progress_arg, line);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct bt_nginx_batch *b = arg;
	(void)fd;
	(void)what;
	b->on_timer(b);
}

void bt_nginx_batch_after(
	struct bt_nginx_batch *b, int64_t ms, void (*fn)(struct bt_nginx_batch *b))
{
	b->on_timer = fn;
	bt_timer_in(b->timer, ms);
}

static void run_work(void *arg)
{
	struct bt_nginx_batch *b = arg;
	b->work_result = b->work(b, &b->work_err);
}

static void on_work(void *arg)
{
	struct bt_nginx_batch *b = arg;
	b->work_done(b, b->work_result);
}

static void beside(struct bt_nginx_batch *b, int (*work)(struct bt_nginx_batch *, struct bt_err *),
	void (*done)(struct bt_nginx_batch *, int))
{
	b->work = work;
	b->work_done = done;
	b->work_err = (struct bt_err){0};
	bt_work_submit(bt_nginx_driver()->env->work, run_work, on_work, b);
}

/* ---- the end ------------------------------------------------------------------------------ */

static void finish(struct bt_nginx_batch *b)
{
	struct bt_nginx_unit *u = b->unit;
	for (size_t i = 0; i < b->n && b->wrote; i++) {
		struct bt_nginx_site *site = b->ops[i]->site;
		const struct bt_nginx_state *w = b->ops[i]->want;
		site->state = bt_nginx_state_free(site->state);
		if (w->has_confirmed || w->has_pending)
			site->state = bt_nginx_state_copy(w);
	}
	u->running = NULL;
	bt_nginx_learn(u);
	b->ended(u, b->kind, b->ops, b->n, b->result, &b->err);
	event_free(b->timer);
	bt_nginx_workers_done(&b->before);
	free(b->orphans);
	free(b);
}

/* A service that was moved to the user's own nginx leaves the one that baton ran for it. */
static void leave_managed(struct bt_nginx_batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct bt_nginx_state *had = b->ops[i]->site->state;
		struct bt_nginx_proc master;
		if (!had || !had->managed || b->unit->managed || !had->prefix)
			continue;
		BT_FREE char *pid_file = bt_asprintf("%s/nginx.pid", had->prefix);
		if (bt_nginx_master(pid_file, &master) == 0)
			kill(master.pid, SIGQUIT);
	}
}

static void on_committed(struct bt_nginx_batch *b, int r)
{
	if (r == 0)
		leave_managed(b);
	if (r < 0) {
		b->result = r;
		b->err = b->work_err;
		bt_err_wrap(&b->err, "nginx sends to the new pool, but that cannot be recorded");
	}
	finish(b);
}

static void on_cleared(struct bt_nginx_batch *b, int r)
{
	if (r < 0) {
		BT_FREE char *first = bt_strdup(b->err.text);
		b->err = b->work_err;
		bt_err_wrap(&b->err, "%s%sthe prior file is back, but", first, *first ? "; " : "");
		b->result = b->err.code;
	}
	finish(b);
}

static void clear(struct bt_nginx_batch *b)
{
	beside(b, bt_nginx_files_clear, on_cleared);
}

/* ---- forward: confirmed, step by step ----------------------------------------------------- */

void bt_nginx_batch_answered(struct bt_nginx_batch *b)
{
	bt_nginx_step("answered");
	beside(b, bt_nginx_files_commit, on_committed);
}

void bt_nginx_batch_workers_ready(struct bt_nginx_batch *b)
{
	bt_nginx_step("workers");
	for (size_t i = 0; i < b->n_orphans; i++)
		if (bt_nginx_proc_alive(&b->orphans[i]))
			kill(b->orphans[i].pid, SIGQUIT);
	if (b->restoring)
		clear(b);
	else if (b->kind == BT_NGINX_RESTART)
		finish(b);
	else if (b->kind == BT_NGINX_CERTIFICATE) {
		b->wrote = true;
		beside(b, bt_nginx_files_commit, on_committed);
	} else
		bt_nginx_ask(b);
}

/* ---- back --------------------------------------------------------------------------------- */

/* Until the nginx that ran only for this change has left its port. */
static void wait_ended(struct bt_nginx_batch *b)
{
	if (b->has_master && bt_nginx_proc_alive(&b->master) && bt_clock_boot_ms() < b->deadline_ms)
		bt_nginx_batch_after(b, ENDED_POLL_MS, wait_ended);
	else
		clear(b);
}

static void on_restored(struct bt_nginx_batch *b, int r)
{
	if (r < 0) {
		BT_FREE char *first = bt_strdup(b->err.text);
		b->err = b->work_err;
		bt_err_wrap(&b->err, "%s; and its file could not be put back", first);
		b->result = b->err.code;
		finish(b);
		return;
	}
	bool nothing_before = true;
	for (size_t i = 0; i < b->n; i++)
		nothing_before = nothing_before && !b->ops[i]->want->prior;
	if (b->started && nothing_before) { /* it runs only because of this change */
		if (b->has_master)
			kill(b->master.pid, SIGTERM);
		b->deadline_ms = bt_clock_boot_ms() + ENDED_WITHIN_MS;
		wait_ended(b);
	} else if ((b->reloaded || b->started) && b->has_master &&
		   bt_nginx_proc_alive(&b->master)) {
		bt_nginx_reload(b);
	} else {
		clear(b);
	}
}

static void restore(struct bt_nginx_batch *b)
{
	b->restoring = true;
	beside(b, bt_nginx_files_restore, on_restored);
}

void bt_nginx_batch_fail(struct bt_nginx_batch *b, int code, const char *fmt, ...)
{
	char text[BT_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	if (b->restoring) { /* the way back fails too: the pending state stays, tend() tries again
			     */
		if (b->result < 0)
			bt_err_wrap(&b->err, "%s; and back to the prior file", text);
		else
			b->result = bt_err_set(&b->err, code, "back to the prior file: %s", text);
		finish(b);
		return;
	}
	b->result = bt_err_set(&b->err, code, "%s", text);
	if (b->kind == BT_NGINX_RESTART || b->kind == BT_NGINX_CERTIFICATE)
		finish(b); /* nothing was written */
	else
		restore(b);
}

/* Before anything was written. */
static void give_up(struct bt_nginx_batch *b, int code, const char *text)
{
	b->result = bt_err_set(&b->err, code, "%s", text);
	finish(b);
}

/* ---- forward ------------------------------------------------------------------------------ */

struct inclusion {
	const char *file;
	struct stat st;
	bool known, found;
};

static bool on_dump_file(void *arg, const char *path)
{
	struct inclusion *i = arg;
	struct stat st;
	i->found = i->found || !strcmp(path, i->file) ||
		   (i->known && stat(path, &st) == 0 && st.st_dev == i->st.st_dev &&
			   st.st_ino == i->st.st_ino);
	return !i->found;
}

/* nginx must really read the file that baton owns, or a switch would change nothing. */
static const char *not_included(const struct bt_nginx_batch *b, const char *dump)
{
	for (size_t i = 0; i < b->n; i++) {
		struct inclusion inc = {.file = b->ops[i]->want->file};
		inc.known = stat(inc.file, &inc.st) == 0;
		bt_nginx_dump_files(dump, on_dump_file, &inc);
		if (!inc.found)
			return inc.file;
	}
	return NULL;
}

static bool find_master(struct bt_nginx_batch *b)
{
	b->has_master =
		b->unit->facts_known && bt_nginx_master(b->unit->facts.pid_file, &b->master) == 0;
	return b->has_master;
}

static bool too_many_old(struct bt_nginx_batch *b, struct bt_err *err)
{
	struct bt_nginx_workers now;
	bt_nginx_workers_read(&b->master, &now);
	int limit = b->ops[0]->want->max_old_workers;
	for (size_t i = 1; i < b->n; i++)
		if (b->ops[i]->want->max_old_workers < limit)
			limit = b->ops[i]->want->max_old_workers;
	bool refuse = now.n_leaving > (size_t)limit;
	if (refuse) {
		BT_STR struct bt_str holders = {0};
		bt_nginx_holders(now.leaving, now.n_leaving, &holders);
		bt_err_set(err, BT_E_REFUSED,
			"nginx: %zu old workers still shut down (max_old_workers is %d)%s%s: wait "
			"until their connections end, or set worker_shutdown_timeout",
			now.n_leaving, limit, holders.len ? ", held by connections: " : "",
			bt_str_get(&holders));
	}
	bt_nginx_workers_done(&now);
	return refuse;
}

static void on_config_tested(void *arg, int result, const char *dump, const struct bt_err *err)
{
	struct bt_nginx_batch *b = arg;
	struct bt_err refused = {0};
	b->test = NULL;
	if (result < 0) {
		bt_nginx_batch_fail(b, result, "%s", err->text);
		return;
	}
	bt_nginx_step("tested");
	const char *missing = b->unit->managed ? NULL : not_included(b, dump);
	if (missing) {
		bt_nginx_batch_fail(b, BT_E_CONFIG,
			"nginx does not read %s: add `include %s;` to its configuration", missing,
			missing);
		return;
	}
	if (!find_master(b)) {
		if (b->unit->managed)
			bt_nginx_start(b);
		else if (b->ops[0]->hold)
			bt_nginx_batch_answered(b); /* its next start reads the file */
		else
			bt_nginx_batch_fail(b, BT_E_FAILED,
				"nginx is not running (%s names no nginx master process): start it",
				b->unit->facts.pid_file);
		return;
	}
	if (b->kind == BT_NGINX_CHANGE && too_many_old(b, &refused)) {
		bt_nginx_batch_fail(b, refused.code, "%s", refused.text);
		return;
	}
	bt_nginx_reload(b);
}

static void test(struct bt_nginx_batch *b)
{
	b->test = bt_nginx_test_start(b->unit, on_config_tested, b);
}

static void on_written(struct bt_nginx_batch *b, int r)
{
	if (r < 0)
		bt_nginx_batch_fail(b, r, "%s", b->work_err.text);
	else
		test(b);
}

static void write_files(struct bt_nginx_batch *b)
{
	struct bt_err err = {0};
	if (b->unit->facts_known && find_master(b)) {
		if (too_many_old(b, &err)) {
			give_up(b, err.code, err.text);
			return;
		}
	}
	b->wrote = true;
	beside(b, bt_nginx_files_write, on_written);
}

/* Adopt, first time: is the user's own configuration good as it stands, and is nginx there? */
static void on_first_look(void *arg, int result, const char *dump, const struct bt_err *err)
{
	struct bt_nginx_batch *b = arg;
	BT_FREE char *text = NULL;
	(void)dump;
	b->test = NULL;
	if (result < 0) {
		text = bt_asprintf("%s (nothing was changed)", err->text);
		give_up(b, result, text);
	} else if (!find_master(b) && !b->ops[0]->hold) {
		text = bt_asprintf("nginx is not running (%s names no nginx master process): start "
				   "it; nothing was changed",
			b->unit->facts.pid_file);
		give_up(b, BT_E_FAILED, text);
	} else {
		write_files(b);
	}
}

static bool files_exist(const struct bt_nginx_batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		if (!bt_fs_exists(b->ops[i]->want->file))
			return false;
	return true;
}

static void begin_change(struct bt_nginx_batch *b)
{
	bool look = !b->unit->managed && (!b->unit->facts_known || !find_master(b));
	for (size_t i = 0; i < b->n; i++) {
		struct bt_nginx_state *w = b->ops[i]->want;
		const struct bt_nginx_state *have = b->ops[i]->site->state;
		w->has_pending = false; /* until it is on disk */
		w->has_confirmed = have && have->has_confirmed;
		if (w->has_confirmed)
			w->confirmed = bt_nginx_target_copy(w->arena, &have->confirmed);
	}
	/* A file that nginx includes but that is not there yet fails the test until it is written.
	 */
	if (look && (b->unit->facts_known || files_exist(b)))
		b->test = bt_nginx_test_start(b->unit, on_first_look, b);
	else
		write_files(b);
}

/* ---- recover and restart ------------------------------------------------------------------ */

static void on_judged_test(void *arg, int result, const char *dump, const struct bt_err *err)
{
	struct bt_nginx_batch *b = arg;
	(void)dump;
	b->test = NULL;
	bool running = b->unit->facts_known && find_master(b);
	b->started = running && b->unit->managed && !b->ops[0]->want->prior;
	if (!running) {
		/* Never confirmed, and nobody can confirm it now: the prior text is known to work.
		 */
		restore(b);
	} else if (b->backwards) {
		b->reloaded = true; /* perhaps: the crash may have come after it */
		restore(b);
	} else if (result < 0) {
		b->reloaded = true;
		bt_nginx_batch_fail(b, result, "%s", err->text);
	} else {
		bt_nginx_reload(b);
	}
}

static void on_judged(struct bt_nginx_batch *b, int r)
{
	if (r < 0)
		give_up(b, r, b->work_err.text);
	else
		b->test = bt_nginx_test_start(b->unit, on_judged_test, b);
}

static void on_restart_tested(void *arg, int result, const char *dump, const struct bt_err *err)
{
	struct bt_nginx_batch *b = arg;
	(void)dump;
	b->test = NULL;
	if (result < 0)
		give_up(b, result, err->text);
	else if (find_master(b))
		finish(b);
	else
		bt_nginx_start(b);
}

static void on_certificate_tested(void *arg, int result, const char *dump, const struct bt_err *err)
{
	struct bt_nginx_batch *b = arg;
	(void)dump;
	b->test = NULL;
	if (result < 0)
		give_up(b, result, err->text);
	else if (!find_master(b))
		give_up(b, BT_E_FAILED, "nginx is not running");
	else
		bt_nginx_reload(b);
}

static void on_certificate(struct bt_nginx_batch *b, int r)
{
	if (r < 0)
		give_up(b, r, b->work_err.text);
	else
		b->test = bt_nginx_test_start(b->unit, on_certificate_tested, b);
}

void bt_nginx_batch_start(struct bt_nginx_unit *unit, enum bt_nginx_batch_kind kind,
	struct bt_nginx_apply *const *ops, size_t n, bt_nginx_ended_fn ended)
{
	struct bt_nginx_batch *b = bt_calloc(1, sizeof *b);
	b->unit = unit;
	b->kind = kind;
	memcpy(b->ops, ops, n * sizeof *ops);
	b->n = n;
	b->ended = ended;
	b->timer = event_new(bt_nginx_driver()->env->base, -1, 0, on_timer, b);
	unit->running = b;
	switch (kind) {
	case BT_NGINX_CHANGE:
		begin_change(b);
		break;
	case BT_NGINX_RECOVER:
		b->wrote = true;
		beside(b, bt_nginx_files_judge, on_judged);
		break;
	case BT_NGINX_RESTART:
		b->test = bt_nginx_test_start(unit, on_restart_tested, b);
		break;
	case BT_NGINX_CERTIFICATE:
		beside(b, bt_nginx_files_certificate, on_certificate);
		break;
	}
}
