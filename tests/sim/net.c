/* Time, chance and the network. */
#include "sim.h"

#include <stdarg.h>

uint64_t rnd(struct sim *s)
{
	uint64_t z = (s->rng += 0x9e3779b97f4a7c15u); /* splitmix64 */
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

int64_t between(struct sim *s, int64_t lo, int64_t hi)
{
	return lo + (int64_t)(rnd(s) % (uint64_t)(hi - lo + 1));
}

bool chance(struct sim *s, uint32_t of_1000)
{
	return of_1000 && rnd(s) % 1000 < of_1000;
}

bool fault(struct sim *s, uint32_t of_1000, enum counter c)
{
	if (!s->storm || !chance(s, of_1000))
		return false;
	counters[c]++;
	s->faulted = true;
	trace(s, "%s", counter_words[c]);
	return true;
}

void trace(struct sim *s, const char *fmt, ...)
{
	if (!s->opt.verbose)
		return;
	va_list ap;
	va_start(ap, fmt);
	printf("%10.3f ", (double)s->now_ms / 1000);
	vprintf(fmt, ap);
	putchar('\n');
	va_end(ap);
}

static bool before(const struct ev *a, const struct ev *b)
{
	return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

void at(struct sim *s, int64_t ms, enum ev_kind kind, uint32_t stamp, uint16_t host, int64_t arg,
	void *p)
{
	if (s->n_heap == s->cap_heap) {
		s->cap_heap = s->cap_heap ? s->cap_heap * 2 : 64;
		s->heap = bt_realloc(s->heap, s->cap_heap * sizeof *s->heap);
	}
	struct ev e = {ms > s->now_ms ? ms : s->now_ms, s->order++, kind, stamp, host, arg, p};
	size_t i = s->n_heap++;
	while (i > 0 && before(&e, &s->heap[(i - 1) / 2])) {
		s->heap[i] = s->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	s->heap[i] = e;
}

bool next_event(struct sim *s, struct ev *ret)
{
	if (!s->n_heap)
		return false;
	*ret = s->heap[0];
	struct ev last = s->heap[--s->n_heap];
	size_t i = 0;
	for (;;) {
		size_t c = 2 * i + 1;
		if (c >= s->n_heap)
			break;
		if (c + 1 < s->n_heap && before(&s->heap[c + 1], &s->heap[c]))
			c++;
		if (!before(&s->heap[c], &last))
			break;
		s->heap[i] = s->heap[c];
		i = c;
	}
	if (s->n_heap)
		s->heap[i] = last;
	s->now_ms = ret->at_ms;
	return true;
}

void message(struct sim *s, enum ev_kind kind, uint16_t host, int64_t arg, void *p)
{
	if (s->agents[host].partition_until_ms > s->now_ms)
		return;
	if (fault(s, s->odds.lost, C_FAULT_MESSAGE_LOST))
		return;
	int64_t delay = between(s, 1, 20);
	if (fault(s, s->odds.late, C_FAULT_MESSAGE_LATE))
		delay = between(s, 500, 20000);
	at(s, s->now_ms + delay, kind, 0, host, arg, p);
	if (fault(s, s->odds.repeated, C_FAULT_MESSAGE_REPEATED))
		at(s, s->now_ms + between(s, 1, 5000), kind, 0, host, arg, p);
}
