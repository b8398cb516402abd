#include "cli/answer.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *bt_answer_text(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));
	return s ? s : "";
}

void bt_answer_number(const json_t *j, const char *key, char buf[static 32])
{
	const json_t *n = json_object_get(j, key);
	snprintf(buf, 32, "%s", "");
	if (json_is_integer(n))
		snprintf(buf, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(n));
}

void bt_answer_time(const json_t *j, const char *key, char buf[static 32])
{
	const json_t *t = json_object_get(j, key);
	struct tm local;
	int64_t ms =
		json_is_integer(t) ? json_integer_value(t) : bt_clock_parse(json_string_value(t));
	time_t seconds = (time_t)(ms / 1000);
	snprintf(buf, 32, "%s", "");
	if (seconds <= 0)
		return;
	localtime_r(&seconds, &local);
	strftime(buf, 32, "%Y-%m-%d %H:%M:%S", &local);
}

int bt_answer_get(struct bt_cli *cli, struct bt_client **c, const char *path, json_t **ret,
	struct bt_err *err)
{
	int r = bt_client_open(cli, c, err);
	return r < 0 ? r : bt_client_get(*c, path, ret, err);
}

bool bt_answer_as_json(const struct bt_cli *cli, const json_t *j)
{
	if (!bt_cli_has(cli, "json"))
		return false;
	BT_FREE char *text = bt_json_dump(j);
	puts(text);
	return true;
}

void bt_answer_join(const json_t *list, struct bt_str *out)
{
	size_t i;
	json_t *one;
	json_array_foreach (list, i, one) {
		const char *text =
			json_is_string(one) ? json_string_value(one) : bt_answer_text(one, "name");
		bt_str_addf(out, "%s%s", i ? "," : "", text);
	}
}

json_t *bt_answer_all(const struct bt_cli *cli, const char *option)
{
	json_t *list = json_array();
	for (size_t i = 0; i < cli->n_set; i++)
		if (bt_streq(cli->set[i].option->name, option))
			json_array_append_new(list, json_string(cli->set[i].value));
	return list;
}
