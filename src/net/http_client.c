/* libcurl's multi_socket interface driven by libevent.
 *
 * Three rules keep callers safe:
 *  - a call is handed to libcurl by the loop (the `kick` event), never inside bt_http_start, so a
 *    caller may start calls from any callback and has its pointer before anything happens;
 *  - `done` runs outside of libcurl, from drain(), with the handle already taken out of the multi;
 *  - bt_http_cancel inside a libcurl callback (depth > 0) only marks the call: no callback of it
 *    runs any more and its body is not read again; the kick takes it out later. */
#include "net/http_client.h"

#include "base/mem.h"
#include "base/str.h"

#include <assert.h>
#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { DEFAULT_CONNECT_MS = 5000, DEFAULT_MAX_BODY = 1 << 20, MAX_CONNECTION_S = 3600 };

struct bt_http_client {
	struct event_base *base;
	CURLM *multi;
	struct event *timer, *kick;
	struct bt_http_call *calls; /* all, doubly linked */
	int depth;		    /* > 0 inside libcurl */
	char *no_proxy;
};

struct bt_http_call {
	struct bt_http_call *next, **link;
	struct bt_http_client *client;
	CURL *easy;
	struct curl_slist *headers;
	char reason[CURL_ERROR_SIZE];
	char *where; /* "GET http://host/path", for error lines */
	char *pin_sha256;
	const char *body;
	size_t body_len, body_at, max_body;
	int64_t sent, received;
	struct bt_str answer;
	bool added, cancelled, finishing, too_large, refused, began;
	bool (*on_data)(void *arg, const void *data, size_t n);
	void (*on_headers)(void *arg, int status);
	void (*on_progress)(void *arg, int64_t sent, int64_t received);
	void (*done)(void *arg, const struct bt_http_response *, const struct bt_err *);
	void *arg;
};

static void call_free(struct bt_http_call *call)
{
	struct bt_http_client *c = call->client;
	if (call->added) {
		c->depth++;
		curl_multi_remove_handle(c->multi, call->easy);
		c->depth--;
	}
	*call->link = call->next;
	if (call->next)
		call->next->link = call->link;
	curl_easy_cleanup(call->easy);
	curl_slist_free_all(call->headers);
	bt_str_done(&call->answer);
	free(call->pin_sha256);
	free(call->where);
	free(call);
}

/* ---- libcurl's callbacks for one transfer ---- */

static size_t on_write(char *data, size_t size, size_t n, void *arg)
{
	struct bt_http_call *call = arg;
	n *= size;
	if (call->cancelled)
		return n + 1;
	if (call->on_data) {
		if (call->on_data(call->arg, data, n))
			return call->cancelled ? n + 1 : n;
		call->refused = true;
		return n + 1;
	}
	if (n > call->max_body - call->answer.len) {
		call->too_large = true;
		return n + 1;
	}
	bt_str_addn(&call->answer, data, n);
	return n;
}

static size_t on_header(char *line, size_t size, size_t n, void *arg)
{
	struct bt_http_call *call = arg;
	long status = 0;
	n *= size;
	if (call->cancelled)
		return n + 1;
	bool end = n > 0 && (line[0] == '\r' || line[0] == '\n');
	if (end && call->on_headers) {
		curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
		if (status >= 200)
			call->on_headers(call->arg, (int)status);
	}
	return call->cancelled ? n + 1 : n;
}

static size_t on_read(char *out, size_t size, size_t n, void *arg)
{
	struct bt_http_call *call = arg;
	if (call->cancelled)
		return CURL_READFUNC_ABORT;
	n *= size;
	if (n > call->body_len - call->body_at)
		n = call->body_len - call->body_at;
	if (n)
		memcpy(out, call->body + call->body_at, n);
	call->body_at += n;
	call->began = true;
	return n;
}

/* libcurl rewinds when a kept connection turns out to be closed and it sends again on a new one. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
	struct bt_http_call *call = arg;
	if (call->cancelled || origin != SEEK_SET || offset < 0 || (size_t)offset > call->body_len)
		return CURL_SEEKFUNC_FAIL;
	call->body_at = (size_t)offset;
	return CURL_SEEKFUNC_OK;
}

static int on_transfer_info(
	void *arg, curl_off_t dltotal, curl_off_t dlnow, curl_off_t ultotal, curl_off_t ulnow)
{
	struct bt_http_call *call = arg;
	(void)dltotal;
	(void)ultotal;
	if (!call->cancelled && call->on_progress &&
		(ulnow != call->sent || dlnow != call->received)) {
		call->sent = ulnow;
		call->received = dlnow;
		call->on_progress(call->arg, ulnow, dlnow);
	}
	return call->cancelled;
}

/* ---- joining: the CA is known by its fingerprint only ---- */

