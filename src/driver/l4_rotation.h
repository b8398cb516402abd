/* What the parts of the rotation family share.
 *   l4_rotation.c       who is in, and the two verbs    l4_rotation_door.c  what listens
 *   l4_rotation_watch.c when the outside checker believes it */
#pragma once
#include "driver/driver.h"
#include <stdbool.h>

/* ---- does it believe? (pure) ---- */

/* What was said since the last change, and who heard it. Times are bt_clock_boot_ms. */
struct bt_rotation_watch {
	bool in;
	int64_t changed_ms;
	bool ever;	      /* anybody ever asked */
	int64_t last_ms;      /* … the last time */
	int64_t said, met_ms; /* answers since the change; when they were as many as it needs */
};
void bt_rotation_changed(struct bt_rotation_watch *w, bool in, int64_t now_ms);
void bt_rotation_asked(struct bt_rotation_watch *w, const struct bt_rotation *r, int64_t now_ms);
/* 0: the checker believes what it is told, or has stopped asking; else how long to wait before
 * this is asked again, in ms. `deaf`: nobody can be heard while it is out (a closed port). */
int64_t bt_rotation_wait_ms(
	const struct bt_rotation_watch *w, const struct bt_rotation *r, bool deaf, int64_t now_ms);

/* ---- a door: what listens ---- */

struct bt_door_answer {
	int status;	     /* 200, 503, 404 */
	struct bt_str *body; /* to be filled */
};
/* What a checker is told at the path; NULL: it only connected, and body is not sent. */
typedef void (*bt_door_fn)(void *arg, const char *path, struct bt_door_answer *answer);
struct bt_door;
/* listen: PORT or ADDRESS:PORT; a port alone is every address of the host. */
int bt_door_open(struct event_base *base, const char *listen, bool tcp, bt_door_fn fn, void *arg,
	struct bt_door **ret, struct bt_err *err);
struct bt_door *bt_door_close(struct bt_door *d); /* NULL is fine; returns NULL */
