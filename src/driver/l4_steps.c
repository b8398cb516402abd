/* The steps of a change. Forward: pending is on disk → the family has written → what it reads back
 * is that → confirmed is on disk. Back: what was in force is said again → pending is gone from
 * disk.
 *
 * A pending that a crash left behind goes the same ways: where the balancer is as pending says, on
 * from there (the family may still have to see a member take requests); else back.
 *
 * Tending: a balancer that began anew (its epoch changed, or it was away) and is not as confirmed
 * is told again. Where it did not begin anew, a person changed it, and that is told and not fought;
 * but where a program writes to it, too, which only knows who is well, whoever is out stays out. */
#include "driver/l4_change.h"

#include "base/str.h"
#include "driver/members.h"

#include <string.h>

static struct bt_err no_error;

static void set_trouble(struct bt_l4_site *s, const char *text)
{
	char *copy = bt_strdup(text);
	free(s->trouble);
	s->trouble = copy;
}

static void on_written(struct bt_l4_change *c, int r, const struct bt_err *err);
static void on_said_again(struct bt_l4_change *c, int r, const struct bt_err *err);

/* ---- one step: on disk, said, looked at --------------------------------------------------- */

static void run_save(void *arg)
{
	struct bt_l4_change *c = arg;
	c->save_result = bt_l4_state_save(c->want, c->site->state_path, &c->save_err);
}

static void on_saved(void *arg)
{
	struct bt_l4_change *c = arg;
	if (c->save_result == 0) {
		bt_l4_state_free(c->site->state);
		c->site->state = c->want->has_confirmed || c->want->has_pending
					 ? bt_l4_state_copy(c->want)
					 : NULL;
	}
	c->saved(c, c->save_result);
}

static void save(struct bt_l4_change *c, void (*saved)(struct bt_l4_change *c, int r))
{
	c->saved = saved;
	c->save_err = no_error;
	bt_work_submit(bt_l4_driver()->env.work, run_save, on_saved, c);
}

static void aim(struct bt_l4_change *c, const struct bt_l4_wish *w,
	const struct bt_pool_member *members, bool again)
{
	c->target = (struct bt_l4_target){.service = w->service,
		.members = members,
		.n_members = w->n_members,
		.again = again};
}

static bool was_in(const struct bt_l4_wish *w, const struct bt_pool_member *m)
{
	for (size_t i = 0; i < w->n_members; i++)
		if (bt_streq(w->members[i].host, m->host) && bt_streq(w->members[i].slot, m->slot))
			return w->members[i].in;
	return false;
}

/* Before the first change nobody knows who was in: those that it brings have to be seen, and not
 * one that the balancer had in by itself and that may be dead. */
static bool is_told(const struct bt_l4_wish *w)
{
	for (size_t i = 0; i < w->n_members; i++)
		if (w->members[i].comes)
			return true;
	return false;
}

static void aim_pending(struct bt_l4_change *c)
{
	const struct bt_l4_state *w = c->want;
	const struct bt_l4_wish *p = &w->pending;
	bool *fresh = BT_ARENA_ARRAY(w->arena, bool, p->n_members + 1), told = is_told(p);
	for (size_t i = 0; i < p->n_members; i++)
		fresh[i] = p->members[i].in &&
			   (w->has_confirmed ? !was_in(&w->confirmed, &p->members[i])
					     : p->members[i].comes || !told);
	aim(c, p, p->members, false);
	c->target.fresh = fresh;
}

static void aim_confirmed(struct bt_l4_change *c)
{
	const struct bt_pool_member *members =
		bt_l4_state_effective(c->want, bt_l4_driver()->env.host);
	aim(c, &c->want->confirmed, members, true);
}

static void on_progress(void *arg, const char *line)
{
	struct bt_l4_change *c = arg;
	if (c->progress)
		c->progress(c->progress_arg, line);
}

static void on_said(void *arg, int result, const struct bt_err *err)
{
	struct bt_l4_change *c = arg;
	c->said(c, result, err);
}

static void say(struct bt_l4_change *c,
	void (*said)(struct bt_l4_change *c, int r, const struct bt_err *err))
{
	c->said = said;
	c->target.read_back = said == on_written || said == on_said_again;
	bt_l4_family_of(c->target.service)->write(&c->target, on_progress, c, on_said, c);
}

static const char *name_of(const struct bt_l4_change *c)
{
	return bt_enum_name(&bt_enum_balancer, (int)c->target.service->l4->kind);
}

static bool is_overruled(const struct bt_l4_change *c, const struct bt_l4_seen *seen)
{
	for (size_t i = 0; seen->shared && i < c->target.n_members; i++) {
		const struct bt_pool_member *m = &c->target.members[i];
		const struct bt_seen_member *s = m->in ? NULL : bt_l4_find(seen, m);
		if (s && s->in)
			return true;
	}
	return false;
}

