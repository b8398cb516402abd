#include "agent/survey.h"

#include "base/fs.h"
#include "base/loop.h"
#include "base/str.h"
#include "driver/foreign.h"
#include "driver/nginx_conf.h"
#include "driver/nginx_proc.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_PORTS 256
#define MAX_TARGETS 64
#define MAX_ARGS 256
#define NGINX_MS 10000
#define DUMP_MAX (8u << 20)

/* ---- processes ------------------------------------------------------------------------------ */

static void add_port(uint16_t *ports, size_t *n, size_t max, unsigned port)
{
	size_t at = 0;
	while (at < *n && ports[at] < port)
		at++;
	if (port == 0 || *n == max || (at < *n && ports[at] == port))
		return;
	memmove(ports + at + 1, ports + at, (*n - at) * sizeof *ports);
	ports[at] = (uint16_t)port;
	(*n)++;
}

static size_t listening(uint16_t ports[static MAX_PORTS])
{
	static const char *const tables[] = {"/proc/net/tcp", "/proc/net/tcp6"};
	size_t n = 0;
	for (size_t i = 0; i < BT_ARRAY_LEN(tables); i++) {
		FILE *f = fopen(tables[i], "re");
		char line[512];
		unsigned port, state;
		while (f && fgets(line, sizeof line, f))
			if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*s %x", &port, &state) == 2 &&
				state == 10)
				add_port(ports, &n, MAX_PORTS, port);
		if (f)
			fclose(f);
	}
	return n;
}

static void read_args(struct bt_survey_listener *l, struct bt_arena *a)
{
	char path[64], cwd[PATH_MAX];
	char *text = NULL;
	size_t n = 0, k = 0;
	const char **argv = BT_ARENA_ARRAY(a, const char *, MAX_ARGS + 1);
	snprintf(path, sizeof path, "/proc/%d/cmdline", (int)l->pid);
	if (bt_fs_read(path, 256u << 10, &text, &n, NULL) == 0)
		for (size_t i = 0; i < n && k < MAX_ARGS; i += strlen(text + i) + 1)
			argv[k++] = bt_arena_strdup(a, text + i);
	free(text);
	l->argv = argv;
	l->n_argv = k;
	snprintf(path, sizeof path, "/proc/%d/cwd", (int)l->pid);
	ssize_t len = readlink(path, cwd, sizeof cwd - 1);
	l->cwd = len > 0 ? bt_arena_strndup(a, cwd, (size_t)len) : "/";
}

static void add_master(pid_t *masters, size_t *n, pid_t pid)
{
	for (size_t i = 0; i < *n; i++)
		if (masters[i] == pid)
			return;
	masters[(*n)++] = pid;
}

/* masters: of each nginx that listens here. */
static void look_at_listeners(
	struct bt_arena *a, struct bt_survey *s, pid_t masters[static MAX_PORTS])
{
	uint16_t ports[MAX_PORTS];
	size_t n = listening(ports);
	struct bt_survey_listener *list = BT_ARENA_ARRAY(a, struct bt_survey_listener, n + 1);
	for (size_t i = 0; i < n; i++) {
		struct bt_foreign f;
		if (bt_foreign_find(ports[i], a, &f, NULL) < 0)
			continue; /* baton's own, or not to be seen */
		if (bt_streq(f.name, "nginx")) {
			add_master(masters, &s->n_nginx, f.pid);
			continue;
		}
		struct bt_survey_listener *l = &list[s->n_listeners++];
		*l = (struct bt_survey_listener){.port = ports[i],
			.pid = f.pid,
			.name = f.name,
			.command = f.seen.command,
			.user = f.seen.user,
			.unit = f.seen.unit};
		read_args(l, a);
	}
	s->listeners = list;
}

/* ---- nginx's configuration ------------------------------------------------------------------ */

struct reading {
	struct bt_arena *arena;
	struct bt_survey *s;
	struct bt_survey_target *targets;
	const char *file;
	size_t first; /* of this file's targets */
	bool other;   /* the file holds more than targets */
	bool in_upstream;
};

