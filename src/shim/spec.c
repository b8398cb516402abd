#include "shim/spec.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int add_text(const char **list, size_t *n, const char *value)
{
	if (*n >= BT_SHIM_LIST_MAX)
		return -EBADMSG;
	list[(*n)++] = value;
	list[*n] = NULL;
	return 0;
}

static int add_arg(void *obj, const char *value)
{
	struct bt_shim_spec *s = obj;
	return add_text(s->argv, &s->n_argv, value);
}

static int add_env(void *obj, const char *value)
{
	struct bt_shim_spec *s = obj;
	return add_text(s->env, &s->n_env, value);
}

static int add_group(void *obj, const char *value)
{
	struct bt_shim_spec *s = obj;
	int64_t v;
	if (s->n_groups >= BT_SHIM_GROUPS_MAX || bt_record_int(value, 0, UINT32_MAX, &v) < 0)
		return -EBADMSG;
	s->groups[s->n_groups++] = (gid_t)v;
	return 0;
}

/* "<a>:<b>" */
static int split_pair(const char *text, int64_t a_min, int64_t a_max, int64_t b_max, int64_t *ret_a,
	int64_t *ret_b)
{
	char a[24];
	const char *colon = strchr(text, ':');
	if (!colon || (size_t)(colon - text) >= sizeof a)
		return -EBADMSG;
	memcpy(a, text, (size_t)(colon - text));
	a[colon - text] = 0;
	if (bt_record_int(a, a_min, a_max, ret_a) < 0 ||
		bt_record_int(colon + 1, 0, b_max, ret_b) < 0)
		return -EBADMSG;
	return 0;
}

static int add_limit(void *obj, const char *value)
{
	struct bt_shim_spec *s = obj;
	int64_t resource, limit;
	if (s->n_limits >= BT_SHIM_LIMITS_MAX ||
		split_pair(value, 0, 31, INT64_MAX, &resource, &limit) < 0)
		return -EBADMSG;
	s->limits[s->n_limits++] = (struct bt_shim_limit){(int)resource, limit};
	return 0;
}

int bt_shim_steps_add(struct bt_shim_steps *steps, const char *text)
{
	int64_t sig, wait_ms;
	if (steps->n >= BT_SHIM_STEPS_MAX ||
		split_pair(text, 0, 64, (int64_t)400 * 86400 * 1000, &sig, &wait_ms) < 0)
		return -EBADMSG;
	steps->items[steps->n++] = (struct bt_shim_step){(int)sig, wait_ms};
	return 0;
}

static int add_step(void *obj, const char *value)
{
	struct bt_shim_spec *s = obj;
	return bt_shim_steps_add(&s->stop, value);
}

#define AT(member) offsetof(struct bt_shim_spec, member)
static const struct bt_record_field fields[] = {
	{"service", BT_RECORD_PTR, AT(service), 0, 0, true, NULL},
	{"slot", BT_RECORD_PTR, AT(slot), 0, 0, true, NULL},
	{"version", BT_RECORD_PTR, AT(version), 0, 0, false, NULL},
	{"release", BT_RECORD_INT, AT(release), 0, UINT32_MAX, true, NULL},
	{"port", BT_RECORD_INT, AT(port), 0, 65535, false, NULL},
	{"marker", BT_RECORD_PTR, AT(marker), 0, 0, true, NULL},
	{"dir", BT_RECORD_PTR, AT(dir), 0, 0, true, NULL},
	{"uid", BT_RECORD_INT, AT(uid), -1, UINT32_MAX - 1, false, NULL},
	{"gid", BT_RECORD_INT, AT(gid), -1, UINT32_MAX - 1, false, NULL},
	{"log", BT_RECORD_PTR, AT(log), 0, 0, true, NULL},
	{"log_max_bytes", BT_RECORD_INT, AT(log_max_bytes), 0, INT64_MAX, false, NULL},
	{"log_keep", BT_RECORD_INT, AT(log_keep), 0, 1000, false, NULL},
	{"backoff_ms", BT_RECORD_INT, AT(backoff_ms), 1, INT32_MAX, false, NULL},
	{"backoff_max_ms", BT_RECORD_INT, AT(backoff_max_ms), 1, INT32_MAX, false, NULL},
	{"once_ms", BT_RECORD_INT, AT(once_ms), 0, INT64_MAX, false, NULL},
	{"leave", BT_RECORD_INT, AT(leave), 0, 1, false, NULL},
	{"arg", BT_RECORD_MANY, 0, 0, 0, true, add_arg},
	{"env", BT_RECORD_MANY, 0, 0, 0, false, add_env},
	{"group", BT_RECORD_MANY, 0, 0, 0, false, add_group},
	{"limit", BT_RECORD_MANY, 0, 0, 0, false, add_limit},
	{"stop", BT_RECORD_MANY, 0, 0, 0, true, add_step},
};
#define N_FIELDS (sizeof fields / sizeof fields[0])
#define FORMAT "baton-shim-spec"

int bt_shim_spec_parse(char *text, size_t n, struct bt_shim_spec *ret, char *why, size_t why_n)
{
	*ret = (struct bt_shim_spec){
		.uid = -1, .gid = -1, .backoff_ms = 1000, .backoff_max_ms = 60000};
	int r = bt_record_parse(
		text, n, FORMAT, BT_SHIM_SPEC_VERSION, fields, N_FIELDS, ret, why, why_n);
	if (r == 0 && (ret->argv[0][0] == 0 || strlen(ret->marker) < 16)) {
		snprintf(why, why_n, "the command or the marker is empty");
		return -EBADMSG;
	}
	return r;
}

int bt_shim_spec_write(const struct bt_shim_spec *spec, struct bt_record_out *out)
{
	bt_record_write(out, FORMAT, BT_SHIM_SPEC_VERSION, fields, N_FIELDS, spec);
	for (size_t i = 0; i < spec->n_argv; i++)
		bt_record_add(out, "arg", spec->argv[i]);
	for (size_t i = 0; i < spec->n_env; i++)
		bt_record_add(out, "env", spec->env[i]);
	for (size_t i = 0; i < spec->n_groups; i++)
		bt_record_addf(out, "group", "%u", spec->groups[i]);
	for (size_t i = 0; i < spec->n_limits; i++)
		bt_record_addf(out, "limit", "%d:%lld", spec->limits[i].resource,
			(long long)spec->limits[i].value);
	for (size_t i = 0; i < spec->stop.n; i++)
		bt_record_addf(out, "stop", "%d:%lld", spec->stop.items[i].signal,
			(long long)spec->stop.items[i].wait_ms);
	bt_record_add(out, "end", "");
	return out->full ? -E2BIG : 0;
}
