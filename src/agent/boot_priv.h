/* Inside "after a boot": boot.c holds and lets go, boot_file.c remembers what is held. */
#pragma once
#include "agent/boot.h"
#include "driver/op.h"

struct bt_boot_slot {
	struct bt_boot_slot *next;
	struct bt_boot_service *service;
	char *name;
	uint16_t port;
	uint32_t release;
	struct bt_arena *arena; /* of health */
	struct bt_config *config;
	struct bt_op *health;
	char *why;    /* it was not healthy last */
	bool healthy; /* or nobody's any more: its hold is to end */
	bool ending;  /* its hold ends with the change that is under way */
};

struct bt_boot_service {
	struct bt_boot_service *next;
	struct bt_boot *boot;
	char *name;
	struct bt_op *op; /* a hold under way */
	bool in_force, dirty, told;
};

struct bt_boot_waiter {
	struct bt_op op;
	struct bt_boot_waiter *next;
	struct bt_boot *boot;
	char *service, *slot;
	bt_done_fn done;
	void *arg;
};

struct bt_boot {
	char *path, id[80];
	struct bt_boot_slot *slots;
	struct bt_boot_service *services;
	struct bt_boot_waiter *waiters;
	struct event *timer;
	int64_t begun_ms;
	bool awake;
	const struct bt_exec_env *env;
	const struct bt_log *log;
};

/* What is held now, durable soon. */
void bt_boot_save(struct bt_boot *b);