/* "http://127.0.0.1:8081/x", "127.0.0.1:8081", "8081" → the port of something on this host; 0. */
static unsigned local_port(const char *text)
{
	const char *host = strstr(text, "://");
	host = host ? host + 3 : text;
	if (strspn(host, "0123456789") == strlen(host))
		return (unsigned)strtoul(host, NULL, 10);
	static const char *const here[] = {"127.0.0.1:", "localhost:", "[::1]:"};
	for (size_t i = 0; i < BT_ARRAY_LEN(here); i++)
		if (bt_str_starts(host, here[i]))
			return (unsigned)strtoul(host + strlen(here[i]), NULL, 10);
	return 0;
}

static struct bt_survey_target *new_target(
	struct reading *r, enum bt_nginx_form form, const char *name)
{
	if (r->s->n_targets == MAX_TARGETS)
		return NULL;
	struct bt_survey_target *t = &r->targets[r->s->n_targets++];
	*t = (struct bt_survey_target){
		.form = form, .name = bt_arena_strdup(r->arena, name), .file = r->file};
	return t;
}

static void on_set(struct reading *r, const char *name, const char *value)
{
	unsigned port = local_port(value);
	bool number = strspn(value, "0123456789") == strlen(value);
	if (port == 0 || port > UINT16_MAX || (!number && !strstr(value, "://"))) {
		r->other = true;
		return;
	}
	struct bt_survey_target *t =
		new_target(r, number ? BT_NGINX_SERVICE_PORT : BT_NGINX_SERVICE_URL, name);
	if (t)
		add_port(t->ports, &t->n_ports, BT_ARRAY_LEN(t->ports), port);
}

static bool on_statement(void *arg, int depth, char end, size_t n, const char *const *w)
{
	struct reading *r = arg;
	(void)depth;
	if (end == '}') {
		r->in_upstream = false; /* nothing in an upstream is a block */
		return true;
	}
	if (r->in_upstream) {
		if (n >= 2 && bt_streq(w[0], "server") && r->s->n_targets) {
			struct bt_survey_target *t = &r->targets[r->s->n_targets - 1];
			add_port(t->ports, &t->n_ports, BT_ARRAY_LEN(t->ports), local_port(w[1]));
		}
		return true;
	}
	if (end == '{' && n == 2 && bt_streq(w[0], "upstream")) {
		r->in_upstream = new_target(r, BT_NGINX_UPSTREAM, w[1]) != NULL;
		return true;
	}
	if (end == ';' && n == 3 && bt_streq(w[0], "set") && w[1][0] == '$') {
		on_set(r, w[1] + 1, w[2]);
		return true;
	}
	if (end == ';' && n >= 2 && bt_streq(w[0], "listen") && !r->s->listen)
		r->s->listen = bt_arena_strdup(r->arena, w[1]);
	if (end == ';' && n == 2 && bt_streq(w[0], "proxy_pass"))
		add_port(r->s->proxied, &r->s->n_proxied, BT_ARRAY_LEN(r->s->proxied),
			local_port(w[1]));
	r->other = true;
	return true;
}

/* One file of the dump. An upstream ends with its block, whatever the depth it stands at. */
static void read_file(struct reading *r, const char *text, size_t n)
{
	r->first = r->s->n_targets;
	r->other = r->in_upstream = false;
	bt_nginx_conf_read(text, n, on_statement, r, NULL);
	for (size_t i = r->first; i < r->s->n_targets; i++)
		r->targets[i].own_file = !r->other && r->s->n_targets == r->first + 1;
}

