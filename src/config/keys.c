#include "config/keys.h"

#include "base/str.h"
#include "config/call.h"

#include <assert.h>
#include <string.h>

#define SECOND 1000
#define HOUR (3600 * SECOND)
#define DAY (24 * (int64_t)HOUR)

#define AT(member) .offset = offsetof(struct bt_service, member)
#define WITH(member) .count = offsetof(struct bt_service, member)
#define NGINX_AT(member) .in = BT_IN_NGINX, .offset = offsetof(struct bt_nginx, member)
#define NGINX_WITH(member) .count = offsetof(struct bt_nginx, member)
/* A key of one family of L4 balancers: L4(HAPROXY), L4_AT(haproxy.socket). */
#define L4(family_) .in = BT_IN_L4, .family = BT_BALANCER_##family_
#define L4_AT(member) .offset = offsetof(struct bt_l4, member)
#define L4_WITH(member) .count = offsetof(struct bt_l4, member)
#define METHOD .check = bt_check_method, .expected = "a method such as PUT"
#define CALL_URL                                                                                   \
	.check = bt_check_call_url, .max = 2048,                                                   \
	.expected = "an http or https URL, without user@, and with no placeholders "               \
		    "but " BT_CALL_PLACEHOLDERS
#define CALL_BODY                                                                                  \
	.check = bt_check_call, .max = 16384,                                                      \
	.expected = "no placeholders but " BT_CALL_PLACEHOLDERS " ({{ writes a brace)"
#define JSON_PATH                                                                                  \
	.check = bt_check_json_path, .max = 256,                                                   \
	.expected = "names with dots between, such as data.state"
#define HOOKS(when) AT(deploy.hooks[when].list), WITH(deploy.hooks[when].n)
#define NAME .check = bt_name_valid, .expected = "a name of letters, digits, '.', '_' and '-'"

