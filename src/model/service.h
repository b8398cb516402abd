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

enum bt_runtime {
	BT_RUNTIME_PROCESS,
	BT_RUNTIME_TOMCAT,
	BT_RUNTIME_BUNDLE, /* a CodeDeploy bundle: its own scripts start and stop it */
};
enum bt_health_kind { BT_HEALTH_HTTP, BT_HEALTH_HTTPS, BT_HEALTH_TCP, BT_HEALTH_EXEC };
enum bt_strategy {
	BT_STRATEGY_BLUE_GREEN,
	BT_STRATEGY_ROLLING,
	BT_STRATEGY_RECREATE,
	BT_STRATEGY_CANARY, /* rolling whose first batch is watched before the others follow */
};
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
	const char *appspec; /* BUNDLE: the name of the file in it that is asked for first; NULL */
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

/* What stands before the instances and is told by its agent who is in rotation. */
enum bt_balancer_kind {
	BT_BALANCER_NONE,
	BT_BALANCER_NGINX,
	BT_BALANCER_HAPROXY,  /* the runtime API of one that is there */
	BT_BALANCER_NFTABLES, /* a table of baton's own: NAT, or direct server return */
	BT_BALANCER_IPVS,     /* NAT or direct routing */
	BT_BALANCER_HTTP,     /* an appliance or cloud balancer behind a REST API */
	BT_BALANCER_ROTATION, /* one outside, which asks each host's agent whether it is in */
};
enum bt_l4_mode {
	BT_L4_NAT,
	BT_L4_DSR, /* replies go past it: it never sees them, and hosts hold its address */
};

struct bt_haproxy {
	const char *socket;	/* absolute path of the stats socket, level admin */
	const char *backend;	/* default: the service's name, '@' as '-' */
	const char *server;	/* template of a server's name, {host} {slot} {port} */
	const char *state_file; /* `show servers state` is kept there; NULL: it is not */
};

struct bt_nftables {
	const char *interface; /* DSR: where clients' packets come in and go on to the hosts */
	bool masquerade;       /* NAT: hosts see the balancer's address, so replies come back */
};

struct bt_ipvs {
	const char *scheduler; /* "rr", "wrr", "lc", …, for a service that is made */
	int64_t weight;	       /* of a real server in rotation */
};

struct bt_api_call { /* url NULL: there is none */
	const char *method, *url,
		*body; /* with placeholders {host} {slot} {port} {address} {service} */
};

struct bt_appliance {
	struct bt_api_call on, off, status; /* status of one member */
	const struct bt_kv *headers;	    /* values may hold ${SECRET}s of run.secrets */
	size_t n_headers;
	const char *in_rotation;    /* dotted path in status's JSON */
	const char *in_rotation_is; /* the scalar's text that means in */
	const char *connections;    /* dotted path of a count; NULL: the host's own count serves */
	int64_t timeout_ms, retries;
	bool verify;	/* https: check the certificate */
	const char *ca; /* path of the CA that signed it; NULL: those that the host trusts */
};

struct bt_rotation {
	const char *listen;	     /* ADDRESS:PORT or PORT of each host's agent */
	const struct bt_kv *on_host; /* host → another one there */
	size_t n_on_host;
	const char *path; /* with {service} {host} */
	const char *body_in,
		*body_out; /* NULL: names of the slots that are in, and of those that are out */
	bool tcp;	   /* the listener itself says it: open or closed */
	int64_t interval_ms, fall, rise; /* of the checker: how long until it believes */
};
/* Where the agent of the host answers. */
const char *bt_rotation_listen(const struct bt_rotation *r, const char *host);

struct bt_l4 {
	enum bt_balancer_kind kind;
	const char *const
		*on; /* hosts whose agents control it; ROTATION: every host of the service */
	size_t n_on;
	enum bt_l4_mode mode;
	const char *vip; /* NFTABLES, IPVS: the address that clients ask; NULL otherwise */
	uint16_t port;	 /* … and its port */
	struct bt_haproxy haproxy;
	struct bt_nftables nftables;
	struct bt_ipvs ipvs;
	struct bt_appliance http;
	struct bt_rotation rotation;
};

/* Addresses that a host of direct server return answers to; LoopbackStop takes them off. */
struct bt_loopback {
	const char *const *vips; /* IPv4 or IPv6; empty: none, and the tasks are skipped */
	size_t n_vips;
	const char *interface; /* "lo" */
};

struct bt_tomcat {
	const char *home;    /* CATALINA_HOME */
	const char *base;    /* CATALINA_BASE, with {service} {slot} {port}; made where it is not
				there; NULL: below the agent's state directory */
	const char *context; /* "/" "/shop" "/api/v1", "/shop##2" for a version */
	bool exploded;	     /* the archive is unpacked before it is placed */
	bool take_over; /* what others placed at the context is moved aside, rather than refused */
	const char *java_opts, *xmx; /* NULL: none */
	/* Of a base that baton makes: */
	const char *jars_to_skip; /* by the scan at the start; NULL: what the distribution skips */
	const struct bt_kv *connector; /* further attributes of the Connector */
	size_t n_connector;
	bool access_log;
	int shutdown_port; /* 0: that of the name `shutdown` in the slot, or none */
	int64_t shutdown_wait_ms, stop_wait_ms; /* of the shutdown port; of catalina.sh stop */
};
#define BT_TOMCAT_SHUTDOWN "shutdown" /* the name of a slot's port */
/* The shutdown port of a slot with these further ports; 0: none. */
uint16_t bt_tomcat_shutdown_port(
	const struct bt_tomcat *t, const struct bt_port *more, size_t n_more);

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
enum bt_hook_on {
	BT_ON_ONCE,
	BT_ON_EACH_HOST,
	BT_ON_EACH_INSTANCE,
	BT_ON_BALANCER, /* the first host whose agent the balancer is told through */
	BT_ON_HOST,
};

