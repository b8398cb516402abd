/* traffic.loopback with what stands around it. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

static const char vips_path[] = "traffic.loopback.vips";

static bool same(const char *a, const char *b)
{
	uint8_t x[16], y[16];
	size_t n = bt_address_parse(a, x);
	return n > 0 && n == bt_address_parse(b, y) && memcmp(x, y, n) == 0;
}

static bool has(const struct bt_loopback *l, const char *vip)
{
	for (size_t i = 0; i < l->n_vips; i++)
		if (same(l->vips[i], vip))
			return true;
	return false;
}

void bt_config_check_loopback(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_loopback *l = &s->loopback;
	const struct bt_node *at = bt_reading_at(r, vips_path);
	const struct bt_node *interface = bt_reading_at(r, "traffic.loopback.interface");
	struct bt_balancer_facts balancer;
	bt_service_balancer(s, &balancer);
	if (interface && !l->n_vips)
		bt_problem(r->sink, interface,
			"traffic.loopback.interface: only with traffic.loopback.vips");
	if (!at)
		return;
	if (balancer.kind == BT_BALANCER_NONE)
		bt_problem(r->sink, at,
			"%s: only with a balancer, which sends to the hosts what clients ask at "
			"these addresses",
			vips_path);
	/* An address has many spellings, so the list's own check for twice is not enough. */
	for (size_t i = 1; i < l->n_vips; i++)
		for (size_t k = 0; k < i; k++)
			if (same(l->vips[i], l->vips[k]) && !bt_streq(l->vips[i], l->vips[k]))
				bt_problem(r->sink, at, "%s: %s and %s are the same address",
					vips_path, l->vips[k], l->vips[i]);
	if (s->l4 && s->l4->mode == BT_L4_DSR && s->l4->vip && !has(l, s->l4->vip))
		bt_problem(r->sink, at,
			"%s: the balancer's vip %s is missing: its hosts could not answer",
			vips_path, s->l4->vip);
}
