/* What only holds together in the config of an L4 balancer. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

static void tell(struct bt_reading *r, const char *path, const char *text)
{
	const struct bt_node *at = bt_reading_at(r, path);
	bt_problem(r->sink, at ? at : r->node, "%s: %s", path, text);
}

/* Every instance has a server of its own name. */
static void check_haproxy(struct bt_reading *r)
{
	static const char path[] = "traffic.haproxy.server";
	const struct bt_service *s = r->service;
	const char *server = s->l4->haproxy.server;
	if (!server)
		return;
	bool slot = strstr(server, "{slot}") || strstr(server, "{port}");
	if (s->run.n_slots > 1 && !slot)
		tell(r, path, "there are several slots: expected {slot} or {port} in it");
	if (s->n_hosts > 1 && !strstr(server, "{host}"))
		tell(r, path, "there are several hosts: expected {host} in it");
}

void bt_config_check_l4(struct bt_reading *r)
{
	if (r->l4->kind == BT_BALANCER_HAPROXY)
		check_haproxy(r);
	if (r->l4->kind == BT_BALANCER_NFTABLES)
		bt_config_check_nft(r);
	if (r->l4->kind == BT_BALANCER_IPVS)
		bt_config_check_vip(r);
	if (r->l4->kind == BT_BALANCER_HTTP)
		bt_config_check_http(r);
	if (r->l4->kind == BT_BALANCER_ROTATION)
		bt_config_check_rotation(r);
}
