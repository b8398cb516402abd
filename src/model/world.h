/* What is really there: facts that agents observed, and the plan layer plans from. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include <jansson.h>
#include <stdint.h>

enum bt_run_state {
	BT_RUN_ABSENT,
	BT_RUN_STARTING,
	BT_RUN_RUNNING,
	BT_RUN_CRASHING,
	BT_RUN_STOPPING
};

const char *bt_run_state_name(enum bt_run_state s);

/* A process that others started and that listens on a slot's port, looked at because somebody wants
 * to adopt it. */
struct bt_seen_foreign {
	int pid;	     /* of the one process that all listeners belong to; 0: see trouble */
	const char *command; /* its arguments in one line, cut */
	const char *user;
	const char *unit;     /* the systemd unit that it belongs to; NULL: none */
	const char *artifact; /* path of the file that it runs; NULL: see no_artifact */
	const char *digest;   /* of that file, sha256 hex; NULL: see no_artifact */
	int64_t size;
	const char *no_artifact; /* why what it runs is not known; NULL where it is */
	const char *trouble;	 /* why it cannot be adopted; NULL: it can */
};

enum bt_vital { BT_VITAL_UNKNOWN, BT_VITAL_HEALTHY, BT_VITAL_UNHEALTHY };

struct bt_seen_instance {
	const char *slot;
	uint16_t port;
	enum bt_run_state state;
	uint32_t release;    /* 0: unknown or none */
	uint32_t installed;  /* bundles: the last that was, whatever runs; 0: none */
	const char *version; /* NULL where unknown */
	int pid;	     /* of the app; 0 none */
	const char
		*holder; /* who listens on the port when it is not ours: "java (pid 812)"; NULL */
	const char *identity;  /* what its identity URL said; NULL: not asked or no answer */
	int64_t since_wall_ms; /* running since; 0 unknown */
	int restarts;
	uint32_t connections;		       /* open to its port, as its host sees them */
	enum bt_vital health;		       /* as its host asked last, between deployments */
	const char *unhealthy_why;	       /* NULL unless unhealthy */
	bool adopted;			       /* others started it, and it runs under no shim */
	const struct bt_seen_foreign *foreign; /* of the holder, where it was asked for; NULL */
};

struct bt_seen_member { /* of a balancer's pool, by address */
	const char *address;
	uint16_t port;
	bool in;
	bool one;		 /* routes `to: one` go there */
	const char *host, *slot; /* who it is, where the balancer knows; NULL: by its address */
	bool counted;		 /* the balancer counts what is open through it: */
	uint32_t connections;
};

struct bt_seen_vip { /* an address of the service on its host's loopback */
	const char *address;
	bool there;
	const char *trouble; /* on another interface, ARP would answer for it, …; NULL */
};

struct bt_seen_balancer {
	const char *name;
	uint64_t generation; /* last confirmed */
	bool running;	     /* nginx is there */
	const struct bt_seen_member *members;
	size_t n_members;     /* what the file / config sends to */
	const char *identity; /* what the identity URL through the balancer said; NULL */
	int old_workers;      /* still shutting down */
	const char *trouble;  /* one line when something does not hold; NULL */
	const char *refuses;  /* why it could not take this config: nothing is begun; NULL */
};

struct bt_seen_host {
	const char *host;
	const char *address; /* as other hosts reach it */
	const char *agent_version;
	int64_t free_bytes;
	const char *no_exec; /* why its policy lets no program of the user's run; NULL: it may */
	bool can_bind_low;   /* its agent's children may listen below port 1024 */
	const struct bt_seen_instance *instances;
	size_t n_instances;
	const struct bt_seen_balancer *balancers;
	size_t n_balancers;
	const struct bt_seen_vip *vips;
	size_t n_vips; /* of the service's loopback, on a host of its own */
	const uint32_t *releases;
	size_t n_releases; /* present on its disk */
};

#define BT_WORLD_VERSION 1
/* All about one service. Owned by an arena of its own. */
struct bt_world {
	struct bt_arena *arena;
	const struct bt_seen_host *hosts;
	size_t n_hosts;
};

struct bt_world *bt_world_free(struct bt_world *w);
json_t *bt_seen_host_to_json(const struct bt_seen_host *h);
/* Into the given arena. */
int bt_seen_host_from_json(
	const json_t *j, struct bt_arena *a, struct bt_seen_host *ret, struct bt_err *err);
/* {"version":1,"hosts":[…]}; the caller decrefs. */
json_t *bt_world_to_json(const struct bt_world *w);
int bt_world_from_json(const json_t *j, struct bt_world **ret, struct bt_err *err);
