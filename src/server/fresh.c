/* Who asks for the state of a service right after a task must see what the task did. An agent looks
 * at its host as soon as a task has ended, but its result and what it saw travel apart; so both
 * carry how many results it had produced, and a reader waits until every host has been seen after
 * the last result that was taken before the question. Briefly: a host that cannot say what it sees
 * must not keep anybody from reading what is known. */
#include "server/hosts.h"

#define PATIENCE_MS 2000

struct need {
	const struct bt_host *host;
	int64_t mark;
};

struct bt_fresh {
	struct bt_fresh *next;
	struct bt_server *server;
	struct bt_http_exchange *x;
	struct event *late;
	void (*handle)(struct bt_http_exchange *x, struct bt_server *s);
	size_t n;
	struct need need[];
};

static bool stale(const struct bt_host *h, int64_t mark)
{
	return h->seen_mark < mark && bt_host_connected(h);
}

static void drop(struct bt_fresh *f)
{
	for (struct bt_fresh **p = &f->server->fresh_waits; *p; p = &(*p)->next)
		if (*p == f) {
			*p = f->next;
			break;
		}
	event_free(f->late);
	free(f);
}

static void answer(struct bt_fresh *f)
{
	struct bt_http_exchange *x = f->x;
	struct bt_server *s = f->server;
	void (*handle)(struct bt_http_exchange *, struct bt_server *) = f->handle;
	drop(f);
	bt_http_on_close(x, NULL, NULL);
	handle(x, s);
}

static void on_late(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	answer(arg);
}

static void on_close(void *arg)
{
	drop(arg);
}

static bool asked_for(const struct bt_host *h, const char *const *hosts, size_t n)
{
	bool any = !hosts;
	for (size_t i = 0; i < n && !any; i++)
		any = bt_streq(hosts[i], h->name);
	return any;
}

void bt_fresh_then(struct bt_server *s, struct bt_http_exchange *x, const char *const *hosts,
	size_t n_hosts, void (*handle)(struct bt_http_exchange *x, struct bt_server *s))
{
	size_t n = 0, all = 0;
	for (const struct bt_host *h = s->hosts; h; h = h->next)
		all++;
	struct bt_fresh *f = bt_calloc(1, sizeof *f + all * sizeof *f->need);
	for (const struct bt_host *h = s->hosts; h; h = h->next)
		if (asked_for(h, hosts, n_hosts) && stale(h, h->result_mark))
			f->need[n++] = (struct need){h, h->result_mark};
	if (!n) {
		free(f);
		handle(x, s);
		return;
	}
	f->server = s;
	f->x = x;
	f->handle = handle;
	f->n = n;
	f->late = evtimer_new(s->base, on_late, f);
	f->next = s->fresh_waits;
	s->fresh_waits = f;
	bt_timer_in(f->late, PATIENCE_MS);
	bt_http_on_close(x, on_close, f);
}

static bool ready(const struct bt_fresh *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (stale(f->need[i].host, f->need[i].mark))
			return false;
	return true;
}

void bt_fresh_check(struct bt_server *s)
{
	for (struct bt_fresh *f = s->fresh_waits, *next; f; f = next) {
		next = f->next;
		if (ready(f))
			answer(f);
	}
}
