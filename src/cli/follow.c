#include "cli/follow.h"

#include "base/clock.h"
#include "cli/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define AWAY_MAX_MS (10 * 60 * 1000) /* how long a server may be away before we leave */

struct state {
	const struct bt_follow *f;
	json_t *end;
	char *purpose; /* of the first plan */
	struct bt_err failed;
	int64_t away_since_ms; /* 0: connected */
};

static void on_event(void *arg, const char *event, const json_t *data)
{
	struct state *s = arg;
	const char *purpose = json_string_value(json_object_get(data, "purpose"));
	if (purpose && !s->purpose)
		s->purpose = bt_strdup(purpose);
	if (bt_streq(event, "record"))
		bt_view_record(s->f->view, data);
	else if (bt_streq(event, "progress"))
		bt_view_progress(s->f->view, data);
	else if (bt_streq(event, "end") && !s->end)
		s->end = json_incref((json_t *)data);
}

static void on_away(void *arg, const char *why)
{
	struct state *s = arg;
	s->away_since_ms = bt_clock_boot_ms();
	bt_view_note(s->f->view,
		"the server is away (%s); the deployment does not need this client, waiting", why);
}

static void on_back(void *arg)
{
	struct state *s = arg;
	s->away_since_ms = 0;
	bt_view_note(s->f->view, "the server is back");
}

static void on_failed(void *arg, const struct bt_err *err)
{
	struct state *s = arg;
	s->failed = *err;
}

static const struct bt_stream_handlers handlers = {on_event, on_away, on_back, on_failed};

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct state *s = arg;
	(void)fd;
	(void)what;
	bt_view_tick(s->f->view);
}

/* The first signal. Where the server refuses (it is ending), its end is what counts. */
static void ask_abort(const struct state *s)
{
	const struct bt_follow *f = s->f;
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("/v1/deployments/%" PRId64 "/abort", f->id);
	bt_view_note(f->view,
		"interrupted: asking the server to abort and roll back (again: leave at once)");
	if (bt_client_post(f->client, path, NULL, NULL, &err) < 0 && err.code != -EINTR)
		bt_view_note(f->view, "abort: %s", err.text);
}

static const char *end_text(const json_t *end, const char *key)
{
	const char *text = json_string_value(json_object_get(end, key));
	return text ? text : "";
}

/* What was done when all went well, by what the run was for. */
static const char *done_words(const char *purpose)
{
	static const struct {
		const char *purpose, *words;
	} table[] = {{"rollback", "went back to %s"}, {"adopt", "adopted %s"},
		{"prune", "pruned %s"}, {"retire", "stopped what was kept warm beside %s"},
		{"flow", "ran %s"}};
	for (size_t i = 0; i < BT_ARRAY_LEN(table); i++)
		if (bt_streq(table[i].purpose, purpose))
			return table[i].words;
	return "deployed %s";
}

static void print_last_line(
	const struct state *s, const char *words, int code, bool interrupted, int64_t took_ms)
{
	const struct bt_follow *f = s->f;
	BT_STR struct bt_str line = {0};
	BT_STR struct bt_str clean = {0};
	const char *reason = end_text(s->end, "reason");
	const char *percent = strstr(words, "%s");
	bt_str_addf(&line, "%.*s%s", (int)(percent - words), words,
		code == 0   ? f->what
		: reason[0] ? reason
			    : "no reason was given");
	if (code == 0 && reason[0])
		bt_str_addf(&line, ", but %s", reason);
	if (interrupted && code == 0)
		bt_str_add(&line, " (too late to interrupt)");
	bt_view_clean(&clean, bt_str_get(&line), 0);
	printf("%s (deployment %" PRId64 ", %lld.%llds)\n", bt_str_get(&clean), f->id,
		(long long)(took_ms / 1000), (long long)(took_ms % 1000 / 100));
	if (code == BT_EXIT_STUCK && json_is_true(json_object_get(s->end, "waits")))
		printf("it stands still and waits: mend that, then `baton resume %" PRId64
		       "` goes on; `baton abort %" PRId64
		       "` leaves all as it is now, which `baton status` shows\n",
			f->id, f->id);
	else if (code == BT_EXIT_STUCK)
		printf("see `baton show %" PRId64
		       "` and `baton status`; `baton rollback SERVICE` goes back\n",
			f->id);
}

