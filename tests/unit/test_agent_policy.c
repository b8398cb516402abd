/* The host policy and the hiding of secrets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agent/policy.h"
#include "agent/redact.h"
#include "base/fs.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct bt_policy *parse(const char *text)
{
	struct bt_policy_spec spec = {.path = "/etc/baton/policy.yaml", .state_dir = "/tmp"};
	struct bt_policy *p = NULL;
	struct bt_err err = {0};
	if (bt_policy_parse(text, strlen(text), &spec, &p, &err) < 0)
		fail_msg("%s", err.text);
	return p;
}

static void refused(const char *text, const char *expected)
{
	struct bt_policy_spec spec = {.path = "p.yaml", .state_dir = "/tmp"};
	struct bt_policy *p = NULL;
	struct bt_err err = {0};
	assert_int_equal(bt_policy_parse(text, strlen(text), &spec, &p, &err), BT_E_CONFIG);
	if (!strstr(err.text, expected))
		fail_msg("'%s' has no '%s'", err.text, expected);
}

static void test_parse(void **state)
{
	(void)state;
	struct bt_policy *p = parse("run_as: [nobody]\nroot: true\nports: 8000-8099\n"
				    "tasks: [Observe, InstanceStart]\npaths: [/srv]\n"
				    "network: true\n");
	struct bt_err err = {0};
	assert_int_equal(p->n_run_as, 1);
	assert_true(p->root);
	assert_false(p->exec);
	assert_int_equal(bt_policy_port(p, 8000, NULL), 0);
	assert_int_equal(bt_policy_port(p, 8100, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'ports'"));
	assert_int_equal(bt_policy_task(p, BT_TASK_INSTANCE_START, NULL), 0);
	assert_int_equal(bt_policy_task(p, BT_TASK_SWITCH, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "Switch"));
	assert_int_equal(bt_policy_network(p, "traffic.loopback", NULL), 0);
	bt_policy_free(p);
	p = parse("");
	assert_int_equal(bt_policy_network(p, "traffic.loopback", &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'network'): traffic.loopback"));
	bt_policy_free(p);
}

static void test_parse_errors(void **state)
{
	(void)state;
	refused("run_ass: [a]\n", "p.yaml:1:1: expected run_as");
	refused("run_ass: [a]\n", "did you mean 'run_as'");
	refused("root: maybe\n", "p.yaml:1:7: expected true or false");
	refused("root: true\nroot: false\n", "each key once");
	refused("ports: 9-1\n", "a range of ports");
	refused("ports: 80\n", "a range of ports");
	refused("tasks: [Fly]\n", "task kinds");
	refused("paths: [srv]\n", "absolute paths");
	refused("- a\n", "expected keys");
	refused("root: [\n", "not YAML");
}

static void test_users(void **state)
{
	(void)state;
	struct bt_err err = {0};
	struct bt_service s = {.name = "shop"};
	struct bt_policy *p = parse("run_as: [daemon]\n");
	s.run.user = "daemon";
	assert_int_equal(bt_policy_run(p, &s, NULL), 0);
	s.run.user = "bin";
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'run_as'"));
	s.run.user = "no-such-user-here";
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	s.run.user = "root";
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'root'"));
	if (geteuid() == 0) { /* a root agent's default user is root */
		s.run.user = NULL;
		assert_int_equal(bt_policy_run(p, &s, NULL), BT_E_REFUSED);
	}
	bt_policy_free(p);
	struct bt_policy_spec own = {.own_machine = true, .state_dir = "/tmp"};
	assert_int_equal(bt_policy_load(&own, &p, NULL), 0);
	s.run.user = NULL;
	assert_int_equal(bt_policy_run(p, &s, NULL), 0);
	bt_policy_free(p);
}

