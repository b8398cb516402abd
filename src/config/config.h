/* baton.yaml → model. Strict; every error of a file at once, each with file:line:column, what was
 * expected and the nearest right word. One table of keys (config/keys.c) serves parsing, printing,
 * the JSON form and docs/config.md. Pure: the caller reads the file and gives the environment. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/service.h"
#include <jansson.h>

struct bt_config {
	struct bt_arena *arena;
	const struct bt_service *services;
	size_t n_services;
};
struct bt_config *bt_config_free(struct bt_config *c);

/* One problem a line: "baton.yaml:12:3: unknown key 'helth' (did you mean 'health'?)". */
struct bt_config_problem {
	const char *line; /* the whole text; owned by the list's arena */
	const char *file; /* as given to parse, to be compared only */
	int at_line, at_column;
};
struct bt_config_problems {
	struct bt_arena *arena;
	struct bt_config_problem *items;
	size_t n;
};
void bt_config_problems_done(struct bt_config_problems *p);

/* lookup: value of a declared environment variable in the caller's environment, or NULL. */
typedef const char *(*bt_config_env)(void *arg, const char *name);

/* 0 and *ret, or BT_E_CONFIG with problems filled (≥ 1); err has the first one. Several files:
 * parse each, then bt_config_merge. Bounds: 1 MiB, depth 32, no more than 1,000 aliases. */
int bt_config_parse(const char *text, size_t n, const char *file_name, bt_config_env env,
	void *env_arg, struct bt_config **ret, struct bt_config_problems *problems,
	struct bt_err *err);
/* Adds the services of *from into *to and frees *from; checks what spans files (names, ports). */
int bt_config_merge(struct bt_config *to, struct bt_config *from,
	struct bt_config_problems *problems, struct bt_err *err);
/* The service by name; NULL when absent. name NULL: the only one. */
const struct bt_service *bt_config_find(const struct bt_config *c, const char *name);

/* YAML with every default filled in; parses to the same model. */
void bt_config_print(const struct bt_config *c, struct bt_str *out);
/* One service in canonical JSON (same keys as YAML): what releases store and agents get. */
json_t *bt_config_service_to_json(const struct bt_service *s);
/* Into a config of one service; err has all problems. */
int bt_config_service_from_json(const json_t *j, struct bt_config **ret, struct bt_err *err);
/* The text of a template of the service as it travels: ${NAME} of declared variables are replaced,
 * and every {placeholder} is one that the agent knows. `path` is what problems name. BT_E_CONFIG
 * after problems, which go to the list. */
struct bt_template {
	const struct bt_service *service;
	const struct bt_file *file;
	const char *path, *text;
	size_t n;
	bt_config_env env;
	void *env_arg;
};
int bt_config_template(const struct bt_template *t, struct bt_config_problems *problems,
	struct bt_str *out, struct bt_err *err);
/* Whether it says {slot} or a port, so that it differs from slot to slot. */
bool bt_config_differs_by_slot(const char *text);
/* A flow's stages as baton.yaml writes them; the caller decrefs. */
json_t *bt_flow_written(const struct bt_flow *f);
json_t *bt_task_written(const struct bt_hook *h);
/* The path that the agent of the host answers for a service whose balancer is `rotation`; the
 * caller frees. */
char *bt_config_rotation_path(const struct bt_service *s, const char *host);
/* docs/config.md's table, from the key table. */
void bt_config_keys_markdown(struct bt_str *out);

bool bt_config_is_archive(const char *name); /* .tar.gz, .tgz, .tar.zst or .zip */
/* Whether the file that came is unpacked on the host: what `unpack` says, or, where the config
 * names no file (or a pattern that ends in `*`), its name. */
bool bt_config_unpacks(const struct bt_service *s, const char *file_name);

/* {artifact} {release} {port} {port.NAME} {slot} {host} → values; BT_E_CONFIG names an unknown
 * one. */
struct bt_placeholders {
	const char *artifact, *release, *slot, *host;
	uint16_t port;
	const struct bt_port *ports; /* the slot's others */
	size_t n_ports;
};
int bt_config_expand(
	const char *text, const struct bt_placeholders *p, struct bt_str *out, struct bt_err *err);
/* run.tomcat.base in the slot; "" where the config has none (check_tomcat.c). */
int bt_config_tomcat_base(const struct bt_service *s, const char *slot, uint16_t port,
	struct bt_str *out, struct bt_err *err);
