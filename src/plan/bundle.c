/* A CodeDeploy bundle over its hosts, as CodeDeploy takes them.
 *
 * In place, each host passes through the whole lifecycle in a lane of its own, some hosts at a
 * time:
 *
 *   BeforeBlockTraffic BlockTraffic AfterBlockTraffic ApplicationStop DownloadBundle BeforeInstall
 *   Install AfterInstall ApplicationStart ValidateService BeforeAllowTraffic AllowTraffic
 *   AfterAllowTraffic
 *
 * Blue-green, the idle slot of every host gets ApplicationStop to ValidateService and then the
 * requests; only after that the slots that served pass the events that block traffic.
 *
 * How many at a time, and how many may fail: of N hosts at least M are to be healthy. OneAtATime is
 * M = N - 1, HalfAtATime M = N/2 rounded up and half rounded down at a time, AllAtOnce M = 0, else
 * M is the number, or the share rounded up, and N - M go at a time. Who does not serve goes first:
 * that takes nothing away. Before a batch with h healthy hosts may be taken, those that are healthy
 * then, less h, must still be M: so many may have failed by then (may_fail). At the end M hosts,
 * and at least one, must have the release. A host that failed stays out of rotation.
 *
 * The bundle is fetched and its appspec checked on all hosts before the first one is touched. */
#include "plan/bundle.h"

#include "base/str.h"

enum { EVENT_SLACK_MS = 120000, EVENT_MS = 3600 * 1000 };

/* ---- lanes ------------------------------------------------------------------------------- */

static bool is_blue_green(const struct bt_build *b)
{
	return b->service->deploy.codedeploy.style == BT_CODEDEPLOY_BLUE_GREEN;
}

static bool serves(const struct bt_build *b, const struct bt_place *p)
{
	return p->state == BT_RUN_RUNNING && p->health != BT_VITAL_UNHEALTHY &&
	       (b->balancer == BT_NONE || p->in_all);
}

static bool has_one(const struct bt_build *b, const struct bt_bundle_lane *l)
{
	for (size_t i = 0; i < b->plan->n_balancers; i++)
		if (b->plan->balancers[i].expect_one != BT_NONE &&
			bt_list_has(l->here, b->plan->balancers[i].expect_one))
			return true;
	return false;
}

size_t bt_build_bundle_lanes(struct bt_build *b, struct bt_bundle_lane **ret)
{
	size_t n_hosts = b->service->n_hosts, n = 0;
	struct bt_bundle_lane *all = BT_ARENA_ARRAY(b->arena, struct bt_bundle_lane, n_hosts);
	struct bt_bundle_lane *list = BT_ARENA_ARRAY(b->arena, struct bt_bundle_lane, n_hosts);
	for (uint16_t h = 0; h < n_hosts; h++) {
		all[h] =
			(struct bt_bundle_lane){.host = h, .here = bt_list_new(b), .healthy = true};
		for (uint16_t i = 0; i < b->scene.n_places; i++)
			if (b->scene.places[i].host == h) {
				bt_list_add(&all[h].here, i);
				all[h].healthy = all[h].healthy && serves(b, &b->scene.places[i]);
			}
	}
	for (int rank = 0; rank < 3; rank++)
		for (size_t h = 0; h < n_hosts; h++)
			if (rank == (!all[h].healthy ? 0 : has_one(b, &all[h]) ? 2 : 1))
				list[n++] = all[h];
	*ret = list;
	return n;
}

struct bt_bundle_lane bt_build_bundle_lane_at(struct bt_build *b, uint16_t place)
{
	const struct bt_place *p = &b->scene.places[place];
	return (struct bt_bundle_lane){
		.host = p->host, .here = bt_list_one(b, place), .healthy = serves(b, p)};
}

/* ---- parts of a lane --------------------------------------------------------------------- */

