/* Inside of the haproxy family. */
#pragma once
#include "base/str.h"
#include "driver/l4.h"
#include "driver/l4_haproxy_parse.h"
#include "driver/op.h"

const struct bt_driver_env *bt_haproxy_env(void);

/* l4_haproxy_ask.c: one command (or several, with ';' between) on a connection of its own, and all
 * that is answered, NUL-terminated and borrowed during the call. BT_E_UNREACHABLE: nobody listens
 * at the socket, or no answer within 5 s; BT_E_REFUSED: the agent may not open it. */
typedef void (*bt_haproxy_answer_fn)(
	void *arg, int result, const char *text, const struct bt_err *err);
struct bt_op *bt_haproxy_ask(
	const char *socket, const char *command, bt_haproxy_answer_fn done, void *arg);

/* l4_haproxy_look.c: the whole of one backend, in an arena that lives during the call. Besides the
 * asks' errors: BT_E_NOTFOUND: it has no such backend (its list, and the nearest). */
typedef void (*bt_haproxy_view_fn)(
	void *arg, int result, const struct bt_haproxy_view *v, const struct bt_err *err);
struct bt_op *bt_haproxy_look(const struct bt_haproxy *h, bt_haproxy_view_fn done, void *arg);

/* l4_haproxy_names.c */
/* The server that stands for the member: by the template's name, else by address and port. NULL:
 * there is none. */
const struct bt_haproxy_server *bt_haproxy_find(const struct bt_service *s,
	const struct bt_haproxy_view *v, const struct bt_pool_member *m);
/* "haproxy on l4 knows no server was3-a in backend shop; it has …". */
int bt_haproxy_no_server(struct bt_err *err, const struct bt_service *s,
	const struct bt_haproxy_view *v, const struct bt_pool_member *m);
int bt_haproxy_check_level(
	struct bt_err *err, const struct bt_haproxy *h, const struct bt_haproxy_view *v);

/* l4_haproxy_read.c */
struct bt_op *bt_haproxy_read(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg);
struct bt_op *bt_haproxy_answers(const struct bt_l4_target *t, bt_l4_answers_fn done, void *arg);
/* l4_haproxy_write.c */
struct bt_op *bt_haproxy_write(const struct bt_l4_target *t, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg);
/* l4_haproxy_file.c: what is in force, into the server-state-file. */
struct bt_op *bt_haproxy_keep(const struct bt_haproxy *h, bt_done_fn done, void *arg);

/* l4_haproxy_old.c: connections to address:port that haproxy processes other than `pid` have open
 * in this network namespace: those that still serve after a reload. Blocks. */
struct bt_haproxy_peer {
	const char *address;
	uint16_t port;
	uint32_t count; /* the answer */
};
void bt_haproxy_old_count(int64_t pid, struct bt_haproxy_peer *peers, size_t n);
