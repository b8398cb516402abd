/* What is Tomcat's of the runtime `tomcat`: names, texts, reading a server.xml, a base and what is
 * placed in it. tests/integration/test_tomcat.py has the real one. */
#include "expect.h"

#include "base/fs.h"
#include "base/str.h"
#include "driver/tomcat.h"
#include "driver/zip_check.h"

#include <setjmp.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static char dir[64];

static int set_up(void **state)
{
	(void)state;
	snprintf(dir, sizeof dir, "/tmp/baton-tomcat-XXXXXX");
	assert_non_null(mkdtemp(dir));
	return chmod(dir, 0755);
}

static int tear_down(void **state)
{
	(void)state;
	return bt_fs_remove_tree(dir, NULL);
}

static const char *in_dir(const char *name)
{
	static char paths[4][256];
	static int next;
	char *path = paths[next++ % 4];
	snprintf(path, sizeof paths[0], "%s/%s", dir, name);
	return path;
}

static void put(const char *name, const char *text)
{
	const char *path = in_dir(name);
	BT_FREE char *parent = bt_strndup(path, (size_t)(strrchr(path, '/') - path));
	assert_int_equal(bt_fs_mkdirs(parent, 0755, NULL), 0);
	assert_int_equal(bt_fs_write_atomic(path, text, strlen(text), 0644, NULL), 0);
}

static void holds(const char *name, const char *text)
{
	BT_FREE char *found = NULL;
	assert_int_equal(bt_fs_read(in_dir(name), 1 << 20, &found, NULL, NULL), 0);
	assert_string_equal(found, text);
}

static bool is_there(const char *name)
{
	struct stat st;
	return lstat(in_dir(name), &st) == 0;
}

/* ---- names and texts ---------------------------------------------------------------------------
 */

static void test_names(void **state)
{
	(void)state;
	static const char *const rows[][2] = {{"/", "ROOT"}, {"/shop", "shop"},
		{"/api/v1", "api#v1"}, {"/shop##2", "shop##2"}, {"/##2", "ROOT##2"},
		{"/api/v1##2.10", "api#v1##2.10"}};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		BT_FREE char *name = bt_tomcat_name(rows[i][0]);
		assert_string_equal(name, rows[i][1]);
	}
}

static const struct bt_kv connector[] = {
	{"maxThreads", "400"}, {"relaxedQueryChars", "<>\"&\n"}, {"compression", "on"}};

static void test_render(void **state)
{
	(void)state;
	const struct {
		const char *name;
		struct bt_tomcat_server server;
	} cases[] = {
		{"plain.xml", {.port = 8080}},
		{"full.xml", {.port = 8081,
				     .shutdown_port = 8005,
				     .shutdown = "SHUT \"it\"",
				     .connector = connector,
				     .n_connector = BT_ARRAY_LEN(connector),
				     .access_log = true}},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		const struct bt_tomcat_server *s = &cases[i].server;
		struct bt_tomcat_facts f;
		struct bt_err err = {0};
		BT_STR struct bt_str out = {0};
		bt_tomcat_render(s, &out);
		is_golden(bt_str_get(&out), "tomcat/%s", cases[i].name);
		/* What baton reads of other people's, it reads of its own. */
		assert_int_equal(bt_tomcat_facts_read(out.data, out.len, NULL, 0, &f, &err), 0);
		assert_int_equal(f.n_ports, 1);
		assert_int_equal(f.ports[0], s->port);
		assert_int_equal(f.shutdown_port, s->shutdown_port ? s->shutdown_port : -1);
		if (s->shutdown)
			assert_string_equal(f.shutdown, s->shutdown);
		assert_string_equal(f.engine, "Catalina");
		assert_string_equal(f.host, "localhost");
		assert_string_equal(f.app_base, "webapps");
		assert_false(f.open);
	}
}

/* ---- server.xml ---------------------------------------------------------------------------------
 */

static const struct bt_kv properties[] = {{"baton.port", "8080"}, {"baton.port.shutdown", "8005"}};

static struct bt_tomcat_facts facts_of(const char *text)
{
	struct bt_tomcat_facts f;
	struct bt_err err = {0};
	if (bt_tomcat_facts_read(
		    text, strlen(text), properties, BT_ARRAY_LEN(properties), &f, &err) < 0)
		fail_msg("%s: %s", text, err.text);
	return f;
}

