/* Placing a release in appBase.
 *
 *   copy aside → state: the new name, too → what was there out → rename → work cleared → state: the
 *   new name alone
 *
 * Tomcat does not run meanwhile, and is started only after the last step; so a crash leaves at
 * worst a state that names more than there is, and whoever starts next does all of it again. What
 * the state does not name was not placed by baton: it is left alone, or in the way. */
#include "driver/tomcat.h"

#include "base/fs.h"
#include "base/json.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ASIDE ".baton-new"
#define STATE_MAX 65536
#define PLACED_MAX 16

/* ---- the state ----------------------------------------------------------------------------------
 */

/* The file may have been changed by the user that Tomcat runs as. */
static bool is_plain(const char *name)
{
	return name[0] && name[0] != '.' && strlen(name) < 240 && !strchr(name, '/');
}

static int parse_state(
	const json_t *j, struct bt_arena *a, struct bt_tomcat_state *s, struct bt_err *err)
{
	json_t *placed = NULL, *item;
	const char *service = NULL, *slot = NULL, *shutdown = NULL;
	int64_t port = -1;
	size_t i;
	int r = bt_json_bool(j, "made", &s->made, err);
	if (r == 0)
		r = bt_json_str(j, "service", &service, err);
	if (r == 0)
		r = bt_json_str(j, "slot", &slot, err);
	if (r == 0)
		r = bt_json_array(j, "placed", &placed, err);
	if (r == 0)
		r = bt_json_int_opt(j, "shutdown_port", -1, 65535, &port, err);
	if (r == 0)
		r = bt_json_str_opt(j, "shutdown", &shutdown, err);
	if (r < 0)
		return r;
	const char **list = BT_ARENA_ARRAY(a, const char *, PLACED_MAX);
	json_array_foreach (placed, i, item) {
		const char *name = json_string_value(item);
		if (!name || !is_plain(name) || s->n_placed == PLACED_MAX)
			return bt_err_set(err, BT_E_CORRUPT, "placed: expected names");
		list[s->n_placed++] = bt_arena_strdup(a, name);
	}
	s->placed = list;
	s->service = bt_arena_strdup(a, service);
	s->slot = bt_arena_strdup(a, slot);
	s->shutdown_port = (int)port;
	s->shutdown = bt_arena_strdup(a, shutdown ? shutdown : "");
	return 0;
}

