/* Adoption: what others started and what serves now becomes the live release, as it is.
 *
 * All places are one lane, so that a place that cannot be adopted gives the others back: a service
 * is adopted whole or not at all. The health check comes after the record, and for the same reason
 * in the same lane: a rollback to what was adopted will have to believe it. */
#include "plan/build.h"

#include "base/str.h"

static int check_place(struct bt_build *b, uint16_t place, struct bt_err *err)
{
	const struct bt_place *p = &b->scene.places[place];
	const char *name = bt_build_place_name(b, place);
	if (bt_place_ours(p))
		return bt_err_set(err, BT_E_EXISTS,
			"%s runs %s, which baton has already%s: there is nothing to adopt", name,
			p->version   ? p->version
			: p->release ? bt_build_version(b, p->release)
				     : "a release",
			p->adopted ? " adopted" : "");
	if (!p->stranger)
		return bt_err_set(err, BT_E_REFUSED,
			"nothing listens on port %u of %s, so there is nothing to adopt there: "
			"start it, or deploy",
			p->port, name);
	if (!p->foreign)
		return bt_err_set(err, BT_E_REFUSED,
			"the agent of %s is too old to adopt: upgrade it",
			bt_scene_host(&b->scene, p));
	if (p->foreign->trouble)
		return bt_err_set(err, BT_E_REFUSED, "%s: %s", name, p->foreign->trouble);
	return 0;
}

/* `same`: every place runs the same file, so it is one release's artifact. */
static void describe(struct bt_build *b, uint16_t place, bool same)
{
	const struct bt_place *p = &b->scene.places[place];
	const struct bt_seen_foreign *f = p->foreign;
	const char *name = bt_build_place_name(b, place);
	bt_build_note(b, "%s: pid %d of %s, %s", name, f->pid, f->user, f->command);
	if (same)
		bt_build_note(b,
			"%s: it runs %s, which is kept, so that a rollback can start it again "
			"after it was stopped",
			name, f->artifact);
	else
		bt_build_note(b, "%s: %s; a rollback to it is possible only while it still runs",
			name,
			f->no_artifact ? f->no_artifact
			: f->digest    ? "the others are not known to run the same file"
				       : "which file it runs is not known");
	if (f->unit)
		bt_build_note(b,
			"%s: it belongs to the systemd unit %s; disable that unit before the next "
			"deployment, or systemd may start the process again once it was stopped",
			name, f->unit);
}

static void describe_all(struct bt_build *b)
{
	const struct bt_lane *lane = &b->plan->stages[0].lanes[0];
	const char *digest = NULL;
	bool same = true;
	for (int pass = 0; pass < 2; pass++)
		for (size_t i = 0; i < lane->n_tasks; i++) {
			uint16_t place = lane->tasks[i].instance;
			const struct bt_seen_foreign *f = b->scene.places[place].foreign;
			if (lane->tasks[i].kind != BT_TASK_ADOPT)
				continue;
			if (pass == 1)
				describe(b, place, same);
			same = same && f->digest && (!digest || bt_streq(digest, f->digest));
			digest = f->digest;
		}
}

static int add(struct bt_build *b, uint16_t place, const char *why, struct bt_err *err)
{
	int r = check_place(b, place, err);
	if (r < 0)
		return r;
	bt_build_adopt(b, place, why);
	bt_build_health(b, place, "a rollback to it will have to believe this check");
	return 0;
}

static size_t count_strangers(const struct bt_scene *s)
{
	size_t n = 0;
	for (size_t i = 0; i < s->n_places; i++)
		n += !bt_place_ours(&s->places[i]) && s->places[i].stranger;
	return n;
}

/* "8081 (blue) and 8082 (green)" */
static const char *ports(struct bt_build *b)
{
	BT_STR struct bt_str text = {0};
	const struct bt_run *run = &b->service->run;
	for (size_t i = 0; i < run->n_slots; i++)
		bt_str_addf(&text, "%s%u (%s)",
			i == 0		       ? ""
			: i + 1 < run->n_slots ? ", "
					       : " and ",
			run->slots[i].port, run->slots[i].name);
	return bt_build_text(b, "%s", bt_str_get(&text));
}

static int nothing(struct bt_build *b, struct bt_err *err)
{
	return bt_err_set(err, BT_E_REFUSED,
		"there is nothing to adopt: no process that others started listens on the ports %s "
		"of %s",
		ports(b), b->service->name);
}

/* Of another host, say: somebody started the app there anew. */
static void note_adopted_already(struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	bt_build_note(b, "%s is adopted already, as %s (pid %d)", bt_build_place_name(b, place),
		bt_build_version(b, p->release), p->pid);
}

static int adopt_slot(struct bt_build *b, struct bt_err *err)
{
	BT_STR struct bt_str why = {0};
	int live = -1;
	int r = bt_plan_live_slot(b->service, b->rq->world, &live, &why, err);
	if (r < 0)
		return r;
	if (live < 0)
		return bt_err_set(err, BT_E_REFUSED,
			"%s, so it is not clear which process serves: there is nothing to adopt",
			bt_str_get(&why));
	const char *reason = bt_build_text(b, "%s", bt_str_get(&why));
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		if (p->slot == live && p->adopted)
			note_adopted_already(b, i);
		else if (p->slot == live)
			r = add(b, i, reason, err);
		else if (p->stranger)
			bt_build_note(b,
				"port %u of %s is held by %s, which serves nobody: stop it before "
				"the next deployment, which starts there",
				p->port, bt_build_place_name(b, i), p->stranger);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Every slot is an instance: all that others run are adopted. */
static int adopt_all(struct bt_build *b, struct bt_err *err)
{
	int r = 0;
	if (b->scene.n_balancers && b->scene.n_in == 0)
		return bt_err_set(err, BT_E_REFUSED,
			"nginx sends to none of the ports %s of %s, so nothing serves that could "
			"be adopted",
			ports(b), b->service->name);
	for (uint16_t i = 0; r == 0 && i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		if (p->adopted)
			note_adopted_already(b, i);
		else if (p->stranger || p->in)
			r = add(b, i, p->in ? "it is in rotation" : "it runs, out of rotation",
				err);
	}
	return r;
}

int bt_plan_adoption(struct bt_build *b, struct bt_err *err)
{
	if (count_strangers(&b->scene) == 0) {
		for (uint16_t i = 0; i < b->scene.n_places; i++)
			if (bt_place_ours(&b->scene.places[i]))
				return check_place(b, i, err);
		return nothing(b, err);
	}
	b->plan->on_failure = BT_ON_FAILURE_ROLLBACK;
	b->plan->min_in_rotation = (int64_t)b->scene.n_in;
	bt_build_stage(b, "nothing is stopped, started or switched", "adopt");
	bt_build_lane(b, b->service->name);
	int r = b->service->deploy.strategy == BT_STRATEGY_BLUE_GREEN ? adopt_slot(b, err)
								      : adopt_all(b, err);
	if (r == 0)
		describe_all(b);
	return r;
}
