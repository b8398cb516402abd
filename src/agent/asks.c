/* Asks: questions of people that are not worth a ledger. Each has an id; answers go to
 * stream/<id> in pieces until `end`, one post at a time. A 404 means that nobody reads any more. */
#include "agent/link_priv.h"
#include "agent/upgrade.h"

#include "base/json.h"
#include "base/str.h"
#include "driver/log_tail.h"

#include <stdio.h>
#include <string.h>

#define MAX_ASKS 64
#define POST_TIMEOUT_MS 15000
#define BEHIND_MAX (256u << 10)
#define LINE_MAX (16u << 10)
#define MAX_LINES 10000

struct ask {
	struct ask *next;
	struct bt_asks *all;
	char *id;
	struct bt_observing *observing;
	struct bt_link_call *post;
	struct bt_upgrade *upgrade;
	/* logs */
	struct bt_log_follow *follow;
	struct bt_str partial; /* the line that is still being written */
	json_t *lines;	       /* that wait for the post under way */
	size_t bytes;
	bool end, end_sent; /* after these lines */
};

struct bt_asks {
	struct bt_link *l;
	struct ask *list;
	size_t n;
};

static void ask_end(struct ask *k)
{
	struct bt_asks *a = k->all;
	for (struct ask **p = &a->list; *p; p = &(*p)->next)
		if (*p == k) {
			*p = k->next;
			break;
		}
	a->n--;
	bt_observe_cancel(k->observing);
	bt_link_call_cancel(k->post);
	bt_upgrade_free(k->upgrade);
	bt_log_follow_free(k->follow);
	bt_str_done(&k->partial);
	json_decref(k->lines);
	free(k->id);
	free(k);
}

static bool id_is_good(const char *id)
{
	size_t n = id ? strlen(id) : 0;
	return n > 0 && n <= 64 &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == n;
}

static void on_last_posted(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct ask *k = arg;
	(void)status; /* who asked will ask again */
	(void)answer;
	(void)err;
	k->post = NULL;
	ask_end(k);
}

static void post_last(struct ask *k, json_t *body)
{
	char path[128];
	snprintf(path, sizeof path, "/v1/agent/stream/%s", k->id);
	json_object_set_new(body, "end", json_true());
	bt_link_call_cancel(k->post);
	k->post = bt_link_call(k->all->l, "POST", path, body, POST_TIMEOUT_MS, on_last_posted, k);
}

static void post_error(struct ask *k, const char *text)
{
	BT_FREE char *clean = bt_redact_dup(k->all->l->env.exec->redact, text);
	post_last(k, json_pack("{s:s}", "error", clean));
}

/* ---- observe ------------------------------------------------------------------------------- */

static void on_seen(void *arg, json_t *seen)
{
	struct ask *k = arg;
	k->observing = NULL;
	post_last(k, json_pack("{s:O}", "observation", seen));
}

static void ask_observe(struct ask *k, const json_t *ask)
{
	struct bt_err err = {0};
	json_t *service = NULL;
	struct bt_observe_what what = {.identity = true};
	int r = bt_json_object(ask, "service", &service, &err);
	if (r == 0)
		r = bt_json_bool_opt(ask, "foreign", &what.foreign, &err);
	what.secrets = json_object_get(ask, "secrets");
	if (r == 0)
		r = bt_observe_start(
			k->all->l->env.exec, service, what, on_seen, k, &k->observing, &err);
	if (r < 0)
		post_error(k, err.text);
}

/* ---- logs ---------------------------------------------------------------------------------- */

static void pump(struct ask *k);

static void on_lines_posted(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct ask *k = arg;
	(void)answer;
	(void)err;
	k->post = NULL;
	if (k->end_sent || status < 200 || status > 299) /* 404: nobody reads any more */
		ask_end(k);
	else
		pump(k);
}

static void pump(struct ask *k)
{
	char path[128];
	if (k->post || (json_array_size(k->lines) == 0 && !k->end))
		return;
	snprintf(path, sizeof path, "/v1/agent/stream/%s", k->id);
	json_t *body = json_pack("{s:o,s:b}", "lines", k->lines, "end", (int)k->end);
	k->lines = json_array();
	k->bytes = 0;
	k->end_sent = k->end;
	k->post = bt_link_call(k->all->l, "POST", path, body, POST_TIMEOUT_MS, on_lines_posted, k);
}

static void add_line(struct ask *k, const char *text, size_t n)
{
	BT_FREE char *line = bt_strndup(text, n > LINE_MAX ? LINE_MAX : n);
	BT_FREE char *clean = bt_redact_dup(k->all->l->env.exec->redact, line);
	json_array_append_new(k->lines, json_string(clean));
	k->bytes += strlen(clean) + 1;
}

static void add_data(struct ask *k, const char *data, size_t n)
{
	while (n > 0) {
		const char *nl = memchr(data, '\n', n);
		size_t take = nl ? (size_t)(nl - data) : n;
		if (k->partial.len < LINE_MAX)
			bt_str_addn(&k->partial, data, take);
		if (!nl)
			return;
		add_line(k, bt_str_get(&k->partial), k->partial.len);
		bt_str_reset(&k->partial);
		data += take + 1;
		n -= take + 1;
	}
}

static bool on_data(void *arg, const char *data, size_t n)
{
	struct ask *k = arg;
	add_data(k, data, n);
	if (k->bytes > BEHIND_MAX) { /* the log is the memory, not we: who is behind asks anew */
		add_line(k, "[cut off: the reader is behind]", 31);
		k->end = true;
	}
	bool more = !k->end;
	pump(k);
	return more;
}

