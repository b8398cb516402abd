/* A service as a person wrote it in baton.yaml, every default filled in.
 *
 * Plain data: all pointers are borrowed from the arena that made the object (config's).
 * Strings that may be absent are NULL; lists are NULL with a count of 0. */
#pragma once
#include "base/err.h"
#include "model/task.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BT_NAME_MAX 63 /* services, hosts, slots, versions: [a-z0-9A-Z][a-zA-Z0-9._-]* */

enum bt_runtime { BT_RUNTIME_PROCESS };
enum bt_health_kind { BT_HEALTH_HTTP, BT_HEALTH_HTTPS, BT_HEALTH_TCP, BT_HEALTH_EXEC };
enum bt_strategy { BT_STRATEGY_BLUE_GREEN, BT_STRATEGY_ROLLING, BT_STRATEGY_RECREATE };
enum bt_failure_policy { BT_ON_FAILURE_ROLLBACK, BT_ON_FAILURE_HALT, BT_ON_FAILURE_CONTINUE };
enum bt_drain_policy { BT_ON_DRAIN_TIMEOUT_CONTINUE, BT_ON_DRAIN_TIMEOUT_FAIL };
enum bt_nginx_mode { BT_NGINX_ADOPT, BT_NGINX_MANAGED };
/* What the file that baton owns looks like in adopt mode. */
enum bt_nginx_form {
	BT_NGINX_UPSTREAM,
	BT_NGINX_SERVICE_PORT,
	BT_NGINX_SERVICE_URL,
	BT_NGINX_SITE, /* a link to one of several whole files */
};
enum bt_route_to { BT_ROUTE_ONE, BT_ROUTE_ALL };

struct bt_kv {
	const char *key, *value;
};

struct bt_port {
	const char *name; /* "management" */
	uint16_t number;
};
struct bt_slot {
	const char *name;
	uint16_t port; /* where requests go */
	const struct bt_port *more;
	size_t n_more; /* the same names in every slot of a service */
};
#define BT_SLOT_PORTS 16 /* at most, besides the first */

struct bt_stop_step { /* send the signal, then wait up to wait_ms for the group to be gone */
	int signal;
	int64_t wait_ms;
};

struct bt_limits { /* rlimits; -1: left as it is */
	int64_t nofile, nproc, core_bytes, memory_bytes;
};

struct bt_run {
	enum bt_runtime as;
	const char *const *command; /* argv with {artifact} {release} {port} {slot} {host} */
	size_t n_command;
	const struct bt_slot *slots;
	size_t n_slots;
	const struct bt_kv *env; /* values may hold the same placeholders */
	size_t n_env;
	const char *const *secrets; /* names only; values come from the caller's environment */
	size_t n_secrets;
	const char *user; /* NULL: the agent's own */
	const char *dir;  /* working directory; NULL: the release's directory */
	struct bt_limits limits;
	const struct bt_stop_step *stop; /* in order; at least one */
	size_t n_stop;
	int64_t log_max_bytes; /* of one log file before it is rotated */
	int64_t log_keep;      /* rotated files kept */
	int64_t restart_backoff_ms, restart_backoff_max_ms;
};

struct bt_file {	  /* placed with each release, beside the artifact */
	const char *from; /* as written, relative to the config */
	const char *to;	  /* relative to the release's directory; may hold placeholders */
	int mode;	  /* 0600 */
	bool template;	  /* its placeholders are replaced, for each slot */
	int line, column; /* where the config names it */
};
#define BT_FILES_MAX 64
#define BT_FILES_MAX_BYTES (512 << 10) /* of all of them */

struct bt_health {
	enum bt_health_kind kind;
	const char *path;	 /* http(s) */
	uint16_t port;		 /* 0: the slot's, or the one of this name there */
	const char *port_name;	 /* NULL: none */
	const char *const *argv; /* exec, placeholders as in command */
	size_t n_argv;
	const struct bt_kv *headers;
	size_t n_headers;
	int status;		  /* expected, default 200 */
	const char *contains;	  /* in the body, or NULL */
	const struct bt_kv *json; /* dotted path → expected text of the scalar */
	size_t n_json;
	int64_t every_ms, timeout_ms, within_ms;
	int64_t watch_ms; /* between two checks outside of deployments; 0: none */
	int passes;	  /* in a row */
	int fails;	  /* in a row, before a bake calls it unhealthy */
	bool verify;	  /* https: check the certificate (default false: it is the local app) */
};

struct bt_identity { /* who answers? such as /profile; NULL path: not asked */
	const char *path;
	const char *through; /* URL through nginx, or NULL: built from nginx's listen address */
	const char *expect;  /* template of the expected body with {slot} {port} {host}, default
				"{slot}" */
};

struct bt_route {
	const char *path;
	enum bt_route_to to;
	const char *const *directives; /* raw, without the semicolon */
	size_t n_directives;
};

