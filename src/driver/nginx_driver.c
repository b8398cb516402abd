/* nginx as one row of the balancer table. */
#include "driver/nginx_driver.h"

#include "base/fs.h"
#include "driver/nginx_unit.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define STATE_FILE_MAX (4u << 20)
#define LOG_MAX (64 << 20)

static int load_site(const char *service, struct bt_err *err)
{
	struct bt_nginx_site *site = bt_nginx_site_get(service);
	BT_FREE char *text = NULL;
	size_t n = 0;
	int r = bt_fs_read(site->state_path, STATE_FILE_MAX, &text, &n, err);
	if (r == -ENOENT) {
		bt_err_clear(err);
		return 0;
	}
	struct bt_nginx_state *s = NULL;
	if (r == 0)
		r = bt_nginx_state_parse(text, n, &s, err);
	if (r < 0)
		return bt_err_wrap(err, "%s", site->state_path);
	bt_nginx_state_free(site->state);
	site->state = s;
	site->unit = bt_nginx_unit_get(s->binary, s->config, s->prefix, s->managed);
	if (s->has_pending)
		bt_nginx_recover_begin(site);
	return 0;
}

static int nginx_init(const struct bt_driver_env *env, struct bt_err *err)
{
	static struct bt_driver_env kept;
	kept = *env;
	bt_nginx_driver()->env = &kept;
	BT_FREE char *dir = bt_asprintf("%s/balancers", env->state_dir);
	DIR *d = opendir(dir);
	if (!d)
		return errno == ENOENT ? 0 : bt_err_errno(err, errno, "read %s", dir);
	int r = 0;
	for (struct dirent *e; r == 0 && (e = readdir(d));)
		if (e->d_name[0] != '.')
			r = load_site(e->d_name, err);
	closedir(d);
	return r;
}

/* ---- tend --------------------------------------------------------------------------------- */

/* A managed nginx's log is baton's to bound: one older file is kept. */
static void rotate_logs(const struct bt_nginx_unit *u, const struct bt_nginx_proc *master)
{
	static const char *const names[] = {"access.log", "error.log"};
	bool moved = false;
	for (size_t i = 0; i < BT_ARRAY_LEN(names); i++) {
		BT_FREE char *path = bt_asprintf("%s/logs/%s", u->prefix, names[i]);
		BT_FREE char *older = bt_asprintf("%s.1", path);
		struct stat st;
		if (stat(path, &st) == 0 && st.st_size > LOG_MAX && rename(path, older) == 0)
			moved = true;
	}
	if (moved)
		kill(master->pid, SIGUSR1);
}

static void nginx_tend(void)
{
	for (struct bt_nginx_site *s = bt_nginx_driver()->sites; s; s = s->next) {
		struct bt_nginx_proc master;
		if (!s->state || s->unit->running || s->unit->queue)
			continue;
		if (s->state->has_pending)
			bt_nginx_recover_begin(s);
		else if (!s->unit->managed)
			continue; /* the user's to start; observe() says that it is down */
		else if (bt_nginx_master(s->unit->facts.pid_file, &master) != 0)
			bt_nginx_restart_begin(s);
		else {
			rotate_logs(s->unit, &master);
			bt_nginx_certificate_look(s);
		}
	}
}

const struct bt_balancer_ops bt_balancer_nginx = {
	.name = "nginx",
	.init = nginx_init,
	.apply = bt_nginx_apply_begin,
	.drain = bt_nginx_drain_begin,
	.watch = bt_nginx_watch_begin,
	.observe = bt_nginx_observe_begin,
	.tend = nginx_tend,
	.hold = bt_nginx_hold_begin,
};
