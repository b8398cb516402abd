/* What the parts of the http family share.
 *   l4_http.c        the two verbs        l4_http_call.c   one call, with its repeats
 *   l4_http_answer.c what an answer says */
#pragma once
#include "base/str.h"
#include "driver/driver.h"
#include "net/http_client.h"

#define BT_API_ANSWER_MAX (1 << 20)

/* ---- an answer (pure) ---- */

struct bt_api_state {
	bool in;
	uint32_t connections; /* where the config has a path of them */
};
/* What the answer of `status` says. BT_E_FAILED where it is no JSON, where a path is missing (the
 * text has the keys that are there), or where a value is no scalar, or no count. */
int bt_api_read_state(const struct bt_appliance *a, const char *body, size_t n,
	struct bt_api_state *ret, struct bt_err *err);

/* ---- secrets ---- */

/* The value of a header with its ${NAME}s replaced. BT_E_NOTFOUND: one is not known. */
int bt_api_header(const struct bt_driver_env *env, const struct bt_service *s, const char *value,
	struct bt_str *out, struct bt_err *err);
/* Takes the values of all secrets out of the text, which may have come from the API. */
void bt_api_hide(const struct bt_driver_env *env, const struct bt_service *s, struct bt_err *err);

/* ---- a call ---- */

enum bt_api_verb { BT_API_STATUS, BT_API_ON, BT_API_OFF };
struct bt_api_request {
	const struct bt_service *service;
	const struct bt_pool_member *member;
	enum bt_api_verb verb;
	int64_t until_ms;	 /* bt_clock_boot_ms after which nothing is repeated; 0: none */
	bt_progress_fn progress; /* told of each repeat; may be NULL */
	void *progress_arg;
};
struct bt_api_try;
/* 0: the API answered 2xx, with this body (borrowed during the call). BT_E_UNREACHABLE and
 * BT_E_TIMEOUT: it did not answer at all, not even after `retries` repeats; BT_E_AUTH: 401 or 403;
 * BT_E_FAILED: another status; BT_E_NOTFOUND: a placeholder or a secret is not known, nothing was
 * asked. The text begins with what was asked: "turn off was1/a: …". */
typedef void (*bt_api_fn)(
	void *arg, int result, const char *body, size_t n, const struct bt_err *err);
/* done exactly once from the loop, unless cancelled. The request's members are borrowed. */
struct bt_api_try *bt_api_start(const struct bt_driver_env *env, const struct bt_api_request *rq,
	bt_api_fn done, void *arg);
struct bt_api_try *bt_api_cancel(struct bt_api_try *t); /* NULL is fine; returns NULL */
