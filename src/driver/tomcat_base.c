/* A CATALINA_BASE: one that people made is used as it is, and only held against the slot; one that
 * baton makes gets its texts anew at each start, so that it follows the config.
 *
 * Of a made base everything but what Tomcat writes to (logs, temp, work, webapps) belongs to the
 * agent's user. */
#include "driver/tomcat.h"

#include "base/fs.h"
#include "base/str.h"
#include "driver/zip_check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROPERTIES "catalina.properties"
#define CONF_MAX (4u << 20)

/* ---- what there is ------------------------------------------------------------------------------
 */

static int check_artifact(const struct bt_tomcat_plan *p, struct bt_err *err)
{
	struct stat st;
	if (stat(p->artifact, &st) < 0)
		return bt_err_errno(err, errno, "read %s", p->artifact);
	int r = S_ISDIR(st.st_mode) ? 0 : bt_zip_check(p->artifact, err);
	return r < 0 ? bt_err_wrap(err, "%s is no WAR", p->artifact) : 0;
}

static int check_home(const struct bt_tomcat_plan *p, struct bt_err *err)
{
	static const char *const parts[] = {"bin/catalina.sh", "bin/bootstrap.jar", "lib"};
	for (size_t i = 0; i < BT_ARRAY_LEN(parts); i++) {
		BT_FREE char *path = bt_asprintf("%s/%s", p->home, parts[i]);
		if (!bt_fs_exists(path))
			return bt_err_set(err, BT_E_CONFIG,
				"run.tomcat.home: there is no %s: expected the directory of a "
				"Tomcat, such as /usr/share/tomcat10",
				path);
	}
	return 0;
}

