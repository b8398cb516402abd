/* Balancers: one row each, chosen by what the service's config has. */
#include "driver/driver.h"
#include "driver/l4.h"
#include "driver/nginx_driver.h"

#include "base/mem.h"

static bool has_nginx(const struct bt_service *s)
{
	return s->nginx != NULL;
}

static bool has_l4(const struct bt_service *s)
{
	return s->l4 != NULL;
}

static const struct {
	bool (*fits)(const struct bt_service *s);
	const struct bt_balancer_ops *ops;
} rows[] = {
	{has_nginx, &bt_balancer_nginx},
	{has_l4, &bt_balancer_l4},
};

const struct bt_balancer_ops *bt_balancer_find(const struct bt_service *service)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(rows); i++)
		if (rows[i].fits(service))
			return rows[i].ops;
	return NULL;
}

const struct bt_balancer_ops *bt_balancer_at(size_t i)
{
	return i < BT_ARRAY_LEN(rows) ? rows[i].ops : NULL;
}
