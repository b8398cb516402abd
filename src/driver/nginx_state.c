#include "driver/nginx_state.h"

#include "base/json.h"
#include "base/str.h"
#include "driver/members.h"

#include <string.h>

#define STATE_VERSION 1
#define STATE_MAX (4u << 20)
#define EXPECT_MAX BT_MEMBERS_MAX

struct bt_nginx_state *bt_nginx_state_free(struct bt_nginx_state *s)
{
	if (s)
		bt_arena_free(s->arena);
	return NULL;
}

/* ---- out ---------------------------------------------------------------------------------- */

static json_t *text_or_null(const char *s)
{
	return s ? json_string(s) : json_null();
}

static json_t *target_to_json(const struct bt_nginx_target *t)
{
	return json_pack("{s:I, s:o, s:s}", "generation", (json_int_t)t->generation, "members",
		bt_members_to_json(t->members, t->n_members), "text", t->text);
}

static json_t *check_to_json(const struct bt_nginx_check *c)
{
	json_t *expect = json_array();
	for (size_t i = 0; i < c->n_expect; i++)
		json_array_append_new(expect, json_string(c->expect[i]));
	return json_pack("{s:o, s:o, s:o}", "url", text_or_null(c->url), "host",
		text_or_null(c->host), "expect", expect);
}

/* In hex: a person's file may be in any encoding, and JSON holds UTF-8 only. */
static json_t *prior_to_json(const char *prior)
{
	if (!prior)
		return json_null();
	size_t n = strlen(prior);
	BT_FREE char *hex = bt_malloc(2 * n + 1);
	bt_hex(prior, n, hex);
	return json_string(hex);
}

char *bt_nginx_state_dump(const struct bt_nginx_state *s)
{
	BT_JSON json_t *j = json_pack("{s:i, s:s, s:s, s:b, s:s, s:o, s:o, s:s, s:i}", "version",
		STATE_VERSION, "service", s->service, "balancer", s->balancer, "managed",
		(int)s->managed, "binary", s->binary, "config", text_or_null(s->config), "prefix",
		text_or_null(s->prefix), "file", s->file, "max_old_workers", s->max_old_workers);
	if (s->link)
		json_object_set_new(j, "link", json_true());
	if (s->certificate) {
		json_object_set_new(j, "certificate", json_string(s->certificate));
		json_object_set_new(j, "certificate_key", json_string(s->certificate_key));
		json_object_set_new(j, "certificate_stamp", text_or_null(s->certificate_stamp));
	}
	if (s->has_confirmed)
		json_object_set_new(j, "confirmed", target_to_json(&s->confirmed));
	if (s->has_pending) {
		json_object_set_new(j, "pending", target_to_json(&s->pending));
		json_object_set_new(j, "prior", prior_to_json(s->prior));
		json_object_set_new(j, "check", check_to_json(&s->check));
	}
	return bt_json_dump(j);
}

/* ---- in ----------------------------------------------------------------------------------- */

static int target_from_json(
	const json_t *j, struct bt_arena *a, struct bt_nginx_target *ret, struct bt_err *err)
{
	int64_t generation = 0;
	int r = bt_json_int(j, "generation", 0, INT64_MAX, &generation, err);
	if (r == 0)
		r = bt_json_text(j, "text", STATE_MAX, a, &ret->text, err);
	if (r == 0)
		r = bt_members_from_json(j, "members", a, &ret->members, &ret->n_members, err);
	ret->generation = (uint64_t)generation;
	return r;
}

static int check_from_json(
	const json_t *j, struct bt_arena *a, struct bt_nginx_check *ret, struct bt_err *err)
{
	json_t *list = NULL;
	size_t n = 0;
	int r = bt_json_text_opt(j, "url", STATE_MAX, a, &ret->url, err);
	if (r == 0)
		r = bt_json_text_opt(j, "host", STATE_MAX, a, &ret->host, err);
	if (r == 0)
		r = bt_json_list(j, "expect", EXPECT_MAX, &list, &n, err);
	if (r < 0)
		return r;
	const char **expect = BT_ARENA_ARRAY(a, const char *, n);
	for (size_t i = 0; i < n; i++) {
		const char *text = json_string_value(json_array_get(list, i));
		expect[i] = bt_arena_strdup(a, text ? text : "");
	}
	ret->expect = expect;
	ret->n_expect = n;
	return 0;
}

