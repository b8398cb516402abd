/* Any bytes as a journal: a record either follows or is refused, and whatever state it leads to can
 * be gone on from. */
#include "fuzz.h"

#include "base/json.h"
#include "engine/engine.h"

#include <string.h>

static void step(struct bt_engine *e, struct bt_event ev)
{
	struct bt_update u;
	struct bt_err err = {0};
	ev.now_ms = bt_engine_now(e) / 2 + 400000;
	if (bt_engine_step(e, &ev, &u, &err) < 0)
		return;
	for (size_t i = 0; i < u.n_records; i++)
		FUZZ_CHECK(bt_engine_apply(e, &u.records[i], &err) == 0);
	bt_update_done(&u);
}

static void go_on(struct bt_engine *e)
{
	if (!bt_engine_plan(e))
		return;
	struct bt_command *c = NULL;
	size_t n = bt_engine_outstanding(e, &c);
	for (size_t i = 0; i < n && i < 8; i++) {
		struct bt_result r = {.key = c[i].key,
			.outcome = (enum bt_outcome)(i % 4),
			.prior = {.known = true}};
		step(e, (struct bt_event){.kind = BT_EVENT_RESULT, .result = &r});
	}
	free(c);
	step(e, (struct bt_event){.kind = BT_EVENT_TAKEOVER, .token = bt_engine_token(e) + 1});
	step(e, (struct bt_event){.kind = BT_EVENT_TIMER});
	step(e, (struct bt_event){.kind = BT_EVENT_OPERATOR, .op = BT_OP_RESUME});
	step(e, (struct bt_event){.kind = BT_EVENT_OPERATOR, .op = BT_OP_ABORT});
	step(e, (struct bt_event){.kind = BT_EVENT_TIMER});
}

static bool replay_line(struct bt_engine *e, const char *line, size_t n)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_JSON json_t *j = NULL;
	struct bt_record r = {0};
	struct bt_err err = {0};
	if (bt_json_parse(line, n, 1 << 20, &j, &err) < 0 ||
		bt_record_from_json(j, a, &r, &err) < 0) {
		FUZZ_CHECK(err.text[0]);
		return false;
	}
	BT_JSON json_t *back = bt_record_to_json(&r);
	FUZZ_CHECK(back);
	if (bt_engine_apply(e, &r, &err) < 0) {
		FUZZ_CHECK(err.text[0]);
		bt_plan_free((struct bt_plan *)(uintptr_t)r.plan);
		return false;
	}
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bt_engine *e = bt_engine_new(7);
	const char *p = (const char *)data, *end = p + size;
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((nl ? nl : end) - p);
		if (!replay_line(e, p, n))
			break;
		p += n + 1;
	}
	go_on(e);
	bt_engine_free(e);
	return 0;
}
