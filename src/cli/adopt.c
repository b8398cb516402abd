/* Adoption: the config goes to the server, and the run that follows changes nothing that serves. */
#include "cli/files.h"
#include "cli/follow.h"

#include <inttypes.h>
#include <stdio.h>

static int make_body(
	const struct bt_cli *cli, const struct bt_service *s, json_t **ret, struct bt_err *err)
{
	json_t *secrets = NULL, *files = NULL;
	int r = bt_files_contents(s, &files, err);
	if (r == 0)
		r = bt_files_secrets(s, false, &secrets, err);
	if (r < 0) {
		json_decref(files);
		return r;
	}
	*ret = json_pack("{s:o, s:o, s:o, s:s*}", "config", bt_config_service_to_json(s),
		"env_secrets", secrets, "files", files, "version", bt_cli_get(cli, "version"));
	return *ret ? 0 : bt_err_set(err, BT_E_CONFIG, "version and secrets must be UTF-8 text");
}

/* What is adopted, and what that means later: the plan's notes. */
static void say_notes(struct bt_client *c, struct bt_view *v, int64_t id)
{
	BT_JSON json_t *run = NULL;
	BT_FREE char *path = bt_asprintf("/v1/deployments/%" PRId64, id);
	const json_t *note;
	size_t i;
	if (bt_client_get(c, path, &run, NULL) < 0)
		return;
	json_array_foreach (json_object_get(json_object_get(run, "plan"), "notes"), i, note)
		if (json_is_string(note))
			bt_view_note(v, "%s", json_string_value(note));
}

static int follow(struct bt_cli *cli, struct bt_client *c, const struct bt_service *s,
	const json_t *answer, int64_t id, struct bt_err *err)
{
	const char *version = NULL;
	bt_json_str_opt(json_object_get(answer, "release"), "version", &version, NULL);
	BT_FREE char *what = bt_asprintf("%s %s", s->name, version ? version : "");
	struct bt_view *v = bt_view_new(bt_view_choose(bt_cli_has(cli, "json")));
	BT_FREE char *title = bt_asprintf("%s · deployment %" PRId64, what, id);
	bt_view_title(v, title);
	say_notes(c, v, id);
	int r = bt_follow(
		&(struct bt_follow){
			.client = c, .view = v, .id = id, .what = what, .may_abort = true},
		err);
	bt_view_free(v);
	return r;
}

int bt_cmd_adopt(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *body = NULL;
	BT_JSON json_t *answer = NULL;
	struct bt_config *config = NULL;
	const struct bt_service *s = NULL;
	int64_t id = 0;
	int r = bt_files_config(cli, &config, err);
	if (r == 0)
		r = bt_files_service(cli, config, &s, err);
	if (r == 0)
		r = make_body(cli, s, &body, err);
	if (r == 0)
		r = bt_client_open(cli, &c, err);
	if (r == 0) {
		BT_FREE char *name = bt_url_escape(s->name);
		BT_FREE char *path = bt_asprintf("/v1/services/%s/adopt", name);
		bt_client_catch_signals(c);
		r = bt_client_post(c, path, body, &answer, err);
	}
	if (r == 0)
		r = bt_json_int(answer, "id", 0, INT64_MAX, &id, err);
	if (r == 0 && bt_cli_has(cli, "detach") && !c->signals)
		printf("deployment %" PRId64 " runs on the server: `baton show %" PRId64
		       "` follows it\n",
			id, id);
	else if (r == 0)
		r = follow(cli, c, s, answer, id, err);
	bt_config_free(config);
	return r;
}
