#include "model/service.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#define ENUM(id, ...)                                                                              \
	const struct bt_enum bt_enum_##id = {(const struct bt_enum_name[]){__VA_ARGS__, {NULL, 0}}}

ENUM(runtime, {"process", BT_RUNTIME_PROCESS}, {"tomcat", BT_RUNTIME_TOMCAT},
	{"bundle", BT_RUNTIME_BUNDLE});
ENUM(codedeploy_config, {"OneAtATime", BT_CODEDEPLOY_ONE_AT_A_TIME},
	{"HalfAtATime", BT_CODEDEPLOY_HALF_AT_A_TIME}, {"AllAtOnce", BT_CODEDEPLOY_ALL_AT_ONCE});
ENUM(codedeploy_style, {"in-place", BT_CODEDEPLOY_IN_PLACE},
	{"blue-green", BT_CODEDEPLOY_BLUE_GREEN});
ENUM(health, {"http", BT_HEALTH_HTTP}, {"https", BT_HEALTH_HTTPS}, {"tcp", BT_HEALTH_TCP},
	{"exec", BT_HEALTH_EXEC});
ENUM(strategy, {"blue-green", BT_STRATEGY_BLUE_GREEN}, {"rolling", BT_STRATEGY_ROLLING},
	{"recreate", BT_STRATEGY_RECREATE}, {"canary", BT_STRATEGY_CANARY});
ENUM(failure_policy, {"rollback", BT_ON_FAILURE_ROLLBACK}, {"halt", BT_ON_FAILURE_HALT},
	{"continue", BT_ON_FAILURE_CONTINUE});
ENUM(drain_policy, {"continue", BT_ON_DRAIN_TIMEOUT_CONTINUE}, {"fail", BT_ON_DRAIN_TIMEOUT_FAIL});
ENUM(nginx_mode, {"adopt", BT_NGINX_ADOPT}, {"managed", BT_NGINX_MANAGED});
ENUM(nginx_form, {"upstream", BT_NGINX_UPSTREAM}, {"service_port", BT_NGINX_SERVICE_PORT},
	{"service_url", BT_NGINX_SERVICE_URL}, {"site", BT_NGINX_SITE});
ENUM(balancer, {"none", BT_BALANCER_NONE}, {"nginx", BT_BALANCER_NGINX},
	{"haproxy", BT_BALANCER_HAPROXY}, {"nftables", BT_BALANCER_NFTABLES},
	{"ipvs", BT_BALANCER_IPVS}, {"http", BT_BALANCER_HTTP}, {"rotation", BT_BALANCER_ROTATION});
/* The first of two names is the one that is written. */
ENUM(l4_mode, {"nat", BT_L4_NAT}, {"dsr", BT_L4_DSR}, {"dr", BT_L4_DSR});
ENUM(flow_per, {"host", BT_PER_HOST}, {"instance", BT_PER_INSTANCE}, {"once", BT_PER_ONCE});
ENUM(notify_format, {"json", BT_NOTIFY_JSON}, {"slack", BT_NOTIFY_SLACK});
ENUM(route_to, {"one", BT_ROUTE_ONE}, {"all", BT_ROUTE_ALL});

ENUM(hook_when, {"before", BT_HOOK_BEFORE}, {"before_switch", BT_HOOK_BEFORE_SWITCH},
	{"after_switch", BT_HOOK_AFTER_SWITCH}, {"on_failure", BT_HOOK_ON_FAILURE});
/* BT_ON_HOST has the host's name instead. */
ENUM(hook_on, {"once", BT_ON_ONCE}, {"each host", BT_ON_EACH_HOST},
	{"each instance", BT_ON_EACH_INSTANCE}, {"balancer", BT_ON_BALANCER});
ENUM(repeat, {"safe", BT_REPEAT_SAFE}, {"never", BT_REPEAT_NEVER});

const char *bt_enum_name(const struct bt_enum *e, int value)
{
	for (const struct bt_enum_name *n = e->names; n->name; n++)
		if (n->value == value)
			return n->name;
	return "?";
}

