/* What commands that ask once do with the server's answer. */
#pragma once
#include "cli/client.h"

/* Opens the client, too; *c is the caller's in any case. */
int bt_answer_get(struct bt_cli *cli, struct bt_client **c, const char *path, json_t **ret,
	struct bt_err *err);
/* --json: printed as it is, and nothing else is to do. */
bool bt_answer_as_json(const struct bt_cli *cli, const json_t *j);
const char *bt_answer_text(const json_t *j, const char *key); /* "" where there is none */
void bt_answer_number(const json_t *j, const char *key, char buf[static 32]);
/* RFC 3339 or milliseconds since 1970 → "2026-11-21 12:00:01" in local time. */
void bt_answer_time(const json_t *j, const char *key, char buf[static 32]);
/* Texts, or objects with a name, with commas between. */
void bt_answer_join(const json_t *list, struct bt_str *out);
/* Every value of an option, as a list for a request. The caller decrefs. */
json_t *bt_answer_all(const struct bt_cli *cli, const char *option);
/* What a person has to do about a service, and why a deployment would be refused now: lines. */
void bt_answer_gate(const json_t *service, struct bt_str *out);
