/* What haproxy's runtime API answers, read. Formats: haproxy's management guide, "show info",
 * "show servers state" (version 1), "show stat" (CSV) and "show backend". Columns are found by the
 * name in the head line, since versions add some. Pure. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include <stdbool.h>
#include <stdint.h>

/* srv_op_state */
enum { BT_HAPROXY_STOPPED, BT_HAPROXY_STARTING, BT_HAPROXY_RUNNING, BT_HAPROXY_STOPPING };
/* srv_admin_state: why it is out; what the configuration had (0x04) does not take it out. */
#define BT_HAPROXY_MAINT 0x63 /* forced, inherited, by the resolver, by its host name */
#define BT_HAPROXY_DRAIN 0x18 /* forced, inherited */
#define BT_HAPROXY_FORCED_MAINT 0x01
#define BT_HAPROXY_CHECKED 0x04	  /* srv_check_state: checks are enabled */
#define BT_HAPROXY_CHECK_PASSED 3 /* srv_check_result */

struct bt_haproxy_server {
	const char *name, *address; /* address "-": none yet, or no IP */
	uint16_t port;
	int op_state, admin_state, check_result, check_state;
	/* of `show stat` */
	bool counted, backup;
	uint32_t connections;	    /* of clients that are served, and that wait for this server */
	const char *status, *check; /* "DOWN", "L4CON Connection refused"; "" */
};

struct bt_haproxy_totals { /* of the whole backend */
	bool http;	   /* it looks into what it passes on: these are counts */
	int64_t answers, failed;
};

struct bt_haproxy_view {
	int64_t pid, start_s;
	const char *version;
	bool admin;
	struct bt_haproxy_server *servers;
	size_t n_servers;
	struct bt_haproxy_totals totals;
};

/* Each adds to the view; strings go into the arena. BT_E_PROTOCOL: not what was asked for. */
int bt_haproxy_info(
	const char *text, struct bt_arena *a, struct bt_haproxy_view *v, struct bt_err *err);
int bt_haproxy_servers(
	const char *text, struct bt_arena *a, struct bt_haproxy_view *v, struct bt_err *err);
int bt_haproxy_stat(
	const char *text, struct bt_arena *a, struct bt_haproxy_view *v, struct bt_err *err);
/* Names of backends. */
size_t bt_haproxy_backends(const char *text, struct bt_arena *a, const char ***ret);
/* What a command that answers nothing has said all the same: its first line that is not empty;
 * "" when it went well. Into buf; returns buf. */
const char *bt_haproxy_complaint(const char *text, char *buf, size_t n);

static inline bool bt_haproxy_is_in(const struct bt_haproxy_server *s)
{
	return !(s->admin_state & (BT_HAPROXY_MAINT | BT_HAPROXY_DRAIN));
}
/* It is in, and new connections go there. */
bool bt_haproxy_is_served(const struct bt_haproxy_server *s);
