/* The codecs of plan and world: what is written reads back the same, and nothing that does not hold
 * gets in. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/json.h"
#include "base/str.h"
#include "model/plan.h"
#include "model/world.h"

#include <string.h>

static const char plan_text[] =
	"{'version':1,'purpose':'deploy','service':'shop','strategy':'blue-green','release':2,"
	"'old_release':1,'releases':[{'id':1,'version':'v1','digest':'aa'},{'id':2,'version':'v2'}]"
	","
	"'hosts':['was1','web1'],'instances':[{'host':0,'slot':'blue','port':8081,"
	"'address':'10.0.0.1','expect_release':1,'expect_in':true},{'host':0,'slot':'green',"
	"'port':8082,'address':'10.0.0.1','expect_release':0,'expect_in':false}],"
	"'balancers':[{'host':1,'name':'nginx/shop','expect_generation':7}],'stages':["
	"{'name':'start','why':'green is idle','lanes':[{'name':'was1/green','tasks':["
	"{'id':1,'task':'InstanceStart','host':0,'instance':1,'release':2,'timeout_ms':60000},"
	"{'id':2,'task':'HealthCheck','host':0,'instance':1,'release':2,'timeout_ms':60000}]}]},"
	"{'name':'cutover','side_by_side':1,'lanes':[{'name':'web1','tasks':[{'id':3,'task':'"
	"Switch',"
	"'host':1,'balancer':0,'in':[1],'out':[0],'timeout_ms':60000},{'id':4,'task':'Drain',"
	"'host':1,'balancer':0,'out':[0],'timeout_ms':30000,'wait_ms':30000,'why':'w'}]}]}],"
	"'timeout_ms':1800000,'on_failure':'rollback','continue_n':0,'on_drain_timeout':'continue',"
	"'min_in_rotation':1,"
	"'notes':['a note']}";

static const char world_text[] =
	"{'version':1,'hosts':[{'host':'was1','address':'10.0.0.1','agent_version':'0.1.0',"
	"'free_bytes':5,'can_bind_low':true,'instances':[{'slot':'blue','port':8081,"
	"'state':'running','release':1,'version':'v1','pid':12,'holder':'java (pid 812)',"
	"'identity':'blue','since_wall_ms':99,'restarts':2,'connections':3,'healthy':false,'"
	"unhealthy_why':'503'}],'balancers':[{'name':'"
	"nginx/shop',"
	"'generation':7,'running':true,'members':[{'address':'10.0.0.1','port':8081,'in':true}],"
	"'identity':'blue','old_workers':1,'trouble':'t'}],'releases':[1,2]}]}";

/* JSON with ' for ", and the first `from` in it replaced by `to`. */
static json_t *parse(const char *text, const char *from, const char *to)
{
	BT_STR struct bt_str s = {0};
	const char *at = from ? strstr(text, from) : NULL;
	assert_true(!from || at);
	bt_str_addn(&s, text, at ? (size_t)(at - text) : strlen(text));
	if (at) {
		bt_str_add(&s, to);
		bt_str_add(&s, at + strlen(from));
	}
	for (size_t i = 0; i < s.len; i++)
		if (s.data[i] == '\'')
			s.data[i] = '"';
	json_t *j = NULL;
	struct bt_err err = {0};
	if (bt_json_parse(s.data, s.len, 1 << 20, &j, &err) < 0)
		fail_msg("%s: %s", err.text, s.data);
	return j;
}

static void plan_round_trip(void **state)
{
	(void)state;
	BT_JSON json_t *j = parse(plan_text, NULL, NULL);
	struct bt_plan *p = NULL;
	struct bt_err err = {0};
	if (bt_plan_from_json(j, &p, &err) < 0)
		fail_msg("%s", err.text);
	BT_JSON json_t *again = bt_plan_to_json(p);
	assert_true(json_equal(j, again));
	assert_int_equal(p->stages[0].lanes[0].tasks[0].balancer, BT_NONE);
	assert_string_equal(bt_plan_release(p, 2)->version, "v2");
	assert_null(bt_plan_release(p, 0));
	bt_plan_free(p);
	assert_null(bt_plan_free(NULL));
}

