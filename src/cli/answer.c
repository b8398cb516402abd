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

void bt_answer_gate(const json_t *service, struct bt_str *out)
{
	const json_t *lock = json_object_get(service, "locked");
	const json_t *freeze = json_object_get(service, "frozen");
	json_int_t asks = json_integer_value(json_object_get(service, "asks"));
	const char *name = bt_answer_text(service, "name");
	char since[32];
	if (asks)
		bt_str_addf(out,
			"%s waits for an approval: `baton approve %" JSON_INTEGER_FORMAT
			"`, or reject -m WHY\n",
			name, asks);
	if (lock) {
		bt_answer_time(lock, "since", since);
		bt_str_addf(out, "%s is locked by %s since %s: %s\n", name,
			bt_answer_text(lock, "by"), since, bt_answer_text(lock, "why"));
	}
	if (freeze)
		bt_str_addf(out, "%s is frozen until %s: %s\n", name,
			bt_answer_text(freeze, "until"), bt_answer_text(freeze, "why"));
}
