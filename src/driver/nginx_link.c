#include "driver/nginx_link.h"

#include "base/fs.h"
#include "base/str.h"
#include "driver/nginx_conf.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX (1u << 20)

/* ---- values ------------------------------------------------------------------------------- */

static int read_link(const char *path, char **ret, struct bt_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof target - 1);
	if (n < 0)
		return bt_err_errno(err, errno, "read link %s", path);
	target[n] = 0;
	*ret = bt_asprintf(BT_NGINX_LINK "%s", target);
	return 0;
}

int bt_nginx_value_read(const char *path, bool links, char **ret, struct bt_err *err)
{
	struct stat st;
	size_t n = 0;
	char *text = NULL;
	if (links && lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
		return read_link(path, ret, err);
	int r = bt_fs_read(path, FILE_MAX, &text, &n, err);
	if (r == -ENOENT) {
		bt_err_clear(err);
		*ret = NULL;
		return 0;
	}
	if (r < 0)
		return r;
	if (strlen(text) != n) {
		free(text);
		return bt_err_set(
			err, BT_E_REFUSED, "%s holds NUL bytes: it is no nginx file", path);
	}
	*ret = text;
	return 0;
}

int bt_nginx_value_write(const char *path, const char *value, struct bt_err *err)
{
	if (bt_str_starts(value, BT_NGINX_LINK))
		return bt_fs_symlink_atomic(value + strlen(BT_NGINX_LINK), path, err);
	return bt_fs_write_atomic(path, value, strlen(value), 0644, err);
}

/* ---- which site --------------------------------------------------------------------------- */

static const char *site_of(const struct bt_nginx *n, const char *slot)
{
	for (size_t i = 0; i < n->n_sites; i++)
		if (bt_streq(n->sites[i].key, slot))
			return n->sites[i].value;
	return NULL;
}

static bool same_file(const char *a, const char *b)
{
	BT_FREE char *x = realpath(a, NULL);
	BT_FREE char *y = realpath(b, NULL);
	return x && y && bt_streq(x, y);
}

/* The slot whose file the value leads to, or is a copy of; NULL: none. */
static const struct bt_slot *slot_of(const struct bt_service *s, const char *value)
{
	const struct bt_nginx *n = s->nginx;
	bool link = bt_str_starts(value, BT_NGINX_LINK);
	for (size_t i = 0; i < s->run.n_slots; i++) {
		const char *site = site_of(n, s->run.slots[i].name);
		BT_FREE char *text = NULL;
		if (!site)
			continue;
		if (link ? same_file(n->include, site)
			 : bt_nginx_value_read(site, false, &text, NULL) == 0 &&
					bt_streq(text, value))
			return &s->run.slots[i];
	}
	return NULL;
}

/* ---- what it sends to --------------------------------------------------------------------- */

/* The servers of a site at its slot's port: a site may send elsewhere too. */
static int members_of(const struct bt_service *s, const struct bt_slot *slot, struct bt_arena *a,
	struct bt_seen_member **ret, size_t *ret_n, struct bt_err *err)
{
	const char *site = site_of(s->nginx, slot->name);
	BT_FREE char *text = NULL;
	struct bt_seen_member *all = NULL;
	size_t n = 0, k = 0;
	if (!site)
		return bt_err_set(
			err, BT_E_REFUSED, "slot %s has no file among adopt.sites", slot->name);
	int r = bt_nginx_value_read(site, false, &text, err);
	if (r == 0 && !text)
		r = bt_err_set(err, BT_E_REFUSED, "%s, the site of slot %s, does not exist", site,
			slot->name);
	if (r == 0)
		r = bt_nginx_conf_members(text, strlen(text), s->nginx, s->name, a, &all, &n, err);
	if (r < 0)
		return bt_err_wrap(err, "nginx");
	for (size_t i = 0; i < n; i++)
		if (all[i].in && all[i].port == slot->port)
			all[k++] = all[i];
	if (k == 0)
		return bt_err_set(err, BT_E_REFUSED,
			"%s, the site of slot %s, sends nowhere at port %u, which is that slot's",
			site, slot->name, slot->port);
	*ret = all;
	*ret_n = k;
	return 0;
}

static int neither(const struct bt_service *s, struct bt_err *err)
{
	BT_STR struct bt_str sites = {0};
	for (size_t i = 0; i < s->nginx->n_sites; i++)
		bt_str_addf(&sites, "%s%s (%s)", i ? ", " : "", s->nginx->sites[i].value,
			s->nginx->sites[i].key);
	return bt_err_set(err, BT_E_REFUSED,
		"%s is neither a link to nor a copy of one of %s, so it cannot be told which slot "
		"is live: link it to the one that shall be (ln -sf)",
		s->nginx->include, bt_str_get(&sites));
}

int bt_nginx_link_members(const struct bt_service *s, const char *value, struct bt_arena *a,
	struct bt_seen_member **ret, size_t *ret_n, struct bt_err *err)
{
	const struct bt_slot *live = value ? slot_of(s, value) : NULL;
	if (value && !live)
		return neither(s, err);
	*ret = NULL;
	*ret_n = 0;
	for (size_t i = 0; i < s->run.n_slots; i++) {
		struct bt_seen_member *list = NULL;
		size_t n = 0;
		int r = members_of(s, &s->run.slots[i], a, &list, &n, err);
		if (r < 0)
			return r;
		if (&s->run.slots[i] == live) {
			*ret = list;
			*ret_n = n;
		}
	}
	return 0;
}
