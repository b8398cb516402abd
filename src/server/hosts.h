/* Hosts: what their agents last said, their long poll, their outbox, and questions to them. */
#pragma once
#include "server/server_priv.h"

struct bt_host {
	struct bt_host *next;
	struct bt_server *server;
	char *name, *address, *agent_version;
	int64_t protocol, free_bytes;
	int64_t seen_wall_ms;	 /* last contact; 0: never */
	int64_t contact_boot_ms; /* last contact in this process, or its start */
	bool revoked;
	int64_t busy; /* tasks that change something, as last observed since hello; -1: not yet */
	struct bt_outbox *outbox;
	struct bt_http_exchange *poll; /* held open */
	struct event *poll_timer;
	uint64_t poll_after;
	json_t *asks;	     /* to hand to the next poll */
	json_t *seen;	     /* service → {"at":boot_ms,"seen":{seen host}} */
	json_t *generations; /* balancer → highest known */
	/* How many results its agent had produced, as its last results and its last observation
	 * say; both 0 since its hello. */
	int64_t result_mark, seen_mark;
	bool retouched; /* contact since the store last heard of it */
};

int bt_hosts_load(struct bt_server *s, struct bt_err *err);
void bt_hosts_free(struct bt_server *s);
struct bt_host *bt_host_find(struct bt_server *s, const char *name);
struct bt_host *bt_host_add(struct bt_server *s, const char *name); /* also when it is there */
void bt_host_touch(struct bt_host *h);
/* Holds a poll, or contact is not older than BT_AGENT_LOST_MS. */
bool bt_host_connected(const struct bt_host *h);
int64_t bt_host_silent_ms(const struct bt_host *h);
/* The exchange is answered now, or held up to wait_ms. */
void bt_host_poll(struct bt_host *h, struct bt_http_exchange *x, uint64_t after, int64_t wait_ms);
void bt_host_wake(struct bt_host *h); /* something waits: answer the poll */
void bt_host_disconnect(struct bt_host *h);
/* A seen host (world.h), from an observation, a result or an answer; borrows j. */
void bt_host_saw(struct bt_host *h, const char *service, json_t *seen);
json_t *bt_host_seen(const struct bt_host *h, const char *service, int64_t *ret_at); /* borrowed */
void bt_host_generation(struct bt_host *h, const char *balancer, uint64_t generation);

/* fresh.c: handle(x, s), now or when these hosts (NULL: all) were seen after the last result that
 * each has sent; not called when the peer leaves first. */
void bt_fresh_then(struct bt_server *s, struct bt_http_exchange *x, const char *const *hosts,
	size_t n_hosts, void (*handle)(struct bt_http_exchange *x, struct bt_server *s));
void bt_fresh_check(struct bt_server *s); /* a host was seen */

/* One question to one agent. on_answer: with each piece (answer borrowed), `end` with the last;
 * err with `end` when there is none (timeout, agent lost, its own error). Never called from inside
 * bt_ask_start. timeout_ms 0: until the agent is lost or it is cancelled. */
struct bt_ask;
typedef void (*bt_ask_fn)(void *arg, const json_t *answer, bool end, const struct bt_err *err);
struct bt_ask *bt_ask_start(struct bt_host *h, json_t *question /* stolen */, int64_t timeout_ms,
	bt_ask_fn on_answer, void *arg);
struct bt_ask *bt_ask_cancel(struct bt_ask *a); /* tells the agent; NULL is fine; returns NULL */
/* An agent's answer; false: nobody waits for it at this host. */
bool bt_ask_answer(struct bt_host *h, const char *id, const json_t *answer);
void bt_asks_again(struct bt_host *h);	/* a new agent said hello */
void bt_asks_tick(struct bt_server *s); /* ends those whose agent is lost */
void bt_asks_drop(struct bt_server *s);

/* The world of one service, from every host of it: what was seen at or after not_before (boot ms)
 * counts, the others are asked; `foreign`: also for processes that baton did not start and that
 * hold slots' ports, for which hosts hash a file. secrets: of the release that is to come (name →
 * value), for the API of the balancer; NULL: its host has them. done once, never from inside; err
 * names hosts that did not answer. The world is the callee's. */
struct bt_gather;
struct bt_gather *bt_gather_start(struct bt_server *s, const struct bt_service *service,
	const json_t *service_json, int64_t not_before, bool foreign, const json_t *secrets,
	void (*done)(void *arg, struct bt_world *world, const struct bt_err *err), void *arg);
struct bt_gather *bt_gather_cancel(struct bt_gather *g);
/* From what was last seen, without asking; hosts that said nothing are absent. */
struct bt_world *bt_world_last_seen(struct bt_server *s, const struct bt_service *service);
/* hosts of the service and of its balancer, each once; the caller frees the array. */
size_t bt_service_hosts(const struct bt_service *service, const char ***ret);
