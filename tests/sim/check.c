/* What must hold. */
#include "sim.h"

#include <stdarg.h>
#include <string.h>

void violated(struct sim *s, const char *fmt, ...)
{
	if (s->failed)
		return;
	s->failed = true;
	va_list ap;
	va_start(ap, fmt);
	int n = snprintf(s->why, sizeof s->why, "at %.3f s: ", (double)s->now_ms / 1000);
	vsnprintf(s->why + n, sizeof s->why - (size_t)n, fmt, ap);
	va_end(ap);
	trace(s, "VIOLATED: %s", s->why);
}

static int64_t count(const struct sim *s, const bool *in)
{
	int64_t n = 0;
	for (uint16_t i = 0; i < s->n_inst; i++)
		n += in[i];
	return n;
}

static int64_t smallest(int64_t a, int64_t b, int64_t c)
{
	int64_t m = a < b ? a : b;
	return m < c ? m : c;
}

/* Never fewer in rotation than the minimum; where there were fewer before, never fewer still; and
 * an undo may go back to what was there when the plan was made. */
void check_pool_change(struct sim *s, uint16_t balancer, const bool *was)
{
	int64_t before = count(s, was), after = count(s, s->balancers[balancer].in);
	for (uint16_t b = 0; s->own_host && b < s->n_balancers; b++)
		if (b != balancer) { /* all of them together are the pool */
			before += count(s, s->balancers[b].in);
			after += count(s, s->balancers[b].in);
		}
	if (s->purpose == BT_PLAN_ADOPT)
		violated(s, "an adoption changes what is in rotation");
	int64_t min = smallest(s->min_in_rotation, before, s->n_in_at_plan);
	if (after < min)
		violated(s, "%lld in rotation, at least %lld had to stay", (long long)after,
			(long long)min);
}

/* Routes to one instance always have one that is in rotation. A run that goes forward moves them
 * once, however many instances it replaces; one that was not healthy to begin with goes first, and
 * the way back of a blue-green that was half done may have to begin with it. */
void check_one(struct sim *s, uint16_t balancer, uint16_t was)
{
	struct balancer *b = &s->balancers[balancer];
	uint16_t one = b->one;
	bool any = count(s, b->in) > 0;
	if (s->nginx.n_routes == 0)
		return;
	if (any != (one != BT_NONE) || (any && !b->in[one]))
		violated(s, "routes to one instance go to %s",
			one == BT_NONE ? "nobody" : world_name(s, one));
	if (one == BT_NONE || one == was)
		return;
	if (b->one_served != BT_NONE && b->one_served != one)
		b->one_moves++;
	b->one_served = one;
	uint16_t first = s->balancers_at_start[balancer].one;
	bool healthy = first != BT_NONE && s->at_start[first].app == APP_HEALTHY;
	for (uint16_t k = 0; k < s->n_balancers; k++) /* one of them cannot come last as well */
		healthy = healthy && s->balancers_at_start[k].one == first;
	/* Of hosts that do not serve as a whole it cannot be the last one either. */
	healthy = healthy && (!s->bundle || s->healthy_at_start[first / s->n_slots]);
	bool forward =
		s->purpose == BT_PLAN_DEPLOY || s->service.deploy.strategy == BT_STRATEGY_ROLLING;
	/* A flow keeps the order of who wrote it. */
	forward = forward && !s->is_flow;
	/* Where a bundle's config lets no host stay healthy, whoever is quicker leaves first. */
	forward = forward && !(s->bundle && s->min_in_rotation == 0);
	if (b->one_moves > 1 && healthy && forward && !s->one_excused && !s->n_plans &&
		!s->merged && !s->bad_plan && !s->outsider)
		violated(s, "routes to one instance moved %u times, now to %s", b->one_moves,
			world_name(s, one));
}

void check_stop(struct sim *s, uint16_t i)
{
	const struct inst *in = &s->inst[i];
	if (in->app != APP_HEALTHY)
		return;
	if (world_in(s, i))
		violated(s, "%s is stopped in rotation", world_name(s, i));
	for (uint16_t b = 0; b < s->n_balancers; b++)
		if (in->busy_until_ms[b] > s->now_ms && !in->cut_allowed[b])
			violated(s, "%s is stopped with requests that last %lld ms more",
				world_name(s, i), (long long)(in->busy_until_ms[b] - s->now_ms));
}

