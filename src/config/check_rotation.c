/* traffic.rotation: where agents answer, so that no two services answer at the same place. */
#include "config/config.h"
#include "config/keys.h"

#include "base/str.h"

#include <stdlib.h>
#include <string.h>

static void tell(struct bt_reading *r, const char *path, const char *text)
{
	const struct bt_node *at = bt_reading_at(r, path);
	if (!at)
		at = bt_reading_at(r, "traffic.rotation");
	bt_problem(r->sink, at ? at : r->node, "%s: %s", path, text);
}

static const struct bt_rotation *rotation(const struct bt_service *s)
{
	return s->l4 && s->l4->kind == BT_BALANCER_ROTATION ? &s->l4->rotation : NULL;
}

static bool runs_on(const struct bt_service *s, const char *host)
{
	for (size_t i = 0; i < s->n_hosts; i++)
		if (bt_streq(s->hosts[i], host))
			return true;
	return false;
}

long bt_config_rotation_port(const struct bt_service *s, const char *host)
{
	const struct bt_rotation *o = rotation(s);
	const char *listen = o && runs_on(s, host) ? bt_rotation_listen(o, host) : NULL;
	const char *colon = listen ? strrchr(listen, ':') : NULL;
	return listen ? strtol(colon ? colon + 1 : listen, NULL, 10) : 0;
}

static const char *slot_at(const struct bt_service *s, long port)
{
	for (size_t i = 0; i < s->run.n_slots; i++) {
		const struct bt_slot *slot = &s->run.slots[i];
		if (slot->port == port)
			return slot->name;
		for (size_t k = 0; k < slot->n_more; k++)
			if (slot->more[k].number == port)
				return slot->name;
	}
	return NULL;
}

void bt_config_check_rotation(struct bt_reading *r)
{
	const struct bt_service *s = r->service;
	const struct bt_rotation *o = rotation(s);
	if (!o)
		return;
	for (size_t i = 0; i < o->n_on_host; i++) {
		BT_FREE char *text = NULL;
		if (!runs_on(s, o->on_host[i].key))
			text = bt_asprintf("%s is no host of the service", o->on_host[i].key);
		else if (!bt_check_listen(o->on_host[i].value))
			text = bt_asprintf("expected PORT or ADDRESS:PORT for %s, found '%.100s'",
				o->on_host[i].key, o->on_host[i].value);
		if (text)
			tell(r, "traffic.rotation.hosts", text);
	}
	bool told = false;
	for (size_t i = 0; i < s->n_hosts; i++) {
		long port = bt_config_rotation_port(s, s->hosts[i]);
		const char *slot = port ? slot_at(s, port) : NULL;
		BT_FREE char *text = bt_asprintf("port %ld is that of slot %s on host %s", port,
			slot ? slot : "", s->hosts[i]);
		if (!bt_rotation_listen(o, s->hosts[i]) && !told) {
			told = true;
			tell(r, "traffic.rotation.listen", "missing");
		}
		if (slot)
			tell(r, "traffic.rotation.listen", text);
	}
}

char *bt_config_rotation_path(const struct bt_service *s, const char *host)
{
	struct bt_str out = {0};
	for (const char *t = rotation(s)->path; *t; t++)
		if (bt_str_starts(t, "{service}") || bt_str_starts(t, "{host}")) {
			bt_str_add(&out, t[1] == 's' ? s->name : host);
			t = strchr(t, '}');
		} else {
			bt_str_addc(&out, *t);
		}
	return bt_str_steal(&out);
}

void bt_config_check_rotation_pair(struct bt_problem_sink *sink, const struct bt_node *at,
	const struct bt_service *earlier, const struct bt_service *later)
{
	const struct bt_rotation *a = rotation(earlier), *b = rotation(later);
	for (size_t h = 0; a && b && h < later->n_hosts; h++) {
		const char *host = later->hosts[h];
		long port = bt_config_rotation_port(later, host);
		if (!port || port != bt_config_rotation_port(earlier, host))
			continue;
		BT_FREE char *mine = bt_config_rotation_path(later, host),
			     *other = bt_config_rotation_path(earlier, host);
		if (a->tcp || b->tcp)
			bt_problem(sink, at,
				"port %ld of %s (traffic.rotation) on host %s is that of %s, too: "
				"with tcp each needs its own",
				port, later->name, host, earlier->name);
		else if (!bt_streq(bt_rotation_listen(a, host), bt_rotation_listen(b, host)))
			bt_problem(sink, at,
				"traffic.rotation: %s and %s listen on host %s at port %ld by "
				"different addresses: write the same for both",
				earlier->name, later->name, host, port);
		else if (bt_streq(mine, other))
			bt_problem(sink, at,
				"traffic.rotation: %s and %s answer on host %s at the same place, "
				"port %ld %s",
				earlier->name, later->name, host, port, mine);
	}
}