/* Each host has its own port for outside checkers; another host's is none of this policy's. */
static void test_rotation(void **state)
{
	(void)state;
	struct bt_err err = {0};
	struct bt_kv there = {"was2", "10.0.0.2:90"};
	struct bt_l4 l4 = {.kind = BT_BALANCER_ROTATION,
		.rotation = {.listen = "9100", .on_host = &there, .n_on_host = 1}};
	struct bt_service s = {.name = "shop", .l4 = &l4};
	struct bt_policy *p = parse("ports: 9000-9200\n");
	assert_int_equal(bt_policy_rotation(p, &s, "was1", NULL), 0);
	assert_int_equal(bt_policy_rotation(p, &s, "was2", &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'ports'"));
	l4.kind = BT_BALANCER_HTTP;
	l4.http.ca = "/root/ca.pem";
	assert_int_equal(bt_policy_rotation(p, &s, "was2", NULL), 0);
	assert_int_equal(bt_policy_balancer(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'paths'"));
	l4.http.ca = NULL;
	assert_int_equal(bt_policy_balancer(p, &s, NULL), 0);
	bt_policy_free(p);
}

static void test_further_ports(void **state)
{
	(void)state;
	struct bt_err err = {0};
	const struct bt_port more[] = {{"management", 9081}};
	const struct bt_slot slots[] = {{"blue", 8081, NULL, 0}, {"green", 8082, more, 1}};
	struct bt_service s = {.name = "shop"};
	s.run.user = "daemon";
	s.run.slots = slots;
	s.run.n_slots = 2;
	struct bt_policy *p = parse("run_as: [daemon]\nports: 8000-9081\n");
	assert_int_equal(bt_policy_run(p, &s, &err), 0);
	bt_policy_free(p);
	p = parse("run_as: [daemon]\nports: 8000-9080\n");
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "port 9081"));
	bt_policy_free(p);
}

static void test_tomcat(void **state)
{
	(void)state;
	struct bt_err err = {0};
	const struct bt_slot slots[] = {{"a", 8081, NULL, 0}, {"..", 8082, NULL, 0}};
	struct bt_service s = {.name = "shop", .run = {.as = BT_RUNTIME_TOMCAT, .user = "daemon"}};
	s.run.slots = slots;
	s.run.n_slots = 1;
	s.tomcat = (struct bt_tomcat){.home = "/opt/tomcat", .base = "/opt/base/{service}/{slot}"};
	struct bt_policy *p = parse("run_as: [daemon]\npaths: [/opt]\nports: 8000-8090\n");
	assert_int_equal(bt_policy_run(p, &s, &err), 0);
	s.tomcat.home = "/usr/share/tomcat10"; /* the system's own */
	assert_int_equal(bt_policy_run(p, &s, &err), 0);
	s.tomcat.home = "/home/daemon/tomcat";
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "run.tomcat.home"));
	s.tomcat.home = "/opt/tomcat";
	s.run.n_slots = 2; /* a slot cannot be called so; where it leads counts all the same */
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "run.tomcat.base"));
	s.run.n_slots = 1;
	s.tomcat.base = "/etc/{slot}";
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	s.tomcat.base = NULL; /* the agent's own place */
	assert_int_equal(bt_policy_run(p, &s, &err), 0);
	s.tomcat.shutdown_port = 8005;
	assert_int_equal(bt_policy_run(p, &s, &err), 0);
	s.tomcat.shutdown_port = 9005;
	assert_int_equal(bt_policy_run(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'ports'"));
	bt_policy_free(p);
}

static void test_exec(void **state)
{
	(void)state;
	struct bt_err err = {0};
	struct bt_service s = {.name = "shop", .health = {.kind = BT_HEALTH_EXEC}};
	struct bt_policy *p = parse("");
	assert_int_equal(bt_policy_health(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "rule 'exec'"));
	bt_policy_free(p);
	p = parse("exec: true\n");
	assert_int_equal(bt_policy_health(p, &s, NULL), 0);
	bt_policy_free(p);
}

static void test_network(void **state)
{
	(void)state;
	static const enum bt_balancer_kind kinds[] = {BT_BALANCER_IPVS, BT_BALANCER_NFTABLES};
	for (size_t i = 0; i < BT_ARRAY_LEN(kinds); i++) {
		struct bt_err err = {0};
		struct bt_l4 l4 = {.kind = kinds[i], .vip = "192.0.2.10", .port = 80};
		struct bt_service s = {.name = "shop", .l4 = &l4};
		struct bt_policy *p = parse("");
		assert_int_equal(bt_policy_balancer(p, &s, &err), BT_E_REFUSED);
		assert_non_null(strstr(err.text, "rule 'network'"));
		bt_policy_free(p);
		p = parse("network: true\n");
		assert_int_equal(bt_policy_balancer(p, &s, &err), BT_E_REFUSED);
		assert_non_null(strstr(err.text, "port 80"));
		bt_policy_free(p);
		p = parse("network: true\nports: 1-65535\n");
		assert_int_equal(bt_policy_balancer(p, &s, NULL), 0);
		bt_policy_free(p);
	}
}

static int balancer_with(const char *policy, const char *include, struct bt_err *err)
{
	struct bt_policy *p = parse(policy);
	struct bt_nginx n = {.include = include, .binary = "nginx"};
	struct bt_service s = {.name = "shop", .nginx = &n};
	int r = bt_policy_balancer(p, &s, err);
	bt_policy_free(p);
	return r;
}

/* Roots hold where a path really leads: dots, links out and names that only begin alike. */
static void test_paths(void **state)
{
	(void)state;
	char dir[64] = "/tmp/bt-policy-XXXXXX", policy[160], path[200], target[128];
	struct bt_err err = {0};
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/in", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/inside", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	snprintf(path, sizeof path, "%s/in/out", dir);
	assert_int_equal(symlink("/etc", path), 0);
	snprintf(target, sizeof target, "%s/in", dir);
	snprintf(path, sizeof path, "%s/in/self", dir);
	assert_int_equal(symlink(target, path), 0);
	snprintf(policy, sizeof policy, "paths: [%s/in]\n", dir);
	struct {
		const char *tail;
		int expected;
	} rows[] = {
		{"in/baton.conf", 0},
		{"in/new/dir/baton.conf", 0},
		{"in/self/baton.conf", 0},
		{"inside/baton.conf", BT_E_REFUSED},
		{"in/out/baton.conf", BT_E_REFUSED},
		{"in/../inside/baton.conf", BT_E_REFUSED},
		{"in/..", BT_E_REFUSED},
	};
	/* the state directory is a root of its own: /tmp would allow everything here */
	struct bt_policy_spec spec = {.path = "p", .state_dir = NULL};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		struct bt_policy *p = NULL;
		assert_int_equal(bt_policy_parse(policy, strlen(policy), &spec, &p, NULL), 0);
		snprintf(path, sizeof path, "%s/%s", dir, rows[i].tail);
		struct bt_nginx n = {.include = path, .binary = "nginx"};
		struct bt_service s = {.name = "shop", .nginx = &n};
		int r = bt_policy_balancer(p, &s, &err);
		if (r != rows[i].expected)
			fail_msg("%s: %d", rows[i].tail, r);
		bt_policy_free(p);
	}
	assert_int_equal(balancer_with("", "relative.conf", &err), BT_E_REFUSED);
	bt_fs_remove_tree(dir, NULL);
}

