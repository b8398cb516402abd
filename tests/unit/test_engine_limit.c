/* The run's own time limit: due as a deadline, then the run goes the way of an abort. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/json.h"
#include "base/str.h"
#include "engine/engine.h"

#include <string.h>

static struct bt_plan *plan(int64_t timeout_ms)
{
	static const char text[] =
		"{\"version\":1,\"purpose\":\"deploy\",\"service\":\"shop\",\"strategy\":"
		"\"recreate\",\"release\":2,\"old_release\":0,\"releases\":[{\"id\":2,\"version\":"
		"\"v2\"}],\"hosts\":[\"a\"],\"instances\":[{\"host\":0,\"slot\":\"s\",\"port\":1,"
		"\"address\":\"127.0.0.1\",\"expect_release\":0,\"expect_in\":false}],"
		"\"balancers\":[],\"stages\":[{\"name\":\"start\",\"lanes\":[{\"name\":\"a/s\","
		"\"tasks\":[{\"id\":1,\"task\":\"InstanceStart\",\"host\":0,\"instance\":0,"
		"\"release\":2,\"timeout_ms\":900000}]}]}],\"on_failure\":\"rollback\","
		"\"continue_n\":0,\"on_drain_timeout\":\"continue\",\"min_in_rotation\":0,"
		"\"notes\":[]}";
	BT_JSON json_t *j = json_loads(text, 0, NULL);
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	if (timeout_ms)
		json_object_set_new(j, "timeout_ms", json_integer(timeout_ms));
	if (bt_plan_from_json(j, &p, &err) < 0)
		fail_msg("%s", err.text);
	return p;
}

/* One event, applied; returns the next deadline. */
static int64_t step(struct bt_engine *e, const struct bt_event *event)
{
	struct bt_update u = {0};
	struct bt_err err = {0};
	if (bt_engine_step(e, event, &u, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < u.n_records; i++)
		if (bt_engine_apply(e, &u.records[i], &err) < 0)
			fail_msg("%s", err.text);
	int64_t deadline = u.deadline_ms;
	bt_update_done(&u);
	return deadline;
}

static struct bt_engine *start(int64_t timeout_ms, int64_t *ret_deadline)
{
	struct bt_engine *e = bt_engine_new(1);
	const struct bt_event event = {
		.kind = BT_EVENT_START, .now_ms = 1000, .plan = plan(timeout_ms), .token = 1};
	*ret_deadline = step(e, &event);
	return e;
}

static void limited(void **state)
{
	(void)state;
	int64_t deadline;
	struct bt_engine *e = start(60000, &deadline);
	assert_int_equal(deadline, 61000);
	step(e, &(struct bt_event){.kind = BT_EVENT_TIMER, .now_ms = 60999});
	assert_int_equal(bt_engine_phase(e), BT_PHASE_RUNNING);
	assert_string_equal(bt_engine_reason(e), "");
	step(e, &(struct bt_event){.kind = BT_EVENT_TIMER, .now_ms = 61000});
	assert_int_not_equal(bt_engine_phase(e), BT_PHASE_RUNNING);
	assert_non_null(strstr(bt_engine_reason(e), "not done within 60 s"));
	bt_engine_free(e);
}

static void unlimited(void **state)
{
	(void)state;
	int64_t deadline;
	struct bt_engine *e = start(0, &deadline);
	assert_true(deadline > 61000);
	step(e, &(struct bt_event){.kind = BT_EVENT_TIMER, .now_ms = 61000});
	assert_int_equal(bt_engine_phase(e), BT_PHASE_RUNNING);
	bt_engine_free(e);
}

/* Time that a run waits for people is not the run's. */
static void paused_time_does_not_count(void **state)
{
	(void)state;
	int64_t deadline;
	struct bt_engine *e = start(60000, &deadline);
	step(e, &(struct bt_event){.kind = BT_EVENT_OPERATOR, .now_ms = 11000, .op = BT_OP_PAUSE});
	deadline = step(e, &(struct bt_event){.kind = BT_EVENT_TIMER, .now_ms = 500000});
	assert_int_equal(bt_engine_phase(e), BT_PHASE_PAUSED);
	assert_true(deadline > 500000);
	deadline =
		step(e, &(struct bt_event){
				.kind = BT_EVENT_OPERATOR, .now_ms = 511000, .op = BT_OP_RESUME});
	assert_int_equal(deadline, 561000); /* 10 s had passed before, 50 s are left */
	step(e, &(struct bt_event){.kind = BT_EVENT_TIMER, .now_ms = 560999});
	assert_int_equal(bt_engine_phase(e), BT_PHASE_RUNNING);
	step(e, &(struct bt_event){.kind = BT_EVENT_TIMER, .now_ms = 561000});
	assert_int_not_equal(bt_engine_phase(e), BT_PHASE_RUNNING);
	assert_non_null(strstr(bt_engine_reason(e), "not done within 60 s"));
	bt_engine_free(e);
}

/* An approval of ten minutes in a run of one: the run's minute begins when it was given. And while
 * the run is paused, nobody is asked. */
static void approval_time_does_not_count(void **state)
{
	(void)state;
	struct bt_engine *e = bt_engine_new(1);
	struct bt_plan *p = plan(60000);
	BT_JSON json_t *j = bt_plan_to_json(p);
	bt_plan_free(p);
	json_t *stages = json_object_get(j, "stages");
	json_array_insert_new(stages, 0,
		json_pack("{s:s, s:[{s:s, s:[{s:i, s:s, s:i, s:i}]}]}", "name", "ask", "lanes",
			"name", "approval", "tasks", "id", 2, "task", "Approve", "timeout_ms", 0,
			"wait_ms", 600000));
	struct bt_err err = {0};
	if (bt_plan_from_json(j, &p, &err) < 0)
		fail_msg("%s", err.text);
	int64_t deadline = step(e,
		&(struct bt_event){.kind = BT_EVENT_START, .now_ms = 1000, .plan = p, .token = 1});
	assert_int_equal(deadline, 601000);
	struct bt_command *c = NULL;
	assert_int_equal(bt_engine_outstanding(e, &c), 0); /* no host is asked */
	free(c);
	step(e, &(struct bt_event){.kind = BT_EVENT_OPERATOR, .now_ms = 301000, .op = BT_OP_PAUSE});
	step(e, &(struct bt_event){.kind = BT_EVENT_TIMER, .now_ms = 900000});
	deadline =
		step(e, &(struct bt_event){
				.kind = BT_EVENT_OPERATOR, .now_ms = 901000, .op = BT_OP_RESUME});
	assert_int_equal(deadline, 1201000);
	deadline = step(
		e, &(struct bt_event){.kind = BT_EVENT_TAKEOVER, .now_ms = 902000, .token = 2});
	assert_int_equal(deadline, 1201000); /* a server's restart gives nobody more time */
	deadline = step(e, &(struct bt_event){.kind = BT_EVENT_OPERATOR,
				   .now_ms = 1000000,
				   .op = BT_OP_APPROVE,
				   .by = "ann"});
	assert_int_equal(deadline, 1060000);
	assert_int_equal(bt_engine_task(e, 2, NULL), BT_TASK_DONE);
	struct bt_update u = {0};
	const struct bt_event again = {
		.kind = BT_EVENT_OPERATOR, .now_ms = 1000001, .op = BT_OP_APPROVE};
	assert_int_equal(bt_engine_step(e, &again, &u, &err), BT_E_REFUSED);
	bt_engine_free(e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limited),
		cmocka_unit_test(unlimited),
		cmocka_unit_test(paused_time_does_not_count),
		cmocka_unit_test(approval_time_does_not_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
