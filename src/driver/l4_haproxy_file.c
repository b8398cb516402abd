/* What is in force, in the file that haproxy reads when it starts anew (server-state-file): it
 * holds every backend, so that a reload forgets what was drained in none of them. Each write is
 * asked and put down as one step, and for one file one after the other: an older answer never lies
 * over a newer one. */
#include "driver/l4_haproxy.h"

#include "base/fs.h"

#include <string.h>

struct keep {
	struct bt_thread_op op;
	struct keep *next;
	struct bt_op *ask;
	struct event *start;
	char *socket, *path, *text;
	int result;
	struct bt_err err;
	bt_done_fn done;
	void *arg;
};

static struct keep *queue; /* of all files, in order; the first of each file is at work */

static struct keep *first_of(const char *path)
{
	for (struct keep *k = queue; k; k = k->next)
		if (bt_streq(k->path, path))
			return k;
	return NULL;
}

static void kick(const char *path)
{
	struct keep *k = first_of(path);
	if (k)
		bt_timer_in(k->start, 0);
}

static void keep_free(void *op)
{
	struct keep *k = op;
	struct keep **p = &queue;
	while (*p != k)
		p = &(*p)->next;
	*p = k->next;
	kick(k->path);
	bt_op_cancel(k->ask);
	event_free(k->start);
	free(k->socket);
	free(k->path);
	free(k->text);
	free(k);
}

static void run_write(void *arg)
{
	struct keep *k = arg;
	k->result = bt_fs_write_atomic(k->path, k->text, strlen(k->text), 0644, &k->err);
}

static void on_written(void *arg)
{
	struct keep *k = arg;
	k->done(k->arg, k->result, &k->err);
	keep_free(k);
}

static void on_state(void *arg, int result, const char *text, const struct bt_err *err)
{
	struct keep *k = arg;
	struct bt_arena *a = bt_arena_new();
	struct bt_haproxy_view v = {0};
	struct bt_err why = *err;
	k->ask = NULL;
	if (result == 0) /* never in place of a good file: what haproxy could not read */
		result = bt_haproxy_servers(text, a, &v, &why);
	bt_arena_free(a);
	if (result < 0) {
		k->done(k->arg, result, &why);
		keep_free(k);
		return;
	}
	k->text = bt_strdup(text);
	bt_thread_op_run(&k->op, bt_haproxy_env()->work, run_write, on_written);
}

static void on_start(evutil_socket_t fd, short what, void *arg)
{
	struct keep *k = arg;
	(void)fd;
	(void)what;
	if (first_of(k->path) == k && !k->ask && !k->op.working)
		k->ask = bt_haproxy_ask(k->socket, "show servers state", on_state, k);
}

struct bt_op *bt_haproxy_keep(const struct bt_haproxy *h, bt_done_fn done, void *arg)
{
	struct keep *k = bt_calloc(1, sizeof *k), **p = &queue;
	bt_thread_op_init(&k->op, keep_free);
	k->socket = bt_strdup(h->socket);
	k->path = bt_strdup(h->state_file);
	k->start = event_new(bt_haproxy_env()->base, -1, 0, on_start, k);
	k->done = done;
	k->arg = arg;
	while (*p)
		p = &(*p)->next;
	*p = k;
	kick(k->path);
	return &k->op.op;
}
