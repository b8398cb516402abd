/* Commands of admins: tokens, hosts that join, and who did what. */
#include "cli/answer.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void scope_of(const json_t *token, struct bt_str *out)
{
	const json_t *services = json_object_get(token, "services");
	bt_answer_join(services, out);
	if (!out->len)
		bt_str_add(out, "all");
}

int bt_cmd_token_create(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answer = NULL;
	const char *role = bt_cli_get(cli, "role"), *ttl = bt_cli_get(cli, "ttl");
	BT_JSON json_t *body = json_pack("{s:s, s:s, s:s*, s:o, s:o}", "name", cli->args[0], "role",
		role ? role : "deployer", "ttl", ttl, "services", bt_answer_all(cli, "service"),
		"environments", bt_answer_all(cli, "environment"));
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_post(c, "/v1/tokens", body, &answer, err);
	if (r < 0 || bt_answer_as_json(cli, answer))
		return r;
	puts(bt_answer_text(answer, "token"));
	BT_STR struct bt_str scope = {0};
	char expires[32];
	scope_of(answer, &scope);
	bt_answer_time(answer, "expires_at", expires);
	fprintf(stderr, "%s: %s, services: %s%s%s; the token is shown only now\n", cli->args[0],
		bt_answer_text(answer, "role"), scope.data, *expires ? ", until " : "", expires);
	return 0;
}

int bt_cmd_token_list(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	int r = bt_answer_get(cli, &c, "/v1/tokens", &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "NAME", "ROLE", "SERVICES", "CREATED", "EXPIRES", "REVOKED");
	size_t i;
	json_t *one;
	json_array_foreach (json_object_get(j, "tokens"), i, one) {
		BT_STR struct bt_str scope = {0};
		char created[32], expires[32], revoked[32];
		scope_of(one, &scope);
		bt_answer_time(one, "created_at", created);
		bt_answer_time(one, "expires_at", expires);
		bt_answer_time(one, "revoked_at", revoked);
		BT_TABLE_ROW(&t, bt_answer_text(one, "name"), bt_answer_text(one, "role"),
			scope.data, created, expires, revoked);
	}
	bt_table_print(&t);
	return 0;
}

int bt_cmd_token_revoke(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_ANSWER struct bt_client_answer a = {0};
	BT_FREE char *name = bt_url_escape(cli->args[0]);
	BT_FREE char *path = bt_asprintf("/v1/tokens/%s", name);
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_do(c, &(struct bt_client_call){.method = "DELETE", .path = path},
			NULL, &a, err);
	if (r == 0)
		printf("token %s is good for nothing any more\n", cli->args[0]);
	return r;
}

int bt_cmd_join_token(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answer = NULL;
	const char *ttl = bt_cli_get(cli, "ttl");
	BT_JSON json_t *body =
		json_pack("{s:s, s:s}", "host", cli->args[0], "ttl", ttl ? ttl : "15m");
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_post(c, "/v1/join-tokens", body, &answer, err);
	if (r < 0 || bt_answer_as_json(cli, answer))
		return r;
	puts(bt_answer_text(answer, "token"));
	fprintf(stderr, "on %s: baton agent join https://SERVER:AGENT_PORT --token …\n",
		cli->args[0]);
	return 0;
}

int bt_cmd_audit(struct bt_cli *cli, struct bt_err *err)
{
	static const char *const filters[] = {"service", "who", "since"};
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	BT_STR struct bt_str path = {0};
	const char *limit = bt_cli_get(cli, "limit");
	int64_t n = 50;
	if (limit && bt_int_parse(limit, 1, 10000, &n, err) < 0)
		return bt_err_wrap(err, "--limit");
	bt_str_addf(&path, "/v1/audit?limit=%" PRId64, n);
	for (size_t i = 0; i < BT_ARRAY_LEN(filters); i++) {
		const char *value = bt_cli_get(cli, filters[i]);
		BT_FREE char *escaped = value ? bt_url_escape(value) : NULL;
		if (escaped)
			bt_str_addf(&path, "&%s=%s", filters[i], escaped);
	}
	int r = bt_answer_get(cli, &c, path.data, &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "WHEN", "WHO", "FROM", "WHAT", "SERVICE", "DETAIL");
	size_t i;
	json_t *one;
	json_array_foreach (json_object_get(j, "audit"), i, one) {
		char at[32];
		bt_answer_time(one, "at", at);
		BT_TABLE_ROW(&t, at, bt_answer_text(one, "who"), bt_answer_text(one, "from"),
			bt_answer_text(one, "what"), bt_answer_text(one, "service"),
			bt_answer_text(one, "detail"));
	}
	if (t.n_rows == 1)
		puts("nothing was done, as far as these filters see");
	else
		bt_table_print(&t);
	return 0;
}

static int upgrade_one(struct bt_client *c, const char *host, json_t *done, struct bt_err *err)
{
	BT_JSON json_t *answer = NULL;
	BT_FREE char *name = bt_url_escape(host);
	BT_FREE char *path = bt_asprintf("/v1/hosts/%s/upgrade", name);
	int r = bt_client_post(c, path, NULL, &answer, err);
	if (r == 0)
		json_array_append(done, answer);
	return r;
}

/* One after the other, and none after one that failed: a program that does not come up on one host
 * would not on the next. */
int bt_cmd_hosts_upgrade(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *hosts = NULL;
	BT_JSON json_t *health = NULL;
	BT_JSON json_t *done = json_array();
	size_t i;
	json_t *h;
	int r = bt_answer_get(cli, &c, "/v1/hosts", &hosts, err);
	if (r == 0)
		r = bt_client_get(c, "/v1/health", &health, err);
	if (r == 0)
		c->patience_ms = 400000;
	if (r == 0 && cli->n_args)
		r = upgrade_one(c, cli->args[0], done, err);
	json_array_foreach (json_object_get(hosts, "hosts"), i, h)
		if (r == 0 && !cli->n_args && json_is_true(json_object_get(h, "connected")) &&
			!bt_streq(bt_answer_text(h, "agent_version"),
				bt_answer_text(health, "version")))
			r = upgrade_one(c, bt_answer_text(h, "name"), done, err);
	json_array_foreach (done, i, h)
		if (!bt_cli_has(cli, "json"))
			printf("host %s: %s is now %s; its apps ran on\n",
				bt_answer_text(h, "host"), bt_answer_text(h, "from"),
				bt_answer_text(h, "to"));
	if (r == 0 && !bt_answer_as_json(cli, done) && json_array_size(done) == 0)
		printf("every connected agent is %s already\n", bt_answer_text(health, "version"));
	return r;
}
