/* The file is small and flat, so it is read as one libyaml document and held against a table of
 * keys. Paths are checked where they really lead: the nearest existing directory is opened beneath
 * the allowed root (openat2, no symbolic link may leave it). */
#include "agent/policy.h"

#include "base/fs.h"
#include "base/str.h"
#include "config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <yaml.h>

#define POLICY_MAX 65536

static const char *const default_paths[] = {
	"/etc/nginx", "/opt", "/run/haproxy", "/srv", "/var/lib", "/var/www"};
static const char *const every_path[] = {"/"};

struct reader {
	yaml_document_t doc;
	struct bt_policy *p;
	const char *file;
	struct bt_err *err;
};

static int bad(struct reader *r, const yaml_node_t *n, const char *expected)
{
	return bt_err_set(r->err, BT_E_CONFIG, "%s:%zu:%zu: expected %s", r->file,
		n->start_mark.line + 1, n->start_mark.column + 1, expected);
}

static const char *scalar(const yaml_node_t *n)
{
	return n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

static int read_bool(struct reader *r, const yaml_node_t *n, bool *ret)
{
	const char *s = scalar(n);
	if (!bt_streq(s, "true") && !bt_streq(s, "false"))
		return bad(r, n, "true or false");
	*ret = bt_streq(s, "true");
	return 0;
}

static int read_list(struct reader *r, const yaml_node_t *n, const char *const **ret, size_t *ret_n)
{
	if (n->type != YAML_SEQUENCE_NODE)
		return bad(r, n, "a list, such as [app, www-data]");
	size_t count = (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
	const char **list = BT_ARENA_ARRAY(r->p->arena, const char *, count + 1);
	for (size_t i = 0; i < count; i++) {
		const yaml_node_t *e =
			yaml_document_get_node(&r->doc, n->data.sequence.items.start[i]);
		if (!scalar(e) || !scalar(e)[0])
			return bad(r, e, "a word");
		list[i] = bt_arena_strdup(r->p->arena, scalar(e));
	}
	*ret = list;
	*ret_n = count;
	return 0;
}

static int read_run_as(struct reader *r, const yaml_node_t *n)
{
	return read_list(r, n, &r->p->run_as, &r->p->n_run_as);
}

static int read_root(struct reader *r, const yaml_node_t *n)
{
	return read_bool(r, n, &r->p->root);
}

static int read_exec(struct reader *r, const yaml_node_t *n)
{
	return read_bool(r, n, &r->p->exec);
}

static int read_upgrade(struct reader *r, const yaml_node_t *n)
{
	return read_bool(r, n, &r->p->upgrade);
}

static int read_network(struct reader *r, const yaml_node_t *n)
{
	return read_bool(r, n, &r->p->network);
}

static int read_paths(struct reader *r, const yaml_node_t *n)
{
	int e = read_list(r, n, &r->p->paths, &r->p->n_paths);
	for (size_t i = 0; e == 0 && i < r->p->n_paths; i++)
		if (r->p->paths[i][0] != '/')
			e = bad(r, n, "absolute paths");
	return e;
}

static int read_ports(struct reader *r, const yaml_node_t *n)
{
	const char *s = scalar(n), *dash = s ? strchr(s, '-') : NULL;
	int64_t lo, hi;
	if (!dash)
		return bad(r, n, "a range of ports, such as 1024-65535");
	BT_FREE char *first = bt_strndup(s, (size_t)(dash - s));
	if (bt_int_parse(first, 1, 65535, &lo, NULL) < 0 ||
		bt_int_parse(dash + 1, lo, 65535, &hi, NULL) < 0)
		return bad(r, n, "a range of ports, such as 1024-65535");
	r->p->port_min = (uint16_t)lo;
	r->p->port_max = (uint16_t)hi;
	return 0;
}

static int read_tasks(struct reader *r, const yaml_node_t *n)
{
	const char *const *list;
	size_t count;
	int e = read_list(r, n, &list, &count);
	if (e < 0)
		return e;
	memset(r->p->tasks, 0, sizeof r->p->tasks);
	for (size_t i = 0; i < count; i++) {
		const struct bt_task_info *info = bt_task_find(list[i]);
		if (!info)
			return bad(r, n, "task kinds, such as InstanceStart");
		r->p->tasks[info->kind] = true;
	}
	return 0;
}

static const struct {
	const char *key;
	int (*read)(struct reader *r, const yaml_node_t *n);
} keys[] = {
	{"run_as", read_run_as},
	{"root", read_root},
	{"exec", read_exec},
	{"upgrade", read_upgrade},
	{"network", read_network},
	{"paths", read_paths},
	{"ports", read_ports},
	{"tasks", read_tasks},
};

static int read_key(struct reader *r, const yaml_node_t *k, const yaml_node_t *v, unsigned *seen)
{
	const char *names[BT_ARRAY_LEN(keys)];
	for (size_t i = 0; i < BT_ARRAY_LEN(keys); i++) {
		names[i] = keys[i].key;
		if (!bt_streq(scalar(k), keys[i].key))
			continue;
		if (*seen & 1u << i)
			return bad(r, k, "each key once");
		*seen |= 1u << i;
		return keys[i].read(r, v);
	}
	const char *near = scalar(k) ? bt_nearest(scalar(k), names, BT_ARRAY_LEN(keys)) : NULL;
	char text[160];
	snprintf(text, sizeof text,
		"run_as, root, exec, upgrade, network, paths, ports or tasks, found '%.40s'%s%s%s",
		scalar(k) ? scalar(k) : "", near ? " (did you mean '" : "", near ? near : "",
		near ? "'?)" : "");
	return bad(r, k, text);
}

static int read_document(struct reader *r)
{
	const yaml_node_t *top = yaml_document_get_root_node(&r->doc);
	if (!top)
		return 0; /* an empty file: the defaults */
	if (top->type != YAML_MAPPING_NODE)
		return bad(r, top, "keys such as run_as: [app]");
	unsigned seen = 0;
	for (const yaml_node_pair_t *pair = top->data.mapping.pairs.start;
		pair < top->data.mapping.pairs.top; pair++) {
		int e = read_key(r, yaml_document_get_node(&r->doc, pair->key),
			yaml_document_get_node(&r->doc, pair->value), &seen);
		if (e < 0)
			return e;
	}
	return 0;
}

static struct bt_policy *defaults(const struct bt_policy_spec *spec)
{
	struct bt_arena *a = bt_arena_new();
	struct bt_policy *p = BT_ARENA_NEW(a, struct bt_policy);
	p->arena = a;
	p->file = spec->path ? bt_arena_strdup(a, spec->path) : "the defaults";
	p->root = p->exec = p->network = spec->own_machine;
	p->paths = spec->own_machine ? every_path : default_paths;
	p->n_paths = spec->own_machine ? BT_ARRAY_LEN(every_path) : BT_ARRAY_LEN(default_paths);
	p->port_min = spec->own_machine ? 1 : 1024;
	p->port_max = 65535;
	for (int i = 0; i < BT_TASK_KINDS; i++)
		p->tasks[i] = true;
	return p;
}

/* The state directory is the agent's own, so it is always a root. */
static void add_state_dir(struct bt_policy *p, const char *state_dir)
{
	const char **list = BT_ARENA_ARRAY(p->arena, const char *, p->n_paths + 1);
	for (size_t i = 0; i < p->n_paths; i++)
		list[i] = p->paths[i];
	if (state_dir)
		list[p->n_paths++] = bt_arena_strdup(p->arena, state_dir);
	p->paths = list;
}

int bt_policy_parse(const char *text, size_t n, const struct bt_policy_spec *spec,
	struct bt_policy **ret, struct bt_err *err)
{
	struct reader r = {
		.p = defaults(spec), .file = spec->path ? spec->path : "policy", .err = err};
	yaml_parser_t parser;
	if (!yaml_parser_initialize(&parser))
		abort();
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
	int e = 0;
	if (!yaml_parser_load(&parser, &r.doc)) {
		e = bt_err_set(err, BT_E_CONFIG, "%s:%zu:%zu: not YAML: %s", r.file,
			parser.problem_mark.line + 1, parser.problem_mark.column + 1,
			parser.problem ? parser.problem : "unreadable");
	} else {
		e = read_document(&r);
		yaml_document_delete(&r.doc);
	}
	yaml_parser_delete(&parser);
	if (e < 0) {
		bt_policy_free(r.p);
		return e;
	}
	add_state_dir(r.p, spec->state_dir);
	*ret = r.p;
	return 0;
}

static int check_owner(int fd, const struct bt_policy_spec *spec, struct bt_err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return bt_err_errno(err, errno, "stat %s", spec->path);
	bool own = spec->own_machine && st.st_uid == geteuid();
	if (!S_ISREG(st.st_mode) || (st.st_uid != 0 && !own) || (st.st_mode & 022))
		return bt_err_set(err, BT_E_REFUSED,
			"host policy %s must be a file of root that nobody else may write: run "
			"chown root:root and chmod 644 on it",
			spec->path);
	return 0;
}

int bt_policy_load(const struct bt_policy_spec *spec, struct bt_policy **ret, struct bt_err *err)
{
	BT_CLOSE int fd = spec->path ? open(spec->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
	if (fd < 0 && (!spec->path || (errno == ENOENT && !spec->must_exist))) {
		struct bt_policy_spec none = *spec;
		none.path = NULL;
		*ret = defaults(&none);
		add_state_dir(*ret, spec->state_dir);
		return 0;
	}
	if (fd < 0)
		return bt_err_errno(err, errno, "host policy %s", spec->path);
	int e = check_owner(fd, spec, err);
	if (e < 0)
		return e;
	char buf[64];
	snprintf(buf, sizeof buf, "/proc/self/fd/%d", fd); /* the file that was checked */
	BT_FREE char *text = NULL;
	size_t n = 0;
	e = bt_fs_read(buf, POLICY_MAX, &text, &n, err);
	return e < 0 ? e : bt_policy_parse(text, n, spec, ret, err);
}

struct bt_policy *bt_policy_free(struct bt_policy *p)
{
	if (p)
		bt_arena_free(p->arena);
	return NULL;
}

/* ---- the checks -------------------------------------------------------------------------- */

static int no(const struct bt_policy *p, struct bt_err *err, const char *rule, const char *what)
{
	return bt_err_set(
		err, BT_E_REFUSED, "host policy (%s, rule '%s'): %s", p->file, rule, what);
}

int bt_policy_task(const struct bt_policy *p, enum bt_task_kind kind, struct bt_err *err)
{
	char what[128];
	if (p->tasks[kind])
		return 0;
	snprintf(what, sizeof what, "%s is not allowed on this host", bt_task_info(kind)->name);
	return no(p, err, "tasks", what);
}

int bt_policy_port(const struct bt_policy *p, uint16_t port, struct bt_err *err)
{
	char what[128];
	if (port >= p->port_min && port <= p->port_max)
		return 0;
	snprintf(what, sizeof what, "port %d is outside %d-%d", port, p->port_min, p->port_max);
	return no(p, err, "ports", what);
}

/* Whether path, as far as it exists, lies beneath root: links followed, but never out of it. */
static bool beneath(const char *root, const char *path)
{
	BT_FREE char *real_root = realpath(root, NULL);
	if (!real_root)
		return false;
	size_t n = strlen(real_root);
	BT_FREE char *part = bt_strdup(path);
	BT_FREE char *real = realpath(part, NULL);
	while (!real &&
		strcmp(part, "/") != 0) { /* what does not exist yet is judged by its parent */
		char *slash = strrchr(part, '/');
		*(slash == part ? slash + 1 : slash) = '\0';
		real = realpath(part, NULL);
	}
	if (!real || strncmp(real, real_root, n) != 0 ||
		(n > 1 && real[n] != '/' && real[n] != '\0'))
		return false;
	BT_CLOSE int dir = open(real_root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return false;
	const char *rest = real + n;
	rest += strspn(rest, "/");
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH};
	BT_CLOSE int fd = (int)syscall(SYS_openat2, dir, *rest ? rest : ".", &how, sizeof how);
	return fd >= 0;
}

static int check_path(
	const struct bt_policy *p, const char *what, const char *path, struct bt_err *err)
{
	if (!path)
		return 0;
	char text[512];
	if (path[0] != '/' || strstr(path, "/../") || bt_str_ends(path, "/..")) {
		snprintf(text, sizeof text, "%s %.300s must be an absolute path without '..'", what,
			path);
		return no(p, err, "paths", text);
	}
	for (size_t i = 0; i < p->n_paths; i++)
		if (beneath(p->paths[i], path))
			return 0;
	snprintf(text, sizeof text, "%s %.300s is beneath none of the allowed paths", what, path);
	return no(p, err, "paths", text);
}

int bt_policy_place(const struct bt_policy *p, const char *path, struct bt_err *err)
{
	return check_path(p, "file", path, err);
}

static bool listed(const struct bt_policy *p, const char *user)
{
	for (size_t i = 0; i < p->n_run_as; i++)
		if (bt_streq(p->run_as[i], user))
			return true;
	return false;
}

int bt_policy_adopt(const struct bt_policy *p, uid_t uid, const char *user, struct bt_err *err)
{
	char text[256];
	if (uid == 0 && !p->root)
		return no(p, err, "root",
			"it runs as root, and stopping what runs as root is off on this host: "
			"allow it with 'root: true'");
	if (uid == geteuid())
		return 0;
	snprintf(text, sizeof text, "stopping processes of '%s' is not allowed", user);
	if (uid != 0 && !listed(p, user))
		return no(p, err, "run_as", text);
	if (geteuid() == 0)
		return 0;
	return bt_err_set(err, BT_E_REFUSED,
		"it belongs to '%s', and this agent, which is no root, could not stop it", user);
}

static int check_user(const struct bt_policy *p, const char *user, struct bt_err *err)
{
	char text[256];
	char buf[4096];
	struct passwd pw, *found = NULL;
	uid_t uid = geteuid();
	if (user && (getpwnam_r(user, &pw, buf, sizeof buf, &found) != 0 || !found)) {
		snprintf(text, sizeof text, "user '%s' does not exist on this host", user);
		return no(p, err, "run_as", text);
	}
	if (found)
		uid = found->pw_uid;
	if (uid == 0 && !p->root)
		return no(p, err, "root",
			"running as root is off on this host: give the service run.user, or allow "
			"it with 'root: true'");
	if (!user || uid == geteuid())
		return 0;
	if (listed(p, user))
		return 0;
	snprintf(text, sizeof text, "running as '%s' is not allowed", user);
	return no(p, err, "run_as", text);
}

/* What the system itself has there runs without a word of the policy, as run.command does. */
static int check_home(const struct bt_policy *p, const char *home, struct bt_err *err)
{
	return beneath("/usr/share", home) ? 0 : check_path(p, "run.tomcat.home", home, err);
}

static int check_tomcat(const struct bt_policy *p, const struct bt_service *s, struct bt_err *err)
{
	int e = check_home(p, s->tomcat.home, err);
	for (size_t i = 0; e == 0 && s->tomcat.base && i < s->run.n_slots; i++) {
		BT_STR struct bt_str base = {0};
		const struct bt_slot *slot = &s->run.slots[i];
		e = bt_config_tomcat_base(s, slot->name, slot->port, &base, err);
		if (e == 0)
			e = check_path(p, "run.tomcat.base", bt_str_get(&base), err);
	}
	if (e == 0 && s->tomcat.shutdown_port)
		e = bt_policy_port(p, (uint16_t)s->tomcat.shutdown_port, err);
	return e;
}

int bt_policy_run(const struct bt_policy *p, const struct bt_service *s, struct bt_err *err)
{
	int e = check_user(p, s->run.user, err);
	if (e == 0 && s->run.as == BT_RUNTIME_TOMCAT)
		e = check_tomcat(p, s, err);
	if (e == 0 && s->run.dir && s->run.dir[0] == '/')
		e = check_path(p, "run.dir", s->run.dir, err);
	for (size_t i = 0; i < s->run.n_slots; i++)
		for (size_t k = 0; e == 0 && k < s->run.slots[i].n_more; k++)
			e = bt_policy_port(p, s->run.slots[i].more[k].number, err);
	return e;
}

int bt_policy_exec(const struct bt_policy *p, struct bt_err *err)
{
	if (!p->exec)
		return no(p, err, "exec",
			"programs that a service's config names are off on this host: its owner "
			"allows them with 'exec: true'");
	return bt_policy_task(p, BT_TASK_EXEC, err);
}

int bt_policy_network(const struct bt_policy *p, const char *what, struct bt_err *err)
{
	char text[160];
	if (p->network)
		return 0;
	snprintf(text, sizeof text,
		"%s changes this host's network, which is off here: its owner allows it with "
		"'network: true'",
		what);
	return no(p, err, "network", text);
}

int bt_policy_health(const struct bt_policy *p, const struct bt_service *s, struct bt_err *err)
{
	if (s->health.kind == BT_HEALTH_EXEC && !p->exec)
		return no(p, err, "exec",
			"health checks that run a program are off on this host: allow them with "
			"'exec: true'");
	return 0;
}

static int check_listen(const struct bt_policy *p, const char *listen, struct bt_err *err)
{
	const char *colon = listen ? strrchr(listen, ':') : NULL;
	int64_t port;
	if (!listen || bt_int_parse(colon ? colon + 1 : listen, 1, 65535, &port, NULL) < 0)
		return 0;
	return bt_policy_port(p, (uint16_t)port, err);
}

/* Those that are tables of the host's own kernel. */
static int check_kernel(const struct bt_policy *p, const struct bt_l4 *l, struct bt_err *err)
{
	char what[48];
	if (l->kind != BT_BALANCER_NFTABLES && l->kind != BT_BALANCER_IPVS)
		return 0;
	snprintf(what, sizeof what, "traffic.%s", bt_enum_name(&bt_enum_balancer, (int)l->kind));
	int e = bt_policy_network(p, what, err);
	return e < 0 ? e : bt_policy_port(p, l->port, err);
}

static int check_l4(const struct bt_policy *p, const struct bt_l4 *l, struct bt_err *err)
{
	if (l->kind == BT_BALANCER_HTTP)
		return check_path(p, "traffic.http.ca", l->http.ca, err);
	if (l->kind != BT_BALANCER_HAPROXY)
		return check_kernel(p, l, err);
	int e = check_path(p, "haproxy.socket", l->haproxy.socket, err);
	return e == 0 ? check_path(p, "haproxy.state_file", l->haproxy.state_file, err) : e;
}

int bt_policy_balancer(const struct bt_policy *p, const struct bt_service *s, struct bt_err *err)
{
	const struct bt_nginx *n = s->nginx;
	if (s->l4)
		return check_l4(p, s->l4, err);
	if (!n)
		return 0;
	if (n->binary && !bt_streq(n->binary, "nginx") && !p->exec)
		return no(p, err, "exec",
			"a program other than 'nginx' as nginx.binary needs 'exec: true'");
	const struct {
		const char *what, *path;
	} paths[] = {
		{"nginx.include", n->include},
		{"nginx.config", n->config},
		{"nginx.prefix", n->prefix},
		{"nginx.certificate", n->certificate},
		{"nginx.certificate_key", n->certificate_key},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(paths); i++) {
		int e = check_path(p, paths[i].what, paths[i].path, err);
		if (e < 0)
			return e;
	}
	for (size_t i = 0; i < n->n_sites; i++) {
		int e = check_path(p, "nginx.sites", n->sites[i].value, err);
		if (e < 0)
			return e;
	}
	int e = n->mode == BT_NGINX_MANAGED ? check_listen(p, n->listen, err) : 0;
	return e == 0 && n->mode == BT_NGINX_MANAGED ? check_listen(p, n->redirect, err) : e;
}

int bt_policy_rotation(
	const struct bt_policy *p, const struct bt_service *s, const char *host, struct bt_err *err)
{
	if (!s->l4 || s->l4->kind != BT_BALANCER_ROTATION)
		return 0;
	return check_listen(p, bt_rotation_listen(&s->l4->rotation, host), err);
}
