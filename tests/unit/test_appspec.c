/* appspec.yml: what is read, and every way of being wrong, with its place. */
#include "config/appspec.h"

#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define HEAD "version: 0.0\nos: linux\n"

static struct bt_appspec *good(const char *text)
{
	struct bt_appspec *a = NULL;
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	int r = bt_appspec_parse(text, strlen(text), "appspec.yml", &a, &problems, &err);
	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(problems.n, 0);
	bt_config_problems_done(&problems);
	return a;
}

/* All problems are told, each a line. */
static void bad(const char *text, const char *expected)
{
	struct bt_appspec *a = NULL;
	struct bt_config_problems problems = {0};
	struct bt_err err = {0};
	BT_STR struct bt_str all = {0};
	assert_int_equal(
		bt_appspec_parse(text, strlen(text), "a.yml", &a, &problems, &err), BT_E_CONFIG);
	assert_null(a);
	for (size_t i = 0; i < problems.n; i++)
		bt_str_addf(&all, "%s%s", i ? "\n" : "", problems.items[i].line);
	assert_string_equal(bt_str_get(&all), expected);
	assert_string_equal(err.text, problems.items[0].line);
	bt_config_problems_done(&problems);
}

static void test_whole(void **state)
{
	(void)state;
	struct bt_appspec *a = good(HEAD
		"files:\n"
		"  - {source: /, destination: /srv/shop/}\n"
		"  - {source: ./conf//shop.conf, destination: //etc/./shop}\n"
		"file_exists_behavior: OVERWRITE\n"
		"permissions:\n"
		"  - {object: /srv/shop, owner: shop, group: www, mode: 0640}\n"
		"  - {object: /etc, pattern: '*.conf', except: [a.conf], mode: '7', type: [file]}\n"
		"hooks:\n"
		"  ApplicationStop: [{location: scripts/stop.sh}]\n"
		"  AfterInstall:\n"
		"    - {location: /a.sh, timeout: 5, runas: shop, sudo: true}\n"
		"    - {location: b.sh}\n");
	assert_int_equal(a->exists, BT_APPSPEC_OVERWRITE);
	assert_int_equal(a->n_files, 2);
	assert_string_equal(a->files[0].source, "");
	assert_string_equal(a->files[0].destination, "/srv/shop");
	assert_string_equal(a->files[1].source, "conf/shop.conf");
	assert_string_equal(a->files[1].destination, "/etc/shop");
	assert_int_equal(a->n_permissions, 2);
	assert_int_equal(a->permissions[0].mode, 0640);
	assert_string_equal(a->permissions[0].pattern, "**");
	assert_true(a->permissions[0].files && a->permissions[0].directories);
	assert_int_equal(a->permissions[1].mode, 7);
	assert_true(a->permissions[1].files && !a->permissions[1].directories);
	const struct bt_appspec_event *e = &a->events[BT_LIFE_AFTER_INSTALL];
	assert_int_equal(e->n, 2);
	assert_string_equal(e->scripts[0].location, "a.sh");
	assert_int_equal(e->scripts[0].timeout_ms, 5000);
	assert_string_equal(e->scripts[0].runas, "shop");
	assert_int_equal(e->scripts[1].timeout_ms, 3600000);
	assert_null(e->scripts[1].runas);
	assert_int_equal(a->events[BT_LIFE_BEFORE_INSTALL].n, 0);
	bt_appspec_free(a);
}

static void test_little(void **state)
{
	(void)state;
	struct bt_appspec *a = good(HEAD "files:\nhooks:\npermissions:\n");
	assert_int_equal(a->n_files + a->n_permissions, 0);
	assert_int_equal(a->exists, BT_APPSPEC_DISALLOW);
	bt_appspec_free(a);
	bt_appspec_free(good("version: 0\nos: linux\n"));
}