/* Whoever is reached at the address is out of rotation, and nothing of it is in flight. */
void check_vip_off(struct sim *s, uint16_t host)
{
	for (uint16_t i = host * s->n_slots; i < (host + 1) * s->n_slots; i++) {
		const struct inst *in = &s->inst[i];
		if (world_in(s, i))
			violated(s, "the address of %s is taken off in rotation", world_name(s, i));
		for (uint16_t b = 0; b < s->n_balancers && in->app == APP_HEALTHY; b++)
			if (in->busy_until_ms[b] > s->now_ms && !in->cut_allowed[b])
				violated(s,
					"the address of %s is taken off with requests that last "
					"%lld ms more",
					world_name(s, i),
					(long long)(in->busy_until_ms[b] - s->now_ms));
	}
}

/* An adoption records what serves, whatever goes wrong with it: nothing else. And a flow leaves
 * alone whom nobody chose. */
void check_leaves_alone(struct sim *s, const char *what, uint16_t i)
{
	if (s->purpose == BT_PLAN_ADOPT)
		violated(s, "an adoption %s %s", what, world_name(s, i));
	if (s->is_flow && !s->flow_about[i])
		violated(s, "a flow that is not about %s %s it", world_name(s, i), what);
}

void check_agent_start(struct sim *s, uint16_t h)
{
	const struct agent *a = &s->agents[h];
	for (size_t i = 0; i < s->store.n_rows; i++) {
		const struct row *r = s->store.rows[i];
		if (r->host != h || !r->committed || r->settled || r->seq == 0 ||
			r->seq > bt_ledger_cursor(a->ledger))
			continue;
		if (bt_ledger_offer(a->ledger, "app", &r->c.key, r->c.token) == BT_LEDGER_NEW)
			violated(s, "command %llu lies before the cursor and was never accepted",
				(unsigned long long)r->seq);
	}
}

static bool starts_with_any(const char *text, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (bt_str_starts(text, words[i]))
			return true;
	return false;
}

/* A run parks for one of these reasons, and no other. */
static void check_park(struct sim *s, const char *why)
{
	static const char *const undoing[] = {"undo of ", "Drain on "};
	static const char *const running[] = {
		"undo of ", "Drain on ", "Exec ", "Notify ", "Lifecycle "};
	static const char *const observing[] = {"Observe on "};
	static const char *const planning[] = {"no rollback plan"};
	static const char *const guards[] = {"not confirmed out", "min_in_rotation", "loopback"};
	bool listed = s->phase == BT_PHASE_ROLLING_BACK; /* a task that failed again and again */
	if (s->phase == BT_PHASE_RUNNING)
		listed = starts_with_any(why, running, BT_ARRAY_LEN(running));
	else if (s->phase == BT_PHASE_UNDOING)
		listed = starts_with_any(why, undoing, BT_ARRAY_LEN(undoing));
	else if (s->phase == BT_PHASE_OBSERVING)
		listed = starts_with_any(why, observing, BT_ARRAY_LEN(observing));
	else if (s->phase == BT_PHASE_PLANNING)
		listed = starts_with_any(why, planning, BT_ARRAY_LEN(planning));
	for (size_t i = 0; i < BT_ARRAY_LEN(guards) && !s->bad_plan; i++)
		listed = listed && !strstr(why, guards[i]);
	if (!s->faulted)
		violated(s, "parked though nothing went wrong: %s", why);
	else if (!listed)
		violated(s, "parked for no listed reason, in phase %s: %s", bt_phase_name(s->phase),
			why);
}

void check_record(struct sim *s, const struct bt_record *r)
{
	if (r->kind == BT_RECORD_PHASE && r->phase == BT_PHASE_PARKED)
		check_park(s, r->text);
	if (r->kind == BT_RECORD_PHASE)
		s->phase = r->phase;
	if (r->kind == BT_RECORD_LANE_FAILED)
		s->one_excused = true;
	if (s->bundle)
		bundles_record(s, r);
	if (r->kind == BT_RECORD_PLAN)
		s->phase = BT_PHASE_RUNNING; /* a rollback plan's phase follows */
	uint32_t id = r->command.key.task;
	if (id >= MAX_TASKS)
		violated(s, "task %u is more than the simulator follows", id);
	else if (r->kind == BT_RECORD_SENT)
		s->sent[id] = r->command.key;
	else if (r->kind == BT_RECORD_RETRY && s->phase == BT_PHASE_ROLLING_BACK && s->ran_out[id])
		violated(s, "the way back waits a second time for task %u, a drain that ran out",
			id);
	else if (r->kind == BT_RECORD_RESULT && !bt_command_key_equal(&s->sent[id], &r->result.key))
		violated(s, "a result of task %u counts that is not of its last attempt", id);
	if (r->kind == BT_RECORD_RESULT && id < MAX_TASKS)
		s->ran_out[id] = r->result.detail && bt_streq(r->result.detail, DRAIN_RAN_OUT);
	if (!s->failed)
		hooks_record(s, r);
}

