/* The life of one command, from offer to durable result. What a task kind does is in the rows of
 * task_*.c; nothing here knows one kind from another. */
#include "agent/tasks.h"

#include "agent/boot.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAX (60 * 1024) /* with JSON's quoting it stays near the wire's 64 KiB */
#define COMMAND_MAX (4u << 20)
#define MAX_JOBS 4096

struct bt_exec {
	struct bt_exec_env env;
	struct bt_job *jobs, **tail;
	size_t n;
	char *results_dir;
	struct event *sweep; /* jobs that ended are freed from the loop, never from a callback */
};

const struct bt_exec_env *bt_job_exec(const struct bt_job *j)
{
	return &j->x->env;
}

const struct bt_driver_env *bt_job_env(const struct bt_job *j)
{
	return j->x->env.driver;
}

/* ---- the log ------------------------------------------------------------------------------ */

static void log_line(struct bt_job *j, const char *text)
{
	if (j->log.len > LOG_MAX) { /* the end of a log tells more than its middle */
		size_t half = j->log.len / 2;
		const char *nl = strchr(j->log.data + half, '\n');
		BT_FREE char *rest = bt_strdup(nl ? nl + 1 : "");
		bt_str_reset(&j->log);
		bt_str_add(&j->log, "[earlier lines dropped]\n");
		bt_str_add(&j->log, rest);
	}
	int64_t ms = bt_clock_boot_ms() - j->started_ms;
	bt_str_addf(&j->log, "+%" PRId64 ".%03" PRId64 " ", ms / 1000, ms % 1000);
	BT_FREE char *cut = bt_strndup(text, 4000);
	bt_redact_into(j->x->env.redact, cut, &j->log);
	bt_str_addc(&j->log, '\n');
}

void bt_job_log(struct bt_job *j, const char *text)
{
	log_line(j, text);
}

void bt_job_progress(void *job, const char *line)
{
	struct bt_job *j = job;
	if (j->phase == BT_JOB_ENDING || (j->last_progress && strcmp(j->last_progress, line) == 0))
		return;
	free(j->last_progress);
	j->last_progress = bt_strdup(line);
	log_line(j, line);
	BT_FREE char *clean = bt_redact_dup(j->x->env.redact, line);
	j->x->env.on_progress(j->x->env.arg, &j->key, clean);
}

void bt_job_show(void *job, const char *line)
{
	struct bt_job *j = job;
	BT_FREE char *clean = bt_redact_dup(j->x->env.redact, line);
	if (j->phase == BT_JOB_GOING)
		j->x->env.on_progress(j->x->env.arg, &j->key, clean);
}

void bt_job_say(struct bt_job *j, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(line, sizeof line, fmt, ap);
	va_end(ap);
	bt_job_progress(j, line);
}

/* ---- log and observation beside the ledger ------------------------------------------------ */

static void extras_path(
	const struct bt_exec *x, const struct bt_command_key *k, char *buf, size_t n)
{
	snprintf(buf, n, "%s/%" PRIu64 "-%" PRIu32 "-%s-%" PRIu32 ".json", x->results_dir,
		k->deployment, k->task, bt_verb_name(k->verb), k->attempt);
}

struct extras {
	char path[512];
	char *text;
};

/* A log that cannot be kept is no reason to fail a task: the result goes without it. */
static void extras_write(void *arg)
{
	struct extras *e = arg;
	bt_fs_write_atomic(e->path, e->text, strlen(e->text), 0600, NULL);
}

static void extras_done(void *arg)
{
	struct extras *e = arg;
	free(e->text);
	free(e);
}

static void keep_extras(struct bt_job *j)
{
	if (!j->log.len && !j->observation)
		return;
	struct extras *e = bt_calloc(1, sizeof *e);
	extras_path(j->x, &j->key, e->path, sizeof e->path);
	BT_JSON json_t *o = json_object();
	json_object_set_new(o, "log", json_string(bt_str_get(&j->log)));
	if (j->observation)
		json_object_set(o, "observation", j->observation);
	e->text = bt_json_dump(o);
	bt_ledger_file_job(j->x->env.ledger, extras_write, extras_done, e);
}

