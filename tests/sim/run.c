/* One run: events until it has ended and nothing runs any more. */
#include "sim.h"

#include "base/json.h"

#include <string.h>

static void crash_agent(struct sim *s, uint16_t h, bool forced)
{
	if (!(s->storm || forced) || !s->agents[h].up)
		return;
	counters[C_FAULT_AGENT_CRASH]++;
	s->faulted |= !forced;
	agent_crash(s, h);
}

static void crash_server(struct sim *s, bool forced)
{
	if (!(s->storm || forced) || !s->server.up || !s->store.n_records)
		return;
	counters[C_FAULT_SERVER_CRASH]++;
	s->faulted |= !forced;
	server_crash(s);
}

static void wish(struct sim *s, enum bt_operator op)
{
	static const enum counter ops[] = {
		[BT_OP_PAUSE] = C_OPERATOR_PAUSE,
		[BT_OP_RESUME] = C_OPERATOR_RESUME,
		[BT_OP_ABORT] = C_OPERATOR_ABORT,
		[BT_OP_PROMOTE] = C_OPERATOR_PROMOTE,
		[BT_OP_ROLLBACK] = C_OPERATOR_ROLLBACK,
		[BT_OP_APPROVE] = C_OPERATOR_APPROVE,
		[BT_OP_REJECT] = C_OPERATOR_REJECT,
	};
	s->operator_waits = false;
	counters[ops[op]]++;
	s->aborted |= op == BT_OP_ABORT || op == BT_OP_ROLLBACK;
	if (s->phase == BT_PHASE_PARKED)
		bundles_looked_after(s);
	trace(s, "operator: %s", bt_operator_name(op));
	server_operator(s, op);
}

/* An operator looks at what stands still. */
static void look_after(struct sim *s)
{
	if (!s->server.up || !s->server.engine || s->operator_waits)
		return;
	enum bt_phase p = bt_engine_phase(s->server.engine);
	enum bt_operator op = BT_OP_RESUME;
	if (p != BT_PHASE_PAUSED && p != BT_PHASE_PARKED && !hooks_answer(s, &op))
		return;
	if (p == BT_PHASE_PARKED) {
		/* A bundle's way back parks for each host whose scripts fail. */
		if (!s->storm && ++s->resumes > (s->bundle ? 40 : 12))
			violated(s, "parked again and again: %s",
				bt_engine_reason(s->server.engine));
		if (s->aborts_when_parked)
			op = BT_OP_ABORT;
		else if (s->resumes % 3 == 2)
			op = BT_OP_ROLLBACK;
	}
	s->operator_waits = true;
	at(s, s->now_ms + between(s, 1000, 60000), EV_OPERATOR, 1, 0, op, NULL);
}

static void commands(struct sim *s, const struct ev *e)
{
	struct row *const *rows = e->p;
	struct agent *a = &s->agents[e->host];
	if (e->arg >= 0 && rows[0]->seq == 0)
		return; /* of before a restore: its connection ended with that server */
	if (e->arg >= 0) {
		agent_commands(s, e->host, rows, (size_t)e->arg);
		return;
	}
	/* A replaced server's: only where the agent can know that it was replaced. */
	if (!a->up || bt_ledger_token(a->ledger, "app") <= rows[0]->c.token)
		return;
	counters[C_FAULT_ZOMBIE]++;
	agent_commands(s, e->host, rows, 1);
}

static void agent_event(struct sim *s, const struct ev *e)
{
	struct agent *a = &s->agents[e->host];
	switch (e->kind) {
	case EV_COMMANDS:
		commands(s, e);
		break;
	case EV_ACK:
		agent_acked(s, e->host, e->p);
		break;
	case EV_AGENT_UP:
		if (!a->up && e->stamp == a->incarnation)
			agent_boot(s, e->host);
		break;
	case EV_AGENT_TICK:
		if (a->up && e->stamp == a->incarnation)
			agent_tick(s, e->host);
		break;
	case EV_SYNC:
		if (a->up && e->stamp == a->incarnation)
			agent_synced(s, e->host, (size_t)e->arg);
		break;
	case EV_TASK:
		if (a->up && e->stamp == a->incarnation)
			task_go(s, e->host, e->p);
		break;
	case EV_CRASH_AGENT:
		crash_agent(s, e->host, e->arg);
		break;
	case EV_PARTITION:
		if (s->storm) {
			counters[C_FAULT_PARTITION]++;
			s->faulted = true;
			trace(s, "%s is out of reach for %lld ms", s->host_names[e->host],
				(long long)e->arg);
			a->partition_until_ms = s->now_ms + e->arg;
		}
		break;
	default:
		break;
	}
}