static bool fits_pin(X509 *cert, const char *pin)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int n = 0;
	char hex[2 * EVP_MAX_MD_SIZE + 1];
	if (X509_digest(cert, EVP_sha256(), digest, &n) != 1)
		return false;
	bt_hex(digest, n, hex);
	return strcasecmp(hex, pin) == 0;
}

/* The leaf must verify for the purpose of a TLS server with `ca` as the only trusted root. */
static bool verifies_under(X509_STORE_CTX *presented, X509 *ca)
{
	bool good = false;
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *ctx = X509_STORE_CTX_new();
	if (store && ctx && X509_STORE_add_cert(store, ca) == 1 &&
		X509_STORE_CTX_init(ctx, store, X509_STORE_CTX_get0_cert(presented),
			X509_STORE_CTX_get0_untrusted(presented)) == 1 &&
		X509_STORE_CTX_set_default(ctx, "ssl_server") == 1)
		good = X509_verify_cert(ctx) == 1;
	X509_STORE_CTX_free(ctx);
	X509_STORE_free(store);
	return good;
}

static int on_verify_pinned(X509_STORE_CTX *ctx, void *arg)
{
	struct bt_http_call *call = arg;
	STACK_OF(X509) *chain = X509_STORE_CTX_get0_untrusted(ctx);
	for (int i = 0; i < sk_X509_num(chain); i++)
		if (fits_pin(sk_X509_value(chain, i), call->pin_sha256) &&
			verifies_under(ctx, sk_X509_value(chain, i))) {
			X509_STORE_CTX_set_error(ctx, X509_V_OK);
			return 1;
		}
	X509_STORE_CTX_set_error(ctx, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
	return 0;
}

static CURLcode on_ssl_ctx(CURL *easy, void *ssl_ctx, void *arg)
{
	(void)easy;
	SSL_CTX_set_cert_verify_callback(ssl_ctx, on_verify_pinned, arg);
	return CURLE_OK;
}

/* ---- starting ---- */

static void set_tls(struct bt_http_call *call, const struct bt_http_request *rq)
{
	const struct bt_tls_identity *tls = rq->tls;
	CURL *e = call->easy;
	curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (rq->insecure) {
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(e, CURLOPT_SSL_VERIFYHOST, 0L);
	}
	if (!tls)
		return;
	if (tls->ca_file) {
		curl_easy_setopt(e, CURLOPT_CAINFO, tls->ca_file);
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
		curl_easy_setopt(e, CURLOPT_CA_CACHE_TIMEOUT, 0L);
	} else if (tls->pin_sha256) {
		/* Neither the connection nor its session may serve a call without the pin. */
		call->pin_sha256 = bt_strdup(tls->pin_sha256);
		curl_easy_setopt(e, CURLOPT_CAINFO, NULL);
		curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
		curl_easy_setopt(e, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
		curl_easy_setopt(e, CURLOPT_SSL_CTX_DATA, call);
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
		curl_easy_setopt(e, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	}
	if (tls->cert_file)
		curl_easy_setopt(e, CURLOPT_SSLCERT, tls->cert_file);
	if (tls->key_file)
		curl_easy_setopt(e, CURLOPT_SSLKEY, tls->key_file);
}

static void set_method(struct bt_http_call *call, const struct bt_http_request *rq)
{
	CURL *e = call->easy;
	const char *method = rq->method ? rq->method : "GET";
	bool has_body = rq->body_len > 0 || bt_streq(method, "POST") || bt_streq(method, "PUT") ||
			bt_streq(method, "PATCH");
	if (has_body) {
		curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)rq->body_len);
		curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
		curl_easy_setopt(e, CURLOPT_READDATA, call);
		curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_seek);
		curl_easy_setopt(e, CURLOPT_SEEKDATA, call);
		/* no waiting for "100 Continue" */
		call->headers = curl_slist_append(call->headers, "Expect:");
	}
	if (bt_streq(method, "HEAD"))
		curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	else
		curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, method);
}

static void set_headers(struct bt_http_call *call, const struct bt_http_request *rq)
{
	for (size_t i = 0; i < rq->n_headers; i++) {
		/* "Name;" is libcurl's way to send a header without a value */
		const char *value = rq->headers[i].value;
		BT_FREE char *line = *value ? bt_asprintf("%s: %s", rq->headers[i].name, value)
					    : bt_asprintf("%s;", rq->headers[i].name);
		call->headers = curl_slist_append(call->headers, line);
	}
	if (call->headers)
		curl_easy_setopt(call->easy, CURLOPT_HTTPHEADER, call->headers);
}

