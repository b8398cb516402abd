/* baton.yaml: what reads, what is refused with which words, and that what is printed reads back to
 * the same, for the examples and for thousands of random services. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "config_text.h"
#include "expect.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"
#include "config/config.h"
#include "config/keys.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *env(void *arg, const char *name)
{
	(void)arg;
	if (bt_streq(name, "APP_HOME"))
		return "/home/app";
	if (bt_streq(name, "PWD"))
		return "/home/ec2-user/example";
	if (bt_streq(name, "BUILD_NUMBER"))
		return "17";
	return bt_streq(name, "PORT") ? "9100" : NULL;
}

#define REFUSED(text, ...)                                                                         \
	config_refused(text, env, (const char *const[]){__VA_ARGS__},                              \
		sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

#define MINIMAL "service: a\nrun:\n  command: ./a\n  slots: {x: 1001, y: 1002}\n"

static void examples(void **state)
{
	(void)state;
	static const char *const names[] = {
		"minimal", "blog", "webservice", "assemble", "shop", "tomcat"};
	for (size_t i = 0; i < BT_ARRAY_LEN(names); i++) {
		struct bt_err err = {0};
		BT_FREE char *path =
			bt_asprintf("%s/../../examples/%s/baton.yaml", GOLDEN_DIR, names[i]);
		BT_FREE char *text = NULL;
		if (bt_fs_read(path, 1 << 20, &text, NULL, &err) < 0)
			fail_msg("%s", err.text);
		struct bt_config *c = config_of(text, env);
		config_same_again(c);
		BT_STR struct bt_str print = {0};
		bt_config_print(c, &print);
		BT_FREE char *file = bt_asprintf("%s.yaml", names[i]);
		is_golden(bt_str_get(&print), "config/%s", file);
		bt_config_free(c);
	}
}

/* Every example of docs/config.md reads. */
static void documented(void **state)
{
	(void)state;
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/../../docs/config.md", GOLDEN_DIR);
	BT_FREE char *doc = NULL;
	size_t n = 0;
	if (bt_fs_read(path, 1 << 20, &doc, NULL, &err) < 0)
		fail_msg("%s", err.text);
	for (const char *at = doc; (at = strstr(at, "```yaml\n")); n++) {
		at += strlen("```yaml\n");
		const char *end = strstr(at, "```");
		assert_non_null(end);
		BT_FREE char *text = bt_strndup(at, (size_t)(end - at));
		struct bt_config *c = config_of(text, env);
		config_same_again(c);
		bt_config_free(c);
		at = end + 3;
	}
	assert_true(n >= 3);
}

static void values(void **state)
{
	(void)state;
	struct bt_config *c = config_of(
		"env: [PORT]\n"
		"service: shop\n"
		"run:\n"
		"  command: >-\n    java -Da=\"b c\" 'd e'f \\ g '{\"port\": {port}}' \"\"\n"
		"  slots: {blue: '${PORT}', green: 9101}\n"
		"  env: {A: 'x$${B}', C: \"{port}\"}\n"
		"  stop: {signal: SIGINT, grace: 5s}\n"
		"deploy: {on_failure: {continue: 3}, bake_max_5xx: 2.5%, batch: 1}\n"
		"identity: /profile\n",
		env);
	const struct bt_service *s = bt_config_find(c, NULL);
	static const char *const argv[] = {
		"java", "-Da=b c", "d ef", " g", "{\"port\": {port}}", ""};
	assert_int_equal(s->run.n_command, BT_ARRAY_LEN(argv));
	for (size_t i = 0; i < BT_ARRAY_LEN(argv); i++)
		assert_string_equal(s->run.command[i], argv[i]);
	assert_int_equal(s->run.slots[0].port, 9100);
	assert_string_equal(s->run.env[0].value, "x${B}");
	assert_int_equal(s->run.n_stop, 2);
	assert_int_equal(s->run.stop[0].signal, SIGINT);
	assert_int_equal(s->run.stop[0].wait_ms, 5000);
	assert_int_equal(s->run.stop[1].signal, SIGKILL);
	assert_int_equal(s->deploy.on_failure, BT_ON_FAILURE_CONTINUE);
	assert_int_equal(s->deploy.continue_n, 3);
	assert_true(s->deploy.bake_max_5xx > 0.0249 && s->deploy.bake_max_5xx < 0.0251);
	assert_string_equal(s->hosts[0], "local");
	assert_int_equal(s->health.kind, BT_HEALTH_TCP);
	assert_string_equal(s->identity.path, "/profile");
	assert_string_equal(s->identity.expect, "{slot}");
	assert_null(s->nginx);
	assert_int_equal(s->run.limits.nofile, -1);
	assert_int_equal(s->deploy.min_in_rotation, -1);
	assert_int_equal(s->line, 1);
	assert_string_equal(s->file, "baton.yaml");
	config_same_again(c);
	bt_config_free(c);
}

static void several(void **state)
{
	(void)state;
	struct bt_config *c =
		config_of(MINIMAL "---\n" /* and a second document */
				  "service: b\nrun: {command: b, slots: {x: 1, y: 2}}\n",
			env);
	assert_int_equal(c->n_services, 2);
	assert_null(bt_config_find(c, NULL));
	assert_int_equal(bt_config_find(c, "b")->line, 6);
	assert_null(bt_config_find(c, "c"));
	config_same_again(c);
	struct bt_config *d =
		config_of("services:\n"
			  "  - {service: d, run: {command: d, slots: {x: 3, y: 4}}}\n"
			  "  - {service: e, run: {command: e, slots: {x: 5, y: 6}}}\n",
			env);
	struct bt_err err = {0};
	assert_int_equal(bt_config_merge(c, d, NULL, &err), 0);
	assert_int_equal(c->n_services, 4);
	config_same_again(c);
	struct bt_config_problems problems = {0};
	d = config_of("service: b\nrun: {command: b, slots: {x: 7, y: 1}}\n", env);
	assert_int_equal(bt_config_merge(c, d, &problems, &err), BT_E_CONFIG);
	assert_int_equal(problems.n, 2);
	assert_string_equal(problems.items[0].line,
		"baton.yaml:1:1: service b is defined twice, first in baton.yaml:6");
	assert_string_equal(problems.items[1].line,
		"baton.yaml:1:1: port 1 of b (y) on host local is taken by x of b");
	assert_int_equal(c->n_services, 4);
	bt_config_problems_done(&problems);
	bt_config_free(c);
	/* anchors share what services have in common */
	c = config_of("services:\n  a: {run: &r {command: x, slots: {x: 1, y: 2}}, hosts: [h1]}\n"
		      "  b: {run: *r, hosts: [h2]}\n",
		env);
	assert_int_equal(bt_config_find(c, "b")->run.slots[1].port, 2);
	config_same_again(c);
	bt_config_free(c);
}

