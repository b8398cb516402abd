#include "base/json.h"
#include "base/str.h"
#include "dispatch/ledger.h"
#include "dispatch/outbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct bt_command_key key(uint64_t d, uint32_t task, enum bt_verb verb, uint32_t attempt)
{
	return (struct bt_command_key){d, task, verb, attempt};
}

/* Every entry goes through its JSON, as in the agent's file. */
static void put(struct bt_ledger *l, struct bt_ledger_entry e)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_JSON json_t *j = bt_ledger_entry_to_json(&e);
	struct bt_ledger_entry back;
	struct bt_err err = {0};
	assert_int_equal(bt_ledger_entry_from_json(j, a, &back, &err), 0);
	assert_int_equal(bt_ledger_apply(l, &back, &err), 0);
}

static void accept(struct bt_ledger *l, uint64_t seq, uint64_t token, struct bt_command_key k,
	enum bt_task_kind kind)
{
	put(l, (struct bt_ledger_entry){.kind = BT_LEDGER_ACCEPTED,
		       .seq = seq,
		       .service = "shop",
		       .token = token,
		       .key = k,
		       .task = kind,
		       .command = "{\"a\":1}"});
}

static void begin(struct bt_ledger *l, struct bt_command_key k, uint32_t release)
{
	put(l, (struct bt_ledger_entry){.kind = BT_LEDGER_BEGUN,
		       .key = k,
		       .prior = {.known = true, .release = release, .running = release != 0}});
}

static void finish(struct bt_ledger *l, struct bt_command_key k)
{
	put(l, (struct bt_ledger_entry){.kind = BT_LEDGER_DONE,
		       .key = k,
		       .result = {.key = k, .outcome = BT_OUTCOME_DONE, .detail = "fine"}});
}

static void ack(struct bt_ledger *l, struct bt_command_key k)
{
	put(l, (struct bt_ledger_entry){.kind = BT_LEDGER_ACKED, .key = k});
}

static enum bt_ledger_answer offer(struct bt_ledger *l, struct bt_command_key k, uint64_t token)
{
	return bt_ledger_offer(l, "shop", &k, token);
}

static void test_repeat_and_token(void **state)
{
	(void)state;
	struct bt_ledger *l = bt_ledger_new();
	struct bt_command_key k = key(7, 1, BT_DO, 1);
	assert_int_equal(offer(l, k, 3), BT_LEDGER_NEW);
	accept(l, 1, 3, k, BT_TASK_INSTANCE_START);
	assert_int_equal(offer(l, k, 3), BT_LEDGER_RUNNING);
	begin(l, k, 0);
	finish(l, k);
	assert_int_equal(offer(l, k, 3), BT_LEDGER_ANSWERED);
	/* A repeat with an old token is still a repeat; a new command with one is refused. */
	assert_int_equal(offer(l, k, 1), BT_LEDGER_ANSWERED);
	assert_int_equal(offer(l, key(7, 2, BT_DO, 1), 2), BT_LEDGER_STALE);
	assert_int_equal(offer(l, key(7, 2, BT_DO, 1), 4), BT_LEDGER_NEW);
	struct bt_command_key other = key(7, 2, BT_DO, 1);
	assert_int_equal(bt_ledger_offer(l, "blog", &other, 1), BT_LEDGER_NEW);
	/* The repeat after a takeover raises the token durably. */
	accept(l, 2, 9, k, BT_TASK_INSTANCE_START);
	assert_int_equal(bt_ledger_token(l, "shop"), 9);
	assert_int_equal(bt_ledger_cursor(l), 2);
	assert_string_equal(bt_ledger_result(l, &k)->detail, "fine");
	bt_ledger_free(l);
}

static void test_late_copies(void **state)
{
	(void)state;
	struct bt_ledger *l = bt_ledger_new();
	accept(l, 1, 3, key(7, 1, BT_UNDO, 1), BT_TASK_INSTANCE_START);
	assert_int_equal(offer(l, key(7, 1, BT_DO, 1), 3), BT_LEDGER_STALE);
	assert_int_equal(offer(l, key(7, 1, BT_UNDO, 2), 3), BT_LEDGER_NEW);
	accept(l, 2, 3, key(7, 2, BT_DO, 2), BT_TASK_INSTANCE_START);
	assert_int_equal(offer(l, key(7, 2, BT_DO, 1), 3), BT_LEDGER_STALE);
	assert_int_equal(offer(l, key(7, 2, BT_DO, 3), 3), BT_LEDGER_NEW);
	bt_ledger_free(l);
}

