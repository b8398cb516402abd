/* `baton page`: the page's address with a login link for this token. */
#include "cli/client.h"

#include <stdio.h>

int bt_cmd_page(struct bt_cli *cli, struct bt_err *err)
{
	BT_CLIENT struct bt_client *c = NULL;
	BT_JSON json_t *answer = NULL;
	const char *path = NULL;
	int r = bt_client_open(cli, &c, err);
	if (r == 0)
		r = bt_client_post(c, "/v1/login-links", NULL, &answer, err);
	if (r == 0)
		r = bt_json_str(answer, "path", &path, err);
	if (r < 0)
		return r;
	BT_FREE char *url = bt_asprintf("%s%s", c->url, path);
	if (bt_cli_has(cli, "json")) {
		json_object_set_new(answer, "url", json_string(url));
		BT_FREE char *text = bt_json_dump(answer);
		puts(text);
	} else {
		puts(url);
	}
	return BT_EXIT_OK;
}