json_t *bt_exec_extras(const struct bt_exec *x, const struct bt_command_key *key)
{
	char path[512];
	BT_FREE char *text = NULL;
	size_t n;
	json_t *o = NULL;
	extras_path(x, key, path, sizeof path);
	if (bt_fs_read(path, COMMAND_MAX, &text, &n, NULL) < 0 ||
		bt_json_parse(text, n, COMMAND_MAX, &o, NULL) < 0)
		return NULL;
	return o;
}

void bt_exec_forget_extras(const struct bt_exec *x, const struct bt_command_key *key)
{
	char path[512];
	extras_path(x, key, path, sizeof path);
	unlink(path);
}

/* ---- ending ------------------------------------------------------------------------------- */

static void stop_working(struct bt_job *j)
{
	j->op = bt_op_cancel(j->op);
	for (size_t i = 0; i < BT_JOB_MAX_OPS; i++)
		j->ops[i] = bt_op_cancel(j->ops[i]);
	if (j->observing)
		j->observing = bt_observe_cancel(j->observing);
	if (j->limit)
		event_del(j->limit);
	if (j->look)
		event_del(j->look);
}

static struct bt_job *job_free(struct bt_job *j)
{
	stop_working(j);
	if (j->limit)
		event_free(j->limit);
	if (j->look)
		event_free(j->look);
	bt_config_free(j->config);
	json_decref(j->observation);
	json_decref(j->command);
	bt_str_done(&j->log);
	free(j->detail);
	free(j->last_progress);
	bt_arena_free(j->arena);
	free(j);
	return NULL;
}

static void remove_job(struct bt_job *j)
{
	struct bt_exec *x = j->x;
	for (struct bt_job **p = &x->jobs; *p; p = &(*p)->next)
		if (*p == j) {
			*p = j->next;
			if (x->tail == &j->next)
				x->tail = p;
			x->n--;
			break;
		}
	job_free(j);
}

static void start_queued(struct bt_exec *x);

static void on_done_durable(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	struct bt_exec *x = j->x;
	struct bt_command_key key = j->key;
	(void)result; /* DONE is tried until it is durable */
	(void)err;
	if (j->row->over)
		j->row->over(j);
	remove_job(j);
	x->env.on_result(x->env.arg, &key);
	x->env.on_changed(x->env.arg);
	start_queued(x);
}

static void finish(struct bt_job *j, enum bt_outcome outcome, const char *detail)
{
	if (j->phase == BT_JOB_ENDING)
		return;
	j->outcome = outcome;
	j->detail = bt_redact_dup(j->x->env.redact, detail);
	char line[1200];
	snprintf(
		line, sizeof line, "%s%s%s", bt_outcome_name(outcome), *detail ? ": " : "", detail);
	log_line(j, line);
	j->phase = BT_JOB_ENDING;
	stop_working(j);
	keep_extras(j);
	struct bt_ledger_entry e = {.kind = BT_LEDGER_DONE, .key = j->key};
	e.result = (struct bt_result){.key = j->key,
		.outcome = outcome,
		.prior = j->prior,
		.drained = j->drained,
		.detail = j->detail};
	bt_ledger_file_append(j->x->env.ledger, &e, on_done_durable, j);
}

