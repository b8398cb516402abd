/* One try of a health check: asks once and says what came back. */
#pragma once
#include "base/str.h"
#include "driver/driver.h"

struct bt_health_probe;
/* healthy, and the answer in words: "200", "503 starting", "connection refused". */
typedef void (*bt_health_probe_fn)(void *arg, bool healthy, const char *answer);

/* done exactly once from the loop, unless cancelled. The target is borrowed until then. */
struct bt_health_probe *bt_health_probe_start(const struct bt_driver_env *env,
	const struct bt_health_target *t, bt_health_probe_fn done, void *arg);
struct bt_health_probe *bt_health_probe_cancel(struct bt_health_probe *p);
/* What is asked, in words: "GET http://127.0.0.1:8081/health". Appends. */
void bt_health_probe_words(const struct bt_health_target *t, struct bt_str *out);

/* Is this answer what was expected? 0, or 1 with the difference appended to why. Pure. */
int bt_health_judge(
	const struct bt_health *h, int status, const char *body, size_t n, struct bt_str *why);
