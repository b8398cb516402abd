/* What flows ask of the engine: an address that is taken off and put back, time that passes, what
 * is skipped or may fail, a policy for one stage, and balancers that know one host each. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "plan_text.h"

#include "base/json.h"
#include "base/str.h"
#include "engine/engine.h"

#include <string.h>

/* One instance on each of two hosts behind one balancer with direct server return. `tasks` is one
 * lane for was1 in a stage of its own, `more` ends the list of stages. */
static struct bt_plan *plan_of(const char *tasks, const char *head, const char *more)
{
	BT_FREE char *text = bt_asprintf(
		"{'version':1,'purpose':'flow','service':'shop','strategy':'rolling','flow':'f',"
		"'release':1,'old_release':1,'releases':[{'id':1,'version':'v1'}],"
		"'hosts':['was1','was2','web1'],'instances':["
		"{'host':0,'slot':'a','port':8081,'address':'10.0.0.1','expect_release':1,"
		"'expect_in':true},"
		"{'host':1,'slot':'a','port':8081,'address':'10.0.0.2','expect_release':1,"
		"'expect_in':true}],"
		"'balancers':[{'host':2,'name':'nftables/shop','expect_generation':4,"
		"'drains_at_host':true}],%s"
		"'stages':[{'name':'hosts','lanes':[{'name':'was1','tasks':[%s]}]}%s],"
		"'on_failure':'halt','continue_n':0,'on_drain_timeout':'continue',"
		"'min_in_rotation':1,'notes':[]}",
		head, tasks, more);
	struct bt_plan *p = plan_of_text(text);
	BT_JSON json_t *back = bt_plan_to_json(p);
	assert_non_null(json_object_get(back, "flow"));
	return p;
}

#define OUT "{'id':1,'task':'Switch','host':2,'balancer':0,'out':[0],'timeout_ms':1000},"
#define DRAIN                                                                                      \
	"{'id':2,'task':'Drain','host':0,'balancer':0,'out':[0],'timeout_ms':1000,'wait_ms':700}"  \
	","
#define OFF "{'id':3,'task':'LoopbackStop','host':0,'out':[0],'timeout_ms':1000}"
#define ON "{'id':4,'task':'LoopbackStart','host':0,'out':[0],'timeout_ms':1000}"
#define IN "{'id':5,'task':'Switch','host':2,'balancer':0,'in':[0],'timeout_ms':1000}"
#define WAIT "{'id':6,'task':'Wait','timeout_ms':0,'wait_ms':5000}"
#define CHECK "{'id':7,'task':'HealthCheck','host':0,'instance':0,'release':1,'timeout_ms':1000%s}"

struct run {
	struct bt_engine *e;
	struct bt_update u; /* of the last event */
	int64_t now_ms;
	enum bt_task_kind kind; /* of its first command */
	enum bt_verb verb;
	uint32_t task; /* 0: none left */
};

static void event(struct run *r, struct bt_event ev)
{
	struct bt_err err = {0};
	ev.now_ms = r->now_ms;
	bt_update_done(&r->u);
	if (bt_engine_step(r->e, &ev, &r->u, &err) < 0)
		fail_msg("%s", err.text);
	for (size_t i = 0; i < r->u.n_records; i++)
		if (bt_engine_apply(r->e, &r->u.records[i], &err) < 0)
			fail_msg("%s", err.text);
	r->task = 0;
	if (!r->u.n_commands)
		return;
	r->kind = r->u.commands[0].kind;
	r->verb = r->u.commands[0].key.verb;
	r->task = r->u.commands[0].key.task;
}

static struct run start(struct bt_plan *p)
{
	struct run r = {.e = bt_engine_new(9), .now_ms = 1000};
	event(&r, (struct bt_event){.kind = BT_EVENT_START, .plan = p, .token = 5});
	return r;
}

static void end(struct run *r)
{
	bt_update_done(&r->u);
	bt_engine_free(r->e);
}

static void answer(struct run *r, enum bt_outcome o, bool present)
{
	assert_true(r->task != 0);
	const struct bt_command *c = &r->u.commands[0];
	struct bt_result res = {.key = c->key,
		.outcome = o,
		.drained = true,
		.detail = o == BT_OUTCOME_DONE ? NULL : "it says no",
		.prior = {.known = true, .present = present, .release = 1, .running = true}};
	res.prior.generation = c->kind == BT_TASK_SWITCH ? c->generation - 1 : 0;
	event(r, (struct bt_event){.kind = BT_EVENT_RESULT, .result = &res});
}