/* A CodeDeploy bundle needs no command; what its scripts or its configuration say has no key. */
static void bundles(void **state)
{
	(void)state;
	struct bt_config *c =
		config_of("service: b\nhosts: [h1, h2, h3]\nrun: {as: bundle, appspec: a.yml, "
			  "slots: {main: 81}}\ndeploy: {codedeploy: {config: "
			  "CodeDeployDefault.HalfAtATime}}\n",
			env);
	const struct bt_service *s = &c->services[0];
	assert_int_equal(s->run.as, BT_RUNTIME_BUNDLE);
	assert_string_equal(s->run.appspec, "a.yml");
	assert_int_equal(s->deploy.codedeploy.config, BT_CODEDEPLOY_HALF_AT_A_TIME);
	assert_int_equal(s->deploy.codedeploy.min_healthy, -1);
	assert_int_equal(s->deploy.strategy, BT_STRATEGY_ROLLING);
	assert_true(bt_config_unpacks(s, "revision.tar"));
	config_same_again(c);
	bt_config_free(c);
	c = config_of("service: b\nrun: {as: bundle, slots: {x: 81, y: 82}}\ntraffic: {nginx: {}}\n"
		      "deploy: {codedeploy: {minimum_healthy_hosts: 75%, style: blue-green, "
		      "ignore_application_stop_failures: true}}\n",
		env);
	s = &c->services[0];
	assert_int_equal(s->deploy.codedeploy.min_healthy, 75);
	assert_true(s->deploy.codedeploy.min_healthy_percent);
	assert_true(s->deploy.codedeploy.ignore_stop_failures);
	assert_int_equal(s->deploy.strategy, BT_STRATEGY_BLUE_GREEN);
	config_same_again(c);
	bt_config_free(c);
	REFUSED("service: b\nrun:\n  as: bundle\n  command: x\n  stop: {signal: TERM}\n"
		"  slots: {main: 81}\ndeploy:\n  batch: 2\n  on_failure: continue 1\n"
		"  codedeploy: {config: OneAtTime, minimum_healthy_hosts: 1, style: blue-green}\n",
		"f:4:12: run.command: not with run.as: bundle, whose own scripts start and stop it",
		"f:5:9: run.stop: not with run.as: bundle, whose own scripts start and stop it",
		"f:6:10: run.slots: blue-green needs at least 2 slots, found 1 (or strategy: "
		"rolling)",
		"f:8:10: deploy.batch: only with strategy: rolling or canary",
		"f:8:10: deploy.batch: not with run.as: bundle, where deploy.codedeploy says it",
		"f:9:15: deploy.on_failure: expected rollback or halt: how many hosts may fail is "
		"said by deploy.codedeploy",
		"f:10:24: deploy.codedeploy.config: expected OneAtATime, HalfAtATime or AllAtOnce, "
		"found 'OneAtTime' (did you mean 'OneAtATime'?)",
		"f:10:24: deploy.codedeploy.config: minimum_healthy_hosts is given, too: expected "
		"one of them",
		"f:10:58: deploy.codedeploy.minimum_healthy_hosts: with that many hosts none is "
		"left to deploy to",
		"f:10:68: deploy.codedeploy.style: blue-green needs `traffic`: without a balancer "
		"nothing can take over");
	REFUSED(MINIMAL "deploy: {codedeploy: {config: AllAtOnce}}\n",
		"f:5:31: deploy.codedeploy.config: only with run.as: bundle");
}

static void problems(void **state)
{
	(void)state;
	REFUSED("service: shop\nhelth: {http: /}\nrun:\n  comand: x\n  slots: {blue: 1}\n"
		"deploy: {drain: 30, bake: -5s, keep: 0, strategy: bluegreen}\n",
		"f:1:1: 'run.command' is missing: expected for example run.command: java -jar "
		"{artifact} "
		"--server.port={port}",
		"f:2:1: unknown key 'helth' (did you mean 'health'?)",
		"f:4:3: unknown key 'comand' in run (did you mean 'command'?)",
		"f:5:10: run.slots: blue-green needs at least 2 slots, found 1 (or strategy: "
		"rolling)",
		"f:6:17: deploy.drain: expected a duration with a unit such as 500ms, 30s, 5m, 2h, "
		"found '30'",
		"f:6:27: deploy.bake: expected a duration with a unit such as 500ms, 30s, 5m, 2h, "
		"found '-5s'",
		"f:6:38: deploy.keep: expected a whole number from 1 to 1000, found '0'",
		"f:6:51: deploy.strategy: expected blue-green, rolling, recreate or canary, found "
		"'bluegreen' (did you mean 'blue-green'?)");
	REFUSED("service: a\nservice: b\nrun: {command: x, slots: {x: 1, y: 1}}\n",
		"f:2:1: duplicate key 'service': it is on line 1 already",
		"f:3:36: run.slots: slots x and y have the same port 1");
	REFUSED("", "f:1:1: no service: expected a map that begins with 'service: NAME' or "
		    "'services:'");
	REFUSED("- a\n", "f:1:1: expected a map that begins with 'service: NAME' or 'services:', "
			 "found a list");
	REFUSED("service: [\n", "f:2:1: not valid YAML: did not find expected node content while "
				"parsing a flow node");
	REFUSED(MINIMAL "health: {http: /h, tcp: true}\n",
		"f:5:25: health.tcp: only one of http, https, tcp and exec (another is on line 5)");
	REFUSED(MINIMAL "health: {tcp: true, expect: {status: 200}}\n",
		"f:5:29: health.expect: only with health.http or health.https");
	REFUSED(MINIMAL "health: {http: /h, within: 1s, passes: 10}\n",
		"f:5:28: health.within: too short for health.passes checks with health.every "
		"between them");
	REFUSED(MINIMAL "deploy:\n", "f:5:8: deploy: expected a map of its keys, found nothing");
	REFUSED(MINIMAL "hosts: [a, a, ../b]\n", "f:5:12: hosts: 'a' is listed twice",
		"f:5:15: hosts: expected a name of letters, digits, '.', '_' and '-', found "
		"'../b'");
	REFUSED("service: a\nrun: {command: 'x {prot}', slots: {x: 70000, y: 2}, env: {K: v, 1: "
		"x}, secrets: [K]}\n",
		"f:2:16: run.command: expected only the placeholders {artifact} {release} {port} "
		"{port.NAME} {slot} {host} ({{ writes a brace), found '{prot}'",
		"f:2:39: run.slots: expected a whole number from 1 to 65535, found '70000'",
		"f:2:65: run.env: expected a name such as JAVA_OPTS, found '1'",
		"f:2:81: run.secrets: K is in run.env too: keep one of them");
	REFUSED(MINIMAL "unpack: 'yes'\nrun2: 1\n",
		"f:5:9: unpack: expected true or false, found 'yes'",
		"f:6:1: unknown key 'run2' (did you mean 'run'?)");
	REFUSED(MINIMAL "artifact: ${VERSION}.jar\n",
		"f:5:11: ${VERSION} is not declared: put 'env: [VERSION]' at the top of the file, "
		"or write $${VERSION} for the text");
	REFUSED("env: [VERSION]\n" MINIMAL "artifact: ${VERSION}.jar\n",
		"f:6:11: ${VERSION} is not set in the environment");
	REFUSED(MINIMAL "deploy: {hooks: {before: [{run: [./a], on: local}, {Aprove: {}}]}}\n",
		"f:5:53: deploy.hooks.before: expected a task such as L4TurnOff, {run: "
		"[./migrate.sh, --up]} or {Approve: {within: 30m}}, found 'Aprove' (did you mean "
		"'Approve'?) (baton flows --tasks lists them)");
	REFUSED(MINIMAL
		"deploy: {hooks: {before: [{run: './a {port}'}, {run: b, on: each instance}, "
		"{run: c, on: was9}], on_failure: [{Approve: {within: 1m}}]}}\n",
		"f:5:27: deploy.hooks.before: {port} and {slot}: there are new instances in "
		"before_switch and after_switch only",
		"f:5:48: deploy.hooks.before: on: each instance: there are new instances in "
		"before_switch and after_switch only",
		"f:5:77: deploy.hooks.before: on: expected once, each host, each instance or one "
		"of "
		"the service's hosts, found 'was9'",
		"f:5:111: deploy.hooks.on_failure: Approve: nobody is asked once a run has failed");
	REFUSED(MINIMAL
		"deploy: {hooks: {before_switch: [{run: [a], timeout: 5, repeat: maybe, onn: "
		"once}, {Approve: {}}], after: []}}\n",
		"f:5:54: deploy.hooks.before_switch: Exec.timeout: expected a duration with a unit "
		"such as 500ms, 30s, 5m, 2h, found '5'",
		"f:5:65: deploy.hooks.before_switch: Exec.repeat: expected safe or never, found "
		"'maybe'",
		"f:5:72: unknown key 'onn' in deploy.hooks.before_switch: Exec, expected its "
		"parameters run, on, timeout, env and repeat, such as {Exec: {run: [./migrate.sh, "
		"--up]}} (did you mean "
		"'on'?)",
		"f:5:94: deploy.hooks.before_switch: Approve.within is missing: expected such as "
		"{Approve: {within: 30m}}",
		"f:5:100: unknown key 'after' in deploy.hooks");
	REFUSED(MINIMAL "deploy: {hooks: {before_switch: [{run: './a {port.admin}'}]}}\n",
		"f:5:40: deploy.hooks.before_switch: no port 'admin' in run.slots, which names "
		"none: "
		"expected for example {blue: {port: 8081, management: 9081}, …}");
	REFUSED(MINIMAL "deploy: {on_failure: continue}\n",
		"f:5:22: deploy.on_failure: expected rollback, halt, or continue N (lanes that may "
		"fail), found 'continue'");
	REFUSED(MINIMAL "deploy: {batch: 120%, keep_warm: 5m, strategy: rolling, min_in_rotation: "
			"2}\n",
		"f:5:17: deploy.batch: expected instances at a time such as 2, or a share such as "
		"50%, found '120%'",
		"f:5:34: deploy.keep_warm: only with strategy: blue-green",
		"f:5:74: deploy.min_in_rotation: rolling with 2 instances allows at most 1");
	REFUSED(MINIMAL "deploy: {batch: 2, canary: 10%}\n",
		"f:5:17: deploy.batch: only with strategy: rolling or canary",
		"f:5:28: deploy.canary: only with strategy: canary");
	REFUSED(MINIMAL "deploy: {strategy: canary, batch: 2, canary: 0, min_in_rotation: 2}\n",
		"f:5:46: deploy.canary: expected instances at a time such as 2, or a share such as "
		"50%, found '0'",
		"f:5:66: deploy.min_in_rotation: canary with 2 instances allows at most 1");
}