static void test_haproxy(void **state)
{
	(void)state;
	struct bt_policy *p = parse("");
	struct bt_l4 l4 = {
		.kind = BT_BALANCER_HAPROXY, .haproxy = {.socket = "/run/haproxy/admin.sock"}};
	struct bt_service s = {.name = "shop", .l4 = &l4};
	struct bt_err err = {0};
	/* where haproxy was never installed its directory is not there, and nothing is beneath it
	 */
	int expected = bt_fs_exists("/run/haproxy") ? 0 : BT_E_REFUSED;
	assert_int_equal(bt_policy_balancer(p, &s, NULL), expected);
	l4.haproxy.socket = "/var/lib/haproxy/stats";
	assert_int_equal(bt_policy_balancer(p, &s, NULL), 0);
	l4.haproxy.state_file = "/var/lib/haproxy/server-state";
	assert_int_equal(bt_policy_balancer(p, &s, NULL), 0);
	l4.haproxy.state_file = "/etc/passwd";
	assert_int_equal(bt_policy_balancer(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "haproxy.state_file /etc/passwd"));
	l4.haproxy.state_file = NULL;
	l4.haproxy.socket = "/root/docker.sock";
	assert_int_equal(bt_policy_balancer(p, &s, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "haproxy.socket"));
	bt_policy_free(p);
}

