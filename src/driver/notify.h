/* One POST to somebody outside, sent at most once. */
#pragma once
#include "base/str.h"
#include "driver/driver.h"

struct bt_notify_post {
	const char *name;     /* for people: the entry of `notify` */
	const char *url;      /* secrets in place; never in a text of this driver */
	const char *delivery; /* X-Baton-Delivery: the same for a message that comes twice */
	const char *body;     /* JSON */
	int64_t timeout_ms;
};
/* result 0: answered with 2xx. < 0: it was not sent, or the answer was another one (a redirect is
 * not followed). 1: it may or may not have arrived. err has the line for people in both. */
struct bt_op *bt_notify_send(const struct bt_driver_env *env, const struct bt_notify_post *post,
	bt_done_fn done, void *arg);

/* The template with each ${NAME} replaced. BT_E_REFUSED: a secret that did not come along, or what
 * comes out is no http(s) URL; neither the value nor the URL is in the text. */
int bt_notify_url(const char *template, const struct bt_kv *secrets, size_t n_secrets,
	struct bt_str *out, struct bt_err *err);
