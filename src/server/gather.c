/* The world of one service, from its hosts' own mouths. */
#include "base/clock.h"
#include "server/hosts.h"
#include "server/run.h"

#include <string.h>

struct part {
	struct bt_gather *gather;
	struct bt_host *host;
	struct bt_ask *ask;
	char *trouble;
	json_t *seen; /* its answer, which says more than what it reports by itself */
};

struct bt_gather {
	struct bt_server *server;
	char *service;
	struct part *parts;
	size_t n, waiting;
	bool foreign;
	struct event *finish;
	void (*done)(void *, struct bt_world *, const struct bt_err *);
	void *arg;
	struct bt_err err;
};

size_t bt_service_hosts(const struct bt_service *service, const char ***ret)
{
	size_t n = 0;
	struct bt_balancer_facts b;
	bt_service_balancer(service, &b);
	size_t n_on = b.own_host ? 0 : b.n_on;
	const char **list = bt_calloc(service->n_hosts + n_on + 1, sizeof *list);
	for (size_t i = 0; i < service->n_hosts + n_on; i++) {
		const char *host =
			i < service->n_hosts ? service->hosts[i] : b.on[i - service->n_hosts];
		size_t k = 0;
		while (k < n && strcmp(list[k], host) != 0)
			k++;
		if (k == n)
			list[n++] = host;
	}
	*ret = list;
	return n;
}

/* What one host saw, with generations raised to what was ever handed out or reported: an agent that
 * accepted one and did not confirm it would refuse the same number again. */
static json_t *seen_copy(const struct bt_host *h, const char *service)
{
	int64_t at;
	json_t *seen = json_deep_copy(bt_host_seen(h, service, &at));
	size_t i;
	json_t *b;
	json_array_foreach (json_object_get(seen, "balancers"), i, b) {
		const char *name = json_string_value(json_object_get(b, "name"));
		json_int_t known =
			json_integer_value(name ? json_object_get(h->generations, name) : NULL);
		if (known > json_integer_value(json_object_get(b, "generation")))
			json_object_set_new(b, "generation", json_integer(known));
	}
	if (seen)
		json_object_set_new(seen, "host", json_string(h->name));
	return seen;
}

static int build_world(struct bt_server *s, const char *service, const char *const *hosts, size_t n,
	struct bt_world **ret, struct bt_err *err)
{
	BT_JSON json_t *j = json_pack("{s:i, s:[]}", "version", BT_WORLD_VERSION, "hosts");
	for (size_t i = 0; i < n; i++) {
		struct bt_host *h = bt_host_find(s, hosts[i]);
		json_t *seen = h ? seen_copy(h, service) : NULL;
		if (seen)
			json_array_append_new(json_object_get(j, "hosts"), seen);
	}
	return bt_world_from_json(j, ret, err);
}

struct bt_world *bt_world_last_seen(struct bt_server *s, const struct bt_service *service)
{
	const char **hosts = NULL;
	struct bt_world *w = NULL;
	size_t n = bt_service_hosts(service, &hosts);
	if (build_world(s, service->name, hosts, n, &w, NULL) < 0)
		w = NULL;
	free(hosts);
	return w;
}

static void free_gather(struct bt_gather *g)
{
	for (size_t i = 0; i < g->n; i++) {
		free(g->parts[i].trouble);
		json_decref(g->parts[i].seen);
	}
	if (g->finish)
		event_free(g->finish);
	free(g->parts);
	free(g->service);
	free(g);
}