/* The tasks that were appended since `from` are that event's. */
static void mark(struct bt_build *b, size_t from, enum bt_lifecycle event)
{
	struct bt_lane *l = bt_build_current_lane(b);
	for (size_t i = from; i < l->n_tasks; i++)
		((struct bt_task *)l->tasks)[i].step = bt_lifecycles[event].name;
}

static size_t n_tasks(struct bt_build *b)
{
	return bt_build_current_lane(b)->n_tasks;
}

static void about(struct bt_task *t, const struct bt_bundle_lane *l)
{
	t->out = l->here.v;
	t->n_out = l->here.n;
	if (l->here.n == 1)
		t->instance = l->here.v[0];
}

struct bt_task *bt_build_bundle_event(
	struct bt_build *b, enum bt_lifecycle event, const struct bt_bundle_lane *l)
{
	const struct bt_lifecycle_info *info = &bt_lifecycles[event];
	struct bt_task *t = bt_build_task(b, BT_TASK_LIFECYCLE, l->host,
		info->last ? "the scripts of the revision that is there" : NULL);
	t->step = t->event = info->name;
	t->release = b->plan->release;
	t->wait_ms = EVENT_MS;
	t->timeout_ms = EVENT_SLACK_MS; /* to end what did not end by itself */
	about(t, l);
	return t;
}

void bt_build_bundle_install(struct bt_build *b, const struct bt_bundle_lane *l)
{
	struct bt_task *t = bt_build_task(b, BT_TASK_INSTALL, l->host, NULL);
	t->step = bt_lifecycles[BT_LIFE_INSTALL].name;
	t->release = b->plan->release;
	about(t, l);
}

void bt_build_bundle_block(struct bt_build *b, const struct bt_bundle_lane *l)
{
	struct bt_list in = bt_list_new(b), run = bt_list_new(b), none = {0};
	if (b->balancer == BT_NONE)
		return;
	for (size_t i = 0; i < l->here.n; i++) {
		const struct bt_place *p = &b->scene.places[l->here.v[i]];
		if (p->in)
			bt_list_add(&in, l->here.v[i]);
		/* Who got requests a moment ago may still be at them. */
		if (p->in || p->state == BT_RUN_RUNNING)
			bt_list_add(&run, l->here.v[i]);
	}
	bt_build_bundle_event(b, BT_LIFE_BEFORE_BLOCK_TRAFFIC, l);
	size_t from = n_tasks(b);
	if (in.n)
		bt_build_switch(b, none, in, NULL);
	bt_build_drain(b, run, NULL);
	mark(b, from, BT_LIFE_BLOCK_TRAFFIC);
	bt_build_bundle_event(b, BT_LIFE_AFTER_BLOCK_TRAFFIC, l);
}

void bt_build_bundle_stop(struct bt_build *b, const struct bt_bundle_lane *l)
{
	bt_build_bundle_event(b, BT_LIFE_APPLICATION_STOP, l)->ignore =
		b->service->deploy.codedeploy.ignore_stop_failures;
}

void bt_build_bundle_replace(struct bt_build *b, const struct bt_bundle_lane *l)
{
	bt_build_bundle_stop(b, l);
	size_t from = n_tasks(b);
	bt_build_component(b, l->host, "it is there already, and checked again");
	mark(b, from, BT_LIFE_DOWNLOAD_BUNDLE);
	bt_build_bundle_event(b, BT_LIFE_BEFORE_INSTALL, l);
	bt_build_bundle_install(b, l);
	bt_build_bundle_event(b, BT_LIFE_AFTER_INSTALL, l);
	bt_build_bundle_event(b, BT_LIFE_APPLICATION_START, l);
	bt_build_bundle_event(b, BT_LIFE_VALIDATE_SERVICE, l);
	from = n_tasks(b);
	for (size_t i = 0; i < l->here.n; i++)
		bt_build_health(b, l->here.v[i], NULL);
	mark(b, from, BT_LIFE_VALIDATE_SERVICE);
}

