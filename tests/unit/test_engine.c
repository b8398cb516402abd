/* What the simulator does not look at: who is refused and why, that a step changes nothing, and
 * that journals of the past still replay to the same states (tests/golden/journal-v1-*.jsonl with
 * the states after each record beside them in .states; UPDATE_GOLDEN=1 writes those anew, which is
 * right only when a new journal was added: what an old one replays to must never change). */
#include "plan_text.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "engine/engine.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Two slots on one host behind one balancer: start green, switch, bake, stop blue. */
static struct bt_plan *make_plan(enum bt_failure_policy policy)
{
	static const char text[] =
		"{'version':1,'purpose':'deploy','service':'shop','strategy':'blue-green',"
		"'release':2,'old_release':1,'releases':[{'id':1,'version':'v1'},"
		"{'id':2,'version':'v2'}],'hosts':['was1'],'instances':["
		"{'host':0,'slot':'blue','port':8081,'address':'127.0.0.1','expect_release':1,"
		"'expect_in':true},"
		"{'host':0,'slot':'green','port':8082,'address':'127.0.0.1','expect_release':0,"
		"'expect_in':false}],"
		"'balancers':[{'host':0,'name':'nginx/shop','expect_generation':4}],"
		"'stages':[{'name':'start','lanes':[{'name':'was1/green','tasks':["
		"{'id':1,'task':'InstanceStart','host':0,'instance':1,'release':2,"
		"'timeout_ms':1000}]}]},"
		"{'name':'cutover','lanes':[{'name':'was1','tasks':["
		"{'id':2,'task':'Switch','host':0,'balancer':0,'in':[1],'out':[0],"
		"'timeout_ms':1000}]}]},"
		"{'name':'bake','lanes':[{'name':'was1','tasks':["
		"{'id':3,'task':'Bake','host':0,'balancer':0,'timeout_ms':1000,'wait_ms':500}]}]},"
		"{'name':'retire','lanes':[{'name':'was1/blue','tasks':["
		"{'id':4,'task':'Drain','host':0,'balancer':0,'out':[0],'timeout_ms':1000,"
		"'wait_ms':700},"
		"{'id':5,'task':'InstanceStop','host':0,'instance':0,'timeout_ms':1000}]}]}],"
		"'on_failure':'rollback','continue_n':0,'on_drain_timeout':'continue',"
		"'min_in_rotation':1,'notes':[]}";
	struct bt_plan *p = plan_of_text(text);
	p->on_failure = policy;
	return p;
}

struct run {
	struct bt_engine *e;
	struct bt_update u; /* of the last event */
	int64_t now_ms;
};

/* Steps, checks that stepping again gives the same (nothing was changed), then applies. */
static int event(struct run *r, struct bt_event ev)
{
	struct bt_update again;
	struct bt_err err = {0};
	ev.now_ms = r->now_ms;
	bt_update_done(&r->u);
	int res = bt_engine_step(r->e, &ev, &r->u, &err);
	if (res < 0)
		return res;
	assert_int_equal(bt_engine_step(r->e, &ev, &again, &err), 0);
	assert_int_equal(again.n_records, r->u.n_records);
	assert_int_equal(again.n_commands, r->u.n_commands);
	assert_int_equal(again.deadline_ms, r->u.deadline_ms);
	bt_update_done(&again);
	for (size_t i = 0; i < r->u.n_records; i++)
		if (bt_engine_apply(r->e, &r->u.records[i], &err) < 0)
			fail_msg("%s", err.text);
	return 0;
}

static struct run start(enum bt_failure_policy policy)
{
	struct run r = {.e = bt_engine_new(9), .now_ms = 1000};
	struct bt_event ev = {.kind = BT_EVENT_START, .plan = make_plan(policy), .token = 5};
	assert_int_equal(event(&r, ev), 0);
	return r;
}

static void end(struct run *r)
{
	bt_update_done(&r->u);
	bt_engine_free(r->e);
}

