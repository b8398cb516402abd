#include "base/mem.h"

#include <errno.h>
#include <stdalign.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void out_of_memory(void)
{
	static const char line[] = "baton: out of memory\n";
	if (write(2, line, sizeof line - 1) < 0) {
		/* nowhere left to say it */
	}
	abort();
}

void *bt_malloc(size_t size)
{
	void *p = malloc(size ? size : 1);
	if (!p)
		out_of_memory();
	return p;
}

void *bt_calloc(size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);
	if (!p)
		out_of_memory();
	return p;
}

void *bt_realloc(void *p, size_t size)
{
	p = realloc(p, size ? size : 1);
	if (!p)
		out_of_memory();
	return p;
}

char *bt_strdup(const char *s)
{
	return s ? bt_strndup(s, strlen(s)) : NULL;
}

char *bt_strndup(const char *s, size_t n)
{
	if (!s)
		return NULL;
	n = strnlen(s, n);
	char *p = bt_malloc(n + 1);
	memcpy(p, s, n);
	p[n] = 0;
	return p;
}

char *bt_asprintf(const char *fmt, ...)
{
	char *p = NULL;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&p, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return p;
}

/* Chunks in a list; a large object gets a chunk of its own. */
struct chunk {
	struct chunk *next;
	size_t used, size;
	alignas(16) char data[];
};

struct bt_arena {
	struct chunk *head;
};

enum { CHUNK = 4096 - sizeof(struct chunk) };

struct bt_arena *bt_arena_new(void)
{
	return bt_calloc(1, sizeof(struct bt_arena));
}

struct bt_arena *bt_arena_free(struct bt_arena *a)
{
	if (!a)
		return NULL;
	for (struct chunk *c = a->head, *next; c; c = next) {
		next = c->next;
		free(c);
	}
	free(a);
	return NULL;
}

void bt_arena_adopt(struct bt_arena *to, struct bt_arena *from)
{
	struct chunk **tail = &to->head;
	while (*tail)
		tail = &(*tail)->next;
	*tail = from->head;
	free(from);
}

static struct chunk *chunk_new(size_t size)
{
	struct chunk *c = bt_malloc(sizeof *c + size);
	c->next = NULL;
	c->used = 0;
	c->size = size;
	return c;
}

static void *take(struct bt_arena *a, size_t size)
{
	if (size > SIZE_MAX / 2)
		out_of_memory();
	size = (size + 15) & ~(size_t)15;
	struct chunk *c = a->head;
	if (!c || c->size - c->used < size) {
		c = chunk_new(size > CHUNK ? size : (size_t)CHUNK);
		c->next = a->head;
		a->head = c;
	}
	void *p = c->data + c->used;
	c->used += size;
	return p;
}

void *bt_arena_alloc(struct bt_arena *a, size_t size)
{
	return memset(take(a, size), 0, size);
}

void *bt_arena_memdup(struct bt_arena *a, const void *p, size_t size)
{
	void *copy = take(a, size);
	if (size)
		memcpy(copy, p, size);
	return copy;
}

char *bt_arena_strndup(struct bt_arena *a, const char *s, size_t n)
{
	if (!s)
		return NULL;
	n = strnlen(s, n);
	char *p = bt_arena_alloc(a, n + 1);
	memcpy(p, s, n);
	return p;
}

char *bt_arena_strdup(struct bt_arena *a, const char *s)
{
	return s ? bt_arena_strndup(a, s, strlen(s)) : NULL;
}

char *bt_arena_vprintf(struct bt_arena *a, const char *fmt, va_list ap)
{
	va_list again;
	va_copy(again, ap);
	int n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (n < 0)
		out_of_memory();
	char *p = bt_arena_alloc(a, (size_t)n + 1);
	vsnprintf(p, (size_t)n + 1, fmt, ap);
	return p;
}

char *bt_arena_printf(struct bt_arena *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	char *p = bt_arena_vprintf(a, fmt, ap);
	va_end(ap);
	return p;
}

void bt_cleanup_free(void *p)
{
	free(*(void **)p);
}

void bt_cleanup_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}

void bt_cleanup_arena(struct bt_arena **a)
{
	bt_arena_free(*a);
}
