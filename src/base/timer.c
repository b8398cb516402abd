#include "base/loop.h"

void bt_timer_in(struct event *timer, int64_t ms)
{
	struct timeval in = {0};
	if (ms > 0)
		in = (struct timeval){ms / 1000, ms % 1000 * 1000};
	event_add(timer, &in);
}
