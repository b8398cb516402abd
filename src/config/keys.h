/* The key table: every key of baton.yaml is one row, and parsing, printing, the JSON form and
 * docs/config.md all come from it. */
#pragma once
#include "config/node.h"
#include "model/service.h"

struct bt_key;

/* Reading one service. */
struct bt_reading {
	struct bt_arena *arena;
	struct bt_problem_sink *sink;
	struct bt_service *service;
	struct bt_nginx *nginx;	    /* what service->nginx points to, or NULL */
	struct bt_l4 *l4;	    /* what service->l4 points to, or NULL */
	const struct bt_node *node; /* the service's map */
	const struct bt_node **at;  /* per row: the value that was given, or NULL */
	const struct bt_key *key;   /* the row being read, for problems */
};

/* How a value of one type is read and written. */
struct bt_key_type {
	const char *name; /* as docs/config.md says it */
	/* Fills the field, or tells problems. The node is not null. */
	void (*read)(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
		void *field, void *count);
	/* A new reference; NULL: absent. */
	json_t *(*write)(const struct bt_key *k, const void *field, const void *count);
};

/* In which services a key means something; elsewhere it is not printed, and not taken. */
enum bt_key_when {
	BT_KEY_ALWAYS,
	BT_KEY_ADOPT,
	BT_KEY_MANAGED,
	BT_KEY_HTTP,
	BT_KEY_HTTPS,
	BT_KEY_LOOPBACK, /* with addresses there */
	BT_KEY_PROCESS,	 /* run.as: process */
	BT_KEY_TOMCAT,	 /* run.as: tomcat */
	BT_KEY_BUNDLE,	 /* run.as: bundle */
};

/* Which object a key's offsets are into. */
enum bt_key_in { BT_IN_SERVICE, BT_IN_NGINX, BT_IN_L4 };

struct bt_key {
	const char *path;		/* "deploy.drain" */
	const struct bt_key_type *type; /* NULL: a group of keys */
	enum bt_key_in in;
	enum bt_balancer_kind family; /* BT_IN_L4: whose key it is */
	size_t offset, count; /* of the field, and of what belongs to it (a list's length) */
	const char *def;      /* default as text; NULL: none, or see `derived` */
	const char *derived;  /* where the default comes from, in words */
	int64_t min, max;     /* of numbers, ms, bytes; of a text's length */
	const struct bt_enum *names;
	bool (*check)(const char *text); /* of a text or each entry */
	const char *expected;		 /* what check wants, in words */
	const char *shorthand;		 /* a group written as one text means this key */
	enum bt_key_when when;
	bool required;
	bool placeholders; /* a map whose values may hold {port} and the like */
	const char *doc, *example;
};

extern const struct bt_key bt_keys[];
extern const size_t bt_n_keys;

/* The row of `parent`.`name` (parent "" is the top); NULL with the nearest sibling or NULL. */
const struct bt_key *bt_key_find(const char *parent, const char *name, const char **ret_nearest);
const struct bt_key *bt_key_path(const char *path); /* must exist */
/* Whether the key means something in the service, so that it is printed, and required (print.c). */
bool bt_key_applies(const struct bt_service *s, const struct bt_key *k);
static inline size_t bt_key_index(const struct bt_key *k)
{
	return (size_t)(k - bt_keys);
}
/* What a value looks like, for documents: "duration", "`a`, `b`". */
void bt_config_key_kind(const struct bt_key *k, struct bt_str *out);
/* The value that was given for a path, or NULL where the default holds. */
const struct bt_node *bt_reading_at(const struct bt_reading *r, const char *path);

/* "PATH: expected …, found …", at the node. */
void bt_reading_wrong(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	const char *expected);
/* Of a map of our own: tells keys that are not among the words; true when the node is a map. */
bool bt_reading_only(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	const char *const *words, size_t n_words, const char *expected);
/* A task of a flow or a hook (type_tasks.c); false after a problem. */
bool bt_reading_task(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, struct bt_hook *ret);
/* A whole number between the key's bounds; false after a problem. */
bool bt_reading_whole(
	struct bt_reading *r, const struct bt_key *k, const struct bt_node *n, int64_t *ret);

extern const struct bt_key_type bt_type_text, bt_type_duration, bt_type_size, bt_type_count,
	bt_type_number, bt_type_health_port, bt_type_bool, bt_type_enum, bt_type_share, bt_type_map,
	bt_type_list, bt_type_names, bt_type_argv, bt_type_slots, bt_type_stop, bt_type_routes,
	bt_type_failure, bt_type_batch, bt_type_health_path, bt_type_health_tls_path,
	bt_type_health_tcp, bt_type_health_exec, bt_type_files, bt_type_hooks, bt_type_flows,
	bt_type_notify, bt_type_port, bt_type_codedeploy_config, bt_type_min_healthy;

