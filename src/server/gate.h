/* Who may begin a run of a service now: locks and freezes that people set, and the queue of those
 * who wait for their turn. All of it is durable and survives a restart of the server; a run that is
 * on is not its business. */
#pragma once
#include "model/window.h"
#include "server/auth.h"

struct bt_lock { /* until somebody takes it off */
	struct bt_lock *next;
	char *service, *who, *why;
	int64_t since; /* wall ms */
};
struct bt_freeze { /* by the calendar */
	struct bt_freeze *next;
	int64_t id, created_at;
	json_t *services; /* scope (scope.h); NULL: all */
	char *during, *zone, *why, *who;
	struct bt_window window;
	int zone_min;
	bool local; /* on the server's own clock */
};
struct bt_ticket { /* of one who waits; in order of arrival */
	struct bt_ticket *next;
	int64_t id, since; /* wall ms */
	char *service, *who;
	int64_t seen_boot_ms; /* last heard of */
};
struct bt_gate {
	struct bt_lock *locks;
	struct bt_freeze *freezes;
	struct bt_ticket *tickets;
};

int bt_gate_load(struct bt_server *s, struct bt_err *err);
void bt_gate_free(struct bt_server *s);
void bt_gate_tick(struct bt_server *s); /* every second: tickets of those who went away */

/* May the caller of x begin a run? body: its "force" (an admin's, past lock and freeze) and
 * "ticket"; may be NULL. forward: a deployment; going back is not frozen, and waits for
 * nobody. BT_E_REFUSED says who,
 * why and how to go on, BT_E_LEASE whose turn it is. */
int bt_gate_check(struct bt_server *s, struct bt_http_exchange *x, const char *service,
	const json_t *body, bool forward, struct bt_err *err);
void bt_gate_leave(struct bt_server *s, int64_t ticket);
/* The caller's ticket for the service has had its turn; any other is left alone. */
void bt_gate_begun(struct bt_server *s, int64_t ticket, const char *service, const char *who);

const struct bt_lock *bt_gate_lock(const struct bt_server *s, const char *service);
/* "locked" and "frozen" of a service, where it is. */
void bt_gate_put(const struct bt_server *s, json_t *service, const char *name);
struct bt_ticket *bt_gate_ticket(struct bt_server *s, int64_t id);
int bt_gate_place(const struct bt_server *s, const struct bt_ticket *t); /* 1: it is next */

/* What api_gate.c adds once it is durable. Texts are copied. */
void bt_gate_set_lock(struct bt_server *s, const char *service, const char *who, const char *why,
	int64_t since); /* why NULL: takes it off */
int bt_gate_add_freeze(struct bt_server *s, const json_t *row, struct bt_err *err);
bool bt_gate_drop_freeze(struct bt_server *s, int64_t id);
struct bt_ticket *bt_gate_add_ticket(
	struct bt_server *s, int64_t id, const char *service, const char *who, int64_t since);