/* The last line says what serves now; the exit code says the same to a program. */
static int conclude(const struct state *s, int64_t took_ms, bool interrupted)
{
	static const struct {
		const char *end, *words;
		int code;
	} ends[] = {
		{"done", NULL, BT_EXIT_OK},
		{"rolled_back", "FAILED and rolled back: %s", BT_EXIT_FAILED},
		{"refused", "refused, nothing was changed: %s", BT_EXIT_FAILED},
		{"halted", "FAILED and NOT rolled back (halted): %s", BT_EXIT_STUCK},
		{"parked", "FAILED and NOT rolled back, a person is needed: %s", BT_EXIT_STUCK},
	};
	const char *words = "FAILED: %s";
	int code = (int)json_integer_value(json_object_get(s->end, "exit_code"));
	for (size_t i = 0; i < BT_ARRAY_LEN(ends); i++)
		if (bt_streq(ends[i].end, end_text(s->end, "end"))) {
			words = ends[i].words ? ends[i].words : done_words(s->purpose);
			code = ends[i].code;
		}
	bt_view_end(s->f->view, s->end);
	if (interrupted && code == BT_EXIT_FAILED) {
		code = BT_EXIT_INTERRUPTED;
		words = "interrupted and rolled back: %s";
	}
	if (bt_view_mode_of(s->f->view) != BT_VIEW_JSON)
		print_last_line(s, words, code, interrupted, took_ms);
	fflush(stdout);
	return code;
}

static int leave(const struct state *s, struct bt_err *err)
{
	const struct bt_follow *f = s->f;
	if (f->client->signals && !f->may_abort)
		return BT_EXIT_INTERRUPTED;
	if (f->client->signals) {
		bt_view_note(
			f->view, "leaving; the server goes on: `baton show %" PRId64 "`", f->id);
		return BT_EXIT_INTERRUPTED;
	}
	if (s->failed.code)
		return bt_err_set(
			err, s->failed.code, "deployment %" PRId64 ": %s", f->id, s->failed.text);
	return bt_err_set(err, BT_E_UNREACHABLE,
		"the server has been away for 10 minutes; the deployment goes on with it: `baton "
		"show "
		"%" PRId64 "`",
		f->id);
}

int bt_follow(const struct bt_follow *f, struct bt_err *err)
{
	struct state s = {.f = f};
	struct bt_client *c = f->client;
	int64_t begun = bt_clock_boot_ms();
	bool asked = false;
	BT_FREE char *path = bt_asprintf("/v1/deployments/%" PRId64 "/events", f->id);
	struct bt_stream *stream = bt_stream_new(c, path, false, &handlers, &s);
	struct event *tick = event_new(c->base, -1, EV_PERSIST, on_tick, &s);
	struct timeval eighth = {.tv_usec = 125000};
	evtimer_add(tick, &eighth);
	c->leave_at = f->may_abort ? 2 : 1;
	while (!s.end && !s.failed.code && !bt_client_leaves(c)) {
		if (s.away_since_ms && bt_clock_boot_ms() - s.away_since_ms > AWAY_MAX_MS)
			break;
		if (c->signals && f->may_abort && !asked) {
			asked = true;
			ask_abort(&s);
			continue;
		}
		event_base_loop(c->base, EVLOOP_ONCE);
	}
	bt_stream_free(stream);
	event_free(tick);
	int r = s.end ? conclude(&s,
				f->may_abort ? bt_clock_boot_ms() - begun
					     : bt_view_span_ms(f->view),
				asked)
		      : leave(&s, err);
	json_decref(s.end);
	free(s.purpose);
	return r;
}