static void test_recover(void **state)
{
	(void)state;
	struct bt_ledger *l = bt_ledger_new();
	accept(l, 1, 3, key(7, 1, BT_DO, 1), BT_TASK_INSTANCE_START);
	accept(l, 2, 3, key(7, 2, BT_DO, 1), BT_TASK_INSTANCE_START);
	accept(l, 3, 3, key(7, 3, BT_DO, 1), BT_TASK_HEALTH_CHECK);
	accept(l, 4, 3, key(7, 4, BT_DO, 1), BT_TASK_HEALTH_CHECK);
	begin(l, key(7, 2, BT_DO, 1), 12);
	begin(l, key(7, 3, BT_DO, 1), 0);
	finish(l, key(7, 4, BT_DO, 1));
	struct bt_ledger_open *open;
	assert_int_equal(bt_ledger_recover(l, &open), 3);
	assert_int_equal(open[0].how, BT_RECOVER_RUN);
	assert_int_equal(open[1].how, BT_RECOVER_PROBE);
	assert_int_equal(open[1].prior.release, 12);
	assert_int_equal(open[2].how, BT_RECOVER_AGAIN);
	assert_string_equal(open[0].accepted.command, "{\"a\":1}");
	free(open);
	const struct bt_result **results;
	assert_int_equal(bt_ledger_unacked(l, &results), 1);
	assert_int_equal(results[0]->key.task, 4);
	free(results);
	ack(l, key(7, 4, BT_DO, 1));
	assert_int_equal(bt_ledger_unacked(l, &results), 0);
	free(results);
	struct bt_prior prior;
	assert_true(bt_ledger_prior(l, 7, 2, &prior));
	assert_int_equal(prior.release, 12);
	assert_false(bt_ledger_prior(l, 7, 1, &prior));
	bt_ledger_free(l);
}

/* Found by the simulator: with its acknowledged undo dropped, a do that had been given up looked as
 * if it had still to be run, in the middle of the service's next deployment. */
static void test_ended_deployment(void **state)
{
	(void)state;
	struct bt_ledger *l = bt_ledger_new();
	struct bt_ledger_open *open;
	accept(l, 1, 3, key(7, 1, BT_DO, 1), BT_TASK_INSTANCE_STOP);
	begin(l, key(7, 1, BT_DO, 1), 2);
	accept(l, 2, 3, key(7, 1, BT_UNDO, 1), BT_TASK_INSTANCE_STOP);
	begin(l, key(7, 1, BT_UNDO, 1), 2);
	finish(l, key(7, 1, BT_UNDO, 1));
	assert_int_equal(bt_ledger_recover(l, &open), 0);
	free(open);
	ack(l, key(7, 1, BT_UNDO, 1));
	accept(l, 3, 4, key(8, 1, BT_DO, 1), BT_TASK_HEALTH_CHECK);
	/* A late repeat from before does not bring the old deployment back. */
	accept(l, 4, 3, key(7, 1, BT_DO, 1), BT_TASK_INSTANCE_STOP);
	assert_int_equal(bt_ledger_recover(l, &open), 1);
	assert_int_equal(open[0].accepted.key.deployment, 8);
	free(open);
	finish(l, key(7, 1, BT_DO, 1)); /* it ran on meanwhile: that is still a result */
	bt_ledger_free(l);
}

static void emit(void *arg, const struct bt_ledger_entry *e)
{
	put(arg, *e);
}

