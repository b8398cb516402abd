/* The guess as a baton.yaml that a person goes on from: what was found stands beside each line. */
#include "cli/init_guess.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

/* As a plain word where YAML takes it for one, else in quotes (a JSON string is a YAML one). */
static void scalar(const char *text, struct bt_str *out)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/._-";
	static const char more[] = "0123456789=+@";
	const char *rest = text;
	if (*text && strchr(plain, *text) && *text != '-')
		while (*rest && (strchr(plain, *rest) || strchr(more, *rest)))
			rest++;
	if (*text && !*rest) {
		bt_str_add(out, text);
		return;
	}
	BT_JSON json_t *j = json_string(text);
	char *quoted = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
	bt_str_add(out, quoted ? quoted : "\"?\"");
	free(quoted);
}

static void line(struct bt_str *out, const char *key, const char *value)
{
	bt_str_addf(out, "%s: ", key);
	scalar(value, out);
	bt_str_addc(out, '\n');
}

/* A comment of one line, whatever bytes the text has. */
static void comment(struct bt_str *out, const char *text)
{
	for (; *text; text++)
		bt_str_addc(out, (unsigned char)*text < 32 || *text == 127 ? ' ' : *text);
	bt_str_addc(out, '\n');
}

static void write_head(const struct bt_guess *g, struct bt_str *out)
{
	const struct bt_survey *s = g->survey;
	bt_str_add(out, "# Written by `baton init` from what runs on this host. Read it, then:\n"
			"#   baton lint          check this file\n");
	bt_str_add(
		out, g->app ? "#   baton adopt         take over what serves now, as it is\n" : "");
	bt_str_add(out, "#   baton plan          every step of the first deployment\n"
			"#   baton deploy -v 1   deploy it\n"
			"# Every key: docs/config.md\n");
	if (s->n_listeners)
		bt_str_add(out, "#\n# What listens here:\n");
	for (size_t i = 0; i < s->n_listeners; i++) {
		const struct bt_survey_listener *l = &s->listeners[i];
		BT_FREE char *text = bt_asprintf("#   %-5u pid %d of %s%s%s: %s", l->port,
			(int)l->pid, l->user, l->unit ? ", systemd unit " : "",
			l->unit ? l->unit : "", l->command);
		comment(out, text);
	}
	if (s->n_nginx == 0)
		bt_str_add(out, "# No nginx runs here.\n");
	else if (s->trouble) {
		bt_str_add(out, "# nginx runs, but its configuration cannot be read: ");
		comment(out, s->trouble);
	}
	if (s->n_nginx > 1)
		bt_str_addf(out,
			"# %zu nginx run here; what follows is about the first that was "
			"found.\n",
			s->n_nginx);
	bt_str_addc(out, '\n');
}

static void write_run(const struct bt_guess *g, struct bt_str *out)
{
	const struct bt_survey_listener *app = g->app;
	bt_str_add(out, "run:\n");
	if (app) {
		bt_str_addf(out,
			"  # As pid %d runs, with what changes from slot to slot as "
			"placeholders.\n",
			(int)app->pid);
		if (!g->port_in_command)
			bt_str_add(out, g->profile ? "  # Its port is not in its arguments: the "
						     "profile decides it, it seems.\n"
						   : "  # Its port is not in its arguments: add "
						     "it, such as --server.port={port}.\n");
		bt_str_add(out, "  command:\n");
		for (size_t i = 0; i < g->n_command; i++) {
			bt_str_add(out, "    - ");
			scalar(g->command[i], out);
			bt_str_addc(out, '\n');
		}
	} else {
		bt_str_add(out, "  command: java -jar {artifact} --server.port={port}\n");
	}
	bt_str_add(out, "  # One serves, the other takes the next release; what serves is found by "
			"looking at nginx.\n  slots:\n");
	for (size_t i = 0; i < g->n_slots; i++) {
		bt_str_addf(out, "    %s: %u", g->slots[i].name, g->slots[i].port);
		if (g->slots[i].runs)
			bt_str_addf(out, "   # pid %d", (int)g->slots[i].runs->pid);
		else
			bt_str_add(out, app ? "   # nothing listens there" : "");
		bt_str_addc(out, '\n');
	}
	if (app) {
		BT_STR struct bt_str dir = {0};
		scalar(app->cwd, &dir);
		bt_str_addf(out,
			"  # dir: %s   # where it runs now; without it, the release's own "
			"directory\n",
			bt_str_get(&dir));
		bt_str_addf(out,
			"  # user: %s   # it runs as this user now; without it, as the "
			"agent's own\n",
			app->user);
	}
	bt_str_add(out, "  # env: {JAVA_TOOL_OPTIONS: -Xmx512m}   # the app gets no other "
			"environment than this\n"
			"  # secrets: [DB_PASSWORD]   # from the environment of `baton deploy`\n"
			"  stop: {signal: TERM, grace: 30s}\n");
}

