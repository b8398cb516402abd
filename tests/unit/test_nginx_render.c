/* What baton writes for nginx: byte for byte as in tests/golden/nginx, and accepted by nginx. */
#include "expect.h"

#include "base/fs.h"
#include "driver/members.h"
#include "driver/nginx_conf.h"
#include "driver/nginx_render.h"
#include "driver/nginx_state.h"
#include "driver/nginx_watch.h"
#include "net/pki.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static const struct bt_pool_member blue_in[] = {{.address = "127.0.0.1",
							.port = 8081,
							.slot = "blue",
							.host = "was1",
							.in = true,
							.one = false},
	{.address = "127.0.0.1",
		.port = 8082,
		.slot = "green",
		.host = "was1",
		.in = false,
		.one = false}};
static const struct bt_pool_member green_in[] = {{.address = "127.0.0.1",
							 .port = 8081,
							 .slot = "blue",
							 .host = "was1",
							 .in = false,
							 .one = false},
	{.address = "127.0.0.1",
		.port = 8082,
		.slot = "green",
		.host = "was1",
		.in = true,
		.one = false}};
static const struct bt_pool_member nothing_in[] = {{.address = "127.0.0.1",
							   .port = 8081,
							   .slot = "blue",
							   .host = "was1",
							   .in = false,
							   .one = false},
	{.address = "127.0.0.1",
		.port = 8082,
		.slot = "green",
		.host = "was1",
		.in = false,
		.one = false}};
static const struct bt_pool_member three[] = {{.address = "10.0.0.1",
						      .port = 8081,
						      .slot = "1",
						      .host = "was1",
						      .in = true,
						      .one = false},
	{.address = "10.0.0.2",
		.port = 8081,
		.slot = "1",
		.host = "was2",
		.in = false,
		.one = false},
	{.address = "fd00::3",
		.port = 18081,
		.slot = "1",
		.host = "was3",
		.in = true,
		.one = false}};

static const struct bt_pool_member three_one[] = {{.address = "10.0.0.1",
							  .port = 8081,
							  .slot = "1",
							  .host = "was1",
							  .in = true,
							  .one = false},
	{.address = "10.0.0.2",
		.port = 8081,
		.slot = "1",
		.host = "was2",
		.in = false,
		.one = false},
	{.address = "fd00::3",
		.port = 18081,
		.slot = "1",
		.host = "was3",
		.in = true,
		.one = true}};

static const struct bt_nginx upstream_form = {.mode = BT_NGINX_ADOPT};
static const struct bt_nginx upstream_keepalive = {
	.mode = BT_NGINX_ADOPT, .upstream = "backend", .keepalive = 16};
static const struct bt_nginx port_form = {.mode = BT_NGINX_ADOPT, .form = BT_NGINX_SERVICE_PORT};
static const struct bt_nginx url_form = {
	.mode = BT_NGINX_ADOPT, .form = BT_NGINX_SERVICE_URL, .variable = "$target"};
static const struct bt_route routes[] = {
	{.path = "/", .to = BT_ROUTE_ONE}, {.path = "/api", .to = BT_ROUTE_ALL}};
static const struct bt_nginx managed = {.mode = BT_NGINX_MANAGED,
	.listen = "127.0.0.1:23000",
	.server_name = "shop.example.com",
	.routes = routes,
	.n_routes = 2,
	.keepalive = 32,
	.max_body_bytes = 100 << 20,
	.worker_shutdown_timeout_ms = 60000};
static const struct bt_nginx managed_least = {
	.mode = BT_NGINX_MANAGED, .listen = "23000", .max_body_bytes = 0};
static const struct bt_nginx managed_api = {.mode = BT_NGINX_MANAGED,
	.listen = "[::1]:23000",
	.routes = &routes[1],
	.n_routes = 1,
	.max_body_bytes = 2500};