int bt_enum_parse(const struct bt_enum *e, const char *text, int *ret, struct bt_err *err)
{
	BT_STR struct bt_str list = {0};
	const char *words[16];
	size_t n = 0;
	for (const struct bt_enum_name *i = e->names; i->name; i++) {
		if (bt_streq(i->name, text)) {
			*ret = i->value;
			return 0;
		}
		bt_str_addf(&list, "%s%s", !n ? "" : i[1].name ? ", " : " or ", i->name);
		if (n < BT_ARRAY_LEN(words))
			words[n++] = i->name;
	}
	const char *near = bt_nearest(text, words, n);
	return bt_err_set(err, BT_E_CONFIG, "expected %s, found '%s'%s%s%s", bt_str_get(&list),
		text, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

bool bt_nginx_is_on(const struct bt_nginx *n, const char *host)
{
	for (size_t i = 0; i < n->n_on; i++)
		if (bt_streq(n->on[i], host))
			return true;
	return false;
}

void bt_service_balancer(const struct bt_service *s, struct bt_balancer_facts *ret)
{
	*ret = (struct bt_balancer_facts){.kind = BT_BALANCER_NONE};
	if (s->nginx) {
		ret->kind = BT_BALANCER_NGINX;
		ret->on = s->nginx->on;
		ret->n_on = s->nginx->n_on;
	} else if (s->l4) {
		ret->kind = s->l4->kind;
		ret->own_host = s->l4->kind == BT_BALANCER_ROTATION;
		ret->keeps_others = s->l4->kind == BT_BALANCER_IPVS;
		ret->on = ret->own_host ? s->hosts : s->l4->on;
		ret->n_on = ret->own_host ? s->n_hosts : s->l4->n_on;
		ret->drains_at_host =
			s->l4->kind == BT_BALANCER_ROTATION ||
			(s->l4->kind == BT_BALANCER_NFTABLES && s->l4->mode == BT_L4_DSR) ||
			(s->l4->kind == BT_BALANCER_HTTP && !s->l4->http.connections);
	}
	ret->family = bt_enum_name(&bt_enum_balancer, (int)ret->kind);
}

bool bt_service_balances_on(const struct bt_service *s, const char *host)
{
	struct bt_balancer_facts b;
	bt_service_balancer(s, &b);
	for (size_t i = 0; i < b.n_on; i++)
		if (bt_streq(b.on[i], host))
			return true;
	return false;
}

int64_t bt_service_balancer_settle_ms(const struct bt_service *s)
{
	if (!s->l4 || s->l4->kind != BT_BALANCER_ROTATION)
		return 0;
	const struct bt_rotation *r = &s->l4->rotation;
	int64_t times = r->fall > r->rise ? r->fall : r->rise;
	return (times + 4) *
	       r->interval_ms; /* it may be late, and is listened for until it stops */
}

const char *bt_rotation_listen(const struct bt_rotation *r, const char *host)
{
	for (size_t i = 0; i < r->n_on_host; i++)
		if (bt_streq(r->on_host[i].key, host))
			return r->on_host[i].value;
	return r->listen;
}

bool bt_service_has_loopback(const struct bt_service *s)
{
	return s->loopback.n_vips > 0;
}

static bool alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool bt_name_valid(const char *text)
{
	size_t n = strlen(text);
	if (n == 0 || n > BT_NAME_MAX || !alnum(text[0]))
		return false;
	for (size_t i = 1; i < n; i++)
		if (!alnum(text[i]) && !strchr("._-", text[i]))
			return false;
	return true;
}

bool bt_service_name_valid(const char *text)
{
	char name[BT_NAME_MAX + 1];
	const char *at = strchr(text, '@');
	if (!at || strlen(text) > BT_NAME_MAX)
		return bt_name_valid(text);
	memcpy(name, text, (size_t)(at - text));
	name[at - text] = 0;
	return bt_name_valid(name) && bt_name_valid(at + 1);
}

const struct bt_slot *bt_service_slot(const struct bt_service *s, const char *name)
{
	for (size_t i = 0; i < s->run.n_slots; i++)
		if (bt_streq(s->run.slots[i].name, name))
			return &s->run.slots[i];
	return NULL;
}

uint16_t bt_slot_port(const struct bt_slot *slot, const char *name)
{
	for (size_t i = 0; slot && i < slot->n_more; i++)
		if (bt_streq(slot->more[i].name, name))
			return slot->more[i].number;
	return 0;
}

uint16_t bt_tomcat_shutdown_port(
	const struct bt_tomcat *t, const struct bt_port *more, size_t n_more)
{
	const struct bt_slot slot = {.more = more, .n_more = n_more};
	uint16_t named = bt_slot_port(&slot, BT_TOMCAT_SHUTDOWN);
	return named ? named : (uint16_t)t->shutdown_port;
}

uint16_t bt_health_port(const struct bt_health *h, const struct bt_slot *slot, uint16_t port)
{
	uint16_t named = h->port_name ? bt_slot_port(slot, h->port_name) : 0;
	return h->port ? h->port : named ? named : port;
}
