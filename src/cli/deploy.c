#include "cli/files.h"
#include "cli/flow.h"
#include "cli/follow.h"
#include "cli/stored.h"
#include "cli/upload.h"
#include "cli/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Nothing is on the server before the POST; from then on a signal means abort. */

struct deploy {
	struct bt_cli *cli;
	const struct bt_service *service;
	const char *version;
	struct bt_artifact artifact;
	struct bt_client *client;
	struct bt_view *view;
	json_t *body;
	bool stored;	  /* the config is the server's, and does not travel */
	bool keep;	  /* secrets that are not in the environment are the last release's */
	char *live;	  /* a restart's version */
	bool restart;	  /* the live release again: no artifact, no version */
	const char *flow; /* what is run; NULL: the service's strategy */
	bool on_live;	  /* the flow brings no release */
	bool waits;
	struct bt_wait wait; /* --wait */
};

static void add_by(json_t *body, const struct bt_cli *cli)
{
	static const struct {
		const char *option, *env, *key;
	} table[] = {{"build-url", "BUILD_URL", "build_url"}, {"commit", "GIT_COMMIT", "commit"}};
	json_t *by = json_object();
	for (size_t i = 0; i < BT_ARRAY_LEN(table); i++) {
		const char *value = bt_cli_get(cli, table[i].option);
		if (!value)
			value = getenv(table[i].env);
		if (value && *value)
			json_object_set_new(by, table[i].key, json_string(value));
	}
	json_object_set_new(body, "by", by);
}

static void add_switch(json_t *body, const char *key, bool on)
{
	if (on)
		json_object_set_new(body, key, json_true());
}

static int make_body(struct deploy *d, struct bt_err *err)
{
	json_t *secrets = NULL, *files = NULL;
	int r = d->stored ? 0 : bt_files_contents(d->service, &files, err);
	if (r == 0)
		r = bt_files_secrets(d->service, d->keep, &secrets, err);
	if (r < 0) {
		json_decref(files);
		return r;
	}
	d->body = json_pack("{s:o}", "env_secrets", secrets);
	add_switch(d->body, "keep_secrets", d->keep);
	add_switch(d->body, "force", bt_cli_has(d->cli, "force"));
	if (!d->stored)
		json_object_update_new(
			d->body, json_pack("{s:o, s:o}", "config",
					 bt_config_service_to_json(d->service), "files", files));
	json_t *what = !d->artifact.path ? json_object()
					 : json_pack("{s:s, s:s, s:{s:s, s:I, s:s}}", "service",
						   d->service->name, "version", d->version,
						   "artifact", "digest", d->artifact.digest, "size",
						   (json_int_t)d->artifact.size, "file_name",
						   d->artifact.file_name);
	if (!what)
		return bt_err_set(
			err, BT_E_CONFIG, "version, file name and secrets must be UTF-8 text");
	json_object_update_new(d->body, what);
	if (d->on_live)
		json_object_set_new(d->body, "service", json_string(d->service->name));
	add_by(d->body, d->cli);
	return d->flow ? bt_flow_put(d->cli, d->flow, d->body, err) : 0;
}

/* On a terminal a person sees the plan first. 1: they said no. */
static int ask(struct deploy *d, struct bt_err *err)
{
	if (bt_cli_has(d->cli, "yes") || bt_cli_has(d->cli, "json") || !isatty(STDIN_FILENO) ||
		!isatty(STDOUT_FILENO))
		return 0;
	BT_JSON json_t *answer = NULL;
	int r = bt_client_post(d->client, "/v1/plan", d->body, &answer, err);
	if (r < 0)
		return r;
	const char *text = json_string_value(json_object_get(answer, "text"));
	printf("%s\n%s %s %s? [Y/n] ", text ? text : "", d->on_live ? "Run" : "Deploy",
		d->on_live ? d->flow : d->service->name,
		d->on_live ? d->service->name : d->version);
	fflush(stdout);
	char line[16] = "";
	if (!fgets(line, sizeof line, stdin))
		return 1;
	return line[0] == 'n' || line[0] == 'N';
}

static int begin(struct deploy *d, int64_t *ret_id, struct bt_err *err)
{
	BT_JSON json_t *answer = NULL;
	d->client->leave_at = 0; /* an answer must be known before we leave */
	if (d->wait.ticket)
		json_object_set_new(d->body, "ticket", json_integer(d->wait.ticket));
	int r = d->restart ? bt_stored_post(
				     d->client, d->service->name, "restart", d->body, &answer, err)
			   : bt_client_post(d->client, "/v1/deployments", d->body, &answer, err);
	if (r == 0)
		r = bt_json_int(answer, "id", 0, INT64_MAX, ret_id, err);
	const char *version =
		json_string_value(json_object_get(json_object_get(answer, "release"), "version"));
	if (d->restart && version) {
		free(d->live);
		d->version = d->live = bt_strdup(version);
	}
	if (r == BT_E_LEASE)
		return bt_err_wrap(err, "service %s", d->service->name);
	return r;
}