static void nginx_problems(void **state)
{
	(void)state;
	REFUSED(MINIMAL "traffic: {nginx: {adopt: {form: service_url}, listen: 80}}\n",
		"f:5:26: traffic.nginx.adopt: include is missing: expected the absolute path of "
		"the file that baton owns",
		"f:5:55: traffic.nginx.listen: not with adopt, where your own configuration says "
		"it");
	REFUSED(MINIMAL "traffic: {nginx: {listen: 1001, server_name: 'a; b', tls: {key: /k}}}\n",
		"f:5:27: traffic.nginx.listen: port 1001 is that of slot x on host local",
		"f:5:46: traffic.nginx.server_name: expected host names, with blanks between, "
		"found "
		"'a; b'",
		"f:5:59: traffic.nginx.tls: expected both certificate and key");
	REFUSED(MINIMAL "hosts: [h1, h2]\ntraffic: {nginx: {on: w, adopt: {include: /i, form: "
			"service_port}}}\n",
		"f:6:53: traffic.nginx.adopt.form: this form sends to one instance, and several "
		"would serve: use form: upstream",
		"f:6:53: traffic.nginx.adopt.form: a port alone means nginx's own host, and the "
		"service runs on another: use form: service_url");
	REFUSED(MINIMAL
		"traffic: {nginx: {routes: [{path: /a, to: both}, {path: /a}, {pat: /}]}}\n",
		"f:5:43: traffic.nginx.routes: expected one or all, found 'both'",
		"f:5:57: traffic.nginx.routes: '/a' is routed twice",
		"f:5:62: traffic.nginx.routes: expected path and to, such as {path: /api, to: "
		"all}",
		"f:5:63: unknown key 'pat' in traffic.nginx.routes, expected path and to, such as "
		"{path: /api, to: all} (did you mean 'path'?)");
	REFUSED(MINIMAL "traffic: {nginx: {routes: [{path: /}, {path: /a, directives: [gzip on, "
			"'root /']}]}}\n",
		"f:5:72: traffic.nginx.routes: expected " BT_DIRECTIVE_EXPECTED ", found 'root /'");
	REFUSED(MINIMAL "traffic: {nginx: {directives: ['gzip on;', include /x]}}\n",
		"f:5:32: traffic.nginx.directives: expected " BT_DIRECTIVE_EXPECTED
		", found 'gzip on;'",
		"f:5:44: traffic.nginx.directives: expected " BT_DIRECTIVE_EXPECTED
		", found 'include /x'");
	REFUSED(MINIMAL "traffic: {nginx: {tls: {http2: true, redirect: 80}}}\n",
		"f:5:32: traffic.nginx.tls.http2: only with a certificate",
		"f:5:48: traffic.nginx.tls.redirect: only with a certificate");
	REFUSED(MINIMAL "traffic: {nginx: {listen: 9443, tls: {certificate: /c, key: /k, redirect: "
			"'*:9443'}}}\n",
		"f:5:75: traffic.nginx.tls.redirect: the port of traffic.nginx.listen, which "
		"speaks https");
	REFUSED(MINIMAL "traffic: {nginx: {tls: {certificate: /c, key: /k, redirect: 1002}}}\n",
		"f:5:61: traffic.nginx.tls.redirect: port 1002 is that of slot y on host local");
	REFUSED(MINIMAL
		"deploy: {strategy: rolling}\ntraffic: {nginx: {adopt: {include: /i, form: site, "
		"sites: {x: /a, z: /b, y: b}}}}\n",
		"f:6:46: traffic.nginx.adopt.form: a site is one slot, and several would serve: "
		"use "
		"strategy: blue-green, or form: upstream",
		"f:6:59: traffic.nginx.adopt.sites: z is no slot",
		"f:6:59: traffic.nginx.adopt.sites: expected the absolute path of a file of its "
		"own "
		"for y, found 'b'");
	REFUSED(MINIMAL "traffic: {nginx: {adopt: {include: /i, form: site, sites: {x: /i}}}}\n",
		"f:5:59: traffic.nginx.adopt.sites: expected the absolute path of a file of its "
		"own "
		"for x, found '/i'",
		"f:5:59: traffic.nginx.adopt.sites: slot y has no file");
	REFUSED(MINIMAL "traffic: {nginx: {adopt: {include: /i, sites: {x: /a, y: /a}}}}\n",
		"f:5:47: traffic.nginx.adopt.sites: only with form: site");
	REFUSED(MINIMAL "traffic: {nginx: {on: [w1, w2, w1]}}\n",
		"f:5:32: traffic.nginx.on: 'w1' is listed twice");
	REFUSED(MINIMAL "traffic: {nginx: {on: []}}\n",
		"f:5:23: traffic.nginx.on: expected a name, or a list of up to 32 such as [a, b], "
		"found an empty list");
	REFUSED(MINIMAL "hosts: [h1]\ntraffic: {nginx: {on: [w1, h1], listen: 1002}}\n",
		"f:6:41: traffic.nginx.listen: port 1002 is that of slot y on host h1");
	REFUSED(MINIMAL "traffic: {nginx: {on: [local, w2], adopt: {include: /i, form: "
			"service_port}}}\n",
		"f:5:63: traffic.nginx.adopt.form: a port alone means nginx's own host, and the "
		"service runs on another: use form: service_url");
	REFUSED("services:\n  a: {run: {command: x, slots: {x: 1, y: 2}}, traffic: {nginx: {}}}\n"
		"  b: {run: {command: x, slots: {x: 2, y: 3}}, traffic: {nginx: {}}}\n"
		"  c: 3\n",
		"f:3:3: port 2 of b (x) on host local is taken by y of a",
		"f:3:3: port 8080 of b (nginx) on host local is taken by nginx of a",
		"f:4:6: a service: expected a map of its keys, found '3'");
}

static void hostile(void **state)
{
	(void)state;
	REFUSED("a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
		"c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
		"e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
		"f:5:4: too large: at most 1000 keys, 10000 entries, and 100000 values with "
		"aliases");
	REFUSED("a: &a [*a]\n", "f:1:8: this alias names no anchor above it");
	REFUSED("a: !!python/object x\n", "f:1:1: unknown key 'a'",
		"f:1:1: 'service' is missing: expected for example service: shop",
		"f:1:1: 'run.command' is missing: expected for example run.command: java -jar "
		"{artifact} "
		"--server.port={port}",
		"f:1:1: 'run.slots' is missing: expected for example run.slots: {blue: 8081, "
		"green: "
		"8082}",
		"f:1:4: tags such as 'tag:yaml.org,2002:python/object' "
		"are not taken");
	BT_STR struct bt_str deep = {0};
	for (int i = 0; i < 100; i++)
		bt_str_add(&deep, "[");
	REFUSED(bt_str_get(&deep), "f:1:33: nested deeper than 32");
	bt_str_reset(&deep);
	for (int i = 0; i < (1 << 20) + 1; i++)
		bt_str_addc(&deep, '#');
	REFUSED(bt_str_get(&deep), "f:1:1: a config of 1048577 bytes, at most 1 MiB is taken");
	bt_str_reset(&deep);
	bt_str_add(&deep, "service: [");
	for (int i = 0; i < 1001; i++)
		bt_str_addf(&deep, "%s*x", i ? "," : "&x y, ");
	bt_str_add(&deep, "]");
	struct bt_config *c = NULL;
	struct bt_err err = {0};
	assert_int_equal(
		bt_config_parse(deep.data, deep.len, "f", NULL, NULL, &c, NULL, &err), BT_E_CONFIG);
	assert_non_null(strstr(err.text, "more than 1000 aliases"));
}