/* Checks of texts. */
bool bt_check_text(const char *t);     /* any, without control characters but tab and newline */
bool bt_check_abs_path(const char *t); /* /…, fit for nginx's config */
bool bt_check_url_path(const char *t); /* /…, no blanks */
bool bt_check_route(const char *t);
bool bt_check_url(const char *t); /* http:// or https:// */
bool bt_check_env_name(const char *t);
bool bt_check_header_name(const char *t);
bool bt_check_json_path(const char *t);	    /* names, dots between */
bool bt_check_rotation_path(const char *t); /* /…, with {service} and {host} */
/* The bytes of an IPv4 or IPv6 address: 4 or 16; 0: it is none. */
size_t bt_address_parse(const char *t, uint8_t ret[static 16]);
bool bt_check_vip(const char *t);	/* … that clients can ask: not loopback, multicast, … */
bool bt_check_interface(const char *t); /* of the network, as Linux names them */
bool bt_check_listen(const char *t);	/* PORT or ADDRESS:PORT */
bool bt_check_server_name(const char *t); /* host names, blanks between */
bool bt_check_variable(const char *t);	  /* of nginx, without $ */
bool bt_check_directive(const char *t);	  /* one, of those that are allowed */
#define BT_DIRECTIVE_EXPECTED                                                                      \
	"one directive that docs/nginx.md lists, and its values, without ; { } or a backslash"
extern const char *const bt_nginx_directives[]; /* their names, ended by NULL */
bool bt_check_user(const char *t);
#define BT_PLACEHOLDERS "{artifact} {release} {port} {port.NAME} {slot} {host}"
bool bt_check_command(const char *t); /* only known placeholders */
bool bt_check_identity(const char *t);
bool bt_check_scheduler(const char *t);	     /* of IPVS */
bool bt_check_haproxy_name(const char *t);   /* of a backend or server */
bool bt_check_haproxy_server(const char *t); /* the same, with {host} {slot} {port} */
#define BT_TOMCAT_BASE_PLACEHOLDERS "{service} {slot} {port}"
bool bt_check_tomcat_base(const char *t);    /* absolute, those placeholders */
bool bt_check_tomcat_context(const char *t); /* "/", "/shop", "/api/v1", "/shop##2" */
bool bt_check_tomcat_options(const char *t); /* for java: catalina.sh hands them to a shell */
bool bt_check_heap(const char *t);	     /* "512m" */
bool bt_check_attribute(const char *t);	     /* of Tomcat's Connector, and not baton's */
bool bt_check_place(const char *t); /* of a file in a release: relative, known placeholders */
/* Of the {word} or {port.NAME} that begins here, with its braces; 0: none does. */
size_t bt_placeholder_len(const char *t);
/* A text with placeholders, piece by piece: what stands before the next one goes into out, {{ as
 * one brace (NULL: nowhere), and *t to where it begins. Its length as above; 0: there is none, and
 * *t is at the end. */
size_t bt_placeholder_next(const char **t, struct bt_str *out);
/* "unknown placeholder {x}: expected one of …", of the one at t. BT_E_CONFIG. */
int bt_placeholder_unknown(struct bt_err *err, const char *t, size_t len, const char *expected);
/* Which of the names the placeholder at t is, of that length with its braces; -1: none of them. */
int bt_placeholder_index(const char *const *names, size_t n_names, const char *t, size_t len);
size_t bt_port_name_len(const char *t); /* how much of the text may name a port */

/* ${NAME}: the variables that a document declares, and where their values come from. */
struct bt_variables {
	const char **declared;
	size_t n;
	bt_config_env env;
	void *arg;
};
/* The value, or NULL after a problem at the place. */
const char *bt_variables_get(struct bt_problem_sink *sink, const struct bt_node *at,
	const struct bt_variables *v, const char *name);

/* Reads the map of one service into r->service, defaults and checks included. */
void bt_reading_service(struct bt_reading *r);
/* What only holds together: strategy and slots, ports, forms. */
void bt_config_check_service(struct bt_reading *r);
/* Names of ports, wherever they stand, are those of the slots (type_slots.c). */
void bt_config_check_ports(struct bt_reading *r);
void bt_config_check_hooks(struct bt_reading *r); /* type_hooks.c */
void bt_config_check_vip(struct bt_reading *r);	  /* check_vip.c; NFTABLES and IPVS */
void bt_config_check_nft(struct bt_reading *r);	  /* check_nft.c */
void bt_config_check_flows(struct bt_reading *r); /* type_flows.c */
void bt_config_check_l4(struct bt_reading *r);	  /* check_l4.c; with r->l4 only */
void bt_config_check_loopback(struct bt_reading *r);
void bt_config_check_notify(struct bt_reading *r); /* type_notify.c */
void bt_config_check_tomcat(struct bt_reading *r); /* check_tomcat.c */
/* Two services that share a CATALINA_BASE on the host. */
void bt_config_check_tomcat_pair(struct bt_problem_sink *s, const struct bt_node *later_at,
	const struct bt_service *earlier, const struct bt_service *later, const char *host);
void bt_config_check_http(struct bt_reading *r);     /* check_http.c */
void bt_config_check_rotation(struct bt_reading *r); /* check_rotation.c */
/* Two services that would answer at the same place. */
void bt_config_check_rotation_pair(struct bt_problem_sink *s, const struct bt_node *later_at,
	const struct bt_service *earlier, const struct bt_service *later);
/* The service's own port on the host for the checks of the outside balancer; 0: it has none. */
long bt_config_rotation_port(const struct bt_service *s, const char *host);
/* What CodeDeploy bundles have, and what they do not (type_bundle.c). */
void bt_config_check_bundle(struct bt_reading *r);
bool bt_config_not_for_bundles(const char *path); /* the key means nothing there */
/* Ports and names of two services; told at `later`'s place. */
void bt_config_check_pair(struct bt_problem_sink *s, const struct bt_node *later_at,
	const struct bt_service *earlier, const struct bt_service *later);