/* Behind those who came before; somebody without a ticket may still be faster, now and then. */
static int begin_in_turn(struct deploy *d, int64_t *ret_id, struct bt_err *err)
{
	int r;
	if (!d->waits)
		return begin(d, ret_id, err);
	d->wait.client = d->client;
	d->wait.view = d->view;
	d->wait.service = d->service->name;
	do {
		d->client->leave_at = 1;
		r = bt_wait_turn(&d->wait, err);
		if (r < 0)
			return r;
		r = begin(d, ret_id, err);
	} while (r == BT_E_LEASE);
	if (r < 0)
		bt_wait_leave(&d->wait);
	return r;
}

static int detach(const struct bt_cli *cli, int64_t id, const char *what)
{
	if (bt_cli_has(cli, "json"))
		printf("{\"deployment\":%" PRId64 "}\n", id);
	else
		printf("deployment %" PRId64 " of %s runs on the server: `baton show %" PRId64
		       "` follows it\n",
			id, what, id);
	return 0;
}

static int run(struct deploy *d, struct bt_err *err)
{
	int64_t id = 0;
	bt_client_catch_signals(d->client);
	d->client->leave_at = 1;
	int r = d->restart || d->on_live ? 0 : bt_upload(d->client, &d->artifact, d->view, err);
	if (r == 0)
		r = begin_in_turn(d, &id, err);
	if (r < 0)
		return r;
	BT_FREE char *what = d->on_live ? bt_asprintf("%s of %s", d->flow, d->service->name)
					: bt_asprintf("%s %s", d->service->name, d->version);
	if (bt_cli_has(d->cli, "detach") && !d->client->signals)
		return detach(d->cli, id, what);
	BT_FREE char *title = bt_asprintf("%s · deployment %" PRId64, what, id);
	bt_view_title(d->view, title);
	/* terminals and build servers make a link of it */
	bt_view_note(d->view, "deployment %" PRId64 " of %s: %s/#/runs/%" PRId64, id, what,
		d->client->url, id);
	return bt_follow(&(struct bt_follow){.client = d->client,
				 .view = d->view,
				 .id = id,
				 .what = what,
				 .may_abort = true},
		err);
}

/* The config at hand, else the one that the server has stored. */
static int find_config(struct deploy *d, struct bt_config **ret, struct bt_err *err)
{
	BT_FREE char *name = bt_files_name(d->cli);
	int r;
	if (!name || bt_files_at_hand(d->cli)) {
		r = bt_files_config(d->cli, ret, err);
		return r < 0 ? r : bt_files_service(d->cli, *ret, &d->service, err);
	}
	d->stored = d->keep = true;
	r = bt_client_open(d->cli, &d->client, err);
	if (r == 0)
		r = bt_stored_config(d->client, name, ret, NULL, err);
	if (r == BT_E_NOTFOUND)
		return bt_err_wrap(err, "no ./baton.yaml is here, and on the server");
	if (r == 0)
		d->service = &(*ret)->services[0];
	return r;
}

static int prepare(struct deploy *d, struct bt_err *err)
{
	int r = 0;
	d->version = bt_cli_get(d->cli, "version");
	bool releases = true;
	if (d->flow)
		r = bt_flow_needs_release(d->service, d->flow, &releases, err);
	if (r < 0)
		return r;
	d->on_live = !releases;
	d->keep = d->keep || d->on_live;
	if (!d->restart && !d->on_live && (!d->version || !*d->version))
		return bt_err_set(err, BT_E_CONFIG,
			"say what this release is called: --version NAME, such as a git tag");
	const char *wait = bt_cli_get(d->cli, "wait");
	d->waits = wait != NULL;
	if (wait && *wait && bt_duration_parse(wait, &d->wait.limit_ms, err) < 0)
		return bt_err_wrap(err, "--wait");
	if (!d->restart && !d->on_live)
		r = bt_files_artifact(d->cli, d->service, &d->artifact, err);
	if (r == 0)
		r = make_body(d, err);
	if (r == 0 && !d->client)
		r = bt_client_open(d->cli, &d->client, err);
	return r;
}