/* A task as a person writes it, in a flow or a hook: its kind, where, and its parameters. What a
 * kind does not have is zero. */
struct bt_hook {
	enum bt_task_kind kind;
	struct bt_task_exec exec; /* Exec */
	enum bt_hook_on on;
	const char *host;    /* with BT_ON_HOST */
	int64_t timeout_ms;  /* 0: the table's */
	int64_t within_ms;   /* Approve: its time; Wait: its length; L4TurnOff, Drain: the drain's;
				-1:   the service's */
	const char *to;	     /* Notify: a name of `notify` */
	const char *message; /* Notify; may be NULL */
	bool out;	     /* Switch: takes out */
};

enum bt_flow_per { BT_PER_HOST, BT_PER_INSTANCE, BT_PER_ONCE };

struct bt_flow_stage {
	const char *name; /* NULL: by its number */
	enum bt_flow_per per;
	int64_t batch; /* lanes at a time, or percent; 0: the service's deploy.batch */
	bool batch_percent;
	int64_t min_in_rotation; /* -1: the service's */
	int on_failure;		 /* enum bt_failure_policy; -1: the service's */
	int64_t continue_n;
	const struct bt_hook *tasks;
	size_t n_tasks;
};

/* A named flow: stages in order. Built-in ones are tables of the plan layer. */
struct bt_flow {
	const char *name, *doc;
	const struct bt_flow_stage *stages;
	size_t n_stages;
};
#define BT_FLOWS_MAX 100

enum bt_notify_format { BT_NOTIFY_JSON, BT_NOTIFY_SLACK };
struct bt_notify {
	const char *name, *url; /* url may hold ${SECRET}s of run.secrets */
	enum bt_notify_format format;
};

struct bt_hooks {
	const struct bt_hook *list;
	size_t n;
};

enum bt_codedeploy_config {
	BT_CODEDEPLOY_ONE_AT_A_TIME,
	BT_CODEDEPLOY_HALF_AT_A_TIME,
	BT_CODEDEPLOY_ALL_AT_ONCE,
};
enum bt_codedeploy_style { BT_CODEDEPLOY_IN_PLACE, BT_CODEDEPLOY_BLUE_GREEN };

/* How a CodeDeploy bundle goes over its hosts. */
struct bt_codedeploy {
	enum bt_codedeploy_config config;
	int64_t min_healthy; /* hosts, or percent (rounded up); -1: what config says */
	bool min_healthy_percent;
	enum bt_codedeploy_style style;
	bool ignore_stop_failures; /* of ApplicationStop */
};

struct bt_deploy {
	enum bt_strategy strategy;
	struct bt_codedeploy codedeploy; /* BT_RUNTIME_BUNDLE */
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
	int64_t canary;		 /* CANARY: instances of the first batch, or percent */
	bool canary_percent;
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
	const struct bt_nginx *nginx; /* NULL: no nginx */
	const struct bt_l4 *l4;	      /* NULL: none; never both */
	struct bt_loopback loopback;
	struct bt_tomcat tomcat; /* with BT_RUNTIME_TOMCAT */
	struct bt_deploy deploy;
	const struct bt_flow *flows;
	size_t n_flows;
	const struct bt_notify *notify;
	size_t n_notify;
	/* Values of run.secrets, where an agent was given them with what it is asked to do; no part
	 * of the config, and neither printed nor written. */
	const struct bt_kv *secret_values;
	size_t n_secret_values;
};

/* The service's balancer, whichever family it is of. */
struct bt_balancer_facts {
	enum bt_balancer_kind kind;
	const char *family;    /* "nginx", "haproxy", …: how people and names call it */
	const char *const *on; /* whose agents are told */
	size_t n_on;
	bool own_host;	     /* each of them knows the instances of its own host only */
	bool keeps_others;   /* what is in it besides the service's instances is left alone */
	bool drains_at_host; /* connections are counted where they end, not at the balancer */
};
void bt_service_balancer(const struct bt_service *s, struct bt_balancer_facts *ret);
/* Whether the agent on the host is one of those that are told. */
bool bt_service_balances_on(const struct bt_service *s, const char *host);
/* How long its balancer may take to believe what it is told, beyond what telling it takes: the
 * answers that an outside checker needs. */
int64_t bt_service_balancer_settle_ms(const struct bt_service *s);
/* Requests reach the hosts at an address that each of them holds on its loopback. */
bool bt_service_has_loopback(const struct bt_service *s);

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
extern const struct bt_enum bt_enum_balancer, bt_enum_l4_mode, bt_enum_flow_per,
	bt_enum_notify_format;
extern const struct bt_enum bt_enum_codedeploy_config, bt_enum_codedeploy_style;
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
