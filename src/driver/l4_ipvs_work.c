/* Made in an order in which a crash at any point leaves at least the old or the new members in:
 * what was there is remembered on disk, then those who come are let in, then those who go get
 * weight 0. To do it again is to find less to do. */
#include "driver/l4_ipvs_work.h"

#include "driver/l4_ipvs_checks.h"
#include "driver/l4_ipvs_link.h"

#include <string.h>

#define GONE                                                                                       \
	"virtual service %s port %u is gone: keepalived, or who else made it, has to make it "     \
	"again (or remove %s, and it is made here)"

struct working {
	const struct bt_ipvs_task *task;
	struct bt_ipvs_link link;
	struct bt_ipvs_service service; /* which one; after finding it, as it is */
	bool there, made;
	struct bt_ipvs_dest *dests;
	size_t n_dests;
	struct bt_ipvs_want want;
	struct bt_ipvs_memory memory;
};

/* ---- what is wanted -------------------------------------------------------------------------- */

static int parse_member(const struct working *w, const struct bt_pool_member *m,
	struct bt_ipvs_member *ret, struct bt_err *err)
{
	bool v6 = w->service.address.family == AF_INET6;
	*ret = (struct bt_ipvs_member){
		.port = m->port, .in = m->in, .slot = m->slot, .host = m->host};
	int r = bt_ipvs_address_parse(m->address, &ret->address, err);
	if (r < 0)
		return bt_err_wrap(err, "address of host %s (its agent's --address)", m->host);
	if (ret->address.family != w->service.address.family)
		return bt_err_set(err, BT_E_CONFIG,
			"address %s of host %s (its agent's --address): expected an IPv%d address "
			"as vip %s is",
			m->address, m->host, v6 ? 6 : 4, w->task->vip);
	return 0;
}

static int parse(struct working *w, struct bt_err *err)
{
	const struct bt_ipvs_task *t = w->task;
	int r = bt_ipvs_address_parse(t->vip, &w->service.address, err);
	if (r < 0)
		return bt_err_wrap(err, "vip");
	w->service.port = t->port;
	snprintf(w->service.scheduler, sizeof w->service.scheduler, "%s", t->scheduler);
	struct bt_ipvs_member *members =
		BT_ARENA_ARRAY(t->arena, struct bt_ipvs_member, t->n_members + 1);
	for (size_t i = 0; r == 0 && i < t->n_members; i++) {
		r = parse_member(w, &t->members[i], &members[i], err);
		members[i].fresh = t->fresh && t->fresh[i];
	}
	w->want = (struct bt_ipvs_want){
		.vip = w->service.address,
		.port = t->port,
		.members = members,
		.n_members = t->n_members,
		.again = !t->fresh,
		.weight = t->weight,
		.forward = t->mode == BT_L4_DSR ? IP_VS_CONN_F_DROUTE : IP_VS_CONN_F_MASQ,
	};
	return r;
}

static int read_dests(struct working *w, struct bt_err *err)
{
	return bt_ipvs_dests(&w->link, &w->service, w->task->arena, &w->dests, &w->n_dests, err);
}

static int find(struct working *w, struct bt_err *err)
{
	struct bt_ipvs_service found = w->service;
	int r = bt_ipvs_service(&w->link, &w->service, &found, err);
	w->there = r == 0;
	if (w->there)
		w->service = found;
	if (r == 0)
		r = read_dests(w, err);
	if (r >= 0)
		r = bt_ipvs_memory_load(w->task->memory_path, w->task->arena, &w->memory, err);
	if (r < 0)
		return r;
	bt_ipvs_memory_keep(&w->memory, &w->service);
	w->want.adopted = bt_ipvs_memory_adopted(&w->memory, w->there);
	return 0;
}

/* ---- making it so ---------------------------------------------------------------------------- */