static void placeholders(void **state)
{
	(void)state;
	const struct bt_port management = {"management", 9081};
	const struct bt_placeholders p = {"/r/app.jar", "v2", "blue", "was1", 8081, &management, 1};
	BT_STR struct bt_str out = {0};
	struct bt_err err = {0};
	assert_int_equal(
		bt_config_expand("{artifact}:{release}:{port}:{slot}:{host}", &p, &out, &err), 0);
	assert_string_equal(bt_str_get(&out), "/r/app.jar:v2:8081:blue:was1");
	bt_str_reset(&out);
	assert_int_equal(bt_config_expand("{{port}} {\"a\":{}} {", &p, &out, &err), 0);
	assert_string_equal(bt_str_get(&out), "{port}} {\"a\":{}} {");
	bt_str_reset(&out);
	assert_int_equal(
		bt_config_expand("{port.management}/{{port.x} {port.} {port.M}", &p, &out, &err),
		0);
	assert_string_equal(bt_str_get(&out), "9081/{port.x} {port.} {port.M}");
	assert_int_equal(bt_config_expand("{prot}", &p, &out, &err), BT_E_CONFIG);
	assert_non_null(strstr(err.text, "{prot}"));
	assert_int_equal(bt_config_expand("{port.admin}", &p, &out, &err), BT_E_CONFIG);
	assert_non_null(strstr(err.text, "{port.admin}"));
}

static void ports(void **state)
{
	(void)state;
	struct bt_config *c = config_of(
		"service: shop\n"
		"run:\n"
		"  command: java -jar {artifact} --server.port={port} "
		"--management.server.port={port.management}\n"
		"  slots: {blue: {port: 8081, management: 9081}, green: {management: 9082, port: "
		"8082}}\n"
		"health: {http: /actuator/health, port: management}\n",
		env);
	const struct bt_service *s = &c->services[0];
	const struct bt_slot *green = bt_service_slot(s, "green");
	config_same_again(c);
	assert_int_equal(green->port, 8082);
	assert_int_equal(bt_slot_port(green, "management"), 9082);
	assert_int_equal(bt_slot_port(green, "port"), 0);
	assert_int_equal(bt_health_port(&s->health, green, 8082), 9082);
	assert_null(bt_service_slot(s, "red"));
	bt_config_free(c);
#define SLOTS(text) "service: a\nrun:\n  command: x\n  slots: {" text "}\n"
	REFUSED(SLOTS("x: {port: 1, m: 2}, y: {port: 3, m: 2}"),
		"f:4:34: run.slots: slots x and y have the same port 2");
	REFUSED(SLOTS("x: {port: 1, m: 2}, y: {port: 2, m: 3}"),
		"f:4:34: run.slots: slots x and y have the same port 2");
	REFUSED(SLOTS("x: {port: 1, m: 1}, y: {port: 2, m: 3}"),
		"f:4:14: run.slots: slot x has port 1 twice");
	REFUSED(SLOTS("x: {port: 1, m: 2}, y: 3"),
		"f:4:34: run.slots: slots x and y name different ports: expected the same names in "
		"every slot");
	REFUSED(SLOTS("x: {http: 1, m: 2}, y: 3"),
		"f:4:14: run.slots: expected a port, or ports by name such as {port: 8081, "
		"management: 9081}, found a map");
	REFUSED(SLOTS("x: {port: 1, M: 2}, y: 3"),
		"f:4:24: run.slots: expected a port's name of a-z, 0-9, '_' and '-' that begins "
		"with a letter, at most 31, found 'M'");
	REFUSED(SLOTS("x: {port: 1, mgmt: 2}, y: {port: 3, mgmt: 4}") "health: {http: /h, port: "
								      "mgnt}\n",
		"f:5:26: health.port: no port 'mgnt' in run.slots (did you mean 'mgmt'?)");
	REFUSED(SLOTS("x: {port: 1, m: 2}, y: {port: 3, m: 4}") "identity: {path: /p, expect: "
								"'{port.m}'}\n",
		"f:5:30: identity.expect: expected a text with no placeholders but {slot} {port} "
		"{host}, found '{port.m}'");
	REFUSED(SLOTS("x: {port: 1, m: 2}, y: {port: 3, m: 4}") "deploy: {hooks: {before_switch: "
								"[{run: [./a, '{port.n}'], on: "
								"each "
								"instance}]}}\n",
		"f:5:46: deploy.hooks.before_switch: no port 'n' in run.slots (did you mean 'm'?)");
	REFUSED("service: a\nrun:\n  command: x {port.mgmt}\n  slots: {x: 1, y: 2}\n",
		"f:3:12: run.command: no port 'mgmt' in run.slots, which names none: expected for "
		"example {blue: {port: 8081, management: 9081}, …}");
	REFUSED("services:\n"
		"  a: {run: {command: x, slots: {x: {port: 1, m: 5}, y: {port: 2, m: 6}}}}\n"
		"  b: {run: {command: x, slots: {x: 5, y: 7}}, traffic: {nginx: {listen: '6'}}}\n",
		"f:3:3: port 5 of b (x) on host local is taken by x of a",
		"f:3:3: port 6 of b (nginx) on host local is taken by y of a");
}

static void table(void **state)
{
	(void)state;
	for (size_t i = 0; i < bt_n_keys; i++) {
		const struct bt_key *k = &bt_keys[i];
		assert_non_null(k->doc);
		assert_true(!k->type || k->example);
		assert_int_equal(bt_key_index(bt_key_path(k->path)), i);
		const char *dot = strrchr(k->path, '.'); /* its group stands before it */
		if (dot) {
			BT_FREE char *group = bt_strndup(k->path, (size_t)(dot - k->path));
			assert_true(bt_key_path(group) < k);
			assert_null(bt_key_path(group)->type);
		}
	}
	BT_STR struct bt_str keys = {0};
	bt_config_keys_markdown(&keys);
	struct bt_err err = {0};
	BT_FREE char *path = bt_asprintf("%s/../../docs/config.md", GOLDEN_DIR);
	BT_FREE char *doc = NULL;
	if (bt_fs_read(path, 1 << 20, &doc, NULL, &err) < 0)
		fail_msg("%s", err.text);
	if (getenv("BATON_GOLDEN_UPDATE")) {
		BT_STR struct bt_str all = {0};
		char *begin = strstr(doc, "| key | type |"), *end = strstr(doc, "\n\n<!-- end -->");
		assert_true(begin && end);
		bt_str_addn(&all, doc, (size_t)(begin - doc));
		bt_str_addn(&all, keys.data, keys.len - 1);
		bt_str_add(&all, end);
		assert_int_equal(bt_fs_write_atomic(path, all.data, all.len, 0644, &err), 0);
	} else if (!strstr(doc, bt_str_get(&keys)))
		fail_msg("docs/config.md is not what the key table says; run this test with "
			 "BATON_GOLDEN_UPDATE=1");
}

static const char *variable(void *arg, const char *name)
{
	(void)arg;
	return bt_streq(name, "TITLE") ? "a {slot} b" : NULL;
}

/* What the template becomes, or its problems, a line each. */
static void check_template(
	const struct bt_service *s, size_t file, const char *text, const char *expected)
{
	BT_STR struct bt_str out = {0}, said = {0};
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	struct bt_template t = {s, &s->files[file], "t.tmpl", text, strlen(text), variable, NULL};
	int r = bt_config_template(&t, &problems, &out, &err);
	for (size_t i = 0; i < problems.n; i++)
		bt_str_addf(&said, "%s\n", problems.items[i].line);
	assert_int_equal(r, problems.n ? BT_E_CONFIG : 0);
	assert_string_equal(problems.n ? bt_str_get(&said) : bt_str_get(&out), expected);
	bt_config_problems_done(&problems);
}

#define TOMCAT "service: a\nrun:\n  as: tomcat\n  slots: {x: 1001}\n"
#define RECREATE "deploy: {strategy: recreate}\n"