/* What YAML says with nothing behind the colon is as though it were not there. */
static void test_nothing(void **state)
{
	(void)state;
	struct bt_appspec *a = good(
		HEAD "file_exists_behavior:\n"
		     "permissions:\n"
		     "  - {object: /a, pattern: , except: , owner: , group: ~, mode: , type: , "
		     "acls: , context: }\n"
		     "hooks:\n"
		     "  AfterInstall:\n"
		     "    - location: a.sh\n"
		     "      timeout:\n"
		     "      runas:\n"
		     "      sudo:\n"
		     "  BeforeInstall:\n");
	assert_int_equal(a->exists, BT_APPSPEC_DISALLOW);
	const struct bt_appspec_permission *p = &a->permissions[0];
	assert_string_equal(p->pattern, "**");
	assert_null(p->owner);
	assert_null(p->group);
	assert_int_equal(p->mode, -1);
	assert_true(p->files && p->directories);
	const struct bt_appspec_script *s = &a->events[BT_LIFE_AFTER_INSTALL].scripts[0];
	assert_null(s->runas);
	assert_int_equal(s->timeout_ms, 3600000);
	bt_appspec_free(a);
	bad(HEAD "permissions:\n  - object:\nhooks:\n  AfterInstall:\n    - location:\n",
		"a.yml:4:5: permissions: object is missing: expected for example {object: "
		"/srv/shop, owner: shop}\n"
		"a.yml:7:7: hooks: AfterInstall: location is missing: expected for example "
		"{location: scripts/start.sh}");
}

/* As editors on Windows leave it. */
static void test_windows(void **state)
{
	(void)state;
	struct bt_appspec *a = good("\xef\xbb\xbfversion: 0.0\r\nos: linux\r\nfiles:\r\n"
				    "  - source: app\r\n    destination: /srv/shop\r\nhooks:\r\n"
				    "  AfterInstall:\r\n    - location: a.sh\r\n");
	assert_string_equal(a->files[0].destination, "/srv/shop");
	assert_string_equal(a->events[BT_LIFE_AFTER_INSTALL].scripts[0].location, "a.sh");
	bt_appspec_free(a);
}

static void test_document(void **state)
{
	(void)state;
	bad("", "a.yml:1:1: expected one document, found 0");
	bad("[]", "a.yml:1:1: appspec: expected a map with version, os, files, "
		  "file_exists_behavior, permissions, hooks, found an empty list");
	bad("os: linux\nhook: {}\n",
		"a.yml:1:1: 'version' is missing: expected version: 0.0\n"
		"a.yml:2:1: appspec: unknown key 'hook' (did you mean 'hooks'?)");
	bad("version: '0.0'\nos: Linux\n", "a.yml:1:10: version: expected the number 0.0, found "
					   "'0.0'\n"
					   "a.yml:2:5: os: expected linux, found 'Linux'");
	bad("version: 1.0\nos: linux\nfile_exists_behavior: overwrite\n",
		"a.yml:1:10: version: expected the number 0.0, found '1.0'\n"
		"a.yml:3:23: file_exists_behavior: expected DISALLOW, OVERWRITE or RETAIN, found "
		"'overwrite'");
}

static void test_files(void **state)
{
	(void)state;
	bad(HEAD "files:\n  - source: a/../../b\n    destination: /srv/../etc\n",
		"a.yml:4:13: files: source: 'a/../../b' leaves the bundle: expected a path below "
		"its root\n"
		"a.yml:5:18: files: destination: expected an absolute path without '..', such as "
		"/srv/shop, found '/srv/../etc'");
	bad(HEAD "files: {source: a}\n",
		"a.yml:3:8: files: expected a list of at most 1000, found a map");
	bad(HEAD "files:\n  - sorce: a\n",
		"a.yml:4:5: files: unknown key 'sorce' (did you mean 'source'?)\n"
		"a.yml:4:5: files: source is missing: expected {source: app, destination: "
		"/srv/shop}");
}

