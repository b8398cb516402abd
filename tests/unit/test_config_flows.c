/* flows in baton.yaml: each parameter of each type reads and is printed so that it reads again;
 * what is wrong is told in one line with its place, its task and its parameter. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "config_text.h"

#include "base/json.h"
#include "base/str.h"
#include "config/config.h"

#include <string.h>

#define HEAD                                                                                       \
	"service: shop\nhosts: [was1, was2]\nrun: {command: ./a, slots: {a: 8080, b: 8081}}\n"     \
	"deploy: {strategy: rolling}\nnotify: {ops: {url: 'http://127.0.0.1:9/x'}}\n"              \
	"traffic: {nginx: {on: web1}}\nflows:\n"

/* Of the flow that stands in the line after the head, the problems without their place's file. */
static void told(const char *flow, const char *const *lines, size_t n)
{
	BT_FREE char *text = bt_asprintf(HEAD "%s\n", flow);
	config_refused(text, NULL, lines, n);
}
#define TOLD(flow, ...)                                                                            \
	told(flow, (const char *const[]){__VA_ARGS__},                                             \
		sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static const struct bt_flow *flow_of(const struct bt_config *c, const char *name)
{
	const struct bt_service *s = &c->services[0];
	for (size_t i = 0; i < s->n_flows; i++)
		if (bt_streq(s->flows[i].name, name))
			return &s->flows[i];
	fail_msg("no flow %s", name);
	return NULL;
}

static void stages(void **state)
{
	(void)state;
	struct bt_config *c = config_of(HEAD
		"  alone: [L4TurnOffTask, {TomcatStopTask: }, InstanceStart, HealthCheck, "
		"{Switch: {to: in}}]\n"
		"  night:\n"
		"    - {once: [{Approve: {within: 30m}}, {Notify: {to: ops}}]}\n"
		"    - {name: half, per: instance, batch: 50%, min_in_rotation: 0, on_failure: "
		"{continue: 3}, tasks: [L4TurnOff]}\n"
		"    - {per: host, batch: 2, on_failure: halt, tasks: [LoopbackStop]}\n"
		"    - {per: once, tasks: [{Wait: {for: 10s}}]}\n",
		NULL);
	const struct bt_flow *f = flow_of(c, "alone");
	static const enum bt_task_kind kinds[] = {BT_TASK_L4_TURN_OFF, BT_TASK_TOMCAT_STOP,
		BT_TASK_INSTANCE_START, BT_TASK_HEALTH_CHECK, BT_TASK_SWITCH};
	assert_int_equal(f->n_stages, 1);
	assert_int_equal(f->stages[0].per, BT_PER_HOST);
	assert_int_equal(f->stages[0].min_in_rotation, -1);
	assert_int_equal(f->stages[0].n_tasks, BT_ARRAY_LEN(kinds));
	for (size_t i = 0; i < BT_ARRAY_LEN(kinds); i++)
		assert_int_equal(f->stages[0].tasks[i].kind, kinds[i]);
	f = flow_of(c, "night");
	assert_int_equal(f->n_stages, 4);
	assert_int_equal(f->stages[0].per, BT_PER_ONCE);
	assert_string_equal(f->stages[1].name, "half");
	assert_int_equal(f->stages[1].per, BT_PER_INSTANCE);
	assert_true(f->stages[1].batch_percent);
	assert_int_equal(f->stages[1].batch, 50);
	assert_int_equal(f->stages[1].min_in_rotation, 0);
	assert_int_equal(f->stages[1].on_failure, BT_ON_FAILURE_CONTINUE);
	assert_int_equal(f->stages[1].continue_n, 3);
	assert_int_equal(f->stages[2].batch, 2);
	assert_false(f->stages[2].batch_percent);
	assert_int_equal(f->stages[2].on_failure, BT_ON_FAILURE_HALT);
	assert_int_equal(f->stages[3].per, BT_PER_ONCE);
	config_same_again(c);
	bt_config_free(c);
}

/* One of each type (enum bt_param_type), and each of them left out where it may be. */
static void parameters(void **state)
{
	(void)state;
	struct bt_config *c = config_of(HEAD
		"  f:\n"
		"    - {per: instance, tasks: [{L4TurnOff: {drain: 0s}}, {Drain: {drain: 90s}}, "
		"{Switch: {to: out}}, {Exec: {run: './x \"a b\" {port}', timeout: 100ms, env: {A: "
		"'{slot}', B: ''}, repeat: safe}}]}\n"
		"    - {once: [{Exec: {run: [./y], on: web1}}, {run: [./y], on: balancer}, {Exec: "
		"{run: [./y], on: was2, repeat: never}}, {Notify: {to: ops, message: 'it is: "
		"{host}'}}, {Wait: {for: 1500ms}}, {Approve: {within: 2h}}]}\n",
		NULL);
	const struct bt_flow *f = flow_of(c, "f");
	const struct bt_hook *t = f->stages[0].tasks;
	assert_int_equal(t[0].within_ms, 0);
	assert_int_equal(t[1].within_ms, 90000);
	assert_true(t[2].out);
	assert_int_equal(t[3].exec.n_run, 3);
	assert_string_equal(t[3].exec.run[1], "a b");
	assert_int_equal(t[3].timeout_ms, 100);
	assert_int_equal(t[3].exec.n_env, 2);
	assert_string_equal(t[3].exec.env[0].value, "{slot}");
	assert_true(t[3].exec.safe);
	t = f->stages[1].tasks;
	assert_int_equal(t[0].on, BT_ON_HOST);
	assert_string_equal(t[0].host, "web1");
	assert_int_equal(t[0].timeout_ms, bt_task_info(BT_TASK_EXEC)->timeout_ms);
	assert_int_equal(t[1].on, BT_ON_BALANCER);
	assert_string_equal(t[2].host, "was2");
	assert_false(t[2].exec.safe);
	assert_string_equal(t[3].to, "ops");
	assert_string_equal(t[3].message, "it is: {host}");
	assert_int_equal(t[4].within_ms, 1500);
	assert_int_equal(t[5].within_ms, 7200000);
	config_same_again(c);
	bt_config_free(c);
	/* A drain of no time at all is not the same as none said. */
	c = config_of(HEAD "  f: [L4TurnOff, {L4TurnOff: {}}]\n", NULL);
	assert_int_equal(flow_of(c, "f")->stages[0].tasks[0].within_ms, -1);
	assert_int_equal(flow_of(c, "f")->stages[0].tasks[1].within_ms, -1);
	config_same_again(c);
	bt_config_free(c);
}

#define TASK_EXPECTED                                                                              \
	"expected a task such as L4TurnOff, {run: [./migrate.sh, --up]} or {Approve: {within: "    \
	"30m}}, found "
#define LIST_COMMAND " (baton flows --tasks lists them)"

static void no_tasks(void **state)
{
	(void)state;
	TOLD("  f: [L4TurnOf]", "f:8:7: flows.f: " TASK_EXPECTED
				"'L4TurnOf' (did you mean 'L4TurnOff'?)" LIST_COMMAND);
	TOLD("  f: [{L4TurnOfTask: {drain: 5s}}]",
		"f:8:8: flows.f: " TASK_EXPECTED
		"'L4TurnOfTask' (did you mean 'L4TurnOffTask'?)" LIST_COMMAND);
	TOLD("  f: [Observe]", "f:8:7: flows.f: " TASK_EXPECTED "'Observe'" LIST_COMMAND);
	TOLD("  f: [null]", "f:8:7: flows.f: " TASK_EXPECTED "nothing" LIST_COMMAND);
	TOLD("  f: [[L4TurnOff]]", "f:8:7: flows.f: " TASK_EXPECTED "a list" LIST_COMMAND);
	TOLD("  f: [{L4TurnOff: , drain: 5s}]",
		"f:8:7: flows.f: " TASK_EXPECTED
		"a map of 'L4TurnOff' and 'drain': it takes one task's name, and the task's "
		"parameters below that" LIST_COMMAND);
}

static void wrong_types(void **state)
{
	(void)state;
#define DURATION "expected a duration with a unit such as 500ms, 30s, 5m, 2h, found "
	TOLD("  f: [{Drain: {drain: 5}}]", "f:8:23: flows.f: Drain.drain: " DURATION "'5'");
	TOLD("  f: [{L4TurnOff: {drain: [5s]}}]",
		"f:8:27: flows.f: L4TurnOff.drain: " DURATION "a list");
	TOLD("  f: [{Wait: {for: 0s}}, {Wait: {for: 25h}}]",
		"f:8:20: flows.f: Wait.for: expected 1ms to 1d, found '0s'",
		"f:8:39: flows.f: Wait.for: expected 1ms to 1d, found '25h'");
	TOLD("  f: [{Exec: {run: {a: b}}}]",
		"f:8:20: flows.f: Exec.run: expected a command such as java -jar {artifact}, or a "
		"list, found a map");
	TOLD("  f: [{Exec: {run: './x {prot}'}}]",
		"f:8:20: flows.f: Exec.run: expected only the placeholders {artifact} {release} "
		"{port} {port.NAME} {slot} {host} ({{ writes a brace), found '{prot}'");
	TOLD("  f: [{Exec: {run: x, env: [a], repeat: maybe, timeout: soon}}]",
		"f:8:28: flows.f: Exec.env: expected a map of names to texts, found a list",
		"f:8:41: flows.f: Exec.repeat: expected safe or never, found 'maybe'",
		"f:8:57: flows.f: Exec.timeout: " DURATION "'soon'");
	TOLD("  f: [{once: [{Exec: {run: x, on: 'a b'}}]}]",
		"f:8:35: flows.f: Exec.on: expected once, each host, each instance, balancer or "
		"the name of a host, found 'a b'");
	TOLD("  f: [{Switch: {to: up}}]", "f:8:21: flows.f: Switch.to: expected in or out, found "
					  "'up'");
	TOLD("  f: [{once: [{Notify: {to: 'a b', message: [x]}}]}]",
		"f:8:29: flows.f: Notify.to: expected a name of letters, digits, '.', '_' and "
		"'-', found 'a b'",
		"f:8:45: flows.f: Notify.message: expected a text, found a list");
	/* Parameters as a whole. */
	TOLD("  f: [{Switch: up}]", "f:8:16: flows.f: Switch: expected its parameter to, such as "
				    "{Switch: {to: in}}, found 'up'");
	TOLD("  f: [{TomcatStop: {wait: 5s}}]",
		"f:8:21: unknown key 'wait' in flows.f: TomcatStop, expected no parameter: "
		"TomcatStop alone");
	TOLD("  f: [{L4TurnOff: {darin: 5s}}]",
		"f:8:20: unknown key 'darin' in flows.f: L4TurnOff, expected its parameter drain, "
		"such as {L4TurnOff: {drain: 30s}} (did you mean 'drain'?)");
	TOLD("  f: [Switch, {once: [Approve]}]",
		"f:8:15: flows.f: expected tasks alone or stages alone, found both: put the tasks "
		"into a stage of their own, {per: host, tasks: [...]}");
	TOLD("  f: [Switch, Wait]",
		"f:8:7: flows.f: Switch.to is missing: expected such as {Switch: {to: in}}",
		"f:8:15: flows.f: Wait.for is missing: expected such as {Wait: {for: 10s}}");
}

static void wrong_stages(void **state)
{
	(void)state;
	TOLD("  f: []", "f:8:6: flows.f: expected a list of stages or tasks such as [L4TurnOff, "
			"TomcatStop], found an empty list");
	TOLD("  f: L4TurnOff", "f:8:6: flows.f: expected a list of stages or tasks such as "
			       "[L4TurnOff, TomcatStop], found 'L4TurnOff'");
	TOLD("  f: [{once: TomcatStop}]",
		"f:8:14: flows.f: expected a list of tasks such as [L4TurnOff, TomcatStop], found "
		"'TomcatStop'");
	TOLD("  f: [{per: hosts, batch: many, min_in_rotation: -1, on_failure: go, tasks: "
	     "[L4TurnOff]}]",
		"f:8:13: flows.f: per: expected host, instance or once, found 'hosts' (did you "
		"mean 'host'?)",
		"f:8:27: flows.f: batch: expected instances at a time such as 2, or a share such "
		"as 50%, found 'many'",
		"f:8:50: flows.f: min_in_rotation: expected a whole number from 0 to 8192, found "
		"'-1'",
		"f:8:66: flows.f: on_failure: expected rollback, halt or continue, found 'go'");
	TOLD("  f: [{per: host}]",
		"f:8:7: flows.f: tasks are missing: expected name, per, batch, min_in_rotation, "
		"on_failure and tasks, such as {per: host, batch: 1, tasks: [L4TurnOff, "
		"TomcatStop]}");
	TOLD("  'a b': [L4TurnOff]", "f:8:3: flows: expected a name of letters, digits, '.', '_' "
				     "and '-', found 'a b'");
	BT_STR struct bt_str many = {0};
	bt_str_add(&many, "  f: [");
	for (int i = 0; i < 101; i++)
		bt_str_addf(&many, "%s", i ? ", L4TurnOff" : "L4TurnOff");
	bt_str_add(&many, "]");
	TOLD(bt_str_get(&many), "f:8:6: flows.f: expected at most 100 stages or tasks, found 101");
}

/* What only holds together, at the task's own place. */
static void wrong_places(void **state)
{
	(void)state;
	TOLD("  f: [{once: [L4TurnOff]}]",
		"f:8:15: flows.f: L4TurnOff stands in stages per host or per instance, found in a "
		"stage once: expected {per: host, tasks: [...]}");
	TOLD("  f: [{per: instance, tasks: [L4TurnOff, LoopbackStop]}]",
		"f:8:42: flows.f: LoopbackStop stands in stages per host, found in a stage per "
		"instance: expected {per: host, tasks: [...]}");
	TOLD("  f: [{Notify: {to: nobody}}]",
		"f:8:7: flows.f: Notify stands in stages `once`, found in a stage per host: "
		"expected {once: [...]}",
		"f:8:7: flows.f: Notify.to: nobody is called 'nobody' in `notify`");
	TOLD("  f: [{Exec: {run: x, on: was1}}]",
		"f:8:7: flows.f: Exec.on: only in stages `once`: a lane's Exec runs on its host");
	TOLD("  f: [{once: [{Exec: {run: x, on: each host}}, {Exec: {run: x, on: mars}}]}]",
		"f:8:15: flows.f: Exec.on: expected balancer or a host's name: `per: host` is for "
		"each host",
		"f:8:48: flows.f: Exec.on: expected balancer or a host of the service or of its "
		"balancer, found 'mars'");
	TOLD("  f: [L4TurnOff, {Exec: {run: './x {port}'}}, {Exec: {run: x, env: {A: "
	     "'{slot}'}}}]",
		"f:8:18: flows.f: Exec: {port} and {slot} are an instance's: use per: instance",
		"f:8:47: flows.f: Exec: {port} and {slot} are an instance's: use per: instance");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stages),
		cmocka_unit_test(parameters),
		cmocka_unit_test(no_tasks),
		cmocka_unit_test(wrong_types),
		cmocka_unit_test(wrong_stages),
		cmocka_unit_test(wrong_places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
