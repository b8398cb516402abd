/* traffic.http: its three calls, and secrets that its headers name. */
#include "config/call.h"
#include "config/keys.h"

#include <string.h>

static void tell(struct bt_reading *r, const char *path, const char *text)
{
	const struct bt_node *at = bt_reading_at(r, path);
	if (!at)
		at = bt_reading_at(r, "traffic.http");
	bt_problem(r->sink, at ? at : r->node, "%s: %s", path, text);
}

static bool is_secret(const struct bt_service *s, const char *name, size_t n)
{
	for (size_t i = 0; i < s->run.n_secrets; i++)
		if (strlen(s->run.secrets[i]) == n && memcmp(s->run.secrets[i], name, n) == 0)
			return true;
	return false;
}

static void check_headers(struct bt_reading *r)
{
	static const char path[] = "traffic.http.headers";
	const struct bt_appliance *a = &r->service->l4->http;
	for (size_t i = 0; i < a->n_headers; i++) {
		const char *name = NULL;
		size_t n = 0;
		if (strpbrk(a->headers[i].value, "\r\n"))
			tell(r, path, "a value has no newline");
		for (const char *t = a->headers[i].value; (t = bt_secret_ref(t, &name, &n));
			t += 3 + n) {
			if (is_secret(r->service, name, n))
				continue;
			BT_FREE char *text = bt_asprintf(
				"${%.*s} is none of run.secrets: put it there, since a header's "
				"${NAME} is always a secret",
				(int)(n < 60 ? n : 60), name);
			tell(r, path, text);
		}
	}
}

void bt_config_check_http(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_appliance *a = &s->l4->http;
	const struct {
		const char *path, *value;
	} needed[] = {
		{"traffic.http.status.url", a->status.url},
		{"traffic.http.turn_on.url", a->on.url},
		{"traffic.http.turn_off.url", a->off.url},
		{"traffic.http.in_rotation.path", a->in_rotation},
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(needed); i++)
		if (!needed[i].value && !bt_reading_at(r, needed[i].path))
			tell(r, needed[i].path, "missing");
	if (s->l4->n_on != 1)
		tell(r, "traffic.http.on", "expected one host: one agent calls the API");
	if (a->ca && !a->verify)
		tell(r, "traffic.http.ca", "not with verify: false");
	check_headers(r);
}