void bt_build_bundle_allow(struct bt_build *b, const struct bt_bundle_lane *l)
{
	if (b->balancer == BT_NONE)
		return;
	bt_build_bundle_event(b, BT_LIFE_BEFORE_ALLOW_TRAFFIC, l);
	size_t from = n_tasks(b);
	bt_build_backend(b, l->here, NULL);
	bt_build_switch(b, l->here, (struct bt_list){0}, NULL);
	mark(b, from, BT_LIFE_ALLOW_TRAFFIC);
	bt_build_bundle_event(b, BT_LIFE_AFTER_ALLOW_TRAFFIC, l);
}

/* ---- the deployment configuration -------------------------------------------------------- */

static size_t count_healthy(const struct bt_bundle_lane *list, size_t n)
{
	size_t k = 0;
	for (size_t i = 0; i < n; i++)
		k += list[i].healthy;
	return k;
}

int bt_build_bundle_rule(const struct bt_build *b, struct bt_bundle_rule *ret, struct bt_err *err)
{
	const struct bt_codedeploy *c = &b->service->deploy.codedeploy;
	size_t n = b->service->n_hosts;
	struct bt_bundle_rule r = {.n = n};
	if (c->min_healthy >= 0) {
		r.healthy = (size_t)c->min_healthy;
		if (c->min_healthy_percent)
			r.healthy = (n * r.healthy + 99) / 100;
		if (r.healthy >= n)
			return bt_err_set(err, BT_E_CONFIG,
				"deploy.codedeploy.minimum_healthy_hosts: %lld%s of %zu host%s "
				"leaves none to deploy to: expected a smaller one",
				(long long)c->min_healthy, c->min_healthy_percent ? "%" : "", n,
				n == 1 ? "" : "s");
		r.at_a_time = n - r.healthy;
	} else if (c->config == BT_CODEDEPLOY_ALL_AT_ONCE) {
		r.at_a_time = n;
	} else if (c->config == BT_CODEDEPLOY_HALF_AT_A_TIME) {
		r.healthy = (n + 1) / 2;
		r.at_a_time = n / 2 ? n / 2 : 1;
	} else {
		r.healthy = n - 1;
		r.at_a_time = 1;
	}
	*ret = r;
	return 0;
}

static void note_rule(struct bt_build *b, const struct bt_bundle_rule *rule)
{
	const struct bt_codedeploy *c = &b->service->deploy.codedeploy;
	const char *name = c->min_healthy >= 0
				   ? "minimum_healthy_hosts"
				   : bt_enum_name(&bt_enum_codedeploy_config, (int)c->config);
	size_t least = rule->healthy ? rule->healthy : 1;
	bt_build_note(b, "%s: %zu host%s at a time, and at least %zu of %zu must come out healthy",
		name, rule->at_a_time, rule->at_a_time == 1 ? "" : "s", least, rule->n);
	if (c->ignore_stop_failures)
		bt_build_note(b, "an ApplicationStop that fails is said, and passed over");
}

/* How many of the next hosts are one batch: those that serve are not mixed with those that do not.
 */
static size_t batch_length(const struct bt_bundle_lane *list, size_t n, size_t at_a_time)
{
	size_t len = 1;
	while (len < n && len < at_a_time && list[len].healthy == list[0].healthy)
		len++;
	return len;
}

/* Lanes that may have failed once the first `at` of n have been taken (see the file's head). */
static int64_t may_fail(
	const struct bt_bundle_rule *rule, const struct bt_bundle_lane *list, size_t n, size_t at)
{
	int64_t least = (int64_t)(rule->healthy ? rule->healthy : 1);
	int64_t most = (int64_t)rule->n - least, others = (int64_t)(rule->n - n);
	while (at < n) {
		size_t len = batch_length(list + at, n - at, rule->at_a_time);
		int64_t taken = (int64_t)count_healthy(list + at, len);
		int64_t healthy = others + (int64_t)at + (int64_t)count_healthy(list + at, n - at);
		int64_t spare = healthy - taken - (int64_t)rule->healthy;
		if (taken && spare < most)
			most = spare;
		at += len;
	}
	return most < 0 ? 0 : most;
}