int bt_tomcat_state_read(
	int base, struct bt_arena *a, struct bt_tomcat_state *ret, struct bt_err *err)
{
	char text[STATE_MAX];
	struct bt_tomcat_state s = {.shutdown_port = -1};
	BT_JSON json_t *j = NULL;
	BT_CLOSE int fd =
		openat(base, BT_TOMCAT_STATE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return bt_err_set(err, BT_E_NOTFOUND, "%s: there is none", BT_TOMCAT_STATE);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
	if (n < 0)
		return bt_err_errno(err, errno, "read %s", BT_TOMCAT_STATE);
	int r = bt_json_parse(text, (size_t)n, sizeof text - 1, &j, err);
	if (r == 0)
		r = parse_state(j, a, &s, err);
	if (r < 0)
		return bt_err_wrap(err, "%s", BT_TOMCAT_STATE);
	*ret = s;
	return 0;
}

int bt_tomcat_state_write(int base, const struct bt_tomcat_state *s, struct bt_err *err)
{
	json_t *placed = json_array();
	for (size_t i = 0; i < s->n_placed; i++)
		json_array_append_new(placed, json_string(s->placed[i]));
	BT_JSON json_t *j = json_pack("{s:i, s:b, s:s, s:s, s:o, s:i, s:s}", "format", 1, "made",
		s->made, "service", s->service, "slot", s->slot, "placed", placed, "shutdown_port",
		s->shutdown_port, "shutdown", s->shutdown ? s->shutdown : "");
	BT_FREE char *text = bt_json_dump(j);
	BT_FREE char *path = bt_tomcat_below(base, BT_TOMCAT_STATE);
	int r = bt_fs_write_if_changed(path, text, strlen(text), 0600, err);
	return r < 0 ? bt_err_wrap(err, "%s", BT_TOMCAT_STATE) : 0;
}

/* ---- places
 * -------------------------------------------------------------------------------------- */

/* Relative to the base. A place elsewhere may be anybody's. */
static int open_app_base(
	int base, const struct bt_tomcat_plan *p, const char *app_base, struct bt_err *err)
{
	size_t n = strlen(p->base);
	const char *path = app_base;
	if (path[0] == '/')
		path = !strncmp(path, p->base, n) && path[n] == '/' ? path + n : NULL;
	if (!path || strstr(path, "${") || bt_str_starts(path, "../") || strstr(path, "/.."))
		return bt_err_set(err, BT_E_CONFIG,
			"its appBase is '%s', expected a directory beneath the base", app_base);
	int fd = bt_tomcat_open_dir(base, path);
	return fd < 0 ? bt_err_errno(err, -fd, "open its appBase '%s'", app_base) : fd;
}

static int remove_below(int dir, const char *name, const char *what, struct bt_err *err)
{
	BT_FREE char *path = bt_tomcat_below(dir, name);
	struct bt_err why = {0};
	int r = bt_fs_remove_tree(path, &why);
	return r < 0 ? bt_err_errno(err, -r, "remove '%s' from %s", name, what) : 0;
}

static int remove_placed(int app, const char *name, struct bt_err *err)
{
	BT_FREE char *war = bt_asprintf("%s.war", name);
	int r = remove_below(app, war, "appBase", err);
	return r < 0 ? r : remove_below(app, name, "appBase", err);
}

/* What Tomcat compiled and unpacked for the context: of another release, it would only confuse. */
static int clear_work(
	int base, const struct bt_tomcat_facts *f, const char *name, struct bt_err *err)
{
	if (!is_plain(f->engine) || !is_plain(f->host))
		return 0; /* Tomcat makes of such names what it likes */
	BT_FREE char *path = bt_asprintf("work/%s/%s", f->engine, f->host);
	BT_CLOSE int dir = bt_tomcat_open_dir(base, path);
	if (dir == -ENOENT)
		return 0;
	if (dir < 0)
		return bt_err_errno(err, -dir, "open its directory %s", path);
	return remove_below(dir, name, path, err);
}

/* ---- what others placed
 * -------------------------------------------------------------------------- */

static bool is_there(int dir, const char *name)
{
	struct stat st;
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int move_aside(int base, int app, const char *name, struct bt_err *err)
{
	if (mkdirat(base, BT_TOMCAT_BEFORE, 0700) < 0 && errno != EEXIST)
		return bt_err_errno(err, errno, "make %s", BT_TOMCAT_BEFORE);
	BT_CLOSE int to =
		openat(base, BT_TOMCAT_BEFORE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (to < 0)
		return bt_err_errno(err, errno, "open %s", BT_TOMCAT_BEFORE);
	BT_FREE char *as = bt_strdup(name);
	for (int i = 1; is_there(to, as); i++) {
		free(as);
		as = bt_asprintf("%s.%d", name, i);
	}
	if (renameat(app, name, to, as) < 0 || fsync(to) < 0)
		return bt_err_errno(err, errno, "move '%s' to %s", name, BT_TOMCAT_BEFORE);
	return 0;
}

static bool is_placed(const struct bt_tomcat_state *s, const char *name)
{
	for (size_t i = 0; i < s->n_placed; i++)
		if (bt_streq(s->placed[i], name))
			return true;
	return false;
}

/* What stands at the name and is not ours: refused, or (at `move`) moved aside. */
static int make_way(int base, int app, const struct bt_tomcat_plan *p,
	const struct bt_tomcat_state *s, bool move, struct bt_err *err)
{
	BT_FREE char *war = bt_asprintf("%s.war", p->name);
	const char *const names[] = {war, p->name};
	for (size_t i = 0; !is_placed(s, p->name) && i < BT_ARRAY_LEN(names); i++) {
		if (!is_there(app, names[i]))
			continue;
		if (!p->take_over)
			return bt_err_set(err, BT_E_REFUSED,
				"'%s' is in its appBase and was not placed by baton: move it away, "
				"or set run.tomcat.take_over",
				names[i]);
		int r = move ? move_aside(base, app, names[i], err) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- placing
 * ------------------------------------------------------------------------------------- */

/* The state names the new one and all the old ones before any of them is touched. */
static int announce(int base, const struct bt_tomcat_plan *p, const struct bt_tomcat_state *s,
	struct bt_err *err)
{
	const char *names[PLACED_MAX + 1];
	struct bt_tomcat_state both = *s;
	for (size_t i = 0; i < s->n_placed; i++)
		names[i] = s->placed[i];
	if (!is_placed(s, p->name))
		names[both.n_placed++] = p->name;
	both.placed = names;
	if (both.n_placed > PLACED_MAX)
		return bt_err_set(err, BT_E_CORRUPT, "%s names too many contexts", BT_TOMCAT_STATE);
	return bt_tomcat_state_write(base, &both, err);
}

static int swap(int base, int app, const struct bt_tomcat_plan *p, const struct bt_tomcat_facts *f,
	const struct bt_tomcat_state *s, bool is_dir, struct bt_err *err)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < s->n_placed; i++) {
		r = remove_placed(app, s->placed[i], err);
		if (r == 0)
			r = clear_work(base, f, s->placed[i], err);
	}
	if (r == 0)
		r = clear_work(base, f, p->name, err);
	BT_FREE char *name = bt_asprintf("%s%s", p->name, is_dir ? "" : ".war");
	if (r == 0 && (renameat(app, ASIDE, app, name) < 0 || fsync(app) < 0))
		r = bt_err_errno(err, errno, "place '%s'", name);
	return r;
}

int bt_tomcat_place(int base, const struct bt_tomcat_plan *p, const struct bt_tomcat_facts *facts,
	struct bt_tomcat_state *state, struct bt_err *err)
{
	struct stat st;
	const char *const name[] = {p->name};
	BT_CLOSE int app = open_app_base(base, p, facts->app_base, err);
	if (app < 0)
		return app;
	if (stat(p->artifact, &st) < 0)
		return bt_err_errno(err, errno, "read %s", p->artifact);
	int r = make_way(base, app, p, state, false, err);
	if (r == 0)
		r = remove_below(app, ASIDE, "appBase", err); /* of a crash */
	if (r == 0)
		r = bt_tomcat_copy(p->artifact, app, ASIDE, &p->owner, err);
	if (r < 0)
		return r;
	r = make_way(base, app, p, state, true, err);
	if (r == 0)
		r = announce(base, p, state, err);
	if (r == 0)
		r = swap(base, app, p, facts, state, S_ISDIR(st.st_mode), err);
	if (r < 0) {
		remove_below(app, ASIDE, "appBase", NULL);
		return r;
	}
	state->placed = name;
	state->n_placed = 1;
	r = bt_tomcat_state_write(base, state, err);
	state->placed = NULL;
	state->n_placed = 0;
	return r;
}
