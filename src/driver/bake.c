#include "driver/bake.h"

#include "base/clock.h"

#include <stdio.h>

#define LOOK_MS 250
#define MIN_ANSWERS 20

void bt_bake_begin(struct bt_bake *b, struct event_base *base, const struct bt_service *service,
	int64_t bake_ms, event_callback_fn look)
{
	b->max_share = service->deploy.bake_max_5xx;
	b->end_ms = bt_clock_boot_ms() + bake_ms;
	b->timer = event_new(base, -1, 0, look, b);
	bt_timer_in(b->timer, 0);
}

void bt_bake_end(struct bt_bake *b, int result, const struct bt_err *err)
{
	b->done(b->arg, result, err);
	b->op.cancel(&b->op);
}

void bt_bake_go_on(struct bt_bake *b)
{
	struct bt_err none = {0};
	int64_t left = b->end_ms - bt_clock_boot_ms();
	if (left <= 0)
		bt_bake_end(b, 0, &none);
	else
		bt_timer_in(b->timer, left < LOOK_MS ? left : LOOK_MS);
}

void bt_bake_counted(struct bt_bake *b, const char *who, int64_t all, int64_t failed)
{
	struct bt_err bad = {0};
	char line[160];
	snprintf(line, sizeof line, "%lld answers, %lld of them 5xx", (long long)all,
		(long long)failed);
	bt_progress_say(&b->progress, line);
	if (all < MIN_ANSWERS || (double)failed <= b->max_share * (double)all) {
		bt_bake_go_on(b);
		return;
	}
	bt_err_set(&bad, BT_E_FAILED,
		"%s answered %lld of %lld requests with 5xx, more than %.4g%% (bake_max_5xx)", who,
		(long long)failed, (long long)all, 100 * b->max_share);
	bt_bake_end(b, bad.code, &bad);
}
