#include "cli/client.h"
#include "cli/files.h"
#include "cli/flow.h"

#include <stdio.h>
#include <string.h>

int bt_cmd_lint(struct bt_cli *cli, struct bt_err *err)
{
	struct bt_config *c = NULL;
	int r = bt_files_config(cli, &c, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < c->n_services; i++) {
		BT_JSON json_t *contents = NULL;
		struct bt_err one = {0};
		if (bt_files_contents(&c->services[i], &contents, &one) < 0) {
			r = one.code;
			*err = one;
		}
	}
	if (r < 0) {
		bt_config_free(c);
		return r;
	}
	if (bt_cli_has(cli, "print")) {
		BT_STR struct bt_str out = {0};
		bt_config_print(c, &out);
		fputs(bt_str_get(&out), stdout);
	} else {
		printf("no problems: ");
		for (size_t i = 0; i < c->n_services; i++)
			printf("%s%s", i ? ", " : "", c->services[i].name);
		puts("");
	}
	bt_config_free(c);
	return 0;
}

/* A plan needs no artifact: without one, a release that has no bytes yet is planned for. */
static int request(const struct bt_cli *cli, const struct bt_service *s, bool stored, json_t **ret,
	struct bt_err *err)
{
	const char *version = bt_cli_get(cli, "version");
	json_t *files = NULL;
	int r = stored ? 0 : bt_files_contents(s, &files, err);
	if (r < 0)
		return r;
	BT_JSON json_t *j =
		json_pack("{s:s, s:s}", "service", s->name, "version", version ? version : "next");
	if (!stored)
		json_object_update_new(j, json_pack("{s:o, s:o}", "config",
						  bt_config_service_to_json(s), "files", files));
	if (bt_cli_has(cli, "flow") && (r = bt_flow_put(cli, bt_cli_get(cli, "flow"), j, err)) < 0)
		return r;
	if (bt_cli_has(cli, "artifact") || bt_cli_has(cli, "bundle")) {
		struct bt_artifact a;
		r = bt_files_artifact(cli, s, &a, err);
		if (r < 0)
			return r;
		json_object_set_new(j, "artifact",
			json_pack("{s:s, s:I, s:s}", "digest", a.digest, "size", (json_int_t)a.size,
				"file_name", a.file_name));
		bt_artifact_done(&a);
	}
	*ret = BT_STEAL(j);
	return 0;
}

static int plan(struct bt_cli *cli, const struct bt_service *s, bool stored, struct bt_err *err)
{
	BT_JSON json_t *body = NULL;
	BT_JSON json_t *answer = NULL;
	BT_CLIENT struct bt_client *client = NULL;
	int r = request(cli, s, stored, &body, err);
	if (r == 0)
		r = bt_client_open(cli, &client, err);
	if (r == 0)
		r = bt_client_post(client, "/v1/plan", body, &answer, err);
	if (r < 0)
		return r;
	if (bt_cli_has(cli, "json")) {
		BT_FREE char *text = json_dumps(json_object_get(answer, "plan"), JSON_INDENT(2));
		puts(text ? text : "null");
	} else {
		const char *text = json_string_value(json_object_get(answer, "text"));
		fputs(text ? text : "", stdout);
	}
	return 0;
}

int bt_cmd_plan(struct bt_cli *cli, struct bt_err *err)
{
	struct bt_config *c = NULL;
	BT_FREE char *name = bt_files_name(cli);
	/* Without a config at hand it is the one that the server has stored. */
	const struct bt_service unknown = {.name = name}, *s = &unknown;
	bool stored = name && !bt_files_at_hand(cli);
	int r = stored ? 0 : bt_files_config(cli, &c, err);
	if (r == 0 && !stored)
		r = bt_files_service(cli, c, &s, err);
	if (r == 0 && !stored)
		r = bt_files_bundle_options(cli, c->arena, &s, err);
	if (r == 0)
		r = plan(cli, s, stored, err);
	bt_config_free(c);
	return r;
}