static int deploy(struct deploy *d, struct bt_err *err)
{
	struct bt_config *c = NULL;
	int r = find_config(d, &c, err);
	if (r == 0 && d->stored && bt_cli_get(d->cli, "appspec"))
		r = bt_err_set(err, BT_E_CONFIG,
			"--appspec needs the service's baton.yaml at hand, which says it is a "
			"bundle: the stored config is taken as it is");
	if (r == 0 && !d->restart)
		r = bt_files_bundle_options(d->cli, c->arena, &d->service, err);
	if (r == 0)
		r = prepare(d, err);
	if (r == 0 && !d->restart)
		r = ask(d, err);
	if (r == 1) {
		puts("nothing was changed");
	} else if (r == 0) {
		d->view = bt_view_new(bt_view_choose(bt_cli_has(d->cli, "json")));
		r = run(d, err);
		bt_view_free(d->view);
	}
	if (r == -EINTR) {
		fputs("baton: interrupted; nothing was changed\n", stderr);
		r = BT_EXIT_INTERRUPTED;
	}
	bt_client_free(d->client);
	json_decref(d->body);
	bt_artifact_done(&d->artifact);
	bt_config_free(c);
	free(d->live);
	return r;
}

int bt_cmd_deploy(struct bt_cli *cli, struct bt_err *err)
{
	struct deploy d = {.cli = cli};
	return deploy(&d, err);
}

/* `shop=shop.war` is the artifact of shop alone; a file without a service's name is for all. NULL:
 * it is another service's. */
static const char *artifact_of(const char *value, const char *service, const char *all)
{
	size_t n = strcspn(value, "=");
	if (!value[n])
		return value;
	if (strlen(service) == n && strncmp(value, service, n) == 0)
		return value + n + 1;
	for (const char *at = all; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ',')) {
		size_t len = strcspn(at, ",");
		if (len == n && strncmp(value, at, n) == 0)
			return NULL;
	}
	return value; /* a file whose name has a = */
}

/* The same command for one service of those that were named. */
static void for_service(
	const struct bt_cli *cli, const char *service, const char *all, struct bt_cli *ret)
{
	*ret = *cli;
	ret->n_set = 0;
	for (size_t i = 0; i < cli->n_set; i++) {
		const char *name = cli->set[i].option->name, *value = cli->set[i].value;
		if (bt_streq(name, "service"))
			value = service;
		else if (bt_streq(name, "artifact"))
			value = artifact_of(value, service, all);
		if (!value)
			continue;
		ret->set[ret->n_set] = cli->set[i];
		ret->set[ret->n_set++].value = value;
	}
}

/* Several services have a run each, one after the other: each keeps its own minimum in rotation,
 * and the first that fails ends it. */
int bt_cmd_run(struct bt_cli *cli, struct bt_err *err)
{
	const char *all = bt_cli_get(cli, "service");
	int r = 0;
	if (!all || !strchr(all, ',')) {
		struct deploy d = {.cli = cli, .flow = cli->args[0]};
		return deploy(&d, err);
	}
	for (const char *at = all; *at && r == 0;) {
		size_t n = strcspn(at, ",");
		BT_FREE char *service = bt_strndup(at, n);
		struct bt_cli one;
		for_service(cli, service, all, &one);
		struct deploy d = {.cli = &one, .flow = cli->args[0]};
		if (n && (r = deploy(&d, err)) < 0)
			return bt_err_wrap(err, "%s", service);
		at += n + (at[n] == ',');
	}
	return r;
}

int bt_cmd_restart(struct bt_cli *cli, struct bt_err *err)
{
	struct deploy d = {.cli = cli, .restart = true, .keep = true};
	return deploy(&d, err);
}

int bt_cmd_rollback(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answer = NULL;
	int64_t id = 0;
	const char *to = bt_cli_get(cli, "to"), *version = NULL;
	BT_FREE char *service = bt_url_escape(cli->args[0]);
	BT_FREE char *path = bt_asprintf("/v1/services/%s/rollback", service);
	BT_JSON json_t *body = json_pack("{s:s?}", "to", to);
	add_switch(body, "force", bt_cli_has(cli, "force"));
	int r = bt_client_open(cli, &c, err);
	if (r < 0)
		return r;
	bt_client_catch_signals(c);
	r = bt_client_post(c, path, body, &answer, err);
	if (r == 0)
		r = bt_json_int(answer, "id", 0, INT64_MAX, &id, err);
	if (r < 0)
		return bt_err_wrap(err, "roll back %s", cli->args[0]);
	bt_json_str_opt(json_object_get(answer, "release"), "version", &version, NULL);
	BT_FREE char *what = bt_asprintf("%s %s", cli->args[0], version ? version : to ? to : "");
	if (bt_cli_has(cli, "detach") && !c->signals)
		return detach(cli, id, what);
	struct bt_view *v = bt_view_new(bt_view_choose(bt_cli_has(cli, "json")));
	BT_FREE char *title = bt_asprintf("%s · deployment %" PRId64, what, id);
	bt_view_title(v, title);
	bt_view_note(
		v, "deployment %" PRId64 ": back to %s: %s/#/runs/%" PRId64, id, what, c->url, id);
	r = bt_follow(
		&(struct bt_follow){
			.client = c, .view = v, .id = id, .what = what, .may_abort = true},
		err);
	bt_view_free(v);
	return r;
}