static void tomcat(void **state)
{
	(void)state;
	struct bt_config *c = config_of(TOMCAT RECREATE, env);
	const struct bt_tomcat *t = &c->services[0].tomcat;
	assert_string_equal(t->home, "/usr/share/tomcat10");
	assert_string_equal(t->context, "/");
	assert_null(t->base);
	assert_false(bt_config_unpacks(&c->services[0], "shop.war"));
	config_same_again(c);
	bt_config_free(c);
	c = config_of(
		"service: a\nartifact: a.war\nrun:\n  as: tomcat\n"
		"  slots: {x: {port: 1001, shutdown: 1002}, y: {port: 1003, shutdown: 1004}}\n"
		"  tomcat: {home: /opt/t, base: '/srv/{service}/{slot}-{port}', context: "
		"'/a/b##2', exploded: true, xmx: 1g, java_opts: '-Da={slot}', connector: "
		"{maxThreads: 4}, access_log: true, shutdown_wait: 1s, stop_wait: 2s}\n",
		env);
	const struct bt_service *s = &c->services[0];
	BT_STR struct bt_str base = {0};
	assert_true(bt_config_unpacks(s, "a.war"));
	assert_int_equal(bt_config_tomcat_base(s, "y", 1003, &base, NULL), 0);
	assert_string_equal(bt_str_get(&base), "/srv/a/y-1003");
	assert_int_equal(bt_tomcat_shutdown_port(&s->tomcat, s->run.slots[1].more, 1), 1004);
	config_same_again(c);
	bt_config_free(c);
	REFUSED(MINIMAL "  tomcat: {xmx: 1g}\n", "f:5:11: run.tomcat: only with run.as: tomcat");
	REFUSED(TOMCAT "  command: java\n" RECREATE,
		"f:5:12: run.command: not with run.as: tomcat, where the runtime starts "
		"catalina.sh");
	REFUSED(TOMCAT "  env: {CATALINA_BASE: /x}\n" RECREATE,
		"f:5:8: run.env: CATALINA_BASE is the runtime's: see run.tomcat");
	REFUSED(TOMCAT "  tomcat: {shutdown_port: 1001}\n" RECREATE,
		"f:5:27: run.tomcat.shutdown_port: a port of the slot already");
	REFUSED("service: a\nrun:\n  as: tomcat\n  slots: {x: {port: 1, shutdown: 2}}\n"
		"  tomcat: {shutdown_port: 3}\n" RECREATE,
		"f:5:27: run.tomcat.shutdown_port: the slot names its shutdown port itself: leave "
		"one "
		"of them");
	REFUSED("service: a\nrun:\n  as: tomcat\n  slots: {x: 1, y: 2}\n"
		"  tomcat: {base: /srv/a, shutdown_port: 3}\n",
		"f:5:18: run.tomcat.base: it is the same in each slot: expected {slot} in it",
		"f:5:41: run.tomcat.shutdown_port: several slots cannot share it: give each slot a "
		"port of the name shutdown, such as {port: 8080, shutdown: 8005}");
	REFUSED("unpack: false\n" TOMCAT "  tomcat: {exploded: true}\n" RECREATE,
		"f:6:22: run.tomcat.exploded: not with unpack: false");
	REFUSED("services:\n  a: {run: {as: tomcat, slots: {x: 1}, tomcat: {base: /b/c}}, "
		"deploy: {strategy: recreate}}\n"
		"  b: {run: {as: tomcat, slots: {y: 2}, tomcat: {base: '/b/c'}}, "
		"deploy: {strategy: recreate}}\n",
		"f:3:3: run.tomcat.base /b/c of b on host local is that of a, too");
}

static void tomcat_texts(void **state)
{
	(void)state;
	static const char *const contexts[] = {"/", "/a", "/a/b-c/d.e", "/a##1.2", "/##1"},
				 *const no_contexts[] = {"", "a", "//", "/a/", "/a//b", "/a#b",
					 "/..", "/.a", "/a/../b", "/ROOT", "/ROOT/a", "/a##",
					 "/a##/b", "/a b", "/a##1##2", "/\xc3\xa4", "/a?b"};
	for (size_t i = 0; i < BT_ARRAY_LEN(contexts); i++)
		assert_true(bt_check_tomcat_context(contexts[i]));
	for (size_t i = 0; i < BT_ARRAY_LEN(no_contexts); i++)
		if (bt_check_tomcat_context(no_contexts[i]))
			fail_msg("%s", no_contexts[i]);
	assert_true(bt_check_tomcat_options("-Xms1m \"-Da=b c\" -Dp={port} -Ds='*'"));
	static const char *const shell[] = {"$(id)", "`id`", "a;b", "a&b", "a|b", "a>b", "a<b",
		"a\\b", "a\nb", "{nope}", "(a)"};
	for (size_t i = 0; i < BT_ARRAY_LEN(shell); i++)
		if (bt_check_tomcat_options(shell[i]))
			fail_msg("%s", shell[i]);
	assert_true(bt_check_heap("512m") && bt_check_heap("2G") && bt_check_heap("1048576"));
	assert_false(bt_check_heap("0m") || bt_check_heap("m") || bt_check_heap("5t") ||
		     bt_check_heap("5mb") || bt_check_heap("") || bt_check_heap("1m -version"));
	assert_true(bt_check_tomcat_base("/srv/{service}-{slot}"));
	assert_false(bt_check_tomcat_base("srv") || bt_check_tomcat_base("/") ||
		     bt_check_tomcat_base("/a/../b") || bt_check_tomcat_base("/a/..") ||
		     bt_check_tomcat_base("/a/{host}") || bt_check_tomcat_base("/a'b"));
	assert_true(bt_check_attribute("maxThreads") && bt_check_attribute("address"));
	assert_false(bt_check_attribute("port") || bt_check_attribute("a b") ||
		     bt_check_attribute("") || bt_check_attribute("a=\"x\""));
}

static void files(void **state)
{
	(void)state;
	struct bt_config *c = config_of(
		"env: [TITLE, UNSET]\n"
		"service: shop\n"
		"files:\n"
		"  - conf/a.properties\n"
		"  - {from: b.tmpl, to: 'x/{slot}.conf', mode: 0640, template: true}\n"
		"  - {from: b.tmpl, to: b.conf, template: true}\n"
		"run: {command: x, slots: {blue: {port: 1, m: 2}, green: {port: 3, m: 4}}}\n",
		env);
	const struct bt_service *s = &c->services[0];
	config_same_again(c);
	assert_int_equal(s->n_files, 3);
	assert_string_equal(s->files[0].to, "a.properties");
	assert_int_equal(s->files[0].mode, 0600);
	assert_int_equal(s->files[1].mode, 0640);
	assert_true(s->files[1].template);
	check_template(s, 1, "a={slot}\nb={port.m} {{c} {} {x y} $${D} ${TITLE}\n",
		"a={slot}\nb={port.m} {{c} {} {x y} ${{D} a {{slot} b\n");
	check_template(s, 2, "no slot in {release} on {host}", "no slot in {release} on {host}");
	check_template(s, 1, "한 {prot}\n  ${TITEL} ${UNSET}\n${X\n{port.n}",
		"t.tmpl:1:3: unknown placeholder {prot}: expected one of {artifact} {release} "
		"{port} {port.NAME} {slot} {host} ({{ writes a brace) (did you mean {port}?)\n"
		"t.tmpl:2:3: ${TITEL} is not declared: put 'env: [TITEL]' at the top of the file, "
		"or write $${TITEL} for the text (did you mean 'TITLE'?)\n"
		"t.tmpl:2:12: ${UNSET} is not set in the environment\n"
		"t.tmpl:3:1: '${' without '}' ($${ writes the text)\n"
		"t.tmpl:4:1: unknown port {port.n}: no slot names it\n");
	check_template(s, 2, "{port}",
		"baton.yaml:6:5: files: b.tmpl differs from slot to slot, and b.conf would be one "
		"file for all of them: put {slot} in `to`, such as {slot}/b.conf\n");
	bt_config_free(c);
	REFUSED(MINIMAL "files: [a, {from: b/a}]\n", "f:5:12: files: two files become 'a'");
	REFUSED(MINIMAL "files: [{from: a, to: ../b}, {from: a, to: /b}, {from: a, to: b//c}]\n",
		"f:5:23: files: expected a path in the release's directory without '..', and only "
		"the placeholders {release} {port} {port.NAME} {slot} {host}, found '../b'",
		"f:5:44: files: expected a path in the release's directory without '..', and only "
		"the placeholders {release} {port} {port.NAME} {slot} {host}, found '/b'",
		"f:5:63: files: expected a path in the release's directory without '..', and only "
		"the placeholders {release} {port} {port.NAME} {slot} {host}, found 'b//c'");
	REFUSED(MINIMAL "files: [{to: a}, {from: a, mode: 0077}, release.json]\n",
		"f:5:9: files: expected a path, or from, to, mode and template such as {from: "
		"shop.tmpl, to: shop.conf, mode: 0640, template: true}, found a map",
		"f:5:34: files: expected a mode that lets its owner read, such as 0600 or 0644, "
		"found '0077'",
		"f:5:41: files: expected a path in the release's directory without '..', and only "
		"the placeholders {release} {port} {port.NAME} {slot} {host}, found "
		"'release.json'");
}

