/* Events are projections of journal records: what the page, the client and metrics read. */
#include "base/clock.h"
#include "server/run.h"

#include <string.h>

static json_t *task_json(const struct bt_plan *p, const struct bt_task *t)
{
	BT_STR struct bt_str words = {0};
	json_t *j = json_pack(
		"{s:I, s:s}", "id", (json_int_t)t->id, "kind", bt_task_info(t->kind)->name);
	if (t->host < p->n_hosts)
		json_object_set_new(j, "host", json_string(p->hosts[t->host]));
	if (t->instance < p->n_instances) {
		const struct bt_plan_instance *i = &p->instances[t->instance];
		BT_FREE char *name = bt_asprintf("%s/%s", p->hosts[i->host], i->slot);
		json_object_set_new(j, "instance", json_string(name));
	}
	if (t->step)
		json_object_set_new(j, "step", json_string(t->step));
	bt_plan_task_words(p, t, &words);
	json_object_set_new(j, "words", json_string(bt_str_get(&words)));
	return j;
}

json_t *bt_project_task(const struct bt_plan *p, uint32_t id)
{
	const struct bt_task *t = p ? bt_plan_task(p, id, NULL) : NULL;
	return t ? task_json(p, t) : NULL;
}

/* Of a command, also of the engine's own tasks, which no plan has. */
static json_t *command_task(const struct bt_plan *p, const struct bt_command *c)
{
	const struct bt_task *t = p ? bt_plan_task(p, c->key.task, NULL) : NULL;
	if (t)
		return task_json(p, t);
	struct bt_task own = {.id = c->key.task,
		.kind = c->kind,
		.host = c->host,
		.instance = c->instance,
		.balancer = c->balancer,
		.release = c->release,
		.out = c->out,
		.n_out = c->n_out,
		.in = c->pool,
		.n_in = c->n_pool};
	return p && c->host < p->n_hosts ? task_json(p, &own) : NULL;
}

static void put_place(json_t *j, const struct bt_plan *p, const struct bt_record *r, bool lane)
{
	if (!p || r->stage >= p->n_stages)
		return;
	const struct bt_stage *st = &p->stages[r->stage];
	json_object_set_new(j, "stage", json_string(st->name));
	if (lane && r->lane < st->n_lanes)
		json_object_set_new(j, "lane", json_string(st->lanes[r->lane].name));
}

static void put_command(json_t *j, const struct bt_plan *p, const struct bt_record *r)
{
	struct bt_command c = r->command;
	bool result = r->kind == BT_RECORD_RESULT;
	if (result)
		c.key = r->result.key;
	/* A result names its task; of the engine's own ones only their sending told the place. */
	bool known = !result || (p && bt_plan_task(p, c.key.task, NULL));
	const char *name = bt_task_info(c.kind)->name;
	json_t *task = known ? command_task(p, &c)
			     : json_pack("{s:I, s:s, s:s}", "id", (json_int_t)c.key.task, "kind",
				       name, "words", name);
	put_place(j, p, r, true);
	json_object_set_new(
		j, "task", task ? task : json_pack("{s:I}", "id", (json_int_t)c.key.task));
	json_object_set_new(j, "verb", json_string(bt_verb_name(c.key.verb)));
	json_object_set_new(j, "attempt", json_integer(c.key.attempt));
}

static const char *outcome_of(const struct bt_plan *p, const struct bt_result *r)
{
	const struct bt_task *t = p ? bt_plan_task(p, r->key.task, NULL) : NULL;
	bool failed = r->outcome == BT_OUTCOME_DONE && r->key.verb == BT_DO &&
		      bt_plan_drain_fails(p, t, r->drained);
	return bt_outcome_name(failed ? BT_OUTCOME_FAILED : r->outcome);
}

static const char *const end_words[] = {
	[BT_END_DONE] = "done",
	[BT_END_ROLLED_BACK] = "rolled back",
	[BT_END_HALTED] = "halted where it stands",
	[BT_END_PARKED] = "parked: a person is needed",
	[BT_END_REFUSED] = "refused: nothing was changed",
};

static void put_kind(json_t *j, const struct bt_plan *p, const struct bt_record *r)
{
	switch (r->kind) {
	case BT_RECORD_STAGE:
		put_place(j, p, r, false);
		break;
	case BT_RECORD_LANE_FAILED:
	case BT_RECORD_LANE_UNDONE:
		put_place(j, p, r, true);
		break;
	case BT_RECORD_RESULT:
		put_command(j, p, r);
		json_object_set_new(j, "outcome", json_string(outcome_of(p, &r->result)));
		if (r->result.detail)
			json_object_set_new(j, "detail", json_string(r->result.detail));
		break;
	case BT_RECORD_SENT:
	case BT_RECORD_RETRY:
	case BT_RECORD_SKIPPED:
		put_command(j, p, r);
		break;
	case BT_RECORD_AGENT:
		if (p && r->host < p->n_hosts)
			json_object_set_new(j, "host", json_string(p->hosts[r->host]));
		json_object_set_new(j, "back", json_boolean(r->back));
		break;
	case BT_RECORD_PHASE:
		json_object_set_new(j, "phase", json_string(bt_phase_name(r->phase)));
		break;
	case BT_RECORD_END:
		json_object_set_new(j, "phase", json_string(bt_phase_name(BT_PHASE_ENDED)));
		json_object_set_new(j, "outcome", json_string(bt_end_name(r->end)));
		if (!r->text && (size_t)r->end < BT_ARRAY_LEN(end_words) && end_words[r->end])
			json_object_set_new(j, "text", json_string(end_words[r->end]));
		break;
	case BT_RECORD_PLAN:
		json_object_set_new(j, "purpose", json_string(bt_plan_purpose_name(p->purpose)));
		break;
	case BT_RECORD_OPERATOR:
	case BT_RECORD_TOKEN:
	case BT_RECORD_KINDS:
		break;
	}
}

json_t *bt_project_record(const struct bt_plan *p, const char *service, uint64_t deployment,
	int64_t cursor, int64_t wall_ms, const struct bt_record *r)
{
	char at[32];
	BT_JSON json_t *body = bt_record_to_json(r);
	json_t *j = json_pack("{s:I, s:I, s:s, s:s}", "cursor", (json_int_t)cursor, "deployment",
		(json_int_t)deployment, "service", service, "at", bt_clock_format(wall_ms, at));
	json_object_set(j, "kind", json_object_get(body, "kind"));
	json_t *op = json_object_get(body, "op");
	if (op)
		json_object_set(j, "op", op);
	if (r->text)
		json_object_set_new(j, "text", json_string(r->text));
	put_kind(j, r->kind == BT_RECORD_PLAN ? r->plan : p, r);
	return j;
}

int bt_end_exit_code(const char *end)
{
	static const struct {
		const char *end;
		int code;
	} codes[] = {{"done", 0}, {"rolled_back", 1}, {"refused", 1}, {"halted", 3}, {"parked", 3}};
	for (size_t i = 0; end && i < BT_ARRAY_LEN(codes); i++)
		if (strcmp(codes[i].end, end) == 0)
			return codes[i].code;
	return 3;
}
