/* What an appliance's API answers, and the texts of calls to it: no input may do more than give an
 * error of one line. */
#include "config/call.h"
#include "driver/l4_http.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct bt_appliance plain = {
		.in_rotation = "data.state", .in_rotation_is = "enabled", .connections = "data.n"};
	static const struct bt_appliance listed = {
		.in_rotation = "0.members.1.up", .in_rotation_is = "true"};
	static const struct bt_call_values values = {"h\"\\1", "a/b", "s@x", NULL, 80};
	struct bt_api_state s = {false, 7};
	struct bt_err err = {0};
	BT_FREE char *text = bt_strndup((const char *)data, size);
	if (bt_api_read_state(&plain, (const char *)data, size, &s, &err) < 0 &&
		(!err.text[0] || strchr(err.text, '\n') || s.connections != 7))
		abort();
	(void)bt_api_read_state(&listed, (const char *)data, size, &s, &err);
	BT_STR struct bt_str url = {0}, body = {0};
	bool good = bt_check_call(text);
	int r = bt_call_expand(text, &values, BT_CALL_URL, &url, &err);
	if (!good != (r == BT_E_CONFIG) && r != BT_E_NOTFOUND)
		abort();
	(void)bt_call_expand(text, &values, BT_CALL_JSON, &body, &err);
	const char *name = NULL;
	size_t n = 0;
	for (const char *t = text; (t = bt_secret_ref(t, &name, &n)); t = name + n)
		if (name + n > text + strlen(text))
			abort();
	return 0;
}
