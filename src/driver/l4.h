/* L4 balancers: what they have in common, and what a family adds.
 *
 * All of them are told the same: these members of the service are in, those are out. So one row of
 * the balancer table (bt_balancer_l4) serves them all. It keeps the desired state in
 * l4/<service>/state.json (pending before the effect, confirmed after it was read back), holds
 * generations, writes again what a restart of the balancer forgot, waits for drains and holds
 * members after a boot. A family makes the real state as it should be, and reads it: two verbs. */
#pragma once
#include "driver/driver.h"

/* What a family is asked about. Borrowed until the operation's done was called. */
struct bt_l4_target {
	const struct bt_service *service; /* service->l4->kind is the family's */
	/* Every instance of the service, `in` as it shall be; empty when nothing was applied yet
	 * (read then tells what it finds). */
	const struct bt_pool_member *members;
	size_t n_members;
	/* write, of each member: it comes in by this change, so it has to be seen taking requests,
	 * also where it was told to already (a crash, a person). The others that are `in` need not
	 * be well for somebody else to go out. NULL: none does. */
	const bool *fresh;
	/* write: all this was in force before and is only said again (after the balancer began
	 * anew, or on the way back from a failure): nobody needs to be seen taking requests. */
	bool again;
	/* write: who asks reads it back at once and says what differs, so the family need not look
	 * a second time. */
	bool read_back;
	/* read: somebody waits for connections to end: counts those, too, that an older process of
	 * the balancer still has. */
	bool counting;
	/* read: who is in and who is out is all that is asked; connections need not be counted. */
	bool uncounted;
};

/* What was read. Borrowed during the call. */
struct bt_l4_seen {
	bool running; /* the balancer is there and answers */
	/* Changes when the balancer begins anew and may have forgotten what it was told (its pid
	 * and start time, the handle of a table); 0: cannot be told, so `running` alone counts. */
	uint64_t epoch;
	/* Members by address and port, or by host and slot; `counted` where it counts connections.
	 * Also those that are nobody's of the service. */
	const struct bt_seen_member *members;
	size_t n_members;
	/* Of each member, how the balancer itself calls its state: "in maintenance"; NULL: it is
	 * in rotation or out. */
	const char *const *words;
	/* Another program writes to it, too, and may put in who is out at any moment: it is looked
	 * at often, and told again. */
	bool shared;
	const char *trouble; /* one line: a sysctl that is wrong, …; NULL */
	const char *refuses; /* why it cannot take this service at all; NULL */
};
typedef void (*bt_l4_seen_fn)(
	void *arg, int result, const struct bt_l4_seen *seen, const struct bt_err *err);

/* What the balancer has answered for the service since it began. */
struct bt_l4_answers {
	bool counted;	     /* it looks into what it passes on */
	int64_t all, failed; /* failed: 5xx */
	uint64_t epoch;	     /* as in bt_l4_seen: with another one counting began anew */
};
typedef void (*bt_l4_answers_fn)(
	void *arg, int result, const struct bt_l4_answers *answers, const struct bt_err *err);

struct bt_l4_family {
	enum bt_balancer_kind kind;
	/* Once, at the agent's start; may be NULL. */
	int (*init)(const struct bt_driver_env *env, struct bt_err *err);
	/* Makes the balancer send new connections to the members that are `in`, and to no other
	 * member of the service; established ones stay where they are. Done once it was seen to be
	 * so (but for read_back). Doing it again changes nothing. On failure what was there before
	 * is still there, or the error says what is. */
	struct bt_op *(*write)(const struct bt_l4_target *t, bt_progress_fn progress,
		void *progress_arg, bt_done_fn done, void *arg);
	struct bt_op *(*read)(const struct bt_l4_target *t, bt_l4_seen_fn done, void *arg);
	/* May be NULL: it cannot count answers. */
	struct bt_op *(*answers)(const struct bt_l4_target *t, bt_l4_answers_fn done, void *arg);
	/* After the state was loaded from disk at the agent's start, for what answers by itself
	 * (rotation); may be NULL. */
	void (*resume)(const struct bt_l4_target *t);
};
/* One row a family, ended by NULL (l4_families.c). */
extern const struct bt_l4_family *const bt_l4_families[];
extern const struct bt_l4_family bt_l4_haproxy, bt_l4_nftables, bt_l4_ipvs, bt_l4_http,
	bt_l4_rotation;
extern const struct bt_balancer_ops bt_balancer_l4;