static void test_facts(void **state)
{
	(void)state;
	struct bt_tomcat_facts f = facts_of(
		"<?xml version='1.0'?><!DOCTYPE Server>"
		"<!-- <Connector port=\"1\"/> --><Server port='8005' shutdown='a&lt;b&amp;&quot;'>"
		"<Service name=\"Catalina\"><Connector\n port = \"8080\" protocol='HTTP/1.1'/>"
		"<Connector protocol=\"AJP/1.3\" port=\"8009\"/>"
		"<Connector port=\"8443\"><SSLHostConfig/></Connector>"
		"<Engine name='Main' defaultHost='shop.test'><Realm className=\"x>y\"/>"
		"<Host name='other' appBase='others'/><Host name='shop.test' appBase='apps'></Host>"
		"</Engine></Service></Server>");
	assert_int_equal(f.n_ports, 2);
	assert_int_equal(f.ports[0], 8080);
	assert_int_equal(f.ports[1], 8443);
	assert_int_equal(f.shutdown_port, 8005);
	assert_string_equal(f.shutdown, "a<b&\"");
	assert_string_equal(f.engine, "Main");
	assert_string_equal(f.host, "shop.test");
	assert_string_equal(f.app_base, "apps");

	f = facts_of("<Server><Connector port=\"${baton.port}\"/><Engine defaultHost='h'><Host "
		     "name='h'/></Engine></Server>");
	assert_int_equal(f.ports[0], 8080);
	assert_int_equal(f.shutdown_port, 8005); /* Tomcat's own defaults */
	assert_string_equal(f.shutdown, "SHUTDOWN");
	assert_string_equal(f.app_base, "webapps");
	assert_false(f.open);

	f = facts_of("<Server port=\"${baton.port.shutdown}\" portOffset='10'><Connector "
		     "port=\"${http}\"/><Connector port='81'/><Engine defaultHost='h'><Host "
		     "name='h'/></Engine></Server>");
	assert_int_equal(f.shutdown_port, 8015);
	assert_int_equal(f.n_ports, 1);
	assert_int_equal(f.ports[0], 91);
	assert_true(f.open);

	f = facts_of(
		"<Server port=\"${s}\"><Engine defaultHost='h'><Host name='h'/></Engine></Server>");
	assert_int_equal(f.shutdown_port, 0);
	f = facts_of(
		"<Server port=\"-1\"><Engine defaultHost='h'><Host name='h'/></Engine></Server>");
	assert_int_equal(f.shutdown_port, -1);
}

static void test_facts_of_nothing(void **state)
{
	(void)state;
	static const char *const rows[][2] = {
		{"", "no Server"},
		{"<html></html>", "no Server"},
		{"<Server>", "no Host"},
		{"<Server port=\"8005\"", "has no end"},
		{"<Server port=8005>", "without quotes"},
		{"<Server port>", "without a value"},
		{"<Server port=\"80", "value has no end"},
		{"<Server port=\"x\">", "is no port"},
		{"<Server><Connector port='70000'/>", "is no port"},
		{"<!-- <Server>", "comment"},
		{"<Server/><Server/>", "two Server"},
		{"< Server>", "without a name"},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++) {
		struct bt_tomcat_facts f;
		struct bt_err err = {0};
		assert_int_equal(
			bt_tomcat_facts_read(rows[i][0], strlen(rows[i][0]), NULL, 0, &f, &err),
			BT_E_CONFIG);
		contains(err.text, rows[i][1]);
	}
}

/* ---- zip
 * ----------------------------------------------------------------------------------------- */

/* One stored file "a" that holds "hi": local header, data, central header, end record. */
static const unsigned char zip[] =
	"PK\3\4\12\0\0\0\0\0\0\0\0\0\xac\x2a\x93\xd8\2\0\0\0\2\0\0\0\1\0\0\0ahi"
	"PK\1\2\12\0\12\0\0\0\0\0\0\0\0\0\xac\x2a\x93\xd8\2\0\0\0\2\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0"
	"\0"
	"\0\0\0\0a"
	"PK\5\6\0\0\0\0\1\0\1\0\57\0\0\0\41\0\0\0\0\0";
enum { ZIP = sizeof zip - 1 };

