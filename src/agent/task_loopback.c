/* LoopbackStop and LoopbackStart: whether this host answers to the service's addresses.
 *
 * Services may share an address (two ports of one). It is on the host while one of them wants it
 * there, so a stop leaves to another service what that one has. A config may name other addresses
 * than the last one did: those that nobody wants any more go with the next stop or start, both of
 * which come when no connection is left. What is wanted is durable before the result is; a crash
 * before that leaves the ledger's open entry, and whoever comes back asks the world again. */
#include "agent/tasks.h"

#include "base/str.h"

#include <string.h>

static const struct bt_loopback *ours(const struct bt_job *j)
{
	return &j->service->loopback;
}

static bool has(const struct bt_loopback *l, const char *vip)
{
	for (size_t i = 0; i < l->n_vips; i++)
		if (bt_streq(l->vips[i], vip))
			return true;
	return false;
}

int bt_task_loopback_check(struct bt_job *j, struct bt_err *err)
{
	int r = bt_job_read_service(j, err);
	if (r == 0 && !bt_service_has_loopback(j->service))
		r = bt_err_set(err, BT_E_REFUSED,
			"%s has no address of its own on its hosts: expected traffic.loopback.vips",
			j->service_name);
	return r < 0 ? r : bt_policy_network(bt_job_exec(j)->policy, "traffic.loopback", err);
}

static bool see(struct bt_job *j, struct bt_seen_vip **ret, struct bt_err *err)
{
	return bt_job_exec(j)->drivers->loopback_see(ours(j), j->arena, ret, err) == 0;
}

/* With several, some of which are there: an undo leaves the host with all of them, where nothing
 * stalls. */
void bt_task_loopback_prior(struct bt_job *j)
{
	struct bt_seen_vip *seen = NULL;
	struct bt_err err = {0};
	if (!see(j, &seen, &err)) {
		bt_job_finish_result(j, err.code, &err, "");
		return;
	}
	j->prior.known = true;
	for (size_t i = 0; i < ours(j)->n_vips; i++)
		j->prior.present = j->prior.present || seen[i].there;
	bt_job_begin(j);
}

static void want(struct bt_job *j, bool on)
{
	bt_known_want_loopback(bt_job_exec(j)->known, j->service_name, ours(j), on);
}

/* Those of l that no other service holds, and that `but` has not. */
static struct bt_loopback not_held(
	struct bt_job *j, const struct bt_loopback *l, const struct bt_loopback *but)
{
	const char **vips = BT_ARENA_ARRAY(j->arena, const char *, l->n_vips + 1);
	struct bt_loopback out = {.vips = vips, .interface = l->interface};
	bool moved = but && !bt_streq(but->interface, l->interface);
	for (size_t i = 0; i < l->n_vips; i++) {
		const char *holder =
			bt_known_holder(bt_job_exec(j)->known, j->service_name, l->vips[i]);
		if (holder)
			bt_job_say(j, "%s stays: %s has it, too", l->vips[i], holder);
		else if (!but || moved || !has(but, l->vips[i]))
			vips[out.n_vips++] = l->vips[i];
	}
	return out;
}

static int take(struct bt_job *j, const struct bt_loopback *l, struct bt_err *err)
{
	return l->n_vips ? bt_job_exec(j)->drivers->loopback_take(l, err) : 0;
}

/* What an older config had here, and this one has not. */
static int take_stale(struct bt_job *j, struct bt_err *err)
{
	const struct bt_known_service *s = bt_known_find(bt_job_exec(j)->known, j->service_name);
	if (!s || !s->loopback.on)
		return 0;
	struct bt_loopback before = bt_known_loopback(s, j->arena);
	struct bt_loopback stale = not_held(j, &before, ours(j));
	return take(j, &stale, err);
}

static const char *words(struct bt_job *j, const char *where)
{
	BT_STR struct bt_str list = {0};
	for (size_t i = 0; i < ours(j)->n_vips; i++)
		bt_str_addf(&list, "%s%s", i ? ", " : "", ours(j)->vips[i]);
	bt_str_addf(&list, " %s %s", where, ours(j)->interface);
	return bt_arena_strdup(j->arena, bt_str_get(&list));
}

void bt_task_loopback_stop(struct bt_job *j)
{
	struct bt_err err = {0};
	int r = take_stale(j, &err);
	struct bt_loopback l = not_held(j, ours(j), NULL);
	if (r == 0)
		r = take(j, &l, &err);
	if (r == 0)
		want(j, false);
	else if (j->prior.present) /* a part of them may be off: as it was before */
		bt_job_exec(j)->drivers->loopback_put(ours(j), NULL);
	bt_job_finish_result(
		j, r, &err, l.n_vips ? words(j, "off") : "another service has it, too");
}

void bt_task_loopback_start(struct bt_job *j)
{
	struct bt_err err = {0};
	int r = take_stale(j, &err);
	if (r == 0)
		r = bt_job_exec(j)->drivers->loopback_put(ours(j), &err);
	struct bt_loopback l = not_held(j, ours(j), NULL);
	if (r == 0)
		want(j, true);
	else if (!j->prior.present)
		take(j, &l, NULL);
	bt_job_finish_result(j, r, &err, words(j, "on"));
}

void bt_task_loopback_undo(struct bt_job *j)
{
	if (j->prior.present)
		bt_task_loopback_start(j);
	else
		bt_task_loopback_stop(j);
}

bool bt_task_loopback_is_off(struct bt_job *j)
{
	struct bt_seen_vip *seen = NULL;
	if (!see(j, &seen, NULL))
		return false;
	for (size_t i = 0; i < ours(j)->n_vips; i++)
		if (seen[i].there &&
			!bt_known_holder(bt_job_exec(j)->known, j->service_name, ours(j)->vips[i]))
			return false;
	want(j, false); /* a crash may have come between the effect and this */
	return true;
}

bool bt_task_loopback_is_on(struct bt_job *j)
{
	struct bt_seen_vip *seen = NULL;
	if (!see(j, &seen, NULL))
		return false;
	for (size_t i = 0; i < ours(j)->n_vips; i++)
		if (!seen[i].there || seen[i].trouble)
			return false;
	want(j, true);
	return true;
}