static void tell(const struct bt_ipvs_change *c, struct bt_str *told)
{
	char a[46];
	const char *at = bt_ipvs_address_text(&c->to.address, a);
	if (c->command == IPVS_CMD_NEW_DEST)
		bt_str_addf(told, "real server %s port %u: made, weight %lld\n", at, c->to.port,
			(long long)c->to.weight);
	else if (c->command == IPVS_CMD_DEL_DEST)
		bt_str_addf(told, "real server %s port %u: no longer of the service, taken away\n",
			at, c->to.port);
	else
		bt_str_addf(told, "real server %s port %u: weight %lld, was %lld\n", at, c->to.port,
			(long long)c->to.weight, (long long)c->from.weight);
}

static int change(struct working *w, const struct bt_ipvs_change *c, struct bt_err *err)
{
	return bt_ipvs_do(&w->link, c->command, &w->service, &c->to, err);
}

/* One that was made may have been given a connection already, so it stays with weight 0; the memory
 * says that it is ours. */
static int change_back(struct working *w, const struct bt_ipvs_change *c, struct bt_err *err)
{
	bool made = c->command == IPVS_CMD_NEW_DEST, gone = c->command == IPVS_CMD_DEL_DEST;
	struct bt_ipvs_dest to = made ? c->to : c->from;
	to.weight = made ? 0 : to.weight;
	return bt_ipvs_do(
		&w->link, gone ? IPVS_CMD_NEW_DEST : IPVS_CMD_SET_DEST, &w->service, &to, err);
}

/* What was changed is changed back, the last first. `err` holds why, and then also what stayed. */
static void undo(struct working *w, const struct bt_ipvs_plan *p, size_t n, struct bt_err *err)
{
	struct bt_err second = {0}, why = *err;
	int r = 0;
	if (w->made)
		r = bt_ipvs_do(&w->link, IPVS_CMD_DEL_SERVICE, &w->service, NULL, &second);
	while (!w->made && n-- > 0)
		if (change_back(w, &p->changes[n], r < 0 ? NULL : &second) < 0)
			r = -1;
	if (r < 0)
		bt_err_set(err, why.code, "%s; and then: %s", why.text, second.text);
}

static int confirm(struct working *w, struct bt_err *err)
{
	int r = read_dests(w, err);
	if (r < 0)
		return r;
	const struct bt_ipvs_member *m =
		bt_ipvs_differs(&w->want, w->dests, w->n_dests, &w->memory);
	return m ? bt_err_set(err, BT_E_FAILED,
			   "%s/%s was put %s rotation and is not: does another program write to "
			   "virtual service %s port %u (keepalived, ipvsadm)?",
			   m->host, m->slot, m->in ? "into" : "out of", w->task->vip, w->task->port)
		 : 0;
}

/* 1: somebody is, whom err names. */
static int awaits(const struct working *w, struct bt_err *err)
{
	char text[46];
	const struct bt_ipvs_member *m =
		bt_ipvs_awaited(&w->want, w->dests, w->n_dests, &w->memory);
	if (!m)
		return 0;
	if (w->there)
		bt_err_set(err, BT_E_FAILED,
			"virtual service %s port %u has no connections for real server %s port %u "
			"(%s/%s): keepalived, or who else made it, has to put it back",
			w->task->vip, w->task->port, bt_ipvs_address_text(&m->address, text),
			m->port, m->host, m->slot);
	else
		bt_err_set(
			err, BT_E_FAILED, GONE, w->task->vip, w->task->port, w->task->memory_path);
	return 1;
}

static int make_service(struct working *w, struct bt_str *told, struct bt_err *err)
{
	if (w->there || w->want.adopted)
		return 0;
	int r = bt_ipvs_do(&w->link, IPVS_CMD_NEW_SERVICE, &w->service, NULL, err);
	w->made = r == 0;
	if (w->made)
		bt_str_addf(told, "virtual service %s port %u: made, scheduler %s\n", w->task->vip,
			w->task->port, w->task->scheduler);
	return r;
}