static void write_health(const struct bt_guess *g, struct bt_str *out)
{
	bt_str_add(out, "health:\n");
	if (g->health_path)
		bt_str_addf(out, "  http: %s   # it answers 200 there\n", g->health_path);
	else if (g->app)
		bt_str_add(out,
			"  tcp: true   # none of the usual paths answers 200; better a path: "
			"http: /actuator/health\n");
	else
		bt_str_add(out, "  http: /actuator/health\n");
	if (g->health_is_json || !g->app)
		bt_str_add(out, "  expect: {json: {status: UP}}\n");
	bt_str_add(out, "  within: 2m   # that a new instance may take\n");
	if (g->identity)
		bt_str_add(out, "identity: /profile   # it answers with its slot's name there\n");
}

static const char *form_name(enum bt_nginx_form form)
{
	return bt_enum_name(&bt_enum_nginx_form, (int)form);
}

static void write_adopt(const struct bt_guess *g, struct bt_str *out)
{
	const struct bt_survey_target *t = g->target;
	const struct bt_survey *s = g->survey;
	BT_FREE char *own = bt_asprintf("/etc/nginx/conf.d/baton-%s.conf", g->service);
	const char *file = t && t->own_file ? t->file : own;
	if (t && !t->own_file)
		bt_str_addf(out,
			"    # %s %s stands in %s among other things. Move it to the file\n"
			"    # below, where it is alone, and include that file; baton will "
			"own it.\n",
			t->form == BT_NGINX_UPSTREAM ? "upstream" : "the variable", t->name,
			t->file);
	else if (!t)
		bt_str_addf(out,
			"    # nginx does not send to it by an upstream or a variable yet. "
			"Make the file below with\n"
			"    #   upstream %s { server 127.0.0.1:%u; }\n"
			"    # include it in http { }, and say proxy_pass http://%s; baton "
			"will own that file.\n",
			g->service, g->slots[0].port, g->service);
	bt_str_add(out, "    adopt:   # the nginx that is there: baton owns this one file of it\n");
	line(out, "      include", file);
	bt_str_addf(out, "      form: %s\n", t ? form_name(t->form) : "upstream");
	if (t && t->form == BT_NGINX_UPSTREAM && !bt_streq(t->name, g->service))
		line(out, "      upstream", t->name);
	if (t && t->form != BT_NGINX_UPSTREAM && !bt_streq(t->name, form_name(t->form)))
		line(out, "      variable", t->name);
	if (s->config)
		line(out, "      config", s->config);
	if (s->prefix)
		line(out, "      prefix", s->prefix);
	if (t && g->variable && g->rolling)
		bt_str_addf(out,
			"      # $%s in %s sends some paths to one instance. The file "
			"above gets a second\n"
			"      # block for that: let those paths say proxy_pass "
			"http://%s_one;\n"
			"      one: %s_one\n",
			g->variable->name, g->variable->file, t->name, t->name);
}

static void write_traffic(const struct bt_guess *g, struct bt_str *out)
{
	bt_str_add(out, "traffic:\n  nginx:\n");
	if (g->survey->n_nginx)
		write_adopt(g, out);
	else
		bt_str_add(out,
			"    # baton runs an nginx of its own there. With one of yours: adopt: "
			"{include: …, form: …}\n    listen: 8080\n");
	if (g->survey->n_nginx && g->nginx_url)
		line(out, "    url", g->nginx_url);
}

static void write_deploy(const struct bt_guess *g, struct bt_str *out)
{
	bt_str_add(out, "deploy:\n");
	if (g->rolling)
		bt_str_add(out,
			"  strategy: rolling   # nginx sends to several: they are replaced one "
			"by one\n");
	else
		bt_str_add(out, "  strategy: blue-green\n");
	bt_str_add(out, "  drain: 30s\n  bake: 30s\n");
	bt_str_add(out, g->rolling
				? ""
				: "  # keep_warm: 15m   # the old one stays, so that going back is "
				  "one switch\n");
}

void bt_guess_write(const struct bt_guess *g, struct bt_str *out)
{
	write_head(g, out);
	line(out, "service", g->service);
	if (g->artifact) {
		bt_str_add(out, "# What runs now. Say here what your build makes, such as "
				"build/libs/shop.jar, relative to this file.\n");
		line(out, "artifact", g->artifact);
	} else {
		bt_str_add(out,
			"artifact: build/libs/shop.jar   # what your build makes, relative to "
			"this file\n");
	}
	write_run(g, out);
	write_health(g, out);
	write_traffic(g, out);
	write_deploy(g, out);
	for (size_t i = 0; g->app && i < g->n_slots; i++)
		if (g->slots[i].runs && g->slots[i].runs->unit)
			bt_str_addf(out,
				"# pid %d belongs to the systemd unit %s: disable that unit before "
				"the "
				"first deployment,\n# or systemd may start it again once it was "
				"stopped.\n",
				(int)g->slots[i].runs->pid, g->slots[i].runs->unit);
}
