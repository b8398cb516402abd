/* Made in an order in which a crash at any point leaves at least the old or the new members in:
 * what was there is remembered on disk, then those who come are let in, then those who go get
 * weight 0. To do it again is to find less to do. */
#include "driver/l4_ipvs_work.h"

#include "base/fs.h"
#include "driver/l4_ipvs_checks.h"
#include "driver/l4_ipvs_link.h"

#include <errno.h>
#include <string.h>

#define MEMORY_FILE_MAX (1u << 20)

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
	for (size_t i = 0; r == 0 && i < t->n_members; i++)
		r = parse_member(w, &t->members[i], &members[i], err);
	w->want = (struct bt_ipvs_want){
		.members = members,
		.n_members = t->n_members,
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
	return r == 0 ? read_dests(w, err) : r < 0 ? r : 0;
}

/* ---- making it so ---------------------------------------------------------------------------- */

static int load_memory(struct working *w, struct bt_err *err)
{
	BT_FREE char *text = NULL;
	size_t n = 0;
	int r = bt_fs_read(w->task->memory_path, MEMORY_FILE_MAX, &text, &n, err);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = bt_ipvs_memory_parse(text, n, w->task->arena, &w->memory, err);
	return r < 0 ? bt_err_wrap(err, "%s", w->task->memory_path) : 0;
}

static int save_memory(const struct working *w, const struct bt_ipvs_memory *m, struct bt_err *err)
{
	BT_FREE char *text = bt_ipvs_memory_dump(m);
	BT_FREE char *dir = bt_strdup(w->task->memory_path);
	char *slash = strrchr(dir, '/');
	if (slash)
		*slash = 0;
	int r = bt_fs_mkdirs(dir, 0700, err);
	return r < 0 ? r : bt_fs_write_atomic(w->task->memory_path, text, strlen(text), 0600, err);
}

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
	const struct bt_ipvs_member *m = bt_ipvs_differs(&w->want, w->dests, w->n_dests);
	return m ? bt_err_set(err, BT_E_FAILED,
			   "%s/%s was put %s rotation and is not: does another program write to "
			   "virtual service %s port %u (keepalived, ipvsadm)?",
			   m->host, m->slot, m->in ? "into" : "out of", w->task->vip, w->task->port)
		 : 0;
}

static int make_service(struct working *w, struct bt_str *told, struct bt_err *err)
{
	if (w->there)
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
		r = load_memory(w, err);
	if (r < 0)
		return r;
	bt_ipvs_plan(&w->want, w->dests, w->n_dests, &w->memory, w->task->arena, &plan);
	if (plan.remembers)
		r = save_memory(w, &plan.memory, err);
	if (r == 0)
		r = make_service(w, told, err);
	for (; r == 0 && done < plan.n_changes; done += r == 0) {
		r = change(w, &plan.changes[done], err);
		if (r == 0)
			tell(&plan.changes[done], told);
	}
	if (r == 0)
		r = confirm(w, err);
	if (r < 0)
		undo(w, &plan, done, err);
	return r;
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

static void check(const struct working *w, struct bt_str *trouble)
{
	const struct bt_ipvs_task *t = w->task;
	char text[46];
	bt_ipvs_check_settings(t->proc, &w->service, t->mode, trouble);
	if (t->only && !bt_ipvs_is_local(&w->service.address))
		bt_str_addf(trouble,
			"%svip %s is no address of this host: packets to it do not reach IPVS",
			trouble->len ? "; " : "", t->vip);
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

/* Open connections are the established ones. `inactive` are in their handshake or closed and
 * waiting out their timers, `persistent` are templates by which a client finds its server again:
 * nobody waits for an answer over either. */
static void tell_members(const struct working *w, struct bt_ipvs_found *ret)
{
	struct bt_arena *a = w->task->arena;
	char text[46];
	ret->members = BT_ARENA_ARRAY(a, struct bt_seen_member, w->n_dests + 1);
	for (size_t i = 0; i < w->n_dests; i++) {
		const struct bt_ipvs_dest *d = &w->dests[i];
		struct bt_seen_member *m = &ret->members[ret->n_members++];
		*m = (struct bt_seen_member){
			.address = bt_arena_strdup(a, bt_ipvs_address_text(&d->address, text)),
			.port = d->port,
			.in = d->weight > 0,
			.counted = true,
			.connections = d->active,
		};
		for (size_t k = 0; k < w->want.n_members; k++) {
			const struct bt_ipvs_member *of = &w->want.members[k];
			if (of->port != d->port ||
				!bt_ipvs_address_equal(&of->address, &d->address))
				continue;
			m->host = of->host;
			m->slot = of->slot;
		}
	}
}

static int look(struct working *w, struct bt_ipvs_found *ret, struct bt_err *err)
{
	BT_STR struct bt_str trouble = {0};
	int r = find(w, err);
	if (r < 0)
		return r;
	ret->there = w->there;
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
