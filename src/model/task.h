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
	BT_TASK_LOOPBACK_STOP,	/* take the VIP off a host's loopback: 0 connections, or drained */
	BT_TASK_LOOPBACK_START, /* put it back */
	BT_TASK_WAIT,		/* only time passes; the engine's own */
	BT_TASK_NOTIFY,		/* tell somebody outside, by HTTP */
	BT_TASK_LIFECYCLE,	/* an event of a CodeDeploy bundle: its scripts on a host */
	BT_TASK_INSTALL,	/* put a CodeDeploy bundle's files where its appspec says */
	BT_TASK_KINDS,		/* of those that run; below are what flows are written with */
	/* Made of the ones above when a plan is made (plan/flow.c). */
	BT_TASK_L4_TURN_OFF = BT_TASK_KINDS,
	BT_TASK_L4_TURN_ON,
	BT_TASK_TOMCAT_STOP,
	BT_TASK_TOMCAT_START,
	BT_TASK_NAMES, /* of all */
};

/* Where a task of a flow may stand. */
enum bt_task_scope {
	BT_SCOPE_NONE = 0, /* in no flow: the engine's or a strategy's own */
	BT_SCOPE_HOST = 1,
	BT_SCOPE_INSTANCE = 2,
	BT_SCOPE_ONCE = 4,
	BT_SCOPE_PLACE = BT_SCOPE_HOST | BT_SCOPE_INSTANCE,
	BT_SCOPE_ANY = BT_SCOPE_PLACE | BT_SCOPE_ONCE,
};

enum bt_param_type {
	BT_PARAM_ARGV,	   /* a list of words, or one text split at blanks */
	BT_PARAM_DURATION, /* ms */
	BT_PARAM_TEXT,
	BT_PARAM_NAME,
	BT_PARAM_MAP,	 /* name → text */
	BT_PARAM_WHERE,	 /* once, each host, each instance, balancer, or a host */
	BT_PARAM_REPEAT, /* safe, never */
	BT_PARAM_WAY,	 /* in, out */
};

/* A parameter as a flow writes it: `{Exec: {run: …, timeout: 5m}}`. */
struct bt_task_param {
	const char *name;
	enum bt_param_type type;
	size_t offset, count; /* of its field in struct bt_hook, and of what belongs to it */
	bool required;
	int64_t min, max; /* of durations, in ms */
	const char *doc;  /* one sentence */
	const char *example;
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
	enum bt_task_scope scope;
	const struct bt_task_param *params;
	size_t n_params;
	const char *does, *undoes, *asks; /* do, undo and probe in words, for docs; NULL: none */
};

const struct bt_task_info *bt_task_info(enum bt_task_kind kind); /* never NULL for a valid kind */
/* Of those that run; NULL when unknown. */
const struct bt_task_info *bt_task_find(const char *name_or_alias);
/* Of all that a flow may name; NULL when unknown, with the nearest name or NULL. */
const struct bt_task_info *bt_task_find_in_flow(const char *name_or_alias, const char **ret_near);
const char *bt_verb_name(enum bt_verb verb); /* "do" / "undo" */
int bt_verb_parse(const char *text, enum bt_verb *ret, struct bt_err *err);
