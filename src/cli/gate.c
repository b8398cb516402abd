/* Locks and freezes. */
#include "cli/answer.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int delete (struct bt_cli *cli, const char *path, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_ANSWER struct bt_client_answer a = {0};
	int r = bt_client_open(cli, &c, err);
	return r < 0 ? r
		     : bt_client_do(c, &(struct bt_client_call){.method = "DELETE", .path = path},
			       NULL, &a, err);
}

/* -m is how a person says it; without, nobody would know later. */
static int need_why(const struct bt_cli *cli, const char **ret, struct bt_err *err)
{
	*ret = bt_cli_get(cli, "why");
	return *ret && **ret ? 0
			     : bt_err_set(err, BT_E_CONFIG,
				       "say why, for those who meet it: -m 'stock-taking until "
				       "six'");
}

int bt_cmd_lock(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	const char *why = NULL;
	BT_FREE char *name = bt_url_escape(cli->args[0]);
	BT_FREE char *path = bt_asprintf("/v1/services/%s/lock", name);
	int r = need_why(cli, &why, err);
	BT_JSON json_t *body = r == 0 ? json_pack("{s:s}", "why", why) : NULL;
	if (r == 0 && !body)
		r = bt_err_set(err, BT_E_CONFIG, "-m: expected UTF-8 text");
	if (r == 0)
		r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_post(c, path, body, NULL, err);
	if (r == 0)
		printf("%s is locked: deployments and rollbacks are refused until `baton unlock "
		       "%s`\n",
			cli->args[0], cli->args[0]);
	return r;
}

int bt_cmd_unlock(struct bt_cli *cli, struct bt_err *err)
{
	BT_FREE char *name = bt_url_escape(cli->args[0]);
	BT_FREE char *path = bt_asprintf("/v1/services/%s/lock", name);
	int r = delete (cli, path, err);
	if (r == 0)
		printf("%s is unlocked\n", cli->args[0]);
	return r;
}

int bt_cmd_freeze_add(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answer = NULL;
	const char *why = NULL, *zone = bt_cli_get(cli, "zone");
	int r = need_why(cli, &why, err);
	if (r < 0)
		return r;
	BT_JSON json_t *body = json_pack("{s:s, s:s, s:s, s:o, s:o}", "during", cli->args[0], "why",
		why, "zone", zone ? zone : "local", "services", bt_answer_all(cli, "service"),
		"environments", bt_answer_all(cli, "environment"));
	if (!body)
		return bt_err_set(err, BT_E_CONFIG, "-m: expected UTF-8 text");
	r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_post(c, "/v1/freezes", body, &answer, err);
	if (r == 0)
		printf("freeze %" JSON_INTEGER_FORMAT ": no deployments %s; `baton freeze list` "
		       "shows all\n",
			json_integer_value(json_object_get(answer, "id")), cli->args[0]);
	return r;
}

int bt_cmd_freeze_list(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	int r = bt_answer_get(cli, &c, "/v1/freezes", &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "ID", "DURING", "CLOCK", "SERVICES", "BY", "WHY");
	size_t i;
	json_t *f;
	json_array_foreach (json_object_get(j, "freezes"), i, f) {
		char id[32];
		BT_STR struct bt_str services = {0};
		bt_answer_number(f, "id", id);
		bt_answer_join(json_object_get(f, "services"), &services);
		BT_TABLE_ROW(&t, id, bt_answer_text(f, "during"),
			strcmp(bt_answer_text(f, "zone"), "local") == 0 ? "the server's"
									: bt_answer_text(f, "zone"),
			services.len ? bt_str_get(&services) : "all", bt_answer_text(f, "by"),
			bt_answer_text(f, "why"));
	}
	if (t.n_rows == 1)
		puts("no freezes");
	else
		bt_table_print(&t);
	return 0;
}

int bt_cmd_freeze_remove(struct bt_cli *cli, struct bt_err *err)
{
	BT_FREE char *id = bt_url_escape(cli->args[0]);
	BT_FREE char *path = bt_asprintf("/v1/freezes/%s", id);
	int r = delete (cli, path, err);
	if (r == 0)
		printf("freeze %s is over\n", cli->args[0]);
	return r;
}
