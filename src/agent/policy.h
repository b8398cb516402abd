/* What the owner of a host lets its agent do, whatever the server says. A file owned by root, read
 * once at the start; docs/agent.md describes it for people. Every check comes before the effect,
 * and a refusal names the rule that said no. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/service.h"
#include "model/task.h"
#include <stdbool.h>
#include <sys/types.h>

struct bt_policy {
	struct bt_arena *arena;
	const char *file;	   /* for messages: its path, or "the defaults" */
	const char *const *run_as; /* user names besides the agent's own */
	size_t n_run_as;
	bool root;    /* instances may run as root */
	bool exec;    /* health checks may run programs; nginx binaries other than "nginx" */
	bool upgrade; /* the agent may take its server's program over */
	bool network; /* addresses and packets of the host itself: loopback, nftables, IPVS */
	const char *const *paths; /* roots for working directories and balancer files */
	size_t n_paths;
	uint16_t port_min, port_max; /* of slots and of listening balancers */
	bool tasks[BT_TASK_KINDS];
};

struct bt_policy_spec {
	const char *path; /* NULL: no file, the defaults */
	bool must_exist;
	bool own_machine;      /* defaults of `baton up`: own user (root too), exec, every path */
	const char *state_dir; /* always an allowed root */
};
/* BT_E_CONFIG with file and line, or BT_E_REFUSED when others could have written the file. */
int bt_policy_load(const struct bt_policy_spec *spec, struct bt_policy **ret, struct bt_err *err);
int bt_policy_parse(const char *text, size_t n, const struct bt_policy_spec *spec,
	struct bt_policy **ret, struct bt_err *err);
struct bt_policy *bt_policy_free(struct bt_policy *p); /* NULL is fine; returns NULL */

/* 0, or BT_E_REFUSED: "host policy (/etc/baton/policy.yaml, run_as): …". */
int bt_policy_task(const struct bt_policy *p, enum bt_task_kind kind, struct bt_err *err);
int bt_policy_exec(const struct bt_policy *p, struct bt_err *err); /* programs of a config */
int bt_policy_run(const struct bt_policy *p, const struct bt_service *s, struct bt_err *err);
/* Whether a process of that user may be adopted, so that a deployment stops it later. */
int bt_policy_adopt(const struct bt_policy *p, uid_t uid, const char *user, struct bt_err *err);
/* Whether a file may be put at the path. Of any thread. */
int bt_policy_place(const struct bt_policy *p, const char *path, struct bt_err *err);
int bt_policy_port(const struct bt_policy *p, uint16_t port, struct bt_err *err);
/* Addresses, rules and tables of the host's own network; what: "traffic.loopback". */
int bt_policy_network(const struct bt_policy *p, const char *what, struct bt_err *err);
int bt_policy_health(const struct bt_policy *p, const struct bt_service *s, struct bt_err *err);
int bt_policy_balancer(const struct bt_policy *p, const struct bt_service *s, struct bt_err *err);
/* Where this host, called so, is to answer outside health checks (traffic.rotation). */
int bt_policy_rotation(const struct bt_policy *p, const struct bt_service *s, const char *host,
	struct bt_err *err);