const struct bt_key bt_keys[] = {
	{"service", &bt_type_text, AT(name), .required = true, .check = bt_service_name_valid,
		.expected = "a name of letters, digits, '.', '_' and '-' (or NAME@ENVIRONMENT)",
		.doc = "Its name. With `environments` beside it, `NAME@ENVIRONMENT` for each: see "
		       "[Environments](#environments).",
		.example = "shop"},
	{"artifact", &bt_type_text, AT(artifact), .max = 4096,
		.doc = "File or archive to deploy, relative to this file; a pattern (`*`, `?`, "
		       "`[…]`) "
		       "must match exactly one. `baton deploy --artifact` overrides it.",
		.example = "build/libs/shop-*.jar"},
	{"unpack", &bt_type_bool, AT(unpack),
		.derived = "true for .tar.gz, .tgz, .tar.zst and .zip",
		.doc = "Whether an archive is unpacked on the host; `{artifact}` is then its "
		       "directory.",
		.example = "false"},
	{"hosts", &bt_type_list, AT(hosts), WITH(n_hosts), .derived = "[local]", NAME,
		.required = true, .doc = "Where it runs. `local` is this machine under `baton up`.",
		.example = "[was1, was2]"},

	{"files", &bt_type_files, AT(files), WITH(n_files),
		.doc = "Further files that are placed with each release, in the release's "
		       "directory "
		       "(beside the artifact, or in what it unpacks to). See [Files](#files).",
		.example = "[config/application-prod.properties, {from: shop.tmpl, to: "
			   "'application-{slot}.properties', template: true}]"},

	{"run", .doc = "How an instance runs."},
	{"run.as", &bt_type_enum, AT(run.as), .names = &bt_enum_runtime, .def = "process",
		.doc = "The runtime: `process`, or `bundle` for a CodeDeploy bundle, whose own "
		       "scripts start and stop it.",
		.example = "process"},
	{"run.appspec", &bt_type_text, AT(run.appspec), .when = BT_KEY_BUNDLE,
		.check = bt_check_place, .expected = "a path in the bundle", .max = 1024,
		.derived = "appspec.yaml, then appspec.yml",
		.doc = "`as: bundle`: name of the appspec that is looked for first; `baton deploy "
		       "--appspec` overrides it.",
		.example = "appspec-prod.yml"},
	{"run.command", &bt_type_argv, AT(run.command), WITH(run.n_command), .required = true,
		.when = BT_KEY_PROCESS, .check = bt_check_command,
		.expected = "only the placeholders " BT_PLACEHOLDERS " ({{ writes a brace)",
		.doc = "Program and arguments, as a list or as one text that is split at blanks "
		       "(quotes group; no shell is involved). Placeholders: `{artifact}` its path, "
		       "`{release}` its version, `{port}`, `{port.NAME}`, `{slot}`, `{host}`; `{{` "
		       "writes a brace. Not with `as: tomcat`.",
		.example = "java -jar {artifact} --server.port={port}"},
	{"run.slots", &bt_type_slots, AT(run.slots), WITH(run.n_slots), .required = true,
		.doc = "Named places on each host and their ports. blue-green takes turns with "
		       "them and needs two; with rolling and recreate each is an instance. A slot "
		       "may "
		       "name several ports: `{port: 8081, management: 9081}`.",
		.example = "{blue: 8081, green: 8082}"},
	{"run.env", &bt_type_map, AT(run.env), WITH(run.n_env), .check = bt_check_env_name,
		.expected = "a name such as JAVA_OPTS", .placeholders = true,
		.doc = "Environment of the instance; values may hold the placeholders. It is part "
		       "of the release.",
		.example = "{JAVA_TOOL_OPTIONS: -Xmx512m}"},
	{"run.secrets", &bt_type_list, AT(run.secrets), WITH(run.n_secrets),
		.check = bt_check_env_name, .expected = "a name such as DB_PASSWORD",
		.doc = "Environment variables whose values are taken from the environment of "
		       "`baton deploy`, kept encrypted and never printed.",
		.example = "[DB_PASSWORD]"},
	{"run.user", &bt_type_text, AT(run.user), .check = bt_check_user, .expected = "a user name",
		.derived = "the agent's own",
		.doc = "User to run as; the host's policy must allow it.", .example = "shop"},
	{"run.dir", &bt_type_text, AT(run.dir), .check = bt_check_command, .max = 4096,
		.expected = "only the placeholders " BT_PLACEHOLDERS,
		.derived = "the release's directory", .doc = "Working directory.",
		.example = "/var/lib/shop"},
	{"run.limits", .doc = "Resource limits; what is not given is left as it is."},
	{"run.limits.nofile", &bt_type_count, AT(run.limits.nofile), .max = 1 << 30,
		.doc = "Open files.", .example = "8192"},
	{"run.limits.nproc", &bt_type_count, AT(run.limits.nproc), .max = 1 << 30,
		.doc = "Processes and threads of the user.", .example = "4096"},
	{"run.limits.core", &bt_type_size, AT(run.limits.core_bytes), .max = (int64_t)1 << 50,
		.doc = "Size of a core dump.", .example = "0"},
	{"run.limits.memory", &bt_type_size, AT(run.limits.memory_bytes), .min = 1 << 20,
		.max = (int64_t)1 << 50, .doc = "Address space.", .example = "2g"},
	{"run.stop", &bt_type_stop, AT(run.stop), WITH(run.n_stop),
		.derived = "{signal: TERM, grace: 30s}",
		.doc = "How an instance is stopped. `{signal, grace}`: the signal, up to grace, "
		       "then KILL. A list of `{signal, wait}` says each step itself, for what "
		       "wants "
		       "a quiet signal early.",
		.example = "[{signal: USR1, wait: 10s}, {signal: TERM, wait: 30s}, {signal: KILL, "
			   "wait: 5s}]"},
	{"run.tomcat", .when = BT_KEY_TOMCAT,
		.doc = "With `as: tomcat`: where Tomcat is and what it is given. See "
		       "[tomcat.md](tomcat.md)."},
	{"run.tomcat.home", &bt_type_text, AT(tomcat.home), .when = BT_KEY_TOMCAT,
		.check = bt_check_abs_path, .expected = "an absolute path", .max = 1024,
		.def = "/usr/share/tomcat10",
		.doc = "CATALINA_HOME: a distribution's package, or where one was unpacked.",
		.example = "/opt/apache-tomcat-10.1.30"},
	{"run.tomcat.base", &bt_type_text, AT(tomcat.base), .when = BT_KEY_TOMCAT,
		.check = bt_check_tomcat_base, .max = 1024,
		.expected = "an absolute path, with no placeholders "
			    "but " BT_TOMCAT_BASE_PLACEHOLDERS,
		.derived = "one for each slot in the agent's directory",
		.doc = "CATALINA_BASE. One that has `conf/server.xml` is used as it is; otherwise "
		       "baton makes it. Placeholders: `{service}`, `{slot}`, `{port}`.",
		.example = "'/srv/tomcat/{service}-{slot}'"},
	{"run.tomcat.context", &bt_type_text, AT(tomcat.context), .when = BT_KEY_TOMCAT,
		.check = bt_check_tomcat_context, .max = 200, .def = "/",
		.expected = "a context path such as /, /shop, /api/v1 or, with a version, /shop##2",
		.doc = "Path of the application: `/api/v1` is placed as `api#v1.war`, `/` as "
		       "`ROOT.war`.",
		.example = "/shop"},
	{"run.tomcat.exploded", &bt_type_bool, AT(tomcat.exploded), .when = BT_KEY_TOMCAT,
		.def = "false",
		.doc = "Unpack the WAR in the agent's sandbox, and place the directory.",
		.example = "true"},
	{"run.tomcat.take_over", &bt_type_bool, AT(tomcat.take_over), .when = BT_KEY_TOMCAT,
		.def = "false",
		.doc = "What others placed at this context is moved to `.before-baton` in the "
		       "base; without it such a start is refused.",
		.example = "true"},
	{"run.tomcat.xmx", &bt_type_text, AT(tomcat.xmx), .when = BT_KEY_TOMCAT, .max = 20,
		.check = bt_check_heap, .expected = "a size as java has it, such as 512m or 2g",
		.derived = "java's own", .doc = "Largest heap (`-Xmx`).", .example = "512m"},
	{"run.tomcat.java_opts", &bt_type_text, AT(tomcat.java_opts), .when = BT_KEY_TOMCAT,
		.check = bt_check_tomcat_options, .max = 8192,
		.expected = "options of java with no placeholders but " BT_PLACEHOLDERS
			    ", without ` $ ; & | < > ( ) or a backslash",
		.doc = "Further options of java (in CATALINA_OPTS); `baton.port`, `baton.slot` and "
		       "`baton.port.NAME` are system properties anyway.",
		.example = "'-XX:+UseG1GC -Dspring.profiles.active={slot}'"},
	{"run.tomcat.shutdown_port", &bt_type_number, AT(tomcat.shutdown_port),
		.when = BT_KEY_TOMCAT, .max = 65535,
		.derived = "the slot's port of the name `shutdown`, or none",
		.doc = "Tomcat's shutdown port, of a service with one slot.", .example = "8005"},
	{"run.tomcat.shutdown_wait", &bt_type_duration, AT(tomcat.shutdown_wait_ms),
		.when = BT_KEY_TOMCAT, .def = "10s", .max = HOUR,
		.doc = "A stop begins at the shutdown port, where there is one, and waits so long.",
		.example = "30s"},
	{"run.tomcat.stop_wait", &bt_type_duration, AT(tomcat.stop_wait_ms), .when = BT_KEY_TOMCAT,
		.def = "10s", .max = HOUR,
		.doc = "Then `catalina.sh stop`, so long; then `run.stop`.", .example = "5s"},
	{"run.tomcat.access_log", &bt_type_bool, AT(tomcat.access_log), .when = BT_KEY_TOMCAT,
		.def = "false",
		.doc = "Of a base that baton makes: requests are logged in `logs/access.log`.",
		.example = "true"},
	{"run.tomcat.connector", &bt_type_map, AT(tomcat.connector), WITH(tomcat.n_connector),
		.when = BT_KEY_TOMCAT, .check = bt_check_attribute,
		.expected = "an attribute of Tomcat's Connector other than port and protocol",
		.doc = "Of a base that baton makes: further attributes of its Connector.",
		.example = "{maxThreads: 400, connectionTimeout: 20000}"},
	{"run.tomcat.jars_to_skip", &bt_type_text, AT(tomcat.jars_to_skip), .when = BT_KEY_TOMCAT,
		.max = 4096, .derived = "what the distribution skips",
		.doc = "Of a base that baton makes: JARs that are not scanned for tag libraries "
		       "and fragments at the start, which is most of its time.",
		.example = "'*.jar'"},
	{"run.logs", .doc = "Files that hold stdout and stderr."},
	{"run.logs.max", &bt_type_size, AT(run.log_max_bytes), .def = "16m", .min = 4096,
		.max = (int64_t)1 << 40, .doc = "Size at which a file is rotated.",
		.example = "64m"},
	{"run.logs.keep", &bt_type_count, AT(run.log_keep), .def = "4", .max = 1000,
		.doc = "Rotated files kept.", .example = "10"},
	{"run.restart", .doc = "After a crash."},
	{"run.restart.backoff", &bt_type_duration, AT(run.restart_backoff_ms), .def = "1s",
		.min = 10, .max = HOUR, .doc = "Wait before the first restart; doubled each time.",
		.example = "500ms"},
	{"run.restart.backoff_max", &bt_type_duration, AT(run.restart_backoff_max_ms), .def = "1m",
		.min = 10, .max = DAY, .doc = "Longest wait between restarts.", .example = "5m"},

	{"health", .doc = "When an instance is healthy. One of http, https, tcp, exec; tcp when "
			  "nothing is given."},
	{"health.http", &bt_type_health_path, AT(health), .check = bt_check_url_path,
		.expected = "a path such as /health", .max = 2048,
		.doc = "GET this path at the instance's port.", .example = "/actuator/health"},
	{"health.https", &bt_type_health_tls_path, AT(health), .check = bt_check_url_path,
		.expected = "a path such as /health", .max = 2048, .doc = "The same over TLS.",
		.example = "/health"},
	{"health.tcp", &bt_type_health_tcp, AT(health), .derived = "true when no other is given",
		.doc = "A connection is enough.", .example = "true"},
	{"health.exec", &bt_type_health_exec, AT(health), .check = bt_check_command,
		.expected = "only the placeholders " BT_PLACEHOLDERS,
		.doc = "A program on the host; exit code 0 is healthy. Placeholders as in "
		       "run.command.",
		.example = "[./check.sh, '{port}']"},
	{"health.expect", .doc = "What an http answer must be."},
	{"health.expect.status", &bt_type_number, .when = BT_KEY_HTTP, AT(health.status),
		.def = "200", .min = 100, .max = 599, .doc = "Status code.", .example = "204"},
	{"health.expect.contains", &bt_type_text, .when = BT_KEY_HTTP, AT(health.contains),
		.max = 4096, .doc = "A text the body must hold.", .example = "ready"},
	{"health.expect.json", &bt_type_map, .when = BT_KEY_HTTP, AT(health.json),
		WITH(health.n_json),
		.doc = "Fields of a JSON body by dotted path, and their values.",
		.example = "{status: UP, components.db.status: UP}"},
	{"health.every", &bt_type_duration, AT(health.every_ms), .def = "500ms", .min = 10,
		.max = HOUR, .doc = "Between two checks; the first comes at once.",
		.example = "100ms"},
	{"health.timeout", &bt_type_duration, AT(health.timeout_ms), .def = "2s", .min = 10,
		.max = HOUR, .doc = "Limit of one check.", .example = "5s"},
	{"health.within", &bt_type_duration, AT(health.within_ms), .def = "60s", .min = 100,
		.max = DAY, .doc = "Time an instance has to become healthy.", .example = "3m"},
	{"health.passes", &bt_type_number, AT(health.passes), .def = "1", .min = 1, .max = 1000,
		.doc = "Good checks in a row that make it healthy.", .example = "2"},
	{"health.fails", &bt_type_number, AT(health.fails), .def = "3", .min = 1, .max = 1000,
		.doc = "Bad checks in a row that make it unhealthy during a bake.", .example = "5"},
	{"health.watch", &bt_type_duration, AT(health.watch_ms), .def = "10s", .max = DAY,
		.doc = "Between two checks while no deployment looks: what `baton status` and the "
		       "page "
		       "show; not for `exec`. 0s: none.",
		.example = "1m"},
	{"health.headers", &bt_type_map, .when = BT_KEY_HTTP, AT(health.headers),
		WITH(health.n_headers), .doc = "Request headers.",
		.example = "{Host: shop.example.com}"},
	{"health.port", &bt_type_health_port, AT(health), .derived = "the slot's first",
		.doc = "Another port to ask: the name of one in `run.slots`, or a number.",
		.example = "management"},
	{"health.verify", &bt_type_bool, .when = BT_KEY_HTTPS, AT(health.verify), .def = "false",
		.doc = "https: check the certificate.", .example = "true"},

	{"identity", .shorthand = "path",
		.doc = "A path that tells who answers; as one text, its path. Where it is given, a "
		       "deployment stops when it contradicts what nginx or the processes say."},
	{"identity.path", &bt_type_text, AT(identity.path), .check = bt_check_url_path,
		.expected = "a path such as /profile", .max = 2048,
		.doc = "Asked at each instance and through nginx.", .example = "/profile"},
	{"identity.through", &bt_type_text, AT(identity.through), .check = bt_check_url,
		.expected = "a URL such as http://127.0.0.1:8080/profile", .max = 2048,
		.derived = "nginx's listen address and the path",
		.doc = "URL that asks through nginx.", .example = "http://127.0.0.1/profile"},
	{"identity.expect", &bt_type_text, AT(identity.expect), .check = bt_check_identity,
		.expected = "a text with no placeholders but {slot} {port} {host}", .max = 1024,
		.derived = "{slot}", .doc = "The body that the instance answers.",
		.example = "'{slot}'"},

	{"traffic", .doc = "What brings requests to the instances; nothing without it."},
	{"traffic.nginx", .in = BT_IN_NGINX,
		.doc = "nginx: `adopt` for the one that is there, else baton runs its own."},
	{"traffic.nginx.on", &bt_type_names, NGINX_AT(on), NGINX_WITH(n_on), NAME, .max = 63,
		.derived = "the first host",
		.doc = "The host it runs on. Several, as a list, each have an nginx of the same "
		       "configuration: they are switched in this order, and if one fails all "
		       "return.",
		.example = "[web1, web2]"},
	{"traffic.nginx.adopt", .in = BT_IN_NGINX, .when = BT_KEY_ADOPT,
		.doc = "Your nginx, whose configuration includes one file that baton owns."},
	{"traffic.nginx.adopt.include", &bt_type_text, NGINX_AT(include), .when = BT_KEY_ADOPT,
		.check = bt_check_abs_path, .expected = "an absolute path", .max = 1024,
		.doc = "That file. Required.", .example = "/etc/nginx/conf.d/service-url.inc"},
	{"traffic.nginx.adopt.form", &bt_type_enum, NGINX_AT(form), .when = BT_KEY_ADOPT,
		.names = &bt_enum_nginx_form, .def = "upstream",
		.doc = "What it holds: an `upstream` block, `set $service_port 8081;` or `set "
		       "$service_url http://127.0.0.1:8081;`. With `site` it is a link to one of "
		       "your own files, which `sites` names.",
		.example = "service_port"},
	{"traffic.nginx.adopt.sites", &bt_type_map, NGINX_AT(sites), NGINX_WITH(n_sites),
		.when = BT_KEY_ADOPT, .check = bt_name_valid, .expected = "a slot's name",
		.doc = "With form `site`: for each slot, a whole file that sends to it.",
		.example = "{blue: /home/ubuntu/momo-conf/momo-8080.conf, green: "
			   "/home/ubuntu/momo-conf/momo-8081.conf}"},
	{"traffic.nginx.adopt.config", &bt_type_text, NGINX_AT(config), .when = BT_KEY_ADOPT,
		.check = bt_check_abs_path, .expected = "an absolute path", .max = 1024,
		.derived = "nginx's own", .doc = "Its main configuration file (`-c`).",
		.example = "/etc/nginx/nginx.conf"},
	{"traffic.nginx.adopt.prefix", &bt_type_text, NGINX_AT(prefix), .when = BT_KEY_ADOPT,
		.check = bt_check_abs_path, .expected = "an absolute path", .max = 1024,
		.derived = "nginx's own", .doc = "Its prefix (`-p`).", .example = "/opt/nginx"},
	{"traffic.nginx.adopt.upstream", &bt_type_text, NGINX_AT(upstream), .when = BT_KEY_ADOPT,
		NAME, .derived = "the service's name, with - for @",
		.doc = "Name of the upstream block.", .example = "shop"},
	{"traffic.nginx.adopt.one", &bt_type_text, NGINX_AT(one), .when = BT_KEY_ADOPT, NAME,
		.doc = "`form: upstream` with several instances: name of a second block in the "
		       "same file, which sends to one of them, for paths that only one may serve.",
		.example = "shop_one"},
	{"traffic.nginx.adopt.variable", &bt_type_text, NGINX_AT(variable), .when = BT_KEY_ADOPT,
		.check = bt_check_variable, .expected = "a variable name without $", .max = 64,
		.derived = "service_port or service_url, by the form",
		.doc = "Name of the variable that is set.", .example = "service_port"},
	{"traffic.nginx.listen", &bt_type_text, NGINX_AT(listen), .when = BT_KEY_MANAGED,
		.check = bt_check_listen, .expected = "PORT or ADDRESS:PORT", .max = 128,
		.derived = "8080, with tls 8443",
		.doc = "Where it listens. Below 1024 the agent needs the capability.",
		.example = "127.0.0.1:8080"},
	{"traffic.nginx.server_name", &bt_type_text, NGINX_AT(server_name), .when = BT_KEY_MANAGED,
		.check = bt_check_server_name, .def = "_", .max = 1024,
		.expected = "host names, with blanks between", .doc = "Host names it answers to.",
		.example = "shop.example.com"},
	{"traffic.nginx.tls", .in = BT_IN_NGINX, .when = BT_KEY_MANAGED, .doc = "Serve https."},
	{"traffic.nginx.tls.certificate", &bt_type_text, NGINX_AT(certificate),
		.when = BT_KEY_MANAGED, .check = bt_check_abs_path, .expected = "an absolute path",
		.max = 1024, .doc = "Path of the certificate chain on that host.",
		.example = "/etc/ssl/shop.pem"},
	{"traffic.nginx.tls.key", &bt_type_text, NGINX_AT(certificate_key), .when = BT_KEY_MANAGED,
		.check = bt_check_abs_path, .expected = "an absolute path", .max = 1024,
		.doc = "Path of its key.", .example = "/etc/ssl/shop.key"},
	{"traffic.nginx.tls.http2", &bt_type_bool, NGINX_AT(http2), .when = BT_KEY_MANAGED,
		.def = "false", .doc = "Speak HTTP/2 with clients that can.", .example = "true"},
	{"traffic.nginx.tls.redirect", &bt_type_text, NGINX_AT(redirect), .when = BT_KEY_MANAGED,
		.check = bt_check_listen, .expected = "PORT or ADDRESS:PORT", .max = 128,
		.doc = "Where plain http listens besides, to send everybody to https (308).",
		.example = "80"},
	{"traffic.nginx.client_max_body_size", &bt_type_size, NGINX_AT(max_body_bytes),
		.when = BT_KEY_MANAGED, .def = "100m", .max = (int64_t)1 << 50,
		.doc = "Largest request body; 0: any.", .example = "20m"},
	{"traffic.nginx.directives", &bt_type_list, NGINX_AT(directives), NGINX_WITH(n_directives),
		.when = BT_KEY_MANAGED, .check = bt_check_directive, .max = 4096,
		.expected = BT_DIRECTIVE_EXPECTED,
		.doc = "Raw directives for the server, one a text, of those that "
		       "[nginx.md](nginx.md) lists.",
		.example = "[proxy_buffer_size 128k, proxy_buffers 4 256k]"},
	{"traffic.nginx.routes", &bt_type_routes, NGINX_AT(routes), NGINX_WITH(n_routes),
		.when = BT_KEY_MANAGED, .derived = "[{path: /, to: all}]",
		.doc = "Paths that are passed on: to `all` instances in rotation, or to `one`. A "
		       "route "
		       "may have `directives` of its own.",
		.example = "[{path: /, to: one}, {path: /api, to: all}]"},
	{"traffic.nginx.keepalive", &bt_type_number, NGINX_AT(keepalive), .when = BT_KEY_MANAGED,
		.def = "32", .max = 10000,
		.doc = "Idle connections kept to the instances, a worker.", .example = "64"},
	{"traffic.nginx.worker_shutdown_timeout", &bt_type_duration,
		NGINX_AT(worker_shutdown_timeout_ms), .when = BT_KEY_MANAGED, .def = "0s",
		.max = DAY,
		.doc = "Longest life of old workers after a reload, which then cut websockets; 0: "
		       "no limit.",
		.example = "5m"},
	{"traffic.nginx.url", &bt_type_text, NGINX_AT(url), .check = bt_check_url,
		.expected = "a URL such as http://127.0.0.1:8080", .max = 2048,
		.derived = "nginx's listen address",
		.doc = "Where nginx is asked, without a path: requests there confirm a change, and "
		       "ask for the identity.",
		.example = "http://127.0.0.1"},
	{"traffic.nginx.binary", &bt_type_text, NGINX_AT(binary), .def = "nginx", .max = 1024,
		.check = bt_check_command, .expected = "a program", .doc = "The program.",
		.example = "/usr/sbin/nginx"},
	{"traffic.nginx.max_old_workers", &bt_type_number, NGINX_AT(max_old_workers), .def = "16",
		.min = 1, .max = 10000,
		.doc = "A reload is refused while more old workers than this still shut down.",
		.example = "8"},
	{"traffic.nftables", L4(NFTABLES),
		.doc = "The kernel's packet filter as the balancer: a table of baton's own. See "
		       "[balancers.md](balancers.md#nftables)."},
	{"traffic.nftables.on", &bt_type_names, L4(NFTABLES), L4_AT(on), L4_WITH(n_on), NAME,
		.max = 63, .derived = "the first host",
		.doc = "The host that balances; a list: each has the same, such as one that "
		       "serves and one that stands by.",
		.example = "l4"},
	{"traffic.nftables.vip", &bt_type_text, L4(NFTABLES), L4_AT(vip), .max = 45,
		.check = bt_check_vip, .expected = "an IPv4 or IPv6 address such as 192.0.2.10",
		.doc = "The address that clients ask, which that host holds. Required.",
		.example = "192.0.2.10"},
	{"traffic.nftables.port", &bt_type_port, L4(NFTABLES), L4_AT(port),
		.derived = "the slot's, where there is one slot",
		.doc = "The port that clients ask.", .example = "80"},
	{"traffic.nftables.mode", &bt_type_enum, L4(NFTABLES), L4_AT(mode),
		.names = &bt_enum_l4_mode, .def = "nat",
		.doc = "How packets reach the hosts: `nat` translates addresses both ways, `dsr` "
		       "(or `dr`) sends them on as they are, and replies go past the balancer.",
		.example = "dsr"},
	{"traffic.nftables.interface", &bt_type_text, L4(NFTABLES), L4_AT(nftables.interface),
		.max = 15, .check = bt_check_interface, .expected = "an interface's name",
		.doc = "dsr: where clients' packets come in and the hosts are. Required there.",
		.example = "eth0"},
	{"traffic.nftables.masquerade", &bt_type_bool, L4(NFTABLES), L4_AT(nftables.masquerade),
		.def = "true",
		.doc = "nat: the hosts see the balancer's address in place of the client's, so "
		       "that their replies come back to it. `false` where it is their way out "
		       "anyhow.",
		.example = "false"},
	{"traffic.ipvs", L4(IPVS),
		.doc = "The kernel's own balancer (LVS): a virtual service, made where there is "
		       "none, or one that keepalived or ipvsadm made. See "
		       "[balancers.md](balancers.md#ipvs)."},
	{"traffic.ipvs.on", &bt_type_names, L4(IPVS), L4_AT(on), L4_WITH(n_on), NAME, .max = 63,
		.derived = "the first host",
		.doc = "The host that balances; a list: each has the same, such as one that "
		       "serves and one that stands by.",
		.example = "l4"},
	{"traffic.ipvs.vip", &bt_type_text, L4(IPVS), L4_AT(vip), .max = 45, .check = bt_check_vip,
		.expected = "an IPv4 or IPv6 address such as 192.0.2.10",
		.doc = "The address that clients ask. Required.", .example = "192.0.2.10"},
	{"traffic.ipvs.port", &bt_type_port, L4(IPVS), L4_AT(port),
		.derived = "the slot's, where there is one slot",
		.doc = "The port that clients ask.", .example = "80"},
	{"traffic.ipvs.mode", &bt_type_enum, L4(IPVS), L4_AT(mode), .names = &bt_enum_l4_mode,
		.def = "nat",
		.doc = "How packets reach the hosts: `nat` translates addresses both ways, `dsr` "
		       "(or `dr`) sends them on as they are, and replies go past the balancer.",
		.example = "dsr"},
	{"traffic.ipvs.scheduler", &bt_type_text, L4(IPVS), L4_AT(ipvs.scheduler), .def = "wrr",
		.check = bt_check_scheduler, .max = 15,
		.expected = "the name of a scheduler such as wrr, wlc or mh",
		.doc = "Of a virtual service that is made; one that is there keeps its own.",
		.example = "wlc"},
	{"traffic.ipvs.weight", &bt_type_count, L4(IPVS), L4_AT(ipvs.weight), .def = "0",
		.max = 65535,
		.doc = "Of a real server in rotation. 0: what it has, or had before it was taken "
		       "out; a new one gets as much as the others, or 100.",
		.example = "100"},
	{"traffic.loopback",
		.doc = "Direct server return: replies go past the balancer, so each host of the "
		       "service holds the address that clients ask. See "
		       "[loopback.md](loopback.md)."},
	{"traffic.loopback.vips", &bt_type_names, AT(loopback.vips), WITH(loopback.n_vips),
		.check = bt_check_vip, .expected = "an IPv4 or IPv6 address such as 192.0.2.10",
		.derived = "the balancer's `vip` where its mode is dsr",
		.doc = "The addresses, as /32 or /128: LoopbackStart puts them on the host, and "
		       "LoopbackStop takes them off.",
		.example = "[192.0.2.10, '2001:db8::10']"},
	{"traffic.loopback.interface", &bt_type_text, AT(loopback.interface), .def = "lo",
		.max = 15, .check = bt_check_interface, .expected = "an interface's name",
		.when = BT_KEY_LOOPBACK,
		.doc = "Where they go: one that answers no ARP, `lo` or a dummy.",
		.example = "dummy0"},

	{"notify", &bt_type_notify, AT(notify), WITH(n_notify),
		.doc = "Whom a Notify task tells, by name: `{url: …, format: json|slack}`. The url "
		       "may hold secrets of `run.secrets` as `${NAME}`. See "
		       "[Notify](#notify).",
		.example = "{ops: {url: 'https://hooks.example.com/${HOOK}', format: slack}}"},

	{"traffic.haproxy", L4(HAPROXY),
		.doc = "A haproxy that is there, told by its runtime API. See "
		       "[balancers.md](balancers.md)."},
	{"traffic.haproxy.on", &bt_type_names, L4(HAPROXY), L4_AT(on), L4_WITH(n_on), NAME,
		.max = 63, .derived = "the first host",
		.doc = "The host whose agent controls it; a list: each has one of the same "
		       "configuration.",
		.example = "l4"},
	{"traffic.haproxy.socket", &bt_type_text, L4(HAPROXY), L4_AT(haproxy.socket),
		.check = bt_check_abs_path, .expected = "an absolute path", .max = 107,
		.def = "/run/haproxy/admin.sock", .doc = "Its stats socket, of level admin.",
		.example = "/run/haproxy/shop.sock"},
	{"traffic.haproxy.backend", &bt_type_text, L4(HAPROXY), L4_AT(haproxy.backend),
		.check = bt_check_haproxy_name, .max = 127,
		.expected = "a name of letters, digits, '.', ':', '_' and '-'",
		.derived = "the service's name, with - for @",
		.doc = "The `backend` (or `listen`) section that has the instances as servers.",
		.example = "bk_shop"},
	{"traffic.haproxy.server", &bt_type_text, L4(HAPROXY), L4_AT(haproxy.server),
		.check = bt_check_haproxy_server, .max = 127,
		.expected = "a name with the placeholders {host}, {slot}, {port}",
		.derived = "servers are known by address and port",
		.doc = "Names of the servers there, one for each instance.",
		.example = "'{host}-{slot}'"},
	{"traffic.haproxy.state_file", &bt_type_text, L4(HAPROXY), L4_AT(haproxy.state_file),
		.check = bt_check_abs_path, .expected = "an absolute path", .max = 1024,
		.doc = "Its `server-state-file`: baton writes there what is in force after each "
		       "change, so that a reload forgets nothing.",
		.example = "/var/lib/haproxy/server-state"},
	{"traffic.http", L4(HTTP),
		.doc = "An L4 appliance or cloud balancer with a REST API: see "
		       "[balancers.md](balancers.md#http)."},
	{"traffic.http.on", &bt_type_names, L4(HTTP), L4_AT(on), L4_WITH(n_on), NAME, .max = 63,
		.derived = "the first host", .doc = "The host whose agent calls the API.",
		.example = "lb1"},
	{"traffic.http.headers", &bt_type_map, L4(HTTP), L4_AT(http.headers),
		L4_WITH(http.n_headers), .check = bt_check_header_name,
		.expected = "a header's name",
		.doc = "Headers of every call; `${NAME}` is the value of one of `run.secrets`.",
		.example = "{Authorization: 'Bearer ${LB_TOKEN}'}"},
	{"traffic.http.status", L4(HTTP),
		.doc = "The call that tells whether a member is in rotation."},
	{"traffic.http.status.method", &bt_type_text, L4(HTTP), L4_AT(http.status.method), METHOD,
		.def = "GET", .doc = "Its method.", .example = "POST"},
	{"traffic.http.status.url", &bt_type_text, L4(HTTP), L4_AT(http.status.url), CALL_URL,
		.doc = "Its URL. Required.",
		.example = "https://lb.example.com/api/members/{host}-{slot}"},
	{"traffic.http.status.body", &bt_type_text, L4(HTTP), L4_AT(http.status.body), CALL_BODY,
		.doc = "Its body.", .example = "'{\"member\": \"{host}\"}'"},
	{"traffic.http.turn_on", L4(HTTP), .doc = "The call that puts a member in rotation."},
	{"traffic.http.turn_on.method", &bt_type_text, L4(HTTP), L4_AT(http.on.method), METHOD,
		.def = "PUT", .doc = "Its method.", .example = "POST"},
	{"traffic.http.turn_on.url", &bt_type_text, L4(HTTP), L4_AT(http.on.url), CALL_URL,
		.doc = "Its URL. Required.",
		.example = "https://lb.example.com/api/members/{host}-{slot}"},
	{"traffic.http.turn_on.body", &bt_type_text, L4(HTTP), L4_AT(http.on.body), CALL_BODY,
		.doc = "Its body; values are escaped as in JSON strings.",
		.example = "'{\"state\": \"enabled\"}'"},
	{"traffic.http.turn_off", L4(HTTP),
		.doc = "The call after which a member gets no new connection."},
	{"traffic.http.turn_off.method", &bt_type_text, L4(HTTP), L4_AT(http.off.method), METHOD,
		.def = "PUT", .doc = "Its method.", .example = "POST"},
	{"traffic.http.turn_off.url", &bt_type_text, L4(HTTP), L4_AT(http.off.url), CALL_URL,
		.doc = "Its URL. Required.",
		.example = "https://lb.example.com/api/members/{host}-{slot}"},
	{"traffic.http.turn_off.body", &bt_type_text, L4(HTTP), L4_AT(http.off.body), CALL_BODY,
		.doc = "Its body.", .example = "'{\"state\": \"disabled\"}'"},
	{"traffic.http.in_rotation", L4(HTTP),
		.doc = "What in the JSON answer of `status` means: in rotation."},
	{"traffic.http.in_rotation.path", &bt_type_text, L4(HTTP), L4_AT(http.in_rotation),
		JSON_PATH, .doc = "Dotted path of a scalar. Required.", .example = "data.state"},
	{"traffic.http.in_rotation.is", &bt_type_text, L4(HTTP), L4_AT(http.in_rotation_is),
		.def = "true", .max = 256, .doc = "Its value for in; every other means out.",
		.example = "enabled"},
	{"traffic.http.connections", &bt_type_text, L4(HTTP), L4_AT(http.connections), JSON_PATH,
		.derived = "none: each host counts its own",
		.doc = "Dotted path of the member's open connections.",
		.example = "data.connections"},
	{"traffic.http.timeout", &bt_type_duration, L4(HTTP), L4_AT(http.timeout_ms), .def = "5s",
		.min = 10, .max = HOUR, .doc = "Limit of one call.", .example = "10s"},
	{"traffic.http.retries", &bt_type_count, L4(HTTP), L4_AT(http.retries), .def = "4",
		.max = 100,
		.doc = "How often a call is repeated that had no answer, a 5xx or a 429.",
		.example = "2"},
	{"traffic.http.verify", &bt_type_bool, L4(HTTP), L4_AT(http.verify), .def = "true",
		.doc = "https: check the certificate.", .example = "false"},
	{"traffic.http.ca", &bt_type_text, L4(HTTP), L4_AT(http.ca), .check = bt_check_abs_path,
		.expected = "an absolute path", .max = 1024,
		.derived = "those that the host trusts",
		.doc = "https: the CA that signed it, on the host of `on`.",
		.example = "/etc/ssl/lb-ca.pem"},
	{"traffic.rotation", L4(ROTATION),
		.doc = "A balancer that nobody tells anything: it asks the agent of each host "
		       "whether "
		       "to send there. See [balancers.md](balancers.md#rotation)."},
	{"traffic.rotation.listen", &bt_type_text, L4(ROTATION), L4_AT(rotation.listen),
		.check = bt_check_listen, .expected = "PORT or ADDRESS:PORT", .max = 128,
		.doc = "Where each host's agent answers; a port alone: at every address. Several "
		       "services may share it. Required, where `hosts` does not name every host.",
		.example = "9100"},
	{"traffic.rotation.hosts", &bt_type_map, L4(ROTATION), L4_AT(rotation.on_host),
		L4_WITH(rotation.n_on_host), .check = bt_name_valid, .expected = "a host's name",
		.doc = "Hosts that answer elsewhere, and where.",
		.example = "{was2: 10.0.0.2:9200}"},
	{"traffic.rotation.path", &bt_type_text, L4(ROTATION), L4_AT(rotation.path),
		.check = bt_check_rotation_path, .max = 256, .def = "/rotation/{service}",
		.expected = "a path such as /rotation/{service}, with {service} and {host} only",
		.doc = "Path of the service; below it, the name of a slot is that slot's.",
		.example = "/alive"},
	{"traffic.rotation.in", &bt_type_text, L4(ROTATION), L4_AT(rotation.body_in), .max = 4096,
		.derived = "the slots' names", .doc = "Body of the answer 200.", .example = "OK"},
	{"traffic.rotation.out", &bt_type_text, L4(ROTATION), L4_AT(rotation.body_out), .max = 4096,
		.derived = "the slots' names, or why", .doc = "Body of the answer 503.",
		.example = "MAINTENANCE"},
	{"traffic.rotation.tcp", &bt_type_bool, L4(ROTATION), L4_AT(rotation.tcp), .def = "false",
		.doc = "For checkers that only connect: the port is open while in, and closed "
		       "while "
		       "out.",
		.example = "true"},
	{"traffic.rotation.interval", &bt_type_duration, L4(ROTATION), L4_AT(rotation.interval_ms),
		.def = "2s", .min = 10, .max = HOUR, .doc = "How often the balancer asks.",
		.example = "1s"},
	{"traffic.rotation.fall", &bt_type_count, L4(ROTATION), L4_AT(rotation.fall), .def = "3",
		.min = 1, .max = 1000,
		.doc = "Bad answers in a row after which it sends nothing there.", .example = "2"},
	{"traffic.rotation.rise", &bt_type_count, L4(ROTATION), L4_AT(rotation.rise), .def = "2",
		.min = 1, .max = 1000,
		.doc = "Good answers in a row after which it sends there again.", .example = "3"},

	{"deploy", .doc = "How a release takes over."},
	{"deploy.strategy", &bt_type_enum, AT(deploy.strategy), .names = &bt_enum_strategy,
		.def = "blue-green",
		.doc = "`blue-green`: in the idle slot, then one switch. `rolling`: instance by "
		       "instance. `canary`: a few instances first, watched for the bake's time, "
		       "then the others as in rolling. `recreate`: all down, then all up; "
		       "requests "
		       "fail meanwhile.",
		.example = "rolling"},
	{"deploy.drain", &bt_type_duration, AT(deploy.drain_ms), .def = "30s", .max = DAY,
		.doc = "Longest wait for requests that an old instance still serves.",
		.example = "60s"},
	{"deploy.on_drain_timeout", &bt_type_enum, AT(deploy.on_drain_timeout),
		.names = &bt_enum_drain_policy, .def = "continue",
		.doc = "When drain has passed: `continue` stops the old instance, `fail` fails the "
		       "deployment; a way back goes on either way.",
		.example = "fail"},
	{"deploy.bake", &bt_type_duration, AT(deploy.bake_ms), .def = "10s", .max = DAY,
		.doc = "Watch after a cutover, before the old release is stopped; 0s: none.",
		.example = "60s"},
	{"deploy.bake_max_5xx", &bt_type_share, AT(deploy.bake_max_5xx), .def = "0.05",
		.doc = "Share of 5xx answers that fails the bake.", .example = "1%"},
	{"deploy.keep_warm", &bt_type_duration, AT(deploy.keep_warm_ms), .def = "0s",
		.max = 30 * DAY,
		.doc = "blue-green: the old slot keeps running this long, so that a rollback is "
		       "one "
		       "switch.",
		.example = "15m"},
	{"deploy.on_failure", &bt_type_failure, AT(deploy.on_failure), WITH(deploy.continue_n),
		.names = &bt_enum_failure_policy, .def = "rollback",
		.doc = "`rollback`, `halt` (stays as it stands, a person is needed) or `continue "
		       "N`: go on until more than N lanes failed.",
		.example = "continue 1"},
	{"deploy.canary", &bt_type_batch, AT(deploy.canary), WITH(deploy.canary_percent),
		.def = "1",
		.doc = "canary: instances of the first batch, or a share of all (rounded down, at "
		       "least 1).",
		.example = "10%"},
	{"deploy.batch", &bt_type_batch, AT(deploy.batch), WITH(deploy.batch_percent), .def = "1",
		.doc = "rolling, canary: instances replaced at a time over all hosts, or a share "
		       "of them "
		       "(rounded down, at least 1).",
		.example = "50%"},
	{"deploy.min_in_rotation", &bt_type_count, AT(deploy.min_in_rotation), .max = 8192,
		.derived = "blue-green: as many as serve now; rolling, canary: all but the "
			   "batch",
		.doc = "Never fewer instances in rotation than this.", .example = "2"},
	{"deploy.keep", &bt_type_count, AT(deploy.keep), .def = "5", .min = 1, .max = 1000,
		.doc = "Good releases kept on each host, besides what runs.", .example = "3"},
	{"deploy.timeout", &bt_type_duration, AT(deploy.timeout_ms), .def = "0s", .max = 30 * DAY,
		.doc = "Limit of the whole run, after which it is rolled back; 0s: none. Time that "
		       "it is paused or waits for an approval does not count.",
		.example = "30m"},
	{"deploy.codedeploy", .when = BT_KEY_BUNDLE,
		.doc = "How a CodeDeploy bundle (`run.as: bundle`) goes over its hosts. See "
		       "[codedeploy.md](codedeploy.md)."},
	{"deploy.codedeploy.config", &bt_type_codedeploy_config, AT(deploy.codedeploy.config),
		.when = BT_KEY_BUNDLE, .names = &bt_enum_codedeploy_config, .def = "OneAtATime",
		.doc = "Hosts at a time, and how many of them may fail.", .example = "HalfAtATime"},
	{"deploy.codedeploy.minimum_healthy_hosts", &bt_type_min_healthy,
		AT(deploy.codedeploy.min_healthy), WITH(deploy.codedeploy.min_healthy_percent),
		.when = BT_KEY_BUNDLE,
		.doc = "Instead of `config`: never fewer healthy hosts than this number, or share "
		       "(rounded up).",
		.example = "75%"},
	{"deploy.codedeploy.style", &bt_type_enum, AT(deploy.codedeploy.style),
		.when = BT_KEY_BUNDLE, .names = &bt_enum_codedeploy_style, .def = "in-place",
		.doc = "`in-place`: on each host where it runs. `blue-green`: in the idle slot, "
		       "which then takes over.",
		.example = "blue-green"},
	{"deploy.codedeploy.ignore_application_stop_failures", &bt_type_bool,
		AT(deploy.codedeploy.ignore_stop_failures), .when = BT_KEY_BUNDLE, .def = "false",
		.doc = "A failed ApplicationStop is said, and the deployment goes on.",
		.example = "true"},
	{"deploy.hooks",
		.doc = "Tasks of your own, in order: `{run: [./migrate.sh, --up], on: once, "
		       "timeout: "
		       "5m, env: {…}, repeat: safe}` runs a program (`Exec`), `{Approve: {within: "
		       "30m}}` waits for `baton approve`. See [Hooks](#hooks)."},
	{"deploy.hooks.before", &bt_type_hooks, HOOKS(BT_HOOK_BEFORE), .placeholders = true,
		.doc = "The release is on the hosts, nothing is started yet.",
		.example = "[{run: [./migrate.sh, --up]}]"},
	{"deploy.hooks.before_switch", &bt_type_hooks, HOOKS(BT_HOOK_BEFORE_SWITCH),
		.placeholders = true,
		.doc = "The new instances are healthy, and no request goes to them yet.",
		.example = "[{run: './smoke.sh http://127.0.0.1:{port}/', on: each instance}]"},
	{"deploy.hooks.after_switch", &bt_type_hooks, HOOKS(BT_HOOK_AFTER_SWITCH),
		.placeholders = true,
		.doc = "They serve; with blue-green their predecessors still run.",
		.example = "[{Approve: {within: 30m}}]"},
	{"deploy.hooks.on_failure", &bt_type_hooks, HOOKS(BT_HOOK_ON_FAILURE), .placeholders = true,
		.doc = "Once, after the run went back or halted; a failure here changes nothing.",
		.example = "[{run: [./notify.sh, 'deployment failed']}]"},

	{"flows", &bt_type_flows, AT(flows), WITH(n_flows),
		.doc = "Flows of your own, by name: lists of stages, or of tasks that each host "
		       "does in turn. `baton run FLOW` runs one. See [flows.md](flows.md).",
		.example = "{night: [L4TurnOff, TomcatStop, TomcatStart, L4TurnOn]}"},
};
const size_t bt_n_keys = BT_ARRAY_LEN(bt_keys);