/* ---- in place ---------------------------------------------------------------------------- */

static void host_lane(struct bt_build *b, const struct bt_bundle_lane *l, bool first)
{
	bt_build_lane(b, b->plan->hosts[l->host]);
	bt_build_bundle_block(b, l);
	bt_build_bundle_replace(b, l);
	bt_build_hooks_lane(b, BT_HOOK_BEFORE_SWITCH, l->here.v[0], first, true);
	bt_build_bundle_allow(b, l);
	bt_build_hooks_lane(b, BT_HOOK_AFTER_SWITCH, l->here.v[0], first, true);
}

static void bake(struct bt_build *b, const struct bt_bundle_lane *list, size_t n, const char *name)
{
	struct bt_list places = bt_list_new(b);
	size_t stages = b->plan->n_stages;
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < list[i].here.n; k++)
			bt_list_add(&places, list[i].here.v[k]);
	bt_build_bake_stage(b, places, name);
	/* Who turns bad while it serves is none of those that may fail: they stay out. */
	if (b->plan->n_stages > stages)
		bt_build_stage_policy(b, b->service->deploy.on_failure, 0);
}

static bool done(const struct bt_build *b, const struct bt_bundle_lane *l)
{
	for (size_t i = 0; i < l->here.n; i++)
		if (b->scene.places[l->here.v[i]].release != b->plan->release)
			return false;
	return l->healthy;
}

/* Hosts that serve the release already are left alone, unless all do: then it was asked for again.
 */
static size_t what_is_left(struct bt_build *b, struct bt_bundle_lane *list, size_t n)
{
	size_t left = 0;
	for (size_t i = 0; i < n; i++)
		left += !done(b, &list[i]);
	if (left == 0 || left == n)
		return n;
	bt_build_note(b, "%zu of %zu hosts serve %s already and are left alone", n - left, n,
		bt_build_version(b, b->plan->release));
	for (size_t i = 0, k = 0; i < n; i++)
		if (!done(b, &list[i]))
			list[k++] = list[i];
	return left;
}

/* Of a single host that has to stay healthy none could be taken: its turn is its turn. What gets
 * requests on a host that does not serve as a whole is taken first, and counts for nothing. */
void bt_build_bundle_floor(struct bt_build *b, const struct bt_bundle_rule *rule)
{
	size_t hosts = rule->n - rule->at_a_time;
	if (rule->healthy < hosts)
		hosts = rule->healthy;
	struct bt_bundle_lane *list;
	size_t n = bt_build_bundle_lanes(b, &list);
	int64_t least = (int64_t)(hosts * b->service->run.n_slots);
	int64_t in = (int64_t)(count_healthy(list, n) * b->service->run.n_slots);
	b->plan->min_in_rotation = b->balancer == BT_NONE ? 0 : least < in ? least : in;
	if (b->balancer != BT_NONE && b->scene.n_in && hosts == 0)
		bt_build_note(b, "no host has to stay healthy meanwhile: requests fail from the "
				 "take-out until the first one is back");
}

static void batches(struct bt_build *b, const struct bt_bundle_rule *rule,
	struct bt_bundle_lane *list, size_t n)
{
	size_t number = 0, count = 0;
	for (size_t at = 0; at < n; count++)
		at += batch_length(list + at, n - at, rule->at_a_time);
	for (size_t at = 0; at < n;) {
		size_t len = batch_length(list + at, n - at, rule->at_a_time);
		bt_build_stage(b,
			list[at].healthy ? NULL
					 : "who does not serve goes first: it takes nothing "
					   "away",
			"batch %zu of %zu", ++number, count);
		bt_build_stage_may_fail(b, may_fail(rule, list, n, at + len));
		for (size_t i = 0; i < len; i++)
			host_lane(b, &list[at + i], at + i == 0);
		bake(b, list + at, len, bt_build_text(b, "bake %zu of %zu", number, count));
		at += len;
	}
}