static void set_route(struct bt_http_call *call, const struct bt_http_request *rq)
{
	CURL *e = call->easy;
	curl_easy_setopt(e, CURLOPT_URL, rq->url);
	curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
	/* a renewed client certificate is in use an hour later at the latest */
	curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, (long)MAX_CONNECTION_S);
	curl_easy_setopt(e, CURLOPT_NOPROXY, call->client->no_proxy);
	curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)rq->timeout_ms);
	curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
		(long)(rq->connect_timeout_ms ? rq->connect_timeout_ms : DEFAULT_CONNECT_MS));
	if (rq->unix_socket) {
		curl_easy_setopt(e, CURLOPT_UNIX_SOCKET_PATH, rq->unix_socket);
		curl_easy_setopt(e, CURLOPT_PROXY, "");
	}
	if (rq->no_reuse) {
		curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, 1L);
		curl_easy_setopt(e, CURLOPT_FORBID_REUSE, 1L);
	}
}

static void set_callbacks(struct bt_http_call *call)
{
	CURL *e = call->easy;
	curl_easy_setopt(e, CURLOPT_PRIVATE, call);
	curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->reason);
	curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_write);
	curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
	curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
	curl_easy_setopt(e, CURLOPT_XFERINFOFUNCTION, on_transfer_info);
	curl_easy_setopt(e, CURLOPT_XFERINFODATA, call);
	curl_easy_setopt(e, CURLOPT_NOPROGRESS, 0L);
}

struct bt_http_call *bt_http_start(struct bt_http_client *c, const struct bt_http_request *rq,
	void (*done)(void *arg, const struct bt_http_response *, const struct bt_err *err),
	void *arg)
{
	struct bt_http_call *call = bt_calloc(1, sizeof *call);
	call->client = c;
	call->easy = curl_easy_init();
	if (!call->easy)
		abort();
	call->body = rq->body;
	call->body_len = rq->body_len;
	call->max_body = rq->max_body ? rq->max_body : DEFAULT_MAX_BODY;
	call->on_data = rq->on_data;
	call->on_headers = rq->on_headers;
	call->on_progress = rq->on_progress;
	call->done = done;
	call->arg = arg;
	/* without the query: it may carry what does not belong in a log */
	call->where = bt_asprintf("%s %s%.*s", rq->method ? rq->method : "GET",
		rq->unix_socket ? rq->unix_socket : "", (int)strcspn(rq->url, "?"), rq->url);
	set_callbacks(call);
	set_route(call, rq);
	set_tls(call, rq);
	set_method(call, rq);
	set_headers(call, rq);
	call->next = c->calls;
	call->link = &c->calls;
	if (c->calls)
		c->calls->link = &call->next;
	c->calls = call;
	event_active(c->kick, EV_TIMEOUT, 0);
	return call;
}

struct bt_http_call *bt_http_cancel(struct bt_http_call *call)
{
	if (!call || call->finishing || call->cancelled)
		return NULL;
	call->cancelled = true;
	if (call->client->depth == 0)
		call_free(call);
	else
		event_active(call->client->kick, EV_TIMEOUT, 0);
	return NULL;
}

/* ---- ending ---- */

static const char *response_header(const struct bt_http_response *r, const char *name)
{
	const struct bt_http_call *call = r->priv;
	struct curl_header *h = NULL;
	if (curl_easy_header(call->easy, name, 0, CURLH_HEADER, -1, &h) != CURLHE_OK)
		return NULL;
	return h->value;
}

static void describe(struct bt_http_call *call, CURLcode code, struct bt_err *err)
{
	long os_error = 0;
	curl_easy_getinfo(call->easy, CURLINFO_OS_ERRNO, &os_error);
	if (call->refused)
		bt_err_set(err, BT_E_REFUSED, "%s: ended by the reader", call->where);
	else if (call->too_large)
		bt_err_set(err, BT_E_REFUSED, "%s: the answer is larger than %zu bytes",
			call->where, call->max_body);
	else if (code == CURLE_OPERATION_TIMEDOUT)
		bt_err_set(err, BT_E_TIMEOUT, "%s: %s", call->where,
			call->reason[0] ? call->reason : "no answer in time");
	else if (code == CURLE_COULDNT_CONNECT && os_error)
		bt_err_set(err, BT_E_UNREACHABLE, "%s: connect: %s", call->where,
			strerror((int)os_error));
	else if (call->pin_sha256 && code == CURLE_PEER_FAILED_VERIFICATION)
		bt_err_set(err, BT_E_UNREACHABLE,
			"%s: the server does not show a certificate of the authority the join "
			"token names, or not for this address: check the URL and the token (%s)",
			call->where, call->reason);
	else
		bt_err_set(err, BT_E_UNREACHABLE, "%s: %s", call->where,
			call->reason[0] ? call->reason : curl_easy_strerror(code));
}