static void expect(const struct run *r, uint32_t task, enum bt_verb verb)
{
	assert_int_equal(r->task, task);
	assert_int_equal(r->verb, verb);
}

static void expect_end(const struct run *r, enum bt_end e)
{
	assert_int_equal(r->task, 0);
	assert_int_equal(bt_engine_phase(r->e), BT_PHASE_ENDED);
	assert_int_equal(bt_engine_end(r->e), e);
}

/* ── the address ── */

static void test_address_waits_for_its_instances(void **state)
{
	(void)state;
	struct run r = start(plan_of(OUT DRAIN OFF "," ON "," IN, "", ""));
	expect(&r, 1, BT_DO);
	answer(&r, BT_OUTCOME_DONE, false);
	expect(&r, 2, BT_DO);
	answer(&r, BT_OUTCOME_DONE, false);
	expect(&r, 3, BT_DO);
	assert_int_equal(r.u.commands[0].n_out, 1);
	answer(&r, BT_OUTCOME_DONE, true);
	expect(&r, 4, BT_DO);
	answer(&r, BT_OUTCOME_DONE, false);
	expect(&r, 5, BT_DO);
	answer(&r, BT_OUTCOME_DONE, false);
	expect_end(&r, BT_END_DONE);
	end(&r);
	/* In rotation: refused before anything is touched. */
	r = start(plan_of(OFF, "", ""));
	expect_end(&r, BT_END_REFUSED);
	end(&r);
	/* Out, and not drained: what was done is undone. */
	r = start(plan_of(OUT OFF, "", ""));
	answer(&r, BT_OUTCOME_DONE, false);
	expect(&r, 1, BT_UNDO);
	answer(&r, BT_OUTCOME_DONE, false);
	expect_end(&r, BT_END_REFUSED);
	assert_non_null(strstr(bt_engine_reason(r.e), "drained"));
	end(&r);
}

static void test_nobody_in_without_address(void **state)
{
	(void)state;
	struct run r = start(plan_of(OUT DRAIN OFF "," IN, "", ""));
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_DONE, true);
	/* The Switch in does not leave; the address comes back first, then the pool. */
	expect(&r, 3, BT_UNDO);
	assert_non_null(strstr(bt_engine_reason(r.e), "loopback"));
	answer(&r, BT_OUTCOME_DONE, false);
	expect(&r, 1, BT_UNDO);
	answer(&r, BT_OUTCOME_DONE, false);
	expect_end(&r, BT_END_REFUSED);
	assert_true(bt_engine_in_rotation(r.e, 0));
	end(&r);
	/* The plan says that it is missing. */
	r = start(plan_of(OUT IN, "'without_vip':[0],", ""));
	answer(&r, BT_OUTCOME_DONE, false);
	expect(&r, 1, BT_UNDO); /* back to what was, also where that was wrong */
	answer(&r, BT_OUTCOME_DONE, false);
	expect_end(&r, BT_END_REFUSED);
	end(&r);
}

/* A host that was out for maintenance stays as it was. */
static void test_undo_restores_the_address(void **state)
{
	(void)state;
	BT_FREE char *check = bt_asprintf(CHECK, "");
	BT_FREE char *off = bt_asprintf(OUT DRAIN OFF ",%s", check);
	struct run r = start(plan_of(off, "", ""));
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_DONE, false); /* it was off already */
	expect(&r, 7, BT_DO);
	answer(&r, BT_OUTCOME_FAILED, false);
	assert_int_equal(bt_engine_task(r.e, 3, NULL), BT_TASK_SKIPPED);
	end(&r);
	BT_FREE char *on = bt_asprintf(OUT DRAIN ON ",%s", check);
	for (int there = 0; there < 2; there++) {
		r = start(plan_of(on, "", ""));
		answer(&r, BT_OUTCOME_DONE, false);
		answer(&r, BT_OUTCOME_DONE, false);
		expect(&r, 4, BT_DO);
		answer(&r, BT_OUTCOME_DONE, there);
		expect(&r, 7, BT_DO);
		answer(&r, BT_OUTCOME_FAILED, false);
		expect(&r, there ? 1 : 4, BT_UNDO);
		end(&r);
	}
	/* One of several addresses may have gone on or off: that is taken back, too. */
	r = start(plan_of(OUT DRAIN OFF, "", ""));
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_FAILED, true);
	expect(&r, 3, BT_UNDO);
	end(&r);
}

