/* Says to a real kernel's IPVS what the driver would say, and writes down every message of both
 * sides:
 *
 *     ipvs-probe                 # as root, with ip_vs loaded; lines "case NAME", "> HEX" and "<
 * HEX"
 *
 * tests/golden/ipvs holds what it wrote, so that the encoder and the decoder are held against a
 * real kernel where there is none. Ends with 1 as soon as the kernel answers otherwise than it
 * should. */
#include "driver/l4_ipvs_wire.h"

#include "base/str.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <stdio.h>
#include <string.h>

static struct mnl_socket *nl;
static uint16_t family;
static int ip = AF_INET;
static struct bt_ipvs_reply last; /* that was not the end */

static void show(char direction, const void *data, size_t n)
{
	BT_FREE char *hex = bt_malloc(2 * n + 1);
	bt_hex(data, n, hex);
	printf("%c %s\n", direction, hex);
}

static void must(bool good, const char *name, const char *what)
{
	if (good)
		return;
	printf("failed: %s: %s\n", name, what);
	exit(1);
}

/* Sends it and reads to its end, which must be `error`; how many other replies came. */
static size_t say(const char *name, const void *request, size_t len, int error)
{
	static _Alignas(8) char buf[BT_IPVS_DATAGRAM_MAX];
	uint32_t seq = ((const struct nlmsghdr *)request)->nlmsg_seq;
	size_t replies = 0;
	printf("case %s\n", name);
	show('>', request, len);
	must(mnl_socket_sendto(nl, request, len) == (ssize_t)len, name, "sendto");
	for (;;) {
		struct bt_ipvs_reply r;
		struct bt_err err = {0};
		ssize_t n = mnl_socket_recvfrom(nl, buf, sizeof buf);
		must(n > 0, name, strerror(errno));
		show('<', buf, (size_t)n);
		const void *at = buf;
		size_t left = (size_t)n;
		int got;
		while ((got = bt_ipvs_next(&at, &left, seq, family, ip, &r, &err)) > 0) {
			if (r.kind == BT_IPVS_END) {
				must(r.error == error, name, strerror(r.error));
				return replies;
			}
			must(r.kind != BT_IPVS_OTHER, name, "a message that is not known");
			last = r;
			replies++;
		}
		must(got == 0, name, err.text);
	}
}

static size_t ask(const char *name, uint8_t command, const struct bt_ipvs_service *s,
	const struct bt_ipvs_dest *d, int error)
{
	static uint32_t seq = 1;
	_Alignas(8) char request[BT_IPVS_REQUEST_MAX];
	return say(name, request, bt_ipvs_ask(request, ++seq, family, command, s, d), error);
}

static struct bt_ipvs_dest real_server(const char *address, uint32_t forward, int64_t weight)
{
	struct bt_ipvs_dest d = {.port = 8080, .forward = forward, .weight = weight};
	must(bt_ipvs_address_parse(address, &d.address, NULL) == 0, address, "no address");
	return d;
}

static void one_family(const char *vip, const char *first, const char *second)
{
	struct bt_ipvs_service s = {.port = 80, .scheduler = "wrr"};
	struct bt_ipvs_dest a = real_server(first, IP_VS_CONN_F_DROUTE, 100);
	struct bt_ipvs_dest b = real_server(second, IP_VS_CONN_F_MASQ, 7);
	must(bt_ipvs_address_parse(vip, &s.address, NULL) == 0, vip, "no address");
	ip = s.address.family;
	const char *v = ip == AF_INET ? "4" : "6";
	char name[64];
#define NAMED(text) (snprintf(name, sizeof name, "%s-%s", text, v), name)
	ask(NAMED("no-service"), IPVS_CMD_GET_SERVICE, &s, NULL, ESRCH);
	ask(NAMED("no-dests"), IPVS_CMD_GET_DEST, &s, NULL, 0);
	ask(NAMED("new-service"), IPVS_CMD_NEW_SERVICE, &s, NULL, 0);
	ask(NAMED("same-service"), IPVS_CMD_NEW_SERVICE, &s, NULL, EEXIST);
	must(ask(NAMED("service"), IPVS_CMD_GET_SERVICE, &s, NULL, 0) == 1, "service", "not one");
	must(!strcmp(last.service.scheduler, "wrr"), "service", "another scheduler");
	ask(NAMED("new-dest"), IPVS_CMD_NEW_DEST, &s, &a, 0);
	ask(NAMED("second-dest"), IPVS_CMD_NEW_DEST, &s, &b, 0);
	ask(NAMED("same-dest"), IPVS_CMD_NEW_DEST, &s, &a, EEXIST);
	a.weight = 0;
	ask(NAMED("out"), IPVS_CMD_SET_DEST, &s, &a, 0);
	must(ask(NAMED("dests"), IPVS_CMD_GET_DEST, &s, NULL, 0) == 2, "dests", "not two");
	ask(NAMED("del-dest"), IPVS_CMD_DEL_DEST, &s, &b, 0);
	ask(NAMED("gone-dest"), IPVS_CMD_SET_DEST, &s, &b, ENOENT);
	ask(NAMED("del-service"), IPVS_CMD_DEL_SERVICE, &s, NULL, 0);
}

int main(void)
{
	_Alignas(8) char request[BT_IPVS_REQUEST_MAX];
	int on = 1;
	nl = mnl_socket_open(NETLINK_GENERIC);
	must(nl && mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) == 0, "socket", strerror(errno));
	mnl_socket_setsockopt(nl, NETLINK_EXT_ACK, &on, sizeof on);
	must(say("family", request, bt_ipvs_ask_family(request, 1), 0) == 1, "family", "not one");
	family = last.family;
	one_family("10.0.0.100", "10.0.0.11", "10.0.0.12");
	one_family("2001:db8::100", "2001:db8::11", "2001:db8::12");
	struct bt_ipvs_service s = {.port = 80, .scheduler = "nosuch"};
	must(bt_ipvs_address_parse("10.0.0.100", &s.address, NULL) == 0, "vip", "no address");
	ask("no-scheduler", IPVS_CMD_NEW_SERVICE, &s, NULL, ENOENT);
	mnl_socket_close(nl);
	return 0;
}
