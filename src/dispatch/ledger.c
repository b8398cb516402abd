/* Items in order of arrival, found by (deployment, task) through a hash of chains: a chain holds a
 * task's attempts, its do and its undo, which is what every question here is about. */
#include "dispatch/ledger.h"

#include "base/planted.h"
#include "base/str.h"

#include <string.h>

struct item {
	struct item *chain; /* same bucket, newest first */
	char *service, *command;
	uint64_t seq, token;
	struct bt_command_key key;
	enum bt_task_kind task;
	bool begun, done, acked;
	struct bt_prior prior;
	struct bt_result result;
	char *detail;
};

struct service_token {
	char *service;
	uint64_t token, deployment;
};

struct bt_ledger {
	char *store;
	uint64_t cursor;
	struct item **items; /* in order of arrival */
	size_t n_items, cap_items;
	struct item **buckets;
	size_t n_buckets; /* a power of two, 0 before the first item */
	struct service_token *tokens;
	size_t n_tokens;
};

struct bt_ledger *bt_ledger_new(void)
{
	return bt_calloc(1, sizeof(struct bt_ledger));
}

static void item_free(struct item *i)
{
	free(i->service);
	free(i->command);
	free(i->detail);
	free(i);
}

struct bt_ledger *bt_ledger_free(struct bt_ledger *l)
{
	if (!l)
		return NULL;
	for (size_t i = 0; i < l->n_items; i++)
		item_free(l->items[i]);
	for (size_t i = 0; i < l->n_tokens; i++)
		free(l->tokens[i].service);
	free(l->items);
	free(l->buckets);
	free(l->tokens);
	free(l->store);
	free(l);
	return NULL;
}

static size_t bucket(const struct bt_ledger *l, uint64_t deployment, uint32_t task)
{
	uint64_t h = (deployment * 1000003 + task) * 0x9e3779b97f4a7c15u;
	return (size_t)(h >> 32) & (l->n_buckets - 1);
}

static void link_item(struct bt_ledger *l, struct item *i)
{
	struct item **head = &l->buckets[bucket(l, i->key.deployment, i->key.task)];
	i->chain = *head;
	*head = i;
}

static void rebuild_buckets(struct bt_ledger *l, size_t n)
{
	free(l->buckets);
	l->n_buckets = n;
	l->buckets = bt_calloc(n, sizeof(struct item *));
	for (size_t i = 0; i < l->n_items; i++)
		link_item(l, l->items[i]);
}

static struct item *chain_of(const struct bt_ledger *l, uint64_t deployment, uint32_t task)
{
	return l->n_buckets ? l->buckets[bucket(l, deployment, task)] : NULL;
}

static struct item *find(const struct bt_ledger *l, const struct bt_command_key *key)
{
	for (struct item *i = chain_of(l, key->deployment, key->task); i; i = i->chain)
		if (bt_command_key_equal(&i->key, key))
			return i;
	return NULL;
}

static struct service_token *token_of(const struct bt_ledger *l, const char *service)
{
	for (size_t i = 0; i < l->n_tokens; i++)
		if (bt_streq(l->tokens[i].service, service))
			return &l->tokens[i];
	return NULL;
}

static void drop_acked(struct bt_ledger *l, const char *service, uint64_t deployment)
{
	size_t n = 0;
	for (size_t i = 0; i < l->n_items; i++) {
		struct item *it = l->items[i];
		if (it->acked && it->key.deployment != deployment && bt_streq(it->service, service))
			item_free(it);
		else
			l->items[n++] = it;
	}
	if (n == l->n_items)
		return;
	l->n_items = n;
	rebuild_buckets(l, l->n_buckets);
}

static void raise_token(
	struct bt_ledger *l, const char *service, uint64_t token, uint64_t deployment)
{
	struct service_token *t = token_of(l, service);
	if (!t) {
		l->tokens = bt_realloc(l->tokens, (l->n_tokens + 1) * sizeof *l->tokens);
		t = &l->tokens[l->n_tokens++];
		*t = (struct service_token){.service = bt_strdup(service)};
	}
	if (token < t->token)
		return; /* a repeat from before: it says nothing about now */
	t->token = token;
	if (deployment && deployment != t->deployment) {
		drop_acked(l, service, deployment);
		t->deployment = deployment;
	}
}