/* What fails before the first host is touched, or is rejected there, is no host that failed. */
static void before(struct bt_build *b)
{
	size_t from = b->plan->n_stages;
	bt_build_hooks(b, BT_HOOK_BEFORE, (struct bt_list){0});
	struct bt_stage *stages = (struct bt_stage *)b->plan->stages;
	for (size_t i = from; i < b->plan->n_stages; i++) {
		stages[i].own_policy = true;
		stages[i].on_failure = b->plan->on_failure;
		stages[i].continue_n = 0;
	}
}

struct bt_list bt_build_bundle_everywhere(struct bt_build *b)
{
	struct bt_list all = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		bt_list_add(&all, i);
	return all;
}

static void in_place(struct bt_build *b, const struct bt_bundle_rule *rule)
{
	struct bt_bundle_lane *list;
	size_t all = bt_build_bundle_lanes(b, &list), n = what_is_left(b, list, all);
	bt_build_bundle_floor(b, rule);
	note_rule(b, rule);
	bool *hosts = BT_ARENA_ARRAY(b->arena, bool, b->service->n_hosts);
	for (size_t i = 0; i < n; i++)
		hosts[list[i].host] = true;
	bt_build_prepare(b, hosts);
	bt_build_stage_may_fail(b, may_fail(rule, list, n, 0));
	before(b);
	bt_build_vip_stage(b, bt_build_bundle_everywhere(b));
	batches(b, rule, list, n);
}

/* ---- blue-green -------------------------------------------------------------------------- */

struct bt_list bt_build_bundle_slot(struct bt_build *b, int slot)
{
	struct bt_list list = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		if (b->scene.places[i].slot == slot)
			bt_list_add(&list, i);
	return list;
}

/* A file that holds one address can say only one thing at a time. */
static bool one_at_a_time(const struct bt_build *b)
{
	const struct bt_nginx *n = b->service->nginx;
	return n && n->mode == BT_NGINX_ADOPT && n->form != BT_NGINX_UPSTREAM;
}

static void replacements(struct bt_build *b, const struct bt_bundle_rule *rule, struct bt_list to)
{
	size_t k = rule->at_a_time, count = (to.n + k - 1) / k;
	for (size_t i = 0; i < to.n; i++) {
		struct bt_bundle_lane l = bt_build_bundle_lane_at(b, to.v[i]);
		if (i % k == 0)
			bt_build_stage(b, i ? NULL : "no request goes there yet",
				"replacement %zu of %zu", i / k + 1, count);
		bt_build_lane_at(b, to.v[i]);
		/* What runs there may have got requests until a moment ago. */
		if (b->scene.places[to.v[i]].state == BT_RUN_RUNNING)
			bt_build_drain(b, l.here, NULL);
		bt_build_bundle_replace(b, &l);
	}
}

static void events(struct bt_build *b, struct bt_list places, enum bt_lifecycle event)
{
	bt_build_stage(b, NULL, "%s", bt_lifecycles[event].name);
	for (size_t i = 0; i < places.n; i++) {
		struct bt_bundle_lane l = bt_build_bundle_lane_at(b, places.v[i]);
		bt_build_lane_at(b, places.v[i]);
		bt_build_bundle_event(b, event, &l);
	}
}

