/* What the agent says: results until they are acknowledged, and progress that may get lost.
 * One post of each at a time; what comes meanwhile waits and goes together. */
#include "agent/link_priv.h"

#include "base/json.h"

#include <string.h>

#define RESULTS_A_POST 16
#define LOOSE_MAX 1000
#define PROGRESS_MAX 500
#define PROGRESS_MS 250
#define FIRST_WORD_MS 20
#define POST_TIMEOUT_MS 30000

struct loose { /* a refusal: nothing of it is in the ledger */
	struct loose *next;
	struct bt_command_key key;
	json_t *json;
};

struct line {
	struct line *next;
	struct bt_command_key key;
	char *text;
};

struct bt_posts {
	struct bt_link *l;
	struct bt_command_key *keys; /* results in the ledger that wait for their acknowledgement */
	size_t n_keys, cap_keys;
	struct loose *loose, **loose_tail;
	size_t n_loose;
	struct bt_link_call *post;
	struct event *again;
	unsigned failures;
	struct line *lines, **lines_tail;
	size_t n_lines;
	struct bt_link_call *progress;
	struct event *flush;
};

static void line_free(struct line *f)
{
	free(f->text);
	free(f);
}

/* ---- results ------------------------------------------------------------------------------- */

static json_t *result_json(struct bt_posts *p, const struct bt_command_key *key)
{
	struct bt_link *l = p->l;
	const struct bt_result *r =
		bt_ledger_result(bt_ledger_file_ledger(l->env.exec->ledger), key);
	if (!r)
		return NULL;
	json_t *j = bt_result_to_json(r);
	BT_JSON json_t *extras = bt_exec_extras(l->exec, key);
	if (extras)
		json_object_update(j, extras);
	return j;
}

static void remove_key(struct bt_posts *p, size_t i)
{
	p->keys[i] = p->keys[--p->n_keys];
}

static void acked(struct bt_posts *p, const struct bt_command_key *key)
{
	for (struct loose **at = &p->loose; *at; at = &(*at)->next)
		if (bt_command_key_equal(&(*at)->key, key)) {
			struct loose *gone = *at;
			*at = gone->next;
			if (p->loose_tail == &gone->next)
				p->loose_tail = at;
			json_decref(gone->json);
			free(gone);
			p->n_loose--;
			return;
		}
	for (size_t i = 0; i < p->n_keys; i++)
		if (bt_command_key_equal(&p->keys[i], key)) {
			struct bt_ledger_entry e = {.kind = BT_LEDGER_ACKED, .key = *key};
			bt_ledger_file_append(p->l->env.exec->ledger, &e, NULL, NULL);
			bt_exec_forget_extras(p->l->exec, key);
			remove_key(p, i);
			return;
		}
}

static void try_again(struct bt_posts *p)
{
	bt_timer_in(p->again, bt_link_pause(++p->failures, 5000));
}

static void on_posted(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct bt_posts *p = arg;
	json_t *k;
	size_t i, n = 0;
	char words[BT_ERR_MAX];
	p->post = NULL;
	json_array_foreach (json_object_get(answer, "acked"), i, k) {
		struct bt_command_key key;
		if (status == 200 && bt_key_from_json(k, &key, NULL) == 0) {
			acked(p, &key);
			n++;
		}
	}
	if (n > 0) {
		p->failures = 0;
		bt_posts_kick(p);
		return;
	}
	if (p->failures == 0 && status)
		bt_log(p->l->env.log, BT_LOG_WARN, "results are not taken: %s",
			bt_link_words(status, answer, err, words, sizeof words));
	try_again(p);
}

void bt_posts_kick(struct bt_posts *p)
{
	if (!p->l->up || p->post || (!p->loose && !p->n_keys))
		return;
	json_t *list = json_array();
	for (const struct loose *f = p->loose; f && json_array_size(list) < RESULTS_A_POST;
		f = f->next)
		json_array_append(list, f->json);
	for (size_t i = 0; i < p->n_keys && json_array_size(list) < RESULTS_A_POST;) {
		json_t *j = result_json(p, &p->keys[i]);
		if (!j) { /* the ledger has dropped it: it was acknowledged before */
			remove_key(p, i);
			continue;
		}
		json_array_append_new(list, j);
		i++;
	}
	json_t *body =
		json_pack("{s:o,s:I}", "results", list, "produced", (json_int_t)p->l->produced);
	if (json_array_size(list) == 0) {
		json_decref(body);
		return;
	}
	p->post = bt_link_call(
		p->l, "POST", "/v1/agent/results", body, POST_TIMEOUT_MS, on_posted, p);
}

static void on_again(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	bt_posts_kick(arg);
}

/* What a task said before it ended must not be heard after its end. */
static void drop_progress(struct bt_posts *p, const struct bt_command_key *key)
{
	for (struct line **at = &p->lines; *at; at = &(*at)->next)
		if (bt_command_key_equal(&(*at)->key, key)) {
			struct line *gone = *at;
			*at = gone->next;
			if (p->lines_tail == &gone->next)
				p->lines_tail = at;
			line_free(gone);
			p->n_lines--;
			return;
		}
}

