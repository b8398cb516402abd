/* traffic.nftables with what stands around it. */
#include "config/keys.h"

#include "base/str.h"

static void tell(struct bt_reading *r, const char *path, const char *text)
{
	const struct bt_node *at = bt_reading_at(r, path);
	at = at ? at : bt_reading_at(r, "traffic.nftables");
	bt_problem(r->sink, at ? at : r->node, "%s: %s", path, text);
}

/* The balancer takes every packet to the VIP off its way at the interface, so none could reach an
 * instance beside it. */
static void check_own_host(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	for (size_t i = 0; i < s->l4->n_on; i++)
		for (size_t k = 0; k < s->n_hosts; k++)
			if (bt_streq(s->l4->on[i], s->hosts[k])) {
				BT_FREE char *text = bt_asprintf(
					"%s runs instances, too: with dsr the balancer is a host "
					"of its own (or mode: nat)",
					s->hosts[k]);
				tell(r, "traffic.nftables.on", text);
			}
}

void bt_config_check_nft(struct bt_reading *r)
{
	static const char interface[] = "traffic.nftables.interface";
	const struct bt_l4 *l = r->l4;
	bool dsr = l->mode == BT_L4_DSR;
	bt_config_check_vip(r);
	if (dsr)
		check_own_host(r);
	if (dsr && !l->nftables.interface && !bt_reading_at(r, interface))
		tell(r, interface, "is missing: with dsr, expected where packets come in");
	if (!dsr && l->nftables.interface)
		tell(r, interface, "only with mode: dsr");
	if (dsr && !l->nftables.masquerade)
		tell(r, "traffic.nftables.masquerade", "only with mode: nat");
}
