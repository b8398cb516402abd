/* When an outside checker believes what it is told.
 *
 * It asks every `interval` and needs `fall` bad answers in a row, or `rise` good ones. The first of
 * them comes up to one interval after the change, so after interval × fall it has had them all; but
 * a checker that is a little late has not, and whoever is stopped then fails a request. So where it
 * is heard its answers are counted, too. The time holds beside the count because several checkers
 * may ask, and their answers add up sooner than any of them believes.
 *
 * A checker that stopped asking (taken down, or it watches only what is up) is not waited for: it
 * was heard before, and nothing came for two intervals. One that was never heard may be there all
 * the same, behind a path that it does not reach yet: the time alone counts. */
#include "driver/l4_rotation.h"

static int64_t smaller(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

void bt_rotation_changed(struct bt_rotation_watch *w, bool in, int64_t now_ms)
{
	w->in = in;
	w->changed_ms = now_ms;
	w->said = 0;
	w->met_ms = 0;
}

static int64_t needed(const struct bt_rotation_watch *w, const struct bt_rotation *r)
{
	return w->in ? r->rise : r->fall;
}

void bt_rotation_asked(struct bt_rotation_watch *w, const struct bt_rotation *r, int64_t now_ms)
{
	w->ever = true;
	w->last_ms = now_ms;
	if (++w->said == needed(w, r))
		w->met_ms = now_ms;
}

/* An answer is on its way for a moment, and what it changes takes another one. */
static int64_t grace_ms(const struct bt_rotation *r)
{
	return larger(20, smaller(r->interval_ms / 4, 500));
}

int64_t bt_rotation_wait_ms(
	const struct bt_rotation_watch *w, const struct bt_rotation *r, bool deaf, int64_t now_ms)
{
	int64_t interval = r->interval_ms;
	/* to come in, the first good answer may be given at once */
	int64_t by_time = w->changed_ms + interval * (w->in ? r->rise - 1 : r->fall);
	int64_t end;
	if (!w->ever || (deaf && !w->in)) {
		end = w->changed_ms + interval * larger(needed(w, r), r->fall);
	} else if (w->said >= needed(w, r)) {
		end = larger(by_time, w->met_ms);
	} else { /* it is listened for until it has stopped */
		end = larger(w->changed_ms, w->last_ms) + 2 * interval;
		if (w->in && w->said == 0)
			end = larger(end, w->changed_ms + interval * r->fall);
	}
	end += grace_ms(r);
	return now_ms >= end ? 0 : end - now_ms;
}