static struct bt_result result_of(uint32_t task, enum bt_verb verb, uint32_t attempt)
{
	return (struct bt_result){.key = {9, task, verb, attempt}, .prior = {.known = true}};
}

static int answer(struct run *r, struct bt_result res)
{
	return event(r, (struct bt_event){.kind = BT_EVENT_RESULT, .result = &res});
}

static int done(struct run *r, uint32_t task)
{
	struct bt_result res = result_of(task, BT_DO, 1);
	res.drained = true;
	res.prior.generation = task == 2 ? 4 : 0;
	res.prior.running = task == 5;
	res.prior.release = task == 5;
	return answer(r, res);
}

static int operate(struct run *r, enum bt_operator op)
{
	return event(r, (struct bt_event){.kind = BT_EVENT_OPERATOR, .op = op, .by = "ann"});
}

static void test_forward(void **state)
{
	(void)state;
	struct run r = start(BT_ON_FAILURE_ROLLBACK);
	assert_int_equal(r.u.n_commands, 1);
	assert_int_equal(r.u.commands[0].kind, BT_TASK_INSTANCE_START);
	assert_int_equal(r.u.commands[0].token, 5);
	assert_int_equal(r.u.deadline_ms, 1000 + 1000 + 10000);
	assert_int_equal(done(&r, 1), 0);
	assert_int_equal(r.u.commands[0].kind, BT_TASK_SWITCH);
	assert_int_equal(r.u.commands[0].generation, 5);
	assert_int_equal(r.u.commands[0].n_pool, 1);
	assert_int_equal(r.u.commands[0].pool[0], 1);
	assert_true(bt_engine_in_rotation(r.e, 0)); /* sent is not confirmed */
	assert_int_equal(done(&r, 2), 0);
	assert_false(bt_engine_in_rotation(r.e, 0));
	assert_true(bt_engine_in_rotation(r.e, 1));
	assert_int_equal(bt_engine_generation(r.e, 0), 5);
	assert_int_equal(done(&r, 3), 0);
	assert_int_equal(done(&r, 4), 0);
	assert_int_equal(r.u.commands[0].kind, BT_TASK_INSTANCE_STOP);
	/* A repeated result is nothing new. */
	assert_int_equal(done(&r, 4), 0);
	assert_int_equal(r.u.n_records, 0);
	assert_int_equal(done(&r, 5), 0);
	assert_int_equal(bt_engine_phase(r.e), BT_PHASE_ENDED);
	assert_int_equal(bt_engine_end(r.e), BT_END_DONE);
	assert_int_equal(r.u.deadline_ms, INT64_MAX);
	end(&r);
}

static void test_refused_events(void **state)
{
	(void)state;
	struct run r = {.e = bt_engine_new(9), .now_ms = 1};
	assert_int_equal(operate(&r, BT_OP_ABORT), BT_E_REFUSED);
	assert_int_equal(
		event(&r, (struct bt_event){.kind = BT_EVENT_TAKEOVER, .token = 9}), BT_E_REFUSED);
	end(&r);
	r = start(BT_ON_FAILURE_ROLLBACK);
	struct bt_plan *second = make_plan(BT_ON_FAILURE_HALT);
	struct bt_event again = {.kind = BT_EVENT_START, .plan = second, .token = 6};
	assert_int_equal(event(&r, again), BT_E_REFUSED);
	again.kind = BT_EVENT_PLAN;
	assert_int_equal(event(&r, again), BT_E_REFUSED);
	bt_plan_free(second);
	assert_int_equal(operate(&r, BT_OP_RESUME), BT_E_REFUSED);
	assert_int_equal(operate(&r, BT_OP_PROMOTE), BT_E_REFUSED);
	assert_int_equal(
		event(&r, (struct bt_event){.kind = BT_EVENT_TAKEOVER, .token = 5}), BT_E_REFUSED);
	assert_int_equal(operate(&r, BT_OP_PAUSE), 0);
	assert_int_equal(operate(&r, BT_OP_PAUSE), BT_E_REFUSED);
	/* Nothing new begins while it is paused. */
	assert_int_equal(done(&r, 1), 0);
	assert_int_equal(r.u.n_records, 1);
	assert_int_equal(r.u.n_commands, 0);
	assert_int_equal(operate(&r, BT_OP_RESUME), 0);
	assert_int_equal(r.u.n_commands, 1);
	end(&r);
}

