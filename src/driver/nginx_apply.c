/* Who waits for a change of nginx, and in which order.
 *
 * Each nginx has one queue. When it is idle, everything that waits goes into one batch: one
 * reload for many services. Two changes of one service stay in order, in batches of their own.
 * Where a batch of several fails, all is put back and each is tried alone, so that one service's
 * mistake is its own. A cancelled operation that is already in a batch runs to its end, only
 * nobody is told: half a change of nginx is not something to leave behind. */
#include "driver/nginx_batch.h"

#include "config/config.h"
#include "driver/members.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the desired state of an op ----------------------------------------------------------- */

/* A root-run nginx gives its workers to another user; where that user cannot reach the prefix
 * (a private state directory), the workers must stay root to have their temporary files. */
static const char *worker_user(const char *prefix)
{
	if (geteuid() != 0)
		return NULL;
	BT_FREE char *path = bt_strdup(prefix);
	for (char *slash; (slash = strrchr(path, '/')) && slash != path;) {
		struct stat st;
		if (stat(path, &st) == 0 && !(st.st_mode & S_IXOTH))
			return "root";
		*slash = 0;
	}
	return NULL;
}

struct bt_nginx_layout bt_nginx_layout_of(bool managed, const char *prefix)
{
	return (struct bt_nginx_layout){
		.prefix = prefix, .worker_user = managed ? worker_user(prefix) : NULL};
}

static struct bt_nginx_target target_of(
	const struct bt_pool *pool, const char *text, struct bt_arena *a)
{
	struct bt_nginx_target t = {.generation = pool->generation,
		.members = pool->members,
		.n_members = pool->n_members,
		.text = text};
	return bt_nginx_target_copy(a, &t);
}

/* The bodies that any instance in rotation may answer with. */
static int expect_of(const struct bt_pool *pool, struct bt_arena *a, struct bt_nginx_check *check,
	struct bt_err *err)
{
	const char *template = pool->service->identity.expect;
	/* A pool knows slots and hosts, not releases: then any good answer will do here, and the
	 * health check of the instance has compared the release already. */
	if (template && (strstr(template, "{release}") || strstr(template, "{artifact}")))
		return 0;
	const char **list = BT_ARENA_ARRAY(a, const char *, pool->n_members);
	size_t n = 0;
	for (size_t i = 0; i < pool->n_members; i++) {
		const struct bt_pool_member *m = &pool->members[i];
		if (!m->in)
			continue;
		BT_STR struct bt_str text = {0};
		struct bt_placeholders p = {.slot = m->slot,
			.host = m->host,
			.port = m->port,
			.artifact = "",
			.release = ""};
		int r = bt_config_expand(template ? template : "{slot}", &p, &text, err);
		if (r < 0)
			return bt_err_wrap(err, "identity.expect");
		list[n++] = bt_arena_strdup(a, bt_str_get(&text));
	}
	check->expect = list;
	check->n_expect = n;
	return 0;
}

static bool any_in(const struct bt_pool *pool)
{
	for (size_t i = 0; i < pool->n_members; i++)
		if (pool->members[i].in)
			return true;
	return false;
}

static int check_of(const struct bt_pool *pool, struct bt_arena *a, struct bt_nginx_check *ret,
	struct bt_err *err)
{
	const struct bt_identity *id = &pool->service->identity;
	const struct bt_nginx *n = pool->service->nginx;
	struct bt_nginx_check check = {0};
	if (!any_in(pool)) {
		*ret = check;
		return 0;
	}
	BT_STR struct bt_str url = {0};
	if (id->path && id->through) {
		bt_str_add(&url, id->through);
	} else {
		bt_nginx_base_url(n, &url);
		if (url.len > 0 && id->path)
			bt_str_add(&url, id->path);
		else if (url.len > 0 && !n->url)
			bt_str_reset(&url); /* managed, and nothing to ask for */
	}
	if (url.len > 0)
		check.url = bt_arena_strdup(a, url.data);
	const char *name = n->server_name;
	if (n->mode == BT_NGINX_MANAGED && name && !strpbrk(name, "*_ "))
		check.host = bt_arena_strdup(a, name);
	int r = check.url && id->path ? expect_of(pool, a, &check, err) : 0;
	if (r == 0)
		*ret = check;
	return r;
}