static int log_path_of(struct ask *k, const json_t *ask, char *path, size_t n, struct bt_err *err)
{
	const struct bt_exec_env *x = k->all->l->env.exec;
	const char *service = NULL, *slot = NULL;
	int r = bt_json_str(ask, "service", &service, err);
	if (r == 0)
		r = bt_json_str(ask, "slot", &slot, err);
	if (r < 0)
		return r;
	const struct bt_known_service *s = bt_known_find(x->known, service);
	for (size_t i = 0; s && s->service && i < s->service->run.n_slots; i++) {
		const struct bt_slot *have = &s->service->run.slots[i];
		const struct bt_runtime_ops *rt = x->drivers->runtime(s->service->run.as);
		if (!bt_streq(have->name, slot) || !rt)
			continue;
		struct bt_instance_ref ref = {service, slot, have->port, NULL, 0};
		rt->log_path(&ref, path, n);
		return 0;
	}
	return bt_err_set(err, BT_E_NOTFOUND, "%s has no slot %.64s of %.64s", x->driver->host,
		slot, service);
}

static void ask_logs(struct ask *k, const json_t *ask)
{
	char path[4096];
	struct bt_err err = {0};
	BT_STR struct bt_str tail = {0};
	int64_t lines = 100;
	bool follow = false;
	int r = log_path_of(k, ask, path, sizeof path, &err);
	if (r == 0)
		r = bt_json_int_opt(ask, "lines", 0, MAX_LINES, &lines, &err);
	if (r == 0)
		r = bt_json_bool_opt(ask, "follow", &follow, &err);
	k->lines = json_array();
	k->end = !follow;
	if (r == 0 && follow)
		r = bt_log_follow_start(k->all->l->env.exec->driver->base, path, (size_t)lines,
			on_data, k, &k->follow, &err);
	else if (r == 0)
		r = bt_log_tail_last(path, (size_t)lines, &tail, &err);
	if (r < 0) {
		post_error(k, err.text);
		return;
	}
	add_data(k, bt_str_get(&tail), tail.len);
	if (k->partial.len && !follow)
		add_line(k, bt_str_get(&k->partial), k->partial.len);
	pump(k);
}

/* ---- upgrade ------------------------------------------------------------------------------- */

/* The server knows that the trial begins: this agent may go. */
static void on_told(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct ask *k = arg;
	const struct bt_link_env *env = &k->all->l->env;
	(void)answer;
	(void)err;
	k->post = NULL;
	if (status >= 200 && status < 300)
		env->on_upgrade(env->on_upgrade_arg, BT_STEAL(k->upgrade));
	ask_end(k);
}

static void on_fetched(void *arg, int result, const struct bt_err *err)
{
	struct ask *k = arg;
	char path[128];
	if (result < 0) {
		BT_FREE char *why = bt_strdup(err->text);
		k->upgrade = bt_upgrade_free(k->upgrade); /* nothing stays aside */
		post_error(k, why);
		return;
	}
	snprintf(path, sizeof path, "/v1/agent/stream/%s", k->id);
	k->post = bt_link_call(k->all->l, "POST", path, json_pack("{s:[], s:b}", "lines", "end", 1),
		POST_TIMEOUT_MS, on_told, k);
}

static void ask_upgrade(struct ask *k, const json_t *ask)
{
	const struct bt_link_env *l = &k->all->l->env;
	struct bt_upgrade_env env = {.exec = l->exec,
		.server_url = l->server_url,
		.self_path = l->exec->driver->self_path,
		.shim_path = l->exec->driver->shim_path,
		.replaceable = l->on_upgrade != NULL,
		.in_trial = bt_upgrade_started()->trial_fd >= 0};
	k->upgrade = bt_upgrade_start(&env, ask, on_fetched, k);
}

/* ---- the table ----------------------------------------------------------------------------- */

static struct ask *find(struct bt_asks *a, const char *id)
{
	for (struct ask *k = a->list; k; k = k->next)
		if (bt_streq(k->id, id))
			return k;
	return NULL;
}

static const struct {
	const char *kind;
	void (*take)(struct ask *k, const json_t *ask);
} kinds[] = {
	{"logs", ask_logs},
	{"observe", ask_observe},
	{"upgrade", ask_upgrade},
};

void bt_asks_take(struct bt_asks *a, const json_t *ask)
{
	const char *id = json_string_value(json_object_get(ask, "ask"));
	const char *kind = json_string_value(json_object_get(ask, "kind"));
	if (!id_is_good(id) || !kind)
		return; /* nowhere to say so */
	struct ask *k = find(a, id);
	if (strcmp(kind, "stop") == 0) {
		if (k)
			ask_end(k);
		return;
	}
	if (k || a->n >= MAX_ASKS)
		return;
	k = bt_calloc(1, sizeof *k);
	*k = (struct ask){.next = a->list, .all = a, .id = bt_strdup(id)};
	a->list = k;
	a->n++;
	for (size_t i = 0; i < BT_ARRAY_LEN(kinds); i++)
		if (strcmp(kinds[i].kind, kind) == 0) {
			kinds[i].take(k, ask);
			return;
		}
	post_error(k, "this agent is older than the server: it does not know this question");
}

struct bt_asks *bt_asks_new(struct bt_link *l)
{
	struct bt_asks *a = bt_calloc(1, sizeof *a);
	a->l = l;
	return a;
}

struct bt_asks *bt_asks_free(struct bt_asks *a)
{
	if (!a)
		return NULL;
	while (a->list)
		ask_end(a->list);
	free(a);
	return NULL;
}