static void test_takeover(void **state)
{
	(void)state;
	struct run r = start(BT_ON_FAILURE_ROLLBACK);
	r.now_ms += 60000; /* its limit passed while nobody was there */
	assert_int_equal(event(&r, (struct bt_event){.kind = BT_EVENT_TAKEOVER, .token = 8}), 0);
	assert_int_equal(r.u.n_commands, 1);
	assert_int_equal(r.u.commands[0].token, 8);
	assert_int_equal(r.u.commands[0].key.attempt, 1);
	/* A late copy with the old token was refused: the new one's answer is awaited. */
	struct bt_result late = result_of(1, BT_DO, 1);
	late.outcome = BT_OUTCOME_REFUSED;
	late.token = 5;
	assert_int_equal(answer(&r, late), 0);
	assert_int_equal(r.u.n_records, 0);
	struct bt_command *c;
	assert_int_equal(bt_engine_outstanding(r.e, &c), 1);
	free(c);
	late.token = 8;
	assert_int_equal(answer(&r, late), 0);
	assert_true(r.u.n_records > 0);
	end(&r);
}

/* Before the first effect a world that changed refuses; later it undoes. */
static void test_world_changed(void **state)
{
	(void)state;
	struct run r = start(BT_ON_FAILURE_ROLLBACK);
	struct bt_result res = result_of(1, BT_DO, 1);
	res.outcome = BT_OUTCOME_FAILED;
	res.prior.running = true;
	res.prior.release = 77;
	assert_int_equal(answer(&r, res), 0);
	assert_int_equal(bt_engine_end(r.e), BT_END_REFUSED);
	assert_non_null(strstr(bt_engine_reason(r.e), "the world changed since the plan"));
	end(&r);
	r = start(BT_ON_FAILURE_ROLLBACK);
	assert_int_equal(done(&r, 1), 0);
	res = result_of(2, BT_DO, 1);
	res.prior.generation = 6; /* somebody else switched */
	assert_int_equal(answer(&r, res), 0);
	assert_int_equal(r.u.commands[0].kind, BT_TASK_SWITCH);
	assert_int_equal(r.u.commands[0].key.verb, BT_UNDO);
	assert_int_equal(r.u.commands[0].generation, 6);
	assert_int_equal(r.u.commands[0].pool[0], 0);
	end(&r);
}

/* A failed bake: observe every host, a plan, and the plan's own end. A failed undo parks. */
static void test_back(void **state)
{
	(void)state;
	struct run r = start(BT_ON_FAILURE_ROLLBACK);
	done(&r, 1);
	done(&r, 2);
	struct bt_result bad = result_of(3, BT_DO, 1);
	bad.outcome = BT_OUTCOME_FAILED;
	bad.detail = "31 of 60 answers are 5xx";
	assert_int_equal(answer(&r, bad), 0);
	assert_int_equal(bt_engine_phase(r.e), BT_PHASE_OBSERVING);
	assert_int_equal(r.u.commands[0].kind, BT_TASK_OBSERVE);
	assert_int_equal(r.u.commands[0].key.task, 6);
	assert_false(r.u.wants_plan);
	assert_int_equal(answer(&r, result_of(6, BT_DO, 1)), 0);
	assert_true(r.u.wants_plan);
	assert_int_equal(r.u.wants_release, 1);
	assert_int_equal(r.u.first_task_id, 7);
	assert_non_null(strstr(bt_engine_reason(r.e), "31 of 60"));
	/* Wanted again after a takeover. */
	assert_int_equal(event(&r, (struct bt_event){.kind = BT_EVENT_TAKEOVER, .token = 6}), 0);
	assert_true(r.u.wants_plan);
	assert_int_equal(event(&r, (struct bt_event){.kind = BT_EVENT_PLAN_FAILED, .by = "no"}), 0);
	assert_int_equal(bt_engine_phase(r.e), BT_PHASE_PARKED);
	assert_int_equal(operate(&r, BT_OP_RESUME), 0);
	assert_int_equal(bt_engine_phase(r.e), BT_PHASE_OBSERVING);
	assert_int_equal(operate(&r, BT_OP_ABORT), BT_E_REFUSED);
	end(&r);
}

