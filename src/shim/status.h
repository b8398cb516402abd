/* What a shim says of its app: the file `status` in the instance's directory, and every message it
 * sends on its socket. Pid, start time and boot id together name one process for ever; no one of
 * them alone does. And the requests it takes, one SEQPACKET message each. */
#pragma once
#include "shim/spec.h"

#define BT_SHIM_STATUS_VERSION 1
#define BT_SHIM_REQUEST_VERSION 1
#define BT_SHIM_MESSAGE_MAX 4096
#define BT_SHIM_TEXT_MAX 300

/* The launcher's exit code. */
enum bt_shim_exit {
	BT_SHIM_EXIT_RUNS,    /* the app runs, or all is stopped as asked */
	BT_SHIM_EXIT_NOTHING, /* this shim left nothing running; one line on stderr says why */
	BT_SHIM_EXIT_USAGE,
	BT_SHIM_EXIT_UNKNOWN, /* it was killed, or another shim has the instance: ask again */
};

enum bt_shim_state {
	BT_SHIM_STARTING, /* the process is recorded, its exec not confirmed */
	BT_SHIM_RUNNING,
	BT_SHIM_WAITING, /* it crashed and is started again after the back-off */
	BT_SHIM_STOPPING,
	BT_SHIM_STOPPED,     /* as asked, or a program that runs once has ended; group and strays
				are gone */
	BT_SHIM_FAILED,	     /* the first exec failed; nothing runs */
	BT_SHIM_INTERRUPTED, /* stopped because the host shuts down: to be started again */
	BT_SHIM_STATES,
};
struct bt_shim_status {
	int64_t state; /* enum bt_shim_state */
	int64_t shim_pid;
	int64_t pid, start_ticks; /* of the app; 0: none. field 22 of /proc/PID/stat */
	char boot_id[40];
	int64_t release, port;
	char version[64];
	int64_t since_wall_ms; /* of this process */
	int64_t restarts;
	int64_t adopted;   /* 1: not this shim's child */
	int64_t exits;	   /* how often it ended by itself */
	int64_t exit_code; /* of the last end; -1: none or unknown */
	int64_t exit_signal;
	int64_t late;		     /* 1: a program that runs once did not end in its time */
	char held[64];		     /* … it did, and who went on writing to its log until then */
	char text[BT_SHIM_TEXT_MAX]; /* one line about the last end or trouble */
};
int bt_shim_status_parse(char *text, size_t n, struct bt_shim_status *ret, char *why, size_t why_n);
int bt_shim_status_write(const struct bt_shim_status *s, struct bt_record_out *out);

enum bt_shim_op { BT_SHIM_OP_STATUS, BT_SHIM_OP_SUBSCRIBE, BT_SHIM_OP_STOP, BT_SHIM_OP_NEXT };
/* STATUS is answered once, SUBSCRIBE at once and on every change, STOP runs the steps (none given:
 * the spec's) and is answered by the changes. NEXT ends the wait of a step without a signal. An
 * unknown op is answered by the status. */
struct bt_shim_request {
	int64_t op;
	struct bt_shim_steps steps;
};
int bt_shim_request_parse(
	char *text, size_t n, struct bt_shim_request *ret, char *why, size_t why_n);
int bt_shim_request_write(const struct bt_shim_request *rq, struct bt_record_out *out);
