/* The event loop is libevent's `struct event_base`; this adds what blocks, beside it:
 * work (hashing, fsync, databases) on threads, and children with bounded output and a deadline.
 * Every callback runs on the loop's own thread. */
#pragma once
#include "base/err.h"
#include "base/mem.h"
#include <event2/event.h>
#include <stdbool.h>
#include <sys/types.h>

/* Once, in ms from now; 0 or less: at the loop's next turn. Set again, the first is forgotten. */
void bt_timer_in(struct event *timer, int64_t ms);

/* A pool of threads beside one loop. n_threads 1 keeps jobs in order. */
struct bt_work;
struct bt_work *bt_work_new(struct event_base *base, int n_threads);
/* Waits for running jobs; queued ones are run, their done callbacks are not. Returns NULL. */
struct bt_work *bt_work_free(struct bt_work *w);
/* run(arg) on a thread, then done(arg) on the loop. */
void bt_work_submit(struct bt_work *w, void (*run)(void *), void (*done)(void *), void *arg);

/* A child process: argv without a shell, stdin /dev/null, its own process group. */
struct bt_child;
struct bt_child_spec {
	const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
	const char *const *envp; /* NULL: the caller's environment */
	const char *cwd;	 /* NULL: the caller's */
	const char *input;	 /* fed to stdin, or NULL for /dev/null */
	size_t input_len;
	uid_t uid;
	gid_t gid;	    /* (uid_t)-1: unchanged */
	int64_t timeout_ms; /* then SIGTERM to the group, SIGKILL 2 s later; 0: none */
	size_t max_output;  /* of stdout and stderr together; the last bytes are kept; 0: 64 KiB */
};
struct bt_child_result {
	int exit_code; /* 0..255, or -1 */
	int signal;    /* > 0 when a signal ended it */
	bool timed_out;
	const char *output; /* NUL-terminated, borrowed until the callback returns */
	size_t output_len;
	bool cut; /* earlier output was dropped */
};
/* 0 and *ret: `done` will be called exactly once unless bt_child_cancel is called before.
 * < 0: not started (unknown program, fork failed), done is not called. */
int bt_child_start(struct event_base *base, const struct bt_child_spec *spec,
	void (*done)(void *arg, const struct bt_child_result *), void *arg, struct bt_child **ret,
	struct bt_err *err);
/* Kills the group and forgets it; done is not called. NULL is fine; returns NULL. */
struct bt_child *bt_child_cancel(struct bt_child *c);
/* "exit code 1: last line of output" and the like, for an error line. */
const char *bt_child_describe(const struct bt_child_result *r, char *buf, size_t n);