static int apply_accepted(struct bt_ledger *l, const struct bt_ledger_entry *e, struct bt_err *err)
{
	if (!e->service)
		return bt_err_set(err, BT_E_CORRUPT, "ledger: accepted without a service");
	raise_token(l, e->service, e->token, e->key.deployment);
	if (e->seq > l->cursor)
		l->cursor = e->seq;
	if (!e->key.deployment || (find(l, &e->key) && !BT_BUG(REPEAT_RUNS)))
		return 0;
	struct item *i = bt_calloc(1, sizeof *i);
	i->service = bt_strdup(e->service);
	i->command = bt_strdup(e->command);
	i->seq = e->seq;
	i->token = e->token;
	i->key = e->key;
	i->task = e->task;
	if (l->n_items == l->cap_items) {
		l->cap_items = l->cap_items ? l->cap_items * 2 : 8;
		l->items = bt_realloc(l->items, l->cap_items * sizeof(struct item *));
	}
	l->items[l->n_items++] = i;
	if (l->n_items > l->n_buckets)
		rebuild_buckets(l, l->n_buckets ? l->n_buckets * 4 : 16);
	else
		link_item(l, i);
	return 0;
}

int bt_ledger_apply(struct bt_ledger *l, const struct bt_ledger_entry *e, struct bt_err *err)
{
	if (e->kind == BT_LEDGER_STORE) {
		free(l->store);
		l->store = bt_strdup(e->store);
		l->cursor = e->seq;
		return 0;
	}
	if (e->kind == BT_LEDGER_ACCEPTED)
		return apply_accepted(l, e, err);
	struct item *i = find(l, &e->key);
	if (!i && e->kind == BT_LEDGER_ACKED)
		return 0; /* dropped since */
	if (!i)
		return bt_err_set(err, BT_E_CORRUPT,
			"ledger: task %u of deployment %llu goes on without having been accepted",
			e->key.task, (unsigned long long)e->key.deployment);
	switch (e->kind) {
	case BT_LEDGER_BEGUN:
		i->begun = true;
		i->prior = e->prior;
		break;
	case BT_LEDGER_DONE:
		i->done = true;
		i->result = e->result;
		free(i->detail);
		i->detail = bt_strdup(e->result.detail);
		i->result.detail = i->detail;
		/* It answers the four numbers, whichever token they came with last. */
		i->result.token = 0;
		break;
	default:
		i->acked = true;
		break;
	}
	return 0;
}

/* Did something come that makes this late copy meaningless? */
static bool superseded(const struct bt_ledger *l, const struct bt_command_key *key)
{
	for (struct item *i = chain_of(l, key->deployment, key->task); i; i = i->chain) {
		if (i->key.deployment != key->deployment || i->key.task != key->task)
			continue;
		if (i->key.verb == BT_UNDO && key->verb == BT_DO)
			return true;
		if (i->key.verb == key->verb && i->key.attempt > key->attempt)
			return true;
	}
	return false;
}

enum bt_ledger_answer bt_ledger_offer(const struct bt_ledger *l, const char *service,
	const struct bt_command_key *key, uint64_t token)
{
	const struct item *i = find(l, key);
	if (i && !BT_BUG(REPEAT_RUNS))
		return i->done ? BT_LEDGER_ANSWERED : BT_LEDGER_RUNNING;
	if (token < bt_ledger_token(l, service) && !BT_BUG(TOKEN_FORGOTTEN))
		return BT_LEDGER_STALE;
	return superseded(l, key) ? BT_LEDGER_STALE : BT_LEDGER_NEW;
}

/* Its deployment has ended: the service's next one sent something. */
static bool over(const struct bt_ledger *l, const struct item *i)
{
	const struct service_token *t = token_of(l, i->service);
	return t && t->deployment && t->deployment != i->key.deployment &&
	       !BT_BUG(OLD_RUN_RECOVERED);
}

static struct bt_ledger_entry accepted_entry(const struct item *i)
{
	return (struct bt_ledger_entry){
		.kind = BT_LEDGER_ACCEPTED,
		.seq = i->seq,
		.service = i->service,
		.token = i->token,
		.key = i->key,
		.task = i->task,
		.command = i->command,
	};
}

