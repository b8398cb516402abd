/* The L4 balancers as one row of the balancer table. */
#include "driver/l4_site.h"

#include "base/fs.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

static struct bt_l4_driver the_driver;
void (*bt_l4_step_hook)(const char *step);

struct bt_l4_driver *bt_l4_driver(void)
{
	return &the_driver;
}

void bt_l4_step(const char *step)
{
	if (bt_l4_step_hook)
		bt_l4_step_hook(step);
}

struct bt_l4_site *bt_l4_site_get(const char *service)
{
	struct bt_l4_site **p = &the_driver.sites;
	for (; *p; p = &(*p)->next)
		if (bt_streq((*p)->service, service))
			return *p;
	struct bt_l4_site *s = bt_calloc(1, sizeof *s);
	s->service = bt_strdup(service);
	s->state_path = bt_asprintf("%s/l4/%s/state.json", the_driver.env.state_dir, service);
	*p = s;
	return s;
}

const struct bt_l4_family *bt_l4_family_of(const struct bt_service *s)
{
	for (size_t i = 0; s->l4 && bt_l4_families[i]; i++)
		if (bt_l4_families[i]->kind == s->l4->kind)
			return bt_l4_families[i];
	return NULL;
}

/* ---- the start ---------------------------------------------------------------------------- */

static void resume(struct bt_l4_state *s)
{
	const struct bt_l4_family *f = bt_l4_family_of(s->confirmed.service);
	struct bt_l4_target t = {.service = s->confirmed.service,
		.members = bt_l4_state_effective(s, the_driver.env.host),
		.n_members = s->confirmed.n_members};
	if (f && f->resume)
		f->resume(&t);
}

static int load_site(const char *service, struct bt_err *err)
{
	struct bt_l4_site *site = bt_l4_site_get(service);
	struct bt_l4_state *s = NULL;
	int r = bt_l4_state_load(site->state_path, &s, err);
	if (r != 0)
		return r < 0 ? r : 0;
	bt_l4_state_free(site->state);
	site->state = s;
	if (s->has_confirmed)
		resume(s);
	site->recovering = s->has_pending;
	if (s->has_pending)
		bt_l4_tend_begin(site);
	return 0;
}

static int l4_init(const struct bt_driver_env *env, struct bt_err *err)
{
	int r = 0;
	the_driver.env = *env;
	for (size_t i = 0; r == 0 && bt_l4_families[i]; i++)
		if (bt_l4_families[i]->init)
			r = bt_l4_families[i]->init(&the_driver.env, err);
	if (r < 0)
		return r;
	BT_FREE char *dir = bt_asprintf("%s/l4", env->state_dir);
	DIR *d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : bt_err_errno(err, errno, "read %s", dir);
	for (struct dirent *e; r == 0 && (e = readdir(d));)
		if (e->d_name[0] != '.')
			r = load_site(e->d_name, err);
	closedir(d);
	return r;
}

static void l4_tend(void)
{
	for (struct bt_l4_site *s = the_driver.sites; s; s = s->next)
		if (s->state)
			bt_l4_tend_begin(s);
}

const struct bt_balancer_ops bt_balancer_l4 = {
	.name = "l4",
	.init = l4_init,
	.apply = bt_l4_apply_begin,
	.drain = bt_l4_drain_begin,
	.watch = bt_l4_watch_begin,
	.observe = bt_l4_observe_begin,
	.generation = bt_l4_generation_begin,
	.tend = l4_tend,
	.hold = bt_l4_hold_begin,
};