static const struct bt_nginx managed_tls = {.mode = BT_NGINX_MANAGED,
	.listen = "127.0.0.1:23000",
	.certificate = "/etc/baton/tls/server.pem",
	.certificate_key = "/etc/baton/tls/server.key",
	.server_name = "shop.example.com *.shop.example.com",
	.max_body_bytes = 20 << 20,
	.routes = routes,
	.n_routes = 2};
static const char *const server_lines[] = {"proxy_buffer_size 128k", "proxy_buffers 4 256k",
	"proxy_busy_buffers_size 256k", "add_header X-Frame-Options DENY always",
	"proxy_set_header X-Real-IP $http_x_real_ip", "proxy_connect_timeout 2s"};
static const char *const route_lines[] = {"proxy_set_header \"X-Api\" 'a b'",
	"proxy_set_header host api.internal", "add_header Cache-Control no-store",
	"proxy_read_timeout 90s"};
static const char *const quiet_lines[] = {"proxy_read_timeout 5m", "gzip on"};
static const struct bt_route routes_lines[] = {{.path = "/", .to = BT_ROUTE_ONE},
	{.path = "/api", .to = BT_ROUTE_ALL, .directives = route_lines, .n_directives = 4},
	{.path = "/slow", .to = BT_ROUTE_ALL, .directives = quiet_lines, .n_directives = 2}};
static const struct bt_nginx managed_lines = {.mode = BT_NGINX_MANAGED,
	.listen = "127.0.0.1:23000",
	.max_body_bytes = 100 << 20,
	.directives = server_lines,
	.n_directives = BT_ARRAY_LEN(server_lines),
	.routes = routes_lines,
	.n_routes = BT_ARRAY_LEN(routes_lines)};
static const struct bt_nginx managed_http2 = {.mode = BT_NGINX_MANAGED,
	.listen = "127.0.0.1:23000",
	.certificate = "/etc/baton/tls/server.pem",
	.certificate_key = "/etc/baton/tls/server.key",
	.http2 = true,
	.redirect = "127.0.0.1:23001",
	.max_body_bytes = 100 << 20,
	.server_name = "shop.example.com"};

static const struct {
	const char *name;
	const struct bt_nginx *nginx;
	const struct bt_pool_member *members;
	size_t n;
} cases[] = {
	{"upstream-blue", &upstream_form, blue_in, 2},
	{"upstream-green", &upstream_form, green_in, 2},
	{"upstream-empty", &upstream_form, nothing_in, 2},
	{"upstream-three", &upstream_keepalive, three, 3},
	{"service-port", &port_form, green_in, 2},
	{"service-port-empty", &port_form, nothing_in, 2},
	{"service-url", &url_form, blue_in, 2},
	{"service-url-empty", &url_form, nothing_in, 2},
	{"managed", &managed, green_in, 2},
	{"managed-three", &managed, three, 3},
	{"managed-three-one", &managed, three_one, 3},
	{"managed-empty", &managed, nothing_in, 2},
	{"managed-least", &managed_least, blue_in, 2},
	{"managed-api", &managed_api, three, 3},
	{"managed-tls", &managed_tls, three, 3},
	{"managed-http2", &managed_http2, blue_in, 2},
	{"managed-lines", &managed_lines, three, 3},
};

static struct bt_service service_of(const struct bt_nginx *n)
{
	return (struct bt_service){.name = "shop", .nginx = n};
}

static int render(const struct bt_nginx *n, const struct bt_pool_member *m, size_t n_members,
	const char *prefix, struct bt_str *out, struct bt_err *err)
{
	struct bt_service s = service_of(n);
	struct bt_pool pool = {.name = "nginx/shop",
		.service_name = "shop",
		.service = &s,
		.generation = 7,
		.members = m,
		.n_members = n_members};
	struct bt_nginx_layout layout = {.prefix = prefix};
	return bt_nginx_render(&pool, &layout, out, err);
}

static void test_golden(void **state)
{
	(void)state;
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		BT_STR struct bt_str out = {0};
		struct bt_err err = {0};
		int r = render(cases[i].nginx, cases[i].members, cases[i].n,
			"/var/lib/baton/balancers/shop/nginx", &out, &err);
		assert_string_equal(err.text, "");
		assert_int_equal(r, 0);
		is_golden(out.data, "nginx/%s.conf", cases[i].name);
	}
}