/* The name of the row below parent, or NULL where it is not a direct child of it. */
static const char *child(const struct bt_key *k, const char *parent)
{
	size_t n = strlen(parent);
	const char *name = k->path;
	if (n) {
		if (strncmp(name, parent, n) != 0 || name[n] != '.')
			return NULL;
		name += n + 1;
	}
	return strchr(name, '.') ? NULL : name;
}

const struct bt_key *bt_key_find(const char *parent, const char *name, const char **ret_nearest)
{
	const char *siblings[BT_ARRAY_LEN(bt_keys)];
	size_t n = 0;
	for (size_t i = 0; i < bt_n_keys; i++) {
		const char *c = child(&bt_keys[i], parent);
		if (c && bt_streq(c, name))
			return &bt_keys[i];
		if (c)
			siblings[n++] = c;
	}
	*ret_nearest = bt_nearest(name, siblings, n);
	return NULL;
}

const struct bt_key *bt_key_path(const char *path)
{
	for (size_t i = 0; i < bt_n_keys; i++)
		if (bt_streq(bt_keys[i].path, path))
			return &bt_keys[i];
	assert(!"a path that is in the table");
	return NULL;
}

const struct bt_node *bt_reading_at(const struct bt_reading *r, const char *path)
{
	return r->at[bt_key_index(bt_key_path(path))];
}
