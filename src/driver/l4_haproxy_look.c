/* The whole of one backend: four questions, one after the other. */
#include "driver/l4_haproxy.h"

#include <string.h>

enum question { ASK_INFO, ASK_LEVEL, ASK_SERVERS, ASK_STAT, QUESTIONS };

struct look {
	struct bt_op op;
	struct bt_op *ask;
	struct bt_arena *arena;
	const char *socket, *backend;
	enum question at;
	struct bt_haproxy_view view;
	struct bt_err err;
	bt_haproxy_view_fn done;
	void *arg;
};

static void look_cancel(struct bt_op *op)
{
	struct look *l = (struct look *)op;
	bt_op_cancel(l->ask);
	bt_arena_free(l->arena);
	free(l);
}

static void look_end(struct look *l, int result)
{
	l->done(l->arg, result, result < 0 ? NULL : &l->view, &l->err);
	look_cancel(&l->op);
}

static void on_backends(void *arg, int result, const char *text, const struct bt_err *err)
{
	struct look *l = arg;
	BT_STR struct bt_str list = {0};
	const char **names = NULL;
	(void)err;
	l->ask = NULL;
	size_t n = result < 0 ? 0 : bt_haproxy_backends(text, l->arena, &names);
	for (size_t i = 0; i < n && i < 20; i++)
		bt_str_addf(&list, "%s%s", i ? ", " : "", names[i]);
	const char *near = bt_nearest(l->backend, names, n);
	bt_err_set(&l->err, BT_E_NOTFOUND,
		"haproxy at %s has no backend %s%s%s%s; it has %s%s (traffic.haproxy.backend)",
		l->socket, l->backend, near ? " (did you mean " : "", near ? near : "",
		near ? "?)" : "", n ? list.data : "none", n > 20 ? ", …" : "");
	look_end(l, l->err.code);
}

static void next(struct look *l);

static int take(struct look *l, const char *text)
{
	char said[400];
	switch (l->at) {
	case ASK_INFO:
		return bt_haproxy_info(text, l->arena, &l->view, &l->err);
	case ASK_LEVEL:
		l->view.admin = bt_streq(bt_haproxy_complaint(text, said, sizeof said), "admin");
		return 0;
	case ASK_SERVERS:
		return bt_haproxy_servers(text, l->arena, &l->view, &l->err);
	default:
		return bt_haproxy_stat(text, l->arena, &l->view, &l->err);
	}
}

static void on_answer(void *arg, int result, const char *text, const struct bt_err *err)
{
	struct look *l = arg;
	l->ask = NULL;
	if (result < 0) {
		l->err = *err;
		look_end(l, result);
		return;
	}
	if (l->at == ASK_SERVERS && bt_str_starts(text, "Can't find backend")) {
		l->ask = bt_haproxy_ask(l->socket, "show backend", on_backends, l);
		return;
	}
	int r = take(l, text);
	if (r < 0 || ++l->at == QUESTIONS)
		look_end(l, r);
	else
		next(l);
}

static void next(struct look *l)
{
	BT_FREE char *servers = bt_asprintf("show servers state %s", l->backend);
	/* of the proxy of that name what is a backend (2) and what is a server (4) */
	BT_FREE char *stat = bt_asprintf("show stat %s 6 -1", l->backend);
	const char *const questions[QUESTIONS] = {"show info", "show cli level", servers, stat};
	l->ask = bt_haproxy_ask(l->socket, questions[l->at], on_answer, l);
}

struct bt_op *bt_haproxy_look(const struct bt_haproxy *h, bt_haproxy_view_fn done, void *arg)
{
	struct look *l = bt_calloc(1, sizeof *l);
	l->op.cancel = look_cancel;
	l->arena = bt_arena_new();
	l->socket = bt_arena_strdup(l->arena, h->socket);
	l->backend = bt_arena_strdup(l->arena, h->backend);
	l->done = done;
	l->arg = arg;
	next(l);
	return &l->op;
}