/* ---- nginx itself ------------------------------------------------------------------------- */

static void put(const char *dir, const char *name, const char *text)
{
	BT_FREE char *path = bt_asprintf("%s/%s", dir, name);
	assert_int_equal(bt_fs_write_atomic(path, text, strlen(text), 0644, NULL), 0);
}

/* 0 and what it said. */
static int nginx_test(const char *dir, char *said, size_t n)
{
	int out[2];
	assert_int_equal(pipe(out), 0);
	BT_FREE char *conf = bt_asprintf("%s/nginx.conf", dir);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(out[1], 1);
		dup2(out[1], 2);
		execlp("nginx", "nginx", "-t", "-p", dir, "-c", conf, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	size_t used = 0;
	for (ssize_t k; used < n - 1 && (k = read(out[0], said + used, n - 1 - used)) > 0;)
		used += (size_t)k;
	said[used] = 0;
	close(out[0]);
	int status = 0;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* An adopted file inside of a small configuration, such as documents 002 and 003 have. */
static char *around(const struct bt_nginx *n, const char *dir)
{
	bool upstream = n->form == BT_NGINX_UPSTREAM;
	const char *name = upstream ? (n->upstream ? n->upstream : "shop") : NULL;
	BT_FREE char *target = upstream ? bt_asprintf("http://%s", name)
			       : n->form == BT_NGINX_SERVICE_PORT
				       ? bt_strdup("http://127.0.0.1:$service_port")
				       : bt_strdup("$target");
	return bt_asprintf("pid %s/nginx.pid;\nerror_log %s/error.log;\nevents {}\nhttp {\n"
			   "access_log off;\nclient_body_temp_path %s/t1; proxy_temp_path %s/t2;"
			   "fastcgi_temp_path %s/t3; uwsgi_temp_path %s/t4; scgi_temp_path %s/t5;\n"
			   "%s\nserver { listen 127.0.0.1:23000; %s\n"
			   "location / { proxy_pass %s; } } }\n",
		dir, dir, dir, dir, dir, dir, dir, upstream ? "include baton.conf;" : "",
		upstream ? "" : "include baton.conf;", target);
}

static void test_nginx_accepts(void **state)
{
	(void)state;
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		char dir[] = "/tmp/baton-render-XXXXXX", said[8192];
		struct bt_nginx n = *cases[i].nginx;
		struct bt_err err = {0};
		BT_STR struct bt_str out = {0};
		assert_non_null(mkdtemp(dir));
		BT_FREE char *sub = bt_asprintf("%s/logs", dir), *tmp = bt_asprintf("%s/tmp", dir);
		BT_FREE char *pem = bt_asprintf("%s/server.pem", dir);
		BT_FREE char *key = bt_asprintf("%s/server.key", dir);
		assert_int_equal(bt_fs_mkdirs(sub, 0755, &err), 0);
		assert_int_equal(bt_fs_mkdirs(tmp, 0755, &err), 0);
		if (n.certificate) {
			const char *names[] = {"localhost"};
			assert_int_equal(bt_pki_init(dir, names, 1, &err), 0);
			n.certificate = pem;
			n.certificate_key = key;
		}
		assert_int_equal(render(&n, cases[i].members, cases[i].n, dir, &out, &err), 0);
		if (n.mode == BT_NGINX_ADOPT) {
			BT_FREE char *conf = around(&n, dir);
			put(dir, "nginx.conf", conf);
			put(dir, "baton.conf", out.data);
		} else {
			put(dir, "nginx.conf", out.data);
		}
		int status = nginx_test(dir, said, sizeof said);
		if (status != 0)
			fail_msg("%s: %s", cases[i].name, said);
		assert_null(strstr(said, "[warn]"));
		assert_int_equal(bt_fs_remove_tree(dir, &err), 0);
	}
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void refused(const struct bt_nginx *n, const struct bt_pool_member *m, size_t n_members,
	const char *words)
{
	BT_STR struct bt_str out = {0};
	struct bt_err err = {0};
	assert_int_equal(render(n, m, n_members, "/var/x", &out, &err), BT_E_CONFIG);
	if (!strstr(err.text, words))
		fail_msg("'%s' is not in '%s'", words, err.text);
}

static void test_refused(void **state)
{
	(void)state;
	refused(&port_form, three, 3, "one instance only, and 2 shall be in rotation");
	struct bt_nginx n = managed;
	n.server_name = "a; return 200";
	refused(&n, blue_in, 2, "server_name");
	n = managed;
	n.listen = "80 default_server; }";
	refused(&n, blue_in, 2, "listen");
	struct bt_route bad = {.path = "/a { return 200; }", .to = BT_ROUTE_ALL};
	n = managed;
	n.routes = &bad;
	n.n_routes = 1;
	refused(&n, blue_in, 2, "route");
	static const char *const evil[] = {"gzip on; } load_module /tmp/x.so",
		"load_module /tmp/x.so", "include /etc/passwd", "root /", "alias /etc",
		"proxy_pass http://10.0.0.1", "proxy_set_header X 'a", "proxy_set_header X #",
		"add_header X a\nroot /", "auth_basic_user_file /etc/shadow", "proxy_store /etc/x",
		"gzip", "", " gzip on", "add_header X \\", "add_header X ${a}", "gzip on ",
		"access_log /etc/x", "proxy_ssl_certificate_key /etc/x", "gzip \"on\"x"};
	for (size_t i = 0; i < BT_ARRAY_LEN(evil); i++) {
		n = managed;
		n.directives = &evil[i];
		n.n_directives = 1;
		refused(&n, blue_in, 2, "nginx: directive '");
		bad = (struct bt_route){.path = "/", .directives = &evil[i], .n_directives = 1};
		n = managed;
		n.routes = &bad;
		n.n_routes = 1;
		refused(&n, blue_in, 2, "nginx: directive '");
	}
	n = managed;
	n.redirect = "80; }";
	refused(&n, blue_in, 2, "redirect");
	n = managed;
	n.certificate = "/etc/x.pem";
	refused(&n, blue_in, 2, "certificate_key");
	struct bt_pool_member m = {"127.0.0.1;", 1, "a", "b", true, false, false};
	refused(&upstream_form, &m, 1, "address '127.0.0.1;'");
	m = (struct bt_pool_member){.address = "127.0.0.1",
		.port = 1,
		.slot = "a\nb",
		.host = "b",
		.in = true,
		.one = false};
	refused(&upstream_form, &m, 1, "slot");
	n = upstream_form;
	n.upstream = "a b";
	refused(&n, blue_in, 2, "upstream 'a b'");
	refused(&upstream_form, NULL, 0, "no server at all");
}

static void test_site(void **state)
{
	(void)state;
	static const struct bt_kv sites[] = {
		{"blue", "/etc/a-8081.conf"}, {"green", "/etc/a-8082.conf"}};
	struct bt_nginx n = {.mode = BT_NGINX_ADOPT,
		.form = BT_NGINX_SITE,
		.include = "/etc/nginx/sites-enabled/a.conf",
		.sites = sites,
		.n_sites = 2};
	BT_STR struct bt_str out = {0}, none = {0};
	assert_int_equal(render(&n, green_in, 2, "/x", &out, NULL), 0);
	assert_string_equal(out.data, "-> /etc/a-8082.conf");
	assert_int_equal(render(&n, nothing_in, 2, "/x", &none, NULL), 0);
	assert_string_equal(bt_str_get(&none), "");
	static const struct bt_pool_member both[] = {{.address = "127.0.0.1",
							     .port = 8081,
							     .slot = "blue",
							     .host = "was1",
							     .in = true,
							     .one = false},
		{.address = "127.0.0.1",
			.port = 8082,
			.slot = "green",
			.host = "was1",
			.in = true,
			.one = false}};
	refused(&n, both, 2, "a site is one slot, and blue and green shall be in rotation");
	n.n_sites = 1;
	refused(&n, green_in, 2, "slot green has no site");
	/* a whole file of the user: document 004's */
	static const char text[] =
		"upstream springApp { server 10.0.0.1:8081; server 10.0.0.2:8081; server "
		"10.0.0.3:8081 down; }\n"
		"server { listen 443 ssl; location / { proxy_pass http://springApp; } }\n";
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_seen_member *seen = NULL;
	size_t count = 0, in = 0;
	assert_int_equal(
		bt_nginx_conf_members(text, strlen(text), &n, "a", a, &seen, &count, NULL), 0);
	for (size_t i = 0; i < count; i++)
		in += seen[i].in && seen[i].port == 8081;
	assert_int_equal(in, 2);
}

/* ---- read back ---------------------------------------------------------------------------- */

static void test_read_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < BT_ARRAY_LEN(cases); i++) {
		BT_STR struct bt_str out = {0};
		BT_ARENA struct bt_arena *a = bt_arena_new();
		struct bt_seen_member *seen = NULL;
		size_t n = 0, expect_in = 0, in = 0;
		render(cases[i].nginx, cases[i].members, cases[i].n, "/var/x", &out, NULL);
		assert_int_equal(bt_nginx_conf_members(out.data, out.len, cases[i].nginx, "shop", a,
					 &seen, &n, NULL),
			0);
		bool variable = cases[i].nginx->mode == BT_NGINX_ADOPT &&
				cases[i].nginx->form != BT_NGINX_UPSTREAM;
		bool empty_managed = cases[i].nginx->mode == BT_NGINX_MANAGED;
		for (size_t k = 0; k < cases[i].n; k++)
			expect_in += cases[i].members[k].in;
		for (size_t k = 0; k < n; k++)
			in += seen[k].in;
		assert_int_equal(in, expect_in);
		if (!variable && !empty_managed)
			assert_int_equal(n, cases[i].n);
		for (size_t k = 0; !variable && k < n; k++) {
			assert_string_equal(seen[k].address, cases[i].members[k].address);
			assert_int_equal(seen[k].port, cases[i].members[k].port);
			assert_int_equal(seen[k].in, cases[i].members[k].in);
			if (cases[i].members == three_one)
				assert_int_equal(seen[k].one, cases[i].members[k].one);
		}
	}
}

