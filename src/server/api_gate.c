/* Locks, freezes and the queue, as people ask for them (gate.h says what they mean). */
#include "base/clock.h"
#include "server/api.h"
#include "server/gate.h"
#include "server/run.h"

#include <string.h>

#define MAX_TICKETS 1000

/* A change that is answered, and known here, once it is durable. */
struct change {
	struct bt_server *server;
	struct bt_http_exchange *x;
	char *service, *who, *why; /* of a lock, a ticket */
	json_t *row;		   /* of a freeze */
	int64_t at;
	size_t op; /* the statement that returns a number */
	void (*known)(struct change *c, int64_t number);
};

static struct change *change_new(struct bt_server *s, struct bt_http_exchange *x,
	const char *service, const char *why, void (*known)(struct change *c, int64_t number))
{
	struct change *c = bt_calloc(1, sizeof *c);
	*c = (struct change){.server = s,
		.x = x,
		.service = bt_strdup(service),
		.who = bt_strdup(bt_who(x)->name),
		.why = bt_strdup(why),
		.at = bt_clock_wall_ms(),
		.known = known};
	return c;
}

static void on_committed(void *arg, const struct bt_txn *t, int result, const struct bt_err *err)
{
	struct change *c = arg;
	if (result == 0)
		c->known(c, bt_txn_value(t, c->op));
	else
		bt_http_reply_error(c->x, err);
	json_decref(c->row);
	free(c->service);
	free(c->who);
	free(c->why);
	free(c);
}

/* A reason that a person gave: something, and not a novel. */
static int read_why(const json_t *body, const char **ret, struct bt_err *err)
{
	int r = bt_json_str(body, "why", ret, err);
	if (r == 0 && (!**ret || strlen(*ret) > BT_WHY_MAX || strchr(*ret, '\n')))
		r = bt_err_set(err, BT_E_CONFIG,
			"why: expected the reason, in one line of at most %d characters",
			BT_WHY_MAX);
	return r;
}

/* ---- locks -------------------------------------------------------------------------------- */

static void locked(struct change *c, int64_t number)
{
	(void)number;
	bt_gate_set_lock(c->server, c->service, c->who, c->why, c->at);
	json_t *answer = json_object();
	bt_gate_put(c->server, answer, c->service);
	bt_http_reply_json(c->x, 200, answer);
}

static void unlocked(struct change *c, int64_t number)
{
	(void)number;
	bt_gate_set_lock(c->server, c->service, NULL, NULL, 0);
	bt_http_reply_json(c->x, 200, json_pack("{s:s}", "unlocked", c->service));
}

void bt_api_lock(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_svc *svc = bt_api_find_service(s, x);
	BT_JSON json_t *body = svc ? bt_api_body(x) : NULL;
	const char *why = NULL;
	struct bt_err err = {0};
	if (!body)
		return;
	int r = read_why(body, &why, &err);
	const struct bt_lock *l = bt_gate_lock(s, svc->name);
	if (r == 0 && l && strcmp(l->who, bt_who(x)->name) != 0)
		r = bt_err_set(&err, BT_E_EXISTS,
			"%s is locked by %s already: %s (`baton unlock %s` takes the lock off)",
			svc->name, l->who, l->why, svc->name);
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	struct change *c = change_new(s, x, svc->name, why, locked);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_LOCK_PUT, svc->name, c->who, why, c->at);
	bt_api_audit_add(t, x, svc->name, "lock", why);
	bt_store_commit(s->store, t, on_committed, c);
}

void bt_api_unlock(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_svc *svc = bt_api_find_service(s, x);
	if (!svc)
		return;
	const struct bt_lock *l = bt_gate_lock(s, svc->name);
	if (!l) {
		bt_api_error(x, BT_E_NOTFOUND, "%s is not locked", svc->name);
		return;
	}
	BT_FREE char *was = bt_asprintf("%s: %s", l->who, l->why);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_LOCK_REMOVE, svc->name);
	bt_api_audit_add(t, x, svc->name, "unlock", was);
	bt_store_commit(s->store, t, on_committed, change_new(s, x, svc->name, NULL, unlocked));
}

/* ---- freezes ------------------------------------------------------------------------------ */

static json_t *freeze_json(const struct bt_freeze *f)
{
	json_t *o = json_pack("{s:I, s:s, s:s, s:s, s:s, s:O*}", "id", (json_int_t)f->id, "during",
		f->during, "zone", f->zone, "why", f->why, "by", f->who, "services", f->services);
	bt_api_set_time(o, "created_at", f->created_at);
	return o;
}

void bt_api_freezes(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	json_t *list = json_array();
	for (const struct bt_freeze *f = s->gate->freezes; f; f = f->next)
		json_array_append_new(list, freeze_json(f));
	bt_http_reply_json(x, 200, json_pack("{s:o}", "freezes", list));
}

static void frozen(struct change *c, int64_t number)
{
	struct bt_err err;
	json_object_set_new(c->row, "id", json_integer(number));
	(void)bt_gate_add_freeze(c->server, c->row, &err); /* it was read once before */
	bt_http_reply_json(c->x, 200, json_pack("{s:I}", "id", (json_int_t)number));
}

