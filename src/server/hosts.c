/* Hosts. A poll is answered as soon as there is something for its host; otherwise it is held until
 * its time is over. Being held is contact: an agent counts as lost when neither a poll is open nor
 * was anything heard for BT_AGENT_LOST_MS. */
#include "base/clock.h"
#include "server/run.h"

#include <string.h>

#define MAX_COMMANDS 100 /* of one answer */

struct bt_host *bt_host_find(struct bt_server *s, const char *name)
{
	for (struct bt_host *h = s->hosts; h; h = h->next)
		if (strcmp(h->name, name) == 0)
			return h;
	return NULL;
}

struct bt_host *bt_host_add(struct bt_server *s, const char *name)
{
	struct bt_host *h = bt_host_find(s, name);
	if (h)
		return h;
	h = bt_calloc(1, sizeof *h);
	h->server = s;
	h->name = bt_strdup(name);
	h->contact_boot_ms = s->started_boot_ms;
	h->outbox = bt_outbox_new(0);
	h->busy = -1;
	h->asks = json_array();
	h->seen = json_object();
	h->generations = json_object();
	h->next = s->hosts;
	s->hosts = h;
	return h;
}

static void load_row(struct bt_server *s, const json_t *row)
{
	struct bt_host *h = bt_host_add(s, json_string_value(json_object_get(row, "name")));
	const char *address = json_string_value(json_object_get(row, "address"));
	const char *version = json_string_value(json_object_get(row, "agent_version"));
	h->address = bt_strdup(address);
	h->agent_version = bt_strdup(version);
	h->protocol = json_integer_value(json_object_get(row, "protocol"));
	h->seen_wall_ms = json_integer_value(json_object_get(row, "last_seen_at"));
	h->revoked = json_object_get(row, "revoked_at") != NULL;
	bt_outbox_free(h->outbox);
	h->outbox = bt_outbox_new(0);
}

static int load_outbox(struct bt_host *h, int64_t last_seq, struct bt_err *err)
{
	BT_JSON json_t *list = NULL;
	int r = bt_store_select(h->server->store, &list, err, BT_SQL_OUTBOX_OPEN, h->name);
	if (r < 0)
		return r;
	size_t i;
	json_t *row;
	/* The numbers go on after the last one that was handed out, settled or not. */
	if (json_array_size(list) == 0) {
		bt_outbox_free(h->outbox);
		h->outbox = bt_outbox_new((uint64_t)last_seq);
	}
	json_array_foreach (list, i, row) {
		struct bt_outbox_item item = {
			.seq = (uint64_t)json_integer_value(json_object_get(row, "seq")),
			.json = json_string_value(json_object_get(row, "json")),
		};
		item.key.deployment =
			(uint64_t)json_integer_value(json_object_get(row, "deployment"));
		item.key.task = (uint32_t)json_integer_value(json_object_get(row, "task"));
		item.key.attempt = (uint32_t)json_integer_value(json_object_get(row, "attempt"));
		if (bt_verb_parse(json_string_value(json_object_get(row, "verb")), &item.key.verb,
			    err) < 0)
			return bt_err_wrap(err, "outbox of %s", h->name);
		bt_outbox_append(h->outbox, &item);
	}
	return 0;
}

int bt_hosts_load(struct bt_server *s, struct bt_err *err)
{
	BT_JSON json_t *hosts = NULL, *generations = NULL;
	int r = bt_store_select(s->store, &hosts, err, BT_SQL_HOSTS);
	if (r == 0)
		r = bt_store_select(s->store, &generations, err, BT_SQL_GENERATIONS);
	size_t i;
	json_t *row;
	json_array_foreach (hosts, i, row) {
		if (r < 0)
			return r;
		load_row(s, row);
		r = load_outbox(bt_host_find(s, json_string_value(json_object_get(row, "name"))),
			json_integer_value(json_object_get(row, "last_seq")), err);
	}
	json_array_foreach (generations, i, row) {
		const char *host = json_string_value(json_object_get(row, "host"));
		struct bt_host *h = host ? bt_host_find(s, host) : NULL;
		if (h)
			bt_host_generation(h, json_string_value(json_object_get(row, "balancer")),
				(uint64_t)json_integer_value(json_object_get(row, "generation")));
	}
	return r;
}

void bt_hosts_free(struct bt_server *s)
{
	while (s->hosts) {
		struct bt_host *h = s->hosts;
		s->hosts = h->next;
		if (h->poll_timer)
			event_free(h->poll_timer);
		bt_outbox_free(h->outbox);
		json_decref(h->asks);
		json_decref(h->seen);
		json_decref(h->generations);
		free(h->name);
		free(h->address);
		free(h->agent_version);
		free(h);
	}
}

