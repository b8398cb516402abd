/* The scene: a service's instances (host × slot) with what the world says of each.
 * Every strategy starts from it, so that "live", "idle" and "stranger" mean one thing. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include "model/plan.h"
#include "model/service.h"
#include "model/world.h"

struct bt_place {
	uint16_t host;	     /* index into service->hosts */
	uint16_t slot;	     /* index into service->run.slots */
	const char *address; /* as the balancer reaches it */
	uint16_t port;
	enum bt_run_state state; /* of what baton started there */
	uint32_t release;	 /* of it; 0: nothing of ours, or unknown */
	const char *version;	 /* NULL: unknown */
	uint32_t installed;	 /* bundles: the last that was, also where nothing runs; 0: none */
	const char *stranger;	 /* who holds the port and was not started by baton; NULL */
	const struct bt_seen_foreign *foreign; /* more of it, where it was asked for; NULL */
	bool adopted;			       /* ours, but others started it */
	int pid;
	const char *identity; /* what the instance itself says; NULL */
	int64_t since_wall_ms;
	uint32_t connections; /* open to its port */
	enum bt_vital health;
	const char *unhealthy_why;
	bool in;		/* a balancer sends to it: it may hold requests */
	bool in_all;		/* every balancer does: nothing is missing */
	bool one;		/* … routes `to: one` too */
	uint32_t in_at, one_at; /* which ones do, a bit for each of scene.balancers; of no use where
				   each knows its own host only */
};

struct bt_scene_balancer { /* one of the service's */
	const char *on;
	const struct bt_seen_host *host;
	const struct bt_seen_balancer *seen;	   /* NULL: not set up yet */
	const struct bt_seen_member *other_member; /* in rotation and no slot of the service */
	const struct bt_seen_member *gone_member;  /* the same, on a host that is no longer one of
						      the service's; baton put it in */
};

struct bt_scene {
	const struct bt_service *service;
	const struct bt_seen_host **hosts; /* in the order of service->hosts */
	struct bt_place *places;	   /* host-major: index = host × n_slots + slot */
	size_t n_places;
	size_t n_in;			     /* places in rotation */
	struct bt_balancer_facts facts;	     /* of the service's balancer */
	struct bt_scene_balancer *balancers; /* in the order of facts.on */
	size_t n_balancers;		     /* 0: nobody sends requests there */
};

/* BT_E_REFUSED when a host of the service or its balancer has not reported, or an instance has no
 * address the balancer could use. Strings are borrowed from service and world. */
int bt_scene_look(const struct bt_service *s, const struct bt_world *w, struct bt_arena *a,
	struct bt_scene *ret, struct bt_err *err);

static inline bool bt_place_ours(const struct bt_place *p)
{
	return p->state != BT_RUN_ABSENT;
}
/* The release runs there; 0 means what others started does, adopted or not. */
bool bt_place_runs(const struct bt_place *p, uint32_t release);
/* The balancer sends to the place. */
bool bt_scene_in_at(const struct bt_scene *s, const struct bt_place *p, size_t balancer);
/* The balancer could: not where each knows its own host only, and this is another. */
bool bt_scene_knows(const struct bt_scene *s, const struct bt_place *p, size_t balancer);
const char *bt_scene_slot(const struct bt_scene *s, const struct bt_place *p);
const char *bt_scene_host(const struct bt_scene *s, const struct bt_place *p);