static int want_of(const struct bt_pool *pool, struct bt_nginx_site *site,
	struct bt_nginx_state *want, struct bt_err *err)
{
	const struct bt_nginx *n = pool->service->nginx;
	struct bt_arena *a = want->arena;
	BT_STR struct bt_str text = {0};
	BT_FREE char *file = NULL;
	if (n->mode == BT_NGINX_ADOPT && (!n->include || n->include[0] != '/'))
		return bt_err_set(err, BT_E_CONFIG,
			"nginx: `include` must be the absolute path of the file that baton owns");
	struct bt_nginx_layout layout =
		bt_nginx_layout_of(n->mode == BT_NGINX_MANAGED, site->unit->prefix);
	int r = bt_nginx_render(pool, &layout, &text, err);
	if (r == 0)
		r = check_of(pool, a, &want->check, err);
	if (r < 0)
		return r;
	file = bt_nginx_file_of(site, n);
	want->service = bt_arena_strdup(a, pool->service->name);
	want->balancer = bt_arena_strdup(a, pool->name);
	want->managed = n->mode == BT_NGINX_MANAGED;
	want->binary = bt_arena_strdup(a, site->unit->binary);
	want->config = bt_arena_strdup(a, site->unit->config);
	want->prefix = bt_arena_strdup(a, site->unit->prefix);
	want->file = bt_arena_strdup(a, file);
	want->max_old_workers = n->max_old_workers;
	want->link = !want->managed && n->form == BT_NGINX_SITE;
	if (want->managed && n->certificate) {
		want->certificate = bt_arena_strdup(a, n->certificate);
		want->certificate_key = bt_arena_strdup(a, n->certificate_key);
	}
	want->pending = target_of(pool, bt_str_get(&text), a);
	want->has_pending = true;
	return 0;
}

/* ---- the queue ---------------------------------------------------------------------------- */

static void kick(struct bt_nginx_unit *u);

static void op_free(struct bt_nginx_apply *op)
{
	bt_nginx_state_free(op->want);
	free(op);
}

static void op_end(struct bt_nginx_apply *op, int result, const struct bt_err *err)
{
	if (op->done)
		op->done(op->arg, result, err);
	op_free(op);
}

static void put_first(struct bt_nginx_unit *u, struct bt_nginx_apply *op)
{
	op->next = u->queue;
	u->queue = op;
}

static void put_last(struct bt_nginx_unit *u, struct bt_nginx_apply *op)
{
	struct bt_nginx_apply **p = &u->queue;
	while (*p)
		p = &(*p)->next;
	op->next = NULL;
	*p = op;
}

void bt_nginx_op_cancel(struct bt_op *base)
{
	struct bt_nginx_apply *op = (struct bt_nginx_apply *)base;
	for (struct bt_nginx_unit *u = bt_nginx_driver()->units; u; u = u->next)
		for (struct bt_nginx_apply **p = &u->queue; *p; p = &(*p)->next)
			if (*p == op) {
				*p = op->next;
				op_free(op);
				return;
			}
	op->done = NULL;
	op->progress = NULL;
}

/* 0: needs a batch; 1: ended here. */
static int settle_without_batch(struct bt_nginx_apply *op)
{
	const struct bt_nginx_state *have = op->site->state;
	struct bt_nginx_target *want = &op->want->pending;
	if (op->early.code < 0) {
		op_end(op, op->early.code, &op->early);
		return 1;
	}
	if (op->internal || !have || !have->has_confirmed ||
		want->generation > have->confirmed.generation)
		return 0;
	struct bt_err err = {0};
	if (!bt_members_equal(want->members, want->n_members, have->confirmed.members,
		    have->confirmed.n_members))
		bt_err_set(&err, BT_E_REFUSED,
			"generation %llu of %s is not newer than %llu, which is in force with "
			"other members",
			(unsigned long long)want->generation, op->site->service,
			(unsigned long long)have->confirmed.generation);
	op_end(op, err.code, &err);
	return 1;
}

static void batch_ended(struct bt_nginx_unit *u, enum bt_nginx_batch_kind kind,
	struct bt_nginx_apply *const *ops, size_t n, int result, const struct bt_err *err)
{
	bool again = result < 0 && n > 1;
	for (size_t i = n; i-- > 0;) {
		struct bt_nginx_apply *op = ops[i];
		if (again && op->done) {
			op->alone = true;
			put_first(u, op);
			continue;
		}
		bt_nginx_certificate_ended(op->site, kind == BT_NGINX_CERTIFICATE, result, err);
		if (kind == BT_NGINX_RECOVER || kind == BT_NGINX_RESTART)
			bt_nginx_set_trouble(op->site, result < 0 ? err->text : NULL);
		else if (result == 0)
			bt_nginx_set_trouble(op->site, NULL);
		op_end(op, result, err);
	}
	kick(u);
}

