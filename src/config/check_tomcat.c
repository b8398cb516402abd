/* run.tomcat: what its texts may hold, and what must hold together with the rest. */
#include "config/config.h"
#include "config/keys.h"

#include "base/str.h"

#include <ctype.h>
#include <string.h>

#define SERVICE "{service}"

/* ---- texts ----------------------------------------------------------------------------------- */

/* The text with {service} replaced; the caller frees. */
static char *with_service(const char *t, const char *service)
{
	BT_STR struct bt_str out = {0};
	for (const char *at; (at = strstr(t, SERVICE)); t = at + strlen(SERVICE)) {
		bt_str_addn(&out, t, (size_t)(at - t));
		bt_str_add(&out, service);
	}
	bt_str_add(&out, t);
	return bt_str_steal(&out);
}

bool bt_check_tomcat_base(const char *t)
{
	BT_FREE char *plain = with_service(t, "service");
	if (t[0] != '/' || !t[1] || strstr(t, "/../") || bt_str_ends(t, "/..") ||
		strpbrk(t, "\t\n\"'<>&"))
		return false;
	for (const char *p = plain; (p = strchr(p, '{')); p++)
		if (!bt_str_starts(p, "{slot}") && !bt_str_starts(p, "{port}"))
			return false;
	return true;
}

bool bt_check_tomcat_context(const char *t)
{
	static const char chars[] =
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~-";
	const char *version = strstr(t, "##");
	size_t n = version ? (size_t)(version - t) : strlen(t);
	if (t[0] != '/' || (version && (!version[2] || version[2 + strspn(version + 2, chars)])))
		return false;
	if (n == 1)
		return true;
	for (size_t i = 0; i < n;) {
		size_t part = strspn(t + i + 1, chars);
		/* "/ROOT" would be the name of "/". */
		if (part == 0 || t[i] != '/' || t[i + 1] == '.' ||
			(i == 0 && part == 4 && !strncmp(t + 1, "ROOT", 4)))
			return false;
		i += part + 1;
	}
	return true;
}

bool bt_check_tomcat_options(const char *t)
{
	return !strpbrk(t, "`$;&|<>()\\\n") && bt_check_command(t);
}

bool bt_check_heap(const char *t)
{
	size_t n = strspn(t, "0123456789");
	return n && t[0] != '0' && (!t[n] || (strchr("kKmMgG", t[n]) && !t[n + 1]));
}

bool bt_check_attribute(const char *t)
{
	static const char *const ours[] = {"port", "protocol"};
	for (size_t i = 0; i < BT_ARRAY_LEN(ours); i++)
		if (bt_streq(t, ours[i]))
			return false;
	if (!isalpha((unsigned char)*t))
		return false;
	while (isalnum((unsigned char)*t))
		t++;
	return !*t;
}

/* ---- the base -------------------------------------------------------------------------------- */

int bt_config_tomcat_base(const struct bt_service *s, const char *slot, uint16_t port,
	struct bt_str *out, struct bt_err *err)
{
	const struct bt_placeholders p = {.slot = slot, .port = port};
	if (!s->tomcat.base)
		return 0;
	BT_FREE char *text = with_service(s->tomcat.base, s->name);
	int r = bt_config_expand(text, &p, out, err);
	return r < 0 ? bt_err_wrap(err, "run.tomcat.base") : 0;
}

/* ---- together -------------------------------------------------------------------------------- */

static void tell(struct bt_reading *r, const char *path, const char *text)
{
	const struct bt_node *at = bt_reading_at(r, path);
	bt_problem(r->sink, at ? at : r->node, "%s: %s", path, text);
}

static void check_other_runtime(struct bt_reading *r)
{
	for (size_t i = 0; i < bt_n_keys; i++)
		if (bt_keys[i].when == BT_KEY_TOMCAT && r->at[i]) {
			tell(r, bt_keys[i].path, "only with run.as: tomcat");
			return;
		}
}

static void check_environment(struct bt_reading *r)
{
	static const char *const ours[] = {
		"CATALINA_HOME", "CATALINA_BASE", "CATALINA_PID", "CATALINA_OPTS"};
	const struct bt_run *run = &r->service->run;
	for (size_t i = 0; i < BT_ARRAY_LEN(ours); i++)
		for (size_t k = 0; k < run->n_env; k++)
			if (bt_streq(run->env[k].key, ours[i])) {
				BT_FREE char *text =
					bt_asprintf("%s is the runtime's: see run.tomcat", ours[i]);
				tell(r, "run.env", text);
			}
}

static void check_shutdown_port(struct bt_reading *r)
{
	static const char path[] = "run.tomcat.shutdown_port";
	const struct bt_service *s = r->service;
	if (!s->tomcat.shutdown_port)
		return;
	if (s->run.n_slots > 1)
		tell(r, path,
			"several slots cannot share it: give each slot a port of the name "
			"shutdown, such as {port: 8080, shutdown: 8005}");
	for (size_t i = 0; i < s->run.n_slots; i++) {
		const struct bt_slot *slot = &s->run.slots[i];
		bool same = slot->port == s->tomcat.shutdown_port;
		for (size_t k = 0; k < slot->n_more; k++)
			same = same || slot->more[k].number == s->tomcat.shutdown_port;
		if (same)
			tell(r, path, "a port of the slot already");
		if (bt_slot_port(slot, BT_TOMCAT_SHUTDOWN))
			tell(r, path, "the slot names its shutdown port itself: leave one of them");
	}
}

void bt_config_check_tomcat(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	if (s->run.as != BT_RUNTIME_TOMCAT) {
		check_other_runtime(r);
		return;
	}
	if (bt_reading_at(r, "run.command"))
		tell(r, "run.command",
			"not with run.as: tomcat, where the runtime starts catalina.sh");
	if (s->tomcat.base && s->run.n_slots > 1 && !bt_config_differs_by_slot(s->tomcat.base))
		tell(r, "run.tomcat.base", "it is the same in each slot: expected {slot} in it");
	if (s->tomcat.exploded && bt_reading_at(r, "unpack") && !s->unpack)
		tell(r, "run.tomcat.exploded", "not with unpack: false");
	check_environment(r);
	check_shutdown_port(r);
}

static bool base_is(const struct bt_service *s, size_t i, const char *base)
{
	BT_STR struct bt_str own = {0};
	const struct bt_slot *slot = &s->run.slots[i];
	return bt_config_tomcat_base(s, slot->name, slot->port, &own, NULL) == 0 &&
	       bt_streq(bt_str_get(&own), base);
}

void bt_config_check_tomcat_pair(struct bt_problem_sink *sink, const struct bt_node *at,
	const struct bt_service *earlier, const struct bt_service *later, const char *host)
{
	if (earlier->run.as != BT_RUNTIME_TOMCAT || !earlier->tomcat.base || !later->tomcat.base)
		return;
	for (size_t i = 0; i < later->run.n_slots; i++) {
		BT_STR struct bt_str base = {0};
		const struct bt_slot *slot = &later->run.slots[i];
		if (bt_config_tomcat_base(later, slot->name, slot->port, &base, NULL) < 0)
			continue;
		for (size_t k = 0; k < earlier->run.n_slots; k++)
			if (base_is(earlier, k, bt_str_get(&base)))
				bt_problem(sink, at,
					"run.tomcat.base %s of %s on host %s is that of %s, too",
					bt_str_get(&base), later->name, host, earlier->name);
	}
}
