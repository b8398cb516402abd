/* The connection to a server: who it is, and one call after another on a loop of our own.
 *
 * The address and the token come from options, then the environment, then a config file, then what
 * a local `baton up` wrote. A token from a file goes only to the address of that file. */
#pragma once
#include "cli/cli.h"
#include "base/json.h"
#include "net/http_client.h"

struct bt_client {
	struct event_base *base;
	struct bt_http_client *http;
	char *url; /* without a slash at the end */
	char *token, *cacert;
	struct bt_tls_identity tls;
	/* Signals, once bt_client_catch_signals was called: how many came. Calls and waits end
	 * early with -EINTR as soon as that many came; 0: never. */
	int signals, leave_at;
	int64_t patience_ms; /* of a call without an upload; 0: a minute */
	struct event *sigint, *sigterm;
};

int bt_client_open(const struct bt_cli *cli, struct bt_client **ret, struct bt_err *err);
struct bt_client *bt_client_free(struct bt_client *c); /* NULL is fine; returns NULL */
void bt_client_cleanup(struct bt_client **c);
#define BT_CLIENT __attribute__((cleanup(bt_client_cleanup)))
void bt_client_catch_signals(struct bt_client *c);
bool bt_client_leaves(const struct bt_client *c);
/* Runs the loop for a while; -EINTR as above. */
int bt_client_wait(struct bt_client *c, int64_t ms, struct bt_err *err);

struct bt_client_answer {
	int status;
	json_t *body;	       /* NULL where there is none, or no JSON */
	int64_t upload_offset; /* -1: not said */
};
void bt_client_answer_done(struct bt_client_answer *a);
#define BT_ANSWER __attribute__((cleanup(bt_client_answer_done)))

struct bt_client_call {
	const char *method, *path; /* "/v1/…" */
	const json_t *json;	   /* body, or NULL */
	const void *raw;	   /* body, where json is NULL */
	size_t raw_len;
	int64_t upload_offset;			      /* with raw: its Upload-Offset header */
	void (*on_progress)(void *arg, int64_t sent); /* of raw; may be NULL */
	void *arg;
};
/* 0 and *ret for every status below 400 and those in `fine` (0-terminated; may be NULL); else the
 * server's own error. -EINTR: a signal came first. Says so on a terminal when it takes long. */
int bt_client_do(struct bt_client *c, const struct bt_client_call *call, const int *fine,
	struct bt_client_answer *ret, struct bt_err *err);
/* GET or POST of JSON; *ret may be NULL for a POST without an answer. The caller decrefs. */
int bt_client_get(struct bt_client *c, const char *path, json_t **ret, struct bt_err *err);
int bt_client_post(struct bt_client *c, const char *path, const json_t *body, json_t **ret,
	struct bt_err *err);
/* The error of an answer ≥ 400, into err; problems of a config go to standard error, a line each.
 */
int bt_client_error(int status, const json_t *body, struct bt_err *err);
/* Request of a path with our token; the caller sets what is special and starts it. *ret_url and
 * *ret_auth are owned by the caller and must live until the call is done. */
void bt_client_request(const struct bt_client *c, const char *method, const char *path,
	struct bt_http_header header[static 1], char **ret_url, char **ret_auth,
	struct bt_http_request *ret);
/* Percent-encoded as one path segment or query value. */
char *bt_url_escape(const char *text);
