#include "server/gate.h"

#include "base/clock.h"
#include "server/api.h"

#include <string.h>
#include <time.h>

#define TICKET_MS 10000 /* who waits asks every second; this long without, and it has left */
#define GRACE_MS 30000	/* after a start of the server */

/* ---- keeping ------------------------------------------------------------------------------ */

static struct bt_lock **find_lock(struct bt_gate *g, const char *service)
{
	struct bt_lock **p = &g->locks;
	while (*p && strcmp((*p)->service, service) != 0)
		p = &(*p)->next;
	return p;
}

static void drop_lock(struct bt_lock **p)
{
	struct bt_lock *l = *p;
	if (!l)
		return;
	*p = l->next;
	free(l->service);
	free(l->who);
	free(l->why);
	free(l);
}

void bt_gate_set_lock(
	struct bt_server *s, const char *service, const char *who, const char *why, int64_t since)
{
	drop_lock(find_lock(s->gate, service));
	if (!why)
		return;
	struct bt_lock *l = bt_calloc(1, sizeof *l);
	*l = (struct bt_lock){
		s->gate->locks, bt_strdup(service), bt_strdup(who), bt_strdup(why), since};
	s->gate->locks = l;
}

static void free_freeze(struct bt_freeze *f)
{
	json_decref(f->services);
	free(f->during);
	free(f->zone);
	free(f->why);
	free(f->who);
	free(f);
}

static const char *text_of(const json_t *row, const char *key)
{
	const char *t = json_string_value(json_object_get(row, key));
	return t ? t : "";
}

int bt_gate_add_freeze(struct bt_server *s, const json_t *row, struct bt_err *err)
{
	struct bt_freeze *f = bt_calloc(1, sizeof *f), **p = &s->gate->freezes;
	const char *scope = json_string_value(json_object_get(row, "services"));
	*f = (struct bt_freeze){
		.id = json_integer_value(json_object_get(row, "id")),
		.created_at = json_integer_value(json_object_get(row, "created_at")),
		.services = scope ? json_loads(scope, 0, NULL) : NULL,
		.during = bt_strdup(text_of(row, "during")),
		.zone = bt_strdup(text_of(row, "zone")),
		.why = bt_strdup(text_of(row, "why")),
		.who = bt_strdup(text_of(row, "who")),
	};
	f->local = strcmp(f->zone, "local") == 0;
	int r = bt_window_parse(f->during, &f->window, err);
	if (r == 0 && !f->local)
		r = bt_zone_parse(f->zone, &f->zone_min, err);
	if (r < 0) {
		free_freeze(f);
		return r;
	}
	while (*p)
		p = &(*p)->next;
	*p = f;
	return 0;
}

bool bt_gate_drop_freeze(struct bt_server *s, int64_t id)
{
	for (struct bt_freeze **p = &s->gate->freezes; *p; p = &(*p)->next)
		if ((*p)->id == id) {
			struct bt_freeze *f = *p;
			*p = f->next;
			free_freeze(f);
			return true;
		}
	return false;
}

struct bt_ticket *bt_gate_add_ticket(
	struct bt_server *s, int64_t id, const char *service, const char *who, int64_t since)
{
	struct bt_ticket *t = bt_calloc(1, sizeof *t), **p = &s->gate->tickets;
	*t = (struct bt_ticket){.id = id,
		.since = since,
		.service = bt_strdup(service),
		.who = bt_strdup(who),
		.seen_boot_ms = bt_clock_boot_ms()};
	while (*p && (*p)->id < id)
		p = &(*p)->next;
	t->next = *p;
	*p = t;
	return t;
}

struct bt_ticket *bt_gate_ticket(struct bt_server *s, int64_t id)
{
	struct bt_ticket *t = s->gate->tickets;
	while (t && t->id != id)
		t = t->next;
	return t;
}

static void drop_ticket(struct bt_ticket **p)
{
	struct bt_ticket *t = *p;
	*p = t->next;
	free(t->service);
	free(t->who);
	free(t);
}

void bt_gate_leave(struct bt_server *s, int64_t ticket)
{
	for (struct bt_ticket **p = &s->gate->tickets; *p; p = &(*p)->next)
		if ((*p)->id == ticket) {
			struct bt_txn *t = bt_txn_new();
			drop_ticket(p);
			bt_txn_add(t, BT_SQL_TICKET_REMOVE, ticket);
			bt_store_commit(s->store, t, NULL, NULL);
			return;
		}
}

void bt_gate_begun(struct bt_server *s, int64_t ticket, const char *service, const char *who)
{
	const struct bt_ticket *t = bt_gate_ticket(s, ticket);
	if (t && strcmp(t->service, service) == 0 && strcmp(t->who, who) == 0)
		bt_gate_leave(s, ticket);
}

void bt_gate_tick(struct bt_server *s)
{
	int64_t now = bt_clock_boot_ms();
	for (struct bt_ticket *t = s->gate->tickets, *next; t; t = next) {
		next = t->next;
		if (now - t->seen_boot_ms > TICKET_MS)
			bt_gate_leave(s, t->id);
	}
}

