/* Guessing. The app is what nginx sends to, else a Java process that listens; its siblings are
 * other listeners with the same program. Its command line becomes the template: the file that it
 * runs, its port and its profile are what changes from slot to slot. */
#include "cli/init_guess.h"

#include "base/json.h"
#include "base/loop.h"
#include "config/config.h"
#include "net/http_client.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define ASK_MS 2000

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static const struct bt_survey_listener *listener_at(const struct bt_survey *s, uint16_t port)
{
	for (size_t i = 0; i < s->n_listeners; i++)
		if (s->listeners[i].port == port)
			return &s->listeners[i];
	return NULL;
}

/* ---- which process --------------------------------------------------------------------------- */

static bool is_file(const struct bt_survey_listener *l, const char *arg)
{
	struct stat st;
	BT_FREE char *path = *arg == '/' ? bt_strdup(arg) : bt_asprintf("%s/%s", l->cwd, arg);
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Which argument is the file that it runs; n_argv: none. */
static size_t artifact_of(const struct bt_survey_listener *l)
{
	bool jar = false;
	for (size_t i = 1; i < l->n_argv; i++) {
		if (jar && *l->argv[i] != '-')
			return i;
		jar |= bt_streq(l->argv[i], "-jar");
	}
	for (size_t i = 1; i < l->n_argv; i++)
		if (*l->argv[i] != '-' && is_file(l, l->argv[i]))
			return i;
	return l->n_argv;
}

static bool is_java(const struct bt_survey_listener *l)
{
	return bt_streq(l->name, "java");
}

static void choose_app(struct bt_guess *g)
{
	const struct bt_survey *s = g->survey;
	for (size_t i = 0; i < s->n_targets && !g->app; i++)
		for (size_t k = 0; k < s->targets[i].n_ports && !g->app; k++)
			g->app = listener_at(s, s->targets[i].ports[k]);
	for (size_t i = 0; i < s->n_proxied && !g->app; i++)
		g->app = listener_at(s, s->proxied[i]);
	for (size_t i = 0; i < s->n_listeners && !g->app; i++)
		if (is_java(&s->listeners[i]))
			g->app = &s->listeners[i];
	if (g->app)
		g->artifact_arg = artifact_of(g->app);
}

static bool sends_to(const struct bt_survey_target *t, uint16_t port)
{
	for (size_t i = 0; i < t->n_ports; i++)
		if (t->ports[i] == port)
			return true;
	return false;
}

/* An upstream with several servers tells of more than a variable does. */
static void choose_target(struct bt_guess *g)
{
	const struct bt_survey *s = g->survey;
	for (size_t i = 0; g->app && i < s->n_targets; i++) {
		const struct bt_survey_target *t = &s->targets[i];
		if (!sends_to(t, g->app->port))
			continue;
		if (!g->target || (t->n_ports > g->target->n_ports)) {
			if (g->target && g->target->form != BT_NGINX_UPSTREAM)
				g->variable = g->target;
			g->target = t;
		} else if (t->form != BT_NGINX_UPSTREAM && g->target->form == BT_NGINX_UPSTREAM) {
			g->variable = t;
		}
	}
}

/* ---- asking ------------------------------------------------------------------------------------
 */

struct answer {
	int status;
	struct bt_str body;
};

static void on_answer(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct answer *a = arg;
	(void)err;
	a->status = r->status;
	if (r->body_len)
		bt_str_addn(&a->body, r->body, r->body_len);
}

static int ask(uint16_t port, const char *path, struct bt_str *body)
{
	struct event_base *base = event_base_new();
	struct bt_http_client *http = base ? bt_http_client_new(base) : NULL;
	BT_FREE char *url = bt_asprintf("http://127.0.0.1:%u%s", port, path);
	struct bt_http_request rq = {.method = "GET",
		.url = url,
		.no_reuse = true,
		.timeout_ms = ASK_MS,
		.max_body = 65536};
	struct answer a = {-1, {0}};
	if (!http)
		return 0;
	bt_http_start(http, &rq, on_answer, &a);
	while (a.status < 0 && event_base_loop(base, EVLOOP_ONCE) == 0)
		;
	bt_http_client_free(http);
	event_base_free(base);
	bt_str_add(body, bt_str_get(&a.body));
	bt_str_done(&a.body);
	return a.status;
}

/* ---- its slots --------------------------------------------------------------------------------
 */

/* Whether word stands in text with nothing alphanumeric around it; NULL or where. */
static const char *find_word(const char *text, const char *word)
{
	size_t n = strlen(word);
	for (const char *at = text; n && (at = strstr(at, word)); at += n)
		if ((at == text || !isalnum((unsigned char)at[-1])) &&
			!isalnum((unsigned char)at[n]))
			return at;
	return NULL;
}

/* The word by which the two are told apart: the Spring profile, or what it says that it is
 * (/profile), where it was told so by an argument. */
static const char *profile_of(const struct bt_survey_listener *l, struct bt_arena *a)
{
	static const char key[] = "spring.profiles.active=";
	for (size_t i = 0; i < l->n_argv; i++) {
		const char *at = strstr(l->argv[i], key);
		const char *name = at ? at + strlen(key) : NULL;
		if (name && bt_name_valid(name))
			return bt_arena_strdup(a, name);
	}
	BT_STR struct bt_str said = {0};
	if (ask(l->port, "/profile", &said) != 200 || !bt_name_valid(bt_str_get(&said)))
		return NULL;
	for (size_t i = 1; i < l->n_argv; i++)
		if (bt_streq(l->argv[i], bt_str_get(&said)) ||
			(*l->argv[i] == '-' && find_word(l->argv[i], bt_str_get(&said))))
			return bt_arena_strdup(a, bt_str_get(&said));
	return NULL;
}

/* blue ↔ green, real1 ↔ real2; NULL: it does not look like one of two. */
static const char *partner(const char *name, struct bt_arena *a)
{
	static const char *const pairs[][2] = {{"blue", "green"}, {"a", "b"}};
	for (size_t i = 0; i < BT_ARRAY_LEN(pairs); i++)
		for (size_t k = 0; k < 2; k++)
			if (bt_streq(name, pairs[i][k]))
				return pairs[i][1 - k];
	size_t n = strlen(name);
	if (n > 1 && (name[n - 1] == '1' || name[n - 1] == '2'))
		return bt_arena_printf(
			a, "%.*s%c", (int)n - 1, name, name[n - 1] == '1' ? '2' : '1');
	return NULL;
}

static bool is_sibling(const struct bt_guess *g, const struct bt_survey_listener *l)
{
	const struct bt_survey_listener *app = g->app;
	if (l == app || l->pid == app->pid || !bt_streq(l->name, app->name))
		return false;
	size_t at = artifact_of(l);
	if (at == l->n_argv || g->artifact_arg == app->n_argv)
		return false;
	const char *mine = base_name(app->argv[g->artifact_arg]), *its = base_name(l->argv[at]);
	const char *profile = profile_of(l, g->arena);
	/* Document 002 links the jar as blue-shop.jar and green-shop.jar. */
	size_t skip = profile && bt_str_starts(its, profile) ? strlen(profile) : 0;
	const char *own = profile_of(app, g->arena);
	size_t skip_mine = own && bt_str_starts(mine, own) ? strlen(own) : 0;
	return bt_streq(mine + skip_mine, its + skip) ||
	       (g->target && sends_to(g->target, l->port));
}

static uint16_t free_port(const struct bt_guess *g, uint16_t near)
{
	for (unsigned port = near + 1u; port <= UINT16_MAX; port++) {
		bool taken = listener_at(g->survey, (uint16_t)port) != NULL;
		for (size_t i = 0; i < g->n_slots; i++)
			taken |= g->slots[i].port == port;
		if (!taken)
			return (uint16_t)port;
	}
	return near - 1;
}

static void add_slot(struct bt_guess *g, const struct bt_survey_listener *l, uint16_t port)
{
	if (g->n_slots < BT_ARRAY_LEN(g->slots))
		g->slots[g->n_slots++] = (struct bt_guess_slot){NULL, port, l};
}

static void name_slots(struct bt_guess *g)
{
	static const char *const names[] = {
		"blue", "green", "slot3", "slot4", "slot5", "slot6", "slot7", "slot8"};
	g->profile = g->app != NULL;
	for (size_t i = 0; i < g->n_slots; i++) {
		struct bt_guess_slot *s = &g->slots[i];
		s->name = s->runs ? profile_of(s->runs, g->arena) : NULL;
		if (!s->name && i > 0 && g->slots[0].name)
			s->name = partner(g->slots[0].name, g->arena);
		g->profile &= s->name != NULL;
		for (size_t k = 0; k < i; k++)
			g->profile &= !bt_streq(s->name, g->slots[k].name);
	}
	for (size_t i = 0; !g->profile && i < g->n_slots; i++)
		g->slots[i].name = names[i];
}

static void choose_slots(struct bt_guess *g)
{
	const struct bt_survey *s = g->survey;
	if (!g->app) {
		add_slot(g, NULL, 8081);
		add_slot(g, NULL, 8082);
		name_slots(g);
		return;
	}
	add_slot(g, g->app, g->app->port);
	for (size_t i = 0; i < s->n_listeners; i++)
		if (is_sibling(g, &s->listeners[i]))
			add_slot(g, &s->listeners[i], s->listeners[i].port);
	if (g->n_slots == 1)
		add_slot(g, NULL, free_port(g, g->app->port));
	/* Ascending, as a person would write them. */
	for (size_t i = 0; i + 1 < g->n_slots; i++)
		for (size_t k = 0; k + 1 < g->n_slots - i; k++)
			if (g->slots[k].port > g->slots[k + 1].port) {
				struct bt_guess_slot swap = g->slots[k];
				g->slots[k] = g->slots[k + 1];
				g->slots[k + 1] = swap;
			}
	size_t in = 0;
	for (size_t i = 0; g->target && i < g->n_slots; i++)
		in += g->slots[i].runs && sends_to(g->target, g->slots[i].port);
	g->rolling = in > 1;
	name_slots(g);
}

/* ---- names and the command ---------------------------------------------------------------------
 */

/* "blue-dev-blog-0.0.1-SNAPSHOT.jar", "dev-blog-v1.jar" → "dev-blog" */
static const char *service_name(const struct bt_guess *g)
{
	if (g->target && g->target->form == BT_NGINX_UPSTREAM && bt_name_valid(g->target->name))
		return g->target->name;
	if (!g->app || g->artifact_arg == g->app->n_argv)
		return "shop";
	char *name = bt_arena_strdup(g->arena, base_name(g->app->argv[g->artifact_arg]));
	const char *profile = profile_of(g->app, g->arena);
	if (profile && bt_str_starts(name, profile) && name[strlen(profile)] == '-')
		name += strlen(profile) + 1;
	char *dot = strrchr(name, '.');
	if (dot)
		*dot = 0;
	for (char *p = strchr(name, '-'); p; p = strchr(p + 1, '-'))
		if (isdigit((unsigned char)p[p[1] == 'v' ? 2 : 1])) {
			*p = 0;
			break;
		}
	for (char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
			*p = '-';
	return bt_name_valid(name) ? name : "shop";
}

/* Every occurrence of a whole word becomes the placeholder. True when there was one. */
static bool replace_word(struct bt_str *text, const char *word, const char *with)
{
	BT_STR struct bt_str out = {0};
	const char *from = bt_str_get(text), *at;
	bool any = false;
	while ((at = find_word(from, word))) {
		bt_str_addn(&out, from, (size_t)(at - from));
		bt_str_add(&out, with);
		from = at + strlen(word);
		any = true;
	}
	bt_str_add(&out, from);
	bt_str_reset(text);
	bt_str_add(text, bt_str_get(&out));
	return any;
}

/* What is special to baton.yaml is written so that it means itself. */
static void escape(const char *arg, struct bt_str *out)
{
	for (; *arg; arg++) {
		if (*arg == '{' || (*arg == '$' && arg[1] == '{'))
			bt_str_addc(out, *arg);
		bt_str_addc(out, *arg);
	}
}

static void make_command(struct bt_guess *g)
{
	const struct bt_survey_listener *app = g->app;
	const char **list = BT_ARENA_ARRAY(g->arena, const char *, (app ? app->n_argv : 0) + 1);
	const char *profile = app && g->profile ? profile_of(app, g->arena) : NULL;
	char port[8];
	snprintf(port, sizeof port, "%u", app ? app->port : 0);
	for (size_t i = 0; app && i < app->n_argv; i++) {
		BT_STR struct bt_str arg = {0};
		escape(app->argv[i], &arg);
		if (i == g->artifact_arg) {
			list[g->n_command++] = "{artifact}";
			continue;
		}
		g->port_in_command |= i > 0 && replace_word(&arg, port, "{port}");
		if (profile && i > 0)
			replace_word(&arg, profile, "{slot}");
		list[g->n_command++] = bt_arena_strdup(g->arena, bt_str_get(&arg));
	}
	g->command = list;
	if (app && g->artifact_arg < app->n_argv)
		g->artifact = *app->argv[g->artifact_arg] == '/'
				      ? app->argv[g->artifact_arg]
				      : bt_arena_printf(g->arena, "%s/%s", app->cwd,
						app->argv[g->artifact_arg]);
}

static void ask_app(struct bt_guess *g)
{
	static const char *const paths[] = {
		"/actuator/health", "/health", "/healthz", "/profile", "/"};
	for (size_t i = 0; g->app && i < BT_ARRAY_LEN(paths) && !g->health_path; i++) {
		BT_STR struct bt_str body = {0};
		if (ask(g->app->port, paths[i], &body) != 200)
			continue;
		g->health_path = paths[i];
		BT_JSON json_t *j = NULL;
		if (bt_json_parse(bt_str_get(&body), body.len, 65536, &j, NULL) == 0)
			g->health_is_json =
				bt_streq(json_string_value(json_object_get(j, "status")), "UP");
	}
	BT_STR struct bt_str who = {0};
	for (size_t i = 0; i < g->n_slots; i++)
		if (g->app && g->slots[i].runs == g->app &&
			ask(g->app->port, "/profile", &who) == 200)
			g->identity = bt_streq(bt_str_get(&who), g->slots[i].name);
}

/* "8080", "127.0.0.1:80", "[::]:80", "*:80" → the address to ask */
static const char *url_of(struct bt_arena *a, const char *listen)
{
	if (!listen || bt_str_starts(listen, "unix:"))
		return NULL;
	const char *colon = strrchr(listen, ':'), *port = colon ? colon + 1 : listen;
	bool address =
		colon && isdigit((unsigned char)*listen) && !bt_str_starts(listen, "0.0.0.0");
	if (strspn(port, "0123456789") != strlen(port) || !*port)
		port = "80";
	return bt_arena_printf(a, "http://%.*s:%s", address ? (int)(colon - listen) : 9,
		address ? listen : "127.0.0.1", port);
}

void bt_guess_from(struct bt_arena *a, const struct bt_survey *s, struct bt_guess *ret)
{
	struct bt_guess g = {.arena = a, .survey = s};
	choose_app(&g);
	choose_target(&g);
	choose_slots(&g);
	make_command(&g);
	g.service = service_name(&g);
	g.nginx_url = url_of(a, s->listen);
	ask_app(&g);
	*ret = g;
}
