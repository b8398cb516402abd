/* What only holds together: strategy and slots, forms and instances, ports of one host. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

static void tell(struct bt_reading *r, const char *path, const char *text)
{
	const struct bt_node *at = bt_reading_at(r, path);
	bt_problem(r->sink, at ? at : r->node, "%s: %s", path, text);
}

/* The ports of a managed nginx: where it listens, and where it redirects to https. */
enum { N_LISTEN = 2 };

static long listen_port(const struct bt_service *s, size_t i)
{
	if (!s->nginx || s->nginx->mode != BT_NGINX_MANAGED)
		return 0;
	const char *listen = i == 0 ? s->nginx->listen : s->nginx->redirect;
	const char *colon = listen ? strrchr(listen, ':') : NULL;
	return listen ? strtol(colon ? colon + 1 : listen, NULL, 10) : 0;
}

static bool listens(const struct bt_service *s, long port)
{
	for (size_t i = 0; i < N_LISTEN; i++)
		if (port && listen_port(s, i) == port)
			return true;
	return false;
}

static const struct bt_slot *slot_with(const struct bt_service *s, long port)
{
	for (size_t i = 0; i < s->run.n_slots; i++) {
		const struct bt_slot *slot = &s->run.slots[i];
		if (slot->port == port)
			return slot;
		for (size_t k = 0; k < slot->n_more; k++)
			if (slot->more[k].number == port)
				return slot;
	}
	return port && s->run.n_slots && port == s->tomcat.shutdown_port ? &s->run.slots[0] : NULL;
}

static bool runs_on(const struct bt_service *s, const char *host)
{
	for (size_t i = 0; i < s->n_hosts; i++)
		if (bt_streq(s->hosts[i], host))
			return true;
	return false;
}

static void check_health(struct bt_reading *r)
{
	static const char *const http_only[] = {"health.expect", "health.headers"};
	const struct bt_health *h = &r->service->health;
	bool http = h->kind == BT_HEALTH_HTTP || h->kind == BT_HEALTH_HTTPS;
	for (size_t i = 0; !http && i < BT_ARRAY_LEN(http_only); i++)
		if (bt_reading_at(r, http_only[i]))
			tell(r, http_only[i], "only with health.http or health.https");
	if (bt_reading_at(r, "health.verify") && h->kind != BT_HEALTH_HTTPS)
		tell(r, "health.verify", "only with health.https");
	if ((h->port || h->port_name) && h->kind == BT_HEALTH_EXEC)
		tell(r, "health.port", "not with health.exec");
	if ((h->passes - 1) * h->every_ms > h->within_ms)
		tell(r, "health.within",
			"too short for health.passes checks with health.every between them");
	for (size_t i = 0; i < h->n_headers; i++)
		if (strpbrk(h->headers[i].key, " \t\n:") || strchr(h->headers[i].value, '\n'))
			tell(r, "health.headers",
				"a header name has no blank or colon, a value no newline");
	if (!r->service->identity.path &&
		(r->service->identity.through || r->service->identity.expect))
		tell(r, "identity", "expected a path such as {path: /profile}");
}

static void check_environment(struct bt_reading *r)
{
	const struct bt_run *run = &r->service->run;
	for (size_t i = 0; i < run->n_secrets; i++)
		for (size_t j = 0; j < run->n_env; j++)
			if (bt_streq(run->secrets[i], run->env[j].key)) {
				BT_FREE char *text = bt_asprintf(
					"%s is in run.env too: keep one of them", run->secrets[i]);
				tell(r, "run.secrets", text);
			}
	if (run->restart_backoff_max_ms < run->restart_backoff_ms)
		tell(r, "run.restart.backoff_max", "less than run.restart.backoff");
}

