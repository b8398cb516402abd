#include "driver/nginx_unit.h"

#include <string.h>
#include <unistd.h>

#define DUMP_MAX (8u << 20)
#define TEST_TIMEOUT_MS 20000

static struct bt_nginx_driver the_driver;
void (*bt_nginx_step_hook)(const char *step);

struct bt_nginx_driver *bt_nginx_driver(void)
{
	return &the_driver;
}

struct bt_nginx_unit *bt_nginx_unit_get(
	const char *binary, const char *config, const char *prefix, bool managed)
{
	struct bt_nginx_unit **p = &the_driver.units;
	for (; *p; p = &(*p)->next)
		if (bt_streq((*p)->binary, binary) && bt_streq((*p)->config, config) &&
			bt_streq((*p)->prefix, prefix))
			return *p;
	struct bt_nginx_unit *u = bt_calloc(1, sizeof *u);
	u->binary = bt_strdup(binary);
	u->config = bt_strdup(config);
	u->prefix = bt_strdup(prefix);
	u->managed = managed;
	if (managed) { /* baton wrote it: nothing to find out */
		u->facts.pid_file = bt_asprintf("%s/nginx.pid", prefix);
		u->facts.error_log = bt_asprintf("%s/logs/error.log", prefix);
		u->facts_known = true;
	}
	*p = u;
	return u;
}

struct bt_nginx_site *bt_nginx_site_get(const char *service)
{
	struct bt_nginx_site **p = &the_driver.sites;
	for (; *p; p = &(*p)->next)
		if (bt_streq((*p)->service, service))
			return *p;
	struct bt_nginx_site *s = bt_calloc(1, sizeof *s);
	s->service = bt_strdup(service);
	s->dir = bt_asprintf("%s/balancers/%s", the_driver.env->state_dir, service);
	s->state_path = bt_asprintf("%s/state.json", s->dir);
	*p = s;
	return s;
}

struct bt_nginx_site *bt_nginx_site_of(const struct bt_service *service)
{
	const struct bt_nginx *n = service->nginx;
	struct bt_nginx_site *s = bt_nginx_site_get(service->name);
	const char *binary = n->binary ? n->binary : "nginx";
	if (n->mode == BT_NGINX_MANAGED) {
		BT_FREE char *prefix = bt_asprintf("%s/nginx", s->dir);
		BT_FREE char *config = bt_asprintf("%s/nginx.conf", prefix);
		s->unit = bt_nginx_unit_get(binary, config, prefix, true);
	} else {
		s->unit = bt_nginx_unit_get(binary, n->config, n->prefix, false);
	}
	return s;
}

/* A link of a person's is written through, not replaced. */
char *bt_nginx_file_of(const struct bt_nginx_site *site, const struct bt_nginx *n)
{
	if (n->mode == BT_NGINX_MANAGED)
		return bt_asprintf("%s/nginx/nginx.conf", site->dir);
	if (n->form == BT_NGINX_SITE) /* … but here the link is what is switched */
		return bt_strdup(n->include);
	char *real = realpath(n->include, NULL);
	return real ? real : bt_strdup(n->include);
}

void bt_nginx_set_trouble(struct bt_nginx_site *site, const char *text)
{
	char *copy = bt_strdup(text);
	free(site->trouble);
	site->trouble = copy;
}

void bt_nginx_argv(const struct bt_nginx_unit *u, const char *extra, const char *argv[static 12])
{
	size_t n = 0;
	argv[n++] = u->binary;
	if (u->prefix) {
		argv[n++] = "-p";
		argv[n++] = u->prefix;
	}
	if (u->config) {
		argv[n++] = "-c";
		argv[n++] = u->config;
	}
	if (extra)
		argv[n++] = extra;
	argv[n] = NULL;
}

/* ---- nginx -V and -T ---------------------------------------------------------------------- */

struct bt_nginx_test {
	struct bt_nginx_unit *unit;
	struct bt_child *child;
	struct event *later;
	bt_nginx_test_fn done;
	void *arg;
	struct bt_err err;
};

static void test_free(struct bt_nginx_test *t)
{
	bt_child_cancel(t->child);
	event_free(t->later);
	free(t);
}

static void test_end(struct bt_nginx_test *t, int result, const char *dump)
{
	t->done(t->arg, result, dump, &t->err);
	test_free(t);
}

static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct bt_nginx_test *t = arg;
	(void)fd;
	(void)what;
	test_end(t, t->err.code, NULL);
}

static void run_nginx(struct bt_nginx_test *t, const char *extra, size_t max_output,
	void (*done)(void *, const struct bt_child_result *))
{
	const char *argv[12];
	bt_nginx_argv(t->unit, extra, argv);
	struct bt_child_spec spec = {.argv = argv,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.timeout_ms = TEST_TIMEOUT_MS,
		.max_output = max_output};
	if (bt_child_start(the_driver.env->base, &spec, done, t, &t->child, &t->err) < 0)
		bt_timer_in(t->later, 0);
}

static void on_tested(void *arg, const struct bt_child_result *r)
{
	struct bt_nginx_test *t = arg;
	struct bt_nginx_unit *u = t->unit;
	t->child = NULL;
	if (r->exit_code != 0) {
		BT_FREE char *reason = bt_nginx_reason(r->output);
		if (r->timed_out)
			bt_err_set(&t->err, BT_E_TIMEOUT, "nginx -t did not end within %d s",
				TEST_TIMEOUT_MS / 1000);
		else
			bt_err_set(&t->err, BT_E_FAILED, "nginx -t: %s", reason);
		test_end(t, t->err.code, NULL);
		return;
	}
	if (!u->managed) {
		bt_nginx_facts_done(&u->facts);
		bt_nginx_facts_read(u->version_output, r->output, u->prefix, &u->facts);
		u->facts_known = true;
	}
	test_end(t, 0, r->output);
}

static void on_version(void *arg, const struct bt_child_result *r)
{
	struct bt_nginx_test *t = arg;
	t->child = NULL;
	if (r->exit_code != 0) {
		char how[256];
		bt_err_set(&t->err, BT_E_FAILED, "%s -V: %s", t->unit->binary,
			bt_child_describe(r, how, sizeof how));
		test_end(t, t->err.code, NULL);
		return;
	}
	free(t->unit->version_output);
	t->unit->version_output = bt_strdup(r->output);
	run_nginx(t, "-T", DUMP_MAX, on_tested);
}

struct bt_nginx_test *bt_nginx_test_start(struct bt_nginx_unit *u, bt_nginx_test_fn done, void *arg)
{
	struct bt_nginx_test *t = bt_calloc(1, sizeof *t);
	t->unit = u;
	t->done = done;
	t->arg = arg;
	t->later = event_new(the_driver.env->base, -1, 0, on_later, t);
	if (u->managed || u->version_output)
		run_nginx(t, "-T", DUMP_MAX, on_tested);
	else
		run_nginx(t, "-V", 65536, on_version);
	return t;
}

struct bt_nginx_test *bt_nginx_test_cancel(struct bt_nginx_test *t)
{
	if (t)
		test_free(t);
	return NULL;
}
