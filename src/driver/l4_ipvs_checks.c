/* Each setting is one row: when it counts, and what comes of its being off (each has a meaning of
 * its own above 1, which is no trouble). The values are of the network namespace of who reads them,
 * as everything below net/ is. */
#include "driver/l4_ipvs_checks.h"

#include "base/fs.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define VALUE_MAX 64

enum when { ALWAYS, PERSISTENT, NAT_4, NAT_6 };

static const struct {
	const char *path;
	enum when when;
	const char *why;
} settings[] = {
	{"net/ipv4/vs/expire_nodest_conn", ALWAYS,
		"clients of a real server that was taken away wait for their own timeout"},
	{"net/ipv4/vs/conn_reuse_mode", ALWAYS,
		"a client that uses a port again is sent to a real server that is out"},
	{"net/ipv4/vs/expire_quiescent_template", PERSISTENT,
		"the service is persistent, and its clients go on to a real server that is out"},
	{"net/ipv4/ip_forward", NAT_4, "replies are not sent on to clients"},
	{"net/ipv6/conf/all/forwarding", NAT_6, "replies are not sent on to clients"},
};

static bool counts(enum when when, const struct bt_ipvs_service *s, enum bt_l4_mode mode)
{
	switch (when) {
	case ALWAYS:
		return true;
	case PERSISTENT:
		return (s->flags & IP_VS_SVC_F_PERSISTENT) != 0;
	case NAT_4:
		return mode == BT_L4_NAT && s->address.family == AF_INET;
	case NAT_6:
		return mode == BT_L4_NAT && s->address.family == AF_INET6;
	}
	return false;
}

static bool value_of(const char *proc, const char *setting, int64_t *ret)
{
	BT_FREE char *path = bt_asprintf("%s/%s", proc, setting);
	BT_FREE char *text = NULL;
	if (bt_fs_read(path, VALUE_MAX, &text, NULL, NULL) < 0)
		return false;
	text[strcspn(text, "\n")] = 0;
	return bt_int_parse(text, 0, INT32_MAX, ret, NULL) == 0;
}

void bt_ipvs_check_settings(const char *proc, const struct bt_ipvs_service *service,
	enum bt_l4_mode mode, struct bt_str *out)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(settings); i++) {
		int64_t value;
		if (!counts(settings[i].when, service, mode) ||
			!value_of(proc, settings[i].path, &value) || value != 0)
			continue;
		BT_FREE char *name = bt_strdup(settings[i].path);
		for (char *p = name; (p = strchr(p, '/'));)
			*p = '.';
		bt_str_addf(out, "%s%s is 0, expected 1: %s", out->len ? "; " : "", name,
			settings[i].why);
	}
}

struct sock {
	struct sockaddr_storage at;
	socklen_t n;
};

static struct sock sock_of(const struct bt_ipvs_address *a, uint16_t port)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sock s = {.n = a->family == AF_INET ? sizeof v4 : sizeof v6};
	memcpy(&v4.sin_addr, a->bytes, sizeof v4.sin_addr);
	memcpy(&v6.sin6_addr, a->bytes, sizeof v6.sin6_addr);
	if (a->family == AF_INET)
		memcpy(&s.at, &v4, sizeof v4);
	else
		memcpy(&s.at, &v6, sizeof v6);
	return s;
}

bool bt_ipvs_is_local(const struct bt_ipvs_address *a)
{
	struct sock s = sock_of(a, 0);
	BT_CLOSE int fd = socket(a->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	return bind(fd, (struct sockaddr *)&s.at, s.n) == 0 || errno != EADDRNOTAVAIL;
}

/* Connecting a datagram socket sends nothing: the kernel only chooses the way, and the address. */
bool bt_ipvs_asks_from(const struct bt_ipvs_address *vip, const struct bt_ipvs_address *server)
{
	struct sock to = sock_of(server, 9), own = {.n = sizeof own.at};
	const struct sockaddr_in *v4 = (struct sockaddr_in *)&own.at;
	const struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&own.at;
	BT_CLOSE int fd = socket(server->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (vip->family != server->family || connect(fd, (struct sockaddr *)&to.at, to.n) < 0 ||
		getsockname(fd, (struct sockaddr *)&own.at, &own.n) < 0)
		return false;
	return vip->family == AF_INET
		       ? memcmp(&v4->sin_addr, vip->bytes, sizeof v4->sin_addr) == 0
		       : memcmp(&v6->sin6_addr, vip->bytes, sizeof v6->sin6_addr) == 0;
}