/* One whole file for each slot, so all hosts are at the same one. */
static void check_sites(struct bt_reading *r)
{
	static const char path[] = "traffic.nginx.adopt.sites";
	const struct bt_service *s = r->service;
	const struct bt_nginx *n = s->nginx;
	if (s->deploy.strategy != BT_STRATEGY_BLUE_GREEN)
		tell(r, "traffic.nginx.adopt.form",
			"a site is one slot, and several would serve: use strategy: blue-green, or "
			"form: upstream");
	for (size_t i = 0; i < n->n_sites; i++) {
		BT_FREE char *text = NULL;
		bool known = false;
		for (size_t k = 0; k < s->run.n_slots; k++)
			known = known || bt_streq(s->run.slots[k].name, n->sites[i].key);
		for (size_t k = 0; k < i; k++)
			if (bt_streq(n->sites[k].value, n->sites[i].value))
				text = bt_asprintf("%s and %s have the same file", n->sites[k].key,
					n->sites[i].key);
		if (!known)
			text = bt_asprintf("%s is no slot", n->sites[i].key);
		else if (!text && (!bt_check_abs_path(n->sites[i].value) ||
					  bt_streq(n->sites[i].value, n->include)))
			text = bt_asprintf(
				"expected the absolute path of a file of its own for %s, "
				"found '%s'",
				n->sites[i].key, n->sites[i].value);
		if (text)
			tell(r, path, text);
	}
	for (size_t k = 0; k < s->run.n_slots; k++) {
		bool found = false;
		for (size_t i = 0; i < n->n_sites; i++)
			found = found || bt_streq(s->run.slots[k].name, n->sites[i].key);
		BT_FREE char *text = bt_asprintf("slot %s has no file", s->run.slots[k].name);
		if (!found)
			tell(r, path, text);
	}
}

/* What the variable forms can express: one address, and for the port form on nginx's own host. */
static void check_form(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	size_t at_once =
		s->n_hosts * (s->deploy.strategy == BT_STRATEGY_BLUE_GREEN ? 1 : s->run.n_slots);
	if (s->nginx->form == BT_NGINX_SITE)
		check_sites(r);
	else if (s->nginx->n_sites)
		tell(r, "traffic.nginx.adopt.sites", "only with form: site");
	if (s->nginx->form == BT_NGINX_UPSTREAM || s->nginx->form == BT_NGINX_SITE)
		return;
	if (at_once > 1)
		tell(r, "traffic.nginx.adopt.form",
			"this form sends to one instance, and several would serve: use form: "
			"upstream");
	for (size_t i = 0; s->nginx->form == BT_NGINX_SERVICE_PORT && i < s->nginx->n_on; i++)
		if (!runs_on(s, s->nginx->on[i]))
			tell(r, "traffic.nginx.adopt.form",
				"a port alone means nginx's own host, and the service runs on "
				"another: use "
				"form: service_url");
}

static void check_listen(struct bt_reading *r)
{
	static const char *const paths[N_LISTEN] = {
		"traffic.nginx.listen", "traffic.nginx.tls.redirect"};
	const struct bt_service *s = r->service;
	const struct bt_nginx *n = s->nginx;
	for (size_t i = 0; i < N_LISTEN; i++)
		for (size_t k = 0; k < n->n_on; k++) {
			const struct bt_slot *slot =
				runs_on(s, n->on[k]) ? slot_with(s, listen_port(s, i)) : NULL;
			if (!slot)
				continue;
			BT_FREE char *text = bt_asprintf("port %ld is that of slot %s on host %s",
				listen_port(s, i), slot->name, n->on[k]);
			tell(r, paths[i], text);
		}
	if (n->redirect && listen_port(s, 0) == listen_port(s, 1))
		tell(r, paths[1], "the port of traffic.nginx.listen, which speaks https");
}

