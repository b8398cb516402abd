/* A managed nginx's certificate changes on disk every few weeks, without baton: it is noticed,
 * tried, and loaded by a reload. One that is no good is told (status, metrics) and left alone until
 * the files change again; nginx serves on with what it has in memory. */
#include "driver/nginx_unit.h"

#include "net/cert_pair.h"

#include <string.h>

static void set(char **text, const char *to)
{
	char *copy = bt_strdup(to);
	free(*text);
	*text = copy;
}

void bt_nginx_certificate_look(struct bt_nginx_site *site)
{
	const struct bt_nginx_state *s = site->state;
	if (!s || !s->has_confirmed || !s->certificate)
		return;
	BT_FREE char *now = bt_cert_pair_stamp(s->certificate, s->certificate_key);
	if (bt_streq(now, s->certificate_stamp)) {
		set(&site->certificate_trouble, NULL);
		set(&site->certificate_tried, NULL);
	} else if (!bt_streq(now, site->certificate_tried)) {
		set(&site->certificate_tried, now);
		bt_nginx_certificate_begin(site);
	}
}

void bt_nginx_certificate_ended(
	struct bt_nginx_site *site, bool own, int result, const struct bt_err *err)
{
	if (own) {
		BT_FREE char *text =
			result < 0 ? bt_asprintf("%s; the one from before serves on", err->text)
				   : NULL;
		set(&site->certificate_trouble, text);
	} else if (result == 0) {
		set(&site->certificate_tried, NULL); /* a restart, perhaps: look again */
	}
}