/* docs/nginx.md lists what is allowed, from the table. */
#define NGINX "traffic: {nginx: {on: local}, loopback: {vips: "

static void loopback(void **state)
{
	(void)state;
	struct bt_config *c = config_of(MINIMAL NGINX "192.0.2.10}}\n", env);
	const struct bt_loopback *l = &c->services[0].loopback;
	assert_int_equal(l->n_vips, 1);
	assert_string_equal(l->vips[0], "192.0.2.10");
	assert_string_equal(l->interface, "lo");
	config_same_again(c);
	bt_config_free(c);
	c = config_of(MINIMAL NGINX "[192.0.2.10, '2001:db8::10'], interface: dummy0}}\n", env);
	l = &c->services[0].loopback;
	assert_int_equal(l->n_vips, 2);
	assert_string_equal(l->interface, "dummy0");
	config_same_again(c);
	bt_config_free(c);
	/* Nothing of it is printed where there is none. */
	c = config_of(MINIMAL, env);
	BT_JSON json_t *j = bt_config_service_to_json(&c->services[0]);
	assert_null(json_object_get(j, "traffic"));
	bt_config_free(c);
	REFUSED(MINIMAL NGINX "[192.0.2.10, 192.0.2.256, 127.0.0.1, '::1', 'fe80::1', 'ff02::1', "
			      "10.0.0.010]}}\n",
		"f:5:61: traffic.loopback.vips: expected an IPv4 or IPv6 address such as "
		"192.0.2.10, found '192.0.2.256'",
		"f:5:74: traffic.loopback.vips: expected an IPv4 or IPv6 address such as "
		"192.0.2.10, found '127.0.0.1'",
		"f:5:85: traffic.loopback.vips: expected an IPv4 or IPv6 address such as "
		"192.0.2.10, found '::1'",
		"f:5:92: traffic.loopback.vips: expected an IPv4 or IPv6 address such as "
		"192.0.2.10, found 'fe80::1'",
		"f:5:103: traffic.loopback.vips: expected an IPv4 or IPv6 address such as "
		"192.0.2.10, found 'ff02::1'",
		"f:5:114: traffic.loopback.vips: expected an IPv4 or IPv6 address such as "
		"192.0.2.10, found '10.0.0.010'");
	REFUSED(MINIMAL NGINX "['2001:db8::1', '2001:db8:0:0::1']}}\n",
		"f:5:48: traffic.loopback.vips: 2001:db8::1 and 2001:db8:0:0::1 are the same "
		"address");
	REFUSED(MINIMAL "traffic: {loopback: {vips: 192.0.2.10}}\n",
		"f:5:28: traffic.loopback.vips: only with a balancer, which sends to the hosts "
		"what clients ask at these addresses");
	REFUSED(MINIMAL "traffic: {loopback: {interface: lo}}\n",
		"f:5:33: traffic.loopback.interface: only with traffic.loopback.vips");
	REFUSED(MINIMAL NGINX "192.0.2.10, interface: ../lo}}\n",
		"f:5:71: traffic.loopback.interface: expected an interface's name, found '../lo'");
}

static void addresses(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t n;
		uint8_t bytes[16];
	} cases[] = {
		{"0.0.0.0", 4, {0}},
		{"255.255.255.255", 4, {255, 255, 255, 255}},
		{"192.0.2.10", 4, {192, 0, 2, 10}},
		{"::", 16, {0}},
		{"::1", 16, {[15] = 1}},
		{"1::", 16, {0, 1}},
		{"2001:db8::10", 16, {0x20, 0x01, 0x0d, 0xb8, [15] = 0x10}},
		{"2001:DB8:0:0:0:0:0:10", 16, {0x20, 0x01, 0x0d, 0xb8, [15] = 0x10}},
		{"1:2:3:4:5:6:7:8", 16, {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8}},
		{"1:2:3:4:5:6:7::", 16, {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 0}},
		{"::ffff:192.0.2.10", 16, {[10] = 255, 255, 192, 0, 2, 10}},
		{"1:2:3:4:5:6:1.2.3.4", 16, {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 1, 2, 3, 4}},
	};
	static const char *const none[] = {"", "1", "1.2.3", "1.2.3.4.5", "1.2.3.", ".1.2.3",
		"1.2.3.04", "1.2.3.256", "1.2.3.4 ", " 1.2.3.4", "1.2.3.-4", "99999999999.1.1.1",
		":", ":1", "1:", ":::", "1:::2", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9",
		"1:2:3:4:5:6:7:8::", "12345::", "g::", "::1%lo", "[::1]", "1:2:3:4:5:6:7:1.2.3.4",
		"::1.2.3", "::1.2.3.4:5", "1.2.3.4::"};
	uint8_t a[16];
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		if (bt_address_parse(cases[i].text, a) != cases[i].n ||
			memcmp(a, cases[i].bytes, cases[i].n) != 0)
			fail_msg("%s", cases[i].text);
	}
	for (size_t i = 0; i < BT_ARRAY_LEN(none); i++)
		if (bt_address_parse(none[i], a) != 0)
			fail_msg("'%s' was taken", none[i]);
}

#define HOOK "service: a\nrun:\n  command: ./a\n  slots: {x: 1001, y: 1002}\n  secrets: [HOOK]\n"

static void notify(void **state)
{
	(void)state;
	struct bt_config *c = config_of(
		"env: [HOOK]\n" HOOK "notify:\n  ops: {url: 'https://h.example.com/x?k=${HOOK}'}\n"
		"  chat: {url: '${HOOK}', format: slack}\n",
		env);
	const struct bt_service *s = &c->services[0];
	assert_int_equal(s->n_notify, 2);
	assert_string_equal(s->notify[0].name, "ops");
	/* Never what the caller's environment has: the config is for everybody to read. */
	assert_string_equal(s->notify[0].url, "https://h.example.com/x?k=${HOOK}");
	assert_int_equal(s->notify[0].format, BT_NOTIFY_JSON);
	assert_int_equal(s->notify[1].format, BT_NOTIFY_SLACK);
	config_same_again(c);
	bt_config_free(c);
	REFUSED(HOOK "notify: [ops]\n",
		"f:6:9: notify: expected a map of at most 20 names to {url: 'https://…', format: "
		"json|slack}, found a list");
	REFUSED(HOOK "notify: {ops: {format: slack}}\n",
		"f:6:15: notify.ops: url is missing: expected {url: 'https://…', format: "
		"json|slack}");
	REFUSED(HOOK "notify: {ops: {url: ftp://h/}}\n",
		"f:6:21: notify: expected a URL such as https://hooks.example.com/${HOOK}, found "
		"'ftp://h/'");
	REFUSED(HOOK "notify: {ops: {url: 'https://h/${HOOK'}}\n",
		"f:6:21: notify: expected a URL such as https://hooks.example.com/${HOOK}, found "
		"'https://h/${HOOK'");
	REFUSED(HOOK "notify: {ops: {url: 'https://h/${NONE}'}}\n",
		"f:6:9: notify.ops.url: ${NONE} is none of run.secrets: name it there");
	REFUSED(HOOK "notify: {ops: {url: 'https://h/', format: mail}}\n",
		"f:6:43: notify: expected json or slack, found 'mail'");
}

