/* One request at a time; its answers come before its end, in as many datagrams as they need. */
#include "driver/l4_ipvs_link.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <string.h>

#define ANSWER_SECONDS 10 /* the kernel answers at once, but for modprobe */
#define TRIES 5		  /* of a dump that others changed meanwhile */

typedef void (*on_reply)(void *arg, const struct bt_ipvs_reply *r);

struct exchange {
	on_reply on;
	void *arg;
	bool torn;
	struct bt_ipvs_reply end;
};

static int receive(struct bt_ipvs_link *link, struct exchange *x, struct bt_err *err)
{
	struct bt_ipvs_reply r;
	for (;;) {
		ssize_t n = mnl_socket_recvfrom(link->socket, link->buf, sizeof link->buf);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return bt_err_set(err, BT_E_TIMEOUT,
				"IPVS: no answer from the kernel for %d s", ANSWER_SECONDS);
		if (n <= 0)
			return bt_err_errno(err, n < 0 ? errno : EIO, "IPVS: netlink");
		const void *at = link->buf;
		size_t left = (size_t)n;
		int got;
		while ((got = bt_ipvs_next(
				&at, &left, link->seq, link->family, link->ip, &r, err)) > 0) {
			x->torn = x->torn || r.torn;
			if (r.kind == BT_IPVS_END) {
				x->end = r;
				return 0;
			}
			if (r.kind != BT_IPVS_OTHER && x->on)
				x->on(x->arg, &r);
		}
		if (got < 0)
			return got;
	}
}

/* The errno of the answer is x->end.error; < 0 where there was no answer. */
static int exchange(struct bt_ipvs_link *link, const void *request, size_t len, struct exchange *x,
	struct bt_err *err)
{
	if (mnl_socket_sendto(link->socket, request, len) < 0)
		return bt_err_errno(err, errno, "IPVS: netlink");
	return receive(link, x, err);
}

static int failed(const struct bt_ipvs_reply *end, const char *what, struct bt_err *err)
{
	if (end->error == EPERM)
		return bt_err_set(err, BT_E_REFUSED,
			"this agent may not control IPVS: run it as root or give it "
			"CAP_NET_ADMIN");
	return bt_err_errno(err, end->error, "%s%s%s%s", what, end->why[0] ? " (" : "", end->why,
		end->why[0] ? ")" : "");
}

/* ---- opening -------------------------------------------------------------------------------- */

static void on_family(void *arg, const struct bt_ipvs_reply *r)
{
	uint16_t *family = arg;
	if (r->kind == BT_IPVS_FAMILY)
		*family = r->family;
}

/* The kernel loads ip_vs for who asks for the family, where it has modules and finds that one. */
static int resolve(struct bt_ipvs_link *link, struct bt_err *err)
{
	_Alignas(8) char request[BT_IPVS_REQUEST_MAX];
	struct exchange x = {.on = on_family, .arg = &link->family};
	size_t n = bt_ipvs_ask_family(request, ++link->seq);
	int r = exchange(link, request, n, &x, err);
	if (r < 0)
		return r;
	if (x.end.error == ENOENT || (x.end.error == 0 && !link->family))
		return bt_err_set(err, BT_E_NOTFOUND,
			"this kernel has no IPVS: run 'modprobe ip_vs', and name ip_vs in "
			"/etc/modules-load.d for the next boot");
	return x.end.error ? failed(&x.end, "asking the kernel for IPVS", err) : 0;
}

int bt_ipvs_open(struct bt_ipvs_link *link, struct bt_err *err)
{
	*link = (struct bt_ipvs_link){.socket = mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC)};
	if (!link->socket)
		return bt_err_errno(err, errno, "IPVS: a netlink socket");
	struct timeval limit = {ANSWER_SECONDS, 0};
	int on = 1, r = 0;
	setsockopt(mnl_socket_get_fd(link->socket), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	mnl_socket_setsockopt(link->socket, NETLINK_EXT_ACK, &on, sizeof on);
	mnl_socket_setsockopt(link->socket, NETLINK_CAP_ACK, &on, sizeof on);
	if (mnl_socket_bind(link->socket, 0, MNL_SOCKET_AUTOPID) < 0)
		r = bt_err_errno(err, errno, "IPVS: a netlink socket");
	if (r == 0)
		r = resolve(link, err);
	if (r < 0)
		bt_ipvs_close(link);
	return r;
}

void bt_ipvs_close(struct bt_ipvs_link *link)
{
	if (link->socket)
		mnl_socket_close(link->socket);
	link->socket = NULL;
}

