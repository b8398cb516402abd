/* An address that clients ask, at a balancer that sends packets on to hosts: what holds for every
 * such family. */
#include "config/keys.h"

#include "base/str.h"

/* Direct server return changes no packet but for whom it goes to next, so it arrives for the VIP
 * and for the VIP's port. */
static void check_direct(struct bt_reading *r, const char *family)
{
	const struct bt_service *s = r->service;
	const struct bt_l4 *l = s->l4;
	BT_FREE char *path = bt_asprintf("traffic.%s.mode", family);
	const struct bt_node *at = bt_reading_at(r, path);
	if (s->run.n_slots > 1)
		bt_problem(r->sink, at ? at : r->node,
			"%s: with dsr packets arrive at the port that clients ask, so a host has "
			"one "
			"slot: expected 1 in run.slots, found %zu (or mode: nat)",
			path, s->run.n_slots);
	else if (s->run.n_slots == 1 && l->port && s->run.slots[0].port != l->port)
		bt_problem(r->sink, at ? at : r->node,
			"%s: with dsr packets arrive at the port that clients ask, %u: expected it "
			"as slot %s's, found %u (or mode: nat)",
			path, l->port, s->run.slots[0].name, s->run.slots[0].port);
}

void bt_config_check_vip(struct bt_reading *r)
{
	const struct bt_l4 *l = r->l4;
	const char *family = bt_enum_name(&bt_enum_balancer, (int)l->kind);
	BT_FREE char *group = bt_asprintf("traffic.%s", family);
	BT_FREE char *vip = bt_asprintf("%s.vip", group);
	const struct bt_node *at = bt_reading_at(r, group);
	if (!l->vip && bt_reading_at(r, vip))
		return; /* told where it stands */
	if (!l->vip)
		bt_problem(r->sink, at ? at : r->node,
			"%s: vip is missing: expected the address that clients ask, such as "
			"192.0.2.10",
			group);
	else if (!l->port)
		bt_problem(r->sink, at ? at : r->node,
			"%s: port is missing: expected the one that clients ask, since there are "
			"several slots",
			group);
	if (l->mode == BT_L4_DSR)
		check_direct(r, family);
}