static void test_permissions(void **state)
{
	(void)state;
	bad(HEAD "permissions:\n  - object: /srv\n    mode: 0888\n    acls: [u]\n"
		 "    context: {user: u}\n    type: [link]\n    pattern: a/*\n",
		"a.yml:5:11: permissions: mode: expected 1 to 4 octal digits, such as 0640, found "
		"'0888'\n"
		"a.yml:6:11: permissions: acls: baton sets no access control lists: give owner, "
		"group and mode, or set them in an AfterInstall script\n"
		"a.yml:7:14: permissions: context: baton sets no SELinux context: give owner, "
		"group and mode, or set them in an AfterInstall script\n"
		"a.yml:8:12: permissions: type: expected file or directory, found 'link'\n"
		"a.yml:9:14: permissions: pattern: expected '**', or names directly in the "
		"object, such as '*.sh', found 'a/*'");
	bad(HEAD "permissions:\n  - {owner: a}\n",
		"a.yml:4:5: permissions: object is missing: expected for example {object: "
		"/srv/shop, owner: shop}");
	bad(HEAD "permissions:\n  - {object: /a, mode: 01234}\n",
		"a.yml:4:24: permissions: mode: expected 1 to 4 octal digits, such as 0640, found "
		"'01234'");
}

static void test_hooks(void **state)
{
	(void)state;
	bad(HEAD "hooks:\n  ApplicationStrat:\n    - location: a\n",
		"a.yml:4:3: hooks: unknown event 'ApplicationStrat' (did you mean "
		"'ApplicationStart'?)");
	bad(HEAD "hooks:\n  Install: []\n",
		"a.yml:4:3: hooks: Install cannot have scripts: it is baton's own");
	bad(HEAD "hooks:\n  AfterInstall:\n    - location: ../a.sh\n      timeout: 4000\n"
		 "      sudo: maybe\n    - timeout: 5\n",
		"a.yml:5:17: hooks: AfterInstall: '../a.sh' leaves the bundle: expected a path "
		"below its root\n"
		"a.yml:6:16: hooks: AfterInstall: expected timeout in whole seconds, 1 to 3600, "
		"found '4000'\n"
		"a.yml:7:13: hooks: AfterInstall: expected true or false in sudo, found 'maybe'\n"
		"a.yml:8:7: hooks: AfterInstall: location is missing: expected for example "
		"{location: scripts/start.sh}");
	bad(HEAD "hooks: []\n", "a.yml:3:8: hooks: expected a map of lifecycle events to lists of "
				"scripts, found an empty list");
}

static void test_permits(void **state)
{
	(void)state;
	static const char *const except[] = {"x*"};
	struct bt_appspec_permission p = {
		.object = "/srv/a", .pattern = "**", .files = true, .directories = true};
	assert_true(bt_appspec_permits(&p, "/srv/a/b", false));
	assert_true(bt_appspec_permits(&p, "/srv/a/b/c", true));
	assert_true(bt_appspec_permits(&p, "/srv/a", false));
	assert_false(bt_appspec_permits(&p, "/srv/a", true));
	assert_false(bt_appspec_permits(&p, "/srv/ab", false));
	p.except = except;
	p.n_except = 1;
	assert_false(bt_appspec_permits(&p, "/srv/a/xb", false));
	assert_true(bt_appspec_permits(&p, "/srv/a/b/xc", false));
	p.pattern = "*.s*";
	assert_true(bt_appspec_permits(&p, "/srv/a/b.sh", false));
	assert_false(bt_appspec_permits(&p, "/srv/a/b/c.sh", false));
	assert_false(bt_appspec_permits(&p, "/srv/a/b.txt", false));
	p.object = "/";
	assert_true(bt_appspec_permits(&p, "/b.sh", false));
	p.directories = false;
	assert_false(bt_appspec_permits(&p, "/b.sh", true));
}

static void test_names(void **state)
{
	const char *names[3];
	(void)state;
	assert_int_equal(bt_appspec_names(NULL, names), 2);
	assert_string_equal(names[0], "appspec.yaml");
	assert_int_equal(bt_appspec_names("appspec.yml", names), 2);
	assert_string_equal(names[0], "appspec.yml");
	assert_string_equal(names[1], "appspec.yaml");
	assert_int_equal(bt_appspec_names("x.yml", names), 3);
	assert_string_equal(names[0], "x.yml");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_little),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_windows),
		cmocka_unit_test(test_document),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_permissions),
		cmocka_unit_test(test_hooks),
		cmocka_unit_test(test_permits),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