void bt_host_touch(struct bt_host *h)
{
	h->contact_boot_ms = bt_clock_boot_ms();
	h->seen_wall_ms = bt_clock_wall_ms();
	h->retouched = true;
}

bool bt_host_connected(const struct bt_host *h)
{
	return !h->revoked &&
	       (h->poll || (h->seen_wall_ms > 0 && bt_host_silent_ms(h) < BT_AGENT_LOST_MS));
}

int64_t bt_host_silent_ms(const struct bt_host *h)
{
	return h->poll ? 0 : bt_clock_boot_ms() - h->contact_boot_ms;
}

/* ---- the long poll ----------------------------------------------------------------------- */

static json_t *take_commands(struct bt_host *h)
{
	const struct bt_outbox_item **items = NULL;
	size_t n = bt_outbox_after(h->outbox, h->poll_after, MAX_COMMANDS, &items);
	json_t *list = json_array();
	for (size_t i = 0; i < n; i++) {
		json_t *c = NULL;
		struct bt_err err;
		if (bt_params_complete(h->server, items[i], &c, &err) < 0) {
			bt_log(NULL, BT_LOG_ERROR, "host=%s command %llu: %s", h->name,
				(unsigned long long)items[i]->seq, err.text);
			break; /* later ones must not overtake it */
		}
		json_array_append_new(list, c);
		if (bt_params_is_large(c)) /* an answer has a bound */
			break;
	}
	free(items);
	return list;
}

static void answer(struct bt_host *h, json_t *commands)
{
	struct bt_http_exchange *x = BT_STEAL(h->poll);
	if (h->poll_timer)
		event_del(h->poll_timer);
	bt_host_touch(h);
	bt_http_reply_json(x, 200,
		json_pack("{s:s, s:o, s:o}", "store", bt_store_id(h->server->store), "commands",
			commands, "asks", h->asks));
	h->asks = json_array();
}

void bt_host_wake(struct bt_host *h)
{
	if (!h->poll)
		return;
	json_t *commands = take_commands(h);
	if (json_array_size(commands) > 0 || json_array_size(h->asks) > 0)
		answer(h, commands);
	else
		json_decref(commands);
}

static void on_timeout(evutil_socket_t fd, short what, void *arg)
{
	struct bt_host *h = arg;
	(void)fd;
	(void)what;
	if (h->poll)
		answer(h, json_array());
}

static void on_close(void *arg)
{
	struct bt_host *h = arg;
	h->poll = NULL;
	bt_host_touch(h);
	if (h->poll_timer)
		event_del(h->poll_timer);
}

void bt_host_poll(struct bt_host *h, struct bt_http_exchange *x, uint64_t after, int64_t wait_ms)
{
	if (h->poll) { /* a newer poll of the same host ends the older */
		struct bt_http_exchange *old = BT_STEAL(h->poll);
		bt_http_reply_json(old, 200,
			json_pack("{s:s, s:[], s:[]}", "store", bt_store_id(h->server->store),
				"commands", "asks"));
	}
	h->poll = x;
	h->poll_after = after;
	bt_host_touch(h);
	bt_http_on_close(x, on_close, h);
	bt_host_wake(h);
	if (!h->poll)
		return;
	if (!h->poll_timer)
		h->poll_timer = evtimer_new(h->server->base, on_timeout, h);
	bt_timer_in(h->poll_timer, wait_ms);
}

void bt_host_disconnect(struct bt_host *h)
{
	if (h->poll)
		answer(h, json_array());
}

/* ---- what it said ------------------------------------------------------------------------ */

void bt_host_generation(struct bt_host *h, const char *balancer, uint64_t generation)
{
	json_int_t known = json_integer_value(json_object_get(h->generations, balancer));
	if ((uint64_t)known < generation && generation <= INT64_MAX)
		json_object_set_new(h->generations, balancer, json_integer((json_int_t)generation));
}

void bt_host_saw(struct bt_host *h, const char *service, json_t *seen)
{
	size_t i;
	json_t *b;
	json_array_foreach (json_object_get(seen, "balancers"), i, b) {
		const char *name = json_string_value(json_object_get(b, "name"));
		json_int_t g = json_integer_value(json_object_get(b, "generation"));
		if (name && g > 0)
			bt_host_generation(h, name, (uint64_t)g);
	}
	json_object_set_new(h->seen, service,
		json_pack("{s:I, s:O}", "at", (json_int_t)bt_clock_boot_ms(), "seen", seen));
	json_t *free_bytes = json_object_get(seen, "free_bytes");
	if (json_is_integer(free_bytes))
		h->free_bytes = json_integer_value(free_bytes);
}

json_t *bt_host_seen(const struct bt_host *h, const char *service, int64_t *ret_at)
{
	json_t *o = json_object_get(h->seen, service);
	*ret_at = json_integer_value(json_object_get(o, "at"));
	return json_object_get(o, "seen");
}
