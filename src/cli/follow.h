/* Stays with a deployment until its end: shows it, and turns a signal into an abort. */
#pragma once
#include "cli/client.h"
#include "cli/view.h"

struct bt_follow {
	struct bt_client *client;
	struct bt_view *view;
	int64_t id;
	const char *what; /* "shop 1.4.2", for the last line; NULL: read from the server */
	bool may_abort;	  /* SIGINT and SIGTERM abort it; else they only leave */
};
/* Exit code, or < 0. */
int bt_follow(const struct bt_follow *f, struct bt_err *err);