/* BASE, opened; an exclusive lock is held until it is closed. -1 with err. */
static int open_base(const struct bt_tomcat_plan *p, struct bt_err *err)
{
	int r = bt_fs_mkdirs(p->base, 0755, err);
	if (r < 0)
		return r;
	int fd = open(p->base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return bt_err_errno(err, errno, "open %s", p->base);
	/* Somebody may still be at it whose start was given up. */
	if (flock(fd, LOCK_EX) < 0) {
		r = bt_err_errno(err, errno, "lock %s", p->base);
		close(fd);
		return r;
	}
	return fd;
}

/* The state that is there, or a first one. */
static int read_state(int base, const struct bt_tomcat_plan *p, struct bt_arena *a,
	struct bt_tomcat_state *s, struct bt_err *err)
{
	struct stat st;
	int r = bt_tomcat_state_read(base, a, s, err);
	if (r == BT_E_NOTFOUND) {
		bt_err_clear(err);
		*s = (struct bt_tomcat_state){.service = p->service,
			.slot = p->slot,
			.made = fstatat(base, "conf/server.xml", &st, 0) < 0,
			.shutdown_port = -1};
		return 0;
	}
	if (r == 0 && (!bt_streq(s->service, p->service) || !bt_streq(s->slot, p->slot)))
		return bt_err_set(err, BT_E_REFUSED,
			"it is the base of %s/%s (%s says so): give each slot its own", s->service,
			s->slot, BT_TOMCAT_STATE);
	return r;
}

/* ---- a base that baton makes --------------------------------------------------------------------
 */

static int make_dir(int at, const char *name, const struct bt_tomcat_owner *o, struct bt_err *err)
{
	bool made = mkdirat(at, name, 0755) == 0;
	if (!made && errno != EEXIST)
		return bt_err_errno(err, errno, "make its directory %s", name);
	BT_CLOSE int fd = bt_tomcat_open_dir(at, name);
	if (fd < 0)
		return bt_err_errno(err, -fd, "open its directory %s", name);
	if (made && o && o->uid >= 0 && fchown(fd, (uid_t)o->uid, (gid_t)o->gid) < 0)
		return bt_err_errno(err, errno, "give its directory %s to its user", name);
	/* Whatever the agent's umask. */
	if (made && fchmod(fd, 0755) < 0)
		return bt_err_errno(err, errno, "make its directory %s", name);
	return 0;
}

static int make_dirs(int base, const struct bt_tomcat_plan *p, struct bt_err *err)
{
	static const struct {
		const char *name;
		bool written; /* by Tomcat */
	} dirs[] = {{"conf", false}, {"conf/Catalina", false}, {"conf/Catalina/localhost", true},
		{"lib", false}, {"logs", true}, {"temp", true}, {"webapps", true}, {"work", true}};
	int r = fchmod(base, 0755) < 0 ? bt_err_errno(err, errno, "open it to its user") : 0;
	for (size_t i = 0; r == 0 && i < BT_ARRAY_LEN(dirs); i++)
		r = make_dir(base, dirs[i].name, dirs[i].written ? &p->owner : NULL, err);
	return r;
}

static int write_conf(int conf, const char *name, const char *text, size_t n, struct bt_err *err)
{
	BT_FREE char *path = bt_tomcat_below(conf, name);
	int r = bt_fs_write_if_changed(path, text, n, 0644, err);
	return r < 0 ? bt_err_wrap(err, "conf/%s", name) : 0;
}

/* Debian keeps the first configuration in etc, a distribution of its makers in conf. */
static char *home_conf(const struct bt_tomcat_plan *p)
{
	BT_FREE char *conf = bt_asprintf("%s/conf", p->home);
	BT_FREE char *web = bt_asprintf("%s/web.xml", conf);
	return bt_fs_exists(web) ? BT_STEAL(conf) : bt_asprintf("%s/etc", p->home);
}

/* Those of the distribution, the first time; but for the ones that are rendered. */
static int copy_conf(int conf, const char *from, struct bt_err *err)
{
	static const char *const ours[] = {"server.xml", "logging.properties", PROPERTIES};
	DIR *d = opendir(from);
	if (!d)
		return bt_err_errno(err, errno, "read %s", from);
	int r = 0;
	for (struct dirent *e; r == 0 && (e = readdir(d));) {
		struct stat st;
		BT_FREE char *path = bt_asprintf("%s/%s", from, e->d_name);
		BT_FREE char *text = NULL;
		bool skip = e->d_name[0] == '.' || stat(path, &st) < 0 || !S_ISREG(st.st_mode) ||
			    faccessat(conf, e->d_name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
		for (size_t i = 0; i < BT_ARRAY_LEN(ours); i++)
			skip = skip || bt_streq(e->d_name, ours[i]);
		size_t n;
		if (skip)
			continue;
		r = bt_fs_read(path, CONF_MAX, &text, &n, err);
		if (r == 0)
			r = write_conf(conf, e->d_name, text, n, err);
	}
	closedir(d);
	return r;
}

/* The distribution's, and a last word on the JARs that are not scanned: a later line of a property
 * replaces an earlier one. */
static int write_properties(
	int conf, const char *from, const struct bt_tomcat_plan *p, struct bt_err *err)
{
	BT_FREE char *path = bt_asprintf("%s/%s", from, PROPERTIES);
	BT_FREE char *text = NULL;
	BT_STR struct bt_str out = {0};
	int r = bt_fs_read(path, CONF_MAX, &text, NULL, err);
	if (r < 0)
		return r;
	bt_str_add(&out, text);
	if (p->jars_to_skip) {
		bt_str_add(&out, "\n\ntomcat.util.scan.StandardJarScanFilter.jarsToSkip=");
		for (const char *c = p->jars_to_skip; *c; c++)
			bt_str_addf(&out, *c == '\\' ? "\\\\" : *c == '\n' ? " " : "%c", *c);
		bt_str_add(&out, "\n");
	}
	return write_conf(conf, PROPERTIES, bt_str_get(&out), out.len, err);
}

static int make_base(int base, const struct bt_tomcat_plan *p, struct bt_err *err)
{
	BT_FREE char *from = home_conf(p);
	BT_STR struct bt_str server = {0};
	int r = make_dirs(base, p, err);
	if (r < 0)
		return r;
	BT_CLOSE int conf = bt_tomcat_open_dir(base, "conf");
	if (conf < 0)
		return bt_err_errno(err, -conf, "open its directory conf");
	bt_tomcat_render(&p->server, &server);
	r = copy_conf(conf, from, err);
	if (r == 0)
		r = write_properties(conf, from, p, err);
	if (r == 0)
		r = write_conf(conf, "logging.properties", bt_tomcat_logging,
			strlen(bt_tomcat_logging), err);
	if (r == 0)
		r = write_conf(conf, "server.xml", bt_str_get(&server), server.len, err);
	return r;
}

/* ---- a base as it is
 * ----------------------------------------------------------------------------- */

static int read_facts(
	int base, const struct bt_tomcat_plan *p, struct bt_tomcat_facts *f, struct bt_err *err)
{
	BT_FREE char *path = bt_tomcat_below(base, "conf/server.xml");
	BT_FREE char *text = NULL;
	size_t n;
	struct bt_err why = {0};
	int r = bt_fs_read(path, BT_TOMCAT_XML_MAX, &text, &n, &why);
	if (r < 0)
		return bt_err_set(err, r, "its conf/server.xml cannot be read: %s", why.text);
	r = bt_tomcat_facts_read(text, n, p->properties, p->n_properties, f, err);
	return r < 0 ? bt_err_wrap(err, "conf/server.xml") : 0;
}

static int check_ports(
	const struct bt_tomcat_plan *p, const struct bt_tomcat_facts *f, struct bt_err *err)
{
	BT_STR struct bt_str list = {0};
	bool found = f->open;
	for (size_t i = 0; i < f->n_ports; i++) {
		found = found || f->ports[i] == p->port;
		bt_str_addf(&list, "%s%u", i ? ", " : "", f->ports[i]);
	}
	if (!found)
		return bt_err_set(err, BT_E_CONFIG,
			"its conf/server.xml has a Connector on port %s, but slot %s has port %u: "
			"change one of them, or write port=\"${baton.port}\" there",
			f->n_ports ? bt_str_get(&list) : "none", p->slot, p->port);
	if (p->server.shutdown_port && f->shutdown_port &&
		f->shutdown_port != p->server.shutdown_port)
		return bt_err_set(err, BT_E_CONFIG,
			"its conf/server.xml has shutdown port %d, but the config says %u",
			f->shutdown_port, p->server.shutdown_port);
	return 0;
}

int bt_tomcat_prepare(const struct bt_tomcat_plan *p, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	struct bt_tomcat_state state;
	struct bt_tomcat_facts facts = {0};
	int r = check_artifact(p, err);
	if (r == 0)
		r = check_home(p, err);
	if (r < 0)
		return r;
	BT_CLOSE int base = open_base(p, err);
	if (base < 0)
		return base;
	r = read_state(base, p, a, &state, err);
	if (r == 0 && state.made && (r = bt_tomcat_state_write(base, &state, err)) == 0)
		r = make_base(base, p, err);
	if (r == 0)
		r = read_facts(base, p, &facts, err);
	if (r == 0)
		r = check_ports(p, &facts, err);
	if (r == 0) {
		state.shutdown_port = facts.shutdown_port;
		state.shutdown = facts.shutdown;
		r = bt_tomcat_place(base, p, &facts, &state, err);
	}
	return r < 0 ? bt_err_wrap(err, "Tomcat's base %s", p->base) : 0;
}
