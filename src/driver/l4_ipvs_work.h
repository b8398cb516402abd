/* The part of the IPVS family that waits for the kernel and for the disk: on a thread. */
#pragma once
#include "base/str.h"
#include "driver/l4_ipvs_change.h"

/* Everything a thread needs, copied: the loop may give up and free its own meanwhile. */
struct bt_ipvs_task {
	struct bt_arena *arena;
	const char *memory_path; /* its directory is made where it is missing */
	const char *proc;	 /* "/proc/sys" */
	const char *vip;
	uint16_t port;
	enum bt_l4_mode mode;
	const char *scheduler;
	int64_t weight;
	bool only; /* this host alone balances, so the address must be its own */
	const struct bt_pool_member *members;
	const bool *fresh; /* as in bt_l4_target; NULL: none */
	size_t n_members;
};

struct bt_ipvs_found {	  /* in the task's arena, and `text` */
	bool there;	  /* the virtual service exists */
	uint64_t packets; /* that it has had */
	bool adopted;	  /* it is another program's */
	struct bt_seen_member *members;
	size_t n_members;
	const char *refuses, *trouble;
};
/* What is there. A kernel without IPVS, and one that may not be asked, is found to refuse. */
int bt_ipvs_look(const struct bt_ipvs_task *t, struct bt_ipvs_found *ret, struct bt_err *err);
/* Makes it as t->members say, and looks whether it is so. Each change becomes a line of `told`. On
 * an error what was changed was changed back, or the error says what was not. 1: it waits for
 * another program to put a real server back, which `err` names; to be called again. */
int bt_ipvs_make(const struct bt_ipvs_task *t, struct bt_str *told, struct bt_err *err);
