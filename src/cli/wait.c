#include "cli/wait.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define ASK_MS 1000

static char *path_of(const struct bt_wait *w)
{
	BT_FREE char *service = bt_url_escape(w->service);
	return w->ticket ? bt_asprintf("/v1/services/%s/queue/%" PRId64, service, w->ticket)
			 : bt_asprintf("/v1/services/%s/queue", service);
}

void bt_wait_leave(struct bt_wait *w)
{
	BT_ANSWER struct bt_client_answer a = {0};
	BT_FREE char *path = path_of(w);
	struct bt_err ignored;
	int before = w->client->leave_at;
	if (!w->ticket)
		return;
	w->client->leave_at = w->client->signals + 1; /* one more signal ends this, too */
	(void)bt_client_do(w->client, &(struct bt_client_call){.method = "DELETE", .path = path},
		NULL, &a, &ignored);
	w->client->leave_at = before;
	w->ticket = 0;
}

/* One question. Where the server forgot the place (it was away for long), a new one. */
static int ask(struct bt_wait *w, json_t **ret, struct bt_err *err)
{
	BT_FREE char *path = path_of(w);
	int r = w->ticket ? bt_client_get(w->client, path, ret, err)
			  : bt_client_post(w->client, path, NULL, ret, err);
	if (r == BT_E_NOTFOUND && w->ticket) {
		bt_view_note(w->view, "the place in the queue was given up: waiting at its end");
		w->ticket = 0;
		return ask(w, ret, err);
	}
	return r < 0 ? r : bt_json_int(*ret, "ticket", 1, INT64_MAX, &w->ticket, err);
}

static void say(struct bt_wait *w, const json_t *answer, char **told)
{
	const char *what = json_string_value(json_object_get(answer, "waits_for"));
	json_int_t place = json_integer_value(json_object_get(answer, "place"));
	BT_FREE char *line =
		place > 1 ? bt_asprintf("waiting, %" PRId64 " before us: %s", (int64_t)place - 1,
				    what ? what : "the next one begins")
			  : bt_asprintf("waiting, next: %s", what ? what : "");
	if (*told && strcmp(*told, line) == 0)
		return;
	free(*told);
	*told = BT_STEAL(line);
	bt_view_note(w->view, "%s", *told);
}

/* > 0: not yet. */
static int look(struct bt_wait *w, char **told, struct bt_err *err)
{
	BT_JSON json_t *answer = NULL;
	int r = ask(w, &answer, err);
	if (r == BT_E_UNREACHABLE && w->ticket)
		return 1; /* the queue is kept: it is back, or the limit ends this */
	if (r < 0)
		return r;
	if (json_is_true(json_object_get(answer, "ready")))
		return 0;
	say(w, answer, told);
	return 1;
}

int bt_wait_turn(struct bt_wait *w, struct bt_err *err)
{
	char *told = NULL, limit[32];
	if (!w->begun_ms)
		w->begun_ms = bt_clock_boot_ms();
	int r;
	while ((r = look(w, &told, err)) > 0) {
		if (w->limit_ms && bt_clock_boot_ms() - w->begun_ms >= w->limit_ms)
			r = bt_err_set(err, BT_E_LEASE, "not our turn within %s: %s",
				bt_duration_format(w->limit_ms, limit),
				told ? told : "the server does not answer");
		else
			r = bt_client_wait(w->client, ASK_MS, err);
		if (r < 0)
			break;
	}
	free(told);
	if (r < 0)
		bt_wait_leave(w);
	return r;
}