/* ── time ── */

static void test_wait_ends_by_time(void **state)
{
	(void)state;
	struct run r = start(plan_of(WAIT "," OUT "{'id':8,'task':'Wait','host':0,'timeout_ms':0,"
					  "'wait_ms':100}",
		"'timeout_ms':60000,", ""));
	assert_int_equal(r.task, 0); /* nobody is told */
	assert_int_equal(r.u.deadline_ms, 6000);
	assert_false(bt_engine_asks(r.e));
	struct bt_command *c;
	assert_int_equal(bt_engine_outstanding(r.e, &c), 0);
	free(c);
	/* Nobody's result ends it, and no takeover begins it anew; nor does a pause stop it. */
	struct bt_result forged = {.key = {9, 6, BT_DO, 1}};
	event(&r, (struct bt_event){.kind = BT_EVENT_RESULT, .result = &forged});
	assert_int_equal(r.u.n_records, 0);
	r.now_ms = 3000;
	event(&r, (struct bt_event){.kind = BT_EVENT_TAKEOVER, .token = 6});
	assert_int_equal(r.u.n_commands, 0);
	assert_int_equal(r.u.deadline_ms, 6000);
	event(&r, (struct bt_event){.kind = BT_EVENT_OPERATOR, .op = BT_OP_PAUSE});
	assert_int_equal(r.u.deadline_ms, 6000);
	r.now_ms = 5999;
	event(&r, (struct bt_event){.kind = BT_EVENT_TIMER});
	assert_int_equal(bt_engine_task(r.e, 6, NULL), BT_TASK_SENT);
	r.now_ms = 6000;
	event(&r, (struct bt_event){.kind = BT_EVENT_TIMER});
	assert_int_equal(bt_engine_task(r.e, 6, NULL), BT_TASK_DONE);
	assert_int_equal(r.task, 0); /* paused */
	event(&r, (struct bt_event){.kind = BT_EVENT_OPERATOR, .op = BT_OP_RESUME});
	expect(&r, 1, BT_DO);
	answer(&r, BT_OUTCOME_DONE, false);
	/* A run that stops does not sit it out. */
	event(&r, (struct bt_event){.kind = BT_EVENT_OPERATOR, .op = BT_OP_ABORT});
	assert_int_equal(bt_engine_task(r.e, 8, NULL), BT_TASK_SKIPPED);
	end(&r);
	/* Its time counts to the run's limit. */
	r = start(plan_of(WAIT, "'timeout_ms':2000,", ""));
	assert_int_equal(r.u.deadline_ms, 3000);
	r.now_ms = 3000;
	event(&r, (struct bt_event){.kind = BT_EVENT_TIMER});
	expect_end(&r, BT_END_ROLLED_BACK);
	end(&r);
}

/* ── what is not done, and what may fail ── */

static void test_skipped_and_ignored(void **state)
{
	(void)state;
	BT_FREE char *ignored = bt_asprintf(CHECK, ",'ignore':true");
	BT_FREE char *tasks = bt_asprintf(
		"{'id':3,'task':'LoopbackStop','host':0,'out':[0],'timeout_ms':1000,"
		"'skip':'no address is there'},%s,"
		"{'id':8,'task':'Notify','host':0,'to':'ops','timeout_ms':1000,'ignore':true}",
		ignored);
	struct run r = start(plan_of(tasks, "", ""));
	assert_int_equal(bt_engine_task(r.e, 3, NULL), BT_TASK_SKIPPED);
	expect(&r, 7, BT_DO);
	answer(&r, BT_OUTCOME_FAILED, false);
	assert_int_equal(bt_engine_task(r.e, 7, NULL), BT_TASK_SKIPPED);
	expect(&r, 8, BT_DO);
	answer(&r, BT_OUTCOME_UNKNOWN, false); /* nobody knows whether it was sent, nor minds */
	expect_end(&r, BT_END_DONE);
	end(&r);
	r = start(
		plan_of("{'id':8,'task':'Notify','host':0,'to':'ops','timeout_ms':1000}", "", ""));
	answer(&r, BT_OUTCOME_UNKNOWN, false);
	assert_int_equal(bt_engine_phase(r.e), BT_PHASE_PARKED);
	end(&r);
	/* What may have come half-way is undone, whatever the plan says of its failure. */
	r = start(plan_of(OUT DRAIN "{'id':3,'task':'LoopbackStop','host':0,'out':[0],"
				    "'timeout_ms':1000,'ignore':true}",
		"", ""));
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_DONE, false);
	answer(&r, BT_OUTCOME_FAILED, true);
	expect(&r, 3, BT_UNDO);
	end(&r);
}