static void read_dump(struct bt_arena *a, struct bt_survey *s, const char *dump)
{
	static const char mark[] = "# configuration file ";
	struct reading r = {.arena = a,
		.s = s,
		.targets = BT_ARENA_ARRAY(a, struct bt_survey_target, MAX_TARGETS)};
	s->targets = r.targets;
	for (const char *at = strstr(dump, mark); at;) {
		const char *name = at + strlen(mark), *line = strchr(name, '\n');
		const char *colon = line ? memrchr(name, ':', (size_t)(line - name)) : NULL;
		if (!colon)
			return;
		const char *next = strstr(line, "\n# configuration file ");
		r.file = bt_arena_strndup(a, name, (size_t)(colon - name));
		read_file(&r, line + 1, next ? (size_t)(next - line) : strlen(line + 1));
		at = next ? next + 1 : NULL;
	}
}

/* ---- the nginx that runs --------------------------------------------------------------------- */

struct master {
	struct bt_arena *arena;
	const char *binary;
	struct bt_survey *s;
};

/* "nginx: master process /usr/sbin/nginx -p X -c Y" */
static void read_title(struct master *m, pid_t pid)
{
	static const char mark[] = "nginx: master process ";
	BT_FREE char *title = bt_nginx_title(pid);
	if (!title || !bt_str_starts(title, mark))
		return;
	char *save = NULL, *word = strtok_r(title + strlen(mark), " ", &save);
	m->binary = word ? bt_arena_strdup(m->arena, word) : NULL;
	while ((word = strtok_r(NULL, " ", &save))) {
		const char **to = bt_streq(word, "-c")	 ? &m->s->config
				  : bt_streq(word, "-p") ? &m->s->prefix
							 : NULL;
		if (to && (word = strtok_r(NULL, " ", &save)))
			*to = bt_arena_strdup(m->arena, word);
	}
}

/* As nginx takes them: a prefix from where it was started (which a daemon has forgotten: only an
 * absolute one is of use), a configuration from its prefix. */
static void make_absolute(struct master *m)
{
	struct bt_survey *s = m->s;
	if (s->prefix && *s->prefix != '/')
		s->prefix = NULL;
	if (s->config && *s->config != '/')
		s->config =
			s->prefix ? bt_arena_printf(m->arena, "%s/%s", s->prefix, s->config) : NULL;
}

static void on_dump(void *arg, const struct bt_child_result *result)
{
	struct master *m = arg;
	if (result->exit_code == 0 && !result->cut) {
		read_dump(m->arena, m->s, result->output);
		return;
	}
	BT_FREE char *why = bt_nginx_reason(result->output);
	m->s->trouble = bt_arena_strdup(m->arena, why && *why ? why : "`nginx -T` failed");
}

static int look_at_nginx(struct bt_arena *a, struct bt_survey *s, pid_t pid, struct bt_err *err)
{
	struct master m = {.arena = a, .s = s};
	read_title(&m, pid);
	make_absolute(&m);
	if (!m.binary) {
		s->trouble = "its master process is not to be seen";
		return 0;
	}
	const char *argv[8] = {m.binary, "-T", "-q"};
	size_t n = 3;
	if (s->prefix) {
		argv[n++] = "-p";
		argv[n++] = s->prefix;
	}
	if (s->config) {
		argv[n++] = "-c";
		argv[n++] = s->config;
	}
	struct event_base *base = event_base_new();
	struct bt_child *child = NULL;
	struct bt_child_spec spec = {.argv = argv,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.timeout_ms = NGINX_MS,
		.max_output = DUMP_MAX};
	if (!base)
		return bt_err_set(err, BT_E_FAILED, "no event loop");
	if (bt_child_start(base, &spec, on_dump, &m, &child, err) == 0)
		event_base_dispatch(base);
	else
		s->trouble = bt_arena_printf(a, "`%s -T` cannot be run", m.binary);
	event_base_free(base);
	return 0;
}

int bt_survey(struct bt_arena *a, struct bt_survey *ret, struct bt_err *err)
{
	struct bt_survey s = {0};
	pid_t masters[MAX_PORTS];
	look_at_listeners(a, &s, masters);
	int r = s.n_nginx ? look_at_nginx(a, &s, masters[0], err) : 0;
	*ret = s;
	return r;
}
