/* Inside the link: link.c connects and polls, post.c posts, ask.c answers asks, watch.c observes.
 */
#pragma once
#include "agent/link.h"
#include "agent/observe.h"

struct bt_asks;
struct bt_posts;
struct bt_watch;

struct bt_link_call;
struct bt_link {
	struct bt_link_env env;
	struct bt_exec *exec;
	struct bt_posts *posts;
	struct bt_asks *asks;
	struct bt_watch *watch;
	bool up; /* hello was answered, and nothing failed since */
	bool told_down;
	unsigned failures;
	struct event *again;
	struct bt_link_call *call; /* hello or poll */
	int64_t produced; /* results since the start, to be told with results and observations */
	uint64_t cursor;
	json_t *commands; /* of the last poll, being taken */
	size_t next_command;
	bool feeding, waiting;
};

/* One exchange. The path begins with "/v1/"; body is JSON (stolen) or NULL for GET. done gets the
 * status (0: no answer) and the parsed answer (NULL: none), borrowed. */
typedef void (*bt_link_done)(void *arg, int status, json_t *answer, const struct bt_err *err);
struct bt_link_call;
struct bt_link_call *bt_link_call(struct bt_link *l, const char *method, const char *path,
	json_t *body, int64_t timeout_ms, bt_link_done done, void *arg);
struct bt_link_call *bt_link_call_cancel(struct bt_link_call *c); /* NULL is fine; returns NULL */
/* "403: the server's words". */
const char *bt_link_words(
	int status, json_t *answer, const struct bt_err *err, char *buf, size_t n);
/* n failures in a row → a pause with jitter, in ms, at most max_ms. */
int64_t bt_link_pause(unsigned failures, int64_t max_ms);

struct bt_posts *bt_posts_new(struct bt_link *l);
struct bt_posts *bt_posts_free(struct bt_posts *p);
void bt_posts_kick(struct bt_posts *p); /* the link came up */
void bt_posts_result(struct bt_posts *p, const struct bt_command_key *key);
void bt_posts_refused(struct bt_posts *p, const struct bt_result *result);
void bt_posts_progress(struct bt_posts *p, const struct bt_command_key *key, const char *line);

struct bt_watch *bt_watch_new(struct bt_link *l);
struct bt_watch *bt_watch_free(struct bt_watch *w);
void bt_watch_now(struct bt_watch *w); /* soon; several wishes become one */

struct bt_asks *bt_asks_new(struct bt_link *l);
struct bt_asks *bt_asks_free(struct bt_asks *a);
void bt_asks_take(struct bt_asks *a, const json_t *ask);