static bool service_in(struct bt_nginx_apply *const *ops, size_t n, const struct bt_nginx_apply *op)
{
	for (size_t i = 0; i < n; i++)
		if (ops[i]->site == op->site)
			return true;
	return false;
}

/* What of the queue goes together now. */
static size_t take_batch(struct bt_nginx_unit *u, struct bt_nginx_apply **ops)
{
	size_t n = 0;
	bool closed = false;
	for (struct bt_nginx_apply **p = &u->queue; *p && !closed && n < BT_NGINX_BATCH_MAX;) {
		struct bt_nginx_apply *op = *p;
		bool single = op->alone || op->internal;
		if ((single && n > 0) || service_in(ops, n, op)) {
			p = &op->next;
			continue;
		}
		*p = op->next;
		op->next = NULL;
		ops[n++] = op;
		closed = single;
	}
	return n;
}

static bool settle_some(struct bt_nginx_unit *u)
{
	for (struct bt_nginx_apply **p = &u->queue; *p; p = &(*p)->next) {
		struct bt_nginx_apply *op = *p, **before = p;
		bool behind = false; /* an earlier one of the same service decides first */
		for (struct bt_nginx_apply *o = u->queue; o != op; o = o->next)
			behind = behind || o->site == op->site;
		if (behind)
			continue;
		*before = op->next;
		if (settle_without_batch(op) == 1)
			return true;
		op->next = *before;
		*before = op;
	}
	return false;
}

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct bt_nginx_unit *u = arg;
	struct bt_nginx_apply *ops[BT_NGINX_BATCH_MAX];
	(void)fd;
	(void)what;
	if (u->running)
		return;
	while (settle_some(u)) {
		/* an answer may have changed the queue: look again from its start */
	}
	if (u->running)
		return;
	size_t n = take_batch(u, ops);
	if (n == 0)
		return;
	bt_nginx_batch_start(u, ops[0]->kind, ops, n, batch_ended);
}

static void kick(struct bt_nginx_unit *u)
{
	if (!u->kick)
		u->kick = event_new(bt_nginx_driver()->env->base, -1, 0, on_kick, u);
	bt_timer_in(u->kick, 0);
}

void bt_nginx_submit(struct bt_nginx_apply *op)
{
	put_last(op->site->unit, op);
	kick(op->site->unit);
}

struct bt_op *bt_nginx_apply_begin(const struct bt_pool *pool, bt_progress_fn progress,
	void *progress_arg, bt_done_fn done, void *arg)
{
	struct bt_nginx_apply *op = bt_calloc(1, sizeof *op);
	struct bt_arena *a = bt_arena_new();
	op->op.cancel = bt_nginx_op_cancel;
	op->site = bt_nginx_site_of(pool->service);
	op->want = BT_ARENA_NEW(a, struct bt_nginx_state);
	op->want->arena = a;
	op->progress = progress;
	op->progress_arg = progress_arg;
	op->done = done;
	op->arg = arg;
	(void)want_of(pool, op->site, op->want, &op->early);
	bt_nginx_submit(op);
	return &op->op;
}

/* ---- work that nobody asked for ----------------------------------------------------------- */

static bool internal_waits(const struct bt_nginx_site *site)
{
	for (const struct bt_nginx_apply *op = site->unit->queue; op; op = op->next)
		if (op->internal && op->site == site)
			return true;
	return site->unit->running && bt_nginx_batch_kind(site->unit->running) != BT_NGINX_CHANGE;
}

static void begin_internal(struct bt_nginx_site *site, enum bt_nginx_batch_kind kind)
{
	if (internal_waits(site))
		return;
	struct bt_nginx_apply *op = bt_calloc(1, sizeof *op);
	op->op.cancel = bt_nginx_op_cancel;
	op->site = site;
	op->internal = true;
	op->kind = kind;
	op->want = bt_nginx_state_copy(site->state);
	put_first(site->unit, op);
	kick(site->unit);
}

void bt_nginx_recover_begin(struct bt_nginx_site *site)
{
	begin_internal(site, BT_NGINX_RECOVER);
}

void bt_nginx_restart_begin(struct bt_nginx_site *site)
{
	begin_internal(site, BT_NGINX_RESTART);
}

void bt_nginx_certificate_begin(struct bt_nginx_site *site)
{
	begin_internal(site, BT_NGINX_CERTIFICATE);
}

bool bt_nginx_recovering(const struct bt_nginx_unit *u)
{
	for (const struct bt_nginx_apply *op = u->queue; op; op = op->next)
		if (op->internal && op->want->has_pending)
			return true;
	return u->running && bt_nginx_batch_kind(u->running) == BT_NGINX_RECOVER;
}
