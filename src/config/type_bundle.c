/* run.as: bundle and deploy.codedeploy: their types, and which other keys mean nothing there. */
#include "config/keys.h"

#include "base/str.h"

#include <string.h>

#define PREFIX "CodeDeployDefault."

/* The names as CodeDeploy itself writes them are taken, too. */
static void read_config(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	struct bt_node plain = *n;
	if (n->kind == BT_NODE_SCALAR && bt_str_starts(n->text, PREFIX))
		plain.text = n->text + strlen(PREFIX);
	bt_type_enum.read(r, k, &plain, field, count);
}

static json_t *write_config(const struct bt_key *k, const void *field, const void *count)
{
	const struct bt_codedeploy *c =
		(const struct bt_codedeploy *)((const char *)field -
					       offsetof(struct bt_codedeploy, config));
	return c->min_healthy >= 0 ? NULL : bt_type_enum.write(k, field, count);
}
const struct bt_key_type bt_type_codedeploy_config = {"word", read_config, write_config};

static void read_min_healthy(struct bt_reading *r, const struct bt_key *k, const struct bt_node *n,
	void *field, void *count)
{
	static const char expected[] = "a number of hosts such as 2, or a share such as 75%";
	const char *t = n->kind == BT_NODE_SCALAR ? n->text : "";
	size_t digits = strspn(t, "0123456789");
	bool percent = digits && t[digits] == '%' && !t[digits + 1];
	BT_FREE char *number = bt_strndup(t, digits);
	int64_t v;
	if ((!percent && t[digits]) || !digits ||
		bt_int_parse(number, 0, percent ? 99 : 8191, &v, NULL) < 0) {
		bt_reading_wrong(r, k, n, expected);
		return;
	}
	*(int64_t *)field = v;
	*(bool *)count = percent;
}

static json_t *write_min_healthy(const struct bt_key *k, const void *field, const void *count)
{
	int64_t v = *(const int64_t *)field;
	(void)k;
	return v < 0		      ? NULL
	       : *(const bool *)count ? json_sprintf("%lld%%", (long long)v)
				      : json_integer(v);
}
const struct bt_key_type bt_type_min_healthy = {
	"number or share", read_min_healthy, write_min_healthy};

/* ---- what belongs together --------------------------------------------------------------- */

static void tell(struct bt_reading *r, const char *path, const char *text)
{
	const struct bt_node *at = bt_reading_at(r, path);
	if (at)
		bt_problem(r->sink, at, "%s: %s", path, text);
}

static void only_for_bundles(struct bt_reading *r)
{
	for (size_t i = 0; i < bt_n_keys; i++)
		if (bt_keys[i].when == BT_KEY_BUNDLE && r->at[i] && bt_keys[i].type)
			bt_problem(
				r->sink, r->at[i], "%s: only with run.as: bundle", bt_keys[i].path);
}

static const struct {
	const char *path;
	bool own; /* the scripts do it; else deploy.codedeploy says it */
} not_for_bundles[] = {
	{"run.stop", true},
	{"run.dir", true},
	{"run.restart.backoff", true},
	{"run.restart.backoff_max", true},
	{"run.logs.max", true},
	{"run.logs.keep", true},
	{"deploy.strategy", false},
	{"deploy.batch", false},
	{"deploy.min_in_rotation", false},
	{"deploy.keep_warm", false},
};

bool bt_config_not_for_bundles(const char *path)
{
	for (size_t i = 0; i < BT_ARRAY_LEN(not_for_bundles); i++)
		if (bt_streq(not_for_bundles[i].path, path))
			return true;
	return false;
}

static void check_keys(struct bt_reading *r)
{
	tell(r, "run.command", "not with run.as: bundle, whose own scripts start and stop it");
	for (size_t i = 0; i < BT_ARRAY_LEN(not_for_bundles); i++)
		tell(r, not_for_bundles[i].path,
			not_for_bundles[i].own
				? "not with run.as: bundle, whose own scripts start and stop it"
				: "not with run.as: bundle, where deploy.codedeploy says it");
}

void bt_config_check_bundle(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_codedeploy *c = &s->deploy.codedeploy;
	if (s->run.as != BT_RUNTIME_BUNDLE) {
		only_for_bundles(r);
		return;
	}
	check_keys(r);
	if (bt_reading_at(r, "deploy.codedeploy.config") && c->min_healthy >= 0)
		tell(r, "deploy.codedeploy.config",
			"minimum_healthy_hosts is given, too: expected one of them");
	if (c->min_healthy >= (int64_t)s->n_hosts && !c->min_healthy_percent)
		tell(r, "deploy.codedeploy.minimum_healthy_hosts",
			"with that many hosts none is left to deploy to");
	if (s->deploy.on_failure == BT_ON_FAILURE_CONTINUE)
		tell(r, "deploy.on_failure",
			"expected rollback or halt: how many hosts may fail is said by "
			"deploy.codedeploy");
	if (c->style == BT_CODEDEPLOY_BLUE_GREEN && !s->nginx && !s->l4)
		tell(r, "deploy.codedeploy.style",
			"blue-green needs `traffic`: without a balancer nothing can take over");
}
