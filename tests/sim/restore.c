/* The server's disk is lost in the middle of a run, and a backup from some moment before is put
 * back: its tokens and numbers are older than what agents have seen, and its journal of the run is
 * not followed. What agents are in the middle of goes on. As the real server does (restored.c): a
 * new store id, tokens raised, numbers above what agents report; the run is over; and when all
 * agents are there and change nothing any more, the service is settled on what serves. */
#include "sim.h"

#include <string.h>

#define RAISED 1000

static bool changes_something(const struct agent *a)
{
	for (size_t i = 0; i < a->n_tasks; i++)
		if (bt_task_info(a->tasks[i]->c->kind)->effect)
			return true;
	return false;
}

static bool quiet(const struct sim *s)
{
	for (uint16_t h = 0; h < s->n_hosts; h++) {
		const struct agent *a = &s->agents[h];
		if (!a->up || a->partition_until_ms > s->now_ms)
			return false;
		if (!BT_BUG(RESTORED_BUSY) && changes_something(a))
			return false;
	}
	return true;
}

void restore_begin(struct sim *s)
{
	struct server *v = &s->server;
	if (!s->storm || s->restored || !v->up || !s->store.n_records ||
		bt_engine_phase(v->engine) == BT_PHASE_ENDED)
		return;
	counters[C_FAULT_RESTORED]++;
	s->restored = s->restoring = true;
	server_crash(s);
	v->incarnation++; /* that one does not come back */
	trace(s, "its store is lost: a backup is put back");
	at(s, s->now_ms + between(s, 50, 20000), EV_RESTORED, 0, 0, 0, NULL);
}

/* The release that serves, alone and known; else what served before the run; 0: neither. */
static uint32_t serving(const struct sim *s)
{
	uint32_t found = 0;
	for (uint16_t i = 0; i < s->n_inst; i++) {
		const struct inst *in = &s->inst[i];
		bool serves = s->n_balancers ? world_in(s, i) : in->app == APP_HEALTHY;
		if (!serves || in->app == APP_ABSENT)
			continue;
		if (found && found != in->release)
			return s->target;
		found = in->release;
	}
	return found == FOREIGN ? 0 : found;
}

/* Hello: another store, so the cursor begins anew. */
void restore_greet(struct sim *s, uint16_t h)
{
	struct line l = {.e = {.kind = BT_LEDGER_STORE, .store = "restored"}};
	s->agents[h].cursor = 0;
	agent_write(s, h, &l);
}

void restore_go_on(struct sim *s)
{
	if (!s->restoring)
		return;
	if (!quiet(s)) {
		at(s, s->now_ms + 200, EV_RESTORED, 0, 0, 0, NULL);
		return;
	}
	s->restoring = false;
	for (size_t i = 0; i < s->store.n_rows; i++) {
		s->store.rows[i]->seq = 0;
		s->store.rows[i]->settled = true;
	}
	for (uint16_t h = 0; h < s->n_hosts; h++) {
		restore_greet(s, h);
		s->server.outbox[h] = bt_outbox_new(0);
	}
	s->token = (uint64_t)between(s, 1, (int64_t)s->token);
	if (!BT_BUG(RESTORED_TOKENS))
		s->token += RAISED;
	if (!BT_BUG(RESTORED_NUMBER))
		s->deployment++;
	s->server.up = true;
	uint32_t release = serving(s);
	trace(s, "the restored server settles on release %u", release);
	if (release)
		scenario_settle(s, release);
	else
		s->ended = true; /* a person deploys anew */
}