/* ── a stage's own policy ── */

#define LAST                                                                                       \
	",{'name':'last','lanes':[{'name':'was2','tasks':[{'id':20,'task':'HealthCheck','host':1," \
	"'instance':1,'release':1,'timeout_ms':1000}]}]}"

static void test_policy_of_a_stage(void **state)
{
	(void)state;
	BT_FREE char *check = bt_asprintf(CHECK, "");
	struct bt_plan *p = plan_of(check, "", LAST);
	struct bt_stage *s = (struct bt_stage *)&p->stages[0];
	s->own_policy = true;
	s->on_failure = BT_ON_FAILURE_CONTINUE;
	s->continue_n = 1;
	struct run r = start(p);
	answer(&r, BT_OUTCOME_FAILED, false);
	expect(&r, 20, BT_DO); /* the plan itself would have halted */
	/* And what that stage was allowed is not what the next one may. */
	answer(&r, BT_OUTCOME_FAILED, false);
	expect_end(&r, BT_END_ROLLED_BACK);
	end(&r);
	for (int own = 0; own < 2; own++) {
		p = plan_of("{'id':1,'task':'Switch','host':2,'balancer':0,'out':[0],"
			    "'timeout_ms':1000}",
			"", LAST);
		s = (struct bt_stage *)&p->stages[1];
		s->own_policy = own;
		s->on_failure = BT_ON_FAILURE_ROLLBACK;
		r = start(p);
		answer(&r, BT_OUTCOME_DONE, false);
		expect(&r, 20, BT_DO);
		answer(&r, BT_OUTCOME_FAILED, false);
		assert_int_equal(bt_engine_phase(r.e), own ? BT_PHASE_OBSERVING : BT_PHASE_ENDED);
		assert_int_equal(bt_engine_end(r.e), own ? BT_END_NONE : BT_END_HALTED);
		end(&r);
	}
}

/* ── balancers that know one host each ── */

static void test_hosts_are_one_pool(void **state)
{
	(void)state;
	struct bt_plan *p = plan_of("{'id':1,'task':'Switch','host':2,'balancer':0,'out':[0],"
				    "'timeout_ms':1000}",
		"",
		",{'name':'b','lanes':[{'name':'was2','tasks':[{'id':2,'task':'Switch','host':2,"
		"'balancer':0,'out':[1],'timeout_ms':1000}]}]}");
	static const uint16_t not_was1[] = {0}, not_was2[] = {1};
	struct bt_plan_balancer two[] = {
		{.host = 0,
			.name = "rotation/shop",
			.own_host = true,
			.lacks = not_was2,
			.n_lacks = 1,
			.expect_one = BT_NONE},
		{.host = 1,
			.name = "rotation/shop",
			.own_host = true,
			.lacks = not_was1,
			.n_lacks = 1,
			.expect_one = BT_NONE},
	};
	struct bt_task *first = (struct bt_task *)&p->stages[0].lanes[0].tasks[0];
	struct bt_task *second = (struct bt_task *)&p->stages[1].lanes[0].tasks[0];
	p->balancers = two;
	p->n_balancers = 2;
	first->host = 0;
	second->host = second->balancer = 1;
	struct run r = start(p);
	expect(&r, 1, BT_DO);
	assert_int_equal(r.u.commands[0].n_pool, 0);
	answer(&r, BT_OUTCOME_DONE, false);
	/* The last one of all hosts stays, though its own balancer knows no other. */
	assert_int_equal(r.task, 0);
	assert_true(bt_engine_in_rotation(r.e, 1));
	assert_int_equal(bt_engine_end(r.e), BT_END_HALTED);
	end(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_address_waits_for_its_instances),
		cmocka_unit_test(test_nobody_in_without_address),
		cmocka_unit_test(test_undo_restores_the_address),
		cmocka_unit_test(test_wait_ends_by_time),
		cmocka_unit_test(test_skipped_and_ignored),
		cmocka_unit_test(test_policy_of_a_stage),
		cmocka_unit_test(test_hosts_are_one_pool),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
