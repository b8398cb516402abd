/* Rolling: every slot of every host is an instance that serves. They are replaced a batch at a
 * time: out of rotation, drained, stopped, started, proven, back in rotation. What is down goes
 * first, since replacing it costs nothing.
 *
 * Canary is the same with a first batch of its own, which is watched before all others follow; the
 * bake that rolling has after each batch comes once more, at the end. */
#include "plan/build.h"

#include "base/str.h"

/* So many, or so many percent of all, as min_in_rotation lets go. */
static size_t at_a_time(const struct bt_build *b, int64_t wanted, bool percent)
{
	const struct bt_deploy *d = &b->service->deploy;
	int64_t total = (int64_t)b->scene.n_places;
	int64_t k = percent ? total * wanted / 100 : wanted;
	if (d->min_in_rotation >= 0 && k > total - d->min_in_rotation)
		k = total - d->min_in_rotation;
	if (k > total)
		k = total;
	return k < 1 ? 1 : (size_t)k;
}

size_t bt_plan_batch(const struct bt_build *b)
{
	const struct bt_deploy *d = &b->service->deploy;
	return at_a_time(b, d->batch, d->batch_percent);
}

static bool is_canary(const struct bt_build *b)
{
	return b->service->deploy.strategy == BT_STRATEGY_CANARY;
}

static size_t canaries(const struct bt_build *b)
{
	const struct bt_deploy *d = &b->service->deploy;
	return at_a_time(b, d->canary, d->canary_percent);
}

static bool first_of_host(const struct bt_build *b, struct bt_list todo, uint16_t place)
{
	size_t i = 0;
	while (b->scene.places[todo.v[i]].host != b->scene.places[place].host)
		i++;
	return todo.v[i] == place;
}

static void replace(struct bt_build *b, struct bt_list todo, uint16_t place)
{
	bool first = place == todo.v[0], leads = first_of_host(b, todo, place);
	const struct bt_place *p = &b->scene.places[place];
	struct bt_list one = bt_list_one(b, place), none = {0};
	bt_build_lane_at(b, place);
	if (p->in)
		bt_build_switch(b, none, one, NULL);
	if (bt_place_ours(p)) {
		bt_build_drain(b, one, NULL);
		bt_build_stop(b, place, NULL);
	}
	bt_build_start(b, place,
		bt_place_ours(p) ? NULL
				 : "it is down: replacing it costs nothing, so it goes first");
	bt_build_health(b, place, NULL);
	bt_build_backend(b, one, NULL);
	bt_build_hooks_lane(b, BT_HOOK_BEFORE_SWITCH, place, first, leads);
	bt_build_switch(b, one, none, NULL);
	bt_build_hooks_lane(b, BT_HOOK_AFTER_SWITCH, place, first, leads);
}

/* Nothing is in rotation: all start side by side, and one switch takes them all in. */
static void first(struct bt_build *b, struct bt_list all)
{
	struct bt_list none = {0};
	bt_build_stage(
		b, "nothing is in rotation, so nothing has to be replaced piece by piece", "start");
	for (size_t i = 0; i < all.n; i++) {
		uint16_t place = all.v[i];
		bt_build_lane_at(b, place);
		if (bt_place_ours(&b->scene.places[place])) {
			bt_build_drain(b, bt_list_one(b, place), NULL);
			bt_build_stop(b, place, "it runs and is not in rotation");
		}
		bt_build_start(b, place, NULL);
		bt_build_health(b, place, NULL);
	}
	bt_build_check_stage(b, all);
	bt_build_hooks(b, BT_HOOK_BEFORE_SWITCH, all);
	bt_build_cutover_stage(b, all, none, NULL);
	bt_build_hooks(b, BT_HOOK_AFTER_SWITCH, all);
	bt_build_bake_stage(b, all, "bake");
}

/* The length of the batch that begins at `at`. What is out of rotation is not mixed with what
 * is in: putting the former in first is what keeps the floor while the latter leave. And whoever
 * has a hook to pass for others goes before them. */
static size_t batch_length(const struct bt_build *b, struct bt_list todo, size_t at, size_t k)
{
	const uint16_t *list = todo.v + at;
	size_t n = todo.n - at, len = 1;
	bool by_host, once = bt_build_hooks_lead(b, &by_host);
	if (once && at == 0)
		return 1;
	while (len < n && len < k && b->scene.places[list[len]].in == b->scene.places[list[0]].in) {
		if (by_host && !first_of_host(b, todo, list[len]))
			for (size_t i = 0; i < len; i++)
				if (first_of_host(b, todo, list[i]) &&
					b->scene.places[list[i]].host ==
						b->scene.places[list[len]].host)
					return len;
		len++;
	}
	return len;
}

static size_t canary_stages(struct bt_build *b, struct bt_list todo)
{
	struct bt_list batch = {.v = todo.v, .n = batch_length(b, todo, 0, canaries(b))};
	bt_build_stage(
		b, "these first: the others follow when they have proven themselves", "canary");
	for (size_t i = 0; i < batch.n; i++)
		replace(b, todo, batch.v[i]);
	bt_build_bake_stage(b, batch, "bake canary");
	return batch.n;
}