static void check_nginx(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_nginx *n = s->nginx;
	bool adopt = n->mode == BT_NGINX_ADOPT;
	for (size_t i = 0; adopt && i < bt_n_keys; i++)
		if (bt_keys[i].when == BT_KEY_MANAGED && r->at[i] &&
			strcmp(bt_keys[i].path, "traffic.nginx.tls.certificate") != 0 &&
			strcmp(bt_keys[i].path, "traffic.nginx.tls.key") != 0)
			bt_problem(r->sink, r->at[i],
				"%s: not with adopt, where your own configuration says it",
				bt_keys[i].path);
	if (adopt && n->one && n->form != BT_NGINX_UPSTREAM)
		tell(r, "traffic.nginx.adopt.one", "only with form: upstream");
	if (adopt && n->one && bt_streq(n->one, n->upstream))
		tell(r, "traffic.nginx.adopt.one", "expected another name than the upstream's");
	if (adopt) {
		if (!n->include)
			tell(r, "traffic.nginx.adopt",
				"include is missing: expected the absolute path of the file that "
				"baton owns");
		check_form(r);
		return;
	}
	if (!n->certificate != !n->certificate_key)
		tell(r, "traffic.nginx.tls", "expected both certificate and key");
	check_listen(r);
	if (n->certificate)
		return;
	if (n->http2)
		tell(r, "traffic.nginx.tls.http2", "only with a certificate");
	if (n->redirect)
		tell(r, "traffic.nginx.tls.redirect", "only with a certificate");
}

static void check_strategy(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_deploy *d = &s->deploy;
	int64_t total = (int64_t)(s->n_hosts * s->run.n_slots);
	const struct bt_node *slots = bt_reading_at(r, "run.slots");
	if (d->strategy == BT_STRATEGY_BLUE_GREEN && s->run.n_slots == 1 && slots->n == 1)
		tell(r, "run.slots",
			"blue-green needs at least 2 slots, found 1 (or strategy: rolling)");
	if (total > 8192)
		tell(r, "run.slots", "more than 8192 instances over all hosts");
	int64_t most = d->strategy == BT_STRATEGY_BLUE_GREEN ? (int64_t)s->n_hosts
		       : d->strategy == BT_STRATEGY_RECREATE ? 0
							     : total - 1;
	if (s->run.n_slots && d->min_in_rotation > most) {
		BT_FREE char *text = bt_asprintf("%s with %lld instances allows at most %lld",
			bt_enum_name(&bt_enum_strategy, d->strategy), (long long)total,
			(long long)most);
		tell(r, "deploy.min_in_rotation", text);
	}
	if (d->keep_warm_ms && d->strategy != BT_STRATEGY_BLUE_GREEN)
		tell(r, "deploy.keep_warm", "only with strategy: blue-green");
	bool flows = s->n_flows > 0; /* their stages take it where they have none of their own */
	if (d->strategy != BT_STRATEGY_ROLLING && d->strategy != BT_STRATEGY_CANARY && !flows &&
		bt_reading_at(r, "deploy.batch") && (d->batch != 1 || d->batch_percent))
		tell(r, "deploy.batch", "only with strategy: rolling or canary");
	if (d->strategy != BT_STRATEGY_CANARY && bt_reading_at(r, "deploy.canary") &&
		(d->canary != 1 || d->canary_percent))
		tell(r, "deploy.canary", "only with strategy: canary");
}

/* One balancer a service: who is in rotation is said in one place. */
static void check_families(struct bt_reading *r)
{
	enum bt_balancer_kind first = BT_BALANCER_NONE;
	for (size_t i = 0; i < bt_n_keys; i++) {
		const struct bt_key *k = &bt_keys[i];
		enum bt_balancer_kind family = k->in == BT_IN_NGINX ? BT_BALANCER_NGINX
					       : k->in == BT_IN_L4  ? k->family
								    : BT_BALANCER_NONE;
		if (family == BT_BALANCER_NONE || k->type || !r->at[i] || family == first ||
			strchr(strchr(k->path, '.') + 1, '.'))
			continue;
		if (first != BT_BALANCER_NONE)
			bt_problem(r->sink, r->at[i],
				"%s: traffic.%s is given, too: a service has one balancer", k->path,
				bt_enum_name(&bt_enum_balancer, (int)first));
		else
			first = family;
	}
}

