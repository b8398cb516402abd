/* Any bytes as an agent's ledger file, which a crash may have torn: its lines are read up to the
 * first bad one, entries follow or are refused, and what is left can be recovered and compacted
 * into entries that rebuild it. */
#include "fuzz.h"

#include "agent/ledger_file.h"
#include "base/json.h"

#include <string.h>

static int each(void *arg, uint64_t n, const char *json, size_t len, struct bt_err *err)
{
	BT_ARENA struct bt_arena *a = bt_arena_new();
	BT_JSON json_t *j = NULL;
	struct bt_ledger_entry e;
	(void)n;
	int r = bt_json_parse(json, len, 1 << 20, &j, err);
	if (r == 0)
		r = bt_ledger_entry_from_json(j, a, &e, err);
	if (r == 0)
		r = bt_ledger_apply(arg, &e, err);
	return r;
}

static void again(void *arg, const struct bt_ledger_entry *e)
{
	BT_JSON json_t *j = bt_ledger_entry_to_json(e);
	struct bt_err err = {0};
	FUZZ_CHECK(j);
	FUZZ_CHECK(bt_ledger_apply(arg, e, &err) == 0);
}

/* Bytes as they are in a file; and, since no fuzzer guesses a checksum, each line of them as the
 * JSON of a good line. */
static void lines(const char *data, size_t size, struct bt_str *out)
{
	uint64_t n = 0;
	for (const char *p = data, *end = data + size; p < end;) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((nl ? nl : end) - p);
		BT_FREE char *json = bt_strndup(p, len);
		n++;
		bt_ledger_line_add(out, n, n - 1, json);
		p += len + 1;
	}
}

/* What a compaction keeps is what the next one keeps: nothing is lost by doing it again. */
static void compacted_twice(const struct bt_ledger *l)
{
	struct bt_ledger *once = bt_ledger_new(), *twice = bt_ledger_new();
	struct bt_ledger_open *a = NULL, *b = NULL;
	bt_ledger_compact(l, again, once);
	bt_ledger_compact(once, again, twice);
	size_t n = bt_ledger_recover(once, &a);
	FUZZ_CHECK(bt_ledger_recover(twice, &b) == n);
	for (size_t i = 0; i < n; i++)
		FUZZ_CHECK(bt_command_key_equal(&a[i].accepted.key, &b[i].accepted.key) &&
			   a[i].how == b[i].how);
	/* A cursor belongs to a store; without one it is as good as none. */
	FUZZ_CHECK(!bt_ledger_store(l) || bt_ledger_cursor(twice) == bt_ledger_cursor(l));
	free(a);
	free(b);
	bt_ledger_free(once);
	bt_ledger_free(twice);
}

static void read_file(const char *data, size_t size)
{
	struct bt_ledger *l = bt_ledger_new();
	struct bt_err err = {0};
	size_t good = 0;
	if (bt_ledger_scan(data, size, each, l, &good, &err) < 0)
		FUZZ_CHECK(err.text[0]);
	FUZZ_CHECK(good <= size);
	compacted_twice(l);
	bt_ledger_free(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	BT_STR struct bt_str text = {0};
	read_file((const char *)data, size);
	lines((const char *)data, size, &text);
	read_file(bt_str_get(&text), text.len);
	return 0;
}
