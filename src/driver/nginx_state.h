/* What one service last had at its nginx, on disk: balancers/<service>/state.json.
 *
 * `pending` is written and synced before nginx's file is touched and goes away only when the
 * outcome is confirmed or the old file is back and in force; so whoever finds it after a crash
 * knows both texts and finishes the one or the other. Holds all that is needed to do that and to
 * start a managed nginx again, without the service's config at hand. */
#pragma once
#include "driver/nginx_render.h"

struct bt_nginx_target { /* one desired state: members and the text made from them */
	uint64_t generation;
	const struct bt_pool_member *members;
	size_t n_members;
	const char *text;
};

struct bt_nginx_check {		/* how the change is confirmed from outside; url NULL: not asked */
	const char *url, *host; /* host: the Host header or NULL */
	const char *const *expect; /* any of these bodies; empty: any answer but 502, 503, 504 */
	size_t n_expect;
};

struct bt_nginx_state {
	struct bt_arena *arena;
	const char *service, *balancer;
	bool managed;
	const char *binary, *config, *prefix; /* of the nginx; config and prefix may be NULL */
	const char *file;		      /* that baton owns */
	bool link;			      /* … is a link: texts are values of nginx_link.h */
	int max_old_workers;
	const char *certificate, *certificate_key; /* that it serves with; NULL: none */
	const char *certificate_stamp; /* of those that were loaded last; NULL: not known */
	struct bt_nginx_check check;   /* of the pending one */
	bool has_confirmed, has_pending;
	struct bt_nginx_target confirmed, pending;
	const char *prior; /* the file's text before the pending write; NULL: there was none */
};

struct bt_nginx_state *bt_nginx_state_free(struct bt_nginx_state *s);
/* A deep copy with an arena of its own. */
struct bt_nginx_state *bt_nginx_state_copy(const struct bt_nginx_state *s);
struct bt_nginx_target bt_nginx_target_copy(struct bt_arena *a, const struct bt_nginx_target *t);
char *bt_nginx_state_dump(const struct bt_nginx_state *s); /* caller frees */
int bt_nginx_state_parse(
	const char *text, size_t n, struct bt_nginx_state **ret, struct bt_err *err);