static int make(struct working *w, struct bt_str *told, struct bt_err *err)
{
	struct bt_ipvs_plan plan;
	size_t done = 0;
	int r = find(w, err);
	if (r == 0)
		r = awaits(w, err);
	if (r != 0)
		return r;
	bt_ipvs_plan(&w->want, w->dests, w->n_dests, &w->memory, w->task->arena, &plan);
	if (plan.remembers)
		r = bt_ipvs_memory_save(w->task->memory_path, &plan.memory, err);
	if (r == 0)
		r = make_service(w, told, err);
	for (; r == 0 && done < plan.n_changes; done += r == 0) {
		r = change(w, &plan.changes[done], err);
		if (r == 0)
			tell(&plan.changes[done], told);
	}
	w->memory = plan.memory;
	if (r == 0)
		r = confirm(w, err);
	if (r < 0)
		undo(w, &plan, done, err);
	return r < 0 ? r : awaits(w, err);
}

int bt_ipvs_make(const struct bt_ipvs_task *t, struct bt_str *told, struct bt_err *err)
{
	BT_FREE struct working *w = bt_calloc(1, sizeof *w);
	w->task = t;
	int r = parse(w, err);
	if (r == 0)
		r = bt_ipvs_open(&w->link, err);
	if (r < 0)
		return r;
	r = make(w, told, err);
	bt_ipvs_close(&w->link);
	return r;
}

/* ---- looking --------------------------------------------------------------------------------- */

static const char *forward_name(uint32_t forward)
{
	static const char *const names[] = {"masquerading", "local", "tunneling", "direct routing"};
	return forward < BT_ARRAY_LEN(names) ? names[forward] : "unknown";
}

static bool fits(enum bt_l4_mode mode, uint32_t forward)
{
	return forward == IP_VS_CONN_F_LOCALNODE ||
	       (forward == IP_VS_CONN_F_MASQ) == (mode == BT_L4_NAT);
}

/* An IPv6 VIP is often preferred to the host's own address, since its prefix is the longest. */
static void check_source(const struct working *w, struct bt_str *trouble)
{
	const struct bt_ipvs_address *vip = &w->service.address;
	for (size_t i = 0; i < w->want.n_members && w->task->mode == BT_L4_DSR; i++) {
		if (!bt_ipvs_asks_from(vip, &w->want.members[i].address))
			continue;
		bt_str_addf(trouble,
			"%sthis host asks %s from vip %s, which that host has, too: its answers do "
			"not come back (for IPv6: ip addr change %s/128 dev … preferred_lft 0)",
			trouble->len ? "; " : "", w->task->members[i].address, w->task->vip,
			w->task->vip);
		return;
	}
}

static void check_away(const struct working *w, struct bt_str *trouble)
{
	for (size_t i = 0; w->there && i < w->want.n_members; i++) {
		const struct bt_ipvs_member *m = &w->want.members[i];
		if (bt_ipvs_is_away(&w->want, m, w->dests, w->n_dests, &w->memory))
			bt_str_addf(trouble,
				"%s%s/%s is in rotation and gets nothing: keepalived, or who else "
				"made the virtual service, has removed its real server or put it "
				"at weight 0",
				trouble->len ? "; " : "", m->host, m->slot);
	}
}

static void check(const struct working *w, struct bt_str *trouble)
{
	const struct bt_ipvs_task *t = w->task;
	char text[46];
	if (w->want.adopted && !w->there)
		bt_str_addf(trouble, GONE, t->vip, t->port, t->memory_path);
	check_away(w, trouble);
	bt_ipvs_check_settings(t->proc, &w->service, t->mode, trouble);
	if (t->only && !bt_ipvs_is_local(&w->service.address))
		bt_str_addf(trouble,
			"%svip %s is no address of this host: packets to it do not reach IPVS",
			trouble->len ? "; " : "", t->vip);
	check_source(w, trouble);
	for (size_t i = 0; i < w->n_dests; i++)
		if (!fits(t->mode, w->dests[i].forward)) {
			bt_str_addf(trouble,
				"%sreal server %s port %u is reached by %s, and traffic.ipvs.mode "
				"is %s",
				trouble->len ? "; " : "",
				bt_ipvs_address_text(&w->dests[i].address, text), w->dests[i].port,
				forward_name(w->dests[i].forward),
				bt_enum_name(&bt_enum_l4_mode, (int)t->mode));
			return; /* the others are most often the same */
		}
}