static void test_binary(void **state)
{
	(void)state;
	struct bt_policy *p = parse("");
	struct bt_nginx n = {.binary = "/tmp/evil"};
	struct bt_service s = {.name = "shop", .nginx = &n};
	assert_int_equal(bt_policy_balancer(p, &s, NULL), BT_E_REFUSED);
	n = (struct bt_nginx){.binary = "nginx", .mode = BT_NGINX_MANAGED, .listen = "0.0.0.0:80"};
	assert_int_equal(bt_policy_balancer(p, &s, NULL), BT_E_REFUSED);
	n.listen = "8080";
	assert_int_equal(bt_policy_balancer(p, &s, NULL), 0);
	n.redirect = "*:80";
	assert_int_equal(bt_policy_balancer(p, &s, NULL), BT_E_REFUSED);
	n.redirect = "8081";
	assert_int_equal(bt_policy_balancer(p, &s, NULL), 0);
	static const struct bt_kv sites[] = {
		{"blue", "/etc/nginx/blue.conf"}, {"green", "/root/secret"}};
	n = (struct bt_nginx){.binary = "nginx",
		.form = BT_NGINX_SITE,
		.include = "/etc/nginx/sites-enabled/a.conf",
		.sites = sites,
		.n_sites = 1};
	assert_int_equal(bt_policy_balancer(p, &s, NULL), 0);
	n.n_sites = 2;
	assert_int_equal(bt_policy_balancer(p, &s, NULL), BT_E_REFUSED);
	bt_policy_free(p);
}

static void test_file_must_be_safe(void **state)
{
	(void)state;
	char path[] = "/tmp/bt-policy-file-XXXXXX";
	struct bt_err err = {0};
	struct bt_policy *p = NULL;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "root: true\n", 11), 11);
	close(fd);
	struct bt_policy_spec spec = {.path = path, .must_exist = true, .own_machine = true};
	assert_int_equal(bt_policy_load(&spec, &p, NULL), 0);
	bt_policy_free(p);
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(bt_policy_load(&spec, &p, &err), BT_E_REFUSED);
	assert_non_null(strstr(err.text, "nobody else may write"));
	if (geteuid() == 0) {
		assert_int_equal(chmod(path, 0644), 0);
		assert_int_equal(chown(path, 2, 2), 0);
		assert_int_equal(bt_policy_load(&spec, &p, &err), BT_E_REFUSED);
	}
	unlink(path);
	assert_true(bt_policy_load(&spec, &p, &err) < 0);
	spec.must_exist = false;
	assert_int_equal(bt_policy_load(&spec, &p, NULL), 0);
	bt_policy_free(p);
}

static void hidden(const struct bt_redact *r, const char *text, const char *expected)
{
	BT_FREE char *s = bt_redact_dup(r, text);
	assert_string_equal(s, expected);
}

static void test_redact(void **state)
{
	(void)state;
	struct bt_redact *r = bt_redact_new();
	hidden(r, "nothing", "nothing");
	bt_redact_add(r, "");
	bt_redact_add(r, "hunter2");
	bt_redact_add(r, "hunter2-and-more");
	bt_redact_add(r, "-----KEY\nabcdefgh\n}\n");
	hidden(r, "pw=hunter2", "pw=***");
	hidden(r, "hunter2hunter2 hunter", "****** hunter");
	hidden(r, "hunter2-and-more!", "***!");
	hidden(r, "line abcdefgh }", "line *** }");
	hidden(r, "a\xff\x01z\xc3", "a??z?");
	hidden(r, "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f");
	assert_null(bt_redact_dup(r, NULL));
	bt_redact_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_parse_errors),
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_rotation),
		cmocka_unit_test(test_further_ports),
		cmocka_unit_test(test_tomcat),
		cmocka_unit_test(test_exec),
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_binary),
		cmocka_unit_test(test_haproxy),
		cmocka_unit_test(test_file_must_be_safe),
		cmocka_unit_test(test_redact),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
