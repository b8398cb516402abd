/* The page at `/`: its files as they are in web/, and nothing else. It gets everything it shows by
 * the API, as any client does, so these need no login and hold no secret.
 *
 * The policy below lets it run its own scripts only and talk to this server only: whatever a log
 * line or a service's name may contain, it cannot become a program. Files are checked by their ETag
 * on each load, so a browser never mixes two versions of baton. */
#include "server/api.h"
#include "server/page.h"

#include <string.h>

#define POLICY                                                                                     \
	"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "            \
	"img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

static const struct bt_page_file *find(const char *name)
{
	for (size_t i = 0; i < bt_page_files_n; i++)
		if (bt_streq(bt_page_files[i].name, name))
			return &bt_page_files[i];
	return NULL;
}

static void serve(struct bt_http_exchange *x, const char *name)
{
	const struct bt_page_file *f = find(name);
	const char *have = bt_http_request_header(x, "If-None-Match");
	const char *takes = bt_http_request_header(x, "Accept-Encoding");
	if (!f) {
		bt_api_error(x, BT_E_NOTFOUND, "the page has no file '%.80s'", name);
		return;
	}
	if (!takes || !strstr(takes, "gzip")) {
		bt_api_error(x, BT_E_PROTOCOL,
			"the page is sent as gzip, which this client does not take: use a browser "
			"(or curl --compressed)");
		return;
	}
	bt_http_reply_header(x, "Cache-Control", "no-cache");
	bt_http_reply_header(x, "ETag", f->etag);
	bt_http_reply_header(x, "Vary", "Accept-Encoding");
	bt_http_reply_header(x, "Content-Security-Policy", POLICY);
	bt_http_reply_header(x, "Referrer-Policy", "no-referrer");
	bt_http_reply_header(x, "Cross-Origin-Opener-Policy", "same-origin");
	bt_http_reply_header(x, "Cross-Origin-Resource-Policy", "same-origin");
	if (have && strstr(have, f->etag)) {
		bt_http_reply(x, 304, NULL, NULL, 0);
		return;
	}
	bt_http_reply_header(x, "Content-Encoding", "gzip");
	bt_http_reply(x, 200, f->type, bt_page_data + f->at, f->len);
}

void bt_api_page(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	serve(x, "index.html");
}

void bt_api_page_file(struct bt_http_exchange *x, void *arg)
{
	(void)arg;
	serve(x, bt_http_param(x, "file"));
}