static void test_halt_and_limits(void **state)
{
	(void)state;
	struct run r = start(BT_ON_FAILURE_HALT);
	done(&r, 1);
	r.now_ms += 60000;
	/* The switch never answered: probed and undone; then the rest stays where it is. */
	assert_int_equal(event(&r, (struct bt_event){.kind = BT_EVENT_TIMER}), 0);
	assert_int_equal(r.u.commands[0].key.verb, BT_UNDO);
	assert_int_equal(r.u.commands[0].generation, 6);
	assert_int_equal(done(&r, 2), 0); /* too late */
	assert_int_equal(r.u.n_records, 0);
	assert_int_equal(answer(&r, result_of(2, BT_UNDO, 1)), 0);
	assert_int_equal(bt_engine_end(r.e), BT_END_HALTED);
	assert_true(bt_engine_in_rotation(r.e, 0));
	end(&r);
	r = start(BT_ON_FAILURE_HALT);
	done(&r, 1);
	struct bt_result res = result_of(2, BT_DO, 1);
	res.outcome = BT_OUTCOME_UNKNOWN;
	answer(&r, res);
	res = result_of(2, BT_UNDO, 1);
	res.outcome = BT_OUTCOME_FAILED;
	res.detail = "nginx is not there";
	assert_int_equal(answer(&r, res), 0);
	assert_int_equal(bt_engine_phase(r.e), BT_PHASE_PARKED);
	assert_string_equal(bt_engine_reason(r.e), "undo of Switch on was1: nginx is not there");
	assert_int_equal(operate(&r, BT_OP_RESUME), 0);
	assert_int_equal(r.u.commands[0].key.attempt, 2);
	assert_int_equal(r.u.commands[0].generation, 7);
	end(&r);
}

static void test_bad_records(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"{\"v\":1,\"kind\":\"stage\",\"at_ms\":1}",
		"{\"v\":1,\"kind\":\"eaten\",\"at_ms\":1}",
		"{\"v\":2,\"kind\":\"stage\",\"at_ms\":1,\"stage\":0}",
		"{\"v\":1,\"kind\":\"phase\",\"at_ms\":1,\"phase\":\"lunch\"}",
		"{\"v\":1,\"kind\":\"sent\",\"at_ms\":1,\"stage\":0,\"lane\":0}",
		"{\"v\":1,\"kind\":\"plan\",\"at_ms\":1}",
		"{\"v\":1,\"kind\":\"token\",\"at_ms\":1,\"token\":0}",
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		BT_ARENA struct bt_arena *a = bt_arena_new();
		BT_JSON json_t *j = NULL;
		struct bt_err err = {0};
		struct bt_record rec;
		assert_int_equal(bt_json_parse(bad[i], strlen(bad[i]), 4096, &j, &err), 0);
		assert_true(bt_record_from_json(j, a, &rec, &err) < 0);
		assert_string_not_equal(err.text, "");
	}
	struct run r = start(BT_ON_FAILURE_HALT);
	struct bt_record wrong = {.kind = BT_RECORD_STAGE, .stage = 99};
	assert_int_equal(bt_engine_apply(r.e, &wrong, NULL), BT_E_CORRUPT);
	wrong = (struct bt_record){.kind = BT_RECORD_RESULT, .result = result_of(4, BT_DO, 1)};
	assert_int_equal(bt_engine_apply(r.e, &wrong, NULL), BT_E_CORRUPT);
	wrong = (struct bt_record){.kind = BT_RECORD_SENT,
		.command = {.key = {9, 2, BT_DO, 1}, .kind = BT_TASK_SWITCH, .balancer = 3}};
	assert_int_equal(bt_engine_apply(r.e, &wrong, NULL), BT_E_CORRUPT);
	end(&r);
}