void bt_config_check_service(struct bt_reading *r)
{
	check_families(r);
	check_health(r);
	check_environment(r);
	check_strategy(r);
	bt_config_check_ports(r);
	bt_config_check_hooks(r);
	bt_config_check_flows(r);
	bt_config_check_loopback(r);
	bt_config_check_notify(r);
	bt_config_check_tomcat(r);
	bt_config_check_bundle(r);
	if (r->nginx)
		check_nginx(r);
	if (r->l4)
		bt_config_check_l4(r);
}

/* Ports a service takes on a host: its slots, and nginx's own. */
static const char *taken(const struct bt_service *s, const char *host, long port)
{
	const struct bt_slot *slot = runs_on(s, host) ? slot_with(s, port) : NULL;
	if (slot)
		return slot->name;
	if (port && bt_config_rotation_port(s, host) == port)
		return "traffic.rotation";
	return s->nginx && bt_nginx_is_on(s->nginx, host) && listens(s, port) ? "nginx" : NULL;
}

static void check_port(struct bt_problem_sink *sink, const struct bt_node *at,
	const struct bt_service *earlier, const struct bt_service *later, const char *host,
	long port, const char *what)
{
	const char *by = port ? taken(earlier, host, port) : NULL;
	if (by)
		bt_problem(sink, at, "port %ld of %s (%s) on host %s is taken by %s of %s", port,
			later->name, what, host, by, earlier->name);
}

static void check_slot(struct bt_problem_sink *sink, const struct bt_node *at,
	const struct bt_service *earlier, const struct bt_service *later, const char *host,
	const struct bt_slot *slot)
{
	check_port(sink, at, earlier, later, host, slot->port, slot->name);
	for (size_t i = 0; i < slot->n_more; i++)
		check_port(sink, at, earlier, later, host, slot->more[i].number, slot->name);
}

void bt_config_check_pair(struct bt_problem_sink *sink, const struct bt_node *at,
	const struct bt_service *earlier, const struct bt_service *later)
{
	if (bt_streq(earlier->name, later->name))
		bt_problem(sink, at, "service %s is defined twice, first in %s:%d", later->name,
			earlier->file ? earlier->file : "?", earlier->line);
	for (size_t h = 0; h < later->n_hosts; h++) {
		for (size_t i = 0; i < later->run.n_slots; i++)
			check_slot(sink, at, earlier, later, later->hosts[h], &later->run.slots[i]);
		if (later->run.as != BT_RUNTIME_TOMCAT || !runs_on(earlier, later->hosts[h]))
			continue;
		check_port(sink, at, earlier, later, later->hosts[h], later->tomcat.shutdown_port,
			"run.tomcat.shutdown_port");
		bt_config_check_tomcat_pair(sink, at, earlier, later, later->hosts[h]);
	}
	for (size_t i = 0; earlier->l4 && later->l4 && earlier->l4->vip && later->l4->vip &&
			   earlier->l4->port == later->l4->port && i < later->l4->n_on;
		i++)
		if (bt_streq(earlier->l4->vip, later->l4->vip) &&
			bt_service_balances_on(earlier, later->l4->on[i]))
			bt_problem(sink, at, "vip %s port %u on host %s is that of %s too",
				later->l4->vip, later->l4->port, later->l4->on[i], earlier->name);
	bt_config_check_rotation_pair(sink, at, earlier, later);
	for (size_t h = 0; h < later->n_hosts; h++) {
		long port = bt_config_rotation_port(later, later->hosts[h]);
		if (port != bt_config_rotation_port(earlier, later->hosts[h]))
			check_port(sink, at, earlier, later, later->hosts[h], port,
				"traffic.rotation");
	}
	for (size_t i = 0; later->nginx && i < later->nginx->n_on; i++) {
		const char *on = later->nginx->on[i], *file = later->nginx->include;
		for (size_t k = 0; k < N_LISTEN; k++)
			check_port(sink, at, earlier, later, on, listen_port(later, k), "nginx");
		if (earlier->nginx && file && bt_streq(earlier->nginx->include, file) &&
			bt_nginx_is_on(earlier->nginx, on))
			bt_problem(sink, at, "the include file %s on host %s is that of %s too",
				file, on, earlier->name);
	}
}