/* Files that people wrote by hand, as they are before baton's first switch. */
static void test_read_people(void **state)
{
	(void)state;
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_seen_member *seen = NULL;
	size_t n = 0;
	static const char port[] = "# blue\nset $service_port 8081;\n";
	assert_int_equal(
		bt_nginx_conf_members(port, strlen(port), &port_form, "shop", a, &seen, &n, NULL),
		0);
	assert_int_equal(n, 1);
	assert_string_equal(seen[0].address, "127.0.0.1");
	assert_int_equal(seen[0].port, 8081);
	static const char url[] = "set $service_url \"http://127.0.0.1:8082/\";";
	struct bt_nginx form = url_form;
	form.variable = NULL;
	assert_int_equal(
		bt_nginx_conf_members(url, strlen(url), &form, "shop", a, &seen, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(seen[0].port, 8082);
	static const char up[] =
		"upstream other { server 1.1.1.1; }\n"
		"upstream shop{least_conn;server 127.0.0.1:8081 weight=2 ;\n"
		"  server [::1]:8082 down; server unix:/run/x.sock; server 'web' backup; }\n";
	assert_int_equal(
		bt_nginx_conf_members(up, strlen(up), &upstream_form, "shop", a, &seen, &n, NULL),
		0);
	assert_int_equal(n, 3);
	assert_true(seen[0].in && seen[0].port == 8081);
	assert_true(!seen[1].in && seen[1].port == 8082);
	assert_string_equal(seen[1].address, "::1");
	assert_true(!seen[2].in && seen[2].port == 80);
	struct bt_err err = {0};
	static const char *const bad[] = {"}", "set $a 'x;", "server a"};
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++)
		assert_int_equal(bt_nginx_conf_members(bad[i], strlen(bad[i]), &upstream_form,
					 "shop", a, &seen, &n, &err),
			BT_E_CONFIG);
}

static bool count_file(void *arg, const char *path)
{
	struct bt_str *out = arg;
	bt_str_addf(out, "%s,", path);
	return true;
}

static void test_facts(void **state)
{
	(void)state;
	static const char version[] =
		"nginx version: nginx/1.22.1\nconfigure arguments: --prefix=/usr/share/nginx "
		"--error-log-path=stderr --pid-path=/run/nginx.pid --http-log-path=/x\n";
	static const char dump[] =
		"nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n"
		"# configuration file /etc/nginx/nginx.conf:\nuser www-data;\npid run/n.pid;\n"
		"error_log logs/e.log warn;\nhttp { error_log /no; include a.conf; }\n\n"
		"# configuration file /etc/nginx/a.conf:\nerror_log /neither;\n";
	struct bt_nginx_facts f = {0};
	bt_nginx_facts_read(version, dump, NULL, &f);
	assert_string_equal(f.pid_file, "/usr/share/nginx/run/n.pid");
	assert_string_equal(f.error_log, "/usr/share/nginx/logs/e.log");
	bt_nginx_facts_done(&f);
	bt_nginx_facts_read(version, dump, "/opt/n/", &f);
	assert_string_equal(f.pid_file, "/opt/n/run/n.pid");
	bt_nginx_facts_done(&f);
	bt_nginx_facts_read(version, "# configuration file /x:\nhttp {}\n", NULL, &f);
	assert_string_equal(f.pid_file, "/run/nginx.pid");
	assert_null(f.error_log);
	bt_nginx_facts_done(&f);
	BT_STR struct bt_str files = {0};
	bt_nginx_dump_files(dump, count_file, &files);
	assert_string_equal(files.data, "/etc/nginx/nginx.conf,/etc/nginx/a.conf,");
	BT_FREE char *reason = bt_nginx_reason("nginx: [warn] x\nnginx: [emerg] unknown directive "
					       "\"foo\" in /a:3\nnginx: failed\n");
	assert_string_equal(reason, "unknown directive \"foo\" in /a:3");
	BT_FREE char *logged =
		bt_nginx_reason("2026/11/21 07:00:00 [emerg] 12#12: bind() failed\n");
	assert_string_equal(logged, "bind() failed");
}

static void test_base_url(void **state)
{
	(void)state;
	static const struct {
		struct bt_nginx n;
		const char *want;
	} t[] = {
		{{.mode = BT_NGINX_MANAGED, .listen = "8080"}, "http://127.0.0.1:8080"},
		{{.mode = BT_NGINX_MANAGED, .listen = "10.0.0.3:80"}, "http://10.0.0.3:80"},
		{{.mode = BT_NGINX_MANAGED, .listen = "*:81"}, "http://127.0.0.1:81"},
		{{.mode = BT_NGINX_MANAGED, .listen = "[::]:82"}, "http://[::1]:82"},
		{{.mode = BT_NGINX_MANAGED, .listen = "443", .certificate = "/x"},
			"https://127.0.0.1:443"},
		{{.mode = BT_NGINX_ADOPT, .url = "http://a:1//"}, "http://a:1"},
		{{.mode = BT_NGINX_ADOPT, .listen = "80"}, ""},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(t); i++) {
		BT_STR struct bt_str out = {0};
		bt_nginx_base_url(&t[i].n, &out);
		assert_string_equal(bt_str_get(&out), t[i].want);
	}
}

/* ---- state and log ------------------------------------------------------------------------ */

static void test_state(void **state)
{
	(void)state;
	const char *expect[] = {"green", "blue"};
	struct bt_nginx_state s = {.service = "shop",
		.balancer = "nginx/shop",
		.binary = "nginx",
		.prefix = "/p",
		.file = "/f",
		.max_old_workers = 3,
		.check = {.url = "http://x/", .expect = expect, .n_expect = 2},
		.has_confirmed = true,
		.has_pending = true,
		.confirmed = {4, blue_in, 2, "old\n"},
		.pending = {5, green_in, 2, "new\n"},
		.prior = "\xc3 not UTF-8 \xff"};
	struct bt_nginx_state *c = bt_nginx_state_copy(&s);
	BT_FREE char *a = bt_nginx_state_dump(&s), *b = bt_nginx_state_dump(c);
	assert_string_equal(a, b);
	assert_string_equal(c->prior, s.prior);
	assert_null(c->config);
	assert_true(bt_members_equal(c->pending.members, 2, green_in, 2));
	assert_false(bt_members_equal(c->pending.members, 2, blue_in, 2));
	assert_false(bt_members_equal(c->pending.members, 2, green_in, 1));
	bt_nginx_state_free(c);
	struct bt_nginx_state *none = NULL;
	struct bt_err err = {0};
	assert_true(bt_nginx_state_parse("{\"version\":2}", 13, &none, &err) < 0);
	assert_true(bt_nginx_state_parse("[]", 2, &none, &err) < 0);
	for (size_t n = strlen(a); n > 0; n -= n > 40 ? 40 : n)
		assert_true(bt_nginx_state_parse(a, n - 1, &none, &err) < 0);
}

static void test_answers(void **state)
{
	(void)state;
	struct bt_nginx_answers a = {0};
	static const char log[] = "1.0 200 0.001 x\n1.1 502 0 y\n2 404 0 z\nrubbish\n3 999 1 1\n"
				  "4 500 0 half";
	size_t used = bt_nginx_answers_add(&a, log, strlen(log));
	assert_int_equal(a.all, 3);
	assert_int_equal(a.failed, 1);
	assert_string_equal(log + used, "4 500 0 half");
	assert_int_equal(bt_nginx_answers_add(&a, log, 0), 0);
}

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*seed >> 33);
}

