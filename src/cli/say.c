#include "cli/say.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct bt_sayer {
	json_t *running; /* task id → where it was said to run; gone with its result */
	char ended[32];	 /* the task of the last result; its place was lent out until now */
	char *reason;	 /* the last failure said, not to repeat it with each phase */
};

static const char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s && *s ? s : NULL;
}

/* What a flow calls it, before what it is: "L4TurnOff: switch …". */
static void add_step(const json_t *r, struct bt_said *s)
{
	const json_t *task = json_object_get(r, "task");
	const char *step = text_of(task, "step");
	if (step)
		bt_str_addf(&s->words, "%s: ", step);
}

static void say_sent(const json_t *r, struct bt_said *s)
{
	bool undo = bt_streq(text_of(r, "verb"), "undo");
	const char *words = text_of(json_object_get(r, "task"), "words");
	json_int_t attempt = json_integer_value(json_object_get(r, "attempt"));
	add_step(r, s);
	bt_str_addf(&s->words, "%s%s", undo ? "undo: " : "", words ? words : "");
	if (attempt > 1)
		bt_str_addf(&s->words, " (attempt %lld)", (long long)attempt);
	if (bt_streq(text_of(json_object_get(r, "task"), "kind"), "Approve"))
		bt_str_addf(&s->words, ": `baton approve %" JSON_INTEGER_FORMAT "` or reject",
			json_integer_value(json_object_get(r, "deployment")));
	s->mark = BT_MARK_BEGIN;
}

static void say_result(const json_t *r, struct bt_said *s)
{
	bool undo = bt_streq(text_of(r, "verb"), "undo");
	const char *outcome = text_of(r, "outcome"), *detail = text_of(r, "detail");
	const char *words = text_of(json_object_get(r, "task"), "words");
	bool good = bt_streq(outcome, "done");
	s->mark = good ? BT_MARK_GOOD : BT_MARK_BAD;
	add_step(r, s);
	bt_str_addf(&s->words, "%s%s: %s%s%s", undo ? "undo: " : "", words ? words : "",
		good	  ? "ok"
		: outcome ? outcome
			  : "no outcome",
		detail ? ", " : "", detail ? detail : "");
}

static void say_stage(const json_t *r, struct bt_said *s)
{
	const char *stage = text_of(r, "stage"), *why = text_of(r, "text");
	bt_str_addf(
		&s->words, "── %s%s%s", stage ? stage : "stage", why ? ": " : "", why ? why : "");
}

static void say_text(const json_t *r, struct bt_said *s)
{
	const char *text = text_of(r, "text");
	if (!text)
		text = text_of(r, "detail");
	bt_str_add(&s->words, text ? text : "");
}

static void say_phase(const json_t *r, struct bt_said *s)
{
	const char *phase = text_of(r, "phase"), *text = text_of(r, "text");
	BT_FREE char *words = bt_strdup(phase ? phase : "");
	for (char *p = words; *p; p++)
		if (*p == '_')
			*p = ' ';
	if (bt_streq(words, "running") || bt_streq(words, "ended"))
		return;
	bt_str_addf(&s->words, "%s%s%s", words, text ? ": " : "", text ? text : "");
	s->mark = BT_MARK_NOTE;
}

static void say_plan(const json_t *r, struct bt_said *s)
{
	const char *purpose = text_of(r, "purpose"), *text = text_of(r, "text");
	if (text || (purpose && !bt_streq(purpose, "deploy")))
		bt_str_addf(&s->words, "plan: %s%s%s", purpose ? purpose : "",
			purpose && text ? ", " : "", text ? text : "");
	s->mark = BT_MARK_NOTE;
}

static void say_operator(const json_t *r, struct bt_said *s)
{
	const char *op = text_of(r, "op"), *by = text_of(r, "text");
	bt_str_add(&s->words, by ? by : op ? op : "");
	s->mark = BT_MARK_NOTE;
}

