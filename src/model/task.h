/* Task kinds: one row each. Parsing, the engine's rules, help and docs come from this table. */
#pragma once
#include "base/err.h"
#include <stdint.h>

enum bt_task_kind {
	BT_TASK_OBSERVE,	  /* what runs on this host and what its balancers send where */
	BT_TASK_COMPONENT_DEPLOY, /* fetch, check and unpack a release on a host */
	BT_TASK_INSTANCE_START,	  /* start the release in the slot (replaces nothing: slot must be
				     free) */
	BT_TASK_INSTANCE_STOP,
	BT_TASK_HEALTH_CHECK,  /* from the instance's own host */
	BT_TASK_BACKEND_CHECK, /* from the balancer's host, at the address the balancer will use */
	BT_TASK_SWITCH,	       /* a new desired pool at a balancer, confirmed there */
	BT_TASK_DRAIN,	 /* at the balancer: 0 connections to the instances, or the deadline */
	BT_TASK_BAKE,	 /* at a host (health) or a balancer (5xx): watch for a while */
	BT_TASK_PRUNE,	 /* drop releases beyond `keep` on a host */
	BT_TASK_ADOPT,	 /* record a process that others started as the slot's instance */
	BT_TASK_EXEC,	 /* run a program of the user's on a host */
	BT_TASK_APPROVE, /* wait for a person's word; the engine's own, no command leaves */
	BT_TASK_KINDS,
};

enum bt_verb { BT_DO, BT_UNDO };

/* What a restart does with a task that was begun and has no result. */
enum bt_repeat {
	BT_REPEAT_SAFE,	 /* do it again */
	BT_REPEAT_PROBE, /* ask the world first, then do what is missing */
	BT_REPEAT_NEVER, /* park for a person */
};

struct bt_task_info {
	enum bt_task_kind kind;
	const char *name;  /* "InstanceStart" */
	const char *alias; /* the seeds' name, "InstanceStartTask"; NULL: none */
	enum bt_repeat repeat;
	bool has_undo;	     /* undo restores the prior state that `begun` recorded */
	bool watch;	     /* ends with its wait_ms by design (Drain, Bake) */
	bool effect;	     /* changes something, so a run that stops waits for its end */
	int64_t timeout_ms;  /* default limit of one attempt, on top of wait_ms */
	const char *summary; /* one sentence, for help and docs */
};

const struct bt_task_info *bt_task_info(enum bt_task_kind kind); /* never NULL for a valid kind */
const struct bt_task_info *bt_task_find(const char *name_or_alias); /* NULL when unknown */
const char *bt_verb_name(enum bt_verb verb);			    /* "do" / "undo" */
int bt_verb_parse(const char *text, enum bt_verb *ret, struct bt_err *err);