/* Damaged files of every form: read to an end, whatever they hold (the sanitizers watch). */
static void test_damaged(void **state)
{
	(void)state;
	uint64_t seed = 1;
	static const char spice[] = "{};\"'\\$#\n \0upstream";
	size_t read_well = 0;
	for (size_t round = 0; round < 3000; round++) {
		size_t i = round % BT_ARRAY_LEN(cases), n_seen = 0;
		BT_STR struct bt_str text = {0};
		BT_ARENA struct bt_arena *a = bt_arena_new();
		struct bt_seen_member *seen = NULL;
		struct bt_nginx_facts facts = {0};
		struct bt_nginx_answers counted = {0};
		bt_str_add(&text, "# configuration file /x:\n");
		render(cases[i].nginx, cases[i].members, cases[i].n, "/var/x", &text, NULL);
		for (size_t k = next_random(&seed) % 8; k > 0; k--)
			text.data[next_random(&seed) % text.len] =
				spice[next_random(&seed) % (sizeof spice - 1)];
		size_t n = next_random(&seed) % 4 ? text.len : next_random(&seed) % text.len;
		text.data[n] = 0;
		read_well += bt_nginx_conf_members(text.data, n, cases[i].nginx, "shop", a, &seen,
				     &n_seen, NULL) == 0;
		for (size_t k = 0; k < n_seen; k++)
			assert_true(seen[k].address[0] && seen[k].port);
		bt_nginx_facts_read(text.data, text.data, NULL, &facts);
		assert_non_null(facts.pid_file);
		bt_nginx_facts_done(&facts);
		assert_true(bt_nginx_answers_add(&counted, text.data, n) <= n);
		BT_FREE char *reason = bt_nginx_reason(text.data);
		assert_non_null(reason);
	}
	assert_true(read_well > 100 && read_well < 2999);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden),
		cmocka_unit_test(test_nginx_accepts),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_site),
		cmocka_unit_test(test_read_back),
		cmocka_unit_test(test_read_people),
		cmocka_unit_test(test_facts),
		cmocka_unit_test(test_base_url),
		cmocka_unit_test(test_state),
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