static bool is_at(const struct bt_ipvs_member *m, const struct bt_ipvs_dest *d)
{
	return m->port == d->port && bt_ipvs_address_equal(&m->address, &d->address);
}

/* Open connections are the established ones. `inactive` are in their handshake or closed and
 * waiting out their timers, `persistent` are templates by which a client finds its server again:
 * nobody waits for an answer over either. */
static void tell_dest(const struct working *w, const struct bt_ipvs_dest *d,
	const struct bt_ipvs_member *of, struct bt_ipvs_found *ret)
{
	char text[46];
	bool away = of && bt_ipvs_is_away(&w->want, of, w->dests, w->n_dests, &w->memory);
	ret->members[ret->n_members++] = (struct bt_seen_member){
		.address = bt_arena_strdup(w->task->arena, bt_ipvs_address_text(&d->address, text)),
		.port = d->port,
		.in = d->weight > 0 || away,
		.counted = true,
		.connections = d->active,
		.host = of ? of->host : NULL,
		.slot = of ? of->slot : NULL,
	};
}

/* Who is away is in by all that it was told, as a server that haproxy finds down is: taken for out,
 * it would be out by the next plan's word, too. */
static void tell_members(const struct working *w, struct bt_ipvs_found *ret)
{
	struct bt_arena *a = w->task->arena;
	size_t n_of = w->want.n_members, n = w->n_dests + n_of + 1;
	BT_FREE bool *told = bt_calloc(n, sizeof *told);
	ret->members = BT_ARENA_ARRAY(a, struct bt_seen_member, n);
	for (size_t i = 0; i < w->n_dests; i++) {
		size_t k = 0;
		while (k < n_of && !is_at(&w->want.members[k], &w->dests[i]))
			k++;
		told[k] = k < n_of;
		tell_dest(w, &w->dests[i], k < n_of ? &w->want.members[k] : NULL, ret);
	}
	for (size_t k = 0; k < n_of; k++) {
		const struct bt_ipvs_member *m = &w->want.members[k];
		struct bt_ipvs_dest none = {.address = m->address, .port = m->port};
		if (!told[k] && bt_ipvs_is_away(&w->want, m, w->dests, w->n_dests, &w->memory))
			tell_dest(w, &none, m, ret);
	}
}

static int look(struct working *w, struct bt_ipvs_found *ret, struct bt_err *err)
{
	BT_STR struct bt_str trouble = {0};
	int r = find(w, err);
	if (r < 0)
		return r;
	ret->there = w->there;
	ret->adopted = w->want.adopted;
	ret->packets = w->service.packets;
	tell_members(w, ret);
	check(w, &trouble);
	ret->trouble = trouble.len ? bt_arena_strdup(w->task->arena, bt_str_get(&trouble)) : NULL;
	return 0;
}

int bt_ipvs_look(const struct bt_ipvs_task *t, struct bt_ipvs_found *ret, struct bt_err *err)
{
	BT_FREE struct working *w = bt_calloc(1, sizeof *w);
	struct bt_ipvs_found found = {0};
	struct bt_err why = {0};
	w->task = t;
	int r = parse(w, &why);
	bool asked = r == 0;
	if (asked)
		r = bt_ipvs_open(&w->link, &why);
	if (r == 0) {
		r = look(w, &found, &why);
		bt_ipvs_close(&w->link);
	}
	if (r == BT_E_CONFIG || r == BT_E_NOTFOUND || r == BT_E_REFUSED) {
		found.refuses = bt_arena_strdup(t->arena, why.text);
		r = 0;
	}
	if (r < 0) {
		if (err)
			*err = why;
		return r;
	}
	*ret = found;
	return 0;
}