static void test_compact(void **state)
{
	(void)state;
	struct bt_ledger *l = bt_ledger_new(), *copy = bt_ledger_new();
	put(l, (struct bt_ledger_entry){.kind = BT_LEDGER_STORE, .store = "old", .seq = 50});
	accept(l, 51, 3, key(7, 1, BT_DO, 1), BT_TASK_SWITCH);
	put(l, (struct bt_ledger_entry){.kind = BT_LEDGER_STORE, .store = "new", .seq = 4});
	assert_int_equal(bt_ledger_cursor(l), 4);
	begin(l, key(7, 1, BT_DO, 1), 5);
	finish(l, key(7, 1, BT_DO, 1));
	bt_ledger_compact(l, emit, copy);
	assert_int_equal(bt_ledger_cursor(copy), 4);
	assert_string_equal(bt_ledger_store(copy), "new");
	assert_int_equal(bt_ledger_token(copy, "shop"), 3);
	assert_int_equal(offer(copy, key(7, 1, BT_DO, 1), 3), BT_LEDGER_ANSWERED);
	/* The next deployment drops what was acknowledged, and only that. */
	ack(l, key(7, 1, BT_DO, 1));
	for (uint32_t i = 0; i < 100; i++)
		accept(l, 5 + i, 4, key(8, 1 + i, BT_DO, 1), BT_TASK_SWITCH);
	struct bt_command_key k = key(7, 1, BT_DO, 1);
	assert_null(bt_ledger_result(l, &k));
	assert_int_equal(offer(l, key(7, 1, BT_DO, 1), 3), BT_LEDGER_STALE);
	assert_int_equal(offer(l, key(8, 77, BT_DO, 1), 4), BT_LEDGER_RUNNING);
	bt_ledger_free(l);
	bt_ledger_free(copy);
}

static void test_broken_entries(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"{}",
		"{\"entry\":\"eaten\"}",
		"{\"entry\":\"begun\"}",
		"{\"entry\":\"begun\",\"key\":{\"deployment\":1,\"task\":1,\"verb\":\"do\","
		"\"attempt\":0},\"prior\":{\"known\":true}}",
		"{\"entry\":\"accepted\",\"seq\":-1,\"service\":\"a\",\"token\":1}",
		"{\"entry\":\"accepted\",\"seq\":1,\"service\":\"a\",\"token\":1,\"task\":\"Eat\"}",
	};
	for (size_t i = 0; i < BT_ARRAY_LEN(bad); i++) {
		BT_ARENA struct bt_arena *a = bt_arena_new();
		struct bt_err err = {0};
		BT_JSON json_t *j = NULL;
		struct bt_ledger_entry e;
		assert_int_equal(bt_json_parse(bad[i], strlen(bad[i]), 4096, &j, &err), 0);
		assert_int_equal(bt_ledger_entry_from_json(j, a, &e, &err), BT_E_PROTOCOL);
	}
	struct bt_ledger *l = bt_ledger_new();
	struct bt_ledger_entry e = {.kind = BT_LEDGER_BEGUN, .key = key(1, 1, BT_DO, 1)};
	assert_int_equal(bt_ledger_apply(l, &e, NULL), BT_E_CORRUPT);
	bt_ledger_free(l);
}

static void test_outbox(void **state)
{
	(void)state;
	struct bt_outbox *o = bt_outbox_new(10);
	for (uint32_t i = 1; i <= 40; i++) {
		struct bt_outbox_item item = {
			.seq = bt_outbox_next_seq(o), .key = key(1, i, BT_DO, 1), .json = "{}"};
		bt_outbox_append(o, &item);
		struct bt_command_key k = key(1, i / 2, BT_DO, 1);
		assert_int_equal(bt_outbox_settle(o, &k), i % 2 == 0);
	}
	const struct bt_outbox_item **items;
	assert_int_equal(bt_outbox_after(o, 0, 40, &items), 20);
	free(items);
	assert_int_equal(bt_outbox_after(o, 0, 5, &items), 5);
	assert_int_equal(items[0]->seq, 31);
	assert_int_equal(items[0]->key.task, 21);
	free(items);
	assert_int_equal(bt_outbox_after(o, 48, 100, &items), 2);
	assert_int_equal(items[1]->seq, 50);
	free(items);
	/* The same key again, after a takeover: one result settles both. */
	struct bt_outbox_item again = {
		.seq = bt_outbox_next_seq(o), .key = key(1, 40, BT_DO, 1), .json = "{}"};
	bt_outbox_append(o, &again);
	assert_true(bt_outbox_settle(o, &again.key));
	assert_int_equal(bt_outbox_after(o, 49, 100, &items), 0);
	free(items);
	bt_outbox_free(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_repeat_and_token),
		cmocka_unit_test(test_late_copies),
		cmocka_unit_test(test_recover),
		cmocka_unit_test(test_ended_deployment),
		cmocka_unit_test(test_compact),
		cmocka_unit_test(test_broken_entries),
		cmocka_unit_test(test_outbox),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
