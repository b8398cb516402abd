/* Who did what, from where: rows that come with the transactions of what was done. */
#include "base/clock.h"
#include "server/api.h"

#include <time.h>

void bt_api_audit_add(struct bt_txn *t, const struct bt_http_exchange *x, const char *service,
	const char *what, const char *detail)
{
	const struct bt_who *w = bt_who(x);
	bt_server_audit(t, &(struct bt_audit){w->name, w->from, service, what, detail});
}

/* An instant (RFC 3339 with Z) or a time before now (2h, 7d). */
static int since_of(const char *text, int64_t *ret, struct bt_err *err)
{
	int64_t ms = 0;
	*ret = 0;
	if (!text)
		return 0;
	if ((*ret = bt_clock_parse(text)) >= 0)
		return 0;
	if (bt_duration_parse(text, &ms, NULL) < 0)
		return bt_err_set(err, BT_E_CONFIG,
			"since '%.40s': expected a time before now, such as 2h or 7d, or an "
			"instant such as 2026-11-21T08:00:00Z",
			text);
	*ret = bt_clock_wall_ms() - ms;
	return 0;
}

void bt_api_audit(struct bt_http_exchange *x, void *arg)
{
	struct bt_server *s = arg;
	struct bt_err err;
	json_t *rows = NULL, *row;
	size_t i;
	int64_t since = 0;
	int r = since_of(bt_http_query(x, "since"), &since, &err);
	if (r == 0)
		r = bt_store_select(s->store, &rows, &err, BT_SQL_AUDIT,
			bt_http_query(x, "service"), bt_http_query(x, "who"), since,
			bt_api_query_int(x, "limit", 1, 10000, 100));
	if (r < 0) {
		bt_http_reply_error(x, &err);
		return;
	}
	json_array_foreach (rows, i, row) {
		bt_api_set_time(row, "at", json_integer_value(json_object_get(row, "wall_ms")));
		json_object_del(row, "wall_ms");
	}
	bt_http_reply_json(x, 200, json_pack("{s:o}", "audit", rows));
}