void bt_posts_result(struct bt_posts *p, const struct bt_command_key *key)
{
	drop_progress(p, key);
	for (size_t i = 0; i < p->n_keys; i++)
		if (bt_command_key_equal(&p->keys[i], key)) {
			bt_posts_kick(p);
			return;
		}
	if (p->n_keys == p->cap_keys) {
		p->cap_keys = p->cap_keys ? 2 * p->cap_keys : 16;
		p->keys = bt_realloc(p->keys, p->cap_keys * sizeof *p->keys);
	}
	p->keys[p->n_keys++] = *key;
	bt_posts_kick(p);
}

void bt_posts_refused(struct bt_posts *p, const struct bt_result *result)
{
	for (struct loose *f = p->loose; f; f = f->next)
		if (bt_command_key_equal(&f->key, &result->key)) {
			json_decref(f->json);
			f->json = bt_result_to_json(result);
			bt_posts_kick(p);
			return;
		}
	if (p->n_loose >= LOOSE_MAX)
		return; /* the server sends the command again, and is refused again */
	struct loose *f = bt_calloc(1, sizeof *f);
	*f = (struct loose){NULL, result->key, bt_result_to_json(result)};
	*p->loose_tail = f;
	p->loose_tail = &f->next;
	p->n_loose++;
	bt_posts_kick(p);
}

/* ---- progress ------------------------------------------------------------------------------ */

static void on_progress_posted(void *arg, int status, json_t *answer, const struct bt_err *err)
{
	struct bt_posts *p = arg;
	(void)status; /* lost progress is not sent again */
	(void)answer;
	(void)err;
	p->progress = NULL;
}

static void on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct bt_posts *p = arg;
	(void)fd;
	(void)what;
	if (p->progress) { /* the one before is under way: a little later */
		bt_timer_in(p->flush, PROGRESS_MS);
		return;
	}
	if (!p->lines)
		return;
	json_t *items = json_array();
	while (p->lines) {
		struct line *f = p->lines;
		p->lines = f->next;
		json_array_append_new(items,
			json_pack("{s:o,s:s}", "key", bt_key_to_json(&f->key), "line", f->text));
		line_free(f);
	}
	p->lines_tail = &p->lines;
	p->n_lines = 0;
	json_t *body = json_pack("{s:o}", "items", items);
	if (p->l->up)
		p->progress = bt_link_call(p->l, "POST", "/v1/agent/progress", body,
			POST_TIMEOUT_MS, on_progress_posted, p);
	else
		json_decref(body);
}

/* The last line of each task is what people want to see; the log has them all. */
void bt_posts_progress(struct bt_posts *p, const struct bt_command_key *key, const char *text)
{
	if (!evtimer_pending(p->flush, NULL)) {
		bool first = !p->progress && !p->lines;
		bt_timer_in(p->flush, first ? FIRST_WORD_MS : PROGRESS_MS);
	}
	for (struct line *f = p->lines; f; f = f->next)
		if (bt_command_key_equal(&f->key, key)) {
			free(f->text);
			f->text = bt_strdup(text);
			return;
		}
	if (p->n_lines >= PROGRESS_MAX)
		return;
	struct line *f = bt_calloc(1, sizeof *f);
	*f = (struct line){NULL, *key, bt_strdup(text)};
	*p->lines_tail = f;
	p->lines_tail = &f->next;
	p->n_lines++;
}

/* ---- life ---------------------------------------------------------------------------------- */

struct bt_posts *bt_posts_new(struct bt_link *l)
{
	struct bt_posts *p = bt_calloc(1, sizeof *p);
	struct event_base *base = l->env.exec->driver->base;
	p->l = l;
	p->loose_tail = &p->loose;
	p->lines_tail = &p->lines;
	p->again = evtimer_new(base, on_again, p);
	p->flush = evtimer_new(base, on_flush, p);
	const struct bt_result **unacked = NULL;
	size_t n = bt_ledger_unacked(bt_ledger_file_ledger(l->env.exec->ledger), &unacked);
	for (size_t i = 0; i < n; i++)
		bt_posts_result(p, &unacked[i]->key);
	free(unacked);
	return p;
}

struct bt_posts *bt_posts_free(struct bt_posts *p)
{
	if (!p)
		return NULL;
	bt_link_call_cancel(p->post);
	bt_link_call_cancel(p->progress);
	event_free(p->again);
	event_free(p->flush);
	while (p->lines) {
		struct line *f = p->lines;
		p->lines = f->next;
		line_free(f);
	}
	while (p->loose) {
		struct loose *f = p->loose;
		p->loose = f->next;
		json_decref(f->json);
		free(f);
	}
	free(p->keys);
	free(p);
	return NULL;
}