/* ---- asking --------------------------------------------------------------------------------- */

static int ask(struct bt_ipvs_link *link, uint8_t command, const struct bt_ipvs_service *service,
	const struct bt_ipvs_dest *dest, struct exchange *x, struct bt_err *err)
{
	_Alignas(8) char request[BT_IPVS_REQUEST_MAX];
	link->ip = service->address.family;
	size_t n = bt_ipvs_ask(request, ++link->seq, link->family, command, service, dest);
	return exchange(link, request, n, x, err);
}

static void on_service(void *arg, const struct bt_ipvs_reply *r)
{
	struct bt_ipvs_service *s = arg;
	if (r->kind == BT_IPVS_SERVICE)
		*s = r->service;
}

int bt_ipvs_service(struct bt_ipvs_link *link, const struct bt_ipvs_service *which,
	struct bt_ipvs_service *ret, struct bt_err *err)
{
	struct bt_ipvs_service found = {.port = 0};
	struct exchange x = {.on = on_service, .arg = &found};
	int r = ask(link, IPVS_CMD_GET_SERVICE, which, NULL, &x, err);
	if (r < 0)
		return r;
	if (x.end.error == ESRCH)
		return 1;
	if (x.end.error)
		return failed(&x.end, "reading the virtual service", err);
	if (found.port != which->port || !bt_ipvs_address_equal(&found.address, &which->address))
		return bt_err_set(err, BT_E_PROTOCOL,
			"IPVS: the kernel told of another virtual service than was asked for");
	*ret = found;
	return 0;
}

struct dests {
	struct bt_ipvs_dest *list;
	size_t n, max;
	bool many;
};

static void on_dest(void *arg, const struct bt_ipvs_reply *r)
{
	struct dests *d = arg;
	if (r->kind != BT_IPVS_DEST)
		return;
	d->many = d->many || d->n == BT_IPVS_DESTS_MAX;
	if (d->many)
		return;
	if (d->n == d->max) {
		d->max = d->max ? 2 * d->max : 16;
		d->list = bt_realloc(d->list, d->max * sizeof *d->list);
	}
	d->list[d->n++] = r->dest;
}

int bt_ipvs_dests(struct bt_ipvs_link *link, const struct bt_ipvs_service *which,
	struct bt_arena *a, struct bt_ipvs_dest **ret, size_t *ret_n, struct bt_err *err)
{
	struct dests d = {.n = 0};
	struct exchange x;
	int r, tries = 0;
	do {
		d.n = 0;
		x = (struct exchange){.on = on_dest, .arg = &d};
		r = ask(link, IPVS_CMD_GET_DEST, which, NULL, &x, err);
	} while (r == 0 && x.end.error == 0 && x.torn && ++tries < TRIES);
	if (r == 0 && x.end.error)
		r = failed(&x.end, "reading the real servers", err);
	if (r == 0 && d.many)
		r = bt_err_set(err, BT_E_REFUSED,
			"the virtual service has more than %d real servers", BT_IPVS_DESTS_MAX);
	if (r == 0) {
		*ret = bt_arena_memdup(a, d.list, d.n * sizeof *d.list);
		*ret_n = d.n;
	}
	free(d.list);
	return r;
}

int bt_ipvs_do(struct bt_ipvs_link *link, uint8_t command, const struct bt_ipvs_service *service,
	const struct bt_ipvs_dest *dest, struct bt_err *err)
{
	struct exchange x = {.on = NULL};
	char what[160], a[46], b[46];
	int r = ask(link, command, service, dest, &x, err);
	if (r < 0 || x.end.error == 0)
		return r;
	if (command == IPVS_CMD_NEW_SERVICE && x.end.error == ENOENT)
		return bt_err_set(err, BT_E_FAILED,
			"this kernel has no IPVS scheduler '%s': expected one whose module is "
			"there, "
			"such as wrr (modprobe ip_vs_%s)",
			service->scheduler, service->scheduler);
	bool gone = command == IPVS_CMD_DEL_SERVICE || command == IPVS_CMD_DEL_DEST;
	const char *verb = gone ? "taking away"
			   : command == IPVS_CMD_SET_SERVICE || command == IPVS_CMD_SET_DEST
				   ? "changing"
				   : "making";
	snprintf(what, sizeof what, "%s %s%s%s:%u", verb,
		dest ? bt_ipvs_address_text(&dest->address, a) : "virtual service ",
		dest ? " of virtual service " : "", bt_ipvs_address_text(&service->address, b),
		service->port);
	return failed(&x.end, what, err);
}
