/* A wish: what is asked for, until it is a run or refused. Private to planning*.c. */
#pragma once
#include "server/gate.h"
#include "server/planning.h"

struct bt_wish {
	struct bt_wish *next;
	struct bt_server *server;
	struct bt_gather *gather;
	struct bt_http_exchange *x; /* NULL: nobody waits, or the peer left */
	int64_t ticket;		    /* of the queue; 0: none */
	bool preview, new_release;
	bool adopt; /* the release is what the hosts find running */
	bool again; /* a new release, even if it is the same as the last one */
	bool force; /* also one that is marked bad */
	int (*make)(const struct bt_plan_request *rq, struct bt_plan **ret, struct bt_err *err);
	/* A flow: its name (borrowed from body), on whom, and what it is once the config is known.
	 */
	json_t *body;
	const char *flow_name;
	bool by_strategy; /* the name is a strategy's */
	json_t *only_hosts, *only_slots;
	const struct bt_flow *flow;
	struct bt_task_wish *task; /* one task by itself; NULL: none */
	struct bt_release *release;
	struct bt_config *config;
	char hash[65], *by, *holder;
	unsigned char *sealed, *files;
	size_t n_sealed, n_files;
	json_t *given, *contents, *secrets; /* config, files and secrets of the new release */
	struct bt_svc *retire;		    /* its warm slot */
	json_t *pruned;			    /* artifacts that go with the run; NULL: none */
};

/* One task as a flow of its own (planning_task.c). */
struct bt_task_wish {
	struct bt_flow flow;
	struct bt_flow_stage stage;
	struct bt_hook hook;
	int64_t wait_ms; /* how long the answer may wait for the end; 0: not at all */
};

/* planning_task.c: a message of POST /v1/tasks, and then the wish that it means. */
int bt_wish_read_task(struct bt_wish *w, const json_t *body, struct bt_err *err);
/* planning_flow.c */
int bt_wish_read_flow(struct bt_wish *w, const json_t *body, struct bt_err *err);
void bt_wish_use_strategy(struct bt_wish *w); /* in w->given */
int bt_wish_find_flow(struct bt_wish *w, struct bt_err *err);
bool bt_wish_on_live(const struct bt_wish *w); /* it brings no release */
int bt_wish_take_live(struct bt_wish *w, struct bt_err *err);
void bt_wish_fill_flow(const struct bt_wish *w, struct bt_arena *a, struct bt_plan_request *rq);

/* planning_read.c: what a body asks for, checked as far as it goes without asking a host. */
int bt_wish_read(struct bt_wish *w, const json_t *body, struct bt_err *err);
/* Who asks, and why, for the row of the run. */
void bt_wish_read_by(struct bt_wish *w, const json_t *by);
/* Every host of the service is known and connected. */
int bt_wish_check_hosts(struct bt_server *s, const struct bt_service *service, struct bt_err *err);
