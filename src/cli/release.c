/* release list, show, good, bad, prune. */
#include "cli/answer.h"
#include "cli/follow.h"
#include "cli/stored.h"
#include "cli/table.h"
#include "config/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* "good, live", "bad (ann: loses orders)", "good, pruned" */
static void state_of(const json_t *release, struct bt_str *out)
{
	const char *by = bt_answer_text(release, "marked_by");
	const char *why = bt_answer_text(release, "marked_why");
	bt_str_add(out, bt_answer_text(release, "state"));
	if (json_is_true(json_object_get(release, "live")))
		bt_str_add(out, ", live");
	if (json_object_get(release, "pruned_at"))
		bt_str_add(out, ", pruned");
	if (*by)
		bt_str_addf(out, " (%s%s%s)", by, *why ? ": " : "", why);
}

int bt_cmd_release_list(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	BT_FREE char *name = bt_url_escape(cli->args[0]);
	BT_FREE char *path = bt_asprintf("/v1/services/%s/releases", name);
	int r = bt_answer_get(cli, &c, path, &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	BT_TABLE struct bt_table t = {0};
	BT_TABLE_ROW(&t, "ID", "VERSION", "STATE", "SIZE", "CREATED", "SHA-256");
	size_t i;
	json_t *one;
	json_array_foreach (json_object_get(j, "releases"), i, one) {
		char id[32], created[32], size[32];
		BT_STR struct bt_str state = {0};
		bt_answer_number(one, "id", id);
		bt_answer_time(one, "created_at", created);
		bt_view_amount(json_integer_value(json_object_get(one, "size")), size);
		state_of(one, &state);
		BT_FREE char *digest = bt_strndup(bt_answer_text(one, "digest"), 12);
		BT_TABLE_ROW(&t, id, bt_answer_text(one, "version"), bt_str_get(&state), size,
			created, digest);
	}
	bt_table_print(&t);
	return 0;
}

static char *release_path(const struct bt_cli *cli)
{
	BT_FREE char *name = bt_url_escape(cli->args[0]);
	BT_FREE char *release = bt_url_escape(cli->args[1]);
	return bt_asprintf("/v1/services/%s/releases/%s", name, release);
}

static void print_files(const json_t *list)
{
	size_t i;
	json_t *one;
	json_array_foreach (list, i, one) {
		char size[32];
		bt_view_amount(json_integer_value(json_object_get(one, "size")), size);
		printf("%-10s %s, %s\n", i ? "" : "files", bt_answer_text(one, "to"), size);
	}
}

int bt_cmd_release_show(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *j = NULL;
	BT_FREE char *path = release_path(cli);
	struct bt_config *config = NULL;
	int r = bt_answer_get(cli, &c, path, &j, err);
	if (r < 0 || bt_answer_as_json(cli, j))
		return r;
	char id[32], created[32], size[32];
	BT_STR struct bt_str state = {0}, text = {0};
	bt_answer_number(j, "id", id);
	bt_answer_time(j, "created_at", created);
	bt_view_amount(json_integer_value(json_object_get(j, "size")), size);
	state_of(j, &state);
	printf("%-10s %s %s (number %s)\n%-10s %s\n%-10s %s by %s\n%-10s %s, %s\n%-10s %s\n",
		"release", cli->args[0], bt_answer_text(j, "version"), id, "state",
		bt_str_get(&state), "created", created,
		bt_answer_text(json_object_get(j, "by"), "name"), "artifact",
		bt_answer_text(j, "file_name"), size, "sha-256", bt_answer_text(j, "digest"));
	print_files(json_object_get(j, "files"));
	r = bt_config_service_from_json(json_object_get(j, "config"), &config, err);
	if (r == 0) {
		bt_config_print(config, &text);
		printf("\n%s", bt_str_get(&text));
	}
	bt_config_free(config);
	return r;
}

int bt_cmd_release_mark(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answer = NULL;
	BT_FREE char *path = release_path(cli);
	const char *state = strrchr(cli->command->name, ' ') + 1;
	BT_JSON json_t *body =
		json_pack("{s:s, s:s*}", "state", state, "why", bt_cli_get(cli, "message"));
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_post(c, path, body, &answer, err);
	if (r < 0 || bt_answer_as_json(cli, answer))
		return r;
	printf("%s %s is %s now%s\n", cli->args[0], cli->args[1], state,
		bt_streq(state, "bad") ? ": deploy and rollback refuse it without --force" : "");
	return 0;
}

static void say_removed(struct bt_view *v, const json_t *list)
{
	size_t i;
	json_t *one;
	json_array_foreach (list, i, one) {
		char size[32];
		bt_view_amount(json_integer_value(json_object_get(one, "size")), size);
		bt_view_note(v, "removed from the server: %s of %s (sha256 %.12s…)", size,
			bt_answer_text(one, "versions"), bt_answer_text(one, "digest"));
	}
	if (!json_array_size(list))
		bt_view_note(v, "the server holds no artifact that is not needed");
}

int bt_cmd_release_prune(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answer = NULL;
	BT_JSON json_t *body = json_object();
	int64_t id = 0;
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_stored_post(c, cli->args[0], "prune", body, &answer, err);
	if (r == 0)
		r = bt_json_int(answer, "id", 0, INT64_MAX, &id, err);
	if (r < 0)
		return r;
	struct bt_view *v = bt_view_new(bt_view_choose(bt_cli_has(cli, "json")));
	BT_FREE char *title = bt_asprintf("prune %s · deployment %" PRId64, cli->args[0], id);
	bt_view_title(v, title);
	say_removed(v, json_object_get(answer, "removed"));
	r = bt_follow(
		&(struct bt_follow){
			.client = c, .view = v, .id = id, .what = cli->args[0], .may_abort = true},
		err);
	bt_view_free(v);
	return r;
}