void bt_job_finish(struct bt_job *j, enum bt_outcome outcome, const char *fmt, ...)
{
	char detail[BT_ERR_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(detail, sizeof detail, fmt, ap);
	va_end(ap);
	finish(j, outcome, detail);
}

void bt_job_finish_text(struct bt_job *j, enum bt_outcome outcome, const char *text)
{
	finish(j, outcome, text);
}

void bt_job_finish_result(struct bt_job *j, int result, const struct bt_err *err, const char *done)
{
	j->op = NULL; /* it has called back: it is gone */
	if (result >= 0)
		finish(j, BT_OUTCOME_DONE, done);
	else
		finish(j, result == BT_E_REFUSED ? BT_OUTCOME_REFUSED : BT_OUTCOME_FAILED,
			err && err->text[0] ? err->text : "failed without a reason");
}

/* ---- going -------------------------------------------------------------------------------- */

/* The effect may have come about before the limit cut its confirmation short: ask the world. */
static void on_limit(evutil_socket_t fd, short what, void *arg)
{
	struct bt_job *j = arg;
	char limit[32];
	(void)fd;
	(void)what;
	stop_working(j);
	if (j->key.verb == BT_DO && j->row->there && j->row->there(j)) {
		bt_job_finish(j, BT_OUTCOME_DONE, "seen done when its time limit passed");
		return;
	}
	/* Half an effect may be there: a task that can be undone is, from what was there before. */
	const struct bt_task_info *info = bt_task_info(j->kind);
	bt_job_finish(j,
		info->has_undo || info->repeat == BT_REPEAT_NEVER ? BT_OUTCOME_UNKNOWN
								  : BT_OUTCOME_FAILED,
		"not done within %s%s%s", bt_duration_format(j->timeout_ms + j->wait_ms, limit),
		j->last_progress ? "; last: " : "", j->last_progress ? j->last_progress : "");
}

static void arm_limit(struct bt_job *j)
{
	int64_t ms = j->timeout_ms + j->wait_ms;
	if (!j->limit)
		j->limit = evtimer_new(bt_job_env(j)->base, on_limit, j);
	bt_timer_in(j->limit, ms);
}

static void give_up(struct bt_job *j)
{
	bt_job_finish(j, BT_OUTCOME_FAILED, "given up: a later command came");
}

static void on_booted(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	(void)result;
	(void)err;
	j->op = NULL;
	j->row->go(j);
}

bool bt_job_waits_for_boot(struct bt_job *j, const char *slot)
{
	j->op = bt_boot_wait(bt_job_exec(j)->boot, j->service_name, slot, on_booted, j);
	if (j->op)
		bt_job_say(j, "this host was booted: waits until its instances are healthy again");
	return j->op != NULL;
}

static void go(struct bt_job *j)
{
	j->phase = BT_JOB_GOING;
	if (j->given_up) {
		give_up(j);
		return;
	}
	arm_limit(j);
	if (j->key.verb == BT_UNDO && j->row->undo)
		j->row->undo(j);
	else
		j->row->go(j);
}

static void on_begun_durable(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	(void)result;
	(void)err;
	j->begun = true;
	if (j->phase == BT_JOB_BEGINNING)
		go(j);
}

void bt_job_begin(struct bt_job *j)
{
	j->phase = BT_JOB_BEGINNING;
	struct bt_ledger_entry e = {.kind = BT_LEDGER_BEGUN, .key = j->key, .prior = j->prior};
	bt_ledger_file_append(j->x->env.ledger, &e, on_begun_durable, j);
}

/* An undo restores what its do recorded: the command's own word first, else the ledger's. */
static bool find_prior_to_restore(struct bt_job *j)
{
	json_t *p = json_object_get(j->command, "prior");
	if (json_is_object(p) && bt_prior_from_json(p, &j->prior, NULL) == 0 && j->prior.known)
		return true;
	return bt_ledger_prior(
		bt_ledger_file_ledger(j->x->env.ledger), j->key.deployment, j->key.task, &j->prior);
}

static void prepare(struct bt_job *j)
{
	struct bt_err err = {0};
	j->phase = BT_JOB_PREPARING;
	j->started_ms = bt_clock_boot_ms();
	/* First of all, since what made the do fail (no release, a policy) would stop its undo,
	 * too. */
	if (j->key.verb == BT_UNDO && !j->begun && !find_prior_to_restore(j) && j->row->undo) {
		bt_job_finish(j, BT_OUTCOME_DONE, "nothing to undo: it was never begun here");
		return;
	}
	int r = bt_policy_task(j->x->env.policy, j->kind, &err);
	if (r == 0)
		r = j->row->check(j, &err);
	if (r < 0) {
		bt_job_finish_result(j, r == BT_E_PROTOCOL ? BT_E_REFUSED : r, &err, "");
		return;
	}
	if (j->begun) { /* recovered: BEGUN is on disk, with the prior state */
		if (j->key.verb == BT_DO && j->row->there && j->row->there(j))
			bt_job_finish(j, BT_OUTCOME_DONE, "was done when the agent came back");
		else
			go(j);
		return;
	}
	if (j->key.verb == BT_DO && j->row->prior)
		j->row->prior(j);
	else
		bt_job_begin(j);
}

/* Of a deployment that has ended: the service's next one sent something. */
static bool left_over(const struct bt_job *o, const struct bt_job *j)
{
	return o->key.deployment != j->key.deployment && bt_streq(o->service_name, j->service_name);
}

/* May end without its effect: it has none yet, it only watches, or what it leaves (a part of a
 * download) disturbs nobody. */
static bool may_end(const struct bt_job *o, const struct bt_job *j)
{
	return (o->phase == BT_JOB_QUEUED && !o->begun) ||
	       bt_task_info(o->kind)->repeat == BT_REPEAT_SAFE ||
	       (left_over(o, j) && o->kind == BT_TASK_COMPONENT_DEPLOY);
}

/* Whether an older command of the same task, or of the service's last deployment, is in the way. */
static bool blocked(struct bt_job *j)
{
	bool wait = false;
	for (struct bt_job *o = j->x->jobs; o && o != j; o = o->next) {
		bool same_task =
			o->key.deployment == j->key.deployment && o->key.task == j->key.task;
		if (!same_task && !left_over(o, j))
			continue;
		wait = true;
		o->given_up |= may_end(o, j);
		if (o->given_up && (o->phase == BT_JOB_GOING || o->phase == BT_JOB_QUEUED))
			give_up(o);
	}
	return wait;
}

static void start_queued(struct bt_exec *x)
{
	/* prepare may end a job, but jobs leave the list only when the ledger calls back. */
	for (struct bt_job *j = x->jobs; j; j = j->next)
		if (j->phase == BT_JOB_QUEUED && !blocked(j))
			prepare(j);
}

/* ---- taking commands ---------------------------------------------------------------------- */

static int read_command(struct bt_job *j, struct bt_err *err)
{
	const char *task = NULL;
	int64_t token = 0, timeout = 0, wait = 0;
	int r = bt_json_str(j->command, "service", &j->service_name, err);
	if (r == 0)
		r = bt_json_str(j->command, "task", &task, err);
	if (r == 0)
		r = bt_json_int(j->command, "token", 0, INT64_MAX, &token, err);
	if (r == 0)
		r = bt_json_int_opt(j->command, "timeout_ms", 0, 7 * 86400000LL, &timeout, err);
	if (r == 0)
		r = bt_json_int_opt(j->command, "wait_ms", 0, 400 * 86400000LL, &wait, err);
	if (r == 0)
		r = bt_json_object(j->command, "params", &j->params, err);
	if (r < 0)
		return r;
	const struct bt_task_info *info = bt_task_find(task);
	if (!info || !bt_task_rows[info->kind].check)
		return bt_err_set(err, BT_E_REFUSED,
			"agent %s on %s is older than the server: it does not know the task "
			"'%.60s'; "
			"upgrade it",
			j->x->env.agent_version, j->x->env.driver->host, task);
	j->kind = info->kind;
	j->row = &bt_task_rows[info->kind];
	j->token = (uint64_t)token;
	j->timeout_ms = timeout ? timeout : info->timeout_ms;
	j->wait_ms = wait;
	return 0;
}

/* Secrets are hidden from the first moment that they are here. */
static void hide_secrets(struct bt_job *j)
{
	const char *name;
	json_t *value;
	json_object_foreach (json_object_get(j->params, "secrets"), name, value)
		if (json_is_string(value))
			bt_redact_add(j->x->env.redact, json_string_value(value));
}

static struct bt_job *job_new(struct bt_exec *x, const json_t *command)
{
	struct bt_job *j = bt_calloc(1, sizeof *j);
	j->x = x;
	j->arena = bt_arena_new();
	j->command = json_incref((json_t *)command);
	j->restarts = -1;
	j->started_ms = bt_clock_boot_ms();
	return j;
}

static void add_job(struct bt_job *j)
{
	struct bt_exec *x = j->x;
	*x->tail = j;
	x->tail = &j->next;
	x->n++;
}

static void refuse(struct bt_exec *x, const struct bt_command_key *key, uint64_t token,
	const struct bt_err *err)
{
	BT_FREE char *text = bt_redact_dup(x->env.redact, err->text);
	struct bt_result res = {
		.key = *key, .outcome = BT_OUTCOME_REFUSED, .token = token, .detail = text};
	x->env.on_refused(x->env.arg, &res);
}

static void on_accepted_durable(void *arg, int result, const struct bt_err *err)
{
	struct bt_job *j = arg;
	struct bt_exec *x = j->x;
	uint64_t seq = j->seq;
	if (result < 0) { /* nothing was done; the server hears why */
		struct bt_err e = *err;
		bt_err_wrap(&e, "the agent on %s cannot keep its ledger", x->env.driver->host);
		refuse(x, &j->key, j->token, &e);
		remove_job(j);
	} else {
		j->phase = BT_JOB_QUEUED;
		start_queued(x);
	}
	x->env.on_accepted(x->env.arg, seq);
}

static void accept_command(struct bt_job *j)
{
	add_job(j);
	j->phase = BT_JOB_ACCEPTING;
	BT_FREE char *text = bt_json_dump(j->command);
	struct bt_ledger_entry e = {.kind = BT_LEDGER_ACCEPTED,
		.seq = j->seq,
		.service = j->service_name,
		.token = j->token,
		.key = j->key,
		.task = j->kind,
		.command = text};
	bt_ledger_file_append(j->x->env.ledger, &e, on_accepted_durable, j);
}

struct raise {
	struct bt_exec *x;
	uint64_t seq;
};

static void on_raised(void *arg, int result, const struct bt_err *err)
{
	struct raise *r = arg;
	(void)result; /* not written: the same repeat comes again after a restart, and harms nothing
		       */
	(void)err;
	r->x->env.on_accepted(r->x->env.arg, r->seq);
	free(r);
}

/* A repeat changes nothing but the cursor and the token: after a takeover the same command comes
 * with a higher one, and from then on the lower is stale. */
static void raise_to(struct bt_job *repeat)
{
	struct raise *r = bt_calloc(1, sizeof *r);
	*r = (struct raise){repeat->x, repeat->seq};
	for (struct bt_job *o = repeat->x->jobs; o; o = o->next)
		if (bt_command_key_equal(&o->key, &repeat->key) && o->token < repeat->token)
			o->token = repeat->token;
	BT_FREE char *text = bt_json_dump(repeat->command);
	struct bt_ledger_entry e = {.kind = BT_LEDGER_ACCEPTED,
		.seq = repeat->seq,
		.service = repeat->service_name,
		.token = repeat->token,
		.key = repeat->key,
		.task = repeat->kind,
		.command = text};
	bt_ledger_file_append(repeat->x->env.ledger, &e, on_raised, r);
}

/* What became of an offered command. */
enum taken {
	TAKEN,	 /* a job of the executor now; on_accepted follows */
	PASSED,	 /* on_accepted follows, the job is not needed */
	REFUSED, /* answered, nothing is written */
};

static enum taken refused(struct bt_job *j, const struct bt_err *err)
{
	refuse(j->x, &j->key, j->token, err);
	return REFUSED;
}

static enum taken take(struct bt_job *j)
{
	struct bt_exec *x = j->x;
	struct bt_err err = {0};
	int64_t wire = 1;
	bt_json_int_opt(j->command, "wire", 0, INT32_MAX, &wire, NULL);
	if (wire > BT_WIRE_VERSION) {
		bt_err_set(&err, BT_E_REFUSED,
			"agent %s on %s is older than the server: it speaks wire %d, the command "
			"is "
			"of wire %d; upgrade it",
			x->env.agent_version, x->env.driver->host, BT_WIRE_VERSION, (int)wire);
		return refused(j, &err);
	}
	if (read_command(j, &err) < 0)
		return refused(j, &err);
	hide_secrets(j);
	switch (bt_ledger_offer(
		bt_ledger_file_ledger(x->env.ledger), j->service_name, &j->key, j->token)) {
	case BT_LEDGER_NEW:
		break;
	case BT_LEDGER_ANSWERED:
		x->env.on_result(x->env.arg, &j->key);
		raise_to(j);
		return PASSED;
	case BT_LEDGER_RUNNING:
		raise_to(j);
		return PASSED;
	case BT_LEDGER_STALE:
		bt_err_set(&err, BT_E_REFUSED,
			"stale: %s has seen a token above %" PRIu64
			" for %s, or a later command of "
			"this task",
			x->env.driver->host, j->token, j->service_name);
		return refused(j, &err);
	}
	if (x->n >= MAX_JOBS) {
		bt_err_set(&err, BT_E_REFUSED, "%d tasks run on this host already", MAX_JOBS);
		return refused(j, &err);
	}
	accept_command(j);
	return TAKEN;
}

int bt_exec_command(struct bt_exec *x, const json_t *command, struct bt_err *err)
{
	int64_t seq = 0;
	json_t *key = NULL;
	struct bt_job *j = job_new(x, command);
	int r = bt_json_int(command, "seq", 1, INT64_MAX, &seq, err);
	if (r == 0)
		r = bt_json_object(command, "key", &key, err);
	if (r == 0)
		r = bt_key_from_json(key, &j->key, err);
	if (r < 0) {
		job_free(j);
		return BT_E_PROTOCOL;
	}
	j->seq = (uint64_t)seq;
	enum taken t = take(j);
	if (t != TAKEN)
		job_free(j);
	if (t == REFUSED)
		x->env.on_accepted(x->env.arg, (uint64_t)seq);
	return 0;
}

/* ---- after a restart ---------------------------------------------------------------------- */

static void recover_one(struct bt_exec *x, const struct bt_ledger_open *o)
{
	struct bt_err err = {0};
	BT_JSON json_t *command = NULL;
	const char *text = o->accepted.command ? o->accepted.command : "";
	int r = bt_json_parse(text, strlen(text), COMMAND_MAX, &command, &err);
	struct bt_job *j = job_new(x, command);
	j->key = o->accepted.key;
	j->begun = o->begun;
	j->prior = o->prior;
	j->kind = o->accepted.task;
	j->row = &bt_task_rows[j->kind];
	j->service_name = bt_arena_strdup(j->arena, o->accepted.service);
	if (r == 0)
		r = read_command(j, &err);
	if (r == 0)
		hide_secrets(j);
	add_job(j);
	if (r < 0)
		bt_job_finish(
			j, BT_OUTCOME_UNKNOWN, "its command cannot be read again: %s", err.text);
	else if (o->how == BT_RECOVER_PARK && !j->row->lasting)
		bt_job_finish(j, BT_OUTCOME_UNKNOWN,
			"the agent stopped in the middle of it, and it may not be repeated: a "
			"person must "
			"look");
	else
		j->phase = BT_JOB_QUEUED;
}

static bool is_open(void *arg, const char *name)
{
	const struct bt_exec *x = arg;
	for (const struct bt_job *j = x->jobs; j; j = j->next) {
		char own[BT_TASK_NAME_MAX];
		bt_task_exec_name(&j->key, own);
		/* A task of several programs puts a number behind it. */
		if (bt_str_starts(name, own) && (!name[strlen(own)] || name[strlen(own)] == '-'))
			return true;
	}
	return false;
}

size_t bt_exec_recover(struct bt_exec *x)
{
	struct bt_ledger_open *open = NULL;
	size_t n = bt_ledger_recover(bt_ledger_file_ledger(x->env.ledger), &open);
	for (size_t i = 0; i < n; i++)
		recover_one(x, &open[i]);
	free(open);
	bt_program_sweep(x->env.driver, is_open, x);
	start_queued(x);
	return n;
}

size_t bt_exec_busy(const struct bt_exec *x)
{
	size_t n = 0;
	for (const struct bt_job *j = x->jobs; j; j = j->next)
		n += bt_task_info(j->kind)->effect;
	return n;
}

size_t bt_exec_running(const struct bt_exec *x)
{
	return x->n;
}

/* What a crash left: half-written files, and extras whose result was acknowledged. */
static void sweep_results(const struct bt_exec *x)
{
	const struct bt_result **unacked = NULL;
	size_t n = bt_ledger_unacked(bt_ledger_file_ledger(x->env.ledger), &unacked);
	DIR *d = opendir(x->results_dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		BT_FREE char *path = bt_asprintf("%s/%s", x->results_dir, e->d_name);
		bool keep = e->d_name[0] == '.';
		for (size_t i = 0; i < n && !keep; i++) {
			char wanted[512];
			extras_path(x, &unacked[i]->key, wanted, sizeof wanted);
			keep = strcmp(wanted, path) == 0;
		}
		if (!keep)
			unlink(path);
	}
	if (d)
		closedir(d);
	free(unacked);
}

struct bt_exec *bt_exec_new(const struct bt_exec_env *env)
{
	struct bt_exec *x = bt_calloc(1, sizeof *x);
	x->env = *env;
	x->tail = &x->jobs;
	x->results_dir = bt_asprintf("%s/results", env->driver->state_dir);
	bt_fs_mkdirs(x->results_dir, 0700, NULL);
	sweep_results(x);
	return x;
}

struct bt_exec *bt_exec_free(struct bt_exec *x)
{
	if (!x)
		return NULL;
	while (x->jobs) {
		struct bt_job *j = x->jobs;
		x->jobs = j->next;
		job_free(j);
	}
	free(x->results_dir);
	free(x);
	return NULL;
}