static void say_agent(const json_t *r, struct bt_said *s)
{
	const char *host = text_of(r, "host"), *text = text_of(r, "text");
	bool back = json_is_true(json_object_get(r, "back"));
	bt_str_addf(&s->words, "the agent of %s is %s%s%s", host ? host : "a host",
		back ? "back" : "not heard of", text ? ": " : "", text ? text : "");
	s->mark = back ? BT_MARK_NOTE : BT_MARK_BAD;
}

static void say_bad(const json_t *r, struct bt_said *s)
{
	say_text(r, s);
	s->mark = BT_MARK_BAD;
}

static void say_note(const json_t *r, struct bt_said *s)
{
	say_text(r, s);
	s->mark = BT_MARK_NOTE;
}

/* Kinds without a row are for the journal alone. */
static const struct {
	const char *kind;
	void (*say)(const json_t *r, struct bt_said *s);
} sentences[] = {
	{"plan", say_plan},
	{"stage", say_stage},
	{"sent", say_sent},
	{"result", say_result},
	{"retry", say_note},
	{"lane_failed", say_bad},
	{"lane_undone", say_note},
	{"operator", say_operator},
	{"agent", say_agent},
	{"phase", say_phase},
};

static const char *place(struct bt_sayer *y, const json_t *r)
{
	char id[32];
	const json_t *task = json_object_get(r, "task");
	const char *kind = text_of(r, "kind");
	const char *where = text_of(r, "lane");
	if (!where)
		where = text_of(task, "instance");
	if (!where)
		where = text_of(task, "host");
	snprintf(id, sizeof id, "%" JSON_INTEGER_FORMAT,
		json_integer_value(json_object_get(task, "id")));
	if (where && bt_streq(kind, "sent"))
		json_object_set_new(y->running, id, json_string(where));
	const char *begun = json_string_value(json_object_get(y->running, id));
	return !task ? where : kind && !bt_streq(kind, "result") ? where : begun;
}

static bool say(struct bt_sayer *y, const json_t *r, struct bt_said *s)
{
	const char *text = text_of(r, "text");
	s->where = place(y, r);
	for (size_t i = 0; i < BT_ARRAY_LEN(sentences); i++)
		if (bt_streq(sentences[i].kind, text_of(r, "kind")))
			sentences[i].say(r, s);
	if (text && bt_streq(text_of(r, "kind"), "phase") && bt_streq(text, y->reason)) {
		size_t with = strlen(text) + 2;
		if (s->words.len > with && bt_str_ends(s->words.data, text)) {
			s->words.len -= with;
			s->words.data[s->words.len] = 0;
		}
	} else if (text && !json_object_get(r, "task") && !bt_streq(text_of(r, "kind"), "stage")) {
		free(y->reason);
		y->reason = bt_strdup(text);
	}
	return s->words.len > 0;
}

static void forget_ended(struct bt_sayer *y)
{
	json_object_del(y->running, y->ended);
	y->ended[0] = 0;
}

bool bt_say(struct bt_sayer *y, const json_t *record, struct bt_said *ret)
{
	forget_ended(y);
	bool any = say(y, record, ret);
	if (bt_streq(text_of(record, "kind"), "result"))
		snprintf(y->ended, sizeof y->ended, "%" JSON_INTEGER_FORMAT,
			json_integer_value(json_object_get(json_object_get(record, "task"), "id")));
	return any;
}

const char *bt_say_place(struct bt_sayer *y, const json_t *progress)
{
	forget_ended(y);
	return place(y, progress);
}

struct bt_sayer *bt_sayer_new(void)
{
	struct bt_sayer *y = bt_calloc(1, sizeof *y);
	y->running = json_object();
	return y;
}

struct bt_sayer *bt_sayer_free(struct bt_sayer *y)
{
	if (!y)
		return NULL;
	json_decref(y->running);
	free(y->reason);
	free(y);
	return NULL;
}
