/* Pools: what a balancer is known to send to, and what is on its way to it.
 *
 * A Switch carries the whole pool, so lanes that switch at the same balancer build on each other:
 * a newer generation holds the older ones' changes. What is intended is therefore the newest pool
 * on its way, or the confirmed one; and when one fails it is taken off the list, and the intent
 * has fallen back by itself. A pool whose outcome is unknown stays on the list until a newer one
 * is confirmed: until then it may still be what the balancer does. */
#include "engine/state.h"

#include "base/str.h"

#include <string.h>

/* The newest on its way; NULL: what is confirmed is all there is. */
static const struct bt_pool_sent *newest(const struct bt_state *s, uint16_t balancer)
{
	const struct bt_pool_sent *found = NULL;
	for (size_t i = 0; i < s->n_sent; i++)
		if (s->sent[i].balancer == balancer &&
			(!found || s->sent[i].generation >= found->generation))
			found = &s->sent[i];
	return found;
}

const uint8_t *bt_pool_intended(const struct bt_state *s, uint16_t balancer)
{
	const struct bt_pool_sent *p = newest(s, balancer);
	return p ? p->map : s->balancers[balancer].map;
}

/* Routes to one instance move once: as soon as the first instance that stays is in rotation, they
 * go there, and stay. Until then they stay where they are; and where that one has to leave first
 * (it is alone, or it was down), the one that leaves last takes them. */
uint16_t bt_pool_one(const struct bt_state *s, uint16_t balancer, const uint8_t *map)
{
	const struct bt_plan *p = s->plan;
	const struct bt_pool_sent *sent = newest(s, balancer);
	uint16_t now = sent ? sent->one : s->balancers[balancer].one, stays = BT_NONE,
		 last = BT_NONE;
	if (!p->balancers[balancer].routes_one)
		return BT_NONE;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	uint32_t *leaves = BT_ARENA_ARRAY(a, uint32_t, p->n_instances); /* 0: not at all */
	for (size_t i = 0; i < s->n_plan_tasks; i++) {
		const struct bt_task *t = s->tasks[i].task;
		if (t->kind != BT_TASK_SWITCH || t->balancer != balancer ||
			s->tasks[i].state != BT_TASK_WAITING)
			continue;
		for (size_t k = 0; k < t->n_out; k++)
			leaves[t->out[k]] = (uint32_t)i + 1;
	}
	for (uint16_t i = 0; i < p->n_instances; i++) {
		if (!map[i])
			continue;
		bool good = !leaves[i] && s->running[i] == p->release;
		if (good && (stays == BT_NONE || i == now || BT_BUG(ONE_MOVES_AGAIN)))
			stays = i;
		if (last == BT_NONE || leaves[i] - 1 > leaves[last] - 1) /* 0 wraps: it is never */
			last = i;
	}
	if (stays != BT_NONE)
		return stays;
	return now != BT_NONE && map[now] ? now : last;
}

bool bt_pool_may_hold(const struct bt_state *s, uint16_t balancer, uint16_t instance)
{
	if (s->balancers[balancer].map[instance])
		return true;
	for (size_t i = 0; i < s->n_sent; i++)
		if (s->sent[i].balancer == balancer && s->sent[i].map[instance])
			return true;
	return false;
}

/* Does the pool have what the task's last command changed? */
static bool includes(const uint8_t *map, const struct bt_task_run *t)
{
	const struct bt_switch_run *m = t->moves;
	for (size_t i = 0; i < m->n_in; i++)
		if (!map[m->in[i]])
			return false;
	for (size_t i = 0; i < m->n_out; i++)
		if (map[m->out[i]])
			return false;
	return true;
}

void bt_pool_begin(struct bt_state *s)
{
	const struct bt_plan *p = s->plan, *old = s->before ? s->before->plan : NULL;
	for (size_t b = 0; b < p->n_balancers; b++) {
		struct bt_balancer_run *run = &s->balancers[b];
		const struct bt_plan_balancer *pb = &p->balancers[b];
		uint8_t *map = bt_arena_alloc(s->arena, p->n_instances);
		size_t n = 0;
		for (size_t i = 0; i < p->n_instances; i++)
			n += map[i] = p->instances[i].expect_in &&
				      !bt_state_in(pb->lacks, pb->n_lacks, (uint16_t)i);
		run->highest = run->confirmed = pb->expect_generation;
		run->one = pb->expect_one;
		run->map = map;
		run->n_at_start = n;
		memcpy(s->served + b * p->n_instances, map, p->n_instances);
		/* A plan in the same run: generations go on, and what served and was not drained
		 * is still not drained. */
		for (size_t o = 0; old && o < old->n_balancers; o++) {
			const struct bt_plan_balancer *ob = &old->balancers[o];
			if (!bt_streq(ob->name, pb->name) ||
				!bt_streq(old->hosts[ob->host], p->hosts[pb->host]))
				continue;
			if (s->before->balancers[o].highest > run->highest)
				run->highest = s->before->balancers[o].highest;
			for (size_t i = 0; i < p->n_instances; i++)
				for (size_t k = 0; k < old->n_instances; k++)
					if (s->before->served[o * old->n_instances + k] &&
						bt_streq(p->instances[i].slot,
							old->instances[k].slot) &&
						bt_streq(p->hosts[p->instances[i].host],
							old->hosts[old->instances[k].host]))
						s->served[b * p->n_instances + i] = 1;
		}
	}
}

