/* What a host's file says of bundles: which revision runs in a slot, and when nobody can tell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"
#include "driver/bundle_state.h"

#include <stdio.h>
#include <stdlib.h>

struct place {
	char dir[64];
	struct bt_arena *arena;
};

static int setup(void **state)
{
	struct place *p = bt_calloc(1, sizeof *p);
	snprintf(p->dir, sizeof p->dir, "/tmp/baton-bundle-XXXXXX");
	*state = p;
	p->arena = bt_arena_new();
	return mkdtemp(p->dir) ? 0 : -1;
}

static int teardown(void **state)
{
	struct place *p = *state;
	int r = bt_fs_remove_tree(p->dir, NULL);
	bt_arena_free(p->arena);
	free(p);
	return r;
}

static struct bt_bundle_request request(uint32_t release, const char *const *slots, size_t n)
{
	return (struct bt_bundle_request){.service = "shop",
		.version = "v",
		.release = release,
		.slots = slots,
		.n_slots = n};
}

static struct bt_bundle_last last(struct place *p, const char *slot)
{
	struct bt_bundle_state s;
	struct bt_err err = {0};
	assert_int_equal(bt_bundle_state_read(p->dir, "shop", p->arena, &s, &err), 0);
	const struct bt_bundle_last *found = bt_bundle_last(&s, slot);
	return found ? *found : (struct bt_bundle_last){0};
}

static void which_runs(void **state)
{
	struct place *p = *state;
	static const char *const blue[] = {"blue"}, *const green[] = {"green"};
	struct bt_bundle_request one = request(1, blue, 1), two = request(2, green, 1),
				 three = request(3, blue, 1);
	struct bt_err err = {0};
	assert_int_equal(last(p, "blue").release, 0);
	assert_int_equal(bt_bundle_state_begin(p->dir, &one, &err), 0);
	assert_int_equal(bt_bundle_state_end(p->dir, &one, &err), 0);
	assert_int_equal(last(p, "blue").release, 1);
	assert_false(last(p, "blue").started);
	assert_int_equal(bt_bundle_started(p->dir, "shop", blue, 1, &err), 0);
	assert_true(last(p, "blue").started);

	/* Its files put there again: it still runs, also when that is cut short. */
	assert_int_equal(bt_bundle_state_begin(p->dir, &one, &err), 0);
	assert_false(last(p, "blue").cut_short);
	assert_int_equal(bt_bundle_state_end(p->dir, &one, &err), 0);
	assert_true(last(p, "blue").started);

	/* What is installed for another slot says nothing of this one. */
	assert_int_equal(bt_bundle_state_begin(p->dir, &two, &err), 0);
	assert_false(last(p, "blue").cut_short);
	assert_int_equal(bt_bundle_state_end(p->dir, &two, &err), 0);
	assert_true(last(p, "blue").started);
	assert_false(last(p, "green").started);

	/* Another revision for the slot: nobody can tell before it was started. */
	assert_int_equal(bt_bundle_state_begin(p->dir, &three, &err), 0);
	assert_true(last(p, "blue").cut_short);
	assert_int_equal(last(p, "blue").release, 1);
	assert_int_equal(bt_bundle_state_end(p->dir, &three, &err), 0);
	assert_false(last(p, "blue").cut_short);
	assert_false(last(p, "blue").started);
}

/* A file that says nothing of starts or slots is believed as it was. */
static void older_file(void **state)
{
	struct place *p = *state;
	struct bt_err err = {0};
	BT_FREE char *dir = bt_bundle_dir(p->dir, "shop");
	BT_FREE char *path = bt_asprintf("%s/state.json", dir);
	static const char text[] =
		"{\"version\":1,\"installing\":2,\"slots\":{\"blue\":{\"release\":1,\"version\":"
		"\"v1\",\"at\":5}}}";
	assert_int_equal(bt_fs_mkdirs(dir, 0700, &err), 0);
	assert_int_equal(bt_fs_write_atomic(path, text, sizeof text - 1, 0600, &err), 0);
	assert_true(last(p, "blue").started);
	assert_true(last(p, "blue").cut_short);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(which_runs, setup, teardown),
		cmocka_unit_test_setup_teardown(older_file, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