/* What the agent may forget, the server must not: it is durable, or nobody waits for it. */
void check_acknowledged(struct sim *s, const struct bt_command_key *key)
{
	uint32_t attempt = 0;
	if (key->deployment != s->deployment || bt_engine_phase(s->server.engine) == BT_PHASE_ENDED)
		return;
	enum bt_task_state state = bt_engine_task(s->server.engine, key->task, &attempt);
	enum bt_task_state open = key->verb == BT_DO ? BT_TASK_SENT : BT_TASK_UNDO_SENT;
	for (size_t i = s->store.n_records; state == open && attempt == key->attempt && i-- > 0;) {
		const struct bt_record *r = &s->store.records[i].r;
		if (r->kind == BT_RECORD_RESULT && bt_command_key_equal(&r->result.key, key))
			return; /* durable, and another pool on its way decides */
		if (i == 0)
			violated(s, "a result of task %u is acknowledged and not durable",
				key->task);
	}
}

/* Whatever waits for a result leaves again with the new token. */
static void check_resent(struct sim *s)
{
	struct bt_command *c;
	size_t n = bt_engine_outstanding(s->server.engine, &c);
	for (size_t i = 0; i < n; i++) {
		bool found = false;
		for (size_t k = s->store.n_rows; k-- > 0 && !found;)
			found = s->store.rows[k]->c.token == bt_engine_token(s->server.engine) &&
				bt_command_key_equal(&s->store.rows[k]->c.key, &c[i].key);
		if (!found)
			violated(s, "task %u was not sent again after a takeover", c[i].key.task);
	}
	free(c);
}

void check_server(struct sim *s)
{
	if (s->server.n_applied && s->store.n_records &&
		s->store.records[s->store.n_records - 1].r.kind == BT_RECORD_TOKEN)
		check_resent(s);
	if (s->server.n_applied != s->store.n_records)
		violated(s, "%zu records are applied, %zu are durable", s->server.n_applied,
			s->store.n_records);
}

/* ── the end: the world is what the outcome says ── */

static void check_rotation(struct sim *s)
{
	for (uint16_t i = 0; s->n_balancers && i < s->n_inst; i++)
		if (bt_engine_in_rotation(s->server.engine, i) != world_in(s, i))
			violated(s, "the engine takes %s to be %s rotation, and it is not",
				world_name(s, i), world_in(s, i) ? "out of" : "in");
}

/* Whoever asks through whichever balancer reaches the same instances. */
static void check_alike(struct sim *s)
{
	const struct balancer *was = s->balancers_at_start, *now = s->balancers;
	for (uint16_t b = 1; b < s->n_balancers && !s->own_host; b++)
		if (memcmp(now[b].in, now[0].in, sizeof now->in) != 0 &&
			(memcmp(was[b].in, was[0].in, sizeof was->in) == 0 || s->n_plans))
			violated(s, "%s and %s do not send to the same", s->on[0], s->on[b]);
}

static bool lives(const struct inst *i)
{
	return i->app == APP_HEALTHY || i->died;
}

static void check_done(struct sim *s, bool behind)
{
	if (s->purpose == BT_PLAN_RETIRE || (behind && !s->bundle))
		return;
	if (s->is_flow) {
		flows_done(s);
		return;
	}
	if (s->bundle) {
		bundles_done(s, behind);
		return;
	}
	int64_t serving = 0;
	for (uint16_t i = 0; i < s->n_inst; i++) {
		const struct inst *in = &s->inst[i];
		if (s->purpose == BT_PLAN_ADOPT && !s->outsider && in->app != APP_ABSENT &&
			!in->adopted)
			violated(s, "done, and %s is not adopted", world_name(s, i));
		if (world_in(s, i)) {
			serving++;
			if (!lives(in) || in->release != s->release)
				violated(s, "done, and %s in rotation runs release %u (%d)",
					world_name(s, i), in->release, (int)in->app);
		} else if (s->n_balancers && in->app != APP_ABSENT && !in->foreign &&
			   s->service.deploy.keep_warm_ms == 0 && s->purpose == BT_PLAN_DEPLOY &&
			   s->at_start[i].app != APP_ABSENT && world_was_in(s, i)) {
			violated(s, "done, and %s still runs release %u", world_name(s, i),
				in->release);
		}
	}
	if (s->n_balancers && !serving)
		violated(s, "done, and nothing is in rotation");
}

