/* What the agent knows without its server: every service it was told of, and what should run and
 * be served on this host. Kept in services/<name>.json and desired/<name>.json (0600: it holds the
 * secrets of the slots, which a restart of an old release needs, and those that the API of a
 * balancer wants, which is asked while the server is away, too), so that an agent that starts
 * while the server is away knows what to look at and what to keep. */
#pragma once
#include "agent/ledger_file.h"
#include "agent/redact.h"
#include "config/config.h"
#include <jansson.h>

struct bt_wanted_slot {
	char *slot;
	uint16_t port;
	uint32_t release;
	bool run;	 /* should run; false: was stopped on purpose */
	json_t *secrets; /* object name → value; NULL: none */
};
struct bt_wanted_balancer {
	char *name;
	uint64_t generation; /* highest accepted */
	json_t *secrets;     /* object name → value, of those that its API wants; NULL: none */
};
/* Whether the host shall hold the service's addresses, and which those are: a later config may
 * name others. */
struct bt_wanted_loopback {
	bool told; /* a LoopbackStop or a LoopbackStart was here */
	bool on;
	char *interface;
	char **vips;
	size_t n_vips;
};
struct bt_known_service {
	char *name;
	struct bt_config *config; /* NULL: only desired state is known */
	const struct bt_service *service;
	char *text; /* canonical JSON */
	struct bt_wanted_slot *slots;
	size_t n_slots;
	struct bt_wanted_balancer *balancers;
	size_t n_balancers;
	struct bt_wanted_loopback loopback;
};

struct bt_known;
/* Reads both directories (making them); a file that cannot be read is BT_E_CORRUPT. Writes go by
 * the ledger's thread, so they are on disk before any ledger entry appended after them.
 * on_failed: a write failed (it is tried again with the next change). */
int bt_known_load(const char *state_dir, struct bt_ledger_file *ledger, struct bt_redact *redact,
	void (*on_failed)(const struct bt_err *err), struct bt_known **ret, struct bt_err *err);
struct bt_known *bt_known_free(struct bt_known *k); /* NULL is fine; returns NULL */

size_t bt_known_count(const struct bt_known *k);
const struct bt_known_service *bt_known_at(const struct bt_known *k, size_t i);
const struct bt_known_service *bt_known_find(const struct bt_known *k, const char *name);
/* Canonical JSON of a service, from a command. */
int bt_known_learn(struct bt_known *k, const json_t *service, struct bt_err *err);
/* secrets NULL: as they were. */
void bt_known_want_slot(struct bt_known *k, const char *service, const char *slot, uint16_t port,
	uint32_t release, bool run, json_t *secrets);
/* secrets NULL: as they were. */
void bt_known_want_balancer(struct bt_known *k, const char *service, const char *name,
	uint64_t generation, json_t *secrets);
/* The value of a secret that the API of the service's balancer wants; NULL: not known. */
const char *bt_known_balancer_secret(
	const struct bt_known *k, const char *service, const char *name);
void bt_known_want_loopback(
	struct bt_known *k, const char *service, const struct bt_loopback *l, bool on);
/* What was wanted last, as a config says it (borrowed, arena); no vips: nothing is wanted there. */
struct bt_loopback bt_known_loopback(const struct bt_known_service *s, struct bt_arena *a);
/* Another service than this one that wants the address on this host; NULL: none does. */
const char *bt_known_holder(const struct bt_known *k, const char *service, const char *vip);
const struct bt_wanted_slot *bt_known_slot(
	const struct bt_known *k, const char *service, const char *slot);
