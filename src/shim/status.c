#include "shim/status.h"

#include <errno.h>

#define AT(member) offsetof(struct bt_shim_status, member)
#define TEXT(member) AT(member), 0, sizeof(((struct bt_shim_status *)0)->member)
static const struct bt_record_field fields[] = {
	{"state", BT_RECORD_INT, AT(state), 0, BT_SHIM_STATES - 1, true, NULL},
	{"shim_pid", BT_RECORD_INT, AT(shim_pid), 0, INT32_MAX, false, NULL},
	{"pid", BT_RECORD_INT, AT(pid), 0, INT32_MAX, true, NULL},
	{"start_ticks", BT_RECORD_INT, AT(start_ticks), 0, INT64_MAX, true, NULL},
	{"boot_id", BT_RECORD_TEXT, TEXT(boot_id), true, NULL},
	{"release", BT_RECORD_INT, AT(release), 0, UINT32_MAX, false, NULL},
	{"port", BT_RECORD_INT, AT(port), 0, 65535, false, NULL},
	{"version", BT_RECORD_TEXT, TEXT(version), false, NULL},
	{"since_wall_ms", BT_RECORD_INT, AT(since_wall_ms), 0, INT64_MAX, false, NULL},
	{"restarts", BT_RECORD_INT, AT(restarts), 0, INT32_MAX, false, NULL},
	{"adopted", BT_RECORD_INT, AT(adopted), 0, 1, false, NULL},
	{"exits", BT_RECORD_INT, AT(exits), 0, INT32_MAX, false, NULL},
	{"exit_code", BT_RECORD_INT, AT(exit_code), -1, 255, false, NULL},
	{"exit_signal", BT_RECORD_INT, AT(exit_signal), 0, 127, false, NULL},
	{"late", BT_RECORD_INT, AT(late), 0, 1, false, NULL},
	{"held", BT_RECORD_TEXT, TEXT(held), false, NULL},
	{"text", BT_RECORD_TEXT, TEXT(text), false, NULL},
};
#define N_FIELDS (sizeof fields / sizeof fields[0])

int bt_shim_status_parse(char *text, size_t n, struct bt_shim_status *ret, char *why, size_t why_n)
{
	*ret = (struct bt_shim_status){.exit_code = -1};
	return bt_record_parse(text, n, "baton-shim-status", BT_SHIM_STATUS_VERSION, fields,
		N_FIELDS, ret, why, why_n);
}

int bt_shim_status_write(const struct bt_shim_status *s, struct bt_record_out *out)
{
	bt_record_write(out, "baton-shim-status", BT_SHIM_STATUS_VERSION, fields, N_FIELDS, s);
	bt_record_add(out, "end", "");
	return out->full ? -E2BIG : 0;
}

static int add_step(void *obj, const char *value)
{
	struct bt_shim_request *rq = obj;
	return bt_shim_steps_add(&rq->steps, value);
}

static const struct bt_record_field request_fields[] = {
	{"op", BT_RECORD_INT, offsetof(struct bt_shim_request, op), 0, 1000, true, NULL},
	{"step", BT_RECORD_MANY, 0, 0, 0, false, add_step},
};

int bt_shim_request_parse(
	char *text, size_t n, struct bt_shim_request *ret, char *why, size_t why_n)
{
	*ret = (struct bt_shim_request){0};
	return bt_record_parse(text, n, "baton-shim-request", BT_SHIM_REQUEST_VERSION,
		request_fields, 2, ret, why, why_n);
}

int bt_shim_request_write(const struct bt_shim_request *rq, struct bt_record_out *out)
{
	bt_record_write(out, "baton-shim-request", BT_SHIM_REQUEST_VERSION, request_fields, 2, rq);
	for (size_t i = 0; i < rq->steps.n; i++)
		bt_record_addf(out, "step", "%d:%lld", rq->steps.items[i].signal,
			(long long)rq->steps.items[i].wait_ms);
	bt_record_add(out, "end", "");
	return out->full ? -E2BIG : 0;
}