static void plan_refuses(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to, *says;
	} cases[] = {
		{"'version':1", "'version':2", "version"},
		{"'deploy'", "'destroy'", "purpose"},
		{"'instance':1", "'instance':2", "instance"},
		{"'instance':1", "'instance':-1", "instance"},
		{"'instance':1,", "", "needs an instance"},
		{"'balancer':0", "'balancer':1", "balancer"},
		{"'balancer':0,", "", "needs a balancer"},
		{"'in':[1]", "'in':[2]", "no index"},
		{"'in':[1]", "'in':[0,1,0]", "more than 2"},
		{"'in':[1],'out':[0],", "", "in 'in' or 'out'"},
		{"'host':1,'balancer'", "'host':0,'balancer'", "not on its host"},
		{"'host':0,'instance'", "'host':1,'instance'", "not on its host"},
		{"'release':2,'timeout_ms'", "'release':9,'timeout_ms'", "not in 'releases'"},
		{"'release':2,'timeout_ms'", "'timeout_ms'", "needs a release"},
		{"'old_release':1", "'old_release':8", "old_release"},
		{"'id':2,'task'", "'id':1,'task'", "used twice"},
		{"'InstanceStart'", "'Dance'", "unknown task"},
		{"'timeout_ms':60000", "'timeout_ms':99999999999999", "timeout_ms"},
		{"'timeout_ms':60000", "'timeout_ms':true", "timeout_ms"},
		{"'notes':['a note']", "'notes':[1]", "notes"},
		{"'min_in_rotation':1", "'min_in_rotation':-1", "min_in_rotation"},
		{"'lanes':[", "'lanes':[],'x':[", "without a lane"},
		{"'tasks':[", "'tasks':[],'x':[", "without a task"},
		{"'port':8081", "'port':65536", "port"},
		{"'id':1,'version'", "'id':0,'version'", "no release"},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		BT_JSON json_t *j = parse(plan_text, cases[i].from, cases[i].to);
		struct bt_plan *p = NULL;
		struct bt_err err = {0};
		if (bt_plan_from_json(j, &p, &err) != BT_E_PROTOCOL)
			fail_msg("case %zu (%s) was taken", i, cases[i].to);
		if (!strstr(err.text, cases[i].says))
			fail_msg("case %zu: '%s' does not say '%s'", i, err.text, cases[i].says);
		assert_null(p);
	}
	struct bt_plan *p = NULL;
	BT_JSON json_t *list = json_array();
	assert_int_equal(bt_plan_from_json(list, &p, NULL), -5);
}

static void world_round_trip(void **state)
{
	(void)state;
	BT_JSON json_t *j = parse(world_text, NULL, NULL);
	struct bt_world *w = NULL;
	struct bt_err err = {0};
	if (bt_world_from_json(j, &w, &err) < 0)
		fail_msg("%s", err.text);
	BT_JSON json_t *again = bt_world_to_json(w);
	assert_true(json_equal(j, again));
	assert_int_equal(w->hosts[0].instances[0].state, BT_RUN_RUNNING);
	bt_world_free(w);

	/* What an older agent does not say is absent, not an error. */
	BT_JSON json_t *old = parse(
		"{'version':1,'hosts':[{'host':'a','instances':[],'balancers':[],'releases':[],"
		"'new_member':1}]}",
		NULL, NULL);
	assert_int_equal(bt_world_from_json(old, &w, &err), 0);
	assert_null(w->hosts[0].address);
	assert_false(w->hosts[0].can_bind_low);
	bt_world_free(w);
}

static void world_refuses(void **state)
{
	(void)state;
	static const char *const cases[][3] = {
		{"'state':'running'", "'state':'flying'", "flying"},
		{"'releases':[1,2]", "'releases':[0]", "no release"},
		{"'releases':[1,2]", "'releases':[1,4294967296]", "no release"},
		{"'generation':7", "'generation':-7", "generation"},
		{"'port':8081,'in'", "'port':99999,'in'", "members[0]"},
		{"'host':'was1',", "", "'host'"},
		{"'pid':12", "'pid':'12'", "pid"},
		{"'version':1", "'version':0", "version"},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		BT_JSON json_t *j = parse(world_text, cases[i][0], cases[i][1]);
		struct bt_world *w = NULL;
		struct bt_err err = {0};
		if (bt_world_from_json(j, &w, &err) != BT_E_PROTOCOL)
			fail_msg("case %zu was taken", i);
		if (!strstr(err.text, cases[i][2]))
			fail_msg("case %zu: '%s' does not say '%s'", i, err.text, cases[i][2]);
	}
}

static void enums(void **state)
{
	(void)state;
	int v = -1;
	struct bt_err err = {0};
	assert_int_equal(bt_enum_parse(&bt_enum_strategy, "rolling", &v, &err), 0);
	assert_int_equal(v, BT_STRATEGY_ROLLING);
	assert_string_equal(bt_enum_name(&bt_enum_strategy, v), "rolling");
	assert_int_equal(bt_enum_parse(&bt_enum_strategy, "bluegreen", &v, &err), BT_E_CONFIG);
	assert_string_equal(err.text, "expected blue-green, rolling, recreate or canary, found "
				      "'bluegreen' (did you mean 'blue-green'?)");
	assert_true(bt_name_valid("was-1.example_2"));
	assert_false(bt_name_valid(""));
	assert_false(bt_name_valid(".."));
	assert_false(bt_name_valid("a/b"));
	assert_false(bt_name_valid(
		"a123456789012345678901234567890123456789012345678901234567890123456789"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plan_round_trip),
		cmocka_unit_test(plan_refuses),
		cmocka_unit_test(world_round_trip),
		cmocka_unit_test(world_refuses),
		cmocka_unit_test(enums),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