/* Undone step by step: everything is as it was. */
void check_as_before(struct sim *s)
{
	if (s->bundle)
		bundles_as_before(s);
	/* What a strategy put on for two instances stays as long as one of them is reached there;
	 * and nobody is put back where requests were not answered. */
	for (uint16_t h = 0; h < s->n_service_hosts; h++)
		if (s->vip[h] != s->vip_at_start[h] &&
			(!s->vip[h] || (s->is_flow && !world_host_was_in(s, h))))
			violated(s, "undone, and the address is %s the loopback of %s",
				s->vip[h] ? "on" : "off", s->host_names[h]);
	for (uint16_t i = 0; i < s->n_inst; i++) {
		const struct inst *now = &s->inst[i], *was = &s->at_start[i];
		/* A plan makes balancers alike that were not. */
		if (s->n_plans && world_in(s, i) != world_was_in(s, i))
			violated(s, "taken back, and %s is %s rotation", world_name(s, i),
				world_in(s, i) ? "in" : "out of");
		for (uint16_t b = 0; b < s->n_balancers && !s->n_plans; b++)
			if (s->balancers[b].in[i] != s->balancers_at_start[b].in[i])
				violated(s, "undone, and %s is %s rotation at %s", world_name(s, i),
					s->balancers[b].in[i] ? "in" : "out of", s->on[b]);
		if ((now->app == APP_ABSENT) != (was->app == APP_ABSENT) ||
			now->release != was->release)
			violated(s, "undone, and %s runs release %u instead of %u",
				world_name(s, i), now->release, was->release);
	}
}

static void check_rolled_back(struct sim *s)
{
	int64_t now = 0, was = 0;
	if (s->is_flow) {
		if (!s->outsider)
			check_as_before(s);
		return;
	}
	if (s->bundle) {
		bundles_rolled_back(s);
		return;
	}
	for (uint16_t i = 0; i < s->n_inst; i++) {
		const struct inst *in = &s->inst[i];
		bool in_now = world_in(s, i);
		was += s->own_host ? world_was_in(s, i) : s->balancers_at_start[0].in[i];
		if (s->service.deploy.strategy == BT_STRATEGY_BLUE_GREEN &&
			was > s->n_service_hosts)
			was = s->n_service_hosts; /* the slots of an interrupted cutover */
		now += in_now;
		bool own = in->release == s->at_start[i].release && s->at_start[i].app;
		if (in_now && in->release != s->target && !own)
			violated(s, "rolled back, and %s in rotation runs release %u",
				world_name(s, i), in->release);
		if (in_now && !lives(in))
			violated(s, "rolled back, and %s in rotation does not serve",
				world_name(s, i));
		if (s->n_balancers && !in_now && in->app != APP_ABSENT && !own &&
			in->release == s->release && s->purpose == BT_PLAN_DEPLOY)
			violated(s, "rolled back, and %s still runs release %u", world_name(s, i),
				in->release);
	}
	if (s->n_balancers && now < was && s->target)
		violated(s, "rolled back, and %lld are in rotation instead of %lld", (long long)now,
			(long long)was);
}

void check_end(struct sim *s)
{
	enum bt_end end = bt_engine_end(s->server.engine);
	bool behind = end == BT_END_DONE && strstr(bt_engine_reason(s->server.engine), "behind");
	trace(s, "ended: %s %s", bt_end_name(end), bt_engine_reason(s->server.engine));
	world_requests(s);
	hooks_end(s, end);
	switch (end) {
	case BT_END_DONE:
		counters[behind ? C_END_DONE_BEHIND : C_END_DONE]++;
		check_rotation(s);
		check_alike(s);
		check_done(s, behind);
		break;
	case BT_END_ROLLED_BACK:
		counters[s->n_plans ? C_END_ROLLED_BACK_PLAN : C_END_ROLLED_BACK_UNDO]++;
		if (s->is_flow)
			counters[s->n_plans ? C_FLOW_BACK : C_FLOW_UNDONE]++;
		check_rotation(s);
		check_alike(s);
		if (s->n_plans)
			check_rolled_back(s);
		else
			check_as_before(s);
		break;
	case BT_END_REFUSED:
		counters[C_END_REFUSED]++;
		check_as_before(s);
		break;
	case BT_END_HALTED:
		counters[C_END_HALTED]++;
		counters[C_BUNDLE_HALTED] += s->bundle;
		check_rotation(s);
		break;
	default:
		counters[C_END_PARKED]++;
		if (!s->was_parked)
			violated(s, "ended as parked without having been parked");
		break;
	}
	if (!s->faulted && !s->bad_plan && !s->outsider && s->opt.crash_after < 0 && !s->aborted &&
		end != BT_END_DONE)
		violated(s, "nothing went wrong, and it ended as %s: %s", bt_end_name(end),
			bt_engine_reason(s->server.engine));
}