static void finish(struct bt_http_call *call, CURLcode code)
{
	struct bt_err err = {0};
	long status = 0;
	call->client->depth++;
	curl_multi_remove_handle(call->client->multi, call->easy);
	call->client->depth--;
	call->added = false;
	call->finishing = true;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	struct bt_http_response r = {.header = response_header, .priv = call};
	r.body = bt_str_get(&call->answer);
	r.body_len = call->answer.len;
	r.sent = call->began;
	if (code == CURLE_OK)
		r.status = (int)status;
	else
		describe(call, code, &err);
	if (!call->cancelled)
		call->done(call->arg, &r, r.status ? NULL : &err);
	call_free(call);
}

static void drain(struct bt_http_client *c)
{
	CURLMsg *msg;
	int left;
	while ((msg = curl_multi_info_read(c->multi, &left)))
		if (msg->msg == CURLMSG_DONE) {
			struct bt_http_call *call = NULL;
			CURLcode code = msg->data.result;
			curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&call);
			finish(call, code);
		}
}

/* ---- the loop's side ---- */

static void on_kick(evutil_socket_t fd, short what, void *arg)
{
	struct bt_http_client *c = arg;
	(void)fd;
	(void)what;
	for (struct bt_http_call *call = c->calls, *next; call; call = next) {
		next = call->next;
		if (call->cancelled) {
			call_free(call);
		} else if (!call->added) {
			call->added = true;
			c->depth++;
			curl_multi_add_handle(c->multi, call->easy);
			c->depth--;
		}
	}
}

static void act(struct bt_http_client *c, curl_socket_t fd, int mask)
{
	int running;
	c->depth++;
	curl_multi_socket_action(c->multi, fd, mask, &running);
	c->depth--;
	drain(c);
}

static void on_socket_event(evutil_socket_t fd, short what, void *arg)
{
	act(arg, fd,
		(what & EV_READ ? CURL_CSELECT_IN : 0) | (what & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void on_timer_event(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	act(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct bt_http_client *c = arg;
	struct event *ev = socket_arg;
	(void)easy;
	if (ev)
		event_free(ev);
	ev = NULL;
	if (what != CURL_POLL_REMOVE) {
		ev = event_new(c->base, fd,
			(short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) |
				(what & CURL_POLL_OUT ? EV_WRITE : 0)),
			on_socket_event, c);
		event_add(ev, NULL);
	}
	curl_multi_assign(c->multi, fd, ev);
	return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct bt_http_client *c = arg;
	(void)multi;
	if (timeout_ms < 0) {
		evtimer_del(c->timer);
	} else {
		bt_timer_in(c->timer, timeout_ms);
	}
	return 0;
}

struct bt_http_client *bt_http_client_new(struct event_base *base)
{
	struct bt_http_client *c = bt_calloc(1, sizeof *c);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	c->base = base;
	c->multi = curl_multi_init();
	if (!c->multi)
		abort();
	c->timer = evtimer_new(base, on_timer_event, c);
	c->kick = event_new(base, -1, 0, on_kick, c);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	curl_multi_setopt(c->multi, CURLMOPT_SOCKETDATA, c);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	curl_multi_setopt(c->multi, CURLMOPT_TIMERDATA, c);
	/* setting the option replaces the environment's list, so that is kept in front */
	const char *given = getenv("no_proxy") ? getenv("no_proxy") : getenv("NO_PROXY");
	c->no_proxy = bt_asprintf(
		"%s%slocalhost,127.0.0.1,::1", given ? given : "", given && *given ? "," : "");
	return c;
}

struct bt_http_client *bt_http_client_free(struct bt_http_client *c)
{
	if (!c)
		return NULL;
	assert(c->depth == 0);
	while (c->calls)
		call_free(c->calls);
	curl_multi_cleanup(c->multi);
	event_free(c->timer);
	event_free(c->kick);
	free(c->no_proxy);
	free(c);
	curl_global_cleanup();
	return NULL;
}