struct bt_nginx {
	const char *const *on; /* hosts whose agents have one, in the order they are switched */
	size_t n_on;
	enum bt_nginx_mode mode;
	/* adopt */
	const char *config;  /* the user's nginx.conf for -t and -c; NULL: nginx's own default */
	const char *prefix;  /* nginx -p, or NULL */
	const char *include; /* absolute path of the one file that baton owns */
	enum bt_nginx_form form;
	const char *upstream;	   /* name of the upstream block; default: the service */
	const char *one;	   /* of a second one, which sends to one instance; NULL: none */
	const char *variable;	   /* default service_port / service_url */
	const struct bt_kv *sites; /* form site: slot → absolute path of its file */
	size_t n_sites;
	/* managed */
	const char *listen; /* "8080", "127.0.0.1:8080", "443" */
	const char *server_name;
	const char *certificate, *certificate_key; /* paths; both or none */
	bool http2;
	const char *redirect;	/* with a certificate: where plain http listens that is sent to
				   https; NULL: nowhere */
	int64_t max_body_bytes; /* 0: any */
	const char *const *directives; /* raw, of the server, without the semicolon */
	size_t n_directives;
	const struct bt_route *routes;
	size_t n_routes;
	int keepalive;			    /* idle upstream connections per worker */
	int64_t worker_shutdown_timeout_ms; /* 0: not written */
	/* both */
	const char *binary;  /* default "nginx" */
	const char *url;     /* of nginx, without a path: where changes are confirmed; NULL: from
				listen */
	int max_old_workers; /* refuse a reload while more than these still shut down */
};

bool bt_nginx_is_on(const struct bt_nginx *n, const char *host);
/* A program of the user's, as an Exec task runs it. */
struct bt_task_exec {
	const char *const *run; /* argv with placeholders */
	size_t n_run;
	const struct bt_kv *env; /* besides run.env and the secrets */
	size_t n_env;
	bool safe; /* may be repeated when its outcome is unknown */
};

enum bt_hook_when {
	BT_HOOK_BEFORE,	       /* the release is on the hosts, nothing is started yet */
	BT_HOOK_BEFORE_SWITCH, /* the new instances are healthy, no request goes there yet */
	BT_HOOK_AFTER_SWITCH,  /* they serve, and their predecessors still run */
	BT_HOOK_ON_FAILURE,    /* once, after the run went back or halted */
	BT_HOOK_WHENS,
};
enum bt_hook_on { BT_ON_ONCE, BT_ON_EACH_HOST, BT_ON_EACH_INSTANCE, BT_ON_HOST };

struct bt_hook {		/* a task that a person adds to the plan */
	enum bt_task_kind kind; /* Exec or Approve */
	struct bt_task_exec exec;
	enum bt_hook_on on;
	const char *host;   /* with BT_ON_HOST */
	int64_t timeout_ms; /* Exec */
	int64_t within_ms;  /* Approve */
};

struct bt_hooks {
	const struct bt_hook *list;
	size_t n;
};

struct bt_deploy {
	enum bt_strategy strategy;
	int64_t drain_ms;
	enum bt_drain_policy on_drain_timeout;
	int64_t bake_ms;
	double bake_max_5xx;  /* share of 5xx among the balancer's answers during the bake, 0…1 */
	int64_t keep_warm_ms; /* the old slot stays this long after a blue-green; 0: stopped at once
			       */
	enum bt_failure_policy on_failure;
	int64_t continue_n; /* with CONTINUE: lanes that may fail */
	int64_t batch;	    /* instances at a time, or percent */
	bool batch_percent;
	int64_t min_in_rotation; /* -1: every instance but the batch (rolling), all (blue-green) */
	int64_t keep;		 /* good releases kept on each host */
	int64_t timeout_ms;	 /* of the whole run, 0: none */
	struct bt_hooks hooks[BT_HOOK_WHENS];
};

struct bt_service {
	const char *name;
	const char *file; /* the config file it came from, for messages */
	int line;
	const char
		*artifact; /* path as written, relative to the config file; NULL: must be given */
	bool unpack;	   /* archives are unpacked; default true for .tar.gz .tgz .tar.zst .zip */
	const char *const *hosts;
	size_t n_hosts;
	const struct bt_file *files;
	size_t n_files;
	const char *const *declared; /* variables of the caller's environment that its file may use;
					known only where it was read from one */
	size_t n_declared;
	struct bt_run run;
	struct bt_health health;
	struct bt_identity identity;
	const struct bt_nginx *nginx; /* NULL: no balancer */
	struct bt_deploy deploy;
};

/* By name; NULL: none. */
const struct bt_slot *bt_service_slot(const struct bt_service *s, const char *name);
/* The port of that name; 0: none. */
uint16_t bt_slot_port(const struct bt_slot *slot, const char *name);
/* Where health is asked in the slot; `port` is the slot's first, also where slot is NULL. */
uint16_t bt_health_port(const struct bt_health *h, const struct bt_slot *slot, uint16_t port);

/* Names of the enums, as baton.yaml and all JSON write them. */
struct bt_enum_name {
	const char *name;
	int value;
};
struct bt_enum { /* the values of one enum, ended by a NULL name */
	const struct bt_enum_name *names;
};
extern const struct bt_enum bt_enum_runtime, bt_enum_health, bt_enum_strategy,
	bt_enum_failure_policy, bt_enum_drain_policy, bt_enum_nginx_mode, bt_enum_nginx_form,
	bt_enum_route_to, bt_enum_hook_when, bt_enum_hook_on, bt_enum_repeat;
const char *bt_enum_name(const struct bt_enum *e, int value); /* "?" for a value outside */
/* BT_E_CONFIG lists what was expected, and the nearest. */
int bt_enum_parse(const struct bt_enum *e, const char *text, int *ret, struct bt_err *err);

/* Whether the text may name a host, slot or version. */
bool bt_name_valid(const char *text);
/* Whether it may name a service: NAME, or NAME@ENVIRONMENT, at most BT_NAME_MAX in all. */
bool bt_service_name_valid(const char *text);