static void directives(void **state)
{
	(void)state;
	BT_STR struct bt_str list = {0};
	size_t column = 0;
	for (size_t i = 0; bt_nginx_directives[i]; i++) {
		const char *name = bt_nginx_directives[i];
		assert_true(i == 0 || strcmp(bt_nginx_directives[i - 1], name) < 0);
		BT_FREE char *good = bt_asprintf("%s x", name);
		assert_true(bt_check_directive(good));
		bool wrap = column + strlen(name) + 4 > 100;
		bt_str_addf(&list, "%s`%s`", i == 0 ? "" : wrap ? ",\n" : ", ", name);
		column = (wrap || i == 0 ? 0 : column + 2) + strlen(name) + 2;
	}
	bt_str_addc(&list, '\n');
	struct bt_err err = {0};
	static const char begin[] = "<!-- directives -->\n", end[] = "<!-- end of directives -->";
	BT_FREE char *path = bt_asprintf("%s/../../docs/nginx.md", GOLDEN_DIR);
	BT_FREE char *doc = NULL;
	assert_int_equal(bt_fs_read(path, 1 << 20, &doc, NULL, &err), 0);
	char *from = strstr(doc, begin), *to = strstr(doc, end);
	assert_true(from && to);
	from += strlen(begin);
	if (getenv("BATON_GOLDEN_UPDATE")) {
		BT_STR struct bt_str all = {0};
		bt_str_addn(&all, doc, (size_t)(from - doc));
		bt_str_add(&all, bt_str_get(&list));
		bt_str_add(&all, to);
		assert_int_equal(bt_fs_write_atomic(path, all.data, all.len, 0644, &err), 0);
	} else if ((size_t)(to - from) != list.len || strncmp(from, list.data, list.len) != 0) {
		fail_msg("docs/nginx.md does not list the directives that are allowed; run this "
			 "test with BATON_GOLDEN_UPDATE=1");
	}
}

static void environments(void **state)
{
	(void)state;
	static const char text[] =
		"service: shop\n"
		"run: {command: x, slots: {blue: 8081, green: 8082}, env: {A: one, B: one}}\n"
		"traffic: {nginx: {adopt: {include: /etc/nginx/shop.conf}}}\n"
		"environments:\n"
		"  dev: {hosts: [dev1], traffic: ~, run: {env: {A: two}}}\n"
		"  release: {hosts: [was1, was2], run: {slots: {blue: 9081}}, deploy: {bake: "
		"60s}}\n"
		"  plain:\n";
	struct bt_config *c = config_of(text, env);
	config_same_again(c);
	assert_int_equal(c->n_services, 3);
	const struct bt_service *dev = bt_config_find(c, "shop@dev");
	const struct bt_service *release = bt_config_find(c, "shop@release");
	const struct bt_service *plain = bt_config_find(c, "shop@plain");
	assert_null(bt_config_find(c, "shop"));
	assert_string_equal(dev->hosts[0], "dev1");
	assert_null(dev->nginx);
	assert_int_equal(dev->run.n_env, 2);
	assert_string_equal(dev->run.env[0].value, "two");
	assert_string_equal(dev->run.env[1].value, "one");
	assert_int_equal(release->n_hosts, 2);
	assert_int_equal(release->run.slots[0].port, 9081);
	assert_int_equal(release->run.slots[1].port, 8082);
	assert_int_equal(release->deploy.bake_ms, 60000);
	assert_string_equal(release->nginx->upstream, "shop-release");
	assert_string_equal(plain->hosts[0], "local");
	assert_string_equal(plain->run.env[0].value, "one");
	bt_config_free(c);
	c = config_of("services: {a: {run: {command: x, slots: {x: 1, y: 2}}},"
		      " b: {run: {command: x, slots: {x: 3, y: 4}}, environments: {dev: }}}\n",
		env);
	assert_int_equal(c->n_services, 2);
	assert_non_null(bt_config_find(c, "b@dev"));
	bt_config_free(c);
	/* what they share is told once; on the same host they may not share ports */
	REFUSED(MINIMAL "health: {every: 5}\nenvironments: {dev: {hosts: [h]}, release: }\n",
		"f:5:17: health.every: expected a duration with a unit such as 500ms, 30s, 5m, 2h, "
		"found '5'");
	REFUSED(MINIMAL "environments: {dev: , release: }\n",
		"f:5:23: port 1001 of a@release (x) on host local is taken by x of a@dev",
		"f:5:23: port 1002 of a@release (y) on host local is taken by y of a@dev");
	REFUSED(MINIMAL "environments: {dev: {service: b}, 'a b': , x: 5}\n",
		"f:5:31: environments.dev: 'service' cannot differ from one to another",
		"f:5:35: environments: expected a name of letters, digits, '.', '_' and '-', found "
		"'a b'",
		"f:5:47: environments.x: expected a map of what differs there, found '5'");
	REFUSED(MINIMAL "environments: [dev]\n", "f:5:15: environments: expected a map such as "
						 "{dev: {hosts: [dev1]}, release: {…}}, "
						 "found a list");
	REFUSED("service: a@b@c\nrun: {command: x, slots: {x: 1, y: 2}}\n",
		"f:1:10: service: expected a name of letters, digits, '.', '_' and '-' (or "
		"NAME@ENVIRONMENT), found 'a@b@c'");
}

/* ── L4 families: what they print reads back, and what does not hold together ── */

#define APPLIANCE                                                                                  \
	"traffic: {http: {status: {url: 'http://lb/{host}/{slot}'}, turn_on: {url: 'http://lb/'}," \
	" turn_off: {url: 'http://lb/'}, in_rotation: {path: a.b}"

static void appliance(void **state)
{
	(void)state;
	struct bt_config *c = config_of(
		"service: a\nrun: {command: x, slots: {x: 1001, y: 1002}, secrets: [TOKEN]}\n"
		"hosts: [was1, was2]\n" APPLIANCE ", headers: {A: 'Bearer ${TOKEN}', B: "
		"'$${TOKEN}'}, verify: false}}\n",
		env);
	const struct bt_service *s = &c->services[0];
	config_same_again(c);
	assert_int_equal(s->l4->kind, BT_BALANCER_HTTP);
	assert_string_equal(s->l4->on[0], "was1");
	assert_string_equal(s->l4->http.headers[0].value, "Bearer ${TOKEN}");
	assert_string_equal(s->l4->http.headers[1].value, "${TOKEN}");
	assert_string_equal(s->l4->http.on.method, "PUT");
	assert_string_equal(s->l4->http.in_rotation_is, "true");
	bt_config_free(c);
	REFUSED(MINIMAL APPLIANCE ", headers: {A: 'x ${TOKEN}'}}}\n",
		"f:5:156: traffic.http.headers: ${TOKEN} is none of run.secrets: put it there, "
		"since a header's ${NAME} is always a secret");
	REFUSED(MINIMAL "traffic: {http: {on: [a, b], verify: false, ca: /x, status: {url: "
			"'http://u@h/'}, turn_on: {url: 'http://h/{prot}'}}}\n",
		"f:5:17: traffic.http.turn_off.url: missing",
		"f:5:17: traffic.http.in_rotation.path: missing",
		"f:5:22: traffic.http.on: expected one host: one agent calls the API",
		"f:5:49: traffic.http.ca: not with verify: false",
		"f:5:67: traffic.http.status.url: expected an http or https URL, without user@, "
		"and with no placeholders but {host} {slot} {port} {address} {service}, found "
		"'http://u@h/'",
		"f:5:98: traffic.http.turn_on.url: expected an http or https URL, without user@, "
		"and with no placeholders but {host} {slot} {port} {address} {service}, found "
		"'http://h/{prot}'");
}