void bt_api_freeze_add(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	BT_JSON json_t *body = bt_api_body(x), *scope = NULL;
	const char *during = NULL, *zone = "local", *why = NULL;
	struct bt_window w;
	struct bt_err err;
	int minutes;
	if (!body)
		return;
	int r = bt_json_str(body, "during", &during, &err);
	if (r == 0 && (r = bt_window_parse(during, &w, &err)) < 0)
		bt_err_wrap(&err, "during");
	if (r == 0)
		r = bt_json_str_opt(body, "zone", &zone, &err);
	if (r == 0 && strcmp(zone, "local") != 0 && (r = bt_zone_parse(zone, &minutes, &err)) < 0)
		bt_err_wrap(&err, "zone");
	if (r == 0)
		r = read_why(body, &why, &err);
	if (r == 0)
		r = bt_scope_read(body, &scope, &err);
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	BT_FREE char *scope_text = scope ? bt_json_dump(scope) : NULL;
	struct change *c = change_new(s, x, NULL, NULL, frozen);
	c->row = json_pack("{s:s, s:s, s:s, s:s, s:s*, s:I}", "during", during, "zone", zone, "why",
		why, "who", c->who, "services", scope_text, "created_at", (json_int_t)c->at);
	struct bt_txn *t = bt_txn_new();
	c->op = bt_txn_add(
		t, BT_SQL_FREEZE_ADD, scope_text, during, zone, why, (const char *)c->who, c->at);
	BT_FREE char *detail = bt_asprintf("%s: %s", during, why);
	bt_api_audit_add(t, x, NULL, "freeze", detail);
	bt_store_commit(s->store, t, on_committed, c);
}

static void thawed(struct change *c, int64_t number)
{
	(void)number;
	bt_gate_drop_freeze(c->server, json_integer_value(json_object_get(c->row, "id")));
	bt_http_reply_json(c->x, 200, json_incref(c->row));
}

static bool number_of(struct bt_http_exchange *x, const char *name, int64_t *ret)
{
	const char *text = bt_http_param(x, name);
	if (bt_int_parse(text, 1, INT64_MAX, ret, NULL) == 0)
		return true;
	bt_api_error(x, BT_E_NOTFOUND, "no %s '%.40s'", name, text);
	return false;
}

void bt_api_freeze_remove(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	int64_t id;
	if (!number_of(x, "freeze", &id))
		return;
	const struct bt_freeze *f = s->gate->freezes;
	while (f && f->id != id)
		f = f->next;
	if (!f) {
		bt_api_error(x, BT_E_NOTFOUND, "no freeze %lld", (long long)id);
		return;
	}
	struct change *c = change_new(s, x, NULL, NULL, thawed);
	c->row = json_pack("{s:I}", "id", (json_int_t)id);
	struct bt_txn *t = bt_txn_new();
	bt_txn_add(t, BT_SQL_FREEZE_REMOVE, id);
	BT_FREE char *detail = bt_asprintf("%s: %s", f->during, f->why);
	bt_api_audit_add(t, x, NULL, "unfreeze", detail);
	bt_store_commit(s->store, t, on_committed, c);
}

/* ---- the queue ---------------------------------------------------------------------------- */

static json_t *ticket_json(struct bt_server *s, const struct bt_ticket *t)
{
	struct bt_err err = {0};
	int place = bt_gate_place(s, t);
	bool busy = bt_run_lease_free(s, t->service, &err) < 0;
	json_t *o = json_pack("{s:I, s:i, s:b}", "ticket", (json_int_t)t->id, "place", place,
		"ready", place == 1 && !busy);
	if (busy)
		json_object_set_new(o, "waits_for", json_string(err.text));
	return o;
}

static void queued(struct change *c, int64_t number)
{
	bt_http_reply_json(c->x, 200,
		ticket_json(c->server,
			bt_gate_add_ticket(c->server, number, c->service, c->who, c->at)));
}

void bt_api_queue(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	const char *service = bt_http_param(x, "service");
	struct bt_err err;
	int r = bt_who_may(bt_who(x), service, &err);
	size_t n = 0;
	for (const struct bt_ticket *t = s->gate->tickets; t; t = t->next)
		n++;
	if (r == 0 && n >= MAX_TICKETS)
		r = bt_err_set(&err, BT_E_REFUSED, "%d wait in the queues already", MAX_TICKETS);
	if (r == 0 && !bt_service_name_valid(service))
		r = bt_err_set(&err, BT_E_NOTFOUND, "'%.80s' is no name of a service", service);
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	struct change *c = change_new(s, x, service, NULL, queued);
	struct bt_txn *t = bt_txn_new();
	c->op = bt_txn_add(t, BT_SQL_TICKET_ADD, service, (const char *)c->who, c->at);
	bt_store_commit(s->store, t, on_committed, c);
}

/* The caller's own ticket; else answers and returns NULL. */
static struct bt_ticket *find_ticket(struct bt_server *s, struct bt_http_exchange *x)
{
	struct bt_err err;
	int64_t id;
	if (bt_who_may(bt_who(x), bt_http_param(x, "service"), &err) < 0) {
		bt_http_reply_error(x, &err);
		return NULL;
	}
	if (!number_of(x, "ticket", &id))
		return NULL;
	struct bt_ticket *t = bt_gate_ticket(s, id);
	if (t && strcmp(t->service, bt_http_param(x, "service")) == 0 &&
		strcmp(t->who, bt_who(x)->name) == 0)
		return t;
	bt_api_error(x, BT_E_NOTFOUND,
		"ticket %lld is not in the queue of %.80s: nobody asked after it for a while",
		(long long)id, bt_http_param(x, "service"));
	return NULL;
}

void bt_api_queue_ticket(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_ticket *t = find_ticket(s, x);
	if (!t)
		return;
	t->seen_boot_ms = bt_clock_boot_ms();
	bt_http_reply_json(x, 200, ticket_json(s, t));
}

void bt_api_queue_leave(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_ticket *t = find_ticket(s, x);
	if (!t)
		return;
	bt_gate_leave(s, t->id);
	bt_http_reply_json(x, 200, json_pack("{s:b}", "left", 1));
}