static void on_looked(
	void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err)
{
	struct bt_l4_change *c = arg;
	bt_str_reset(&c->differs);
	c->runs = result == 0 && seen->running;
	c->epoch = c->runs ? seen->epoch : 0;
	c->site->shared = c->runs && seen->shared;
	c->overruled = c->runs && is_overruled(c, seen);
	c->as_told = c->runs && bt_l4_as_told(name_of(c), seen, c->target.members,
					c->target.n_members, &c->differs);
	c->looked(c, result, err);
}

static void look(struct bt_l4_change *c,
	void (*looked)(struct bt_l4_change *c, int r, const struct bt_err *err))
{
	c->looked = looked;
	c->target.uncounted = true;
	bt_l4_family_of(c->target.service)->read(&c->target, on_looked, c);
}

/* ---- back --------------------------------------------------------------------------------- */

static void end(struct bt_l4_change *c, int result, const struct bt_err *err)
{
	if (c->kind == BT_L4_TEND)
		c->site->recovering = false;
	bt_l4_change_ended(c, result, err);
}

static void add_error(struct bt_l4_change *c, const char *what, const struct bt_err *err)
{
	BT_FREE char *first = bt_strdup(c->err.text);
	bool said = strstr(first, err->text) != NULL; /* the same cause, once */
	bt_err_set(&c->err, c->err.code, "%s%s%s%s%s", first, *first ? "; " : "", what,
		said ? "" : ": ", said ? "" : err->text);
}

static void on_cleared(struct bt_l4_change *c, int r)
{
	if (r < 0)
		add_error(c, "that it is over cannot be recorded", &c->save_err);
	else
		bt_l4_step("cleared");
	end(c, c->err.code, &c->err);
}

static void clear(struct bt_l4_change *c)
{
	c->want->has_pending = false;
	save(c, on_cleared);
}

static void on_back(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	c->site->owed = r < 0;
	if (r < 0) {
		add_error(c, "and it could not be told again what was in force before", err);
		set_trouble(c->site, c->err.text);
	} else {
		bt_l4_step("restored");
	}
	clear(c);
}

static void back(struct bt_l4_change *c, const struct bt_err *why)
{
	c->err = *why;
	if (c->want->has_confirmed && bt_l4_family_of(c->want->confirmed.service)) {
		aim_confirmed(c);
		say(c, on_back);
	} else {
		clear(c); /* the family has left things as they were */
	}
}

/* ---- forward ------------------------------------------------------------------------------ */

static void on_confirmed(struct bt_l4_change *c, int r)
{
	if (r < 0) {
		c->err = c->save_err;
		bt_err_wrap(&c->err, "%s does what it was told, but that cannot be recorded",
			name_of(c));
		end(c, r, &c->err);
		return;
	}
	bt_l4_step("confirmed");
	c->site->owed = false;
	set_trouble(c->site, NULL);
	end(c, 0, &no_error);
}

static void on_read_back(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	struct bt_err why = {0};
	if (r < 0)
		why = *err;
	else if (!c->runs)
		bt_err_set(&why, BT_E_UNREACHABLE, "%s went away in the middle of the change",
			name_of(c));
	else if (!c->as_told)
		bt_err_set(&why, BT_E_FAILED, "read back: %s", bt_str_get(&c->differs));
	if (why.code < 0) {
		back(c, &why);
		return;
	}
	struct bt_l4_state *w = c->want;
	w->confirmed = w->pending;
	w->has_confirmed = true;
	w->has_pending = false;
	w->n_held = 0;
	w->epoch = c->epoch;
	save(c, on_confirmed);
}

static void on_written(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	if (r < 0) {
		back(c, err);
		return;
	}
	bt_l4_step("written");
	look(c, on_read_back);
}

static void write_pending(struct bt_l4_change *c)
{
	aim_pending(c);
	say(c, on_written);
}

static void on_pending(struct bt_l4_change *c, int r)
{
	if (r < 0) {
		end(c, r, &c->save_err);
		return;
	}
	bt_l4_step("pending");
	write_pending(c);
}

/* A generation that is in force, or was: 1 when there is nothing to do. */
static int settle(const struct bt_l4_change *c, struct bt_err *err)
{
	const struct bt_l4_state *have = c->site->state;
	const struct bt_l4_wish *want = &c->asked->pending;
	if (!have || !have->has_confirmed || want->generation > have->confirmed.generation)
		return 0;
	if (bt_members_equal(want->members, want->n_members, have->confirmed.members,
		    have->confirmed.n_members))
		return 1;
	return bt_err_set(err, BT_E_REFUSED,
		"generation %llu of %s is not newer than %llu, which is in force with other "
		"members",
		(unsigned long long)want->generation, c->site->service,
		(unsigned long long)have->confirmed.generation);
}

