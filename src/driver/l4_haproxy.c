/* haproxy, by its runtime API. Out of rotation is `drain`: no new connection, but for clients whose
 * cookie names the server; what is established stays. In is `ready`, and it counts once haproxy
 * itself finds the server up. haproxy forgets both when it starts anew; see l4_haproxy_file.c and
 * the tending that all families share. */
#include "driver/l4_haproxy.h"

static const struct bt_driver_env *the_env;

const struct bt_driver_env *bt_haproxy_env(void)
{
	return the_env;
}

static int haproxy_init(const struct bt_driver_env *env, struct bt_err *err)
{
	(void)err;
	the_env = env;
	return 0;
}

const struct bt_l4_family bt_l4_haproxy = {
	.kind = BT_BALANCER_HAPROXY,
	.init = haproxy_init,
	.write = bt_haproxy_write,
	.read = bt_haproxy_read,
	.answers = bt_haproxy_answers,
};