static const uint16_t *pick(struct bt_state *s, const uint16_t *list, size_t n, const uint8_t *map,
	bool in_map, const uint8_t *and_map, bool in_and, size_t *ret_n)
{
	uint16_t *picked = bt_arena_alloc(s->arena, n * sizeof *picked);
	size_t k = 0;
	for (size_t i = 0; i < n; i++)
		if (!!map[list[i]] == in_map && (!and_map || !!and_map[list[i]] == in_and))
			picked[k++] = list[i];
	*ret_n = k;
	return picked;
}

void bt_pool_sent(struct bt_state *s, struct bt_task_run *t)
{
	const struct bt_command *c = t->command;
	size_t n_inst = s->plan->n_instances;
	const uint8_t *before = bt_pool_intended(s, c->balancer);
	uint8_t *map = bt_arena_alloc(s->arena, n_inst);
	for (size_t i = 0; i < c->n_pool; i++) {
		map[c->pool[i]] = 1;
		s->served[c->balancer * n_inst + c->pool[i]] = 1;
	}
	struct bt_switch_run *m = bt_arena_memdup(s->arena, t->moves, sizeof *m);
	if (c->key.verb == BT_DO) {
		const struct bt_task *task = t->task;
		m->in = pick(s, task->in, task->n_in, map, true, NULL, false, &m->n_in);
		m->out = pick(s, task->out, task->n_out, map, false, NULL, false, &m->n_out);
		if (c->key.attempt == 1) { /* a later one may see what this one left */
			bool wrong = BT_BUG(UNDO_WRONG_STATE);
			m->undo_out = pick(s, m->in, m->n_in, map, true, wrong ? NULL : before,
				false, &m->n_undo_out);
			m->undo_in = pick(s, m->out, m->n_out, map, false, wrong ? NULL : before,
				true, &m->n_undo_in);
		}
	} else {
		m->in = m->undo_in;
		m->n_in = m->n_undo_in;
		m->out = m->undo_out;
		m->n_out = m->n_undo_out;
	}
	t->moves = m;
	if (c->generation > s->balancers[c->balancer].highest)
		s->balancers[c->balancer].highest = c->generation;
	BT_STATE_ROOM(s, sent, n_sent, cap_sent);
	s->sent[s->n_sent++] = (struct bt_pool_sent){
		c->balancer, c->generation, map, c->one, (size_t)(t - s->tasks)};
	t->refused_late = false;
}

static void forget(struct bt_state *s, uint16_t balancer, uint64_t from, uint64_t to)
{
	size_t n = 0;
	for (size_t i = 0; i < s->n_sent; i++) {
		const struct bt_pool_sent *p = &s->sent[i];
		if (p->balancer != balancer || p->generation < from || p->generation > to)
			s->sent[n++] = *p;
	}
	s->n_sent = n;
}

static bool newer_on_its_way(const struct bt_state *s, const struct bt_task_run *t)
{
	for (size_t i = 0; i < s->n_sent; i++)
		if (s->sent[i].balancer == t->command->balancer &&
			s->sent[i].generation > t->command->generation &&
			includes(s->sent[i].map, t))
			return true;
	return false;
}

static void settle(struct bt_task_run *t, bool done)
{
	bool undo = t->command->key.verb == BT_UNDO;
	t->refused_late = false;
	t->state = done ? (undo ? BT_TASK_UNDONE : BT_TASK_DONE)
			: (undo ? BT_TASK_UNDO_FAILED : BT_TASK_FAILED);
}

/* A newer pool was confirmed, or is off the list: those who hung on it know now. */
static void settle_others(struct bt_state *s, uint16_t balancer)
{
	const struct bt_balancer_run *b = &s->balancers[balancer];
	for (size_t i = 0; i < s->n_tasks; i++) {
		struct bt_task_run *t = &s->tasks[i];
		if (t->task->kind != BT_TASK_SWITCH || t->command->balancer != balancer ||
			!bt_state_outstanding(t))
			continue;
		if (t->command->generation <= b->confirmed && includes(b->map, t))
			settle(t, true);
		else if (t->refused_late && !newer_on_its_way(s, t))
			settle(t, false);
	}
}

static void confirm(struct bt_state *s, const struct bt_command *c)
{
	struct bt_balancer_run *b = &s->balancers[c->balancer];
	for (size_t i = 0; i < s->n_sent; i++)
		if (s->sent[i].balancer == c->balancer && s->sent[i].generation == c->generation) {
			b->map = s->sent[i].map;
			b->one = s->sent[i].one;
		}
	b->confirmed = c->generation;
	forget(s, c->balancer, 0, c->generation);
}

void bt_pool_result(struct bt_state *s, struct bt_task_run *t, enum bt_outcome o)
{
	const struct bt_command *c = t->command;
	struct bt_balancer_run *b = &s->balancers[c->balancer];
	if (o == BT_OUTCOME_DONE) {
		settle(t, true);
		if (c->generation > b->confirmed)
			confirm(s, c);
	} else if (o == BT_OUTCOME_UNKNOWN) {
		t->state = c->key.verb == BT_UNDO ? BT_TASK_UNDO_FAILED : BT_TASK_UNKNOWN;
	} else {
		if (!BT_BUG(INTENT_KEPT))
			forget(s, c->balancer, c->generation, c->generation);
		t->refused_late = newer_on_its_way(s, t);
		if (!t->refused_late)
			settle(t, false);
	}
	settle_others(s, c->balancer);
}
