/* What an operation of a driver answered, for tests that wait for one on a loop. */
#pragma once
#include "driver/driver.h"

struct answer {
	bool called;
	int result;
	struct bt_err err;
	char progress[8192];
};
extern struct answer answer;

void on_done(void *arg, int result, const struct bt_err *err); /* a bt_done_fn */
void on_progress(void *arg, const char *line);
void on_tick(evutil_socket_t fd, short what, void *arg); /* does nothing: it turns a loop */
/* Runs the loop until the fact holds; false: not within limit_ms. */
bool answer_until(struct event_base *base, bool (*fact)(void), int64_t limit_ms);
bool answer_called(void);
