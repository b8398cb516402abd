/* What must hold before a command that takes something away may leave. */
#include "engine/state.h"

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
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
	int64_t now = 0, after = 0;
	for (uint16_t i = 0; i < s->plan->n_instances; i++) {
		now += b->map[i];
		after += map[i] && (b->map[i] || bt_state_in(in, n_in, i));
	}
	int64_t limit = smaller(s->plan->min_in_rotation, now);
	if (verb == BT_UNDO)
		limit = smaller(limit, (int64_t)b->n_at_start);
	return after >= limit;
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