static int prior_from_json(
	const json_t *j, struct bt_arena *a, const char **ret, struct bt_err *err)
{
	const char *hex = NULL;
	int r = bt_json_str_opt(j, "prior", &hex, err);
	if (r < 0 || !hex)
		return r;
	size_t n = strlen(hex) / 2;
	char *text = bt_arena_alloc(a, n + 1);
	if (bt_unhex(hex, text, n) < 0)
		return bt_err_set(err, BT_E_PROTOCOL, "prior: hex digits expected");
	*ret = text;
	return 0;
}

static int pending_from_json(const json_t *j, struct bt_nginx_state *s, struct bt_err *err)
{
	json_t *pending = json_object_get(j, "pending"), *check = NULL;
	if (!pending)
		return 0;
	int r = target_from_json(pending, s->arena, &s->pending, err);
	if (r == 0)
		r = prior_from_json(j, s->arena, &s->prior, err);
	if (r == 0)
		r = bt_json_object(j, "check", &check, err);
	if (r == 0)
		r = check_from_json(check, s->arena, &s->check, err);
	s->has_pending = r == 0;
	return r;
}

static int state_from_json(const json_t *j, struct bt_nginx_state *s, struct bt_err *err)
{
	struct bt_arena *a = s->arena;
	int64_t version = 0, max_old = 0;
	int r = bt_json_int(j, "version", STATE_VERSION, STATE_VERSION, &version, err);
	if (r == 0)
		r = bt_json_text(j, "service", STATE_MAX, a, &s->service, err);
	if (r == 0)
		r = bt_json_text(j, "balancer", STATE_MAX, a, &s->balancer, err);
	if (r == 0)
		r = bt_json_bool(j, "managed", &s->managed, err);
	if (r == 0)
		r = bt_json_text(j, "binary", STATE_MAX, a, &s->binary, err);
	if (r == 0)
		r = bt_json_text_opt(j, "config", STATE_MAX, a, &s->config, err);
	if (r == 0)
		r = bt_json_text_opt(j, "prefix", STATE_MAX, a, &s->prefix, err);
	if (r == 0)
		r = bt_json_text(j, "file", STATE_MAX, a, &s->file, err);
	if (r == 0)
		r = bt_json_int(j, "max_old_workers", 0, 1000000, &max_old, err);
	s->max_old_workers = (int)max_old;
	if (r == 0)
		r = bt_json_bool_opt(j, "link", &s->link, err);
	if (r == 0)
		r = bt_json_text_opt(j, "certificate", STATE_MAX, a, &s->certificate, err);
	if (r == 0)
		r = s->certificate ? bt_json_text(j, "certificate_key", STATE_MAX, a,
					     &s->certificate_key, err)
				   : bt_json_text_opt(j, "certificate_key", STATE_MAX, a,
					     &s->certificate_key, err);
	if (r == 0)
		r = bt_json_text_opt(
			j, "certificate_stamp", STATE_MAX, a, &s->certificate_stamp, err);
	json_t *confirmed = json_object_get(j, "confirmed");
	if (r == 0 && confirmed) {
		r = target_from_json(confirmed, a, &s->confirmed, err);
		s->has_confirmed = r == 0;
	}
	return r == 0 ? pending_from_json(j, s, err) : r;
}

int bt_nginx_state_parse(
	const char *text, size_t n, struct bt_nginx_state **ret, struct bt_err *err)
{
	BT_JSON json_t *j = NULL;
	int r = bt_json_parse(text, n, STATE_MAX, &j, err);
	if (r < 0)
		return r;
	struct bt_arena *a = bt_arena_new();
	struct bt_nginx_state *s = BT_ARENA_NEW(a, struct bt_nginx_state);
	s->arena = a;
	r = state_from_json(j, s, err);
	if (r < 0) {
		bt_arena_free(a);
		return r;
	}
	*ret = s;
	return 0;
}

struct bt_nginx_state *bt_nginx_state_copy(const struct bt_nginx_state *s)
{
	struct bt_nginx_state *copy = NULL;
	BT_FREE char *text = bt_nginx_state_dump(s);
	if (bt_nginx_state_parse(text, strlen(text), &copy, NULL) < 0)
		abort(); /* what we wrote can be read */
	return copy;
}

struct bt_nginx_target bt_nginx_target_copy(struct bt_arena *a, const struct bt_nginx_target *t)
{
	struct bt_nginx_target copy = {.generation = t->generation,
		.n_members = t->n_members,
		.text = bt_arena_strdup(a, t->text)};
	copy.members = bt_members_copy(a, t->members, t->n_members);
	return copy;
}