static void start_apply(struct bt_l4_change *c)
{
	struct bt_err err = {0};
	int r = settle(c, &err);
	if (r != 0) {
		end(c, r < 0 ? r : 0, &err);
		return;
	}
	c->want->balancer = c->asked->balancer;
	c->want->pending = c->asked->pending;
	c->want->has_pending = true;
	save(c, on_pending);
}

/* ---- hold --------------------------------------------------------------------------------- */

static void on_held_looked(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	(void)err;
	c->site->owed = true; /* its next start, or the next look, hears it */
	if (r < 0 || !c->runs)
		end(c, 0, &no_error);
	else
		end(c, c->err.code, &c->err);
}

static void on_held_said(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	if (r == 0) {
		c->site->owed = false;
		end(c, 0, &no_error);
		return;
	}
	c->err = *err;
	look(c, on_held_looked);
}

static void on_held(struct bt_l4_change *c, int r)
{
	if (r < 0) {
		end(c, r, &c->save_err);
		return;
	}
	aim_confirmed(c);
	say(c, on_held_said);
}

static bool same_held(const struct bt_l4_state *a, const struct bt_l4_state *b)
{
	if (a->n_held != b->n_held)
		return false;
	for (size_t i = 0; i < a->n_held; i++)
		if (!bt_streq(a->held[i], b->held[i]))
			return false;
	return true;
}

static void start_hold(struct bt_l4_change *c)
{
	struct bt_l4_state *w = c->want;
	bool known = w->has_confirmed && bt_l4_family_of(w->confirmed.service);
	if (!known || (same_held(w, c->asked) && !c->site->owed)) {
		end(c, 0, &no_error);
		return;
	}
	w->held = c->asked->held;
	w->n_held = c->asked->n_held;
	save(c, on_held);
}

/* ---- tend --------------------------------------------------------------------------------- */

static void on_epoch_saved(struct bt_l4_change *c, int r)
{
	if (r < 0)
		set_trouble(c->site, c->save_err.text);
	end(c, 0, &no_error);
}

static void keep_epoch(struct bt_l4_change *c)
{
	if (c->want->epoch == c->epoch || c->epoch == 0) {
		end(c, 0, &no_error);
		return;
	}
	c->want->epoch = c->epoch;
	save(c, on_epoch_saved);
}

static void on_told_again(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	struct bt_err why = {0};
	if (r < 0)
		why = *err;
	else if (!c->as_told)
		bt_err_set(&why, BT_E_FAILED, "%s", bt_str_get(&c->differs));
	c->site->owed = why.code < 0;
	if (why.code == 0) {
		set_trouble(c->site, NULL);
		keep_epoch(c);
		return;
	}
	bt_err_wrap(&why, "%s could not be told again what was in force", name_of(c));
	set_trouble(c->site, why.text);
	end(c, 0, &no_error);
}

static void on_said_again(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	if (r < 0)
		on_told_again(c, r, err);
	else
		look(c, on_told_again);
}

static void recover(struct bt_l4_change *c)
{
	struct bt_err why = {0};
	if (c->as_told || !c->want->has_confirmed) {
		write_pending(c);
		return;
	}
	bt_err_set(&why, BT_E_FAILED, "a change was interrupted");
	back(c, &why);
}

static void on_tended(struct bt_l4_change *c, int r, const struct bt_err *err)
{
	struct bt_l4_site *s = c->site;
	bool came_back = s->asked && !s->ran;
	(void)err; /* whoever observes is told */
	s->asked = true;
	s->ran = r == 0 && c->runs;
	if (!s->ran) {
		end(c, 0, &no_error);
		return;
	}
	if (c->want->has_pending) {
		recover(c);
		return;
	}
	uint64_t had = c->want->epoch;
	bool anew = came_back || s->owed || (had && c->epoch && c->epoch != had);
	if ((anew && !c->as_told) || c->overruled) {
		say(c, on_said_again);
		return;
	}
	s->owed = false;
	if (c->as_told)
		set_trouble(s, NULL);
	keep_epoch(c);
}

static void start_tend(struct bt_l4_change *c)
{
	const struct bt_l4_state *w = c->want;
	if (!w->has_pending && !w->has_confirmed) {
		end(c, 0, &no_error);
		return;
	}
	if (w->has_pending)
		aim_pending(c);
	else
		aim_confirmed(c);
	if (bt_l4_family_of(c->target.service))
		look(c, on_tended);
	else
		end(c, 0, &no_error);
}

void bt_l4_change_start(struct bt_l4_change *c)
{
	const struct bt_l4_state *have = c->site->state;
	c->want = have ? bt_l4_state_copy(have) : bt_l4_state_new(c->site->service, "");
	if (c->kind == BT_L4_APPLY)
		start_apply(c);
	else if (c->kind == BT_L4_HOLD)
		start_hold(c);
	else
		start_tend(c);
}