static int check_bytes(const void *before, size_t n_before, const void *data, size_t n)
{
	char path[256];
	struct bt_err err = {0};
	snprintf(path, sizeof path, "%s/z", dir);
	BT_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(bt_fs_write_all(fd, before, n_before), 0);
	assert_int_equal(bt_fs_write_all(fd, data, n), 0);
	int r = bt_zip_check(path, &err);
	assert_true(r == 0 || (r == BT_E_CORRUPT && strstr(err.text, "zip")));
	return r;
}

static void test_zip(void **state)
{
	(void)state;
	unsigned char copy[ZIP];
	assert_int_equal(check_bytes("", 0, zip, ZIP), 0);
	assert_int_equal(check_bytes("#!/bin/sh\n", 10, zip, ZIP), 0); /* a program before it */
	for (size_t n = 0; n < ZIP; n++)			       /* one that was cut */
		assert_int_equal(check_bytes("", 0, zip, n), BT_E_CORRUPT);
	assert_int_equal(check_bytes("", 0, zip + ZIP - 22, 22), BT_E_CORRUPT); /* the end alone */
	assert_int_equal(check_bytes("", 0, "PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 22),
		BT_E_CORRUPT); /* empty */
	/* Any byte of the end record's offsets, and both signatures. */
	static const size_t places[] = {
		0, 2, 33, 36, ZIP - 22, ZIP - 10, ZIP - 9, ZIP - 6, ZIP - 4, ZIP - 3, ZIP - 2};
	for (size_t i = 0; i < BT_ARRAY_LEN(places); i++) {
		memcpy(copy, zip, ZIP);
		copy[places[i]] ^= 0x7f;
		assert_int_equal(check_bytes("", 0, copy, ZIP), BT_E_CORRUPT);
	}
}

/* ---- placing
 * ------------------------------------------------------------------------------------- */

static char home_path[128], base_path[128], artifact[128];
static struct bt_tomcat_plan plan;

static void war(const char *name)
{
	snprintf(artifact, sizeof artifact, "%s/%s", dir, name);
	BT_CLOSE int fd = open(artifact, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_int_equal(bt_fs_write_all(fd, name, strlen(name)), 0); /* each is another */
	assert_int_equal(bt_fs_write_all(fd, zip, ZIP), 0);
}

static void begin(void)
{
	put("home/bin/catalina.sh", "#!/bin/sh\n");
	put("home/bin/bootstrap.jar", "");
	put("home/lib/catalina.jar", "");
	put("home/conf/web.xml", "<web-app/>");
	put("home/conf/server.xml", "<Server/>");
	put("home/conf/catalina.properties", "a=b");
	snprintf(home_path, sizeof home_path, "%s/home", dir);
	snprintf(base_path, sizeof base_path, "%s/base", dir);
	war("v1.war");
	plan = (struct bt_tomcat_plan){.service = "shop",
		.slot = "a",
		.port = 8080,
		.artifact = artifact,
		.home = home_path,
		.base = base_path,
		.name = "shop",
		.server = {.port = 8080, .shutdown_port = 8005, .shutdown = "SHUTDOWN"},
		.owner = {-1, -1}};
}

static void prepare(void)
{
	struct bt_err err = {0};
	if (bt_tomcat_prepare(&plan, &err) < 0)
		fail_msg("%s", err.text);
}

static void refused(int code, const char *words)
{
	struct bt_err err = {0};
	assert_int_equal(bt_tomcat_prepare(&plan, &err), code);
	contains(err.text, words);
}

static struct bt_tomcat_state state_of_base(struct bt_arena *a)
{
	struct bt_tomcat_state s;
	BT_CLOSE int fd = open(base_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct bt_err err = {0};
	if (bt_tomcat_state_read(fd, a, &s, &err) < 0)
		fail_msg("%s", err.text);
	return s;
}

static void placed(const char *name)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_tomcat_state s = state_of_base(a);
	BT_FREE char *file = bt_asprintf("base/webapps/%s.war", name);
	BT_FREE char *want = NULL, *found = NULL;
	size_t n, m;
	assert_int_equal(s.n_placed, 1);
	assert_string_equal(s.placed[0], name);
	assert_int_equal(bt_fs_read(artifact, 4096, &want, &n, NULL), 0);
	assert_int_equal(bt_fs_read(in_dir(file), 4096, &found, &m, NULL), 0);
	assert_int_equal(n, m);
	assert_memory_equal(want, found, n);
}

static void test_a_made_base(void **state)
{
	(void)state;
	begin();
	plan.jars_to_skip = "*.jar";
	prepare();
	placed("shop");
	holds("base/conf/web.xml", "<web-app/>");
	holds("base/conf/catalina.properties",
		"a=b\n\ntomcat.util.scan.StandardJarScanFilter.jarsToSkip=*.jar\n");
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_tomcat_state s = state_of_base(a);
	assert_true(s.made);
	assert_int_equal(s.shutdown_port, 8005);
	assert_string_equal(s.shutdown, "SHUTDOWN");
	/* Another config: its texts follow; what people changed of the rest stays. */
	put("base/conf/web.xml", "<mine/>");
	plan.port = plan.server.port = 8081;
	plan.server.shutdown_port = 0;
	prepare();
	holds("base/conf/web.xml", "<mine/>");
	BT_FREE char *xml = NULL;
	assert_int_equal(bt_fs_read(in_dir("base/conf/server.xml"), 1 << 20, &xml, NULL, NULL), 0);
	contains(xml, "port=\"8081\"");
	assert_int_equal(state_of_base(a).shutdown_port, -1);
	plan.slot = "b";
	refused(BT_E_REFUSED, "base of shop/a");
}

static void test_one_after_the_other(void **state)
{
	(void)state;
	begin();
	prepare();
	/* What Tomcat made of it, and what others have there. */
	put("base/webapps/shop/WEB-INF/web.xml", "old");
	put("base/work/Catalina/localhost/shop/x.class", "old");
	put("base/work/Catalina/localhost/other/x.class", "other");
	put("base/webapps/other.war", "other");
	put("base/webapps/.baton-new/half", "of a crash");
	war("v2.war");
	prepare();
	placed("shop");
	assert_false(is_there("base/webapps/shop"));
	assert_false(is_there("base/work/Catalina/localhost/shop"));
	assert_false(is_there("base/webapps/.baton-new"));
	holds("base/work/Catalina/localhost/other/x.class", "other");
	holds("base/webapps/other.war", "other");
	/* Another context, and a directory instead of a WAR. */
	put("base/webapps/shop/x", "unpacked");
	put("tree/index.html", "hello");
	put("tree/WEB-INF/classes/A.class", "A");
	assert_int_equal(symlink("index.html", in_dir("tree/link")), 0);
	snprintf(artifact, sizeof artifact, "%s/tree", dir);
	plan.name = "api#v1";
	prepare();
	assert_false(is_there("base/webapps/shop") || is_there("base/webapps/shop.war"));
	holds("base/webapps/api#v1/WEB-INF/classes/A.class", "A");
	holds("base/webapps/api#v1/link", "hello");
	war("v3.war");
	prepare();
	placed("api#v1");
	assert_false(is_there("base/webapps/api#v1"));
}

static void test_what_is_in_the_way(void **state)
{
	(void)state;
	begin();
	put("base/webapps/shop.war", "mine");
	put("base/webapps/shop/index.html", "mine");
	refused(BT_E_REFUSED, "take_over");
	holds("base/webapps/shop.war", "mine");
	plan.take_over = true;
	prepare();
	placed("shop");
	holds("base/.before-baton/shop.war", "mine");
	holds("base/.before-baton/shop/index.html", "mine");
	/* Taken over once, it is baton's: nothing more is kept. */
	war("v2.war");
	prepare();
	assert_false(is_there("base/.before-baton/shop.war.1"));
}

static void test_nothing_is_touched(void **state)
{
	(void)state;
	begin();
	prepare();
	char good[128];
	snprintf(good, sizeof good, "%s", artifact);
	put("bad.war", "<html>");
	snprintf(artifact, sizeof artifact, "%s/bad.war", dir);
	refused(BT_E_CORRUPT, "no WAR");
	snprintf(artifact, sizeof artifact, "%s/none.war", dir);
	refused(-ENOENT, "none.war");
	/* One that cannot be copied whole: a pipe in the tree. */
	put("tree/a", "a");
	assert_int_equal(mkfifo(in_dir("tree/pipe"), 0600), 0);
	snprintf(artifact, sizeof artifact, "%s/tree", dir);
	refused(-EINVAL, "copy");
	assert_false(is_there("base/webapps/.baton-new"));
	snprintf(artifact, sizeof artifact, "%s", good);
	placed("shop");
	plan.home = dir;
	refused(BT_E_CONFIG, "run.tomcat.home");
}

static void test_a_base_that_is_there(void **state)
{
	(void)state;
	static const char xml[] =
		"<Server port='9005' shutdown='bye'><Connector port='8080'/><Engine "
		"name='E' defaultHost='h'><Host name='h' appBase='%s'/></Engine>"
		"</Server>";
	begin();
	char text[512];
	snprintf(text, sizeof text, xml, "apps");
	put("base/conf/server.xml", text);
	refused(BT_E_CONFIG, "9005"); /* the config says 8005 */
	plan.server.shutdown_port = 0;
	refused(-ENOENT, "apps");
	put("base/apps/keep", "");
	put("base/work/E/h/shop/x", "");
	prepare();
	assert_true(is_there("base/apps/shop.war"));
	assert_false(is_there("base/work/E/h/shop"));
	holds("base/conf/server.xml", text);
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_tomcat_state s = state_of_base(a);
	assert_false(s.made);
	assert_int_equal(s.shutdown_port, 9005);
	assert_string_equal(s.shutdown, "bye");
	plan.port = 8081;
	refused(BT_E_CONFIG, "slot a has port 8081");
	plan.port = 8080;
	static const char *const outside[] = {"../apps", "/etc", "a/../../b", "${x}"};
	for (size_t i = 0; i < BT_ARRAY_LEN(outside); i++) {
		snprintf(text, sizeof text, xml, outside[i]);
		put("base/conf/server.xml", text);
		refused(BT_E_CONFIG, "beneath the base");
	}
}

/* The user that Tomcat runs as turns its directories elsewhere, and writes what it likes into the
 * state. */
static void test_a_base_that_lies(void **state)
{
	(void)state;
	begin();
	prepare();
	put("else/shop.war", "not to be touched");
	assert_int_equal(bt_fs_remove_tree(in_dir("base/webapps"), NULL), 0);
	assert_int_equal(symlink("../else", in_dir("base/webapps")), 0);
	if (geteuid() == 0) {
		assert_int_equal(lchown(in_dir("base/webapps"), 65534, 65534), 0);
		refused(-ELOOP, "webapps");
		holds("else/shop.war", "not to be touched");
		/* One that root made is the owner's wish: Debian's base has such. */
		assert_int_equal(lchown(in_dir("base/webapps"), 0, 0), 0);
	}
	prepare();
	assert_true(is_there("else/shop.war"));
	static const char *const placed_names[] = {
		"[\"../../home\"]", "[\"..\"]", "[\"/etc\"]", "[\"\"]", "[5]", "[\".x\"]"};
	for (size_t i = 0; i < BT_ARRAY_LEN(placed_names); i++) {
		BT_FREE char *text =
			bt_asprintf("{\"made\":true,\"service\":\"shop\",\"slot\":\"a\","
				    "\"placed\":%s}",
				placed_names[i]);
		put("base/.baton-tomcat.json", text);
		refused(BT_E_CORRUPT, "placed");
	}
	assert_true(is_there("home/conf/web.xml"));
}

static void owner_is(const char *name, uid_t uid)
{
	struct stat st;
	assert_int_equal(lstat(in_dir(name), &st), 0);
	assert_int_equal(st.st_uid, uid);
}

static void test_another_user(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	begin();
	plan.owner = (struct bt_tomcat_owner){65534, 65534};
	prepare();
	static const char *const theirs[] = {"base/logs", "base/temp", "base/webapps", "base/work",
		"base/webapps/shop.war", "base/conf/Catalina/localhost"};
	static const char *const ours[] = {
		"base", "base/conf", "base/conf/server.xml", "base/.baton-tomcat.json"};
	for (size_t i = 0; i < BT_ARRAY_LEN(theirs); i++)
		owner_is(theirs[i], 65534);
	for (size_t i = 0; i < BT_ARRAY_LEN(ours); i++)
		owner_is(ours[i], 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_names),
		cmocka_unit_test(test_render), cmocka_unit_test(test_facts),
		cmocka_unit_test(test_facts_of_nothing), T(test_zip), T(test_a_made_base),
		T(test_one_after_the_other), T(test_what_is_in_the_way), T(test_nothing_is_touched),
		T(test_a_base_that_is_there), T(test_a_base_that_lies), T(test_another_user)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