static enum bt_recovery recovery(const struct item *i)
{
	if (!i->begun)
		return BT_RECOVER_RUN;
	switch (bt_task_info(i->task)->repeat) {
	case BT_REPEAT_SAFE:
		return BT_RECOVER_AGAIN;
	case BT_REPEAT_PROBE:
		return BT_RECOVER_PROBE;
	default:
		return BT_BUG(NEVER_RECOVERED) ? BT_RECOVER_AGAIN : BT_RECOVER_PARK;
	}
}

size_t bt_ledger_recover(const struct bt_ledger *l, struct bt_ledger_open **ret)
{
	struct bt_ledger_open *open = bt_calloc(l->n_items, sizeof *open);
	size_t n = 0;
	for (size_t i = 0; i < l->n_items; i++) {
		const struct item *it = l->items[i];
		if ((it->done && !BT_BUG(DONE_FORGOTTEN)) || superseded(l, &it->key) || over(l, it))
			continue;
		open[n] = (struct bt_ledger_open){
			.accepted = accepted_entry(it),
			.begun = it->begun,
			.prior = it->prior,
			.how = recovery(it),
		};
		if (BT_BUG(PRIOR_FORGOTTEN))
			open[n].prior = (struct bt_prior){0};
		n++;
	}
	*ret = open;
	return n;
}

size_t bt_ledger_unacked(const struct bt_ledger *l, const struct bt_result ***ret)
{
	const struct bt_result **results = bt_calloc(l->n_items, sizeof *results);
	size_t n = 0;
	for (size_t i = 0; i < l->n_items; i++)
		if (l->items[i]->done && !l->items[i]->acked)
			results[n++] = &l->items[i]->result;
	*ret = results;
	return n;
}

const struct bt_result *bt_ledger_result(
	const struct bt_ledger *l, const struct bt_command_key *key)
{
	const struct item *i = find(l, key);
	return i && i->done ? &i->result : NULL;
}

bool bt_ledger_prior(
	const struct bt_ledger *l, uint64_t deployment, uint32_t task, struct bt_prior *ret)
{
	const struct item *first = NULL;
	for (struct item *i = chain_of(l, deployment, task); i; i = i->chain)
		if (i->key.deployment == deployment && i->key.task == task &&
			i->key.verb == BT_DO && i->begun &&
			(!first || i->key.attempt < first->key.attempt))
			first = i;
	if (!first)
		return false;
	*ret = first->prior;
	return true;
}

uint64_t bt_ledger_cursor(const struct bt_ledger *l)
{
	return l->cursor;
}

const char *bt_ledger_store(const struct bt_ledger *l)
{
	return l->store;
}

uint64_t bt_ledger_token(const struct bt_ledger *l, const char *service)
{
	const struct service_token *t = token_of(l, service);
	return t ? t->token : 0;
}

void bt_ledger_compact(const struct bt_ledger *l,
	void (*emit)(void *arg, const struct bt_ledger_entry *), void *arg)
{
	for (size_t i = 0; i < l->n_items; i++) {
		const struct item *it = l->items[i];
		struct bt_ledger_entry e = accepted_entry(it);
		emit(arg, &e);
		if (it->begun)
			emit(arg, &(struct bt_ledger_entry){.kind = BT_LEDGER_BEGUN,
					  .key = it->key,
					  .prior = it->prior});
		if (it->done)
			emit(arg, &(struct bt_ledger_entry){.kind = BT_LEDGER_DONE,
					  .key = it->key,
					  .result = it->result});
		if (it->acked)
			emit(arg,
				&(struct bt_ledger_entry){.kind = BT_LEDGER_ACKED, .key = it->key});
	}
	for (size_t i = 0; i < l->n_tokens; i++)
		emit(arg, &(struct bt_ledger_entry){.kind = BT_LEDGER_ACCEPTED,
				  .service = l->tokens[i].service,
				  .token = l->tokens[i].token});
	/* Last, since accepted lines raise the cursor and this one sets it. */
	if (l->store)
		emit(arg, &(struct bt_ledger_entry){
				  .kind = BT_LEDGER_STORE, .store = l->store, .seq = l->cursor});
}