static void event(struct sim *s, const struct ev *e)
{
	const struct answer *answer = e->p;
	switch (e->kind) {
	case EV_POLL:
		if ((e->p != NULL) == (s->restored && !s->restoring))
			server_poll(s, e->host, (uint64_t)e->arg);
		break;
	case EV_RESULT:
		server_result(s, e->host, &answer->r, answer->seen);
		break;
	case EV_COMMIT:
		if (s->server.up && e->stamp == s->server.incarnation)
			server_commit(s);
		break;
	case EV_TIMER:
		server_timer(s, e->stamp);
		break;
	case EV_SERVER_UP:
		if (!s->server.up && e->stamp == s->server.incarnation)
			server_boot(s);
		break;
	case EV_APP:
		world_app(s, e->host, e->stamp);
		break;
	case EV_SCRIPT:
		bundles_script(s, e->p, (uint16_t)e->arg);
		break;
	case EV_RESTORE:
		restore_begin(s);
		break;
	case EV_RESTORED:
		restore_go_on(s);
		break;
	case EV_OPERATOR:
		wish(s, (enum bt_operator)e->arg);
		break;
	case EV_CRASH_SERVER:
		crash_server(s, e->arg);
		break;
	case EV_STORM_OVER:
		if (e->stamp != (uint32_t)s->deployment)
			break;
		trace(s, "faults cease");
		s->storm = false;
		for (uint16_t h = 0; h < s->n_hosts; h++)
			s->agents[h].partition_until_ms = 0;
		break;
	default:
		agent_event(s, e);
		break;
	}
}

static bool over(const struct sim *s)
{
	if (!s->server.up || !s->server.engine ||
		bt_engine_phase(s->server.engine) != BT_PHASE_ENDED)
		return false;
	for (uint16_t h = 0; h < s->n_hosts; h++)
		if (!s->agents[h].up || !agent_quiet(s, h))
			return false;
	return true;
}

static void write_journal(struct sim *s)
{
	for (size_t i = 0; i < s->store.n_records; i++) {
		BT_JSON json_t *j = bt_record_to_json(&s->store.records[i].r);
		BT_FREE char *text = bt_json_dump(j);
		fprintf(s->opt.journal, "%s\n", text);
	}
}

static void finish(struct sim *s)
{
	server_free(s);
	for (uint16_t h = 0; h < s->n_hosts; h++) {
		bt_ledger_free(s->agents[h].ledger);
		free(s->agents[h].lines);
		free(s->agents[h].tasks);
	}
	free(s->heap);
	bt_arena_free(s->arena);
}

bool run(uint64_t seed, const struct options *o, char why[512], uint64_t *ret_effects,
	enum bt_end *ret_end)
{
	struct sim *s = bt_calloc(1, sizeof *s);
	struct ev e;
	s->seed = seed;
	s->rng = seed * 0x2545f4914f6cdd1du + 12345;
	s->opt = *o;
	s->arena = bt_arena_new();
	s->token = 1;
	scenario(s);
	while (!s->ended && !s->failed && next_event(s, &e)) {
		event(s, &e);
		look_after(s);
		if (over(s) && !s->failed) {
			check_end(s);
			enum bt_end end = bt_engine_end(s->server.engine);
			if (s->runs_left && end != BT_END_PARKED && !s->failed)
				scenario_next(s);
			else
				s->ended = true;
		} else if (s->now_ms > s->horizon_ms) {
			violated(s, "it does not end");
		}
	}
	if (ret_effects)
		*ret_effects = s->n_effects;
	if (ret_end)
		*ret_end = s->server.engine ? bt_engine_end(s->server.engine) : BT_END_NONE;
	if (s->opt.journal && !s->failed)
		write_journal(s);
	bool good = !s->failed;
	memcpy(why, s->why, sizeof s->why);
	finish(s);
	free(s);
	return good;
}
