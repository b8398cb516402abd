/* The server's journal: what is durable of a run, and the engine that it replays to. */
#include "sim.h"

#include "base/json.h"

#include <string.h>

static const uint16_t *keep_list(struct sim *s, const uint16_t *list, size_t n)
{
	return n ? bt_arena_memdup(s->arena, list, n * sizeof *list) : NULL;
}

struct bt_command journal_command(struct sim *s, const struct bt_command *c)
{
	struct bt_command k = *c;
	k.pool = keep_list(s, c->pool, c->n_pool);
	k.out = keep_list(s, c->out, c->n_out);
	return k;
}

/* The engine owns the plans it runs; the simulator keeps the originals for the whole run and lends
 * it copies of the outermost struct. */
static struct bt_plan *lend(const struct bt_plan *original)
{
	struct bt_arena *a = bt_arena_new();
	struct bt_plan *p = bt_arena_memdup(a, original, sizeof *original);
	p->arena = a;
	return p;
}

struct bt_plan *journal_plan(struct sim *s, struct bt_plan *p)
{
	s->plans = bt_realloc(s->plans, (s->n_originals + 1) * sizeof *s->plans);
	s->plans[s->n_originals++] = p;
	return lend(p);
}

static const struct bt_plan *original(const struct sim *s, const struct bt_plan *lent)
{
	for (size_t i = 0; lent && i < s->n_originals; i++)
		if (s->plans[i]->stages == lent->stages)
			return s->plans[i];
	return NULL;
}

void journal_add(struct sim *s, const struct bt_record *r)
{
	struct store *st = &s->store;
	if (st->n_records == st->cap_records) {
		st->cap_records = st->cap_records ? st->cap_records * 2 : 64;
		st->records = bt_realloc(st->records, st->cap_records * sizeof *st->records);
	}
	struct stored *d = &st->records[st->n_records++];
	*d = (struct stored){.r = *r};
	d->r.command = journal_command(s, &r->command);
	d->r.plan = original(s, r->plan);
	d->r.text = bt_arena_strdup(s->arena, r->text);
	d->r.result.detail = bt_arena_strdup(s->arena, r->result.detail);
}

static struct bt_record through_json(struct sim *s, const struct bt_record *r)
{
	BT_JSON json_t *j = bt_record_to_json(r);
	BT_FREE char *text = bt_json_dump(j);
	BT_JSON json_t *back = NULL;
	struct bt_record ret = {0};
	struct bt_err err = {0};
	if (bt_json_parse(text, strlen(text), 1 << 24, &back, &err) < 0 ||
		bt_record_from_json(back, s->arena, &ret, &err) < 0)
		violated(s, "a record cannot be read back: %s", err.text);
	return ret;
}

void journal_replay(struct sim *s)
{
	struct server *v = &s->server;
	bool json = s->opt.json || s->seed % 5 == 0;
	counters[json ? C_ENGINE_REPLAYED_JSON : C_ENGINE_REPLAYED]++;
	v->engine = bt_engine_free(v->engine);
	v->engine = bt_engine_new(s->deployment);
	v->n_applied = 0;
	for (size_t i = 0; i < s->store.n_records && !s->failed; i++) {
		struct bt_record r = s->store.records[i].r;
		struct bt_err err = {0};
		if (json)
			r = through_json(s, &r);
		else if (r.kind == BT_RECORD_PLAN)
			r.plan = lend(r.plan);
		if (!s->failed && bt_engine_apply(v->engine, &r, &err) < 0)
			violated(s, "replay: %s", err.text);
		v->n_applied++;
	}
}
