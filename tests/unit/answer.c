#include "answer.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

struct answer answer;

void on_done(void *arg, int result, const struct bt_err *err)
{
	(void)arg;
	answer.called = true;
	answer.result = result;
	answer.err = err ? *err : (struct bt_err){0};
}

void on_progress(void *arg, const char *line)
{
	(void)arg;
	size_t n = strlen(answer.progress);
	snprintf(answer.progress + n, sizeof answer.progress - n, "%s\n", line);
}

void on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

bool answer_until(struct event_base *base, bool (*fact)(void), int64_t limit_ms)
{
	int64_t end = bt_clock_boot_ms() + limit_ms;
	struct event *tick = event_new(base, -1, EV_PERSIST, on_tick, NULL);
	event_add(tick, &(struct timeval){0, 10000});
	bool held;
	while (!(held = fact()) && bt_clock_boot_ms() < end)
		event_base_loop(base, EVLOOP_ONCE);
	event_free(tick);
	return held;
}

bool answer_called(void)
{
	return answer.called;
}