int bt_gate_load(struct bt_server *s, struct bt_err *err)
{
	BT_JSON json_t *locks = NULL, *freezes = NULL, *tickets = NULL;
	size_t i;
	json_t *row;
	s->gate = bt_calloc(1, sizeof *s->gate);
	int r = bt_store_select(s->store, &locks, err, BT_SQL_LOCKS);
	json_array_foreach (locks, i, row)
		bt_gate_set_lock(s, text_of(row, "service"), text_of(row, "who"),
			text_of(row, "why"), json_integer_value(json_object_get(row, "since")));
	if (r == 0)
		r = bt_store_select(s->store, &freezes, err, BT_SQL_FREEZES);
	json_array_foreach (freezes, i, row)
		if (r == 0)
			r = bt_gate_add_freeze(s, row, err);
	if (r == 0)
		r = bt_store_select(s->store, &tickets, err, BT_SQL_TICKETS);
	json_array_foreach (tickets, i, row)
		bt_gate_add_ticket(s, json_integer_value(json_object_get(row, "id")),
			text_of(row, "service"), text_of(row, "who"),
			json_integer_value(json_object_get(row, "since")))
			->seen_boot_ms += GRACE_MS;
	return r;
}

void bt_gate_free(struct bt_server *s)
{
	struct bt_gate *g = s->gate;
	if (!g)
		return;
	while (g->locks)
		drop_lock(&g->locks);
	while (g->freezes)
		bt_gate_drop_freeze(s, g->freezes->id);
	while (g->tickets)
		drop_ticket(&g->tickets);
	free(BT_STEAL(s->gate));
}

/* ---- asking ------------------------------------------------------------------------------- */

const struct bt_lock *bt_gate_lock(const struct bt_server *s, const char *service)
{
	return *find_lock(s->gate, service);
}

/* Minutes ahead of UTC of the server's own clock at that moment. */
static int local_zone(int64_t wall_ms)
{
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;
	return localtime_r(&t, &tm) ? (int)(tm.tm_gmtoff / 60) : 0;
}

/* The freeze that holds now; *ret_until: "Fri 16:00-Mon 08:00" until when, for people. */
static const struct bt_freeze *freeze_of(
	const struct bt_server *s, const char *service, char ret_until[static 64])
{
	const struct bt_freeze *found = NULL;
	int64_t now = bt_clock_wall_ms(), last = 0;
	for (const struct bt_freeze *f = s->gate->freezes; f; f = f->next) {
		int zone = f->local ? local_zone(now) : f->zone_min;
		int64_t end = bt_window_end(&f->window, now, zone);
		if (end <= last || !bt_scope_covers(f->services, service))
			continue;
		found = f;
		last = end;
		bt_zone_time(end, zone, ret_until);
	}
	return found;
}

void bt_gate_put(const struct bt_server *s, json_t *service, const char *name)
{
	const struct bt_lock *l = bt_gate_lock(s, name);
	char until[64];
	const struct bt_freeze *f = freeze_of(s, name, until);
	if (l) {
		json_t *o = json_pack("{s:s, s:s}", "by", l->who, "why", l->why);
		bt_api_set_time(o, "since", l->since);
		json_object_set_new(service, "locked", o);
	}
	if (f)
		json_object_set_new(service, "frozen",
			json_pack("{s:I, s:s, s:s, s:s, s:s}", "id", (json_int_t)f->id, "during",
				f->during, "until", until, "by", f->who, "why", f->why));
}

int bt_gate_place(const struct bt_server *s, const struct bt_ticket *t)
{
	int place = 1;
	for (const struct bt_ticket *o = s->gate->tickets; o && o != t; o = o->next)
		place += strcmp(o->service, t->service) == 0;
	return place;
}

static int check_lock(const struct bt_server *s, const char *service, struct bt_err *err)
{
	char at[32];
	const struct bt_lock *l = bt_gate_lock(s, service);
	if (!l)
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"%s is locked by %s since %s: %s (`baton unlock %s` takes the lock off)", service,
		l->who, bt_clock_format(l->since, at), l->why, service);
}

static int check_freeze(const struct bt_server *s, const char *service, struct bt_err *err)
{
	char until[64];
	const struct bt_freeze *f = freeze_of(s, service, until);
	if (!f)
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"%s is frozen until %s: %s (freeze %lld of %s, %s; an admin may --force)", service,
		until, f->why, (long long)f->id, f->who, f->during);
}

/* Who comes without a ticket, or with a later one, lets those before go first. */
static int check_turn(struct bt_server *s, const char *service, const char *who, int64_t ticket,
	struct bt_err *err)
{
	for (const struct bt_ticket *t = s->gate->tickets; t; t = t->next) {
		if (strcmp(t->service, service) != 0)
			continue;
		if (t->id == ticket && strcmp(t->who, who) == 0)
			return 0;
		return bt_err_set(err, BT_E_LEASE,
			"others wait to deploy %s, and the turn is %s's: wait with --wait", service,
			t->who);
	}
	return 0;
}

int bt_gate_check(struct bt_server *s, struct bt_http_exchange *x, const char *service,
	const json_t *body, bool forward, struct bt_err *err)
{
	bool force = false;
	int64_t ticket = 0;
	int r = body ? bt_json_bool_opt(body, "force", &force, err) : 0;
	if (r == 0 && body)
		r = bt_json_int_opt(body, "ticket", 0, INT64_MAX, &ticket, err);
	if (r < 0)
		return r;
	r = check_lock(s, service, err);
	if (r == 0 && forward)
		r = check_freeze(s, service, err);
	if (r == BT_E_REFUSED && force && bt_who(x)->role < BT_AUTH_ADMIN)
		return bt_err_wrap(err, "only an admin may force past it");
	if (r == BT_E_REFUSED && force) {
		struct bt_txn *t = bt_txn_new();
		bt_server_audit(t, &(struct bt_audit){bt_who(x)->name, bt_who(x)->from, service,
					   "force", err->text});
		bt_store_commit(s->store, t, NULL, NULL);
		r = 0;
	}
	/* The way back waits for nobody. */
	return r < 0 || !forward ? r : check_turn(s, service, bt_who(x)->name, ticket, err);
}
