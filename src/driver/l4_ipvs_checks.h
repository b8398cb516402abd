/* What else on a host must be as IPVS needs it: settings of the kernel, and that the address that
 * clients ask is its own. Nothing is changed here; a person is told. */
#pragma once
#include "base/str.h"
#include "driver/l4_ipvs_wire.h"
#include "model/service.h"

/* Adds "net.ipv4.ip_forward is 0, expected 1: …" and the like to out, "; " between them. `proc` is
 * where the kernel shows them: "/proc/sys" (a directory of its own in tests). What is not there is
 * not complained about: older kernels have fewer. */
void bt_ipvs_check_settings(const char *proc, const struct bt_ipvs_service *service,
	enum bt_l4_mode mode, struct bt_str *out);
/* Whether packets to the address are this host's to take: only those reach IPVS. */
bool bt_ipvs_is_local(const struct bt_ipvs_address *a);
/* Whether this host's own connections to a server come from the VIP: the answers to them stay with
 * a server that has the VIP, too. */
bool bt_ipvs_asks_from(const struct bt_ipvs_address *vip, const struct bt_ipvs_address *server);