/* Requests go to the new ones as well, then no longer to the old ones; or in one change. */
void bt_build_bundle_take_over(struct bt_build *b, struct bt_list to, struct bt_list from)
{
	bool once = one_at_a_time(b) && from.n && to.n;
	events(b, to, BT_LIFE_BEFORE_ALLOW_TRAFFIC);
	bt_build_check_stage(b, to);
	if (b->plan->purpose == BT_PLAN_DEPLOY)
		bt_build_hooks(b, BT_HOOK_BEFORE_SWITCH, to);
	if (once)
		events(b, from, BT_LIFE_BEFORE_BLOCK_TRAFFIC);
	bt_build_stage(b, NULL, "AllowTraffic");
	bt_build_lane_balancers(b);
	if (to.n)
		bt_build_switch(b, to, once ? from : (struct bt_list){0}, NULL);
	mark(b, 0, BT_LIFE_ALLOW_TRAFFIC);
	events(b, to, BT_LIFE_AFTER_ALLOW_TRAFFIC);
	if (b->plan->purpose == BT_PLAN_DEPLOY)
		bt_build_hooks(b, BT_HOOK_AFTER_SWITCH, to);
	if (from.n)
		bt_build_stage(b, "they are no longer sent to, and run on",
			b->plan->purpose == BT_PLAN_DEPLOY ? "originals" : "replacements");
	for (size_t i = 0; i < from.n; i++) {
		struct bt_bundle_lane l = bt_build_bundle_lane_at(b, from.v[i]);
		bt_build_lane_at(b, from.v[i]);
		if (!once) {
			bt_build_bundle_block(b, &l);
			continue;
		}
		bt_build_drain(b, l.here, NULL);
		mark(b, 0, BT_LIFE_BLOCK_TRAFFIC);
		bt_build_bundle_event(b, BT_LIFE_AFTER_BLOCK_TRAFFIC, &l);
	}
}

int bt_build_bundle_blue_green(struct bt_build *b, struct bt_err *err)
{
	struct bt_bundle_rule rule;
	BT_STR struct bt_str why = {0};
	int live = -1;
	int r = bt_build_bundle_rule(b, &rule, err);
	if (r == 0)
		r = bt_plan_live_slot(b->service, b->rq->world, &live, &why, err);
	if (r < 0)
		return r;
	int slot = (live + 1) % (int)b->service->run.n_slots;
	struct bt_list to = bt_build_bundle_slot(b, slot), from = bt_list_new(b);
	for (uint16_t i = 0; i < b->scene.n_places; i++)
		if (b->scene.places[i].in && b->scene.places[i].slot != slot)
			bt_list_add(&from, i);
	b->plan->min_in_rotation = (int64_t)(from.n < to.n ? from.n : to.n);
	bt_build_note(b, "%s gets it: %s", b->service->run.slots[slot].name, bt_str_get(&why));
	if (from.n)
		bt_build_note(b, "what serves now runs on afterwards, until the next deployment's "
				 "ApplicationStop there");
	bt_build_prepare(b, NULL);
	bt_build_hooks(b, BT_HOOK_BEFORE, (struct bt_list){0});
	bt_build_vip_stage(b, to);
	replacements(b, &rule, to);
	bt_build_bundle_take_over(b, to, from);
	bt_build_bake_stage(b, to, "bake");
	return 0;
}

/* Who failed is passed over until the end, by stages without hosts of their own, too. */
static void carry_on(struct bt_build *b)
{
	struct bt_stage *stages = (struct bt_stage *)b->plan->stages;
	for (size_t i = 1; i < b->plan->n_stages; i++) {
		size_t k = i - 1;
		while (k && !stages[k].counted)
			k--;
		if (stages[k].counted && !stages[i].counted && !stages[i].own_policy) {
			stages[i].counted = true;
			stages[i].may_fail = stages[k].may_fail;
		}
	}
}

/* ---- both -------------------------------------------------------------------------------- */

int bt_plan_bundle(struct bt_build *b, struct bt_err *err)
{
	struct bt_bundle_rule rule;
	b->plan->old_release = bt_build_serving(b);
	int r = is_blue_green(b) ? bt_build_bundle_blue_green(b, err)
				 : bt_build_bundle_rule(b, &rule, err);
	if (r < 0)
		return r;
	if (!is_blue_green(b))
		in_place(b, &rule);
	bt_build_prune_stage(b);
	carry_on(b);
	return 0;
}