static void batches(struct bt_build *b, struct bt_list todo, size_t k)
{
	size_t n = 0, number = 0, from = is_canary(b) && todo.n ? canary_stages(b, todo) : 0;
	for (size_t at = from; at < todo.n; n++)
		at += batch_length(b, todo, at, k);
	for (size_t at = from; at < todo.n;) {
		struct bt_list batch = {.v = todo.v + at};
		batch.n = batch_length(b, todo, at, k);
		bt_build_stage(b, NULL, "batch %zu of %zu", ++number, n);
		for (size_t j = 0; j < batch.n; j++)
			replace(b, todo, batch.v[j]);
		if (!is_canary(b))
			bt_build_bake_stage(
				b, batch, bt_build_text(b, "bake %zu of %zu", number, n));
		at += batch.n;
	}
	struct bt_list rest = {.v = todo.v + from, .n = todo.n - from};
	if (is_canary(b) && rest.n)
		bt_build_bake_stage(b, rest, "bake");
}

/* 0: out of rotation, 1: in rotation but down, or not reached from every balancer, 2: serves.
 * Without a balancer only running counts. */
static int rank(const struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	if (b->balancer != BT_NONE && !p->in)
		return 0;
	bool missed = b->balancer != BT_NONE && !bt_build_reached(b, place);
	return p->state == BT_RUN_RUNNING && !missed ? 2 : 1;
}

static bool done(const struct bt_build *b, uint16_t place)
{
	return rank(b, place) == 2 && b->scene.places[place].release == b->plan->release;
}

/* What is left to do, the ones that do not serve first. When all serve the release already, it was
 * asked for again: all are replaced. */
static struct bt_list order(struct bt_build *b, size_t *ret_done)
{
	struct bt_list todo = bt_list_new(b);
	size_t n_done = 0;
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		n_done += done(b, i);
	bool again = n_done == b->scene.n_places;
	for (int pass = 0; pass < 3; pass++)
		for (uint16_t i = 0; i < b->scene.n_places; i++)
			if (rank(b, i) == pass && (again || !done(b, i)))
				bt_list_add(&todo, i);
	bt_list_order(b, &todo);
	*ret_done = again ? 0 : n_done;
	return todo;
}

static void rotation_floor(struct bt_build *b, size_t k)
{
	int64_t total = (int64_t)b->scene.n_places, in = (int64_t)b->scene.n_in;
	int64_t min = b->service->deploy.min_in_rotation;
	if (min < 0 || min > total - (int64_t)k)
		min = total - (int64_t)k;
	b->plan->min_in_rotation = b->balancer == BT_NONE ? 0 : min < in ? min : in;
	if (total == 1 && in == 1)
		bt_build_note(b, "there is one instance in all: requests fail while it is replaced "
				 "(blue-green with two slots avoids that)");
}

/* What the reader of a plan wants to know of routes to one instance. */
static void note_one(struct bt_build *b, struct bt_list todo)
{
	const struct bt_plan_balancer *n =
		b->balancer == BT_NONE ? NULL : &b->plan->balancers[b->balancer];
	BT_STR struct bt_str paths = {0};
	if (!n || !n->routes_one || n->expect_one == BT_NONE || !bt_list_has(todo, n->expect_one))
		return;
	for (size_t i = 0; i < b->service->nginx->n_routes; i++)
		if (b->service->nginx->routes[i].to == BT_ROUTE_ONE)
			bt_str_addf(&paths, "%s%s", paths.len ? ", " : "",
				b->service->nginx->routes[i].path);
	bt_build_note(b,
		"%s goes to %s alone, and moves once: to the first instance that is "
		"renewed and healthy",
		bt_str_get(&paths), bt_build_place_name(b, n->expect_one));
}

int bt_plan_rolling(struct bt_build *b, struct bt_err *err)
{
	struct bt_list all = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++) {
		const struct bt_place *p = &b->scene.places[i];
		int r = bt_plan_check_free(b, i, err);
		if (r < 0)
			return r;
		bt_list_add(&all, i);
		if (p->release && p->release != b->plan->release)
			b->plan->old_release = p->release;
	}
	size_t n_done, k = bt_plan_batch(b);
	struct bt_list todo = order(b, &n_done);
	if (!b->plan->old_release && !n_done)
		b->plan->old_release = b->scene.places[0].release;
	rotation_floor(b, is_canary(b) && canaries(b) > k ? canaries(b) : k);
	note_one(b, todo);
	if (n_done)
		bt_build_note(b, "%zu of %zu instances serve %s already and are left alone", n_done,
			b->scene.n_places, bt_build_version(b, b->plan->release));
	bool nothing = b->balancer != BT_NONE ? b->scene.n_in == 0 : false;
	bt_build_prepare(b, NULL);
	bt_build_hooks(b, BT_HOOK_BEFORE, (struct bt_list){0});
	bt_build_vip_stage(b, all);
	if (nothing)
		first(b, all);
	else
		batches(b, todo, k);
	bt_build_prune_stage(b);
	return 0;
}
