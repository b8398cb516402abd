/* What must hold before a command that takes something away may leave. */
#include "engine/state.h"

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Where each balancer knows its own host only, all of them together are the pool; what another
 * one is about to take out does not count any more. */
static void add_other(const struct bt_state *s, uint16_t balancer, int64_t *now, int64_t *after,
	int64_t *at_start)
{
	const struct bt_balancer_run *b = &s->balancers[balancer];
	const uint8_t *intended = bt_pool_intended(s, balancer);
	for (uint16_t i = 0; i < s->plan->n_instances; i++) {
		*now += b->map[i];
		*after += b->map[i] && intended[i];
	}
	*at_start += (int64_t)b->n_at_start;
}

/* Whoever is put in by another Switch that is not confirmed yet does not count. Where there are
 * fewer than the minimum already (one is out for maintenance, a rollback of half a rollout), what
 * makes it no worse may be; and an undo may go back to what was there before. */
bool bt_guard_switch(const struct bt_state *s, uint16_t balancer, const uint8_t *map,
	const uint16_t *in, size_t n_in, size_t n_out, enum bt_verb verb)
{
	const struct bt_balancer_run *b = &s->balancers[balancer];
	if (n_out == 0 || BT_BUG(NO_MIN_GUARD))
		return true;
	int64_t now = 0, after = 0, at_start = (int64_t)b->n_at_start;
	for (uint16_t i = 0; i < s->plan->n_instances; i++) {
		now += b->map[i];
		after += map[i] && (b->map[i] || bt_state_in(in, n_in, i));
	}
	bool one_pool = s->plan->balancers[balancer].own_host && !BT_BUG(HOSTS_NOT_SUMMED);
	for (uint16_t o = 0; one_pool && o < s->plan->n_balancers; o++)
		if (o != balancer)
			add_other(s, o, &now, &after, &at_start);
	int64_t limit = smaller(s->plan->min_in_rotation, now);
	if (verb == BT_UNDO)
		limit = smaller(limit, at_start);
	return after >= limit;
}

/* What takes its host's address off has the same to wait for, of every instance that is reached
 * there; and who is put in is reached there from the first request on. An undo may put back who was
 * in without it. */
bool bt_guard_vip(const struct bt_state *s, const uint16_t *in, size_t n_in, enum bt_verb verb)
{
	const struct bt_plan *p = s->plan;
	for (size_t i = 0; i < n_in && !BT_BUG(IN_WITHOUT_VIP); i++) {
		uint16_t host = p->instances[in[i]].host;
		bool was_so = p->instances[in[i]].expect_in &&
			      bt_state_in(p->without_vip, p->n_without_vip, host);
		if (s->vip_off[host] & VIP_OFF && !(verb == BT_UNDO && was_so))
			return false;
	}
	return true;
}

const char *bt_guard_stops(const struct bt_state *s, const uint16_t *list, size_t n,
	uint16_t *ret_instance, bool *ret_drains)
{
	const char *drain = NULL;
	uint16_t balancer;
	*ret_drains = false;
	for (size_t i = 0; i < n; i++) {
		const char *why = bt_guard_stop(s, list[i], &balancer);
		if (!why || (drain && balancer != BT_NONE))
			continue;
		*ret_instance = list[i];
		if (balancer == BT_NONE)
			return why;
		drain = why;
	}
	*ret_drains = drain != NULL;
	return drain;
}

const char *bt_guard_stop(const struct bt_state *s, uint16_t instance, uint16_t *ret_balancer)
{
	*ret_balancer = BT_NONE;
	for (uint16_t b = 0; b < s->plan->n_balancers; b++)
		if (bt_pool_may_hold(s, b, instance))
			return BT_BUG(NO_STOP_GUARD) ? NULL : "it is not confirmed out of rotation";
	for (uint16_t b = 0; b < s->plan->n_balancers; b++)
		if (s->served[b * s->plan->n_instances + instance] && !BT_BUG(NO_DRAIN_GUARD)) {
			*ret_balancer = b;
			return "it was in rotation and has not been drained since";
		}
	return NULL;
}