/* ── golden journals ── */

static void write_state(const struct bt_engine *e, struct bt_str *out)
{
	const struct bt_plan *p = bt_engine_plan(e);
	bt_str_addf(out, "%s %s token=%llu now=%lld", bt_phase_name(bt_engine_phase(e)),
		bt_end_name(bt_engine_end(e)), (unsigned long long)bt_engine_token(e),
		(long long)bt_engine_now(e));
	for (uint16_t b = 0; b < p->n_balancers; b++)
		bt_str_addf(
			out, " generation=%llu", (unsigned long long)bt_engine_generation(e, b));
	bt_str_add(out, " in=");
	for (uint16_t i = 0; i < p->n_instances; i++)
		bt_str_addc(out, bt_engine_in_rotation(e, i) ? '1' : '.');
	for (uint32_t id = 1; id < 200; id++) {
		uint32_t attempt = 0;
		enum bt_task_state s = bt_engine_task(e, id, &attempt);
		if (s != BT_TASK_WAITING)
			bt_str_addf(out, " %u:%s/%u", id, bt_task_state_name(s), attempt);
	}
	bt_str_addf(out, " | %s\n", bt_engine_reason(e));
}

static void replay_line(
	struct bt_engine *e, const char *file, size_t n, char *line, struct bt_str *states)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_JSON json_t *j = NULL, *back = NULL;
	struct bt_record rec;
	struct bt_err err = {0};
	if (bt_json_parse(line, strlen(line), 1 << 20, &j, &err) < 0 ||
		bt_record_from_json(j, a, &rec, &err) < 0)
		fail_msg("%s:%zu: %s", file, n, err.text);
	back = bt_record_to_json(&rec);
	if (!json_equal(j, back))
		fail_msg("%s:%zu: is written differently now", file, n);
	if (bt_engine_apply(e, &rec, &err) < 0)
		fail_msg("%s:%zu: %s", file, n, err.text);
	write_state(e, states);
}

static void test_golden_journals(void **state)
{
	(void)state;
	glob_t found;
	assert_int_equal(glob(GOLDEN_DIR "/journal-v1-*.jsonl", 0, NULL, &found), 0);
	assert_true(found.gl_pathc >= 8);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		const char *file = found.gl_pathv[i];
		BT_FREE char *text = NULL, *expected = NULL;
		BT_STR struct bt_str states = {0};
		struct bt_err err = {0};
		BT_FREE char *path =
			bt_asprintf("%.*sstates", (int)(strlen(file) - strlen("jsonl")), file);
		struct bt_engine *e = bt_engine_new(7);
		if (bt_fs_read(file, 1 << 20, &text, NULL, &err) < 0)
			fail_msg("%s", err.text);
		size_t n = 0;
		for (char *save, *line = strtok_r(text, "\n", &save); line;
			line = strtok_r(NULL, "\n", &save))
			replay_line(e, file, ++n, line, &states);
		bt_engine_free(e);
		if (getenv("UPDATE_GOLDEN") &&
			bt_fs_write_atomic(path, states.data, states.len, 0644, &err) < 0)
			fail_msg("%s", err.text);
		if (bt_fs_read(path, 1 << 20, &expected, NULL, &err) < 0)
			fail_msg("%s", err.text);
		assert_string_equal(bt_str_get(&states), expected);
	}
	globfree(&found);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forward),
		cmocka_unit_test(test_refused_events),
		cmocka_unit_test(test_takeover),
		cmocka_unit_test(test_world_changed),
		cmocka_unit_test(test_back),
		cmocka_unit_test(test_halt_and_limits),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_golden_journals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