static void on_finish(evutil_socket_t fd, short what, void *arg)
{
	struct bt_gather *g = arg;
	BT_STR struct bt_str why = {0};
	struct bt_world *w = NULL;
	(void)fd;
	(void)what;
	for (size_t i = 0; i < g->n; i++)
		if (g->parts[i].trouble)
			bt_str_addf(&why, "%s%s", why.len ? "; " : "", g->parts[i].trouble);
	struct bt_err *err = &g->err;
	if (why.len) {
		bt_err_set(err, BT_E_UNREACHABLE, "%s", bt_str_get(&why));
	} else {
		for (size_t i = 0; i < g->n; i++) /* a report of its own may have come since */
			if (g->foreign && g->parts[i].seen)
				bt_host_saw(g->parts[i].host, g->service, g->parts[i].seen);
		const char **hosts = bt_calloc(g->n + 1, sizeof *hosts);
		for (size_t i = 0; i < g->n; i++)
			hosts[i] = g->parts[i].host->name;
		if (build_world(g->server, g->service, hosts, g->n, &w, err) < 0)
			w = NULL;
		free(hosts);
	}
	void (*done)(void *, struct bt_world *, const struct bt_err *) = g->done;
	void *a = g->arg;
	struct bt_err copy = *err;
	free_gather(g);
	done(a, w, w ? NULL : &copy);
}

static void part_done(struct part *p)
{
	p->ask = NULL;
	if (--p->gather->waiting == 0)
		bt_timer_in(p->gather->finish, 0);
}

static void on_answer(void *arg, const json_t *answer, bool end, const struct bt_err *err)
{
	struct part *p = arg;
	json_t *seen = json_object_get(answer, "observation");
	if (json_is_object(seen)) {
		json_decref(p->seen);
		p->seen = json_incref(seen);
		bt_host_saw(p->host, p->gather->service, seen);
	} else if (end)
		p->trouble =
			err ? bt_strdup(err->text)
			    : bt_asprintf("host %s answered without an observation", p->host->name);
	if (end)
		part_done(p);
}

/* secrets: what its caller brings, of which only those go along that the balancer's API wants, and
 * only to whoever asks it. */
static json_t *question(const struct bt_service *service, const json_t *json, const char *host,
	bool foreign, const json_t *secrets)
{
	json_t *balancers = json_array();
	struct bt_balancer_facts b;
	bt_service_balancer(service, &b);
	if (bt_service_balances_on(service, host)) {
		BT_FREE char *name = bt_asprintf("%s/%s", b.family, service->name);
		json_array_append_new(balancers, json_string(name));
	}
	json_t *q = json_pack("{s:s, s:O, s:o, s:b}", "kind", "observe", "service", json,
		"balancers", balancers, "foreign", (int)foreign);
	if (secrets && bt_service_balances_on(service, host) &&
		bt_params_balancer_wants(json, NULL))
		json_object_set_new(q, "secrets", bt_params_balancer_secrets(json, secrets));
	return q;
}

struct bt_gather *bt_gather_start(struct bt_server *s, const struct bt_service *service,
	const json_t *service_json, int64_t not_before, bool foreign, const json_t *secrets,
	void (*done)(void *arg, struct bt_world *world, const struct bt_err *err), void *arg)
{
	const char **hosts = NULL;
	struct bt_gather *g = bt_calloc(1, sizeof *g);
	g->server = s;
	g->service = bt_strdup(service->name);
	g->done = done;
	g->foreign = foreign;
	g->arg = arg;
	g->n = bt_service_hosts(service, &hosts);
	g->parts = bt_calloc(g->n + 1, sizeof *g->parts);
	g->finish = evtimer_new(s->base, on_finish, g);
	g->waiting = g->n + 1;
	for (size_t i = 0; i < g->n; i++) {
		struct part *p = &g->parts[i];
		int64_t at = 0;
		p->gather = g;
		p->host = bt_host_add(s, hosts[i]);
		bool fresh = bt_host_seen(p->host, service->name, &at) && at >= not_before;
		if (fresh)
			g->waiting--;
		else
			p->ask = bt_ask_start(p->host,
				question(service, service_json, hosts[i], foreign, secrets),
				foreign ? BT_GATHER_FOREIGN_MS : BT_GATHER_MS, on_answer, p);
	}
	free(hosts);
	if (--g->waiting == 0)
		bt_timer_in(g->finish, 0);
	return g;
}

struct bt_gather *bt_gather_cancel(struct bt_gather *g)
{
	if (!g)
		return NULL;
	for (size_t i = 0; i < g->n; i++)
		bt_ask_cancel(g->parts[i].ask);
	free_gather(g);
	return NULL;
}