static void rotation(void **state)
{
	(void)state;
	struct bt_config *c =
		config_of("service: a\nhosts: [was1, was2]\n"
			  "run: {command: x, slots: {x: 1001, y: 1002}}\n"
			  "traffic: {rotation: {listen: 9100, hosts: {was2: "
			  "10.0.0.2:9200}, path: '/up/{host}', in: yes, tcp: true}}\n",
			env);
	const struct bt_service *s = &c->services[0];
	config_same_again(c);
	assert_string_equal(bt_rotation_listen(&s->l4->rotation, "was1"), "9100");
	assert_string_equal(bt_rotation_listen(&s->l4->rotation, "was2"), "10.0.0.2:9200");
	assert_int_equal(s->l4->rotation.rise, 2);
	BT_FREE char *path = bt_config_rotation_path(s, "was1");
	assert_string_equal(path, "/up/was1");
	bt_config_free(c);
	REFUSED(MINIMAL "traffic: {rotation: {hosts: {b: 1, local: x}, path: '/{slot}'}}\n",
		"f:5:29: traffic.rotation.hosts: b is no host of the service",
		"f:5:29: traffic.rotation.hosts: expected PORT or ADDRESS:PORT for local, found "
		"'x'",
		"f:5:53: traffic.rotation.path: expected a path such as /rotation/{service}, with "
		"{service} and {host} only, found '/{slot}'");
	REFUSED(MINIMAL "traffic: {rotation: {listen: 1001}}\n",
		"f:5:30: traffic.rotation.listen: port 1001 is that of slot x on host local");
	REFUSED(MINIMAL "traffic: {rotation: {tcp: false}}\n",
		"f:5:21: traffic.rotation.listen: missing");
#define TWO(a, b)                                                                                  \
	"services: {a: {run: {command: x, slots: {x: 1, y: 2}}, traffic: {rotation: " a "}},\n"    \
	" b: {run: {command: x, slots: {x: 3, y: 4}}, traffic: {rotation: " b "}}}\n"
	c = config_of(TWO("{listen: 9100}", "{listen: 9100}"), env);
	bt_config_free(c);
	REFUSED(TWO("{listen: 9100, path: /x}", "{listen: 9100, path: /x}"),
		"f:2:2: traffic.rotation: a and b answer on host local at the same place, port "
		"9100 /x");
	REFUSED(TWO("{listen: 9100, tcp: true}", "{listen: 9100}"),
		"f:2:2: port 9100 of b (traffic.rotation) on host local is that of a, too: with "
		"tcp each needs its own");
	REFUSED(TWO("{listen: 9100}", "{listen: '127.0.0.1:9100'}"),
		"f:2:2: traffic.rotation: a and b listen on host local at port 9100 by different "
		"addresses: write the same for both");
	REFUSED(TWO("{listen: 9100}", "{listen: 2}"),
		"f:2:2: port 2 of b (traffic.rotation) on host local is taken by y of a");
}

/* ── random services: any value of any type at any key ── */

static uint32_t seed;
static uint32_t pick(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

static json_t *random_text(void)
{
	static const char *const texts[] = {"a", "x y", "true", "null", "~", "123", "1e3", "${A}",
		"$${A}", "a: b", "- a", "#c", "\"q\" 'r'", "\\", "line\nbreak\ttab", "한글",
		"\xc2\x85\xe2\x80\xa8", "\xf0\x9f\x98\x80", "{{port}", "{slot}", "%", "0x1f", "",
		" lead", "[a]", "&a", "*a", "!t", "|", ">", "@", "`"};
	return json_string(texts[pick(BT_ARRAY_LEN(texts))]);
}

static json_t *random_value(const struct bt_key *k)
{
	char text[32];
	if (k->type == &bt_type_duration)
		return json_string(bt_duration_format(k->min + pick(100000) * 10, text));
	if (k->type == &bt_type_size)
		return json_sprintf("%lldk", (long long)(k->min / 1024 + pick(10000)));
	if (k->type == &bt_type_count || k->type == &bt_type_number)
		return json_integer(k->min + pick(500));
	if (k->type == &bt_type_health_port)
		return pick(2) ? json_integer(1 + pick(500)) : json_string("a-1");
	if (k->type == &bt_type_bool)
		return json_boolean(pick(2));
	if (k->type == &bt_type_share)
		return json_sprintf("%u.%u%%", pick(100), pick(100));
	if (k->type == &bt_type_enum)
		return json_string(k->names->names[pick(2)].name ? k->names->names[pick(2)].name
								 : k->names->names[0].name);
	if (k->type == &bt_type_batch)
		return pick(2) ? json_sprintf("%u%%", 1 + pick(100)) : json_integer(1 + pick(9));
	if (k->type == &bt_type_failure)
		return pick(2) ? json_string("halt") : json_sprintf("continue %u", 1 + pick(9));
	if (k->type == &bt_type_map) {
		json_t *o = json_object();
		for (uint32_t i = pick(4); i > 0; i--) {
			snprintf(text, sizeof text, "K%u", i);
			json_object_set_new(o, text, random_text());
		}
		return o;
	}
	if (k->type == &bt_type_argv || k->type == &bt_type_health_exec) {
		json_t *a = json_array();
		json_array_append_new(a, json_string("prog"));
		for (uint32_t i = pick(4); i > 0; i--)
			json_array_append_new(a, random_text());
		return a;
	}
	if (k->check == bt_check_directive)
		return json_pack("[s,s]", "proxy_buffers 4 256k", "add_header X 'a \"b\" c'");
	if (k->type == &bt_type_routes)
		return json_pack("[{s:s,s:s},{s:s,s:[s]}]", "path", "/", "to", "one", "path",
			"/api", "directives", "proxy_read_timeout 90s");
	if (k->type == &bt_type_names)
		return pick(2) ? json_string("w1") : json_pack("[s,s]", "w1", "w2");
	if (k->type == &bt_type_slots)
		return pick(3) ? json_pack("{s:i,s:i}", "blue", 1 + (int)pick(30000), "green.2",
					 30001 + (int)pick(30000))
			       : json_pack("{s:{s:i,s:i},s:{s:i,s:i}}", "blue", "port",
					 1 + (int)pick(10000), "a-1", 10001 + (int)pick(10000),
					 "green.2", "a-1", 20001 + (int)pick(10000), "port",
					 30001 + (int)pick(30000));
	if (k->type == &bt_type_files)
		return json_pack("[s, {s:s, s:s, s:s, s:b}]", "conf/a.properties", "from", "/x y",
			"to", "{slot}/b-{port}", "mode", pick(2) ? "0640" : "444", "template",
			(int)pick(2));
	if (k->type == &bt_type_text && !k->check)
		return random_text();
	return NULL;
}

static bool of_family(const struct bt_key *k, enum bt_balancer_kind family)
{
	return k->in == BT_IN_NGINX ? family == BT_BALANCER_NGINX
	       : k->in == BT_IN_L4  ? family == k->family
				    : true;
}

/* Puts random values at random keys of a service that holds; of one balancer, or of none. */
static json_t *random_service(void)
{
	json_t *root = json_object();
	/* http and rotation hold together only as a whole: appliance() and rotation() above */
	enum bt_balancer_kind family = (enum bt_balancer_kind)pick(BT_BALANCER_HTTP);
	bool tomcat = pick(4) == 0;
	for (size_t i = 0; i < bt_n_keys; i++) {
		const struct bt_key *k = &bt_keys[i];
		json_t *at = root, *value = NULL;
		bool as = bt_streq(k->path, "run.as");
		if (!k->type || (!k->required && !as && pick(8)) || !of_family(k, family) ||
			k->when == (tomcat ? BT_KEY_PROCESS : BT_KEY_TOMCAT))
			continue;
		if (k->when == BT_KEY_BUNDLE && pick(20)) /* a problem with any other runtime */
			continue;
		value = as ? json_string(tomcat ? "tomcat" : "process") : random_value(k);
		if (!value && k->required && k->type == &bt_type_text)
			value = json_string("svc");
		if (!value)
			continue;
		BT_FREE char *path = bt_strdup(k->path);
		char *rest = path, *dot;
		while ((dot = strchr(rest, '.'))) {
			*dot = 0;
			if (!json_object_get(at, rest))
				json_object_set_new(at, rest, json_object());
			at = json_object_get(at, rest);
			rest = dot + 1;
		}
		json_object_set_new(at, rest, value);
	}
	return root;
}

static void random_services(void **state)
{
	(void)state;
	size_t good = 0;
	for (uint32_t i = 0; i < 6000; i++) {
		seed = i * 2654435761u + 1;
		BT_JSON json_t *j = random_service();
		struct bt_config *c = NULL;
		struct bt_err err = {0};
		if (bt_config_service_from_json(j, &c, &err) < 0) {
			assert_true(bt_str_starts(err.text, "service config: "));
			continue;
		}
		config_same_again(c);
		bt_config_free(c);
		good++;
	}
	assert_true(good > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(examples),
		cmocka_unit_test(documented),
		cmocka_unit_test(values),
		cmocka_unit_test(several),
		cmocka_unit_test(bundles),
		cmocka_unit_test(problems),
		cmocka_unit_test(nginx_problems),
		cmocka_unit_test(hostile),
		cmocka_unit_test(placeholders),
		cmocka_unit_test(ports),
		cmocka_unit_test(environments),
		cmocka_unit_test(tomcat),
		cmocka_unit_test(tomcat_texts),
		cmocka_unit_test(files),
		cmocka_unit_test(table),
		cmocka_unit_test(directives),
		cmocka_unit_test(loopback),
		cmocka_unit_test(addresses),
		cmocka_unit_test(notify),
		cmocka_unit_test(appliance),
		cmocka_unit_test(rotation),
		cmocka_unit_test(random_services),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
