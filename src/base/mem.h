/* Memory: allocation that does not fail, cleanup attributes, and arenas.
 *
 * Out of memory ends the process with one line: every baton process is built to be killed at
 * any instant and to resume, so that path is the tested one and a second, untested one for
 * half-built objects is not worth having. Sizes that come from outside are bounded before
 * they reach an allocation.
 *
 * An arena owns everything that belongs to one object (a config, a plan): members are plain
 * borrowed pointers and one free ends them all.
 */
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

void *bt_malloc(size_t size);		/* not zeroed; never NULL */
void *bt_calloc(size_t n, size_t size); /* zeroed; never NULL; overflow ends the process */
void *bt_realloc(void *p, size_t size);
char *bt_strdup(const char *s); /* NULL gives NULL */
char *bt_strndup(const char *s, size_t n);
char *bt_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

struct bt_arena;
struct bt_arena *bt_arena_new(void);
struct bt_arena *bt_arena_free(struct bt_arena *a); /* NULL is fine; returns NULL */
void bt_arena_adopt(
	struct bt_arena *to, struct bt_arena *from);	  /* from's memory lives and ends with to */
void *bt_arena_alloc(struct bt_arena *a, size_t size);	  /* zeroed, aligned to 16 */
char *bt_arena_strdup(struct bt_arena *a, const char *s); /* NULL gives NULL */
char *bt_arena_strndup(struct bt_arena *a, const char *s, size_t n);
char *bt_arena_printf(struct bt_arena *a, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
char *bt_arena_vprintf(struct bt_arena *a, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
void *bt_arena_memdup(struct bt_arena *a, const void *p, size_t size);
#define BT_ARENA_NEW(a, type) ((type *)bt_arena_alloc((a), sizeof(type)))
#define BT_ARENA_ARRAY(a, type, n) ((type *)bt_arena_alloc((a), sizeof(type) * (n)))

void bt_cleanup_free(void *p);	/* for char *, any malloc'ed pointer */
void bt_cleanup_close(int *fd); /* closes fd >= 0, keeps errno */
void bt_cleanup_arena(struct bt_arena **a);
#define BT_FREE __attribute__((cleanup(bt_cleanup_free), unused))
#define BT_CLOSE __attribute__((cleanup(bt_cleanup_close), unused))
#define BT_ARENA __attribute__((cleanup(bt_cleanup_arena), unused))
#define BT_STEAL(p)                                                                                \
	__extension__({                                                                            \
		__typeof__(p) stolen_ = (p);                                                       \
		(p) = NULL;                                                                        \
		stolen_;                                                                           \
	})
#define BT_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
