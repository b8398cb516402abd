/* Downloading one artifact. What arrived is kept in the part file, so each new try, of this agent
 * or the next, asks for the rest only. A try that brought something does not count as failed. */
#include "driver/artifact.h"

#include "base/clock.h"
#include "base/fs.h"
#include "base/str.h"
#include "net/http_client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 6
#define TRIES_EVER 200
#define STALL_S 30
#define SAY_EVERY_MS 500

struct bt_fetch {
	struct bt_fetch_spec spec;
	char *url;
	struct bt_http_call *call;
	struct event *timer; /* the stall while a call runs, else the pause before the next */
	int64_t have, said_ms;
	int64_t begun; /* `have` when this try began */
	int status, tries, tries_ever;
	bool restart;	   /* the part is of no use: begin at 0 */
	struct bt_err err; /* of the part's file: ends it */
};

static void try(struct bt_fetch *f);

static struct bt_fetch *fetch_free(struct bt_fetch *f)
{
	bt_http_cancel(f->call);
	event_free(f->timer);
	free(f->url);
	free(f);
	return NULL;
}

static void finish(struct bt_fetch *f, int result, const struct bt_err *err)
{
	struct bt_fetch_spec spec = f->spec;
	struct bt_err copy = err ? *err : (struct bt_err){0};
	fetch_free(f);
	spec.done(spec.arg, result, &copy);
}

static void again(struct bt_fetch *f, const struct bt_err *why)
{
	if (f->have > f->begun)
		f->tries = 0;
	if (++f->tries >= TRIES || ++f->tries_ever >= TRIES_EVER) {
		finish(f, why->code, why);
		return;
	}
	int64_t ms = 200 << f->tries;
	bt_timer_in(f->timer, ms);
}

static void say(struct bt_fetch *f)
{
	char line[96];
	const double mib = 1 << 20;
	int64_t now = bt_clock_boot_ms();
	if (!f->spec.progress || f->spec.size < 1 << 20 ||
		(now - f->said_ms < SAY_EVERY_MS && f->have < f->spec.size))
		return;
	f->said_ms = now;
	snprintf(line, sizeof line, "fetched %.1f of %.1f MiB", (double)f->have / mib,
		(double)f->spec.size / mib);
	f->spec.progress(f->spec.progress_arg, line);
}

static void on_headers(void *arg, int status)
{
	struct bt_fetch *f = arg;
	f->status = status;
	if (status != 200 || f->have == 0)
		return;
	/* The whole again, though a part was asked for. */
	f->have = 0;
	if (ftruncate(f->spec.fd, 0) < 0)
		bt_err_errno(&f->err, errno, "write the artifact");
}

static bool on_data(void *arg, const void *data, size_t n)
{
	struct bt_fetch *f = arg;
	const char *p = data;
	if (f->status != 200 && f->status != 206)
		return true; /* an error's body */
	if (f->err.code == 0 && (int64_t)n > f->spec.size - f->have)
		bt_err_set(&f->err, BT_E_CORRUPT,
			"the server sends more than the %lld bytes it named",
			(long long)f->spec.size);
	while (f->err.code == 0 && n > 0) {
		ssize_t w = pwrite(f->spec.fd, p, n, f->have);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			bt_err_errno(&f->err, errno, "write the artifact");
			break;
		}
		p += w;
		n -= (size_t)w;
		f->have += w;
	}
	bt_timer_in(f->timer, STALL_S * 1000);
	say(f);
	return f->err.code == 0;
}

static void on_answer(void *arg, const struct bt_http_response *r, const struct bt_err *err)
{
	struct bt_fetch *f = arg;
	struct bt_err why = {0};
	f->call = NULL;
	event_del(f->timer);
	if (f->err.code) {
		finish(f, f->err.code, &f->err);
	} else if (r->status == 0) {
		why = *err;
		again(f, &why);
	} else if (r->status == 416 && f->have > 0) {
		bt_err_set(&why, BT_E_CORRUPT, "fetch %s: the server refuses the range", f->url);
		f->have = f->begun = 0;
		if (ftruncate(f->spec.fd, 0) < 0)
			bt_err_errno(&why, errno, "write the artifact");
		again(f, &why);
	} else if (r->status >= 500 || r->status == 408 || r->status == 429) {
		bt_err_set(&why, BT_E_UNREACHABLE, "fetch %s: the server answers %d", f->url,
			r->status);
		again(f, &why);
	} else if (r->status != 200 && r->status != 206) {
		bt_err_set(&why, r->status == 404 ? BT_E_NOTFOUND : BT_E_REFUSED,
			"fetch %s: the server answers %d", f->url, r->status);
		finish(f, why.code, &why);
	} else if (f->have < f->spec.size) {
		bt_err_set(&why, BT_E_UNREACHABLE,
			"fetch %s: the answer ended at %lld of %lld bytes", f->url,
			(long long)f->have, (long long)f->spec.size);
		again(f, &why);
	} else {
		finish(f, 0, NULL);
	}
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct bt_fetch *f = arg;
	struct bt_err why = {0};
	(void)fd;
	(void)what;
	if (f->have == f->spec.size && !f->call) {
		finish(f, 0, NULL);
		return;
	}
	if (!f->call) {
		try(f);
		return;
	}
	f->call = bt_http_cancel(f->call);
	bt_err_set(&why, BT_E_TIMEOUT, "fetch %s: nothing came for %d s", f->url, STALL_S);
	again(f, &why);
}

static void try(struct bt_fetch *f)
{
	char range[64];
	struct bt_http_header header = {"Range", range};
	snprintf(range, sizeof range, "bytes=%lld-", (long long)f->have);
	struct bt_http_request rq = {.method = "GET",
		.url = f->url,
		.headers = &header,
		.n_headers = f->have > 0,
		.tls = f->spec.env->tls,
		.on_headers = on_headers,
		.on_data = on_data};
	f->begun = f->have;
	f->status = 0;
	bt_timer_in(f->timer, STALL_S * 1000);
	f->call = bt_http_start(f->spec.env->http, &rq, on_answer, f);
}

struct bt_fetch *bt_fetch_start(const struct bt_fetch_spec *spec)
{
	struct bt_fetch *f = bt_calloc(1, sizeof *f);
	struct stat st;
	f->spec = *spec;
	f->url = bt_strdup(spec->url);
	f->timer = event_new(spec->env->base, -1, 0, on_timer, f);
	f->have = fstat(spec->fd, &st) == 0 ? st.st_size : 0;
	if (f->have > spec->size) {
		f->have = 0;
		if (ftruncate(spec->fd, 0) < 0)
			f->have = 0; /* pwrite overwrites it; the digest is checked anyway */
	}
	bt_timer_in(f->timer, 0);
	return f;
}

struct bt_fetch *bt_fetch_cancel(struct bt_fetch *f)
{
	return f ? fetch_free(f) : NULL;
}
