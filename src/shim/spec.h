/* What a shim is told to keep running: the file `spec` in the instance's directory (0600, since
 * env may hold secrets). It is the durable intent: while it is there, the instance shall run. */
#pragma once
#include "shim/record.h"
#include <sys/types.h>

#define BT_SHIM_SPEC_VERSION 1
#define BT_SHIM_SPEC_MAX (1u << 20)
#define BT_SHIM_LIST_MAX 1024
#define BT_SHIM_GROUPS_MAX 64
#define BT_SHIM_LIMITS_MAX 8
#define BT_SHIM_STEPS_MAX 16

/* Send the signal, then wait up to wait_ms. Signal 0 sends nothing: somebody asks the app in a way
 * of its own, and the shim only waits, so that its end is not taken for a crash. */
struct bt_shim_step {
	int signal;
	int64_t wait_ms;
};
struct bt_shim_steps {
	struct bt_shim_step items[BT_SHIM_STEPS_MAX];
	size_t n;
};
struct bt_shim_limit { /* setrlimit's resource; soft and hard limit */
	int resource;
	int64_t value;
};
/* Strings are borrowed from the parsed text, or from the writer. */
struct bt_shim_spec {
	const char *service, *slot, *version;
	int64_t release, port;
	/* A nonce in the environment of everything the instance starts: with it even a process that
	 * left group and session is found again. */
	const char *marker;
	const char *argv[BT_SHIM_LIST_MAX + 1]; /* NULL-terminated */
	size_t n_argv;
	const char *env[BT_SHIM_LIST_MAX + 1];
	size_t n_env;
	const char *dir;  /* working directory */
	int64_t uid, gid; /* -1: unchanged */
	gid_t groups[BT_SHIM_GROUPS_MAX];
	size_t n_groups;
	struct bt_shim_limit limits[BT_SHIM_LIMITS_MAX];
	size_t n_limits;
	const char *log; /* absolute */
	int64_t log_max_bytes, log_keep;
	int64_t backoff_ms, backoff_max_ms;
	int64_t once_ms; /* 0: an instance. Else a program that runs once: never started again, and
			    stopped when it has not ended after this time */
	/* With once_ms: what it started in the background lives on when it has ended, as long as
	 * that does not write to the log. Its limit ends its process group, and nothing else. */
	int64_t leave;
	struct bt_shim_steps stop;
};
#define BT_SHIM_MARKER_ENV "BATON_INSTANCE_ID"

/* text (n bytes, text[n - 1] NUL) is changed and must outlive ret. 0, or -EBADMSG with why. */
int bt_shim_spec_parse(char *text, size_t n, struct bt_shim_spec *ret, char *why, size_t why_n);
/* 0, or -E2BIG when it does not fit out's buffer or a list is too long. */
int bt_shim_spec_write(const struct bt_shim_spec *spec, struct bt_record_out *out);
/* "15:10000" → a step at the end; 0, or -EBADMSG. */
int bt_shim_steps_add(struct bt_shim_steps *steps, const char *text);
