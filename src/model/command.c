#include "model/command.h"

#include "base/json.h"
#include "base/str.h"

static const char *const outcomes[] = {
	[BT_OUTCOME_DONE] = "done",
	[BT_OUTCOME_FAILED] = "failed",
	[BT_OUTCOME_UNKNOWN] = "unknown",
	[BT_OUTCOME_REFUSED] = "refused",
};

bool bt_command_key_equal(const struct bt_command_key *a, const struct bt_command_key *b)
{
	return a->deployment == b->deployment && a->task == b->task && a->verb == b->verb &&
	       a->attempt == b->attempt;
}

const char *bt_outcome_name(enum bt_outcome o)
{
	return o >= 0 && o < (int)BT_ARRAY_LEN(outcomes) ? outcomes[o] : "?";
}

static int outcome_parse(const char *text, enum bt_outcome *ret, struct bt_err *err)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(outcomes); i++)
		if (bt_streq(text, outcomes[i])) {
			*ret = (enum bt_outcome)i;
			return 0;
		}
	return bt_err_set(err, BT_E_PROTOCOL,
		"expected an outcome (done, failed, unknown, refused), found '%s'",
		text ? text : "");
}

json_t *bt_prior_to_json(const struct bt_prior *p)
{
	return json_pack("{s:b,s:I,s:b,s:b,s:I}", "known", p->known, "release",
		(json_int_t)p->release, "running", p->running, "present", p->present, "generation",
		(json_int_t)p->generation);
}

int bt_prior_from_json(const json_t *j, struct bt_prior *ret, struct bt_err *err)
{
	struct bt_prior p = {0};
	int64_t release = 0, generation = 0;
	int r;
	if ((r = bt_json_bool(j, "known", &p.known, err)) < 0 ||
		(r = bt_json_int_opt(j, "release", 0, UINT32_MAX, &release, err)) < 0 ||
		(r = bt_json_bool_opt(j, "running", &p.running, err)) < 0 ||
		(r = bt_json_bool_opt(j, "present", &p.present, err)) < 0 ||
		(r = bt_json_int_opt(j, "generation", 0, INT64_MAX, &generation, err)) < 0)
		return r;
	p.release = (uint32_t)release;
	p.generation = (uint64_t)generation;
	*ret = p;
	return 0;
}

json_t *bt_key_to_json(const struct bt_command_key *k)
{
	return json_pack("{s:I,s:I,s:s,s:I}", "deployment", (json_int_t)k->deployment, "task",
		(json_int_t)k->task, "verb", bt_verb_name(k->verb), "attempt",
		(json_int_t)k->attempt);
}

int bt_key_from_json(const json_t *j, struct bt_command_key *ret, struct bt_err *err)
{
	struct bt_command_key k = {0};
	int64_t deployment = 0, task = 0, attempt = 0;
	const char *verb = NULL;
	int r;
	if ((r = bt_json_int(j, "deployment", 1, INT64_MAX, &deployment, err)) < 0 ||
		(r = bt_json_int(j, "task", 1, UINT32_MAX, &task, err)) < 0 ||
		(r = bt_json_str(j, "verb", &verb, err)) < 0 ||
		(r = bt_verb_parse(verb, &k.verb, err)) < 0 ||
		(r = bt_json_int(j, "attempt", 1, UINT32_MAX, &attempt, err)) < 0)
		return r;
	k.deployment = (uint64_t)deployment;
	k.task = (uint32_t)task;
	k.attempt = (uint32_t)attempt;
	*ret = k;
	return 0;
}

json_t *bt_result_to_json(const struct bt_result *r)
{
	json_t *j = json_pack("{s:o,s:I,s:s,s:o,s:b}", "key", bt_key_to_json(&r->key), "token",
		(json_int_t)r->token, "outcome", bt_outcome_name(r->outcome), "prior",
		bt_prior_to_json(&r->prior), "drained", r->drained);
	/* What a program printed may be no UTF-8: such a detail is shown as far as it is text. */
	if (r->detail) {
		json_t *text = json_string(r->detail);
		json_object_set_new(
			j, "detail", text ? text : json_string("(the text is not UTF-8)"));
	}
	return j;
}

int bt_result_from_json(
	const json_t *j, struct bt_arena *a, struct bt_result *ret, struct bt_err *err)
{
	struct bt_result res = {0};
	json_t *key = NULL, *prior = json_object_get(j, "prior");
	const char *outcome = NULL, *detail = NULL;
	int64_t token = 0;
	int r;
	if ((r = bt_json_object(j, "key", &key, err)) < 0 ||
		(r = bt_key_from_json(key, &res.key, err)) < 0 ||
		(r = bt_json_int_opt(j, "token", 0, INT64_MAX, &token, err)) < 0 ||
		(r = bt_json_str(j, "outcome", &outcome, err)) < 0 ||
		(r = outcome_parse(outcome, &res.outcome, err)) < 0 ||
		(r = bt_json_bool_opt(j, "drained", &res.drained, err)) < 0 ||
		(r = bt_json_str_opt(j, "detail", &detail, err)) < 0)
		return r;
	if (prior && !json_is_null(prior) && (r = bt_prior_from_json(prior, &res.prior, err)) < 0)
		return bt_err_wrap(err, "member 'prior'");
	res.token = (uint64_t)token;
	res.detail = bt_arena_strdup(a, detail);
	*ret = res;
	return 0;
}
